"""A PostgreSQL server that ends with the last of its users, however that one ends.

Run as a program of its own: `supervisor.py FOLDER`. Its users are the connections to it: the socket that it was given
as its standard input, and those made to FOLDER/control. Each is greeted with a line, and may then ask, a line of JSON a
time, for what `COMMANDS` has. When the last of them is gone, the server is stopped and the folder removed: a user that
is killed closes its connection like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: How long an immediate stop may take before the server is killed, in seconds.
PATIENCE = 10


class Supervisor:
    """The server's parent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.mounted: list[Path] = []

    def start(self, command: list[str], user: int | None) -> dict[str, Any]:
        """Start the server, which is not ready then."""
        if self.process is not None and self.process.poll() is None:
            return {"pid": self.process.pid}
        rights: dict[str, Any] = {} if user is None else {"user": user, "group": _group(user), "extra_groups": []}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, **rights
            )
        return {"pid": self.process.pid}

    def stop(self, number: int) -> dict[str, Any]:
        """Send the server a signal that ends it, and wait for that."""
        if self.process is None:
            return {"status": None}
        if self.process.poll() is None:
            self.process.send_signal(number)
        return {"status": self.process.wait()}

    def mount(self, name: str, size: int, user: int | None) -> dict[str, Any]:
        """Make a folder in the server's one that holds so many bytes and no more."""
        path = self.folder / name
        path.mkdir()
        self.mounted.append(path)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"error": done.stderr.strip()}
        if user is not None:
            os.chown(path, user, -1)
        return {"path": str(path)}

    def status(self) -> dict[str, Any]:
        """Tell whether the server is running, or how it ended."""
        return {"status": None if self.process is None else self.process.poll()}

    def end(self) -> None:
        """Stop the server, which loses nothing that anybody wants, and remove all it had."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                self.signal_all(signal.SIGCONT)  # one that is stopped is waited for
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(PATIENCE)
        self.signal_all(signal.SIGKILL)  # a stopped one does not notice that the postmaster was killed
        if self.process is not None:
            self.process.wait()
        for path in self.mounted:
            subprocess.run(["umount", str(path)], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def signal_all(self, number: int) -> None:
        """Send a signal to whatever processes of the server there are."""
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(link)) == self.folder / "data":
                    os.kill(int(link.parent.name), number)


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "start": Supervisor.start,
    "stop": Supervisor.stop,
    "status": Supervisor.status,
    "mount": Supervisor.mount,
}


def _group(user: int) -> int:
    import pwd

    return pwd.getpwuid(user).pw_gid


def serve(supervisor: Supervisor, first: socket.socket) -> None:
    """Do what the users ask for, until there is none."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(supervisor.folder / "control"))
    listener.listen(64)
    users = [first]
    first.sendall(b"{}\n")
    while users:
        for ready in select.select([listener, *users], [], [])[0]:
            if ready is listener:
                users.append(_greeted(listener))
            elif not _served(supervisor, ready):
                users.remove(ready)
                ready.close()
        if not users:  # nobody finds it any more; somebody may have come just now
            (supervisor.folder / "control").unlink(missing_ok=True)
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    users.append(_greeted(listener))
            listener.setblocking(True)
    listener.close()


def _greeted(listener: socket.socket) -> socket.socket:
    user = listener.accept()[0]
    user.setblocking(True)
    with contextlib.suppress(OSError):
        user.sendall(b"{}\n")
    return user


def _served(supervisor: Supervisor, user: socket.socket) -> bool:
    """Do what one of the users asks for; return whether it is still there."""
    try:
        asked = user.makefile("rb").readline()
        if not asked:
            return False
        name, *arguments = json.loads(asked)
        try:
            answer = COMMANDS[name](supervisor, *arguments)
        except OSError as error:
            answer = {"error": str(error)}
        user.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        return False
    return True


def main() -> None:
    """Supervise."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the users decide
        signal.signal(number, signal.SIG_IGN)
    supervisor = Supervisor(Path(sys.argv[1]))
    try:
        serve(supervisor, socket.socket(fileno=sys.stdin.fileno()))
    finally:
        supervisor.end()


if __name__ == "__main__":
    main()
