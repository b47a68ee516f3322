"""Functions of the caller's: run in a transaction, and again while the database is busy, or refused."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from dao.engine import Connection, in_transaction, is_connection, is_interrupted, not_a_connection, transaction
from dao.errors import ConnectionBusy, ConnectionLost, DatabaseBusy, InvalidValue

__all__ = ["check_seconds", "done", "pauses", "replaying", "run_in_transaction"]

P = ParamSpec("P")
T = TypeVar("T")

_UNDONE = (
    *(CoroutineType, GeneratorType, AsyncGeneratorType, map, filter, zip, enumerate),
    *(itertools.chain, itertools.islice),  # `iter_all`, and the first of it
)


def done(result: T) -> T:
    """Return what a function returned, unless its work is yet to be done, when its transaction is over.

    Raises:
        TypeError: It is a coroutine or anything else to await, a generator, or what `iter_all`, `map`, `filter`, `zip`,
            `enumerate` or `islice` gave.
    """
    if isinstance(result, _UNDONE) or hasattr(type(result), "__await__"):
        if isinstance(result, CoroutineType):
            result.close()  # or Python would warn that nobody awaits it
        raise TypeError(
            f"the function returned a {type(result).__name__}, whose work is yet to be done: pass a function that does "
            "it before it returns, with no `async def` and no `yield`; list(…) makes a list of what a generator or "
            "`map` yields"
        )
    return result


def check_seconds(seconds: float) -> float:
    """Return a timeout, unless it is no number of seconds.

    Raises:
        TypeError: It is no number.
        InvalidValue: It is negative, or not a number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a timeout is a number of seconds, got {seconds!r}")
    if not seconds >= 0:
        raise InvalidValue(f"a timeout must be a number of seconds from 0, got {seconds!r}")
    return seconds


def pauses(end: float, first: float, longest: float, *, least: float = 0.0) -> Iterator[float]:
    """Yield for how many seconds to wait before each further try, until a moment of the monotonic clock.

    Each wait is up to twice as long as the one before, at random: from this share of that on.
    """
    wait = first
    while True:
        pause = random.uniform(least * wait, wait)  # noqa: S311 - jitter, no secret
        if time.monotonic() + pause >= end:
            return
        yield pause
        wait = min(wait * 2, longest)


class _Pool(Protocol):
    def acquire(self) -> AbstractContextManager[Connection]: ...


class _Run(Protocol):
    def __call__(
        self,
        where: Connection | _Pool,
        function: Callable[Concatenate[Any, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...


def run_in_transaction(
    where: Connection | _Pool, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call `function(connection, *args, **kwargs)` in a transaction and return its result; replay all of it while busy.

    On PostgreSQL others may write between its reads and its writes, below the level SERIALIZABLE: see
    docs/explanation/postgresql.md.

    A replay begins anew, so what the function read is read again; what it did outside of the database is done again.
    Waits between the attempts grow from 1 to 250 ms, with full jitter, and end 30 seconds after the first (`replaying`
    sets another deadline). Inside a transaction that is open already nothing is replayed: that is for whoever opened
    it. An interruption ends it all, and so does `CommitUnknown`: to replay what may be stored is the caller's decision.

    `where` is a connection, or a pool to take one from. With a pool, a connection to a server that is lost before the
    commit is replaced by another.

    Raises:
        DatabaseBusy: It was busy until the deadline.
        ConnectionLost: The server could not be reached until the deadline; of one connection, at once.
        ConnectionBusy: A cursor or a transaction of the connection itself stands in the way. Raised at once.
        CommitUnknown: The commit met an I/O error.
        TypeError: The function returned before its work was done, a coroutine or a generator: nothing is stored.
    """
    return _replay(30.0, where, function, *args, **kwargs)


def replaying(*, deadline: float) -> _Run:
    """Return a `run_in_transaction` that ends so many seconds after the first attempt.

    Usage: `dao.replaying(deadline=5)(connection, tasks.create, task)`.

    Raises:
        TypeError, InvalidValue: The deadline is no number of seconds from 0.
    """
    return functools.partial(_replay, check_seconds(deadline))


def _replay(deadline: float, where: Any, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    end = time.monotonic() + deadline
    if is_connection(where):
        return _replay_on(end, where, function, *args, **kwargs)
    again = pauses(end, 0.05, 1.0, least=0.5)
    while True:
        lease: Any = where.acquire() if hasattr(where, "acquire") else None
        if not hasattr(lease, "__enter__"):
            raise not_a_connection(where)
        lease.last_try = end
        try:
            with lease as connection:
                return _replay_on(end, connection, function, *args, **kwargs)
        except ConnectionLost:
            pause = next(again, None)
            if pause is None:
                raise
            time.sleep(pause)


def _replay_on(end: float, where: Any, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run it on one connection, again until a moment of the monotonic clock."""
    again = pauses(end, 0.001, 0.25)
    while True:
        try:
            with transaction(where):
                return done(function(where, *args, **kwargs))
        except ConnectionBusy:
            raise
        except DatabaseBusy:
            pause = next(again, None)
            if pause is None or in_transaction(where):
                raise
            time.sleep(pause)
            if is_interrupted(where):
                raise
