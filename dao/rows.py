"""Between records and rows: a table's columns in order, and the conversion in both directions.

Rows that the table's constraints have accepted need no second validation. So a record is built from its row without
the validators, on the mutable twin of its class, and JSON and times are decoded when they are read
(`dao.stored`). The code is generated, as attrs generates `__init__`: straight-line code takes a third of the time of a
loop over the fields.

STRICT and NOT NULL bind every writer. A CHECK does not: a newer schema allows more, and a pragma turns it off. So the
values that only a CHECK guards (statuses, booleans, JSON, times) are checked where they are decoded; `UnreadableRow`
refuses them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import attrs

from dao import codec
from dao.errors import NotFound
from dao.fields import members
from dao.records import (
    Configuration,
    Session,
    Task,
    TaskDependency,
    TaskEvent,
    ToolExecution,
    Workflow,
    WorkflowTask,
)
from dao.stored import Stored, unreadable

__all__ = [
    "CONFIGURATIONS",
    "SESSIONS",
    "TABLES",
    "TASKS",
    "TASK_DEPENDENCIES",
    "TASK_EVENTS",
    "TOOL_EXECUTIONS",
    "WORKFLOWS",
    "WORKFLOW_TASKS",
    "Change",
    "Table",
]

R = TypeVar("R", bound=Stored)


class Change(NamedTuple):
    """An UPDATE of a row for `dao.engine.change`: as it returns the row's key, and as it returns the row.

    Where triggers run after the statement, RETURNING shows the row without what they do, and the key is enough.
    """

    returning_key: str
    returning_row: str


@attrs.frozen(kw_only=True, eq=False)
class Table(Generic[R]):
    """A table as its module's SQL and functions need it. The values of a row are in the order of `columns`."""

    name: str
    columns: tuple[str, ...]
    #: The columns as SELECT lists them, alone and beside those of other tables.
    listed: str
    qualified: str
    #: The SELECT of the row with a key.
    get: str
    #: The INSERT of a row.
    insert: str
    #: The columns of the key, as SELECT lists them.
    key: str
    #: The UPDATE of a row that is still as it was read, and its parameters out of the row. Key and `created_at` stay,
    #: and so do the columns that are not the caller's. Of a table without versions it is empty.
    update: Change
    for_update: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    from_row: Callable[[tuple[Any, ...]], R]
    from_rows: Callable[[Iterable[tuple[Any, ...]]], list[R]]
    to_row: Callable[[R], tuple[Any, ...]]
    #: The columns that hold times.
    times: tuple[str, ...]
    #: The tables that columns refer to, by their id.
    references: Mapping[str, str]

    def changing(self, update: str) -> Change:
        """Return an UPDATE that changes one row at the most, for `dao.engine.change`."""
        return _changing(update, self.key, self.listed)

    def first(self, rows: list[tuple[Any, ...]]) -> R | None:
        """Return the record of the first row, or None if there is none."""
        return self.from_row(rows[0]) if rows else None

    def found(self, record: R | None, *key: str | int) -> R:
        """Return the record with this key, unless there is none.

        Raises:
            NotFound: There is none.
        """
        if record is None:
            raise self.not_found(*key)
        return record

    def not_found(self, *key: str | int) -> NotFound:
        """Return the error for a key that no row has."""
        name = key[0] if len(key) == 1 else key
        return NotFound(f"{self.name}: no row has the key {name!r}", table=self.name, key=name)


def _changing(update: str, key: str, row: str) -> Change:
    update = update.rstrip()
    return Change(f"{update}\nRETURNING {key}", f"{update}\nRETURNING {row}")


def _table(record: type[R], *, kept: Mapping[str, str] | None = None, **references: str) -> Table[R]:
    """Return the table of a record.

    `kept` has the columns that an update leaves, each with the case in which it does, always if that is empty; {column}
    stands there for the value that the update would write.
    """
    name, key = record.__table__, record.__key__
    columns = tuple(field.name for field in _fields(record))
    listed, parameters = ", ".join(columns), ", ".join(f"${number + 1}" for number in range(len(columns)))
    update, for_update = _update(record, columns, kept or {})
    return Table(
        name=name,
        columns=columns,
        listed=listed,
        qualified=", ".join(f"{name}.{column}" for column in columns),
        get=f"SELECT {listed} FROM {name} WHERE {' AND '.join(f'{column} = ${n}' for n, column in enumerate(key, 1))}",
        insert=f"INSERT INTO {name} ({listed}) VALUES ({parameters})",
        key=", ".join(key),
        update=_changing(update, ", ".join(key), listed),
        for_update=for_update,
        times=tuple(field.name for field in _fields(record) if field.metadata.get("column") == "time"),
        references=references,
        **_conversions(record),
    )


