"""Errors: the tree, what SQLite's errors become, and what they say."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import multiprocessing
import pickle
import re
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import engine, errors, tasks
from dao.engine import sqlite
from tests import strategies

TASK = "INSERT INTO tasks (id, title, task_type) VALUES ('1', 'a', 'b')"


def raised(connection: apsw.Connection, sql: str, parameters: tuple = ()) -> dao.Error:
    """Return the error of this package that a statement raises."""
    with pytest.raises(dao.Error) as caught:
        engine.fetch(connection, sql, parameters)
    return caught.value


# ---------------------------------------------------------------- the tree

TREE = {
    dao.Error: Exception,
    dao.NotFound: (dao.Error, LookupError),
    dao.StaleRecord: dao.Error,
    dao.UnreadableRow: dao.Error,
    dao.InvalidValue: (dao.Error, ValueError),
    dao.InvalidCursor: dao.InvalidValue,
    dao.ConfigurationTypeError: (dao.Error, TypeError),
    dao.IntegrityError: dao.Error,
    dao.UniqueViolation: dao.IntegrityError,
    dao.ForeignKeyViolation: dao.IntegrityError,
    dao.CheckViolation: dao.IntegrityError,
    dao.NotNullViolation: dao.IntegrityError,
    dao.OperationalError: dao.Error,
    dao.DatabaseBusy: dao.OperationalError,
    dao.ConnectionBusy: dao.DatabaseBusy,
    dao.CommitUnknown: dao.OperationalError,
    dao.DiskFull: dao.OperationalError,
    dao.DatabaseCorrupt: dao.OperationalError,
    dao.ReadOnlyDatabase: dao.OperationalError,
    dao.UnsupportedEngine: dao.OperationalError,
    dao.PoolTimeout: dao.Error,
    dao.ConnectionLost: dao.OperationalError,
    dao.PoolClosed: dao.Error,
    dao.LeaseLost: dao.StaleRecord,
    dao.InvalidURL: (dao.Error, ValueError),
    dao.MigrationError: dao.Error,
    dao.MigrationFileError: dao.MigrationError,
    dao.MigrationFailed: dao.MigrationError,
    dao.LedgerMismatch: dao.MigrationError,
    dao.Irreversible: dao.MigrationError,
    dao.CheckFailed: dao.MigrationError,
    dao.PrepareFailed: dao.Error,
    dao.ReplicationError: dao.Error,
    dao.CopyFailed: dao.Error,
    dao.SchemaOutOfDate: dao.MigrationError,
    dao.SchemaTooNew: dao.MigrationError,
}


@pytest.mark.parametrize(("error", "bases"), TREE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_error_class_has_its_place_in_the_tree(error, bases):
    """Each error is what its callers may catch it as, and says in its docstring what it means."""
    assert error.__bases__ == (bases if isinstance(bases, tuple) else (bases,))
    assert error.__doc__


def test_errors_all_are_public_and_known():
    """Every exception of the module is exported by the package, and is in the tree above."""
    defined = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == "dao.errors"}
    assert defined == {*TREE}
    assert {error.__name__ for error in defined} == {*errors.__all__}
    assert {*errors.__all__} <= {*dao.__all__}


def filled(kind: type[dao.Error]) -> st.SearchStrategy[dao.Error]:
    """Errors of a class with something in each of its attributes, a note, and a cause that cannot be pickled."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    values = st.lists(st.text() | st.integers() | st.sampled_from([list[int], dao.Task, Path("a")])).map(tuple)

    def made(message: str, given: dict[str, object]) -> dao.Error:
        error = kind(message, **given)
        error.add_note("noted")
        error.__cause__ = apsw.SQLError(lambda: None)
        return error

    return st.builds(made, st.text(), st.fixed_dictionaries(dict.fromkeys(keywords, values)))


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
@strategies.SHARED
@given(data=st.data())
def test_error_pickled_or_copied_comes_back_with_its_attributes(kind, data):
    """Every error crosses to another process whole: those with required keywords broke the pool that they came from."""
    error = data.draw(filled(kind))
    pickled = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    for same in (*pickled, copy.copy(error), copy.deepcopy(error)):
        assert type(same) is kind
        assert (same.args, vars(same)) == (error.args, vars(error))
        assert same.__notes__ == ["noted"]


