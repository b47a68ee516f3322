"""What a run takes: each tool as a command, and the libraries in one process. Rounds are interleaved."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import yoyo

from bench.migrations import processes, scripts
from bench.migrations.tools import Tool, remove
from dao import migrate

#: A tool whose run takes longer than so many seconds gets this many rounds only.
SLOW = (4.0, 3)

Clock = Callable[[int], float]


def commands(tools: Sequence[Tool], folder: Path, *, rounds: int, many: int, rows: int) -> dict[str, Any]:
    """Return the seconds of each operation and tool, as commands, process start included."""
    sets = {
        "seven pairs, new database": scripts.project(),
        f"{many:,} migrations": scripts.small(many),
        f"one migration of {rows:,} inserts": scripts.inserts(rows),
    }
    results: dict[str, Any] = {}
    for number, (title, migrations) in enumerate(sets.items()):
        clocks = {}
        for tool in tools:
            layout = tool.lay_out(folder / f"{tool.name}-{number}", migrations)
            clocks[tool.name] = _command(tool.name, tool.apply, folder / f"{tool.name}.db", layout, fresh=True)
        results[title] = _interleaved(clocks, rounds)
        if number:
            continue
        ready = [tool for tool in tools if tool.status is not None]
        for short, pick in (("nothing to do", "apply"), ("status", "status")):
            results[short] = _interleaved(
                {
                    tool.name: _command(
                        tool.name, getattr(tool, pick), folder / f"{tool.name}.db", str(folder / f"{tool.name}-0")
                    )
                    for tool in ready
                },
                rounds,
            )
    return results


def in_process(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Return the seconds of the seven pairs on a new file: the library, yoyo's, and the bare driver."""
    # yoyo says on its logger that it applies
    logging.getLogger("yoyo").setLevel(logging.ERROR)
    pairs = str(scripts.PROJECT)

    def ours(database: str) -> None:
        migrate.apply(f"sqlite:///{database}")

    def bare(database: str) -> None:
        texts = [script.apply for script in scripts.project()]
        connection = apsw.Connection(database)
        for pragma in ("journal_mode = wal", "synchronous = normal"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for text in texts:
            connection.execute(text).fetchall()
        connection.execute("COMMIT")
        connection.close()

    def theirs(database: str) -> None:
        backend = yoyo.get_backend(f"sqlite:///{database}")
        try:
            with backend.lock():
                backend.apply_migrations(backend.to_apply(yoyo.read_migrations(pairs)))
        finally:
            backend.connection.close()

    def clock(name: str, run: Callable[[str], None]) -> Clock:
        def measured(_: int) -> float:
            database = folder / f"process-{name}.db"
            remove(database)
            begun = time.perf_counter()
            run(str(database))
            return time.perf_counter() - begun

        return measured

    clocks = {
        "dao.migrate.apply": clock("dao", ours),
        "apsw, one transaction, no ledger": clock("apsw", bare),
        "yoyo's library": clock("yoyo", theirs),
    }
    return {"seven pairs, new database": _interleaved(clocks, max(rounds, 15))}


def _command(
    name: str, command: Callable[[str, str], list[str]], database: Path, layout: str, *, fresh: bool = False
) -> Clock:
    def measured(_: int) -> float:
        if fresh:
            remove(database)
        line = command(str(database), layout)
        ended = processes.run(line, cwd=str(database.parent), time_limit=3 * processes.TIME_LIMIT)
        if not ended.ok:
            raise RuntimeError(f"{name}: {' '.join(line[1:])}: exit {ended.code}: {ended.said}")
        return ended.seconds

    return measured


def _interleaved(clocks: dict[str, Clock], rounds: int) -> dict[str, Any]:
    """Return the median, minimum and ratio to the first of the clocks. A first round, which warms caches, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    slow, few = SLOW
    for number in range(-1, rounds):
        for name, clock in clocks.items():
            measured = seconds[name]
            if measured and min(measured) > slow and len(measured) >= few:
                continue
            taken = clock(number)
            # what takes seconds does not show a cold cache
            if number >= 0 or taken > slow:
                measured.append(taken)
    seconds = {name: measured[-rounds:] for name, measured in seconds.items()}
    base = statistics.median(next(iter(seconds.values())))
    return {
        name: {
            "median": statistics.median(measured),
            "minimum": min(measured),
            "ratio": statistics.median(measured) / base,
            "rounds": len(measured),
        }
        for name, measured in seconds.items()
    }
