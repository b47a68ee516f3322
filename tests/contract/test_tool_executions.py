"""Tool executions: what each function of `dao.tool_executions` promises."""

from __future__ import annotations

import math
import random
import types
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import dao
from dao import ToolExecution, ToolStatus, tool_executions
from tests.engines import CONSTRAINT_ERRORS
from tests.listings import assert_lists

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001 - it is naive on purpose
MILLISECOND = timedelta(milliseconds=1)
PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT = ToolStatus


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def call(status: str = "pending", **fields) -> ToolExecution:
    """Return a call of `grep` in a status, with the times that belong to it."""
    ended = ToolStatus(status) in {COMPLETED, FAILED, TIMEOUT}
    fields = {"created_at": NOON, "completed_at": NOON if ended else None} | fields
    return ToolExecution(**{"tool_name": "grep", "input": {"pattern": "x"}, "status": status, **fields})


def recorded(connection: Any, *args, **fields) -> ToolExecution:
    execution = call(*args, **fields)
    tool_executions.record(connection, execution)
    return execution


@pytest.fixture
def task(connection) -> dao.Task:
    """A task that is stored."""
    task = dao.Task(title="a", task_type="agent")
    dao.tasks.create(connection, task)
    return task


@pytest.fixture
def clock(monkeypatch) -> types.SimpleNamespace:
    """The monotonic clock, held still: set `clock.time` to move it."""
    clock = types.SimpleNamespace(time=1000.0)
    monkeypatch.setattr(dao.codec, "monotonic", lambda: clock.time)
    return clock


ENDS = {
    "finish": (tool_executions.finish, {"output": [1, {"a": None}]}, COMPLETED),
    "fail": (tool_executions.fail, {"error": "exit 1", "output": "half"}, FAILED),
    "timeout": (tool_executions.timeout, {"error": "too slow", "output": {"lines": 3}}, TIMEOUT),
}
every_end = pytest.mark.parametrize(("end", "arguments", "status"), ENDS.values(), ids=ENDS)


# ---------------------------------------------------------------- start, record


@pytest.mark.parametrize("input", [{"pattern": "x", "n": 2**60}, [], "text", 0, 2.5, False, None], ids=repr)
def test_start_stores_a_running_call(connection, task, input):
    """The call is running since now, with its input and task, and the record returned is the one stored."""
    execution = tool_executions.start(connection, tool_name="grep", input=input, task_id=task.id, now=NOON)
    assert execution == ToolExecution(
        id=execution.id,
        tool_name="grep",
        input=input,
        task_id=task.id,
        status="running",
        created_at=NOON,
        started_at=NOON,
    )
    assert tool_executions.get(connection, execution.id) == execution


def test_start_without_now_takes_the_clock(connection):
    """Without `now` the call begins at the present moment, alone if no task is given."""
    before = dao.codec.now()
    execution = tool_executions.start(connection, tool_name="grep", input={})
    assert before <= execution.started_at == execution.created_at <= dao.codec.now()
    assert execution.task_id is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"tool_name": " ", "input": {}}, ValueError),
        ({"tool_name": "grep", "input": {1, 2}}, TypeError),
        ({"tool_name": "grep", "input": math.nan}, ValueError),
        ({"tool_name": "grep", "input": {}, "now": NAIVE}, ValueError),
    ],
    ids=["blank name", "no JSON", "not finite", "naive time"],
)
def test_start_refused_argument_stores_nothing(connection, arguments, error):
    """What cannot be stored as it is is refused."""
    with pytest.raises(error):
        tool_executions.start(connection, **arguments)
    assert tool_executions.count(connection) == 0


@pytest.mark.parametrize("status", ToolStatus)
def test_record_any_status_reads_back_equal(connection, task, status):
    """A call is stored as it is, in whatever status, finished ones in one insert."""
    execution = recorded(
        connection, status, task_id=task.id, output=[None], error="e", duration_ms=2**63 - 1, started_at=NOON
    )
    assert tool_executions.get(connection, execution.id) == execution
    assert tool_executions.get_one(connection, execution.id) == execution


@pytest.mark.parametrize(
    "store",
    [
        lambda connection: tool_executions.start(connection, tool_name="grep", input={}, task_id="nobody"),
        lambda connection: tool_executions.record(connection, call(task_id="nobody")),
    ],
    ids=["start", "record"],
)
def test_start_or_record_unknown_task_raises_foreign_key_violation(connection, store):
    """The error says which task is missing, and nothing is stored."""
    with pytest.raises(dao.ForeignKeyViolation, match="'nobody'") as caught:
        store(connection)
    assert (caught.value.table, caught.value.columns) == ("tool_executions", ("task_id",))
    assert caught.value.constraint == "tool_executions_task_id_fkey"
    assert isinstance(caught.value.__cause__, CONSTRAINT_ERRORS)
    assert tool_executions.count(connection) == 0


