"""The same functions from async code, on asyncio and on trio.

Nothing is written twice: a table module's function runs as it is, in the worker thread of an `apsw.AsyncConnection`::

    async with aio.Pool("sqlite:///orchestrator.db") as pool:
        await pool.run(tasks.create, task)
        page = await pool.run(tasks.find, status="pending")

Several steps that belong together go into a function of your own, with `dao.transaction` in it. It runs without giving
way to other tasks in the middle of the transaction.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import apsw
import apsw.aio

from dao import engine, fork, sqlite, url
from dao.aio_writer import TaskWriter
from dao.engine import Connection
from dao.errors import Error, OperationalError, PoolClosed
from dao.eventloop import Event, event, shielded, within
from dao.lending import Health, PoolStats, check_bounds, is_broken, reset, timed_out

__all__ = ["Pool", "connect", "run"]

P = ParamSpec("P")
T = TypeVar("T")


async def connect(database_url: str | url.DatabaseURL) -> apsw.AsyncConnection:
    """Open a database as `dao.connect` does, with a worker thread of its own. Close it with `await connection.aclose()`.

    Raises:
        InvalidURL: The URL means nothing.
        OperationalError: The database cannot be opened.
    """
    parsed = database_url if isinstance(database_url, url.DatabaseURL) else url.parse(database_url)
    sqlite.check_version()
    opened: list[apsw.AsyncConnection] = []

    async def open_connection() -> None:
        arguments = sqlite.connection_arguments(parsed)
        opened.append(await apsw.Connection.as_async(*arguments, statementcachesize=sqlite.STATEMENT_CACHE))

    try:
        # whole, even if cancelled: half an opening leaves its thread behind, and the process never ends
        await shielded(open_connection)
        await run(opened[0], sqlite.configure, parsed)
    except BaseException as error:
        for connection in opened:
            await shielded(connection.aclose)
        if isinstance(error, apsw.CantOpenError | apsw.IOError):
            raise OperationalError(sqlite.why_not_opened(parsed)) from error
        raise
    return opened[0]


async def run(
    connection: apsw.AsyncConnection,
    function: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `function(connection, …)` in the connection's thread and return its result.

    When the task is cancelled, the statement that is running is interrupted and its transaction rolled back, and only
    then does the cancellation go on. So the connection is free again, and nothing goes on behind the caller's back. A
    function that was done before the interruption reached it keeps its effect.
    """
    fork.check(connection)
    running: list[bool] = []  # not empty while it is
    try:
        result: T = await connection.async_run(_call, running, function, connection, args, kwargs)
        return result
    except Exception:
        raise
    except BaseException:
        await shielded(lambda: _stop(connection, running))
        raise


def _call(running: list[bool], function: Callable[..., T], connection: Any, args: Any, kwargs: Any) -> T:
    # in its own thread it is a plain connection
    running.append(True)
    try:
        return function(connection, *args, **kwargs)
    finally:
        running.clear()


async def _stop(connection: apsw.AsyncConnection, running: list[bool]) -> None:
    ended = False
    while not ended:
        if running:
            connection.interrupt()  # again and again: one that comes between two statements is lost
        # the worker takes its calls in order: this one comes back when the cancelled one has ended
        ended = await within(0.05, lambda: connection.async_run(lambda: None))


class _Waiter:
    """A task in the queue, until it is served: with a connection, or with leave to open one."""

    __slots__ = ("connection", "event", "served")

    def __init__(self) -> None:
        self.event = event()
        self.connection: apsw.AsyncConnection | None = None
        self.served = False


