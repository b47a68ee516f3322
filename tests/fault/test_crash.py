"""Faults in the middle of a run: killed processes, rivals, a full disk. The database is never in between."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import DiskFull, MigrationFailed, OperationalError
from tests.fault.migrators import DONE, NOTHING_TO_DO, Migrators
from tests.folders import THREE, dump, ids, query, schema, with_fourth, write

FOLDER = migrate.default_folder()
IDS = ids(migrate.load())


@pytest.fixture(scope="module")
def migrators() -> Iterator[Migrators]:
    """Starts processes that migrate."""
    with Migrators() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database that does not exist."""
    return tmp_path / "new.db"


@pytest.fixture
def url(path: Path) -> str:
    """The URL of a database that does not exist."""
    return f"sqlite:///{path}"


# ---------------------------------------------------------------- killed


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The schema after each number of migrations."""
    path = tmp_path_factory.mktemp("schemas") / "x.db"
    found = []
    for steps in range(len(IDS) + 1):
        migrate.apply(f"sqlite:///{path}", steps=min(steps, 1))
        found.append(schema(path))
    return found


def assert_in_one_piece(path: Path, url: str, schemas: list[Any]) -> int:
    """Assert that ledger and schema agree and that nothing holds a lock; return how many migrations are applied."""
    # recovery is a writer's: to look, read-only, may be refused until one has opened the file
    dao.connect(url).close()
    status = migrate.status(url)
    applied = status.ids("applied")
    assert applied == IDS[: len(applied)]
    assert status.ids("pending") == IDS[len(applied) :]
    assert len(status.migrations) == len(IDS)
    connection = apsw.Connection(str(path))  # no busy timeout: a lock that is left would show
    connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    connection.close()
    assert schema(path) == schemas[len(applied)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    return len(applied)


def survive(kills: int, job: str, path: Path, url: str, migrators: Migrators, schemas: list[Any]) -> set[int]:
    """Kill a process that migrates to and fro, so many times; return the numbers of applied migrations that were seen."""
    seen = set()
    moments = random.Random(kills)
    for _ in range(kills):
        pid = migrators.start(job, url, str(FOLDER))
        time.sleep(moments.uniform(0, JOBS[job]))
        migrators.kill(pid)
        if path.exists():
            seen.add(assert_in_one_piece(path, url, schemas))
    migrate.apply(url)
    assert assert_in_one_piece(path, url, schemas) == len(IDS)
    migrate.rollback(url, steps=None)
    assert assert_in_one_piece(path, url, schemas) == 0
    return seen


#: The jobs, and how long one of them goes to and fro, in seconds.
JOBS = {"all_at_once": 0.06, "one_by_one": 0.08, "by_yoyo": 0.3}


@pytest.mark.parametrize("job", JOBS)
def test_kill_9_at_any_moment_leaves_ledger_and_schema_together(path, url, migrators, schemas, job):
    """A run that is killed leaves the schema of before or of after, the ledger that says so, and no lock."""
    seen = survive(8, job, path, url, migrators, schemas)
    assert job != "all_at_once" or seen <= {0, len(IDS)}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_kill_9_three_hundred_times_leaves_ledger_and_schema_together(path, url, migrators, schemas, job):
    """The same, so often that every moment had its turn."""
    seen = survive(300, job, path, url, migrators, schemas)
    assert seen == {0, len(IDS)} if job == "all_at_once" else len(seen) > 2


# ---------------------------------------------------------------- at once


def race(migrators: Migrators, url: str, folder: Path, *jobs: str) -> list[int]:
    """Start four runs of ours, or these jobs, at the same moment and return their exit codes, sorted."""
    moment = time.time() + 0.03
    pids = [migrators.start(job, moment, url, str(folder)) for job in jobs or ["apply_at"] * 4]
    return sorted(migrators.wait(pid) for pid in pids)


def test_apply_four_at_once_on_a_new_file_applies_once(tmp_path, migrators, capfd):
    """Of four runs that begin together on a file that does not exist, one applies and the others find it done."""
    for number in range(6):
        path = tmp_path / f"{number}.db"
        assert race(migrators, f"sqlite:///{path}", FOLDER) == [*[NOTHING_TO_DO] * 3, DONE]
        assert migrate.status(f"sqlite:///{path}").is_current
        assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(IDS),)]
    assert capfd.readouterr().err == ""


def test_yoyo_apply_four_at_once_on_a_new_file_applies_once(tmp_path, migrators, capfd):
    """The stock command on our backend waits for its likes as our own runs do, and runs no script twice."""
    folder = write(tmp_path / "sql", THREE)
    for number in range(8):
        path = tmp_path / f"{number}.db"
        jobs = ["yoyo_apply_at"] * 4
        assert race(migrators, f"sqlite:///{path}", folder, *jobs) == [DONE] * 4
        assert migrate.status(f"sqlite:///{path}", folder).is_current
        assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(THREE) // 2,)]
    assert capfd.readouterr().err == ""


def test_apply_four_at_once_beside_a_reader_and_a_writer_applies_once(tmp_path, path, url, migrators, capfd):
    """Programs that read and write meanwhile see the old schema or the new one, and lose nothing."""
    query(path, "CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
    query(path, "PRAGMA journal_mode = wal")
    seen: set[int] = set()
    written = 0
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        with contextlib.closing(dao.connect(url)) as connection:
            while not stop.is_set():
                tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name GLOB '[abcx]'").get
                seen.add(tables)

    def write_rows() -> None:
        nonlocal written
        with contextlib.closing(dao.connect(f"{url}?busy_timeout=60000")) as connection:
            while not stop.is_set():
                with dao.transaction(connection):
                    connection.execute("INSERT INTO theirs DEFAULT VALUES")
                written += 1

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            failures.append(error)

    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", rollback="DROP TABLE x;")
    threads = [threading.Thread(target=guarded, args=(work,)) for work in (read, write_rows)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert race(migrators, url, folder) == [*[NOTHING_TO_DO] * 3, DONE]
            migrate.rollback(url, folder, steps=None)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert capfd.readouterr().err == ""
    assert seen <= {0, 4}
    assert written > 0
    assert query(path, "SELECT count(*) FROM theirs") == [(written,)]


# ---------------------------------------------------------------- disk full

HEAVY = THREE | {
    "0004_d.sql": "CREATE TABLE d (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)\n"
    "INSERT INTO d SELECT zeroblob(3000) FROM n;",
    "0004_d.rollback.sql": "ALTER TABLE d ADD COLUMN y; UPDATE d SET y = zeroblob(2000); DROP TABLE d;",
}


@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.redo])
def test_apply_database_that_may_not_grow_is_disk_full_and_nothing_changed(path, url, tmp_path, verb):
    """On whichever page the room ends, in a script, the ledger or a check: `DiskFull`, and everything is as before."""
    folder = write(tmp_path / "sql", HEAVY)
    if verb is not migrate.apply:
        migrate.apply(url, folder)
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
            verb(connection, folder)
            break
        except DiskFull as error:
            message = str(error)
        finally:
            assert not connection.in_transaction
            connection.close()
        assert "no room left to write; nothing was changed" in message
        assert dump(path) == before
    else:
        pytest.fail("there was never enough room")
    assert limit > pages
    assert dump(path) != before


class FullDisk(apsw.VFS):
    """A file system on which writing fails with the given error after so many writes; overwriting still works if full."""

    def __init__(self, error: type[apsw.Error]) -> None:
        self.error = error
        self.left = 0
        self.failed = False
        super().__init__("full", "")

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file that notices when the disk is full."""
        return FullFile(self, name, flags)


