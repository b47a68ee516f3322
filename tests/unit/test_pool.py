"""`dao.Pool` and `dao.aio.Pool`: bounds, order, timeouts, metrics, recycling, health, shutdown and forks.

Most tests run on both, one call after the other from threads; cancelled tasks are in `test_aio`.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import psycopg
import pytest

import dao
from dao import Task, engine, pool, tasks
from dao.pooling import lender, threads
from tests.concurrency import (
    CLOSED,
    ENDLESS,
    INTERRUPTED,
    PATIENCE,
    Signalled,
    Worker,
    in_child,
    making,
    signalled,
    stored,
    wait_for,
)
from tests.transactions import add

__all__ = ["signalled"]  # a fixture

pytestmark = pytest.mark.both_engines


@pytest.fixture(params=["threads", "asyncio", "trio"])
def make_pool(request: pytest.FixtureRequest, url: str) -> Iterator[Callable[..., Any]]:
    """Return a function that makes pools on a migrated database, for threads or tasks; they are closed in the end."""
    with making(request.param) as make:
        yield lambda database_url=url, **arguments: make(database_url, **arguments)


threads_only = pytest.mark.parametrize("make_pool", ["threads"], indirect=True)


def add_three_and_read_one(connection: apsw.Connection) -> apsw.Cursor:
    tasks.create_many(connection, [Task(title=title, task_type="agent") for title in "abc"])
    cursor = connection.execute("SELECT id FROM tasks")
    next(cursor)
    return cursor


def truncate_log(connection: apsw.Connection) -> None:
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def hold(one: Any, begun: threading.Event, end: threading.Event) -> None:
    with one.acquire():
        begun.set()
        assert end.wait(PATIENCE)


# ---------------------------------------------------------------- opening


@pytest.mark.sqlite_only
def test_pool_without_use_opens_nothing(tmp_path, make_pool):
    """Making a pool touches no file; a connection is opened when it is first needed, and no more than are needed.

    SQLite only: it looks at the file.
    """
    path = tmp_path / "new.db"
    made = make_pool(f"sqlite:///{path}")
    assert not path.exists()
    assert made.stats().idle == made.stats().active == 0
    for _ in range(3):
        with made.acquire():
            assert (made.stats().idle, made.stats().active) == (0, 1)
    assert (made.stats().idle, made.stats().active, made.stats().acquired) == (1, 0, 3)


PREPARES: dict[str, tuple[Callable[[Any], object], str]] = {
    "sqlite": (lambda connection: connection.create_scalar_function("mark", lambda: 42), "SELECT mark()"),
    "postgresql": (
        lambda connection: connection.execute("SET dao.mark = '42'"),
        "SELECT current_setting('dao.mark')::int",
    ),
}


def test_prepare_is_called_with_each_new_connection(make_pool, url):
    """What a program registers or sets is there for whoever gets a connection; pools had no way to do so."""
    prepare, asked = PREPARES[url.partition(":")[0]]
    prepared: list[Any] = []

    def noted(connection: Any) -> None:
        prepare(connection)
        prepared.append(connection)

    made = make_pool(size=2, prepare=noted)
    for _ in range(2):
        with made.acquire() as one, made.acquire() as other:
            assert made.on(one, engine.fetch, asked) == made.on(other, engine.fetch, asked) == [(42,)]
        assert made.write(engine.fetch, asked) == [(42,)]
    assert len(prepared) == (3 if url.startswith("sqlite") else 2)
    assert made.health().ok


def raise_key_error(_: Any) -> None:
    raise KeyError("missing")


def begin(connection: Any) -> None:
    connection.execute("BEGIN")


@pytest.mark.sample(3, engine="postgresql")
@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (raise_key_error, dao.PrepareFailed, "raise_key_error raised KeyError: 'missing'"),
        (begin, dao.PrepareFailed, "begin leaves the connection in a transaction"),
        (lambda connection: engine.fetch(connection, "SELECT 1 FROM nowhere"), dao.SchemaOutOfDate, "nowhere"),
        (lambda connection: connection.execute("SELECT 1 FROM nowhere"), dao.SchemaOutOfDate, "nowhere"),
        (lambda connection: (None for _ in ()), dao.PrepareFailed, "whose work is yet to be done"),
    ],
    ids=["raises", "begins", "ours", "driver", "generator"],
)
def test_prepare_that_fails_lends_nothing(make_pool, prepare, error, message):
    """The connection is closed and its place free; the error says whose fault it is."""
    made = make_pool(size=1, prepare=prepare)
    for _ in range(2):
        with pytest.raises(error, match=message), made.acquire():
            pytest.fail("it was lent")
        with pytest.raises(dao.Error, match=message):
            made.write(add)
    assert (made.health().ok, made.health().kind) == (False, error.__name__)
    assert (made.stats().active, made.stats().idle) == (0, 0)


@pytest.mark.sample(2, engine="postgresql")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"size": 0}, ValueError),
        ({"size": -1}, ValueError),
        ({"size": True}, ValueError),
        ({"size": 2.0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"database_url": "mysql://localhost/a"}, dao.InvalidURL),
    ],
    ids=str,
)
def test_pool_argument_out_of_range_is_refused(make_pool, arguments, error):
    """A size is a whole number from 1, a timeout a number from 0, and the URL must mean something."""
    with pytest.raises(error):
        make_pool(**arguments)


@pytest.mark.sqlite_only
def test_pool_connection_is_set_up_like_any_other(make_pool):
    """A pool's connections are those of `dao.connect`, the URL's parameters included.

    SQLite only: its pragmas.
    """
    made = make_pool()
    with made.acquire() as connection:
        assert made.on(connection, lambda given: (given.pragma("journal_mode"), given.pragma("foreign_keys"))) == (
            "wal",
            1,
        )


@pytest.mark.sqlite_only
def test_pool_url_with_parameters_passes_them_on(url, make_pool):
    """The URL's settings hold for each connection.

    SQLite only: its parameters; libpq has its own.
    """
    made = make_pool(url + "?synchronous=full")
    with made.acquire() as connection:
        assert made.on(connection, lambda given: given.pragma("synchronous")) == 2


@pytest.mark.sqlite_only
def test_pool_relative_url_means_the_same_file_after_a_change_of_folder(monkeypatch, tmp_path, make_pool):
    """Connections that are opened later are to the same database.

    SQLite only: a server has no folder.
    """
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    made = make_pool("sqlite:///a.db")
    monkeypatch.chdir(tmp_path / "there")
    with made.acquire() as one, made.acquire() as other:
        for connection in (one, other):
            assert made.on(connection, lambda given: given.filename) == str(tmp_path / "a.db")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.sqlite_only
def test_acquire_opening_fails_raises_and_frees_the_place(tmp_path, make_pool):
    """A connection that cannot be opened is an error each time, and takes no place.

    SQLite only: `tests/fault/test_pool_of_a_server.py` has servers that cannot be reached.
    """
    made = make_pool(f"sqlite:///{tmp_path}/missing/a.db", size=1)
    for _ in range(3):
        with pytest.raises(dao.OperationalError, match="does not exist"), made.acquire():
            pytest.fail("there is no such folder")
    assert (made.stats().active, made.stats().acquired) == (0, 0)
    (tmp_path / "missing").mkdir()
    with made.acquire():
        assert made.stats().active == 1


# ---------------------------------------------------------------- lending


def test_acquire_all_in_use_raises_pool_timeout(make_pool):
    """No more than `size` are lent; who waits in vain is told how many are in use, and is counted."""
    made = make_pool(size=2, timeout=0.01)
    with made.acquire() as one, made.acquire() as other:
        assert one is not other
        for arguments in ({}, {"timeout": 0}, {"timeout": 0.001}):
            with pytest.raises(dao.PoolTimeout, match=r"within [\d.]+ s: all 2 are in use"), made.acquire(**arguments):
                pytest.fail("a third connection")
        untimed = {name: 0 for name in attrs.asdict(made.stats()) if name.endswith("_seconds")}
        assert attrs.evolve(made.stats(), **untimed) == dao.PoolStats(
            size=2,
            idle=0,
            active=2,
            waiting=0,
            acquired=2,
            timeouts=3,
            recycled=0,
            opened=2,
            **untimed,
        )
        assert made.stats().wait_seconds >= made.stats().longest_wait_seconds >= 0.01
    with made.acquire(timeout=0), made.acquire(timeout=0):
        assert (made.stats().acquired, made.stats().active) == (4, 2)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_acquire_timeout_below_zero_raises_value_error(make_pool, timeout):
    """A timeout that means nothing is refused at once, connections free or not."""
    with pytest.raises(ValueError, match="timeout"):
        make_pool().acquire(timeout=timeout)


def test_acquire_last_one_back_is_the_first_to_go(make_pool):
    """The connection that was used last has the warmest cache."""
    made = make_pool(size=3)
    with made.acquire() as first, made.acquire():
        pass
    with made.acquire() as again:
        assert again is first


def test_acquire_queue_is_served_in_order_of_arrival(make_pool):
    """Who waits longest is next, whatever comes later."""
    made = make_pool(size=1)
    served: list[int] = []

    def use(number: int) -> None:
        with made.acquire():
            served.append(number)

    workers = []
    with made.acquire():
        for number in range(12):
            workers.append(Worker(use, number))
            wait_for(lambda: made.stats().waiting == len(workers))
    for worker in workers:
        worker.end()
    assert served == list(range(12))
    assert (made.stats().waiting, made.stats().acquired, made.stats().timeouts) == (0, 13, 0)
    assert made.stats().longest_wait_seconds <= made.stats().wait_seconds


def test_acquire_newcomer_does_not_overtake_the_queue(make_pool):
    """A connection that comes back while others wait is theirs, even if somebody asks at that moment."""
    made = make_pool(size=1)
    order: list[str] = []

    def use() -> None:
        with made.acquire():
            order.append("waited")

    lease = made.acquire()
    lease.__enter__()
    worker = Worker(use)
    wait_for(lambda: made.stats().waiting == 1)
    lease.__exit__(None, None, None)
    with made.acquire():
        order.append("came later")
    worker.end()
    assert order == ["waited", "came later"]


def test_acquire_after_the_timeout_leaves_the_queue(make_pool):
    """Who gave up is not served later: the connection goes to the next."""
    made = make_pool(size=1)

    def use(timeout: float) -> apsw.Connection:
        with made.acquire(timeout=timeout) as connection:
            return connection

    with made.acquire() as connection:
        with pytest.raises(dao.PoolTimeout):
            Worker(use, 0.01).end()
        patient = Worker(use, PATIENCE)
        wait_for(lambda: made.stats().waiting == 1)
    assert patient.end() is connection


# ---------------------------------------------------------------- coming back


def test_release_open_transaction_is_rolled_back(caplog, make_pool):
    """A transaction that the block left open is undone before the next one gets the connection, and is logged."""
    made = make_pool(size=1)
    with made.acquire() as connection:
        made.on(connection, lambda given: (given.execute("BEGIN"), add(given)))
    assert "came back in a transaction" in caplog.text
    with made.acquire() as again:
        assert again is connection
        assert not made.on(again, engine.in_transaction)
        assert made.on(again, tasks.count) == 0


def test_release_block_of_a_transaction_that_did_not_end_is_forgotten(make_pool):
    """A Ctrl-C can come between a block and its end: the pool ends the transaction, and the next one's are its own.

    After an error, what the next holder wrote was held in a transaction that nobody committed.
    """
    made = make_pool(size=1)

    def write(connection: apsw.Connection) -> None:
        add(connection)
        with pytest.raises(dao.UniqueViolation):
            tasks.create(connection, tasks.find(connection).items[0])
        add(connection)
        assert not engine.in_transaction(connection)

    with made.acquire() as connection:
        made.on(connection, lambda given: dao.transaction(given).__enter__() and None)
    with made.acquire() as connection:
        made.on(connection, write)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (None, True),
        (ValueError("a"), True),
        (GeneratorExit(), True),
        (KeyboardInterrupt(), False),
        (dao.NotFound("a", table="t", key="k"), True),
        (dao.UniqueViolation("a"), True),
        (dao.DatabaseBusy("a"), True),
        (dao.ReadOnlyDatabase("a"), True),
        (dao.OperationalError("a"), False),
        (dao.DatabaseCorrupt("a"), False),
        (dao.DiskFull("a"), False),
        (apsw.IOError("a"), False),
        (apsw.SQLError("a"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_release_after_an_error_keeps_or_replaces_the_connection(make_pool, url, error, kept):
    """An error of the row's or of the program's keeps the connection; one that may be its own has it replaced.

    So has an interruption of a thread: one of `health`, as that set the timeout back, left a connection that did not
    wait for locks. A task is only interrupted where it awaits. Of several servers the next may be one that writes.
    """
    made = make_pool(size=1)
    kept = kept or (isinstance(error, KeyboardInterrupt) and not isinstance(made, dao.Pool))
    if url.startswith("postgresql"):
        kept = kept and not isinstance(error, dao.ReadOnlyDatabase)
        error = psycopg.OperationalError("a") if isinstance(error, apsw.Error) else error
    raises = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with raises as caught, made.acquire() as connection:
        if error is not None:
            raise error
    assert error is None or caught.value is error
    assert (made.stats().recycled, made.stats().idle) == ((0, 1) if kept else (1, 0))
    with made.acquire() as again:
        assert (again is connection) is kept
        made.on(again, add)
    if not kept:
        with pytest.raises(CLOSED):
            made.on(connection, tasks.count)


@pytest.mark.sqlite_only
def test_release_cursor_that_was_not_read_to_its_end_has_the_connection_replaced(url, make_pool):
    """An open cursor holds a snapshot: the next user would see the past and could not write.

    SQLite only: psycopg reads a result to its end before it gives a row.
    """
    made = make_pool(size=1)
    with made.acquire() as connection:
        cursor = made.on(connection, add_three_and_read_one)
    assert made.stats().recycled == 1
    with made.acquire() as again:
        assert again is not connection
        made.on(again, add)
        assert made.on(again, tasks.count) == stored(url) == 4
    del cursor


@threads_only
def test_release_by_the_garbage_collector_does_not_wait_for_its_own_thread(monkeypatch, make_pool):
    """The garbage collector may end a generator in the middle of the pool's own work.

    The generator then waited for the pool's lock, for ever.
    """
    made = make_pool(size=1)

    def read() -> Iterator[int]:
        with made.acquire() as connection:
            connection.execute("BEGIN")
            yield 1

    def collected(**figures: Any) -> dao.PoolStats:
        generator.close()
        return dao.PoolStats(**figures)

    generator = read()
    next(generator)
    with monkeypatch.context() as patched:
        patched.setattr(lender, "PoolStats", collected)
        Worker(made.stats).end()
    with made.acquire(timeout=0) as connection:
        add(connection)
    assert (made.stats().active, made.stats().idle) == (0, 1)


def test_release_closed_connection_is_replaced(make_pool):
    """A connection that its user closed is not lent again."""
    made = make_pool(size=1)
    with made.acquire() as connection:
        made.close_connection(connection)
    assert (made.stats().recycled, made.stats().idle, made.stats().active) == (1, 0, 0)
    with made.acquire() as again:
        made.on(again, add)


def test_release_broken_connection_lets_the_next_in_the_queue_open_one(make_pool):
    """Who waits for a connection that breaks gets a new one, without waiting longer."""
    made = make_pool(size=1)

    def use() -> int:
        with made.acquire() as connection:
            made.on(connection, add)
            return made.on(connection, tasks.count)

    with made.acquire() as connection:
        workers = []
        for _ in range(3):
            workers.append(Worker(use))
            wait_for(lambda: made.stats().waiting == len(workers))
        made.close_connection(connection)
    assert [worker.end() for worker in workers] == [1, 2, 3]
    assert (made.stats().recycled, made.stats().acquired) == (1, 4)
    assert (made.stats().idle, made.stats().active) == (1, 0)


@pytest.mark.sqlite_only
def test_release_broken_connection_and_no_new_one_fails_each_in_the_queue(tmp_path, make_pool):
    """If no new connection can be opened everybody in the queue is told so, and no place is lost.

    SQLite only: it takes the file away.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    made = make_pool(f"sqlite:///{folder}/a.db", size=1)
    with made.acquire() as connection:
        workers = []
        for _ in range(3):
            workers.append(Worker(made.acquire().__enter__))
            wait_for(lambda: made.stats().waiting == len(workers))
        made.close_connection(connection)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    for worker in workers:
        with pytest.raises(dao.OperationalError, match="does not exist"):
            worker.end()
    assert (made.stats().active, made.stats().waiting) == (0, 0)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_pool_memory_is_one_connection_that_is_kept(make_pool, url):
    """A database in memory ends with its connection: the pool has one, and keeps it whatever the error.

    SQLite only: no server has databases in memory.
    """
    made = make_pool(url, size=5)
    assert made.stats().size == 1
    with pytest.raises(dao.OperationalError), made.acquire() as connection:  # noqa: PT012 - the block is the test
        made.on(connection, lambda given: given.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").fetchall())
        raise dao.OperationalError("a")
    with made.acquire() as again:
        assert made.on(again, engine.fetch, "SELECT * FROM t") == [(1,)]
        with pytest.raises(dao.PoolTimeout), made.acquire(timeout=0):
            pytest.fail("a second connection")
    assert made.health().ok


# ---------------------------------------------------------------- interrupted in the queue


@threads_only
def test_acquire_interrupted_in_the_queue_leaves_it(make_pool, signalled):
    """Ctrl-C in the queue comes out as it is; the connection goes to the next, and nobody's place is lost."""
    made = make_pool(size=1)
    begun, end = threading.Event(), threading.Event()
    holder = Worker(hold, made, begun, end)
    assert begun.wait(PATIENCE)

    def interrupt() -> None:
        wait_for(lambda: made.stats().waiting == 1)
        signalled()

    interrupter = Worker(interrupt)
    with pytest.raises(Signalled), made.acquire():
        pytest.fail("the connection is in use")
    interrupter.end()
    assert made.stats().waiting == 0
    end.set()
    holder.end()
    with made.acquire(timeout=0):
        assert made.stats().active == 1


class InterruptedWhenWoken(threads.Signal):
    """A wait in which the interruption comes at the moment of the hand-over, or of the shutdown."""

    __slots__ = ()

    def wait(self, seconds: float) -> None:
        """Wait to be woken, and be interrupted then."""
        wait_for(self.is_set)
        raise Signalled


@threads_only
@pytest.mark.parametrize("broken", [False, True], ids=["handed over", "to be opened"])
def test_acquire_interrupted_as_it_is_served_gives_the_place_on(monkeypatch, make_pool, broken):
    """If a connection, or leave to open one, was handed over already, it goes to the next in the queue."""
    made = make_pool(size=1)

    def use() -> str:
        try:
            with made.acquire() as connection:
                add(connection)
                return "served"
        except Signalled:
            return "interrupted"

    with made.acquire() as connection:
        with monkeypatch.context() as patched:
            patched.setattr(pool, "Signal", InterruptedWhenWoken)
            first = Worker(use)
            wait_for(lambda: made.stats().waiting == 1)
        second = Worker(use)
        wait_for(lambda: made.stats().waiting == 2)
        if broken:
            connection.close()
    assert (first.end(), second.end()) == ("interrupted", "served")
    assert (made.stats().active, made.stats().waiting) == (0, 0)
    with made.acquire(timeout=0) as connection:
        assert tasks.count(connection) == 1


@threads_only
def test_acquire_interrupted_while_the_pool_closes_raises_the_interruption(monkeypatch, make_pool):
    """A shutdown at the same time does not replace Ctrl-C by an error of its own."""
    made = make_pool(size=1)

    def use() -> None:
        with pytest.raises(Signalled), made.acquire():
            pytest.fail("the connection is in use")

    with made.acquire():
        with monkeypatch.context() as patched:
            patched.setattr(pool, "Signal", InterruptedWhenWoken)
            worker = Worker(use)
            wait_for(lambda: made.stats().waiting == 1)
        closer = Worker(made.close, PATIENCE)
        worker.end()
    assert closer.end() is True


# ---------------------------------------------------------------- health


def test_stats_add_up_what_observers_are_told(make_pool, caplog):
    """Nobody knew for how long connections are lent, nor how long it takes to open one."""
    pool = make_pool()
    told: list[tuple[str, float]] = []

    def broken(*_: object) -> None:
        raise KeyError

    def note(what: str, seconds: float) -> None:
        told.append((what, seconds))
        assert pool.stats().size  # the guard is free

    assert (pool.stats().opened, pool.stats().use_seconds, pool.stats().longest_use_seconds) == (0, 0.0, 0.0)
    with pool.observe(broken), pool.observe(note) as observation:
        with pool.acquire(), pool.acquire():
            pass
        with pool.acquire() as connection:
            pool.on(connection, add)
            assert [what for what, _ in told] == ["open", "wait", "open", "wait", "use", "use", "wait"]
        with pytest.raises(ZeroDivisionError), pool.acquire():
            raise ZeroDivisionError
        observation.end()
    with_all = pool.stats()
    with pool.acquire():
        pass
    assert len(told) == 10  # nothing more
    stats = pool.stats()
    assert stats.longest_use_seconds <= stats.use_seconds
    assert stats.use_seconds > with_all.use_seconds
    for what, number, total, longest in [
        ("open", with_all.opened, with_all.open_seconds, with_all.longest_open_seconds),
        ("use", with_all.acquired, with_all.use_seconds, with_all.longest_use_seconds),
    ]:
        seconds = [one for kind, one in told if kind == what]
        assert (len(seconds), sum(seconds), max(seconds)) == (number, pytest.approx(total), longest)
    assert [record.name for record in caplog.records] == ["dao.observing"]


def test_pool_knows_its_connections(make_pool, url):
    """Whoever watches a pool tells its calls from those of others, those of `write` included."""
    pool = make_pool()
    seen: list[bool] = []
    with (
        contextlib.closing(dao.connect(url)) as other,
        dao.observe(lambda event: seen.append(pool.has(event.connection))),
    ):
        with pool.acquire() as connection:
            pool.on(connection, dao.tasks.count)
        pool.write(dao.tasks.count)
        dao.tasks.count(other)
    assert seen == [True, True, False]
    assert pool.url == dao.engine.absolute(url)


def test_health_of_a_good_database_is_true(make_pool):
    """A database that answers is healthy; the probe gives its connection back, also to a busy pool."""
    made = make_pool(size=1)
    for _ in range(2):
        health = made.health()
        assert (health.ok, health.error) == (True, None)
        assert health.seconds >= 0
    assert (made.stats().active, made.stats().idle, made.stats().recycled) == (0, 1, 0)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("mode", ["rwc", "ro"])
def test_health_while_another_writes_is_true_and_says_so(url, make_pool, mode):
    """A long write turns no probe red, nor keeps it waiting; the answer says that writes would wait.

    SQLite only: elsewhere no writer keeps all others waiting.
    """
    made = make_pool(f"{url}?mode={mode}&busy_timeout=600000", size=1)
    with contextlib.closing(dao.connect(url)) as blocker, dao.transaction(blocker):
        add(blocker)
        health = Worker(made.health, 600).end()
        assert (health.ok, health.error, health.locked) == (True, None, mode == "rwc")
    assert (made.health().ok, made.health().locked) == (True, False)


@pytest.mark.sqlite_only
def test_health_while_another_writes_leaves_the_busy_timeout(url, make_pool):
    """The probe does not wait for the write lock; who writes on its connection after it waits as ever.

    SQLite only: as above.
    """
    made = make_pool(f"{url}?busy_timeout=600000", size=1)
    with contextlib.closing(dao.connect(url)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        assert Worker(made.health).end().locked
        timer = threading.Timer(0.02, blocker.execute, ["COMMIT"])
        timer.start()
        with made.acquire() as connection:
            made.on(connection, add)
        timer.join()


def test_health_all_in_use_is_false_in_time(make_pool):
    """Where no connection is to be had the answer comes after the timeout, not after the pool's."""
    made = make_pool(size=1, timeout=600)
    with made.acquire():
        health = made.health(timeout=0.01)
    assert not health.ok
    if isinstance(made, dao.Pool):
        assert "all 1 are in use" in health.error
    else:
        assert health.error == "no answer within 0.01 s"
    assert made.health().ok


@pytest.mark.sqlite_only
@pytest.mark.parametrize("opened", [False, True], ids=["to be opened", "idle"])
def test_health_of_a_locked_database_is_false_in_time(database, make_pool, opened):
    """A database that another keeps locked is not healthy: the probe waits as long as it is told, others as ever.

    SQLite only: as above.
    """
    made = make_pool(f"sqlite:///{database}?busy_timeout=600000", size=1)
    blocker = apsw.Connection(str(database))
    if opened:
        with made.acquire() as connection:
            # in WAL mode nobody can keep others from reading
            made.on(connection, lambda given: given.pragma("journal_mode", "delete"))
    blocker.execute("BEGIN EXCLUSIVE")
    health = Worker(made.health, 0.02).end()
    assert not health.ok
    if isinstance(made, dao.Pool):
        assert "locked by another connection" in health.error
        assert (made.stats().idle, made.stats().recycled) == (int(opened), 0)
    assert made.stats().active == 0
    timer = threading.Timer(0.05, blocker.execute, ["COMMIT"])
    timer.start()
    with made.acquire() as connection:
        made.on(connection, add)
    timer.join()
    blocker.close()
    assert made.health().ok


@pytest.fixture(params=["idle", "to be opened"])
def used(request: pytest.FixtureRequest, make_pool) -> Any:
    """A pool whose database has a task; its connection waits for use, the cache full, or was closed."""
    made = make_pool()
    with made.acquire() as connection:
        made.on(connection, add)
        assert made.on(connection, tasks.count) == 1
        made.on(connection, truncate_log)
        if request.param == "to be opened":
            made.close_connection(connection)
    return made


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (overwrite, "damaged"),
        (Path.unlink, "does not exist"),
        (lambda path: path.rename(f"{path}.old"), "does not exist"),
    ],
    ids=["damaged", "deleted", "renamed"],
)
@pytest.mark.sqlite_only
def test_health_of_a_harmed_file_is_false(database, used, harm, message):
    """A file that is damaged or gone is not healthy, full caches or not; and the probe makes no new one.

    SQLite only: it harms the file.
    """
    assert used.stats().idle == 0 or used.health().ok
    harm(database)
    for _ in range(2):
        health = used.health()
        assert not health.ok
        assert message in health.error
    assert database.exists() is (harm is overwrite)
    assert used.stats().active == 0


