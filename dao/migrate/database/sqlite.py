"""A database of SQLite's: its file, its journal mode and the locks on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dao import url
from dao.engine import DriverError, connect, sqlite, transaction
from dao.engine.sqlite import Connection, database_file
from dao.engine.sqlite.database_file import called
from dao.errors import (
    ConnectionBusy,
    DatabaseBusy,
    DatabaseCorrupt,
    Error,
    MigrationError,
    OperationalError,
)
from dao.migrate import processes
from dao.migrate.file_lock import FileLock, holder
from dao.migrate.lock import telling
from dao.migrate.schema import catalog, registration, session
from dao.migrate.schema.catalog import table_names
from dao.migrate.schema.names import TABLES

if TYPE_CHECKING:
    from dao.migrate.events import Report
    from dao.migrate.schema.model import Schema

__all__ = [
    "AT_ONE_MOMENT",
    "broken",
    "called",
    "check_in_place",
    "columns_of",
    "exclusive",
    "exists",
    "in_line",
    "keeping_mode",
    "lock_of",
    "migrator_of",
    "name_of",
    "opened",
    "path_of",
    "reopened",
    "schema_made_by",
    "schema_of",
    "table_names",
    "translated",
]

#: Begins a transaction that reads the database as of one moment.
AT_ONE_MOMENT = "BEGIN"
#: A connection or URL of SQLite's; whoever calls this has made sure of that.
_Target = Any


@contextlib.contextmanager
def opened(target: _Target, *, read_only: bool = False, report: Report | None = None) -> Iterator[Connection]:
    """As `dao.migrate.database.opened`."""
    if isinstance(target, Connection):
        if not read_only:
            _refuse_transaction(target)
        with session.plain(target), translated(target):
            yield target
        return
    parsed = url.parse_file(target)
    if read_only:
        parsed = attrs.evolve(parsed, mode="ro")
    is_new = not exists(parsed)
    try:
        connection = connect(keeping_mode(parsed))
    except DatabaseBusy as error:
        raise _held(sqlite.absolute(parsed).path) from error.__cause__
    try:
        session.prepare(connection)
        _wait_for_locks(connection, sqlite.busy_timeout(parsed), report)
        if report is not None and is_new:
            from dao.migrate.events import Created  # noqa: PLC0415 - 4 ms, for a run that has nothing to report

            report(Created(os.path.abspath(parsed.path)))
        with translated(connection):
            yield connection
    except BaseException:
        if is_new and sqlite.remove_empty(connection) and report is not None:
            from dao.migrate.events import Discarded  # noqa: PLC0415 - as above

            report(Discarded(os.path.abspath(parsed.path)))
        raise
    finally:
        # SQLite passes over what fails there; a file system in Python would hide by it what came of the block
        with contextlib.suppress(DriverError):
            connection.close()


def _refuse_transaction(connection: Connection) -> None:
    if connection.in_transaction:
        raise MigrationError(
            "the connection is in the middle of a transaction: commit or roll back first, since a migration run is a "
            "transaction of its own"
        )


@contextlib.contextmanager
def reopened(target: _Target, report: Report | None = None, *, writes: bool = True) -> Iterator[Connection]:
    """Lend another connection to the file of a target, which exists. It changes no setting of the database.

    If it `writes`, it brings the WAL into the file as the target's connections do, or not at all.

    Raises:
        DatabaseBusy: Another connection kept the database to itself; the message says who.
        OperationalError: SQLite raised it in the block, or the file was open when this process was forked.
        PrepareFailed: As `registration.register`.
    """
    path, vfs, timeout, immutable = path_of(target), None, sqlite.BUSY_TIMEOUT, False
    pages: int | None
    database_file.check_name(path)
    if isinstance(target, Connection):
        vfs, pages = target.open_vfs, target.pragma("wal_autocheckpoint") if writes else None
        sqlite.check_in_place(target)
    else:
        parsed = url.parse_file(target)
        timeout, immutable, pages = sqlite.busy_timeout(parsed), bool(parsed.immutable), parsed.wal_autocheckpoint
    with sqlite.open_another(path, vfs, immutable=immutable, wal_autocheckpoint=pages) as connection:
        registration.register(connection)
        _wait_for_locks(connection, timeout, report)
        session.interruptible(connection)
        try:
            with translated(connection):
                yield connection
        except DatabaseBusy as error:
            if not isinstance(error.__cause__, DriverError):
                raise
            raise _held(path) from error.__cause__


def keeping_mode(database: url.DatabaseURL) -> url.DatabaseURL:
    """Return a URL that leaves a database which holds anything in its journal mode, unless the URL itself sets one."""
    path = database.path
    if database.journal_mode or database.is_memory or not (os.path.exists(path) and os.path.getsize(path)):
        return database
    return attrs.evolve(database, journal_mode="keep")


@contextlib.contextmanager
def translated(connection: Connection, name: str = "") -> Iterator[None]:
    """As `dao.migrate.database.translated`."""
    try:
        yield
    except DriverError as error:
        meant: Error | None = sqlite.translate(error, connection, name)
        # statements name columns of the ledger with their tables, as SQLite does then if there is no such column
        if meant is None and any(table in str(error) for table in TABLES):
            meant = MigrationError(
                f"the ledger does not have the tables that it should ({error}): somebody has changed them, or it is of "
                "a newer version of this package. Undo that, or take the newer version, or restore a snapshot (`dao "
                "restore`; what was written since is lost)"
            )
        if meant is None and (advice := registration.to_register(str(error))):
            meant = OperationalError(f"{name or called(connection)}: {error}; {advice}")
        if meant is None:
            raise
        raise meant from error
    except UnicodeDecodeError as error:
        raise DatabaseCorrupt(
            f"{name or called(connection)} holds a text that is not UTF-8 where a name or the "
            "ledger should be: restore a snapshot (`dao restore`; what was written since is lost) or a backup"
        ) from error
    except Exception as error:
        if raised := sqlite.raised_by_program(error):
            raise OperationalError(f"{name or called(connection)}: {raised}; mend it") from error
        raise


def _wait_for_locks(connection: Connection, timeout: int, report: Report | None) -> None:
    """Have a connection wait for another's lock up to so many milliseconds, and report that."""
    waiting = None
    if report is not None:
        waiting = telling(report, lambda: processes.holder(sqlite.file_of(connection)))
    sqlite.set_busy_timeout(connection, timeout, waiting)


