"""The workers of the tutorial keep what its page promises: they are run as they stand there."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

import dao
from dao import configurations, tasks
from dao.engine import fetch
from dao.testing import make_task
from tests.concurrency import PATIENCE

pytestmark = pytest.mark.both_engines

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "tutorial" / "worker.md"
CODE = "".join(
    block
    for page in (PAGE, DOCS / "how-to" / "follow-tasks.md")
    for block in re.findall(r"^```python\n(?!# try_it)(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
)
#: A worker whose second step dies by kill -9, once, and whose lease is short.
DIES = """
LEASE = timedelta(milliseconds=300)

def store(connection, task, text):
    os.kill(os.getpid(), 9)

work(dao.Pool(sys.argv[1]))
"""

#: A worker that says when it has begun, and does not end its task before it is told to stop.
SLOW = """
def store(connection, task, text):
    print(task.id, flush=True)
    while not STOP.is_set():
        time.sleep(0.01)
    tasks.complete(connection, task)

import time
main(sys.argv[1])
"""


@pytest.fixture
def page():
    """The names that the page's Python defines."""
    scope = {"__name__": "page"}
    exec(compile(CODE, str(PAGE), "exec"), scope)  # noqa: S102 - what the page says
    return scope


def shouts(connection, ids):
    return [configurations.get(connection, f"shouts.{id}") for id in ids]


def enqueued(connection, *texts, **fields):
    made = [make_task(task_type="shout", config={"text": text}, **fields) for text in texts]
    for task in made:
        tasks.enqueue(connection, task)
    return [task.id for task in made]


def test_worker_does_its_tasks_and_stores_what_came(page, url, connection):
    """One that cannot be done is failed with its error; the others are completed."""
    ids = enqueued(connection, "a", "b")
    (bad,) = enqueued(connection, None)
    with dao.Pool(url) as pool:
        page["work"](pool, until_empty=True)
    assert shouts(connection, ids) == ["A", "B"]
    assert {tasks.get_one(connection, id).status for id in ids} == {"completed"}
    assert tasks.get_one(connection, bad).status == "failed"
    assert "NoneType" in tasks.get_one(connection, bad).error


def test_async_worker_does_the_same(page, url, connection):
    """The same functions, the same rows."""
    ids = enqueued(connection, "a", "b")
    asyncio.run(page["work_async"](url, until_empty=True))
    assert shouts(connection, ids) == ["A", "B"]


def test_task_of_a_worker_that_was_killed_is_done_by_the_next(page, url, connection):
    """A kill -9 comes after a step and before the end: the step is not done again, and the effect is stored once."""
    (id,) = enqueued(connection, "a", retries=1)
    killed = subprocess.run([sys.executable, "-c", CODE + DIES, url], check=False, timeout=PATIENCE)
    assert killed.returncode == -9
    assert tasks.get_one(connection, id).status == "running"
    time.sleep(0.35)
    with dao.Pool(url) as pool:
        page["work"](pool, until_empty=True)
    assert shouts(connection, [id]) == ["A"]
    task = tasks.get_one(connection, id)
    assert (task.status, task.attempt, task.failures) == ("completed", 2, 1)
    assert dao.tool_executions.count(connection, task_id=id) == 1


def test_worker_that_waits_is_woken_by_a_new_task(page, url, connection):
    """It does not poll: it waits for a change."""
    worker = subprocess.Popen([sys.executable, "-c", f"{CODE}\nwork(dao.Pool(sys.argv[1]))", url])
    try:
        (id,) = enqueued(connection, "a")
        deadline = time.monotonic() + PATIENCE
        while tasks.get_one(connection, id).status != "completed" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shouts(connection, [id]) == ["A"]
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("engine", ["postgresql"])
def test_worker_that_waits_outlives_its_connection(page, url, connection):
    """It died of the ConnectionLost that its wait got: a server that was restarted left no idle worker behind."""
    waits = []

    def wait(waiting, *, timeout):
        waits.append(waiting)
        if len(waits) == 3:
            page["STOP"].set()
        fetch(connection, "SELECT pg_terminate_backend($1, 10000)", (waiting.info.backend_pid,))
        return dao.waiting.wait_for_change(waiting, timeout=timeout)

    with pytest.MonkeyPatch.context() as patch, dao.Pool(url) as pool:
        patch.setattr(dao, "wait_for_change", wait)
        page["work"](pool)
    assert len(waits) == 3


def test_worker_goes_on_after_a_task_that_was_cancelled_and_then_failed(page, url, connection):
    """It died of the LeaseLost that its `fail` got: nothing was left to do the tasks behind it."""
    (id,) = enqueued(connection, "a", priority=9)
    (behind,) = enqueued(connection, "b")
    perform = page["perform"]

    def fails(pool, task, lost):
        if task.id != id:
            return perform(pool, task, lost)
        tasks.cancel(connection, id, error="nobody needs it")
        raise RuntimeError("too late")

    page["perform"] = fails
    with dao.Pool(url) as pool:
        page["work"](pool, until_empty=True)
    assert (tasks.get_one(connection, id).status, tasks.get_one(connection, id).error) == (
        "cancelled",
        "nobody needs it",
    )
    assert shouts(connection, [behind]) == ["B"]


