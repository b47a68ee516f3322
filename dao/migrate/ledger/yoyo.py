"""yoyo's DatabaseBackend, on apsw: our runner writes the ledger through it, and the `yoyo` command uses it, too.

yoyo's own SQLite backend opens the file with Python's `sqlite3`, a second SQLite in the process, and commits a
migration before it marks it. This one shares apsw's SQLite, and commits the script and its ledger row together. The
entry point `sqlite+apsw` (setup.cfg) makes `yoyo … --database sqlite+apsw:///path` use it.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import yoyo
from yoyo import exceptions, internalmigrations
from yoyo.backends.base import DatabaseBackend
from yoyo.migrations import default_migration_table, get_migration_hash

from dao import url
from dao.engine import DriverError, sqlite
from dao.engine.sqlite import Connection
from dao.engine.sqlite.dbapi import DbApiConnection, Driver
from dao.errors import DatabaseBusy, MigrationError
from dao.migrate.database import keeping_mode, lock_of
from dao.migrate.schema.catalog import columns, table_names
from dao.migrate.schema.session import prepare
from dao.migrate.scripts.files import refuse_broken_off, text_of

__all__ = ["ApswBackend", "Marked"]


#: The version of yoyo's tables.
_NEWEST = max(internalmigrations.schema_versions)


exceptions.register(DriverError)


@attrs.frozen
class Marked:
    """A migration as far as yoyo asks for it to mark, unmark or log it."""

    id: str

    @property
    def hash(self) -> str:
        """The key of its row."""
        return str(get_migration_hash(self.id))


class ApswBackend(DatabaseBackend):  # type: ignore[misc] # yoyo has no types
    """A yoyo backend whose migrations and ledger rows commit together."""

    _driver = Driver
    _is_locked = False

    def __init__(
        self,
        dburi: Any,
        migration_table: str = default_migration_table,
        connection: Connection | None = None,
    ) -> None:
        self._given = connection
        super().__init__(dburi, migration_table)
        # always the same, and put together in more time than SQLite takes to run it
        self.format_sql: Any = functools.cache(super().format_sql)

    @classmethod
    def within(cls, connection: Connection) -> ApswBackend:
        """Return a backend that takes part in the transaction which is open on the connection, and never ends it."""
        backend = cls(None, connection=connection)
        backend._in_transaction = True
        return backend

    def connect(self, dburi: Any) -> DbApiConnection:
        """Open the database that yoyo's parsed URI names; foreign keys are off, as SQLite has them."""
        if self._given is not None:
            return DbApiConnection(self._given)
        query = "&".join(f"{name}={value}" for name, value in dburi.args.items())
        parsed = url.parse_file(f"sqlite:///{dburi.database}" + (f"?{query}" if query else ""))
        connection = sqlite.open_connection(keeping_mode(parsed))
        prepare(connection)
        return DbApiConnection(connection)

    def list_tables(self, **_kwargs: Any) -> list[str]:
        """Return the names of all tables."""
        return sorted(table_names(self.connection.apsw))

    def init_database(self) -> None:
        """Create the lock table, which the stock command expects. DDL is known to be transactional: no try-out."""
        if self.lock_table not in self.list_tables():
            self.create_lock_table()

    def has_table(self, name: str) -> bool:
        """Return whether there is such a table, as the last statement found the schema. Runs none itself."""
        return bool(self.connection.apsw.table_exists("main", name))

    def ensure_ledger(self) -> None:
        """Create or upgrade yoyo's tables inside the open transaction.

        Raises:
            MigrationError: They are of a version that is not known.
        """
        # a statement, be there the table or not, notices what others have made since the schema was read
        version = None
        with contextlib.suppress(Driver.ProgrammingError):
            version = self.connection.apsw.execute(f"SELECT max(version) FROM {self.version_table_quoted}").get
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
        return {"id", "ctime"} <= {column.name for column in columns(self.connection.apsw, self.migration_table)}

    def ensure_internal_schema_updated(self) -> None:
        """Create or upgrade yoyo's tables, if there still is need under the lock: another may be faster."""
        if not self._internal_schema_updated and internalmigrations.needs_upgrading(self):
            with self.transaction():
                self.ensure_ledger()

    @contextlib.contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:
        """Take the lock that the migrations of this package take, too. A row in a table would outlive a crash.

        Raises:
            LockTimeout: Another had it for so many seconds; for 0, as yoyo has it, this waits on.
        """
        if self._is_locked:
            yield
            return
        with lock_of(self.connection.apsw, timeout or None) as lock:
            try:
                lock.take()
            except DatabaseBusy as error:
                raise exceptions.LockTimeout(str(error)) from error
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    def begin(self) -> None:
        """Begin a transaction by taking the write lock."""
        self._in_transaction = True
        self.execute("BEGIN IMMEDIATE")

    def savepoint_rollback(self, id: str) -> None:
        """Roll back to a savepoint, unless SQLite has given up the whole transaction, as on a full disk."""
        if self.connection.apsw.in_transaction:
            super().savepoint_rollback(id)

    def copy(self) -> contextlib.AbstractContextManager[ApswBackend]:
        """Return itself inside a transaction, so that a script and its ledger rows share it; otherwise another one."""
        return contextlib.nullcontext(self) if self._in_transaction else super().copy()

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:
        """Apply a migration and mark it, in one transaction, unless another process was faster."""
        with self._whole(migration):
            if not (mark and migration.use_transactions and self.is_applied(migration)):
                super().apply_one(migration, force=force, mark=mark)

    def rollback_one(self, migration: Any, force: bool = False) -> None:
        """Roll a migration back and unmark it, in one transaction, unless another process was faster."""
        with self._whole(migration):
            if not migration.use_transactions or self.is_applied(migration):
                super().rollback_one(migration, force=force)

    @contextlib.contextmanager
    def _whole(self, migration: Any) -> Iterator[None]:
        self.ensure_internal_schema_updated()
        # yoyo's parser passes over what a script leaves open
        script = Path(migration.path)
        for path in (script, script.with_suffix(".rollback.sql")):
            if script.suffix == ".sql" and path.is_file():
                refuse_broken_off(path, text_of(path))
        migration.load()
        with self.transaction() if migration.use_transactions else contextlib.nullcontext():
            yield

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
            "created_at_utc": _now(),
            "operation": operation,
        }

    @functools.cached_property
    def _user(self) -> str:
        # once for a run: it may be asked of a directory service
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return str(os.getuid())


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
