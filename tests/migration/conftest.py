"""Fixtures: a database that does not exist yet, and migrations for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
from psycopg.conninfo import conninfo_to_dict

import dao
from dao import engine
from dao.migrate.schema.names import TABLES
from dao.testing.server import Databases


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a database that does not exist."""
    return tmp_path / "new.db"


@pytest.fixture
def url(path: Path) -> str:
    """The URL of a database that does not exist."""
    return f"sqlite:///{path}"


@pytest.fixture
def theirs(path: Path) -> Iterator[apsw.Connection]:
    """A plain connection to a new database, opened by somebody else."""
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


@attrs.frozen
class Database:
    """A database of either engine that is empty, and whoever looks into it from outside."""

    engine: str
    url: str

    def fetch(self, sql: str) -> list[Any]:
        """Run a statement on a connection of its own, commit, and return its rows."""
        with contextlib.closing(dao.connect(self.url)) as connection:
            return engine.fetch(connection, sql)

    def tables(self) -> list[str]:
        """Return the names of its tables, without the ledger's."""
        if self.engine == "sqlite":
            found = self.fetch("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        else:
            found = self.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        return [name for (name,) in found if name not in TABLES and not name.startswith("sqlite_")]

    def content(self) -> dict[str, list[Any]]:
        """Return all that it holds, in an order of its own: the tables' rows, the ledger's and those of the scripts."""
        names = [*self.tables(), *(table for table in TABLES if self._has(table))]
        return {name: sorted(self.fetch(f"SELECT * FROM {name}"), key=repr) for name in names}

    def _has(self, table: str) -> bool:
        if self.engine == "sqlite":
            return bool(self.fetch(f"SELECT 1 FROM sqlite_schema WHERE name = '{table}'"))
        return self.fetch(f"SELECT to_regclass('{table}') IS NOT NULL") == [(True,)]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, url: str) -> Database:
    """An empty database of each engine."""
    if request.param == "sqlite":
        return Database("sqlite", url)
    return Database("postgresql", request.getfixturevalue("new_postgresql_url"))


Prepare = Callable[..., object]


@pytest.fixture(scope="module")
def _prepared(server: Databases) -> Iterator[dict[Prepare, str]]:
    prepared: dict[Prepare, str] = {}
    yield prepared
    for url in prepared.values():
        server.drop(url)


@pytest.fixture
def prepared_by(server: Databases, _prepared: dict[Prepare, str]) -> Iterator[Callable[..., str]]:
    """Copy a PostgreSQL database that a function has prepared, once for all tests of a module, and return its URL.

    `prepared_by(function, …)` has the first test call it with the URL and these arguments.
    """
    made: list[str] = []

    def copy(prepare: Prepare, *arguments: object) -> str:
        if prepare not in _prepared:
            _prepared[prepare] = server.create()
            prepare(_prepared[prepare], *arguments)
        made.append(server.create(str(conninfo_to_dict(_prepared[prepare])["dbname"])))
        return made[-1]

    yield copy
    for url in made:
        server.drop(url)
