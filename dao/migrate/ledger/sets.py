"""Which set each migration of the ledger is of, and by which name the ledger knows a set of files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from dao.migrate.ledger.entries import Entry, Ledger
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import names

__all__ = ["Sets", "of"]


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

    def told(self, id: str) -> str:
        """Return how a message names a migration of the ledger: with its set in front, if there are several."""
        name = self.by_id.get(id)
        return id if name is None or len({*self.called.values(), *self.by_id.values()}) == 1 else f"{name}/{id}"

    def is_misplaced(self, id: str) -> bool:
        """Return whether the ledger has a migration in another set than the files."""
        return id in self.files and self.files[id] is not None and self.by_id.get(id) != self.files[id]


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
