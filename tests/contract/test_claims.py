"""What workers call: `claim` and the functions that keep and end a claim; what they promise, and to whom."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import attrs
import pytest

import dao
from dao import Task, TaskStatus, aio, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import execute, fetch, in_transaction
from dao.testing import make_task, make_tool_execution, make_workflow
from tests.concurrency import Worker, loop
from tests.engines import is_sqlite, wait_for_waiter
from tests.queued import DAY, MINUTE, MS, NOON, SECOND, begin, claim, claim_one, put, titles

__all__ = ["loop"]  # a fixture

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

# ---------------------------------------------------------------- claim


def test_claim_returns_the_tasks_as_they_are_stored(connection):
    """A claimed task is running, with its worker, its lease and an attempt of its own; its earlier error is gone."""
    task = put(connection, error="e", completed_at=NOON, config={"n": [1]}, metadata=2, workspace_path="/a")
    claimed = claim_one(connection, "w1", now=NOON + SECOND)
    assert claimed == attrs.evolve(
        task,
        status="running",
        attempt=1,
        worker="w1",
        lease_expires_at=NOON + 11 * SECOND,
        started_at=NOON + SECOND,
        updated_at=NOON + SECOND,
        completed_at=None,
        error=None,
    )
    assert tasks.get(connection, task.id) == claimed
    assert not in_transaction(connection)
    assert claim(connection, now=NOON + SECOND) == []


_LOST = "status = 'running', attempt = 1, lease_expires_at = '2025-01-01T00:00:00.000Z', worker"
_NOT_UTF8 = "CAST(x'ff' AS TEXT)"


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("limit", [1, 9])
@pytest.mark.parametrize(
    ("engine", "written"),
    [
        *itertools.product(
            ("sqlite", "postgresql"),
            [
                "updated_at = '9999-12-31T23:59:59.999Z'",
                "attempt = 9223372036854775807",
                f"{_LOST} = 'w', updated_at = '9999-12-31T23:59:59.999Z'",
                f"{_LOST} = 'w', failures = 9223372036854775807",
            ],
        ),
        # PostgreSQL stores UTF-8 only
        ("sqlite", f"description = {_NOT_UTF8}"),
        ("sqlite", f"{_LOST} = 'w', description = {_NOT_UTF8}"),
        ("sqlite", f"{_LOST} = {_NOT_UTF8}"),
        ("sqlite", f"id = {_NOT_UTF8}"),
        ("sqlite", f"{_LOST} = 'w', id = {_NOT_UTF8}"),
    ],
)
def test_claim_is_not_kept_from_other_tasks_by_one_that_cannot_be_claimed(connection, written, limit, is_alone):
    """Such a row made every claim that reached it fail, so that nobody did anything any more."""
    put(connection, "a", priority=9)
    for title in "bcd":
        put(connection, title, now=NOON + SECOND)
    connection.execute(f"UPDATE tasks SET {written} WHERE title = 'a'")
    now = NOON + SECOND
    for expected in ("b", "c") if limit == 1 else ("bcd", ""):
        with contextlib.nullcontext() if is_alone else dao.transaction(connection):
            assert titles(claim(connection, "x", limit=limit, now=now)) == expected
    assert not in_transaction(connection)
    assert fetch(connection, "SELECT worker FROM tasks WHERE worker = 'x' AND title = 'a'") == []
    if "CAST" in written:
        ((status, error),) = fetch(connection, "SELECT status, error FROM tasks WHERE title = 'a'")
        assert status == "failed"
        assert "description" in written.removeprefix(_LOST) or "not UTF-8: correct it in SQL" in error


def test_end_of_an_attempt_is_not_held_up_by_a_call_that_can_have_no_later_version(connection):
    """Its trigger refused the end of the call, and so that of the task: no lost one was rescued, and nobody claimed."""
    put(connection, "a", retries=1)
    task = claim_one(connection)
    last = datetime.max.replace(microsecond=999000, tzinfo=UTC)
    call = make_tool_execution(task_id=task.id, attempt=1, status="running", created_at=NOON, updated_at=last)
    tool_executions.record(connection, call)
    assert titles(claim(connection, now=NOON + DAY)) == "a"


def test_claim_takes_priority_then_time_then_id(connection):
    """The most urgent first, then the longest due, then the lowest id; RETURNING alone gives them in no such order."""
    for title, fields in {
        "e": {"id": "2"},
        "d": {"id": "1"},
        "c": {"run_at": NOON - SECOND},
        "b": {"priority": 3},
        "a": {"priority": 9, "run_at": NOON + 5 * SECOND},
        "x": {"priority": 9, "run_at": NOON + 5 * SECOND + MS},
    }.items():
        put(connection, title, **fields)
    assert titles(claim(connection, now=NOON + 5 * SECOND, limit=9)) == "abcde"
    assert titles(claim(connection, now=NOON + 6 * SECOND, limit=9)) == "x"


def test_claim_limit_takes_the_first_and_leaves_the_rest(connection):
    """No more than the limit, counted over all priorities."""
    for number in range(7):
        put(connection, f"{number}", priority=number // 2, run_at=NOON - number * SECOND)
    assert titles(claim(connection, limit=4)) == "6543"
    assert titles(claim(connection)) == "2"
    assert titles(claim(connection, limit=1000)) == "10"


def test_claim_of_a_type_leaves_the_others(connection):
    """A worker that serves one type gets no task of another, however urgent; it rescues any."""
    put(connection, "a", task_type="mail", priority=9)
    put(connection, "b", task_type="agent")
    put(connection, "c", task_type="mail")
    assert titles(claim(connection, limit=9, task_type="agent")) == "b"
    assert claim(connection, limit=9, task_type="agent") == []
    assert claim(connection, limit=9, task_type="nothing") == []
    assert titles(claim(connection, limit=1, task_type="mail")) == "a"
    assert titles(claim(connection, task_type="mail", now=NOON + MINUTE)) == "c"
    assert tasks.count_by_status(connection)[TaskStatus.FAILED] == 2


def test_claim_task_scheduled_ahead_waits_for_its_time(connection):
    """`run_at` is the first moment at which a task may run; by default that is when it was made."""
    task = put(connection, run_at=NOON + SECOND)
    assert claim(connection, now=NOON + SECOND - MS) == []
    assert claim_one(connection, now=NOON + SECOND).id == task.id
    assert put(connection).run_at == NOON


def test_claim_new_attempt_each_time(connection):
    """No token is ever good twice, whatever ended the attempt before."""
    put(connection, retries=9)
    for attempt, end in enumerate([tasks.release, lambda c, task, now: tasks.fail(c, task, error="e", now=now)] * 2, 1):
        claimed = claim_one(connection)
        assert claimed.attempt == attempt
        end(connection, claimed, now=NOON)
    tasks.set_status(connection, claimed.id, "running")
    assert tasks.get_one(connection, claimed.id).attempt == 5


# ---------------------------------------------------------------- the token


ENDS = {
    "renew": lambda c, task, now: tasks.renew(c, task, lease=SECOND, now=now),
    "complete": lambda c, task, now: tasks.complete(c, task, now=now),
    "fail": lambda c, task, now: tasks.fail(c, task, error="e", now=now),
    "fail for good": lambda c, task, now: tasks.fail(c, task, error="e", retry=False, now=now),
    "release": lambda c, task, now: tasks.release(c, task, now=now),
    "release until": lambda c, task, now: tasks.release(c, task, run_at=NOON, now=now),
}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


@every_end
def test_write_of_a_replaced_worker_is_refused(connection, end):
    """Whatever a worker writes that was replaced, it gets LeaseLost, which says by whom, and nothing is stored."""
    task = put(connection, retries=3)
    late = claim_one(connection, "w1")
    present = claim_one(connection, "w2", now=NOON + 11 * SECOND)
    assert (late.attempt, present.attempt) == (1, 2)
    with pytest.raises(dao.LeaseLost) as caught:
        end(connection, late, NOON + 12 * SECOND)
    assert str(caught.value) == (
        f"tasks: attempt 1 no longer holds {task.id!r}: worker 'w2' has it as attempt 2 since 2026-01-01T12:00:11.000Z"
    )
    error = caught.value
    assert isinstance(error, dao.StaleRecord)
    assert (error.table, error.key, error.attempt, error.worker) == ("tasks", task.id, 2, "w2")
    assert (error.since, error.status) == (NOON + 11 * SECOND, "running")
    assert tasks.get(connection, task.id) == present
    assert not in_transaction(connection)


@every_end
def test_write_of_a_worker_whose_lease_ran_out_but_whom_nobody_replaced_is_taken(connection, end):
    """The token decides, not the clock."""
    task = put(connection, retries=3)
    late = claim_one(connection, "w1")
    written = end(connection, late, NOON + DAY)
    assert written == tasks.get(connection, task.id)
    assert written.status != "running" or written.lease_expires_at == NOON + DAY + SECOND


FATES = {
    "cancelled": (
        lambda c, task: tasks.cancel(c, task.id, now=NOON + SECOND),
        "it was cancelled at 2026-01-01T12:00:01.000Z",
        (1, None, NOON + SECOND, "cancelled"),
    ),
    "completed": (
        lambda c, task: tasks.complete(c, task, now=NOON + SECOND),
        "it was completed at 2026-01-01T12:00:01.000Z",
        (1, None, NOON + SECOND, "completed"),
    ),
    "failed": (
        lambda c, task: tasks.fail(c, task, error="e", retry=False, now=NOON + SECOND),
        "it failed at 2026-01-01T12:00:01.000Z",
        (1, None, NOON + SECOND, "failed"),
    ),
    "released": (
        lambda c, task: tasks.release(c, task, now=NOON + SECOND),
        "it is pending again since 2026-01-01T12:00:01.000Z",
        (1, None, NOON + SECOND, "pending"),
    ),
    "begun without a worker": (
        lambda c, task: (tasks.release(c, task), tasks.set_status(c, task.id, "running", now=NOON + SECOND)),
        "it runs without a worker as attempt 2 since 2026-01-01T12:00:01.000Z",
        (2, None, NOON + SECOND, "running"),
    ),
    "deleted": (lambda c, task: tasks.delete(c, task.id), "it has been deleted", (None, None, None, None)),
}


@every_end
@pytest.mark.parametrize(("befall", "words", "present"), FATES.values(), ids=FATES)
def test_lease_lost_says_what_became_of_the_task(connection, end, befall, words, present):
    """The error names the present state, and its attributes have it."""
    put(connection)
    late = claim_one(connection)
    befall(connection, late)
    before = fetch(connection, "SELECT * FROM tasks")
    with pytest.raises(dao.LeaseLost) as caught:
        end(connection, late, NOON + 2 * SECOND)
    error = caught.value
    assert str(error) == f"tasks: attempt 1 no longer holds {late.id!r}: {words}"
    assert (error.attempt, error.worker, error.since, error.status) == present
    assert fetch(connection, "SELECT * FROM tasks") == before
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert (str(again), vars(again)) == (str(error), vars(error))
    assert error.to_dict()["type"] == "LeaseLost"


def undone(connection, task):
    """Claim a task in a transaction that is undone, and return what was claimed."""
    with contextlib.suppress(KeyError), dao.transaction(connection):
        late = claim_one(connection, "w1")
        raise KeyError
    return late


def made_again(connection, task):
    """Claim a task, then delete it and make it again, and return what was claimed."""
    late = claim_one(connection, "w1")
    tasks.delete(connection, task.id)
    tasks.enqueue(connection, task)
    return late


@every_end
@pytest.mark.parametrize("claimed", [undone, made_again])
def test_attempt_whose_number_comes_again_is_refused(connection, claimed, end):
    """Only the number was compared: who had it before its claim was undone, or its task made again, ended another's."""
    late = claimed(connection, put(connection))
    with pytest.raises(dao.LeaseLost, match=r"attempt 1 no longer holds .*: its latest is attempt 0, so") as caught:
        end(connection, late, NOON)
    assert (caught.value.attempt, caught.value.worker, caught.value.status) == (0, None, "pending")
    present = claim_one(connection, "w2")
    assert present.attempt == late.attempt
    with pytest.raises(dao.LeaseLost, match=r"attempt 1 no longer holds .*: worker 'w2' has it as attempt 1 since"):
        end(connection, late, NOON)
    assert tasks.get(connection, late.id) == present


