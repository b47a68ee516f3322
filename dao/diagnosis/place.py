"""Where the file of a database is: its file system, the room left there, and who may write. Opens nothing."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from dao.diagnosis.finding import Finding, cannot_tell, error, note, ok, warning
from dao.engine.sqlite.database_file import check_name, is_there, not_writable
from dao.errors import OperationalError
from dao.text import counted, manual, readable

__all__ = ["MOUNTS", "findings"]

#: Where Linux lists what is mounted, for this process.
MOUNTS = "/proc/self/mountinfo"

# By the names that Linux has for them. Over a network no lock is sure, and the shared memory of a WAL is not shared.
_NETWORK = {
    *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "fuse.rclone"),
    *("fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"),
    *("smbfs", "webdav"),
}
# of a virtual machine's host, or of whatever program stands behind it
_SHARED = {"9p", "drvfs", "fakeowner", "fuse", "fuse.grpcfuse", "fuse.osxfs", "fuse.portal", "vboxsf", "virtiofs"}
_IN_MEMORY = {"ramfs", "tmpfs"}
_ESCAPE = re.compile(r"\\([0-7]{3})")
#: So much room is left wherever nothing is in danger, in bytes.
_ROOM = 100 << 20
_FACTOR = 2


def findings(path: str, mounts: str = MOUNTS) -> Iterator[Finding]:
    """Yield what is to be said of the place of a database: of its folder only, if it is not there yet."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        yield error(
            "permissions",
            f"the folder {folder} does not exist",
            "no database can be there",
            "create it, or name another database",
        )
        return
    yield _system(folder, mounts)
    yield _room(path, folder)
    yield from _permissions(path, folder)


# ---------------------------------------------------------------- file system


def _file_system(folder: str, mounts: str = MOUNTS) -> tuple[str, str] | None:
    """Return the type of the file system that a folder is on, and where that is mounted; None if nobody tells."""
    found: tuple[str, str] | None = None
    folder = os.path.realpath(folder)
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                point = _ESCAPE.sub(lambda code: chr(int(code[1], 8)), before.split(" ")[4])
                # the last of several on one folder hides the others
                if _is_below(folder, point) and (found is None or len(point) >= len(found[1])):
                    found = after.split(" ")[0], point
    except (OSError, IndexError):
        return None
    return found


def _is_below(folder: str, point: str) -> bool:
    return point in {"/", folder} or folder.startswith(f"{point}/")


def _system(folder: str, mounts: str) -> Finding:
    check = "file system"
    found = _file_system(folder, mounts)
    if found is None:
        return cannot_tell(check, "this system does not list what is mounted")
    kind, point = found
    where = f"{kind}, mounted at {point}"
    if kind in _NETWORK:
        return error(
            check,
            f"a network file system ({where})",
            "locks over a network fail, and what a WAL shares between programs is not shared: the database gets "
            "damaged once two hosts write to it (sqlite.org/useovernet.html)",
            "move the database to a local disk; for several hosts there is PostgreSQL "
            f"({manual('how-to/move-to-postgresql.md')})",
        )
    if kind in _SHARED:
        return warning(
            check,
            f"a shared file system ({where})",
            "its locks and shared memory may not reach those who open the database on its other side",
            "move the database to a disk of this system, or open it on one side only",
        )
    if kind in _IN_MEMORY:
        return warning(
            check,
            f"in memory ({where})",
            "the database is gone after a restart of the machine",
            "move it to a disk, or keep a replica (`dao replicate`)",
        )
    if kind == "overlay":
        return warning(
            check,
            f"the layer of a container ({where})",
            "the database goes with the container",
            "mount a volume at its folder",
        )
    return ok(check, where)


# ---------------------------------------------------------------- room


def _room(path: str, folder: str) -> Finding:
    check = "disk"
    try:
        system = os.statvfs(folder)
        size = sum(os.stat(file).st_size for file in (path, f"{path}-wal") if is_there(file))
    except OSError as problem:
        return cannot_tell(check, problem)
    free = system.f_bavail * system.f_frsize
    left = f"{readable(free)} left beside {readable(size)} of database"
    if system.f_files and not system.f_favail:
        return error(check, "no further file fits", "SQLite cannot make its -wal", "remove files")
    if free < _ROOM:
        return error(
            check, left, "writes are about to fail", "make room: remove old snapshots (`dao snapshots`), or other files"
        )
    if free < _FACTOR * size:
        return warning(
            check,
            left,
            "a snapshot, which a migration takes first, needs as much room as the database, and VACUUM twice as much",
            "make room, or keep snapshots elsewhere (`dao snapshot --to DIR`)",
        )
    return ok(check, left)


# ---------------------------------------------------------------- permissions


def _permissions(path: str, folder: str) -> Iterator[Finding]:
    check = "permissions"
    try:
        if is_there(path):
            check_name(path)
    except OperationalError as problem:
        yield error(check, str(problem), "commits get lost", "do as it says")
    if not os.access(folder, os.W_OK | os.X_OK):
        yield warning(
            check,
            f"this user ({os.geteuid()}) may not write to {folder}",
            "SQLite needs to make files beside the database",
            "run this as the owner of the folder, or have it made writable",
        )
    there = [file for file in (path, f"{path}-wal", f"{path}-shm") if is_there(file)]
    if not there:
        return
    try:
        found = {file: os.stat(file) for file in there}
    except OSError as problem:
        yield cannot_tell(check, problem)
        return
    for file in there:
        if reason := not_writable(file):
            yield warning(check, reason, "this user can read at the most", "run this as the owner of the database")
    owners = {state.st_uid for state in found.values()}
    if len(owners) > 1:
        listed = ", ".join(f"{os.path.basename(file)} of user {state.st_uid}" for file, state in found.items())
        yield warning(
            check,
            f"the files belong to several users: {listed}",
            "whoever may not write to all of them finds the database locked or read-only",
            f"close it everywhere, and `chown` all of {path}* to the user that runs the programs",
        )
    mode = next(iter(found.values())).st_mode
    owned = f"user {os.stat(path).st_uid}, mode {stat.S_IMODE(mode):04o}" if is_there(path) else "no file yet"
    if mode & stat.S_IWOTH:
        yield warning(
            check,
            f"everybody on this machine may write to it ({owned})",
            "any program can change what is stored, past all rules",
            f"chmod o-w {path}*",
        )
    elif mode & stat.S_IROTH:
        yield note(
            check,
            f"everybody on this machine may read it ({owned})",
            "what tasks and tools have stored is no secret here",
            f"chmod o-r {path}*, if it should be one",
        )
    else:
        with contextlib.suppress(OSError):
            yield ok(check, f"{owned}, {counted(len(there), 'file')}")
