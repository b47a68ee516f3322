"""The trial of one migration on one stage: its scripts run in copies, with the checks of a run, and are judged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import attrs

from dao.engine import transaction
from dao.errors import CheckFailed, Error, MigrationFailed
from dao.migrate.copies.rows import SQLiteRows
from dao.migrate.copies.working_copy import WorkingCopies, WorkingCopy
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.check import Before, check, integrity_problems
from dao.migrate.schema.script import Watcher, run_script
from dao.migrate.schema.under_way import unheard
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step
from dao.migrate.verification.findings import Findings, Stage
from dao.migrate.verification.round_trip import Differences, State
from dao.migrate.verification.touched import Touched, Trace

__all__ = ["Place", "Trial", "follow"]


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
        return Place(attrs.evolve(self.state, rows=SQLiteRows(connection)), connection, self.before)


class Trial(Findings):
    """One migration on one stage.

    Scripts run in copies. The database itself shows what was before, and then follows, as each script does the same in
    each copy.
    """

    def __init__(self, copies: WorkingCopies, migration: Migration, stage: Stage) -> None:
        super().__init__(migration, stage)
        self.copies = copies
        #: The tables that its scripts have touched, and those into which they INSERT.
        self.touched: Touched = frozenset()
        self.inserts: set[str] = set()
        #: The database before it, where that is known, and after it.
        self.before: Place | None = None
        self.after: Place | None = None

    def pass_over(self, connection: WorkingCopy) -> bool:
        """Just apply it, and return whether that could be done."""
        try:
            follow(connection, self.up)
        except Error as error:
            self.fails(self.up, f"apply fails: {error}")
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

        def state(step: Step) -> State | None:
            nonlocal latest
            there = run(step, latest)
            latest = there or latest
            return None if there is None else there.state

        states = [None if place is None else place.state for place in places]
        _, is_again = self.trip(states, state)
        return is_again

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
            self.fails(step, f"{step.direction}{again} fails: {error}")
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
                after = check(connection, before, unheard, written=written, schema=state.defined)
            except CheckFailed as error:
                if is_end:
                    raise
                # a later migration may mend it, so those are tried, too
                self.fails(step, f"{step.direction} is refused: {error}")
        # where the database of before is not known, the rollback leaves one like it
        there = self.before.state.schema if self.before else state.schema
        self.note_losses(step, [loss for _, loss in trace.losses()], there, excuses_all=self.before is None)
        return Place(state, connection, after)

    def differs(self, step: Step, found: Differences, when: str | None = None) -> None:
        """As `Findings`; backwards the rollback comes first."""
        super().differs(step, found, when or ("after rollback and apply" if self.before is None else None))


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
