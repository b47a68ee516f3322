"""The laws of claims hold in the database, for whatever program writes: all of this is raw SQL, on both engines."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from datetime import timedelta

import attrs
import pytest

import dao
from dao import codec, migrate, rows, task_dependencies, tasks
from dao.cli.filters import PHASES
from dao.engine import execute, fetch
from dao.testing import make_tool_execution, make_workflow, make_workflow_task
from tests import strategies
from tests.claims import FINISHED, STATUSES, add, assert_counted, events, link, move, paused, waiting
from tests.concurrency import PATIENCE, Worker
from tests.engines import is_sqlite, wait_for_waiter

pytestmark = pytest.mark.both_engines

LATER = "2999-01-01T00:00:00.000Z"


def refused(constraint, table="tasks"):
    """Expect the refusal of a guard, with its name and table."""

    @contextlib.contextmanager
    def expecting():
        with pytest.raises(dao.CheckViolation) as caught:
            yield
        assert (caught.value.constraint, caught.value.table) == (constraint, table)
        assert str(caught.value) == f"{table}: the row breaks the constraint {constraint}"

    return expecting()


@pytest.mark.sqlite_only
def test_triggers_checks_and_indexes_make_no_table_of_constants(connection):
    """`IN` with three constants or more is a table that SQLite makes for each statement: a tenth of a small write."""
    sql = fetch(
        connection, "SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'index') OR name = 'task_events'"
    )
    assert len(sql) > 40
    assert [name for name, text in sql if text and re.search(r"\bIN \('[^()]*,[^()]*,", text)] == []


# ---------------------------------------------------------------- status and attempt


def test_status_of_a_finished_task_becomes_pending_first(connection):
    """Every move is legal but from finished to another that is not pending: a late worker cannot undo an end."""
    for before, after in itertools.product(STATUSES, STATUSES):
        id = f"{before} to {after}"
        add(connection, id, status=before)
        if before in FINISHED and after not in {before, "pending"}:
            with refused("tasks_status_transition"):
                move(connection, id, after)
            assert tasks.get_one(connection, id).status == before, id
        else:
            move(connection, id, after)
            assert tasks.get_one(connection, id).status == after, id


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_task_that_was_begun_and_waits_again_ends_by_running_only(connection, end):
    """A worker whose lease has ended, and whose task waits for another attempt, could end it in plain SQL."""
    add(connection, "a")
    move(connection, "a", "running")
    move(connection, "a", "pending")
    with refused("tasks_status_transition"):
        move(connection, "a", end)
    move(connection, "a", "cancelled")
    move(connection, "a", "pending")
    move(connection, "a", "running")
    move(connection, "a", end)
    assert tasks.get_one(connection, "a").status == end


def test_attempt_never_goes_back_and_begins_anew_with_each_run(connection):
    """No token is good twice: a raw change to running is refused, and so is an attempt that was there before."""
    add(connection, "a")
    with refused("tasks_attempt_increases"):
        execute(connection, "UPDATE tasks SET status = 'running'")
    execute(connection, "UPDATE tasks SET status = 'running', attempt = 5")
    execute(connection, "UPDATE tasks SET status = 'running', title = 'goes on'")
    with refused("tasks_attempt_increases"):
        execute(connection, "UPDATE tasks SET attempt = 4")
    move(connection, "a", "pending")
    with refused("tasks_attempt_increases"):
        execute(connection, "UPDATE tasks SET status = 'running', attempt = 5")
    assert tasks.get_one(connection, "a").attempt == 5


def test_status_that_leaves_running_without_its_lease_is_refused(connection):
    """Worker and lease end with the run, or the row is refused."""
    add(connection, "a", status="running", worker="w", lease_expires_at=codec.now())
    with pytest.raises(dao.CheckViolation) as caught:
        execute(connection, "UPDATE tasks SET status = 'completed'")
    assert caught.value.constraint == "tasks_lease_when_running"


@pytest.mark.parametrize("counter", ["waiting_for", "paused_by"])
def test_counters_of_a_new_task_begin_at_zero(connection, counter):
    """A task that was counted to wait before it was there would wait for ever."""
    with refused("tasks_counters_begin_at_zero"):
        execute(connection, f"INSERT INTO tasks (id, title, task_type, {counter}) VALUES ('a', 'A', 'x', 1)")


# ---------------------------------------------------------------- dependencies


def test_waiting_for_counts_the_predecessors_that_are_not_completed(connection):
    """Each link to an unfinished task counts until that is completed, and again if that is undone."""
    add(connection, "a", "b", "c")
    add(connection, "done", status="completed")
    link(connection, "c", "a", "b", "done")
    link(connection, "b", "a")
    assert waiting(connection) == {"a": 0, "b": 1, "c": 2, "done": 0}
    move(connection, "a", "running")
    move(connection, "a", "failed")
    assert waiting(connection)["c"] == 2
    move(connection, "a", "pending")
    move(connection, "a", "running")
    move(connection, "a", "completed")
    assert waiting(connection) == {"a": 0, "b": 0, "c": 1, "done": 0}
    move(connection, "a", "pending")
    assert waiting(connection)["c"] == 2
    execute(connection, "DELETE FROM task_dependencies WHERE depends_on IN ('b', 'done')")
    assert waiting(connection) == {"a": 0, "b": 1, "c": 1, "done": 0}
    assert_counted(connection)


@pytest.mark.parametrize("status", STATUSES)
def test_waiting_for_is_right_when_tasks_are_deleted(connection, status):
    """Whoever goes, alone or in one statement with those that wait for it, nobody waits for it any more."""
    for gone in ("a", "c", "ab", "ac", "bc", "abc"):
        add(connection, "a", status=status)
        add(connection, "b", "c", "d")
        link(connection, "b", "a")
        link(connection, "c", "a", "b")
        link(connection, "d", "a", "c")
        bound = ", ".join(f"${number + 1}" for number in range(len(gone)))
        execute(connection, f"DELETE FROM tasks WHERE id IN ({bound})", [*gone])
        assert_counted(connection)
        assert fetch(
            connection,
            "SELECT count(*) FROM task_dependencies WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE id = depends_on)",
        ) == [(0,)], gone
        execute(connection, "DELETE FROM tasks")


def test_waiting_for_is_right_when_one_statement_completes_a_chain(connection):
    """A statement may complete a task and the one that waits for it."""
    add(connection, "a", "b", "c")
    link(connection, "b", "a")
    link(connection, "c", "a", "b")
    execute(connection, "UPDATE tasks SET status = 'completed' WHERE id IN ('a', 'b')")
    assert waiting(connection) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("longer", [False, True])
def test_dependency_that_would_close_a_cycle_is_refused(connection, longer):
    """Of two tasks, or of three: no task waits for itself in the end."""
    add(connection, "a", "b", "c")
    link(connection, "b", "a")
    link(connection, "c", "b")
    with refused("task_dependencies_no_cycle", "task_dependencies"):
        link(connection, "a", "c" if longer else "b")
    with pytest.raises(dao.CheckViolation) as caught:
        link(connection, "a", "a")
    assert caught.value.constraint == "task_dependencies_not_itself"
    link(connection, "c", "a")
    assert_counted(connection)


def test_dependencies_of_one_statement_that_make_a_cycle_are_refused(connection):
    """Each row of a statement sees those before it."""
    add(connection, "a", "b")
    with refused("task_dependencies_no_cycle", "task_dependencies"):
        execute(connection, "INSERT INTO task_dependencies (task_id, depends_on) VALUES ('a', 'b'), ('b', 'a')")
    assert waiting(connection) == {"a": 0, "b": 0}


def test_dependency_is_never_changed(connection):
    """A link goes and another comes, so that each is counted."""
    add(connection, "a", "b", "c")
    link(connection, "b", "a")
    with refused("task_dependencies_unchangeable", "task_dependencies"):
        execute(connection, "UPDATE task_dependencies SET depends_on = 'c'")


# ---------------------------------------------------------------- paused workflows


def test_paused_by_counts_the_paused_workflows_of_a_task(connection):
    """A task is held back while any of its workflows is paused, and by none that goes on, ends or lets it go."""
    add(connection, "a", "b")
    dao.workflows.create(connection, make_workflow(id="x", status="active"))
    dao.workflows.create(connection, make_workflow(id="y", status="paused"))
    for flow, task in itertools.product("xy", "ab"):
        place = make_workflow_task(workflow_id=flow, task_id=task)
        execute(connection, rows.WORKFLOW_TASKS.insert, rows.WORKFLOW_TASKS.to_row(place))
    assert paused(connection) == {"a": 1, "b": 1}
    execute(connection, "UPDATE workflows SET status = 'paused'")
    assert paused(connection) == {"a": 2, "b": 2}
    execute(connection, "DELETE FROM workflow_tasks WHERE workflow_id = 'x' AND task_id = 'a'")
    execute(connection, "DELETE FROM workflows WHERE id = 'y'")
    assert paused(connection) == {"a": 0, "b": 1}
    execute(connection, "UPDATE workflows SET status = 'archived'")
    assert paused(connection) == {"a": 0, "b": 0}


def test_tasks_of_workflows_that_are_paused_already_are_held_back(tmp_path, new_postgresql_url, engine):
    """The migration makes no new version of them; one of the first moment that there is kept it from running."""
    url = new_postgresql_url if engine == "postgresql" else f"sqlite:///{tmp_path}/old.db"
    migrate.apply(url, to="20250115010600_create_triggers")
    times = {"a": "0001-01-01T00:00:00.000Z", "b": "2020-01-01T00:00:00.000Z", "c": "9999-12-31T23:59:59.999Z"}
    with contextlib.closing(dao.connect(url)) as connection:
        execute(connection, "INSERT INTO workflows (id, name, status) VALUES ('w', 'w', 'paused')")
        for sequence, (id, at) in enumerate(times.items()):
            execute(
                connection,
                "INSERT INTO tasks (id, title, task_type, created_at, updated_at) VALUES ($1, 't', 'a', $2, $2)",
                (id, at),
            )
            execute(
                connection,
                "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ('w', $1, $2)",
                (id, sequence),
            )
    migrate.apply(url)
    with contextlib.closing(dao.connect(url)) as connection:
        assert paused(connection) == {"a": 1, "b": 1, "c": 1}
        found = {task.id: codec.time_to_text(task.updated_at) for task in tasks.iter_all(connection)}
        assert found == {**times, "a": "0001-01-01T00:00:00.001Z"}


# ---------------------------------------------------------------- events


def test_each_version_of_a_task_has_one_event(connection):
    """Whatever moves `updated_at` writes one event with that moment; a heartbeat moves neither."""
    add(connection, "a")
    versions = [tasks.get_one(connection, "a").updated_at]
    for change in (
        "title = 'other'",
        f"status = 'running', attempt = 1, worker = 'w', lease_expires_at = '{LATER}'",
        "error = 'e', updated_at = '2998-01-01T00:00:00.000Z'",
        "title = title",
        "status = 'pending', worker = NULL, lease_expires_at = NULL",
    ):
        execute(connection, f"UPDATE tasks SET {change} WHERE id = 'a'")
        versions.append(tasks.get_one(connection, "a").updated_at)
    assert [event[6] for event in events(connection, "a")] == [codec.time_to_text(moment) for moment in versions]
    assert [event[4] for event in events(connection, "a")] == [None, None, "w", "w", "w", "w"]
    move(connection, "a", "running")
    before = len(events(connection))
    execute(connection, "UPDATE tasks SET worker = 'w', lease_expires_at = $1, attempt = attempt + 1", (LATER,))
    execute(connection, "UPDATE tasks SET lease_expires_at = '2998-01-01T00:00:00.000Z'")
    assert len(events(connection)) == before + 1


def test_deleted_task_leaves_an_event_with_all_that_it_held(connection):
    """From its last event a task that has gone can be written down again."""
    add(connection, "a", metadata=None, error='é"\\\n\x01')
    task = tasks.get_one(connection, "a")
    execute(connection, "DELETE FROM tasks")
    *_, (id, _, before, after, _, _, at, previous) = events(connection)
    assert (id, before, after) == ("a", "pending", None)
    assert at > codec.time_to_text(task.updated_at)
    row = dict(zip(rows.TASKS.columns, rows.TASKS.to_row(task), strict=True))
    assert json.loads(previous) == {name: value for name, value in row.items() if name != "id"}
    assert [*json.loads(previous)] == [name for name in row if name != "id"]


def test_last_moment_that_there_is_can_be_deleted(connection):
    """After it comes none: its event has that moment, too."""
    add(connection, "a", updated_at=strategies.LATEST)
    execute(connection, "DELETE FROM tasks")
    assert [event[6] for event in events(connection)] == [codec.time_to_text(strategies.LATEST)] * 2


def test_events_are_left_out_when_the_configuration_says_so(connection):
    """Whoever does not want them sets `task_events` to false, and back."""
    dao.configurations.set(connection, "task_events", False)
    add(connection, "a")
    move(connection, "a", "running")
    execute(connection, "DELETE FROM tasks")
    assert events(connection) == []
    dao.configurations.set(connection, "task_events", True)
    add(connection, "b")
    assert len(events(connection)) == 1


# ---------------------------------------------------------------- calls of an attempt


def call(connection, task="a", attempt=1, **fields):
    """Store a call of an attempt, and return its id."""
    made = make_tool_execution(task_id=task, attempt=attempt, **fields)
    dao.tool_executions.record(connection, made)
    return made.id


def test_call_is_taken_only_from_the_attempt_that_has_the_task(connection):
    """A worker that has lost its task can begin no call, and a task that does not run has none."""
    add(connection, "a")
    for attempt in (1, 2):
        with refused("tool_executions_attempt_current", "tool_executions"):
            call(connection, attempt=attempt)
        move(connection, "a", "running")
        call(connection, attempt=attempt)
        with refused("tool_executions_attempt_current", "tool_executions"):
            call(connection, attempt=3 - attempt)
        move(connection, "a", "pending")


@pytest.mark.parametrize("status", ["pending", *FINISHED, "running"])
def test_open_calls_end_with_their_attempt(connection, status):
    """However an attempt ends, what it called and did not end has failed with an unknown outcome, and stays so."""
    add(connection, "a", "other", status="running", worker="w", lease_expires_at=codec.now())
    running, waiting_too = call(connection, status="running"), call(connection)
    done, free = call(connection, status="completed"), make_tool_execution(task_id="a", status="running")
    elsewhere = call(connection, "other", status="running")
    dao.tool_executions.record(connection, free)
    if status == "running":
        execute(connection, "UPDATE tasks SET attempt = 2 WHERE id = 'a'")
    else:
        move(connection, "a", status)
    for id in (running, waiting_too):
        ended = dao.tool_executions.get_one(connection, id)
        assert ended.status == "failed"
        assert ended.error == "outcome unknown: attempt 1 of the task ended before the call did"
        assert ended.completed_at == tasks.get_one(connection, "a").updated_at
        with refused("tool_executions_end_final", "tool_executions"):
            execute(connection, "UPDATE tool_executions SET status = 'completed', error = NULL WHERE id = $1", (id,))
        with pytest.raises(dao.StaleRecord):
            dao.tool_executions.finish(connection, id)
    assert dao.tool_executions.get_one(connection, done).status == "completed"
    assert dao.tool_executions.get_one(connection, free.id).status == "running"
    assert dao.tool_executions.get_one(connection, elsewhere).status == "running"


def test_attempt_and_step_of_a_call_are_fixed(connection):
    """A call is never another attempt's, and none that had no attempt gets one."""
    add(connection, "a", status="running")
    add(connection, "b", status="running")
    of_attempt = call(connection, step="s")
    free = make_tool_execution()
    dao.tool_executions.record(connection, free)
    for id, change in (
        (of_attempt, "attempt = 2"),
        (of_attempt, "attempt = NULL, step = NULL"),
        (of_attempt, "step = 't'"),
        (of_attempt, "task_id = 'b'"),
        (free.id, "task_id = 'a', attempt = 1"),
    ):
        with refused("tool_executions_attempt_fixed", "tool_executions"):
            execute(connection, f"UPDATE tool_executions SET {change} WHERE id = $1", (id,))


