"""What a look at one thing found, what that means, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import attrs

from dao.engine import Connection

__all__ = ["Finding", "Look", "Severity", "cannot_tell", "error", "note", "ok", "warning"]

#: `error`: rows may get lost, or programs cannot work. `warning`: that is near. `note`: worth knowing.
Severity = Literal["ok", "note", "warning", "error"]


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was looked at. `check` is its name; `means` and `advice` are None where all is well.

    `found` is what there is, `means` why that matters, `advice` what to do.
    """

    check: str
    severity: Severity
    found: str
    means: str | None = None
    advice: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as a dict, for any JSON encoder."""
        return attrs.asdict(self)


#: What a connection is asked for.
Look = Callable[[Connection], Iterator[Finding]]


def ok(check: str, found: str) -> Finding:
    """Return that all is well with something."""
    return Finding(check=check, severity="ok", found=found)


def note(check: str, found: str, means: str, advice: str | None = None) -> Finding:
    """Return what is worth knowing."""
    return Finding(check=check, severity="note", found=found, means=means, advice=advice)


def warning(check: str, found: str, means: str, advice: str) -> Finding:
    """Return what may become an error."""
    return Finding(check=check, severity="warning", found=found, means=means, advice=advice)


def error(check: str, found: str, means: str, advice: str) -> Finding:
    """Return what has to be mended."""
    return Finding(check=check, severity="error", found=found, means=means, advice=advice)


def cannot_tell(check: str, reason: Exception | str) -> Finding:
    """Return that something could not be looked at, and why."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return note(check, f"cannot be told: {text}", "this was not looked at")
