"""Pools on PostgreSQL: a server that ends connections, is restarted or does not answer, and forks beside one."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import dao
from dao import aio, engine, tasks
from dao.engine.postgresql import interruption, loss
from tests.concurrency import CANCELLED, PATIENCE, Worker, locked, loop, run_patiently, until, wait_for

__all__ = ["loop"]  # a fixture
from tests.databases import migrate
from tests.engines import terminate, wait_for_end, wait_for_waiter
from tests.fault.forks import FORKING
from tests.servers import Server, stopped
from tests.transactions import add


def pid_of(connection: Any) -> int:
    return connection.info.backend_pid


@pytest.fixture
def pool(postgresql_url: str) -> Iterator[dao.Pool]:
    """A pool of two connections."""
    with dao.Pool(postgresql_url, size=2, timeout=PATIENCE) as pool:
        yield pool


# ---------------------------------------------------------------- lending


def test_acquire_connection_that_the_server_closed_is_replaced(postgresql_url, pool):
    """An idle connection whose backend was ended is not lent: its first statement would fail for no fault of ours."""
    with pool.acquire() as connection:
        ended = pid_of(connection)
    terminate(postgresql_url, ended)
    with pool.acquire() as connection:
        assert pid_of(connection) != ended
        add(connection)
    stats = pool.stats()
    assert (stats.acquired, stats.recycled, stats.idle) == (2, 1, 1)


def test_acquire_connection_that_idle_session_timeout_ended_is_replaced(postgresql_url, pool):
    """A server that ends idle sessions makes no call fail."""
    with pool.acquire() as connection:
        connection.execute("SET idle_session_timeout = 1")
        ended = pid_of(connection)
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        wait_for_end(other, ended)
    with pool.acquire() as connection:
        add(connection)
    assert pool.stats().recycled == 1


def test_acquire_connection_whose_time_is_up_is_replaced(monkeypatch, pool):
    """A connection of an hour is one to a server that another may have taken the place of."""
    with monkeypatch.context() as patched:
        patched.setattr(loss, "_LIFETIME", 0.0)
        with pool.acquire() as connection:
            old = pid_of(connection)
    with pool.acquire() as connection:
        young = pid_of(connection)
    with pool.acquire() as connection:
        assert pid_of(connection) == young != old
    assert pool.stats().recycled == 1


def test_release_connection_that_is_in_autocommit_mode_no_more_is_replaced(pool):
    """In another mode nothing that the next holder writes would be committed, and no error said so."""
    with pool.acquire() as connection:
        connection.autocommit = False
        connection.execute("SELECT 1")
    with pool.acquire() as connection:
        add(connection)
    with pool.acquire() as connection:
        assert tasks.count(connection) == 1
    assert pool.stats().recycled == 1


@pytest.mark.parametrize(
    ("error", "recycled"),
    [
        (dao.DatabaseBusy("a"), 0),
        (dao.UniqueViolation("a"), 0),
        (dao.ReadOnlyDatabase("a"), 1),
        (dao.ConnectionLost("a"), 1),
        (dao.CommitUnknown("a"), 1),
        (psycopg.OperationalError("a"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_release_after_an_error_keeps_or_replaces_the_connection(pool, error, recycled):
    """As on SQLite, but for a server that writes nothing: the next connection may find the one that does."""
    with pytest.raises(type(error)), pool.acquire():
        raise error
    assert pool.stats().recycled == recycled


def test_acquire_database_that_does_not_exist_is_refused_at_once(postgresql_url):
    """What no second try can mend is told at once, though the pool's timeout is long, and takes no place."""
    path, _, parameters = postgresql_url.partition("?")
    with dao.Pool(f"{path.rpartition('/')[0]}/nowhere?{parameters}", timeout=600) as pool:
        with pytest.raises(dao.OperationalError, match='"nowhere" does not exist') as caught, pool.acquire():
            pytest.fail("there is no such database")
        assert type(caught.value) is dao.OperationalError
        assert (pool.stats().active, pool.stats().acquired) == (0, 0)


