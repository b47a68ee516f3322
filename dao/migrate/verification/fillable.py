"""The tables for which rows are generated: their columns and references, and the order in which they can be filled."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import fold, quoted
from dao.migrate.schema.tokens import normal
from dao.migrate.verification.makers import Maker, literals, makers, values
from dao.migrate.verification.uses import Use

__all__ = ["Column", "Reference", "Refusal", "Row", "Table", "groups", "read"]


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
    makers: Sequence[tuple[int, Maker]]
    nullable: bool
    #: What it holds if a row does not name it, in a tuple; empty if it has to be named, or that is an expression.
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
    """A table to fill, and what became of the rows that were tried. All names but its own are folded."""

    name: str
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

    @cached_property
    def insert(self) -> str:
        """The statement that inserts a row. OR ABORT: an ON CONFLICT clause of the schema could hide a refusal."""
        names = ", ".join(quoted(column.name) for column in self.columns.values())
        return f"INSERT OR ABORT INTO {quoted(self.name)} ({names}) VALUES ({', '.join('?' * len(self.columns))})"

    def has(self, keys: Sequence[str]) -> bool:
        """Return whether these are columns that are filled: at least one."""
        return bool(keys) and all(key in self.columns for key in keys)


def read(
    connection: Connection,
    seed: int,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    uses: Mapping[str, Use] | None = None,
) -> dict[str, Table]:
    """Return the tables by folded name, without the ledger's, SQLite's and those that a virtual table keeps.

    `only` and `without` are folded names; `uses` says in which form scripts take columns.
    """
    wanted = [
        table
        for table in catalog.tables(connection, only)
        if table.kind != "shadow" and fold(table.name) not in without
    ]
    names = {table.name for table in wanted}
    texts: dict[str, list[str]] = {}
    for item in sorted(catalog.definitions(connection), key=lambda item: (item.type != "table", item.name)):
        if item.table in names:
            texts.setdefault(item.table, []).append(item.sql or "")
    return {
        fold(table.name): _table(connection, table, "\n".join(texts[table.name]), seed, uses or {})
        for table in wanted
        if table.name in texts
    }


def _table(connection: Connection, table: catalog.Table, sql: str, seed: int, uses: Mapping[str, Use]) -> Table:
    mentioned = literals(sql)
    own = [column for column in catalog.columns(connection, table.name) if not column.hidden]
    return Table(
        name=table.name,
        virtual=table.kind == "virtual",
        generator=random.Random(f"{seed} {table.name}"),  # noqa: S311 - no secret
        columns={
            fold(column.name): Column(
                column.name,
                makers(
                    column.type,
                    column.name,
                    mentioned,
                    strict=table.strict,
                    key=bool(column.key),
                    use=uses.get(normal(column.name)),
                ),
                # SQLite lets a key be NULL by an old mistake; nobody means it
                nullable=not column.not_null and not column.key,
                default=_default(column),
            )
            for column in own
        },
        key=tuple(fold(column.name) for column in own if column.key),
        references=[
            Reference(fold(key.parent), tuple(map(fold, key.columns)), tuple(map(fold, key.parent_columns)))
            for key in reversed(catalog.foreign_keys(connection, table.name))
        ],
    )


def _default(column: catalog.Column) -> tuple[Any, ...]:
    if column.default is None:
        return () if column.not_null or column.key else (None,)
    return values(column.default) if column.default[:1] in "'0123456789" else ()


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
