"""What a PostgreSQL server refuses or ends by itself: timeouts, deadlocks, conflicts, a full disk, a standby."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

import dao
from dao import Task, TaskStatus, engine, tasks
from dao.testing.server import database_of
from dao.url import parse
from tests.concurrency import PATIENCE, Worker, locked
from tests.databases import migrate
from tests.engines import run_out_of_time, wait_for_end
from tests.servers import NOBODY, Server


def new(title: str = "a") -> Task:
    return Task(title=title, task_type="agent")


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated, empty database."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        yield connection


# ---------------------------------------------------------------- timeouts


def test_statement_timeout_undoes_the_transaction_and_leaves_the_connection(connection):
    """A statement that takes too long is told as that, and its transaction is undone; the connection goes on."""

    def slow(connection: Any) -> None:
        tasks.create(connection, new())
        run_out_of_time(connection)

    with pytest.raises(dao.OperationalError, match="statement timeout"):
        dao.run_in_transaction(connection, slow)
    assert tasks.count(connection) == 0
    tasks.create(connection, new())
    assert tasks.count(connection) == 1


def test_lock_timeout_is_busy_and_replayed(postgresql_url):
    """Who waits for a lock for longer than the busy timeout is told so, and a replay has it when it is free."""
    impatient = attrs.evolve(parse(postgresql_url), busy_timeout=30)
    with contextlib.closing(dao.connect(impatient)) as connection:
        with locked(postgresql_url):
            with pytest.raises(dao.DatabaseBusy, match="keeps a lock"):
                tasks.create(connection, new())
            worker = Worker(dao.run_in_transaction, connection, tasks.create, new())
            time.sleep(0.1)
            assert worker.is_alive()
        worker.end()
        assert tasks.count(connection) == 1


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout", "transaction_timeout"])
@pytest.mark.parametrize("then", ["statement", "commit"])
def test_transaction_that_the_server_ends_is_lost_and_replayed(postgresql_url, connection, setting, then):
    """A server that ends a session in the middle of a transaction has stored nothing of it: that is told, and replayed.

    At the commit, too: it is looked whether the connection is there before anything is sent that leaves a doubt.
    """
    if setting == "transaction_timeout" and connection.info.server_version < 170000:
        setting = "idle_in_transaction_session_timeout"
    tries: list[int] = []

    def slow(given: Any) -> None:
        tries.append(given.info.backend_pid)
        tasks.create(given, new())
        if len(tries) == 1:
            given.execute(f"SET LOCAL {setting} = 20")
            wait_for_end(connection, tries[0])
        if then == "statement":
            tasks.create(given, new())

    with contextlib.closing(dao.connect(postgresql_url)) as other:
        with pytest.raises(dao.ConnectionLost, match="nothing of the transaction is stored"):
            dao.run_in_transaction(other, slow)
        assert tasks.count(connection) == 0
    tries.clear()
    with dao.Pool(postgresql_url, timeout=PATIENCE) as pool:
        dao.run_in_transaction(pool, slow)
    assert len(tries) == 2
    assert tasks.count(connection) == (2 if then == "statement" else 1)


# ---------------------------------------------------------------- conflicts


def test_deadlock_is_replayed(postgresql_url, connection):
    """Of two transactions that wait for each other the server ends one, which is replayed: both are stored."""
    first, second = new("first"), new("second")
    tasks.create_many(connection, [first, second])
    met = threading.Barrier(2)
    tries: list[str] = []

    def swap(given: Any, one: Task, other: Task) -> None:
        tries.append(one.title)
        tasks.set_status(given, one.id, TaskStatus.RUNNING)
        if tries.count(one.title) == 1:
            met.wait(PATIENCE)
        tasks.set_status(given, other.id, TaskStatus.RUNNING)

    with dao.Pool(postgresql_url, timeout=PATIENCE) as pool:
        workers = [
            Worker(dao.run_in_transaction, pool, swap, first, second),
            Worker(dao.run_in_transaction, pool, swap, second, first),
        ]
        for worker in workers:
            worker.end()
        assert pool.stats().recycled == 0
    assert len(tries) > 2
    assert tasks.count(connection, status="running") == 2


def test_serialization_failure_is_replayed(postgresql_url):
    """Transactions that do not serialise are busy, wherever it turns out, and replayed until they do."""
    with dao.Pool(postgresql_url, size=4, timeout=PATIENCE) as pool:

        def count_and_add(given: Any) -> None:
            given.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            number = tasks.count(given)
            tasks.create(given, new(str(number)))

        def work() -> None:
            for _ in range(5):
                dao.replaying(deadline=PATIENCE)(pool, count_and_add)

        for worker in [Worker(work) for _ in range(4)]:
            worker.end()
        with pool.acquire() as connection:
            assert sorted(int(task.title) for task in tasks.iter_all(connection)) == list(range(20))


# ---------------------------------------------------------------- a full disk


MOUNTS = os.geteuid() == 0 and sys.platform == "linux" and shutil.which("mount")
needs_mount = pytest.mark.skipif(not MOUNTS, reason="a small file system needs root, and Linux")


@pytest.fixture
def small() -> Iterator[Path]:
    """A folder that holds 16 MB, where the server's user may write."""
    folder = Path(tempfile.mkdtemp(prefix="dao-", dir="/tmp"))
    folder.chmod(0o755)
    small = folder / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], capture_output=True, text=True, check=False
    )
    try:
        if done.returncode:
            pytest.skip(f"no mounts here: {done.stderr.strip()}")
        yield small
        subprocess.run(["umount", small], check=True)
    finally:
        shutil.rmtree(folder)


