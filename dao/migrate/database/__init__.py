"""The database that is meant: opened for a run, or the caller's own connection; its locks, its name.

The functions here are for every engine. Where engines differ they ask the module of the target's own, which `_Database`
describes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from dao import url
from dao.engine import Connection
from dao.engine.engines import engine_for
from dao.errors import MigrationError, UnsupportedEngine
from dao.migrate.by_engine import by_engine, engine_at
from dao.migrate.database import sqlite
from dao.migrate.listening import listened
from dao.migrate.scripts.load import Source, folders, loaded
from dao.migrate.scripts.migration import Migration
from dao.settings import engine_of_folder

if TYPE_CHECKING:
    from dao.migrate.events import Report
    from dao.migrate.lock import MigrationLock
    from dao.migrate.schema.model import Schema

__all__ = [
    "Target",
    "alone",
    "at_one_moment",
    "broken",
    "called",
    "check_in_place",
    "columns_of",
    "exclusive",
    "execute",
    "existing",
    "exists",
    "fetch",
    "in_line",
    "is_on_server",
    "migrations_for",
    "migrator_of",
    "name_of",
    "opened",
    "path_of",
    "refuse_server",
    "schema_made_by",
    "schema_of",
    "table_names",
    "translated",
]

#: A database, as the migration functions take it: a connection that the caller owns, or a URL.
Target = Connection | str | url.AnyURL

Row = tuple[Any, ...]
_Lending = contextlib.AbstractContextManager[Any]


class _Database(Protocol):
    """The module of an engine: its functions are those below, for a target of its own."""

    #: Begins a transaction that reads the database as of one moment.
    AT_ONE_MOMENT: str

    def opened(self, target: Any, *, read_only: bool, report: Report | None) -> _Lending: ...
    def in_line(
        self, target: Any, lock_timeout: float | None, report: Report | None, *, locked: bool
    ) -> contextlib.AbstractContextManager[tuple[MigrationLock, Any]]: ...
    def exclusive(self, connection: Any) -> contextlib.AbstractContextManager[None]: ...
    def translated(self, connection: Any, name: str) -> contextlib.AbstractContextManager[None]: ...
    def check_in_place(self, connection: Any) -> None: ...
    def migrator_of(self, connection: Any) -> str | None: ...
    def exists(self, target: Any) -> bool: ...
    def name_of(self, target: Any) -> str: ...
    def called(self, connection: Any) -> str: ...
    def table_names(self, connection: Any) -> set[str]: ...
    def columns_of(self, connection: Any, table: str) -> list[str]: ...
    def broken(self, connection: Any) -> list[str]: ...
    def schema_of(self, connection: Any) -> Schema: ...
    def schema_made_by(self, connection: Any, scripts: Sequence[tuple[str, str]]) -> Schema: ...


if TYPE_CHECKING:
    from dao.migrate.database import postgresql

    _MODULES: tuple[_Database, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Database] = by_engine(__name__)


def opened(
    target: Target, *, read_only: bool = False, report: Report | None = None
) -> contextlib.AbstractContextManager[Any]:
    """Open a database for migrations, or use the connection that the caller owns.

    A new file of SQLite's is made in WAL mode. One that is there keeps its mode, unless the URL says
    `journal_mode=wal`. A database on a server has to be there.

    Raises:
        OperationalError: It cannot be opened.
        PrepareFailed: As `registration.register`.
        MigrationError: The caller's connection is in the middle of a transaction.
    """
    return _of(target).opened(target, read_only=read_only, report=report)


@contextlib.contextmanager
def at_one_moment(connection: Connection) -> Iterator[None]:
    """Let a block read the database as of one moment, while others go on."""
    engine = engine_for(connection)
    if engine.in_transaction(connection):
        yield
        return
    fetch(connection, _of(connection).AT_ONE_MOMENT)
    try:
        yield
    finally:
        engine.roll_back(connection, nested=False)


def translated(connection: Connection, name: str = "") -> contextlib.AbstractContextManager[None]:
    """Translate the errors of the ledger's and the checks' own statements, such as a full disk, into errors of ours.

    The messages call the database by this name, if it is a copy of the one that is meant.
    """
    return _of(connection).translated(connection, name)


# ---------------------------------------------------------------- locks


def in_line(
    target: Target, lock_timeout: float | None = None, report: Report | None = None, *, locked: bool = False
) -> contextlib.AbstractContextManager[tuple[MigrationLock, Any]]:
    """Open a database for a migrator that looks what there is to do before it takes the lock, which it gets, too.

    If another has that in a way that nothing can be decided, nor even read, it waits first; if `locked`, in any case.

    Raises:
        DatabaseBusy: Another migrator lived for longer than the timeout, or another connection kept its lock.
        MigrationError, OperationalError: As `opened`.
    """
    return _of(target).in_line(target, lock_timeout, report, locked=locked)


def check_in_place(connection: Connection) -> None:
    """Refuse a connection whose file is no longer that of its path: others would lock and change another one.

    Raises:
        OperationalError: It was moved, removed or replaced since it was opened.
    """
    _of(connection).check_in_place(connection)


@contextlib.contextmanager
def alone(target: Target, lock_timeout: float | None = None, report: Report | None = None) -> Iterator[Any]:
    """Open a database and run a block as its only migrator, in one write transaction.

    Raises:
        DatabaseBusy: Another migrator lived for longer than the timeout, or another connection kept the lock.
        MigrationError, OperationalError: As `opened`.
    """
    report = listened(report, "dao.migrate.ledger", name_of(target))
    with in_line(target, lock_timeout, report, locked=True) as (_, connection):
        check_in_place(connection)
        with exclusive(connection):
            yield connection


def exclusive(connection: Connection) -> contextlib.AbstractContextManager[None]:
    """Run a block in a write transaction. On SQLite it keeps everybody else from writing.

    Raises:
        DatabaseBusy: Another connection kept the lock; the message says which process, if that can be known.
        ConnectionBusy: A cursor of the caller's connection that is not at its end stands in the way.
    """
    return _of(connection).exclusive(connection)


def migrator_of(connection: Connection) -> str | None:
    """Return who has the lock between migrators, such as `process 17 on web-1`; None if nobody but this thread."""
    return _of(connection).migrator_of(connection)


# ---------------------------------------------------------------- which it is


def is_on_server(target: Target) -> bool:
    """Return whether a database is one of a server, and not a file."""
    return bool(engine_at(target).ON_SERVER)


def migrations_for(target: Target, source: Source) -> Sequence[Migration]:
    """Return the migrations of a source for the engine that a target is of.

    Raises:
        MigrationError: The folder is for the other engine, by its name.
        MigrationFileError: A file is not what it should be.
        TypeError: It is no source.
    """
    engine = engine_at(target).NAME
    for folder in folders(source):
        if engine_of_folder(folder) not in {None, engine}:
            # what the ledger and the files say of each other would be wrong, and so would all advice
            raise MigrationError(
                f"{os.fspath(folder)} has migrations for another engine, by its name, than {name_of(target)}: name the "
                "folder that is meant (--migrations, DATABASE_MIGRATIONS; in a program load(FOLDER)), or the database "
                "(--database, DATABASE_URL)"
            )
    return loaded(source, engine)


def existing(target: Target, what: str) -> Target:
    """Return the target, unless it is a database that does not exist, so that there is nothing to do `what` with.

    Raises:
        MigrationError: It is.
    """
    if not exists(target):
        name = name_of(target)  # which folder it was not in is what often is wrong
        path = name if name == url.MEMORY else os.path.abspath(name)
        raise MigrationError(
            f"{path} does not exist: there is nothing to {what}. Name the database that is meant (--database, "
            "DATABASE_URL), or make this one with `dao migrate`"
        )
    return target


def exists(target: Target) -> bool:
    """Return whether the database exists. One in memory that is yet to be opened does not.

    One on a server counts as there: to open it says whether it is.
    """
    return _of(target).exists(target)


def name_of(target: Target) -> str:
    """Return the path of the database, or the URL without its secrets, for messages."""
    return _of(target).name_of(target)


def called(connection: Connection) -> str:
    """Return the name of a connection's database for messages; a copy has that of its original."""
    return _of(connection).called(connection)


