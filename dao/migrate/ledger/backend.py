"""yoyo's DatabaseBackend as the ledger is written through it: inside a transaction of ours, which it never ends.

What both engines have in common is here: yoyo's tables in the version that they end in, rows that are marked at a time,
and a log that asks no DNS.
"""

from __future__ import annotations

import abc
import functools
import getpass
import os
import uuid
from datetime import UTC, datetime
from typing import Any, Self

import attrs
import yoyo
from yoyo import internalmigrations
from yoyo.backends.base import DatabaseBackend
from yoyo.migrations import default_migration_table, get_migration_hash

from dao.engine import Connection
from dao.errors import MigrationError
from dao.migrate import database

__all__ = ["LedgerBackend", "Marked"]

#: The version of yoyo's tables.
_NEWEST = max(internalmigrations.schema_versions)


@attrs.frozen
class Marked:
    """A migration as far as yoyo asks for it to mark, unmark or log it."""

    id: str

    @property
    def hash(self) -> str:
        """The key of its row."""
        return str(get_migration_hash(self.id))


class LedgerBackend(DatabaseBackend, abc.ABC):  # type: ignore[misc] # yoyo has no types
    """A backend that can take part in a transaction which is open on a connection."""

    def __init__(
        self,
        dburi: Any,
        migration_table: str = default_migration_table,
        connection: Connection | None = None,
    ) -> None:
        self._given: Any = connection
        super().__init__(dburi, migration_table)
        # always the same, and put together in more time than SQLite takes to run it
        self.format_sql: Any = functools.cache(super().format_sql)

    @classmethod
    def within(cls, connection: Connection) -> Self:
        """Return a backend that takes part in the transaction which is open on the connection, and never ends it."""
        backend = cls(None, connection=connection)
        backend._in_transaction = True
        return backend

    @property
    @abc.abstractmethod
    def driver_connection(self) -> Connection:
        """The connection as the rest of this package knows it."""

    @abc.abstractmethod
    def respect_lock(self) -> None:
        """Refuse to go on while a `yoyo` process may hold its own lock, which is a row in a table that exists.

        Raises:
            DatabaseBusy: One may.
        """

    def list_tables(self, **_kwargs: Any) -> list[str]:
        """Return the names of all tables; on a server those of the connection's schema."""
        return sorted(database.table_names(self.driver_connection))

    def has_table(self, name: str) -> bool:
        """Return whether there was such a table when this was first asked."""
        return name in self._tables

    @functools.cached_property
    def _tables(self) -> frozenset[str]:
        return frozenset(self.list_tables())

    def _version(self) -> int | None:
        """Return the version of yoyo's tables, as they say themselves; None if they do not."""
        if not self.has_table(self.version_table):
            return None
        table = self.version_table_quoted
        ((version,),) = database.fetch(self.driver_connection, f"SELECT max({table}.version) FROM {table}")
        return None if version is None else int(version)

    def ensure_ledger(self) -> None:
        """Create or upgrade yoyo's tables inside the open transaction.

        Raises:
            MigrationError: They are of a version that is not known.
        """
        version = self._version()
        if not self.has_table(self.migration_table):
            # straight to what the upgrades from nothing end on: they make a table of yoyo 5, empty, to replace it,
            # and leave a savepoint open, because of which SQLite would keep a copy of every page that the run changes
            internalmigrations.v2.create_log_table(self)
            internalmigrations.v2.create_version_table(self)
            internalmigrations.v2.create_migration_table(self)
            internalmigrations.mark_schema_version(self, _NEWEST)
        elif not self.has_table(self.version_table) and self._is_of_yoyo_5():
            internalmigrations.upgrade(self)
        elif version != _NEWEST:
            raise MigrationError(
                f"the ledger's table {self.version_table} has no version that yoyo {yoyo.__version__} knows: a newer "
                "yoyo wrote it, or somebody has changed it. Undo that, or install that yoyo"
            )
        self._internal_schema_updated = True

    def _is_of_yoyo_5(self) -> bool:
        # to upgrade any other loses it: SQLite takes the names of columns that are not there for strings
        return {"id", "ctime"} <= set(database.columns_of(self.driver_connection, self.migration_table))

    def mark_at(self, migration: Marked, when: datetime) -> None:
        """Mark a migration as applied at a time, in UTC without a zone, and log nothing."""
        values = {"migration_hash": migration.hash, "migration_id": migration.id, "when": when}
        self.execute(self.format_sql(self.mark_migration_sql), values)

    def log_migration(self, migration: Any, operation: str) -> dict[str, Any]:
        """Log an operation, and return the row."""
        row = self.get_log_data(migration, operation)
        self.execute(self.format_sql(self.log_migration_sql), row)
        return row

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """Return a row for yoyo's log. Its own asks the DNS for the host, and fails for a user without a name."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self._user,
            "hostname": os.uname().nodename,
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }

    @functools.cached_property
    def _user(self) -> str:
        # once for a run: it may be asked of a directory service
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return str(os.getuid())
