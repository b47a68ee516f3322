"""Connection pool for threads: bounds, timeouts, metrics, health, shutdown. The one for async code is in `dao.aio`."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from dao import engine, url
from dao.engine import Connection, absolute
from dao.errors import ConnectionLost, Error, PoolClosed
from dao.logs import logger
from dao.observation import Observation
from dao.pooling.calls import Call
from dao.pooling.figures import Health, Observer, PoolStats
from dao.pooling.lender import CHECK, Lender, Place
from dao.pooling.opening import Prepare, open_connection
from dao.pooling.threads import Signal, wake_in_turn
from dao.pooling.writer import Writer
from dao.transactions import check_seconds, done

__all__ = ["Health", "Lease", "Pool", "PoolStats"]

P = ParamSpec("P")
T = TypeVar("T")

log = logger("dao.pool")


class Writing(Protocol):
    """The type of what `Pool.writing` returns: it is called as `Pool.write` is."""

    def __call__(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `Pool.write`."""


class Pool:
    """Up to `size` connections to one database, each lent to one thread at a time.

    Connections are opened when first needed, and lent in the order of arrival. A database in memory has one connection,
    so its pool has size 1.

    Usage::

        with dao.Pool("sqlite:///orchestrator.db") as pool:
            with pool.acquire() as connection:
                tasks.create(connection, task)

    A pool that has opened its database does not survive a fork, and the child cannot open that file either
    (`dao.connect`).
    """

    def __init__(
        self, database_url: str | url.AnyURL, *, size: int = 5, timeout: float = 30.0, prepare: Prepare | None = None
    ) -> None:
        """Make a pool; opens nothing yet. `timeout` is how many seconds `acquire` waits for a connection.

        `prepare(connection)` is called with each new connection before it is lent, that of `write` among them: it
        registers functions of the program's, or sets what is to hold for the session. It has to leave no transaction.

        Raises:
            InvalidURL: The URL means nothing.
            TypeError: The timeout is no number.
            InvalidValue: The size is below 1 or the timeout below 0.
        """
        self._url = absolute(database_url)
        self._lender = Lender(self._url, size, timeout, lambda connection: connection.close(), prepare)
        self._writer = Writer(self._url, wake_in_turn, prepare)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, *, timeout: float | None = None) -> Lease:
        """Return a context manager that lends a connection for its block.

        A transaction that the block leaves open is rolled back. After an error that may be the connection's own, or an
        interruption, the connection is replaced by a new one. `timeout` is in seconds and replaces the pool's.

        PostgreSQL: a connection that the server has closed meanwhile is not lent, nor is one that is an hour old. A
        server that cannot be reached, as while it is being restarted, is tried again until the timeout. What the block
        sets for its session (SET, temporary tables, advisory locks) is there for the next holder, too.

        Raises (all but the first when the block is entered):
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            ConnectionLost: The server could not be reached.
            OperationalError: A connection could not be opened.
            PrepareFailed: The pool's `prepare` raised, or left a transaction open.
        """
        return Lease(self._lender, self._lender.timeout if timeout is None else check_seconds(timeout))

    def run(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` on a connection of the pool: `pool.run(tasks.get, id)`.

        It is a block of `acquire` in one line, and no transaction: `dao.run_in_transaction(pool, function, …)` is one.

        Raises:
            PoolTimeout: All connections stayed in use.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            TypeError: The function returned before its work was done: a coroutine, a generator.
            Error: What the function raises.
        """
        with self.acquire() as connection:
            return done(function(connection, *args, **kwargs))

    def write(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(connection, *args, **kwargs)` in a transaction shared with other writes; return its result.

        For many threads that each write a little (tool executions, heartbeats): one commit serves all that wait for
        one. The function runs in the pool's writer thread, on a connection of its own, beside the `size` that are lent.
        It runs in a savepoint: if it raises, what it did is undone, what others did is not, and its exception comes
        here. If it returns, it is committed, and as durable as `synchronous` has it.

        Functions run one after the other, in the order of arrival, so a slow one delays all that wait. One begins
        within the pool's timeout (`writing` sets another), or never. Once it has begun, this waits for its commit, and
        a Ctrl-C is raised after that; a second one is raised at once, and the write goes on. Part of a function is
        undone with `dao.transaction`; COMMIT and ROLLBACK are refused, and cursors that were not read to their end are
        closed.

        PostgreSQL shares the commits of many connections itself, and is three times as fast at that as one writer with
        savepoints. There each function is a transaction of its own, on one of the pool's connections, in the caller's
        thread; an interruption undoes it, and a COMMIT in it is told by an error, but not undone. A database in memory
        is its one connection: there it is the same.

        Raises:
            PoolTimeout: Its turn did not come in time: it never runs.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            DatabaseBusy: Another connection kept the write lock for longer than the busy timeout.
            CommitUnknown: The commit met an I/O error, or was not answered: this write may be stored.
            OperationalError: The shared transaction failed, and nothing of it is stored: safe to repeat.
            RuntimeError: A function that runs in `write` called it.
            TypeError: The function returned before its work was done, a coroutine or a generator: nothing is stored.
        """
        return self._write(self._lender.timeout, function, *args, **kwargs)

    def writing(self, *, timeout: float) -> Writing:
        """Return a `write` whose functions begin within so many seconds: `pool.writing(timeout=1)(tasks.create, task)`.

        Raises:
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
        """
        return functools.partial(self._write, check_seconds(timeout))

    def _write(self, timeout: float, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if self._url.is_memory or self._lender.on_server:
            alone = self._writer.alone()
            try:
                with self.acquire(timeout=timeout) as connection, engine.transaction(connection):
                    result = done(function(connection, *args, **kwargs))
            finally:
                del alone  # a traceback would keep it
            self._writer.count()
            return result
        call = Call(function, args, kwargs, Signal())
        try:
            for seconds in self._writer.turns(call, timeout):
                call.ended.wait(seconds)
        except BaseException:  # Ctrl-C
            if not self._writer.leave(call):
                while not call.ended.is_set():
                    call.ended.wait(CHECK)
            raise
        finally:
            call.ended.pass_on()
        written: T = call.outcome()
        return written

    @property
    def url(self) -> url.AnyURL:
        """The database: its `name` is for messages, and has no password."""
        return self._url

    def stats(self) -> PoolStats:
        """Return what the pool is doing now and has done so far."""
        return self._lender.stats(**self._writer.figures())

    def observe(self, observer: Observer, /) -> Observation:
        """Call `observer(what, seconds)` of each "wait" for a connection, "use" of it, and "open"ing of one.

        Until the observation ends, in the thread that waits, uses or opens. A wait includes the opening, and one that
        was in vain is none. What it raises is logged, as by `dao.observe`, which tells of the calls.
        """
        return self._lender.listeners.add(observer)

    def has(self, connection: object) -> bool:
        """Return whether a connection, as functions get it, is one of this pool's, the one of `write` included."""
        return self._lender.has(connection) or self._writer.has(connection)

    def health(self, timeout: float = 5.0) -> Health:
        """Return whether a connection can be had and the database answers, all within so many seconds.

        Whatever the database does is in the answer, and raises nothing. The file itself is read, so that one that is
        damaged, gone or cannot be read for a lock does not pass for healthy; one that does not exist is not made. While
        another connection writes, reads go on: that is healthy, however long it takes, and `locked` says so.

        Raises:
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
        """
        begun = time.monotonic()
        deadline = begun + check_seconds(timeout)
        try:
            self._lender.engine.check_exists(self._url)
            with Lease(self._lender, timeout, deadline=deadline, last_try=0) as connection:
                locked = engine.probe(connection, self._url, deadline)
        except (Error, self._lender.engine.DriverError) as error:
            return Health(ok=False, seconds=time.monotonic() - begun, error=str(error), kind=type(error).__name__)
        return Health(ok=True, seconds=time.monotonic() - begun, locked=locked)

    def close(self, timeout: float = 30.0) -> bool:
        """Shut the pool down and return whether all connections are closed.

        No further connection is lent, and those who wait for one get `PoolClosed`. Holders have `timeout` seconds to
        finish, and so have the writes that wait for their turn; then statements are interrupted, such a write gets
        `PoolClosed`, and all have a second to clean up. A connection that is held even then is closed when it comes
        back. Safe to repeat.

        Raises:
            TypeError, InvalidValue: The timeout is no number of seconds from 0.
        """
        deadline = time.monotonic() + check_seconds(timeout)
        drained, written = Signal(), Signal()
        self._lender.close(drained)
        self._writer.finish(written)
        closing = Lease(self._lender, timeout)
        place = Place(closing, self._lender.note_lost)
        while self._lender.retire(place):
            _close(self._lender, place)
        for seconds in self._writer.ends(written, timeout):
            written.wait(seconds)
        for seconds in self._lender.drains(timeout, deadline, engine.interrupt):
            drained.wait(seconds)
        return self._lender.is_drained and written.is_set()


class Lease:
    """A connection for a block, `with pool.acquire() as connection`: it goes back to the pool at the end.

    Attributes:
        last_try: A moment of the monotonic clock, after which a server that cannot be reached is not tried again.
    """

    __slots__ = ("__weakref__", "_deadline", "_lender", "_place", "_timeout", "last_try")

    def __init__(
        self, lender: Lender, timeout: float, *, deadline: float = math.inf, last_try: float = math.inf
    ) -> None:
        self._lender = lender
        self._timeout = timeout
        self._deadline = deadline  # of the opening, a moment of the monotonic clock
        self.last_try = last_try

    def __enter__(self) -> Connection:
        lender = self._lender
        self._place = place = Place(self, lender.note_lost)
        place.connection = None
        begun = None
        asked = time.monotonic() if lender.listeners.all else None
        try:
            if not lender.take(place, Signal):
                begun = time.monotonic()
                for seconds in lender.waits(place, self._timeout):
                    place.event.wait(seconds)
            connection: Connection | None = place.connection
            if connection is None or (lender.on_server and not lender.engine.is_fresh(connection)):
                connection = self._open(place, begun)
            if asked is not None:
                lender.listeners.tell("wait", time.monotonic() - asked)
            return connection
        except BaseException:
            lender.drop(place)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lender, place = self._lender, self._place
        try:
            if place.connection is not None:
                # the engine's own: to find it by the connection's type would cost a tenth of the lending
                usable = lender.engine.reset(place.connection) and (
                    # an interruption may have come as something was set for a moment only, as `health` does
                    value is None or lender.may_return(value, harmless=(Exception, GeneratorExit))
                )
                if value is not None and isinstance(value, GeneratorExit) and lender.guard.locked():
                    # by this thread, it may be: the garbage collector ends a generator, and can do so anywhere
                    lender.note_lost(place)
                elif not lender.put_back(place, usable=usable):
                    _close(lender, place)
        except BaseException:
            lender.drop(place)
            raise
        del self._place  # nothing is lost when this dies

    def _open(self, place: Place, begun: float | None) -> Connection:
        """Open a connection for a place that has been granted, and waited for since a moment of the monotonic clock."""
        lender = self._lender
        connection: Connection | None = lender.kept
        if place.connection is not None:
            lender.replace(place).close()
        if connection is None or not engine.reset(connection):
            connection = self._reached(begun or time.monotonic()) if lender.on_server else self._opened(self._deadline)
        try:
            lender.opened(place, connection)
        except PoolClosed:
            _close(lender, place)
            raise
        return connection

    def _opened(self, deadline: float) -> Connection:
        begun = time.monotonic()
        connection: Connection = open_connection(self._lender.url, self._lender.prepare, deadline)
        self._lender.note_opened(time.monotonic() - begun)
        return connection

    def _reached(self, begun: float) -> Connection:
        """Connect to a server, again and again while it is being restarted, for as long as the lease may wait."""
        end = min(self._deadline, begun + self._timeout)
        pauses = self._lender.pauses(min(end, self.last_try))
        while True:
            try:
                return self._opened(end)
            except ConnectionLost:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)


def _close(lender: Lender, place: Place) -> None:
    """Close a connection, and then count it as gone: when `Pool.close` returns, nothing is open any more."""
    try:
        if place.connection is not None:
            place.connection.close()
    except lender.engine.DriverError as error:
        log.warning("pool: a connection could not be closed: %s", error)
    lender.drop(place)