def path_of(target: Target) -> str:
    """Return the real path of the database's file, beside which all that belongs to it is; "" if it is in memory.

    Raises:
        UnsupportedEngine: It is on a server.
    """
    if isinstance(target, str) and url.is_for_server(target):
        refuse_server(url.name_of_server(target))
    if is_on_server(target):
        refuse_server(name_of(target))
    return sqlite.path_of(target)


def refuse_server(name: str) -> NoReturn:
    """Raise UnsupportedEngine: the database of that name is on a server, and what was asked for copies a file."""
    raise UnsupportedEngine(
        f"{name} is on a server, and snapshots and replicas are of SQLite files: use `pg_dump` for a copy, "
        "and continuous archiving for the state of any moment (postgresql.org/docs/current/backup.html)"
    )


# ---------------------------------------------------------------- the tables in it


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run a statement over the ledger and return its rows. It raises the driver's errors, for `translated`."""
    return engine_for(connection).fetch(connection, sql, parameters)


def execute(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run a statement over the ledger, and return how many rows it changed. Raises as `fetch`."""
    return engine_for(connection).execute(connection, sql, parameters)


def table_names(connection: Connection) -> set[str]:
    """Return the names of all tables, the ledger's among them; on a server those of the connection's own schema."""
    return _of(connection).table_names(connection)


def columns_of(connection: Connection, table: str) -> list[str]:
    """Return the names of the columns of a table, in order; none if it does not exist."""
    return _of(connection).columns_of(connection, table)


def broken(connection: Connection) -> list[str]:
    """Return what in the schema does not work, in words."""
    return _of(connection).broken(connection)


def schema_of(connection: Connection) -> Schema:
    """Return the structure of a database, without the ledger."""
    return _of(connection).schema_of(connection)


def schema_made_by(connection: Connection, scripts: Sequence[tuple[str, str]]) -> Schema:
    """Return the structure that scripts make, each an id and a text: replayed in memory, or in a scratch database.

    Raises:
        MigrationError: One of them fails in an empty database, or the role may not create a database on the server.
    """
    return _of(connection).schema_made_by(connection, scripts)
