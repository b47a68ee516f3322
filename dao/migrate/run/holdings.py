"""The things that a database holds, as far as `guard` asks: tables and their names, rows, values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dao.engine.sqlite import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import Definition
from dao.migrate.schema.names import fold, quoted

__all__ = ["Holdings"]


class Holdings:
    """The things that the main database of a connection holds now. Names are as SQLite compares them, by `fold`.

    The schema is read once, until it is told to `forget` it, as a statement may have changed it.
    """

    def __init__(self, connection: Connection, schema: Iterable[Definition] | None = None) -> None:
        """Look at a connection; `schema` is what is defined there now, if that is known."""
        self._connection = connection
        self._programs: set[str] = set()
        self._tables: dict[str, tuple[str, int]] | None
        self.forget()
        if schema is not None:
            self._tables = _tables(sorted(schema, key=lambda item: item.number))

    def forget(self) -> None:
        """Read the schema anew when it is asked for next."""
        self._tables = None
        self._shadows: frozenset[str] | None = None
        self._columns: dict[str, list[tuple[str, bool]]] = {}

    # ------------------------------------------------------------ what is there

    def exists(self, name: str) -> bool:
        """Return whether there is such a table. Looks into the schema in memory, without SQL."""
        return self._connection.table_exists("main", name)

    def programs(self, names: set[str]) -> set[str]:
        """Return the names of all views and triggers; looks only if any of `names` is not known for one."""
        if not names <= self._programs:
            everything = [*catalog.definitions(self._connection), *catalog.definitions(self._connection, "temp")]
            self._programs = {fold(item.name) for item in everything if item.type in {"view", "trigger"}}
        return self._programs

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return all tables: by name, how it is spelt, and the root page, which is 0 for a virtual one."""
        if self._tables is None:
            self._tables = _tables(catalog.definitions(self._connection))
        return self._tables

    def has_virtual_tables(self) -> bool:
        """Return whether there is any virtual table; asks, rather than reads the whole schema for that."""
        if self._tables is None:
            return catalog.has_virtual_tables(self._connection)
        return not all(page for _, page in self._tables.values())

    def shadows(self) -> frozenset[str]:
        """Return the names of the tables in which virtual tables keep what they hold, by statements of their own."""
        if self._shadows is None:
            kinds = catalog.tables(self._connection) if self.has_virtual_tables() else []
            self._shadows = frozenset(fold(table.name) for table in kinds if table.kind == "shadow")
        return self._shadows

    def columns(self, name: str) -> list[tuple[str, bool]]:
        """Return a table's columns, each with whether it holds nothing of its own: if it is generated, or hidden."""
        if name not in self._columns:
            found = catalog.columns(self._connection, name)
            self._columns[name] = [(column.name, bool(column.hidden)) for column in found]
        return self._columns[name]

    def is_own(self, name: str) -> bool:
        """Return whether a table holds its rows itself: it is none that shows what is elsewhere."""
        _, page = self.tables().get(name, (name, None))
        return page is not None and (page > 0 or _holds_content(name, self.shadows()))

    # ------------------------------------------------------------ what it holds

    def changes(self) -> int:
        """Return how many rows the statement that has just run has changed, itself."""
        return self._connection.changes()

    def count(self, name: str) -> int:
        """Return how many rows a table has; 0 if it is none, or shows what is elsewhere."""
        return catalog.row_count(self._connection, name) if self.is_own(name) else 0

    def holds_values(self, name: str, column: str) -> bool:
        """Return whether a column of its own holds any value but NULL."""
        if (column, False) not in [(fold(one), hidden) for one, hidden in self.columns(name)] or not self.is_own(name):
            return False
        some = f"SELECT 1 FROM main.{quoted(name)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"
        return bool(self._connection.execute(some).fetchall())


def _tables(schema: Iterable[Definition]) -> dict[str, tuple[str, int]]:
    return {item.key: (item.name, item.page) for item in schema if item.type == "table"}


def _holds_content(virtual: str, shadows: Collection[str]) -> bool:
    """Return whether a virtual table holds rows of its own, by the names of all shadow tables.

    One without shadow tables shows what is elsewhere. A full-text index without a `_content` is of another table's
    text, or of none that is kept.
    """
    own = {name.removeprefix(f"{virtual}_") for name in shadows if name.startswith(f"{virtual}_")}
    return bool(own) and ("content" in own or not own & {"idx", "segdir"})
