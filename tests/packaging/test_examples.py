"""The examples run as they stand, as an application of somebody else's would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dao
from dao.testing import make_task, make_tool_execution

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing but these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "PYTEST_"))} | more


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 3])
def test_script_shows_a_database_and_changes_nothing(database, rows):
    """It runs with warnings as errors, on an empty database too, as a script does that is a notebook at other times."""
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as connection:
        for number in range(rows):
            dao.tasks.create(connection, make_task(title=f"Number {number}"))
            dao.tool_executions.record(connection, make_tool_execution(tool_name="grep", status="completed"))
        before = connection.execute("PRAGMA data_version").fetchall()
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / "script.py"],
            cwd=database.parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert connection.execute("PRAGMA data_version").fetchall() == before
    assert [f"Number {number}" in done.stdout for number in range(3)] == [number < rows for number in range(3)]
    assert ("grep" in done.stdout, "ready" in done.stdout) == (rows > 0, rows > 0)
