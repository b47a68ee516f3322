"""`dao.aio`: the same functions from async code, on asyncio and on trio alike."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
import trio
import trio.testing

import dao
from dao import Task, aio, engine, tasks

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
PATIENCE = 30  # seconds until a test gives up on another task

CANCELLED = "cancelled"
Function = Callable[[], Awaitable[Any]]


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
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} goes on"


def add(connection: apsw.Connection, title: str = "a") -> None:
    tasks.create(connection, Task(title=title, task_type="agent"))


def add_and_run(connection: apsw.Connection, begun: threading.Event, sql: str) -> None:
    """Write a task and run a statement, as one transaction."""
    with dao.transaction(connection):
        add(connection)
        begun.set()
        engine.fetch(connection, sql)


def stored(url: str) -> int:
    """Return how many tasks another connection sees."""
    with contextlib.closing(dao.connect(url)) as connection:
        return tasks.count(connection)


async def until(loop: Asyncio | Trio, condition: Callable[[], bool]) -> None:
    """Wait until something has come about."""
    while not condition():
        await loop.sleep(0.0005)


# ---------------------------------------------------------------- connect


def test_connect_sets_up_like_the_other(loop, url):
    """An async connection has the settings of `dao.connect`, the URL's parameters included."""

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
def test_connect_what_cannot_be_opened_says_why(loop, tmp_path, name, kind, message):
    """The errors are those of `dao.connect`, and no thread is left behind."""
    (tmp_path / "letter").write_text("no database " * 100)

    async def main() -> None:
        with pytest.raises(kind, match=message) as caught:
            await aio.connect(f"sqlite:///{tmp_path}/{name}")
        assert isinstance(caught.value.__cause__, apsw.Error)

    loop.run(main)


def test_connect_url_or_engine_that_will_not_do_is_refused(loop, monkeypatch):
    """A URL that means nothing and a SQLite that corrupts data open nothing."""

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
    assert not [connection for connection in apsw.connections() if connection.filename and connection.filename in url]


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
        assert isinstance(caught.value.__cause__, apsw.ConstraintError)
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
        assert not await aio.run(connection, lambda given: given.in_transaction)
        await aio.run(connection, add)
        assert stored(url) == 1
        await connection.aclose()

    loop.run(main)


def test_run_cancelled_again_and_again_still_waits_for_the_end(loop, url):
    """Further cancellations do not cut the cleaning up short."""

    async def main() -> None:
        connection = await aio.connect(url)
        begun, end = threading.Event(), threading.Event()

        def write(given: apsw.Connection) -> None:
            begun.set()
            assert end.wait(PATIENCE)
            add(given)

        task = loop.start(lambda: aio.run(connection, write))
        await until(loop, begun.is_set)
        for _ in range(3):
            task.cancel()
            await loop.sleep(0.002)
        assert not task.done
        end.set()
        assert await task.end() is CANCELLED
        assert stored(url) == 1  # between two statements there is nothing to interrupt: it was done first
        await connection.aclose()

    loop.run(main)


