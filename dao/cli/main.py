"""Where the command `dao` starts; what it does is in `dao.cli.group`."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # The modules' own objects stay to the end. To look for garbage among them, again and again while they are loaded
    # and once more at the exit, took a fifth of the time of a command that finds nothing to do.
    gc.disable()
    from dao.cli.group import run

    gc.freeze()
    gc.enable()
    sys.exit(run())
