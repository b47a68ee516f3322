"""Pairs of scripts on disk -> migrations in order. Every malformed input is refused here, with its path.

A pair is `NAME.sql` + `NAME.rollback.sql` (yoyo's convention), or `NAME.up.sql` + `NAME.down.sql` (that of sqlx and
golang-migrate), so that another project's folder can be taken as it is. NAME is the migration's id.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from dao.errors import MigrationError, MigrationFileError
from dao.migrate import directives

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
    "sort_key",
    "start_of_statement",
]

_SCRIPT_SUFFIXES = (".up.sql", ".sql")
_ROLLBACK_SUFFIXES = (".rollback.sql", ".down.sql")
# What SQLite's tokenizer skips, byte for byte (sqlite3GetToken); possessive, so that no comment is matched past its end.
_NO_STATEMENT = re.compile(
    r"(?>[ \t\n\f\r][\t-\r ]*+|[;\ufeff]|--[^\n]*+|/\*(?!\Z).*?(?:\*/|\Z))*+",
    re.DOTALL,
)


@attrs.frozen(kw_only=True)
class Migration:
    """A pair of scripts. The texts have LF line ends and no byte order mark; `path` is where the first came from.

    `depends` holds the ids that must be applied before. `transactional` is false if the script says that it must run
    outside of a transaction. `foreign_keys`: it is to run with foreign keys enforced. `allows`: what it may lose.
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
    rollback_foreign_keys: bool = False
    rollback_allows: directives.Allowance = directives.NOTHING_ALLOWED

    @property
    def reversible(self) -> bool:
        """Whether there is a rollback script that holds a statement."""
        return self.rollback_text is not None and has_statement(self.rollback_text)


#: Where migrations come from: a folder, migrations that `load` returned, or None for this package's own.
Source = str | os.PathLike[str] | Sequence[Migration] | None


def default_folder() -> Path:
    """Return the folder of this package's own migrations, in a checkout as in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "sql" / "sqlite"
    return shipped if shipped.is_dir() else package.parent / "sql" / "sqlite"


def load(folder: str | os.PathLike[str] | None = None) -> list[Migration]:
    """Return the folder's migrations, in the order in which they are applied.

    The order is that of the ids, in which leading numbers of any width count as numbers (0.10 comes after 0.2), changed
    as far as `-- depends:` demands.

    Raises:
        MigrationFileError: A file is not what it should be; `.path` and `.line` say where.
    """
    path = default_folder() if folder is None else Path(folder)
    scripts, rollbacks = _scan(path)
    for id, rollback in rollbacks.items():
        if id not in scripts:
            raise MigrationFileError(
                f"{rollback}: a rollback script without its migration; add {id}.sql beside it or remove it",
                path=rollback,
            )
    migrations = {id: _read(id, script, rollbacks.get(id)) for id, script in scripts.items()}
    return _in_order(migrations)


def loaded(source: Source) -> Sequence[Migration]:
    """Return the migrations of a source.

    Raises:
        MigrationFileError: As `load`.
    """
    if source is None or isinstance(source, str | os.PathLike):
        return load(source)
    return source


def sort_key(id: str) -> tuple[bool, tuple[int, ...], str]:
    """Return the key by which ids sort: by their leading numbers, those without one last, then by their text."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", id)
    return match is None, tuple(int(part) for part in match[0].split(".")) if match else (), id


def checksum(text: str | None) -> str | None:
    """Return the SHA-256 of a script's text as hexadecimal digits; None for None."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def has_statement(text: str) -> bool:
    """Return whether a script holds anything but blanks, comments and semicolons."""
    return start_of_statement(text) < len(text)


def start_of_statement(text: str, begin: int = 0) -> int:
    """Return where the next statement begins, after blanks, semicolons and comments; the text's length if none does.

    `begin` is not inside of a statement, so there is no string that a comment could stand in.
    """
    return _NO_STATEMENT.match(text, begin).end()  # type: ignore[union-attr] # it matches nothing, too


# ---------------------------------------------------------------- scan


def _scan(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise MigrationFileError(
            f"{folder}: the migrations folder does not exist; name the right one with --migrations or "
            "DATABASE_MIGRATIONS",
            path=folder,
        ) from error
    except NotADirectoryError as error:
        raise MigrationFileError(f"{folder}: not a folder; migrations are files in a folder", path=folder) from error
    except OSError as error:
        raise MigrationFileError(f"{folder}: cannot be read: {error.strerror}", path=folder) from error
    scripts: dict[str, Path] = {}
    rollbacks: dict[str, Path] = {}
    for entry in entries:
        if entry.name.startswith(".") or not _is_script(entry):
            continue
        path = Path(entry.path)
        id, found = _id(entry.name, scripts, rollbacks)
        if id in found:
            raise MigrationFileError(
                f"{path}: the migration {id} has a script like this already, {found[id].name}; remove one of the two",
                path=path,
            )
        found[id] = path
    if not scripts and not rollbacks:
        raise MigrationFileError(
            f"{folder}: the folder holds no migration; a migration is NAME.sql with NAME.rollback.sql", path=folder
        )
    return scripts, rollbacks


def _is_script(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a script to read. What only looks like one is refused, not passed over."""
    path = Path(entry.path)
    name = entry.name
    suffix = path.suffix
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise MigrationFileError(f"{os.fsencode(path)!r}: the file name is not UTF-8; rename it", path=path) from error
    if _is_folder(entry):
        if suffix.lower() == ".sql" or re.match(r"[0-9]", name):
            raise MigrationFileError(
                f"{path}: a folder where a migration file should be; put NAME.sql and NAME.rollback.sql themselves "
                "into the migrations folder",
                path=path,
            )
        return False
    if suffix == ".py" and not name.startswith("_"):
        raise MigrationFileError(
            f"{path}: Python migrations are not run here; write it as {path.stem}.sql and {path.stem}.rollback.sql",
            path=path,
        )
    if suffix.lower() != ".sql" or name.startswith("_tmp_yoyonew"):
        return False
    if suffix != ".sql":
        raise MigrationFileError(
            f"{path}: the suffix must be lower case, or the file would be passed over; rename it to {path.stem}.sql",
            path=path,
        )
    if entry.is_symlink() and not path.exists():
        raise MigrationFileError(f"{path}: a dangling link to {path.readlink()}; mend or remove it", path=path)
    if not entry.is_file():
        raise MigrationFileError(f"{path}: not a regular file", path=path)
    if name.startswith("post-apply"):
        raise MigrationFileError(
            f"{path}: yoyo's post-apply hooks are not run here; make it a migration of its own", path=path
        )
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _id(name: str, scripts: dict[str, Path], rollbacks: dict[str, Path]) -> tuple[str, dict[str, Path]]:
    for suffixes, found in ((_ROLLBACK_SUFFIXES, rollbacks), (_SCRIPT_SUFFIXES, scripts)):
        for suffix in suffixes:
            if name.endswith(suffix) and name != suffix:
                return name.removesuffix(suffix), found
    raise AssertionError(name)  # hidden files and other suffixes were passed over


