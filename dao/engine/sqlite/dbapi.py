"""apsw behind Python's DB-API, as far as yoyo asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A DB-API cursor over apsw's: a statement without rows has no description instead of raising."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None

    def execute(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> None:
        values: Any = parameters
        if isinstance(parameters, Mapping):
            values = {
                name: value.isoformat() if isinstance(value, datetime) else value for name, value in parameters.items()
            }
        self._cursor.execute(sql, values)
        try:
            self.description = self._cursor.get_description()
        except apsw.ExecutionCompleteError:
            self.description = None
        # drained at once: until then a statement that returns rows is not done, and those after it have not begun
        self._rows = self._cursor.fetchall()

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        self._cursor.close()


class DbApiConnection:
    """A DB-API connection over apsw's."""

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
