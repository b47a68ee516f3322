"""What PostgreSQL's catalog tells of things that may not hold: constraints, indexes, triggers, pages.

Names are as one writes them on this connection. What extensions have brought along is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dao.engine import fetch
from dao.migrate.schema.postgresql.pieces import OF_USERS, RELATIONS, brought_along, column_names, qualified

__all__ = ["Constraint", "Key", "amcheck", "constraints", "disabled_triggers", "failed_checksums", "invalid_indexes"]

_TABLE = qualified("c.relname")
_USERS = f"{OF_USERS} AND NOT {brought_along('pg_class', 'c.oid', 'e')}"
_PRIMARY = "(SELECT p.conkey FROM pg_constraint AS p WHERE p.conrelid = c.oid AND p.contype = 'p')"
_NAME = "quote_ident(own.attname)"

_CONSTRAINTS = f"""
SELECT CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || {_TABLE}, {_TABLE}, o.contype::text,
       quote_ident(o.conname), pg_get_expr(o.conbin, o.conrelid), {column_names("o.conkey", "c.oid", _NAME)},
       coalesce({column_names(_PRIMARY, "c.oid", _NAME)}, '{{}}'),
       CASE WHEN o.contype = 'f' THEN o.confrelid::regclass::text END,
       {column_names("o.confkey", "o.confrelid", _NAME)}, o.confmatchtype = 'f'
{RELATIONS}
JOIN   pg_constraint AS o ON o.conrelid = c.oid
WHERE  {_USERS} AND c.relkind IN ('r', 'p') AND o.conparentid = 0
       AND (o.contype = 'f' OR (o.contype = 'c' AND (o.conislocal OR NOT c.relispartition))
            OR (o.contype = 'n' AND NOT o.convalidated))
       -- PostgreSQL 18 has constraints that are not to be enforced, and keys over times
       AND coalesce(to_jsonb(o) ->> 'conenforced', 'true') = 'true'
       AND coalesce(to_jsonb(o) ->> 'conperiod', 'false') = 'false'
ORDER  BY 2, o.contype DESC, o.conname
"""
_INVALID_INDEXES = f"""
SELECT {_TABLE}, {qualified("x.relname", "y")},
       EXISTS (SELECT FROM pg_stat_progress_create_index AS g WHERE g.index_relid = x.oid)
{RELATIONS}
JOIN   pg_index AS i ON i.indrelid = c.oid AND NOT i.indisvalid
JOIN   pg_class AS x ON x.oid = i.indexrelid AND x.relkind = 'i'
JOIN   pg_namespace AS y ON y.oid = x.relnamespace
WHERE  {_USERS}
ORDER  BY 2
"""
_DISABLED_TRIGGERS = f"""
SELECT {_TABLE}, CASE WHEN t.tgisinternal THEN NULL ELSE quote_ident(t.tgname) END, min(quote_ident(k.conname))
{RELATIONS}
JOIN   pg_trigger AS t ON t.tgrelid = c.oid AND t.tgenabled = 'D' AND t.tgparentid = 0
LEFT   JOIN pg_constraint AS k ON k.oid = t.tgconstraint
WHERE  {_USERS}
GROUP  BY 1, 2, t.tgconstraint
ORDER  BY 1, 2, 3
"""
_CHECKSUMS = """
SELECT checksum_failures, to_char(checksum_last_failure AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
FROM   pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
"""
_AMCHECK = """
SELECT quote_ident(n.nspname)
FROM   pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE  e.extname = 'amcheck'
"""
_STORED = f"""
SELECT {_TABLE}, c.oid::text, c.relkind = 'i'
{RELATIONS}
LEFT   JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN   pg_am AS m ON m.oid = c.relam AND m.amname IN ('heap', 'btree')
WHERE  {_USERS} AND c.relkind IN ('r', 'm', 'i') AND c.relpersistence <> 't'
       AND (i.indexrelid IS NULL OR (i.indisvalid AND i.indisready))
ORDER  BY 1
"""


class Key(NamedTuple):
    """What a foreign key refers to, and whether all of its columns must be NULL if one is (MATCH FULL)."""

    parent: str
    columns: list[str]
    is_full: bool


class Constraint(NamedTuple):
    """A foreign key, a CHECK, or a NOT NULL that was never validated; the last two have a condition, a key has none.

    `source` is what to read its rows FROM, `primary` the columns of the table's primary key.
    """

    source: str
    table: str
    name: str
    columns: list[str]
    primary: list[str]
    condition: str | None
    key: Key | None


def constraints(connection: Any) -> list[Constraint]:
    """Return the constraints that rows may break, by table: keys, CHECKs, and a NOT NULL that is not valid."""
    found = []
    for source, table, kind, name, condition, columns, primary, parent, theirs, is_full in fetch(
        connection, _CONSTRAINTS
    ):
        holds = f"{columns[0]} IS NOT NULL" if kind == "n" else condition
        key = Key(parent, theirs, is_full) if kind == "f" else None
        found.append(Constraint(source, table, name, columns, primary, holds, key))
    return found


def invalid_indexes(connection: Any) -> list[tuple[str, str, bool]]:
    """Return the indexes that are not valid: the table, the index, and whether it is being built at this moment."""
    return [(table, index, built) for table, index, built in fetch(connection, _INVALID_INDEXES)]


def disabled_triggers(connection: Any) -> list[tuple[str, str | None, str | None]]:
    """Return the triggers that are disabled: the table, the trigger, or None and the foreign key that it enforces."""
    return [(table, trigger, key) for table, trigger, key in fetch(connection, _DISABLED_TRIGGERS)]


def failed_checksums(connection: Any) -> tuple[int, str] | None:
    """Return how many pages were found damaged since the statistics began, and the last time; None if none was."""
    return next(((number, at) for number, at in fetch(connection, _CHECKSUMS)), None)


def amcheck(connection: Any) -> tuple[str, list[tuple[str, str, bool]]] | None:
    """Return the schema of the extension amcheck, and what it can look at; None if the database does not have it.

    Those are tables and B-tree indexes, each with its name, its number, and whether it is an index.
    """
    schema = next((name for (name,) in fetch(connection, _AMCHECK)), None)
    if schema is None:
        return None
    return schema, [(name, oid, is_index) for name, oid, is_index in fetch(connection, _STORED)]
