"""The one transaction in which scripts, ledger and checks happen.

It begins with the write lock, then reads the ledger that the run before has left. So neither an error nor kill -9
leaves a half-applied schema or a stale lock. Other runs wait before that, for `dao.migrate.lock`, which the verbs take.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import apsw
import attrs

from dao.engine import sqlite
from dao.engine.sqlite import Connection, database_file
from dao.errors import (
    CheckFailed,
    CommitUnknown,
    DatabaseBusy,
    Error,
    MigrationError,
    MigrationFailed,
    ReadOnlyDatabase,
)
from dao.migrate.copies import snapshot
from dao.migrate.database import exclusive, name_of
from dao.migrate.database.sqlite import reopened
from dao.migrate.events import Committed, Finished, Notice, Removed, Report, Snapshotted, Started, tell_done
from dao.migrate.ledger import drift, entries
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.writer import Writer
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.run.loss import refuse, undeclared
from dao.migrate.run.parts import Part, parts, refuse_interference, still_due
from dao.migrate.schema import session
from dao.migrate.schema.catalog import Definitions, holds_rows
from dao.migrate.schema.check import Before, check, integrity_problems
from dao.migrate.schema.script import run_script
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Drifted, Result, Snapshot, Step

__all__ = ["run"]


def run(
    connection: Connection,
    migrations: Sequence[Migration],
    decide: Callable[[Ledger], Sequence[Step]],
    *,
    first: Callable[[], object] | None = None,
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

    They run in `parts`, of which each is committed as a whole. `first` may change the database before the first
    script, in the run's transaction, which all must share then. A loss between the beginning and the end of a
    transaction is refused, unless its script declares it or `allow_loss` names it; a `guard` has seen what came
    before, in other runs. With `snapshots`, one of a file that holds rows is taken before anything changes, and so
    many are kept.

    At each commit everything has to work that did when its transaction began, or `before` if that is given, but for
    what `allow_broken` names; not if it is not yet `settled`, because other scripts follow that would share the
    transaction.

    An exception of `report` ends the run as any other error does. One that it raises when told of something that is
    committed already is logged, and so are old snapshots that cannot be removed: the run has done what it says.

    Raises:
        MigrationFailed: A script failed.
        CheckFailed: A foreign key was broken, data got lost, the schema no longer works, or the file is damaged.
        DatabaseCorrupt: The file was damaged before the run.
        LedgerMismatch: Between two transactions of this run, another undid what it had done.
        MigrationError: After `first`, a script cannot share its transaction.
        DatabaseBusy: Another connection kept the lock.
        DiskFull: There is no room for the snapshot.
        CommitUnknown: A commit met an I/O error. To repeat the run is safe: it begins with what is stored.
    """
    if connection.readonly("main"):
        raise ReadOnlyDatabase(database_file.why_read_only(connection))
    # before the lock is taken: it reads the whole file
    problems = integrity_problems(connection) if before is None else before.problems
    with session.of_run(connection), contextlib.ExitStack() as until_done:
        this = _Run(
            connection=connection,
            migrations=migrations,
            tell=report or (lambda _event: None),
            allow_data_loss=allow_data_loss,
            allowed=Allowance.of(allow_loss),
            allow_broken=allow_broken,
            guard=guard,
            snapshots=snapshots,
            until_done=until_done,
            problems=problems,
            before=before,
            settled=settled,
        )
        with this.locked(foreign_keys=False) as lock:
            steps = decide(lock.ledger)
            todo = parts(steps, each=each)
            due = {step.id for step in steps}
            others = tuple(entry for entry in lock.ledger.entries if entry.id not in due)
            this.found = attrs.evolve(lock.ledger, entries=others)
            if first is not None:
                _refuse_to_part(steps, connection)
                this.change(lock, steps, first)
                todo.clear()
            elif todo and todo[0].transactional and not todo[0].foreign_keys:
                this.change(lock, todo.pop(0).steps)
        for part in todo:
            this.commit(part)
    return this.results


def _refuse_to_part(steps: Sequence[Step], connection: Connection) -> None:
    """Refuse scripts that need a transaction of their own where all of them must share one."""
    if alone := [step.id for step in steps if step.script.foreign_keys or not step.script.transactional]:
        raise MigrationError(
            f"these do not run in the transaction of the others ({', '.join(alone)}), so a failure could come after "
            "everything was dropped. Nothing was changed; migrate a new database instead, or delete "
            f"{name_of(connection)} with all its rows first"
        )


