"""Threads and event loops for tests: started, interrupted, cancelled and waited for; and one face for both pools."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

import apsw
import pytest
import trio

import dao
from dao import aio, tasks

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
#: What a connection that was closed raises.
CLOSED = (apsw.ConnectionClosedError, dao.OperationalError)
#: How the errors say that a statement was interrupted.
INTERRUPTED = "interrupted|canceling statement"
#: Seconds until a test gives up on another thread, task or process: far more than the slowest machine takes.
PATIENCE = 120

#: `dao.run_in_transaction` for as long: a server that was killed may take longer to come back than that waits for.
run_patiently = dao.replaying(deadline=PATIENCE)

CANCELLED = "cancelled"
Function = Callable[[], Awaitable[Any]]


def stored(url: str) -> int:
    """Return how many tasks another connection sees."""
    with contextlib.closing(dao.connect(url)) as connection:
        return tasks.count(connection)


def patient(url: str) -> str:
    """Return a URL whose connections wait for locks for longer than any test; those to PostgreSQL do anyway."""
    return f"{url}?busy_timeout=600000" if url.startswith("sqlite") else url


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Keep all others from writing tasks."""
    with contextlib.closing(dao.connect(url)) as blocker, dao.transaction(blocker):
        if not url.startswith("sqlite"):
            blocker.execute("LOCK TABLE tasks IN EXCLUSIVE MODE")
        yield


# ---------------------------------------------------------------- threads


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something has come about in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it never came about")
        time.sleep(0.0005)


class Worker(threading.Thread):
    """A thread that keeps what its function returned or raised."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        super().__init__(daemon=True)
        self.work = lambda: function(*arguments)
        self.result: object = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Run the function."""
        try:
            self.result = self.work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def end(self) -> object:
        """Wait for the end, and return the result or raise the error."""
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


class Signalled(BaseException):
    """What a signal raises in the main thread, as Ctrl-C does."""


@pytest.fixture
def signalled(uncollected: None) -> Iterator[Callable[[], None]]:
    """Return a function that interrupts the main thread, and returns once it is interrupted."""
    arrived: list[int] = []

    def handler(*_: object) -> None:
        arrived.append(1)
        raise Signalled

    def interrupt() -> None:
        number, end = len(arrived), time.monotonic() + PATIENCE
        while len(arrived) == number and time.monotonic() < end:  # two that are on their way at once are one
            # one that comes as the thread is about to wait for a lock is noticed only as that wait ends: by another
            signal.pthread_kill(main, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: len(arrived) > number, 2)

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    yield interrupt
    signal.signal(signal.SIGUSR1, before)


def in_child(function: Callable[[], object]) -> None:
    """Run a function in a forked child, and see that it raises nothing there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads
        child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            function()
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------- event loops


class AsyncioTask:
    """A task of asyncio that can be cancelled and waited for."""

    def __init__(self, function: Function) -> None:
        self._task = asyncio.ensure_future(function())

    def cancel(self) -> None:
        """Cancel the task; more than once if need be."""
        self._task.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def end(self) -> Any:
        """Wait for the end, and return the result, CANCELLED or raise the error."""
        await asyncio.wait({self._task})
        return CANCELLED if self._task.cancelled() else self._task.result()


class Asyncio:
    """What the tests need of asyncio."""

    sleep = staticmethod(asyncio.sleep)
    start = AsyncioTask

    def run(self, main: Function) -> Any:
        """Run a test to its end."""
        return asyncio.run(asyncio.wait_for(main(), PATIENCE))

    def within(self, seconds: float) -> contextlib.AbstractAsyncContextManager[object]:
        """Return a block that is cancelled after a time."""
        return asyncio.timeout(seconds)


class TrioTask:
    """A task of trio that can be cancelled and waited for."""

    def __init__(self, nursery: trio.Nursery, function: Function) -> None:
        self._function = function
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._result: Any = None
        self._error: Exception | None = None
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            with self._scope:
                self._result = await self._function()
        except Exception as error:  # noqa: BLE001 - raised by `end`
            self._error = error
        self._ended.set()

    def cancel(self) -> None:
        """Cancel the task; more than once if need be."""
        self._scope.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    async def end(self) -> Any:
        """Wait for the end, and return the result, CANCELLED or raise the error."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return CANCELLED if self._scope.cancelled_caught else self._result


class Trio:
    """What the tests need of trio."""

    sleep = staticmethod(trio.sleep)

    def run(self, main: Function) -> Any:
        """Run a test to its end."""

        async def top() -> Any:
            result, failure = None, None
            async with trio.open_nursery() as self.nursery:
                try:
                    with trio.fail_after(PATIENCE):
                        result = await main()
                except Exception as error:  # noqa: BLE001 - raised below, out of the nursery's group
                    failure = error
                    self.nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
            return result

        return trio.run(top)

    def start(self, function: Function) -> TrioTask:
        """Start a task."""
        return TrioTask(self.nursery, function)

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> Any:
        """Return a block that is cancelled after a time."""
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError as error:
            raise TimeoutError from error


