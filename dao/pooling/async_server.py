"""An asynchronous connection to a server: a plain one in a thread of its own, with apsw's names for what it does."""

from __future__ import annotations

import math
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

from dao.engine import engine_of
from dao.errors import OperationalError
from dao.pooling.calls import Call
from dao.pooling.loop import event, running, waking
from dao.pooling.workers import OPEN, warn_unclosed
from dao.url import ServerURL

__all__ = ["AsyncConnection", "open_connection"]


async def open_connection(url: ServerURL, deadline: float = math.inf) -> AsyncConnection:
    """Connect to a server until a moment of the monotonic clock, in a new thread, for the loop that is running."""
    worker = _Worker(url)
    try:
        await worker.send(worker.open, deadline)
    except BaseException:  # the thread goes on by itself, and closes what it may open yet
        worker.abandon()
        raise
    return AsyncConnection(worker)


class AsyncConnection:
    """A connection to a server for async code: `await dao.aio.run(connection, function, …)`.

    Functions run in a thread of its own, one after the other, on `plain`, the driver's connection.
    """

    is_async = True

    def __init__(self, worker: _Worker) -> None:
        self.async_controller = worker
        self.plain = worker.connection
        weakref.finalize(self, worker.forsake).atexit = False

    async def async_run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call a function in the thread, and return what it returns."""
        return await self.async_controller.send(function, *args)

    async def aclose(self) -> None:
        """Close the connection, after the calls that were made before, and end the thread. Safe to repeat."""
        await self.async_controller.close()

    def close(self) -> None:
        """Close the connection, where no event loop is running, and end the thread."""
        self.async_controller.abandon()
        self.async_controller.join(1.0)


class _Worker:
    """The thread, and the queue of the calls that it makes. It does not know the connection that knows it."""

    def __init__(self, url: ServerURL) -> None:
        self.path = url.name
        self.connection: Any = None
        self._url = url
        self._engine = engine_of(url)
        self._home = running()
        self._process = os.getpid()
        self._wake = waking(self._home)
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._closed = self._abandoned = False
        self._thread = threading.Thread(target=self._serve, name=f"dao: {self.path}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OperationalError(
                f"cannot open {self.path}: {error}: this process has too many threads, no memory for another, or is "
                "ending"
            ) from error
        OPEN.add(self)

    def open(self, deadline: float) -> None:
        """Open the connection, in the thread."""
        self.connection = self._engine.open_connection(self._url, deadline)

    async def send(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call a function in the thread; what it returns comes to the loop in which the connection was opened only."""
        return await self._outcome(self._put(function, args))

    def _put(self, function: Callable[..., Any], args: Any) -> Call:
        if os.getpid() != self._process:
            raise OperationalError(
                f"this connection to {self.path} belongs to the parent of this process: open one here, or start the "
                "process with spawn or forkserver instead of fork"
            )
        if running() is not self._home:
            raise RuntimeError(f"this connection to {self.path} belongs to another event loop: open one in each")
        if self._closed:
            raise self._is_closed()
        call = Call(function, args, {}, event())
        self._calls.put(call)
        return call

    async def _outcome(self, call: Call) -> Any:
        try:
            await call.ended.wait()
        except BaseException:
            call.left = True
            raise
        return call.outcome()

    def _is_closed(self) -> OperationalError:
        return OperationalError(f"this connection to {self.path} is closed")

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._abandoned:
                call.error = self._is_closed()
            elif not call.left:
                call.make()
                if self.connection is not None:
                    self._engine.settle(self.connection)
            self._wake([call.ended])
            del call  # and all that it holds
        if self.connection is not None:
            self.connection.close()

    def interrupt(self) -> None:
        """Interrupt the call that is running, if the connection is open."""
        if self.connection is not None:
            self._engine.interrupt(self.connection)

    async def close(self) -> None:
        """End the thread after the calls before this, which closes the connection."""
        if not self._closed:
            call = self._put(self.connection.close, ())
            self._end()  # also if this is cancelled
            await self._outcome(call)

    def abandon(self) -> None:
        """Interrupt the call that is running, run none of those that wait, and end the thread."""
        self._abandoned = True
        if not self._closed:
            self._end()
        self.interrupt()

    def forsake(self) -> None:
        """End the thread, as no reference to the connection is left."""
        if self in OPEN:
            warn_unclosed(self.path)
            self.abandon()

    def _end(self) -> None:
        OPEN.discard(self)
        self._closed = True
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, for so long at the most."""
        self._thread.join(seconds)
