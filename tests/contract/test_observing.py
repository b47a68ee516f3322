"""`dao.observe` and the log of slow statements: what they see, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import itertools
import logging
import subprocess
import sys
import threading
from typing import Any

import attrs
import pytest

import dao
from dao import Observed, aio, configurations, engine, sessions, tasks, workflow_tasks
from dao.rows import TASKS
from dao.tasks import get as bound_before
from dao.testing import make_task
from tests.concurrency import PATIENCE
from tests.every_function import READERS, WRITERS, filled, filled_template
from tests.plans import MODULES

__all__ = ["filled", "filled_template"]  # fixtures

pytestmark = pytest.mark.both_engines

FUNCTIONS = {
    f"{table}.{name}": function
    for table, module in MODULES.items()
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name))
}
SEAM = [engine.fetch, engine.execute, engine.change, engine.insert_many, engine.transaction.__exit__]


def state(function: Any) -> tuple[object, ...]:
    """Return all that makes a function what it is."""
    return function.__code__, function.__defaults__, function.__kwdefaults__, dict(function.__dict__)


@pytest.fixture
def seen() -> list[Observed]:
    """What an observer was told during the test."""
    return []


def test_each_function_is_observed_by_its_name_and_as_one_call(filled, seen):
    """Whatever a function calls inside, its caller has called one; and it does what it does unobserved."""
    calls = {**WRITERS, **{name: read for name, (read, _) in READERS.items()}}
    assert calls.keys() == FUNCTIONS.keys()
    with contextlib.closing(dao.connect(filled.url)) as connection:
        for name, call in calls.items():
            undone = contextlib.suppress(ZeroDivisionError)  # so that each finds the same
            with undone, dao.observe(seen.append), dao.transaction(connection):
                returned = call(connection)
                raise ZeroDivisionError
            assert name not in READERS or returned == READERS[name][1]
            # some of them look for an event first
            (event,) = [one for one in seen if one.name != "task_events.list_of"] or seen
            assert (event.name, event.table, event.error) == (name, name.partition(".")[0], None)
            assert event.connection is connection
            assert event.rows > 0, name
            seen.clear()


def test_rows_are_those_that_the_caller_asked_for(connection, seen):
    """A page reads one row more than it shows, and a lazy iterable of records has no length."""
    made = [make_task() for _ in range(3)]
    with dao.observe(seen.append):
        tasks.create_many(connection, iter(made))
        tasks.find(connection, limit=2)
        tasks.count(connection)
        tasks.exists(connection, "nobody")
        tasks.set_status(connection, made[0].id, "cancelled")
        tasks.prune(connection, before=dao.Task(title="a", task_type="b").created_at.replace(year=9000))
        configurations.set_many(connection, {"a": 1, "b": 2})
        workflow_tasks.list_tasks(connection, "nothing")
    assert [event.rows for event in seen] == [3, 2, 1, 0, 1, 1, 2, 0]


def test_functions_are_as_written_before_and_after(connection, seen):
    """Off it costs nothing, since nothing is there; what looks at signatures sees the same while it is on."""
    observed = [*FUNCTIONS.values(), *SEAM]
    before, signatures = [*map(state, observed)], [*map(inspect.signature, observed)]
    with dao.observe(seen.append), dao.observe(seen.append):
        assert [*map(inspect.signature, observed)] == signatures
        assert all(now[0] is not then[0] for now, then in zip(map(state, observed), before, strict=True))
    assert [*map(state, observed)] == before
    dao.log_slow_statements(0)
    dao.log_slow_statements(None)
    assert [*map(state, observed)] == before
    tasks.create(connection, make_task())
    assert seen == []


def test_names_that_were_bound_before_are_observed(connection, seen):
    """`from dao.tasks import get` stands at the top of most programs; arguments may go by keyword."""
    observation = dao.observe(seen.append)
    bound_before(connection, id="nobody")
    bound_before(id="nobody", connection=connection)
    observation.end()
    observation.end()
    bound_before(connection, "nobody")
    assert [(event.name, event.rows) for event in seen] == [("tasks.get", 0)] * 2
    assert {event.connection for event in seen} == {connection}


def test_error_is_told_and_raised(connection, seen):
    """The observer sees the very error that the caller gets."""
    task = make_task()
    tasks.create(connection, task)
    with dao.observe(seen.append):
        with pytest.raises(dao.UniqueViolation) as caught:
            tasks.create(connection, task)
        with pytest.raises(ValueError, match="limit"):
            tasks.find(connection, limit=0)
    assert [type(event.error) for event in seen] == [dao.UniqueViolation, dao.InvalidValue]
    assert seen[0].error is caught.value
    assert [event.rows for event in seen] == [0, 0]


def test_iterator_is_told_of_page_by_page(connection, seen):
    """A page is one statement; the time between two pages is the caller's."""
    tasks.create_many(connection, [make_task() for _ in range(501)])
    with dao.observe(seen.append):
        whole = tasks.iter_all(connection)
        assert seen == []
        first = next(whole)
        assert tasks.get(connection, first.id) == first  # one of its own, in the middle of the other
        assert len([*whole]) == 500
        with pytest.raises(ValueError, match="unheard"):
            tasks.iter_all(connection, status="unheard of")
    told = [(event.name, event.rows, type(event.error)) for event in seen]
    none = type(None)
    assert told == [
        ("tasks.iter_all", 500, none),
        ("tasks.get", 1, none),
        ("tasks.iter_all", 1, none),
        ("tasks.iter_all", 0, dao.InvalidValue),
    ]
    assert {event.connection for event in seen} == {connection}


