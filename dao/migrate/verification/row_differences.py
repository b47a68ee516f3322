"""Which rows differ between two databases that should hold the same, with examples that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.migrate.copies.rows import Content, contents
from dao.migrate.schema.catalog import Column, columns, fold, quoted, row_count, tables, typed

__all__ = ["RowDifference", "row_differences"]

#: Up to so many rows of a table are held side by side.
_MOST = 100_000
_EXAMPLES = 3
_WIDTH = 160

#: A value with its type, as SQLite names it; text as its bytes, since it need not be UTF-8.
_Typed = tuple[str, Any]
_Row = tuple[_Typed, ...]
#: Says of a table and a column of it (None: of the whole table) that a difference there is none.
Excused = Callable[[str, str | None], bool]


@attrs.frozen
class RowDifference:
    """A table whose rows differ: how many it should have and has, and examples, "- " what should be and "+ " what is."""

    table: str
    expected: int
    actual: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.actual} row{'' if self.actual == 1 else 's'}"
        counts += f", expected {self.expected}" if self.expected != self.actual else ", not all as expected"
        return "\n".join([f"{self.table}: {counts}", *(f"  {example}" for example in self.examples)])


def row_differences(
    expected: Connection, actual: Connection, excused: Excused = lambda _table, _column: False
) -> list[RowDifference]:
    """Return the tables of both whose rows differ in the columns that both have, by name. Reads all rows of both.

    The ledger and the tables inside of virtual tables are left out, and what is excused.
    """
    kinds, there = ({table.name: table.kind for table in tables(one)} for one in (expected, actual))
    before, after = contents(expected), contents(actual)
    found: list[RowDifference] = []
    for table in sorted(kinds):
        compared = table in before and table in after and before[table] != after[table]
        if kinds[table] == "virtual" and there.get(table) == "virtual":
            before[table], after[table] = _count(expected, table), _count(actual, table)
            compared = True
        if not compared or kinds[table] == "shadow" or excused(table, None):
            continue
        shared, key = _shared_columns(expected, actual, table, excused)
        difference = _compare(expected, actual, table, shared, key, before[table], after[table])
        if difference is not None:
            found.append(difference)
    return found


def _count(connection: Connection, table: str) -> Content:
    try:
        return Content(row_count(connection, table), "")
    except apsw.SQLError:  # its module is not there
        return Content(0, "")


def _shared_columns(
    expected: Connection, actual: Connection, table: str, excused: Excused
) -> tuple[list[str], list[str]]:
    """Return the columns to compare, and those of them that are the primary key, if all of it is there."""
    has = {fold(column.name) for column in _listed(actual, table)}
    wanted = _listed(expected, table)
    compared = [column.name for column in wanted if fold(column.name) in has and not excused(table, column.name)]
    key = [column.name for column in wanted if column.key]
    return compared, key if set(key) <= set(compared) else []


def _listed(connection: Connection, table: str) -> list[Column]:
    return [column for column in columns(connection, table) if column.is_listed]


def _compare(
    expected: Connection,
    actual: Connection,
    table: str,
    shared: Sequence[str],
    key: Sequence[str],
    before: Content,
    after: Content,
) -> RowDifference | None:
    if max(before.rows, after.rows) > _MOST:
        # the hashes differ, be it for a column that only one of them has: that is the schema's difference
        whole = len(shared) == len(_listed(expected, table))
        return RowDifference(table, before.rows, after.rows) if whole or before.rows != after.rows else None
    missing, new = _rows(expected, table, shared), _rows(actual, table, shared)
    missing, new = missing - new, new - missing
    if not missing and not new and before.rows == after.rows:
        return None
    return RowDifference(table, before.rows, after.rows, tuple(_examples(shared, key, missing, new)))


def _rows(connection: Connection, table: str, shared: Sequence[str]) -> Counter[_Row]:
    found: Counter[_Row] = Counter()
    try:
        for row in connection.execute(f"SELECT {typed(shared) or 'NULL, NULL'} FROM {quoted(table)}"):
            found[tuple(zip(row[::2], row[1::2], strict=True))] += 1
    except apsw.SQLError:  # a virtual table whose module is not there
        pass
    return found


# ---------------------------------------------------------------- for people


def _examples(columns: Sequence[str], key: Sequence[str], missing: Counter[_Row], new: Counter[_Row]) -> list[str]:
    """Return the first rows that differ; of one that is there with other values, its key and those."""
    places = [columns.index(name) for name in key]
    by_key = {tuple(row[place] for place in places): row for row in new} if places else {}
    left = new.copy()
    lines: list[str] = []
    more = 0
    for row in missing:
        twin = by_key.get(tuple(row[place] for place in places)) if places else None
        shown = list(range(len(columns)))
        if twin is not None:
            del left[twin]
            shown = [place for place in shown if place in places or row[place] != twin[place]]
        if len(lines) >= 2 * _EXAMPLES:
            more += 1
            continue
        lines.append("- " + _shown(columns, row, shown))
        if twin is not None:
            lines.append("+ " + _shown(columns, twin, shown))
    rest = list(left)
    lines += ["+ " + _shown(columns, row, list(range(len(columns)))) for row in rest[:_EXAMPLES]]
    more += len(rest[_EXAMPLES:])
    return [*lines, *([f"… and {more} more"] if more else [])]


def _shown(columns: Sequence[str], row: _Row, places: Sequence[int]) -> str:
    text = ", ".join(f"{columns[place]} = {_literal(*row[place])}" for place in places)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 2] + " …"


def _literal(kind: str, value: Any) -> str:
    if kind == "text":
        return "'" + str(value, "utf-8", "backslashreplace").replace("'", "''").replace("\n", "\\n") + "'"
    if kind == "blob":
        return f"x'{bytes(value).hex()}'"
    return "NULL" if value is None else str(value)