def test_step_has_one_completed_call(connection):
    """One completed call stands for a step for ever; failed ones do not count."""
    add(connection, "a", status="running")
    call(connection, step="s", status="failed")
    call(connection, step="s", status="completed")
    with pytest.raises(dao.UniqueViolation):
        call(connection, step="s", status="completed")
    call(connection, step="t", status="completed")


# ---------------------------------------------------------------- keys and views


def test_dedup_key_is_of_one_unfinished_task(connection):
    """A key is free again when its task has finished, and taken again when that becomes pending."""
    add(connection, "a", dedup_key="k")
    with pytest.raises(dao.UniqueViolation):
        add(connection, "b", dedup_key="k")
    move(connection, "a", "cancelled")
    add(connection, "b", dedup_key="k")
    with pytest.raises(dao.UniqueViolation):
        move(connection, "a", "pending")


def test_overviews_derive_what_is_blocked_scheduled_and_lost(connection):
    """The views say of each task what it is really doing; `queues` and the command line have the same phases."""
    later, earlier = codec.now() + timedelta(days=1), codec.now() - timedelta(days=1)
    phases = {
        "ready": {},
        "scheduled": {"run_at": later},
        "backing off": {"run_at": later, "failures": 1},
        "blocked": {},
        "paused": {},
        "running": {"status": "running", "worker": "w", "lease_expires_at": later},
        "lost": {"status": "running", "worker": "w", "lease_expires_at": earlier},
        **{status: {"status": status} for status in FINISHED},
    }
    for phase, fields in phases.items():
        add(connection, phase, task_type="x", created_at=earlier, **fields)
    link(connection, "blocked", "ready")
    dao.workflows.create(connection, make_workflow(id="x", status="paused"))
    place = make_workflow_task(workflow_id="x", task_id="paused")
    execute(connection, rows.WORKFLOW_TASKS.insert, rows.WORKFLOW_TASKS.to_row(place))
    found = fetch(connection, "SELECT id, phase, status, age_seconds FROM task_overview")
    assert {id: phase for id, phase, *_ in found} == {phase: phase for phase in phases}
    assert {phase: status for _, phase, status, _ in found} == PHASES
    assert all(86_400 <= age < 90_000 for *_, age in found)
    counted = fetch(
        connection,
        "SELECT task_type, ready, scheduled, backing_off, blocked, paused, running, lost, failed, oldest_ready "
        "FROM queue_overview",
    )
    assert [(*row[:-1], codec.canonical_time(row[-1])) for row in counted] == [
        ("x", 1, 1, 1, 1, 1, 1, 1, 1, codec.time_to_text(codec.millisecond(earlier)))
    ]
    assert [attrs.astuple(one)[:-1] for one in tasks.queues(connection)] == [row[:-1] for row in counted]


