"""Dropping on PostgreSQL what the migrations made: which that is, a replay on the same server shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs
import psycopg

from dao.engine.postgresql import Connection, execute
from dao.errors import MigrationError
from dao.migrate.database.postgresql import name_of, url_of
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied
from dao.migrate.ledger.sets import Sets
from dao.migrate.run.postgresql.names import dropped_by, made_by
from dao.migrate.schema.model import Key, Object
from dao.migrate.schema.postgresql import reader
from dao.migrate.schema.postgresql.owners import Owners, parts_of
from dao.migrate.schema.postgresql.replay import replayed
from dao.migrate.scripts.migration import Migration, from_texts
from dao.migrate.scripts.postgresql import split
from dao.migrate.values import Step
from dao.text import visible

__all__ = ["Dropping", "own_drops"]

# a name with a schema in front: what is elsewhere may be another program's
_ELSEWHERE = re.compile(r'(?:"(?:[^"]|"")*"|[^".]+)\.')
_VIEWS = {"view", "materialized view"}
_OF_THE_DATABASE = {"schema", "extension"}


@attrs.define
class Dropping:
    """As `dao.migrate.run.drop.Dropping`."""

    connection: Connection
    torn: list[tuple[str, str]] = attrs.Factory(list)
    #: The objects that the migrations of the named sets make, by type and name.
    made: frozenset[Key] = frozenset()
    #: What the others make: their objects, and what they have added to other sets'.
    others: frozenset[Key] = frozenset()
    parts: frozenset[tuple[Key, str | None]] = frozenset()

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger, its: Sets) -> list[str]:
        """As `dao.migrate.run.drop.Dropping.foreign`. Other schemas of the database are none of its business."""
        here = [one for one in self._objects() if not _ELSEWHERE.match(one.name)]
        present = [one for one in here if one.type not in _OF_THE_DATABASE]
        made: frozenset[Key] = frozenset()
        if ledger.entries:
            scripts = [from_texts(id, text, None, set=its.by_id[id]) for id, text in applied(migrations, ledger)]
            owners = Owners()
            try:
                with replayed(url_of(self.connection), scripts, owners=owners):
                    made = frozenset(owners.there.objects)
            except MigrationError as error:
                raise MigrationError(
                    f"what the applied migrations made cannot be told from what is somebody else's: {error}. Drop the "
                    "database yourself if that is what you want"
                ) from error
            self.others = frozenset(key for key, set in owners.of.items() if not its.has(set))
            self.parts = frozenset(part for part, set in owners.parts.items() if not its.has(set))
            self.made = made - self.others
        foreign = [one for one in present if (one.type, one.name) not in made]
        return sorted(visible(f"{one.type} {one.name}", line=True) for one in foreign)

    def all(self) -> None:
        """As `dao.migrate.run.drop.Dropping.all`."""
        ours = [one for one in reversed(self._objects()) if (one.type, one.name) in self.made]
        views = [one for one in ours if one.type in _VIEWS]
        tables = ", ".join(one.name for one in ours if one.type == "table")
        others = [one for one in ours if one.type != "table" and one not in views]
        statements = [_drop(one) for one in views]
        # in one statement: their foreign keys may lead in circles
        statements += [f"DROP TABLE IF EXISTS {tables}"] * bool(tables)
        statements += [_drop(one) for one in others]
        before = reader.read(self.connection).objects
        try:
            for statement in statements:
                execute(self.connection, statement, ())
        except psycopg.errors.DependentObjectsStillExist as error:
            raise MigrationError(
                f"{name_of(self.connection)}: something else needs what the migrations made "
                f"({error.diag.message_detail}). Nothing was changed; drop that first"
            ) from error
        self._look_for_torn(before)

    def _look_for_torn(self, before: Mapping[Key, Object]) -> None:
        """Note what of the others has gone with what was dropped: that the server knows best, as of partitions."""
        after = reader.read(self.connection).objects
        gone = [(key, one) for key, one in before.items() if key not in after]
        self.torn = [
            (f"the {one.type} {one.name}", one.table if one.table != one.name else "the table that it is a part of")
            for key, one in gone
            if key in self.others
        ] + [
            (f"the {label}", one.name)
            for key, one in gone
            if key not in self.others
            for label in parts_of(one)
            if (key, label) in self.parts
        ]

    def _objects(self) -> list[Object]:
        """Return what is there, each after those that it needs, without what goes with its table."""
        return [one for one in reader.read_in_order(self.connection) if one.table == one.name]


def own_drops(step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """As `dao.migrate.run.drop.own_drops`, by the text of the scripts."""
    made = made_by(step, migrations, state)
    found: set[str] = set()
    for statement in split(step.script.text):
        tables, columns = dropped_by(statement)
        found |= {f"table {table}" for table in tables & made.tables}
        found |= {f"column {table}.{column}" for table, column in columns & made.columns}
    return tuple(sorted(found))


def _drop(one: Object) -> str:
    return f"DROP {one.type.upper()} IF EXISTS {one.name}"
