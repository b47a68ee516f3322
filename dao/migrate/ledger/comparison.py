"""Files compared with the ledger: where they do not agree, and what then to do. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from dao.errors import DatabaseBusy, LedgerMismatch
from dao.migrate.ledger import sets
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import check_named
from dao.migrate.scripts.statements import has_statement

__all__ = ["Comparison", "compare", "other_folder", "refuse", "refuse_running"]


@attrs.frozen(kw_only=True)
class Comparison:
    """Files and ledger side by side, as migration ids.

    `pending` is in the order of application, the others in that of the ledger. `changed`: applied, and the file is
    another one now. `missing`: applied, and the file has gone. `out_of_order`: pending, but sorts before an applied
    one of its set. `unfinished`: a script that cannot run in a transaction did not come to its end. `alike`: of the
    missing and changed ones those whose text the ledger has and other files hold that are pending or changed, and
    which. `misplaced`: those of the changed ones that the ledger has in another set, and in which. `others`: those of
    sets that have no files here; the rest is not about them. `sets` are those of all of them.
    """

    pending: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    out_of_order: tuple[str, ...]
    unfinished: tuple[str, ...]
    alike: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)
    misplaced: Mapping[str, str] = attrs.Factory(dict)
    others: tuple[str, ...] = ()
    sets: Sets = attrs.field(kw_only=True)

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

    def of_set(self, name: str | None) -> Comparison:
        """Return what is to be said of one set alone; of all, if that is None.

        Raises:
            MigrationError: No set that is named has this name.
        """
        if name is None:
            return self
        check_named(name, [*self.sets.called.values(), *self.sets.called])
        wanted = self.sets.called.get(name, name)

        def concerns(id: str) -> bool:
            # a file that is in another set now, perhaps under another name, is a matter of both
            now = (self.sets.files.get(one) for one in (id, *self.alike.get(id, ())))
            return wanted in {self.sets.set_of(id), *now}

        def its(ids: Iterable[str]) -> tuple[str, ...]:
            return tuple(filter(concerns, ids))

        return attrs.evolve(
            self,
            pending=its(self.pending),
            changed=its(self.changed),
            missing=its(self.missing),
            out_of_order=its(self.out_of_order),
            unfinished=its(self.unfinished),
        )

    def only_misplaced(self, among: Collection[str] | None = None) -> Comparison:
        """Return what is to be said of those alone that the ledger has in another set, all or some."""
        its = tuple(id for id in self.misplaced if among is None or id in among)
        return attrs.evolve(self, changed=its, missing=(), out_of_order=(), unfinished=(), alike={})


def compare(migrations: Sequence[Migration], ledger: Ledger) -> Comparison:
    """Compare the files with what the ledger says of their sets."""
    files = {migration.id: migration for migration in migrations}
    found = sets.of(migrations, ledger)
    entries = [entry for entry in ledger.entries if found.is_named(entry.id)]
    applied = {entry.id for entry in entries}
    pending = [migration.id for migration in migrations if migration.id not in applied]
    # in the folder's order: a dependency may have moved a migration
    place = {id: number for number, id in enumerate(files)}
    last: dict[str | None, int] = {}
    for id in applied & files.keys():
        last[files[id].set] = max(place[id], last.get(files[id].set, -1))
    missing = [entry for entry in entries if entry.id not in files]
    misplaced = {entry.id: entry.set for entry in entries if entry.set is not None and found.is_misplaced(entry.id)}
    changed = [
        entry
        for entry in entries
        if entry.id in files and (entry.id in misplaced or entry.differs_from(files[entry.id]))
    ]
    # those whose text has gone from under their name
    gone = [*missing, *(entry for entry in changed if entry.checksum != files[entry.id].up.checksum)]
    by_text: dict[str | None, list[str]] = {}
    for id in [*pending, *(entry.id for entry in gone if entry.id in files)] if gone else ():
        by_text.setdefault(files[id].up.checksum, []).append(id)
    return Comparison(
        pending=tuple(pending),
        changed=tuple(entry.id for entry in changed),
        missing=tuple(entry.id for entry in missing),
        out_of_order=tuple(id for id in pending if place[id] < last.get(files[id].set, -1)),
        unfinished=tuple(sorted(filter(found.is_named, ledger.unfinished), key=sort_key)),
        alike={entry.id: tuple(by_text[entry.checksum]) for entry in gone if entry.checksum in by_text},
        misplaced=misplaced,
        others=tuple(entry.id for entry in ledger.entries if entry.id not in applied),
        sets=found,
    )


def other_folder(comparison: Comparison, ledger: Ledger) -> str | None:
    """Return a question about the folder if no applied migration is as its file has it; None if one is, or is alone.

    The folders of the two engines have the same ids. Which one it is cannot be told by the texts: many run on both.
    """
    known = [entry.id for entry in ledger.entries if entry.checksum is not None and entry.id not in comparison.others]
    told = comparison.alike or comparison.misplaced  # by themselves
    if len(known) < _SEVERAL or told or not set(known) <= set(comparison.changed):
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
_OF_ANOTHER = ". Which set it is of nobody has noted: if it is of another one, name that, too (--migrations)"
_OTHERS = "it is of the set {set}, which is not named here: name that, too (--migrations, DATABASE_MIGRATIONS)"
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
_MISPLACED = (
    "it is applied as one of the set {noted}, and is in the set {set} here. If the folder is that of the set {noted}, "
    "name it so (--migrations {noted}=FOLDER); if the two are different migrations, give this one another id; if the "
    "set has another name now, `dao accept {id}` notes that"
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
    unknown = {entry.id for entry in ledger.entries if entry.set is None}
    empty = {entry.id for entry in ledger.entries if entry.text is not None and not has_statement(entry.text)}
    told = comparison.sets.told
    problems = [
        *(f"{told(id)}: {_unfinished(id, told(id), ledger)}" for id in comparison.unfinished),
        *(f"{told(id)}: {_edited(id, comparison, is_empty=id in empty)}" for id in comparison.changed),
        *(
            f"{told(id)}: {_gone(id, comparison, _RENAMED, _MISSING)}{_OF_ANOTHER * (id in unknown)}"
            for id in comparison.missing
        ),
        *(f"{told(id)}: {_OUT_OF_ORDER}" for id in out_of_order if id not in once_more),
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


def _unfinished(id: str, name: str, ledger: Ledger) -> str:
    by = f" (it was {ledger.begun_by[id]})" if id in ledger.begun_by else ""
    return _UNFINISHED.format(id=name, doing=ledger.unfinished[id], by=by)


def _edited(id: str, comparison: Comparison, *, is_empty: bool) -> str:
    if noted := comparison.misplaced.get(id):
        return _MISPLACED.format(id=comparison.sets.told(id), noted=noted, set=comparison.sets.files[id])
    return _gone(id, comparison, _MOVED, _WRITTEN if is_empty else _CHANGED)


def _gone(id: str, comparison: Comparison, renamed: str, otherwise: str) -> str:
    told = comparison.sets.told
    if id in comparison.others:
        return _OTHERS.format(set=comparison.sets.by_id[id])
    if id in comparison.renamed:
        return renamed.format(new=told(comparison.renamed[id]))
    if id in comparison.alike and id in comparison.missing:
        return _ALIKE.format(id=told(id), new=", ".join(map(told, comparison.alike[id])))
    return otherwise.format(id=told(id))