def test_async_worker_goes_on_after_a_task_that_was_cancelled_and_then_failed(page, url, connection):
    """As the worker of threads."""
    (id,) = enqueued(connection, "a", priority=9)
    (behind,) = enqueued(connection, "b")
    perform = page["perform_async"]

    async def fails(pool, task):
        if task.id != id:
            return await perform(pool, task)
        await pool.run_in_transaction(tasks.cancel, id)
        raise RuntimeError("too late")

    page["perform_async"] = fails
    asyncio.run(page["work_async"](url, until_empty=True))
    assert tasks.get_one(connection, id).status == "cancelled"
    assert shouts(connection, [behind]) == ["B"]


def test_heartbeat_tells_the_work_that_its_task_was_cancelled(page, url, connection):
    """It ended in a traceback of its thread, and the work went on unknowing."""
    (id,) = enqueued(connection, "a")
    page["LEASE"] = timedelta(milliseconds=300)
    heard = []

    def waits(pool, task, lost):
        tasks.cancel(connection, id)
        heard.append(lost.wait(PATIENCE))

    page["perform"] = waits
    with dao.Pool(url) as pool:
        page["work"](pool, until_empty=True)
    assert heard == [True]
    assert tasks.get_one(connection, id).status == "cancelled"


def test_async_worker_keeps_the_lease_and_stops_what_was_cancelled(page, url, connection):
    """It had no heartbeat: whatever took longer than a lease was done by two workers at once."""
    (id,) = enqueued(connection, "a", retries=1)
    page["LEASE"] = timedelta(milliseconds=300)
    leases, stopped = [], []

    async def waits(pool, task):
        try:
            while True:
                leases.append((await pool.run(tasks.get_one, id)).lease_expires_at)
                if len({*leases}) == 3:
                    await pool.run_in_transaction(tasks.cancel, id)
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            stopped.append(id)
            raise

    page["perform_async"] = waits
    asyncio.run(page["work_async"](url, until_empty=True))
    assert stopped == [id]
    assert tasks.get_one(connection, id).attempt == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_that_is_stopped_ends_its_task_and_goes(url, connection, number):
    """Ctrl-C ended it with a traceback, and its task waited for the end of the lease."""
    ids = enqueued(connection, "a", "b")
    with subprocess.Popen(
        [sys.executable, "-c", CODE + SLOW, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        begun = worker.stdout.readline().strip()
        worker.send_signal(number)
        assert worker.communicate(timeout=PATIENCE) == ("", "")
    assert worker.returncode == 0
    assert begun in ids
    assert sorted(tasks.get_one(connection, id).status for id in ids) == ["completed", "pending"]


def test_order_is_stored_once_while_it_is_unfinished(page, connection):
    """The second call gets the first one's task."""
    first, is_new = page["order"](connection, "a")
    assert is_new
    assert page["order"](connection, "a") == (first, False)


def test_follower_goes_on_after_the_last_event_that_it_has_dealt_with(page, connection):
    """The page left open where a follower goes on: the last page has no `next`, and that before it repeats events."""
    seen = []

    def report(connection, event):
        seen.append(event.seq)
        if event.to_status == "completed":
            page["STOP"].set()

    for _ in range(2):
        enqueued(connection, "a")
        page["STOP"].clear()
        (task,) = tasks.claim(connection, worker="w", lease=timedelta(minutes=1))
        tasks.complete(connection, task)
        page["follow"](connection, report)
    assert len(seen) >= 4
    assert seen == sorted(set(seen))


def test_step_that_is_repeated_is_known_by_its_task_and_name_alone(connection):
    """The page named the id of the call as a key against repetition, by which a mail would have been sent twice."""
    (id,) = enqueued(connection, "a", retries=1, retry_delay_ms=0)
    calls = []
    for _ in range(2):
        (task,) = tasks.claim(connection, worker="w", lease=timedelta(minutes=1))
        calls.append(dao.tool_executions.step(connection, task, "mail", tool_name="smtp", input={}))
        tasks.fail(connection, task, error="the worker was lost")
    assert [(call.task_id, call.step) for call in calls] == [(id, "mail")] * 2
    assert calls[0].id != calls[1].id
    tasks.retry(connection, id)
    (task,) = tasks.claim(connection, worker="w", lease=timedelta(minutes=1))
    done = dao.tool_executions.finish(
        connection, dao.tool_executions.step(connection, task, "mail", tool_name="smtp", input={}), output="sent"
    )
    tasks.complete(connection, task)
    tasks.retry(connection, id)
    (task,) = tasks.claim(connection, worker="w", lease=timedelta(minutes=1))
    assert dao.tool_executions.step(connection, task, "mail", tool_name="smtp", input={}).id == done.id
