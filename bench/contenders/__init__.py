"""One module for each library; a contender that cannot be loaded here is skipped, with the reason."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.contenders.base import Shared

#: In the order of the tables: where each contender is.
CONTENDERS = {
    "apsw": ("bare", "Apsw"),
    "dao": ("dao", "Dao"),
    "apsw records": ("records", "Records"),
    "sqlite3": ("bare", "Sqlite3"),
    "SQLAlchemy Core": ("sqlalchemy_core", "Core"),
    "SQLAlchemy ORM": ("sqlalchemy_orm", "ORM"),
    "peewee": ("peewee", "Peewee"),
    "aiosqlite": ("aiosqlite", "Aiosqlite"),
    "dao (async)": ("dao", "AsyncDao"),
    "psycopg": ("psycopg", "Psycopg"),
    "dao (PostgreSQL)": ("dao", "OnServer"),
    "SQLAlchemy Core (PostgreSQL)": ("sqlalchemy_core", "OnServer"),
    "SQLAlchemy ORM (PostgreSQL)": ("sqlalchemy_orm", "OnServer"),
}
#: The contenders that are the product, and the one that its cost is followed beside.
OWN, BASE = ("dao", "dao (async)", "dao (PostgreSQL)"), "apsw"


def load(name: str) -> Shared:
    """Return a contender that is not opened yet.

    Raises:
        ImportError: Its library is not installed.
    """
    module, attribute = CONTENDERS[name]
    return getattr(importlib.import_module(f"bench.contenders.{module}"), attribute)()


def load_all(names: Collection[str]) -> tuple[list[Shared], dict[str, str]]:
    """Return the contenders that can be loaded, and for each of the others the reason."""
    loaded, skipped = [], {}
    for name in CONTENDERS:
        if name not in names:
            continue
        try:
            loaded.append(load(name))
        except Exception as error:  # noqa: BLE001 - a library that does not support this Python may raise anything
            skipped[name] = f"does not load ({type(error).__name__}: {error}): pip install 'orchestrator-dao[bench]'"
    return loaded, skipped


@contextmanager
def opened(
    chosen: Sequence[Shared], copy: Callable[[Shared], str]
) -> Iterator[tuple[dict[str, dict[str, object]], dict[str, str]]]:
    """Open each contender on a copy of a database; give the settings of each, and why others cannot be opened."""
    settings, skipped = {}, {}
    with ExitStack() as stack:
        for contender in chosen:
            try:
                contender.open(copy(contender))
                stack.callback(contender.close)
                settings[contender.name] = contender.settings()
            except Exception as error:  # noqa: BLE001 - what another library raises is its own affair
                skipped[contender.name] = f"cannot be opened ({type(error).__name__}: {error})"
        yield settings, skipped
