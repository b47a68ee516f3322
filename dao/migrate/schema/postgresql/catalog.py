"""The system catalog of PostgreSQL: all SQL over `pg_catalog` that tells what a schema is made of.

All texts are the server's own (`pg_get_viewdef` and its like), with names as one writes them where the schema of the
connection, `current_schema()`, is the only one in the search path, and the same whatever the session has set. Left out
are extensions' objects, temporary ones, and what PostgreSQL makes by itself for another object, such as the index of a
constraint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from dao.engine import postgresql
from dao.migrate.schema.postgresql.pieces import OF_USERS, RELATIONS, brought_along, qualified

__all__ = ["Row", "dependencies", "rows"]


class Row(NamedTuple):
    """One thing that the catalog tells of an object; the first of an object has its own comment and rights.

    `id` is the object's, for `dependencies`. `table` is what it belongs to, None if it is none's. `family` is as of
    `model.Item`, None if this is no item, and `label` its name. `rights` are aclitems, one a line, None if nobody has
    changed them.
    """

    id: str
    type: str
    name: str
    table: str | None
    family: str | None
    label: str | None
    text: str | None
    comment: str | None
    owner: str | None
    rights: str | None


# ---------------------------------------------------------------- pieces of SQL


def _id(catalog: str, oid: str) -> str:
    return f"'{catalog} ' || {oid}"


def _users(catalog: str, oid: str) -> str:
    """Return a condition: it is in a schema for users, and no extension or other object has brought it along."""
    return f"{OF_USERS} AND NOT {brought_along(catalog, oid)}"


def _rights(acl: str) -> str:
    return f"array_to_string({acl}, chr(10))"


_RELATION = qualified("c.relname")
_OF_TABLE = (
    f"{_id('pg_class', 'c.oid')}, CASE c.relkind WHEN 'f' THEN 'foreign table' ELSE 'table' END, {_RELATION}, NULL"
)
_IS_TABLE = f"c.relkind IN ('r', 'p', 'f') AND {_users('pg_class', 'c.oid')}"

# What differs from a sequence's defaults.
_LARGEST = """CASE s.seqtypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
                              ELSE 9223372036854775807 END"""
_SEQUENCE = f"""concat_ws(' ',
    CASE WHEN s.seqincrement <> 1 THEN 'INCREMENT BY ' || s.seqincrement END,
    CASE WHEN s.seqmin <> CASE WHEN s.seqincrement > 0 THEN 1 ELSE -({_LARGEST}) - 1 END
         THEN 'MINVALUE ' || s.seqmin END,
    CASE WHEN s.seqmax <> CASE WHEN s.seqincrement > 0 THEN {_LARGEST} ELSE -1 END THEN 'MAXVALUE ' || s.seqmax END,
    CASE WHEN s.seqstart <> CASE WHEN s.seqincrement > 0 THEN s.seqmin ELSE s.seqmax END
         THEN 'START WITH ' || s.seqstart END,
    CASE WHEN s.seqcache <> 1 THEN 'CACHE ' || s.seqcache END,
    CASE WHEN s.seqcycle THEN 'CYCLE' END)"""
_COLLATION = """(SELECT ' COLLATE ' || CASE WHEN x.nspname = 'pg_catalog' THEN '' ELSE quote_ident(x.nspname) || '.' END
                        || quote_ident(l.collname)
                 FROM   pg_collation AS l JOIN pg_namespace AS x ON x.oid = l.collnamespace
                 WHERE  l.oid = {0} AND l.oid <> {1})"""

# ---------------------------------------------------------------- statements that give rows as `Row` has them

_SCHEMAS = f"""
SELECT {_id("pg_namespace", "n.oid")}, 'schema', quote_ident(n.nspname), NULL, 'definition', NULL,
       'CREATE SCHEMA ' || quote_ident(n.nspname), obj_description(n.oid, 'pg_namespace'), pg_get_userbyid(n.nspowner),
       {_rights("n.nspacl")}
