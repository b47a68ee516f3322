"""Reads the structure of a database: from SQLite's pragmas, and from the SQL where they do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dao.engine import Connection
from dao.migrate.schema.catalog import TABLES
from dao.migrate.schema.model import Item, Object, Schema
from dao.migrate.schema.tokens import Clause, Token, body, clauses, cut, fold, normal, tokens, written

__all__ = ["read"]

_OBJECTS = """
SELECT object.type, object.name, object.tbl_name, object.sql, list.type, list.strict, list.wr
FROM   sqlite_schema AS object
LEFT   JOIN pragma_table_list AS list ON list.schema = 'main' AND list.name = object.tbl_name
WHERE  object.sql IS NOT NULL
"""
_NAMES = """
SELECT name FROM sqlite_schema
UNION
SELECT info.name FROM pragma_table_list AS list JOIN pragma_table_xinfo(list.name, 'main') AS info
WHERE  list.schema = 'main' AND list.type = 'table'
"""
# a temporary table of the same name is another one
_COLUMNS = """SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main')"""
_INDEXES = """SELECT name, "unique", origin FROM pragma_index_list(?, 'main')"""
_INDEXED = """SELECT name, "desc", coll FROM pragma_index_xinfo(?, 'main') WHERE key ORDER BY seqno"""
_KEYS = """
SELECT   id, "table", "from", "to", on_update, on_delete, "match"
FROM     pragma_foreign_key_list(?, 'main')
ORDER BY id DESC, seq
"""
_LEDGER = frozenset(fold(name) for name in TABLES)
# names that no table or column has to have
_ALWAYS = frozenset({"new", "old", "excluded", "main", "temp", "rowid", "oid", "_rowid_"})
_VIRTUAL, _STORED = 2, 3  # pragma_table_xinfo's `hidden` of a generated column


def read(connection: Connection) -> Schema:
    """Return the structure of the main database, without the ledger, SQLite's own tables and shadow tables. Reads only."""
    rows: list[Any] = connection.execute(_OBJECTS).fetchall()
    known = _ALWAYS | {fold(name) for (name,) in connection.execute(_NAMES)}
    found: dict[tuple[str, str], Object] = {}
    for type, name, table, sql, kind, strict, without_rowid in rows:
        if fold(table) in _LEDGER or fold(name).startswith("sqlite_") or kind == "shadow":
            continue
        text = tokens(sql, known)
        items: tuple[Item, ...]
        if type == "index":
            items = (_index(connection, name, table, text),)
        elif type == "table" and kind != "virtual":
            items = tuple(
                _Table(connection, name, text, strict=bool(strict), without_rowid=bool(without_rowid)).items()
            )
        else:
            # after CREATE VIEW name, CREATE TRIGGER name, CREATE VIRTUAL TABLE name
            rest = text[4 if type == "table" else 3 :]
            items = (Item("definition", None, None, written(rest), rest),)
        type_ = "virtual table" if type == "table" and kind == "virtual" else type
        found[type_, fold(name)] = Object(type_, name, table, items)
    return Schema(found)


# ---------------------------------------------------------------- tables


