"""Numbers, names and pages in messages, as people read them."""

from __future__ import annotations

import os

__all__ = ["brief", "counted", "manual", "milliseconds", "readable", "visible"]


def counted(number: int | None, noun: str) -> str:
    """Return a number with its noun, as `1 row` and `2 rows`; None is a number that is not known."""
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"


def milliseconds(seconds: float) -> str:
    """Return a duration: in milliseconds below a second."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def brief(seconds: float) -> str:
    """Return a duration in the largest whole unit, as `3d`, `12h`, `5m` and `42s`: the command line takes them so."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def readable(size: int) -> str:
    """Return a number of bytes in the largest unit of which there is one."""
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def manual(name: str) -> str:
    """Return the path of a page of `docs/` for a message: in a checkout, or in the package that is installed."""
    package = os.path.dirname(os.path.abspath(__file__))
    shipped = os.path.join(package, "docs")
    return os.path.join(shipped if os.path.isdir(shipped) else os.path.join(os.path.dirname(package), "docs"), name)


def visible(text: str, *, line: bool = False) -> str:
    """Return a text with escapes for control characters, writing directions included; with `line`, for line ends."""
    if text.isprintable():
        return text
    import re  # noqa: PLC0415 - for what is rare

    unseen = (
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff" + "\t\n" * line + "]"
    )
    return re.sub(unseen, lambda found: found[0].encode("unicode_escape").decode(), text)
