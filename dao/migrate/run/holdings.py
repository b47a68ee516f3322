"""What a database holds, as far as `guard` asks: tables and their names, rows, values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dao.engine import Connection
from dao.migrate.copies.rows import holds_content
from dao.migrate.schema.catalog import quoted
from dao.migrate.schema.tokens import fold

__all__ = ["Holdings"]

_TABLES = "SELECT name, rootpage FROM main.sqlite_schema WHERE type = 'table'"
_PAGE = "SELECT rootpage FROM main.sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE"
_PROGRAMS = (
    "SELECT name FROM main.sqlite_schema WHERE type IN ('view', 'trigger') "
    "UNION SELECT name FROM temp.sqlite_schema WHERE type IN ('view', 'trigger')"
)
_VIRTUAL = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 LIMIT 1"
# virtual tables work on these by statements of their own, some of them while they run
_SHADOWS = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
# hidden: 1 is a column of a virtual table that nobody sees; 2 and 3 are generated ones
_COLUMNS = "SELECT name, hidden FROM pragma_table_xinfo(?, 'main')"


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
            self._programs = {fold(name) for (name,) in self._rows(_PROGRAMS)}
        return self._programs

    def is_own(self, name: str) -> bool:
        """Return whether a table holds its rows itself: it is none that shows what is elsewhere."""
        return any(page or holds_content(name, self.shadows()) for (page,) in self._rows(_PAGE, name))

    def changes(self) -> int:
        """Return how many rows the statement that has just run has changed, itself."""
        return self._connection.changes()

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return all tables: by name, how it is spelt, and the root page, which is 0 for a virtual one."""
        return {fold(name): (name, page) for name, page in self._rows(_TABLES)}

    def shadows(self) -> frozenset[str]:
        """Return the names of the tables in which virtual tables keep what they hold."""
        return frozenset(fold(name) for (name,) in (self._rows(_SHADOWS) if self._rows(_VIRTUAL) else ()))

    def count(self, name: str) -> int:
        """Return how many rows a table has; 0 if it is none, or shows what is elsewhere."""
        rows = self._rows(f"SELECT count(*) FROM main.{quoted(name)}") if self.is_own(name) else [(0,)]
        return int(rows[0][0])

    def columns(self, name: str) -> list[tuple[str, bool]]:
        """Return a table's columns, each with whether it holds nothing of its own: if it is generated, or hidden."""
        return [(column, bool(hidden)) for column, hidden in self._rows(_COLUMNS, name)]

    def holds_values(self, name: str, column: str) -> bool:
        """Return whether a column of its own holds any value but NULL."""
        holds_none = {fold(other): hidden for other, hidden in self.columns(name)}
        if holds_none.get(fold(column), True) or not self.is_own(name):
            return False
        return bool(self._rows(f"SELECT 1 FROM main.{quoted(name)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"))
