"""Transactions of SQLite's own kind: one writer, cursors that are not at their end, transactions that it gives up."""

# A block in which something raises is what is tested here, so it has more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import threading

import apsw
import attrs
import pytest

import dao
from dao import Task, engine, tasks, workflows
from dao.rows import TASKS, WORKFLOWS, Change
from dao.testing import make_workflow
from tests.transactions import Stop, add, other, titles

__all__ = ["other"]  # a fixture


@pytest.mark.parametrize(("begin", "end"), [("BEGIN IMMEDIATE", "COMMIT"), ("SAVEPOINT dao", "RELEASE dao")])
def test_transaction_inside_somebodys_own_is_a_savepoint_of_it(connection, begin, end):
    """A savepoint may be the outermost transaction, and be called as ours are."""
    connection.execute(begin)
    with contextlib.suppress(Stop), dao.transaction(connection):
        add(connection, "a")
        raise Stop
    with dao.transaction(connection):
        add(connection, "b")
    assert connection.in_transaction
    connection.execute(end)
    assert titles(connection) == "b"


def test_transaction_failed_statement_that_is_swallowed_keeps_the_rest(connection):
    """A statement that fails undoes itself alone: who goes on keeps the transaction."""
    with dao.transaction(connection):
        add(connection, "a", id="1")
        with contextlib.suppress(dao.UniqueViolation):
            add(connection, "b", id="1")
        add(connection, "c")
    assert titles(connection) == "ac"


def test_transaction_takes_the_write_lock_at_the_start(connection, other):
    """The lock is taken before the first statement, so that nobody else writes meanwhile; reading goes on."""
    with dao.transaction(connection):
        assert titles(other) == ""
        with pytest.raises(dao.DatabaseBusy), dao.transaction(other):
            pytest.fail("two writers at once")
        assert not other.in_transaction


def test_transaction_read_then_write_never_sees_a_stale_snapshot(url, connection):
    """Many threads that read a number and write the next lose none: no BUSY_SNAPSHOT, no lost update."""
    engine.fetch(connection, "CREATE TABLE counter (value INTEGER)")
    engine.fetch(connection, "INSERT INTO counter VALUES (0)")

    def count() -> None:
        own = dao.connect(url)
        for _ in range(25):
            with dao.transaction(own):
                value = engine.fetch(own, "SELECT value FROM counter")[0][0]
                engine.fetch(own, "UPDATE counter SET value = $1", (value + 1,))
        own.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.fetch(connection, "SELECT value FROM counter") == [(100,)]


# ---------------------------------------------------------------- transactions that SQLite gives up

