"""The values of a run: steps, losses, snapshots, results and differences."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Literal

import attrs

from dao.errors import InvalidValue
from dao.migrate.scripts.directives import Allowance, name_in_list
from dao.migrate.scripts.migration import Migration, Script
from dao.settings import SNAPSHOTS
from dao.text import counted, visible

__all__ = [
    "SNAPSHOTS",
    "Difference",
    "Direction",
    "Drifted",
    "Kind",
    "Loss",
    "Result",
    "Snapshot",
    "Step",
]


@attrs.frozen(kw_only=True)
class Result:
    """A migration that was applied or rolled back: how many statements, in how many seconds, and what it lost.

    `set` is that of the migration, None if it is not known. `name` is as that of its `Step`.
    """

    id: str
    direction: Direction
    statements: int
    seconds: float
    notices: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    set: str | None = None
    name: str = attrs.field(default=attrs.Factory(lambda self: self.id, takes_self=True), repr=False)


Direction = Literal["apply", "rollback"]


@attrs.frozen(kw_only=True)
class Step:
    """A migration to apply or to roll back.

    `drops`, in a plan of a rollback, is what the migration made and its rollback takes away, as `tasks.priority`.
    `name` is the id as people see it, behind its set where several are in play.
    """

    migration: Migration
    direction: Direction
    drops: tuple[str, ...] = ()
    name: str = attrs.field(default=attrs.Factory(lambda self: self.id, takes_self=True), repr=False)

    @property
    def id(self) -> str:
        """The id of its migration."""
        return self.migration.id

    @property
    def script(self) -> Script:
        """The script to run; an empty one where there is none for a rollback, and nothing to undo.

        Raises:
            InvalidValue: It is a rollback, and the migration has no script for that.
        """
        script = self.migration.up if self.direction == "apply" else self.migration.down
        if script is None and self.migration.reversible:
            return Script(path=None, text="")
        if script is None:
            raise InvalidValue(f"{self.id} has no rollback script")
        return script

    @property
    def key(self) -> tuple[str, str]:
        """The pair that tells it from all others of a run, which may undo a migration and apply it again."""
        return self.id, self.direction


@attrs.frozen
class Loss:
    """A loss: `rows` of a table that is still there, a whole table with so many, or the values of a column.

    `rows` of a column is how many rows the table had. Names are those of before the run.
    """

    kind: Literal["rows", "table", "column"]
    table: str
    rows: int
    column: str | None = None

    def __str__(self) -> str:
        rows = counted(self.rows, "row")
        table = visible(self.table, line=True)
        if self.kind == "rows":
            return f"{table}: {rows} that no DELETE of the script names"
        if self.kind == "table":
            return f"{table}: the table is dropped with {rows}"
        return f"{table}.{visible(self.column or '', line=True)}: the column is dropped with its values, of {rows}"

    @property
    def name(self) -> str:
        """Its name as a declaration and `--allow-loss` write it."""
        return name_in_list(self.table, self.column)

    @property
    def declaration(self) -> str:
        """The directive of a script that means to lose it."""
        what = {"rows": "data-loss", "table": "drop table", "column": "drop column"}[self.kind]
        return f"-- allows: {what} {self.name}"

    def is_declared(self, allows: Allowance) -> bool:
        """Return whether a script with this declaration may lose it."""
        if self.kind == "rows":  # a script that may drop the table with all of them may lose some
            return allows.loses(self.table) or self.table.lower() in allows.tables
        return allows.drops(self.table, self.column)


Kind = Literal["manual", "run", "restore"]


@attrs.frozen(kw_only=True)
class Snapshot:
    """A complete snapshot. `version` is the last applied migration as far as a file's name can hold it, or "empty".

    `kind` says who took it: "run", "restore", or "manual" for one that was asked for; that may have a `label`.
    """

    id: str
    path: Path
    taken_at: datetime
    version: str
    size: int
    kind: Kind = "manual"
    label: str | None = None


@attrs.frozen(kw_only=True)
class Difference:
    """One difference between what is expected and what there is. `part` is a column or constraint of the object."""

    kind: Literal["missing", "unexpected", "changed"]
    type: str
    name: str
    part: str | None = None
    expected: str | None = None
    actual: str | None = None

    def __str__(self) -> str:
        subject = f"{self.type} {self.name}" + (f": {self.part}" if self.part else "")
        if self.kind != "changed":
            return visible(f"{subject} is {self.kind}", line=True)
        expected, actual = _excerpts(self.expected or "", self.actual or "")
        return visible(f"{subject} is {actual}, expected {expected}", line=True)


@attrs.frozen
class Drifted:
    """The commit leaves a schema that is not the one that the applied migrations make: how it differs, by object.

    `unknown` says why that cannot be told, after a rollback; then there are no differences.
    """

    differences: tuple[Difference, ...] = ()
    unknown: str | None = None

    def __str__(self) -> str:
        if self.unknown:
            return f"nobody can tell whether the schema is what the remaining migrations make: {self.unknown}"
        return f"the schema is not what the applied migrations make: {'; '.join(map(str, self.differences))}"


_LONG, _AROUND = 160, 50


def _excerpts(one: str, other: str) -> tuple[str, ...]:
    """Return texts that differ, the long ones from just before that place to just after it."""
    texts = (one, other)
    if max(map(len, texts)) <= _LONG:
        return texts
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    begin = max(0, sum(1 for _ in same) - _AROUND)
    return tuple(
        ("… " if begin else "") + text[begin : begin + _LONG] + (" …" if len(text) > begin + _LONG else "")
        for text in texts
    )
