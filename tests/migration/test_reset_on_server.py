"""Reset on a PostgreSQL database: all that the migrations made goes, and nothing else."""

from __future__ import annotations

import psycopg
import pytest

from dao import migrate
from dao.errors import MigrationError
from tests.folders import IDS, ids, write

#: Objects of every kind, which need one another, in circles too.
EVERYTHING = """
CREATE SCHEMA apart;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE SEQUENCE numbers;
CREATE FUNCTION twice(i integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN i * 2;
CREATE TABLE one (id integer PRIMARY KEY DEFAULT nextval('numbers'), mood mood, size positive, other integer,
                  double integer GENERATED ALWAYS AS (twice(other)) STORED);
CREATE TABLE two (id integer PRIMARY KEY, one integer REFERENCES one);
ALTER TABLE one ADD CONSTRAINT circle FOREIGN KEY (other) REFERENCES two;
CREATE TABLE parted (at date) PARTITION BY RANGE (at);
CREATE TABLE parted_2026 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW seen AS SELECT id FROM one;
CREATE MATERIALIZED VIEW kept AS SELECT id FROM seen;
CREATE VIEW again AS SELECT id FROM kept;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON one FOR EACH ROW EXECUTE FUNCTION touched();
CREATE TABLE apart.three (id integer);
"""


def run(url: str, sql: str) -> list[tuple[object, ...]]:
    """Run statements on a connection of its own, and return the rows of the last."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def url(new_postgresql_url) -> str:
    """The URL of a new database on the server of the tests."""
    return new_postgresql_url


def test_reset_drops_all_that_the_migrations_made_and_applies_them_again(url, three):
    """Tables, views, types, functions and other schemas go, with all rows; another program's schema stays."""
    write(three, {"0004_d.sql": EVERYTHING})
    migrate.apply(url, three)
    run(url, "INSERT INTO a VALUES (7); CREATE SCHEMA theirs; CREATE TABLE theirs.t (id integer)")
    assert ids(migrate.reset(url, three)) == [*IDS, "0004_d"]
    assert migrate.status(url, three).is_current
    assert run(url, "SELECT id FROM a") == []
    assert run(url, "SELECT id FROM theirs.t") == []
    assert [deed.operation for deed in migrate.history(url)].count("reset") == 1


def test_reset_refuses_what_the_migrations_did_not_make(url, three):
    """A table of somebody else's in the same schema is named, and nothing is changed."""
    migrate.apply(url, three)
    run(url, "CREATE TABLE theirs (id integer); INSERT INTO a VALUES (7)")
    with pytest.raises(MigrationError, match=r"holds what its migrations did not make \(table theirs\)"):
        migrate.reset(url, three)
    assert run(url, "SELECT id FROM a") == [(7,)]


def test_reset_refuses_what_something_else_needs(url, three):
    """A view elsewhere on one of the tables keeps it: dropped with it, the view would be lost without a word."""
    migrate.apply(url, three)
    run(url, "CREATE SCHEMA theirs; CREATE VIEW theirs.v AS SELECT id FROM a; INSERT INTO a VALUES (7)")
    with pytest.raises(MigrationError, match=r"something else needs what .*view theirs\.v depends on"):
        migrate.reset(url, three)
    assert run(url, "SELECT id FROM theirs.v") == [(7,)]
    assert migrate.status(url, three).is_current


def test_reset_on_a_connection_of_the_callers(url, three):
    """A connection knows its server and password: the replay needs no URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrate.apply(connection, three)
        assert ids(migrate.reset(connection, three)) == IDS
