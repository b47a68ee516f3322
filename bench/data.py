"""The rows that every contender starts from, and the values that callers hand over.

A task has a title of about 40 characters, a description of about 200, a config of six keys, metadata of four. Two in
ten wait, half of them for a time far ahead; most are done. The product itself fills the database, so that one of
another engine holds the same.
"""

from __future__ import annotations

import itertools
import random
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import uuid_utils

import dao
from dao import Task, Workflow, configurations, migrate, sessions, tasks, workflow_tasks, workflows

TASK_COLUMNS = (
    "id", "title", "description", "task_type", "status", "config", "metadata", "workspace_path", "error", "created_at",
    "updated_at", "started_at", "completed_at", "priority", "run_at", "attempt", "worker", "lease_expires_at",
    "failures", "retries", "retry_delay_ms", "dedup_key", "waiting_for", "paused_by",
)  # fmt: skip
#: Those of its columns that are numbers.
COUNTS = ("priority", "attempt", "failures", "retries", "retry_delay_ms", "waiting_for", "paused_by")
#: The status of most tasks, whose newest are listed.
LISTED = "completed"
#: How many tasks a listing returns, and a workflow has.
PAGE, WORKFLOW = 50, 20
#: Keys of configurations, each with an integer.
KEYS = tuple(f"limits.{number}" for number in range(100))

#: Who claims, for how long.
WORKER, LEASE = "worker-1", timedelta(hours=1)

_AHEAD = datetime(2500, 1, 1, tzinfo=UTC)
_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)
_STATUSES = (LISTED,) * 13 + ("pending",) * 4 + ("failed", "running", "cancelled")
_NESTED = {"tools": ["search", "read"], "limits": {"tokens": 4096, "seconds": 120}}
_numbers = itertools.count()
_encode = msgspec.json.Encoder().encode


# ---------------------------------------------------------------- values


def given(number: int) -> dict[str, Any]:
    """Return what a caller gives for a new task."""
    return {
        "title": f"Summarise the quarterly report, part {number % 1_000_000:06}",
        "description": "Read the attached documents, find the figures that changed since the last quarter, and say in "
        "plain words why they did. Quote the page that each figure comes from, and end with what to ask for.",
        "task_type": ("summary", "research", "review")[number % 3],
        "config": {"model": "large", "temperature": 0.2, "retries": number % 5, "language": "en", **_NESTED},
        "metadata": {"owner": "finance", "source": "inbox", "priority": number % 10, "tags": ["report", "q3"]},
    }


def fresh() -> dict[str, Any]:
    """Return what a caller gives for a task that is like no other."""
    return given(next(_numbers))


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of all columns for what a caller gives, as a library without defaults of its own needs them."""
    now = now_text()
    rest = {"id": new_id(), "status": "pending", "created_at": now, "updated_at": now, "run_at": now}
    return {**dict.fromkeys(TASK_COLUMNS), **dict.fromkeys(COUNTS, 0), **values, **rest}


def new_id() -> str:
    """Return an id, made as one makes it by hand."""
    return str(uuid_utils.uuid7())


def now_text() -> str:
    """Return the time, as the schema stores it."""
    return time_text(datetime.now(UTC))


def time_text(value: datetime) -> str:
    """Return a time in UTC as the schema stores it."""
    return value.isoformat(timespec="milliseconds")[:-6] + "Z"


def json_text(value: object) -> str:
    """Return the value as JSON text: the encoding that all hand-written contenders use."""
    return _encode(value).decode()


# ---------------------------------------------------------------- rows


def row_id(number: int) -> str:
    """Return the id of the stored task with this number: in the form of a UUIDv7, the same in every run."""
    millisecond = int(_BEGINNING.timestamp() * 1000) + number * 1000
    noise = number * 0x9E3779B97F4A7C15 & (1 << 60) - 1
    front = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7000"
    return f"{front}-{0x8000 | noise >> 48:04x}-{noise & (1 << 48) - 1:012x}"


def moment(number: int) -> datetime:
    """Return when the stored task with this number was made: one a second."""
    return _BEGINNING + timedelta(seconds=number)


@attrs.frozen
class Holds:
    """What a database holds, as far as the operations need to know."""

    rows: int
    #: tasks in an order without locality, at the most 20,000; the same for every contender
    ids: list[str]
    #: those of them that are scheduled ahead
    ahead: list[str]
    sessions: list[str]
    workflows: list[str]

    @property
    def depths(self) -> list[int]:
        """After how many of the newest tasks the deep pages begin: eight places, down to 0.8 of all."""
        return [self.rows // 10 * tenths for tenths in range(1, 9)]


def build(url: str, rows: int) -> Holds:
    """Make a database with the product's schema and so many tasks, and close it."""
    migrate.apply(url)
    with closing(dao.connect(url)) as connection, dao.transaction(connection):
        tasks.create_many(connection, map(_stored, range(rows)))
        opened = [
            sessions.open(connection, client_id=f"client-{number % 97}", now=moment(number))
            for number in range(min(rows, 1000))
        ]
        made = [Workflow(name=f"Quarterly reports {number}") for number in range(min(rows // WORKFLOW, 50))]
        workflows.create_many(connection, made)
        for number, workflow in enumerate(made):
            for task in range(number * WORKFLOW, (number + 1) * WORKFLOW):
                workflow_tasks.add(connection, workflow_id=workflow.id, task_id=row_id(task))
        configurations.set_many(connection, {key: number for number, key in enumerate(KEYS)})
    numbers = random.Random(1).sample(range(rows), min(rows, 20_000))
    ids, ahead = map(row_id, numbers), map(row_id, filter(_is_ahead, numbers))
    return Holds(rows, [*ids], [*ahead], [session.id for session in opened], [workflow.id for workflow in made])


def copy(template: Path, name: str) -> str:
    """Copy a database that nothing has open to a file beside it, and return the copy's path."""
    if template.with_name(f"{template.name}-wal").exists():
        raise RuntimeError(f"{template} is open: a copy would miss what is in its WAL")
    return str(shutil.copyfile(template, template.with_name(f"{template.stem}-{name}.db")))


def _stored(number: int) -> Task:
    status, now = _STATUSES[_place(number)], moment(number)
    return Task(
        **given(number),
        id=row_id(number),
        status=status,
        error="the model gave no answer" if status == "failed" else None,
        created_at=now,
        run_at=_AHEAD if _is_ahead(number) else now,
        started_at=None if status == "pending" else now,
        completed_at=None if status in {"pending", "running"} else now,
    )


def _place(number: int) -> int:
    return number * 7 % len(_STATUSES)


def _is_ahead(number: int) -> bool:
    """Return whether a task waits for its time: every second of those that wait."""
    return _STATUSES[_place(number)] == "pending" and _place(number) % 2 == 1
