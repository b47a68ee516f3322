"""Client processes at one database: tasks that they write, and tasks that they claim and complete, dao beside a driver.

Each claims what no other has, so that all of them together do all the work once.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench import contenders, data, harness
from bench.run import Run

PSYCOPG, OWN = "psycopg", "dao (PostgreSQL)"
#: For each engine the driver, and dao.
ENGINES = {"SQLite": ("apsw", "dao"), "PostgreSQL": (PSYCOPG, OWN)}

#: Makes so many calls ready for a contender, and returns them.
Calls = Callable[[Any, int], list[Callable[[], object]]]


def measure(run: Run) -> dict[str, Any]:
    """Return for each number of clients what a task takes to be created on a server, and dao's ratio to psycopg."""
    if run.server is None:
        return {}
    urls = {name: run.server.copy(f"clients {name}") for name in ENGINES["PostgreSQL"]}
    return {str(number): _measured(run, urls, number, _create) for number in run.size.clients}


def claimers(run: Run) -> dict[str, Any]:
    """Return the same for tasks that are claimed and completed, for each engine."""
    found = {}
    for engine, names in ENGINES.items():
        if engine == "PostgreSQL" and run.server is None:
            continue
        places = {name: _place(run, name) for name in names}
        found[engine] = {str(number): _measured(run, places, number, _work) for number in run.size.claimers}
    return found


def _place(run: Run, name: str) -> str:
    contender = contenders.load(name)
    contender.name = f"claimers {name}"  # type: ignore[misc] # its copy is one of its own
    return run.copy(contender)


def _measured(run: Run, places: Mapping[str, str], clients: int, make: Calls) -> dict[str, Any]:
    run.report(f"clients: {clients} of {', '.join(places)}")
    rounds: dict[str, list[float]] = {name: [] for name in places}
    for turn in range(run.size.rounds if run.size.tiny else max(3, run.size.rounds // 3)):
        for name in list(places) if turn % 2 else reversed(places):
            rounds[name].append(_together(name, places[name], clients, run.size.calls, make))
    times = {name: harness.Times(measured) for name, measured in rounds.items()}
    return harness.summary(times, dict.fromkeys(times, next(iter(places))))


def _together(name: str, place: str, clients: int, calls: int, make: Calls) -> float:
    """Return the seconds for one call when so many clients make so many each, at once."""
    context = multiprocessing.get_context("spawn")
    barrier, ended = context.Barrier(clients), context.SimpleQueue()
    given = (name, place, calls, make, barrier, ended.put)
    processes = [context.Process(target=_run, args=given) for _ in range(clients)]
    for process in processes:
        process.start()
    times = [ended.get() for _ in processes]
    for process in processes:
        process.join()
    return (max(done for _, done in times) - min(begun for begun, _ in times)) / (clients * calls)


def _run(
    name: str, place: str, calls: int, make: Calls, barrier: Any, tell: Callable[[tuple[float, float]], object]
) -> None:
    contender: Any = contenders.load(name)
    contender.open(place)
    first, *others = make(contender, calls + 1)
    first()
    barrier.wait()
    begun = time.monotonic()  # one clock for all processes
    for call in others:
        call()
    tell((begun, time.monotonic()))
    contender.close()


def _create(contender: Any, calls: int) -> list[Callable[[], object]]:
    items = [contender.new(data.fresh()) for _ in range(calls)]
    return [lambda item=item: contender.create(item) for item in items]


def _work(contender: Any, calls: int) -> list[Callable[[], object]]:
    contender.create_many(contender.new_many([data.fresh() for _ in range(calls)]))
    return [contender.work] * calls
