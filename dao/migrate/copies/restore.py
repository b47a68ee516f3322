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
from dao.engine import Connection, sqlite, transaction
from dao.engine.sqlite.files import not_opened
from dao.errors import DatabaseCorrupt, MigrationError, OperationalError, ReadOnlyDatabase
from dao.migrate.copies.files import (
    PAGES,
    NewFile,
    copied,
    finish,
    new_file,
    require_room,
    size_of,
)
from dao.migrate.copies.held import chunks, raw_file, write_all
from dao.migrate.copies.snapshot import checked, chosen, file_of, prune, save
from dao.migrate.database import Target, reopened, translated
from dao.migrate.ledger.writer import carry_over
from dao.migrate.schema.catalog import definitions, row_counts
from dao.migrate.values import SNAPSHOTS, Report, Snapshot

__all__ = ["Amend", "Restored", "restore", "row_changes"]

#: Writes what must survive a restore into the copy (the first connection), from the database that is replaced: the
#: second one, or None if there is none that can be read.
Amend = Callable[[Connection, Connection | None], object]

_BESIDE = ("-wal", "-journal", "-shm")


@attrs.frozen(kw_only=True)
class Restored:
    """What a restore did: the file it restored, and what it replaced.

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
    report: Report | None = None,
) -> Restored:
    """Replace a database by a snapshot: the one with this id (its beginning will do) or label, at this path, or the newest.

    A text with a separator in it, or that names a file, is a path, and the snapshots beside the database do not matter then.

    The snapshot is verified, and never changed. A snapshot of the database as it is comes first; once all is done, of
    those that restores took all but the newest `keep` are removed, but not the restored one; each is reported as `Removed`. The ledger becomes the snapshot's, too, but not the history: that goes on,
    and the restore is noted in it. What else must survive, `amend` writes into the copy, in a transaction that is open on
    it. All of it comes into effect at once.

    Open connections see the restored rows with their next statement. Those that are reading go on with the old ones; in
    rollback-journal mode the restore waits for them.

    A database that does not exist is made, with the owner and the permissions of the snapshot. One too damaged to be opened as a database is replaced as a file, so that
    programs that have it open must open it anew; its bytes are kept in a file named `.damaged`.

    Raises:
        MigrationError: There is no such snapshot, or the caller's connection is in the middle of a transaction.
        DatabaseCorrupt: The snapshot is damaged. The database is as before.
        DatabaseBusy: Another connection kept the lock.
        DiskFull: There is no room for the copies. The database is as before.
        CommitUnknown: The commit met an I/O error: the database is as before or restored.
        OperationalError: The folder cannot be written to.
    """
    path = file_of(target)
    if keep < 1:
        raise ValueError(f"keep={keep}: a number from 1, since what is replaced is kept, too")
    if isinstance(target, Connection):
        if target.in_transaction:
            raise MigrationError("the connection is in the middle of a transaction: commit or roll back first")
    elif (mode := url.parse(target).mode) == "ro":
        raise ReadOnlyDatabase(f"{path} cannot be restored by a URL with mode=ro: leave that out")
    elif mode == "rw" and not os.path.exists(path):
        raise not_opened(path, mode)
    source = chosen(target, id).path
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise MigrationError(f"{path} cannot be restored from itself: name a snapshot (`dao snapshots` lists them)")
    with contextlib.ExitStack() as until_done:
        with checked(source) as snapshot:
            there = os.path.getsize(path) if os.path.exists(path) else 0
            # the copy, as much again in the WAL, and what is replaced
            require_room(path, 2 * size_of(snapshot) + there, f"restoring {path}")
            like = path if os.path.exists(path) else os.path.realpath(source)
            new = until_done.enter_context(new_file(path, like=like))
            copy = until_done.enter_context(contextlib.closing(copied(snapshot, new)))
        with translated(copy, path):
            replaced, damaged = _replace(target, copy, new, _amending(source, amend), report)
    prune(target, keep, "restore", spare=source, report=report)
    return Restored(database=path, source=source, replaced=replaced, damaged=damaged)


def row_changes(target: Target, path: str | os.PathLike[str]) -> dict[str, tuple[int | None, int | None]]:
    """Return for each table how many rows the database and the snapshot have, where that differs; None: no such table.

    A database that does not exist, or cannot be read, has no tables.

    Raises:
        Error: As `verify`.
    """
    with checked(path) as snapshot:
        then = row_counts(snapshot)
    now: dict[str, int] = {}
    if os.path.exists(file_of(target)):
        with contextlib.suppress(DatabaseCorrupt), reopened(target) as live:
            now = row_counts(live)
    tables = sorted(now.keys() | then.keys())
    return {table: (now.get(table), then.get(table)) for table in tables if now.get(table) != then.get(table)}


def _amending(source: Path, further: Amend | None) -> Amend:
    def amend(copy: Connection, live: Connection | None) -> None:
        carry_over(copy, live, source=source.name)
        if further is not None:
            further(copy, live)

    return amend


def _replace(
    target: Target, copy: Connection, new: NewFile, amend: Amend, report: Report | None
) -> tuple[Snapshot | None, Path | None]:
    """Put the copy in the place of the database; return the snapshot of what it was, or a copy of the damaged file."""
    path = file_of(target)
    is_there = os.path.exists(path)
    if is_there:
        with reopened(target, report) as live:
            if _is_database(live):
                return _overwrite(live, target, copy, new.id, amend)
    return None, _exchange(path, copy, new, amend, is_there=is_there)


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


def _overwrite(
    live: Connection, target: Target, copy: Connection, id: str, amend: Amend
) -> tuple[Snapshot | None, Path | None]:
    """Replace all that the live file holds in one transaction, under a lock that begins before it is saved."""
    live.pragma("synchronous", "full")
    if live.pragma("journal_mode") != "wal":
        # The lock outlives the transaction: the backup can begin only outside of one. Set before, the mode would keep a
        # shared lock while it waits, and whoever is about to write would wait for us.
        live.execute("BEGIN EXCLUSIVE")
        live.pragma("locking_mode", "exclusive")
        live.execute("ROLLBACK")
        saved = _save(live, target, copy, id, amend)
        with live.backup("main", copy, "main") as backup:
            _commit(backup, live)
        return saved
    if copy.pragma("page_size") != live.pragma("page_size"):
        # in WAL mode a database keeps its page size: the copy takes it over
        copy.pragma("page_size", live.pragma("page_size"))
        copy.execute("VACUUM")
    with live.backup("main", copy, "main") as backup:
        backup.step(0)  # copies nothing, and takes the lock
        with reopened(target) as reader:
            saved = _save(reader, target, copy, id, amend)
        _commit(backup, live)
    live.set_busy_handler(None)
    with contextlib.suppress(apsw.Error):  # somebody reads: the WAL stays as long as the database for a while
        live.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return saved


def _commit(backup: apsw.Backup, live: Connection) -> None:
    try:
        finish(backup)
    except apsw.IOError as error:
        # it commits after the last pages
        if backup.remaining <= PAGES and (unknown := sqlite.unknown_outcome(error, live)):
            raise unknown from error
        raise


def _save(
    reader: Connection, target: Target, copy: Connection, id: str, amend: Amend
) -> tuple[Snapshot | None, Path | None]:
    """Take a snapshot of what will be replaced, or keep the bytes of the file if it is damaged; amend the copy."""
    path = file_of(target)
    try:
        holds_any = bool(definitions(reader))
        replaced = save(reader, path, kind="restore") if holds_any else None
    except (DatabaseCorrupt, apsw.CorruptError, apsw.NotADBError):
        with transaction(copy):
            amend(copy, None)
        _keep_bytes(path, id)
        return None, Path(f"{path}.{id}.damaged")
    with transaction(copy):
        amend(copy, reader if holds_any else None)
    return replaced, None


# ---------------------------------------------------------------- as a file


def _exchange(path: str, copy: Connection, new: NewFile, amend: Amend, *, is_there: bool) -> Path | None:
    """Put the copy in the place of a file that is missing or no database; return a copy of what was there."""
    with transaction(copy):
        amend(copy, None)
    copy.close()
    if not is_there and os.path.exists(path):
        raise MigrationError(f"{path} did not exist and has just been made: nothing was changed. Repeat")
    _keep_bytes(path, new.id)
    for suffix in _BESIDE:
        # they belong to the file that was there: SQLite would replay them into the new one
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.basename(path) + suffix, dir_fd=new.folder)
    new.become(path)
    return Path(f"{path}.{new.id}.damaged") if is_there else None


def _keep_bytes(path: str, id: str) -> None:
    """Copy a file that is no intact database, and what belongs to it, byte by byte, for this user alone."""
    for suffix in ("-wal", "-journal", ""):
        if not os.path.exists(path + suffix):
            continue
        try:
            with new_file(path) as new, raw_file(path + suffix) as file:
                for place, chunk in chunks(file):
                    write_all(new.file, chunk, place)
                new.become(f"{path}.{id}.damaged{suffix}")
        except (apsw.Error, OperationalError) as error:
            raise OperationalError(
                f"{path} is damaged, and its bytes could not be kept ({error}); nothing was changed. Free some space, or "
                "move the file away yourself, and repeat"
            ) from error
