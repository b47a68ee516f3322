"""The laws of claims, held against a database at rest: each violation in words."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dao import task_events, tasks
from dao.engine import Connection, fetch
from dao.records import FINISHED_TASKS, Task, TaskEvent

__all__ = ["violations"]

_MISCOUNTED = """
SELECT id FROM tasks
WHERE  waiting_for <> (SELECT count(*)
                       FROM   task_dependencies
                       JOIN   tasks AS earlier ON earlier.id = task_dependencies.depends_on
                       WHERE  task_dependencies.task_id = tasks.id AND earlier.status <> 'completed')
OR     paused_by <> (SELECT count(*)
                     FROM   workflow_tasks
                     JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
                     WHERE  workflow_tasks.task_id = tasks.id AND workflows.status = 'paused')
"""
_OPEN_CALLS = """
SELECT tool_executions.task_id
FROM   tool_executions
JOIN   tasks ON tasks.id = tool_executions.task_id
WHERE  tool_executions.status IN ('pending', 'running')
AND    NOT (tasks.status = 'running' AND tasks.attempt = tool_executions.attempt)
"""
_STEPS_DONE = "SELECT task_id, step, count(*) FROM tool_executions WHERE status = 'completed' GROUP BY task_id, step"


def violations(connection: Connection, effects: Mapping[str, Sequence[int]], steps: Sequence[str]) -> Iterator[str]:
    """Yield each violation of the laws that `dao.testing.torture` lists, in words.

    `effects` has the attempts that had the effect of a task, by its id; `steps` are those that each task takes.
    """
    final = {task.id: task for task in tasks.iter_all(connection)}
    events = _events(connection)
    for (id,) in fetch(connection, _MISCOUNTED):
        yield f"{id}: waiting_for or paused_by is not what it counts"
    for (id,) in fetch(connection, _OPEN_CALLS):
        yield f"{id}: a call is open of an attempt that has ended"
    yield from _of_effects(final, effects)
    yield from _of_steps(final, steps, fetch(connection, _STEPS_DONE))
    for id, task in final.items():
        yield from _of_history(task, events[id])


def _events(connection: Connection) -> dict[str, list[TaskEvent]]:
    found: dict[str, list[TaskEvent]] = collections.defaultdict(list)
    after: Any = None
    while True:
        page = task_events.find(connection, after=after, limit=1000)
        for event in page.items:
            found[event.task_id].append(event)
        if page.next is None:
            return found
        after = page.next


def _of_effects(final: dict[str, Task], effects: Mapping[str, Sequence[int]]) -> Iterator[str]:
    for id, task in final.items():
        expected = [task.attempt] if task.status == "completed" else []
        if (found := list(effects.get(id, ()))) != expected:
            yield f"{id}: the effects are of the attempts {found}, expected {expected}"
    for id in effects.keys() - final.keys():
        yield f"{id}: had an effect, and is no task"


def _of_steps(final: dict[str, Task], steps: Sequence[str], done: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    times = {(id, step): number for id, step, number in done}
    for id, step in itertools.product(final, steps):
        number = times.get((id, step), 0)
        if number > 1 or (number == 0 and final[id].status == "completed"):
            yield f"{id}: the step {step} was completed {number} times"


def _of_history(task: Task, events: list[TaskEvent]) -> Iterator[str]:
    """Undo the events of a task from its row, the last first, and tell each that does not fit what comes after it."""
    state = {**task.to_dict()}
    for event in reversed(events):
        is_now, text = (state["status"], state["attempt"]), f"{task.id}, event {event.seq}"
        if (event.to_status, event.attempt) != is_now:
            yield f"{text}: leads to {event.to_status}, attempt {event.attempt}, but the task was {is_now} then"
        state.update(event.previous)
        if event.from_status is None:
            break
        if event.from_status != state["status"]:
            yield f"{text}: begins at {event.from_status}, but the task was {state['status']} before"
        if event.from_status != "pending" and event.to_status == "running" and event.from_status != "running":
            yield f"{text}: from {event.from_status} to running"
        if event.to_status == "running" and event.from_status == "pending" and event.attempt != state["attempt"] + 1:
            yield f"{text}: attempt {event.attempt} follows {state['attempt']}"
    if (state["status"], state["attempt"], state["worker"], state["failures"]) != ("pending", 0, None, 0):
        yield f"{task.id}: its history leads back to {state}, not to a task that was just enqueued"
    for event in events:
        if event.from_status in FINISHED_TASKS and event.to_status not in {event.from_status, "pending"}:
            yield f"{task.id}, event {event.seq}: from {event.from_status} to {event.to_status}"
    for earlier, later in itertools.pairwise(events):
        if earlier.at >= later.at:
            yield f"{task.id}, event {later.seq}: is not later than the one before"
