"""Proves migrations: up, down and up again must give the same schema and the same rows each time. Nothing real is touched.

Each script runs in a copy of its own, so that what was before it is still there to compare with.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import attrs

from dao.engine import Connection, transaction
from dao.errors import CheckFailed, Error, MigrationFailed
from dao.migrate.copies.rows import row_differences
from dao.migrate.copies.working_copy import SMALL, WorkingCopies
from dao.migrate.database import Target, existing, opened
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.plan import to_apply
from dao.migrate.run.script import run_script
from dao.migrate.schema import replay as schema
from dao.migrate.schema.catalog import column_names, fold
from dao.migrate.schema.integrity import integrity_problems
from dao.migrate.schema.usable import Before, check
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Direction, Loss, Step
from dao.migrate.verification.generate import fill

__all__ = ["Stage", "Verification", "verify"]

#: What a migration was tried on: an empty database, one whose tables hold generated rows, a copy of a real one.
Stage = Literal["empty", "generated rows", "copy"]


@attrs.frozen(kw_only=True)
class Verification:
    """What came of one migration on one stage.

    `problems` are what is wrong, each a text that may have several lines; `warnings` what is worth knowing, though it may
    be meant: that it is irreversible, that its rollback refuses rows that were written since or leaves a `user_version`.
    `losses` are the data that its scripts lose: what the rollback drops because the migration made it, and what is
    declared. `unfilled` are the tables that no rows could be generated for, with the reason.
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
    """Run every migration up, down and up again, and return what came of each, in order.

    Each on an empty database, then on one whose tables hold `rows` generated rows each; then, if a `database` is named, on a
    copy of it: the pending ones forwards from what it is, the applied ones backwards. After the rollback, schema and rows
    must be what they were before; after the second time, what they were after the first. Foreign keys and integrity are
    checked after every script, as in a run. Time stands still meanwhile, and chance repeats itself. Only reads the database.
    Its copies are in memory, beyond `memory_limit` bytes (64 MiB) each in files of the temporary folder, which go at the end.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist.
        LedgerMismatch: Its ledger does not agree with the files.
        DatabaseCorrupt, DatabaseBusy, DiskFull: As it says.
    """
    files = loaded(migrations)
    with WorkingCopies() as copies:
        found = list(_on_made_databases(copies, files, rows))
    if database is not None:
        with WorkingCopies(limit=memory_limit) as copies, opened(existing(database), read_only=True) as source:
            state = ledger.read(source)
            pending = [step.migration for step in to_apply(files, state)]
            original = copies.copy(source)
            found += _forwards(copies, original, pending)
            by_id = {migration.id: migration for migration in files}
            found += _backwards(copies, original, [by_id[id] for id in reversed(state.ids)])
    return found


# ---------------------------------------------------------------- stages


class _Trial:
    """One migration on one stage: finds what is wrong with it, and how long that took."""

    def __init__(self, migration: Migration, stage: Stage) -> None:
        self.migration = migration
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.losses: list[str] = []
        self.unfilled: dict[str, str] = {}
        #: Tables and columns ("" for all) whose values the scripts lose: as declared, or because the migration made them.
        self.declared: set[tuple[str, str]] = set()
        self.made: set[tuple[str, str]] = set()
        #: Differences of the schema, and tables whose rows differ, that are among the problems already.
        self.told: set[str] = set()
        self._stage: Stage = stage
        self._begun = time.perf_counter()

    def end(self) -> Verification:
        """Return what was found."""
        return Verification(
            id=self.migration.id,
            stage=self._stage,
            problems=tuple(dict.fromkeys(self.problems)),
            warnings=tuple(dict.fromkeys(self.warnings)),
            losses=tuple(dict.fromkeys(self.losses)),
            unfilled=self.unfilled,
            reversible=self.migration.reversible,
            seconds=time.perf_counter() - self._begun,
        )


