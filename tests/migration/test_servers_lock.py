"""The lock between migrators of a database on a server, and how it is told who has it."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from dao import migrate
from dao.errors import ConnectionLost, DatabaseBusy, MigrationError, MigrationFailed
from dao.migrate import database
from tests.concurrency import PATIENCE
from tests.folders import ALONE, IDS, write


def in_thread(function, *arguments):
    """Call a function in a thread of its own, and return what it returned or raised."""
    found = []

    def call():
        try:
            found.append(function(*arguments))
        except Exception as error:  # noqa: BLE001 - for the test to judge
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return found[0]


def holder(url: str) -> str | None:
    """Return who has the lock, as a reader is told."""
    with database.opened(url, read_only=True) as reader:
        return database.migrator_of(reader)


def take(url: str, timeout: float | None = None, report: migrate.Report | None = None) -> bool:
    """Take the lock and let go of it, and return whether another had it first."""
    with database.in_line(url, timeout, report) as (lock, _connection):
        return lock.take()


def test_lock_held_by_another_is_waited_for_and_its_holder_named(new_postgresql_url):
    """A second migrator waits until the timeout, and is told the session, user and program that has the lock."""
    url = new_postgresql_url
    told = []
    with database.in_line(url, locked=True) as (_lock, connection):
        pid = connection.info.backend_pid
        for timeout in (0.7, 7.0, 70.0):  # it tells after half a second, unless it stands still until all is over
            error = in_thread(take, url, timeout, told.append)
            if told:
                break
        assert isinstance(error, DatabaseBusy)
        assert f"held by another migration run, session {pid} (user " in str(error)
        assert "dao migrate, since 2" in str(error)
        patience = f"for longer than {timeout:g} s"
        assert str(error).endswith(f"{patience}. Repeat when it is done, or wait longer (--lock-timeout)")
        assert isinstance(told[0], migrate.Waiting)
        assert f"session {pid} " in (told[0].holder or "")
        assert f"session {pid} " in in_thread(holder, url)
        assert holder(url) is None  # this thread is no other
    assert in_thread(holder, url) is None
    assert not take(url)


def test_lock_is_free_when_its_holder_is_killed(new_postgresql_url):
    """The server lets go of the lock of a session that has ended, and the waiter gets it."""
    url = new_postgresql_url
    waiting = threading.Event()
    with psycopg.connect(url, autocommit=True) as admin, database.in_line(url, locked=True) as (_lock, theirs):
        waiter = threading.Thread(target=take, args=(url, None, lambda _event: waiting.set()))
        waiter.start()
        assert waiting.wait(PATIENCE)
        admin.execute("SELECT pg_terminate_backend(%s)", (theirs.info.backend_pid,))
        waiter.join(PATIENCE)
        assert not waiter.is_alive()


def test_run_within_a_run_of_the_same_thread_is_refused(new_postgresql_url):
    """A thread that has the lock would wait for itself: by another connection, or by the same one."""
    url = new_postgresql_url
    with database.in_line(url, locked=True) as (_lock, connection):
        for target in (url, connection):
            with pytest.raises(DatabaseBusy, match="of this same thread is under way, and would wait for itself"):
                take(target)


def test_lock_is_one_for_each_schema(new_postgresql_url):
    """Two schemas of a database have two ledgers, and their migrators do not wait for each other."""
    url = new_postgresql_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app")
        connection.execute("SET search_path = app")
        with database.in_line(url, locked=True):
            assert in_thread(take, url, 0).args[0].startswith(database.name_of(url))
            assert not take(connection, 0)
        connection.execute("SET search_path = nowhere")
        with pytest.raises(MigrationError, match="no schema of the search_path exists"):
            take(connection)


def test_lock_behind_a_pooler_is_held_by_a_transaction(new_postgresql_url, three, monkeypatch):
    """PgBouncer tells a client another process id than the server's, and may lend another session to each transaction.

    The lock of a session would be left in its pool for ever. That of a transaction ends with it, and does not keep
    CREATE INDEX CONCURRENTLY waiting.
    """
    url = new_postgresql_url
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _info: 0))
    write(three, {"0004_d.sql": f"{ALONE}CREATE INDEX CONCURRENTLY i ON a (id);"})
    with ThreadPoolExecutor(3) as threads:
        done = [run.result(120) for run in [threads.submit(migrate.apply, url, three) for _ in range(3)]]
    assert sorted(len(results) for results in done) == [0, 0, 4]
    with database.in_line(url, locked=True):
        assert isinstance(in_thread(take, url, 0), DatabaseBusy)
        with pytest.raises(DatabaseBusy, match="of this same thread"):
            take(url)
    with psycopg.connect(url) as connection:
        # of this database: other tests take theirs on the same server
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        held = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {here}"
        assert connection.execute(held).fetchone() == (0,)
    assert not take(url)


# ---------------------------------------------------------------- the caller's own connection


def settings_of(connection: psycopg.Connection) -> tuple[object, ...]:
    """Return what an owner of a connection may have set on it."""
    session = [
        connection.execute(f"SHOW {name}").fetchone() for name in ("search_path", "timezone", "lock_timeout", "role")
    ]
    names = ("row_factory", "cursor_factory", "prepare_threshold", "autocommit")
    return (session, *(getattr(connection, name) for name in names))


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_connection_of_the_caller_is_as_it_was_after_a_run(new_postgresql_url, three, autocommit, fails):
    """Rows, cursors, statements and transactions are as the owner has them, also after a run that failed."""
    write(three, {"0004_d.sql": "SET search_path = nowhere; SET lock_timeout = 5;" + " SELECT nope;" * fails})
    with psycopg.connect(new_postgresql_url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'; SET lock_timeout = '7s'")
        connection.row_factory = psycopg.rows.dict_row
        connection.cursor_factory = psycopg.ClientCursor
        connection.prepare_threshold = 3
        connection.autocommit = autocommit
        before = settings_of(connection)
        connection.rollback()
        with pytest.raises(MigrationFailed) if fails else contextlib.nullcontext():
            assert len(migrate.apply(connection, three)) == 4
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert migrate.status(connection, three).ids("applied") == ([] if fails else [*IDS, "0004_d"])
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert settings_of(connection) == before


def test_connection_that_is_closed_is_lost(new_postgresql_url, three):
    """A closed connection is in no transaction: it is said to be what it is."""
    connection = psycopg.connect(new_postgresql_url)
    connection.close()
    for verb in (migrate.status, migrate.apply):
        with pytest.raises(ConnectionLost, match="the connection is closed"):
            verb(connection, three)


def test_connection_in_the_middle_of_a_transaction_is_read_and_not_migrated(new_postgresql_url, three):
    """A run is a transaction of its own; whoever only looks takes part in the one that is open."""
    with psycopg.connect(new_postgresql_url) as connection:
        connection.execute("CREATE TABLE theirs (id integer)")
        for verb in (migrate.apply, migrate.reset, lambda *given: migrate.mark(given[0], IDS, given[1])):
            with pytest.raises(MigrationError, match="in the middle of a transaction: commit or roll back first"):
                verb(connection, three)
        assert migrate.status(connection, three).ids("pending") == IDS
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
