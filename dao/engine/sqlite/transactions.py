"""The transactions of `dao.transaction` on a SQLite connection, and those of them that SQLite gives up by itself.

After a full disk, an I/O error or a RAISE(ROLLBACK), SQLite rolls back all of a transaction, and each statement that
follows would be committed by itself (sqlite.org/lang_transaction.html, section 3). So a lost transaction is replaced by
one that is rolled back too: a caller that swallows the error learns of it at the end of the block.
"""

from __future__ import annotations

import weakref

import apsw

from dao.engine.sqlite import fork
from dao.errors import OperationalError

__all__ = ["begin", "commit", "forget", "hold_if_lost", "note_begun", "roll_back"]

# the connections whose outermost transaction is one of ours, and those of them whose transaction SQLite has rolled back
_open: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
_lost: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()


def note_begun(connection: apsw.Connection) -> None:
    """Note that the outermost transaction of a connection is one of ours."""
    _open.add(connection)


def forget(connection: apsw.Connection) -> None:
    """Forget the transaction of a connection: it has ended, or ends otherwise than by its block."""
    _open.discard(connection)
    _lost.discard(connection)


def hold_if_lost(connection: apsw.Connection) -> None:
    """If SQLite has rolled back our transaction, begin one that will be rolled back too."""
    if connection in _open and not connection.in_transaction:
        _lost.add(connection)
        connection.execute("BEGIN")


def begin(connection: apsw.Connection, *, nested: bool) -> None:
    """Begin an outermost transaction, which takes the write lock, or a savepoint in one."""
    connection.execute("SAVEPOINT dao" if nested else "BEGIN IMMEDIATE")
    if not nested:
        note_begun(connection)


def commit(connection: apsw.Connection, *, nested: bool) -> None:
    """Commit a transaction, or release its savepoint. The caller rolls back when this raises.

    Raises:
        OperationalError: The transaction is not there any more.
        apsw.Error: It cannot be committed.
    """
    if connection in _lost:
        raise OperationalError(
            "SQLite rolled this transaction back after an error in it, and nothing of it was committed: let such an "
            "error leave the block, then repeat all of it"
        )
    if not connection.in_transaction:
        raise OperationalError(
            "the block ended its transaction itself, with a COMMIT or ROLLBACK: what it did is as that left it; leave "
            "both to dao.transaction"
        )
    connection.execute("RELEASE dao" if nested else "COMMIT")
    if not nested:
        _open.discard(connection)


def roll_back(connection: apsw.Connection, *, nested: bool) -> None:
    """Undo a transaction or its savepoint, unless SQLite has done so already."""
    if fork.is_inherited(connection):
        return  # the transaction is the parent's
    if not nested:
        forget(connection)
        _undo(connection, "ROLLBACK")
        return
    hold_if_lost(connection)
    if connection not in _lost:
        _undo(connection, "ROLLBACK TO dao; RELEASE dao")
        hold_if_lost(connection)


def _undo(connection: apsw.Connection, sql: str) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute(sql)
    except apsw.Error as error:
        # a rollback that fails ends the transaction all the same: what is left to undo, the next one to open the file
        # undoes; there is no such savepoint if an interruption came as it had been released
        if connection.in_transaction and not isinstance(error, apsw.SQLError):
            raise
