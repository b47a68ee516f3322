"""A database on a server that is looked at time and again: its schema and rows as a `State`, which can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs

from dao.engine import fetch, in_transaction
from dao.engine.postgresql import Connection
from dao.migrate.copies.rows import MOST, Content, TypedRow
from dao.migrate.schema.model import Object
from dao.migrate.schema.postgresql import reader, traces
from dao.migrate.verification.round_trip import State

__all__ = ["Observer"]

#: The types of the columns whose values are shown without quotes.
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double", "boolean")


@attrs.frozen
class _Held:
    """The content of a table; its rows as texts, None if they are not to be held, or too many."""

    content: Content
    columns: dict[str, int]
    numbers: frozenset[str]
    rows: list[tuple[str | None, ...]] | None


@attrs.frozen
class _HeldRows:
    """The rows of a database at a moment: a `RowSource`."""

    tables: dict[str, _Held]

    def columns(self, table: str) -> dict[str, int]:
        """As `RowSource`."""
        return self.tables[table].columns if table in self.tables else {}

    def rows(self, table: str, columns: Sequence[str]) -> Counter[TypedRow]:
        """As `RowSource`."""
        held = self.tables[table]
        places = [(list(held.columns).index(name), name in held.numbers) for name in columns]
        return Counter(tuple(_typed(row[place], is_number) for place, is_number in places) for row in held.rows or ())


def _typed(value: str | None, is_number: bool) -> tuple[str, Any]:  # noqa: FBT001 - of one row
    if value is None:
        return "null", None
    return ("number", value) if is_number else ("text", value.encode())


class Observer:
    """Looks at a database time and again. In one transaction, it reads only the tables again that were written to.

    It `holds_rows` so that those that differ can be shown: of a database that is its own.
    """

    def __init__(self, connection: Connection, *, holds_rows: bool = False) -> None:
        self._connection, self._holds_rows = connection, holds_rows
        self._known: dict[Any, _Held] = {}

    def look(self) -> State:
        """Return the state of now, without the ledger. Reads all rows the first time."""
        schema = reader.read(self._connection)
        signs = traces.signatures(self._connection)
        # what was written in another transaction has no sign here
        known = self._known if in_transaction(self._connection) else {}
        self._known = {}
        found = {}
        for one in schema.objects.values():
            if one.type == "table":
                key = (one, signs.get(one.name))
                held = self._known[key] = known.get(key) or self._held(one)
                found[one.name.replace('"', "")] = held
        contents = {name: held.content for name, held in found.items()}
        return State(schema, frozenset(), contents, {}, _HeldRows(found) if self._holds_rows else None)

    def _held(self, table: Object) -> _Held:
        """Return what a table itself holds; its partitions and heirs are tables, too. Reads all rows."""
        columns = sorted((item.key, item.shown) for item in table.items if item.family == "column" and item.key)
        names = [name for name, _ in columns]
        row = f"ROW({', '.join(names)})::text"
        sql = f"SELECT count(*), coalesce(sum(hashtextextended({row}, 0)), 0)::text FROM ONLY {table.name}"
        ((number, hash),) = fetch(self._connection, sql)
        rows = None
        if self._holds_rows and names and number <= MOST:
            texts = ", ".join(f"{name}::text" for name in names)
            rows = fetch(self._connection, f"SELECT {texts} FROM ONLY {table.name}")
        primary = next((item.shown for item in table.items if item.family == "primary key"), "")
        key = [part.strip() for part in primary.partition("(")[2].partition(")")[0].split(",")]
        return _Held(
            Content(number, tuple(names), int(hash)),
            {_plain(name): key.index(name) + 1 if name in key else 0 for name in names},
            frozenset(_plain(name) for name, text in columns if text.startswith(_NUMBERS)),
            rows,
        )


def _plain(name: str) -> str:
    return name.replace('"', "")