def test_write_with_a_record_that_nobody_claimed_is_refused(connection):
    """A task that is pending has no holder, and one that `set_status` began has no lease."""
    task = put(connection)
    with pytest.raises(dao.LeaseLost, match=r"attempt 0 no longer holds .*: it is pending since 2026-01-01T12:00:00"):
        tasks.complete(connection, task)
    begun = tasks.set_status(connection, task.id, "running")
    with pytest.raises(dao.LeaseLost, match=r"attempt 1 has no lease on .*: `set_status` began it, and only `claim`"):
        tasks.renew(connection, begun, lease=SECOND)
    assert tasks.complete(connection, begun).status == "completed"


# ---------------------------------------------------------------- renew


def test_renew_moves_the_end_of_the_lease_and_makes_no_version(connection):
    """A heartbeat is in nobody's way: the record that others have read can still be updated, and no event tells it."""
    put(connection)
    claimed = claim_one(connection)
    seen = fetch(connection, "SELECT count(*) FROM task_events")
    renewed = tasks.renew(connection, claimed, lease=MINUTE, now=NOON + 9 * SECOND)
    assert renewed == attrs.evolve(claimed, lease_expires_at=NOON + 69 * SECOND)
    assert tasks.get(connection, claimed.id) == renewed
    assert fetch(connection, "SELECT count(*) FROM task_events") == seen
    assert claim(connection, "w2", now=NOON + 69 * SECOND) == []
    assert tasks.update(connection, attrs.evolve(claimed, title="b")).lease_expires_at == renewed.lease_expires_at
    assert tasks.complete(connection, claimed).title == "b"


