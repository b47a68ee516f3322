"""yoyo's backend on apsw: our runner writes the ledger through it, and the `yoyo` command uses it, too.

yoyo's own SQLite backend opens the file with Python's `sqlite3`, a second SQLite in the process, and commits a
migration before it marks it. This one shares apsw's SQLite, and commits the script and its ledger row together. The
entry point `sqlite+apsw` (setup.cfg) makes `yoyo … --database sqlite+apsw:///path` use it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yoyo import exceptions, internalmigrations

from dao import url
from dao.engine import DriverError, sqlite
from dao.engine.sqlite.dbapi import DbApiConnection, Driver
from dao.errors import DatabaseBusy
from dao.migrate.database.sqlite import keeping_mode, lock_of
from dao.migrate.ledger.backend import LedgerBackend
from dao.migrate.processes import respect_yoyo
from dao.migrate.schema.session import prepare
from dao.migrate.scripts.files import refuse_broken_off, text_of

__all__ = ["ApswBackend"]

exceptions.register(DriverError)


class ApswBackend(LedgerBackend):
    """A yoyo backend whose migrations and ledger rows commit together."""

    _driver = Driver
    _is_locked = False

    def connect(self, dburi: Any) -> DbApiConnection:
        """Open the database that yoyo's parsed URI names; foreign keys are off, as SQLite has them."""
        if self._given is not None:
            return DbApiConnection(self._given)
        query = "&".join(f"{name}={value}" for name, value in dburi.args.items())
        parsed = url.parse_file(f"sqlite:///{dburi.database}" + (f"?{query}" if query else ""))
        connection = sqlite.open_connection(keeping_mode(parsed))
        prepare(connection)
        return DbApiConnection(connection)

    @property
    def driver_connection(self) -> sqlite.Connection:
        """The connection as the rest of this package knows it."""
        return self.connection.apsw  # type: ignore[no-any-return] # yoyo has no types

    def init_database(self) -> None:
        """Create the lock table, which the stock command expects. DDL is known to be transactional: no try-out."""
        if self.lock_table not in self.list_tables():
            self.create_lock_table()

    def has_table(self, name: str) -> bool:
        """Return whether there is such a table, as the last statement found the schema. Runs none itself."""
        return bool(self.driver_connection.table_exists("main", name))

    def _version(self) -> int | None:
        # a statement, be there the table or not, notices what others have made since the schema was read
        with contextlib.suppress(Driver.ProgrammingError):
            found = self.driver_connection.execute(f"SELECT max(version) FROM {self.version_table_quoted}").fetchall()
            return None if found[0][0] is None else int(found[0][0])
        return None

    def respect_lock(self) -> None:
        """Refuse to go on while a living `yoyo` process holds its own lock.

        Raises:
            DatabaseBusy: One does.
        """
        respect_yoyo(self.driver_connection)

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
        with lock_of(self.driver_connection, timeout or None) as lock:
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
        if self.driver_connection.in_transaction:
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