# ---------------------------------------------------------------- locks


def lock_of(target: _Target, timeout: float | None = None, report: Report | None = None) -> FileLock:
    """Return the lock between migrators of a database; see `MigrationLock`. Nothing is locked yet.

    Raises:
        MigrationError: The caller's connection is in the middle of a transaction. Whoever has the lock may wait for
            the end of that one, while it would wait here.
    """
    path = path_of(target)
    if isinstance(target, Connection):
        _refuse_transaction(target)
        if not database_file.is_there(path):
            path = ""  # nobody else finds it there either
    elif url.parse_file(target).mode == "ro":
        path = ""  # it is not written to, and there may be no room for another file beside it
    return FileLock(path, timeout, report)


@contextlib.contextmanager
def in_line(
    target: _Target, lock_timeout: float | None = None, report: Report | None = None, *, locked: bool = False
) -> Iterator[tuple[FileLock, Connection]]:
    """As `dao.migrate.database.in_line`."""
    with lock_of(target, lock_timeout, report) as lock:
        if locked or lock.may_be_held:
            lock.take()
        with opened(target, report=report) as connection:
            yield lock, connection


def check_in_place(connection: Connection) -> None:
    """As `dao.migrate.database.check_in_place`."""
    if path_of(connection):
        sqlite.check_in_place(connection)


@contextlib.contextmanager
def exclusive(connection: Connection) -> Iterator[None]:
    """As `dao.migrate.database.exclusive`."""
    entered = False
    try:
        with translated(connection), transaction(connection):
            entered = True
            yield
    except DatabaseBusy as error:
        if entered or isinstance(error, ConnectionBusy):
            raise
        raise _held(sqlite.file_of(connection)) from error.__cause__


def _held(path: str) -> DatabaseBusy:
    holder = processes.holder(path) or "another connection"
    return DatabaseBusy(
        f"{path} is locked, held by {holder}. Repeat when it is done, or wait longer (--busy-timeout, "
        "DATABASE_BUSY_TIMEOUT)"
    )


def migrator_of(connection: Connection) -> str | None:
    """As `dao.migrate.database.migrator_of`."""
    return holder(sqlite.file_of(connection))


def exists(target: _Target) -> bool:
    """As `dao.migrate.database.exists`."""
    if isinstance(target, Connection):
        return True
    parsed = url.parse_file(target)
    return not parsed.is_memory and database_file.is_there(parsed.path)


def name_of(target: _Target) -> str:
    """As `dao.migrate.database.name_of`."""
    return (sqlite.file_of(target) or url.MEMORY) if isinstance(target, Connection) else url.parse_file(target).path


def path_of(target: _Target) -> str:
    """As `dao.migrate.database.path_of`."""
    if isinstance(target, Connection):
        return "" if target.open_vfs == "memdb" else sqlite.file_of(target)
    parsed = url.parse_file(target)
    return "" if parsed.is_memory else sqlite.absolute(parsed).path


# ---------------------------------------------------------------- the tables in it


def columns_of(connection: Connection, table: str) -> list[str]:
    """As `dao.migrate.database.columns_of`."""
    return [column.name for column in catalog.columns(connection, table)]


def broken(connection: Connection) -> list[str]:
    """As `dao.migrate.database.broken`."""
    from dao.migrate.schema import usable  # noqa: PLC0415 - few commands ask

    return [str(one) for one in usable.broken(connection)]


def schema_of(connection: Connection) -> Schema:
    """As `dao.migrate.database.schema_of`."""
    from dao.migrate.schema import reader  # noqa: PLC0415 - few commands ask

    return reader.read(connection)


def schema_made_by(_connection: Connection, scripts: Sequence[tuple[str, str]]) -> Schema:
    """As `dao.migrate.database.schema_made_by`."""
    from dao.migrate.schema import replay  # noqa: PLC0415 - as above

    with replay.replayed(scripts) as memory:
        return schema_of(memory)
