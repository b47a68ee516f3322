"""The rows that tables hold: a hash of them, and in which of them two databases differ. The ledger's are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import columns, row_count, tables, typed
from dao.migrate.schema.names import fold, quoted
from dao.text import counted

__all__ = [
    "MOST",
    "Content",
    "RowDifference",
    "RowSource",
    "SQLiteRows",
    "TypedRow",
    "content",
    "contents",
    "row_difference",
]

#: Up to so many rows of a table are held side by side.
MOST = 100_000
_EXAMPLES = 3
_WIDTH = 160

#: Each value with its type, as SQLite names it; text as its bytes, since it need not be UTF-8.
TypedRow = tuple[tuple[str, Any], ...]


@attrs.frozen
class Content:
    """The content of a table: so many rows, in these columns (folded), and a hash that knows no order of either.

    The hash is of this process: it is another in the next.
    """

    rows: int
    columns: tuple[str, ...]
    hash: int


def contents(connection: Connection) -> dict[str, Content]:
    """Return what each table holds, by name; of a virtual one what its shadow tables hold. Reads all rows."""
    return {table.name: content(connection, table.name) for table in tables(connection) if table.stores_rows}


def content(connection: Connection, table: str) -> Content:
    """Return what a table holds, or a virtual one shows. Reads all rows, one at a time."""
    names = sorted(_listed(connection, table), key=fold)
    if not names:
        return Content(0, (), 0)
    # numbers as text: Python has one hash for -1 and -2; text as its bytes: it need not be UTF-8
    values = [
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) WHEN 'blob' THEN {name} ELSE quote({name}) END"
        for name in map(quoted, names)
    ]
    types = " || ' ' || ".join(f"typeof({quoted(name)})" for name in names)
    rows = connection.execute(f"SELECT {', '.join(values)}, {types} FROM main.{quoted(table)}")
    # a sum: equal rows do not cancel out, as they would in an exclusive or
    total = sum(map(hash, rows))
    return Content(row_count(connection, table), tuple(map(fold, names)), total)


def _listed(connection: Connection, table: str) -> dict[str, int]:
    """Return the columns that `*` has, each with its place in the primary key or 0.

    There are none of a virtual table whose module is not registered.
    """
    try:
        return {column.name: column.key for column in columns(connection, table) if column.is_listed}
    except apsw.SQLError:
        return {}


# ---------------------------------------------------------------- comparison


@attrs.frozen
class RowDifference:
    """A table whose rows differ: how many are expected and there, and examples of both ("- " and "+ ")."""

    table: str
    expected: int
    actual: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        other = f"expected {self.expected}" if self.expected != self.actual else "not all as expected"
        return "\n  ".join([f"{self.table}: {counted(self.actual, 'row')}, {other}", *self.examples])


class RowSource(Protocol):
    """Shows the rows of a database, as it was at a moment."""

    def columns(self, table: str) -> dict[str, int]:
        """Return the columns of a table, each with its place in the primary key or 0."""

    def rows(self, table: str, columns: Sequence[str]) -> Counter[TypedRow]:
        """Return the values in these columns of all rows, and how often they are there."""


@attrs.frozen
class SQLiteRows:
    """The rows of a SQLite database that stays as it is."""

    connection: Connection

    def columns(self, table: str) -> dict[str, int]:
        """As `RowSource`."""
        return _listed(self.connection, table)

    def rows(self, table: str, columns: Sequence[str]) -> Counter[TypedRow]:
        """As `RowSource`."""
        sql = f"SELECT {typed(columns) or 'NULL, NULL'} FROM main.{quoted(table)}"
        rows: Iterable[Any] = self.connection.execute(sql)
        return Counter(tuple(zip(row[::2], row[1::2], strict=True)) for row in rows)


def row_difference(
    expected: RowSource, actual: RowSource, table: str, was: Content, now: Content, without: Collection[str] = ()
) -> RowDifference | None:
    """Compare the rows of a table whose contents differ, in the columns that both databases have, but some (`without`).

    Reads all rows of both, unless they are too many to be held: then those that differ are not shown.
    """
    wanted, there = expected.columns(table), {fold(name) for name in actual.columns(table)}
    shared = [name for name in wanted if fold(name) in there.difference(without)]
    if max(was.rows, now.rows) > MOST:
        # of a column that only one of them has the schema tells
        return RowDifference(table, was.rows, now.rows) if was.rows != now.rows or len(shared) == len(wanted) else None
    missing, new = expected.rows(table, shared), actual.rows(table, shared)
    missing, new = missing - new, new - missing
    if not missing and not new and was.rows == now.rows:
        return None
    key = [name for name, place in wanted.items() if place]
    examples = _examples(shared, key if set(key) <= set(shared) else [], missing, new)
    return RowDifference(table, was.rows, now.rows, tuple(examples))


def _examples(
    names: Sequence[str], key: Sequence[str], missing: Iterable[TypedRow], new: Iterable[TypedRow]
) -> list[str]:
    """Return the first rows that differ; of one that is there with other values, its key and those."""
    everything = range(len(names))
    places = [names.index(name) for name in key]

    def key_of(row: TypedRow) -> TypedRow:
        return tuple(row[place] for place in places)

    twins = {key_of(row): row for row in new} if places else {}
    left = dict.fromkeys(new)
    lines: list[str] = []
    more = 0
    for row in missing:
        twin = twins.get(key_of(row))
        if twin is not None:
            left.pop(twin, None)
        if len(lines) >= 2 * _EXAMPLES:
            more += 1
        elif twin is None:
            lines.append("- " + _shown(names, row, everything))
        else:
            shown = [place for place in everything if place in places or row[place] != twin[place]]
            lines += ["- " + _shown(names, row, shown), "+ " + _shown(names, twin, shown)]
    rest = list(left)
    lines += ["+ " + _shown(names, row, everything) for row in rest[:_EXAMPLES]]
    more += len(rest[_EXAMPLES:])
    return [*lines, f"… and {more} more"] if more else lines


def _shown(names: Sequence[str], row: TypedRow, places: Iterable[int]) -> str:
    text = ", ".join(f"{names[place]} = {_literal(*row[place])}" for place in places)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 2] + " …"


def _literal(kind: str, value: Any) -> str:
    if kind == "text":
        return "'" + str(value, "utf-8", "backslashreplace").replace("'", "''").replace("\n", "\\n") + "'"
    if kind == "blob":
        return f"x'{bytes(value).hex()}'"
    return "NULL" if value is None else str(value)
