"""The schema of a PostgreSQL database as statements, and what they make in a scratch database on the same server."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dao.engine.postgresql import Connection
from dao.migrate.database import schema_made_by, schema_of
from dao.migrate.ledger import unnoted
from dao.migrate.ledger.drift.postgresql import of_sets
from dao.migrate.ledger.unnoted.postgresql import made
from dao.migrate.schema import model
from dao.migrate.schema.model import Object, Schema
from dao.migrate.schema.postgresql import dump
from dao.migrate.schema.usable import Unusable
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.postgresql import makers as by_words
from dao.migrate.scripts.postgresql import plain
from dao.migrate.values import Difference

__all__ = ["makers", "remade", "statements"]


def statements(connection: Connection, left_out: Collection[str], applied: Sequence[tuple[str, str]]) -> list[str]:
    """Return the statements that make the schema, without some tables and what applied scripts make; or none.

    It is noted what they have made, or their words say it.
    """
    made, noted = by_words(applied), of_sets(connection)

    def is_theirs(one: Object) -> bool:
        named = {plain(one.name), plain(one.table)} & made.keys()
        return dump.is_of(one, left_out) or bool(named) or (one.type, one.name) in noted

    return [f"{sql};" for sql in dump.statements(connection, is_theirs)]


def makers(connection: Connection, migrations: Sequence[Migration], _baseline: tuple[str, str]) -> set[str]:
    """Return what is there of that which migrations make, by the words of their scripts."""
    return made(migrations) & unnoted.names_of(connection)


def remade(
    connection: Connection, own: Migration, left_out: Collection[str], applied: Sequence[tuple[str, str]]
) -> tuple[list[Difference], list[Unusable]]:
    """Return how the schema differs from what its script makes. The server lets nothing be made that does not work.

    Raises:
        MigrationError: The script fails in an empty database, or the role may not create one.
    """
    there = schema_of(connection)
    kept = Schema({key: one for key, one in there.objects.items() if not dump.is_of(one, left_out)})
    return model.differences(schema_made_by(connection, [*applied, (own.id, own.up.text)]), kept), []
