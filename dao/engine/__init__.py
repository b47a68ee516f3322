"""The seam between tables and engines: run a statement, run several as one, change a row, translate errors.

The functions here are the same for every engine; where engines differ they ask the engine's module, which they find by
the connection's type. `_Engine` lists what such a module offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import apsw

from dao.engine import sqlite
from dao.errors import Error, StaleRecord
from dao.url import DatabaseURL, parse

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Table
    from dao.stored import Stored

__all__ = [
    "ENGINES",
    "Connection",
    "DriverError",
    "change",
    "connect",
    "execute",
    "execute_many",
    "fetch",
    "in_transaction",
    "interrupt",
    "is_connection",
    "is_interrupted",
    "not_a_connection",
    "probe",
    "reset",
    "transaction",
]

Connection = apsw.Connection
#: The base of a driver's errors.
DriverError = apsw.Error
Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")


class _Engine(Protocol):
    """The module of an engine. Its functions raise the driver's errors, and `translated` turns those into ours."""

    def is_usable(self, connection: Any) -> bool: ...
    def is_idle(self, connection: Any) -> bool: ...
    def is_interrupted(self, connection: Any) -> bool: ...
    def in_transaction(self, connection: Any) -> bool: ...
    def execute(self, connection: Any, sql: str, parameters: Sequence[Any]) -> int: ...
    def execute_many(self, connection: Any, sql: str, rows: Iterable[Row]) -> None: ...
    def change(
        self, connection: Any, table: Table[R], sql: str, parameters: Sequence[Any], key: tuple[str, ...]
    ) -> R | None: ...
    def begin(self, connection: Any, *, nested: bool) -> None: ...
    def commit(self, connection: Any, *, nested: bool) -> None: ...
    def roll_back(self, connection: Any, *, nested: bool) -> None: ...
    def translated(
        self,
        error: Exception,
        connection: Any,
        sql: str,
        parameters: Sequence[Any],
        *,
        commits: bool,
        table: Table[Any] | None,
    ) -> Error | None: ...
    def reset(self, connection: Any) -> bool: ...
    def interrupt(self, connection: Any) -> None: ...
    def probe(self, connection: Any, url: DatabaseURL, deadline: float) -> bool: ...


#: The engine of each type of connection.
ENGINES: dict[type, _Engine] = {Connection: sqlite}


def _engine(connection: object) -> _Engine:
    found = ENGINES.get(type(connection))
    if found is None:  # one of a subclass
        found = next((ENGINES[kind] for kind in type(connection).__mro__ if kind in ENGINES), None)
    if found is None:
        raise not_a_connection(connection)
    return found


def connect(url: str | DatabaseURL) -> Connection:
    """Open a database: WAL, synchronous NORMAL, foreign keys, a busy timeout of 5 s, defensive, plans by the SQL alone.

    The last (SQLITE_DBCONFIG_ENABLE_QPSG) means that no plan depends on what is bound, so that nothing is prepared anew
    for another value. In SQL of your own, an index for `LIKE $1` or a partial index for `flag = $1` needs the value
    written out.

    A file in another journal mode is switched to WAL for good when it is opened for writing, unless the URL says
    `journal_mode=keep`. It is created unless the URL says `mode=rw` or `mode=ro`; its tables are not (`dao.migrate`).
    Each thread or task needs a connection of its own, since a connection is one transaction: `dao.Pool` hands them out.

    A process that was forked while the file was open, in any way, cannot open it: SQLite would not lock it there, and
    rows would get lost. Start such processes with spawn or forkserver, or close before the fork and open after it.

    Raises:
        InvalidURL: The URL means nothing.
        OperationalError: The database cannot be opened, or was open when this process was forked.
        UnsupportedEngine: The URL is for PostgreSQL, or this SQLite can corrupt data.
    """
    return sqlite.open_connection(parse(url))


def is_connection(given: object) -> bool:
    """Return whether it is a connection that can be used here: an asynchronous one can in its own thread only."""
    return any(isinstance(given, kind) and engine.is_usable(given) for kind, engine in ENGINES.items())


def not_a_connection(given: object) -> TypeError:
    """Return the error for an object that is no connection, or none that can be used here."""
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


# ---------------------------------------------------------------- statements


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run a statement to its end and return its rows. One that changes some, too, belongs in a `transaction`.

    Raises:
        Error: The caller can act on it. Any other error is the driver's own.
    """
    try:
        return connection.execute(sql, parameters).fetchall()
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection, sql, parameters)


def execute(connection: Connection, sql: str, parameters: Sequence[Any] = (), table: Table[Any] | None = None) -> int:
    """Run a statement that changes rows and gives none, and return how many it changed; alone, it is a transaction.

    The violation of a foreign key has its names if `parameters` are a row of a `table`.

    Raises:
        CommitUnknown: It was alone, and met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    engine = _engine(connection)
    alone = True
    try:
        alone = not engine.in_transaction(connection)
        return engine.execute(connection, sql, parameters)
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection, sql, parameters, commits=alone, table=table)


