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
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import apsw

from dao import engine, url
from dao.engine import Connection, reset, sqlite
from dao.engine.replay import check_seconds, done, run_in_transaction
from dao.errors import Error, PoolClosed
from dao.pooling.aio_connection import connect, run
from dao.pooling.aio_lender import Lender, opened
from dao.pooling.aio_writer import TaskWriter
from dao.pooling.lending import AsyncWriting, Health, PoolStats, check_size
from dao.pooling.loop import event, shielded, within

__all__ = ["Pool", "connect", "run"]

P = ParamSpec("P")
T = TypeVar("T")


class Pool(Lender):
    """Up to `size` connections to one database, each lent to one task at a time.

    As `dao.Pool`: opened when needed, lent in the order of arrival, one connection for a database in memory. It works for
    one event loop at a time: for the next when the one before has ended. A pool that is not closed ends with its process,
    or when nobody has it any more, with a ResourceWarning.
    """

    def __init__(self, database_url: str | url.DatabaseURL, *, size: int = 5, timeout: float = 30.0) -> None:
        """Make a pool; opens nothing yet. `timeout` is how many seconds `acquire` waits for a connection.

        Raises:
            InvalidURL: The URL means nothing.
            TypeError: The timeout is no number.
            ValueError: The size is below 1 or the timeout below 0.
        """
        check_size(size)
        self._timeout = check_seconds(timeout)
        super().__init__(sqlite.absolute(url.parse(database_url)), size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def run(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` on a connection of the pool: `await pool.run(tasks.get, id)`.

        Raises:
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process or to another event loop.
            TypeError: The function returned before its work was done: a coroutine, a generator.
            Error: What the function raises.
        """
        self._enter()
        place, connection = await self._take(self._timeout)

        def call(given: Connection) -> tuple[T, bool]:
            # a trip to the thread of its own costs as much again
            return done(function(given, *args, **kwargs)), reset(given)

        try:
            result, usable = await run(connection, call)
        except BaseException as error:
            await shielded(functools.partial(self._give_back, place, error))
            raise
        if not usable or self._closed is not None:
            await shielded(lambda: self._give_back(place, None))
        else:
            self._put_back(place, usable=True)
        return result

    async def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(connection, *args, **kwargs)` in a transaction shared with other writes, as `dao.Pool.write`.

        A task that is cancelled in the queue leaves it, and its function never runs. Once that has begun, the
        cancellation waits for the commit, so that nothing goes on behind the caller's back: what it wrote stays.

        Raises:
            Error: As `dao.Pool.write`.
        """
        return await self._write(self._timeout, function, *args, **kwargs)

    def writing(self, *, timeout: float) -> AsyncWriting:
        """Return a `write` whose functions begin within so many seconds: `await pool.writing(timeout=1)(tasks.create, task)`.

        Raises:
            TypeError, ValueError: The timeout is no number of seconds from 0.
        """
        return functools.partial(self._write, check_seconds(timeout))

    async def _write(self, timeout: float, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if self._url.is_memory:
            async with self.acquire(timeout=timeout) as connection:
                return await run(connection, run_in_transaction, function, *args, **kwargs)
        self._enter()
        if self._closed is not None:
            raise PoolClosed(self._closed)
        if self._writer is None:
            self._writer = TaskWriter(self._url)
        written: T = await self._writer.write(function, args, kwargs, timeout)
        return written

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[apsw.AsyncConnection]:
        """Lend a connection for a block: `async with pool.acquire() as connection: await aio.run(connection, …)`.

        A transaction that the block leaves open is rolled back. After an error that may be the connection's own, the
        connection is replaced by a new one. `timeout` is in seconds and replaces the pool's.

        Raises (the last three when the block is entered):
            TypeError, ValueError: The timeout is no number of seconds from 0.
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process or to another event loop.
            OperationalError: A connection could not be opened.
        """
        return self._lent(self._timeout if timeout is None else check_seconds(timeout))

    @contextlib.asynccontextmanager
    async def _lent(self, timeout: float) -> AsyncIterator[apsw.AsyncConnection]:
        self._enter()
        place, connection = await self._take(timeout)
        error: BaseException | None = None
        try:
            yield connection
        except BaseException as raised:
            error = raised
            raise
        finally:
            await shielded(lambda: self._give_back(place, error))

    def stats(self) -> PoolStats:
        """Return what the pool is doing now and has done so far."""
        writer = self._writer.writer if self._writer is not None else None
        return PoolStats(
            size=self._size,
            idle=len(self._idle),
            active=len(self._taken),
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
        """Return whether a connection can be had and the database answers, as `dao.Pool.health`."""
        begun = time.monotonic()
        deadline = begun + check_seconds(timeout)
        locked: list[bool] = []
        error = f"no answer within {timeout:g} s"

        async def check() -> None:
            sqlite.check_exists(self._url)
            locked.append(await self.run(engine.probe, self._url, deadline))

        try:
            if await within(timeout, check):
                return Health(ok=True, seconds=time.monotonic() - begun, locked=locked[0])
        except (Error, apsw.Error) as raised:
            error = str(raised)
        return Health(ok=False, seconds=time.monotonic() - begun, error=error)

    async def aclose(self, timeout: float = 30.0) -> bool:
        """Shut the pool down and return whether all connections are closed.

        No further connection is lent, and who waits for one gets `PoolClosed`. Holders have `timeout` seconds to finish,
        and so have the writes that wait for their turn; then statements are interrupted, such a write gets `PoolClosed`,
        and all have a second to clean up. Safe to repeat.

        Raises:
            PoolClosed: The pool belongs to another event loop, which goes on.
            TypeError, ValueError: The timeout is no number of seconds from 0.
        """
        check_seconds(timeout)
        self._enter(closing=True)
        deadline = time.monotonic() + timeout
        if self._closed is None:
            self._closed = "the pool is closed"
        if self._writer is not None:
            self._writer.finish()
        for place in self._queue:
            place.event.set()
        self._queue.clear()
        idle = self._idle.copy()
        self._idle.clear()

        async def close_idle() -> None:
            for connection in idle:
                with contextlib.suppress(apsw.Error):
                    await connection.aclose()

        # all of them, even if cancelled: each has a thread
        await shielded(close_idle)
        written = self._writer is None or await self._writer.ended(timeout)
        if not self._taken:
            return written
        if self._drained is None:
            self._drained = event()
        if await within(max(0.0, deadline - time.monotonic()), self._drained.wait):
            return written
        for connection in opened([], self._taken):
            # a holder may close its connection itself
            with contextlib.suppress(apsw.ConnectionClosedError):
                connection.interrupt()
        return await within(1.0, self._drained.wait) and written