FROM   pg_namespace AS n
WHERE  {_users("pg_namespace", "n.oid")} AND n.nspname <> 'public' AND n.nspname IS DISTINCT FROM current_schema()
"""
_EXTENSIONS = f"""
SELECT {_id("pg_extension", "e.oid")}, 'extension', quote_ident(e.extname), NULL, 'definition', NULL,
       'CREATE EXTENSION ' || quote_ident(e.extname)
       || CASE WHEN n.nspname = current_schema() OR n.nspname = 'pg_catalog' THEN ''
               ELSE ' WITH SCHEMA ' || quote_ident(n.nspname) END, NULL, NULL, NULL
FROM   pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE  e.extname <> 'plpgsql'
"""
_TYPES = f"""
SELECT {_id("pg_type", "t.oid")}, CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, {qualified("t.typname")},
       NULL, 'definition', NULL,
       CASE t.typtype
           WHEN 'e' THEN 'CREATE TYPE ' || {qualified("t.typname")} || ' AS ENUM (' || (
               SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
               FROM   pg_enum WHERE enumtypid = t.oid) || ')'
           WHEN 'c' THEN 'CREATE TYPE ' || {qualified("t.typname")} || ' AS (' || (
               SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                                 || coalesce({_COLLATION.format("a.attcollation", "y.typcollation")}, ''),
                                 ', ' ORDER BY a.attnum)
               FROM   pg_attribute AS a JOIN pg_type AS y ON y.oid = a.atttypid
               WHERE  a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) || ')'
           WHEN 'r' THEN 'CREATE TYPE ' || {qualified("t.typname")} || ' AS RANGE (SUBTYPE = ' || (
               SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid) || ')'
           ELSE 'CREATE DOMAIN ' || {qualified("t.typname")} || ' AS ' || format_type(t.typbasetype, t.typtypmod)
                || coalesce({_COLLATION.format("t.typcollation", "b.typcollation")}, '')
                || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END || coalesce(' DEFAULT ' || t.typdefault, '')
       END, obj_description(t.oid, 'pg_type'), pg_get_userbyid(t.typowner), {_rights("t.typacl")}
FROM   pg_type AS t
JOIN   pg_namespace AS n ON n.oid = t.typnamespace
LEFT   JOIN pg_type AS b ON b.oid = t.typbasetype
LEFT   JOIN pg_class AS c ON c.oid = t.typrelid
WHERE  (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')) AND {_users("pg_type", "t.oid")}
"""
_DOMAIN_CHECKS = f"""
SELECT {_id("pg_type", "t.oid")}, 'domain', {qualified("t.typname")}, NULL, 'check', quote_ident(k.conname),
       pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'), NULL, NULL
FROM   pg_constraint AS k
JOIN   pg_type AS t ON t.oid = k.contypid
JOIN   pg_namespace AS n ON n.oid = t.typnamespace
WHERE  k.contype = 'c' AND {_users("pg_type", "t.oid")}
ORDER  BY k.conname
"""
_SEQUENCES = f"""
SELECT {_id("pg_class", "c.oid")}, 'sequence', {_RELATION}, {qualified("w.relname", "x")}, o.family, o.label, o.text,
       obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner), {_rights("c.relacl")}
{RELATIONS}
JOIN   pg_sequence AS s ON s.seqrelid = c.oid
LEFT   JOIN (pg_depend AS d JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             JOIN pg_class AS w ON w.oid = a.attrelid JOIN pg_namespace AS x ON x.oid = w.relnamespace)
       ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
          AND d.deptype = 'a'
