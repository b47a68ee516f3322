"""The stock `yoyo` command on a PostgreSQL database: the same folder and ledger, in both directions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from dao import migrate
from dao.errors import DatabaseBusy, MigrationError
from tests.engines import wait_for_end
from tests.folders import IDS, ids, write

# what tells how yoyo's tables are made, and what is in them
MADE = [
    r"""
    SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
    WHERE attrelid::regclass::text LIKE '\_yoyo%' AND attnum > 0 ORDER BY attrelid::regclass::text, attnum
    """,
    r"""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid::regclass::text LIKE '\_yoyo%' ORDER BY 1, 2
    """,
    "SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY migration_id",
    "SELECT version FROM _yoyo_version ORDER BY 1",
]
YOYO = str(Path(sys.executable).with_name("yoyo"))


@pytest.fixture
def url(new_postgresql_url) -> str:
    """The URL of a new database on the server of the tests."""
    return new_postgresql_url


def yoyo(verb: str, url: str, folder: Path, *arguments: str) -> str:
    """Run the stock command in a process of its own, which must succeed, and return what it prints."""
    database = url.replace("postgresql://", "postgresql+psycopg://")
    command = [YOYO, verb, "--batch", "--no-config-file", "--database", database, *arguments, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(url: str, folder: Path) -> dict[str, str]:
    """Return what `yoyo list` says of each migration: A for applied, U for unapplied."""
    rows = [line.split() for line in yoyo("list", url, folder).splitlines()]
    return {row[1]: row[0] for row in rows if len(row) > 1 and row[0] in {"A", "U"}}


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    """Run a statement on a connection of its own and return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_yoyo_lists_and_unmarks_what_dao_marked(url, three):
    """What `mark` noted, `yoyo list` shows and `yoyo unmark` takes back; and then it is pending here, too."""
    migrate.mark(url, IDS, three)
    assert listed(url, three) == dict.fromkeys(IDS, "A")
    yoyo("unmark", url, three, "--revision", "0002_b")
    assert migrate.status(url, three).ids("pending") == ["0002_b"]


def test_dao_unmarks_what_yoyo_applied(url, three):
    """What `yoyo apply` applied, `status` shows, with its time, and `unmark` takes back for yoyo, too."""
    yoyo("apply", url, three, "--revision", "0001_a")
    status = migrate.status(url, three)
    assert [one.state for one in status.migrations] == ["applied", "pending", "pending"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", status.migrations[0].applied_at or "")
    assert migrate.unmark(url, ["0001"], three) == ["0001_a"]
    assert listed(url, three) == dict.fromkeys(IDS, "U")
    told = [(deed.operation, deed.id, deed.tool_version is None) for deed in migrate.history(url)]
    assert told == [("apply", "0001_a", True), ("unmark", "0001_a", False)]


def test_dao_and_yoyo_take_turns(url, three):
    """Each goes on where the other left off, in both directions."""
    yoyo("apply", url, three, "--revision", "0001_a")
    assert ids(migrate.apply(url, three, steps=1)) == ["0002_b"]
    yoyo("apply", url, three)
    assert migrate.status(url, three).ids("applied") == IDS
    assert ids(migrate.rollback(url, three)) == ["0003_c"]
    yoyo("rollback", url, three, "--revision", "0002_b")
    assert ids(migrate.rollback(url, three)) == ["0001_a"]
    assert rows(url, "SELECT 1 FROM pg_tables WHERE tablename IN ('a', 'b', 'c')") == []


def test_ledger_is_the_one_that_yoyo_makes(url, server, three):
    """Yoyo's tables are those that yoyo itself makes, to the type and the length of each column, and their keys."""
    migrate.mark(url, IDS, three)
    theirs = server.create()
    try:
        yoyo("apply", theirs, three)
        for sql in MADE:
            assert rows(url, sql) == rows(theirs, sql)
    finally:
        server.drop(theirs)


def test_lock_of_a_yoyo_process_is_respected_while_it_may_live(url, three):
    """Yoyo's lock is a row with a process id, of which host nobody knows: it counts while a session may be its own."""
    yoyo("list", url, three)
    with psycopg.connect(url, autocommit=True) as theirs:
        theirs.execute(
            "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now() AT TIME ZONE 'UTC', %s)", [os.getpid()]
        )
        with pytest.raises(
            DatabaseBusy, match=rf"a yoyo command \(process {os.getpid()} on some host, since 20.*break-lock"
        ):
            migrate.mark(url, IDS, three)
    # its session has ended, and with it the process; a pool's is none of yoyo's
    with psycopg.connect(url, autocommit=True, application_name="dao") as ours:
        wait_for_end(ours)
        assert migrate.mark(url, IDS, three) == IDS


def test_ledger_of_another_version_is_refused(url, three):
    """A ledger of a yoyo that is not known is left as it is."""
    migrate.mark(url, ["0001"], three)
    rows(url, "UPDATE _yoyo_version SET version = 99")
    with pytest.raises(MigrationError, match=r"has no version that yoyo .* knows: a newer yoyo wrote it"):
        migrate.mark(url, ["0002"], three)
    rows(
        url,
        "DROP TABLE _yoyo_version, _yoyo_migration; CREATE TABLE _yoyo_migration (id varchar(191), ctime timestamp)",
    )
    with pytest.raises(MigrationError, match=r"written by a yoyo before 6\.0"):
        migrate.status(url, three)


def test_ledger_in_another_schema_is_another_one(url, three):
    """The ledger is that of the connection's own schema: one that is further down its path is not taken for it."""
    migrate.mark(url, IDS, three)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app; SET search_path = app, public")
        assert migrate.status(connection, three).ids("pending") == IDS
        assert migrate.history(connection) == []
        assert migrate.mark(connection, ["0001"], three) == ["0001_a"]
        assert migrate.status(connection, three).ids("pending") == ["0002_b", "0003_c"]
    assert migrate.status(url, three).ids("applied") == IDS


def test_ledger_without_a_column_is_told(url, three):
    """A table of the ledger that somebody has changed is said to be one."""
    migrate.mark(url, IDS, three)
    rows(url, "ALTER TABLE _dao_migration DROP COLUMN checksum")
    with pytest.raises(MigrationError, match=r"does not have the tables that it should .*checksum"):
        migrate.status(url, three)


def test_names_in_two_spellings_are_one(url, three):
    """An id that yoyo noted in another of Unicode's normal forms is moved to ours, without losing its time."""
    write(three, {"0004_é.sql": "CREATE TABLE d (id integer);"})
    yoyo("apply", url, three)
    rows(url, "UPDATE _yoyo_migration SET migration_id = '0004_e' || U&'\\0301' WHERE migration_id LIKE '0004%'")
    applied = migrate.status(url, three).migrations[-1].applied_at
    migrate.unmark(url, ["0003"], three)
    status = migrate.status(url, three)
    assert status.ids("applied") == ["0001_a", "0002_b", "0004_é"]
    assert status.migrations[2].applied_at == applied
