"""The command that prints how database and queues are doing as Prometheus reads it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

import attrs
import click

from dao import codec, settings, task_events
from dao import tasks as queue
from dao.cli.database import opened
from dao.cli.files import write_whole
from dao.cli.options import command, examples, file_option
from dao.cli.output import Output
from dao.engine import Connection, PerEngine, fetch, text_for
from dao.migrate import State, status
from dao.text import counted
from dao.url import DatabaseURL

__all__ = ["Metric", "Sample", "metrics"]

_MINUTE = timedelta(minutes=1)
_LAST_EVENT = "SELECT coalesce(max(seq), 0) FROM task_events"
_SESSIONS = "SELECT count(*), min(last_heartbeat) FROM sessions WHERE is_active = TRUE"
_SIZE = PerEngine(
    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
    "SELECT pg_database_size(current_database())",
)
_FREE = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
# state and kind of other roles' sessions are not for everybody to see
_CONNECTIONS = """
SELECT   coalesce(state, 'unknown'), count(*)
FROM     pg_stat_activity
WHERE    datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1
ORDER BY 1
"""
_MOST_CONNECTIONS = "SELECT current_setting('max_connections')::int"


@attrs.frozen
class Sample:
    """A number, and what tells it from others of the same metric."""

    labels: dict[str, str]
    value: float


@attrs.frozen
class Metric:
    """A metric and its samples. A gauge goes up and down, a counter up."""

    name: str
    type: Literal["gauge", "counter"]
    help: str
    samples: tuple[Sample, ...]


@click.command("metrics")
@command()
@examples(
    "dao metrics",
    "dao metrics --output /var/lib/node_exporter/textfile/dao.prom  # each minute, by cron",
    "dao metrics --json",
)
@file_option(
    "--output",
    "path",
    text="Write them into this file, which is replaced as a whole. It gets the permissions of any new file.",
)
def metrics(config: settings.Settings, output: Output, path: str | None) -> None:
    """Print figures in the text format of Prometheus.

    For the textfile collector of node_exporter: tasks by type and phase, the age of the oldest that is ready, attempts
    that ended in the last minute, events, sessions, the size of the database, of a server its connections, migrations
    by state. Counts every task that is not done with. Reads only. If the database cannot be read it fails, and the file
    stays as it is: alert on its age (node_textfile_mtime_seconds).
    """
    if path == "-":  # as elsewhere
        path = None
    found = [*_metrics(config)]
    name = config.url.name
    if path is not None:
        write_whole(path, _exposition(found, name), "text")
        output.line(f"{name}: wrote {counted(sum(len(one.samples) for one in found), 'sample')} to {path}")
    elif not (output.as_json or output.quiet):
        output.text(_exposition(found, name))
    output.json({"database": name, "output": path, "metrics": [attrs.asdict(one) for one in found]})


# ---------------------------------------------------------------- what there is


def _metrics(config: settings.Settings) -> Iterator[Metric]:
    with opened(config) as connection:
        now = codec.now()
        yield from _of_tasks(connection, now)
        yield from _of_sessions(connection, now)
        yield from _of_database(connection, config)
    current = status(config.url, config.migrations)
    states: tuple[State, ...] = ("applied", "pending", "changed", "missing", "unfinished")
    yield Metric(
        "dao_migrations",
        "gauge",
        "Migrations by where they stand; as dao status has it.",
        tuple(Sample({"state": state}, len(current.ids(state))) for state in states),
    )
    yield _gauge("dao_schema_current", "Whether dao status finds nothing to do.", int(current.is_current))


def _of_tasks(connection: Connection, now: datetime) -> Iterator[Metric]:
    states = queue.queues(connection, now=now)
    phases = [field.name for field in attrs.fields(queue.QueueState) if field.name not in {"task_type", "oldest_ready"}]
    yield Metric(
        "dao_tasks",
        "gauge",
        "Tasks that are not done with, by type and phase.",
        tuple(
            Sample({"task_type": state.task_type, "phase": phase}, getattr(state, phase))
            for state in states
            for phase in phases
        ),
    )
    yield Metric(
        "dao_oldest_ready_task_age_seconds",
        "gauge",
        "For how long the oldest task that is ready could have been claimed, by type.",
        tuple(
            Sample({"task_type": state.task_type}, _age(state.oldest_ready, now))
            for state in states
            if state.oldest_ready is not None
        ),
    )
    ended = task_events.throughput(connection, since=now - _MINUTE)
    yield Metric(
        "dao_attempts_ended_last_minute",
        "gauge",
        "Attempts that ended in the last minute, by how: completed, failed for good, or to be retried.",
        tuple(Sample({"outcome": outcome}, number) for outcome, number in ended.to_dict().items()),
    )
    ((last,),) = fetch(connection, _LAST_EVENT)
    yield Metric("dao_task_events_total", "counter", "The number of the last event of a task.", (Sample({}, last),))


def _of_sessions(connection: Connection, now: datetime) -> Iterator[Metric]:
    ((active, oldest),) = fetch(connection, _SESSIONS)
    yield _gauge("dao_sessions_active", "Sessions that are open.", active)
    if oldest is not None:
        age = _age(codec.time_from_text(oldest), now)
        yield _gauge("dao_oldest_heartbeat_age_seconds", "For how long the most silent open session has been so.", age)


def _of_database(connection: Connection, config: settings.Settings) -> Iterator[Metric]:
    ((size,),) = fetch(connection, text_for(connection, _SIZE))
    yield _gauge("dao_database_size_bytes", "The size of the database.", size)
    if isinstance(config.url, DatabaseURL):
        ((free,),) = fetch(connection, _FREE)
        yield _gauge("dao_database_free_bytes", "What of that is free, for rows to come.", free)
        log = f"{os.path.realpath(config.url.path)}-wal"
        with contextlib.suppress(OSError):  # none in another journal mode
            yield _gauge("dao_database_wal_bytes", "The size of the write-ahead log.", os.path.getsize(log))
        return
    yield Metric(
        "dao_connections",
        "gauge",
        "Connections to the database by state, as far as the role may see it.",
        tuple(Sample({"state": state}, number) for state, number in fetch(connection, _CONNECTIONS)),
    )
    ((most,),) = fetch(connection, _MOST_CONNECTIONS)
    yield _gauge("dao_connections_max", "How many connections the server takes in all.", most)


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(name, "gauge", text, (Sample({}, value),))


def _age(moment: datetime, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds())


# ---------------------------------------------------------------- the text


def _exposition(found: list[Metric], database: str) -> str:
    """Return metrics in the text format (prometheus.io/docs/instrumenting/exposition_formats), each of the database."""
    lines = []
    for metric in found:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        for sample in metric.samples:
            labels = {"database": database, **sample.labels}
            text = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
            lines.append(f"{metric.name}{{{text}}} {sample.value}")
    return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