CROSS  JOIN LATERAL (VALUES
    ('definition', NULL, concat_ws(' ', 'CREATE SEQUENCE', {_RELATION},
                                   CASE WHEN s.seqtypid <> 'int8'::regtype THEN 'AS ' || s.seqtypid::regtype END,
                                   nullif({_SEQUENCE}, ''))),
    ('option', 'OWNED BY', 'OWNED BY ' || {qualified("w.relname", "x")} || '.' || quote_ident(a.attname))
) AS o (family, label, text)
WHERE  {_users("pg_class", "c.oid")} AND o.text IS NOT NULL
ORDER  BY o.family
"""
_TABLES = f"""
SELECT {_OF_TABLE}, CASE WHEN o.text IS NOT NULL THEN 'option' END, o.label, o.text, obj_description(c.oid, 'pg_class'),
       pg_get_userbyid(c.relowner), {_rights("c.relacl")}
{RELATIONS}
CROSS  JOIN LATERAL (VALUES
    (1, NULL, NULL),
    (2, 'UNLOGGED', CASE WHEN c.relpersistence = 'u' THEN 'UNLOGGED' END),
    (3, 'PARTITION BY', CASE WHEN c.relkind = 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(c.oid) END),
    (4, 'INHERITS', CASE WHEN NOT c.relispartition THEN (
        SELECT 'INHERITS (' || string_agg({qualified("w.relname", "x")}, ', ' ORDER BY i.inhseqno) || ')'
        FROM   pg_inherits AS i JOIN pg_class AS w ON w.oid = i.inhparent
        JOIN   pg_namespace AS x ON x.oid = w.relnamespace WHERE i.inhrelid = c.oid) END),
    (5, 'PARTITION OF', CASE WHEN c.relispartition THEN (
        SELECT {qualified("w.relname", "x")} || ' ATTACH PARTITION ' || {_RELATION} || ' '
               || pg_get_expr(c.relpartbound, c.oid)
        FROM   pg_inherits AS i JOIN pg_class AS w ON w.oid = i.inhparent
        JOIN   pg_namespace AS x ON x.oid = w.relnamespace WHERE i.inhrelid = c.oid) END),
    (6, 'SERVER', (
        SELECT 'SERVER ' || quote_ident(v.srvname) || coalesce(' OPTIONS (' || (
                   SELECT string_agg(quote_ident(option_name) || ' ' || quote_literal(option_value), ', ')
                   FROM   pg_options_to_table(f.ftoptions)) || ')', '')
        FROM   pg_foreign_table AS f JOIN pg_foreign_server AS v ON v.oid = f.ftserver WHERE f.ftrelid = c.oid)),
    (7, 'WITH', 'WITH (' || array_to_string(c.reloptions, ', ') || ')'),
    (8, 'ROW LEVEL SECURITY', CASE WHEN c.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END),
    (9, 'FORCE ROW LEVEL SECURITY', CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END),
    (10, 'REPLICA IDENTITY', CASE c.relreplident WHEN 'f' THEN 'REPLICA IDENTITY FULL'
                                                 WHEN 'n' THEN 'REPLICA IDENTITY NOTHING'
                                                 WHEN 'i' THEN 'REPLICA IDENTITY USING INDEX ' || (
        SELECT quote_ident(w.relname) FROM pg_index AS i JOIN pg_class AS w ON w.oid = i.indexrelid
        WHERE  i.indrelid = c.oid AND i.indisreplident) END)
) AS o (place, label, text)
WHERE  {_IS_TABLE} AND (o.text IS NOT NULL OR o.place = 1)
ORDER  BY o.place
"""
_COLUMNS = f"""
SELECT {_OF_TABLE}, 'column', quote_ident(a.attname), concat(
           format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attstorage <> t.typstorage THEN ' STORAGE ' || CASE a.attstorage
               WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
           CASE a.attcompression WHEN 'p' THEN ' COMPRESSION pglz' WHEN 'l' THEN ' COMPRESSION lz4' END,
           {_COLLATION.format("a.attcollation", "t.typcollation")},
           CASE WHEN a.attnotnull AND NOT EXISTS (
               SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated
                                              AND k.conkey[1] = a.attnum) THEN ' NOT NULL' END,
           CASE a.attgenerated WHEN 's' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, c.oid) || ') STORED'
                               WHEN 'v' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, c.oid) || ')'
                               ELSE ' DEFAULT ' || pg_get_expr(d.adbin, c.oid) END,
           -- a partition has its parent's
           CASE WHEN c.relispartition THEN NULL
                WHEN a.attidentity = 'a' THEN ' GENERATED ALWAYS AS IDENTITY'
                WHEN a.attidentity = 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' END,
           CASE WHEN a.attidentity <> '' THEN (
               SELECT ' (' || nullif({_SEQUENCE}, '') || ')' FROM pg_depend AS p
               JOIN   pg_sequence AS s ON s.seqrelid = p.objid
               WHERE  p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass
                      AND p.refobjid = c.oid AND p.refobjsubid = a.attnum AND p.deptype = 'i') END),
       col_description(c.oid, a.attnum), pg_get_userbyid(c.relowner), {_rights("a.attacl")}
{RELATIONS}
JOIN   pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN   pg_type AS t ON t.oid = a.atttypid
LEFT   JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE  {_IS_TABLE} AND (a.attislocal OR c.relispartition)
ORDER  BY a.attnum
"""
_CONSTRAINTS = f"""
SELECT {_OF_TABLE}, CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'x' THEN 'exclusion'
                                   WHEN 'f' THEN 'foreign key' WHEN 'n' THEN 'not null' ELSE 'check' END,
       quote_ident(k.conname), pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'), NULL, NULL
{RELATIONS}
JOIN   pg_constraint AS k ON k.conrelid = c.oid
WHERE  {_IS_TABLE} AND (k.contype = 'c' OR (k.contype = 'n' AND NOT k.convalidated)
                        OR (k.contype IN ('p', 'u', 'x', 'f') AND k.conislocal AND k.conparentid = 0))
