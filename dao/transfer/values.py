"""What a copy tells while it runs, and when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from dao.migrate import Event
from dao.text import visible

__all__ = ["Copied", "CopiedTable", "Moved", "RefusedRow", "Report"]


@attrs.frozen(kw_only=True)
class CopiedTable:
    """A table of this package: `rows` of the source, and how many of them an earlier run had copied already (`kept`).

    `hash` is the SHA-256 of the rows, the same for source and target, whichever engines they are of: each row a line of
    JSON, its columns in the order of the record's fields, in order of their keys. None in a dry run.
    """

    name: str
    rows: int
    kept: int = 0
    hash: str | None = None


@attrs.frozen(kw_only=True)
class Copied:
    """What a copy did, or would do in a dry run. `seconds` is how long it took.

    `left_out` names the tables of the source that are not this package's: they were not copied.
    """

    source: str
    target: str
    tables: tuple[CopiedTable, ...]
    left_out: tuple[str, ...] = ()
    seconds: float

    @property
    def rows(self) -> int:
        """How many rows all tables have together."""
        return sum(table.rows for table in self.tables)


@attrs.frozen
class Moved:
    """So many rows of a table, of so many, are compared with those of an earlier run, copied, or read back."""

    doing: Literal["comparing", "copying", "verifying"]
    table: str
    done: int
    total: int


@attrs.frozen
class RefusedRow:
    """A row that cannot be read, or that the target does not store, by its table and key, and why."""

    table: str
    key: tuple[object, ...]
    reason: str

    def __str__(self) -> str:
        key = self.key[0] if len(self.key) == 1 else self.key
        return visible(f"{self.table} {key!r}: {self.reason}", line=True)


#: Is told how far a copy is, and what it waits for.
Report = Callable[[Moved | Event], object]
