"""The tables whose rows can make a difference to scripts for PostgreSQL, told by the words that stand in them.

The server says only what was touched, not what a script could touch if there were rows. So a table counts that a script
names, in a comment too; or that a view, function or trigger names that the script reaches. One too many costs the time
to fill it. A script that puts SQL together, or reads the catalog, may touch everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dao.engine import fetch
from dao.engine.postgresql import Connection
from dao.migrate.run.postgresql import holdings
from dao.migrate.schema.model import Schema

__all__ = ["mentioned"]

_WORD = re.compile(r"[^\W\d][\w$]*")
_ANYTHING = re.compile(
    r"\bexecute\s+(?!function\b|procedure\b)|\bpg_(?:class|tables|attribute|constraint|index|namespace)\b"
    r"|\binformation_schema\b",
    re.IGNORECASE,
)
_OF_TABLE = frozenset({"trigger", "rule", "policy"})
_NAMES_OTHERS = frozenset({"view", "materialized view", "function", "procedure", "aggregate"} | _OF_TABLE)
_REFERENCES = "SELECT conrelid::bigint, confrelid::bigint FROM pg_constraint WHERE contype = 'f'"


def mentioned(connection: Connection, texts: Iterable[str], *schemas: Schema) -> frozenset[str] | None:
    """Return the tables that scripts name, with those that are bound to them; None for all that there are.

    Bound are all parents, without which there are no rows; the children of what is named, whose foreign keys are
    checked; and what triggers bring together. `schemas` are those before and after the scripts.
    """
    text = "\n".join(texts)
    if _ANYTHING.search(text):
        return None
    there = holdings.tables(connection)
    names = {table.name: _words(table.table) for table in there.values()}
    parents: dict[str, set[str]] = {name: set() for name in names}
    for child, parent in fetch(connection, _REFERENCES):
        if child in there and parent in there:
            parents[there[child].name].add(there[parent].name)
    parts = {one.name: there[one.parent].name for one in there.values() if one.parent in there}
    others = [
        (
            _words(one.name.partition("(")[0]),
            one.table.replace('"', ""),
            one.type,
            "\n".join(i.shown for i in one.items),
        )
        for schema in schemas
        for one in schema.objects.values()
        if one.type in _NAMES_OTHERS
    ]
    words = _words(text)
    named = _named(names, words)
    wanted = set(named)
    size = -1
    while len(wanted) + len(words) > size:
        size = len(wanted) + len(words)
        for own, table, type, body in others:
            if table in wanted if type in _OF_TABLE else own <= words:
                if _ANYTHING.search(body.partition(" AS ")[2] if type in {"function", "procedure"} else ""):
                    return None
                words |= _words(body)
        named |= _named(names, words)
        wanted |= named | {child for child, of in parents.items() if of & named}
        wanted |= {parents_of for name in wanted for parents_of in parents[name]}
        wanted |= {parts[name] for name in wanted if name in parts}
    return frozenset(wanted)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _named(names: Mapping[str, set[str]], words: set[str]) -> set[str]:
    return {name for name, own in names.items() if own <= words}
