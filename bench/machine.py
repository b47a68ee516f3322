"""What a run was made on: the machine and the versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import apsw


def describe() -> dict[str, str | int]:
    """Return the machine: processor, cores, system, Python."""
    known = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)", known.read_text("utf-8"), re.MULTILINE) if known.exists() else None
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of both SQLites and of the distributions that are installed."""
    found = {"SQLite of apsw": apsw.sqlite_lib_version(), "SQLite of sqlite3": sqlite3.sqlite_version}
    for name in sorted(set(distributions), key=str.lower):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
