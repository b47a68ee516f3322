"""`dao prune`: what it deletes of each table, and what it leaves, on both engines."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

import dao
from dao import sessions, task_dependencies, task_events, tasks, tool_executions
from dao.engine import fetch
from dao.testing import make_task, make_tool_execution
from tests.cli.calls import misused, refused
from tests.engines import begin_writing, impatient

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

DAY = timedelta(days=1)
TABLES = ("tasks", "tool_executions", "sessions", "task_events")


@pytest.fixture(autouse=True)
def named(workplace, url, monkeypatch):
    """DATABASE_URL names the database of the test."""
    monkeypatch.setenv("DATABASE_URL", url)


def ago(days):
    return dao.codec.now() - days * DAY


def counts(connection):
    return [fetch(connection, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]


@pytest.fixture
def aged(connection):
    """Of each kind something old that goes, something old that stays, and something new."""
    finished = {"status": "failed", "attempt": 1}
    for id in ("old", "waited for"):
        tasks.create(connection, make_task(id=id, created_at=ago(50), completed_at=ago(40), **finished))
    tasks.create(connection, make_task(id="new", created_at=ago(50), completed_at=ago(1), **finished))
    tasks.create(connection, make_task(id="unfinished", created_at=ago(50)))
    task_dependencies.add(connection, "unfinished", "waited for")
    for task_id in ("old", "waited for", "unfinished", None):
        tool_executions.record(connection, make_tool_execution(task_id=task_id, created_at=ago(40)))
    tool_executions.record(connection, make_tool_execution(created_at=ago(1)))
    sessions.open(connection, client_id="silent", now=ago(40))
    closed = sessions.open(connection, client_id="closed", now=ago(40))
    sessions.close(connection, closed.id)
    sessions.open(connection, client_id="new", now=ago(1))


def test_prune_without_yes_says_how_many_rows_would_go(run, connection, aged):
    """It counts what is old in each table, and deletes nothing."""
    before = counts(connection)
    outcome = run("prune", "--older-than", "30d")
    assert (outcome.code, outcome.err) == (0, "nothing was changed: add --yes to do it\n")
    assert outcome.out.splitlines() == [
        "tasks: would delete 1 finished task",
        "tool_executions: would delete 1 tool execution without a task",
        "sessions: would delete 2 stale sessions",
        "task_events: would delete 4 events",
    ]
    assert counts(connection) == before


def test_prune_deletes_what_is_old_of_each_table(run, connection, aged):
    """Finished tasks go with their calls; what is unfinished, or waited for, stays with its own."""
    document = run("prune", "--older-than", "30d", "--yes", "--json").document
    assert document["dry_run"] is False
    assert {table["name"]: table["deleted"] for table in document["tables"]} == dict(
        zip(TABLES, [1, 1, 2, 4], strict=True)
    )
    assert [table["left"] for table in document["tables"]] == [0, 0, 0, 0]
    assert [id for (id,) in fetch(connection, "SELECT id FROM tasks ORDER BY id")] == [
        "new",
        "unfinished",
        "waited for",
    ]
    calls = fetch(connection, "SELECT task_id FROM tool_executions")
    assert sorted(str(task_id) for (task_id,) in calls) == ["None", "unfinished", "waited for"]
    assert [session.client_id for session in sessions.list_active(connection)] == ["new"]
    # that a task was deleted is an event of today
    assert [event.to_status for event in task_events.list_of(connection, "old")] == [None]
    again = run("prune", "--older-than", "30d", "--yes")
    assert again.out.splitlines()[0] == "tasks: deleted 0 finished tasks"


@pytest.mark.parametrize("given", ["30d", "720h", "43200m", "2592000s", "4w", " 30d\r"])
def test_prune_durations(run, given):
    """Days, hours, minutes, seconds and weeks; what Windows leaves at the end is no part of it."""
    assert run("prune", "--older-than", given).code == 0


@pytest.mark.parametrize("given", ["", "30", "d", "-1d", "1.5d", "1y", "30 d", "99999999w"])
def test_prune_without_a_duration_is_wrong_usage(run, connection, aged, given):
    """A number without its unit would be somebody's guess."""
    before = counts(connection)
    misused(run("prune", "--yes", "--older-than", given), "--older-than")
    misused(run("prune", "--yes"), "--older-than")
    assert counts(connection) == before


def test_prune_lets_others_write_between_two_batches(run, connection, url, monkeypatch):
    """Each batch is a transaction of its own: another connection, which waits for no lock, writes in between."""
    for _ in range(150):
        tasks.create(connection, make_task(status="completed", created_at=ago(50), completed_at=ago(40)))
    waits = []

    def sleep(_seconds):
        waits.append(1)
        other = impatient(url)
        tasks.create(other, make_task(id=f"new {len(waits)}"))
        other.close()

    monkeypatch.setattr(time, "sleep", sleep)
    assert run("prune", "--older-than", "30d", "--yes").out.splitlines()[0] == "tasks: deleted 150 finished tasks"
    assert tasks.count(connection) == len(waits) >= 2


def test_prune_that_others_keep_from_writing_is_refused(run, connection, url, aged, monkeypatch):
    """Nothing is deleted, and it says that another has the lock."""
    monkeypatch.setattr("dao.cli.task_changes.run_in_transaction", dao.replaying(deadline=0))
    other = dao.connect(url)
    begin_writing(other, "tasks")
    before = counts(connection)
    refused(run("prune", "--older-than", "30d", "--yes", "--busy-timeout", "1"), "lock")
    assert counts(connection) == before
    other.close()
