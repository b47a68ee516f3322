"""The service's own table, which the migrations in `sql/` make: its SQL, and functions for both engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dao

_PUT = "INSERT INTO summaries (task_id, text, words) VALUES ($1, $2, $3)"
_GET = "SELECT task_id, text, words FROM summaries WHERE task_id = $1"


@dataclass(frozen=True)
class Summary:
    """What the worker made of a task."""

    task_id: str
    text: str
    words: int


def put(connection: Any, task_id: str, text: str) -> None:
    """Store the summary of a task."""
    dao.execute(connection, _PUT, (task_id, text, len(text.split())))


def get_one(connection: Any, task_id: str) -> Summary:
    """Return the summary of a task.

    Raises:
        dao.NotFound: There is none.
    """
    for row in dao.fetch(connection, _GET, (task_id,)):
        return Summary(*row)
    raise dao.NotFound(f"task {task_id!r} has no summary yet", table="summaries", key=task_id)
