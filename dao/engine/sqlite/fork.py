"""Forks: a child process must leave alone the connections that were open at the fork, and the files behind them.

A child inherits SQLite's table of the locks that its parent holds, so its connections to the same file take none: they
write beside any other process, and see the WAL removed under them (sqlite.org/howtocorrupt.html, 2.7). The table goes
by file, and so does the refusal: what was open at the fork, in whatever way, is found among the inherited file
descriptors.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import NoReturn

import apsw

from dao.errors import OperationalError

__all__ = ["check", "check_file", "is_inherited"]

# of every fork between the first process and this one; connections are kept, since to close one could undo its
# transaction
_files: set[tuple[int, int]] = set()
_connections: dict[apsw.Connection | apsw.AsyncConnection, str] = {}


def check_file(path: str) -> None:
    """Raise OperationalError for a database that was open when this process was forked."""
    if _files:
        with contextlib.suppress(OSError):  # a new file: nobody had it open
            found = os.stat(path)
            if (found.st_dev, found.st_ino) in _files:
                _refuse(path)


def check(connection: apsw.Connection | apsw.AsyncConnection) -> None:
    """Raise OperationalError for a connection that the parent of this process opened."""
    if connection in _connections:
        _refuse(_connections[connection])


def is_inherited(connection: apsw.Connection) -> bool:
    """Return whether the parent of this process opened the connection."""
    return connection in _connections


def _refuse(path: str) -> NoReturn:
    raise OperationalError(
        f"{path} was open when this process was forked, and SQLite would take its parent's locks for its own, so that "
        "rows get lost: start the process with spawn or forkserver, or close all connections before the fork and open "
        "them after it"
    )


def _after_fork() -> None:
    for name in _descriptors():
        # the one that the list itself was read from is closed; one for writing only, as of a log, cannot be read
        with contextlib.suppress(OSError):
            found = os.fstat(int(name))
            # the number of any other file may be given to a new database, once this process has closed it
            if stat.S_ISREG(found.st_mode) and os.pread(int(name), 16, 0) in {b"", b"SQLite format 3\0"}:
                _files.add((found.st_dev, found.st_ino))
    for connection in apsw.connections():
        if connection in _connections:
            continue
        path = "a database"
        # one that another thread was using is locked for ever; an asynchronous one tells its file in its own thread
        # only
        with contextlib.suppress(apsw.ThreadingViolationError):
            path = path if connection.is_async else connection.filename
        if path:  # one in memory is the child's own, like all of its memory
            _connections[connection] = path
            _abandon(connection, path)


def _descriptors() -> Iterable[str | int]:
    try:
        return os.listdir("/dev/fd")
    except OSError:  # without /proc
        return range(min(os.sysconf("SC_OPEN_MAX"), 1 << 16))


def _abandon(connection: apsw.Connection, path: str) -> None:
    """Have every use of a connection refused, and keep it from being closed, even at the end of the process.

    But for `close` itself, which nothing can refuse: it would undo a transaction of the parent's.
    """
    import ctypes  # noqa: PLC0415 - takes 4 ms, and only such a fork needs it

    def refuse(*_: object) -> NoReturn:
        _refuse(path)

    # of Python 3.13 and later the end of the module closes whatever is open
    for kept in (connection, apsw):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    with contextlib.suppress(apsw.ThreadingViolationError):
        connection.exec_trace = connection.row_trace = refuse


os.register_at_fork(after_in_child=_after_fork)
