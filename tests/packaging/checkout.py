"""The checkout: its scripts and how to call them, its targets of make, and the blocks of code in its documents."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.concurrency import PATIENCE

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# what each script runs
SCRIPTS = {
    "check-migrations": "verify",
    "health": "health",
    "init-db": "init",
    "migrate": "migrate",
    "new-migration": "new",
    "plan": "plan",
    "prune": "prune",
    "rehearse": "rehearse",
    "replicate": "replicate",
    "reset-db": "reset",
    "restore": "restore",
    "restore-replica": "restore-replica",
    "rollback": "rollback",
    "snapshot": "snapshot",
    "status": "status",
    "wait-for-db": "wait",
}
SYSTEM = "/usr/bin:/bin"


def call(
    *command: object, cwd: Path, path: str = SYSTEM, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing but a PATH in its environment."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": path, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def phony() -> list[str]:
    """Return the targets, in the order of the Makefile."""
    return re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line on which that begins."""

    language: str
    text: str
    line: int


@functools.cache
def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    found = re.finditer(r"^```([\w{}-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1) for match in found]


def shown(block: Block) -> list[str]:
    """Return the lines of a block for a shell, without comments."""
    lines = [] if block.language == "python" else block.text.splitlines()
    return [re.sub(r"^\$ |\s+#.*$", "", line).strip() for line in lines]
