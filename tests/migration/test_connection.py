"""Whose connection, whose lock: on a connection that the caller owns, beside readers, and behind other writers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import CheckFailed, DatabaseBusy, MigrationError, MigrationFailed
from dao.migrate.ledger.writer import Writer
from tests.folders import ALONE, IDS, dump, ids, with_fourth

# ---------------------------------------------------------------- the caller's


def test_apply_callers_plain_connection_is_used(theirs, three):
    """`apply` works on a connection that somebody else opened, and leaves it open."""
    assert ids(migrate.apply(theirs, three)) == IDS
    assert theirs.execute("SELECT id FROM b").get == 2
    assert not theirs.in_transaction
    assert migrate.status(theirs, three).is_current
    assert migrate.apply(theirs, three) == []
    assert ids(migrate.rollback(theirs, three, steps=None)) == IDS[::-1]


@pytest.mark.parametrize("memory", [":memory:", ""], ids=["memory", "temporary"])
def test_apply_callers_database_without_a_file_is_migrated(three, memory):
    """A database in memory has no file to name, and can be migrated like another."""
    connection = apsw.Connection(memory)
    assert ids(migrate.apply(connection, three)) == IDS
    migrate.assert_current(connection, three)
    assert ids(migrate.rollback(connection, three)) == ["0003_c"]
    connection.close()


def test_apply_callers_half_read_cursor_is_named_and_no_other_process_blamed(theirs, three):
    """A cursor that holds the past keeps the run from beginning: it was said that another connection held the lock."""
    theirs.execute("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)").fetchall()
    half_read = theirs.execute("SELECT x FROM t")
    with contextlib.closing(apsw.Connection(theirs.filename)) as other:
        other.execute("INSERT INTO t VALUES (3)")
    with pytest.raises(dao.ConnectionBusy, match="finish or close the cursor") as caught:
        migrate.apply(theirs, three)
    assert str(caught.value).endswith("Nothing was changed.")
    half_read.close()
    assert ids(migrate.apply(theirs, three)) == IDS


def allow(*_action):
    return apsw.SQLITE_OK


def go_on(_cursor, _sql, _bindings):
    return True


def as_dict(cursor, row):
    return {column[0]: value for column, value in zip(cursor.get_description(), row, strict=True)}


@pytest.mark.parametrize("enforced", [True, False], ids=["enforced", "not enforced"])
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("CREATE TABLE x (id);", None),
        ("SELEC 1;", MigrationFailed),
        ("INSERT INTO a VALUES (1); INSERT OR ROLLBACK INTO a VALUES (1);", MigrationFailed),
        ("CREATE TABLE x (id REFERENCES a (id)); INSERT INTO x VALUES (77);", CheckFailed),
        (ALONE + "BEGIN; SELEC 1;", MigrationFailed),
        (ALONE + "PRAGMA foreign_keys = ON; VACUUM; PRAGMA foreign_keys = OFF;", None),
        (ALONE + "PRAGMA foreign_keys = OFF; VACUUM; PRAGMA foreign_keys = ON;", None),
    ],
    ids=["success", "failure", "conflict", "check", "failure alone", "off alone", "on alone"],
)
def test_apply_callers_connection_gets_its_settings_back(theirs, tmp_path, enforced, script, error):
    """Whatever happens: foreign keys, authorizer, traces and transaction mode are as they were, no transaction open."""
    theirs.pragma("foreign_keys", enforced)
    theirs.authorizer, theirs.exec_trace, theirs.row_trace = allow, go_on, as_dict
    theirs.transaction_mode = "EXCLUSIVE"
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        migrate.apply(theirs, with_fourth(tmp_path / "sql", script))
    assert (theirs.authorizer, theirs.exec_trace, theirs.row_trace) == (allow, go_on, as_dict)
    assert theirs.transaction_mode == "EXCLUSIVE"
    assert theirs.pragma("foreign_keys") == enforced
    assert not theirs.in_transaction


def test_apply_callers_connection_that_forbids_or_makes_other_rows_is_used(theirs, three):
    """What they forbid their own statements, and what their cursors make of rows, is not the run's.

    Cursors used to make it call the file damaged, an authorizer to end it with the driver's error.
    """

    class Cursor(apsw.Cursor):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.row_trace = as_dict

    def forbid(_action, *_what):
        return apsw.SQLITE_DENY

    theirs.cursor_factory, theirs.authorizer = Cursor, forbid
    assert len(migrate.apply(theirs, three)) == 3
    assert migrate.status(theirs, three).is_current
    assert (theirs.cursor_factory, theirs.authorizer) == (Cursor, forbid)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("pragma", ["ignore_check_constraints", "legacy_alter_table", "recursive_triggers"])
def test_apply_what_a_script_sets_for_the_connection_ends_with_the_run(theirs, tmp_path, pragma, value):
    """A script may set what it needs; the caller's connection does not keep it."""
    theirs.pragma(pragma, value)
    migrate.apply(theirs, with_fourth(tmp_path / "sql", f"PRAGMA {pragma} = {1 - value};"))
    assert theirs.pragma(pragma) == value


