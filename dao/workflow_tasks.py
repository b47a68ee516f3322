"""Workflow tasks: which tasks a workflow has, and in which order. The table `workflow_tasks`, its SQL and functions.

A sequence is a place in the order: lower comes first, gaps mean nothing. These functions never put two tasks of a
workflow on one sequence; rows that another program put there come in the order of their task ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from dao import codec
from dao.engine import Connection, change, execute, execute_many, fetch, lock_row, transaction
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import InvalidValue
from dao.records import MAX_INTEGER, Task, Workflow, WorkflowTask
from dao.rows import TASKS, WORKFLOW_TASKS, WORKFLOWS

__all__ = [
    "LinkedTask",
    "add",
    "count",
    "exists",
    "get",
    "get_many",
    "get_one",
    "list_tasks",
    "list_workflows",
    "move",
    "remove",
    "reorder",
]


class LinkedTask(NamedTuple):
    """A task of a workflow and the link that puts it there."""

    task: Task
    link: WorkflowTask


_ADD = WORKFLOW_TASKS.insert
_GET = WORKFLOW_TASKS.get
_GET_MANY = by_keys(WORKFLOW_TASKS)
_EXISTS = "SELECT 1 FROM workflow_tasks WHERE workflow_id = $1 AND task_id = $2"
_LAST = "SELECT max(sequence) FROM workflow_tasks WHERE workflow_id = $1"
_OCCUPIED = "SELECT 1 FROM workflow_tasks WHERE workflow_id = $1 AND sequence = $2 AND task_id <> $3"
_MAKE_ROOM = """
UPDATE workflow_tasks
SET    sequence = sequence + 1
WHERE  workflow_id = $1 AND sequence >= $2 AND task_id <> $3
"""
_PLACE = "UPDATE workflow_tasks SET sequence = $1 WHERE workflow_id = $2 AND task_id = $3"
_MOVE = WORKFLOW_TASKS.changing(_PLACE)
_REMOVE = "DELETE FROM workflow_tasks WHERE workflow_id = $1 AND task_id = $2"
_TASK_IDS = "SELECT task_id FROM workflow_tasks WHERE workflow_id = $1"
_COUNT = "SELECT count(*) FROM workflow_tasks WHERE workflow_id = $1"
_LIST_TASKS = f"""
SELECT {TASKS.qualified}, {WORKFLOW_TASKS.qualified}
FROM   workflow_tasks
JOIN   tasks ON tasks.id = workflow_tasks.task_id
WHERE  workflow_tasks.workflow_id = $1
ORDER  BY workflow_tasks.sequence, workflow_tasks.task_id
"""
_LIST_WORKFLOWS = f"""
SELECT {WORKFLOWS.qualified}
FROM   workflow_tasks
JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
WHERE  workflow_tasks.task_id = $1
ORDER  BY workflow_tasks.workflow_id
"""
_TASK_WIDTH = len(TASKS.columns)


def add(
    connection: Connection,
    workflow_id: str,
    task_id: str,
    *,
    sequence: int | None = None,
    config: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> WorkflowTask:
    """Put a task into a workflow, at the end or at a sequence, and return the link.

    If another task has that sequence, it and all that come after it move on by one.

    Raises:
        ForeignKeyViolation: There is no such workflow or task; `.columns` says which.
        UniqueViolation: The workflow has this task already.
        InvalidValue: The sequence is negative or larger than 2**63 - 1.
    """
    with transaction(connection):
        lock_row(connection, WORKFLOWS, workflow_id)
        if sequence is None:
            # not max(sequence) + 1 in SQL: past the largest integer that would be a float
            last = fetch(connection, _LAST, (workflow_id,))[0][0]
            sequence = 0 if last is None else last + 1
        link = WorkflowTask(
            workflow_id=workflow_id,
            task_id=task_id,
            sequence=sequence,
            config=dict(config) if isinstance(config, Mapping) else {} if config is None else config,
            created_at=codec.now() if now is None else now,
        )
        _make_room(connection, workflow_id, task_id, sequence)
        execute(connection, _ADD, WORKFLOW_TASKS.to_row(link), WORKFLOW_TASKS)
        return link


def get(connection: Connection, workflow_id: str, task_id: str) -> WorkflowTask | None:
    """Return the link that puts the task into the workflow, or None."""
    return WORKFLOW_TASKS.first(fetch(connection, _GET, (workflow_id, task_id)))


def get_many(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], WorkflowTask]:
    """Return the links with these keys, by key, in the order of the keys; others are left out.

    A key is the id of the workflow and that of the task.
    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such a key: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, WORKFLOW_TASKS, _GET_MANY, keys)


