"""One frozen attrs record per table, and their enums. No driver, no SQL.

A record is complete when it is made: id and timestamps included, so that storing it changes nothing. The validators
repeat the constraints of `sql/`, under the same names; a property test holds the two together.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, ClassVar

import attrs
from attrs.converters import optional

from dao import codec, fields
from dao.errors import InvalidValue
from dao.fields import MAX_INTEGER
from dao.stored import Stored

__all__ = [
    "FINISHED_CALLS",
    "FINISHED_TASKS",
    "LONGEST_RETRY_DELAY_MS",
    "MAX_INTEGER",
    "Configuration",
    "Session",
    "Task",
    "TaskDependency",
    "TaskEvent",
    "TaskStatus",
    "ToolExecution",
    "ToolStatus",
    "Workflow",
    "WorkflowStatus",
    "WorkflowTask",
]


class _Status(enum.StrEnum):
    """Base of the statuses: an unknown one is refused with those there are."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise InvalidValue(f"{value!r} is not a valid {cls.__name__}: use {', '.join(member.value for member in cls)}")


class TaskStatus(_Status):
    """Where a task is in its life: pending, then running, then one of the other three."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: The statuses of a task that has ended.
FINISHED_TASKS = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


class WorkflowStatus(_Status):
    """Whether a workflow may be started: only an active one."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    ARCHIVED = "archived"


class ToolStatus(_Status):
    """Where a tool call is in its life: pending, then running, then one of the other three."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"


#: The statuses of a tool execution that has ended, in which it has its `completed_at`.
FINISHED_CALLS = frozenset({ToolStatus.COMPLETED, ToolStatus.FAILED, ToolStatus.TIMEOUT})


#: The longest `Task.retry_delay_ms`: a day.
LONGEST_RETRY_DELAY_MS = 86_400_000


# The classes are spelled out, field by field, so that type checkers and editors see their signatures.
# weakref_slot=False: nobody points weakly at a record, and each would carry the pointer. The hash is that of the key:
# equal records have equal keys.

# ---------------------------------------------------------------- records


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class Task(Stored):
    """A unit of work for an agent. `config` is a JSON object, `metadata` any JSON value.

    It may run from `run_at` on; a higher `priority`, from 0 to 9, comes first. `attempt` counts how often it began to
    run: with its id it is the token that each write of a worker presents. Worker and lease are there only while it is
    running, together. It has failed so many times (`failures`), and may be tried again so many times (`retries`), the
    first time after `retry_delay_ms`. At most one unfinished task has a `dedup_key`. It may not run while it is
    `waiting_for` other tasks, or is in paused workflows (`paused_by`): the database counts both.
    """

    __table__: ClassVar[str] = "tasks"

    id: str = attrs.field(factory=codec.new_id, validator=fields.not_empty)
    title: str = attrs.field(validator=fields.not_blank)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    task_type: str = attrs.field(validator=fields.not_blank)
    status: TaskStatus = attrs.field(default=TaskStatus.PENDING, converter=TaskStatus)
    config: dict[str, Any] = attrs.field(factory=dict, converter=fields.json_object, metadata=fields.JSON)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json, metadata=fields.JSON)
    workspace_path: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    error: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    updated_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)
    started_at: datetime | None = attrs.field(default=None, converter=optional(codec.millisecond), metadata=fields.TIME)
    completed_at: datetime | None = attrs.field(
        default=None, converter=optional(codec.millisecond), metadata=fields.TIME
    )

    priority: int = attrs.field(default=0, validator=fields.whole(0, 9))
    run_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)
    attempt: int = attrs.field(default=0, validator=fields.natural)
    worker: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.not_empty))
    lease_expires_at: datetime | None = attrs.field(
        default=None, converter=optional(codec.millisecond), metadata=fields.TIME
    )
    failures: int = attrs.field(default=0, validator=fields.natural)
    retries: int = attrs.field(default=0, validator=fields.natural)
    retry_delay_ms: int = attrs.field(default=0, validator=fields.whole(0, LONGEST_RETRY_DELAY_MS))
    dedup_key: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.not_empty))
    waiting_for: int = attrs.field(default=0, validator=fields.natural)
    paused_by: int = attrs.field(default=0, validator=fields.natural)

    def __attrs_post_init__(self) -> None:
        # the slot: that a time is there can be told without decoding it
        if self.worker is None and self._lease_expires_at is None:  # type: ignore[attr-defined]
            return
        if self.worker is None or self._lease_expires_at is None:  # type: ignore[attr-defined]
            raise InvalidValue("Task.worker and Task.lease_expires_at must be set together")
        if self.status is not TaskStatus.RUNNING:
            raise InvalidValue(
                f"Task.lease_expires_at must be set only when the status is running; it is {self.status.value}"
            )

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class TaskDependency(Stored):
    """A task may not run before another is completed. Links are added and removed, never changed."""

    __table__: ClassVar[str] = "task_dependencies"
    __key__: ClassVar[tuple[str, ...]] = ("task_id", "depends_on")

    task_id: str = attrs.field(validator=fields.text)
    depends_on: str = attrs.field(validator=fields.text)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)

    def __attrs_post_init__(self) -> None:
        if self.task_id == self.depends_on:
            raise InvalidValue(f"TaskDependency: a task cannot depend on itself, got {self.task_id!r} twice")

    def __hash__(self) -> int:
        return hash((self.task_id, self.depends_on))


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class TaskEvent(Stored):
    """A version of a task that began, or its end: triggers write them, and nobody changes one.

    `seq` only grows. `at` is the version's `updated_at`; `attempt`, `worker` and `error` are the task's then. A new
    task has no `from_status`, nor has one whose status was unknown; a deleted one has no `to_status`. `previous` has
    what the changed columns held before, under their names: nothing of a new task, all but the id of a deleted one;
    times and JSON are texts in it.
    """

    __table__: ClassVar[str] = "task_events"
    __key__: ClassVar[tuple[str, ...]] = ("seq",)

    seq: int = attrs.field(validator=fields.whole(1, MAX_INTEGER))
    task_id: str = attrs.field(validator=fields.text)
    attempt: int = attrs.field(validator=fields.natural)
    from_status: TaskStatus | None = attrs.field(
        default=None, converter=optional(TaskStatus), metadata=fields.one_of(TaskStatus)
    )
    to_status: TaskStatus | None = attrs.field(
        default=None, converter=optional(TaskStatus), metadata=fields.one_of(TaskStatus)
    )
    worker: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    error: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    previous: dict[str, Any] = attrs.field(factory=dict, converter=fields.json_object, metadata=fields.JSON)

    def __hash__(self) -> int:
        return hash(self.seq)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class Workflow(Stored):
    """A named, ordered set of tasks (see `WorkflowTask`). `config` is a JSON object, `metadata` any JSON value."""

    __table__: ClassVar[str] = "workflows"

    id: str = attrs.field(factory=codec.new_id, validator=fields.not_empty)
    name: str = attrs.field(validator=fields.not_blank)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    status: WorkflowStatus = attrs.field(default=WorkflowStatus.DRAFT, converter=WorkflowStatus)
    config: dict[str, Any] = attrs.field(factory=dict, converter=fields.json_object, metadata=fields.JSON)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json, metadata=fields.JSON)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    updated_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class WorkflowTask(Stored):
    """A task's place in a workflow: lower sequences come first. `config` is a JSON object."""

    __table__: ClassVar[str] = "workflow_tasks"
    __key__: ClassVar[tuple[str, ...]] = ("workflow_id", "task_id")

    workflow_id: str = attrs.field(validator=fields.text)
    task_id: str = attrs.field(validator=fields.text)
    sequence: int = attrs.field(validator=fields.natural)
    config: dict[str, Any] = attrs.field(factory=dict, converter=fields.json_object, metadata=fields.JSON)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    updated_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)

    def __hash__(self) -> int:
        return hash((self.workflow_id, self.task_id))


