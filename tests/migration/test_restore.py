"""Putting a snapshot back: in place, verified, with a snapshot of what it replaces, and never in between."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import DatabaseBusy, DatabaseCorrupt, DiskFull, MigrationError, OperationalError, ReadOnlyDatabase
from dao.migrate.copies import restore as module
from dao.migrate.copies.restore import restore
from dao.migrate.copies.snapshot import prune, row_changes, snapshots, take_snapshot
from dao.migrate.values import Snapshot
from tests.folders import dump as everything
from tests.folders import query
from tests.migration.test_snapshot import NAMES, beside


@pytest.fixture
def filled(path, url, three):
    """A database in WAL mode with three migrations and some rows; its path."""
    migrate.apply(url, three)
    query(path, "INSERT INTO a SELECT value FROM json_each('[1, 2, 3]')")
    return path


@pytest.fixture
def old(filled, url) -> Snapshot:
    """A snapshot, after which the database went on: other rows, another table, one table less."""
    snapshot = take_snapshot(url)
    query(filled, "DELETE FROM a WHERE id > 1")
    query(filled, "DROP TABLE c")
    query(filled, "CREATE TABLE later (x)")
    query(filled, "INSERT INTO later SELECT zeroblob(5000) FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]')")
    return snapshot


def dump(path: Path) -> dict[str, object]:
    """Return what a database holds, but for the history: that goes on."""
    return {name: rows for name, rows in everything(path).items() if name not in {"_dao_history", "_yoyo_log"}}


def content(path: Path) -> object:
    """Return all that a database holds, and whether it is intact."""
    held = dump(path)
    assert held["integrity_check"] == [("ok",)]
    return held


# ---------------------------------------------------------------- in place


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_restore_brings_everything_back(filled, url, old, mode):
    """Schema, rows and ledger are those of the snapshot, in either journal mode.

    The mode stays, and no file is left over.
    """
    query(filled, f"PRAGMA journal_mode = {mode}")
    before = dump(filled)
    done = restore(url)
    assert content(filled) == dump(old.path)
    assert query(filled, "PRAGMA journal_mode") == [("wal" if mode == "wal" else "delete",)]
    assert (done.database, done.source, done.damaged) == (str(filled), old.path, None)
    assert done.replaced is not None
    assert content(done.replaced.path) == before
    assert snapshots(url) == [done.replaced, old]
    assert beside(filled) == sorted([old.path.name, done.replaced.path.name])


def test_restore_of_what_it_replaced_undoes_it(filled, url, old):
    """The newest snapshot is then what was replaced, so restoring again is an undo."""
    before = dump(filled)
    restore(url)
    restore(url)
    assert content(filled) == before


def test_restore_by_id_or_path_takes_that_one(filled, url, old, tmp_path):
    """The beginning of an id chooses among the snapshots; a path may be anywhere, and have any name."""
    newest = take_snapshot(url)
    restore(url, old.id[:-1])
    assert content(filled) == dump(old.path)
    elsewhere = tmp_path / "moved"
    shutil.copy(newest.path, elsewhere)
    restore(url, elsewhere)
    assert content(filled) == dump(newest.path)


@pytest.mark.parametrize("local", ["as it is", "damaged", "gone"])
@pytest.mark.parametrize("form", ["text", "path", "relative"])
def test_restore_path_is_that_file_whatever_is_beside_the_database(
    filled, url, old, tmp_path, monkeypatch, form, local
):
    """The folder of a path was ignored: the file of that name beside the database was restored, or missed."""
    elsewhere = tmp_path / "backup" / old.path.name
    elsewhere.parent.mkdir()
    shutil.copy(old.path, elsewhere)
    if local == "damaged":
        old.path.write_bytes(b"damaged")
    elif local == "gone":
        old.path.unlink()
    monkeypatch.chdir(elsewhere.parent)
    meant = {"text": str(elsewhere), "path": elsewhere, "relative": f"../backup/{elsewhere.name}"}[form]
    done = restore(url, meant)
    assert done.source == elsewhere
    assert content(filled) == dump(elsewhere)


def test_restore_never_changes_the_snapshot(filled, url, old):
    """Its bytes stay as they are, also when something is written into the copy."""
    before = old.path.read_bytes()
    restore(url, amend=lambda copy, _live: copy.execute("DELETE FROM a"))
    assert old.path.read_bytes() == before
    assert query(filled, "SELECT * FROM a") == []


@pytest.mark.parametrize("name", NAMES)
def test_restore_any_file_name_works(tmp_path, three, name):
    """The path is used as it is."""
    connection = apsw.Connection(str(tmp_path / name))
    migrate.apply(connection, three)
    snapshot = take_snapshot(connection)
    connection.execute("DELETE FROM b")
    restore(connection)
    assert connection.execute("SELECT * FROM b").fetchall() == [(2,)]
    connection.close()
    assert content(tmp_path / name) == dump(snapshot.path)


def test_restore_open_connections_see_the_restored_rows(filled, url, old):
    """Connections that are open go on: one that reads with what it saw, all with the restored rows afterwards."""
    idle, reading = dao.connect(url), dao.connect(url)
    assert idle.execute("SELECT count(*) FROM later").get == 10
    reading.execute("BEGIN")
    assert reading.execute("SELECT count(*) FROM a").get == 1
    restore(idle)
    assert idle.execute("SELECT count(*) FROM a").get == 3
    with pytest.raises(apsw.SQLError, match="no such table: later"):
        idle.execute("SELECT * FROM later")
    assert reading.execute("SELECT count(*) FROM a").get == 1
    reading.execute("COMMIT")
    assert reading.execute("SELECT count(*) FROM a").get == 3
    idle.execute("INSERT INTO c VALUES (5)")
    assert reading.execute("SELECT id FROM c").get == 5
    assert idle.pragma("journal_mode") == "wal"
    idle.close()
    reading.close()


def test_restore_wal_that_is_not_checkpointed_is_replaced_and_saved(filled, url, old):
    """Rows that are in the -wal alone are in the snapshot of what was replaced, and gone from the database."""
    connection = dao.connect(url)
    connection.wal_autocheckpoint(0)
    connection.execute("INSERT INTO a VALUES (77)")
    done = restore(connection)
    assert query(done.replaced.path, "SELECT max(id) FROM a") == [(77,)]
    assert connection.execute("SELECT max(id) FROM a").get == 3
    connection.close()
    assert content(filled) == dump(old.path)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_restore_loses_no_commit_between_saving_and_replacing(filled, url, old, mode):
    """What another commits while it runs is in the snapshot of what was replaced, or comes after the restore."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    stop, told, failures = threading.Event(), [], []

    def write_rows() -> None:
        connection = apsw.Connection(str(filled))
        connection.set_busy_timeout(60_000)
        number = 1000
        while not stop.is_set():
            number += 1
            try:
                connection.execute("INSERT INTO a VALUES (?)", (number,))
            except apsw.Error as error:
                failures.append(error)
                break
            told.append(number)
        connection.close()

    thread = threading.Thread(target=write_rows)
    thread.start()
    try:
        done = restore(f"{url}?busy_timeout=60000", old.path)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    saved = {id for (id,) in query(done.replaced.path, "SELECT id FROM a WHERE id > 1000")}
    after = {id for (id,) in query(filled, "SELECT id FROM a WHERE id > 1000")}
    assert saved | after == set(told)
    assert not saved & after


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("size", [512, 16384])
def test_restore_into_a_file_of_another_page_size(filled, url, old, mode, size):
    """The database may have been made anew with another page size since."""
    filled.unlink()
    query(filled, f"PRAGMA page_size = {size}; CREATE TABLE x (id); PRAGMA journal_mode = {mode}")
    connection = apsw.Connection(str(filled))
    restore(connection)
    assert connection.execute("SELECT count(*) FROM a").get == 3
    connection.close()
    assert content(filled) == dump(old.path)


