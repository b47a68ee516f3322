"""Killed in the middle: the database is the old one or the new one, the ledger says which, and the next run goes on."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

from dao import migrate
from dao.errors import LedgerMismatch
from dao.migrate.copies.snapshot import snapshots, verify
from dao.migrate.run.verbs import ledger_of
from dao.migrate.schema.names import TABLES
from tests.concurrency import PATIENCE
from tests.fault.migrators import Migrators
from tests.folders import ALONE, THREE, dump, ids, query, schema, with_fourth, write

#: Each pair restores exactly what was there before. The second is where the rows come in, so it is never undone.
FOLDER: dict[str, Any] = {
    "0001_parents.sql": 'CREATE TABLE "parents" (id INTEGER PRIMARY KEY, name TEXT NOT NULL);',
    "0001_parents.rollback.sql": "DROP TABLE parents;",
    "0002_children.sql": """
        CREATE TABLE children (
            id INTEGER PRIMARY KEY,
            parent_id INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE,
            text TEXT NOT NULL
        );""",
    "0002_children.rollback.sql": "DROP TABLE children;",
    "0003_kind.sql": """
        CREATE TABLE made_anew (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL DEFAULT 'plain');
        INSERT INTO made_anew (id, name) SELECT id, name FROM parents;
        DROP TABLE parents;
        ALTER TABLE made_anew RENAME TO parents;""",
    "0003_kind.rollback.sql": """
        CREATE TABLE made_anew (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
        INSERT INTO made_anew SELECT id, name FROM parents;
        DROP TABLE parents;
        ALTER TABLE made_anew RENAME TO parents;""",
    "0004_totals.sql": """
        CREATE TABLE totals (parent_id INTEGER NOT NULL REFERENCES parents (id) ON UPDATE CASCADE, number INTEGER);
        INSERT INTO totals SELECT parent_id, count(*) FROM children GROUP BY parent_id;
        CREATE INDEX totals_parent ON totals (parent_id);""",
    "0004_totals.rollback.sql": "DROP TABLE totals;",
    "0005_index.sql": """
        CREATE INDEX children_parent ON children (parent_id);
        CREATE TRIGGER gone AFTER DELETE ON children BEGIN UPDATE totals SET number = number - 1; END;""",
    "0005_index.rollback.sql": "DROP TRIGGER gone; DROP INDEX children_parent;",
    "0006_text.sql": "UPDATE children SET text = 'x' || text;",
    "0006_text.rollback.sql": "UPDATE children SET text = substr(text, 2);",
    "0007_keys.sql": "-- foreign_keys: on\nUPDATE parents SET id = id + 100000;",
    "0007_keys.rollback.sql": "-- foreign_keys: on\nUPDATE parents SET id = id - 100000;",
    "0008_alone.sql": f"{ALONE}CREATE INDEX names ON parents (name); VACUUM; CREATE INDEX texts ON children (text);",
    "0008_alone.rollback.sql": "DROP INDEX texts; VACUUM; DROP INDEX names;",
    "0009_last.sql": "CREATE TABLE last (id INTEGER PRIMARY KEY); INSERT INTO last VALUES (1);",
    "0009_last.rollback.sql": "DROP TABLE last;",
}
ROWS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO parents (id, name) SELECT i, 'parent ' || i || hex(zeroblob(100)) FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
INSERT INTO children (id, parent_id, text) SELECT i, i % 400 + 1, 'child ' || i || hex(zeroblob(100)) FROM n;
"""
#: How many migrations are applied where the runs in one transaction end, and where those in parts do.
FIRST, MIDDLE, LAST = 2, 6, 9


@attrs.frozen
class World:
    """A folder of migrations, its ids, and after each number of them what the database holds, and a file that does."""

    folder: Path
    ids: list[str]
    contents: list[dict[str, Any]]
    files: list[Path]


@attrs.frozen(kw_only=True)
class Job:
    """What a process does that will be killed, from how many applied migrations to how many, and what may be seen."""

    function: str
    begin: int
    end: int
    each: bool = False
    own: bool = False  # the migrations of this package, instead of those above
    mode: str = "wal"
    between: Sequence[int] = ()

    @property
    def restores(self) -> bool:
        """Whether it restores a snapshot."""
        return self.function == "restore"


EVERY = range(FIRST, LAST + 1)
#: Numbers that the commits leave: after the transactional ones, the one with foreign keys on, the one outside.
PARTS = (MIDDLE, LAST - 2, LAST - 1)
JOBS = {
    "create": Job(function="apply", begin=0, end=-1, own=True),
    "create, each": Job(function="apply", begin=0, end=-1, own=True, each=True, between=range(20)),
    "create, yoyo": Job(function="yoyo_apply", begin=0, end=-1, own=True, between=range(20)),
    "apply": Job(function="apply", begin=FIRST, end=MIDDLE),
    "apply, rollback journal": Job(function="apply", begin=FIRST, end=MIDDLE, mode="delete"),
    "rollback": Job(function="rollback", begin=MIDDLE, end=FIRST),
    "apply, parts": Job(function="apply", begin=FIRST, end=LAST, between=PARTS),
    "rollback, parts": Job(function="rollback", begin=LAST, end=FIRST, between=PARTS),
    "apply, each": Job(function="apply", begin=FIRST, end=LAST, each=True, between=EVERY),
    "rollback, each": Job(function="rollback", begin=LAST, end=FIRST, each=True, between=EVERY),
    "apply, alone": Job(function="apply", begin=LAST - 2, end=LAST - 1),
    "rollback, alone": Job(function="rollback", begin=LAST - 1, end=LAST - 2),
    "snapshot": Job(function="take", begin=MIDDLE, end=MIDDLE),
    "restore": Job(function="restore", begin=MIDDLE, end=FIRST),
    "restore, rollback journal": Job(function="restore", begin=MIDDLE, end=FIRST, mode="delete"),
    "restore, missing": Job(function="restore", begin=0, end=FIRST),
}


# ---------------------------------------------------------------- the worlds


def content(path: Path) -> dict[str, Any]:
    """Return the schema and the rows of a database, without the ledger."""
    if not path.exists():
        return {}
    return {name: rows for name, rows in dump(path).items() if name not in TABLES} | {"schema": schema(path)}


def made(folder: Path, source: Path | None, rows: str = "") -> World:
    """Apply the migrations of a folder one by one, with rows after the second, and keep what is there after each."""
    path = folder / "x.db"
    contents: list[Any] = [{}]
    files = [folder / "0.db"]
    names = ids(migrate.load(source))
    for number in range(1, len(names) + 1):
        migrate.apply(f"sqlite:///{path}", source, steps=1, snapshots=0)
        if number == FIRST:
            query(path, rows)
        contents.append(content(path))
        files.append(folder / f"{number}.db")
        shutil.copy(path, files[-1])
    return World(source or migrate.default_folder(), names, contents, files)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, World]:
    """The world of the migrations above, and of this package's own (True)."""
    folder = tmp_path_factory.mktemp("world")
    source = write(folder / "sql", FOLDER)
    return {False: made(folder, source, ROWS), True: made(tmp_path_factory.mktemp("own"), None)}


