"""The rows that every contender starts from: made once, by number, and copied to a file for each.

A task has a title of about 40 characters, a description of about 200, a config of six keys with one nested, metadata of
four. The statuses are mixed as they would be in a queue that runs: two in ten wait, most are done.
"""

from __future__ import annotations

import functools
import itertools
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import attrs
import msgspec

import dao
from bench import statements
from dao import migrate

_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)
_STATUSES = ("completed",) * 13 + ("pending",) * 4 + ("failed", "running", "cancelled")
TOOLS = ("browser", "calculator", "calendar", "editor", "mail", "search", "shell", "summary")
WORKFLOW_SIZE = 20
#: The largest page that dao returns: its cursors into the depth are found by pages of this size.
PAGE = 1000
_FRESH = 50_000_000
_created = itertools.count(_FRESH)


def begin_at(place: int) -> None:
    """Let this process make other rows than the processes at other places do: up to a million."""
    global _created  # noqa: PLW0603 - a process says it once, before it makes any
    _created = itertools.count(_FRESH + place * 1_000_000)


def json_text(value: object) -> str:
    """Return the value as JSON text: the encoding that all hand-written contenders use."""
    return msgspec.json.encode(value).decode()


def moment(number: int) -> str:
    """Return the time of the row with this number: one row a second."""
    return time_text(_BEGINNING + timedelta(seconds=number))


def time_text(value: datetime) -> str:
    """Return a time in UTC as the schema stores it."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"


def row_id(number: int, kind: int = 0) -> str:
    """Return an id in the form of a UUIDv7, ordered as the numbers are; the same in every run."""
    millisecond = int(_BEGINNING.timestamp() * 1000) + number * 1000
    noise = (number * 8 + kind) * 0x9E3779B97F4A7C15 & (1 << 60) - 1
    return f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7{kind:03x}-{0x8000 | noise >> 48:04x}-{noise & (1 << 48) - 1:012x}"


def config(number: int) -> dict[str, Any]:
    """Return a task's config."""
    return {
        "model": "large",
        "temperature": 0.2,
        "retries": number % 5,
        "tools": ["search", "read"],
        "limits": {"tokens": 4096, "seconds": 120},
        "language": "en",
    }


def task_values(number: int) -> dict[str, Any]:
    """Return the values of the task with this number, JSON as Python values and times as text."""
    status = _STATUSES[number * 7 % len(_STATUSES)]
    now = moment(number)
    done = status in {"completed", "failed", "cancelled"}
    return {
        "id": row_id(number),
        "title": f"Summarise the quarterly report, part {number % 1_000_000:06}",
        "description": "Read the attached documents, find the figures that changed since the last quarter, and say in plain "
        "words why they did. Quote the page that each figure comes from, and end with what to ask for.",
        "task_type": ("summary", "research", "review")[number % 3],
        "status": status,
        "config": config(number),
        "metadata": {"owner": "finance", "source": "inbox", "priority": number % 10, "tags": ["report", "q3"]},
        "workspace_path": None,
        "error": "the model gave no answer" if status == "failed" else None,
        "created_at": now,
        "updated_at": now,
        "started_at": None if status == "pending" else now,
        "completed_at": now if done else None,
    }


def fresh_values() -> dict[str, Any]:
    """Return the values of a waiting task that no database has yet, later than all that were made before."""
    number = next(_created)
    now = moment(number)
    values = task_values(number)
    values |= {"status": "pending", "error": None, "created_at": now, "updated_at": now}
    return values | {"started_at": None, "completed_at": None}


def execution_values(number: int, *, task_id: str | None = None, running: bool = False) -> dict[str, Any]:
    """Return the values of a tool execution."""
    status = "running" if running else ("completed", "completed", "completed", "failed")[number % 4]
    now = moment(number)
    return {
        "id": row_id(number, 1),
        "task_id": task_id,
        "tool_name": TOOLS[number % len(TOOLS)],
        "input": {"query": "revenue by region", "limit": 10},
        "output": None if running else {"rows": 10, "source": "warehouse"},
        "status": status,
        "error": None,
        "duration_ms": None if running else number * 7919 % 5000,
        "created_at": now,
        "updated_at": now,
        "started_at": now,
        "completed_at": None if running else now,
    }


