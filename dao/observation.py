"""What somebody began who wants to be told of something, and ends again: of calls, or of what a pool does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from dao.logs import logger

__all__ = ["Observation"]


class Observation:
    """An observer at work. `end` ends it, as does the end of the block of `with dao.observe(…)`."""

    def __init__(self, observer: Callable[..., object], end: Callable[[Observation], object]) -> None:
        """Take the observer, and what is called with this to end it.

        Raises:
            TypeError: The observer cannot be called.
        """
        if not callable(observer):
            raise TypeError(f"an observer is a function, got {observer!r}")
        self._observer = observer
        self._end = end
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Tell the observer nothing more. Safe to repeat."""
        self._end(self)

    def tell(self, *what: Any) -> None:
        """Tell the observer of something; what it raises is logged at the first time, and harms nobody."""
        try:
            self._observer(*what)
        except Exception:  # noqa: BLE001 - it is logged
            if not self._failed:
                self._failed = True
                logger("dao.observing").exception(
                    "the observer %r failed; it is told of more, and its further errors are not logged", self._observer
                )