# ---------------------------------------------------------------- at once, on PostgreSQL


@contextlib.contextmanager
def two(url):
    """Two more connections."""
    with contextlib.closing(dao.connect(url)) as one, contextlib.closing(dao.connect(url)) as other:
        yield one, other


@pytest.fixture
def server_url(url, connection):
    """The URL of a server: SQLite has one writer at a time, and nothing to test here."""
    if is_sqlite(connection):
        pytest.skip("SQLite has one writer at a time")
    return url


def beside(connection, first, second):
    """Run `first` in a transaction, `second` beside it until it waits; return the worker of that when both ended."""
    worker = None
    with dao.transaction(connection):
        first()
        worker = Worker(second)
        wait_for_waiter(connection)
    worker.join(PATIENCE)
    assert not worker.is_alive()
    return worker


def test_two_predecessors_that_end_at_once_are_both_counted(server_url, connection):
    """Many tasks wait for the same two: nobody miscounts, and nobody waits for the other."""
    ids = [f"{number:02}" for number in range(20)]
    add(connection, "a", "b", *ids)
    for id in ids:
        link(connection, id, "a", "b")
    with two(server_url) as (one, other):
        for _ in range(10):
            for status in ("completed", "pending"):
                workers = [Worker(move, one, "a", status), Worker(move, other, "b", status)]
                for worker in workers:
                    worker.join(PATIENCE)
                    assert worker.error is None
                assert {waiting(connection)[id] for id in ids} == {0 if status == "completed" else 2}


