"""The rows of `tasks`: stored, read, listed, counted, changed one at a time, as those of any table are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from dao import codec
from dao.engine import Connection, change, execute, fetch, insert_many
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import InvalidValue, StaleRecord
from dao.listing import Listing, Page, by_status
from dao.records import Task, TaskStatus
from dao.rows import TASKS
from dao.tasks.statements import changed_one, returning

__all__ = [
    "count",
    "count_by_status",
    "create",
    "create_many",
    "delete",
    "exists",
    "find",
    "get",
    "get_many",
    "get_one",
    "iter_all",
    "set_status",
    "update",
]

_CREATE = TASKS.insert
_GET = TASKS.get
_GET_MANY = by_keys(TASKS)
_EXISTS = "SELECT 1 FROM tasks WHERE id = $1"
_DELETE = "DELETE FROM tasks WHERE id = $1"
_UPDATE = TASKS.update
# A task that waits again starts with a clean slate.
_PENDING = """
SET    updated_at = next_version($1), status = $2, error = $3, started_at = NULL, completed_at = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = $4"""
# One that is running already keeps its start, its attempt and its holder; one that runs again begins a new attempt.
_RUNNING = """
SET    updated_at = next_version($1),
       started_at = CASE WHEN status = $2 AND started_at IS NOT NULL THEN started_at ELSE $1 END,
       attempt = CASE WHEN status = $2 THEN attempt ELSE attempt + 1 END,
       status = $2, error = $3, completed_at = NULL
WHERE  id = $4"""
# Finishing twice in the same way changes nothing about when.
_FINISHED = """
SET    updated_at = next_version($1),
       completed_at = CASE WHEN status = $2 AND completed_at IS NOT NULL THEN completed_at ELSE $1 END,
       status = $2, error = $3, worker = NULL, lease_expires_at = NULL
WHERE  id = $4"""
_SET_PENDING = returning(f"UPDATE tasks{_PENDING}")
_SET_RUNNING = returning(f"UPDATE tasks{_RUNNING}")
_SET_FINISHED = returning(f"UPDATE tasks{_FINISHED}")
# the same, from one of some statuses
_MOVE_TO_PENDING = returning(f"UPDATE tasks{_PENDING} AND status IN ($5, $6, $7, $8, $9)")
_MOVE_TO_RUNNING = returning(f"UPDATE tasks{_RUNNING} AND status IN ($5, $6, $7, $8, $9)")
_MOVE_TO_FINISHED = returning(f"UPDATE tasks{_FINISHED} AND status IN ($5, $6, $7, $8, $9)")
_COUNT_BY_STATUS = "SELECT status, count(*) FROM tasks GROUP BY status"
_ONE_OF_STATUS = "SELECT id FROM tasks WHERE status = $1 ORDER BY created_at, id LIMIT 1"

_LISTING = Listing(TASKS, TaskStatus, rare=["workspace_path"])


def create(connection: Connection, task: Task) -> None:
    """Store a new task. The record is complete as it is: nothing needs to be read back.

    Raises:
        UniqueViolation: A task has this id.
    """
    execute(connection, _CREATE, TASKS.to_row(task))


def create_many(connection: Connection, tasks: Iterable[Task]) -> None:
    """Store new tasks in one transaction: all of them or none.

    Raises:
        UniqueViolation: A task has one of these ids.
    """
    insert_many(connection, TASKS, map(TASKS.to_row, tasks))


def get(connection: Connection, id: str) -> Task | None:
    """Return the task with this id, or None."""
    return TASKS.first(fetch(connection, _GET, (id,)))


def get_many(connection: Connection, ids: Iterable[str]) -> dict[str, Task]:
    """Return the tasks with these ids, by id, in the order of the ids; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such an id: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, TASKS, _GET_MANY, ids)


def get_one(connection: Connection, id: str) -> Task:
    """Return the task with this id.

    Raises:
        NotFound: There is none.
    """
    return TASKS.found(get(connection, id), id)


def exists(connection: Connection, id: str) -> bool:
    """Return whether there is a task with this id."""
    return bool(fetch(connection, _EXISTS, (id,)))


def update(connection: Connection, task: Task) -> Task:
    """Store a changed task, provided that nobody changed it meanwhile, and return it with its new `updated_at`.

    `id` and `created_at` stay as they were. Optimistic: `task.updated_at` must be what it was when the task was read.
    `attrs.evolve(task, title="…")` makes the changed record.

    Raises:
        NotFound: There is no such task.
        StaleRecord: It was changed since: read it again and repeat the change.
    """
    parameters = TASKS.for_update(TASKS.to_row(task))
    return change(connection, TASKS, _UPDATE, parameters, (task.id,))


