"""Task events: what happened to tasks. The table `task_events`, its SQL and functions.

Triggers write one event for each version of a task, in the transaction that makes it, whichever program does; nobody
else writes any. `TaskEvent` says what is in one. The configuration `task_events`, set to False, leaves them out:
`dao.configurations.set(connection, "task_events", False)`.

To follow along, keep the `seq` of the last event that you have dealt with, in one transaction with what you did about
it, and ask for what comes after::

    seq = configurations.get(connection, "reports.seq", int, default=0)
    while True:
        page = task_events.find(connection, after=seq)
        for event in page.items:
            with dao.transaction(connection):
                report(connection, event)
                configurations.set(connection, "reports.seq", event.seq)
            seq = event.seq
        if not page.has_more:
            dao.wait_for_change(connection, timeout=1)

Each event comes once, and none is missed, though on PostgreSQL a transaction may commit before another that has written
an earlier event: the later one is held back until the earlier has ended. Of one task they come in the order in which it
changed. A follower that is slower than `delete_before` is quick misses what was deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import attrs

from dao import codec
from dao.engine import Connection, PerEngine, fetch, in_transaction, text_for
from dao.engine.batches import in_batches, limited
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import InvalidCursor, OperationalError
from dao.listing import Page, check_limit
from dao.records import MAX_INTEGER, TaskEvent
from dao.rows import TASK_EVENTS

__all__ = [
    "Throughput",
    "count_before",
    "delete_before",
    "exists",
    "find",
    "get",
    "get_many",
    "get_one",
    "list_of",
    "throughput",
]

_GET = TASK_EVENTS.get
_GET_MANY = by_keys(TASK_EVENTS, int)
_EXISTS = "SELECT 1 FROM task_events WHERE seq = $1"
_LIST_OF = f"SELECT {TASK_EVENTS.listed} FROM task_events WHERE task_id = $1 ORDER BY seq"
_FIND = f"SELECT {TASK_EVENTS.listed} FROM task_events WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"
# The last event before which none can come any more. SQLite commits in the order of writing. On PostgreSQL a
# transaction holds an advisory lock from before its first event on, with the last seq that it saw (`sql/postgresql`):
# what comes after the least of these has to wait. This statement sees the events as they were before it read the locks,
# and the page comes after it: so a transaction with an earlier event either holds its lock still, or is seen.
_SETTLED = PerEngine(
    sqlite=f"SELECT {MAX_INTEGER}, 'read committed', FALSE",
    postgresql="""
WITH latest AS (SELECT coalesce(max(seq), 0) AS seq FROM task_events)
SELECT least(seq, (
           SELECT min(seq + (((objid::bigint - (seq & 4294967295)) + 2147483648) & 4294967295) - 2147483648)
           FROM   pg_locks
           WHERE  locktype = 'advisory' AND classid = 'task_events'::regclass::oid AND objsubid = 1 AND granted
           AND    database = (SELECT oid FROM pg_database WHERE datname = current_database())
       )),
       current_setting('transaction_isolation'),
       pg_is_in_recovery()
FROM   latest
""",
)
# not longer than the greatest one, since Python reads no number of thousands of digits
_NUMBER = re.compile(r"[0-9]{1,19}")
_COUNT_BEFORE = "SELECT count(*) FROM task_events WHERE at < $1"
# a task that is given back has no error, one that failed and waits for its next try has
_THROUGHPUT = """
SELECT count(*) FILTER (WHERE to_status = 'completed'),
       count(*) FILTER (WHERE to_status = 'failed'),
       count(*) FILTER (WHERE to_status = 'pending' AND error IS NOT NULL)
FROM   task_events
WHERE  at >= $1 AND from_status = 'running'
"""
_DELETE_BEFORE = limited(
    "DELETE FROM task_events",
    "SELECT seq FROM task_events WHERE at < $1 ORDER BY at, seq LIMIT $2",
    key="seq",
)


@attrs.frozen(kw_only=True)
class Throughput:
    """How many attempts ended in a time: tasks that completed, that failed for good, and that are to be tried again."""

    completed: int
    failed: int
    retried: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that any JSON encoder takes."""
        return attrs.asdict(self)


def get(connection: Connection, seq: int) -> TaskEvent | None:
    """Return the event with this number, or None."""
    return TASK_EVENTS.first(fetch(connection, _GET, (seq,)))


