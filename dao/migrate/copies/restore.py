"""Putting a snapshot in the place of a database: in place where that can be, so that open connections see it.

The snapshot is copied first; what must survive the restore is written into the copy; the copy then replaces everything
in one transaction of SQLite's own backup. So a crash leaves the old database or the new one. The lock is held from
before the old database is saved until it is replaced: nothing that was committed can fall between the two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import apsw
import attrs

from dao import url
from dao.engine import sqlite, transaction
from dao.engine.sqlite import Connection
from dao.engine.sqlite.database_file import not_opened
from dao.errors import DatabaseCorrupt, InvalidValue, MigrationError, OperationalError, ReadOnlyDatabase
from dao.migrate.copies.copying import PAGES, copied, finish, size_of
from dao.migrate.copies.descriptors import chunks, raw_file, write_all
from dao.migrate.copies.new_files import NewFile, new_file, require_room
from dao.migrate.copies.snapshot import checked, file_of, find, prune, save
from dao.migrate.database import Target, name_of, translated
from dao.migrate.database.sqlite import lock_of, reopened
from dao.migrate.events import Report
from dao.migrate.ledger.writer import carry_over
from dao.migrate.listening import listened
from dao.migrate.schema.catalog import definitions
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.values import SNAPSHOTS, Snapshot

__all__ = ["Amend", "Restored", "restore"]

#: Writes what must survive a restore into the copy (the first connection), from the database that is replaced: the
#: second one, or None if there is none that can be read.
Amend = Callable[[Connection, Connection | None], object]


@attrs.frozen(kw_only=True)
class Restored:
    """A restore that was done: the snapshot, and the database that it replaced.

    `replaced` is the snapshot of the database as it was, None if that held nothing or could not be read. Then `damaged`
    is a copy of its file as it was, if there was one.
    """

    database: str
    source: Path
    replaced: Snapshot | None = None
    damaged: Path | None = None


def restore(
    target: Target,
    id: str | os.PathLike[str] | None = None,
    *,
    keep: int = SNAPSHOTS,
    amend: Amend | None = None,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> Restored:
    """Replace a database by a snapshot: the one at this path, with this id (or its beginning) or label, or the newest.

    A text with a separator in it, or that names a file, is a path, and the snapshots beside the database do not
    matter then.

    The snapshot is verified, and never changed. A snapshot of the database as it is comes first; once all is done, of
    those that restores took all but the newest `keep` are removed, but not the restored one; each is reported as
    `Removed`. The ledger becomes the snapshot's, too, but not the history: that goes on, and the restore is noted in
    it. If more must survive, `amend` writes it into the copy, in a transaction that is open on it. All of it comes
    into effect at once.

    Open connections see the restored rows with their next statement. Those that are reading go on with the old ones; in
    rollback-journal mode the restore waits for them.

    A database that does not exist is made, with the owner and the permissions of the snapshot. One too damaged to be
    opened as a database is replaced as a file, so that programs that have it open must open it anew; its bytes are
    kept in a file named `.damaged`.

    `prepare` is as in `apply`.

    Raises:
        InvalidValue: `keep` is below 1.
        MigrationError: There is no such snapshot, or the caller's connection is in the middle of a transaction.
        DatabaseCorrupt: The snapshot is damaged. The database is as before.
        DatabaseBusy: Another migrator or connection kept its lock. `lock_timeout` is as in `apply`.
        DiskFull: There is no room for the copies. The database is as before.
        CommitUnknown: The commit met an I/O error: the database is as before or restored.
        OperationalError: The folder cannot be written to.
    """
    path = file_of(target)
    report = listened(report, "dao.migrate.copies", name_of(target))
    if keep < 1:
        raise InvalidValue(f"keep={keep}: a number from 1, since what is replaced is kept, too")
    if isinstance(target, Connection):
        if target.in_transaction:
            raise MigrationError("the connection is in the middle of a transaction: commit or roll back first")
    elif (mode := url.parse_file(target).mode) == "ro":  # type: ignore[arg-type] # a server has no path
        raise ReadOnlyDatabase(f"{path} cannot be restored by a URL with mode=ro: leave that out")
    elif mode == "rw" and not os.path.exists(path):
        raise not_opened(path, mode)
    source = find(target, id).path
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise MigrationError(f"{path} cannot be restored from itself: name a snapshot (`dao snapshots` lists them)")
    with preparing(prepare), contextlib.ExitStack() as until_done:
        until_done.enter_context(lock_of(target, lock_timeout, report)).take()
        exists = os.path.exists(path)
        with checked(source) as snapshot:
            # the copy, as much again in the WAL, and what is replaced
            needed = 2 * size_of(snapshot) + (os.path.getsize(path) if exists else 0)
            require_room(path, needed, f"restoring {path}")
            new = until_done.enter_context(new_file(path, like=path if exists else os.path.realpath(source)))
            copy = until_done.enter_context(contextlib.closing(copied(snapshot, new)))
        restoring = _Restoring(target, path, source, new, copy, amend)
        with translated(copy, path):
            done = restoring.replace(report)
    prune(target, keep, "restore", spare=source, report=report)
    return done


def _is_database(live: Connection) -> bool:
    """Return whether SQLite can begin to read a file, whatever the rest of it holds."""
    # by itself it does not even lock a file that was cut short
    live.pragma("writable_schema", True)
    try:
        live.pragma("journal_mode")
        definitions(live)
    except apsw.NotADBError:
        return False
    except apsw.Error as error:
        if not isinstance(error, apsw.CorruptError | apsw.SQLError):
            raise
    return True


@attrs.frozen
class _Restoring:
    """A restore under way: of the snapshot `source`, whose copy it is."""

    target: Target
    path: str
    source: Path
    new: NewFile
    copy: Connection
    amend: Amend | None

    def replace(self, report: Report | None) -> Restored:
        """Put the copy in the place of the database."""
        if is_there := os.path.exists(self.path):
            with reopened(self.target, report) as live:
                if _is_database(live):
                    return self._overwrite(live)
        return self._exchange(is_there=is_there)

    def _overwrite(self, live: Connection) -> Restored:
        """Replace all that the live file holds in one transaction, under a lock that begins before it is saved."""
        live.pragma("synchronous", "full")
        if live.pragma("journal_mode") != "wal":
            # The lock outlives the transaction: the backup can begin only outside of one. Set before, the mode would
            # keep a shared lock while it waits, and whoever is about to write would wait for us.
            live.execute("BEGIN EXCLUSIVE")
            live.pragma("locking_mode", "exclusive")
            live.execute("ROLLBACK")
            saved = self._save(live)
            with live.backup("main", self.copy, "main") as backup:
                _commit(backup, live)
            return saved
        if self.copy.pragma("page_size") != live.pragma("page_size"):
            # in WAL mode a database keeps its page size: the copy takes it over
            self.copy.pragma("page_size", live.pragma("page_size"))
            self.copy.execute("VACUUM")
        with live.backup("main", self.copy, "main") as backup:
            backup.step(0)  # copies nothing, and takes the lock
            with reopened(self.target) as reader:
                saved = self._save(reader)
            _commit(backup, live)
        live.set_busy_handler(None)
        if live.pragma("wal_autocheckpoint"):  # else another process does it, and nobody but that one may
            with contextlib.suppress(apsw.Error):  # somebody reads: the WAL stays as long as the database for a while
                live.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return saved

    def _save(self, live: Connection) -> Restored:
        """Take a snapshot of what will be replaced, or keep the bytes of the file if it is damaged; amend the copy."""
        try:
            holds_any = bool(definitions(live))
            replaced = save(live, self.path, kind="restore") if holds_any else None
        except (DatabaseCorrupt, apsw.CorruptError, apsw.NotADBError):
            self._amend(None)
            return Restored(database=self.path, source=self.source, damaged=self._keep_bytes())
        self._amend(live if holds_any else None)
        return Restored(database=self.path, source=self.source, replaced=replaced)

    def _exchange(self, *, is_there: bool) -> Restored:
        """Put the copy in the place of a file that is missing or no database."""
        self._amend(None)
        self.copy.close()
        if not is_there and os.path.exists(self.path):
            raise MigrationError(f"{self.path} did not exist and has just been made: nothing was changed. Repeat")
        kept = self._keep_bytes()
        for suffix in ("-wal", "-journal", "-shm"):
            # they belong to the file that was there: SQLite would replay them into the new one
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.basename(self.path) + suffix, dir_fd=self.new.folder)
        self.new.become(self.path)
        return Restored(database=self.path, source=self.source, damaged=kept if is_there else None)

    def _amend(self, live: Connection | None) -> None:
        """Write into the copy what must survive."""
        with transaction(self.copy):
            carry_over(self.copy, live, source=self.source.name)
            if self.amend is not None:
                self.amend(self.copy, live)

    def _keep_bytes(self) -> Path:
        """Copy a file that is no intact database, and what belongs to it, byte by byte, for this user alone."""
        kept = f"{self.path}.{self.new.id}.damaged"
        for suffix in ("-wal", "-journal", ""):
            if not os.path.exists(self.path + suffix):
                continue
            try:
                with new_file(self.path) as new, raw_file(self.path + suffix) as file:
                    for place, chunk in chunks(file):
                        write_all(new.file, chunk, place)
                    new.become(kept + suffix)
            except (apsw.Error, OperationalError) as error:
                raise OperationalError(
                    f"{self.path} is damaged, and its bytes could not be kept ({error}); nothing was changed. Free "
                    "some space, or move the file away yourself, and repeat"
                ) from error
        return Path(kept)


def _commit(backup: apsw.Backup, live: Connection) -> None:
    try:
        finish(backup)
    except apsw.IOError as error:
        # it commits after the last pages
        if backup.remaining <= PAGES and (unknown := sqlite.unknown_outcome(error, live)):
            raise unknown from error
        raise