@attrs.define
class _Lock:
    """A transaction of a run: the ledger that it found and writes, and what it has done once that can be committed."""

    since: float
    writer: Writer
    results: list[Result] = attrs.Factory(list)
    found: Drifted = attrs.Factory(Drifted)

    @property
    def ledger(self) -> Ledger:
        return self.writer.before


@attrs.frozen
class _Beginning:
    """The state that scripts are held against: the ledger and the schema before them, and the guard of the data."""

    ledger: Ledger
    before: Before
    guard: Guard
    #: The schema was what its migrations make and nothing else.
    clean: bool


@attrs.define(kw_only=True)
class _Run:
    """A run that is under way: what it may do, and what it has done. The parameters are those of `run`."""

    connection: Connection
    migrations: Sequence[Migration]
    tell: Report
    allow_data_loss: bool
    allowed: Allowance
    allow_broken: Collection[str]
    guard: Guard | None
    snapshots: int
    until_done: contextlib.ExitStack
    problems: Collection[str]
    before: Before | None
    settled: bool
    #: Of what is committed.
    results: list[Result] = attrs.Factory(list)
    drifted: Drifted = attrs.Factory(Drifted)
    #: The ledger when it was decided what is due, without that.
    found: Ledger = attrs.Factory(Ledger)

    @contextlib.contextmanager
    def locked(self, *, foreign_keys: bool) -> Iterator[_Lock]:
        """Hold the lock; what is done in the block is committed at its end, and told."""
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, foreign_keys)
        with _saying_what_stays(self.results), exclusive(self.connection):
            lock = _Lock(since=time.perf_counter(), writer=Writer(self.connection))
            yield lock
        if lock.results:
            self.committed(lock.results, lock.found, time.perf_counter() - lock.since)

    def committed(self, results: Sequence[Result], found: Drifted, seconds: float) -> None:
        self.results += results
        tell_done(self.tell, Committed(tuple(result.id for result in results), seconds))
        if found != self.drifted:
            self.drifted = found
            tell_done(self.tell, found)

    def commit(self, part: Part) -> None:
        """Run a part as far as nobody else has done so since the run began."""
        with self.locked(foreign_keys=part.foreign_keys) as lock:
            refuse_interference(self.found, self.results, lock.ledger)
            steps = still_due(part.steps, lock.ledger)
            if not steps:
                return
            if part.transactional:
                self.change(lock, steps)
                return
            (step,) = steps
            beginning = self.begin(lock)
            lock.writer.begun(step.migration, "applying" if step.direction == "apply" else "rolling back")
        self.run_alone(step, beginning)

    def begin(self, lock: _Lock, *, changed: bool = False) -> _Beginning:
        """Take the snapshot, if that is to be done still, and look at what is there before anything changes."""
        before = self.before or Before.of(self.connection, self.problems)
        if self.snapshots and sqlite.file_of(self.connection) and holds_rows(self.connection, before.schema):
            taken = self.until_done.enter_context(_snapshot(self.connection, lock.ledger, self.tell, self.snapshots))
            self.tell(Snapshotted(taken))
            self.snapshots = 0
        return _Beginning(
            lock.ledger,
            before,
            self.guard or Guard(Holdings(self.connection, None if changed else before.schema)),
            clean=not changed and drift.is_clean(self.connection, lock.ledger),
        )

    def change(self, lock: _Lock, steps: Sequence[Step], first: Callable[[], object] | None = None) -> None:
        """Run scripts in the transaction that is open."""
        beginning = self.begin(lock, changed=first is not None)
        if first is not None:
            first()
        results = []
        for step in steps:
            results.append(self.run_script(step, beginning.guard))
            if not self.connection.in_transaction:
                # a conflict clause or trigger with ROLLBACK that did not raise
                raise _failed(step, "the script ended the run's transaction")
            self.tell(Finished(results[-1]))
        if results:
            lock.results, lock.found = self.settle(steps, results, beginning, lock.writer)

    def run_alone(self, step: Step, beginning: _Beginning) -> None:
        """Run a script outside of a transaction. The ledger knows already that it has begun."""
        try:
            result = self.run_script(step, beginning.guard)
            if self.connection.in_transaction:
                raise _failed(step, "the script left a transaction open, which was rolled back")
            with exclusive(self.connection):
                (result,), found = self.settle([step], [result], beginning, Writer(self.connection))
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, Error):
                error.committed = tuple(one.id for one in self.results) or None
                advice = (
                    f"{step.id} does not run in a transaction: what it did before this stays done. Look at the "
                    f"database, finish or undo it by hand; `dao migrate resolve {step.id}` shows what differs, and "
                    "with --applied or --rolled-back notes which it is"
                )
                error.advice = f"{error.advice}\n{advice}" if error.advice else advice
            raise
        tell_done(self.tell, Finished(result))
        self.committed([result], found, result.seconds)

    def run_script(self, step: Step, guard: Guard) -> Result:
        notices: list[str] = []

        def notice(text: str) -> None:
            if text not in notices:
                notices.append(text)
                self.tell(Notice(step, text))

        guard.begin_script(step.key)
        self.tell(Started(step))
        begun = time.perf_counter()
        statements = run_script(self.connection, step.id, step.script, notice=notice, watcher=guard)
        if not statements and step.direction == "apply":
            notice("holds no statement: noted as applied, and nothing was done")
        return Result(
            id=step.id,
            direction=step.direction,
            statements=statements,
            seconds=time.perf_counter() - begun,
            notices=tuple(notices),
        )

    def settle(
        self, steps: Sequence[Step], results: list[Result], beginning: _Beginning, writer: Writer
    ) -> tuple[list[Result], Drifted]:
        """Note in the ledger what scripts have done, and check it all; return the results with losses and notices.

        Raises:
            CheckFailed: They lose what they may not, or something is broken that was not.
        """
        lost = beginning.guard.losses()
        losses = {step.key: tuple(loss for source, loss in lost if source == step.key) for step in steps}
        if not self.allow_data_loss:
            may_not = [
                undeclared(step, losses[step.key], self.allowed, self.migrations, beginning.ledger) for step in steps
            ]
            refuse(zip(steps, may_not, strict=True))
        results = [attrs.evolve(one, losses=losses[step.key]) for step, one in zip(steps, results, strict=True)]
        # after all of them: each script changes the schema, so SQLite would compile these anew after each
        for step, result in zip(steps, results, strict=True):
            _record(writer, step, result)
        notices: list[str] = []
        schema: Definitions | None = None
        if self.settled:
            schema = check(self.connection, beginning.before, notices.append, self.allow_broken).schema
        for text in notices:
            self.tell(Notice(steps[-1], text))
        results[-1] = attrs.evolve(results[-1], notices=(*results[-1].notices, *notices))
        # a rollback may leave any schema; it is not held against it, but it is said
        undone = any(step.direction == "rollback" for step in steps)
        found = drift.record(
            self.connection,
            self.migrations,
            beginning.ledger,
            schema_before=beginning.before.schema,
            after=writer.after,
            schema=schema,
            clean=beginning.clean and not undone,
        )
        return results, found if undone else attrs.evolve(found, unknown=None)