def test_record_existing_id_raises_unique_violation(connection):
    """A second call with an id is refused by name, and the first stays."""
    execution = recorded(connection)
    with pytest.raises(dao.UniqueViolation) as caught:
        recorded(connection, id=execution.id, tool_name="find")
    assert (caught.value.table, caught.value.columns) == ("tool_executions", ("id",))
    assert list(tool_executions.iter_all(connection)) == [execution]


def test_get_unknown_id_finds_nothing(connection):
    """`get` returns None, and `get_one` says what is missing where."""
    recorded(connection)
    assert tool_executions.get(connection, "nobody") is None
    with pytest.raises(dao.NotFound) as caught:
        tool_executions.get_one(connection, "nobody")
    assert (caught.value.table, caught.value.key) == ("tool_executions", "nobody")


# ---------------------------------------------------------------- finish, fail, timeout


@every_end
@pytest.mark.parametrize("by", ["record", "id"])
def test_end_running_call_stores_and_returns_it(connection, end, arguments, status, by):
    """The call gets its status, output, error, end and duration; nothing else changes, of it or of others."""
    running, other = recorded(connection, "running", started_at=NOON), recorded(connection, "running", started_at=NOON)
    moment = NOON + timedelta(seconds=2, microseconds=345_678)
    ended = end(connection, running if by == "record" else running.id, **arguments, now=moment)
    assert ended == attrs.evolve(
        running,
        status=status,
        output=arguments["output"],
        error=arguments.get("error"),
        completed_at=NOON + timedelta(seconds=2, milliseconds=345),
        duration_ms=2345,
        updated_at=ended.updated_at,
    )
    assert ended.updated_at > running.updated_at
    assert tool_executions.get(connection, running.id) == ended
    assert tool_executions.get(connection, other.id) == other


@every_end
def test_end_without_output_has_none(connection, end, arguments, status):
    """Only a failure must say why; the rest may be left out."""
    running = recorded(connection, "running", started_at=NOON)
    ended = end(connection, running, **({"error": "e"} if end is tool_executions.fail else {}))
    assert (ended.status, ended.output) == (status, None)
    assert ended.error == ("e" if end is tool_executions.fail else None)


@every_end
@pytest.mark.parametrize("output", [math.inf, {1: 2}, object()], ids=["not finite", "no text key", "object"])
def test_end_output_that_is_no_json_changes_nothing(connection, end, arguments, status, output):
    """An output that would not read back as it is is refused, and the call goes on."""
    running = recorded(connection, "running")
    with pytest.raises((TypeError, ValueError)):
        end(connection, running, **(arguments | {"output": output}))
    assert tool_executions.get(connection, running.id) == running


@every_end
@pytest.mark.parametrize("first", ENDS)
def test_end_twice_raises_stale_record_and_keeps_the_first(connection, end, arguments, status, first):
    """The first end stands, whichever it was, whether told by the record or by its id."""
    running = tool_executions.start(connection, tool_name="grep", input={})
    ended = ENDS[first][0](connection, running, **ENDS[first][1])
    for execution in (running, ended, running.id):
        with pytest.raises(dao.StaleRecord, match="has ended already") as caught:
            end(connection, execution, **arguments)
        assert (caught.value.table, caught.value.key) == ("tool_executions", running.id)
    assert tool_executions.get(connection, running.id) == ended


@every_end
def test_end_unknown_call_raises_not_found(connection, end, arguments, status):
    """A call that was never stored cannot end."""
    for execution in (call("running"), "nobody"):
        with pytest.raises(dao.NotFound) as caught:
            end(connection, execution, **arguments)
        assert caught.value.table == "tool_executions"
        assert caught.value.key == getattr(execution, "id", execution)


def test_end_pending_call_that_never_started_has_no_duration(connection):
    """A call without a start has an end but no duration."""
    ended = tool_executions.fail(connection, recorded(connection), error="refused", now=NOON)
    assert (ended.started_at, ended.completed_at, ended.duration_ms) == (None, NOON, None)


# ---------------------------------------------------------------- durations


def test_duration_of_a_started_record_is_monotonic(connection, clock):
    """In the process that started the call the monotonic clock counts, rounded to whole milliseconds."""
    execution = tool_executions.start(connection, tool_name="grep", input={})
    clock.time += 1.2346
    assert tool_executions.finish(connection, execution).duration_ms == 1235


@pytest.mark.parametrize("start", [1e7, 1.5], ids=["long after boot", "right after boot"])
def test_duration_monotonic_reading_of_the_start_does_not_matter(connection, clock, start):
    """Only the difference of two readings counts, of whatever size they are."""
    clock.time = start
    execution = tool_executions.start(connection, tool_name="grep", input={})
    clock.time += 0.25
    assert tool_executions.timeout(connection, execution).duration_ms == 250


