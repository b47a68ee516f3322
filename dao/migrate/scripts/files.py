"""The files in a folder, and their texts. A file that only looks like a migration is refused here, with its path."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from dao.errors import MigrationFileError
from dao.migrate.scripts import ids
from dao.migrate.scripts.misnamed import is_meant
from dao.migrate.scripts.statements import broken_off
from dao.text import visible

__all__ = [
    "File",
    "Refusals",
    "check_name",
    "is_folder",
    "is_script",
    "listing",
    "refuse",
    "refuse_broken_off",
    "text_of",
]

#: A script's path and text.
File = tuple[Path, str]

# languages in which other tools have migrations, by suffix
_PROGRAMS = {".py": "Python", ".go": "Go"}
# by which one in Python without a number is a migration: yoyo's steps, alembic's function, Django's class
_MIGRATES = re.compile(
    rb"(?:^|[=\[,(]\s*)step\s*\(\s*[^\s)]|^[ \t]*from[ \t]+yoyo[ \t]+import\b.*\bstep\b"
    rb"|^(?:steps\s*[:=]|__depends__\b|def\s+upgrade\s*\()|\(migrations\.Migration\)",
    re.MULTILINE,
)


class Refusals(list[MigrationFileError]):
    """All refusals of a folder, told at once: `with refusals:` adds the one that the block raises, and goes on."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, MigrationFileError):
            self.append(error)
        return isinstance(error, MigrationFileError)

    def raise_all(self) -> None:
        """Raise what was refused as one error, which has the path and the line of the first; nothing if nothing was."""
        if len(self) == 1:
            raise self[0]
        if self:
            raise MigrationFileError("\n".join(map(str, self)), path=self[0].path, line=self[0].line)


def refuse(path: Path, reason: str, line: int | None = None) -> NoReturn:
    """Raise the error that says where a file is not what it should be, why, and what to do."""
    where = path if line is None else f"{path}:{line}"
    raise MigrationFileError(f"{where}: {reason}", path=path, line=line)


def refuse_broken_off(path: Path, text: str, engine: str = "sqlite") -> None:
    """Refuse a script that does not come to its end, in the terms of the engine that it is for.

    Raises:
        MigrationFileError: It leaves something open; the message has the line.
    """
    if engine == "sqlite":
        found = broken_off(text)
    else:
        from dao.migrate.scripts import postgresql  # noqa: PLC0415 - for those scripts only

        found = postgresql.broken_off(text)
    if found:
        refuse(path, *found)


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, by name, but for what is hidden."""
    try:
        return sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
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


def is_script(entry: os.DirEntry[str], path: Path) -> bool:
    """Return whether an entry is a script to read. One that only looks like it is refused, not passed over."""
    name = entry.name
    suffix = path.suffix
    check_name(path)
    if is_folder(entry):
        if suffix.lower() == ".sql" or re.match(r"[0-9]", name):
            refuse(
                path,
                "a folder where a migration file should be; put NAME.sql and NAME.rollback.sql themselves into the "
                "migrations folder",
            )
        return False
    if name.startswith("_tmp_yoyonew"):
        return False
    if suffix in _PROGRAMS and _migrates(path):
        refuse(
            path,
            f"{_PROGRAMS[suffix]} migrations are not run here; write it in SQL, or move it elsewhere if it is none",
        )
    if is_meant(name):
        refuse(
            path, "by its suffix it would be passed over; a migration is NAME.sql, with NAME.rollback.sql: rename it"
        )
    if unicodedata.normalize("NFKC", suffix).strip().lower() != ".sql":
        return False
    if suffix != ".sql":
        refuse(
            path,
            f"the suffix must be .sql in lower case, or the file would be passed over; rename it to {path.stem}.sql",
        )
    if entry.is_symlink() and not path.exists():
        refuse(path, f"a dangling link to {path.readlink()}; mend or remove it")
    if not entry.is_file():
        refuse(path, "not a regular file")
    if name.startswith("post-apply"):
        refuse(path, "yoyo's post-apply hooks are not run here; make it a migration of its own")
    return True


def _migrates(path: Path) -> bool:
    """Return whether a program is a migration, by its number or by what is in it: any other is a helper."""
    if ids.number(path.stem) is not None:
        return not path.stem.endswith("_test")
    # a pipe would have nothing to read
    return path.suffix == ".py" and path.is_file() and _MIGRATES.search(_content(path)) is not None


def check_name(path: Path) -> None:
    """Refuse a file name that is not UTF-8, or holds a control character: it could not be an id."""
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise MigrationFileError(f"{os.fsencode(path)!r}: the file name is not UTF-8; rename it", path=path) from error
    if visible(path.name, line=True) != path.name:
        raise MigrationFileError(f"{str(path)!r}: the file name holds a control character; rename it", path=path)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise MigrationFileError(f"{path}: cannot be read: {error.strerror}", path=path) from error


def text_of(path: Path) -> str:
    """Return the text of a file, with LF line ends and without a byte order mark."""
    content = _content(path)
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MigrationFileError(f"{path}:{line}: not UTF-8; save the file as UTF-8", path=path, line=line) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MigrationFileError(f"{path}:{line}: a NUL character, at which SQLite would stop", path=path, line=line)
    return text
