"""What is there and what migrations make, on SQLite: the migrations are replayed in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dao.engine.sqlite import Connection
from dao.errors import Error
from dao.migrate.ledger import expected
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema import catalog
from dao.migrate.schema.names import fold
from dao.migrate.schema.replay import replayed
from dao.migrate.scripts.migration import Migration

__all__ = ["COLUMN", "MISSING", "THERE", "is_there", "made", "made_one", "names"]

THERE = re.compile(
    r"(table|view|index|trigger) (.+) already exists"
    r"|there is already (?:an? |another )(table|index)(?: or index)? (?:named|with this name:) (.+)",
    re.DOTALL,
)
COLUMN = re.compile(r"duplicate column name: (.+)", re.DOTALL)
MISSING = re.compile(r"no such table: (?:main\.)?(.+)", re.DOTALL)


def names(connection: Connection) -> set[str]:
    """Return the names of the tables and views of a database, by `fold`, without this package's ledger."""
    found = catalog.definitions(connection, internal=False)
    return {fold(item.name) for item in found if item.type in {"table", "view"}}


def made(migrations: Sequence[Migration]) -> set[str]:
    """Return the names of the tables and views that migrations make; none if they build on what is there."""
    try:
        with replayed((migration.id, migration.up.text) for migration in migrations) as memory:
            return names(memory)
    except Error:
        return set()


def is_there(connection: Connection, type: str, name: str) -> bool:
    """Return whether a database has something of a name: a column, or anything else."""
    if type == "column":
        return any(column == fold(name) for _, column in catalog.column_names(connection))
    return any(fold(item.name) == fold(name) for item in catalog.definitions(connection))


def made_one(state: Ledger, type: str, name: str) -> bool:
    """Return whether the applied migrations have made something of a name."""
    with replayed(expected.applied((), state)) as memory:
        return is_there(memory, type, name)
