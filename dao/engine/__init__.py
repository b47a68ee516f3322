"""What the table modules ask of a connection: run a statement, run several as one, translate what goes wrong.

The one place that knows which engine a connection belongs to. Today that is SQLite.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from types import CoroutineType, TracebackType
from typing import Any, NoReturn, TypeVar

import apsw

from dao.engine import fork, sqlite
from dao.engine.not_utf8 import unreadable_text
from dao.errors import (
    DatabaseBusy,
    ForeignKeyViolation,
    OperationalError,
    SchemaOutOfDate,
)
from dao.url import DatabaseURL, parse

__all__ = [
    "Connection",
    "connect",
    "execute_many",
    "fetch",
    "fetch_changed",
    "forget",
    "is_connection",
    "missing_parent",
    "not_a_connection",
    "probe",
    "transaction",
    "use_defaults",
    "write",
]

T = TypeVar("T")

Connection = apsw.Connection
Row = tuple[Any, ...]


def connect(url: str | DatabaseURL) -> Connection:
    """Open a database: WAL, synchronous NORMAL, foreign keys on, a busy timeout of 5 s, defensive, plans by the SQL alone.

    The last (SQLITE_DBCONFIG_ENABLE_QPSG) means that no plan depends on what is bound, so that nothing is prepared anew for
    another value. In SQL of your own, an index for `LIKE $1` or a partial index for `flag = $1` needs the value written out.

    A file in another journal mode is switched to WAL for good when it is opened for writing, unless the URL says
    `journal_mode=keep`. It is created unless the URL says `mode=rw` or `mode=ro`; its tables are not (`dao.migrate`). Each thread or
    task needs a connection of its own, since a connection is one transaction: `dao.Pool` hands them out.

    A process that was forked while the file was open, in any way, cannot open it: SQLite would not lock it there, and rows
    would get lost. Start such processes with spawn or forkserver, or close before the fork and open after it.

    Raises:
        InvalidURL: The URL means nothing.
        OperationalError: The database cannot be opened, or was open when this process was forked.
        UnsupportedEngine: The URL is for PostgreSQL, or this SQLite can corrupt data.
    """
    return sqlite.open_connection(parse(url))


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one statement to its end and return its rows.

    Raises:
        Error: What the caller can act on; anything else comes as the driver raised it.
    """
    try:
        return connection.execute(sql, parameters).fetchall()
    except UnicodeDecodeError as error:
        raise unreadable_text(connection, sql, parameters) from error
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection)


def write(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one statement that changes rows to its end and return its rows; outside of a transaction it is one.

    Raises:
        CommitUnknown: It was one, and met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    alone = True
    try:
        alone = not connection.in_transaction
        changing = connection.execute(sql, parameters)
        return changing.fetchall()
    except UnicodeDecodeError as error:
        if alone:
            _abandon(connection, changing)
        raise unreadable_text(connection, sql, parameters) from error
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection, commits=alone)


def fetch_changed(
    connection: Connection,
    change: str,
    parameters: Sequence[Any],
    read: str,
    key: Sequence[Any],
    judge: Callable[[bool, list[Row]], T],
) -> T:
    """Change a row, read it as its triggers left it, and return what `judge` makes of it, in one transaction.

    `change` has a RETURNING. `judge` is told whether that gave a row, and the rows of `read`; what it raises undoes the
    change. If nothing was changed, what is read may be newer than that.

    Raises:
        CommitUnknown: The commit met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    # a statement of the caller's that is not at its end yet holds a transaction, too
    try:
        joins = connection.in_transaction or connection.txn_state() != apsw.SQLITE_TXN_NONE
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection)
    if joins:
        with transaction(connection):
            return judge(bool(fetch(connection, change, parameters)), fetch(connection, read, key))
    try:
        # A statement has made all its changes when it gives its first row (sqlite.org/lang_returning.html), and commits
        # after its last. What runs in between is in its transaction, which costs a tenth less than one with BEGIN and COMMIT.
        # The cursor is held before it runs: one that is dropped, as by a Ctrl-C that comes as `execute` returns, commits.
        changing = connection.cursor()
        try:
            changing.execute(change, parameters)
            changed = changing.fetchone() is not None
            judged = judge(changed, fetch(connection, read, key))
        except BaseException:
            if connection.txn_state() != apsw.SQLITE_TXN_NONE:
                _abandon(connection, changing)
            raise
        try:
            changing.fetchall()
        except apsw.Error as error:
            _raise(error, connection, commits=True)
    except apsw.Error as error:
        _raise(error, connection)
    return judged


def _abandon(connection: Connection, changing: apsw.Cursor) -> None:
    # it would commit whatever else is done with it, but for being interrupted
    connection.interrupt()
    with contextlib.suppress(apsw.InterruptError):
        changing.fetchall()


def execute_many(connection: Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run one statement for each of the rows, all in one transaction.

    Raises:
        CommitUnknown: The commit met an I/O error.
        Error: As `fetch`; then none of the rows was written.
    """
    with transaction(connection):
        try:
            connection.executemany(sql, rows)
        except apsw.Error as error:
            _raise(error, connection)


