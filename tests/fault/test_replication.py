"""Replicas: what they hold after everything was killed, and what ends or damages replication."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import attrs
import pytest

import dao
from dao import Task, migrate, tasks
from dao.errors import CheckFailed, DatabaseBusy, ReplicationError
from dao.replication import replicate, replicator, restore
from dao.replication.litestream import Litestream, Metrics, program
from tests.concurrency import PATIENCE, wait_for
from tests.fault import writers

log = logging.getLogger(__name__)

#: The writers need all migrations but the last.
BEFORE_LAST = migrate.load()[-2].id
#: A WAL of so many pages makes writers wait until it is in the file; a load and a rebuild may come on top.
LONGEST_WAL = 2 * 25_000 * 4_120


@pytest.fixture
def database(tmp_path) -> Path:
    """A migrated database."""
    path = tmp_path / "live" / "o.db"
    path.parent.mkdir()
    migrate.apply(url_of(path))
    return path


def url_of(path: Path) -> str:
    return f"sqlite:///{path}?wal_autocheckpoint=0"


@attrs.frozen
class Replicator:
    """The command `dao replicate`, and the replica that it keeps."""

    process: subprocess.Popen[str]
    database: Path
    replica: Path

    @classmethod
    def start(cls, database: Path, replica: Path) -> Replicator:
        """Start it, and return once it says that all is in the replica."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dao", "replicate", "--database", url_of(database), "--to", str(replica)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "all of it is in" in line, line + process.communicate()[0]
        return cls(process, database, replica)

    @property
    def lock(self) -> Path:
        """The file that both processes have locked, and that has their ids."""
        return self.database.parent / f".{self.database.name}-litestream" / "dao.lock"

    @property
    def litestream(self) -> int:
        """The id of Litestream's process."""
        return int(self.lock.read_text().split()[1])

    def catch_up(self) -> None:
        """Return once all that is committed by now is in the replica, however long that takes."""
        litestream = Litestream(program(), str(self.database), self.lock.with_name("dao.yml"))
        address = json.loads(litestream.configuration.read_text())["addr"]

        def metrics() -> Metrics:
            time.sleep(0.1)
            return Metrics.read(address, str(self.database)) or Metrics(0, 0, 0)

        def uploaded() -> int:
            time.sleep(0.1)
            return litestream.uploaded().number

        begun = metrics().looks
        wait_for(lambda: metrics().looks > begun + 1)  # the first one may have begun before
        found = metrics().number
        wait_for(lambda: uploaded() >= found)

    def kill(self) -> None:
        """Kill it and Litestream with SIGKILL."""
        for pid in (self.litestream, self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        with self.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Litestream is no child of this process

    def end(self) -> tuple[int, str]:
        """Wait for its end and return its exit code, and what else it printed."""
        printed = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode, printed


@pytest.fixture
def begin(database, tmp_path) -> Iterator[Callable[[], Replicator]]:
    """Start to replicate the database, again and again if need be."""
    begun: list[Replicator] = []

    def start() -> Replicator:
        begun.append(Replicator.start(database, tmp_path / "replica"))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()


def fill(path: Path, name: str, *, batches: int = 3, size: int = 100, checkpoints: int = 0) -> None:
    with contextlib.closing(dao.connect(f"sqlite:///{path}?wal_autocheckpoint={checkpoints}")) as connection:
        for batch in range(batches):
            tasks.create_many(
                connection, [Task(id=f"{name}{batch}-{row}", title=300 * "x", task_type="t") for row in range(size)]
            )


def content(path: Path) -> list[tuple[str]]:
    with contextlib.closing(dao.connect(f"sqlite:///{path}?mode=ro")) as connection:
        assert connection.pragma("integrity_check") == "ok"
        return connection.execute("SELECT id FROM tasks ORDER BY id").fetchall()


def restored(started: Replicator, tmp_path: Path) -> list[tuple[str]]:
    """Return what its replica holds, restored into a new file."""
    new = tmp_path / "restored.db"
    restore(f"sqlite:///{new}", str(started.replica))
    return content(new)


def given_up(url: str, replica: Path) -> str:
    """Replicate where nothing gets through, and return what the error says of Litestream's reason."""
    for patience in (3, 30, 100):  # on a busy machine Litestream may not have begun by then
        with pytest.raises(ReplicationError, match="has stopped, since nothing got through for") as caught:
            replicate(url, str(replica), patience=patience)
        if reason := re.search(r"nothing got through for \d+ s \((.*)\)", str(caught.value)):
            return reason[1]
    pytest.fail(str(caught.value))


# ---------------------------------------------------------------- all is killed


@attrs.define
class Round:
    """A machine that replicates under load, and is killed."""

    folder: Path
    begin: Callable[[], Replicator]
    database: Path
    seed: str
    processes: dict[str, subprocess.Popen[bytes]] = attrs.Factory(dict)
    longest_wal: int = 0

    def write(self, name: str, pause: float = 0.04) -> None:
        """Start a writer, or another in its place; see `writers`."""
        if name in self.processes:
            self.processes[name].kill()
            self.processes[name].wait()
        arguments = [url_of(self.database), name, self.seed, str(self.folder / name), str(pause)]
        command = [sys.executable, writers.__file__, *arguments]
        with (self.folder / "errors").open("ab") as errors:
            self.processes[name] = subprocess.Popen(command, stderr=errors)

    def acknowledged(self, name: str) -> list[tuple[int, float]]:
        """Return which commits a writer was told of, and when."""
        path = self.folder / name
        lines = re.findall(r"^([0-9]+) ([0-9.]+)\n", path.read_text() if path.exists() else "", re.MULTILINE)
        return [(int(number), float(at)) for number, at in lines]

    def wait_for(self, name: str, commits: int) -> None:
        """Wait until a writer has so many more commits."""
        enough = len(self.acknowledged(name)) + commits
        while len(self.acknowledged(name)) < enough:
            assert self.processes[name].poll() is None, (self.folder / "errors").read_text()
            self.pause(0.02)

    def pause(self, seconds: float) -> None:
        """Let it work, and look how long the WAL gets."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(FileNotFoundError):
                self.longest_wal = max(self.longest_wal, os.path.getsize(f"{self.database}-wal"))
            time.sleep(min(left, 0.05))

    def kill(self, started: Replicator) -> float:
        """Kill everything, and return when."""
        moment = time.time()
        for process in self.processes.values():
            process.kill()
        started.kill()
        for process in self.processes.values():
            process.wait()
        assert (self.folder / "errors").read_text() == ""
        return moment

    def check(self, started: Replicator) -> dict[str, int]:
        """Restore by the command, and return how many commits of each writer it has: those, and nothing else."""
        new = self.folder / "restored.db"
        command = [sys.executable, "-m", "dao", "restore-replica", "-d", f"sqlite:///{new}"]
        subprocess.run([*command, "--from", str(started.replica)], check=True, capture_output=True)
        found = {}
        with contextlib.closing(dao.connect(f"sqlite:///{new}")) as connection:
            for name in self.processes:
                found[name] = writers.number_of(connection, name)
                rows = connection.execute("SELECT id, title, status FROM tasks WHERE id GLOB $1", (f"{name}-*",))
                held = {id: (title, status) for id, title, status in rows}
                assert held == writers.state_after(name, self.seed, found[name])
        return found


@pytest.fixture
def under_load(tmp_path, database, begin) -> Iterator[Callable[[str], Round]]:
    """Make a round."""
    rounds: list[Round] = []

    def make(seed: str) -> Round:
        rounds.append(Round(tmp_path, begin, database, seed))
        return rounds[-1]

    yield make
    for process in (process for one in rounds for process in one.processes.values()):
        process.kill()
        process.wait()


def test_replica_after_kill_of_everything_holds_a_state_that_was(under_load, database):
    """It is sound, has what was committed before a migration that it has, and of each writer all up to some commit."""
    migrate.rollback(url_of(database), to=BEFORE_LAST)
    one = under_load("short")
    started = one.begin()
    for name in "ab":
        one.write(name)
        one.wait_for(name, 5)
    migrate.apply(url_of(database))
    before = {name: len(one.acknowledged(name)) for name in "ab"}
    for name in "ab":
        one.wait_for(name, 20)
    started.catch_up()
    one.kill(started)
    found = one.check(started)
    assert all(found[name] >= before[name] for name in "ab")
    migrate.assert_current(f"sqlite:///{one.folder}/restored.db")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(50))
def test_replica_of_a_long_round_loses_two_seconds_at_most(under_load, database, number):
    """Loads, updates, a migration, a VACUUM, writers killed, a replicator begun anew: the replica is sound."""
    rng = random.Random(number)
    events = [*["migrate"] * (rng.random() < 0.7), *["vacuum"] * (rng.random() < 0.4)]
    events += [*["restart"] * rng.choice([0, 0, 1, 2]), *["kill a writer"] * rng.choice([0, 1, 2])]
    rng.shuffle(events)
    if "migrate" in events:
        migrate.rollback(url_of(database), to=BEFORE_LAST)
    one = under_load(f"long {number}")
    started = one.begin()
    for name in "ab":
        one.write(name)
        one.wait_for(name, 1)
    for event in events:
        one.pause(rng.uniform(0.5, 2))
        match event:
            case "migrate":
                migrate.apply(url_of(database))
            case "vacuum":
                with contextlib.closing(dao.connect(url_of(database))) as connection:
                    connection.execute("VACUUM").fetchall()
            case "kill a writer":
                one.write(rng.choice("ab"))
            case "restart":
                if rng.random() < 0.5:
                    started.kill()
                else:
                    started.process.terminate()
                    assert started.end()[0] == 0
                one.pause(rng.uniform(0, 1))
                if rng.random() < 0.5:
                    # whoever does not know of the replica
                    fill(database, f"stranger-{rng.random()}-", batches=15, checkpoints=100)
                started = one.begin()
    one.pause(rng.uniform(4, 7))
    killed = one.kill(started)
    found = one.check(started)
    lost = [killed - at for name in "ab" for number, at in one.acknowledged(name) if number > found[name]]
    log.info("%s lost %.2f s, WAL %d MB, %s", found, max(lost, default=0), one.longest_wal // 1_000_000, events)
    assert max(lost, default=0) <= 2
    assert one.longest_wal < LONGEST_WAL


@pytest.mark.slow
def test_replica_under_the_heaviest_load_keeps_the_wal_short(under_load, database):
    """Two writers without a pause for a minute: Litestream alone brings the WAL into the file, and keeps up."""
    one = under_load("heavy")
    started = one.begin()
    for name in "ab":
        one.write(name, pause=0)
    one.pause(60)
    killed = one.kill(started)
    begun = time.monotonic()
    found = one.check(started)
    seconds = time.monotonic() - begun
    lost = [killed - at for name in "ab" for number, at in one.acknowledged(name) if number > found[name]]
    size = os.path.getsize(one.folder / "restored.db")
    log.info(
        "%s lost %.2f s, WAL %d MB, database %d MB, restored and checked in %.1f s",
        *(found, max(lost, default=0), one.longest_wal // 1_000_000, size // 1_000_000, seconds),
    )
    assert one.longest_wal < LONGEST_WAL


# ---------------------------------------------------------------- what Litestream does not notice


def test_replicate_after_another_process_began_the_wal_anew_misses_nothing(begin, database, tmp_path):
    """Litestream alone goes on where it was, and the replica is damaged: it has not seen the end of the old WAL."""
    with contextlib.closing(apsw.Connection(str(database))) as other:  # none of the next is the last to close
        other.execute("SELECT 1 FROM tasks").fetchall()
        begin().kill()
        fill(database, "a", batches=30)
        begin().kill()
        fill(database, "b")
        other.wal_checkpoint()
        fill(database, "c", batches=1, size=1)
        started = begin()
    started.process.terminate()
    assert started.end()[0] == 0
    assert restored(started, tmp_path) == content(database)


def test_replicate_file_replaced_stops_and_begins_with_a_whole_copy(begin, database, tmp_path):
    """It ends with 1 and says why; begun again, it replicates the other file."""
    started = begin()
    other = tmp_path / "other.db"
    migrate.apply(url_of(other))
    fill(other, "other")
    with contextlib.closing(apsw.Connection(str(other))) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink()
    other.rename(database)
    code, printed = started.end()
    assert code == 1
    assert "has stopped, since the file was replaced" in printed
    started = begin()
    started.process.terminate()
    assert started.end()[0] == 0
    assert restored(started, tmp_path) == content(database)


def test_replicate_page_size_changed_stops(begin, database):
    """A replica has one page size: it ends with 1, and says what Litestream says."""
    begin().kill()
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        for statement in ("journal_mode = delete", "page_size = 8192", "journal_mode = delete"):
            connection.execute(f"PRAGMA {statement}").fetchall()
        connection.execute("VACUUM").fetchall()
    assert "page size" in given_up(url_of(database), database.parents[1] / "replica")


def test_replicate_database_restored_meanwhile_follows(begin, database, tmp_path):
    """A restore replaces all rows in one transaction, also of a database that is being replicated."""
    fill(database, "kept")
    snapshot = migrate.take_snapshot(url_of(database))
    started = begin()
    fill(database, "gone")
    migrate.restore(url_of(database), snapshot.path)
    fill(database, "new")
    started.process.terminate()
    assert started.end()[0] == 0
    assert restored(started, tmp_path) == content(database)
    assert {id[:4] for (id,) in content(database)} == {"kept", "new0", "new1", "new2"}


def test_restore_of_a_moment_has_what_was_then(begin, database, tmp_path):
    """With `at` the replica goes back; it is sound, too, and a database that is there becomes a snapshot first."""
    started = begin()
    fill(database, "before")
    started.catch_up()
    time.sleep(1)
    moment = datetime.now(UTC)
    time.sleep(1)
    fill(database, "after")
    started.process.terminate()
    assert started.end()[0] == 0
    there = content(database)
    done = restore(url_of(database), str(started.replica), at=moment, force=True)
    assert {id[:6] for (id,) in content(database)} == {"before"}
    assert content(done.done.replaced.path) == there


def test_restore_of_what_is_not_sound_replaces_nothing(begin, database, tmp_path):
    """Rows that break the schema came with the replica: they are kept beside, and the database stays as it was."""
    with contextlib.closing(dao.connect(f"{url_of(database)}&foreign_keys=off")) as connection:
        connection.execute("INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ('no', 'such', 1)")
    started = begin()
    started.process.terminate()
    assert started.end()[0] == 0
    fill(database, "later")
    before = content(database)
    with pytest.raises(CheckFailed, match=r"is not sound, and is kept as .*\.replica; nothing was changed") as caught:
        restore(url_of(database), str(started.replica), force=True)
    assert "foreign key: workflow_tasks" in str(caught.value)
    assert content(database) == before
    (kept,) = database.parent.glob("*.replica")
    assert content(kept) == []
    assert not (database.parent / f".{database.name}-restore").exists()


# ---------------------------------------------------------------- the end


def test_replicate_terminated_uploads_what_is_left(begin, database, tmp_path):
    """What was committed when it was told to end is in the replica."""
    started = begin()
    fill(database, "last")
    started.process.terminate()
    assert started.end()[0] == 0
    assert len(restored(started, tmp_path)) == 300


def test_replicate_litestream_killed_stops(begin):
    """It ends with 1, so that whatever looks after it begins it again."""
    started = begin()
    os.kill(started.litestream, signal.SIGKILL)
    code, printed = started.end()
    assert code == 1
    assert "has stopped, since litestream has ended with exit code -9" in printed
    assert "To begin it again is safe" in printed


def test_replicate_to_a_place_that_cannot_be_written_stops(database, tmp_path):
    """Litestream goes on and on; once nothing got through for as long as it is patient, this does not."""
    (tmp_path / "replica").write_text("a file")
    assert "not a directory" in given_up(url_of(database), tmp_path / "replica")


def test_replicate_place_that_goes_and_comes_back_is_told(database, tmp_path, monkeypatch):
    """It says that it is behind, and why; once the place is back, it catches up by itself, and says that, too."""
    monkeypatch.setattr(replicator, "_ASK", 1)
    monkeypatch.setattr(replicator, "_LATE", 1e9)
    fails = replicator._Watch._fails

    def failing(watch, error):
        fails(watch, error)
        if "not a directory" in error:
            monkeypatch.setattr(replicator, "_LATE", 1)  # not before Litestream has said why, which may take a while

    monkeypatch.setattr(replicator._Watch, "_fails", failing)
    place, away = tmp_path / "replica", tmp_path / "away"
    told = []

    def report(state):
        told.append(state)
        if len(told) == 1:
            place.rename(away)
            place.write_text("a file")
            fill(database, "late")
        elif len(told) == 2:
            place.unlink()
            away.rename(place)
        else:
            raise KeyboardInterrupt

    ended = replicate(url_of(database), str(place), report=report)
    assert [bool(state.behind) for state in told] == [False, True, False]
    assert "not a directory" in told[1].reason
    assert (ended, ended.reason) == (told[2], None)
    restore(f"sqlite:///{tmp_path}/new.db", str(place))
    assert content(tmp_path / "new.db") == content(database)


def test_replicate_twice_is_refused_even_if_only_litestream_is_left(begin, database, tmp_path):
    """Two would write the same replica. A Litestream whose replicator was killed holds the lock, too."""
    started = begin()
    with pytest.raises(DatabaseBusy, match="is being replicated already"):
        replicate(url_of(database), str(tmp_path / "elsewhere"))
    os.kill(started.process.pid, signal.SIGKILL)
    started.process.wait()
    with pytest.raises(DatabaseBusy, match=f"{started.litestream}.*: end that one first"):
        replicate(url_of(database), str(tmp_path / "elsewhere"))


def test_replicate_beside_a_long_reader_is_refused(database, tmp_path):
    """The WAL cannot be emptied, and what is not known to be whole is not begun."""
    fill(database, "a")
    with contextlib.closing(apsw.Connection(str(database))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM tasks").fetchall()
        fill(database, "b")
        with pytest.raises(DatabaseBusy, match="its WAL cannot be emptied"):
            replicate(f"{url_of(database)}&busy_timeout=10", str(tmp_path / "replica"))
