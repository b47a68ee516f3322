"""Verifies migrations: up, down and up again must give the same schema and the same rows. Only copies are changed.

However long the history is, each step looks at what its own scripts can touch (`touched`): only those tables get
generated rows, and those that these refer to, and only those are compared and checked. The rest is as it was.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from dao import url
from dao.errors import MigrationError
from dao.migrate.copies.working_copy import SMALL, WorkingCopies, WorkingCopy
from dao.migrate.database import Target, existing, opened
from dao.migrate.events import Report, Verifying
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.plan import needed_by, to_apply
from dao.migrate.ledger.selection import select
from dao.migrate.listening import listened
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import names, shown
from dao.migrate.values import Step
from dao.migrate.verification.findings import Stage, Turn, Verification, not_reached, up_to_last
from dao.migrate.verification.fixtures import Fixtures
from dao.migrate.verification.generate import Filled, in_the_way
from dao.migrate.verification.on_rows import Rows, tried
from dao.migrate.verification.sqlite_store import SQLiteStore
from dao.migrate.verification.store import Store
from dao.migrate.verification.touched import Touched, Trace, related
from dao.migrate.verification.trial import Place, Trial, follow
from dao.migrate.verification.uses import uses

__all__ = ["verify"]


def verify(
    migrations: Source = None,
    *,
    database: Target | None = None,
    server: str | url.ServerURL | None = None,
    rows: int = 3,
    fixtures: str | os.PathLike[str] | None = None,
    set: str | None = None,
    since: str | None = None,
    latest: int | None = None,
    memory_limit: int = SMALL,
    prepare: Prepare | None = None,
    report: Report | None = None,
) -> list[Verification]:
    """Run every migration up, down and up again, and return the results in order. Only reads the database.

    All are tried, unless one of two arguments says which: those after `since` (an id, or what begins only one), or the
    `latest` so many; and of several sets those of a `set`. The others count as proved, and are just applied.

    It is tried on an empty database, then on one in which the tables that its scripts can touch hold `rows` generated
    rows each, or as many as their constraints have room for; but those of the file `fixtures`, where its INSERT
    statements fit. If a `database` is named, the pending migrations are tried
    on a copy of it, forwards, and then the applied ones, backwards. After the rollback, schema and rows must be what
    they were before; after the second time, what they were after the first. Foreign keys and integrity are checked
    after every script, as in a run. Meanwhile time stands still, and chance repeats itself. Copies are in memory; those
    of more than `memory_limit` bytes (64 MiB) are in files of the temporary folder, which go at the end. `report` is
    told of each migration when its turn comes. `prepare` is as in `apply`.

    Migrations for PostgreSQL are tried on a `server`, by the URL of any database on it, in a database of their own that
    is dropped then: those that may share a transaction do so there, as in the first run of a new database. Tables are
    filled that a script names, and what is bound to these. There is no copy; `rehearse` tries what is pending on real
    rows.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist, or `since` is no migration. Or the role may create no database on
            the server, or that is given together with what only SQLite has.
        LedgerMismatch: Its ledger does not agree with the files.
        DatabaseCorrupt, DatabaseBusy, DiskFull: As it says.
        InvalidValue: `latest` is below 1, or both that and `since` are given.
    """
    report = listened(report, "dao.migrate.verification", "verify")

    def tell(migration: Migration, stage: Stage, number: int, total: int) -> None:
        if report is not None:
            name = shown(migration.id, migration.set, names(files))
            report(Verifying(migration.id, stage, number, total, migration.set, name))

    if server is not None:
        if database is not None:
            raise MigrationError(
                "migrations for PostgreSQL are verified in a database of their own: leave --copy out; `dao rehearse "
                "--round-trip` tries what is pending on the rows of a database"
            )
        from dao.migrate.verification import on_server  # noqa: PLC0415 - psycopg takes 100 ms, and SQLite needs none

        own = None if fixtures is None else Fixtures.read(Path(fixtures), "postgresql")
        files = loaded(migrations, "postgresql")
        chosen = frozenset(select(files, set=set, since=since, latest=latest).ids)
        found = on_server.verify(url.parse_server(server), files, on_server.Wanted(chosen, rows, own), tell)
        if own is not None and all(one.ok for one in found):
            own.refuse_unused()
        return found
    files = loaded(migrations)
    if database is not None:
        existing(database, "copy")  # before a minute of other trials
    chosen = frozenset(select(files, set=set, since=since, latest=latest).ids)
    own = None if fixtures is None else Fixtures.read(Path(fixtures))
    with preparing(prepare), WorkingCopies() as copies:
        found = list(_Stage(copies, "empty", chosen, tell, rows, own).forwards(Place.of(copies.copy()), files))
    if own is not None and all(one.ok for one in found):
        own.refuse_unused()
    if database is not None:
        with (
            preparing(prepare),
            WorkingCopies(limit=memory_limit) as copies,
            opened(database, read_only=True) as source,
        ):
            state = ledger.read(source)
            pending = [step.migration for step in to_apply(files, state)]
            original = Place.of(copies.copy(source))
            stage = _Stage(copies, "copy", chosen, tell)
            if pending:
                ahead = original.at(copies.copy(original.connection))
                found += stage.forwards(ahead, pending, besides=original.connection)
                copies.keep(original.connection)
            found += stage.backwards(original, _latest_first(files, state))
    return found


def _latest_first(files: Sequence[Migration], state: Ledger) -> list[Migration]:
    """Return the applied migrations, up to the one that a migration of a set depends on that has no files here."""
    by_id = {migration.id: migration for migration in files}
    others = needed_by([entry for entry in state.entries if entry.id not in by_id], by_id)
    ids = (id for id in reversed(state.ids) if id in by_id)
    return [by_id[id] for id in itertools.takewhile(lambda id: id not in others, ids)]


@attrs.frozen
class _Stage:
    """A stage on which migrations are tried: those that are `chosen`. `rows` and `fixtures` are for generated rows."""

    copies: WorkingCopies
    name: Stage
    chosen: frozenset[str]
    tell: Turn
    rows: int = 0
    fixtures: Fixtures | None = None

    def forwards(
        self, here: Place, migrations: Sequence[Migration], *, besides: WorkingCopy | None = None
    ) -> Iterator[Verification]:
        """Try migrations one after the other, each of which the database follows; with `rows`, on so many rows, too.

        Those are generated from an empty database on only. The copy `besides` stays open.
        """
        migrations = up_to_last(migrations, self.chosen)
        scripts = [script for migration in migrations for script in (migration.up, migration.down) if script]
        forms = uses(script.text for script in scripts) if self.rows else {}
        is_stale = False
        for place, migration in enumerate(migrations):
            self.tell(migration, self.name, place + 1, len(migrations))
            trial = Trial(self.copies, migration, self.name)
            if migration.id not in self.chosen:
                is_stale = trial.pass_over(here.connection)
                if not is_stale:
                    yield trial.end()
                    yield from not_reached(migrations[place + 1 :], self.chosen, migration, self.name)
                    return
                continue
            here, is_stale = Place.of(here.connection) if is_stale else here, False
            other = self.copies.copy(here.connection) if self.rows else None
            there = trial.there_and_back(here)
            yield trial.end()
            if there is None:
                yield from not_reached(migrations[place + 1 :], self.chosen, migration, self.name)
                return
            if other is not None:
                lend = functools.partial(self._lent, trial, here.at(other), migrations[:place])
                yield tried(lend, Rows(self.rows, forms, self.fixtures))
            self.copies.keep(there.connection, besides)
            here = there

    @contextlib.contextmanager
    def _lent(self, alone: Trial, here: Place, earlier: Sequence[Migration], *, again: bool) -> Iterator[_OnRows]:
        """Lend a database for a trial on rows; the `earlier` migrations make it `again`."""
        if again:
            copy = self.copies.copy()
            follow(copy, *(Step(migration=migration, direction="apply") for migration in earlier))
            here = here.at(copy)
        yield _OnRows(Trial(self.copies, alone.migration, "generated rows"), alone, here)

    def backwards(self, here: Place, migrations: Sequence[Migration]) -> Iterator[Verification]:
        """Try migrations from the last to the first, as far as they can be undone, or are chosen."""
        wanted = up_to_last(migrations, self.chosen)
        for place, migration in enumerate(wanted):
            self.tell(migration, "copy", place + 1, len(wanted))
            trial = Trial(self.copies, migration, self.name)
            before = trial.back_and_there(here)
            yield trial.end()
            if before is None:
                if trial.problems:
                    yield from not_reached(wanted[place + 1 :], self.chosen, migration, self.name)
                return
            self.copies.keep(before.connection)
            here = before


@attrs.frozen
class _OnRows:
    """A trial in a copy to which rows are written, `here`, as `on_rows` asks it."""

    trial: Trial
    alone: Trial
    here: Place

    @functools.cached_property
    def needed(self) -> Touched:
        return related(self.alone.touched, *(one.state.schema for one in (self.alone.before, self.alone.after) if one))

    @property
    def is_applied(self) -> bool:
        return self.trial.after is not None

    @contextlib.contextmanager
    def writing(self) -> Iterator[SQLiteStore]:
        yield SQLiteStore(self.here.connection)

    def there_and_back(self) -> None:
        state = self.here.state.with_rows(self.here.connection, self.needed)
        self.trial.there_and_back(attrs.evolve(self.here, state=state))

    def follow(self) -> None:
        self.trial.before = self.here
        follow(self.here.connection, self.trial.up)
        self.trial.after = self.alone.after and self.alone.after.at(self.here.connection)

    def roll_back(self) -> None:
        there = self.trial.after
        assert there is not None  # noqa: S101 - it is applied
        self.trial.run_script(there.connection, there, self.trial.down, Trace(there.connection), is_end=True)

    def in_the_way(self, store: Store, filled: Filled) -> frozenset[str]:
        return in_the_way(store, filled, self.alone.inserts, self.trial.up.script.text)
