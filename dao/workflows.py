"""Workflows: the table `workflows`, its SQL and the functions that run it. Their tasks: `dao.workflow_tasks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from dao.engine import Connection, change, execute, fetch, insert_many
from dao.engine.keys import by_keys, records_by_keys
from dao.listing import Listing, Page, by_status
from dao.records import Workflow, WorkflowStatus
from dao.rows import WORKFLOWS

__all__ = [
    "count",
    "count_by_status",
    "create",
    "create_many",
    "delete",
    "exists",
    "find",
    "get",
    "get_many",
    "get_one",
    "iter_all",
    "set_status",
    "update",
]

_CREATE = WORKFLOWS.insert
_GET = WORKFLOWS.get
_GET_MANY = by_keys(WORKFLOWS)
_EXISTS = "SELECT 1 FROM workflows WHERE id = $1"
_DELETE = "DELETE FROM workflows WHERE id = $1"
_UPDATE = WORKFLOWS.update
_SET_STATUS = WORKFLOWS.changing("UPDATE workflows SET status = $1 WHERE id = $2")
_COUNT_BY_STATUS = "SELECT status, count(*) FROM workflows GROUP BY status"
_ONE_OF_STATUS = "SELECT id FROM workflows WHERE status = $1 ORDER BY created_at, id LIMIT 1"

_LISTING = Listing(WORKFLOWS, WorkflowStatus)


def create(connection: Connection, workflow: Workflow) -> None:
    """Store a new workflow. The record is complete as it is: nothing needs to be read back.

    Raises:
        UniqueViolation: A workflow has this id.
    """
    execute(connection, _CREATE, WORKFLOWS.to_row(workflow))


def create_many(connection: Connection, workflows: Iterable[Workflow]) -> None:
    """Store new workflows in one transaction: all of them or none.

    Raises:
        UniqueViolation: A workflow has one of these ids.
    """
    insert_many(connection, WORKFLOWS, map(WORKFLOWS.to_row, workflows))


def get(connection: Connection, id: str) -> Workflow | None:
    """Return the workflow with this id, or None."""
    return WORKFLOWS.first(fetch(connection, _GET, (id,)))


def get_many(connection: Connection, ids: Iterable[str]) -> dict[str, Workflow]:
    """Return the workflows with these ids, by id, in the order of the ids; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such an id: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, WORKFLOWS, _GET_MANY, ids)


def get_one(connection: Connection, id: str) -> Workflow:
    """Return the workflow with this id.

    Raises:
        NotFound: There is none.
    """
    return WORKFLOWS.found(get(connection, id), id)


def exists(connection: Connection, id: str) -> bool:
    """Return whether there is a workflow with this id."""
    return bool(fetch(connection, _EXISTS, (id,)))


def update(connection: Connection, workflow: Workflow) -> Workflow:
    """Store a changed workflow, provided that nobody changed it meanwhile, and return it with its new `updated_at`.

    `id` and `created_at` stay as they were. Optimistic: `workflow.updated_at` must be what it was when it was read.

    Raises:
        NotFound: There is no such workflow.
        StaleRecord: It was changed since: read it again and repeat the change.
    """
    parameters = WORKFLOWS.for_update(WORKFLOWS.to_row(workflow))
    return change(connection, WORKFLOWS, _UPDATE, parameters, (workflow.id,))


def set_status(connection: Connection, id: str, status: WorkflowStatus | str) -> Workflow:
    """Move a workflow to a status, whatever its present one, and return it as it is then.

    Raises:
        NotFound: There is no such workflow.
        InvalidValue: A workflow has no such status.
    """
    parameters = (WorkflowStatus(status).value, id)
    return change(connection, WORKFLOWS, _SET_STATUS, parameters, (id,))


def delete(connection: Connection, id: str) -> bool:
    """Delete a workflow and its links; its tasks stay. Return whether it was there. Safe to repeat."""
    return bool(execute(connection, _DELETE, (id,)))


def find(
    connection: Connection,
    *,
    status: WorkflowStatus | str | Iterable[WorkflowStatus | str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page[Workflow]:
    """Return a page of workflows by creation time, newest first unless `oldest_first`.

    `status` is one or several. `since` is the earliest `created_at`, `until` the first that is too late. `after` is the
    `next` of the page before, from a call with the same filters and order.

    Raises:
        InvalidValue: The limit is not from 1 to 1000, or the status is unknown.
        InvalidCursor: `after` is not from a page of this query.
    """
    return _LISTING.page(
        connection, status=status, since=since, until=until, oldest_first=oldest_first, limit=limit, after=after
    )


def iter_all(
    connection: Connection,
    *,
    status: WorkflowStatus | str | Iterable[WorkflowStatus | str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
) -> Iterator[Workflow]:
    """Yield all workflows that `find` would, fetched a few hundred at a time: others may write in between."""
    return _LISTING.walk(connection, status=status, since=since, until=until, oldest_first=oldest_first)


def count(
    connection: Connection,
    *,
    status: WorkflowStatus | str | Iterable[WorkflowStatus | str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Return how many workflows `find` would list. Goes through all of them in an index."""
    return _LISTING.count(connection, status=status, since=since, until=until)


def count_by_status(connection: Connection) -> dict[WorkflowStatus, int]:
    """Return how many workflows each status has; every status is there, with zero if need be.

    Raises:
        UnreadableRow: There are some with a status that this program does not know: a newer version wrote them.
    """
    return by_status(connection, Workflow, WorkflowStatus, _COUNT_BY_STATUS, _ONE_OF_STATUS)
