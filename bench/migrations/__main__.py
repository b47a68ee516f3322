"""`python -m bench.migrations`: migration tools run through the same crash, concurrency, failure and speed cases.

Every tool gets the same SQL in its own layout, a new database for every round, and runs as a command in a process group of its
own. What is not installed is skipped, and said so. The tools are looked for beside the running Python, then on PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from bench.migrations import faults, processes, races, report, scripts, steps, timings
from bench.migrations import tools as peers
from bench.migrations.tools import State, Tool

_RUN_BY_TOOLS = ("crash", "concurrency", *faults.CASES)
_CASES = (*_RUN_BY_TOOLS, "timings", "steps")
# Alembic runs Python, not scripts: it takes part where that makes no difference. The shell keeps no ledger.
_WITH_ALEMBIC = ("concurrency", "failed", "timings")


def main() -> int:
    """Run the cases and write what came out."""
    options = _options()
    tools, skipped = peers.find()
    skipped = {name: why for name, why in skipped.items() if name in options.tools}
    tools = [tool for tool in tools if tool.name in options.tools]
    with tempfile.TemporaryDirectory(prefix="bench-migrations-") as name:
        folder = Path(name)
        try:
            tools, broken = _checked(tools, folder)
            skipped |= broken
            for tool, why in skipped.items():
                print(f"skipped: {tool}: {why}", file=sys.stderr)
            if not tools:
                print("error: none of the tools can be run", file=sys.stderr)
                return 1
            document = _document(tools, skipped, folder, options)
        except KeyboardInterrupt:
            print("stopped; the processes are ended and the temporary folder is removed", file=sys.stderr)
            return 130
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            processes.kill_all()
    print(report.terminal(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if options.markdown:
        options.markdown.write_text(report.markdown(document), "utf-8")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.migrations", description=__doc__)
    parser.add_argument("--full", action="store_true", help="100 rounds instead of 20, 7 of timings instead of 3")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of everything")
    parser.add_argument("--only", action="append", choices=_CASES, metavar="CASE", help=f"one of {', '.join(_CASES)}")
    parser.add_argument("--tools", type=_names, default=peers.NAMES, help=f"of {','.join(peers.NAMES)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the crashes (default: %(default)s)")
    parser.add_argument("--many", type=int, default=1000, help="migrations of the long run (default: %(default)s)")
    parser.add_argument("--inserts", type=int, default=20_000, help="of the one large migration (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def _names(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := set(chosen) - set(peers.NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(peers.NAMES)}")
    return chosen


def _checked(tools: Sequence[Tool], folder: Path) -> tuple[list[Tool], dict[str, str]]:
    """Return the tools whose plain run does what it should, and what is wrong with each other one."""
    migrations = scripts.project()
    good, broken = [], {}
    for tool in tools:
        database = folder / f"{tool.name}-plain.db"
        layout = tool.lay_out(folder / f"{tool.name}-plain", migrations)
        ended = processes.run(tool.apply(str(database), layout), cwd=str(folder))
        with State(database, folder / "state") as state:
            right = ended.ok and "configurations" in state.tables() and len(state.names("trigger")) == 6
            noted = not tool.ledger or len(tool.applied(state, migrations)) == len(migrations)
        if right and noted:
            good.append(tool)
        else:
            broken[tool.name] = (
                f"a plain run of the seven pairs does not come to its end: exit {ended.code}: {ended.said}"
            )
    return good, broken


def _document(tools: list[Tool], skipped: dict[str, str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for."""
    chosen = options.only or _CASES
    often, seldom = (100, 3) if options.full else (20, 1)
    document: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _machine(folder),
        "versions": {tool.name: tool.version() for tool in tools},
        "skipped": skipped,
        "full": options.full,
        "seed": options.seed,
        "cases": {},
        "timings": {},
    }
    for case in _RUN_BY_TOOLS:
        if case not in chosen:
            continue
        taking_part = [tool for tool in tools if tool.status and (tool.name != "alembic" or case in _WITH_ALEMBIC)]
        if not taking_part:
            continue
        _progress(case)
        (folder / case).mkdir()
        if case == "crash":
            result = races.crash(
                taking_part, folder / case, rounds=options.rounds or often, chance=random.Random(options.seed)
            )
        elif case == "concurrency":
            result = races.concurrency(
                taking_part, folder / case, rounds=options.rounds or often, seconds=6 if options.full else 2
            )
        else:
            result = faults.measure(case, taking_part, folder / case, rounds=options.rounds or seldom)
        document["cases"][case] = result
    if "timings" in chosen:
        rounds = options.rounds or (7 if options.full else 3)
        (folder / "timings").mkdir()
        _progress("timings, as commands")
        document["timings"]["commands"] = timings.commands(
            tools, folder / "timings", rounds=rounds, many=options.many, rows=options.inserts
        )
        _progress("timings, in one process")
        document["timings"]["in_process"] = timings.in_process(folder / "timings", rounds=rounds)
    if "steps" in chosen:
        (folder / "steps").mkdir()
        _progress("the steps of a run")
        document["timings"]["steps"] = steps.measure(
            folder / "steps", rounds=options.rounds or (100 if options.full else 20)
        )
    return document


def _progress(case: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {case} …", file=sys.stderr, flush=True)


def _machine(folder: Path) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        models = [
            line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")
        ]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "file_system": _file_system(folder),
    }


def _file_system(folder: Path) -> str:
    """Return the type of the file system, where the system tells."""
    if not os.path.exists("/proc/mounts"):
        return "an unknown file system"
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    return max((len(mount), type) for mount, type in mounts if folder.is_relative_to(mount))[1]


if __name__ == "__main__":
    sys.exit(main())
