"""Migration tools timed as whole processes, each on the same SQL in its own layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from bench import commands, harness
from bench.run import Run
from bench.tools import BASE, TOOLS, Script, Tool

_PROJECT = Path(__file__).parents[1] / "sql" / "sqlite"
#: The long runs take some tools half a minute each, so that they have fewer rounds.
_LONG = 3


def measure(run: Run) -> dict[str, Any]:
    """Return the seconds of each tool for each case, with ratios to those by hand, and why tools are skipped."""
    size, pairs, found = run.size, _project(), {}
    ready, skipped = _ready(TOOLS[: 2 if size.tiny else None], pairs, run.folder)
    rounds, long = size.rounds // 2 + 1, min(size.rounds, _LONG)
    cases: list[tuple[str, list[Script], bool, int]] = [
        (f"{len(pairs)} migrations, new database", pairs, False, rounds),
        ("nothing to do", pairs, True, rounds),
        ("one small migration pending", [*pairs, *_small(1)], True, rounds),
    ]
    if size.migrations:
        cases.append((f"{size.migrations:,} small migrations", _small(size.migrations), False, long))
        cases.append((f"one migration of {size.inserts:,} inserts", [_inserts(size.inserts)], False, long))
    for number, (title, scripts, begun, often) in enumerate(cases):
        run.report(f"migrations: {title}")
        clocks = {
            tool.name: _clock(tool, _laid_out(tool, scripts, run.folder / f"{number}"), database if begun else None)
            for tool, database in ready
        }
        times = commands.interleaved(clocks, often)
        found[title] = harness.summary(times, dict.fromkeys(times, BASE))
    return {"cases": found, "skipped": skipped}


def _ready(tools: Sequence[Tool], pairs: list[Script], folder: Path) -> tuple[list[tuple[Tool, Path]], dict[str, str]]:
    """Return for each tool a database that it has migrated, and for the others why there is none."""
    ready, skipped = [], {}
    for tool in tools:
        database = folder / f"{tool.name}.db"
        try:
            commands.seconds_of(tool.command(database, _laid_out(tool, pairs, folder / "ready")), folder)
            with closing(apsw.Connection(str(database))) as connection:
                connection.execute("SELECT * FROM configurations").fetchall()
            ready.append((tool, database))
        except (LookupError, RuntimeError, apsw.Error) as error:
            skipped[tool.name] = str(error)
    return ready, skipped


def _laid_out(tool: Tool, scripts: Sequence[Script], folder: Path) -> Path:
    place = folder / tool.executable
    place.mkdir(parents=True)
    tool.lay_out(place, scripts)
    return place


def _clock(tool: Tool, layout: Path, begun: Path | None) -> Callable[[], float]:
    """Return what takes the time of a run on a new database, or on a copy of one that is there."""
    database = layout.with_suffix(".db")
    command = tool.command(database, layout)

    def clock() -> float:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
            if begun and Path(f"{begun}{suffix}").exists():
                shutil.copy(f"{begun}{suffix}", f"{database}{suffix}")
        return commands.seconds_of(command, layout.parent)

    return clock


# ---------------------------------------------------------------- scripts


def _project() -> list[Script]:
    paths = sorted(path for path in _PROJECT.glob("*.sql") if not path.name.endswith(".rollback.sql"))
    return [Script(path.stem, path.read_text(), path.with_suffix(".rollback.sql").read_text()) for path in paths]


def _small(count: int) -> list[Script]:
    made = []
    for number in range(1, count + 1):
        table = f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n"
        made.append(Script(f"{20300101000000 + number}_create_t{number}", table, f"DROP TABLE t{number};\n"))
    return made


def _inserts(count: int) -> Script:
    table = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL);\n"
    rows = (f"INSERT INTO items VALUES ({n}, 'item number {n}; it''s new', {n % 997}.5);\n" for n in range(count))
    return Script("20300101000001_fill_items", table + "".join(rows), "DROP TABLE items;\n")
