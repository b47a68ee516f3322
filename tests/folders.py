"""Folders of migrations to write, and the whole content of a database to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import apsw

from dao.migrate.schema.names import TABLES

#: What an entry of a folder may be: a text, bytes, or something that makes it.
Entry = str | bytes | Callable[[Path], object]

#: Three pairs. The second holds a row, so that a rollback has something to lose.
THREE: dict[str, Entry] = {
    "0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);",
    "0001_a.rollback.sql": "DROP TABLE a;",
    "0002_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY);\nINSERT INTO b VALUES (2);",
    "0002_b.rollback.sql": "DROP TABLE b;",
    "0003_c.sql": "CREATE TABLE c (id INTEGER PRIMARY KEY);",
    "0003_c.rollback.sql": "DROP TABLE c;",
}
IDS = ["0001_a", "0002_b", "0003_c"]
#: The first line of a script that runs outside of a transaction.
ALONE = "-- transactional: false\n"


def write(folder: Path, entries: Mapping[str, Entry]) -> Path:
    """Make a folder with these entries, or add them to one, and return it."""
    folder.mkdir(exist_ok=True)
    for name, content in entries.items():
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def with_fourth(folder: Path, script: str, id: str = "0004_x", rollback: str | None = None) -> Path:
    """Write the three pairs and another migration into a folder and return it."""
    fourth = {f"{id}.sql": script} | ({} if rollback is None else {f"{id}.rollback.sql": rollback})
    return write(folder, THREE | fourth)


def ids(results: Iterable[Any]) -> list[str]:
    """Return the ids of results, steps or migrations."""
    return [result.id for result in results]


def query(database: Path, sql: str, *values: Any) -> list[Any]:
    """Run a statement on a connection of its own and return its rows."""
    connection = apsw.Connection(str(database))
    connection.set_busy_timeout(60_000)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def schema(database: Path) -> list[Any]:
    """Return everything that the schema holds, but for the ledger."""
    rows = query(database, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
    # SQLite makes sqlite_sequence with the first AUTOINCREMENT, and nobody can drop it
    return [row for row in rows if row[2] not in {*TABLES, "sqlite_sequence"}]


def tables(database: Path) -> list[str]:
    """Return the names of the tables, but for the ledger's."""
    return [name for kind, name, _, _ in schema(database) if kind == "table"]


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def dump(database: Path) -> dict[str, list[Any]]:
    """Return all that a database holds, its ledger too: the schema, every table's rows, and what its header says."""
    if not database.exists():
        return {}
    connection = apsw.Connection(str(database))
    try:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        statements = {
            "schema": "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
            **{name: "SELECT * FROM " + quoted(name) for (name,) in names},
            **{name: f"PRAGMA {name}" for name in ("user_version", "application_id", "integrity_check")},
        }
        return {name: connection.execute(sql).fetchall() for name, sql in statements.items()}
    finally:
        connection.close()
