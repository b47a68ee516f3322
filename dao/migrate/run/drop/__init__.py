"""Dropping everything that the migrations made, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dao.engine import Connection
from dao.engine.sqlite import Connection as SQLiteConnection
from dao.migrate.database import execute
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.writer import Writer
from dao.migrate.run.drop import sqlite
from dao.migrate.schema.catalog import COPY
from dao.migrate.scripts.migration import Migration

__all__ = ["Dropping", "drop_all", "dropping"]


class Dropping(Protocol):
    """What an engine knows of that."""

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger) -> list[str]:
        """Return the objects of the database that the applied migrations do not make: somebody else's.

        Raises:
            MigrationError: That cannot be told.
        """

    def all(self) -> None:
        """Drop what they make, inside the transaction that is open, without the ledger."""


def dropping(connection: Connection) -> Dropping:
    """Return what the engine of a connection knows of dropping."""
    if isinstance(connection, SQLiteConnection):
        return sqlite.Dropping(connection)
    from dao.migrate.run.drop import postgresql  # noqa: PLC0415 - psycopg takes 100 ms, and SQLite needs none of it

    return postgresql.Dropping(connection)


def drop_all(connection: Connection, what: Dropping) -> None:
    """Drop what the migrations made, inside the transaction that is open, and note that nothing is applied.

    Indexes go with their tables. The ledger's tables stay, and the history in them, and so do those of a program that
    replicates the database.
    """
    what.all()
    execute(connection, f"DROP TABLE IF EXISTS {COPY}")  # what was copied has gone
    execute(connection, "DELETE FROM _yoyo_migration")
    execute(connection, "DELETE FROM _dao_migration")
    Writer(connection).log("reset")
