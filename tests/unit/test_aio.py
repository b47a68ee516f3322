"""`dao.aio`: the same functions from async code, on asyncio and on trio alike."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from typing import Any

import apsw
import psycopg
import pytest
import trio
import trio.testing

import dao
from dao import Task, aio, engine, tasks
from tests.concurrency import CANCELLED, ENDLESS, PATIENCE, Asyncio, locked, loop, patient, stored, until
from tests.engines import wait_for_end
from tests.transactions import add

__all__ = ["loop"]  # a fixture

pytestmark = pytest.mark.both_engines


def add_and_run(connection: apsw.Connection, begun: threading.Event, sql: str) -> None:
    """Write a task and run a statement, as one transaction."""
    with dao.transaction(connection):
        add(connection)
        begun.set()
        engine.fetch(connection, sql)


# ---------------------------------------------------------------- connect


@pytest.mark.sqlite_only
def test_connect_sets_up_like_the_other(loop, url):
    """An async connection has the settings of `dao.connect`, the URL's parameters included.

    SQLite only: its pragmas.
    """

    def settings(connection: apsw.Connection) -> list[Any]:
        pragmas = ["journal_mode", "synchronous", "foreign_keys", "trusted_schema", "journal_size_limit", "cache_size"]
        options = [apsw.SQLITE_DBCONFIG_DQS_DML, apsw.SQLITE_DBCONFIG_DQS_DDL, apsw.SQLITE_DBCONFIG_DEFENSIVE]
        values = [connection.pragma(name) for name in pragmas] + [connection.config(option, -1) for option in options]
        return [*values, connection.cache_stats()["size"]]

    async def main() -> None:
        for query in ("", "?synchronous=full&cache_size=77&foreign_keys=off"):
            connection = await aio.connect(url + query)
            with contextlib.closing(dao.connect(url + query)) as other:
                assert await aio.run(connection, settings) == settings(other)
            await connection.aclose()

    loop.run(main)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing/a.db", dao.OperationalError, "the folder .* does not exist"),
        ("none.db?mode=ro", dao.OperationalError, "mode=ro creates nothing"),
        ("letter", dao.DatabaseCorrupt, "no SQLite database"),
    ],
)
@pytest.mark.sqlite_only
def test_connect_what_cannot_be_opened_says_why(loop, tmp_path, name, kind, message):
    """The errors are those of `dao.connect`, and no thread is left behind.

    SQLite only: its files.
    """
    (tmp_path / "letter").write_text("no database " * 100)

    async def main() -> None:
        with pytest.raises(kind, match=message) as caught:
            await aio.connect(f"sqlite:///{tmp_path}/{name}")
        assert isinstance(caught.value.__cause__, apsw.Error)

    loop.run(main)


@pytest.mark.sqlite_only
def test_connect_url_or_engine_that_will_not_do_is_refused(loop, monkeypatch):
    """A URL that means nothing and a SQLite that corrupts data open nothing.

    SQLite only: its version.
    """

    async def main() -> None:
        with pytest.raises(dao.InvalidURL):
            await aio.connect("mysql://localhost/a")
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
        with pytest.raises(dao.UnsupportedEngine):
            await aio.connect("sqlite://")

    loop.run(main)


@pytest.mark.parametrize("pause", [None, 0, 0.0003, 0.001])
def test_connect_cancelled_leaves_no_connection_behind(loop, url, pause):
    """Whenever the cancellation comes, the connection that was being opened is closed, and its thread ends."""

    async def main() -> None:
        task = loop.start(lambda: aio.connect(url))
        if pause is not None:
            await loop.sleep(pause)
        task.cancel()
        connection = await task.end()
        if connection is not CANCELLED:
            await connection.aclose()

    loop.run(main)
    if url.startswith("sqlite"):
        assert not [one for one in apsw.connections() if one.filename and one.filename in url]
        return
    with contextlib.closing(dao.connect(url)) as other:
        wait_for_end(other)


# ---------------------------------------------------------------- run


def test_run_calls_the_function_with_the_connection_and_its_arguments(loop, url):
    """The table modules' functions run as they are, and their errors come out as they are."""

    async def main() -> None:
        connection = await aio.connect(url)
        task = Task(title="a", task_type="agent")
        await aio.run(connection, tasks.create, task)
        assert await aio.run(connection, tasks.get, task.id) == task
        assert (await aio.run(connection, tasks.find, status="pending", limit=1)).items == [task]
        with pytest.raises(dao.UniqueViolation) as caught:
            await aio.run(connection, tasks.create, task)
        assert caught.value.table == "tasks"
        assert isinstance(caught.value.__cause__, apsw.ConstraintError | psycopg.errors.UniqueViolation)
        with pytest.raises(ZeroDivisionError):
            await aio.run(connection, lambda _: 1 / 0)
        await connection.aclose()

    loop.run(main)


