"""The system catalog: all SQL over `sqlite_schema` and table-valued pragmas.

No other module of `dao.migrate` has such SQL. All functions read the main database, unless they say otherwise; a
temporary object of the same name is another one.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema.names import fold, is_internal, is_ours, quoted

__all__ = [
    "SCHEMA_VERSION",
    "Column",
    "Definition",
    "Definitions",
    "ForeignKey",
    "Index",
    "IndexedColumn",
    "Table",
    "affinity",
    "column_names",
    "columns",
    "definitions",
    "drop_sequence",
    "fingerprint",
    "foreign_keys",
    "has_virtual_tables",
    "holds_rows",
    "indexes",
    "primary_key",
    "row_count",
    "row_counts",
    "rowid_name",
    "settings",
    "table_names",
    "tables",
    "typed",
    "untyped",
]

#: In a query: the number that SQLite counts up whenever the schema changes.
SCHEMA_VERSION = "(SELECT schema_version FROM pragma_schema_version)"

_DEFINITIONS = "SELECT type, name, tbl_name, sql, rootpage, rowid FROM {}.sqlite_schema WHERE rowid > ?"
_HAS_VIRTUAL_TABLES = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0)"
_TABLES = "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND type <> 'view' ORDER BY name"
_TABLE = "SELECT name, type, wr, strict FROM pragma_table_list(?) WHERE schema = 'main' AND type <> 'view'"
_COLUMNS = """SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main')"""
_FOREIGN_KEYS = """
SELECT   id, "table", "from", "to", on_update, on_delete, "match"
FROM     pragma_foreign_key_list(?, 'main')
ORDER BY id DESC, seq
"""
_INDEXES = """
SELECT list.name, list."unique", list.origin, info.name, info."desc", info.coll
FROM   pragma_index_list(?, 'main') AS list JOIN pragma_index_xinfo(list.name, 'main') AS info
WHERE  info.key
ORDER  BY list.seq, info.seqno
"""
# no pragma tells it
_EXPRESSIONS = {"case_sensitive_like": "'a' NOT LIKE 'A'"}
_RENAME_SEQUENCE = """
UPDATE temp.sqlite_schema
SET    name = 'dao_sequence', tbl_name = 'dao_sequence', sql = 'CREATE TABLE dao_sequence (name, seq)'
WHERE  name = 'sqlite_sequence'
"""


# ---------------------------------------------------------------- values


def typed(columns: Iterable[str]) -> str:
    """Return SQL that selects columns, each as its type and value; text as its bytes, since it need not be UTF-8."""
    return ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
        for name in map(quoted, columns)
    )


