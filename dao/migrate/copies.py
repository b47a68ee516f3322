"""How a database is copied into a file beside it: opened, given room, copied, compared, written to the disk.

What the copies are for is the business of `snapshot` and `restore`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw

from dao import fork, sqlite, url
from dao.engine import Connection, is_connection, not_a_connection
from dao.errors import DatabaseBusy, DatabaseCorrupt, DiskFull, MigrationError, OperationalError
from dao.migrate import ledger
from dao.migrate.checks import integrity_problems
from dao.migrate.content import contents, quoted
from dao.migrate.events import Report
from dao.migrate.target import Target, _held, _waiting

__all__ = [
    "ID",
    "checksum",
    "compare",
    "copied",
    "database_of",
    "file_errors",
    "moment_of",
    "new_file",
    "open_file",
    "readable",
    "require_room",
    "size_of",
    "sync_folder",
]

#: What the id of a snapshot looks like.
ID = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z"

# A copy in the making has no locks of SQLite's: on some systems they would meet the one that `new_file` holds.
_NO_LOCKS = "unix-none"
_PAGES = 4096  # copied at a time, so that Ctrl-C is noticed
_MARGIN = 1024 * 1024
_MILLISECOND = timedelta(milliseconds=1)
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"


# ---------------------------------------------------------------- databases


def database_of(target: Target) -> str:
    """Return the absolute path of the database's file.

    Raises:
        MigrationError: It has none.
    """
    if isinstance(target, Connection):
        if not is_connection(target):
            raise not_a_connection(target)
        path = "" if target.open_vfs == "memdb" else sqlite.file_of(target)
    else:
        parsed = url.parse(target)
        path = "" if parsed.is_memory else os.path.abspath(parsed.path)
    if not path:
        raise MigrationError("a database in memory has no snapshots: they are files beside its own")
    return path


@contextlib.contextmanager
def open_file(target: Target, report: Report | None = None) -> Iterator[Connection]:
    """Lend a new connection to the existing file of a target. It changes no setting of the database.

    Raises:
        DatabaseBusy: Another connection kept the database to itself; the message says who.
        OperationalError: What else SQLite raises in the block, as what it is; or the file was open when this was forked.
    """
    path, vfs, timeout = database_of(target), None, sqlite.BUSY_TIMEOUT
    if isinstance(target, Connection):
        vfs = target.open_vfs
    elif (parsed := url.parse(target)).busy_timeout is not None:
        timeout = parsed.busy_timeout
    fork.check_file(path)
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    except apsw.CantOpenError as error:
        raise OperationalError(sqlite.why_not_opened(url.DatabaseURL(path=path, mode="rw"))) from error
    sqlite.set_busy_timeout(connection, timeout, None if report is None else _waiting(connection, report))
    # SQLite calls back now and then, so that Ctrl-C is noticed in the middle of a long statement
    connection.set_progress_handler(lambda: False, 100_000)
    try:
        yield connection
    except apsw.Error as error:
        translated = sqlite.translate(error, connection)
        if translated is None:
            raise
        raise (_held(path) if isinstance(translated, DatabaseBusy) else translated) from error
    finally:
        connection.close()


def size_of(connection: Connection) -> int:
    """Return the size in bytes of the database that the connection sees."""
    pages: Any = connection.pragma("page_count")
    size: Any = connection.pragma("page_size")
    return int(pages) * int(size)


def copied(source: Connection, path: str) -> Connection:
    """Copy all that a connection sees into an empty file and return a connection to it, without locks or journal files.

    The copy is a single file in rollback-journal mode, whatever the source's mode is.

    Raises:
        DiskFull: There was no room; the file is not complete.
    """
    copy = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=_NO_LOCKS)
    try:
        for name, value in (("locking_mode", "exclusive"), ("synchronous", "off"), ("journal_mode", "memory")):
            copy.pragma(name, value)
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
        # the pages of a database in WAL mode say that it is in WAL mode
        copy.pragma("journal_mode", "memory")
    except apsw.FullError as error:
        copy.close()
        raise _no_room(path) from error
    except BaseException:
        copy.close()
        raise
    return copy


# ---------------------------------------------------------------- verification


def compare(reader: Connection, path: str, copy_path: str) -> None:
    """Refuse a copy that is damaged, or that does not hold what a connection sees in its open transaction.

    Equal hashes by `sqlite3_dbhash` prove that the copy holds what the database holds now. Different ones prove nothing
    while others write, so then the contents are compared within the transaction, which costs six times as much.

    Raises:
        DatabaseCorrupt: The copy is damaged, as the database was, then.
        MigrationError: It differs, or cannot be read without the program that it belongs to.
    """
    copy = apsw.Connection(copy_path, flags=apsw.SQLITE_OPEN_READONLY, vfs=_NO_LOCKS)
    try:
        # a connection that keeps the file to itself keeps the tool out, too
        alone = reader.pragma("locking_mode") == "exclusive"
        with _hashing(*(() if alone else (path, copy_path))) as same:
            integrity_problems(copy)
            if not same() and _state(reader) != _state(copy):
                raise MigrationError(f"the copy of {path} differs from it: check the disk and the memory, then repeat")
    except DatabaseCorrupt as error:
        details = str(error).partition("\n")[2]
        raise DatabaseCorrupt(
            f"{path} is damaged: restore a snapshot (`dao restore`; what was written since is lost) or a "
            f"backup\n{details}"
        ) from error
    except apsw.SQLError as error:
        raise MigrationError(
            f"a snapshot of {path} cannot be verified ({error}): its schema needs functions or collations of the program "
            "that it belongs to. Go on without a snapshot (--no-snapshot)"
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
        outputs = [process.communicate()[0].split(b" ")[0] for process in processes]
        return 0 < len(outputs) == len(paths) and len(outputs[0]) == 40 and len(set(outputs)) == 1

    try:
        with contextlib.suppress(OSError, apsw.sqlite_extra.NotAvailable):
            tool = apsw.sqlite_extra.path("sqlite3_dbhash")
            # one by one: should the second not start, the first must end
            for path in paths:
                process = subprocess.Popen([tool, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                processes.append(process)
        yield same
    finally:
        for process in processes:
            with process:  # waits, and closes the pipe
                process.kill()


def _state(connection: Connection) -> dict[str, Any]:
    """Return all that a database holds: its schema, its rows by hash, and its ledger."""
    state: dict[str, Any] = {name: connection.pragma(name) for name in ("user_version", "application_id")}
    schema: list[Any] = connection.execute(_SCHEMA).fetchall()
    state["schema"] = schema
    state["contents"] = contents(connection)
    there = {row[1] for row in schema if row[0] == "table"}
    for table in there & {*ledger.TABLES, "sqlite_sequence"}:
        state[table] = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {quoted(table)}"))
    return state


def checksum(path: str) -> str:
    """Return the first 16 digits of the SHA-256 of a file that no connection of this process has open."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def new_file(path: str, after: str | None = None) -> Iterator[tuple[str, str, int]]:
    """Make an empty file beside a database and lend its id, path and descriptor; unless renamed, it goes with the block.

    The id is the time, later than `after` and unlike that of any other snapshot. Owner and permissions are the
    database's. Files that a crash has left are removed first: those that no process has a lock on.

    Raises:
        OperationalError: The folder cannot be written to.
    """
    with file_errors(f"cannot write beside {path}"):
        _tidy(path)
        id, partial, file = _reserve(path, after)
    try:
        with file_errors(f"cannot write {partial}"):
            if os.path.exists(path):
                like = os.stat(path)
                with contextlib.suppress(PermissionError):  # only root may give files away
                    os.fchown(file, like.st_uid, like.st_gid)
                os.fchmod(file, like.st_mode & 0o777)
            yield id, partial, file
    finally:
        _remove(partial)
        os.close(file)


