"""What changes any number of rows does so in batches, each a transaction of its own: `delete_before` and its like."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import dao
from dao import configurations, sessions, tool_executions
from dao.engine import fetch
from tests.engines import begin_writing, counted_commits, impatient

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROWS = 7
EXECUTIONS = "SELECT count(*) FROM tool_executions"
OPEN = "SELECT count(*) FROM sessions WHERE is_active"


def close_stale(connection: Any, **rows: int) -> int:
    """Close all sessions and return how many there were."""
    return len(sessions.close_stale(connection, older_than=timedelta(0), now=NOON + timedelta(1), **rows))


def delete_stale(connection: Any, **rows: int) -> int:
    """Delete all sessions and return how many there were."""
    return len(sessions.delete_stale(connection, older_than=timedelta(0), now=NOON + timedelta(1), **rows))


def delete_before(connection: Any, **rows: int) -> int:
    """Delete all tool executions and return how many there were."""
    return tool_executions.delete_before(connection, NOON + timedelta(1), **rows)


@pytest.fixture(
    params=[(close_stale, OPEN), (delete_stale, OPEN), (delete_before, EXECUTIONS)], ids=lambda p: p[0].__name__
)
def change(request: pytest.FixtureRequest, connection) -> tuple[Callable[..., int], Callable[[], int]]:
    """A function that changes seven rows, and one that says how many are left to it."""
    for number in range(ROWS):
        sessions.open(connection, client_id="a", now=NOON + timedelta(minutes=number))
        tool_executions.start(connection, tool_name="a", input=None, now=NOON + timedelta(minutes=number))
    function, sql = request.param
    return function, lambda: fetch(connection, sql)[0][0]


@pytest.mark.parametrize(("batch", "commits"), [(1, 8), (2, 4), (3, 3), (7, 2), (8, 1), (2**63 - 1, 1)])
def test_batch_is_a_transaction_of_its_own(connection, change, batch, commits):
    """All rows are changed and counted, whatever the batch: one transaction for each, which used to be one for all."""
    function, left = change
    with counted_commits(connection, "sessions", "tool_executions") as counted:
        assert function(connection, batch=batch) == ROWS
    assert (counted, left()) == ([commits], 0)
    assert function(connection) == 0


@pytest.mark.parametrize(("batch", "limit", "commits"), [(2, 5, 3), (5, 2, 1), (1000, 7, 1), (3, 8, 3), (1, 1, 1)])
def test_limit_is_how_many_rows_there_are_in_all(connection, change, batch, limit, commits):
    """No more rows are changed than that, in batches no larger than the others."""
    function, left = change
    with counted_commits(connection, "sessions", "tool_executions") as counted:
        assert function(connection, batch=batch, limit=limit) == min(limit, ROWS)
    assert (counted, left()) == ([commits], max(0, ROWS - limit))


def test_batches_let_others_write_in_between(url, connection, change, monkeypatch):
    """After each batch another connection finds the lock free, for as long as it takes to notice."""
    function, left = change
    written, real = [], time.sleep

    def write(pause: float) -> None:
        with contextlib.closing(impatient(url)) as other:
            configurations.set(other, f"{left()}", pause > 0)
        written.append(left())
        real(0)

    monkeypatch.setattr(time, "sleep", write)
    assert function(connection, batch=3) == ROWS
    assert written == [4, 1]


def test_batches_in_a_transaction_are_part_of_it(connection, change, monkeypatch):
    """In the caller's transaction nobody can write in between, and nobody is waited for.

    All of it is undone together.
    """
    function, left = change
    monkeypatch.delattr(time, "sleep")
    with pytest.raises(LookupError), dao.transaction(connection):  # noqa: PT012 - the block is the test
        assert function(connection, batch=2) == ROWS
        raise LookupError
    assert left() == ROWS


def test_batches_leave_the_rest_to_the_next_call_if_another_keeps_the_lock(url, change, monkeypatch):
    """What was changed is told, as it is stored; only a call that changed nothing raises."""
    function, left = change
    with contextlib.closing(impatient(url, 1)) as hurried, contextlib.closing(dao.connect(url)) as other:
        real = time.sleep
        begin = iter([lambda: begin_writing(other, "sessions, tool_executions")])
        monkeypatch.setattr(time, "sleep", lambda pause: (next(begin, lambda: None)(), real(pause)))
        assert (function(hurried, batch=2), left()) == (2, ROWS - 2)
        with pytest.raises(dao.DatabaseBusy):
            function(hurried, batch=2)
        other.execute("ROLLBACK")
        assert (function(hurried, batch=2), left()) == (ROWS - 2, 0)


def test_batch_that_is_no_number_of_rows_is_refused(connection, change):
    """A batch of nothing would never end."""
    function, left = change
    for batch in (0, -1, True, 1.5, "5", None, 2**63):
        with pytest.raises(ValueError, match="batch must be a whole number from 1"):
            function(connection, batch=batch)
        if batch is not None:
            with pytest.raises(ValueError, match="limit must be a whole number from 1"):
                function(connection, limit=batch)
        assert left() == ROWS, batch
