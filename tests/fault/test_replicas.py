"""Replicas that start together: one migrates, the others wait for as long as it lives, and for nobody who is dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from dao import migrate
from dao.errors import DatabaseBusy, MigrationError, OperationalError
from dao.migrate.file_lock import FileLock, holder
from dao.migrate.run import runner
from tests.concurrency import PATIENCE
from tests.fault.replicas import Replica, holding
from tests.folders import ALONE, IDS, ids, query, tables, write

BUSY = "60"  # milliseconds: what a replica waits for longer than this is no lock of a stranger's


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "orchestrator.db"


@pytest.fixture
def url(path: Path) -> str:
    """Its URL."""
    return f"sqlite:///{path}"


@contextlib.contextmanager
def elsewhere(path: Path) -> Iterator[None]:
    """Have another thread hold the lock of a database."""
    taken, told = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(str(path)) as lock:
            lock.take()
            taken.set()
            assert told.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(PATIENCE)
    try:
        yield
    finally:
        told.set()
        thread.join()


@pytest.fixture
def replicas(url: str, three: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Replica]]]:
    """Starts so many commands on the database, `dao migrate` unless it is said, and returns once all of them wait."""
    started: list[Replica] = []
    monkeypatch.setenv("DATABASE_MIGRATIONS", str(three))

    def start(number: int, *arguments: str) -> list[Replica]:
        options = ("--database", url, "--busy-timeout", BUSY)
        new = [Replica(*(arguments or ("migrate",)), *options) for _ in range(number)]
        started.extend(new)
        for one in new:
            one.until_it_waits()
        return new

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


# ---------------------------------------------------------------- as long as it lives


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_migrate_waits_for_another_run_for_longer_than_the_busy_timeout(path, url, three, replicas, mode):
    """However long a run takes, the replicas beside it wait, say for whom, and find nothing to do.

    They failed after the busy timeout, so that of two containers with a migration of 6 s one did not start.
    """
    query(path, f"PRAGMA journal_mode = {mode}; CREATE TABLE theirs (id)")
    with holding(url, three) as process:
        waiting = replicas(2)
        for one in waiting:
            assert f"waiting for the lock held by another migration run, process {process.pid} (" in one.errors
        process.communicate("\n" * len(IDS))
        assert process.returncode == 0
    assert [one.end() for one in waiting] == [(0, f"{path}: nothing to apply\n")] * 2
    assert migrate.status(url, three).is_current
    assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(IDS),)]
    assert not path.with_name(f"{path.name}-migrate").exists()


def test_migrate_waiting_for_one_that_is_killed_takes_its_place(path, url, three, replicas):
    """A kill -9 frees the lock at once: of those that wait, one migrates, and the others wait for that one."""
    with holding(url, three) as process:
        waiting = replicas(2)
        process.kill()
        ends = [one.end() for one in waiting]
    assert [code for code, _ in ends] == [0] * 2
    assert sorted(out == f"{path}: nothing to apply\n" for _, out in ends) == [False, True]
    assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(IDS),)]
    assert not path.with_name(f"{path.name}-migrate").exists()


def test_migrate_waiting_for_one_that_is_killed_half_way_does_not_repeat_it(path, url, three, replicas):
    """Whoever waits for a script outside of a transaction hears that it did not come to its end, and runs nothing."""
    write(three, {"0001_a.sql": ALONE + "CREATE TABLE a (id);"})
    with holding(url, three) as process:
        waiting = replicas(2)
        process.kill()
        assert [one.end() for one in waiting] == [(1, "")] * 2
    for one in waiting:
        assert f"0001_a: applying it did not come to its end (it was process {process.pid})" in one.errors
        assert "`dao migrate resolve 0001_a`" in one.errors
    assert tables(path) == []
    assert migrate.resolve(url, "0001_a", "rolled back", three) == "0001_a"
    assert ids(migrate.apply(url, three)) == IDS


def test_migrate_while_a_script_runs_outside_of_a_transaction_waits(path, url, three, replicas):
    """It was refused, with the advice to note the script as applied if its process was another one."""
    write(three, {"0001_a.sql": ALONE + "CREATE TABLE a (id);"})
    with holding(url, three) as process:
        waiting = replicas(2)
        process.communicate("\n" * len(IDS))
    assert [one.end() for one in waiting] == [(0, f"{path}: nothing to apply\n")] * 2
    assert migrate.status(url, three).is_current


def test_apply_that_begins_together_with_another_does_not_check_the_file_for_nothing(url, three, monkeypatch):
    """A run that has seen something pending, and then waited, looks again before it begins with anything."""

    def run(*_arguments: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(FileLock, "may_be_held", property(lambda _lock: False))  # it began just before
    with holding(url, three) as process:

        def report(event: migrate.Event) -> None:
            assert isinstance(event, migrate.Waiting)
            process.communicate("\n" * len(IDS))

        assert migrate.apply(url, three, report=report) == []
    assert migrate.status(url, three).is_current


#: Every verb that changes a schema or its ledger.
VERBS: dict[str, Callable[..., Any]] = {
    "apply": migrate.apply,
    "rollback": migrate.rollback,
    "redo": migrate.redo,
    "reset": migrate.reset,
    "mark": lambda url, folder, **how: migrate.mark(url, ["0003_c"], folder, **how),
    "unmark": lambda url, folder, **how: migrate.unmark(url, ["0001_a"], folder, **how),
    "accept": lambda url, folder, **how: migrate.accept(url, ["0001_a"], folder, **how),
    "resolve": lambda url, folder, **how: migrate.resolve(url, "0001_a", "applied", folder, **how),
    "adopt": lambda url, folder, **how: migrate.adopt(url, "yoyo", folder, **how),
    "baseline": migrate.baseline,
    "restore": lambda url, _folder, **how: migrate.restore(url, **how),
}


def test_verb_waits_for_another_run_up_to_the_lock_timeout(path, url, three):
    """All that changes a schema or its ledger waits in one line, and no longer than it is told to."""
    migrate.apply(url, three, steps=2)
    migrate.take_snapshot(url)
    before = query(path, "SELECT * FROM _yoyo_migration")

    class Told(Exception):
        pass

    def report(event: migrate.Event) -> None:
        assert isinstance(event, migrate.Waiting)
        raise Told(event.holder)

    with holding(url, three) as process:
        who = f"another migration run, process {process.pid}"
        locked = rf"is locked, held by {who}, for longer than 0\.01 s.*--lock-timeout"
        for name, verb in VERBS.items():
            with pytest.raises(DatabaseBusy, match=locked):
                pytest.fail(f"{name}: {verb(f'{url}?busy_timeout=1', three, lock_timeout=0.01)}")
            with pytest.raises(Told, match=f"^{who}$"):
                pytest.fail(f"{name}: {verb(f'{url}?busy_timeout=1', three, report=report)}")
    assert query(path, "SELECT * FROM _yoyo_migration") == before


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_verb_in_the_middle_of_a_run_of_its_own_thread_is_refused(url, three, verb):
    """It would wait for itself, for ever."""
    migrate.apply(url, three, steps=2)
    migrate.take_snapshot(url)

    def report(event: migrate.Event) -> None:
        if isinstance(event, migrate.Started):
            with pytest.raises(DatabaseBusy, match="of this same thread is under way"):
                verb(url, three)

    assert ids(migrate.apply(url, three, report=report)) == ["0003_c"]


def test_apply_waits_for_another_thread(url, three):
    """Threads of one process keep each other waiting as processes do."""
    first, told = threading.Event(), threading.Event()
    done: list[list[str]] = []

    def report(event: migrate.Event) -> None:
        if isinstance(event, migrate.Started):
            first.set()
            assert told.wait(PATIENCE)

    def hear(event: migrate.Event) -> None:
        assert isinstance(event, migrate.Waiting)
        assert event.holder == f"another migration run, process {os.getpid()}"
        told.set()

    one = threading.Thread(target=lambda: done.append(ids(migrate.apply(url, three, report=report))))
    one.start()
    assert first.wait(PATIENCE)
    assert migrate.apply(f"{url}?busy_timeout=1", three, report=hear) == []
    one.join()
    assert done == [IDS]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_apply_lock_timeout_that_means_nothing_is_refused(path, url, three, timeout):
    """A bound that is none must not come to mean for ever."""
    with pytest.raises(ValueError, match="lock_timeout="):
        migrate.apply(url, three, lock_timeout=timeout)
    assert not path.exists()


def test_command_waits_up_to_the_lock_timeout(url, three, monkeypatch):
    """The option is a number of seconds; the error says who it was, in JSON, too."""
    migrate.apply(url, three, steps=2)
    migrate.take_snapshot(url)
    monkeypatch.setenv("DATABASE_MIGRATIONS", str(three))
    with holding(url, three) as process:
        for arguments in (["migrate"], ["rollback"], ["redo"], ["init"], ["mark", "0003"], ["restore", "--yes"]):
            one = Replica(*arguments, "--database", url, "--lock-timeout", "0.1", "--json")
            code, out = one.end()
            assert code == 1, arguments
            assert '"type": "DatabaseBusy"' in out, arguments
            assert f"held by another migration run, process {process.pid}, for longer than 0.1 s" in one.errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_migrate_ended_while_it_waits_leaves_nothing(path, url, three, replicas, number, code):
    """Ctrl-C and SIGTERM end the wait, with one line, and the run that was waited for goes on."""
    with holding(url, three) as process:
        (one,) = replicas(1)
        one.process.send_signal(number)
        assert one.end() == (code, "")
        last = "error: interrupted; what was not committed was rolled back, `dao status` shows what stands\n"
        assert one.errors.endswith(last)
        assert "Traceback" not in one.errors
        process.communicate("\n" * len(IDS))
        assert process.returncode == 0
    assert migrate.status(url, three).is_current
    assert not path.with_name(f"{path.name}-migrate").exists()


@pytest.mark.slow
def test_migrate_waits_for_a_migration_of_many_seconds(path, url, tmp_path):
    """Five replicas with the defaults, and a script that takes longer than the five seconds of the busy timeout."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 45000000)"
    folder = write(tmp_path / "sql", {"1_long.sql": f"CREATE TABLE a AS {endless} SELECT count(*) AS c FROM n;"})
    five = [Replica("migrate", "--database", url, "--migrations", str(folder)) for _ in range(5)]
    ends = [one.end(600) for one in five]
    assert [code for code, _ in ends] == [0] * 5
    assert sorted(out == f"{path}: nothing to apply\n" for _, out in ends) == [False, True, True, True, True]
    assert query(path, "SELECT c FROM a") == [(45_000_000,)]
    assert query(path, "SELECT count(*) FROM _yoyo_log") == [(1,)]


