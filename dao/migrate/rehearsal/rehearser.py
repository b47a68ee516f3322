"""The rehearsal as a whole: what is pending, the copy, one trial after the other, the round trip."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import attrs

from dao.engine import Connection
from dao.migrate.copies.files import database_of, remove_leftovers, size_of
from dao.migrate.copies.working_copy import WorkingCopies, WorkingCopy, default_limit
from dao.migrate.database import Target, exists, name_of, opened, translated
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.plan import to_apply
from dao.migrate.rehearsal.findings import Rehearsal, Rehearsed
from dao.migrate.rehearsal.observation import look
from dao.migrate.rehearsal.round_trip import Content, content, there_and_back
from dao.migrate.rehearsal.trial import Times, longest_hold, rehearse_step
from dao.migrate.run.guard import Guard
from dao.migrate.run.runner import parts
from dao.migrate.schema.integrity import integrity_problems
from dao.migrate.schema.usable import Before
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Copying, Event, Step

__all__ = ["rehearse"]

Report = Callable[[Event | Copying], object]


def rehearse(
    target: Target,
    migrations: Source = None,
    *,
    to: str | None = None,
    steps: int | None = None,
    allow_out_of_order: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    round_trip: bool = False,
    memory_limit: int | None = None,
    report: Report | None = None,
) -> Rehearsal:
    """Run the pending migrations on a copy of the database and return what they did there, one by one.

    The database is only read, in one read transaction, while others go on with it; if it does not exist, an empty one takes
    its place. The copy is in memory or, beyond `memory_limit` bytes (1 GiB or a quarter of the machine's memory, whichever
    is less), in a temporary file beside the database, which goes at the end. Every migration is a run of its own with all
    checks, so that what precedes a failure is reported too. Data that it loses is reported, and does not stop it; that is
    judged, as `apply` does, for those together that share a transaction there, and with the same `allow_loss` and `allow_broken`. Scripts that lose rows or drop tables run more than once, to find which rows. With `round_trip`, what was
    applied is then undone and applied again. Meanwhile time stands still, and chance repeats itself.

    `report` is told what happens while it happens.

    Raises:
        MigrationFileError: A file is not what it should be.
        LedgerMismatch: The files and the database do not agree, so `apply` would not begin either.
        MigrationError: A connection of the caller's is in the middle of a transaction.
        DatabaseCorrupt: The database is damaged.
        DatabaseBusy: Another connection kept the database to itself.
        DiskFull: There is no room for the copy.
    """
    files = loaded(migrations)
    limit = default_limit() if memory_limit is None else memory_limit
    tell: Report = report or (lambda _event: None)
    path = _file_of(target)
    if path:
        remove_leftovers(path)
    found = Rehearsal(database=name_of(target), exists=exists(target))

    def decide(state: Ledger) -> list[Step]:
        return to_apply(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    with contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        with _read(target, tell) as source:
            todo = decide(Ledger() if source is None else ledger.read(source))
            if not todo:
                return found
            # as much again for what the migrations write
            what, otherwise = f"a rehearsal with a copy of {path}", ", or let the copy be in memory (--memory-limit)"
            copies = stack.enter_context(
                WorkingCopies(path, limit if path else math.inf, number=2, what=what, otherwise=otherwise)
            )
            copy = copies.copy(source, tell)
        found = attrs.evolve(
            found, in_memory=not copy.filename, bytes=size_of(copy), copy_seconds=time.perf_counter() - begun
        )
        with translated(copy, path or name_of(target)):
            return _on_copy(
                copy, files, todo, found, tell, Allowance.of(allow_loss), allow_broken, round_trip=round_trip
            )


def _note_losses(rehearsed: list[Rehearsed], todo: Sequence[Step], guard: Guard, allowed: Allowance) -> None:
    """Note what scripts have lost that share a transaction, now that all of them are done."""
    lost = guard.losses()
    for number, (step, one) in enumerate(zip(todo, rehearsed, strict=False)):
        if losses := tuple(loss for source, loss in lost if source == step.key):
            undeclared = tuple(loss for loss in losses if not loss.is_declared(step.script.allows | allowed))
            rehearsed[number] = attrs.evolve(one, losses=losses, undeclared=undeclared)


def _file_of(target: Target) -> str:
    """Return the path of the database's file, "" for one in memory."""
    if isinstance(target, Connection) and (not target.filename or target.open_vfs == "memdb"):
        return ""
    return database_of(target)


@contextlib.contextmanager
def _read(target: Target, tell: Report) -> Iterator[Connection | None]:
    """Lend a connection in a read transaction to the database, None if there is none."""
    if not exists(target):
        yield None
        return
    # a caller's connection is refused in the middle of a transaction
    with opened(target, read_only=not isinstance(target, Connection), report=tell) as source:
        source.execute("BEGIN DEFERRED")
        try:
            yield source
        finally:
            if source.in_transaction:
                source.execute("ROLLBACK")


def _on_copy(
    copy: WorkingCopy,
    files: Sequence[Migration],
    todo: Sequence[Step],
    found: Rehearsal,
    tell: Report,
    allowed: Allowance,
    allow_broken: Collection[str],
    *,
    round_trip: bool,
) -> Rehearsal:
    rehearsed: list[Rehearsed] = []
    times: list[Times] = []
    contents: list[Content] = [content(copy)] if round_trip else []
    state = look(copy)
    batch: Sequence[Step] = ()
    guard = Guard(copy)
    for place, step in enumerate(todo):
        if step not in batch:
            batch, guard = parts(todo[place:])[0].steps, Guard(copy)
            before = Before.of(copy, integrity_problems(copy)) if len(batch) > 1 else None
        since = None if step is batch[0] else before  # it finds and times that itself
        one, state, taken, guard = rehearse_step(
            copy,
            files,
            step,
            state,
            guard,
            tell,
            since=since,
            settled=step is batch[-1],
            allow_broken=allow_broken,
        )
        rehearsed.append(one)
        if step is batch[-1] or one.failure is not None:
            _note_losses(rehearsed, todo, guard, allowed)
        if one.failure is not None:
            break
        times.append(taken)
        if round_trip:
            contents.append(content(copy))
    trip = there_and_back(copy, files, todo[: len(times)], contents, tell) if round_trip else None
    return attrs.evolve(
        found,
        lock_seconds=longest_hold(todo[: len(times)], times),
        migrations=tuple(rehearsed),
        not_reached=tuple(step.id for step in todo[len(rehearsed) :]),
        round_trip=trip,
    )
