"""The verbs that several tables share. Each table's module owns its SQL and hands it in."""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

from dao.engine import Connection, fetch, fetch_changed, transaction, write
from dao.errors import DatabaseBusy, NotFound, StaleRecord
from dao.records import MAX_INTEGER
from dao.rows import Table
from dao.stored import Stored, unreadable

__all__ = ["count_by_status", "found", "get", "in_batches", "member", "not_found", "update"]

R = TypeVar("R", bound=Stored)
E = TypeVar("E", bound=enum.StrEnum)


def get(connection: Connection, table: Table[R], sql: str, key: Sequence[str]) -> R | None:
    """Return the record that a statement finds by its key, or None."""
    rows = fetch(connection, sql, key)
    return table.from_row(rows[0]) if rows else None


def found(record: R | None, table: Table[R], key: object) -> R:
    """Return the record, unless it is None.

    Raises:
        NotFound: It is.
    """
    if record is None:
        raise not_found(table, key)
    return record


def not_found(table: Table[Any], key: object) -> NotFound:
    """Return the error for a key that no row has."""
    return NotFound(f"{table.name}: no row has the key {key!r}", table=table.name, key=key)


def update(
    connection: Connection,
    table: Table[R],
    sql: str,
    parameters: Sequence[Any],
    get_sql: str,
    key: Sequence[str],
    *,
    stale: str = "has changed since it was read: read it again and repeat the change",
) -> R:
    """Run an UPDATE … RETURNING that touches one row or none, and return the row as it is then.

    RETURNING alone would show the row before the trigger's `updated_at`, so the row is read again, in one transaction.

    Raises:
        NotFound: No row has the key.
        StaleRecord: The row is there, and the UPDATE passed it by.
    """
    record = fetch_changed(connection, sql, parameters, get_sql, key, functools.partial(_changed, table, key))
    if record is not None:
        return record
    with transaction(connection):
        # again, so that nobody comes between the change and the look at what is there
        record = fetch_changed(connection, sql, parameters, get_sql, key, functools.partial(_changed, table, key))
    if record is not None:
        return record
    name = _name(key)
    raise StaleRecord(f"{table.name}: {name!r} {stale}", table=table.name, key=name)


def _changed(table: Table[R], key: Sequence[str], changed: bool, rows: list[tuple[Any, ...]]) -> R | None:  # noqa: FBT001
    """Return the record of the row that was changed, or None if it was passed by."""
    if not rows:
        raise not_found(table, _name(key))
    return table.from_row(rows[0]) if changed else None


def _name(key: Sequence[str]) -> object:
    return key[0] if len(key) == 1 else key


def count_by_status(connection: Connection, record: type[R], kind: type[E], counts: str, one: str) -> dict[E, int]:
    """Return how many rows have each status, from a statement that counts them; `one` finds the key of one with a status.

    Raises:
        UnreadableRow: Rows have a status that this program does not know.
    """
    found: dict[str, int] = dict(fetch(connection, counts))
    for status in found.keys() - kind._value2member_map_.keys():
        for key in fetch(connection, one, (status,)):
            raise unreadable(record, key, "status", status, "which it does not know")
    return {status: found.get(status._value_, 0) for status in kind}


# About as long as other connections wait between two tries for the lock: without it they would hardly ever find it free.
_PAUSE = 0.005


def in_batches(connection: Connection, sql: str, parameters: Sequence[Any], batch: int) -> Iterator[tuple[Any, ...]]:
    """Yield what a statement returns that changes so many rows at the most, again and again until it finds no more.

    Each time is a transaction of its own, and others can write in between; in one of the caller's it is a part of that. If
    another connection keeps the lock for too long meanwhile, what is left is left to the next call.

    Raises:
        DatabaseBusy: So it did at the first time.
        ValueError: `batch` is no whole number from 1.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MAX_INTEGER:
        raise ValueError(f"batch must be a whole number from 1, got {batch!r}")
    begun = False
    while True:
        try:
            rows = write(connection, sql, (*parameters, batch))
        except DatabaseBusy:
            if not begun or connection.in_transaction:
                raise
            return
        yield from rows
        if len(rows) < batch:
            return
        begun = True
        if not connection.in_transaction:
            time.sleep(_PAUSE)


def member(kind: type[E], value: str) -> E:
    """Return the member of an enum that a text or the member itself stands for.

    Raises:
        ValueError: There is none.
    """
    try:
        # what the call does, in a third of the time
        found: Any = kind._value2member_map_[value]
    except (KeyError, TypeError):
        found = kind(value)
    return cast("E", found)
