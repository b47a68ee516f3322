"""The SQLite library: the one in use here, and which versions can corrupt a database in WAL mode."""

from __future__ import annotations

import os

import apsw

__all__ = ["has_wal_reset_bug", "path", "version"]

# All from the first to the last, but for the later releases of two series (see sqlite.org/wal.html#walresetbug).
_FIRST, _LAST = (3, 7, 0), (3, 51, 2)
_MENDED = {(3, 44): 6, (3, 50): 7}


def version() -> str:
    """Return the version of the SQLite in use here."""
    return apsw.sqlite_lib_version()


def path() -> str:
    """Return the path of the library by which it is used, as the system names it."""
    return os.path.realpath(apsw.__file__)


def has_wal_reset_bug(version: str) -> bool:
    """Return whether a version of SQLite can corrupt a database in WAL mode that several connections write to."""
    major, minor, release = (*(int(part) for part in version.split(".")[:3]), 0, 0)[:3]
    mended = _MENDED.get((major, minor))
    return _FIRST <= (major, minor, release) <= _LAST and (mended is None or release < mended)
