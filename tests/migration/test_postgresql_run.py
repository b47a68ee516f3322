"""A run on a PostgreSQL server that others use: their locks, indexes that are built meanwhile, roles and standbys."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import psycopg
import pytest

import dao
from dao import migrate
from dao.errors import (
    CheckFailed,
    ConnectionLost,
    DatabaseBusy,
    MigrationError,
    MigrationFailed,
    OperationalError,
    ReadOnlyDatabase,
)
from tests.folders import ALONE, IDS, ids, with_fourth, write


@pytest.fixture
def url(new_postgresql_url):
    """A new database without a table."""
    return new_postgresql_url


@pytest.fixture
def other(url) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection, in a transaction as soon as it does something."""
    with contextlib.closing(psycopg.connect(url, application_name="somebody else")) as connection:
        yield connection


def read(url: str, sql: str) -> list[Any]:
    with contextlib.closing(psycopg.connect(url)) as connection:
        return connection.execute(sql).fetchall()


# ---------------------------------------------------------------- other people's locks


@pytest.mark.parametrize("timeout", [1, 300])
def test_run_gives_up_on_a_lock_and_says_whose_it_is(url, other, three, timeout):
    """A statement that waits for a lock holds up all that come after it, so it gives up, and says who is in the way."""
    migrate.apply(url, three)
    write(three, {"0004_d.sql": "CREATE TABLE d ();\nALTER TABLE b ADD COLUMN x int;"})
    other.execute("SELECT * FROM b")
    with pytest.raises(DatabaseBusy) as raised:
        migrate.apply(attrs.evolve(dao.url.parse(url), busy_timeout=timeout), three)
    text = str(raised.value)
    assert f"0004_d.sql:2: waited in vain for a lock of session {other.info.backend_pid} (user" in text
    assert "somebody else" in text
    assert "--busy-timeout" in text
    assert raised.value.committed == ()
    assert read(url, "SELECT to_regclass('d')") == [(None,)]
    other.rollback()
    assert ids(migrate.apply(url, three)) == ["0004_d"]


def test_run_tells_for_whom_it_waits(url, other, three):
    """While it waits, `report` hears for whom, as of SQLite's lock."""
    migrate.apply(url, three)
    write(three, {"0004_d.sql": "ALTER TABLE b ADD COLUMN x int;"})
    other.execute("SELECT * FROM b")
    waits: list[migrate.Waiting] = []

    def report(event):
        if isinstance(event, migrate.Waiting):
            waits.append(event)
            other.rollback()

    assert ids(migrate.apply(url, three, report=report)) == ["0004_d"]
    assert f"session {other.info.backend_pid} " in (waits[0].holder or "")


def test_run_leaves_a_timeout_that_is_set_elsewhere(url, tmp_path):
    """What the URL, the role or the database says of lock_timeout is not overruled, and a script may set its own."""
    folder = write(
        tmp_path / "sql",
        {
            "1_a.sql": "CREATE TABLE a AS SELECT current_setting('lock_timeout') AS t;",
            "2_b.sql": "SET lock_timeout = '7s'; INSERT INTO a SELECT current_setting('lock_timeout');",
            "3_c.sql": "INSERT INTO a SELECT current_setting('lock_timeout');",
        },
    )
    migrate.apply(f"{url}&options=-clock_timeout%3D1234ms", folder)
    assert read(url, "SELECT t FROM a") == [("1234ms",), ("7s",), ("1234ms",)]
    write(folder, {"4_d.sql": "INSERT INTO a SELECT current_setting('lock_timeout');"})
    migrate.apply(url, folder)
    assert read(url, "SELECT t FROM a")[3:] == [("5s",)]


def test_run_that_takes_too_long_for_the_server_says_so(url, three):
    """A statement_timeout of the role or the URL is named as what it is."""
    write(three, {"0004_d.sql": "SELECT pg_sleep(600);"})
    for timeout in (200, 2_000, 20_000):  # where it ran out before that statement, on a busy machine
        with pytest.raises(dao.Error, match="canceling statement due to statement timeout") as raised:
            migrate.apply(f"{url}&options=-cstatement_timeout%3D{timeout}ms", three)
        assert read(url, "SELECT to_regclass('a')") == [(None,)]
        if "0004_d" in str(raised.value):
            break
    assert isinstance(raised.value, MigrationFailed)
    assert "0004_d.sql:1: canceling statement due to statement timeout; SHOW" in str(raised.value)


# ---------------------------------------------------------------- indexes that are built meanwhile