def test_error_text_has_details_what_stays_and_advice():
    """An error keeps apart what its text shows below the message: details, what is committed, what to do next."""
    error = dao.CheckFailed(
        "broken", violations=[1], details=[dao.migrate.Loss("table", "a\nb", 2), "c"], advice="mend it"
    )
    lost = r"  a\nb: the table is dropped with 2 rows"
    assert str(error) == f"broken\n{lost}\n  c\nmend it"
    for committed, said in (((), "Nothing was changed."), (("1_a", "2_\nb"), r"These stay committed: 1_a, 2_\nb.")):
        error.committed = committed
        assert str(error) == f"broken\n{lost}\n  c\n{said}\nmend it"
    assert error.to_dict() == {
        "type": "CheckFailed",
        "message": str(error),
        "violations": ["1"],
        "details": [lost.strip(), "c"],
        "committed": ["1_a", "2_\nb"],
        "advice": "mend it",
    }
    assert dao.PoolClosed("closed").to_dict() == {
        "type": "PoolClosed", "message": "closed", "details": [], "committed": None, "advice": None
    }  # fmt: skip


def test_error_of_a_process_pool_reaches_the_caller(url):
    """What a function of a worker process raises is what `result()` raises; the pool stays usable."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        error = pool.submit(raise_not_found, url).exception(60)
        assert (type(error), error.table, error.key) == (dao.NotFound, "tasks", "nobody")
        assert pool.submit(int, 1).result(60) == 1


def raise_not_found(url: str) -> None:
    """Look for a task that is not there: in another process."""
    dao.tasks.get_one(dao.connect(url), "nobody")


# ---------------------------------------------------------------- constraints

SETUP = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, code TEXT UNIQUE, a ANY, b ANY, UNIQUE (a, b)) STRICT;
CREATE TABLE children (parent REFERENCES parents (id), strict_parent REFERENCES parents (id) ON DELETE RESTRICT);
CREATE TABLE pairs (x, y, PRIMARY KEY (x, y)) WITHOUT ROWID;
CREATE TABLE loose (x CHECK (x > 0));
CREATE TABLE quoted (kind CONSTRAINT quoted_kind CHECK (kind <> 'other'), other CONSTRAINT quoted_other CHECK (other));
CREATE UNIQUE INDEX unique_double ON loose (x * 2);
CREATE TABLE "odd name" ("odd column" TEXT NOT NULL, n INTEGER) STRICT;
CREATE TABLE guarded (x);
CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT raise(ABORT, 'guarded: index ''no'''); END;
INSERT INTO parents VALUES (1, 'a', 1, 2), (2, 'b', 3, 4);
INSERT INTO children VALUES (1, 2);
INSERT INTO pairs VALUES (1, 2);
INSERT INTO loose (rowid, x) VALUES (1, 1);
"""

