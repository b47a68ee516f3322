"""Sessions: clients' WebSocket sessions. The table `sessions`, its SQL and the functions that run it.

A session is stale when no heartbeat came for longer than a given time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from dao import codec
from dao.engine import Connection, execute, fetch
from dao.engine.batches import in_batches, limited
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import NotFound
from dao.records import Session
from dao.rows import SESSIONS

__all__ = [
    "close",
    "close_stale",
    "count_active",
    "count_stale",
    "delete_stale",
    "exists",
    "get",
    "get_many",
    "get_one",
    "heartbeat",
    "list_active",
    "list_stale",
    "open",
]

_CREATE = SESSIONS.insert
_GET = SESSIONS.get
_GET_MANY = by_keys(SESSIONS)
_EXISTS = "SELECT 1 FROM sessions WHERE id = $1"
# a heartbeat that arrives late does not turn the clock back
_HEARTBEAT = """
UPDATE sessions
SET    last_heartbeat = CASE WHEN last_heartbeat < $1 THEN $1 ELSE last_heartbeat END
WHERE  id = $2 AND is_active = TRUE
"""
_CLOSE = "UPDATE sessions SET is_active = FALSE WHERE id = $1 AND is_active = TRUE"
_LIST_ACTIVE = f"SELECT {SESSIONS.listed} FROM sessions WHERE is_active = TRUE ORDER BY created_at, id"
_LIST_ACTIVE_OF_CLIENT = (
    f"SELECT {SESSIONS.listed} FROM sessions WHERE client_id = $1 AND is_active = TRUE ORDER BY created_at, id"
)
_LIST_STALE = f"""
SELECT {SESSIONS.listed}
FROM   sessions
WHERE  is_active = TRUE AND last_heartbeat < $1
ORDER  BY last_heartbeat, id
"""
# CASE lets no index serve the condition
_CLOSE_STALE = limited(
    "UPDATE sessions SET is_active = FALSE",
    "SELECT id FROM sessions WHERE is_active = TRUE AND last_heartbeat < $1 ORDER BY last_heartbeat LIMIT $2",
    "CASE WHEN is_active THEN last_heartbeat < $1 END",
)
# closed ones too; naming both values, and the order, lets the index find them
_DELETE_STALE = limited(
    "DELETE FROM sessions",
    "SELECT id FROM sessions WHERE is_active IN (FALSE, TRUE) AND last_heartbeat < $1"
    " ORDER BY is_active, last_heartbeat LIMIT $2",
    "last_heartbeat < $1",
)
_COUNT_STALE = "SELECT count(*) FROM sessions WHERE is_active IN (FALSE, TRUE) AND last_heartbeat < $1"
_COUNT_ACTIVE = "SELECT count(*) FROM sessions WHERE is_active = TRUE"
_COUNT_ACTIVE_OF_CLIENT = "SELECT count(*) FROM sessions WHERE client_id = $1 AND is_active = TRUE"


def open(connection: Connection, *, client_id: str, metadata: Any = None, now: datetime | None = None) -> Session:
    """Store a new session of a client and return it.

    Raises:
        InvalidValue: The client's id is blank, or the metadata is no JSON value (TypeError).
    """
    moment = codec.now() if now is None else now
    session = Session(client_id=client_id, metadata=metadata, created_at=moment)
    execute(connection, _CREATE, SESSIONS.to_row(session))
    return session


def heartbeat(connection: Connection, id: str, *, now: datetime | None = None) -> None:
    """Note that an open session is alive.

    Raises:
        NotFound: No open session has this id. It may have been closed as stale: let the client open another.
    """
    moment = codec.now_to_text(now)
    if not execute(connection, _HEARTBEAT, (moment, id)):
        raise NotFound(f"sessions: no open session has the id {id!r}; open a new one", table="sessions", key=id)


def close(connection: Connection, id: str) -> bool:
    """Close a session. Return whether it was open. Safe to repeat."""
    return bool(execute(connection, _CLOSE, (id,)))


def get(connection: Connection, id: str) -> Session | None:
    """Return the session with this id, open or closed, or None."""
    return SESSIONS.first(fetch(connection, _GET, (id,)))


def get_many(connection: Connection, ids: Iterable[str]) -> dict[str, Session]:
    """Return the sessions with these ids, by id, in the order of the ids; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such an id: half of a surrogate pair, a NUL.
    """
    return records_by_keys(connection, SESSIONS, _GET_MANY, ids)


def get_one(connection: Connection, id: str) -> Session:
    """Return the session with this id, open or closed.

    Raises:
        NotFound: There is none.
    """
    return SESSIONS.found(get(connection, id), id)


def exists(connection: Connection, id: str) -> bool:
    """Return whether there is a session with this id, open or closed."""
    return bool(fetch(connection, _EXISTS, (id,)))


def list_active(connection: Connection, *, client_id: str | None = None) -> list[Session]:
    """Return all open sessions, of one client or of all, in the order in which they were opened."""
    if client_id is None:
        rows = fetch(connection, _LIST_ACTIVE)
    else:
        rows = fetch(connection, _LIST_ACTIVE_OF_CLIENT, (client_id,))
    return SESSIONS.from_rows(rows)


def list_stale(connection: Connection, *, older_than: timedelta, now: datetime | None = None) -> list[Session]:
    """Return all open sessions whose last heartbeat is older than that, the longest silent first."""
    return SESSIONS.from_rows(fetch(connection, _LIST_STALE, (_cutoff(older_than, now),)))


def find_stale(connection: Connection, *, older_than: timedelta, now: datetime | None = None) -> list[Session]:
    """Return what `list_stale` does, under its old name, which goes in 0.3."""
    warnings.warn("sessions.find_stale is now sessions.list_stale", DeprecationWarning, stacklevel=2)
    return list_stale(connection, older_than=older_than, now=now)


def close_stale(
    connection: Connection,
    *,
    older_than: timedelta,
    now: datetime | None = None,
    limit: int | None = None,
    batch: int = 1000,
) -> list[str]:
    """Close the sessions that `list_stale` would return, and return the ids of those that it closed, sorted.

    The longest silent first, and no more than the `limit`. `batch` at a time, each in a transaction of its own, so that
    others can write in between; in a transaction of yours all of it is a part of that. A session whose heartbeat comes
    at the same time is either closed or spared, and of two callers only one gets its id. If another connection keeps
    the write lock for longer than the busy timeout when some are closed, the rest is left to the next call.

    Raises:
        DatabaseBusy: Another connection kept it before any was closed.
        InvalidValue: `limit` or `batch` is no whole number from 1.
    """
    parameters = (_cutoff(older_than, now),)
    return sorted(id for (id,) in in_batches(connection, _CLOSE_STALE, parameters, batch, limit=limit))


def delete_stale(
    connection: Connection,
    *,
    older_than: timedelta,
    now: datetime | None = None,
    limit: int | None = None,
    batch: int = 1000,
) -> list[str]:
    """Delete all sessions, open or closed, whose last heartbeat is older than that, and return their ids, sorted.

    In batches, with a limit and with errors as `close_stale`; the closed ones first.

    Raises:
        InvalidValue: `limit` or `batch` is no whole number from 1.
    """
    parameters = (_cutoff(older_than, now),)
    return sorted(id for (id,) in in_batches(connection, _DELETE_STALE, parameters, batch, limit=limit))


def count_active(connection: Connection, *, client_id: str | None = None) -> int:
    """Return how many sessions are open, of one client or of all."""
    if client_id is None:
        rows = fetch(connection, _COUNT_ACTIVE)
    else:
        rows = fetch(connection, _COUNT_ACTIVE_OF_CLIENT, (client_id,))
    return int(rows[0][0])


def count_stale(connection: Connection, *, older_than: timedelta, now: datetime | None = None) -> int:
    """Return how many sessions `delete_stale` would delete, open or closed."""
    return int(fetch(connection, _COUNT_STALE, (_cutoff(older_than, now),))[0][0])


def _cutoff(older_than: timedelta, now: datetime | None) -> str:
    moment = codec.now() if now is None else codec.millisecond(now)
    try:
        return codec.time_to_text(moment - older_than)
    except OverflowError:
        # before year 1: no session is as old as that
        return codec.BEFORE_ALL if older_than > timedelta(0) else codec.AFTER_ALL
