"""The mark of a copy that has not ended: a table of ours in its target, which says of each table what was copied.

It is made with the first rows and goes when all are there and compared. Each batch of rows commits with its line.
"""

from __future__ import annotations

from dao.engine import Connection, execute, fetch, transaction
from dao.migrate import database
from dao.migrate.schema.names import COPY
from dao.transfer.content import Digest

__all__ = ["begin", "end", "forget", "note", "read"]

_CREATE = f"""
CREATE TABLE IF NOT EXISTS {COPY} (
    table_name   TEXT   NOT NULL PRIMARY KEY,
    row_count    BIGINT NOT NULL,
    content_hash TEXT   NOT NULL
)
"""
_NOTE = f"""
INSERT INTO {COPY} (table_name, row_count, content_hash)
VALUES ($1, $2, $3)
ON CONFLICT (table_name) DO UPDATE SET row_count = excluded.row_count, content_hash = excluded.content_hash
"""


def read(connection: Connection) -> dict[str, Digest] | None:
    """Return what a copy that has not ended left in each table; None if there is no mark of one."""
    if COPY not in database.table_names(connection):
        return None
    rows = fetch(connection, f"SELECT table_name, row_count, content_hash FROM {COPY}")
    return {name: Digest(count, hashed) for name, count, hashed in rows}


def begin(connection: Connection) -> None:
    """Mark a database in which nothing is copied yet, in a transaction."""
    with transaction(connection):
        execute(connection, _CREATE)
        execute(connection, f"DELETE FROM {COPY}")


def note(connection: Connection, table: str, found: Digest) -> None:
    """Note what of a table is copied, in the transaction that is open."""
    execute(connection, _NOTE, (table, *found))


def forget(connection: Connection, table: str) -> None:
    """Note that nothing of a table is copied, in the transaction that is open."""
    execute(connection, f"DELETE FROM {COPY} WHERE table_name = $1", (table,))


def end(connection: Connection) -> None:
    """Take the mark away."""
    execute(connection, f"DROP TABLE {COPY}")
