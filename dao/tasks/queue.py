"""Tasks as a queue: put in, taken out, tried again, removed when they are old, and how the queue is doing.

The functions that workers call are in `claims`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import attrs
import msgspec

from dao import codec
from dao.engine import Connection, PerEngine, execute, fetch, fetch_changed, insert_many, text_for, transaction
from dao.engine.engines import engine_for
from dao.engine.keys import lock_rows, locking
from dao.errors import InvalidValue, StaleRecord
from dao.listing import check_limit
from dao.records import FINISHED_TASKS, Task, TaskDependency, TaskStatus
from dao.rows import TASK_DEPENDENCIES, TASKS
from dao.tasks.statements import READY, changed_one, returning

__all__ = ["QueueState", "cancel", "count_prunable", "enqueue", "prune", "queues", "retry"]

_ENQUEUE = f"{TASKS.insert} ON CONFLICT DO NOTHING RETURNING id"
_GET_UNFINISHED = f"""
SELECT {TASKS.listed}
FROM   tasks
WHERE  dedup_key = $1 AND status IN ('pending', 'running')
"""
_DEPEND = TASK_DEPENDENCIES.insert
_LOCK_ALL = locking(TASKS)
_CANCEL = returning("""
UPDATE tasks
SET    updated_at = next_version($1), status = 'cancelled', completed_at = $1, error = $2,
       worker = NULL, lease_expires_at = NULL
WHERE  id = $3 AND status IN ('pending', 'running')
""")
# one that is due already keeps its place, and one that waits to be tried again what it failed of
_RETRY = returning("""
UPDATE tasks
SET    updated_at = next_version($1),
       run_at = CASE WHEN status = 'pending' AND run_at < $1 THEN run_at ELSE $1 END,
       failures = CASE WHEN status = 'pending' THEN failures ELSE 0 END,
       error = CASE WHEN status = 'pending' THEN error END,
       status = 'pending', started_at = NULL, completed_at = NULL
WHERE  id = $2 AND status <> 'running'
""")
# A task that waits for one that did not complete must go on waiting: without that one it would start.
_IS_WAITED_FOR = """tasks.status <> 'completed' AND EXISTS (
        SELECT 1
        FROM   task_dependencies
        JOIN   tasks AS successor ON successor.id = task_dependencies.task_id
        WHERE  task_dependencies.depends_on = tasks.id AND successor.status IN ('pending', 'running')
    )"""
# The index has the first time, which is no later than the second: that of one whose `completed_at` nobody has set.
_HAS_ENDED = """status <> 'pending' AND status <> 'running'
AND    coalesce(completed_at, created_at) < $1 AND coalesce(completed_at, updated_at) < $1"""
_COUNT_PRUNABLE = f"""
SELECT count(*)
FROM   tasks
WHERE  {_HAS_ENDED}
AND    status IN ($2, $3, $4) AND NOT ({_IS_WAITED_FOR})
"""
# A walk along the index for each status, merged. PostgreSQL locks the rows of each, since it locks none of a UNION.
_ENDED = f"""id, coalesce(completed_at, created_at) AS ended
FROM   tasks
WHERE  {_HAS_ENDED}
AND    status = '{{status}}' AND '{{status}}' IN ($2, $3, $4) AND NOT ({_IS_WAITED_FOR})
"""
_WALKS = [_ENDED.format(status=status.value) for status in FINISHED_TASKS]
_OLDEST = "ORDER  BY ended, id\nLIMIT  $5"
_LOCKED = f"{_OLDEST}\nFOR    UPDATE SKIP LOCKED"
_PRUNABLE = PerEngine(
    "UNION  ALL\n".join(f"SELECT {walk}" for walk in _WALKS) + _OLDEST,
    "UNION  ALL\n".join(f"SELECT * FROM (SELECT {walk}{_LOCKED}) AS due\n" for walk in _WALKS) + _OLDEST,
)
_PRUNE = PerEngine(
    *(
        f"""
DELETE FROM tasks
WHERE  id IN (SELECT {ids})
AND    NOT ({_IS_WAITED_FOR})
RETURNING id
"""
        for ids in ("value FROM json_each($1)", "json_array_elements_text($1)")
    )
)
_HELD = "status = 'pending' AND waiting_for"
_QUEUES = f"""
SELECT task_type,
       count(*) FILTER (WHERE {READY} AND run_at <= $1),
       count(*) FILTER (WHERE {READY} AND run_at > $1 AND failures = 0),
       count(*) FILTER (WHERE {READY} AND run_at > $1 AND failures > 0),
       count(*) FILTER (WHERE {_HELD} > 0),
       count(*) FILTER (WHERE {_HELD} = 0 AND paused_by > 0),
       count(*) FILTER (WHERE status = 'running' AND (lease_expires_at IS NULL OR lease_expires_at >= $1)),
       count(*) FILTER (WHERE status = 'running' AND lease_expires_at < $1),
       count(*) FILTER (WHERE status = 'failed'),
       min(CASE WHEN {READY} AND run_at <= $1 THEN CASE WHEN run_at > created_at THEN run_at ELSE created_at END END)
