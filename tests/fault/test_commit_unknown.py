"""Writes, syncs and deletions of files fail, and the error tells what the file then holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import dao
from dao import Task, TaskStatus, aio, migrate, tasks
from dao.migrate.copies.snapshot import snapshots
from tests.folders import ALONE, IDS, THREE, dump, ids, query, with_fourth, write


class Disk(apsw.VFS):
    """The file system of every connection that is opened meanwhile.

    After a given number of operations it fails, once or from then on.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.for_ever = False
        self.failed = 0
        super().__init__("failing", "unix", makedefault=True)

    def fail_after(self, deeds: int | None, *, for_ever: bool = False) -> None:
        """Fail after so many writes, syncs and deletions; None: never."""
        self.left, self.for_ever, self.failed = deeds, for_ever, 0

    def deed(self) -> None:
        """Count one, or fail."""
        if self.left is None:
            return
        if self.left > 0:
            self.left -= 1
            return
        self.left = 0 if self.for_ever else None
        self.failed += 1
        raise apsw.IOError("the disk fails")

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file."""
        return DiskFile(self, name, flags)

    def xDelete(self, name, syncdir):  # noqa: N802 - SQLite's name
        """Delete a file, or fail."""
        self.deed()
        super().xDelete(name, syncdir)


class DiskFile(apsw.VFSFile):
    """A file on the disk."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - SQLite's name
        """Write, or fail."""
        self.disk.deed()
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802 - SQLite's name
        """Sync, or fail."""
        self.disk.deed()
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that can be made to fail."""
    disk = Disk()
    yield disk
    disk.unregister()


# ---------------------------------------------------------------- what writes

#: Opens a database, calls the second argument, and writes.
Way = Callable[[str, Callable[[], object]], object]
FIRST = Task(title="first", task_type="agent")


def create(connection: apsw.Connection) -> None:
    """Write one row."""
    tasks.create(connection, Task(title="a", task_type="agent"))


def on_connection(function: Callable[[apsw.Connection], object]) -> Way:
    """Return what runs a function on a connection of its own: the caller's with a rollback journal, or one of ours."""

    def way(url: str, arm: Callable[[], object]) -> None:
        path = url.removeprefix("sqlite:///").partition("?")[0]
        if path.endswith("delete.db"):
            connection = apsw.Connection(path)
            connection.pragma("synchronous", url.rpartition("=")[2])
        else:
            connection = dao.connect(url)
        try:
            tasks.exists(connection, "")
            arm()
            function(connection)
        finally:
            with contextlib.suppress(apsw.IOError):  # SQLite itself passes over what fails when it closes
                connection.close()

    return way


def transaction(connection: apsw.Connection) -> None:
    """Write two rows in one transaction."""
    with dao.transaction(connection):
        create(connection)
        create(connection)


def pool_write(url: str, arm: Callable[[], object]) -> None:
    """Write in the pool's thread."""
    with dao.Pool(url) as pool:
        pool.write(tasks.exists, "")
        arm()
        pool.write(create)


