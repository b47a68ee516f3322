"""The loggers of this package, all below `dao`, which has a NullHandler: a program sees of them what it asks for.

`logging` takes 3 ms to load, and is loaded when there is something to log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Handler, Logger

__all__ = ["handle_by", "is_loaded", "logger"]

_make: Callable[[], Handler] | None = None
_made: Handler | None = None
_known: dict[str, Logger] = {}


def logger(name: str) -> Logger:
    """Return a logger of ours, for which `logging` is asked once: an interruption may leave its lock taken for ever."""
    global _made  # noqa: PLW0603 - logging is the process's, too
    if _made is not None and name in _known:
        return _known[name]
    import logging  # noqa: PLC0415 - see above

    if _made is None:
        _made = logging.NullHandler() if _make is None else _make()
        logging.getLogger("dao").addHandler(_made)
    _known[name] = logging.getLogger(name)
    return _known[name]


def is_loaded() -> bool:
    """Return whether anybody can have asked for more than warnings, who must have loaded `logging` for that."""
    return "logging" in sys.modules


def handle_by(make: Callable[[], Handler]) -> None:
    """Have this make the handler of `dao`, in place of the NullHandler, if and when there is something to log."""
    global _make, _made
    if _made is not None:
        logger("dao").removeHandler(_made)
    _make, _made = make, None
    if is_loaded():
        logger("dao")
