"""Scripts on disk -> migrations in order, and a new one beside them.

Which files make a migration, in which layout, is found in `layouts`, so that another project's folder can be taken as it
is. A migration's id is the name of its file, or folder, without suffixes.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from dao.errors import MigrationError, MigrationFileError
from dao.migrate import directives, layouts
from dao.migrate.folder import Refusals, refuse
from dao.migrate.statements import broken_off, has_statement, start_of_statement

__all__ = [
    "Migration",
    "Source",
    "checksum",
    "default_folder",
    "from_texts",
    "has_statement",
    "load",
    "loaded",
    "new",
    "refuse_broken_off",
    "sort_key",
    "start_of_statement",
]

#: How many digits a time has as an id.
_TIME = 14


@attrs.frozen(kw_only=True)
class Migration:
    """A pair of scripts. The texts have LF line ends and no byte order mark; `path` is where the first came from.

    `depends` holds the ids that must be applied before. `transactional` is false if the script says that it must run
    outside of a transaction. `foreign_keys`: it is to run with foreign keys enforced. `allows`: what it may lose. Those
    that begin with `rollback_` are the same of the second script.
    """

    id: str
    path: Path
    text: str = attrs.field(repr=False)
    rollback_path: Path | None = None
    rollback_text: str | None = attrs.field(default=None, repr=False)
    depends: tuple[str, ...] = ()
    transactional: bool = True
    foreign_keys: bool = False
    allows: directives.Allowance = directives.NOTHING_ALLOWED
    rollback_transactional: bool = True
    rollback_foreign_keys: bool = False
    rollback_allows: directives.Allowance = directives.NOTHING_ALLOWED

    @property
    def reversible(self) -> bool:
        """Whether there is a rollback script that holds a statement."""
        return self.rollback_text is not None and has_statement(self.rollback_text)


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
    return Path(__file__).resolve().parents[1]


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


def refuse_broken_off(path: Path, text: str) -> None:
    """Refuse a script that does not come to its end.

    Raises:
        MigrationFileError: It leaves something open; the message has the line.
    """
    if found := broken_off(text):
        refuse(path, *found)


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


def sort_key(id: str) -> tuple[bool, tuple[int, ...], str]:
    """Return the key by which ids sort: by their leading numbers, those without one last, then by their text."""
    number = layouts.number(id)
    return number is None, number or (), id


def checksum(text: str | None) -> str | None:
    """Return the SHA-256 of a script's text as hexadecimal digits; None for None."""
    import hashlib  # noqa: PLC0415 - 4 ms, which a run that finds nothing to do saves

    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- read


def from_texts(
    id: str, text: str, rollback_text: str | None, *, path: Path, rollback_path: Path | None = None
) -> Migration:
    """Return the migration that two texts make, with what they say of themselves.

    Raises:
        MigrationFileError: A directive means nothing.
    """
    said = directives.read(text, path)
    undoing = directives.read(rollback_text or "", rollback_path or path)
    for name in ("transactional", "depends"):
        if rollback_path is not None and name in undoing.lines:
            line = undoing.lines[name]
            raise MigrationFileError(
                f"{rollback_path}:{line}: `-- {name}:` has no effect in a rollback script; write it into {path.name}, from "
                "where it applies to both",
                path=rollback_path,
                line=line,
            )
    together = said.pair_transactional and undoing.pair_transactional
    return Migration(
        id=id,
        path=path,
        text=text,
        rollback_path=rollback_path,
        rollback_text=rollback_text,
        depends=said.depends,
        transactional=together and said.transactional,
        foreign_keys=said.foreign_keys,
        allows=said.allows,
        rollback_transactional=together and undoing.transactional,
        rollback_foreign_keys=undoing.foreign_keys,
        rollback_allows=undoing.allows,
    )


# ---------------------------------------------------------------- order


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


# ---------------------------------------------------------------- new


