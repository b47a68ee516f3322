"""One transaction that many functions share, each in a savepoint of its own, on the connection of `dao.pooling.writer`.

This module keeps the functions apart from each other; the writer lets their callers wait, and says when a batch ends.
It is loaded with the writer.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Protocol

import apsw

from dao.engine.sqlite.errors import translate, unknown_outcome
from dao.engine.sqlite.transactions import forget, note_begun
from dao.errors import ForeignKeyViolation, OperationalError
from dao.logs import logger

__all__ = ["SharedTransaction"]

log = logger("dao.pool")


class Work(Protocol):
    """A function that runs in a savepoint; `make` calls it, and keeps what it raises."""

    error: BaseException | None

    def make(self, connection: apsw.Connection) -> None: ...


class _Guard:
    """Keeps a function from ending the transaction that it shares, and from leaving a cursor open."""

    # It does not know the connection that knows it: that cycle would keep an unused connection open.
    __slots__ = ("calling", "cursors")

    def __init__(self) -> None:
        self.calling = False
        self.cursors: list[weakref.ref[apsw.Cursor]] = []

    def authorize(self, operation: int, what: str | None, *_: object) -> int:
        """Refuse a COMMIT and a ROLLBACK as they are prepared, before they harm anybody."""
        if self.calling and operation == apsw.SQLITE_TRANSACTION and what != "BEGIN":
            raise OperationalError(
                f"a function that runs in write shares its transaction with others, so it cannot {what}: return to "
                "have it committed, raise to have it undone, and use dao.transaction for a part of it"
            )
        return apsw.SQLITE_OK

    def veto(self) -> bool:
        """Turn a commit within a function into a rollback: that of a statement after SQLite gave up the transaction."""
        return self.calling

    def cursor(self, connection: apsw.Connection) -> apsw.Cursor:
        """Make a cursor and remember it."""
        cursor = apsw.Cursor(connection)
        self.cursors.append(weakref.ref(cursor))
        return cursor

    def close_cursors(self) -> None:
        """Close what was not read to its end: it would hold up the savepoint and the commit."""
        for reference in self.cursors:
            cursor = reference()
            if cursor is not None:
                cursor.close(True)
        self.cursors.clear()


class SharedTransaction:
    """The writer's connection, and one transaction on it after the other: begin, run functions, commit."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._guard = guard = _Guard()
        self._execute = apsw.Cursor(connection).execute
        connection.cursor_factory = guard.cursor
        connection.authorizer = guard.authorize
        connection.set_commit_hook(guard.veto)
        note_begun(connection)  # once for all: it is not used in between

    def begin(self) -> None:
        """Begin the transaction."""
        self._execute("BEGIN IMMEDIATE")

    def run(self, call: Work) -> bool:
        """Run one function in its savepoint. Return whether the transaction is still there.

        Raises:
            OperationalError: It cannot go on, as the function left a blob or a cursor open.
            apsw.Error: It is not there.
        """
        connection, guard, execute = self.connection, self._guard, self._execute
        execute("SAVEPOINT dao_call")
        guard.calling = True
        call.make(connection)
        guard.calling = False
        if guard.cursors:
            guard.close_cursors()
        if not connection.in_transaction:
            return False
        if call.error is None and connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            call.error = ForeignKeyViolation(
                "a foreign key that is checked at the end is broken: the row refers to one that does not exist"
            )
        try:
            if call.error is not None:
                execute("ROLLBACK TO dao_call")
            execute("RELEASE dao_call")
        except apsw.SQLError:  # no such savepoint: SQLite gave up the transaction, and another was begun
            return False
        except apsw.BusyError as error:
            raise OperationalError(
                "a function left a blob or a cursor open, with which SQLite commits nothing: close it in the function"
            ) from error
        return True

    def commit(self) -> bool:
        """Commit. Return whether the connection serves for another transaction: nothing in it holds an old snapshot.

        Raises:
            CommitUnknown: It met an I/O error.
            apsw.Error: Nothing is stored.
        """
        # not from the cache of statements: a function could find it there, past the authorizer
        try:
            self._execute("COMMIT", can_cache=False)
        except apsw.Error as error:
            if unknown := unknown_outcome(error, self.connection):
                raise unknown from error
            raise
        return self.connection.txn_state() == apsw.SQLITE_TXN_NONE

    def translated(self, error: BaseException) -> BaseException:
        """Return the error of ours for one of the transaction, or itself."""
        # a function may have closed the connection
        with contextlib.suppress(apsw.ConnectionClosedError):
            return translate(error, self.connection) or error
        return error

    def close(self) -> None:
        """Close the connection; a transaction that is open is undone."""
        forget(self.connection)
        try:
            self.connection.close(True)
        except apsw.Error as error:
            log.warning("pool: the writer's connection could not be closed: %s", error)
