"""The lock between migrators of a database on a server, and how it is told who has it."""

from __future__ import annotations

import threading

import psycopg
import pytest

from dao import migrate
from dao.errors import DatabaseBusy, MigrationError
from dao.migrate import database


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
        error = in_thread(take, url, 0.7, told.append)
        assert isinstance(error, DatabaseBusy)
        assert f"held by another migration run, session {pid} (user " in str(error)
        assert "dao migrate, since 2" in str(error)
        assert str(error).endswith("for longer than 0.7 s. Repeat when it is done, or wait longer (--lock-timeout)")
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
        assert waiting.wait(60)
        admin.execute("SELECT pg_terminate_backend(%s)", (theirs.info.backend_pid,))
        waiter.join(60)
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
