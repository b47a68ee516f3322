"""Dropping everything that the migrations made, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from dao.engine import Connection
from dao.engine.sqlite import Connection as SQLiteConnection
from dao.errors import MigrationError
from dao.migrate.database import execute
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.ledger.writer import Writer
from dao.migrate.run.drop import sqlite
from dao.migrate.schema.names import COPY
from dao.migrate.scripts.migration import Migration
from dao.text import visible

__all__ = ["Dropping", "drop_all", "dropping", "refuse_torn"]


class Dropping(Protocol):
    """What an engine knows of that.

    `torn` is what a set that is not named has made and would go with a table of the others, and that table; known
    once `foreign` has looked, or `all` has dropped them.
    """

    torn: list[tuple[str, str]]

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger, its: Sets) -> list[str]:
        """Return the objects of the database that the applied migrations of no set make: somebody else's.

        Raises:
            MigrationError: That cannot be told.
        """

    def all(self) -> None:
        """Drop what those of the named sets make, inside the transaction that is open, without the ledger."""


def dropping(connection: Connection) -> Dropping:
    """Return what the engine of a connection knows of dropping."""
    if isinstance(connection, SQLiteConnection):
        return sqlite.Dropping(connection)
    from dao.migrate.run.drop import postgresql  # noqa: PLC0415 - psycopg takes 100 ms, and SQLite needs none of it

    return postgresql.Dropping(connection)


def refuse_torn(what: Dropping) -> None:
    """Refuse to drop tables with which something of a set goes that is not named.

    Raises:
        MigrationError: Something does.
    """
    for which, table in what.torn:
        raise MigrationError(
            f"{visible(which, line=True)} was made by a set of migrations that is not named, and would go with "
            f"{visible(table, line=True)}: name that set, too (--migrations). Nothing was changed"
        )


def drop_all(connection: Connection, what: Dropping, ids: Iterable[str]) -> None:
    """Drop what the migrations made, inside the transaction that is open, and note that these are not applied.

    Indexes go with their tables. The ledger's tables stay, and the history in them, and so do those of a program that
    replicates the database.

    Raises:
        MigrationError: As `refuse_torn`.
    """
    what.all()
    refuse_torn(what)
    execute(connection, f"DROP TABLE IF EXISTS {COPY}")  # what was copied has gone
    for table in ("_yoyo_migration", "_dao_migration"):
        for id in ids:
            execute(connection, f"DELETE FROM {table} WHERE migration_id = $1", (id,))
    Writer(connection).log("reset")
