"""Waiting for a change that another connection commits: SQLite counts those that a connection has not made itself."""

from __future__ import annotations

import time
import weakref

import apsw

from dao.engine.sqlite.errors import BUSY
from dao.errors import ConnectionBusy

__all__ = ["wait_for_change"]

#: The first pause between two looks, in seconds, by how much each is longer than the one before, and the longest.
_PAUSE, _GROWTH, _LONGEST = 0.005, 1.25, 0.020

# what each connection saw when it last waited
_seen: weakref.WeakKeyDictionary[apsw.Connection, object] = weakref.WeakKeyDictionary()


def wait_for_change(connection: apsw.Connection, seconds: float) -> bool:
    """Wait for so long at the most, and return whether another connection has committed since this was last called."""
    if connection.in_transaction or connection.txn_state() != apsw.SQLITE_TXN_NONE:
        raise ConnectionBusy(
            "a transaction is open on this connection, or a cursor that is not at its end: it sees the database as it "
            "was then, and no change by others; end it before you wait"
        )
    deadline, pause = time.monotonic() + seconds, _PAUSE
    while True:
        try:
            # not `connection.data_version()`, which does not notice other processes
            (version,) = connection.execute("PRAGMA data_version").fetchall()[0]
        except BUSY:
            pass  # without WAL, nobody reads while a commit is under way: what it changes is seen after it
        else:
            if version != _seen.get(connection):
                _seen[connection] = version
                return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        if connection.is_interrupted:  # between two statements, so that neither was
            raise apsw.InterruptError("interrupted while it waited for a change")
        pause = min(pause * _GROWTH, _LONGEST)
