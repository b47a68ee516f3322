"""Builders of records that are complete, valid and unlike one another."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from dao import codec
from dao.records import (
    FINISHED_CALLS,
    FINISHED_TASKS,
    Configuration,
    Session,
    Task,
    TaskDependency,
    TaskEvent,
    TaskStatus,
    ToolExecution,
    ToolStatus,
    Workflow,
    WorkflowTask,
)

__all__ = [
    "make_configuration",
    "make_session",
    "make_task",
    "make_task_dependency",
    "make_task_event",
    "make_tool_execution",
    "make_workflow",
    "make_workflow_task",
]

_numbers = itertools.count(1)

#: How long what is finished took.
_DURATION = timedelta(milliseconds=25)


def make_task(**overrides: Any) -> Task:
    """Return a task, pending unless `status` says otherwise. Its other times, error and attempt suit its status.

    Raises:
        TypeError: An override is no field, or its value is of another type.
        InvalidValue: A value breaks a rule.
    """
    number = next(_numbers)
    status = TaskStatus(overrides.get("status", TaskStatus.PENDING))
    begun = overrides.get("created_at", codec.now())
    finished = status in FINISHED_TASKS
    fields = {
        "title": f"Task {number}",
        "description": f"The subject of task {number}.",
        "task_type": "agent",
        "config": {"number": number, "tools": ["search", "shell"]},
        "metadata": {"labels": ["test"]},
        "workspace_path": f"/workspaces/{number}",
        "error": f"Error {number}" if status is TaskStatus.FAILED else None,
        "created_at": begun,
        "started_at": None if status is TaskStatus.PENDING else begun,
        "completed_at": begun + _DURATION if finished else None,
        "attempt": 0 if status is TaskStatus.PENDING else 1,
        "failures": 1 if status is TaskStatus.FAILED else 0,
    }
    return Task(**{**fields, **overrides})


def make_task_dependency(**overrides: Any) -> TaskDependency:
    """Return a link of a task to one that it waits for. Raises as `make_task`.

    Its two ids are new: to store it, pass the `task_id` and the `depends_on` of rows that exist.
    """
    return TaskDependency(**{"task_id": codec.new_id(), "depends_on": codec.new_id(), **overrides})


def make_task_event(**overrides: Any) -> TaskEvent:
    """Return the event of a task that began to run, as a trigger would write it. Raises as `make_task`."""
    number = next(_numbers)
    fields = {
        "seq": number,
        "task_id": codec.new_id(),
        "attempt": 1,
        "from_status": "pending",
        "to_status": "running",
        "worker": f"worker-{number}",
        "at": codec.now(),
        "previous": {"status": "pending", "started_at": None, "attempt": 0, "worker": None, "lease_expires_at": None},
    }
    return TaskEvent(**{**fields, **overrides})


def make_workflow(**overrides: Any) -> Workflow:
    """Return a workflow, a draft unless `status` says otherwise. Raises as `make_task`."""
    number = next(_numbers)
    fields = {
        "name": f"Workflow {number}",
        "description": f"The subject of workflow {number}.",
        "config": {"number": number},
        "metadata": {"labels": ["test"]},
    }
    return Workflow(**{**fields, **overrides})


def make_workflow_task(**overrides: Any) -> WorkflowTask:
    """Return a link of a workflow and a task, at sequence 0. Raises as `make_task`.

    Its two ids are new: to store it, pass the `workflow_id` and the `task_id` of rows that exist.
    """
    number = next(_numbers)
    fields = {"workflow_id": codec.new_id(), "task_id": codec.new_id(), "sequence": 0, "config": {"number": number}}
    return WorkflowTask(**{**fields, **overrides})


def make_tool_execution(**overrides: Any) -> ToolExecution:
    """Return a tool execution, of no task, pending unless `status` says otherwise. Raises as `make_task`.

    Its other times, its output and its error suit its status.
    """
    number = next(_numbers)
    status = ToolStatus(overrides.get("status", ToolStatus.PENDING))
    begun = overrides.get("created_at", codec.now())
    finished = status in FINISHED_CALLS
    fields = {
        "tool_name": f"tool_{number}",
        "input": {"number": number},
        "output": [number] if status is ToolStatus.COMPLETED else None,
        "error": f"Error {number}" if finished and status is not ToolStatus.COMPLETED else None,
        "duration_ms": _DURATION // timedelta(milliseconds=1) if finished else None,
        "created_at": begun,
        "started_at": None if status is ToolStatus.PENDING else begun,
        "completed_at": begun + _DURATION if finished else None,
    }
    return ToolExecution(**{**fields, **overrides})


def make_session(**overrides: Any) -> Session:
    """Return a session that is open. Raises as `make_task`."""
    number = next(_numbers)
    return Session(**{"client_id": f"client-{number}", "metadata": {"number": number}, **overrides})


def make_configuration(**overrides: Any) -> Configuration:
    """Return a setting. Raises as `make_task`."""
    number = next(_numbers)
    return Configuration(**{"key": f"test.setting-{number}", "value": {"number": number}, **overrides})
