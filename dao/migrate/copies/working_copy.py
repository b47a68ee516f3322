"""Working copies of a database: to run scripts in, and to throw away. In memory, or in files if they are large.

In all copies of one `WorkingCopies` it is the same moment, and chance is the same: a script that writes the time
or a random value does the same in each, so that what it does can be compared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
import time
from types import TracebackType
from typing import Any

import apsw

from dao import url
from dao.engine import sqlite
from dao.engine.sqlite import Connection, database_file
from dao.migrate.copies.copying import copy_into, size_of
from dao.migrate.copies.descriptors import Held
from dao.migrate.copies.new_files import new_file, require_room
from dao.migrate.events import Report
from dao.migrate.schema.session import prepare

__all__ = ["SMALL", "WorkingCopies", "WorkingCopy", "default_limit"]

_IN_MEMORY = url.DatabaseURL(path=url.MEMORY)
#: Up to this size in bytes each of several copies is in memory.
SMALL = 64 * 1024 * 1024
_LARGEST_IN_MEMORY = 1 << 30
#: Milliseconds of the Julian day at the beginning of 1970, as SQLite counts time.
_EPOCH = 210_866_760_000_000
_numbers = itertools.count()


class _StandingClock(apsw.VFS):
    """A file system, the usual one for "", in which it is always `now`: so many milliseconds, as SQLite counts them."""

    def __init__(self, base: str, now: int) -> None:
        self.name = f"dao-clock-{next(_numbers)}"
        self._now = now
        super().__init__(self.name, base=base)

    def xCurrentTimeInt64(self) -> int:  # noqa: N802 - SQLite's name
        return self._now

    def xCurrentTime(self) -> float:  # noqa: N802 - SQLite's name
        return self._now / 86_400_000


def default_limit() -> int:
    """Return up to which size in bytes one copy is in memory: 1 GiB, or a quarter of the machine's if that is less."""
    return min(_LARGEST_IN_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


class WorkingCopy(apsw.Connection):
    """A connection to a copy, set up as a run sets up the database; foreign keys are not enforced.

    Messages call it as the database that is `called` so: a copy is as damaged as that, and beside it.
    """

    called = ""

    def seed(self) -> None:
        """Let `random()` and `randomblob()` give the same values from here on, in turn, as on every copy."""
        chance = random.Random(0)  # noqa: S311 - no secret

        def integer(*_none: Any) -> int:
            return chance.getrandbits(64) - 2**63

        def blob(*size: Any) -> bytes:
            return chance.randbytes(max(1, int(size[0] or 1)))

        # innocuous, or a default could not call them
        self.create_scalar_function("random", integer, 0, flags=apsw.SQLITE_INNOCUOUS)
        self.create_scalar_function("randomblob", blob, 1, flags=apsw.SQLITE_INNOCUOUS)


class WorkingCopies(contextlib.AbstractContextManager["WorkingCopies"]):
    """Makes the copies, and closes those that are left when its block ends.

    Beyond `limit` bytes a copy is a file beside the path `beside`, of which a crash leaves none for long: the next
    one there removes it. `number` is how many times the size of the database there has to be room, and `what` needs
    it; `otherwise` says what else could be done.
    """

    def __init__(
        self,
        beside: str | None = None,
        limit: float = SMALL,
        *,
        number: int = 7,
        what: str = "to try migrations on copies of the database",
        otherwise: str = "",
    ) -> None:
        self._called = beside or ""
        self._beside = beside or os.path.join(tempfile.gettempdir(), "dao-copy")
        self._limit, self._number, self._what, self._otherwise = limit, number, what, otherwise
        self._now = _EPOCH + time.time_ns() // 1_000_000
        self._open: dict[WorkingCopy, contextlib.ExitStack] = {}

    def copy(self, source: Connection | None = None, report: Report | None = None) -> WorkingCopy:
        """Return a new copy of all that a connection sees, of an empty database without one.

        If that is in a read transaction throughout, others may write meanwhile: the copy is of one moment, and made
        in one go. A backup begins anew only when its source sees a change (sqlite.org/c3ref/backup_finish.html).

        Raises:
            DiskFull: There is no room for it.
        """
        size = 0 if source is None else size_of(source)
        is_file = size > self._limit
        with contextlib.ExitStack() as stack:
            path, base = url.MEMORY, ""
            if is_file:
                if not self._open:
                    require_room(self._beside, self._number * size, self._what, self._otherwise)
                new = stack.enter_context(new_file(self._beside))
                held = Held(new.path, new.file)
                stack.callback(held.unregister)
                path, base = new.path, held.name
            clock = _StandingClock(base, self._now)
            stack.callback(clock.unregister)
            copy = WorkingCopy(path, vfs=clock.name)
            copy.called = self._called if source is None else database_file.called(source)
            stack.callback(copy.close, True)
            if is_file:
                for name, value in (("locking_mode", "exclusive"), ("synchronous", "off"), ("journal_mode", "off")):
                    copy.pragma(name, value)
            if source is not None:
                copy_into(copy, source, report)
            if is_file:
                # as in a run; and when it is closed, it is thrown away
                copy.pragma("journal_mode", "wal")
                copy.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            sqlite.configure(copy, _IN_MEMORY)
            prepare(copy)
            copy.seed()
            self._open[copy] = stack.pop_all()
        return copy

    def keep(self, *kept: Connection | None) -> None:
        """Close all copies but these."""
        for copy in [copy for copy in self._open if copy not in kept]:
            self._open.pop(copy).close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # each says of what the file system refused in the block what it is
        until_done = contextlib.ExitStack()
        for copy in self._open.values():
            until_done.push(copy)
        return until_done.__exit__(kind, error, trace)
