"""What the tests of claims do with tasks in raw SQL, as any other program may; and what must be so afterwards."""

from __future__ import annotations

from dao import codec, tasks
from dao.engine import execute, fetch
from dao.testing import make_task

FINISHED = ("completed", "failed", "cancelled")
STATUSES = ("pending", "running", *FINISHED)


def add(connection, *names, **fields):
    """Store tasks whose ids are these names."""
    for name in names:
        tasks.create(connection, make_task(id=name, **fields))


def link(connection, task, *predecessors):
    """Have a task wait for others."""
    for predecessor in predecessors:
        execute(connection, "INSERT INTO task_dependencies (task_id, depends_on) VALUES ($1, $2)", (task, predecessor))


def move(connection, task, status):
    """Give a task a status, and an attempt of its own if it runs."""
    execute(
        connection,
        "UPDATE tasks SET attempt = attempt + CASE WHEN status <> 'running' AND $1 = 'running' THEN 1 ELSE 0 END, "
        "worker = NULL, lease_expires_at = NULL, status = $1 WHERE id = $2",
        (status, task),
    )


def waiting(connection):
    """Return for how many tasks each task waits."""
    return dict(fetch(connection, "SELECT id, waiting_for FROM tasks"))


def paused(connection):
    """Return in how many paused workflows each task is."""
    return dict(fetch(connection, "SELECT id, paused_by FROM tasks"))


def assert_counted(connection):
    """The counters are what the tables say."""
    assert waiting(connection) == dict(
        fetch(
            connection,
            "SELECT id, (SELECT count(*) FROM task_dependencies JOIN tasks AS others ON others.id = depends_on "
            "WHERE task_id = tasks.id AND others.status <> 'completed') FROM tasks",
        )
    )
    assert paused(connection) == dict(
        fetch(
            connection,
            "SELECT id, (SELECT count(*) FROM workflow_tasks JOIN workflows ON workflows.id = workflow_id "
            "WHERE task_id = tasks.id AND workflows.status = 'paused') FROM tasks",
        )
    )


def events(connection, task=None):
    """Return the events of a task, or of all, as they are stored but for their number."""
    found = fetch(
        connection,
        "SELECT task_id, attempt, from_status, to_status, worker, error, at, previous FROM task_events "
        f"WHERE {'task_id = $1' if task else 'true'} ORDER BY seq",
        (task,) if task else (),
    )
    return [(*row[:6], codec.canonical_time(row[6]), row[7]) for row in found]