def fresh_execution_values() -> dict[str, Any]:
    """Return the values of a call that begins, with an id that no database has yet."""
    return execution_values(next(_created), running=True)


def row(values: dict[str, Any], json_columns: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the values as a row, JSON as text."""
    return tuple(
        json_text(value) if name in json_columns and value is not None else value for name, value in values.items()
    )


def task_row(values: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of a task as a row of its table."""
    return row(values, ("config", "metadata"))


@attrs.frozen
class Data:
    """What a database holds, as far as the operations need to know."""

    rows: int
    workflows: int
    sessions: int
    keys: int

    @property
    def ids(self) -> list[str]:
        """Ids of tasks in an order without locality, at the most 20,000; the same for every contender."""
        return _sample(self.rows)

    @property
    def step(self) -> int:
        """How many rows lie between two positions."""
        step = max(1, self.rows // 10)
        return step if step < PAGE else step // PAGE * PAGE

    @property
    def positions(self) -> list[tuple[str, str]]:
        """`(created_at, id)` of the rows after which the deep pages begin, newest first: up to eight, the last at 0.8."""
        numbers = [self.rows - depth * self.step for depth in range(1, 9)]
        return [(moment(number), row_id(number)) for number in numbers]

    def session_id(self, number: int) -> str:
        """Return the id of a session."""
        return row_id(number, 2)

    def workflow_id(self, number: int) -> str:
        """Return the id of a workflow."""
        return row_id(number, 3)


@functools.cache
def _sample(rows: int) -> list[str]:
    chosen = random.Random(1).sample(range(rows), min(rows, 20_000))
    return [row_id(number) for number in chosen]


def build(path: Path, rows: int, *, sessions: int | None = None) -> Data:
    """Make a database with the product's schema and so many tasks, and close it."""
    data = Data(rows=rows, workflows=min(50, max(1, rows // 40)), sessions=sessions or min(rows, 1000), keys=100)
    migrate.apply(f"sqlite:///{path}")
    with closing(dao.connect(f"sqlite:///{path}")) as connection, dao.transaction(connection):
        _fill(connection, data)
    return data


def copy(template: Path, path: Path) -> Path:
    """Copy a database that nothing has open, and return the copy's path."""
    if template.with_name(template.name + "-wal").exists():
        raise RuntimeError(f"{template} is open: a copy would miss what is in its WAL")
    shutil.copyfile(template, path)
    return path


def _fill(connection: apsw.Connection, data: Data) -> None:
    connection.executemany(statements.CREATE, (task_row(task_values(number)) for number in range(data.rows)))
    now = moment(0)
    for number in range(data.workflows):
        id = data.workflow_id(number)
        connection.execute(
            statements.CREATE_WORKFLOW, (id, f"Quarterly reports {number}", None, "active", "{}", None, now, now)
        )
        links = [number * WORKFLOW_SIZE + place for place in range(WORKFLOW_SIZE)]
        connection.executemany(
            statements.CREATE_LINK,
            [(id, row_id(task), place, "{}", now, now) for place, task in enumerate(links) if task < data.rows],
        )
    connection.executemany(statements.START, _executions(min(data.rows // 2, 100_000)))
    connection.executemany(statements.CREATE_SESSION, _sessions(data))
    connection.executemany(
        statements.CREATE_CONFIGURATION,
        [(f"limits.{number}", json_text({"tokens": number, "seconds": 120}), now) for number in range(data.keys)],
    )


def _executions(number_of: int) -> Iterator[tuple[Any, ...]]:
    for number in range(number_of):
        yield row(execution_values(number, task_id=row_id(number)), ("input", "output"))


def _sessions(data: Data) -> Iterator[tuple[Any, ...]]:
    for number in range(data.sessions):
        now = moment(number)
        yield (data.session_id(number), f"client-{number % 97}", 1, None, now, now, now)
