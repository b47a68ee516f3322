"""Killed while a snapshot is taken or restored: the database is the old one or the new one, and never in between."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.migrate.snapshot import snapshots, take_snapshot, verify
from tests.fault.restorers import Restorers
from tests.folders import THREE, dump, query, write

#: The jobs, the journal mode each runs in, and how long a turn of it takes, in seconds.
JOBS = {
    "restore, wal": ("to_and_fro", "wal", 0.25),
    "restore, rollback journal": ("to_and_fro", "delete", 0.25),
    "restore, file missing": ("making_anew", "delete", 0.1),
    "take": ("taking", "wal", 0.15),
}


@pytest.fixture(scope="module")
def restorers() -> Iterator[Restorers]:
    """Starts processes that take and restore snapshots."""
    with Restorers() as server:
        yield server


@pytest.fixture
def states(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A database, and two snapshots of it elsewhere: with few rows, and with many more and another table."""
    path = tmp_path / "live" / "new.db"
    path.parent.mkdir()
    url = f"sqlite:///{path}"
    migrate.apply(url, write(tmp_path / "three", THREE))
    kept = []
    for rows in (50, 3000):
        query(path, f"CREATE TABLE t{rows} (x)")
        query(path, f"INSERT INTO t{rows} SELECT randomblob(100) FROM json_each(?)", json.dumps([0] * rows))
        kept.append(take_snapshot(url).path.rename(tmp_path / f"{rows}.db"))
    return path, kept


def survive(kills: int, job: str, states: tuple[Path, list[Path]], restorers: Restorers) -> set[int]:
    """Kill such a process so many times; return which of the two states were seen."""
    function, mode, seconds = JOBS[job]
    path, kept = states
    url = f"sqlite:///{path}"
    contents = [dump(source) for source in kept]
    query(path, f"PRAGMA journal_mode = {mode}")
    seen = set()
    moments = random.Random(kills)
    for _ in range(kills):
        pid = restorers.start(function, url, *map(str, kept))
        time.sleep(moments.uniform(0, seconds))
        restorers.kill(pid)
        for snapshot in snapshots(url):
            verify(snapshot.path)
        if not path.exists():
            assert function == "making_anew"
            continue
        connection = apsw.Connection(str(path))
        # A lock that is left would stay. The tool that hashes outlives its parent for a moment, and as the last to close
        # the file it has that to itself: hence a little patience, and a connection that stays open meanwhile.
        connection.set_busy_timeout(2_000)
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
        found = dump(path)
        connection.close()
        assert found["integrity_check"] == [("ok",)]
        assert found in contents
        seen.add(contents.index(found))
        if function == "to_and_fro":
            assert query(path, "PRAGMA journal_mode") == [(mode,)]
    if path.exists():
        take_snapshot(url)
        left = {entry.name for entry in path.parent.iterdir()} - {snapshot.path.name for snapshot in snapshots(url)}
        # a journal that was committed, but not yet removed, is SQLite's to use again
        assert left <= {path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"}
    return seen


@pytest.mark.parametrize("job", JOBS)
def test_kill_9_at_any_moment_leaves_the_old_database_or_the_new(states, restorers, job):
    """After each kill the database is whole and free, each snapshot that is listed is complete, and nothing piles up."""
    survive(5, job, states, restorers)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_kill_9_two_hundred_and_fifty_times_leaves_the_old_database_or_the_new(states, restorers, job, capfd):
    """The same, so often that every moment had its turn."""
    seen = survive(250, job, states, restorers)
    assert seen == ({1} if job == "take" else {0, 1})
    assert capfd.readouterr().err == ""
