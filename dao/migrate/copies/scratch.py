"""Copies of a database to run scripts in and throw away: in memory, or as files if they are large.

In all copies that one `scratch` makes it is the same moment, and chance is the same: a script that writes the time or a
random value does the same in each, so that what it does can be compared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from dao import url
from dao.engine import Connection, sqlite, use_defaults
from dao.errors import DiskFull
from dao.migrate.copies.files import require_room, size_of

__all__ = ["Scratch", "scratch"]

_IN_MEMORY = url.DatabaseURL(path=url.MEMORY)
#: Up to this size in bytes a database is copied into memory.
_LIMIT = 64 * 1024 * 1024
#: How many copies of one database there are at a time, at the most.
_COPIES = 7
_PAGES = 4096  # copied at a time, so that Ctrl-C is noticed
#: Milliseconds of the Julian day at the beginning of 1970, as SQLite counts time.
_EPOCH = 210_866_760_000_000


class _StandingClock(apsw.VFS):
    """A file system, the usual one for "", but for the time: it is always that at which this was made."""

    def __init__(self, name: str, base: str = "") -> None:
        super().__init__(name, base=base)
        self._now = _EPOCH + time.time_ns() // 1_000_000

    def xCurrentTimeInt64(self) -> int:  # noqa: N802 - SQLite's name
        return self._now

    def xCurrentTime(self) -> float:  # noqa: N802 - SQLite's name
        return self._now / 86_400_000


class Scratch:
    """Makes the copies, and closes them."""

    def __init__(self, vfs: str, folder: Callable[[], str]) -> None:
        self._vfs = vfs
        self._folder = folder
        self._open: list[Connection] = []

    def copy(self, source: Connection | None = None) -> Connection:
        """Return a connection to a new copy of all that a connection sees, to an empty database without one.

        It is set up for scripts of other people, and foreign keys are not enforced.

        Raises:
            DiskFull: There is no room for it.
        """
        path = url.MEMORY
        if source is not None and size_of(source) > _LIMIT:
            path = os.path.join(self._folder(), f"{next(_numbers)}.db")
            if not self._open:
                require_room(path, _COPIES * size_of(source), "to try migrations on copies of the database")
        connection = apsw.Connection(path, vfs=self._vfs)
        self._open.append(connection)
        try:
            if source is not None:
                with connection.backup("main", source, "main") as backup:
                    while not backup.done:
                        backup.step(_PAGES)
        except apsw.FullError as error:
            raise DiskFull(f"{os.path.dirname(path)}: no room left for a copy of the database") from error
        if path != url.MEMORY:
            connection.pragma("journal_mode", "delete")  # its pages may say that it is in WAL mode
        sqlite.configure(connection, _IN_MEMORY)
        connection.pragma("synchronous", "off")
        use_defaults(connection)
        connection.pragma("foreign_keys", False)
        # SQLite calls back now and then, so that Ctrl-C is noticed in the middle of a long statement
        connection.set_progress_handler(lambda: False, 100_000)
        _foresee(connection)
        return connection

    def keep(self, *kept: Connection | None) -> None:
        """Close all copies but these."""
        for connection in self._open:
            if connection not in kept:
                path = sqlite.file_of(connection)
                connection.close(True)
                if path:
                    os.unlink(path)
        self._open = [connection for connection in self._open if connection in kept]


_numbers = itertools.count()


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Lend what makes copies. They are gone after the block."""
    name = f"dao-scratch-{next(_numbers)}"
    clock = _StandingClock(name)
    with contextlib.ExitStack() as stack:
        stack.callback(clock.unregister)
        folders: list[str] = []

        def folder() -> str:
            if not folders:
                folders.append(stack.enter_context(tempfile.TemporaryDirectory(prefix="dao-")))
            return folders[0]

        copies = Scratch(name, folder)
        try:
            yield copies
        finally:
            copies.keep()


def _foresee(connection: Connection) -> None:
    """Let `random()` and `randomblob()` give the same values on every connection, one after the other."""
    chance = random.Random(0)  # noqa: S311 - no secret

    def integer(*_none: Any) -> int:
        return chance.getrandbits(64) - 2**63

    def blob(*size: Any) -> bytes:
        return chance.randbytes(max(1, int(size[0] or 1)))

    # innocuous, or a default could not call them
    connection.create_scalar_function("random", integer, 0, flags=apsw.SQLITE_INNOCUOUS)
    connection.create_scalar_function("randomblob", blob, 1, flags=apsw.SQLITE_INNOCUOUS)
