"""Which set each object is of, by the catalog: what appears while scripts of a set run, however they make it."""

from __future__ import annotations

import attrs

from dao.engine.postgresql import Connection
from dao.migrate.schema.model import Key, Object, Schema, earlier
from dao.migrate.schema.postgresql import reader
from dao.migrate.schema.postgresql.reader import CONSTRAINTS

__all__ = ["Owners", "parts_of"]


@attrs.define
class Owners:
    """The sets of what has appeared, in a database in which scripts run. What was there before has none here.

    The catalog is read where the next script is of another set, and at the end. An object that has got another name in
    between stays whose it is.
    """

    there: Schema = attrs.field(factory=lambda: Schema({}))
    of: dict[Key, str | None] = attrs.Factory(dict)
    #: The same of the parts of what has appeared, by that and their label.
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
        was = earlier(self.there.ids, schema.ids)
        self.of = {key: self.of[its] for key, its in was.items() if its in self.of}
        self.of |= dict.fromkeys(schema.objects.keys() - was.keys(), self.set)
        parts = [(key, label) for key in self.of for label in parts_of(schema.objects[key])]
        self.parts = {
            (key, label): self.parts.get((was[key], label), self.set) if key in was else self.set
            for key, label in parts
        }
        self.there = schema
        return Schema({key: attrs.evolve(one, set=self.of.get(key)) for key, one in schema.objects.items()})


def parts_of(one: Object) -> list[str | None]:
    """Return the labels of what somebody may have added to an object: its columns and constraints, and its name."""
    return [f"name {one.name}", *(item.label for item in one.items if item.family in {"column", *CONSTRAINTS})]
