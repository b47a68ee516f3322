"""The effect of a script on a database, found by a look before and after: tables, rows, and the losses of rebuilds.

A few rows of each table show which values a rebuild brings into another column, or another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.rehearsal.findings import Rehearsed, RowChange
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import row_count
from dao.migrate.schema.model import Schema, differences
from dao.migrate.schema.names import fold, quoted
from dao.migrate.schema.reader import read
from dao.migrate.values import Difference, Loss, Result

__all__ = ["Effect", "Inventory", "Table", "inventory"]

#: So many rows of a table are looked at, and so much of each value.
_ROWS, _BYTES = 50, 200

#: A value's type, and its beginning.
_Value = tuple[str, Any]
#: Rows by their key; for each column, by folded name, its value.
Sample = Mapping[tuple[_Value, ...], Mapping[str, _Value]]


@attrs.frozen
class Table:
    """A table: its name, the number that it keeps when it is renamed, how many rows it has, and a few of them.

    The number of rows is None if they cannot be counted.
    """

    name: str
    number: int
    rows: int | None
    sample: Sample


@attrs.frozen
class Inventory:
    """A database at a moment: its tables by folded name, its schema, and how far AUTOINCREMENT has counted."""

    tables: dict[str, Table]
    schema: Schema
    sequences: dict[str, int]

    @property
    def children(self) -> list[str]:
        """The folded names of the tables that refer to others by foreign keys, sorted."""
        found = self.schema.objects.values()
        return sorted(fold(one.name) for one in found if any(item.family == "foreign key" for item in one.items))


def inventory(connection: Connection) -> Inventory:
    """Return what there is, without the ledger. Counts every table."""
    numbers = {item.name: item.number for item in catalog.definitions(connection) if item.type == "table"}
    tables: dict[str, Table] = {}
    for name, kind in ((table.name, table.kind) for table in catalog.tables(connection)):
        if kind != "shadow" and name in numbers:
            rows = _rows(connection, name, virtual=kind == "virtual")
            few = _sample(connection, name) if rows and kind != "virtual" else {}
            tables[fold(name)] = Table(name, numbers[name], rows, few)
    return Inventory(tables, read(connection), _sequences(connection))


def _rows(connection: Connection, name: str, *, virtual: bool) -> int | None:
    try:
        return row_count(connection, name)
    except apsw.SQLError:
        if not virtual:
            raise
        return None  # its module is not there


@attrs.frozen
class Effect:
    """The effect of a script, by inventories before and after, and the folded names of the tables that it `dropped`.

    `by_number`: nothing but a rebuild gives a table a new number, as VACUUM does.
    """

    before: Inventory
    after: Inventory
    dropped: frozenset[str]
    by_number: bool

    @cached_property
    def now(self) -> dict[str, str]:
        """Folded names of the tables of before, and what they are called now; without those that have gone."""
        made = {table.number: name for name, table in self.after.tables.items() if name not in self.before.tables}
        found = {name: name for name in self.before.tables if name in self.after.tables}
        for name, table in self.before.tables.items():
            if name not in found and name not in self.dropped and table.number in made:
                found[name] = made[table.number]
        return found

    @cached_property
    def rebuilt(self) -> dict[str, str]:
        """The tables that were dropped, or moved away, and made again: folded names and names, sorted by these."""
        found = {
            name: table.name
            for name, table in self.after.tables.items()
            if (was := self.before.tables.get(name))
            and (name in self.dropped or (self.by_number and was.number != table.number))
        }
        return dict(sorted(found.items(), key=lambda pair: pair[1]))

    def rows_before(self, name: str) -> int:
        """Return how many rows a table of before had, 0 if they could not be counted."""
        return self.before.tables[name].rows or 0

    def rows_now(self, name: str) -> int:
        """Return how many rows a table of before that is still there has now, 0 if they cannot be counted."""
        return self.after.tables[self.now[name]].rows or 0

    def row_changes(self) -> list[RowChange]:
        """Return the tables whose number of rows has changed, and those that were made, dropped or renamed, by name."""
        found = []
        for name, table in self.before.tables.items():
            successor = self.after.tables[self.now[name]] if name in self.now else None
            if successor is None:
                found.append(RowChange(table.name, table.rows, None))
            elif self.now[name] != name or table.rows != successor.rows:
                renamed = successor.name if self.now[name] != name else None
                found.append(RowChange(table.name, table.rows, successor.rows, renamed))
        made = [table for name, table in self.after.tables.items() if name not in self.now.values()]
        found += [RowChange(table.name, None, table.rows) for table in made]
        return sorted(found, key=lambda change: fold(change.table))

    def noted_in(self, found: Rehearsed, result: Result) -> Rehearsed:
        """Return the findings of a migration with what its script did to tables, whichever engine they are of."""
        return attrs.evolve(
            found,
            seconds=result.seconds,
            statements=result.statements,
            rebuilt=tuple(self.rebuilt.values()),
            lost=tuple(self.lost_objects()),
            rows=tuple(self.row_changes()),
        )

    def shrunk(self, losses: Iterable[Loss]) -> list[str]:
        """Return the folded names of the tables that are still there but miss rows, by number or by the losses."""
        lost = {fold(loss.table) for loss in losses if loss.kind == "rows"}
        return sorted(name for name in self.now if name in lost or self.rows_before(name) > self.rows_now(name))

    def lost_objects(self) -> list[Difference]:
        """Return the indexes, triggers, views, constraints and options that rebuilt tables had and have no more."""
        if not self.rebuilt:
            return []
        found = differences(self.before.schema, self.after.schema)
        return [difference for difference in found if self._is_lost(difference)]

    def _is_lost(self, difference: Difference) -> bool:
        name, part = fold(difference.name), difference.part
        if difference.type == "table":
            # an option that it has only now is no loss
            is_option = part is None and str(difference.actual).startswith("not ")
            is_constraint = difference.kind == "missing" and part is not None and not part.startswith("column ")
            return name in self.rebuilt and (is_option or is_constraint)
        owner = self.before.schema.objects.get((difference.type, name))
        of_rebuilt = owner is not None and (difference.type == "view" or fold(owner.table) in self.rebuilt)
        return difference.kind == "missing" and of_rebuilt

    def misplaced(self) -> list[str]:
        """Say which values are in another column or of another type since a rebuild, and which ids are given again."""
        found: list[str] = []
        for key, name in self.rebuilt.items():
            found += _misfits(name, self.before.tables[key].sample, self.after.tables[key].sample)
            was, now = self.before.sequences.get(key, 0), self.after.sequences.get(key, 0)
            if now < was:
                number = f"after {now}, not after {was}" if now else f"after its largest id, not after {was}"
                found.append(f"{name} goes on counting {number}: ids of deleted rows are given again")
        return found


# ---------------------------------------------------------------- a few rows, by key


def _sample(connection: Connection, table: str) -> Sample:
    """Return the first rows of a table by its primary key; none if it has none."""
    columns = [column for column in catalog.columns(connection, table) if not column.hidden]
    keys = catalog.primary_key(columns)
    if not keys:
        return {}
    names = [fold(column.name) for column in columns]
    # text as its bytes: it need not be UTF-8
    values = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN substr(CAST({name} AS BLOB), 1, {_BYTES}) "
        f"WHEN 'blob' THEN substr({name}, 1, {_BYTES}) ELSE {name} END"
        for name in (quoted(column.name) for column in columns)
    )
    order = ", ".join(map(quoted, keys))
    found = {}
    for row in connection.execute(f"SELECT {values} FROM main.{quoted(table)} ORDER BY {order} LIMIT {_ROWS}"):
        read = dict(zip(names, zip(row[::2], row[1::2], strict=True), strict=True))
        found[tuple(read[fold(key)] for key in keys)] = read
    return found


def _sequences(connection: Connection) -> dict[str, int]:
    """Return after which number each AUTOINCREMENT table goes on, by folded name."""
    if "sqlite_sequence" not in catalog.table_names(connection):
        return {}
    rows: list[Any] = connection.execute(
        "SELECT name, seq FROM main.sqlite_sequence WHERE typeof(seq) = 'integer'"
    ).fetchall()
    return {fold(name): seq for name, seq in rows}


def _misfits(table: str, before: Sample, after: Sample) -> Iterator[str]:
    """Say which values of a table that was rebuilt are in another column of it now, or of another type."""
    rows = [(before[key], after[key]) for key in before if key in after]
    if not rows:
        return
    olds, news = rows[0]
    moved = set()
    for column in olds:
        if all(_text(old[column]) == _text(new.get(column)) for old, new in rows):
            continue
        for other in sorted(olds.keys() & news.keys() - {column}):
            came = all(_text(old[column]) == _text(new[other]) for old, new in rows)
            if came and any(_text(old[column]) != _text(old[other]) for old, _ in rows):
                moved.add(other)
                yield f"the values of {table}.{column} are in {other} now"
    for column in [column for column in olds if column in news and column not in moved]:
        types = {(old[column][0], new[column][0]) for old, new in rows}
        for was, now in sorted(types):
            if was != now and "null" not in {was, now}:
                yield f"values of {table}.{column} that were {was} are {now} now"


def _text(value: _Value | None) -> str | None:
    """Return a value without its type, so that 1, 1.0 and '1' are the same; None stands for NULL, and for no value."""
    content = None if value is None else value[1]
    if isinstance(content, bytes):
        return content.decode(errors="backslashreplace")
    return None if content is None else str(content).removesuffix(".0")
