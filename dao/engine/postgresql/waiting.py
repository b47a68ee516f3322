"""Waiting for a change that another session commits: the triggers of `sql/` notify those that listen."""

from __future__ import annotations

import select
import time
import weakref

import psycopg

from dao.engine.postgresql.connections import IDLE, INHERITED, Connection, forked, name_of
from dao.engine.postgresql.interruption import is_interrupted
from dao.engine.postgresql.loss import NotSent
from dao.engine.postgresql.statements import command, fetch_each
from dao.errors import ConnectionBusy, OperationalError
from dao.logs import logger

__all__ = ["LISTENS_ON", "stop_listening", "wait_for_change"]

log = logger("dao.waiting")

# on which the triggers notify
_CHANNEL = "dao_tasks"
#: A pool's connection listens on for so many seconds after a wait, though it does something else.
LISTENS_ON = 60.0
#: After so many seconds a wait looks whether it was interrupted.
_SLICE = 0.1


class _Ear:
    """Notes whether a connection has heard anything since it last waited. Has no reference to that connection."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.heard = False
        self.waited = time.monotonic()

    def hear(self, notification: psycopg.Notify) -> None:
        # what it has changed itself it knows
        if notification.channel == _CHANNEL and notification.pid != self.process:
            self.heard = True


_ears: weakref.WeakKeyDictionary[Connection, _Ear] = weakref.WeakKeyDictionary()


def wait_for_change(connection: Connection, seconds: float) -> bool:
    """Wait for so long at the most, and return whether another session has notified since this was last called."""
    if connection in INHERITED:
        raise forked()
    if connection.closed:
        raise NotSent("the connection is closed")
    if not connection.autocommit or connection.pgconn.transaction_status != IDLE:
        raise ConnectionBusy(
            "notifications come between transactions only, and one is open on this connection, or would be with its "
            "next statement, as it is not in autocommit mode: end it before you wait, or wait on another connection"
        )
    ear = _ears.get(connection)
    if ear is None:
        _listen(connection)
        return True
    ear.waited = time.monotonic()
    deadline = ear.waited + seconds
    arrived = select.poll()
    arrived.register(connection.fileno(), select.POLLIN)
    while True:
        _take_in(connection)
        if ear.heard:
            ear.heard = False
            return True
        if is_interrupted(connection):
            raise OperationalError("interrupted while it waited for a change: wait again if it is still wanted")
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        arrived.poll(min(left, _SLICE) * 1000)


def stop_listening(connection: Connection) -> None:
    """Have an idle connection listen no more, unless it has waited lately: each listener is woken by each notification.

    Between two waits it goes on, or the second would begin anew, and return at once. The caller has the driver's errors
    to deal with.
    """
    ear = _ears.get(connection)
    if ear is not None and time.monotonic() > ear.waited + LISTENS_ON:
        command(connection, f"UNLISTEN {_CHANNEL}")
        connection.remove_notify_handler(ear.hear)
        del _ears[connection]


def _listen(connection: Connection) -> None:
    _, ((process,),) = fetch_each(connection, f"LISTEN {_CHANNEL}; SELECT pg_backend_pid()")
    if process != connection.info.backend_pid:
        log.warning(
            "%s is behind a pooler: if that lends a session for a transaction only, wait_for_change hears of nothing "
            "and returns when its time is up; wait on a direct connection",
            name_of(connection),
        )
    _ears[connection] = ear = _Ear(process)
    connection.add_notify_handler(ear.hear)


def _take_in(connection: Connection) -> None:
    """Hand what has arrived to those that want to know, as psycopg does with the answer to a statement."""
    pgconn = connection.pgconn
    with connection.lock:  # libpq takes no two calls at once
        pgconn.consume_input()  # raises if the connection is lost
        while notification := pgconn.notifies():
            if pgconn.notify_handler:
                pgconn.notify_handler(notification)
