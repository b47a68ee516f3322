"""A folder as a set of migrations in order, and several sets in one."""

from __future__ import annotations

import graphlib
import heapq
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from dao.errors import InvalidValue, MigrationError, MigrationFileError
from dao.migrate.scripts import layouts
from dao.migrate.scripts.files import File, Refusals, refuse, refuse_broken_off
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.migration import Migration, from_texts
from dao.migrate.scripts.sets import MigrationSet, Several, default_name, id_of
from dao.settings import OWN, Folder, check_set

__all__ = ["Source", "default_folder", "folders", "load", "loaded", "named_sets", "set_name"]

#: Where migrations come from: a folder, a set that `load` returned or migrations of it, several sets in their order, or
#: None for this package's own.
Source = str | os.PathLike[str] | Folder | Sequence[Migration] | Sequence[MigrationSet | Folder] | None
_ENGINES = ("sqlite", "postgresql")


def default_folder(engine: str = "sqlite", *, write: bool = False) -> Path:
    """Return the folder of this package's own migrations for an engine, in a checkout as in an installed wheel.

    `engine` is "sqlite" or "postgresql"; both folders hold the same ids.

    Raises:
        MigrationError: It is to `write` in, and belongs to an installed package, which the next installation replaces.
    """
    package = Path(__file__).resolve().parents[2]
    shipped = package / "sql" / engine
    if not shipped.is_dir():
        return package.parent / "sql" / engine
    if write:
        raise MigrationError(
            f"{shipped} is part of the installed package, and nothing is written there: name the folder of your "
            "migrations with --migrations or DATABASE_MIGRATIONS"
        )
    return shipped


def load(
    folder: str | os.PathLike[str] | None = None, *, name: str | None = None, engine: str | None = None
) -> MigrationSet:
    """Return the folder's migrations, in the order in which they are applied; without one, this package's own.

    They are for the engine that they meet, which may be either: this package's own are read for that, whatever they
    show until then, and whether a script comes to its end is a matter of its terms. An `engine` that is given,
    "sqlite" or "postgresql", is the one whose migrations are read, and by whose terms scripts are judged, at once.

    `name` is that of the set, of lower-case letters, digits, `_` and `-`. Without one it is "orchestrator" for this
    package's own, else that of the folder, or of the one around it where the folder is named for an engine; and where
    the ledger has the migrations under another name, that.

    The order is that of the ids, in which leading numbers of any width count as numbers (0.10 comes after 0.2), changed
    as far as `-- depends:` demands.

    Raises:
        MigrationFileError: Files are not what they should be; `.path` and `.line` say where the first is wrong, the
            message has a line for each.
        InvalidValue: `name` cannot be the name of a set, or there is no such engine.
    """
    if name is not None:
        check_set(name)
    if engine not in {None, *_ENGINES}:
        raise InvalidValue(f"{engine!r} is no engine: give one of {', '.join(_ENGINES)}, or leave it out")
    path = default_folder(engine or _ENGINES[0]) if folder is None else Path(folder)
    called = set_name(path, name)
    refused = Refusals()
    migrations: dict[str, Migration] = {}
    files: list[File] = []
    for id, script, down in layouts.read(path, refused):
        rollback_path, rollback_text = down or (None, None)
        with refused:
            migrations[id] = from_texts(
                id, script[1], rollback_text, path=script[0], rollback_path=rollback_path, set=called
            )
        files += filter(None, (script, down))
    # of an engine that is yet to be met one has to be content
    broken_off = [_broken_off(files, one) for one in ([engine] if engine else _ENGINES)]
    refused += broken_off[0] if all(broken_off) else []
    refused.raise_all()
    its = None if folder is None and engine is None else path
    return MigrationSet(called, tuple(_in_order(migrations)), folder=its, is_given=name is not None, engine=engine)


def _broken_off(files: Iterable[File], engine: str) -> Refusals:
    """Return what refuses scripts that do not come to their end, in the terms of an engine."""
    refused = Refusals()
    for file in files:
        with refused:
            refuse_broken_off(*file, engine)
    return refused