ORDER  BY k.conname
"""
_VIEWS = f"""
SELECT {_id("pg_class", "c.oid")}, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, {_RELATION}, NULL,
       'definition', NULL, concat(
           CASE c.relkind WHEN 'v' THEN 'CREATE VIEW ' ELSE 'CREATE MATERIALIZED VIEW ' END, {_RELATION},
           ' WITH (' || array_to_string(c.reloptions, ', ') || ')', ' AS', chr(10),
           rtrim(pg_get_viewdef(c.oid), ';')),
       obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner), {_rights("c.relacl")}
{RELATIONS}
WHERE  c.relkind IN ('v', 'm') AND {_users("pg_class", "c.oid")}
"""
_FUNCTION = f"{qualified('p.proname')} || '(' || oidvectortypes(p.proargtypes) || ')'"
_FUNCTIONS = f"""
SELECT {_id("pg_proc", "p.oid")},
       CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END, {_FUNCTION}, NULL,
       'definition', NULL, CASE p.prokind
           WHEN 'a' THEN 'CREATE AGGREGATE ' || {qualified("p.proname")} || ' ('
               || pg_get_function_identity_arguments(p.oid) || ') (SFUNC = ' || g.aggtransfn::regproc || ', STYPE = '
               || format_type(g.aggtranstype, NULL)
               || CASE WHEN g.aggfinalfn <> 0 THEN ', FINALFUNC = ' || g.aggfinalfn::regproc ELSE '' END
               || CASE WHEN g.aggcombinefn <> 0 THEN ', COMBINEFUNC = ' || g.aggcombinefn::regproc ELSE '' END
               || coalesce(', INITCOND = ' || quote_literal(g.agginitval), '') || ')'
           -- its name stands there with its schema in any case
           ELSE regexp_replace(overlay(pg_get_functiondef(p.oid) PLACING {qualified("p.proname")}
                    FROM CASE p.prokind WHEN 'p' THEN 29 ELSE 28 END
                    FOR length(quote_ident(n.nspname) || '.' || quote_ident(p.proname))), '\\s+$', '')
       END, obj_description(p.oid, 'pg_proc'), pg_get_userbyid(p.proowner), {_rights("p.proacl")}
