"""An exception from outside may come at any moment of acquire, release and write.

No lease, no word and no row is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import dao
from dao import engine, logs
from tests.concurrency import PATIENCE, wait_for
from tests.folders import query

# An exception between `open` and its `with` leaves the file to the garbage collector, which closes it, and warns.
# Opening a database reads one such file: see `dao.engine.sqlite.database_file`.
pytestmark = pytest.mark.filterwarnings("ignore:.*name='/proc/self/fdinfo")


class Stop(BaseException):
    """What the interrupter raises in a thread."""


class Interrupted(threading.Thread):
    """Does something again and again until it is told to end, whatever is raised in it from outside."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.ending = False
        self.pending = True  # until it is where an interruption is caught
        self.done = self.stopped = 0
        self.errors: list[BaseException] = []

    def run(self) -> None:
        """Do the work. At most one interruption is under way, so that one of the two handlers gets it."""
        while not self.ending:
            try:
                try:
                    self.pending = False
                    while not self.ending:
                        self.work()
                        self.done += 1
                except Stop:
                    self.stopped += 1
            except Stop:
                self.stopped += 1
            except BaseException as error:  # noqa: BLE001 - the test looks at them
                self.errors.append(error)

    def interrupt(self) -> None:
        """Raise `Stop` in the thread, wherever it is."""
        self.pending = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Stop))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, uncollected: None) -> Iterator[None]:
    """Let threads take turns more often, so that interruptions come in more places, and log nothing.

    The standard library's handlers lose their lock if an interruption comes as they take it.
    """
    monkeypatch.setattr(logging.getLogger("dao.pool"), "disabled", True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database with a table of notes."""
    path = tmp_path / "notes.db"
    query(path, "CREATE TABLE notes (text TEXT NOT NULL UNIQUE)")
    return path


def test_logger_is_asked_for_once(monkeypatch):
    """An interruption in `getLogger` left the lock of `logging` taken: whoever logged next waited for ever."""
    logs.logger("dao.pool")
    with monkeypatch.context() as patched:
        patched.setattr(logging, "getLogger", None)
        again = logs.logger("dao.pool")
    assert again.name == "dao.pool"


def interrupt(threads: list[Interrupted], times: int) -> None:
    """Interrupt threads at random moments, end them, and see that nothing else was raised in them.

    Where they wait for a disk or for the processor they are interrupted less often: then it goes on for longer.
    """
    moments = random.Random(times)
    for thread in threads:
        thread.start()

    def strike() -> bool:
        thread = moments.choice(threads)
        if not thread.pending:
            thread.interrupt()
        time.sleep(moments.choice([0, 0, 0.0001, 0.0005, 0.001]))
        return sum(thread.stopped for thread in threads) > times / 20

    for _ in range(times):
        strike()
    wait_for(strike)
    wait_for(lambda: all(thread.done > 10 for thread in threads))
    for thread in threads:
        thread.ending = True
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert thread.errors == []


def check_whole(pool: dao.Pool, size: int) -> None:
    """See that all places of a pool are free, can all be lent, and that it closes."""
    with pool.acquire(timeout=PATIENCE):  # finds what was lost
        pass
    assert (pool.stats().active, pool.stats().waiting) == (0, 0)
    with contextlib.ExitStack() as stack:
        for _ in range(size):
            stack.enter_context(pool.acquire(timeout=0))
    assert pool.close(timeout=PATIENCE)


# times, and whether that is for the slow tests
TIMES = [400, pytest.param(5_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("size", [1, 2])
def test_acquire_interrupted_at_any_moment_loses_no_lease(path, size, times):
    """Where it strikes, be it as the connection is handed out or taken back, the place is free again.

    Some hundred interruptions used up a pool: every second one that came just after the pool's lock was let go took a
    place.
    """
    pool = dao.Pool(f"sqlite:///{path}", size=size, timeout=PATIENCE)
    using = itertools.count()
    chance = random.Random(size)

    def work() -> None:
        with pool.acquire() as connection:
            next(using)
            what = chance.random()
            if what < 0.1:
                connection.execute("BEGIN IMMEDIATE")  # is rolled back
            elif what < 0.2:
                connection.close()  # is replaced

    interrupt([Interrupted(work) for _ in range(3)], times)
    check_whole(pool, size)
    assert not [connection for connection in apsw.connections() if connection.filename == str(path)]


def test_acquire_interrupted_in_memory_loses_no_row():
    """A database in memory is its connection: that is not lost either, whoever held it."""
    pool = dao.Pool("sqlite://", timeout=PATIENCE)
    with pool.acquire() as connection:
        connection.execute("CREATE TABLE notes (n)")

    def work() -> None:
        with pool.acquire() as connection:
            connection.execute("INSERT INTO notes VALUES (1)")

    threads = [Interrupted(work) for _ in range(2)]
    interrupt(threads, 300)
    with pool.acquire() as connection:
        assert connection.execute("SELECT count(*) FROM notes").get >= sum(thread.done for thread in threads)
    check_whole(pool, 1)


@pytest.mark.parametrize("times", TIMES)
def test_write_interrupted_at_any_moment_stores_what_was_told(path, times):
    """What returned is stored, once; no two functions run at once, so there is one writer; nobody waits for ever."""
    pool = dao.Pool(f"sqlite:///{path}", timeout=PATIENCE)
    # before: what is meant for a thread that is just starting another may reach that one (CPython sets its id late)
    pool.write(engine.fetch, "SELECT 1")
    numbers = itertools.count()
    alone = threading.Lock()
    told: list[str] = []

    def insert(connection: apsw.Connection, text: str) -> None:
        assert alone.acquire(blocking=False)
        engine.execute(connection, "INSERT INTO notes VALUES ($1)", (text,))
        alone.release()

    def work() -> None:
        text = str(next(numbers))
        pool.write(insert, text)
        told.append(text)

    interrupt([Interrupted(work) for _ in range(3)], times)
    assert pool.stats().queued == 0
    check_whole(pool, 5)
    stored = {text for (text,) in query(path, "SELECT text FROM notes")}
    assert stored >= {*told}


@pytest.mark.parametrize("times", [150, pytest.param(3_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["acquire", "write"])
def test_ctrl_c_at_any_moment_loses_nothing(monkeypatch, path, way, times):
    """A signal's handler may raise in the main thread.

    It may do so while that waits for a lock, or starts the writer's thread.
    """
    monkeypatch.setattr("dao.pooling.writer.IDLE_SECONDS", 0.0005)  # it ends and is started again and again
    pool = dao.Pool(f"sqlite:///{path}", size=1, timeout=PATIENCE)
    main = threading.get_ident()
    raised, pending = 0, threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        raise Stop

    def interrupter() -> None:
        moments = random.Random(times)
        for _ in range(times):
            time.sleep(moments.choice([0, 0.0001, 0.0005, 0.001]))
            assert pending.wait(PATIENCE)
            pending.clear()
            signal.pthread_kill(main, signal.SIGUSR1)
        signal.pthread_kill(main, signal.SIGUSR2)

    alone = threading.Lock()

    def insert(connection: apsw.Connection) -> None:
        engine.execute(connection, "INSERT INTO notes VALUES (lower(hex(randomblob(16))))")

    def insert_alone(connection: apsw.Connection) -> None:
        assert alone.acquire(blocking=False)
        insert(connection)
        alone.release()

    def work() -> None:
        if way == "write":
            pool.write(insert_alone)
        else:
            with pool.acquire() as connection:
                insert(connection)

    other = Interrupted(work)  # so that there is somebody to wait for
    ended: list[int] = []
    before = signal.signal(signal.SIGUSR1, stop), signal.signal(signal.SIGUSR2, lambda *_: ended.append(1))
    thread = threading.Thread(target=interrupter)
    other.start()
    thread.start()
    try:
        while not ended:
            try:
                try:
                    pending.set()
                    while not ended:
                        work()
                except Stop:
                    raised += 1
            except Stop:
                raised += 1
    finally:
        thread.join(PATIENCE)
        other.ending = True
        other.join(PATIENCE)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    assert raised == times
    assert other.errors == []
    check_whole(pool, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a destructor of psycopg's
@pytest.mark.parametrize("kind", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("times", [120, pytest.param(2_000, marks=pytest.mark.slow)])
def test_transaction_on_a_server_interrupted_at_any_moment_is_all_or_nothing(postgresql_url, kind, times):
    """While it waits for the server or not: a block that was interrupted is stored whole, or not at all.

    psycopg has the server cancel a statement for a KeyboardInterrupt only; any other leaves the connection in the
    middle of it, so that it cannot be lent again.
    """
    pool = dao.Pool(postgresql_url, size=2, timeout=PATIENCE)
    with pool.acquire() as connection:
        connection.execute("CREATE TABLE notes (number integer, part text, UNIQUE (number, part))")
    main = threading.get_ident()
    numbers = itertools.count()
    told: list[int] = []
    raised, pending = 0, threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        raise kind

    def interrupter() -> None:
        moments = random.Random(times)
        for _ in range(times):
            time.sleep(moments.choice([0, 0.0005, 0.002, 0.01, 0.05]))
            pending.wait(PATIENCE)
            pending.clear()
            signal.pthread_kill(main, signal.SIGUSR1)
        signal.pthread_kill(main, signal.SIGUSR2)

    def insert(connection: Any, number: int, part: str) -> None:
        engine.execute(connection, "INSERT INTO notes VALUES ($1, $2)", (number, part))

    def work() -> None:
        number = next(numbers)
        with pool.acquire() as connection, dao.transaction(connection):
            insert(connection, number, "a")
            with dao.transaction(connection):
                insert(connection, number, "b")
        told.append(number)

    ended: list[int] = []
    before = signal.signal(signal.SIGUSR1, stop), signal.signal(signal.SIGUSR2, lambda *_: ended.append(1))
    thread = threading.Thread(target=interrupter)
    thread.start()
    try:
        while not ended:
            try:
                try:
                    pending.set()
                    while not ended:
                        work()
                except kind:
                    raised += 1
            except kind:
                raised += 1
    finally:
        thread.join(PATIENCE)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    work()  # on a machine that is busy it may have been interrupted each time
    assert raised > times / 2
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        parts = engine.fetch(connection, "SELECT number, string_agg(part, '' ORDER BY part) FROM notes GROUP BY number")
    assert {part for _, part in parts} == {"ab"}
    assert {number for number, _ in parts} >= {*told}
    check_whole(pool, 2)
