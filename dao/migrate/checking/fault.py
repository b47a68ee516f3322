"""Something that is wrong in a database, and how it is told that something cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs

from dao.text import counted, visible

__all__ = ["NAMED", "CannotTell", "Fault"]

#: Of the rows with the same fault so many are named.
NAMED = 100
#: Is told what could not be checked, and why.
CannotTell = Callable[[str, str], None]
Kind = Literal["damage", "foreign key", "constraint", "object", "drift", "ledger"]


@attrs.frozen(kw_only=True)
class Fault:
    """Something that is wrong in a database.

    `kind` is "damage" to what is stored, a "foreign key" or "constraint" that rows break, an "object" of the schema
    that does not work, "drift" of the schema from what the migrations make, or the "ledger". `name` is the table, view,
    trigger or migration, if there is one.

    `rows` are the first hundred with this fault, each as its key and the values at fault, by column; `count` is how
    many there are, None where the fault is not one of rows, or where it cannot be told which.
    """

    kind: Kind
    name: str | None
    text: str
    count: int | None = None
    rows: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        number = "" if self.count is None else f" ({counted(self.count, 'row')})"
        return visible(f"{self.kind}: {self.text}{number}", line=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the fault as a dict, for any JSON encoder that takes its values."""
        return attrs.asdict(self)
