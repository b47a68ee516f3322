"""The verbs that change the ledger and run nothing: for what was done by hand, or by another tool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from dao.errors import LedgerMismatch, MigrationError, MigrationFileError
from dao.migrate.database import Target, alone, broken, existing, migrations_for, opened, schema_made_by, schema_of
from dao.migrate.ledger import drift, sets
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.comparison import compare, refuse, refuse_running
from dao.migrate.ledger.expected import applied
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema.model import differences
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import id_of
from dao.migrate.values import Difference

if TYPE_CHECKING:
    from dao.migrate.events import Report

__all__ = ["Unfinished", "accept", "mark", "resolve", "unfinished", "unmark"]


def mark(
    target: Target,
    ids: Iterable[str],
    migrations: Source = None,
    *,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[str]:
    """Note that migrations are applied, without running them, and return their ids. One that is, is passed over.

    `prepare`, `lock_timeout` and `report` are as in `apply`, here and below.

    Raises:
        MigrationError: There is no such migration, or the database does not exist.
        LedgerMismatch: The ledger has one in another set.
        DatabaseBusy: Another migrator or connection kept its lock.
    """
    files = migrations_for(target, migrations)
    known = [migration.id for migration in files]
    # before an id is wrong: what is known may be of another database
    with preparing(prepare), alone(existing(target, "mark in it"), lock_timeout, report) as connection:
        state = ledger.read(connection)
        comparison = compare(files, state)
        wanted = {comparison.sets.find(id, known) for id in ids}
        if elsewhere := wanted & comparison.misplaced.keys():
            refuse(comparison.only_misplaced(elsewhere), state)
        wanted -= set(state.ids) - set(state.unfinished)
        marked = [migration for migration in files if migration.id in wanted]
        if not marked:
            return []
        writer = Writer(connection, files)
        for migration in marked:
            if migration.id in state.ids:
                writer.not_applied(migration.id, operation="unmark")
            writer.mark(migration, files, operation="mark")
        drift.record(connection, files, drift.Moment(state))
    return [migration.id for migration in marked]


def unmark(
    target: Target,
    ids: Iterable[str],
    migrations: Source = None,
    *,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[str]:
    """Note that migrations are not applied, without undoing them, and return their ids.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: One is not applied, or the database does not exist.
        DatabaseBusy: Another migrator or connection kept its lock.
    """
    with preparing(prepare), alone(existing(target, "unmark"), lock_timeout, report) as connection:
        files = _readable(target, migrations)
        writer = Writer(connection, files)
        known = dict.fromkeys([*writer.before.ids, *writer.before.unfinished])
        unmarked = [writer.sets.find(id, known, kind="applied") for id in ids]
        for id in unmarked:
            writer.not_applied(id, operation="unmark")
        drift.record(connection, files, drift.Moment(writer.before))
    return unmarked


def accept(
    target: Target,
    ids: Iterable[str],
    migrations: Source = None,
    *,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[str]:
    """Note the texts that applied migrations have now as those that were applied, and return the ids. Runs nothing.

    One whose file was renamed is noted under its new id, at its old time; it may be named by either. If that id is
    another applied one's, which was renamed as well, so is that.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: One is not applied, its file has gone, or the database does not exist.
        LedgerMismatch: Its file has gone, or several hold the text that was applied; or it was left unfinished.
        DatabaseBusy: Another migrator or connection kept its lock.
    """
    migrations = migrations_for(target, migrations)
    files = {migration.id: migration for migration in migrations}
    with preparing(prepare), alone(existing(target, "accept"), lock_timeout, report) as connection:
        writer = Writer(connection, migrations)
        state = writer.before
        known = dict.fromkeys([*state.ids, *state.unfinished])
        comparison = compare(migrations, state)
        renamed = comparison.renamed
        old = {new: id for id, new in renamed.items()}
        accepted: dict[str, None] = {}
        for id in ids:
            # both names may begin with it
            given = id_of(id)
            names = [name for name in [*known, *old] if name not in renamed or not renamed[name].startswith(given)]
            found = comparison.sets.find(id, dict.fromkeys(names), kind="applied")
            one: str | None = found if found in old else renamed.get(found, found)
            while one is not None and one not in accepted:
                accepted[one] = None
                one = renamed.get(one)
        for id in accepted:
            if id not in files:
                refuse(attrs.evolve(comparison, changed=(), missing=(id,), out_of_order=(), unfinished=()), state)
            if old.get(id, id) in state.unfinished:
                told = comparison.sets.told
                raise LedgerMismatch(
                    f"{told(id)}: it was left unfinished; first say how it ended, with `dao migrate resolve "
                    f"{told(id)}`",
                    unfinished=[id],
                )
        writer.rename({old[id]: id for id in accepted if id in old})
        for id in accepted:
            if (entry := state.get(old.get(id, id))) is not None:
                detail = f"renamed from {old[id]}" if id in old else None
                writer.note(files[id], entry, operation="accept", detail=detail)
        drift.record(connection, migrations, drift.Moment(state))
    return list(accepted)


def _readable(target: Target, migrations: Source) -> Sequence[Migration]:
    """Return the files' migrations, none if they cannot be read: a migration is forgotten without its folder, too."""
    try:
        return migrations_for(target, migrations)
    except MigrationFileError:
        return ()


