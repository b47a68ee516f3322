"""Other processes, for messages: which one holds SQLite's lock; and yoyo's lock, which no more than a process id is."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from dao import url
from dao.engine import sqlite
from dao.engine.sqlite import Connection, database_file
from dao.errors import DatabaseBusy
from dao.text import visible

__all__ = ["holder", "named", "program_of", "respect_yoyo"]

_SLACK = 1.0  # seconds: `ps` counts whole ones


def holder(path: str) -> str | None:
    """Return the process that holds the write lock of a database file, such as `process 4711 (python3)`.

    None if no process of this machine does, or it cannot be known.
    """
    # 40 ms to import, and hardly ever needed
    import subprocess  # noqa: PLC0415

    try:
        tool = database_file.tool("sqlite3_getlock")
        found = subprocess.run([tool, path], capture_output=True, text=True, timeout=2, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"^(?:WAL-WRITE|RESERVED|PENDING|EXCLUSIVE)\b.* held by ([0-9]+)", found, re.MULTILINE)
    if match is None:
        return None
    pid = int(match[1])
    name = "this one" if pid == os.getpid() else program_of(pid)
    return f"process {pid}" + (f" ({name})" if name else "")


def named(pid: int, host: str | None) -> str:
    """Return the name of a process in messages, such as `process 17 on web-1`; without the host if it is this one."""
    return f"process {pid}" + (f" on {visible(host, line=True)}" if host and host != os.uname().nodename else "")


def program_of(pid: int) -> str:
    """Return the name of the program that a process runs, or nothing; its command line may hold secrets."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return visible(file.read().removesuffix("\n"), line=True)
    except OSError:
        return ""


def respect_yoyo(connection: Connection) -> None:
    """Refuse to go on while a living `yoyo` process holds its own lock, which is a row with its id.

    One that began after the row was written is another that got the same id since, as in a container that starts
    again.

    Raises:
        DatabaseBusy: One does.
    """
    holders: list[Any] = connection.execute("SELECT pid, ctime FROM yoyo_lock").fetchall()
    for pid, since in holders:
        if _is_alive(pid) and not _began_after(pid, since):
            import shlex  # noqa: PLC0415 - as above

            meant = f"sqlite+apsw{str(url.DatabaseURL(path=sqlite.file_of(connection))).removeprefix('sqlite')}"
            raise DatabaseBusy(
                f"a yoyo command (process {pid}) holds its lock on this database: wait for it, or, if process {pid} is "
                f"something else by now, run `yoyo break-lock --database {shlex.quote(meant)}`"
            )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _began_after(pid: int, noted: object) -> bool:
    """Return whether a process began after a time of yoyo's, which is in UTC; not if that cannot be known."""
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    age = _age(pid)
    try:
        moment = datetime.fromisoformat(str(noted)).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return False
    return age is not None and time.time() - age > moment + _SLACK


def _age(pid: int) -> float | None:
    """Return for how many seconds a process has been running, or None if that cannot be known."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # it shows the processes of another container, or of its host
        # not by the time of the boot, of which a container may be told another
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        pass
    import subprocess  # noqa: PLC0415 - as above

    try:
        told = subprocess.run(
            ["ps", "-o", "etime=", "-p", str(pid)], capture_output=True, text=True, timeout=2, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.fullmatch(r"(?:(?:([0-9]+)-)?([0-9]+):)?([0-9]+):([0-9]+)", told.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
