"""A server that is lost while it works: each phase of a statement, a restart, kill -9, a statement that takes too long.

Whatever a call returned is stored; whatever raised `ConnectionLost` is not; `CommitUnknown` is told where nobody knows.
"""

# A block in which something raises is what is tested here, so it has more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import psycopg
import pytest

import dao
from dao import Task, configurations, tasks
from dao.engine import fetch
from tests.concurrency import PATIENCE, run_patiently, stored, wait_for
from tests.databases import migrate
from tests.engines import run_out_of_time
from tests.proxy import Proxy
from tests.servers import Server, Unavailable

NEW = "new"
STAYS = "stays"


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    """A proxy in front of a database that holds one task."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        tasks.create(connection, Task(id=STAYS, title="stays", task_type="agent"))
    with Proxy(postgresql_url) as proxy:
        yield proxy


def task(id: str = NEW) -> Task:
    return Task(id=id, title="new", task_type="agent")


def alone(connection: Any) -> None:
    """One statement, which is a transaction."""
    tasks.create(connection, task())


def change(connection: Any) -> None:
    """One statement that gives its row back."""
    tasks.set_status(connection, STAYS, "running")


def block(connection: Any) -> None:
    """Two statements in one transaction."""
    with dao.transaction(connection):
        tasks.create(connection, task("another"))
        tasks.create(connection, task())


def nested(connection: Any) -> None:
    """A savepoint in a transaction."""
    with dao.transaction(connection):
        tasks.create(connection, task("another"))
        with dao.transaction(connection):
            tasks.create(connection, task())


def many(connection: Any) -> None:
    """Rows in a COPY."""
    tasks.create_many(connection, [task("another"), task()])


def read(connection: Any) -> None:
    """A statement that writes nothing."""
    tasks.get(connection, STAYS)


# what is done, at which words the connection is lost, the error, and whether it is stored if the server heard them
PHASES: list[tuple[Callable[[Any], None], str, type[dao.Error], bool]] = [
    (alone, "INSERT INTO tasks", dao.CommitUnknown, True),
    (change, "UPDATE tasks", dao.CommitUnknown, True),
    (read, "SELECT", dao.ConnectionLost, False),
    (block, "BEGIN", dao.ConnectionLost, False),
    (block, "INSERT INTO tasks", dao.ConnectionLost, False),
    (block, NEW, dao.ConnectionLost, False),
    (block, "COMMIT", dao.CommitUnknown, True),
    (nested, "SAVEPOINT", dao.ConnectionLost, False),
    (nested, "RELEASE", dao.ConnectionLost, False),
    (nested, "COMMIT", dao.CommitUnknown, True),
    (many, "COPY tasks", dao.ConnectionLost, False),
    (many, "another", dao.ConnectionLost, False),
    (many, "COMMIT", dao.CommitUnknown, True),
]


# in this order a sample of one in two has each phase, and each side
LOSSES = [(*phase, side) for side in ("before", "after") for phase in PHASES]
LOSSES.remove((many, "another", dao.ConnectionLost, False, "after"))  # before the end of a COPY nothing is answered


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("do", "said", "error", "is_commit", "side"),
    LOSSES,
    ids=[f"{do.__name__}, {side} {said}" for do, said, _, _, side in LOSSES],
)
def test_connection_lost_in_each_phase_tells_what_is_stored(proxy, postgresql_url, do, said, error, is_commit, side):
    """Only where a commit was not answered nobody knows; in every other phase nothing is stored, and that is told."""
    with (
        contextlib.closing(dao.connect(proxy.url)) as connection,
        contextlib.closing(dao.connect(postgresql_url)) as look,
    ):
        proxy.lose(side, said)
        with pytest.raises(error, match="connection") as caught:
            do(connection)
        assert type(caught.value) is error
        assert proxy.lost == 1
        happened = tasks.exists(look, NEW) if do is not change else tasks.get_one(look, STAYS).status == "running"
        assert happened is (is_commit and side == "after")
        with pytest.raises(dao.ConnectionLost):  # and it is told again
            read(connection)


def test_connection_lost_where_its_owner_commits_stores_nothing(proxy, postgresql_url):
    """A statement of a connection that is not in autocommit mode commits nothing, and is safe to repeat."""
    with contextlib.closing(dao.connect(proxy.url)) as connection:
        connection.autocommit = False
        proxy.lose("after", "INSERT INTO tasks")
        with pytest.raises(dao.ConnectionLost, match="nothing of the transaction is stored"):
            alone(connection)
        assert proxy.lost == 1
    assert stored(postgresql_url) == 1


@pytest.mark.parametrize("side", ["before", "after"])
def test_connection_lost_in_the_rollback_raises_what_made_it_roll_back(proxy, postgresql_url, side):
    """The server undoes the transaction of a connection that is lost: there is nothing more to say."""
    with contextlib.closing(dao.connect(proxy.url)) as connection:
        proxy.lose(side, "ROLLBACK")
        with pytest.raises(LookupError, match="of the caller"), dao.transaction(connection):
            tasks.create(connection, task())
            raise LookupError("of the caller")
        assert proxy.lost == 1
    assert stored(postgresql_url) == 1


@pytest.mark.parametrize(("said", "attempts"), [("BEGIN", 1), ("INSERT INTO tasks", 2), (NEW, 2)])
@pytest.mark.parametrize("side", ["before", "after"])
def test_run_in_transaction_repeats_on_another_connection_what_was_lost_before_its_commit(
    proxy, postgresql_url, side, said, attempts
):
    """With a pool the function runs again from its beginning; what it wrote is stored once."""
    calls = []

    def function(connection: Any) -> None:
        calls.append(connection)
        tasks.create(connection, task())

    with dao.Pool(proxy.url) as pool:
        proxy.lose(side, said)
        dao.run_in_transaction(pool, function)
    assert (proxy.lost, len(calls), len(set(calls))) == (1, attempts, attempts)
    assert stored(postgresql_url) == 2


@pytest.mark.parametrize("side", ["before", "after"])
def test_run_in_transaction_does_not_repeat_a_commit_that_may_be_stored(proxy, postgresql_url, side):
    """A second run might do it twice: that is for the caller to decide, who is told."""
    calls = []

    def function(connection: Any) -> None:
        calls.append(configurations.set(connection, "count", len(calls)))

    with dao.Pool(proxy.url) as pool:
        proxy.lose(side, "COMMIT")
        with pytest.raises(dao.CommitUnknown, match="look at what is there before you repeat it"):
            dao.run_in_transaction(pool, function)
    assert len(calls) == 1
    with contextlib.closing(dao.connect(postgresql_url)) as look:
        assert configurations.exists(look, "count") is (side == "after")


# ---------------------------------------------------------------- servers that go and come back


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of one's own that keeps what it says is committed, with the tables in its database `postgres`."""
    with Server(synchronous_commit="on") as server:
        migrate(server.url("postgres"))
        yield server