FROM   pg_proc AS p
JOIN   pg_namespace AS n ON n.oid = p.pronamespace
LEFT   JOIN pg_aggregate AS g ON g.aggfnoid = p.oid
WHERE  {_users("pg_proc", "p.oid")}
"""
_ON_TABLE = f" || ' ON ' || {_RELATION}, {_RELATION}"
_INDEXES = f"""
SELECT {_id("pg_class", "x.oid")}, 'index', {qualified("x.relname")}, {_RELATION}, o.family, o.label, o.text,
       obj_description(x.oid, 'pg_class'), NULL, NULL
{RELATIONS}
JOIN   pg_index AS i ON i.indrelid = c.oid
JOIN   pg_class AS x ON x.oid = i.indexrelid AND NOT x.relispartition
CROSS  JOIN LATERAL (VALUES
    ('definition', NULL, CASE WHEN c.relkind = 'p' THEN replace(pg_get_indexdef(x.oid, 0, true), ' ON ONLY ', ' ON ')
                              ELSE pg_get_indexdef(x.oid, 0, true) END),
    ('option', 'INVALID', CASE WHEN NOT i.indisvalid THEN 'INVALID' END)
) AS o (family, label, text)
WHERE  c.relkind IN ('r', 'p', 'm') AND {_users("pg_class", "c.oid")} AND o.text IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))
ORDER  BY o.family
"""
_STATISTICS = f"""
SELECT {_id("pg_statistic_ext", "s.oid")}, 'statistics', {qualified("s.stxname", "y")}, {_RELATION}, 'definition',
       NULL, overlay(pg_get_statisticsobjdef(s.oid) PLACING {qualified("s.stxname", "y")} FROM 19
                     FOR length(quote_ident(y.nspname) || '.' || quote_ident(s.stxname))),
       obj_description(s.oid, 'pg_statistic_ext'), NULL, NULL
{RELATIONS}
JOIN   pg_statistic_ext AS s ON s.stxrelid = c.oid
JOIN   pg_namespace AS y ON y.oid = s.stxnamespace
WHERE  {_users("pg_class", "c.oid")}
"""
_TRIGGERS = f"""
SELECT {_id("pg_trigger", "g.oid")}, 'trigger', quote_ident(g.tgname){_ON_TABLE}, o.family, o.label, o.text,
       obj_description(g.oid, 'pg_trigger'), NULL, NULL
{RELATIONS}
JOIN   pg_trigger AS g ON g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgparentid = 0
CROSS  JOIN LATERAL (VALUES
    ('definition', NULL, pg_get_triggerdef(g.oid, true)),
    ('option', 'state', CASE g.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                                         WHEN 'A' THEN 'ENABLE ALWAYS' END
                        || ' TRIGGER ' || quote_ident(g.tgname))
) AS o (family, label, text)
WHERE  {_users("pg_class", "c.oid")} AND o.text IS NOT NULL
ORDER  BY o.family
"""
_RULES = f"""
SELECT {_id("pg_rewrite", "r.oid")}, 'rule', quote_ident(r.rulename){_ON_TABLE}, 'definition', NULL,
       rtrim(pg_get_ruledef(r.oid, true), ';'), obj_description(r.oid, 'pg_rewrite'), NULL, NULL
{RELATIONS}
JOIN   pg_rewrite AS r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
WHERE  {_users("pg_class", "c.oid")}
"""
_POLICIES = f"""
SELECT {_id("pg_policy", "q.oid")}, 'policy', quote_ident(q.polname){_ON_TABLE}, 'definition', NULL, concat(
           'CREATE POLICY ', quote_ident(q.polname), ' ON ', {_RELATION},
           CASE WHEN NOT q.polpermissive THEN ' AS RESTRICTIVE' END,
           CASE q.polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE'
                         WHEN 'd' THEN ' FOR DELETE' END,
           CASE WHEN q.polroles <> '{{0}}' THEN (
               SELECT ' TO ' || string_agg(quote_ident(pg_get_userbyid(one)), ', ' ORDER BY pg_get_userbyid(one))
               FROM   unnest(q.polroles) AS one) END,
           ' USING (' || pg_get_expr(q.polqual, c.oid) || ')',
           ' WITH CHECK (' || pg_get_expr(q.polwithcheck, c.oid) || ')'),
       obj_description(q.oid, 'pg_policy'), NULL, NULL
{RELATIONS}
JOIN   pg_policy AS q ON q.polrelid = c.oid
WHERE  {_users("pg_class", "c.oid")}
"""
_STATEMENTS = (
    *(_SCHEMAS, _EXTENSIONS, _TYPES, _DOMAIN_CHECKS, _SEQUENCES, _TABLES, _COLUMNS, _CONSTRAINTS, _VIEWS),
    *(_FUNCTIONS, _INDEXES, _STATISTICS, _TRIGGERS, _RULES, _POLICIES),
)
# ---------------------------------------------------------------- what depends on what, by `Row.id`

_DEPENDENCIES = f"""
SELECT DISTINCT CASE d.classid
           WHEN 'pg_attrdef'::regclass THEN (SELECT {_id("pg_class", "adrelid")} FROM pg_attrdef WHERE oid = d.objid)
           WHEN 'pg_rewrite'::regclass THEN (SELECT {_id("pg_class", "ev_class")} FROM pg_rewrite WHERE oid = d.objid)
           WHEN 'pg_constraint'::regclass THEN (
               SELECT CASE conrelid WHEN 0 THEN {_id("pg_type", "contypid")} ELSE {_id("pg_class", "conrelid")} END
               FROM   pg_constraint WHERE oid = d.objid AND contype <> 'f')
           WHEN 'pg_type'::regclass THEN {_id("pg_type", "d.objid")}
           ELSE d.classid::regclass::text || ' ' || d.objid END,
       CASE WHEN t.typelem <> 0 THEN CASE e.typrelid WHEN 0 THEN {_id("pg_type", "e.oid")} ELSE o.id END
            WHEN t.typrelid <> 0 THEN o.id
            ELSE d.refclassid::regclass::text || ' ' || d.refobjid END
