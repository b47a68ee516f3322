"""Rows that are written as they were stored elsewhere: no trigger fires, and numbers go on where they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dao.engine import Connection, PerEngine, execute, fetch, text_for
from dao.rows import Table

__all__ = ["go_on_from", "last_number", "without_triggers"]

# Of each trigger the statement that takes it away, and the one that brings it back as it was, in the order in which
# they were made: that is the order in which they fire, or its reverse.
_TRIGGERS = PerEngine(
    """
    SELECT 'DROP TRIGGER "' || replace(name, '"', '""') || '"', sql
    FROM   sqlite_schema
    WHERE  type = 'trigger' AND tbl_name = $1 COLLATE NOCASE -- as whoever made the trigger wrote it
    ORDER  BY rowid
    """,
    """
    SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),
           format('ALTER TABLE %s ENABLE %s TRIGGER %I', tgrelid::regclass,
                  CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, tgname)
    FROM   pg_trigger
    WHERE  tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled <> 'D'
    ORDER  BY oid
    """,
)
_LAST_NUMBER = PerEngine(
    "SELECT seq FROM sqlite_sequence WHERE name = 'task_events'",
    # not `pg_sequence_last_value`, which is NULL for a role that may not know it
    "SELECT CASE WHEN is_called THEN last_value END FROM task_events_seq_seq",
)
_GO_ON_FROM = PerEngine(
    "UPDATE sqlite_sequence SET seq = $1 WHERE name = 'task_events' RETURNING seq",
    "SELECT setval(pg_get_serial_sequence('task_events', 'seq'), $1)",
)
_BEGIN_FROM = "INSERT INTO sqlite_sequence (name, seq) VALUES ('task_events', $1)"


@contextlib.contextmanager
def without_triggers(connection: Connection, *tables: Table[Any]) -> Iterator[None]:
    """Let no trigger of the tables fire in a block, all of which is in the transaction that is open."""
    found = [row for table in tables for row in fetch(connection, text_for(connection, _TRIGGERS), (table.name,))]
    for away, _ in found:
        execute(connection, away)
    yield
    for _, back in found:
        execute(connection, back)


def last_number(connection: Connection) -> int | None:
    """Return the last number that an event was given, though it may have gone; None if none was."""
    found = fetch(connection, text_for(connection, _LAST_NUMBER))
    return found[0][0] if found else None


def go_on_from(connection: Connection, number: int | None) -> None:
    """Have the next event get a number after this one, in the transaction that is open."""
    if number is not None and not fetch(connection, text_for(connection, _GO_ON_FROM), (number,)):
        execute(connection, _BEGIN_FROM, (number,))
