"""How a database is copied into a file beside it: given room, copied, compared, written to the disk.

What the copies are for is the business of `snapshot`, `restore` and `working_copy`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.engine.sqlite.files import NO_ROOM
from dao.errors import CommitUnknown, DatabaseCorrupt, DiskFull, MigrationError, OperationalError
from dao.migrate.copies.held import Held, write_all
from dao.migrate.copies.rows import contents
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import quoted
from dao.migrate.schema.check import integrity_problems
from dao.migrate.values import Copying, Report
from dao.text import readable

__all__ = [
    "ID",
    "PAGES",
    "NewFile",
    "compare",
    "copied",
    "copy_into",
    "file_errors",
    "finish",
    "moment_of",
    "new_file",
    "remove_leftovers",
    "require_room",
    "size_of",
]

#: A regular expression for the id of a snapshot.
ID = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z"

#: How many pages are copied at a time.
PAGES = 1024
_MARGIN = _LITTLE = 1024 * 1024  # bytes
_MILLISECOND = timedelta(milliseconds=1)


def size_of(connection: Connection) -> int:
    """Return the size in bytes of the database that the connection sees."""
    pages: Any = connection.pragma("page_count")
    size: Any = connection.pragma("page_size")
    return int(pages) * int(size)


def copy_into(copy: Connection, source: Connection, report: Report | None = None) -> None:
    """Replace all that one connection's database holds by what another connection sees, and report the progress."""
    with copy.backup("main", source, "main") as backup:
        finish(backup, report)


def finish(backup: apsw.Backup, report: Report | None = None) -> None:
    """Copy what a backup has not copied yet, piece by piece, so that Ctrl-C is noticed; then it commits."""
    while not backup.done:
        backup.step(PAGES)
        if report is not None:
            report(Copying(backup.page_count - backup.remaining, backup.page_count))


def copied(source: Connection, new: NewFile) -> Connection:
    """Copy all that a connection sees into an empty file and return a connection to it, without locks or journal files.

    The copy is a single file in rollback-journal mode, whatever the source's mode is.

    Raises:
        DiskFull: There was no room; the file is not complete.
    """
    with contextlib.closing(new.connect()) as copy:
        copy_into(copy, source)
    # the first page of a database in WAL mode says that it is in WAL mode (sqlite.org/fileformat2.html, 1.3.3)
    if os.fstat(new.file).st_size:
        write_all(new.file, b"\1\1", 18)
    return new.connect()


# ---------------------------------------------------------------- verification


def compare(reader: Connection, path: str, new: NewFile, otherwise: str) -> None:
    """Refuse a copy that is damaged, or that does not hold what a connection sees in its open transaction.

    Equal hashes by `sqlite3_dbhash` prove that the copy holds what the database holds now. Different ones prove nothing
    while others write, so then the contents are compared within the transaction, which costs six times as much. Where
    no copy can be compared, the message advises `otherwise`.

    Raises:
        DatabaseCorrupt: The copy is damaged, as the database was, then.
        MigrationError: It differs, or cannot be read without the program that it belongs to.
    """
    copy = new.connect()
    try:
        # a little one is compared before a process has started; whoever keeps the file to itself keeps the tool out, too
        alone = size_of(reader) < _LITTLE or reader.pragma("locking_mode") == "exclusive"
        with _hashing(*(() if alone else (path, new.path))) as same:
            integrity_problems(copy)
            if not same() and _state(reader) != _state(copy):
                raise MigrationError(f"the copy of {path} differs from it: check the disk and the memory, then repeat")
    except DatabaseCorrupt as error:
        raise DatabaseCorrupt(
            f"{path} is damaged: restore a snapshot (`dao restore`; what was written since is lost) or a backup",
            details=error.details,
        ) from error
    except apsw.SQLError as error:
        raise MigrationError(
            f"a snapshot of {path} cannot be verified ({error}): its schema needs what its program defines; {otherwise}"
        ) from error
    finally:
        copy.close()


