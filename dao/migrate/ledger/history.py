"""The history of a schema: each operation with its time, user, host and duration, and the version of this tool."""

from __future__ import annotations

import heapq
from typing import Any

import attrs

from dao.migrate.database import Target, columns_of, exists, fetch, opened, table_names
from dao.migrate.ledger.entries import in_utc
from dao.migrate.ledger.tables import SET, statements
from dao.migrate.schema.registration import Prepare, preparing

__all__ = ["Deed", "history"]

_BY_TIME = " ORDER BY created_at_utc"
_NOT_OURS = (
    "WHERE _yoyo_log.id NOT IN (SELECT _dao_history.yoyo_log_id FROM _dao_history WHERE yoyo_log_id IS NOT NULL)"
)


@attrs.frozen(kw_only=True)
class Deed:
    """One operation: apply, rollback, mark, unmark, accept, adopt, resolve, reset or restore.

    `at` is in UTC, ISO 8601. `id` is None for what concerns the whole database. `tool_version` is None for what the
    stock `yoyo` command did; `detail` says more, such as what was lost. `set` is that of the migration, None where it
    was not noted.
    """

    at: str
    operation: str
    id: str | None
    duration_ms: int | None
    detail: str | None
    user: str
    host: str
    tool_version: str | None
    set: str | None = None


def history(target: Target, *, prepare: Prepare | None = None) -> list[Deed]:
    """Return all that was done to a database, the oldest first. Reads only; empty for one that does not exist.

    `prepare` is as in `apply`.

    Raises:
        OperationalError: The database cannot be read.
    """
    if not exists(target):
        return []
    with preparing(prepare), opened(target, read_only=True) as connection:
        present, wanted = table_names(connection), statements(connection)
        ours: list[Any] = []
        if "_dao_history" in present:
            has_sets = SET in columns_of(connection, "_dao_history")
            ours = fetch(connection, wanted.history if has_sets else wanted.history_old)
        yoyos: list[Any] = []
        if "_yoyo_log" in present:
            not_ours = _NOT_OURS if "_dao_history" in present else ""
            yoyos = fetch(connection, wanted.log + not_ours + _BY_TIME)
    # ours stay in the order in which they were noted, whatever the clock said
    rows = heapq.merge(ours, yoyos, key=lambda row: str(row[0]).replace(" ", "T"))
    return [
        Deed(
            at=in_utc(at),
            operation=operation,
            id=id,
            duration_ms=duration,
            detail=detail,
            user=user,
            host=host,
            tool_version=version,
            set=of,
        )
        for at, operation, id, duration, detail, user, host, version, of in rows
    ]