@pytest.fixture(scope="module")
def migrators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrators]:
    """Starts processes that change databases."""
    with Migrators(tmp_path_factory.mktemp("server")) as server:
        yield server


# ---------------------------------------------------------------- after a kill


@contextlib.contextmanager
def unlocked(path: Path) -> Iterator[None]:
    """Assert that nobody holds a lock on a database, and keep it open for a block.

    The tool that hashes outlives its parent for a moment, and as the last one to close the file it has that to itself:
    hence a little patience, and a connection that stays open meanwhile.
    """
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    yield
    connection.close()


def examine(path: Path, job: Job, world: World) -> int:
    """Assert that ledger, history, schema and rows agree, and return how many migrations are applied."""
    if not path.exists():
        assert job.begin == 0
        return 0
    url = f"sqlite:///{path}"
    with unlocked(path):
        ledger = ledger_of(url)
        number = len(ledger.ids)
        assert ledger.ids == world.ids[:number]
        assert number in {job.begin, job.end, *job.between}
        found = content(path)
        if ledger.unfinished:
            # its statements are commits, and none of them changes a row
            assert [*ledger.unfinished] == ["0008_alone"]
            found["schema"] = world.contents[number]["schema"]
        if number or job.restores or found["schema"]:
            assert found == world.contents[number]
        status = migrate.status(url, world.folder)
        assert status.drift == ()
        if not ledger.unfinished:
            assert status.ids("applied") == world.ids[:number]
            assert status.ids("pending") == world.ids[number:]
        if "yoyo_lock" in dump(path):
            assert query(path, "SELECT * FROM yoyo_lock") == []
        deeds = migrate.history(url)
        if job.restores:
            assert job.begin == 0 or query(path, "PRAGMA journal_mode") == [(job.mode,)]
            # what was done stays on record
            before = job.begin or job.end
            assert ids(deeds) == world.ids[:before] + [None] * (number == job.end and len(deeds) > before)
        else:
            balance = collections.Counter(deed.id for deed in deeds if deed.operation == "apply")
            balance.subtract(deed.id for deed in deeds if deed.operation == "rollback")
            assert +balance == dict.fromkeys(ledger.ids, 1)
    for snapshot in snapshots(url):
        verify(snapshot.path)
        assert content(snapshot.path) == world.contents[job.begin]
    return number


