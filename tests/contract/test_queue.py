"""Tasks as a queue: what is put in, taken out, tried again and removed, and how the queue is doing."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import attrs
import pytest

import dao
from dao import Task, TaskStatus, task_dependencies, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import execute, fetch, in_transaction
from dao.testing import make_task, make_workflow
from tests.concurrency import Worker
from tests.engines import is_sqlite, wait_for_waiter
from tests.queued import DAY, MINUTE, NOON, SECOND, begin, claim, claim_one, put, titles

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

# ---------------------------------------------------------------- enqueue


def test_enqueue_stores_the_record_as_it_is(connection):
    """When it runs, how urgently and how often is up to the record; storing it changes nothing."""
    task = make_task(priority=7, run_at=NOON + DAY, retries=3, retry_delay_ms=250, dedup_key="k", created_at=NOON)
    assert tasks.enqueue(connection, task) == (task, True)
    assert tasks.get(connection, task.id) == task
    assert not in_transaction(connection)


def test_enqueue_again_returns_the_task_that_is_there(connection):
    """A producer that repeats a call makes no second task: its id is taken for ever, whatever became of it."""
    task = put(connection, id="order-17")
    other = attrs.evolve(task, title="b", task_type="mail")
    assert tasks.enqueue(connection, other) == (task, False)
    completed = tasks.complete(connection, claim_one(connection))
    assert tasks.enqueue(connection, other, depends_on=["no such task"]) == (completed, False)
    assert tasks.count(connection) == 1


def test_enqueue_dedup_key_holds_as_long_as_its_task_is_unfinished(connection):
    """At most one unfinished task has a key; the next one may come as soon as that is done."""
    first, is_new = tasks.enqueue(connection, make_task(created_at=NOON), dedup_key="sync:7")
    assert is_new
    assert first.dedup_key == "sync:7"
    assert tasks.enqueue(connection, make_task(dedup_key="sync:7")) == (first, False)
    running = claim_one(connection)
    assert tasks.enqueue(connection, make_task(dedup_key="else"), dedup_key="sync:7") == (running, False)
    tasks.complete(connection, running)
    second, is_new = tasks.enqueue(connection, make_task(), dedup_key="sync:7")
    assert is_new
    assert second.id != first.id
    with pytest.raises(dao.UniqueViolation):
        tasks.retry(connection, first.id)


def test_enqueue_dependencies_hold_the_task_back(connection):
    """It is claimed once all of them are completed; one that fails holds it back, until it completes after all."""
    first, second = put(connection, "a"), put(connection, "b", priority=9)
    waiting = put(connection, "c", depends_on=[second.id, first.id, second.id], priority=9)
    assert waiting.waiting_for == 2
    assert tasks.get(connection, waiting.id) == waiting
    both = claim(connection, limit=9)
    assert titles(both) == "ba"
    tasks.complete(connection, both[0])
    tasks.fail(connection, both[1], error="e")
    assert claim(connection, limit=9) == []
    tasks.retry(connection, first.id, now=NOON)
    tasks.complete(connection, claim_one(connection))
    assert titles(claim(connection, limit=9)) == "c"
    assert put(connection, "d", depends_on=[first.id]).waiting_for == 0
    assert titles(claim(connection, limit=9)) == "d"


def test_enqueue_dependency_that_is_not_there_stores_nothing(connection):
    """The task and its dependencies come together or not at all, and the error names which one is missing."""
    there = put(connection)
    task = make_task()
    with pytest.raises(dao.ForeignKeyViolation, match="depends_on refers to 'gone'") as caught:
        tasks.enqueue(connection, task, depends_on=[there.id, "gone"])
    assert (caught.value.table, caught.value.columns) == ("task_dependencies", ("depends_on",))
    assert not tasks.exists(connection, task.id)
    assert not in_transaction(connection)


def test_enqueue_unique_index_of_somebodys_own_is_named(connection):
    """What is neither the id nor the key, and stands in the way for good, is an error, and no endless search."""
    execute(connection, "CREATE UNIQUE INDEX one_title ON tasks (title)")
    put(connection, "a")
    with pytest.raises(dao.UniqueViolation) as caught:
        put(connection, "a")
    assert caught.value.columns == ("title",)


# ---------------------------------------------------------------- cancel, retry


def test_cancel_pending_and_cancelled(connection):
    """One that waits is cancelled, too; to cancel it again changes nothing."""
    task = put(connection)
    cancelled = tasks.cancel(connection, task.id, now=NOON + SECOND)
    assert cancelled == attrs.evolve(task, status="cancelled", completed_at=NOON + SECOND, updated_at=NOON + SECOND)
    assert tasks.cancel(connection, task.id, error="e", now=NOON + MINUTE) == cancelled
    assert tasks.get(connection, task.id) == cancelled
    assert claim(connection) == []


def test_cancel_of_what_is_over_is_stale(connection):
    """What completed or failed stays what it is."""
    put(connection)
    tasks.complete(connection, claim_one(connection))
    put(connection)
    tasks.fail(connection, claim_one(connection), error="e")
    for task in tasks.find(connection).items:
        with pytest.raises(dao.StaleRecord, match=f"tasks: '{task.id}' is {task.status} already") as caught:
            tasks.cancel(connection, task.id)
        assert (type(caught.value), caught.value.table, caught.value.key) == (dao.StaleRecord, "tasks", task.id)
        assert tasks.get(connection, task.id) == task


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_retry_of_a_finished_task_begins_anew(connection, end):
    """It is pending and due, with all its retries; its attempts go on being counted."""
    task = put(connection, retries=1)
    tasks.fail(connection, claim_one(connection), error="e", now=NOON)
    claimed = claim_one(connection)
    {
        "completed": lambda: tasks.complete(connection, claimed),
        "failed": lambda: tasks.fail(connection, claimed, error="e"),
        "cancelled": lambda: tasks.cancel(connection, task.id, error="e"),
    }[end]()
    again = tasks.retry(connection, task.id, now=NOON + MINUTE)
    assert again == attrs.evolve(task, attempt=2, run_at=NOON + MINUTE, updated_at=again.updated_at)
    assert tasks.get(connection, task.id) == again
    assert claim_one(connection, now=NOON + MINUTE).attempt == 3


def test_retry_of_a_pending_task_waits_no_longer(connection):
    """One that backs off is due now, with the failures that it has; one that is due already keeps its place."""
    task = put(connection, retries=1, retry_delay_ms=10_000)
    failed = tasks.fail(connection, claim_one(connection), error="e", now=NOON)
    sooner = tasks.retry(connection, task.id, now=NOON + SECOND)
    assert sooner == attrs.evolve(failed, run_at=NOON + SECOND, updated_at=NOON + SECOND)
    assert tasks.retry(connection, task.id, now=NOON + MINUTE).run_at == NOON + SECOND
    assert claim_one(connection, now=NOON + SECOND).id == task.id


def test_retry_of_a_running_task_is_stale(connection):
    """A worker has it: cancel it first."""
    put(connection)
    claimed = claim_one(connection)
    with pytest.raises(dao.StaleRecord, match="is running already: cancel it first"):
        tasks.retry(connection, claimed.id)
    assert tasks.get(connection, claimed.id) == claimed


@pytest.mark.parametrize("function", [tasks.cancel, tasks.retry])
def test_change_of_a_task_that_is_not_there_is_not_found(connection, function):
    """A wrong id is no stale record."""
    with pytest.raises(dao.NotFound, match="no row has the key 'x'"):
        function(connection, "x")


# ---------------------------------------------------------------- prune


def finished(connection: Any, title: str, end: str, minute: int, **fields: Any) -> Task:
    """Store a task that ended at a minute after noon."""
    task = make_task(title=title, status=end, created_at=NOON, completed_at=NOON + minute * MINUTE, **fields)
    tasks.create(connection, task)
    return task


def left(connection: Any) -> str:
    """Return the titles of the tasks that are there, sorted."""
    return "".join(sorted(task.title for task in tasks.iter_all(connection)))


def test_prune_deletes_the_oldest_finished_tasks(connection):
    """By when they ended, no more than the limit, never what is pending or running, and it returns how many."""
    for title, end, minute in (("a", "completed", 3), ("b", "failed", 1), ("c", "cancelled", 2), ("d", "completed", 5)):
        finished(connection, title, end, minute)
    tasks.create(connection, make_task(title="p", completed_at=NOON))
    tasks.create(connection, make_task(title="r", status="running", completed_at=NOON))
    assert (tasks.prune(connection, before=NOON + MINUTE), left(connection)) == (0, "abcdpr")
    assert (tasks.prune(connection, before=NOON + 5 * MINUTE, limit=2), left(connection)) == (2, "adpr")
    assert (tasks.prune(connection, before=NOON + 5 * MINUTE, limit=2), left(connection)) == (1, "dpr")
    assert (tasks.prune(connection, before=NOON + DAY), left(connection)) == (1, "pr")
    assert tasks.prune(connection, before=NOON + DAY) == 0


@pytest.mark.parametrize(
    ("status", "rest"),
    [
        ("failed", "ac"),
        (TaskStatus.COMPLETED, "bc"),
        (["completed", TaskStatus.CANCELLED], "b"),
        (("completed", "completed", "failed", "cancelled"), ""),
        ([], "abc"),
    ],
)
def test_prune_of_a_status_leaves_the_others(connection, status, rest):
    """One status or several."""
    for title, end in (("a", "completed"), ("b", "failed"), ("c", "cancelled")):
        finished(connection, title, end, 1)
    tasks.prune(connection, before=NOON + DAY, status=iter(status) if isinstance(status, tuple) else status)
    assert left(connection) == rest


def test_prune_takes_a_finished_task_without_completed_at_by_its_last_change(connection):
    """Such ones, stored by `create` or plain SQL, were never pruned, and stayed for ever."""
    for minute, title in ((1, "a"), (3, "b")):
        last = NOON + minute * MINUTE
        fields = {"title": title, "created_at": NOON, "updated_at": last, "completed_at": None}
        tasks.create(connection, make_task(status="failed", **fields))
    put(connection, "c")
    execute(connection, "UPDATE tasks SET status = 'completed' WHERE title = 'c'")
    before = {"before": NOON + 2 * MINUTE, "status": ["completed", "failed"]}
    assert tasks.count_prunable(connection, **before) == 1
    assert (tasks.prune(connection, **before), left(connection)) == (1, "bc")
    assert tasks.prune(connection, before=datetime.now(UTC) + DAY) == 2


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_prune_leaves_what_an_unfinished_task_waits_for(connection, end):
    """Without a predecessor that failed its successor would start; once nothing waits for it, it goes."""
    predecessor = finished(connection, "a", end, 1)
    finished(connection, "b", "completed", 2)
    waiting = put(connection, "c", depends_on=[predecessor.id])
    assert (tasks.prune(connection, before=NOON + DAY), left(connection)) == (1, "ac")
    assert claim(connection) == []
    tasks.cancel(connection, waiting.id, now=NOON)
    assert (tasks.prune(connection, before=NOON + DAY), left(connection)) == (2, "")


def test_prune_takes_what_belongs_to_a_task_and_keeps_its_events(connection):
    """Its calls and places in workflows go with it; what happened stays."""
    task = finished(connection, "a", "completed", 1)
    workflows.create(connection, make_workflow(id="w"))
    workflow_tasks.add(connection, "w", task.id)
    tool_executions.start(connection, tool_name="t", input=None, task_id=task.id)
    put(connection, "b", depends_on=[task.id])
    assert tasks.prune(connection, before=NOON + DAY) == 1
    for table in ("workflow_tasks", "tool_executions", "task_dependencies"):
        assert fetch(connection, f"SELECT count(*) FROM {table}") == [(0,)]
    assert fetch(
        connection, "SELECT from_status, to_status FROM task_events WHERE task_id = $1 ORDER BY seq", (task.id,)
    ) == [
        (None, "completed"),
        ("completed", None),
    ]


# ---------------------------------------------------------------- queues


def test_queues_tells_what_the_tasks_of_each_type_are_doing(connection):
    """What is blocked, paused, scheduled, backing off or lost is derived: no row has to be moved when time passes."""
    assert tasks.queues(connection) == []
    blocker = put(connection, "blocker", task_type="b", run_at=NOON + DAY)
    put(connection, "ready", run_at=NOON - MINUTE, now=NOON - SECOND)
    put(connection, "ready", priority=1)
    put(connection, "backing off", failures=1, run_at=NOON + DAY)
    put(connection, "blocked", depends_on=[blocker.id])
    workflows.create(connection, make_workflow(id="w", status="paused"))
    workflow_tasks.add(connection, "w", put(connection, "paused").id)
    finished(connection, "failed", "failed", 1)
    finished(connection, "done", "completed", 1)
    finished(connection, "done", "cancelled", 1, task_type="done")
    for lease in (SECOND, MINUTE):
        put(connection, "running", priority=9)
        claim(connection, lease=lease)
    tasks.create(connection, make_task(title="begun", status="running", attempt=1))
    agents, others = tasks.queues(connection, now=NOON + 2 * SECOND)
    assert agents == tasks.QueueState(
        task_type="agent",
        ready=2,
        scheduled=0,
        backing_off=1,
        blocked=1,
        paused=1,
        running=2,
        lost=1,
        failed=1,
        oldest_ready=NOON - SECOND,
    )
    assert (others.task_type, others.scheduled, others.ready, others.oldest_ready) == ("b", 1, 0, None)
    assert agents.to_dict()["oldest_ready"] == "2026-01-01T11:59:59.000Z"
    assert others.to_dict() == {**attrs.asdict(others), "oldest_ready": None}


# ---------------------------------------------------------------- at once


def test_enqueue_from_four_threads_makes_one_task_of_a_key(url, connection):
    """Whoever comes second gets the task of the first, though that was not stored when it began."""
    start = Barrier(4)

    def produce(_: int) -> list[tuple[str, bool]]:
        with contextlib.closing(dao.connect(url)) as own:
            start.wait()
            return [
                (task.id, is_new)
                for number in range(25)
                for task, is_new in [tasks.enqueue(own, make_task(), dedup_key=f"{number}")]
            ]

    with ThreadPoolExecutor(4) as threads:
        found = [one for each in threads.map(produce, range(4)) for one in each]
    assert sorted(is_new for _, is_new in found) == [False] * 75 + [True] * 25
    assert len({id for id, _ in found}) == 25 == tasks.count(connection)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_enqueue_beside_another_of_its_key_waits_for_that(url, connection, end):
    """A key that a transaction has taken is taken once that commits, and free if it does not."""
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        first, _ = tasks.enqueue(other, make_task(), dedup_key="k")
        second = Worker(lambda: tasks.enqueue(connection, make_task(), dedup_key="k"))
        wait_for_waiter(other)
        assert second.is_alive()
        other.execute(end)
        found, is_new = second.end()
    assert (found == first, is_new) == ((True, False) if end == "COMMIT" else (False, True))
    assert tasks.find(connection).items == [found]


def test_enqueue_beside_a_dependency_that_is_added_waits_for_no_one_in_a_circle(url, connection):
    """It locked what it depends on after the lock of all that add, others before: every other call was a deadlock."""
    for title in "abc":
        put(connection, title)
    a, b, c = (task.id for task in tasks.find(connection).items)
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        tasks.set_status(other, a, "completed")
        enqueued = Worker(lambda: tasks.enqueue(connection, make_task(), depends_on=[a]))
        wait_for_waiter(other)
        assert len(task_dependencies.add(other, c, b)) == 1
        other.execute("COMMIT")
        task, is_new = enqueued.end()
    assert (task.waiting_for, is_new) == (0, True)


@pytest.mark.parametrize("taken_again", [False, True])
def test_enqueue_whose_predecessor_of_a_key_ends_meanwhile_looks_again(url, connection, monkeypatch, taken_again):
    """The task in the way is completed before it can be looked at: then this one is stored, or the next is found."""
    tasks.enqueue(connection, make_task(created_at=NOON), dedup_key="k")
    looked, next_one = [], make_task(dedup_key="k")

    def complete_and_look(to: Any, sql: str, parameters: Any) -> Any:
        if "dedup_key = $1" not in sql or looked:
            return fetch(to, sql, parameters)
        looked.append(sql)
        with contextlib.closing(dao.connect(url)) as other:
            tasks.complete(other, claim_one(other))
            found = fetch(to, sql, parameters)
            if taken_again:
                tasks.create(other, next_one)
        return found

    monkeypatch.setattr("dao.tasks.queue.fetch", complete_and_look)
    task = make_task(dedup_key="k")
    assert tasks.enqueue(connection, task) == ((next_one, False) if taken_again else (task, True))
    assert looked
    assert tasks.count(connection) == 2


def test_prune_beside_a_task_that_begins_to_wait_leaves_it(url, connection):
    """A task that a transaction begins to wait for is left: it would start without it."""
    failed = finished(connection, "a", "failed", 1)
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        put(other, "b", depends_on=[failed.id])
        pruned = Worker(lambda: tasks.prune(connection, before=NOON + DAY))
        if is_sqlite(connection):
            wait_for_waiter(other)
            other.execute("COMMIT")
        assert pruned.end() == 0
        if not is_sqlite(connection):
            other.execute("COMMIT")
    assert left(connection) == "ab"
    assert claim(connection) == []
