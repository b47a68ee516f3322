"""Reads the structure of a database: from SQLite's pragmas, and from the SQL where they do not tell."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import (
    Column,
    Definition,
    ForeignKey,
    Index,
    columns,
    definitions,
    foreign_keys,
    indexes,
    primary_key,
    tables,
)
from dao.migrate.schema.model import Item, Object, Schema
from dao.migrate.schema.names import fold
from dao.migrate.schema.tokens import Clause, Token, body, clauses, cut, double_quoted, normal, tokens, written

__all__ = ["read"]

_OPTIONS = ("STRICT", "WITHOUT ROWID")
# names that no table or column has to have
_ALWAYS = frozenset({"new", "old", "excluded", "main", "temp", "rowid", "oid", "_rowid_"})


#: The objects that somebody holds, by all that they were read of: trials of migrations come back to the same ones.
_in_use: weakref.WeakValueDictionary[Hashable, Object] = weakref.WeakValueDictionary()


def read(connection: Connection, defined: Iterable[Definition] | None = None) -> Schema:
    """Return the structure of the main database, without the ledger, SQLite's own tables and shadow tables.

    `defined` is all that is in its catalog, if that is known.
    """
    reader = _Reader(connection, definitions(connection) if defined is None else list(defined))
    return Schema({(one.type, item.key): one for item, one in reader.objects()})


class _Reader:
    """A schema that is read."""

    def __init__(self, connection: Connection, defined: Sequence[Definition]) -> None:
        self.connection = connection
        self.definitions = defined
        self.tables = {item.name: item.sql for item in self.definitions if item.type == "table"}

    @functools.cached_property
    def names(self) -> AbstractSet[str]:
        """All names that a table or column has, or may have."""
        found = {item.key for item in self.definitions}
        for table in tables(self.connection):
            if table.kind == "table":
                found |= {fold(column.name) for column in columns(self.connection, table.name)}
        return found | _ALWAYS

    def objects(self) -> Iterator[tuple[Definition, Object]]:
        has_virtual = any(item.is_virtual for item in self.definitions)
        shadows = {table.name for table in tables(self.connection) if table.kind == "shadow"} if has_virtual else set()
        for item in self.definitions:
            if item.sql is not None and not item.is_internal and item.table not in shadows:
                known = double_quoted(item.sql) & self.names if '"' in item.sql else frozenset[str]()
                table = self.tables[item.table] if item.type == "index" else None
                key = (item, table, known)
                found = _in_use.get(key)
                if found is None:
                    found = _in_use[key] = self.object(item, tokens(item.sql, known))
                yield item, found

    def object(self, item: Definition, text: Sequence[Token]) -> Object:
        if item.type == "index":
            items = [_index(self.connection, item.name, item.table, text)]
        elif item.type == "table" and not item.is_virtual:
            items = _TableReader(self.connection, item.name, text).items()
        else:
            # after CREATE VIEW name, CREATE TRIGGER name, CREATE VIRTUAL TABLE name
            rest = text[4 if item.is_virtual else 3 :]
            items = [Item("definition", None, None, written(rest), tuple(rest))]
        return Object(item.kind, item.name, item.table, tuple(items))


# ---------------------------------------------------------------- tables


class _TableReader:
    """A table that is read."""

    def __init__(self, connection: Connection, name: str, text: Sequence[Token]) -> None:
        self.connection = connection
        self.name = name
        self.columns = columns(connection, name)
        self.indexes = indexes(connection, name)
        inside, options = body(text)
        self.options = {option: option.split()[0].lower() in {token.value for token in options} for option in _OPTIONS}
        parts = cut(inside)
        count = len(self.columns)
        # the first token of a column is its name, whatever it reads
        self.of_column = [clauses(part[1:]) for part in parts[:count]]
        self.of_table = [clause for part in parts[count:] for clause in clauses(part)]
        self.all = [*(clause for own in self.of_column for clause in own), *self.of_table]

    def items(self) -> list[Item]:
        """Return all that can differ."""
        found = [
            Item("option", option, None, option if on else f"not {option}", (option, on))
            for option, on in self.options.items()
        ]
        found += [self._column(column, own) for column, own in zip(self.columns, self.of_column, strict=True)]
        found += [*self._primary_key(), *self._unique(), *self._foreign_keys()]
        return found + [_check(clause) for clause in self.all if clause.kind == "check"]

    def _column(self, column: Column, own: Sequence[Clause]) -> Item:
        name, type, default, generated = column.name, column.type, column.default, column.generated
        # what a STRICT table and one WITHOUT ROWID add to a key of themselves is no difference beside that option
        not_null = any(clause.kind == "not" for clause in own) if column.key else column.not_null
        collation = _collation(self.connection, self.name, name)
        conflict = next((clause.conflict for clause in own if clause.kind == "not"), None)
        expression = next((clause.group for clause in own if clause.kind in {"generated", "as"}), ())
        shown = [type] if type else []
        shown += ["NOT NULL" + (f" ON CONFLICT {conflict}" if conflict else "")] if not_null else []
        # a default is no column: what stands in double quotes is a string
        value = () if default is None else tokens(default, known=())
        # the pragma leaves the parentheses of an expression out
        shown += [f"DEFAULT {default}" if len(value) <= 2 else f"DEFAULT ({written(value)})"] if value else []
        shown += [f"COLLATE {collation}"] if collation != "binary" else []
        shown += [f"GENERATED ALWAYS AS ({written(expression)}) {generated}"] if generated else []
        content = (
            fold(name),
            tokens(type),
            not_null,
            conflict,
            value,
            collation,
            generated,
            expression if generated else (),
        )
        return Item("column", fold(name), f"column {name}", " ".join(shown) or "without a type", content)

    def _primary_key(self) -> list[Item]:
        names = primary_key(self.columns)
        if not names:
            return []
        clause = next((clause for clause in self.all if clause.kind == "primary"), None)
        automatic = any(self.connection.column_metadata("main", self.name, name)[4] for name in names)
        parts = [(normal(name), "") for name in names]
        for index in self.indexes:
            if index.origin == "pk":
                parts, names = _indexed(self.connection, index, self.name, ())
        return [_key("primary key", "PRIMARY KEY", clause, names, parts, " AUTOINCREMENT" if automatic else "")]

    def _unique(self) -> list[Item]:
        by_columns: dict[tuple[str, ...], Clause] = {
            (normal(column.name),): clause
            for column, own in zip(self.columns, self.of_column, strict=True)
            for clause in own
            if clause.kind == "unique"
        }
        for clause in self.of_table:
            if clause.kind == "unique":
                by_columns[tuple(part[0].value for part in cut(clause.group) if part)] = clause
        found = []
        for index in self.indexes:
            if index.origin == "u":
                parts, names = _indexed(self.connection, index, self.name, ())
                found.append(
                    _key("unique", "UNIQUE", by_columns.get(tuple(column for column, _ in parts)), names, parts)
                )
        return found

    def _foreign_keys(self) -> list[Item]:
        texts = [clause for clause in self.all if clause.kind in {"references", "foreign"}]
        keys = foreign_keys(self.connection, self.name)
        return [_foreign_key(key, clause) for key, clause in zip(keys, texts, strict=True)]


def _check(clause: Clause) -> Item:
    shown = f"CHECK ({written(clause.group)})"
    return _named("check", clause, clause.name, "check", shown, clause.group)


def _key(
    family: str, words: str, clause: Clause | None, names: Sequence[str], parts: Sequence[Any], more: str = ""
) -> Item:
    conflict = clause.conflict if clause else None
    shown = f"{words} ({', '.join(names)}){more}" + (f" ON CONFLICT {conflict}" if conflict else "")
    key = clause.name if clause else None
    return _named(family, clause, key, f"{family} ({', '.join(names)})", shown, (tuple(parts), more, conflict))


def _foreign_key(key: ForeignKey, clause: Clause) -> Item:
    deferred = "deferrable initially deferred" in clause.outside.replace("not deferrable", "")
    label = f"foreign key ({', '.join(key.columns)})"
    shown = f"FOREIGN KEY ({', '.join(key.columns)}) REFERENCES {key.parent}"
    shown += f" ({', '.join(key.parent_columns)})" if key.parent_columns else ""
    shown += f" ON UPDATE {key.on_update}" if key.on_update != "NO ACTION" else ""
    shown += f" ON DELETE {key.on_delete}" if key.on_delete != "NO ACTION" else ""
    shown += f" MATCH {key.match}" if key.match != "NONE" else ""
    shown += " DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    columns, theirs = tuple(map(fold, key.columns)), tuple(map(fold, key.parent_columns))
    content = (columns, fold(key.parent), theirs, key.on_update, key.on_delete, fold(key.match), deferred)
    return _named("foreign key", clause, "\0".join(columns), label, shown, content)


def _named(family: str, clause: Clause | None, key: str | None, label: str, shown: str, content: Any) -> Item:
    name = clause.name if clause else None
    return Item(family, key, f"constraint {name}" if name else label, shown, content, name)


# ---------------------------------------------------------------- indexes


def _index(connection: Connection, name: str, table: str, text: Sequence[Token]) -> Item:
    (index,) = (index for index in indexes(connection, table) if index.name == name)
    group, rest = body(text)
    parts, shown = _indexed(connection, index, table, cut(group))
    where = rest[1:]  # after WHERE
    definition = f"{'UNIQUE ' if index.unique else ''}ON {table} ({', '.join(shown)})"
    definition += f" WHERE {written(where)}" if where else ""
    return Item("definition", None, None, definition, (index.unique, fold(table), tuple(parts), where))


def _indexed(
    connection: Connection, index: Index, table: str, texts: Sequence[Sequence[Token]]
) -> tuple[list[tuple[Any, str]], list[str]]:
    """Return the columns of an index, each with its order and collation, and the same for people.

    `texts` has the columns as the statement has them, for those that are expressions.
    """
    parts: list[tuple[Any, str]] = []
    shown: list[str] = []
    for place, column in enumerate(index.columns):
        name, collation = column.name, fold(column.collation)
        own = "binary" if name is None else _collation(connection, table, name)
        way = f" COLLATE {collation}" if collation != own else ""
        way += " DESC" if column.descending else ""
        expression = () if name is not None or place >= len(texts) else _expression(texts[place])
        parts.append((expression if name is None else normal(name), way))
        shown.append((written(expression) if name is None else name) + way)
    return parts, shown


def _expression(part: Sequence[Token]) -> Sequence[Token]:
    """Return an indexed expression without its order and collation."""
    if part and part[-1].value in {"asc", "desc"}:
        part = part[:-1]
    return part[:-2] if len(part) > 2 and part[-2].value == "collate" else part


def _collation(connection: Connection, table: str, column: str) -> str:
    return fold(connection.column_metadata("main", table, column)[1] or "binary")