def probe(connection: Connection, url: DatabaseURL, deadline: float) -> bool:
    """Read the database from its file, not from the cache. Return whether another connection holds the write lock.

    Raises:
        DatabaseBusy: It could not even be read until the deadline, a moment of the monotonic clock.
        OperationalError: The file is damaged, or no longer the one that was opened.
    """
    sqlite.check_in_place(connection)
    connection.release_memory()
    try:
        sqlite.set_busy_timeout(connection, sqlite.busy_timeout(url, deadline))
        fetch(connection, "SELECT 1 FROM (SELECT count(*) FROM sqlite_schema)")
        if connection.readonly("main"):
            return False
        sqlite.set_busy_timeout(connection, 0)
        try:
            with transaction(connection):
                return False
        except DatabaseBusy:
            return True
    finally:
        sqlite.set_busy_timeout(connection, sqlite.busy_timeout(url))


# what SQLite says of a statement for another schema than it finds
_LACKING = re.compile(
    r"no such (table|column)|table .* has no column named|ON CONFLICT clause does not match", re.DOTALL
)


# what it says of what the statement does not name itself, but something in the schema does
_BROKEN = re.compile(r"no such table: main\.|no such column: (new|old)\.|foreign key mismatch", re.IGNORECASE)


def _raise(error: Exception, connection: Connection, *, commits: bool = False) -> NoReturn:
    if not isinstance(error, apsw.Error):
        if is_connection(connection):
            raise error
        raise not_a_connection(connection) from error
    fork.check(connection)
    _hold_if_lost(connection)
    unknown = sqlite.unknown_outcome(error, connection) if commits else None
    translated = unknown or sqlite.translate(error, connection)
    name = sqlite.file_of(connection) or "the database in memory"
    if translated is None and _BROKEN.match(str(error)):
        translated = OperationalError(
            f"{name}: {error}, which a view, trigger or foreign key of its schema refers to: `dao status` names it; mend it in a "
            "migration"
        )
    if translated is None and _LACKING.match(str(error)):
        translated = SchemaOutOfDate(
            f"{name}: {error}, so its schema is not the one this program needs: run `dao migrate`; if nothing is pending, "
            "`dao status` says what is broken"
        )
    if translated is None:
        raise error
    raise translated from error


def is_connection(given: object) -> bool:
    """Return whether it is a connection that can be used here and now, and no asynchronous one outside of its thread."""
    if not isinstance(given, Connection):
        return False
    try:
        state: object = given.in_transaction
    except apsw.Error:
        return True
    except RuntimeError:  # no event loop is running, or not its own
        return False
    if isinstance(state, CoroutineType):
        state.close()
    return isinstance(state, bool)


def not_a_connection(given: object) -> TypeError:
    """Return the error for what is no connection, or none that can be used here."""
    if isinstance(given, Connection):
        advice = (
            "it works in its own thread only: `await dao.aio.run(connection, function, …)`, with dao.transaction in it"
        )
    elif hasattr(given, "acquire"):
        advice = "take one from the pool, with `pool.acquire()` or, of dao.aio, `await pool.run(function, …)`"
    else:
        advice = "open one with `dao.connect(url)`"
    name = "an asynchronous one" if isinstance(given, Connection) else type(given).__name__
    return TypeError(f"expected a connection, got {name}: {advice}")


def missing_parent(
    connection: Connection, error: ForeignKeyViolation, table: str, references: Iterable[tuple[str, str, Any]]
) -> ForeignKeyViolation:
    """Return the violation with its names: SQLite reports a foreign key by nothing but its kind.

    `references` gives, for each foreign key of the row, its column, a statement that finds the parent, and the value.
    """
    for column, find, value in references:
        if value is not None and not fetch(connection, find, (value,)):
            return ForeignKeyViolation(
                f"{table}: {column} refers to {value!r}, which does not exist",
                table=table,
                columns=[column],
                constraint=f"{table}_{column}_fkey",
            )
    return error


