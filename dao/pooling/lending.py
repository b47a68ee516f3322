"""What the pool for threads and the one for async code have in common: the rules of lending, and what they report."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import attrs

from dao import url
from dao.engine import Connection, DriverError
from dao.errors import DatabaseBusy, OperationalError, PoolTimeout, ReadOnlyDatabase

__all__ = [
    "CHECK",
    "AsyncWriting",
    "Health",
    "Lease",
    "Place",
    "PoolStats",
    "Writing",
    "check_size",
    "is_broken",
    "timed_out",
    "warn_unclosed",
]

P = ParamSpec("P")
T = TypeVar("T")

#: How often those who wait look for places that were lost, in seconds.
CHECK = 1.0


class Place(weakref.ref[Any]):
    """What a lease has in the pool: a place in the queue, then one of `size`, then a connection.

    It is a weak reference, so that no exception at any moment can lose it: a lease that was not ended as it should be dies with
    the frames that held it, and its place is noted as lost by C code, which cannot be interrupted.
    """

    __slots__ = ("_lock", "connection")

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    connection: Connection | None

    def queue(self) -> None:
        """Make it one to wait at."""
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> None:
        """Wait to be woken, for so many seconds at the most."""
        self._lock.acquire(timeout=min(seconds, CHECK))

    def wake(self) -> None:
        """Wake who waits. Safe to repeat."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()


class Lease:
    """What `Pool.acquire` returns: `with pool.acquire() as connection`. The connection goes back at the block's end."""

    __slots__ = ("__weakref__", "_deadline", "_place", "_pool", "_timeout")

    def __init__(self, pool: Any, timeout: float, deadline: float = math.inf) -> None:
        self._pool = pool
        self._timeout = timeout
        self._deadline = deadline

    def __enter__(self) -> Connection:
        self._place = place = Place(self, self._pool._lost.append)
        place.connection = None
        try:
            lent: Connection = self._pool._take(place, self._timeout, self._deadline)
            return lent
        except BaseException:
            self._pool._drop(place)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._pool._give_back(self._place, value)
        except BaseException:
            self._pool._drop(self._place)
            raise
        del self._place  # nothing is lost when this dies


@attrs.frozen(kw_only=True)
class PoolStats:
    """What a pool is doing. `size` bounds `idle` + `active`; the others count since the pool was made.

    `wait_seconds` is the sum over all that had to wait for a connection, `longest_wait_seconds` the longest.

    Of `write`: `queued` functions wait for their turn; `writes` were committed, in `batches` transactions.
    """

    size: int
    idle: int
    active: int
    waiting: int
    acquired: int
    timeouts: int
    recycled: int
    wait_seconds: float
    longest_wait_seconds: float
    queued: int = 0
    writes: int = 0
    batches: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that any JSON encoder takes."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Health:
    """Whether the database answered, in how many seconds, and if not, why.

    `locked`: another connection held the write lock at that moment, so that a write would have waited.
    """

    ok: bool
    seconds: float
    error: str | None = None
    locked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict that any JSON encoder takes."""
        return attrs.asdict(self)


class Writing(Protocol):
    """What `Pool.writing` returns: its call is that of `Pool.write`."""

    def __call__(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `Pool.write`."""


class AsyncWriting(Protocol):
    """The same of `dao.aio.Pool`."""

    async def __call__(
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do as `Pool.write`."""


def check_size(size: int) -> None:
    """Refuse a pool size below 1.

    Raises:
        ValueError: It is.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"a pool's size must be a whole number from 1, got {size!r}")


def timed_out(database: url.DatabaseURL, timeout: float, size: int, waiting: int) -> PoolTimeout:
    """Return the error for a pool from which no connection could be had in time."""
    advice = (
        "a database in memory has this one connection only: use a file"
        if database.is_memory
        else "hold connections for less time or make the pool larger"
    )
    return PoolTimeout(
        f"no connection became free within {timeout:g} s: all {size} are in use and {waiting} others wait; {advice}"
    )


def is_broken(error: BaseException | None) -> bool:
    """Return whether an error that left a block may be the connection's own, rather than the statement's or the row's."""
    if isinstance(error, DatabaseBusy | ReadOnlyDatabase):
        return False
    return isinstance(error, OperationalError | DriverError)


def warn_unclosed(path: str) -> None:
    """Warn of a database whose connections nobody has closed."""
    warnings.warn(
        f"{path}: asynchronous connections were not closed; use `async with` or `await pool.aclose()`",
        ResourceWarning,
        stacklevel=2,
    )
