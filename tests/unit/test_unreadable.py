"""Rows that this program cannot read: written by a newer one, or past the constraints. Each names itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import dao
import dao.testing
from dao import codec, configurations, sessions, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import fetch, in_transaction
from dao.testing import (
    make_configuration,
    make_session,
    make_task,
    make_tool_execution,
    make_workflow,
)
from tests.conftest import ENGINES
from tests.engines import ignore_checks

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

KEYS = {
    "tasks": "t",
    "workflows": "w",
    "workflow_tasks": ("w", "t"),
    "tool_executions": "e",
    "sessions": "s",
    "configurations": "c",
}


@pytest.fixture
def filled(connection: Any) -> Any:
    """A database with a row in each table, and no CHECK to hold what is done to them."""
    tasks.create_many(connection, [make_task(id="t"), make_task(id="other")])
    workflows.create(connection, make_workflow(id="w"))
    workflow_tasks.add(connection, workflow_id="w", task_id="t")
    tool_executions.record(connection, make_tool_execution(id="e", task_id="t", status="failed"))
    session = make_session(id="s")
    sessions.open(connection, client_id=session.client_id)
    fetch(connection, "UPDATE sessions SET id = 's'")
    configurations.set(connection, "c", make_configuration().value)
    ignore_checks(connection)
    return connection


# every way to read the row, and what is done with it
Read = Callable[[Any], Any]
READS: dict[str, list[Read]] = {
    "tasks": [
        lambda c: tasks.get(c, "t"),
        lambda c: tasks.get_one(c, "t"),
        lambda c: tasks.find(c).items,
        lambda c: list(tasks.iter_all(c)),
        lambda c: [task for task, _ in workflow_tasks.list_tasks(c, "w")],
    ],
    "workflows": [
        lambda c: workflows.get(c, "w"),
        lambda c: workflows.find(c).items,
        lambda c: workflow_tasks.list_workflows(c, "t"),
    ],
    "workflow_tasks": [
        lambda c: workflow_tasks.get(c, workflow_id="w", task_id="t"),
        lambda c: [link for _, link in workflow_tasks.list_tasks(c, "w")],
    ],
    "tool_executions": [
        lambda c: tool_executions.get(c, "e"),
        lambda c: tool_executions.find(c).items,
    ],
    "sessions": [
        lambda c: sessions.get(c, "s"),
        sessions.list_active,
        lambda c: sessions.list_stale(c, older_than=-timedelta(days=1)),
    ],
    "configurations": [lambda c: configurations.get_record(c, "c")],
}

# table, column, what is written into it in SQL, `.value` of the error
DAMAGE_OF_ANY = [
    ("tasks", "status", "'paused'", "paused"),
    ("workflows", "status", "'retired'", "retired"),
    ("tool_executions", "status", "'cancelled'", "cancelled"),
    ("tasks", "config", "'{'", "{"),
    ("tasks", "config", "'[1]'", "[1]"),
    ("tasks", "metadata", "'secret'", "secret"),
    ("workflows", "config", "'1'", "1"),
    ("workflow_tasks", "config", "''", ""),
    ("tool_executions", "input", "'[NaN]'", "[NaN]"),
    ("tool_executions", "output", "'[1'", "[1"),
    ("sessions", "metadata", "'{'", "{"),
    ("configurations", "value", "'{'", "{"),
]
DAMAGE_OF_SQLITE = [
    ("sessions", "is_active", "2", 2),
    ("tasks", "created_at", "'yesterday'", "yesterday"),
    ("tasks", "started_at", "'2025-13-01T00:00:00.000Z'", "2025-13-01T00:00:00.000Z"),
    ("tasks", "created_at", "'2025-01-01'", "2025-01-01"),
    ("workflows", "updated_at", "'2025-01-01T00:00:00.000'", "2025-01-01T00:00:00.000"),
    ("sessions", "created_at", "'2025-01-01T00:00+02:00'", "2025-01-01T00:00+02:00"),
    ("workflow_tasks", "created_at", "''", ""),
    ("tool_executions", "completed_at", "'0'", "0"),
    ("sessions", "last_heartbeat", "'x'", "x"),
    ("tasks", "title", "CAST(x'41ff' AS TEXT)", b"A\xff"),
    ("tasks", "error", "CAST(x'fe' AS TEXT)", b"\xfe"),
    ("workflows", "name", "CAST(x'c0' AS TEXT)", b"\xc0"),
    ("workflow_tasks", "config", "CAST(x'ff' AS TEXT)", b"\xff"),
    ("tool_executions", "tool_name", "CAST(x'80' AS TEXT)", b"\x80"),
    ("sessions", "client_id", "CAST(x'ed' AS TEXT)", b"\xed"),
    ("configurations", "value", "CAST(x'22ff22' AS TEXT)", b'"\xff"'),
]
DAMAGE_OF_POSTGRESQL = [
    ("tasks", "created_at", "'infinity'", "infinity"),
    ("tasks", "started_at", "'-infinity'", "-infinity"),
    ("workflows", "updated_at", "'10000-01-01 00:00Z'", "10000-01-01 00:00:00+00"),
    ("sessions", "last_heartbeat", "'0001-01-01 00:00Z BC'", "0001-01-01 00:00:00+00 BC"),
]
DAMAGE = [
    *((engine, *damage) for damage in DAMAGE_OF_ANY for engine in ENGINES),
    *(("sqlite", *damage) for damage in DAMAGE_OF_SQLITE),
    *(("postgresql", *damage) for damage in DAMAGE_OF_POSTGRESQL),
]


# what a listing selects by: it passes by what is not one of its values
SELECTED_BY = {"is_active", "last_heartbeat"}


@pytest.mark.parametrize(("engine", "table", "column", "sql", "value"), DAMAGE, ids=str)
def test_read_value_this_program_cannot_read_names_row_column_and_value(filled, table, column, sql, value):
    """One error stands for all unreadable values.

    A status of a newer version was a bare KeyError, other damage raised its decoder's error.
    """
    key = KEYS[table]
    condition = {"workflow_tasks": "workflow_id = 'w'", "configurations": "key = 'c'"}.get(table, f"id = '{key}'")
    fetch(filled, f"UPDATE {table} SET {column} = {sql} WHERE {condition}")
    for read in READS[table][: 1 if column in SELECTED_BY else None]:
        with pytest.raises(dao.UnreadableRow) as caught:
            read_column(read(filled), column)
        error = caught.value
        assert (error.table, error.key, error.column, error.value) == (table, key, column, value)
        assert all(part in str(error) for part in (f"{table}: {column} of the row", repr(value)))
        assert "program is older than the data" in str(error) or "not UTF-8" in str(error)


def read_column(found: Any, column: str) -> list[Any]:
    """Read a column of the record, or of all records."""
    return [getattr(record, column) for record in (found if isinstance(found, list) else [found])]


@pytest.mark.parametrize(("module", "id"), [(tasks, "t"), (workflows, "w")], ids=["tasks", "workflows"])
def test_count_by_status_that_it_does_not_know_is_refused(filled, module, id):
    """Rows with a status of a newer version are counted or named: they were left out in silence."""
    table = module.__name__.rpartition(".")[2]
    fetch(filled, f"UPDATE {table} SET status = 'deferred' WHERE id = '{id}'")
    with pytest.raises(
        dao.UnreadableRow, match=f"^{table}: status of the row '{id}' is 'deferred', .* older than the data"
    ):
        module.count_by_status(filled)


@pytest.mark.parametrize(
    ("engine", "sql", "value"),
    [
        *((engine, "'{'", "{") for engine in ENGINES),
        ("sqlite", "CAST(x'22ff22' AS TEXT)", b'"\xff"'),
    ],
    ids=[*(f"{engine}, JSON" for engine in ENGINES), "sqlite, UTF-8"],
)
def test_configurations_value_that_cannot_be_read_is_refused_in_every_way(filled, sql, value):
    """A value without a type, with one, and all values: the key is named, also where it is no part of what is read."""
    fetch(filled, f"UPDATE configurations SET value = {sql}")
    for read in (
        lambda: configurations.get(filled, "c"),
        lambda: configurations.get(filled, "c", int),
        lambda: configurations.get(filled, "c", dao.Task),
        lambda: configurations.get_all(filled),
    ):
        with pytest.raises(dao.UnreadableRow) as caught:
            read()
        assert (caught.value.table, caught.value.key, caught.value.value) == ("configurations", "c", value)
        assert str(caught.value).startswith(f"configurations: value of the row 'c' is {value!r}")


@pytest.mark.sqlite_only
def test_count_by_status_that_is_not_utf8_is_of_some_row(filled):
    """Where no row is asked for, none is named: it was one without a name. PostgreSQL stores UTF-8 only."""
    filled.execute("UPDATE tasks SET status = CAST(x'ff' AS TEXT) WHERE id = 't'").fetchall()
    with pytest.raises(dao.UnreadableRow, match=r"^tasks: status of a row is b'\\xff', which is not UTF-8") as caught:
        tasks.count_by_status(filled)
    assert caught.value.key is None


@pytest.mark.sqlite_only
def test_change_of_a_row_that_cannot_be_read_changes_nothing(filled):
    """What returns the fresh row undoes its change if that row cannot be read.

    On PostgreSQL it is one statement, which has committed when its row is read.
    """
    for damage in ("title = CAST(x'ff' AS TEXT)", "status = 'paused', title = 'a'"):
        filled.execute(f"UPDATE workflows SET name = 'a'; UPDATE tasks SET {damage} WHERE id = 't'").fetchall()
        before = filled.execute("SELECT CAST(title AS BLOB), status, updated_at FROM tasks WHERE id = 't'").fetchall()
        task = dao.testing.make_task(id="t", updated_at=codec.time_from_text(before[0][2]), metadata={"new": 1})
        if "paused" in damage:
            filled.execute(TRIGGER).fetchall()
        with pytest.raises(dao.UnreadableRow):
            tasks.set_status(filled, "t", "running") if "ff" in damage else tasks.update(filled, task)
        after = filled.execute("SELECT CAST(title AS BLOB), status, updated_at FROM tasks WHERE id = 't'").fetchall()
        assert after == before
        assert not in_transaction(filled)


# a newer version's own idea of where a change leads
TRIGGER = """
CREATE TRIGGER newer AFTER UPDATE OF metadata ON tasks BEGIN UPDATE tasks SET status = 'paused' WHERE id = NEW.id; END
"""


@pytest.mark.sqlite_only
def test_find_several_statuses_names_the_row_that_is_not_utf8(filled):
    """Of a statement that merges several walks along an index, too, the row is named. PostgreSQL stores UTF-8 only."""
    filled.execute("UPDATE tasks SET title = CAST(x'ff' AS TEXT) WHERE id = 't'").fetchall()
    with pytest.raises(dao.UnreadableRow, match=r"^tasks: title of the row 't' is b'\\xff', which is not UTF-8"):
        tasks.find(filled, status=["pending", "running"])


@pytest.mark.sqlite_only
def test_returning_with_a_text_that_is_not_utf8_is_an_unreadable_row(filled):
    """A statement that cannot be asked again gives the same error, without the row, and changes nothing.

    PostgreSQL stores UTF-8 only.
    """
    filled.execute("UPDATE sessions SET id = CAST(x'ff' AS TEXT)").fetchall()
    with pytest.raises(dao.UnreadableRow, match="not UTF-8") as caught:
        sessions.delete_stale(filled, older_than=-timedelta(days=1))
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)
    assert caught.value.table is None
    assert filled.execute("SELECT count(*) FROM sessions").get == 1


@pytest.mark.sqlite_only
@pytest.mark.parametrize("is_alone", [True, False])
def test_complete_of_a_task_that_is_not_utf8_changes_nothing_and_names_it(filled, is_alone):
    """A cursor that is dropped half-way commits, or keeps savepoints from ending; and the error named no row.

    PostgreSQL stores UTF-8 only.
    """
    (task, _) = tasks.claim(filled, worker="w", lease=timedelta(minutes=1), limit=2)
    filled.execute("UPDATE tasks SET title = CAST(x'ff' AS TEXT) WHERE id = $1", (task.id,)).fetchall()
    words = rf"title of the row '{task.id}' is b'\\xff', which is not UTF-8"
    block = contextlib.nullcontext() if is_alone else dao.transaction(filled)
    with pytest.raises(dao.UnreadableRow, match=words), block:
        tasks.complete(filled, task)
    assert not in_transaction(filled)
    assert tasks.count(filled, status="running") == 2


def test_read_row_of_a_schema_without_not_null_names_what_is_missing(filled):
    """A newer schema may allow NULL where this program needs a value."""
    filled.execute("ALTER TABLE tasks RENAME TO old; CREATE TABLE tasks AS SELECT * FROM old")
    filled.execute("UPDATE tasks SET config = NULL, created_at = NULL, status = NULL WHERE id = 't'")
    with pytest.raises(dao.UnreadableRow, match="status of the row 't' is None"):
        tasks.get(filled, "t")
    filled.execute("UPDATE tasks SET status = 'pending'")
    task = tasks.get_one(filled, "t")
    for column in ("config", "created_at"):
        with pytest.raises(dao.UnreadableRow, match=f"{column} of the row 't' is None"):
            getattr(task, column)
