"""The commands about tasks: those that look; those that change some are in `task_changes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import attrs
import click

from dao import codec, settings, task_dependencies, task_events, tool_executions, workflow_tasks
from dao import tasks as queue
from dao.cli import completion, task_changes
from dao.cli.database import opened
from dao.cli.filters import COLUMNS, Filters, filtered, listed, named, of_ids, shown
from dao.cli.options import command, examples
from dao.cli.output import Output
from dao.engine import Connection
from dao.errors import NotFound
from dao.records import Task, TaskEvent, TaskStatus, ToolExecution, WorkflowStatus
from dao.text import brief, counted

__all__ = ["Attempt", "tasks"]

#: So many of the tasks that one waits for, of its attempts and of its calls are shown.
_SHOWN = 20


@click.group("tasks")
@examples("dao tasks list --phase lost", "dao tasks show 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b")
def tasks() -> None:
    """List tasks, tell one's story, act on many."""


for _command in (task_changes.retry, task_changes.cancel, task_changes.release, task_changes.prune):
    tasks.add_command(_command)


@tasks.command("list")
@command(migrations=False)
@examples("dao tasks list --phase blocked --limit 10", "dao tasks list --status failed --type mail --older-than 1h")
@filtered(*TaskStatus)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="So many at the most."
)
def list_(config: settings.Settings, output: Output, filters: Filters, limit: int) -> None:
    """List tasks, the newest first.

    Each with its phase: ready, scheduled (run_at is ahead), backing off (the same, after a failure), blocked (waits for
    other tasks), paused (in a paused workflow), running, lost (its lease has ended), or how it ended. Reads only.
    """
    with opened(config) as connection:
        found = listed(connection, filters, limit + 1)
    more = len(found) > limit
    del found[limit:]
    if found:
        output.table(COLUMNS, shown(found))
    else:
        output.line(f"{config.url.name}: no such tasks")
    if more:
        output.note(f"these are the newest {limit}: --limit shows more, the other options filter")
    output.json({"database": config.url.name, "tasks": [attrs.asdict(one) for one in found], "more": more})


# ---------------------------------------------------------------- one task


