"""The parts that statements of claims and of the queue share: which tasks are ready, their next version, locks.

`updated_at` is set by them, not by its trigger: the row, its event and the caller have one time, which still increases
whatever the clock does. And nothing changes the row after such a statement, so that SQLite, too, returns it whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dao.engine import Connection, PerEngine, fetch, fetch_changed, text_for, transaction
from dao.errors import UnreadableRow
from dao.records import MAX_INTEGER, Task
from dao.rows import TASKS

__all__ = ["CAN_BEGIN", "CAN_FAIL", "READY", "changed", "changed_one", "locking", "returning"]

#: The condition for a task that runs as soon as it is due; the indexes of claims have it, too.
READY = "status = 'pending' AND waiting_for = 0 AND paused_by = 0"

_CAN_CHANGE = "updated_at < '9999-12-31T23:59:59.999Z'"
#: The conditions for a task that can have a later version and a higher attempt, or another failure. One that cannot,
#: since somebody wrote the last that there is, is passed by: it would keep all others from being claimed.
CAN_BEGIN = f"attempt < {MAX_INTEGER} AND {_CAN_CHANGE}"
CAN_FAIL = f"failures < {MAX_INTEGER} AND {_CAN_CHANGE}"

_NEXT = re.compile(r"next_version\((\$\d+)\)")
_AFTER = PerEngine(
    sqlite=r"max(\1, strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '+0.001 seconds'))",
    # after the last millisecond that there is comes none: NULL, as on SQLite
    postgresql=r"nullif(greatest(\1, updated_at + interval '1 millisecond'), timestamptz '10000-01-01 00:00:00+00')",
)


def returning(sqlite: str, postgresql: str | None = None) -> PerEngine:
    """Return an UPDATE of tasks that returns them as they are then. One text is enough if both engines take it.

    `next_version($n)` in it is the time of the change, or a millisecond after the version before, if that is later.
    """
    texts = PerEngine(sqlite, sqlite if postgresql is None else postgresql)
    return PerEngine(
        *(
            f"{_NEXT.sub(after, text.rstrip())}\nRETURNING {TASKS.listed}"
            for text, after in zip(texts, _AFTER, strict=True)
        )
    )


def locking(select: str, strength: str) -> PerEngine:
    """Return a SELECT whose rows nobody changes until the transaction ends, without those that another has locked.

    SQLite has one writer at a time, and needs no more.
    """
    select = select.rstrip()
    return PerEngine(select, f"{select}\nFOR    {strength} SKIP LOCKED")


def changed(
    connection: Connection, statement: PerEngine, parameters: Sequence[Any], id: str | None = None
) -> list[Task]:
    """Run such a statement and return the tasks that it changed, in no order; alone, it is a transaction.

    Raises:
        Error: As `dao.engine.fetch_changed`. An `UnreadableRow` has the names only if the `id` of the task is given.
    """
    try:
        return TASKS.from_rows(fetch_changed(connection, text_for(connection, statement), parameters))
    except UnreadableRow:
        if id is not None:
            fetch(connection, TASKS.get, (id,))
        raise


def changed_one(connection: Connection, statement: PerEngine, parameters: Sequence[Any], id: str) -> tuple[Task, bool]:
    """Run such a statement for one task. Return the task as it is then, and whether the statement changed it.

    Raises:
        NotFound: There is no such task.
        Error: As `changed`.
    """
    for found in changed(connection, statement, parameters, id):
        return found, True
    with transaction(connection):  # it may have become another since: once more, with nobody in between
        for found in changed(connection, statement, parameters, id):
            return found, True
        return TASKS.found(TASKS.first(fetch(connection, TASKS.get, (id,))), id), False
