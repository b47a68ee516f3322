"""The schema as one text."""

from __future__ import annotations

import math

import apsw

from dao.migrate.schema.catalog import definitions, tables
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.schema.replay import replayed
from dao.migrate.scripts.load import Source, loaded

__all__ = ["dump"]


# so that it can be executed as it stands: triggers may be on views
_ORDER = ("table", "index", "view", "trigger")
_HEADER = """\
-- The schema that the migrations make, up to and with {last}.
-- Written by `dao schema dump`: do not edit it, write a migration.
"""


def dump(migrations: Source = None, *, prepare: Prepare | None = None) -> str:
    """Return the schema that the migrations make, as a script: tables, indexes, views, triggers, each by name.

    The text is SQLite's own. Executed in an empty database, it makes that schema.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: One of them fails in an empty database.
    """
    files = loaded(migrations)
    scripts = ((migration.id, migration.up.text) for migration in files)
    with preparing(prepare), replayed(scripts, patience=math.inf) as connection:
        # shadow tables come with their virtual table
        shadows = {table.name for table in tables(connection) if table.kind == "shadow"}
        found = [item for item in definitions(connection, internal=False) if item.table not in shadows]
    found.sort(key=lambda item: (_ORDER.index(item.type), item.name))
    header = _HEADER.format(last=files[-1].id if files else "none")
    return "\n".join([header, *(f"{_ended(item.sql)}\n" for item in found if item.sql is not None)])


def _ended(sql: str) -> str:
    """Return a statement with its semicolon, which must not end up in a comment."""
    return sql + (";" if apsw.complete(sql + ";") else "\n;")