def test_restore_empty_file_needs_no_snapshot_of_it(filled, url, old):
    """Nothing is saved of a database that holds nothing."""
    filled.write_bytes(b"")
    done = restore(url)
    assert (done.replaced, done.damaged) == (None, None)
    assert content(filled) == dump(old.path)


def test_restore_prunes_its_own_kind_but_not_what_it_restored(filled, url, old):
    """The newest copies of replaced databases stay, and so does the one that was restored.

    Snapshots that were asked for do not count.
    """
    asked_for = [take_snapshot(url) for _ in range(3)]
    first, second = (restore(url, old.id, keep=2).replaced for _ in range(2))
    events = []
    third = restore(url, old.id, keep=2, report=events.append).replaced
    assert snapshots(url) == [third, second, *asked_for[::-1], old]
    assert events == [migrate.Removed(first)]
    fourth = restore(url, second.id, keep=1, report=events.append).replaced
    assert snapshots(url) == [fourth, second, *asked_for[::-1], old]
    assert [one.kind for one in snapshots(url)] == ["restore"] * 2 + ["manual"] * 4


# ---------------------------------------------------------------- amend


def test_restore_amend_comes_into_effect_with_the_restore(filled, url, old):
    """What the callback copies from the live database into the copy is there at the same moment as the rows."""
    seen = []

    def amend(copy, live):
        seen.extend([copy.execute("SELECT count(*) FROM a").get, live.execute("SELECT count(*) FROM a").get])
        seen.append(query(filled, "SELECT count(*) FROM a")[0][0])
        other = apsw.Connection(str(filled))
        with pytest.raises(apsw.BusyError):
            other.execute("INSERT INTO a VALUES (4)")
        other.close()
        copy.execute("CREATE TABLE kept (n)")
        with dao.transaction(copy):
            copy.executemany("INSERT INTO kept VALUES (?)", live.execute("SELECT length(x) FROM later"))

    restore(url, amend=amend)
    assert seen == [3, 1, 1]
    assert query(filled, "SELECT count(*), sum(n) FROM kept") == [(10, 50_000)]
    assert query(filled, "SELECT count(*) FROM a") == [(3,)]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_restore_amend_that_fails_changes_nothing(filled, url, old, mode):
    """An error of the callback leaves the database as it was, and unlocked."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    before = dump(filled)

    def amend(copy, _live):
        copy.execute("DELETE FROM a")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        restore(url, amend=amend)
    assert content(filled) == before
    query(filled, "BEGIN IMMEDIATE")
    assert [name for name in beside(filled) if not name.endswith(".snapshot")] == []


def test_row_changes_tells_the_tables_that_differ(filled, url, old):
    """For each table how many rows there are now and in the snapshot; a table that either lacks has None."""
    assert row_changes(url, old.path) == {"a": (1, 3), "c": (None, 0), "later": (10, None)}
    filled.unlink()
    assert row_changes(url, old.path) == {"a": (None, 3), "b": (None, 1), "c": (None, 0)}


# ---------------------------------------------------------------- missing, damaged


def test_restore_file_that_was_deleted_is_made_again(filled, url, old):
    """The database comes back although its file is gone; what lay beside it is not replayed into it."""
    connection = dao.connect(url)
    connection.wal_autocheckpoint(0)
    connection.execute("DELETE FROM b")
    wal = filled.with_name("new.db-wal").read_bytes()
    connection.close()
    filled.unlink()
    filled.with_name("new.db-wal").write_bytes(wal)
    given = []
    done = restore(url, amend=lambda copy, live: given.append(live))
    assert given == [None]
    assert (done.replaced, done.damaged) == (None, None)
    assert content(filled) == dump(old.path)
    kept = [name for name in beside(filled) if name.endswith(".damaged-wal")]
    assert [filled.with_name(name).read_bytes() for name in kept] == [wal]
    dao.connect(url).close()
    assert query(filled, "SELECT * FROM b") == [(2,)]


def test_restore_file_that_appears_meanwhile_is_not_overwritten(filled, url, old):
    """Another program that makes the database at the same time keeps it."""
    filled.unlink()
    with pytest.raises(MigrationError, match="has just been made"):
        restore(url, amend=lambda *_: query(filled, "CREATE TABLE theirs (id)"))
    assert query(filled, "SELECT name FROM sqlite_schema") == [("theirs",)]


def damage_rows(data: bytes) -> bytes:
    """Damage what comes after the first page."""
    return data[:4096] + os.urandom(len(data) - 4096)


#: How a file can be damaged.
DAMAGES = {
    "rows": damage_rows,
    "schema": lambda data: data[:100] + os.urandom(3996) + data[4096:],
    "cut short": lambda data: data[: len(data) // 2],
    "cut within a page": lambda data: data[: len(data) // 2 + 100],
    "header": lambda data: os.urandom(4096) + data[4096:],
    "text": lambda data: b"this is no database\n" * 500,
    "few bytes": lambda data: data[:50],
}


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_restore_damaged_database_is_replaced_and_its_bytes_kept(filled, url, old, mode, damage):
    """However a file is damaged, the snapshot comes back, and the damaged bytes are in a file of their own."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    damaged = DAMAGES[damage](filled.read_bytes())
    filled.write_bytes(damaged)
    done = restore(url)
    assert content(filled) == dump(old.path)
    if damage != "few bytes":  # so few are an empty database to SQLite
        assert done.replaced is None
        assert done.damaged is not None
        assert done.damaged.name.endswith(".damaged")
        assert done.damaged.read_bytes() == damaged
    assert snapshots(url) == [old]
    connection = dao.connect(url)
    connection.execute("INSERT INTO a VALUES (55)")
    connection.close()


