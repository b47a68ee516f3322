"""Connection pool for threads: bounds, timeouts, metrics, health, shutdown. The one for async code is in `dao.aio`."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import apsw
import attrs

from dao import engine, url
from dao.engine import Connection, reset, sqlite
from dao.engine.replay import check_seconds, done
from dao.engine.sqlite.fork import FORKED
from dao.errors import Error, PoolClosed
from dao.pooling.lending import CHECK, Health, Lease, Place, PoolStats, Writing, check_size, is_broken, timed_out
from dao.pooling.writer import Writer, wake_threads

__all__ = ["Health", "Lease", "Pool", "PoolStats"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class Pool:
    """Up to `size` connections to one database, each lent to one thread at a time.

    Connections are opened when first needed. Who waits is served in the order of arrival. A database in memory has one
    connection, so its pool has size 1.

    Usage::

        with dao.Pool("sqlite:///orchestrator.db") as pool:
            with pool.acquire() as connection:
                tasks.create(connection, task)

    A pool that has opened its database does not survive a fork, and the child cannot open that file either (`dao.connect`).
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
        self._url = sqlite.absolute(url.parse(database_url))
        self._size = 1 if self._url.is_memory else size
        self._lock = threading.Lock()
        self._idle: list[Connection] = []  # the last one back is the first to go: its cache is warm
        self._taken: set[Place] = set()
        self._queue: deque[Place] = deque()
        self._lost: deque[Place] = deque()
        self._memory: Connection | None = None  # a database in memory is its connection, and must not be lost
        self._closing = threading.Lock()
        self._closed: str | None = None
        self._drained = threading.Event()
        self._writer = Writer(self._url, wake_threads)
        self._acquired = self._timeouts = self._recycled = 0
        self._waited = self._longest_wait = 0.0
        _POOLS.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, *, timeout: float | None = None) -> Lease:
        """Return a context manager that lends a connection for its block.

        A transaction that the block leaves open is rolled back. After an error that may be the connection's own, or an
        interruption, the connection is replaced by a new one. `timeout` is in seconds and replaces the pool's.

        Raises (the last three when the block is entered):
            TypeError, ValueError: The timeout is no number of seconds from 0.
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            OperationalError: A connection could not be opened.
        """
        return Lease(self, self._timeout if timeout is None else check_seconds(timeout))

    def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(connection, *args, **kwargs)` in a transaction shared with other writes; return its result.

        For many threads that each write a little (tool executions, heartbeats): one commit serves all that wait for one.
        The function runs in the pool's writer thread, on a connection of its own, beside the `size` that are lent. It
        runs in a savepoint: if it raises, what it did is undone, what others did is not, and its exception comes here.
        What returns is committed, and as durable as `synchronous` has it.

        Functions run one after the other, in the order of arrival, so a slow one delays all that wait. One begins within
        the pool's timeout (`writing` sets another), or never. Once it has begun, this waits for its commit, and a Ctrl-C
        is raised after that. Part of a function is undone with `dao.transaction`; COMMIT and ROLLBACK are refused, and
        cursors that were not read to their end are closed.

        A database in memory is its one connection: there each function gets a transaction of its own.

        Raises:
            PoolTimeout: Its turn did not come in time: it never runs.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            DatabaseBusy: Another connection kept the write lock for longer than the busy timeout.
            CommitUnknown: The commit met an I/O error: whether this write is stored cannot be known.
            OperationalError: The shared transaction failed, and nothing of it is stored: safe to repeat.
            RuntimeError: A function that runs in `write` called it.
            TypeError: The function returned before its work was done, a coroutine or a generator: nothing is stored.
        """
        return self._write(self._timeout, function, *args, **kwargs)

    def writing(self, *, timeout: float) -> Writing:
        """Return a `write` whose functions begin within so many seconds: `pool.writing(timeout=1)(tasks.create, task)`.

        Raises:
            TypeError, ValueError: The timeout is no number of seconds from 0.
        """
        return functools.partial(self._write, check_seconds(timeout))

    def _write(self, timeout: float, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if self._url.is_memory:
            with self.acquire(timeout=timeout) as connection, engine.transaction(connection):
                return done(function(connection, *args, **kwargs))
        written: T = self._writer.write(function, args, kwargs, timeout)
        return written

    def stats(self) -> PoolStats:
        """Return what the pool is doing now and has done so far."""
        with self._lock:
            return PoolStats(
                size=self._size,
                idle=len(self._idle),
                active=len(self._taken),
                waiting=len(self._queue),
                acquired=self._acquired,
                timeouts=self._timeouts + self._writer.timeouts,
                recycled=self._recycled,
                wait_seconds=self._waited,
                longest_wait_seconds=self._longest_wait,
                queued=self._writer.queued,
                writes=self._writer.writes,
                batches=self._writer.batches,
            )

    def health(self, timeout: float = 5.0) -> Health:
        """Return whether a connection can be had and the database answers, all within so many seconds.

        Whatever the database does is in the answer, and raises nothing. The file itself is read, so that one that is damaged,
        gone or cannot be read for a lock does not pass for healthy; one that does not exist is not made. While another
        connection writes, reads go on: that is healthy, however long it takes, and `locked` says so.

        Raises:
            TypeError, ValueError: The timeout is no number of seconds from 0.
        """
        begun = time.monotonic()
        deadline = begun + check_seconds(timeout)
        try:
            sqlite.check_exists(self._url)
            with Lease(self, timeout, deadline) as connection:
                locked = engine.probe(connection, self._url, deadline)
        except (Error, apsw.Error) as error:
            return Health(ok=False, seconds=time.monotonic() - begun, error=str(error))
        return Health(ok=True, seconds=time.monotonic() - begun, locked=locked)

    def close(self, timeout: float = 30.0) -> bool:
        """Shut the pool down and return whether all connections are closed.

        No further connection is lent, and who waits for one gets `PoolClosed`. Holders have `timeout` seconds to finish,
        and so have the writes that wait for their turn; then statements are interrupted, such a write gets `PoolClosed`,
        and all have a second to clean up. What is held even after that is closed when it comes back. Safe to repeat.

        Raises:
            TypeError, ValueError: The timeout is no number of seconds from 0.
        """
        deadline = time.monotonic() + check_seconds(timeout)
        with self._lock:
            if self._closed is None:
                self._closed = "the pool is closed"
            for place in self._queue:
                place.wake()
            self._queue.clear()
        with self._closing:
            for connection in self._idle:
                _close(connection)
            with self._lock:
                self._idle.clear()
                self._memory = None
                self._find_lost()
        written = self._writer.close(timeout)
        while not self._drained.wait(max(0.0, min(deadline - time.monotonic(), CHECK))):
            if time.monotonic() >= deadline:
                break
            with self._lock:
                self._find_lost()
        else:
            return written
        with self._lock:
            held = [place.connection for place in self._taken if place.connection is not None]
        log.warning("pool: %d connections still in use after %.1f s; interrupting them", len(held), timeout)
        for connection in held:
            # a holder may close its connection itself
            with contextlib.suppress(apsw.ConnectionClosedError):
                connection.interrupt()
        return self._drained.wait(1.0) and written

    # ------------------------------------------------------------ lending

    def _take(self, place: Place, timeout: float, deadline: float) -> Connection:
        """Return a connection: an idle one, a new one, or after waiting in the queue. A deadline limits the opening."""
        with self._lock:
            if self._closed is not None:
                raise PoolClosed(self._closed)
            if self._lost:
                self._find_lost()
            # in this order: whatever comes in between, a connection is lent once, or dropped and so closed
            if self._idle:
                place.connection = lent = self._idle.pop()
                self._taken.add(place)
                self._acquired += 1
                return lent
            if not self._grant(place):
                place.queue()
                self._queue.append(place)
        if place not in self._taken:
            self._wait(place, timeout)
        connection = place.connection
        if connection is None:
            place.connection = connection = self._open(deadline)
        self._acquired += 1
        return connection

    def _grant(self, place: Place) -> bool:
        """Give a place one of `size`, and an idle connection or leave to open one, if there is room."""
        if len(self._taken) >= self._size:
            return False
        if self._idle:
            place.connection = self._idle.pop()
        self._taken.add(place)
        return True

    def _wait(self, place: Place, timeout: float) -> None:
        """Wait in the queue."""
        begun = time.monotonic()
        end = begun + timeout
        while place not in self._taken and self._closed is None and (left := end - time.monotonic()) > 0:
            place.wait(left)
            if place not in self._taken:
                with self._lock:
                    self._find_lost()
        waited = time.monotonic() - begun
        with self._lock:
            self._waited += waited
            self._longest_wait = max(self._longest_wait, waited)
            if place in self._taken:
                return
            if self._closed is not None:
                raise PoolClosed(self._closed)
            self._queue.remove(place)
            self._timeouts += 1
            raise timed_out(self._url, timeout, self._size, len(self._queue))

    def _open(self, deadline: float) -> Connection:
        """Open a connection for a place that has been granted."""
        if self._memory is not None and reset(self._memory):
            return self._memory
        connection = engine.connect(attrs.evolve(self._url, busy_timeout=sqlite.busy_timeout(self._url, deadline)))
        if self._closed is not None:
            _close(connection)
            raise PoolClosed(self._closed)
        if self._url.is_memory:
            self._memory = connection
        return connection

    def _give_back(self, place: Place, error: BaseException | None) -> None:
        connection = place.connection
        if self._closed is FORKED or connection is None:
            return
        usable = reset(connection) and (
            error is None
            or self._url.is_memory
            # an interruption may have come as something was set for a moment only, as `health` does
            or (isinstance(error, Exception | GeneratorExit) and not is_broken(error))
        )
        if usable:
            with self._lock:
                if place not in self._taken:
                    return  # a fork came in between
                if self._closed is None:
                    self._taken.discard(place)
                    place.connection = None
                    self._idle.append(connection)
                    if self._queue:
                        self._serve()
                    return
        else:
            self._recycled += 1
        # closed first, then counted as gone: when `close` returns, nothing is open any more
        _close(connection)
        self._drop(place)

    def _drop(self, place: Place) -> None:
        """Let go of a place, whatever it has. Safe to repeat."""
        with self._lock:
            self._forget(place)

    def _find_lost(self) -> None:
        while self._lost:
            self._forget(self._lost[0])
            self._lost.popleft()
        self._serve()
        self._note_drained()

    def _forget(self, place: Place) -> None:
        # a connection that it still has is closed when nobody refers to it any more
        self._taken.discard(place)
        place.connection = None
        with contextlib.suppress(ValueError):
            self._queue.remove(place)
        self._serve()
        self._note_drained()

    def _serve(self) -> None:
        """Give what is free to those who wait longest."""
        while self._queue and (self._queue[0] in self._taken or self._grant(self._queue[0])):
            self._queue[0].wake()
            self._queue.popleft()

    def _note_drained(self) -> None:
        if self._closed is not None and not self._taken and not self._idle:
            self._drained.set()

    def _abandon(self) -> None:
        """In a forked child: nothing that was open can be used; a pool that had opened nothing goes on."""
        self._lock, self._closing = (
            threading.Lock(),
            threading.Lock(),
        )  # another thread of the parent may have held them
        if not (self._idle or self._taken):
            return
        self._idle, self._taken, self._memory = [], set(), None
        self._queue.clear()
        self._closed = FORKED
        self._drained.set()


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except apsw.Error as error:
        log.warning("pool: a connection could not be closed: %s", error)


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool._abandon()


os.register_at_fork(after_in_child=_after_fork)
