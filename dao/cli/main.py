"""Where the command `dao` starts; what it does is in `dao.cli.group`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # The modules' own objects stay to the end. To look for garbage among them, again and again while they are loaded
    # and once more at the exit, took a fifth of the time of a command that finds nothing to do.
    gc.disable()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing has begun: nobody wants to see where it was
    from dao.cli.group import INTERRUPTED, run

    signal.signal(signal.SIGINT, interrupt)
    gc.freeze()
    gc.enable()
    ended = []

    def end(number: int, _frame: object) -> NoReturn:
        ended.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        # as of Ctrl-C: the snapshot of a run that changed nothing goes. Without this, the first process of a container
        # would not even notice
        signal.signal(signal.SIGTERM, end)
    code = run()
    signal.signal(signal.SIGTERM, before)
    if ended and code == INTERRUPTED:
        os.kill(os.getpid(), signal.SIGTERM)
        code = 128 + signal.SIGTERM  # the first process of a container is still there
    sys.exit(code)
