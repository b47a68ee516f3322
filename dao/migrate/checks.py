"""What must hold before a run may commit: no foreign key broken that was not broken before, and an intact file."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from dao.engine import Connection
from dao.errors import CheckFailed

__all__ = ["Violation", "check", "foreign_key_violations"]

_SHOWN = 10


@attrs.frozen
class Violation:
    """Rows of `table` whose foreign key has the `values` (in `columns`), which no row of `parent` has."""

    table: str
    columns: tuple[str, ...]
    values: tuple[Any, ...]
    parent: str

    def __str__(self) -> str:
        pairs = ", ".join(f"{column} = {value!r}" for column, value in zip(self.columns, self.values, strict=False))
        return f"{self.table}: {pairs or 'a row'} refers to a row of {self.parent} that does not exist"


def foreign_key_violations(connection: Connection) -> Counter[Violation]:
    """Return all broken foreign keys, by their values: those stay the same when a table is rebuilt."""
    found: Counter[Violation] = Counter()
    rows: list[Any] = connection.execute("PRAGMA foreign_key_check").fetchall()
    columns: dict[tuple[str, int], tuple[str, ...]] = {}
    for table, rowid, parent, key in rows:
        if (table, key) not in columns:
            names = connection.execute(
                'SELECT "from" FROM pragma_foreign_key_list(?) WHERE id = ? ORDER BY seq', (table, key)
            )
            columns[table, key] = tuple(str(name) for (name,) in names)
        names_of_key = columns[table, key]
        values: tuple[Any, ...] = ()
        if rowid is not None:  # a table WITHOUT ROWID tells only that there is one
            listed = ", ".join(_quoted(name) for name in names_of_key)
            row: Any = connection.execute(f"SELECT {listed} FROM {_quoted(table)} WHERE rowid = ?", (rowid,)).fetchone()
            values = row or ()
        found[Violation(table, names_of_key, values, parent)] += 1
    return found


def check(connection: Connection, before: Counter[Violation]) -> None:
    """Check the database inside the run's transaction. `before` holds what was broken when the run began.

    Raises:
        CheckFailed: A foreign key is broken now that was not, or `PRAGMA integrity_check` found damage.
    """
    broken = foreign_key_violations(connection) - before
    if broken:
        shown = [f"{violation}" + (f" ({number} rows)" if number > 1 else "") for violation, number in broken.items()]
        raise CheckFailed(_message("these migrations leave foreign keys broken", shown), violations=tuple(broken))
    problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    if problems != ["ok"]:
        raise CheckFailed(_message("the database is not intact after these migrations", problems), violations=problems)


def _message(what: str, lines: list[str]) -> str:
    rest = len(lines) - _SHOWN
    shown = lines[:_SHOWN] + ([f"… and {rest} more"] if rest > 0 else [])
    return f"{what}; nothing was changed\n  " + "\n  ".join(shown)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
