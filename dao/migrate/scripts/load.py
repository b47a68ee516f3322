"""A folder as an ordered list of migrations."""

from __future__ import annotations

import functools
import heapq
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dao.errors import MigrationError, MigrationFileError
from dao.migrate.scripts import layouts
from dao.migrate.scripts.folder import Refusals, refuse
from dao.migrate.scripts.migration import Migration, from_texts, refuse_broken_off, sort_key

__all__ = ["Source", "default_folder", "load", "loaded"]


#: Where migrations come from: a folder, migrations that `load` returned, or None for this package's own.
Source = str | os.PathLike[str] | Sequence[Migration] | None


def default_folder(*, write: bool = False) -> Path:
    """Return the folder of this package's own migrations, in a checkout as in an installed wheel.

    Raises:
        MigrationError: It is to `write` in, and belongs to an installed package, which the next installation replaces.
    """
    package = _package()
    shipped = package / "sql" / "sqlite"
    if not shipped.is_dir():
        return package.parent / "sql" / "sqlite"
    if write:
        raise MigrationError(
            f"{shipped} is part of the installed package, and nothing is written there: name the folder of your migrations with "
            "--migrations or DATABASE_MIGRATIONS"
        )
    return shipped


@functools.cache
def _package() -> Path:
    return Path(__file__).resolve().parents[2]


def load(folder: str | os.PathLike[str] | None = None) -> list[Migration]:
    """Return the folder's migrations, in the order in which they are applied.

    The order is that of the ids, in which leading numbers of any width count as numbers (0.10 comes after 0.2), changed
    as far as `-- depends:` demands.

    Raises:
        MigrationFileError: Files are not what they should be; `.path` and `.line` say where the first is wrong, the message
            has a line for each.
    """
    path = default_folder() if folder is None else Path(folder)
    refused = Refusals()
    migrations: dict[str, Migration] = {}
    for id, file, text, rollback_file, rollback_text in layouts.read(path, refused):
        with refused:
            migrations[id] = from_texts(id, text, rollback_text, path=file, rollback_path=rollback_file)
        with refused:
            refuse_broken_off(file, text)
        with refused:
            refuse_broken_off(rollback_file or file, rollback_text or "")
    refused.raise_all()
    return _in_order(migrations)


def loaded(source: Source) -> Sequence[Migration]:
    """Return the migrations of a source.

    Raises:
        MigrationFileError: As `load`.
        TypeError: It is no source.
    """
    if source is None or isinstance(source, str | os.PathLike):
        return load(source)
    given: Any = source
    if not isinstance(given, Sequence) or not all(isinstance(migration, Migration) for migration in given):
        raise TypeError(f"migrations are a folder, or what `load` returned, got {type(source).__name__}")
    return source


def _in_order(migrations: Mapping[str, Migration]) -> list[Migration]:
    """Return the migrations by id, each after those that it depends on."""
    waiting_for: dict[str, set[str]] = {}
    dependents: dict[str, list[str]] = {}
    refused = Refusals()
    for migration in migrations.values():
        for id in migration.depends:
            with refused:
                if id not in migrations:
                    refuse(migration.path, f"depends on {id!r}, which is not in this folder")
            dependents.setdefault(id, []).append(migration.id)
        waiting_for[migration.id] = set(migration.depends)
    refused.raise_all()
    ready = [sort_key(id) for id, needed in waiting_for.items() if not needed]
    heapq.heapify(ready)
    ordered: list[Migration] = []
    while ready:
        id = heapq.heappop(ready)[2]
        ordered.append(migrations[id])
        for other in dependents.get(id, ()):
            needed = waiting_for[other]
            needed.remove(id)
            if not needed:
                heapq.heappush(ready, sort_key(other))
    if len(ordered) < len(migrations):
        done = {migration.id for migration in ordered}
        cycle = _cycle({id: needed - done for id, needed in waiting_for.items() if id not in done})
        path = migrations[cycle[0]].path
        raise MigrationFileError(f"{path}: the dependencies go round in a circle: {' -> '.join(cycle)}", path=path)
    return ordered


def _cycle(waiting_for: Mapping[str, Iterable[str]]) -> list[str]:
    walked: list[str] = []
    id = min(waiting_for)
    while id not in walked:
        walked.append(id)
        id = min(waiting_for[id])
    return [*walked[walked.index(id) :], id]
