"""PostgreSQL: the functions that `dao.engine` asks for, on psycopg. Loaded with the first connection or URL of it.

The functions that `dao.engine` asks for raise psycopg's errors; `translated` turns those into ours.
"""

from __future__ import annotations

import threading
import time
from typing import Literal

import psycopg

from dao.engine.postgresql.connections import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    INHERITED,
    Connection,
    in_transaction,
    name_of,
)
from dao.engine.postgresql.errors import translated
from dao.engine.postgresql.interruption import break_off, interrupt, is_interrupted, settle
from dao.engine.postgresql.loss import is_fresh
from dao.engine.postgresql.opening import absolute, check_exists, open_connection, prepare
from dao.engine.postgresql.statements import (
    change,
    command,
    execute,
    execute_many,
    fetch,
    fetch_changed,
    fetch_each,
    insert_many,
    lock_row,
)
from dao.engine.postgresql.transactions import begin, commit, roll_back
from dao.engine.postgresql.waiting import stop_listening, wait_for_change
from dao.errors import DatabaseBusy
from dao.logs import logger
from dao.url import ServerURL

__all__ = [
    "HARMLESS",
    "NAME",
    "ON_SERVER",
    "Connection",
    "DriverError",
    "absolute",
    "begin",
    "change",
    "check_exists",
    "commit",
    "execute",
    "execute_many",
    "fetch",
    "fetch_changed",
    "fetch_each",
    "in_transaction",
    "insert_many",
    "interrupt",
    "is_fresh",
    "is_idle",
    "is_interrupted",
    "is_usable",
    "lock_row",
    "name_of",
    "open_connection",
    "prepare",
    "probe",
    "reset",
    "roll_back",
    "settle",
    "translated",
    "wait_for_change",
]

log = logger("dao.pool")  # psycopg loads it, too

#: How the engine is called.
NAME: Literal["postgresql"] = "postgresql"
#: The base of the driver's errors.
DriverError = psycopg.Error
#: The errors of a database after which its connection can be lent again; one to a server that writes nothing cannot:
#: the next may find the one that does.
HARMLESS = (DatabaseBusy,)
#: Whether connections are to a server, which can close them, and cannot always be reached.
ON_SERVER = True


def is_usable(connection: Connection) -> bool:
    """Return whether a connection can be used here: psycopg's is one for any thread."""
    return True


def is_idle(connection: Connection) -> bool:
    """Return whether a change may be made at once: it always is one statement, alone or in a transaction."""
    return True


def reset(connection: Connection) -> bool:
    """Roll back what was left open, and return whether the connection can be lent again."""
    settle(connection)
    try:
        if connection.pgconn.transaction_status in {IN_TRANSACTION, FAILED}:
            log.warning("pool: a connection came back in a transaction; it was rolled back")
            command(connection, "ROLLBACK")
        is_idle = bool(connection.pgconn.transaction_status == IDLE)
        # in another mode nothing that the next user writes alone would be committed
        if not is_idle or not connection.autocommit or connection in INHERITED:
            return False
        stop_listening(connection)
        return True
    except psycopg.Error:
        return False


def probe(connection: Connection, url: ServerURL, deadline: float) -> bool:
    """Ask the server for an answer. Return False: no connection keeps all others from writing.

    A server that has not answered by the deadline is one that was lost.
    """
    ends = threading.Timer(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)), break_off, [connection])
    ends.daemon = True
    ends.start()
    try:
        command(connection, "SELECT FROM pg_database WHERE datname = current_database()")
    finally:
        ends.cancel()
    return False
