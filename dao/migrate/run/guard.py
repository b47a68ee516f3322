"""The losses of a run: rows that no DELETE of its scripts names, tables that held rows, columns that held values.

The end of a run is judged against its beginning, by table and column: a table that was dropped against the one that has
its name at the end, a column against the one of its name that was filled from it. Things that the run itself has made
are its own affair.

The authorizer tells, while a statement is compiled, what it may take rows from and what it reads and writes. Only
those tables are counted, just before; a script that drops nothing and fires no triggers or cascades costs no count.
Rows are counted, not recognised: what a SELECT copies counts as a row of the tables that it reads, what VALUES brings
as none of before. SQLite does not tell whether an INSERT replaces rows, so the table is counted around it where that
matters. Rows that are replaced, or deleted from a view by its trigger, count as the script's intention.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Self

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.run.holdings import Holdings
from dao.migrate.run.lineage import ANY, TEMPORARY, Known, Origin, Tracked
from dao.migrate.schema.names import fold
from dao.migrate.schema.script import Watcher
from dao.migrate.values import Loss

__all__ = ["Guard"]

_DROPS = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE})
_CREATES = frozenset({apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_TEMP_TABLE, apsw.SQLITE_CREATE_VTABLE})
# after these the shadow tables are others
_CHANGE_SHADOWS = frozenset({apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE, apsw.SQLITE_ALTER_TABLE})
_FILLS = _CREATES | {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE}
_TAKES = _DROPS | _CHANGE_SHADOWS | {apsw.SQLITE_DELETE}


class _Event(NamedTuple):
    """An action of a statement, or of a trigger of it, on a table; `column` is that of an UPDATE or ALTER TABLE."""

    action: int
    table: str
    column: str | None


@attrs.define
class _Running:
    """A statement that runs: whose it is, and the questions for when it is done."""

    source: Hashable
    deletes_from: str | None = None
    counted: dict[str, int] = attrs.Factory(dict)
    #: The tables it alters, with their columns; all tables before, with their root pages; columns with values to lose.
    altered: dict[str, list[str]] = attrs.Factory(dict)
    tables: Mapping[str, tuple[str, int]] = attrs.Factory(dict)
    holding: set[tuple[str, str]] = attrs.Factory(set)
    changes_shadows: bool = False


class Guard(Watcher):
    """Watches the scripts of a run on a connection. Names are compared as SQLite does: A to Z are a to z."""

    heeded = _TAKES | _FILLS | {apsw.SQLITE_READ, apsw.SQLITE_SAVEPOINT}

    def __init__(self, holdings: Holdings | Connection) -> None:
        self._holdings = holdings if isinstance(holdings, Holdings) else Holdings(holdings)
        #: The owner of the statement that runs, as `losses` tells.
        self.source: Hashable = 0
        #: The reads of the statement being compiled: tables with columns, and the view, trigger or WITH that reads.
        self.reads: set[tuple[str, str | None, str | None]] = set()
        #: The tables that its scripts drop.
        self.dropped: set[str] = set()
        self._events: list[_Event] = []
        # listed when a statement may first take from one: a thousand that make one would list half a million
        self._known = Known()
        self._savepoints: list[tuple[str, Known]] = []
        self._running: _Running | None = None

    def saw(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> None:
        """Note what the authorizer was told of the statement that is being compiled."""
        if action == apsw.SQLITE_ALTER_TABLE:
            # told in another order: the database, the table, and a column if it changes one
            first, second, database = second, database, first
        name = first or ""
        is_own = bool(name) and not name.startswith("sqlite_")
        if is_own and database == "temp":
            name = TEMPORARY + name
        if action == apsw.SQLITE_READ:
            self.reads.add((name, second, trigger))
        elif action == apsw.SQLITE_SAVEPOINT:
            self._events.append(_Event(action, name, fold(second or "")))
        elif is_own and (database == "main" or action in _FILLS):
            self._events.append(_Event(action, fold(name), second))
            if action in _DROPS:
                self.dropped.add(fold(name))

    def meets_virtual_tables(self, _connection: Connection) -> bool:
        """As of any watcher, by what is known already if anything is."""
        return self._holdings.has_virtual_tables()

    def before_statement(self, _sql: str = "", _cursor: object = None) -> None:
        """Look at the tables that the statement which is about to run may take rows from."""
        shadows = self._known.shadows
        self.end_script()
        events, self._events = self._events, []
        if events:
            with self._look():
                # among them, and among the reads, is what a virtual table did to its own during the statement before
                self._begin(events, shadows | self._known.shadows)
        self.reads.clear()
        self._holdings.forget()  # it may change what there is

    def begin_script(self, source: Hashable) -> None:
        """Get ready for another script of the run; `losses` calls it by this."""
        self.source = source
        self._events.clear()
        self.reads.clear()
        self._savepoints.clear()
        self._known.forget_temporary()

    def end_script(self) -> None:
        """Look at what the last statement of a script has done: what comes after it may be none of the run's."""
        running, self._running = self._running, None
        if running is not None:
            with self._look():
                self._finish(running)

    def losses(self) -> list[tuple[Hashable, Loss]]:
        """Return what is lost by now, each with whose script lost it; what comes later may make up for it."""
        self.end_script()
        if not self._known.listed:
            return []
        with self._look():
            self._known.link()
            found = list(self._known.losses)
            present = self._holdings.tables()
            names = {id(table.origin): name for name, table in self._known.tables.items()}
            for origin in self._known.origins:
                if origin.dropped_by is not None or origin.held or origin.lost:
                    name = names.get(id(origin))
                    found += self._judge(origin, name if name in present else None)
        return found

    def copy(self) -> Self:
        """Return another one that knows the same, for a run that may be undone."""
        other = type(self)(copy.copy(self._holdings))
        other._holdings.forget()  # noqa: SLF001 - it is of this class
        other._known = copy.deepcopy(self._known)  # noqa: SLF001 - it is of this class
        return other

    def _begin(self, events: list[_Event], shadows: frozenset[str]) -> None:
        # nothing comes from SQLite's own tables
        self.reads = {read for read in self.reads if not fold(read[0]).startswith("sqlite_")}
        if len(events) == 1 and events[0].action == apsw.SQLITE_INSERT and not self.reads:  # most statements by far
            if events[0].table not in shadows:
                self._fill(events[0].table, frozenset())
            return
        if within := {fold(name) for *_, name in self.reads if name}:
            # what a trigger or the inside of a view reads is not what the statement copies
            programs = self._holdings.programs(within)
            self.reads = {read for read in self.reads if fold(read[2] or "") not in programs}
        read = {(fold(table), fold(column or "")) for table, column, _ in self.reads}
        actions = {event.action for event in events}
        if not self._known.listed and (len(events) > 1 or actions & _TAKES or read):
            self._list()
            shadows = self._known.shadows
        running = _Running(self.source, changes_shadows=bool(actions & _CHANGE_SHADOWS))
        if actions & _TAKES:
            self._running = running
            running.tables = self._holdings.tables()
        # what a virtual table does to its own is not the script's; those that it drops with itself have gone by now
        events = [
            event
            for event in events
            if (event.table in running.tables if event.action in _DROPS else event.table not in shadows)
        ]
        if not events:
            return
        # nor from those of virtual ones
        read = {(table, column) for table, column in read if table not in shadows}
        self._known.link()
        reads = {name for table, column in read for name in self._known.carried(table, column)}
        # what a trigger brings may be of any table, unless the statement reads none
        lineage = self._known.lineage({table for table, _ in read}, self._holdings.is_own)
        of_triggers = None if reads else frozenset[str]()
        own = events[0]
        if own.action == apsw.SQLITE_DELETE:
            if own.table not in running.tables:  # a view
                return
            running.deletes_from = own.table
            del events[0]
        for event in events:
            self._note(event, running, reads, lineage if event is own else of_triggers)

    def _note(self, event: _Event, running: _Running, reads: set[str], lineage: frozenset[str] | None) -> None:
        """Look at what a statement may do to a table, before it does."""
        action, name, column = event
        table = self._known.tables.get(name)
        if action == apsw.SQLITE_SAVEPOINT:
            self._savepoint(name, column or "")
        elif action in _CREATES:
            # asked before it runs: IF NOT EXISTS may make nothing
            if table is None and (name.startswith(TEMPORARY) or not self._holdings.exists(name)):
                self._known.tables[name] = Tracked(sources={ANY: reads} if reads else {})
                if reads:
                    self._fill(name, lineage)
        elif action in _DROPS:
            self._drop(name, running.tables[name][0])
        elif table is None:
            return
        elif action == apsw.SQLITE_ALTER_TABLE:
            if name in running.tables:
                self._alter(running, name, table, column)
        elif action == apsw.SQLITE_DELETE:
            # by a trigger or a cascade; what the run has made is its own affair
            if not table.is_made and name not in running.counted:
                running.counted[name] = self._holdings.count(name)
        elif action == apsw.SQLITE_UPDATE:
            table.sources.setdefault(fold(column or ""), set()).update(reads)
        else:
            if reads and table.is_made:
                table.sources.setdefault(ANY, set()).update(reads)
            self._fill(name, lineage)

    def _fill(self, name: str, lineage: frozenset[str] | None) -> None:
        """Note whose rows come into a table. They are counted when rows of others do, if the run has made it."""
        table = self._known.tables.get(name)
        if table is None or (table.came and table.filling == lineage):
            return
        if table.is_made and table.came:
            self._count(name, table)
        table.filling = lineage
        table.came.setdefault(lineage, 0)

    def _count(self, name: str, table: Tracked) -> int:
        """Return how many rows a table has that the run has made, and note whose came in last."""
        count = self._holdings.count(name)
        if table.came:
            table.came[table.filling] += count + table.deleted - table.since
            table.since = count + table.deleted
        return count

    def _savepoint(self, operation: str, name: str) -> None:
        if operation == "BEGIN":
            self._savepoints.append((name, copy.deepcopy(self._known)))
            return
        place = max((place for place, (known, _) in enumerate(self._savepoints) if known == name), default=None)
        if place is not None and operation == "ROLLBACK":
            self._known = copy.deepcopy(self._savepoints[place][1])
            del self._savepoints[place + 1 :]
        elif place is not None:
            del self._savepoints[place:]

    def _drop(self, name: str, spelt: str) -> None:
        table = self._known.tables.pop(name, None)
        if table is None:  # a shadow table that is dropped by its own name
            table = self._known.add(spelt)
        origin = table.origin
        if origin is None:
            return
        if table.is_made:
            count = self._count(name, table)
            origin.rows += table.added - table.deleted
            missing = origin.rows - count - sum(rows for _, rows in origin.missed)
            origin.missed.append((origin.dropped_by, max(0, missing)))
        else:
            origin.rows = self._holdings.count(name)
        # what it does not have any more, none that takes its place can have from it
        gone = [column for column in origin.held if not self._keeps(name, table, column)]
        origin.lost += [origin.held.pop(column) for column in gone]
        columns = {column: first for column, (first, _) in origin.held.items()}
        if origin.rows and not table.is_made:
            columns |= self._columns_of_before(name, origin)
        origin.held = {
            column: (first, self.source)
            for column, first in columns.items()
            if self._holdings.holds_values(name, column)
        }
        origin.dropped_by = self.source

    def _alter(self, running: _Running, name: str, table: Tracked, column: str | None) -> None:
        running.altered[name] = [fold(column) for column, _ in self._holdings.columns(name)]
        origin = table.origin
        if origin is None:
            return
        of_before = {} if table.is_made else self._columns_of_before(name, origin)
        if column is None:
            return
        column = fold(column)
        if column in of_before:
            holds = self._holdings.holds_values(name, column)
        else:  # it may have the values of another
            holds = column in origin.held and self._keeps(name, table, column)
            if holds and not self._holdings.holds_values(name, column):
                del origin.held[column]
        if holds:
            running.holding.add((name, column))

    def _finish(self, running: _Running) -> None:
        known = self._known
        named = self._holdings.changes() if running.deletes_from is not None else 0
        if (table := known.tables.get(running.deletes_from or "")) is not None:
            table.deleted += named
        for name, before in running.counted.items():
            lost = before - self._holdings.count(name) - (named if name == running.deletes_from else 0)
            if lost > 0:
                origin = known.tables[name].origin
                known.losses.append((running.source, Loss("rows", origin.name if origin else name, lost)))
        if running.altered:
            self._follow(running)
        if running.changes_shadows:
            known.shadows = self._holdings.shadows()

    def _follow(self, running: _Running) -> None:
        """Find where the altered tables and columns are now: a renamed table keeps its root page, if it has one."""
        now = self._holdings.tables()
        by_page = {page: name for name, (_, page) in now.items() if page}
        new = [name for name, (_, page) in now.items() if not page and name not in running.tables]
        for name, before in running.altered.items():
            table = self._known.tables[name]
            if name not in now:
                _, page = running.tables[name]
                present = by_page.get(page) if page else next(iter(new), None)
                if present is None:
                    continue
                self._known.tables[present] = self._known.tables.pop(name)
            else:
                present = name
            after = [fold(column) for column, _ in self._holdings.columns(present)]
            for was, is_now in zip(before, after, strict=False) if len(before) == len(after) else ():
                if was != is_now:
                    table.rename_column(was, is_now)
            for column in before if len(after) < len(before) else ():
                if column not in after:
                    table.drop_column(column, running.source, holds=(name, column) in running.holding)

    def _judge(self, origin: Origin, name: str | None) -> Iterator[tuple[Hashable, Loss]]:
        """Compare a table that was dropped, or has lost columns, with what has its place now."""
        rows = origin.rows if origin.dropped_by is not None else self._holdings.count(name) if name is not None else 0
        lost = 0 if origin.dropped_by is None else rows
        if origin.dropped_by is not None and name is not None:
            table = self._known.tables[name]
            count = self._count(name, table)
            lost = max(0, rows + table.added - table.deleted - count)
        by_whom: dict[Hashable, int] = {}
        for source, missing in [*origin.missed, (origin.dropped_by, lost)]:
            by_whom[source] = by_whom.get(source, 0) + min(missing, lost - sum(by_whom.values()))
        for source, number in by_whom.items():
            if number:
                is_gone = name is None and source == origin.dropped_by
                yield source, Loss("table" if is_gone else "rows", origin.name, number)
        if name is None or lost == rows:  # its columns have gone with it
            return
        table = self._known.tables[name]
        # with rows gone or replaced, those that are left may have no values
        whole = not (lost or table.deleted or table.added)
        gone = [it for column, it in origin.held.items() if not self._keeps(name, table, column, whole=whole)]
        for column, source in origin.lost + gone:
            yield source, Loss("column", origin.name, rows, column)

    def _keeps(self, name: str, table: Tracked, column: str, *, whole: bool = False) -> bool:
        """Return whether a table has a column of that name that was filled from it, by an UPDATE or a copy.

        If the table is `whole`, it has values there, unless an UPDATE of the script set those of a copy.
        """
        is_generated = {fold(other): generated for other, generated in self._holdings.columns(name)}.get(column)
        if is_generated is None or is_generated:
            return bool(is_generated)
        if not any(column in table.sources.get(written, ()) for written in (column, ANY)):
            return False
        is_set = table.is_made and column in table.sources
        return not whole or is_set or self._holdings.holds_values(name, column)

    @contextmanager
    def _look(self) -> Iterator[None]:
        self.looking = True
        try:
            yield
        finally:
            self.looking = False

    def _list(self) -> None:
        """List what was there before the run, before a statement that may take from it."""
        known = self._known
        known.shadows = self._holdings.shadows()
        for name, (spelt, _) in self._holdings.tables().items():
            if name not in known.tables and name not in known.shadows and not name.startswith("sqlite_"):
                known.tables[name] = self._known.add(spelt)
        known.listed = True

    def _columns_of_before(self, name: str, origin: Origin) -> dict[str, str]:
        """Return the columns of before that a table still has; none are altered before they are asked for here."""
        if origin.columns is None:
            origin.columns = {fold(column): column for column, _ in self._holdings.columns(name)}
        return origin.columns