def test_error_of_a_full_disk_is_disk_full(connection):
    """The code of a full disk is `DiskFull`, and nothing of the transaction is stored."""

    def write(connection: Any) -> None:
        tasks.create(connection, new())
        engine.execute(
            connection, "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )

    with pytest.raises(dao.DiskFull, match="no room left to write"):
        dao.run_in_transaction(connection, write)
    assert tasks.count(connection) == 0


@needs_mount
def test_disk_of_the_server_that_is_full_is_disk_full_until_there_is_room(small):
    """A tablespace without room: writes are told so and undone, reads go on, and with room so do writes."""
    # it takes the file away that the next connection writes anew, and that one is refused where there is no room
    with Server(autovacuum="off") as server:
        shutil.chown(small, NOBODY)
        with psycopg.connect(server.url("postgres"), autocommit=True) as administration:
            administration.execute(f"CREATE TABLESPACE small LOCATION '{small}'")
            administration.execute("CREATE DATABASE full_one TEMPLATE template0 TABLESPACE small")
        url = database_of(server.url("postgres"), "full_one")
        migrate(url)
        filler = small / "filler"
        filler.write_bytes(bytes(2**22))
        large = [new("x" * 500) for _ in range(20_000)]
        with dao.Pool(url, size=1, timeout=PATIENCE) as pool:
            dao.run_in_transaction(pool, tasks.create, new("before"))
            for write in (pool.write, functools.partial(dao.run_in_transaction, pool)):
                with pytest.raises(dao.DiskFull, match=r"no room left to write .*the write was undone"):
                    write(tasks.create_many, large)
                assert dao.run_in_transaction(pool, tasks.count) == 1
            assert pool.health().ok
            filler.unlink()
            dao.run_in_transaction(pool, tasks.create, new("after"))
            assert dao.run_in_transaction(pool, tasks.count) == 2


# ---------------------------------------------------------------- a standby


def test_database_that_is_read_only_is_told_and_its_connection_replaced(postgresql_url):
    """A server that writes nothing says so; no connection to it is lent again, for another may be the primary."""

    def become_read_only(connection: Any) -> None:
        connection.execute("SET default_transaction_read_only = on")

    with dao.Pool(postgresql_url, size=1, timeout=PATIENCE) as pool:
        for write in (tasks.create, lambda connection, task: tasks.create_many(connection, [task])):
            with pool.acquire() as connection:
                become_read_only(connection)
            with pytest.raises(dao.ReadOnlyDatabase, match="target_session_attrs=read-write"), pool.acquire() as lent:
                write(lent, new())
        assert pool.stats().recycled == 2
        dao.run_in_transaction(pool, tasks.create, new())


def test_standby_serves_reads_and_refuses_writes():
    """A server in recovery answers reads, is healthy, and tells whoever writes that it is read-only."""
    with Server() as server:
        migrate(server.url("postgres"))
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        with dao.Pool(server.url("postgres"), timeout=PATIENCE) as pool:
            assert dao.run_in_transaction(pool, tasks.count) == 0
            assert pool.health().ok
            for write in (dao.run_in_transaction, lambda pool, *call: pool.write(*call)):
                with pytest.raises(dao.ReadOnlyDatabase, match="it is a standby"):
                    write(pool, tasks.create, new())