def aio_write(url: str, arm: Callable[[], object], *, shared: bool = True) -> None:
    """Write in the thread of a pool for tasks, or on one of its connections."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            how = pool.write if shared else pool.run
            await how(tasks.exists, "")
            arm()
            await how(create)

    asyncio.run(main())


WAYS: dict[str, Way] = {
    "create": on_connection(create),
    "create_many": on_connection(lambda connection: tasks.create_many(connection, [Task(title="a", task_type="b")])),
    "set_status": on_connection(lambda connection: tasks.set_status(connection, FIRST.id, TaskStatus.RUNNING)),
    "delete": on_connection(lambda connection: tasks.delete(connection, FIRST.id)),
    "transaction": on_connection(transaction),
    "Pool.write": pool_write,
    "aio.Pool.write": aio_write,
    "aio.Pool.run": lambda url, arm: aio_write(url, arm, shared=False),
}


@pytest.fixture
def first(database: Path) -> bytes:
    """The content of a database with a task."""
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        tasks.create(connection, FIRST)
    return database.read_bytes()


def rows(path: Path) -> list[Any]:
    """Return the rows that the next who opens the file finds, after a word on its soundness."""
    [(sound,), *found] = query(path, "PRAGMA integrity_check; SELECT id, title, status FROM tasks ORDER BY id")
    assert sound == "ok"
    return found


def outcome(disk: Disk, way: Way, path: Path, url: str, deeds: int | None, *, for_ever: bool) -> tuple[Any, bool]:
    """Write, with the disk failing after so many deeds. Return the error and whether the rows changed in the end."""
    error = None
    try:
        way(url, lambda: disk.fail_after(deeds, for_ever=for_ever))
    except dao.Error as raised:
        error = raised
    finally:
        disk.left = None
    return error, rows(path) != [(FIRST.id, FIRST.title, "pending")]


# ---------------------------------------------------------------- what is told

#: Journal mode, synchronous, and whether the disk fails once or from then on. In this order a sample of one in two has
#: other ways with either journal.
CASES = [
    (journal, sync, ever) for journal in ("wal", "delete") for sync in ("normal", "full") for ever in (False, True)
]
QUICK = [("wal", "full", True), ("delete", "full", True)]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("journal", "synchronous", "for_ever", "way"),
    [
        pytest.param(*case, way, marks=() if case in QUICK else pytest.mark.slow)
        for case in CASES
        for way in WAYS
        if case[0] == "wal" or "Pool" not in way  # a pool's connections use WAL
    ],
)
def test_any_deed_of_the_disk_that_fails_leaves_what_is_told(
    disk, tmp_path, first, way, journal, synchronous, for_ever
):
    """Success means stored, each error that nothing is stored, but for `CommitUnknown`, which tells neither.

    "Nothing is stored: safe to repeat" was told of what the next program found in the file.
    """
    seen = set()
    for deeds in range(60):
        path = tmp_path / f"{deeds}.{journal}.db"
        path.write_bytes(first)
        url = f"sqlite:///{path}?synchronous={synchronous}"
        error, stored = outcome(disk, WAYS[way], path, url, deeds, for_ever=for_ever)
        if not disk.failed:
            break
        seen.add((type(error), stored))
        assert (error is None) <= stored
        assert isinstance(error, dao.CommitUnknown | None) or not stored
    assert error is None
    assert stored
    assert (dao.CommitUnknown, False) in seen
    # the sync failed after the whole commit was written, and so did all that would have taken it back
    assert ((dao.CommitUnknown, True) in seen) == ((journal, synchronous, for_ever) == ("wal", "full", True))


def spill(connection: apsw.Connection) -> None:
    """Write more than is held in memory."""
    connection.pragma("cache_size", 5)
    for number in range(60):
        tasks.create(connection, Task(title=f"{number} " + "x" * 400, task_type="agent"))


@pytest.mark.parametrize(
    "begin", [dao.transaction, lambda connection: connection], ids=["dao.transaction", "apsw's own"]
)
def test_write_in_a_transaction_that_fails_before_its_commit_is_not_stored(disk, database, url, begin):
    """The outcome is known: SQLite undoes the transaction, and `CommitUnknown` would be wrong."""
    connection = dao.connect(url)
    tasks.create(connection, FIRST)
    disk.fail_after(20, for_ever=True)
    with pytest.raises((dao.OperationalError, apsw.SQLError)) as caught, begin(connection):
        spill(connection)
    assert disk.failed
    disk.fail_after(None)
    errors = [caught.value, caught.value.__context__]
    assert any(type(error) is dao.OperationalError for error in errors)
    assert not any(isinstance(error, dao.CommitUnknown) for error in errors)
    connection.close()
    assert rows(database) == [(FIRST.id, FIRST.title, "pending")]


@pytest.mark.parametrize("nested", [False, True])
def test_transaction_that_cannot_be_rolled_back_raises_the_blocks_own_exception(disk, database, nested):
    """SQLite ends it all the same, and undoes the rest when the file is next read; its I/O error came instead."""

    def fail(connection: apsw.Connection) -> None:
        spill(connection)
        disk.fail_after(0, for_ever=True)
        raise ValueError("own")

    connection = apsw.Connection(str(database))
    connection.pragma("journal_mode", "delete")
    with contextlib.ExitStack() as blocks:
        if nested:
            blocks.enter_context(pytest.raises(dao.OperationalError, match="rolled this transaction back"))
            blocks.enter_context(dao.transaction(connection))
            create(connection)
        with pytest.raises(ValueError, match="own"), dao.transaction(connection):
            fail(connection)
        disk.fail_after(None)
    assert not connection.in_transaction
    create(connection)
    connection.close()
    assert len(rows(database)) == 1


def test_run_in_transaction_unknown_outcome_is_not_replayed(disk, database, url):
    """A function whose commit may be stored is not run again."""
    ran = []

    def function(connection: apsw.Connection) -> None:
        ran.append(connection)
        create(connection)

    with dao.Pool(url) as pool, pool.acquire() as connection:
        tasks.exists(connection, "")
        disk.fail_after(0)
        with pytest.raises(dao.CommitUnknown, match="cannot be known") as caught:
            dao.run_in_transaction(connection, function)
        assert isinstance(caught.value.__cause__, apsw.IOError)
        # the connection goes on, and the next commit settles it
        create(connection)
    assert len(ran) == 1
    assert len(rows(database)) == 1


# ---------------------------------------------------------------- migrations


@pytest.mark.parametrize("journal", ["wal", pytest.param("delete", marks=pytest.mark.slow)])
def test_apply_any_deed_of_the_disk_that_fails_leaves_what_is_told(disk, tmp_path, journal):
    """An unknown commit of a run is called that, keeps its snapshot, and the run is repeated without harm."""
    folder = write(tmp_path / "sql", THREE)
    (tmp_path / "live").mkdir()
    path = tmp_path / "live" / "a.db"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", journal)
    migrate.apply(connection, folder, steps=1)
    connection.execute("INSERT INTO a DEFAULT VALUES")
    connection.close()
    content, before = path.read_bytes(), dump(path)
    seen = set()
    for deeds in range(0, 200, 2 if journal == "wal" else 7):
        path.write_bytes(content)
        for old in path.parent.glob("a.db?*"):
            old.unlink()
        connection = apsw.Connection(str(path))
        connection.pragma("synchronous", "full")
        error = None
        # armed when the snapshot is there, which has tests of its own
        try:
            migrate.apply(connection, folder, report=lambda event, deeds=deeds: arm(disk, event, deeds))
        except dao.Error as raised:
            error = raised
        finally:
            with contextlib.suppress(apsw.IOError):
                connection.close()
            disk.left = None
        done = dump(path) != before
        seen.add((type(error), done))
        assert (error is None) <= done
        if isinstance(error, dao.CommitUnknown):
            assert "dao status" in str(error)
            assert "Nothing was changed" not in str(error)
            assert snapshots(f"sqlite:///{path}")
        elif error is not None:
            assert not done
        migrate.apply(f"sqlite:///{path}", folder)
        assert applied(path) == IDS
        if not disk.failed:
            break
    assert error is None
    assert (dao.CommitUnknown, journal == "wal") in seen


@pytest.mark.parametrize("journal", ["wal", pytest.param("delete", marks=pytest.mark.slow)])
def test_restore_any_deed_of_the_disk_that_fails_leaves_what_is_told(disk, tmp_path, journal):
    """A restore is one commit, too: of one that failed in the middle it is known that all is as before."""
    folder, path = write(tmp_path / "sql", THREE), tmp_path / "a.db"
    url = f"sqlite:///{path}"
    migrate.apply(url, folder, steps=1)
    query(path, "INSERT INTO a DEFAULT VALUES")
    query(path, f"PRAGMA journal_mode = {journal}")
    snapshot = migrate.take_snapshot(url)
    query(path, "INSERT INTO a DEFAULT VALUES; CREATE TABLE more AS SELECT zeroblob(9000)")
    content = path.read_bytes()
    seen = set()
    for deeds in range(0, 100, 2):
        path.write_bytes(content)
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        error = None
        try:
            migrate.restore(url, snapshot.path, amend=lambda *_, deeds=deeds: disk.fail_after(deeds, for_ever=True))
        except dao.Error as raised:
            error = raised
        except SystemError as raised:  # of apsw, for what a disk in Python raises as a backup is undone
            error = raised.__cause__.__context__
        finally:
            disk.left = None
        restored = query(path, "SELECT count(*) FROM a") == [(1,)]
        seen.add((type(error), restored))
        assert (error is None) <= restored
        assert isinstance(error, dao.CommitUnknown | None) or not restored
        if not disk.failed:
            break
    assert error is None
    assert {(dao.CommitUnknown, False), (dao.CommitUnknown, True)} <= seen


def applied(path: Path) -> list[str]:
    """Return the ids in the ledger."""
    return [id for (id,) in query(path, "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc")]


def arm(disk: Disk, event: migrate.Event, deeds: int) -> None:
    """Let the disk fail for ever after so many deeds from the snapshot on."""
    if isinstance(event, migrate.Snapshotted):
        disk.fail_after(deeds, for_ever=True)


class Told(Exception):
    """What a report raises."""


def tell_wrong(kind: type, after: int = 0) -> Callable[[migrate.Event], None]:
    """Return a report that raises when it is told of such an event, after so many of them."""
    told = []

    def report(event: migrate.Event) -> None:
        if isinstance(event, kind):
            told.append(event)
            if len(told) > after:
                raise Told(kind.__name__)

    return report


@pytest.mark.parametrize("kind", [migrate.Snapshotted, migrate.Started, migrate.Finished])
def test_apply_report_that_raises_before_the_commit_undoes_the_run(tmp_path, kind):
    """Its exception comes through, and nothing is changed."""
    folder, path = write(tmp_path / "sql", THREE), tmp_path / "a.db"
    migrate.apply(f"sqlite:///{path}", folder, steps=1)
    query(path, "INSERT INTO a DEFAULT VALUES")
    before = dump(path)
    with pytest.raises(Told) as caught:
        migrate.apply(f"sqlite:///{path}", folder, report=tell_wrong(kind))
    assert not hasattr(caught.value, "__notes__")
    assert dump(path) == before
    assert not snapshots(f"sqlite:///{path}")


def test_apply_report_that_raises_between_two_transactions_says_what_stays(tmp_path):
    """What was committed before is not undone, and the exception has a note of it."""
    folder, path = write(tmp_path / "sql", THREE), tmp_path / "a.db"
    with pytest.raises(Told) as caught:
        migrate.apply(f"sqlite:///{path}", folder, each=True, report=tell_wrong(migrate.Started, after=2))
    assert applied(path) == IDS[:2]
    assert caught.value.__notes__ == [f"These stay committed: {IDS[0]}, {IDS[1]}."]


def test_apply_report_that_raises_after_the_commit_is_logged(tmp_path, caplog):
    """A script outside of a transaction is committed when its end is told: that cannot fail the run any more."""
    folder, path = with_fourth(tmp_path / "sql", f"{ALONE}CREATE TABLE d (x);"), tmp_path / "a.db"
    results = migrate.apply(f"sqlite:///{path}", folder, report=tell_wrong(migrate.Finished, after=3))
    assert ids(results) == applied(path) == [*IDS, "0004_x"]
    assert [(record.levelname, record.exc_info[0]) for record in caplog.records] == [("ERROR", Told)]


def test_apply_report_that_raises_at_a_removed_snapshot_is_logged(tmp_path, caplog):
    """Old snapshots go after the commit: what `report` raises then is nobody's failure."""
    folder, path = write(tmp_path / "sql", THREE), tmp_path / "a.db"
    migrate.apply(f"sqlite:///{path}", folder, steps=1)
    query(path, "INSERT INTO a DEFAULT VALUES")
    migrate.apply(f"sqlite:///{path}", folder, steps=1)
    assert migrate.apply(f"sqlite:///{path}", folder, snapshots=1, report=tell_wrong(migrate.Removed))
    assert applied(path) == IDS
    assert [record.exc_info[0] for record in caplog.records] == [Told]
    assert len(snapshots(f"sqlite:///{path}")) == 1


