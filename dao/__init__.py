"""The database layer of a task orchestrator: typed records over SQLite, at nearly the speed of the bare driver.

Usage::

    import dao
    from dao import Task, tasks

    connection = dao.connect("sqlite:///orchestrator.db")
    task = Task(title="Summarise the report", task_type="agent")
    tasks.create(connection, task)
    assert tasks.get(connection, task.id) == task

Every function of a table takes the connection first, then ids, records and values by position, and options by keyword only. `get`
returns a record or None, `get_one` a record or raises `NotFound`, `find` a `Page`, `list_…` a list, `exists` a bool.

The tables come from `dao.migrate`; async code finds the same functions through `dao.aio`. All of it is imported when it is
first used: the command line needs next to nothing of it, and starts in half the time.
"""

import typing as _typing

from dao import _lazy
from dao.errors import *  # noqa: F403 - the whole hierarchy is public
from dao.errors import __all__ as _errors

if _typing.TYPE_CHECKING:
    from dao import (
        aio,
        configurations,
        migrate,
        sessions,
        settings,
        tasks,
        testing,
        tool_executions,
        workflow_tasks,
        workflows,
    )
    from dao.codec import new_id
    from dao.engine import connect, transaction
    from dao.engine.replay import replaying, run_in_transaction
    from dao.listing import Page
    from dao.pool import Health, Pool, PoolStats
    from dao.records import (
        Configuration,
        Session,
        Task,
        TaskStatus,
        ToolExecution,
        ToolStatus,
        Workflow,
        WorkflowStatus,
        WorkflowTask,
    )

__all__ = [
    "Configuration",
    "Health",
    "Page",
    "Pool",
    "PoolStats",
    "Session",
    "Task",
    "TaskStatus",
    "ToolExecution",
    "ToolStatus",
    "Workflow",
    "WorkflowStatus",
    "WorkflowTask",
    "aio",
    "configurations",
    "connect",
    "migrate",
    "new_id",
    "replaying",
    "run_in_transaction",
    "sessions",
    "settings",
    "tasks",
    "testing",
    "tool_executions",
    "transaction",
    "workflow_tasks",
    "workflows",
]
__all__ += _errors  # noqa: PLE0605 - a list of names

_MODULES = (
    "aio",
    "configurations",
    "migrate",
    "sessions",
    "settings",
    "tasks",
    "testing",
    "tool_executions",
    "workflow_tasks",
    "workflows",
)
_NAMES = {
    "codec": ("new_id",),
    "engine": ("connect", "transaction"),
    "engine.replay": ("replaying", "run_in_transaction"),
    "listing": ("Page",),
    "pool": ("Health", "Pool", "PoolStats"),
    "records": (
        "Configuration",
        "Session",
        "Task",
        "TaskStatus",
        "ToolExecution",
        "ToolStatus",
        "Workflow",
        "WorkflowStatus",
        "WorkflowTask",
    ),
}
__getattr__, __dir__ = _lazy.attach(__name__, _NAMES, _MODULES)
