"""The lock between migrators of a database on a server: an advisory lock of PostgreSQL's, which ends with its session.

It is polled. A waiter in `pg_advisory_lock` is a transaction for which CREATE INDEX CONCURRENTLY waits, and the server
would call that a deadlock.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import psycopg

from dao.engine import execute, fetch, postgresql
from dao.errors import ConnectionLost, MigrationError
from dao.migrate.lock import MigrationLock
from dao.text import visible

if TYPE_CHECKING:
    from dao.engine.postgresql import Connection
    from dao.migrate.events import Report

__all__ = ["AdvisoryLock", "another", "holder", "named"]

#: The first number of the lock's key, "daom" in ASCII; the second is the id of the schema that the ledger is in.
KEY = 0x64616F6D

# an id is an unsigned number, and the functions of the lock take signed ones
_SCHEMA = """
SELECT to_regnamespace(quote_ident(current_schema()))::oid::bigint::bit(32)::int, pg_backend_pid()
"""
_TRY = "SELECT pg_try_advisory_lock($1::int, $2::int), pg_backend_pid()"
_FREE = "SELECT pg_advisory_unlock($1::int, $2::int)"
_TRY_FOR_A_TRANSACTION = "SELECT pg_try_advisory_xact_lock($1::int, $2::int), pg_backend_pid()"
_FOR_LONG = "SET LOCAL idle_in_transaction_session_timeout = 0"
_HOLDER = """
SELECT held.pid, usename, application_name, coalesce(client_hostname, host(client_addr)),
       to_char(coalesce(xact_start, backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM   pg_locks AS held LEFT JOIN pg_stat_activity AS process ON process.pid = held.pid
WHERE  held.locktype = 'advisory' AND held.granted AND held.objsubid = 2
AND    held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND    held.classid::bigint = $1::bigint AND held.objid::bigint::bit(32)::int = $2::int
"""

#: The locks that are held in this process.
_held: set[AdvisoryLock] = set()


def _all_held() -> tuple[AdvisoryLock, ...]:
    # in one step: other threads take some, and let go of some
    return tuple(_held)


class AdvisoryLock(MigrationLock):
    """The lock of the schema that a connection is in, held by its session.

    Behind a pooler such as PgBouncer, which may lend another session to each transaction, it is held by a transaction
    of another connection.
    """

    def __init__(
        self, connection: Connection, database: str, timeout: float | None = None, report: Report | None = None
    ) -> None:
        """Name the connection, which must not be in a transaction, and its database, for messages.

        Raises:
            InvalidValue: The timeout is negative, or no number.
        """
        super().__init__(database, timeout, report)
        self.connection = connection
        self._keeper: Connection | None = None
        self._schema: int | None = None
        self._process = os.getpid()
        self.thread = 0
        #: The server, and the process there that has the lock.
        self.session = ("", 0, 0)

    @property
    def is_held(self) -> bool:
        """Whether this one has it."""
        return self in _held

    def free(self) -> None:
        """Let go of it, if this one has it."""
        is_held = self in _held
        _held.discard(self)
        if os.getpid() != self._process:
            return  # a forked child shares the session
        if self._keeper is not None:
            if is_held and not self._keeper.closed:
                with contextlib.suppress(ConnectionLost):  # the pooler would take its time to notice the end
                    execute(self._keeper, "ROLLBACK")
            self._keeper.close()
        elif is_held and not self.connection.closed:
            with contextlib.suppress(ConnectionLost):  # its locks are lost with it
                fetch(self.connection, _FREE, (KEY, self._schema))

    def _try(self) -> bool:
        if self._schema is None:
            self._schema, pid = _schema(self.connection)
            if pid != self.connection.info.backend_pid:
                self._keeper = another(self.connection)
        # a session that has it would get it once more
        if any(other.connection is self.connection for other in _all_held()):
            return False
        taken, pid = self._tried()
        if taken:
            self.thread, self.session = threading.get_ident(), _session(self.connection, pid)
            _held.add(self)
        return taken

    def _tried(self) -> tuple[bool, int]:
        key = (KEY, self._schema)
        if self._keeper is None:
            ((taken, pid),) = fetch(self.connection, _TRY, key)
            return taken, pid
        execute(self._keeper, "BEGIN")
        ((taken, pid),) = fetch(self._keeper, _TRY_FOR_A_TRANSACTION, key)
        # another statement lets go of what the one before has read: CREATE INDEX CONCURRENTLY would wait for that
        execute(self._keeper, _FOR_LONG if taken else "ROLLBACK")
        return taken, pid

    def _holder(self) -> str | None:
        return named(_holding(self.connection, self._schema))

    def _is_own(self) -> bool:
        mine = _own_sessions()
        return any(_session(self.connection, pid) in mine for pid, *_ in _holding(self.connection, self._schema))


def holder(connection: Connection) -> str | None:
    """Return who has the lock of the schema that a connection is in, for messages; None if nobody but this thread."""
    mine = _own_sessions()
    schema, _ = _schema(connection)
    return named(one for one in _holding(connection, schema) if _session(connection, one[0]) not in mine)


def _schema(connection: Connection) -> tuple[int, int]:
    """Return the id of the schema in which a connection makes tables, the second number of the key; and its process.

    Raises:
        MigrationError: There is none.
    """
    ((schema, pid),) = fetch(connection, _SCHEMA)
    if schema is None:
        raise MigrationError(
            f"{postgresql.name_of(connection)}: no schema of the search_path exists, so there is none for tables to be "
            "in: create it, or set another path (`ALTER ROLE … SET search_path = …`)"
        )
    return schema, pid


def _holding(connection: Connection, schema: int | None) -> list[Any]:
    return fetch(connection, _HOLDER, (KEY, schema))


def named(holders: Iterable[Any]) -> str | None:
    """Return the first of sessions that hold something, in words, as far as this role may know it; None without any.

    Of each: its process, user, program, host, and since when.
    """
    for pid, user, application, host, since in holders:
        known = [f"user {user}"] * bool(user)
        known += [f"{application or 'a program'} on {host}"] if host else [application] * bool(application)
        known += [f"since {since} UTC"] * bool(since)
        return visible(f"session {pid}" + (f" ({', '.join(known)})" if known else ""), line=True)
    return None


def _session(connection: Connection, pid: int) -> tuple[str, int, int]:
    """Return what tells a session from all others: the server, and the process there."""
    return connection.info.host, connection.info.port, pid


def another(connection: Connection) -> Connection:
    """Return another connection to the same database, with nothing set."""
    info = connection.info
    # what psycopg prepares is one session's, and a pooler may lend another
    return psycopg.connect(info.dsn, password=info.password, autocommit=True, prepare_threshold=None)


def _own_sessions() -> set[tuple[str, int, int]]:
    """Return the sessions that have the locks of this thread."""
    here = threading.get_ident()
    return {lock.session for lock in _all_held() if lock.thread == here}
