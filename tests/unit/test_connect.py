"""`dao.connect`: what it opens, how it sets the connection up, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

import dao
from dao import Task, aio, engine, migrate, tasks
from dao.engine import sqlite
from dao.migrate.schema import session
from dao.url import DatabaseURL
from tests.concurrency import PATIENCE

COUNT = "SELECT count(*) FROM sqlite_schema"


def opened(url: str | DatabaseURL) -> contextlib.closing[apsw.Connection]:
    return contextlib.closing(dao.connect(url))


def run_python(code: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 1),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("journal_size_limit", 64 * 1024 * 1024),
        ("temp_store", 2),
    ],
)
def test_connect_without_parameters_sets_pragma(tmp_path, pragma, value):
    """Every connection has WAL, synchronous NORMAL, foreign keys, no trusted schema, a bounded journal, no temp files.

    Temporary files were used: in a transaction, each statement on a table with triggers wrote its pages to one.
    """
    with opened(f"sqlite:///{tmp_path}/a.db") as connection:
        assert connection.pragma(pragma) == value


def test_connection_for_scripts_sorts_in_files(tmp_path):
    """A migration may make an index that is larger than the memory: its connection has temporary files.

    Sorting it in memory, as the connections of `dao.connect` do, would take as much of that.
    """
    with opened(f"sqlite:///{tmp_path}/a.db") as connection:
        session.prepare(connection)
        assert connection.pragma("temp_store") == 0


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "no column"',
        'CREATE TABLE t (x CHECK (x <> "text"))',
        "CREATE TABLE child (x REFERENCES parent (x)); INSERT INTO child VALUES (1)",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema",
    ],
    ids=["double-quoted text in a query", "double-quoted text in a schema", "broken key", "writing to the schema"],
)
def test_connect_without_parameters_refuses_what_does_harm(tmp_path, sql):
    """Double-quoted text, rows without their parents and edits of the schema itself are errors."""
    with opened(f"sqlite:///{tmp_path}/a.db") as connection:
        connection.execute("CREATE TABLE parent (x PRIMARY KEY)").fetchall()
        with pytest.raises((apsw.SQLError, apsw.ConstraintError)):
            connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("query", "pragma", "value"),
    [
        ("synchronous=off", "synchronous", 0),
        ("synchronous=full", "synchronous", 2),
        ("synchronous=extra", "synchronous", 3),
        ("foreign_keys=off", "foreign_keys", 0),
        ("foreign_keys=on", "foreign_keys", 1),
        ("cache_size=-4096", "cache_size", -4096),
        ("cache_size=77", "cache_size", 77),
        ("mode=rwc", "journal_mode", "wal"),
        ("journal_mode=wal", "journal_mode", "wal"),
        ("journal_mode=keep", "journal_mode", "delete"),
        ("journal_mode=keep", "synchronous", 2),
        ("journal_mode=keep&synchronous=normal", "synchronous", 1),
        ("mode=ro", "query_only", 0),
        ("mode=rw&synchronous=full", "synchronous", 2),
        ("wal_autocheckpoint=0", "wal_autocheckpoint", 0),
        ("wal_autocheckpoint=77", "wal_autocheckpoint", 77),
    ],
)
def test_connect_parameter_of_the_url_sets_pragma(url, query, pragma, value):
    """A parameter of the URL replaces the default."""
    with opened(f"{url}?{query}") as connection:
        assert connection.pragma(pragma) == value


def test_connect_parsed_url_opens_the_same(database):
    """A URL that was parsed already does as well as its text."""
    with opened(DatabaseURL(path=str(database), synchronous="full")) as connection:
        assert connection.pragma("synchronous") == 2
        assert sqlite.file_of(connection) == str(database)


def test_connect_memory_is_private_to_the_connection():
    """Each connection to memory has a database of its own, without a file, and no WAL."""
    with opened("sqlite://") as one, opened("sqlite:///:memory:") as other:
        one.execute("CREATE TABLE t (x)").fetchall()
        assert engine.fetch(one, COUNT) == [(1,)]
        assert engine.fetch(other, COUNT) == [(0,)]
        assert one.pragma("journal_mode") == "memory"
        assert sqlite.file_of(one) == ""


def test_connect_database_of_another_program_becomes_wal(database):
    """A file with a rollback journal is switched, and stays so."""
    plain = apsw.Connection(str(database))
    assert plain.pragma("journal_mode") == "delete"
    plain.close()
    dao.connect(f"sqlite:///{database}").close()
    plain = apsw.Connection(str(database))
    assert plain.pragma("journal_mode") == "wal"
    plain.close()
    with opened(f"sqlite:///{database}?journal_mode=keep") as connection:
        assert (connection.pragma("journal_mode"), connection.pragma("synchronous")) == ("wal", 1)


@pytest.mark.parametrize("kind", ["connect", "pool", "aio"])
def test_connect_database_of_another_program_keeps_its_mode_if_told(database, kind):
    """With `journal_mode=keep` no byte of a file changes because it is opened.

    All that was safe in its mode still is.
    """
    plain = apsw.Connection(str(database))
    plain.execute("CREATE TABLE t (x)")
    plain.close()
    before = database.read_bytes()
    url = f"sqlite:///{database}?journal_mode=keep"
    if kind == "connect":
        dao.connect(url).close()
    elif kind == "pool":
        with dao.Pool(url) as pool, pool.acquire() as connection:
            assert connection.pragma("synchronous") == 2
    else:

        async def ask():
            async with aio.Pool(url) as pool:
                assert await pool.run(engine.fetch, "PRAGMA synchronous") == [(2,)]

        asyncio.run(ask())
    assert database.read_bytes() == before


# ---------------------------------------------------------------- busy timeout


@pytest.fixture
def locked(url: str) -> Iterator[apsw.Connection]:
    """A connection that holds the write lock of the database."""
    with opened(url) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def test_connect_another_value_prepares_nothing_anew(connection):
    """A statement is prepared once, whatever is bound to its LIMIT, its filters and its bounds, statistics or not."""
    tasks.create_many(connection, [Task(title="a", task_type=kind) for kind in "aab"])
    connection.execute("ANALYZE")
    prepared = []
    connection.authorizer = lambda *_: prepared.append(True) or apsw.SQLITE_OK
    for status, limit, since in (("pending", 5, 2000), ("failed", 7, 2001)):
        prepared.clear()
        tasks.find(connection, status=status, task_type="a", limit=limit, since=datetime(since, 1, 1, tzinfo=UTC))
    assert prepared == []


@pytest.mark.parametrize(("query", "seconds"), [("", 5.0), ("?busy_timeout=250", 0.25), ("?busy_timeout=0", 0.0)])
def test_busy_timeout_bounds_the_wait(monkeypatch, url, locked, query, seconds):
    """A lock is waited for as long as the URL says, 5 s without, by many waits of at most a few milliseconds."""
    clock, waits = types.SimpleNamespace(now=0.0), []

    def sleep(pause: float) -> None:
        waits.append(pause)
        clock.now += pause

    monkeypatch.setattr(sqlite.opening, "time", types.SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    with opened(url + query) as connection, pytest.raises(dao.DatabaseBusy):
        engine.fetch(connection, "BEGIN IMMEDIATE")
    assert clock.now == pytest.approx(seconds)
    assert all(0 < pause <= 0.02 for pause in waits)


def test_busy_timeout_lock_released_in_time_is_taken(url, locked):
    """Who waits gets the lock when the other is done."""
    waited = threading.Event()
    with opened(url) as connection:
        sqlite.set_busy_timeout(connection, 60_000, waiting=lambda _: waited.set())
        thread = threading.Thread(target=engine.fetch, args=(connection, "BEGIN IMMEDIATE"))
        thread.start()
        assert waited.wait(PATIENCE)
        locked.execute("COMMIT")
        thread.join(PATIENCE)
        assert connection.in_transaction


def test_busy_timeout_interrupted_wait_ends(url, locked):
    """An interruption ends the wait, however long it may last."""
    waited, raised = threading.Event(), []
    with opened(url) as connection:
        sqlite.set_busy_timeout(connection, 600_000, waiting=lambda _: waited.set())

        def wait() -> None:
            with pytest.raises(dao.OperationalError) as caught:
                engine.fetch(connection, "BEGIN IMMEDIATE")
            raised.append(caught.value)

        thread = threading.Thread(target=wait)
        thread.start()
        assert waited.wait(PATIENCE)
        connection.interrupt()
        thread.join(PATIENCE)
        assert len(raised) == 1


def test_busy_timeout_reports_the_seconds_waited(url, locked):
    """`waiting` is called with the seconds waited so far, from zero for each wait."""
    with opened(url) as connection:
        told: list[float] = []

        def waiting(seconds: float) -> None:
            told.append(seconds)
            if len(told) == 3:
                connection.interrupt()

        sqlite.set_busy_timeout(connection, 60_000, waiting)
        for _ in range(2):
            told.clear()
            with pytest.raises(dao.DatabaseBusy):
                engine.fetch(connection, "BEGIN IMMEDIATE")
            first, *later = told
            assert first == 0
            assert len(later) == 2
            assert told == sorted(told)


# ---------------------------------------------------------------- first opens at the same time


def test_connect_many_threads_open_a_new_file_at_once(tmp_path):
    """However many threads are the first, all get their connection: the switch to WAL is no race."""
    errors: list[dao.Error] = []

    def connect(barrier: threading.Barrier, path: Path) -> None:
        barrier.wait()
        try:
            dao.connect(f"sqlite:///{path}").close()
        except dao.Error as error:
            errors.append(error)

    for number in range(15):
        barrier = threading.Barrier(8)
        path = tmp_path / f"{number}.db"
        threads = [threading.Thread(target=connect, args=(barrier, path)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_connect_many_processes_open_a_new_file_at_once(tmp_path):
    """However many processes are the first, all get their connection, and what each writes is there."""
    code = """