FROM   tasks
WHERE  status IN ('pending', 'running', 'failed')
GROUP  BY task_type
ORDER  BY task_type
"""

# that another task has its key, and is gone when it is looked for, happens this often at the most
_TRIES = 10


@attrs.frozen(kw_only=True)
class QueueState:
    """How the tasks of one type are doing that are not done with: how many are in which phase.

    `ready` could be claimed now; `oldest_ready` is since when the first of them could, None if there is none.
    `scheduled` have their `run_at` ahead; so have `backing_off`, which have failed before. `blocked` wait for other
    tasks, `paused` are in a paused workflow. `running` have a worker, or were begun without one; of `lost` ones the
    lease has ended. `failed` have no retry left.
    """

    task_type: str
    ready: int
    scheduled: int
    backing_off: int
    blocked: int
    paused: int
    running: int
    lost: int
    failed: int
    oldest_ready: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that any JSON encoder takes."""
        oldest = None if self.oldest_ready is None else codec.time_to_text(self.oldest_ready)
        return {**attrs.asdict(self), "oldest_ready": oldest}


def enqueue(
    connection: Connection,
    task: Task,
    *,
    dedup_key: str | None = None,
    depends_on: Iterable[str] = (),
    now: datetime | None = None,
) -> tuple[Task, bool]:
    """Store a new task unless it is there already. Return the one that is there then, and whether it is the new one.

    It is there already if a task has its id, in whatever status, or if an unfinished one has its `dedup_key`, which
    the record may have instead. Then nothing is stored, its dependencies neither. So a producer that does not know
    whether its last call arrived repeats it, with the same record.

    When it runs, how urgently and how often is up to the record: `run_at`, `priority`, `retries`, `retry_delay_ms`.
    `depends_on` are the ids of tasks that have to be completed first, each of which is there.

    Raises:
        InvalidValue: The task is not pending, or would depend on itself.
        TypeError: It is no `Task`.
        ForeignKeyViolation: A task that it depends on is not there.
    """
    if not isinstance(task, Task):
        raise TypeError(f"expected a Task, got {type(task).__name__}")
    if task.status is not TaskStatus.PENDING:
        raise InvalidValue(f"a task to enqueue is pending, this one is {task.status.value}")
    if isinstance(depends_on, str):
        raise TypeError(f"depends_on must be several ids, such as [{depends_on!r}], got one text")
    moment = codec.now() if now is None else codec.millisecond(now)
    links = [TaskDependency(task_id=task.id, depends_on=id, created_at=moment) for id in sorted({*depends_on})]
    if dedup_key is not None:
        task = attrs.evolve(task, dedup_key=dedup_key)
    if not links:
        return _enqueue(connection, task)
    with transaction(connection):
        stored, is_new = _enqueue(connection, task)
        if not is_new:
            return stored, False
        if engine_for(connection).ON_SERVER:  # as `task_dependencies.add` does: else each would wait for the other
            lock_rows(connection, _LOCK_ALL, [link.depends_on for link in links])
        rows = [TASK_DEPENDENCIES.to_row(link) for link in links]
        if len(rows) == 1:
            execute(connection, _DEPEND, rows[0], TASK_DEPENDENCIES)
        else:  # by one statement, after which PostgreSQL counts them once
            insert_many(connection, TASK_DEPENDENCIES, rows)
        return TASKS.found(TASKS.first(fetch(connection, TASKS.get, (task.id,))), task.id), True


def _enqueue(connection: Connection, task: Task) -> tuple[Task, bool]:
    row = TASKS.to_row(task)
    for _ in range(_TRIES):
        if fetch_changed(connection, _ENQUEUE, row):
            return task, True
        there = TASKS.first(fetch(connection, TASKS.get, (task.id,)))
        if there is None and task.dedup_key is not None:
            there = TASKS.first(fetch(connection, _GET_UNFINISHED, (task.dedup_key,)))
        if there is not None:
            return there, False
        # the one that stood in the way has ended meanwhile
    execute(connection, TASKS.insert, row, TASKS)  # a unique index of somebody's own stands in the way: this names it
    return task, True