@pytest.mark.parametrize(
    "verb",
    [
        migrate.apply,
        migrate.rollback,
        migrate.redo,
        migrate.reset,
        lambda connection, folder: migrate.mark(connection, IDS, folder),
        lambda connection, _folder: migrate.unmark(connection, IDS),
        lambda connection, folder: migrate.accept(connection, IDS, folder),
    ],
    ids=["apply", "rollback", "redo", "reset", "mark", "unmark", "accept"],
)
def test_apply_inside_the_callers_transaction_is_refused(theirs, three, verb):
    """A run is a transaction of its own: inside another one it is refused, and that one goes on."""
    migrate.apply(theirs, three)
    theirs.execute("BEGIN; INSERT INTO a VALUES (1)")
    with pytest.raises(MigrationError, match="in the middle of a transaction: commit or roll back first"):
        verb(theirs, three)
    assert theirs.in_transaction
    theirs.execute("COMMIT")
    assert theirs.execute("SELECT count(*) FROM a").get == 1


def test_status_inside_the_callers_transaction_reads(theirs, three):
    """What only reads works inside a transaction, and whatever the caller makes of rows."""
    migrate.apply(theirs, three)
    theirs.row_trace = as_dict
    with theirs:
        assert migrate.status(theirs, three).is_current
        assert migrate.plan(theirs, three) == []
        migrate.assert_current(theirs, three)


# ---------------------------------------------------------------- beside others


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_apply_other_connections_see_the_old_schema_or_the_new(theirs, path, three, journal):
    """While a run goes on, readers see nothing of it; when it is done, all of it."""
    theirs.execute("CREATE TABLE theirs (id)")
    theirs.pragma("journal_mode", journal)
    reader = apsw.Connection(str(path))
    seen = []

    def look(_event):
        seen.append(reader.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall())

    migrate.apply(theirs, three, report=look)
    *before, committed = seen
    assert before == [[("theirs",)]] * 6
    assert {("a",), ("b",), ("c",), ("theirs",), ("_yoyo_migration",)} < set(committed)
    reader.close()


def test_writer_finds_the_ledger_that_another_made_since_the_schema_was_read(theirs, url, three):
    """Runs at once on a new file all succeed.

    SQLite keeps a schema in memory until a statement runs: all but the first failed.
    """
    assert not theirs.table_exists("main", "_yoyo_migration")
    migrate.apply(url, three)
    theirs.execute("BEGIN IMMEDIATE")
    assert Writer(theirs).before.ids == IDS
    theirs.execute("ROLLBACK")


def test_apply_reader_in_a_transaction_keeps_the_old_schema(url, three):
    """A reader's transaction that began before the run sees the schema of its beginning to its end."""
    reader = dao.connect(url)
    reader.execute("CREATE TABLE theirs (id); BEGIN; SELECT * FROM theirs").fetchall()
    migrate.apply(url, three)
    assert reader.execute("SELECT count(*) FROM sqlite_schema").get == 1
    reader.execute("COMMIT")
    assert reader.execute("SELECT id FROM b").get == 2
    reader.close()


