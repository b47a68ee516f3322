"""The catalog: which tables there are, how many rows they have, and which are the ledger's. The ledger and SQLite's own are left out."""

from __future__ import annotations

from typing import Any

from dao.engine import Connection

__all__ = ["TABLES", "TABLE_NAMES", "holds_rows", "quoted", "row_count", "row_counts", "tables"]


#: The tables that hold the ledger: yoyo's, and ours.
TABLES = (
    "_yoyo_migration",
    "_yoyo_log",
    "_yoyo_version",
    "yoyo_lock",
    "_dao_migration",
    "_dao_history",
    "_dao_schema",
)
#: Reads the names of all tables.
TABLE_NAMES = "SELECT name FROM sqlite_schema WHERE type = 'table'"


_LEDGER = frozenset(name.lower() for name in TABLES)
# what a virtual table holds is in its shadow tables
_TABLES = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') ORDER BY name"


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def tables(connection: Connection) -> list[str]:
    """Return the names of the tables that hold rows, or may, sorted."""
    names: list[Any] = connection.execute(_TABLES).fetchall()
    return [name for (name,) in names if name.lower() not in _LEDGER and not name.lower().startswith("sqlite_")]


def row_count(connection: Connection, table: str) -> int:
    """Return how many rows a table has. Reads the smallest index, or all of the table."""
    number: Any = connection.execute(f"SELECT count(*) FROM {quoted(table)}").get
    return int(number)


def row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has."""
    return {table: row_count(connection, table) for table in tables(connection)}


def holds_rows(connection: Connection) -> bool:
    """Return whether any table holds a row."""
    return any(connection.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1").fetchall() for table in tables(connection))