def _on_made_databases(copies: WorkingCopies, files: Sequence[Migration], rows: int) -> Iterator[Verification]:
    here: Connection = copies.copy()
    for place, migration in enumerate(files):
        trial = _Trial(migration, "empty")
        after = _there_and_back(copies, here, trial)
        yield trial.end()
        if after is None:
            yield from _not_reached(files[place + 1 :], migration, "empty")
            return
        trial = _Trial(migration, "generated rows")
        filled = copies.copy(here)
        trial.unfilled = fill(filled, rows=rows).unfilled
        last = _there_and_back(copies, filled, trial)
        if last is not None and migration.reversible and not trial.problems:
            _undo_with_new_rows(copies, last, filled, rows, trial)
        yield trial.end()
        copies.keep(after)
        here = after


def _forwards(copies: WorkingCopies, original: Connection, pending: Sequence[Migration]) -> Iterator[Verification]:
    here = original
    for place, migration in enumerate(pending):
        trial = _Trial(migration, "copy")
        after = _there_and_back(copies, here, trial)
        yield trial.end()
        copies.keep(original, after)
        if after is None:
            yield from _not_reached(pending[place + 1 :], migration, "copy")
            return
        here = after


def _backwards(copies: WorkingCopies, original: Connection, applied: Sequence[Migration]) -> Iterator[Verification]:
    here = original
    for place, migration in enumerate(applied):
        trial = _Trial(migration, "copy")
        before = _back_and_there(copies, here, trial)
        yield trial.end()
        copies.keep(before)
        if before is None:
            if trial.problems:
                yield from _not_reached(applied[place + 1 :], migration, "copy")
            return
        here = before


def _not_reached(migrations: Iterable[Migration], failed: Migration, stage: Stage) -> Iterator[Verification]:
    for migration in migrations:
        trial = _Trial(migration, stage)
        trial.problems.append(f"not tried: {failed.id} comes before it here, and fails")
        yield trial.end()


# ---------------------------------------------------------------- the law


def _there_and_back(copies: WorkingCopies, before: Connection, trial: _Trial) -> Connection | None:
    """Apply, roll back and apply again; return the database after the first of these, None if that fails."""
    after = _applied(copies, before, trial, "apply fails")
    if after is None or not _can_be_undone(trial):
        return after
    undone = _undone(copies, after, before, trial)
    if undone is None:
        return after
    _compare(before, undone, trial, "after the rollback")
    again = _applied(copies, undone, trial, "apply after the rollback fails")
    if again is not None:
        _compare(after, again, trial, "after the second apply")
    return after


def _back_and_there(copies: WorkingCopies, after: Connection, trial: _Trial) -> Connection | None:
    """Roll back and apply again; return the database after the first of these, None if one fails."""
    if not _can_be_undone(trial):
        return None
    before = _undone(copies, after, None, trial)
    if before is None:
        return None
    again = _applied(copies, before, trial, "apply after the rollback fails")
    if again is None:
        return None
    _compare(after, again, trial, "after rollback and apply", without_made=True)
    return before


def _undo_with_new_rows(copies: WorkingCopies, after: Connection, before: Connection, rows: int, trial: _Trial) -> None:
    """Roll back when rows were written since: what is in the new tables and columns goes with them."""
    written = copies.copy(after)
    trial.unfilled |= fill(written, rows=rows, seed=1).unfilled
    undone = copies.copy(written)
    try:
        _note_losses(trial, "rollback", _run(undone, trial, "rollback", is_end=True), before)
    except Error as error:
        trial.warnings.append(f"the rollback refuses rows that were written since: {error}")


def _can_be_undone(trial: _Trial) -> bool:
    migration = trial.migration
    if migration.reversible:
        return True
    why = "has no rollback script" if migration.down is None else "has an empty rollback script"
    trial.warnings.append(f"irreversible: it {why}")
    return False


# ---------------------------------------------------------------- scripts


