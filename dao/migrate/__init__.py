"""Migrations: from one schema version to another, and never in between.

The verbs are the API: `load`, `plan`, `apply`, `rollback`, `redo`, `status`, `mark`, `unmark`, `accept`, `reset`, `new`.
Each takes a database URL, or a connection that the caller owns, and works on this package's own migrations unless given
others::

    from dao import migrate

    migrate.apply("sqlite:///orchestrator.db")
    connection = dao.connect("sqlite:///orchestrator.db")
    migrate.assert_current(connection)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from dao import sqlite, url
from dao.engine import Connection
from dao.errors import LedgerMismatch, MigrationError, SchemaOutOfDate, SchemaTooNew
from dao.migrate import ledger as _ledger
from dao.migrate.files import Migration, default_folder, has_statement, load, new
from dao.migrate.ledger import Ledger
from dao.migrate.plan import Comparison, Direction, Step, compare, refuse, resolve, to_apply, to_roll_back
from dao.migrate.reset import drop_all, foreign_objects
from dao.migrate.runner import (
    Event,
    Finished,
    Notice,
    Report,
    Result,
    Started,
    Target,
    Waiting,
    exclusive,
    opened,
    run,
)

__all__ = [
    "Comparison",
    "Event",
    "Finished",
    "Migration",
    "MigrationStatus",
    "Notice",
    "Result",
    "Started",
    "State",
    "Status",
    "Step",
    "Waiting",
    "accept",
    "apply",
    "assert_current",
    "default_folder",
    "load",
    "mark",
    "new",
    "plan",
    "redo",
    "reset",
    "rollback",
    "status",
    "unmark",
]

#: Where migrations come from: a folder, migrations that `load` returned, or None for this package's own.
Source = str | os.PathLike[str] | Sequence[Migration] | None


def apply(
    target: Target,
    migrations: Source = None,
    *,
    to: str | None = None,
    steps: int | None = None,
    each: bool = False,
    allow_out_of_order: bool = False,
    report: Report | None = None,
) -> list[Result]:
    """Apply the pending migrations, all or none: all there are, up to and with `to`, or the next `steps`.

    Writes, in one transaction; with `each`, in one for every migration. A database that does not exist is created.
    Foreign keys are not enforced meanwhile; broken ones, and a damaged file, are found at the end and undo everything.
    With nothing pending it only reads. `report` is told what happens while it happens. Safe to repeat, and to run in
    several processes at once: the others wait, and find nothing to do.

    Raises:
        MigrationFileError: A file is not what it should be.
        LedgerMismatch: Applied files have changed or gone, or a pending one comes before an applied one.
        MigrationFailed: A script failed; it says where.
        CheckFailed: A foreign key was broken or the file damaged.
        DatabaseBusy: Another connection kept the lock for longer than the busy timeout.
    """
    files = _loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_apply(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    if not _exists(target):
        decide(Ledger())  # what it refuses creates no database
    with opened(target, report=report) as connection:
        return run(connection, decide, each=each, report=report) if decide(_ledger.read(connection)) else []


def rollback(
    target: Target,
    migrations: Source = None,
    *,
    to: str | None = None,
    steps: int | None = 1,
    each: bool = False,
    allow_out_of_order: bool = False,
    report: Report | None = None,
) -> list[Result]:
    """Undo applied migrations, the latest first, all or none: so many (None: all of them), or all that came after `to`.

    The order is that in which they were applied. A script comes from its file or, if that has gone, from the ledger.

    Raises:
        Irreversible: One of them has no rollback script. Nothing was changed.
        MigrationError: `to` is not applied, or the database does not exist.
        LedgerMismatch, MigrationFailed, CheckFailed, DatabaseBusy: As `apply`.
    """
    files = _loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_roll_back(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    with opened(_existing(target), report=report) as connection:
        return run(connection, decide, each=each, report=report) if decide(_ledger.read(connection)) else []


def redo(target: Target, migrations: Source = None, *, steps: int = 1, report: Report | None = None) -> list[Result]:
    """Undo the latest migrations and apply them again, in one transaction: for one that is being written.

    The rollback comes from the ledger's text, as it was applied; so the files may have changed since.

    Raises:
        Irreversible, LedgerMismatch, MigrationFailed, CheckFailed, DatabaseBusy: As `rollback`.
    """
    files = _loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        again = {entry.id for entry in state.entries[len(state.entries) - min(steps, len(state.entries)) :]}
        # what is about to be replaced may have been edited: that is what redo is for
        applied = [_as_applied(migration, state) if migration.id in again else migration for migration in files]
        back = to_roll_back(applied, state, steps=steps)
        missing = again - {migration.id for migration in files}
        if missing:
            refuse(attrs.evolve(compare(files, state), missing=tuple(sorted(missing)), changed=()), state)
        forth = [
            Step(id=migration.id, direction="apply", migration=migration, text=migration.text, path=migration.path)
            for migration in files
            if migration.id in again
        ]
        return [*back, *forth]

    with opened(_existing(target), report=report) as connection:
        return run(connection, decide, report=report) if decide(_ledger.read(connection)) else []


def _as_applied(migration: Migration, state: Ledger) -> Migration:
    entry = state.get(migration.id)
    if entry is None or entry.text is None:
        return migration
    return attrs.evolve(migration, text=entry.text, rollback_text=entry.rollback_text)


def plan(
    target: Target,
    migrations: Source = None,
    *,
    direction: Direction = "apply",
    to: str | None = None,
    steps: int | None = None,
    allow_out_of_order: bool = False,
) -> list[Step]:
    """Return the steps that `apply` or `rollback` would run with these arguments, in order. Reads only, creates nothing.

    Raises:
        MigrationFileError, LedgerMismatch, Irreversible, MigrationError: As `apply` and `rollback`.
    """
    files = _loaded(migrations)
    state = _state(target)
    if direction == "apply":
        return to_apply(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)
    return to_roll_back(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)


State = Literal["applied", "pending", "changed", "missing", "unfinished"]


@attrs.frozen(kw_only=True)
class MigrationStatus:
    """One migration: where it stands, when it was applied (UTC, ISO 8601) and in how many milliseconds."""

    id: str
    state: State
    reversible: bool
    out_of_order: bool = False
    applied_at: str | None = None
    duration_ms: int | None = None


@attrs.frozen(kw_only=True)
class Status:
    """All migrations, applied ones first, in the order of application, then the pending ones in theirs."""

    database: str
    exists: bool
    migrations: tuple[MigrationStatus, ...]

    def ids(self, *states: State) -> list[str]:
        """Return the ids of the migrations that are in one of these states."""
        return [migration.id for migration in self.migrations if migration.state in states]

    @property
    def is_current(self) -> bool:
        """Whether every migration is applied and as its file has it."""
        return all(migration.state == "applied" for migration in self.migrations)


def status(target: Target, migrations: Source = None) -> Status:
    """Return where each migration stands. Reads only, and creates no database.

    Raises:
        MigrationFileError: A file is not what it should be.
        OperationalError: The database cannot be read.
    """
    files = {migration.id: migration for migration in _loaded(migrations)}
    state = _state(target)
    comparison = compare(list(files.values()), state)
    rows = []
    for entry in state.entries:
        file = files.get(entry.id)
        rollback_text = entry.rollback_text if file is None else file.rollback_text
        where: State = (
            "unfinished"
            if entry.id in comparison.unfinished
            else "missing"
            if file is None
            else "changed"
            if entry.id in comparison.changed
            else "applied"
        )
        rows.append(
            MigrationStatus(
                id=entry.id,
                state=where,
                reversible=_has_rollback(rollback_text),
                applied_at=entry.applied_at,
                duration_ms=entry.duration_ms,
            )
        )
    rows += [
        MigrationStatus(
            id=id,
            state="unfinished" if id in comparison.unfinished else "pending",
            reversible=files[id].reversible,
            out_of_order=id in comparison.out_of_order,
        )
        for id in comparison.pending
    ]
    listed = {row.id for row in rows}
    rows += [
        # begun, not applied, and its file has gone
        MigrationStatus(id=id, state="unfinished", reversible=False)
        for id in comparison.unfinished
        if id not in listed
    ]
    return Status(database=_name(target), exists=_exists(target), migrations=tuple(rows))


def assert_current(connection: Connection, migrations: Source = None) -> None:
    """Refuse to work on a schema that is not the one this program was written for. Reads only.

    Raises:
        SchemaTooNew: The database has migrations that are not known here.
        SchemaOutOfDate: Migrations are pending, or one was left unfinished.
    """
    files = _loaded(migrations)
    with opened(connection, read_only=True):
        comparison = compare(files, _ledger.read(connection))
    name = _name(connection)
    if comparison.missing:
        raise SchemaTooNew(
            f"{name} has migrations that this program does not know ({', '.join(comparison.missing)}): use a newer "
            "version of the program",
            unknown=comparison.missing,
        )
    pending = tuple(dict.fromkeys([*comparison.unfinished, *comparison.pending]))
    if pending:
        raise SchemaOutOfDate(
            f"{name} lacks migrations that this program needs ({', '.join(pending)}): run `dao migrate`",
            pending=pending,
        )


def mark(target: Target, ids: Iterable[str], migrations: Source = None) -> list[str]:
    """Note that migrations are applied, without running them, and return their ids. One that is, is passed over.

    Raises:
        MigrationError: There is no such migration.
        DatabaseBusy: Another connection kept the lock.
    """
    files = {migration.id: migration for migration in _loaded(migrations)}
    wanted = {resolve(id, files) for id in ids}
    with opened(target) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        marked = [id for id in files if id in wanted and (id not in state.ids or id in state.unfinished)]
        for id in marked:
            if id in state.ids:
                writer.not_applied(id, operation="unmark")
            writer.applied(files[id], duration_ms=None, operation="mark")
    return marked


def unmark(target: Target, ids: Iterable[str]) -> list[str]:
    """Note that migrations are not applied, without undoing them, and return their ids.

    Raises:
        MigrationError: One is not applied, or the database does not exist.
        DatabaseBusy: Another connection kept the lock.
    """
    with opened(_existing(target)) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        known = dict.fromkeys([*state.ids, *state.unfinished])
        unmarked = [resolve(id, known) for id in ids]
        for id in unmarked:
            writer.not_applied(id, operation="unmark")
    return unmarked


def accept(target: Target, ids: Iterable[str], migrations: Source = None) -> list[str]:
    """Note the texts that applied migrations have now as those that were applied, and return the ids. Runs nothing.

    Raises:
        MigrationError: One is not applied, its file has gone, or the database does not exist.
        DatabaseBusy: Another connection kept the lock.
    """
    files = {migration.id: migration for migration in _loaded(migrations)}
    with opened(_existing(target)) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        accepted = [resolve(id, state.ids) for id in ids]
        for id in accepted:
            if id not in files:
                raise LedgerMismatch(
                    f"{id}: its file has gone, so there is no edit to accept; restore it, or `dao unmark {id}`",
                    missing=[id],
                )
            if id in state.unfinished:
                raise LedgerMismatch(
                    f"{id}: it was left unfinished; first say how it ended, `dao mark {id}` (applied) or `dao unmark {id}`",
                    unfinished=[id],
                )
            entry = state.get(id)
            if entry is not None:
                writer.accept(files[id], entry)
    return accepted


def reset(target: Target, migrations: Source = None, *, report: Report | None = None) -> list[Result]:
    """Drop everything, rows included, and apply all migrations again, all in one transaction.

    Raises:
        MigrationError: The database holds tables or views that its migrations did not make. Nothing was changed.
        MigrationFailed, CheckFailed, DatabaseBusy: As `apply`; nothing was changed.
    """
    files = _loaded(migrations)
    with opened(target, report=report) as connection:

        def decide(state: Ledger) -> list[Step]:
            foreign = foreign_objects(connection, files, state)
            if foreign:
                raise MigrationError(
                    f"{_name(connection)} holds what its migrations did not make ({', '.join(foreign)}): it is not for "
                    "this command to drop. Nothing was changed"
                )
            drop_all(connection)  # in the run's transaction
            return to_apply(files, Ledger())

        return run(connection, decide, report=report)


def _loaded(migrations: Source) -> Sequence[Migration]:
    if migrations is None or isinstance(migrations, str | os.PathLike):
        return load(migrations)
    return migrations


def _has_rollback(text: str | None) -> bool:
    return text is not None and has_statement(text)


# ---------------------------------------------------------------- the database


def _state(target: Target) -> Ledger:
    """Return the ledger of a database that may not exist: then an empty one."""
    if not _exists(target):
        return Ledger()
    with opened(target, read_only=True) as connection:
        return _ledger.read(connection)


def _existing(target: Target) -> Target:
    if not _exists(target):
        raise MigrationError(f"{_name(target)} does not exist: there is nothing to change. `dao migrate` creates it")
    return target


def _exists(target: Target) -> bool:
    if isinstance(target, Connection):
        return True
    parsed = url.parse(target) if isinstance(target, str) else target
    return not parsed.is_memory and os.path.exists(parsed.path)


def _name(target: Target) -> str:
    if isinstance(target, Connection):
        return sqlite.file_of(target) or url.MEMORY
    parsed = url.parse(target) if isinstance(target, str) else target
    return parsed.path
