"""What a database holds, as far as `guard` asks: tables and their names, rows, values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dao.engine import Connection
from dao.migrate.copies.rows import holds_content
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import fold, quoted

__all__ = ["Holdings"]


class Holdings:
    """What a connection's main database holds at the moment. Names are given as SQLite compares them, by `fold`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._programs: set[str] = set()

    def _rows(self, sql: str, *values: str) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def exists(self, name: str) -> bool:
        """Return whether there is such a table. Looks into the schema in memory, without SQL."""
        return self._connection.table_exists("main", name)

    def programs(self, names: set[str]) -> set[str]:
        """Return the names of all views and triggers; looks only if any of `names` is not known for one."""
        if not names <= self._programs:
            everything = [*catalog.definitions(self._connection), *catalog.definitions(self._connection, "temp")]
            self._programs = {fold(item.name) for item in everything if item.type in {"view", "trigger"}}
        return self._programs

    def is_own(self, name: str) -> bool:
        """Return whether a table holds its rows itself: it is none that shows what is elsewhere."""
        table = self.tables().get(name)
        return table is not None and (table[1] > 0 or holds_content(name, self.shadows()))

    def changes(self) -> int:
        """Return how many rows the statement that has just run has changed, itself."""
        return self._connection.changes()

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return all tables: by name, how it is spelt, and the root page, which is 0 for a virtual one."""
        found = catalog.definitions(self._connection)
        return {fold(item.name): (item.name, item.page) for item in found if item.type == "table"}

    def shadows(self) -> frozenset[str]:
        """Return the names of the tables in which virtual tables keep what they hold."""
        # virtual tables work on these by statements of their own, some of them while they run
        if all(page for _, page in self.tables().values()):
            return frozenset()
        return frozenset(fold(table.name) for table in catalog.tables(self._connection) if table.kind == "shadow")

    def count(self, name: str) -> int:
        """Return how many rows a table has; 0 if it is none, or shows what is elsewhere."""
        rows = self._rows(f"SELECT count(*) FROM main.{quoted(name)}") if self.is_own(name) else [(0,)]
        return int(rows[0][0])

    def columns(self, name: str) -> list[tuple[str, bool]]:
        """Return a table's columns, each with whether it holds nothing of its own: if it is generated, or hidden."""
        return [(column.name, bool(column.hidden)) for column in catalog.columns(self._connection, name)]

    def holds_values(self, name: str, column: str) -> bool:
        """Return whether a column of its own holds any value but NULL."""
        holds_none = {fold(other): hidden for other, hidden in self.columns(name)}
        if holds_none.get(fold(column), True) or not self.is_own(name):
            return False
        return bool(self._rows(f"SELECT 1 FROM main.{quoted(name)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"))
