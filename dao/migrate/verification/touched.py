"""The tables that a script touches, and those whose rows can make a difference to it.

A script has no branches: whatever rows there are, it is compiled to the same statements. So the authorizer, which is
asked of each table that a statement reads or writes, by a trigger or a foreign key's action too, tells all that the
script can do, and a table that it does not name is the same afterwards, row by row. That does not hold for what the
authorizer cannot see: a virtual table does as it likes, and `writable_schema` makes another table of any name. Where a
script has to do with these, it may touch everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import apsw

from dao.engine.sqlite import Connection
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.model import Object, Schema
from dao.migrate.schema.names import fold
from dao.migrate.schema.tokens import normal

__all__ = ["Touched", "Trace", "related"]

#: Folded names of tables; None for all that there are.
Touched = frozenset[str] | None

_SECOND = frozenset({apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_INDEX})
_WITH_NAMES = frozenset({"trigger", "view", "virtual table"})
#: What shows, or changes, pages of any table.
_PAGES = frozenset({"sqlite_dbpage", "dbstat"})


class Trace(Guard):
    """A guard that notes, too, which tables its scripts read and write."""

    heeded = Guard.heeded | {apsw.SQLITE_CREATE_INDEX, apsw.SQLITE_PRAGMA}

    def __init__(self, holdings: Holdings | Connection) -> None:
        super().__init__(holdings)
        self._read: set[str] = set()
        self._written: set[str] = set()
        #: The tables, by folded name, into which they INSERT.
        self.inserts: set[str] = set()
        self._anything = False

    def saw(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> None:
        """Note what the authorizer was told of the statement that is being compiled."""
        if action == apsw.SQLITE_READ:
            self._read.add(first or "")
        elif action == apsw.SQLITE_PRAGMA:
            self._anything |= (first or "").lower() == "writable_schema" and second is not None
        elif action != apsw.SQLITE_SAVEPOINT:
            self._written.add((second if action in _SECOND else first) or "")
            if action == apsw.SQLITE_INSERT:
                self.inserts.add(fold(first or ""))
        if action in Guard.heeded:
            super().saw(action, first, second, database, trigger)

    def written(self, *schemas: Schema) -> Touched:
        """Return the tables whose rows or structure may have changed; `schemas` are those before and after."""
        return self._names(self._written, schemas)

    def touched(self, *schemas: Schema) -> Touched:
        """Return the tables that were read or may have changed."""
        return self._names(self._read | self._written, schemas)

    def _names(self, names: Iterable[str], schemas: Iterable[Schema]) -> Touched:
        found = frozenset(map(fold, names))
        virtual = frozenset[str]().union(*(schema.virtual for schema in schemas))
        # a virtual table may be written by a trigger, so it counts whether it is read or written
        everything = self._anything or not found.isdisjoint(_PAGES)
        return None if everything or not virtual.isdisjoint(map(fold, self._read | self._written)) else found


def related(touched: Touched, *schemas: Schema) -> Touched:
    """Return the tables that must hold rows if scripts that touch these are to meet all that rows can do to them.

    Beside themselves these are their children, whose foreign keys are checked; all parents, without which there are no
    rows to refer to; and the tables that triggers bring together, as those may be filled by the others only.
    """
    if touched is None:
        return None
    objects = [one for schema in schemas for one in schema.objects.values()]
    nodes = {normal(one.name): fold(one.name) for one in objects if one.type not in {"index", "trigger"}}
    parents = {fold(one.name): one.parents for one in objects if one.parents}
    bound = [(one.type, fold(one.table), _named(one, nodes)) for one in objects if one.type in _WITH_NAMES]
    wanted: set[str] = {name for name, of in parents.items() if not of.isdisjoint(touched)} | {*touched}
    size = -1
    while len(wanted) > size:
        size = len(wanted)
        for name in tuple(wanted):
            wanted |= parents.get(name, frozenset())
        for type, owner, names in bound:
            if owner in wanted or (type == "trigger" and not names.isdisjoint(wanted)):
                wanted |= {owner} | names
    return frozenset(wanted)


def _named(one: Object, nodes: Mapping[str, str]) -> frozenset[str]:
    """Return the tables and views that a definition names."""
    return frozenset(nodes[token.value] for item in one.items for token in item.content if token.value in nodes)  # type: ignore[attr-defined]
