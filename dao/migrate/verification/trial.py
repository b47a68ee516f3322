"""The trial of one migration on one stage: its scripts run in copies, with the checks of a run, and are judged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import attrs

from dao.engine import transaction
from dao.errors import CheckFailed, Error, MigrationFailed
from dao.migrate.copies.working_copy import WorkingCopies, WorkingCopy
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.catalog import fold
from dao.migrate.schema.check import Before, check, integrity_problems
from dao.migrate.schema.model import Schema
from dao.migrate.schema.script import Watcher, run_script
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Step
from dao.migrate.verification.round_trip import (
    Differences,
    Law,
    State,
    TripFailure,
    down_and_up,
    irreversible,
    trip_failures,
)
from dao.migrate.verification.touched import Touched, Trace

__all__ = ["Place", "Stage", "Trial", "Verification", "follow"]

#: Where a migration was tried: on an empty database, on one whose tables hold generated rows, on a copy of a real one.
Stage = Literal["empty", "generated rows", "copy"]


@attrs.frozen(kw_only=True)
class Verification:
    """The result of one migration on one stage.

    `problems` are texts, of one line or several. `warnings` may be meant: the migration is irreversible, its rollback
    refuses rows that were written since, or leaves a `user_version`. `losses` are the data that its scripts lose: those
    that are declared, and those that the rollback drops because the migration made them. `unfilled` are the tables
    for which no rows could be generated, with the reason. One that comes after a failure is not `tried`, which is a
    problem too. `seconds` is how long it took.
    """

    id: str
    stage: Stage
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unfilled: dict[str, str] = attrs.Factory(dict)
    reversible: bool = True
    tried: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@attrs.frozen
class Place:
    """A database at a place of the history, and what a run's check has found there; None if it has to look first."""

    state: State
    connection: WorkingCopy
    before: Before | None = None

    @classmethod
    def of(cls, connection: WorkingCopy) -> Place:
        """Read all of a database."""
        return cls(State.of(connection, stays=True), connection)

    def at(self, connection: WorkingCopy) -> Place:
        """Return the same place in another copy."""
        return Place(attrs.evolve(self.state, connection=connection), connection, self.before)


