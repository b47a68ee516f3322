"""A standby takes over from its primary under load: what was acknowledged is there, and the program goes on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import quote, urlencode

import attrs
import pytest

import dao
from dao import Task, migrate, tasks
from tests.concurrency import PATIENCE
from tests.servers import Server, Standby

THREADS = 4


@pytest.fixture
def pair() -> Iterator[tuple[Server, Standby]]:
    """A primary that answers a commit when its standby shows it, and that standby."""
    with Server(fsync="on", synchronous_commit="remote_apply") as primary:
        migrate.apply(primary.url("postgres"))
        with Standby(primary, synchronous_commit="remote_apply") as standby:
            with dao.connect(primary.url("postgres")) as connection:
                # after the copy was made: the standby, once promoted, would wait for itself
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
                connection.execute("SELECT pg_reload_conf()")
                wait_for(connection, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
            yield primary, standby


def wait_for(connection: Any, sql: str) -> None:
    """Wait until a statement says 1."""
    deadline = time.monotonic() + PATIENCE
    while connection.execute(sql).fetchone()[0] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def url_of(*servers: Server) -> str:
    """Return a URL of several hosts, by which a program finds the one that can be written to."""
    hosts = ",".join(str(server.folder) for server in servers)
    parameters = {"host": hosts, "target_session_attrs": "read-write"}
    return f"postgresql://postgres@/postgres?{urlencode(parameters, quote_via=quote)}"


@attrs.define
class Load:
    """Threads that store tasks and change them, each with its connection of a pool, for as long as they may."""

    pool: dao.Pool
    stop: threading.Event = attrs.Factory(threading.Event)
    #: When each task was acknowledged, by its id, and those of which nobody knows.
    acknowledged: dict[str, float] = attrs.Factory(dict)
    unknown: set[str] = attrs.Factory(set)
    threads: list[threading.Thread] = attrs.Factory(list)

    def run(self) -> None:
        """Do it until it is to stop, whatever happens to the server."""
        while not self.stop.is_set():
            task = Task(title="Fail over", task_type="test")
            try:
                dao.run_in_transaction(self.pool, work, task)
                self.acknowledged[task.id] = time.monotonic()
            except dao.CommitUnknown:
                self.unknown.add(task.id)
            except (dao.ConnectionLost, dao.PoolTimeout, dao.ReadOnlyDatabase):
                time.sleep(0.01)

    def __enter__(self) -> Self:
        self.threads += [threading.Thread(target=self.run) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def await_more(self, number: int) -> None:
        """Wait until so many more were acknowledged."""
        wanted, deadline = len(self.acknowledged) + number, time.monotonic() + PATIENCE
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def work(connection: Any, task: Task) -> None:
    """Store a task, and change it."""
    tasks.create(connection, task)
    tasks.set_status(connection, task.id, "running")


@pytest.mark.slow
def test_failover_loses_no_acknowledged_write(pair):
    """The primary is killed under load, and its standby promoted: the pool finds it, and all that it said is there."""
    primary, standby = pair
    with dao.Pool(url_of(primary, standby), size=THREADS, timeout=PATIENCE) as pool:
        with Load(pool) as load:
            load.await_more(200)
            primary.kill()
            standby.promote()
            load.await_more(200)
        moments = sorted(load.acknowledged.values())
        gap = max(later - earlier for earlier, later in itertools.pairwise(moments))
        with pool.acquire() as connection:
            stored = dict(connection.execute("SELECT id, status FROM tasks").fetchall())
    print(f"{len(moments)} acknowledged, {len(load.unknown)} unknown, gap {gap:.2f} s")  # noqa: T201 - pytest -s
    assert set(load.acknowledged) <= set(stored)
    assert set(stored) <= set(load.acknowledged) | load.unknown
    assert set(stored.values()) == {"running"}
    # each thread had one on its way, at the most
    assert len(load.unknown) <= THREADS


@pytest.mark.slow
def test_standby_serves_reads_and_refuses_writes(pair):
    """A URL that prefers a standby reads there what was just acknowledged; a write is refused, and says why."""
    primary, standby = pair
    task = Task(title="Read it there", task_type="test")
    with dao.connect(primary.url("postgres")) as connection:
        tasks.create(connection, task)
    reading = url_of(primary, standby).replace("read-write", "prefer-standby")
    with dao.Pool(reading) as pool, pool.acquire() as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        assert tasks.get(connection, task.id) == task
        with pytest.raises(dao.ReadOnlyDatabase, match="connect to the primary"):
            tasks.set_status(connection, task.id, "running")
        assert pool.health().ok


@pytest.mark.slow
def test_standby_that_is_gone_holds_commits_up(pair):
    """A commit waits for a standby that does not answer; no timeout ends it, and nothing is lost when it is back.

    PostgreSQL says of one that is cancelled that it is committed here, and perhaps nowhere else.
    """
    primary, standby = pair
    standby.stop()
    ended = threading.Event()
    task = Task(title="Wait", task_type="test")

    def write() -> None:
        with dao.connect(primary.url("postgres") + "&options=-c%20statement_timeout%3D200") as connection:
            tasks.create(connection, task)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not ended.wait(1.0)
    with dao.connect(primary.url("postgres")) as connection:
        assert not tasks.exists(connection, task.id)
        standby.start()
        writer.join(PATIENCE)
        assert ended.is_set()
        assert tasks.exists(connection, task.id)
