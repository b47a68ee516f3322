"""What the table modules ask of a connection: run a statement, run several as one, translate what goes wrong.

The one place that knows which engine a connection belongs to. Today that is SQLite.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NoReturn, Protocol, TypeVar

import apsw

from dao import fork, sqlite
from dao.errors import ConnectionBusy, DatabaseBusy, ForeignKeyViolation, OperationalError, SchemaOutOfDate
from dao.not_utf8 import unreadable_text
from dao.url import DatabaseURL, parse

__all__ = [
    "Connection",
    "connect",
    "execute_many",
    "fetch",
    "fetch_changed",
    "missing_parent",
    "probe",
    "run_in_transaction",
    "transaction",
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
    return sqlite.open_connection(url if isinstance(url, DatabaseURL) else parse(url))


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one statement to its end and return its rows.

    Raises:
        Error: What the caller can act on; anything else comes as the driver raised it.
    """
    try:
        return connection.execute(sql, parameters).fetchall()
    except apsw.Error as error:
        _raise(error, connection)
    except UnicodeDecodeError as error:
        raise unreadable_text(connection, sql, parameters) from error


def write(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one statement that changes rows to its end and return its rows; outside of a transaction it is one.

    Raises:
        CommitUnknown: It was one, and met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    alone = not connection.in_transaction
    try:
        changing = connection.execute(sql, parameters)
        return changing.fetchall()
    except apsw.Error as error:
        _raise(error, connection, commits=alone)
    except UnicodeDecodeError as error:
        if alone:
            _abandon(connection, changing)
        raise unreadable_text(connection, sql, parameters) from error


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
    if connection.in_transaction or connection.txn_state() != apsw.SQLITE_TXN_NONE:
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


def probe(connection: Connection) -> None:
    """Read the database from its file, not from the cache.

    Raises:
        OperationalError: The file is damaged, or no longer the one that was opened.
    """
    sqlite.check_in_place(connection)
    connection.release_memory()
    fetch(connection, "SELECT 1 FROM (SELECT count(*) FROM sqlite_schema)")


# what SQLite says of a statement for another schema than it finds
_LACKING = re.compile(
    r"no such (table|column)|table .* has no column named|ON CONFLICT clause does not match", re.DOTALL
)


def _raise(error: apsw.Error, connection: Connection, *, commits: bool = False) -> NoReturn:
    _hold_if_lost(connection)
    unknown = sqlite.unknown_outcome(error, connection) if commits else None
    translated = unknown or sqlite.translate(error, connection)
    if translated is None and _LACKING.match(str(error)):
        name = sqlite.file_of(connection) or "the database in memory"
        translated = SchemaOutOfDate(
            f"{name}: {error}, so its schema is not the one this program needs: run `dao migrate`"
        )
    if translated is None:
        raise error
    raise translated from error


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

    Raises:
        DatabaseBusy: Another connection kept the lock for longer than the busy timeout.
        ConnectionBusy: A cursor of this connection that is not at its end stands in the way.
        CommitUnknown: The commit met an I/O error.
        OperationalError: The block cannot be committed.
    """

    # A slotted class: @contextmanager costs a microsecond more.
    __slots__ = ("_connection", "_nested")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Connection:
        connection = self._connection
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
            _open.discard(connection)
            _lost.discard(connection)
            # SQLite may have rolled back by itself: sqlite.org/lang_transaction.html, section 3
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return
        _hold_if_lost(connection)
        if connection not in _lost and connection.in_transaction:
            connection.execute("ROLLBACK TO dao")
            connection.execute("RELEASE dao")


class _Pool(Protocol):
    def acquire(self) -> AbstractContextManager[Connection]: ...


def run_in_transaction(
    where: Connection | _Pool, function: Callable[..., T], *args: Any, deadline: float = 30.0, **kwargs: Any
) -> T:
    """Call `function(connection, *args, **kwargs)` in a transaction and return its result; replay all of it while busy.

    A replay begins anew, so what the function read is read again; what it did outside of the database is done again.
    Waits between the attempts grow from 1 to 250 ms, with full jitter, and end `deadline` seconds after the first. Inside
    a transaction that is open already nothing is replayed: that is for whoever opened it. An interruption ends it all, and
    so does `CommitUnknown`: to replay what may be stored is the caller's decision.

    `where` is a connection, or a pool to take one from.

    Raises:
        DatabaseBusy: It was busy until the deadline.
        ConnectionBusy: What stands in the way is a cursor or a transaction of the connection itself. Raised at once.
        CommitUnknown: The commit met an I/O error.
    """
    if not isinstance(where, Connection):
        with where.acquire() as connection:
            return run_in_transaction(connection, function, *args, deadline=deadline, **kwargs)
    if where.in_transaction:
        with transaction(where):
            return function(where, *args, **kwargs)
    end = time.monotonic() + deadline
    wait = 0.001
    while True:
        try:
            with transaction(where):
                return function(where, *args, **kwargs)
        except ConnectionBusy:
            raise
        except DatabaseBusy:
            import random  # noqa: PLC0415 - takes 2 ms, which who need not wait saves

            pause = random.uniform(0, wait)  # noqa: S311 - jitter, no secret
            if time.monotonic() + pause >= end:
                raise
            time.sleep(pause)
            if where.is_interrupted:
                raise
            wait = min(wait * 2, 0.25)
