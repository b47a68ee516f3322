"""A queue of tasks for tests, at noon: put in, claimed, and shown in a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dao import Task, tasks
from tests.engines import is_sqlite

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MS, SECOND, DAY = timedelta(milliseconds=1), timedelta(seconds=1), timedelta(days=1)
MINUTE = 60 * SECOND


def put(connection: Any, title: str = "a", *, now: datetime = NOON, **fields: Any) -> Task:
    """Enqueue a task that was made at noon."""
    depends_on = fields.pop("depends_on", ())
    task = Task(**{"title": title, "task_type": "agent", "created_at": now, **fields})
    stored, is_new = tasks.enqueue(connection, task, depends_on=depends_on, now=now)
    assert is_new
    return stored


def claim(connection: Any, worker: str = "w", *, now: datetime = NOON, **options: Any) -> list[Task]:
    """Claim what is due at noon, for ten seconds."""
    return tasks.claim(connection, **{"worker": worker, "lease": 10 * SECOND, "now": now, **options})


def claim_one(connection: Any, worker: str = "w", **options: Any) -> Task:
    """Claim the only task that is due."""
    (task,) = claim(connection, worker, **{"limit": 9, **options})
    return task


def titles(found: list[Task]) -> str:
    """Return the titles of tasks, in their order."""
    return "".join(task.title for task in found)


def begin(connection: Any) -> None:
    """Begin a transaction that will write."""
    connection.execute("BEGIN IMMEDIATE" if is_sqlite(connection) else "BEGIN")