# ---------------------------------------------------------------- unfinished ones


@attrs.frozen(kw_only=True)
class Unfinished:
    """A migration in the middle of which a run ended, outside of a transaction, and how the live schema differs.

    `from_applied`: from the schema with the migration applied; `from_rolled_back`: from the one without it. None if
    that cannot be told, because the migrations cannot be replayed. `broken` is what in the schema does not work, as an
    index whose building was broken off. `set` is that of the migration, None if it is not known.
    """

    id: str
    doing: str
    from_applied: tuple[Difference, ...] | None
    from_rolled_back: tuple[Difference, ...] | None
    broken: tuple[str, ...] = ()
    set: str | None = None


def unfinished(target: Target, id: str, migrations: Source = None, *, prepare: Prepare | None = None) -> Unfinished:
    """Return how the live schema differs from both ends of an unfinished migration. Reads only.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: It is not unfinished, or the database does not exist.
        DatabaseBusy: The process that is at it still lives.
    """
    files = migrations_for(target, migrations)
    with preparing(prepare), opened(existing(target, "resolve"), read_only=True) as connection:
        state = ledger.read(connection)
        refuse_running(state)
        its = sets.of(files, state)
        id = its.find(id, state.unfinished, kind="unfinished")
        live, unusable = schema_of(connection), tuple(broken(connection))

        def versus(scripts: list[tuple[str, str]]) -> tuple[Difference, ...] | None:
            try:
                return tuple(differences(schema_made_by(connection, scripts), live))
            except MigrationError:
                return None

        others = attrs.evolve(state, entries=tuple(entry for entry in state.entries if entry.id != id))
        scripts = applied(files, others)
        own = [(entry.id, entry.text or "") for entry in state.entries if entry.id == id]
        own = own or [(file.id, file.up.text) for file in files if file.id == id]
        from_applied = versus([*scripts, *own]) if own else None
        from_rolled_back = versus(scripts)
    return Unfinished(
        id=id,
        doing=state.unfinished[id],
        from_applied=from_applied,
        from_rolled_back=from_rolled_back,
        broken=unusable,
        set=its.set_of(id),
    )


def resolve(
    target: Target,
    id: str,
    outcome: Literal["applied", "rolled back"],
    migrations: Source = None,
    *,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> str:
    """Note how an unfinished migration ended, after somebody has finished or undone it by hand, and return its id.

    `prepare` is as in `apply`.

    Raises:
        DatabaseBusy: As `mark`.
        MigrationError: It is not unfinished, its file has gone, or the database does not exist.
    """
    files = migrations_for(target, migrations)
    with preparing(prepare), alone(existing(target, "resolve"), lock_timeout, report) as connection:
        writer = Writer(connection, files)
        state = writer.before
        id = writer.sets.find(id, state.unfinished, kind="unfinished")
        file = next((migration for migration in files if migration.id == id), None)
        entry = state.get(id)
        if outcome == "rolled back":
            writer.not_applied(id, operation="resolve", detail=outcome)
        elif file is None:
            raise LedgerMismatch(
                f"{writer.sets.told(id)}: its file has gone, so there is no text to note; restore it, or say "
                "--rolled-back if it was undone",
                missing=[id],
            )
        elif entry is None:
            writer.applied(file, duration_ms=None, operation="resolve", detail=outcome)
        else:
            # its rollback did not come to its end: it keeps its place
            writer.note(file, entry, operation="resolve", detail=outcome)
        drift.record(connection, files, drift.Moment(state))
    return id