def test_cancel_of_a_running_task_is_noticed_by_its_worker(connection):
    """The next heartbeat, or the end, tells the worker; its lease is gone."""
    task = put(connection)
    claimed = claim_one(connection)
    cancelled = tasks.cancel(connection, task.id, error="the user left", now=NOON + SECOND)
    assert (cancelled.status, cancelled.error, cancelled.completed_at) == ("cancelled", "the user left", NOON + SECOND)
    assert (cancelled.worker, cancelled.lease_expires_at, cancelled.attempt) == (None, None, 1)
    with pytest.raises(dao.LeaseLost, match="it was cancelled at"):
        tasks.renew(connection, claimed, lease=SECOND)


# ---------------------------------------------------------------- complete, release


def test_complete_ends_the_task_and_the_lease(connection):
    """Nothing of the claim is left but the number of its attempt."""
    task = put(connection)
    claimed = claim_one(connection)
    completed = tasks.complete(connection, claimed, now=NOON + SECOND)
    assert completed == attrs.evolve(
        claimed,
        status="completed",
        worker=None,
        lease_expires_at=None,
        completed_at=NOON + SECOND,
        updated_at=NOON + SECOND,
    )
    assert tasks.get(connection, task.id) == completed


def test_complete_with_rows_of_the_caller_is_one_transaction(connection):
    """The effect and its completion are stored together; a worker that was replaced stores neither."""
    put(connection, retries=1)
    late, present = claim_one(connection), claim_one(connection, now=NOON + MINUTE)
    for worker, value in ((late, "late"), (present, "present")):
        with contextlib.suppress(dao.LeaseLost), dao.transaction(connection):
            dao.configurations.set(connection, "effect", value)
            tasks.complete(connection, worker)
    assert dao.configurations.get(connection, "effect") == "present"
    assert tasks.get_one(connection, late.id).status == "completed"


