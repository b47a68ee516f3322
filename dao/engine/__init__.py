"""The seam between tables and engines: run a statement, run several as one, change a row, translate errors.

The functions here are the same for every engine; where engines differ they ask the engine's module, which they find by
the connection's type. `dao.engine.engines` says what such a module offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import apsw

from dao.engine.engines import ENGINES, engine_for, engine_of, is_connection, not_a_connection
from dao.engine.raising import raise_known, translated
from dao.errors import StaleRecord
from dao.url import AnyURL, DatabaseURL, ServerURL, parse

if TYPE_CHECKING:  # psycopg is loaded for PostgreSQL only; the records' modules are not needed to open a database
    import psycopg

    from dao.rows import Change, Table
    from dao.stored import Stored

    #: A connection of any engine.
    Connection = apsw.Connection | psycopg.Connection[Any]
else:
    Connection = apsw.Connection

__all__ = [
    "ENGINES",
    "Connection",
    "DriverError",
    "PerEngine",
    "absolute",
    "change",
    "connect",
    "engine_of",
    "execute",
    "execute_many",
    "fetch",
    "fetch_changed",
    "in_transaction",
    "insert_many",
    "interrupt",
    "is_connection",
    "is_interrupted",
    "lock_row",
    "not_a_connection",
    "probe",
    "reset",
    "text_for",
    "transaction",
    "translated",
    "wait_for_change",
]

#: The base of SQLite's errors.
DriverError = apsw.Error
Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")


class PerEngine(NamedTuple):
    """A statement in the words that each engine runs best, for the few where one text does not serve both.

    The parameters are the same. Their numbers rise in SQLite's text, which binds them by position.
    """

    sqlite: str
    postgresql: str


def absolute(url: str | AnyURL) -> AnyURL:
    """Return the meaning of a URL, so that it does not depend on the working folder."""
    parsed = parse(url)
    found: AnyURL = engine_of(parsed).absolute(parsed)
    return found


@overload
def connect(url: DatabaseURL) -> apsw.Connection: ...
@overload
def connect(url: ServerURL) -> psycopg.Connection[Any]: ...
@overload
def connect(url: str) -> Any: ...
def connect(url: str | AnyURL) -> Any:
    """Open a database and return a connection: apsw's for SQLite, psycopg's for PostgreSQL.

    Each thread or task needs a connection of its own, since a connection is one transaction: `dao.Pool` hands them out.

    SQLite: WAL, synchronous NORMAL, foreign keys, a busy timeout of 5 s, defensive, plans by the SQL alone. The last
    (SQLITE_DBCONFIG_ENABLE_QPSG) means that no plan depends on what is bound, so that nothing is prepared anew for
    another value. In SQL of your own, an index for `LIKE $1` or a partial index for `flag = $1` needs the value written
    out. Temporary data stays in memory (temp_store): `PRAGMA temp_store = file` before you sort a large table. A file
    in another journal mode is switched to WAL for good when it is opened for writing, unless the URL says
    `journal_mode=keep`. It is created unless the URL says `mode=rw` or `mode=ro`; its tables are not (`dao.migrate`). A
    process that was forked while the file was open, in any way, cannot open it: SQLite would not lock it there, and
    rows would get lost. Start such processes with spawn or forkserver, or close before the fork and open after it.

    PostgreSQL: a plain `psycopg.Connection` in autocommit mode, with times in UTC. A connection cannot be used in a
    process that was forked after it was opened.

    Raises:
        InvalidURL: The URL means nothing.
        ConnectionLost: No server could be reached, or it takes no connections now.
        OperationalError: The database cannot be opened, or was open when this process was forked.
        UnsupportedEngine: This SQLite can corrupt data; the server is older than PostgreSQL 16, or not in UTF-8; or
            psycopg is not installed.
    """
    parsed = parse(url)
    return engine_of(parsed).open_connection(parsed)


# ---------------------------------------------------------------- statements


def text_for(connection: Connection, statement: PerEngine) -> str:
    """Return the text of a statement for the connection's engine."""
    if type(connection) is apsw.Connection:
        return statement.sqlite
    text: str = getattr(statement, engine_for(connection).NAME)
    return text


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run a statement to its end and return its rows. One that changes some, too, belongs in a `transaction`.

    For SQL of your own, it is the same on both engines: parameters are `$1 … $n`, numbered in order of their first
    appearance, rows are tuples, and errors are typed. Parameters are texts, numbers and None. PostgreSQL tells their
    types from where they stand: `CAST($1 AS text)` says it where nothing else does, as in `$1 IS NULL`. Times are
    texts, as the engine writes them, which `datetime.fromisoformat` reads.

    Raises:
        Error: The caller can act on it. Any other error is the driver's own.
    """
    try:
        if type(connection) is apsw.Connection:  # not asked of the engine: that takes as long as a tenth of a `get`
            return connection.execute(sql, parameters).fetchall()
        return engine_for(connection).fetch(connection, sql, parameters)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection, sql, parameters)


def execute(connection: Connection, sql: str, parameters: Sequence[Any] = (), table: Table[Any] | None = None) -> int:
    """Run a statement that changes rows and gives none, and return how many it changed; alone, it is a transaction.

    The violation of a foreign key has its names if `parameters` are a row of a `table`.

    Raises:
        CommitUnknown: It was alone, and met an I/O error.
        Error: As `fetch`; then nothing was changed.
    """
    engine = engine_for(connection)
    alone = True
    try:
        alone = not engine.in_transaction(connection)
        return engine.execute(connection, sql, parameters)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection, sql, parameters, commits=alone, table=table)


def fetch_changed(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run a statement that changes rows and returns them; alone, it is a transaction.

    SQLite returns them without what AFTER triggers do to them: `change` reads a row again after these.

    Raises:
        CommitUnknown: It was alone, and met an I/O error, or was not answered.
        Error: As `fetch`; then nothing was changed.
    """
    engine = engine_for(connection)
    alone = True
    try:
        alone = not engine.in_transaction(connection)
        return engine.fetch_changed(connection, sql, parameters)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection, sql, parameters, commits=alone)


