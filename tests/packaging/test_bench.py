"""The benchmark runs: what it measures is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_bench_small_run_measures_every_contender():
    """A run of a few rows gives a time for each contender of each operation, and for each import."""
    command = [sys.executable, "-m", "bench", "--rows", "20", "--repeat", "5", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert len(measured["operations"]) == 6
    for times in measured["operations"].values():
        assert times.keys() == {"dao", "apsw", "sqlite3"}
        assert all(seconds > 0 for seconds in times.values())
    assert {"dao", "apsw", "yoyo"} <= measured["imports"].keys()
