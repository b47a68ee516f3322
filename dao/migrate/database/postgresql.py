"""A database on a server of PostgreSQL's: a connection for a run, and the lock between migrators."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import psycopg
from psycopg.pq import PipelineStatus

from dao import url
from dao.engine import connect, in_transaction, postgresql, transaction
from dao.engine.postgresql import Connection, fetch
from dao.errors import Error, MigrationError
from dao.migrate.advisory_lock import AdvisoryLock
from dao.migrate.advisory_lock import holder as migrator_of
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
    "migrator_of",
    "name_of",
    "opened",
    "schema_made_by",
    "schema_of",
    "table_names",
    "translated",
    "url_of",
]

#: Begins a transaction that reads the database as of one moment.
AT_ONE_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
#: A connection or URL of PostgreSQL's; whoever calls this has made sure of that.
_Target = Any
_APPLICATION = "dao migrate"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
_COLUMNS = """
SELECT   attname
FROM     pg_attribute
WHERE    attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))
AND      attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""
# a table or a column that is not there
_NOT_THERE = {"42P01", "42703"}


@contextlib.contextmanager
def opened(target: _Target, *, read_only: bool = False, report: Report | None = None) -> Iterator[Connection]:
    """As `dao.migrate.database.opened`."""
    del report  # nothing is created
    if isinstance(target, psycopg.Connection):
        if in_transaction(target) and not target.closed and not read_only:
            raise MigrationError(
                "the connection is in the middle of a transaction: commit or roll back first, since a migration run is "
                "a transaction of its own"
            )
        if target.pgconn.pipeline_status != PipelineStatus.OFF:
            raise MigrationError(
                "the connection is in pipeline mode, in which nothing can be decided: leave that first"
            )
        with _plain(target), translated(target):
            yield target
        return
    parsed: Any = url.parse(target)
    named = {"fallback_application_name": _APPLICATION, **parsed.parameters}
    with contextlib.closing(connect(attrs.evolve(parsed, parameters=named))) as connection:
        connection.prepare_threshold = None
        with translated(connection):
            yield connection


@contextlib.contextmanager
def _plain(connection: Connection) -> Iterator[None]:
    """Set aside what the owner of a connection set: how rows are made, what begins a transaction, what is prepared."""
    wanted: dict[str, Any] = {
        "row_factory": psycopg.rows.tuple_row,
        "cursor_factory": psycopg.Cursor,
        # a script may change what a prepared statement is about; and a pooler may give it to another session
        "prepare_threshold": None,
    }
    if not in_transaction(connection):
        wanted["autocommit"] = True
    kept = {name: getattr(connection, name) for name, value in wanted.items() if getattr(connection, name) != value}
    try:
        for name in kept:
            setattr(connection, name, wanted[name])
        yield
    finally:
        for name, value in kept.items():
            # one that was lost has no modes
            with contextlib.suppress(psycopg.Error) if connection.closed else contextlib.nullcontext():
                setattr(connection, name, value)


@contextlib.contextmanager
def translated(connection: Connection, name: str = "") -> Iterator[None]:
    """As `dao.migrate.database.translated`."""
    try:
        yield
    except psycopg.Error as error:
        meant: Error | None = None
        if error.sqlstate in _NOT_THERE and any(re.search(rf"\b{table}\b", str(error)) for table in TABLES):
            meant = MigrationError(
                f"the ledger of {name or name_of(connection)} does not have the tables that it should ({error}): "
                "somebody has changed them, or it is of a newer version of this package. Undo that, or take the newer "
                "version"
            )
        else:
            meant = postgresql.translated(error, connection, "", (), commits=False, table=None)
        if meant is None:
            raise
        raise meant from error


# ---------------------------------------------------------------- locks


@contextlib.contextmanager
def in_line(
    target: _Target, lock_timeout: float | None = None, report: Report | None = None, *, locked: bool = False
) -> Iterator[tuple[AdvisoryLock, Connection]]:
    """As `dao.migrate.database.in_line`: what there is to do can be read beside another migrator."""
    with (
        opened(target, report=report) as connection,
        AdvisoryLock(connection, name_of(target), lock_timeout, report) as lock,
    ):
        if locked:
            lock.take()
        yield lock, connection


@contextlib.contextmanager
def exclusive(connection: Connection) -> Iterator[None]:
    """As `dao.migrate.database.exclusive`."""
    with translated(connection), transaction(connection):
        yield


def check_in_place(connection: Connection) -> None:
    """Do nothing: nobody can take a server's files from under it."""


# ---------------------------------------------------------------- which it is


def exists(_target: _Target) -> bool:
    """As `dao.migrate.database.exists`."""
    return True


def name_of(target: _Target) -> str:
    """As `dao.migrate.database.name_of`."""
    return postgresql.name_of(target) if isinstance(target, psycopg.Connection) else str(url.parse(target))


def url_of(connection: Connection) -> url.ServerURL:
    """Return the URL by which a connection was made, with its password."""
    options = {one.keyword.decode(): one.val.decode() for one in connection.pgconn.info if one.val}
    return url.ServerURL(parameters=options)


called = name_of


# ---------------------------------------------------------------- the tables in it


def table_names(connection: Connection) -> set[str]:
    """As `dao.migrate.database.table_names`."""
    return {name for (name,) in fetch(connection, _TABLES, ())}


def columns_of(connection: Connection, table: str) -> list[str]:
    """As `dao.migrate.database.columns_of`."""
    return [name for (name,) in fetch(connection, _COLUMNS, (table,))]


def broken(connection: Connection) -> list[str]:
    """As `dao.migrate.database.broken`: indexes, for the server lets nothing go that something else needs."""
    from dao.migrate.schema.postgresql import soundness  # noqa: PLC0415 - few commands ask

    return [
        f"the index {index} of {table} is not valid, and serves no query: its building was broken off (`REINDEX INDEX "
        f"CONCURRENTLY {index}`, or drop it)"
        for table, index, is_being_built in soundness.invalid_indexes(connection)
        if not is_being_built
    ]


def schema_of(connection: Connection) -> Schema:
    """As `dao.migrate.database.schema_of`."""
    from dao.migrate.schema.postgresql import reader  # noqa: PLC0415 - few commands ask

    return reader.read(connection)


def schema_made_by(connection: Connection, scripts: Sequence[tuple[str, str]]) -> Schema:
    """As `dao.migrate.database.schema_made_by`."""
    from dao.migrate.schema.postgresql import replay  # noqa: PLC0415 - as above
    from dao.migrate.scripts.migration import from_texts  # noqa: PLC0415 - as above

    with replay.replayed(url_of(connection), [from_texts(id, text, None) for id, text in scripts]) as scratch:
        return schema_of(scratch)
