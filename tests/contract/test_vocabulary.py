"""The words of the table modules: a name means the same in each of them, and takes its arguments in the same way."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

import dao
from dao import (
    configurations,
    sessions,
    task_dependencies,
    task_events,
    tasks,
    tool_executions,
    workflow_tasks,
    workflows,
)
from dao.testing import make_session, make_task, make_tool_execution, make_workflow
from tests.plans import MODULES

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
every_module = pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.__name__)
# a value, its type and its default are what `get` is about, as for a dict's
POSITIONAL_OPTIONS = {
    ("configurations", "get"): ["type", "default"],
    ("configurations", "get_one"): ["type"],
    ("configurations", "get_all"): ["prefix"],
}


def functions(module: ModuleType) -> dict[str, Any]:
    """Return the public functions of a module by name."""
    return {name: found for name in module.__all__ if inspect.isfunction(found := getattr(module, name))}


@every_module
def test_module_has_get_get_one_get_many_and_exists(module):
    """Whoever knows one module finds the four in any other."""
    assert {"get", "get_one", "get_many", "exists"} <= functions(module).keys()


@every_module
def test_function_returns_what_its_name_says(module):
    """`find` returns a page, `list_…` a list, `iter_…` an iterator, `count…` numbers, `exists` and `delete` a bool."""
    returned = {
        "find": dao.Page,
        "list": list,
        "get_many": dict,
        "iter": Iterator,
        "exists": bool,
        "delete": bool,
        "remove": bool,
        "create": type(None),
    }
    for name, function in functions(module).items():
        kind = typing.get_type_hints(function)["return"]
        expected = returned.get(name if name in returned else name.partition("_")[0])
        if expected is not None and name not in {"delete_before", "delete_stale"}:
            assert (typing.get_origin(kind) or kind) is expected, name


@every_module
def test_function_takes_connection_first_and_options_by_keyword_only(module):
    """The connection, then ids, records and values by position; whatever has a default by keyword only."""
    for name, function in functions(module).items():
        first, *rest = inspect.signature(function).parameters.values()
        assert first.name == "connection"
        by_position = [one.name for one in rest if one.kind is not one.KEYWORD_ONLY and one.default is not one.empty]
        assert by_position == POSITIONAL_OPTIONS.get((module.__name__.partition(".")[2], name), []), name
        if "now" in inspect.signature(function).parameters:
            assert typing.get_type_hints(function)["now"] == datetime | None


@pytest.fixture
def keys(connection) -> dict[ModuleType, tuple[Any, ...]]:
    """The key of a row in each table."""
    tasks.create(connection, make_task(id="t"))
    workflows.create(connection, make_workflow(id="w"))
    workflow_tasks.add(connection, "w", "t")
    tasks.create(connection, make_task(id="t2"))
    task_dependencies.add(connection, "t", "t2")
    (event,) = task_events.list_of(connection, "t2")
    tool_executions.record(connection, make_tool_execution(id="e"))
    session = sessions.open(connection, client_id=make_session().client_id)
    configurations.set(connection, "c", {"a": 1})
    return {
        tasks: ("t",),
        task_dependencies: ("t", "t2"),
        task_events: (event.seq,),
        workflows: ("w",),
        workflow_tasks: ("w", "t"),
        tool_executions: ("e",),
        sessions: (session.id,),
        configurations: ("c",),
    }


@every_module
def test_get_get_one_and_exists_agree(connection, keys, module):
    """What is there is found by all three; what is not is None, an error with table and key, and False."""
    key = keys[module]
    assert module.get_one(connection, *key) == module.get(connection, *key) is not None
    assert module.exists(connection, *key)
    unknown = tuple(part + 1000 if isinstance(part, int) else "unknown" for part in key)
    assert module.get(connection, *unknown) is None
    assert module.exists(connection, *unknown) is False
    with pytest.raises(dao.NotFound, match="no row has the key") as caught:
        module.get_one(connection, *unknown)
    assert caught.value.table == module.__name__.partition(".")[2]
    assert caught.value.key == (unknown if len(unknown) > 1 else unknown[0])


def test_configurations_get_one_null_is_a_value(connection):
    """A stored None is there, and is returned as its type says."""
    configurations.set(connection, "nothing", None)
    assert configurations.get_one(connection, "nothing") is None
    with pytest.raises(dao.ConfigurationTypeError):
        configurations.get_one(connection, "nothing", int)


def test_add_with_now_is_a_link_of_that_time(connection, keys):
    """A test can hold the clock still."""
    tasks.create(connection, make_task(id="another"))
    link = workflow_tasks.add(connection, "w", "another", now=NOON)
    assert link.created_at == link.updated_at == NOON
    assert workflow_tasks.get_one(connection, "w", "another") == link


@pytest.mark.parametrize(
    ("old", "new", "options"),
    [
        (sessions.find_stale, sessions.list_stale, {"older_than": -timedelta(days=1)}),
        (tool_executions.recent_errors, tool_executions.list_errors, {"tool_name": "grep", "limit": 1}),
    ],
    ids=["find_stale", "recent_errors"],
)
def test_old_name_warns_and_does_what_the_new_one_does(connection, keys, old, new, options):
    """Programs written for 0.1 go on, and are told where the function went; the name is offered to nobody else."""
    for _ in range(2):
        tool_executions.record(connection, make_tool_execution(tool_name="grep", status="failed"))
    with pytest.warns(DeprecationWarning, match=f"{old.__name__} is now .*{new.__name__}") as caught:
        found = old(connection, **options)
    assert caught[0].filename == __file__
    assert found == new(connection, **options) != []
    assert old.__name__ not in sys.modules[old.__module__].__all__