@pytest.mark.parametrize(
    "parameter",
    [
        "target_session_attrs=nix",
        "sslnegotiation=nix",
        "ssl_min_protocol_version=nix",
        "channel_binding=nix",
        "port=65536",
        "requirepeer=nobody-here",
        "service=nix",
        "options=-c%20nix",
        "options=-c%20nix%3D1",
        "options=-c%20work_mem%3Dnix",
    ],
)
def test_acquire_with_a_parameter_that_means_nothing_is_refused_at_once(postgresql_url, parameter):
    """It used to count as a server that is not there, which was tried until the timeout."""
    url = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}{parameter}"
    with dao.Pool(url, timeout=600) as pool, pytest.raises(dao.OperationalError) as caught, pool.acquire():
        pytest.fail("it means nothing")
    assert type(caught.value) is dao.OperationalError


# ---------------------------------------------------------------- a pooler


@pytest.fixture
def pooler_url(postgresql_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of the database behind what tells, as a pooler does, another process id than the server's."""
    with psycopg.connect(postgresql_url) as connection:
        given = connection.info
        place = given.host, given.port, given.user, given.dbname
    host, port, user, name = place
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / ".s.PGSQL.5432"))
    listener.listen()
    key = re.compile(rb"(K\0\0\0.)....", re.DOTALL)

    def serve() -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            while True:
                client = opened.enter_context(listener.accept()[0])
                if host.startswith("/"):
                    server = opened.enter_context(socket.socket(socket.AF_UNIX))
                    server.connect(f"{host}/.s.PGSQL.{port}")
                else:
                    server = opened.enter_context(socket.create_connection((host, port)))
                threading.Thread(target=relay, args=[client, server], daemon=True).start()
                threading.Thread(target=relay, args=[server, client, key], daemon=True).start()

    def relay(source: socket.socket, target: socket.socket, key: re.Pattern[bytes] | None = None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if key and key.search(data):
                    data, key = key.sub(lambda found: found[1] + b"\0\0\0\7", data, count=1), None
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"postgresql://{user}@/{name}?host={quote(str(tmp_path), safe='')}&sslmode=disable"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


@pytest.mark.parametrize("again", [None, 5])
def test_pool_behind_a_pooler_prepares_no_statement(postgresql_url, pooler_url, again):
    """The next transaction may have a session of the server without it: every second one failed behind PgBouncer.

    Where the pooler keeps prepared statements, `prepare=` turns them on again.
    """

    def prepare(connection: Any) -> None:
        if again is not None:
            connection.prepare_threshold = again

    for url, expected in ((pooler_url, again), (postgresql_url, 5)):
        with dao.Pool(url, size=1, prepare=prepare) as pool, pool.acquire() as connection:
            assert connection.prepare_threshold == expected
            for _ in range(10):
                tasks.count(connection)
            (number,) = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            assert bool(number) == (expected is not None)


# ---------------------------------------------------------------- a server that is not there


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    """A server of one's own, to stop and to kill, whose database `postgres` has the tables."""
    with Server() as server:
        migrate(server.url("postgres"))
        yield server


@pytest.fixture
def restartable(_server: Server) -> Server:
    """A server of one's own that runs, and whose tables are empty."""
    _server.start()
    with psycopg.connect(_server.url("postgres"), autocommit=True) as connection:
        connection.execute("TRUNCATE tasks CASCADE")
    return _server


def test_acquire_while_the_server_is_down_waits_for_it(restartable):
    """A restart of the server is no error for whoever can wait; each connection from before is replaced."""
    with dao.Pool(restartable.url("postgres"), timeout=PATIENCE) as pool:
        with pool.acquire() as one, pool.acquire() as other:
            add(one)
            add(other)
        restartable.stop()
        worker = Worker(run_patiently, pool, tasks.count)
        time.sleep(0.2)
        assert worker.is_alive()
        restartable.start()
        assert worker.end() == 2
        with pool.acquire() as one, pool.acquire() as other:
            assert tasks.count(one) == tasks.count(other) == 2


def test_server_that_is_down_is_told_within_the_timeout(restartable):
    """Whoever cannot wait is told that no server was reached; so is a health check, at once; no place is taken."""
    with (
        dao.Pool(restartable.url("postgres"), timeout=0.2) as pool,
        dao.Pool(restartable.url("postgres"), timeout=600) as patient,
    ):
        restartable.stop()
        for call in (
            pool.acquire().__enter__,
            pool.acquire(timeout=0).__enter__,
            lambda: dao.replaying(deadline=0.2)(patient, tasks.count),
        ):
            with pytest.raises(dao.ConnectionLost, match="cannot connect to postgresql://"):
                call()
        health = patient.health(timeout=600)
        assert (health.ok, health.kind, patient.stats().active, pool.stats().active) == (False, "ConnectionLost", 0, 0)


def test_close_while_the_server_is_down_ends_who_waits_for_it(restartable):
    """A pool that is closed does not go on looking for its server."""
    pool = dao.Pool(restartable.url("postgres"), timeout=600)
    restartable.stop()
    worker = Worker(pool.acquire().__enter__)
    wait_for(lambda: pool.stats().active == 1)
    assert pool.close(timeout=PATIENCE) is True
    with pytest.raises(dao.PoolClosed):
        worker.end()


def test_health_of_a_server_that_does_not_answer_is_false_in_time(pool):
    """A server that is there and says nothing is not healthy: the probe used to wait for its answer, for ever."""
    with pool.acquire() as connection:
        pass
    assert pool.health().ok
    with stopped(connection):
        health = pool.health(timeout=0.1)
        assert (health.ok, health.kind) == (False, "ConnectionLost")
    assert pool.health().ok
    assert (pool.stats().active, pool.stats().recycled) == (0, 1)


# ---------------------------------------------------------------- forks

PRELUDE = f"""{FORKING}
import asyncio
import dao
from dao import aio, engine

url = sys.argv[1]
"""


def run(url: str, code: str) -> list[str]:
    """Run a program after the prelude, and return the lines that it printed."""
    command = [sys.executable, "-c", PRELUDE + code, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


USES = {
    "a statement": "add(connection)",
    "rows": "tasks.count(connection)",
    "transaction": "dao.transaction(connection).__enter__()",
    "replayed": "dao.run_in_transaction(connection, add)",
    "many": "tasks.create_many(connection, [])",
    "asynchronous": "asyncio.run(aio.run(asynchronous, tasks.count))",
}
REFUSED = "OperationalError, way out"


def test_fork_child_uses_nothing_of_its_parents(postgresql_url):
    """A connection of the parent's is refused in the child, which ends as Python does; the parent's goes on.

    Both wrote to one socket, and each read the other's answers.
    """
    code = f"""
connection = dao.connect(url)
asynchronous = asyncio.run(aio.connect(url))
pool = dao.Pool(url)
pool.write(add, "before")
def each():
    for name, use in {USES}.items():
        told(name, lambda: eval(use))
    told("pool", lambda: pool.acquire().__enter__())
    told("write", lambda: pool.write(add))
    with dao.Pool(url) as own, own.acquire() as lent:
        add(lent, "of the child")
child("all", each)
add(connection, "after")
pool.write(add, "after, in the pool")
print(tasks.count(connection))
connection.close()
pool.close()
asynchronous.close()
"""
    expected = [*(f"{name}: {REFUSED}" for name in USES), "pool: PoolClosed, way out", "write: PoolClosed, way out"]
    assert run(postgresql_url, code) == [*expected, "all: done", "4"]


def test_fork_in_a_transaction_leaves_it_to_the_parent(postgresql_url):
    """A child that leaves the block, well or badly, neither commits nor undoes what its parent began."""
    code = """
connection = dao.connect(url)
block = dao.transaction(connection)
block.__enter__()
add(connection)
child("commit", lambda: block.__exit__(None, None, None))
child("roll back", lambda: block.__exit__(KeyError, KeyError("a"), None))
child("close", connection.close)
add(connection)
block.__exit__(None, None, None)
print(tasks.count(connection))
connection.close()
"""
    assert run(postgresql_url, code) == [f"commit: {REFUSED}", "roll back: done", "close: done", "2"]


# ---------------------------------------------------------------- cancelled tasks


def test_run_cancelled_meets_no_statement_but_its_own(monkeypatch, loop, postgresql_url):
    """The server is asked to cancel on another connection: it must not do so when the next call is running already."""
    monkeypatch.setattr(interruption, "_CANCEL_TIMEOUT", PATIENCE)  # a busy one may take its time
    chance = random.Random(1)

    async def main() -> None:
        connection = await aio.connect(postgresql_url)
        for _ in range(60):
            task = loop.start(lambda: aio.run(connection, engine.fetch, "SELECT pg_sleep(0.003)"))
            after = loop.start(lambda: aio.run(connection, engine.fetch, "SELECT $1, pg_sleep(0.002)", ("next",)))
            await loop.sleep(chance.uniform(0, 0.005))
            task.cancel()
            assert await task.end() in (CANCELLED, [("",)])
            assert await after.end() == [("next", "")]
        await connection.aclose()

    loop.run(main)


def test_run_cancelled_on_a_server_that_does_not_answer_gives_up(monkeypatch, loop, postgresql_url):
    """A statement that the server does not cancel in time is broken off with its connection, which is replaced."""
    monkeypatch.setattr(interruption, "_CANCEL_TIMEOUT", 0.2)

    begun = threading.Event()

    def ask(connection: Any) -> None:
        begun.set()
        engine.fetch(connection, "SELECT pg_sleep(600)")

    async def main() -> None:
        async with aio.Pool(postgresql_url, size=1) as pool:
            async with pool.acquire() as connection:
                plain = connection.plain
            with stopped(plain):
                task = loop.start(lambda: pool.run(ask))
                await until(loop, begun.is_set)
                await loop.sleep(0.05)
                task.cancel()
                assert await task.end() is CANCELLED
            await pool.run(add)
            assert (pool.stats().recycled, pool.stats().active) == (1, 0)

    loop.run(main)


def test_interruption_that_the_server_takes_late_hits_no_later_statement(monkeypatch, restartable):
    """A request for which nobody waited any longer was with the server, and ended what ran as that came to it."""
    monkeypatch.setattr(interruption, "_CANCEL_TIMEOUT", 0.1)
    with dao.Pool(restartable.url("postgres"), size=1, timeout=PATIENCE) as pool:
        with pool.acquire() as connection:
            worker = Worker(engine.fetch, connection, "SELECT pg_sleep(1)")
            wait_for(lambda: connection.pgconn.transaction_status == TransactionStatus.ACTIVE)
            os.kill(restartable.pid, signal.SIGSTOP)  # it takes no request, and its sessions go on
            try:
                engine.interrupt(connection)
                with contextlib.suppress(dao.ConnectionLost):
                    worker.end()
            finally:
                os.kill(restartable.pid, signal.SIGCONT)
        with pool.acquire() as connection:
            assert engine.fetch(connection, "SELECT pg_sleep(0.5)") == [("",)]


def test_aio_run_in_transaction_replays_on_another_connection(loop, postgresql_url):
    """A connection that is lost before the commit is replaced, and the function begins anew; it is stored once."""
    tries: list[int] = []

    def once(connection: Any, title: str) -> str:
        tries.append(pid_of(connection))
        add(connection, title)
        if len(tries) == 1:
            terminate(postgresql_url, tries[0])
        return title

    async def main() -> None:
        async with aio.Pool(postgresql_url, size=1) as pool:
            assert await pool.run_in_transaction(once, "kept") == "kept"
            assert (len(set(tries)), await pool.run(tasks.count), pool.stats().active) == (2, 1, 0)
            with pytest.raises(LookupError):
                await pool.run_in_transaction(lambda connection: (add(connection), {}["a"]))
            assert await pool.run(tasks.count) == 1

    loop.run(main)


def test_aio_run_in_transaction_while_the_server_is_down_waits_for_it(loop, restartable):
    """A restart of the server is no error for a task that can wait."""

    async def main() -> None:
        async with aio.Pool(restartable.url("postgres"), timeout=PATIENCE) as pool:
            await pool.run(add)
            restartable.stop()
            task = loop.start(lambda: pool.run_in_transaction(tasks.count))
            await loop.sleep(0.2)
            assert not task.done
            restartable.start()
            assert await task.end() == 1

    loop.run(main)


def test_cancellation_by_the_process_end_reaches_the_server(postgresql_url):
    """A statement of a process that ends does not go on at the server: that would notice when it has the result."""
    code = """
async def main():
    global connection, task
    connection = await aio.connect(url)
    task = asyncio.ensure_future(aio.run(connection, engine.fetch, "SELECT pg_sleep(600)"))
    await asyncio.sleep(0.2)
forsaken = asyncio.new_event_loop()
forsaken.run_until_complete(main())
"""
    assert run(postgresql_url, code) == []
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        sleeping = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        wait_for(lambda: not other.execute(sleeping).fetchone())


def test_close_of_a_pool_interrupts_what_waits_for_a_lock(postgresql_url):
    """Whoever waits for a lock as the pool is closed is interrupted, too, and nothing of it is stored."""
    pool = dao.Pool(postgresql_url, timeout=PATIENCE)
    with locked(postgresql_url):
        worker = Worker(dao.run_in_transaction, pool, add)
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            wait_for_waiter(other)
        wait_for(lambda: pool.close(timeout=0.01))
        with pytest.raises(dao.OperationalError, match="canceling statement"):
            worker.end()
