"""The copy of a database on which migrations are rehearsed: in memory, or in a file beside it that goes with the rehearsal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from dao import url
from dao.engine import Connection, sqlite, use_defaults
from dao.migrate.copies.files import new_file, require_room, size_of
from dao.migrate.copies.held import hold
from dao.migrate.copies.scratch import _foresee, _StandingClock
from dao.migrate.values import Copying

__all__ = ["Copy", "default_limit", "working_copy"]

_IN_MEMORY = url.DatabaseURL(path=url.MEMORY)
_LARGEST_IN_MEMORY = 1 << 30
_PAGES = 1024  # copied at a time, so that Ctrl-C is noticed and the progress is shown
_DROPS = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE})


class Copy(apsw.Connection):
    """A connection to the copy. `dropped` has the tables, in lower case, that scripts have dropped in it.

    Messages call it as the database that is `called` so: a copy is as damaged as that, and beside it.
    """

    called = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.dropped: set[str] = set()
        self.steady = False
        self._authorizer: apsw.Authorizer | None = None

    @property
    def authorizer(self) -> apsw.Authorizer | None:
        """What a script is compiled under. Whoever sets one is asked; DROP TABLE is noted first."""
        return self._authorizer

    @authorizer.setter
    def authorizer(self, asked: apsw.Authorizer | None) -> None:
        self._authorizer = asked

        def noting(action: int, first: str | None, second: str | None, database: str | None, by: str | None) -> int:
            if action in _DROPS and database == "main" and first:
                self.dropped.add(first.lower())
            return asked(action, first, second, database, by) if asked else apsw.SQLITE_OK

        self.set_authorizer(noting if asked else None)

    def begin(self) -> None:
        """Get ready for the next script: nothing is dropped yet, and if the copy is steady, chance begins anew."""
        self.dropped.clear()
        if self.steady:
            _foresee(self)


def default_limit() -> int:
    """Return up to which size in bytes a copy is in memory: 1 GiB, or a quarter of the machine's memory if that is less."""
    return min(_LARGEST_IN_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


@contextlib.contextmanager
def working_copy(
    source: Connection | None, path: str, limit: int, *, steady: bool, report: Callable[[Copying], object]
) -> Iterator[Copy]:
    """Copy what a connection sees in its open read transaction; an empty database if there is none. It goes with the block.

    Since the transaction is held throughout, other connections may write meanwhile and the copy is still of one moment,
    and is made in one go: a backup begins anew only when its source sees a change (sqlite.org/c3ref/backup_finish.html).
    In WAL mode nobody waits for it; in the other modes a writer can commit when the copy is done.

    Beyond `limit` bytes it is a file beside the one at `path`, if there is one. `steady`: time stands still in it.

    Raises:
        DiskFull: There is no room for the file.
    """
    size = 0 if source is None else size_of(source)
    with contextlib.ExitStack() as stack:
        where, below = url.MEMORY, ""
        if path and size > limit:
            # as much again for what the migrations write
            otherwise = ", or let the copy be in memory (--memory-limit)"
            require_room(path, 2 * size, f"a rehearsal with a copy of {path}", otherwise)
            new = stack.enter_context(new_file(path))
            where, held = new.path, hold(new.path, new.file)
            stack.callback(held.unregister)
            below = held.name
        if steady:
            stack.callback(_StandingClock(f"dao-rehearsal-{id(stack)}", below).unregister)
        copy = Copy(where, vfs=f"dao-rehearsal-{id(stack)}" if steady else below or None)
        copy.steady, copy.called = steady, path
        stack.callback(copy.close, True)
        if source is not None:
            _fill(copy, source, where, report)
        _set_up(copy, where)
        yield copy


def _fill(copy: Connection, source: Connection, where: str, report: Callable[[Copying], object]) -> None:
    if where != url.MEMORY:
        for name, value in (("locking_mode", "exclusive"), ("synchronous", "off"), ("journal_mode", "off")):
            copy.pragma(name, value)
    with copy.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(_PAGES)
            report(Copying(backup.page_count - backup.remaining, backup.page_count))


def _set_up(copy: Connection, where: str) -> None:
    """Set the copy up as a run sets up the database: what is measured should be what will be."""
    if where != url.MEMORY:
        copy.pragma("journal_mode", "wal")
        # it is thrown away
        copy.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    sqlite.configure(copy, _IN_MEMORY)
    use_defaults(copy)
    copy.pragma("foreign_keys", False)
    # SQLite calls back now and then, so that Ctrl-C is noticed in the middle of a long statement
    copy.set_progress_handler(lambda: False, 100_000)
