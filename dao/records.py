"""One frozen attrs record per table, and their enums. No driver, no SQL.

A record is complete when it is made: id and timestamps included, so that storing it changes nothing. The validators
repeat the constraints of `sql/`, under the same names; a property test holds the two together.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import attrs

from dao import codec
from dao.stored import Stored

__all__ = [
    "FINISHED",
    "MAX_INTEGER",
    "Configuration",
    "Session",
    "Task",
    "TaskStatus",
    "ToolExecution",
    "ToolStatus",
    "Workflow",
    "WorkflowStatus",
    "WorkflowTask",
]

#: The largest INTEGER that SQLite and PostgreSQL (bigint) store.
MAX_INTEGER = 2**63 - 1


class _Status(enum.StrEnum):
    """Base of the statuses: an unknown one is refused with those there are."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"{value!r} is not a valid {cls.__name__}: use {', '.join(member.value for member in cls)}")


class TaskStatus(_Status):
    """Where a task is in its life: pending, then running, then one of the other three."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


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


#: The statuses in which a tool execution has its `completed_at`.
FINISHED = frozenset({ToolStatus.COMPLETED, ToolStatus.FAILED, ToolStatus.TIMEOUT})


# ---------------------------------------------------------------- fields

# str.isspace() is the definition of a blank; the CHECK constraints spell the same characters out.


def _text(record: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{type(record).__name__}.{attribute.name} must be text, got {value!r}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{type(record).__name__}.{attribute.name} is not valid Unicode: {error}") from error


def _not_blank(record: object, attribute: attrs.Attribute[Any], value: str) -> None:
    _text(record, attribute, value)
    if not value or value.isspace():
        raise ValueError(f"{type(record).__name__}.{attribute.name} must not be blank, got {value!r}")


def _not_empty(record: object, attribute: attrs.Attribute[Any], value: str) -> None:
    _text(record, attribute, value)
    if not value:
        raise ValueError(f"{type(record).__name__}.{attribute.name} must not be empty")


def _natural(record: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int:
        raise TypeError(f"{type(record).__name__}.{attribute.name} must be an int, got {value!r}")
    if not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{type(record).__name__}.{attribute.name} must be from 0 to {MAX_INTEGER}, got {value!r}")


def _boolean(record: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not bool:
        raise TypeError(f"{type(record).__name__}.{attribute.name} must be a bool, got {value!r}")


def _json_object(value: Mapping[str, Any], name: str = "value") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name}: must be a dict, got {value!r}")
    plain: dict[str, Any] = codec.plain_json(value, name)
    return plain


def _moment_or_none(value: datetime | None) -> datetime | None:
    return None if value is None else codec.millisecond(value)


def _name_in_errors(_cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Make what the converters raise begin with the field's name, as what the validators raise does."""

    def named(field: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
        convert: Any = field.converter
        name = field.name
        if convert is None or isinstance(convert, enum.EnumMeta):
            return field  # an enum names itself
        if convert in {_json_object, codec.plain_json}:
            return field.evolve(converter=lambda value: convert(value, name))  # and these name the place in the value

        def converter(value: Any) -> Any:
            try:
                return convert(value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error

        return field.evolve(converter=converter)

    return [named(field) for field in fields]


# What `dao.rows` and `from_dict` need to know beyond the type.
_TIME = {"column": "time"}
_BOOLEAN = {"column": "boolean"}

# A record that was never stored was last changed when it was made.
_WHEN_CREATED = attrs.Factory(lambda record: record.created_at, takes_self=True)
# It takes the record, as the one above does, for `msgspec.convert` to refuse the class: it would leave out the converters.
_NOW = attrs.Factory(lambda _record: codec.now(), takes_self=True)


# The classes are spelled out, field by field, so that type checkers and editors see their signatures.
# weakref_slot=False: nobody points weakly at a record, and each would carry the pointer. The hash is that of the key:
# equal records have equal keys.

# ---------------------------------------------------------------- records


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class Task(Stored):
    """A unit of work for an agent. `config` is a JSON object, `metadata` any JSON value."""

    _TABLE: ClassVar[str] = "tasks"
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("config", "metadata")

    id: str = attrs.field(factory=codec.new_id, validator=_not_empty)
    title: str = attrs.field(validator=_not_blank)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    task_type: str = attrs.field(validator=_not_blank)
    status: TaskStatus = attrs.field(default=TaskStatus.PENDING, converter=TaskStatus)
    config: dict[str, Any] = attrs.field(factory=dict, converter=_json_object)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json)
    workspace_path: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    error: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=_TIME)
    updated_at: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)
    started_at: datetime | None = attrs.field(default=None, converter=_moment_or_none, metadata=_TIME)
    completed_at: datetime | None = attrs.field(default=None, converter=_moment_or_none, metadata=_TIME)

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class Workflow(Stored):
    """A named, ordered set of tasks (its `WorkflowTask` links). `config` is a JSON object, `metadata` any JSON value."""

    _TABLE: ClassVar[str] = "workflows"
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("config", "metadata")

    id: str = attrs.field(factory=codec.new_id, validator=_not_empty)
    name: str = attrs.field(validator=_not_blank)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    status: WorkflowStatus = attrs.field(default=WorkflowStatus.DRAFT, converter=WorkflowStatus)
    config: dict[str, Any] = attrs.field(factory=dict, converter=_json_object)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=_TIME)
    updated_at: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class WorkflowTask(Stored):
    """A task's place in a workflow: lower sequences come first. `config` is a JSON object."""

    _TABLE: ClassVar[str] = "workflow_tasks"
    _KEY: ClassVar[tuple[str, ...]] = ("workflow_id", "task_id")
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("config",)

    workflow_id: str = attrs.field(validator=_text)
    task_id: str = attrs.field(validator=_text)
    sequence: int = attrs.field(validator=_natural)
    config: dict[str, Any] = attrs.field(factory=dict, converter=_json_object)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=_TIME)
    updated_at: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)

    def __hash__(self) -> int:
        return hash((self.workflow_id, self.task_id))


