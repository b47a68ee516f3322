"""The sample of a test's cases that `make test` runs is a fixed one, and stands for all values of its parameters."""

from __future__ import annotations

import pytest

from tests.samples import left_to_slow_runs

TESTS = """
import pytest

@pytest.mark.sample(3)
@pytest.mark.parametrize("way", "abc")
@pytest.mark.parametrize(("phase", "rows"), [("begin", 1), ("commit", 1), ("copy", 2), ("copy", 3)])
def test_product(way, phase, rows):
    pass

@pytest.mark.sample(2, engine="postgresql")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("number", range(1000, 1004))
def test_one_engine(engine, number):
    pass

@pytest.mark.sample(2)
def test_single():
    pass

@pytest.fixture(params=["goose", "dbmate", "sqlx"])
def tool(request):
    return request.param

@pytest.mark.sample(2)
def test_fixture(tool):
    pass
"""


def test_sample_is_one_case_in_n_and_each_value_of_a_product(pytester: pytest.Pytester):
    """The number of a case in a product of lists is no number to divide: one way would have been met in all phases."""
    pytester.makepyfile(test_it=TESTS)
    items, _ = pytester.inline_genitems("-W", "ignore", "-p", "no:cacheprovider")
    left = [item.name for item in left_to_slow_runs(items)]
    assert [item.name for item in items if item.name not in left] == [
        *("test_product[begin-1-a]", "test_product[commit-1-c]", "test_product[copy-2-b]", "test_product[copy-3-a]"),
        "test_one_engine[1000-sqlite]",
        "test_one_engine[1000-postgresql]",
        "test_one_engine[1001-sqlite]",
        "test_one_engine[1002-sqlite]",
        "test_one_engine[1002-postgresql]",
        "test_one_engine[1003-sqlite]",
        "test_single",
        "test_fixture[goose]",
        "test_fixture[sqlx]",
    ]
