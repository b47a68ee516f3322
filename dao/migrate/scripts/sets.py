"""Sets of migrations: each a folder with a name, and an order of its own. Several may be in one database."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, overload

import attrs

from dao.errors import MigrationError, MigrationFileError
from dao.migrate.scripts.files import Refusals, refuse
from dao.migrate.scripts.migration import Migration
from dao.settings import OWN, engine_of_folder

__all__ = ["MigrationSet", "Several", "check_named", "default_name", "id_of", "names", "parted", "shown"]


@attrs.frozen
class MigrationSet(Sequence[Migration]):
    """The migrations of a folder, in the order in which they are applied, under the `name` of their set.

    A slice is a part of the same set. `is_given` is whether somebody has named it; else the name is a guess by the
    folder, and that by which the ledger knows its migrations goes before it. `engine` is the one that it was loaded
    for, None for whichever it meets; then `folder` is None for this package's own.
    """

    name: str
    migrations: tuple[Migration, ...] = attrs.field(repr=False)
    folder: Path | None = attrs.field(default=None, kw_only=True, eq=False)
    is_given: bool = attrs.field(default=False, kw_only=True, eq=False)
    engine: str | None = attrs.field(default=None, kw_only=True, eq=False)
    #: The same for each engine that it has met.
    met: dict[str, MigrationSet] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def __len__(self) -> int:
        return len(self.migrations)

    @overload
    def __getitem__(self, place: int) -> Migration: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> Migration | Self:
        if isinstance(place, slice):
            return attrs.evolve(self, migrations=self.migrations[place])
        return self.migrations[place]


@attrs.frozen
class Several(Sequence[Migration]):
    """The migrations of several sets in one order: set by set, each in its own, and after those that it depends on."""

    sets: tuple[MigrationSet, ...]
    migrations: tuple[Migration, ...]

    @classmethod
    def of(cls, sets: Sequence[MigrationSet]) -> Self:
        """Bring sets into one order.

        Raises:
            MigrationError: Two have one name.
            MigrationFileError: Two have one id, one depends on what its set does not have, or they go in a circle.
        """
        folders: dict[str, MigrationSet] = {}
        for one in sets:
            if (other := folders.setdefault(one.name, one)) is not one:
                raise MigrationError(
                    f"two sets of migrations have the name {one.name} ({other.folder or OWN} and {one.folder or OWN}): "
                    "give one of them another, as NAME=FOLDER, or in a program with load(FOLDER, name=NAME)"
                )
        return cls(tuple(sets), tuple(_in_order(sets)))

    def __len__(self) -> int:
        return len(self.migrations)

    @overload
    def __getitem__(self, place: int) -> Migration: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Migration]: ...
    def __getitem__(self, place: int | slice) -> Migration | Sequence[Migration]:
        return self.migrations[place]


def names(migrations: Sequence[Migration]) -> Mapping[str | None, bool]:
    """Return the names of the sets that migrations are of, in order, and whether somebody has given each of them."""
    if isinstance(migrations, MigrationSet):
        return {migrations.name: migrations.is_given}
    if isinstance(migrations, Several):
        return {one.name: one.is_given for one in migrations.sets}
    return {migration.set: False for migration in migrations}


def check_named(name: str | None, known: Iterable[str | None]) -> None:
    """Refuse a name that is none of those of the sets that are named.

    Raises:
        MigrationError: It is not.
    """
    found = dict.fromkeys(filter(None, known))
    if name is not None and name not in found:
        listed = ", ".join(found) or "none"
        raise MigrationError(f"no set of migrations {name!r} is named here: give one of those that are ({listed})")


def parted(name: str) -> tuple[str, str]:
    """Return the set, "" for none, and the id in a name as people and scripts write it: `ID` or `SET/ID`."""
    set, _, id = name.rpartition("/")
    return set, id


def id_of(name: str) -> str:
    """Return the id in a name that may begin with that of a set: ids are unique in a database."""
    return parted(name)[1]


def shown(id: str, set: str | None, named: Collection[str | None]) -> str:
    """Return how people see an id where these sets are named: behind its own, if they are several, or not that one."""
    return id if set is None or {*named} <= {set, None} else f"{set}/{id}"


def default_name(folder: Path) -> str:
    """Return the name of a set that nobody has named: that of its folder, or of the one around an engine's."""
    path = Path(os.path.abspath(folder))
    name = path.parent.name if engine_of_folder(path) else path.name
    return re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_") or "migrations"


# ---------------------------------------------------------------- one order


def _in_order(sets: Sequence[MigrationSet]) -> list[Migration]:
    """Return the migrations of sets, each as soon as those are there on which it depends, the first sets first."""
    _check(sets)
    set_of = {migration.id: one.name for one in sets for migration in one}
    needs = {migration.id: set_of.keys() & set(map(id_of, migration.depends)) for one in sets for migration in one}
    left = [list(reversed(one)) for one in sets if one]
    ordered: list[Migration] = []
    there: set[str] = set()
    while left:
        migrations = next((its for its in left if needs[its[-1].id] <= there), None)
        if migrations is None:
            raise _circle([its[-1] for its in left], needs, there, set_of)
        ordered.append(migrations.pop())
        there.add(ordered[-1].id)
        left = [its for its in left if its]
    return ordered


def _check(sets: Sequence[MigrationSet]) -> None:
    """Refuse an id that two sets have, and what depends on a migration that is not where it says."""
    refused = Refusals()
    by_name = {one.name: one for one in sets}

    def is_known(name: str) -> bool:  # the name of a folder is a guess: it may be the set that is meant, and have moved
        return name == OWN or by_name[name].is_given

    found: dict[str, Migration] = {}
    for one in sets:
        for migration in one:
            with refused:
                other = found.setdefault(migration.id, migration)
                if other is not migration:
                    refuse(
                        migration.path,
                        f"the set {one.name} has the id {migration.id}, and so has the set {other.set} "
                        f"({other.path}), while a database tells migrations apart by their ids: rename one of the two; "
                        "where it is applied, `dao accept` notes that",
                    )
    for migration in found.values():
        for name in migration.depends:
            wanted, id = parted(name)
            its = found[id].set if id in found else None
            with refused:
                if its is None and wanted in by_name:
                    refuse(migration.path, f"depends on {name!r}, which the set {wanted} does not have: correct the id")
                if its is not None and wanted and its not in {wanted, migration.set} and is_known(its):
                    refuse(
                        migration.path,
                        f"depends on {name!r}, and {id} is in the set {its}: correct the set, or name its folder so "
                        f"({wanted}=FOLDER)",
                    )
    refused.raise_all()


def _circle(
    heads: Sequence[Migration], needs: Mapping[str, set[str]], there: set[str], sets: Mapping[str, str | None]
) -> MigrationFileError:
    """Return the error for sets of which none can go on: the next of each waits for what comes later in another."""
    next_of = {migration.set: migration for migration in heads}
    steps: dict[str, str] = {}
    migration = heads[0]
    while migration.id not in steps:
        wanted = min(needs[migration.id] - there)
        after = next_of[sets[wanted]]
        steps[migration.id] = (
            f"{migration.set}/{migration.id} needs {after.set}/{wanted}"
            + f", which comes after {after.set}/{after.id}" * (wanted != after.id)
        )
        migration = after
    ids = list(steps)
    text = "; ".join(steps[id] for id in ids[ids.index(migration.id) :])
    return MigrationFileError(f"{migration.path}: the dependencies go round in a circle: {text}", path=migration.path)
