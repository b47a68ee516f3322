"""`python -m bench`: what the typed functions cost beside bare tuples, and what importing each dependency costs.

Every contender works on a file of its own with the same schema, the same settings and the same rows. Rounds are
interleaved, so that a change of the machine's speed meets all of them; figures are medians, ratios are to bare apsw.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw

import dao
from dao import Task, migrate, tasks
from dao.rows import TASKS

Round = Callable[[], float]

_INSERT = tasks._CREATE
_GET = tasks._GET
_PAGE = f"SELECT {TASKS.columns} FROM tasks WHERE status = ? ORDER BY created_at DESC, id DESC LIMIT 50"
_SET = "UPDATE tasks SET status = ?, error = NULL, completed_at = NULL, started_at = NULL WHERE id = ? RETURNING id"
_IMPORTS = ("apsw", "attrs", "msgspec", "uuid_utils", "click", "cattrs", "dotenv", "rich.console", "yoyo")


def payload(number: int) -> Task:
    """Return a task of the size that a real one has."""
    return Task(
        title=f"Summarise the quarterly report, part {number:06}",
        description="Read the attached documents, find the figures that changed, and say why in plain words. " * 2,
        task_type="summary",
        config={
            "model": "large",
            "temperature": 0.2,
            "retries": 3,
            "tools": ["search", "read"],
            "limits": {"tokens": 4096, "seconds": 120},
            "language": "en",
        },
        metadata={"owner": "finance", "source": "inbox", "priority": 5, "tags": ["report", "q3"]},
    )


class Contenders:
    """Three connections to three files with the same rows."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        paths = {name: folder / f"{name}.db" for name in ("dao", "apsw", "sqlite3")}
        stored = [payload(number) for number in range(rows)]
        self.ids = [task.id for task in stored]
        for path in paths.values():
            migrate.apply(f"sqlite:///{path}")
            with dao.Pool(f"sqlite:///{path}") as pool, pool.acquire() as connection:
                tasks.create_many(connection, stored)
        self.dao = dao.connect(f"sqlite:///{paths['dao']}")
        self.apsw = apsw.Connection(str(paths["apsw"]))
        self.apsw.set_busy_timeout(5000)
        # a file of its own: two SQLite libraries must never share one
        self.sqlite3 = sqlite3.connect(paths["sqlite3"], isolation_level=None)
        for connection in (self.apsw, self.sqlite3):
            for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
                connection.execute(f"PRAGMA {pragma}").fetchall()

    def operations(self, repeat: int) -> dict[str, dict[str, Round]]:
        """Return for each operation what each contender does, as functions that return seconds for one call."""
        ids = self.ids[:: max(1, self.rows // repeat)]

        def fresh() -> list[Task]:
            return [payload(number) for number in range(repeat)]

        def each(function: Callable[[object], object], prepare: Callable[[], list[object]]) -> Round:
            def run() -> float:
                items = prepare()
                begun = time.perf_counter()
                for item in items:
                    function(item)
                return (time.perf_counter() - begun) / len(items)

            return run

        def rows() -> list[object]:
            return [TASKS.to_row(task) for task in fresh()]

        def bulk_dao(items: list[Task]) -> None:
            tasks.create_many(self.dao, items)

        def bulk_bare(connection: object) -> Callable[[object], None]:
            def run(items: object) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, items)
                connection.execute("COMMIT")

            return run

        def per_row(run: Round) -> Round:
            return lambda: run() / repeat

        def fetch(connection: object, sql: str, parameters: Callable[[object], tuple]) -> Callable[[object], object]:
            return lambda item: connection.execute(sql, parameters(item)).fetchall()

        def set_bare(connection: object) -> Callable[[object], None]:
            def run(id: object) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SET, ("pending", id)).fetchall()
                connection.execute(_GET, (id,)).fetchall()
                connection.execute("COMMIT")

            return run

        bare = {"apsw": self.apsw, "sqlite3": self.sqlite3}
        pages = [None] * max(1, repeat // 10)
        return {
            "create": {
                "dao": each(lambda task: tasks.create(self.dao, task), fresh),
                **{name: each(fetch(db, _INSERT, lambda row: row), rows) for name, db in bare.items()},
            },
            "create_many, per row": {
                "dao": per_row(each(bulk_dao, lambda: [fresh()])),
                **{name: per_row(each(bulk_bare(db), lambda: [rows()])) for name, db in bare.items()},
            },
            "get": {
                "dao": each(lambda id: tasks.get(self.dao, id), lambda: ids),
                **{name: each(fetch(db, _GET, lambda id: (id,)), lambda: ids) for name, db in bare.items()},
            },
            "get, JSON read": {
                "dao": each(lambda id: (task := tasks.get(self.dao, id)).config and task.metadata, lambda: ids),
                **{name: each(fetch(db, _GET, lambda id: (id,)), lambda: ids) for name, db in bare.items()},
            },
            "find 50 of a status": {
                "dao": each(lambda _: tasks.find(self.dao, status="pending", limit=50), lambda: pages),
                **{name: each(fetch(db, _PAGE, lambda _: ("pending",)), lambda: pages) for name, db in bare.items()},
            },
            "set_status, fresh record": {
                "dao": each(lambda id: tasks.set_status(self.dao, id, "pending"), lambda: ids),
                **{name: each(set_bare(db), lambda: ids) for name, db in bare.items()},
            },
        }

    def close(self) -> None:
        """Close the connections."""
        for connection in (self.dao, self.apsw, self.sqlite3):
            connection.close()


def measure_operations(*, rows: int, repeat: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of each contender for each operation."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = Contenders(Path(folder), rows)
        operations = contenders.operations(repeat)
        results = {operation: {name: [] for name in functions} for operation, functions in operations.items()}
        for _ in range(rounds):
            for operation, functions in operations.items():
                for name, function in functions.items():
                    results[operation][name].append(function())
        contenders.close()
    return {
        operation: {name: statistics.median(times) for name, times in by_name.items()}
        for operation, by_name in results.items()
    }


def measure_imports(rounds: int) -> dict[str, float]:
    """Return the milliseconds that importing each dependency, and dao, adds to a bare interpreter."""
    # compiled modules count as they would where the package is installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def start(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return time.perf_counter() - begun

    names = (*_IMPORTS, "dao", "dao.migrate")
    times: dict[str, list[float]] = {name: [] for name in ("", *names)}
    for name in names:
        start(f"import {name}")
    for _ in range(rounds):
        for name, measured in times.items():
            measured.append(start(f"import {name}" if name else "pass"))
    empty = statistics.median(times.pop(""))
    return {name: (statistics.median(measured) - empty) * 1000 for name, measured in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="rows in the table (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=2_000, help="calls in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    operations = measure_operations(rows=options.rows, repeat=options.repeat, rounds=options.rounds)
    imports = measure_imports(options.rounds)
    if options.json:
        print(json.dumps({"operations": operations, "imports": imports}, indent=2))
        return
    print(f"{'operation':<26}{'apsw tuples':>14}{'sqlite3 tuples':>16}{'dao records':>14}")
    for operation, medians in operations.items():
        bare = medians["apsw"]
        print(
            f"{operation:<26}{bare * 1e6:>11.1f} µs{medians['sqlite3'] / bare:>15.2f}×{medians['dao'] / bare:>13.2f}×"
        )
    print("\nimport, over an empty interpreter")
    for name, milliseconds in imports.items():
        print(f"{name:<26}{milliseconds:>11.0f} ms")


if __name__ == "__main__":
    main()