class Pool:
    """Up to `size` connections to one database, each lent to one task at a time, for one event loop.

    As `dao.Pool`: opened when needed, lent in the order of arrival, one connection for a database in memory.
    """

    def __init__(self, database_url: str | url.DatabaseURL, *, size: int = 5, timeout: float = 30.0) -> None:
        """Make a pool; opens nothing yet. `timeout` is how many seconds `acquire` waits for a connection.

        Raises:
            InvalidURL: The URL means nothing.
            ValueError: The size is below 1 or the timeout below 0.
        """
        check_bounds(size, timeout)
        self._url = sqlite.absolute(
            database_url if isinstance(database_url, url.DatabaseURL) else url.parse(database_url)
        )
        self._size = 1 if self._url.is_memory else size
        self._timeout = timeout
        self._idle: list[apsw.AsyncConnection] = []
        self._held: set[apsw.AsyncConnection] = set()
        self._opening = 0
        self._queue: deque[_Waiter] = deque()
        self._closed = False
        self._drained: Event | None = None
        self._writer: TaskWriter | None = None
        self._acquired = self._timeouts = self._recycled = 0
        self._waited = self._longest_wait = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` on a connection of the pool: `await pool.run(tasks.get, id)`.

        Raises:
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed.
            Error: What the function raises.
        """
        connection = await self._take(self._timeout)

        def call(given: Connection) -> tuple[T, bool]:
            return function(given, *args, **kwargs), reset(given)  # a trip to the thread of its own costs as much again

        try:
            result, usable = await run(connection, call)
        except BaseException as error:
            await shielded(functools.partial(self._give_back, connection, error))
            raise
        if not usable or self._closed:
            await shielded(lambda: self._give_back(connection, None))
        else:
            self._put_back(connection, usable=True)
        return result

    async def write(self, function: Callable[..., T], *args: Any, timeout: float | None = None, **kwargs: Any) -> T:
        """Call `function(connection, *args, **kwargs)` in a transaction shared with other writes, as `dao.Pool.write`.

        A task that is cancelled in the queue leaves it, and its function never runs. Once that has begun, the
        cancellation waits for the commit, so that nothing goes on behind the caller's back: what it wrote stays.

        Raises:
            Error: As `dao.Pool.write`.
        """
        if timeout is None:
            timeout = self._timeout
        else:
            check_bounds(self._size, timeout)
        if self._url.is_memory:
            async with self.acquire(timeout=timeout) as connection:
                return await run(connection, engine.run_in_transaction, function, *args, **kwargs)
        if self._closed:
            raise PoolClosed("the pool is closed")
        if self._writer is None:
            self._writer = TaskWriter(self._url)
        written: T = await self._writer.write(function, args, kwargs, timeout)
        return written

    @contextlib.asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[apsw.AsyncConnection]:
        """Lend a connection for a block: `async with pool.acquire() as connection: await aio.run(connection, …)`.

        A transaction that the block leaves open is rolled back. After an error that may be the connection's own, the
        connection is replaced by a new one. `timeout` is in seconds and replaces the pool's.

        Raises:
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed.
            OperationalError: A connection could not be opened.
        """
        connection = await self._take(self._timeout if timeout is None else timeout)
        error: BaseException | None = None
        try:
            yield connection
        except BaseException as raised:
            error = raised
            raise
        finally:
            await shielded(lambda: self._give_back(connection, error))

    def stats(self) -> PoolStats:
        """Return what the pool is doing now and has done so far."""
        writer = self._writer.writer if self._writer is not None else None
        return PoolStats(
            size=self._size,
            idle=len(self._idle),
            active=len(self._held) + self._opening,
            waiting=len(self._queue),
            acquired=self._acquired,
            timeouts=self._timeouts + (writer.timeouts if writer else 0),
            recycled=self._recycled,
            wait_seconds=self._waited,
            longest_wait_seconds=self._longest_wait,
            queued=writer.queued if writer else 0,
            writes=writer.writes if writer else 0,
            batches=writer.batches if writer else 0,
        )

    async def health(self, timeout: float = 5.0) -> Health:
        """Return whether a connection can be had and the database answers, all within so many seconds. Never raises."""
        begun = time.monotonic()
        error = f"no answer within {timeout:g} s"
        try:
            if await within(timeout, self._check):
                return Health(ok=True, seconds=time.monotonic() - begun)
        except (Error, apsw.Error) as raised:
            error = str(raised)
        return Health(ok=False, seconds=time.monotonic() - begun, error=error)

    async def _check(self) -> None:
        sqlite.check_exists(self._url)
        await self.run(engine.probe)

    async def aclose(self, timeout: float = 30.0) -> bool:
        """Shut the pool down and return whether all connections are closed.

        No further connection is lent, and who waits for one gets `PoolClosed`. Holders have `timeout` seconds to finish,
        and so have the writes that wait for their turn; then statements are interrupted, such a write gets `PoolClosed`,
        and all have a second to clean up. Safe to repeat.
        """
        deadline = time.monotonic() + timeout
        self._closed = True
        if self._writer is not None:
            self._writer.finish()
        for waiter in self._queue:
            waiter.event.set()
        self._queue.clear()
        idle, self._idle = self._idle, []

        async def close_idle() -> None:
            for connection in idle:
                with contextlib.suppress(apsw.Error):
                    await connection.aclose()

        # all of them, even if cancelled: each has a thread that would keep the process alive
        await shielded(close_idle)
        written = self._writer is None or await self._writer.ended(timeout)
        if not self._held and not self._opening:
            return written
        if self._drained is None:
            self._drained = event()
        if await within(max(0.0, deadline - time.monotonic()), self._drained.wait):
            return written
        for connection in self._held:
            # a holder may close its connection itself
            with contextlib.suppress(apsw.ConnectionClosedError):
                connection.interrupt()
        return await within(1.0, self._drained.wait) and written

    # ------------------------------------------------------------ lending

    async def _take(self, timeout: float) -> apsw.AsyncConnection:
        if self._closed:
            raise PoolClosed("the pool is closed")
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
        if self._closed:
            raise PoolClosed("the pool is closed")
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
        if self._closed:
            await shielded(connection.aclose)
            self._abandon_opening()
            raise PoolClosed("the pool is closed")
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
                if not usable or self._closed:
                    await connection.aclose()
        finally:
            self._put_back(connection, usable=usable)

    def _put_back(self, connection: apsw.AsyncConnection, *, usable: bool) -> None:
        """Take a connection out of use: for the next one, if it is still open."""
        self._held.discard(connection)
        if not usable:
            self._recycled += 1
            self._pass_on(None)
        elif not self._closed and not self._pass_on(connection):
            self._idle.append(connection)
        self._note_drained()

    def _pass_on(self, connection: apsw.AsyncConnection | None) -> bool:
        """Serve whoever waits longest: with the connection, or with leave to open one."""
        if self._closed or not self._queue:
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
