"""msgspec makes records of what it decodes, without a hook, as strict as they are by themselves; so does Litestar."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given

import dao
from dao.testing import make_task, make_tool_execution
from tests import strategies

TITLE = {"title": "a", "task_type": "b"}


@given(record=strategies.records())
def test_record_is_encoded_and_decoded_without_a_hook(record):
    """Msgspec refused the classes, whose default times it could not make."""
    kind = type(record)
    assert msgspec.json.decode(msgspec.json.encode(record), type=kind) == record
    assert msgspec.convert(record.to_dict(), kind) == record
    assert msgspec.convert(msgspec.to_builtins(record), list[kind] | kind) == record
    assert msgspec.json.decode(msgspec.json.encode({"items": [record]}), type=dict[str, list[kind]]) == {
        "items": [record]
    }


def test_decoded_record_is_what_its_class_makes(connection):
    """Defaults, conversions and storage: nobody can tell who has made it."""
    sent = b'{"id": "t", "title": "a", "task_type": "b", "created_at": "2026-01-01T01:00:00.123456+01:00"}'
    task = msgspec.json.decode(sent, type=dao.Task)
    moment = datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)
    assert task == dao.Task(id="t", created_at=moment, **TITLE)
    assert task.run_at == task.updated_at == task.created_at == datetime(2026, 1, 1, 0, 0, 0, 123000, UTC)
    assert (task.config, task.status) == ({}, dao.TaskStatus.PENDING)
    assert attrs.evolve(task, title="b").title == "b"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        task.title = "b"
    dao.tasks.create(connection, task)
    assert dao.tasks.get(connection, "t") == task


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (dao.Task, TITLE | {"title": " "}, "Task.title must not be blank"),
        (dao.Task, TITLE | {"created_at": "2026-01-01T00:00:00"}, "created_at: naive datetime"),
        (dao.Task, TITLE | {"priority": 10}, "Task.priority must be from 0 to 9"),
        (dao.Task, TITLE | {"status": "lost"}, "Invalid enum value 'lost'"),
        (dao.Task, TITLE | {"worker": "w"}, "Task.worker and Task.lease_expires_at must be set together"),
        (dao.Task, TITLE | {"metadata": [float("nan")]}, r"metadata\[0\]: JSON has no nan"),
        (dao.Task, {"title": "a"}, "missing required field `task_type`"),
        (dao.TaskDependency, {"task_id": "a", "depends_on": "a"}, "a task cannot depend on itself"),
        (
            dao.ToolExecution,
            {"tool_name": "a", "input": 1, "status": "completed"},
            "ToolExecution.completed_at must be",
        ),
    ],
    ids=str,
)
def test_decoding_refuses_what_the_record_does(kind, wrong, message):
    """Converters and the rules over several fields were skipped by whoever made it past `__init__`."""
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(wrong, kind)


def test_class_made_of_a_record_keeps_its_rules():
    """One of attrs' own calls the hook that msgspec does, and stays as strict."""

    @attrs.frozen(kw_only=True)
    class Mine(dao.Task):
        colour: str = "red"

    mine = Mine(title="a", task_type="b")
    assert mine.run_at == mine.created_at
    assert mine.colour == "red"
    for make in (lambda values: Mine(**values), lambda values: msgspec.convert(values, Mine)):
        with pytest.raises(ValueError, match=r"Task\.worker and Task\.lease_expires_at must be set together"):
            make(TITLE | {"worker": "w"})
    found = msgspec.convert(TITLE | {"colour": "blue", "created_at": "2026-01-01T01:00:00+01:00"}, Mine)
    assert (found.colour, found.run_at) == ("blue", datetime(2026, 1, 1, tzinfo=UTC))


def test_record_read_from_the_database_is_encoded_as_its_dict_is(connection):
    """Times have their zone, and JSON is JSON, also of columns that nobody has read."""
    execution = make_tool_execution(input={"a": [1, None]}, task_id=None)
    dao.tool_executions.record(connection, execution)
    found: Any = dao.tool_executions.get(connection, execution.id)
    plain = json.loads(msgspec.json.encode(found))
    assert dao.ToolExecution.from_dict(plain) == execution
    assert plain["input"] == {"a": [1, None]}
    assert make_task().to_dict().keys() == json.loads(msgspec.json.encode(make_task())).keys()
