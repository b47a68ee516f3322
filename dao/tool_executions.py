"""Tool executions: one row for each call of a tool. The table `tool_executions`, its SQL and functions."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from dao import codec
from dao.engine import Connection, change, execute, fetch, in_transaction, transaction
from dao.engine.batches import in_batches, limited
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import CheckViolation, NotFound, StaleRecord
from dao.listing import Listing, Page
from dao.records import Task, TaskStatus, ToolExecution, ToolStatus
from dao.rows import TOOL_EXECUTIONS
from dao.tasks.leases import check_claimed, lease_lost
from dao.tool_statistics import ToolStatistics, statistics

__all__ = [
    "ToolStatistics",
    "count",
    "count_before",
    "delete_before",
    "exists",
    "fail",
    "find",
    "finish",
    "get",
    "get_many",
    "get_one",
    "iter_all",
    "list_errors",
    "record",
    "start",
    "statistics",
    "step",
    "timeout",
]

_CREATE = TOOL_EXECUTIONS.insert
_GET = TOOL_EXECUTIONS.get
_GET_MANY = by_keys(TOOL_EXECUTIONS)
_STEP = (
    f"SELECT {TOOL_EXECUTIONS.listed} FROM tool_executions WHERE task_id = $1 AND step = $2 AND status = 'completed'"
)
_EXISTS = "SELECT 1 FROM tool_executions WHERE id = $1"
_END = TOOL_EXECUTIONS.changing("""
UPDATE tool_executions
SET    status = $1, output = $2, error = $3, completed_at = $4, duration_ms = $5
WHERE  id = $6 AND status IN ('pending', 'running')
""")
_MILLISECOND = timedelta(milliseconds=1)
# the trigger that takes a call only from the attempt that has its task
_ATTEMPT_CURRENT = "tool_executions_attempt_current"
_DELETE_BEFORE = limited(
    "DELETE FROM tool_executions",
    "SELECT id FROM tool_executions WHERE created_at < $1 ORDER BY created_at LIMIT $2",
)
_DELETE_BEFORE_WITHOUT_TASK = limited(
    "DELETE FROM tool_executions",
    "SELECT id FROM tool_executions WHERE created_at < $1 AND task_id IS NULL ORDER BY created_at LIMIT $2",
)
_COUNT_BEFORE = "SELECT count(*) FROM tool_executions WHERE created_at < $1"
_COUNT_BEFORE_WITHOUT_TASK = "SELECT count(*) FROM tool_executions WHERE created_at < $1 AND task_id IS NULL"

_LISTING = Listing(TOOL_EXECUTIONS, ToolStatus, rare=["task_id"])


def start(
    connection: Connection,
    *,
    tool_name: str,
    input: Any,
    task_id: str | None = None,
    task: Task | None = None,
    now: datetime | None = None,
) -> ToolExecution:
    """Store a call that begins now, with the status running, and return it.

    `task` is the claimed task that it is made for, as `claim` returned it: then the call is one of that attempt, taken
    only while that has its task, and failed if it is still open when the attempt ends. With a `task_id` alone it
    belongs to that task and to no attempt.

    Hand the returned record to `finish`, `fail` or `timeout`: in this process it also carries the monotonic clock, by
    which a duration is right even if the system's clock is set meanwhile.

    Raises:
        LeaseLost: The attempt no longer has its task: do not make the call.
        ForeignKeyViolation: There is no such task.
        InvalidValue: The tool's name is blank, or the input is no JSON value (TypeError).
        TypeError: Both `task` and `task_id` are given.
    """
    if task is None:
        return _start(connection, tool_name, input, now, task_id=task_id)
    if task_id is not None:
        raise TypeError("give the claimed task, or the id of a task, not both")
    return _start(connection, tool_name, input, now, **_attempt(task))


def step(
    connection: Connection, task: Task, name: str, *, tool_name: str, input: Any, now: datetime | None = None
) -> ToolExecution:
    """Return the completed call that stands for a step of a claimed task, or a new one that begins now.

    A step is made once, however often its task is tried: the call that completed it stands for it in all later
    attempts, with its output, and the tool is not called again. `name` is what makes them the same; tool and input are
    not compared. A call whose outcome is not known, since its worker was lost, does not stand for it::

        call = tool_executions.step(connection, task, "fetch", tool_name="http", input={"url": url})
        if call.status is not ToolStatus.COMPLETED:
            call = tool_executions.finish(connection, call, output=fetch(url))

    Of a new call, all is as of `start` with the task.

    Raises:
        LeaseLost: The attempt no longer has its task, and the step is yet to be made.
        InvalidValue: The step's name is empty or the tool's blank, or the input is no JSON value (TypeError).
    """
    attempt = _attempt(task)
    codec.check_text(name, "name")
    for row in fetch(connection, _STEP, (task.id, name)):
        return TOOL_EXECUTIONS.from_row(row)
    return _start(connection, tool_name, input, now, step=name, **attempt)


def record(connection: Connection, execution: ToolExecution) -> None:
    """Store a tool execution as it is: a finished call in one insert, or one that is still pending.

    Raises:
        UniqueViolation: An execution has this id.
        ForeignKeyViolation: There is no such task.
    """
    execute(connection, _CREATE, TOOL_EXECUTIONS.to_row(execution), TOOL_EXECUTIONS)


def finish(
    connection: Connection, execution: ToolExecution | str, *, output: Any = None, now: datetime | None = None
) -> ToolExecution:
    """End a call as completed, with its output, and return it as it is then. `execution` is the record or its id.

    The duration counts from `started_at`: by the monotonic clock for a record that `start` returned in this process,
    else by the system's clock, and never below zero. A call that never started has none.

    Raises:
        NotFound: There is no such execution.
        LeaseLost: It is a call of an attempt that has lost its task, by which it was ended as failed.
        StaleRecord: It has ended already. The first end stands.
        UniqueViolation: Another call stands for this step already.
        InvalidValue: The output is no JSON value (TypeError).
    """
    return _end(connection, execution, ToolStatus.COMPLETED, output, None, now)


def fail(
    connection: Connection,
    execution: ToolExecution | str,
    *,
    error: str,
    output: Any = None,
    now: datetime | None = None,
) -> ToolExecution:
    """End a call as failed, with its error, and return it as it is then. Otherwise as `finish`."""
    return _end(connection, execution, ToolStatus.FAILED, output, error, now)


def timeout(
    connection: Connection,
    execution: ToolExecution | str,
    *,
    error: str | None = None,
    output: Any = None,
    now: datetime | None = None,
) -> ToolExecution:
    """End a call that took too long, and return it as it is then. Otherwise as `finish`."""
    return _end(connection, execution, ToolStatus.TIMEOUT, output, error, now)


def get(connection: Connection, id: str) -> ToolExecution | None:
    """Return the tool execution with this id, or None."""
    return TOOL_EXECUTIONS.first(fetch(connection, _GET, (id,)))


def get_many(connection: Connection, ids: Iterable[str]) -> dict[str, ToolExecution]:
    """Return the tool executions with these ids, by id, in the order of the ids; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such an id: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, TOOL_EXECUTIONS, _GET_MANY, ids)