class _Timed(Stored):
    """Adds the reading of the monotonic clock at the start of a call, for the process that started it."""

    __slots__ = ("_monotonic",)

    _monotonic: float


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class ToolExecution(_Timed):
    """One call of a tool. `input` and `output` are any JSON value; `duration_ms` counts whole milliseconds.

    `completed_at` is there exactly when the status is completed, failed or timeout.
    """

    _TABLE: ClassVar[str] = "tool_executions"
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("input", "output")

    id: str = attrs.field(factory=codec.new_id, validator=_not_empty)
    task_id: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    tool_name: str = attrs.field(validator=_not_blank)
    input: Any = attrs.field(converter=codec.plain_json)
    output: Any = attrs.field(default=None, converter=codec.plain_json)
    status: ToolStatus = attrs.field(default=ToolStatus.PENDING, converter=ToolStatus)
    error: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    duration_ms: int | None = attrs.field(default=None, validator=attrs.validators.optional(_natural))
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=_TIME)
    updated_at: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)
    started_at: datetime | None = attrs.field(default=None, converter=_moment_or_none, metadata=_TIME)
    completed_at: datetime | None = attrs.field(default=None, converter=_moment_or_none, metadata=_TIME)

    def __attrs_post_init__(self) -> None:
        if (self.status in FINISHED) != (self.completed_at is not None):
            raise ValueError(
                f"ToolExecution.completed_at must be set when the status is completed, failed or timeout, and only "
                f"then; the status is {self.status.value}, completed_at is {self.completed_at}"
            )

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class Session(Stored):
    """A client's WebSocket session, alive as long as its heartbeats come. `metadata` is any JSON value."""

    _TABLE: ClassVar[str] = "sessions"
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("metadata",)

    id: str = attrs.field(factory=codec.new_id, validator=_not_empty)
    client_id: str = attrs.field(validator=_not_blank)
    is_active: bool = attrs.field(default=True, validator=_boolean, metadata=_BOOLEAN)
    metadata: Any = attrs.field(default=None, converter=codec.plain_json)
    created_at: datetime = attrs.field(factory=codec.now, converter=codec.millisecond, metadata=_TIME)
    # a session that was never heard of again was last heard of when it was opened
    last_heartbeat: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)
    updated_at: datetime = attrs.field(default=_WHEN_CREATED, converter=codec.millisecond, metadata=_TIME)

    def __hash__(self) -> int:
        return hash(self.id)


@attrs.frozen(kw_only=True, weakref_slot=False, field_transformer=_name_in_errors)
class Configuration(Stored):
    """A setting: any JSON value under a key."""

    _TABLE: ClassVar[str] = "configurations"
    _KEY: ClassVar[tuple[str, ...]] = ("key",)
    _JSON_COLUMNS: ClassVar[tuple[str, ...]] = ("value",)

    key: str = attrs.field(validator=_not_empty)
    value: Any = attrs.field(converter=codec.plain_json)
    updated_at: datetime = attrs.field(default=_NOW, converter=codec.millisecond, metadata=_TIME)

    def __hash__(self) -> int:
        return hash(self.key)