@pytest.mark.sqlite_only
def test_health_of_a_replaced_file_is_false_until_it_is_opened_again(database, make_pool):
    """A connection to a file that was replaced writes to nowhere: the probe says so, and has it replaced too.

    SQLite only: it replaces the file.
    """
    made = make_pool()
    with made.acquire() as connection:
        made.on(connection, add)
        made.on(connection, truncate_log)
    assert made.health().ok
    replace(database)
    health = made.health()
    assert not health.ok
    assert "replaced while it was open" in health.error
    assert made.stats().recycled == 1


# ---------------------------------------------------------------- close


def test_close_idle_pool_closes_its_connections(make_pool):
    """All idle connections are closed; nothing is lent any more; safe to repeat. Such a pool is not healthy."""
    made = make_pool()
    with made.acquire() as one, made.acquire() as other:
        pass
    assert made.close() is True
    assert made.close() is True
    assert (made.stats().idle, made.stats().active) == (0, 0)
    for connection in (one, other):
        with pytest.raises(CLOSED):
            made.on(connection, tasks.count)
    with pytest.raises(dao.PoolClosed, match="the pool is closed"), made.acquire():
        pytest.fail("the pool is closed")
    assert made.health().error == "the pool is closed"


def test_pool_as_context_manager_closes_at_the_end(make_pool):
    """The block of a pool ends with its shutdown."""
    with make_pool() as made, made.acquire():
        pass
    with pytest.raises(dao.PoolClosed):
        made.acquire().__enter__()


