"""Migrations that end in the middle, outside of a transaction, on a PostgreSQL database: told, compared, resolved."""

from __future__ import annotations

import psycopg
import pytest

from dao import migrate
from dao.errors import LedgerMismatch, MigrationError, MigrationFailed
from dao.migrate.schema.postgresql import replay
from dao.migrate.schema.postgresql.temporary import new_name
from tests.folders import ALONE, IDS, ids, write


@pytest.fixture
def url(new_postgresql_url) -> str:
    """The URL of a new database on the server of the tests."""
    return new_postgresql_url


@pytest.fixture
def half(url, three) -> None:
    """A migration outside of a transaction that failed at its second statement, after two that are applied."""
    write(three, {"0003_c.sql": f"{ALONE}CREATE TABLE c (id integer PRIMARY KEY);\nCREATE TABLE d (id nonsense);"})
    with pytest.raises(MigrationFailed, match="nonsense"):
        migrate.apply(url, three)


def test_unfinished_migration_is_told_and_keeps_the_next_run_from_beginning(url, three, half):
    """Status and the next run say which it is, and what to do."""
    assert migrate.status(url, three).ids("unfinished") == ["0003_c"]
    with pytest.raises(LedgerMismatch, match=r"0003_c: applying it did not come to its end .*migrate resolve 0003_c"):
        migrate.apply(url, three)
    other = migrate.load(write(three.parent / "other", {"1_x.sql": "SELECT 1;"}))
    with pytest.raises(
        MigrationError, match=r": three/0003_c is unfinished, .* `dao migrate resolve three/0003_c` ends"
    ):
        migrate.diff(url, [migrate.load(three, name="three"), other])


def test_unfinished_shows_how_the_schema_differs_from_both_ends(url, three, half, monkeypatch):
    """The scripts are tried in a database of their own on the same server, once as far as they can run there.

    Other tests have such databases on it, too: that of a neighbour was taken for one that is left.
    """
    made: list[str] = []
    monkeypatch.setattr(replay, "new_name", lambda prefix: made.append(new_name(prefix)) or made[-1])
    write(three, {"0003_c.sql": f"{ALONE}CREATE TABLE c (id integer PRIMARY KEY);\nCREATE TABLE d (id integer);"})
    found = migrate.unfinished(url, "0003", three)
    assert (found.id, found.doing) == ("0003_c", "applying")
    assert [str(one) for one in found.from_applied or ()] == ["table d is missing"]
    assert [str(one) for one in found.from_rolled_back or ()] == ["table c is unexpected"]
    with psycopg.connect(url) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [made]).fetchall()
    assert made
    assert left == []


def test_unfinished_that_cannot_be_replayed_is_not_compared(url, three, half):
    """A script that fails anywhere has no end that it could be held against."""
    found = migrate.unfinished(url, "0003", three)
    assert found.from_applied is None
    assert [str(one) for one in found.from_rolled_back or ()] == ["table c is unexpected"]


@pytest.mark.parametrize("outcome", ["applied", "rolled back"])
def test_resolve_notes_how_it_ended(url, three, half, outcome):
    """Once somebody has finished or undone it by hand, the next run goes on from there."""
    assert migrate.resolve(url, "0003", outcome, three) == "0003_c"
    write(three, {"0003_c.sql": "CREATE TABLE IF NOT EXISTS c (id integer PRIMARY KEY);"})
    if outcome == "applied":
        migrate.accept(url, ["0003"], three)
    assert ids(migrate.apply(url, three)) == ([] if outcome == "applied" else ["0003_c"])
    assert migrate.status(url, three).ids("applied") == IDS


def test_status_tells_an_index_that_a_failed_migration_left(url, three):
    """CREATE INDEX CONCURRENTLY that fails leaves an index that serves no query, and is not there for the next one."""
    write(three, {"0004_d.sql": f"{ALONE}CREATE UNIQUE INDEX CONCURRENTLY i ON b ((id * 0));"})
    with psycopg.connect(url, autocommit=True) as connection:
        migrate.apply(url, three, to="0003_c")
        connection.execute("INSERT INTO b VALUES (3)")
        with pytest.raises(MigrationFailed, match="i"):
            migrate.apply(url, three)
        status = migrate.status(url, three)
        assert [text.partition(":")[0] for text in status.broken] == [
            "the index i of b is not valid, and serves no query"
        ]
        connection.execute("DROP INDEX CONCURRENTLY i")
        connection.execute("DELETE FROM b")
        migrate.resolve(url, "0004", "rolled back", three)
        migrate.apply(url, three)
    assert migrate.status(url, three).is_current
