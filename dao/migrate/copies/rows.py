"""The rows that tables hold: a hash of them, and in which of them two databases differ. The ledger's are left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.migrate.schema.catalog import columns, fold, quoted, tables, typed
from dao.text import counted

__all__ = ["Content", "RowDifference", "contents", "holds_content", "row_differences"]

#: Up to so many rows of a table are held side by side.
_MOST = 100_000
_EXAMPLES = 3
_WIDTH = 160

#: Each value with its type, as SQLite names it; text as its bytes, since it need not be UTF-8.
_Row = tuple[tuple[str, Any], ...]
#: Says of a table and a column of it (None: of the whole table) that a difference there is none.
Excused = Callable[[str, str | None], bool]


@attrs.frozen
class Content:
    """What a table holds: so many rows, and a hash that knows neither the order of rows nor that of columns."""

    rows: int
    hash: str


def holds_content(virtual: str, shadows: Collection[str]) -> bool:
    """Return whether a virtual table holds rows of its own, by the names of all shadow tables; all in lower case.

    One without shadow tables shows what is elsewhere. A full-text index without a `_content` is of another table's text,
    or of none that is kept.
    """
    own = {name.removeprefix(f"{virtual}_") for name in shadows if name.startswith(f"{virtual}_")}
    return bool(own) and ("content" in own or not own & {"idx", "segdir"})


def contents(connection: Connection, *, inside: bool = True) -> dict[str, Content]:
    """Return what each table holds, by name. Reads all rows, one at a time.

    `inside`: of a virtual table what its shadow tables hold, else what it shows. The former may lie differently, and mean
    the same.
    """
    kinds = {"table", "shadow" if inside else "virtual"}
    return {table.name: _content(connection, table.name) for table in tables(connection) if table.kind in kinds}


def _content(connection: Connection, table: str) -> Content:
    names = sorted(_listed(connection, table), key=fold)
    heading = repr([name.lower() for name in names]).encode()
    total = rows = 0
    for row in _typed_rows(connection, table, names):
        rows += 1
        # a sum: equal rows do not cancel out, as they would in an exclusive or
        total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=24, key=heading[:64]).digest())
    digest = hashlib.blake2b(heading + total.to_bytes(64, "big"), digest_size=24).hexdigest()
    return Content(rows, digest)


def _listed(connection: Connection, table: str) -> dict[str, int]:
    """Return the columns that `*` has, each with its place in the primary key or 0; none of a table whose module is missing."""
    try:
        return {column.name: column.key for column in columns(connection, table) if column.is_listed}
    except apsw.SQLError:
        return {}


def _typed_rows(connection: Connection, table: str, names: Sequence[str]) -> Iterable[Any]:
    return connection.execute(f"SELECT {typed(names)} FROM main.{quoted(table)}") if names else ()


# ---------------------------------------------------------------- comparison


@attrs.frozen
class RowDifference:
    """A table whose rows differ: how many it should have and has, and examples, "- " what should be and "+ " what is."""

    table: str
    expected: int
    actual: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        other = f"expected {self.expected}" if self.expected != self.actual else "not all as expected"
        return "\n  ".join([f"{self.table}: {counted(self.actual, 'row')}, {other}", *self.examples])


def row_differences(
    expected: Connection, actual: Connection, excused: Excused = lambda _table, _column: False
) -> list[RowDifference]:
    """Return the tables of both whose rows differ in the columns that both have, by name. Reads all rows of both.

    The ledger and the tables inside of virtual tables are left out, and what is excused.
    """
    before, after = contents(expected, inside=False), contents(actual, inside=False)
    found: list[RowDifference] = []
    for table in sorted(before.keys() & after.keys()):
        if before[table] == after[table] or excused(table, None):
            continue
        rows = before[table].rows, after[table].rows
        wanted, there = _listed(expected, table), {fold(name) for name in _listed(actual, table)}
        shared = [name for name in wanted if fold(name) in there and not excused(table, name)]
        if max(rows) > _MOST:
            # the hashes differ, be it for a column that only one of them has: that is the schema's difference
            if rows[0] != rows[1] or len(shared) == len(wanted):
                found.append(RowDifference(table, *rows))
            continue
        missing, new = _counter(expected, table, shared), _counter(actual, table, shared)
        missing, new = missing - new, new - missing
        if missing or new or rows[0] != rows[1]:
            key = [name for name, place in wanted.items() if place]
            examples = _examples(shared, key if set(key) <= set(shared) else [], missing, new)
            found.append(RowDifference(table, *rows, tuple(examples)))
    return found


def _counter(connection: Connection, table: str, names: Sequence[str]) -> Counter[_Row]:
    rows = _typed_rows(connection, table, names)
    return Counter(tuple(zip(row[::2], row[1::2], strict=True)) for row in rows)


def _examples(names: Sequence[str], key: Sequence[str], missing: Iterable[_Row], new: Iterable[_Row]) -> list[str]:
    """Return the first rows that differ; of one that is there with other values, its key and those."""
    everything = range(len(names))
    places = [names.index(name) for name in key]

    def key_of(row: _Row) -> _Row:
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


def _shown(names: Sequence[str], row: _Row, places: Iterable[int]) -> str:
    text = ", ".join(f"{names[place]} = {_literal(*row[place])}" for place in places)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 2] + " …"


def _literal(kind: str, value: Any) -> str:
    if kind == "text":
        return "'" + str(value, "utf-8", "backslashreplace").replace("'", "''").replace("\n", "\\n") + "'"
    if kind == "blob":
        return f"x'{bytes(value).hex()}'"
    return "NULL" if value is None else str(value)
