"""Steps: a tool is called once for each, however often its task is tried, and never for an attempt that has lost it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import dao
from dao import TaskStatus, ToolStatus, tasks, tool_executions
from dao.engine import fetch
from dao.testing import make_task

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def claimed(connection: Any, worker: str = "w1", now: datetime = NOON) -> dao.Task:
    (task,) = tasks.claim(connection, worker=worker, lease=MINUTE, now=now)
    return task


@pytest.fixture
def first(connection) -> dao.Task:
    """A task that may be tried again, claimed by worker w1."""
    tasks.create(connection, make_task(id="a", retries=5, created_at=NOON))
    return claimed(connection)


def again(connection: Any) -> dao.Task:
    """Have worker w2 take the task, whose lease has ended."""
    return claimed(connection, "w2", NOON + 2 * MINUTE)


def fetched(connection: Any, task: dao.Task, name: str = "fetch", **more: Any) -> dao.ToolExecution:
    return tool_executions.step(connection, task, name, **{"tool_name": "http", "input": {"n": 1}} | more)


def test_new_step_is_a_running_call_of_the_attempt(connection, first):
    """It is stored as it is returned, and ends as any call."""
    call = fetched(connection, first, now=NOON)
    assert call == tool_executions.get_one(connection, call.id)
    assert (call.task_id, call.step, call.attempt, call.status) == ("a", "fetch", 1, ToolStatus.RUNNING)
    assert (call.tool_name, call.input, call.created_at, call.started_at) == ("http", {"n": 1}, NOON, NOON)
    done = tool_executions.finish(connection, call, output=[1], now=NOON + MINUTE)
    assert (done.status, done.output, done.duration_ms) == (ToolStatus.COMPLETED, [1], 60_000)


def test_step_of_a_task_that_nobody_claimed_is_refused(connection):
    """It was called a wrong attempt, as by the constructor of a record, though no end of a task is."""
    tasks.create(connection, task := make_task(id="b"))
    with pytest.raises(dao.LeaseLost, match="attempt 0 no longer holds 'b': it is pending since"):
        fetched(connection, task)
    with pytest.raises(dao.LeaseLost, match="attempt 0 no longer holds 'b': it is pending since"):
        tool_executions.start(connection, task=task, tool_name="http", input=None)


def test_step_of_an_undone_claim_whose_number_another_takes_meanwhile(connection, monkeypatch):
    """The refusal was told as the trigger's if an attempt of that number had the task when that was asked."""
    tasks.create(connection, make_task(id="a", created_at=NOON))
    with contextlib.suppress(KeyError), dao.transaction(connection):
        late = claimed(connection)
        raise KeyError
    lost = tool_executions.lease_lost

    def overtaken(*given):
        claimed(connection, "w2")
        return lost(*given)

    monkeypatch.setattr(tool_executions, "lease_lost", overtaken)
    with pytest.raises(dao.LeaseLost, match="attempt 1 no longer holds 'a': worker 'w2' has it as attempt 1 since"):
        fetched(connection, late)


def test_completed_step_stands_for_all_attempts(connection, first):
    """The call that completed it is returned, with its output, whatever attempt asks, and with which input."""
    done = tool_executions.finish(connection, fetched(connection, first), output={"a": None})
    assert fetched(connection, first) == done
    second = again(connection)
    assert fetched(connection, second, input=None) == done
    assert fetched(connection, second, "other").status is ToolStatus.RUNNING
    assert tool_executions.count(connection, task_id="a") == 2


def test_step_that_did_not_complete_is_made_again(connection, first):
    """A call that failed, timed out, or is still open stands for nothing."""
    tool_executions.fail(connection, fetched(connection, first), error="no")
    tool_executions.timeout(connection, fetched(connection, first))
    fetched(connection, first)
    assert fetched(connection, first).status is ToolStatus.RUNNING
    assert tool_executions.count(connection, task_id="a") == 4


def test_two_calls_do_not_both_stand_for_a_step(connection, first):
    """The second that would complete it is refused: the first end stands."""
    one, other = fetched(connection, first), fetched(connection, first)
    tool_executions.finish(connection, one, output=1)
    with pytest.raises(dao.UniqueViolation):
        tool_executions.finish(connection, other, output=2)
    assert fetched(connection, first).output == 1


