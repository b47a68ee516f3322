"""Verifies migrations for PostgreSQL: up, down and up again in a scratch database, which goes at the end.

There they run as in the first run of a new database: those that may share a transaction do. Each is tried in a
savepoint, which is undone, on the rows of the scripts alone and then on generated ones; and then applied for those
after it. One that runs in no transaction is tried on generated rows in another scratch database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

import attrs

from dao import url
from dao.engine import in_transaction, transaction
from dao.engine.postgresql import Connection
from dao.errors import Error
from dao.migrate.run.postgresql.guard import Guard
from dao.migrate.run.postgresql.names import filled_by
from dao.migrate.schema.postgresql.replay import replayed, scratch
from dao.migrate.schema.postgresql.script import run_script
from dao.migrate.schema.postgresql.session import of_run, settle
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.postgresql import split
from dao.migrate.values import Loss, Step
from dao.migrate.verification.findings import Findings, Stage, Turn, Verification, not_reached, up_to_last
from dao.migrate.verification.fixtures import Fixtures
from dao.migrate.verification.generate import Filled, in_the_way
from dao.migrate.verification.mentioned import mentioned
from dao.migrate.verification.observer import Observer
from dao.migrate.verification.on_rows import Rows, tried
from dao.migrate.verification.round_trip import State
from dao.migrate.verification.server_store import ServerStore, without_brackets
from dao.migrate.verification.store import Store
from dao.migrate.verification.touched import Touched
from dao.migrate.verification.uses import uses

__all__ = ["Wanted", "verify"]


@attrs.frozen
class Wanted:
    """Which migrations are to be tried, and on which rows: so many generated ones in a table, and one's own."""

    chosen: Collection[str]
    rows: int
    fixtures: Fixtures | None


def verify(server: url.ServerURL, migrations: Sequence[Migration], wanted: Wanted, tell: Turn) -> list[Verification]:
    """Try migrations in a database of their own on a server, and return the results in order.

    Those that are not chosen are just applied.

    Raises:
        MigrationError: The role may not create a database.
        OperationalError: The server cannot be reached.
    """
    found: list[Verification] = []
    migrations = up_to_last(migrations, wanted.chosen)
    forms = uses(without_brackets(script.text) for one in migrations for script in (one.up, one.down) if script)
    rows = Rows(wanted.rows, forms, wanted.fixtures)
    with scratch(server) as connection, of_run(connection), contextlib.ExitStack() as shared:
        for place, migration in enumerate(migrations):
            tell(migration, "empty", place + 1, len(migrations))
            if not migration.up.transactional:
                shared.close()  # commits
            elif not in_transaction(connection):
                shared.enter_context(transaction(connection))
            trial = _Trial(connection, migration, "empty")
            if migration.id not in wanted.chosen:
                is_applied = trial.apply()
                found += [] if is_applied else [trial.end()]
            else:
                is_applied, ends = _Tries(server, trial, migrations[:place], rows).all_tried()
                found += ends
            if not is_applied:
                found += not_reached(migrations[place + 1 :], wanted.chosen, migration, "empty")
                break
    return found


class _Undone(Exception):
    """Undoes what was tried."""


