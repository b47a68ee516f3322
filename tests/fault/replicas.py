"""Processes that migrate one database at the same time: one in the middle of a run, and others that wait for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.concurrency import PATIENCE

#: Applies what is pending; before each script it prints a line, and goes on when it has read one.
HOLDER = """
import sys
from dao import migrate
def report(event):
    if isinstance(event, migrate.Started):
        print(event.step.id, flush=True)
        sys.stdin.readline()
migrate.apply(sys.argv[1], sys.argv[2], report=report, snapshots=0)
"""


@contextlib.contextmanager
def holding(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a process in the middle of a run: before its first script, or outside of a transaction."""
    command = [sys.executable, "-c", HOLDER, url, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


class Replica:
    """The command `dao` in a process of its own, and what it says."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dao", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.errors = ""

    def until_it_waits(self) -> None:
        """Return once it has said that it waits."""
        assert self.process.stderr is not None
        while "waiting for the lock" not in self.errors:
            line = self.process.stderr.readline()
            assert line, self.errors
            self.errors += line

    def end(self, patience: float = PATIENCE) -> tuple[int, str]:
        """Return its exit code and its output."""
        out, errors = self.process.communicate(timeout=patience)
        self.errors += errors
        return self.process.returncode, out
