"""The database layer of a task orchestrator: typed records over SQLite, at nearly the speed of the bare driver.

Usage::

    import dao
    from dao import Task, tasks

    connection = dao.connect("sqlite:///orchestrator.db")
    task = Task(title="Summarise the report", task_type="agent")
    tasks.create(connection, task)
    assert tasks.get(connection, task.id) == task

The tables come from `dao.migrate`; async code finds the same functions through `dao.aio`. Neither is imported here.
"""

from dao import configurations, sessions, tasks, tool_executions, workflow_tasks, workflows
from dao.codec import new_id
from dao.engine import connect, run_in_transaction, transaction
from dao.errors import *  # noqa: F403 - the whole hierarchy is public
from dao.errors import __all__ as _errors
from dao.paging import Page
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
    "configurations",
    "connect",
    "new_id",
    "run_in_transaction",
    "sessions",
    "tasks",
    "tool_executions",
    "transaction",
    "workflow_tasks",
    "workflows",
]
__all__ += _errors  # noqa: PLE0605 - a list of names
