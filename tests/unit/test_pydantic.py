"""`dao.pydantic`: models made of the records, as strict as these; and FastAPI, which takes and returns them."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import json
import sys
from typing import Any

import attrs
import fastapi
import jsonschema
import pydantic
import pytest
from hypothesis import given

import dao
from dao import pydantic as models
from dao import rows, tasks
from dao.testing import make_task
from tests import strategies

RECORDS = [
    dao.Configuration,
    dao.Session,
    dao.Task,
    dao.TaskDependency,
    dao.TaskEvent,
    dao.ToolExecution,
    dao.Workflow,
    dao.WorkflowTask,
]
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
every_creation = pytest.mark.parametrize(
    "record", [record for record in RECORDS if record is not dao.TaskEvent], ids=lambda record: record.__name__
)


def model_of(record: type[Any], kind: str = "Model") -> Any:
    """Return the model of a record's class."""
    return getattr(models, f"{record.__name__}{kind}")


# ---------------------------------------------------------------- models


@given(record=strategies.records())
def test_model_of_a_record_is_that_record_in_each_form(record):
    """From the record, from its JSON, and back: nothing is lost, and the JSON is that of `to_dict`."""
    model = model_of(type(record)).model_validate(record)
    assert model.to_record() == record
    text = model.model_dump_json()
    assert json.loads(text) == record.to_dict()
    assert model_of(type(record)).model_validate_json(text) == model
    assert model_of(type(record))(**{name: getattr(record, name) for name in record.to_dict()}).to_record() == record


def test_models_are_there_for_each_table():
    """A new record has its models, and they are offered."""
    assert {record.__table__ for record in RECORDS} == {table.name for table in rows.TABLES}
    made = {f"{record.__name__}{kind}" for record in RECORDS for kind in ("Model", "Create")}
    assert {*models.__all__} == made - {"TaskEventCreate"} | {"RecordModel", "PageModel"}
    with pytest.raises(AttributeError, match="no attribute 'TaskEventCreate'"):
        models.TaskEventCreate  # noqa: B018 - nobody but the triggers makes one


@every_record
def test_model_has_the_fields_of_the_record_all_of_them_required(record):
    """A new column is in the model by itself, and a client may rely on each."""
    schema = model_of(record).model_json_schema()
    names = [field.name for field in attrs.fields(record)]
    assert [*schema["properties"]] == schema["required"] == names
    assert schema["title"] == f"{record.__name__}Model"
    assert schema["description"].startswith(record.__doc__.partition(".")[0])


