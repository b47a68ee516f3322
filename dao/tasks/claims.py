"""The functions that workers call: they claim tasks, keep them and end them. Every write presents id and attempt.

`attempt` only grows, so that a worker that was replaced has a token that is good no more: it gets `LeaseLost` for all
that it writes. The token decides, not the clock. A worker whose lease ran out, and whom nobody has replaced, may still
complete its task. The worker's name is presented, too: a number comes again after a claim was undone, and for a task
that was deleted and made again.

All times are those of the caller's clock. A clock that is wrong by more than a lease makes rescues early, or late, and
breaks nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from dao import codec
from dao.engine import Connection, PerEngine, execute, fetch, in_transaction, text_for, transaction
from dao.engine.engines import engine_for
from dao.errors import InvalidValue, UnreadableRow
from dao.listing import check_limit
from dao.records import LONGEST_RETRY_DELAY_MS, Task
from dao.rows import TASKS
from dao.tasks.leases import check_claimed, lease_lost
from dao.tasks.statements import CAN_BEGIN, CAN_FAIL, READY, changed, locking, returning

__all__ = ["claim", "complete", "fail", "release", "renew", "rescue"]

_PRIORITIES = range(9, -1, -1)


def _claiming(of_type: str = "", limit: str = "$4", unless: str = "") -> PerEngine:
    """Return the statement that claims what is due, by priority and then by `run_at`.

    For each priority it seeks in the index of claims, and passes nothing by that is scheduled ahead. PostgreSQL walks
    that index for a list of priorities, and not in its order, so that each has a seek of its own there. It leaves
    alone the tasks that another transaction is claiming.
    """
    ready = f"{READY} AND {CAN_BEGIN} {of_type}AND priority"
    claim = """
UPDATE tasks
SET    updated_at = next_version($1), status = 'running', attempt = attempt + 1, worker = $2, lease_expires_at = $3,
       started_at = $1, completed_at = NULL, error = NULL
WHERE  id"""
    return returning(
        f"""{claim} IN (
    SELECT id
    FROM   tasks
    WHERE  {ready} IN ({", ".join(map(str, _PRIORITIES))}) AND run_at <= $1
    ORDER  BY priority DESC, run_at, id
    LIMIT  {limit}
){unless}""",
        f"""{claim} = ANY (ARRAY(
    SELECT due.id
    FROM   (VALUES ({"), (".join(map(str, _PRIORITIES))})) AS level (priority)
    CROSS  JOIN LATERAL (
        SELECT id
        FROM   tasks
        WHERE  {ready} = level.priority AND run_at <= $1
        ORDER  BY run_at, id
        LIMIT  {limit}
        FOR    NO KEY UPDATE SKIP LOCKED
    ) AS due
    LIMIT  {limit}
)){unless}""",
    )


# ordered, or PostgreSQL may expect to come upon one soon, and read all tasks
_IS_EXPIRED = f"SELECT 1 FROM tasks WHERE lease_expires_at < $1 AND {CAN_FAIL} ORDER BY lease_expires_at LIMIT 1"
_UNLESS_EXPIRED = f"\nAND    ({_IS_EXPIRED}) IS NULL"
_CLAIM = _claiming()
_CLAIM_OF_TYPE = _claiming("AND task_type = $4 ", "$5")
_CLAIM_UNLESS_EXPIRED = _claiming(unless=_UNLESS_EXPIRED)
_CLAIM_OF_TYPE_UNLESS_EXPIRED = _claiming("AND task_type = $4 ", "$5", _UNLESS_EXPIRED)
_ARE_EXPIRED = f"""
FROM   tasks
WHERE  lease_expires_at < $1 AND {CAN_FAIL}
ORDER  BY lease_expires_at, id
LIMIT  $2
"""
_EXPIRED = locking(
    f"SELECT id, attempt, worker, lease_expires_at, failures, retry_delay_ms{_ARE_EXPIRED}", "NO KEY UPDATE"
)
_RENEW = returning("""
UPDATE tasks
SET    lease_expires_at = $1
WHERE  id = $2 AND attempt = $3 AND worker = $4 AND status = 'running'
""")
_COMPLETE = returning("""
UPDATE tasks
SET    updated_at = next_version($1), status = 'completed', completed_at = $1, error = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = $2 AND attempt = $3 AND worker IS NOT DISTINCT FROM $4 AND status = 'running'
""")
# whether the task runs again, as long as $2 allows it
_AGAIN = "failures < retries AND $2"
_FAIL = returning(f"""
UPDATE tasks
SET    updated_at = next_version($1),
       status = CASE WHEN {_AGAIN} THEN 'pending' ELSE 'failed' END,
       run_at = CASE WHEN {_AGAIN} THEN $3 ELSE run_at END,
       started_at = CASE WHEN {_AGAIN} THEN NULL ELSE started_at END,
       completed_at = CASE WHEN {_AGAIN} THEN NULL ELSE $1 END,
       failures = failures + 1, error = $4, worker = NULL, lease_expires_at = NULL
