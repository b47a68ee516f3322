"""The loggers of this package, all below `dao`, which has a NullHandler: a program sees of them what it asks for.

`logging` takes 3 ms to load, and is when there is something to log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["logger"]


def logger(name: str) -> Logger:
    """Return a logger of ours."""
    import logging  # noqa: PLC0415 - see above

    root = logging.getLogger("dao")
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    return logging.getLogger(name)
