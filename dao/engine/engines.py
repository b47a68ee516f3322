"""What an engine is, and which one a connection or a URL is of. PostgreSQL's is loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import apsw

from dao.engine import sqlite
from dao.errors import Error
from dao.url import AnyURL, ServerURL

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Change, Table
    from dao.stored import Stored

__all__ = ["ENGINES", "engine_for", "engine_of", "is_connection", "not_a_connection"]

Row = tuple[Any, ...]
R = TypeVar("R", bound="Stored")


class _Engine(Protocol):
    """The module of an engine. Its functions raise the driver's errors, and `translated` turns those into ours."""

    @property
    def NAME(self) -> Literal["sqlite", "postgresql"]: ...  # noqa: N802 - a constant
    @property
    def DriverError(self) -> type[Exception]: ...  # noqa: N802 - a class
    @property
    def HARMLESS(self) -> tuple[type[Error], ...]: ...  # noqa: N802 - a constant
    @property
    def ON_SERVER(self) -> bool: ...  # noqa: N802 - a constant
    def open_connection(self, url: Any, deadline: float = ...) -> Any: ...
    def absolute(self, url: Any) -> Any: ...
    def check_exists(self, url: Any) -> None: ...
    def is_usable(self, connection: Any) -> bool: ...
    def is_idle(self, connection: Any) -> bool: ...
    def is_interrupted(self, connection: Any) -> bool: ...
    def in_transaction(self, connection: Any) -> bool: ...
    def fetch(self, connection: Any, sql: str, parameters: Sequence[Any]) -> list[Row]: ...
    def fetch_changed(self, connection: Any, sql: str, parameters: Sequence[Any]) -> list[Row]: ...
    def execute(self, connection: Any, sql: str, parameters: Sequence[Any]) -> int: ...
    def execute_many(self, connection: Any, sql: str, rows: Iterable[Row]) -> None: ...
    def insert_many(self, connection: Any, table: Table[Any], rows: Iterable[Row]) -> None: ...
    def change(
        self, connection: Any, table: Table[R], update: Change, parameters: Sequence[Any], key: tuple[str, ...]
    ) -> R | None: ...
    def lock_row(self, connection: Any, table: Table[Any], key: tuple[str, ...]) -> None: ...
    def begin(self, connection: Any, *, nested: bool) -> None: ...
    def commit(self, connection: Any, *, nested: bool) -> None: ...
    def roll_back(self, connection: Any, *, nested: bool) -> None: ...
    def translated(
        self,
        error: Exception,
        connection: Any,
        sql: str,
        parameters: Sequence[Any],
        *,
        commits: bool,
        table: Table[Any] | None,
    ) -> Error | None: ...
    def is_fresh(self, connection: Any, /) -> bool: ...
    def reset(self, connection: Any) -> bool: ...
    def interrupt(self, connection: Any) -> None: ...
    def settle(self, connection: Any, /) -> None: ...
    def probe(self, connection: Any, url: Any, deadline: float) -> bool: ...
    def wait_for_change(self, connection: Any, seconds: float) -> bool: ...


#: The engine of each type of connection. PostgreSQL's comes here when it is first needed.
ENGINES: dict[type, _Engine] = {apsw.Connection: sqlite}


def engine_for(connection: object) -> _Engine:
    """Return the engine of a connection.

    Raises:
        TypeError: It is no connection, or of no engine here.
    """
    return ENGINES.get(type(connection)) or _found(connection)


def _found(connection: object) -> _Engine:
    kinds = type(connection).__mro__
    if any(kind.__module__.partition(".")[0] == "psycopg" for kind in kinds):
        _postgresql()
    found = next((ENGINES[kind] for kind in kinds if kind in ENGINES), None)
    if found is None:
        raise not_a_connection(connection)
    return found


def _postgresql() -> _Engine:
    import psycopg  # noqa: PLC0415 - takes 100 ms, and SQLite needs none of it

    from dao.engine import postgresql  # noqa: PLC0415 - likewise

    ENGINES[psycopg.Connection] = postgresql
    return postgresql


def engine_of(url: AnyURL) -> _Engine:
    """Return the engine that opens a URL."""
    return _postgresql() if isinstance(url, ServerURL) else sqlite


def is_connection(given: object) -> bool:
    """Return whether it is a connection that can be used here: an asynchronous one can in its own thread only."""
    try:
        return engine_for(given).is_usable(given)
    except TypeError:
        return False


def not_a_connection(given: object) -> TypeError:
    """Return the error for an object that is no connection, or none that can be used here."""
    is_async = isinstance(given, apsw.Connection) or getattr(given, "is_async", False)
    if is_async:
        advice = (
            "it works in its own thread only: `await dao.aio.run(connection, function, …)`, with dao.transaction in it"
        )
    elif hasattr(given, "acquire"):
        advice = "take one from the pool, with `pool.acquire()` or, of dao.aio, `await pool.run(function, …)`"
    else:
        advice = "open one with `dao.connect(url)`"
    name = "an asynchronous one" if is_async else type(given).__name__
    return TypeError(f"expected a connection, got {name}: {advice}")