@attrs.frozen(kw_only=True)
class Attempt:
    """One time that a task ran. `outcome` is None while it runs, or where no event tells."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None = None
    outcome: str | None = None
    error: str | None = None


@tasks.command("show")
@command(migrations=False)
@examples("dao tasks show 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b")
@click.argument("id", shell_complete=completion.tasks())
def show(config: settings.Settings, output: Output, id: str) -> None:
    """Tell the story of one task.

    Shows the record, why the task does not run, its attempts and their errors (by its events, as long as those are
    kept), and its tool calls. Reads only.
    """
    id = named(id, "the ID")
    with opened(config) as connection:
        task = _get(connection, id)
        phase = of_ids(connection, [id])[id].phase
        waits_for = [
            one for one in task_dependencies.list_predecessors(connection, id) if one.status is not TaskStatus.COMPLETED
        ]
        paused_by = [
            one for one in workflow_tasks.list_workflows(connection, id) if one.status is WorkflowStatus.PAUSED
        ]
        attempts = _attempts(task, task_events.list_of(connection, id))
        calls = [*tool_executions.iter_all(connection, task_id=id, oldest_first=True)]
    output.line(f"{task.id}  {phase}", style="bold")
    for line in _facts(task):
        output.line(f"  {line}")
    for line in _reasons(task, phase, waits_for, [one.name for one in paused_by]):
        output.line(line, style="yellow")
    _last(output, ("attempt", "worker", "started", "took", "outcome", "error"), [*map(_row, attempts)], "attempt")
    _last(output, ("attempt", "step", "tool", "status", "took", "error"), [*map(_call, calls)], "tool call")
    output.json(
        {
            "database": config.url.name,
            "task": task.to_dict(),
            "phase": phase,
            "waits_for": [{"id": one.id, "status": one.status.value, "title": one.title} for one in waits_for],
            "paused_by": [{"id": one.id, "name": one.name} for one in paused_by],
            "attempts": [_plain(attempt) for attempt in attempts],
            "calls": [
                {
                    "id": call.id,
                    "attempt": call.attempt,
                    "step": call.step,
                    "tool_name": call.tool_name,
                    "status": call.status.value,
                    "seconds": None if call.duration_ms is None else call.duration_ms / 1000,
                    "error": call.error,
                }
                for call in calls
            ],
        }
    )


def _get(connection: Connection, id: str) -> Task:
    try:
        return queue.get_one(connection, id)
    except NotFound as error:
        events = task_events.list_of(connection, id)
        if not events:
            raise NotFound(
                f"there is no task {id!r}: `dao tasks list` shows those that there are", table="tasks", key=id
            ) from error
        last = events[-1]
        gone = (
            f"it was {'' if last.from_status is None else f'{last.from_status.value}, and '}deleted at {_time(last.at)}"
        )
        raise NotFound(
            f"there is no task {id!r} any more, {gone}: call `task_events.list_of` for its history",
            table="tasks",
            key=id,
        ) from error


def _attempts(task: Task, events: Sequence[TaskEvent]) -> list[Attempt]:
    """Return the attempts of a task that its events tell, the oldest first, and the one that runs."""
    found: dict[int, Attempt] = {}
    for event in events:
        ended = event.from_status is TaskStatus.RUNNING
        if ended and event.to_status is not TaskStatus.RUNNING:
            begun = found.get(event.attempt, Attempt(attempt=event.attempt, worker=event.worker, started_at=None))
            found[event.attempt] = attrs.evolve(
                begun,
                ended_at=event.at,
                outcome=_outcome(event),
                error=event.error,
                worker=event.worker or begun.worker,
            )
        elif event.to_status is TaskStatus.RUNNING and event.attempt not in found:
            found[event.attempt] = Attempt(attempt=event.attempt, worker=event.worker, started_at=event.at)
    if task.status is TaskStatus.RUNNING and task.attempt not in found:
        found[task.attempt] = Attempt(attempt=task.attempt, worker=task.worker, started_at=task.started_at)
    return [found[number] for number in sorted(found)]


def _outcome(event: TaskEvent) -> str:
    if event.to_status is None:
        return "deleted"
    if event.to_status is TaskStatus.PENDING:
        return "released" if event.error is None else "failed, to be tried again"
    return event.to_status.value


def _facts(task: Task) -> Iterator[str]:
    """Yield what the record says of a task, one thing a line."""
    yield f"title: {task.title}"
    yield f"type: {task.task_type}, priority {task.priority}"
    yield f"made: {_ago(task.created_at)}"
    if task.attempt or task.retries:
        failures = counted(task.failures, "failure")
        yield f"attempts: {task.attempt}, with {failures}; retries allowed: {task.retries}"
    if task.dedup_key is not None:
        yield f"dedup_key: {task.dedup_key}"
    if task.completed_at is not None:
        yield f"ended: {_ago(task.completed_at)}"
    if task.error is not None:
        yield f"error: {task.error}"


def _reasons(task: Task, phase: str, waits_for: Sequence[Task], workflows: Sequence[str]) -> Iterator[str]:
    """Yield why a task does not run, or who runs it."""
    if task.status is TaskStatus.RUNNING:
        since = "" if task.started_at is None else f" since {_ago(task.started_at)}"
        if task.worker is None or task.lease_expires_at is None:
            yield f"it runs{since}, and no worker has claimed it"
        elif phase == "lost":
            yield f"worker {task.worker} has it{since}; its lease ended {_ago(task.lease_expires_at)}: the next claim"
            yield "  fails this attempt, and `dao tasks release` gives the task back now"
        else:
            yield f"worker {task.worker} has it{since}; its lease ends {_ago(task.lease_expires_at)}"
    if task.status is not TaskStatus.PENDING:
        return
    if waits_for:
        yield f"it waits for {counted(len(waits_for), 'task')}:"
        for one in waits_for[:_SHOWN]:
            yield f"  {one.id}  {one.status.value}  {one.title}"
        if len(waits_for) > _SHOWN:
            yield f"  … and {len(waits_for) - _SHOWN} more"
    for name in workflows:
        yield f"its workflow is paused: {name}"
    if phase in {"scheduled", "backing off"} or (phase != "ready" and task.run_at > codec.now()):
        yield f"it may run from {_ago(task.run_at)}" + (" on, after a failure" if task.failures else " on")
    if phase == "ready":
        yield f"it is due since {_ago(max(task.run_at, task.created_at))}, and any worker may claim it"


def _row(attempt: Attempt) -> tuple[object, ...]:
    took = None
    if attempt.started_at is not None and attempt.ended_at is not None:
        took = brief((attempt.ended_at - attempt.started_at).total_seconds())
    started = None if attempt.started_at is None else _time(attempt.started_at)
    return attempt.attempt, attempt.worker, started, took, attempt.outcome or "", attempt.error


def _call(call: ToolExecution) -> tuple[object, ...]:
    took = None if call.duration_ms is None else f"{call.duration_ms} ms"
    return call.attempt, call.step, call.tool_name, call.status.value, took, call.error


def _last(output: Output, names: Sequence[str], rows: Sequence[Sequence[object]], noun: str) -> None:
    """Print the last rows of a table, if there are any, and how many there are in all."""
    if rows:
        output.table(names, rows[-_SHOWN:])
    if len(rows) > _SHOWN:
        output.line(f"the last {_SHOWN} of {counted(len(rows), noun)}: --json has all")


def _plain(attempt: Attempt) -> dict[str, Any]:
    return {
        name: codec.time_to_text(value) if isinstance(value, datetime) else value
        for name, value in attrs.asdict(attempt).items()
    }


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _ago(moment: datetime) -> str:
    """Return a moment, and how far away it is."""
    seconds = (codec.now() - moment).total_seconds()
    return f"{_time(moment)} ({f'{brief(seconds)} ago' if seconds >= 0 else f'in {brief(-seconds)}'})"
