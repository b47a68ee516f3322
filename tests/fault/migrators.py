"""Processes that migrate a database, to be killed or started at once.

Run as a program, this is a server that has imported everything already and forks a process for each request: one costs
a few milliseconds instead of the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import Any, Self

NOTHING_TO_DO, DONE, FAILED = 0, 10, 1


class Migrators:
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
        assert self.wait(pid) == -signal.SIGKILL

    def wait(self, pid: int) -> int:
        """Wait for such a process and return its exit code, or minus the signal that ended it."""
        return self._ask("wait", pid)

    def _ask(self, *request: Any) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def to_and_fro(url: str, folder: str, *, each: bool) -> int:
    """Apply everything and undo it, for ever."""
    from dao import migrate

    while True:
        migrate.apply(url, folder, each=each)
        migrate.rollback(url, folder, steps=None, each=each)


def all_at_once(url: str, folder: str) -> int:
    """Apply everything and undo it, for ever, each in one transaction."""
    return to_and_fro(url, folder, each=False)


def one_by_one(url: str, folder: str) -> int:
    """Apply everything and undo it, for ever, each migration in a transaction."""
    return to_and_fro(url, folder, each=True)


def by_yoyo(url: str, folder: str) -> int:
    """Apply everything and undo it, for ever, with the stock command on our backend."""
    from yoyo.scripts.main import main

    options = ["--batch", "--no-config-file", "--database", url.replace("sqlite:", "sqlite+apsw:")]
    while True:
        main(["apply", *options, folder])
        main(["rollback", "--all", *options, folder])


def apply_at(moment: float, url: str, folder: str) -> int:
    """Apply everything at a moment, and return whether there was anything to do."""
    from dao import migrate

    while time.time() < moment:
        pass
    return DONE if migrate.apply(url, folder) else NOTHING_TO_DO


def yoyo_apply_at(moment: float, url: str, folder: str) -> int:
    """Apply everything at a moment with the stock command on our backend."""
    from yoyo.scripts.main import main

    while time.time() < moment:
        pass
    code = main(["apply", "--batch", "--no-config-file", "--database", url.replace("sqlite:", "sqlite+apsw:"), folder])
    return FAILED if code else DONE


def _serve() -> None:
    import yoyo.scripts.main

    import dao.migrate.backend

    assert yoyo, dao
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
    code = FAILED
    try:
        code = job(*arguments)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as the server
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