def test_release_costs_no_retry_and_keeps_the_place(connection):
    """A worker that shuts down gives its task back: it is the next again, though others have come meanwhile."""
    first = put(connection, "a")
    put(connection, "b", run_at=NOON + SECOND)
    claimed = claim_one(connection)
    released = tasks.release(connection, claimed, now=NOON + 2 * SECOND)
    assert released == attrs.evolve(first, attempt=1, updated_at=NOON + 2 * SECOND)
    assert tasks.get(connection, first.id) == released
    assert titles(claim(connection, now=NOON + 2 * SECOND)) == "a"


def test_release_until_a_moment_is_a_snooze(connection):
    """With `run_at` it is due then, and has failed no more often."""
    put(connection)
    released = tasks.release(connection, claim_one(connection), run_at=NOON + MINUTE, now=NOON + SECOND)
    assert (released.run_at, released.failures, released.started_at) == (NOON + MINUTE, 0, None)
    assert claim(connection, now=NOON + MINUTE - MS) == []
    assert claim_one(connection, now=NOON + MINUTE).attempt == 2


# ---------------------------------------------------------------- fail


def test_fail_backs_off_twice_as_long_each_time_until_no_retry_is_left(connection):
    """`retries` come after the first attempt; the last failure is for good."""
    task = put(connection, retries=3, retry_delay_ms=10_000)
    now = NOON
    for failures, wait in ((1, 10), (2, 20), (3, 40)):
        claimed = claim_one(connection, now=now)
        failed = tasks.fail(connection, claimed, error=f"no {failures}", jitter=0, now=now + SECOND)
        now += (wait + 1) * SECOND
        assert failed == attrs.evolve(
            claimed,
            status="pending",
            error=f"no {failures}",
            failures=failures,
            run_at=now,
            updated_at=now - wait * SECOND,
            worker=None,
            lease_expires_at=None,
            started_at=None,
        )
        assert tasks.get(connection, task.id) == failed
        assert claim(connection, now=now - MS) == []
    claimed = claim_one(connection, now=now)
    failed = tasks.fail(connection, claimed, error="no 4", now=now + SECOND)
    assert failed == attrs.evolve(
        claimed,
        status="failed",
        error="no 4",
        failures=4,
        updated_at=now + SECOND,
        completed_at=now + SECOND,
        worker=None,
        lease_expires_at=None,
    )
    assert claim(connection, now=now + DAY) == []


@pytest.mark.parametrize(
    ("failures", "delay_ms", "waits"),
    [
        (0, 0, timedelta(0)),
        (5, 1, 32 * MS),
        (26, 1, 2**26 * MS),
        (27, 1, DAY),
        (2**63 - 2, 1, DAY),
        (1, 86_400_000, DAY),
        (0, 86_400_000, DAY),
        (2**63 - 2, 86_400_000, DAY),
    ],
)
def test_fail_backs_off_for_a_day_at_the_most(connection, failures, delay_ms, waits):
    """However often a task failed, the delay is reckoned at once, and is never longer than a day."""
    put(connection, failures=failures, retries=2**63 - 1, retry_delay_ms=delay_ms)
    failed = tasks.fail(connection, claim_one(connection), error="e", jitter=0, now=NOON)
    assert failed.run_at == NOON + waits


