"""The same functions from async code, on asyncio and on trio.

Nothing is written twice: a table module's function runs as it is, in the worker thread of a connection::

    async with aio.Pool("sqlite:///orchestrator.db") as pool:
        await pool.run(tasks.create, task)
        page = await pool.run(tasks.find, status="pending")
        async for task in pool.iterate(tasks.iter_all, status="failed"):
            ...

Several steps that belong together go into a function of your own, with `dao.transaction` in it. It runs without giving
way to other tasks in the middle of the transaction.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from dao import engine, url
from dao.engine import Connection, absolute
from dao.errors import ConnectionLost, Error, PoolClosed
from dao.observation import Observation
from dao.pooling.async_connection import connect, interrupt, run
from dao.pooling.async_lease import Lease, close
from dao.pooling.calls import Call
from dao.pooling.figures import Health, Observer, PoolStats
from dao.pooling.iteration import Iteration
from dao.pooling.lender import Lender, Place
from dao.pooling.loop import event, is_over, running, shielded, waking, within
from dao.pooling.opening import Prepare
from dao.pooling.workers import abandon, warn_unclosed
from dao.pooling.writer import Writer
from dao.transactions import check_seconds, done, replaying

__all__ = ["Pool", "connect", "run"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncWriting(Protocol):
    """The type of what `Pool.writing` returns: it is called as `Pool.write` is."""

    async def __call__(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `Pool.write`."""


