"""For tests, of this package and of programs that use it: builders of records, and a clock that stands still.

Each builder returns a record that is complete, valid and unlike the one before. Nothing is stored: that takes a
connection.

Usage::

    from dao.testing import make_task

    task = make_task(status="running")
    tasks.create(connection, task)

`dao.testing.plugin` has fixtures for pytest: databases on both engines, pools, the clock.
"""

from dao.testing.builders import (
    make_configuration,
    make_session,
    make_task,
    make_task_dependency,
    make_task_event,
    make_tool_execution,
    make_workflow,
    make_workflow_task,
)
from dao.testing.clock import Clock

__all__ = [
    "Clock",
    "make_configuration",
    "make_session",
    "make_task",
    "make_task_dependency",
    "make_task_event",
    "make_tool_execution",
    "make_workflow",
    "make_workflow_task",
]