def execute_many(connection: Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run one statement for each of the rows, all in one transaction.

    Raises:
        CommitUnknown: The commit met an I/O error.
        Error: As `fetch`; then none of the rows was written.
    """
    with transaction(connection):
        try:
            _engine(connection).execute_many(connection, sql, rows)
        except Exception as error:  # noqa: BLE001 - raised again
            _raise(error, connection)


def change(
    connection: Connection,
    table: Table[R],
    sql: str,
    parameters: Sequence[Any],
    key: tuple[str, ...],
    *,
    stale: str = "has changed since it was read: read it again and repeat the change",
) -> R:
    """Change a row and return the record of it as its triggers left it, in one transaction.

    The statement has a RETURNING. Its change is undone if the row cannot be read, or is not there any more.

    Raises:
        NotFound: No row has the key.
        StaleRecord: The row is there, and the change passed it by.
        CommitUnknown: The commit met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    engine = _engine(connection)
    try:
        if engine.is_idle(connection):
            record = engine.change(connection, table, sql, parameters, key)
            if record is not None:
                return record
            # the row may have come after it was looked for: once more, with nobody in between
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection, table.get, key)
    with transaction(connection):
        changed = fetch(connection, sql, parameters)
        record = table.found(table.first(fetch(connection, table.get, key)), *key)
    if changed:
        return record
    name = key[0] if len(key) == 1 else key
    raise StaleRecord(f"{table.name}: {name!r} {stale}", table=table.name, key=name)


def _raise(
    error: Exception,
    connection: Connection,
    sql: str = "",
    parameters: Sequence[Any] = (),
    *,
    commits: bool = False,
    table: Table[Any] | None = None,
) -> NoReturn:
    if not is_connection(connection):
        raise not_a_connection(connection) from error
    known = _engine(connection).translated(error, connection, sql, parameters, commits=commits, table=table)
    try:
        if known is None:
            raise error
        raise known from error
    finally:
        # The traceback has this frame, and would keep itself alive in a circle: with the caller's frames, and the
        # cursors in them that hold the database as it was, until the garbage is collected.
        del error, known


# ---------------------------------------------------------------- transactions


class transaction:  # noqa: N801 - reads as a function, like contextlib.suppress
    """Run a block as one transaction: `with dao.transaction(connection): …`.

    Outermost it is BEGIN IMMEDIATE, which waits for the write lock at the start and not in the middle; inside another
    transaction it is a savepoint. An exception undoes the block and goes on. A caller that nests and swallows the
    exception keeps the outer transaction, unless SQLite itself gave it up (disk full, I/O error): then the outer one
    fails too.

    No code can catch a Ctrl-C that comes in the instant between the block and its end, and the transaction stays open:
    a program that goes on after one should close the connection and take another. A pool does that by itself.

    Raises:
        DatabaseBusy: Another connection kept the lock for longer than the busy timeout.
        ConnectionBusy: A cursor of this connection that is not at its end stands in the way.
        CommitUnknown: The commit met an I/O error.
        OperationalError: The block cannot be committed.
        TypeError: It is no connection, or an asynchronous one outside of its thread: `await dao.aio.run(connection,
            function)` runs a function with such a block in it.
    """

    # A slotted class: @contextmanager costs a microsecond more.
    __slots__ = ("_connection", "_engine", "_nested")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Connection:
        connection = self._connection
        self._engine = engine = _engine(connection)
        if not engine.is_usable(connection):
            raise not_a_connection(connection)
        self._nested = engine.in_transaction(connection)
        try:
            engine.begin(connection, nested=self._nested)
        except BaseException as error:
            # an interruption may come when it has begun
            if not self._nested:
                engine.roll_back(connection, nested=False)
            if isinstance(error, Exception):
                _raise(error, connection)
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, engine, nested = self._connection, self._engine, self._nested
        if kind is not None:
            engine.roll_back(connection, nested=nested)
            return
        try:
            engine.commit(connection, nested=nested)
        except BaseException as error:
            engine.roll_back(connection, nested=nested)
            if isinstance(error, Exception):
                _raise(error, connection, commits=not nested)
            raise


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open on the connection, whoever began it."""
    return _engine(connection).in_transaction(connection)


def is_interrupted(connection: Connection) -> bool:
    """Return whether the connection was interrupted since its last statement."""
    return _engine(connection).is_interrupted(connection)


# ---------------------------------------------------------------- pools


def reset(connection: Connection) -> bool:
    """Roll back what was left open, and return whether the connection can be lent again."""
    return _engine(connection).reset(connection)


def interrupt(connection: Connection) -> None:
    """Interrupt the statement that is running; nothing happens if none is, or if the connection is closed."""
    _engine(connection).interrupt(connection)


def probe(connection: Connection, url: DatabaseURL, deadline: float) -> bool:
    """Read the database from its file, not from the cache. Return whether another connection holds the write lock.

    Raises:
        DatabaseBusy: It could not even be read until the deadline, a moment of the monotonic clock.
        OperationalError: The file is damaged, or no longer the one that was opened.
    """
    try:
        return _engine(connection).probe(connection, url, deadline)
    except Exception as error:  # noqa: BLE001 - raised again
        _raise(error, connection)
