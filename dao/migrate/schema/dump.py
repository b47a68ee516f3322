"""The schema as one text."""

from __future__ import annotations

import math

import apsw

from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import Definition, definitions, tables
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.schema.replay import replayed
from dao.migrate.scripts.load import Source, loaded

__all__ = ["definitions_to_make", "dump", "ended"]


# so that it can be executed as it stands: triggers may be on views, and virtual tables show tables and views
_ORDER = ("table", "index", "view", "virtual table", "trigger")
_HEADER = """\
-- The schema that the migrations make, up to and with {last}.
-- Written by `dao schema dump`: do not edit it, write a migration.
"""


def dump(migrations: Source = None, *, prepare: Prepare | None = None) -> str:
    """Return the schema that the migrations make, as a script.

    Tables come first, then indexes, views, virtual tables and triggers, each by name. The text is SQLite's own.
    Executed in an empty database, it makes that schema.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: One of them fails in an empty database.
    """
    files = loaded(migrations)
    scripts = ((migration.id, migration.up.text) for migration in files)
    with preparing(prepare), replayed(scripts, patience=math.inf) as connection:
        found = sorted(definitions_to_make(connection), key=lambda item: (_ORDER.index(item.kind), item.name))
    header = _HEADER.format(last=files[-1].id if files else "none")
    return "\n".join([header, *(f"{ended(item.sql or '')}\n" for item in found)])


def definitions_to_make(connection: Connection) -> list[Definition]:
    """Return what a script has to make for the schema of a database, in an order in which it can.

    Within a kind it is the order in which they were made, which is that in which triggers fire.
    """
    # shadow tables come with their virtual table, and indexes of constraints with their table
    shadows = {table.name for table in tables(connection) if table.kind == "shadow"}
    found = [item for item in definitions(connection, internal=False) if item.sql is not None]
    found = [item for item in found if item.table not in shadows]
    return sorted(found, key=lambda item: (_ORDER.index(item.kind), item.number))


def ended(sql: str) -> str:
    """Return a statement with its semicolon, which must not end up in a comment."""
    return sql + (";" if apsw.complete(sql + ";") else "\n;")
