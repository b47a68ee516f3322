"""For whom a statement waits: the sessions that hold the locks that it wants. Asked on another connection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

import psycopg

from dao.engine import fetch
from dao.engine.postgresql import Connection
from dao.errors import Error
from dao.migrate.advisory_lock import another, named

__all__ = ["Blockers"]

#: Asked for the first time after so many seconds: whoever is in the way is to be known when the statement gives up.
_FIRST = 0.1
# a prepared transaction has no process
_BLOCKING = """
SELECT CASE blocking.pid WHEN 0 THEN 'of a prepared transaction' ELSE blocking.pid::text END, usename, application_name,
       coalesce(client_hostname, host(client_addr)),
       to_char(coalesce(xact_start, backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM   unnest(pg_blocking_pids($1::int)) AS blocking (pid)
LEFT   JOIN pg_stat_activity AS process ON process.pid = blocking.pid
ORDER  BY xact_start
"""
_HOLDING = """
SELECT DISTINCT held.pid::text, usename, application_name, coalesce(client_hostname, host(client_addr)),
       to_char(coalesce(xact_start, backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM   pg_locks AS held JOIN pg_class ON pg_class.oid = relation
LEFT   JOIN pg_stat_activity AS process ON process.pid = held.pid
WHERE  granted AND held.pid <> $1::int AND relname = ANY ($2)
AND    database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_PAUSE = 1.0


class Blockers:
    """Tells for whom the statements of a connection wait. In a `with` block, at the end of which nothing is open."""

    def __init__(self, connection: Connection, tell: Callable[[float, str], object]) -> None:
        """Name the connection, and who is to be told of a wait: how many seconds so far, and for whom."""
        self._connection, self._tell = connection, tell
        self._other: Connection | None = None
        self._failed = False
        self._asked = 0.0
        #: For whom it was that a statement waited last.
        self.last: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._other is not None:
            self._other.close()

    def look(self, seconds: float) -> None:
        """Look, now and then, whether the statement waits that has been running for so many seconds."""
        now = time.monotonic()
        if seconds < _FIRST or (self._asked and now - self._asked < _PAUSE):
            return
        self._asked = now
        self.last = self._ask()
        if self.last is not None:
            self._tell(seconds, self.last)

    def holder(self, names: Collection[str]) -> str | None:
        """Return for whom a statement has waited that gave up, by the names in it if it did so too soon to be asked."""
        if self.last is None:
            rows = self._asked_of(_HOLDING, list(names))
            self.last = named(rows) if len(rows) == 1 else None
        return self.last

    def _ask(self) -> str | None:
        return named(self._asked_of(_BLOCKING))

    def _asked_of(self, sql: str, *parameters: object) -> list[Any]:
        if self._failed:
            return []
        self._failed = True  # once is enough: it may take as long as a connection takes that nobody answers
        with contextlib.suppress(psycopg.Error, Error):
            if self._other is None:
                self._other = another(self._connection)
            rows = fetch(self._other, sql, (self._connection.info.backend_pid, *parameters))
            self._failed = False
            return rows
        return []
