"""What a database holds: its tables, how many rows they have, and a hash of those. The ledger and SQLite's own are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import attrs

from dao.engine import Connection
from dao.migrate.schema.catalog import columns, fold, quoted, tables, typed

__all__ = ["Content", "contents", "holds_content"]


@attrs.frozen
class Content:
    """What a table holds: so many rows, and a hash that knows neither the order of rows nor that of columns."""

    rows: int
    hash: str


def holds_content(virtual: str, shadows: Collection[str]) -> bool:
    """Return whether a virtual table holds rows of its own, by the names of all shadow tables; all in lower case.

    One without shadow tables shows what is elsewhere. A full-text index without a `_content` is of another table's text,
    or of none that is kept.
    """
    own = {name.removeprefix(f"{virtual}_") for name in shadows if name.startswith(f"{virtual}_")}
    return bool(own) and ("content" in own or not own & {"idx", "segdir"})


def contents(connection: Connection) -> dict[str, Content]:
    """Return what each table holds. Reads all rows, one at a time."""
    return {table.name: _content(connection, table.name) for table in tables(connection) if table.stores_rows}


def _content(connection: Connection, table: str) -> Content:
    names = sorted((column.name for column in columns(connection, table) if column.is_listed), key=fold)
    heading = repr([name.lower() for name in names]).encode()
    total = rows = 0
    for row in connection.execute(f"SELECT {typed(names)} FROM {quoted(table)}"):
        rows += 1
        # a sum: equal rows do not cancel out, as they would in an exclusive or
        total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=24, key=heading[:64]).digest())
    digest = hashlib.blake2b(heading + total.to_bytes(64, "big"), digest_size=24).hexdigest()
    return Content(rows, digest)
