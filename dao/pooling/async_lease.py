"""The lending of a pool's connections to tasks: waited for, opened, given back, whatever becomes of the task."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dao import engine, url
from dao.errors import ConnectionLost, OperationalError
from dao.pooling import async_server
from dao.pooling.async_connection import AsyncConnection, connect, run
from dao.pooling.lender import Lender, Place
from dao.pooling.loop import event, shielded, within
from dao.pooling.opening import prepare_connection
from dao.pooling.workers import abandon

if TYPE_CHECKING:
    import apsw

__all__ = ["Lease", "close"]


class Lease:
    """A connection for a block, `async with pool.acquire() as connection`: it goes back to the pool at the end."""

    __slots__ = ("__weakref__", "_enter", "_last_try", "_lender", "_place", "_timeout")

    def __init__(
        self, lender: Lender, enter: Callable[[], None], timeout: float, *, last_try: float = math.inf
    ) -> None:
        self._lender = lender
        self._enter = enter
        self._timeout = timeout
        self._last_try = last_try  # as of the lease for threads

    async def __aenter__(self) -> apsw.AsyncConnection | AsyncConnection:
        self._enter()
        lender = self._lender
        self._place = place = Place(self, lender.note_lost)
        place.connection = None
        begun = None
        asked = time.monotonic() if lender.listeners.all else None
        try:
            if not lender.take(place, event):
                begun = time.monotonic()
                for seconds in lender.waits(place, self._timeout):
                    await within(seconds, place.event.wait)
            connection: Any = place.connection
            if connection is None or (lender.on_server and not lender.engine.is_fresh(connection.plain)):
                connection = await self._open(place, begun)
            if asked is not None:
                lender.listeners.tell("wait", time.monotonic() - asked)
            return connection  # type: ignore[no-any-return] # of either kind
        except GeneratorExit:
            self.let_go()
            raise
        except BaseException:
            # also if the cancellation came as it was handed over
            if self._place.connection is not None and not self.put_back():
                await shielded(lambda: close(lender, place))
            lender.drop(place)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await shielded(lambda: self._give_back(value))
        del self._place  # nothing is lost when this dies

    async def _give_back(self, error: BaseException | None) -> None:
        lender, place = self._lender, self._place
        try:
            if place.connection is not None:
                usable = lender.may_return(error, harmless=(BaseException,)) and await _reset(lender, place.connection)
                if not lender.put_back(place, usable=usable):
                    await close(lender, place)
        except BaseException:
            lender.drop(place)
            raise

    def put_back(self) -> bool:
        """Put a connection back that was reset already. Return False if it has to be closed: leave the block then."""
        if back := self._lender.put_back(self._place, usable=True):
            del self._place
        return back

    def let_go(self) -> None:
        """Leave the block at once, in a coroutine that is closed or was dropped: there, nothing can be awaited."""
        lender, place = self._lender, self._place
        if place.connection is not None and place.connection is not lender.kept:
            abandon([place.connection])
        lender.note_lost(place)  # by the garbage collector, it may be, while this thread holds the lender's guard

    async def _open(self, place: Place, begun: float | None) -> Any:
        """Open a connection for a place that has been granted, and waited for since a moment of the monotonic clock."""
        lender = self._lender
        connection: Any = lender.kept
        if place.connection is not None:
            abandon([lender.replace(place)])
        if connection is None or not await _reset(lender, connection):
            connection = (
                await self._reached(lender.url, begun or time.monotonic())
                if isinstance(lender.url, url.ServerURL)
                else await self._opened(connect(lender.url))
            )
        lender.opened(place, connection)
        return connection

    async def _opened(self, opening: Awaitable[Any]) -> Any:
        begun = time.monotonic()
        connection = await opening
        if self._lender.prepare is not None:
            try:
                await run(connection, prepare_connection, self._lender.prepare)
            except BaseException:
                abandon([connection])
                raise
        self._lender.note_opened(time.monotonic() - begun)
        return connection

    async def _reached(self, server: url.ServerURL, begun: float) -> Any:
        """Connect to a server, again and again while it is being restarted, for as long as the lease may wait."""
        end = begun + self._timeout
        pauses = self._lender.pauses(min(end, self._last_try))
        while True:
            try:
                return await self._opened(async_server.open_connection(server, end))
            except ConnectionLost:
                pause = next(pauses, None)
                if pause is None:
                    raise
                await within(pause, event().wait)


async def _reset(lender: Lender, connection: Any) -> bool:
    # the user may have closed it
    with contextlib.suppress(lender.engine.DriverError, OperationalError):
        return await run(connection, engine.reset)
    return False


async def close(lender: Lender, place: Place) -> None:
    """Close a connection, and then count it as gone: when `Pool.aclose` returns, nothing is open any more."""
    try:
        with contextlib.suppress(lender.engine.DriverError):
            if place.connection is not None:
                await place.connection.aclose()
    finally:
        lender.drop(place)
