"""Open a SQLite database and set its connection up: settings, busy timeout, WAL.

apsw brings its own SQLite. A second SQLite library on the same file in this process (Python's `sqlite3`, or even a
plain `open()` of the file) would drop this one's locks and lose commits: sqlite.org/howtocorrupt.html, 2.2 and 2.2.1.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator
from urllib.parse import quote

import apsw
import attrs

from dao.engine.sqlite import database_file, fork, library
from dao.engine.sqlite.errors import file_of, translate
from dao.errors import OperationalError, UnsupportedEngine
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
    "open_another",
    "open_connection",
    "remove_empty",
    "set_busy_timeout",
    "use_defaults",
]

#: How long a connection waits for a lock, in milliseconds, unless its URL says otherwise.
BUSY_TIMEOUT = 5_000

_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
#: How many prepared statements a connection keeps: apsw's own 100 are fewer than the shapes of `find`.
STATEMENT_CACHE = 256
_OPEN_FLAGS = {
    "ro": apsw.SQLITE_OPEN_READONLY,
    "rw": apsw.SQLITE_OPEN_READWRITE,
    "rwc": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
}


# ---------------------------------------------------------------- open


def open_connection(url: DatabaseURL, deadline: float = math.inf) -> apsw.Connection:
    """Open the database that the URL names and set the connection up; wait for no lock past the deadline.

    Raises:
        OperationalError: It cannot be opened, and the message says why. A program may act on `DatabaseCorrupt`,
            `DatabaseBusy` and `ReadOnlyDatabase`.
        UnsupportedEngine: This SQLite has the WAL-reset bug.
    """
    check_version()
    try:
        connection = apsw.Connection(*connection_arguments(url), statementcachesize=STATEMENT_CACHE)
    except (apsw.CantOpenError, apsw.IOError) as error:
        raise database_file.not_opened(url.path, url.mode) from error
    try:
        configure(
            connection, url if deadline == math.inf else attrs.evolve(url, busy_timeout=busy_timeout(url, deadline))
        )
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def open_another(
    path: str, vfs: str | None = None, *, immutable: bool = False, wal_autocheckpoint: int | None = None
) -> Iterator[apsw.Connection]:
    """Lend a connection to a database that exists, by its real path. It changes no setting of the database.

    It may write, unless the database is `immutable`, and brings the WAL into the file after so many pages.

    Raises:
        OperationalError: It cannot be opened, or was open when this process was forked.
    """
    fork.check_file(path)
    arguments = _immutable(path) if immutable else (path, _OPEN_FLAGS["rw"] | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        connection = apsw.Connection(*arguments, vfs=vfs)
    except (apsw.CantOpenError, apsw.IOError) as error:
        raise database_file.not_opened(path, "rw") from error
    try:
        if wal_autocheckpoint is not None:
            connection.wal_autocheckpoint(wal_autocheckpoint)
        yield connection
    finally:
        # SQLite passes over what fails there; a file system in Python would hide by it what came of the block
        with contextlib.suppress(apsw.IOError):
            connection.close()


def check_version() -> None:
    """Raise UnsupportedEngine for a SQLite that can corrupt a database in WAL mode."""
    version = library.version()
    if library.has_wal_reset_bug(version):
        raise UnsupportedEngine(
            f"apsw was built against SQLite {version}, which can corrupt a database in WAL mode "
            "(sqlite.org/wal.html#walresetbug): install apsw's own wheel (pip install --only-binary apsw apsw)"
        )


def connection_arguments(url: DatabaseURL) -> tuple[str, int]:
    """Return the arguments of `apsw.Connection`: the file's real path, or its URI, and the open flags.

    Raises:
        OperationalError: The file was open when this process was forked; or it is not all that is there of a database
            that is to be immutable.
    """
    if url.is_memory:
        return url.path, _OPEN_FLAGS[url.mode or "rwc"]
    path = absolute(url).path
    fork.check_file(path)
    # a link that is put there now would lead to a file with other neighbours
    return _immutable(path) if url.immutable else (path, _OPEN_FLAGS[url.mode or "rwc"] | apsw.SQLITE_OPEN_NOFOLLOW)


def _immutable(path: str) -> tuple[str, int]:
    """Return the URI and the flags by which SQLite reads a file alone, without locks."""
    if beside := database_file.unsettled(path):
        raise OperationalError(
            f"{beside} holds what belongs to the database, and immutable=on passes it over: open {path} once where it "
            "can be written to (`dao health`), which brings both together"
        )
    flags = _OPEN_FLAGS["ro"] | apsw.SQLITE_OPEN_NOFOLLOW | apsw.SQLITE_OPEN_URI
    return f"file://{quote(path)}?immutable=1", flags


def configure(connection: apsw.Connection, url: DatabaseURL) -> None:
    """Set a new connection up: busy timeout, WAL, synchronous NORMAL, foreign keys, defensive, temp_store MEMORY.

    With `journal_mode=keep` the mode stays as it is, and so does `synchronous` in any mode but WAL: NORMAL is safe
    there only.

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
        # Else SQLite prepares a statement anew whenever a value is bound that its plan could depend on, as a LIMIT: a
        # page would cost half as much again, and plans would vary by value. The price is that no index serves LIKE $1.
        (apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1),
    ):
        connection.config(option, value)
    try:
        if not connection.readonly("main"):
            database_file.check_name(file_of(connection))
            # under synchronous FULL, SQLite's default: under NORMAL a power loss during the switch could damage the
            # file
            _use_wal(connection, url)
        if url.journal_mode != "keep" or connection.pragma("journal_mode") == "wal":
            connection.pragma("synchronous", url.synchronous or "normal")
        elif url.synchronous:
            connection.pragma("synchronous", url.synchronous)
        connection.pragma("journal_size_limit", _JOURNAL_SIZE_LIMIT)
        # Else, in a transaction, SQLite copies the pages that a statement with triggers changes to a file, in case it
        # has to undo the statement: an INSERT into tasks would take twice as long.
        connection.pragma("temp_store", "memory")
        if url.cache_size is not None:
            connection.pragma("cache_size", url.cache_size)
        if url.wal_autocheckpoint is not None:
            connection.wal_autocheckpoint(url.wal_autocheckpoint)
    except apsw.Error as error:
        if known := translate(error, connection):
            raise known from error
        raise


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
            time.sleep(_between(0.001, 0.01))
            if time.monotonic() >= deadline or connection.is_interrupted:
                raise


