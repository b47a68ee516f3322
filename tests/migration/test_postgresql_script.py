"""Other people's scripts on PostgreSQL: what they cannot do to a run, and what is said when they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import dao
from dao.engine import fetch
from dao.errors import MigrationFailed
from dao.migrate.schema.postgresql.script import run_script
from dao.migrate.schema.postgresql.session import of_run
from dao.migrate.scripts.migration import Script

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in a transaction of a run, which is rolled back."""
    with dao.connect(postgresql_url) as connection:
        yield connection


@pytest.fixture
def script(connection: psycopg.Connection[Any]) -> Iterator[Run]:
    """Run scripts in one transaction; returns how many statements each had, and what was noticed."""

    def run(text: str, *, transactional: bool = True) -> tuple[int, list[str]]:
        notices: list[str] = []
        script = Script(path=Path("m/0001.sql"), text=text, transactional=transactional)
        return run_script(connection, "0001", script, notice=notices.append), notices

    with of_run(connection):
        connection.execute("BEGIN")
        try:
            yield run
        finally:
            connection.execute("ROLLBACK")


@pytest.fixture
def run_alone(connection: psycopg.Connection[Any], script: Run) -> Run:
    """Run scripts outside of a transaction."""
    connection.execute("ROLLBACK")
    return lambda text: script(text, transactional=False)


def failure(run: Run, text: str, **options: Any) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as raised:
        run(text, **options)
    return raised.value


# ---------------------------------------------------------------- the transaction of the run


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BEGIN; {} COMMIT;", ["BEGIN", "COMMIT"]),
        ("begin transaction isolation level serializable; {} end", ["BEGIN", "END"]),
        ("start transaction read write; {} commit and chain;", ["START TRANSACTION", "COMMIT"]),
        ("/* a; /* b */ */ -- c\nCOMMIT; {}", ["COMMIT"]),
    ],
)
def test_script_own_transaction_is_ignored_with_a_notice(connection, script, text, said):
    """BEGIN and COMMIT around everything, as many projects write it, neither end the run's transaction nor fail."""
    before = fetch(connection, "SELECT pg_current_xact_id()::text")
    number, notices = script(text.format("CREATE TABLE a (b int);"))
    assert (number, notices) == (1, [f"ignored {one}: the run is one transaction already" for one in said])
    assert fetch(connection, "SELECT pg_current_xact_id()::text") == before
    connection.execute("ROLLBACK; BEGIN")
    assert fetch(connection, "SELECT to_regclass('a')") == [(None,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ROLLBACK", "refused ROLLBACK: it would undo"),
        ("abort work", "refused ABORT: it would undo"),
        ("PREPARE TRANSACTION 'a'", "refused PREPARE TRANSACTION"),
        ("ROLLBACK TO a", "refused ROLLBACK of savepoint a: this script did not set it"),
        ("RELEASE SAVEPOINT a", "refused RELEASE of savepoint a: this script did not set it"),
        ("SAVEPOINT a", "the script leaves the savepoint a open"),
        ("COMMIT PREPARED 'a'", "COMMIT PREPARED cannot run inside a transaction block"),
        ("DO $$ BEGIN COMMIT; END $$", "invalid transaction termination"),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END'; CALL p()", "invalid transaction termination"),
        ("DISCARD ALL", "refused DISCARD ALL"),
        ("DEALLOCATE PREPARE ALL", "refused DEALLOCATE PREPARE ALL"),
        ("SELECT pg_catalog.pg_advisory_unlock_all()", "refused pg_advisory_unlock_all()"),
        ("SET transaction_read_only = on", "read-only, and the ledger has to be written"),
        ("SET standard_conforming_strings = off", "standard_conforming_strings"),
        ("CREATE TABLE _dao_migration (a int)", "the ledger is kept by the runner"),
    ],
)
def test_script_that_would_reach_further_is_refused(connection, script, text, reason):
    """What would end the run's transaction, free its locks or forge its ledger fails, and the transaction stays."""
    before = fetch(connection, "SELECT pg_current_xact_id()::text")
    error = failure(script, f"\n{text};")
    assert reason in str(error)
    if connection.info.transaction_status == TransactionStatus.INTRANS:
        assert fetch(connection, "SELECT pg_current_xact_id()::text") == before
    else:
        assert connection.info.transaction_status == TransactionStatus.INERROR


