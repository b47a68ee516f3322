"""What a script loses: rows that no DELETE of its own names, tables that hold rows, columns that hold values.

The authorizer tells, while a statement is compiled, what it may do. Only tables that it may take rows from are counted,
just before and just after; a script that drops nothing and has no triggers or cascades to fire costs no count at all.
A table that is dropped is compared with the one that has its name at the end: the rows of that are those of the old one,
but for what the script itself inserts into it as VALUES. Rows are counted, not recognised.

Rows that an INSERT or UPDATE replaces (OR REPLACE) are not told by SQLite and count as the script's intention. So does
what a DELETE from a view deletes by the view's trigger.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import apsw
import attrs

from dao.engine import Connection
from dao.errors import CheckFailed, visible
from dao.migrate.content import quoted
from dao.migrate.directives import Allowance, name_in_list

__all__ = ["HEEDED", "Guard", "Loss", "refuse"]

_TABLES = "SELECT name, rootpage FROM main.sqlite_schema WHERE type = 'table'"
# virtual tables work on these by statements of their own, some of them while they run
_SHADOWS = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
_VIRTUAL = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 LIMIT 1"
# hidden: 1 is a column of a virtual table that nobody sees; 2 and 3 are generated ones
_COLUMNS = "SELECT name, hidden FROM pragma_table_xinfo(?, 'main')"
_REPLACES = (
    "SELECT 1 FROM main.sqlite_schema WHERE type IN ('table', 'index') AND tbl_name = ? AND sql LIKE '%replace%'"
)
_DROPS = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE})
_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_TAKES = _DROPS | {apsw.SQLITE_DELETE, apsw.SQLITE_ALTER_TABLE}
_SEEN = _TAKES | _WRITES | {apsw.SQLITE_CREATE_TABLE}
# after these the shadow tables are others
_CHANGE_SHADOWS = frozenset({apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE, apsw.SQLITE_ALTER_TABLE})
#: What `Guard.saw` makes anything of, and `Guard.reads`.
HEEDED = _SEEN | _CHANGE_SHADOWS | {apsw.SQLITE_READ}
_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


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
        table = visible(self.table, line=True)
        if self.kind == "rows":
            return f"{table}: {rows} that no DELETE of the script names"
        if self.kind == "table":
            return f"{table}: the table is dropped with {rows}"
        return f"{table}.{visible(self.column or '', line=True)}: the column is dropped with its values, of {rows}"

    @property
    def declaration(self) -> str:
        """What a script says that means to lose it."""
        what = {"rows": "data-loss ", "table": "drop table ", "column": "drop column "}[self.kind]
        return f"-- allows: {what}{name_in_list(self.table, self.column)}"

    def is_declared(self, allows: Allowance) -> bool:
        """Return whether a script with this declaration may lose it."""
        return allows.loses(self.table) if self.kind == "rows" else allows.drops(self.table, self.column)


class _Event(NamedTuple):
    """What a statement, or a trigger of it, may do to a table; `column` is that of an ALTER TABLE."""

    action: int
    table: str
    column: str | None


@attrs.frozen
class _Dropped:
    """A table that was there before the script, at the moment when it is dropped."""

    rows: int
    columns: tuple[str, ...]


@attrs.define
class _Running:
    """What is to be found out when a statement is done: of the table that it deletes from, and of others."""

    deletes_from: str | None = None
    counted: dict[str, int] = attrs.Factory(dict)
    #: What the statement alters, and all tables before, with their root pages.
    altered: set[str] = attrs.Factory(set)
    tables: dict[str, int] = attrs.Factory(dict)
    #: The table, and its column that holds values and may go.
    column: tuple[str, str] | None = None
    changes_shadows: bool = False


class Guard:
    """Watches one script on a connection. Names are compared as SQLite does: A to Z are a to z."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: While it looks for itself: the authorizer lets these statements pass.
        self.looking = False
        # of the statement that is being compiled
        self._events: list[_Event] = []
        self._creates: list[str] = []
        self._takes = self._changes_shadows = False
        #: Whether that reads any column.
        self.reads = False
        # Tables are listed when a statement may first take from one: most scripts have none that does, and a history of a
        # thousand scripts that each make a table would list half a million. What the script has made until then is known.
        self._listed = False
        self._made: set[str] = set()
        # once listed: every table of before the script, by the name that it has now, and the shadow tables
        self._original: dict[str, str] = {}
        self._shadows: frozenset[str] = frozenset()
        self._dropped: dict[str, _Dropped] = {}
        # how many rows the script's own statements took and made, by the name that the table has now
        self._deleted: dict[str, int] = {}
        self._inserted: dict[str, int] = {}
        self._losses: list[Loss] = []
        self._running: _Running | None = None
        self._inserts_into: str | None = None

    def saw(self, action: int, first: str | None, second: str | None, database: str | None) -> None:
        """Note what the authorizer was told of the statement that is being compiled."""
        if action in _CHANGE_SHADOWS:
            self._changes_shadows = True
        if action not in _SEEN:
            return
        if action == apsw.SQLITE_ALTER_TABLE:
            # told in another order: the database, the table, and a column if it changes one
            first, second, database = second, database, first
        if database != "main" or not first:
            return
        table = _folded(first)
        if action == apsw.SQLITE_CREATE_TABLE:
            self._creates.append(table)
        elif not table.startswith("sqlite_") and table not in self._shadows:
            self._takes |= action in _TAKES
            self._events.append(_Event(action, table, second))

    def before_statement(self, sql: str) -> None:
        """Look at the tables that the statement which is about to run may take rows from."""
        if self._inserts_into is not None:
            self._note_inserted()
        if self._running is not None:
            with self._look():
                self._finish()
        if not (self._events or self._creates or self._takes or self._changes_shadows):
            self.reads = False
            return
        # more than one: what a virtual table does while the statement before this one runs is among them
        if not self._listed and (self._takes or self._changes_shadows or len(self._events) > 1):
            self._list()
        if self._takes or self._changes_shadows:
            with self._look():
                self._running = self._begun()
        elif (
            len(self._events) == 1
            and not self.reads
            and self._events[0].action == apsw.SQLITE_INSERT
            # what comes into a table of before needs no note: it is counted when it is dropped
            and not self._was_there(self._events[0].table)
            and "replace" not in sql.lower()
        ):
            self._inserts_into = self._events[0].table
        if not self._listed:
            # asked before it runs: IF NOT EXISTS may make nothing. This looks into the schema in memory, without SQL.
            self._made.update(name for name in self._creates if not self._connection.table_exists("main", name))
        self._events.clear()
        self._creates.clear()
        self._takes = self.reads = self._changes_shadows = False

    def losses(self) -> list[Loss]:
        """Return what the script has lost, now that it is done."""
        if self._inserts_into is None and self._running is None and not self._dropped:
            return self._losses
        with self._look():
            self._note_inserted()
            self._finish()
            present = {_folded(name): name for name, _ in self._rows(_TABLES)} if self._dropped else {}
            for name, dropped in self._dropped.items():
                self._compare(name, dropped, present.get(_folded(name)))
        return self._losses

    # ------------------------------------------------------------ around a statement

    def _begun(self) -> _Running:
        tables = self._tables()
        events = self._events
        running = _Running(changes_shadows=self._changes_shadows)
        if events and events[0].action == apsw.SQLITE_DELETE:
            if events[0].table not in tables:  # a view
                return running
            running.deletes_from = events[0].table
            events = events[1:]
        dropped = {event.table for event in events if event.action in _DROPS}
        for table in dropped:
            self._drop(table)
        for action, table, column in events:
            if action == apsw.SQLITE_ALTER_TABLE:
                running.altered.add(table)
                running.tables = tables
                if column is not None and table in self._original and self._holds_values(table, column):
                    running.column = (table, column)
            # by a trigger or a cascade; what the script has made is its own affair
            elif action == apsw.SQLITE_DELETE and table in self._original and table not in running.counted:
                running.counted[table] = self._count(table)
        return running

    def _note_inserted(self) -> None:
        table, self._inserts_into = self._inserts_into, None
        if table is not None:
            _add(self._inserted, table, self._connection.changes())

    def _finish(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        named = self._connection.changes()
        if running.deletes_from is not None:
            _add(self._deleted, running.deletes_from, named)
        for table, before in running.counted.items():
            lost = before - self._count(table) - (named if table == running.deletes_from else 0)
            if lost > 0:
                self._losses.append(Loss("rows", self._original[table], lost))
        if running.altered:
            self._follow_names(running)
        if running.column is not None:
            table, column = running.column
            if all(_folded(name) != _folded(column) for name, _ in self._columns(table)):
                self._losses.append(Loss("column", self._original[table], self._count(table), column))
        if running.changes_shadows:
            self._shadows = self._find_shadows()
            # what a new virtual table did to its own while it was made
            self._events = [event for event in self._events if event.table not in self._shadows]

    def _follow_names(self, running: _Running) -> None:
        """Find where the altered tables are now: a renamed one keeps its root page, a virtual one has none."""
        now = self._tables()
        by_page = {page: name for name, page in now.items() if page}
        new = [name for name, page in now.items() if not page and name not in running.tables]
        for table in running.altered - now.keys():
            page = running.tables.get(table)
            name = by_page.get(page) if page else next(iter(new), None)
            by_names: tuple[dict[str, Any], ...] = (self._original, self._deleted, self._inserted)
            for by_name in by_names:
                if name is not None and table in by_name:
                    by_name[name] = by_name.pop(table)

    def _drop(self, table: str) -> None:
        self._deleted.pop(table, None)
        self._inserted.pop(table, None)
        original = self._original.pop(table, None)
        if original is None:
            return
        rows = self._count(table)
        columns = [column for column, _ in self._columns(table)] if rows else []
        self._dropped[original] = _Dropped(
            rows, tuple(column for column in columns if self._holds_values(table, column))
        )

    # ------------------------------------------------------------ at the end

    def _compare(self, name: str, dropped: _Dropped, successor: str | None) -> None:
        """Compare a table that was dropped with the one that has its name now."""
        if not dropped.rows:
            return
        if successor is None or self._original.get(_folded(name), name) != name:
            # a table that was there before has taken the name
            self._losses.append(Loss("table", name, dropped.rows))
            return
        table = _folded(name)
        inserted = 0 if self._rows(_REPLACES, successor) else self._inserted.get(table, 0)
        lost = dropped.rows - (self._count(successor) - inserted) - self._deleted.get(table, 0)
        if lost > 0:
            self._losses.append(Loss("rows", name, lost))
        columns = {_folded(column) for column, _ in self._columns(successor)}
        self._losses += [
            Loss("column", name, dropped.rows, column) for column in dropped.columns if _folded(column) not in columns
        ]

    # ------------------------------------------------------------ what is there

    @contextmanager
    def _look(self) -> Iterator[None]:
        # what it reads is none of the script's
        self.looking, reads = True, self.reads
        try:
            yield
        finally:
            self.looking, self.reads = False, reads

    def _rows(self, sql: str, *values: str) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _list(self) -> None:
        """List what was there before the script, before a statement that may take from it."""
        with self._look():
            tables = {_folded(name): name for name, _ in self._rows(_TABLES)}
            self._shadows = self._find_shadows()
        self._original = {table: name for table, name in tables.items() if table not in self._made}
        self._listed = True
        # they were taken for tables like others until now
        self._events = [event for event in self._events if event.table not in self._shadows]
        self._takes = any(event.action in _TAKES for event in self._events)

    def _was_there(self, table: str) -> bool:
        return table in self._original if self._listed else table not in self._made

    def _tables(self) -> dict[str, int]:
        return {_folded(name): page for name, page in self._rows(_TABLES)}

    def _find_shadows(self) -> frozenset[str]:
        return frozenset(_folded(name) for (name,) in (self._rows(_SHADOWS) if self._rows(_VIRTUAL) else ()))

    def _count(self, table: str) -> int:
        ((rows,),) = self._rows(f"SELECT count(*) FROM main.{quoted(table)}")
        return int(rows)

    def _columns(self, table: str) -> list[tuple[str, bool]]:
        """Return a table's columns, each with whether it holds nothing of its own: if it is generated, or hidden."""
        return [(name, bool(hidden)) for name, hidden in self._rows(_COLUMNS, table)]

    def _holds_values(self, table: str, column: str) -> bool:
        holds_none = {_folded(name): hidden for name, hidden in self._columns(table)}
        if holds_none.get(_folded(column), True):
            return False
        name = quoted(column)
        return bool(self._rows(f"SELECT 1 FROM main.{quoted(table)} WHERE {name} IS NOT NULL LIMIT 1"))


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else name.translate(_ASCII)


def _add(numbers: dict[str, int], table: str, number: int) -> None:
    numbers[table] = numbers.get(table, 0) + number


def refuse(name: str, losses: Sequence[Loss], *, declare_in: str | None) -> None:
    """Refuse what a script lost and did not declare.

    Raises:
        CheckFailed: There is any; `.violations` are the losses.
    """
    if not losses:
        return
    lines = "\n  ".join(str(loss) for loss in losses)
    declarations = " and ".join(f"`{loss.declaration}`" for loss in losses)
    declare = f"write {declarations} at the top of {declare_in}, or " if declare_in else ""
    raise CheckFailed(
        f"{name} loses data without saying that it means to\n  {lines}\nMend the script; or, if that is meant, {declare}"
        "allow it for this run with --allow-data-loss",
        violations=tuple(losses),
    )