def test_run_function_with_a_transaction_is_one(loop, url):
    """Several steps in a function of one's own are a transaction, replays included."""

    def both(connection: apsw.Connection, fail: bool) -> str:  # noqa: FBT001 - a test's own
        with dao.transaction(connection):
            add(connection)
            with dao.transaction(connection):
                add(connection)
            if fail:
                raise LookupError("changed my mind")
        return "done"

    async def main() -> None:
        connection = await aio.connect(url)
        with pytest.raises(LookupError):
            await aio.run(connection, both, fail=True)
        assert stored(url) == 0
        assert await aio.run(connection, dao.run_in_transaction, both, fail=False) == "done"
        assert stored(url) == 2
        await connection.aclose()

    loop.run(main)


def test_run_long_statement_leaves_other_tasks_running(loop, url):
    """While the worker thread is busy the loop goes on."""

    async def main() -> None:
        connection = await aio.connect(url)
        end, ticks = threading.Event(), 0
        task = loop.start(lambda: aio.run(connection, lambda _: end.wait(PATIENCE)))
        for _ in range(10):
            await loop.sleep(0)
            ticks += 1
        assert not task.done
        end.set()
        assert await task.end() is True
        assert ticks == 10
        await connection.aclose()

    loop.run(main)


def test_run_cancelled_statement_is_interrupted_and_undone(loop, url):
    """A cancelled task ends at once; its transaction is rolled back, and the connection is free again."""

    async def main() -> None:
        connection = await aio.connect(url)
        begun = threading.Event()
        task = loop.start(lambda: aio.run(connection, add_and_run, begun, ENDLESS))
        await until(loop, begun.is_set)
        task.cancel()
        assert await task.end() is CANCELLED
        assert not await aio.run(connection, engine.in_transaction)
        await aio.run(connection, add)
        assert stored(url) == 1
        await connection.aclose()

    loop.run(main)


def test_run_cancelled_again_and_again_still_waits_for_the_end(loop, url):
    """Further cancellations do not cut the cleaning up short."""

    async def main() -> None:
        connection = await aio.connect(url)
        begun, end = threading.Event(), threading.Event()
        outcome: list[str] = []

        def write(given: apsw.Connection) -> None:
            begun.set()
            assert end.wait(PATIENCE)
            try:
                add(given)
            except BaseException:
                outcome.append("undone")  # an interruption met the statement, as one every 50 ms may
                raise
            outcome.append("done")

        task = loop.start(lambda: aio.run(connection, write))
        await until(loop, begun.is_set)
        for _ in range(3):
            task.cancel()
            await loop.sleep(0.002)
        assert not task.done
        end.set()
        assert await task.end() is CANCELLED
        assert outcome in (["done"], ["undone"])  # it has ended
        assert stored(url) == outcome.count("done")
        await connection.aclose()

    loop.run(main)


@pytest.mark.sqlite_only
def test_run_in_a_scope_whose_time_is_up_is_cancelled_by_trio_alone(url):
    """Trio says whether time is up: apsw asked a clock of its own, and TooSlowError came out of `move_on_after`.

    SQLite only: the clock was apsw's.
    """

    def slow(connection: apsw.Connection) -> int:
        time.sleep(0.005)
        return connection.execute(ENDLESS.replace("FROM n)", "FROM n LIMIT 100000)")).get

    async def main() -> None:
        connection = await aio.connect(url)
        with trio.move_on_after(0.001) as scope:  # by a clock that stands still
            assert await aio.run(connection, slow) == 100_000
        assert not scope.cancelled_caught
        await connection.aclose()

    trio.run(main, clock=trio.testing.MockClock())


def test_run_cancelled_wait_for_a_lock_ends(loop, url):
    """A task that waits for another's lock, however long it may, can be cancelled."""

    async def main() -> None:
        connection = await aio.connect(patient(url))
        with locked(url):
            task = loop.start(lambda: aio.run(connection, add))
            await loop.sleep(0.02)
            assert not task.done
            task.cancel()
            assert await task.end() is CANCELLED
        await aio.run(connection, add)
        assert stored(url) == 1
        await connection.aclose()

    loop.run(main)


