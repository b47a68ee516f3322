"""Reads the structure of a database from PostgreSQL's catalog, as `schema.model` compares it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from dao.migrate.schema.model import Item, Object, Schema
from dao.migrate.schema.names import is_ours
from dao.migrate.schema.postgresql import catalog
from dao.migrate.schema.postgresql.catalog import Row

__all__ = ["CONSTRAINTS", "item", "read", "read_in_order"]

#: The families of items that are constraints.
CONSTRAINTS = ("not null", "primary key", "unique", "exclusion", "check", "foreign key")
_WORDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_PRIVILEGES = dict(zip("rawdDxtmXUC", (*_WORDS, "MAINTAIN", "EXECUTE", "USAGE", "CREATE"), strict=True))
_RIGHT = re.compile(r'(?:"((?:[^"]|"")*)"|([^"=]*))=([A-Za-z*]*)/.*', re.DOTALL)
#: What everybody may do with an object unless that is taken away, and what GRANT calls an object.
_EVERYBODYS = {"function": "X", "procedure": "X", "aggregate": "X", "type": "U", "domain": "U"}
_GRANTED_ON = {"view": "TABLE", "materialized view": "TABLE", "foreign table": "TABLE", "aggregate": "FUNCTION"}


def read(connection: Any) -> Schema:
    """Return the structure of a database, without the ledger. One round trip."""
    of: dict[tuple[str, str], list[Row]] = {}
    for row in catalog.rows(connection):
        if not any(is_ours(name.rpartition(".")[2]) for name in (row.name, row.table or "")):
            of.setdefault((row.type, row.name), []).append(row)
    return Schema({key: _object(rows) for key, rows in of.items()})


def read_in_order(connection: Any) -> list[Object]:
    """Return the objects of a database, without the ledger, each after those that it needs, else by type and name."""
    found = read(connection).objects
    names = {one.id: key for key, one in found.items()}
    needs: dict[Any, set[Any]] = {key: set() for key in found}
    for of, on in catalog.dependencies(connection):
        if of in names and on in names:
            needs[names[of]].add(names[on])
    ordered: list[Object] = []
    waiting = sorted(found, key=lambda key: (_PLACES[key[0]], key))
    done: set[Any] = set()
    while waiting:
        # of those that need one another, one has to be the first
        key = next((key for key in waiting if needs[key] <= done), waiting[0])
        waiting.remove(key)
        done.add(key)
        ordered.append(found[key])
    return ordered


_ORDER = ("schema", "extension", "type", "domain", "sequence", "function", "procedure", "aggregate", "table")
_PLACES = {
    type: place
    for place, type in enumerate(
        (*_ORDER, "foreign table", "view", "materialized view", "index", "statistics", "trigger", "rule", "policy")
    )
}


def _object(rows: Sequence[Row]) -> Object:
    first = rows[0]
    items = tuple(one for row in rows for one in _items(row, first))
    return Object(first.type, first.name, first.table or first.name, items, id=first.id)


# ---------------------------------------------------------------- items


def item(family: str, key: str | None, text: str) -> Item:
    """Return something of an object that can differ, by its family, its key, and its text in SQL."""
    if family == "column":
        return Item(family, key, f"column {key}", text, f"{key} {text}")
    if family in CONSTRAINTS:
        return Item(family, key, f"constraint {key}", text, text, key)
    return Item(family, key, key, text, text if key is None else f"{key} {text}")


def _items(row: Row, first: Row) -> Iterator[Item]:
    if row.family is not None and row.text is not None:
        yield item(row.family, row.label, row.text)
    kind = _GRANTED_ON.get(row.type, row.type.upper())
    if row.family == "column":
        subject, what, on = f"column {row.label}", f"COLUMN {row.name}.{row.label}", f"{kind} {row.name}"
    elif row.family in CONSTRAINTS:
        owner = f"DOMAIN {row.name}" if row.type == "domain" else row.name
        subject, what, on = f"constraint {row.label}", f"CONSTRAINT {row.label} ON {owner}", ""
    elif row is first:
        subject, what, on = "", f"{row.type.upper()} {row.name}", f"{kind} {row.name}"
    else:
        return
    of = f" of {subject}" if subject else ""
    if row.comment is not None:
        text = row.comment.replace("\\", "\\\\").replace("'", "''")
        yield item("comment", f"comment{of}", f"COMMENT ON {what} IS {'E' if chr(92) in text else ''}'{text}'")
    if row.rights is not None:
        column = f" ({row.label})" if row.family == "column" else ""
        everybodys = "" if column else _EVERYBODYS.get(row.type, "")
        for grantee, text in _rights(row, everybodys, column, on):
            yield item("rights", f"rights of {grantee}{of}", text)


def _rights(row: Row, everybodys: str, column: str, on: str) -> Iterator[tuple[str, str]]:
    """Yield what others than the owner may do, but for what everybody may do anyway: whom it is about, and the SQL."""
    given = {"": ""}
    for line in filter(None, (row.rights or "").split("\n")):
        if match := _RIGHT.fullmatch(line):
            given[(match[1] or match[2] or "").replace('""', '"')] = match[3]
    for grantee, letters in sorted(given.items()):
        name = '"' + grantee.replace('"', '""') + '"' if re.search(r"[^a-z0-9_]|^[0-9]", grantee) else grantee
        whom = name or "PUBLIC"
        if grantee == row.owner or (not grantee and letters == everybodys):
            continue
        statements = [f"REVOKE ALL ON {on} FROM PUBLIC"] if not grantee and everybodys else []
        for option, pattern in (("", r"([A-Za-z])(?!\*)"), (" WITH GRANT OPTION", r"([A-Za-z])\*")):
            if found := re.findall(pattern, letters):
                rights = ", ".join(f"{_PRIVILEGES.get(letter, letter)}{column}" for letter in found)
                statements.append(f"GRANT {rights} ON {on} TO {whom}{option}")
        if statements:
            yield whom, "; ".join(statements)