def execute_many(connection: Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run one statement for each of the rows, all in one transaction.

    Raises:
        CommitUnknown: The commit met an I/O error.
        Error: As `fetch`; then none of the rows was written.
    """
    with transaction(connection):
        try:
            engine_for(connection).execute_many(connection, sql, rows)
        except Exception as error:  # noqa: BLE001 - raised again
            raise_known(error, connection)


def insert_many(connection: Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """Insert rows into a table, all in one transaction, by the quickest way that the engine has.

    Raises:
        CommitUnknown: The commit met an I/O error, or was not answered.
        Error: As `fetch`; then none of the rows was written.
    """
    with transaction(connection):
        try:
            engine_for(connection).insert_many(connection, table, rows)
        except Exception as error:  # noqa: BLE001 - raised again
            raise_known(error, connection)


def change(
    connection: Connection,
    table: Table[R],
    update: Change,
    parameters: Sequence[Any],
    key: tuple[str, ...],
    *,
    stale: str = "has changed since it was read: read it again and repeat the change",
) -> R:
    """Change a row and return the record of it as its triggers left it, in one transaction.

    The change is undone if the row cannot be read, or is not there any more; on PostgreSQL, where one statement does
    both, only a trigger could leave such a row, and the change of it stays.

    Raises:
        NotFound: No row has the key.
        StaleRecord: The row is there, and the change passed it by.
        CommitUnknown: The commit met an I/O error, or was not answered.
        Error: As `fetch`; then nothing was changed.
    """
    engine = engine_for(connection)
    alone = True
    try:
        alone = not engine.in_transaction(connection)  # a lost connection does not know it any more
        if engine.is_idle(connection):
            record = engine.change(connection, table, update, parameters, key)
            if record is not None:
                return record
            # the row may have come after it was looked for: once more, with nobody in between
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection, table.get, key, commits=alone)
    with transaction(connection):
        changed = fetch(connection, update.returning_key, parameters)
        record = table.found(table.first(fetch(connection, table.get, key)), *key)
    if changed:
        return record
    name = key[0] if len(key) == 1 else key
    raise StaleRecord(f"{table.name}: {name!r} {stale}", table=table.name, key=name)


# ---------------------------------------------------------------- transactions


class transaction:  # noqa: N801 - reads as a function, like contextlib.suppress
    """Run a block as one transaction: `with dao.transaction(connection): …`.

    Outermost it is BEGIN IMMEDIATE on SQLite, which waits for the write lock at the start and not in the middle, and
    BEGIN on PostgreSQL; inside another transaction it is a savepoint. An exception undoes the block and goes on. A
    caller that nests and swallows the exception keeps the outer transaction, unless SQLite itself gave it up (disk
    full, I/O error): then the outer one fails too. PostgreSQL commits nothing of a block in which a statement failed,
    even if the error was swallowed: then the block raises at its end. On a psycopg connection that is not in autocommit
    mode the block commits nothing: that is up to the owner of the connection, as it is after a single statement. It
    begins with the `isolation_level`, `read_only` and `deferrable` that the psycopg connection is set to.

    No code can catch a Ctrl-C that comes in the instant between the block and its end, and the transaction stays open:
    a program that goes on after one should close the connection and take another. A pool does that by itself.

    Raises:
        DatabaseBusy: Another connection kept the lock for longer than the busy timeout.
        ConnectionBusy: A cursor of this connection that is not at its end stands in the way.
        CommitUnknown: The commit met an I/O error, or was not answered.
        ConnectionLost: The connection to the server is lost, and nothing of the transaction is stored.
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
        self._engine = engine = engine_for(connection)
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
                raise_known(error, connection)
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
                raise_known(error, connection, commits=not nested)
            raise


def lock_row(connection: Connection, table: Table[Any], *key: str) -> None:
    """Keep others from changing a row until the transaction ends, which is open; nothing happens if there is no row.

    For functions that read, then write what depends on it. SQLite has one writer at a time, and needs no more.

    Raises:
        Error: As `fetch`.
    """
    try:
        engine_for(connection).lock_row(connection, table, key)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection, "", key)


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open on the connection, whoever began it."""
    return engine_for(connection).in_transaction(connection)


def is_interrupted(connection: Connection) -> bool:
    """Return whether the connection was interrupted since its last statement."""
    return engine_for(connection).is_interrupted(connection)


# ---------------------------------------------------------------- pools


def reset(connection: Connection) -> bool:
    """Roll back what was left open, and return whether the connection can be lent again."""
    return engine_for(connection).reset(connection)


def interrupt(connection: Connection) -> None:
    """Interrupt the statement that is running; nothing happens if none is, or if the connection is closed.

    PostgreSQL: a thread of its own asks the server to cancel it, and this waits for no answer. If the server does not
    take the request within 10 seconds, the connection is ended; if it does, and the statement goes on for as long, the
    next interruption ends it.
    """
    engine_for(connection).interrupt(connection)


def probe(connection: Connection, url: AnyURL, deadline: float) -> bool:
    """Read the database from its file, not from the cache. Return whether another connection holds the write lock.

    Raises:
        DatabaseBusy: It could not even be read until the deadline, a moment of the monotonic clock.
        OperationalError: The file is damaged, or no longer the one that was opened.
    """
    try:
        return engine_for(connection).probe(connection, url, deadline)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection)


def wait_for_change(connection: Connection, seconds: float) -> bool:
    """Do as `dao.wait_for_change`.

    Raises:
        Error: As that.
    """
    try:
        return engine_for(connection).wait_for_change(connection, seconds)
    except Exception as error:  # noqa: BLE001 - raised again
        raise_known(error, connection)