def closed(made: Any) -> bool:
    """Return whether a pool whose connections are all in use is closed."""
    return made.health(timeout=0).error == "the pool is closed"


def test_close_waits_for_holders_and_tells_the_queue(url, make_pool):
    """Who holds a connection may finish; who waits for one is told at once that there will be none."""
    made = make_pool(size=1)
    begun, end = threading.Event(), threading.Event()

    def use() -> apsw.Connection:
        with made.acquire() as connection:
            begun.set()
            assert end.wait(PATIENCE)
            made.on(connection, add)
            return connection

    holder = Worker(use)
    assert begun.wait(PATIENCE)
    workers = []
    for _ in range(3):
        workers.append(Worker(made.acquire().__enter__))
        wait_for(lambda: made.stats().waiting == len(workers))
    closer = Worker(made.close, PATIENCE)
    for worker in workers:
        with pytest.raises(dao.PoolClosed):
            worker.end()
    assert closer.is_alive()
    end.set()
    assert closer.end() is True
    with pytest.raises(CLOSED):
        made.on(holder.end(), tasks.count)
    assert (made.stats().waiting, made.stats().timeouts, made.stats().active, made.stats().idle) == (0, 0, 0, 0)
    assert stored(url) == 1


def test_close_interrupts_a_statement_that_does_not_end(caplog, url, make_pool):
    """After the timeout a long statement is interrupted, and its transaction undone."""
    made = make_pool()
    begun = threading.Event()

    def add_and_run(connection: apsw.Connection) -> None:
        with dao.transaction(connection):
            add(connection)
            begun.set()
            engine.fetch(connection, ENDLESS)

    def use() -> None:
        with made.acquire() as connection:
            made.on(connection, add_and_run)

    holder = Worker(use)
    assert begun.wait(PATIENCE)
    wait_for(lambda: Worker(made.close, 0.01).end() is True)
    with pytest.raises(dao.OperationalError, match=INTERRUPTED):
        holder.end()
    assert "still in use" in caplog.text
    assert made.stats().active == 0
    assert stored(url) == 0