class _Timed(Stored):
    """Adds the reading of the monotonic clock at the start of a call, for the process that started it."""

    __slots__ = ("_monotonic",)

    _monotonic: float


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class ToolExecution(_Timed):
    """One call of a tool. `input` and `output` are any JSON value; `duration_ms` counts whole milliseconds.

    `completed_at` is there exactly when the status is completed, failed or timeout. A call may say which `step` of its
    task it is, and of which `attempt`: one completed call stands for a step for ever.
    """

    __table__: ClassVar[str] = "tool_executions"

    id: str = attrs.field(factory=codec.new_id, validator=fields.not_empty)
    task_id: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    tool_name: str = attrs.field(validator=fields.not_blank)
    input: Any = attrs.field(converter=codec.plain_json, metadata=fields.JSON)
    output: Any = attrs.field(default=None, converter=codec.plain_json, metadata=fields.JSON)
    status: ToolStatus = attrs.field(default=ToolStatus.PENDING, converter=ToolStatus)
    error: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.text))
    duration_ms: int | None = attrs.field(default=None, validator=attrs.validators.optional(fields.natural))
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    updated_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)
    started_at: datetime | None = attrs.field(default=None, converter=optional(codec.millisecond), metadata=fields.TIME)
    completed_at: datetime | None = attrs.field(
        default=None, converter=optional(codec.millisecond), metadata=fields.TIME
    )

    step: str | None = attrs.field(default=None, validator=attrs.validators.optional(fields.not_empty))
    attempt: int | None = attrs.field(default=None, validator=attrs.validators.optional(fields.whole(1, MAX_INTEGER)))

    def __attrs_post_init__(self) -> None:
        if (self.status in FINISHED_CALLS) != (self.completed_at is not None):
            raise InvalidValue(
                f"ToolExecution.completed_at must be set when the status is completed, failed or timeout, and only "
                f"then; the status is {self.status.value}, completed_at is {self.completed_at}"
            )

        if self.attempt is not None and self.task_id is None:
            raise InvalidValue("ToolExecution.attempt must be set only when task_id is: it is an attempt of that task")
        if self.step is not None and self.attempt is None:
            raise InvalidValue("ToolExecution.step must be set only when attempt is: an attempt takes a step")

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class Session(Stored):
    """A client's WebSocket session, alive as long as its heartbeats come. `metadata` is any JSON value."""

    __table__: ClassVar[str] = "sessions"

    id: str = attrs.field(factory=codec.new_id, validator=fields.not_empty)
    client_id: str = attrs.field(validator=fields.not_blank)
    is_active: bool = attrs.field(default=True, validator=fields.boolean, metadata=fields.BOOLEAN)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json, metadata=fields.JSON)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)
    # a session that was never heard of again was last heard of when it was opened
    last_heartbeat: datetime = attrs.field(
        default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME
    )
    updated_at: datetime = attrs.field(default=fields.WHEN_CREATED, converter=codec.millisecond, metadata=fields.TIME)

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=fields.name_in_errors)
class Configuration(Stored):
    """A setting: any JSON value under a key."""

    __table__: ClassVar[str] = "configurations"
    __key__: ClassVar[tuple[str, ...]] = ("key",)

    key: str = attrs.field(validator=fields.not_empty)
    value: Any = attrs.field(converter=codec.plain_json, metadata=fields.JSON)
    updated_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=fields.TIME)

    def __hash__(self) -> int:
        return hash(self.key)
