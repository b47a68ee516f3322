"""Rows as a database in use has them, made by number: the same in every run, and as uneven as real ones are.

Most tasks are done and few wait, one type of task is rare, half of the tasks have no workspace, one tool does a third
of the calls, one session in ten is open. Times and ids rise with the number, as those of `dao` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw

import dao

#: How many of a thousand rows each table has.
SHARES = {
    "tasks": 300,
    "workflows": 10,
    "workflow_tasks": 100,
    "tool_executions": 500,
    "sessions": 88,
    "configurations": 2,
}

_BEGINNING = datetime(2025, 1, 15, tzinfo=UTC)
_TASK_STATUSES = ("completed",) * 70 + ("failed",) * 9 + ("cancelled",) * 5 + ("pending",) * 13 + ("running",) * 3
_TASK_TYPES = ("agent",) * 60 + ("review",) * 30 + ("research",) * 9 + ("audit",)
_WORKFLOW_STATUSES = ("archived",) * 6 + ("active",) * 3 + ("draft",)
_TOOL_STATUSES = ("completed",) * 88 + ("failed",) * 7 + ("timeout",) * 3 + ("running",) + ("pending",)
_TOOLS = ("shell",) * 8 + (
    "read",
    "read",
    "read",
    "write",
    "write",
    "search",
    "search",
    "fetch",
    "grep",
    "edit",
    "plan",
)
_CONFIG = (
    '{"model":"large","temperature":0.2,"retries":3,"tools":["search","read"],"limits":{"tokens":4096},"language":"en"}'
)
_METADATA = '{"owner":"finance","source":"inbox","priority":5,"tags":["report","q3"]}'
_DESCRIPTION = "Read the attached documents, find the figures that changed, and say why in plain words. " * 2


def fill(connection: apsw.Connection, rows: int) -> None:
    """Store so many rows, shared out among all tables, in one transaction."""
    with dao.transaction(connection):
        for table, share in SHARES.items():
            insert(connection, table, made(table, range(rows * share // 1000), tasks=rows * SHARES["tasks"] // 1000))


def insert(connection: apsw.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Store rows of a table."""
    values = [*rows]
    connection.executemany(statement(values[0], table), [tuple(row.values()) for row in values])


def statement(row: dict[str, Any], table: str) -> str:
    """Return the INSERT for such a row."""
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"


def made(table: str, numbers: Iterable[int], *, tasks: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table with these numbers; those that refer to a task refer to one of the first `tasks`."""
    make = _MAKERS[table]
    for number in numbers:
        yield make(number, tasks)


def _id(kind: int, number: int) -> str:
    """Return an id with the form and the order of a UUIDv7."""
    return f"{0x01940000 + (number >> 16):08x}-{number & 0xFFFF:04x}-7{kind:03x}-8000-{_mixed(number) % 2**48:012x}"


def _time(number: int) -> str:
    return (_BEGINNING + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{number % 1000:03}Z"


def _mixed(number: int) -> int:
    """Return a number that looks random: neighbours differ, and no pattern of one column is another's."""
    return (number + 1) * 0x9E3779B97F4A7C15 >> 16 & 0xFFFFFFFFFFFF


def _one_of(values: tuple[str, ...], number: int, salt: int) -> str:
    return values[_mixed(number * 8 + salt) % len(values)]


def _task(number: int, _tasks: int) -> dict[str, Any]:
    now, status = _time(number), _one_of(_TASK_STATUSES, number, 0)
    return {
        "id": _id(1, number),
        "title": f"Summarise the quarterly report, part {number:07}",
        "description": _DESCRIPTION,
        "task_type": _one_of(_TASK_TYPES, number, 1),
        "status": status,
        "config": _CONFIG,
        "metadata": _METADATA,
        "workspace_path": f"/workspaces/{_mixed(number) % 200}" if _mixed(number * 8 + 2) % 2 else None,
        "error": "the model gave no answer" if status == "failed" else None,
        "created_at": now,
        "updated_at": now,
        "started_at": None if status == "pending" else now,
        "completed_at": now if status in {"completed", "failed", "cancelled"} else None,
    }


def _workflow(number: int, _tasks: int) -> dict[str, Any]:
    now = _time(number)
    return {
        "id": _id(2, number),
        "name": f"Workflow {number}",
        "description": _DESCRIPTION,
        "status": _one_of(_WORKFLOW_STATUSES, number, 0),
        "config": _CONFIG,
        "metadata": _METADATA,
        "created_at": now,
        "updated_at": now,
    }


def _workflow_task(number: int, tasks: int) -> dict[str, Any]:
    now = _time(number)
    # ten links for each workflow; past the last workflow, from the first on again with other tasks
    workflows = max(1, tasks * SHARES["workflows"] // SHARES["tasks"])
    cycle, place = divmod(number, 10 * workflows)
    return {
        "workflow_id": _id(2, place // 10),
        "task_id": _id(1, (number + 10 * cycle) % tasks),
        "sequence": number % 10 + 10 * cycle,
        "config": "{}",
        "created_at": now,
        "updated_at": now,
    }


def _tool_execution(number: int, tasks: int) -> dict[str, Any]:
    now, status = _time(number), _one_of(_TOOL_STATUSES, number, 0)
    finished = status in {"completed", "failed", "timeout"}
    return {
        "id": _id(4, number),
        "task_id": _id(1, _mixed(number) % tasks) if _mixed(number * 8 + 1) % 5 else None,
        "tool_name": _one_of(_TOOLS, number, 2),
        "input": '{"query":"revenue by region","limit":10}',
        "output": '{"rows":10,"source":"warehouse"}' if finished else None,
        "status": status,
        "error": "no answer" if status == "failed" else None,
        "duration_ms": _mixed(number * 8 + 3) % 5000 if finished else None,
        "created_at": now,
        "updated_at": now,
        "started_at": None if status == "pending" else now,
        "completed_at": now if finished else None,
    }


def _session(number: int, _tasks: int) -> dict[str, Any]:
    now = _time(number)
    return {
        "id": _id(5, number),
        "client_id": f"client-{_mixed(number) % 500}",
        "is_active": int(_mixed(number * 8 + 1) % 10 == 0),
        "last_heartbeat": _time(number + _mixed(number * 8 + 2) % 3600),
        "metadata": _METADATA,
        "created_at": now,
        "updated_at": now,
    }


def _configuration(number: int, _tasks: int) -> dict[str, Any]:
    return {"key": f"section-{number % 12}.setting-{number}", "value": _CONFIG, "updated_at": _time(number)}


_MAKERS = {
    "tasks": _task,
    "workflows": _workflow,
    "workflow_tasks": _workflow_task,
    "tool_executions": _tool_execution,
    "sessions": _session,
    "configurations": _configuration,
}