def test_close_holder_that_does_not_end_returns_false_and_closes_later(make_pool):
    """A connection that nobody gives back is reported, and closed when it comes back after all."""
    made = make_pool()
    with made.acquire() as connection:
        assert made.close(timeout=0) is False
        assert made.stats().active == 1
    with pytest.raises(CLOSED):
        made.on(connection, tasks.count)
    assert (made.stats().active, made.stats().idle) == (0, 0)
    assert made.close(timeout=0) is True


def test_close_holder_that_closed_its_connection_is_no_obstacle(make_pool):
    """A connection that its user closed has no statement to interrupt."""
    made = make_pool()
    with made.acquire() as connection:
        made.close_connection(connection)
        assert made.close(timeout=0) is False
        closer = Worker(made.close, 0)
    assert closer.end() is True
    assert made.close(timeout=0) is True


class SlowClose(apsw.VFS):
    """A file system on which a database is closed when it is told to be."""

    def __init__(self) -> None:
        self.slow, self.begun, self.end = False, threading.Event(), threading.Event()
        self.below = apsw.vfs_names()[0]
        super().__init__("slow-close", self.below, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file that is slow to close."""
        return SlowFile(self, name, flags)


class SlowFile(apsw.VFSFile):
    """A file that is slow to close."""

    def __init__(self, disk: SlowClose, name, flags) -> None:
        self._disk = disk
        super().__init__(disk.below, name, flags)

    def xClose(self):  # noqa: N802 - SQLite's name
        """Wait, and close."""
        if self._disk.slow:
            self._disk.begun.set()
            assert self._disk.end.wait(PATIENCE)
        super().xClose()


@pytest.fixture
def disk() -> Iterator[SlowClose]:
    """The slow file system, on which every connection is opened meanwhile."""
    disk = SlowClose()
    yield disk
    disk.end.set()
    disk.unregister()


@pytest.mark.sqlite_only
def test_close_during_another_close_waits_for_all_connections(disk, make_pool):
    """A second shutdown is not done before the first one is: a connection counts until it is closed.

    SQLite only: a file system in Python is what is slow.
    """
    made = make_pool()
    with made.acquire():
        pass
    disk.slow = True
    first = Worker(made.close)
    assert disk.begun.wait(PATIENCE)
    second = Worker(made.close)
    second.join(0.02)
    assert second.is_alive()
    disk.end.set()
    assert (first.end(), second.end()) == (True, True)


@pytest.mark.sqlite_only
def test_close_while_a_connection_is_being_opened_closes_that_too(monkeypatch, url, make_pool):
    """A connection that is ready only after the shutdown began is not lent, and the shutdown waits for it.

    SQLite only: it holds up the setting up of a file's connection.
    """
    made = make_pool(f"{url}?cache_size=7", size=1)
    begun, end, opened = threading.Event(), threading.Event(), []
    configure = engine.sqlite.configure

    def slowly(connection: apsw.Connection, parsed: Any) -> None:
        begun.set()
        assert end.wait(PATIENCE)
        configure(connection, parsed)
        opened.append(connection)

    for module in (engine.sqlite, engine.sqlite.opening):
        monkeypatch.setattr(module, "configure", slowly)
    worker = Worker(made.acquire().__enter__)
    assert begun.wait(PATIENCE)
    assert made.stats().active == 1
    closer = Worker(made.close, PATIENCE)
    wait_for(lambda: closed(made))
    end.set()
    with pytest.raises(dao.PoolClosed):
        worker.end()
    assert closer.end() is True
    assert (made.stats().active, made.stats().acquired) == (0, 0)
    with pytest.raises(CLOSED):
        made.on(opened[0], tasks.count)


# ---------------------------------------------------------------- fork


@threads_only
def test_pool_in_a_forked_child_refuses_to_lend(url, make_pool):
    """A connection does not survive a fork: the child's copy of the pool says so, and closes none of the parent's."""
    made = make_pool(size=2)
    with made.acquire(), made.acquire() as idle:
        pass

    def child() -> None:
        with pytest.raises(dao.PoolClosed, match="make a pool there"):
            made.acquire().__enter__()
        assert not made.health().ok
        assert made.close(timeout=0) is True
        assert not engine.in_transaction(idle)  # it raises if the connection is closed

    in_child(child)
    with made.acquire() as connection:
        add(connection)
    assert stored(url) == 1


@threads_only
def test_pool_forked_while_a_connection_is_held_leaves_the_parents_transaction(url, make_pool):
    """In the child the block ends without touching the connection; in the parent the transaction goes on."""
    made = make_pool(size=1)
    lease = made.acquire()
    connection = lease.__enter__()
    connection.execute("BEGIN")
    add(connection)

    def child() -> None:
        lease.__exit__(None, None, None)
        assert engine.in_transaction(connection)  # untouched: it is the parent's

    in_child(child)
    assert engine.in_transaction(connection)
    connection.execute("COMMIT")
    lease.__exit__(None, None, None)
    assert stored(url) == 1


@pytest.mark.sqlite_only
def test_pool_child_that_ends_as_python_does_leaves_the_parents_commits(database):
    """Also a child that runs its finalizers harms nothing: what the parent commits before and after is there.

    SQLite only: `tests/fault/test_pool_of_a_server.py` has forks beside a server.
    """
    code = """
import os, sys, dao
pool = dao.Pool(f"sqlite:///{sys.argv[1]}")
with pool.acquire() as connection:
    dao.tasks.create(connection, dao.Task(title="before", task_type="agent"))
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
with pool.acquire() as connection:
    dao.tasks.create(connection, dao.Task(title="after", task_type="agent"))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(database)], check=True)
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as connection:
        assert {task.title for task in tasks.iter_all(connection)} == {"before", "after"}
        assert connection.pragma("integrity_check") == "ok"