@pytest.mark.parametrize("first", ["link", "complete"])
def test_link_added_while_the_predecessor_ends_is_counted_once(server_url, connection, first):
    """Whichever was first, the other waits for it, and sees it."""
    add(connection, "a", "b")
    with two(server_url) as (one, other):
        both = [lambda: link(one, "b", "a"), lambda: move(one, "a", "completed")]
        beyond = [lambda: move(other, "a", "completed"), lambda: link(other, "b", "a")]
        place = ["link", "complete"].index(first)
        worker = beside(one, both[place], beyond[place])
    assert worker.error is None
    assert waiting(connection) == {"a": 0, "b": 0}
    move(connection, "a", "pending")
    assert waiting(connection) == {"a": 0, "b": 1}


def test_predecessor_that_ends_at_repeatable_read_does_not_overlook_a_link(server_url, connection):
    """A transaction that began before the link was added would not count it: it has to be repeated."""
    add(connection, "a", "b")
    with two(server_url) as (one, other):
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks")
        link(one, "b", "a")
        with pytest.raises(dao.DatabaseBusy):
            move(other, "a", "completed")
        other.execute("ROLLBACK")
    assert_counted(connection)


def test_predecessor_that_is_reopened_at_repeatable_read_does_not_count_a_link_that_has_gone(server_url, connection):
    """The task is written though its count stays, or it would be counted to wait for one that it depends on no more."""
    add(connection, "a", "b")
    link(connection, "b", "a")
    move(connection, "a", "completed")
    with two(server_url) as (one, other):
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks")
        execute(one, "DELETE FROM task_dependencies")
        with pytest.raises(dao.DatabaseBusy):
            move(other, "a", "pending")
        other.execute("ROLLBACK")
    assert_counted(connection)


