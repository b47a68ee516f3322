"""Processes that take and restore snapshots, to be killed.

Run as a program, this is a server that has imported everything already and forks a process for each request.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from typing import Any, Self


class Restorers:
    """The server, for a `with` block."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def start(self, job: str, *arguments: Any) -> int:
        """Begin a job, one of the functions below, in a process of its own, and return its id."""
        return self._ask(job, *arguments)

    def kill(self, pid: int) -> None:
        """Kill such a process with SIGKILL; that it was still running is part of what is promised."""
        os.kill(pid, signal.SIGKILL)
        assert self._ask("wait", pid) == -signal.SIGKILL

    def _ask(self, *request: Any) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def to_and_fro(url: str, one: str, other: str) -> None:
    """Restore one snapshot and the other, for ever."""
    from pathlib import Path

    from dao.migrate.restoration import restore

    while True:
        for source in (one, other):
            restore(url, Path(source), keep=2)


def taking(url: str, _one: str, _other: str) -> None:
    """Take snapshots, for ever."""
    from dao.migrate.snapshot import take_snapshot

    while True:
        take_snapshot(url, keep=2)


def making_anew(url: str, one: str, other: str) -> None:
    """Remove the database and restore a snapshot, for ever."""
    from pathlib import Path

    from dao import url as urls
    from dao.migrate.restoration import restore

    while True:
        for source in (one, other):
            for suffix in ("-wal", "-shm", "-journal", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(urls.parse(url).path + suffix)
            restore(url, Path(source), keep=2)


def _serve() -> None:
    import apsw.sqlite_extra

    import dao.migrate.restoration

    assert dao, apsw
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        if job == "wait":
            _, status = os.waitpid(arguments[0], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _work(globals()[job], arguments)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _work(job: Any, arguments: list[Any]) -> None:
    try:
        job(*arguments)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as the server
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    _serve()
