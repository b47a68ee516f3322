"""What a run may lose, as values, and the refusal of it. `guard` finds it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs

from dao.errors import CheckFailed, visible
from dao.migrate.directives import Allowance, name_in_list

__all__ = ["Loss", "refuse"]


@attrs.frozen
class Loss:
    """What was lost: `rows` of a table that is still there, a whole table with so many, or the values of a column.

    `rows` of a column is how many rows the table had. Names are those of before the run.
    """

    kind: Literal["rows", "table", "column"]
    table: str
    rows: int
    column: str | None = None

    def __str__(self) -> str:
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        table = visible(self.table, line=True)
        if self.kind == "rows":
            return f"{table}: {rows} that no DELETE of the script names"
        if self.kind == "table":
            return f"{table}: the table is dropped with {rows}"
        return f"{table}.{visible(self.column or '', line=True)}: the column is dropped with its values, of {rows}"

    @property
    def name(self) -> str:
        """What is lost, as `-- allows:` and `--allow-loss` name it."""
        return name_in_list(self.table, self.column)

    @property
    def declaration(self) -> str:
        """What a script says that means to lose it."""
        what = {"rows": "data-loss", "table": "drop table", "column": "drop column"}[self.kind]
        return f"-- allows: {what} {self.name}"

    def is_declared(self, allows: Allowance) -> bool:
        """Return whether a script with this declaration may lose it."""
        if self.kind == "rows":  # whoever may drop this table with all of them may lose some
            return allows.loses(self.table) or self.table.lower() in allows.tables
        return allows.drops(self.table, self.column)


def refuse(found: Sequence[tuple[Path | None, str, Sequence[Loss]]]) -> None:
    """Refuse what scripts lost, each named by its file, if it has one, and its id.

    Raises:
        CheckFailed: There is any; `.violations` are the losses.
    """
    messages = []
    for path, id, losses in ((path, id, losses) for path, id, losses in found if losses):
        lines = "".join(f"\n  {loss}" for loss in losses)
        declarations = " and ".join(f"`{loss.declaration}`" for loss in losses)
        declare = f"write {declarations} at the top of {path.name}, or " if path else ""
        options = " ".join(f"--allow-loss {shlex.quote(loss.name)}" for loss in losses)
        messages.append(
            f"{path or id} loses data without saying that it means to{lines}\nMend the script; or, if that is meant, "
            f"{declare}allow it for this run with {options}"
        )
    if messages:
        raise CheckFailed("\n".join(messages), violations=tuple(loss for *_, losses in found for loss in losses))
