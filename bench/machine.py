"""What a run was made on: the machine and the versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterable

import apsw


def describe() -> dict[str, str | int]:
    """Return the machine: processor, cores, memory, kernel, Python."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of both SQLites and of the distributions that are installed."""
    found = {"SQLite of apsw": apsw.sqlite_lib_version(), "SQLite of sqlite3": sqlite3.sqlite_version}
    for name in sorted(set(distributions), key=str.lower):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _field(path: str, name: str) -> str:
    """Return the first value of a field in one of the kernel's lists, or "" where there is none."""
    try:
        with open(path, encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
    except OSError:
        return ""
