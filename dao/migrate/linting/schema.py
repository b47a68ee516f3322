"""What a schema holds, as far as `lint` compares it before and after each statement. Cheap to read again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from dao.engine import Connection

__all__ = ["Column", "Object", "Schema", "Table", "read"]

_OBJECTS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE sql IS NOT NULL"
_KIND = "SELECT type, wr, strict FROM pragma_table_list(?) WHERE schema = 'main'"
_COLUMNS = 'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)'
_PLAIN = 0


@attrs.frozen
class Column:
    """A column; `key` is its place in the PRIMARY KEY, from 1 on, or 0."""

    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    generated: bool


@attrs.frozen
class Table:
    """A table. `root` tells whether two names mean the same one, from one statement to the next."""

    name: str
    root: int
    sql: str
    kind: str
    strict: bool
    without_rowid: bool
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """Return a column by its name in upper or lower case."""
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)


@attrs.frozen
class Object:
    """An index, a trigger or a view; `table` is the one that it is on."""

    type: str
    name: str
    table: str
    sql: str


@attrs.frozen
class Schema:
    """Tables by name, other objects by type and name. All names in lower case."""

    tables: Mapping[str, Table]
    objects: Mapping[tuple[str, str], Object]

    def on(self, table: str) -> list[Object]:
        """Return the indexes and triggers of a table."""
        return [item for item in self.objects.values() if item.table.lower() == table and item.type != "view"]

    def renamed_since(self, before: Schema) -> dict[str, str]:
        """Return the tables that one statement renamed, as old and new name."""
        gone = {before.tables[name].root: name for name in before.tables.keys() - self.tables.keys()}
        new = self.tables.keys() - before.tables.keys()
        return {gone[self.tables[name].root]: name for name in new if self.tables[name].root in gone}


def read(connection: Connection, before: Schema | None = None) -> Schema:
    """Return the schema of the main database. Tables that are as they were in `before` are taken from there."""
    tables: dict[str, Table] = {}
    objects: dict[tuple[str, str], Object] = {}
    rows: list[Any] = connection.execute(_OBJECTS).fetchall()
    for type, name, table, root, sql in rows:
        key = name.lower()
        if key.startswith("sqlite_"):
            continue
        if type != "table":
            item = None if before is None else before.objects.get((type, key))
            same = item is not None and (item.name, item.table, item.sql) == (name, table, sql)
            objects[type, key] = item if item is not None and same else Object(type, name, table, sql)
            continue
        known = None if before is None else before.tables.get(key)
        same = known is not None and (known.sql, known.root, known.name) == (sql, root, name)
        tables[key] = known if known is not None and same else _table(connection, name, root, sql)
    return Schema(tables, objects)


def _table(connection: Connection, name: str, root: int, sql: str) -> Table:
    kinds: list[Any] = connection.execute(_KIND, (name,)).fetchall()
    kind, without_rowid, strict = kinds[0] if kinds else ("table", 0, 0)
    rows: list[Any] = connection.execute(_COLUMNS, (name,)).fetchall()
    columns = tuple(
        Column(column, type, bool(not_null), default, key, hidden != _PLAIN)
        for column, type, not_null, default, key, hidden in rows
    )
    return Table(name, root, sql, kind, bool(strict), bool(without_rowid), columns)
