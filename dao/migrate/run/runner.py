"""The one transaction in which scripts, ledger and checks happen.

It begins with the write lock, then reads the ledger that the run before has left. So neither an error nor kill -9
leaves a half-applied schema or a stale lock. Other runs wait before that, for `dao.migrate.lock`, which the verbs take.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dao.engine import Connection, execute, in_transaction
from dao.errors import (
    CheckFailed,
    CommitUnknown,
    ConnectionLost,
    Error,
    MigrationError,
    MigrationFailed,
    OperationalError,
)
from dao.migrate.by_engine import by_engine
from dao.migrate.database import exclusive, name_of, translated
from dao.migrate.events import Committed, Finished, Notice, Report, Started, tell_done
from dao.migrate.ledger import drift
from dao.migrate.ledger.drift import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.writer import Writer
from dao.migrate.run.ground import Ground
from dao.migrate.run.guard import Guard
from dao.migrate.run.loss import refuse, undeclared
from dao.migrate.run.parts import Part, parts, refuse_interference, still_due
from dao.migrate.schema.check import Before
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Drifted, Loss, Result, Step

__all__ = ["run"]


class _Grounds(Protocol):
    """The module of an engine: a connection set up for a run."""

    def ready(
        self, connection: Any, tell: Report, /, *, guard: Guard | None, before: Before | None, snapshots: int
    ) -> contextlib.AbstractContextManager[Ground]: ...


if TYPE_CHECKING:
    from dao.migrate.run import postgresql, sqlite

    _MODULES: tuple[_Grounds, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Grounds] = by_engine("dao.migrate.run")


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
    tell = report or (lambda _event: None)
    with _of(connection).ready(connection, tell, guard=guard, before=before, snapshots=snapshots) as ground:
        this = _Run(
            connection=connection,
            ground=ground,
            migrations=migrations,
            tell=tell,
            allow_data_loss=allow_data_loss,
            allowed=Allowance.of(allow_loss),
            allow_broken=allow_broken,
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
    if alone := [step.name for step in steps if step.script.foreign_keys or not step.script.transactional]:
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


@attrs.define(kw_only=True)
class _Run:
    """A run that is under way: what it may do, and what it has done. The parameters are those of `run`."""

    connection: Connection
    ground: Ground
    migrations: Sequence[Migration]
    tell: Report
    allow_data_loss: bool
    allowed: Allowance
    allow_broken: Collection[str]
    settled: bool
    #: Of what is committed.
    results: list[Result] = attrs.Factory(list)
    drifted: Drifted = attrs.Factory(Drifted)
    #: The ledger when it was decided what is due, without that.
    found: Ledger = attrs.Factory(Ledger)

    @contextlib.contextmanager
    def locked(self, *, foreign_keys: bool) -> Iterator[_Lock]:
        """Hold the lock; what is done in the block is committed at its end, and told."""
        self.ground.enforce_foreign_keys(enforced=foreign_keys)
        with _saying_what_stays(self.results), exclusive(self.connection):
            lock = _Lock(since=time.perf_counter(), writer=Writer(self.connection, self.migrations))
            yield lock
        if lock.results:
            self.committed(lock.results, lock.found, time.perf_counter() - lock.since)

    def committed(self, results: Sequence[Result], found: Drifted, seconds: float) -> None:
        self.results += results
        tell_done(self.tell, Committed(tuple(result.name for result in results), seconds))
        if found != self.drifted:
            self.drifted = found
            tell_done(self.tell, found)

    def commit(self, part: Part) -> None:
        """Run a part as far as nobody else has done so since the run began."""
        with self.locked(foreign_keys=part.foreign_keys) as lock:
            refuse_interference(self.found, self.results, lock.ledger, lock.writer.sets)
            steps = still_due(part.steps, lock.ledger)
            if not steps:
                return
            if part.transactional:
                self.change(lock, steps)
                return
            (step,) = steps
            beginning = self.ground.begin(lock.ledger)
            lock.writer.begun(step.migration, "applying" if step.direction == "apply" else "rolling back")
        self.run_alone(step, beginning)

    def change(self, lock: _Lock, steps: Sequence[Step], first: Callable[[], object] | None = None) -> None:
        """Run scripts in the transaction that is open."""
        beginning = self.ground.begin(lock.ledger, changed=first is not None)
        if first is not None:
            first()
            lock.writer = Writer(self.connection, self.migrations)  # it has changed the ledger, too
        results = []
        for step in steps:
            results.append(self.run_script(step, beginning))
            if not in_transaction(self.connection):
                # a conflict clause or trigger with ROLLBACK that did not raise
                raise _failed(step, "the script ended the run's transaction")
            self.tell(Finished(results[-1]))
        if results:
            lock.results, lock.found = self.settle(steps, results, beginning, lock.writer)

    def run_alone(self, step: Step, beginning: Moment) -> None:
        """Run a script outside of a transaction. The ledger knows already that it has begun."""
        try:
            # here, and not only around it all: what is said below goes with an error of ours
            with translated(self.connection):
                result = self.run_script(step, beginning)
            if in_transaction(self.connection):
                raise _failed(step, "the script left a transaction open, which was rolled back")
            with exclusive(self.connection):
                (result,), found = self.settle([step], [result], beginning, Writer(self.connection, self.migrations))
        except BaseException as error:
            if in_transaction(self.connection):
                with contextlib.suppress(ConnectionLost):  # the server rolls back
                    execute(self.connection, "ROLLBACK")
            if isinstance(error, Error):
                error.committed = tuple(one.name for one in self.results) or None
                advice = (
                    f"{step.name} does not run in a transaction: what it did before this stays done. Look at the "
                    f"database, finish or undo it by hand; `dao migrate resolve {step.name}` shows what differs, and "
                    "with --applied or --rolled-back notes which it is"
                )
                error.advice = f"{error.advice}\n{advice}" if error.advice else advice
            raise
        tell_done(self.tell, Finished(result))
        self.committed([result], found, result.seconds)

    def run_script(self, step: Step, beginning: Moment) -> Result:
        notices: list[str] = []

        def notice(text: str) -> None:
            if text not in notices:
                notices.append(text)
                self.tell(Notice(step, text))

        self.tell(Started(step))
        begun = time.perf_counter()
        try:
            statements = self.ground.run_script(step, notice, lambda lost: self.refuse([step], lost, beginning))
        except OperationalError as error:
            where = str(step.script.path or step.name)
            if not error.args[0].startswith(where):  # it is not the script's fault, but that is where it was
                error.args = (f"{where}: {error.args[0]}",)
            raise
        if not statements and step.direction == "apply":
            notice("holds no statement: noted as applied, and nothing was done")
        return Result(
            id=step.id,
            direction=step.direction,
            statements=statements,
            seconds=time.perf_counter() - begun,
            notices=tuple(notices),
            set=step.migration.set,
            name=step.name,
        )

    def refuse(
        self, steps: Sequence[Step], lost: Sequence[tuple[Hashable, Loss]], beginning: Moment
    ) -> dict[Hashable, tuple[Loss, ...]]:
        """Return the losses of each step, by its key, unless they are refused."""
        losses: dict[Hashable, tuple[Loss, ...]] = {
            step.key: tuple(loss for source, loss in lost if source == step.key) for step in steps
        }
        if not self.allow_data_loss:

            def made_by(step: Step) -> Made:
                return self.ground.made_by(step, self.migrations, beginning.ledger)

            refuse((step, undeclared(step, losses[step.key], self.allowed, made_by)) for step in steps)
        return losses

    def settle(
        self, steps: Sequence[Step], results: list[Result], beginning: Moment, writer: Writer
    ) -> tuple[list[Result], Drifted]:
        """Note in the ledger what scripts have done, and check it all; return the results with losses and notices.

        Raises:
            CheckFailed: They lose what they may not, or something is broken that was not.
        """
        losses = self.refuse(steps, self.ground.losses(), beginning)
        results = [attrs.evolve(one, losses=losses[step.key]) for step, one in zip(steps, results, strict=True)]
        # after all of them: each script changes the schema, so SQLite would compile these anew after each
        for step, result in zip(steps, results, strict=True):
            _record(writer, step, result)
        notices: list[str] = []
        schema = self.ground.check(notices.append, self.allow_broken) if self.settled else None
        for text in notices:
            self.tell(Notice(steps[-1], text))
        results[-1] = attrs.evolve(results[-1], notices=(*results[-1].notices, *notices))
        # a rollback may leave any schema; it is not held against it, but it is said
        undone = any(step.direction == "rollback" for step in steps)
        now = Moment(writer.after, schema, clean=beginning.clean and not undone)
        found = drift.record(self.connection, self.migrations, beginning, now)
        return results, found if undone else attrs.evolve(found, unknown=None)


def _failed(step: Step, reason: str) -> MigrationFailed:
    path = step.script.path
    return MigrationFailed(f"{path or step.name}: {reason}", migration=step.id, path=path, reason=reason)


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
        if results or (
            isinstance(error, MigrationFailed | CheckFailed | OperationalError) and not isinstance(error, CommitUnknown)
        ):
            error.committed = tuple(result.name for result in results)
        if isinstance(error, CommitUnknown):
            error.advice = "`dao status` shows what is there. To repeat the run is safe: it begins with that."
        raise
    except BaseException as error:
        if results:
            error.add_note(f"These stay committed: {', '.join(result.name for result in results)}.")
        raise
