"""Dropping everything that the migrations made, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from dao.engine.sqlite import Connection
from dao.errors import MigrationError, visible
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied
from dao.migrate.ledger.others import is_replicators
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema.catalog import COPY, definitions, fold, is_internal, quoted
from dao.migrate.schema.replay import replayed
from dao.migrate.scripts.migration import Migration

__all__ = ["drop_all", "foreign_objects"]


def foreign_objects(connection: Connection, migrations: Sequence[Migration], ledger: Ledger) -> list[str]:
    """Return the tables and views of the database that the applied migrations do not make: somebody else's.

    Those of a program that replicates it stand in nobody's way.
    """
    present = _tables_and_views(connection)
    if not present:
        return []
    try:
        with replayed(applied(migrations, ledger)) as memory:
            ours = _tables_and_views(memory)
    except MigrationError as error:
        raise MigrationError(
            f"what the applied migrations made cannot be told from what is somebody else's: {error}. Drop the database "
            "file yourself if that is what you want"
        ) from error
    return sorted(visible(f"{kind} {name}", line=True) for kind, name in present - ours)


def drop_all(connection: Connection) -> None:
    """Drop all tables, views and triggers, inside the transaction that is open, and note that nothing is applied.

    Indexes go with their tables. The ledger's tables stay, and the history in them, and so do those of a program that
    replicates the database.
    """
    order = ("trigger", "view", "table")
    found = [item for item in definitions(connection) if item.type in order and not _stays(item.name)]
    for item in sorted(found, key=lambda item: (order.index(item.type), not item.is_virtual)):
        # a virtual table takes its shadow tables along
        if item.type != "table" or connection.table_exists("main", item.name):
            connection.execute(f"DROP {item.type.upper()} {quoted(item.name)}")
    connection.execute(f"DROP TABLE IF EXISTS {COPY}")  # what was copied has gone
    connection.execute("DELETE FROM _yoyo_migration")
    connection.execute("DELETE FROM _dao_migration")
    Writer(connection).log("reset")


def _stays(name: str) -> bool:
    return is_internal(name) or is_replicators(name)


def _tables_and_views(connection: Connection) -> set[tuple[str, str]]:
    return {
        (item.type, fold(item.name))
        for item in definitions(connection, internal=False)
        if item.type in {"table", "view"} and not _stays(item.name)
    }