# ---------------------------------------------------------------- many threads


@threads_only
def test_pool_many_threads_no_connection_is_lost_or_lent_twice(make_pool):
    """Whatever happens in the blocks, a connection has one user at a time, and in the end all places are free."""
    made = make_pool(size=4, timeout=PATIENCE)
    lock, together = threading.Lock(), threading.Barrier(4)
    using: set[apsw.Connection] = set()
    most = acquired = timeouts = written = 0

    def use(seed: int) -> None:
        nonlocal most, acquired, timeouts, written
        rng = random.Random(seed)
        for turn in range(40):
            chance = rng.random()
            try:
                with made.acquire(timeout=rng.choice([0.001, None, None]) if turn else None) as connection:
                    with lock:
                        assert connection not in using
                        using.add(connection)
                        most, acquired = max(most, len(using)), acquired + 1
                    try:
                        if turn == 0:  # all places are lent at once, however slowly the server opens connections
                            together.wait(PATIENCE)
                        if chance < 0.3:
                            add(connection)
                            with lock:
                                written += 1
                        elif chance < 0.4:
                            connection.execute("BEGIN")
                        elif chance < 0.5:
                            raise dao.OperationalError("a")
                        elif chance < 0.6:
                            raise ValueError("a")
                        elif chance < 0.65:
                            connection.close()
                        time.sleep(rng.random() / 1000)
                    finally:
                        with lock:
                            using.remove(connection)
            except (dao.OperationalError, ValueError):
                pass
            except dao.PoolTimeout:
                with lock:
                    timeouts += 1

    workers = [Worker(use, seed) for seed in range(16)]
    for worker in workers:
        worker.end()
    stats = made.stats()
    assert most == 4
    assert (stats.active, stats.waiting, stats.acquired, stats.timeouts) == (0, 0, acquired, timeouts)
    assert stats.idle <= 4
    with contextlib.ExitStack() as all_places:
        for _ in range(4):
            connection = all_places.enter_context(made.acquire(timeout=0))
        assert tasks.count(connection) == written
    assert made.close(timeout=0) is True