class _Table:
    """A table that is read."""

    def __init__(
        self, connection: Connection, name: str, text: Sequence[Token], *, strict: bool, without_rowid: bool
    ) -> None:
        self.connection = connection
        self.name = name
        self.options = {"STRICT": strict, "WITHOUT ROWID": without_rowid}
        self.columns: list[Any] = connection.execute(_COLUMNS, (name,)).fetchall()
        parts = cut(body(text)[0])
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
        found += [self._column(row, own) for row, own in zip(self.columns, self.of_column, strict=True)]
        found += [*self._primary_key(), *self._unique(), *self._foreign_keys()]
        return found + [_check(clause) for clause in self.all if clause.kind == "check"]

    def _column(self, row: Any, own: Sequence[Clause]) -> Item:
        name, type, not_null, default, primary_key, hidden = row
        if primary_key:
            # what a STRICT table and one WITHOUT ROWID add of themselves is no difference beside that option
            not_null = any(clause.kind == "not" for clause in own)
        collation = _collation(self.connection, self.name, name)
        conflict = next((clause.conflict for clause in own if clause.kind == "not"), None)
        expression = next((clause.group for clause in own if clause.kind in {"generated", "as"}), ())
        generated = {_VIRTUAL: "VIRTUAL", _STORED: "STORED"}.get(hidden)
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
            bool(not_null),
            conflict,
            value,
            collation,
            generated,
            expression if generated else (),
        )
        return Item("column", fold(name), f"column {name}", " ".join(shown) or "without a type", content)

    def _primary_key(self) -> list[Item]:
        keyed = sorted((row[4], row[0]) for row in self.columns if row[4])
        if not keyed:
            return []
        clause = next((clause for clause in self.all if clause.kind == "primary"), None)
        names = [name for _, name in keyed]
        parts = [(normal(name), "") for name in names]
        for index, _, origin in self._indexes():
            if origin == "pk":
                parts, names = _indexed(self.connection, index, self.name, ())
        automatic = any(self.connection.column_metadata("main", self.name, name)[4] for _, name in keyed)
        return [_key("primary key", "PRIMARY KEY", clause, names, parts, " AUTOINCREMENT" if automatic else "")]

    def _unique(self) -> list[Item]:
        by_columns: dict[tuple[str, ...], Clause] = {
            (normal(row[0]),): clause
            for row, own in zip(self.columns, self.of_column, strict=True)
            for clause in own
            if clause.kind == "unique"
        }
        for clause in self.of_table:
            if clause.kind == "unique":
                by_columns[tuple(part[0].value for part in cut(clause.group) if part)] = clause
        found = []
        for index, _, origin in self._indexes():
            if origin == "u":
                parts, names = _indexed(self.connection, index, self.name, ())
                found.append(
                    _key("unique", "UNIQUE", by_columns.get(tuple(column for column, _ in parts)), names, parts)
                )
        return found

    def _indexes(self) -> list[Any]:
        rows: list[Any] = self.connection.execute(_INDEXES, (self.name,)).fetchall()
        return rows

    def _foreign_keys(self) -> list[Item]:
        keys: dict[int, list[Any]] = {}
        rows: list[Any] = self.connection.execute(_KEYS, (self.name,)).fetchall()
        for id, *row in rows:
            keys.setdefault(id, []).append(row)
        # SQLite numbers them from the last to the first
        texts = [clause for clause in self.all if clause.kind in {"references", "foreign"}]
        return [_foreign_key(key, clause) for key, clause in zip(keys.values(), texts, strict=True)]


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


def _foreign_key(rows: Sequence[Any], clause: Clause) -> Item:
    parent, _, _, on_update, on_delete, match = rows[0]
    deferred = "deferrable initially deferred" in clause.outside.replace("not deferrable", "")
    own = [child for _, child, *_ in rows]
    theirs = [to for _, _, to, *_ in rows if to is not None]
    shown = f"FOREIGN KEY ({', '.join(own)}) REFERENCES {parent}" + (f" ({', '.join(theirs)})" if theirs else "")
    shown += f" ON UPDATE {on_update}" if on_update != "NO ACTION" else ""
    shown += f" ON DELETE {on_delete}" if on_delete != "NO ACTION" else ""
    shown += f" MATCH {match}" if match != "NONE" else ""
    shown += " DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    columns = tuple(fold(name) for name in own)
    content = (columns, fold(parent), tuple(fold(name) for name in theirs), on_update, on_delete, fold(match), deferred)
    label = f"foreign key ({', '.join(own)})"
    return _named("foreign key", clause, "\0".join(columns), label, shown, content)


def _named(family: str, clause: Clause | None, key: str | None, label: str, shown: str, content: Any) -> Item:
    name = clause.name if clause else None
    return Item(family, key, f"constraint {name}" if name else label, shown, content, name)


# ---------------------------------------------------------------- indexes


def _index(connection: Connection, name: str, table: str, text: Sequence[Token]) -> Item:
    unique = any(row[0] == name and row[1] for row in connection.execute(_INDEXES, (table,)))
    group, rest = body(text)
    parts, shown = _indexed(connection, name, table, cut(group))
    where = rest[1:]  # after WHERE
    definition = f"{'UNIQUE ' if unique else ''}ON {table} ({', '.join(shown)})"
    definition += f" WHERE {written(where)}" if where else ""
    return Item("definition", None, None, definition, (unique, fold(table), tuple(parts), where))


def _indexed(
    connection: Connection, index: str, table: str, texts: Sequence[Sequence[Token]]
) -> tuple[list[tuple[Any, str]], list[str]]:
    """Return the columns of an index, each with its order and collation, and the same for people.

    `texts` has the columns as the statement has them, for those that are expressions.
    """
    parts: list[tuple[Any, str]] = []
    shown: list[str] = []
    rows: list[Any] = connection.execute(_INDEXED, (index,)).fetchall()
    for place, (name, descending, collation) in enumerate(rows):
        own = "binary" if name is None else _collation(connection, table, name)
        way = f" COLLATE {fold(collation)}" if fold(collation) != own else ""
        way += " DESC" if descending else ""
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
