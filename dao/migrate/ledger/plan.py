"""Which scripts are to run, by what files and ledger say. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from dao.errors import InvalidValue, Irreversible, LedgerMismatch
from dao.migrate.ledger.comparison import Comparison, compare, refuse
from dao.migrate.ledger.entries import Entry, Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.scripts.directives import read as read_directives
from dao.migrate.scripts.migration import Migration, Script, from_texts
from dao.migrate.scripts.sets import id_of, parted
from dao.migrate.scripts.statements import has_statement
from dao.migrate.values import Step

__all__ = ["latest", "needed_by", "to_apply", "to_roll_back", "up_to"]


def up_to(id: str, migrations: Sequence[Migration], its: Sets, *, kind: str = "in the folder") -> set[str]:
    """Return the ids of the migrations up to and with the one that is meant.

    Raises:
        MigrationError: As `Sets.find`, which takes `kind`, too.
    """
    ids = [migration.id for migration in migrations]
    return set(ids[: ids.index(its.find(id, ids, kind=kind)) + 1])


def to_apply(
    migrations: Sequence[Migration],
    ledger: Ledger,
    *,
    set: str | None = None,
    to: str | None = None,
    steps: int | None = None,
    allow_out_of_order: bool = False,
) -> list[Step]:
    """Return the scripts to run so that the pending migrations are applied: all, up to and with `to`, or so many.

    They are of all sets, or of one of these (`set`), whose files alone count then.

    Raises:
        LedgerMismatch: The ledger and the files do not agree, or one of them depends on what is not applied.
        MigrationError: `to` is no migration, or no set has this name.
        InvalidValue: `steps` is negative.
    """
    comparison = compare(migrations, ledger).of_set(set)
    refuse(comparison, ledger, allow_out_of_order=allow_out_of_order)
    its = comparison.sets
    wanted = {*comparison.pending}
    if to is not None:
        files = [one for one in migrations if set in {None, one.set, its.called[one.set]}]
        wanted &= up_to(to, files, its, kind="in the folder" if set is None else f"in the folder of {set}")
    pending = [migration for migration in migrations if migration.id in wanted][: _number(steps)]
    _refuse_needs(pending, ledger, its)
    return [Step(migration=_in(its.called[one.set], one), direction="apply", name=its.told(one.id)) for one in pending]


def _in(set: str | None, migration: Migration) -> Migration:
    """Return a migration as one of a set by its name in the ledger."""
    return migration if migration.set == set else attrs.evolve(migration, set=set)


def _refuse_needs(pending: Sequence[Migration], ledger: Ledger, its: Sets) -> None:
    """Refuse migrations that depend on one that is neither applied, to its end, nor among them: it is of another set.

    Raises:
        LedgerMismatch: They do.
    """
    known = {*ledger.ids, *(migration.id for migration in pending)} - ledger.unfinished.keys()

    def why(name: str) -> str:
        if id_of(name) in ledger.unfinished:
            return f"a run ended in the middle of that: `dao migrate resolve {name}` says how it ended"
        if id_of(name) in its.files:
            return "which is not applied, and not of this set: apply that first, or all of them, without --set"
        return (
            f"which is not applied, and the set {parted(name)[0]} is not named: name that set, too (--migrations, "
            "DATABASE_MIGRATIONS), or apply it first"
        )

    lacking = {
        f"{its.told(migration.id)}: it depends on {name}, {why(name)}": migration.id
        for migration in pending
        for name in migration.depends
        if id_of(name) not in known
    }
    if lacking:
        raise LedgerMismatch(
            f"{ledger.database} lacks what the migrations depend on; nothing was changed",
            details=lacking,
            lacking=tuple(dict.fromkeys(lacking.values())),
        )


def to_roll_back(
    migrations: Sequence[Migration],
    ledger: Ledger,
    *,
    to: str | None = None,
    steps: int | None = 1,
    allow_out_of_order: bool = False,
    set: str | None = None,
    redoing: bool = False,
) -> list[Step]:
    """Return the scripts to run so that applied migrations are undone, the latest first: so many, or all after `to`.

    They are of the sets that have files here, or of one of these (`set`), whose files alone count then. `steps=None`
    without `to` means all; `to` goes before `steps`. When `redoing`, a migration that held no statement when it was
    applied has nothing to undo, and files that were edited since are no obstacle: they are applied next as they are.

    Raises:
        Irreversible: One of them has no rollback script.
        LedgerMismatch: The ledger and the files do not agree, or what stays applied depends on one of them.
        MigrationError: `to` is not applied, or no set has this name.
        InvalidValue: `steps` is negative.
    """
    comparison = compare(migrations, ledger).of_set(set)
    latest_first = latest(comparison, ledger, set)
    if to is not None:
        ids = [entry.id for entry in latest_first]
        kind = "applied" if set is None else f"among what is applied of {set}"
        undone = latest_first[: ids.index(comparison.sets.find(to, reversed(ids), kind=kind))]
    else:
        undone = latest_first[: _number(steps)]
    files = {migration.id: migration for migration in migrations}
    # a file that has gone is no obstacle where the ledger has its text
    kept = {entry.id for entry in undone if entry.text is not None}
    edited = {entry.id for entry in undone if redoing}
    comparison = attrs.evolve(
        comparison,
        missing=tuple(id for id in comparison.missing if id not in kept),
        changed=tuple(id for id in comparison.changed if id not in edited or id in comparison.misplaced),
    )
    refuse(comparison, ledger, allow_out_of_order=allow_out_of_order)
    _refuse_needed(undone, files, ledger, comparison)
    return [_undoing(entry, files.get(entry.id), comparison.sets, redoing=redoing) for entry in undone]


def latest(comparison: Comparison, ledger: Ledger, set: str | None = None) -> tuple[Entry, ...]:
    """Return what is applied of the sets that have files here, or of one of them, the latest first."""
    its = comparison.sets
    wanted = its.called.get(set, set)
    entries = [entry for entry in ledger.entries if its.is_named(entry.id)]
    return tuple(entry for entry in reversed(entries) if set is None or its.by_id[entry.id] == wanted)


def _refuse_needed(
    undone: Sequence[Entry], files: Mapping[str, Migration], ledger: Ledger, comparison: Comparison
) -> None:
    """Refuse to undo what a migration that stays applied depends on, of whichever set: the ledger has their texts.

    Raises:
        LedgerMismatch: One does.
    """
    gone = {entry.id for entry in undone}
    stay = [entry for entry in ledger.entries if entry.id not in gone] if undone else []
    needed = {id: by for id, by in needed_by(stay, files).items() if id in gone}
    if needed:
        told = comparison.sets.told
        raise LedgerMismatch(
            f"applied migrations of {ledger.database} depend on what was to be undone; nothing was changed",
            details=[
                f"{told(id)}: {told(by)} depends on it, and stays applied: roll that back first, or with it"
                for id, by in needed.items()
            ],
            needed=tuple(needed),
        )


def needed_by(entries: Iterable[Entry], files: Mapping[str, Migration]) -> dict[str, str]:
    """Return the ids that applied migrations depend on, each with one that does: by their texts, or their files."""
    return {
        id_of(name): entry.id
        for entry in entries
        for name in (
            files[entry.id].depends
            if entry.text is None and entry.id in files
            else read_directives(entry.text or "", Path(entry.id)).depends
        )
    }


def _undoing(entry: Entry, file: Migration | None, its: Sets, *, redoing: bool) -> Step:
    # what is about to be replaced may have been edited: that is what redo is for; or its rollback was written since
    is_kept = redoing and entry.text is not None and has_statement(entry.rollback_text or "")
    applied = file if file is not None and not is_kept else from_texts(entry.id, entry.text or "", entry.rollback_text)
    migration = _in(its.by_id[entry.id], applied)
    if redoing and file is not None and entry.text is not None and not has_statement(entry.text):
        migration = attrs.evolve(migration, down=Script(path=None, text=""))
    elif not migration.reversible:
        where = "it has no rollback script" if migration.down is None else "its rollback script holds no statement"
        raise Irreversible(
            f"{its.told(entry.id)} cannot be rolled back: {where}. Nothing was changed; write a new migration that "
            "undoes it, or restore a snapshot or backup (what was written since is lost). If it left nothing that has "
            f"to be undone, a rollback script of `SELECT 1;` says so, once `dao accept {its.told(entry.id)}` has noted "
            "it",
            migration=entry.id,
        )
    return Step(migration=migration, direction="rollback", name=its.told(entry.id))


def _number(steps: int | None) -> int | None:
    if steps is not None and (isinstance(steps, bool) or steps < 0):
        raise InvalidValue(f"steps must be a whole number from 0, got {steps!r}")
    return steps
