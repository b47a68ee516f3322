"""Where a statement ends, as SQLite sees it."""

from __future__ import annotations

import apsw

__all__ = ["is_complete", "wants_more"]


def is_complete(sql: str) -> bool:
    """Return whether a text ends where a statement ends: with a semicolon that is in no string, comment or trigger."""
    return apsw.complete(sql)


def wants_more(statement: str) -> bool:
    """Return whether SQLite's compiler comes to the end of a statement and wants more."""
    connection = apsw.Connection(":memory:")
    try:
        connection.cursor().execute(statement, explain=1).close(True)
    except apsw.Error as error:
        return str(error) == "incomplete input"
    finally:
        connection.close()
    return False
