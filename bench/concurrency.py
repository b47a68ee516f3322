"""Several at once: processes and threads that write to one file, and threads that want a pool's connections."""

from __future__ import annotations

import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import attrs

import dao
from bench import data, group_commit
from bench.contenders import BASE, STANDARD, Contender
from bench.contenders.apsw import connect
from bench.contenders.dao import task
from dao import tasks

#: The processes would take minutes with all of them.
PROCESSES = ("dao", BASE, STANDARD, "SQLAlchemy Core", "SQLAlchemy ORM", "peewee", "Django ORM")
POOL_WRITE = "dao, Pool.write"
_ROOT = Path(__file__).parents[1]


@attrs.frozen
class Load:
    """How much is done at once: processes and threads, the writes of each, rounds."""

    rounds: int
    processes: int
    process_writes: int
    threads: int
    thread_writes: int
    acquisitions: int
    everyone: bool


TINY = Load(rounds=1, processes=2, process_writes=3, threads=3, thread_writes=2, acquisitions=3, everyone=False)
QUICK = Load(rounds=7, processes=4, process_writes=500, threads=16, thread_writes=50, acquisitions=100, everyone=False)
FULL = Load(rounds=7, processes=4, process_writes=2000, threads=16, thread_writes=250, acquisitions=500, everyone=True)


@attrs.frozen
class Burst:
    """What one round of writers came to: seconds for one write, the worst wait of any, errors."""

    per_write: float
    worst: float
    errors: int


def processes(names: Sequence[str], load: Load, report: Callable[[str], None]) -> dict[str, Any]:
    """Return what writing from several processes came to, for each contender that has a part in it."""
    chosen = [name for name in PROCESSES if name in names and (load.everyone or name in {"dao", BASE, STANDARD})]
    title = f"{load.processes} processes × {load.process_writes} writes"
    report(title)
    with _files(chosen) as paths:
        runs = {name: lambda turn, name=name: _processes(name, paths[name], load, turn) for name in chosen}
        return _rounds(title, runs, load.rounds)


def threads(chosen: Sequence[Contender], load: Load, report: Callable[[str], None]) -> dict[str, Any]:
    """Return what writing from several threads came to: a connection each, and dao's shared transactions beside it."""
    able = {contender.name: type(contender) for contender in chosen if contender.in_threads}
    title = f"{load.threads} threads × {load.thread_writes} writes"
    report(title)
    with _files([*able, POOL_WRITE]) as paths:
        runs: dict[str, Callable[[int], Burst]] = {
            name: lambda _, name=name, kind=kind: _threads(kind, paths[name], load) for name, kind in able.items()
        }
        with dao.Pool(f"sqlite:///{paths[POOL_WRITE]}") as pool:
            if "dao" in able:
                runs[POOL_WRITE] = lambda _: _pool_write(pool, load)
            return _rounds(title, runs, load.rounds)


def fairness(chosen: Sequence[Contender], load: Load, report: Callable[[str], None]) -> dict[str, Any]:
    """Return how long threads wait for one of four connections, which each holds for half a millisecond."""
    title = f"pool of 4, {load.threads} threads: wait"
    report(title)
    with _files(["pool"]) as paths:
        pools: dict[str, tuple[Callable[[], AbstractContextManager[Any]], Callable[[], None]]] = {}
        names = {contender.name for contender in chosen}
        if "dao" in names:
            pool = dao.Pool(f"sqlite:///{paths['pool']}", size=4)
            pools["dao"] = pool.acquire, pool.close
        if BASE in names:
            pools["queue.Queue of apsw"] = _queue_pool(paths["pool"])
        if "SQLAlchemy Core" in names:
            pools["SQLAlchemy's QueuePool"] = _sqlalchemy_pool()
        waits: dict[str, list[list[float]]] = {name: [] for name in pools}
        for number in range(load.rounds + 1):
            for name, (acquire, _) in pools.items():
                measured = _waits(acquire, load)
                if number:  # the first opens the connections
                    waits[name].append(measured)
        for _, close in pools.values():
            close()
    return {"title": title, "contenders": {name: _wait_figures(rounds) for name, rounds in waits.items()}}


def group(load: Load, report: Callable[[str], None]) -> dict[str, Any]:
    """Return what `bench.group_commit` measures for threads that each insert a small row."""
    report("group commit")
    bounds = {"writers": load.threads, "calls": load.thread_writes, "rounds": load.rounds, "folder": None}
    kinds = {"threads": "", "asyncio": ", tasks"}
    found = {
        f"{mode}{said}": group_commit.measure(kind, mode, "insert", **bounds)
        for kind, said in kinds.items()
        for mode in ("full", "normal")
    }
    return {
        "title": "group commit: Pool.write against a transaction each",
        "modes": found,
        "handover": statistics.median(group_commit.handover(load.threads) for _ in range(load.rounds)),
    }


# ---------------------------------------------------------------- writers


