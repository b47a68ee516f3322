"""The schema as `lint` compares it before and after each statement. Cheap to read again and again."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dao.engine import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import Column, Definition

__all__ = ["Schema", "Table", "read"]


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
class Schema:
    """Tables by name, other objects by type and name. All names in lower case."""

    tables: Mapping[str, Table]
    objects: Mapping[tuple[str, str], Definition]

    def on(self, table: str) -> list[Definition]:
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
    objects: dict[tuple[str, str], Definition] = {}
    kinds: dict[str, catalog.Table] | None = None
    for found in catalog.definitions(connection):
        name, root, sql = found.name, found.page, found.sql
        key = name.lower()
        if sql is None or key.startswith("sqlite_"):
            continue
        if found.type != "table":
            objects[found.type, key] = found
            continue
        known = None if before is None else before.tables.get(key)
        same = known is not None and (known.sql, known.root, known.name) == (sql, root, name)
        if known is None or not same:
            kinds = kinds or {table.name: table for table in catalog.tables(connection)}
            kind = kinds.get(name) or catalog.Table(name, "table", without_rowid=False, strict=False)
            columns = tuple(catalog.columns(connection, name))
            known = Table(name, root, sql, kind.kind, kind.strict, kind.without_rowid, columns)
        tables[key] = known
    return Schema(tables, objects)
