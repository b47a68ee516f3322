"""The database layer of a task orchestrator: typed records over SQLite and PostgreSQL, nearly as fast as the driver.

Usage::

    import dao
    from dao import Task, tasks

    connection = dao.connect("sqlite:///orchestrator.db")
    task = Task(title="Summarise the report", task_type="agent")
    tasks.create(connection, task)
    assert tasks.get(connection, task.id) == task

Every function of a table takes the connection first, then ids, records and values by position; options go by keyword
only. `get` returns a record or None, `get_one` returns a record or raises `NotFound`, `find` returns a `Page`,
`list_…` a list, `exists` a bool. Every function raises `InvalidValue` for a key or a filter that no row can have, and
for a time without a zone, and `TypeError` for a wrong type.

The tables come from `dao.migrate`. Async code calls the same functions through `dao.aio`. Each name is imported when
it is first used: the command line needs few of them, and starts in half the time.
"""

import typing as _typing

from dao import _lazy
from dao.errors import *  # noqa: F403 - the whole hierarchy is public
from dao.errors import __all__ as _errors

# what type checkers and editors see, and what is imported when it is first used
if _typing.TYPE_CHECKING:
    from dao import aio as aio
    from dao import configurations as configurations
    from dao import migrate as migrate
    from dao import postgresql as postgresql
    from dao import sessions as sessions
    from dao import settings as settings
    from dao import task_dependencies as task_dependencies
    from dao import task_events as task_events
    from dao import tasks as tasks
    from dao import testing as testing
    from dao import tool_executions as tool_executions
    from dao import workflow_tasks as workflow_tasks
    from dao import workflows as workflows
    from dao.codec import new_id as new_id
    from dao.engine import connect as connect
    from dao.engine import execute as execute
    from dao.engine import fetch as fetch
    from dao.engine import transaction as transaction
    from dao.engine.watching import log_slow_statements as log_slow_statements
    from dao.listing import Page as Page
    from dao.observation import Observation as Observation
    from dao.observing import Observed as Observed
    from dao.observing import observe as observe
    from dao.pool import Health as Health
    from dao.pool import Pool as Pool
    from dao.pool import PoolStats as PoolStats
    from dao.records import Configuration as Configuration
    from dao.records import Session as Session
    from dao.records import Task as Task
    from dao.records import TaskDependency as TaskDependency
    from dao.records import TaskEvent as TaskEvent
    from dao.records import TaskStatus as TaskStatus
    from dao.records import ToolExecution as ToolExecution
    from dao.records import ToolStatus as ToolStatus
    from dao.records import Workflow as Workflow
    from dao.records import WorkflowStatus as WorkflowStatus
    from dao.records import WorkflowTask as WorkflowTask
    from dao.transactions import replaying as replaying
    from dao.transactions import run_in_transaction as run_in_transaction
    from dao.transfer import copy as copy
    from dao.waiting import wait_for_change as wait_for_change
else:
    _NAMES = _lazy.Names(
        __name__,
        {
            "": "aio configurations migrate postgresql sessions settings task_dependencies task_events tasks testing "
            "tool_executions workflow_tasks workflows",
            "codec": "new_id",
            "engine": "connect execute fetch transaction",
            "engine.watching": "log_slow_statements",
            "listing": "Page",
            "observation": "Observation",
            "observing": "Observed observe",
            "pool": "Health Pool PoolStats",
            "records": "Configuration Session Task TaskDependency TaskEvent TaskStatus "
            "ToolExecution ToolStatus Workflow WorkflowStatus WorkflowTask",
            "transactions": "replaying run_in_transaction",
            "transfer": "copy",
            "waiting": "wait_for_change",
        },
    )
    __all__ = [name for names in (_NAMES, _errors) for name in names]
    __getattr__, __dir__ = _NAMES.find, _NAMES.listed