def test_run_in_a_scope_whose_time_is_up_is_cancelled_by_trio_alone(url):
    """Whether time is up is trio's to say: apsw asked a clock of its own, and TooSlowError came out of `move_on_after`."""

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
        connection = await aio.connect(url + "?busy_timeout=600000")
        with contextlib.closing(dao.connect(url)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
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
        connection = await aio.connect(url + "?busy_timeout=600000")
        begun, end = threading.Event(), threading.Event()

        def replay(given: apsw.Connection) -> None:
            begun.set()
            if blocked == "after a while":
                assert end.wait(PATIENCE)
            dao.replaying(deadline=600)(given, add)

        with contextlib.closing(dao.connect(url)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
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


@pytest.mark.parametrize(("arguments", "error"), [({"size": 0}, ValueError), ({"timeout": -1}, ValueError)])
def test_pool_argument_out_of_range_is_refused(url, arguments, error):
    """The bounds are those of `dao.Pool`."""
    with pytest.raises(error):
        aio.Pool(url, **arguments)


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


def test_pool_relative_url_means_the_same_file_after_a_change_of_folder(loop, monkeypatch, tmp_path):
    """Connections that are opened later are to the same database."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    pool = aio.Pool("sqlite:///a.db")
    monkeypatch.chdir(tmp_path / "there")

    async def main() -> None:
        async with pool:
            assert await pool.run(lambda connection: connection.filename) == str(tmp_path / "a.db")

    loop.run(main)


def test_acquire_all_in_use_raises_pool_timeout(loop, url):
    """No more than `size` are lent; who waits in vain is told so, and is counted."""

    async def main() -> None:
        async with aio.Pool(url, size=2, timeout=0.01) as pool:
            async with pool.acquire() as one, pool.acquire() as other:
                assert one is not other
                for arguments in ({}, {"timeout": 0}, {"timeout": 0.001}):
                    with pytest.raises(dao.PoolTimeout, match=r"within [\d.]+ s: all 2 are in use"):
                        await pool.acquire(**arguments).__aenter__()
                assert attrs.evolve(pool.stats(), wait_seconds=0, longest_wait_seconds=0) == dao.PoolStats(
                    size=2,
                    idle=0,
                    active=2,
                    waiting=0,
                    acquired=2,
                    timeouts=3,
                    recycled=0,
                    wait_seconds=0,
                    longest_wait_seconds=0,
                )
                assert pool.stats().wait_seconds >= pool.stats().longest_wait_seconds > 0
            async with pool.acquire(timeout=0), pool.acquire(timeout=0):
                assert pool.stats().active == 2

    loop.run(main)


def test_acquire_tasks_in_the_queue_are_served_in_order_of_arrival(loop, url):
    """Who waits longest is next, whatever comes later, also just as a connection comes back."""
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
                place, connection = await pool._take(1)
                cancelled = loop.start(lambda: pool.run(add))
                await until(loop, lambda: pool.stats().waiting == 1)
                waiting = loop.start(lambda: pool.run(tasks.count))
                await until(loop, lambda: pool.stats().waiting == 2)
                if broken:
                    await connection.aclose()
                pool._put_back(place, usable=not broken)
                cancelled.cancel()
                assert await cancelled.end() in {CANCELLED, None}
                assert isinstance(await waiting.end(), int)
                assert (pool.stats().active, pool.stats().waiting) == (0, 0)

    loop.run(main)


# ---------------------------------------------------------------- the pool: coming back


def test_release_open_transaction_is_rolled_back(loop, url):
    """A transaction that the block left open is undone before the next one gets the connection."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            async with pool.acquire() as connection:
                await aio.run(connection, engine.fetch, "BEGIN IMMEDIATE")
                await aio.run(connection, add)
            async with pool.acquire() as again:
                assert again is connection
                assert await aio.run(again, tasks.count) == 0

    loop.run(main)


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


def test_release_cursor_that_was_not_read_to_its_end_has_the_connection_replaced(loop, url):
    """An open cursor holds a snapshot: the next user would see the past and could not write."""
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


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ValueError("a"), True),
        (dao.UniqueViolation("a"), True),
        (dao.DatabaseBusy("a"), True),
        (dao.OperationalError("a"), False),
        (apsw.IOError("a"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_release_after_an_error_keeps_or_replaces_the_connection(loop, url, error, kept):
    """An error of the row's or of the program's keeps the connection; one that may be its own has it replaced."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            with pytest.raises(type(error)):
                async with pool.acquire() as connection:
                    raise error
            assert (pool.stats().recycled, pool.stats().idle) == ((0, 1) if kept else (1, 0))
            async with pool.acquire() as again:
                assert (again is connection) is kept
                await aio.run(again, add)

    loop.run(main)


def test_release_closed_connection_is_replaced(loop, url):
    """A connection that its user closed is not lent again, and its place is free: for the next in the queue too."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            async with pool.acquire() as connection:
                waiting = loop.start(lambda: pool.run(add))
                await until(loop, lambda: pool.stats().waiting == 1)
                await connection.aclose()
            await waiting.end()
            assert (pool.stats().recycled, pool.stats().idle, pool.stats().active) == (1, 1, 0)

    loop.run(main)


def test_acquire_opening_fails_raises_and_frees_the_place(loop, tmp_path):
    """A connection that cannot be opened is an error each time, and takes no place."""

    async def main() -> None:
        async with aio.Pool(f"sqlite:///{tmp_path}/missing/a.db", size=1) as pool:
            for _ in range(2):
                with pytest.raises(dao.OperationalError, match="does not exist"):
                    await pool.run(tasks.count)
            assert pool.stats().active == 0

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


def test_pool_memory_is_one_connection_that_is_kept(loop):
    """A database in memory ends with its connection: the pool has one, and keeps it whatever the error."""

    async def main() -> None:
        async with aio.Pool("sqlite://", size=5) as pool:
            assert pool.stats().size == 1
            await pool.run(engine.fetch, "CREATE TABLE t (x)")
            with pytest.raises(dao.OperationalError):
                async with pool.acquire():
                    raise dao.OperationalError("a")
            assert await pool.run(engine.fetch, "SELECT count(*) FROM t") == [(0,)]
            assert (await pool.health()).ok

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


# ---------------------------------------------------------------- the pool: health and shutdown


def test_health_of_a_good_database_is_true(loop, url):
    """A database that answers is healthy, and the probe gives its connection back."""

    async def main() -> None:
        async with aio.Pool(url, size=1) as pool:
            health = await pool.health()
            assert (health.ok, health.error, pool.stats().idle) == (True, None, 1)

    loop.run(main)


def test_health_while_another_writes_is_true_and_says_so(loop, url):
    """A write as long as a migration turns no probe red, nor keeps it waiting; that writes would wait is in the answer."""

    async def main() -> None:
        async with aio.Pool(url + "?busy_timeout=600000", size=1) as pool:
            with contextlib.closing(dao.connect(url)) as blocker, dao.transaction(blocker):
                health = await pool.health(600)
                assert (health.ok, health.error, health.locked) == (True, None, True)
            assert not (await pool.health()).locked

    loop.run(main)


def test_health_all_in_use_is_false_in_time(loop, url):
    """Where no connection is to be had the answer comes after the timeout, not after the pool's."""

    async def main() -> None:
        async with aio.Pool(url, size=1, timeout=600) as pool:
            async with pool.acquire():
                health = await pool.health(timeout=0.01)
            assert (health.ok, health.error) == (False, "no answer within 0.01 s")
            assert (await pool.health()).ok

    loop.run(main)


@pytest.mark.parametrize("opened", [False, True], ids=["to be opened", "idle"])
def test_health_of_a_locked_database_is_false_in_time(loop, database, opened):
    """A database that another keeps locked is not healthy: the probe waits as long as it is told."""

    async def main() -> None:
        async with aio.Pool(f"sqlite:///{database}?busy_timeout=600000", size=1) as pool:
            if opened:
                await pool.run(engine.fetch, "PRAGMA journal_mode = delete")
            with contextlib.closing(apsw.Connection(str(database))) as blocker:
                blocker.execute("BEGIN EXCLUSIVE")
                assert not (await pool.health(timeout=0.02)).ok
                assert pool.stats().active == 0
            assert (await pool.health()).ok

    loop.run(main)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"\xff" * 8192)], ids=["gone", "damaged"])
