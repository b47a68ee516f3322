"""Between records and rows: a table's columns in order, and the conversion in both directions.

Rows that the table's constraints have accepted need no second validation, so a record is built from its row without
the validators, on a mutable twin of its class that then turns into the frozen class. A frozen attrs `__init__` of ten
fields takes 457 ns, the twin and the swap 154. It works because both classes have the same base and the same slots. The
code of both directions is generated, as attrs generates `__init__`: straight-line code costs a third of a loop over the
fields. JSON and times stay in the row until they are read (`dao.records`): that makes a record in 0.3 µs instead of 0.6.
All of this is here and nowhere else.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import attrs

from dao import codec
from dao.records import Configuration, Session, Task, ToolExecution, Workflow, WorkflowTask, _Stored

__all__ = ["CONFIGURATIONS", "SESSIONS", "TASKS", "TOOL_EXECUTIONS", "WORKFLOWS", "WORKFLOW_TASKS", "Table"]

R = TypeVar("R", bound=_Stored)


@attrs.frozen
class Table(Generic[R]):
    """A table as its module's SQL and functions need it.

    `columns` is the list for SELECT and INSERT, `parameters` the matching `$1, $2 …`. `from_row` takes a row, `to_row`
    gives one: both in the order of `columns`.
    """

    name: str
    columns: str
    parameters: str
    from_row: Callable[[tuple[Any, ...]], R]
    to_row: Callable[[R], tuple[Any, ...]]


def _table(name: str, record: type[R]) -> Table[R]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(record)  # type: ignore[arg-type] # mypy sees no bound of R
    columns = [field.name for field in fields]
    scope: dict[str, Any] = {
        "base": record.__base__,
        "record_class": record,
        "json_texts": functools.partial(_json_texts, record),
        "encode_json": codec.encode_json,
        "time_to_text": codec.time_to_text,
    }
    first_time = next(field.name for field in fields if field.metadata.get("column") == "time")
    # what the values of a row are assigned to, and what is converted then
    targets, convert = [], []
    # the values of a row, and where its JSON texts come from
    values, load, encode = [], [], []
    for field in fields:
        column = field.name
        target, value = f"self.{column}", f"record.{column}"
        if column in record._JSON_COLUMNS:
            scope[f"get_{column}"] = record.__dict__[column].__get__
            load.append(f"{column} = get_{column}(record)")
            text = f"encode_json({column})"
            encode.append(f"None if {column} is None else {text}" if field.default is None else text)
            target, value = "_", column
        elif field.metadata.get("column") == "time":
            # the times of a new record are one object
            text = f"first if {value} is record.{first_time} else time_to_text({value})"
            target, value = "_", "first" if column == first_time else text
            if field.default is None:
                value = f"None if record.{column} is None else {value}"
        elif field.metadata.get("column") == "boolean":
            convert.append(f"{target} = {column} == 1")
            target, value = column, f"int({value})"
        elif isinstance(kind := cast("object", field.converter), enum.EnumMeta):
            # a dict finds a member in 30 ns, calling the enum in 227; `.value` is a Python property up to 3.11
            scope[f"{column}_members"] = dict(kind._value2member_map_)
            convert.append(f"{target} = {column}_members[{column}]")
            target, value = column, f"{value}._value_"
        targets.append(target)
        values.append(value)
    json = ", ".join(record._JSON_COLUMNS)
    source = f"""
class Twin(base):
    __slots__ = {tuple(columns)!r}

def from_row(row):
    self = Twin()
    {", ".join(targets)} = row
    {"; ".join([*convert, "self._row = row"])}
    self.__class__ = record_class
    return self

def to_row(record):
    try:
        {"; ".join(load)}
    except AttributeError:
        {json}, = json_texts(record)
    else:
        {json}, = {", ".join(encode)},
    first = time_to_text(record.{first_time})
    return ({", ".join(values)},)
"""
    exec(source, scope)  # noqa: S102 - of field names only; see the module's docstring
    return Table(
        name=name,
        columns=", ".join(columns),
        parameters=", ".join(f"${number}" for number in range(1, len(columns) + 1)),
        from_row=scope["from_row"],
        to_row=scope["to_row"],
    )


def _json_texts(kind: type[_Stored], record: _Stored) -> list[str | None]:
    """Return the JSON columns of a record as texts: the row's own text for one that was never read."""
    fields = attrs.fields_dict(kind)  # type: ignore[arg-type] # mypy does not know that it is a class of attrs
    texts: list[str | None] = []
    for column in kind._JSON_COLUMNS:
        try:
            value = kind.__dict__[column].__get__(record)
        except AttributeError:
            text: str | None = record._row[[*fields].index(column)]
        else:
            text = None if fields[column].default is None and value is None else codec.encode_json(value)
        texts.append(text)
    return texts


TASKS = _table("tasks", Task)
WORKFLOWS = _table("workflows", Workflow)
WORKFLOW_TASKS = _table("workflow_tasks", WorkflowTask)
TOOL_EXECUTIONS = _table("tool_executions", ToolExecution)
SESSIONS = _table("sessions", Session)
CONFIGURATIONS = _table("configurations", Configuration)
