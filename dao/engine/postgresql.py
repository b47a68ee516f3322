"""PostgreSQL: the functions that `dao.engine` asks for, on psycopg. Loaded with the first connection or URL of it.

The functions that `dao.engine` asks for raise psycopg's errors; `translated` turns those into ours. Statements run on
cursors of our own: they take `$1 … $n`, leave times as text, which records decode when they are read, and bind whole
numbers as literals are, so that one prepared statement serves all. The caller's own cursors and adapters on the same
connection are not concerned.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import re
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
from psycopg import errors as sqlstates
from psycopg import pq
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from dao import codec, errors
from dao.url import ServerURL

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Change, Table
    from dao.stored import Stored

log = logging.getLogger("dao.pool")  # loaded by psycopg, too

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")

#: The first version that is served: `IS JSON` came with it.
_FIRST_VERSION = 160_000
#: How long a statement waits for a lock by default, and a connection for its server, in seconds.
_CONNECT_TIMEOUT = 10
#: How long a server may take to cancel a statement, in seconds.
_CANCEL_TIMEOUT = 10
#: For how long a pool keeps a connection, in seconds, and by how much less at random: so that a pool finds the servers
#: that have come, and no connection outlasts what stands between it and its server.
_LIFETIME, _SPREAD = 3600.0, 360.0

_IDLE, _IN_TRANSACTION, _FAILED = (
    pq.TransactionStatus.IDLE,
    pq.TransactionStatus.INTRANS,
    pq.TransactionStatus.INERROR,
)


# ---------------------------------------------------------------- open


def open_connection(url: ServerURL, deadline: float = float("inf")) -> Connection:
    """Connect to the database that the URL names, until a moment of the monotonic clock, and set the connection up.

    Raises:
        ConnectionLost: No server could be reached, or it takes no connections now.
        OperationalError: The server refused the connection; the message says why.
        UnsupportedEngine: The server is older than 16, or the database is not in UTF-8.
    """
    parameters: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "fallback_application_name": "dao",
        **url.parameters,
        "client_encoding": "UTF8",
    }
    left = deadline - time.monotonic()
    try:
        if left < float(parameters["connect_timeout"]):
            parameters["connect_timeout"] = max(1, int(left))  # libpq counts whole seconds
        connection = psycopg.connect(**parameters, autocommit=True)
    except ValueError as error:
        raise errors.InvalidURL("connect_timeout in the database URL is no number: write it in seconds") from error
    except psycopg.Error as error:
        raise _not_connected(error, url) from error
    _ends[connection] = time.monotonic() + _LIFETIME - random.uniform(0, _SPREAD)  # noqa: S311 - no secret
    try:
        prepare(connection)
        if url.busy_timeout is not None:
            # for SQLite nothing means not to wait, for PostgreSQL to wait for ever
            _command(connection, f"SET lock_timeout = {max(1, url.busy_timeout)}")
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise _not_connected(error, url) from error
        raise
    return connection


def absolute(url: ServerURL) -> ServerURL:
    """Return the URL: a server's means the same everywhere."""
    return url


def check_exists(url: ServerURL) -> None:
    """Do nothing: to connect to a database that does not exist does not make it."""


def prepare(connection: Connection) -> None:
    """Set a connection of the caller's up for the functions of this package: times in UTC, one format for dates.

    They work on one that was not set up, too; this finds out early whether they do. A connection that is not in
    autocommit mode is in a transaction from its first statement on, which the caller commits.

    Raises:
        UnsupportedEngine: The server is older than 16, or the database is not in UTF-8.
    """
    if connection.pgconn.server_version < _FIRST_VERSION:
        version = connection.info.parameter_status("server_version")
        raise errors.UnsupportedEngine(f"the server is PostgreSQL {version}: use 16 or newer")
    for name in ("server_encoding", "client_encoding"):
        # PgBouncer repeats what it was told
        if (encoding := (connection.info.parameter_status(name) or "").upper().replace("-", "")) != "UTF8":
            raise errors.UnsupportedEngine(
                f"the {name} of {name_of(connection)} is {encoding}, in which not every text can be stored: use UTF8"
            )
    _command(connection, "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'")


def name_of(connection: Connection) -> str:
    """Return the user, the host and the database of a connection, for messages."""
    info = connection.info
    with contextlib.suppress(psycopg.Error):
        return ServerURL(
            parameters={"user": info.user, "host": info.host, "port": str(info.port), "dbname": info.dbname}
        ).name
    return "the server"