def test_restore_damaged_database_without_room_for_its_bytes_changes_nothing(filled, url, old, monkeypatch):
    """If the damaged file cannot be kept, it is not replaced either."""
    damaged = DAMAGES["header"](filled.read_bytes())
    filled.write_bytes(damaged)
    write = os.pwrite

    def fill_up(file: int, data: bytes, offset: int) -> int:
        if data == damaged:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)
    with pytest.raises(OperationalError, match=r"could not be kept \(.*no room left.*\); nothing was changed"):
        restore(url)
    assert filled.read_bytes() == damaged
    assert beside(filled) == [old.path.name]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("damage", DAMAGES)
def test_restore_damaged_snapshot_is_refused_and_nothing_changed(filled, url, old, damage):
    """The live database stays as it is, and no snapshot of it is taken or removed."""
    before = dump(filled)
    old.path.write_bytes(DAMAGES[damage](old.path.read_bytes()))
    with pytest.raises(DatabaseCorrupt, match="snapshot"):
        restore(url)
    assert content(filled) == before
    assert beside(filled) == [old.path.name]


def test_restore_file_whose_copy_cannot_be_opened_is_refused(filled, url, tmp_path):
    """A constraint on a column that is not there passes `integrity_check`, and was a raw error once it was copied."""
    file = tmp_path / "damaged.db"
    file.write_bytes(take_snapshot(url).path.read_bytes().replace(b"CHECK (only = 1)", b"CHECK (onlx = 1)"))
    before = dump(filled)
    with pytest.raises(DatabaseCorrupt, match=r"damaged.db is damaged.*no such column: onlx.*use another one"):
        restore(url, file)
    assert dump(filled) == before