def cancel(connection: Connection, id: str, *, error: str | None = None, now: datetime | None = None) -> Task:
    """Cancel a task that is pending or running, and return it as it is then. Safe to repeat.

    A worker that has it is told by `LeaseLost` when it renews its lease, or ends it. `error` may say why.

    Raises:
        NotFound: There is no such task.
        StaleRecord: It has completed or failed already.
        InvalidValue: The error has a NUL or half of a surrogate pair.
    """
    if error is not None:
        codec.check_text(error, "error")
    return _change(connection, _CANCEL, (codec.now_to_text(now), error, id), TaskStatus.CANCELLED)


def retry(connection: Connection, id: str, *, now: datetime | None = None) -> Task:
    """Have a task run again, or sooner, and return it as it is then: pending, and due.

    One that is finished in whatever way has all its retries again. One that is pending waits no longer for its
    `run_at`; what else holds it back still does.

    Raises:
        NotFound: There is no such task.
        StaleRecord: It is running: cancel it first.
        UniqueViolation: Another unfinished task has its `dedup_key`.
    """
    return _change(connection, _RETRY, (codec.now_to_text(now), id))


def _change(
    connection: Connection, statement: PerEngine, parameters: tuple[Any, ...], enough: TaskStatus | None = None
) -> Task:
    """Change the task whose id is the last parameter, and return it as it is then, also if it has that status."""
    id = parameters[-1]
    present, is_changed = changed_one(connection, statement, parameters, id)
    if is_changed or present.status is enough:
        return present
    advice = ": cancel it first" if present.status is TaskStatus.RUNNING else ""
    raise StaleRecord(f"tasks: {id!r} is {present.status.value} already{advice}", table="tasks", key=id)


def prune(
    connection: Connection,
    *,
    before: datetime,
    status: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
    limit: int = 1000,
) -> int:
    """Delete finished tasks that ended before a moment, and return how many: the oldest first, `limit` at the most.

    `status` is one or several of completed, failed and cancelled; without it all of them. With a task go its places in
    workflows, its dependencies and its tool executions; its events stay. One whose
    `completed_at` nobody has set ended when it was last changed. One that failed or was cancelled, and that an
    unfinished task waits for, stays: that would start without it. A task that another transaction uses is left to the
    next call. Call it again as long as it returns the limit, and let others write in between.

    Raises:
        InvalidValue: The moment is naive, a status is none of the three, or the limit is not from 1 to 1000.
    """
    check_limit(limit)
    prunable = _prunable(before, status)
    with transaction(connection):
        ids = [id for id, _ in fetch(connection, text_for(connection, _PRUNABLE), (*prunable, limit))]
        if not ids:
            return 0
        # PostgreSQL looks again now that they are locked: somebody may have begun to wait for one
        return len(fetch(connection, text_for(connection, _PRUNE), (msgspec.json.encode(ids).decode(),)))


def count_prunable(
    connection: Connection,
    *,
    before: datetime,
    status: TaskStatus | str | Iterable[TaskStatus | str] | None = None,
) -> int:
    """Return how many tasks `prune` would delete without a limit. Reads all that ended before the moment.

    Raises:
        InvalidValue: The moment is naive, or a status is not of a finished task.
    """
    number: int = fetch(connection, _COUNT_PRUNABLE, _prunable(before, status))[0][0]
    return number


def _prunable(before: datetime, status: TaskStatus | str | Iterable[TaskStatus | str] | None) -> tuple[str, ...]:
    """Return the parameters of a condition: before when, and three statuses, of which no task has an empty one."""
    given = FINISHED_TASKS if status is None else (status,) if isinstance(status, str) else tuple(status)
    wanted = sorted({TaskStatus(one) for one in given})
    if unfinished := [one.value for one in wanted if one not in FINISHED_TASKS]:
        raise InvalidValue(f"only finished tasks are pruned, not {' or '.join(unfinished)} ones")
    statuses = [wanted[place].value if place < len(wanted) else "" for place in range(len(FINISHED_TASKS))]
    return (codec.time_to_text(before), *statuses)


def queues(connection: Connection, *, now: datetime | None = None) -> list[QueueState]:
    """Return how the tasks of each type are doing that are not done with, by type.

    A type whose tasks all completed or were cancelled is left out. Reads every task that is pending, running or failed.
    """
    return [
        QueueState(
            task_type=task_type,
            ready=ready,
            scheduled=scheduled,
            backing_off=backing_off,
            blocked=blocked,
            paused=paused,
            running=running,
            lost=lost,
            failed=failed,
            oldest_ready=None if oldest is None else codec.time_from_text(oldest),
        )
        for task_type, ready, scheduled, backing_off, blocked, paused, running, lost, failed, oldest in fetch(
            connection, _QUEUES, (codec.now_to_text(now),)
        )
    ]
