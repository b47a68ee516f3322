"""`Pool.write`, of threads and of tasks: one commit for many, and nobody pays for another's mistake."""

from __future__ import annotations

import contextlib
import gc
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import Task, aio, engine, tasks
from dao.pooling import lender, threads, writer
from dao.pooling.batch import Call
from dao.url import parse
from tests.concurrency import (
    CANCELLED,
    ENDLESS,
    PATIENCE,
    Asyncio,
    Signalled,
    Worker,
    in_child,
    loop,
    making,
    signalled,
    until,
    wait_for,
)

__all__ = ["loop", "signalled"]  # fixtures

SCHEMA = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, CONSTRAINT notes_text CHECK (text <> ''));
CREATE TABLE plain (text TEXT);
CREATE TABLE children (parent INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER notes_fatal BEFORE INSERT ON notes WHEN new.text = 'fatal' BEGIN SELECT RAISE(ROLLBACK, 'fatal'); END;
"""
INSERT = "INSERT INTO notes (text) VALUES ($1) RETURNING id"


@pytest.fixture
def url(tmp_path) -> str:
    """The URL of a database with a table of notes."""
    url = f"sqlite:///{tmp_path}/notes.db"
    with contextlib.closing(dao.connect(url)) as connection:
        connection.execute(SCHEMA)
    return url


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """Batches end when the queue is empty, and not sooner."""
    monkeypatch.setattr(writer, "BATCH_SECONDS", PATIENCE)


@pytest.fixture(params=["threads", "asyncio", "trio"])
def make_pool(request: pytest.FixtureRequest, url: str) -> Iterator[Callable[..., Any]]:
    """Return a function that makes pools, for threads or for tasks; they are closed in the end."""
    with making(request.param) as make:
        yield lambda database_url=url, **arguments: make(database_url, **arguments)


threads_only = pytest.mark.parametrize("make_pool", ["threads"], indirect=True)


@pytest.fixture
def pool(make_pool) -> dao.Pool:
    """A pool on the database with notes."""
    return make_pool()


def add(connection: apsw.Connection, text: str) -> int:
    """Write a note and return its id."""
    [(id,)] = engine.fetch(connection, INSERT, (text,))
    return id


def add_and_fail(connection: apsw.Connection, text: str) -> None:
    """Write a note, and then fail."""
    add(connection, text)
    raise LookupError(text)


def stored(url: str) -> list[str]:
    """Return the notes that another connection sees, in the order of writing."""
    with contextlib.closing(dao.connect(url)) as connection:
        return [text for (text,) in engine.fetch(connection, "SELECT text FROM notes ORDER BY id")]


def opened(url: str) -> list[apsw.Connection]:
    """Return the connections that this process has to a database."""
    return [connection for connection in apsw.connections() if connection.filename and connection.filename in url]


def refused(pool: Any) -> bool:
    """Return whether a pool whose writer is busy takes no more writes."""
    try:
        pool.writing(timeout=0)(add, "late")
    except dao.PoolTimeout:
        return False
    except dao.PoolClosed:
        return True


def has_thread() -> bool:
    """Return whether there is a writer's thread."""
    return any(thread.name == "dao writer" for thread in threading.enumerate())


class Together:
    """Calls that wait while another is running, so that they share the next batch: `with Together(pool) as queue`."""

    def __init__(self, pool: dao.Pool) -> None:
        self._pool = pool
        self._end = threading.Event()
        self.workers: list[Worker] = []

    def __enter__(self):
        begun = threading.Event()

        def hold(_: apsw.Connection) -> None:
            begun.set()
            assert self._end.wait(PATIENCE)

        self._holder = Worker(self._pool.write, hold)
        assert begun.wait(PATIENCE)
        return self

    def put(self, function: Callable[..., object], *arguments: object) -> Worker:
        """Have a thread write, and see it in the queue."""
        before = self._pool.stats().queued
        self.workers.append(Worker(self._pool.write, function, *arguments))
        wait_for(lambda: self._pool.stats().queued == before + 1)
        return self.workers[-1]

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._holder.join(PATIENCE)
        for worker in self.workers:
            worker.join(PATIENCE)


# ---------------------------------------------------------------- one call


def test_write_returns_the_result_after_the_commit(url, pool):
    """A call with arguments returns what the function returned, and by then others see the row."""
    assert pool.write(add, "a") == 1
    assert pool.write(add, text="b") == 2
    assert stored(url) == ["a", "b"]
    assert (pool.stats().writes, pool.stats().batches, pool.stats().queued) == (2, 2, 0)


def test_write_takes_none_of_the_connections_that_are_lent(make_pool, url):
    """The writer has a connection of its own: the pool may be lent out to the last."""
    pool = make_pool(size=1)
    with pool.acquire() as connection:
        tasks_before = pool.stats().active
        pool.write(add, "a")
        assert pool.on(connection, engine.fetch, "SELECT text FROM notes") == [("a",)]
        assert pool.stats().active == tasks_before == 1
    assert stored(url) == ["a"]


def test_write_runs_the_tables_functions(template, tmp_path, make_pool):
    """The functions of the table modules run as they are, transactions of several statements included."""
    path = tmp_path / "orchestrator.db"
    path.write_bytes(template.read_bytes())
    pool = make_pool(f"sqlite:///{path}")
    many = [Task(title=str(number), task_type="agent") for number in range(3)]
    pool.write(tasks.create_many, many)
    assert pool.write(tasks.set_status, many[0].id, "running").status == "running"
    assert pool.write(tasks.count) == 3


def test_write_function_that_fails_is_undone_and_raises_here(url, pool):
    """The exception is the function's own, with its traceback, and what it wrote is gone."""
    with pytest.raises(LookupError) as caught:
        pool.write(add_and_fail, "a")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "add_and_fail"
    assert frames[0] == "test_write_function_that_fails_is_undone_and_raises_here"
    with pytest.raises(dao.CheckViolation) as refused:
        pool.write(add, "")
    assert refused.value.constraint == "notes_text"
    assert stored(url) == []
    assert pool.stats().writes == 0


@threads_only
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_write_function_that_wants_to_end_the_thread_ends_its_caller(url, pool, error):
    """Also what is no `Exception` is raised in the caller, and the writer serves the next."""

    def leave(connection: apsw.Connection) -> None:
        add(connection, "a")
        raise error

    with pytest.raises(error):
        pool.write(leave)
    pool.write(add, "b")
    assert stored(url) == ["b"]


@threads_only
def test_write_error_leaves_no_cycle_behind(pool):
    """What a failed call held is let go with its error, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(LookupError):
            pool.write(add_and_fail, "a")
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_write_function_with_a_transaction_keeps_a_part_of_it(url, pool):
    """`dao.transaction` inside is a savepoint: it is undone by itself."""

    def partly(connection: apsw.Connection) -> None:
        add(connection, "kept")
        with contextlib.suppress(LookupError), dao.transaction(connection):
            add_and_fail(connection, "undone")
        dao.run_in_transaction(connection, add, "kept too")

    pool.write(partly)
    assert stored(url) == ["kept", "kept too"]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_write_timeout_out_of_range_raises_value_error(pool, timeout):
    """A timeout is a number of seconds from 0."""
    with pytest.raises(ValueError, match="a number of seconds from 0"):
        pool.writing(timeout=timeout)(add, "a")


@threads_only
def test_write_within_write_is_refused(url, make_pool):
    """A function that calls `write` would wait for itself for ever, so it is told; with another pool it may."""
    pool = make_pool()
    with pytest.raises(RuntimeError, match="with the connection that the outer one was given"):
        pool.write(lambda _: pool.write(add, "inner"))
    assert stored(url) == []
    pool.write(add, "a")
    assert stored(url) == ["a"]


def test_write_in_memory_gives_each_function_a_transaction(make_pool):
    """A database in memory has one connection: the functions run on that, each undone or kept by itself."""
    pool = make_pool("sqlite:///:memory:")
    with pool.acquire() as connection:
        pool.on(connection, lambda given: given.execute(SCHEMA).fetchall())
    assert pool.write(add, "a") == 1
    with pytest.raises(LookupError):
        pool.write(add_and_fail, "b")
    with pool.acquire() as connection:
        assert pool.on(connection, engine.fetch, "SELECT text FROM notes") == [("a",)]
        with pytest.raises(dao.PoolTimeout):
            pool.writing(timeout=0)(add, "c")


# ---------------------------------------------------------------- batches


def test_write_calls_that_wait_share_a_commit(url, pool):
    """What waits while the writer is busy goes into one transaction, in the order of arrival."""
    texts = [str(number) for number in range(12)]
    with Together(pool) as queue:
        for text in texts:
            queue.put(add, text)
        assert stored(url) == []
    assert stored(url) == texts
    assert [worker.end() for worker in queue.workers] == list(range(1, 13))
    assert (pool.stats().writes, pool.stats().batches, pool.stats().acquired) == (13, 1, 0)


@pytest.mark.parametrize(("bound", "value", "batches"), [("BATCH_CALLS", 3, 3), ("BATCH_SECONDS", 0, 7)])
def test_write_batch_ends_at_its_bound(monkeypatch, url, pool, bound, value, batches):
    """After so many calls, or so much time, a batch is committed even if others wait."""
    monkeypatch.setattr(writer, bound, value)
    with Together(pool) as queue:
        for number in range(6):
            queue.put(add, str(number))
    assert len(stored(url)) == 6
    assert pool.stats().batches == batches


def test_write_nobody_returns_before_the_commit(url, pool):
    """A call whose function has run waits while another of its batch is still running."""
    running, end = threading.Event(), threading.Event()

    def slow(connection: apsw.Connection) -> None:
        running.set()
        assert end.wait(PATIENCE)
        add(connection, "slow")

    with Together(pool) as queue:
        first = queue.put(add, "first")
        queue.put(slow)
        queue._end.set()
        assert running.wait(PATIENCE)
        assert first.is_alive()
        assert stored(url) == []
        end.set()
    assert stored(url) == ["first", "slow"]


def test_write_failing_functions_undo_nobody_elses(url, pool):
    """In one batch, those that fail get their errors and those that do not are stored."""
    with Together(pool) as queue:
        for number in range(10):
            queue.put(add_and_fail if number % 3 == 0 else add, str(number))
    for number, worker in enumerate(queue.workers):
        if number % 3 == 0:
            with pytest.raises(LookupError, match=str(number)):
                worker.end()
        else:
            worker.end()
    assert stored(url) == ["1", "2", "4", "5", "7", "8"]
    assert (pool.stats().writes, pool.stats().batches) == (7, 1)


def fatal(connection: apsw.Connection) -> None:
    """Let SQLite undo the whole transaction."""
    add(connection, "fatal")


def fatal_and_go_on(connection: apsw.Connection) -> None:
    """Swallow the error for which SQLite undid the transaction, and write more, which would be committed at once."""
    with contextlib.suppress(apsw.Error):
        connection.execute(INSERT, ("fatal",)).fetchall()
    with contextlib.suppress(apsw.Error):
        connection.execute(INSERT, ("alone",)).fetchall()


def fatal_and_begin(connection: apsw.Connection) -> None:
    """Swallow that error and open a transaction of one's own."""
    with contextlib.suppress(apsw.Error):
        connection.execute(INSERT, ("fatal",)).fetchall()
    connection.execute("BEGIN")
    connection.execute(INSERT, ("alone",)).fetchall()


def fatal_and_transact(connection: apsw.Connection) -> None:
    """Swallow that error, and go on with a transaction that would be the outermost."""
    with contextlib.suppress(apsw.Error):
        connection.execute(INSERT, ("fatal",)).fetchall()
    with dao.transaction(connection):
        connection.execute(INSERT, ("alone",)).fetchall()


def fatal_inside(connection: apsw.Connection) -> None:
    """Swallow that error around a nested transaction."""
    with contextlib.suppress(dao.Error), dao.transaction(connection):
        add(connection, "fatal")
    add(connection, "alone")


def close(connection: apsw.Connection) -> None:
    """Close what is everybody's."""
    connection.close()


def fill(connection: apsw.Connection) -> None:
    """Write more than there is room for."""
    connection.pragma("max_page_count", connection.pragma("page_count"))
    engine.fetch(connection, "INSERT INTO plain VALUES ($1)", ("x" * 100_000,))


def veto(connection: apsw.Connection) -> None:
    """Let the commit fail."""
    connection.set_commit_hook(lambda: True)


_KEPT: list[object] = []


def keep_a_blob_open(connection: apsw.Connection, *, writing: bool = True) -> None:
    """Leave something open that is no cursor."""
    engine.fetch(connection, "INSERT INTO plain VALUES ('mine')")
    _KEPT.append(connection.blob_open("main", "plain", "text", connection.last_insert_rowid(), writing))


@pytest.mark.parametrize(
    ("culprit", "own", "others", "why"),
    [
        (fatal, dao.IntegrityError, dao.OperationalError, "fatal"),
        (fatal_and_go_on, dao.OperationalError, dao.OperationalError, "a function went on after an error"),
        (fatal_and_begin, dao.OperationalError, dao.OperationalError, "a function went on after an error"),
        (fatal_and_transact, dao.OperationalError, dao.OperationalError, "shares its transaction with others"),
        (fatal_inside, dao.OperationalError, dao.OperationalError, "a function went on after an error"),
        (close, dao.OperationalError, dao.OperationalError, "closed"),
        (fill, dao.DiskFull, dao.DiskFull, "no room left to write"),
        (veto, dao.OperationalError, dao.OperationalError, "constraint failed"),
        (keep_a_blob_open, dao.OperationalError, dao.OperationalError, "a function left a blob or a cursor open"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_write_transaction_that_is_lost_is_told_to_all_that_shared_it(url, pool, culprit, own, others, why):
    """Each that succeeded is told, with an error of its own; one that had failed keeps its own; the next do well."""
    with Together(pool) as queue:
        first, second = queue.put(add, "first"), queue.put(add, "second")
        failed = queue.put(add_and_fail, "failed")
        guilty = queue.put(culprit)
    _KEPT.clear()
    errors = []
    for worker in (first, second):
        with pytest.raises(others, match=f"nothing of this write is stored.*{why}") as caught:
            worker.end()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].__cause__ is not None
    with pytest.raises(LookupError):
        failed.end()
    with pytest.raises(own):
        guilty.end()
    assert stored(url) == []
    assert pool.write(add, "next") == 1
    assert stored(url) == ["next"]


def test_write_calls_after_a_lost_transaction_are_in_the_next(url, pool):
    """Who waits behind the call for which SQLite undid everything is not touched by it."""
    with Together(pool) as queue:
        queue.put(fatal)
        queue.put(add, "behind")
    assert queue.workers[1].end() == 1
    assert stored(url) == ["behind"]


# ---------------------------------------------------------------- bad manners


@pytest.mark.parametrize("statement", ["COMMIT", "END", "ROLLBACK", "commit transaction"])
def test_write_function_that_ends_its_transaction_is_refused(url, pool, statement):
    """The shared transaction is not the function's to end: the attempt fails, and only for it."""

    def end(connection: apsw.Connection) -> None:
        add(connection, "mine")
        connection.execute(statement)

    with Together(pool) as queue:
        queue.put(add, "first")
        guilty = queue.put(end)
        queue.put(add, "last")
    with pytest.raises(dao.OperationalError, match="shares its transaction with others, so it cannot"):
        guilty.end()
    assert [queue.workers[0].end(), queue.workers[2].end()] == [1, 2]
    assert stored(url) == ["first", "last"]


def leave_returning_open(connection: apsw.Connection) -> apsw.Cursor:
    """Read one row of three."""
    cursor = connection.execute("INSERT INTO notes (text) VALUES ('x'), ('y'), ('z') RETURNING id")
    next(cursor)
    _KEPT.append(cursor)
    return cursor


def leave_select_open(connection: apsw.Connection) -> apsw.Cursor:
    """Write three rows and read one."""
    engine.fetch(connection, "INSERT INTO notes (text) VALUES ('x'), ('y'), ('z')")
    cursor = connection.execute("SELECT id FROM notes")
    next(cursor)
    _KEPT.append(cursor)
    return cursor


@pytest.mark.parametrize("leave", [leave_returning_open, leave_select_open])
def test_write_cursor_left_open_is_closed(url, pool, leave):
    """A cursor that was not read to its end holds up neither the commit nor the next transaction."""
    with Together(pool) as queue:
        queue.put(add, "first")
        cursor = queue.put(leave)
        queue.put(add, "last")
    with pytest.raises(apsw.CursorClosedError):
        next(cursor.end())
    _KEPT.clear()
    assert stored(url) == ["first", "x", "y", "z", "last"]
    with contextlib.closing(dao.connect(url)) as other:
        add(other, "of another")
    pool.write(add, "next")
    assert pool.stats().writes == 5


def test_write_blob_left_open_has_the_connection_replaced(url, pool):
    """What else holds an old snapshot goes with its connection, after the commit: the next call sees the present."""
    with Together(pool) as queue:
        queue.put(add, "first")
        queue.put(lambda connection: keep_a_blob_open(connection, writing=False))
    with contextlib.closing(dao.connect(url)) as other:
        add(other, "of another")
    pool.write(add, "next")
    _KEPT.clear()
    assert stored(url) == ["first", "of another", "next"]
    assert pool.write(lambda connection: engine.fetch(connection, "SELECT text FROM plain")) == [("mine",)]


def test_write_cursor_left_open_by_one_that_fails_is_closed(url, pool):
    """The frames in an error's traceback hold a cursor that was half read: the others are stored all the same."""

    def fail(connection: apsw.Connection) -> None:
        cursor = connection.execute("INSERT INTO notes (text) VALUES ('x'), ('y') RETURNING id")
        raise LookupError(next(cursor))

    with Together(pool) as queue:
        queue.put(add, "first")
        queue.put(fail)
    with pytest.raises(LookupError):
        queue.workers[1].end()
    assert stored(url) == ["first"]


def test_write_broken_deferred_key_is_the_fault_of_its_own(url, pool):
    """A foreign key that is checked at the commit is checked at the end of each function: the commit does not fail."""

    def orphan(connection: apsw.Connection, parent: int) -> None:
        engine.fetch(connection, "INSERT INTO children VALUES ($1)", (parent,))

    def family(connection: apsw.Connection) -> None:
        orphan(connection, 7)
        engine.fetch(connection, "INSERT INTO notes VALUES (7, 'parent')")

    with Together(pool) as queue:
        queue.put(family)
        guilty = queue.put(orphan, 99)
        queue.put(add, "last")
    with pytest.raises(dao.ForeignKeyViolation, match="refers to one that does not exist"):
        guilty.end()
    assert stored(url) == ["parent", "last"]


# ---------------------------------------------------------------- waiting


def test_write_lock_held_by_another_raises_busy_to_those_that_waited(url, make_pool):
    """Whoever waited when the writer asked for the lock gets `DatabaseBusy`; the next try is fine."""
    pool = make_pool(f"{url}?busy_timeout=150")
    with contextlib.closing(dao.connect(url)) as other:
        other.execute("BEGIN IMMEDIATE")
        workers = [Worker(pool.write, add, str(number)) for number in range(4)]
        for worker in workers:
            with pytest.raises(dao.DatabaseBusy, match="is locked by another connection"):
                worker.end()
        assert len({id(worker.error) for worker in workers}) == 4
        other.execute("ROLLBACK")
    assert stored(url) == []
    pool.write(add, "a")
    assert stored(url) == ["a"]


def test_write_that_waited_for_a_lock_does_not_wait_for_it_again(monkeypatch, url, pool):
    """One busy timeout serves all that waited for it: the next in the queue does not begin another."""
    monkeypatch.setattr(writer, "BATCH_CALLS", 1)
    begin, tries = writer.SharedTransaction.begin, []

    def busy_once(shared: writer.SharedTransaction) -> None:
        tries.append(shared)
        if len(tries) == 1:
            raise apsw.BusyError("database is locked")
        begin(shared)

    with Together(pool) as queue:
        for number in range(3):
            queue.put(add, str(number))
        monkeypatch.setattr(writer.SharedTransaction, "begin", busy_once)
    for worker in queue.workers:
        with pytest.raises(dao.DatabaseBusy):
            worker.end()
    pool.write(add, "next")
    assert len(tries) == 2
    assert stored(url) == ["next"]


def test_write_that_waited_for_a_lock_is_told_of_it_though_its_time_is_up(url):
    """A call that the writer has taken out of the queue waits for what it is told; it raised PoolTimeout instead."""
    told: list[threads.Signal] = []
    writing = writer.Writer(parse(f"{url}?busy_timeout=1"), told.extend)
    call = Call(add, ("a",), {}, threads.Signal())
    with contextlib.closing(dao.connect(url)) as other, dao.transaction(other):
        turns = writing.turns(call, 0.02)
        next(turns)
        wait_for(lambda: told)
    time.sleep(0.02)
    assert next(turns) > 0
    call.ended.set()
    assert list(turns) == []
    with pytest.raises(dao.DatabaseBusy, match="is locked by another connection"):
        call.outcome()
    writing.finish(threads.Signal())
    wait_for(lambda: not has_thread())


def test_write_transaction_that_cannot_begin_says_why(database, make_pool):
    """The kind of the error was lost, as the connection had been closed when it was asked for it."""
    pool = make_pool(f"sqlite:///{database}")
    pool.write(engine.fetch, "SELECT 1")
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as other:
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    with open(database, "r+b") as file:
        file.write(b"\xff" * database.stat().st_size)
    for _ in range(2):
        with pytest.raises(dao.DatabaseCorrupt, match=r"nothing of this write is stored.*damaged"):
            pool.write(engine.fetch, "SELECT 1")


def test_write_waits_for_another_connections_lock(url, pool):
    """Another's transaction is waited for, as by any connection."""
    with contextlib.closing(dao.connect(url)) as other:
        other.execute("BEGIN IMMEDIATE")
        worker = Worker(pool.write, add, "b")
        wait_for(lambda: pool.stats().queued == 1)
        add(other, "a")
        other.execute("COMMIT")
    worker.end()
    assert stored(url) == ["a", "b"]


def test_write_turn_that_does_not_come_raises_pool_timeout(url, pool):
    """Who waits in vain is told how many others wait, and its function never runs."""
    with Together(pool) as queue:
        queue.put(add, "first")
        for timeout in (0, 0.01):
            with pytest.raises(dao.PoolTimeout, match=r"within [\d.]+ s, and now it never will: 1 others"):
                pool.writing(timeout=timeout)(add, "late")
        assert (pool.stats().queued, pool.stats().timeouts) == (1, 2)
    assert stored(url) == ["first"]


def test_write_timeout_after_the_begin_waits_for_the_outcome(url, pool):
    """A call that has begun is not given up: its caller learns whether it is stored."""
    end = threading.Event()

    def slow(connection: apsw.Connection) -> int:
        assert end.wait(PATIENCE)
        return add(connection, "slow")

    pool.write(add, "first")
    worker = Worker(lambda: pool.writing(timeout=0.05)(slow))
    time.sleep(0.2)
    assert worker.is_alive()
    end.set()
    assert worker.end() == 2
    assert stored(url) == ["first", "slow"]


@threads_only
def test_write_interrupted_in_the_queue_leaves_it(url, pool, signalled):
    """Ctrl-C in the queue comes out as it is, and the function never runs."""

    def interrupt() -> None:
        wait_for(lambda: pool.stats().queued == 1)
        signalled()

    with Together(pool) as queue:
        interrupter = Worker(interrupt)
        with pytest.raises(Signalled):
            pool.write(add, "interrupted")
        interrupter.end()
        assert pool.stats().queued == 0
        queue.put(add, "next")
    assert stored(url) == ["next"]


@threads_only
def test_write_interrupted_after_its_begin_waits_for_the_commit(url, pool, signalled):
    """Ctrl-C comes out when the outcome is certain, and nobody of the same batch is kept waiting."""
    begun, end = threading.Event(), threading.Event()
    others: list[Worker] = []

    def slow(connection: apsw.Connection) -> None:
        begun.set()
        assert end.wait(PATIENCE)
        add(connection, "slow")

    def interrupt() -> None:
        assert begun.wait(PATIENCE)
        others.extend(Worker(pool.write, add, str(number)) for number in range(3))
        wait_for(lambda: pool.stats().queued == 3)
        signalled()
        time.sleep(0.05)
        assert stored(url) == []
        end.set()

    interrupter = Worker(interrupt)
    with pytest.raises(Signalled):
        pool.write(slow)
    assert stored(url)[0] == "slow"
    interrupter.end()
    for worker in others:
        worker.end()
    assert len(stored(url)) == 4


@threads_only
def test_write_interrupted_twice_waits_no_longer(url, pool, signalled):
    """A second Ctrl-C comes out before the commit, which comes all the same."""
    held = Held()

    def interrupt() -> None:
        assert held.begun.wait(PATIENCE)
        signalled()
        time.sleep(0.05)
        signalled()

    interrupter = Worker(interrupt)
    with pytest.raises(Signalled) as caught:
        pool.write(held)
    interrupter.end()
    assert isinstance(caught.value.__context__, Signalled)
    assert stored(url) == []
    held.end.set()
    assert pool.write(add, "next") == 2
    assert stored(url) == ["held", "next"]


@threads_only
def test_write_word_that_is_not_passed_on_is_noticed(monkeypatch, url, pool):
    """A thread that was not woken by the one before it looks for itself: its call has ended."""
    monkeypatch.setattr(lender, "CHECK", 0.01)
    monkeypatch.setattr(threads.itertools, "pairwise", lambda _: ())
    with Together(pool) as queue:
        for number in range(3):
            queue.put(add, str(number))
    assert [worker.end() for worker in queue.workers] == [1, 2, 3]


def test_write_database_that_cannot_be_opened_is_told_to_each(tmp_path, make_pool):
    """Each call gets the reason, and a later one opens the database when it can be."""
    pool = make_pool(f"sqlite:///{tmp_path}/missing/a.db")
    for worker in [Worker(pool.write, add, "a") for _ in range(3)]:
        with pytest.raises(dao.OperationalError, match="does not exist; create it first"):
            worker.end()
    (tmp_path / "missing").mkdir()
    pool.write(lambda connection: connection.execute("CREATE TABLE t (id)"))
    assert pool.stats().batches == 1


def test_write_read_only_database_is_refused(url, make_pool):
    """A pool that was opened read-only writes nothing, and says why."""
    with pytest.raises(dao.ReadOnlyDatabase, match="mode=ro"):
        make_pool(f"{url}?mode=ro").write(add, "a")


# ---------------------------------------------------------------- the end


def test_close_runs_what_is_queued_and_refuses_more(url, pool):
    """Closing commits what waits, closes the connection, ends the thread, and then refuses."""
    with Together(pool) as queue:
        queue.put(add, "a")
        queue.put(add, "b")
        closer = Worker(pool.close)
        wait_for(lambda: refused(pool))
        with pytest.raises(dao.PoolClosed):
            pool.write(add, "late")
    assert closer.end() is True
    assert [worker.end() for worker in queue.workers] == [1, 2]
    assert stored(url) == ["a", "b"]
    assert not opened(url)
    wait_for(lambda: not has_thread())  # it tells of the end, and ends
    assert pool.close() is True


def test_close_gives_up_what_does_not_end(caplog, url, pool):
    """After the timeout what waits gets `PoolClosed`, and a statement that does not end is interrupted."""
    begun = threading.Event()

    def endless(connection: apsw.Connection) -> None:
        add(connection, "endless")
        begun.set()
        engine.fetch(connection, ENDLESS)

    running = Worker(pool.write, endless)
    assert begun.wait(PATIENCE)
    waiting = Worker(pool.write, add, "waiting")
    wait_for(lambda: pool.stats().queued == 1)
    assert pool.close(timeout=0.05) is True
    with pytest.raises(dao.PoolClosed, match="nothing was done"):
        waiting.end()
    with pytest.raises(dao.OperationalError, match="interrupted"):
        running.end()
    assert stored(url) == []
    assert "1 that wait are given up" in caplog.text


def test_close_function_that_does_not_end_returns_false_and_closes_later(url, pool):
    """What no interruption reaches keeps the connection; it is committed and closed when it ends."""
    begun, end = threading.Event(), threading.Event()

    def stubborn(connection: apsw.Connection) -> None:
        begun.set()
        assert end.wait(PATIENCE)
        add(connection, "a")

    worker = Worker(pool.write, stubborn)
    assert begun.wait(PATIENCE)
    assert pool.close(timeout=0.01) is False
    end.set()
    worker.end()
    wait_for(lambda: not opened(url))
    assert stored(url) == ["a"]
    assert pool.close() is True


def test_close_of_a_pool_that_never_wrote_starts_no_thread(caplog, pool):
    """A writer that was never used has nothing to close, and nothing to give up: on trio it was said to have."""
    assert pool.close(timeout=0) is True
    assert not has_thread()
    assert caplog.text == ""


def test_write_idle_thread_ends_and_the_next_call_starts_another(monkeypatch, url, pool):
    """The thread does not outstay its work; the connection stays."""
    monkeypatch.setattr(writer, "IDLE_SECONDS", 0.01)
    pool.write(add, "a")
    [connection] = opened(url)
    wait_for(lambda: not has_thread())
    pool.write(add, "b")
    assert opened(url) == [connection]
    assert stored(url) == ["a", "b"]
    wait_for(lambda: not has_thread())
    assert pool.close() is True
    assert not opened(url)


def test_program_that_forgets_to_close_ends(url):
    """A pool that nobody closed keeps no process alive, and what it said was written is."""
    code = """
import sys, dao
pool = dao.Pool(sys.argv[1])
pool.write(lambda connection: connection.execute("INSERT INTO notes (text) VALUES ('a')"))
"""
    subprocess.run([sys.executable, "-c", code, url], check=True, timeout=PATIENCE)
    assert stored(url) == ["a"]


@threads_only
def test_write_in_a_forked_child_is_refused(url, pool):
    """The writer is the parent's: the child is told so, and the parent goes on."""
    pool.write(add, "a")
    [connection] = opened(url)

    def child() -> None:
        with pytest.raises(dao.PoolClosed, match="make a pool there"):
            pool.write(add, "of the child")
        assert pool.close(timeout=0) is True
        assert not connection.in_transaction  # it raises if the connection is closed

    in_child(child)
    pool.write(add, "b")
    assert stored(url) == ["a", "b"]


@threads_only
def test_write_fork_in_the_middle_of_a_batch_leaves_it_to_the_parent(url, pool):
    """A child that is forked while a batch is open neither hangs nor ends it."""

    def child() -> None:
        with pytest.raises(dao.PoolClosed):
            pool.write(add, "of the child")

    with Together(pool) as queue:
        queue.put(add, "a")
        in_child(child)
    assert queue.workers[0].end() == 1
    assert stored(url) == ["a"]


# ---------------------------------------------------------------- all at once


ACTIONS = {
    "add": lambda connection, text: engine.fetch(connection, INSERT, (text,)),
    "fail": add_and_fail,
    "blank": lambda connection, _: add(connection, ""),
    "commit": lambda connection, text: (add(connection, text), connection.execute("COMMIT")),
    "open": lambda connection, text: _KEPT.append(connection.execute(INSERT, (text,))),
    "nested": lambda connection, text: dao.run_in_transaction(connection, add, text),
    "fatal": lambda connection, text: (add(connection, text), fatal(connection)),
}


@given(
    mixes=st.lists(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=12), min_size=2, max_size=4),
    seconds=st.sampled_from([0, 0.005, PATIENCE]),
)
def test_write_any_mix_of_calls_stores_exactly_what_was_told(tmp_path_factory, mixes, seconds):
    """Whatever the threads do to each other: what returned is stored, what raised is not, and nothing is left open."""
    url = f"sqlite:///{tmp_path_factory.mktemp('mix')}/notes.db"
    told: list[str] = []

    def work(pool: dao.Pool, name: int, actions: list[str]) -> None:
        for number, action in enumerate(actions):
            text = f"{name} {number} {action}"
            with contextlib.suppress(dao.Error, LookupError):
                pool.write(ACTIONS[action], text)
                told.append(text)

    with pytest.MonkeyPatch.context() as patched, dao.Pool(url) as pool:
        patched.setattr(writer, "BATCH_SECONDS", seconds)
        pool.write(lambda connection: connection.execute(SCHEMA))
        for worker in [Worker(work, pool, name, actions) for name, actions in enumerate(mixes)]:
            worker.end()
        assert pool.stats().writes == len(told) + 1
    _KEPT.clear()
    assert sorted(stored(url)) == sorted(told)
    assert not [text for text in told if text.split()[-1] in {"fail", "blank", "commit", "fatal"}]


@threads_only
def test_write_many_threads_with_impatience_store_what_was_told(url, make_pool):
    """Threads that give up, fail and succeed: exactly the successful ones are stored, in the order of each thread."""
    pool = make_pool()
    told: list[list[str]] = [[] for _ in range(8)]

    def work(name: int) -> None:
        chance = random.Random(name)
        for number in range(60):
            text = f"{name} {number:02}"
            with contextlib.suppress(LookupError, dao.PoolTimeout):
                timeout = chance.choice([0, 0.0005, 600])
                pool.writing(timeout=timeout)(chance.choice([add, add, add_and_fail]), text)
                told[name].append(text)

    for worker in [Worker(work, name) for name in range(8)]:
        worker.end()
    rows = stored(url)
    assert sorted(rows) == sorted(text for texts in told for text in texts)
    for name, texts in enumerate(told):
        assert [text for text in rows if text.startswith(f"{name} ")] == texts


# ---------------------------------------------------------------- tasks


class Held:
    """A function that keeps the writer busy until `end` is set: what is written meanwhile shares the next commit."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()

    def __call__(self, connection: apsw.Connection, text: str = "held") -> int:
        """Wait, then write a note."""
        self.begun.set()
        assert self.end.wait(PATIENCE)
        return add(connection, text)


def test_aio_write_cancelled_in_the_queue_never_runs(loop, url):
    """A task that is cancelled, or runs out of time, before its turn leaves the queue at once."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            held = Held()
            first = loop.start(lambda: pool.write(held))
            await until(loop, held.begun.is_set)
            task = loop.start(lambda: pool.write(add, "cancelled"))
            await until(loop, lambda: pool.stats().queued == 1)
            task.cancel()
            assert await task.end() is CANCELLED
            with pytest.raises(TimeoutError):
                async with loop.within(0.01):
                    await pool.write(add, "too late")
            for timeout in (0, 0.01):
                with pytest.raises(dao.PoolTimeout, match="0 others wait"):
                    await pool.writing(timeout=timeout)(add, "out of time")
            assert (pool.stats().queued, pool.stats().timeouts) == (0, 2)
            held.end.set()
            assert await first.end() == 1

    loop.run(main)
    assert stored(url) == ["held"]


def test_aio_write_cancelled_after_its_begin_waits_for_the_commit(loop, url):
    """The cancellation goes on when the outcome is certain: then the write is stored, and nothing is under way."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            held = Held()
            task = loop.start(lambda: pool.write(held))
            await until(loop, held.begun.is_set)
            for _ in range(3):
                task.cancel()
                await loop.sleep(0.01)
            assert not task.done
            held.end.set()
            assert await task.end() is CANCELLED
            assert stored(url) == ["held"]

    loop.run(main)


async def refused_by(pool: aio.Pool) -> bool:
    try:
        await pool.writing(timeout=0)(add, "late")
    except dao.PoolTimeout:
        return False
    except dao.PoolClosed:
        return True


def test_aio_write_that_is_closed_awaits_nothing(url):
    """Closed in the queue, its function never runs; later it does to the end. `close` raised RuntimeError there."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            held = Held()
            first, second = pool.write(held), pool.write(add, "never")
            first.send(None)
            await until(Asyncio(), held.begun.is_set)
            second.send(None)
            assert pool.stats().queued == 1
            second.close()
            assert pool.stats().queued == 0
            first.close()
            held.end.set()
            assert await pool.write(add, "next") == 2

    Asyncio().run(main)
    assert stored(url) == ["held", "next"]


def test_aclose_cancelled_ends_the_thread_all_the_same(loop, url):
    """Whoever does not wait for the end gets one nevertheless."""

    async def main() -> None:
        pool = aio.Pool(url)
        held = Held()
        first = loop.start(lambda: pool.write(held))
        await until(loop, held.begun.is_set)
        closer = loop.start(pool.aclose)
        while not await refused_by(pool):
            await loop.sleep(0)
        closer.cancel()
        assert await closer.end() is CANCELLED
        held.end.set()
        assert await first.end() == 1
        await until(loop, lambda: not opened(url))

    loop.run(main)


def test_aio_write_any_mix_of_tasks_stores_exactly_what_was_told(loop, url):
    """Tasks that succeed, fail, give up and are cancelled: what returned is stored, what raised is not."""
    told: list[str] = []
    unknown: list[str] = []

    async def work(pool: aio.Pool, name: int) -> None:
        chance = random.Random(name)
        for number in range(15):
            text = f"{name} {number}"
            try:
                async with loop.within(chance.choice([0.0002, 0.002, PATIENCE])):
                    await pool.writing(timeout=chance.choice([0, 600]))(chance.choice([add, add, add_and_fail]), text)
                told.append(text)
            except TimeoutError:
                unknown.append(text)  # a cancelled one that had begun is stored
            except (LookupError, dao.PoolTimeout):
                pass

    async def main() -> None:
        async with aio.Pool(url) as pool:
            for task in [loop.start(lambda name=name: work(pool, name)) for name in range(12)]:
                await task.end()

    loop.run(main)
    rows = set(stored(url))
    assert set(told) <= rows
    assert rows <= {*told, *unknown}
