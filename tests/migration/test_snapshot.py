"""Taking, listing, checking and removing snapshots: copies beside the database, verified before they have a name."""

from __future__ import annotations

import contextlib
import dis
import errno
import fcntl
import hashlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra
import pytest

import dao
from dao import migrate
from dao.errors import DatabaseBusy, DatabaseCorrupt, DiskFull, MigrationError, OperationalError
from dao.migrate.copies import copying, descriptors, new_files
from dao.migrate.copies.snapshot import find, prune, snapshots, take_snapshot, verify
from dao.migrate.values import Snapshot
from tests.folders import dump, query, with_fourth

# every name on its own: one that is cut off by ? or # would be another file
NAMES = [
    "my data.db",
    "a#b.db",
    "a?mode=memory.db",
    "50%20.db",
    "Größe 日本.db",
    "it's.db",
    "file:x.db",
    "[a]*.db",
    "%s{}.db",
]


@pytest.fixture
def filled(path, url, three):
    """A database in WAL mode with three migrations and some rows; its path."""
    migrate.apply(url, three)
    query(path, "INSERT INTO a SELECT value FROM json_each('[1, 2, 3]')")
    query(path, "PRAGMA user_version = 7")
    return path


def beside(path: Path) -> list[str]:
    """Return the names of the files beside a database that it did not make itself."""
    own = {path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"}
    return sorted(entry.name for entry in path.parent.iterdir() if entry.is_file() and entry.name not in own)


def dbhash(path: Path) -> str:
    """Return what SQLite's own tool makes of a database's content."""
    tool = apsw.sqlite_extra.path("sqlite3_dbhash")
    return subprocess.run([tool, str(path)], capture_output=True, text=True, check=True).stdout.split()[0]


# ---------------------------------------------------------------- take


def test_take_holds_all_that_the_database_holds(filled, url):
    """A snapshot has the schema, the rows, the ledger and the header's numbers.

    SQLite's own tool gives it the same hash.
    """
    snapshot = take_snapshot(url)
    assert dump(snapshot.path) == dump(filled)
    assert dbhash(snapshot.path) == dbhash(filled)
    verify(snapshot.path)


def test_take_names_the_file_by_time_version_and_checksum(filled, url):
    """The name says when, at which migration, and what the file's bytes hash to; nothing else is left beside it."""
    snapshot = take_snapshot(url)
    digest = hashlib.sha256(snapshot.path.read_bytes()).hexdigest()[:16]
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z", snapshot.id)
    assert snapshot.path == filled.with_name(f"new.db.{snapshot.id}.0003_c.{digest}.snapshot")
    assert (snapshot.version, snapshot.size) == ("0003_c", snapshot.path.stat().st_size)
    assert snapshot.taken_at.strftime("%Y%m%dT%H%M%S") == snapshot.id[:15]
    assert beside(filled) == [snapshot.path.name]


def test_take_database_without_migrations_is_named_empty(path, url):
    """Tables that no migration made are worth a snapshot too."""
    query(path, "CREATE TABLE theirs (id)")
    snapshot = take_snapshot(url)
    assert snapshot.version == "empty"
    verify(snapshot.path)


@pytest.mark.parametrize(
    ("version", "named"), [("a/b c.d", "a_b_c_d"), ("x" * 300, "x" * 100), ("é" * 300, "é" * 50), ("..", "_")]
)
def test_take_version_becomes_part_of_a_name(filled, url, version, named):
    """Whatever a migration is called, the name has no separators and is not too long."""
    snapshot = take_snapshot(url, version=version)
    assert snapshot.version == named
    assert snapshots(url) == [snapshot]


@pytest.mark.parametrize("length", [180, 204])
def test_take_long_name_shortens_the_version(tmp_path, three, length):
    """There is room for the time and the checksum; the version takes what is left."""
    path = tmp_path / ("n" * length)
    migrate.apply(f"sqlite:///{path}", three)
    snapshot = take_snapshot(f"sqlite:///{path}")
    assert snapshots(f"sqlite:///{path}") == [snapshot]
    assert dump(snapshot.path) == dump(path)


@pytest.mark.parametrize("name", NAMES)
def test_take_any_file_name_works(tmp_path, three, name):
    """The path is used as it is, in the connection, the tools and the list."""
    connection = apsw.Connection(str(tmp_path / name))
    migrate.apply(connection, three)
    snapshot = take_snapshot(connection)
    assert snapshot.path.parent == tmp_path
    assert snapshot.path.name.startswith(f"{name}.{snapshot.id}.")
    assert snapshots(connection) == [snapshot]
    verify(snapshot.path)
    assert dump(snapshot.path) == dump(tmp_path / name)
    connection.close()


def test_take_wal_that_is_not_checkpointed_is_in_the_copy(filled, url):
    """Rows that are in the -wal alone are part of the database, and the copy needs no file beside it."""
    connection = dao.connect(url)
    connection.wal_autocheckpoint(0)
    connection.execute("INSERT INTO a VALUES (99)")
    snapshot = take_snapshot(connection)
    assert query(snapshot.path, "SELECT max(id) FROM a") == [(99,)]
    assert query(snapshot.path, "PRAGMA journal_mode") == [("delete",)]
    assert beside(filled) == [snapshot.path.name]
    connection.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_take_inside_the_callers_write_transaction_has_what_was_committed(filled, mode):
    """The run that takes it holds the lock and has written already: none of that is in the copy, and it goes on."""
    connection = apsw.Connection(str(filled))
    connection.pragma("journal_mode", mode)
    before = dump(filled)
    connection.execute("BEGIN IMMEDIATE; INSERT INTO a VALUES (99)")
    snapshot = take_snapshot(connection)
    assert connection.in_transaction
    connection.execute("COMMIT")
    connection.close()
    assert dump(snapshot.path) == before
    assert query(filled, "SELECT max(id) FROM a") == [(99,)]


def test_take_while_others_write_is_one_state_of_the_database(filled, url):
    """A copy made under load is what some transaction left: each adds a row to two tables."""
    stop = threading.Event()

    def write_rows() -> None:
        connection = dao.connect(url)
        number = 100
        while not stop.is_set():
            number += 1
            with dao.transaction(connection):
                connection.execute("INSERT INTO a VALUES (?)", (number,))
                connection.execute("INSERT INTO c VALUES (?)", (number,))
        connection.close()

    thread = threading.Thread(target=write_rows)
    thread.start()
    try:
        taken = [take_snapshot(url, keep=9) for _ in range(4)]
    finally:
        stop.set()
        thread.join()
    for snapshot in taken:
        assert query(snapshot.path, "SELECT * FROM a WHERE id > 100 EXCEPT SELECT * FROM c") == []
        assert query(snapshot.path, "SELECT * FROM c WHERE id > 100 EXCEPT SELECT * FROM a") == []


@pytest.mark.parametrize("table", ["b", "_dao_migration"])
@pytest.mark.parametrize("tool", [True, False], ids=["dbhash", "contents"])
def test_take_copy_that_differs_is_refused(filled, url, monkeypatch, table, tool):
    """A copy without a row, of the ledger too, is not kept, whether SQLite's tool is there or not."""
    query(filled, "CREATE TABLE large AS SELECT zeroblob(2000000)")  # else the tool is not asked
    copied = copying.copied

    def losing(source, new):
        copy = copied(source, new)
        copy.execute(f"DELETE FROM {table}")
        return copy

    monkeypatch.setattr("dao.migrate.copies.snapshot.copied", losing)
    if not tool:
        monkeypatch.setattr(apsw.sqlite_extra, "path", missing)
    with pytest.raises(MigrationError, match="differs from it"):
        take_snapshot(url)
    assert beside(filled) == []


def missing(_name: str) -> str:
    """Say, as apsw does, that a tool is not part of this build."""
    raise apsw.sqlite_extra.NotAvailable


def test_take_without_the_tool_compares_the_contents(filled, url, monkeypatch):
    """An apsw that was built without SQLite's tools takes snapshots all the same."""
    query(filled, "CREATE TABLE large AS SELECT zeroblob(2000000)")  # else the tool is not asked
    monkeypatch.setattr(apsw.sqlite_extra, "path", missing)
    assert dump(take_snapshot(url).path) == dump(filled)


def test_take_database_that_only_its_program_can_read_is_refused(filled, three):
    """What cannot be verified is no snapshot; the message says why and how to go on.

    It advised an option of `dao migrate`, whatever was asked.
    """
    connection = apsw.Connection(str(filled))
    connection.create_scalar_function("theirs", lambda value: value, deterministic=True)
    connection.execute("CREATE TABLE g (x, y GENERATED ALWAYS AS (theirs(x))); INSERT INTO g VALUES (1)")
    with pytest.raises(MigrationError, match=r"cannot be verified \(.*theirs.*copy its file yourself"):
        take_snapshot(connection)
    with pytest.raises(MigrationError, match=r"cannot be verified \(.*theirs.*--no-snapshot"):
        migrate.apply(connection, with_fourth(three, "CREATE TABLE z (x);"))
    assert beside(filled) == []
    connection.close()


def test_take_rows_that_break_a_constraint_are_no_damage(filled, url):
    """A row that a CHECK would refuse today is somebody's data, and copied like any other."""
    query(filled, "CREATE TABLE k (x CHECK (x > 0))")
    query(filled, "PRAGMA ignore_check_constraints = on; INSERT INTO k VALUES (-1)")
    assert query(take_snapshot(url).path, "SELECT x FROM k") == [(-1,)]


def test_take_has_the_permissions_of_the_database(filled, url):
    """Who may not read the database may not read its copy."""
    filled.chmod(0o640)
    assert take_snapshot(url).path.stat().st_mode & 0o777 == 0o640


def test_take_several_in_one_millisecond_have_different_ids_in_order(filled, url):
    """Even if the clock stands still, or is set back, the ids differ and the latest is the newest."""
    clock = [datetime(2030, 1, 1, second=second, tzinfo=UTC) for second in (5, 5, 5, 2)]
    taken = [take_snapshot(url, keep=9, now=now) for now in clock]
    assert [one.id for one in taken] == [f"20300101T000005.00{number}Z" for number in range(4)]
    assert snapshots(url) == taken[::-1]


def test_new_file_never_has_the_id_of_a_snapshot_that_was_taken_at_the_same_moment(filled, url):
    """Another process may finish its snapshot between the look at those there are and the choice of an id."""
    first = take_snapshot(url)
    with new_files.new_file(str(filled), now=first.taken_at) as new:
        assert new.id > first.id


def test_take_removes_nothing_unless_told_to(filled, url):
    """One that was asked for stays; it went after three others, or two pairs of runs, without a word."""
    taken = [take_snapshot(url) for _ in range(5)]
    labelled = take_snapshot(url, label="before-Größe_2")
    assert (labelled.label, labelled.kind) == ("before-Größe_2", "manual")
    assert snapshots(url) == [labelled, *taken[::-1]]
    other = filled.with_name("other.db")
    query(other, "CREATE TABLE x (id)")
    theirs = take_snapshot(f"sqlite:///{other}")
    events = []
    last = take_snapshot(url, keep=2, report=events.append)
    # of those without a label, and of this database alone
    assert snapshots(url) == [last, labelled, taken[-1]]
    assert snapshots(f"sqlite:///{other}") == [theirs]
    assert events == [migrate.Removed(one) for one in taken[-2::-1]]
    with pytest.raises(ValueError, match="keep=0"):
        take_snapshot(url, keep=0)


@pytest.mark.parametrize("label", ["", "a b", "a.b", "../a", "a\n", "x" * 51])
def test_take_label_that_is_no_part_of_a_name_is_refused(filled, url, label):
    """A label becomes part of the file's name, and is how `dao restore` knows it: nothing in it is replaced."""
    with pytest.raises(ValueError, match="letters, digits"):
        take_snapshot(url, label=label)
    assert beside(filled) == []


def test_find_by_label_takes_that_one(filled, url):
    """A label names a snapshot as its id does; two of the same are told apart by their ids."""
    first = take_snapshot(url, label="mine")
    take_snapshot(url)
    assert find(url, "mine") == first
    second = take_snapshot(url, label="mine")
    with pytest.raises(MigrationError, match=f"more than one.*{second.id}, {first.id}"):
        find(url, "mine")


def test_find_by_label_that_looks_like_an_id_takes_that_one(filled, url):
    """A label that ids begin with (a date, say) could not be restored: all of that day were meant, too."""
    labelled = take_snapshot(url, label="20")
    take_snapshot(url)
    assert find(url, "20") == labelled


def test_snapshots_of_version_0_1_are_listed_and_stay(filled, url):
    """Their names do not say who took them: they count as asked for, and no run or restore removes them."""
    ids = [f"2025010{day}T000000.000Z" for day in range(1, 6)]
    for id in ids:
        filled.with_name(f"new.db.{id}.0003_c.0123456789abcdef.snapshot").write_bytes(b"x")
    assert [(one.id, one.kind, one.label, one.version) for one in snapshots(url)] == [
        (id, "manual", None, "0003_c") for id in ids[::-1]
    ]
    assert prune(url, 0, "run") == prune(url, 0, "restore") == []


def test_take_that_fails_removes_nothing(filled, url, monkeypatch):
    """Older snapshots go only once the new one is safe."""
    old = take_snapshot(url)
    monkeypatch.setattr("dao.migrate.copies.snapshot.compare", fail)
    with pytest.raises(MigrationError):
        take_snapshot(url, keep=1)
    assert snapshots(url) == [old]
    assert beside(filled) == [old.path.name]


def fail(*_arguments: object) -> None:
    """Fail the verification."""
    raise MigrationError("no")


def test_take_interrupted_leaves_nothing(filled, url, monkeypatch):
    """Ctrl-C in the middle removes the file in the making and lets go of the database."""

    def interrupted(_connection):
        raise KeyboardInterrupt

    monkeypatch.setattr(copying, "integrity_problems", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_snapshot(url)
    assert beside(filled) == []
    query(filled, "PRAGMA journal_mode = delete")


def interrupted_at(moment: int) -> Callable[..., Any]:
    """Return a trace function that stands for Ctrl-C before so many steps of the interpreter where a file is made.

    Not at a NOT_TAKEN, which Python 3.14 has: no signal is handled there, and no handler of exceptions covers it.
    """
    left = itertools.count(moment, -1)

    def trace(frame: Any, event: str, _argument: object) -> Any:
        code = frame.f_code
        if code.co_filename != new_files.__file__ or code.co_name != "new_file":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and dis.opname[code.co_code[frame.f_lasti]] != "NOT_TAKEN" and next(left) == 0:
            raise KeyboardInterrupt
        return trace

    return trace


def test_take_interrupted_at_any_moment_leaves_no_file_in_the_making(filled, url, monkeypatch):
    """Ctrl-C between the making of a file and the note of it leaves no file.

    It left one once in twenty times, right after the file appeared.
    """
    before, reached = sys.gettrace(), False

    def copied(*_arguments: object) -> None:
        nonlocal reached
        sys.settrace(before)
        reached = True
        raise LookupError

    monkeypatch.setattr("dao.migrate.copies.snapshot.copied", copied)
    sys._getframe().f_trace_opcodes = True  # Python 3.12 tells of steps what is set after the first frame that asks
    for moment in itertools.count():
        sys.settrace(interrupted_at(moment))
        try:
            take_snapshot(url)
        except (KeyboardInterrupt, LookupError):
            pass
        finally:
            sys.settrace(before)
        assert beside(filled) == [], moment
        if reached:
            break
    assert moment > 100


def test_take_interrupted_in_a_call_of_sqlite_is_interrupted(filled, url, monkeypatch):
    """Ctrl-C while a copy is written is not lost.

    Copies are written by functions that SQLite calls, and from one of them it passes no exception on.
    """
    for name in [name for name, kind in vars(descriptors.Descriptor).items() if inspect.isfunction(kind)]:
        original, calls = getattr(descriptors.Descriptor, name), []

        def interrupted(
            *arguments: object, original: Callable[..., Any] = original, calls: list[object] = calls
        ) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(descriptors.Descriptor, name, interrupted)
            with contextlib.suppress(KeyboardInterrupt):
                take_snapshot(url)
                assert len(calls) < 2, name
        prune(url, 0, "manual")
        assert beside(filled) == []


def test_take_removes_what_a_crash_left_but_not_what_another_works_on(filled, url):
    """A partial file without a living process goes; one that is locked stays, and neither is ever listed."""
    left, busy = (filled.with_name(f"new.db.2026010{day}T000000.000Z.partial") for day in (1, 2))
    left.write_bytes(b"left")
    left.with_name(f"{left.name}-wal").write_bytes(b"and this")
    busy.write_bytes(b"busy")
    with busy.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert snapshots(url) == []
        snapshot = take_snapshot(url)
        assert beside(filled) == [busy.name, snapshot.path.name]
    take_snapshot(url, keep=1)
    assert busy.name not in beside(filled)


# ---------------------------------------------------------------- room


def test_take_too_little_room_is_refused_before_anything_is_written(filled, url, monkeypatch):
    """The message says how much is needed, how much there is, where, and what to do."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**9, 10**9, 2048))
    with pytest.raises(DiskFull) as caught:
        take_snapshot(url)
    message = str(caught.value)
    for part in (
        str(filled),
        f"needs 1.1 MB in {filled.parent}",
        "2.0 KB are free",
    ):
        assert part in message
    assert "--no-snapshot" not in message  # no option of `dao snapshot`
    assert beside(filled) == []


@pytest.mark.parametrize("writes", [0, 1, 5])
def test_take_disk_that_fills_up_leaves_nothing(filled, url, monkeypatch, writes):
    """Whenever the room ends, it is `DiskFull`, older snapshots stay and no partial file is left."""
    old = take_snapshot(url)
    left, write = iter(range(writes)), os.pwrite

    def fill_up(file: int, data: bytes, offset: int) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)
    with pytest.raises(DiskFull, match=rf"^cannot write {re.escape(str(filled))}\..*\.partial: no room left"):
        take_snapshot(url, keep=1)
    monkeypatch.undo()
    assert beside(filled) == [old.path.name]


@pytest.mark.parametrize(("number", "kind"), [(28, DiskFull), (13, OperationalError), (30, OperationalError)])
def test_take_folder_that_refuses_says_what_to_do(filled, url, monkeypatch, number, kind):
    """No permission, a read-only file system, no room for even a name: a typed error that names the place."""

    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    connection = dao.connect(url)
    monkeypatch.setattr(new_files.os, "open", refuse)
    with pytest.raises(kind, match=f"cannot write beside {re.escape(str(filled))}"):
        take_snapshot(connection)
    monkeypatch.undo()
    connection.close()


# ---------------------------------------------------------------- refused


def test_take_database_in_memory_is_refused():
    """There is no file beside which a snapshot could be."""
    for target in (apsw.Connection(":memory:"), apsw.Connection("/x", vfs="memdb"), "sqlite://"):
        with pytest.raises(MigrationError, match="in memory"):
            take_snapshot(target)


def test_take_database_that_does_not_exist_is_refused(path, url):
    """Nothing is created."""
    with pytest.raises(MigrationError, match="does not exist"):
        take_snapshot(url)
    assert beside(path) == []
    assert not path.exists()


@pytest.mark.parametrize("statement", ["PRAGMA user_version", "PRAGMA user_version = 1"])
def test_take_database_that_holds_nothing_is_refused(path, url, statement):
    """A file without a table is no loss."""
    query(path, statement)
    with pytest.raises(MigrationError, match="holds nothing"):
        take_snapshot(url)


def test_take_keep_none_at_all_is_a_mistake(filled, url):
    """To keep zero would be to remove what was just taken."""
    with pytest.raises(ValueError, match="keep=0"):
        take_snapshot(url, keep=0)


def test_take_damaged_database_is_refused(filled, url):
    """A copy of damage is no snapshot."""
    query(filled, "PRAGMA journal_mode = delete")
    data = bytearray(filled.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    filled.write_bytes(data)
    with pytest.raises(DatabaseCorrupt, match="damaged"):
        take_snapshot(url)
    assert beside(filled) == []


def test_take_locked_database_says_by_whom(filled, url):
    """Nobody can read a file in rollback mode that another keeps to itself."""
    other = apsw.Connection(str(filled))
    other.pragma("journal_mode", "delete")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseBusy, match=f"held by process {os.getpid()}"):
        take_snapshot(f"{url}?busy_timeout=10")
    other.close()


# ---------------------------------------------------------------- find, prune


def test_find_takes_the_newest_or_the_beginning_of_an_id(filled, url):
    """Without an id the newest; a beginning must fit exactly one, and the message lists the choice."""
    with pytest.raises(
        MigrationError, match="has no snapshots: `dao snapshot` takes one for the next time; now name the file"
    ):
        find(url)
    first, second = take_snapshot(url), take_snapshot(url)
    assert find(url) == second
    assert find(url, first.id) == first
    with pytest.raises(MigrationError, match=f"more than one.*{second.id}, {first.id}"):
        find(url, "2")
    with pytest.raises(MigrationError, match=f"no snapshot whose id begins with 'x': name one of {second.id}"):
        find(url, "x")


def test_snapshots_lists_only_files_that_are_named_like_one(filled, url):
    """Other files, such as the snapshots of a database whose name begins alike, are passed over."""
    snapshot = take_snapshot(url)
    for name in (
        f"x{snapshot.path.name}",
        f"{snapshot.path.name}.bak",
        "new.db.99999999T999999.999Z.v.0123456789abcdef.snapshot",
    ):
        filled.with_name(name).write_bytes(b"x")
    assert snapshots(url) == [snapshot]
    assert snapshots(f"sqlite:///{filled.parent}/nowhere/x.db") == []


def test_prune_removes_all_but_the_newest_of_a_kind(filled, url):
    """It says which went; none may stay; another kind is not looked at."""
    taken = [take_snapshot(url) for _ in range(3)]
    assert prune(url, 0, "run") == []
    assert prune(url, 2, "manual") == taken[:1]
    assert prune(url, 0, "manual", spare=taken[1].path) == taken[2:]
    assert snapshots(url) == [taken[1]]
    with pytest.raises(ValueError, match="keep=-1"):
        prune(url, -1, "manual")


# ---------------------------------------------------------------- verify


@pytest.fixture
def snapshot(filled, url) -> Snapshot:
    """A good snapshot."""
    return take_snapshot(url)


def plain(snapshot: Snapshot) -> Path:
    """Give a snapshot a name without a checksum, so that SQLite alone has to find the damage."""
    return snapshot.path.rename(snapshot.path.with_name("copy.db"))


def test_verify_any_changed_byte_is_noticed(snapshot):
    """A letter in a row that integrity_check has no opinion on is damage by the checksum in the name."""
    data = bytearray(snapshot.path.read_bytes())
    for place in (30, len(data) // 2, len(data) - 1):
        data[place] ^= 1
        snapshot.path.write_bytes(data)
        with pytest.raises(DatabaseCorrupt, match=r"snapshot .*\.snapshot is damaged"):
            verify(snapshot.path)
        data[place] ^= 1
    snapshot.path.write_bytes(data)
    verify(snapshot.path)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("part", [0, 10, 100, 4096, -4096, -1])
def test_verify_truncated_file_is_refused(snapshot, named, part):
    """Cut off anywhere, it is damaged or empty, even under a name without a checksum."""
    path = snapshot.path if named else plain(snapshot)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(DatabaseCorrupt, match="empty" if part == 0 else "damaged"):
        verify(path)


def test_verify_damaged_index_is_noticed_without_a_checksum(filled, url):
    """Under another name, `PRAGMA integrity_check` finds what a page holds that is not what it should be."""
    query(filled, "CREATE INDEX ib ON a (id)")
    path = plain(take_snapshot(url))
    ((page,),) = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'ib'")
    data = bytearray(path.read_bytes())
    data[page * 4096 - 3 : page * 4096] = b"xyz"
    path.write_bytes(data)
    with pytest.raises(DatabaseCorrupt, match=r"copy\.db is damaged"):
        verify(path)


def test_verify_foreign_file_is_refused(tmp_path):
    """A text is no database, and a database without a ledger none of this kind; each message names the file."""
    text, theirs = tmp_path / "notes.txt", tmp_path / "theirs.db"
    text.write_text("a text that is long enough for a header " * 300)
    query(theirs, "CREATE TABLE x (id)")
    with pytest.raises(DatabaseCorrupt, match=r"notes\.txt is damaged or no SQLite database"):
        verify(text)
    with pytest.raises(MigrationError, match=r"theirs\.db is not a snapshot"):
        verify(theirs)
    with pytest.raises(MigrationError, match="does not exist"):
        verify(tmp_path / "nothing")


def test_verify_database_in_use_is_refused(filled, url):
    """A live database is not looked at as if it were a file: what is in its -wal would be missed."""
    connection = dao.connect(url)
    connection.execute("INSERT INTO a VALUES (50)")
    with pytest.raises(MigrationError, match="a database in use"):
        verify(filled)
    connection.close()


def test_verify_changes_nothing(snapshot):
    """It reads only: no byte, no time, no file beside it."""
    before = snapshot.path.stat()
    verify(snapshot.path)
    after = snapshot.path.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert {name for name in os.listdir(snapshot.path.parent) if name.startswith(snapshot.path.name)} == {
        snapshot.path.name
    }
