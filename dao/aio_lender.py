"""How `dao.aio.Pool` lends its connections: which event loop they belong to, who gets one, and who waits for one."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from typing import Any

import apsw

from dao import url
from dao.aio_connection import abandon, connect
from dao.aio_writer import TaskWriter
from dao.errors import PoolClosed
from dao.eventloop import Event, event, is_over, running, shielded, within
from dao.fork import FORKED
from dao.lending import is_broken, reset, timed_out, warn_unclosed

__all__ = ["Lender"]


class _Waiter:
    """A task in the queue, until it is served: with a connection, or with leave to open one."""

    __slots__ = ("connection", "event", "served")

    def __init__(self) -> None:
        self.event = event()
        self.connection: apsw.AsyncConnection | None = None
        self.served = False


class Lender:
    """The connections of a pool, for one event loop after the other."""

    def __init__(self, database_url: url.DatabaseURL, size: int) -> None:
        self._url = database_url
        self._size = 1 if database_url.is_memory else size
        self._loop: Any = None  # that of the connections
        self._moving = threading.Lock()
        self._idle: list[apsw.AsyncConnection] = []
        self._held: set[apsw.AsyncConnection] = set()
        self._opening = 0
        self._queue: deque[_Waiter] = deque()
        self._closed: str | None = None
        self._drained: Event | None = None
        self._writer: TaskWriter | None = None
        self._acquired = self._timeouts = self._recycled = 0
        self._waited = self._longest_wait = 0.0
        # those that the process's end finds open are closed with a warning there
        weakref.finalize(self, _unclosed, self._url.path, self._idle, self._held).atexit = False
        _POOLS.add(self)

    # ------------------------------------------------------------ its event loop

    def _enter(self, *, closing: bool = False) -> None:
        """Make sure that the pool is the running loop's, which it may be if the loop before has ended."""
        loop = running()
        if loop is self._loop:
            return
        with self._moving:
            before, usable = self._loop, closing or not self._url.is_memory
            if before is None or (is_over(before) and usable):
                self._loop = loop
        if self._loop is not loop:
            raise PoolClosed(
                f"this pool of {self._url.path} belongs to another event loop"
                + (": each loop needs a pool of its own" if usable else ", and the database in memory ended with that")
            )
        if before is not None:
            abandon([*self._idle, *self._held])
            self._forget()
            if self._writer is not None:
                self._writer.move()

    def _forget(self) -> None:
        """Forget the connections, and who held or awaited one: none of that goes on."""
        self._idle.clear()
        self._held.clear()
        self._queue.clear()
        self._opening = 0
        self._drained = None

    def _abandon(self) -> None:
        """In a forked child: nothing that was open can be used; a pool that had opened nothing goes on."""
        if self._idle or self._held or self._opening or self._writer:
            self._closed = FORKED
        if self._writer is not None:
            self._writer.unclosed.detach()
        self._forget()
        self._loop = self._writer = None
        self._moving = threading.Lock()

    # ------------------------------------------------------------ lending

    async def _take(self, timeout: float) -> apsw.AsyncConnection:
        if self._closed is not None:
            raise PoolClosed(self._closed)
        if self._idle:
            connection = self._idle.pop()
            self._lend(connection)
            return connection
        if len(self._held) + self._opening < self._size:
            self._opening += 1
        else:
            waiter = _Waiter()
            self._queue.append(waiter)
            lent = await self._wait(waiter, timeout)
            if lent is not None:
                return lent
        return await self._open()

    async def _wait(self, waiter: _Waiter, timeout: float) -> apsw.AsyncConnection | None:
        """Wait in the queue. Return the connection, or None with leave to open one."""
        begun = time.monotonic()
        try:
            await within(timeout, waiter.event.wait)
        except BaseException:
            if not waiter.served:
                with contextlib.suppress(ValueError):
                    self._queue.remove(waiter)
            elif waiter.connection is not None:
                connection = waiter.connection
                await shielded(lambda: self._give_back(connection, None))
            else:
                self._abandon_opening()
            raise
        waited = time.monotonic() - begun
        self._waited += waited
        self._longest_wait = max(self._longest_wait, waited)
        if waiter.served:
            return waiter.connection
        if self._closed is not None:
            raise PoolClosed(self._closed)
        self._queue.remove(waiter)
        self._timeouts += 1
        raise timed_out(self._url, timeout, self._size, len(self._queue))

    def _lend(self, connection: apsw.AsyncConnection) -> None:
        self._held.add(connection)
        self._acquired += 1

    async def _open(self) -> apsw.AsyncConnection:
        """Open a connection in the place that was reserved for it."""
        try:
            connection = await connect(self._url)
        except BaseException:
            self._abandon_opening()
            raise
        if self._closed is not None:
            await shielded(connection.aclose)
            self._abandon_opening()
            raise PoolClosed(self._closed)
        self._opening -= 1
        self._lend(connection)
        return connection

    def _abandon_opening(self) -> None:
        self._opening -= 1
        self._pass_on(None)
        self._note_drained()

    async def _give_back(self, connection: apsw.AsyncConnection, error: BaseException | None) -> None:
        usable = False
        # the user may have closed it, and what the user did is told already
        try:
            with contextlib.suppress(apsw.Error):
                if self._url.is_memory or not is_broken(error):
                    usable = await connection.async_run(reset, connection)
                if not usable or self._closed is not None:
                    await connection.aclose()
        finally:
            self._put_back(connection, usable=usable)

    def _put_back(self, connection: apsw.AsyncConnection, *, usable: bool) -> None:
        """Take a connection out of use: for the next one, if it is still open."""
        if connection not in self._held:
            return  # its loop has ended, or a fork came in between
        self._held.discard(connection)
        if not usable:
            self._recycled += 1
            self._pass_on(None)
        elif self._closed is None and not self._pass_on(connection):
            self._idle.append(connection)
        self._note_drained()

    def _pass_on(self, connection: apsw.AsyncConnection | None) -> bool:
        """Serve whoever waits longest: with the connection, or with leave to open one."""
        if self._closed is not None or not self._queue:
            return False
        waiter = self._queue.popleft()
        waiter.connection = connection
        waiter.served = True
        if connection is None:
            self._opening += 1
        else:
            self._lend(connection)
        waiter.event.set()
        return True

    def _note_drained(self) -> None:
        if self._drained is not None and not self._held and not self._opening:
            self._drained.set()


def _unclosed(path: str, idle: list[apsw.AsyncConnection], held: set[apsw.AsyncConnection]) -> None:
    """End what a pool leaves behind that nobody has any more."""
    if connections := [*idle, *held]:
        abandon(connections)
        warn_unclosed(path)


_POOLS: weakref.WeakSet[Lender] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool._abandon()


os.register_at_fork(after_in_child=_after_fork)
