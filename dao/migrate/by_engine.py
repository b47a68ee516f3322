"""Where engines differ, a package has a module for each, named as the engine is: here the one for a target is found."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from dao import url
from dao.engine import engine_of, is_connection, not_a_connection
from dao.engine.engines import engine_for
from dao.engine.sqlite import Connection as SQLiteConnection

__all__ = ["by_engine", "engine_at"]


def engine_at(target: Any) -> Any:
    """Return the engine of a connection or a URL.

    Raises:
        TypeError: It is a connection that cannot be used here.
        InvalidURL: It is no URL.
    """
    if is_connection(target):
        return engine_for(target)
    if isinstance(target, SQLiteConnection) or getattr(target, "is_async", False):
        raise not_a_connection(target)
    return engine_of(url.parse(target))


def by_engine(package: str) -> Callable[[Any], Any]:
    """Return a function of a connection or a URL, which returns the package's module `sqlite` or `postgresql`.

    A module is loaded when it is first needed: psycopg takes 100 ms, and SQLite needs none of it. A package says in a
    Protocol what both have, and lists them below it for mypy, which holds them to that.
    """

    def module_for(target: Any) -> Any:
        return importlib.import_module(f"{package}.{engine_at(target).NAME}")

    return module_for
