"""The one transaction in which scripts, ledger and checks happen.

BEGIN IMMEDIATE is also the lock between runs: it waits for the other, then reads the ledger that the other left. So
neither an error nor kill -9 leaves a half-applied schema or a stale lock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import apsw
import attrs

from dao.engine import Connection, sqlite
from dao.engine.sqlite import files as database_file
from dao.errors import (
    CheckFailed,
    CommitUnknown,
    DatabaseBusy,
    Error,
    LedgerMismatch,
    MigrationError,
    MigrationFailed,
    ReadOnlyDatabase,
)
from dao.migrate.database import exclusive
from dao.migrate.ledger import drift
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.drift import Found
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.writer import Writer, ended
from dao.migrate.run.guard import Guard
from dao.migrate.run.loss import refuse
from dao.migrate.run.script import run_script
from dao.migrate.schema import session
from dao.migrate.schema.catalog import holds_rows
from dao.migrate.schema.integrity import integrity_problems
from dao.migrate.schema.usable import Before, check
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import (
    Drifted,
    Finished,
    Loss,
    Notice,
    Removed,
    Report,
    Result,
    Snapshotted,
    Started,
    Step,
    tell_done,
)

if TYPE_CHECKING:
    from dao.migrate.values import Snapshot

__all__ = ["run"]


def run(
    connection: Connection,
    migrations: Sequence[Migration],
    decide: Callable[[Ledger], Sequence[Step]],
    *,
    prepare: Callable[[], object] | None = None,
    each: bool = False,
    allow_data_loss: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    guard: Guard | None = None,
    snapshots: int = 0,
    report: Report | None = None,
    before: Before | None = None,
    settled: bool = True,
) -> list[Result]:
    """Run the scripts that `decide` names once the lock is held and the ledger read. `migrations` are the files' all.

    All in one transaction, or with `each` every script in its own. A script that cannot run in a transaction, or wants
    foreign keys enforced, runs alone; what stands before it is committed first. `prepare` may change the database before
    the first of them, in the run's transaction, which all must share then. What is lost between the beginning and the end of
    a transaction is refused, unless its script declares it or `allow_loss` names it; a `guard` has seen what came before, in
    other runs. With `snapshots`, one of a file that holds rows is taken before anything changes, and so many are kept.

    At each commit everything has to work that did when its transaction began, or `before` if that is given, but for what
    `allow_broken` names; not if it is not yet `settled`, because other scripts follow that would share the transaction.

    What `report` raises ends the run as any other error does. What it raises when told of something that is committed already
    is logged, and so are old snapshots that cannot be removed: the run has done what it says.

    Raises:
        MigrationFailed: A script failed.
        CheckFailed: A foreign key was broken, data got lost, the schema no longer works, or the file is damaged.
        DatabaseCorrupt: The file was damaged before the run.
        LedgerMismatch: Between two transactions of this run, another undid what it had done.
        MigrationError: After `prepare`, a script cannot share its transaction.
        DatabaseBusy: Another connection kept the lock.
        DiskFull: There is no room for the snapshot.
        CommitUnknown: A commit met an I/O error. To repeat the run is safe: it begins with what is stored.
    """
    if connection.readonly("main"):
        raise ReadOnlyDatabase(database_file.why_read_only(connection))
    tell: Report = report or (lambda _event: None)
    results: list[Result] = []
    todo: list[Step] | None = None
    enforced = False
    allowed = Allowance.of(allow_loss)
    found = told = Found()
    # before the lock is taken: it reads the whole file
    problems = integrity_problems(connection) if before is None else before.problems
    with session.of_run(connection), contextlib.ExitStack() as until_done:
        while todo is None or todo:
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, enforced)
            alone: Step | None = None
            with _saying_what_stays(results), exclusive(connection):
                writer = Writer(connection)
                state = writer.before
                _refuse_interference(results, state)
                todo = list(decide(state)) if todo is None else _still_due(todo, state)
                if prepare is not None:
                    _refuse_parts(todo)
                if todo and todo[0].script.foreign_keys != enforced:
                    # that can be set between two transactions only
                    enforced = not enforced
                    continue
                if snapshots and (todo or prepare) and sqlite.file_of(connection) and holds_rows(connection):
                    tell(Snapshotted(until_done.enter_context(_snapshot(connection, state, tell, keep=snapshots))))
                    snapshots = 0
                batch = _first_batch(todo, each=each)
                clean = prepare is None and drift.is_clean(connection, state)
                there = before or Before.of(connection, problems)
                watching = guard or Guard(connection)
                world = _World(
                    migrations, state, watching, allow_data_loss, allowed, allow_broken, clean, there, settled=settled
                )
                if prepare is not None:
                    prepare()
                    prepare = None
                if batch:
                    done = [_run_inside(connection, step, world, tell) for step in batch]
                    done = _with_losses(batch, done, world)
                    # after all of them: each script changes the schema, so SQLite would compile these anew after each
                    for step, result in zip(batch, done, strict=True):
                        _record(writer, step, result)
                    done[-1] = _check(connection, batch[-1], done[-1], world, tell)
                    found = _note_schema(connection, batch, world)
                elif todo:
                    alone = todo[0]
                    writer.begun(alone.migration, "applying" if alone.direction == "apply" else "rolling back")
            if alone is not None:
                result, found = _run_alone(connection, alone, world, tell)
                done, batch = [result], [alone]
            if todo:
                results += done
                todo = todo[len(batch) :]
                if found != told:
                    told = found
                    tell_done(tell, Drifted(found.differences, found.unknown))
    return results


@attrs.frozen
class _World:
    """What a script of the run may have to be held against: the files, the ledger, the data before it, what is allowed."""

    migrations: Sequence[Migration]
    ledger: Ledger
    guard: Guard
    allow_data_loss: bool
    allowed: Allowance
    allow_broken: Collection[str]
    #: The schema was what its migrations make and nothing else, before the run.
    clean: bool
    #: What the transaction found, and whether it has to work at its end.
    before: Before
    settled: bool


@contextlib.contextmanager
def _snapshot(connection: Connection, state: Ledger, tell: Report, *, keep: int) -> Iterator[Snapshot]:
    """Take a snapshot for a run. Older ones of runs go once that is done; if it changed nothing this one goes instead."""
    # loaded when there is something to lose
    from dao.migrate.copies import snapshot  # noqa: PLC0415
    from dao.migrate.copies.files import open_file  # noqa: PLC0415

    path = sqlite.file_of(connection)
    before = snapshot.snapshots(connection)
    taken: Snapshot | None = None
    try:
        with open_file(connection) as reader:
            taken = snapshot.save(reader, path, state.ids[-1] if state.ids else None, kind="run")
        yield taken
    except CommitUnknown:
        raise  # what this connection sees does not tell
    except BaseException:
        with contextlib.suppress(apsw.Error, Error, OSError):
            now = ledger.read(connection)
            if now.entries == state.entries and not now.unfinished:
                # an interruption may come as it gets its name: nobody else takes one for as long as this run has the lock
                new = [one for one in snapshot.snapshots(connection) if one.kind == "run" and one not in before]
                for made in new if taken is None else [taken]:
                    made.path.unlink(missing_ok=True)
                    tell_done(tell, Removed(made))
        raise
    snapshot.prune(connection, keep, "run", report=tell)


def _first_batch(todo: Sequence[Step], *, each: bool) -> list[Step]:
    """Return the steps from the first that share a transaction; none if the first cannot be in one."""
    batch: list[Step] = []
    for step in todo:
        if not step.script.transactional or (
            batch and (each or step.script.foreign_keys or batch[0].script.foreign_keys)
        ):
            break
        batch.append(step)
    return batch


def _refuse_parts(todo: Sequence[Step]) -> None:
    """Refuse scripts that need a transaction of their own where all of them must share one."""
    alone = [step.id for step in todo if step.script.foreign_keys or not step.script.transactional]
    if alone:
        raise MigrationError(
            f"these do not run in the transaction of the others ({', '.join(alone)}), so a failure could come after "
            "everything was dropped. Nothing was changed; migrate a new database instead, or delete this one with all "
            "its rows first"
        )


def _still_due(steps: Sequence[Step], state: Ledger) -> list[Step]:
    """Return the steps without those that another run did between two transactions of this one."""
    applied = set(state.ids)
    due = []
    for step in steps:
        if (step.id in applied) == (step.direction == "rollback"):
            due.append(step)
            applied ^= {step.id}
    return due


def _run_inside(connection: Connection, step: Step, world: _World, tell: Report) -> Result:
    result = _run_script(connection, step, world.guard, tell)
    if not connection.in_transaction:
        # a conflict clause or trigger with ROLLBACK that did not raise
        raise MigrationFailed(
            f"{step.script.path or step.id}: the script ended the run's transaction",
            migration=step.id,
            path=step.script.path,
        )
    tell(Finished(result))
    return result


def _refuse_interference(results: Sequence[Result], state: Ledger) -> None:
    """Refuse to go on over a hole that another run has made between two transactions of this one."""
    should_be = {result.id: result.direction == "apply" for result in results}
    for id, applied in should_be.items():
        if (id in state.ids) != applied:
            raise LedgerMismatch(
                f"another run has {'undone' if applied else 'applied'} {id} while this one was under way, between two of its "
                "transactions: look at `dao status`, then repeat"
            )


def _check(connection: Connection, step: Step, result: Result, world: _World, tell: Report) -> Result:
    """Check what is about to be committed; return the result of the last step, with what could not be judged.

    Raises:
        CheckFailed: Something is broken that was not.
    """
    notices: list[str] = []
    if world.settled:
        check(connection, world.before, notices.append, world.allow_broken)
    for text in notices:
        tell(Notice(step, text))
    return attrs.evolve(result, notices=(*result.notices, *notices))


def _run_alone(connection: Connection, step: Step, world: _World, tell: Report) -> tuple[Result, Found]:
    """Run a script outside of a transaction. The ledger knows already that it has begun."""
    try:
        result = _run_script(connection, step, world.guard, tell)
        if connection.in_transaction:
            raise MigrationFailed(
                f"{step.script.path or step.id}: the script left a transaction open, which was rolled back",
                migration=step.id,
                path=step.script.path,
            )
        with exclusive(connection):
            (result,) = _with_losses([step], [result], world)
            result = _check(connection, step, result, world, tell)
            _record(Writer(connection), step, result)
            found = _note_schema(connection, [step], world)
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with contextlib.suppress(apsw.Error):  # the disk may be full
            ended(connection, step.id)
        if not isinstance(error, Error):
            raise
        error.advice = (
            f"{step.id} does not run in a transaction: what it did before this stays done. Look at the database, finish or "
            f"undo it by hand; `dao migrate resolve {step.id}` shows what differs, and with --applied or --rolled-back notes "
            "which it is"
        )
        raise
    tell_done(tell, Finished(result))
    return result, found


def _note_schema(connection: Connection, batch: Sequence[Step], world: _World) -> Found:
    """Note the schema that scripts have left. A rollback may leave any; it is not held against it, but it is said."""
    undone = any(step.direction == "rollback" for step in batch)
    clean = world.clean and not undone
    found = drift.record(connection, world.migrations, world.ledger, schema_before=world.before.schema, clean=clean)
    return found if undone else attrs.evolve(found, unknown=None)


def _run_script(connection: Connection, step: Step, guard: Guard, tell: Report) -> Result:
    notices: list[str] = []

    def notice(text: str) -> None:
        if text not in notices:
            notices.append(text)
            tell(Notice(step, text))

    guard.begin_script(step.key)
    tell(Started(step))
    begun = time.perf_counter()
    ran = run_script(
        connection,
        step.script.text,
        migration=step.id,
        path=step.script.path,
        transactional=step.script.transactional,
        notice=notice,
        guard=guard,
    )
    if not ran.statements and step.direction == "apply":
        notice("holds no statement: noted as applied, and nothing was done")
    return Result(
        id=step.id,
        direction=step.direction,
        statements=ran.statements,
        seconds=time.perf_counter() - begun,
        notices=tuple(notices),
    )


def _with_losses(steps: Sequence[Step], done: Sequence[Result], world: _World) -> list[Result]:
    """Return the results of scripts with what they have lost, now that all are done; refuse what they may not lose."""
    lost = world.guard.losses()
    losses = {step.key: tuple(loss for source, loss in lost if source == step.key) for step in steps}
    if not world.allow_data_loss:
        refuse([(step.script.path, step.id, _undeclared(step, losses[step.key], world)) for step in steps])
    return [attrs.evolve(result, losses=losses[step.key]) for step, result in zip(steps, done, strict=True)]


def _undeclared(step: Step, losses: Sequence[Loss], world: _World) -> list[Loss]:
    losses = [loss for loss in losses if not loss.is_declared(step.script.allows | world.allowed)]
    if losses and step.direction == "rollback":
        made = drift.made_by(step, world.migrations, world.ledger)
        losses = [loss for loss in losses if not made.has(loss.table, loss.column)]
    return losses


def _record(writer: Writer, step: Step, result: Result) -> None:
    detail = "; ".join(f"lost {loss}" for loss in result.losses) or None
    if step.direction == "apply":
        writer.applied(step.migration, duration_ms=round(result.seconds * 1000), detail=detail)
    else:
        writer.not_applied(step.id, duration_ms=round(result.seconds * 1000), detail=detail)


@contextlib.contextmanager
def _saying_what_stays(results: Sequence[Result]) -> Iterator[None]:
    """Make a failure say what of the run is in the database: nothing, or what was committed before."""
    try:
        yield
    except Error as error:
        if results or isinstance(error, MigrationFailed | CheckFailed | DatabaseBusy):
            error.committed = tuple(result.id for result in results)
        if isinstance(error, CommitUnknown):
            error.advice = "`dao status` shows what is there. To repeat the run is safe: it begins with that."
        raise
    except BaseException as error:
        if results:
            error.add_note(f"These stay committed: {', '.join(result.id for result in results)}.")
        raise
