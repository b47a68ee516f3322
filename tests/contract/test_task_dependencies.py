"""Task dependencies: what each function of `dao.task_dependencies` promises."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

import dao
from dao import task_dependencies, task_events, tasks, workflow_tasks, workflows
from dao.engine import fetch
from dao.testing import make_task, make_workflow
from tests.concurrency import PATIENCE
from tests.engines import is_sqlite

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def ids(connection) -> list[str]:
    """The ids of five pending tasks, in order."""
    made = [make_task(id=id) for id in "abcde"]
    tasks.create_many(connection, made)
    return [task.id for task in made]


def waiting(connection: Any) -> dict[str, int]:
    """Return what each task waits for, by id, as far as it waits."""
    rows = fetch(connection, "SELECT id, waiting_for FROM tasks WHERE waiting_for <> 0 ORDER BY id")
    return {id: number for id, number in rows}  # noqa: C416 - a dict of pairs, typed


def links(connection: Any) -> list[tuple[str, str]]:
    """Return who depends on whom."""
    return fetch(connection, "SELECT task_id, depends_on FROM task_dependencies ORDER BY task_id, depends_on")


# ---------------------------------------------------------------- add, remove


def test_add_one_or_several_returns_those_that_are_new(connection, ids):
    """Each is stored and counted once, whichever way and however often it is added."""
    (first,) = task_dependencies.add(connection, "c", "a", now=NOON)
    assert first == dao.TaskDependency(task_id="c", depends_on="a", created_at=NOON)
    assert task_dependencies.get_one(connection, "c", "a") == first
    added = task_dependencies.add(connection, "c", iter(["d", "a", "b", "b"]))
    assert [link.depends_on for link in added] == ["b", "d"]
    assert task_dependencies.add(connection, "c", ["a", "b", "d"]) == []
    assert task_dependencies.add(connection, "c", []) == []
    assert task_dependencies.get_one(connection, "c", "a") == first
    assert waiting(connection) == {"c": 3}


@pytest.mark.parametrize(
    ("task_id", "depends_on", "column"), [("c", ["a", "nobody"], "depends_on"), ("nobody", ["a"], "task_id")]
)
def test_add_without_such_a_task_adds_nothing(connection, ids, task_id, depends_on, column):
    """The error names the column, and none of the others is added either."""
    with pytest.raises(dao.ForeignKeyViolation, match="nobody") as refused:
        task_dependencies.add(connection, task_id, depends_on)
    assert (refused.value.table, refused.value.columns) == ("task_dependencies", (column,))
    assert (links(connection), waiting(connection)) == ([], {})


def test_add_cycle_is_refused_by_the_database(connection, ids):
    """A task that would wait for itself, by way of others, is a CheckViolation with the trigger's name."""
    task_dependencies.add(connection, "b", "a")
    task_dependencies.add(connection, "c", "b")
    for task_id, depends_on in [("a", "c"), ("a", "b"), ("b", "c")]:
        with pytest.raises(dao.CheckViolation) as refused:
            task_dependencies.add(connection, task_id, ["d", depends_on] if task_id == "a" else depends_on)
        assert (refused.value.table, refused.value.constraint) == ("task_dependencies", "task_dependencies_no_cycle")
    with pytest.raises(ValueError, match="cannot depend on itself"):
        task_dependencies.add(connection, "a", "a")
    assert links(connection) == [("b", "a"), ("c", "b")]
    assert waiting(connection) == {"b": 1, "c": 1}


