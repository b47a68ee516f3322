"""Workflows: what each function of `dao.workflows` promises."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import dao
from dao import Workflow, WorkflowStatus, workflows
from tests.listings import assert_lists

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)
FULL = {
    "description": "every night",
    "status": "paused",
    "config": {"retries": 3},
    "metadata": {"tags": ["a", None]},
    "created_at": NOON,
    "updated_at": LATER,
}


def new(**fields) -> Workflow:
    return Workflow(**{"name": "nightly", **fields})


def stored(connection: Any, **fields) -> Workflow:
    workflow = new(**fields)
    workflows.create(connection, workflow)
    return workflow


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


# ---------------------------------------------------------------- create, get


@pytest.mark.parametrize("fields", [{}, FULL], ids=["defaults", "all fields"])
def test_create_new_workflow_reads_back_equal(connection, fields):
    """Storing a record changes nothing in it."""
    workflow = stored(connection, **fields)
    assert workflows.get(connection, workflow.id) == workflow
    assert workflows.get_one(connection, workflow.id) == workflow
    assert workflows.exists(connection, workflow.id) is True


def test_create_existing_id_raises_unique_violation(connection):
    """A second workflow with an id is refused by name, and the first stays as it was."""
    workflow = stored(connection)
    with pytest.raises(dao.UniqueViolation) as caught:
        workflows.create(connection, new(id=workflow.id, name="another"))
    assert (caught.value.table, caught.value.columns) == ("workflows", ("id",))
    assert list(workflows.iter_all(connection)) == [workflow]


def test_create_many_duplicate_id_writes_none(connection):
    """All workflows of a batch are stored, or none of them."""
    batch = [new(), new(), new()]
    workflows.create_many(connection, iter(batch))
    assert set(workflows.iter_all(connection)) == set(batch)
    with pytest.raises(dao.UniqueViolation):
        workflows.create_many(connection, [new(), batch[0], new()])
    assert set(workflows.iter_all(connection)) == set(batch)


def test_get_unknown_id_finds_nothing(connection):
    """`get` returns None, `exists` False, and `get_one` says what is missing where."""
    stored(connection)
    assert workflows.get(connection, "nobody") is None
    assert workflows.exists(connection, "nobody") is False
    with pytest.raises(dao.NotFound) as caught:
        workflows.get_one(connection, "nobody")
    assert (caught.value.table, caught.value.key) == ("workflows", "nobody")


# ---------------------------------------------------------------- update, set_status


def test_update_every_field_is_stored(connection):
    """All fields but the id and `created_at` are written; `updated_at` moves on and is returned."""
    before, other = stored(connection, created_at=NOON), stored(connection)
    changes = {key: value for key, value in FULL.items() if not key.endswith("_at")} | {"name": "weekly"}
    after = workflows.update(connection, attrs.evolve(before, **changes, created_at=LATER))
    assert after == attrs.evolve(before, **changes, updated_at=after.updated_at)
    assert after.updated_at > before.updated_at
    assert workflows.get(connection, before.id) == after
    assert workflows.get(connection, other.id) == other


def test_update_unknown_id_raises_not_found(connection):
    """A workflow that was never stored is not stored by an update."""
    workflow = new()
    with pytest.raises(dao.NotFound) as caught:
        workflows.update(connection, workflow)
    assert (caught.value.table, caught.value.key) == ("workflows", workflow.id)
    assert workflows.count(connection) == 0


def test_update_changed_meanwhile_raises_stale_record(connection):
    """Who read an older version is refused, and the newer one stays."""
    old = stored(connection)
    newer = workflows.set_status(connection, old.id, "active")
    with pytest.raises(dao.StaleRecord) as caught:
        workflows.update(connection, attrs.evolve(old, name="second"))
    assert (caught.value.table, caught.value.key) == ("workflows", old.id)
    assert workflows.get(connection, old.id) == newer


@pytest.mark.parametrize("before", WorkflowStatus)
def test_set_status_any_to_any_changes_only_the_status(connection, before):
    """Any status may follow any; `updated_at` moves on, and nothing else."""
    other = stored(connection)
    for after, spell in itertools.product(WorkflowStatus, (WorkflowStatus, str)):
        workflow = stored(connection, **(FULL | {"status": before}))
        moved = workflows.set_status(connection, workflow.id, spell(after))
        assert moved == attrs.evolve(workflow, status=after, updated_at=moved.updated_at)
        assert moved.updated_at > workflow.updated_at
        assert workflows.get(connection, workflow.id) == moved
        assert workflows.get(connection, other.id) == other


@pytest.mark.parametrize(("id", "status", "error"), [("x", "active", dao.NotFound), ("x", "running", ValueError)])
def test_set_status_unknown_id_or_status_is_refused(connection, id, status, error):
    """An unknown id is not found, an unknown status means nothing."""
    with pytest.raises(error):
        workflows.set_status(connection, id, status)


# ---------------------------------------------------------------- delete


def test_delete_takes_links_along_and_keeps_tasks(connection):
    """A workflow goes with its links; its tasks and the links of others stay. A second call finds nothing."""
    workflow, other = stored(connection), stored(connection)
    task = dao.Task(title="a", task_type="agent")
    dao.tasks.create(connection, task)
    for owner in (workflow, other):
        dao.workflow_tasks.add(connection, workflow_id=owner.id, task_id=task.id)
    assert workflows.delete(connection, workflow.id) is True
    assert workflows.delete(connection, workflow.id) is False
    assert dao.workflow_tasks.count(connection, workflow.id) == 0
    assert dao.workflow_tasks.list_workflows(connection, task.id) == [other]
    assert dao.tasks.get(connection, task.id) == task


# ---------------------------------------------------------------- find, iter_all, count, count_by_status


@pytest.fixture
def shelf(connection):
    """Five workflows, a to e, a minute apart, `d` and `e` at the same one; stored in no order."""
    rows = [
        new(name="a", created_at=at(1), status="draft"),
        new(name="b", created_at=at(2), status="active"),
        new(name="c", created_at=at(3), status="draft"),
        new(name="d", created_at=at(4), status="archived", id="1"),
        new(name="e", created_at=at(4), status="draft", id="2"),
    ]
    workflows.create_many(connection, [rows[number] for number in (3, 0, 4, 2, 1)])
    return connection


QUERIES = [
    ({}, "edcba"),
    ({"status": "draft"}, "eca"),
    ({"status": [WorkflowStatus.ACTIVE, "archived"]}, "db"),
    ({"status": WorkflowStatus}, "edcba"),
    ({"status": []}, ""),
    ({"status": "paused"}, ""),
    ({"since": at(3)}, "edc"),
    ({"until": at(3)}, "ba"),
    ({"since": at(2), "until": at(4), "status": ["draft", "active"]}, "cb"),
    ({"since": at(3) + MILLISECOND, "until": at(4) + MILLISECOND}, "ed"),
    ({"since": at(3), "until": at(3)}, ""),
]


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
def test_find_filters_return_matching_workflows_in_order(shelf, oldest_first):
    """Pages, `iter_all` and `count` agree on what matches; the order is by creation time and then by id."""
    for filters, newest_first in QUERIES:
        assert_lists(workflows, shelf, filters, "name", newest_first, oldest_first=oldest_first)


@pytest.mark.parametrize("function", [workflows.find, workflows.iter_all, workflows.count])
def test_find_unknown_status_raises_value_error(connection, function):
    """A status that does not exist is refused, not taken for one without matches."""
    with pytest.raises(ValueError, match="WorkflowStatus"):
        list(function(connection, status="running"))


@pytest.mark.parametrize("limit", [0, 1001, True])
def test_find_limit_out_of_range_raises_value_error(connection, limit):
    """A limit is a whole number from 1 to 1000."""
    with pytest.raises(ValueError, match="limit"):
        workflows.find(connection, limit=limit)


@pytest.mark.parametrize("change", [{"status": "draft"}, {"oldest_first": True}, {"until": at(9)}], ids=str)
def test_find_cursor_of_another_query_raises_invalid_cursor(shelf, change):
    """A cursor leads on in the query that gave it and in no other."""
    cursor = workflows.find(shelf, limit=1).next
    with pytest.raises(dao.InvalidCursor):
        workflows.find(shelf, **change, after=cursor)


def test_find_cursor_of_another_table_raises_invalid_cursor(shelf):
    """A cursor of tasks leads nowhere among workflows."""
    dao.tasks.create_many(shelf, [dao.Task(title="a", task_type="agent") for _ in range(2)])
    with pytest.raises(dao.InvalidCursor):
        workflows.find(shelf, after=dao.tasks.find(shelf, limit=1).next)


def test_iter_all_more_than_a_page_yields_each_once(connection):
    """All pages are walked, in order."""
    workflows.create_many(connection, [new(id=f"{number:04}", created_at=NOON) for number in range(1001)])
    seen = [int(workflow.id) for workflow in workflows.iter_all(connection, status=iter(["draft"]), oldest_first=True)]
    assert seen == list(range(1001))


def test_count_by_status_names_every_status(shelf):
    """Each status has its number, in the order of the enum, with zero where there is none."""
    expected = dict(zip(WorkflowStatus, [3, 1, 0, 1], strict=True))
    assert list(workflows.count_by_status(shelf).items()) == list(expected.items())
