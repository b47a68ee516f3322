"""Asynchronous connections that nobody closes: as the process ends, the loop, or the last reference to them."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
from typing import Any

import pytest

import dao
from dao import aio
from dao.url import parse
from tests.concurrency import PATIENCE, Asyncio, Trio, in_child, loop, stored
from tests.transactions import add

__all__ = ["loop"]  # a fixture

pytestmark = pytest.mark.both_engines

# Each leaves something open; what goes before is the same for all.
WAYS = {
    "a pool of a module": """
pool = aio.Pool(url)
run(lambda: pool.run(tasks.count))
""",
    "a pool that only writes": """
pool = aio.Pool(url)
run(lambda: pool.write(tasks.count))
""",
    "a lifespan that raises": """
async def lifespan():
    global pool
    pool = aio.Pool(url)
    await pool.run(tasks.count)
    raise LookupError
with contextlib.suppress(LookupError):
    run(lifespan)
""",
    "a connection": """
async def main():
    global connection
    connection = await aio.connect(url)
    await connection.execute("SELECT 1")
run(main)
""",
    "a generator": """
async def rows():
    connection = await aio.connect(url)
    async for row in await connection.execute("SELECT 1 UNION SELECT 2"):
        yield row
async def main():
    global generator
    generator = rows()
    await anext(generator)
run(main)
""",
    "a loop in a thread that outlives the main one": """
pool, opened = aio.Pool(url), threading.Event()
async def main():
    await pool.run(lambda _: opened.set())  # Python 3.12 starts no thread any more when the main one has ended
    while threading.main_thread().is_alive():
        await library.sleep(0.001)
    await pool.run(tasks.create, dao.Task(title="late", task_type="agent"))
threading.Thread(target=run, args=(main,)).start()
opened.wait()
""",
    "a statement that goes on": """
async def main():
    global connection, task, begun
    connection, begun = await aio.connect(url), threading.Event()
    def count_for_ever(given):
        begun.set()
        given.execute("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n").get
    task = asyncio.ensure_future(aio.run(connection, count_for_ever))
    while not begun.is_set():
        await asyncio.sleep(0.001)
import asyncio
forsaken = asyncio.new_event_loop()
forsaken.run_until_complete(main())
""",
}


# To a server there are no asynchronous cursors, and SQL has other words for what does not end.
WAYS_OF_A_SERVER = WAYS | {
    "a connection": """
async def main():
    global connection
    connection = await aio.connect(url)
    await aio.run(connection, tasks.count)
run(main)
""",
    "a statement that goes on": WAYS["a statement that goes on"].replace(
        'given.execute("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n").get',
        'given.execute("SELECT pg_sleep(600)")',
    ),
}
# Nor has a pool of them a writer.
for way in ("a generator", "a pool that only writes"):
    del WAYS_OF_A_SERVER[way]


# What all ways need is loaded once; each is then a process of its own, to its end.
EACH = """
import contextlib, os, sys, threading
import {library} as library
import dao
from dao import aio, tasks
url, folder = sys.argv[1:3]
def run(function):
    library.run({argument})
dao.connect(url).close()
children = {{}}
for way, code in zip(sys.argv[3::2], sys.argv[4::2]):
    if child := os.fork():
        children[child] = way
        continue
    os.dup2(os.open(os.path.join(folder, way), os.O_WRONLY | os.O_CREAT), 2)
    exec(code)
    break
else:
    for child, way in children.items():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), way)
"""


@pytest.mark.sample(2, engine="postgresql")
@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_process_that_leaves_connections_open_ends_with_a_warning(url, tmp_path, library):
    """A process ends by itself, whatever is open then, and is told of what was not closed: it used to hang for ever."""
    ways = WAYS if url.startswith("sqlite") else WAYS_OF_A_SERVER
    program = EACH.format(library=library, argument="function()" if library == "asyncio" else "function")
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", program, url, str(tmp_path)]
    for way in ways.items():
        command.extend(way)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    told = {way: (tmp_path / way).read_text() for way in ways}
    assert done.stdout.splitlines() == [f"0 {way}" for way in ways], told
    for way, errors in told.items():
        assert f"ResourceWarning: {parse(url).name}: asynchronous connections were not closed" in errors, (way, errors)
    assert stored(url) == 1  # what the loop that outlived the main thread wrote


def test_pool_that_nobody_has_any_more_ends_its_threads_and_warns(loop, url):
    """A pool that is dropped in the middle of a program leaves no thread behind."""

    async def main() -> None:
        await aio.Pool(url).run(add)
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"{re.escape(parse(url).name)}: asynchronous connections were not closed"):
        loop.run(main)
    assert stored(url) == 1


def test_pool_of_writes_that_nobody_has_any_more_warns(loop, url):
    """The connection of `write` is one that was not closed, too; it used not to be told."""

    async def main() -> None:
        await aio.Pool(url).write(add)
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"{re.escape(parse(url).name)}: asynchronous connections were not closed"):
        loop.run(main)
    assert stored(url) == 1


def test_connection_for_which_no_thread_can_be_started_is_refused(loop, url):
    """With too many threads `connect` raised a bare RuntimeError, or waited for ever; a pool's health is an answer."""
    normal = threading.stack_size(1 << 46)

    async def main() -> None:
        with pytest.raises(dao.OperationalError, match=r"cannot open .*thread.*: this process has too many threads"):
            await aio.connect(url)
        pool = aio.Pool(url)
        health = await pool.health()
        assert (health.ok, "too many threads" in (health.error or ""), pool.stats().active) == (False, True, 0)

    try:
        loop.run(main)
    finally:
        threading.stack_size(normal)


