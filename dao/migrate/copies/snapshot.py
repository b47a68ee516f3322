"""Copies of a database, each verified and in a file of its own beside it: taken, listed, checked, removed.

A snapshot is named `DATABASE.ID.VERSION[.KIND].CHECKSUM.snapshot`: when it was taken, the last migration that was
applied, and the first 16 digits of the file's SHA-256, since `PRAGMA integrity_check` does not notice a changed
letter in a row. KIND is `run` for one that a run took, `restore` for what a restore replaced: of these the newest are
kept, each kind by itself. One that was asked for has none, or `label-LABEL`, and stays. Version 0.1 knew no kinds:
what it took stays, too. While a snapshot is made its name ends in `.partial`, so that a crash leaves nothing that
could be taken for one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from dao import url
from dao.engine.sqlite import Connection, database_file
from dao.errors import CommitUnknown, DatabaseCorrupt, InvalidValue, MigrationError, OperationalError
from dao.logs import logger
from dao.migrate.copies.copying import compare, copied, size_of
from dao.migrate.copies.descriptors import Held, checksum, raw_file
from dao.migrate.copies.new_files import ID, file_errors, moment_of, new_file, require_room
from dao.migrate.database import Target, at_one_moment, existing, exists, name_of, path_of
from dao.migrate.database.sqlite import reopened
from dao.migrate.events import Removed, Report, tell_done
from dao.migrate.ledger import entries as ledger
from dao.migrate.listening import listened
from dao.migrate.schema.catalog import definitions, row_counts
from dao.migrate.schema.check import integrity_problems
from dao.migrate.schema.registration import Prepare, preparing, register
from dao.migrate.values import Kind, Snapshot

__all__ = [
    "checked",
    "file_of",
    "find",
    "prune",
    "row_changes",
    "save",
    "snapshots",
    "take_snapshot",
    "verify",
]

_NAME = re.compile(
    rf"(?P<database>.+)\.(?P<id>{ID})\.(?P<version>[^.]+)(?:\.(?:(?P<kind>run|restore)|label-(?P<label>[^.]+)))?"
    r"\.(?P<checksum>[0-9a-f]{16})\.snapshot"
)
_LABEL = re.compile(r"[\w-]{1,50}")
_NAME_LENGTH = 255  # bytes
_VERSION_LENGTH = 100
_TAKE = "`dao snapshot --database` takes one of it"
_WITHOUT = "go on without one (--no-snapshot, DATABASE_SNAPSHOTS=0)"
_BY_HAND = "stop its programs, and copy its file yourself, or move it away before a restore"


def take_snapshot(
    target: Target,
    *,
    label: str | None = None,
    keep: int | None = None,
    to: str | os.PathLike[str] | None = None,
    version: str | None = None,
    prepare: Prepare | None = None,
    report: Report | None = None,
    now: datetime | None = None,
) -> Snapshot:
    """Copy a database into a new file beside it, or in the folder `to`, and verify the copy.

    It stays until somebody removes it.

    Reads the database through a connection of its own, in one read transaction: other connections go on meanwhile,
    and what they have not committed is not in the copy, even if the caller's own connection is in the middle of a
    write. The copy is complete, on disk and compared with the database before it gets its name. With `keep`, older
    ones of that folder that were asked for and have no label go after that, but so many, and each is reported as
    `Removed`.
    `version` replaces the last applied migration in the name. The id is the time `now`, or the first after that of
    the snapshots there are.

    `prepare` is as in `apply`.

    Raises:
        InvalidValue: The label is not 1 to 50 letters, digits, `-` and `_`, or `keep` is below 1.
        MigrationError: The database is in memory, does not exist, holds nothing, or cannot be verified.
        DiskFull: There is no room for it beside the database.
        DatabaseBusy: Another connection kept the database to itself.
        DatabaseCorrupt: The database is damaged.
        OperationalError: The folder cannot be written to.
    """
    if keep is not None and keep < 1:
        raise InvalidValue(f"keep={keep}: a number from 1, since the new snapshot is one")
    if label is not None and not _LABEL.fullmatch(label):
        raise InvalidValue(f"the label {label!r}: 1 to 50 letters, digits, - and _")
    path = file_of(target)
    existing(target, "take a snapshot of")
    report = listened(report, "dao.migrate.copies", name_of(target))
    place = path if to is None else _beside(path, to)
    with preparing(prepare), reopened(target, report) as reader:
        snapshot = save(reader, path, version, place=place, label=label, now=now)
    if keep is not None:
        prune(target if to is None else url.DatabaseURL(path=place), keep, "manual", report=report)
    return snapshot


def _beside(path: str, folder: str | os.PathLike[str]) -> str:
    """Return the path beside which the snapshots of a database are in another folder."""
    if not os.path.isdir(folder):
        # to make it would fill the disk below a mount that is missing
        raise MigrationError(f"{os.fspath(folder)} is no folder: make it, or mount what belongs there")
    return os.path.join(os.path.realpath(folder), os.path.basename(path))


def save(
    reader: Connection,
    path: str,
    version: str | None = None,
    *,
    place: str | None = None,
    kind: Kind = "manual",
    label: str | None = None,
    now: datetime | None = None,
) -> Snapshot:
    """Write all that a connection outside of a transaction sees into a new snapshot of the database at `path`.

    It is beside the database, or beside where `place` says that it would be.

    Raises:
        Error: As `take_snapshot`.
    """
    is_run, place = kind == "run", place or path
    with at_one_moment(reader):
        if not definitions(reader):
            raise MigrationError(f"{path} holds nothing: there is nothing to take a snapshot of")
        require_room(place, size_of(reader), f"a snapshot of {path}", otherwise=f", or {_WITHOUT}" if is_run else "")
        version = version or _version(reader)
        # the clock may have been set back: the latest is still the newest
        latest = next((snapshot.id for snapshot in _of(place)), None)
        with new_file(place, like=path, after=latest, now=now) as new:
            copied(reader, new).close()
            compare(reader, path, new, _WITHOUT if is_run else _BY_HAND)
            what = f".label-{label}" if label else "" if kind == "manual" else f".{kind}"
            before, after = f"{place}.{new.id}.", f"{what}.{checksum(new.file)}.snapshot"
            version = _fitting(version, _NAME_LENGTH - len(os.fsencode(os.path.basename(before) + after)))
            complete = before + version + after
            try:
                new.become(complete)
            except CommitUnknown as error:
                # no way back, if it may be gone
                os.unlink(os.path.basename(complete), dir_fd=new.folder)
                raise OperationalError(f"cannot write {complete} ({error.__cause__}): check the disk") from error
            size = os.fstat(new.file).st_size
    taken_at = moment_of(new.id)
    return Snapshot(
        id=new.id, path=Path(complete), taken_at=taken_at, version=version, size=size, kind=kind, label=label
    )


def file_of(target: Target) -> str:
    """Return the real path of the database's file, beside which its snapshots are.

    Raises:
        MigrationError: It has none.
    """
    if not (path := path_of(target)):
        raise MigrationError("a database in memory has no snapshots: they are files beside its own")
    return path


def snapshots(target: Target) -> list[Snapshot]:
    """Return the complete snapshots of a database, the newest first. The database itself need not exist.

    Raises:
        MigrationError: The database is in memory.
    """
    return _of(file_of(target))


def find(target: Target, id: str | os.PathLike[str] | None = None) -> Snapshot:
    """Return the snapshot at this path, with this id, label or file name, or the only one whose id begins so.

    None stands for the newest.
    A text is a path if it has a separator or names a file, and is not the beginning of an id. A file at a path is not
    looked into: if it is not named like a snapshot, `id` is its name, `version` "unknown" and `taken_at` when it was
    last changed.

    Raises:
        MigrationError: There is none, or more than one.
    """
    if id is not None and _is_path(id):
        file = Path(os.path.abspath(id))
        if not file.exists():
            raise MigrationError(f"the snapshot {file} does not exist; `dao snapshots` lists those there are")
        seen = file.stat()
        changed = datetime.fromtimestamp(seen.st_mtime, UTC)
        size = seen.st_size
        return _parsed(file) or Snapshot(id=file.name, path=file, taken_at=changed, version="unknown", size=size)
    there = snapshots(target)
    if not there:
        how = (
            "`dao snapshot` takes one for the next time; now name the file of one that is elsewhere, or bring back a "
            "backup or a replica (`dao restore-replica`)"
            if exists(target)
            else "it does not exist either; name another, or a file"
        )
        raise MigrationError(f"{file_of(target)} has no snapshots: {how}")
    if id is None:
        return there[0]
    named = [one for one in there if id in {one.path.name, one.label}]
    matching = named or [one for one in there if id and one.id.startswith(str(id))]
    if len(matching) != 1:
        ids = ", ".join(snapshot.id for snapshot in matching or there)
        what = "more than one snapshot" if matching else "no snapshot"
        how = "with the label" if named else "whose id begins with"
        raise MigrationError(f"{file_of(target)} has {what} {how} {id!r}: name one of {ids}")
    return matching[0]


def _is_path(id: str | os.PathLike[str]) -> bool:
    if not isinstance(id, str):
        return True
    return not re.fullmatch(r"[0-9TZ.]*", id) and (os.sep in id or os.path.isfile(id))


def prune(
    target: Target, keep: int, kind: Kind, *, spare: Path | None = None, report: Report | None = None
) -> list[Snapshot]:
    """Remove all but the newest `keep` snapshots of a kind, report them, and return those that went.

    One with a label and the one at `spare` stay in any case. Unless people asked for them, those of one content count
    once, and the newest of them stays: runs that were killed, again and again, leave such, and must not push out what
    differs.

    If one cannot be removed, that is logged, for whatever they were to make room for is done.
    """
    if keep < 0:
        raise InvalidValue(f"keep={keep}: a number from 0")
    of_kind = [snapshot for snapshot in snapshots(target) if snapshot.kind == kind and snapshot.label is None]
    newest: dict[object, Snapshot] = {}
    for snapshot in of_kind:
        newest.setdefault(snapshot.id if kind == "manual" else snapshot.path.suffixes[-2], snapshot)
    kept = [*newest.values()][:keep]
    gone: list[Snapshot] = []
    try:
        for snapshot in of_kind:
            if snapshot not in kept and snapshot.path != spare:
                snapshot.path.unlink(missing_ok=True)
                gone.append(snapshot)
                if report is not None:
                    tell_done(report, Removed(snapshot))
    except OSError as error:
        logger("dao.migrate.copies").warning(
            "old snapshots stay, for one cannot be removed (%s): check the permissions of the folder", error
        )
    return gone


def verify(path: str | os.PathLike[str]) -> None:
    """Check that a file is an intact snapshot: by the checksum in its name, if any, and by `PRAGMA integrity_check`.

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
    path = os.path.realpath(path)
    if not os.path.isfile(path):
        what = "is no file" if os.path.exists(path) else "does not exist"
        raise MigrationError(f"the snapshot {path} {what}; `dao snapshots` lists those there are")
    before = _unused(path)
    with contextlib.ExitStack() as until_done:
        try:
            file = until_done.enter_context(raw_file(path))
            if file.xFileSize() == 0:
                raise apsw.CorruptError("it is empty")
            named = _NAME.fullmatch(os.path.basename(path))
            if named and checksum(file) != named["checksum"]:
                raise apsw.CorruptError("it is not the file that was written")
            # immutable: no lock is taken and no file made beside it
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            held = Held(path, file)
            connection = apsw.Connection(f"file:{quote(path)}?immutable=1", flags, vfs=held.name)
            until_done.callback(connection.close)
            register(connection)
            if file.xFileSize() < size_of(connection):
                raise apsw.CorruptError("the end of the file is missing")
            integrity_problems(connection)
            is_ours = named is not None or bool(ledger.read(connection).entries)
        except (apsw.IOError, apsw.CantOpenError) as error:
            raise OperationalError(
                f"cannot read the snapshot {path} ({error}): check its permissions, and the disk"
            ) from error
        except (apsw.Error, DatabaseCorrupt, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error
        if not is_ours:
            raise MigrationError(f"{path} is not a snapshot: a database that no migrations were applied to")
        try:
            yield connection
        except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
            # what one connection takes, another may not
            raise _damaged(path, error) from error
    if _unused(path) != before:
        raise MigrationError(f"{path} was written to while it was read: {_TAKE}")


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


def _damaged(path: str, error: Exception) -> DatabaseCorrupt:
    reason = "; ".join(map(str, error.details)) if isinstance(error, DatabaseCorrupt) else str(error)
    return DatabaseCorrupt(f"the snapshot {path} is damaged or no SQLite database ({reason}): use another one")


def _unused(path: str) -> tuple[int, ...]:
    """Refuse a database in use: what is beside it would be passed over. Return by what to notice that it was changed.

    Raises:
        MigrationError: It has a WAL, or a journal that would be rolled back.
    """
    if beside := database_file.unsettled(path):
        raise MigrationError(f"{path} is a database in use, not a snapshot: the file {beside} belongs to it. {_TAKE}")
    with file_errors(f"cannot read {path}"):
        seen = os.stat(path)
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _of(path: str) -> list[Snapshot]:
    files: list[Path] = []
    with file_errors(f"cannot look beside {path}"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        files += Path(path).parent.iterdir()
    found = (_parsed(file, os.path.basename(path)) for file in files)
    return sorted((snapshot for snapshot in found if snapshot), key=lambda snapshot: snapshot.id, reverse=True)


def _parsed(file: Path, database: str | None = None) -> Snapshot | None:
    """Return the snapshot that a file is, by its name; of the database of this name only, if one is given."""
    match = _NAME.fullmatch(file.name)
    if match is None or database not in {None, match["database"]}:
        return None
    kind: Any = match["kind"] or "manual"
    try:
        return Snapshot(
            id=match["id"],
            path=file,
            taken_at=moment_of(match["id"]),
            version=match["version"],
            size=file.stat().st_size,
            kind=kind,
            label=match["label"],
        )
    except (ValueError, FileNotFoundError):  # no time; or just removed
        return None


def _version(reader: Connection) -> str:
    try:
        return next(reversed(ledger.read(reader).ids), "empty")
    except (MigrationError, apsw.SQLError, UnicodeDecodeError):
        # of old, or not intact: no reason to go without a snapshot
        return "unknown"


def _fitting(version: str, room: int) -> str:
    """Return a version as a part of a file's name: no separators, and no longer than there is room in bytes."""
    room = max(1, min(_VERSION_LENGTH, room))
    return re.sub(r"[^\w-]+", "_", version).encode()[:room].decode(errors="ignore") or "_"