FILL = "INSERT INTO blobs VALUES (zeroblob(1000000))"
INTERRUPT = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
INSERT INTO blobs SELECT interrupt_me() FROM numbers
"""


@pytest.fixture(params=["a trigger's RAISE(ROLLBACK)", "a full disk", "an interruption"])
def give_up(request: pytest.FixtureRequest, connection: apsw.Connection) -> tuple[str, type[dao.Error]]:
    """A statement after which SQLite rolls back the whole transaction, and the error that it raises."""
    engine.fetch(connection, "CREATE TABLE blobs (x)")
    if request.param == "a full disk":
        connection.pragma("max_page_count", connection.pragma("page_count") + 5)
        return FILL, dao.DiskFull
    if request.param == "an interruption":
        connection.create_scalar_function("interrupt_me", connection.interrupt, 0)
        return INTERRUPT, dao.OperationalError
    engine.fetch(
        connection, "CREATE TRIGGER refuse BEFORE INSERT ON blobs BEGIN SELECT raise(ROLLBACK, 'no blobs'); END"
    )
    return FILL, dao.IntegrityError


def test_transaction_given_up_by_sqlite_raises_the_cause(connection, give_up):
    """The error that made SQLite roll back comes out, no other error hides it, and nothing is committed."""
    sql, kind = give_up
    with pytest.raises(kind), dao.transaction(connection):
        add(connection, "a")
        with dao.transaction(connection):
            add(connection, "b")
            engine.fetch(connection, sql)
    assert not connection.in_transaction
    assert titles(connection) == ""
    add(connection, "c")
    assert titles(connection) == "c"


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("after", ["nothing", "a statement", "a nested block", "a failing nested block"])
def test_transaction_given_up_by_sqlite_and_swallowed_fails_as_a_whole(connection, other, give_up, depth, after):
    """Who swallows that error cannot commit: the block fails, with what came before the error and what comes after."""
    sql, kind = give_up
    with pytest.raises(dao.OperationalError, match="nothing of it was committed"), dao.transaction(connection):
        add(connection, "a")
        with contextlib.suppress(kind), contextlib.ExitStack() as blocks:
            for _ in range(depth):
                blocks.enter_context(dao.transaction(connection))
            engine.fetch(connection, sql)
        if after == "a statement":
            add(connection, "b")
        elif after == "a nested block":
            with contextlib.suppress(dao.OperationalError), dao.transaction(connection):
                add(connection, "b")
        elif after == "a failing nested block":
            with contextlib.suppress(Stop), dao.transaction(connection):
                add(connection, "b")
                raise Stop
        assert titles(other) == ""
    assert titles(other) == ""
    assert not connection.in_transaction
    with dao.transaction(connection):
        add(connection, "c")
    assert titles(other) == "c"


def test_transaction_given_up_inside_a_block_fails_at_each_level(connection, give_up):
    """Each block around the swallowed error fails in its turn, from the inside out."""
    sql, kind = give_up
    failed = []
    with pytest.raises(dao.OperationalError), dao.transaction(connection):
        try:
            with dao.transaction(connection):
                add(connection, "a")
                with contextlib.suppress(kind):
                    engine.fetch(connection, sql)
        except dao.OperationalError as error:
            failed.append(error)
        add(connection, "b")
    assert len(failed) == 1
    assert titles(connection) == ""


def test_transaction_given_up_in_a_statement_of_the_drivers_is_noticed_by_the_nested_block(connection, give_up):
    """Where a bare `execute` fails the block around it sees what has happened, and what follows is not kept."""
    sql, _ = give_up
    with pytest.raises(dao.OperationalError, match="nothing of it was committed"), dao.transaction(connection):
        add(connection, "a")
        with contextlib.suppress(apsw.Error), dao.transaction(connection):
            connection.execute(sql)
        add(connection, "b")
    assert titles(connection) == ""


def test_transaction_full_disk_raises_disk_full(connection):
    """Where there is no room the error says so, names the file, and the batch is undone as a whole."""
    add(connection, "a")
    connection.pragma("max_page_count", connection.pragma("page_count") + 10)
    many = [Task(title="b", task_type="agent", description="x" * 5000) for _ in range(50)]
    with pytest.raises(dao.DiskFull, match=r"orchestrator\.db: no room left.*Free some space") as caught:
        tasks.create_many(connection, many)
    assert isinstance(caught.value.__cause__, apsw.FullError)
    assert titles(connection) == "a"
    connection.pragma("max_page_count", 2**30)
    tasks.create_many(connection, many)
    assert tasks.count(connection) == 51


def test_transaction_busy_at_commit_undoes_and_raises_database_busy(database):
    """With a rollback journal a reader can keep the commit waiting: then all is undone, and may be repeated."""
    writer, reader = apsw.Connection(str(database)), apsw.Connection(str(database))
    reader.execute("BEGIN; SELECT * FROM tasks").fetchall()
    with pytest.raises(dao.DatabaseBusy), dao.transaction(writer):
        add(writer, "a")
    assert not writer.in_transaction
    reader.execute("COMMIT")
    assert titles(writer) == ""
    with dao.transaction(writer):
        add(writer, "a")
    assert titles(reader) == "a"
    reader.close()
    writer.close()


WRITES = {
    "run_in_transaction": lambda connection: dao.run_in_transaction(connection, add, "b"),
    "transaction": lambda connection: dao.transaction(connection).__enter__(),
    "one statement": lambda connection: add(connection, "b"),
    "a change": lambda connection: tasks.set_status(connection, "1", "running"),
    "many": lambda connection: tasks.create_many(connection, [Task(title="b", task_type="agent")]),
}


@pytest.mark.parametrize("write", WRITES)
def test_write_beside_a_half_read_cursor_says_at_once_that_it_is_in_the_way(connection, other, write):
    """No retry sets free a lock that a cursor of the connection itself holds.

    It was tried for 30 s, and another was blamed.
    """
    add(connection, "a", id="1")
    half_read = connection.execute("SELECT 1 UNION ALL SELECT 2 FROM tasks")
    add(other, "x")
    with pytest.raises(dao.ConnectionBusy, match=r"orchestrator\.db was changed by another .* close the cursor"):
        WRITES[write](connection)
    assert not connection.in_transaction
    assert titles(other) == "ax"
    half_read.close()
    WRITES["run_in_transaction"](connection)
    assert titles(other) == "abx"


def test_write_in_a_transaction_of_apsws_that_read_first_says_so(connection, other):
    """`with connection:` takes no lock before it reads: what another wrote meanwhile cannot be waited for."""
    with (
        pytest.raises(dao.ConnectionBusy, match=r"end the transaction, that reads.*dao\.transaction") as caught,
        connection,
    ):
        titles(connection)
        add(other, "x")
        dao.run_in_transaction(connection, add, "a")
    assert isinstance(caught.value, dao.DatabaseBusy)  # it is cured like one: by a replay of it all
    with connection:
        titles(connection)
        add(connection, "a")
    assert titles(other) == "ax"


def test_run_in_transaction_cursor_left_open_by_the_function_is_not_replayed(connection):
    """A write that was not read to its end keeps the commit from happening, each time anew: it was tried for 30 s."""
    cursors = []

    def leave_open(connection: apsw.Connection) -> None:
        cursors.append(connection.execute("INSERT INTO configurations (key, value) VALUES ('a', '1') RETURNING key"))

    with pytest.raises(dao.ConnectionBusy, match="another statement of this connection is not at its end"):
        dao.run_in_transaction(connection, leave_open)
    assert len(cursors) == 1
    assert not connection.in_transaction
    cursors.clear()
    assert connection.execute("SELECT count(*) FROM configurations").get == 0


# ---------------------------------------------------------------- a change and a look at it

RENAME = "UPDATE tasks SET title = $1 WHERE id = $2 RETURNING id"
READ = TASKS.get
BROKEN = "SELECT json(title) FROM tasks WHERE id = $1"  # a title is no JSON


@pytest.fixture(params=["wal", "delete"])
def journal(request, connection, other) -> str:
    """In both journal modes."""
    other.close()
    mode: str = connection.pragma("journal_mode", request.param)
    assert mode == request.param
    return mode


def rename(connection: apsw.Connection, title: str, *, read: str = READ, change: str = RENAME) -> Task:
    """Rename the task "1" and return it as it is then."""
    return engine.change(connection, attrs.evolve(TASKS, get=read), Change(change, ""), (title, "1"), ("1",))


def test_change_reads_what_the_trigger_left_and_commits(url, connection, journal):
    """The second statement sees the change and the trigger's, and both are there for others afterwards."""
    add(connection, "a", id="1")
    before = tasks.get_one(connection, "1")
    renamed = rename(connection, "b")
    assert (renamed.title, renamed.updated_at > before.updated_at) == ("b", True)
    assert not connection.in_transaction
    assert connection.txn_state() == apsw.SQLITE_TXN_NONE
    with contextlib.closing(apsw.Connection(connection.filename)) as another:
        assert titles(another) == "b"