VIOLATIONS = {
    # a named CHECK: table, columns and name
    "UPDATE tasks SET title = ' '": (
        dao.CheckViolation, 275, "tasks", ("title",), "tasks_title_not_blank"
    ),
    "UPDATE tasks SET status = 'done'": (
        dao.CheckViolation, 275, "tasks", ("status",), "tasks_status_known"
    ),
    "UPDATE tasks SET config = '[]'": (
        dao.CheckViolation, 275, "tasks", ("config",), "tasks_config_json_object"
    ),
    "UPDATE tasks SET created_at = '2025-01-01'": (
        dao.CheckViolation, 275, "tasks", ("created_at",), "tasks_created_at_utc_ms"
    ),
    "INSERT INTO tool_executions (id, tool_name, input, status) VALUES ('1', 'a', '1', 'failed')": (
        dao.CheckViolation, 275, "tool_executions", ("status", "completed_at"),
        "tool_executions_completed_at_when_finished",
    ),
    "INSERT INTO quoted VALUES ('other', 1)": (dao.CheckViolation, 275, "quoted", ("kind",), "quoted_kind"),
    # a CHECK without a name: SQLite gives its text
    "INSERT INTO loose VALUES (0)": (dao.CheckViolation, 275, None, (), "x > 0"),
    # keys
    TASK: (dao.UniqueViolation, 1555, "tasks", ("id",), None),
    "INSERT INTO parents (id) VALUES (1)": (dao.UniqueViolation, 1555, "parents", ("id",), None),
    "INSERT INTO pairs VALUES (1, 2)": (dao.UniqueViolation, 1555, "pairs", ("x", "y"), None),
    "INSERT INTO parents (code) VALUES ('a')": (dao.UniqueViolation, 2067, "parents", ("code",), None),
    "INSERT INTO parents (a, b) VALUES (1, 2)": (dao.UniqueViolation, 2067, "parents", ("a", "b"), None),
    "INSERT INTO loose VALUES (1)": (dao.UniqueViolation, 2067, None, (), "unique_double"),
    "INSERT INTO loose (rowid, x) VALUES (1, 5)": (dao.UniqueViolation, 2579, "loose", ("rowid",), None),
    # values
    "INSERT INTO tasks (id, task_type) VALUES ('2', 'b')": (dao.NotNullViolation, 1299, "tasks", ("title",), None),
    "UPDATE tasks SET config = NULL": (dao.NotNullViolation, 1299, "tasks", ("config",), None),
    "INSERT INTO pairs VALUES (1, NULL)": (dao.NotNullViolation, 1299, "pairs", ("y",), None),
    "UPDATE tasks SET title = x'00'": (dao.IntegrityError, 3091, "tasks", ("title",), None),
    "INSERT INTO \"odd name\" VALUES (x'00', 1)": (dao.IntegrityError, 3091, "odd name", ("odd column",), None),
    # parents: SQLite names nothing
    "INSERT INTO children VALUES (9, NULL)": (dao.ForeignKeyViolation, 787, None, (), None),
    "DELETE FROM parents WHERE id = 1": (dao.ForeignKeyViolation, 787, None, (), None),
    "DELETE FROM parents WHERE id = 2": (dao.ForeignKeyViolation, 1811, None, (), None),
    "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ('9', '1', 0)": (
        dao.ForeignKeyViolation, 787, None, (), None
    ),
    # somebody's trigger: its own words
    "INSERT INTO guarded VALUES (1)": (dao.IntegrityError, 1811, None, (), None),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), VIOLATIONS.items(), ids=lambda value: str(value)[:60])
def test_translate_constraint_names_what_refused_the_row(connection, sql, expected):
    """A refused row is an error of its kind that carries table, columns and constraint, as far as SQLite tells."""
    kind, code, table, columns, constraint = expected
    connection.execute(SETUP).fetchall()
    connection.execute(TASK).fetchall()
    error = raised(connection, sql)
    assert type(error) is kind
    assert (error.table, error.columns, error.constraint) == (table, columns, constraint)
    assert isinstance(error.__cause__, apsw.ConstraintError)
    assert error.__cause__.extendedresult == code
    for name in filter(None, [table, *columns[:1], constraint]):
        assert name in str(error) or kind is dao.CheckViolation


def test_translate_message_of_a_trigger_is_kept(connection):
    """What somebody's trigger says comes out as it is."""
    connection.execute(SETUP).fetchall()
    assert str(raised(connection, "INSERT INTO guarded VALUES (1)")) == "guarded: index 'no'"


#: The CHECKs that look at two columns.
OF_TWO = {
    "task_dependencies_not_itself",
    "tasks_lease_of_worker",
    "tasks_lease_when_running",
    "tool_executions_attempt_of_task",
    "tool_executions_completed_at_when_finished",
    "tool_executions_step_of_attempt",
}


def test_translate_check_constraint_every_one_of_the_schema_has_its_table_and_columns(connection):
    """Each named CHECK of the schema leads to its table and to the columns that it looks at."""
    tables = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql LIKE 'CREATE TABLE%'").fetchall()
    found = [(table, name) for table, sql in tables for name in re.findall(r"CONSTRAINT (\w+)\s+CHECK", sql)]
    assert len(found) > 40
    for table, name in found:
        error = apsw.ConstraintError(f"CHECK constraint failed: {name}")
        error.extendedresult = apsw.SQLITE_CONSTRAINT_CHECK
        violation = sqlite.translate(error, connection)
        owner, columns = violation.table, violation.columns
        assert owner == table
        assert len(columns) == (2 if name in OF_TWO else 1)
        assert name.startswith(f"{table}_{columns[0]}") or name in OF_TWO


