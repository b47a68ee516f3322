"""A power loss at any moment of the switch to WAL, with any of what was not synced yet written, not written or torn."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import dao
from dao import url
from dao.engine import sqlite

#: What was done to a file: its suffix, and the offset and bytes written, or what else it was.
Deed = tuple[str, tuple[int, bytes] | str]
#: The files' contents by suffix; None: it is not there.
State = dict[str, bytes | None]


class Recorder(apsw.VFS):
    """Notes what is done to the files of a database, and does it."""

    def __init__(self, database: Path) -> None:
        super().__init__("recorder", "")
        self.database = str(database)
        self.deeds: list[Deed] = []

    def note(self, path: str, deed: tuple[int, bytes] | str) -> None:
        """Note what is done to a file."""
        self.deeds.append((path.removeprefix(self.database), deed))

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file."""
        return RecordedFile(self, name, flags)

    def xDelete(self, name, syncdir):  # noqa: N802 - SQLite's name
        """Delete a file."""
        self.note(name, "delete")
        super().xDelete(name, syncdir)


class RecordedFile(apsw.VFSFile):
    """A file of the recorder's."""

    def __init__(self, recorder: Recorder, name: apsw.URIFilename | str, flags: list[int]) -> None:
        self.recorder = recorder
        self.path = name if isinstance(name, str) else name.filename()
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - SQLite's name
        """Write."""
        self.recorder.note(self.path, (offset, bytes(data)))
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802 - SQLite's name
        """Sync."""
        self.recorder.note(self.path, "sync")
        super().xSync(flags)


def written(content: bytes, offset: int, data: bytes) -> bytes:
    """Return a file's content after a write."""
    return content.ljust(offset, b"\0")[:offset] + data + content[offset + len(data) :]


def contents(durable: bytes | None, pending: list[tuple[int, bytes] | str]) -> set[bytes | None]:
    """Return all that may be in a file of which something was not synced."""
    found: set[bytes | None] = {durable}
    writes = [deed for deed in pending if not isinstance(deed, str)]
    for shares in itertools.product((0, 1, 2), repeat=len(writes)):
        content = durable or b""
        for (offset, data), share in zip(writes, shares, strict=True):
            content = written(content, offset, data[: len(data) * share // 2])
        found.add(content)
    return found | ({None} if "delete" in pending else set())


def states_left(before: bytes, deeds: list[Deed]) -> Iterator[State]:
    """Return every state in which a power loss may leave the files, at any moment."""
    durable: State = {"": before, "-journal": None}
    pending: dict[str, list[tuple[int, bytes] | str]] = {"": [], "-journal": []}
    for suffix, deed in [("", "begin"), *deeds]:
        if deed == "sync":
            content = durable[suffix] or b""
            for write in pending[suffix]:
                if not isinstance(write, str):
                    content = written(content, *write)
            durable[suffix] = content
            pending[suffix].clear()
        else:
            pending[suffix].append(deed)
        for combination in itertools.product(*(contents(durable[name], pending[name]) for name in durable)):
            yield dict(zip(durable, combination, strict=True))


@pytest.mark.parametrize("rows", [0, 3])
def test_switch_to_wal_power_loss_loses_nothing(tmp_path, rows):
    """A database, new or with rows, is whole after it: it opens, holds its rows, and can be written.

    With rows this fails if synchronous is NORMAL before the switch.
    """
    database = tmp_path / "tasks.db"
    if rows:
        with contextlib.closing(apsw.Connection(str(database))) as connection:
            connection.execute("CREATE TABLE kept (n)")
            connection.executemany("INSERT INTO kept VALUES (?)", [(n,) for n in range(rows)])
    before = database.read_bytes() if rows else b""
    recorder = Recorder(database)
    try:
        with contextlib.closing(apsw.Connection(str(database), vfs="recorder")) as connection:
            sqlite.configure(connection, url.parse(f"sqlite:///{database}"))
            deeds = list(recorder.deeds)
    finally:
        recorder.unregister()
    seen = []
    for state in states_left(before, deeds):
        if state in seen:
            continue
        seen.append(state)
        left = tmp_path / f"{len(seen)}.db"
        for suffix, content in state.items():
            if content is not None:
                left.with_name(left.name + suffix).write_bytes(content)
        with contextlib.closing(dao.connect(f"sqlite:///{left}")) as connection:
            assert connection.pragma("integrity_check") == "ok"
            assert connection.pragma("journal_mode") == "wal"
            if rows:
                assert connection.execute("SELECT count(*) FROM kept").get == rows
            connection.execute("CREATE TABLE more (n)")
    assert len(seen) > 5
