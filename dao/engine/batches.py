"""Changes of many rows, a batch at a time, so that others can write in between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from dao.engine import Connection, PerEngine, fetch, in_transaction, text_for, transaction
from dao.errors import DatabaseBusy, InvalidValue
from dao.records import MAX_INTEGER

__all__ = ["in_batches", "limited"]

# About as long as other connections wait between two tries for the lock: without it they would hardly ever find it
# free.
_PAUSE = 0.005


def limited(change: str, chosen: str, still: str | None = None, *, key: str = "id") -> PerEngine:
    """Return the statement that makes a change to the rows whose keys a SELECT with a limit chooses, and returns these.

    PostgreSQL holds `still` against a row that another changed meanwhile. It takes a limit that it does not know for a
    tenth of the table, for which it would read all of it, unless the keys come as one array.
    """
    end = f"{'' if still is None else f' AND {still}'} RETURNING {key}"
    return PerEngine(f"{change} WHERE {key} IN ({chosen}){end}", f"{change} WHERE {key} = ANY (ARRAY({chosen})){end}")


def in_batches(
    connection: Connection,
    statement: PerEngine,
    parameters: Sequence[Any],
    batch: int,
    *,
    limit: int | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield what a statement returns that changes so many rows at the most, again and again until it finds no more.

    All in all it changes no more than the `limit`. Each time is a transaction of its own; in one of the caller's it is
    a part of that. If another connection keeps the lock for too long meanwhile, the rest is left to the next call.

    Raises:
        DatabaseBusy: So it did at the first time.
        InvalidValue: `batch`, or a `limit` that is given, is no whole number from 1.
    """
    left = MAX_INTEGER if limit is None else _checked("limit", limit)
    _checked("batch", batch)
    sql = text_for(connection, statement)
    begun = False
    while True:
        size = min(batch, left)
        try:
            with transaction(connection):
                rows = fetch(connection, sql, (*parameters, size))
        except DatabaseBusy:
            if not begun or in_transaction(connection):
                raise
            return
        yield from rows
        left -= len(rows)
        if len(rows) < size or not left:
            return
        begun = True
        if not in_transaction(connection):
            time.sleep(_PAUSE)


def _checked(name: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_INTEGER:
        raise InvalidValue(f"{name} must be a whole number from 1, got {number!r}")
    return number