@pytest.mark.parametrize("how", ["id", "read back", "now given", "started with now"])
def test_duration_without_the_monotonic_reading_is_by_the_system_clock(connection, clock, how):
    """A record from elsewhere, an id or a given `now` count from `started_at`."""
    execution = tool_executions.start(
        connection, tool_name="grep", input={}, now=NOON if how == "started with now" else None
    )
    clock.time += 77
    now = execution.started_at + timedelta(milliseconds=1500)
    if how == "id":
        execution = execution.id
    elif how == "read back":
        execution = tool_executions.get_one(connection, execution.id)
    assert tool_executions.finish(connection, execution, now=now).duration_ms == 1500


def test_duration_of_a_record_started_with_now_ignores_the_monotonic_clock(connection, clock, monkeypatch):
    """Who holds time still at the start is not measured by another clock at the end."""
    execution = tool_executions.start(connection, tool_name="grep", input={}, now=NOON)
    clock.time += 77
    monkeypatch.setattr(dao.codec, "now", lambda: NOON + timedelta(seconds=3))
    assert tool_executions.finish(connection, execution).duration_ms == 3000


@pytest.mark.parametrize("how", ["system", "monotonic"])
def test_duration_of_a_clock_set_back_is_zero(connection, clock, how):
    """A duration is never below zero."""
    execution = tool_executions.start(connection, tool_name="grep", input={})
    clock.time -= 5
    now = execution.started_at - timedelta(hours=1) if how == "system" else None
    assert tool_executions.finish(connection, execution, now=now).duration_ms == 0


# ---------------------------------------------------------------- find, iter_all, count, list_errors


@pytest.fixture
def shelf(connection, task):
    """Six calls, a to f by their errors, a minute apart, `e` and `f` at the same one; stored in no order."""
    rows = [
        call("completed", error="a", created_at=at(1), task_id=task.id),
        call("failed", error="b", created_at=at(2)),
        call("running", error="c", created_at=at(3), tool_name="find", task_id=task.id),
        call("timeout", error="d", created_at=at(4), tool_name="find"),
        call("failed", error="e", created_at=at(5), tool_name="find", task_id=task.id, id="1"),
        call("pending", error="f", created_at=at(5), id="2"),
    ]
    for number in (3, 0, 5, 4, 2, 1):
        tool_executions.record(connection, rows[number])
    return connection


def errors(found) -> str:
    return "".join(execution.error for execution in found)


QUERIES = [
    ({}, "fedcba"),
    ({"tool_name": "grep"}, "fba"),
    ({"tool_name": "sed"}, ""),
    ({"status": "failed"}, "eb"),
    ({"status": [TIMEOUT, "failed"]}, "edb"),
    ({"status": []}, ""),
    ({"status": ToolStatus}, "fedcba"),
    ({"task_id": True}, "eca"),
    ({"task_id": "nobody"}, ""),
    ({"task_id": True, "tool_name": "find", "status": ["failed", "pending"]}, "e"),
    ({"since": at(4)}, "fed"),
    ({"until": at(4)}, "cba"),
    ({"since": at(2) + MILLISECOND, "until": at(5) + MILLISECOND, "tool_name": "find"}, "edc"),
    ({"since": at(3), "until": at(3)}, ""),
]


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
def test_find_filters_return_matching_calls_in_order(shelf, task, oldest_first):
    """Pages, `iter_all` and `count` agree on what matches; the order is by creation time and then by id."""
    for query, newest_first in QUERIES:
        filters = query | {"task_id": task.id} if query.get("task_id") is True else query
        assert_lists(tool_executions, shelf, filters, "error", newest_first, oldest_first=oldest_first)


@pytest.mark.parametrize("function", [tool_executions.find, tool_executions.iter_all, tool_executions.count])
def test_find_unknown_status_raises_value_error(connection, function):
    """A status that does not exist is refused, not taken for one without matches."""
    with pytest.raises(ValueError, match="ToolStatus"):
        list(function(connection, status="cancelled"))


@pytest.mark.parametrize("function", [tool_executions.find, tool_executions.list_errors])
@pytest.mark.parametrize("limit", [0, 1001, True])
def test_find_limit_out_of_range_raises_value_error(connection, function, limit):
    """A limit is a whole number from 1 to 1000."""
    with pytest.raises(ValueError, match="limit"):
        function(connection, limit=limit)


@pytest.mark.parametrize(
    "change", [{"tool_name": "find"}, {"task_id": "a"}, {"status": "failed"}, {"oldest_first": True}], ids=str
)
def test_find_cursor_of_another_query_raises_invalid_cursor(shelf, change):
    """A cursor leads on in the query that gave it and in no other."""
    cursor = tool_executions.find(shelf, limit=1).next
    with pytest.raises(dao.InvalidCursor):
        tool_executions.find(shelf, **change, after=cursor)