# ---------------------------------------------------------------- the lock itself

COUNT = """
import sys, time
from dao.migrate.file_lock import FileLock
database, file, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(rounds):
    with FileLock(database) as lock:
        lock.take()
        count = int(open(file).read())
        time.sleep(0.0002)
        open(file, "w").write(str(count + 1))
"""


def test_lock_is_one_process_at_a_time(path, tmp_path):
    """Its file comes and goes with each holder, and never are there two: no count is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    commands = [[sys.executable, "-c", COUNT, str(path), str(counter), "100"]] * 4
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(PATIENCE) for process in processes] == [0] * 4
    assert counter.read_text() == "400"
    assert list(tmp_path.glob("*-migrate")) == []


def test_lock_of_a_file_that_was_removed_meanwhile_is_none(path, monkeypatch):
    """Between the opening of the file and its lock, one holder may free it and the next make another."""
    original = fcntl.flock
    with FileLock(str(path)) as first, FileLock(str(path)) as second:
        first.take()

        def late(file: int, how: int) -> None:
            monkeypatch.setattr(fcntl, "flock", original)
            first.__exit__()
            second.take()
            original(file, how)

        monkeypatch.setattr(fcntl, "flock", late)
        with FileLock(str(path), 0) as third, pytest.raises(DatabaseBusy):
            third.take()
    assert not path.with_name(f"{path.name}-migrate").exists()


def test_lock_ends_with_its_holder_although_a_child_of_it_lives(path):
    """A forked child does not keep the lock of a parent that is killed, nor free that of one that lives."""
    program = (
        "import os, sys, time\n"
        "from dao.migrate.file_lock import FileLock\n"
        "with FileLock(sys.argv[1]) as lock:\n"
        "    lock.take()\n"
        "    if os.fork() == 0:\n"
        "        lock.__exit__()\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert holder(str(path)) == f"process {process.pid}"
        process.kill()
        process.wait()
        os.kill(child, 0)
        assert holder(str(path)) is None
        with FileLock(str(path), 0) as lock:
            lock.take()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_lock_file_that_a_killed_run_left_goes_with_the_next(path, url, three):
    """A file without a lock on it means nothing, whatever it says, and does not pile up."""
    left = path.with_name(f"{path.name}-migrate")
    for text in (f"{os.getpid()} {os.uname().nodename}\n", "1 elsewhere\n", "", "\0\xff\n\n"):
        left.write_text(text)
        assert holder(str(path)) is None
        migrate.apply(url, three, lock_timeout=0)
        assert not left.exists()
        left.write_text(text)
        migrate.apply(url, three, lock_timeout=0)  # nothing to do
        assert not left.exists()


def test_lock_of_a_file_of_another_kind_is_refused(path, url, three, tmp_path):
    """Nothing is written to, removed or waited for that somebody has put under the name of the lock."""
    migrate.apply(url, three, steps=2)
    left, theirs = path.with_name(f"{path.name}-migrate"), tmp_path / "theirs"
    theirs.write_text("mine")
    theirs.chmod(0o600)
    makers: list[Callable[[], object]] = [
        lambda: left.hardlink_to(theirs),
        lambda: left.symlink_to(theirs),
        lambda: os.mkfifo(left),
        left.mkdir,
    ]
    for make in makers:
        make()
        for verb in (migrate.apply, migrate.redo):
            with pytest.raises(OperationalError, match=r"-migrate(,| is no file of)"):
                verb(url, three)
        assert (theirs.read_text(), theirs.stat().st_mode & 0o777) == ("mine", 0o600)
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
    assert migrate.status(url, three).ids("pending") == ["0003_c"]


def test_lock_may_be_taken_by_whoever_may_write_to_the_database(path, url, three):
    """Its file has the owner and the permissions of the database: the next run may be another user's."""
    migrate.apply(url, three, steps=2)
    path.chmod(0o662)
    seen = []

    def report(_event: migrate.Event) -> None:
        found = path.with_name(f"{path.name}-migrate").stat()
        seen.append((found.st_uid, found.st_gid, found.st_mode & 0o777))

    migrate.apply(url, three, report=report)
    assert set(seen) == {(path.stat().st_uid, path.stat().st_gid, 0o662)}


