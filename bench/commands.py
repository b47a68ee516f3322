"""Whole processes by the clock, from the start of each to its end, and what imports cost, measured so."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import harness
from bench.harness import Subject, Times, Turn
from bench.run import Run

_MODULES = (
    "dao", "dao.migrate", "apsw", "attrs", "msgspec", "uuid_utils", "click", "cattrs", "dotenv", "rich.console", "yoyo",
)  # fmt: skip
_ROOT = Path(__file__).parents[1]
# a variable that names a database, or changes how one is opened or how modules are compiled
_LEFT_OUT = ("DATABASE", "DBMATE", "SQLX", "YOYO", "ALEMBIC", "PYTHONDONTWRITEBYTECODE")


def seconds_of(command: Sequence[str], cwd: Path = _ROOT) -> float:
    """Run a command to its end and return the seconds it took.

    Raises:
        RuntimeError: It failed; the message ends with what it said.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env={**kept, "NO_COLOR": "1"}, check=False, text=True, **pipes)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout[-2000:]}")
    return seconds


def interleaved(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Return the times of each clock; a first round, which fills caches, does not count."""
    subjects = [
        Subject(name, lambda _, clock=clock: Turn(clock(), interrupted=False)) for name, clock in clocks.items()
    ]
    return harness.interleave(subjects, rounds=rounds, calls=1, seconds=0.0)


def imports(run: Run) -> dict[str, Any]:
    """Return the seconds that each import adds to an interpreter that imports nothing, and the seconds of that."""
    run.report("imports")
    codes = {name: f"import {name}" for name in _MODULES[: 1 if run.size.tiny else None]} | {"nothing": "pass"}
    clocks = {name: lambda code=code: seconds_of([sys.executable, "-c", code]) for name, code in codes.items()}
    times = interleaved(clocks, run.size.rounds)
    none = times.pop("nothing")
    pairs = {name: zip(own.rounds, none.rounds, strict=True) for name, own in times.items()}
    adds = {name: statistics.median(own - other for own, other in each) for name, each in pairs.items()}
    return {"empty": none.median, "adds": adds}