def phase(path: Path, number: int, job: Job) -> str:
    """Tell from what a killed process left when it was killed."""
    url = f"sqlite:///{path}"
    if path.exists() and ledger_of(url).unfinished:
        return "outside of a transaction"
    if snapshots(url):
        if number == job.begin and job.function != "take":
            return "in the scripts"
        return "after" if number == job.end else "between transactions"
    if any(entry.name.endswith(".partial") for entry in path.parent.iterdir()):
        return "in the snapshot"
    if number == job.begin:
        return "in the scripts" if job.begin == 0 and path.exists() else "before"
    return "after" if number == job.end else "between transactions"


def resolve(path: Path, world: World) -> None:
    """Get out of a script that was killed outside of a transaction, as the message says."""
    url = f"sqlite:///{path}"
    with pytest.raises(LedgerMismatch, match="dao migrate resolve 0008_alone"):
        migrate.apply(url, world.folder)
    found = migrate.unfinished(url, "0008_alone", world.folder)
    if found.from_applied == ():
        migrate.resolve(url, found.id, "applied", world.folder)
        return
    if found.from_rolled_back != ():
        query(path, "DROP INDEX IF EXISTS names; DROP INDEX IF EXISTS texts")
        assert migrate.unfinished(url, found.id, world.folder).from_rolled_back == ()
    migrate.resolve(url, found.id, "rolled back", world.folder)


def finish(path: Path, job: Job, world: World, migrators: Migrators) -> None:
    """Do what the killed process should have done, and assert that it is done and nothing else is left."""
    url = f"sqlite:///{path}"
    if path.exists() and ledger_of(url).unfinished:
        resolve(path, world)
        assert migrate.status(url, world.folder).drift == ()
    if job.function not in {"take", "restore"} and path.exists() and len(ledger_of(url).ids) == job.end:
        # so that there is something to do, and a snapshot to take
        backwards = migrate.apply if job.function == "rollback" else migrate.rollback
        backwards(url, world.folder, steps=1, snapshots=0)
    assert migrators.wait(run(path, job, world, migrators)) == 0, migrators.errors()
    with unlocked(path):
        assert content(path) == world.contents[job.end]
        assert migrate.status(url, world.folder).drift == ()
    left = {entry.name for entry in path.parent.iterdir()} - {snapshot.path.name for snapshot in snapshots(url)}
    # a journal that was committed, but not yet removed, is SQLite's to use again
    assert left <= {path.name, *(path.name + suffix for suffix in ("-wal", "-shm", "-journal"))}


# ---------------------------------------------------------------- kill -9


def find(name: str, worlds: dict[bool, World]) -> tuple[Job, World]:
    """Return a job and its world. -1 migrations are all there are."""
    world = worlds[JOBS[name].own]
    return attrs.evolve(JOBS[name], end=JOBS[name].end % (len(world.ids) + 1)), world


