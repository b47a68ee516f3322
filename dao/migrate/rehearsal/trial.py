"""One migration of a rehearsal: run on the copy, as often as it takes to tell which rows it loses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence

import attrs

from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.copies.files import size_of
from dao.migrate.copies.working_copy import WorkingCopy
from dao.migrate.rehearsal.findings import Failure, Gone, Rehearsed
from dao.migrate.rehearsal.keys import Keys, kept_keys
from dao.migrate.rehearsal.observation import Effect, Inventory, inventory
from dao.migrate.run.guard import Guard
from dao.migrate.run.runner import parts, run
from dao.migrate.schema.integrity import Unusable, Violation
from dao.migrate.schema.script import run_script
from dao.migrate.schema.session import of_run
from dao.migrate.schema.usable import Before
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Committed, Event, Finished, Notice, Report, Result, Step

__all__ = ["Tried", "longest_hold", "rehearse_step"]


@attrs.frozen
class Tried:
    """What came of a migration on the copy, what there is after it, and what a guard knows then."""

    found: Rehearsed
    after: Inventory
    guard: Guard


def rehearse_step(
    copy: WorkingCopy,
    files: Sequence[Migration],
    step: Step,
    before: Inventory,
    guard: Guard,
    tell: Report,
    *,
    since: Before | None,
    settled: bool,
    allow_broken: Collection[str],
) -> Tried:
    """Run a migration on the copy, and return what it did.

    `guard` has watched those before it that share its transaction; what is lost is for it to say, when all are done. Where it
    ends a transaction (`settled`), what worked before that (`since`, None if it also begins it) has to work, but for what
    `allow_broken` names. If it fails, nothing of it is left in the copy, unless it runs outside of a transaction.
    """
    trial = _Trial(copy, files, step, before, guard, tell, since, settled, allow_broken)
    bytes_before = size_of(copy)
    error: MigrationFailed | CheckFailed | None = None
    try:
        trial.run()
    except (MigrationFailed, CheckFailed) as raised:
        error = raised
        error.committed = None  # it was a copy
    found = Rehearsed(
        id=step.id,
        path=None if step.script.path is None else str(step.script.path),
        failure=None if error is None else _failure(error),
        violations=_violations(error),
        notices=tuple(trial.notices),
        bytes_before=bytes_before,
        bytes_after=size_of(copy),
        free_after=int(copy.pragma("freelist_count")) * int(copy.pragma("page_size")),
    )
    effect = trial.effect
    if trial.result is None or effect is None:
        return Tried(found, before, guard)
    taken = {gone.table: gone.keys for gone in trial.gone}
    found = attrs.evolve(
        found,
        seconds=trial.result.seconds,
        lock_seconds=trial.lock_seconds,
        statements=trial.result.statements,
        rebuilt=tuple(effect.rebuilt.values()),
        lost=tuple(effect.lost_objects()),
        misplaced=tuple(effect.misplaced()),
        rows=tuple(effect.row_changes()),
        gone=tuple(trial.gone),
        cascades=tuple(
            attrs.evolve(one, keys=tuple(key for key in one.keys if key not in taken.get(one.table, ())))
            for one in trial.cascades
        ),
        enforced_failure=trial.enforced_failure,
    )
    return Tried(found, effect.after, trial.guard if error is None else guard)


def _failure(error: MigrationFailed | CheckFailed) -> Failure:
    if isinstance(error, CheckFailed):
        return Failure(str(error))
    return Failure(str(error), None if error.path is None else str(error.path), error.line)


def _violations(error: MigrationFailed | CheckFailed | None) -> tuple[str, ...]:
    found = error.violations if isinstance(error, CheckFailed) else ()
    return tuple(str(broken) for broken in found if isinstance(broken, Violation | Unusable))


def longest_hold(steps: Sequence[Step], seconds: Sequence[float]) -> float:
    """Return how long a run would hold the write lock at most, by how long each of its steps holds it, in seconds."""
    left = iter(seconds)
    return max((sum(itertools.islice(left, len(part.steps))) for part in parts(steps)), default=0.0)


class _Again(Exception):
    """Undoes a run that has shown what to look at: it drops tables, or these miss rows."""

    def __init__(self, effect: Effect, shrunk: Sequence[str]) -> None:
        super().__init__()
        self.effect = effect
        self.shrunk = shrunk


@attrs.define
class _Trial:
    """One migration on the copy; the parameters are those of `rehearse_step`."""

    copy: WorkingCopy
    files: Sequence[Migration]
    step: Step
    before: Inventory
    known: Guard
    tell: Report
    since: Before | None
    settled: bool
    allow_broken: Collection[str]
    # of the latest run, which may have failed after that
    guard: Guard = attrs.field(init=False)
    result: Result | None = None
    effect: Effect | None = None
    lock_seconds: float = 0.0
    gone: Sequence[Gone] = ()
    # of all runs
    notices: list[str] = attrs.Factory(list)
    cascades: list[Gone] = attrs.Factory(list)
    enforced_failure: str | None = None

    def run(self) -> None:
        """Run it once; if it loses rows, or drops a table where there are foreign keys, find out more and run it again.

        Raises:
            MigrationFailed, CheckFailed: It fails, as it would in a run.
        """
        if not self.step.script.transactional:
            # it cannot be undone, so this is the only run, and which rows it will be about is not known
            with kept_keys(self.copy, self.before.tables) as keys:
                self._run_once(keys)
            return
        try:
            self._run_once(None)
        except _Again as first:
            if first.effect.dropped and self.before.children and not self.step.script.foreign_keys:
                with kept_keys(self.copy, self.before.children) as keys:
                    self._try_enforced(keys, first.effect)
            with kept_keys(self.copy, first.shrunk) as keys:
                self._run_once(keys)

    def _run_once(self, keys: Keys | None) -> None:
        """Run it; without keys, only to see whether they are needed."""
        self.result, self.guard = None, self.known.copy()
        self.copy.seed()
        looked = 0.0

        def report(event: Event) -> None:
            nonlocal looked
            match event:
                case Notice(text=text) if text in self.notices:
                    return
                case Notice(text=text):
                    self.notices.append(text)
                case Committed(seconds=seconds):  # to the copy
                    self.lock_seconds = seconds - looked
                    return
            self.tell(event)
            if isinstance(event, Finished):
                self.result = event.result
                begun = time.perf_counter()
                self._look(keys)
                # it is not committed yet, unless it runs outside of a transaction
                looked = time.perf_counter() - begun if self.step.script.transactional else 0.0

        run(
            self.copy,
            self.files,
            lambda _ledger: [self.step],
            allow_data_loss=True,
            allow_broken=self.allow_broken,
            guard=self.guard,
            report=report,
            before=self.since,
            settled=self.settled,
        )

    def _look(self, keys: Keys | None) -> None:
        """Look at what the script has done."""
        self.effect = self._effect(self.guard)
        if keys is None:
            mine = [loss for source, loss in self.guard.losses() if source == self.step.key]
            shrunk = self.effect.shrunk(mine)
            if shrunk or (self.effect.dropped and self.before.children):
                raise _Again(self.effect, shrunk)
        else:
            self.gone = keys.gone(self.effect)

    def _effect(self, guard: Guard) -> Effect:
        # VACUUM, which runs outside of a transaction, numbers anew
        by_number = self.step.script.transactional
        return Effect(self.before, inventory(self.copy), frozenset(guard.dropped), by_number=by_number)

    def _try_enforced(self, keys: Keys, free: Effect) -> None:
        """Find which rows the script takes only where foreign keys are enforced, as they are in other tools."""
        try:
            enforced, gone = self._enforced(keys)
        except MigrationFailed as error:
            self.enforced_failure = str(error)
            return
        named = {one.table: one.keys for one in gone}
        for name in enforced.now:
            if name in free.now and (rows := free.rows_now(name) - enforced.rows_now(name)) > 0:
                table = self.before.tables[name].name
                self.cascades.append(Gone(table, rows, named.get(table, ())))

    def _enforced(self, keys: Keys) -> tuple[Effect, list[Gone]]:
        """Run the script with foreign keys enforced, look, and undo it."""
        self.copy.seed()
        with of_run(self.copy):
            self.copy.pragma("foreign_keys", True)
            self.copy.execute("BEGIN IMMEDIATE")
            try:
                guard = Guard(self.copy)
                script = attrs.evolve(self.step.script, transactional=True)
                run_script(self.copy, self.step.id, script, watcher=guard)
                effect = self._effect(guard)
                return effect, keys.gone(effect)
            finally:
                if self.copy.in_transaction:
                    self.copy.execute("ROLLBACK")
