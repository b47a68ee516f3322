"""Leases of tasks: who claims is a task, and the error for an attempt that holds its task no longer."""

from __future__ import annotations

from datetime import datetime

from dao import codec
from dao.engine import Connection, fetch
from dao.errors import LeaseLost
from dao.records import Task, TaskStatus
from dao.rows import TASKS

__all__ = ["check_claimed", "lease_lost"]


def check_claimed(task: object) -> Task:
    """Return what a caller gives as a claimed task, if it is a task.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(task, Task):
        raise TypeError(f"expected the Task that `claim` returned, got {type(task).__name__}")
    return task


def lease_lost(connection: Connection, id: str, attempt: int, holder: str | None) -> LeaseLost:
    """Return the error for an attempt of a worker that does not have its task, with what has become of that."""
    present = TASKS.first(fetch(connection, TASKS.get, (id,)))
    status = worker = since = None
    if present is None:
        fate = "it has been deleted"
    elif present.attempt < attempt:
        status, worker, since = present.status, present.worker, present.updated_at
        fate = (
            f"its latest is attempt {present.attempt}, so the claim was undone, or came after this transaction had "
            "begun, or the task was deleted and made again"
        )
    else:
        status, worker, since = present.status, present.worker, present.completed_at
        if status is TaskStatus.RUNNING:
            since = present.started_at
            who = "it runs without a worker" if worker is None else f"worker {worker!r} has it"
            fate = f"{who} as attempt {present.attempt} since {_written(since)}"
        elif status is TaskStatus.PENDING:
            since = present.updated_at
            fate = f"it is pending {'again ' if present.attempt else ''}since {_written(since)}"
        else:
            fate = f"it {'failed' if status is TaskStatus.FAILED else f'was {status.value}'} at {_written(since)}"
    said = "no longer holds"
    if present is not None and (status, present.attempt, worker, holder) == (TaskStatus.RUNNING, attempt, None, None):
        said, fate = "has no lease on", "`set_status` began it, and only `claim` gives one"
    return LeaseLost(
        f"tasks: attempt {attempt} {said} {id!r}: {fate}",
        table="tasks",
        key=id,
        attempt=None if present is None else present.attempt,
        worker=worker,
        since=since,
        status=status,
    )


def _written(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else codec.time_to_text(moment)
