"""A new database for each example: Hypothesis runs many in one test, and a function's fixtures live as long as it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

import dao
from dao.rows import TABLES
from dao.testing.server import Reused
from tests.databases import Run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse `fresh` in a test of one engine: a fixture of the session stays that of the engine which ran before."""
    if "fresh" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("both_engines"):
        pytest.fail(f"{metafunc.function.__name__}: ask for fresh_sqlite, or mark it both_engines", pytrace=False)


@attrs.frozen
class Fresh:
    """Lends migrated, empty databases, with foreign keys or without, each for one `with` block."""

    lend: Callable[[bool], AbstractContextManager[str]]

    def url(self, *, foreign_keys: bool = True) -> AbstractContextManager[str]:
        """Lend the URL of one."""
        return self.lend(foreign_keys)

    @contextlib.contextmanager
    def __call__(self, *, foreign_keys: bool = True) -> Iterator[Any]:
        """Lend a connection to one."""
        with self.lend(foreign_keys) as url, contextlib.closing(dao.connect(url)) as connection:
            yield connection


@pytest.fixture(scope="session")
def fresh(engine: str, request: pytest.FixtureRequest) -> Fresh:
    """New databases of the test's engine."""
    found: Fresh = request.getfixturevalue(f"fresh_{engine}")
    return found


@pytest.fixture(scope="session")
def fresh_sqlite(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """New databases in files."""
    folder = tmp_path_factory.mktemp("fresh")
    empty = template.read_bytes()
    numbers = itertools.count()

    @contextlib.contextmanager
    def lend(foreign_keys: bool) -> Iterator[str]:  # noqa: FBT001
        path = folder / f"{next(numbers)}.db"
        path.write_bytes(empty)
        try:
            yield f"sqlite:///{path}?synchronous=off&foreign_keys={'on' if foreign_keys else 'off'}"
        finally:
            path.unlink()

    return Fresh(lend)


@pytest.fixture(scope="session")
def fresh_postgresql(shared: Run) -> Iterator[Fresh]:
    """New databases on the server."""
    idle: dict[bool, list[Reused]] = {True: [], False: []}

    @contextlib.contextmanager
    def lend(foreign_keys: bool) -> Iterator[str]:  # noqa: FBT001
        one = idle[foreign_keys].pop() if idle[foreign_keys] else shared.reused(None if foreign_keys else _unlink)
        try:
            yield one.url
        finally:
            one.empty()
            idle[foreign_keys].append(one)

    yield Fresh(lend)
    for one in [*idle[True], *idle[False]]:
        one.close()


@pytest.fixture(scope="module")
def both(fresh_sqlite, fresh_postgresql) -> Iterator[dict[str, Any]]:
    """A connection of each engine, to tables without foreign keys and triggers, so that only the row itself decides."""
    with fresh_sqlite(foreign_keys=False) as sqlite, fresh_postgresql(foreign_keys=False) as postgresql:
        for (trigger,) in sqlite.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            sqlite.execute(f"DROP TRIGGER {trigger}").fetchall()
        for table in TABLES:
            postgresql.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
        yield {"sqlite": sqlite, "postgresql": postgresql}


def _unlink(connection: psycopg.Connection[Any]) -> None:
    """Take the foreign keys away."""
    for table, name in connection.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f'"
    ).fetchall():
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
