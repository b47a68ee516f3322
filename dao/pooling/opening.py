"""The connections of a pool, which a function of the program's prepares before they are lent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dao import engine, url
from dao.errors import Error, PrepareFailed
from dao.transactions import done

__all__ = ["Prepare", "open_connection", "prepare_connection"]

#: A function of the program's that sets a new connection up.
Prepare = Callable[[Any], object]


def open_connection(database: url.AnyURL, prepare: Prepare | None, deadline: float = math.inf) -> Any:
    """Open a connection until a moment of the monotonic clock, and prepare it.

    Raises:
        Error: It cannot be opened; and as `prepare_connection`.
    """
    connection = engine.engine_of(database).open_connection(database, deadline)
    if prepare is not None:
        try:
            prepare_connection(connection, prepare)
        except BaseException:
            connection.close()
            raise
    return connection


def prepare_connection(connection: Any, prepare: Prepare) -> None:
    """Call the program's function with a new connection.

    Raises:
        PrepareFailed: It raised, or left a transaction or a cursor open.
        Error: The database could not do what it asked for.
    """
    name = getattr(prepare, "__qualname__", repr(prepare))
    try:
        done(prepare(connection))
    except Error:
        raise
    except Exception as error:
        known = engine.translated(error, connection)
        raise known or PrepareFailed(f"{name} raised {type(error).__name__}: {error}; mend it") from error
    if engine.in_transaction(connection) or not engine.reset(connection):
        raise PrepareFailed(
            f"{name} leaves the connection in a transaction, with a cursor that is not at its end or not in autocommit "
            "mode, so that nobody could use it; end what it begins"
        )
