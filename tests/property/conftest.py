"""A new database for each example: Hypothesis runs many in one test, and a function's fixtures live as long as it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import apsw
import pytest

import dao

# their assertions explain themselves like those of a test
pytest.register_assert_rewrite(
    "tests.property.machine", "tests.property.rules_of_work", "tests.property.rules_of_calls"
)

Fresh = Callable[..., AbstractContextManager[apsw.Connection]]


@pytest.fixture(scope="session")
def fresh(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Opens a migrated, empty database in a file for one `with` block.

    It takes the parameters of its URL, as "?mode=rw".
    """
    folder = tmp_path_factory.mktemp("fresh")
    empty = template.read_bytes()
    numbers = itertools.count()

    @contextlib.contextmanager
    def open_fresh(parameters: str = "") -> Iterator[apsw.Connection]:
        path = folder / f"{next(numbers)}.db"
        path.write_bytes(empty)
        connection = dao.connect(f"sqlite:///{path}{parameters}")
        try:
            yield connection
        finally:
            connection.close()
            path.unlink()

    return open_fresh
