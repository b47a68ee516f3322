"""Fixtures: a database that does not exist yet, and migrations for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest


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