def test_restore_file_whose_ledger_is_not_text_is_refused(filled, url, tmp_path):
    """Bytes that are no UTF-8 in a ledger were a UnicodeDecodeError: the file is damaged."""
    file = tmp_path / "damaged.db"
    shutil.copy(take_snapshot(url).path, file)
    query(file, "UPDATE _dao_migration SET apply_text = CAST(x'ff' AS TEXT)")
    with pytest.raises(DatabaseCorrupt, match=r"damaged.db is damaged.*utf-8.*use another one"):
        restore(url, file)


def test_restore_what_is_no_snapshot_is_refused(filled, url, tmp_path, old):
    """Not there, no database, a database of something else, itself: each refused before anything happens."""
    before = dump(filled)
    text, theirs = tmp_path / "text", tmp_path / "theirs"
    text.write_text("no database" * 1000)
    query(theirs, "CREATE TABLE x (id)")
    for path, kind, message in (
        (text, DatabaseCorrupt, "no SQLite database"),
        (theirs, MigrationError, "not a snapshot"),
        (tmp_path / "nothing", MigrationError, "does not exist"),
        (filled, MigrationError, "from itself"),
    ):
        with pytest.raises(kind, match=message):
            restore(url, path)
    with pytest.raises(MigrationError, match="no snapshot whose id begins with 'x'"):
        restore(url, "x")
    assert content(filled) == before


