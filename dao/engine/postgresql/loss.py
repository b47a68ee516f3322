"""A connection that is lost: whether it is, and what that means for what was asked of it."""

from __future__ import annotations

import math
import random
import select
import time
import weakref

import psycopg
from psycopg import errors as sqlstates
from psycopg import pq

from dao import errors
from dao.engine.postgresql.connections import ACTIVE, Connection

__all__ = ["NotSent", "check_alive", "is_ended", "is_fresh", "limit_lifetime", "lost"]

#: For how long a pool keeps a connection, in seconds, and by how much less at random: so that a pool finds the servers
#: that have come, and no connection outlasts what stands between it and its server.
_LIFETIME, _SPREAD = 3600.0, 360.0
#: How severe an error is with which a server ends a connection.
_ENDING = {"FATAL", "PANIC"}

_ends: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()


class NotSent(psycopg.OperationalError):
    """The connection was lost before a statement was sent."""


def limit_lifetime(connection: Connection) -> None:
    """Note until when a pool may lend a new connection."""
    _ends[connection] = time.monotonic() + _LIFETIME - random.uniform(0, _SPREAD)  # noqa: S311 - no secret


def is_fresh(connection: Connection) -> bool:
    """Return whether an idle connection may be lent: the server has not closed it, and its time is not up."""
    return not _is_lost(connection) and time.monotonic() < _ends.get(connection, math.inf)


def check_alive(connection: Connection) -> None:
    """Raise an error if a connection is lost, before something is sent of which nobody could tell what became of it."""
    if connection.pgconn.transaction_status != ACTIVE and _is_lost(connection):
        raise NotSent("it is closed")


def _is_lost(connection: Connection) -> bool:
    """Return whether the server has closed a connection, as far as that has come here: nothing is asked of it."""
    try:
        with connection.lock:  # libpq takes no two calls at once
            socket_of = select.poll()
            socket_of.register(connection.pgconn.socket, select.POLLIN)
            return bool(socket_of.poll(0)) and _says_farewell(connection, socket_of)
    except psycopg.OperationalError:
        return True


def _says_farewell(connection: Connection, socket_of: select.poll) -> bool:
    """Read what a server says though it was asked nothing, and return whether that is why it closes the connection."""
    said: list[str | None] = []

    def listen(diag: psycopg.errors.Diagnostic) -> None:
        said.append(diag.severity_nonlocalized)

    connection.add_notice_handler(listen)
    try:
        while socket_of.poll(0):
            connection.pgconn.consume_input()  # raises at the end
            connection.pgconn.is_busy()  # which lets libpq look at it
    finally:
        connection.remove_notice_handler(listen)
    return not _ENDING.isdisjoint(said)


def is_ended(error: psycopg.Error, connection: Connection) -> bool:
    """Return whether a connection has ended with an error."""
    # libpq may have heard the server's last words, and not yet noticed the end
    is_told = isinstance(error, NotSent) or error.diag.severity_nonlocalized in _ENDING
    return is_told or connection.pgconn.status != pq.ConnStatus.OK


def lost(error: psycopg.Error, *, commits: bool) -> errors.Error:
    """Return what a lost connection means for what was asked of it last, which `commits` or not."""
    reason = " ".join((error.diag.message_primary or str(error)).split())
    # a server that waits in vain for the next statement has not read a commit
    if commits and not isinstance(error, NotSent | sqlstates.IdleInTransactionSessionTimeout):
        return errors.CommitUnknown(
            f"the connection was lost before the answer to a commit came ({reason}), and whether it is stored cannot "
            "be known: look at what is there before you repeat it"
        )
    return errors.ConnectionLost(
        f"the connection to the server is lost ({reason}); nothing of the transaction is stored: repeat it on another "
        "connection"
    )
