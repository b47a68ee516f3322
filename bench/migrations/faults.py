"""The cases that chance does not decide: lost rows, failed scripts, edited files, rollbacks without a way back."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from bench.migrations import processes, scripts
from bench.migrations.scripts import Script
from bench.migrations.tools import State, Tool, copy

Outcome = dict[str, Any]


# what stands before and after the rebuild
_OFF, _ON = "PRAGMA foreign_keys=OFF;\n", "PRAGMA foreign_keys=ON;\n"
_AROUND = {
    "plain": ("", ""),
    "foreign_keys=OFF": (_OFF, _ON),
    "foreign_keys=OFF, no transaction": (_OFF, _ON),
    "COMMIT, foreign_keys=OFF, BEGIN": (
        f"COMMIT TRANSACTION;\n{_OFF}BEGIN TRANSACTION;\n",
        f"COMMIT TRANSACTION;\n{_ON}BEGIN TRANSACTION;\n",
    ),
}


class Bench:
    """One tool with one database and one folder, from nothing."""

    def __init__(self, tool: Tool, folder: Path) -> None:
        self.tool = tool
        self.folder = folder
        folder.mkdir(parents=True)
        self.database = folder / "data" / "bench.db"
        self.database.parent.mkdir()

    def apply(self, migrations: Sequence[Script]) -> processes.Ended:
        """Lay the scripts out and apply what is pending."""
        layout = self.tool.lay_out(self.folder / "migrations", migrations)
        return self._run(self.tool.apply(str(self.database), layout))

    def prepare(self, migrations: Sequence[Script]) -> None:
        """Apply what must succeed for the case to mean anything."""
        ended = self.apply(migrations)
        if not ended.ok:
            raise RuntimeError(f"{self.tool.name}: a plain run failed: {ended.said}")

    def rollback(self, migrations: Sequence[Script]) -> processes.Ended:
        """Lay the scripts out and roll the last one back."""
        layout = self.tool.lay_out(self.folder / "migrations", migrations)
        return self._run(self.tool.rollback(str(self.database), layout, migrations[-1]))

    def restore(self) -> processes.Ended:
        """Run the tool's own command that brings a database back."""
        return self._run(self.tool.restore(str(self.database), str(self.folder / "migrations")))

    def said(self, ended: processes.Ended) -> str:
        """Return what it said if it failed, without what differs from run to run."""
        return "" if ended.ok else ended.said.replace(f"{self.folder}/", "")

    def state(self) -> State:
        return State(self.database, self.folder / "state")

    def _run(self, command: list[str]) -> processes.Ended:
        return processes.run(command, cwd=str(self.folder))


def cascade(bench: Bench, variant: str) -> Outcome:
    """Rebuild a parent table whose hundred child rows are ON DELETE CASCADE."""
    before, after = _AROUND[variant]
    migrations = scripts.rebuild(
        before=before, after=after, transactional=variant != "foreign_keys=OFF, no transaction"
    )
    bench.prepare(migrations[:1])
    ended = bench.apply(migrations)
    with bench.state() as state:
        return {"child rows of 100": state.count("child"), "exit": _code(ended), "says": bench.said(ended)}


def failed(bench: Bench, _: str) -> Outcome:
    """Let the second of three statements of the second of three migrations fail; then correct it and run again."""
    ended = bench.apply(scripts.failing())
    with bench.state() as state:
        tables = state.tables()
        noted = bench.tool.applied(state, scripts.failing())
    again = bench.apply(scripts.failing(fixed=True))
    with bench.state() as state:
        complete = state.tables() >= {"before", "broken_1", "broken_3", "after"}
    return {
        "exit": _code(ended),
        "migration before it": "kept" if "before" in tables else "undone",
        "left of the failed one": ", ".join(sorted(tables & {"broken_1", "broken_3"})) or "nothing",
        "noted as applied": len(noted),
        "after the correction": "complete" if again.ok and complete else f"exit {_code(again)}: {bench.said(again)}",
    }


