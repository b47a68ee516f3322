"""`python -m bench.group_commit`: many writers, with a transaction each and with `Pool.write`.

Each contender has a file of its own. Rounds are interleaved; figures are medians, ratios are those within a round.

- each: every writer has a connection of its own, and every call is a transaction
- write: every call goes through `Pool.write`, which commits for all that wait
- alone: one writer, a connection, a transaction for every call
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import apsw

import dao
from dao import aio, engine, sessions

SCHEMA = """
CREATE TABLE events (id INTEGER PRIMARY KEY, writer INTEGER NOT NULL, payload TEXT NOT NULL);
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY, client_id TEXT NOT NULL, created_at TEXT NOT NULL, last_heartbeat TEXT NOT NULL,
    is_active INTEGER NOT NULL, metadata TEXT
) STRICT;
CREATE INDEX sessions_active ON sessions (is_active, last_heartbeat, id);
"""
PAYLOAD = "x" * 100


def insert(connection: apsw.Connection, writer: int) -> None:
    """Write a small row."""
    engine.fetch(connection, "INSERT INTO events (writer, payload) VALUES ($1, $2)", (writer, PAYLOAD))


def heartbeat(connection: apsw.Connection, writer: int) -> None:
    """Note that a session is alive."""
    sessions.heartbeat(connection, f"session-{writer}")


WORK = {"insert": insert, "heartbeat": heartbeat}
Function = Callable[[apsw.Connection, int], None]
#: Runs every writer's calls once and returns the seconds that each call took.
Round = Callable[[Function], list[float]]


class Times:
    """What a round took: the whole, and each call."""

    def __init__(self, seconds: float, calls: list[float]) -> None:
        calls.sort()
        self.per_second = len(calls) / seconds
        self.median = calls[len(calls) // 2]
        self.p99 = calls[int(len(calls) * 0.99)]


def new_database(stack: ExitStack, folder: Path, name: str, synchronous: str, writers: int) -> str:
    """Make a database with a session for each writer and return its URL."""
    url = f"sqlite:///{folder}/{name}.db?synchronous={synchronous}"
    now = "2026-01-01T00:00:00.000Z"
    connection = stack.enter_context(closing(dao.connect(url)))
    connection.execute(SCHEMA)
    connection.executemany(
        "INSERT INTO sessions VALUES (?, 'bench', ?, ?, 1, NULL)",
        [(f"session-{writer}", now, now) for writer in range(writers)],
    )
    # The log has its size before anything is measured: while it grows, a sync costs the file system several times as
    # much. It stays, as this connection does.
    with dao.transaction(connection):
        connection.executemany("INSERT INTO events VALUES (NULL, 0, hex(zeroblob(?)))", [(2000,)] * 2000)
    connection.execute("DELETE FROM events")
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    return url


def in_transaction(connection: apsw.Connection, function: Function, writer: int) -> None:
    """Run a function as a transaction of its own."""
    with dao.transaction(connection):
        function(connection, writer)


# ---------------------------------------------------------------- threads


def run_threads(calls: int, writers: list[Callable[[], None]]) -> Times:
    """Call each writer so many times, each in a thread of its own."""
    times: list[float] = []
    barrier = threading.Barrier(len(writers) + 1)

    def work(write: Callable[[], None]) -> None:
        own = []
        barrier.wait()
        for _ in range(calls):
            begun = time.perf_counter()
            write()
            own.append(time.perf_counter() - begun)
        times.extend(own)

    threads = [threading.Thread(target=work, args=(write,)) for write in writers]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return Times(time.perf_counter() - begun, times)


@contextmanager
def thread_contenders(
    folder: Path, synchronous: str, function: Function, writers: int, calls: int
) -> Iterator[dict[str, Callable[[], Times]]]:
    """Open everything for the threads and return what runs a round of each contender."""
    with ExitStack() as stack:
        urls = {name: new_database(stack, folder, name, synchronous, writers) for name in ("each", "write", "alone")}
        own = [stack.enter_context(closing(dao.connect(urls["each"]))) for _ in range(writers)]
        alone = stack.enter_context(closing(dao.connect(urls["alone"])))
        pool = stack.enter_context(dao.Pool(urls["write"]))
        numbered = list(enumerate(own))
        yield {
            "each": lambda: run_threads(
                calls, [lambda n=n, connection=c: in_transaction(connection, function, n) for n, c in numbered]
            ),
            "write": lambda: run_threads(calls, [lambda n=n: pool.write(function, n) for n in range(writers)]),
            "alone": lambda: run_threads(calls, [lambda: in_transaction(alone, function, 0)]),
        }


# ---------------------------------------------------------------- tasks


async def run_tasks(calls: int, writers: list[Callable[[], Awaitable[object]]]) -> Times:
    """Call each writer so many times, each in a task of its own."""
    times: list[float] = []

    async def work(write: Callable[[], Awaitable[object]]) -> None:
        for _ in range(calls):
            begun = time.perf_counter()
            await write()
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(work(write) for write in writers))
    return Times(time.perf_counter() - begun, times)


@contextmanager
def task_contenders(
    folder: Path, synchronous: str, function: Function, writers: int, calls: int
) -> Iterator[dict[str, Callable[[], Times]]]:
    """Open everything for the tasks and return what runs a round of each contender."""
    with asyncio.Runner() as runner, ExitStack() as stack:
        urls = {name: new_database(stack, folder, name, synchronous, writers) for name in ("each", "write", "alone")}

        async def opened() -> list[aio.Pool]:
            return [aio.Pool(urls["each"], size=writers), aio.Pool(urls["write"]), aio.Pool(urls["alone"], size=1)]

        async def closed() -> None:
            for pool in pools:
                await pool.aclose()

        pools = runner.run(opened())
        each, write, alone = pools

        def transacted(pool: aio.Pool, writer: int) -> Callable[[], Awaitable[None]]:
            return lambda: pool.run(in_transaction, function, writer)

        yield {
            "each": lambda: runner.run(run_tasks(calls, [transacted(each, n) for n in range(writers)])),
            "write": lambda: runner.run(
                run_tasks(calls, [lambda n=n: write.write(function, n) for n in range(writers)])
            ),
            "alone": lambda: runner.run(run_tasks(calls, [transacted(alone, 0)])),
        }
        runner.run(closed())


# ---------------------------------------------------------------- figures


def handover(threads: int, rounds: int = 500) -> float:
    """Return the seconds from one thread's waking the next to that one's running, in a ring: the least a waiter costs."""
    locks = [threading.Lock() for _ in range(threads)]
    for lock in locks:
        lock.acquire()

    def pass_on(place: int) -> None:
        for _ in range(rounds):
            locks[place].acquire()
            locks[(place + 1) % threads].release()

    ring = [threading.Thread(target=pass_on, args=(place,)) for place in range(threads)]
    for thread in ring:
        thread.start()
    begun = time.perf_counter()
    locks[0].release()
    for thread in ring:
        thread.join()
    return (time.perf_counter() - begun) / rounds / threads


KINDS = {"threads": thread_contenders, "asyncio": task_contenders}


def measure(
    kind: str, synchronous: str, work: str, *, writers: int, calls: int, rounds: int, folder: str | None
) -> dict[str, Any]:
    """Return the medians of each contender, and the ratio of `write` to `each`."""
    with ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        contenders = stack.enter_context(KINDS[kind](made, synchronous, WORK[work], writers, calls))
        for run in contenders.values():
            run()
        results: dict[str, list[Times]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                results[name].append(run())
    ratios = [write.per_second / each.per_second for write, each in zip(results["write"], results["each"], strict=True)]
    return {
        "kind": kind,
        "synchronous": synchronous,
        "work": work,
        "writers": writers,
        **{
            name: {
                field: statistics.median(getattr(times, field) for times in measured)
                for field in ("per_second", "median", "p99")
            }
            for name, measured in results.items()
        },
        "ratio": statistics.median(ratios),
        "ratios": sorted(ratios),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.group_commit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writers", type=int, default=16, help="threads or tasks (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="calls of each in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--folder", help="where the databases go (default: the folder for temporary files)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="threads or tasks (default: both)")
    parser.add_argument("--work", choices=WORK, action="append", help="what is written (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    bounds = {name: getattr(options, name) for name in ("writers", "calls", "rounds", "folder")}
    measured = []
    if not options.json:
        print(f"{options.writers} writers, calls per second (p99 of a call in ms)")
        print(f"{'':<28}{'alone':>19}{'each':>19}{'write':>19}{'write / each':>22}")
    for kind in options.kind or KINDS:
        for synchronous in ("full", "normal"):
            for work in options.work or WORK:
                found = measure(kind, synchronous, work, **bounds)
                measured.append(found)
                if not options.json:
                    cells = [
                        f"{found[name]['per_second']:>11,.0f} ({found[name]['p99'] * 1000:>4.1f})"
                        for name in ("alone", "each", "write")
                    ]
                    spread = f"{found['ratios'][0]:.1f} to {found['ratios'][-1]:.1f}"
                    print(
                        f"{kind:<9}{synchronous:<9}{work:<10}{''.join(f'{cell:>19}' for cell in cells)}"
                        f"{found['ratio']:>8.1f}× ({spread})",
                        flush=True,
                    )
    if options.json:
        print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