def test_change_nobody_writes_in_between(connection, other):
    """What is read is what was changed, not what another made of it: it holds the lock until it has read."""
    add(connection, "a", id="1")
    tried = []

    def look(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql == READ:
            with pytest.raises(dao.DatabaseBusy):
                tasks.set_status(other, "1", "running")
            tried.append(titles(other))
        return True

    connection.exec_trace = look
    rename(connection, "b")
    assert tried == ["a"]
    assert titles(other) == "b"


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt])
def test_change_exception_before_its_end_undoes_the_change(connection, journal, kind):
    """If the row cannot be read, or somebody presses Ctrl-C then, nothing was changed; the connection goes on."""
    add(connection, "a", id="1")

    def fail(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql == READ:
            raise kind("enough")
        return True

    connection.exec_trace = fail
    with pytest.raises(kind, match="enough"):
        rename(connection, "b")
    connection.exec_trace = None
    assert titles(connection) == "a"
    assert not connection.in_transaction
    assert tasks.set_status(connection, "1", "running").title == "a"


def test_change_error_of_the_database_undoes_the_change(connection, other):
    """Likewise if the error is SQLite's own; inside a transaction what came before it stays, if that is wanted."""
    add(connection, "a", id="1")
    with pytest.raises(apsw.SQLError, match="malformed JSON"):
        rename(connection, "b", read=BROKEN)
    assert titles(connection) == "a"
    with dao.transaction(connection):
        add(connection, "c")
        with pytest.raises(apsw.SQLError, match="malformed JSON"):
            rename(connection, "b", read=BROKEN)
    assert titles(other) == "ac"


def test_change_no_row_or_one_that_is_passed_by_is_refused(connection):
    """Without a row it was not found; a row that the change passed by is stale, and stays as it is."""
    with pytest.raises(dao.NotFound):
        rename(connection, "b")
    add(connection, "a", id="1")
    with pytest.raises(dao.StaleRecord):
        rename(connection, "b", change=RENAME.replace("WHERE", "WHERE 0 AND"))
    assert titles(connection) == "a"
    assert not connection.in_transaction


def test_change_locked_database_is_busy(connection, other):
    """While another writes, the change is refused as that of a transaction is."""
    add(connection, "a", id="1")
    with dao.transaction(connection), pytest.raises(dao.DatabaseBusy):
        rename(other, "b")
    assert titles(other) == "a"


def test_change_busy_at_the_commit_changes_nothing(connection, journal, url):
    """In rollback-journal mode a reader can keep the commit back: then nothing is changed, and it says so."""
    add(connection, "a", id="1")
    connection.set_busy_timeout(0)
    with contextlib.closing(apsw.Connection(connection.filename)) as reader:
        reading = reader.execute("SELECT * FROM tasks")
        if journal == "delete":
            with pytest.raises(dao.DatabaseBusy):
                rename(connection, "b")
        else:
            rename(connection, "b")
        reading.close()
    assert titles(connection) == ("a" if journal == "delete" else "b")


def test_change_beside_a_statement_that_is_not_at_its_end_does_not_pretend(connection, other):
    """A change is refused while a write of the caller's is not at its end.

    That write could still undo the change: a refusal is better than a later loss.
    """
    add(connection, "a", id="1")
    half = connection.execute("UPDATE tasks SET title = 'half' WHERE id = '1' RETURNING id")
    with pytest.raises(dao.Error):
        rename(connection, "b")
    half.close()
    assert titles(connection) == titles(other) == "a"


def test_change_failure_leaves_the_callers_cursors_alone(connection):
    """Somebody who reads on, in a loop of his own, reads to the end, whatever fails in between."""
    for name in "abc":
        add(connection, name, **({"id": "1"} if name == "a" else {}))
    seen = []
    for (title,) in connection.execute("SELECT title FROM tasks ORDER BY title"):
        seen.append(title)
        with pytest.raises(apsw.SQLError, match="malformed JSON"):
            rename(connection, "z", read=BROKEN)
    assert seen == ["a", "b", "c"]
    assert titles(connection) == "abc"


def test_change_row_that_a_trigger_takes_away_is_kept_back(connection):
    """A change after which there is no row to return raises NotFound, and is undone with all that its triggers did."""
    connection.execute(
        "CREATE TEMP TABLE gone (id); "
        "CREATE TEMP TRIGGER archive AFTER UPDATE OF status ON workflows WHEN new.status = 'archived' "
        "BEGIN INSERT INTO gone VALUES (new.id); DELETE FROM workflows WHERE id = new.id; END"
    )
    workflows.create(connection, make_workflow(id="1"))
    with pytest.raises(dao.NotFound):
        workflows.set_status(connection, "1", "archived")
    assert workflows.exists(connection, "1")
    assert connection.execute("SELECT * FROM gone").fetchall() == []


def test_change_row_that_comes_while_it_looks_is_changed(connection, other):
    """A workflow that another stores between the change and the look was not passed by: it gets the status."""
    added = []

    def look(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql == WORKFLOWS.get and not added:
            added.append(workflows.create(other, make_workflow(id="1")))
        return True

    connection.exec_trace = look
    assert workflows.set_status(connection, "1", "paused").status == "paused"
    assert added


@pytest.mark.parametrize("steps", range(1, 8))
def test_transaction_interrupted_while_it_begins_is_not_open(connection, other, steps):
    """A time limit or a Ctrl-C that comes as BEGIN runs leaves no transaction behind."""
    connection.set_progress_handler(lambda: True, steps)
    with contextlib.suppress(dao.OperationalError, apsw.InterruptError), dao.transaction(connection):
        pass
    connection.set_progress_handler(None)
    assert not connection.in_transaction
    add(other, "a")


def test_transaction_interrupted_as_a_nested_block_has_ended_raises_the_interruption(connection):
    """A Ctrl-C that comes as the savepoint is released goes on, and not as SQLite's "no such savepoint"."""

    def interrupt(cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        if sql == "RELEASE dao":
            connection.exec_trace = None
            cursor.connection.execute(sql)
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt), dao.transaction(connection):
        add(connection, "a")
        with dao.transaction(connection):
            connection.exec_trace = interrupt
    assert not connection.in_transaction
    assert titles(connection) == ""