@pytest.mark.parametrize("blocked", ["at once", "after a while"])
def test_run_cancelled_replays_of_a_transaction_end(loop, url, blocked):
    """A cancelled task does not go on trying for the lock until the deadline of its replays."""

    async def main() -> None:
        connection = await aio.connect(patient(url))
        begun, end = threading.Event(), threading.Event()

        def replay(given: apsw.Connection) -> None:
            begun.set()
            if blocked == "after a while":
                assert end.wait(PATIENCE)
            dao.replaying(deadline=600)(given, add)

        with locked(url):
            task = loop.start(lambda: aio.run(connection, replay))
            await until(loop, begun.is_set)
            if blocked == "at once":
                await loop.sleep(0.02)
            task.cancel()
            await loop.sleep(0.002)
            end.set()
            assert await task.end() is CANCELLED
            assert await aio.run(connection, tasks.count) == 0  # it is free, though the lock is not
        await aio.run(connection, add)
        assert stored(url) == 1
        await connection.aclose()

    loop.run(main)


def test_run_cancelled_before_its_turn_does_nothing(loop, url):
    """A call that waits for the connection's earlier one is not made at all."""

    async def main() -> None:
        connection = await aio.connect(url)
        begun, end = threading.Event(), threading.Event()

        def occupy(_: apsw.Connection) -> None:
            begun.set()
            assert end.wait(PATIENCE)

        first = loop.start(lambda: aio.run(connection, occupy))
        await until(loop, begun.is_set)
        second = loop.start(lambda: aio.run(connection, add))
        await loop.sleep(0.002)
        second.cancel()
        await loop.sleep(0.002)
        end.set()
        await first.end()
        assert await second.end() is CANCELLED
        assert stored(url) == 0
        await connection.aclose()

    loop.run(main)


def test_run_timeout_of_the_library_cancels(loop, url):
    """The library's own timeouts work as on any other await."""

    async def main() -> None:
        connection = await aio.connect(url)
        with pytest.raises(TimeoutError):
            async with loop.within(0.02):
                await aio.run(connection, engine.fetch, ENDLESS)
        assert await aio.run(connection, engine.fetch, "SELECT 1") == [(1,)]
        await connection.aclose()

    loop.run(main)


# ---------------------------------------------------------------- the pool: lending


def test_pool_run_any_function_on_a_connection_of_its_own(loop, url):
    """`pool.run` lends a connection for one call, opens it when first needed, and has it back afterwards."""

    async def main() -> None:
        async with aio.Pool(url, size=2) as pool:
            assert pool.stats().idle == 0
            task = Task(title="a", task_type="agent")
            await pool.run(tasks.create, task)
            assert await pool.run(tasks.get_one, task.id) == task
            with pytest.raises(dao.NotFound):
                await pool.run(tasks.get_one, "nobody")
            assert (pool.stats().idle, pool.stats().active, pool.stats().acquired) == (1, 0, 3)
        with pytest.raises(dao.PoolClosed):
            await pool.run(tasks.count)

    loop.run(main)


def test_acquire_task_that_comes_as_a_connection_comes_back_does_not_overtake(loop, url):
    """The tasks in the queue are served first, in the order of arrival, though they have not been woken yet."""
    served: list[int] = []

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:

            async def use(number: int) -> None:
                async with pool.acquire():
                    served.append(number)

            started = []
            async with pool.acquire():
                for number in range(8):
                    started.append(loop.start(lambda number=number: use(number)))
                    await until(loop, lambda: pool.stats().waiting == len(started))
            await use(8)
            for task in started:
                await task.end()
            assert (pool.stats().waiting, pool.stats().acquired) == (0, 10)

    loop.run(main)
    assert served == list(range(9))


def test_acquire_cancelled_in_the_queue_leaves_it(loop, url):
    """A cancelled task is not served later: the connection goes to the next."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            async with pool.acquire():
                cancelled = loop.start(lambda: pool.run(add))
                await until(loop, lambda: pool.stats().waiting == 1)
                waiting = loop.start(lambda: pool.run(add))
                await until(loop, lambda: pool.stats().waiting == 2)
                cancelled.cancel()
                assert await cancelled.end() is CANCELLED
                assert pool.stats().waiting == 1
            await waiting.end()
            assert (pool.stats().active, pool.stats().idle, pool.stats().timeouts) == (0, 1, 0)
        assert stored(url) == 1

    loop.run(main)


@pytest.mark.parametrize("broken", [False, True], ids=["handed over", "to be opened"])
def test_acquire_cancelled_as_it_is_served_loses_no_connection(loop, url, broken):
    """If the cancellation comes at the moment of the hand-over, the connection goes to the next all the same."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            for _ in range(5):
                lease = pool.acquire()
                connection = await lease.__aenter__()
                cancelled = loop.start(lambda: pool.run(add))
                await until(loop, lambda: pool.stats().waiting == 1)
                waiting = loop.start(lambda: pool.run(tasks.count))
                await until(loop, lambda: pool.stats().waiting == 2)
                if broken:
                    await connection.aclose()
                    del lease
                    with pytest.raises(dao.PoolTimeout):  # finds the place that was lost, and does not wait
                        await pool.acquire(timeout=0).__aenter__()
                else:
                    assert lease.put_back()
                cancelled.cancel()
                assert await cancelled.end() in {CANCELLED, None}
                assert isinstance(await waiting.end(), int)
                assert (pool.stats().active, pool.stats().waiting) == (0, 0)

    loop.run(main)