def test_fail_jitter_spreads_the_delays(connection):
    """Tasks that failed together are not tried again together, and each within its bounds."""
    for _ in range(40):
        put(connection, retries=1, retry_delay_ms=1_000_000)
    claimed = claim(connection, limit=40)
    half, rest = claimed[:20], claimed[20:]
    by_default = {tasks.fail(connection, task, error="e", now=NOON).run_at - NOON for task in half}
    by_half = {tasks.fail(connection, task, error="e", jitter=0.5, now=NOON).run_at - NOON for task in rest}
    assert len(by_default) > 10
    assert len(by_half) > 10
    assert 900 * SECOND <= min(by_default) < 1000 * SECOND < max(by_default) <= 1100 * SECOND
    assert all(500 * SECOND <= delay <= 1500 * SECOND for delay in by_half)


def test_fail_retry_in_is_exact(connection):
    """The caller who knows better says when, such as a server that sent Retry-After; it counts as a failure."""
    put(connection, retries=1, retry_delay_ms=5)
    failed = tasks.fail(connection, claim_one(connection), error="e", retry_in=MINUTE, now=NOON)
    assert (failed.run_at, failed.failures, failed.status) == (NOON + MINUTE, 1, "pending")


def test_fail_without_retry_is_for_good(connection):
    """An error that would come again needs no other attempt."""
    put(connection, retries=5)
    failed = tasks.fail(connection, claim_one(connection), error="e", retry=False, now=NOON)
    assert (failed.status, failed.failures, failed.completed_at, failed.run_at) == ("failed", 1, NOON, NOON)


# ---------------------------------------------------------------- rescue


def test_claim_rescues_what_is_lost_and_claims_it_in_its_order(connection):
    """A task whose worker is gone is due again: without a process that looks for such ones."""
    put(connection, "a", retries=1, priority=5)
    put(connection, "b")
    lost = claim(connection, "w1")
    assert titles(claim(connection, "w2", now=NOON + 10 * SECOND)) == "b"
    assert claim(connection, "w3", now=NOON + 10 * SECOND) == []
    put(connection, "c", priority=4, now=NOON + SECOND)
    put(connection, "d", priority=6, now=NOON + SECOND)
    both = claim(connection, "w3", now=NOON + 10 * SECOND + MS, limit=2)
    assert titles(both) == "da"
    again = both[1]
    assert (again.attempt, again.failures, again.worker, again.error) == (2, 1, "w3", None)
    assert lost[0].id == again.id


def test_rescue_ends_the_attempt_as_a_failure_that_says_so(connection):
    """It counts as one, with its delay; the error names the worker and the end of its lease. The longest lost first."""
    for title, fields in {"c": {"retries": 0}, "a": {"retries": 1, "retry_delay_ms": 10_000}}.items():
        put(connection, title, priority=9 if title == "c" else 0, **fields)
    for title, lease in (("c", 2 * SECOND), ("a", SECOND)):
        assert titles(claim(connection, f"w{title}", lease=lease)) == title
    assert tasks.rescue(connection, now=NOON + SECOND) == []
    rescued = tasks.rescue(connection, jitter=0, now=NOON + MINUTE)
    assert titles(rescued) == "ac"
    assert rescued == [tasks.get_one(connection, task.id) for task in rescued]
    assert [(task.status, task.failures, task.error, task.worker, task.lease_expires_at) for task in rescued] == [
        ("pending", 1, "the lease of worker 'wa' ended at 2026-01-01T12:00:01.000Z", None, None),
        ("failed", 1, "the lease of worker 'wc' ended at 2026-01-01T12:00:02.000Z", None, None),
    ]
    assert (rescued[0].run_at, rescued[0].completed_at) == (NOON + 70 * SECOND, None)
    assert (rescued[1].run_at, rescued[1].completed_at) == (NOON, NOON + MINUTE)
    assert tasks.rescue(connection, now=NOON + DAY) == []


def test_rescue_limit_takes_the_longest_lost(connection):
    """The rest is left to the next call."""
    for number in range(5):
        put(connection, f"{number}")
        claim(connection, lease=(9 - number) * SECOND)
    assert titles(tasks.rescue(connection, limit=2, now=NOON + MINUTE)) == "43"
    assert titles(tasks.rescue(connection, limit=1000, now=NOON + MINUTE)) == "210"


def test_claim_rescues_a_hundred_at_the_most(connection):
    """However many are lost, one claim deals with a hundred, and claims all the same."""
    for _ in range(101):
        put(connection, priority=9)
    assert len(claim(connection, limit=1000)) == 101
    put(connection, "z", now=NOON + MINUTE)
    assert titles(claim(connection, limit=9, now=NOON + MINUTE)) == "z"
    assert tasks.count(connection, status="running") == 2
    assert tasks.count(connection, status="failed") == 100