def test_apply_database_in_memory_needs_no_lock(three, tmp_path, monkeypatch):
    """It is its connection, and nobody else finds it."""
    monkeypatch.chdir(tmp_path)
    connection = apsw.Connection(":memory:")
    assert ids(migrate.apply(connection, three)) == IDS
    assert os.listdir(tmp_path) == [three.name]


def test_apply_killed_in_a_rollback_journal_mode_is_waited_for_past_the_busy_timeout(path, url, three):
    """In that mode a run may keep even readers out: that counts as the run's lock, not as a stranger's."""
    query(path, "PRAGMA journal_mode = delete; CREATE TABLE theirs (id)")
    other = apsw.Connection(str(path))
    taken, told = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(str(path)) as lock:
            lock.take()
            other.execute("BEGIN EXCLUSIVE")
            taken.set()
            assert told.wait(PATIENCE)
            other.execute("COMMIT")

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(PATIENCE)
    with pytest.raises(DatabaseBusy, match="another migration run"):
        migrate.apply(f"{url}?busy_timeout=1", three, lock_timeout=0)
    assert ids(migrate.apply(f"{url}?busy_timeout=1", three, report=lambda _event: told.set())) == IDS
    thread.join()
    other.close()


@pytest.mark.parametrize("verb", ["apply", "rollback", "reset", "mark", "baseline"])
def test_verb_in_the_middle_of_a_transaction_is_refused_before_it_waits(path, url, three, verb):
    """It waited first for the other run, which waited for that transaction: both until one of them gave up."""
    migrate.apply(url, three, steps=2)
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN IMMEDIATE")
    extra = {"mark": ([IDS[2]],)}.get(verb, ())
    with elsewhere(path), pytest.raises(MigrationError, match="in the middle of a transaction"):
        getattr(migrate, verb)(connection, *extra, three, lock_timeout=0)
    connection.close()


