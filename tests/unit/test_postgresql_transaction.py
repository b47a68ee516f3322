"""Transactions as PostgreSQL has them: a failed statement spoils the block, and many write at once."""

# A block in which something raises is what is tested here, so it has more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dao
from dao import engine, tasks
from dao.rows import TASKS
from tests.concurrency import PATIENCE
from tests.transactions import Stop, add, titles


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated, empty database."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        yield connection


@pytest.fixture
def other(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Another connection to the same database."""
    with contextlib.closing(dao.connect(postgresql_url)) as connection:
        yield connection


# ---------------------------------------------------------------- statements that fail


@pytest.mark.parametrize("depth", [0, 1])
def test_transaction_failed_statement_that_is_swallowed_fails_as_a_whole(connection, depth):
    """PostgreSQL would answer the commit with a rollback and no error, as psycopg's own block does."""
    with (
        pytest.raises(dao.OperationalError, match="a statement of this transaction failed"),
        contextlib.ExitStack() as blocks,
    ):
        for _ in range(depth + 1):
            blocks.enter_context(dao.transaction(connection))
        add(connection, "a", id="1")
        with contextlib.suppress(dao.UniqueViolation):
            add(connection, "b", id="1")
    assert titles(connection) == ""
    add(connection, "c")
    assert titles(connection) == "c"


def test_transaction_statement_after_a_failed_one_says_what_to_do(connection):
    """It is refused as the server has it, with the way out."""
    with (
        pytest.raises(dao.OperationalError, match=r"put a dao\.transaction of its own around"),
        dao.transaction(connection),
    ):
        add(connection, "a", id="1")
        with contextlib.suppress(dao.UniqueViolation):
            add(connection, "a", id="1")
        add(connection, "b")


def test_transaction_failed_statement_in_a_block_of_its_own_leaves_the_rest(connection):
    """Whoever expects a statement to fail puts a block around it, on either engine."""
    with dao.transaction(connection):
        add(connection, "a", id="1")
        with contextlib.suppress(dao.UniqueViolation), dao.transaction(connection):
            add(connection, "b")
            add(connection, "c", id="1")
        add(connection, "d")
    assert titles(connection) == "ad"


def test_functions_of_several_statements_leave_the_callers_transaction_usable(connection):
    """What writes more than one row is a block of its own inside the caller's transaction."""
    with dao.transaction(connection):
        add(connection, "a", id="1")
        for refused in (
            lambda: tasks.create_many(connection, [tasks.get_one(connection, "1")]),
            lambda: tasks.update(connection, dao.Task(id="none", title="a", task_type="b")),
            lambda: dao.workflow_tasks.add(connection, "none", "1", sequence=0),
        ):
            with pytest.raises((dao.IntegrityError, dao.NotFound)):
                refused()
            add(connection, "b")
    assert titles(connection) == "abbb"


def test_transaction_inside_psycopgs_own_is_a_savepoint_of_it(connection, other):
    """Blocks of psycopg's and of ours nest in any order."""
    with connection.transaction():
        add(connection, "a")
        with contextlib.suppress(Stop), dao.transaction(connection), connection.transaction():
            add(connection, "b")
            raise Stop
        with dao.transaction(connection):
            add(connection, "c")
        assert titles(other) == ""
    assert titles(other) == "ac"


@pytest.mark.parametrize(
    ("setting", "value", "shown", "found"),
    [
        ("isolation_level", psycopg.IsolationLevel.REPEATABLE_READ, "transaction_isolation", "repeatable read"),
        ("isolation_level", psycopg.IsolationLevel.SERIALIZABLE, "transaction_isolation", "serializable"),
        ("read_only", True, "transaction_read_only", "on"),
        ("deferrable", True, "transaction_deferrable", "on"),
    ],
)
def test_transaction_is_of_the_kind_that_the_connection_is_set_to(connection, setting, value, shown, found):
    """As psycopg's own block is: ours used to begin one of the server's default, and lost updates in silence."""
    setattr(connection, setting, value)
    with dao.transaction(connection), dao.transaction(connection):
        assert connection.execute(f"SHOW {shown}").fetchone() == (found,)


def test_functions_in_a_pipeline_are_refused(connection):
    """Nothing has its answer there when it is due: `get` used to say that a task which is there is not."""
    add(connection, "a", id="1")
    with connection.pipeline():
        for function in (tasks.get, tasks.delete, dao.workflow_tasks.list_workflows):
            with pytest.raises(dao.OperationalError, match="in a pipeline"):
                function(connection, "1")
        with pytest.raises(dao.OperationalError, match="in a pipeline"), dao.transaction(connection):
            pass
    assert tasks.exists(connection, "1")


def test_text_beyond_the_encoding_of_the_connection_says_so(postgresql_url, connection):
    """It used to be called a lone surrogate, which only UTF-8 refuses."""
    with (
        psycopg.connect(postgresql_url, autocommit=True, client_encoding="LATIN1") as latin,
        pytest.raises(dao.OperationalError, match="the client_encoding of this connection is"),
    ):
        add(latin, "€")
    with pytest.raises(dao.InvalidValue, match=r"a text is not valid Unicode: .*surrogate"):
        tasks.get(connection, "\ud800")


# ---------------------------------------------------------------- many that write at once


def together(url: str, function: Any, *arguments: tuple[Any, ...]) -> list[BaseException | None]:
    """Run a function in threads, each with a connection of its own; return what each raised."""
    raised: list[BaseException | None] = []
    barrier = threading.Barrier(len(arguments))

    def work(*given: Any) -> None:
        with contextlib.closing(dao.connect(url)) as own:
            barrier.wait()
            try:
                raised.append(function(own, *given))
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                raised.append(error)

    threads = [threading.Thread(target=work, args=given) for given in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def count_up(connection: Any, *, lock: bool) -> None:
    """Read a number and write the next."""
    if lock:
        engine.lock_row(connection, TASKS, "1")
    task = tasks.get_one(connection, "1")
    engine.fetch(connection, "UPDATE tasks SET metadata = $1 WHERE id = '1'", (str(task.metadata + 1),))


def test_lock_row_read_then_write_loses_no_update(postgresql_url, connection):
    """Who locks the row first reads what the one before has written; without the lock two would read the same."""
    add(connection, "a", id="1", metadata=0)

    def count(own: Any) -> None:
        for _ in range(20):
            with dao.transaction(own):
                count_up(own, lock=True)

    assert together(postgresql_url, count, (), (), (), ()) == [None] * 4
    assert tasks.get_one(connection, "1").metadata == 80


def test_run_in_transaction_serialization_failure_is_replayed(postgresql_url, connection):
    """At the level SERIALIZABLE the server refuses who read what another has changed; a replay reads it again.

    The level is set as docs/explanation/postgresql.md says.
    """
    (option,) = re.findall(
        r"options=\S*serializable", (Path(__file__).parents[2] / "docs/explanation/postgresql.md").read_text()
    )
    url = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}{option}"
    add(connection, "a", id="1", metadata=0)

    def count(own: Any) -> None:
        for _ in range(10):
            dao.run_in_transaction(own, count_up, lock=False)

    assert together(url, count, (), (), (), ()) == [None] * 4
    assert tasks.get_one(connection, "1").metadata == 40


def test_run_in_transaction_deadlock_is_replayed(postgresql_url, connection):
    """Two that wait for each other: the server ends one of them, which begins again."""
    for id in "12":
        add(connection, id, id=id, metadata=0)
    attempts: list[str] = []
    barrier = threading.Barrier(2, timeout=PATIENCE)

    def cross(own: Any, first: str, second: str) -> None:
        attempts.append(first)
        tasks.set_status(own, first, "running")
        if len(attempts) <= 2:
            barrier.wait()  # each has one now
        tasks.set_status(own, second, "running")

    def run(own: Any, first: str, second: str) -> None:
        dao.run_in_transaction(own, cross, first, second)

    assert together(postgresql_url, run, ("1", "2"), ("2", "1")) == [None] * 2
    assert len(attempts) >= 3  # who begins again may have the row before the other wakes, and meet it once more
    assert tasks.count(connection, status="running") == 2


def test_deadlock_of_a_block_is_database_busy(postgresql_url, connection):
    """Whoever replays by hand finds the same error as on SQLite, with the advice."""
    for id in "12":
        add(connection, id, id=id)
    barrier = threading.Barrier(2, timeout=PATIENCE)

    def cross(own: Any, first: str, second: str) -> None:
        with dao.transaction(own):
            tasks.set_status(own, first, "running")
            barrier.wait()
            tasks.set_status(own, second, "running")

    raised = [error for error in together(postgresql_url, cross, ("1", "2"), ("2", "1")) if error is not None]
    assert [type(error) for error in raised] == [dao.DatabaseBusy]
    assert "waited for each other" in str(raised[0])
    assert "repeat the transaction" in str(raised[0])
