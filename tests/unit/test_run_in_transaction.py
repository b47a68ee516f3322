"""The pools and `run_in_transaction` refuse functions that cannot work, and wrong timeouts.

Some tests are about the side that checks arguments.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import dao
from dao import aio, migrate, tasks
from tests.concurrency import loop, stored
from tests.transactions import add

__all__ = ["loop"]  # a fixture

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]


async def coroutine(connection: Any) -> None:
    """Write when it is awaited, which nobody does."""
    add(connection)


async def asynchronous_generator(connection: Any):
    """Write when it is read, which nobody does."""
    add(connection)
    yield


def generator(connection: Any):
    """Write when it is read, which nobody does."""
    add(connection)
    yield


class Callers:
    """An object that is called as a coroutine function is."""

    async def __call__(self, connection: Any) -> None:
        """Write when it is awaited, which nobody does."""
        add(connection)


def writes_first(connection: Any) -> Any:
    """Write, and leave the rest to who awaits it."""
    add(connection)
    return coroutine(connection)


UNDONE = [
    coroutine,
    functools.partial(coroutine),
    asynchronous_generator,
    generator,
    Callers(),
    lambda connection, function=coroutine: function(connection),
    lambda connection: map(add, [connection]),
    lambda connection: filter(add, [connection]),
    tasks.iter_all,
    lambda connection: itertools.islice(tasks.iter_all(connection), 3),
    lambda connection: enumerate(tasks.iter_all(connection)),
    lambda connection: zip(tasks.iter_all(connection), [add], strict=False),
]


@pytest.mark.parametrize(
    "function", UNDONE, ids=lambda function: getattr(function, "__name__", type(function).__name__)
)
def test_function_whose_work_is_yet_to_be_done_is_refused(loop, url, function):
    """A coroutine or a generator was taken for a result, and what it should have written lost in silence.

    `islice` of `iter_all` would go on on a connection that the pool has lent to another.
    """

    async def main() -> None:
        async with aio.Pool(url) as pool, aio.Pool("sqlite://") as memory:
            for call in (pool.run, pool.run_in_transaction, pool.write, pool.writing(timeout=1), memory.write):
                with pytest.raises(TypeError, match="whose work is yet to be done"):
                    await call(function)
            assert pool.stats().recycled == 0

    loop.run(main)
    with dao.Pool(url) as pool, dao.Pool("sqlite://") as memory, contextlib.closing(dao.connect(url)) as connection:
        for call in (
            pool.write,
            pool.writing(timeout=1),
            memory.write,
            functools.partial(dao.run_in_transaction, connection),
            functools.partial(dao.replaying(deadline=1), pool),
        ):
            with pytest.raises(TypeError, match="whose work is yet to be done"):
                call(function)
    assert stored(url) == 0


def test_function_that_writes_and_returns_a_coroutine_is_undone(loop, url):
    """What such a function wrote in a transaction is undone with it."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            with pytest.raises(TypeError):
                await pool.write(writes_first)
            with pytest.raises(TypeError):
                await pool.run(dao.run_in_transaction, writes_first)

    loop.run(main)
    assert stored(url) == 0


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit, KeyError])
def test_function_that_raises_anything_comes_back(loop, url, error):
    """An exception that a function raises comes to its caller.

    A StopIteration used to be lost, and the caller waited for ever.
    """

    def fail(connection: Any) -> None:
        add(connection)
        raise error("a")

    async def main() -> None:
        async with aio.Pool(url) as pool:
            for call in (pool.run, pool.write):
                with pytest.raises((RuntimeError, error)) as caught:
                    await call(fail)
                assert error in {type(caught.value), type(caught.value.__cause__)}
            assert (pool.stats().active, await pool.run(tasks.count)) == (0, 1)  # that of `run` was no transaction

    loop.run(main)


