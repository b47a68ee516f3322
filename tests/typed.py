"""What a type checker sees of the public functions; never imported: `make lint` has mypy read it.

Each line with a `type: ignore` is a mistake that mypy has to find: one that it no longer finds is an error, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import dao
from dao import (
    Configuration,
    Page,
    Session,
    Task,
    TaskStatus,
    ToolExecution,
    Workflow,
    WorkflowTask,
    aio,
    configurations,
    connect,
    sessions,
    tasks,
    tool_executions,
    workflow_tasks,
    workflows,
)
from dao.listing import Listing, Walk
from dao.pydantic import PageModel, TaskCreate, TaskModel
from dao.rows import TASKS


def records() -> None:
    """Records from the listing to the page: `tasks.find` returned pages of anything, so far as mypy could tell."""
    c = connect("sqlite://")
    assert_type(tasks.find(c), Page[Task])
    assert_type(workflows.find(c), Page[Workflow])
    assert_type(tool_executions.find(c), Page[ToolExecution])
    assert_type(Listing(TASKS, TaskStatus).page(c), Page[Task])
    assert_type(Listing(TASKS, TaskStatus).walk(c), Walk[Task])
    assert_type(tasks.find(c).items, list[Task])
    assert_type(tasks.iter_all(c), Iterator[Task])
    assert_type(workflows.iter_all(c), Iterator[Workflow])
    assert_type(tool_executions.iter_all(c), Iterator[ToolExecution])
    assert_type(aio.Pool("sqlite://").iterate(tasks.iter_all, status="failed"), AsyncIterator[Task])
    assert_type(dao.Pool("sqlite://").run(tasks.get, "a"), Task | None)
    assert_type(tool_executions.list_errors(c), list[ToolExecution])
    assert_type(sessions.list_active(c), list[Session])
    assert_type(tasks.get(c, "a"), Task | None)
    assert_type(workflow_tasks.get_one(c, "w", "t"), WorkflowTask)
    assert_type(configurations.get_record(c, "a"), Configuration | None)
    assert_type(configurations.get_one(c, "a", int), int)
    assert_type(configurations.get(c, "a", int), int | None)
    assert_type(tasks.find(c), Page[Workflow])  # type: ignore[assert-type]
    assert_type(tasks.find(c), Page[Any])  # type: ignore[assert-type]
    assert_type(TaskCreate(title="a", task_type="b").to_record(), Task)
    assert_type(PageModel[TaskModel](items=[], next=None).items, list[TaskModel])
    str(tasks.find(c).items[0].sequence)  # type: ignore[attr-defined]
    tasks.find(c, title="a")  # type: ignore[call-arg]
    aio.Pool("sqlite://").iterate(tasks.iter_all, title="a")  # type: ignore[call-arg]
    str(dao.nothing)  # type: ignore[attr-defined]
    str(dao.migrate.nothing)  # type: ignore[attr-defined]
    assert_type(dao.Task(title="a", task_type="b"), Task)


def arguments(pool: dao.Pool, task: dao.Task) -> None:
    """Arguments of `write`, `run` and `run_in_transaction`, those of the function: they were not looked at."""
    pool.write(tasks.create, task)
    dao.run_in_transaction(pool, tasks.set_status, "a", "failed", error="b")
    status: dict[dao.TaskStatus, int] = pool.writing(timeout=1)(tasks.count_by_status)  # noqa: F841
    pool.write(tasks.create, "no task")  # type: ignore[arg-type]
    pool.write(tasks.set_status, "a", status="failed", eror="b")  # type: ignore[call-arg]
    pool.writing(timeout=1)(tasks.create)  # type: ignore[call-arg]
    dao.run_in_transaction(pool, tasks.create, 5)  # type: ignore[arg-type]
    dao.replaying(deadline=1)(pool, tasks.create, 5)  # type: ignore[arg-type]


async def arguments_of_aio(pool: aio.Pool, task: dao.Task) -> None:
    """Arguments of the same functions of `dao.aio`."""
    await pool.run(tasks.create, task)
    found: dao.Task | None = await pool.run(tasks.get, "a")  # noqa: F841
    await pool.write(tasks.create, "no task")  # type: ignore[arg-type]
    await pool.run(tasks.create)  # type: ignore[call-arg]
    await pool.writing(timeout=1)(tasks.create, task=5)  # type: ignore[arg-type]
