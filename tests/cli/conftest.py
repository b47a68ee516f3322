"""The command line, called in this process or at a terminal, in a working directory with migrations and no database."""

from __future__ import annotations

import logging
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import dao
from dao import logs, migrate
from dao.cli.main import main
from tests.cli.calls import Outcome, documented
from tests.concurrency import PATIENCE
from tests.folders import THREE, query, write

Run = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three migrations that make the tables a, b and c."""
    return write(tmp_path / "three", THREE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "orchestrator.db"


@pytest.fixture
def workplace(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the default database is to be there, and the three migrations are those in use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_MIGRATIONS", folder.name)
    return tmp_path


@pytest.fixture
def run(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `dao` in this process: `run("migrate", "--to", "0002")`."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dao", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:  # what a command sets for its process
            logs.handle_by(logging.NullHandler)
            dao.log_slow_statements(None)
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        assert "Traceback" not in out + err
        return Outcome(end.value.code, out, err, documented([*map(str, arguments)]))

    return call


@pytest.fixture(scope="session")
def two_applied(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database in which two of the three migrations are applied, made once."""
    folder = tmp_path_factory.mktemp("partly")
    migrate.apply(f"sqlite:///{folder}/partly.db", write(folder / "three", THREE), to="0002_b")
    return (folder / "partly.db").read_bytes()


@pytest.fixture
def existing(tmp_path: Path, template: Path) -> Path:
    """The path of another database, made without migrations, beside a folder for its own, `begun`.

    Beside it are two with this package's tables, to be copied: `source.db` and `target.db`.
    """
    for name in ("source.db", "target.db"):
        (tmp_path / name).write_bytes(template.read_bytes())
    (tmp_path / "begun").mkdir()
    path = tmp_path / "existing.db"
    query(path, "CREATE TABLE there (id INTEGER PRIMARY KEY)")
    return path


@pytest.fixture
def partly(path: Path, two_applied: bytes) -> Path:
    """The path of a database in which two of the three migrations are applied."""
    path.write_bytes(two_applied)
    return path


class Terminal:
    """A process with a terminal of its own: what it showed so far, and keys to press."""

    def __init__(self, arguments: Sequence[str], *, environ: Mapping[str, str], stdout: int | None = None) -> None:
        """Start it; `stdout` is a file descriptor if the results go elsewhere."""
        self.shown = ""
        self._screen, theirs = pty.openpty()
        command = [sys.executable, "-m", "dao", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _AT_TERMINAL, *command],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env=environ,
            start_new_session=True,
        )
        os.close(theirs)

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._screen, keys.encode())

    def until(self, text: str) -> None:
        """Wait until the text is on the screen."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            assert self._read(), self.shown

    def interrupt(self, answer: str = "error: interrupted") -> None:
        """Press Ctrl-C until it is answered: one that comes just before a read begins goes unnoticed by Python."""
        end = time.monotonic() + PATIENCE
        while answer not in self.shown:
            self.press("\x03")
            while answer not in self.shown and self._ready(1) and self._read():
                assert time.monotonic() < end, self.shown

    def close(self) -> int:
        """Wait for the end and return the exit code."""
        end = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < end, self.shown
        os.close(self._screen)
        return self.process.wait(PATIENCE)

    def _ready(self, timeout: float) -> bool:
        return bool(select.select([self._screen], [], [], timeout)[0])

    def _read(self) -> bool:
        """Read what is new on the screen and return whether anything more may come."""
        if not self._ready(PATIENCE):
            return False
        try:
            new = os.read(self._screen, 65536)
        except OSError:  # what Linux says at the end
            new = b""
        self.shown += new.decode(errors="replace").replace("\r\n", "\n")
        return bool(new)


# Makes the terminal the process's own, so that Ctrl-C on it is a signal.
_AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def terminal(workplace: Path) -> Iterator[Callable[..., Terminal]]:
    """Start `dao` at a terminal: `terminal("reset")`; keyword arguments go into its environment."""
    started: list[Terminal] = []

    def start(*arguments: str, stdout: int | None = None, **environ: str) -> Terminal:
        environ = {**os.environ, "TERM": "xterm-256color", **environ}
        started.append(Terminal(arguments, environ=environ, stdout=stdout))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:  # the test failed
            one.process.kill()
            one.process.wait(PATIENCE)