def test_lost_attempt_leaves_its_open_call_as_failed(connection):
    """A call that had begun may have happened or not: it says so, and its worker can no longer end it."""
    task = put(connection)
    claim_one(connection)
    execute(
        connection,
        "INSERT INTO tool_executions (id, task_id, tool_name, input, status, step, attempt) "
        "VALUES ('call', $1, 'http', '{}', 'running', 'fetch', 1)",
        (task.id,),
    )
    tasks.rescue(connection, now=NOON + MINUTE)
    call = tool_executions.get_one(connection, "call")
    assert call.status == "failed"
    assert call.error.startswith("outcome unknown:")
    with pytest.raises((dao.StaleRecord, dao.CheckViolation)):
        tool_executions.finish(connection, "call")


def test_paused_workflow_holds_back_its_pending_tasks(connection):
    """As long as a workflow that a task is in is paused, nobody claims it; what runs already goes on."""
    running = put(connection, "a")
    claimed = claim_one(connection)
    held = put(connection, "b")
    for id in ("v", "w"):
        workflows.create(connection, make_workflow(id=id, status="active"))
        for task in (running, held):
            workflow_tasks.add(connection, id, task.id)
    for paused, status in (("v", "paused"), ("w", "paused"), ("v", "active")):
        workflows.set_status(connection, paused, status)
        assert claim(connection) == []
    assert tasks.renew(connection, claimed, lease=SECOND, now=NOON).paused_by == 1
    assert tasks.complete(connection, claimed).status == "completed"
    workflows.set_status(connection, "w", "active")
    assert claim_one(connection).id == held.id


# ---------------------------------------------------------------- times


def test_clock_that_goes_back_makes_no_version_go_back(connection):
    """`now` may be before what is stored: a version is later than the one before all the same."""
    put(connection, retries=1, now=NOON)
    early = NOON - MINUTE
    execute(connection, "UPDATE tasks SET run_at = $1", ("2026-01-01T11:00:00.000Z",))
    before = tasks.find(connection).items[0]
    claimed = claim_one(connection, now=early)
    assert claimed.updated_at == before.updated_at + MS
    assert (claimed.started_at, claimed.lease_expires_at) == (early, early + 10 * SECOND)
    released = tasks.release(connection, claimed, now=early - MINUTE)
    assert released.updated_at == before.updated_at + 2 * MS
    assert tasks.get(connection, claimed.id) == released


def test_row_event_and_caller_have_one_time(connection):
    """What was returned, what is stored and what the history says are the same moment, whatever the clock says."""
    task = put(connection, retries=1)
    claimed = claim_one(connection, now=NOON + SECOND)
    failed = tasks.fail(connection, claimed, error="e", now=NOON + 2 * SECOND)
    versions = [task, claimed, failed]
    cancelled = tasks.cancel(connection, task.id, now=NOON + 2 * SECOND)
    assert cancelled.updated_at == NOON + 2 * SECOND + MS
    again = tasks.retry(connection, task.id, now=NOON + MINUTE)
    versions += [cancelled, again]
    events = fetch(connection, "SELECT at, attempt, to_status FROM task_events ORDER BY seq")
    assert [(dao.codec.canonical_time(at), attempt, status) for at, attempt, status in events] == [
        (dao.codec.time_to_text(task.updated_at), task.attempt, task.status) for task in versions
    ]


def test_now_is_the_clock_unless_it_is_given(connection):
    """Without `now` the current time counts, everywhere."""
    begun = dao.codec.now()
    task, _ = tasks.enqueue(connection, make_task())
    (claimed,) = tasks.claim(connection, worker="w", lease=MINUTE)
    renewed = tasks.renew(connection, claimed, lease=2 * MINUTE)
    assert begun <= claimed.started_at <= dao.codec.now()
    assert begun + 2 * MINUTE <= renewed.lease_expires_at <= dao.codec.now() + 2 * MINUTE
    completed = tasks.complete(connection, claimed)
    assert begun <= completed.completed_at <= dao.codec.now()
    assert task.run_at == task.created_at


# ---------------------------------------------------------------- arguments

