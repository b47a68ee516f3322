"""Interruptions, which the server is asked for on another connection, and connections that are broken off."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref

import psycopg

from dao.engine.postgresql.connections import ACTIVE, Connection
from dao.logs import logger

__all__ = ["break_off", "interrupt", "is_interrupted", "settle"]

log = logger("dao.pool")  # psycopg loads it, too

#: How long a server may take to cancel a statement, in seconds.
_CANCEL_TIMEOUT = 10
# when a connection was interrupted first, since it was last settled; and what is set when its server knows
_interrupted: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
_cancelling: weakref.WeakKeyDictionary[Connection, threading.Event] = weakref.WeakKeyDictionary()


def is_interrupted(connection: Connection) -> bool:
    """Return whether the connection was interrupted since it was last settled."""
    return connection in _interrupted


def interrupt(connection: Connection) -> None:
    """Have the server cancel the statement that is running, without waiting for that.

    If the server does not take the request in its time, the connection is ended; and if the statement goes on all the
    same, and this is called again after that time.
    """
    first = _interrupted.setdefault(connection, time.monotonic())
    told = threading.Event()
    is_active = connection.pgconn.transaction_status == ACTIVE
    # in one step: of two that interrupt it at once, the second would find nothing to take away
    if not is_active or _cancelling.setdefault(connection, told) is not told:
        return
    try:
        threading.Thread(target=_cancel, args=[connection, first, told], daemon=True).start()
    except RuntimeError:  # too many threads, or the interpreter is ending
        _cancel(connection, first, told)


def _cancel(connection: Connection, first: float, told: threading.Event) -> None:
    try:
        if time.monotonic() - first > _CANCEL_TIMEOUT:
            break_off(connection)
        else:
            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
    except psycopg.errors.CancellationTimeout:
        break_off(connection)  # the server has the request, and may yet come to it: it would hit a later statement
    except psycopg.Error as error:
        log.warning("cannot ask the server to cancel a statement: %s", " ".join(str(error).split()))
    finally:
        del _cancelling[connection]
        told.set()


def settle(connection: Connection) -> None:
    """Wait for an interruption that is on its way: it must hit nothing that comes after."""
    if told := _cancelling.get(connection):
        told.wait()
    if _interrupted:
        _interrupted.pop(connection, None)


def break_off(connection: Connection) -> None:
    """End a connection whose server does not answer: whoever waits for the answer is told that it was lost."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)
