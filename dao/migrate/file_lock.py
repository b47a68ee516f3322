"""The lock between migrators of a file of SQLite's.

It is the system's lock on a file beside the database, so it ends with its holder, however that ends, and a lock that is
held means that its holder lives. No id of a process says that: a container gives the same one to all that it ever runs,
and another container gives it to something else. The text in the file is for messages only, and a file that a killed
process has left means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import threading
import weakref
from typing import TYPE_CHECKING

from dao.engine.sqlite.database_file import NO_ROOM
from dao.errors import DiskFull, OperationalError
from dao.migrate import processes
from dao.migrate.lock import UNKNOWN, MigrationLock

if TYPE_CHECKING:
    from dao.migrate.events import Report

__all__ = ["FileLock", "holder"]

#: What the file's name has more than the database's: no longer than SQLite's own `-journal`.
_SUFFIX = "-migrate"
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class _File(io.FileIO):
    """The file of a lock, as one thread has opened it. The lock ends when it is closed, or forgotten."""

    def __init__(self, path: str, mode: str) -> None:
        # before it can be locked: a child that is forked now lets go of it
        _files[id(self)] = self
        #: The thread that has the lock; 0 as long as none has.
        self.thread = 0
        super().__init__(path, mode, opener=_opened)


_files: weakref.WeakValueDictionary[int, _File] = weakref.WeakValueDictionary()


def _open_files() -> list[_File]:
    # in one step: other threads open and close some
    return [file for reference in _files.valuerefs() if (file := reference()) is not None]


def _opened(path: str, flags: int) -> int:
    # a link or a pipe that somebody has put there leads nowhere
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return os.open(path, flags)
    try:
        return os.open(path, flags | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _DENIED or not os.path.exists(path):
            raise
        # another user's: to lock it, it need not be written to
        return os.open(path, (flags & ~os.O_ACCMODE) | os.O_RDONLY)


def _let_go() -> None:
    """Close in a forked child what its parent has locked: the lock would outlive the parent."""
    for file in _open_files():
        with contextlib.suppress(OSError):
            file.close()


os.register_at_fork(after_in_child=_let_go)


class FileLock(MigrationLock):
    """The lock on a file beside a database. One in memory, whose path is "", needs none."""

    def __init__(self, database: str, timeout: float | None = None, report: Report | None = None) -> None:
        """Name the database by its real path.

        Raises:
            InvalidValue: The timeout is negative, or no number.
        """
        super().__init__(database, timeout, report)
        self._path = database and database + _SUFFIX
        self._file: _File | None = None

    @property
    def may_be_held(self) -> bool:
        """Whether the file is there, so that another may have the lock, or was killed while it had.

        In a rollback-journal mode one cannot even read beside another migrator.
        """
        return bool(self._path) and os.path.lexists(self._path)

    @property
    def is_held(self) -> bool:
        """Whether this one has it, or none is needed."""
        return not self._path or self._file is not None

    def free(self) -> None:
        """Let go of it, if this one has it."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            # not in a forked child, where it is closed; nor another's, if somebody has moved the folder meanwhile
            if not file.closed and _is_at(file, self._path):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
        finally:
            file.close()

    def _try(self) -> bool:
        import fcntl  # noqa: PLC0415 - a run with nothing to do takes no lock

        try:
            file = _File(self._path, "r+")
        except OSError as error:
            raise self._failed(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            # the holder before this one may have removed it between the two: then there is another, or none
            if os.path.samestat(found, os.stat(self._path, follow_symlinks=False)):
                if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                    raise OperationalError(
                        f"{self._path} is no file of this package's, which would write to it: look who has put it "
                        "there, and remove it"
                    )
                file.thread = threading.get_ident()
                self._file = file
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as error:
            raise self._failed(error) from error
        finally:
            if self._file is not file:
                file.close()
        if self._file is file:
            self._note(file)
        return self._file is file

    def _note(self, file: _File) -> None:
        """Write down who has the lock, and let those take it who may write to the database."""
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), f"{os.getpid()} {os.uname().nodename}\n".encode(errors="replace"), 0)
        with contextlib.suppress(OSError):
            meant = os.stat(self._database)
            os.fchmod(file.fileno(), meant.st_mode & 0o666)
            os.fchown(file.fileno(), -1, meant.st_gid)  # as any member of the group may
            os.fchown(file.fileno(), meant.st_uid, -1)

    def _holder(self) -> str | None:
        return _noted(self._path)

    def _is_own(self) -> bool:
        return _is_held_here(self._path)

    def _failed(self, error: OSError) -> OperationalError:
        what = f"{self._path}, on which migration runs wait for each other, cannot be made or locked ({error.strerror})"
        if error.errno in NO_ROOM:
            return DiskFull(f"{what}: no room left; nothing was changed. Free some space and repeat")
        if error.errno in _DENIED:
            if os.path.lexists(self._path):
                # not to remove it: whoever has the lock would not be noticed any more
                return OperationalError(
                    f"{what}: a run of another user made it. Give it the owner and the permissions of the database"
                )
            return OperationalError(f"{what}: check the permissions of the folder")
        return OperationalError(f"{what}: check the file system; SQLite needs one with locks, as local ones have")


def holder(database: str) -> str | None:
    """Return the process that has the lock of a database, such as `process 17 on web-1`; None if no other has.

    This thread counts for no other.
    """
    path = database + _SUFFIX
    if not database or not os.path.lexists(path) or _is_held_here(path):
        return None
    import fcntl  # noqa: PLC0415 - as above

    try:
        with _File(path, "r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted(path)
    except OSError:
        pass  # it has gone; or it is another user's, who has the database to himself, too
    return None


def _is_held_here(path: str) -> bool:
    here = threading.get_ident()
    # a mount may show the folder at several paths
    return any(file.thread == here and not file.closed and _is_at(file, path) for file in _open_files())


def _is_at(file: _File, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _noted(path: str) -> str:
    try:
        with _File(path, "r") as file:
            note = os.pread(file.fileno(), 300, 0).decode(errors="replace")
    except OSError:
        note = ""
    found = re.fullmatch(r"([0-9]+) (\S*)\n", note)
    return processes.named(int(found[1]), found[2]) if found else UNKNOWN