def _not_connected(error: psycopg.Error, url: ServerURL) -> errors.Error:
    # libpq tells one line for each host that it tried
    reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    for name in ("password", "sslpassword", "oauth_client_secret", "scram_client_key"):
        if (secret := url.parameters.get(name)) and len(secret) > 2:
            reason = reason.replace(secret, "…")
    kind = errors.OperationalError if _REFUSED.search(reason) else errors.ConnectionLost
    advice = next((advice for words, advice in _WAYS_OUT.items() if re.search(words, reason)), None)
    return kind(f"cannot connect to {url.name}: {reason}", advice=advice)


# the server's or libpq's words where to try again does not help
_REFUSED = re.compile(
    "authentication failed|no pg_hba.conf entry|does not exist|permission denied for database|no password supplied|"
    "server does not support SSL|certificate|SSL error: (?!unexpected eof)|role .* is not permitted to log in|"
    "invalid (?:value|integer|sslmode|require_auth)|unsupported"
)
_WAYS_OUT = {
    'database ".*" does not exist': "Create it first (`createdb`, or CREATE DATABASE by a role that may), or name "
    "another.",
    "authentication failed|no password supplied|role .* does not exist": "Check user and password, which libpq also "
    "takes from PGUSER, PGPASSWORD and ~/.pgpass.",
    "no encryption|SSL off": "The server wants TLS: sslmode=verify-full in the URL, with sslrootcert=… or "
    "sslrootcert=system.",
    "no pg_hba.conf entry": "The server lets nobody in from here as this user: its pg_hba.conf says whom.",
    "server does not support SSL": "The server has no TLS: leave sslmode out of the URL where the network is trusted, "
    "or set TLS up there.",
    "certificate": "sslrootcert=… in the URL names who vouches for the server; sslmode=verify-full demands its name.",
    "resolve|translate host name": "Check the name of the host.",
    "starting up|shutting down|recovery": "Wait until it takes connections (`dao wait` does), and repeat.",
}


# ---------------------------------------------------------------- cursors of our own


class _WholeNumber(Dumper):
    """Binds a whole number without a type, as a literal: the column gives it one, be it bigint or boolean."""

    oid = 0

    def dump(self, obj: int) -> bytes:
        return b"%d" % obj


class _TimeElsewhere(TimestamptzLoader):
    """Gives a time as text of ours, whatever the zone and the format that somebody has set for the session."""

    def load(self, data: Any) -> Any:
        return codec.time_to_text(super().load(data))


def _adapters(time_loader: type[Any]) -> AdaptersMap:
    made = AdaptersMap(psycopg.adapters)
    made.register_dumper(int, _WholeNumber)
    made.register_loader("timestamptz", time_loader)
    made.register_loader("numeric", FloatLoader)
    return made


_IN_UTC, _ELSEWHERE = _adapters(TextLoader), _adapters(_TimeElsewhere)
_UTC = {b"UTC", b"Etc/UTC"}


class _Cursor(psycopg.RawCursor[Row]):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, row_factory=psycopg.rows.tuple_row)
        # the server reports both whenever they change
        status = self._pgconn.parameter_status
        is_plain = status(b"TimeZone") in _UTC and (status(b"DateStyle") or b"").startswith(b"ISO")
        self._adapters = _IN_UTC if is_plain else _ELSEWHERE


