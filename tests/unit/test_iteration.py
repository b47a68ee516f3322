"""`aio.Pool.iterate`: listings in async code, on asyncio and on trio; and `dao.Pool.run`, which refuses them."""

from __future__ import annotations

import threading

import pytest

import dao
from dao import aio, engine, tasks, workflows
from dao.testing import make_task, make_workflow
from tests.concurrency import CANCELLED, ENDLESS, loop

__all__ = ["loop"]  # a fixture

pytestmark = pytest.mark.both_engines
PAGE = 500


def test_iterate_yields_what_iter_all_does_a_page_at_a_time(loop, url, connection):
    """A list of everything was the only way: a page comes when the one before is used, on whichever connection."""
    tasks.create_many(connection, [make_task() for _ in range(2 * PAGE + 1)])
    expected = [task.id for task in tasks.iter_all(connection, oldest_first=True)]

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            found, fetched = [], []
            async for task in pool.iterate(tasks.iter_all, oldest_first=True):
                found.append(task.id)
                fetched.append(pool.stats().acquired)
            assert found == expected
            assert fetched == [1] * PAGE + [2] * PAGE + [3]

    loop.run(main)


def test_iterate_holds_no_connection_while_the_loop_works(loop, url, connection):
    """The loop may use a pool of one connection, and be left at any record: nothing has to be closed."""
    tasks.create_many(connection, [make_task() for _ in range(3)])

    async def main() -> None:
        async with aio.Pool(url, size=1, timeout=0) as pool:
            async for task in pool.iterate(tasks.iter_all):
                assert pool.stats().active == 0
                await pool.run(tasks.set_status, task.id, "cancelled")
                break
            assert await pool.run(tasks.count, status="cancelled") == 1
            mine = pool.iterate(lambda c: tasks.iter_all(c, status="pending"))  # what a function of one's own passes on
            assert len([task async for task in mine]) == 2
            assert [task async for task in mine] == []
            assert [one async for one in pool.iterate(workflows.iter_all)] == []

    loop.run(main)


def test_iterate_that_tasks_share_gives_each_record_to_one_of_them(loop, url, connection):
    """Tasks that asked for a page at once each fetched it: records were done twice."""
    tasks.create_many(connection, [make_task() for _ in range(PAGE + 1)])
    found = []

    async def main() -> None:
        async with aio.Pool(url) as pool:
            listing = pool.iterate(tasks.iter_all)

            async def consume() -> None:
                async for task in listing:
                    found.append(task.id)
                    await loop.sleep(0)

            for consumer in [loop.start(consume) for _ in range(3)]:
                await consumer.end()

    loop.run(main)
    assert sorted(found) == sorted(task.id for task in tasks.iter_all(connection))


def test_iterate_cancelled_in_a_page_can_go_on_after_it(loop, url, connection):
    """The statement is interrupted, its connection comes back, and the page is fetched again."""
    tasks.create(connection, make_task(id="t"))
    begun = threading.Event()

    def slow(connection):
        if not begun.is_set():
            begun.set()
            engine.fetch(connection, ENDLESS)
        return tasks.iter_all(connection)

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            listing = pool.iterate(slow)
            task = loop.start(lambda: anext(listing))
            while not begun.is_set():
                await loop.sleep(0.001)
            task.cancel()
            assert await task.end() is CANCELLED
            assert pool.stats().active == 0
            assert [task.id async for task in listing] == ["t"]

    loop.run(main)


def test_iterate_what_is_no_listing_is_refused(loop, url):
    """A list has been read already, and a generator would hold its connection; wrong arguments come with the first."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            for function in (dao.sessions.list_active, lambda c: (task for task in tasks.iter_all(c))):
                with pytest.raises(TypeError, match="iterate takes a function that returns what `iter_all` does"):
                    await anext(pool.iterate(function))
            with pytest.raises(dao.InvalidValue, match="'lost' is not a valid TaskStatus"):
                await anext(pool.iterate(tasks.iter_all, status="lost"))
            with pytest.raises(TypeError, match=r"whose work is yet to be done.*list\("):
                await pool.run(tasks.iter_all)

    loop.run(main)


def test_run_of_the_pool_for_threads_is_as_that_for_tasks(url, connection):
    """`with pool.acquire()` was needed for each single call."""
    workflow = make_workflow()
    with dao.Pool(url, size=1, timeout=0) as pool:
        assert pool.run(workflows.create, workflow) is None
        assert pool.run(workflows.get, workflow.id) == workflow
        with pytest.raises(dao.NotFound):
            pool.run(workflows.get_one, "nobody")
        with pytest.raises(TypeError, match="whose work is yet to be done"):
            pool.run(workflows.iter_all)
        assert pool.stats().active == 0
        with pool.acquire(), pytest.raises(dao.PoolTimeout):
            pool.run(workflows.count)
    with pytest.raises(dao.PoolClosed):
        pool.run(workflows.count)
