"""One module for each library; a contender that cannot be loaded here is skipped, with the reason."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path

from bench.contenders.base import AsyncContender, Contender, check_settings

#: In the order of the tables: where each contender is.
CONTENDERS = {
    "dao": ("dao", "Dao"),
    "apsw tuples": ("apsw", "Tuples"),
    "apsw records": ("apsw", "Records"),
    "sqlite3 tuples": ("sqlite3", "Tuples"),
    "sqlite3 records": ("sqlite3", "Records"),
    "aiosql": ("aiosql", "Aiosql"),
    "sqlite-utils": ("sqlite_utils", "SqliteUtils"),
    "SQLAlchemy Core": ("sqlalchemy_core", "Core"),
    "SQLAlchemy ORM": ("sqlalchemy_orm", "ORM"),
    "SQLModel": ("sqlmodel", "Models"),
    "peewee": ("peewee", "Peewee"),
    "Django ORM": ("django", "Django"),
    "Pony": ("pony", "Pony"),
    "dao (async)": ("dao", "AsyncDao"),
    "aiosqlite": ("aiosqlite", "Aiosqlite"),
    "SQLAlchemy asyncio": ("sqlalchemy_asyncio", "AsyncORM"),
    "Tortoise": ("tortoise", "TortoiseORM"),
}
#: What the ratios are to.
BASE, STANDARD = "apsw tuples", "sqlite3 tuples"
#: What asynchronous contenders are compared with.
ASYNC_BASE = "aiosqlite"


def load(name: str) -> Contender:
    """Return a contender that is not opened yet.

    Raises:
        ImportError: Its library is not installed.
    """
    module, attribute = CONTENDERS[name]
    return getattr(importlib.import_module(f"bench.contenders.{module}"), attribute)()


def load_all(names: Collection[str]) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders that can be loaded, and for each of the others the reason."""
    loaded, skipped = [], {}
    for name in CONTENDERS:
        if name not in names:
            continue
        try:
            loaded.append(load(name))
        except ImportError as error:
            skipped[name] = f"not installed ({error}): pip install 'orchestrator-dao[bench]'"
        except Exception as error:  # noqa: BLE001 - a library that does not support this Python may raise anything
            skipped[name] = f"does not load on this Python ({type(error).__name__}: {error})"
    return loaded, skipped


def open_one(contender: Contender, path: Path) -> dict[str, object]:
    """Open a contender, read the settings back through its own connection, and return them.

    Raises:
        RuntimeError: They are not those of the others.
    """
    contender.open(path)
    read = {name: contender.raw(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    read["sqlite"] = contender.raw("SELECT sqlite_version()")[0][0]
    check_settings(read)
    return read


async def open_async(contender: AsyncContender, path: Path) -> dict[str, object]:
    """Open an asynchronous contender and check it in the same way."""
    await contender.aopen(path)
    names = ("journal_mode", "synchronous", "foreign_keys")
    read = {name: (await contender.araw(f"PRAGMA {name}"))[0][0] for name in names}
    read["sqlite"] = (await contender.araw("SELECT sqlite_version()"))[0][0]
    check_settings(read)
    return read