def test_iterator_that_fails_is_told_of_with_its_error(url, seen):
    """The error of a page belongs to the call, too."""
    connection = dao.connect(url)
    tasks.create(connection, make_task())
    with dao.observe(seen.append):
        records = tasks.iter_all(connection)
        connection.close()
        with pytest.raises(Exception) as caught:
            next(records)
    assert [event.error for event in seen] == [caught.value]


def test_observer_that_fails_harms_nobody_and_is_logged_once(connection, seen, caplog):
    """The call returns what it returns, the other observers are told, and the log is not flooded."""

    def broken(event: Observed) -> None:
        raise RuntimeError(event.name)

    with dao.observe(broken), dao.observe(seen.append):
        for _ in range(3):
            assert tasks.get(connection, "nobody") is None
    assert [event.name for event in seen] == ["tasks.get"] * 3
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dao.observing", logging.ERROR)
    assert record.exc_info[0] is RuntimeError
    with pytest.raises(TypeError, match="an observer is a function"):
        dao.observe(None)


def test_calls_of_an_observer_are_not_observed(connection, seen):
    """One that stores what it sees would never come to an end."""

    def store(event: Observed) -> None:
        seen.append(event)
        configurations.set(connection, "last", event.name)

    with dao.observe(store):
        tasks.get(connection, "nobody")
        [*tasks.iter_all(connection)]
    assert [event.name for event in seen] == ["tasks.get", "tasks.iter_all"]
    assert configurations.get_one(connection, "last") == "tasks.iter_all"


REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


def test_calls_through_pools_are_observed_with_the_callers_context(url):
    """In whatever thread they run: a tracer looks for its span there, a log for the number of the request."""
    told: list[tuple[str, str]] = []

    def observer(event: Observed) -> None:
        told.append((event.name, REQUEST.get()))

    def threads(pool: dao.Pool, name: str) -> None:
        REQUEST.set(name)
        pool.write(tasks.create, make_task())
        dao.run_in_transaction(pool, tasks.count)

    async def main() -> None:
        async with aio.Pool(url) as pool:
            REQUEST.set("async")
            await pool.run(sessions.list_active)
            await pool.write(tasks.create, make_task())
            assert len([task async for task in pool.iterate(tasks.iter_all)]) == 3

    with dao.observe(observer):
        with dao.Pool(url) as pool:
            workers = [threading.Thread(target=threads, args=(pool, name)) for name in ("first", "second")]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        asyncio.run(main())
    assert sorted(told) == sorted(
        [
            *((name, request) for request in ("first", "second") for name in ("tasks.create", "tasks.count")),
            ("sessions.list_active", "async"),
            ("tasks.create", "async"),
            ("tasks.iter_all", "async"),
        ]
    )


