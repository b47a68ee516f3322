"""Ids of migrations: how they are written, what they sort by, and what other tools call them."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["TOOLS", "normal", "number", "number_text", "sort_key", "version"]

#: The tools whose ledger can be taken over, and whose versions `version` knows.
TOOLS = ("sqlx", "dbmate", "goose", "golang-migrate", "diesel", "flyway", "alembic", "yoyo")

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:-([0-9]{6}))?(?:-([0-9]+))?(?=_|$)")
_FLYWAY_NUMBER = re.compile(r"V([0-9]+(?:[._][0-9]+)*)(?=__|$)")


def normal(name: str) -> str:
    """Return a name in Unicode's form NFC: between macOS and Linux a file's name may change to another form."""
    return unicodedata.normalize("NFC", name)


def sort_key(id: str) -> tuple[bool, tuple[int, ...], str]:
    """Return the key by which ids sort: by their leading numbers, those without one last, then by their text."""
    parts = number(id)
    return parts is None, parts or (), id


def number(id: str) -> tuple[int, ...] | None:
    """Return the number that an id begins with, by which it sorts, in parts: (1, 10) for `1.10_a`; None without one.

    A date is one number, whichever way it is written: `2025-01-15-010000_a` is `20250115010000_a`. An id of Flyway's
    has its number after the V, where underscores part it too.
    """
    if match := _DATE.match(id):
        year, month, day, time, counter = match.groups()
        return (int(f"{year}{month}{day}{time or '000000'}"), *([] if counter is None else [int(counter)]))
    text = number_text(id)
    return None if text is None else tuple(int(part) for part in re.findall(r"[0-9]+", text))


def number_text(id: str) -> str | None:
    """Return the number that an id begins with as it is written there, without Flyway's V; None without one."""
    match = _DATE.match(id) or _FLYWAY_NUMBER.match(id) or _NUMBER.match(id)
    return None if match is None else match[0].removeprefix("V")


def version(id: str, tool: str) -> str | None:
    """Return what a tool's own ledger calls the migration; None if the tool would not take it for one.

    Leading zeros, and Flyway's trailing `.0`, are left out where the tool does not tell them apart.
    """
    match tool:
        case "diesel":
            return id.partition("_")[0].replace("-", "") or None
        case "dbmate":
            found = re.match(r"[0-9]+", id)
            return found and found[0]
        case "flyway":
            parts = list(number(id) or ()) if _FLYWAY_NUMBER.match(id) else []
            while len(parts) > 1 and parts[-1] == 0:
                del parts[-1]
            return ".".join(map(str, parts)) or None
        case "sql-migrate":
            return id
        case _:
            found = re.match(r"([0-9]+)_", id)
            return found and str(int(found[1]))
