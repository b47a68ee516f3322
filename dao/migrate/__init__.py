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

from collections.abc import Iterable
from typing import Literal

import attrs

from dao.errors import LedgerMismatch, MigrationError
from dao.migrate import ledger as _ledger
from dao.migrate.events import Event, Finished, Notice, Report, Result, Started, Waiting
from dao.migrate.files import Migration, Source, default_folder, from_texts, has_statement, load, loaded, new
from dao.migrate.ledger import Ledger
from dao.migrate.plan import Comparison, Direction, Step, compare, refuse, resolve, to_apply, to_roll_back
from dao.migrate.reset import drop_all, foreign_objects
from dao.migrate.runner import run
from dao.migrate.status import MigrationStatus, State, Status, assert_current, status
from dao.migrate.target import Target, exclusive, existing, exists, ledger_of, name_of, opened

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
    files = loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_apply(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    if not exists(target):
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
    files = loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_roll_back(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    with opened(existing(target), report=report) as connection:
        return run(connection, decide, each=each, report=report) if decide(_ledger.read(connection)) else []


def redo(target: Target, migrations: Source = None, *, steps: int = 1, report: Report | None = None) -> list[Result]:
    """Undo the latest migrations and apply them again, in one transaction: for one that is being written.

    The rollback comes from the ledger's text, as it was applied, so the files may have changed since; if there was none
    then, from the file.

    Raises:
        Irreversible, LedgerMismatch, MigrationFailed, CheckFailed, DatabaseBusy: As `rollback`.
    """
    files = loaded(migrations)

    def decide(state: Ledger) -> list[Step]:
        again = {entry.id for entry in state.entries[len(state.entries) - min(steps, len(state.entries)) :]}
        # what is about to be replaced may have been edited: that is what redo is for
        applied = [_as_applied(migration, state) if migration.id in again else migration for migration in files]
        back = to_roll_back(applied, state, steps=steps, redoing=True)
        missing = again - {migration.id for migration in files}
        if missing:
            refuse(attrs.evolve(compare(files, state), missing=tuple(sorted(missing)), changed=()), state)
        forth = [
            Step(id=migration.id, direction="apply", migration=migration, text=migration.text, path=migration.path)
            for migration in files
            if migration.id in again
        ]
        return [*back, *forth]

    with opened(existing(target), report=report) as connection:
        return run(connection, decide, report=report) if decide(_ledger.read(connection)) else []


def _as_applied(migration: Migration, state: Ledger) -> Migration:
    entry = state.get(migration.id)
    if entry is None or entry.text is None:
        return migration
    if entry.rollback_text is None or not has_statement(entry.rollback_text):
        return migration  # its rollback was written since
    return from_texts(migration.id, entry.text, entry.rollback_text, path=migration.path)


def plan(
    target: Target,
    migrations: Source = None,
    *,
    direction: Direction = "apply",
    to: str | None = None,
    steps: int | Literal["default"] | None = "default",
    allow_out_of_order: bool = False,
) -> list[Step]:
    """Return the steps that `apply` or `rollback` would run with these arguments, in order. Reads only, creates nothing.

    Raises:
        MigrationFileError, LedgerMismatch, Irreversible, MigrationError: As `apply` and `rollback`.
    """
    files = loaded(migrations)
    state = ledger_of(target)
    if steps == "default":
        steps = None if direction == "apply" else 1
    if direction == "apply":
        return to_apply(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)
    return to_roll_back(files, state, to=to, steps=steps, allow_out_of_order=allow_out_of_order)


def mark(target: Target, ids: Iterable[str], migrations: Source = None) -> list[str]:
    """Note that migrations are applied, without running them, and return their ids. One that is, is passed over.

    Raises:
        MigrationError: There is no such migration, or the database does not exist.
        DatabaseBusy: Another connection kept the lock.
    """
    files = {migration.id: migration for migration in loaded(migrations)}
    wanted = {resolve(id, files) for id in ids}
    place = {id: number for number, id in enumerate(files)}
    with opened(existing(target)) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        marked = [id for id in files if id in wanted and (id not in state.ids or id in state.unfinished)]
        for id in marked:
            if id in state.ids:
                writer.not_applied(id, operation="unmark")
            # its place among the applied ones is that in the folder, so that a rollback does not begin with it
            later = [entry.applied_at for entry in state.entries if place.get(entry.id, -1) > place[id]]
            writer.applied(files[id], duration_ms=None, operation="mark", before=min(later, default=None))
    return marked


def unmark(target: Target, ids: Iterable[str]) -> list[str]:
    """Note that migrations are not applied, without undoing them, and return their ids.

    Raises:
        MigrationError: One is not applied, or the database does not exist.
        DatabaseBusy: Another connection kept the lock.
    """
    with opened(existing(target)) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        known = dict.fromkeys([*state.ids, *state.unfinished])
        unmarked = [resolve(id, known, kind="applied") for id in ids]
        for id in unmarked:
            writer.not_applied(id, operation="unmark")
    return unmarked


def accept(target: Target, ids: Iterable[str], migrations: Source = None) -> list[str]:
    """Note the texts that applied migrations have now as those that were applied, and return the ids. Runs nothing.

    Raises:
        MigrationError: One is not applied, its file has gone, or the database does not exist.
        DatabaseBusy: Another connection kept the lock.
    """
    files = {migration.id: migration for migration in loaded(migrations)}
    with opened(existing(target)) as connection, exclusive(connection):
        writer = _ledger.Writer(connection)
        state = _ledger.read(connection)
        known = dict.fromkeys([*state.ids, *state.unfinished])
        accepted = [resolve(id, known, kind="applied") for id in ids]
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
        MigrationError: The database holds tables or views that its migrations did not make, or a migration does not run
            in a transaction. Nothing was changed.
        MigrationFailed, CheckFailed, DatabaseBusy: As `apply`; nothing was changed.
    """
    files = loaded(migrations)
    with opened(target, report=report) as connection:

        def decide(state: Ledger) -> list[Step]:
            foreign = foreign_objects(connection, files, state)
            if foreign:
                raise MigrationError(
                    f"{name_of(connection)} holds what its migrations did not make ({', '.join(foreign)}): it is not for "
                    "this command to drop. Nothing was changed; drop that first, or the whole file, if that is what you want"
                )
            alone = [migration.id for migration in files if not migration.transactional]
            if alone:
                raise MigrationError(
                    f"these do not run in a transaction ({', '.join(alone)}), so a reset could fail after everything was "
                    f"dropped. Nothing was changed; delete {name_of(connection)} and migrate instead"
                )
            drop_all(connection)  # in the run's transaction
            return to_apply(files, Ledger())

        return run(connection, decide, report=report)
