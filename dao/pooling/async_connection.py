"""A connection for async code: opened, used from the one event loop that it belongs to, and ended with the process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import apsw
import apsw.aio

from dao import url
from dao.engine import sqlite
from dao.engine.sqlite import Connection, database_file, fork
from dao.errors import OperationalError, UnsupportedEngine
from dao.pooling.loop import is_asyncio, running, shielded, within
from dao.transactions import done

__all__ = ["abandon", "connect", "run", "warn_unclosed"]

P = ParamSpec("P")
T = TypeVar("T")


async def connect(database_url: str | url.AnyURL) -> apsw.AsyncConnection:
    """Open a database as `dao.connect` does, with a thread of its own. Close it with `await connection.aclose()`.

    It belongs to the event loop that is running. One that is still open when the process ends is closed then, with a
    ResourceWarning.

    Raises:
        InvalidURL: The URL means nothing.
        OperationalError: The database cannot be opened.
    """
    parsed = url.parse(database_url)
    if isinstance(parsed, url.ServerURL):
        raise UnsupportedEngine(f"{parsed}: asynchronous connections are to SQLite only")
    sqlite.check_version()
    opened: list[apsw.AsyncConnection] = []
    dropped = False

    async def open_connection() -> None:
        arguments = sqlite.connection_arguments(parsed)
        kind = _Asyncio if is_asyncio(running()) else _Trio
        controller: Any = functools.partial(kind, arguments[0])  # the stub is wrong
        before = apsw.async_controller.set(controller)
        try:
            opened.append(await apsw.Connection.as_async(*arguments, statementcachesize=sqlite.STATEMENT_CACHE))
        except RuntimeError as error:
            raise OperationalError(
                f"cannot open {arguments[0]}: {error}: this process has too many threads, no memory for another, or is "
                "ending"
            ) from error
        finally:
            apsw.async_controller.reset(before)
        if dropped:
            abandon(opened)

    try:
        # whole, even if cancelled: half an opening leaves its thread behind
        await shielded(open_connection)
        await run(opened[0], sqlite.configure, parsed)
    except GeneratorExit:  # as in `run`
        dropped = True
        abandon(opened)
        raise
    except BaseException as error:
        for connection in opened:
            await shielded(connection.aclose)
        if isinstance(error, apsw.CantOpenError | apsw.IOError):
            raise database_file.not_opened(parsed.path, parsed.mode) from error
        raise
    return opened[0]


async def run(
    connection: apsw.AsyncConnection,
    function: Callable[Concatenate[Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `function(connection, …)` in the connection's thread and return its result.

    When the task is cancelled, the statement that is running is interrupted and its transaction rolled back, and only
    then does the cancellation go on. So the connection is free again, and nothing goes on behind the caller's back. A
    function that was done before the interruption reached it keeps its effect.

    Raises:
        RuntimeError: The connection belongs to another event loop, or the function raised StopIteration or
            GeneratorExit.
        TypeError: It is no asynchronous connection, or the function returned before its work was done: a coroutine, a
            generator.
    """
    if not getattr(connection, "is_async", False):
        raise TypeError(
            f"expected an asynchronous connection, got {type(connection).__name__}: open one with "
            "`await dao.aio.connect(url)`, or use `await pool.run(function, …)`"
        )
    fork.check(connection)
    at_work: list[bool] = []  # not empty while it is
    try:
        result: T = await connection.async_run(_call, at_work, function, connection, args, kwargs)
        return result
    except Exception:
        raise
    except GeneratorExit:  # of a coroutine that is dropped, where nothing can be awaited
        if at_work:
            connection.interrupt()
        raise
    except BaseException:
        await shielded(lambda: _stop(connection, at_work))
        raise


def _call(at_work: list[bool], function: Callable[..., T], connection: Any, args: Any, kwargs: Any) -> T:
    # in its own thread it is a plain connection
    at_work.append(True)
    try:
        return done(function(connection, *args, **kwargs))
    except (StopIteration, GeneratorExit) as error:
        # to await a future with one of these never ends; generators, too, turn the first into this (PEP 479)
        raise RuntimeError(f"the function raised {type(error).__name__}") from error
    finally:
        at_work.clear()


async def _stop(connection: apsw.AsyncConnection, at_work: list[bool]) -> None:
    ended = False
    while not ended:
        if at_work:
            connection.interrupt()  # again and again: one that comes between two statements is lost
        # the worker takes its calls in order: this one comes back when the cancelled one has ended
        ended = await within(0.05, lambda: connection.async_run(lambda: None))


# ---------------------------------------------------------------- the worker thread

if TYPE_CHECKING:
    _Controller = apsw.aio.AsyncIO
else:
    _Controller = object


class _Worker(_Controller):
    """An addition to apsw's controllers: the thread keeps no process alive, and calls come from one loop only."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._home = running()
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
        _OPEN.add(self)

    def send(self, call: Callable[[], Any]) -> Any:
        """Send a call to the thread; its result comes to the loop in which the connection was opened only."""
        if running() is not self._home:
            raise RuntimeError(f"this connection to {self.path} belongs to another event loop: open one in each")
        return super().send(call)

    def close(self) -> None:
        """End the thread: the connection was closed, or no reference to it is left."""
        if self in _OPEN:
            _OPEN.discard(self)
            if self._connection() is None:
                warn_unclosed(self.path)
        # when its thread has ended, the garbage collector may take it apart before it drops the connection
        with contextlib.suppress(AttributeError):
            super().close()  # type: ignore[no-untyped-call] # apsw annotates no return

    def abandon(self) -> None:
        """Interrupt the call, then end the thread. The connection is closed with the last reference to it."""
        connection = self._connection()
        with contextlib.suppress(apsw.ConnectionClosedError):
            if connection is not None:
                connection.interrupt()
        _OPEN.discard(self)
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


_OPEN: set[_Worker] = set()


def abandon(connections: Iterable[apsw.AsyncConnection]) -> None:
    """End the threads of connections whose loop has ended."""
    for connection in connections:
        worker: Any = connection.async_controller
        worker.abandon()


def warn_unclosed(path: str) -> None:
    """Warn of a database whose connections were not closed."""
    warnings.warn(
        f"{path}: asynchronous connections were not closed; use `async with` or `await pool.aclose()`",
        ResourceWarning,
        stacklevel=2,
    )


def _at_exit() -> None:
    workers = list(_OPEN)
    for path in sorted({worker.path for worker in workers}):
        warn_unclosed(path)
    for worker in workers:
        worker.abandon()
    for worker in workers:
        worker.join(1.0)  # what it does even then is undone when the file is next opened


# after all other threads have ended, so that a loop in one of them is served to its end
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_OPEN.clear)
