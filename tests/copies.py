"""What the tests of copying share: records to copy, what a database holds, and whether it is marked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dao
from dao import configurations, tasks, workflow_tasks
from dao.engine import execute, fetch, insert_many, transaction
from dao.migrate.database import table_names
from dao.migrate.schema.names import COPY
from dao.rows import SESSIONS, TABLES, TASK_DEPENDENCIES
from dao.testing import make_session, make_task, make_task_dependency, make_tool_execution, make_workflow
from dao.transfer.as_stored import without_triggers

#: The records of all tables, by the names of these.
Records = Mapping[str, Sequence[Any]]


@contextlib.contextmanager
def opened(url: str) -> Iterator[Any]:
    """Lend a connection."""
    with contextlib.closing(dao.connect(url)) as connection:
        yield connection


def fill(url: str, number: int = 5) -> None:
    """Store so many tasks, and a record in each of the other tables."""
    with opened(url) as connection, transaction(connection):
        made = [make_task(title=f"task {position}", config={"position": position}) for position in range(number)]
        tasks.create_many(connection, made)
        execute(
            connection,
            TASK_DEPENDENCIES.insert,
            TASK_DEPENDENCIES.to_row(make_task_dependency(task_id=made[1].id, depends_on=made[0].id)),
        )
        workflow = make_workflow(status="paused")
        dao.workflows.create(connection, workflow)
        workflow_tasks.add(connection, workflow.id, made[0].id)
        dao.tool_executions.record(connection, make_tool_execution(task_id=made[0].id))
        insert_many(connection, SESSIONS, [SESSIONS.to_row(make_session())])
        configurations.set(connection, "limit", 10**40)


def held(url: str) -> Records:
    """Return all records that a database holds, in order of their keys."""
    with opened(url) as connection:
        return {
            table.name: table.from_rows(
                fetch(connection, f"SELECT {table.listed} FROM {table.name} ORDER BY {table.key}")
            )
            for table in TABLES
        }


def empty(url: str) -> None:
    """Delete all records of a database."""
    with opened(url) as connection, transaction(connection), without_triggers(connection, *TABLES):
        for table in reversed(TABLES):
            execute(connection, f"DELETE FROM {table.name}")


def is_marked(url: str) -> bool:
    """Return whether a database is marked as one into which a copy has not ended."""
    with opened(url) as connection:
        return COPY in table_names(connection)
