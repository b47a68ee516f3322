"""A call of every function of the table modules, and a database with a row or two in each table for them to work on.

Whoever adds a public function adds a line here: `tests/contract/test_embedding.py` runs them all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import apsw.bestpractice
import attrs
import psycopg
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
from dao.engine import execute, fetch
from tests.plans import MODULES

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
TABLES = [*MODULES]

TASK = dao.Task(id="task", title="a", task_type="agent", created_at=NOON)
OVER = attrs.evolve(TASK, id="over", status="completed", completed_at=NOON)
LOST = attrs.evolve(TASK, id="lost", status="running", attempt=1, worker="w", lease_expires_at=NOON)
HELD = attrs.evolve(LOST, id="held", lease_expires_at=datetime(3000, 1, 1, tzinfo=UTC))
WORKFLOW = dao.Workflow(id="workflow", name="a", created_at=NOON)
CALL = dao.ToolExecution(
    id="call", tool_name="grep", input={}, task_id="task", status="running", created_at=NOON, started_at=NOON
)
FAILURE = dao.ToolExecution(
    id="failure", tool_name="grep", input={}, status="failed", duration_ms=7, created_at=NOON, completed_at=NOON
)

Call = Callable[[Any], object]

# Each writes something into the database that `filled` makes.
WRITERS: dict[str, Call] = {
    "configurations.delete": lambda c: configurations.delete(c, "key"),
    "configurations.set": lambda c: configurations.set(c, "key", 6),
    "configurations.set_many": lambda c: configurations.set_many(c, {"key": 6, "other": 7}),
    "sessions.close": lambda c: sessions.close(c, "session"),
    "sessions.close_stale": lambda c: sessions.close_stale(c, older_than=timedelta(0)),
    "sessions.delete_stale": lambda c: sessions.delete_stale(c, older_than=timedelta(0)),
    "sessions.heartbeat": lambda c: sessions.heartbeat(c, "session"),
    "sessions.open": lambda c: sessions.open(c, client_id="web"),
    "task_dependencies.add": lambda c: task_dependencies.add(c, "third", ["second", "task"]),
    "task_dependencies.chain": lambda c: task_dependencies.chain(c, "workflow"),
    "task_dependencies.remove": lambda c: task_dependencies.remove(c, "second", "over"),
    "task_events.delete_before": lambda c: task_events.delete_before(c, NOON + timedelta(1)),
    "tasks.cancel": lambda c: tasks.cancel(c, "task"),
    "tasks.claim": lambda c: tasks.claim(c, worker="w", lease=timedelta(1)),
    "tasks.complete": lambda c: tasks.complete(c, HELD),
    "tasks.create": lambda c: tasks.create(c, attrs.evolve(TASK, id="new")),
    "tasks.create_many": lambda c: tasks.create_many(c, [attrs.evolve(TASK, id="new"), attrs.evolve(TASK, id="newer")]),
    "tasks.delete": lambda c: tasks.delete(c, "task"),
    "tasks.enqueue": lambda c: tasks.enqueue(c, attrs.evolve(TASK, id="new")),
    "tasks.fail": lambda c: tasks.fail(c, HELD, error="e"),
    "tasks.prune": lambda c: tasks.prune(c, before=NOON + timedelta(1)),
    "tasks.release": lambda c: tasks.release(c, HELD),
    "tasks.renew": lambda c: tasks.renew(c, HELD, lease=timedelta(1)),
    "tasks.rescue": tasks.rescue,
    "tasks.retry": lambda c: tasks.retry(c, "task"),
    "tasks.set_status": lambda c: tasks.set_status(c, "task", "running"),
    "tasks.update": lambda c: tasks.update(c, attrs.evolve(TASK, title="b")),
    "tool_executions.delete_before": lambda c: tool_executions.delete_before(c, NOON + timedelta(1)),
    "tool_executions.fail": lambda c: tool_executions.fail(c, CALL, error="e"),
    "tool_executions.finish": lambda c: tool_executions.finish(c, "call"),
    "tool_executions.record": lambda c: tool_executions.record(c, attrs.evolve(CALL, id="new")),
    "tool_executions.start": lambda c: tool_executions.start(c, tool_name="grep", input=[]),
    "tool_executions.step": lambda c: tool_executions.step(c, HELD, "a", tool_name="grep", input=[]),
    "tool_executions.timeout": lambda c: tool_executions.timeout(c, CALL),
    "workflow_tasks.add": lambda c: workflow_tasks.add(c, workflow_id="workflow", task_id="second", sequence=0),
    "workflow_tasks.move": lambda c: workflow_tasks.move(c, workflow_id="workflow", task_id="task", sequence=5),
    "workflow_tasks.remove": lambda c: workflow_tasks.remove(c, workflow_id="workflow", task_id="task"),
    "workflow_tasks.reorder": lambda c: workflow_tasks.reorder(c, "workflow", ["third", "task"]),
    "workflows.create": lambda c: workflows.create(c, attrs.evolve(WORKFLOW, id="new")),
    "workflows.create_many": lambda c: workflows.create_many(c, [attrs.evolve(WORKFLOW, id="new")]),
    "workflows.delete": lambda c: workflows.delete(c, "workflow"),
    "workflows.set_status": lambda c: workflows.set_status(c, "workflow", "active"),
    "workflows.update": lambda c: workflows.update(c, attrs.evolve(WORKFLOW, name="b")),
}


IDS = ["third", "task", "second", "over", "lost", "held"]


def first_event(connection: Any) -> dao.TaskEvent:
    """Return the event of the task that was made first."""
    return task_events.list_of(connection, "task")[0]


# Each with what it finds in the database that `filled` makes.
READERS: dict[str, tuple[Call, object]] = {
    "configurations.exists": (lambda c: configurations.exists(c, "key"), True),
    "configurations.get": (lambda c: configurations.get(c, "key", int), 5),
    "configurations.get_all": (lambda c: configurations.get_all(c, "k"), {"key": 5}),
    "configurations.get_many": (lambda c: configurations.get_many(c, ["a", "key"]), {"key": 5}),
    "configurations.get_one": (lambda c: configurations.get_one(c, "key", int), 5),
    "configurations.get_record": (lambda c: configurations.get_record(c, "key").value, 5),
    "sessions.count_active": (lambda c: sessions.count_active(c, client_id="cli"), 1),
    "sessions.count_stale": (lambda c: sessions.count_stale(c, older_than=timedelta(0)), 1),
    "sessions.exists": (lambda c: sessions.exists(c, "session"), True),
    "sessions.list_stale": (lambda c: len(sessions.list_stale(c, older_than=timedelta(0))), 1),
    "sessions.get": (lambda c: sessions.get(c, "session").client_id, "cli"),
    "sessions.get_many": (lambda c: [*sessions.get_many(c, ["session", "a"])], ["session"]),
    "sessions.get_one": (lambda c: sessions.get_one(c, "session").client_id, "cli"),
    "sessions.list_active": (lambda c: len(sessions.list_active(c)), 1),
    "task_dependencies.exists": (lambda c: task_dependencies.exists(c, "second", "over"), True),
    "task_dependencies.get": (lambda c: task_dependencies.get(c, "second", "over").depends_on, "over"),
    "task_dependencies.get_many": (
        lambda c: [*task_dependencies.get_many(c, [("second", "over")])],
        [("second", "over")],
    ),
    "task_dependencies.get_one": (lambda c: task_dependencies.get_one(c, "second", "over").task_id, "second"),
    "task_dependencies.list_predecessors": (lambda c: task_dependencies.list_predecessors(c, "second"), [OVER]),
    "task_dependencies.list_successors": (lambda c: len(task_dependencies.list_successors(c, "over")), 1),
    "task_events.count_before": (lambda c: task_events.count_before(c, NOON), 0),
    "task_events.throughput": (lambda c: task_events.throughput(c, since=NOON).completed, 0),
    "task_events.exists": (lambda c: task_events.exists(c, first_event(c).seq), True),
    "task_events.find": (lambda c: [event.task_id for event in task_events.find(c, limit=2).items], ["task", "second"]),
    "task_events.get": (lambda c: task_events.get(c, first_event(c).seq) == first_event(c), True),
    "task_events.get_many": (lambda c: [*task_events.get_many(c, [first_event(c).seq])] == [first_event(c).seq], True),
    "task_events.get_one": (lambda c: task_events.get_one(c, first_event(c).seq) == first_event(c), True),
    "task_events.list_of": (lambda c: len(task_events.list_of(c, "task")), 1),
    "tasks.as_of": (lambda c: tasks.as_of(c, "task", NOON), TASK),
    "tasks.count": (lambda c: tasks.count(c, status="pending"), 3),
    "tasks.count_by_status": (lambda c: tasks.count_by_status(c)[dao.TaskStatus.PENDING], 3),
    "tasks.count_prunable": (lambda c: tasks.count_prunable(c, before=NOON + timedelta(1)), 1),
    "tasks.exists": (lambda c: tasks.exists(c, "task"), True),
    "tasks.find": (lambda c: [task.id for task in tasks.find(c).items], IDS),
    "tasks.get": (lambda c: tasks.get(c, "task"), TASK),
    "tasks.get_many": (lambda c: tasks.get_many(c, ["task", "a"]), {"task": TASK}),
    "tasks.get_one": (lambda c: tasks.get_one(c, "task"), TASK),
    "tasks.iter_all": (lambda c: [task.id for task in tasks.iter_all(c)], IDS),
    "tasks.list_changed": (lambda c: len(tasks.list_changed(c, since=NOON)), 6),
    "tasks.queues": (lambda c: [(state.ready, state.running, state.lost) for state in tasks.queues(c)], [(3, 1, 1)]),
    "tool_executions.count": (lambda c: tool_executions.count(c, task_id="task"), 1),
    "tool_executions.count_before": (lambda c: tool_executions.count_before(c, NOON + timedelta(1)), 2),
    "tool_executions.exists": (lambda c: tool_executions.exists(c, "call"), True),
    "tool_executions.find": (lambda c: tool_executions.find(c).items, [FAILURE, CALL]),
    "tool_executions.get": (lambda c: tool_executions.get(c, "call"), CALL),
    "tool_executions.get_many": (lambda c: tool_executions.get_many(c, ["call"]), {"call": CALL}),
    "tool_executions.get_one": (lambda c: tool_executions.get_one(c, "call"), CALL),
    "tool_executions.iter_all": (lambda c: list(tool_executions.iter_all(c)), [FAILURE, CALL]),
    "tool_executions.list_errors": (tool_executions.list_errors, [FAILURE]),
    "tool_executions.statistics": (lambda c: [row.p95_ms for row in tool_executions.statistics(c)], [7]),
    "workflow_tasks.count": (lambda c: workflow_tasks.count(c, "workflow"), 2),
    "workflow_tasks.exists": (lambda c: workflow_tasks.exists(c, "workflow", "task"), True),
    "workflow_tasks.get_many": (
        lambda c: [*workflow_tasks.get_many(c, [("workflow", "task")])],
        [("workflow", "task")],
    ),
    "workflow_tasks.get_one": (lambda c: workflow_tasks.get_one(c, "workflow", "task").sequence, 0),
    "workflow_tasks.get": (lambda c: workflow_tasks.get(c, workflow_id="workflow", task_id="task").sequence, 0),
    "workflow_tasks.list_tasks": (lambda c: workflow_tasks.list_tasks(c, "workflow")[0].task, TASK),
    "workflow_tasks.list_workflows": (lambda c: workflow_tasks.list_workflows(c, "task"), [WORKFLOW]),
    "workflows.count": (workflows.count, 1),
    "workflows.count_by_status": (lambda c: workflows.count_by_status(c)[dao.WorkflowStatus.DRAFT], 1),
    "workflows.exists": (lambda c: workflows.exists(c, "workflow"), True),
    "workflows.find": (lambda c: workflows.find(c, status="draft").items, [WORKFLOW]),
    "workflows.get": (lambda c: workflows.get(c, "workflow"), WORKFLOW),
    "workflows.get_many": (lambda c: workflows.get_many(c, ["workflow"]), {"workflow": WORKFLOW}),
    "workflows.get_one": (lambda c: workflows.get_one(c, "workflow"), WORKFLOW),
    "workflows.iter_all": (lambda c: list(workflows.iter_all(c)), [WORKFLOW]),
}


def fill(connection: Any) -> None:
    """Store a row or two in each table."""
    tasks.create_many(connection, [attrs.evolve(TASK, id=id) for id in ("task", "second", "third")])
    tasks.create_many(connection, [OVER, LOST, HELD])
    task_dependencies.add(connection, "second", "over")
    workflows.create(connection, WORKFLOW)
    for task_id in ("task", "third"):
        workflow_tasks.add(connection, workflow_id="workflow", task_id=task_id)
    for execution in (CALL, FAILURE):
        tool_executions.record(connection, execution)
    execute(
        connection,
        "INSERT INTO sessions (id, client_id, last_heartbeat) VALUES ('session', 'cli', $1)",
        ("2025-01-15T12:00:00.000Z",),
    )
    configurations.set(connection, "key", 5)


@pytest.fixture(scope="module")
def filled_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a row or two in each table, in SQLite's own journal mode, made once."""
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    path.write_bytes(template.read_bytes())
    connection = apsw.Connection(str(path))
    fill(connection)
    connection.close()
    return path


@attrs.frozen
class Filled:
    """A database of one's own with a row or two in each table."""

    url: str
    #: A session that stays, since one costs more than all that is asked of it; None: one each time, it holds a file.
    looker: psycopg.Connection[Any] | None = None

    def dump(self) -> dict[str, list[tuple]]:
        """Return all that is stored."""
        looking = contextlib.nullcontext(self.looker) if self.looker else contextlib.closing(dao.connect(self.url))
        with looking as connection:
            return {table: fetch(connection, f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


@pytest.fixture
def filled(engine: str, request: pytest.FixtureRequest) -> Iterator[Filled]:
    """A database of one's own with a row or two in each table."""
    if engine == "sqlite":
        path = request.getfixturevalue("tmp_path") / "strangers.db"
        path.write_bytes(request.getfixturevalue("filled_template").read_bytes())
        yield Filled(f"sqlite:///{path}")
        return
    url: str = request.getfixturevalue("postgresql_url")
    with contextlib.closing(dao.connect(url)) as connection:
        fill(connection)
        yield Filled(url, connection)
