"""The bare drivers, apsw and sqlite3, as tuples and as hand-written attrs records. Each module names its driver."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import attrs
import msgspec

from bench import data, statements
from bench.contenders.base import Contender

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_moment = datetime.fromisoformat


class Tuples(Contender):
    """A driver whose rows are left as they come: tuples, the JSON in them as text."""

    kind = "tuples"
    in_threads = True
    connection: Any

    def close(self) -> None:
        self.connection.close()

    def raw(self, sql: str) -> list[Any]:
        return self.connection.execute(sql).fetchall()

    def key(self, record: Any) -> str:
        return record[0]

    def new(self, values: dict[str, Any]) -> Any:
        return data.task_row(values)

    def create(self, item: Any) -> None:
        self.connection.execute(statements.CREATE, item).fetchall()

    def create_many(self, items: list[Any]) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statements.CREATE, items)
        connection.execute("COMMIT")

    def get(self, id: str) -> Any:
        return self.connection.execute(statements.GET, (id,)).fetchall()[0]

    get_json = get

    def find(self, status: str) -> list[Any]:
        return self.connection.execute(statements.FIND, (status,)).fetchall()

    def page(self, place: tuple[str, str]) -> list[Any]:
        return self.connection.execute(statements.PAGE, place).fetchall()

    def count(self, status: str) -> int:
        return self.connection.execute(statements.COUNT, (status,)).fetchall()[0][0]

    def set_status(self, id: str, status: str, moment: str) -> Any:
        if status == "pending":
            return self._changed(statements.SET_PENDING, (status, id), statements.GET, id)
        return self._changed(statements.SET_RUNNING, (status, moment, id), statements.GET, id)

    def changed(self, id: str, title: str) -> Any:
        row = Tuples.get(self, id)
        return (title, *row[2:9], *row[11:], row[0], row[10])

    def update(self, item: Any) -> Any:
        return self._changed(statements.UPDATE, item, statements.GET, item[-2])

    def new_execution(self, values: dict[str, Any]) -> Any:
        return data.row(values, ("input", "output"))

    def start(self, item: Any) -> Any:
        self.connection.execute(statements.START, item).fetchall()
        return item[0]

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        text = _encode(output).decode()
        return self._changed(
            statements.FINISH, ("completed", text, None, moment, 12, item), statements.GET_EXECUTION, item
        )

    def heartbeat(self, id: str, moment: str) -> None:
        if not self.connection.execute(statements.HEARTBEAT, (moment, id)).fetchall():
            raise LookupError(id)

    def get_value(self, key: str) -> Any:
        return _decode(self.connection.execute(statements.GET_VALUE, (key,)).fetchall()[0][0])

    def set_value(self, key: str, value: object, moment: str) -> None:
        self.connection.execute(statements.SET_VALUE, (key, _encode(value).decode(), moment)).fetchall()

    def workflow(self, id: str) -> list[Any]:
        return self.connection.execute(statements.WORKFLOW, (id,)).fetchall()

    def statistics(self) -> list[Any]:
        return self.connection.execute(statements.STATISTICS).fetchall()

    def oldest_pending(self) -> Any:
        return self.connection.execute(statements.OLDEST_PENDING).fetchall()[0]

    def sweep(self, cutoff: str) -> list[str]:
        return [id for (id,) in self.connection.execute(statements.SWEEP, (cutoff,)).fetchall()]

    def _changed(self, sql: str, parameters: tuple[Any, ...], get: str, id: str) -> Any:
        """Change a row and read it again, in one transaction: the trigger's `updated_at` is not in RETURNING."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not connection.execute(sql, parameters).fetchall():
                raise LookupError(id)
            rows = connection.execute(get, (id,)).fetchall()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return rows[0]


class Status(enum.StrEnum):
    """A task's status."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_STATUSES = {status.value: status for status in Status}


@attrs.frozen
class TaskRecord:
    """A task as one would write it by hand: every field of its own type, no validators."""

    id: str
    title: str
    description: str | None
    task_type: str
    status: Status
    config: dict[str, Any]
    metadata: Any
    workspace_path: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@attrs.frozen
class ToolStatistics:
    """What the calls of one tool came to."""

    tool_name: str
    count: int
    failures: int
    mean_ms: float | None
    p50_ms: int | None
    p95_ms: int | None


def from_row(row: Any) -> TaskRecord:
    """Return the record of a row."""
    return TaskRecord(
        row[0],
        row[1],
        row[2],
        row[3],
        _STATUSES[row[4]],
        _decode(row[5]),
        None if row[6] is None else _decode(row[6]),
        row[7],
        row[8],
        _moment(row[9]),
        _moment(row[10]),
        None if row[11] is None else _moment(row[11]),
        None if row[12] is None else _moment(row[12]),
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def to_row(record: TaskRecord) -> tuple[Any, ...]:
    """Return the row of a record."""
    return (
        record.id,
        record.title,
        record.description,
        record.task_type,
        record.status.value,
        _encode(record.config).decode(),
        None if record.metadata is None else _encode(record.metadata).decode(),
        record.workspace_path,
        record.error,
        _text(record.created_at),
        _text(record.updated_at),
        None if record.started_at is None else _text(record.started_at),
        None if record.completed_at is None else _text(record.completed_at),
    )


class Records(Tuples):
    """The same with records. Operations on other tables than tasks are those of the tuples, so they are left out."""

    kind = "records"
    new_execution = start = finish = heartbeat = get_value = set_value = sweep = None

    def key(self, record: Any) -> str:
        return record.id

    def new(self, values: dict[str, Any]) -> TaskRecord:
        return from_row(data.task_row(values))

    def create(self, item: Any) -> None:
        self.connection.execute(statements.CREATE, to_row(item)).fetchall()

    def create_many(self, items: list[Any]) -> None:
        super().create_many(map(to_row, items))

    def get(self, id: str) -> TaskRecord:
        return from_row(super().get(id))

    get_json = get

    def find(self, status: str) -> list[TaskRecord]:
        return [from_row(row) for row in super().find(status)]

    def page(self, place: tuple[str, str]) -> list[TaskRecord]:
        return [from_row(row) for row in super().page(place)]

    def set_status(self, id: str, status: str, moment: str) -> TaskRecord:
        return from_row(super().set_status(id, status, moment))

    def changed(self, id: str, title: str) -> TaskRecord:
        return attrs.evolve(self.get(id), title=title)

    def update(self, item: Any) -> TaskRecord:
        row = to_row(item)
        return from_row(super().update((*row[1:9], *row[11:], row[0], row[10])))

    def workflow(self, id: str) -> list[TaskRecord]:
        return [from_row(row) for row in super().workflow(id)]

    def statistics(self) -> list[ToolStatistics]:
        return [ToolStatistics(*row) for row in super().statistics()]

    def oldest_pending(self) -> TaskRecord:
        return from_row(super().oldest_pending())