@pytest.mark.parametrize("opened", [False, True], ids=["to be opened", "idle"])
def test_health_of_a_harmed_file_is_false(loop, database, harm, opened):
    """A file that is damaged or gone is not healthy, full caches or not; and the probe makes no new one."""

    async def main() -> None:
        async with aio.Pool(f"sqlite:///{database}", size=1) as pool:
            if opened:
                await pool.run(add)
                await pool.run(lambda connection: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE))
            harm(database)
            for _ in range(2):
                health = await pool.health()
                assert not health.ok
                assert "damaged" in health.error or "does not exist" in health.error
            assert pool.stats().active == 0

    loop.run(main)


def test_aclose_closes_refuses_and_can_be_repeated(loop, url):
    """Idle connections are closed, nothing is lent any more, and a second shutdown has nothing to do."""

    async def main() -> None:
        pool = aio.Pool(url)
        async with pool.acquire() as one, pool.acquire() as other:
            pass
        assert await pool.aclose() is True
        assert await pool.aclose() is True
        for connection in (one, other):
            with pytest.raises(apsw.ConnectionClosedError):
                await connection.execute("SELECT 1")
        with pytest.raises(dao.PoolClosed, match="the pool is closed"):
            await pool.run(tasks.count)
        assert (await pool.health()).error == "the pool is closed"

    loop.run(main)


def test_aclose_waits_for_holders_and_tells_the_queue(loop, url):
    """Who holds a connection may finish; who waits for one is told at once that there will be none."""

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
        assert stored(url) == 1

    loop.run(main)


def test_aclose_interrupts_a_statement_that_does_not_end(loop, url):
    """After the timeout a long statement is interrupted, and its transaction undone."""

    async def main() -> None:
        pool = aio.Pool(url)
        begun = threading.Event()
        holder = loop.start(lambda: pool.run(add_and_run, begun, ENDLESS))
        await until(loop, begun.is_set)
        while not await pool.aclose(timeout=0.01):
            pass
        with pytest.raises(dao.OperationalError, match="interrupted"):
            await holder.end()
        assert pool.stats().active == 0
        assert stored(url) == 0

    loop.run(main)


def test_aclose_holder_that_does_not_end_returns_false_and_closes_later(loop, url):
    """A connection that nobody gives back is reported, and closed when it comes back after all."""

    async def main() -> None:
        pool = aio.Pool(url)
        async with pool.acquire() as connection:
            assert await pool.aclose(timeout=0) is False
        with pytest.raises(apsw.ConnectionClosedError):
            await connection.execute("SELECT 1")
        assert await pool.aclose(timeout=0) is True

    loop.run(main)


def test_aclose_holder_that_closed_its_connection_is_no_obstacle(loop, url):
    """A connection that its user closed has no statement to interrupt."""

    async def main() -> None:
        pool = aio.Pool(url)
        async with pool.acquire() as connection:
            await connection.aclose()
            assert await pool.aclose(timeout=0) is False
        assert await pool.aclose(timeout=0) is True

    loop.run(main)


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


def test_aclose_while_a_connection_is_being_opened_closes_that_too(loop, url):
    """A connection that is ready only after the shutdown began is not lent, and the shutdown waits for it."""

    async def main() -> None:
        pool = aio.Pool(url)
        task = loop.start(lambda: pool.run(add))
        await until(loop, lambda: pool.stats().active == 1)
        closed = await pool.aclose()
        with contextlib.suppress(dao.PoolClosed):
            await task.end()
        assert closed is True
        assert (pool.stats().active, pool.stats().acquired) == (0, 0)

    loop.run(main)
    assert stored(url) == 0


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
