"""The rows that a script takes, named by their keys: those are kept while it runs, and asked for afterwards."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.rehearsal.findings import KEYS, Gone
from dao.migrate.rehearsal.observation import Effect
from dao.migrate.schema import catalog, session
from dao.migrate.schema.catalog import typed
from dao.migrate.schema.names import fold, quoted

__all__ = ["Keys", "kept_keys"]

_STORE = quoted(session.BESIDE)
_ENCODINGS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


@attrs.frozen
class _Kept:
    """The keys of a table that were stored: in which table, of which columns, the first of which may be the rowid."""

    store: str
    columns: tuple[str, ...]
    primary: bool
    rowid: str | None


@attrs.frozen
class Keys:
    """The keys that tables had, by folded name."""

    connection: Connection
    kept: Mapping[str, _Kept]

    def gone(self, effect: Effect) -> list[Gone]:
        """Return the rows that have gone of the tables whose keys were kept and that are still there."""
        found = []
        for name, kept in self.kept.items():
            successor = effect.after.tables[effect.now[name]] if name in effect.now else None
            if successor is None or successor.rows is None:  # gone, or it cannot be read any more
                continue
            known_as = effect.before.tables[name].name
            one = _missing(self.connection, kept, known_as, successor.name, is_new=name in effect.rebuilt)
            if one is None:
                one = Gone(known_as, effect.rows_before(name) - successor.rows)
            if one.rows > 0:
                found.append(one)
        return found


@contextlib.contextmanager
def kept_keys(connection: Connection, tables: Iterable[str]) -> Iterator[Keys]:
    """Keep the keys of tables for the time of a block, in a database of their own that no rollback changes.

    No transaction is open when it begins or ends.
    """
    connection.execute(f"ATTACH '' AS {_STORE}")
    try:
        kept = {}
        for place, table in enumerate(tables):
            with contextlib.suppress(apsw.SQLError):  # a virtual table has what keys it likes
                kept[table] = _keep(connection, table, f'{_STORE}."dao rehearsal {place}"')
        yield Keys(connection, kept)
    finally:
        if not connection.in_transaction:
            connection.execute(f"DETACH {_STORE}")


def _keep(connection: Connection, table: str, store: str) -> _Kept:
    own = [column for column in catalog.columns(connection, table) if column.is_listed]
    primary = catalog.primary_key(own)
    rowid = catalog.rowid_name(own)
    columns = primary or [*([rowid] if rowid else []), *(column.name for column in own)]
    values = ", ".join(f"{quoted(name)} AS c{place}" for place, name in enumerate(columns))
    order = ", ".join(map(quoted, primary)) or "1"
    connection.execute(f"CREATE TABLE {store} AS SELECT {values} FROM {quoted(table)} ORDER BY {order}")
    return _Kept(store, tuple(columns), bool(primary), None if primary else rowid)


def _missing(connection: Connection, kept: _Kept, known_as: str, table: str, *, is_new: bool) -> Gone | None:
    """Return the rows that are in store and no more in a table; None if they cannot be compared."""
    there = {fold(column.name) for column in catalog.columns(connection, table) if column.is_listed}
    columns = dict(enumerate(kept.columns))
    if kept.primary and not {fold(name) for name in kept.columns} <= there:
        return None
    if not kept.primary and kept.rowid and not is_new:
        columns = {0: kept.rowid}
    if kept.primary or (kept.rowid and not is_new):
        # without an affinity of its own, a stored value is compared as the column is, and by its index
        on = " AND ".join(f"new.{quoted(name)} = +old.c{place}" for place, name in columns.items())
        absent = f"new.{quoted(columns[0])} IS NULL AND old.c0 IS NOT NULL"
        rest = f"FROM {kept.store} AS old LEFT JOIN main.{quoted(table)} AS new ON {on} WHERE {absent}"
    else:
        columns = {place: name for place, name in columns.items() if fold(name) in there}
        listed = ", ".join(f"c{place}" for place in columns) or "NULL AS c0"
        theirs = ", ".join(map(quoted, columns.values())) or "NULL"
        rest = f"FROM (SELECT {listed} FROM {kept.store} EXCEPT SELECT {theirs} FROM main.{quoted(table)}) AS old"
    number: Any = connection.execute(f"SELECT count(*) {rest}").get
    values = typed(f"c{place}" for place in columns) or "NULL, NULL"
    rows: list[Any] = connection.execute(f"SELECT {values} FROM (SELECT old.* {rest} LIMIT {KEYS})").fetchall()
    encoding = _ENCODINGS[str(connection.pragma("encoding"))]
    pairs = (zip(row[::2], row[1::2], strict=True) for row in rows)
    keys = [{name: _json(*pair, encoding) for name, pair in zip(columns.values(), row, strict=False)} for row in pairs]
    return Gone(known_as, int(number), tuple(keys))


def _json(kind: str, value: Any, encoding: str) -> Any:
    """Return a value as JSON can have it."""
    if kind == "text":
        return str(value, encoding, "backslashreplace")
    if kind == "blob":
        return f"x'{bytes(value).hex()}'"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
