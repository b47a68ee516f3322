"""Many writers of small changes, here heartbeats: a transaction each, and `Pool.write`, which commits for all."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import dao
from bench import data, harness
from bench.run import Run
from dao import aio, sessions

ALONE, EACH, SHARED = "one writer alone", "a transaction each", "Pool.write"

#: Makes the calls of all writers once and returns the seconds of the whole and of each call.
Round = Callable[[], tuple[float, list[float]]]


def measure(run: Run) -> dict[str, Any]:
    """Return for threads and tasks, synchronous FULL and NORMAL, what a call takes, and its ratio to `EACH`."""
    size, found = run.size, {}
    for kind, opened in {"threads": _threads, "tasks": _tasks}.items():
        for mode in ("full", "normal"):
            title = f"{size.writers} {kind}, synchronous={mode}"
            run.report(f"group commit: {title}")
            with ExitStack() as stack:
                urls = {name: _database(stack, run.template, f"{name} {title}", mode) for name in (ALONE, EACH, SHARED)}
                found[title] = _measured(
                    opened(stack, urls, run.holds.sessions[: size.writers], size.calls), size.rounds
                )
    return found


def _database(stack: ExitStack, template: Path, name: str, mode: str) -> str:
    """Make a database whose log has its size already: while it grows, a sync costs several times as much."""
    url = f"sqlite:///{data.copy(template, name)}?synchronous={mode}"
    connection = stack.enter_context(closing(dao.connect(url)))  # as long as it is open, the log stays
    connection.execute("UPDATE tasks SET description = description")
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    return url


def _measured(runs: dict[str, Round], rounds: int) -> dict[str, Any]:
    means: dict[str, list[float]] = {name: [] for name in runs}
    slowest: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-1, rounds):
        for name, make in runs.items():
            seconds, calls = make()
            if number >= 0:  # the round before the first opens connections
                means[name].append(seconds / len(calls))
                slowest[name].append(sorted(calls)[int(len(calls) * 0.99)])
    times = {name: harness.Times(measured) for name, measured in means.items()}
    figures = harness.summary(times, dict.fromkeys(times, EACH))
    return {name: figures[name] | {"p99": statistics.median(slowest[name])} for name in runs}


def _threads(stack: ExitStack, urls: dict[str, str], ids: list[str], calls: int) -> dict[str, Round]:
    beat = sessions.heartbeat
    alone, *own = (stack.enter_context(closing(dao.connect(url))) for url in (urls[ALONE], *[urls[EACH]] * len(ids)))
    pool = stack.enter_context(dao.Pool(urls[SHARED]))
    writers: dict[str, list[Callable[[], object]]] = {
        ALONE: [partial(beat, alone, ids[0])],
        EACH: [partial(beat, connection, id) for connection, id in zip(own, ids, strict=True)],
        SHARED: [partial(pool.write, beat, id) for id in ids],
    }
    return {name: partial(_in_threads, calls, each) for name, each in writers.items()}


def _in_threads(calls: int, writers: list[Callable[[], object]]) -> tuple[float, list[float]]:
    times: list[float] = []
    barrier = threading.Barrier(len(writers) + 1)

    def work(write: Callable[[], object]) -> None:
        barrier.wait()
        for _ in range(calls):
            begun = time.perf_counter()
            write()
            times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=work, args=(write,)) for write in writers]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if len(times) != calls * len(writers):
        raise RuntimeError("a writer failed; its error is above")
    return seconds, times


def _tasks(stack: ExitStack, urls: dict[str, str], ids: list[str], calls: int) -> dict[str, Round]:
    beat = sessions.heartbeat
    runner = stack.enter_context(asyncio.Runner())

    async def opened(name: str, size: int) -> aio.Pool:
        return aio.Pool(urls[name], size=size)

    alone, each, shared = (runner.run(opened(*given)) for given in ((ALONE, 1), (EACH, len(ids)), (SHARED, 1)))
    for pool in (alone, each, shared):
        stack.callback(lambda pool=pool: runner.run(pool.aclose()))
    writers: dict[str, list[Callable[[], Awaitable[object]]]] = {
        ALONE: [partial(alone.run, beat, ids[0])],
        EACH: [partial(each.run, beat, id) for id in ids],
        SHARED: [partial(shared.write, beat, id) for id in ids],
    }
    return {name: lambda each=each: runner.run(_in_tasks(calls, each)) for name, each in writers.items()}


async def _in_tasks(calls: int, writers: list[Callable[[], Awaitable[object]]]) -> tuple[float, list[float]]:
    times: list[float] = []

    async def work(write: Callable[[], Awaitable[object]]) -> None:
        for _ in range(calls):
            begun = time.perf_counter()
            await write()
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(work, writers))
    return time.perf_counter() - begun, times
