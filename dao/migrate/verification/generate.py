"""Rows that satisfy the constraints of a schema, whatever it is: the database decides, a bounded search proposes.

Nothing here reads SQL: a row that a constraint refuses is changed in the columns that the refusal is about, and tried
again. So a table whose constraints are a riddle stays empty, and is reported.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from dao.migrate.verification.makers import values
from dao.migrate.verification.store import (
    Column,
    Reference,
    Refusal,
    RolledBackError,
    Row,
    Store,
    Table,
    UnfilledError,
    groups,
)
from dao.migrate.verification.uses import Use

__all__ = ["Filled", "fill", "in_the_way"]

#: How many rows are tried for one that is accepted: a table may have no room for a second.
_TRIES, _TRIES_FOR_ANOTHER = 2_000, 400
#: So often rows are proposed once more that were refused before.
_AGAIN = 100
#: From here on values are tried that are not likely.
_PATIENCE = 100
_CIRCLE_TRIES = 60
#: How often a column is NULL that may be.
_NULLS = 0.3
#: How often columns get their defaults in a row that is refused without a word about columns.
_RESETS, _HALF = 0.3, 0.5
#: Among how many rows of its parent a row chooses.
_PARENTS = 50


@attrs.frozen
class Filled:
    """How many rows each table got, and why those got none that are empty; by their names.

    `full` are those that have no room for as many as wanted, as `Table.id`, by which `tables` has all.
    """

    rows: dict[str, int]
    unfilled: dict[str, str]
    full: set[str] = attrs.Factory(set)
    tables: Mapping[str, Table] = attrs.Factory(dict)


def fill(
    store: Store,
    *,
    rows: int = 3,
    seed: int = 0,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    uses: Mapping[str, Use] | None = None,
) -> Filled:
    """Insert into tables generated rows that satisfy their constraints, and return how many each table got.

    Writes, in a savepoint. Each table gets `rows` more than it has, parents before their children; fewer if its
    constraints leave no room for more. The first row has a value in every column, the second NULL wherever that may be,
    the others both. The same schema, rows and seed make the same rows. Triggers fire, and generated columns are left to
    the database. A virtual table gets rows if it is still empty when the others have theirs. The ledger gets none.
    Tables are filled that are among `only` (None: all), but none `without` (both as `Table.id`). `uses` says in which
    form scripts take columns.
    """
    given_up: dict[str, RolledBackError] = {}
    while True:
        try:
            with _savepoint(store):
                store.defer(until_end=False)
                tables = store.tables(seed, only, given_up, uses or {})
                unfilled = {error.table.name: str(error) for error in given_up.values()}
                filling = _Filling(store, tables, Filled({}, unfilled, tables=tables))
                for group in groups(tables):
                    filling.fill([table for table in group if table.id not in without], rows)
                return filling.filled
        except RolledBackError as error:
            # a trigger took the other tables' rows with it: once more without that table
            given_up[error.table.id] = error


def in_the_way(store: Store, filled: Filled, inserts: Collection[str], sql: str) -> frozenset[str]:
    """Return the tables in which generated rows may have the place of those that a script brings, by `Table.id`.

    It `inserts` into them; and they have no room for another row, or a unique key whose values stand in its SQL.
    """
    brought = frozenset(map(str, values(sql)))
    there = {id: table for id, table in filled.tables.items() if id in inserts and table.name in filled.rows}
    return frozenset(id for id, table in there.items() if id in filled.full or store.has_key_among(table, brought))


@contextlib.contextmanager
def _savepoint(store: Store) -> Iterator[None]:
    store.run("SAVEPOINT fill")
    try:
        yield
    except BaseException:
        if store.is_open():
            store.run("ROLLBACK TO fill")
            store.run("RELEASE fill")
        raise
    store.run("RELEASE fill")


@attrs.frozen
class _Filling:
    """Fills the tables of a database, one group of tables that refer to each other after the other."""

    store: Store
    tables: Mapping[str, Table]
    filled: Filled

    # ------------------------------------------------------------ tables

    def fill(self, group: Sequence[Table], rows: int) -> None:
        """Insert so many rows into each table of a group, as far as that goes."""
        if len(group) > 1:
            for table in group:
                table.circle = frozenset(other.name for other in group)
        for _ in range(_CIRCLE_TRIES if len(group) > 1 else 1):
            before = [self.store.broken_keys(table) for table in group]
            self.store.run("SAVEPOINT fill_group")
            if len(group) > 1:
                self.store.defer(until_end=True)
            made = self._insert_rows(group, rows)
            after = [self.store.broken_keys(table) for table in group]
            broken = [one.name for one, was, now in zip(group, before, after, strict=True) if now > was]
            if not broken:
                if len(group) > 1:
                    self.store.defer(until_end=False)
                self.store.run("RELEASE fill_group")
                self.filled.rows.update(made.rows)
                self.filled.unfilled.update(made.unfilled)
                self.filled.full.update(made.full)
                return
            self.store.run("ROLLBACK TO fill_group")
            self.store.run("RELEASE fill_group")
            for table in group:
                table.promised.clear()
        reason = f"these tables refer to each other, and no rows were found that do: {', '.join(broken)}"
        self.filled.unfilled.update({table.name: reason for table in group})

    def _insert_rows(self, group: Sequence[Table], rows: int) -> Filled:
        """Insert rows in turn, one into each table, until it takes no more."""
        counts: Counter[str] = Counter()
        reasons: dict[str, str] = {}
        full: set[str] = set()
        left = list(group)
        for place in range(rows):
            for table in left.copy():
                try:
                    if place == 0:
                        self.store.check(table)
                        if table.virtual and self.store.has_rows(table):
                            left.remove(table)  # triggers, or what it shows, have filled it
                            continue
                    self._insert_row(table, place)
                    counts[table.name] += 1
                except UnfilledError as error:
                    left.remove(table)
                    if self.store.has_rows(table):
                        full.add(table.id)
                    else:
                        reasons[table.name] = str(error)
        return Filled(dict(counts), reasons, full)

    # ------------------------------------------------------------ rows

    def _insert_row(self, table: Table, place: int) -> None:
        """Insert one row, changing it until it is accepted."""
        row = Row()
        promised = table.promised.pop(0) if table.promised else Row()
        # everything is set in the first row, what can be NULL is in the second, chance decides in the others
        null = None if place > 1 else place == 1
        for column in table.columns.values():
            _set(table, column, row, null=null)
        self._refer(table, row, null=null)
        refused: dict[str, Refusal] = {}
        again = 0
        for number in range(_TRIES_FOR_ANOTHER if place or self.store.has_rows(table) else _TRIES):
            row.values.update(promised.values)
            row.makers.update(promised.makers)
            asked = repr(row.values)
            refusal = refused.get(asked) or self._refusal(table, row)
            if refusal is None:
                return
            again += asked in refused
            refused[asked] = refusal
            reason = refusal.reason
            if again == _AGAIN:
                break  # the search has nothing else to propose
            if refusal.columns is not None and len(refusal.columns) == 1 and not refusal.depends_on_others:
                _remember(table, row, refusal.columns[0])
                if refusal.columns[0] in promised.values:
                    break  # others refer to it
            self._change(table, row, refusal.columns, anything=number > _PATIENCE)
        raise UnfilledError(f"no row was accepted in {number + 1:,} tries; the last was refused: {reason}")

    def _change(self, table: Table, row: Row, blamed: Sequence[str] | None, *, anything: bool) -> None:
        """Change some of the columns that are to blame, or of all."""
        if blamed is None:  # as of a trigger that guards what a new row may hold
            _reset(table, row)
        referring = {column for reference in table.references for column in reference.columns}
        own = [column for column in blamed or table.columns if column not in referring]
        if len(own) < len(blamed or table.columns) and (not own or table.generator.random() < 0.5):
            self._refer(table, row, null=None)
        most = len(own) if blamed else min(3, len(own))
        changed = table.generator.sample(own, table.generator.randint(1, most)) if own else []
        for column in changed:
            _set(table, table.columns[column], row, null=None, anything=anything)
        if any(one.parent == table.id and {*(one.keys or table.key)} & {*changed} for one in table.references):
            self._refer(table, row, null=None)  # it may refer to itself

    def _refusal(self, table: Table, row: Row) -> Refusal | None:
        """Insert a row and return why it is refused; None if it is not."""
        self.store.run("SAVEPOINT fill_row")
        refusal = self.store.insert(table, row)
        if not self.store.is_open():
            raise RolledBackError(table, "" if refusal is None else refusal.reason)
        if refusal is not None:
            self.store.run("ROLLBACK TO fill_row")
        self.store.run("RELEASE fill_row")
        return refusal

    # ------------------------------------------------------------ references

    def _refer(self, table: Table, row: Row, *, null: bool | None) -> None:
        """Let the row refer to rows of its parents, or to none."""
        for parent, promise in row.promises:
            if promise in parent.promised:
                parent.promised.remove(promise)
        row.promises.clear()
        for reference in table.references:
            if table.has(reference.columns):  # of a generated column only what it is made of can be changed
                values = self._key_of_parent(table, reference, row, null=null)
                row.values.update(zip(reference.columns, values, strict=True))
                for column in reference.columns:
                    row.makers.pop(column, None)

    def _key_of_parent(self, table: Table, reference: Reference, row: Row, *, null: bool | None) -> Sequence[Any]:
        """Return what a row has in the columns of a foreign key: the key of a parent, present or to come, or NULL."""
        parent = self.tables.get(reference.parent)
        keys = reference.keys or (parent.key if parent else ())
        if parent is not None and not (parent.has(keys) and len(keys) == len(reference.columns)):
            parent = None
        present = [] if parent is None else self.store.keys(parent, keys, _PARENTS)
        nullable = [column for column in reference.columns if table.columns[column].nullable]
        if nullable and (not present or _becomes_null(table, null=null)):
            return [None if column in nullable else row.values[column] for column in reference.columns]
        if present:
            return table.generator.choice(present)
        if parent is table:
            return [row.values[key] for key in keys]
        if parent is not None and parent.name in table.circle:
            return _promise(parent, keys, row)
        raise UnfilledError(f"a row has to refer to one of {reference.parent}, which has none to refer to")


def _becomes_null(table: Table, *, null: bool | None) -> bool:
    return table.generator.random() < _NULLS if null is None else null


def _set(table: Table, column: Column, row: Row, *, null: bool | None, anything: bool = False) -> None:
    """Give a column a new value; NULL, if it may be: always, never, or (None) now and then."""
    name = column.id
    row.makers.pop(name, None)
    if column.nullable and _becomes_null(table, null=null):
        row.values[name] = None
        return
    table.made += 1
    row.makers[name] = column.choose(table.generator, anything=anything)
    _, maker = column.makers[row.makers[name]]
    row.values[name] = maker(table.made)


def _reset(table: Table, row: Row) -> None:
    """Give some of the columns, half of all, what they hold in a row that does not name them; now and then."""
    if table.generator.random() < _RESETS:
        for name, column in table.columns.items():
            if column.default and table.generator.random() < _HALF:
                [row.values[name]] = column.default
                row.makers.pop(name, None)


def _remember(table: Table, row: Row, name: str) -> None:
    """Note that a column's value was refused for itself."""
    column = table.columns[name]
    if name in row.makers:
        column.refused[row.makers[name]] += 1
    elif row.values[name] is None:
        column.nullable = False


def _promise(parent: Table, keys: Sequence[str], row: Row) -> list[Any]:
    """Return the key of a row that the parent, which is in one circle with the table, will have later."""
    promise = Row()
    for key in keys:
        _set(parent, parent.columns[key], promise, null=False)
    parent.promised.append(promise)
    row.promises.append((parent, promise))
    return [promise.values[key] for key in keys]
