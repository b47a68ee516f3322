"""What somebody waits for that runs in another thread: in that of the writer, or of an asynchronous connection."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dao.transactions import done

__all__ = ["Call"]


class Call:
    """A function that waits for its turn. `ended` is where its caller waits for the end, of its commit, too.

    It runs with the context variables of its caller.
    """

    __slots__ = ("arguments", "begun", "context", "ended", "error", "function", "keywords", "left", "result")

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any], ended: Any
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.ended = ended
        self.context = contextvars.copy_context()
        self.begun = self.left = False
        self.result: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """Return what the function returned, or raise what went wrong."""
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            self.error = None  # or the error's traceback would hold this frame, and this frame the error

    def make(self, *given: Any) -> None:
        """Call the function, with what is given before the arguments, and keep what it returns or raises."""
        try:
            self.result = done(self.context.run(self.function, *given, *self.arguments, **self.keywords))
        except BaseException as error:  # noqa: BLE001 - its caller gets it
            self.error = error