def test_script_own_savepoints_work(connection, script):
    """Savepoints that a script sets are its own, whatever their names are."""
    text = 'SAVEPOINT "A;"; CREATE TABLE a(); ROLLBACK TO SAVEPOINT "A;"; RELEASE "A;"; CREATE TABLE a(b int)'
    assert script(text) == (5, [])
    assert fetch(connection, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attnum > 0") == [
        (1,)
    ]


def test_script_set_transaction_is_ignored(script):
    """The run's transaction keeps its level."""
    assert script("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; CREATE TABLE a()") == (
        1,
        ["ignored SET TRANSACTION: the run is one transaction already"],
    )


# ---------------------------------------------------------------- what does not reach the next script


def test_script_settings_end_with_it(connection, script):
    """A run of many is the same as many runs of one: nothing of a session reaches the next script."""
    connection.execute("SET application_name = 'owner'; SET work_mem = '3MB'")
    script(
        """
        SET search_path = pg_catalog; SET application_name = 'script'; RESET work_mem;
        SET my.setting = 'a'; SELECT set_config('lock_timeout', '7', false);
        CREATE TEMP TABLE a (b serial); INSERT INTO a DEFAULT VALUES;
        PREPARE p AS SELECT 1; DECLARE c CURSOR WITH HOLD FOR SELECT 1;
        SELECT pg_advisory_lock(5), pg_advisory_lock(5), pg_advisory_lock(-1), pg_advisory_lock_shared(1, -2);
        LISTEN channel;
        """
    )
    names = ("search_path", "application_name", "work_mem", "lock_timeout", "my.setting")
    (values,) = fetch(connection, "SELECT " + ", ".join(f"current_setting('{name}', true)" for name in names))
    assert dict(zip(names, values, strict=True)) == {
        "search_path": '"$user", public',
        "application_name": "owner",
        "work_mem": "3MB",
        "lock_timeout": "5s",
        "my.setting": "",
    }
    assert fetch(connection, "SELECT name FROM pg_prepared_statements WHERE from_sql") == []
    assert fetch(connection, "SELECT name FROM pg_cursors WHERE name <> ''") == []
    assert fetch(connection, "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == []
    assert fetch(connection, "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()") == []


def test_script_role_ends_with_it(connection, script):
    """A script that takes another role gives it back."""
    script("SET ROLE pg_read_all_data")
    script("SET SESSION AUTHORIZATION pg_monitor")
    assert fetch(connection, "SELECT current_user = session_user AND current_user <> 'pg_monitor'") == [(True,)]


def test_of_run_puts_back_what_a_failed_script_set(connection):
    """What outlives a rollback goes too: prepared statements and advisory locks of a script that failed."""
    connection.execute("SET application_name = 'owner'; SELECT pg_advisory_lock(9)")
    script = Script(
        path=None,
        text="SET application_name='x'; PREPARE p AS SELECT 1; SELECT pg_advisory_lock(5); SELECT nope",
        transactional=False,
    )
    with pytest.raises(MigrationFailed), of_run(connection):
        run_script(connection, "0001", script)
    assert fetch(connection, "SELECT current_setting('application_name')") == [("owner",)]
    assert fetch(
        connection, "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    ) == [("9",)]
    assert fetch(connection, "SELECT name FROM pg_prepared_statements WHERE from_sql") == []


def test_of_run_temporary_tables_of_the_owner_are_refused(connection):
    """A script would find them under names that mean something else everywhere else."""
    connection.execute("CREATE TEMP TABLE a()")
    with pytest.raises(dao.errors.MigrationError, match=r"temporary tables \(a\)"), of_run(connection):
        pass


def test_script_deferred_constraints_are_judged_at_its_end(connection, script):
    """A violation is told with the script that made it, and what is deferred initially is so for the next one."""
    make = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);"
    script(make + "INSERT INTO b VALUES (1); INSERT INTO a VALUES (1)")
    script("INSERT INTO b VALUES (2); INSERT INTO a VALUES (2)")
    script("ALTER TABLE b ADD COLUMN c int")  # 55006 with events pending
    error = failure(script, "INSERT INTO b VALUES (3)")
    assert 'm/0001.sql: insert or update on table "b" violates' in str(error)
    assert "Key (a)=(3) is not present" in str(error)


# ---------------------------------------------------------------- failures


def test_script_that_fails_says_where(script):
    """Line, statement and the server's own words, for an error of the parser and for one at run time."""
    error = failure(script, "CREATE TABLE a (id int PRIMARY KEY);\n-- ä\nSELECT 'ä;ü',\n  nope FROM a;\nSELECT 1")
    assert (error.line, error.statement) == (4, "SELECT 'ä;ü',\n  nope FROM a")
    assert str(error).startswith('m/0001.sql:4: column "nope" does not exist\n')


def test_script_that_fails_at_run_time_names_its_statement(script):
    """An error at run time has no position: the line is that on which the statement begins."""
    rows = "INSERT INTO a VALUES (1);\n"
    error = failure(script, f"CREATE TABLE a (id int PRIMARY KEY);\n{rows}\n{rows}{rows}")
    assert (error.line, error.statement) == (4, "INSERT INTO a VALUES (1)")
    assert "Key (id)=(1) already exists" in str(error)


def test_script_that_fails_in_a_function_says_in_which(script):
    """The server's context is told: where in a function or block it was."""
    error = failure(script, "\nDO $$\nBEGIN\n  RAISE EXCEPTION 'no %', 7;\nEND $$")
    assert error.line == 2
    assert "no 7" in str(error)
    assert "inline_code_block line 3 at RAISE" in str(error)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("SELECT 1;\nCOPY a FROM stdin;\n1\t'\n\\.\n", 2, "COPY of STDIN or STDOUT"),
        ("SELECT 1;\n\\restrict abc\n", 2, r"\restrict is a command of psql"),
        ("SELECT 1;\nSELECT 'abc", 2, "a string begins here and never ends"),
        ("SELECT 1;\n/* /* */", 2, "a comment begins here and never ends"),
    ],
)
def test_script_for_psql_is_refused_before_anything_runs(connection, run_alone, text, line, reason):
    """What only psql understands is refused, with the line, before a statement runs."""
    error = failure(run_alone, f"CREATE TABLE a(); {text}")
    assert (error.line, reason in str(error)) == (line, True)
    assert fetch(connection, "SELECT to_regclass('a')") == [(None,)]


