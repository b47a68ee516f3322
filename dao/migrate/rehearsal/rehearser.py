"""The rehearsal as a whole: the pending migrations, the copy, one trial after the other, the round trip."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Sequence

import attrs

from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.copies.copying import size_of
from dao.migrate.copies.new_files import remove_leftovers
from dao.migrate.copies.working_copy import WorkingCopies, WorkingCopy, default_limit
from dao.migrate.database import (
    Target,
    at_one_moment,
    exists,
    is_on_server,
    migrations_for,
    name_of,
    opened,
    path_of,
    translated,
)
from dao.migrate.events import Committed, Event, Report
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import expected, unnoted
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.plan import to_apply
from dao.migrate.listening import listened
from dao.migrate.rehearsal.findings import Rehearsal, Rehearsed, RoundTrip
from dao.migrate.rehearsal.observation import inventory
from dao.migrate.rehearsal.trial import Trial, longest_hold
from dao.migrate.rehearsal.trip import round_trip as there_and_back
from dao.migrate.run.guard import Guard
from dao.migrate.run.parts import Part, parts
from dao.migrate.run.runner import run
from dao.migrate.schema.check import Before, integrity_problems
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Result, Step
from dao.migrate.verification.round_trip import State
from dao.migrate.verification.touched import Trace

__all__ = ["rehearse"]


def rehearse(
    target: Target,
    migrations: Source = None,
    *,
    set: str | None = None,
    to: str | None = None,
    steps: int | None = None,
    allow_out_of_order: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    round_trip: bool = False,
    memory_limit: int | None = None,
    lock_timeout: float | None = None,
    prepare: Prepare | None = None,
    report: Report | None = None,
) -> Rehearsal:
    """Run the pending migrations on a copy of the database, those that `apply` would, and return what each did there.

    The database is only read, in one read transaction, and others may write meanwhile; if it does not exist, an empty
    one takes its place. The copy is in memory. One of more than `memory_limit` bytes (1 GiB, or a quarter of the
    machine's memory if that is less) is in a temporary file beside the database, which goes at the end.

    Every migration is a run of its own with all checks, so that those before a failure are reported too. A loss of data
    is reported and stops nothing; as in `apply`, it is judged for those migrations together that share a transaction,
    with the same `allow_loss` and `allow_broken`. A script that loses rows or drops tables runs more than once, to find
    which rows. With `round_trip`, the migrations are then undone and applied again. Meanwhile time stands still, and
    chance repeats itself. `report` is told of each event at once.

    **On PostgreSQL** they run in the database itself, all in one transaction that is rolled back. Nobody else sees it,
    but it takes the locks that a run takes, and keeps them until it ends: the findings tell which, and for how long.
    What waits for a lock for longer than `lock_timeout` seconds (1 by default), or for another migrator, gives up. A
    script that runs outside of a transaction, or reaches outside of it, is not tried. Rows that are missing are
    counted, and not named.

    `prepare` is as in `apply`.

    Raises:
        MigrationFileError: A file is not what it should be.
        LedgerMismatch: The files and the database do not agree, so `apply` would not begin either.
        MigrationError: A connection of the caller's is in the middle of a transaction.
        DatabaseCorrupt: The database is damaged.
        DatabaseBusy: Another connection kept the database to itself.
        DiskFull: There is no room for the copy.
    """
    files = migrations_for(target, migrations)
    report = listened(report, "dao.migrate.rehearsal", name_of(target))
    allowed = Allowance.of(allow_loss)

    def decide(state: Ledger) -> list[Step]:
        return to_apply(files, state, set=set, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    def tell(event: Event) -> None:
        if report is not None and not isinstance(event, Committed):  # nothing is
            report(event)

    if is_on_server(target):
        from dao.migrate.rehearsal import on_server  # noqa: PLC0415 - psycopg takes 100 ms, and SQLite needs none of it

        if memory_limit is not None:
            raise MigrationError(
                f"{name_of(target)} is on a server, where a rehearsal makes no copy: leave --memory-limit out"
            )
        return on_server.rehearse(
            target, files, decide, allowed, allow_broken, tell, lock_timeout=lock_timeout, with_round_trip=round_trip
        )
    if lock_timeout is not None:
        raise MigrationError(
            f"{name_of(target)} is a file, and a rehearsal waits for no lock on it: leave --lock-timeout out"
        )
    limit = default_limit() if memory_limit is None else memory_limit
    path = path_of(target)
    if path:
        remove_leftovers(path)
    found = Rehearsal(database=name_of(target), exists=exists(target))
    with preparing(prepare), contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        with _read(target, tell) as source:
            state = Ledger() if source is None else ledger.read(source)
            todo = decide(state)
            if not todo:
                return found
            if source is not None:
                unnoted.refuse(source, [step.migration for step in todo], state)
            copies = WorkingCopies(
                path,
                limit if path else math.inf,
                number=2,  # the migrations may write as much again
                what=f"a rehearsal with a copy of {path}",
                otherwise=", or let the copy be in memory (--memory-limit)",
            )
            copy = stack.enter_context(copies).copy(source, tell)
        found = attrs.evolve(
            found, in_memory=not copy.filename, bytes=size_of(copy), copy_seconds=time.perf_counter() - begun
        )
        with translated(copy, path or name_of(target)):
            on_copy = _OnCopy(copy, files, tell, allowed, allow_broken)
            return on_copy.rehearsed(todo, found, with_round_trip=round_trip)


@contextlib.contextmanager
def _read(target: Target, tell: Report) -> Iterator[Connection | None]:
    """Lend a connection in a read transaction to the database, None if there is none."""
    if not exists(target):
        yield None
        return
    # a caller's connection is refused in the middle of a transaction
    with opened(target, read_only=not isinstance(target, Connection), report=tell) as source, at_one_moment(source):
        yield source


@attrs.frozen
class _OnCopy:
    """The pending migrations on a copy of the database."""

    copy: WorkingCopy
    files: Sequence[Migration]
    tell: Report
    allowed: Allowance
    allow_broken: Collection[str]

    def rehearsed(self, todo: Sequence[Step], found: Rehearsal, *, with_round_trip: bool) -> Rehearsal:
        """Try them part by part, up to the first that fails; then undo those that did not, and apply them again."""
        copy = self.copy
        rehearsed: list[Rehearsed] = []
        states = [State.of(copy, stays=False)] if with_round_trip else []
        before = inventory(copy)
        for part in parts(todo):
            guard = Trace(copy)
            # the first step finds and times this itself
            since = Before.of(copy, integrity_problems(copy)) if len(part.steps) > 1 else None
            tried: list[Rehearsed] = []
            for step in part.steps:
                trial = Trial(
                    copy,
                    self.files,
                    step,
                    before,
                    guard,
                    self.tell,
                    since=since if tried else None,
                    settled=step is part.steps[-1],
                    allow_broken=self.allow_broken,
                )
                tried.append(trial.rehearse())
                if tried[-1].failure is not None:
                    break
                before, guard = trial.before, trial.guard
                if with_round_trip:
                    states.append(State.of(copy, stays=False, since=states[-1], trace=guard))
            rehearsed += self._with_losses(tried, part, guard)
            if rehearsed[-1].failure is not None:
                break
        done = [one for one in rehearsed if one.failure is None]
        applied = todo[: len(done)]
        return attrs.evolve(
            found,
            lock_seconds=longest_hold(applied, [one.lock_seconds for one in done]),
            migrations=tuple(rehearsed),
            not_reached=tuple(step.id for step in todo[len(rehearsed) :]),
            round_trip=self._round_trip(applied, done, states) if with_round_trip else None,
        )

    def _with_losses(self, tried: Sequence[Rehearsed], part: Part, guard: Guard) -> Iterator[Rehearsed]:
        """Yield the findings of steps that share a transaction, with their losses, now that all of them are done."""
        lost = guard.losses()
        for one, step in zip(tried, part.steps, strict=False):
            losses = tuple(loss for source, loss in lost if source == step.key)
            undeclared = tuple(loss for loss in losses if not loss.is_declared(step.script.allows | self.allowed))
            yield attrs.evolve(one, losses=losses, undeclared=undeclared)

    def _round_trip(
        self, applied: Sequence[Step], rehearsed: Sequence[Rehearsed], states: Sequence[State]
    ) -> RoundTrip:
        """Undo the migrations that were applied to the copy and apply them again, as `trip.round_trip`."""
        latest = states[-1]

        def goes(step: Step) -> tuple[Result, State]:
            nonlocal latest
            self.copy.seed()
            trace = Trace(self.copy)
            (result,) = run(
                self.copy,
                self.files,
                lambda _ledger: [step],
                allow_data_loss=step.direction == "apply",
                allow_broken=self.allow_broken,
                guard=trace,
                report=self.tell,
            )
            latest = State.of(self.copy, stays=False, since=latest, trace=trace)
            return result, latest

        with expected.remembering():
            return there_and_back([step.migration for step in applied], rehearsed, states, goes)
