"""Writes the ledger: yoyo's tables through yoyo's own backend, and beside them ours, with the texts and the history."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from dao import _version
from dao.engine import Connection, sqlite
from dao.logs import logger
from dao.migrate.database import execute, is_on_server
from dao.migrate.ledger import sets
from dao.migrate.ledger.backend import LedgerBackend, Marked
from dao.migrate.ledger.entries import Entry, Ledger, read
from dao.migrate.ledger.tables import ADD_SETS, SET, statements
from dao.migrate.schema.catalog import columns
from dao.migrate.schema.names import OURS
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import id_of

__all__ = ["Writer", "carry_over"]


_REMOVE = "DELETE FROM _dao_migration WHERE migration_id = $1"
_REMOVE_YOYOS = "DELETE FROM _yoyo_migration WHERE migration_hash = $1"
_RENAME_YOYOS = "UPDATE _yoyo_migration SET migration_hash = $1, migration_id = $2 WHERE migration_id = $3"
_RENAME = "UPDATE _dao_migration SET migration_id = $1 WHERE migration_id = $2"
_NOTE_SET = f"UPDATE _dao_migration SET {SET} = $1 WHERE migration_id = $2"
_NOTE = f"""
INSERT INTO _dao_history (at_utc, operation, migration_id, duration_ms, detail, username, hostname, tool_version,
                          yoyo_log_id, {SET})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


def backend_within(connection: Connection) -> LedgerBackend:
    """Return yoyo's backend for a connection; it takes part in the transaction that is open, and never ends it."""
    if is_on_server(connection):
        from dao.migrate.ledger.yoyo_postgresql import PsycopgBackend as Backend  # noqa: PLC0415 - one of the two
    else:
        from dao.migrate.ledger.yoyo import ApswBackend as Backend  # noqa: PLC0415 - one of the two
    return Backend.within(connection)


