"""Which set each migration of the ledger is of, and by which name the ledger knows a set of files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from dao import url
from dao.errors import MigrationError
from dao.migrate.database import Target, migrations_for
from dao.migrate.ledger.entries import Entry, Ledger, ledger_of
from dao.migrate.scripts.ids import normal
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import names, parted, shown
from dao.text import visible

__all__ = ["Sets", "known", "of"]


@attrs.frozen
class Sets:
    """The sets of a database, as far as files and ledger tell them.

    `called` has the name in the ledger by that of the files. `by_id` has the set of each migration that is applied or
    unfinished; None where nobody knows it: yoyo applied it, or it cannot be told which of several the file has left.
    """

    called: Mapping[str | None, str | None]
    by_id: Mapping[str, str | None]
    files: Mapping[str, str | None]

    def is_named(self, id: str) -> bool:
        """Return whether a migration of the ledger is of a set that is named, or of none that is known."""
        return id in self.files or self.has(self.by_id.get(id))

    def has(self, name: str | None) -> bool:
        """Return whether a set is named, or not known. Without files nothing is named, and nothing is another's."""
        return name is None or not self.called or name in self.called.values()

    def set_of(self, id: str) -> str | None:
        """Return the set of a migration of ledger or files."""
        return self.by_id.get(id) or self.files.get(id)

    def told(self, id: str) -> str:
        """Return how people see the id of a migration of files or ledger."""
        return shown(id, self.set_of(id), self.called.values())

    def find(self, given: str, known: Iterable[str], *, kind: str = "in the folder") -> str:
        """Return the migration id that somebody means: the whole of it or its beginning, perhaps behind its set.

        `kind` says in a message what those are that are known: they are all "in the folder" (perhaps "of" a set), or
        all "applied".

        Raises:
            MigrationError: None is meant, or it may be several.
        """
        ids = list(known)
        if normal(given) in ids:
            return normal(given)
        name = normal(url.cleaned(given))
        set, id = parted(name)
        if not id or name.startswith("/"):  # an unset variable in a script, $ID or $SET/ID
            raise MigrationError(
                f"{name!r} is no id of a migration: give an id or its beginning, or SET/ID (`dao status` lists them)"
            )
        folder = kind.startswith("in the folder")
        if its := _begun_by(id, [one for one in ids if not set or set in self._names_of(one, by_files=folder)]):
            if len(its) == 1:
                return its[0]
            raise MigrationError(f"{name!r} may be any of {_listed(its, self.told)}: give more of the id")
        if elsewhere := _begun_by(id, ids):
            raise MigrationError(
                f"no migration {id!r} of the set {set!r} is {kind}; those that are: "
                f"{_listed(elsewhere, self._whole)}. Give the set that is meant, or the id alone"
            )
        others = f"; those that are: {_listed(ids, self.told)}" if ids else ", and no other is"
        raise MigrationError(f"no migration {name!r} is {kind}{others}")

    def _whole(self, id: str) -> str:
        return f"{set}/{id}" if (set := self.set_of(id)) else id

    def _names_of(self, id: str, *, by_files: bool) -> set[str | None]:
        """Return what the set is called that has a migration, `by_files` or by the ledger: there, and by its folder."""
        its = (self.files.get(id) if by_files else None) or self.set_of(id)
        return {its, *(name for name, called in self.called.items() if called == its)}

    def is_misplaced(self, id: str) -> bool:
        """Return whether the ledger has a migration in another set than the files."""
        return id in self.files and self.files[id] is not None and self.by_id.get(id) != self.files[id]


def _begun_by(beginning: str, ids: Sequence[str]) -> list[str]:
    """Return the one id that a beginning is, or those that begin with it."""
    if beginning in ids:
        return [beginning]
    return [id for id in ids if id.startswith(beginning)]


def _listed(ids: Iterable[str], told: Callable[[str], str]) -> str:
    return visible(", ".join(map(told, ids)), line=True)


def of(migrations: Sequence[Migration], ledger: Ledger) -> Sets:
    """Return the sets of a database: what the ledger has noted, else what the files say.

    A set that nobody has named has the name that the ledger knows its migrations by. A row of before there were sets is
    of the set whose file it has. Without one it is of the one of which the other rows are that were written then.
    """
    files = {migration.id: migration for migration in migrations}
    called: dict[str | None, str | None] = {}
    given = names(migrations)
    for name, is_given in given.items():
        its = {id: file for id, file in files.items() if file.set == name}
        called[name] = name if is_given else _noted(its, ledger, given) or name
    own = {id: called[migration.set] for id, migration in files.items()}
    by_id = {entry.id: entry.set or own.get(entry.id) for entry in ledger.entries}
    if lost := [entry for entry in ledger.entries if _is_old(entry) and entry.id not in own]:
        homes = {own[entry.id] for entry in ledger.entries if _is_old(entry) and entry.id in own}
        by_id |= dict.fromkeys((entry.id for entry in lost), homes.pop() if len(homes) == 1 else None)
    begun = {id: ledger.begun_in.get(id) or by_id.get(id) or own.get(id) for id in ledger.unfinished}
    return Sets(called, by_id | begun, own)


def known(target: Target, migrations: Source) -> Sets:
    """Return the sets of a database that may not exist.

    Raises:
        MigrationFileError: A file is not what it should be.
        OperationalError: The database cannot be read.
    """
    return of(migrations_for(target, migrations), ledger_of(target))


def _noted(files: Mapping[str, Migration], ledger: Ledger, given: Collection[str | None]) -> str | None:
    """Return the set under which the ledger knows files; None if it is not certain that it is the same."""
    theirs = [entry for entry in ledger.entries if entry.set not in given and entry.set is not None]
    found = {entry.set for entry in theirs if entry.id in files}
    if len(found) != 1:
        return None
    its = [entry for entry in theirs if entry.set in found]
    same = any(entry.id in files and entry.text == files[entry.id].up.text for entry in its)
    return found.pop() if same or all(entry.id in files for entry in its) else None


def _is_old(entry: Entry) -> bool:
    """Return whether this package has written a row before it knew sets."""
    return entry.set is None and entry.checksum is not None