def set_status(
    connection: Connection,
    id: str,
    status: TaskStatus | str,
    *,
    expected: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
    error: str | None = None,
    now: datetime | None = None,
) -> Task:
    """Move a task to a status, past any worker that has claimed it, and return it as it is then.

    Keeps the times and the error in step: running sets `started_at`, and begins an attempt unless the task is running;
    completed, failed and cancelled set `completed_at`; pending clears both; each stores `error`, or clears it, and all
    but running end the lease. Repeating a call keeps the times. A finished task becomes pending before it becomes
    anything else; one that was begun and is pending again completes or fails only by running. `expected` is the status,
    or one of several, from which it is moved; None: any. `now` is the time of the change, and the version that it
    makes, or a millisecond after the one before, if that is later. What an AFTER trigger of your own does to the task
    is not in what is returned.

    Raises:
        NotFound: There is no such task.
        StaleRecord: Its status is not as expected, or a trigger of your own kept it as it was.
        CheckViolation: No task moves so (`tasks_status_transition`).
        InvalidValue: A status is unknown, or none is expected.
    """
    text = TaskStatus(status).value
    if error is not None:
        codec.check_text(error, "error")
    to, move = _SET_PENDING, _MOVE_TO_PENDING
    if text != "pending":
        to, move = (_SET_RUNNING, _MOVE_TO_RUNNING) if text == "running" else (_SET_FINISHED, _MOVE_TO_FINISHED)
    parameters: tuple[str | None, ...] = (codec.now_to_text(now), text, error, id)
    allowed = () if expected is None else _statuses(expected)
    if allowed:
        parameters += (*allowed, *allowed[:1] * (len(TaskStatus) - len(allowed)))
    task, is_changed = changed_one(connection, move if allowed else to, parameters, id)
    if not is_changed:
        stale = f"is not {' or '.join(allowed)}: read it again, then decide"
        if not allowed or task.status.value in allowed:
            stale = "was left as it is: a trigger of the database passes it by"
        raise StaleRecord(f"tasks: {id!r} {stale}", table="tasks", key=id)
    return task


def _statuses(given: TaskStatus | str | Iterable[TaskStatus | str]) -> tuple[str, ...]:
    statuses = {TaskStatus(one).value for one in ([given] if isinstance(given, str) else given)}
    if not statuses:
        raise InvalidValue("expected must be a status, or several: none is expected")
    return tuple(sorted(statuses))


def delete(connection: Connection, id: str) -> bool:
    """Delete a task, its places in workflows and its tool executions. Return whether it was there. Safe to repeat."""
    return bool(execute(connection, _DELETE, (id,)))


def find(
    connection: Connection,
    *,
    status: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
    task_type: str | None = None,
    workspace_path: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page[Task]:
    """Return a page of tasks by creation time, newest first unless `oldest_first`.

    `status` is one or several. `since` is the earliest `created_at`, `until` the first that is too late. `after` is the
    `next` of the page before, from a call with the same filters and order. Tasks that are created meanwhile neither
    hide one nor show one twice.

    Raises:
        InvalidValue: The limit is not from 1 to 1000, or the status is unknown.
        InvalidCursor: `after` is not from a page of this query.
    """
    return _LISTING.page(
        connection,
        status=status,
        task_type=task_type,
        workspace_path=workspace_path,
        since=since,
        until=until,
        oldest_first=oldest_first,
        limit=limit,
        after=after,
    )


def iter_all(
    connection: Connection,
    *,
    status: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
    task_type: str | None = None,
    workspace_path: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
) -> Iterator[Task]:
    """Yield all tasks that `find` would, fetched a few hundred at a time: others may write in between."""
    return _LISTING.walk(
        connection,
        status=status,
        task_type=task_type,
        workspace_path=workspace_path,
        since=since,
        until=until,
        oldest_first=oldest_first,
    )


def count(
    connection: Connection,
    *,
    status: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
    task_type: str | None = None,
    workspace_path: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Return how many tasks `find` would list. Goes through all of them in an index: 0.3 s for a million."""
    return _LISTING.count(
        connection, status=status, task_type=task_type, workspace_path=workspace_path, since=since, until=until
    )


def count_by_status(connection: Connection) -> dict[TaskStatus, int]:
    """Return how many tasks each status has; every status is there, with zero if need be.

    Raises:
        UnreadableRow: There are some with a status that this program does not know: a newer version wrote them.
    """
    return by_status(connection, Task, TaskStatus, _COUNT_BY_STATUS, _ONE_OF_STATUS)