def get_many(connection: Connection, seqs: Iterable[int]) -> dict[int, TaskEvent]:
    """Return the events with these numbers, by number, in their order; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: A number is below 0, or of more than 64 bits.
    """
    return records_by_keys(connection, TASK_EVENTS, _GET_MANY, seqs, int)


def get_one(connection: Connection, seq: int) -> TaskEvent:
    """Return the event with this number.

    Raises:
        NotFound: There is none: it was deleted, or its transaction was undone.
    """
    return TASK_EVENTS.found(get(connection, seq), seq)


def exists(connection: Connection, seq: int) -> bool:
    """Return whether there is an event with this number."""
    return bool(fetch(connection, _EXISTS, (seq,)))


def list_of(connection: Connection, task_id: str) -> list[TaskEvent]:
    """Return all events of a task that are left, oldest first, also of one that has been deleted."""
    return TASK_EVENTS.from_rows(fetch(connection, _LIST_OF, (task_id,)))


def find(connection: Connection, *, after: int | str | None = None, limit: int = 100) -> Page[TaskEvent]:
    """Return a page of the events of all tasks, in the order of `seq`: what came after an event, or the oldest.

    `after` is the `seq` of an event, or the `next` of a page. No event with a lower `seq` will come after those that
    are returned. On PostgreSQL events wait for the transactions that may still bring an earlier one, which have written
    some themselves: a long one holds followers up for as long as it takes. An empty page means that nothing has come
    yet: ask again later with the same `after`.

    Raises:
        InvalidValue: The limit is not from 1 to 1000.
        InvalidCursor: `after` is no number of an event.
        OperationalError: On PostgreSQL, in a transaction at REPEATABLE READ or above, or on a standby: neither knows
            which transactions are open.
    """
    check_limit(limit)
    position = _position(after)
    ((settled, isolation, is_standby),) = fetch(connection, text_for(connection, _SETTLED))
    if is_standby:
        raise OperationalError(
            "a standby does not know which transactions of its primary have written events that it has not got yet: "
            "follow them on the primary"
        )
    if isolation in {"repeatable read", "serializable"} and in_transaction(connection):
        raise OperationalError(
            f"a transaction at {isolation.upper()} sees the events of its beginning, and nobody can tell any more "
            "which of them were complete: follow them outside of it, or at READ COMMITTED"
        )
    events = TASK_EVENTS.from_rows(fetch(connection, _FIND, (position, settled, limit + 1)))
    if len(events) <= limit:
        return Page(events, None)
    events.pop()
    return Page(events, str(events[-1].seq))


def throughput(connection: Connection, *, since: datetime) -> Throughput:
    """Return how many attempts have ended since a moment, and how, as far as events tell. Reads the events since then.

    Raises:
        InvalidValue: The moment is naive.
    """
    ((completed, failed, retried),) = fetch(connection, _THROUGHPUT, (codec.time_to_text(since),))
    return Throughput(completed=completed, failed=failed, retried=retried)


def count_before(connection: Connection, moment: datetime) -> int:
    """Return how many events `delete_before` would delete.

    Raises:
        InvalidValue: The moment is naive.
    """
    return int(fetch(connection, _COUNT_BEFORE, (codec.time_to_text(moment),))[0][0])


def delete_before(connection: Connection, moment: datetime, *, limit: int | None = None, batch: int = 1000) -> int:
    """Delete all events from before a moment, oldest first, and return how many it deleted.

    `tasks.as_of` then tells no moment before that one, unless the task has not changed since. In batches, with a limit
    and with errors as `tool_executions.delete_before`. Safe to repeat.

    Raises:
        DatabaseBusy: Another connection kept the write lock before any was deleted.
        InvalidValue: The moment is naive, or `limit` or `batch` is no whole number from 1.
    """
    before = codec.time_to_text(moment)
    return sum(1 for _ in in_batches(connection, _DELETE_BEFORE, (before,), batch, limit=limit))


def _position(after: int | str | None) -> int:
    if after is None:
        return 0
    if type(after) is int and 0 <= after <= MAX_INTEGER:
        return after
    if isinstance(after, str) and _NUMBER.fullmatch(after) and int(after) <= MAX_INTEGER:
        return int(after)
    raise InvalidCursor(f"after is the seq of an event, or the `next` of a page of events, got {after!r}")
