"""Whoever `Pool.write` told "done" is on disk: after kill -9, and when syncs fail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import dao
from dao import engine
from tests.folders import query

THREADS = 8
INSERT = "INSERT INTO notes (text) VALUES ($1) RETURNING id"

#: For each line that it reads, a process whose threads write for ever; each prints an id when `write` has returned it.
#: The process prints its own id first, and when it was killed comes "ended". A fork costs less than an interpreter.
PROGRAM = f"""
import os, sys, threading
import dao
from dao import engine

def add(connection, text):
    [(id,)] = engine.fetch(connection, {INSERT!r}, (text,))
    return id

def work(pool, name):
    number = 0
    while True:
        number += 1
        id = pool.write(add, f"{{os.getpid()}} {{name}} {{number}}")
        os.write(1, b"%d\\n" % id)

for _ in sys.stdin:
    child = os.fork()
    if not child:
        os.write(1, b"%d\\n" % os.getpid())
        pool = dao.Pool(sys.argv[1])
        for name in range({THREADS}):
            threading.Thread(target=work, args=(pool, name)).start()
        threading.Event().wait()
    os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database with a table of notes."""
    path = tmp_path / "notes.db"
    with contextlib.closing(dao.connect(f"sqlite:///{path}")) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE)")
    return path


# ---------------------------------------------------------------- killed


def survive(kills: int, path: Path, synchronous: str) -> None:
    """Kill a writing process so many times, at random moments, and see each time that what it told is stored."""
    moments = random.Random(kills)
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{path}?synchronous={synchronous}"]
    total = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        for _ in range(kills):
            server.stdin.write(b"\n")
            server.stdin.flush()
            process = int(server.stdout.readline())
            ids = {int(server.stdout.readline())}  # it has begun
            time.sleep(moments.uniform(0, 0.08))
            os.kill(process, signal.SIGKILL)
            while (line := server.stdout.readline()) != b"ended\n":
                ids.add(int(line))
            assert ids <= {id for (id,) in query(path, "SELECT id FROM notes")}
            assert query(path, "PRAGMA integrity_check") == [("ok",)]
            total += len(ids)
        server.stdin.close()
    # what was under way and not told: at the most one for each thread
    assert len(query(path, "SELECT id FROM notes")) <= total + kills * THREADS


def test_kill_9_whoever_was_told_done_is_stored(path):
    """A process that is killed in the middle of its batches leaves every row that it said was written."""
    survive(15, path, "normal")


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", ["normal", "full"])
def test_kill_9_two_hundred_times_whoever_was_told_done_is_stored(path, synchronous):
    """The same, so often that every moment had its turn."""
    survive(200, path, synchronous)


# ---------------------------------------------------------------- failing syncs


class FailingSync(apsw.VFS):
    """A file system on which a sync fails now and then, when it is told to."""

    def __init__(self) -> None:
        self.chance: random.Random | None = None
        self.failures = 0
        self.below = apsw.vfs_names()[0]
        super().__init__("failing-sync", self.below, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        """Open a file whose syncs may fail."""
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    """A file whose syncs may fail."""

    def __init__(self, disk: FailingSync, name, flags) -> None:
        self._disk = disk
        super().__init__(disk.below, name, flags)

    def xSync(self, flags):  # noqa: N802 - SQLite's name
        """Sync, or fail."""
        if self._disk.chance is not None and self._disk.chance.random() < 0.2:
            self._disk.failures += 1
            raise apsw.IOError("the disk does not answer")
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[FailingSync]:
    """The failing file system, on which every connection is opened meanwhile."""
    disk = FailingSync()
    yield disk
    disk.unregister()


def add(connection: apsw.Connection, text: str) -> int:
    """Write a note and return its id."""
    [(id,)] = engine.fetch(connection, INSERT, (text,))
    return id


def test_write_sync_that_fails_is_told_to_its_batch_and_nobody_else(path, disk):
    """A write that was called done is stored, and one whose commit failed is not.

    The writer goes on after each.
    """
    told: list[list[str]] = [[] for _ in range(THREADS)]
    failed: list[dao.Error] = []

    def work(name: int) -> None:
        for number in range(40):
            text = f"{name} {number}"
            try:
                pool.write(add, text)
            except dao.OperationalError as error:
                failed.append(error)
            else:
                told[name].append(text)

    url = f"sqlite:///{path}?synchronous=full"
    # the last connection to close would move the log into the file each time that the writer's is replaced
    with contextlib.closing(dao.connect(url)), dao.Pool(url) as pool:
        disk.chance = random.Random(THREADS)
        threads = [threading.Thread(target=work, args=(name,)) for name in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        disk.chance = None
        assert pool.stats().writes == sum(map(len, told))
        pool.write(add, "after")
    assert disk.failures > 3
    assert len(failed) + sum(map(len, told)) == THREADS * 40
    assert len({id(error) for error in failed}) == len(failed) >= disk.failures
    assert all("the disk does not answer" in str(error) for error in failed)
    stored = {text for (text,) in query(path, "SELECT text FROM notes")}
    assert stored == {"after", *(text for texts in told for text in texts)}
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