def _between(low: float, high: float) -> float:
    import random  # noqa: PLC0415 - for those only that wait

    return random.uniform(low, high)  # noqa: S311 - no secret


def busy_timeout(url: DatabaseURL, deadline: float = math.inf) -> int:
    """Return the milliseconds that a connection waits for a lock: not past the deadline, by the monotonic clock."""
    normal = BUSY_TIMEOUT if url.busy_timeout is None else url.busy_timeout
    return int(min(normal, max(0.0, (deadline - time.monotonic()) * 1000)))


def set_busy_timeout(
    connection: apsw.Connection, milliseconds: int, waiting: Callable[[float], object] | None = None
) -> None:
    """Make the connection wait up to so many milliseconds for another's lock.

    SQLite's own handler sleeps in fixed steps of up to 100 ms. This one sleeps for random times, from 0.2 to 5 ms at
    first and to 20 later: the longest wait is a third as long, at the same throughput. Shorter times would take the
    processor from the connection that writes. `waiting` is called now and then with the seconds waited so far.
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
        time.sleep(min(_between(0.0002, 0.005) * min(1 + count / 100, 4), left))
        return True

    connection.set_busy_handler(handler)


def absolute(url: DatabaseURL) -> DatabaseURL:
    """Return a URL of the same file by its real path, beside which SQLite's `-wal` is, too.

    A later change of the working folder or of a link does not concern it.
    """
    return url if url.is_memory else attrs.evolve(url, path=os.path.realpath(url.path))


def check_exists(url: DatabaseURL) -> None:
    """Raise OperationalError for a database that is not there: to open it would make it."""
    if not url.is_memory and not database_file.is_there(url.path):
        raise OperationalError(f"{url.path} does not exist: restore it, or make it with `dao migrate`")


def check_in_place(connection: apsw.Connection) -> None:
    """Raise OperationalError if the file was deleted, moved or replaced under the connection: its writes are lost."""
    import ctypes  # noqa: PLC0415 - takes 4 ms, and only health checks need it

    moved = ctypes.c_int(0)
    connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    if moved.value:
        raise OperationalError(
            f"{file_of(connection)} was deleted, moved or replaced while it was open: what is written now is lost; "
            "close all connections to it"
        )


def remove_empty(connection: apsw.Connection) -> bool:
    """Remove the file of a connection, which is to be closed, if nothing is in it and no other connection has it open.

    Return whether it is gone. It stays if an error comes in between, and in another mode than WAL, where nobody can
    tell who else has it open.
    """
    path = file_of(connection)
    with contextlib.suppress(apsw.Error, OSError, OperationalError):
        if not path or connection.pragma("schema_version") or connection.pragma("journal_mode") != "wal":
            return False
        set_busy_timeout(connection, 0)
        connection.pragma("journal_mode", "delete")  # which only the one connection of a file can
        connection.execute("BEGIN EXCLUSIVE")
        try:
            check_in_place(connection)
            if connection.pragma("schema_version") == 0:
                os.unlink(path)
                return True
        finally:
            connection.execute("ROLLBACK")
    return False


def use_defaults(connection: apsw.Connection) -> None:
    """Set a connection of ours to the defaults of SQLite on which others' scripts rely.

    "text" is a string, too, and what a large index is sorted in may be a file.
    """
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
    connection.pragma("temp_store", "default")