# ---------------------------------------------------------------- read


def _read(id: str, path: Path, rollback_path: Path | None) -> Migration:
    return from_texts(
        id, _text(path), None if rollback_path is None else _text(rollback_path), path=path, rollback_path=rollback_path
    )


def from_texts(
    id: str, text: str, rollback_text: str | None, *, path: Path, rollback_path: Path | None = None
) -> Migration:
    """Return the migration that two texts make, with what they say of themselves.

    Raises:
        MigrationFileError: A directive means nothing.
    """
    said = directives.read(text, path)
    undoing = (
        directives.Directives() if rollback_text is None else directives.read(rollback_text, rollback_path or path)
    )
    for name in ("transactional", "depends"):
        if rollback_path is not None and name in undoing.lines:
            line = undoing.lines[name]
            raise MigrationFileError(
                f"{rollback_path}:{line}: `-- {name}:` has no effect in a rollback script; write it into {path.name}, from "
                "where it applies to both",
                path=rollback_path,
                line=line,
            )
    return Migration(
        id=id,
        path=path,
        text=text,
        rollback_path=rollback_path,
        rollback_text=rollback_text,
        depends=said.depends,
        transactional=said.transactional,
        foreign_keys=said.foreign_keys,
        allows=said.allows,
        rollback_foreign_keys=undoing.foreign_keys,
        rollback_allows=undoing.allows,
    )


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MigrationFileError(f"{path}: cannot be read: {error.strerror}", path=path) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MigrationFileError(f"{path}:{line}: not UTF-8; save the file as UTF-8", path=path, line=line) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MigrationFileError(f"{path}:{line}: a NUL character, at which SQLite would stop", path=path, line=line)
    return text


# ---------------------------------------------------------------- order


def _in_order(migrations: Mapping[str, Migration]) -> list[Migration]:
    """Return the migrations by id, each after those that it depends on."""
    waiting_for: dict[str, set[str]] = {}
    for migration in migrations.values():
        for id in migration.depends:
            if id not in migrations:
                raise MigrationFileError(
                    f"{migration.path}: depends on {id!r}, which is not in this folder", path=migration.path
                )
        waiting_for[migration.id] = set(migration.depends)
    ready = [sort_key(id) for id, needed in waiting_for.items() if not needed]
    heapq.heapify(ready)
    ordered: list[Migration] = []
    while ready:
        id = heapq.heappop(ready)[2]
        ordered.append(migrations[id])
        for other, needed in waiting_for.items():
            if id in needed:
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


def new(name: str, folder: str | os.PathLike[str] | None = None, *, now: datetime | None = None) -> tuple[Path, Path]:
    """Create an empty pair for a new migration and return its two paths.

    The id is the time in UTC and the name in snake case, such as `20250115010000_create_tasks`; a second later than the
    latest id there is, if the clock is behind that.

    Raises:
        MigrationError: The name holds no letter or digit, or the pair cannot be written.
    """
    path = default_folder() if folder is None else Path(folder)
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    if not slug:
        raise MigrationError(f"a migration's name needs a letter or a digit (a-z, 0-9), got {name!r}")
    if not path.is_dir():
        raise MigrationError(f"{path}: the migrations folder does not exist; create it first")
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0)
    for entry in os.listdir(path):
        if match := re.match(r"([0-9]{14})_.*\.sql$", entry):
            try:
                moment = max(moment, datetime.strptime(match[1] + "Z", "%Y%m%d%H%M%S%z") + timedelta(seconds=1))
            except ValueError:
                continue  # fourteen digits that are no time
    id = f"{moment:%Y%m%d%H%M%S}_{slug}"
    title = slug.replace("_", " ").capitalize()
    script, rollback = path / f"{id}.sql", path / f"{id}.rollback.sql"
    try:
        with script.open("x", encoding="utf-8") as file:
            file.write(f"-- {title}: what for.\n-- What it locks or rewrites, and what its rollback loses.\n\n")
        with rollback.open("x", encoding="utf-8") as file:
            file.write(f"-- Undoes {id}. What it loses.\n\n")
    except OSError as error:
        raise MigrationError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return script, rollback
