"""One migration of a rehearsal: run on the copy, as often as it takes to tell which rows it loses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs

from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.copies.files import size_of
from dao.migrate.copies.working_copy import WorkingCopy
from dao.migrate.ledger.entries import Ledger
from dao.migrate.rehearsal.findings import Failure, Gone, Rehearsed
from dao.migrate.rehearsal.observation import (
    Keys,
    State,
    changes,
    children,
    look,
    lost_objects,
    misplaced,
    rebuilt,
    shrunk,
    successors,
)
from dao.migrate.run.guard import Guard
from dao.migrate.run.runner import parts, run
from dao.migrate.run.script import run_script
from dao.migrate.schema.integrity import Unusable, Violation
from dao.migrate.schema.session import of_run
from dao.migrate.schema.usable import Before
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Committed, Event, Finished, Notice, Result, Started, Step

__all__ = ["Times", "longest_hold", "rehearse_step"]


def rehearse_step(
    copy: WorkingCopy,
    files: Sequence[Migration],
    step: Step,
    before: State,
    guard: Guard,
    tell: Callable[[Event], object],
    *,
    since: Before | None,
    settled: bool,
    allow_broken: Collection[str],
) -> tuple[Rehearsed, State, Times, Guard]:
    """Run a migration on the copy; return what it did, what there is after it, how long that took, and what a guard then knows.

    `guard` has watched those before it that share its transaction; what is lost is for it to say, when all are done. Where it
    ends a transaction (`settled`), what worked before that (`since`, None if it also begins it) has to work, but for what
    `allow_broken` names. If it fails, nothing of it is left in the copy, unless it runs outside of a transaction.
    """
    checks = {"before": since, "settled": settled, "allow_broken": allow_broken}
    return _Rehearsing(copy, files, step, before, guard, tell, checks).result()


class _Again(Exception):
    """Undoes a run that has shown what to look at."""


class Times:
    """When what happened in the run of one script."""

    def __init__(self) -> None:
        self.decided = self.started = self.finished = self.looked = self.committing = self.ended = 0.0

    @property
    def before(self) -> float:
        """From the lock to the script: what was broken before is noted."""
        return self.started - self.decided

    @property
    def script(self) -> float:
        """The script, and its entry in the ledger."""
        return self.finished - self.started

    @property
    def checks(self) -> float:
        """The checks after the script."""
        return max(0.0, self.committing - self.looked)

    @property
    def commit(self) -> float:
        """The commit."""
        return self.ended - max(self.committing, self.looked)


def longest_hold(todo: Sequence[Step], times: Sequence[Times]) -> float:
    """Return how long a run of these would hold the write lock: the longest of its transactions, in seconds."""
    longest = 0.0
    for part in parts(todo):
        batch, times = times[: len(part.steps)], times[len(part.steps) :]
        # a script that is in no transaction holds the lock for no longer than it runs
        held = sum(one.script for one in batch)
        if part.transactional:
            held += batch[0].before + batch[-1].checks + sum(one.commit for one in batch)
        longest = max(longest, held)
    return longest


class _Rehearsing:
    """One migration on the copy."""

    def __init__(
        self,
        copy: WorkingCopy,
        files: Sequence[Migration],
        step: Step,
        before: State,
        guard: Guard,
        tell: Callable[[Event], object],
        checks: dict[str, Any],
    ) -> None:
        self.checks = checks
        self.copy = copy
        self.files = files
        self.step = step
        self.before = before
        self.tell = tell
        # of before the script, and of the latest run
        self.known = self.guard = guard
        self.keys = Keys(copy)
        self.children = children(copy)
        self.bytes_before = size_of(copy)
        # a run that cannot be undone is the only one
        self.first = step.script.transactional
        self.times = Times()
        # what the latest run did, which may have failed after that
        self.done: Result | None = None
        self.after: State | None = None
        self.gone: tuple[Gone, ...] = ()
        self.cascades: tuple[Gone, ...] = ()
        self.enforced_failure: str | None = None
        self.notices: list[str] = []
        # of the first run, if there is a second
        self.shrunk: list[str] = []
        self.drops = False

    def result(self) -> tuple[Rehearsed, State, Times, Guard]:
        failure: Failure | None = None
        violations: tuple[str, ...] = ()
        try:
            self._run()
        except (MigrationFailed, CheckFailed) as error:
            failure = _failure(error)
            if isinstance(error, CheckFailed):
                kinds = Violation | Unusable
                violations = tuple(str(broken) for broken in error.violations if isinstance(broken, kinds))
        page: int = self.copy.pragma("page_size")
        found = Rehearsed(
            id=self.step.id,
            path=None if self.step.script.path is None else str(self.step.script.path),
            failure=failure,
            violations=violations,
            notices=tuple(self.notices),
            bytes_before=self.bytes_before,
            bytes_after=size_of(self.copy),
            free_after=int(self.copy.pragma("freelist_count")) * page,
        )
        if self.done is None or self.after is None:
            return found, self.before, self.times, self.known
        again = self._rebuilt(self.after)
        found = attrs.evolve(
            found,
            seconds=self.done.seconds,
            lock_seconds=0.0 if failure else longest_hold([self.step], [self.times]),
            statements=self.done.statements,
            rebuilt=tuple(again),
            lost=tuple(lost_objects(self.before, self.after, again)),
            misplaced=tuple(misplaced(self.before, self.after, again)),
            rows=tuple(changes(self.before, self.after, successors(self.before, self.after, self.guard.dropped))),
            gone=self.gone,
            cascades=self.cascades,
            enforced_failure=self.enforced_failure,
        )
        return found, self.after, self.times, self.known if failure else self.guard

    # ------------------------------------------------------------ runs

    def _run(self) -> None:
        """Run it once; if it loses rows, or drops a table where there are foreign keys, find out more and run it again."""
        if not self.first:
            # which it will be about cannot be found out
            with self.keys.of(self.before.tables):
                self._run_once()
            return
        with contextlib.suppress(_Again):
            self._run_once()
            return
        self.first = False
        if self.drops and self.children and not self.step.script.foreign_keys:
            with self.keys.of(self.children):
                self._try_enforced()
        with self.keys.of(self.shrunk):
            self._run_once()

    def _run_once(self) -> None:
        self.done = None
        self.guard = self.known.copy()
        self.times = times = Times()
        self.copy.seed()

        def decide(_state: Ledger) -> list[Step]:
            times.decided = time.perf_counter()
            return [self.step]

        def committing() -> bool:
            times.committing = time.perf_counter()
            return False

        self.copy.set_commit_hook(committing)
        try:
            run(
                self.copy,
                self.files,
                decide,
                allow_data_loss=True,
                guard=self.guard,
                report=self._report,
                **self.checks,
            )
            times.ended = time.perf_counter()
        finally:
            self.copy.set_commit_hook(None)

    def _report(self, event: Event) -> None:
        if isinstance(event, Committed):  # to the copy
            return
        if isinstance(event, Notice):
            if event.text in self.notices:
                return
            self.notices.append(event.text)
        self.tell(event)
        if isinstance(event, Started):
            self.times.started = time.perf_counter()
        elif isinstance(event, Finished):
            self.times.finished = time.perf_counter()
            self.done = event.result
            self._look()
            self.times.looked = time.perf_counter()

    def _look(self) -> None:
        """Look at what the script has done; it is not committed yet."""
        self.after = look(self.copy)
        now = successors(self.before, self.after, self.guard.dropped)
        if self.first:
            mine = [loss for source, loss in self.guard.losses() if source == self.step.key]
            self.shrunk = shrunk(self.before, self.after, now, mine)
            self.drops = bool(self.guard.dropped)
            if self.shrunk or (self.drops and self.children):
                raise _Again
        self.gone = tuple(self.keys.gone(self.before, self.after, now, self._rebuilt(self.after)))
        taken = {gone.table: gone.keys for gone in self.gone}
        self.cascades = tuple(
            attrs.evolve(one, keys=tuple(key for key in one.keys if key not in taken.get(one.table, ())))
            for one in self.cascades
        )

    def _rebuilt(self, after: State, guard: Guard | None = None) -> list[str]:
        # VACUUM, which runs outside of a transaction, numbers anew
        return rebuilt(self.before, after, (guard or self.guard).dropped, by_number=self.step.script.transactional)

    # ------------------------------------------------------------ foreign keys enforced

    def _try_enforced(self) -> None:
        """Find which rows the script takes only where foreign keys are enforced, as they are in other tools."""
        free = self.after
        if free is None:
            return
        try:
            enforced, now, gone = self._enforced()
            there = successors(self.before, free, self.guard.dropped)
            fewer = {
                name: rows
                for name, successor in now.items()
                if name in there
                and (rows := (free.tables[there[name]].rows or 0) - (enforced.tables[successor].rows or 0)) > 0
            }
            keys = {one.table.lower(): one.keys for one in gone}
            self.cascades = tuple(
                Gone(self.before.tables[name].name, rows, keys.get(name, ())) for name, rows in fewer.items()
            )
        except MigrationFailed as error:
            self.enforced_failure = str(error)

    def _enforced(self) -> tuple[State, dict[str, str], list[Gone]]:
        """Run the script with foreign keys enforced, look, and undo it."""
        self.copy.seed()
        with of_run(self.copy):
            self.copy.pragma("foreign_keys", True)
            self.copy.execute("BEGIN IMMEDIATE")
            try:
                step = self.step
                guard = Guard(self.copy)
                run_script(
                    self.copy,
                    step.script.text,
                    migration=step.id,
                    path=step.script.path,
                    transactional=True,
                    notice=lambda _text: None,
                    guard=guard,
                )
                after = look(self.copy)
                now = successors(self.before, after, guard.dropped)
                return after, now, self.keys.gone(self.before, after, now, self._rebuilt(after, guard))
            finally:
                if self.copy.in_transaction:
                    self.copy.execute("ROLLBACK")


def _failure(error: MigrationFailed | CheckFailed) -> Failure:
    error.committed = None  # it was a copy
    if isinstance(error, CheckFailed):
        return Failure(str(error))
    return Failure(str(error), None if error.path is None else str(error.path), error.line)
