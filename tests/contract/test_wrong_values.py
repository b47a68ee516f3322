"""A wrong value is an `InvalidValue`, wherever it is given and on whichever engine; a wrong type is a TypeError."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import attrs
import pytest

import dao
from dao import rows, task_events, tasks, testing
from dao.engine import fetch
from tests.every_function import CALL, HELD, TASK, fill
from tests.plans import MODULES

NAIVE, NOON = datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)  # noqa: DTZ001 - what is wrong about it
SURROGATE = "\ud800"

# A right value and a wrong one for each parameter, of whatever function; None in the place of a wrong one: any value
# of its type is right, or it is a record, which was checked when it was made.
TEXT = ("a", SURROGATE)
TIME, LIMIT = (NOON, NAIVE), (10, 0)
VALUES: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys(("tool_name", "client_id", "task_type", "workspace_path", "worker", "name", "dedup_key"), TEXT),
    **dict.fromkeys(("error", "key", "prefix", "step"), TEXT),
    **dict.fromkeys(("since", "until", "before", "moment", "now", "run_at"), TIME),
    **dict.fromkeys(("limit", "batch"), LIMIT),
    **dict.fromkeys(("without_task", "oldest_first", "retry", "type", "default"), (None, None)),
    "older_than": (timedelta(1), None),
    "after": (None, "nonsense"),
    "config": ({}, {"a": float("nan")}),
    "depends_on": ("second", [SURROGATE]),
    "execution": (CALL, SURROGATE),
    "executions": ([], None),
    "id": ("task", SURROGATE),
    "ids": (["task"], ["task", SURROGATE]),
    "keys": ([("workflow", "task")], [("workflow", SURROGATE)]),
    "seqs": ([1], [1, 2**63]),
    "input": ({}, [float("inf")]),
    "jitter": (0.5, 1.5),
    "lease": (timedelta(1), timedelta(0)),
    "metadata": (None, float("nan")),
    "output": (None, SURROGATE),
    "retry_in": (timedelta(1), timedelta(-1)),
    "seq": (1, 2**63),
    "sequence": (0, -1),
    "expected": (None, "nonsense"),
    "status": ("failed", "nonsense"),
    "task": (HELD, None),
    "task_id": ("task", SURROGATE),
    "task_ids": (["task", "third"], ["task"]),
    "tasks": ([], None),
    "value": (1, float("nan")),
    "values": ({}, {"": 1}),
    "workflow": (None, None),
    "workflow_id": ("workflow", SURROGATE),
    "workflows": ([], None),
}
# Where a name means something else.
OTHERS: dict[tuple[str, str], tuple[Any, Any]] = {
    ("tool_executions.record", "execution"): (CALL, None),
    ("workflows.set_status", "status"): ("active", "failed"),
    ("tasks.as_of", "moment"): (datetime(2100, 1, 1, tzinfo=UTC), NAIVE),
    ("tasks.enqueue", "task"): (TASK, None),
    ("task_events.find", "after"): (None, -1),
    ("configurations.get_many", "keys"): (["key"], ["a\0"]),
    ("task_dependencies.add", "depends_on"): ("second", [SURROGATE]),
    ("task_dependencies.exists", "depends_on"): ("second", SURROGATE),
    ("task_dependencies.get", "depends_on"): ("second", SURROGATE),
    ("task_dependencies.get_one", "depends_on"): ("second", SURROGATE),
    ("task_dependencies.remove", "depends_on"): ("second", SURROGATE),
}


def dump(connection: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is stored."""
    return {table: fetch(connection, f"SELECT * FROM {table} ORDER BY 1, 2") for table in MODULES}


