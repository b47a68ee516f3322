"""A connection to PostgreSQL that is lost in the middle of its work: what is told of it is true.

`ConnectionLost`: nothing of it is stored, and to repeat it is safe. `CommitUnknown`: it may be stored, and only where
that cannot be known. Acknowledged is stored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import dao
from dao import Task, TaskStatus, engine, tasks
from tests import engines
from tests.concurrency import PATIENCE, Worker, run_patiently, wait_for
from tests.databases import migrate
from tests.servers import Server


def new(title: str = "a") -> Task:
    return Task(title=title, task_type="agent")


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    """A server of one's own, whose database `postgres` has the tables."""
    with Server(fsync="on", synchronous_commit="on") as server:
        migrate(server.url("postgres"))
        yield server


@pytest.fixture
def server(_server: Server) -> Server:
    """A server that may be killed, with empty tables."""
    _server.start()
    with psycopg.connect(_server.url("postgres"), autocommit=True) as connection:
        connection.execute("TRUNCATE tasks CASCADE")
    return _server


@pytest.fixture
def url(server: Server) -> str:
    """The URL of its database."""
    return server.url("postgres")


def stored(url: str) -> list[str]:
    """Return the titles of the tasks that another connection sees, once the server takes one."""
    with dao.Pool(url, timeout=PATIENCE) as pool, pool.acquire() as connection:
        return sorted(task.title for task in tasks.iter_all(connection))


# ---------------------------------------------------------------- ways to lose a connection


def terminate(server: Server, pid: int) -> None:
    """End a backend as an administrator does."""
    engines.terminate(server.url("postgres"), pid)


