"""The records as models of pydantic, for FastAPI and others: with a JSON Schema, and with the rules of the records.

Usage::

    from dao.pydantic import PageModel, TaskCreate, TaskModel


    @app.post("/tasks", response_model=TaskModel, status_code=201)
    def create(new: TaskCreate) -> Task:
        task = new.to_record()
        pool.run(tasks.create, task)
        return task


    @app.get("/tasks", response_model=PageModel[TaskModel])
    def find(after: str | None = None) -> Page[Task]:
        return pool.run(tasks.find, after=after)

Of each record there are two. `TaskModel` has all its fields, each of them required; it is made of a record by
`TaskModel.model_validate(task)`, or of the JSON that the record has become. `TaskCreate` is what a client sends that
makes one: id and times may be left out, and what the database and the workers keep, such as status and attempt, cannot
be given. Both refuse fields that they do not know, and whatever the record refuses: a number or a time is not taken
from what is none. `to_record()` returns the record; fields of a subclass of yours are no part of it.

They are made of the records' own fields, each when it is first used. This needs the extra `pydantic`, and nothing else
in `dao` imports that.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Self, TypeVar

import attrs

from dao import codec, fields, records
from dao.errors import InvalidValue
from dao.stored import Stored

try:
    import pydantic
except ImportError as error:
    raise ImportError("dao.pydantic needs pydantic 2: pip install 'orchestrator-dao[pydantic]'") from error

__all__ = [
    "ConfigurationCreate",
    "ConfigurationModel",
    "PageModel",
    "RecordModel",
    "SessionCreate",
    "SessionModel",
    "TaskCreate",
    "TaskDependencyCreate",
    "TaskDependencyModel",
    "TaskEventModel",
    "TaskModel",
    "ToolExecutionCreate",
    "ToolExecutionModel",
    "WorkflowCreate",
    "WorkflowModel",
    "WorkflowTaskCreate",
    "WorkflowTaskModel",
]

R = TypeVar("R", bound=Stored)
M = TypeVar("M", bound=pydantic.BaseModel)


class RecordModel(pydantic.BaseModel, Generic[R]):
    """Base of the models. The attributes are those of the record."""

    model_config = pydantic.ConfigDict(from_attributes=True, frozen=True, extra="forbid")

    __record__: ClassVar[type[Stored]]
    #: The times that are that of `created_at` unless they are given.
    __when_created__: ClassVar[tuple[str, ...]]

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _as_the_record(cls, value: Any, handler: Callable[[Any], Self]) -> Self:
        if isinstance(value, dict) and (absent := [name for name in cls.__when_created__ if name not in value]):
            created_at = value.get("created_at", codec.now())
            value = {**value, "created_at": created_at, **dict.fromkeys(absent, created_at)}
        model = handler(value)
        if not isinstance(value, cls.__record__):
            try:
                model.to_record()
            except TypeError as error:  # a value of Python's that is no JSON
                raise InvalidValue(str(error)) from error
        return model

    def to_record(self) -> R:
        """Return the record with these values.

        Raises:
            InvalidValue: The model was made without its checks, and the record refuses a value.
        """
        record: Any = self.__record__
        names = attrs.fields_dict(record).keys() & type(self).model_fields.keys()  # a subclass may have more
        made: R = record(**{name: getattr(self, name) for name in names})
        return made

    if TYPE_CHECKING:

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...


class PageModel(pydantic.BaseModel, Generic[M]):
    """A page of a listing: `PageModel[TaskModel]` is made of what `tasks.find` returns."""

    model_config = pydantic.ConfigDict(from_attributes=True, frozen=True)

    items: list[M]
    next: str | None = pydantic.Field(description="The cursor of the next page, for `after`; null on the last.")


# ---------------------------------------------------------------- made of the records' fields


def _time_given(value: object) -> datetime:
    # pydantic takes a number, also in a text, for the seconds since 1970
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return codec.time_from_text(value)
    raise InvalidValue(f"expected an ISO 8601 time, got {value!r}")


_TIME = Annotated[
    pydantic.AwareDatetime,
    pydantic.BeforeValidator(_time_given),
    pydantic.AfterValidator(codec.millisecond),
    pydantic.PlainSerializer(codec.time_to_text, return_type=str, when_used="json"),
    pydantic.WithJsonSchema({"type": "string", "format": "date-time"}),
]
# as the validators have it, but for the few characters that only Python calls white space: the record refuses these
_TEXTS: dict[Any, dict[str, Any]] = {
    fields.text: {"pattern": r"^[^\x00]*$"},
    fields.not_empty: {"pattern": r"^[^\x00]+$", "min_length": 1},
    fields.not_blank: {"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$", "min_length": 1},
}
#: What a client that makes a record cannot say: the database and the workers keep it; and `updated_at` of each record.
_KEPT: dict[type[Stored], set[str]] = {
    records.Task: {
        *("status", "error", "started_at", "completed_at", "attempt", "worker", "lease_expires_at", "failures"),
        *("waiting_for", "paused_by"),
    },
    records.Session: {"is_active", "last_heartbeat"},
}


def _described(field: attrs.Attribute[Any], hint: Any, *, optional: bool) -> tuple[Any, Any]:
    """Return the type and the default of a field, as pydantic takes them."""
    validator: Any = getattr(field.validator, "validator", field.validator)
    kind: Any = hint
    if field.metadata.get("column") == "time":
        kind = _TIME
    elif isinstance(validator, fields.whole):
        kind = Annotated[int, pydantic.Field(strict=True, ge=validator.least, le=validator.most)]
    elif hint is bool:
        kind = pydantic.StrictBool
    elif validator in _TEXTS:
        kind = Annotated[str, pydantic.Field(**_TEXTS[validator])]
    if kind is not hint and type(None) in typing.get_args(hint):
        kind = kind | None
    default: Any = field.default
    if not optional or default is attrs.NOTHING:
        return kind, ...
    if not isinstance(default, attrs.Factory):  # type: ignore[arg-type] # it is a class, and typed as a function
        return kind, default
    return kind, pydantic.Field(default_factory=codec.now if default is fields.WHEN_CREATED else default.factory)


def _made(record: type[Stored], name: str, *, left_out: Collection[str] = (), optional: bool = False) -> Any:
    """Return a model of the fields of a record that are not left out."""
    hints = typing.get_type_hints(record)
    all_fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(record)  # type: ignore[arg-type] # it is one of attrs
    taken = [field for field in all_fields if field.name not in left_out]
    described: dict[str, Any] = {field.name: _described(field, hints[field.name], optional=optional) for field in taken}
    model: Any = pydantic.create_model(
        name, __base__=RecordModel, __module__=__name__, __doc__=record.__doc__, **described
    )
    model.__record__ = record
    model.__when_created__ = tuple(field.name for field in taken if optional and field.default is fields.WHEN_CREATED)
    return model


#: The records that clients make; triggers write the events.
_CREATED = (
    records.Configuration,
    records.Session,
    records.Task,
    records.TaskDependency,
    records.ToolExecution,
    records.Workflow,
    records.WorkflowTask,
)


if TYPE_CHECKING:  # what type checkers see of what is made below

    class ConfigurationModel(RecordModel[records.Configuration], init=False):
        """All of a `Configuration`."""

    class ConfigurationCreate(RecordModel[records.Configuration], init=False):
        """What makes a `Configuration`."""

    class SessionModel(RecordModel[records.Session], init=False):
        """All of a `Session`."""

    class SessionCreate(RecordModel[records.Session], init=False):
        """What makes a `Session`."""

    class TaskModel(RecordModel[records.Task], init=False):
        """All of a `Task`."""

    class TaskCreate(RecordModel[records.Task], init=False):
        """What makes a `Task`."""

    class TaskDependencyModel(RecordModel[records.TaskDependency], init=False):
        """All of a `TaskDependency`."""

    class TaskDependencyCreate(RecordModel[records.TaskDependency], init=False):
        """What makes a `TaskDependency`."""

    class TaskEventModel(RecordModel[records.TaskEvent], init=False):
        """All of a `TaskEvent`."""

    class ToolExecutionModel(RecordModel[records.ToolExecution], init=False):
        """All of a `ToolExecution`."""

    class ToolExecutionCreate(RecordModel[records.ToolExecution], init=False):
        """What makes a `ToolExecution`."""

    class WorkflowModel(RecordModel[records.Workflow], init=False):
        """All of a `Workflow`."""

    class WorkflowCreate(RecordModel[records.Workflow], init=False):
        """What makes a `Workflow`."""

    class WorkflowTaskModel(RecordModel[records.WorkflowTask], init=False):
        """All of a `WorkflowTask`."""

    class WorkflowTaskCreate(RecordModel[records.WorkflowTask], init=False):
        """What makes a `WorkflowTask`."""

else:

    def __getattr__(name: str) -> Any:
        # each when it is asked for: to make one takes pydantic 10 ms
        for record in (*_CREATED, records.TaskEvent):
            if name == f"{record.__name__}Model":
                globals()[name] = _made(record, name)
            elif name == f"{record.__name__}Create" and record in _CREATED:
                globals()[name] = _made(record, name, left_out={"updated_at", *_KEPT.get(record, ())}, optional=True)
        if name in globals():
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
