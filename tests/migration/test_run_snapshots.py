"""The snapshot that a run takes before it changes a file which holds rows: one, of the state before, and verified."""

from __future__ import annotations

import contextlib
import shutil
import threading
from types import SimpleNamespace

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import CheckFailed, DiskFull, MigrationFailed
from dao.migrate.copies import snapshot as snapshot_module
from dao.migrate.lock import MigrationLock
from tests.folders import ALONE, IDS, dump, ids, query, tables, write

#: A second part for the three migrations: in the transaction, alone with keys enforced, and outside of one.
MORE = {
    "0004_d.sql": "CREATE TABLE d (id);",
    "0004_d.rollback.sql": "DROP TABLE d;",
    "0005_e.sql": "-- foreign_keys: on\nCREATE TABLE e (id);",
    "0005_e.rollback.sql": "DROP TABLE e;",
    "0006_f.sql": ALONE + "CREATE TABLE f (id);",
    "0006_f.rollback.sql": "DROP TABLE f;",
}


@pytest.fixture
def folder(url, path, three):
    """The folder of three migrations, which are applied to a database that holds rows since, and of three to come."""
    migrate.apply(url, three)
    query(path, "INSERT INTO a VALUES (1), (2)")
    return write(three, MORE)


def taken(path):
    """Return how many files of snapshots there are, complete or not."""
    return [name.name for name in path.parent.iterdir() if ".snapshot" in name.name or ".partial" in name.name]


RUNS = {
    "apply": (migrate.apply, 0, {}),
    "apply each": (migrate.apply, 0, {"each": True}),
    "rollback": (migrate.rollback, 6, {"steps": 3}),
    "rollback each": (migrate.rollback, 6, {"steps": 3, "each": True}),
    "redo": (migrate.redo, 6, {"steps": 3}),
    "reset": (migrate.reset, 1, {}),
}


@pytest.mark.parametrize(("verb", "applied", "arguments"), RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("owner", ["url", "connection"])
def test_run_takes_one_snapshot_of_the_state_before(path, url, folder, owner, verb, applied, arguments):
    """However many transactions a run has, it takes one snapshot, and reports it.

    The snapshot holds what was there before.
    """
    if applied == 6:
        migrate.apply(url, folder, snapshots=0)
    if verb is migrate.reset:
        for name in ("0005_e.sql", "0006_f.sql", "0005_e.rollback.sql", "0006_f.rollback.sql"):
            (folder / name).unlink()
    before = dump(path)
    last = query(path, "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc DESC LIMIT 1")[0][0]
    events = []
    target = dao.connect(url) if owner == "connection" else url
    verb(target, folder, report=events.append, **arguments)
    (snapshot,) = migrate.snapshots(url)
    assert dump(snapshot.path) == before
    assert snapshot.version == last
    assert events[0] == migrate.Snapshotted(snapshot)
    assert sum(isinstance(event, migrate.Snapshotted) for event in events) == 1
    assert dump(path) != before


def test_apply_new_database_takes_no_snapshot(path, url, three):
    """There is nothing to save of a database that does not exist."""
    migrate.apply(url, three)
    assert taken(path) == []


@pytest.mark.parametrize(
    "setup", ["", "CREATE TABLE theirs (id)", "CREATE TABLE a (id); CREATE VIEW v AS SELECT 1 AS x"]
)
def test_apply_database_without_rows_takes_no_snapshot(path, url, tmp_path, setup):
    """Nor of one without rows; the ledger's own do not count."""
    query(path, setup or "PRAGMA user_version = 1")
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE x (id);"})
    migrate.apply(url, folder)
    write(folder, {"2.sql": "INSERT INTO x VALUES (1);"})
    migrate.apply(url, folder)
    assert taken(path) == []
    write(folder, {"3.sql": "INSERT INTO x VALUES (2);"})
    migrate.apply(url, folder)
    assert len(taken(path)) == 1


def test_apply_database_with_rows_of_somebody_else_takes_one(path, url, three):
    """Rows are rows, whoever wrote them, also before the first migration."""
    query(path, "CREATE TABLE theirs (id); INSERT INTO theirs VALUES (1)")
    migrate.apply(url, three)
    (snapshot,) = migrate.snapshots(url)
    assert snapshot.version == "empty"
    assert tables(snapshot.path) == ["theirs"]


@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.redo])
def test_run_with_nothing_to_do_takes_no_snapshot(path, url, three, verb):
    """What changes nothing saves nothing."""
    migrate.apply(url, three, steps=0 if verb is not migrate.apply else None)
    query(path, "CREATE TABLE IF NOT EXISTS a (id); INSERT INTO a VALUES (1)")
    assert verb(url, three) == []
    assert taken(path) == []


def test_run_that_finds_nothing_to_do_under_the_lock_takes_no_snapshot(path, url, folder, monkeypatch):
    """Of two runs that begin at once, the second finds nothing left, and saves nothing."""
    original = MigrationLock.take

    def late(lock):
        monkeypatch.setattr(MigrationLock, "take", original)
        migrate.apply(url, folder, snapshots=0)
        original(lock)

    monkeypatch.setattr(MigrationLock, "take", late)
    assert migrate.apply(url, folder) == []
    assert taken(path) == []


