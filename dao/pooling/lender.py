"""Which connection of a pool goes to whom: the queue, the places, their bounds and deadlines, what is counted.

Nothing here waits, opens or closes: `dao.Pool` does that for threads, and `dao.aio.Pool` for tasks.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from dao import engine, locks, url
from dao.errors import InvalidValue, OperationalError, PoolClosed, PoolTimeout
from dao.logs import logger
from dao.pooling.figures import Listeners, PoolStats
from dao.pooling.opening import Prepare
from dao.transactions import check_seconds, pauses

__all__ = ["CHECK", "FORKED", "Lender", "Place", "until"]

log = logger("dao.pool")

#: Why a pool of the parent's does not work in a forked process.
FORKED = (
    "this pool belongs to the parent of this process, and no connection survives a fork: close it before the fork, or "
    "start the process with spawn or forkserver, and make a pool there"
)

#: How often a thread or task that waits looks for places that were lost, in seconds.
CHECK = 1.0


class Place(weakref.ref[Any]):
    """The standing of a lease in the pool: in the queue, then one of `size`, then with a connection.

    It is a weak reference, so that no exception at any moment can lose it: a lease that was not ended as it should be
    dies with the frames that held it, and its place is noted as lost by C code, which cannot be interrupted.
    """

    __slots__ = ("connection", "event", "since")

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    connection: Any  # None too after a fork, and in the next loop
    event: Any  # where the lease waits
    since: float  # when it got its connection, or leave to open one


class Lender:
    """The connections of one pool. `end` closes one to a server at once, waiting for nothing.

    Each method holds `guard` while it changes something. An exception from outside may end it at any bytecode: the
    order of its statements is such that a connection is then lent once, or has been let go of, and so closed.
    """

    def __init__(
        self,
        database: url.AnyURL,
        size: int,
        timeout: float,
        end: Callable[[Any], object] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidValue(f"a pool's size must be a whole number from 1, got {size!r}")
        self.timeout = check_seconds(timeout)
        self.url = database
        self.prepare = prepare
        self.engine = engine.engine_of(database)
        self.on_server = self.engine.ON_SERVER
        self._end = end if self.on_server else None
        self.size = 1 if database.is_memory else size
        self.guard = locks.Lock()
        self.closed: str | None = None  # why nothing is lent any more
        self.owner: Any = None  # the event loop that all connections belong to, if they belong to one
        self.kept: Any = None  # a database in memory is its connection, and must not be lost
        self._idle: list[Any] = []  # the last one back is the first to go: its cache is warm
        self._taken: set[Place] = set()
        self._queue: deque[Place] = deque()
        self._lost: deque[Place] = deque()
        self._closing: list[Any] = []
        self._acquired = self._timeouts = self._recycled = 0
        self._waited = self._longest_wait = self._used = self._longest_use = 0.0
        self._opened, self._opening, self._longest_opening = 0, 0.0, 0.0
        self.listeners = Listeners()
        self.note_lost = self._lost.append
        FORKED_WITH.add(self)

    # ------------------------------------------------------------ lending

    def take(self, place: Place, event: Callable[[], Any]) -> bool:
        """Give the place a connection, or leave to open one. Return False if there is no room, and it is in the queue.

        Raises:
            PoolClosed: Nothing is lent any more.
        """
        with self.guard:
            if self.closed is not None:
                raise PoolClosed(self.closed)
            if self._lost:
                self._find_lost()
            if self._idle:
                place.connection = self._idle.pop()
                place.since = time.monotonic()
                self._taken.add(place)
                self._acquired += 1
                return True
            if self._grant(place):
                return True
            place.event = event()
            self._queue.append(place)
            return False

    def waits(self, place: Place, timeout: float) -> Iterator[float]:
        """Yield, until the place has its turn, for how many seconds to wait at its event.

        Raises:
            PoolTimeout: The time is up.
            PoolClosed: The pool was closed meanwhile.
        """
        begun = time.monotonic()
        for seconds in until(lambda: place in self._taken or self.closed is not None, timeout):
            yield seconds
            if place not in self._taken:
                with self.guard:
                    self._find_lost()
        waited = time.monotonic() - begun
        with self.guard:
            self._waited += waited
            self._longest_wait = max(self._longest_wait, waited)
            if place in self._taken:
                self._acquired += place.connection is not None
                return
            if self.closed is not None:
                raise PoolClosed(self.closed)
            self._queue.remove(place)
            self._timeouts += 1
        advice = (
            "a database in memory has this one connection only: use a file"
            if self.url.is_memory
            else "hold connections for less time or make the pool larger"
        )
        raise PoolTimeout(
            f"no connection became free within {timeout:g} s: all {self.size} are in use and {len(self._queue)} others "
            f"wait; {advice}"
        )

    def replace(self, place: Place) -> Any:
        """Take from a place an idle connection that cannot be lent, with leave to open one. Return it, to be closed."""
        with self.guard:
            connection = place.connection
            place.connection = None
            self._acquired -= 1
            self._recycled += 1
            return connection

    def pauses(self, end: float) -> Iterator[float]:
        """Yield for how many seconds to wait before a server that could not be reached is tried again.

        It ends at a moment of the monotonic clock.

        Raises:
            PoolClosed: The pool was closed meanwhile.
        """
        for pause in pauses(end, 0.05, 0.5, least=0.5):
            if self.closed is not None:
                break
            yield pause
        if self.closed is not None:
            raise PoolClosed(self.closed)

    def opened(self, place: Place, connection: Any) -> None:
        """Give a place the connection that was opened for it.

        Raises:
            PoolClosed: The pool was closed meanwhile: close the connection.
        """
        place.connection = connection
        place.since = time.monotonic()
        with self.guard:
            if self.closed is not None:
                raise PoolClosed(self.closed)
            if self.url.is_memory:
                self.kept = connection
            self._acquired += 1

    def may_return(self, error: BaseException | None, *, harmless: tuple[type[BaseException], ...]) -> bool:
        """Return whether a connection may be lent again after an error: a harmless one, and not its own."""
        if error is None or self.url.is_memory or isinstance(error, self.engine.HARMLESS):
            return True
        return isinstance(error, harmless) and not isinstance(error, OperationalError | self.engine.DriverError)

    def put_back(self, place: Place, *, usable: bool) -> bool:
        """Take a connection back, for the next one. Return False if it has to be closed, and then to be dropped."""
        with self.guard:
            if place not in self._taken:
                return True  # a fork or another loop came in between
            used = time.monotonic() - place.since
            self._used += used
            self._longest_use = max(self._longest_use, used)
            connection = place.connection
            back = usable and self.closed is None and connection is not None
            if back:
                self._taken.discard(place)
                place.connection = None
                self._idle.append(connection)
                if self._queue:
                    self._serve()
            elif not usable:
                self._recycled += 1
        if self.listeners.all:
            self.listeners.tell("use", used)
        return back

    def note_opened(self, seconds: float) -> None:
        """Count a connection that was opened and prepared, and how long that took."""
        with self.guard:
            self._opened += 1
            self._opening += seconds
            self._longest_opening = max(self._longest_opening, seconds)
        self.listeners.tell("open", seconds)

    def has(self, connection: object) -> bool:
        """Return whether a connection, as functions get it, is one of the pool's."""
        return any(getattr(one, "plain", one) is connection for one in self.connections())

    def drop(self, place: Place) -> None:
        """Let go of a place, whatever it has. Safe to repeat."""
        with self.guard:
            self._forget(place)

    def _grant(self, place: Place) -> bool:
        """Give a place one of `size`, and an idle connection or leave to open one, if there is room."""
        if len(self._taken) >= self.size:
            return False
        if self._idle:
            place.connection = self._idle.pop()
        place.since = time.monotonic()
        self._taken.add(place)
        return True

    def _serve(self) -> None:
        """Give free places to those that have waited longest."""
        while self._queue and (self._queue[0] in self._taken or self._grant(self._queue[0])):
            self._queue[0].event.set()
            self._queue.popleft()

    def _find_lost(self) -> None:
        while self._lost:
            self._forget(self._lost[0])
            self._lost.popleft()

    def _forget(self, place: Place) -> None:
        # a connection that it still has is closed with the last reference to it; psycopg warns of that
        self._taken.discard(place)
        connection, place.connection = getattr(place, "connection", None), None
        if connection is not None and self._end is not None:
            self._end(connection)
        with contextlib.suppress(ValueError):
            self._queue.remove(place)
        self._serve()
        if self.is_drained:
            for event in self._closing:
                event.set()

    # ------------------------------------------------------------ the end

    def close(self, ended: Any) -> None:
        """Lend nothing more, and tell all that wait. Set `ended` when all connections are closed. Safe to repeat."""
        with self.guard:
            self.closed = self.closed or "the pool is closed"
            self.kept = None
            self._find_lost()
            self._closing.append(ended)
            while self._queue:
                self._queue[0].event.set()
                self._queue.popleft()

    def retire(self, place: Place) -> bool:
        """Give a place an idle connection of a closed pool, to be closed and dropped. Return False if there is none."""
        with self.guard:
            if not self._idle:
                return False
            self._taken.add(place)
            place.connection = self._idle.pop()
            return True

    def drains(self, timeout: float, deadline: float, interrupt: Callable[[Any], None]) -> Iterator[float]:
        """Yield, until all connections are closed or nothing more can be done, for how many seconds to wait for that.

        At the deadline, a moment of the monotonic clock `timeout` seconds after the start, statements are interrupted,
        and their holders have another second.
        """
        yield from until(self._find_drained, deadline - time.monotonic())
        if not self.is_drained:
            held = self.connections()
            log.warning("pool: %d connections still in use after %.1f s; interrupting them", len(held), timeout)
            for connection in held:
                interrupt(connection)
            yield from until(self._find_drained, 1.0)

    def _find_drained(self) -> bool:
        with self.guard:
            self._find_lost()
        return self.is_drained

    @property
    def is_drained(self) -> bool:
        """Whether the pool is closed, and all its connections are."""
        return self.closed is not None and not self._taken and not self._idle

    def connections(self) -> list[Any]:
        """Return the connections that there are, those that are lent too."""
        with self.guard:
            return [*self._idle, *(place.connection for place in self._taken if place.connection is not None)]

    def forget(self) -> None:
        """Forget the connections and all places: a lease that ends later has nothing to give back."""
        with self.guard:
            for place in self._taken:
                place.connection = None
            self._idle.clear()
            self._taken.clear()
            self._queue.clear()
            self._closing.clear()
            self.kept = None

    def leave_to_parent(self) -> None:
        """In a forked child: nothing that was open can be used; a pool that had opened nothing goes on."""
        self.guard = locks.Lock()  # another thread of the parent may have held it
        self.owner = None
        if self._idle or self._taken:
            self.closed = FORKED
        self.forget()

    # ------------------------------------------------------------ what is reported

    def stats(self, **writer: int) -> PoolStats:
        """Return what the pool is doing now and has done so far, with the figures of its writer."""
        with self.guard:
            return PoolStats(
                size=self.size,
                idle=len(self._idle),
                active=len(self._taken),
                waiting=len(self._queue),
                acquired=self._acquired,
                timeouts=self._timeouts + writer.pop("timeouts"),
                recycled=self._recycled,
                wait_seconds=self._waited,
                longest_wait_seconds=self._longest_wait,
                use_seconds=self._used,
                longest_use_seconds=self._longest_use,
                opened=self._opened,
                open_seconds=self._opening,
                longest_open_seconds=self._longest_opening,
                **writer,
            )


def until(is_over: Callable[[], bool], timeout: float) -> Iterator[float]:
    """Yield for how many seconds to wait before the next look, until it is over, or until so many seconds are."""
    end = time.monotonic() + timeout
    while not is_over() and (left := end - time.monotonic()) > 0:
        yield min(left, CHECK)


#: All lenders and writers: in a forked child `leave_to_parent` is called on each.
FORKED_WITH: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(FORKED_WITH):
        one.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
