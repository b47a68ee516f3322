"""An engine's error as one of ours: raised in its place, with what it says about statement and row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dao.engine.engines import engine_for, is_connection, not_a_connection
from dao.errors import Error

if TYPE_CHECKING:
    from dao.rows import Table

__all__ = ["raise_known", "translated"]


def raise_known(
    error: Exception,
    connection: Any,
    sql: str = "",
    parameters: Sequence[Any] = (),
    *,
    commits: bool = False,
    table: Table[Any] | None = None,
) -> NoReturn:
    """Raise the error of ours for one that a statement raised, or that one itself.

    `commits`: the statement is a transaction by itself. `table`: the parameters are a row of it.
    """
    if not is_connection(connection):
        raise not_a_connection(connection) from (None if isinstance(error, TypeError) else error)
    known = engine_for(connection).translated(error, connection, sql, parameters, commits=commits, table=table)
    try:
        if known is None:
            raise error
        raise known from error
    finally:
        # The traceback has this frame, and would keep itself alive in a circle: with the caller's frames, and the
        # cursors in them that hold the database as it was, until the garbage is collected.
        del error, known


def translated(error: Exception, connection: Any) -> Error | None:
    """Return the error of ours for one that a statement of the caller's raised, or None if it goes on as it is."""
    return engine_for(connection).translated(error, connection, "", (), commits=False, table=None)