def untyped(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a row that `typed` has selected; text that is not UTF-8 stays as its bytes."""
    return tuple(_text(value) if type == "text" else value for type, value in zip(row[::2], row[1::2], strict=True))


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


# ---------------------------------------------------------------- what there is


@attrs.frozen(cache_hash=True)
class Definition:
    """A table, index, view or trigger, with its SQL; that is None for an index that a constraint has made.

    `page` is its root page in the file, 0 if it has no rows of its own, and `number` its place in the catalog. A table
    that is renamed keeps both; neither counts when two definitions are compared.
    """

    type: str
    name: str
    table: str
    sql: str | None
    page: int = attrs.field(eq=False)
    number: int = attrs.field(eq=False)

    @functools.cached_property
    def key(self) -> str:
        """Its name, by `fold`."""
        return fold(self.name)

    @functools.cached_property
    def words(self) -> str:
        """Its SQL, by `fold`."""
        return fold(self.sql or "")

    @functools.cached_property
    def is_internal(self) -> bool:
        """Whether it is the ledger's or SQLite's own."""
        return is_internal(self.name) or is_ours(self.table)

    @functools.cached_property
    def is_virtual(self) -> bool:
        """Whether it is a virtual table."""
        return (self.sql or "")[:20].upper() == "CREATE VIRTUAL TABLE"  # as SQLite writes it

    @property
    def kind(self) -> str:
        """Its type, which is "virtual table" for a virtual one."""
        return "virtual table" if self.is_virtual else self.type


#: The same object for the same row: a trial of migrations reads the catalog again after every script.
_definition = functools.lru_cache(maxsize=8192)(Definition)

#: All that is in a schema.
Definitions = frozenset[Definition]


def definitions(
    connection: Connection, database: str = "main", *, internal: bool = True, since: int = 0
) -> list[Definition]:
    """Return all that is defined in a database of a connection, in the order in which it was made. One query.

    If not `internal`, the ledger's and SQLite's own are left out. `since` leaves out the numbers up to that one.
    """
    rows: list[Any] = connection.execute(_DEFINITIONS.format(quoted(database)), (since,)).fetchall()
    found = list(itertools.starmap(_definition, rows))
    return found if internal else [item for item in found if not item.is_internal]


def fingerprint(schema: Iterable[Definition]) -> str:
    """Return a hash of the schema's text, without the ledger.

    Equal hashes mean equal schemas. Different ones may be of one schema written in two ways: `model.differences` tells.
    """
    found = sorted((item.type, item.name, item.table, str(item.sql)) for item in schema if not item.is_internal)
    # no text in a schema holds a NUL, at which SQLite stops reading
    text = "\0".join(itertools.chain.from_iterable(found))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def table_names(connection: Connection) -> set[str]:
    """Return the names of all tables, the ledger's and SQLite's own among them."""
    return {item.name for item in definitions(connection) if item.type == "table"}


def has_virtual_tables(connection: Connection) -> bool:
    """Return whether there is any virtual table."""
    return bool(connection.execute(_HAS_VIRTUAL_TABLES).get)


class Table(NamedTuple):
    """A table, by its kind: "table", "virtual", or "shadow", in which a virtual table keeps what it holds."""

    name: str
    kind: str
    without_rowid: bool
    strict: bool

    @property
    def stores_rows(self) -> bool:
        """Whether it holds its rows itself: those of a virtual table are in its shadow tables, or elsewhere."""
        return self.kind != "virtual"


def tables(connection: Connection, names: Iterable[str] | None = None) -> list[Table]:
    """Return the tables by name, or those of some `names`, without the ledger's and SQLite's own."""
    rows: list[Any] = []
    if names is None:
        rows += connection.execute(_TABLES).fetchall()
    for name in sorted(names or ()):
        rows += connection.execute(_TABLE, (name,)).fetchall()
    return [Table(name, kind, bool(wr), bool(strict)) for name, kind, wr, strict in rows if not is_internal(name)]


# ---------------------------------------------------------------- tables


class Column(NamedTuple):
    """A column of a table; `key` is its place in the PRIMARY KEY, from 1 on, or 0.

    `hidden` is 0, 1 for a column of a virtual table that `*` leaves out, 2 for a virtual generated column, 3 for a
    stored one.
    """

    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    hidden: int

    @property
    def is_listed(self) -> bool:
        """Whether `*` has it."""
        return self.hidden != 1

    @property
    def generated(self) -> str | None:
        """How it is generated: "VIRTUAL", "STORED", or None if it is not."""
        return {2: "VIRTUAL", 3: "STORED"}.get(self.hidden)


def columns(connection: Connection, table: str) -> list[Column]:
    """Return the columns of a table or view in order; none if it does not exist.

    Raises:
        apsw.SQLError: It is a view that does not compile, or a virtual table whose module is not registered.
    """
    rows: list[Any] = connection.execute(_COLUMNS, (table,)).fetchall()
    return [
        Column(name, type, bool(not_null), default, key, hidden) for name, type, not_null, default, key, hidden in rows
    ]


def primary_key(columns: Iterable[Column]) -> list[str]:
    """Return the names of those columns that are the PRIMARY KEY, in its order."""
    return [column.name for column in sorted(columns, key=lambda column: column.key) if column.key]


def affinity(declared: str, *, strict: bool) -> str:
    """Return what SQLite makes of a column's type (sqlite.org/datatype3.html, 3.1); "any" if it converts nothing.

    Else that is "integer", "text", "blob", "real" or "numeric". `strict` is whether the table is.
    """
    for pattern, kind in (("INT", "integer"), ("CHAR|CLOB|TEXT", "text"), ("BLOB", "blob"), ("REAL|FLOA|DOUB", "real")):
        if re.search(pattern, declared.upper()):
            return kind
    return "any" if strict or not declared else "numeric"


def rowid_name(columns: Iterable[Column]) -> str | None:
    """Return a name by which a table with these columns has its rowid; None if they have taken all three."""
    taken = {fold(column.name) for column in columns}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


def column_names(connection: Connection) -> set[tuple[str, str]]:
    """Return all tables and columns as (table, column), by `fold`; for each table also one with "" as column."""
    return {
        (fold(table.name), name)
        for table in tables(connection)
        for name in ["", *(fold(column.name) for column in columns(connection, table.name))]
    }


class ForeignKey(NamedTuple):
    """A foreign key: its columns, its parent, and the parent's columns; none if it means the parent's primary key."""

    id: int
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_update: str
    on_delete: str
    match: str


def foreign_keys(connection: Connection, table: str) -> list[ForeignKey]:
    """Return the foreign keys of a table as they are written: SQLite numbers them from the last to the first."""
    rows: list[Any] = connection.execute(_FOREIGN_KEYS, (table,)).fetchall()
    found = []
    for id, group in itertools.groupby(rows, key=lambda row: row[0]):
        pairs = list(group)
        own, theirs = tuple(row[2] for row in pairs), tuple(row[3] for row in pairs if row[3] is not None)
        found.append(ForeignKey(id, own, pairs[0][1], theirs, *pairs[0][4:]))
    return found


class IndexedColumn(NamedTuple):
    """A column of an index; its name is None if it is an expression."""

    name: str | None
    descending: bool
    collation: str


class Index(NamedTuple):
    """An index; `origin` is "c" for CREATE INDEX, "u" for UNIQUE and "pk" for PRIMARY KEY."""

    name: str
    unique: bool
    origin: str
    columns: tuple[IndexedColumn, ...]


def indexes(connection: Connection, table: str) -> list[Index]:
    """Return the indexes of a table, the latest first."""
    rows: list[Any] = connection.execute(_INDEXES, (table,)).fetchall()
    return [
        Index(name, bool(unique), origin, tuple(IndexedColumn(row[3], bool(row[4]), row[5]) for row in group))
        for (name, unique, origin), group in itertools.groupby(rows, key=lambda row: row[:3])
    ]


# ---------------------------------------------------------------- rows


def row_count(connection: Connection, table: str) -> int:
    """Return how many rows a table has. Reads the smallest index, or all of the table."""
    number: Any = connection.execute(f"SELECT count(*) FROM main.{quoted(table)}").get
    return int(number)


def row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has, without the ledger's. Virtual tables are counted by their shadow tables."""
    return {table.name: row_count(connection, table.name) for table in tables(connection) if table.stores_rows}


def holds_rows(connection: Connection, schema: Iterable[Definition]) -> bool:
    """Return whether any table of the schema holds a row, without the ledger's."""
    return any(
        connection.execute(f"SELECT 1 FROM main.{quoted(item.name)} LIMIT 1").fetchall()
        for item in sorted(schema, key=lambda item: item.number)
        if item.type == "table" and item.page and not item.is_internal
    )


# ---------------------------------------------------------------- the connection


def settings(connection: Connection, names: Sequence[str]) -> dict[str, Any]:
    """Return what pragmas that take no argument say, and `case_sensitive_like`, by name. One query."""
    asked = ", ".join(_EXPRESSIONS.get(name) or f"(SELECT * FROM pragma_{name})" for name in names)
    (row,) = connection.execute(f"SELECT {asked}").fetchall()
    return dict(zip(names, row, strict=True))


def drop_sequence(connection: Connection) -> None:
    """Drop the temporary `sqlite_sequence`, which AUTOINCREMENT leaves and which would hide the file's own.

    SQLite does not let it be dropped by its name.
    """
    defensive = connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
    try:
        connection.execute(_RENAME_SEQUENCE)
    finally:
        connection.pragma("writable_schema", "reset")
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, defensive)
    connection.execute("DROP TABLE IF EXISTS temp.dao_sequence")
