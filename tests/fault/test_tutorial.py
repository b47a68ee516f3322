"""The workers of docs/workers.md keep what that page promises: they are run as they stand there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dao
from dao import configurations, tasks
from dao.testing import make_task

pytestmark = pytest.mark.both_engines

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"
CODE = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
#: A worker whose second step dies by kill -9, once, and whose lease is short.
DIES = """
LEASE = timedelta(milliseconds=300)

def store(connection, task, text):
    os.kill(os.getpid(), 9)

work(dao.Pool(sys.argv[1]))
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
    made = [make_task(config={"text": text}, **fields) for text in texts]
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
    killed = subprocess.run([sys.executable, "-c", CODE + DIES, url], check=False, timeout=60)
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
        deadline = time.monotonic() + 60
        while tasks.get_one(connection, id).status != "completed" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shouts(connection, [id]) == ["A"]
    finally:
        worker.kill()
        worker.wait()
