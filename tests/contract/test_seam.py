"""Every function of the table modules runs on a connection of another engine.

The connection has nothing that `dao.engine` does not ask for. Its engine is SQLite behind a connection as psycopg's is:
a statement that gives no rows has none to fetch, not even an empty list, and there is nothing on the connection but
`execute`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import pytest

import dao
from dao import engine, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import sqlite
from tests.contract.test_embedding import (  # noqa: F401 - fixtures
    CALL,
    TASK,
    Call,
    every_reader,
    every_writer,
    filled,
    filled_template,
)


class Cursor:
    """The rows of a statement, if it is one that gives rows."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Any] | None) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        """Return the rows."""
        if self._rows is None:
            raise LookupError("the last operation didn't produce records")
        return self._rows


class Connection:
    """A connection that can execute a statement, and nothing else."""

    __slots__ = ("_hidden",)

    def __init__(self, path: str) -> None:
        self._hidden = sqlite.open_connection(dao.url.parse(f"sqlite:///{path}"))

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run a statement to its end."""
        rows = self._hidden.execute(sql, parameters).fetchall()
        return Cursor(rows if sql.lstrip().startswith("SELECT") or "RETURNING" in sql else None)


class _Engine:
    """What `dao.engine` asks of the module of such an engine."""

    def is_usable(self, connection: Connection) -> bool:
        return True

    def is_idle(self, connection: Connection) -> bool:
        return sqlite.is_idle(connection._hidden)

    def is_interrupted(self, connection: Connection) -> bool:
        return False

    def in_transaction(self, connection: Connection) -> bool:
        return sqlite.in_transaction(connection._hidden)

    def fetch(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return connection.execute(sql, parameters).fetchall()

    def insert_many(self, connection: Connection, table: Any, rows: Iterable[tuple[Any, ...]]) -> None:
        self.execute_many(connection, table.insert, rows)

    def lock_row(self, connection: Connection, table: Any, key: tuple[str, ...]) -> None:
        pass

    def execute(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
        connection.execute(sql, parameters)
        return connection._hidden.changes()

    def execute_many(self, connection: Connection, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            connection.execute(sql, row)

    def change(
        self, connection: Connection, table: Any, update: Any, parameters: Sequence[Any], key: tuple[str, ...]
    ) -> Any:
        connection.execute("BEGIN IMMEDIATE")
        try:
            changed = connection.execute(update.returning_key, parameters).fetchall()
            record = table.found(table.first(connection.execute(table.get, key).fetchall()), *key)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return record if changed else None

    def begin(self, connection: Connection, *, nested: bool) -> None:
        sqlite.begin(connection._hidden, nested=nested)

    def commit(self, connection: Connection, *, nested: bool) -> None:
        sqlite.commit(connection._hidden, nested=nested)

    def roll_back(self, connection: Connection, *, nested: bool) -> None:
        sqlite.roll_back(connection._hidden, nested=nested)

    def translated(self, error: Exception, connection: Connection, *statement: Any, **how: Any) -> dao.Error | None:
        return sqlite.translated(error, connection._hidden, *statement, **how)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, filled: str) -> Iterator[Any]:  # noqa: F811
    """A connection of the other engine, to a database with a row or two in each table."""
    monkeypatch.setitem(engine.ENGINES, Connection, _Engine())
    connection = Connection(filled)
    yield connection
    connection._hidden.close()


def content(connection: Connection) -> list[Any]:
    """Everything in the database."""
    tables = connection._hidden.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return [connection._hidden.execute(f"SELECT * FROM {table}").fetchall() for (table,) in tables]


@every_reader
def test_reader_of_another_engine_finds_the_same(other, read: Call, expected: object):
    """What is found on a connection of SQLite's is found on this one."""
    assert read(other) == expected


@every_writer
def test_writer_of_another_engine_writes(other, write: Call):
    """What is written is stored; in a block that fails, all of it is undone."""
    before = content(other)
    with contextlib.suppress(ZeroDivisionError), dao.transaction(other):
        write(other)
        raise ZeroDivisionError
    assert content(other) == before
    write(other)
    assert content(other) != before
    assert not engine.in_transaction(other)


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda c: tasks.create(c, TASK), dao.UniqueViolation, {"table": "tasks", "columns": ("id",)}),
        (lambda c: tasks.create_many(c, [TASK]), dao.UniqueViolation, {"table": "tasks", "columns": ("id",)}),
        (
            lambda c: tool_executions.record(c, attrs.evolve(CALL, id="new", task_id="none")),
            dao.ForeignKeyViolation,
            {"table": "tool_executions", "columns": ("task_id",), "constraint": "tool_executions_task_id_fkey"},
        ),
        (
            lambda c: workflow_tasks.add(c, "none", "task"),
            dao.ForeignKeyViolation,
            {"table": "workflow_tasks", "columns": ("workflow_id",), "constraint": "workflow_tasks_workflow_id_fkey"},
        ),
        (lambda c: tasks.get_one(c, "none"), dao.NotFound, {"table": "tasks", "key": "none"}),
        (lambda c: workflows.set_status(c, "none", "draft"), dao.NotFound, {"table": "workflows", "key": "none"}),
        (
            lambda c: tasks.update(c, attrs.evolve(TASK, updated_at=dao.codec.now())),
            dao.StaleRecord,
            {"table": "tasks", "key": "task"},
        ),
    ],
    ids=["create", "create_many", "record", "add", "get_one", "set_status", "update"],
)
def test_error_of_another_engine_is_translated(other, call: Call, error: type[dao.Error], names: dict[str, Any]):
    """What the engine says of a row is an error of ours with its names, and nothing was changed."""
    before = content(other)
    with pytest.raises(error) as caught:
        call(other)
    assert {name: getattr(caught.value, name) for name in names} == names
    assert content(other) == before


def test_run_in_transaction_of_another_engine_repeats_while_busy(other):
    """A function that meets a lock is run again from the beginning."""
    attempts = []

    def delete(connection: Any) -> None:
        attempts.append(tasks.delete(connection, "task"))
        if len(attempts) == 1:
            raise dao.DatabaseBusy("another has the lock")

    dao.run_in_transaction(other, delete)
    assert attempts == [True, True]
    assert not tasks.exists(other, "task")


def test_fetch_what_is_no_connection_of_any_engine_is_refused():
    """A type that no engine has is refused with advice, by reads and writes alike."""
    for call in (lambda c: tasks.get(c, "task"), lambda c: tasks.delete(c, "task"), lambda c: tasks.create(c, TASK)):
        with pytest.raises(TypeError, match="expected a connection, got int") as caught:
            call(3)
        assert not isinstance(caught.value.__cause__, TypeError)  # it would say the same twice
