"""The application under test, on a database of the test's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dao import settings
from service.app import app

pytest_plugins = ["dao.testing.plugin"]


def sets(engine: str) -> str:
    """Return what DATABASE_MIGRATIONS is: the sets of migrations, dao's and the service's own."""
    return f"orchestrator{os.pathsep}summaries={Path(__file__).parent}/sql/{engine}"


@pytest.fixture(scope="session")
def dao_migrations(dao_engine: str) -> Any:
    return settings.load(migrations=sets(dao_engine)).migrations


@pytest.fixture
def client(database_url: str, dao_engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DATABASE_MIGRATIONS", sets(dao_engine))
    with TestClient(app) as client:
        yield client