def edited(bench: Bench, variant: str) -> Outcome:
    """Edit a file that was applied, and migrate again, with and without something pending."""
    bench.prepare(scripts.notes())
    changed = scripts.notes(column="text_body")
    if variant == "one more pending":
        changed.append(scripts.small(3)[2])
    ended = bench.apply(changed)
    return {"noticed": _yes(not ended.ok), "exit": _code(ended), "says": bench.said(ended)}


def rollback_missing(bench: Bench, variant: str) -> Outcome:
    """Roll back a migration whose rollback script is not there."""
    migrations = scripts.notes(rollback="" if variant == "empty" else None)
    first = bench.apply(scripts.notes() if variant == "deleted since" else migrations)
    ended = bench.rollback(migrations) if first.ok else first
    with bench.state() as state:
        table = "notes" in state.tables()
        older = "before" in state.tables()
        noted = migrations[-1].version in bench.tool.applied(state, migrations)
    return {
        "at": "rollback" if first.ok else "apply",
        "exit": _code(ended),
        "its table": "there" if table else "gone",
        "noted as applied": _yes(noted),
        "they agree": _yes(table == noted),
        "the migration before it": "there" if older or not first.ok else "undone instead",
        "says": bench.said(ended),
    }


def row_loss(bench: Bench, _: str) -> Outcome:
    """Rebuild a table of ten rows with a copy that leaves out three."""
    migrations = scripts.lossy()
    bench.prepare(migrations[:1])
    ended = bench.apply(migrations)
    with bench.state() as state:
        return {
            "rows of 10": state.count("parent"),
            "noticed": _yes(not ended.ok),
            "exit": _code(ended),
            "says": bench.said(ended),
        }


def backup(bench: Bench, _: str) -> Outcome:
    """Roll back a migration whose table holds three rows; look for the rows afterwards, in files beside the database."""
    bench.prepare(scripts.notes())
    ended = bench.rollback(scripts.notes())
    found = [path.name for path in sorted(bench.database.parent.rglob("*")) if _holds_notes(path, bench)]
    restored: Any = "no such command"
    if bench.tool.restore is not None:
        again = bench.restore()
        with bench.state() as state:
            restored = f"{state.count('notes') or 0} rows" if again.ok else f"exit {_code(again)}: {bench.said(again)}"
    return {"exit": _code(ended), "copies with the rows": len(found), "rows after its own restore": restored}


#: case: what it does, its variants
CASES: dict[str, tuple[Callable[[Bench, str], Outcome], tuple[str, ...]]] = {
    "cascade": (cascade, tuple(_AROUND)),
    "failed": (failed, ("",)),
    "edited": (edited, ("nothing pending", "one more pending")),
    "rollback-missing": (rollback_missing, ("never written", "empty", "deleted since")),
    "row-loss": (row_loss, ("",)),
    "backup": (backup, ("",)),
}


def measure(case: str, tools: Sequence[Tool], folder: Path, *, rounds: int) -> dict[str, Any]:
    """Return each outcome of each tool and variant, with how often it came out that way."""
    run, variants = CASES[case]
    results: dict[str, Any] = {}
    for tool in tools:
        results[tool.name] = {}
        for variant in variants:
            outcomes = [
                run(Bench(tool, folder / f"{tool.name}-{variants.index(variant)}-{number}"), variant)
                for number in range(rounds)
            ]
            texts = collections.Counter(tuple(outcome.items()) for outcome in outcomes)
            results[tool.name][variant] = [{**dict(items), "times": times} for items, times in texts.most_common()]
    return results


def _holds_notes(path: Path, bench: Bench) -> bool:
    """Return whether a file is a database with the three rows."""
    if path == bench.database or not path.is_file():
        return False
    looked_at = bench.folder / "found.db"
    copy(path, looked_at)
    connection = apsw.Connection(str(looked_at))
    try:
        return connection.execute("SELECT count(*) FROM notes").get == 3
    except apsw.Error:
        return False
    finally:
        connection.close()
        looked_at.unlink()


def _code(ended: processes.Ended) -> str:
    return "hung" if ended.code is None else str(ended.code)


def _yes(value: bool) -> str:  # noqa: FBT001 - a word for a truth
    return "yes" if value else "no"
