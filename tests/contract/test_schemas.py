"""The schemas of both engines are one: what the catalogs say of the tables differs only where it is listed here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
import psycopg
import pytest

from tests.databases import SCRIPTS
from tests.strategies import TABLES

#: The CHECKs of SQLite that PostgreSQL does not need: the type of the column says the same.
BY_TYPE = {"sessions": {"sessions_is_active_boolean"}}
#: When the triggers run that keep updated_at: SQLite has no way to change a row that is about to be written.
TIMING = {"sqlite": "AFTER", "postgresql": "BEFORE"}
#: The triggers that SQLite has not: they notify whoever waits, count what TRUNCATE takes, or note that it is counted.
ONLY_POSTGRESQL = {
    "tasks": {"tasks_claimable_made": "AFTER", "tasks_claimable_become": "AFTER"},
    "task_dependencies": {"task_dependencies_emptied": "AFTER", "task_dependencies_change": "BEFORE"},
    "workflow_tasks": {"workflow_tasks_emptied": "AFTER"},
}
#: The triggers whose condition is a query, which stands in their function on PostgreSQL, or is not needed there.
ASK_IN_FUNCTION = {
    "task_dependencies_no_cycle",
    "task_dependencies_added",
    "task_dependencies_removed",
    "tasks_dependencies_deleted",
    "workflow_tasks_added",
    "workflow_tasks_removed",
    "task_events_created",
    "task_events_changed",
    "task_events_deleted",
    "tool_executions_attempt_current",
}
#: The types of columns, by what they hold.
TYPES = {
    "sqlite": {"text": "TEXT", "json": "TEXT", "time": "TEXT", "boolean": "INTEGER", "integer": "INTEGER"},
    "postgresql": {
        "text": "text",
        "json": "text",
        "time": "timestamp(3) with time zone",
        "boolean": "boolean",
        "integer": "bigint",
    },
}


@attrs.frozen(kw_only=True)
class Column:
    """A column: what may be stored in it. The default is a literal, True for an expression, or None."""

    name: str
    required: bool
    default: str | bool | None


@attrs.frozen(kw_only=True)
class ForeignKey:
    """A reference to another table."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str
    on_update: str


@attrs.frozen(kw_only=True)
class Index:
    """An index that CREATE INDEX made."""

    columns: tuple[str, ...]
    unique: bool
    predicate: str


@attrs.frozen(kw_only=True)
class Trigger:
    """A trigger: when it runs, at what, the columns that it watches, and the condition, without its spelling."""

    timing: str
    event: str
    columns: tuple[str, ...]
    condition: str


@attrs.frozen(kw_only=True)
class Relation:
    """A table, as the catalog of its engine has it."""

    columns: list[Column]
    primary_key: tuple[str, ...]
    checks: set[str]
    foreign_keys: dict[str, ForeignKey]
    indexes: dict[str, Index]
    triggers: dict[str, Trigger]


def _default(text: str | None) -> str | bool | None:
    """Return a literal without the marks of its type, True for any expression."""
    if text is None:
        return None
    if re.match(r"'\d[^']*\d\d:\d\d", text):
        return "the earliest time"  # in the zone of the session
    literal = re.fullmatch(r"'([^']*)'(?:::text)?", text)
    return literal[1] if literal else {"1": "true"}.get(text.lower(), text.lower()) if text.isalnum() else True


def _bare(condition: str | None) -> str:
    """Return a condition without parentheses, types, spaces and what each engine writes in its own way."""
    bare = re.sub(r"::\w+(\[\])?|[()\s]", "", (condition or "").lower())
    bare = re.sub(r"=anyarray\[(.*?)\]", r"in\1", bare)
    return bare.replace("isdistinctfrom", "isnot")


# ---------------------------------------------------------------- SQLite


