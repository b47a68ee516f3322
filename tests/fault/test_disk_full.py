"""Writes that fail, at every one of them: a typed error, and everything is as before."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.errors import DiskFull, MigrationFailed, OperationalError
from dao.migrate.copies.snapshot import snapshots, verify
from tests.fault.full_disk import FullDisk, Room
from tests.folders import THREE, dump, query, write

HEAVY = THREE | {
    "0004_d.sql": "CREATE TABLE d (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)\n"
    "INSERT INTO d SELECT zeroblob(3000) FROM n;",
    "0004_d.rollback.sql": "ALTER TABLE d ADD COLUMN y; UPDATE d SET y = zeroblob(2000); DROP TABLE d;",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database that does not exist, in a folder of its own."""
    (tmp_path / "live").mkdir()
    return tmp_path / "live" / "new.db"


@pytest.mark.sample(3)
@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.redo])
def test_apply_database_that_may_not_grow_is_disk_full_and_nothing_changed(path, tmp_path, verb):
    """On whichever page the room ends, in a script, the ledger or a check: `DiskFull`, and everything is as before."""
    folder = write(tmp_path / "sql", HEAVY)
    if verb is not migrate.apply:
        migrate.apply(f"sqlite:///{path}", folder)
        query(path, "VACUUM")
    else:
        query(path, "CREATE TABLE theirs (id)")
        query(path, "PRAGMA journal_mode = wal")
    before = dump(path)
    (pages,) = query(path, "PRAGMA page_count")[0]
    for limit in range(pages, pages + 60):
        connection = apsw.Connection(str(path))
        connection.pragma("max_page_count", limit)
        try:
            verb(connection, folder, snapshots=0)
            break
        except DiskFull as error:
            message = str(error)
        finally:
            assert not connection.in_transaction
            connection.close()
        # said twice, and of a run whose first migrations were committed alone, it was not so
        assert message.endswith(
            "no room left to write; the write was undone. Free some space and repeat\nNothing was changed."
        )
        assert dump(path) == before
    else:
        pytest.fail("there was never enough room")
    assert limit > pages
    assert dump(path) != before


# ---------------------------------------------------------------- every write


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """What is left on the disk for connections with the VFS "full", and for the snapshots that they take."""
    room = Room(apsw.FullError)
    write = os.pwrite

    def write_if_there_is_room(file: int, data: bytes, offset: int) -> int:
        if room.is_gone(os.fstat(file).st_size, data, offset):
            number = errno.ENOSPC if room.error is apsw.FullError else errno.EIO
            raise OSError(number, os.strerror(number))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", write_if_there_is_room)
    disk = FullDisk(room)
    yield room
    disk.unregister()


def fail_at_each(every: int, path: Path, folder: Path, room: Room, journal: str) -> None:
    """Apply on a file with rows, with room for so many writes more each time, until it succeeds."""
    url = f"sqlite:///{path}"
    migrate.apply(url, folder, steps=2)
    query(path, "CREATE TABLE theirs AS SELECT value AS id, zeroblob(2000) AS x FROM json_each('[1,2,3,4,5,6,7,8]')")
    query(path, f"PRAGMA journal_mode = {journal}")
    before = dump(path)
    expected = (DiskFull,) if room.error is apsw.FullError else (OperationalError, MigrationFailed)
    failed_in = {"snapshot": 0, "run": 0}
    for writes in range(0, 1000, every):
        room.left, room.failed = writes, False
        there = snapshots(url)
        taken = []

        def report(event, taken=taken):
            if isinstance(event, migrate.Snapshotted):
                verify(event.snapshot.path)
                assert dump(event.snapshot.path) == before
                taken.append(event)

        connection = apsw.Connection(str(path), vfs="full")
        try:
            migrate.apply(connection, folder, report=report)
            break
        except expected as error:
            message = str(error)
        finally:
            assert not connection.in_transaction
            room.left = 10_000
            connection.close()
        assert room.failed
        assert room.error is apsw.IOError or "no room left" in message
        assert dump(path) == before
        failed_in["run" if taken else "snapshot"] += 1
        # a run that changed nothing leaves none, if the disk still tells that it did not
        assert snapshots(url) == there or room.error is apsw.IOError
        assert not list(path.parent.glob("*.partial*"))
    assert failed_in["snapshot"] > 10 / every
    assert failed_in["run"] > 10 / every
    assert dump(path) != before
    assert migrate.status(url, folder).is_current


@pytest.mark.parametrize(("error", "journal"), [(apsw.FullError, "wal"), (apsw.IOError, "delete")])
def test_apply_write_that_fails_leaves_everything_as_before(path, tmp_path, room, error, journal):
    """Whichever write fails, the error is typed and nothing is changed.

    The write is of the snapshot, the database, its journal or its WAL.
    """
    room.error = error
    fail_at_each(5, path, write(tmp_path / "sql", HEAVY), room, journal)


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_apply_each_write_that_fails_leaves_everything_as_before(path, tmp_path, room, error, journal):
    """The same, without leaving out a write."""
    room.error = error
    fail_at_each(1, path, write(tmp_path / "sql", HEAVY), room, journal)


# ---------------------------------------------------------------- a real one

_REAL = """
import contextlib, itertools, os, subprocess, sys
import dao
from dao import migrate
from dao.errors import DiskFull
folder, options, what = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
url = f"sqlite:///{folder}/new.db"
migrate.apply(url)
assert sorted(os.listdir(folder)) == ["new.db"]
with contextlib.suppress(OSError):
    if what == "space":
        with open(folder + "/fill", "wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
    else:
        for number in itertools.count():
            open(f"{folder}/{number}", "x").close()
for name, do in {
    "connect": lambda: dao.connect(url).execute("SELECT count(*) FROM tasks").get,
    "read only": lambda: dao.connect(url + "?mode=ro").execute("SELECT count(*) FROM tasks").get,
    "create": lambda: dao.connect(f"sqlite:///{folder}/other.db").execute("SELECT * FROM sqlite_schema").get,
    "status": lambda: migrate.status(url),
    "rollback": lambda: migrate.rollback(url),
    "snapshot": lambda: migrate.take_snapshot(url),
}.items():
    try:
        do()
        print(name, "is possible")
    except DiskFull as error:
        assert "no room" in str(error) or "are free there" in str(error), error
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small file system needs root and Linux")
@pytest.mark.parametrize(("options", "what"), [("size=2m", "space"), ("size=2m,nr_inodes=9", "files")])
def test_disk_that_is_full_at_opening_is_disk_full(tmp_path, options, what):
    """A disk too full to open a database is called full.

    SQLite makes a file beside the database: "disk I/O error", or the permissions, were blamed.
    """
    call = ["unshare", "-m", sys.executable, "-c", _REAL, str(tmp_path), options, what]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("", "")