def _meeting(its: MigrationSet, engine: str) -> MigrationSet:
    """Return a set that was loaded for no engine as it is for the one that it meets.

    Raises:
        MigrationFileError: A script does not come to its end, in the terms of the engine.
    """
    migrations = its.migrations
    if its.folder is None:
        ids = {migration.id for migration in its}
        whole = load(name=its.name, engine=engine)
        migrations = tuple(migration for migration in whole if migration.id in ids)
    else:
        scripts = [script for migration in its for script in (migration.up, migration.down) if script is not None]
        files = [(script.path, script.text) for script in scripts if script.path is not None]
        _broken_off(files, engine).raise_all()
    return attrs.evolve(its, migrations=migrations, engine=engine)


def loaded(source: Source, engine: str = "sqlite") -> Sequence[Migration]:
    """Return the migrations of a source, for an engine: those of several sets in one order.

    Raises:
        MigrationFileError: As `load`; or two sets have one name or one id, or depend on each other in a circle.
        TypeError: It is no source.
    """
    if source is None or isinstance(source, str | os.PathLike):
        return load(source, engine=engine)
    if isinstance(source, Folder):
        return load(source.path, name=source.name, engine=engine)
    given: Any = source
    if isinstance(given, MigrationSet):
        if given.engine is None and engine not in given.met:
            given.met[engine] = _meeting(given, engine)
        return given.met.get(engine, given)
    if isinstance(given, Several):
        return given
    if isinstance(given, Sequence):
        if all(isinstance(one, Migration) for one in given):
            return given
        if all(isinstance(one, MigrationSet | Folder) for one in given):
            sets: list[Any] = [loaded(one, engine) for one in given]
            return sets[0] if len(sets) == 1 else Several.of(sets)
    parts = f" of {', '.join(sorted({type(one).__name__ for one in given}))}" if isinstance(given, Sequence) else ""
    raise TypeError(f"migrations are a folder, or what `load` returned, got {type(source).__name__}{parts}")


def folders(source: Source) -> Iterator[str | os.PathLike[str]]:
    """Yield the folders of a source, as far as they are known before it is read."""
    given: Any = source
    if isinstance(given, str | os.PathLike):
        yield given
    elif isinstance(given, Folder | MigrationSet):
        path = given.path if isinstance(given, Folder) else given.folder
        if path is not None:
            yield path
    elif isinstance(given, Sequence):
        for one in given:
            yield from folders(one)


def named_sets(migrations: Path | Sequence[Folder] | None) -> dict[str, Folder]:
    """Return the folders that the settings name, by the names of their sets."""
    given = [Folder(migrations)] if migrations is None or isinstance(migrations, Path) else migrations
    return {set_name(one.path, one.name): one for one in given}


def set_name(folder: Path | None, name: str | None = None) -> str:
    """Return what the set of a folder is called: by the name that somebody gave it, else as `load` says."""
    if name is not None:
        return name
    own = [default_folder(engine).resolve() for engine in _ENGINES]
    return OWN if folder is None or folder.resolve() in own else default_name(folder)


def _in_order(migrations: Mapping[str, Migration]) -> list[Migration]:
    """Return the migrations by id, each after those that it depends on."""
    refused = Refusals()
    for migration in migrations.values():
        for id in migration.depends:
            with refused:
                if id not in migrations and "/" not in id:
                    refuse(
                        migration.path,
                        f"depends on {id!r}, which is not in this folder; one of another set is written SET/{id}",
                    )
    refused.raise_all()
    needs = {id: [one for one in map(id_of, one.depends) if one in migrations] for id, one in migrations.items()}
    graph = graphlib.TopologicalSorter(needs)
    try:
        graph.prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1][:0:-1]  # each of the error's is needed by the next, and the first is the last again
        begin = cycle.index(min(cycle))
        cycle = [*cycle[begin:], *cycle[:begin], cycle[begin]]
        path = migrations[cycle[0]].path
        message = f"{path}: the dependencies go round in a circle: {' -> '.join(cycle)}"
        raise MigrationFileError(message, path=path) from None
    ready: list[tuple[bool, tuple[int, ...], str]] = []
    ordered: list[Migration] = []
    while graph.is_active():
        for id in graph.get_ready():
            heapq.heappush(ready, sort_key(id))
        *_, id = heapq.heappop(ready)
        graph.done(id)
        ordered.append(migrations[id])
    return ordered
