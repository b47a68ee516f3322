"""Copies of a database, each verified and in a file of its own beside it: taken, listed, checked, removed.

A snapshot is named `DATABASE.ID.VERSION.CHECKSUM.snapshot`: when it was taken, the last migration that was applied, and
the first 16 digits of the file's SHA-256, since `PRAGMA integrity_check` does not notice a changed letter in a row.
While it is made it ends in `.partial`, so that a crash leaves nothing that could be taken for one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import apsw
import attrs

from dao.engine import Connection
from dao.errors import DatabaseCorrupt, MigrationError
from dao.migrate import ledger
from dao.migrate.checks import integrity_problems
from dao.migrate.copies import (
    ID,
    checksum,
    compare,
    copied,
    database_of,
    moment_of,
    new_file,
    open_file,
    require_room,
    size_of,
    sync_folder,
)
from dao.migrate.events import Report
from dao.migrate.target import Target

log = logging.getLogger("dao.migrate")

__all__ = ["KEEP", "Snapshot", "checked", "find", "prune", "save", "snapshots", "take_snapshot", "verify"]

#: How many snapshots of a database are kept unless said otherwise.
KEEP = 3

_NAME = re.compile(rf"({ID})\.(.+)\.([0-9a-f]{{16}})\.snapshot")
_NAME_LENGTH = 255  # bytes
_VERSION_LENGTH = 100
_OTHERWISE = ", or go on without one (--no-snapshot, DATABASE_SNAPSHOTS=0)"


@attrs.frozen(kw_only=True)
class Snapshot:
    """A complete snapshot. `version` is the last applied migration as far as a file's name can hold it, or "empty"."""

    id: str
    path: Path
    taken_at: datetime
    version: str
    size: int


