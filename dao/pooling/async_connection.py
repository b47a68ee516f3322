"""A connection for async code: opened, used from the one event loop that it belongs to, and ended with the process.

apsw has its own, in `async_sqlite`, and one to a server is in `async_server`. Both have what is asked of them here:
`async_run`, `aclose`, `is_async`, and a `Worker` as their `async_controller`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import apsw

from dao import url
from dao.engine import sqlite
from dao.engine.sqlite import database_file, fork
from dao.pooling import async_server, async_sqlite
from dao.pooling.async_server import AsyncConnection
from dao.pooling.loop import shielded, within
from dao.pooling.workers import abandon
from dao.transactions import done

__all__ = ["AsyncConnection", "connect", "interrupt", "run"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
async def connect(database_url: url.DatabaseURL) -> apsw.AsyncConnection: ...
@overload
async def connect(database_url: url.ServerURL) -> AsyncConnection: ...
@overload
async def connect(database_url: str | url.AnyURL) -> Any: ...
async def connect(database_url: str | url.AnyURL) -> Any:
    """Open a database as `dao.connect` does, with a thread of its own. Close it with `await connection.aclose()`.

    It belongs to the event loop that is running. One that is still open when the process ends is closed then, with a
    ResourceWarning. It is an `apsw.AsyncConnection` to SQLite; one to PostgreSQL is for `run` only, whose functions get
    the `psycopg.Connection`.

    Raises:
        InvalidURL: The URL means nothing.
        ConnectionLost: No server could be reached.
        OperationalError: The database cannot be opened.
    """
    parsed = url.parse(database_url)
    if isinstance(parsed, url.ServerURL):
        return await async_server.open_connection(parsed)
    sqlite.check_version()
    opened: list[apsw.AsyncConnection] = []
    dropped = False

    async def open_connection() -> None:
        opened.append(await async_sqlite.open_connection(parsed))
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
    connection: apsw.AsyncConnection | AsyncConnection,
    function: Callable[Concatenate[Any, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `function(connection, …)` in the connection's thread and return its result.

    The function sees the context variables of the task; what it sets of them ends with it.

    When the task is cancelled, the statement that is running is interrupted and its transaction rolled back, and only
    then does the cancellation go on. So the connection is free again, and nothing goes on behind the caller's back. A
    function that was done before the interruption reached it keeps its effect. On PostgreSQL the server cancels the
    statement; if it does not within 10 seconds, the connection is given up.

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
    if isinstance(connection, AsyncConnection):
        plain = connection.plain
    else:
        fork.check(connection)
        plain = connection  # which it is in its own thread
    at_work: list[bool] = []  # not empty while it is
    try:
        result: T = await connection.async_run(_call, at_work, function, plain, args, kwargs)
        return result
    except Exception:
        raise
    except GeneratorExit:  # of a coroutine that is dropped, where nothing can be awaited
        _interrupt(connection, at_work)
        raise
    except BaseException:
        await shielded(lambda: _stop(connection, at_work))
        raise


def interrupt(connection: Any) -> None:
    """Interrupt the call that is running in a connection's thread, if it is open."""
    if isinstance(connection, AsyncConnection):
        connection.async_controller.interrupt()
    else:
        sqlite.interrupt(connection)


def _call(at_work: list[bool], function: Callable[..., T], connection: Any, args: Any, kwargs: Any) -> T:
    at_work.append(True)
    try:
        return done(function(connection, *args, **kwargs))
    except (StopIteration, GeneratorExit) as error:
        # to await a future with one of these never ends; generators, too, turn the first into this (PEP 479)
        raise RuntimeError(f"the function raised {type(error).__name__}") from error
    finally:
        while not _taken(at_work):
            time.sleep(0)  # an interruption is on its way, and must not meet the next function


def _taken(at_work: list[bool]) -> bool:
    """Take what says that the function is at work, and return whether it was there: nobody else can take it, too."""
    try:
        return at_work.pop()
    except IndexError:
        return False


def _interrupt(connection: Any, at_work: list[bool]) -> None:
    if _taken(at_work):
        try:
            interrupt(connection)
        finally:
            at_work.append(True)


async def _stop(connection: Any, at_work: list[bool]) -> None:
    ended = False
    while not ended:
        _interrupt(connection, at_work)  # again and again: one that comes between two statements is lost
        # the worker takes its calls in order: this one comes back when the cancelled one has ended
        ended = await within(0.05, lambda: connection.async_run(lambda: None))
