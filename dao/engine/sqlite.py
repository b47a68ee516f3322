"""The SQLite engine: open, settings, error translation. Nothing here knows a table.

apsw brings its own SQLite. A second SQLite library on the same file in this process (Python's `sqlite3`, or even a
plain `open()` of the file) would drop this one's locks and lose commits: sqlite.org/howtocorrupt.html, 2.2 and 2.2.1.
"""

from __future__ import annotations

import math
import os
import re
import time
import weakref
from collections.abc import Callable
from typing import Any

import apsw
import attrs

from dao import errors
from dao.engine import files as database_file
from dao.engine import fork
from dao.url import DatabaseURL

__all__ = [
    "BUSY_TIMEOUT",
    "STATEMENT_CACHE",
    "absolute",
    "busy_timeout",
    "check_exists",
    "check_in_place",
    "check_version",
    "configure",
    "connection_arguments",
    "file_of",
    "open_connection",
    "set_busy_timeout",
    "translate",
    "unknown_outcome",
]

#: How long a connection waits for a lock, in milliseconds, unless its URL says otherwise.
BUSY_TIMEOUT = 5_000

# 3.7.0 to 3.51.2 can corrupt a WAL database: sqlite.org/wal.html#walresetbug
_FIRST_TRUSTED = (3, 51, 3)

_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
#: How many prepared statements a connection keeps: apsw's own 100 are fewer than the shapes of `find`.
STATEMENT_CACHE = 256
_OPEN_FLAGS = {
    "ro": apsw.SQLITE_OPEN_READONLY,
    "rw": apsw.SQLITE_OPEN_READWRITE,
    "rwc": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
}


# ---------------------------------------------------------------- open


def open_connection(url: DatabaseURL) -> apsw.Connection:
    """Open the database that the URL names and set the connection up.

    Raises:
        OperationalError: It cannot be opened; the message says why, and `DatabaseCorrupt`, `DatabaseBusy` and
            `ReadOnlyDatabase` are the kinds that a program may act on.
        UnsupportedEngine: This SQLite has the WAL-reset bug.
    """
    check_version()
    try:
        connection = apsw.Connection(*connection_arguments(url), statementcachesize=STATEMENT_CACHE)
    except (apsw.CantOpenError, apsw.IOError) as error:
        raise database_file.not_opened(url.path, url.mode) from error
    try:
        configure(connection, url)
    except BaseException:
        connection.close()
        raise
    return connection


def check_version() -> None:
    """Refuse a SQLite that can corrupt a database in WAL mode.

    Raises:
        UnsupportedEngine: This one can.
    """
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < _FIRST_TRUSTED:
        raise errors.UnsupportedEngine(
            f"apsw was built against SQLite {version}, which can corrupt a database in WAL mode "
            "(sqlite.org/wal.html#walresetbug): install apsw's own wheel (pip install --only-binary apsw apsw)"
        )


def connection_arguments(url: DatabaseURL) -> tuple[str, int]:
    """Return what `apsw.Connection` takes: the file's real path and the open flags.

    Raises:
        OperationalError: The file was open when this process was forked.
    """
    if url.is_memory:
        return url.path, _OPEN_FLAGS[url.mode or "rwc"]
    path = absolute(url).path
    fork.check_file(path)
    # a link that is put there now would lead to another file than the one whose neighbours are looked for
    return path, _OPEN_FLAGS[url.mode or "rwc"] | apsw.SQLITE_OPEN_NOFOLLOW


