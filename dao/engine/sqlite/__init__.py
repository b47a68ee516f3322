"""SQLite: the functions that `dao.engine` asks for, and those that migrations and pools need of SQLite alone.

The functions that `dao.engine` asks for raise apsw's errors; `translated` turns those into ours.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import apsw

from dao.engine.arguments import not_taken
from dao.engine.sqlite import fork
from dao.engine.sqlite.errors import *  # noqa: F403 - the public names of each part, under one name
from dao.engine.sqlite.errors import BUSY, file_of, missing_parent, to_register, translate, unknown_outcome
from dao.engine.sqlite.not_utf8 import unreadable_text
from dao.engine.sqlite.opening import *  # noqa: F403 - as above
from dao.engine.sqlite.opening import busy_timeout, check_in_place, set_busy_timeout
from dao.engine.sqlite.transactions import *  # noqa: F403 - as above
from dao.engine.sqlite.transactions import forget, hold_if_lost
from dao.engine.sqlite.waiting import *  # noqa: F403 - as above
from dao.errors import DatabaseBusy, Error, ForeignKeyViolation, OperationalError, ReadOnlyDatabase, SchemaOutOfDate
from dao.logs import logger
from dao.url import DatabaseURL

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Change, Table
    from dao.stored import Stored

Connection = apsw.Connection
Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")


_NO_TRANSACTION = apsw.SQLITE_TXN_NONE


def is_usable(connection: apsw.Connection) -> bool:
    """Return whether a connection can be used here: an asynchronous one can in its own thread only."""
    try:
        state: object = connection.in_transaction
    except apsw.Error:
        return True
    except RuntimeError:  # no event loop is running, or not its own
        return False
    if isinstance(state, CoroutineType):
        state.close()
    return isinstance(state, bool)


def in_transaction(connection: apsw.Connection) -> bool:
    """Return whether a transaction is open, whoever began it."""
    return connection.in_transaction


def is_idle(connection: apsw.Connection) -> bool:
    """Return whether neither a transaction is open, nor a statement that is not at its end: that holds one, too."""
    return not connection.in_transaction and connection.txn_state() == _NO_TRANSACTION


def is_interrupted(connection: apsw.Connection) -> bool:
    """Return whether the connection was interrupted since its last statement."""
    return connection.is_interrupted


# ---------------------------------------------------------------- statements


def fetch(connection: apsw.Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement to its end and return its rows."""
    return connection.execute(sql, parameters).fetchall()