@contextlib.contextmanager
def _hashing(*paths: str) -> Iterator[Callable[[], bool]]:
    """Hash databases in processes of their own, at the same time; the function waits and returns if all are equal."""
    import subprocess  # noqa: PLC0415 - as in the modules that start processes

    import apsw.sqlite_extra  # noqa: PLC0415

    processes: list[subprocess.Popen[bytes]] = []

    def same() -> bool:
        hashes = {process.communicate()[0].split(b" ")[0] for process in processes}
        return 0 < len(processes) == len(paths) and len(hashes) == 1 and len(hashes.pop()) == 40

    with contextlib.ExitStack() as until_done:
        with contextlib.suppress(OSError, apsw.sqlite_extra.NotAvailable):
            tool = apsw.sqlite_extra.path("sqlite3_dbhash")
            for path in paths:
                process = subprocess.Popen([tool, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                processes.append(until_done.enter_context(process))
                until_done.callback(process.kill)
        yield same


def _state(connection: Connection) -> dict[str, Any]:
    """Return all that a database holds: its schema, its rows by hash, and its ledger."""
    state: dict[str, Any] = {name: connection.pragma(name) for name in ("user_version", "application_id")}
    state["schema"] = frozenset(catalog.definitions(connection))
    state["contents"] = contents(connection)
    for table in catalog.table_names(connection) & {*catalog.TABLES, "sqlite_sequence"}:
        state[table] = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {quoted(table)}"))
    return state


# ---------------------------------------------------------------- files


@attrs.frozen
class NewFile:
    """A file in the making, beside a database: the time that is its id, its path, its descriptor and its folder's.

    Its name may come to mean another file if the folder is somebody else's: what is written goes to the descriptor.
    """

    id: str
    path: str
    file: int
    folder: int

    def connect(self) -> Connection:
        """Return a new connection to the file, without locks or journals."""
        held = Held(self.path, self.file)
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=held.name)
        for name, value in (("locking_mode", "exclusive"), ("synchronous", "off"), ("journal_mode", "memory")):
            connection.pragma(name, value)
        return connection

    def become(self, path: str) -> None:
        """Give the file, which is complete, another name in its folder, all of it on the disk.

        Raises:
            OperationalError: Its name means another file by now.
            CommitUnknown: It has the name, but the disk did not confirm that.
        """
        os.fsync(self.file)
        there = os.stat(os.path.basename(self.path), dir_fd=self.folder, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(self.file)):
            raise OperationalError(
                f"{self.path} was replaced by another file while it was written: look who else writes into that folder"
            )
        os.rename(os.path.basename(self.path), os.path.basename(path), src_dir_fd=self.folder, dst_dir_fd=self.folder)
        try:
            os.fsync(self.folder)
        except OSError as error:
            raise CommitUnknown(
                f"{path} is in its place, but whether it still is after a power loss is not known ({error.strerror}): "
                "check the disk, and look at what is there before you repeat it"
            ) from error


@contextlib.contextmanager
def new_file(
    path: str, *, like: str | None = None, after: str | None = None, now: datetime | None = None
) -> Iterator[NewFile]:
    """Make an empty file beside a database and lend it; unless it gets another name, it goes with the block.

    Its id is the time `now`, but later than `after` and unlike that of any other snapshot. Owner and permissions are
    those of the file `like`; without one it is for this user alone. Files that a crash has left are removed first:
    those that no process has a lock on.

    Raises:
        OperationalError: The folder cannot be written to.
    """
    folder = file = -1
    name = ""
    try:
        with file_errors(f"cannot write beside {path}"):
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _tidy(folder, path)
            # here and not in a function of its own: an interruption may come as that returns
            for id in _ids(now or datetime.now(UTC), after):
                name = f"{os.path.basename(path)}.{id}.partial"
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with contextlib.suppress(FileExistsError):
                    file = os.open(name, flags, 0o600, dir_fd=folder)
                    # released by the end of the process, however it ends
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if _is_taken(folder, path, id):
                        os.unlink(name, dir_fd=folder)
                    elif os.fstat(file).st_nlink:  # else somebody tidied up between the two
                        break
                    given_up, file = file, -1
                    os.close(given_up)
            meant = os.stat(like, follow_symlinks=False) if like is not None else None
            if meant is not None and stat.S_ISREG(meant.st_mode):
                with contextlib.suppress(PermissionError):  # only root may give files away
                    os.fchown(file, meant.st_uid, meant.st_gid)
                os.fchmod(file, meant.st_mode & 0o777)
        with file_errors(f"cannot write {path}.{id}.partial"):
            yield NewFile(id, f"{path}.{id}.partial", file, folder)
    finally:
        if file >= 0:
            _remove(folder, name)
            os.close(file)
        elif folder >= 0:
            # an interruption may have come before it was known that the file was made
            with contextlib.suppress(OSError):
                _tidy(folder, path)
        if folder >= 0:
            os.close(folder)


def _ids(now: datetime, after: str | None) -> Iterator[str]:
    """Give ids of snapshots, that of now or the first after this one, and those of the milliseconds that follow."""
    moment = now if after is None else max(now, moment_of(after) + _MILLISECOND)
    while True:
        yield f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        moment += _MILLISECOND


def _is_taken(folder: int, path: str, id: str) -> bool:
    beginning = f"{os.path.basename(path)}.{id}."
    return any(name.startswith(beginning) and not name.endswith(".partial") for name in os.listdir(folder))


def _tidy(folder: int, path: str) -> None:
    """Remove the files in the making that no living process works on, as far as this user may."""
    unfinished = re.compile(re.escape(os.path.basename(path)) + rf"\.{ID}\.partial")
    for name in filter(unfinished.fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder, name)
            finally:
                os.close(file)


def remove_leftovers(path: str) -> None:
    """Remove the copies beside a database that killed processes have left, as far as that is possible."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _tidy(folder, path)
        finally:
            os.close(folder)


def _remove(folder: int, partial: str) -> None:
    """Remove a file in the making, and what version 0.1 had beside it; the next removes what cannot be removed."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(OSError):
            os.unlink(partial + suffix, dir_fd=folder)


def moment_of(id: str) -> datetime:
    """Return when a snapshot was taken, in UTC."""
    return datetime.strptime(id, "%Y%m%dT%H%M%S.%f%z")


@contextlib.contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Translate errors of the file system in the block into errors of ours, which begin with `what`."""
    try:
        yield
    except (OSError, apsw.Error) as raised:
        # SQLite passes on what happened to a file that it has by its descriptor
        error = raised if isinstance(raised, OSError) else raised.__cause__
        if not isinstance(error, OSError):
            raise
        if error.errno in NO_ROOM:
            raise DiskFull(f"{what}: no room left; nothing was changed. Free some space and repeat") from raised
        advice = {
            errno.EACCES: "check the permissions of the folder",
            errno.EPERM: "check the permissions of the folder",
            errno.EROFS: "the file system is read-only",
            errno.ENAMETOOLONG: "the database's name is too long to add a time to it",
        }.get(error.errno or 0, "check the disk and the file system")
        raise OperationalError(f"{what} ({error.strerror}): {advice}") from raised


def require_room(path: str, needed: int, what: str, otherwise: str = "") -> None:
    """Refuse to begin what needs so many bytes beside a database, if there are fewer.

    Raises:
        DiskFull: There are.
    """
    needed += needed // 20 + _MARGIN
    folder = os.path.dirname(path)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{what} needs {readable(needed)} in {folder}, and {readable(free)} are free there; nothing was changed. "
            f"Free some space and repeat{otherwise}"
        )