def test_schema_says_what_the_record_refuses():
    """Enums, formats, bounds, patterns: a client is told before it sends; `jsonschema` judges as the record does."""
    schema = models.TaskModel.model_json_schema()
    found = schema["properties"]
    assert schema["$defs"]["TaskStatus"]["enum"] == [status.value for status in dao.TaskStatus]
    assert found["created_at"] == {"format": "date-time", "title": "Created At", "type": "string"}
    assert found["priority"] == {"minimum": 0, "maximum": 9, "title": "Priority", "type": "integer"}
    assert found["retry_delay_ms"]["maximum"] == 86_400_000
    assert found["dedup_key"]["anyOf"][0] == {"minLength": 1, "pattern": r"^[^\x00]+$", "type": "string"}
    assert found["config"]["type"] == "object"
    valid = make_task(description="a\nb", dedup_key="k").to_dict()
    jsonschema.validate(valid, schema)
    for wrong in ({"title": " \n"}, {"title": ""}, {"dedup_key": ""}, {"status": "lost"}, {"priority": 10}, {"new": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(valid | wrong, schema)
        with pytest.raises((dao.InvalidValue, TypeError)):
            dao.Task.from_dict(valid | wrong)
    description = found["description"]["anyOf"][0]["pattern"]
    assert [jsonschema.Draft202012Validator({"pattern": description}).is_valid(text) for text in ("", "a\n", "\0")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"title": "\x1c"}, "Task.title must not be blank"),
        ({"title": "\ud800"}, "unicode"),
        ({"created_at": "2026-01-01T00:00:00"}, "timezone"),
        ({"created_at": 5}, "expected an ISO 8601 time, got 5"),
        ({"created_at": "5"}, "Invalid isoformat string: '5'"),
        ({"priority": True}, "valid integer"),
        ({"priority": "5"}, "valid integer"),
        ({"status": "lost"}, "'pending', 'running'"),
        ({"worker": "w"}, "Task.worker and Task.lease_expires_at must be set together"),
        ({"config": {"rate": float("nan")}}, "config.rate: JSON has no nan"),
        ({"metadata": (1, 2)}, "metadata: .* is not plain JSON"),
        ({"retries": 2**63}, "less than or equal"),
        ({"nonsense": 1}, "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_model_refuses_what_the_record_does(wrong, message):
    """The rules that no schema can tell hold, too, and all of them come as pydantic's own error, which is a 422.

    A number was taken for a time, and `true` and a text for a number.
    """
    with pytest.raises(pydantic.ValidationError, match=message):
        models.TaskModel.model_validate(make_task().to_dict() | wrong)


# ---------------------------------------------------------------- what makes a record


@every_creation
def test_creation_needs_what_has_no_default_and_takes_what_the_creator_decides(record):
    """A client could set a new task running, or give itself the lease: what the database keeps is not there."""
    model = model_of(record, "Create")
    fields = attrs.fields_dict(record)
    left_out = fields.keys() - model.model_fields.keys()
    assert "updated_at" in left_out or "updated_at" not in fields
    assert all(fields[name].default is not attrs.NOTHING for name in left_out)
    required = {name for name, field in fields.items() if field.default is attrs.NOTHING}
    assert {*model.model_json_schema().get("required", [])} == required
    assert not {"status", "attempt", "worker", "lease_expires_at"} & model.model_fields.keys() or record is not dao.Task


def test_creation_makes_one_record_with_times_that_agree():
    """Id and times are made once, with the model, so that a repeated `to_record` is the same task."""
    new = models.TaskCreate(title="a", task_type="b", config={"a": [1]})
    task = new.to_record()
    assert (
        new.to_record()
        == task
        == dao.Task(id=task.id, created_at=task.created_at, title="a", task_type="b", config={"a": [1]})
    )
    given_time = models.TaskCreate.model_validate_json(
        '{"title": "a", "task_type": "b", "created_at": "2026-01-01T01:00:00.123456+01:00", "id": "mine"}'
    ).to_record()
    assert (given_time.id, given_time.to_dict()["run_at"]) == ("mine", "2026-01-01T00:00:00.123Z")
    with pytest.raises(pydantic.ValidationError, match="Extra inputs are not permitted"):
        models.TaskCreate(title="a", task_type="b", status="running")


def test_subclass_has_fields_of_its_own_that_are_no_part_of_the_record():
    """A request that says more than the record holds was refused, whatever it said."""

    class Order(models.TaskCreate):
        depends_on: tuple[str, ...] = ()

    order = Order.model_validate({"title": "a", "task_type": "b", "depends_on": ["c"]})
    assert (order.depends_on, order.to_record().title) == (("c",), "a")


# ---------------------------------------------------------------- FastAPI


def call(app: fastapi.FastAPI, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send a request to an application, and return the status and the JSON of its answer."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:]))


def test_fastapi_endpoints_take_and_return_records(url):
    """An endpoint returns a record or a page, whose schema is shown; a request makes one; wrong values are a 422."""
    app = fastapi.FastAPI()
    with dao.Pool(url) as pool:

        @app.post("/tasks", response_model=models.TaskModel, status_code=201)
        def create(new: models.TaskCreate) -> dao.Task:
            task = new.to_record()
            pool.run(tasks.create, task)
            return task

        @app.get("/tasks", response_model=models.PageModel[models.TaskModel])
        def find(after: str | None = None) -> dao.Page[dao.Task]:
            return pool.run(tasks.find, limit=1, after=after)

        status, first = call(app, "POST", "/tasks", {"title": "a", "task_type": "b"})
        assert status == 201
        stored = pool.run(tasks.get_one, first["id"])
        assert first == stored.to_dict()
        call(app, "POST", "/tasks", {"title": "b", "task_type": "b"})
        status, page = call(app, "GET", "/tasks")
        assert (status, page) == (200, pool.run(tasks.find, limit=1).to_dict())
        assert call(app, "GET", f"/tasks?after={page['next']}") == (200, {"items": [first], "next": None})
        status, refused = call(app, "POST", "/tasks", {"title": "\x1c", "task_type": "b"})
        assert status == 422
        assert "Task.title must not be blank" in json.dumps(refused)
        _, schema = call(app, "GET", "/openapi.json")
        assert {"TaskModel", "TaskCreate", "TaskStatus", "PageModel_TaskModel_"} <= schema["components"][
            "schemas"
        ].keys()


def test_import_without_pydantic_says_what_to_install(monkeypatch):
    """The extra is named, and no record needs it."""
    before = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pydantic":
            raise ModuleNotFoundError(name)
        return before(name, *arguments, **options)

    monkeypatch.setitem(sys.modules, "dao.pydantic", models)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "dao.pydantic")
    with pytest.raises(ImportError, match=r"pip install 'orchestrator-dao\[pydantic\]'"):
        importlib.import_module("dao.pydantic")