# ---------------------------------------------------------------- the database


def test_translate_damaged_page_raises_database_corrupt(tmp_path):
    """A page that makes no sense is reported as damage, with the file's name."""
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (x)").fetchall()
    connection.executemany("INSERT INTO t VALUES (zeroblob(?))", [(1000,)] * 50)
    connection.close()
    data = path.read_bytes()
    path.write_bytes(data[: 2 * 4096] + b"\xff" * (len(data) - 2 * 4096))
    connection = dao.connect(f"sqlite:///{path}")
    error = raised(connection, "SELECT * FROM t")
    connection.close()
    assert type(error) is dao.DatabaseCorrupt
    assert isinstance(error.__cause__, apsw.CorruptError)
    assert re.search(r"a\.db is damaged.*restore a snapshot \(`dao restore`; .*\) or a backup", str(error))


def test_translate_file_that_becomes_no_database_raises_database_corrupt(connection, tmp_path):
    """A file that is no database is named as one, also where it is only attached."""
    (tmp_path / "letter").write_text("no database " * 100)
    error = raised(connection, "ATTACH $1 AS other", (str(tmp_path / "letter"),))
    assert type(error) is dao.DatabaseCorrupt
    assert isinstance(error.__cause__, apsw.NotADBError)


def hold_lock(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    other.execute("BEGIN IMMEDIATE")
    return TASK


def stale_snapshot(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.execute("BEGIN; SELECT * FROM tasks").fetchall()
    other.execute(TASK).fetchall()
    return TASK


def open_cursor(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.execute("INSERT INTO tasks (id, title, task_type) VALUES ('8', 'a', 'b'), ('9', 'a', 'b')").fetchall()
    keep.append(connection.execute("SELECT * FROM tasks"))  # it stands in the middle of the table
    return "DROP TABLE tasks"


def no_room(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.pragma("max_page_count", connection.pragma("page_count"))
    return "CREATE TABLE t AS SELECT zeroblob(100000)"


def missing_folder(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    return "ATTACH '/no/such/folder/a.db' AS other"


def query_only(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.pragma("query_only", True)
    return TASK


def interrupted(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.create_scalar_function("interrupt_me", connection.interrupt, 0)
    return "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(interrupt_me()) FROM n"


def too_big(connection: apsw.Connection, other: apsw.Connection, keep: list[object]) -> str:
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, 1000)
    return "SELECT zeroblob(2000)"


Provoke = Callable[[apsw.Connection, apsw.Connection, list[object]], str]
FAILURES: dict[Provoke, tuple[type[dao.Error], int, str]] = {
    hold_lock: (dao.DatabaseBusy, apsw.SQLITE_BUSY, "is locked by another connection.*try again"),
    stale_snapshot: (
        dao.ConnectionBusy,
        apsw.SQLITE_BUSY_SNAPSHOT,
        "changed by another.* end the transaction, that reads",
    ),
    open_cursor: (dao.ConnectionBusy, apsw.SQLITE_LOCKED, "another statement of this connection .*close its cursor"),
    no_room: (dao.DiskFull, apsw.SQLITE_FULL, "no room left to write; the write was undone. Free some space"),
    missing_folder: (dao.OperationalError, apsw.SQLITE_CANTOPEN, "unable to open.*check that the file and its folder"),
    query_only: (
        dao.ReadOnlyDatabase,
        apsw.SQLITE_READONLY,
        "is read-only on this connection: look for PRAGMA query_only",
    ),
    interrupted: (dao.OperationalError, apsw.SQLITE_INTERRUPT, "interrupted; .*repeat the transaction"),
    too_big: (dao.OperationalError, apsw.SQLITE_TOOBIG, "too big; .*limit"),
}


@pytest.mark.parametrize("provoke", FAILURES, ids=lambda provoke: provoke.__name__)
def test_translate_failure_of_the_database_is_an_error_of_its_kind(connection, url, provoke):
    """Each failure has its kind and keeps the driver's error; the message names the file and says what to do."""
    kind, code, message = FAILURES[provoke]
    sqlite.set_busy_timeout(connection, 0)
    other = dao.connect(url)
    keep: list[object] = []
    error = raised(connection, provoke(connection, other, keep))
    keep.clear()
    other.close()
    assert type(error) is kind
    assert error.__cause__.extendedresult == code
    assert re.search(rf"orchestrator\.db.*{message}", str(error))


def test_translate_snapshot_of_a_transaction_that_is_not_there_is_another_connections(connection):
    """BEGIN IMMEDIATE may report an old snapshot when another was faster to the end; then a retry does help."""
    error = sqlite.translate(apsw.exception_for(apsw.SQLITE_BUSY_SNAPSHOT), connection)
    assert type(error) is dao.DatabaseBusy


def test_translate_error_of_a_database_in_memory_names_none():
    """Where there is no file the message says just what it is."""
    connection = dao.connect("sqlite://")
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, 1000)
    assert str(raised(connection, "SELECT zeroblob(2000)")).startswith("the database: ")
    connection.close()


# What each kind of SQLite's errors becomes; None is what a caller can do nothing about: a bug.
KINDS = {
    "ABORT": None,
    "AUTH": None,
    "BUSY": dao.DatabaseBusy,
    "CANTOPEN": dao.OperationalError,
    "CONSTRAINT": dao.IntegrityError,
    "CORRUPT": dao.DatabaseCorrupt,
    "EMPTY": None,
    "ERROR": None,
    "FORMAT": None,
    "FULL": dao.DiskFull,
    "INTERNAL": None,
    "INTERRUPT": dao.OperationalError,
    "IOERR": dao.OperationalError,
    "LOCKED": dao.DatabaseBusy,
    "MISMATCH": None,
    "MISUSE": None,
    "NOLFS": None,
    "NOMEM": dao.OperationalError,
    "NOTADB": dao.DatabaseCorrupt,
    "NOTFOUND": None,
    "PERM": dao.OperationalError,
    "PROTOCOL": dao.DatabaseBusy,
    "RANGE": None,
    "READONLY": dao.ReadOnlyDatabase,
    "SCHEMA": None,
    "TOOBIG": dao.OperationalError,
}
NO_ERRORS = {"OK", "ROW", "DONE", "NOTICE", "WARNING"}
CODES = {
    name.removeprefix("SQLITE_"): code
    for mapping in (apsw.mapping_result_codes, apsw.mapping_extended_result_codes)
    for name, code in mapping.items()
    if isinstance(name, str) and name.split("_")[1] not in NO_ERRORS
}


def test_translate_every_result_code_has_its_kind(connection):
    """Every code that SQLite has, extended ones included, is an error of the kind above or surfaces as it is."""
    for name, code in CODES.items():
        error = sqlite.translate(apsw.exception_for(code), connection)
        expected = KINDS[name.partition("_")[0]]
        assert isinstance(error, expected) if expected else error is None, name


@pytest.mark.parametrize("code", [apsw.SQLITE_READONLY_RECOVERY, apsw.SQLITE_READONLY_ROLLBACK])
def test_translate_read_only_after_a_crash_asks_for_recovery(connection, code):
    """A database that only a writer can recover is not just called read-only."""
    error = sqlite.translate(apsw.exception_for(code), connection)
    assert re.search(r"orchestrator\.db needs recovery after a crash.*mode=rw", str(error))


# ---------------------------------------------------------------- bugs


@pytest.mark.parametrize(
    ("sql", "parameters", "kind"),
    [
        ("SELECT no_such_function()", (), apsw.SQLError),
        ("SELEC 1", (), apsw.SQLError),
        ("SELECT $1", (), apsw.BindingsError),
        ("SELECT 1", (1,), apsw.BindingsError),
    ],
)
def test_fetch_bug_in_a_statement_surfaces_as_the_driver_raised_it(connection, sql, parameters, kind):
    """A mistake in our own SQL is not dressed up as something that a caller could handle."""
    with pytest.raises(kind) as caught:
        engine.fetch(connection, sql, parameters)
    assert not isinstance(caught.value, dao.Error)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM tsks", "no such table: tsks"),
        ("SELECT colour FROM tasks", "no such column: colour"),
        ("INSERT INTO tsks (id) VALUES (1)", "no such table: tsks"),
        ("INSERT INTO tasks (colour) VALUES (1)", "table tasks has no column named colour"),
        ("INSERT INTO tasks (id) VALUES (1) ON CONFLICT (title) DO NOTHING", "ON CONFLICT clause does not match any"),
        ("UPDATE tasks SET colour = 1", "no such column: colour"),
        ("DELETE FROM tsks", "no such table: tsks"),
    ],
)
def test_fetch_missing_table_or_column_raises_schema_out_of_date(connection, sql, message):
    """A schema that lacks what a statement needs is not the program's: the message says how to get it.

    An INSERT gave the driver's error where a SELECT gave this.
    """
    error = raised(connection, sql)
    assert type(error) is dao.SchemaOutOfDate
    assert isinstance(error.__cause__, apsw.SQLError)
    assert re.search(rf"orchestrator\.db: {message}.*run `dao migrate`", str(error))


def test_fetch_closed_connection_surfaces_as_the_driver_raised_it(url):
    """Using a connection after its end is a bug of the caller's."""
    connection = dao.connect(url)
    connection.close()
    with pytest.raises(apsw.ConnectionClosedError):
        dao.tasks.count(connection)


def test_translate_other_exception_is_left_alone(connection):
    """What is not SQLite's is nobody's to translate."""
    assert sqlite.translate(ValueError("a"), connection) is None


@pytest.mark.parametrize("function", [engine.fetch, engine.execute_many], ids=lambda function: function.__name__)
def test_execute_any_way_translates_alike(connection, function):
    """One row or many: the same mistake is the same error, and leaves no transaction open."""
    connection.execute(TASK).fetchall()
    rows = () if function is engine.fetch else [()]
    with pytest.raises(dao.UniqueViolation) as caught:
        function(connection, TASK, rows)
    assert isinstance(caught.value.__cause__, apsw.ConstraintError)
    assert not connection.in_transaction


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: tasks.create_many(c, [dao.Task(id="1", title="a", task_type="b")] * 2), dao.UniqueViolation),
        (lambda c: tasks.create_many(c, ["no task"]), TypeError),
        (lambda c: tasks.set_status(c, "1", "failed"), dao.NotFound),
        (lambda c: tasks.get(c, object()), TypeError),
        (lambda c: engine.fetch(c, "SELEC"), apsw.SQLError),
        (lambda c: (dao.configurations.set(c, "k", 1), dao.configurations.get(c, "k", 5)), TypeError),
    ],
)
def test_error_that_was_dealt_with_keeps_no_frame_alive(connection, call, kind):
    """The caller's variables go with the error, not at some collection: a cursor that was half read lets go at once."""
    tasks.create(connection, dao.Task(title="a", task_type="b"))

    def fail(_local: object) -> None:
        call(connection)

    local = threading.Event()  # anything that can be pointed at
    left = weakref.ref(local)
    gc.disable()
    try:
        with contextlib.suppress(kind):
            fail(local)
        del local
        assert left() is None
    finally:
        gc.enable()


def test_insert_into_a_schema_that_no_longer_works_says_where_to_look(connection):
    """A fault of the schema itself is no migration that is pending.

    The program does not name what is missing, and the advice used to be to migrate.
    """
    task = dao.Task(title="x", task_type="y")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON tasks BEGIN INSERT INTO none VALUES (1); END")
    with pytest.raises(dao.OperationalError, match=r"no such table: main\.none.*`dao status`") as raised:
        tasks.create(connection, task)
    assert not isinstance(raised.value, dao.errors.SchemaOutOfDate)
    connection.execute("DROP TRIGGER t; CREATE TABLE p (x); CREATE TABLE c (p REFERENCES p (x))")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON tasks BEGIN INSERT INTO c VALUES (1); END")
    with pytest.raises(dao.OperationalError, match="foreign key mismatch"):
        tasks.create(connection, task)