def fetch_changed(connection: apsw.Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement that changes rows, and return these. One whose rows cannot be read changes nothing, if alone."""
    changing = connection.cursor()  # held: as in `change`
    try:
        return changing.execute(sql, parameters).fetchall()
    except BaseException:
        if not connection.in_transaction and connection.txn_state() != _NO_TRANSACTION:
            _abandon(connection, changing)
        changing.close(True)  # or no savepoint ends
        raise


def execute(connection: apsw.Connection, sql: str, parameters: Sequence[Any]) -> int:
    """Run a statement that gives no rows, and return how many it changed."""
    connection.execute(sql, parameters).fetchall()
    return connection.changes()


def execute_many(connection: apsw.Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run a statement for each of the rows, in the transaction that is open."""
    connection.executemany(sql, rows)


#: So many rows does one statement insert: triggers have SQLite prepare for the failure of each statement.
_AT_ONCE = 32


def insert_many(connection: apsw.Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """Insert rows into a table, in the transaction that is open."""
    remaining = iter(rows)
    together: list[Row] = []

    def joined() -> Iterator[Row]:
        nonlocal together
        while len(together := [*itertools.islice(remaining, _AT_ONCE)]) == _AT_ONCE:
            yield tuple(itertools.chain.from_iterable(together))

    one = f"({', '.join('?' * len(table.columns))})"
    several = f"INSERT INTO {table.name} ({table.listed}) VALUES {', '.join([one] * _AT_ONCE)}"
    try:
        connection.executemany(several, joined())
        connection.executemany(table.insert, together)
    except apsw.ConstraintError as error:
        if isinstance(translate(error, connection), ForeignKeyViolation):
            for row in together:
                if found := missing_parent(connection, table, row):
                    raise found from error
        raise


def lock_row(connection: apsw.Connection, table: Table[Any], key: tuple[str, ...]) -> None:
    """Do nothing: nobody else writes while a transaction of `dao.transaction` is open."""


def change(
    connection: apsw.Connection, table: Table[R], update: Change, parameters: Sequence[Any], key: tuple[str, ...]
) -> R | None:
    """Change a row of an idle connection and return its record, or None if the change passed it by.

    A statement has made all its changes when it gives its first row, and commits after its last
    (sqlite.org/lang_returning.html). The row is read in between, which costs a tenth less than BEGIN and COMMIT do. If
    nothing was changed, it is read after that.
    """
    # The cursor is held before it runs: one that is dropped, as by a Ctrl-C that comes as `execute` returns, commits.
    changing = connection.cursor()
    try:
        changing.execute(update.returning_key, parameters)
        changed = changing.fetchone() is not None
        record = table.found(table.first(connection.execute(table.get, key).fetchall()), *key)
    except BaseException:
        if connection.txn_state() != _NO_TRANSACTION:
            _abandon(connection, changing)
        raise
    try:
        changing.fetchall()
    except apsw.Error as error:
        if unknown := unknown_outcome(error, connection):
            raise unknown from error
        raise
    return record if changed else None


def _abandon(connection: apsw.Connection, changing: apsw.Cursor) -> None:
    # it would commit whatever else is done with it, but for being interrupted
    connection.interrupt()
    with contextlib.suppress(apsw.InterruptError):
        changing.fetchall()


# ---------------------------------------------------------------- errors

# SQLite's words for a statement that needs another schema
_LACKING = re.compile(
    r"no such (table|column)|table .* has no column named|ON CONFLICT clause does not match", re.DOTALL
)
# its words for a name that is not in the statement, but in the schema
_BROKEN = re.compile(r"no such table: main\.|no such column: (new|old)\.|foreign key mismatch", re.IGNORECASE)


def translated(
    error: Exception,
    connection: apsw.Connection,
    sql: str,
    parameters: Sequence[Any],
    *,
    commits: bool,
    table: Table[Any] | None,
) -> Error | None:
    """Return the error of ours for one that a statement raised, or None if it goes on as it is.

    The statement `commits` if it is a transaction by itself; its parameters may be a row of a `table`.
    """
    if isinstance(error, UnicodeDecodeError) and sql:
        return unreadable_text(connection, sql, parameters)
    if not isinstance(error, apsw.Error):
        return not_taken(parameters) if isinstance(error, UnicodeEncodeError | OverflowError) else None
    fork.check(connection)
    hold_if_lost(connection)
    if commits and (unknown := unknown_outcome(error, connection)):
        return unknown
    if found := translate(error, connection):
        if table is not None and isinstance(found, ForeignKeyViolation):
            return missing_parent(connection, table, parameters) or found
        return found
    name = file_of(connection) or "the database in memory"
    if _BROKEN.match(str(error)):
        return OperationalError(
            f"{name}: {error}, which a view, trigger or foreign key of its schema refers to: `dao status` names it; "
            "mend it in a migration"
        )
    missing = str(error).rpartition(": ")[2].removesuffix("()")
    advice = to_register(str(error), "its schema uses that: register it with each connection")
    if advice and missing not in sql:  # else it is the statement that is wrong
        return OperationalError(f"{name}: {error}; {advice}")
    if _LACKING.match(str(error)):
        return SchemaOutOfDate(
            f"{name}: {error}, so its schema is not the one this program needs: run `dao migrate`; if nothing is "
            "pending, `dao status` says what is broken"
        )
    return None


# ---------------------------------------------------------------- pools

#: How the engine is called.
NAME: Literal["sqlite"] = "sqlite"
#: The base of the driver's errors.
DriverError = apsw.Error
#: The errors of a database after which its connection can be lent again.
HARMLESS = (DatabaseBusy, ReadOnlyDatabase)
#: Whether connections are to a server, which can close them, and cannot always be reached.
ON_SERVER = False


def is_fresh(_: apsw.Connection) -> bool:
    """Return whether an idle connection may be lent: nobody else can close one to a file."""
    return True


def reset(connection: apsw.Connection) -> bool:
    """Roll back what was left open, and return whether the connection can be lent again."""
    try:
        if connection.in_transaction:
            logger("dao.pool").warning("pool: a connection came back in a transaction; it was rolled back")
            forget(connection)
            connection.execute("ROLLBACK")
        # A cursor that was not read to its end holds a snapshot: the next user would see the past, and could not write.
        # A database in memory is its connection, and cannot be replaced.
        return connection.txn_state() == _NO_TRANSACTION or not connection.filename
    except apsw.Error:
        return False


def interrupt(connection: apsw.Connection) -> None:
    """Interrupt the statement that is running, if the connection is open."""
    with contextlib.suppress(apsw.ConnectionClosedError):
        connection.interrupt()


def settle(_: apsw.Connection) -> None:
    """Do nothing: an interruption is not under way for any time."""


def probe(connection: apsw.Connection, url: DatabaseURL, deadline: float) -> bool:
    """Read the database from its file, and return whether another connection holds the write lock."""
    check_in_place(connection)
    connection.release_memory()
    try:
        set_busy_timeout(connection, busy_timeout(url, deadline))
        connection.execute("SELECT 1 FROM (SELECT count(*) FROM sqlite_schema)").fetchall()
        if connection.readonly("main"):
            return False
        set_busy_timeout(connection, 0)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BUSY:
            return True
        connection.execute("ROLLBACK")
        return False
    finally:
        set_busy_timeout(connection, busy_timeout(url))