def test_run_waits_patiently_for_an_index_beside_others(url, other, three):
    """CREATE INDEX CONCURRENTLY holds up nobody, so it waits for as long as others need."""
    migrate.apply(url, three)
    write(three, {"0004_d.sql": f"{ALONE}CREATE INDEX CONCURRENTLY i ON b (id);"})
    other.execute("INSERT INTO b VALUES (7)")
    done = threading.Timer(1.0, other.commit)
    done.start()
    try:
        assert ids(migrate.apply(url, three)) == ["0004_d"]
    finally:
        done.join()
    assert read(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


@pytest.mark.parametrize("quiet", ["", "SET client_min_messages TO warning; "])
def test_run_names_the_index_that_a_failure_leaves(url, three, quiet):
    """It is there and serves nobody, so the message has the command that removes it, and nothing passes over it.

    In a session that wants no notices IF NOT EXISTS did.
    """
    migrate.apply(url, write(three, {"0003_c.sql": "CREATE TABLE c (x int); INSERT INTO c VALUES (1), (1);"}))
    script = f"{ALONE}{quiet}CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON c (x);"
    write(three, {"0004_d.sql": script.replace("IF NOT EXISTS ", "")})
    with pytest.raises(MigrationFailed) as raised:
        migrate.apply(url, three)
    assert "`DROP INDEX CONCURRENTLY i;`" in str(raised.value)
    migrate.resolve(url, "0004_d", "rolled back", three)
    write(three, {"0004_d.sql": script})
    with pytest.raises(MigrationFailed, match="the index i was there already, and is invalid") as raised:
        migrate.apply(url, three)
    assert (raised.value.line, "`DROP INDEX CONCURRENTLY i;`" in str(raised.value)) == (2, True)
    migrate.resolve(url, "0004_d", "rolled back", three)
    with contextlib.closing(psycopg.connect(url)) as connection:
        connection.execute("DELETE FROM c")
        connection.commit()
    write(three, {"0004_d.sql": ALONE + "DROP INDEX CONCURRENTLY i;" + script.removeprefix(ALONE)})
    assert ids(migrate.apply(url, three)) == ["0004_d"]


# ---------------------------------------------------------------- who may do what


def test_run_on_what_cannot_be_written_to_is_refused(url, three):
    """A standby, or a database that is read-only by its settings, is named as such before anything is tried."""
    with pytest.raises(ReadOnlyDatabase, match=r"default_transaction_read_only.*target_session_attrs"):
        migrate.apply(f"{url}&options=-cdefault_transaction_read_only%3Don", three)


def test_run_on_a_connection_with_temporary_tables_is_refused(url, three):
    """A script would find them under names that mean something else everywhere else."""
    with dao.connect(url) as connection:
        connection.execute("CREATE TEMP TABLE b ()")
        with pytest.raises(MigrationError, match=r"temporary tables \(b\)"):
            migrate.apply(connection, three)


def test_run_gives_the_callers_connection_back_as_it_was(url, tmp_path):
    """Settings, prepared statements, locks and modes of its owner outlive a run, and none of a script does."""
    with dao.connect(url) as connection:
        connection.execute("SET search_path = public, pg_catalog; SET work_mem = '3MB'; SELECT pg_advisory_lock(9)")
        settings = "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('lock_timeout')"
        before = connection.execute(settings).fetchall()
        folder = with_fourth(tmp_path / "sql", "SET search_path = x; SET work_mem = '5MB'; SELECT pg_advisory_lock(8);")
        assert ids(migrate.apply(connection, folder)) == [*IDS, "0004_x"]
        assert connection.execute(settings).fetchall() == before
        locks = "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert connection.execute(locks).fetchall() == [("9",)]
        for _ in range(7):  # psycopg prepares it on the way, and the table is another one then
            connection.execute("SELECT * FROM a")
        migrate.apply(connection, write(folder, {"0005_y.sql": "ALTER TABLE a ADD COLUMN y int;"}))
        assert connection.execute("SELECT * FROM a").fetchall() == []


def test_run_of_a_role_that_may_not_is_refused_with_its_statement(url, three):
    """A right that is missing is told at the statement that wants it."""
    migrate.apply(url, three)
    write(three, {"0004_d.sql": "SELECT 1;\nSET ROLE pg_monitor; DROP TABLE a;"})
    with pytest.raises(MigrationFailed, match=r"0004_d\.sql:2: must be owner of table a"):
        migrate.apply(url, three)


def test_run_on_a_server_that_does_not_count_says_so(url, three):
    """Without the server's counters the guard sees tables and columns go, and not the rows that cascades take."""
    (first, *_) = migrate.apply(f"{url}&options=-ctrack_counts%3Doff", three)
    assert any("track_counts = off" in notice for notice in first.notices)


# ---------------------------------------------------------------- what a script may do to the session


def test_run_tells_which_constraints_nobody_has_held_the_rows_against(url, tmp_path):
    """Only `dao check` knew of a constraint that a script leaves NOT VALID; one that is validated is not told."""
    script = """
        CREATE TABLE p (id int PRIMARY KEY, n int);
        ALTER TABLE p ADD CONSTRAINT "Left" CHECK (n > 0) NOT VALID, ADD CONSTRAINT done CHECK (n < 9) NOT VALID;
        ALTER TABLE p VALIDATE CONSTRAINT done;
    """
    folder = write(tmp_path / "sql", {"1_a.sql": script, "2_b.sql": "CREATE TABLE q ();"})
    first, second = migrate.apply(url, folder)
    (told,) = second.notices
    assert told.startswith('p: the constraint "Left" is NOT VALID')
    assert first.notices == ()
    assert [one.notices for one in migrate.apply(url, write(folder, {"3_c.sql": "CREATE TABLE r ();"}))] == [()]


@pytest.mark.parametrize(
    "how",
    ["SET session_replication_role TO 'Replica';", "ALTER TABLE c DISABLE TRIGGER ALL;"],
)
def test_run_tells_that_foreign_keys_are_not_enforced(url, tmp_path, how):
    """SQLite's runs look at the keys in the end; here rows that break one were stored without a word."""
    tables = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p);"
    (result,) = migrate.apply(
        url, write(tmp_path / "sql", {"1_a.sql": f"{tables} {how} INSERT INTO c VALUES (4); ALTER TABLE c ADD x int"})
    )
    (told,) = result.notices
    assert "foreign keys are not enforced" in told


