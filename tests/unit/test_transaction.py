"""`dao.transaction` and `dao.run_in_transaction`: what commits, what does not, and what is tried again."""

# A block in which something raises is what is tested here, so it has more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import gc
import threading
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import dao
from dao import engine
from tests import engines
from tests.transactions import Stop, add, other, titles

__all__ = ["other"]  # a fixture

pytestmark = pytest.mark.both_engines


# ---------------------------------------------------------------- one transaction


def test_transaction_block_ends_commits_all_at_once(connection, other):
    """Others see nothing of the block until its end, and then all of it."""
    with dao.transaction(connection) as same:
        assert same is connection
        add(connection, "a")
        add(connection, "b")
        assert titles(other) == ""
    assert titles(other) == "ab"
    assert not engine.in_transaction(connection)


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, GeneratorExit, dao.NotFound])
def test_transaction_exception_undoes_the_block_and_goes_on(connection, kind):
    """Any exception, of whatever kind, undoes the block and comes out as it was."""
    error = dao.NotFound("a", table="t", key="k") if kind is dao.NotFound else kind("enough")
    with pytest.raises(kind) as caught, dao.transaction(connection):
        add(connection, "a")
        raise error
    assert caught.value is error
    assert titles(connection) == ""
    assert not engine.in_transaction(connection)


def test_transaction_connection_can_be_used_again(connection):
    """After a rollback and after a commit the connection is as it was."""
    with contextlib.suppress(Stop), dao.transaction(connection):
        add(connection, "a")
        raise Stop
    with dao.transaction(connection):
        add(connection, "b")
    add(connection, "c")
    assert titles(connection) == "bc"


def test_transaction_return_out_of_the_block_commits(connection):
    """Leaving the block by `return` is no exception."""

    def write() -> str:
        with dao.transaction(connection):
            add(connection, "a")
            return "done"

    assert write() == "done"
    assert titles(connection) == "a"


@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
def test_transaction_abandoned_keeps_neither_connection_nor_lock(url, other):
    """Whoever drops a block that was never left drops its transaction: the connection goes, and others can write."""
    own = dao.connect(url)
    block = dao.transaction(own)
    block.__enter__()
    add(own, "a")
    left = weakref.ref(own)
    del own, block
    gc.collect()
    assert left() is None
    add(other, "b")
    assert titles(other) == "b"


# ---------------------------------------------------------------- nested


def test_transaction_nested_blocks_commit_with_the_outermost(connection, other):
    """An inner block that ends well is not committed yet."""
    with dao.transaction(connection):
        add(connection, "a")
        with dao.transaction(connection):
            add(connection, "b")
            with dao.transaction(connection):
                add(connection, "c")
        assert titles(connection) == "abc"
        assert titles(other) == ""
    assert titles(other) == "abc"


def test_transaction_nested_exception_undoes_the_inner_block_only(connection):
    """Who swallows the exception keeps what came before the inner block and what comes after it."""
    with dao.transaction(connection):
        add(connection, "a")
        with contextlib.suppress(Stop), dao.transaction(connection):
            add(connection, "b")
            with dao.transaction(connection):
                add(connection, "c")
            raise Stop
        add(connection, "d")
        with contextlib.suppress(Stop), dao.transaction(connection):
            raise Stop
        add(connection, "e")
    assert titles(connection) == "ade"


def test_transaction_nested_exception_that_goes_on_undoes_all(connection):
    """An exception that nobody catches undoes every block that it leaves."""
    with pytest.raises(Stop), dao.transaction(connection):
        add(connection, "a")
        with dao.transaction(connection):
            add(connection, "b")
            raise Stop
    assert titles(connection) == ""
    assert not engine.in_transaction(connection)


def test_transaction_outer_exception_undoes_the_inner_block_too(connection):
    """An inner block that ended well goes with the outer one."""
    with contextlib.suppress(Stop), dao.transaction(connection):
        with dao.transaction(connection):
            add(connection, "a")
        raise Stop
    assert titles(connection) == ""


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN; SAVEPOINT dao", "BEGIN; SAVEPOINT mine"])
def test_transaction_inside_somebodys_own_is_a_savepoint_of_it(connection, begin):
    """Inside a transaction that was opened by hand the block takes part, whatever that one's savepoints are called."""
    connection.execute(begin)
    with contextlib.suppress(Stop), dao.transaction(connection):
        add(connection, "a")
        raise Stop
    with dao.transaction(connection):
        add(connection, "b")
    assert engine.in_transaction(connection)
    connection.execute("COMMIT")
    assert not engine.in_transaction(connection)
    assert titles(connection) == "b"


def test_transaction_given_up_behind_our_back_fails_at_the_end(connection):
    """Who rolls back by hand inside a block is told at its end that nothing of it is there."""
    with pytest.raises(dao.OperationalError, match="ended its transaction itself"), dao.transaction(connection):
        add(connection, "a")
        connection.execute("ROLLBACK")
    assert titles(connection) == ""