def test_restore_without_snapshots_says_so(filled, url):
    """There is nothing to restore."""
    with pytest.raises(MigrationError, match="has no snapshots"):
        restore(url)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_restore_locked_database_says_by_whom(filled, url, old, mode):
    """Another connection that keeps the lock is named, and nothing is changed."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    before = dump(filled)
    other = apsw.Connection(str(filled))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy, match=f"held by process {os.getpid()}"):
        restore(f"{url}?busy_timeout=10")
    other.close()
    assert content(filled) == before
    assert beside(filled) == [old.path.name]


def test_restore_waits_for_a_lock_that_is_released(filled, url, old):
    """Within the busy timeout it waits, and reports for whom."""
    other = apsw.Connection(str(filled))
    other.execute("BEGIN IMMEDIATE")
    events = []

    def report(event):
        events.append(event)
        other.execute("ROLLBACK")

    restore(f"{url}?busy_timeout=20000", report=report)
    assert isinstance(events[0], migrate.Waiting)
    assert content(filled) == dump(old.path)
    other.close()


def test_restore_inside_a_transaction_is_refused(url, old):
    """The caller's own transaction would be in the way."""
    connection = dao.connect(url)
    connection.execute("BEGIN")
    with pytest.raises(MigrationError, match="in the middle of a transaction"):
        restore(connection)
    connection.close()


def test_restore_by_a_read_only_url_is_refused(filled, url, old):
    """Who may only read may not restore."""
    with pytest.raises(ReadOnlyDatabase, match="mode=ro"):
        restore(f"{url}?mode=ro")
    with pytest.raises(ValueError, match="keep=0"):
        restore(url, keep=0)
    with pytest.raises(MigrationError, match="in memory"):
        restore("sqlite://")


def test_restore_too_little_room_is_refused_before_anything_is_written(filled, url, old, monkeypatch):
    """Room is needed for the copy, for as much again in the -wal, and for what is replaced."""
    before = dump(filled)
    needed = 2 * old.size + filled.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**9, 10**9, needed))
    with pytest.raises(DiskFull, match=f"restoring {filled} needs"):
        restore(url)
    assert content(filled) == before
    assert beside(filled) == [old.path.name]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_restore_interrupted_or_full_in_the_middle_leaves_the_old_database(filled, url, old, monkeypatch, mode):
    """An error after any number of pages undoes them all, and leaves no lock and no file in the making."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    before = dump(filled)
    for error in (KeyboardInterrupt(), apsw.FullError("full")):
        for pages in range(0, 13, 3):

            def finish(backup, pages=pages, error=error):
                for _ in range(pages):
                    backup.step(1)
                raise error

            monkeypatch.setattr(module, "finish", finish)
            with pytest.raises((KeyboardInterrupt, DiskFull)):
                restore(url, old.path)
            assert content(filled) == before
            query(filled, "BEGIN IMMEDIATE")
            assert [name for name in beside(filled) if not name.endswith(".snapshot")] == []
            prune(url, 0, "restore")
    monkeypatch.undo()
    restore(url, old.path)
    assert content(filled) == dump(old.path)
