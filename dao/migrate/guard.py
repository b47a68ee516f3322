"""What a script loses: rows that no DELETE of its own names, tables that hold rows, columns that hold values.

The authorizer tells, while a statement is compiled, what it may do; only tables that it may take rows from are counted,
just before and just after. A script that drops nothing and has no triggers or cascades to fire costs no count at all.
Rows that an INSERT or UPDATE replaces (OR REPLACE) are not told by SQLite and count as the script's intention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import apsw
import attrs

from dao.engine import Connection
from dao.errors import CheckFailed
from dao.migrate.content import quoted, row_count
from dao.migrate.directives import Allowance

__all__ = ["Guard", "Loss", "declarations_of", "refuse"]

_TABLES = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"
_VIRTUAL = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 LIMIT 1"
_SHADOWS = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
# a virtual generated column holds nothing
_COLUMNS = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden NOT IN (1, 2)"
_DROPS = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE})
_SEEN = _DROPS | {apsw.SQLITE_DELETE, apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_TABLE}


@attrs.frozen
class Loss:
    """What a script lost: `rows` of a table that is still there, a whole table with so many, or the values of a column.

    `rows` of a column is how many rows the table had.
    """

    kind: Literal["rows", "table", "column"]
    table: str
    rows: int
    column: str | None = None

    def __str__(self) -> str:
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        if self.kind == "rows":
            return f"{self.table}: {rows} that no DELETE of the script names"
        if self.kind == "table":
            return f"{self.table}: the table is dropped with {rows}"
        return f"{self.table}.{self.column}: the column is dropped with its values, of {rows}"

    @property
    def declaration(self) -> str:
        """What a script says that means to lose it."""
        return declarations_of([self])[0]

    def is_declared(self, allows: Allowance) -> bool:
        """Return whether a script with this declaration may lose it."""
        return allows.loses(self.table) if self.kind == "rows" else allows.drops(self.table, self.column)


@attrs.frozen
class _Dropped:
    """A table that was there before the script, at the moment when it is dropped."""

    rows: int
    columns: tuple[str, ...]


class Guard:
    """Watches one script on a connection. Names are compared in lower case, as SQLite does."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: While it looks for itself: the authorizer lets these statements pass.
        self.looking = False
        self._events: list[tuple[int, str, str | None]] = []
        self._created: set[str] = set()
        # every table of before the script, by the name that it has now; listed before the first statement that matters
        self._original: dict[str, str] = {}
        self._listed = False
        self._dropped: dict[str, _Dropped] = {}
        self._deleted: dict[str, int] = {}  # how many rows the script's own DELETEs took, by table
        self._losses: list[Loss] = []
        # about the statement that is running
        self._target: str | None = None
        self._counted: dict[str, int] = {}
        self._altered: dict[str, int] = {}
        self._column: tuple[str, str, int] | None = None

    def saw(self, action: int, first: str | None, second: str | None, database: str | None) -> None:
        """Note what the authorizer was told of the statement that is being compiled."""
        if action not in _SEEN:
            return
        if action == apsw.SQLITE_ALTER_TABLE:
            # told in another order: the database, the table, and a column if it changes one
            first, second, database = second, database, first
        if database == "main" and first and not first.lower().startswith("sqlite_"):
            self._events.append((action, first.lower(), second))

    def before_statement(self) -> None:
        """Look at the tables that the statement which is about to run may take rows from."""
        if not (self._events or self._target or self._counted or self._altered or self._column):
            return
        self.looking = True
        try:
            self._after_statement()
            events, self._events = self._events, []
            if events:
                self._look(events)
        finally:
            self.looking = False

    def losses(self) -> list[Loss]:
        """Return what the script has lost, now that it is done."""
        self.looking = True
        try:
            self._after_statement()
            if self._dropped:
                present = {name.lower(): name for name in self._tables()}
                alive = set(self._original.values())
                for name, dropped in self._dropped.items():
                    if name not in alive:
                        self._compare(name, dropped, present.get(name.lower()))
        finally:
            self.looking = False
        return self._losses

    # ------------------------------------------------------------ around a statement

    def _look(self, events: Sequence[tuple[int, str, str | None]]) -> None:
        if len(events) == 1 and events[0][0] == apsw.SQLITE_DELETE:
            self._target = events[0][1]
            return
        # with IF NOT EXISTS it may be there already
        created = [table for action, table, _ in events if action == apsw.SQLITE_CREATE_TABLE]
        self._created.update(table for table in created if not self._columns(table))
        if len(created) < len(events):
            self._look_closely([event for event in events if event[0] != apsw.SQLITE_CREATE_TABLE])

    def _look_closely(self, events: Sequence[tuple[int, str, str | None]]) -> None:
        found = self._tables()
        if not self._listed:
            self._original = {name.lower(): name for name in found if name.lower() not in self._created}
            self._listed = True
        tables = {name.lower(): page for name, page in found.items()}
        shadows: set[str] = set()
        if self._connection.execute(_VIRTUAL).fetchall():
            # a virtual table works on these by statements of its own, some of them while it runs
            shadows = {name.lower() for (name,) in self._rows(_SHADOWS)}
        events = [event for event in events if event[1] in tables and event[1] not in shadows]
        dropped = {table for action, table, _ in events if action in _DROPS}
        if events and events[0][0] == apsw.SQLITE_DELETE:
            self._target = events[0][1]
            events = events[1:]
        for action, table, column in events:
            if action in _DROPS:
                self._drop(table)
            elif action == apsw.SQLITE_ALTER_TABLE and column is None:
                self._altered[table] = tables[table]
            elif action == apsw.SQLITE_ALTER_TABLE:
                self._alter_column(table, str(column))
            elif table not in dropped and table not in self._counted:
                # by a trigger or a cascade
                self._counted[table] = row_count(self._connection, table)

    def _after_statement(self) -> None:
        target, self._target = self._target, None
        named = self._connection.changes() if target is not None else 0
        if target is not None:
            self._deleted[target] = self._deleted.get(target, 0) + named
        counted, self._counted = self._counted, {}
        for table, before in counted.items():
            lost = before - row_count(self._connection, table) - (named if table == target else 0)
            # a table that this script made is its own affair
            if lost > 0 and table in self._original:
                self._losses.append(Loss("rows", self._original[table], lost))
        if self._altered:
            self._follow_names()
        if self._column is not None:
            (table, column, rows), self._column = self._column, None
            if column.lower() not in self._columns(table) and table in self._original:
                self._losses.append(Loss("column", self._original[table], rows, column))

    def _follow_names(self) -> None:
        """Find where the altered tables are now: a renamed one keeps its root page."""
        altered, self._altered = self._altered, {}
        names = {page: name.lower() for name, page in self._tables().items() if page}
        for table, page in altered.items():
            name = names.get(page)
            if name is None or name == table:
                continue
            if table in self._original:
                self._original[name] = self._original.pop(table)
            if table in self._deleted:
                self._deleted[name] = self._deleted.pop(table)

    def _drop(self, table: str) -> None:
        self._deleted.pop(table, None)
        original = self._original.pop(table, None)
        if original is not None:
            self._dropped[original] = _Dropped(row_count(self._connection, table), self._columns_with_values(table))

    def _alter_column(self, table: str, column: str) -> None:
        if column.lower() in self._columns_with_values(table):
            self._column = (table, column, row_count(self._connection, table))

    # ------------------------------------------------------------ at the end

    def _compare(self, name: str, dropped: _Dropped, successor: str | None) -> None:
        """Compare a table that was dropped with the one that has its name now."""
        if successor is None:
            if dropped.rows:
                self._losses.append(Loss("table", name, dropped.rows))
            return
        lost = dropped.rows - row_count(self._connection, successor) - self._deleted.get(name.lower(), 0)
        if lost > 0:
            self._losses.append(Loss("rows", name, lost))
        columns = self._columns(successor)
        self._losses += [
            Loss("column", name, dropped.rows, column) for column in dropped.columns if column not in columns
        ]

    # ------------------------------------------------------------ the schema

    def _rows(self, sql: str, *values: str) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _tables(self) -> dict[str, int]:
        return dict(self._rows(_TABLES))

    def _columns(self, table: str) -> list[str]:
        return [name.lower() for (name,) in self._rows(_COLUMNS, table)]

    def _columns_with_values(self, table: str) -> tuple[str, ...]:
        columns = self._columns(table)
        if not columns:
            return ()
        held = ", ".join(
            f"EXISTS (SELECT 1 FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL)" for column in columns
        )
        (row,) = self._rows(f"SELECT {held}")
        return tuple(column for column, holds in zip(columns, row, strict=True) if holds)


def declarations_of(losses: Sequence[Loss]) -> list[str]:
    """Return the lines by which a script says that it means to lose these."""
    names: dict[str, list[str]] = {}
    for loss in losses:
        what = {"rows": "data-loss", "table": "drop table", "column": "drop column"}[loss.kind]
        names.setdefault(what, []).append(f"{loss.table}.{loss.column}" if loss.column else loss.table)
    return [f"-- allows: {what} {', '.join(dict.fromkeys(listed))}" for what, listed in names.items()]


def refuse(name: str, losses: Sequence[Loss], *, declare_in: str | None) -> None:
    """Refuse what a script lost and did not declare.

    Raises:
        CheckFailed: There is any; `.violations` are the losses.
    """
    if not losses:
        return
    lines = "\n  ".join(str(loss) for loss in losses)
    declarations = " and ".join(f"`{line}`" for line in declarations_of(losses))
    declare = f"write {declarations} at the top of {declare_in}, or " if declare_in else ""
    raise CheckFailed(
        f"{name} loses data without saying that it means to\n  {lines}\nMend the script; or, if that is meant, {declare}"
        "allow it for this run with --allow-data-loss",
        violations=tuple(losses),
    )