def _run(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> _Cursor:
    if connection not in _known:
        _known.add(connection)
    try:
        return _Cursor(connection).execute(sql, parameters)
    except sqlstates.FeatureNotSupported as error:
        if in_transaction(connection) or not _is_outdated(error):
            raise  # psycopg lets go of what it has prepared when the transaction is rolled back
    # it did nothing
    _command(connection, "DEALLOCATE ALL")
    return _Cursor(connection).execute(sql, parameters)


def _is_outdated(error: psycopg.Error) -> bool:
    """Return whether a prepared statement is of a schema that has changed since."""
    return error.sqlstate == "0A000" and "cached plan" in str(error)


def _command(connection: Connection, sql: str) -> str:
    """Run commands of our own, which return nothing, and return the tag of the last."""
    if connection not in _known:
        _known.add(connection)
    return _Cursor(connection).execute(sql).statusmessage or ""


# ---------------------------------------------------------------- state


def is_usable(connection: Connection) -> bool:
    """Return whether a connection can be used here: psycopg's is one for any thread."""
    return True


def is_idle(connection: Connection) -> bool:
    """Return whether a change may be made at once: it always is one statement, alone or in a transaction."""
    return True


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open, whoever began it."""
    return connection.pgconn.transaction_status != _IDLE


def is_interrupted(connection: Connection) -> bool:
    """Return whether the connection was interrupted since it was last settled."""
    return connection in _interrupted


# ---------------------------------------------------------------- statements


def fetch(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement and return its rows."""
    cursor = _run(connection, sql, parameters)
    return cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else []


def fetch_each(connection: Connection, script: str) -> list[list[Row]]:
    """Run several statements without parameters in one journey, and return the rows of each."""
    if connection not in _known:
        _known.add(connection)
    cursor = _Cursor(connection).execute(script, prepare=False)
    found: list[list[Row]] = []
    while True:
        found.append(cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else [])
        if not cursor.nextset():
            return found


def execute(connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
    """Run a statement that gives no rows, and return how many it changed."""
    _check_alive(connection)
    return max(0, _run(connection, sql, parameters).rowcount)


def execute_many(connection: Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run a statement for each of the rows, in the transaction that is open."""
    if connection not in _known:
        _known.add(connection)
    _Cursor(connection).executemany(sql, rows)


def insert_many(connection: Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """Insert rows into a table, in the transaction that is open."""
    if connection not in _known:
        _known.add(connection)
    with _Cursor(connection).copy(f"COPY {table.name} ({table.listed}) FROM STDIN") as copy:
        for block in _blocks(rows):
            copy.write(block)


_BLOCK = 500


def _blocks(rows: Iterable[Row]) -> Iterator[str]:
    """Yield rows in the text format of COPY (postgresql.org/docs/current/sql-copy.html), some hundred at a time."""
    lines: list[str] = []
    for row in rows:
        lines.append("\t".join([_field(value) for value in row]))
        if len(lines) == _BLOCK:
            yield "\n".join([*lines, ""])
            lines.clear()
    if lines:
        yield "\n".join([*lines, ""])


def _field(value: str | int | None) -> str:
    if value is None:
        return "\\N"
    if type(value) is not str:
        return str(value)
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if not value.isprintable():
        value = value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return value


def change(
    connection: Connection, table: Table[R], update: Change, parameters: Sequence[Any], key: tuple[str, ...]
) -> R | None:
    """Change a row and return its record, or None if the change passed it by. Triggers run before RETURNING."""
    alone = connection.autocommit and not in_transaction(connection)
    _check_alive(connection)
    try:
        return table.first(fetch(connection, update.returning_row, parameters))
    except psycopg.Error as error:
        if alone and _is_ended(error, connection):
            raise _lost(error, commits=True) from error
        raise


def lock_row(connection: Connection, table: Table[Any], key: tuple[str, ...]) -> None:
    """Keep others from changing a row until the transaction ends; nothing happens if there is none."""
    _run(connection, f"{table.get} FOR NO KEY UPDATE", key)


# ---------------------------------------------------------------- transactions


def begin(connection: Connection, *, nested: bool) -> None:
    """Begin an outermost transaction, or a savepoint in one."""
    if nested:
        try:
            _command(connection, "SAVEPOINT dao")
        except Exception:
            raise
        except BaseException:  # whether it is there nobody knows: a block around this would be undone to it only
            connection.close()
            raise
    elif connection.autocommit:
        _command(connection, "BEGIN")
    else:
        _command(connection, "SELECT")  # psycopg begins one before any statement


def commit(connection: Connection, *, nested: bool) -> None:
    """Commit a transaction, or release its savepoint. The caller rolls back when this raises.

    The owner of a connection that is not in autocommit mode commits it.

    Raises:
        OperationalError: The transaction is not there any more, or a statement in it has failed.
        psycopg.Error: It cannot be committed.
    """
    status = connection.pgconn.transaction_status
    if status == _IDLE:
        raise errors.OperationalError(
            "the block ended its transaction itself, with a COMMIT or ROLLBACK: what it did is as that left it; leave "
            "both to dao.transaction"
        )
    if not nested:
        _check_alive(connection)
        if status == _IN_TRANSACTION and not connection.autocommit:
            return  # as a single statement on such a connection
    # COMMIT would roll back, without an error
    if status == _FAILED or _command(connection, "RELEASE dao" if nested else "COMMIT") == "ROLLBACK":
        raise errors.OperationalError(
            "a statement of this transaction failed, so PostgreSQL commits nothing of it: let such an error leave the "
            "block, or put a dao.transaction of its own around that part"
        )


def roll_back(connection: Connection, *, nested: bool) -> None:
    """Undo a transaction or its savepoint, unless the server has done so already."""
    status = connection.pgconn.transaction_status
    if connection in _inherited or status not in {_IN_TRANSACTION, _FAILED}:
        if status == pq.TransactionStatus.ACTIVE:  # a statement is half-way, and nothing else can be sent
            connection.close()
        return
    try:
        with contextlib.suppress(sqlstates.QueryCanceled):  # an interruption of what went before
            _undo(connection, nested=nested)
            return
        _undo(connection, nested=nested)
    except BaseException as error:
        # a server that is asked no more undoes all of it
        connection.close()
        if not isinstance(error, psycopg.Error):
            raise


def _undo(connection: Connection, *, nested: bool) -> None:
    # there is no such savepoint if an interruption came as it had been released
    with contextlib.suppress(sqlstates.InvalidSavepointSpecification):
        _command(connection, "ROLLBACK TO dao; RELEASE dao" if nested else "ROLLBACK")


# ---------------------------------------------------------------- errors

_KEY = re.compile(r"\((.*?)\)=\(", re.DOTALL)
_BUSY = {
    "40001": "it does not serialise with another transaction",
    "40P01": "it and another transaction waited for each other",
    "55P03": "another transaction keeps a lock",
}
_ADVICE = {
    "42501": "give the role the rights that it needs",
    "53200": "the server has not enough memory",
    "53300": "the server takes no more connections: use smaller pools, or raise max_connections",
    "53400": "a limit of the server is reached",
    "57014": "the statement was undone; repeat the transaction if it is still wanted",
    "25P02": "an earlier statement of this transaction failed: leave the block, or put a dao.transaction of its own "
    "around that part",
}
#: Limits that a value of the row is beyond; our statements are the same for any.
_BEYOND = {
    "54000": "a value is too long for an index, whose keys hold some 2,700 bytes on PostgreSQL",
    "54001": "a value is too deeply nested: max_stack_depth of the server is reached",
}
#: How severe an error is with which a server ends a connection.
_ENDING = {"FATAL", "PANIC"}
_LACKING = {"42P01", "42703", "42883", "3F000", "42P10"}
#: A value that the column cannot hold: not a time, out of range, not UTF-8.
_UNFIT = "22"


def translated(
    error: Exception,
    connection: Connection,
    sql: str,
    parameters: Sequence[Any],
    *,
    commits: bool,
    table: Table[Any] | None,
) -> errors.Error | None:
    """Return the error of ours for one that a statement raised, or None if it goes on as it is.

    The statement `commits` if it is a transaction by itself.
    """
    if connection in _inherited:
        return errors.OperationalError(_FORKED)
    if isinstance(error, UnicodeEncodeError):
        return errors.IntegrityError("a text holds a lone surrogate, which is no character: it cannot be stored")
    if isinstance(error, NotImplementedError):  # of psycopg's, at a time in another DateStyle than ISO
        return errors.OperationalError(f"{name_of(connection)}: {error}: call dao.postgresql.prepare(connection) once")
    if not isinstance(error, psycopg.Error):
        return None
    if _is_ended(error, connection):
        return _lost(error, commits=commits and connection.autocommit)
    state = error.sqlstate or ""
    reason = error.diag.message_primary or str(error)
    name = name_of(connection)
    if state.startswith("23") or state == "P0001":
        return _constraint(error, connection, dict(zip(table.columns, parameters, strict=True)) if table else {})
    if state.startswith(_UNFIT) or isinstance(error, psycopg.DataError):
        return errors.IntegrityError(reason, table=error.diag.table_name)
    if state in _BEYOND:
        return errors.IntegrityError(
            f"{reason}; {_BEYOND[state]}", table=error.diag.table_name, constraint=error.diag.constraint_name
        )
    if state in _BUSY:
        return errors.DatabaseBusy(f"{name}: {_BUSY[state]} ({reason}): repeat the transaction")
    if _is_outdated(error):
        return errors.DatabaseBusy(f"{name}: the schema has changed meanwhile ({reason}): repeat the transaction")
    if state == "53100":
        return errors.DiskFull(f"{name}: no room left to write ({reason}); nothing was changed. Free some and repeat")
    if state == "25006":
        return errors.ReadOnlyDatabase(
            f"{name}: {reason}: it is a standby, or read-only by its settings: connect to the primary; with several "
            "hosts in the URL, target_session_attrs=read-write finds it"
        )
    if state in {"XX001", "XX002"}:
        return errors.DatabaseCorrupt(f"{name} is damaged ({reason}): look at the server's log, and at its disk")
    if state in _LACKING:
        return errors.SchemaOutOfDate(
            f"{name}: {reason}, so its schema is not the one this program needs: run `dao migrate`; if nothing is "
            "pending, `dao status` says what is broken, and search_path may be another"
        )
    return errors.OperationalError(f"{name}: {reason}; {_ADVICE[state]}") if state in _ADVICE else None


def _is_ended(error: psycopg.Error, connection: Connection) -> bool:
    """Return whether a connection has ended with an error."""
    return connection.pgconn.status != pq.ConnStatus.OK or error.diag.severity_nonlocalized in _ENDING


def _lost(error: psycopg.Error, *, commits: bool) -> errors.Error:
    reason = " ".join((error.diag.message_primary or str(error)).split())
    # a server that waits in vain for the next statement has not read a commit
    if commits and not isinstance(error, _NotSent | sqlstates.IdleInTransactionSessionTimeout):
        return errors.CommitUnknown(
            f"the connection was lost before the answer to a commit came ({reason}), and whether it is stored cannot "
            "be known: look at what is there before you repeat it"
        )
    return errors.ConnectionLost(
        f"the connection to the server is lost ({reason}); nothing of the transaction is stored: repeat it on another "
        "connection"
    )


def _constraint(error: psycopg.Error, connection: Connection, row: dict[str, Any]) -> errors.IntegrityError:
    state, diag = error.sqlstate, error.diag
    table, constraint = diag.table_name, diag.constraint_name
    found = _KEY.search(diag.message_detail or "")
    columns = found[1].split(", ") if found else [diag.column_name] if diag.column_name else []
    names: dict[str, Any] = {"table": table, "columns": columns, "constraint": constraint}
    if state == "23505":
        return errors.UniqueViolation(f"{table}: another row has this {' and '.join(columns)}", **names)
    if state == "23502":
        return errors.NotNullViolation(f"{table}: {diag.column_name} must have a value", **names)
    if state == "23503" and len(columns) == 1 and columns[0] in row:
        return errors.ForeignKeyViolation(
            f"{table}: {columns[0]} refers to {row[columns[0]]!r}, which does not exist", **names
        )
    if state in {"23503", "23001"}:
        return errors.ForeignKeyViolation(
            f"{table}: {constraint} would break: {diag.message_detail or diag.message_primary}", **names
        )
    if state == "23514":
        names["columns"] = _columns_of(connection, constraint, table)
        return errors.CheckViolation(f"{table}: the row breaks the constraint {constraint}", **names)
    return errors.IntegrityError(diag.message_primary or str(error), **names)


def _columns_of(connection: Connection, constraint: str | None, table: str | None) -> list[str]:
    """Return the columns of a CHECK, as far as a catalog can be asked: not in a transaction that has failed."""
    if connection.pgconn.transaction_status != _IDLE or not connection.autocommit:
        return []
    with contextlib.suppress(psycopg.Error):
        return [name for (name,) in fetch(connection, _COLUMNS_OF, (constraint, table))]
    return []


_COLUMNS_OF = """
SELECT attname
FROM   pg_constraint
JOIN   pg_class ON pg_class.oid = conrelid
JOIN   pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
WHERE  conname = $1 AND relname = $2 AND contype = 'c' AND pg_table_is_visible(conrelid)
ORDER  BY attnum
"""


# ---------------------------------------------------------------- pools and forks

#: How the engine is called.
NAME: Literal["postgresql"] = "postgresql"
#: The base of the driver's errors.
DriverError = psycopg.Error
#: The errors of a database after which its connection can be lent again; one to a server that writes nothing cannot:
#: the next may find the one that does.
HARMLESS = (errors.DatabaseBusy,)
#: Whether connections are to a server, which can close them, and cannot always be reached.
ON_SERVER = True

_ends: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
_known: weakref.WeakSet[Connection] = weakref.WeakSet()
# when a connection was interrupted first, since it was last settled; and the threads that tell its server so
_interrupted: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
_cancelling: weakref.WeakKeyDictionary[Connection, threading.Thread] = weakref.WeakKeyDictionary()
# for good: with the last reference libpq would say goodbye on the parent's socket
_inherited: set[Connection] = set()
_FORKED = (
    "this connection belongs to the parent of this process: open one here, or start the process with spawn or "
    "forkserver instead of fork"
)


def is_fresh(connection: Connection) -> bool:
    """Return whether an idle connection may be lent: the server has not closed it, and its time is not up."""
    return not _is_lost(connection) and time.monotonic() < _ends.get(connection, math.inf)


class _NotSent(psycopg.OperationalError):
    """The connection was lost before a statement was sent."""


def _check_alive(connection: Connection) -> None:
    """Raise an error if a connection is lost, before something is sent of which nobody could tell what became of it."""
    if connection.pgconn.transaction_status != pq.TransactionStatus.ACTIVE and _is_lost(connection):
        raise _NotSent("it is closed")


def _is_lost(connection: Connection) -> bool:
    """Return whether the server has closed a connection, as far as that has come here: nothing is asked of it."""
    try:
        with connection.lock:  # libpq takes no two calls at once
            socket_of = select.poll()
            socket_of.register(connection.pgconn.socket, select.POLLIN)
            return bool(socket_of.poll(0)) and _says_farewell(connection, socket_of)
    except psycopg.OperationalError:
        return True


def _says_farewell(connection: Connection, socket_of: select.poll) -> bool:
    """Read what a server says though it was asked nothing, and return whether that is why it closes the connection."""
    said: list[str | None] = []

    def listen(diag: psycopg.errors.Diagnostic) -> None:
        said.append(diag.severity_nonlocalized)

    connection.add_notice_handler(listen)
    try:
        while socket_of.poll(0):
            connection.pgconn.consume_input()  # raises at the end
            connection.pgconn.is_busy()  # which lets libpq look at it
    finally:
        connection.remove_notice_handler(listen)
    return not _ENDING.isdisjoint(said)


def reset(connection: Connection) -> bool:
    """Roll back what was left open, and return whether the connection can be lent again."""
    settle(connection)
    try:
        if connection.pgconn.transaction_status in {_IN_TRANSACTION, _FAILED}:
            log.warning("pool: a connection came back in a transaction; it was rolled back")
            _command(connection, "ROLLBACK")
        is_idle = bool(connection.pgconn.transaction_status == _IDLE)
        # in another mode nothing that the next user writes alone would be committed
        return is_idle and connection.autocommit and connection not in _inherited
    except psycopg.Error:
        return False


def interrupt(connection: Connection) -> None:
    """Have the server cancel the statement that is running, without waiting for that.

    If it goes on all the same, and this is called again when the server has had its time, the connection is ended.
    """
    first = _interrupted.setdefault(connection, time.monotonic())
    if connection.pgconn.transaction_status != pq.TransactionStatus.ACTIVE or connection in _cancelling:
        return
    _cancelling[connection] = thread = threading.Thread(target=_cancel, args=[connection, first], daemon=True)
    try:
        thread.start()
    except RuntimeError:  # too many threads, or the interpreter is ending
        _cancel(connection, first)


def _cancel(connection: Connection, first: float) -> None:
    try:
        if time.monotonic() - first > _CANCEL_TIMEOUT:
            break_off(connection)
        else:
            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
    except psycopg.Error as error:
        log.warning("cannot ask the server to cancel a statement: %s", " ".join(str(error).split()))
    finally:
        del _cancelling[connection]


def settle(connection: Connection) -> None:
    """Wait for an interruption that is on its way: it must hit nothing that comes after."""
    if thread := _cancelling.get(connection):
        thread.join()
    if _interrupted:
        _interrupted.pop(connection, None)


def probe(connection: Connection, url: ServerURL, deadline: float) -> bool:
    """Ask the server for an answer. Return False: no connection keeps all others from writing.

    A server that has not answered by the deadline is one that was lost.
    """
    ends = threading.Timer(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)), break_off, [connection])
    ends.daemon = True
    ends.start()
    try:
        _command(connection, "SELECT FROM pg_database WHERE datname = current_database()")
    finally:
        ends.cancel()
    return False


def break_off(connection: Connection) -> None:
    """End a connection whose server does not answer: whoever waits for the answer is told that it was lost."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)


def _after_fork() -> None:
    for connection in list(_known):
        _inherited.add(connection)
        with contextlib.suppress(psycopg.Error, OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, connection.fileno())
            os.close(null)


os.register_at_fork(after_in_child=_after_fork)