def configure(connection: apsw.Connection, url: DatabaseURL) -> None:
    """Set a new connection up: busy timeout, WAL, synchronous NORMAL, foreign keys, defensive.

    With `journal_mode=keep` neither the mode is set nor, in another than WAL, what is not safe there: synchronous NORMAL.

    Raises:
        OperationalError: As `open_connection`.
    """
    set_busy_timeout(connection, busy_timeout(url))
    for option, value in (
        (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
        (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
        (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
        (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0 if url.foreign_keys is False else 1),
        # Else a statement is prepared anew whenever a value is bound that its plan could depend on: LIMIT, a column that
        # a partial index is for, after ANALYZE any of an index. That costs a page of 50 a third of its time, and plans
        # would vary by value. The price: no index for LIKE and GLOB with a parameter, which no statement of ours has.
        (apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1),
    ):
        connection.config(option, value)
    try:
        if not connection.readonly("main"):
            database_file.check_name(file_of(connection))
            # with synchronous as SQLite has it, FULL: a power loss in the middle of the switch could damage a file with rows
            # under NORMAL, and that a file is empty is not known for as long as another program may fill it
            _use_wal(connection, url)
        if url.journal_mode != "keep" or connection.pragma("journal_mode") == "wal":
            connection.pragma("synchronous", url.synchronous or "normal")
        elif url.synchronous:
            connection.pragma("synchronous", url.synchronous)
        connection.pragma("journal_size_limit", _JOURNAL_SIZE_LIMIT)
        if url.cache_size is not None:
            connection.pragma("cache_size", url.cache_size)
    except apsw.Error as error:
        translated = translate(error, connection)
        if translated is None:
            raise
        raise translated from error


def _use_wal(connection: apsw.Connection, url: DatabaseURL) -> None:
    # The switch needs the file to itself and ignores the busy handler: look first, and retry.
    if url.is_memory or url.journal_mode == "keep" or connection.pragma("journal_mode") == "wal":
        return
    deadline = time.monotonic() + busy_timeout(url) / 1000
    while True:
        try:
            connection.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            import random  # noqa: PLC0415 - takes 2 ms, which who need not wait saves

            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - jitter, no secret
            if time.monotonic() >= deadline or connection.is_interrupted:
                raise


def busy_timeout(url: DatabaseURL, deadline: float = math.inf) -> int:
    """Return how many milliseconds a connection waits for a lock, at the most until a moment of the monotonic clock."""
    normal = BUSY_TIMEOUT if url.busy_timeout is None else url.busy_timeout
    return int(min(normal, max(0.0, (deadline - time.monotonic()) * 1000)))


def set_busy_timeout(
    connection: apsw.Connection, milliseconds: int, waiting: Callable[[float], object] | None = None
) -> None:
    """Make the connection wait up to so many milliseconds for another's lock.

    SQLite's own handler sleeps in fixed steps of up to 100 ms. Random waits of 0.2 to 5 ms, and up to 20 as the wait lasts, gave
    four writing processes 0.9 to 1.0 of the throughput and a worst wait of 40 ms instead of 130. Up to 1.2 ms would make
    that 25, and the throughput 0.8: who asks too often takes the processor from who writes.

    `waiting` is called now and then with the seconds waited so far.
    """
    ours = weakref.ref(connection)
    started = 0.0

    def handler(count: int) -> bool:
        nonlocal started
        moment = time.monotonic()
        if count == 0:
            started = moment
        waited = moment - started
        connection = ours()
        left = milliseconds / 1000 - waited
        if left <= 0 or connection is None or connection.is_interrupted:
            return False
        if waiting is not None:
            waiting(waited)
        import random  # noqa: PLC0415 - see _use_wal

        time.sleep(min(random.uniform(0.0002, 0.005) * min(1 + count / 100, 4), left))  # noqa: S311 - jitter, no secret
        return True

    connection.set_busy_handler(handler)


def absolute(url: DatabaseURL) -> DatabaseURL:
    """Return a URL of the same file by its real path, which a change of the working folder or of a link leaves as it is.

    It is the one name of a database for all that is beside the file: SQLite's own `-wal` is there, not beside a link.
    """
    return url if url.is_memory else attrs.evolve(url, path=os.path.realpath(url.path))


def check_exists(url: DatabaseURL) -> None:
    """Refuse a database that is not there: to open it would make it.

    Raises:
        OperationalError: It is not.
    """
    if not url.is_memory and not database_file.is_there(url.path):
        raise errors.OperationalError(f"{url.path} does not exist: restore it, or make it with `dao migrate`")


def check_in_place(connection: apsw.Connection) -> None:
    """Refuse a database whose file was deleted, moved or replaced under the connection: what it writes is lost.

    Raises:
        OperationalError: It was.
    """
    import ctypes  # noqa: PLC0415 - takes 4 ms, and only health checks need it

    moved = ctypes.c_int(0)
    connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    if moved.value:
        raise errors.OperationalError(
            f"{file_of(connection)} was deleted, moved or replaced while it was open: what is written now is lost; "
            "close all connections to it"
        )


def file_of(connection: apsw.Connection) -> str:
    """Return the absolute path of the connection's database, "" for one in memory."""
    return connection.filename or ""


# ---------------------------------------------------------------- errors

# a protocol error is a race for the WAL's locks that went on for too long: sqlite.org/rescode.html#protocol
_BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)
_CORRUPT = (apsw.CorruptError, apsw.NotADBError)
_ENCODING = "attached databases must use the same text encoding as main database"
_ADVICE = {
    apsw.CantOpenError: "check that the file and its folder are there, and their permissions; to read a database in WAL "
    "mode, too, SQLite makes a file beside it",
    apsw.IOError: "check the disk and the file system, and the database with PRAGMA integrity_check",
    apsw.InterruptError: "the statement was undone; repeat the transaction if it is still wanted",
    apsw.NoMemError: "there is not enough memory: free some, or raise the limit of the process or of SQLite's heap",
    apsw.PermissionsError: "check the permissions of the file and its folder",
    apsw.TooBigError: "a text, a blob or a statement is larger than SQLite's limit (1 GB unless it was lowered)",
}


def translate(error: BaseException, connection: apsw.Connection, name: str = "") -> errors.Error | None:
    """Return the `dao.Error` for what SQLite raised, or None if the caller could do nothing about it.

    Messages call the database by this name, that of its file if there is none: one of a copy says nothing to anybody.
    """
    if isinstance(error, apsw.ConstraintError):
        return _constraint(error, connection)
    if not isinstance(error, apsw.Error):
        return None
    name = name or database_file.called(connection)
    if isinstance(error, _BUSY):
        if own := _own_obstacle(error, connection, name):
            return errors.ConnectionBusy(own)
        return errors.DatabaseBusy(f"{name} is locked by another connection ({error}): try again")
    if isinstance(error, apsw.FullError):
        return errors.DiskFull(f"{name}: no room left to write; nothing was changed. Free some space and repeat")
    # the last two are SQLErrors: the format of the schema is newer than any that there is, or its encoding is another one
    if isinstance(error, _CORRUPT) or str(error) in {"unsupported file format", _ENCODING}:
        return errors.DatabaseCorrupt(
            f"{name} is damaged or no SQLite database ({error}): restore a snapshot (`dao restore`; what was written "
            "since is lost) or a backup"
        )
    if isinstance(error, apsw.ReadOnlyError):
        return errors.ReadOnlyDatabase(database_file.why_read_only(connection, _extended(error)))
    if isinstance(error, apsw.IOError):
        system = error.__cause__.errno if isinstance(error.__cause__, OSError) else connection.system_errno
        # of the index of a WAL, which is made when a database is opened, SQLite says no more than that it has not the size
        if system in database_file.NO_ROOM or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE:
            return errors.DiskFull(f"{name}: no room left to write; nothing was changed. Free some space and repeat")
    if isinstance(error, apsw.CantOpenError) and (obstacle := database_file.no_more_files(name)):
        return obstacle
    for kind, advice in _ADVICE.items():
        if isinstance(error, kind):
            return errors.OperationalError(f"{name}: {error}; {advice}")
    return None


def _own_obstacle(error: apsw.Error, connection: apsw.Connection, name: str) -> str | None:
    """Return a message if it is the connection itself, and no other, that keeps it from going on."""
    code = getattr(error, "extendedresult", 0)
    # without a transaction it is another connection that was faster, for all of the busy timeout
    if code == apsw.SQLITE_BUSY_SNAPSHOT and connection.txn_state() != apsw.SQLITE_TXN_NONE:
        return (
            f"{name} was changed by another connection since this one began to read it, so this one cannot write: finish or "
            "close the cursor, or end the transaction, that reads, and begin anew; dao.transaction takes the lock before it reads"
        )
    if code == apsw.SQLITE_LOCKED or str(error).endswith("SQL statements in progress"):
        return f"{name}: another statement of this connection is not at its end ({error}): finish or close its cursor"
    return None


def unknown_outcome(error: BaseException, connection: apsw.Connection) -> errors.CommitUnknown | None:
    """Return the error for a commit that failed so that nobody knows whether it is stored, or None if it is not stored.

    When a sync fails, or there is no memory or no room for the index of the WAL, the commit may already be complete in the file.
    """
    if not isinstance(error, apsw.IOError | apsw.NoMemError):
        return None
    if getattr(error, "extendedresult", 0) in {apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ}:
        return None  # a commit that has been written reads no more
    advice = "free some memory" if isinstance(error, apsw.NoMemError) else "check the disk and the file system"
    return errors.CommitUnknown(
        f"{database_file.called(connection)}: the commit failed ({error}), and whether it is stored cannot be known: "
        f"{advice}, and look at what is there before you repeat it"
    )


def _extended(error: apsw.Error) -> int:
    # apsw's stubs do not know the attribute, and what a file system in Python raises does not have it
    return int(getattr(error, "extendedresult", 0))


def _constraint(error: apsw.ConstraintError, connection: apsw.Connection) -> errors.IntegrityError | None:
    message = str(error)
    code = _extended(error)
    detail = message.partition(": ")[2]
    if code == apsw.SQLITE_CONSTRAINT_CHECK:
        table, columns = _checked_columns(connection, detail)
        where = f"{table}: " if table else ""
        return errors.CheckViolation(
            f"{where}the row breaks the constraint {detail}", table=table, columns=columns, constraint=detail
        )
    # ON DELETE RESTRICT is a trigger inside, and comes with the code of one
    if code == apsw.SQLITE_CONSTRAINT_FOREIGNKEY or message == "FOREIGN KEY constraint failed":
        return errors.ForeignKeyViolation(
            "a foreign key would break: the row refers to one that does not exist, or others refer to the row"
        )
    columns = [name.rpartition(".")[2] for name in detail.split(", ")]
    table = detail.partition(".")[0] or None
    if code in {apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_ROWID}:
        if index := re.fullmatch(r"index '(.*)'", detail):  # one on expressions: they have no names
            message = f"another row has the same value in the unique index {index[1]}"
            return errors.UniqueViolation(message, constraint=index[1])
        return errors.UniqueViolation(
            f"{table}: another row has this {' and '.join(columns)}", table=table, columns=columns
        )
    if code == apsw.SQLITE_CONSTRAINT_NOTNULL:
        return errors.NotNullViolation(f"{table}: {columns[0]} must have a value", table=table, columns=columns)
    if code == apsw.SQLITE_CONSTRAINT_DATATYPE:
        # "cannot store TEXT value in INTEGER column tasks.x"
        table, _, column = message.partition(" column ")[2].partition(".")
        return errors.IntegrityError(message, table=table, columns=[column])
    # RAISE in somebody's trigger
    return errors.IntegrityError(message)


def _checked_columns(connection: apsw.Connection, constraint: str) -> tuple[str | None, list[str]]:
    """Return the table that has the named CHECK, and the columns it looks at."""
    declared = re.compile(rf"\bCONSTRAINT\s+[\"\[`]?{re.escape(constraint)}[\"\]`]?\s+CHECK\b", re.IGNORECASE)
    try:
        tables: list[Any] = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        for table, sql in tables:
            code = re.sub(r"'[^']*'", "''", sql or "")
            if found := declared.search(code):
                words = set(re.findall(r"\w+", _in_parentheses(code[found.end() :])))
                names: list[Any] = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
                return table, [name for (name,) in names if name in words]
    except apsw.Error:
        pass  # the violation is what the caller needs to know
    return None, []


def _in_parentheses(code: str) -> str:
    depth = 0
    for position, character in enumerate(code):
        depth += (character == "(") - (character == ")")
        if character == ")" and not depth:
            return code[:position]
    return code
