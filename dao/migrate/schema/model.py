"""The structure of a schema, which `reader` reads, and how two differ: by object, column and constraint."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence

import attrs

from dao.migrate.schema.names import fold
from dao.migrate.values import Difference

__all__ = ["TABLES", "Item", "Key", "Object", "Schema", "differences", "earlier"]

#: The type and the name of an object.
Key = tuple[str, str]
_KEYS = ("primary key", "unique", "exclusion", "check", "foreign key")
_FAMILIES = ("option", "column", "not null", *_KEYS, "definition", "comment", "rights")
#: What has rows, and other things that belong to it.
TABLES = ("table", "virtual table", "foreign table", "view", "materialized view")
#: What belongs to a table, and goes with it.
_OF_TABLES = ("sequence", "index", "statistics", "trigger", "rule", "policy")
_OTHERS = ("schema", "extension", "type", "domain", "function", "procedure", "aggregate")
_ORDER = (*_OTHERS, *TABLES, *_OF_TABLES)


@attrs.frozen
class Item:
    """Something of an object that can differ: a column, a constraint, an option, or the definition as a whole.

    Two are the same thing, though it may have changed, if they have the same `key`; they are equal if `name` and
    `content` are. `label` and `shown` are for people.
    """

    family: str
    key: str | None = attrs.field(eq=False)
    label: str | None = attrs.field(eq=False)
    shown: str = attrs.field(eq=False)
    content: Hashable
    name: str | None = None


@attrs.frozen
class Object:
    """A table, view, index, trigger, function, …. `table` is what it belongs to; itself, if it is none's.

    `set` is the set of the migration that made it, as far as somebody has seen that, and `id` what tells it from others
    for as long as it lives, whatever its name: they are no part of the structure.
    """

    type: str
    name: str
    table: str
    items: tuple[Item, ...]
    set: str | None = attrs.field(default=None, eq=False)
    id: str | None = attrs.field(default=None, eq=False)

    @functools.cached_property
    def parents(self) -> frozenset[str]:
        """The folded names of the tables to which it refers by foreign keys."""
        return frozenset(item.content[1] for item in self.items if item.family == "foreign key")  # type: ignore[index]


@attrs.frozen
class Schema:
    """The structure of a database: its objects by type and name, as it is compared: on SQLite in lower case."""

    objects: dict[Key, Object]

    @functools.cached_property
    def ids(self) -> dict[Key, str | None]:
        """The `id` of each object."""
        return {key: one.id for key, one in self.objects.items()}

    @functools.cached_property
    def virtual(self) -> frozenset[str]:
        """The folded names of its virtual tables."""
        return frozenset(name for type, name in self.objects if type == "virtual table")


def earlier(before: Mapping[Key, Hashable], now: Mapping[Key, Hashable]) -> dict[Key, Key]:
    """Return what each object was before, by objects and what tells one from the others for as long as it lives.

    That is the same one, whatever its name was, or one of its name that has gone. Those that are new are left out.
    """
    names = {id: key for key, id in before.items()}
    lives = {key: names[id] for key, id in now.items() if id in names}
    return lives | {key: key for key in before.keys() & now.keys() - {*lives, *lives.values()}}


# ---------------------------------------------------------------- differences


def differences(expected: Schema, actual: Schema) -> list[Difference]:
    """Return what differs: tables first, then views, indexes and triggers, by name; in a table its columns first.

    The indexes and triggers of a table that is missing or unexpected are not named beside it. What tables are made of,
    such as types and functions, comes before them.
    """
    if expected.objects == actual.objects:
        return []
    found: list[Difference] = []
    for key in sorted(expected.objects.keys() | actual.objects.keys(), key=lambda key: (_ORDER.index(key[0]), key[1])):
        one, other = expected.objects.get(key), actual.objects.get(key)
        if one is not None and other is not None:
            found += _within(one, other) if one != other else ()
        elif one is not None and _has_table(actual, one):
            found.append(Difference(kind="missing", type=one.type, name=one.name))
        elif other is not None and _has_table(expected, other):
            found.append(Difference(kind="unexpected", type=other.type, name=other.name))
    return found


def _has_table(schema: Schema, of: Object) -> bool:
    if of.type not in _OF_TABLES or (of.type == "sequence" and of.table == of.name):
        return True
    return any((type, name) in schema.objects for type in TABLES for name in (of.table, fold(of.table)))


def _within(one: Object, other: Object) -> list[Difference]:
    found: list[Difference] = []
    for family in _FAMILIES:
        expected = [item for item in one.items if item.family == family]
        actual = [item for item in other.items if item.family == family]
        if family == "column":
            found += _order(one, expected, actual)
        for item in list(expected):
            if item in actual:
                expected.remove(item)
                actual.remove(item)
        for item in expected:
            twin = _twin(item, actual)
            if twin is None:
                found.append(Difference(kind="missing", type=one.type, name=one.name, part=item.label))
                continue
            actual.remove(twin)
            texts = [item.shown, twin.shown]
            if item.name != twin.name:
                texts = [f"CONSTRAINT {own.name} {own.shown}" if own.name else own.shown for own in (item, twin)]
            found.append(_changed(one, item.label, *texts))
        found += [Difference(kind="unexpected", type=one.type, name=one.name, part=item.label) for item in actual]
    return found


def _twin(item: Item, among: Sequence[Item]) -> Item | None:
    """Return what an item has become: that with its key, or its content, or another one without a key."""
    for other in among:
        if other.key == item.key is not None:
            return other
    for other in among:
        if other.content == item.content:
            return other
    return next((other for other in among if other.key is item.key is None), None)


def _order(one: Object, expected: Sequence[Item], actual: Sequence[Item]) -> list[Difference]:
    """Compare the order of the columns that both have."""
    there = {item.key: item for item in actual}
    wanted = [item for item in expected if item.key in there]
    both = {item.key for item in wanted}
    given = [item for item in actual if item.key in both]
    if [item.key for item in wanted] == [item.key for item in given]:
        return []
    texts = [", ".join((item.label or "").removeprefix("column ") for item in items) for items in (wanted, given)]
    return [_changed(one, "the order of columns", *texts)]


def _changed(one: Object, part: str | None, expected: str, actual: str) -> Difference:
    return Difference(kind="changed", type=one.type, name=one.name, part=part, expected=expected, actual=actual)
