"""What a program needs that brings a PostgreSQL connection of its own: `dao.postgresql.prepare(connection)`."""

import typing as _typing

if _typing.TYPE_CHECKING:
    from dao.engine.postgresql import prepare

__all__ = ["prepare"]


def __getattr__(name: str) -> _typing.Any:
    # whoever lists the names of `dao` comes upon this module, also where psycopg is not installed
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dao.engine.postgresql import prepare as found  # noqa: PLC0415 - see above

    globals()[name] = found
    return found
