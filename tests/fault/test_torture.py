"""Claims under torture: workers killed, stopped and continued at random break no law, and a broken law is told."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

import dao
from dao import configurations, tasks, tool_executions
from dao.engine import execute, fetch
from dao.testing import laws, make_task
from dao.testing.torture import torture
from tests.concurrency import PATIENCE, wait_for

pytestmark = pytest.mark.both_engines

STEPS = ["step"]


def test_torture_of_twenty_seconds_breaks_no_law(engine, make, capfd):
    """Every task is completed once, by a living attempt, however many workers are killed or stand still."""
    for seconds in (20, 80, 320):  # on a busy machine less happens
        report = torture(make(engine), seconds=seconds, workers=4)
        assert report.violations == []
        if report.kills > 3 and report.stops > 10 and report.lost_leases > 0 and report.tasks > 10:
            break
    else:
        pytest.fail(f"too little happened: {report}")


@pytest.mark.slow
def test_torture_of_ten_minutes_breaks_no_law(url, capfd):
    """The same with 150 kills and 400 stops at the least."""
    report = torture(url, seconds=600)
    assert report.violations == []
    assert report.kills >= 150
    assert report.stops >= 400


def test_torture_of_a_database_with_tasks_is_refused(url, connection):
    """It would retry them, and complete them."""
    tasks.create(connection, make_task())
    with pytest.raises(ValueError, match="holds tasks"):
        torture(url, seconds=1)


@pytest.mark.sqlite_only
def test_torture_of_a_database_that_is_not_there_makes_none(tmp_path):
    """A name with a slip left an empty file behind."""
    missing = tmp_path / "missing.db"
    with pytest.raises(dao.OperationalError, match=r"missing\.db"):
        torture(f"sqlite:///{missing}", seconds=1)
    assert not missing.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        *[({"seconds": seconds}, "takes some time") for seconds in (0, -60, math.nan, math.inf)],
        *[({"workers": workers}, "has to work") for workers in (0, -1)],
    ],
    ids=str,
)
def test_torture_that_would_try_nothing_is_refused(url, given, words):
    """Without time it found no violation, and without workers it waited for two minutes, and found many."""
    with pytest.raises(ValueError, match=words):
        torture(url, **{"seconds": 1, **given})


def test_torture_of_a_database_without_events_is_refused(url, connection):
    """Every task was said to break the laws of history, of which there was none."""
    configurations.set(connection, "task_events", False)
    with pytest.raises(ValueError, match="task_events is false"):
        torture(url, seconds=1)


def test_torture_that_is_interrupted_says_so_and_leaves_no_process(url, connection):
    """A Ctrl-C, which goes to all its processes, ended in a traceback of each."""

    def at_work() -> bool:
        """Both, of whom one was killed."""
        time.sleep(0.05)
        return len(fetch(connection, "SELECT DISTINCT worker FROM task_events WHERE worker <> ''")) > 2

    command = [sys.executable, "-m", "dao.testing.torture", url, "--minutes", "5", "--workers", "2"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
        wait_for(at_work)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)  # which ends when nobody has the pipes any more
    assert (process.returncode, errors) == (130, "interrupted: no law was checked\n")


@pytest.fixture
def done(connection):
    """A task that was completed in one step by its first attempt."""
    task = make_task(retries=1)
    tasks.enqueue(connection, task)
    (claimed,) = tasks.claim(connection, worker="w", lease=timedelta(seconds=60))
    call = tool_executions.step(connection, claimed, "step", tool_name="tool", input=1)
    tool_executions.finish(connection, call)
    tasks.complete(connection, claimed)
    return task.id


def broken(connection, effects):
    return list(laws.violations(connection, effects, STEPS))


def test_laws_that_are_kept_are_not_told(connection, done):
    """A task with one effect, of the attempt that completed it, is as it should be."""
    assert broken(connection, {done: [1]}) == []


@pytest.mark.parametrize("effects", [{}, {"done": [1, 1]}, {"done": [2]}, {"done": [1], "other": [1]}])
def test_effect_that_is_missing_or_too_many_is_told(connection, done, effects):
    """None, two, one of another attempt, one of a task that is not there."""
    (text,) = broken(connection, {done if id == "done" else id: of for id, of in effects.items()})
    assert "effect" in text


HISTORY = [
    ("UPDATE task_events SET to_status = 'failed' WHERE to_status = 'completed'", "leads to failed"),
    ("UPDATE task_events SET attempt = 7 WHERE to_status = 'running'", "leads to running, attempt 7"),
    ("DELETE FROM task_events WHERE to_status = 'running'", "leads to pending, attempt 0, but the task was"),
    ("UPDATE task_events SET previous = '{}' WHERE to_status = 'completed'", "begins at running"),
    ("UPDATE task_events SET at = (SELECT max(at) FROM task_events)", "is not later than the one before"),
]


@pytest.mark.parametrize(("sql", "words"), HISTORY)
def test_history_that_does_not_lead_to_the_table_is_told(connection, done, sql, words):
    """Each kind of gap or change in it is found."""
    execute(connection, sql)
    assert any(words in text for text in broken(connection, {done: [1]}))


def test_step_that_was_not_completed_is_told(connection, done):
    """A completed task has taken all its steps."""
    execute(connection, "DELETE FROM tool_executions")
    (text,) = broken(connection, {done: [1]})
    assert "completed 0 times" in text