FROM   pg_depend AS d
LEFT   JOIN pg_type AS t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
LEFT   JOIN pg_type AS e ON e.oid = t.typelem
LEFT   JOIN LATERAL (
           SELECT CASE relkind WHEN 'c' THEN {_id("pg_type", "reltype")} ELSE {_id("pg_class", "oid")} END AS id
           FROM   pg_class WHERE oid = coalesce(nullif(t.typrelid, 0), e.typrelid)) AS o ON true
WHERE  d.deptype IN ('n', 'a') AND d.refobjid >= 16384
       -- a sequence is made before its table, and given to it after that
       AND NOT (d.deptype = 'a' AND d.classid = 'pg_class'::regclass AND EXISTS (
           SELECT FROM pg_sequence WHERE seqrelid = d.objid))
"""


# ---------------------------------------------------------------- asking

# How the server writes its texts, whatever the session has set.
_SETTINGS = (
    "SET LOCAL jit = off",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL quote_all_identifiers = off",
    "SELECT set_config('search_path', concat_ws(', ', quote_ident(current_schema()), 'pg_temp'), true)",
)


def rows(connection: Any) -> list[Row]:
    """Return all that the catalog tells of the objects in all schemas, those of PostgreSQL itself aside.

    The items of an object are in its order, but need not stand together. One round trip, which sees one moment if no
    transaction is open, and changes no setting of the session.
    """
    return [Row(*row) for found in _asked(connection, _STATEMENTS) for row in found]


def dependencies(connection: Any) -> list[tuple[str, str]]:
    """Return which object needs which, by their `Row.id`; some are of no object that `rows` tells."""
    (found,) = _asked(connection, (_DEPENDENCIES,))
    return [(of, on) for of, on in found if of and on and of != on]


def _asked(connection: Any, statements: Sequence[str]) -> list[list[Any]]:
    """Return the rows of each of these statements, of one round trip."""
    if postgresql.in_transaction(connection):
        begin, end = "SAVEPOINT dao_catalog", "ROLLBACK TO dao_catalog; RELEASE dao_catalog"
    else:
        begin, end = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "ROLLBACK"
    before = [begin, *_SETTINGS]
    try:
        found = postgresql.fetch_each(connection, ";\n".join([*before, *statements, end]))
    except psycopg.Error:
        with contextlib.suppress(psycopg.Error):  # a lost connection
            postgresql.fetch_each(connection, end)
        raise
    return found[len(before) : len(before) + len(statements)]
