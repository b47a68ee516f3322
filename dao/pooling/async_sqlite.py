"""An asynchronous connection to SQLite: apsw's own, whose thread keeps no process alive and serves one event loop."""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apsw
import apsw.aio

from dao.engine import sqlite
from dao.engine.sqlite import Connection
from dao.errors import OperationalError
from dao.pooling.loop import is_asyncio, running
from dao.pooling.workers import OPEN, warn_unclosed
from dao.url import DatabaseURL

__all__ = ["open_connection"]


async def open_connection(url: DatabaseURL) -> apsw.AsyncConnection:
    """Open a database, with a thread of its own, for the loop that is running; it is yet to be set up."""
    arguments = sqlite.connection_arguments(url)
    kind = _Asyncio if is_asyncio(running()) else _Trio
    workers: list[_Worker] = []

    def work() -> _Worker:
        workers.append(kind(arguments[0]))
        return workers[0]

    controller: Any = work  # the stub is wrong
    before = apsw.async_controller.set(controller)
    try:
        return await apsw.Connection.as_async(*arguments, statementcachesize=sqlite.STATEMENT_CACHE)
    except BaseException as error:
        for worker in workers:  # cancelled before the thread has begun to open it, there is no connection to end it
            worker.close()
        if isinstance(error, RuntimeError):
            raise OperationalError(
                f"cannot open {arguments[0]}: {error}: this process has too many threads, no memory for another, or "
                "is ending"
            ) from error
        raise
    finally:
        apsw.async_controller.reset(before)


if TYPE_CHECKING:
    _Controller = apsw.aio.AsyncIO
else:
    _Controller = object


class _Worker(_Controller):
    """An addition to apsw's controllers: the thread keeps no process alive, and calls come from one loop only."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._home = running()
        self._is_closed = False
        # starts a thread that would keep the process alive until somebody closes the connection: it finds nothing to do
        super().__init__()
        self._thread = threading.Thread(target=self._serve, name=f"dao: {self.path}", daemon=True)
        self._thread.start()

    def worker_thread_run(self) -> None:
        """Do nothing, in a thread that ends with this."""

    def _serve(self) -> None:
        # nobody waits in a loop that has ended
        with contextlib.suppress(RuntimeError):
            super().worker_thread_run()  # type: ignore[no-untyped-call] # apsw annotates no return

    def configure(self, db: Connection) -> None:
        """Set the new connection up, in the thread."""
        super().configure(db)
        self._connection = weakref.ref(db)
        OPEN.add(self)
        if self._is_closed:  # nobody waits for it any more
            OPEN.discard(self)

    def send(self, call: Callable[[], Any]) -> Any:
        """Send a call to the thread; its result comes to the loop in which the connection was opened only."""
        if running() is not self._home:
            raise RuntimeError(f"this connection to {self.path} belongs to another event loop: open one in each")
        return super().send(call)

    def close(self) -> None:
        """End the thread: the connection was closed, no reference to it is left, or nobody waits until it is open."""
        self._is_closed = True
        if self in OPEN:
            OPEN.discard(self)
            if self._connection() is None:
                warn_unclosed(self.path)
        # when its thread has ended, the garbage collector may take it apart before it drops the connection
        with contextlib.suppress(AttributeError):
            super().close()  # type: ignore[no-untyped-call] # apsw annotates no return

    def abandon(self) -> None:
        """Interrupt the call, then end the thread. The connection is closed with the last reference to it."""
        connection = self._connection()
        if connection is not None:
            sqlite.interrupt(connection)
        OPEN.discard(self)
        self.close()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, for so long at the most."""
        self._thread.join(seconds)


class _Asyncio(_Worker, apsw.aio.AsyncIO):
    pass


class _Trio(_Worker, apsw.aio.Trio):  # type: ignore[misc] # to mypy alone a _Worker is an AsyncIO
    async def send(self, call: Callable[[], Any]) -> Any:
        """Send a call, and leave deadlines to trio: apsw raises TooSlowError at them, also where trio goes on."""
        before = apsw.aio.deadline.set(apsw.aio.deadline.get() or math.inf)
        try:
            return await super().send(call)
        finally:
            apsw.aio.deadline.reset(before)
