"""Child processes: run with a time limit, killed as a group, and none left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import attrs

#: A tool that has not ended by then is killed and reported as hung.
TIME_LIMIT = 60.0

# not a column called error, nor SQLAlchemy's last line, which says where to read on
_NAMES_AN_ERROR = re.compile(r"(error|timeout|exception)\)?:", re.IGNORECASE)
_RUNNING: set[subprocess.Popen[bytes]] = set()
_LOCK = threading.Lock()
_STOPPED = threading.Event()


@attrs.frozen
class Ended:
    """How a command ended. `code` is None if it hung and was killed."""

    code: int | None
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> str:
        """The line of its output that names the error, else the last one."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        named = [line for line in lines if _NAMES_AN_ERROR.search(line)]
        return (named or lines or [""])[-1][:200]


def environment() -> dict[str, str]:
    """Return the environment of the tools: nothing in it that names a database or changes how one is opened."""
    gone = ("DATABASE", "DBMATE", "SQLX", "YOYO", "ALEMBIC", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    return {**kept, "NO_COLOR": "1"}


def run(command: Sequence[str], *, cwd: str, time_limit: float = TIME_LIMIT) -> Ended:
    """Run a command to its end."""
    with _started(command, cwd) as (process, output):
        begun = time.perf_counter()
        code = _wait(process, time_limit)
        return Ended(code, _text(output), time.perf_counter() - begun)


def run_killed(command: Sequence[str], *, cwd: str, after: float) -> Ended:
    """Run a command and kill its process group, unless it ended before."""
    with _started(command, cwd) as (process, output):
        begun = time.perf_counter()
        _wait(process, after)
        return Ended(process.returncode, _text(output), time.perf_counter() - begun)


def run_together(commands: Sequence[Sequence[str]], *, cwd: str, time_limit: float = TIME_LIMIT) -> list[Ended]:
    """Run commands that all wait for one signal and then begin."""
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        # the shell waits for the pipe to close, then becomes the command
        gate = ["/bin/sh", "-c", 'read -r _; exec "$@" </dev/null', "sh"]
        started = [stack.enter_context(_started([*gate, *command], cwd, reading)) for command in commands]
        os.close(reading)
        # they are at the gate by then; that the last is late by a little makes the race only less sharp
        time.sleep(0.02)
        begun = time.perf_counter()
        os.close(writing)
        codes = [_wait(process, max(0.1, begun + time_limit - time.perf_counter())) for process, _ in started]
        seconds = time.perf_counter() - begun
        return [Ended(code, _text(output), seconds) for code, (_, output) in zip(codes, started, strict=True)]


def kill_all() -> None:
    """Kill every process that is still running and start none any more: the program is being stopped."""
    _STOPPED.set()
    with _LOCK:
        for process in _RUNNING:
            _kill(process)


@contextlib.contextmanager
def _started(
    command: Sequence[str], cwd: str, stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], BinaryIO]]:
    """Start a command in a process group of its own; whatever happens, it has ended afterwards."""
    with tempfile.TemporaryFile() as output:
        with _LOCK:
            if _STOPPED.is_set():
                raise KeyboardInterrupt
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(),
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _RUNNING.add(process)
        try:
            yield process, output
        finally:
            _kill(process)
            with _LOCK:
                _RUNNING.discard(process)


def _wait(process: subprocess.Popen[bytes], time_limit: float) -> int | None:
    """Return the exit code, or None if the process had to be killed."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        _signal(process)

    # `wait(timeout)` sleeps up to 50 ms between two looks: too coarse for a clock
    timer = threading.Timer(time_limit, stop)
    timer.start()
    try:
        code = process.wait()
    finally:
        timer.cancel()
    return None if late.is_set() and code == -signal.SIGKILL else code


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _signal(process)
        process.wait()


def _signal(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(output: BinaryIO) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")
