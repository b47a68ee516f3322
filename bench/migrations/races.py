"""The cases that chance decides: kill -9 in the middle, and several migrators at once. Counted over many rounds."""

from __future__ import annotations

import collections
import concurrent.futures
import random
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.migrations import processes, scripts
from bench.migrations.scripts import Script
from bench.migrations.tools import State, Tool, copy, remove

#: How many start at once.
MIGRATORS = (2, 4, 8)

_ROWS = 10_000
# the databases of so many rounds are kept at once
_BATCH = 16
# what a tool waits for a lock is mostly sleep, so many may wait side by side
_WORKERS = 16


def crash(tools: Sequence[Tool], folder: Path, *, rounds: int, chance: random.Random) -> dict[str, Any]:
    """Kill each tool's whole process group at a random moment of an apply, look, and run it again."""
    migrations = scripts.heavy(rows=_ROWS)
    layouts = {tool.name: tool.lay_out(folder / tool.name, migrations) for tool in tools}
    seconds = {
        tool.name: statistics.median(
            _whole(tool, folder / f"{tool.name}-whole-{n}.db", layouts[tool.name]).seconds
            for n in range(min(3, rounds))
        )
        for tool in tools
    }
    results: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in tools}
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for first in range(0, rounds, _BATCH):
                numbers = range(first, min(rounds, first + _BATCH))
                for number in numbers:
                    for tool in tools:
                        database = folder / f"{tool.name}-{number}.db"
                        moment = chance.uniform(0, seconds[tool.name])
                        command = tool.apply(str(database), layouts[tool.name])
                        ended = processes.run_killed(command, cwd=str(folder), after=moment)
                        with State(database, folder / "state") as state:
                            seen = _agreement(tool, state, migrations)
                        results[tool.name].append({"killed": ended.code != 0, **seen})
                after = {
                    (tool.name, number): pool.submit(
                        _again, tool, folder / f"{tool.name}-{number}.db", layouts[tool.name], migrations
                    )
                    for tool in tools
                    for number in numbers
                }
                for (name, number), future in after.items():
                    results[name][number].update(future.result())
        except BaseException:
            processes.kill_all()
            pool.shutdown(cancel_futures=True)
            raise
    return {
        name: {
            "rounds": rounds,
            "run_seconds": seconds[name],
            "killed": sum(each["killed"] for each in counted),
            "killed_between_migrations": sum(each["between"] for each in counted),
            "clean": sum(not each["half"] and not each["locked"] and each["next"] == "ok" for each in counted),
            "half_applied": sum(each["half"] for each in counted),
            "lock_left": sum(each["locked"] for each in counted),
            "next_run_fails": sum(each["next"] == "failed" for each in counted),
            "next_run_hangs": sum(each["next"] == "hung" for each in counted),
            "still_fails_after_unlocking": sum(each["unlocked"] == "failed" for each in counted),
            "messages": _tally(each["said"] for each in counted if each["next"] != "ok"),
        }
        for name, counted in results.items()
    }