# ---------------------------------------------------------------- asynchronous connections


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_asynchronous_connection_where_a_plain_one_belongs_is_refused(loop, url):
    """No function and no transaction takes an asynchronous connection outside of its thread.

    The transaction did, with no atomicity and two warnings.
    """

    async def main() -> None:
        connection = await aio.connect(url)
        task = dao.Task(title="a", task_type="agent")
        for call in (
            dao.transaction(connection).__enter__,
            lambda: dao.run_in_transaction(connection, add),
            lambda: tasks.get(connection, "a"),
            lambda: tasks.create(connection, task),
            lambda: tasks.create_many(connection, [task]),
            lambda: tasks.update(connection, task),
            lambda: migrate.apply(connection),
            lambda: migrate.status(connection),
            lambda: migrate.assert_current(connection),
            lambda: migrate.snapshots(connection),
            lambda: migrate.take_snapshot(connection),
            lambda: migrate.rehearse(connection),
        ):
            with pytest.raises(
                TypeError, match=r"an asynchronous one: .* `await dao.aio.run\(connection, function, …\)`"
            ):
                call()
        for wrong in (url, dao.Pool(url), dao.connect(url)):
            with pytest.raises(
                TypeError, match=r"expected an asynchronous connection, got (str|Pool|Connection): open"
            ):
                await aio.run(wrong, tasks.count)
        assert await aio.run(connection, tasks.count) == 0
        outside.append(connection)
        async with aio.Pool(url) as pool:
            with pytest.raises(TypeError, match="expected a connection, got Pool"):
                dao.run_in_transaction(pool, add)

    outside: list[Any] = []
    loop.run(main)
    with pytest.raises(TypeError, match="an asynchronous one"):
        dao.transaction(outside[0]).__enter__()
    outside[0].close()


# ---------------------------------------------------------------- timeouts


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (-math.inf, ValueError), (math.nan, ValueError), ("5", TypeError), (True, TypeError)]
    + [(value, TypeError) for value in (Decimal(5), [5], b"5")],
)
def test_timeout_that_is_no_number_of_seconds_is_refused_everywhere(loop, url, timeout, error):
    """Each timeout of both pools, and the deadline of a replay: some of these waited for ever, others were zero."""

    def refused(call: Callable[[], object]) -> None:
        with pytest.raises(error, match="number of seconds"):
            call()

    for kind in (dao.Pool, aio.Pool):
        refused(lambda kind=kind: kind(url, timeout=timeout))
        refused(lambda kind=kind: kind(url).acquire(timeout=timeout))
        refused(lambda kind=kind: kind(url).writing(timeout=timeout))
    refused(lambda: dao.replaying(deadline=timeout))
    with dao.Pool(url) as pool:
        refused(lambda: pool.health(timeout))
        refused(lambda: pool.close(timeout))
        assert pool.health().ok  # it was not closed

    async def main() -> None:
        async with aio.Pool(url) as pool:
            for call in (pool.health, pool.aclose):
                with pytest.raises(error, match="number of seconds"):
                    await call(timeout)
            assert (await pool.health(math.inf)).ok

    loop.run(main)


# ---------------------------------------------------------------- arguments


def test_functions_have_all_of_their_keywords(loop, url):
    """A function's own `timeout`, `deadline`, `function` and `self` reach it: they were taken for the pool's."""

    def echo(_: Any, /, **keywords: object) -> dict[str, object]:
        return keywords

    given = {"timeout": 1, "deadline": 2, "function": 3, "self": 4, "where": 5, "args": 6}

    async def main() -> None:
        async with aio.Pool(url) as pool, pool.acquire() as connection:
            assert await pool.run(echo, **given) == given
            assert await pool.write(echo, **given) == given
            assert await pool.run_in_transaction(echo, **given) == given
            assert await pool.writing(timeout=1)(echo, **given) == given
            assert await aio.run(connection, echo, **given, connection=7) == {**given, "connection": 7}

    loop.run(main)
    with dao.Pool(url) as pool:
        assert pool.write(echo, **given) == given
        assert pool.writing(timeout=1)(echo, **given) == given
        assert dao.run_in_transaction(pool, echo, **given) == given
        assert dao.replaying(deadline=1)(pool, echo, **given) == given