WRONG = {
    "claim, blank worker": (lambda c, _: claim(c, " "), ValueError, "worker must not be blank"),
    "claim, blank type": (lambda c, _: claim(c, task_type=" "), dao.InvalidValue, "task_type must not be blank"),
    "claim, worker no text": (lambda c, _: claim(c, 5), TypeError, "worker must be text"),
    "claim, NUL": (lambda c, _: claim(c, "a\0"), ValueError, "worker has a NUL"),
    "claim, type": (lambda c, _: claim(c, task_type=5), TypeError, "task_type must be text"),
    "claim, no lease": (lambda c, _: claim(c, lease=0 * SECOND), ValueError, "lease must be at least 1 ms, got 0 ms"),
    "claim, lease": (lambda c, _: claim(c, lease=5), TypeError, "lease must be a timedelta, got 5"),
    "claim, lease too long": (lambda c, _: claim(c, lease=9**9 * SECOND * 999), ValueError, "beyond the year 9999"),
    "claim, no limit": (lambda c, _: claim(c, limit=0), ValueError, "limit must be a whole number from 1 to 1000"),
    "claim, limit": (lambda c, _: claim(c, limit=1001), ValueError, "limit must be a whole number"),
    "claim, naive now": (lambda c, _: claim(c, now=NOON.replace(tzinfo=None)), ValueError, "naive datetime"),
    "renew, lease": (lambda c, t: tasks.renew(c, t, lease=-SECOND), ValueError, "lease must be at least 1 ms"),
    "renew, id": (
        lambda c, t: tasks.renew(c, t.id, lease=SECOND),
        TypeError,
        "expected the Task that `claim` returned",
    ),
    "complete, id": (
        lambda c, t: tasks.complete(c, t.id),
        TypeError,
        "expected the Task that `claim` returned, got str",
    ),
    "release, id": (lambda c, t: tasks.release(c, t.id), TypeError, "expected the Task that `claim` returned"),
    "release, naive": (lambda c, t: tasks.release(c, t, run_at=datetime(2026, 1, 1)), ValueError, "naive"),  # noqa: DTZ001
    "fail, id": (lambda c, t: tasks.fail(c, t.id, error="e"), TypeError, "expected the Task that `claim` returned"),
    "fail, error": (lambda c, t: tasks.fail(c, t, error=None), TypeError, "error must be text"),
    "fail, NUL": (lambda c, t: tasks.fail(c, t, error="\0"), ValueError, "error has a NUL"),
    "fail, jitter": (lambda c, t: tasks.fail(c, t, error="e", jitter=1.1), ValueError, "jitter must be from 0 to 1"),
    "fail, back": (
        lambda c, t: tasks.fail(c, t, error="e", retry_in=-MS),
        ValueError,
        "retry_in must be at least 0 ms",
    ),
    "fail, in": (lambda c, t: tasks.fail(c, t, error="e", retry_in=5), TypeError, "retry_in must be a timedelta"),
    "rescue, limit": (lambda c, _: tasks.rescue(c, limit=True), ValueError, "limit must be a whole number"),
    "rescue, jitter": (lambda c, _: tasks.rescue(c, jitter=-1, now=NOON + DAY), ValueError, "jitter must be from 0"),
    "cancel, error": (lambda c, t: tasks.cancel(c, t.id, error=b"e"), TypeError, "error must be text"),
    "prune, limit": (lambda c, _: tasks.prune(c, before=NOON, limit=0), ValueError, "limit must be a whole number"),
    "prune, status": (lambda c, _: tasks.prune(c, before=NOON, status="running"), ValueError, "not running ones"),
    "prune, no status": (
        lambda c, _: tasks.prune(c, before=NOON, status="gone"),
        ValueError,
        "is not a valid TaskStatus",
    ),
    "enqueue, id": (lambda c, t: tasks.enqueue(c, t.id), TypeError, "expected a Task, got str"),
    "enqueue, running": (tasks.enqueue, ValueError, "is pending, this one is running"),
    "enqueue, itself": (
        lambda c, _: tasks.enqueue(c, make_task(id="me"), depends_on=["me"]),
        ValueError,
        "cannot depend on itself",
    ),
    "enqueue, one id": (
        lambda c, _: tasks.enqueue(c, make_task(), depends_on="some id"),
        TypeError,
        r"depends_on must be several ids, such as \['some id'\]",
    ),
    "enqueue, empty key": (lambda c, _: tasks.enqueue(c, make_task(), dedup_key=""), ValueError, "must not be empty"),
}


def test_wrong_argument_is_refused_and_changes_nothing(connection):
    """The message says which argument, and what it may be."""
    put(connection)
    put(connection)
    claimed, *_ = claim(connection)
    before = fetch(connection, "SELECT * FROM tasks ORDER BY id")
    for name, (call, kind, words) in WRONG.items():
        with pytest.raises(kind, match=words):
            pytest.fail(f"{name}: {call(connection, claimed)!r} was returned")
        assert fetch(connection, "SELECT * FROM tasks ORDER BY id") == before, name
        assert not in_transaction(connection), name


# ---------------------------------------------------------------- transactions and pools


def test_functions_in_a_transaction_are_part_of_it(connection):
    """What was claimed, ended and enqueued in a block is undone with it."""
    put(connection)
    with pytest.raises(LookupError), dao.transaction(connection):  # noqa: PT012 - the block is the test
        first, second = claim_one(connection), put(connection, "b", depends_on=[])
        tasks.fail(connection, first, error="e")
        tasks.complete(connection, claim_one(connection))
        tasks.cancel(connection, put(connection, "c", depends_on=[second.id]).id)
        assert tasks.prune(connection, before=NOON + 9999 * DAY) == 3
        raise LookupError
    (task,) = tasks.find(connection).items
    assert (task.status, task.attempt) == ("pending", 0)
    with dao.transaction(connection):
        tasks.complete(connection, claim_one(connection))
    assert tasks.count(connection, status="completed") == 1