def test_task_whose_count_stays_is_not_counted_by_who_does_not_see_what_is_completed(server_url, connection):
    """One predecessor is completed and another reopened: who did not see it, and unlinked one, counted none at all."""
    add(connection, *"abcdt")
    link(connection, "t", "a", "b")
    move(connection, "b", "completed")
    flip = "UPDATE tasks SET status = CASE id WHEN 'a' THEN 'completed' ELSE 'pending' END WHERE id IN ('a', 'b')"
    with two(server_url) as (one, other):
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks")
        one.execute(f"WITH linked AS (INSERT INTO task_dependencies (task_id, depends_on) VALUES ('d', 'c')) {flip}")
        with pytest.raises(dao.DatabaseBusy):
            execute(other, "DELETE FROM task_dependencies WHERE task_id = 't' AND depends_on = 'a'")
        other.execute("ROLLBACK")
    assert_counted(connection)


ENDS = {
    "complete": "UPDATE tasks SET status = 'completed' WHERE id IN ('a', 'd')",
    "reopen": "UPDATE tasks SET status = 'pending' WHERE id IN ('a', 'd')",
    "delete": "DELETE FROM tasks WHERE id = 'd'",
    "pause": "UPDATE workflows SET status = 'paused' WHERE id = 'x'",
    "go on": "UPDATE workflows SET status = 'active' WHERE id = 'x'",
    "end workflow": "DELETE FROM workflows WHERE id = 'y'",
}
CHANGES = {
    "link": "INSERT INTO task_dependencies (task_id, depends_on) VALUES ('b', 'a')",
    "unlink": "DELETE FROM task_dependencies WHERE depends_on = 'd'",
    "complete another": "UPDATE tasks SET status = 'completed' WHERE id = 'c'",
    "put": "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ('x', 'b', 1)",
    "take out": "DELETE FROM workflow_tasks WHERE workflow_id = 'x'",
    "move": "UPDATE workflow_tasks SET task_id = 'b' WHERE workflow_id = 'x' AND task_id = 'a'",
}


