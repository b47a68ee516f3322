"""Statements on cursors of our own, which leave the caller's cursors and adapters on the connection alone.

They take `$1 … $n`, leave times as text, which records decode when they are read, and bind whole numbers as literals
are, so that one prepared statement serves all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors as sqlstates
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from dao import codec, errors
from dao.engine.postgresql.connections import KNOWN, Connection, in_transaction
from dao.engine.postgresql.loss import check_alive, is_ended, lost

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Change, Table
    from dao.stored import Stored

__all__ = [
    "change",
    "command",
    "execute",
    "execute_many",
    "fetch",
    "fetch_changed",
    "fetch_each",
    "insert_many",
    "is_outdated",
    "lock_row",
]

Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")


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
        if connection not in KNOWN:
            KNOWN.add(connection)
        if connection.pgconn.pipeline_status:
            raise errors.OperationalError(
                "the connection is in a pipeline, in which no statement has its answer when it is due: leave the block "
                "of `connection.pipeline()` first"
            )
        super().__init__(connection, row_factory=psycopg.rows.tuple_row)
        # the server reports both whenever they change
        status = self._pgconn.parameter_status
        is_plain = status(b"TimeZone") in _UTC and (status(b"DateStyle") or b"").startswith(b"ISO")
        self._adapters = _IN_UTC if is_plain else _ELSEWHERE


def _run(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> _Cursor:
    try:
        return _Cursor(connection).execute(sql, parameters)
    except sqlstates.FeatureNotSupported as error:
        if in_transaction(connection) or not is_outdated(error):
            raise  # psycopg lets go of what it has prepared when the transaction is rolled back
    # it did nothing
    command(connection, "DEALLOCATE ALL")
    return _Cursor(connection).execute(sql, parameters)


def is_outdated(error: psycopg.Error) -> bool:
    """Return whether a prepared statement is of a schema that has changed since."""
    # not by the message, which is in the server's language
    return error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"


def command(connection: Connection, sql: str) -> str:
    """Run commands of our own, which return nothing, and return the tag of the last."""
    return _Cursor(connection).execute(sql).statusmessage or ""


def fetch(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement and return its rows."""
    cursor = _run(connection, sql, parameters)
    return cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else []


def fetch_changed(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement that changes rows and return them."""
    check_alive(connection)
    return fetch(connection, sql, parameters)


def fetch_each(connection: Connection, script: str) -> list[list[Row]]:
    """Run several statements without parameters in one journey, and return the rows of each."""
    cursor = _Cursor(connection).execute(script, prepare=False)
    found: list[list[Row]] = []
    while True:
        found.append(cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else [])
        if not cursor.nextset():
            return found


def execute(connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
    """Run a statement that gives no rows, and return how many it changed."""
    check_alive(connection)
    return max(0, _run(connection, sql, parameters).rowcount)


def execute_many(connection: Connection, sql: str, rows: Iterable[Row]) -> None:
    """Run a statement for each of the rows, in the transaction that is open."""
    _Cursor(connection).executemany(sql, rows)


def insert_many(connection: Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """Insert rows into a table, in the transaction that is open."""
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
    check_alive(connection)
    try:
        return table.first(fetch(connection, update.returning_row, parameters))
    except psycopg.Error as error:
        if alone and is_ended(error, connection):
            raise lost(error, commits=True) from error
        raise


def lock_row(connection: Connection, table: Table[Any], key: tuple[str, ...]) -> None:
    """Keep others from changing a row until the transaction ends; nothing happens if there is none."""
    _run(connection, f"{table.get} FOR NO KEY UPDATE", key)
