"""One migration of a rehearsal: run on the copy, as often as it takes to tell which rows it loses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence

import attrs

from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.copies.copying import size_of
from dao.migrate.copies.working_copy import WorkingCopy
from dao.migrate.events import Committed, Event, Finished, Notice, Report
from dao.migrate.ledger import unnoted
from dao.migrate.rehearsal.findings import Failure, Gone, Rehearsed
from dao.migrate.rehearsal.keys import Keys, kept_keys
from dao.migrate.rehearsal.observation import Effect, Inventory, inventory
from dao.migrate.run.guard import Guard
from dao.migrate.run.parts import parts
from dao.migrate.run.runner import run
from dao.migrate.schema.check import Before, Violation
from dao.migrate.schema.script import run_script
from dao.migrate.schema.session import of_run
from dao.migrate.schema.usable import Unusable
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Result, Step
from dao.migrate.verification.touched import Trace

__all__ = ["Trial", "longest_hold"]


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
class Trial:
    """One migration on the copy.

    `guard` has watched the steps before it that share its transaction. `since` says what worked when that began, and is
    None for its first step. After its last one (`settled`), all of that must still work, but for what `allow_broken`
    names.
    """

    copy: WorkingCopy
    files: Sequence[Migration]
    step: Step
    before: Inventory
    guard: Trace
    tell: Report
    since: Before | None
    settled: bool
    allow_broken: Collection[str]
    # of the latest run, which may have failed after that
    _watching: Trace = attrs.field(init=False)
    _result: Result | None = attrs.field(init=False, default=None)
    _effect: Effect | None = attrs.field(init=False, default=None)
    _lock_seconds: float = attrs.field(init=False, default=0.0)
    _gone: Sequence[Gone] = attrs.field(init=False, default=())
    # of all runs
    _notices: list[str] = attrs.field(init=False, factory=list)
    _cascades: list[Gone] = attrs.field(init=False, factory=list)
    _enforced_failure: str | None = attrs.field(init=False, default=None)

    def rehearse(self) -> Rehearsed:
        """Run the migration and return its effect, without the losses: `guard` knows them when all steps are done.

        If it fails, nothing of it is left in the copy, unless it runs outside of a transaction. If it does not,
        `before` is then the inventory after it, and `guard` has watched it.
        """
        bytes_before = size_of(self.copy)
        error: MigrationFailed | CheckFailed | None = None
        try:
            self._run()
        except (MigrationFailed, CheckFailed) as raised:
            error = raised
            error.committed = None  # it was a copy
            if isinstance(error, MigrationFailed):
                unnoted.explain(error, self.copy, self.files)
        violations = error.violations if isinstance(error, CheckFailed) else ()
        found = attrs.evolve(
            Rehearsed.of(self.step),
            failure=None if error is None else Failure.of(error),
            violations=tuple(str(one) for one in violations if isinstance(one, Violation | Unusable)),
            notices=tuple(self._notices),
            bytes_before=bytes_before,
            bytes_after=size_of(self.copy),
            free_after=int(self.copy.pragma("freelist_count")) * int(self.copy.pragma("page_size")),
        )
        if self._result is None or self._effect is None:
            return found
        found = attrs.evolve(
            self._effect.noted_in(found, self._result),
            lock_seconds=self._lock_seconds,
            misplaced=tuple(self._effect.misplaced()),
            gone=tuple(self._gone),
            cascades=tuple(self._cascades),
            enforced_failure=self._enforced_failure,
        )
        if error is None:
            self.before, self.guard = self._effect.after, self._watching
        return found

    def _run(self) -> None:
        """Run it once; if it loses rows, or drops a table where there are foreign keys, run it again to find which."""
        if not self.step.script.transactional:
            # it cannot be undone, so this is the only run, and it may take rows of any table
            with kept_keys(self.copy, self.before.tables) as keys:
                self._run_once(keys)
            return
        try:
            self._run_once(None)
        except _Again as first:
            children = self.before.children
            if first.effect.dropped and children and not self.step.script.foreign_keys:
                with kept_keys(self.copy, children) as keys:
                    self._try_enforced(keys, first.effect)
            with kept_keys(self.copy, first.shrunk) as keys:
                self._run_once(keys)

    def _run_once(self, keys: Keys | None) -> None:
        """Run it; without keys, only to see whether they are needed."""
        self._result, self._watching = None, self.guard.copy()
        self.copy.seed()
        looked = 0.0

        def report(event: Event) -> None:
            nonlocal looked
            match event:
                case Notice(text=text) if text in self._notices:
                    return
                case Notice(text=text):
                    self._notices.append(text)
                case Committed(seconds=seconds):
                    self._lock_seconds = seconds - looked
            self.tell(event)
            if isinstance(event, Finished):
                self._result = event.result
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
            guard=self._watching,
            report=report,
            before=self.since,
            settled=self.settled,
        )

    def _look(self, keys: Keys | None) -> None:
        """Look at what the script has done."""
        self._effect = self._observe(self._watching)
        if keys is None:
            mine = [loss for source, loss in self._watching.losses() if source == self.step.key]
            shrunk = self._effect.shrunk(mine)
            if shrunk or (self._effect.dropped and self.before.children):
                raise _Again(self._effect, shrunk)
            return
        self._gone = keys.gone(self._effect)
        taken = {gone.table: gone.keys for gone in self._gone}
        self._cascades = [
            attrs.evolve(one, keys=tuple(key for key in one.keys if key not in taken.get(one.table, ())))
            for one in self._cascades
        ]

    def _observe(self, guard: Guard) -> Effect:
        # VACUUM, which runs outside of a transaction, numbers anew
        by_number = self.step.script.transactional
        return Effect(self.before, inventory(self.copy), frozenset(guard.dropped), by_number=by_number)

    def _try_enforced(self, keys: Keys, free: Effect) -> None:
        """Find which rows the script takes only where foreign keys are enforced, as they are in other tools."""
        try:
            enforced, gone = self._enforced(keys)
        except MigrationFailed as error:
            self._enforced_failure = str(error)
            return
        named = {one.table: one.keys for one in gone}
        for name in enforced.now:
            if name in free.now and (rows := free.rows_now(name) - enforced.rows_now(name)) > 0:
                table = self.before.tables[name].name
                self._cascades.append(Gone(table, rows, named.get(table, ())))

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
                effect = self._observe(guard)
                return effect, keys.gone(effect)
            finally:
                if self.copy.in_transaction:
                    self.copy.execute("ROLLBACK")