import sys, time, dao
folder, begin = sys.argv[1], float(sys.argv[2])
for number in range(40):
    while time.time() < begin + number * 0.01:
        pass
    connection = dao.connect(f"sqlite:///{folder}/{number}.db")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").fetchall()
    connection.close()
"""
    arguments = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 0.8)]
    processes = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
    for number in range(40):
        with opened(f"sqlite:///{tmp_path}/{number}.db") as connection:
            assert connection.execute("SELECT count(*) FROM t").get == 3


@pytest.mark.parametrize("patience", [0, 100])
def test_connect_file_locked_before_its_switch_to_wal_waits_for_it(tmp_path, patience):
    """The switch needs the file to itself: it is tried again until the lock is gone or the busy timeout over."""
    path = tmp_path / "a.db"
    blocker = apsw.Connection(str(path))
    blocker.execute("CREATE TABLE t (x); BEGIN IMMEDIATE").fetchall()
    with pytest.raises(dao.DatabaseBusy, match=r"a\.db is locked"):
        dao.connect(f"sqlite:///{path}?busy_timeout={patience}")
    timer = threading.Timer(0.05, blocker.execute, ["COMMIT"])
    timer.start()
    with opened(f"sqlite:///{path}?busy_timeout=30000") as connection:
        assert connection.pragma("journal_mode") == "wal"
    timer.join()
    blocker.close()


# ---------------------------------------------------------------- errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what cannot be opened."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("This is a letter, and no database. " * 100)
    (tmp_path / "short.db").write_text("letter")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("folder", dao.OperationalError, "it is a folder, not a database file"),
        ("missing/a.db", dao.OperationalError, r"the folder .*/missing does not exist; create it first"),
        ("none.db?mode=ro", dao.OperationalError, "it does not exist, and mode=ro creates nothing"),
        ("none.db?mode=rw", dao.OperationalError, "it does not exist, and mode=rw creates nothing"),
        ("x" * 300, dao.OperationalError, "check the permissions"),
        (
            "text.db",
            dao.DatabaseCorrupt,
            r"damaged or no SQLite database .*: restore a snapshot \(`dao restore`; .*\) or a backup",
        ),
        ("text.db?mode=ro", dao.DatabaseCorrupt, "damaged or no SQLite database"),
        ("short.db", dao.DatabaseCorrupt, "damaged or no SQLite database"),
    ],
)
def test_connect_what_cannot_be_opened_says_why(folder, name, kind, message):
    """The error has its kind, names the file and the way out; nothing is created or left open, and nothing changed."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(kind, match=message) as caught:
        dao.connect(f"sqlite:///{folder}/{name}")
    assert str(folder / name.partition("?")[0]) in str(caught.value)
    assert isinstance(caught.value.__cause__, apsw.Error)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not [connection for connection in apsw.connections() if connection.filename.startswith(str(folder))]


