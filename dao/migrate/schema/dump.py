"""The schema as one text."""

from __future__ import annotations

import math
from typing import Any

import apsw

from dao.migrate.schema.replay import _LEDGER, replayed
from dao.migrate.scripts.load import Source, loaded

__all__ = ["dump"]


# What can be executed as it stands: triggers may be on views, and shadow tables come with their virtual table.
_STATEMENTS = f"""
SELECT sql
FROM   sqlite_schema
WHERE  sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND lower(tbl_name) NOT IN ({_LEDGER})
       AND tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')
ORDER  BY CASE type WHEN 'table' THEN 1 WHEN 'index' THEN 2 WHEN 'view' THEN 3 ELSE 4 END, name
"""
_HEADER = """\
-- The schema that the migrations make, up to and with {last}.
-- Written by `dao schema dump`: do not edit it, write a migration.
"""


def dump(migrations: Source = None) -> str:
    """Return the schema that the migrations make, as a script: tables, indexes, views, triggers, each by name.

    The text is SQLite's own. Executed in an empty database, it makes that schema.

    Raises:
        MigrationError: One of them fails in an empty database.
    """
    files = loaded(migrations)
    with replayed(((migration.id, migration.up.text) for migration in files), patience=math.inf) as connection:
        rows: list[Any] = connection.execute(_STATEMENTS).fetchall()
    header = _HEADER.format(last=files[-1].id if files else "none")
    return "\n".join([header, *(f"{_ended(sql)}\n" for (sql,) in rows)])


def _ended(sql: str) -> str:
    """Return a statement with its semicolon, which must not end up in a comment."""
    return sql + (";" if apsw.complete(sql + ";") else "\n;")
