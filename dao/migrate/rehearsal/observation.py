"""What a script has done to a database, found by looking at it before and after: tables, rows, keys, what a rebuild lost."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.migrate.rehearsal.findings import KEYS, Gone, RowChange
from dao.migrate.rehearsal.sample import Sample, misfits, sample, sequences
from dao.migrate.schema import catalog, session
from dao.migrate.schema import replay as schema
from dao.migrate.schema.catalog import quoted, row_count
from dao.migrate.schema.model import Schema
from dao.migrate.values import Difference, Loss

__all__ = [
    "Keys",
    "State",
    "changes",
    "children",
    "look",
    "lost_objects",
    "misplaced",
    "rebuilt",
    "shrunk",
    "successors",
]


@attrs.frozen
class Table:
    """A table: its name, the number that it keeps when it is renamed, its rows, if these can be counted, and a few of them."""

    name: str
    number: int
    rows: int | None
    sample: Sample


@attrs.frozen
class State:
    """A database at a moment: its tables by name in lower case, its schema, and how far AUTOINCREMENT has counted."""

    tables: dict[str, Table]
    schema: Schema
    sequences: dict[str, int]


def look(connection: Connection) -> State:
    """Return what there is, without the ledger. Counts every table."""
    tables: dict[str, Table] = {}
    numbers = {item.name: item.number for item in catalog.definitions(connection) if item.type == "table"}
    for found in catalog.tables(connection):
        if found.kind != "shadow":
            name, virtual = found.name, found.kind == "virtual"
            rows = _rows(connection, name, virtual=virtual)
            some = sample(connection, name) if rows and not virtual else {}
            tables[name.lower()] = Table(name, numbers[name], rows, some)
    return State(tables, schema.read(connection), sequences(connection))


def _rows(connection: Connection, name: str, *, virtual: bool) -> int | None:
    try:
        return row_count(connection, name)
    except apsw.SQLError:
        if not virtual:
            raise
        return None  # its module is not there


def successors(before: State, after: State, dropped: set[str]) -> dict[str, str]:
    """Return what the tables of before are called now, in lower case; without those that have gone."""
    made = {table.number: name for name, table in after.tables.items() if name not in before.tables}
    found = {name: name for name in before.tables if name in after.tables}
    for name, table in before.tables.items():
        if name not in found and name not in dropped and table.number in made:
            found[name] = made[table.number]
    return found


def rebuilt(before: State, after: State, dropped: set[str], *, by_number: bool) -> list[str]:
    """Return the tables that were dropped, or moved away, and made again; `by_number`: nothing but that gives a new one."""
    return sorted(
        table.name
        for name, table in after.tables.items()
        if name in before.tables and (name in dropped or (by_number and before.tables[name].number != table.number))
    )


def changes(before: State, after: State, now: dict[str, str]) -> list[RowChange]:
    """Return the tables whose number of rows has changed, and those that were made, dropped or renamed, by name."""
    found = []
    for name, table in before.tables.items():
        successor = after.tables[now[name]] if name in now else None
        if successor is None:
            found.append(RowChange(table.name, table.rows, None))
        elif now[name] != name:
            found.append(RowChange(table.name, table.rows, successor.rows, successor.name))
        elif table.rows != successor.rows:
            found.append(RowChange(table.name, table.rows, successor.rows))
    made = after.tables.keys() - set(now.values())
    found += [RowChange(after.tables[name].name, None, after.tables[name].rows) for name in made]
    return sorted(found, key=lambda change: change.table.lower())


def shrunk(before: State, after: State, now: dict[str, str], losses: Iterable[Loss] = ()) -> list[str]:
    """Return the tables of before, in lower case, that are still there but miss rows."""
    lost = {loss.table.lower() for loss in losses if loss.kind == "rows"}
    return sorted(
        name
        for name, successor in now.items()
        if name in lost or (before.tables[name].rows or 0) > (after.tables[successor].rows or 0)
    )


def lost_objects(before: State, after: State, made_again: Sequence[str]) -> list[Difference]:
    """Return the indexes, triggers, views, constraints and options that rebuilt tables had and have no more."""
    tables = {name.lower() for name in made_again}
    if not tables:
        return []
    found = []
    for difference in schema.differences(before.schema, after.schema):
        name, part = difference.name.lower(), difference.part
        if difference.type == "table":
            # one that it has only now is no loss
            option = part is None and str(difference.actual).startswith("not ")
            constraint = difference.kind == "missing" and part is not None and not part.startswith("column ")
            is_lost = name in tables and (option or constraint)
        else:
            owner = before.schema.objects.get((difference.type, name))
            of_rebuilt = owner is not None and (difference.type == "view" or owner.table.lower() in tables)
            is_lost = difference.kind == "missing" and of_rebuilt
        if is_lost:
            found.append(difference)
    return found


def misplaced(before: State, after: State, made_again: Sequence[str]) -> list[str]:
    """Return what rebuilds did to values: which are in another column or of another type, which ids will be given again."""
    found: list[str] = []
    for name in made_again:
        old, new = before.tables[name.lower()], after.tables[name.lower()]
        found += misfits(name, old.sample, new.sample)
        was, now = before.sequences.get(name.lower(), 0), after.sequences.get(name.lower(), 0)
        if now < was:
            number = f"after {now}, not after {was}" if now else f"after its largest id, not after {was}"
            found.append(f"{name} goes on counting {number}: ids of deleted rows are given again")
    return found


def children(connection: Connection) -> list[str]:
    """Return the tables, in lower case, that refer to others by foreign keys, by name."""
    return sorted(
        table.name.lower()
        for table in catalog.tables(connection)
        if table.kind == "table" and catalog.foreign_keys(connection, table.name)
    )


# ---------------------------------------------------------------- keys

_STORE = quoted(session.BESIDE)
_ENCODINGS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


@attrs.frozen
class _Kept:
    """The keys of a table that were stored: in which table, of which columns, the first of which may be the rowid."""

    table: str
    store: str
    columns: tuple[str, ...]
    primary: bool
    rowid: str | None


class Keys:
    """The keys that tables had, kept in a database of their own on the connection: a rollback leaves them alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: dict[str, _Kept] = {}

    @contextlib.contextmanager
    def of(self, tables: Iterable[str]) -> Iterator[None]:
        """Keep the keys of tables for the time of a block. No transaction is open when it begins or ends."""
        self._connection.execute(f"ATTACH '' AS {_STORE}")
        try:
            for place, table in enumerate(tables):
                self._keep(table, f'{_STORE}."dao rehearsal {place}"')
            yield
        finally:
            self._kept = {}
            if not self._connection.in_transaction:
                self._connection.execute(f"DETACH {_STORE}")

    def gone(self, before: State, after: State, now: dict[str, str], made_again: Sequence[str]) -> list[Gone]:
        """Return the rows that have gone of the tables whose keys were kept and that are still there."""
        again = {name.lower() for name in made_again}
        found = []
        for name, kept in self._kept.items():
            if name not in now or after.tables[now[name]].rows is None:  # gone, or it cannot be read any more
                continue
            one = self._missing(kept, after.tables[now[name]].name, is_new=name in again)
            if one is None:
                one = Gone(kept.table, (before.tables[name].rows or 0) - (after.tables[now[name]].rows or 0))
            if one.rows > 0:
                found.append(attrs.evolve(one, table=before.tables[name].name))
        return found

    def _keep(self, table: str, store: str) -> None:
        found = [column for column in catalog.columns(self._connection, table) if column.is_listed]
        names = {column.name.lower() for column in found}
        primary = [column.name for column in sorted(found, key=lambda column: column.key) if column.key]
        rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in names), None)
        columns = primary or [*([rowid] if rowid else []), *(column.name for column in found)]
        values = ", ".join(f"{quoted(name)} AS c{place}" for place, name in enumerate(columns))
        order = ", ".join(map(quoted, primary)) or "1"
        with contextlib.suppress(apsw.SQLError):  # a virtual table has what keys it likes
            self._connection.execute(f"CREATE TABLE {store} AS SELECT {values} FROM {quoted(table)} ORDER BY {order}")
            self._kept[table] = _Kept(table, store, tuple(columns), bool(primary), None if primary else rowid)

    def _missing(self, kept: _Kept, table: str, *, is_new: bool) -> Gone | None:
        """Return the rows that are in store and no more in a table; None if they cannot be compared."""
        there = {one.name.lower() for one in catalog.columns(self._connection, table) if one.is_listed}
        columns = dict(enumerate(kept.columns))
        if kept.primary and not {name.lower() for name in kept.columns} <= there:
            return None
        if not kept.primary and kept.rowid and not is_new:
            columns = {0: kept.rowid}
        if kept.primary or (kept.rowid and not is_new):
            # without an affinity of its own, a stored value is compared as the column is, and by its index
            on = " AND ".join(f"new.{quoted(name)} = +old.c{place}" for place, name in columns.items())
            absent = f"new.{quoted(columns[0])} IS NULL AND old.c0 IS NOT NULL"
            rest = f"FROM {kept.store} AS old LEFT JOIN main.{quoted(table)} AS new ON {on} WHERE {absent}"
            keys = [f"old.c{place}" for place in columns]
        else:
            columns = {place: name for place, name in columns.items() if name.lower() in there}
            listed = ", ".join(f"c{place}" for place in columns) or "NULL AS c0"
            theirs = ", ".join(quoted(name) for name in columns.values()) or "NULL"
            rest = f"FROM (SELECT {listed} FROM {kept.store} EXCEPT SELECT {theirs} FROM main.{quoted(table)})"
            keys = [f"c{place}" for place in columns]
        number: Any = self._connection.execute(f"SELECT count(*) {rest}").get
        typed = ", ".join(
            f"typeof({key}), CASE typeof({key}) WHEN 'text' THEN CAST({key} AS BLOB) ELSE {key} END" for key in keys
        )
        rows: list[Any] = self._connection.execute(f"SELECT {typed or 'NULL, NULL'} {rest} LIMIT {KEYS}").fetchall()
        encoding = _ENCODINGS[str(self._connection.pragma("encoding"))]
        return Gone(
            kept.table,
            int(number),
            tuple(
                {
                    name: _json(kind, value, encoding)
                    for name, kind, value in zip(columns.values(), row[::2], row[1::2], strict=False)
                }
                for row in rows
            ),
        )


def _json(kind: str, value: Any, encoding: str) -> Any:
    """Return a value as JSON can have it."""
    if kind == "text":
        return str(value, encoding, "backslashreplace")
    if kind == "blob":
        return f"x'{bytes(value).hex()}'"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
