"""A copy that is killed, loses its server, or finds the disk full: no target looks complete; the next goes on."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

import dao
from dao import tasks
from dao.engine import execute, transaction
from dao.errors import ConnectionLost, DiskFull, OperationalError
from dao.testing import make_task
from dao.transfer import Moved
from tests.concurrency import wait_for
from tests.copies import empty, fill, held, is_marked, opened
from tests.databases import migrate as make_tables
from tests.fault.full_disk import FullDisk, Room
from tests.fault.migrators import Migrators
from tests.servers import Server

#: So many tasks take a while to copy; fewer take seven pages.
MANY, FEWER = 3000, 1000


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrators]:
    """Processes that copy, to be killed."""
    with Migrators(tmp_path_factory.mktemp("processes")) as processes:
        yield processes


def check(target: str, source: str) -> bool:
    """Assert that a target which is not marked is as it was before or after a copy, and return if it is after it."""
    if is_marked(target):
        return False
    there = held(target)
    assert there == held(source) or not any(there.values())
    return any(there.values())


def finish(source: str, target: str) -> None:
    """Copy to the end, and hold both against each other."""
    if not check(target, source):
        dao.copy(source, target)
    assert check(target, source)


def kill_at_random(source: str, target: str, processes: Migrators, rounds: int, seed: int) -> int:
    """Kill copies at random moments until one comes through, so many rounds, and return how many were killed marked.

    There are more rounds as long as none was. How long a copy takes is learnt anew with each: where the first was slow,
    all came through, and where it was fast, all died before they had begun.
    """
    chance, found, done = random.Random(seed), 0, 0
    begun = time.monotonic()
    assert processes.wait(processes.start("copy", source, target)) == 0
    longest = time.monotonic() - begun
    while done < rounds or (not found and done < 10 * rounds):
        done += 1
        empty(target)
        while True:
            pid = processes.start("copy", source, target)
            time.sleep(chance.uniform(0, longest))
            came_through = not processes.kill(pid)
            longest *= 0.7 if came_through else 1.1
            found += is_marked(target)
            assert check(target, source) or not came_through
            if came_through or check(target, source):
                break
            if chance.random() < 0.2:
                finish(source, target)
                break
        assert held(target) == held(source)
    return found


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_copy_that_is_killed_leaves_no_target_that_looks_complete(make, processes, source, target):
    """Whenever it dies, the target is empty, marked or complete, and the next run goes on from what is there."""
    source, target = make(source), make(target)
    fill(source, FEWER)
    assert kill_at_random(source, target, processes, rounds=1, seed=1) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_copy_that_is_killed_over_and_over_leaves_no_target_that_looks_complete(make, processes, source, target, seed):
    """The same, a hundred times."""
    source, target = make(source), make(target)
    fill(source, MANY)
    kill_at_random(source, target, processes, rounds=20, seed=seed)


def test_copy_that_dies_at_a_write_of_the_target_goes_on(make, processes):
    """Between any two writes of SQLite's."""
    source, target = make("sqlite"), make("sqlite")
    fill(source, 100)
    marked, after = 0, 0
    while code := processes.wait(processes.start("dying", after, "copy", source, target)):
        assert code == -signal.SIGKILL, processes.errors()
        marked += is_marked(target)
        finish(source, target)
        empty(target)
        after += 23
    assert marked > 5
    assert check(target, source)


def test_copy_goes_on_after_a_kill_while_its_source_changes(make, processes):
    """A run that goes on sees the source as it is then, not as it was: whatever had changed meanwhile is right."""
    source, target = make("sqlite"), make("postgresql")
    fill(source, MANY)
    chance = random.Random(2)
    for _ in range(6):
        pid = processes.start("copy", source, target)
        time.sleep(chance.uniform(0.05, 0.4))
        processes.kill(pid)
        if not is_marked(target):
            empty(target)
        with opened(source) as connection, transaction(connection):
            changes = ["UPDATE tasks SET title = 'other'", "DELETE FROM tasks", "UPDATE tasks SET description = 'x'"]
            where = f"WHERE id IN (SELECT id FROM tasks ORDER BY random() LIMIT {chance.choice([1, 100])})"
            execute(connection, f"{chance.choice(changes)} {where}")
            tasks.create(connection, make_task())
    finish(source, target)


# ---------------------------------------------------------------- the source is in use


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_copy_of_a_source_that_is_written_to_is_of_one_moment(make, source, target):
    """A writer keeps two rows equal in each of its transactions; so they are in the target, and no write fails."""
    source, target = make(source), make(target)
    fill(source, MANY)
    pairs = [make_task(id="\t", title="0"), make_task(id="\U0010ffff", title="0")]
    with opened(source) as connection:
        tasks.create_many(connection, pairs)
    stop, written, moments = threading.Event(), [], []

    def beside(event: Any) -> None:
        """Have the writer commit twice before the copy goes on: one may be under way already."""
        moments.append(event)
        before = len(written)
        wait_for(lambda: len(written) > before + 1 or not writer.is_alive())

    def write() -> None:
        with opened(source) as connection:
            while not stop.is_set():
                with transaction(connection):
                    for pair in pairs:
                        execute(connection, "UPDATE tasks SET title = $1 WHERE id = $2", (str(len(written)), pair.id))
                    tasks.create(connection, make_task())
                written.append(1)
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(written) > 2)
        copied = dao.copy(source, target, report=beside)
    finally:
        stop.set()
        writer.join()
    assert len(moments) > 2
    there = {task.id: task for task in held(target)["tasks"]}
    assert there["\t"].title == there["\U0010ffff"].title
    assert len(there) == copied.tables[0].rows < tasks_of(source)


def tasks_of(url: str) -> int:
    """Return how many tasks there are."""
    with opened(url) as connection:
        return tasks.count(connection)


# ---------------------------------------------------------------- what it works on fails


@pytest.mark.parametrize("side", ["source", "target"])
def test_copy_that_loses_its_server_says_so_and_goes_on(make, side):
    """The server is killed in the middle: a typed error with the advice to repeat, which then goes on."""
    file = make("sqlite")
    with Server(synchronous_commit="on") as server:
        url = server.url("postgres")
        make_tables(url)
        source, target = (url, file) if side == "source" else (file, url)
        fill(source, MANY)
        killed: list[Any] = []

        def report(event: Any) -> None:
            if isinstance(event, Moved) and event.done > MANY / 3 and not killed:
                killed.append(event)
                server.kill()

        with pytest.raises(OperationalError) as caught:
            dao.copy(source, target, report=report)
        assert killed
        assert isinstance(caught.value, ConnectionLost) or "commit" in str(caught.value)
        assert "marked as unfinished: repeat" in caught.value.advice
        server.start()
        again = dao.copy(source, target)
        assert again.tables[0].kept > MANY / 4
        assert held(target) == held(source)


def test_copy_into_a_full_disk_says_so_and_goes_on(make):
    """Wherever the room ends, `DiskFull` with the advice to repeat; with room, the next run goes on."""
    source, target = make("sqlite"), make("sqlite")
    fill(source, 300)
    room = Room(apsw.FullError, left=10_000)
    disk = FullDisk(room, makedefault=True)
    try:
        marked = 0
        for writes in range(0, 1000, 9):
            room.left = writes
            try:
                dao.copy(source, target)
                break
            except DiskFull as error:
                message = str(error)
            finally:
                room.left = 10_000
            if is_marked(target):
                marked += 1
                assert "marked as unfinished: repeat" in message
                assert tasks_of(target) < 300 or marked
            check(target, source)
    finally:
        disk.unregister()
    assert marked > 3
    assert check(target, source)
