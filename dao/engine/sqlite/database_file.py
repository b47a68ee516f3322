"""A database's file, where SQLite says too little: its other names, and the obstacles to opening or writing it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import sys

import apsw

from dao.errors import DiskFull, OperationalError

__all__ = [
    "NO_ROOM",
    "called",
    "check_name",
    "is_there",
    "no_more_files",
    "not_opened",
    "not_writable",
    "tool",
    "unsettled",
    "why_read_only",
]

#: The system's codes for a full disk, and for a user's full share of it.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_there(path: str) -> bool:
    """Return whether a file is there. One that may not be looked at counts as there: opening it says why."""
    try:
        os.stat(path)
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def unsettled(path: str) -> str | None:
    """Return the file beside a database without which it is not what was committed; None if there is none.

    Raises:
        OperationalError: That cannot be looked at.
    """
    for suffix in ("-wal", "-journal"):
        try:
            file = os.open(path + suffix, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OperationalError(f"cannot read {path}{suffix}: {error.strerror}") from error
        try:
            begins = os.read(file, 1)
        finally:
            os.close(file)
        # a journal that begins with a zero is done with (sqlite.org/fileformat2.html, 3)
        if begins and (suffix == "-wal" or begins != b"\0"):
            return path + suffix
    return None


def tool(name: str) -> str:
    """Return the path of one of SQLite's own programs, such as `sqlite3_dbhash`.

    It is for a process of its own: to open a database's file in this one by any other way would drop our locks on it.

    Raises:
        FileNotFoundError: apsw came without it.
    """
    import apsw.sqlite_extra  # noqa: PLC0415 - few need it

    try:
        return str(apsw.sqlite_extra.path(name))
    except apsw.sqlite_extra.NotAvailable as error:
        raise FileNotFoundError(name) from error


def check_name(path: str) -> None:
    """Refuse to write to a file that has several names, or is a mount of its own: its `-wal` is not beside each.

    A program that opens it by another name does not see this one's `-wal`; SQLite only logs a warning, and commits get
    lost (sqlite.org/howtocorrupt.html, 2.5). `docker run -v ./app.db:/app/app.db` leaves it outside of the mount: it
    goes with the container. That is noticed on Linux only.

    Raises:
        OperationalError: It is.
    """
    found, mounted = None, False
    with contextlib.suppress(OSError):  # a new one has no name yet
        found = os.stat(path)
        mounted = _mount_of(path) != _mount_of(os.path.dirname(path))
    if found is not None and stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        name, copy = shlex.quote(path), shlex.quote(f"{path}.copy")
        raise OperationalError(
            f"{path} has {found.st_nlink} names (hard links), and commits get lost if it is opened by more than one "
            f"(`find FOLDER -samefile {name}` lists them): close it everywhere. If a -wal or -journal is beside one of "
            f"them, keep that one and remove the others; else `cp -p {name} {copy} && mv {copy} {name}` makes this a "
            "file of its own, too. Symbolic links may lead to it"
        )
    if mounted:
        raise OperationalError(
            f"{path} is mounted as a file by itself, so that the -wal and -journal of SQLite beside it, which hold "
            "commits, are not part of the mount: mount its folder instead"
        )


def _mount_of(path: str) -> bytes:
    """Return the id of the mount that a path is on, on Linux; elsewhere nothing."""
    if sys.platform != "linux":
        return b""
    # as a place only: another descriptor would drop this process's locks on the file as it is closed
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{place}", "rb", buffering=0) as info:
            return bytes(info.read(4096)).partition(b"mnt_id:")[2].partition(b"\n")[0]
    finally:
        os.close(place)


def not_opened(path: str, mode: str | None = None) -> OperationalError:
    """Return the error for a file of which SQLite says only "unable to open database file"."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    what = f"cannot open {path}"
    if os.path.isdir(path):
        return OperationalError(f"{what}: it is a folder, not a database file")
    if os.path.islink(path):  # after all were followed
        return OperationalError(f"{what}: it is a loop of symbolic links")
    if not is_there(folder):
        return OperationalError(f"{what}: the folder {folder} does not exist; create it first")
    if not is_there(path) and mode in {"ro", "rw"}:
        return OperationalError(f"{what}: it does not exist, and mode={mode} creates nothing")
    return no_more_files(path) or OperationalError(f"{what}: check the permissions of the file and of its folder")


def no_more_files(path: str) -> OperationalError | None:
    """Return an error if no further file can be opened, or made beside a database, for whatever reason."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:  # this process has too many open, or all together have
        return OperationalError(f"cannot open {path}, or a file beside it: {error.strerror}. Close some, and repeat")
    with contextlib.suppress(OSError):
        system = os.statvfs(os.path.dirname(path))
        if system.f_files and not system.f_favail:
            return DiskFull(
                f"cannot open {path}, or a file beside it: the file system has no room for another file. Remove some, "
                "and repeat"
            )
    return None


def called(connection: apsw.Connection) -> str:
    """Return the name of the connection's database in messages; a copy has that of its original, in `called`."""
    return getattr(connection, "called", "") or connection.filename or "the database"


def why_read_only(connection: apsw.Connection, code: int = 0) -> str:
    """Return the reason why a database cannot be written to; the code is SQLite's extended result, if there is one."""
    name = called(connection)
    if code in {apsw.SQLITE_READONLY_ROLLBACK, apsw.SQLITE_READONLY_RECOVERY}:
        return (
            f"{name} needs recovery after a crash, which a read-only connection cannot do: open it once with mode=rw, "
            "as `dao health` does"
        )
    if code in {apsw.SQLITE_READONLY_DIRECTORY, apsw.SQLITE_READONLY_CANTINIT}:
        return (
            f"{name} needs files beside it (-wal, -shm, -journal), and its folder is read-only: check its permissions; "
            "if nobody can write to it, as on read-only media, read it with mode=ro&immutable=on in its URL"
        )
    if connection.open_flags & apsw.SQLITE_OPEN_READONLY:
        return f"{name} is read-only: open it without mode=ro (or immutable)"
    if reason := not_writable(name):
        return reason
    if connection.readonly("main"):
        return (
            f"{name} can only be read: its header says that it takes a newer SQLite to write to it (its 19th byte), or "
            "it was opened as immutable. If no newer one made it, it is damaged: move it away, and restore a snapshot "
            "or a backup"
        )
    return (
        f"{name} is read-only on this connection: look for PRAGMA query_only, and check the permissions of its folder"
    )


def not_writable(path: str) -> str | None:
    """Return why this user may not write to a file, if the system says so; None if it may, or nobody can tell."""
    with contextlib.suppress(OSError):
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return f"{path} is on a file system that is mounted read-only"
        if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            found = os.stat(path)
            return (
                f"{path} may not be written to by this user ({os.geteuid()}): it belongs to user {found.st_uid} and "
                f"group {found.st_gid}, mode {found.st_mode & 0o777:04o}. Run this as its owner, or have it made "
                "writable"
            )
    return None
