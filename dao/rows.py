"""Between records and rows: a table's columns in order, and the conversion in both directions.

Rows that the table's constraints have accepted need no second validation, so a record is built from its row without
the validators, on a mutable twin of its class that then turns into the frozen class. A frozen attrs `__init__` of ten
fields takes 457 ns, the twin and the swap 154. It works because both classes have the same base and the same slots. The
code of both directions is generated, as attrs generates `__init__`: straight-line code costs a third of a loop over the
fields. Both tricks are here and nowhere else.
"""

from __future__ import annotations

import enum
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

    `columns` is the list for SELECT and INSERT, `parameters` the matching `$1, $2 …`. `from_row` takes a row's values
    as positional arguments, `to_row` gives them: both in the order of `columns`.
    """

    name: str
    columns: str
    parameters: str
    from_row: Callable[..., R]
    to_row: Callable[[R], tuple[Any, ...]]


def _table(name: str, record: type[R]) -> Table[R]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(record)  # type: ignore[arg-type] # mypy sees no bound of R
    columns = [field.name for field in fields]
    scope: dict[str, Any] = {
        "base": record.__base__,
        "record_class": record,
        "time_from_text": codec.time_from_text,
        "time_to_text": codec.time_to_text,
    }
    read, write, texts = [], [], []
    for field in fields:
        column = field.name
        if column in record._JSON_COLUMNS:
            scope[f"{column}_text"] = _json_text(record, column, nullable=field.default is None)
            texts.append(column)
            write.append(f"{column}_text(record)")
            continue
        value, text = column, f"record.{column}"
        if field.metadata.get("column") == "time":
            value, text = f"time_from_text({column})", f"time_to_text(record.{column})"
            if field.default is None:
                value, text = f"None if {column} is None else {value}", f"None if record.{column} is None else {text}"
        elif field.metadata.get("column") == "boolean":
            value, text = f"{column} == 1", f"int(record.{column})"
        elif isinstance(kind := cast("object", field.converter), enum.EnumMeta):
            # a dict finds a member in 30 ns, calling the enum in 227; `.value` is a Python property up to 3.11
            scope[f"{column}_members"] = dict(kind._value2member_map_)
            value, text = f"{column}_members[{column}]", f"record.{column}._value_"
        read.append(f"self.{column} = {value}")
        write.append(text)
    source = f"""
class Twin(base):
    __slots__ = {tuple(columns)!r}

    def __init__(self, {", ".join(columns)}):
        {"; ".join(read)}
        self._texts = ({", ".join(texts)},)
        self.__class__ = record_class

def to_row(record):
    return ({", ".join(write)},)
"""
    exec(source, scope)  # noqa: S102 - of field names only; see the module's docstring
    return Table(
        name=name,
        columns=", ".join(columns),
        parameters=", ".join(f"${number}" for number in range(1, len(columns) + 1)),
        from_row=scope["Twin"],
        to_row=scope["to_row"],
    )


def _json_text(record: type[_Stored], column: str, *, nullable: bool) -> Callable[[Any], str | None]:
    """Return the function that gives a record's JSON column as text: the row's own text if it was never read."""
    get = record.__dict__[column].__get__
    position = record._JSON_COLUMNS.index(column)
    encode = codec.encode_json

    def json_text(record: Any) -> str | None:
        try:
            value = get(record)
        except AttributeError:
            text: str | None = record._texts[position]
            return text
        return None if nullable and value is None else encode(value)

    return json_text


TASKS = _table("tasks", Task)
WORKFLOWS = _table("workflows", Workflow)
WORKFLOW_TASKS = _table("workflow_tasks", WorkflowTask)
TOOL_EXECUTIONS = _table("tool_executions", ToolExecution)
SESSIONS = _table("sessions", Session)
CONFIGURATIONS = _table("configurations", Configuration)
