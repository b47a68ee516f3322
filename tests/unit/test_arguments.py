"""Arguments that are something else than they should be: each public function says so, and changes nothing."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import dao
from dao import aio, migrate, tasks, testing, tool_executions, workflows
from tests.plans import MODULES

#: What a parameter of this name is given, unless it has a default.
GIVEN: dict[str, Any] = {
    "id": "a",
    "key": "a",
    "value": 1,
    "values": {"a": 1},
    "status": "failed",
    "task": testing.make_task(),
    "tasks": [testing.make_task()],
    "workflow": testing.make_workflow(),
    "workflows": [testing.make_workflow()],
    "execution": testing.make_tool_execution(),
    "workflow_id": "a",
    "task_id": "a",
    "task_ids": ["a"],
    "depends_on": ["b"],
    "sequence": 1,
    "seq": 1,
    "seqs": [1],
    "keys": [],
    "name": "a",
    "worker": "a",
    "lease": timedelta(1),
    "before": datetime(2026, 1, 1, tzinfo=UTC),
    "since": datetime(2026, 1, 1, tzinfo=UTC),
    "tool_name": "a",
    "input": {},
    "error": "a",
    "client_id": "a",
    "moment": datetime(2026, 1, 1, tzinfo=UTC),
    "older_than": timedelta(1),
    "folder": "nowhere",
    "ids": [],
    "to": "a",
    "tool": "sqlx",
    "outcome": "applied",
}
RECORDS = {"task", "tasks", "workflow", "workflows", "execution"}
EXPECTED = r"^expected (a \w+( or its id)?|the Task that `claim` returned), got {}$"


def public(*modules: types.ModuleType, taking: set[str]) -> list[Any]:
    """Return the public functions of modules that take one of the parameters, each with its name for pytest."""
    return [
        pytest.param(function, id=f"{module.__name__}.{name}")
        for module in modules
        for name in module.__all__
        if inspect.isfunction(function := getattr(module, name))
        and not taking.isdisjoint(inspect.signature(function).parameters)
    ]


def called(function: Callable[..., Any], **instead: object) -> object:
    """Call a function with what it needs, and read what it yields."""
    positional, named = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        if name not in instead and optional:
            continue
        value = instead[name] if name in instead else GIVEN[name]
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    result = function(*positional, **named)
    return list(result) if isinstance(result, Iterator) else result


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_function_of_a_table_without_a_connection_is_refused(url, database, module):
    """A URL, a pool or anything else in the place of the connection was an AttributeError deep inside."""
    before = database.read_bytes()
    pool = dao.Pool(url)
    for (function,) in (param.values for param in public(module, taking={"connection"})):
        for given in (url, dao.url.parse(url), Path(database), None, 5, pool, aio.Pool(url)):
            with pytest.raises(TypeError, match=f"^expected a connection, got {type(given).__name__}: (take|open) one"):
                called(function, connection=given, **({"status": "draft"} if function is workflows.set_status else {}))
    assert database.read_bytes() == before


@pytest.mark.parametrize("function", public(*MODULES.values(), taking=RECORDS))
def test_function_of_a_table_with_another_record_is_refused(connection, function):
    """A dict or another table's record in the place of a record was an AttributeError of a private name."""
    parameters = inspect.signature(function).parameters
    names = RECORDS.intersection(parameters)
    for name in names:
        for given in ({"id": "a"}, "a", 5, None, testing.make_session(), testing.make_workflow_task(), connection):
            if isinstance(given, str) and name == "execution" and function is not tool_executions.record:
                continue  # that may be an id
            if given is None and parameters[name].default is None:
                continue
            with pytest.raises(TypeError, match=EXPECTED.format(type(given).__name__)):
                called(function, **{"connection": connection, name: [given] if name.endswith("s") else given})
    assert all(tasks.count(connection) == 0 for _ in names)


# ---------------------------------------------------------------- migrations


@pytest.mark.parametrize("function", public(migrate, taking={"target"}))
def test_function_of_migrations_with_another_target_is_refused(function):
    """Whoever takes a URL or a connection says so when given anything else."""
    for given in (5, b"sqlite://", Path("a.db"), ["a.db"]):
        with pytest.raises(TypeError, match=r"a database URL is text, such as 'sqlite:///orchestrator.db', got"):
            called(function, target=given)


@pytest.mark.parametrize("function", public(migrate, taking={"migrations"}))
def test_function_of_migrations_with_other_migrations_is_refused(tmp_path, function):
    """Whoever takes migrations takes a folder or those that were loaded, and says so when given anything else."""
    migrate.apply(f"sqlite:///{tmp_path}/a.db", steps=1)
    target = {"target": f"sqlite:///{tmp_path}/a.db"} if "target" in inspect.signature(function).parameters else {}
    for given in (5, ["a.sql"], {"a": "b"}):
        with pytest.raises(TypeError, match="migrations are a folder, or what `load` returned, got"):
            called(function, **target, migrations=given)


def test_assert_current_takes_a_url_as_all_the_others_do(tmp_path):
    """It took a connection only, though the module says that all take both; a URL was an AttributeError."""
    url = f"sqlite:///{tmp_path}/a.db"
    with pytest.raises(dao.SchemaOutOfDate, match="run `dao migrate`"):
        migrate.assert_current(url)
    assert not (tmp_path / "a.db").exists()
    migrate.apply(url)
    migrate.assert_current(url)
    migrate.assert_current(dao.url.parse(url))


def test_dump_takes_a_folder_as_all_the_others_do():
    """It took loaded migrations only; a folder's name was read letter by letter."""
    folder = migrate.default_folder()
    assert migrate.dump() == migrate.dump(folder) == migrate.dump(str(folder)) == migrate.dump(migrate.load(folder))
