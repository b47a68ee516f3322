"""What tests of transactions and pools do in one, whichever way they open it: a task is added, and titles are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dao import Task, tasks
from tests import engines


class Stop(Exception):
    """Leaves a block."""


def add(connection: Any, title: str = "a", **fields: Any) -> None:
    """Store a task."""
    tasks.create(connection, Task(title=title, task_type="agent", **fields))


def titles(connection: Any) -> str:
    """Return the titles of all tasks, of one letter each, in order."""
    return "".join(sorted(task.title for task in tasks.iter_all(connection)))


@pytest.fixture
def other(url: str) -> Iterator[Any]:
    """Another connection to the same database, which does not wait for locks."""
    connection = engines.impatient(url)
    yield connection
    connection.close()