class FullFile(apsw.VFSFile):
    """A file on the full disk."""

    def __init__(self, disk: FullDisk, name, flags) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - SQLite's name
        """Write, or fail."""
        if self._disk.error is apsw.IOError or offset + len(data) > self.xFileSize():
            if self._disk.left == 0:
                self._disk.failed = True
                raise self._disk.error("no room")
            self._disk.left -= 1
        super().xWrite(data, offset)


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize(
    ("error", "expected"), [(apsw.FullError, DiskFull), (apsw.IOError, (OperationalError, MigrationFailed))]
)
def test_apply_write_that_fails_leaves_everything_as_before(path, tmp_path, journal, error, expected):
    """Whichever write fails, of the database, its journal or its WAL: a typed error, and everything is as before."""
    folder = write(tmp_path / "sql", THREE)
    query(path, "CREATE TABLE theirs (id)")
    query(path, f"PRAGMA journal_mode = {journal}")
    before = dump(path)
    disk = FullDisk(error)
    failures = 0
    for writes in range(200):
        disk.left, disk.failed = writes, False
        connection = apsw.Connection(str(path), vfs="full")
        try:
            migrate.apply(connection, folder)
            break
        except expected:
            assert disk.failed
            failures += 1
        finally:
            disk.left = 10_000
            connection.close()
        assert dump(path) == before
    assert failures > 5
    assert dump(path) != before
    assert migrate.status(f"sqlite:///{path}", folder).is_current
    disk.unregister()