class Pool:
    """Up to `size` connections to one database, each lent to one task at a time.

    As `dao.Pool`: opened when needed, lent in the order of arrival, one connection for a database in memory. It works
    for one event loop at a time: for the next when the one before has ended. A pool that is not closed ends with its
    process, or with the last reference to it, with a ResourceWarning.
    """

    def __init__(
        self, database_url: str | url.AnyURL, *, size: int = 5, timeout: float = 30.0, prepare: Prepare | None = None
    ) -> None:
        """Make a pool; opens nothing yet. `timeout` is how many seconds `acquire` waits for a connection.

        `prepare(connection)` is called with each new connection, in its thread, as `dao.Pool` has it.

        Raises:
            InvalidURL: The URL means nothing.
            TypeError: The timeout is no number.
            InvalidValue: The size is below 1 or the timeout below 0.
        """
        self._url = absolute(database_url)
        self._lender = Lender(self._url, size, timeout, lambda connection: abandon([connection]), prepare)
        self._writer = Writer(self._url, lambda _: None, prepare)
        # those that the process's end finds open are closed with a warning there
        weakref.finalize(self, _end_unclosed, self._lender).atexit = False
        weakref.finalize(self, _warn_unclosed, self._writer, self._url.name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def run(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` on a connection of the pool: `await pool.run(tasks.get, id)`.

        Raises:
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process or to another event loop.
            TypeError: The function returned before its work was done: a coroutine, a generator.
            Error: What the function raises.
        """
        return await self._run(self.acquire(), function, *args, **kwargs)

    async def run_in_transaction(
        self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` in a transaction, and replay all of it while the database is busy.

        As `dao.run_in_transaction` with a `dao.Pool`: for 30 seconds, and a connection to a server that is lost before
        the commit is replaced by another.

        Raises:
            Error: As `dao.run_in_transaction`, and as `run`.
        """
        end = time.monotonic() + 30.0
        pauses = self._lender.pauses(end)
        while True:
            lease = Lease(self._lender, self._enter, self._lender.timeout, last_try=end)
            left = max(0.0, end - time.monotonic())
            try:
                return await self._run(lease, replaying(deadline=left), function, *args, **kwargs)
            except ConnectionLost:
                pause = next(pauses, None)
                if pause is None:
                    raise
                await within(pause, event().wait)

    async def _run(self, lease: Lease, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        def call(given: Connection) -> tuple[T, bool]:
            # to reset it here saves another trip to its thread, which costs as much as this one
            return done(function(given, *args, **kwargs)), engine.reset(given)

        connection = await lease.__aenter__()
        try:
            result, usable = await run(connection, call)
        except GeneratorExit:
            lease.let_go()
            raise
        except BaseException as error:
            await lease.__aexit__(type(error), error, error.__traceback__)
            raise
        if not usable or not lease.put_back():
            await lease.__aexit__(None, None, None)
        return result

    def iterate(
        self, function: Callable[Concatenate[Any, P], Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[R]:
        """Return the records of a listing, for `async for task in pool.iterate(tasks.iter_all, status="failed")`.

        `function` is an `iter_all`, or one of yours that returns what that does. A few hundred records are fetched at a
        time, and the next not before those are used. In between no connection is held: the loop may take its time, use
        the pool itself, and be left at any record. What others write meanwhile shows as in `iter_all`. Several tasks
        may share what is returned: each record goes to one of them.

        Raises (all of them in the loop):
            TypeError: The function returned something else.
            Error: As `run`.
        """
        return Iteration(self.run, functools.partial(function, *args, **kwargs))

    async def write(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(connection, *args, **kwargs)` in a transaction shared with other writes, as `dao.Pool.write`.

        A task that is cancelled in the queue leaves it, and its function never runs. Once that has begun, the
        cancellation waits for the commit, so that nothing goes on behind the caller's back: what it wrote stays. On
        PostgreSQL it undoes the function, unless the commit has begun.

        Raises:
            Error: As `dao.Pool.write`.
        """
        return await self._write(self._lender.timeout, function, *args, **kwargs)

    def writing(self, *, timeout: float) -> AsyncWriting:
        """Return a `write` whose functions begin within so many seconds.

        Usage: `await pool.writing(timeout=1)(tasks.create, task)`.

        Raises:
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
        """
        return functools.partial(self._write, check_seconds(timeout))

    async def _write(self, timeout: float, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if self._url.is_memory or self._lender.on_server:
            async with self.acquire(timeout=timeout) as connection:
                result = await run(connection, _in_transaction, function, args, kwargs)
            self._writer.count()
            return result
        self._enter()
        call = Call(function, args, kwargs, event())
        try:
            for seconds in self._writer.turns(call, timeout):
                await within(seconds, call.ended.wait)
        except BaseException as error:
            if not self._writer.leave(call) and not isinstance(error, GeneratorExit):
                await shielded(call.ended.wait)
            raise
        written: T = call.outcome()
        return written

    def acquire(self, *, timeout: float | None = None) -> Lease:
        """Lend a connection for a block: `async with pool.acquire() as connection: await aio.run(connection, …)`.

        As `dao.Pool.acquire`, but that a cancellation leaves the connection as it is.

        Raises:
            Error: As `dao.Pool.acquire`; PoolClosed also if the pool belongs to another event loop.
        """
        return Lease(self._lender, self._enter, self._lender.timeout if timeout is None else check_seconds(timeout))

    @property
    def url(self) -> url.AnyURL:
        """The database, as of `dao.Pool`."""
        return self._url

    def stats(self) -> PoolStats:
        """Return what the pool is doing now and has done so far."""
        return self._lender.stats(**self._writer.figures())

    def observe(self, observer: Observer, /) -> Observation:
        """Call `observer(what, seconds)` of each "wait", "use" and "open", as `dao.Pool.observe`."""
        return self._lender.listeners.add(observer)

    def has(self, connection: object) -> bool:
        """Return whether a connection, as functions get it, is one of this pool's, as `dao.Pool.has`."""
        return self._lender.has(connection) or self._writer.has(connection)

    async def health(self, timeout: float = 5.0) -> Health:
        """Return whether a connection can be had and the database answers, as `dao.Pool.health`."""
        begun = time.monotonic()
        deadline = begun + check_seconds(timeout)
        locked: list[bool] = []
        error, kind = f"no answer within {timeout:g} s", "PoolTimeout"

        async def check() -> None:
            self._lender.engine.check_exists(self._url)
            lease = Lease(self._lender, self._enter, timeout, last_try=0)
            locked.append(await self._run(lease, engine.probe, self._url, deadline))

        try:
            if await within(timeout, check):
                return Health(ok=True, seconds=time.monotonic() - begun, locked=locked[0])
        except (Error, self._lender.engine.DriverError) as raised:
            error, kind = str(raised), type(raised).__name__
        return Health(ok=False, seconds=time.monotonic() - begun, error=error, kind=kind)

    async def aclose(self, timeout: float = 30.0) -> bool:
        """Shut the pool down and return whether all connections are closed, as `dao.Pool.close`.

        Raises:
            PoolClosed: The pool belongs to another event loop, which goes on.
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
        """
        deadline = time.monotonic() + check_seconds(timeout)
        self._enter(closing=True)
        drained, written = event(), event()
        self._lender.close(drained)
        self._writer.finish(written)

        async def close_idle() -> None:
            closing = Lease(self._lender, self._enter, timeout)
            place = Place(closing, self._lender.note_lost)
            while self._lender.retire(place):
                await close(self._lender, place)

        # all of them, even if cancelled: each has a thread
        await shielded(close_idle)
        for seconds in self._writer.ends(written, timeout):
            await within(seconds, written.wait)
        for seconds in self._lender.drains(timeout, deadline, interrupt):
            await within(seconds, drained.wait)
        return self._lender.is_drained and written.is_set()

    def _enter(self, *, closing: bool = False) -> None:
        """Make sure that the pool is the running loop's, which it may be if the loop before has ended."""
        lender, loop = self._lender, running()
        if loop is lender.owner:
            return
        with lender.guard:
            before, usable = lender.owner, closing or not self._url.is_memory
            if before is None or (is_over(before) and usable):
                lender.owner = loop
        if lender.owner is not loop:
            raise PoolClosed(
                f"this pool of {self._url.name} belongs to another event loop"
                + (": each loop needs a pool of its own" if usable else ", and the database in memory ended with that")
            )
        self._writer.wake = waking(loop)
        if before is not None:
            abandon(lender.connections())
            lender.forget()


def _in_transaction(connection: Connection, function: Callable[..., T], args: Any, kwargs: Any) -> T:
    with engine.transaction(connection):
        return done(function(connection, *args, **kwargs))


def _end_unclosed(lender: Lender) -> None:
    """End the connections of a pool to which no reference is left."""
    if connections := lender.connections():
        abandon(connections)
        warn_unclosed(lender.url.name)


def _warn_unclosed(writer: Writer, path: str) -> None:
    if writer.is_open:
        warn_unclosed(path)