class Writer:
    """Writes the ledger, inside the transaction that is open on the connection. Creates the tables if need be."""

    def __init__(self, connection: Connection, migrations: Sequence[Migration] = ()) -> None:
        """Begin to write. By `migrations`, the files' all, rows of before there were sets get theirs.

        Raises:
            DatabaseBusy: A living `yoyo` process holds its own lock.
            MigrationError: A newer yoyo wrote the ledger.
        """
        self._connection = connection
        self._statements = statements(connection)
        self._backend = backend_within(connection)
        self._backend.ensure_ledger()
        if self._backend.has_table(self._backend.lock_table):
            self._backend.respect_lock()
        if not all(map(self._backend.has_table, OURS)):
            execute(connection, self._statements.create)
        #: The ledger as it was before anything was written, but that each id is spelled in one way.
        self.before = read(connection)
        if not self.before.has_sets:
            execute(connection, ADD_SETS)
        if self.before.respelled:
            self.rename(self.before.respelled)
            self.before = read(connection)  # of an id in two spellings there was a row for each
        #: The sets of what is applied and of the files, before anything was written.
        self.sets = sets.of(migrations, self.before)
        self._take_over()
        self._latest = max(filter(None, (entry.moment for entry in self.before.entries)), default=None)
        self._entries = {entry.id: entry for entry in self.before.entries}

    def _take_over(self) -> None:
        """Note the sets of rows of before there were any, as far as they can be told."""
        by_id, before = self.sets.by_id, self.before
        old = {one.id for one in before.entries if one.checksum is not None and one.set is None}
        old |= before.unfinished.keys() - before.begun_in.keys()
        for id in sorted(id for id in old if by_id[id] is not None):
            execute(self._connection, _NOTE_SET, (by_id[id], id))
        entries = [attrs.evolve(one, set=by_id[one.id]) if one.id in old else one for one in before.entries]
        begun_in = {id: name for id in before.unfinished if (name := by_id[id]) is not None}
        self.before = attrs.evolve(before, entries=tuple(entries), begun_in=begun_in)

    @property
    def after(self) -> Ledger:
        """The ledger by now, if migrations were only noted as applied, or as not applied."""
        return attrs.evolve(self.before, entries=tuple(self._entries.values()))

    def applied(
        self,
        migration: Migration,
        *,
        duration_ms: int | None,
        operation: str = "apply",
        before: datetime | None = None,
        detail: str | None = None,
    ) -> None:
        """Note that a migration is applied, now or just before a time, and log the operation: "apply", "mark", …."""
        moment = self._later_than_all()
        if before is not None:
            moment = min(moment, before - timedelta(microseconds=1))
        self._backend.mark_at(Marked(migration.id), moment)
        self.log(operation, migration.id, duration_ms=duration_ms, detail=detail)
        self._entries[migration.id] = entry = Entry.of(migration, moment.isoformat(), duration_ms)
        self._write(entry)

    def mark(
        self, migration: Migration, files: Sequence[Migration], *, operation: str, detail: str | None = None
    ) -> None:
        """Note that a migration is applied, at its place in its set: a rollback is not to begin with it.

        And before those of other sets that depend on it, which else have nothing to do with its place.
        """
        of = self.sets.files
        later = {
            one.id
            for one in files[files.index(migration) + 1 :]
            if of[one.id] == of[migration.id] or migration.id in map(id_of, one.depends)
        }
        moments = (entry.moment for entry in self.before.entries if entry.id in later)
        before = min(filter(None, moments), default=None)
        self.applied(migration, duration_ms=None, operation=operation, before=before, detail=detail)

    def not_applied(
        self, id: str, *, duration_ms: int | None = None, operation: str = "rollback", detail: str | None = None
    ) -> None:
        """Note that a migration is not applied any more, and log the operation: "rollback" or "unmark"."""
        self._backend.unmark_one(Marked(id), log=False)
        self.log(operation, id, duration_ms=duration_ms, detail=detail)
        execute(self._connection, _REMOVE, (id,))
        self._entries.pop(id, None)

    def rename(self, ids: Mapping[str, str]) -> None:
        """Move what is noted of migrations to other ids, in yoyo's table too. When they were applied stays as it is."""
        # first to names that no file can have: one may get the name that another leaves
        for old, new in [*((id, f"{id}\n") for id in ids), *((f"{id}\n", new) for id, new in ids.items())]:
            execute(self._connection, _REMOVE_YOYOS, (Marked(new).hash,))
            execute(self._connection, _REMOVE, (new,))
            execute(self._connection, _RENAME_YOYOS, (Marked(new).hash, new, old))
            execute(self._connection, _RENAME, (new, old))

    def note(self, migration: Migration, entry: Entry, *, operation: str, detail: str | None = None) -> None:
        """Note the texts that the files have now as those that were applied, and log the operation."""
        self.log(operation, migration.id, detail=detail)
        self._write(Entry.of(migration, entry.applied_at, entry.duration_ms))

    def begun(self, migration: Migration, state: str) -> None:
        """Note that a script begins outside of a transaction; `state` says which way, as in `Ledger.unfinished`."""
        entry = self.before.get(migration.id)
        applied_at = self._later_than_all().isoformat() if entry is None else entry.applied_at
        now = Entry.of(migration, applied_at, None if entry is None else entry.duration_ms)
        self._write(now, state, os.uname().nodename, os.getpid())

    def log(
        self, operation: str, id: str | None = None, *, duration_ms: int | None = None, detail: str | None = None
    ) -> None:
        """Note in the history what was done, by whom, where and with which version; in yoyo's log for a migration."""
        if id is None:
            noted = self._backend.get_log_data(operation=operation) | {"id": None}
        else:
            noted = self._backend.log_migration(Marked(id), operation)
        at, who, where = noted["created_at_utc"].isoformat(), noted["username"], noted["hostname"]
        its = None if id is None else self._set_of(id)
        values = (at, operation, id, duration_ms, detail, who, where, _version.__version__, noted["id"], its)
        execute(self._connection, _NOTE, values)

    def _write(self, entry: Entry, state: str = "applied", host: str | None = None, pid: int | None = None) -> None:
        id, applied_at, *texts, duration, _ = attrs.astuple(entry)
        values = (id, applied_at, state, *texts, duration, _version.__version__, host, pid, self._set_of(id))
        execute(self._connection, self._statements.write, values)

    def _set_of(self, id: str) -> str | None:
        """Return the set of a migration as the ledger calls it, by its file, or by what was noted."""
        return self.sets.files.get(id) or self.sets.by_id.get(id)

    def _later_than_all(self) -> datetime:
        """Return the time, or just after the latest entry: the order of application survives a clock set back."""
        moment = datetime.now(UTC).replace(tzinfo=None)
        if self._latest is not None:
            moment = max(moment, self._latest + timedelta(microseconds=1))
        self._latest = moment
        return moment


def carry_over(copy: sqlite.Connection, live: sqlite.Connection | None, *, source: str) -> None:
    """Bring the history of a database that is being replaced into its successor, in the transaction open there.

    Notes the restore, too. `live` is None if it cannot be read: then its history is lost with it.
    """
    writer = Writer(copy)
    if live is not None:
        _copy_missing(copy, live, "_yoyo_log", key="id")
        _copy_missing(
            copy, live, "_dao_history", key="at_utc, operation, migration_id, hostname, yoyo_log_id", but="id"
        )
    writer.log("restore", detail=f"from {source}")


def _copy_missing(
    copy: sqlite.Connection, live: sqlite.Connection, table: str, *, key: str, but: str | None = None
) -> None:
    """Copy the rows of a table that the other one lacks, by a key; without the column `but`, which is numbered anew."""
    names = [column.name for column in columns(copy, table)]
    theirs = [column.name for column in columns(live, table)]
    if SET not in theirs:
        names = [name for name in names if name != SET]
    if not set(names) <= set(theirs):
        if theirs:
            logger("dao.migrate.ledger").warning(
                "the history in %s is not carried over, for somebody has changed that table", table
            )
        return
    kept = [name for name in names if name != but]
    known = set(copy.execute(f"SELECT {key} FROM {table}"))
    width = len(key.split(","))
    for row in live.execute(f"SELECT {key}, {', '.join(kept)} FROM {table} ORDER BY rowid"):
        if row[:width] not in known:
            marks = ", ".join("?" * len(kept))
            copy.execute(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({marks})", row[width:])