@pytest.mark.parametrize("verb", ["apply", "reset", "baseline"])
def test_verb_waits_for_another_run_before_it_reads_in_a_rollback_journal_mode(path, url, three, tmp_path, verb):
    """A run may keep readers out there: `reset` and `baseline` took that for a stranger's lock, and gave up."""
    query(path, "PRAGMA journal_mode = delete")
    other = apsw.Connection(str(path))
    folder = tmp_path / "new" if verb == "baseline" else three
    with elsewhere(path):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy, match="another migration run"):
            getattr(migrate, verb)(f"{url}?busy_timeout=1", folder, lock_timeout=0)
    other.close()


@pytest.mark.parametrize("verb", ["apply", "reset", "mark"])
def test_verb_on_a_connection_whose_file_was_moved_is_refused(path, three, verb):
    """It changed the file that was moved away, said that all was done, and locked the one that is there by now."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE theirs (id); DROP TABLE theirs")
    away = path.rename(path.with_name("away.db"))
    arguments, options = {"mark": ([[IDS[0]]], {})}.get(verb, ([], {"snapshots": 0}))
    with pytest.raises(OperationalError, match="moved or replaced"):
        getattr(migrate, verb)(connection, *arguments, three, **options)
    connection.close()
    assert query(away, "SELECT name FROM sqlite_schema") == []


def test_lock_does_not_remove_that_of_another(tmp_path):
    """The folder of the database was moved while one ran, and another has the lock of the new one."""
    folder = tmp_path / "data"
    folder.mkdir()
    with FileLock(str(folder / "x.db")) as second:
        with FileLock(str(folder / "x.db")) as first:
            first.take()
            folder.rename(tmp_path / "old")
            folder.mkdir()
            second.take()
        assert [file.name for file in folder.iterdir()] == ["x.db-migrate"]


def test_lock_that_this_thread_has_by_another_path_is_refused(tmp_path):
    """A mount may show a folder at several paths: the thread waited for itself, for ever."""
    folder, again = tmp_path / "data", tmp_path / "again"
    folder.mkdir()
    again.symlink_to(folder)
    with FileLock(str(folder / "x.db")) as first, FileLock(str(again / "x.db"), PATIENCE) as second:
        first.take()
        with pytest.raises(DatabaseBusy, match="would wait for itself"):
            second.take()
        assert holder(str(again / "x.db")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_lock_that_another_member_of_the_group_left_may_be_taken(tmp_path):
    """Its file kept the first group of whoever made it, so that one killed run refused all others of the group."""
    path = tmp_path / "shared.db"
    path.touch()
    os.chown(path, 0, 4000)
    path.chmod(0o660)
    tmp_path.chmod(0o777)
    taking = (
        "import fcntl, os, sys\n"
        "from dao.migrate.file_lock import FileLock\n"
        "user = int(sys.argv[1])\n"
        "os.setgroups([4000]); os.setgid(user); os.setuid(user)\n"
        "FileLock('shared.db').take()\n"
        "os._exit(0)"  # as if it were killed
    )
    for user in ("4001", "4002"):
        # by a relative path: the folders above are for nobody else
        subprocess.run([sys.executable, "-c", taking, user], cwd=tmp_path, check=True)
    found = path.with_name(f"{path.name}-migrate").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (4001, 4000, 0o660)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_lock_file_that_this_user_may_not_open_is_the_file_to_look_at(tmp_path):
    """The database was given to another user, the file that a killed run left was not; the message named the folder."""
    tmp_path.chmod(0o777)
    left = tmp_path / "x.db-migrate"
    left.touch(0o600)
    taking = (
        "import fcntl, os\n"
        "from dao.migrate.file_lock import FileLock\n"
        "os.setgroups([]); os.setgid(4001); os.setuid(4001)\n"
        "FileLock('x.db').take()"
    )
    ran = subprocess.run([sys.executable, "-c", taking], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Give it the owner and the permissions of the database" in ran.stderr
    assert left.exists()