def get_one(connection: Connection, workflow_id: str, task_id: str) -> WorkflowTask:
    """Return the link that puts the task into the workflow.

    Raises:
        NotFound: The workflow does not have this task.
    """
    return WORKFLOW_TASKS.found(get(connection, workflow_id, task_id), workflow_id, task_id)


def exists(connection: Connection, workflow_id: str, task_id: str) -> bool:
    """Return whether the workflow has this task."""
    return bool(fetch(connection, _EXISTS, (workflow_id, task_id)))


def remove(connection: Connection, workflow_id: str, task_id: str) -> bool:
    """Take a task out of a workflow; both stay. Return whether it was in. Safe to repeat."""
    return bool(execute(connection, _REMOVE, (workflow_id, task_id)))


def move(connection: Connection, workflow_id: str, task_id: str, *, sequence: int) -> WorkflowTask:
    """Move a task within its workflow to a sequence, and return the link as it is then.

    If another task has that sequence, it and all that come after it move on by one.

    Raises:
        NotFound: The workflow does not have this task.
        InvalidValue: The sequence is negative or larger than 2**63 - 1.
    """
    if type(sequence) is not int or not 0 <= sequence <= MAX_INTEGER:
        raise InvalidValue(f"sequence must be a whole number from 0 to {MAX_INTEGER}, got {sequence!r}")
    with transaction(connection):
        lock_row(connection, WORKFLOWS, workflow_id)
        _make_room(connection, workflow_id, task_id, sequence)
        key = (workflow_id, task_id)
        return change(connection, WORKFLOW_TASKS, _MOVE, (sequence, *key), key)


def reorder(connection: Connection, workflow_id: str, task_ids: Sequence[str]) -> None:
    """Put all tasks of a workflow into this order, as sequences 0, 1, 2 …, in one transaction.

    Raises:
        InvalidValue: The ids are not a permutation of the workflow's tasks; the message names those that are too many
            or too few. Nothing is changed.
    """
    with transaction(connection):
        lock_row(connection, WORKFLOWS, workflow_id)
        present = Counter(id for (id,) in fetch(connection, _TASK_IDS, (workflow_id,)))
        wanted = Counter(task_ids)
        if present != wanted:
            missing, extra = sorted((present - wanted).elements()), sorted((wanted - present).elements())
            raise InvalidValue(
                f"not a permutation of the tasks of workflow {workflow_id!r}: missing {missing}, too many {extra}"
            )
        execute_many(connection, _PLACE, ((place, workflow_id, id) for place, id in enumerate(task_ids)))


def list_tasks(connection: Connection, workflow_id: str) -> list[LinkedTask]:
    """Return all tasks of a workflow, each with its link, by sequence. Empty if it has none or does not exist."""
    rows = fetch(connection, _LIST_TASKS, (workflow_id,))
    tasks = TASKS.from_rows(row[:_TASK_WIDTH] for row in rows)
    links = WORKFLOW_TASKS.from_rows(row[_TASK_WIDTH:] for row in rows)
    return [LinkedTask(task, link) for task, link in zip(tasks, links, strict=True)]


def list_workflows(connection: Connection, task_id: str) -> list[Workflow]:
    """Return all workflows that have this task, by id: the order in which they were made, for ids of `new_id`."""
    return WORKFLOWS.from_rows(fetch(connection, _LIST_WORKFLOWS, (task_id,)))


def count(connection: Connection, workflow_id: str) -> int:
    """Return how many tasks a workflow has."""
    return int(fetch(connection, _COUNT, (workflow_id,))[0][0])


def _make_room(connection: Connection, workflow_id: str, task_id: str, sequence: int) -> None:
    if fetch(connection, _OCCUPIED, (workflow_id, sequence, task_id)):
        if fetch(connection, _OCCUPIED, (workflow_id, MAX_INTEGER, task_id)):
            raise InvalidValue(
                f"no room in workflow {workflow_id!r}: a task has the last sequence, {MAX_INTEGER}; reorder it"
            )
        execute(connection, _MAKE_ROOM, (workflow_id, sequence, task_id))
