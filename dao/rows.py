"""Between records and rows: a table's columns in order, and the conversion in both directions.

Rows that the table's constraints have accepted need no second validation, so a record is built from its row without
the validators, on a mutable twin of its class that then turns into the frozen class. A frozen attrs `__init__` of ten
fields takes 457 ns, the twin and the swap 154. The twin is a subclass that adds nothing but `object`'s own methods: a
class of its own with the same slots would do, but the swap would compare them all, which makes a record cost a fifth
more. (Who walks the subclasses of a record finds it.) The code of both directions is generated, as attrs generates `__init__`: straight-line code costs a third of a loop
over the fields, and one call for all rows less than one for each. JSON and times stay in the row until they are read
(`dao.stored`): that makes a record in 0.3 µs instead of 0.6.

STRICT and NOT NULL bind whoever writes. A CHECK does not: a newer schema allows more, and a pragma turns it off. So what
only a CHECK guards (statuses, booleans, JSON, times) is checked where it is decoded, and refused by `UnreadableRow`. All of this is here and nowhere else.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import attrs

from dao import codec
from dao.errors import NotFound
from dao.fields import members
from dao.records import Configuration, Session, Task, ToolExecution, Workflow, WorkflowTask
from dao.stored import Stored, unreadable

__all__ = ["CONFIGURATIONS", "SESSIONS", "TASKS", "TOOL_EXECUTIONS", "WORKFLOWS", "WORKFLOW_TASKS", "Table"]

R = TypeVar("R", bound=Stored)


@attrs.frozen(eq=False)
class Table(Generic[R]):
    """A table as its module's SQL and functions need it.

    `from_row` makes a record of a row, `from_rows` records of rows, `to_row` a row of a record: the values are in the
    order of `columns`.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    from_row: Callable[[tuple[Any, ...]], R]
    from_rows: Callable[[Iterable[tuple[Any, ...]]], list[R]]
    to_row: Callable[[R], tuple[Any, ...]]
    #: The tables that columns refer to, by their id.
    references: Mapping[str, str]
    #: The columns as SELECT lists them.
    listed: str = attrs.field(init=False)
    #: The INSERT of a row.
    insert: str = attrs.field(init=False)
    #: The UPDATE of a row that is still of the version that was read. It leaves the key and `created_at` alone.
    update: str = attrs.field(init=False)
    #: The parameters of `update`, of a row.
    for_update: Callable[[tuple[Any, ...]], tuple[Any, ...]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        kept = {*self.key, "created_at", "updated_at"}
        changed = [name for name in self.columns if name not in kept]
        identified = [*self.key, "updated_at"]
        numbered = [f"{name} = ${number}" for number, name in enumerate([*changed, *identified], 1)]
        listed = ", ".join(self.columns)
        parameters = ", ".join(f"${number}" for number in range(1, len(self.columns) + 1))
        positions = [self.columns.index(name) for name in [*changed, *identified]]
        values = {
            "listed": listed,
            "insert": f"INSERT INTO {self.name} ({listed}) VALUES ({parameters})",
            "update": f"UPDATE {self.name} SET {', '.join(numbered[: len(changed)])} "
            f"WHERE {' AND '.join(numbered[len(changed) :])} RETURNING {', '.join(self.key)}",
            "for_update": operator.itemgetter(*positions),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def qualified(self) -> str:
        """Return the columns as a SELECT lists them that joins several tables."""
        return ", ".join(f"{self.name}.{name}" for name in self.columns)

    def first(self, rows: list[tuple[Any, ...]]) -> R | None:
        """Return the record of the first row, or None if there is none."""
        return self.from_row(rows[0]) if rows else None

    def found(self, record: R | None, *key: str) -> R:
        """Return the record with this key, unless there is none.

        Raises:
            NotFound: There is none.
        """
        if record is None:
            raise self.not_found(*key)
        return record

    def not_found(self, *key: str) -> NotFound:
        """Return the error for a key that no row has."""
        name = key[0] if len(key) == 1 else key
        return NotFound(f"{self.name}: no row has the key {name!r}", table=self.name, key=name)


def _table(record: type[R], **references: str) -> Table[R]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(record)  # type: ignore[arg-type] # mypy sees no bound of R
    scope: dict[str, Any] = {
        "record_class": record,
        "Twin": record.__twin__,
        "refuse": functools.partial(_refuse, record),
        "misfit": functools.partial(_misfit, record),
        "json_text": codec.plain_json_text,
        "time_to_text": codec.time_to_text,
    }
    first_time = next(field.name for field in fields if field.metadata.get("column") == "time")
    # what the values of a row are assigned to, and what is converted then; what a record's values are, and their texts
    targets, convert, held, values = [], [], [], []
    for position, field in enumerate(fields):
        column, kind = field.name, field.metadata.get("column")
        target, value = f"self.{column}", f"record.{column}"
        if column in record.__later__:
            held.append(f"{column} = record._{column}")
            convert.append(f"self._{column} = row")
            text = f"json_text({column}, {column!r})" if kind == "json" else f"time_to_text({column})"
            if field.default is None:
                text = f"None if {column} is None else {text}"
            if kind == "time" and column != first_time:
                # the times of a new record are one object
                text = f"first if {column} is {first_time} else {text}"
            target, value = "_", f"{column}[{position}] if type({column}) is tuple else {text}"
            if column == first_time:
                first, value = f"first = {value}", "first"
        elif few := members(field):
            scope[f"{column}_members"] = few
            convert.append(f"{target} = {column}_members[{column}]")
            # `.value` is a Python property up to 3.11
            target, value = column, f"{value}._value_" if field.converter else f"int({value})"
        targets.append(target)
        values.append(value)
    build = [
        "self = Twin()",
        f"{', '.join(targets)} = row",
        *convert,
        "self.__class__ = record_class",
    ]
    source = f"""
def from_row(row):
    try:
        {"; ".join(build)}
    except Exception as error:
        refuse(row, error)
    return self

def from_rows(rows):
    records = []
    try:
        for row in rows:
            {"; ".join(build)}
            records.append(self)
    except Exception as error:
        refuse(row, error)
    return records

def to_row(record):
    try:
        {"; ".join([*held, first])}
        return ({", ".join(values)},)
    except AttributeError as error:
        misfit(record, error)
"""
    exec(source, scope)  # noqa: S102 - of field names only; see the module's docstring
    return Table(
        name=record.__table__,
        columns=tuple(field.name for field in fields),
        key=record.__key__,
        from_row=scope["from_row"],
        from_rows=scope["from_rows"],
        to_row=scope["to_row"],
        references=references,
    )


def _refuse(record: type[Stored], row: tuple[Any, ...], error: Exception) -> NoReturn:
    """Raise the error for the value of a row that stands for nothing; whatever else went wrong as it is."""
    held = dict(zip([field.name for field in attrs.fields(record)], row, strict=True))  # type: ignore[arg-type]
    for field in attrs.fields(record):  # type: ignore[arg-type] # as in _table
        value = held[field.name]
        if (few := members(field)) and value not in few:
            key = [held[name] for name in record.__key__]
            raise unreadable(record, key, field.name, value, "which it does not know") from error
    raise error


def _misfit(record: type[Stored], given: object, error: AttributeError) -> NoReturn:
    """Raise the error for what is no such record; whatever else went wrong as it is."""
    if isinstance(given, record):
        raise error
    raise TypeError(f"expected a {record.__name__}, got {type(given).__name__}") from error


TASKS = _table(Task)
WORKFLOWS = _table(Workflow)
WORKFLOW_TASKS = _table(WorkflowTask, workflow_id="workflows", task_id="tasks")
TOOL_EXECUTIONS = _table(ToolExecution, task_id="tasks")
SESSIONS = _table(Session)
CONFIGURATIONS = _table(Configuration)
