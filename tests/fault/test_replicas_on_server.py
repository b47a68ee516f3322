"""Replicas that start together on a PostgreSQL database: one migrates, and the others wait for as long as it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dao import migrate
from dao.errors import SchemaOutOfDate
from tests.fault.replicas import Replica, holding
from tests.folders import ALONE, IDS, ids, write


@pytest.fixture
def url(new_postgresql_url) -> str:
    """The URL of a new database on the server of the tests."""
    return new_postgresql_url


@pytest.fixture
def replicas(url: str, three: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Replica]]]:
    """Starts so many commands `dao migrate` on the database, and returns once all of them wait."""
    started: list[Replica] = []
    monkeypatch.setenv("DATABASE_MIGRATIONS", str(three))
    monkeypatch.setenv("DATABASE_URL", url)

    def start(number: int, *options: str) -> list[Replica]:
        new = [Replica("migrate", *options) for _ in range(number)]
        started.extend(new)
        for one in new:
            one.until_it_waits()
        return new

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def applied(url: str) -> list[tuple[object, ...]]:
    """Return what was noted as applied, in order."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT migration_id FROM _dao_history ORDER BY id").fetchall()


def test_migrate_waits_for_another_run_for_as_long_as_it_lives(url, three, replicas):
    """However long a run takes, the replicas beside it wait, say for which session, and find nothing to do."""
    with holding(url, three) as process:
        waiting = replicas(2)
        for one in waiting:
            assert "waiting for the lock held by another migration run, session " in one.errors
            assert "dao migrate, since 20" in one.errors
        process.communicate("\n" * len(IDS))
        assert process.returncode == 0
    ends = [one.end() for one in waiting]
    assert [(code, out.endswith(": nothing to apply\n")) for code, out in ends] == [(0, True)] * 2
    assert applied(url) == [(id,) for id in IDS]


def test_migrate_waiting_for_one_that_is_killed_takes_its_place(url, three, replicas):
    """A kill -9 frees the lock: of those that wait, one migrates, and the others wait for that one."""
    with holding(url, three) as process:
        waiting = replicas(2)
        process.kill()
        ends = [one.end() for one in waiting]
    assert [code for code, _ in ends] == [0] * 2
    assert sorted(out.endswith(": nothing to apply\n") for _, out in ends) == [False, True]
    assert applied(url) == [(id,) for id in IDS]


def test_migrate_waiting_for_one_that_is_killed_half_way_does_not_repeat_it(url, three, replicas):
    """Whoever waits for a script outside of a transaction hears that it did not come to its end, and runs nothing.

    Meanwhile the status says that it runs, and by which session.
    """
    write(three, {"0001_a.sql": ALONE + "CREATE TABLE a (id integer PRIMARY KEY);"})
    with holding(url, three) as process:
        with pytest.raises(SchemaOutOfDate) as raised:
            migrate.assert_current(url, three)
        assert "session " in str(raised.value)
        assert "is applying 0001_a, outside of a transaction: wait until it has ended" in str(raised.value)
        (waiting,) = replicas(1)
        process.kill()
        assert waiting.end() == (1, "")
    assert f"0001_a: applying it did not come to its end (it was process {process.pid})" in waiting.errors
    assert migrate.resolve(url, "0001_a", "rolled back", three) == "0001_a"
    assert ids(migrate.apply(url, three)) == IDS


def test_migrate_lock_timeout_ends_the_wait(url, three, monkeypatch):
    """`--lock-timeout` ends the wait with a message that says who has the lock."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", str(three))
    with holding(url, three):
        one = Replica("migrate", "--database", url, "--lock-timeout", "0.3")
        assert one.end() == (1, "")
    assert "is locked, held by another migration run, session " in one.errors
    assert "for longer than 0.3 s" in one.errors
