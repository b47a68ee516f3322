"""Task dependencies: which tasks a task waits for. The table `task_dependencies`, its SQL and functions.

A task is not claimed before all tasks that it depends on are completed. Triggers count those that are not in its
`waiting_for`, whichever program completes, deletes or restarts them. One that failed or was cancelled holds its
successors until it completes after all, is deleted, or the dependency is removed. A task that runs already goes on.

A cycle cannot be stored: the database refuses it, also if two connections make its halves at the same time.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable
from datetime import datetime

import msgspec

from dao import codec
from dao.engine import Connection, PerEngine, execute, fetch, fetch_changed, lock_row, text_for, transaction
from dao.engine.keys import by_keys, lock_rows, locking, records_by_keys
from dao.records import Task, TaskDependency
from dao.rows import TASK_DEPENDENCIES, TASKS, WORKFLOWS

__all__ = ["add", "chain", "exists", "get", "get_many", "get_one", "list_predecessors", "list_successors", "remove"]

_ADD = f"{TASK_DEPENDENCIES.insert} ON CONFLICT DO NOTHING"
# PostgreSQL counts once for all that a statement adds
_ADD_ALL = PerEngine(
    """
INSERT INTO task_dependencies (task_id, depends_on, created_at)
SELECT value ->> 0, value ->> 1, value ->> 2
FROM   json_each($1)
WHERE  TRUE
ON     CONFLICT DO NOTHING
RETURNING task_id, depends_on
""",
    """
INSERT INTO task_dependencies (task_id, depends_on, created_at)
SELECT value ->> 0, value ->> 1, (value ->> 2)::timestamptz
FROM   json_array_elements($1::json) AS link (value)
ON     CONFLICT DO NOTHING
RETURNING task_id, depends_on
""",
)
_LOCK_ALL = locking(TASKS)
_GET = TASK_DEPENDENCIES.get
_GET_MANY = by_keys(TASK_DEPENDENCIES)
_EXISTS = "SELECT 1 FROM task_dependencies WHERE task_id = $1 AND depends_on = $2"
# the task is locked first, as by whoever deletes it, and the dependency with it
_REMOVE = PerEngine(
    "DELETE FROM task_dependencies WHERE task_id = $1 AND depends_on = $2",
    "DELETE FROM task_dependencies "
    "WHERE task_id = (SELECT id FROM tasks WHERE id = $1 FOR NO KEY UPDATE) AND depends_on = $2",
)
_LIST_PREDECESSORS = f"""
SELECT {TASKS.qualified}
FROM   task_dependencies
JOIN   tasks ON tasks.id = task_dependencies.depends_on
WHERE  task_dependencies.task_id = $1
ORDER  BY task_dependencies.depends_on
"""
_LIST_SUCCESSORS = f"""
SELECT {TASKS.qualified}
FROM   task_dependencies
JOIN   tasks ON tasks.id = task_dependencies.task_id
WHERE  task_dependencies.depends_on = $1
ORDER  BY task_dependencies.task_id
"""
_LINKS = "SELECT sequence, task_id FROM workflow_tasks WHERE workflow_id = $1 ORDER BY sequence, task_id"


def add(
    connection: Connection, task_id: str, depends_on: str | Iterable[str], *, now: datetime | None = None
) -> list[TaskDependency]:
    """Have a task wait for another, or for several, and return those dependencies that are new.

    All of them are added, or none. One that is there already stays as it is: safe to repeat.

    Raises:
        ForeignKeyViolation: There is no such task; `.columns` says which of the two.
        CheckViolation: The task would wait for itself by way of others: `.constraint` is `task_dependencies_no_cycle`.
        IntegrityError: On PostgreSQL, in a transaction at REPEATABLE READ or above, where nobody could tell that.
        InvalidValue: A task would depend on itself.
    """
    ids = [depends_on] if isinstance(depends_on, str) else sorted({*depends_on})
    moment = codec.now() if now is None else now
    links = [TaskDependency(task_id=task_id, depends_on=id, created_at=moment) for id in ids]
    with transaction(connection):
        # in the order in which a task that ends locks them: itself, then its successors
        return _added(connection, links, lock_rows(connection, _LOCK_ALL, [*ids, task_id]))


def get(connection: Connection, task_id: str, depends_on: str) -> TaskDependency | None:
    """Return the dependency of a task on another, or None."""
    return TASK_DEPENDENCIES.first(fetch(connection, _GET, (task_id, depends_on)))


def get_many(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], TaskDependency]:
    """Return the dependencies with these keys, by key, in the order of the keys; others are left out.

    A key is the id of the task and that of the one it depends on.
    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such a key: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, TASK_DEPENDENCIES, _GET_MANY, keys)


