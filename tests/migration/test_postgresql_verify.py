"""Migrations for PostgreSQL are proved up, down and up again, in a database of their own that goes at the end."""

from __future__ import annotations

import secrets
import uuid

import pytest

import dao
from dao import migrate
from dao.errors import InvalidURL, MigrationError
from tests.folders import ALONE, write


@pytest.fixture
def verify(server, tmp_path):
    """A function that verifies a folder with these files."""

    def verify(files, **options):
        return migrate.verify(write(tmp_path / "sql", files), server=server.url, **options)

    return verify


def alone(found):
    """Return the results on no rows but those of the scripts."""
    return [one for one in found if one.stage == "empty"]


def problems(found):
    """Return the problems on no rows but those of the scripts, by id."""
    return {one.id: list(one.problems) for one in alone(found) if one.problems}


def on_rows(found, id):
    """Return the result of a migration on generated rows."""
    (one,) = (one for one in found if one.id == id and one.stage == "generated rows")
    return one


@pytest.mark.parametrize("latest", [1, pytest.param(None, marks=pytest.mark.slow)])
def test_own_migrations_can_be_undone(server, latest):
    """Each of them, and as often as one likes; with rows in each of their tables, as on SQLite.

    `make check-migrations` verifies all of them, too.
    """
    found = migrate.verify(server=server.url, latest=latest)
    ids = [one.id for one in migrate.load()][-latest if latest else 0 :]
    assert [(one.id, one.stage) for one in found] == [
        (id, stage) for id in ids for stage in ("empty", "generated rows")
    ]
    assert [one.id for one in found if one.problems or one.unfilled or not one.reversible] == []


PAIRS = {
    "1_a.sql": "CREATE TABLE a (id integer PRIMARY KEY, t text); INSERT INTO a VALUES (1, 'x');",
    "1_a.rollback.sql": "DROP TABLE a;",
    "2_b.sql": "ALTER TABLE a ADD u integer; CREATE TYPE mood AS ENUM ('ok');",
    "2_b.rollback.sql": "ALTER TABLE a DROP u; DROP TYPE mood;",
}


def test_pairs_that_undo_have_no_problem(verify):
    """Those that run in a transaction, and those that do not; after them the others are tried, too."""
    found = verify(
        PAIRS
        | {
            "3_c.sql": f"{ALONE}CREATE INDEX CONCURRENTLY i ON a (t);",
            "3_c.rollback.sql": "DROP INDEX CONCURRENTLY i;",
            "4_d.sql": "CREATE VIEW v AS SELECT t FROM a;",
            "4_d.rollback.sql": "DROP VIEW v;",
        }
    )
    assert [one.id for one in alone(found)] == ["1_a", "2_b", "3_c", "4_d"]
    assert problems(found) == {}


OTHERS = "rows after the rollback are others\n  a: 1 row, not all as expected"
CHANGED = """rows after the rollback are others
  a: 1 row, not all as expected
    - id = 1, t = 'x'
    + id = 1, t = 'y'"""
BROKEN = {
    "schema": (
        {"2_b.rollback.sql": "ALTER TABLE a DROP u;"},
        ["the schema after the rollback is another\n  type mood is unexpected", "apply after the rollback fails: "],
    ),
    "rows": (
        {"2_b.sql": "UPDATE a SET t = 'y';", "2_b.rollback.sql": "SELECT 1;"},
        [CHANGED],
    ),
    "rollback fails": ({"2_b.rollback.sql": "DROP TYPE nothing;"}, ["rollback fails: "]),
    "second apply": (
        {"2_b.sql": "CREATE SEQUENCE IF NOT EXISTS s; CREATE TABLE b (id integer DEFAULT nextval('s'));"}
        | {"2_b.rollback.sql": "DROP TABLE b;"},
        ["the schema after the rollback is another\n  sequence s is unexpected"],
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("files", "expected"), BROKEN.values(), ids=BROKEN)
def test_pair_that_does_not_undo_says_in_what(verify, files, expected):
    """And those after it are tried all the same, on what it makes."""
    found = verify(
        PAIRS | files | {"3_c.sql": "CREATE TABLE c AS SELECT * FROM a;", "3_c.rollback.sql": "DROP TABLE c;"}
    )
    assert [one.id for one in alone(found)] == ["1_a", "2_b", "3_c"]
    told = problems(found)
    assert list(told) == ["2_b"]
    assert len(told["2_b"]) == len(expected)
    assert all(one.startswith(begin) for one, begin in zip(told["2_b"], expected, strict=True)), told


def test_migration_that_fails_ends_it(verify):
    """What comes after it is not tried, which is said of each."""
    found = verify(PAIRS | {"2_b.sql": "nonsense;", "3_c.sql": "CREATE TABLE c (id integer);"})
    assert [(one.id, one.tried) for one in alone(found)] == [("1_a", True), ("2_b", True), ("3_c", False)]
    assert problems(found)["2_b"][0].startswith("apply fails: ")
    assert problems(found)["3_c"] == ["not tried: 2_b comes before it here, and fails"]


def test_migration_that_is_irreversible_is_a_warning(verify):
    """It is applied for those after it."""
    found = verify({"1_a.sql": PAIRS["1_a.sql"], "2_b.sql": PAIRS["2_b.sql"], "2_b.rollback.sql": ""})
    assert problems(found) == {}
    assert [one.warnings for one in alone(found)] == [
        ("irreversible: it has no rollback script",),
        ("irreversible: it has an empty rollback script",),
    ]


def test_rollback_outside_of_a_transaction_that_fails_is_told(verify):
    """What it did by then stays, and applying it again says so; nobody tries what comes after that."""
    found = verify(
        PAIRS
        | {"2_b.sql": f"{ALONE}{PAIRS['2_b.sql']}", "2_b.rollback.sql": "DROP TYPE mood; DROP TYPE mood;"}
        | {"3_c.sql": "CREATE TABLE c (id integer);"}
    )
    assert [one.startswith("rollback fails: ") for one in problems(found)["2_b"]] == [True]
    assert [(one.id, one.tried) for one in alone(found)] == [("1_a", True), ("2_b", True), ("3_c", True)]


def test_since_and_latest_choose(verify):
    """The others are just applied."""
    assert [one.id for one in alone(verify(PAIRS, latest=1))] == ["2_b"]
    assert [one.id for one in alone(verify(PAIRS, since="1_a"))] == ["2_b"]


def test_verify_leaves_no_database(verify, server, monkeypatch):
    """Nor after a failure."""
    end = uuid.uuid4().hex
    monkeypatch.setattr(secrets, "token_hex", lambda _: end)
    verify(PAIRS | {"2_b.sql": "nonsense;"})
    with dao.connect(server.url) as connection:
        names = [name for (name,) in connection.execute("SELECT datname FROM pg_database")]
    assert [name for name in names if name.endswith(end)] == []


def test_verify_refuses_what_only_sqlite_has(verify, server):
    """By name, with what to do."""
    with pytest.raises(MigrationError, match="leave --copy out; `dao rehearse --round-trip`"):
        verify(PAIRS, database=server.url)
    with pytest.raises(InvalidURL, match="this needs a PostgreSQL server"):
        migrate.verify(server="sqlite:///x.db")
