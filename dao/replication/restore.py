"""The way back: a database as a replica has it, checked before it gets its name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs

from dao import migrate, url
from dao.errors import CheckFailed, DatabaseBusy, ReplicationError
from dao.migrate.copies.new_files import file_errors
from dao.migrate.database import path_of
from dao.migrate.scripts.load import Source
from dao.replication.litestream import Litestream, parse_replica

__all__ = ["Restored", "restore"]


@attrs.frozen(kw_only=True)
class Restored:
    """What a restore did. `uploaded_at` is when the newest transaction that the replica has came there, if it is told.

    `done` is as of `dao.migrate.restore`: what there was before is a snapshot.
    """

    database: str
    replica: str
    at: datetime | None
    uploaded_at: datetime | None
    done: migrate.Restored


def restore(
    database: str | url.AnyURL,
    source: str,
    *,
    at: datetime | None = None,
    force: bool = False,
    migrations: Source = None,
    keep: int = migrate.SNAPSHOTS,
    prepare: migrate.Prepare | None = None,
    lock_timeout: float | None = None,
    report: migrate.Report | None = None,
) -> Restored:
    """Bring a database back from its replica, as of a time or the latest.

    It is written into a folder beside, and checked there as by `dao.migrate.check`: the whole file, every row, schema
    and ledger. Only then it takes its place. With `force` it replaces a database that is there, as by
    `dao.migrate.restore`, whose options these are: under the migrators' lock, in one transaction, after a snapshot of
    what is replaced.

    Raises:
        InvalidURL: `source` means nothing.
        ReplicationError: The database is there, and `force` does not say to replace it; the time is in the future, or
            names no zone; or the replica has none as of then.
        CheckFailed: What the replica has is not sound. It is kept, and the message says where; nothing was changed.
        DatabaseBusy: Another restores it, or another migrator kept its lock.
        OperationalError: The folder cannot be written to.
    """
    path, replica = path_of(database), parse_replica(source)
    parsed = url.parse_file(database)
    _check_free(path, force=force)
    _check_time(at)
    with _folder(path) as folder:
        litestream = Litestream.configured(path, replica, folder)
        found = folder / f"{os.path.basename(path)}.replica"
        try:
            uploaded = litestream.uploaded() if at is None else None
            litestream.restore(found, at)
        except ReplicationError as error:
            then = "" if at is None else f" as of {at.isoformat()}"
            raise ReplicationError(
                f"{path} cannot be restored from {replica.name}{then}: {error}. Look whether that is the place, and "
                "whether it goes back so far; nothing was changed"
            ) from error
        meant = str(url.DatabaseURL(path=str(found), journal_mode="keep"))
        soundness = migrate.check(meant, migrations, prepare=prepare)
        if not soundness.ok:
            kept = _kept(found, path)
            raise CheckFailed(
                f"what {replica.name} has of {path} is not sound, and is kept as {kept}; nothing was changed",
                details=soundness.faults,
                advice="Take an earlier --timestamp; or, where nothing is damaged, put it in its place all the same: "
                f"dao restore {kept}",
            )
        _check_free(path, force=force)
        done = migrate.restore(parsed, found, keep=keep, prepare=prepare, lock_timeout=lock_timeout, report=report)
    return Restored(
        database=path, replica=replica.name, at=at, uploaded_at=None if uploaded is None else uploaded.at, done=done
    )


def _check_free(path: str, *, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise ReplicationError(
            f"{path} is there: name another with --database, or replace it with --force, which takes a snapshot first"
        )


def _kept(found: Path, path: str) -> str:
    """Give what is not sound a name beside the database, and return that."""
    kept = f"{path}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}.replica"
    os.rename(found, kept)
    return kept


def _check_time(at: datetime | None) -> None:
    if at is None:
        return
    if at.tzinfo is None:
        raise ReplicationError(f"the time {at.isoformat()} names no zone: add one, such as Z for UTC")
    if at > datetime.now(UTC):
        raise ReplicationError(
            f"the time {at.isoformat()} is in the future: leave it out for the latest that the replica has"
        )


@contextlib.contextmanager
def _folder(path: str) -> Iterator[Path]:
    """Lend an empty folder beside a database, for this user alone, which goes with the block.

    What a killed process has left in it goes first.
    """
    folder = Path(os.path.dirname(path), f".{os.path.basename(path)}-restore")
    with file_errors(f"cannot write {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseBusy(f"{path} is being restored from a replica by another process: wait for that") from error
        _empty(folder)
        yield folder
    finally:
        with contextlib.suppress(OSError):
            _empty(folder)
            folder.rmdir()
        os.close(lock)


def _empty(folder: Path) -> None:
    for name in os.listdir(folder):
        inside = folder / name
        if inside.is_dir() and not inside.is_symlink():
            shutil.rmtree(inside, ignore_errors=True)
        else:
            inside.unlink()
