"""A run on SQLite: the connection set up for scripts, the snapshot before them, the guard and the checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence

import apsw
import attrs

from dao.engine import sqlite
from dao.engine.sqlite import Connection, database_file
from dao.errors import CommitUnknown, Error, ReadOnlyDatabase
from dao.migrate.copies import snapshot
from dao.migrate.database.sqlite import reopened
from dao.migrate.events import Removed, Report, Snapshotted, tell_done
from dao.migrate.ledger import entries
from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.drift.sqlite import is_clean
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import made_by
from dao.migrate.run.ground import Refuse
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema import session
from dao.migrate.schema.catalog import Definitions, holds_rows
from dao.migrate.schema.check import Before, check, integrity_problems
from dao.migrate.schema.replay import Made
from dao.migrate.schema.script import run_script
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Snapshot, Step

__all__ = ["OnSQLite", "ready"]


@attrs.define
class OnSQLite:
    """The ground of a run on SQLite. `given` are the guard and the state before it that another run has noted."""

    connection: Connection
    tell: Report
    problems: Collection[str]
    given: tuple[Guard | None, Before | None]
    snapshots: int
    until_done: contextlib.ExitStack
    guard: Guard = attrs.field(init=False)
    before: Before = attrs.field(init=False)

    def enforce_foreign_keys(self, *, enforced: bool) -> None:
        """As `Ground`."""
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, enforced)

    def begin(self, ledger: Ledger, *, changed: bool = False) -> Moment:
        """As `Ground`."""
        guard, before = self.given
        self.before = before or Before.of(self.connection, self.problems)
        if self.snapshots and sqlite.file_of(self.connection) and holds_rows(self.connection, self.before.schema):
            taken = self.until_done.enter_context(_snapshot(self.connection, ledger, self.tell, self.snapshots))
            self.tell(Snapshotted(taken))
            self.snapshots = 0
        self.guard = guard or Guard(Holdings(self.connection, None if changed else self.before.schema))
        return Moment(ledger, self.before.schema, clean=not changed and is_clean(self.connection, ledger))

    def run_script(self, step: Step, notice: Callable[[str], object], _refuse: Refuse) -> int:
        """As `Ground`."""
        self.guard.begin_script(step.key)
        return run_script(self.connection, step.id, step.script, notice=notice, watcher=self.guard)

    def losses(self) -> list[tuple[Hashable, Loss]]:
        """As `Ground`."""
        return self.guard.losses()

    def made_by(self, step: Step, migrations: Sequence[Migration], ledger: Ledger) -> Made:
        """As `Ground`."""
        return made_by(step, migrations, ledger)

    def check(self, notice: Callable[[str], object], allowed: Collection[str]) -> Definitions:
        """As `Ground`."""
        return check(self.connection, self.before, notice, allowed).schema


@contextlib.contextmanager
def ready(
    connection: Connection, tell: Report, *, guard: Guard | None, before: Before | None, snapshots: int
) -> Iterator[OnSQLite]:
    """Set a connection up for a run, and put it back after the block. The parameters are those of `runner.run`.

    Raises:
        ReadOnlyDatabase: It cannot be written to.
        DatabaseCorrupt: The file is damaged.
        MigrationError: The connection has temporary objects or attached databases.
    """
    if connection.readonly("main"):
        raise ReadOnlyDatabase(database_file.why_read_only(connection))
    # before the lock is taken: it reads the whole file
    problems = integrity_problems(connection) if before is None else before.problems
    with session.of_run(connection), contextlib.ExitStack() as until_done:
        yield OnSQLite(connection, tell, problems, (guard, before), snapshots, until_done)


@contextlib.contextmanager
def _snapshot(connection: Connection, state: Ledger, tell: Report, keep: int) -> Iterator[Snapshot]:
    """Take a snapshot for a run. After it older ones of runs go, or this one, if the run changed nothing."""
    before = snapshot.snapshots(connection)
    taken: Snapshot | None = None
    try:
        with reopened(connection, writes=False) as reader:
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
