"""The schema of a PostgreSQL database as statements that make it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from dao.migrate.schema.model import Object
from dao.migrate.schema.postgresql.reader import CONSTRAINTS, read_in_order

__all__ = ["is_of", "statements"]

_TABLES = ("table", "foreign table")
#: What stands in the statement that makes a table, before its columns and after them.
_BEFORE, _AFTER = ("UNLOGGED",), ("INHERITS", "PARTITION BY", "SERVER", "WITH")
#: What is made once every table is there, and has its partitions.
_LAST = ("index", "statistics", "trigger", "rule", "policy")
_ROUTINES = ("function", "procedure")
# a name in quotes, or a literal as the server writes it: a quote in it is two
_QUOTED = re.compile(r"""\"(?:[^"]|"")*"|E?'((?:[^']|'')*)'""")


def statements(connection: Any, left_out: Callable[[Object], bool] = lambda _one: False) -> list[str]:
    """Return the statements that make the schema of a database, without the ledger, in an order in which they can.

    What something needs comes before it; otherwise types, functions, tables and views, each by name. Foreign keys,
    which may lead in circles, come after the indexes, and comments and rights at the end. Objects that are `left_out`
    are not made.
    """
    objects = [one for one in read_in_order(connection) if not left_out(one)]
    parts = (
        (_made(one) for one in objects if one.type not in _LAST),
        (statement for one in objects for statement in _joined(one)),
        (_made(one) for one in objects if one.type == "index"),
        (statement for one in objects for statement in _constraints(one, "foreign key")),
        (_made(one) for one in objects if one.type in _LAST and one.type != "index"),
        (statement for one in objects for statement in _added(one)),
    )
    # a function may name a table that is not there yet
    bodies = any(one.type in _ROUTINES for one in objects)
    return [*(["SET check_function_bodies = off"] if bodies else []), *(sql for part in parts for sql in part)]


def is_of(one: Object, tables: Collection[str]) -> bool:
    """Return whether an object is one of some tables, or belongs to one, as its index or sequence does."""
    return one.table in tables


def _options(one: Object, *keys: str) -> list[str]:
    return [item.shown for key in keys for item in one.items if item.family == "option" and item.key == key]


def _made(one: Object) -> str:
    """Return the statement that makes an object, without what is added once others are there."""
    if one.type not in _TABLES:
        (made,) = (item.shown for item in one.items if item.family == "definition")
        if one.type in _ROUTINES:
            return made  # a body is quoted with dollars
        checks = [f"CONSTRAINT {item.key} {item.shown}" for item in one.items if item.family == "check"]
        return _legible("\n    ".join([made, *checks]))
    lines = [f"    {item.key} {item.shown}" for item in one.items if item.family == "column"]
    lines += [
        f"    CONSTRAINT {item.key} {item.shown}"
        for family in CONSTRAINTS
        if family not in {"foreign key", "not null"}
        for item in one.items
        if item.family == family and not item.shown.endswith(" NOT VALID")
    ]
    head = " ".join(["CREATE", *_options(one, *_BEFORE), one.type.upper(), one.name])
    body = ",\n".join(lines)
    return _legible(" ".join([f"{head} (\n{body}\n)" if lines else f"{head} ()", *_options(one, *_AFTER)]))


def _legible(sql: str) -> str:
    """Return a statement with what nobody sees in its literals written out."""

    def written(match: re.Match[str]) -> str:
        text = match[1]
        if text is None or text.replace("\n", "").isprintable():
            return match[0]
        signs = (one if one.isprintable() else f"\\u{ord(one):04X}" for one in text)
        return f"E'{''.join(signs)}'"

    return _QUOTED.sub(written, sql)


def _joined(one: Object) -> Iterator[str]:
    """Yield the statements that make a table another one's partition, or a sequence a column's."""
    for option in _options(one, "PARTITION OF"):
        yield f"ALTER TABLE {option}"
    for option in _options(one, "OWNED BY"):
        yield f"ALTER SEQUENCE {one.name} {option}"


def _constraints(one: Object, family: str) -> Iterator[str]:
    for item in one.items:
        if item.family == family:
            yield f"ALTER {one.type.upper()} {one.name}\n    ADD CONSTRAINT {item.key} {item.shown}"


def _added(one: Object) -> Iterator[str]:
    """Yield what is left: constraints that do not hold for old rows, states, comments and rights."""
    if one.type in _TABLES:
        not_valid = [item for item in one.items if item.family != "foreign key" and item.shown.endswith(" NOT VALID")]
        for item in not_valid:
            yield f"ALTER TABLE {one.name}\n    ADD CONSTRAINT {item.key} {item.shown}"
        for option in _options(one, "REPLICA IDENTITY", "ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"):
            yield f"ALTER TABLE {one.name} {option}"
    for option in _options(one, "state"):
        yield f"ALTER TABLE {one.table} {option}"
    for family in ("comment", "rights"):
        yield from (item.shown for item in one.items if item.family == family)
