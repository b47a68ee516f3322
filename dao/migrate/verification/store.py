"""The tables for which rows are generated, whichever engine they are of, and the order in which they can be filled.

A `Store` is all that the search asks of a database; `sqlite_store` and `server_store` are the two that there are.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import attrs

from dao.migrate.verification.makers import Maker
from dao.migrate.verification.uses import Use

__all__ = ["Column", "Reference", "Refusal", "RolledBackError", "Row", "Store", "Table", "UnfilledError", "groups"]


class UnfilledError(Exception):
    """A table cannot be filled; the text says why."""


class RolledBackError(Exception):
    """A trigger of a table has ended the transaction; the text says with which words."""

    def __init__(self, table: Table, reason: str) -> None:
        super().__init__(reason)
        self.table = table


@attrs.frozen
class Refusal:
    """Why a row was refused, and which columns are to blame, None if that is not known.

    `depends_on_others`: the same values may be accepted beside other rows.
    """

    reason: str
    columns: tuple[str, ...] | None = None
    depends_on_others: bool = False


@attrs.define(eq=False)
class Row:
    """A row to try: its values by column, and which of the column's makers each is from, if it is from one."""

    values: dict[str, Any] = attrs.Factory(dict)
    makers: dict[str, int] = attrs.Factory(dict)
    #: The keys of rows to come that it refers to, with their tables.
    promises: list[tuple[Table, Row]] = attrs.Factory(list)


@attrs.define
class Column:
    """A column, what makes values for it, each maker with its rank, and how often those of each were refused."""

    name: str
    id: str
    makers: Sequence[tuple[int, Maker]]
    nullable: bool
    #: The value that it has if a row does not name it, in a tuple; empty if there is none, or it is an expression.
    default: tuple[Any, ...] = ()
    refused: list[int] = attrs.Factory(lambda self: [0] * len(self.makers), takes_self=True)

    def choose(self, generator: random.Random, *, anything: bool) -> int:
        """Return the place of a maker that was refused least; of the likeliest, unless it may be `anything`."""
        least = min(self.refused)
        found = [place for place, number in enumerate(self.refused) if number == least]
        if not anything:
            likeliest = self.makers[found[0]][0]
            found = [place for place in found if self.makers[place][0] == likeliest]
        return generator.choice(found)


@attrs.frozen
class Reference:
    """A foreign key: `columns` of the child refer to `keys` of the parent, or without those to its primary key."""

    parent: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]


@attrs.define(eq=False)
class Table:
    """A table to fill, and what became of the rows that were tried.

    `id` is how others refer to it; the names of columns are in the same form: folded on SQLite.
    """

    name: str
    id: str
    virtual: bool
    generator: random.Random
    columns: dict[str, Column]
    key: tuple[str, ...]
    references: Sequence[Reference]
    #: How many values were made; each of another number.
    made: int = 0
    #: Keys that rows of others refer to already.
    promised: list[Row] = attrs.Factory(list)
    #: The names of the tables that refer to each other in a circle with it; none if there are no others.
    circle: frozenset[str] = frozenset()
    refusals: dict[str, Refusal] = attrs.Factory(dict)

    def has(self, keys: Sequence[str]) -> bool:
        """Return whether these are columns that are filled: at least one."""
        return bool(keys) and all(key in self.columns for key in keys)


def groups(tables: Mapping[str, Table]) -> list[list[Table]]:
    """Return the tables, parents first; those that refer to each other in a circle are one group."""
    above = {
        name: {name} | {reference.parent for reference in table.references if reference.parent in tables}
        for name, table in tables.items()
    }
    for name, ancestors in above.items():
        for others in above.values():
            if name in others:
                others.update(ancestors)
    circles = {tuple(sorted(other for other in above[name] if name in above[other])) for name in tables}
    # a child has more tables above it than its parent has; virtual tables may be fed by the triggers of the others
    ordered = sorted(
        circles, key=lambda names: (any(tables[name].virtual for name in names), len(above[names[0]]), names)
    )
    return [[tables[name] for name in names] for names in ordered]


class Store(Protocol):
    """A database whose tables are filled, in a transaction."""

    def tables(
        self, seed: int, only: Collection[str] | None, without: Collection[str], uses: Mapping[str, Use]
    ) -> dict[str, Table]:
        """Return the tables by `id`, without the ledger's: those among `only` (None: all), but none `without`.

        `uses` says in which form scripts take columns.
        """

    def run(self, sql: str) -> object:
        """Set a savepoint, or end it."""

    def is_open(self) -> bool:
        """Return whether the transaction is still there."""

    def defer(self, *, until_end: bool) -> None:
        """Let rows refer to those that come later, or judge them by now."""

    def check(self, table: Table) -> None:
        """Raise `UnfilledError` if a table takes no rows, whatever they are."""

    def insert(self, table: Table, row: Row) -> Refusal | None:
        """Insert a row, and return why it is refused, None if it is not. It may leave a part of one that is."""

    def insert_all(self, sql: str) -> tuple[set[str], str | None]:
        """Run an INSERT of somebody's own; return into which tables, as `Table.id`, and what is wrong with it."""

    def broken_keys(self, table: Table) -> int:
        """Return how many foreign keys of the table's rows are broken."""

    def keys(self, table: Table, columns: Sequence[str], most: int) -> list[Any]:
        """Return the values that rows have in these columns, none of them NULL."""

    def has_rows(self, table: Table) -> bool:
        """Return whether a table has any row."""

    def has_key_among(self, table: Table, values: Collection[str]) -> bool:
        """Return whether any row has in all columns of a unique key one of these values, as texts."""
