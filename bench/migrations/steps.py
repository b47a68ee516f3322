"""Where the time of one run goes: the steps of `dao.migrate.apply` on a new database, beside those of the bare driver.

The functions that a run calls are wrapped with timers while it is measured, in the names under which it calls them. None of
them calls another of them, so that the times add up; what is left is given too.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

from bench.migrations import scripts
from bench.migrations.tools import remove
from dao import migrate
from dao.migrate import drift, ledger, runner, target

#: By step: what a run calls for it, and where that name is looked up.
_CALLED: dict[str, tuple[tuple[Any, str], ...]] = {
    "reading the files": ((migrate, "loaded"),),
    "comparing them with the ledger": ((migrate, "to_apply"),),
    "opening the file, switching it to WAL": ((target, "connect"),),
    "the ledger: its tables": ((ledger.Writer, "__init__"),),
    "the ledger: reading it": ((ledger.Writer, "read"),),
    "the scripts": ((runner, "_run_inside"),),
    "the ledger: its rows": ((ledger.Writer, "together"),),
    "checks: file, rows, foreign keys": (
        (runner, "integrity_problems"),
        (runner.Before, "of"),
        (runner, "holds_rows"),
        (runner, "check"),
        (drift, "is_clean"),
    ),
    "the schema's hash, for drift": ((drift, "record"),),
}
#: What comes after the last of these.
_END = "commit, checkpoint, close"
_REST = "all else"
#: The steps, in the order of a run.
STEPS = (*_CALLED, _END, _REST)

Times = dict[str, float]


def measure(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Return the median seconds of each step, for the library and for the bare driver, and those of all of them."""
    runs = {"dao.migrate.apply": _ours, "apsw, one transaction, no ledger": _bare}
    seen: dict[str, list[Times]] = {name: [] for name in runs}
    # a first round, which warms caches, is not counted
    for number in range(-1, rounds):
        for name, run in runs.items():
            database = folder / "steps.db"
            remove(database)
            times = run(database)
            if number >= 0:
                seen[name].append(times)
    return {
        "rounds": rounds,
        "steps": {
            name: {step: statistics.median(times[step] for times in found) for step in STEPS}
            for name, found in seen.items()
        },
        "together": {name: statistics.median(sum(times.values()) for times in found) for name, found in seen.items()},
    }


def _ours(database: Path) -> Times:
    times = dict.fromkeys(STEPS, 0.0)
    ended = 0.0

    def note(step: str, seconds: float) -> None:
        nonlocal ended
        times[step] += seconds
        ended = time.perf_counter()

    with contextlib.ExitStack() as wrapped:
        for step, places in _CALLED.items():
            for where, name in places:
                kind = _timed_block if name == "together" else _timed
                wrapper = kind(getattr(where, name), functools.partial(note, step))
                wrapped.enter_context(mock.patch.object(where, name, wrapper))
        begun = time.perf_counter()
        migrate.apply(f"sqlite:///{database}")
        done = time.perf_counter()
    times[_END] = done - ended
    times[_REST] = done - begun - sum(times.values())
    return times


def _timed(function: Callable[..., Any], note: Callable[[float], None]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            note(time.perf_counter() - begun)

    return timed


def _timed_block(
    manager: Callable[..., contextlib.AbstractContextManager[None]], note: Callable[[float], None]
) -> Callable[..., Any]:
    @contextlib.contextmanager
    def timed(*args: Any) -> Iterator[None]:
        begun = time.perf_counter()
        with manager(*args):
            yield
        note(time.perf_counter() - begun)

    return timed


def _bare(database: Path) -> Times:
    times = dict.fromkeys(STEPS, 0.0)
    begun = last = time.perf_counter()

    def note(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        times[step], last = now - last, now

    texts = [script.apply for script in scripts.project()]
    note("reading the files")
    connection = apsw.Connection(str(database))
    for pragma in ("journal_mode = wal", "synchronous = normal"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    note("opening the file, switching it to WAL")
    connection.execute("BEGIN IMMEDIATE")
    note(_REST)
    for text in texts:
        connection.execute(text).fetchall()
    note("the scripts")
    connection.execute("COMMIT")
    connection.close()
    note(_END)
    times[_REST] += last - begun - sum(times.values())
    return times