def sqlite_relations(connection: Any) -> dict[str, Relation]:
    """Return the tables of a SQLite database."""

    def read(sql: str, *parameters: object) -> list[Any]:
        found: list[Any] = connection.execute(sql, parameters).fetchall()
        return found

    def relation(table: str, sql: str) -> Relation:
        info = read('SELECT name, "notnull", dflt_value, pk FROM pragma_table_info($1) ORDER BY cid', table)
        names = dict(re.findall(r"CONSTRAINT (\w+)\s+FOREIGN KEY \((\w+)\)", sql))
        names = {column: name for name, column in names.items()}
        keys = read(
            'SELECT "from", "table", "to", on_delete, on_update FROM pragma_foreign_key_list($1) ORDER BY id', table
        )
        made = read("SELECT name, \"unique\" FROM pragma_index_list($1) WHERE origin = 'c'", table)
        scripts = dict(read("SELECT name, sql FROM sqlite_schema WHERE tbl_name = $1 AND type <> 'table'", table))
        triggers = {
            name for (name,) in read("SELECT name FROM sqlite_schema WHERE tbl_name = $1 AND type = 'trigger'", table)
        }
        return Relation(
            columns=[
                Column(name=name, required=bool(required), default=_default(default))
                for name, required, default, _ in info
            ],
            primary_key=tuple(name for name, *_, place in sorted(info, key=lambda row: row[3]) if place),
            checks={*re.findall(r"CONSTRAINT (\w+)\s+CHECK", sql)},
            foreign_keys={
                names[column]: ForeignKey(
                    columns=(column,), parent=parent, parent_columns=(to,), on_delete=on_delete, on_update=on_update
                )
                for column, parent, to, on_delete, on_update in keys
            },
            indexes={
                name: Index(
                    columns=tuple(
                        f"{column} DESC" if descends else column or expression(scripts[name])
                        for column, descends in read(
                            'SELECT name, "desc" FROM pragma_index_xinfo($1) WHERE key ORDER BY seqno', name
                        )
                    ),
                    unique=bool(unique),
                    predicate=_bare((scripts[name].split("WHERE ", 1)[1:] or [None])[0]),
                )
                for name, unique in made
            },
            triggers={name: trigger(scripts[name]) for name in triggers},
        )

    def expression(sql: str) -> str:
        (found,) = re.findall(r"\w+\([^()]*\)", sql.partition(" WHERE ")[0].partition(" (")[2])
        return _bare(found)

    def trigger(sql: str) -> Trigger:
        found = re.search(
            r"(BEFORE|AFTER) (INSERT|DELETE|UPDATE OF(.*?))\s+ON \w+\s+FOR EACH ROW(?:\s+WHEN (.*?))?\s+BEGIN\b",
            sql,
            re.DOTALL,
        )
        assert found is not None, sql
        columns = tuple(re.findall(r"\w+", found[3] or ""))
        return Trigger(timing=found[1], event=found[2].split()[0], columns=columns, condition=_bare(found[4]))

    return {
        table: relation(table, sql)
        for table, sql in read("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    }


# ---------------------------------------------------------------- PostgreSQL

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def postgresql_relations(connection: Any) -> dict[str, Relation]:
    """Return the tables in the first schema of the search path of a PostgreSQL database."""

    def read(sql: str, *parameters: object) -> list[Any]:
        found: list[Any] = connection.execute(sql, parameters).fetchall()
        return found

    def columns(table: str, numbers: list[int]) -> tuple[str, ...]:
        names = dict(read("SELECT attnum, attname FROM pg_attribute WHERE attrelid = %s::regclass", table))
        return tuple(names[number] for number in numbers)

    def expression(text: str) -> str:
        return _bare(text) if "(" in text else text

    def relation(table: str) -> Relation:
        info = read(
            """
            SELECT attname, attnotnull, pg_get_expr(adbin, adrelid)
            FROM   pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE  attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
            ORDER  BY attnum
            """,
            table,
        )
        constraints = read(
            """
            SELECT conname, contype, conkey, confrelid::regclass::text, confkey, confdeltype, confupdtype, convalidated
            FROM   pg_constraint
            WHERE  conrelid = %s::regclass AND contype <> 'n'
            """,
            table,
        )
        assert all(valid for *_, valid in constraints)
        indexes = read(
            """
            SELECT relname, indexrelid, indnkeyatts, indisunique, pg_get_expr(indpred, indrelid)
            FROM   pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE  indrelid = %s::regclass AND NOT indisprimary AND indisvalid
            """,
            table,
        )
        triggers = read(
            "SELECT tgname, tgattr::int[], pg_get_triggerdef(oid), tgenabled FROM pg_trigger"
            " WHERE tgrelid = %s::regclass AND NOT tgisinternal",
            table,
        )
        assert all(enabled == "O" for *_, enabled in triggers)
        return Relation(
            columns=[
                Column(name=name, required=required, default=_default(default)) for name, required, default in info
            ],
            primary_key=next(columns(table, keys) for _, kind, keys, *_ in constraints if kind == "p"),
            checks={name for name, kind, *_ in constraints if kind == "c"},
            foreign_keys={
                name: ForeignKey(
                    columns=columns(table, keys),
                    parent=parent,
                    parent_columns=columns(parent, parent_keys),
                    on_delete=_ACTIONS[on_delete],
                    on_update=_ACTIONS[on_update],
                )
                for name, kind, keys, parent, parent_keys, on_delete, on_update, _ in constraints
                if kind == "f"
            },
            indexes={
                name: Index(
                    columns=tuple(
                        expression(read("SELECT pg_get_indexdef(%s, %s, true)", oid, place)[0][0])
                        + (
                            " DESC"
                            if read("SELECT pg_index_column_has_property(%s::oid, %s, 'desc')", oid, place)[0][0]
                            else ""
                        )
                        for place in range(1, width + 1)
                    ),
                    unique=unique,
                    predicate=_bare(predicate),
                )
                for name, oid, width, unique, predicate in indexes
            },
            triggers={
                name: Trigger(
                    timing=sql.split()[3],
                    event=sql.split()[4],
                    columns=columns(table, keys),
                    condition=_bare((sql.split(" EXECUTE ")[0].split(" WHEN ", 1)[1:] or [None])[0]),
                )
                for name, keys, sql, _ in triggers
            },
        )

    tables = read(
        "SELECT relname FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = quote_ident(current_schema())::regnamespace"
    )
    return {table: relation(table) for (table,) in tables}


# ---------------------------------------------------------------- the comparison


@pytest.fixture
def postgresql(postgresql_url) -> Iterator[Any]:
    """A connection of psycopg's own to a migrated, empty database."""
    with psycopg.connect(postgresql_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def both(connection, postgresql) -> dict[str, dict[str, Relation]]:
    """The tables of a new database of each engine."""
    return {"sqlite": sqlite_relations(connection), "postgresql": postgresql_relations(postgresql)}


def test_schemas_hold_the_same_tables_and_columns(both):
    """Both have the tables of the records: the same columns in order, the same required, the same defaults."""
    ours, theirs = both["sqlite"], both["postgresql"]
    assert ours.keys() == theirs.keys() == {table.name for table in TABLES.values()}
    for table in TABLES.values():
        assert ours[table.name].columns == theirs[table.name].columns
        assert {column.name for column in ours[table.name].columns} == {*table.columns}
        assert ours[table.name].primary_key == theirs[table.name].primary_key


def test_schemas_hold_the_same_constraints(both):
    """A CHECK and a foreign key have the same names, and the latter the same columns and actions."""
    for table, ours in both["sqlite"].items():
        theirs = both["postgresql"][table]
        assert ours.checks == theirs.checks | BY_TYPE.get(table, set())
        assert not theirs.checks & BY_TYPE.get(table, set())
        assert ours.foreign_keys == theirs.foreign_keys
    assert sum(len(table.foreign_keys) for table in both["sqlite"].values()) == 5


def test_schemas_hold_the_same_indexes(both):
    """An index has the same name, columns, order and condition on both engines."""
    for table, ours in both["sqlite"].items():
        assert ours.indexes == both["postgresql"][table].indexes
    assert sum(len(table.indexes) for table in both["sqlite"].values()) >= 23


def test_schemas_hold_the_same_triggers(both):
    """A trigger has the same name, event, columns and condition, but for the queries that PostgreSQL cannot ask there.

    All but those that keep `updated_at` run at the same moment, before the row is written or after it.
    """
    for table, relation in both["sqlite"].items():
        theirs = dict(both["postgresql"][table].triggers)
        for name, timing in ONLY_POSTGRESQL.get(table, {}).items():
            assert theirs.pop(name).timing == timing
        assert relation.triggers.keys() == theirs.keys()
        for name, ours in relation.triggers.items():
            asked = "" if name in ASK_IN_FUNCTION else ours.condition.partition("andexists")[0]
            expected = attrs.evolve(ours, condition=asked)
            if name.endswith("_updated_at"):
                assert ours.timing == TIMING["sqlite"]
                expected = attrs.evolve(ours, timing=TIMING["postgresql"])
            theirs_too = theirs[name]
            if name in {"tool_executions_attempt_current", "task_dependencies_no_cycle"}:
                theirs_too = attrs.evolve(theirs_too, condition="")
            assert theirs_too == expected, name
    every = [name for relation in both["sqlite"].values() for name in relation.triggers]
    assert len(every) == len(set(every)) >= 25
    assert set(every) >= ASK_IN_FUNCTION


def test_schemas_columns_have_the_types_of_what_they_hold(connection, postgresql):
    """Texts, JSON, times, booleans and whole numbers each have one type on each engine."""
    for kind, table in TABLES.items():
        holds = {}
        for field in attrs.fields(kind):
            annotation = kind.__annotations__[field.name]
            holds[field.name] = field.metadata.get("column", "integer" if annotation.startswith("int") else "text")
        found = {
            "sqlite": dict(
                connection.execute("SELECT name, type FROM pragma_table_info($1)", (table.name,)).fetchall()
            ),
            "postgresql": dict(
                postgresql.execute(
                    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                    " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                    (table.name,),
                ).fetchall()
            ),
        }
        for engine, types in found.items():
            assert types == {name: TYPES[engine][what] for name, what in holds.items()}


def test_schemas_columns_of_indexes_are_in_the_order_of_code_points(postgresql):
    """Each text of an index or a key has COLLATE "C": pages, prefixes and ids are in the order that SQLite has them."""
    found = postgresql.execute(
        """
        SELECT DISTINCT indrelid::regclass::text || '.' || attname, collname
        FROM   pg_index
        JOIN   pg_class ON pg_class.oid = indrelid AND relnamespace = quote_ident(current_schema())::regnamespace
        JOIN   pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        JOIN   pg_collation ON pg_collation.oid = attcollation
        """
    ).fetchall()
    assert len(found) >= 14
    assert {collation for _, collation in found} == {"C"}


def test_scripts_undo_all_that_they_make(postgresql):
    """The rollbacks leave nothing behind; the scripts run in any schema, all in one transaction."""
    ups = [path for path in sorted(SCRIPTS.glob("*.sql")) if not path.name.endswith(".rollback.sql")]
    count = (
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace),"
        " (SELECT count(*) FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace)"
    )
    with postgresql.transaction():
        for path in reversed(ups):
            postgresql.execute(path.with_name(f"{path.stem}.rollback.sql").read_bytes())
    assert postgresql.execute(count).fetchone() == (0, 0)
    postgresql.execute('CREATE SCHEMA "a b"; SET search_path = "a b", public')
    with postgresql.transaction():
        for path in ups:
            postgresql.execute(path.read_bytes())
    tables, functions = postgresql.execute(count).fetchone()
    assert tables > len(TABLES)
    assert functions >= 10
    assert {*postgresql_relations(postgresql)} == {table.name for table in TABLES.values()}
    postgresql.execute("SET search_path = public")
    assert postgresql.execute(count).fetchone() == (0, 0)