def wrong_calls() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield each function with arguments of which one is wrong: by name, itself, and by keyword."""
    for module_name, module in MODULES.items():
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isfunction(function):
                continue
            called = f"{module_name}.{name}"
            _, *parameters = inspect.signature(function).parameters.values()
            values = {one.name: OTHERS.get((called, one.name)) or VALUES[one.name] for one in parameters}
            required = {one.name: values[one.name][0] for one in parameters if one.default is one.empty}
            for parameter, (_, wrong) in values.items():
                if wrong is not None:
                    yield f"{called}({parameter}={wrong!r})", function, {**required, parameter: wrong}


@pytest.mark.both_engines
def test_argument_wrong_value_is_an_invalid_value_and_changes_nothing(connection):
    """A plain ValueError was that of anything in between, too; a lone surrogate was one error on each engine."""
    fill(connection)
    before = dump(connection)
    passed = []
    for called, function, arguments in wrong_calls():
        try:
            result = function(connection, **arguments)
            passed.append(f"{called} returned {list(result) if isinstance(result, Iterator) else result!r}")
        except dao.InvalidValue as error:
            if not str(error):
                passed.append(f"{called} says nothing")
        except Exception as error:  # noqa: BLE001 - reported below
            passed.append(f"{called} raised {error!r}")
    assert passed == []
    assert dump(connection) == before


@pytest.mark.both_engines
def test_argument_wrong_type_is_a_type_error(connection):
    """A UUID for an id is compared with a text: PostgreSQL has no such operator, and the schema was called outdated.

    A dict was psycopg's own error, and a `retry` that is no bool Python's, or a number in the place of one.
    """
    id = uuid.uuid4()
    for call in (tasks.get, tasks.exists, tasks.cancel, tasks.delete):
        with pytest.raises(TypeError, match="UUID"):
            call(connection, id)
        with pytest.raises(TypeError):
            call(connection, {})
    for retry in ("no", 5, None):
        with pytest.raises(TypeError, match="retry must be a bool, got"):
            tasks.fail(connection, dao.Task(title="a", task_type="a"), error="e", retry=retry)
    with pytest.raises(TypeError, match="config"):
        dao.workflow_tasks.add(connection, "w", "t", config=" ")


@pytest.mark.both_engines
def test_number_of_any_size_is_told_without_its_digits(connection):
    """Python writes none of so many digits; SQLite's was an OverflowError."""
    with pytest.raises(
        dao.InvalidValue, match=r"a number must be from -9223372036854775808 to .*, got one of 16610 bits"
    ):
        task_events.get(connection, 10**5000)


WRONG_BY_KIND = {"json": float("nan"), "time": NAIVE, "boolean": None}
WRONG_BY_TYPE = {str: SURROGATE, str | None: SURROGATE, int: -1, int | None: -1}


@pytest.mark.parametrize("table", rows.TABLES, ids=lambda table: table.name)
def test_field_wrong_value_is_an_invalid_value(table):
    """Each field of each record refuses a value as functions do, by `evolve`, by `from_dict`, and when it is made."""
    made = [getattr(testing, name)() for name in testing.__all__ if name.startswith("make_")]
    (record,) = (record for record in made if record.__table__ == table.name)
    types = get_type_hints(type(record))  # those of attrs are texts until cattrs has read them
    for field in attrs.fields(type(record)):
        kind = field.metadata.get("column")
        wrong = WRONG_BY_KIND[kind] if kind else WRONG_BY_TYPE.get(types[field.name], "nonsense")
        if get_origin(types[field.name]) is dict:
            wrong = {"a": wrong}
        if wrong is None:
            continue
        with pytest.raises(dao.InvalidValue):
            attrs.evolve(record, **{field.name: wrong})
        with pytest.raises(dao.InvalidValue):
            type(record).from_dict({**record.to_dict(), field.name: wrong})
    with pytest.raises(dao.InvalidValue, match="has no field 'nonsense'"):
        type(record).from_dict({**record.to_dict(), "nonsense": 1})


def test_value_error_is_raised_only_where_it_is_caught_at_once():
    """Whatever is refused on purpose is one of ours: `except dao.Error` did not catch a limit of 5,000."""
    root = Path(dao.__file__).parent
    raising = [path.name for path in sorted(root.rglob("*.py")) if "raise ValueError" in path.read_text("utf-8")]
    assert raising == ["codec.py", "stored.py"]  # of stored texts: JSON that is none, a time of another zone