@pytest.mark.parametrize(("completed", "paused_before"), [("ad", "x"), ("", "y")])
def test_one_statement_that_changes_two_tables_is_counted_once(server_url, connection, completed, paused_before):
    """Each trigger saw what the other would count, too: a task that waited for two began when one was completed."""
    add(connection, *"abcde")
    link(connection, "b", "c", "d")
    link(connection, "e", "c", "d")
    for id in completed:
        move(connection, id, "completed")
    for id in "xy":
        status = "paused" if id == paused_before else "active"
        dao.workflows.create(connection, make_workflow(id=id, status=status))
        for task in "ac":
            place = make_workflow_task(workflow_id=id, task_id=task)
            execute(connection, rows.WORKFLOW_TASKS.insert, rows.WORKFLOW_TASKS.to_row(place))
    for one, other in itertools.product(ENDS.values(), CHANGES.values()):
        for first, second in [(one, other), (other, one)]:
            connection.execute("BEGIN")
            connection.execute(f"WITH first AS ({first}) {second}")
            assert_counted(connection)
            connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("held", "beside", "after"),
    [
        ("a", lambda own: tasks.delete(own, "b"), lambda own: move(own, "a", "completed")),
        ("b", lambda own: tasks.delete(own, "a"), lambda own: tasks.delete(own, "b")),
        ("b", lambda own: task_dependencies.remove(own, "b", "a"), lambda own: tasks.delete(own, "b")),
        ("a", lambda own: link(own, "c", "a"), lambda own: link(own, "d", "a")),
    ],
    ids=["delete-complete", "delete-delete", "remove-delete", "link-link"],
)
def test_tasks_are_locked_in_one_order_and_before_what_is_between_them(server_url, connection, held, beside, after):
    """Each was a deadlock: one locked a task, or a dependency, that the other needed, and then what the other had."""
    add(connection, *"abcd")
    link(connection, "b", "a")
    with two(server_url) as (one, other):
        with dao.transaction(one):
            fetch(one, "SELECT FROM tasks WHERE id = $1 FOR NO KEY UPDATE", (held,))
            worker = Worker(beside, other)
            wait_for_waiter(one, worker)
            after(one)
        worker.end()
    assert_counted(connection)


