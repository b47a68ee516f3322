"""Processes that change a database, to be killed or started at once.

Run as a program, this is a server that has imported everything already and forks a process for each request: one costs
a few milliseconds instead of the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Self


class Migrators:
    """The server, for a `with` block. What its processes write to standard error is in a file of this folder."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "errors"

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def start(self, job: str, *arguments: Any) -> int:
        """Begin a job, one of the functions below, in a process of its own, and return its id."""
        return self._ask(job, *arguments)

    def kill(self, pid: int) -> bool:
        """Kill such a process with SIGKILL; return whether it was still running. If not, it must have succeeded."""
        os.kill(pid, signal.SIGKILL)
        code = self.wait(pid)
        assert code in {0, -signal.SIGKILL}, self.errors()
        return code != 0

    def wait(self, pid: int) -> int:
        """Wait for such a process and return its exit code, or minus the signal that ended it."""
        return self._ask("wait", pid)

    def errors(self) -> str:
        """Return what all such processes have written to standard error."""
        return self._errors.read_text()

    def _ask(self, *request: Any) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


# ---------------------------------------------------------------- jobs


def apply(url: str, folder: str, to: str, *options: str) -> None:
    """Apply what is pending up to a migration."""
    from dao import migrate

    migrate.apply(url, folder, to=to, each="each" in options)


def rollback(url: str, folder: str, to: str, *options: str) -> None:
    """Undo what came after a migration."""
    from dao import migrate

    migrate.rollback(url, folder, to=to, each="each" in options)


def yoyo_apply(url: str, folder: str, *_options: str) -> None:
    """Apply everything with the stock command on our backend."""
    yoyo_apply_at(0, url, folder)


def take(url: str, *_options: str) -> None:
    """Take a snapshot."""
    from dao import migrate

    migrate.take_snapshot(url)


def restore(url: str, _folder: str, snapshot: str) -> None:
    """Restore a snapshot."""
    from dao import migrate

    migrate.restore(url, Path(snapshot))


def copy(source: str, target: str, *_options: str) -> None:
    """Copy all rows into another database."""
    import dao

    dao.copy(source, target)


def dying(after: int, job: str, *arguments: Any) -> None:
    """Do a job and die, as of SIGKILL, when so many writes, syncs and removals of files have been done."""
    import apsw

    left = after

    def spend() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    class File(apsw.VFSFile):
        def xWrite(self, data, offset):  # noqa: N802 - SQLite's names, here and below
            spend()
            super().xWrite(data, offset)

        def xSync(self, flags):  # noqa: N802
            spend()
            super().xSync(flags)

        def xTruncate(self, size):  # noqa: N802
            spend()
            super().xTruncate(size)

    class System(apsw.VFS):
        def xOpen(self, name, flags):  # noqa: N802
            return File("unix", name, flags)

        def xDelete(self, name, sync):  # noqa: N802
            spend()
            super().xDelete(name, sync)

    def spending(function: Any) -> Any:
        def spend_first(*arguments: Any, **options: Any) -> Any:
            spend()
            return function(*arguments, **options)

        return spend_first

    system = System("dying", "unix", makedefault=True)
    # copies are written by their descriptors
    for name in ("fsync", "ftruncate", "pwrite", "rename", "unlink"):
        setattr(os, name, spending(getattr(os, name)))
    globals()[job](*arguments)
    system.unregister()


def command_at(moment: float, output: str, *arguments: str) -> None:
    """Run the command `dao` at a moment; what it prints, errors too, goes to a file."""
    from dao.cli.main import main

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["dao", *arguments]
    _wait_until(moment)
    main()


def yoyo_apply_at(moment: float, url: str, folder: str) -> None:
    """Apply everything at a moment with the stock command on our backend."""
    from yoyo.scripts.main import main

    _wait_until(moment)
    main(["apply", "--batch", "--no-config-file", "--database", url.replace("sqlite:", "sqlite+apsw:"), folder])


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


# ---------------------------------------------------------------- the server


def _serve() -> None:
    _import_everything()
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


def _import_everything() -> None:
    """Do once all that the processes will do: what is loaded when it is first needed is loaded then."""
    import yoyo.scripts.main

    import dao.cli.group
    import dao.engine.postgresql
    import dao.migrate.run.postgresql
    import dao.transfer
    from dao import migrate

    assert yoyo, dao
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/new.db"
        migrate.apply(url)
        migrate.restore(url, migrate.take_snapshot(url).id)
        migrate.rollback(url)


def _work(job: Any, arguments: list[Any]) -> None:
    code = 1
    try:
        job(*arguments)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