VERBS = {
    "apply": lambda url, folder: migrate.apply(url, folder, snapshots=1),
    "take_snapshot": lambda url, folder: migrate.take_snapshot(url, keep=1),
    "restore": lambda url, folder: migrate.restore(url, keep=1),
}
#: What their snapshots are named.
KINDS = {"apply": ".run", "take_snapshot": "", "restore": ".restore"}


@pytest.mark.parametrize("verb", VERBS)
def test_old_snapshot_that_cannot_be_removed_fails_nobody(tmp_path, caplog, verb):
    """The snapshot, the run or the restore is done by then: it says so, and the old one is logged.

    It raised, and `dao migrate` ended with 1 although all was committed.
    """
    folder, path = write(tmp_path / "sql", THREE), tmp_path / "a.db"
    url = f"sqlite:///{path}"
    migrate.apply(url, folder, steps=1)
    query(path, "INSERT INTO a DEFAULT VALUES")
    old = migrate.take_snapshot(url).path
    stuck = old.with_name(old.name.replace("a.db.2", "a.db.1").replace(".0001_a.", f".0001_a{KINDS[verb]}."))
    stuck.mkdir()
    assert VERBS[verb](url, folder)
    assert stuck.is_dir()
    assert applied(path) == (IDS if verb == "apply" else IDS[:1])
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert str(stuck) in record.getMessage()