def test_lease_lost_in_a_transaction_undoes_the_block_and_no_more(connection):
    """The connection is as good as before."""
    put(connection)
    claimed = claim_one(connection)
    tasks.cancel(connection, claimed.id)
    with dao.transaction(connection):
        dao.configurations.set(connection, "kept", 1)
        with pytest.raises(dao.LeaseLost), dao.transaction(connection):
            tasks.complete(connection, claimed)
        with pytest.raises(dao.LeaseLost):
            tasks.complete(connection, claimed)
    assert dao.configurations.get(connection, "kept") == 1


def work(connection: Any) -> list[Task]:
    """Claim a task and complete it."""
    return [tasks.complete(connection, task) for task in tasks.claim(connection, worker="w", lease=MINUTE)]


def test_pool_runs_and_writes_them(url, connection):
    """On a connection that is lent, through the writer that commits for many, and again while the database is busy."""
    for _ in range(4):
        put(connection)
    with dao.Pool(url) as pool:
        with pool.acquire() as own:
            assert len(work(own)) == 1
        (claimed,) = pool.write(tasks.claim, worker="w", lease=MINUTE)
        assert pool.write(tasks.complete, claimed).status == "completed"
        with pytest.raises(dao.LeaseLost):
            pool.write(tasks.complete, claimed)
        assert len(pool.write(work)) == 1
    assert len(dao.run_in_transaction(connection, work)) == 1
    assert tasks.count(connection, status="completed") == 4


def test_aio_runs_them(loop, url, connection):
    """The same functions, awaited."""
    for _ in range(2):
        put(connection)

    async def main() -> None:
        async with aio.Pool(url) as pool:
            (claimed,) = await pool.run(tasks.claim, worker="w", lease=MINUTE)
            assert (await pool.run(tasks.renew, claimed, lease=MINUTE)).attempt == 1
            assert (await pool.write(tasks.complete, claimed)).status == "completed"
            with pytest.raises(dao.LeaseLost):
                await pool.run(tasks.complete, claimed)
            assert len(await pool.write(work)) == 1

    loop.run(main)


# ---------------------------------------------------------------- at once


def drained(url: str, start: Barrier, number: int) -> list[Task]:
    """Claim until nothing is left, and complete all of it."""
    found: list[Task] = []
    with contextlib.closing(dao.connect(url)) as own:
        start.wait()
        while claimed := tasks.claim(own, worker=f"w{number}", lease=MINUTE, limit=1 + number % 2 * 2):
            found += [tasks.complete(own, task) for task in claimed]
    return found


def test_claim_from_four_threads_gives_each_task_once(url, connection):
    """The natural loop, find and set_status, handed five to eight of a hundred tasks to two workers."""
    tasks.create_many(connection, [make_task(priority=number % 3) for number in range(100)])
    start = Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        found = [task for each in threads.map(lambda number: drained(url, start, number), range(4)) for task in each]
    assert len(found) == len({task.id for task in found}) == 100
    assert {task.attempt for task in found} == {1}
    assert tasks.count(connection, status="completed") == 100


def test_claim_beside_another_that_is_not_committed_takes_what_that_has_not(url, connection):
    """On PostgreSQL nobody waits for a claim; on SQLite, which has one writer, the second has the next task."""
    put(connection, "a", priority=1, retries=1)
    put(connection, "b")
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        assert titles(claim(other)) == "a"
        second = Worker(lambda: claim(connection, limit=9))
        if is_sqlite(connection):
            wait_for_waiter(other)
            other.execute("COMMIT")
        assert titles(second.end()) == "b"
        if not is_sqlite(connection):
            assert claim(connection, limit=9) == []
            other.execute("COMMIT")


@pytest.mark.parametrize("engine", ["postgresql"])
def test_rescue_leaves_what_another_transaction_writes(url, connection):
    """A worker that ends its task a little late has it locked: nobody waits for that, and nobody fails it."""
    put(connection)
    late = claim_one(connection)
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        tasks.renew(other, late, lease=MINUTE, now=NOON + MINUTE)
        assert Worker(lambda: tasks.rescue(connection, now=NOON + MINUTE)).end() == []
        assert claim(connection, now=NOON + MINUTE) == []
        other.execute("COMMIT")
    assert tasks.rescue(connection, now=NOON + MINUTE) == []


def test_write_that_waits_for_its_replacement_is_refused(url, connection):
    """A late worker that comes while its task is given to another sees, when that has committed, that it is late."""
    put(connection, retries=1)
    late = claim_one(connection)
    with contextlib.closing(dao.connect(url)) as other:
        begin(other)
        assert claim_one(other, "w2", now=NOON + MINUTE).attempt == 2
        second = Worker(lambda: tasks.complete(connection, late))
        wait_for_waiter(other)
        assert second.is_alive()
        other.execute("COMMIT")
        with pytest.raises(dao.LeaseLost, match="worker 'w2' has it as attempt 2"):
            second.end()
