"""Tasks as they were: the events that triggers wrote (`dao.task_events`), undone one by one from what is there now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dao import codec
from dao.engine import Connection, PerEngine, fetch, text_for
from dao.errors import NotFound
from dao.listing import check_limit
from dao.records import Task, TaskEvent
from dao.rows import TASK_EVENTS, TASKS

__all__ = ["as_of", "list_changed"]

_SINCE = f"""
SELECT {TASK_EVENTS.listed}
FROM   task_events
WHERE  task_id = $1 AND at > $2
ORDER  BY seq
"""
# No index of tasks has `updated_at`: it would be written with each version, and this one is there anyway.
_LIST_CHANGED = PerEngine(
    sqlite=f"""
SELECT {TASKS.qualified}
FROM   task_events
JOIN   tasks ON tasks.id = task_events.task_id AND tasks.updated_at = task_events.at
WHERE  task_events.at >= $1
ORDER  BY task_events.at DESC, task_events.seq DESC
LIMIT  $2
""",
    # without the inner limit it reads all tasks, if it expects many events
    postgresql=f"""
SELECT changed.*
FROM   task_events
CROSS  JOIN LATERAL (
           SELECT {TASKS.listed}
           FROM   tasks
           WHERE  tasks.id = task_events.task_id AND tasks.updated_at = task_events.at
           LIMIT  1
       ) AS changed
WHERE  task_events.at >= $1
ORDER  BY task_events.at DESC, task_events.seq DESC
LIMIT  $2
""",
)
_LAST_BEFORE = "SELECT to_status FROM task_events WHERE task_id = $1 AND at <= $2 ORDER BY seq DESC LIMIT 1"
_IS_OLDER = "SELECT 1 FROM task_events WHERE at <= $1 ORDER BY at LIMIT 1"


def as_of(connection: Connection, id: str, moment: datetime) -> Task | None:
    """Return a task as it was at a moment, also one that has been deleted since; None if it was not there then.

    It is the version with the latest `updated_at` that is not after the moment; of the lease, which heartbeats prolong
    without making a version, it has some later state. One that was made later was not there, unless events are left
    that tell of an earlier one with the same id. Reads the task and the events that came after the moment.

    Raises:
        NotFound: It is not known any more, or never was: events of that time were deleted (`task_events.delete_before`)
            or not written, since they were left out or the task changed before there were any.
        InvalidValue: The moment is naive.
    """
    asked = codec.time_to_text(moment)
    row = next(iter(fetch(connection, TASKS.get, (id,))), None)
    # what is undone, by column; None while the task is not there
    state: dict[str, Any] | None = None if row is None else dict(zip(TASKS.columns, row, strict=True))
    events = TASK_EVENTS.from_rows(fetch(connection, _SINCE, (id, asked)))
    if deleted := next((number for number, event in enumerate(events, 1) if event.to_status is None), None):
        # what is there now, if anything, was made after the task that was there at the moment had gone
        state, events = None, events[:deleted]
    elif state is not None:
        # events that have come since the row was read do not lead to it
        until = codec.time_from_text(_begun(state))
        events = [event for event in events if event.at <= until]
    is_known = row is not None or bool(events)
    for event in reversed(events):
        if not _ends_with(event, state):
            raise _unknown(id, asked)
        is_first = event.from_status is None and not event.previous
        state = None if is_first else {"id": id, **(state or {}), **event.previous}
    if state is not None and _begun(state) <= asked:
        return TASKS.from_row(tuple(state[column] for column in TASKS.columns))
    was_made_later = state is None or codec.canonical_time(state["created_at"]) > asked
    if was_made_later and _was_gone(connection, id, asked, is_known=is_known):
        return None
    raise _unknown(id, asked)


def list_changed(connection: Connection, *, since: datetime, limit: int = 50) -> list[Task]:
    """Return the tasks that have changed since a moment, as they are now, the latest `updated_at` first.

    So many at the most, each once. As far as events tell: a task whose last event was deleted or left out is not among
    them. Reads the events since then, until it has enough. To follow all changes, and miss none, ask `task_events.find`
    for what comes `after`, and `get_many` for the tasks.

    Raises:
        InvalidValue: The moment is naive, or the limit not from 1 to 1000.
    """
    check_limit(limit)
    return TASKS.from_rows(fetch(connection, text_for(connection, _LIST_CHANGED), (codec.time_to_text(since), limit)))


def _begun(state: dict[str, Any]) -> str:
    return codec.canonical_time(state["updated_at"])


def _ends_with(event: TaskEvent, state: dict[str, Any] | None) -> bool:
    """Return whether it is this version, or the end of the task, that came with the event."""
    if state is None or event.to_status is None:
        return state is None and event.to_status is None
    return _begun(state) == codec.time_to_text(event.at)


def _was_gone(connection: Connection, id: str, asked: str, *, is_known: bool) -> bool:
    """Return whether a task was not there at a moment after which it was not changed, but made or not there at all."""
    for (status,) in fetch(connection, _LAST_BEFORE, (id, asked)):
        return status is None  # if it was there, its end was not written
    # the oldest go first: what came after one that is left is left
    return is_known or bool(fetch(connection, _IS_OLDER, (asked,)))


def _unknown(id: str, asked: str) -> NotFound:
    return NotFound(
        f"task_events: what the task {id!r} was at {asked} is not known: its events of that time were deleted, or not "
        "written; `task_events.list_of` has those that are left",
        table="task_events",
        key=id,
    )
