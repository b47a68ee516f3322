"""What importing costs: each dependency, and dao, over an empty interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODULES = (
    "apsw",
    "attrs",
    "msgspec",
    "uuid_utils",
    "click",
    "cattrs",
    "dotenv",
    "rich.console",
    "yoyo",
    "dao.migrate",
    "dao",
)
_ROOT = Path(__file__).parents[1]


def measure(rounds: int, modules: Sequence[str] = MODULES) -> dict[str, Any]:
    """Return the milliseconds that each import adds, and whether `import dao` loads yoyo."""
    # compiled modules count as they would where the package is installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def start(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=_ROOT)
        return time.perf_counter() - begun

    times: dict[str, list[float]] = {name: [] for name in ("", *modules)}
    for name in modules:
        start(f"import {name}")
    for _ in range(rounds):
        for name, measured in times.items():
            measured.append(start(f"import {name}" if name else "pass"))
    empty = times.pop("")
    added = {
        name: statistics.median(own - none for own, none in zip(measured, empty, strict=True)) * 1000
        for name, measured in times.items()
    }
    code = "import dao, sys; sys.exit('yoyo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, cwd=_ROOT)
    return {"milliseconds": added, "empty": statistics.median(empty) * 1000, "dao_loads_yoyo": bool(done.returncode)}