def new(name: str, folder: str | os.PathLike[str] | None = None, *, now: datetime | None = None) -> tuple[Path, ...]:
    """Create an empty migration in the folder's layout and return the paths of its files: two, or the one that it needs.

    The id is the time in UTC and the name in snake case, such as `20250115010000_create_tasks`; a second later than the
    latest id there is, if the clock is behind that. Among another tool's files with small numbers it is the next of these.

    Raises:
        MigrationError: The name holds no letter or digit, the files cannot be written, or no folder is given where this
            package is installed.
        MigrationFileError: The folder's layout cannot be told.
    """
    path = default_folder(write=True) if folder is None else Path(folder)
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    if not slug:
        raise MigrationError(f"a migration's name needs a letter or a digit (a-z, 0-9), got {name!r}")
    if not path.is_dir():
        raise MigrationError(f"{path}: the migrations folder does not exist; create it first")
    layout = layouts.layout_of(path)
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0)
    texts = _new_texts(layout, _new_id(path, layout, slug, moment), slug, undo=any(path.glob("U*__*.sql")))
    paths = tuple(path / name for name in texts)
    with contextlib.ExitStack() as unless_done:
        file = paths[0].parent
        try:
            if layout == "diesel":
                file.mkdir()
                unless_done.callback(file.rmdir)
            for file, text in zip(paths, texts.values(), strict=True):
                with file.open("x", encoding="utf-8") as opened:
                    unless_done.callback(file.unlink)
                    opened.write(text)
        except OSError as error:
            raise MigrationError(f"{file}: cannot be written: {error.strerror}") from error
        unless_done.pop_all()
    return paths


def _new_id(folder: Path, layout: layouts.Layout, slug: str, moment: datetime) -> str:
    """Return the id of a migration that comes after all that are there."""
    names = [name for name in os.listdir(folder) if layout == "diesel" or name.endswith(".sql")]
    latest = layouts.number_text(max(names, key=lambda name: layouts.number(name) or (), default="")) or ""
    v, separator = ("V", "__") if layout == "flyway" else ("", "_")
    if layout != "pair" and 0 < len(latest) < _TIME and "-" not in latest:
        rest = latest.rstrip("0123456789")
        last = latest[len(rest) :]
        return f"{v}{rest}{int(last) + 1:0{len(last)}}{separator}{slug}"
    for name in names:
        number = layouts.number(name)
        if number is not None and len(str(number[0])) == _TIME:
            try:
                moment = max(moment, datetime.strptime(f"{number[0]}Z", "%Y%m%d%H%M%S%z") + timedelta(seconds=1))
            except ValueError:
                continue  # fourteen digits that are no time
    form = "%Y-%m-%d-%H%M%S" if layout == "diesel" and "-" in latest else "%Y%m%d%H%M%S"
    return f"{v}{moment:{form}}{separator}{slug}"


def _new_texts(layout: layouts.Layout, id: str, slug: str, *, undo: bool) -> dict[str, str]:
    """Return the texts of a new migration by the names of the files."""
    title = slug.replace("_", " ").capitalize()
    script = f"-- {title}: what for.\n-- What it locks or rewrites, and what its rollback loses.\n\n"
    rollback = f"-- Undoes {id}. What it loses.\n\n"
    match layout:
        case "dbmate":
            return {f"{id}.sql": f"{script}-- migrate:up\n\n\n-- migrate:down\n\n"}
        case "goose":
            return {f"{id}.sql": f"{script}-- +goose Up\n\n\n-- +goose Down\n\n"}
        case "diesel":
            return {f"{id}/up.sql": script, f"{id}/down.sql": rollback}
        case "flyway":
            return {f"{id}.sql": script} | ({f"U{id[1:]}.sql": rollback} if undo else {})
        case "up/down":
            return {f"{id}.up.sql": script, f"{id}.down.sql": rollback}
        case "pair":
            return {f"{id}.sql": script, f"{id}.rollback.sql": rollback}
