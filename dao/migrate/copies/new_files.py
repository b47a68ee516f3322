"""Files in the making beside a database: given room, and a name once they are complete; gone with whoever made them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.engine.sqlite.database_file import NO_ROOM
from dao.errors import CommitUnknown, DiskFull, OperationalError
from dao.migrate.copies.descriptors import Held
from dao.migrate.schema.registration import register
from dao.text import readable

__all__ = [
    "ID",
    "NewFile",
    "file_errors",
    "leftovers",
    "moment_of",
    "new_file",
    "remove_leftovers",
    "require_room",
]

#: A regular expression for the id of a snapshot.
ID = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z"

_MARGIN = 1024 * 1024  # bytes
_MILLISECOND = timedelta(milliseconds=1)


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
        try:
            register(connection)
            for name, value in (("locking_mode", "exclusive"), ("synchronous", "off"), ("journal_mode", "memory")):
                connection.pragma(name, value)
        except BaseException:
            connection.close()
            raise
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
    for name in _abandoned(folder, path):
        _remove(folder, name)


def _abandoned(folder: int, path: str) -> Iterator[str]:
    """Yield the names of files in the making that no living process works on, each while it is locked."""
    unfinished = re.compile(re.escape(os.path.basename(path)) + rf"\.{ID}\.partial")
    for name in filter(unfinished.fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield name
            finally:
                os.close(file)


def leftovers(path: str) -> list[str]:
    """Return the names of copies beside a database that killed processes have left; `remove_leftovers` removes them."""
    with _folder_of(path) as folder:
        return sorted(_abandoned(folder, path))


def remove_leftovers(path: str) -> None:
    """Remove the copies beside a database that killed processes have left, as far as that is possible."""
    with contextlib.suppress(OSError), _folder_of(path) as folder:
        _tidy(folder, path)


@contextlib.contextmanager
def _folder_of(path: str) -> Iterator[int]:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
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
            raise DiskFull(f"{what}: no room left. Free some space and repeat") from raised
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
            f"{what} needs {readable(needed)} in {folder}, and {readable(free)} are free there. "
            f"Free some space and repeat{otherwise}"
        )