# ---------------------------------------------------------------- another loop


def test_pool_of_a_loop_that_has_ended_works_in_the_next(loop, url):
    """Each verb works in one loop after the other: `write` committed and never returned, `run` raised RuntimeError."""
    pool = aio.Pool(url, size=1)
    held = []

    async def use() -> None:
        assert await pool.run(add) is None
        assert await pool.write(add) is None
        assert (await pool.health()).ok
        held.append(pool.acquire())
        await held[-1].__aenter__()  # and is never given back

    async def end() -> bool:
        return await pool.aclose(timeout=0)

    try:
        for _ in range(3):
            loop.run(use)
        assert stored(url) == 6
        assert pool.stats().writes == 3
        assert Asyncio().run(end) is True
        assert Trio().run(end) is True
    finally:
        loop.run(end)


CLOSED_IN_THE_MIDDLE = """
import asyncio, gc, sys
import dao
from dao import aio, tasks
for rounds in (1, 2, 50):
    pool, half_done = aio.Pool(sys.argv[1], size=2), []
    async def forsaken():
        half_done.extend(asyncio.ensure_future(pool.run(tasks.count)) for _ in range(5))
        for _ in range(rounds):
            await asyncio.sleep(0)
    async def use():
        await pool.run(tasks.count)
        half_done.clear()
        gc.collect()
        async with pool.acquire(), pool.acquire():
            active = pool.stats().active
            try:
                await pool.acquire(timeout=0).__aenter__()
            except dao.PoolTimeout:
                print(active, pool.stats().active)
        print(pool.stats().active, await pool.aclose())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(forsaken())
    loop.close()
    asyncio.run(use())
"""


def test_pool_of_a_loop_closed_in_the_middle_keeps_its_size(url):
    """Work that such a loop left half done is nothing to the next: each opening of it was one over `size`."""
    command = [sys.executable, "-c", CLOSED_IN_THE_MIDDLE, url]  # Python says much about such tasks on stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout.splitlines() == ["2 2", "0 True"] * 3, done.stderr


def test_pool_of_a_loop_that_goes_on_is_refused_to_another_at_once(loop, url):
    """While its loop goes on, another gets `PoolClosed`, also when it closes; its health is an answer, not an error."""
    pool = aio.Pool(url)

    async def stranger() -> None:
        for verb in (lambda: pool.run(add), lambda: pool.write(add), pool.aclose, lambda: pool.acquire().__aenter__()):
            with pytest.raises(dao.PoolClosed, match="another event loop: each loop needs a pool of its own"):
                await verb()
        health = await pool.health()
        assert (health.ok, "another event loop" in (health.error or "")) == (False, True)

    async def main() -> None:
        async with pool:
            await pool.run(add)
            await pool.write(add)
            for library in (Asyncio, Trio):
                thread = threading.Thread(target=lambda library=library: answers.append(library().run(stranger)))
                thread.start()
                while thread.is_alive():
                    await loop.sleep(0.001)
            await pool.run(add)

    answers: list[None] = []
    loop.run(main)
    assert answers == [None, None]
    assert stored(url) == 3


@pytest.mark.sqlite_only
def test_pool_in_memory_is_refused_to_the_next_loop(loop):
    """A database in memory ended with its loop: an empty one in its place would be a loss in silence.

    SQLite only: no server has databases in memory.
    """
    pool = aio.Pool("sqlite://")

    async def again() -> None:
        with pytest.raises(dao.PoolClosed, match="the database in memory ended with that"):
            await pool.run(add)
        assert not (await pool.health()).ok
        assert await pool.aclose()

    loop.run(lambda: pool.run(lambda connection: connection.execute("CREATE TABLE t (x)").fetchall()))
    loop.run(again)


def test_connection_of_another_loop_is_refused(loop, url):
    """A connection's result comes to the loop that opened it: in another, a call would be made and never return."""
    opened: list[Any] = []

    async def main() -> None:
        opened.append(await aio.connect(url))

    async def again() -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop: open one in each"):
            await aio.run(opened[0], add)

    loop.run(main)
    for library in (Asyncio, Trio):
        library().run(again)
    opened[0].close()
    assert stored(url) == 0


@pytest.mark.parametrize("library", [Asyncio, Trio])
def test_pool_after_a_fork_is_refused_in_the_child(url, library):
    """In a forked child the parent's pool says so, in its health and in each verb, and closes nothing of it."""
    pool = aio.Pool(url)

    async def child() -> None:
        health = await pool.health(timeout=1)
        assert (health.ok, "belongs to the parent" in (health.error or "")) == (False, True)
        for verb in (lambda: pool.run(add), lambda: pool.write(add), lambda: pool.acquire().__aenter__()):
            with pytest.raises(dao.PoolClosed, match="belongs to the parent"):
                await verb()
        assert await pool.aclose()

    async def main() -> None:
        await pool.run(add)
        await pool.write(add)

    library().run(main)
    in_child(lambda: library().run(child))
    library().run(main)
    library().run(pool.aclose)
    assert stored(url) == 4
