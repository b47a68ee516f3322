"""Verifies migrations: up, down and up again must give the same schema and the same rows. Only copies are changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import attrs

from dao.engine import Connection, transaction
from dao.errors import CheckFailed, Error, MigrationFailed
from dao.migrate.copies.working_copy import SMALL, WorkingCopies
from dao.migrate.database import Target, existing, opened
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.plan import to_apply
from dao.migrate.run.guard import Guard
from dao.migrate.schema.catalog import column_names, fold
from dao.migrate.schema.check import Before, check, integrity_problems
from dao.migrate.schema.script import run_script
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Step
from dao.migrate.verification.generate import fill
from dao.migrate.verification.round_trip import Differences, Law, State, TripFailure, down_and_up

__all__ = ["Stage", "Verification", "verify"]

#: Where a migration was tried: on an empty database, on one whose tables hold generated rows, on a copy of a real one.
Stage = Literal["empty", "generated rows", "copy"]


@attrs.frozen(kw_only=True)
class Verification:
    """The result of one migration on one stage.

    `problems` are texts, of one line or several. `warnings` may be meant: the migration is irreversible, its rollback
    refuses rows that were written since, or leaves a `user_version`. `losses` are the data that its scripts lose: those
    that are declared, and those that the rollback drops because the migration made them. `unfilled` are the tables
    for which no rows could be generated, with the reason. `seconds` is how long it took.
    """

    id: str
    stage: Stage
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unfilled: dict[str, str] = attrs.Factory(dict)
    reversible: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    migrations: Source = None, *, database: Target | None = None, rows: int = 3, memory_limit: int = SMALL
) -> list[Verification]:
    """Run every migration up, down and up again, and return the results in order. Only reads the database.

    It is tried on an empty database, then on one whose tables hold `rows` generated rows each. If a `database` is
    named, the pending migrations are tried on a copy of it, forwards, and then the applied ones, backwards. After the
    rollback, schema and rows must be what they were before; after the second time, what they were after the first.
    Foreign keys and integrity are checked after every script, as in a run. Meanwhile time stands still, and chance
    repeats itself. Copies are in memory; those of more than `memory_limit` bytes (64 MiB) are in files of the
    temporary folder, which go at the end.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist.
        LedgerMismatch: Its ledger does not agree with the files.
        DatabaseCorrupt, DatabaseBusy, DiskFull: As it says.
    """
    files = loaded(migrations)
    if database is not None:
        existing(database, "copy")  # before a minute of other trials
    with WorkingCopies() as copies:
        found = list(_forwards(copies, State.of(copies.copy(), stays=True), files, "empty", rows=rows))
    if database is not None:
        with WorkingCopies(limit=memory_limit) as copies, opened(database, read_only=True) as source:
            state = ledger.read(source)
            pending = [step.migration for step in to_apply(files, state)]
            by_id = {migration.id: migration for migration in files}
            original = State.of(copies.copy(source), stays=True)
            found += _forwards(copies, original, pending, "copy")
            found += _backwards(copies, original, [by_id[id] for id in reversed(state.ids)])
    return found


# ---------------------------------------------------------------- stages


def _forwards(
    copies: WorkingCopies, begin: State, migrations: Sequence[Migration], stage: Stage, *, rows: int = 0
) -> Iterator[Verification]:
    """Try migrations one after the other; with `rows`, also with so many generated rows in each table."""
    here = begin
    for place, migration in enumerate(migrations):
        trial = _Trial(copies, migration, stage)
        after = trial.there_and_back(here)
        yield trial.end()
        if after is None:
            yield from _not_reached(migrations[place + 1 :], migration, stage)
            break
        if rows:
            trial = _Trial(copies, migration, "generated rows")
            trial.on_generated_rows(here, rows)
            yield trial.end()
        copies.keep(begin.connection, after.connection)
        here = after
    copies.keep(begin.connection)


def _backwards(copies: WorkingCopies, begin: State, migrations: Sequence[Migration]) -> Iterator[Verification]:
    """Try migrations from the last to the first, as far as they can be undone."""
    here = begin
    for place, migration in enumerate(migrations):
        trial = _Trial(copies, migration, "copy")
        before = trial.back_and_there(here)
        yield trial.end()
        if before is None:
            if trial.problems:
                yield from _not_reached(migrations[place + 1 :], migration, "copy")
            return
        copies.keep(before.connection)
        here = before


def _not_reached(migrations: Sequence[Migration], failed: Migration, stage: Stage) -> Iterator[Verification]:
    problem = f"not tried: {failed.id} comes before it here, and fails"
    for migration in migrations:
        yield Verification(id=migration.id, stage=stage, problems=(problem,), reversible=migration.reversible)


# ---------------------------------------------------------------- one migration on one stage


class _Trial:
    """One migration on one stage. Each script runs in a copy of its own, so that all states can be compared."""

    def __init__(self, copies: WorkingCopies, migration: Migration, stage: Stage) -> None:
        self.copies, self.migration, self.stage = copies, migration, stage
        self.problems: list[TripFailure] = []
        self.warnings: list[str] = []
        self.losses: list[str] = []
        self.unfilled: dict[str, str] = {}
        self._law = Law()
        #: The database at the beginning, and after each script.
        self._states: list[State] = []
        #: Whether it begins with the rollback: then the database of before the migration is not known.
        self._backwards = False
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

    def there_and_back(self, before: State) -> State | None:
        """Apply, roll back and apply again; return the database after the first of these, None if that fails."""
        self._states = [before]
        after = self._run(Step(migration=self.migration, direction="apply"))
        if after is not None:
            self._down_and_up([before, after])
        return after

    def back_and_there(self, after: State) -> State | None:
        """Roll back and apply again; return the database after the first of these, None if one fails."""
        self._states, self._backwards = [after], True
        return self._states[1] if self._down_and_up([None, after]) else None

    def on_generated_rows(self, before: State, rows: int) -> None:
        """Do all that with so many rows in each table; then roll back with rows that were written since."""
        filled = self.copies.copy(before.connection)
        self.unfilled = fill(filled, rows=rows).unfilled
        after = self.there_and_back(State.of(filled, stays=True))
        if after is None or not self.migration.reversible or self.problems:
            return
        written = self.copies.copy(after.connection)
        self.unfilled |= fill(written, rows=rows, seed=1).unfilled
        written.seed()
        step = Step(migration=self.migration, direction="rollback")
        try:
            # new tables and columns take with them what is in them
            self._note_losses(step, self._run_script(written, step, is_end=True), filled)
        except Error as error:
            self.warnings.append(f"the rollback refuses rows that were written since: {error}")

    def _down_and_up(self, states: Sequence[State | None]) -> bool:
        """Return whether it could be undone and applied again."""
        if not self.migration.reversible:
            why = "has no rollback script" if self.migration.down is None else "has an empty rollback script"
            self.warnings.append(f"irreversible: it {why}")
        _, again = down_and_up([self.migration], states, self._law, self._run, self._differs)
        return bool(again)

    # ------------------------------------------------------------ scripts

    def _run(self, step: Step) -> State | None:
        """Run a script in a copy of the latest database; return what it makes of that, None if it fails."""
        copy = self.copies.copy(self._states[-1].connection)
        try:
            losses = self._run_script(copy, step)
        except Error as error:
            again = " after the rollback" if step.direction == "apply" and len(self._states) > 1 else ""
            self._fails(step, f"{step.direction}{again} fails: {error}")
            return None
        before = None if self._backwards else self._states[0].connection
        # where the database of before is not known, the rollback leaves one like it
        self._note_losses(step, losses, before or copy)
        self._states.append(State.of(copy, stays=True))
        return self._states[-1]

    def _run_script(self, connection: Connection, step: Step, *, is_end: bool = False) -> tuple[Loss, ...]:
        """Run a script with the checks of a run, and return what it lost. A check that fails is a problem.

        Raises:
            Error: The script fails; or a check does, at the `is_end` of a run.
        """
        script = step.script
        before = Before.of(connection, integrity_problems(connection))
        connection.pragma("foreign_keys", script.foreign_keys)
        with transaction(connection) if script.transactional else contextlib.nullcontext():
            guard = Guard(connection)
            run_script(connection, step.id, script, watcher=guard)
            if connection.in_transaction != script.transactional:
                did = "ended the run's transaction" if script.transactional else "left a transaction open"
                raise MigrationFailed(f"{script.path}: the script {did}", migration=step.id, path=script.path)
            try:
                check(connection, before, lambda _text: None)
            except CheckFailed as error:
                if is_end:
                    raise
                # a later migration may mend it, so those are tried, too
                self._fails(step, f"{step.direction} is refused: {error}")
        return tuple(loss for _, loss in guard.losses())

    def _note_losses(self, step: Step, losses: Sequence[Loss], before: Connection) -> None:
        """Note the losses of a script: each must be declared in it, or be of something that the migration made."""
        script = step.script
        there = column_names(before) if losses else set()
        for loss in losses:
            is_declared = loss.is_declared(script.allows)
            is_made = step.direction == "rollback" and (fold(loss.table), fold(loss.column or "")) not in there
            if not is_declared and not is_made:
                name = script.path.name if script.path else step.id
                mend = f"Mend it, or write `{loss.declaration}` at the top of {name}"
                self._fails(step, f"{step.direction} loses data without saying so: {loss}", mend)
                continue
            self.losses.append(f"{step.direction}: {loss}")
            # the migration makes again what it made, but not what was written to it since
            if is_declared or self._backwards:
                self._law.excuse([loss])

    # ------------------------------------------------------------ problems

    def _fails(self, step: Step, message: str, *differences: str) -> None:
        self.problems.append(TripFailure(step.id, step.direction, message, differences))

    def _differs(self, step: Step, found: Differences) -> None:
        when = "after the rollback" if step.direction == "rollback" else "after the second apply"
        when = "after rollback and apply" if self._backwards else when
        if found.schema:
            self._fails(step, f"the schema {when} is another", *found.schema)
        for difference in found.rows:
            self._fails(step, f"rows {when} are others", *str(difference).split("\n"))
        for name, (expected, actual) in found.header.items():
            self.warnings.append(f"PRAGMA {name} is {actual} {when}, expected {expected}")