def get_one(connection: Connection, id: str) -> ToolExecution:
    """Return the tool execution with this id.

    Raises:
        NotFound: There is none.
    """
    return TOOL_EXECUTIONS.found(get(connection, id), id)


def exists(connection: Connection, id: str) -> bool:
    """Return whether there is a tool execution with this id."""
    return bool(fetch(connection, _EXISTS, (id,)))


def find(
    connection: Connection,
    *,
    tool_name: str | None = None,
    status: ToolStatus | str | Iterable[ToolStatus | str] | None = None,
    task_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page[ToolExecution]:
    """Return a page of tool executions by creation time, newest first unless `oldest_first`.

    `status` is one or several. `since` is the earliest `created_at`, `until` the first that is too late. `after` is the
    `next` of the page before, from a call with the same filters and order.

    Raises:
        InvalidValue: The limit is not from 1 to 1000, or the status is unknown.
        InvalidCursor: `after` is not from a page of this query.
    """
    return _LISTING.page(
        connection,
        tool_name=tool_name,
        status=status,
        task_id=task_id,
        since=since,
        until=until,
        oldest_first=oldest_first,
        limit=limit,
        after=after,
    )


def iter_all(
    connection: Connection,
    *,
    tool_name: str | None = None,
    status: ToolStatus | str | Iterable[ToolStatus | str] | None = None,
    task_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
) -> Iterator[ToolExecution]:
    """Yield all tool executions that `find` would, fetched a few hundred at a time: others may write in between."""
    return _LISTING.walk(
        connection,
        tool_name=tool_name,
        status=status,
        task_id=task_id,
        since=since,
        until=until,
        oldest_first=oldest_first,
    )


def count(
    connection: Connection,
    *,
    tool_name: str | None = None,
    status: ToolStatus | str | Iterable[ToolStatus | str] | None = None,
    task_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Return how many tool executions `find` would list. Goes through all of them in an index."""
    return _LISTING.count(connection, tool_name=tool_name, status=status, task_id=task_id, since=since, until=until)


def list_errors(connection: Connection, *, tool_name: str | None = None, limit: int = 50) -> list[ToolExecution]:
    """Return the latest calls that failed or timed out, newest first.

    Raises:
        InvalidValue: The limit is not from 1 to 1000.
    """
    statuses = (ToolStatus.FAILED, ToolStatus.TIMEOUT)
    return find(connection, tool_name=tool_name, status=statuses, limit=limit).items


def recent_errors(connection: Connection, *, tool_name: str | None = None, limit: int = 50) -> list[ToolExecution]:
    """Return what `list_errors` does, under its old name, which goes in 0.3."""
    warnings.warn("tool_executions.recent_errors is now tool_executions.list_errors", DeprecationWarning, stacklevel=2)
    return list_errors(connection, tool_name=tool_name, limit=limit)


def count_before(connection: Connection, moment: datetime, *, without_task: bool = False) -> int:
    """Return how many executions `delete_before` would delete.

    Raises:
        InvalidValue: The moment is naive.
    """
    sql = _COUNT_BEFORE_WITHOUT_TASK if without_task else _COUNT_BEFORE
    return int(fetch(connection, sql, (codec.time_to_text(moment),))[0][0])


def delete_before(
    connection: Connection,
    moment: datetime,
    *,
    without_task: bool = False,
    limit: int | None = None,
    batch: int = 1000,
) -> int:
    """Delete all executions created before a moment, whatever their status, and return how many it deleted.

    `without_task` spares those of tasks, which go with their task. The oldest first, and no more than the `limit`.
    `batch` at a time, each in a transaction of its own, so that others can write in between; in a transaction of yours
    all of it is a part of that. If another connection keeps the write lock for longer than the busy timeout when some
    are deleted, the rest is left to the next call. Safe to repeat.

    The steps of tasks that are not finished yet would be made again.

    Raises:
        DatabaseBusy: Another connection kept it before any was deleted.
        InvalidValue: The moment is naive, or `limit` or `batch` is no whole number from 1.
    """
    before = codec.time_to_text(moment)
    statement = _DELETE_BEFORE_WITHOUT_TASK if without_task else _DELETE_BEFORE
    return sum(1 for _ in in_batches(connection, statement, (before,), batch, limit=limit))


def _end(
    connection: Connection,
    execution: ToolExecution | str,
    status: ToolStatus,
    output: Any,
    error: str | None,
    now: datetime | None,
) -> ToolExecution:
    if not isinstance(execution, str | ToolExecution):
        raise TypeError(f"expected a ToolExecution or its id, got {type(execution).__name__}")
    if isinstance(execution, str):
        with transaction(connection):
            return _end(connection, get_one(connection, execution), status, output, error, now)
    if error is not None:
        codec.check_text(error, "error")
    output_text = None if output is None else codec.plain_json_text(output, "output")
    completed_at, duration = _ended(execution, now)
    parameters = (status._value_, output_text, error, completed_at, duration, execution.id)
    try:
        return change(connection, TOOL_EXECUTIONS, _END, parameters, (execution.id,), stale="has ended already")
    except (StaleRecord, NotFound) as refused:
        if execution.attempt is not None and execution.task_id is not None:
            lost = lease_lost(connection, execution.task_id, execution.attempt, None)
            if (lost.status, lost.attempt) != (TaskStatus.RUNNING, execution.attempt):
                raise lost from refused
        raise


def _attempt(task: Task) -> dict[str, Any]:
    """Return the token of a claimed task, by column."""
    return {"task_id": check_claimed(task).id, "attempt": task.attempt}


def _start(connection: Connection, tool_name: str, input: Any, now: datetime | None, **of: Any) -> ToolExecution:
    if of.get("attempt") == 0:  # a task that nobody has claimed yet
        raise lease_lost(connection, of["task_id"], 0, None)
    moment = codec.now() if now is None else codec.millisecond(now)
    execution = ToolExecution(
        tool_name=tool_name,
        input=input,
        status=ToolStatus.RUNNING,
        created_at=moment,
        started_at=moment,
        **of,
    )
    try:
        # a savepoint, since the holder of the task is asked for if this is refused
        with transaction(connection) if in_transaction(connection) else contextlib.nullcontext():
            record(connection, execution)
    except CheckViolation as refused:
        if refused.constraint != _ATTEMPT_CURRENT:
            raise
        raise lease_lost(connection, of["task_id"], of["attempt"], None) from refused
    if now is None:
        object.__setattr__(execution, "_monotonic", codec.monotonic())
    return execution


def _ended(execution: ToolExecution, now: datetime | None) -> tuple[str, int | None]:
    """Return when a call that ends now has ended, as text, and after how many milliseconds."""
    begun: float | None = getattr(execution, "_monotonic", None) if now is None else None
    if begun is not None:
        return codec.now_to_text(), max(0, round((codec.monotonic() - begun) * 1000))
    moment = codec.now() if now is None else codec.millisecond(now)
    duration = None
    if execution.started_at is not None:
        duration = max(0, (moment - execution.started_at) // _MILLISECOND)
    return codec.time_to_text(moment), duration
