"""`dao.wait_for_change`: nothing that others commit is missed between a look and the wait, and nothing keeps it up."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

import dao
from dao import aio, configurations, engine, task_dependencies, tasks, workflow_tasks, workflows
from dao.engine.postgresql import waiting as waiting_on_server
from dao.testing import make_task, make_workflow
from tests.concurrency import CANCELLED, PATIENCE, loop, wait_for
from tests.engines import is_sqlite

__all__ = ["loop"]  # a fixture

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]
server_only = pytest.mark.parametrize("engine", ["postgresql"])

#: Longer than any test takes: who waits for so long was not woken.
LONG = 600


@pytest.fixture
def other(url) -> Iterator[Any]:
    """Another connection to the same database."""
    with contextlib.closing(dao.connect(url)) as connection:
        yield connection


@pytest.fixture
def waiting(connection) -> Any:
    """A connection that has waited before, and that nothing has happened to since."""
    assert dao.wait_for_change(connection, timeout=0) is True
    assert dao.wait_for_change(connection, timeout=0) is False
    return connection


def take_in(connection: Any) -> None:
    """Have a connection hear all that was committed so far.

    A server tells a listener in its time, after the commit has returned; whom notifies others, it tells at once.
    """
    if not is_sqlite(connection):
        engine.fetch(connection, "SELECT pg_notify('nobody', '')")


# ---------------------------------------------------------------- what is noticed


def test_first_call_for_a_connection_returns_at_once(connection, other):
    """There is no baseline yet, so that what came before is not missed; the second call has one."""
    assert dao.wait_for_change(connection, timeout=LONG) is True
    assert dao.wait_for_change(connection, timeout=0.03) is False
    assert dao.wait_for_change(other, timeout=LONG) is True


def test_change_between_two_calls_is_noticed_once(waiting, other):
    """However many changes, one call tells; the next has to wait for others."""
    for _ in range(3):
        tasks.create(other, make_task())
    take_in(waiting)
    assert dao.wait_for_change(waiting, timeout=LONG) is True
    assert dao.wait_for_change(waiting, timeout=0) is False


def test_change_that_came_during_other_statements_is_noticed(waiting, other):
    """What the driver hears while it does something else is not lost."""
    tasks.create(other, make_task())
    assert len(tasks.find(waiting).items) == 1
    configurations.set(waiting, "a", 1)
    assert dao.wait_for_change(waiting, timeout=LONG) is True


def test_change_ends_a_wait(waiting, other):
    """Whoever waits is woken by a change, long before its time is up."""
    timer = threading.Timer(0.05, tasks.create, [other, make_task()])
    timer.start()
    assert dao.wait_for_change(waiting, timeout=LONG) is True
    timer.join(PATIENCE)


def test_change_of_another_process_is_noticed(waiting, url):
    """Not only connections of this process count."""
    program = (
        "import sys, dao; from dao.testing import make_task; dao.tasks.create(dao.connect(sys.argv[1]), make_task())"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=PATIENCE)
    assert dao.wait_for_change(waiting, timeout=LONG) is True


def test_own_change_is_no_change(waiting):
    """A connection knows what it has done itself."""
    tasks.create(waiting, make_task())
    assert dao.wait_for_change(waiting, timeout=0.03) is False


def test_change_that_is_undone_is_no_change(waiting, other):
    """Nothing was committed."""
    with pytest.raises(LookupError), dao.transaction(other):  # noqa: PT012 - the block is the test
        tasks.create(other, make_task())
        raise LookupError
    take_in(waiting)
    assert dao.wait_for_change(waiting, timeout=0) is False


def test_whatever_makes_a_task_claimable_is_a_change(waiting, other):
    """Made, pending again, due at another time, no longer held by another task or by a workflow."""
    workflows.create(other, make_workflow(id="w", status="active"))
    tasks.create_many(other, [make_task(id="a"), make_task(id="b"), make_task(id="c", status="failed")])
    workflow_tasks.add(other, "w", "a")
    task_dependencies.add(other, "b", "a")
    take_in(waiting)
    assert dao.wait_for_change(waiting, timeout=0) is True

    def move() -> None:
        task = tasks.get_one(other, "a")
        with dao.transaction(other):
            engine.execute(other, "UPDATE tasks SET run_at = $1 WHERE id = $2", ("2020-01-01T00:00:00.000Z", task.id))

    for change in (
        lambda: tasks.set_status(other, "c", "pending"),
        move,
        lambda: tasks.set_status(other, "a", "completed"),
        lambda: tasks.set_status(other, "a", "pending"),
        lambda: task_dependencies.remove(other, "b", "a"),
    ):
        change()
        assert dao.wait_for_change(waiting, timeout=LONG) is True
    workflows.set_status(other, "w", "paused")
    take_in(waiting)
    dao.wait_for_change(waiting, timeout=0)
    workflows.set_status(other, "w", "active")
    assert dao.wait_for_change(waiting, timeout=LONG) is True


def test_what_makes_no_task_claimable_is_no_change_on_a_server(waiting, other):
    """A notification makes commits wait for each other: claims and ends of tasks, and other tables, send none."""
    if is_sqlite(waiting):
        configurations.set(other, "a", 1)
        assert dao.wait_for_change(waiting, timeout=LONG) is True  # any commit counts there
        return
    tasks.create_many(other, [make_task(id="a"), make_task(id="b")])
    task_dependencies.add(other, "b", "a")
    take_in(waiting)
    assert dao.wait_for_change(waiting, timeout=0) is True
    configurations.set(other, "a", 1)
    tasks.set_status(other, "a", "running")
    tasks.set_status(other, "a", "failed")
    tasks.delete(other, "b")
    take_in(waiting)
    assert dao.wait_for_change(waiting, timeout=0) is False


# ---------------------------------------------------------------- where it cannot wait


def test_wait_in_a_transaction_is_refused(waiting, other):
    """It would see the past until its end."""
    with dao.transaction(waiting), pytest.raises(dao.ConnectionBusy, match="is open"):
        dao.wait_for_change(waiting, timeout=LONG)
    tasks.create(other, make_task())
    assert dao.wait_for_change(waiting, timeout=LONG) is True
    if is_sqlite(waiting):
        for _ in range(2):
            tasks.create(other, make_task())
        cursor = waiting.execute("SELECT * FROM tasks")
        with pytest.raises(dao.ConnectionBusy, match="a cursor"):
            dao.wait_for_change(waiting, timeout=LONG)
        cursor.close()
    else:
        waiting.autocommit = False
        with pytest.raises(dao.ConnectionBusy, match="autocommit"):
            dao.wait_for_change(waiting, timeout=LONG)


@pytest.mark.sqlite_only
def test_commit_that_takes_long_without_wal_is_waited_for(tmp_path):
    """Where readers wait for a commit, this was DatabaseBusy, though nothing was wrong, and the change came then."""
    path = tmp_path / "keep.db"
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode = DELETE; CREATE TABLE notes (text TEXT)").fetchall()
    url = f"sqlite:///{path}?journal_mode=keep&busy_timeout=10"
    with contextlib.closing(dao.connect(url)) as waiting, contextlib.closing(dao.connect(url)) as other:
        assert dao.wait_for_change(waiting, timeout=0) is True
        other.execute("BEGIN EXCLUSIVE; INSERT INTO notes VALUES ('a')").fetchall()
        assert dao.wait_for_change(waiting, timeout=0.05) is False
        other.execute("COMMIT")
        assert dao.wait_for_change(waiting, timeout=LONG) is True


@pytest.mark.parametrize(("timeout", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_timeout_that_is_no_number_of_seconds_is_refused(connection, timeout, kind):
    """As everywhere."""
    with pytest.raises(kind, match="timeout"):
        dao.wait_for_change(connection, timeout=timeout)
    with pytest.raises(TypeError, match="expected a connection"):
        dao.wait_for_change("sqlite://", timeout=1)


@server_only
def test_lost_connection_is_an_error_at_once(waiting, other):
    """Nobody waits for what cannot come; on a new connection the first call returns at once."""
    pid = waiting.info.backend_pid
    timer = threading.Timer(0.05, engine.fetch, [other, "SELECT pg_terminate_backend($1)", (pid,)])
    timer.start()
    with pytest.raises(dao.ConnectionLost):
        dao.wait_for_change(waiting, timeout=LONG)
    timer.join(PATIENCE)


def test_closed_connection_is_an_error_of_its_own(waiting):
    """On a server it was said to have a transaction open, and that to end it would help."""
    waiting.close()
    with pytest.raises((dao.ConnectionLost, apsw.ConnectionClosedError), match="closed"):
        dao.wait_for_change(waiting, timeout=LONG)


@server_only
def test_pooler_is_told_of(connection, monkeypatch, caplog):
    """Behind one that lends sessions by the transaction nothing is heard: that is logged, once for a connection."""
    monkeypatch.setattr(type(connection.info), "backend_pid", property(lambda _: 1))
    with caplog.at_level(logging.WARNING, "dao"):
        for _ in range(2):
            dao.wait_for_change(connection, timeout=0)
    assert [record.getMessage().count("is behind a pooler") for record in caplog.records] == [1]


# ---------------------------------------------------------------- how it ends


@server_only
def test_connection_of_a_pool_that_waits_no_more_listens_no_more(url, other, monkeypatch):
    """It listened until it was closed, and each notification woke it; but between two waits it has to listen on."""
    listening = "SELECT count(*) FROM pg_listening_channels()"
    with dao.Pool(url, size=1) as pool:
        with pool.acquire() as connection:
            assert dao.wait_for_change(connection, timeout=LONG) is True
        pool.run(tasks.create, make_task())
        tasks.create(other, make_task())
        with pool.acquire() as connection:
            assert dao.wait_for_change(connection, timeout=LONG) is True  # it has listened on
            assert dao.wait_for_change(connection, timeout=0) is False
        monkeypatch.setattr(waiting_on_server, "LISTENS_ON", 0)
        with pool.acquire() as connection:
            assert connection.execute(listening).fetchone() == (1,)
        with pool.acquire() as connection:
            assert connection.execute(listening).fetchone() == (0,)
            assert dao.wait_for_change(connection, timeout=LONG) is True  # it begins anew, so that nothing is missed
            assert dao.wait_for_change(connection, timeout=0) is False


def test_interruption_ends_a_wait(waiting, other):
    """The wait ends with an error, and the connection goes on."""
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(0.02):
            engine.interrupt(waiting)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(dao.OperationalError, match="interrupted"):
            dao.wait_for_change(waiting, timeout=LONG)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert engine.reset(waiting)
    tasks.create(other, make_task())
    assert dao.wait_for_change(waiting, timeout=LONG) is True


def test_closing_a_pool_ends_a_wait(url):
    """A pool that shuts down does not wait for who waits."""
    outcomes: list[Any] = []
    begun = threading.Event()

    def wait() -> None:
        with contextlib.suppress(dao.PoolClosed), pool.acquire() as connection:
            dao.wait_for_change(connection, timeout=0)
            begun.set()
            try:
                outcomes.append(dao.wait_for_change(connection, timeout=LONG))
            except dao.OperationalError as error:
                outcomes.append(str(error))

    pool = dao.Pool(url)
    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(PATIENCE)
    wait_for(lambda: pool.close(timeout=0.2))
    thread.join(PATIENCE)
    assert "interrupted" in outcomes[0]


def test_async_wait_is_woken_and_cancelled(loop, url, other):
    """In async code a wait runs in the connection's thread; a cancellation ends it, and the connection goes on."""

    async def main() -> None:
        connection = await aio.connect(url)
        assert await aio.run(connection, dao.wait_for_change, timeout=LONG) is True
        timer = threading.Timer(0.05, tasks.create, [other, make_task()])
        timer.start()
        assert await aio.run(connection, dao.wait_for_change, timeout=LONG) is True
        task = loop.start(lambda: aio.run(connection, dao.wait_for_change, timeout=LONG))
        await loop.sleep(0.05)
        task.cancel()
        assert await task.end() == CANCELLED
        assert await aio.run(connection, dao.wait_for_change, timeout=0) is False
        await connection.aclose()

    loop.run(main)
