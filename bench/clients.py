"""Client processes that write tasks to one PostgreSQL server: how many a second, dao beside bare psycopg."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from bench import contenders, data, harness
from bench.run import Run

PSYCOPG, OWN = "psycopg", "dao (PostgreSQL)"


def measure(run: Run) -> dict[str, Any]:
    """Return for each number of clients what a task takes, over all of them, and dao's ratio to psycopg."""
    found: dict[str, Any] = {}
    if run.server is None:
        return found
    urls = {name: run.server.copy(f"clients {name}") for name in (PSYCOPG, OWN)}
    for number in run.size.clients:
        run.report(f"clients: {number}")
        rounds: dict[str, list[float]] = {name: [] for name in urls}
        for turn in range(run.size.rounds if run.size.tiny else max(3, run.size.rounds // 3)):
            for name in list(urls) if turn % 2 else reversed(urls):
                rounds[name].append(_together(name, urls[name], number, run.size.calls))
        times = {name: harness.Times(measured) for name, measured in rounds.items()}
        found[str(number)] = harness.summary(times, dict.fromkeys(times, PSYCOPG))
    return found


def _together(name: str, url: str, clients: int, calls: int) -> float:
    """Return the seconds for one task when so many clients write so many each, at once."""
    context = multiprocessing.get_context("spawn")
    barrier, ended = context.Barrier(clients), context.SimpleQueue()
    writers = [context.Process(target=_write, args=(name, url, calls, barrier, ended.put)) for _ in range(clients)]
    for writer in writers:
        writer.start()
    times = [ended.get() for _ in writers]
    for writer in writers:
        writer.join()
    return (max(done for _, done in times) - min(begun for begun, _ in times)) / (clients * calls)


def _write(name: str, url: str, calls: int, barrier: Any, tell: Callable[[tuple[float, float]], object]) -> None:
    contender: Any = contenders.load(name)
    contender.open(url)
    items = [contender.new(data.fresh()) for _ in range(calls)]
    contender.create(contender.new(data.fresh()))
    barrier.wait()
    begun = time.monotonic()  # one clock for all processes
    for item in items:
        contender.create(item)
    tell((begun, time.monotonic()))
    contender.close()
