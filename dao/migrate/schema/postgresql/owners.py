"""Which set each object is of, by the catalog: what appears while scripts of a set run, however they make it."""

from __future__ import annotations

import attrs

from dao.engine.postgresql import Connection
from dao.migrate.schema.model import Object, Schema
from dao.migrate.schema.postgresql import reader
from dao.migrate.schema.postgresql.reader import CONSTRAINTS

__all__ = ["Key", "Owners", "parts_of"]

#: The type and the name of an object.
Key = tuple[str, str]


@attrs.define
class Owners:
    """The sets of what has appeared, in a database in which scripts run. What was there before has none here.

    The catalog is read where the next script is of another set, and at the end.
    """

    there: frozenset[Key] = frozenset()
    of: dict[Key, str | None] = attrs.Factory(dict)
    #: The same of the columns and constraints of what has appeared, by that and their label.
    parts: dict[tuple[Key, str | None], str | None] = attrs.Factory(dict)
    #: The set whose scripts run, once one does.
    set: str | None = None
    has_begun: bool = False

    def turn_to(self, set: str | None, connection: Connection) -> None:
        """Note that the next script is of a set."""
        if self.has_begun and set != self.set:
            self.look(reader.read(connection))
        self.set, self.has_begun = set, True

    def look(self, schema: Schema) -> Schema:
        """Note that what is new in a schema is of the set whose script ran last; return it with the sets of objects."""
        self.of = {key: self.of.get(key) for key in self.of.keys() & schema.objects.keys()}
        self.of |= dict.fromkeys(schema.objects.keys() - self.there, self.set)
        parts = [part for key, one in schema.objects.items() if key in self.of for part in parts_of(key, one)]
        self.parts = {part: self.parts.get(part, self.set) for part in parts}
        self.there = frozenset(schema.objects)
        return Schema({key: attrs.evolve(one, set=self.of.get(key)) for key, one in schema.objects.items()})


def parts_of(key: Key, one: Object) -> list[tuple[Key, str | None]]:
    """Return the columns and constraints of an object, as `Owners.parts` has them."""
    return [(key, item.label) for item in one.items if item.family in {"column", *CONSTRAINTS}]
