"""What is known of a connection: its state, its name for messages, and whether a fork took it from this process."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

import psycopg
from psycopg import pq

from dao.errors import OperationalError
from dao.url import ServerURL

__all__ = [
    "ACTIVE",
    "FAILED",
    "IDLE",
    "INHERITED",
    "IN_TRANSACTION",
    "KNOWN",
    "Connection",
    "forked",
    "in_transaction",
    "name_of",
]

Connection = psycopg.Connection[Any]

#: How the transaction of a connection stands.
IDLE, ACTIVE, IN_TRANSACTION, FAILED = (
    pq.TransactionStatus.IDLE,
    pq.TransactionStatus.ACTIVE,
    pq.TransactionStatus.INTRANS,
    pq.TransactionStatus.INERROR,
)

#: The connections that functions of ours have used.
KNOWN: weakref.WeakSet[Connection] = weakref.WeakSet()
#: Those of them that belong to the parent of this process. They stay here for good: with the last reference libpq would
#: say goodbye on the parent's socket.
INHERITED: set[Connection] = set()


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open, whoever began it."""
    return connection.pgconn.transaction_status != IDLE


def forked() -> OperationalError:
    """Return the error for a connection that belongs to the parent of this process."""
    return OperationalError(
        "this connection belongs to the parent of this process: open one here, or start the process with spawn or "
        "forkserver instead of fork"
    )


def name_of(connection: Connection) -> str:
    """Return the user, the host and the database of a connection, for messages."""
    info = connection.info
    with contextlib.suppress(psycopg.Error):
        return ServerURL(
            parameters={"user": info.user, "host": info.host, "port": str(info.port), "dbname": info.dbname}
        ).name
    return "the server"


def _after_fork() -> None:
    for connection in list(KNOWN):
        INHERITED.add(connection)
        with contextlib.suppress(psycopg.Error, OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, connection.fileno())
            os.close(null)


os.register_at_fork(after_in_child=_after_fork)
