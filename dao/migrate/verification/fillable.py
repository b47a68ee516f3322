"""The tables that rows are generated for: their columns, what those refer to, and in which order they can be filled."""

from __future__ import annotations

import graphlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from dao.engine import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import fold, quoted
from dao.migrate.verification.values import Maker, literals, makers

__all__ = ["Column", "Reference", "Refusal", "Row", "Table", "groups", "read"]


@attrs.frozen
class Refusal:
    """Why a row was refused, and which columns are to blame; None: that cannot be told.

    `depends_on_others`: the same values may be accepted beside other rows.
    """

    reason: str
    columns: tuple[str, ...] | None = None
    depends_on_others: bool = False


class Row:
    """A row to try: its values by column, and which of the column's makers each is from, if it is from one."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.makers: dict[str, int] = {}
        #: The keys of rows to come that it refers to, with their tables.
        self.promises: list[tuple[Table, Row]] = []


class Column:
    """A column, and what was refused in it so far."""

    def __init__(self, name: str, tried: Sequence[tuple[int, Maker]], *, nullable: bool) -> None:
        self.name = name
        self.tried = tried  # what makes its values, each with its rank: the likely first
        self.nullable = nullable
        self.refused = [0] * len(tried)

    def choose(self, generator: random.Random, *, anything: bool) -> int:
        """Return which maker to try: one of the likeliest of those that were refused least."""
        least = min(self.refused)
        found = [index for index, number in enumerate(self.refused) if number == least]
        if not anything:
            likeliest = min(self.tried[index][0] for index in found)
            found = [index for index in found if self.tried[index][0] == likeliest]
        return generator.choice(found)


@attrs.frozen
class Reference:
    """A foreign key: `columns` of the child refer to `keys` of the parent."""

    parent: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]


class Table:
    """A table to fill: what it is made of, and what became of the rows that were tried. Names are folded."""

    def __init__(
        self, connection: Connection, table: catalog.Table, definitions: Sequence[catalog.Definition], seed: int
    ) -> None:
        self.name = name = table.name
        self.virtual = table.kind == "virtual"
        self.generator = random.Random(f"{seed} {name}")  # noqa: S311 - no secret
        self.number = 0
        #: Keys that rows of others refer to already, as `Row.values` and `Row.makers` have them.
        self.promised: list[Row] = []
        texts = [item for item in definitions if item.table == name and item.sql]
        texts.sort(key=lambda item: (item.type != "table", item.name))
        mentioned = literals("\n".join(str(item.sql) for item in texts))
        self.columns: dict[str, Column] = {}
        self.key: list[str] = []
        for column in catalog.columns(connection, name):
            if column.hidden:
                continue
            found = makers(column.type, column.name, mentioned, strict=table.strict, key=bool(column.key))
            tried = [(rank, maker) for rank, group in enumerate(found) for maker in group]
            # SQLite lets a key be NULL by an old mistake; nobody means it
            nullable = not column.not_null and not column.key
            self.columns[fold(column.name)] = Column(column.name, tried, nullable=nullable)
            if column.key:
                self.key.append(fold(column.name))
        self.references = _references(connection, name)
        names = ", ".join(quoted(column.name) for column in self.columns.values())
        marks = ", ".join("?" * len(self.columns))
        # OR ABORT: what the schema says (ON CONFLICT REPLACE) would hide a refusal
        self.insert = f"INSERT OR ABORT INTO {quoted(name)} ({names}) VALUES ({marks})"
        #: The names of the other tables with which it is in a circle of references.
        self.circle: frozenset[str] = frozenset()
        self.refusals: dict[str, Refusal] = {}

    def next_number(self) -> int:
        """Return a number that no value was made of yet."""
        self.number += 1
        return self.number


def read(connection: Connection, seed: int) -> list[Table]:
    """Return the tables by name, without the ledger's, SQLite's and those that a virtual table keeps."""
    definitions = catalog.definitions(connection)
    tables = [
        Table(connection, table, definitions, seed) for table in catalog.tables(connection) if table.kind != "shadow"
    ]
    keys = {fold(table.name): tuple(table.key) for table in tables}
    for table in tables:
        # a foreign key that names no column means the primary key
        table.references = [
            attrs.evolve(reference, keys=reference.keys or keys.get(reference.parent, ()))
            for reference in table.references
        ]
    return tables


def _references(connection: Connection, table: str) -> list[Reference]:
    return [
        Reference(fold(key.parent), tuple(map(fold, key.columns)), tuple(map(fold, key.parent_columns)))
        for key in reversed(catalog.foreign_keys(connection, table))
    ]


def groups(tables: dict[str, Table]) -> Iterable[list[str]]:
    """Return the tables' names, parents first; those that refer to each other in a circle are one group."""
    parents = {
        name: {reference.parent for reference in table.references if reference.parent in tables}
        for name, table in tables.items()
    }
    above: dict[str, set[str]] = {}
    for name in tables:
        seen: set[str] = set()
        waiting = [*parents[name]]
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += parents[other]
        above[name] = seen
    group_of = {
        name: tuple(sorted({name} | {other for other in above[name] if name in above[other]})) for name in tables
    }
    sorter = graphlib.TopologicalSorter(
        {
            group: sorted({group_of[parent] for name in group for parent in parents[name]} - {group})
            for group in sorted(set(group_of.values()))
        }
    )
    ordered = [list(group) for group in sorter.static_order()]
    # virtual tables may be fed by the triggers of the others
    return sorted(ordered, key=lambda group: any(tables[name].virtual for name in group))
