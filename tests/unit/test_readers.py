"""To everybody a record from the database is what a record made in Python is: serialisers, copiers, inspectors."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import pprint
from collections.abc import Callable
from typing import Any

import attrs
import cattrs
import cattrs.preconf.json
import msgspec
import orjson
import pydantic
import pydantic_core
import pytest
import rich.pretty

import dao
from dao import tasks
from dao.engine import fetch
from dao.pooling.figures import Health, PoolStats
from dao.testing import (
    make_configuration,
    make_session,
    make_task,
    make_tool_execution,
    make_workflow,
    make_workflow_task,
)
from dao.tool_executions import ToolStatistics
from tests.strategies import TABLES

RECORDS = [
    make_task(status="failed", metadata={"labels": ["test"]}),
    make_task(metadata=None),
    make_workflow(),
    make_workflow_task(),
    make_tool_execution(status="completed", output=[1, None, "x"]),
    make_session(metadata=[1.5, True]),
    make_configuration(value={"a": {"b": [1]}}),
]

# ---------------------------------------------------------------- readers


def _names(record: Any) -> list[str]:
    return [field.name for field in attrs.fields(type(record))]


def _view(record: Any) -> Any:
    view = msgspec.defstruct("View", [(name, Any) for name in _names(record)])
    return msgspec.structs.asdict(msgspec.convert(record, view, from_attributes=True))


def _model(record: Any) -> Any:
    fields: Any = dict.fromkeys(_names(record), (Any, ...))
    return pydantic.create_model("View", **fields).model_validate(record, from_attributes=True).model_dump()


def _checked(record: Any) -> Any:
    kind = pydantic.TypeAdapter(type(record), config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    return kind.validate_python(record)


def _data(pairs: Any) -> dict[str, Any]:
    return {name: value for name, value in pairs if not callable(value)}


ANY: Any = pydantic.TypeAdapter(Any)
READERS: dict[str, Callable[[Any], Any]] = {
    "msgspec to_builtins": msgspec.to_builtins,
    "msgspec to_builtins within": lambda record: msgspec.to_builtins({"records": [record]}),
    "msgspec to_builtins sorted": lambda record: msgspec.to_builtins(record, order="sorted"),
    "msgspec json": msgspec.json.encode,
    "msgspec json sorted": msgspec.json.Encoder(order="sorted").encode,
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec convert": _view,
    "orjson": orjson.dumps,
    "orjson with default": lambda record: orjson.dumps(record, default=attrs.asdict),
    "pydantic dump_python": ANY.dump_python,
    "pydantic dump_python json": lambda record: ANY.dump_python(record, mode="json"),
    "pydantic dump_json": ANY.dump_json,
    "pydantic to_jsonable": pydantic_core.to_jsonable_python,
    "pydantic to_jsonable fallback": lambda record: pydantic_core.to_jsonable_python(record, fallback=attrs.asdict),
    "pydantic from_attributes": _model,
    "pydantic validate": _checked,
    "cattrs": cattrs.unstructure,
    "cattrs json": lambda record: cattrs.preconf.json.make_converter().dumps(record),
    "attrs asdict": attrs.asdict,
    "attrs astuple": attrs.astuple,
    "attrs evolve": attrs.evolve,
    "attrs fields": lambda record: [getattr(record, name) for name in _names(record)],
    "dataclasses is_dataclass": lambda record: (
        dataclasses.is_dataclass(record),
        dataclasses.is_dataclass(type(record)),
    ),
    "dataclasses asdict": dataclasses.asdict,
    "dataclasses fields": dataclasses.fields,
    "dataclasses replace": dataclasses.replace,
    "json": json.dumps,
    "json with default": lambda record: json.dumps(record, default=lambda value: value.to_dict()),
    "to_dict": lambda record: record.to_dict(),
    "from_dict": lambda record: type(record).from_dict(record.to_dict()),
    **{
        f"pickle {protocol}": lambda record, protocol=protocol: pickle.loads(pickle.dumps(record, protocol))  # noqa: S301
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "reduce": lambda record: record.__reduce_ex__(4),
    "getstate": lambda record: record.__getstate__(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "slots": lambda record: {
        name: getattr(record, name, "unset") for kind in type(record).__mro__ for name in getattr(kind, "__slots__", ())
    },
    "dir": lambda record: _data((name, getattr(record, name)) for name in dir(record)),
    "getmembers": lambda record: _data(inspect.getmembers(record)),
    "vars": vars,
    "repr": repr,
    "pprint": pprint.pformat,
    "rich": rich.pretty.pretty_repr,
    "hash": hash,
    "type": lambda record: (type(record), record.__class__),
    "to_row": lambda record: TABLES[type(record)].to_row(record),
}


def outcome(reader: Callable[[Any], Any], record: Any) -> tuple[Any, ...]:
    """What a reader makes of a record, or what it raises."""
    try:
        found = reader(record)
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
        return type(error), str(error)
    return found, repr(found)


def read_from_row(record: Any, read: int) -> Any:
    """The record as it comes from its row, so many of the columns that are decoded later read since."""
    table = TABLES[type(record)]
    (found,) = table.from_rows([table.to_row(record)])
    for name in found.__later__[:read]:
        getattr(found, name)
    return found


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_from_a_row_is_to_every_reader_what_one_made_in_python_is(record):
    """Nobody can tell where a record comes from: msgspec, which reads slots, found the whole raw row in each column."""
    for name, reader in READERS.items():
        expected = outcome(reader, record)
        for read in range(len(record.__later__) + 1):
            assert outcome(reader, read_from_row(record, read)) == expected, name


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_is_what_msgspec_and_cattrs_make_of_its_fields(record):
    """The readers above find the values: what is equal is not equally wrong."""
    plain = attrs.asdict(record)
    found = msgspec.to_builtins(read_from_row(record, 0))
    assert found == msgspec.to_builtins(plain)
    assert cattrs.unstructure(read_from_row(record, 0)).keys() == plain.keys()


def test_record_with_json_that_cannot_be_read_is_refused_by_msgspec(connection):
    """What an attribute raises msgspec hides: it refuses such a record, where it would write the raw row."""
    task = make_task()
    tasks.create(connection, task)
    connection.pragma("ignore_check_constraints", True)
    fetch(connection, "UPDATE tasks SET metadata = 'a secret'")
    loaded = tasks.get_one(connection, task.id)
    for read in (msgspec.to_builtins, msgspec.json.encode):
        with pytest.raises(TypeError, match="UnreadableRow"):
            read(loaded)
    with pytest.raises(dao.UnreadableRow, match="metadata"):
        loaded.metadata  # noqa: B018 - reading it is what raises
    assert loaded.config == task.config


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_record_class_is_not_filled_past_the_validators_by_pydantic(kind):
    """A library that makes records without `__init__` refuses the class: `dao.pydantic` has models."""
    with pytest.raises(pydantic.errors.PydanticSchemaGenerationError):
        pydantic.TypeAdapter(kind)
    checked = pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    with pytest.raises(pydantic.ValidationError, match="instance"):
        checked.validate_python({})


# ---------------------------------------------------------------- pages and figures


def test_page_unread_pickles_copies_and_has_a_dict(connection):
    """A page is an ordinary object: one that nobody had looked at held a function, which no pickle takes."""
    tasks.create_many(connection, [make_task() for _ in range(3)])
    expected = tasks.find(connection, limit=2)
    assert expected.has_more
    for read in (lambda page: pickle.loads(pickle.dumps(page)), copy.copy, copy.deepcopy, attrs.evolve):  # noqa: S301
        assert read(tasks.find(connection, limit=2)) == expected
    plain = tasks.find(connection, limit=2).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {"items": [task.to_dict() for task in expected.items], "next": expected.next}
    for read in (msgspec.to_builtins, attrs.asdict, cattrs.unstructure):
        assert read(tasks.find(connection, limit=2))["next"] == expected.next
    assert tasks.find(connection, limit=2, after=plain["next"]).next is None


def test_figures_have_dicts_for_json(connection, url):
    """What a pool, a health check and the statistics report goes into a log line or an answer as it is."""
    dao.tool_executions.record(connection, make_tool_execution(status="completed"))
    (statistics,) = dao.tool_executions.statistics(connection)
    with dao.Pool(url) as pool:
        figures = [statistics, pool.stats(), pool.health()]
    assert [type(one) for one in figures] == [ToolStatistics, PoolStats, Health]
    for one in figures:
        assert type(one)(**json.loads(json.dumps(one.to_dict()))) == one
