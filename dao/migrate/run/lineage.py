"""The tables in the middle of a run: which were there before it, and which table has the place of each by now."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import attrs

from dao.migrate.schema.names import fold
from dao.migrate.values import Loss

__all__ = ["ANY", "TEMPORARY", "Known", "Origin", "Tracked"]

#: In `Tracked.sources`: an INSERT, which does not tell which columns it fills from which.
ANY = ""
#: In front of the name of a temporary table, which may be that of another; no name in SQL holds it.
TEMPORARY = "\0"


@attrs.define
class Origin:
    """A table of before the run, as it was; `rows` once it is dropped, and what became of them since.

    `missed` are those that the table in its place lacked, whenever it was dropped itself, and whose script had
    dropped it before. `columns` are those of before that are still there, by their present names; read when they may
    change. `held` are those that held values and went, by the names they had then: what they were called before the
    run, and whose script took them. `lost` are those of them that nothing can have kept.
    """

    name: str
    columns: dict[str, str] | None = None
    dropped_by: Hashable = None
    rows: int = 0
    missed: list[tuple[Hashable, int]] = attrs.Factory(list)
    held: dict[str, tuple[str, Hashable]] = attrs.Factory(dict)
    lost: list[tuple[str, Hashable]] = attrs.Factory(list)


@attrs.define
class Tracked:
    """A table: the one of before whose rows it has, or has taken over, and what the run did to it.

    `sources`: which columns were read, of whatever table, to UPDATE a column of it, and by INSERTs (under `ANY`).
    `deleted` are the rows that DELETEs named. `came` are the rows that INSERTs brought, by the tables of before whose
    rows they can be, by name: none for what VALUES gives, None if that is not known. Those of `filling` are not in it
    that came after there were `since`, with those deleted.
    """

    origin: Origin | None = None
    is_made: bool = True
    sources: dict[str, set[str]] = attrs.Factory(dict)
    deleted: int = 0
    came: dict[frozenset[str] | None, int] = attrs.Factory(dict)
    filling: frozenset[str] | None = None
    since: int = 0

    @property
    def lineage(self) -> frozenset[str] | None:
        """The tables of before whose rows it may have; None if that is not known."""
        # those in the place of one that was dropped are what is to be kept from then on, whoever made them
        own = frozenset({fold(self.origin.name)}) if self.origin else frozenset()
        return None if None in self.came else own.union(*filter(None, self.came))

    @property
    def added(self) -> int:
        """How many rows came from elsewhere than the table of before that it replaces."""
        name = fold(self.origin.name) if self.origin else ""
        return sum(rows for tables, rows in self.came.items() if tables is not None and name not in tables)

    def rename_column(self, was: str, now: str) -> None:
        """Follow a column that was renamed."""
        if was in self.sources:
            self.sources[now] = self.sources.pop(was)
        origin = self.origin
        if origin is None:
            return
        if origin.columns is not None and was in origin.columns:
            origin.columns[now] = origin.columns.pop(was)
        if was in origin.held:
            origin.held[now] = origin.held.pop(was)
            for reads in self.sources.values():
                if was in reads:
                    reads.add(now)

    def drop_column(self, column: str, by: Hashable, *, holds: bool) -> None:
        """Note that a column was dropped, and by whom; `holds`: it held values of before."""
        # one of its name that comes later is another
        self.sources.pop(column, None)
        self.sources.get(ANY, set()).discard(column)
        origin = self.origin
        if origin is None:
            return
        first = None if self.is_made or origin.columns is None else origin.columns.pop(column, None)
        if column in origin.held:
            # this one has its values, or nothing has them
            earlier = origin.held.pop(column)
            if first is None and holds:
                first = earlier[0]
            else:
                origin.lost.append(earlier)
        if first is not None and holds:
            # the one that has its name of before may have been filled from it
            place = fold(first) if column in self.sources.get(fold(first), ()) else column
            self.sources.get(place, set()).add(place)
            origin.held[place] = (first, by)


@attrs.define
class Known:
    """The tables known so far, by present name: all of before, once `listed`, and those that the run made.

    The temporary ones of the script that runs are among those.
    """

    listed: bool = False
    tables: dict[str, Tracked] = attrs.Factory(dict)
    origins: list[Origin] = attrs.Factory(list)
    shadows: frozenset[str] = frozenset()
    losses: list[tuple[Hashable, Loss]] = attrs.Factory(list)

    def add(self, name: str) -> Tracked:
        """Note a table of before, and return it."""
        self.origins.append(Origin(name))
        return Tracked(self.origins[-1], is_made=False)

    def lineage(self, tables: Iterable[str], is_own: Callable[[str], bool]) -> frozenset[str] | None:
        """Return the tables of before whose rows a statement may copy that reads these; None if that is not known.

        That of a table which is not its `own` is not: a virtual one may show what is in another.
        """
        found: set[str] = set()
        for name in tables:
            table = self.tables.get(name)
            of_table = table.lineage if table is not None and is_own(name) else None
            if of_table is None:
                return None
            found |= of_table
        return frozenset(found)

    def carried(self, table: str, column: str) -> set[str]:
        """Return the names of the columns whose values a column may hold.

        That is its own, unless it is of a copy that names its columns otherwise: then any by which that was filled.
        """
        tracked = self.tables.get(table)
        if tracked is None or not tracked.is_made:
            return {column}
        filled = tracked.sources.get(ANY, set()) | tracked.sources.get(column, set())
        return {column} if column in filled else {column} | filled

    def forget_temporary(self) -> None:
        """Forget the temporary tables of a script that has come to its end."""
        for name in [name for name in self.tables if name.startswith(TEMPORARY)]:
            del self.tables[name]

    def link(self) -> None:
        """Give a table that the run has made the rows to keep of the dropped one whose name it has taken."""
        dropped = [origin for origin in self.origins if origin.dropped_by is not None]
        taken = {id(table.origin) for table in self.tables.values()} if dropped else set()
        for origin in dropped:
            if id(origin) not in taken:
                table = self.tables.get(fold(origin.name))
                if table is not None and table.origin is None:
                    table.origin = origin
