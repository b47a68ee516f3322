"""Writes the ledger."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dao import _version
from dao.engine import Connection
from dao.engine import files as database_file
from dao.migrate import processes as lock
from dao.migrate.schema.catalog import TABLE_NAMES
from dao.migrate.scripts.folder import normal
from dao.migrate.scripts.migration import Migration, checksum

if TYPE_CHECKING:
    from dao.migrate.ledger.yoyo import ApswBackend, LedgerSQL
from dao.migrate.ledger.entries import _IDS, _RENAME, _RENAME_YOYOS, Entry, Ledger, read

__all__ = ["Writer"]


_CREATE = """
CREATE TABLE IF NOT EXISTS _dao_migration (
    migration_id      TEXT    NOT NULL PRIMARY KEY,
    applied_at_utc    TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('applied', 'applying', 'rolling back')),
    checksum          TEXT    NOT NULL,
    rollback_checksum TEXT,
    apply_text        TEXT    NOT NULL,
    rollback_text     TEXT,
    duration_ms       INTEGER,
    tool_version      TEXT    NOT NULL,
    host              TEXT,
    pid               INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS _dao_history (
    id           INTEGER NOT NULL PRIMARY KEY,
    at_utc       TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    migration_id TEXT,
    duration_ms  INTEGER,
    detail       TEXT,
    username     TEXT    NOT NULL,
    hostname     TEXT    NOT NULL,
    tool_version TEXT    NOT NULL,
    yoyo_log_id  TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS _dao_schema (
    only           INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    schema_version INTEGER NOT NULL,
    migrations     TEXT    NOT NULL,
    live           TEXT    NOT NULL,
    expected       TEXT
) STRICT
"""
_WRITE = """
INSERT INTO _dao_migration (migration_id, applied_at_utc, state, checksum, rollback_checksum, apply_text,
                            rollback_text, duration_ms, tool_version, host, pid)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (migration_id) DO UPDATE
SET applied_at_utc = excluded.applied_at_utc, state = excluded.state, checksum = excluded.checksum,
    rollback_checksum = excluded.rollback_checksum, apply_text = excluded.apply_text,
    rollback_text = excluded.rollback_text, duration_ms = excluded.duration_ms, tool_version = excluded.tool_version,
    host = excluded.host, pid = excluded.pid
"""
_REMOVE = "DELETE FROM _dao_migration WHERE migration_id = ?"
_NOTE = """
INSERT INTO _dao_history (at_utc, operation, migration_id, duration_ms, detail, username, hostname, tool_version, yoyo_log_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Writer:
    """Writes the ledger, inside the transaction that is open on the connection. Creates the tables if need be."""

    def __init__(self, connection: Connection) -> None:
        """Begin to write.

        Raises:
            DatabaseBusy: A living `yoyo` process holds its own lock.
        """
        # yoyo takes 35 ms to import: only who changes something pays for it
        from yoyo.migrations import get_migration_hash  # noqa: PLC0415 - see above

        from dao.migrate.ledger.yoyo import ApswBackend, ledger_sql  # noqa: PLC0415 - see above

        self._connection = connection
        self._backend: ApswBackend = ApswBackend.within(connection)
        tables = {name for (name,) in connection.execute(TABLE_NAMES)}
        #: Whether there was no table at all: then there is nothing to read or to count either.
        self.found_nothing = not tables
        if "yoyo_lock" in tables:
            lock.respect_yoyo(connection)
        self._backend.ensure_ledger(is_new=self.found_nothing)
        connection.execute(_CREATE)
        # yoyo's SQL on our own cursor: its way from a statement to the driver takes longer than most scripts
        self._yoyo: LedgerSQL = ledger_sql()
        self._hash = functools.cache(get_migration_hash)
        if not self.found_nothing:
            rows: list[Any] = connection.execute(_IDS).fetchall()
            for (id,) in rows:
                if id != normal(id):
                    self.rename({id: normal(id)})
        # what is the same in all rows of a run's log
        self._who = self._backend.get_log_data()
        self._latest: datetime | None = None
        # by statement, the values that `together` collects
        self._collected: dict[str, list[Any]] | None = None

    def read(self) -> Ledger:
        """Return what the ledger said before anything was written."""
        return Ledger(database=database_file.called(self._connection)) if self.found_nothing else read(self._connection)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what a block notes at its end, each statement once for all its rows: a third of the time for seven."""
        self._collected = {}
        try:
            yield
            self._flush()
        finally:
            self._collected = None

    def _execute(self, sql: str, values: Any) -> None:
        if self._collected is None:
            self._connection.execute(sql, values)
        else:
            self._collected.setdefault(sql, []).append(values)

    def _flush(self, before: str | None = None) -> None:
        """Write what was collected; if a statement is named, only if that is among it."""
        if self._collected and (before is None or before in self._collected):
            for sql, rows in self._collected.items():
                self._connection.executemany(sql, rows)
            self._collected.clear()

    def applied(
        self,
        migration: Migration,
        *,
        duration_ms: int | None,
        operation: str = "apply",
        before: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Note that a migration is applied, now or just before a time, and log the operation: "apply", "mark", …."""
        self._flush(_REMOVE)  # it may be of the same migration
        moment = self._later_than_all()
        if before is not None:
            moment = min(moment, datetime.fromisoformat(before) - timedelta(microseconds=1))
        self._execute(
            self._yoyo.mark,
            {"migration_hash": self._hash(migration.id), "migration_id": migration.id, "when": moment.isoformat()},
        )
        self.log(operation, migration.id, duration_ms=duration_ms, detail=detail)
        self._write(migration, moment.isoformat(), "applied", duration_ms)

    def not_applied(
        self, id: str, *, duration_ms: int | None = None, operation: str = "rollback", detail: str | None = None
    ) -> None:
        """Note that a migration is not applied any more, and log the operation: "rollback" or "unmark"."""
        self._flush(_WRITE)  # as above
        self._execute(self._yoyo.unmark, {"migration_hash": self._hash(id)})
        self.log(operation, id, duration_ms=duration_ms, detail=detail)
        self._execute(_REMOVE, (id,))

    def rename(self, ids: Mapping[str, str]) -> None:
        """Move what is noted of migrations to other ids, in yoyo's table too. When they were applied stays as it is."""
        # first to names that no file can have: one may get the name that another leaves
        for old, new in [*((id, f"{id}\n") for id in ids), *((f"{id}\n", new) for id, new in ids.items())]:
            self._connection.execute(_RENAME_YOYOS, (self._hash(new), new, old))
            self._connection.execute(_RENAME, (new, old))

    def note(self, migration: Migration, entry: Entry, *, operation: str, detail: str | None = None) -> None:
        """Note the texts that the files have now as those that were applied, and log the operation."""
        self.log(operation, migration.id, detail=detail)
        self._write(migration, entry.applied_at, "applied", entry.duration_ms)

    def begun(self, migration: Migration, state: str, entry: Entry | None) -> None:
        """Note that a script begins which cannot run in a transaction; `state` says which, as in `Ledger.unfinished`."""
        applied_at = self._later_than_all().isoformat() if entry is None else entry.applied_at
        runner = (os.uname().nodename, os.getpid())
        self._write(migration, applied_at, state, None if entry is None else entry.duration_ms, runner)

    def _write(
        self,
        migration: Migration,
        applied_at: str,
        state: str,
        duration_ms: int | None,
        runner: tuple[str | None, int | None] = (None, None),
    ) -> None:
        up, down = migration.up.text, migration.down.text if migration.down else None
        self._execute(
            _WRITE,
            (
                migration.id,
                applied_at,
                state,
                checksum(up),
                checksum(down),
                up,
                down,
                duration_ms,
                _version.__version__,
                *runner,
            ),
        )

    def log(
        self, operation: str, id: str | None = None, *, duration_ms: int | None = None, detail: str | None = None
    ) -> None:
        """Note in the history what was done, by whom, where and with which version; for a migration, in yoyo's log too."""
        at = datetime.now(UTC).replace(tzinfo=None).isoformat()
        who = self._who
        log_id = None
        if id is not None:
            log_id = self._backend.new_log_id()
            of_this = {
                "id": log_id,
                "migration_id": id,
                "migration_hash": self._hash(id),
                "operation": operation,
                "created_at_utc": at,
            }
            self._execute(self._yoyo.log, who | of_this)
        self._execute(
            _NOTE,
            (
                at,
                operation,
                id,
                duration_ms,
                detail,
                who["username"],
                who["hostname"],
                _version.__version__,
                log_id,
            ),
        )

    def _later_than_all(self) -> datetime:
        """Return the time, or just after the latest entry: the order of application survives a clock set back."""
        if self._latest is None:
            latest: Any = self._connection.execute("SELECT max(applied_at_utc) FROM _yoyo_migration").get
            self._latest = datetime.fromisoformat(latest or "1970-01-01")
        moment = datetime.now(UTC).replace(tzinfo=None)
        self._latest = max(moment, self._latest + timedelta(microseconds=1))
        return self._latest