class Load:
    """Threads that store batches of tasks until the end of a block, and note what they were told of each."""

    BATCH = 20

    def __init__(self, url: str) -> None:
        self.pool = dao.Pool(url, size=4, timeout=PATIENCE)
        self.told: dict[str, str] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(name,)) for name in "abcd"]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.pool.close()

    def _work(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            batch = f"{name}{number}"
            try:
                run_patiently(self.pool, self._store, batch)
                self.told[batch] = "stored"
            except dao.CommitUnknown:
                self.told[batch] = "unknown"
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.told[batch] = repr(error)
                return

    def _store(self, connection: Any, batch: str) -> None:
        tasks.create_many(connection, [task(f"{batch}-{number}") for number in range(self.BATCH)])
        tasks.create(connection, task(f"{batch}-last"))

    def count(self, what: str) -> int:
        """Return of how many batches they were told this."""
        return [*self.told.values()].count(what)


@pytest.mark.parametrize("end", [Server.kill, Server.stop], ids=["kill -9", "restart"])
def test_server_that_ends_under_load_loses_nothing_that_it_acknowledged(server, end):
    """Programs go on when it is back; what was acknowledged is there, each batch entirely or not at all.

    No error reaches a program but that of a commit that nobody answered.
    """
    with contextlib.closing(dao.connect(server.url("postgres"))) as connection:
        fetch(connection, "DELETE FROM tasks")
    with Load(server.url("postgres")) as load:
        for round_ in range(1, 4):
            wait_for(lambda round_=round_: load.count("stored") > 20 * round_)
            end(server)
            server.start()
        before = load.count("stored")
        wait_for(lambda: load.count("stored") > before + 20)
    assert set(load.told.values()) <= {"stored", "unknown"}
    with contextlib.closing(dao.connect(server.url("postgres"))) as connection:
        found = dict(fetch(connection, "SELECT split_part(id, '-', 1), count(*) FROM tasks GROUP BY 1"))
    assert set(found.values()) == {Load.BATCH + 1}
    acknowledged = {batch for batch, told in load.told.items() if told == "stored"}
    assert acknowledged <= found.keys() <= load.told.keys()


# ---------------------------------------------------------------- statements that take too long


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated, empty database."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        yield connection


def test_statement_timeout_undoes_the_transaction_and_says_so(connection):
    """The error is typed and says what ended the statement; nothing of the block is stored; the connection goes on."""
    with pytest.raises(dao.OperationalError, match="statement timeout") as caught, dao.transaction(connection):
        tasks.create(connection, task())
        run_out_of_time(connection)
    assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
    assert tasks.count(connection) == 0
    tasks.create(connection, task())


def test_statement_timeout_in_a_block_of_its_own_leaves_the_rest(connection):
    """Who puts a block around that part keeps what came before it and what comes after it."""
    with dao.transaction(connection):
        tasks.create(connection, task("before"))
        with contextlib.suppress(dao.OperationalError), dao.transaction(connection):
            tasks.create(connection, task("in it"))
            run_out_of_time(connection)
        tasks.create(connection, task("after"))
    assert [one.id for one in tasks.iter_all(connection, oldest_first=True)] == ["before", "after"]


@pytest.mark.parametrize("timeout", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_server_that_ends_an_idle_transaction_is_a_lost_connection(postgresql_url, timeout):
    """A block that took a nap finds nothing stored at its end, and is told so: it may be repeated."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        if connection.info.server_version < 170000 and timeout == "transaction_timeout":
            pytest.skip("it came with PostgreSQL 17")
        connection.execute(f"SET {timeout} = 20")
        there = "SELECT 1 FROM pg_stat_activity WHERE pid = $1", (connection.info.backend_pid,)
        with (
            contextlib.closing(dao.connect(postgresql_url)) as other,
            pytest.raises(dao.ConnectionLost, match="nothing of the transaction is stored"),
            dao.transaction(connection),
        ):
            tasks.create(connection, task())
            wait_for(lambda: not fetch(other, *there))
            tasks.count(connection)
    assert stored(postgresql_url) == 0


# ---------------------------------------------------------------- a disk that is full


@pytest.fixture(scope="module")
def small(server: Server) -> str:
    """The URL of a migrated database with room for a few megabytes more, of which a table `filler` takes some."""
    try:
        folder = server.small_folder("small", 16 * 2**20)
    except Unavailable as error:
        pytest.skip(f"no mounts here: {error}")
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        connection.execute("CREATE DATABASE small TABLESPACE small")
    migrate(server.url("small"))
    with psycopg.connect(server.url("small"), autocommit=True) as connection:
        connection.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
    return server.url("small")


def long(title: str) -> Task:
    """Return a task of some 3 kB, which nothing makes shorter."""
    text = "".join(hashlib.sha256(f"{title} {number}".encode()).hexdigest() for number in range(48))
    return Task(title=title, task_type="agent", description=text)


def test_disk_of_the_server_that_is_full_is_disk_full_and_nothing_changed(small):
    """A batch for which there is no room is undone as a whole, however it is written; with room all goes on."""

    def one_by_one(connection: Any, several: list[Task]) -> None:
        with dao.transaction(connection):
            for one in several:
                tasks.create(connection, one)

    with contextlib.closing(dao.connect(small)) as connection:
        tasks.create(connection, Task(title="first", task_type="agent"))
        several = [long(f"{number}") for number in range(4_000)]
        for write in (
            tasks.create_many,
            one_by_one,
            lambda *_: dao.run_in_transaction(connection, one_by_one, several),
        ):
            with pytest.raises(dao.DiskFull, match=r"no room left to write .*; the write was undone. Free some"):
                write(connection, several)
            assert tasks.count(connection) == 1
        fetch(connection, "DROP TABLE filler")
        connection.execute("VACUUM tasks")
        connection.execute("CHECKPOINT")  # what was dropped gives its room back now
        tasks.create_many(connection, several[:10])
        assert tasks.count(connection) == 11
