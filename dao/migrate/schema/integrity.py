"""What must hold of keys and rows before a run may commit: no foreign key is broken, and the file is intact."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.engine.sqlite import files as database_file
from dao.errors import DatabaseCorrupt, visible
from dao.migrate.schema.catalog import foreign_keys, quoted, table_names

__all__ = [
    "Broken",
    "Unusable",
    "Violation",
    "first",
    "foreign_key_violations",
    "integrity_check",
    "integrity_problems",
]

_SHOWN = 10
# What integrity_check says of rows, not of the file (sqlite.org/pragma.html).
_IN_ROWS = re.compile(r"CHECK constraint failed in |(?:non-)?[A-Z]+ value in ")


@attrs.frozen
class Violation:
    """Rows of `table` whose foreign key has the `values` (in `columns`), which no row of `parent` has."""

    table: str
    columns: tuple[str, ...] = attrs.field(eq=False)  # a column may be renamed
    values: tuple[Any, ...]
    parent: str

    def __str__(self) -> str:
        pairs = ", ".join(f"{column} = {value!r}" for column, value in zip(self.columns, self.values, strict=False))
        what = f"{self.table}: {pairs or 'a row'} refers to a row of {self.parent} that does not exist"
        return visible(what, line=True)


@attrs.frozen
class Unusable:
    """A view, a trigger, a table or a foreign key (`name` is its table's) that does not work, and what SQLite says of it."""

    type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return visible(f"{self.what}: {self.reason}", line=True)

    @property
    def what(self) -> str:
        """What it is, with its name."""
        return f"the {self.type}{' of' if self.type == 'foreign key' else ''} {self.name}"


#: How many of each there are.
Broken = Counter[Violation | Unusable]


def foreign_key_violations(connection: Connection) -> Broken:
    """Return all broken foreign keys, by their values: those stay the same when a table is rebuilt."""
    found: Broken = Counter()
    try:
        rows: list[Any] = connection.execute("PRAGMA main.foreign_key_check").fetchall()
    except apsw.SQLError:  # one mismatch, and it says nothing else
        rows = []
        for table in sorted(table_names(connection)):
            try:
                rows += connection.execute(f"PRAGMA main.foreign_key_check({quoted(table)})").fetchall()
            except apsw.SQLError as error:
                found[Unusable("foreign key", table, str(error))] += 1
    columns = {
        (table, key.id): key.columns for table in {row[0] for row in rows} for key in foreign_keys(connection, table)
    }
    for table, rowid, parent, key in rows:
        names_of_key = columns[table, key]
        values: tuple[Any, ...] = ()
        if rowid is not None:  # a table WITHOUT ROWID tells only that there is one
            listed = ", ".join(quoted(name) for name in names_of_key)
            row: Any = connection.execute(f"SELECT {listed} FROM {quoted(table)} WHERE rowid = ?", (rowid,)).fetchone()
            values = row or ()
        found[Violation(table, names_of_key, values, parent)] += 1
    return found


def integrity_problems(connection: Connection) -> frozenset[str]:
    """Return what `PRAGMA integrity_check` finds in the rows: values that their constraints would refuse today.

    Raises:
        DatabaseCorrupt: It finds damage to the file.
    """
    problems = integrity_check(connection)
    damage = [problem for problem in problems if not _IN_ROWS.match(problem)]
    if damage:
        raise DatabaseCorrupt(
            f"{database_file.called(connection)} is damaged, before any migration: restore a snapshot (`dao restore`; what was written since is "
            "lost) or a backup",
            details=first(damage),
        )
    return frozenset(problems)


def integrity_check(connection: Connection) -> list[str]:
    """Return what `PRAGMA integrity_check` finds, as far as it can look without what is not registered here."""
    rows: list[Any] = []
    try:
        rows += connection.execute("PRAGMA main.integrity_check").fetchall()
    except apsw.SQLError:
        # a function or collation is not registered here: what needs none can be checked
        for table in sorted(table_names(connection)):
            with contextlib.suppress(apsw.SQLError):
                rows += connection.execute(f"PRAGMA main.integrity_check({quoted(table)})").fetchall()
    return [str(problem) for (problem,) in rows if problem != "ok"]


def first(lines: list[str]) -> list[str]:
    """Return as many of the lines as a message shows, and how many more there are."""
    rest = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"… and {rest} more"] if rest > 0 else [])
