"""The threads of asynchronous connections: which are open, and how they end with the process."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["OPEN", "Worker", "abandon", "warn_unclosed"]


class Worker(Protocol):
    """The thread of a connection. `path` names the database."""

    path: str

    def abandon(self) -> None:
        """Interrupt the call that is running, run none of those that wait, and end the thread."""

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, for so long at the most."""


#: The threads of connections that nobody has closed.
OPEN: set[Worker] = set()


def abandon(connections: Iterable[Any]) -> None:
    """End the threads of connections whose loop has ended."""
    for connection in connections:
        worker: Worker = connection.async_controller
        worker.abandon()


def warn_unclosed(path: str) -> None:
    """Warn of a database whose connections were not closed."""
    warnings.warn(
        f"{path}: asynchronous connections were not closed; use `async with` or `await pool.aclose()`",
        ResourceWarning,
        stacklevel=2,
    )


def _at_exit() -> None:
    workers = list(OPEN)
    for path in sorted({worker.path for worker in workers}):
        warn_unclosed(path)
    for worker in workers:
        worker.abandon()
    for worker in workers:
        worker.join(1.0)  # what it does even then is undone: when the file is next opened, or by the server


# after all other threads have ended, so that a loop in one of them is served to its end
atexit.register(_at_exit)
os.register_at_fork(after_in_child=OPEN.clear)
