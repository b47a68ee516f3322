"""Workflow tasks: what each function of `dao.workflow_tasks` promises."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

import dao
from dao import Task, Workflow, workflow_tasks
from dao.engine import execute
from tests.engines import CONSTRAINT_ERRORS, scramble

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

W, V, U = "workflow", "another workflow", "yet another workflow"
# not in the order of their ids, nor against it
CREATED = {
    W: datetime(2026, 1, 1, tzinfo=UTC),
    V: datetime(2025, 1, 1, tzinfo=UTC),
    U: datetime(2024, 1, 1, tzinfo=UTC),
}


@pytest.fixture
def connection(connection):
    """A connection to a database with three workflows and the tasks a to e."""
    dao.workflows.create_many(
        connection, [Workflow(id=id, name=id, created_at=moment) for id, moment in CREATED.items()]
    )
    dao.tasks.create_many(connection, [Task(id=id, title=id, task_type="agent") for id in "abcde"])
    return connection


def put(connection: Any, *places: tuple[str, int], workflow_id: str = W) -> None:
    """Put tasks at sequences, as another program might: nothing moves out of the way."""
    for task_id, sequence in places:
        execute(
            connection,
            "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ($1, $2, $3)",
            (workflow_id, task_id, sequence),
        )


def places(connection: Any, workflow_id: str = W) -> list[tuple[str, int]]:
    return [(task.id, link.sequence) for task, link in workflow_tasks.list_tasks(connection, workflow_id)]


# ---------------------------------------------------------------- add


def test_add_without_sequence_goes_to_the_end(connection):
    """The first task gets sequence 0, the next the one after the highest, gaps or not."""
    for task_id in "ab":
        workflow_tasks.add(connection, workflow_id=W, task_id=task_id)
    assert places(connection) == [("a", 0), ("b", 1)]
    workflow_tasks.add(connection, workflow_id=W, task_id="c", sequence=7)
    workflow_tasks.add(connection, workflow_id=W, task_id="d")
    workflow_tasks.add(connection, workflow_id=V, task_id="d")
    assert places(connection) == [("a", 0), ("b", 1), ("c", 7), ("d", 8)]
    assert places(connection, V) == [("d", 0)]


@pytest.mark.parametrize(
    ("before", "sequence", "after"),
    [
        ([("a", 0), ("b", 1), ("c", 2)], 0, [("e", 0), ("a", 1), ("b", 2), ("c", 3)]),
        ([("a", 0), ("b", 1), ("c", 2)], 1, [("a", 0), ("e", 1), ("b", 2), ("c", 3)]),
        ([("a", 0), ("b", 1), ("c", 2)], 3, [("a", 0), ("b", 1), ("c", 2), ("e", 3)]),
        ([("a", 0), ("b", 5), ("c", 6)], 3, [("a", 0), ("e", 3), ("b", 5), ("c", 6)]),
        ([("a", 0), ("b", 5), ("c", 9)], 5, [("a", 0), ("e", 5), ("b", 6), ("c", 10)]),
    ],
    ids=["front", "middle", "end", "gap", "taken after a gap"],
)
def test_add_at_sequence_moves_the_rest_only_if_it_is_taken(connection, before, sequence, after):
    """On a taken sequence it and all that come after move on by one; a free one is simply taken."""
    put(connection, *before)
    put(connection, ("a", 0), ("b", 1), workflow_id=V)
    workflow_tasks.add(connection, workflow_id=W, task_id="e", sequence=sequence)
    assert places(connection) == after
    assert places(connection, V) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("config", [None, {}, {"retries": 3, "deep": {"a": [None]}}], ids=str)
def test_add_returns_the_link_that_is_stored(connection, config):
    """The returned link is the stored one, config included."""
    link = workflow_tasks.add(connection, workflow_id=W, task_id="a", config=config)
    assert (link.workflow_id, link.task_id, link.sequence, link.config) == (W, "a", 0, config or {})
    assert workflow_tasks.get(connection, workflow_id=W, task_id="a") == link


@pytest.mark.parametrize(
    ("workflow_id", "task_id", "column", "sequence"),
    [("nobody", "a", "workflow_id", None), (W, "nobody", "task_id", None), (W, "nobody", "task_id", 0)],
)
def test_add_unknown_parent_raises_foreign_key_violation(connection, workflow_id, task_id, column, sequence):
    """The error says which of the two is missing, and no other link has moved."""
    put(connection, ("b", 0))
    with pytest.raises(dao.ForeignKeyViolation, match="'nobody'") as caught:
        workflow_tasks.add(connection, workflow_id=workflow_id, task_id=task_id, sequence=sequence)
    assert caught.value.table == "workflow_tasks"
    assert caught.value.columns == (column,)
    assert caught.value.constraint == f"workflow_tasks_{column}_fkey"
    assert isinstance(caught.value.__cause__, CONSTRAINT_ERRORS)
    assert places(connection) == [("b", 0)]


def test_add_task_that_is_in_already_raises_unique_violation(connection):
    """A workflow has a task once; the attempt moves no other."""
    put(connection, ("a", 0), ("b", 1))
    with pytest.raises(dao.UniqueViolation) as caught:
        workflow_tasks.add(connection, workflow_id=W, task_id="b", sequence=0)
    assert (caught.value.table, caught.value.columns) == ("workflow_tasks", ("workflow_id", "task_id"))
    assert places(connection) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("sequence", [-1, -(2**63), 2**63])
def test_add_or_move_sequence_out_of_range_raises_value_error(connection, sequence):
    """There is no place before 0, and none past what the database stores."""
    put(connection, ("a", 0))
    with pytest.raises(ValueError, match="sequence"):
        workflow_tasks.add(connection, workflow_id=W, task_id="b", sequence=sequence)
    with pytest.raises(ValueError, match="sequence"):
        workflow_tasks.move(connection, workflow_id=W, task_id="a", sequence=sequence)
    assert places(connection) == [("a", 0)]


def test_add_or_move_no_room_after_the_last_sequence_raises_value_error(connection):
    """Where a task has the very last sequence nothing can move on; that task itself can, and then there is room."""
    last = 2**63 - 1
    put(connection, ("a", 0), ("b", last))
    for change in (
        lambda: workflow_tasks.add(connection, workflow_id=W, task_id="c", sequence=0),
        lambda: workflow_tasks.add(connection, workflow_id=W, task_id="c"),
        lambda: workflow_tasks.move(connection, workflow_id=W, task_id="a", sequence=last),
    ):
        with pytest.raises(ValueError, match=r"no room|sequence"):
            change()
    assert places(connection) == [("a", 0), ("b", last)]
    workflow_tasks.move(connection, workflow_id=W, task_id="b", sequence=0)
    assert places(connection) == [("b", 0), ("a", 1)]


# ---------------------------------------------------------------- get, remove


def test_get_no_such_link_returns_none(connection):
    """A link is found by both of its keys only."""
    put(connection, ("a", 0))
    assert workflow_tasks.get(connection, workflow_id=W, task_id="b") is None
    assert workflow_tasks.get(connection, workflow_id=V, task_id="a") is None


def test_remove_task_keeps_it_and_the_others_places(connection):
    """The link goes, the task stays, a gap remains; a second call finds nothing."""
    put(connection, ("a", 0), ("b", 1), ("c", 2))
    put(connection, ("b", 0), workflow_id=V)
    assert workflow_tasks.remove(connection, workflow_id=W, task_id="b") is True
    assert workflow_tasks.remove(connection, workflow_id=W, task_id="b") is False
    assert places(connection) == [("a", 0), ("c", 2)]
    assert places(connection, V) == [("b", 0)]
    assert dao.tasks.exists(connection, "b")


# ---------------------------------------------------------------- move


@pytest.mark.parametrize(
    ("task_id", "sequence", "after"),
    [
        ("c", 0, [("c", 0), ("a", 1), ("b", 2), ("d", 10)]),
        ("a", 9, [("b", 1), ("a", 9), ("d", 10)]),
        ("a", 5, [("b", 1), ("a", 5), ("d", 9)]),
        ("b", 1, [("a", 0), ("b", 1), ("d", 9)]),
        ("a", 1, [("a", 1), ("b", 2), ("d", 10)]),
        ("a", 2**63 - 1, [("b", 1), ("d", 9), ("a", 2**63 - 1)]),
    ],
    ids=["to the front", "to the last's place", "into a gap", "to where it is", "onto the next", "to the largest"],
)
def test_move_to_sequence_moves_the_rest_only_if_it_is_taken(connection, task_id, sequence, after):
    """The task gets the sequence; another that has it, and all after that, move on by one."""
    put(connection, ("a", 0), ("b", 1), ("d", 9))
    if task_id == "c":
        put(connection, ("c", 2))
    before = workflow_tasks.get(connection, workflow_id=W, task_id=task_id)
    link = workflow_tasks.move(connection, workflow_id=W, task_id=task_id, sequence=sequence)
    assert link == attrs.evolve(before, sequence=sequence, updated_at=link.updated_at)
    assert link == workflow_tasks.get(connection, workflow_id=W, task_id=task_id)
    assert link.updated_at > before.updated_at
    assert places(connection) == after


@pytest.mark.parametrize(("workflow_id", "task_id"), [(W, "nobody"), (W, "b"), (V, "a"), ("nobody", "a")])
def test_move_task_that_is_not_in_raises_not_found(connection, workflow_id, task_id):
    """The error names both keys, and nothing makes room."""
    put(connection, ("a", 0))
    with pytest.raises(dao.NotFound) as caught:
        workflow_tasks.move(connection, workflow_id=workflow_id, task_id=task_id, sequence=0)
    assert (caught.value.table, caught.value.key) == ("workflow_tasks", (workflow_id, task_id))
    assert places(connection) == [("a", 0)]


@pytest.mark.parametrize("sequence", [True, 1.0, "1", None])
def test_move_sequence_of_another_type_raises_value_error(connection, sequence):
    """A sequence is a whole number and nothing that looks like one."""
    put(connection, ("a", 5))
    with pytest.raises(ValueError, match="sequence"):
        workflow_tasks.move(connection, workflow_id=W, task_id="a", sequence=sequence)
    assert places(connection) == [("a", 5)]


# ---------------------------------------------------------------- reorder


def test_reorder_permutation_numbers_from_zero(connection):
    """The given order becomes the sequences 0, 1, 2 …, whatever they were; other workflows stay."""
    put(connection, ("a", 3), ("b", 3), ("c", 0), ("d", 40))
    put(connection, ("a", 3), workflow_id=V)
    workflow_tasks.reorder(connection, W, ["d", "b", "a", "c"])
    assert places(connection) == [("d", 0), ("b", 1), ("a", 2), ("c", 3)]
    assert places(connection, V) == [("a", 3)]


def test_reorder_repeated_and_empty_are_no_error(connection):
    """The same order twice, and no tasks in no order, are fine."""
    workflow_tasks.reorder(connection, W, [])
    put(connection, ("a", 0), ("b", 1))
    workflow_tasks.reorder(connection, W, ("b", "a"))
    workflow_tasks.reorder(connection, W, ("b", "a"))
    assert places(connection) == [("b", 0), ("a", 1)]


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ("a", r"missing \['b'\], too many \[\]"),
        ("abc", r"missing \[\], too many \['c'\]"),
        ("abb", r"missing \[\], too many \['b'\]"),
        ("ac", r"missing \['b'\], too many \['c'\]"),
        ("", r"missing \['a', 'b'\], too many \[\]"),
    ],
)
def test_reorder_no_permutation_raises_value_error_and_changes_nothing(connection, order, complaint):
    """The message names the tasks that are too many or too few, and the order stays."""
    put(connection, ("b", 0), ("a", 1))
    with pytest.raises(ValueError, match=complaint):
        workflow_tasks.reorder(connection, W, list(order))
    assert places(connection) == [("b", 0), ("a", 1)]


# ---------------------------------------------------------------- list_tasks, list_workflows, count


def test_list_tasks_returns_tasks_with_links_in_order(connection):
    """Each task comes with its own link, by sequence, and by task id where another program gave two the same."""
    put(connection, ("d", 0), ("b", 2), ("a", 2), ("c", 1))
    scramble(connection)
    listed = workflow_tasks.list_tasks(connection, W)
    assert [item.task.id for item in listed] == ["d", "c", "a", "b"]
    for item in listed:
        assert item.task == dao.tasks.get(connection, item.task.id)
        assert item.link == workflow_tasks.get(connection, workflow_id=W, task_id=item.task.id)


def test_list_tasks_none_or_no_workflow_is_empty(connection):
    """A workflow without tasks and one that does not exist list nothing and count none."""
    for workflow_id in (W, "nobody"):
        assert workflow_tasks.list_tasks(connection, workflow_id) == []
        assert workflow_tasks.count(connection, workflow_id) == 0


def test_list_workflows_returns_those_of_the_task_by_id(connection):
    """All workflows that have the task come by id; a task in none, or none at all, has no workflows."""
    put(connection, ("a", 5), ("b", 1))
    put(connection, ("a", 0), workflow_id=V)
    put(connection, ("a", 1), workflow_id=U)
    scramble(connection)
    assert workflow_tasks.list_workflows(connection, "a") == [dao.workflows.get(connection, id) for id in (V, W, U)]
    assert [workflow.id for workflow in workflow_tasks.list_workflows(connection, "b")] == [W]
    assert workflow_tasks.list_workflows(connection, "c") == []
    assert workflow_tasks.list_workflows(connection, "nobody") == []


def test_count_counts_the_tasks_of_one_workflow(connection):
    """Others' tasks do not count."""
    put(connection, ("a", 0), ("b", 0))
    put(connection, ("c", 0), workflow_id=V)
    assert workflow_tasks.count(connection, W) == 2
    assert workflow_tasks.count(connection, V) == 1