WHERE  id = $5 AND attempt = $6 AND worker IS NOT DISTINCT FROM $7 AND status = 'running'
""")
_RELEASE = returning("""
UPDATE tasks
SET    updated_at = next_version($1), status = 'pending', started_at = NULL, completed_at = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = $2 AND attempt = $3 AND worker IS NOT DISTINCT FROM $4 AND status = 'running'
""")
_RELEASE_UNTIL = returning("""
UPDATE tasks
SET    updated_at = next_version($1), status = 'pending', run_at = $2, started_at = NULL, completed_at = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = $3 AND attempt = $4 AND worker IS NOT DISTINCT FROM $5 AND status = 'running'
""")

# the tasks of a claim, those whose lease has ended, and the end of one that cannot be read: not by its id, since on
# SQLite that may be what cannot be read
_CLAIMED = "FROM tasks WHERE lease_expires_at = $1 AND worker = $2"
_WHICH_CLAIMED = PerEngine(f"SELECT rowid {_CLAIMED}", f"SELECT id {_CLAIMED}")
_WHICH_EXPIRED = PerEngine(f"SELECT rowid{_ARE_EXPIRED}", f"SELECT id{_ARE_EXPIRED}")
_GET_UNREADABLE = PerEngine(
    f"SELECT {TASKS.listed} FROM tasks WHERE rowid = $1", f"SELECT {TASKS.listed} FROM tasks WHERE id = $1"
)
_FAIL_UNREADABLE = PerEngine(
    """
UPDATE tasks
SET    status = 'failed', completed_at = $1, error = $2, worker = NULL, lease_expires_at = NULL
WHERE  rowid = $3
""",
    """
