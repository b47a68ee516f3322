"""apsw behind Python's DB-API, as far as yoyo and pandas ask for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import apsw

__all__ = ["DbApiConnection", "Driver"]


class Driver:
    """The names that a DB-API module has, as far as yoyo asks for them."""

    DatabaseError = apsw.Error
    #: SQLite's plain error: no such table, a mistake in the SQL.
    ProgrammingError = apsw.SQLError
    paramstyle = "named"


class _Cursor:
    """A DB-API cursor over apsw's: `description` is there for a query that finds no rows, and None for what is none."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        # afterwards, a statement that gave no rows is past its end and tells nothing
        self._cursor.exec_trace = self._note
        self._rows: Iterator[Any] = iter(())
        self.description: Sequence[Any] | None = None

    def _note(self, cursor: apsw.Cursor, sql: str, values: Any) -> bool:
        self.description = cursor.get_description() or None
        outer = cursor.connection.exec_trace  # it is not asked beside that of a cursor
        return outer is None or outer(cursor, sql, values)

    def execute(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> None:
        values: Any = parameters
        if isinstance(parameters, Mapping):
            values = {
                name: value.isoformat() if isinstance(value, datetime) else value for name, value in parameters.items()
            }
        self.description = None
        self._cursor.execute(sql, values)
        # drained at once: until then a statement that returns rows is not done, and those after it have not begun
        self._rows = iter(self._cursor.fetchall())

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        return list(itertools.islice(self._rows, size))

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def close(self) -> None:
        self._cursor.close()


class DbApiConnection:
    """A DB-API connection over apsw's, whose transactions begin and end by themselves unless one was begun.

    For programs that want such a one, as pandas does; `$1 … $n`, `?` and `:name` are parameters.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.apsw = connection

    def cursor(self) -> _Cursor:
        """Return a new cursor."""
        return _Cursor(self.apsw)

    def commit(self) -> None:
        """Commit, if a transaction is open."""
        if self.apsw.in_transaction:
            self.apsw.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back, if a transaction is open."""
        if self.apsw.in_transaction:
            self.apsw.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self.apsw.close()
