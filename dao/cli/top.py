"""The command that shows how the queues and their workers are doing, again and again."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
import click

from dao import codec, settings, task_events
from dao import tasks as queue
from dao.cli.database import check_schema
from dao.cli.options import Amount, command, examples
from dao.cli.output import Output, in_columns, is_terminal
from dao.engine import Connection, fetch
from dao.errors import OperationalError, PoolTimeout
from dao.migrate import database as databases
from dao.migrate.schema.registration import register
from dao.pool import Pool
from dao.text import brief

__all__ = ["Running", "top"]

_MINUTE = timedelta(minutes=1)
# so many of the tasks that run are read, the longest running first
_LIMIT = 200
_RUNNING = """
SELECT worker, id, task_type, attempt, phase, started_at, lease_expires_at, title
FROM   task_overview
WHERE  status = 'running'
ORDER  BY started_at, id
LIMIT  $1
"""
_QUEUES = ("type", "ready", "scheduled", "backing off", "blocked", "paused", "running", "lost", "failed", "oldest")
_WORKERS = ("worker", "task", "type", "attempt", "since", "lease", "title")


@attrs.frozen
class Running:
    """A task that runs. `worker` is None if nobody has claimed it; `phase` is lost once its lease has ended."""

    worker: str | None
    id: str
    task_type: str
    attempt: int
    phase: str
    started_at: datetime | None
    lease_expires_at: datetime | None
    title: str


@attrs.frozen
class _Look:
    """The figures of one look at the database."""

    at: datetime
    queues: list[queue.QueueState]
    throughput: task_events.Throughput
    running: list[Running]


@click.command("top")
@command(migrations=False)
@examples("dao top", "dao top --once --json")
@click.option(
    "--interval",
    type=Amount(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option(
    "--once", is_flag=True, help="Look once, and end. So it does with --json, and where there is no terminal."
)
def top(config: settings.Settings, output: Output, interval: float, once: bool) -> None:
    """Show queues, throughput and workers.

    How many tasks of each type are in which phase, and since when the oldest is due; how many attempts ended in the
    last minute, as events tell; which worker runs what, and until when. It goes on until Ctrl-C, also while the
    server is restarted; after a look that takes long it waits longer. Reads only.
    """
    url = config.url.creating_nothing().switching_nothing()
    databases.existing(url, "look at")
    with attrs.evolve(config, url=url, pool_size=1).pool() as pool:
        if once or output.quiet or output.as_json or not is_terminal(sys.stdout):
            look = _look(pool, config, config.pool_timeout)
            for line in _lines(config.url.name, look):
                output.line(line)
            output.json(_document(config.url.name, look))
            return
        with contextlib.suppress(KeyboardInterrupt):
            _watch(pool, config, output, interval)


def _look(pool: Pool, config: settings.Settings, timeout: float) -> _Look:
    with pool.acquire(timeout=timeout) as connection:
        register(connection)
        check_schema(connection, config)
        now = codec.now()
        return _Look(
            now,
            queue.queues(connection, now=now),
            task_events.throughput(connection, since=now - _MINUTE),
            _running(connection),
        )


def _running(connection: Connection) -> list[Running]:
    def moment(value: Any) -> datetime | None:
        return None if value is None else codec.time_from_text(value)

    return [
        Running(worker, id, task_type, attempt, phase, moment(started), moment(lease), title)
        for worker, id, task_type, attempt, phase, started, lease, title in fetch(connection, _RUNNING, (_LIMIT,))
    ]


def _watch(pool: Pool, config: settings.Settings, output: Output, interval: float) -> None:
    """Show one look after the other, whatever becomes of the server meanwhile."""
    from rich.live import Live
    from rich.text import Text

    console = output.console(sys.stdout)
    lines = [f"{config.url.name}: looking …"]
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            try:
                lines = [*_lines(config.url.name, _look(pool, config, interval), console.size)]
                trouble = []
            except (OperationalError, PoolTimeout) as error:
                trouble = [f"{codec.now():%H:%M:%S} UTC: {error}", "trying again; this is how it was before:", ""]
            frame = Text("\n".join([*trouble, *lines]), no_wrap=True, overflow="ellipsis")
            live.update(frame, refresh=True)
            # it counts all tasks that are not done with: of a million it must not take more than a third of the time
            time.sleep(max(interval, 2 * (time.monotonic() - begun)))


# ---------------------------------------------------------------- what it shows


def _by_worker(running: Sequence[Running]) -> Iterator[tuple[str | None, list[Running]]]:
    """Yield each worker with what it runs, by name; None comes last."""
    ordered = sorted(running, key=lambda task: (task.worker is None, task.worker or ""))  # stable: by start within
    for worker, found in itertools.groupby(ordered, key=lambda task: task.worker):
        yield worker, [*found]


def _lines(name: str, look: _Look, screen: tuple[int, int] | None = None) -> Iterator[str]:
    """Yield what a look shows; as much of what runs as there is room for on a screen of so many columns and lines."""
    width, height = (None, None) if screen is None else screen
    ended = look.throughput
    yield f"{name}  {look.at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"last minute: {ended.completed} completed, {ended.failed} failed, {ended.retried} to be tried again"
    yield ""
    if look.queues:
        yield from in_columns(_QUEUES, [_queue(one, look.at) for one in look.queues], width)
    else:
        yield "no task is unfinished, and none failed"
    if look.running:
        # less the lines of the queues and their head, five that are always there, and one for those that have no room
        room = _LIMIT if height is None else max(1, height - len(look.queues) - 7)
        yield ""
        rows = [_row(task, look.at) for _, found in _by_worker(look.running[:room]) for task in found]
        yield from in_columns(_WORKERS, rows, width)
        if (more := sum(one.running + one.lost for one in look.queues) - len(rows)) > 0:
            yield f"… and {more} more, which began later"


def _queue(one: queue.QueueState, now: datetime) -> tuple[object, ...]:
    oldest = None if one.oldest_ready is None else brief((now - one.oldest_ready).total_seconds())
    numbers = attrs.astuple(one, filter=lambda field, _: field.name not in {"task_type", "oldest_ready"})
    return (one.task_type, *numbers, oldest)


def _row(task: Running, now: datetime) -> tuple[object, ...]:
    since = None if task.started_at is None else brief((now - task.started_at).total_seconds())
    lease = None
    if task.lease_expires_at is not None:
        left = (task.lease_expires_at - now).total_seconds()
        lease = f"lost {brief(-left)} ago" if task.phase == "lost" else brief(left)
    return task.worker, task.id, task.task_type, task.attempt, since, lease, task.title


def _document(name: str, look: _Look) -> dict[str, object]:
    def written(moment: datetime | None) -> str | None:
        return None if moment is None else codec.time_to_text(moment)

    return {
        "database": name,
        "at": written(look.at),
        "queues": [one.to_dict() for one in look.queues],
        "throughput": {"seconds": _MINUTE.total_seconds(), **look.throughput.to_dict()},
        "workers": [
            {
                "worker": worker,
                "tasks": [
                    attrs.asdict(task, filter=lambda field, _: field.name != "worker")
                    | {"started_at": written(task.started_at), "lease_expires_at": written(task.lease_expires_at)}
                    for task in found
                ],
            }
            for worker, found in _by_worker(look.running)
        ],
    }