@pytest.fixture(params=[Asyncio, Trio], ids=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> Asyncio | Trio:
    """The library that runs the test. In the end no worker thread may be left: the process would never end."""
    before = set(threading.enumerate())
    yield request.param()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} goes on"


async def until(loop: Asyncio | Trio, condition: Callable[[], bool]) -> None:
    """Wait until something has come about."""
    while not condition():
        await loop.sleep(0.0005)


# ---------------------------------------------------------------- both pools


class Portal:
    """An event loop in a thread of its own, which awaits what other threads ask of it."""

    def __init__(self, library: Asyncio | Trio) -> None:
        ready = threading.Event()

        async def awaited(function: Function) -> Any:
            return await function()

        async def main() -> None:
            if isinstance(library, Trio):
                token, ended = trio.lowlevel.current_trio_token(), trio.Event()
                self.run = lambda function: trio.from_thread.run(awaited, function, trio_token=token)
                self._end = lambda: token.run_sync_soon(ended.set)
            else:
                loop, ended = asyncio.get_running_loop(), asyncio.Event()
                self.run = lambda function: asyncio.run_coroutine_threadsafe(awaited(function), loop).result(PATIENCE)
                self._end = lambda: loop.call_soon_threadsafe(ended.set)
            ready.set()
            await ended.wait()

        run = trio.run if isinstance(library, Trio) else lambda function: asyncio.run(function())
        self._thread = threading.Thread(target=run, args=(main,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)

    def end(self) -> None:
        """End the loop and its thread."""
        self._end()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class ThreadPool(dao.Pool):
    """`dao.Pool`, with names for what a test does differently on the other."""

    def on(self, connection: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function with a connection that is lent."""
        return function(connection, *args)

    def close_connection(self, connection: Any) -> None:
        """Close a connection that is lent, as a user might."""
        connection.close()


class TaskPool:
    """`dao.aio.Pool` with the face of `dao.Pool`: each call is a task, and waited for."""

    def __init__(self, portal: Portal, database_url: str, **arguments: Any) -> None:
        self._portal = portal
        self._pool = aio.Pool(database_url, **arguments)
        self.stats, self.observe = self._pool.stats, self._pool.observe
        self.has, self.url = self._pool.has, self._pool.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._portal.run(lambda: self._pool.__aexit__(*error))

    @contextlib.contextmanager
    def _block(self, lease: Any) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            connection = self._portal.run(lease.__aenter__)
            stack.push(lambda *error: self._portal.run(lambda: lease.__aexit__(*error)))
            yield connection

    def acquire(self, **arguments: Any) -> AbstractContextManager[Any]:
        """Lend a connection for a block."""
        return self._block(self._pool.acquire(**arguments))

    def on(self, connection: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function with a connection that is lent."""
        return self._portal.run(lambda: aio.run(connection, function, *args))

    def close_connection(self, connection: Any) -> None:
        """Close a connection that is lent, as a user might."""
        self._portal.run(connection.aclose)

    def write(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do as `dao.Pool.write`."""
        return self._portal.run(lambda: self._pool.write(function, *args, **kwargs))

    def writing(self, *, timeout: float) -> Callable[..., Any]:
        """Do as `dao.Pool.writing`."""
        write = self._pool.writing(timeout=timeout)
        return lambda function, *args: self._portal.run(lambda: write(function, *args))

    def health(self, timeout: float = 5.0) -> dao.Health:
        """Do as `dao.Pool.health`."""
        return self._portal.run(lambda: self._pool.health(timeout))

    def close(self, timeout: float = 30.0) -> bool:
        """Do as `dao.Pool.close`."""
        return self._portal.run(lambda: self._pool.aclose(timeout))


@contextlib.contextmanager
def making(kind: str) -> Iterator[Callable[..., Any]]:
    """Give a function that makes pools for "threads", or for "asyncio" or "trio" tasks; close them in the end.

    No thread may be left then: the process would never end.
    """
    before = set(threading.enumerate())
    portal = None if kind == "threads" else Portal(Trio() if kind == "trio" else Asyncio())
    made: list[Any] = []

    def make(database_url: str, **arguments: Any) -> Any:
        arguments = {"timeout": 600, **arguments}
        made.append(TaskPool(portal, database_url, **arguments) if portal else ThreadPool(database_url, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close(timeout=5)
    if portal is not None:
        portal.end()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} goes on"