def test_start_for_a_claimed_task_is_a_call_of_the_attempt(connection, first):
    """Without a step; and with the id of a task alone it is one of no attempt, as before."""
    call = tool_executions.start(connection, tool_name="http", input=1, task=first, now=NOON)
    assert call == tool_executions.get_one(connection, call.id)
    assert (call.task_id, call.attempt, call.step) == ("a", 1, None)
    plain = tool_executions.start(connection, tool_name="http", input=1, task_id="a")
    assert (plain.task_id, plain.attempt, plain.step) == ("a", None, None)
    with pytest.raises(TypeError, match="not both"):
        tool_executions.start(connection, tool_name="http", input=1, task=first, task_id="a")
    for wrong in ("a", None):
        with pytest.raises(TypeError, match="the Task that `claim` returned"):
            tool_executions.step(connection, wrong, "fetch", tool_name="http", input=1)


@pytest.mark.parametrize("name", ["", 1, None, "\0"])
def test_step_needs_a_name(connection, first, name):
    """A text, and not an empty one."""
    with pytest.raises((ValueError, TypeError)):
        fetched(connection, first, name)
    assert tool_executions.count(connection) == 0


# what becomes of the first attempt, and how the message of those that come after it ends
FATES = {
    "replaced": (again, r"worker 'w2' has it as attempt 2 since 2026-01-01T12:02:00.000Z", TaskStatus.RUNNING),
    "cancelled": (
        lambda c: tasks.cancel(c, "a", now=NOON),
        r"it was cancelled at 2026-01-01T12:00:00.000Z",
        "cancelled",
    ),
    "released": (
        lambda c: tasks.set_status(c, "a", "pending"),
        r"it is pending again since 2\d{3}-",
        TaskStatus.PENDING,
    ),
    "deleted": (lambda c: tasks.delete(c, "a"), "it has been deleted", None),
}
every_fate = pytest.mark.parametrize(("fate", "message", "status"), FATES.values(), ids=FATES)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@every_fate
def test_lost_attempt_begins_no_call(connection, first, fate, message, status, inside):
    """It is told who has its task before the tool is called, in the words of `complete`; a transaction goes on."""
    fate(connection)
    with dao.transaction(connection) if inside else contextlib.nullcontext():
        for begin in (
            lambda: fetched(connection, first),
            lambda: tool_executions.start(connection, tool_name="http", input=1, task=first),
        ):
            with pytest.raises(dao.LeaseLost, match=f"attempt 1 no longer holds 'a': {message}") as lost:
                begin()
            with pytest.raises(dao.LeaseLost) as other:
                tasks.complete(connection, first)
            assert (str(lost.value), lost.value.to_dict()) == (str(other.value), other.value.to_dict())
            assert (lost.value.table, lost.value.key, lost.value.status) == ("tasks", "a", status)
        dao.configurations.set(connection, "went on", True)
    assert tool_executions.count(connection) == 0
    assert dao.configurations.get(connection, "went on") is True


@pytest.mark.parametrize("end", ["finish", "fail", "timeout"])
@every_fate
def test_lost_attempt_ends_no_call(connection, first, fate, message, status, end):
    """Its open calls have failed with the attempt: what it says of them later does not count."""
    call = fetched(connection, first)
    plain = tool_executions.start(connection, tool_name="http", input=1, task_id="a")
    fate(connection)
    ends = {
        "finish": lambda: tool_executions.finish(connection, call, output=1),
        "fail": lambda: tool_executions.fail(connection, call, error="late"),
        "timeout": lambda: tool_executions.timeout(connection, call),
    }
    with pytest.raises(dao.LeaseLost, match=message):
        ends[end]()
    if status is not None:
        kept = tool_executions.get_one(connection, call.id)
        assert (kept.status, kept.output) == (ToolStatus.FAILED, None)
        assert kept.error == "outcome unknown: attempt 1 of the task ended before the call did"
        # a call of no attempt is nobody's but its own
        assert tool_executions.finish(connection, plain, output=1).status is ToolStatus.COMPLETED


def test_call_that_has_ended_while_its_attempt_has_the_task_is_stale(connection, first):
    """It is no lost lease that refuses the second end."""
    call = fetched(connection, first)
    tool_executions.finish(connection, call, output=1)
    with pytest.raises(dao.StaleRecord, match="has ended already") as refused:
        tool_executions.fail(connection, call, error="no")
    assert type(refused.value) is dao.StaleRecord


def test_lost_attempt_still_reads_what_was_completed(connection, first):
    """No tool is called for that; what it does with it is refused when it writes."""
    done = tool_executions.finish(connection, fetched(connection, first), output=1)
    again(connection)
    assert fetched(connection, first) == done


def test_steps_go_with_their_task(connection, first):
    """As all calls of a task do."""
    fetched(connection, first)
    tasks.delete(connection, "a")
    assert fetch(connection, "SELECT count(*) FROM tool_executions") == [(0,)]
