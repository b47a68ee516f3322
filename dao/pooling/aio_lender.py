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
from dao.engine import reset
from dao.engine.sqlite.fork import FORKED
from dao.errors import PoolClosed
from dao.pooling.aio_connection import abandon, connect
from dao.pooling.aio_writer import TaskWriter
from dao.pooling.lending import is_broken, timed_out, warn_unclosed
from dao.pooling.loop import Event, event, is_over, running, shielded, within

__all__ = ["Lender", "Place", "opened"]


class Place:
    """One of `size` connections, to be opened if it is None, or a place in the queue for one."""

    __slots__ = ("connection", "event")

    connection: apsw.AsyncConnection | None
    event: Event  # of who waits for it

    def __init__(self) -> None:
        self.connection = None


class Lender:
    """The connections of a pool, for one event loop after the other."""

    def __init__(self, database_url: url.DatabaseURL, size: int) -> None:
        self._url = database_url
        self._size = 1 if database_url.is_memory else size
        self._loop: Any = None  # that of the connections
        self._moving = threading.Lock()
        self._idle: list[apsw.AsyncConnection] = []
        self._taken: set[Place] = set()
        self._queue: deque[Place] = deque()
        self._closed: str | None = None
        self._drained: Event | None = None
        self._writer: TaskWriter | None = None
        self._acquired = self._timeouts = self._recycled = 0
        self._waited = self._longest_wait = 0.0
        # those that the process's end finds open are closed with a warning there
        weakref.finalize(self, _unclosed, self._url.path, self._idle, self._taken).atexit = False
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
            abandon(opened(self._idle, self._taken))
            self._forget()
            if self._writer is not None:
                self._writer.move()

    def _forget(self) -> None:
        """Forget the connections, and who held or awaited one: none of that goes on, and what is let go of later is no place."""
        self._idle.clear()
        self._taken.clear()
        self._queue.clear()
        self._drained = None

    def _abandon(self) -> None:
        """In a forked child: nothing that was open can be used; a pool that had opened nothing goes on."""
        if self._idle or self._taken or self._writer:
            self._closed = FORKED
        if self._writer is not None:
            self._writer.unclosed.detach()
        self._forget()
        self._loop = self._writer = None
        self._moving = threading.Lock()

    # ------------------------------------------------------------ lending

    async def _take(self, timeout: float) -> tuple[Place, apsw.AsyncConnection]:
        if self._closed is not None:
            raise PoolClosed(self._closed)
        place = Place()
        if not self._grant(place):
            await self._wait(place, timeout)
        connection = place.connection or await self._open(place)
        self._acquired += 1
        return place, connection

    def _grant(self, place: Place) -> bool:
        """Give a place one of `size`, and an idle connection or leave to open one, if there is room."""
        if len(self._taken) >= self._size:
            return False
        if self._idle:
            place.connection = self._idle.pop()
        self._taken.add(place)
        return True

    async def _wait(self, place: Place, timeout: float) -> None:
        """Wait in the queue until the place is granted."""
        begun = time.monotonic()
        place.event = event()
        self._queue.append(place)
        try:
            await within(timeout, place.event.wait)
        except BaseException:
            if place.connection is not None:
                await shielded(lambda: self._give_back(place, None))
            self._drop(place)
            raise
        waited = time.monotonic() - begun
        self._waited += waited
        self._longest_wait = max(self._longest_wait, waited)
        if place in self._taken:
            return
        if self._closed is not None:
            raise PoolClosed(self._closed)
        self._drop(place)
        self._timeouts += 1
        raise timed_out(self._url, timeout, self._size, len(self._queue))

    async def _open(self, place: Place) -> apsw.AsyncConnection:
        """Open a connection for a place that has been granted."""
        try:
            connection = await connect(self._url)
            if self._closed is not None:
                await shielded(connection.aclose)
                raise PoolClosed(self._closed)
        except BaseException:
            self._drop(place)
            raise
        place.connection = connection
        return connection

    async def _give_back(self, place: Place, error: BaseException | None) -> None:
        connection: Any = place.connection
        usable = False
        # the user may have closed it, and what the user did is told already
        try:
            with contextlib.suppress(apsw.Error):
                if self._url.is_memory or not is_broken(error):
                    usable = await connection.async_run(reset, connection)
                if not usable or self._closed is not None:
                    await connection.aclose()
        finally:
            self._put_back(place, usable=usable)

    def _put_back(self, place: Place, *, usable: bool) -> None:
        """Take a connection out of use: for the next one, if it is still open."""
        if place in self._taken:
            if not usable:
                self._recycled += 1
            elif self._closed is None and place.connection is not None:
                self._idle.append(place.connection)
            self._drop(place)

    def _drop(self, place: Place) -> None:
        """Let go of a place, and serve whoever waits longest. Safe to repeat."""
        with contextlib.suppress(ValueError):
            self._queue.remove(place)
        self._taken.discard(place)
        if self._queue and self._grant(self._queue[0]):
            self._queue.popleft().event.set()
        if self._drained is not None and not self._taken:
            self._drained.set()


def opened(idle: list[apsw.AsyncConnection], taken: set[Place]) -> list[apsw.AsyncConnection]:
    """Return the connections that a pool has, those that are lent too."""
    return [*idle, *(place.connection for place in taken if place.connection is not None)]


def _unclosed(path: str, idle: list[apsw.AsyncConnection], taken: set[Place]) -> None:
    """End what a pool leaves behind that nobody has any more."""
    if connections := opened(idle, taken):
        abandon(connections)
        warn_unclosed(path)


_POOLS: weakref.WeakSet[Lender] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool._abandon()


os.register_at_fork(after_in_child=_after_fork)