# ---------------------------------------------------------------- the order as a whole


def test_add_move_remove_reorder_any_sequence_keeps_order_like_a_list(connection):
    """After any calls the tasks stand in the order that the rule gives, and no two on one sequence."""
    rng = random.Random(7)
    model: dict[str, int] = {}

    def make_room(task_id: str, sequence: int) -> None:
        if any(place == sequence and other != task_id for other, place in model.items()):
            for other, place in model.items():
                if place >= sequence and other != task_id:
                    model[other] = place + 1

    for _ in range(300):
        task_id, sequence = rng.choice("abcde"), rng.randrange(6)
        verb = rng.choice(["add", "move", "move", "remove", "reorder"])
        if verb == "add" and task_id not in model:
            at_end = rng.random() < 0.5
            workflow_tasks.add(connection, workflow_id=W, task_id=task_id, sequence=None if at_end else sequence)
            sequence = max(model.values(), default=-1) + 1 if at_end else sequence
            make_room(task_id, sequence)
            model[task_id] = sequence
        elif verb == "move" and task_id in model:
            workflow_tasks.move(connection, workflow_id=W, task_id=task_id, sequence=sequence)
            make_room(task_id, sequence)
            model[task_id] = sequence
        elif verb == "remove":
            assert workflow_tasks.remove(connection, workflow_id=W, task_id=task_id) is (task_id in model)
            model.pop(task_id, None)
        elif verb == "reorder":
            order = rng.sample(sorted(model), len(model))
            workflow_tasks.reorder(connection, W, order)
            model = {id: place for place, id in enumerate(order)}
        assert places(connection) == sorted(model.items(), key=lambda item: item[1])
        assert len(set(model.values())) == len(model)
