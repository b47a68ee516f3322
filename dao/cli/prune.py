"""The command that deletes what is old, for cron."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import click

from dao import codec, sessions, settings, task_events, tool_executions
from dao import tasks as queue
from dao.cli.database import opened
from dao.cli.options import command, duration_option, examples
from dao.cli.output import Output
from dao.cli.task_changes import pruned, telling_committed, yes_option
from dao.text import counted

__all__ = ["prune"]


class _Old(NamedTuple):
    """The old rows of a table: their noun and which they are, how many there are, and how they are deleted."""

    table: str
    noun: str
    which: str
    number: Callable[[Any, datetime], int]
    delete: Callable[[Any, datetime], int]


# tasks first: with them goes what belongs to them
_TABLES = (
    _Old("tasks", "finished task", "", lambda c, before: queue.count_prunable(c, before=before), pruned),
    _Old(
        "tool_executions",
        "tool execution",
        " without a task",
        lambda c, before: tool_executions.count_before(c, before, without_task=True),
        lambda c, before: tool_executions.delete_before(c, before, without_task=True),
    ),
    _Old(
        "sessions",
        "stale session",
        "",
        lambda c, before: sessions.count_stale(c, older_than=timedelta(0), now=before),
        lambda c, before: len(sessions.delete_stale(c, older_than=timedelta(0), now=before)),
    ),
    _Old("task_events", "event", "", task_events.count_before, task_events.delete_before),
)


@click.command("prune")
@command(migrations=False, changes=True)
@examples("dao prune --older-than 30d  # says what it would do", "dao prune --older-than 30d --yes")
@duration_option("--older-than", "How old it has to be, such as 12h or 30d.", required=True)
@yes_option
def prune(config: settings.Settings, output: Output, older_than: timedelta, yes: bool) -> None:
    """Delete what is old, for cron.

    That is: tasks that ended so long ago, with their tool calls, but for a failed or cancelled one that an unfinished
    task waits for; tool executions of no task; sessions without a heartbeat for so long, open or closed; events. In
    batches, so that others can write in between. Safe to repeat.
    """
    output.changes = yes
    before = codec.now() - older_than
    found: dict[str, dict[str, int]] = {}
    with opened(config, changes=yes) as connection, telling_committed(output, "deleted", "row") as committed:
        for one in _TABLES:
            matched = one.number(connection, before)
            deleted = one.delete(connection, before) if yes and matched else 0
            committed[one.table] = deleted
            # those that others kept locked, or that came to be waited for
            left = one.number(connection, before) if yes and deleted < matched else 0
            found[one.table] = {"matched": matched, "deleted": deleted, "left": left}
            rest = f"; {left} left for the next time" if left else ""
            did, number = ("deleted", deleted) if yes else ("would delete", matched)
            output.line(f"{one.table}: {did} {counted(number, one.noun)}{one.which}{rest}")
    if not yes:
        output.note("nothing was changed: add --yes to do it")
    output.json(
        {
            "database": config.url.name,
            "dry_run": not yes,
            "before": codec.time_to_text(before),
            "tables": [{"name": name, **numbers} for name, numbers in found.items()],
        }
    )