# ---------------------------------------------------------------- behind others

_HOLD = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the write lock of a database until it reads a line, for a block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "verb",
    [
        migrate.apply,
        migrate.rollback,
        migrate.redo,
        migrate.reset,
        lambda url, folder: migrate.mark(url, ["0003_c"], folder),
        lambda url, _folder: migrate.unmark(url, ["0002_b"]),
        lambda url, folder: migrate.accept(url, ["0002_b"], folder),
    ],
    ids=["apply", "rollback", "redo", "reset", "mark", "unmark", "accept"],
)
def test_apply_lock_held_by_another_process_says_by_which(path, url, three, verb):
    """When the busy timeout ends, the error names the process that holds the lock.

    It does not name the arguments, which may be secret.
    """
    migrate.apply(url, three, steps=2)
    before = dump(path)
    with held(path) as process:
        with pytest.raises(DatabaseBusy) as caught:
            verb(f"{url}?busy_timeout=10", three)
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        assert f"{path} is locked, held by process {process.pid} ({name}). Repeat" in str(caught.value)
    assert dump(path) == before


def test_apply_lock_held_by_this_process_says_so(url, three, theirs):
    """A connection of the same process that holds the lock is told apart from others."""
    migrate.apply(url, three, steps=1)
    theirs.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy, match=rf"held by process {os.getpid()} \(this one\)"):
        migrate.apply(f"{url}?busy_timeout=10", three)


def test_apply_exclusive_lock_on_a_rollback_journal_says_by_whom(url, three, theirs):
    """A database that is not in WAL mode and is locked as a whole names its holder, too."""
    theirs.execute("CREATE TABLE x (id); BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseBusy, match=rf"held by process {os.getpid()} \(this one\)"):
        migrate.apply(f"{url}?busy_timeout=10", three)


def test_status_and_plan_while_the_lock_is_held_read(path, url, three):
    """What only reads does not wait for a writer."""
    migrate.apply(url, three, steps=2)
    with held(path):
        assert migrate.status(f"{url}?busy_timeout=0", three).ids("pending") == ["0003_c"]
        assert ids(migrate.plan(f"{url}?busy_timeout=0", three)) == ["0003_c"]


def test_apply_waiting_for_the_lock_is_reported_with_its_holder(path, url, three):
    """A run that waits says so, and for whom; then it goes on."""
    migrate.apply(url, three, steps=2)
    events = []
    with held(path) as process:

        def report(event):
            events.append(event)
            if isinstance(event, migrate.Waiting):
                process.stdin.write("go on\n")
                process.stdin.flush()

        assert ids(migrate.apply(f"{url}?busy_timeout=60000", three, report=report)) == ["0003_c"]
    first = events[0]
    assert isinstance(first, migrate.Waiting)
    assert first.holder.startswith(f"process {process.pid} (")
    assert first.seconds > 0
    assert [type(event).__name__ for event in events][-3:] == ["Started", "Finished", "Committed"]


def test_apply_ledger_is_read_again_under_the_lock(path, url, three, tmp_path):
    """What another process applied while this one waited for the lock is not applied again."""
    migrate.apply(url, three, steps=1)
    program = (
        "import sys; from dao import migrate\n"
        "def report(event):\n"
        "    if isinstance(event, migrate.Started):\n"
        "        print('held', flush=True); sys.stdin.readline()\n"
        "migrate.apply(sys.argv[1], sys.argv[2], report=report)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, url, str(three)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        events = []

        def report(event):
            events.append(event)
            if isinstance(event, migrate.Waiting):
                process.stdin.write("go on\n" * 2)
                process.stdin.flush()

        assert migrate.apply(f"{url}?busy_timeout=60000", three, report=report) == []
    assert process.returncode == 0
    assert {type(event) for event in events} == {migrate.Waiting}
    assert migrate.status(url, three).is_current
