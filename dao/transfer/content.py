"""The rows of a table in order of their keys, as both engines give them alike, and a hash of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from dao import codec
from dao.engine import Connection, fetch
from dao.errors import UnreadableRow
from dao.rows import Table
from dao.stored import unreadable

__all__ = ["Content", "Digest", "Pages", "Row", "content", "count"]

Row = tuple[Any, ...]

# A page begins small, and grows: to so many rows, or so many bytes.
_FIRST_ROWS, _MOST_ROWS, _MOST_BYTES = 16, 1000, 4 * 2**20

_lines = msgspec.json.Encoder().encode_lines


class Digest(NamedTuple):
    """Some rows of a table: how many, and their hash."""

    rows: int
    hash: str


class Content:
    """The rows of a table that were seen so far. `plus` returns another one, with more of them."""

    __slots__ = ("_hash", "rows", "size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0
        self.size = 0

    def plus(self, rows: list[Row]) -> Content:
        """Return the content with these rows after all others."""
        lines = _lines(rows)
        more = Content()
        more._hash = self._hash.copy()
        more._hash.update(lines)
        more.rows, more.size = self.rows + len(rows), self.size + len(lines)
        return more

    @property
    def digest(self) -> Digest:
        """How many they are, and the SHA-256 of them."""
        return Digest(self.rows, self._hash.hexdigest())


class Pages:
    """The rows of a table, a page at a time, as the transaction of the connection sees them.

    A row is as its record stores it (`to_row`): times as our text, JSON as it was written, booleans as 0 and 1. The
    order is by the bytes of the keys, on both engines. A row that holds what this program reads as something else, or
    not at all, is `passed` to a function and passed over.
    """

    def __init__(self, connection: Connection, table: Table[Any], passed: Callable[[UnreadableRow], object]) -> None:
        self._connection = connection
        self._table = table
        self._passed = passed
        self._key = [table.columns.index(column) for column in table.key.split(", ")]
        self._times = [(column, table.columns.index(column)) for column in table.times]
        # where the next page begins: so many rows after this key, which may be none that can be read
        self._after: Row | None = None
        self._beyond = 0
        self._limit = _FIRST_ROWS

    def next(self, most: int | None = None) -> list[Row]:
        """Return the next rows, so many at the most; none at the end."""
        limit = self._limit if most is None else min(self._limit, most)
        try:
            rows = self._read(limit)
        except UnreadableRow:
            rows = self._read_each(limit)
        if rows:
            size = sum(len(value) for row in rows for value in row if type(value) is str)
            self._limit = max(1, min(_MOST_ROWS, 4 * limit, _MOST_BYTES * len(rows) // max(size, 1)))
        return rows

    def _read(self, limit: int) -> list[Row]:
        table, after = self._table, self._after or ()
        bound = ", ".join(f"${number + 1}" for number in range(len(after)))
        where = f"WHERE ({table.key}) > ({bound})" if after else ""
        found = fetch(
            self._connection,
            f"SELECT {table.listed} FROM {table.name} {where} ORDER BY {table.key} "
            f"LIMIT ${len(after) + 1} OFFSET ${len(after) + 2}",
            (*after, limit, self._beyond),
        )
        records = table.from_rows(found)
        rows = [table.to_row(record) for record in records]
        for record, row in zip(records, rows, strict=True):
            for column, place in self._times:
                # PostgreSQL reads more texts as times than are ours, and would write another
                if (text := row[place]) is not None and codec.time_to_text(getattr(record, column)) != text:
                    raise unreadable(type(record), self.key_of(row), column, text, "which is not as it writes a time")
        if rows:
            self._after, self._beyond = self.key_of(rows[-1]), 0
        return rows

    def _read_each(self, limit: int) -> list[Row]:
        """Return the next rows that can be read; none at the end only."""
        rows: list[Row] = []
        while len(rows) < limit:
            try:
                found = self._read(1)
            except UnreadableRow as error:
                self._beyond += 1
                self._passed(error)
                continue
            if not found:
                break
            rows += found
        return rows

    def key_of(self, row: Row) -> Row:
        """Return the key of a row."""
        return tuple(row[place] for place in self._key)


def content(connection: Connection, table: Table[Any], told: Callable[[int], object]) -> Digest:
    """Return what a table holds, but for rows that cannot be read; `told` hears of how many were."""
    pages, found = Pages(connection, table, lambda _error: None), Content()
    while rows := pages.next():
        found = found.plus(rows)
        told(found.rows)
    return found.digest


def count(connection: Connection, table: Table[Any]) -> int:
    """Return how many rows a table has."""
    [(rows,)] = fetch(connection, f"SELECT count(*) FROM {table.name}")
    return int(rows)