def prepare(folder: Path, job: Job, world: World) -> Path:
    """Make the database that a job begins on, in a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "new.db"
    if job.begin:
        shutil.copy(world.files[job.begin], path)
        query(path, f"PRAGMA journal_mode = {job.mode}")
    return path


def run(path: Path, job: Job, world: World, migrators: Migrators, *before: Any) -> int:
    """Start a job on a database and return the id of the process."""
    to = str(world.files[job.end]) if job.restores else world.ids[job.end - 1]
    return migrators.start(*before, job.function, f"sqlite:///{path}", str(world.folder), to, *["each"] * job.each)


def survive(
    kills: int, name: str, folder: Path, worlds: dict[bool, World], migrators: Migrators
) -> collections.Counter[str]:
    """Kill a job so many times, at moments spread evenly over the time that it takes; return in which phases it was."""
    job, world = find(name, worlds)
    for _ in range(1 if kills < 10 else 3):
        path = prepare(folder / "live", job, world)
        begun = time.perf_counter()
        assert migrators.wait(run(path, job, world, migrators)) == 0, migrators.errors()
        seconds = time.perf_counter() - begun
    phases: collections.Counter[str] = collections.Counter()
    moments = random.Random(kills)
    for kill in range(kills):
        path = prepare(folder / "live", job, world)
        pid = run(path, job, world, migrators)
        time.sleep((kill + moments.random()) / kills * seconds)
        migrators.kill(pid)
        number = examine(path, job, world)
        phases[phase(path, number, job)] += 1
        finish(path, job, world, migrators)
    assert migrators.errors() == ""
    return phases


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", [name for name in JOBS if "parts" not in name])
def test_kill_9_at_any_moment_leaves_the_old_database_or_the_new(tmp_path, worlds, migrators, name):
    """After a kill, ledger and schema agree, and the next run finishes.

    Rows are as before or after, and nothing is locked.
    """
    survive(3, name, tmp_path, worlds, migrators)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_kill_9_sixty_times_leaves_the_old_database_or_the_new(tmp_path, worlds, migrators, name, record_property):
    """The same, so often that every phase had its turn."""
    phases = survive(60, name, tmp_path, worlds, migrators)
    record_property("phases", dict(phases))
    print("at moments:", name, dict(phases))  # noqa: T201 - with -s, the distribution
    assert len(phases) > 1


def die_at_each(
    every: int, name: str, folder: Path, worlds: dict[bool, World], migrators: Migrators
) -> collections.Counter[str]:
    """Kill a job at every so many operations, until it lives; return the phases.

    Operations are writes, syncs and removals.
    """
    job, world = find(name, worlds)
    phases: collections.Counter[str] = collections.Counter()
    for after in range(0, 10_000, every):
        path = prepare(folder / "live", job, world)
        code = migrators.wait(run(path, job, world, migrators, "dying", after))
        assert code in {0, -signal.SIGKILL}, migrators.errors()
        number = examine(path, job, world)
        phases[phase(path, number, job)] += 1
        finish(path, job, world, migrators)
        if code == 0:
            break
    assert migrators.errors() == ""
    return phases


@pytest.mark.parametrize("name", ["apply, alone", "restore"])
def test_kill_9_at_some_writes_leaves_the_old_database_or_the_new(tmp_path, worlds, migrators, name):
    """The same with a process that is killed by what it writes, so that no moment is too short to be hit."""
    die_at_each(149, name, tmp_path, worlds, migrators)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_kill_9_at_each_eleventh_write_leaves_the_old_database_or_the_new(
    tmp_path, worlds, migrators, name, record_property
):
    """The same, at one write out of eleven, of each file."""
    phases = die_at_each(11, name, tmp_path, worlds, migrators)
    record_property("phases", dict(phases))
    print("at writes:", name, dict(phases))  # noqa: T201 - with -s, the distribution
    assert len(phases) > 1


# ---------------------------------------------------------------- interrupted

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n;"


def wait_for_snapshot(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until a process has begun a snapshot, which it may have finished when this is noticed."""
    while process.poll() is None and not any(path.parent.glob(f"{path.name}.*")):
        time.sleep(0.001)


def wait_for_script(process: subprocess.Popen[str], _path: Path) -> None:
    """Wait until a process runs the statement after the one that is passed over with a notice."""
    while "ignored COMMIT" not in process.stderr.readline():
        assert process.poll() is None


@pytest.mark.sample(2)
@pytest.mark.parametrize("wait_for", [wait_for_snapshot, wait_for_script])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_migrate_interrupted_changes_nothing(tmp_path, number, code, wait_for):
    """Ctrl-C and SIGTERM, in the snapshot or in a script, leave everything as it was, and nothing behind.

    SIGTERM ended the process where it was: its snapshot stayed, and was never pushed out.
    """
    folder = with_fourth(tmp_path / "sql", f"CREATE TABLE x (id); COMMIT; INSERT INTO x VALUES (1); {ENDLESS}")
    path = tmp_path / "live" / "old.db"
    path.parent.mkdir()
    url = f"sqlite:///{path}"
    migrate.apply(url, folder, steps=len(THREE) // 2)
    # large enough for the copy to take a while
    query(
        path, "CREATE TABLE theirs (x); INSERT INTO theirs SELECT zeroblob(1000000) FROM json_each('[1,2,3,4,5,6,7,8]')"
    )
    before = dump(path)
    command = [sys.executable, "-m", "dao", "migrate", "--database", url, "--migrations", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(process, path)
        # a terminal sends Ctrl-C to whatever the command has started, too
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    expected = "error: interrupted; what was not committed was rolled back, `dao status` shows what stands\n"
    assert errors.endswith(expected)
    assert "Traceback" not in errors
    with unlocked(path):
        assert dump(path) == before
    assert {entry.name for entry in path.parent.iterdir()} == {path.name}
    with_fourth(folder, "CREATE TABLE x (id);")
    assert ids(migrate.apply(url, folder)) == ["0004_x"]
    left = {entry.name for entry in path.parent.iterdir()}
    assert left == {path.name, *(snapshot.path.name for snapshot in snapshots(url))}
    assert len(snapshots(url)) == 1