@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.redo])
def test_run_without_snapshots_takes_none(path, url, folder, verb):
    """Nor does a run that is told to take none."""
    assert verb(url, folder, snapshots=0)
    assert taken(path) == []


def test_run_database_in_memory_takes_none(folder):
    """There is no file to put beside it."""
    connection = dao.connect("sqlite://")
    connection.execute("CREATE TABLE theirs (id); INSERT INTO theirs VALUES (1)")
    assert len(migrate.apply(connection, folder)) == 6
    connection.close()


def test_run_keeps_the_newest(path, url, folder):
    """So many are kept as were asked for, the newest, and a refused run's is one of them."""
    migrate.apply(url, folder, snapshots=0)
    kept = []
    for _ in range(4):
        migrate.redo(url, folder, snapshots=2)
        newest, *others = migrate.snapshots(url)
        assert others == kept[:1]
        kept = [newest, *others]
    assert len(taken(path)) == 2


def test_run_pushes_out_no_snapshot_for_equal_ones_of_killed_runs(path, url, folder):
    """Snapshots of runs that were killed before they changed anything count once.

    Three of them pushed out all that was older.
    """
    older = []
    for number in (4, 5):
        with contextlib.closing(dao.connect(url)) as connection:
            older.append(snapshot_module.save(connection, str(path), kind="run"))
        query(path, f"INSERT INTO a VALUES ({number})")
    for _ in range(4):
        with contextlib.closing(dao.connect(url)) as connection:
            snapshot_module.save(connection, str(path), kind="run")
    migrate.apply(url, folder, snapshots=3)
    assert [kept.id for kept in migrate.snapshots(url)][1:] == [kept.id for kept in reversed(older)]


def test_apply_run_that_changes_nothing_leaves_the_snapshots_as_they_were(path, url, folder):
    """However often it fails: neither does its own snapshot stay, nor is an older one pushed out by it."""
    write(folder, {"0004_d.sql": "DROP TABLE a;"})
    before = dump(path)
    older = [migrate.take_snapshot(url) for _ in range(3)]
    for _ in range(2):
        with pytest.raises(CheckFailed, match="Nothing was changed"):
            migrate.apply(url, folder)
    assert migrate.snapshots(url) == older[::-1]
    assert dump(path) == before


def test_apply_snapshot_while_another_writes_holds_what_is_committed(path, url, folder):
    """A writer at work loses nothing.

    The snapshot has all that it committed before the lock, and the database the rest.
    """
    stop = threading.Event()
    written = []

    def write_on():
        writer = dao.connect(url)
        number = 1000
        while not stop.is_set():
            try:
                writer.execute("INSERT INTO a VALUES (?)", (number,))
            except apsw.BusyError:
                continue
            written.append(number)
            number += 1
        writer.close()

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        while len(written) < 5:
            pass
        migrate.apply(url, folder, steps=1)
    finally:
        stop.set()
        thread.join()
    (snapshot,) = migrate.snapshots(url)
    saved = [id for (id,) in query(snapshot.path, "SELECT id FROM a ORDER BY id")]
    assert len(saved) >= 7
    assert saved == [1, 2, *written[: len(saved) - 2]]
    assert [id for (id,) in query(path, "SELECT id FROM a ORDER BY id")] == [1, 2, *written]


@pytest.mark.parametrize("verb", ["apply", "rollback", "redo", "reset"])
def test_run_without_room_for_the_snapshot_changes_nothing(path, url, three, monkeypatch, verb):
    """A full disk stops the run before anything changes, which it says once, and how to go on without a snapshot."""
    migrate.apply(url, three)
    query(path, "INSERT INTO a VALUES (1)")
    write(three, {"0004_d.sql": "CREATE TABLE d (id);"})
    before = dump(path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=100))
        with pytest.raises(DiskFull, match=r"--no-snapshot, DATABASE_SNAPSHOTS=0\)\nNothing was changed\.$") as refused:
            getattr(migrate, verb)(url, three)
    assert str(refused.value).lower().count("nothing was changed") == 1
    assert dump(path) == before
    assert taken(path) == []
    assert getattr(migrate, verb)(url, three, snapshots=0)


def test_run_whose_snapshot_does_not_verify_changes_nothing(path, url, folder, monkeypatch):
    """A copy that is not what it should be is no reason to go on."""

    def differ(*_arguments):
        raise MigrationFailed("the copy differs", migration="", path=None)

    monkeypatch.setattr(snapshot_module, "compare", differ)
    before = dump(path)
    with pytest.raises(MigrationFailed, match="the copy differs"):
        migrate.apply(url, folder)
    assert dump(path) == before
    assert taken(path) == []


def test_apply_snapshot_can_be_restored(path, url, folder):
    """What a run took brings back what was there before it."""
    before = query(path, "SELECT * FROM a")
    migrate.apply(url, folder)
    query(path, "DELETE FROM a")
    migrate.restore(url)
    assert query(path, "SELECT * FROM a") == before
    assert tables(path) == ["a", "b", "c"]
    assert migrate.status(url, folder).ids("applied") == IDS
    assert ids(migrate.apply(url, folder)) == ["0004_d", "0005_e", "0006_f"]