def test_connect_url_that_means_nothing_raises_invalid_url():
    """A URL is refused before any file is looked at."""
    with pytest.raises(dao.InvalidURL):
        dao.connect("mysql://localhost/a")


@contextlib.contextmanager
def no_superuser() -> Iterator[None]:
    """Give up root's rights for a block: root may write to any file."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user may enter, with a database in it: pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="dao-"))
    folder.chmod(0o755)
    path = folder / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (x)").fetchall()
    connection.close()
    yield path
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_connect_file_without_write_permission_reads_and_refuses_to_write(readable):
    """A file that may only be read is opened for reading; a write says that it is read-only."""
    readable.chmod(0o444)
    with no_superuser(), opened(f"sqlite:///{readable}") as connection:
        assert engine.fetch(connection, "SELECT count(*) FROM t") == [(0,)]
        with pytest.raises(dao.ReadOnlyDatabase, match=r"a\.db may not be written to by this user .*mode 0444"):
            engine.fetch(connection, "INSERT INTO t VALUES (1)")


def test_connect_folder_without_write_permission_says_so(readable):
    """A database in WAL mode needs files beside it: where they cannot be, the message points at the folder."""
    readable.chmod(0o666)
    readable.parent.chmod(0o555)
    with no_superuser(), pytest.raises(dao.ReadOnlyDatabase, match=r"a\.db needs files beside it.*folder is read-only"):
        dao.connect(f"sqlite:///{readable}")


def test_folder_that_may_not_be_entered_says_so(readable):
    """A database that may not be looked at is one whose permissions are to be checked.

    It was called missing, and to be made.
    """
    migrate.load()  # what is imported only now may be in a folder of root's
    readable.parent.chmod(0)
    url = f"sqlite:///{readable}"
    calls = [
        lambda: dao.connect(url),
        lambda: migrate.status(url, ()),
        lambda: migrate.apply(url, ()),
        lambda: migrate.take_snapshot(url),
        lambda: migrate.snapshots(url),
        lambda: dao.connect(f"sqlite:///{readable}/in/it.db?mode=ro"),
    ]
    with no_superuser():
        for call in calls:
            with pytest.raises(dao.OperationalError, match=r"a\.db.*: check the permissions"):
                call()
        with dao.Pool(url) as pool:
            assert "check the permissions" in str(pool.health().error)


def test_connect_read_only_refuses_to_write(url):
    """With mode=ro every write is refused by type, and reading goes on."""
    dao.connect(url).close()
    with opened(url + "?mode=ro") as connection:
        with pytest.raises(dao.ReadOnlyDatabase, match="open it without mode=ro"):
            dao.tasks.create(connection, dao.Task(title="a", task_type="agent"))
        assert dao.tasks.count(connection) == 0


@pytest.fixture
def unwritable(readable):
    """A migrated database in WAL mode, with a row, in a folder in which nobody but root may make a file."""
    url = f"sqlite:///{readable}"
    migrate.apply(url)
    connection = dao.connect(url)
    dao.tasks.create(connection, dao.Task(title="a", task_type="agent"))
    connection.close()
    readable.chmod(0o444)
    readable.parent.chmod(0o555)
    assert [path.name for path in readable.parent.iterdir()] == ["a.db"]
    return readable


def test_connect_immutable_reads_where_no_file_can_be_made(unwritable):
    """On read-only media a database in WAL mode could not be read at all: `mode=ro` needs files beside it, too."""
    url = f"sqlite:///{unwritable}?mode=ro"
    with no_superuser():
        with pytest.raises(dao.Error, match="mode=ro&immutable=on"):
            dao.connect(url)
        with opened(f"{url}&immutable=1") as connection:
            assert connection.filename == str(unwritable)
            assert [task.title for task in dao.tasks.iter_all(connection)] == ["a"]
            migrate.assert_current(connection)
            with pytest.raises(dao.ReadOnlyDatabase, match=r"open it without mode=ro \(or immutable\)"):
                dao.tasks.create(connection, dao.Task(title="b", task_type="agent"))
        with dao.Pool(f"{url}&immutable=1") as pool:
            assert pool.health().ok
        assert migrate.status(f"{url}&immutable=1").is_current
        assert migrate.plan(f"{url}&immutable=1") == []
        assert [str(one) for one in migrate.diff(f"{url}&immutable=1")] == ["table t is unexpected"]
        with pytest.raises(dao.ReadOnlyDatabase, match=r"open it without mode=ro \(or immutable\)"):
            migrate.rollback(f"{url}&immutable=1")
        with pytest.raises(dao.OperationalError, match=r"cannot write beside .*a\.db \(Permission denied\)"):
            migrate.take_snapshot(f"{url}&immutable=1")
    assert [path.name for path in unwritable.parent.iterdir()] == ["a.db"]


@pytest.mark.parametrize("name", ["a?b#c%.db", "é b.db"])
def test_connect_immutable_names_the_file_as_it_is(tmp_path, name):
    """What means something in a URI stays a part of the name."""
    path = tmp_path / name
    url = str(DatabaseURL(path=str(path)))
    migrate.apply(url)
    with opened(f"{url}?mode=ro&immutable=on") as connection:
        assert connection.filename == str(path)
        assert dao.tasks.count(connection) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_connect_immutable_async_is_the_same(unwritable):
    """A connection for tasks takes the same parameters."""

    async def count() -> int:
        async with dao.aio.Pool(f"sqlite:///{unwritable}?mode=ro&immutable=on", size=1) as pool:
            return await pool.run(dao.tasks.count)

    with no_superuser():
        assert asyncio.run(count()) == 1


def test_connect_immutable_with_a_wal_is_refused(url, database):
    """SQLite passes over the WAL of an immutable database: the latest commits were missing, without a word."""
    writer = dao.connect(url)
    dao.tasks.create(writer, dao.Task(title="a", task_type="agent"))
    with pytest.raises(dao.OperationalError, match=r"orchestrator\.db-wal holds what belongs.*`dao health`"):
        dao.connect(f"{url}?mode=ro&immutable=on")
    writer.close()
    with opened(f"{url}?mode=ro&immutable=on") as connection:
        assert dao.tasks.count(connection) == 1


def test_connect_immutable_with_a_hot_journal_is_refused(tmp_path):
    """What was never committed would be read; a journal that is done with is no matter."""
    path = tmp_path / "a.db"
    run_python(CRASH, path)
    with pytest.raises(dao.OperationalError, match=r"a\.db-journal holds what belongs"):
        dao.connect(f"sqlite:///{path}?mode=ro&immutable=on")
    (tmp_path / "a.db-journal").write_bytes(b"\0" * 512)
    with opened(f"sqlite:///{path}?mode=ro&immutable=on"):
        pass


CRASH = """
import apsw, os, sys
connection = apsw.Connection(sys.argv[1])
connection.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").fetchall()
connection.execute("BEGIN IMMEDIATE; UPDATE t SET x = 2").fetchall()
connection.cache_flush()
os._exit(0)
"""


def test_connect_read_only_hot_journal_asks_for_recovery(tmp_path):
    """After a crash a read-only connection says what is to be done, and a writing one does it."""
    path = tmp_path / "a.db"
    run_python(CRASH, path)
    assert (tmp_path / "a.db-journal").exists()
    with pytest.raises(dao.ReadOnlyDatabase, match=r"a\.db needs recovery after a crash.*open it once with mode=rw"):
        dao.connect(f"sqlite:///{path}?mode=ro")
    with opened(f"sqlite:///{path}?mode=rw") as connection:
        assert engine.fetch(connection, "SELECT x FROM t") == [(1,)]
    with opened(f"sqlite:///{path}?mode=ro") as connection:
        assert engine.fetch(connection, "SELECT x FROM t") == [(1,)]


@pytest.mark.parametrize("version", ["3.51.2", "3.51", "3.8.11.1", "3.50.6"])
def test_connect_sqlite_with_the_wal_reset_bug_is_refused(monkeypatch, tmp_path, version):
    """A SQLite that can corrupt data opens nothing; the message says which and what to install."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(dao.UnsupportedEngine, match=rf"SQLite {version}.*install"):
        dao.connect(f"sqlite:///{tmp_path}/a.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "3.100.1", "4.0"])
def test_connect_later_sqlite_is_accepted(monkeypatch, tmp_path, version):
    """Versions compare as numbers."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    dao.connect(f"sqlite:///{tmp_path}/a.db").close()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        ("a%3Fmode=ro.db", "a?mode=ro.db"),
        ("a%23b.db", "a#b.db"),
        ("100%25.db", "100%.db"),
        ("%2541.db", "%41.db"),
        ("a b.db", "a b.db"),
        ("a%20b.db", "a b.db"),
        ("a+b.db", "a+b.db"),
        ("ä🐍.db", "ä🐍.db"),
        ("%C3%A4.db", "ä.db"),
        ("file:a.db", "file:a.db"),
        ("~", "~"),
        ("'a'\"b\".db", "'a'\"b\".db"),
        ("./:memory:", ":memory:"),
    ],
)
def test_connect_any_name_opens_exactly_that_file(monkeypatch, tmp_path, quoted, name):
    """Whatever characters a name has, that file is opened and no other, by a relative and by an absolute URL."""
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{quoted}", f"sqlite:///{tmp_path}/{quoted}"):
        with opened(url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").fetchall()
            assert sqlite.file_of(connection) == str(tmp_path / name)
            assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {name}
    with opened(DatabaseURL(path=name if name != ":memory:" else "./:memory:")) as connection:
        assert engine.fetch(connection, "SELECT count(*) FROM t") == [(2,)]


def test_connect_change_of_folder_afterwards_is_harmless(monkeypatch, tmp_path):
    """A relative name is that of the folder at the time: journals and later connections of the URL stay apart."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    with opened("sqlite:///a.db") as connection:
        monkeypatch.chdir(there)
        connection.execute("CREATE TABLE t (x)").fetchall()
        connection.pragma("journal_mode", "delete")
        connection.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").fetchall()
        connection.cache_flush()
        assert sorted(path.name for path in here.iterdir()) == ["a.db", "a.db-journal"]
        assert list(there.iterdir()) == []
        connection.execute("COMMIT")
    with opened(f"sqlite:///{here}/a.db") as connection:
        assert engine.fetch(connection, "SELECT count(*) FROM t") == [(1,)]
