"""How names are compared and quoted, and which are the ledger's."""

from __future__ import annotations

__all__ = ["COPY", "OURS", "TABLES", "fold", "is_internal", "is_ours", "quoted"]

#: The tables that hold the ledger: yoyo's, and those of ours; and the mark of a copy that has not ended (`dao.copy`).
OURS = ("_dao_migration", "_dao_history", "_dao_schema")
COPY = "_dao_copy"
TABLES = ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock", *OURS, COPY)
_LEDGER = frozenset(TABLES)
_UPPER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def fold(name: str) -> str:
    """Return a name as SQLite compares it: letters of ASCII in lower case, and only those."""
    return name.lower() if name.isascii() else name.translate(_UPPER)


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def is_ours(name: str) -> bool:
    """Return whether a table is one of the ledger's."""
    return fold(name) in _LEDGER


def is_internal(name: str) -> bool:
    """Return whether something is the ledger's or SQLite's own, by its name."""
    folded = fold(name)
    return folded.startswith("sqlite_") or folded in _LEDGER
