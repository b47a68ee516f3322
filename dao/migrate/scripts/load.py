"""A folder as an ordered list of migrations."""

from __future__ import annotations

import graphlib
import heapq
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dao.errors import MigrationError, MigrationFileError
from dao.migrate.scripts import layouts
from dao.migrate.scripts.files import Refusals, refuse, refuse_broken_off
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.migration import Migration, from_texts

__all__ = ["Source", "default_folder", "load", "loaded"]

#: Where migrations come from: a folder, migrations that `load` returned, or None for this package's own.
Source = str | os.PathLike[str] | Sequence[Migration] | None


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


def load(folder: str | os.PathLike[str] | None = None, *, engine: str = "sqlite") -> list[Migration]:
    """Return the folder's migrations, in the order in which they are applied; without one, this package's own.

    `engine` is "sqlite" or "postgresql": by its terms a script comes to its end, or does not.

    The order is that of the ids, in which leading numbers of any width count as numbers (0.10 comes after 0.2), changed
    as far as `-- depends:` demands.

    Raises:
        MigrationFileError: Files are not what they should be; `.path` and `.line` say where the first is wrong, the
            message has a line for each.
    """
    refused = Refusals()
    migrations: dict[str, Migration] = {}
    for id, (path, text), down in layouts.read(default_folder(engine) if folder is None else Path(folder), refused):
        rollback_path, rollback_text = down or (None, None)
        with refused:
            migrations[id] = from_texts(id, text, rollback_text, path=path, rollback_path=rollback_path)
        for file in (path, text), down:
            with refused:
                refuse_broken_off(*(file or (path, "")), engine)
    refused.raise_all()
    return _in_order(migrations)


def loaded(source: Source, engine: str = "sqlite") -> Sequence[Migration]:
    """Return the migrations of a source, for an engine.

    Raises:
        MigrationFileError: As `load`.
        TypeError: It is no source.
    """
    if source is None or isinstance(source, str | os.PathLike):
        return load(source, engine=engine)
    given: Any = source
    if not isinstance(given, Sequence) or not all(isinstance(migration, Migration) for migration in given):
        raise TypeError(f"migrations are a folder, or what `load` returned, got {type(source).__name__}")
    return source


def _in_order(migrations: Mapping[str, Migration]) -> list[Migration]:
    """Return the migrations by id, each after those that it depends on."""
    refused = Refusals()
    for migration in migrations.values():
        for id in migration.depends:
            with refused:
                if id not in migrations:
                    refuse(migration.path, f"depends on {id!r}, which is not in this folder")
    refused.raise_all()
    graph = graphlib.TopologicalSorter({id: migration.depends for id, migration in migrations.items()})
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