# ---------------------------------------------------------------- transactions

# The connections whose outermost `transaction` is open, and those of them whose transaction SQLite has rolled back.
_open: set[Connection] = set()
_lost: set[Connection] = set()


def forget(connection: Connection) -> None:
    """Forget the transaction of a connection, which is ended otherwise than by its block."""
    _open.discard(connection)
    _lost.discard(connection)


def _hold_if_lost(connection: Connection) -> None:
    """If SQLite has rolled back our transaction, begin one that will be rolled back too.

    Without it, whoever swallows the error would commit each statement that follows, one by one.
    """
    if connection in _open and not connection.in_transaction:
        _lost.add(connection)
        connection.execute("BEGIN")


class transaction:  # noqa: N801 - reads as a function, like contextlib.suppress
    """Run a block as one transaction: `with dao.transaction(connection): …`.

    Outermost it is BEGIN IMMEDIATE, which waits for the write lock at the start and not in the middle; inside another
    transaction it is a savepoint. An exception undoes the block and goes on. Whoever nests and swallows the exception
    keeps the outer transaction, unless SQLite itself gave it up (disk full, I/O error): then the outer one fails too.

    No code can catch a Ctrl-C that comes in the instant between the block and its end, and the transaction stays open: who goes
    on after one should close the connection and take another. A pool does that by itself.

    Raises:
        DatabaseBusy: Another connection kept the lock for longer than the busy timeout.
        ConnectionBusy: A cursor of this connection that is not at its end stands in the way.
        CommitUnknown: The commit met an I/O error.
        OperationalError: The block cannot be committed.
        TypeError: It is no connection, or an asynchronous one outside of its thread: `await dao.aio.run(connection, function)`
            runs a function with such a block in it.
    """

    # A slotted class: @contextmanager costs a microsecond more.
    __slots__ = ("_connection", "_nested")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Connection:
        connection = self._connection
        if not isinstance(connection, Connection) or (connection.is_async and not is_connection(connection)):
            raise not_a_connection(connection)
        self._nested = connection.in_transaction
        try:
            connection.execute("SAVEPOINT dao" if self._nested else "BEGIN IMMEDIATE")
            if not self._nested:
                _open.add(connection)
        except BaseException as error:
            # an interruption may come when it has begun
            if not self._nested:
                self._undo()
            if isinstance(error, apsw.Error):
                _raise(error, connection)
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection = self._connection
        if kind is not None:
            self._undo()
            return
        if connection in _lost:
            self._undo()
            raise OperationalError(
                "SQLite rolled this transaction back after an error in it, and nothing of it was committed: let such an "
                "error leave the block, then repeat all of it"
            )
        if not connection.in_transaction:
            self._undo()
            raise OperationalError(
                "the block ended its transaction itself, with a COMMIT or ROLLBACK: what it did is as that left it; leave "
                "both to dao.transaction"
            )
        try:
            connection.execute("RELEASE dao" if self._nested else "COMMIT")
        except BaseException as error:
            self._undo()
            if isinstance(error, apsw.Error):
                _raise(error, connection, commits=not self._nested)
            raise
        if not self._nested:
            _open.discard(connection)

    def _undo(self) -> None:
        connection = self._connection
        if fork.is_inherited(connection):
            return  # the transaction is the parent's
        if not self._nested:
            forget(connection)
            # SQLite may have rolled back by itself: sqlite.org/lang_transaction.html, section 3
            if connection.in_transaction:
                self._roll_back("ROLLBACK")
            return
        _hold_if_lost(connection)
        if connection not in _lost and connection.in_transaction:
            self._roll_back("ROLLBACK TO dao; RELEASE dao")
            _hold_if_lost(connection)

    def _roll_back(self, sql: str) -> None:
        connection = self._connection
        try:
            connection.execute(sql)
        except apsw.Error as error:
            # one that fails ends the transaction all the same: what is left to undo, the next who opens the file undoes;
            # there is no such savepoint if an interruption came as it had been released
            if connection.in_transaction and not isinstance(error, apsw.SQLError):
                raise


def use_defaults(connection: Connection) -> None:
    """Set a connection of ours to SQLite's defaults where other people's scripts rely on them: "text" is a string too."""
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