def test_iter_all_more_than_a_page_yields_each_once(connection):
    """All pages are walked, in order."""
    with dao.transaction(connection):
        for number in range(1001):
            recorded(connection, id=f"{number:04}")
    found = tool_executions.iter_all(connection, status=iter(["pending"]), oldest_first=True)
    assert [int(execution.id) for execution in found] == list(range(1001))


def test_list_errors_returns_failures_and_timeouts_newest_first(shelf):
    """Failed and timed-out calls come newest first, of one tool if asked, and no more than the limit."""
    assert errors(tool_executions.list_errors(shelf)) == "edb"
    assert errors(tool_executions.list_errors(shelf, limit=2)) == "ed"
    assert errors(tool_executions.list_errors(shelf, tool_name="grep")) == "b"
    assert tool_executions.list_errors(shelf, tool_name="sed") == []


# ---------------------------------------------------------------- statistics


def nearest_rank(durations: list[int], percent: int) -> int | None:
    """Return the smallest duration that at least so many percent do not exceed."""
    ordered = sorted(durations)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


@pytest.mark.parametrize("seed", range(4))
def test_statistics_random_calls_agree_with_a_plain_model(connection, seed):
    """Counts, failures, mean and percentiles of each tool are what plain Python makes of the same calls."""
    rng = random.Random(seed)
    calls: dict[str, list[tuple[ToolStatus, int | None]]] = {}
    # numbers of calls at which the ranks of the percentiles change
    for number, size in enumerate([1, 2, 3, 19, 20, 21, 39, 40, 41, 100, rng.randrange(1, 60)]):
        choices = [None, *rng.choices(range(1000), k=rng.choice([1, 3, size]))]
        calls[f"tool {number:02}"] = [
            (rng.choice(list(ToolStatus)), rng.choice(choices if rng.random() < 0.3 else choices[1:]))
            for _ in range(size)
        ]
    with dao.transaction(connection):
        for tool_name, several in calls.items():
            for status, duration in several:
                recorded(connection, status, tool_name=tool_name, duration_ms=duration)
    found = tool_executions.statistics(connection)
    assert [row.tool_name for row in found] == sorted(calls)
    for row in found:
        several = calls[row.tool_name]
        durations = [duration for _, duration in several if duration is not None]
        assert row.count == len(several)
        assert row.failures == sum(status in {FAILED, TIMEOUT} for status, _ in several)
        assert row.mean_ms == (pytest.approx(sum(durations) / len(durations)) if durations else None)
        assert row.p50_ms == nearest_rank(durations, 50)
        assert row.p95_ms == nearest_rank(durations, 95)


def test_statistics_calls_without_duration_have_no_times(connection):
    """A tool none of whose calls has a duration has None for each of them."""
    recorded(connection)
    assert tool_executions.statistics(connection) == [
        tool_executions.ToolStatistics(tool_name="grep", count=1, failures=0, mean_ms=None, p50_ms=None, p95_ms=None)
    ]


def test_statistics_no_calls_is_empty(connection):
    """No calls are no tools."""
    assert tool_executions.statistics(connection) == []


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ({}, {"find": (3, 2), "grep": (3, 1)}),
        ({"since": at(4)}, {"find": (2, 2), "grep": (1, 0)}),
        ({"until": at(4)}, {"find": (1, 0), "grep": (2, 1)}),
        ({"since": at(3), "until": at(5)}, {"find": (2, 1)}),
        ({"since": at(6)}, {}),
    ],
    ids=str,
)
def test_statistics_of_a_period_counts_its_calls(shelf, period, expected):
    """Only calls created from `since` until before `until` count; a tool without one is not there."""
    found = tool_executions.statistics(shelf, **period)
    assert {row.tool_name: (row.count, row.failures) for row in found} == expected


# ---------------------------------------------------------------- delete_before


def test_delete_before_moment_deletes_what_is_older(shelf):
    """All calls created before the moment go, whatever their status, and are counted; safe to repeat."""
    assert tool_executions.delete_before(shelf, at(3)) == 2
    assert errors(tool_executions.iter_all(shelf)) == "fedc"
    assert tool_executions.delete_before(shelf, at(3)) == 0
    assert tool_executions.delete_before(shelf, at(5) + MILLISECOND) == 4
    assert tool_executions.count(shelf) == 0


def test_delete_before_naive_moment_raises_value_error(shelf):
    """A moment without a zone is none."""
    with pytest.raises(ValueError, match="naive"):
        tool_executions.delete_before(shelf, NAIVE)
    assert tool_executions.count(shelf) == 6
