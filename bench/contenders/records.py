"""apsw with records of tasks as one writes them by hand: eager, without validators."""

from __future__ import annotations

import operator
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from bench.contenders.bare import Apsw
from bench.data import TASK_COLUMNS, new_id
from dao import TaskStatus

_decode = msgspec.json.Decoder().decode
_time = datetime.fromisoformat
_statuses = {status.value: status for status in TaskStatus}


@attrs.frozen
class Record:
    """A task, every field of its own type."""

    id: str
    title: str
    description: str | None
    task_type: str
    status: TaskStatus
    config: dict[str, Any]
    metadata: Any
    workspace_path: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    priority: int
    run_at: datetime
    attempt: int
    worker: str | None
    lease_expires_at: datetime | None
    failures: int
    retries: int
    retry_delay_ms: int
    dedup_key: str | None
    waiting_for: int
    paused_by: int


def _record(row: tuple[Any, ...]) -> Record:
    return Record(
        row[0], row[1], row[2], row[3], _statuses[row[4]], _decode(row[5]), None if row[6] is None else _decode(row[6]),
        row[7], row[8], _time(row[9]), _time(row[10]), None if row[11] is None else _time(row[11]),
        None if row[12] is None else _time(row[12]), row[13], _time(row[14]), row[15], row[16],
        None if row[17] is None else _time(row[17]), *row[18:],
    )  # fmt: skip


class Records(Apsw):
    """What makes records and what reads them; the rest is that of the tuples, and left to them."""

    name = "apsw records"
    distributions = ("apsw", "attrs", "msgspec")
    only = ("get", "get_all", "find", "find_all", "new")
    read = operator.attrgetter(*TASK_COLUMNS)

    def new(self, values: dict[str, Any]) -> Record:
        now = datetime.now(UTC)
        return Record(
            new_id(), values["title"], values["description"], values["task_type"], TaskStatus.PENDING, values["config"],
            values["metadata"], None, None, now, now, None, None, 0, now, 0, None, None, 0, 0, 0, None, 0, 0,
        )  # fmt: skip

    def get(self, id: str) -> Record:
        return _record(super().get(id))

    def find(self, status: str) -> list[Record]:
        return [_record(row) for row in super().find(status)]