class _Trial(Findings):
    """One migration in the scratch database. A transaction is open, unless one of its scripts does not run in any."""

    def __init__(self, connection: Connection, migration: Migration, stage: Stage) -> None:
        super().__init__(migration, stage)
        self.connection = connection
        #: The database before it and after it, as far as it got there.
        self.before: State | None = None
        self.after: State | None = None
        self._observer = Observer(connection, holds_rows=True)

    def apply(self) -> bool:
        """Just apply it, and return whether that could be done."""
        return self._run(self.up, "apply fails") is not None

    def there_and_back(self) -> bool:
        """Apply it, undo it and apply it again; return whether it is applied now."""
        self.before = self._observer.look()
        self.after = self._run(self.up, "apply fails")
        if self.after is None:
            return False

        def run(step: Step) -> State | None:
            return self._run(step, f"{step.direction}{' after the rollback' * (step.direction == 'apply')} fails")

        undone, again = self.trip([self.before, self.after], run)
        return undone == again

    def roll_back(self, before: State) -> None:
        """Undo it, with rows that were written since; the database was as `before` without it.

        Raises:
            Error: The rollback refuses them.
        """
        self.note_losses(self.down, self._run_script(self.down), before.schema)

    def _run(self, step: Step, failure: str) -> State | None:
        """Run a script; return the database after it, None if it fails."""
        try:
            losses = self._run_script(step)
        except Error as error:
            self.fails(step, f"{failure}: {error}")
            return None
        after = self._observer.look()
        if self.before is not None:
            self.note_losses(step, losses, self.before.schema)
        return after

    def _run_script(self, step: Step) -> list[Loss]:
        """Run a script, and return what it lost."""
        script = step.script
        guard = Guard(self.connection)
        guard.begin_script(step.key)
        with transaction(self.connection) if script.transactional else contextlib.nullcontext():
            run_script(self.connection, step.id, script, watcher=guard)
            return [loss for _, loss in guard.losses()]


@attrs.frozen
class _OnRows:
    """A trial in a database to which rows are written, as `on_rows` asks it."""

    trial: _Trial
    alone: _Trial

    @property
    def needed(self) -> Touched:
        alone = self.alone
        texts = [script.text for script in (alone.migration.up, alone.migration.down) if script]
        return mentioned(self.trial.connection, texts, *(one.schema for one in (alone.before, alone.after) if one))

    @property
    def is_applied(self) -> bool:
        return self.trial.after is not None

    @contextlib.contextmanager
    def writing(self) -> Iterator[ServerStore]:
        now = self.trial.after or self.alone.before
        assert now is not None  # noqa: S101 - it was tried
        store = ServerStore(self.trial.connection, now.schema)
        with transaction(store.connection):
            yield store
            settle(store.connection)

    def there_and_back(self) -> None:
        self.trial.there_and_back()

    def follow(self) -> None:
        self.trial.after = self.alone.after
        self.trial.apply()

    def roll_back(self) -> None:
        before = self.alone.before
        assert before is not None  # noqa: S101 - it was tried
        self.trial.roll_back(before)

    def in_the_way(self, store: Store, filled: Filled) -> frozenset[str]:
        text = self.alone.migration.up.text
        filled_by_it = {filled_by(statement) for statement in split(text)}
        inserts = {name for name in filled.rows if name.rpartition(".")[2] in filled_by_it}
        return in_the_way(store, filled, inserts, without_brackets(text))


@attrs.frozen
class _Tries:
    """The trials of a migration: on no rows but those of the scripts (`alone`), and then on others.

    `earlier` migrations make the database again where it cannot be undone.
    """

    server: url.ServerURL
    alone: _Trial
    earlier: Sequence[Migration]
    rows: Rows

    def all_tried(self) -> tuple[bool, list[Verification]]:
        """Try it without rows and with them; return whether it is applied then, for those after it, and the results."""
        alone = self.alone
        if not in_transaction(alone.connection):
            is_applied = alone.there_and_back()
            end = alone.end()
            return is_applied, [end] if alone.after is None else [end, tried(self._lent, self.rows)]
        with contextlib.suppress(_Undone), transaction(alone.connection):
            alone.there_and_back()
            raise _Undone
        end = alone.end()
        if alone.after is None:
            return False, [end]
        on_rows = tried(self._lent, self.rows)
        is_applied = alone.apply()
        return is_applied, [end if is_applied else alone.end(), on_rows]

    @contextlib.contextmanager
    def _lent(self, *, again: bool) -> Iterator[_OnRows]:  # noqa: ARG002 - each time in the same way
        """Lend a database in which the earlier migrations are applied, of which nothing is left afterwards."""
        alone = self.alone
        if in_transaction(alone.connection):
            with contextlib.suppress(_Undone), transaction(alone.connection):
                yield _OnRows(_Trial(alone.connection, alone.migration, "generated rows"), alone)
                raise _Undone
            return
        with replayed(self.server, self.earlier) as connection, of_run(connection):
            yield _OnRows(_Trial(connection, alone.migration, "generated rows"), alone)