def test_run_refuses_a_script_that_changes_its_own_encoding(url, tmp_path):
    """What came after that in the same journey was stored with other letters than the file has."""
    folder = write(tmp_path / "sql", {"1_a.sql": 'SET client_encoding TO LATIN1; CREATE TABLE "tä" ();'})
    with pytest.raises(MigrationFailed, match="sets client_encoding to LATIN1"):
        migrate.apply(url, folder)
    write(folder, {"1_a.sql": "SET client_encoding TO 'UTF8'; CREATE TABLE \"tä\" ();"})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_encoding TO LATIN1")
        migrate.apply(connection, write(folder, {"2_b.sql": "COMMENT ON TABLE \"tä\" IS '€'"}))
        assert connection.execute("SHOW client_encoding").fetchone() == ("LATIN1",)
    assert read(url, "SELECT obj_description('\"tä\"'::regclass)") == [("€",)]


def test_run_refuses_a_script_that_moves_the_ledger(url, tmp_path):
    """With its schema the ledger went, and the message was about a newer version of this package."""
    folder = write(tmp_path / "sql", {"1_a.sql": "ALTER SCHEMA public RENAME TO old; CREATE SCHEMA public;"})
    with pytest.raises(MigrationFailed, match=r"1_a.sql: refused to change the ledger's tables") as raised:
        migrate.apply(url, folder)
    assert raised.value.committed == ()


def test_run_on_a_connection_in_pipeline_mode_is_refused(url, three):
    """There no statement has an answer yet, and unpacking it raised a ValueError."""
    with (
        psycopg.connect(url, autocommit=True) as connection,
        connection.pipeline(),
        pytest.raises(MigrationError, match="pipeline mode"),
    ):
        migrate.apply(connection, three)


# ---------------------------------------------------------------- what is not a script's fault


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", ConnectionLost),
        (
            "SET temp_file_limit TO '10kB'; CREATE TABLE t AS SELECT g FROM generate_series(1, 2000000) g ORDER BY -g",
            OperationalError,
        ),
    ],
)
def test_run_that_the_server_breaks_off_says_where(url, three, statement, error):
    """It named no script, and did not always say that nothing was changed."""
    write(three, {"0002_b.sql": f"SET work_mem TO '64kB'; SELECT 1; {statement};"})
    with pytest.raises(error, match=r"0002_b\.sql") as raised:
        migrate.apply(url, three)
    assert raised.value.committed == ()
    assert read(url, "SELECT to_regclass('a')") == [(None,)]


@pytest.mark.parametrize(
    "script",
    [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE a ADD CONSTRAINT k CHECK (id > 0)",
        "CREATE TRIGGER t BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE POLICY p ON a USING (true)",
    ],
)
def test_migration_that_was_done_by_hand_says_so(url, three, script):
    """Of a function, constraint, trigger or policy that is there already, the message had no advice."""
    write(three, {"0004_d.sql": f"{script};"})
    migrate.apply(url, three, to="0003")
    with psycopg.connect(url) as connection:
        connection.execute(script)
    with pytest.raises(MigrationFailed, match="`dao mark 0004_d` notes it as applied"):
        migrate.apply(url, three)


def test_rollback_drop_of_a_table_that_its_migration_rebuilt_is_refused(url, tmp_path):
    """The table counted as made by that migration, and went with the rows that were there before."""
    folder = write(
        tmp_path / "sql",
        {
            "1_t.sql": "CREATE TABLE t (id int); INSERT INTO t VALUES (1);",
            "2_r.sql": "CREATE TABLE n AS SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; CREATE TABLE u ();",
            "2_r.rollback.sql": "DROP TABLE t; CREATE TABLE t (id int); DROP TABLE u;",
        },
    )
    migrate.apply(url, folder)
    with pytest.raises(CheckFailed, match="t: 1 row that no DELETE of the script names"):
        migrate.rollback(url, folder)
    assert read(url, "SELECT * FROM t") == [(1,)]