def _failed(step: Step, reason: str) -> MigrationFailed:
    path = step.script.path
    return MigrationFailed(f"{path or step.id}: {reason}", migration=step.id, path=path, reason=reason)


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


@contextlib.contextmanager
def _snapshot(connection: Connection, state: Ledger, tell: Report, keep: int) -> Iterator[Snapshot]:
    """Take a snapshot for a run. After it older ones of runs go, or this one, if the run changed nothing."""
    before = snapshot.snapshots(connection)
    taken: Snapshot | None = None
    try:
        with reopened(connection) as reader:
            last = state.ids[-1] if state.ids else None
            taken = snapshot.save(reader, sqlite.file_of(connection), last, kind="run")
        yield taken
    except CommitUnknown:
        raise  # what this connection sees does not tell
    except BaseException:
        with contextlib.suppress(apsw.Error, Error, OSError):
            now = entries.read(connection)
            if now.entries == state.entries and not now.unfinished:
                # an interruption may come as it gets its name: nobody else takes one while this run has the lock
                new = [one for one in snapshot.snapshots(connection) if one.kind == "run" and one not in before]
                for made in new if taken is None else [taken]:
                    made.path.unlink(missing_ok=True)
                    tell_done(tell, Removed(made))
        raise
    snapshot.prune(connection, keep, "run", report=tell)