# ---------------------------------------------------------------- the pool: coming back


def test_release_cancelled_gives_back_first_and_then_is_cancelled(loop, url):
    """A cancellation while the connection is on its way back does not stop it, and is not forgotten either."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            begun, end = threading.Event(), threading.Event()

            def occupy(_: apsw.Connection) -> None:
                begun.set()
                assert end.wait(PATIENCE)

            async def use() -> None:
                async with pool.acquire() as connection:
                    occupied.append(loop.start(lambda: aio.run(connection, occupy)))
                    await until(loop, begun.is_set)
                await loop.sleep(0)

            occupied: list[Any] = []
            task = loop.start(use)
            await until(loop, begun.is_set)
            await loop.sleep(0.002)
            task.cancel()
            await loop.sleep(0.002)
            assert not task.done
            end.set()
            assert await task.end() is CANCELLED
            await occupied[0].end()
            assert (pool.stats().active, pool.stats().idle) == (0, 1)

    loop.run(main)


def test_acquire_cancelled_while_opening_frees_the_place(loop, url):
    """A cancelled opening takes no place, and leaves no connection."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            for pause in (None, 0, 0.0003, 0.001):
                task = loop.start(lambda: pool.run(tasks.count))
                if pause is not None:
                    await loop.sleep(pause)
                task.cancel()
                assert await task.end() in {CANCELLED, 0}
                assert pool.stats().active == 0

    loop.run(main)


