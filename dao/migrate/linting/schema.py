"""The schema as `lint` compares it before and after each statement. All names in it are folded (`names.fold`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import Column, Definition, ForeignKey
from dao.migrate.schema.names import fold
from dao.migrate.schema.tokens import tokens

__all__ = ["Schema", "Table", "alike", "read"]

K = TypeVar("K")


@attrs.frozen
class Table:
    """A table with its columns by name, in order. A renamed table keeps its `root`, from one statement to the next."""

    name: str
    root: int
    definition: Definition = attrs.field(repr=False)
    kind: str
    strict: bool
    without_rowid: bool
    columns: Mapping[str, Column]
    keys: tuple[ForeignKey, ...]

    @functools.cached_property
    def stored(self) -> dict[str, Column]:
        """The columns that hold values of their own: no generated ones, and none that `*` leaves out."""
        return {name: column for name, column in self.columns.items() if not column.hidden}


@attrs.frozen
class Schema:
    """Tables by name, other objects by type and name; without SQLite's own. `last` is the catalog's highest number."""

    tables: Mapping[str, Table]
    objects: Mapping[tuple[str, str], Definition]
    last: int = attrs.field(eq=False)

    @property
    def definitions(self) -> list[Definition]:
        """All definitions, of the tables first."""
        return [*(table.definition for table in self.tables.values()), *self.objects.values()]

    @functools.cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Each table as it is spelt, with its root."""
        return {name: (table.name, table.root) for name, table in self.tables.items()}

    def find(self, type: str, name: str) -> Definition | None:
        """Return a definition by its type in the catalog and its name, if it is there."""
        if type == "table":
            return self.tables[name].definition if name in self.tables else None
        return self.objects.get((type, name))

    def on(self, table: str) -> list[Definition]:
        """Return the indexes and triggers of a table or view."""
        return [item for item in self.objects.values() if fold(item.table) == table and item.type != "view"]

    def renamed_since(self, before: Schema) -> dict[str, str]:
        """Return the tables that one statement renamed, as old and new name."""
        gone = {before.tables[name].root: name for name in before.tables.keys() - self.tables.keys()}
        new = self.tables.keys() - before.tables.keys()
        return {gone[self.tables[name].root]: name for name in new if self.tables[name].root in gone}

    def changed_since(self, before: Schema) -> set[str]:
        """Return the tables and views that differ, or have other indexes or triggers, that have come or gone."""
        changed = _differing(self.tables, before.tables)
        for key in _differing(self.objects, before.objects):
            changed |= {fold(item.table) for schema in (self, before) if (item := schema.objects.get(key))}
        return changed


def alike(one: Definition, other: Definition) -> bool:
    """Return whether two indexes or triggers are the same but for their names."""
    texts = [tokens(item.sql or "") for item in (one, other)]
    # CREATE, perhaps UNIQUE, its kind and its name
    parts = [(text[1], text[4:] if text[1].value == "unique" else text[3:]) for text in texts]
    return one.type == other.type and parts[0] == parts[1]


def _differing(one: Mapping[K, object], other: Mapping[K, object]) -> set[K]:
    return {key for key in one.keys() | other.keys() if one.get(key) is not other.get(key)}


def read(connection: Connection, before: Schema | None = None, *, only_added: bool = False) -> Schema:
    """Return the schema of the main database. Anything that is as it was in `before` is the same object.

    `only_added`: nothing in `before` has changed or gone, so that only what was made since is read.
    """
    before = before or Schema({}, {}, 0)
    tables, objects = (dict(before.tables), dict(before.objects)) if only_added else ({}, {})
    found = catalog.definitions(connection, since=before.last if only_added else 0)
    kinds: dict[str, catalog.Table] | None = None
    for item in found:
        name = fold(item.name)
        if item.sql is None or name.startswith("sqlite_"):
            continue
        if item.type != "table":
            known = before.objects.get((item.type, name))
            objects[item.type, name] = known if known == item else item
            continue
        table = before.tables.get(name)
        if table is None or table.root != item.page or table.definition != item:
            kinds = kinds or {table.name: table for table in catalog.tables(connection)}
            kind = kinds.get(item.name) or catalog.Table(item.name, "table", without_rowid=False, strict=False)
            columns = {fold(column.name): column for column in catalog.columns(connection, item.name)}
            keys = tuple(catalog.foreign_keys(connection, item.name))
            table = Table(item.name, item.page, item, kind.kind, kind.strict, kind.without_rowid, columns, keys)
        tables[name] = table
    return Schema(tables, objects, found[-1].number if found else before.last)