def get_one(connection: Connection, task_id: str, depends_on: str) -> TaskDependency:
    """Return the dependency of a task on another.

    Raises:
        NotFound: The one does not depend on the other.
    """
    return TASK_DEPENDENCIES.found(get(connection, task_id, depends_on), task_id, depends_on)


def exists(connection: Connection, task_id: str, depends_on: str) -> bool:
    """Return whether a task depends on another, itself and not by way of others."""
    return bool(fetch(connection, _EXISTS, (task_id, depends_on)))


def remove(connection: Connection, task_id: str, depends_on: str) -> bool:
    """Have a task wait for another no longer; both stay. Return whether it did. Safe to repeat."""
    return bool(execute(connection, text_for(connection, _REMOVE), (task_id, depends_on)))


def list_predecessors(connection: Connection, task_id: str) -> list[Task]:
    """Return the tasks that a task depends on, completed or not, by id: the order of their making, for `new_id`."""
    return TASKS.from_rows(fetch(connection, _LIST_PREDECESSORS, (task_id,)))


def list_successors(connection: Connection, task_id: str) -> list[Task]:
    """Return the tasks that depend on a task, by id: the order of their making, for `new_id`."""
    return TASKS.from_rows(fetch(connection, _LIST_SUCCESSORS, (task_id,)))


def chain(connection: Connection, workflow_id: str, *, now: datetime | None = None) -> list[TaskDependency]:
    """Have each task of a workflow wait for those before it, and return the dependencies that are new.

    The order is that of the links (`workflow_tasks`). Each task depends on all tasks of the next lower sequence: of
    several with the same sequence all run at the same time. Safe to repeat, as after a task was added at the end. It
    removes nothing: after tasks were moved, what depended on another still does.

    Raises:
        NotFound: There is no such workflow.
        CheckViolation: With what depends on what already, a task would wait for itself: nothing is added.
    """
    moment = codec.now() if now is None else now
    with transaction(connection):
        lock_row(connection, WORKFLOWS, workflow_id)
        rows = fetch(connection, _LINKS, (workflow_id,))
        if not rows and not fetch(connection, WORKFLOWS.get, (workflow_id,)):
            raise WORKFLOWS.not_found(workflow_id)
        # predecessors first, as a task that ends locks itself first
        there = lock_rows(connection, _LOCK_ALL, [id for _, id in rows])
        places = [[id for _, id in links] for _, links in itertools.groupby(rows, key=lambda row: row[0])]
        links = [
            TaskDependency(task_id=later, depends_on=earlier, created_at=moment)
            for before, after in itertools.pairwise(places)
            for later in after
            for earlier in before
        ]
        return _added(connection, links, there)


def _added(connection: Connection, links: list[TaskDependency], there: Container[str]) -> list[TaskDependency]:
    """Store dependencies in the transaction that is open, and return those that were not there.

    `there` are the tasks that are: a dependency of another one is stored by itself, since that error has its names.
    """
    stored = set()
    for link in links:
        if link.task_id not in there or link.depends_on not in there:
            row = TASK_DEPENDENCIES.to_row(link)
            if execute(connection, _ADD, row, TASK_DEPENDENCIES):
                stored.add((link.task_id, link.depends_on))
    rows = _json([TASK_DEPENDENCIES.to_row(link) for link in links])
    stored.update(fetch_changed(connection, text_for(connection, _ADD_ALL), (rows,)))
    return [link for link in links if (link.task_id, link.depends_on) in stored]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
