"""Files compared with the ledger: where they do not agree, and which scripts are to run. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from dao import url
from dao.errors import DatabaseBusy, InvalidValue, Irreversible, LedgerMismatch, MigrationError
from dao.migrate.ledger.entries import Entry, Ledger
from dao.migrate.scripts.ids import normal, sort_key
from dao.migrate.scripts.migration import Migration, Script, from_texts
from dao.migrate.scripts.statements import has_statement
from dao.migrate.values import Step
from dao.text import visible

__all__ = [
    "Comparison",
    "compare",
    "find_id",
    "other_folder",
    "refuse",
    "refuse_running",
    "to_apply",
    "to_roll_back",
    "up_to",
]


@attrs.frozen(kw_only=True)
class Comparison:
    """Files and ledger side by side, as migration ids.

    `pending` is in the order of application, the others in that of the ledger. `changed`: applied, and the file is
    another one now. `missing`: applied, and the file has gone. `out_of_order`: pending, but sorts before an applied
    one. `unfinished`: a script that cannot run in a transaction did not come to its end. `alike`: of the missing and
    changed ones those whose text the ledger has and other files hold that are pending or changed, and which.
    """

    pending: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    out_of_order: tuple[str, ...]
    unfinished: tuple[str, ...]
    alike: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)

    @property
    def renamed(self) -> dict[str, str]:
        """The new ids of those whose files have only got another name; not where it may be any of several."""
        new = [id for ids in self.alike.values() for id in ids]
        found = {id: ids[0] for id, ids in self.alike.items() if len(ids) == 1 and new.count(ids[0]) == 1}
        # a name that is taken is free once its own migration has another
        while stuck := [id for id, its in found.items() if its in self.changed and its not in found]:
            for id in stuck:
                del found[id]
        return found


def compare(migrations: Sequence[Migration], ledger: Ledger) -> Comparison:
    """Compare the files with the ledger."""
    files = {migration.id: migration for migration in migrations}
    applied = set(ledger.ids)
    pending = [migration.id for migration in migrations if migration.id not in applied]
    # in the folder's order: a dependency may have moved a migration
    place = {id: number for number, id in enumerate(files)}
    last = max((place[id] for id in applied if id in place), default=-1)
    missing = [entry for entry in ledger.entries if entry.id not in files]
    changed = [entry for entry in ledger.entries if entry.id in files and entry.differs_from(files[entry.id])]
    # those whose text has gone from under their name
    gone = [*missing, *(entry for entry in changed if entry.checksum != files[entry.id].up.checksum)]
    by_text: dict[str | None, list[str]] = {}
    for id in [*pending, *(entry.id for entry in gone if entry.id in files)] if gone else ():
        by_text.setdefault(files[id].up.checksum, []).append(id)
    return Comparison(
        pending=tuple(pending),
        changed=tuple(entry.id for entry in changed),
        missing=tuple(entry.id for entry in missing),
        out_of_order=tuple(id for id in pending if place[id] < last),
        unfinished=tuple(sorted(ledger.unfinished, key=sort_key)),
        alike={entry.id: tuple(by_text[entry.checksum]) for entry in gone if entry.checksum in by_text},
    )


def find_id(id: str, known: Iterable[str], *, kind: str = "in the folder") -> str:
    """Return the migration id that is meant: `id` itself, or the only one that begins with it.

    `kind` says in a message what those are that are known: they are all "in the folder", or all "applied".

    Raises:
        MigrationError: None does, or several do.
    """
    id, ids = normal(id), list(known)
    id = id if id in ids else url.cleaned(id)
    if id in ids:
        return id
    matches = [other for other in ids if id and other.startswith(id)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise MigrationError(f"{id!r} may be any of {visible(', '.join(matches), line=True)}: give more of the id")
    listed = visible(", ".join(ids), line=True) or "none"
    raise MigrationError(f"no migration {id!r} is {kind}; those that are: {listed}")


def up_to(id: str, migrations: Sequence[Migration]) -> set[str]:
    """Return the ids of the migrations up to and with the one that is meant.

    Raises:
        MigrationError: As `find_id`.
    """
    ids = [migration.id for migration in migrations]
    return set(ids[: ids.index(find_id(id, ids)) + 1])


def to_apply(
    migrations: Sequence[Migration],
    ledger: Ledger,
    *,
    to: str | None = None,
    steps: int | None = None,
    allow_out_of_order: bool = False,
) -> list[Step]:
    """Return the scripts to run so that the pending migrations are applied: all, up to and with `to`, or so many.

    Raises:
        LedgerMismatch: The ledger and the files do not agree.
        MigrationError: `to` is no migration.
        InvalidValue: `steps` is negative.
    """
    comparison = compare(migrations, ledger)
    refuse(comparison, ledger, allow_out_of_order=allow_out_of_order)
    wanted = set(comparison.pending)
    if to is not None:
        wanted &= up_to(to, migrations)
    pending = [migration for migration in migrations if migration.id in wanted]
    return [Step(migration=migration, direction="apply") for migration in pending[: _number(steps)]]


def to_roll_back(
    migrations: Sequence[Migration],
    ledger: Ledger,
    *,
    to: str | None = None,
    steps: int | None = 1,
    allow_out_of_order: bool = False,
    redoing: bool = False,
) -> list[Step]:
    """Return the scripts to run so that applied migrations are undone, the latest first: so many, or all after `to`.

    `steps=None` without `to` means all; `to` goes before `steps`. When `redoing`, a migration that held no statement
    when it was applied has nothing to undo, and files that were edited since are no obstacle: they are applied next
    as they are.

    Raises:
        Irreversible: One of them has no rollback script.
        LedgerMismatch: The ledger and the files do not agree.
        MigrationError: `to` is not applied.
        InvalidValue: `steps` is negative.
    """
    latest_first = ledger.entries[::-1]
    if to is not None:
        ids = [entry.id for entry in latest_first]
        undone = latest_first[: ids.index(find_id(to, ledger.ids, kind="applied"))]
    else:
        undone = latest_first[: _number(steps)]
    files = {migration.id: migration for migration in migrations}
    comparison = compare(migrations, ledger)
    # a file that has gone is no obstacle where the ledger has its text
    kept = {entry.id for entry in undone if entry.text is not None}
    edited = {entry.id for entry in undone} if redoing else set()
    comparison = attrs.evolve(
        comparison,
        missing=tuple(id for id in comparison.missing if id not in kept),
        changed=tuple(id for id in comparison.changed if id not in edited),
    )
    refuse(comparison, ledger, allow_out_of_order=allow_out_of_order)
    return [_undoing(entry, files.get(entry.id), redoing=redoing) for entry in undone]


def _undoing(entry: Entry, file: Migration | None, *, redoing: bool) -> Step:
    migration = file or from_texts(entry.id, entry.text or "", entry.rollback_text)
    if redoing and file is not None and entry.text is not None and not has_statement(entry.text):
        migration = attrs.evolve(migration, down=Script(path=None, text=""))
    elif not migration.reversible:
        where = "it has no rollback script" if migration.down is None else "its rollback script holds no statement"
        raise Irreversible(
            f"{entry.id} cannot be rolled back: {where}. Nothing was changed; write a new migration that undoes it, or "
            "restore a snapshot or backup (what was written since is lost). If it left nothing that has to be undone, "
            f"a rollback script of `SELECT 1;` says so, once `dao accept {entry.id}` has noted it",
            migration=entry.id,
        )
    return Step(migration=migration, direction="rollback")


def other_folder(comparison: Comparison, ledger: Ledger) -> str | None:
    """Return a question about the folder if no applied migration is as its file has it; None if one is, or is alone.

    The folders of the two engines have the same ids. Which one it is cannot be told by the texts: many run on both.
    """
    known = [entry.id for entry in ledger.entries if entry.checksum is not None]
    if len(known) < _SEVERAL or not set(known) <= set(comparison.changed) or comparison.alike:
        return None
    return (
        f"None of the {len(known)} applied migrations is as its file has it: is this the folder that is meant? That of "
        "another engine has the same ids. --migrations or DATABASE_MIGRATIONS names the right one; `dao accept` would "
        "note the wrong texts"
    )


_SEVERAL = 2
_UNFINISHED = (
    "{doing} it did not come to its end{by}, and it does not run in a transaction, so part of it may be done. Look at "
    "the database, finish or undo it by hand; `dao migrate resolve {id}` shows what differs, and with --applied or "
    "--rolled-back notes which it is"
)
_CHANGED = (
    "its files have changed since it was applied. Put them back and write a new migration; or, if the edit is "
    "deliberate and the database needs nothing, `dao accept {id}`"
)
_WRITTEN = (
    "it held no statement when it was applied, so what its files hold now has not run. `dao unmark {id}` makes it "
    "pending, and `dao migrate` runs it; or put the files back"
)
_MISSING = (
    "it is applied, and its file has gone. Restore the file (another branch, an older checkout?). If the file has "
    "another name now, `dao mark NAME` and `dao unmark {id}` note that and run nothing. `dao unmark {id}` alone "
    "forgets it: what it made stays in the database"
)
_RENAMED = (
    "it is applied, and its file is named {new} now. If that is meant, `dao accept {new}` notes it and runs nothing"
)
_MOVED = (
    "it is applied, and its text is in {new} now, while its own file has another. If the files got other numbers, "
    "`dao accept {new}` notes that and runs nothing; if not, put its file back"
)
_ALIKE = (
    "it is applied, its file has gone, and its text is that of {new}, so that it cannot be told which file is "
    "which. Restore the file, or say which it is now with `dao mark NAME` and `dao unmark {id}`, which run nothing"
)
_OUT_OF_ORDER = (
    "it is pending, but comes before migrations that are applied. Give it a later timestamp; or, if the order does not "
    "matter, --allow-out-of-order"
)


def refuse(comparison: Comparison, ledger: Ledger, *, allow_out_of_order: bool = False) -> None:
    """Refuse to go on where ledger and files do not agree.

    Raises:
        DatabaseBusy: Another process is in the middle of a script that cannot run in a transaction.
        LedgerMismatch: They do not; the message says which and what to do.
    """
    refuse_running(ledger)
    out_of_order = () if allow_out_of_order else comparison.out_of_order
    # ids whose text is applied already: nothing must advise to apply it
    once_more = {id for ids in comparison.alike.values() for id in ids}
    empty = {entry.id for entry in ledger.entries if entry.text is not None and not has_statement(entry.text)}
    problems = [
        *(f"{id}: {_unfinished(id, ledger)}" for id in comparison.unfinished),
        *(f"{id}: {_gone(id, comparison, _MOVED, _WRITTEN if id in empty else _CHANGED)}" for id in comparison.changed),
        *(f"{id}: {_gone(id, comparison, _RENAMED, _MISSING)}" for id in comparison.missing),
        *(f"{id}: {_OUT_OF_ORDER}" for id in out_of_order if id not in once_more),
    ]
    if problems:
        error = LedgerMismatch(
            f"the migrations and {ledger.database} do not agree; nothing was changed",
            details=problems,
            changed=comparison.changed,
            missing=comparison.missing,
            out_of_order=out_of_order,
            unfinished=comparison.unfinished,
        )
        error.advice = other_folder(comparison, ledger)
        raise error


def refuse_running(ledger: Ledger) -> None:
    """Refuse to go on while another process is in the middle of a script that cannot run in a transaction.

    Raises:
        DatabaseBusy: One is.
    """
    if ledger.running is not None:
        raise DatabaseBusy(f"{ledger.database}: {ledger.doing}: wait until it has ended")


def _unfinished(id: str, ledger: Ledger) -> str:
    by = f" (it was {ledger.begun_by[id]})" if id in ledger.begun_by else ""
    return _UNFINISHED.format(id=id, doing=ledger.unfinished[id], by=by)


def _gone(id: str, comparison: Comparison, renamed: str, otherwise: str) -> str:
    if id in comparison.renamed:
        return renamed.format(new=comparison.renamed[id])
    if id in comparison.alike and id in comparison.missing:
        return _ALIKE.format(id=id, new=", ".join(comparison.alike[id]))
    return otherwise.format(id=id)


def _number(steps: int | None) -> int | None:
    if steps is not None and (isinstance(steps, bool) or steps < 0):
        raise InvalidValue(f"steps must be a whole number from 0, got {steps!r}")
    return steps
