"""Dropping on SQLite what the migrations made: which that is, a replay in memory shows."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied
from dao.migrate.ledger.others import is_replicators
from dao.migrate.schema.catalog import definitions, fold, is_internal, quoted
from dao.migrate.schema.replay import replayed
from dao.migrate.scripts.migration import Migration
from dao.text import visible

__all__ = ["Dropping"]


@attrs.frozen
class Dropping:
    """As `dao.migrate.run.drop.Dropping`."""

    connection: Connection

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger) -> list[str]:
        """As `dao.migrate.run.drop.Dropping.foreign`: tables and views, but for those of a program that replicates."""
        present = _tables_and_views(self.connection)
        if not present:
            return []
        try:
            with replayed(applied(migrations, ledger)) as memory:
                ours = _tables_and_views(memory)
        except MigrationError as error:
            raise MigrationError(
                f"what the applied migrations made cannot be told from what is somebody else's: {error}. Drop the "
                "database file yourself if that is what you want"
            ) from error
        return sorted(visible(f"{kind} {name}", line=True) for kind, name in present - ours)

    def all(self) -> None:
        """As `dao.migrate.run.drop.Dropping.all`: tables, views and triggers."""
        order = ("trigger", "view", "table")
        found = [item for item in definitions(self.connection) if item.type in order and not _stays(item.name)]
        for item in sorted(found, key=lambda item: (order.index(item.type), not item.is_virtual)):
            # a virtual table takes its shadow tables along
            if item.type != "table" or self.connection.table_exists("main", item.name):
                self.connection.execute(f"DROP {item.type.upper()} {quoted(item.name)}")


def _stays(name: str) -> bool:
    return is_internal(name) or is_replicators(name)


def _tables_and_views(connection: Connection) -> set[tuple[str, str]]:
    return {
        (item.type, fold(item.name))
        for item in definitions(connection, internal=False)
        if item.type in {"table", "view"} and not _stays(item.name)
    }