def _update(
    record: type[Stored], columns: tuple[str, ...], kept: Mapping[str, str]
) -> tuple[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]:
    key = record.__key__
    if "updated_at" not in columns:
        return "", operator.itemgetter(0, 0)
    mine = {*key, "created_at", "updated_at", *(column for column, case in kept.items() if not case)}
    changed = [column for column in columns if column not in mine]
    bound = [*changed, *key, "updated_at"]
    numbers = {column: f"${number}" for number, column in enumerate(bound, 1)}
    assigned = [
        f"{column} = CASE WHEN {kept[column].format(**numbers)} THEN {column} ELSE {numbers[column]} END"
        if column in kept
        else f"{column} = {numbers[column]}"
        for column in changed
    ]
    found = [f"{column} = {numbers[column]}" for column in (*key, "updated_at")]
    return (
        f"UPDATE {record.__table__} SET {', '.join(assigned)} WHERE {' AND '.join(found)}",
        operator.itemgetter(*map(columns.index, bound)),
    )


def _conversions(record: type[Stored]) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "record_class": record,
        "twin": record.__twin__,
        "refuse": functools.partial(_refuse, record),
        "misfit": functools.partial(_misfit, record),
        "json_text": codec.plain_json_text,
        "canonical_time": codec.canonical_time,
    }
    # from a row: the targets of its values, and the conversions after that; from a record: its values, and their texts
    targets, convert, held, values = [], [], [], []
    for position, field in enumerate(_fields(record)):
        column = field.name
        target, value = f"self.{column}", f"record.{column}"
        kind = field.metadata.get("column")
        if kind == "json":
            held.append(f"{column} = record._{column}")
            convert.append(f"self._{column} = row")
            text = f"json_text({column}, {column!r})"
            if field.default is None:
                text = f"None if {column} is None else {text}"
            target, value = "_", f"{column}[{position}] if type({column}) is tuple else {text}"
        elif kind == "time":
            held.append(f"{column} = record._{column}")
            # SQLite's text is ours already
            ours = f"{column} is None or type({column}) is str and {column}[10:11] == 'T'"
            target, value = f"self._{column}", f"{column} if {ours} else canonical_time({column})"
        elif few := members(field):
            scope[f"{column}_members"] = few
            convert.append(f"{target} = {column}_members[{column}]")
            # `.value` is a Python property up to 3.11
            own = f"{value}._value_" if field.converter else f"int({value})"
            target, value = column, f"None if {value} is None else {own}" if None in few else own
        targets.append(target)
        values.append(value)
    build = "; ".join(["self = twin()", f"{', '.join(targets)} = row", *convert, "self.__class__ = record_class"])
    source = f"""
def from_row(row):
    try:
        {build}
    except Exception as error:
        refuse(row, error)
    return self

def from_rows(rows):
    records = []
    try:
        for row in rows:
            {build}
            records.append(self)
    except Exception as error:
        refuse(row, error)
    return records

def to_row(record):
    try:
        {"; ".join(held)}
        return ({", ".join(values)},)
    except AttributeError as error:
        misfit(record, error)
"""
    exec(source, scope)  # noqa: S102 - of field names only
    return {name: scope[name] for name in ("from_row", "from_rows", "to_row")}


def _fields(record: type[Stored]) -> tuple[attrs.Attribute[Any], ...]:
    return attrs.fields(record)  # type: ignore[arg-type,no-any-return] # only the records themselves are attrs classes


def _refuse(record: type[Stored], row: tuple[Any, ...], error: Exception) -> NoReturn:
    """Raise the error for a value in a row that has no meaning, or the given error if there is no such value."""
    held = dict(zip([field.name for field in _fields(record)], row, strict=True))
    for field in _fields(record):
        value = held[field.name]
        if (few := members(field)) and value not in few:
            key = [held[name] for name in record.__key__]
            raise unreadable(record, key, field.name, value, "which it does not know") from error
    raise error


def _misfit(record: type[Stored], given: object, error: AttributeError) -> NoReturn:
    """Raise the error for an object of another class, or the given error for a record."""
    if isinstance(given, record):
        raise error
    raise TypeError(f"expected a {record.__name__}, got {type(given).__name__}") from error


# Triggers count, and a heartbeat makes no version: of the lease of an attempt that goes on, what was read may be stale.
TASKS = _table(
    Task,
    kept={
        "lease_expires_at": "worker = {worker} AND attempt = {attempt}",
        "waiting_for": "",
        "paused_by": "",
    },
)
TASK_DEPENDENCIES = _table(TaskDependency, task_id="tasks", depends_on="tasks")
TASK_EVENTS = _table(TaskEvent)
WORKFLOWS = _table(Workflow)
WORKFLOW_TASKS = _table(WorkflowTask, workflow_id="workflows", task_id="tasks")
TOOL_EXECUTIONS = _table(ToolExecution, task_id="tasks")
SESSIONS = _table(Session)
CONFIGURATIONS = _table(Configuration)

#: All tables, each after those that it refers to.
TABLES: tuple[Table[Any], ...] = (
    TASKS,
    TASK_DEPENDENCIES,
    TASK_EVENTS,
    WORKFLOWS,
    WORKFLOW_TASKS,
    TOOL_EXECUTIONS,
    SESSIONS,
    CONFIGURATIONS,
)