class Trial:
    """One migration on one stage.

    Scripts run in copies. The database itself shows what was before, and then follows, as each script does the same in
    each copy.
    """

    def __init__(self, copies: WorkingCopies, migration: Migration, stage: Stage) -> None:
        self.copies, self.migration, self.stage = copies, migration, stage
        self.up, self.down = (Step(migration=migration, direction=one) for one in ("apply", "rollback"))
        self.problems: list[TripFailure] = []
        self.warnings: list[str] = []
        self.losses: list[str] = []
        self.unfilled: dict[str, str] = {}
        #: The tables that its scripts have touched, and those into which they INSERT.
        self.touched: Touched = frozenset()
        self.inserts: set[str] = set()
        #: The database before it, where that is known, and after it.
        self.before: Place | None = None
        self.after: Place | None = None
        self._law = Law()
        self._begun = time.perf_counter()

    def end(self) -> Verification:
        """Return what was found, each thing once."""
        return Verification(
            id=self.migration.id,
            stage=self.stage,
            problems=tuple(dict.fromkeys(map(str, self.problems))),
            warnings=tuple(dict.fromkeys(self.warnings)),
            losses=tuple(dict.fromkeys(self.losses)),
            unfilled=self.unfilled,
            reversible=self.migration.reversible,
            seconds=time.perf_counter() - self._begun,
        )

    def pass_over(self, connection: WorkingCopy) -> bool:
        """Just apply it, and return whether that could be done."""
        try:
            follow(connection, self.up)
        except Error as error:
            self._fails(self.up, f"apply fails: {error}")
        return not self.problems

    def there_and_back(self, here: Place) -> Place | None:
        """Apply, roll back and apply again in a copy; return the database after it was applied, None if that fails."""
        self.before = here
        tried = self.copies.copy(here.connection)
        latest = self._run(tried, here, self.up)
        if latest is None:
            return None
        self.after = latest.at(here.connection)
        followed = False

        def run(step: Step, since: Place) -> Place | None:
            nonlocal followed
            if step.direction == "apply":
                follow(here.connection, self.up)
                followed = True
            return self._run(tried, since, step)

        self._down_and_up([here, self.after], latest, run)
        if not followed:
            follow(here.connection, self.up)
        return self.after

    def back_and_there(self, here: Place) -> Place | None:
        """Roll back and apply again, each in a copy; return the database after the first, None if one fails."""
        self.after = here
        before: list[Place] = []

        def run(step: Step, since: Place) -> Place | None:
            there = self._run(self.copies.copy(since.connection), since, step)
            if there is not None:
                before.append(there)
            return there

        return before[0] if self._down_and_up([None, here], here, run) else None

    def _down_and_up(
        self, places: Sequence[Place | None], latest: Place, run: Callable[[Step, Place], Place | None]
    ) -> bool:
        """Return whether it could be undone and applied again."""
        if why := irreversible(self.migration):
            self.warnings.append(why)

        def state(step: Step) -> State | None:
            nonlocal latest
            there = run(step, latest)
            latest = there or latest
            return None if there is None else there.state

        states = [None if place is None else place.state for place in places]
        _, again = down_and_up([self.migration], states, self._law, state, self._differs)
        return bool(again)

    # ------------------------------------------------------------ scripts

    def _run(self, connection: WorkingCopy, since: Place, step: Step) -> Place | None:
        """Run a script; return the database after it, None if it fails."""
        trace = Trace(Holdings(connection, since.state.defined))
        try:
            there = self.run_script(connection, since, step, trace)
        except Error as error:
            # what comes after the statement that failed is not known
            self.touched = None
            again = " after the rollback" if step.direction == "apply" and since is not self.before else ""
            self._fails(step, f"{step.direction}{again} fails: {error}")
            return None
        touched = trace.touched(since.state.schema, there.state.schema)
        self.touched = None if touched is None or self.touched is None else self.touched | touched
        self.inserts |= trace.inserts
        return there

    def run_script(
        self, connection: WorkingCopy, since: Place, step: Step, trace: Trace, *, is_end: bool = False
    ) -> Place:
        """Run a script with the checks of a run, and note what it lost. A check that fails is a problem.

        Raises:
            Error: The script fails; or a check does, at the `is_end` of a run.
        """
        before = since.before or Before.of(connection, integrity_problems(connection))
        after: Before | None = None
        with _running(connection, step, trace):
            state = State.of(connection, stays=True, since=since.state, trace=trace)
            try:
                written = trace.written(since.state.schema, state.schema)
                after = check(connection, before, lambda _text: None, written=written, schema=state.defined)
            except CheckFailed as error:
                if is_end:
                    raise
                # a later migration may mend it, so those are tried, too
                self._fails(step, f"{step.direction} is refused: {error}")
        # where the database of before is not known, the rollback leaves one like it
        there = self.before.state.schema if self.before else state.schema
        self._note_losses(step, [loss for _, loss in trace.losses()], there)
        return Place(state, connection, after)

    def _note_losses(self, step: Step, losses: Sequence[Loss], before: Schema) -> None:
        """Note the losses of a script: each must be declared in it, or be of something that the migration made."""
        script = step.script
        for loss in losses:
            is_declared = loss.is_declared(script.allows)
            is_made = step.direction == "rollback" and not _has(before, loss.table, loss.column)
            if not is_declared and not is_made:
                name = script.path.name if script.path else step.id
                mend = f"Mend it, or write `{loss.declaration}` at the top of {name}"
                self._fails(step, f"{step.direction} loses data without saying so: {loss}", mend)
                continue
            self.losses.append(f"{step.direction}: {loss}")
            # the migration makes again what it made, but not what was written to it since
            if is_declared or self.before is None:
                self._law.excuse([loss])

    # ------------------------------------------------------------ problems

    def _fails(self, step: Step, message: str, *differences: str) -> None:
        self.problems.append(TripFailure(step.id, step.direction, message, differences))

    def _differs(self, step: Step, found: Differences) -> None:
        when = "after the rollback" if step.direction == "rollback" else "after the second apply"
        when = "after rollback and apply" if self.before is None else when
        self.problems += trip_failures(step, found, when)
        for name, (expected, actual) in found.header.items():
            self.warnings.append(f"PRAGMA {name} is {actual} {when}, expected {expected}")


def _has(schema: Schema, table: str, column: str | None) -> bool:
    """Return whether there is a table, or a column of it."""
    kinds = ("table", "virtual table")
    one = next((schema.objects[kind, fold(table)] for kind in kinds if (kind, fold(table)) in schema.objects), None)
    if one is None or column is None:
        return one is not None
    return any(item.family == "column" and item.key == fold(column) for item in one.items)


@contextlib.contextmanager
def _running(connection: WorkingCopy, step: Step, watcher: Watcher | None = None) -> Iterator[None]:
    """Run a script as a run does, and then the block, in its transaction if it has one.

    Raises:
        Error: The script fails.
    """
    script = step.script
    connection.seed()
    connection.pragma("foreign_keys", script.foreign_keys)
    try:
        with transaction(connection) if script.transactional else contextlib.nullcontext():
            run_script(connection, step.id, script, watcher=watcher)
            if connection.in_transaction != script.transactional:
                did = "ended the run's transaction" if script.transactional else "left a transaction open"
                raise MigrationFailed(f"{script.path}: the script {did}", migration=step.id, path=script.path)
            yield
    finally:
        if not connection.in_transaction:
            connection.pragma("foreign_keys", False)


def follow(connection: WorkingCopy, *steps: Step) -> None:
    """Run scripts of which trials have shown what they do."""
    for step in steps:
        with _running(connection, step):
            pass