def test_two_links_that_make_a_cycle_together_are_not_both_stored(server_url, connection):
    """The second looks when the first is stored."""
    add(connection, "a", "b")
    with two(server_url) as (one, other):
        worker = beside(one, lambda: link(one, "a", "b"), lambda: link(other, "b", "a"))
    assert isinstance(worker.error, dao.CheckViolation)
    assert worker.error.constraint == "task_dependencies_no_cycle"
    assert waiting(connection) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO task_dependencies (task_id, depends_on) VALUES ('a', 'b')", "UPDATE workflows SET status = 'paused'"],
)
def test_what_cannot_be_seen_at_repeatable_read_is_refused_there(server_url, connection, statement):
    """The message says why, and what to do."""
    add(connection, "a", "b")
    dao.workflows.create(connection, make_workflow(id="x", status="active"))
    with two(server_url) as (one, _):
        one.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(
            dao.IntegrityError, match=r"at READ COMMITTED only.*REPEATABLE READ.*use another transaction"
        ):
            execute(one, statement)
        one.execute("ROLLBACK")


@pytest.mark.parametrize("first", ["pause", "link"])
def test_workflow_paused_while_tasks_are_linked_holds_them_back(server_url, connection, first):
    """Whichever was first, the other waits for it, and sees it."""
    add(connection, "a")
    dao.workflows.create(connection, make_workflow(id="x", status="active"))
    place = rows.WORKFLOW_TASKS.to_row(make_workflow_task(workflow_id="x", task_id="a"))

    def pause(own):
        execute(own, "UPDATE workflows SET status = 'paused'")

    def put(own):
        execute(own, rows.WORKFLOW_TASKS.insert, place)

    with two(server_url) as (one, other):
        before, after = (pause, put) if first == "pause" else (put, pause)
        worker = beside(one, lambda: before(one), lambda: after(other))
    assert worker.error is None
    assert paused(connection) == {"a": 1}


@pytest.mark.parametrize("first", ["call", "end"])
def test_call_begun_while_its_attempt_ends_is_not_left_open(server_url, connection, first):
    """Whichever was first: the call is closed, or it is refused."""
    add(connection, "a", status="running")
    with two(server_url) as (one, other):
        if first == "call":
            worker = beside(one, lambda: call(one, status="running"), lambda: move(other, "a", "cancelled"))
            assert worker.error is None
        else:
            worker = beside(one, lambda: move(one, "a", "cancelled"), lambda: call(other, status="running"))
            assert isinstance(worker.error, dao.CheckViolation)
    assert fetch(connection, "SELECT count(*) FROM tool_executions WHERE status = 'running'") == [(0,)]


def test_call_that_the_end_of_its_attempt_does_not_see_is_not_left_open(server_url, connection):
    """A transaction at REPEATABLE READ that ended the attempt left a call open that had begun after the transaction."""
    add(connection, "a", status="running")
    with two(server_url) as (one, other):
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks")
        call(one, status="running")
        with pytest.raises(dao.DatabaseBusy):
            move(other, "a", "completed")
        other.execute("ROLLBACK")
        move(other, "a", "completed")
    assert fetch(connection, "SELECT status FROM tool_executions") == [("failed",)]


def test_call_is_taken_where_nothing_is_written_as_it_is(server_url, connection):
    """PostgreSQL's own trigger that keeps a table from being written in vain refused each call of every attempt."""
    connection.execute(
        "CREATE TRIGGER z BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    add(connection, "a", status="running")
    call(connection, status="running")
    with refused("tool_executions_attempt_current", "tool_executions"):
        call(connection, attempt=2)
    move(connection, "a", "completed")
    assert fetch(connection, "SELECT status FROM tool_executions") == [("failed",)]