def kill_backend(server: Server, pid: int) -> None:
    """Kill a backend: the server ends all others, too, and recovers by itself."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def kill_server(server: Server, pid: int) -> None:
    """Kill the server, and start it again."""
    server.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    server.start()


WAYS = [terminate, kill_backend, kill_server]


# ---------------------------------------------------------------- phases in which it is lost


def before_begin(connection: Any, lose: Callable[[], None]) -> None:
    """An idle connection, and then a transaction."""
    lose()
    with dao.transaction(connection):
        tasks.create(connection, new())


def in_a_statement(connection: Any, lose: Callable[[], None]) -> None:
    """A statement that is running."""
    loser = threading.Timer(0.1, lose)
    with dao.transaction(connection):
        tasks.create(connection, new())
        if lose is not nothing:
            loser.start()
            try:
                engine.fetch(connection, "SELECT pg_sleep(600)")
            finally:
                loser.join()


def between_statements(connection: Any, lose: Callable[[], None]) -> None:
    """A transaction between two statements."""
    with dao.transaction(connection):
        tasks.create(connection, new())
        lose()
        tasks.create(connection, new())


def before_commit(connection: Any, lose: Callable[[], None]) -> None:
    """A transaction before its COMMIT is sent."""
    with dao.transaction(connection):
        tasks.create(connection, new())
        lose()


def in_a_savepoint(connection: Any, lose: Callable[[], None]) -> None:
    """A savepoint, whose error is swallowed around it."""
    with dao.transaction(connection):
        tasks.create(connection, new())
        with contextlib.suppress(dao.ConnectionLost), dao.transaction(connection):
            tasks.create(connection, new())
            lose()
            tasks.create(connection, new())


def before_a_statement_alone(connection: Any, lose: Callable[[], None]) -> None:
    """An idle connection, and then a statement that is a transaction by itself."""
    lose()
    tasks.create(connection, new())


def before_a_change_alone(connection: Any, lose: Callable[[], None]) -> None:
    """An idle connection, and then a change of a row."""
    task = new("changed")
    with dao.transaction(connection):
        lose()
        tasks.create(connection, task)
        tasks.set_status(connection, task.id, TaskStatus.RUNNING)


def in_a_copy(connection: Any, lose: Callable[[], None]) -> None:
    """Rows that are being copied in."""

    def rows() -> Iterator[Task]:
        for number in range(3000):
            if number == 1500:
                lose()
            yield new(str(number))

    tasks.create_many(connection, rows())


def nothing() -> None:
    """Lose nothing."""


#: How many rows each of them stores if nothing is lost.
PHASES = {
    before_begin: 1,
    in_a_statement: 1,
    between_statements: 2,
    before_commit: 1,
    in_a_savepoint: 3,
    before_a_statement_alone: 1,
    before_a_change_alone: 1,
    in_a_copy: 3000,
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
def test_connection_lost_before_the_commit_stores_nothing(server, url, phase, way):
    """Whatever ended it, and wherever: it is told as lost, nothing is stored, and a replay on a pool stores it once."""
    with contextlib.closing(dao.connect(url)) as connection, pytest.raises(dao.ConnectionLost):
        phase(connection, lambda: way(server, connection.info.backend_pid))
    assert stored(url) == []
    tries: list[int] = []

    def once(connection: Any) -> None:
        tries.append(connection.info.backend_pid)
        phase(connection, nothing if len(tries) > 1 else lambda: way(server, tries[0]))

    with dao.Pool(url, size=1, timeout=PATIENCE) as pool:
        run_patiently(pool, once)
        assert (pool.stats().active, pool.stats().idle) == (0, 1)
    assert len(tries) > 1
    assert len(stored(url)) == PHASES[phase]


def test_connection_lost_in_a_change_alone_is_told_as_it_was(server, url):
    """A change of an idle connection that was ended is not sent: it is known not to be stored."""
    with contextlib.closing(dao.connect(url)) as connection:
        task = new()
        tasks.create(connection, task)
        terminate(server, connection.info.backend_pid)
        with pytest.raises(dao.ConnectionLost):
            tasks.set_status(connection, task.id, TaskStatus.RUNNING)
        with pytest.raises(dao.ConnectionLost):
            tasks.get(connection, task.id)
    with contextlib.closing(dao.connect(url)) as other:
        assert tasks.get(other, task.id) == task


# ---------------------------------------------------------------- no answer to a commit


class Proxy:
    """A socket in front of a server, which cuts a connection when it sees a text on its way there.

    Attributes:
        url: Where to connect to.
        text: What it looks for.
        forwarded: Whether it lets that through, and cuts the connection as the answer comes.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.text, self.forwarded = b"", False
        self._target = str(server.folder / ".s.PGSQL.5432")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / ".s.PGSQL.5432"))
        self._socket.listen()
        self.url = f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"
        self._open = [self._socket]
        self._threads = [Worker(self._accept)]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.socket(socket.AF_UNIX)
                self._open += [client, server]
                server.connect(self._target)
                cut = threading.Event()
                for pair in ((client, server, cut, True), (server, client, cut, False)):
                    self._threads.append(Worker(self._forward, *pair))

    def _forward(self, source: socket.socket, target: socket.socket, cut: threading.Event, there: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if there and self.text and self.text in data:
                    cut.set()
                    if not self.forwarded:
                        break
                elif not there and cut.is_set():
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all connections."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(PATIENCE)
        for one in self._open:
            one.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with tempfile.TemporaryDirectory(prefix="dao-") as folder:
        proxy = Proxy(server, Path(folder))
        yield proxy
        proxy.close()


def in_a_transaction(connection: Any, task: Task) -> None:
    with dao.transaction(connection):
        tasks.create(connection, task)


def many(connection: Any, task: Task) -> None:
    tasks.create_many(connection, [task])


def changed(connection: Any, task: Task) -> None:
    tasks.set_status(connection, task.id, TaskStatus.RUNNING)


@pytest.mark.parametrize("forwarded", [True, False], ids=["arrived", "lost on the way"])
@pytest.mark.parametrize(
    ("write", "text"),
    [(in_a_transaction, b"COMMIT"), (many, b"COMMIT"), (tasks.create, b"INSERT"), (changed, b"UPDATE")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_commit_without_an_answer_is_unknown(url, proxy, write, text, forwarded):
    """Whether it arrived the client cannot tell, and says so; a replay could store it twice, so there is none."""
    task = new("asked")
    if write is changed:
        with contextlib.closing(dao.connect(url)) as connection:
            tasks.create(connection, task)
    begun: list[int] = []

    def once(connection: Any) -> None:
        begun.append(1)
        tasks.create(connection, task)

    with contextlib.closing(dao.connect(proxy.url)) as connection:
        proxy.text, proxy.forwarded = text, forwarded
        with pytest.raises(dao.CommitUnknown, match="look at what is there before you repeat it"):
            write(connection, task)
    if write is changed:
        with contextlib.closing(dao.connect(url)) as connection:
            wait_for(lambda: (tasks.get_one(connection, task.id).status is TaskStatus.RUNNING) is forwarded)
        return
    wait_for(lambda: stored(url) == ["asked"] * forwarded)
    if write is in_a_transaction:
        task = new("once")
        with dao.Pool(proxy.url, timeout=PATIENCE) as pool, pytest.raises(dao.CommitUnknown):
            dao.run_in_transaction(pool, once)
        assert begun == [1]
        wait_for(lambda: stored(url) == ["asked", "once"] * forwarded)


@pytest.mark.parametrize("text", [b"BEGIN", b"INSERT", b"COPY", b"SAVEPOINT", b"RELEASE", b"SELECT"])
@pytest.mark.parametrize("forwarded", [True, False], ids=["arrived", "lost on the way"])
def test_statement_without_an_answer_in_a_transaction_is_lost(url, proxy, text, forwarded):
    """No other statement of a transaction leaves a doubt: it is told as lost, and nothing is stored."""

    def write(connection: Any) -> None:
        tasks.create(connection, new("first"))
        with dao.transaction(connection):
            tasks.create_many(connection, [new("second"), new("third")])
            tasks.count(connection)

    with contextlib.closing(dao.connect(proxy.url)) as connection:
        proxy.text, proxy.forwarded = text, forwarded
        with pytest.raises(dao.ConnectionLost), dao.transaction(connection):
            write(connection)
    assert stored(url) == []


# ---------------------------------------------------------------- a server that is restarted under load


def halt(server: Server) -> None:
    server.stop()


def kill(server: Server) -> None:
    server.kill()


def crash(server: Server) -> None:
    server.stop(signal.SIGQUIT)


@pytest.mark.parametrize("way", [halt, crash, kill])
def test_server_that_is_restarted_under_load_keeps_what_was_acknowledged(server, url, way):
    """Four threads write through two restarts: what was told is stored once, and what was told as not stored is not."""
    acknowledged: list[str] = []
    unknown: list[str] = []
    failed: list[str] = []
    end = threading.Event()

    def work(name: int) -> None:
        number = 0
        while not end.is_set():
            number += 1
            title = f"{name} {number}"
            write = tasks.create if number % 2 else lambda connection, task: tasks.create_many(connection, [task])
            try:
                run_patiently(pool, write, new(title))
                acknowledged.append(title)
            except dao.CommitUnknown:
                unknown.append(title)
            except dao.ConnectionLost:
                failed.append(title)

    with dao.Pool(url, size=3, timeout=PATIENCE) as pool:
        workers = [Worker(work, name) for name in range(4)]
        for _ in range(2):
            before = len(acknowledged)
            wait_for(lambda before=before: len(acknowledged) > before + 60)
            way(server)
            server.start()
        before = len(acknowledged)
        wait_for(lambda: len(acknowledged) > before + 60)
        end.set()
        for worker in workers:
            worker.end()
    found = stored(url)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert set(found) <= {*acknowledged, *unknown}
    assert not failed  # the server was back in time
    assert len(unknown) <= 2 * 3  # one for each connection and restart