def test_add_two_halves_of_a_cycle_at_once_stores_one(url, connection, ids):
    """Two connections that each see no cycle do not make one together."""
    for number in range(10):
        task_dependencies.remove(connection, "a", "b")
        task_dependencies.remove(connection, "b", "a")
        barrier, outcomes = threading.Barrier(2), []

        def add(one: str, other: str, barrier=barrier, outcomes=outcomes) -> None:
            with contextlib.closing(dao.connect(url)) as own:
                barrier.wait(PATIENCE)
                try:
                    outcomes.append(dao.run_in_transaction(own, task_dependencies.add, one, other))
                except dao.CheckViolation as error:
                    outcomes.append(error.constraint)

        threads = [threading.Thread(target=add, args=pair) for pair in ("ab", "ba")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(map(str, outcomes))[1] == "task_dependencies_no_cycle", number
        assert len(links(connection)) == 1


def test_add_to_a_task_whose_predecessor_ends_at_once_counts_right(url, connection):
    """However the two come, what waits is right, and neither waits for the other for ever."""
    for number in range(10):
        before = [make_task(id=f"{number}{name}") for name in "ab"]
        after = make_task(id=f"{number}c")
        tasks.create_many(connection, [*before, after])
        barrier = threading.Barrier(2)

        def end(before=before, barrier=barrier) -> None:
            with contextlib.closing(dao.connect(url)) as own:
                barrier.wait(PATIENCE)
                for task in reversed(before):
                    dao.run_in_transaction(own, tasks.set_status, task.id, "completed")

        thread = threading.Thread(target=end)
        thread.start()
        barrier.wait(PATIENCE)
        task_dependencies.add(connection, after.id, [task.id for task in before])
        thread.join(PATIENCE)
        assert waiting(connection) == {}, number


@pytest.mark.parametrize("engine", ["postgresql"])
def test_add_in_a_transaction_that_sees_the_past_is_refused(connection, ids):
    """There, nobody could tell a cycle; the error says in which transaction it can be told."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(dao.IntegrityError, match="at READ COMMITTED only"):
        task_dependencies.add(connection, "b", "a")
    connection.execute("ROLLBACK")
    assert links(connection) == []


def looks(connection: Any, task: dao.Task, depends_on: list[str]) -> int:
    """Enqueue a task, and return how much was looked at: steps of SQLite, searches and rows of PostgreSQL."""
    if is_sqlite(connection):
        steps: list[None] = []
        connection.set_progress_handler(lambda: bool(steps.append(None)), 10)
        tasks.enqueue(connection, task, depends_on=depends_on)
        connection.set_progress_handler(None)
        return len(steps)
    read = "idx_scan + idx_tup_fetch + seq_scan + seq_tup_read"
    searches = f"SELECT {read} FROM pg_stat_xact_user_tables WHERE relname = 'task_dependencies'"
    with dao.transaction(connection):
        ((before,),) = fetch(connection, searches)
        tasks.enqueue(connection, task, depends_on=depends_on)
        ((after,),) = fetch(connection, searches)
    return int(after - before)


def test_new_task_does_not_look_at_all_that_is_before_it(connection):
    """Nobody waits for it, so it makes no cycle: 2,000 that waited for one that waits for 2,000 took 25 seconds."""
    tasks.create_many(connection, [make_task(id=f"t{number}") for number in range(200)])
    tasks.enqueue(connection, make_task(id="all"), depends_on=[f"t{number}" for number in range(200)])
    few = looks(connection, make_task(id="few"), ["t0"])
    assert looks(connection, make_task(id="many"), ["all"]) < 1.5 * few
    with pytest.raises(dao.CheckViolation) as refused:
        task_dependencies.add(connection, "t7", "many")
    assert refused.value.constraint == "task_dependencies_no_cycle"


@pytest.mark.parametrize("engine", ["postgresql"])
def test_task_that_waits_for_many_is_written_once(connection):
    """A trigger for each link wrote it, and an event: 2,000 links took 16 s. SQLite has no other triggers."""
    before = [make_task(id=f"p{number}", status="completed" if number < 9 else "pending") for number in range(100)]
    tasks.create_many(connection, before)
    ids = [task.id for task in before]
    enqueued, _ = tasks.enqueue(connection, make_task(id="a"), depends_on=ids)
    tasks.create(connection, make_task(id="b"))
    assert len(task_dependencies.add(connection, "b", ids)) == 100
    assert (enqueued.waiting_for, tasks.get_one(connection, "b").waiting_for) == (91, 91)
    fetch(connection, "DELETE FROM task_dependencies WHERE task_id = 'b' RETURNING 1")
    assert tasks.get_one(connection, "b").waiting_for == 0
    assert [len(task_events.list_of(connection, id)) for id in ("a", "b")] == [2, 3]


def test_completed_predecessor_is_not_waited_for(connection, ids):
    """What is completed already does not count; what runs again counts again."""
    tasks.set_status(connection, "a", "completed")
    task_dependencies.add(connection, "c", ["a", "b"])
    assert waiting(connection) == {"c": 1}
    tasks.set_status(connection, "a", "pending")
    assert waiting(connection) == {"c": 2}
    tasks.set_status(connection, "a", "failed")
    tasks.delete(connection, "b")
    assert waiting(connection) == {"c": 1}


def test_remove_says_whether_it_was_there(connection, ids):
    """The task waits no longer; a second time nothing happens."""
    task_dependencies.add(connection, "c", ["a", "b"])
    assert task_dependencies.remove(connection, "c", "a") is True
    assert task_dependencies.remove(connection, "c", "a") is False
    assert (links(connection), waiting(connection)) == ([("c", "b")], {"c": 1})


@pytest.mark.parametrize("emptied", ["task_dependencies", "workflow_tasks", "workflows", "tasks"])
def test_table_emptied_at_once_holds_nothing_back(connection, ids, emptied):
    """TRUNCATE fires no trigger of rows: tasks waited for ever for links that were gone."""
    task_dependencies.add(connection, "c", ["a", "b"])
    workflow = make_workflow()
    workflows.create(connection, workflow)
    workflow_tasks.add(connection, workflow_id=workflow.id, task_id="d")
    workflows.set_status(connection, workflow.id, "paused")
    dao.execute(connection, f"DELETE FROM {emptied}" if is_sqlite(connection) else f"TRUNCATE {emptied} CASCADE")
    waits = {"c": 2} if emptied in {"workflow_tasks", "workflows"} else {}
    paused = {"d": 1} if emptied == "task_dependencies" else {}
    held = fetch(connection, "SELECT id, paused_by FROM tasks WHERE paused_by <> 0")
    assert (waiting(connection), dict(held)) == (waits, paused)


# ---------------------------------------------------------------- list


def test_list_predecessors_and_successors_by_id(connection, ids):
    """Both return whole tasks, completed ones too, in the order of their ids; none of none."""
    task_dependencies.add(connection, "c", ["b", "a"])
    task_dependencies.add(connection, "e", "c")
    task_dependencies.add(connection, "d", "c")
    tasks.set_status(connection, "a", "completed")
    assert task_dependencies.list_predecessors(connection, "c") == [tasks.get_one(connection, id) for id in "ab"]
    assert task_dependencies.list_successors(connection, "c") == [tasks.get_one(connection, id) for id in "de"]
    assert task_dependencies.list_predecessors(connection, "a") == []
    assert task_dependencies.list_successors(connection, "nobody") == []


# ---------------------------------------------------------------- chain


@pytest.fixture
def workflow(connection, ids) -> str:
    """The id of a workflow: b at 3, a and e at 5, and d at 9."""
    workflow = make_workflow()
    workflows.create(connection, workflow)
    for id, sequence in [("b", 3), ("a", 5), ("e", 6), ("d", 9)]:
        workflow_tasks.add(connection, workflow.id, id, sequence=sequence)
    fetch(connection, "UPDATE workflow_tasks SET sequence = 5 WHERE task_id = $1", ("e",))
    return workflow.id


def test_chain_follows_the_sequence_of_the_links(connection, workflow):
    """Each task waits for all of the sequence before, and those of one sequence do not wait for each other."""
    added = task_dependencies.chain(connection, workflow, now=NOON)
    expected = [("a", "b"), ("d", "a"), ("d", "e"), ("e", "b")]
    assert sorted((link.task_id, link.depends_on) for link in added) == links(connection) == expected
    assert {link.created_at for link in added} == {NOON}
    assert waiting(connection) == {"a": 1, "d": 2, "e": 1}


def test_chain_is_safe_to_repeat(connection, workflow):
    """A second time adds what has come since, and nothing twice."""
    task_dependencies.chain(connection, workflow)
    before = fetch(connection, "SELECT * FROM task_dependencies ORDER BY 1, 2")
    assert task_dependencies.chain(connection, workflow) == []
    assert fetch(connection, "SELECT * FROM task_dependencies ORDER BY 1, 2") == before
    workflow_tasks.add(connection, workflow, "c")
    assert [attrs.astuple(link)[:2] for link in task_dependencies.chain(connection, workflow)] == [("c", "d")]


def test_chain_against_what_depends_already_adds_nothing(connection, workflow):
    """A dependency in the other direction makes a cycle of it: all of it is undone."""
    task_dependencies.add(connection, "b", "d")
    with pytest.raises(dao.CheckViolation):
        task_dependencies.chain(connection, workflow)
    assert links(connection) == [("b", "d")]


def test_chain_of_no_workflow(connection, ids):
    """One that is not there is an error, one without tasks is not."""
    with pytest.raises(dao.NotFound) as missing:
        task_dependencies.chain(connection, "nobody")
    assert (missing.value.table, missing.value.key) == ("workflows", "nobody")
    workflows.create(connection, make_workflow(id="w"))
    assert task_dependencies.chain(connection, "w") == []
    workflow_tasks.add(connection, "w", "a")
    assert task_dependencies.chain(connection, "w") == []