def _reserve(path: str, after: str | None) -> tuple[str, str, int]:
    now = datetime.now(UTC)
    moment = now if after is None else max(now, moment_of(after) + _MILLISECOND)
    while True:
        id = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        moment += _MILLISECOND
        partial = f"{path}.{id}.partial"
        try:
            file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        # released by the end of the process, however it ends
        fcntl.flock(file, fcntl.LOCK_EX)
        if not os.fstat(file).st_nlink:  # somebody tidied up between the two
            os.close(file)
        elif _is_taken(path, id):
            os.unlink(partial)
            os.close(file)
        else:
            return id, partial, file


def _is_taken(path: str, id: str) -> bool:
    beginning = f"{os.path.basename(path)}.{id}."
    return any(
        name.startswith(beginning) and not name.endswith(".partial") for name in os.listdir(os.path.dirname(path))
    )


def _tidy(path: str) -> None:
    """Remove the files in the making that no living process works on."""
    folder = os.path.dirname(path)
    unfinished = re.compile(re.escape(os.path.basename(path)) + rf"\.{ID}\.partial")
    for name in filter(unfinished.fullmatch, os.listdir(folder)):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            file = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(os.path.join(folder, name))
            finally:
                os.close(file)


def _remove(partial: str) -> None:
    """Remove a file in the making, and before it what SQLite may have put beside it."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial + suffix)


def moment_of(id: str) -> datetime:
    """Return when a snapshot was taken, in UTC."""
    return datetime.strptime(id, "%Y%m%dT%H%M%S.%f%z")


def sync_folder(path: str) -> None:
    """Write to the disk that a file has this name."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Raise what the file system refuses in the block as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"{what}: no room left; nothing was changed. Free some space and repeat") from error
        advice = {
            errno.EACCES: "check the permissions of the folder",
            errno.EPERM: "check the permissions of the folder",
            errno.EROFS: "the file system is read-only",
            errno.ENAMETOOLONG: "the database's name is too long to add a time to it",
        }.get(error.errno or 0, "check the disk and the file system")
        raise OperationalError(f"{what} ({error.strerror}): {advice}") from error


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
            f"{what} needs {readable(needed)} in {folder}, and {readable(free)} are free there; nothing was changed. Free "
            f"some space and repeat{otherwise}"
        )


def _no_room(path: str) -> DiskFull:
    return DiskFull(
        f"{os.path.dirname(path)}: no room left to write a copy of the database; nothing was changed. Free some space and "
        "repeat"
    )


def readable(size: int) -> str:
    """Return a number of bytes as a person reads it."""
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