def take_snapshot(
    target: Target, *, keep: int | None = None, version: str | None = None, report: Report | None = None
) -> Snapshot:
    """Copy a database into a new file beside it, verify the copy, and remove older snapshots beyond `keep` (3 if None).

    Reads the database through a connection of its own, in one read transaction: other connections go on meanwhile, and
    what they have not committed is not in the copy, even if the caller's own connection is in the middle of a write.
    The copy is complete, on disk and compared with the database before it gets its name; older ones go after that.
    `version` replaces the last applied migration in the name.

    Raises:
        MigrationError: The database is in memory, does not exist, holds nothing, or cannot be verified.
        DiskFull: There is no room for it beside the database.
        DatabaseBusy: Another connection kept the database to itself.
        DatabaseCorrupt: The database is damaged.
        OperationalError: The folder cannot be written to.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep={keep}: a number from 1, since the new snapshot is one")
    path = database_of(target)
    if not os.path.exists(path):
        raise MigrationError(f"{path} does not exist: there is nothing to take a snapshot of. `dao migrate` creates it")
    with open_file(target, report) as reader:
        snapshot = save(reader, path, version)
    prune(target, KEEP if keep is None else keep)
    return snapshot


def save(reader: Connection, path: str, version: str | None = None) -> Snapshot:
    """Write what a connection outside of a transaction sees into a new snapshot of the database at `path`.

    Raises:
        Error: As `take`.
    """
    reader.execute("BEGIN")
    try:
        if not reader.execute("SELECT count(*) FROM sqlite_schema").get:
            raise MigrationError(f"{path} holds nothing: there is nothing to take a snapshot of")
        require_room(path, size_of(reader), f"a snapshot of {path}", otherwise=_OTHERWISE)
        version = version or _version(reader)
        # the clock may have been set back: the latest is still the newest
        latest = next((snapshot.id for snapshot in _of(path)), None)
        with new_file(path, latest) as (id, partial, file):
            copied(reader, partial).close()
            compare(reader, path, partial)
            os.fsync(file)
            sum_ = checksum(partial)
            room = _NAME_LENGTH - len(os.fsencode(f"{os.path.basename(path)}.{id}..{sum_}.snapshot"))
            complete = f"{path}.{id}.{_fitting(version, room)}.{sum_}.snapshot"
            os.rename(partial, complete)
            sync_folder(path)
            size = os.fstat(file).st_size
    finally:
        if reader.in_transaction:
            reader.execute("ROLLBACK")
    return Snapshot(id=id, path=Path(complete), taken_at=moment_of(id), version=_fitting(version, room), size=size)


def snapshots(target: Target) -> list[Snapshot]:
    """Return the complete snapshots of a database, the newest first. The database itself need not exist.

    Raises:
        MigrationError: The database is in memory.
    """
    return _of(database_of(target))


def find(target: Target, id: str | None = None) -> Snapshot:
    """Return the snapshot with this id or file name, or the only one whose id begins like this; the newest if None.

    Raises:
        MigrationError: There is none, or more than one.
    """
    path = database_of(target)
    there = snapshots(target)
    if not there:
        raise MigrationError(f"{path} has no snapshots: `dao snapshot` takes one")
    if id is None:
        return there[0]
    # what the commands print is the path
    name = os.path.basename(id)
    matching = [snapshot for snapshot in there if snapshot.path.name == name or (id and snapshot.id.startswith(id))]
    if len(matching) != 1:
        ids = ", ".join(snapshot.id for snapshot in matching or there)
        what = "more than one snapshot" if matching else "no snapshot"
        raise MigrationError(f"{path} has {what} whose id begins with {id!r}: name one of {ids}")
    return matching[0]


def prune(target: Target, keep: int, *, spare: Path | None = None) -> list[Snapshot]:
    """Remove all but the newest `keep` snapshots of a database and return those that went; `spare` stays in any case.

    If one cannot be removed, that is logged, for whatever they were to make room for is done.
    """
    if keep < 0:
        raise ValueError(f"keep={keep}: a number from 0")
    gone: list[Snapshot] = []
    try:
        for snapshot in snapshots(target)[keep:]:
            if snapshot.path != spare:
                snapshot.path.unlink(missing_ok=True)
                gone.append(snapshot)
    except OSError as error:
        log.warning("old snapshots stay, for one cannot be removed (%s): check the permissions of the folder", error)
    return gone


def verify(path: str | os.PathLike[str]) -> None:
    """Check that a file is an intact snapshot: by the checksum in its name, if it has one, and `PRAGMA integrity_check`.

    Reads all of the file and writes nothing.

    Raises:
        DatabaseCorrupt: It is empty, damaged, cut short or no SQLite database.
        MigrationError: It does not exist, or is a database that no migrations were applied to.
    """
    with checked(path):
        pass


@contextlib.contextmanager
def checked(path: str | os.PathLike[str]) -> Iterator[Connection]:
    """Check a snapshot as `verify` does and lend a connection that can only read it.

    Raises:
        Error: As `verify`.
    """
    path = os.path.abspath(path)
    if not os.path.exists(path):
        raise MigrationError(f"the snapshot {path} does not exist; `dao snapshots` lists those there are")
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        # what is in there would be passed over, and a plain read of a live file loses this process's locks on it
        raise MigrationError(
            f"{path} is a database in use, not a snapshot: the file {path}-wal belongs to it. `dao snapshot --database` "
            "takes one of it"
        )
    if os.path.getsize(path) == 0:
        raise DatabaseCorrupt(f"the snapshot {path} is empty: use another one")
    named = re.search(r"\.([0-9a-f]{16})\.snapshot$", os.path.basename(path))
    if named and checksum(path) != named[1]:
        raise DatabaseCorrupt(f"the snapshot {path} is damaged: it is not the file that was written. Use another one")
    # immutable: no lock is taken and no file made beside it
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{quote(path)}?immutable=1", flags=flags)
    try:
        try:
            if os.path.getsize(path) < size_of(connection):
                raise apsw.CorruptError("the end of the file is missing")
            integrity_problems(connection)
            is_ours = named is not None or bool(ledger.read(connection).entries)
        except (apsw.Error, DatabaseCorrupt) as error:
            reason = str(error).partition("\n")[2].strip() if isinstance(error, DatabaseCorrupt) else str(error)
            raise DatabaseCorrupt(
                f"the snapshot {path} is damaged or no SQLite database ({reason}): use another one"
            ) from error
        if not is_ours:
            raise MigrationError(f"{path} is not a snapshot: a database that no migrations were applied to")
        yield connection
    finally:
        connection.close()


def _of(path: str) -> list[Snapshot]:
    folder = Path(path).parent
    if not folder.is_dir():
        return []
    found = (_parsed(entry, path) for entry in folder.iterdir())
    return sorted((snapshot for snapshot in found if snapshot), key=lambda snapshot: snapshot.id, reverse=True)


def _parsed(file: Path, path: str) -> Snapshot | None:
    """Return the snapshot of a database that a file is, by its name."""
    beginning = f"{os.path.basename(path)}."
    match = _NAME.fullmatch(file.name.removeprefix(beginning)) if file.name.startswith(beginning) else None
    if match is None:
        return None
    try:
        return Snapshot(
            id=match[1], path=file, taken_at=moment_of(match[1]), version=match[2], size=file.stat().st_size
        )
    except (ValueError, FileNotFoundError):  # no time; or just removed
        return None


def _version(reader: Connection) -> str:
    try:
        return next(reversed(ledger.read(reader).ids), "empty")
    except MigrationError:  # a ledger of old: nobody's reason to go without a snapshot
        return "unknown"


def _fitting(version: str, room: int) -> str:
    """Return a version as a part of a file's name: no separators, and no longer than there is room in bytes."""
    room = max(1, min(_VERSION_LENGTH, room))
    return re.sub(r"[^\w-]+", "_", version).encode()[:room].decode(errors="ignore") or "_"