# ---------------------------------------------------------------- errors at the commit


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "around a nested block"])
def test_transaction_deferred_foreign_key_fails_at_commit_and_undoes_all(connection, nested):
    """A key that is checked at the commit fails there: typed, undone, and the connection is free."""
    engine.fetch(connection, "CREATE TABLE child (x text REFERENCES tasks (id) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(dao.ForeignKeyViolation) as caught, dao.transaction(connection):
        with dao.transaction(connection) if nested else contextlib.nullcontext():
            engine.fetch(connection, "INSERT INTO child VALUES ('nobody')")
        add(connection, "a")
    assert isinstance(caught.value.__cause__, engines.CONSTRAINT_ERRORS)
    assert not engine.in_transaction(connection)
    assert titles(connection) == ""
    assert engine.fetch(connection, "SELECT * FROM child") == []
    with dao.transaction(connection):
        engine.fetch(connection, "INSERT INTO child VALUES ('later')")
        add(connection, "a", id="later")
    assert titles(connection) == "a"


# ---------------------------------------------------------------- run_in_transaction


@pytest.fixture
def impatient(url: str) -> Iterator[Any]:
    """A connection that does not wait for locks."""
    connection = engines.impatient(url)
    yield connection
    connection.close()


def test_run_in_transaction_returns_the_result_and_passes_arguments(connection):
    """The function gets the connection first, then what was given, in a transaction."""

    def function(given, *args, **kwargs):
        assert engine.in_transaction(given)
        return given, args, kwargs

    assert dao.run_in_transaction(connection, function, 1, 2, a=3) == (connection, (1, 2), {"a": 3})
    assert not engine.in_transaction(connection)


@pytest.mark.parametrize("error", [Stop(), dao.OperationalError("a"), dao.DiskFull("a"), dao.UniqueViolation("a")])
def test_run_in_transaction_exception_undoes_and_is_not_replayed(connection, error):
    """Whatever is not busy comes out at once."""
    calls = []

    def function(given):
        calls.append(given)
        add(given, "a")
        raise error

    with pytest.raises(type(error)):
        dao.run_in_transaction(connection, function)
    assert len(calls) == 1
    assert titles(connection) == ""


def test_run_in_transaction_busy_at_begin_waits_for_the_lock(connection, impatient):
    """While another writes the function does not begin; it runs once the lock is free."""
    engines.begin_alone(connection, "tasks")
    add(connection, "a")
    timer = threading.Timer(0.05, connection.execute, ["COMMIT"])
    timer.start()
    assert dao.run_in_transaction(impatient, titles) == "a"
    timer.join()


def test_run_in_transaction_busy_inside_replays_the_whole_function(connection):
    """A replay begins anew: the earlier attempts are undone, and what was read is read again."""
    read = []

    def function(given):
        read.append(titles(given))
        add(given, "b")
        if len(read) < 4:
            raise dao.DatabaseBusy("another connection")
        return len(read)

    add(connection, "a")
    assert dao.run_in_transaction(connection, function) == 4
    assert read == ["a"] * 4
    assert titles(connection) == "ab"


@pytest.mark.parametrize("deadline", [0, 0.05])
def test_run_in_transaction_busy_past_the_deadline_raises_database_busy(monkeypatch, connection, impatient, deadline):
    """The waits between the attempts grow up to a quarter of a second, and end with the deadline."""
    waits = []  # by a clock that nothing else moves on: an attempt may take its time
    clock = types.SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
    monkeypatch.setattr("dao.transactions.time", clock)
    engines.begin_alone(connection, "tasks")
    with pytest.raises(dao.DatabaseBusy):
        dao.replaying(deadline=deadline)(impatient, titles)
    connection.execute("ROLLBACK")
    assert sum(waits) <= deadline
    assert bool(waits) is (deadline > 0)


def test_run_in_transaction_waits_grow_with_jitter(monkeypatch, connection):
    """Each pause is a random part of a bound that doubles from 1 to 250 ms."""
    waits, bounds = [], []

    def uniform(low, high):
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    monkeypatch.setattr(time, "sleep", waits.append)

    def function(_):
        if len(waits) < 12:
            raise dao.DatabaseBusy("another connection")

    dao.run_in_transaction(connection, function)
    assert bounds == [(0, pytest.approx(min(0.001 * 2**number, 0.25))) for number in range(12)]
    assert waits == [high for _, high in bounds]


def test_run_in_transaction_inside_a_transaction_is_not_replayed(connection):
    """Inside an open transaction replaying is up to whoever opened it; the attempt alone is undone."""
    calls = []

    def function(given):
        calls.append(given)
        add(given, "b")
        raise dao.DatabaseBusy("another connection")

    with dao.transaction(connection):
        add(connection, "a")
        with pytest.raises(dao.DatabaseBusy):
            dao.run_in_transaction(connection, function)
        assert dao.run_in_transaction(connection, titles) == "a"
    assert len(calls) == 1
    assert titles(connection) == "a"


def test_run_in_transaction_with_a_pool_takes_one_connection_for_all_attempts(url):
    """A pool lends a connection for the call and has it back afterwards, also after an error."""
    seen = []

    def function(given, title):
        seen.append(given)
        add(given, title)
        if len(seen) < 3:
            raise dao.DatabaseBusy("another connection")
        return titles(given)

    with dao.Pool(url, size=2) as pool:
        assert dao.run_in_transaction(pool, function, title="a") == "a"
        assert len(seen) == 3
        assert len(set(seen)) == 1
        with pytest.raises(dao.UniqueViolation):
            dao.run_in_transaction(pool, lambda given: [add(given, "b", id="1") for _ in range(2)])
        assert (pool.stats().active, pool.stats().idle) == (0, 1)
        with pool.acquire() as connection:
            assert titles(connection) == "a"