@contextmanager
def _files(names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Make a database with the schema and a few rows for each name."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        template = Path(folder) / "template.db"
        data.build(template, 1000)
        yield {name: data.copy(template, Path(folder) / f"{place}.db") for place, name in enumerate(names)}


def _rounds(title: str, runs: dict[str, Callable[[int], Burst]], rounds: int) -> dict[str, Any]:
    found: dict[str, list[Burst]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            found[name].append(run(number))
    base = found.get(BASE, [])
    result = {}
    for name, bursts in found.items():
        times = [burst.per_write for burst in bursts]
        result[name] = {
            "median": statistics.median(times),
            "minimum": min(times),
            "rounds": times,
            "worst": statistics.median(burst.worst for burst in bursts),
            "worst_rounds": [burst.worst for burst in bursts],
            "errors": sum(burst.errors for burst in bursts),
            "ratios": {},
        }
        if base:
            pairs = zip(times, base, strict=True)
            result[name]["ratios"][BASE] = statistics.median(own / other.per_write for own, other in pairs)
    return {"title": title, "base": BASE, "contenders": result}


def _processes(name: str, path: Path, load: Load, turn: int) -> Burst:
    command = [sys.executable, "-m", "bench.worker", name, str(path)]
    started = []
    try:
        for place in range(load.processes):
            arguments = [*command, str(turn * load.processes + place), str(load.process_writes)]
            started.append(
                subprocess.Popen(arguments, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in started:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name}: a process that should write ended before it began; its message is above")
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate()[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    seconds = max(each["ended"] for each in found) - min(each["begun"] for each in found)
    worst, errors = max(each["worst"] for each in found), sum(each["errors"] for each in found)
    return Burst(seconds / (load.processes * load.process_writes), worst, errors)


def _threads(kind: type[Contender], path: Path, load: Load) -> Burst:
    def work(barrier: threading.Barrier, waits: list[float]) -> None:
        contender = kind()
        contender.open(path)
        items = [contender.new(data.fresh_values()) for _ in range(load.thread_writes)]
        barrier.wait()
        for item in items:
            begun = time.monotonic()
            contender.create(item)
            waits.append(time.monotonic() - begun)
        contender.close()

    return _burst(work, load)


def _pool_write(pool: dao.Pool, load: Load) -> Burst:
    def work(barrier: threading.Barrier, waits: list[float]) -> None:
        items = [task(data.fresh_values()) for _ in range(load.thread_writes)]
        barrier.wait()
        for item in items:
            begun = time.monotonic()
            pool.write(tasks.create, item)
            waits.append(time.monotonic() - begun)

    return _burst(work, load)


def _burst(work: Callable[[threading.Barrier, list[float]], None], load: Load) -> Burst:
    seconds, waits, errors = _together(work, load)
    return Burst(seconds / max(1, len(waits)), max(waits, default=0.0), errors)


def _together(work: Callable[[threading.Barrier, list[float]], None], load: Load) -> tuple[float, list[float], int]:
    """Run the work in threads that begin at once; return the seconds, what each noted, and how many failed."""
    barrier = threading.Barrier(load.threads + 1)
    waits: list[list[float]] = [[] for _ in range(load.threads)]
    errors: list[BaseException] = []

    def guarded(own: list[float]) -> None:
        try:
            work(barrier, own)
        except BaseException as error:  # noqa: BLE001 - counted below
            errors.append(error)
            barrier.abort()

    started = [threading.Thread(target=guarded, args=(own,)) for own in waits]
    for thread in started:
        thread.start()
    try:
        barrier.wait()
    except threading.BrokenBarrierError as broken:
        for thread in started:
            thread.join()
        raise next(error for error in errors if not isinstance(error, threading.BrokenBarrierError)) from broken
    begun = time.monotonic()
    for thread in started:
        thread.join()
    return time.monotonic() - begun, [wait for own in waits for wait in own], len(errors)


# ---------------------------------------------------------------- waiting for a pool


def _queue_pool(path: Path) -> tuple[Callable[[], AbstractContextManager[Any]], Callable[[], None]]:
    """Return the pool that one writes by hand: a queue."""
    idle: queue.Queue[Any] = queue.Queue()
    for _ in range(4):
        idle.put(connect(path))

    @contextmanager
    def acquire() -> Iterator[Any]:
        connection = idle.get()
        try:
            yield connection
        finally:
            idle.put(connection)

    def close() -> None:
        while not idle.empty():
            idle.get().close()

    return acquire, close


def _sqlalchemy_pool() -> tuple[Callable[[], AbstractContextManager[Any]], Callable[[], None]]:
    import sqlalchemy as sa  # noqa: PLC0415 - only here if its contender is

    # in memory: the pool is measured, and another SQLite must not open dao's file
    arguments = {"connect_args": {"check_same_thread": False}, "poolclass": sa.QueuePool}
    engine = sa.create_engine("sqlite://", pool_size=4, max_overflow=0, **arguments)
    return engine.connect, engine.dispose


def _waits(acquire: Callable[[], AbstractContextManager[Any]], load: Load) -> list[float]:
    def work(barrier: threading.Barrier, waits: list[float]) -> None:
        barrier.wait()
        for _ in range(load.acquisitions):
            begun = time.perf_counter()
            with acquire():
                waits.append(time.perf_counter() - begun)
                time.sleep(0.0005)

    _, waits, errors = _together(work, load)
    if errors:
        raise RuntimeError("a thread could not have a connection")
    return waits


def _wait_figures(rounds: list[list[float]]) -> dict[str, float]:
    medians = [statistics.median(waits) for waits in rounds]
    p99s = [sorted(waits)[int(len(waits) * 0.99)] for waits in rounds]
    pairs = zip(p99s, medians, strict=True)
    return {
        "median": statistics.median(medians),
        "p99": statistics.median(p99s),
        "worst": max(max(waits) for waits in rounds),
        "p99_to_median": statistics.median(p99 / median for p99, median in pairs),
    }