def test_an_observation_that_ends_while_another_begins_stays_ended(connection):
    """The garbage collector may end one of a pool that was dropped, at any line: it came back, and for good."""
    told, before = [], sys.gettrace()
    plain = [function.__code__ for function in FUNCTIONS.values()]
    for number in range(80):
        first, lines = dao.observe(lambda _: told.append("first")), itertools.count()

        def end_at_its_line(frame, event, _, number=number, first=first, lines=lines):
            if frame.f_globals.get("__name__") not in {"dao.observing", "dao.in_place", "dao.engine.watching"}:
                return None
            if event == "line" and next(lines) == number:
                sys.settrace(None)
                first.end()
            return end_at_its_line

        sys.settrace(end_at_its_line)
        try:
            second = dao.observe(lambda _: told.append("second"))
        finally:
            sys.settrace(before)
        assert next(lines) > number
        tasks.count(connection)
        second.end()
        assert told == ["second"], number
        assert [function.__code__ for function in FUNCTIONS.values()] == plain, number
        told.clear()


_FORKS = """
import os, signal, threading, dao
dao.observe(print).end()  # loads all: a fork in the middle of an import is nobody's to mend
ended = threading.Event()
def switch():
    while not ended.is_set():
        dao.observe(print).end()
thread = threading.Thread(target=switch)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        dao.observe(print).end()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
ended.set()
thread.join()
"""


@pytest.mark.sqlite_only
def test_a_fork_while_another_thread_begins_to_observe_leaves_a_child_that_can():
    """The child had the lock of a thread that it does not have, and waited for it without an end."""
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["0"] * 5


# ---------------------------------------------------------------- slow statements


def test_a_handler_of_the_log_that_fails_or_has_statements_of_its_own_harms_no_call(connection, caplog, capsys):
    """What a handler raised came out of the call whose statement was slow; one that stored rows called itself."""
    task = make_task()

    class Storing(logging.Handler):
        told = 0

        def emit(self, record):
            self.told += 1
            tasks.count(connection)
            raise RuntimeError("disk full")

    storing = Storing()
    logging.getLogger("dao.engine").addHandler(storing)
    dao.log_slow_statements(0)
    try:
        tasks.create(connection, task)
    finally:
        dao.log_slow_statements(None)
        logging.getLogger("dao.engine").removeHandler(storing)
    assert storing.told == 1
    assert "RuntimeError: disk full" in capsys.readouterr().err
    assert tasks.get(connection, task.id) == task


def test_slow_statements_are_logged_without_values(connection, caplog):
    """The text, the time and the rows; what was bound may be somebody's secret, also where the statement fails."""
    task = attrs.evolve(make_task(), title="my secret", error="my secret")
    dao.log_slow_statements(0)
    try:
        with dao.transaction(connection):
            tasks.create(connection, task)
        with pytest.raises(dao.UniqueViolation):
            tasks.create_many(connection, [task])
        tasks.find(connection, task_type="my secret")
        dao.fetch(connection, sql="SELECT  1")
        dao.log_slow_statements(3_600_000)
        tasks.find(connection)
    finally:
        dao.log_slow_statements(None)
    assert {(record.name, record.levelno) for record in caplog.records} == {("dao.engine", logging.WARNING)}
    begin, insert, commit, again, find, own = caplog.records
    assert (begin.statement, commit.statement) == ("BEGIN", "COMMIT")
    assert insert.statement == again.statement == TASKS.insert
    assert (insert.rows, again.rows, find.rows) == (1, None, 0)
    assert own.getMessage().endswith(" 1 row: SELECT 1")
    assert f": {find.statement}" in find.getMessage()
    assert find.statement.startswith("SELECT id, title, ")
    assert "secret" not in caplog.text
    assert all(record.seconds >= 0 for record in caplog.records)


@pytest.mark.parametrize("threshold", [-1, float("nan"), "10", True])
def test_threshold_that_is_none_is_refused(threshold):
    """A typing error must not come to log everything, or nothing."""
    with pytest.raises((TypeError, ValueError), match="threshold"):
        dao.log_slow_statements(threshold)
