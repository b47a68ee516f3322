"""Dropping everything that the migrations made, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dao.engine import Connection
from dao.errors import MigrationError, visible
from dao.migrate.ledger import drift
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema import replay as schema
from dao.migrate.schema.catalog import TABLES, quoted
from dao.migrate.scripts.migration import Migration

__all__ = ["drop_all", "foreign_objects"]

_OBJECTS = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def foreign_objects(connection: Connection, migrations: Sequence[Migration], ledger: Ledger) -> list[str]:
    """Return the tables and views of the database that the applied migrations do not make: somebody else's."""
    present = {(kind, name.lower()) for kind, name, _ in _objects(connection) if kind in {"table", "view"}}
    ours = {("table", name.lower()) for name in TABLES}
    if present <= ours:
        return []
    try:
        with schema.replayed(drift.applied(migrations, ledger)) as memory:
            ours |= {(kind, name.lower()) for kind, name, _ in _objects(memory)}
    except MigrationError as error:
        raise MigrationError(
            f"what the applied migrations made cannot be told from what is somebody else's: {error}. Drop the database file "
            "yourself if that is what you want"
        ) from error
    return sorted(visible(f"{kind} {name}", line=True) for kind, name in present - ours)


def drop_all(connection: Connection) -> None:
    """Drop all tables, views and triggers, inside the transaction that is open, and note that nothing is applied.

    Indexes go with their tables. The ledger's tables stay, and the history in them.
    """
    kept = {name.lower() for name in TABLES}
    for kind in ("trigger", "view", "table"):
        for _, name, _sql in sorted(_objects(connection, kind), key=lambda row: not _is_virtual(row[2])):
            # a virtual table takes its shadow tables along
            if name.lower() not in kept and _exists(connection, name):
                connection.execute(f"DROP {kind.upper()} {quoted(name)}")
    connection.execute("DELETE FROM _yoyo_migration")
    connection.execute("DELETE FROM _dao_migration")
    Writer(connection).log("reset")


def _objects(connection: Connection, kind: str | None = None) -> list[Any]:
    rows: list[Any] = connection.execute(_OBJECTS).fetchall()
    return [row for row in rows if kind is None or row[0] == kind]


def _is_virtual(sql: str | None) -> bool:
    return (sql or "").upper().startswith("CREATE VIRTUAL")


def _exists(connection: Connection, name: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchall())
