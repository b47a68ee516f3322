"""A disk that is full after so many writes, or fails them."""

from __future__ import annotations

import apsw
import attrs


@attrs.define
class Room:
    """How many writes succeed yet, and with what the one after them fails."""

    error: type[apsw.Error]
    left: int = 0
    failed: bool = False

    def is_gone(self, size: int, data: bytes, offset: int) -> bool:
        """Return whether there is none for what is to be written now into a file of this size."""
        if self.error is apsw.FullError and offset + len(data) <= size:
            return False
        gone = self.left == 0
        self.failed |= gone
        self.left -= not gone
        return gone


class FullDisk(apsw.VFS):
    """The usual file system. If it is full, overwriting still works."""

    def __init__(self, room: Room, *, makedefault: bool = False) -> None:
        self.room = room
        super().__init__("full", "unix", makedefault=makedefault)

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file that notices when the disk is full."""
        return FullFile(self, name, flags)


class FullFile(apsw.VFSFile):
    """A file on the full disk."""

    def __init__(self, disk: FullDisk, name, flags) -> None:
        self._room = disk.room
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - SQLite's name
        """Write, or fail."""
        if self._room.is_gone(self.xFileSize(), data, offset):
            raise self._room.error("no room")
        super().xWrite(data, offset)