UPDATE tasks
SET    status = 'failed', completed_at = $1, error = $2, worker = NULL, lease_expires_at = NULL
WHERE  id = $3
""",
)

_MILLISECOND = timedelta(milliseconds=1)
# no delay is longer, however often it was doubled
_LONGEST = timedelta(milliseconds=LONGEST_RETRY_DELAY_MS)
# a millisecond that is doubled so often is longer than that
_DOUBLINGS = 27
# so many tasks does a claim rescue at the most
_RESCUED = 100


def claim(
    connection: Connection,
    *,
    worker: str,
    lease: timedelta,
    task_type: str | None = None,
    limit: int = 1,
    now: datetime | None = None,
) -> list[Task]:
    """Begin to run the tasks that are due, as `worker`, and return them as they are then; none if none is due.

    Due is what is pending, waits for no other task, is in no paused workflow, and has its `run_at` behind it. The
    highest priority comes first, then the earliest `run_at`, then the lowest id. No task is given to two callers. Each
    has a new `attempt`; it and the id are the token that the functions below present. Give each `worker` a name of its
    own, such as host and process: by that it is told from another of the same attempt, which there may be once its
    claim was undone with your transaction, or its task was deleted and made again.

    The lease ends after `lease`: `renew` it before that, again and again, or another worker may get the task. Leases
    that have ended are dealt with first, as by `rescue`, a hundred at a time.

    A task that cannot be claimed keeps no other from it. One whose row holds a text that is not UTF-8 ends as failed,
    with an error that says where; one whose `attempt` or `updated_at` is the last that there is, which only plain SQL
    writes, is passed by.

    To wait for work: `claim`, and if that returns nothing, wait and repeat. Nothing needs to run beside the workers.

    Raises:
        InvalidValue: The worker's name or the type is blank, the lease shorter than a millisecond, or the limit not
            from 1 to 1000.
    """
    codec.check_text(worker, "worker")
    if not worker.strip():
        raise InvalidValue(f"worker must not be blank, got {worker!r}")
    check_limit(limit)
    moment = _moment(now)
    text = codec.time_to_text(moment)
    parameters: tuple[Any, ...] = (text, worker, _end(lease, moment))
    statements = (_CLAIM_UNLESS_EXPIRED, _CLAIM)
    if task_type is not None:
        codec.check_text(task_type, "task_type")
        if not task_type.strip():
            raise InvalidValue(f"task_type must not be blank, got {task_type!r}")
        parameters += (task_type,)
        statements = (_CLAIM_OF_TYPE_UNLESS_EXPIRED, _CLAIM_OF_TYPE)
    parameters += (limit,)
    claimed = _claimed(connection, statements[0], parameters)
    if not claimed and fetch(connection, _IS_EXPIRED, (text,)):
        with transaction(connection):
            rescue(connection, now=moment)
            claimed = _claimed(connection, statements[1], parameters)
    if len(claimed) > 1:
        claimed.sort(key=lambda task: (-task.priority, task.run_at, task.id))
    return claimed


def _claimed(connection: Connection, statement: PerEngine, parameters: tuple[Any, ...]) -> list[Task]:
    """Run a claim. Tasks that cannot be read end as failed, with an error that says why, and others take their place.

    SQLite alone takes texts that are not UTF-8.
    """
    *shared, limit = parameters
    # alone, what cannot be read is undone; of several in a transaction, those that can must not be lost with another
    has_to_undo = limit > 1 and in_transaction(connection) and not engine_for(connection).ON_SERVER
    try:
        with transaction(connection) if has_to_undo else contextlib.nullcontext():
            return changed(connection, statement, parameters)
    except UnreadableRow:
        pass
    moment, worker, end, *_ = shared
    claimed: list[Task] = []
    with transaction(connection):
        _fail_unreadable(connection, _WHICH_CLAIMED, moment, (end, worker))
        while len(claimed) < limit:
            try:
                found = changed(connection, statement, (*shared, 1))
            except UnreadableRow:
                _fail_unreadable(connection, _WHICH_CLAIMED, moment, (end, worker))
                continue
            if not found:
                break
            claimed += found
    return claimed


def _fail_unreadable(connection: Connection, which: PerEngine, moment: str, parameters: tuple[Any, ...]) -> bool:
    """End those of some tasks as failed that cannot be read, with an error that says why; return whether any was."""
    has_failed = False
    for (key,) in fetch(connection, text_for(connection, which), parameters):
        try:
            TASKS.from_rows(fetch(connection, text_for(connection, _GET_UNREADABLE), (key,)))
        except UnreadableRow as error:
            values = (moment, str(error), key)
            has_failed |= bool(execute(connection, text_for(connection, _FAIL_UNREADABLE), values))
    return has_failed


def renew(connection: Connection, task: Task, *, lease: timedelta, now: datetime | None = None) -> Task:
    """Prolong the lease of a claimed task: it ends `lease` from now. Return the task as it is then.

    A third of the lease is a good interval. That it was cancelled shows here at the latest. It makes no new version of
    the task, so that a heartbeat is in nobody's way.

    Raises:
        LeaseLost: This attempt no longer has the task: stop, and leave what it has done to the next one.
        InvalidValue: The lease is shorter than a millisecond.
    """
    return _write(connection, _RENEW, (_end(lease, _moment(now)),), task)


def complete(connection: Connection, task: Task, *, now: datetime | None = None) -> Task:
    """End a claimed task as completed, and return it as it is then.

    In one `dao.transaction` with what the worker stores itself, either both are stored or neither.

    Raises:
        LeaseLost: This attempt no longer has the task: whatever was stored in the same transaction must go, too.
    """
    return _write(connection, _COMPLETE, (codec.now_to_text(now),), task)


def fail(
    connection: Connection,
    task: Task,
    *,
    error: str,
    retry: bool = True,
    retry_in: timedelta | None = None,
    jitter: float = 0.1,
    now: datetime | None = None,
) -> Task:
    """End an attempt that failed, and return the task as it is then: pending again, or failed if no retry is left.

    A task has its `retries` beside the first attempt. The first of them comes after its `retry_delay_ms`, each further
    one after twice as long as the one before, up to a day; each delay is multiplied by a random factor from
    `1 - jitter` to `1 + jitter`. `retry_in` says how long instead, exactly. With `retry` False it has failed for good.

    Raises:
        LeaseLost: This attempt no longer has the task.
        InvalidValue: The jitter is not from 0 to 1, or `retry_in` is negative or reaches beyond the year 9999.
        TypeError: `retry` is no bool.
    """
    codec.check_text(error, "error")
    if not isinstance(retry, bool):
        raise TypeError(f"retry must be a bool, got {retry!r}")
    _check_jitter(jitter)
    moment = _moment(now)
    backoff = _backoff(check_claimed(task).failures, task.retry_delay_ms, jitter)
    run_at = _after(moment, backoff if retry_in is None else retry_in, "retry_in", least=timedelta(0))
    return _write(connection, _FAIL, (codec.time_to_text(moment), int(retry), run_at, error), task)


def release(connection: Connection, task: Task, *, run_at: datetime | None = None, now: datetime | None = None) -> Task:
    """Give a claimed task back, and return it as it is then: pending, to be claimed again.

    That is no failure and costs no retry. Without `run_at` it keeps its place, as for a worker that shuts down; with
    `run_at` it is due then, as for one that has to wait for something.

    Raises:
        LeaseLost: This attempt no longer has the task.
    """
    moment = codec.now_to_text(now)
    if run_at is None:
        return _write(connection, _RELEASE, (moment,), task)
    return _write(connection, _RELEASE_UNTIL, (moment, codec.time_to_text(run_at)), task)


def rescue(
    connection: Connection, *, limit: int = _RESCUED, jitter: float = 0.1, now: datetime | None = None
) -> list[Task]:
    """End the attempts whose lease has ended as failed, and return their tasks as they are then, longest lost first.

    Each is pending again after its delay, or failed if no retry is left, as by `fail`. `claim` does the same before it
    claims, so that nobody has to call this. A task that another transaction is writing is left to the next call.

    Raises:
        InvalidValue: The limit is not from 1 to 1000, or the jitter not from 0 to 1.
    """
    check_limit(limit)
    _check_jitter(jitter)
    moment = _moment(now)
    text = codec.time_to_text(moment)
    rescued: list[Task] = []
    with transaction(connection):
        for id, attempt, worker, ended, failures, delay_ms in _expired(connection, text, limit):
            run_at = _after(moment, _backoff(failures, delay_ms, jitter), "retry_delay_ms", least=timedelta(0))
            error = f"the lease of worker {worker!r} ended at {codec.canonical_time(ended)}"
            with contextlib.suppress(UnreadableRow):  # its attempt has ended all the same
                rescued += changed(connection, _FAIL, (text, 1, run_at, error, id, attempt, worker))
    return rescued


def _expired(connection: Connection, moment: str, limit: int) -> list[tuple[Any, ...]]:
    """Return what `rescue` needs of the tasks whose lease has ended. One of which it cannot be read ends as failed."""
    while True:
        try:
            return fetch(connection, text_for(connection, _EXPIRED), (moment, limit))
        except UnreadableRow:
            if not _fail_unreadable(connection, _WHICH_EXPIRED, moment, (moment, limit)):
                raise


# ---------------------------------------------------------------- times


def _moment(now: datetime | None) -> datetime:
    return codec.now() if now is None else codec.millisecond(now)


def _end(lease: timedelta, moment: datetime) -> str:
    return _after(moment, lease, "lease", least=_MILLISECOND)


def _after(moment: datetime, delay: timedelta, name: str, *, least: timedelta) -> str:
    """Return the text of the moment after a delay, unless that is no delay."""
    if not isinstance(delay, timedelta):
        raise TypeError(f"{name} must be a timedelta, got {delay!r}")
    if delay < least:
        raise InvalidValue(f"{name} must be at least {least / _MILLISECOND:.0f} ms, got {delay / _MILLISECOND:g} ms")
    try:
        return codec.time_to_text(moment + delay)
    except OverflowError as error:
        raise InvalidValue(f"{name} must not reach beyond the year 9999, got {delay!r}") from error


def _check_jitter(jitter: float) -> None:
    if not 0 <= jitter <= 1:
        raise InvalidValue(f"jitter must be from 0 to 1, got {jitter!r}")


def _backoff(failures: int, delay_ms: int, jitter: float) -> timedelta:
    """Return how long a task waits that has failed once more than `failures` times."""
    delay = min(timedelta(milliseconds=delay_ms << min(failures, _DOUBLINGS)), _LONGEST)
    if not delay or not jitter:
        return delay
    import random  # noqa: PLC0415 - takes as long to load as the table modules, and only a failure needs it

    return delay * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - no secret


# ---------------------------------------------------------------- tokens


def _write(connection: Connection, statement: PerEngine, parameters: Sequence[Any], task: Task) -> Task:
    """Change a task that the attempt of this record has, and return it as it is then."""
    token = (check_claimed(task).id, task.attempt, task.worker)
    for found in changed(connection, statement, (*parameters, *token), task.id):
        return found
    raise lease_lost(connection, *token)