def test_pool_run_cancelled_returns_the_connection_healthy(loop, url):
    """A cancelled call is interrupted and undone, and its connection serves the next."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            begun = threading.Event()
            task = loop.start(lambda: pool.run(add_and_run, begun, ENDLESS))
            await until(loop, begun.is_set)
            waiting = loop.start(lambda: pool.run(add))
            await until(loop, lambda: pool.stats().waiting == 1)
            task.cancel()
            assert await task.end() is CANCELLED
            await waiting.end()
            assert (pool.stats().active, pool.stats().idle, pool.stats().recycled) == (0, 1, 0)
            assert (await pool.health()).ok
        assert stored(url) == 1

    loop.run(main)


@pytest.mark.sqlite_only
def test_pool_run_that_leaves_a_cursor_open_has_the_connection_replaced(loop, url):
    """The call that resets the connection in its own thread sees it, too.

    SQLite only: psycopg reads a result to its end before it gives a row.
    """
    cursors = []

    def leave_open(connection: apsw.Connection) -> None:
        tasks.create_many(connection, [Task(title=title, task_type="agent") for title in "abc"])
        cursors.append(connection.execute("SELECT id FROM tasks"))
        next(cursors[0])

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            await pool.run(leave_open)
            assert pool.stats().recycled == 1
            await pool.run(add)

    loop.run(main)
    assert stored(url) == 4


@pytest.mark.parametrize("database_url", [None, "sqlite://"], ids=["file", "memory"])
def test_pool_run_that_is_closed_awaits_nothing_and_loses_no_place(url, database_url):
    """`close` of a coroutine raised RuntimeError, as it awaited the way back of its connection."""
    loop, begun, end = Asyncio(), threading.Event(), threading.Event()

    def occupy(_: apsw.Connection) -> None:
        begun.set()
        assert end.wait(PATIENCE)

    async def main() -> None:
        async with aio.Pool(database_url or url, size=1) as pool:
            await pool.run(engine.fetch, "CREATE TABLE mine (n integer)")
            at_work, in_queue = pool.run(occupy), pool.run(occupy)
            at_work.send(None)
            await until(loop, begun.is_set)
            in_queue.send(None)
            assert pool.stats().waiting == 1
            in_queue.close()
            at_work.close()
            end.set()
            assert await pool.run(engine.fetch, "SELECT count(*) FROM mine") == [(0,)]
            assert (pool.stats().active, pool.stats().waiting, pool.stats().idle) == (0, 0, 1)

    loop.run(main)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("step", ["opening", "setting up"])
def test_pool_run_that_is_closed_while_opening_leaves_no_connection_behind(url, step):
    """The thread of such a connection waited for calls, and the connection for its thread, for ever.

    SQLite only: it goes through the steps of apsw's opening.
    """

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            coroutine = pool.run(add)
            opening = coroutine.send(None)
            if step == "setting up":
                await asyncio.wait([opening])
                coroutine.send(None)
            coroutine.close()
            del opening
            assert await pool.run(tasks.count) == 0
            assert (pool.stats().active, pool.stats().idle) == (0, 1)

    Asyncio().run(main)
    assert_threads_end()


def assert_threads_end() -> None:
    """Wait until no thread of a connection is left."""
    for thread in threading.enumerate():
        if thread.name.startswith("dao: "):
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_opening_that_ends_with_its_loop_before_its_thread_began_ends_the_thread(monkeypatch, url):
    """The call that opens the connection was cancelled, and the thread waited for others, for ever."""
    begin, run = threading.Event(), threading.Thread.run

    def late(thread: threading.Thread) -> None:
        if thread.name.startswith("dao: "):
            assert begin.wait(PATIENCE)
        run(thread)

    async def main() -> None:
        coroutine = aio.connect(url)
        coroutine.send(None)
        coroutine.close()

    monkeypatch.setattr(threading.Thread, "run", late)
    Asyncio().run(main)
    begin.set()
    assert_threads_end()


# ---------------------------------------------------------------- the pool: health and shutdown


def test_pool_run_that_is_at_work_when_the_pool_closes_may_finish(loop, url):
    """Its connection is closed as it comes back, and the shutdown waits for that.

    Those in the queue are told at once.
    """

    async def main() -> None:
        pool = aio.Pool(url, size=1)
        begun, end = threading.Event(), threading.Event()

        def write(connection: apsw.Connection) -> None:
            begun.set()
            assert end.wait(PATIENCE)
            add(connection)

        holder = loop.start(lambda: pool.run(write))
        await until(loop, begun.is_set)
        waiting = loop.start(lambda: pool.run(add))
        await until(loop, lambda: pool.stats().waiting == 1)
        closing = loop.start(lambda: pool.aclose(timeout=PATIENCE))
        with pytest.raises(dao.PoolClosed):
            await waiting.end()
        assert not closing.done
        end.set()
        assert await closing.end() is True
        await holder.end()
        assert (pool.stats().active, pool.stats().idle, pool.stats().waiting) == (0, 0, 0)

    loop.run(main)
    assert stored(url) == 1


def test_aclose_cancelled_closes_the_idle_connections_all_the_same(loop, url):
    """Each idle connection has a thread that would keep the process alive: none is left, whatever is cancelled."""

    async def main() -> None:
        pool = aio.Pool(url)
        async with pool.acquire(), pool.acquire(), pool.acquire():
            pass
        closing = loop.start(pool.aclose)
        await loop.sleep(0)
        closing.cancel()
        await closing.end()

    loop.run(main)


# ---------------------------------------------------------------- many tasks


def test_pool_many_tasks_no_connection_is_lost_or_lent_twice(loop, url):
    """Whatever is cancelled or fails, a connection has one user at a time, and in the end all places are free."""
    using: set[apsw.Connection] = set()

    async def main() -> None:
        async with aio.Pool(url, size=3) as pool:

            async def use(rng: random.Random) -> None:
                for _ in range(6):
                    with contextlib.suppress(dao.PoolTimeout, dao.OperationalError, ValueError):
                        async with pool.acquire(timeout=rng.choice([0.001, PATIENCE])) as connection:
                            assert connection not in using
                            using.add(connection)
                            assert len(using) <= 3
                            try:
                                await aio.run(connection, rng.choice([add, tasks.count, lambda _: time.sleep(0.001)]))
                                if rng.random() < 0.2:
                                    raise rng.choice([dao.OperationalError("a"), ValueError("a")])
                                if rng.random() < 0.1:
                                    await connection.aclose()
                            finally:
                                using.remove(connection)

            rng = random.Random(11)
            started = [loop.start(lambda seed=seed: use(random.Random(seed))) for seed in range(24)]
            while not all(task.done for task in started):
                await loop.sleep(0.002)
                rng.choice(started).cancel()
            for task in started:
                await task.end()
            assert (pool.stats().active, pool.stats().waiting) == (0, 0)
            async with contextlib.AsyncExitStack() as all_places:
                for _ in range(3):
                    await all_places.enter_async_context(pool.acquire(timeout=0))

    loop.run(main)
