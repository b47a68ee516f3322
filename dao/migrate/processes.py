"""Other processes: which one holds the lock that a migration waits for, and whether one is alive."""

from __future__ import annotations

import os
import re
from typing import Any

from dao.engine import Connection
from dao.engine.sqlite import database_file
from dao.errors import DatabaseBusy, visible

__all__ = ["holder", "is_alive", "respect_yoyo"]


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
    name = "this one" if pid == os.getpid() else _name(pid)
    return f"process {pid}" + (f" ({name})" if name else "")


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def respect_yoyo(connection: Connection) -> None:
    """Refuse to go on while a living `yoyo` process holds its own lock, which is a row.

    Raises:
        DatabaseBusy: One does.
    """
    holders: list[Any] = connection.execute("SELECT pid FROM yoyo_lock").fetchall()
    for (pid,) in holders:
        if is_alive(pid):
            raise DatabaseBusy(
                f"a yoyo command (process {pid}) holds its lock on this database: wait for it, or, if it is of another "
                "machine and gone, run `yoyo break-lock`"
            )


def _name(pid: int) -> str:
    """Return the name of a process; its command line may hold secrets."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return visible(file.read().removesuffix("\n"), line=True)
    except OSError:
        return ""