def _applied(copies: WorkingCopies, source: Connection, trial: _Trial, failing: str) -> Connection | None:
    copy = copies.copy(source)
    try:
        _note_losses(trial, "apply", _run(copy, trial, "apply"), source)
    except Error as error:
        trial.problems.append(f"{failing}: {error}")
        return None
    return copy


def _undone(copies: WorkingCopies, source: Connection, before: Connection | None, trial: _Trial) -> Connection | None:
    copy = copies.copy(source)
    try:
        losses = _run(copy, trial, "rollback")
    except Error as error:
        trial.problems.append(f"rollback fails: {error}")
        return None
    # without a database of before, what the rollback leaves tells what there was
    _note_losses(trial, "rollback", losses, copy if before is None else before)
    return copy


def _run(connection: Connection, trial: _Trial, direction: Direction, *, is_end: bool = False) -> tuple[Loss, ...]:
    """Run a script as a run does, with its checks; return what it lost. What does not hold after it is a problem.

    Raises:
        Error: It fails; what does not hold at the `is_end` of a run, too.
    """
    id, script = trial.migration.id, Step(migration=trial.migration, direction=direction).script
    before = Before.of(connection, integrity_problems(connection))
    connection.pragma("foreign_keys", script.foreign_keys)
    with transaction(connection) if script.transactional else contextlib.nullcontext():
        ran = run_script(
            connection,
            script.text,
            migration=id,
            path=script.path,
            transactional=script.transactional,
            notice=lambda _text: None,
        )
        if connection.in_transaction != script.transactional:
            did = "ended the run's transaction" if script.transactional else "left a transaction open"
            raise MigrationFailed(f"{script.path}: the script {did}", migration=id, path=script.path)
        try:
            check(connection, before, lambda _text: None)
        except CheckFailed as error:
            if is_end:
                raise
            # a later migration may mend it, so those are tried, too
            trial.problems.append(f"{direction} is refused: {error}")
    return ran.losses


def _note_losses(trial: _Trial, direction: Direction, losses: Iterable[Loss], before: Connection) -> None:
    """Note what a script lost, and hold it against what its file declares and what the migration made."""
    script = Step(migration=trial.migration, direction=direction).script
    there = column_names(before) if losses else set()
    for loss in losses:
        lost = (fold(loss.table), fold(loss.column or ""))
        made = direction == "rollback" and lost not in there
        if loss.is_declared(script.allows):
            trial.declared.add(lost)
        elif made:
            trial.made.add(lost)
        else:
            trial.problems.append(
                f"{direction} loses data without saying so: {loss}\n  Mend it, or write `{loss.declaration}` at the top of "
                f"{script.path.name if script.path else trial.migration.id}"
            )
            continue
        trial.losses.append(f"{direction}: {loss}")


# ---------------------------------------------------------------- comparison


def _compare(expected: Connection, actual: Connection, trial: _Trial, when: str, *, without_made: bool = False) -> None:
    """Note what differs in schema and rows, except for what the scripts say that they lose.

    `without_made`: nor for what the migration made and its rollback dropped.
    """
    found = [str(difference) for difference in schema.differences(schema.read(expected), schema.read(actual))]
    # what one comparison finds, the next finds as well
    if lines := [line for line in found if line not in trial.told]:
        trial.problems.append("\n  ".join([f"the schema {when} is another", *lines]))
    allows = trial.migration.allows
    lost = trial.declared | trial.made if without_made else trial.declared

    def excused(table: str, column: str | None) -> bool:
        name = fold(table)
        return allows.loses(table) or (name, fold(column or "")) in lost or name in trial.told

    rows = row_differences(expected, actual, excused)
    for difference in rows:
        trial.problems.append("\n  ".join([f"rows {when} are others", *str(difference).split("\n")]))
    for name in ("user_version", "application_id"):
        if (value := actual.pragma(name)) != (wanted := expected.pragma(name)):
            trial.warnings.append(f"PRAGMA {name} is {value} {when}, expected {wanted}")
    trial.told.update(lines, (fold(difference.table) for difference in rows))