def concurrency(tools: Sequence[Tool], folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Start several migrators at once, on a new file, and on one that has three of seven migrations.

    A tool that has taken so many seconds over a case stops short of the rounds, but not of three.
    """
    migrations = scripts.project()
    results: dict[str, Any] = {tool.name: {} for tool in tools}
    begun = {}
    for tool in tools:
        begun[tool.name] = folder / f"{tool.name}-begun.db"
        _whole(tool, begun[tool.name], tool.lay_out(folder / tool.name, migrations[:3]))
        tool.lay_out(folder / tool.name, migrations)
    for start in ("new", "pending"):
        for count in MIGRATORS:
            counted: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in tools}
            taken = dict.fromkeys(counted, 0.0)
            for number in range(rounds):
                for tool in tools:
                    if number >= 3 and taken[tool.name] > seconds:
                        continue
                    database = folder / f"{tool.name}.db"
                    remove(database)
                    if start == "pending":
                        copy(begun[tool.name], database)
                    command = tool.apply(str(database), str(folder / tool.name))
                    ended = processes.run_together([command] * count, cwd=str(folder))
                    taken[tool.name] += ended[0].seconds
                    with State(database, folder / "state") as state:
                        right = _complete(tool, state, migrations)
                    counted[tool.name].append({"ended": ended, "right": right})
            for name, all_rounds in counted.items():
                results[name][f"{start}, {count}"] = _race(all_rounds)
    return results


def _race(counted: list[dict[str, Any]]) -> dict[str, Any]:
    ended = [each for one in counted for each in one["ended"]]
    return {
        "rounds": len(counted),
        "rounds_with_failure": sum(any(not each.ok for each in one["ended"]) for one in counted),
        "processes": len(ended),
        "processes_failed": sum(each.code not in {0, None} for each in ended),
        "processes_hung": sum(each.code is None for each in ended),
        "already_exists": sum(not each.ok and "already exists" in each.output for each in ended),
        "locked": sum(not each.ok and "locked" in each.output for each in ended),
        "schema_wrong": sum(not one["right"] for one in counted),
        "messages": _tally(each.said for each in ended if not each.ok),
    }


def _whole(tool: Tool, database: Path, layout: str) -> processes.Ended:
    """Apply from end to end."""
    ended = processes.run(tool.apply(str(database), layout), cwd=str(database.parent))
    if not ended.ok:
        raise RuntimeError(f"{tool.name}: a plain run failed: {ended.said}")
    return ended


def _again(tool: Tool, database: Path, layout: str, migrations: Sequence[Script]) -> dict[str, Any]:
    """Run the tool again on a database in which it was killed; if it fails, unlock as its documentation says, and again."""

    def attempt() -> tuple[str, str]:
        ended = processes.run(tool.apply(str(database), layout), cwd=str(database.parent))
        if ended.code is None:
            return "hung", "hung"
        with State(database, Path(f"{database}.state")) as state:
            whole = _agreement(tool, state, migrations)["whole"]
        return ("ok", "") if ended.ok and whole else ("failed", ended.said if not ended.ok else "exit 0, not complete")

    outcome, said = attempt()
    unlocked = None
    if outcome != "ok" and tool.unlock is not None:
        processes.run(tool.unlock(str(database), layout), cwd=str(database.parent))
        unlocked = attempt()[0]
    remove(database)
    return {"next": outcome, "said": said, "unlocked": "failed" if unlocked in {"failed", "hung"} else unlocked}


def _agreement(tool: Tool, state: State, migrations: Sequence[Script]) -> dict[str, bool]:
    """Return whether the schema is what the ledger says."""
    tables, indexes = state.tables(), state.names("index")
    noted = tool.applied(state, migrations)
    made = {
        script.version: (script.name in tables)
        + (f"{script.name}_label" in indexes)
        + (state.count(script.name) == _ROWS)
        for script in migrations
    }
    return {
        "half": any(parts != (3 if version in noted else 0) for version, parts in made.items()),
        "between": 0 < len(noted) < len(migrations),
        "whole": len(noted) == len(migrations) and all(parts == 3 for parts in made.values()),
        "locked": tool.locked(state),
    }


def _complete(tool: Tool, state: State, migrations: Sequence[Script]) -> bool:
    """Return whether the project's seven pairs are all there, and noted."""
    return (
        len(tool.applied(state, migrations)) == len(migrations)
        and state.names("trigger") >= {"tasks_updated_at", "sessions_updated_at"}
        and state.tables() >= {"tasks", "workflows", "workflow_tasks", "tool_executions", "sessions", "configurations"}
    )


def _tally(messages: Iterable[str]) -> dict[str, int]:
    """Count messages, without what differs from run to run; the five most frequent."""
    masked = (re.sub(r"Process \d+", "Process …", re.sub(r"\S*/\S*", "…", message)) for message in messages)
    return dict(collections.Counter(masked).most_common(5))
