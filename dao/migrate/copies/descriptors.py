"""Databases in files that are open already.

SQLite opens files by name, and in a folder of somebody else a name may have come to mean another file, or a link to
one, since it was looked at. Here a connection works on a descriptor, whatever the names are by now.
"""

# ruff: noqa: D102, FBT001, N802, N815 - SQLite's methods, as it calls them (sqlite.org/c3ref/io_methods.html)

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

import apsw

from dao.engine.sqlite.database_file import NO_ROOM

__all__ = ["Descriptor", "Held", "checksum", "chunks", "raw_file", "write_all"]

#: No locks of SQLite's: nobody else has these files, and on some systems they would meet those of `flock`.
_BASE = "unix-none"
_CHUNK = 1024 * 1024
_numbers = itertools.count()


class _File(Protocol):
    def xRead(self, amount: int, offset: int) -> bytes: ...

    def xFileSize(self) -> int: ...


class Held(apsw.VFS):
    """A file system on which a database is a file that is open already: for `apsw.Connection(path, vfs=….name)`.

    The path is what messages call it. The connection keeps the file system, and leaves a descriptor open. Journals
    are of no name: they are gone with the connection. Other files, which scripts attach, are opened as usual.
    """

    def __init__(self, path: str, file: int | _File) -> None:
        self.name = f"dao-held-{next(_numbers)}"
        self._path = path
        self._file = Descriptor(file) if isinstance(file, int) else file
        super().__init__(self.name, _BASE)

    def xFullPathname(self, name: str) -> str:
        return name if name == self._path else super().xFullPathname(name)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return not pathname.startswith(self._path) and super().xAccess(pathname, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if not filename.startswith(self._path):
            super().xDelete(filename, syncdir)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not path.startswith(self._path):
            return apsw.VFSFile(_BASE, name, flags)
        flags[1] = flags[0]
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return self._file
        with tempfile.TemporaryFile(dir=os.path.dirname(path), buffering=0) as file:
            return Descriptor(os.dup(file.fileno()), owned=True)


class Descriptor:
    """A file of SQLite's by its descriptor."""

    # 0, by a function in C: a Ctrl-C that came in one in Python would be lost, as SQLite takes no error of it
    xDeviceCharacteristics = int

    def __init__(self, file: int, *, owned: bool = False) -> None:
        self._descriptor = file
        self._owned = owned

    def xRead(self, amount: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, amount, offset)
        except OSError as error:
            raise apsw.IOError(error.strerror) from error

    def xWrite(self, data: bytes, offset: int) -> None:
        try:
            write_all(self._descriptor, data, offset)
        except OSError as error:
            raise (apsw.FullError if error.errno in NO_ROOM else apsw.IOError)(error.strerror) from error

    def xTruncate(self, newsize: int) -> None:
        os.ftruncate(self._descriptor, newsize)

    def xSync(self, _flags: int) -> None:
        os.fsync(self._descriptor)

    def xFileSize(self) -> int:
        return os.fstat(self._descriptor).st_size

    def xClose(self) -> None:
        if self._owned:
            os.close(self._descriptor)

    def xLock(self, _level: int) -> None:
        """Nobody else has the file."""

    xUnlock = xLock

    def xCheckReservedLock(self) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xFileControl(self, _op: int, _pointer: int) -> bool:
        return False


@contextlib.contextmanager
def raw_file(path: str) -> Iterator[apsw.VFSFile]:
    """Lend a file, opened as SQLite opens it, following no link.

    To open and close it in any other way would drop this process's locks on a database.

    Raises:
        CantOpenError: It cannot be opened.
    """
    file = apsw.VFSFile("unix", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        yield file
    finally:
        file.xClose()


def chunks(file: _File) -> Iterator[tuple[int, bytes]]:
    """Give all that is in a file, piece by piece, each with its place."""
    size = file.xFileSize()
    for place in range(0, size, _CHUNK):
        # never past the end: apsw cannot tell then how much was read
        yield place, file.xRead(min(_CHUNK, size - place), place)


def checksum(opened: int | _File) -> str:
    """Return the first 16 digits of the SHA-256 of all that is in an open file."""
    digest = hashlib.sha256()
    for _, chunk in chunks(Descriptor(opened) if isinstance(opened, int) else opened):
        digest.update(chunk)
    return digest.hexdigest()[:16]


def write_all(file: int, data: bytes, offset: int) -> None:
    """Write bytes at a place of a file, however many the system takes at a time."""
    while data:
        written = os.pwrite(file, data, offset)
        data = data[written:]
        offset += written