def test_script_with_a_parameter_says_that_there_is_no_value(script):
    """`$1` has no value in a script, and the message says so in these words."""
    assert "a parameter ($1, $2 …), for which a script has no value" in str(failure(script, "SELECT $1::int"))


def test_script_notices_are_passed_on(script):
    """RAISE NOTICE, and what the server notices itself."""
    text = "CREATE TABLE a(); CREATE TABLE IF NOT EXISTS a(); DO $$ BEGIN RAISE WARNING 'careful'; END $$"
    assert script(text) == (3, ['relation "a" already exists, skipping', "careful"])


@pytest.mark.parametrize("text", ["", "-- nothing", "/* a /* b */ ; */ ;;", "\n;\n"])
def test_script_without_a_statement_has_none(script, text):
    """Blanks, comments in comments and semicolons are no statement."""
    assert script(text) == (0, [])


def test_script_of_many_statements_names_the_one_that_failed(connection, script):
    """Many travel together, and the one that fails is known among them."""
    rows = "INSERT INTO a VALUES (1);\n" * 1200
    script("CREATE TABLE a (b int);\n" + rows)
    assert fetch(connection, "SELECT count(*) FROM a") == [(1200,)]
    assert failure(script, f"{rows}INSERT INTO a VALUES ('x');\n{rows}").line == 1201


def test_script_outside_of_a_transaction_runs_what_runs_alone(connection, run_alone):
    """Each statement by itself: what the server refuses in a transaction, or beside another."""
    number, _ = run_alone("CREATE TABLE a (b int); CREATE INDEX CONCURRENTLY i ON a (b); VACUUM a; VACUUM a")
    assert number == 4
    assert fetch(connection, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


def test_script_in_a_transaction_is_told_what_runs_outside(script):
    """The message names the directive."""
    assert "`-- transactional: false`" in str(failure(script, "VACUUM"))
