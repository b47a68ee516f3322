"""Fixtures: real SQLite files in `tmp_path`, migrated, one for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, settings

import dao
from tests.folders import THREE, write

settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile(
    "ci", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

SQL = Path(__file__).parents[1] / "sql" / "sqlite"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database in one file, made once: copied, it is a new database in a fraction of a millisecond."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    connection = apsw.Connection(str(path))
    for script in sorted(SQL.glob("*.sql")):
        if not script.name.endswith(".rollback.sql"):
            connection.execute(script.read_text()).fetchall()
    connection.close()
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of three migrations that make the tables a, b and c."""
    return write(tmp_path / "three", THREE)


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    """The path of a migrated, empty database."""
    path = tmp_path / "orchestrator.db"
    path.write_bytes(template.read_bytes())
    return path


@pytest.fixture
def url(database: Path) -> str:
    """The URL of a migrated, empty database."""
    return f"sqlite:///{database}"


@pytest.fixture
def connection(url: str) -> Iterator[apsw.Connection]:
    """A connection to a migrated, empty database."""
    connection = dao.connect(url)
    yield connection
    connection.close()
