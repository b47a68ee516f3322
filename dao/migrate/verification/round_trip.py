"""The law of up, down and up again: schema and rows are each time what they were when the database was there before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.copies.rows import Content, RowDifference, RowSource, SQLiteRows, content, row_difference
from dao.migrate.schema.catalog import Definitions, definitions
from dao.migrate.schema.model import Schema, differences
from dao.migrate.schema.names import fold
from dao.migrate.schema.reader import read
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Direction, Loss, Step
from dao.migrate.verification.touched import Touched, Trace

__all__ = ["Differences", "Law", "State", "TripFailure", "down_and_up"]

_HEADER = ("user_version", "application_id")


@attrs.frozen
class State:
    """A database at a moment: its schema, also as it is `defined`, its tables' content, and numbers of its header.

    `rows` are those of then, if they can still be had. Then those that differ can be shown, and are compared in the
    columns that both databases have; without them, tables are compared as a whole.
    """

    schema: Schema
    defined: Definitions = attrs.field(repr=False)
    tables: dict[str, Content]
    header: dict[str, Any]
    rows: RowSource | None

    @classmethod
    def of(
        cls, connection: Connection, *, stays: bool, since: State | None = None, trace: Trace | None = None
    ) -> State:
        """Read it, without the ledger.

        Reads all rows; but if the database was `since` before, and a `trace` has watched all that was done to it, only
        those of the tables that were written, and of those whose definition is another.
        """
        defined = frozenset(definitions(connection))
        schema = read(connection, defined)
        header = {name: connection.pragma(name) for name in _HEADER}
        state = cls(schema, defined, {}, header, SQLiteRows(connection) if stays else None)
        if since is None or trace is None:
            return state.with_rows(connection, None)
        known = {}
        for name, one in since.tables.items():
            key = ("table", fold(name))
            if key in schema.objects and schema.objects[key] is since.schema.objects.get(key):
                known[name] = one
        return attrs.evolve(state, tables=known).with_rows(connection, trace.written(since.schema, schema))

    def with_rows(self, connection: Connection, written: Touched) -> State:
        """Return it with the rows that it has now, of which those of tables that were not `written` are as before."""
        known = {} if written is None else {name: one for name, one in self.tables.items() if fold(name) not in written}
        found: dict[str, Content] = {}
        for one in self.schema.objects.values():
            if one.type == "table":
                found[one.name] = known.get(one.name) or content(connection, one.name)
            elif one.type == "virtual table":
                # it may show what is anywhere; or its module is not registered here, or what it shows is not there
                with contextlib.suppress(apsw.SQLError):
                    found[one.name] = content(connection, one.name)
        return attrs.evolve(self, tables=found)


@attrs.frozen
class Differences:
    """How a database differs from what it should be: in its schema, line by line, in rows, and in its header.

    `header` has for a pragma the number that is expected, and the one that is there.
    """

    schema: tuple[str, ...]
    rows: tuple[RowDifference, ...]
    header: dict[str, tuple[Any, Any]]


@attrs.frozen
class TripFailure:
    """A problem on the way down ("rollback") or up ("apply"): a message, and the differences."""

    id: str
    direction: Direction
    message: str
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n  ".join([self.message, *self.differences])


class Law:
    """Tells how a database differs from what it was: each difference once, and none that is excused."""

    def __init__(self) -> None:
        #: Folded names of tables and columns ("" for all) whose values need not come back.
        self._excused: set[tuple[str, str]] = set()
        #: Lines on the schema, and names of tables, that were told.
        self._told: set[str] = set()

    def excuse(self, losses: Iterable[Loss]) -> None:
        """Note losses: what they are about need not come back."""
        self._excused |= {(fold(loss.table), fold(loss.column or "")) for loss in losses}

    def excuse_rows(self, tables: Iterable[str]) -> None:
        """Note tables whose rows need not come back."""
        self._excused |= {(fold(table), "") for table in tables}

    def differences(self, expected: State, actual: State) -> Differences:
        """Return how a database differs from what it should be, without what was told before or is excused."""
        lines = [str(found) for found in differences(expected.schema, actual.schema)]
        lines = [line for line in lines if line not in self._told]
        rows = [found for table in expected.tables if (found := self._in_rows(table, expected, actual))]
        self._told.update(lines, (found.table for found in rows))
        pairs = {name: (value, actual.header[name]) for name, value in expected.header.items()}
        header = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return Differences(tuple(lines), tuple(rows), header)

    def _in_rows(self, table: str, expected: State, actual: State) -> RowDifference | None:
        was, now = expected.tables[table], actual.tables.get(table)
        excused = {column for of, column in self._excused if of == fold(table)}
        if now is None or was == now or table in self._told or "" in excused:
            return None
        if expected.rows is None or actual.rows is None:
            return None if excused else RowDifference(table, was.rows, now.rows)
        return row_difference(expected.rows, actual.rows, table, was, now, without=excused)


def down_and_up(
    applied: Sequence[Migration],
    states: Sequence[State | None],
    law: Law,
    run: Callable[[Step], State | None],
    differs: Callable[[Step, Differences], object],
) -> tuple[list[Migration], list[Migration]]:
    """Roll back migrations, the latest first, and apply them again; return those undone and those applied again.

    `states` has the database before the first of them, None if it is not known, and after each. `run` runs a step and
    returns the database after it, None if it fails; `differs` is told how that differs from what it should be. The way
    down ends at the first that is irreversible or fails, and the way up begins there.
    """
    undone: list[Migration] = []
    again: list[Migration] = []

    def comes_back(step: Step, expected: State | None) -> bool:
        state = run(step)
        law.excuse_rows(step.migration.allows.rows)
        if state is not None and expected is not None:
            differs(step, law.differences(expected, state))
        return state is not None

    for migration, before in zip(reversed(applied), reversed(states[:-1]), strict=True):
        if not migration.reversible or not comes_back(Step(migration=migration, direction="rollback"), before):
            break
        undone.append(migration)
    begin = len(applied) - len(undone)
    for migration, after in zip(applied[begin:], states[begin + 1 :], strict=True):
        if not comes_back(Step(migration=migration, direction="apply"), after):
            break
        again.append(migration)
    return undone, again
