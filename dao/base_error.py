"""What all errors of this package have: their text, their JSON, and how they are copied. The errors are in `errors`."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from typing import Any

from dao.text import visible

__all__ = ["Error"]


class Error(Exception):
    """Base of all errors of this package: `except dao.Error` catches all that this package raises on purpose.

    Its text is the message, then, on lines of their own, the `.details` (texts or objects), the `.committed` (ids of
    the migrations that are committed and stay, `SET/ID` where several sets are named, `()` if nothing was changed, None
    where that is not the question) and the `.advice`. Control characters of names are escapes there, since logs and
    terminals would obey them; attributes have the names as they are. Pickled or copied, it keeps message and
    attributes; its cause, often the driver's, stays behind.
    """

    __module__ = "dao.errors"  # where it is imported from
    _indent = "  "

    def __init__(self, message: str = "", *, details: Iterable[object] = (), advice: str | None = None) -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.committed: tuple[str, ...] | None = None
        self.advice = advice

    def __str__(self) -> str:
        lines = [super().__str__(), *(f"{self._indent}{detail}" for detail in self.details)]
        if self.committed:
            lines.append(f"These stay committed: {', '.join(self.committed)}.")
        elif self.committed is not None:
            lines.append("Nothing was changed.")
        text = "\n".join([*lines, self.advice] if self.advice else lines)
        for attribute, value in vars(self).items():
            for name in value if isinstance(value, tuple) else (value,):
                if isinstance(name, str) and "\n" in name and attribute not in {"details", "advice"}:
                    text = text.replace(name, visible(name, line=True))  # it would pass for a line of ours
        return visible(text)

    def to_dict(self) -> dict[str, Any]:
        """Return its class's name as `type`, its text as `message`, and its attributes, for any JSON encoder."""
        found: dict[str, Any] = {"type": type(self).__name__, "message": str(self)}
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                found[name] = [str(item) for item in value]
            elif not name.startswith("_"):  # notes
                found[name] = value if isinstance(value, int | str | None) else str(value)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception's own would call the class with the message alone, and the keywords below have no defaults
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined] # not in the stubs
