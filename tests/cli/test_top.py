"""`dao top`: queues, throughput and workers, once or again and again, on both engines."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

import dao
from dao import tasks
from dao.testing import make_task
from tests.cli.calls import misused
from tests.databases import migrate
from tests.servers import Server

MINUTE = timedelta(minutes=1)


@pytest.fixture
def named(workplace, url, monkeypatch):
    """DATABASE_URL names the database of the test."""
    monkeypatch.setenv("DATABASE_URL", url)


@pytest.fixture
def busy(connection):
    """Two workers; of five tasks one completed, one failed for good, one is tried again, one runs, one waits."""
    for id in "abcd":
        tasks.create(connection, make_task(id=id, title=f"task {id}", task_type="agent", retries=int(id == "c")))
    claimed = {task.id: task for task in tasks.claim(connection, worker="w1", lease=MINUTE, limit=4)}
    tasks.complete(connection, claimed["a"])
    tasks.fail(connection, claimed["b"], error="no")
    tasks.fail(connection, claimed["c"], error="no", retry_in=60 * MINUTE)
    tasks.create(connection, make_task(id="e", title="task e", task_type="mail"))
    tasks.create(connection, make_task(id="f", title="task f", task_type="mail", run_at=dao.codec.now() + 60 * MINUTE))


@pytest.mark.both_engines
def test_top_once_shows_queues_throughput_and_workers(run, named, busy):
    """One look: how many tasks of each type are in which phase, what ended in the last minute, who runs what."""
    outcome = run("top", "--once")
    assert (outcome.code, outcome.err) == (0, "")
    _, throughput, _, head, agent, mail, _, workers, running = outcome.out.splitlines()
    assert throughput == "last minute: 1 completed, 1 failed, 1 to be tried again"
    assert head.split() == [
        "type",
        "ready",
        "scheduled",
        "backing",
        "off",
        "blocked",
        "paused",
        "running",
        "lost",
        "failed",
        "oldest",
    ]
    assert agent.split() == ["agent", "0", "0", "1", "0", "0", "1", "0", "1"]
    assert mail.split()[:9] == ["mail", "1", "1", "0", "0", "0", "0", "0", "0"]
    assert workers.split() == ["worker", "task", "type", "attempt", "since", "lease", "title"]
    assert running.split()[:4] == ["w1", "d", "agent", "1"]
    assert running.endswith("task d")


@pytest.mark.both_engines
def test_top_json_is_one_document(run, named, busy, connection):
    """It says the same as the text, with times in full."""
    document = run("top", "--json").document
    assert document["queues"] == [one.to_dict() for one in tasks.queues(connection)]
    assert document["throughput"] == {"seconds": 60.0, "completed": 1, "failed": 1, "retried": 1}
    ((worker, (task,)),) = [(one["worker"], one["tasks"]) for one in document["workers"]]
    record = tasks.get_one(connection, "d").to_dict()
    assert worker == record["worker"] == "w1"
    assert task == {
        "phase": "running",
        **{name: record[name] for name in ("id", "task_type", "attempt", "started_at", "lease_expires_at", "title")},
    }


@pytest.mark.both_engines
def test_top_shows_lost_tasks_and_those_without_a_worker(run, named, connection):
    """A lease that has ended is told with since when; what `set_status` began has no worker, and comes last."""
    tasks.create(connection, make_task(id="a"))
    tasks.set_status(connection, "a", "running")
    tasks.create(
        connection, make_task(id="b", run_at=dao.codec.now() - 9 * MINUTE, created_at=dao.codec.now() - 9 * MINUTE)
    )
    tasks.claim(connection, worker="w1", lease=MINUTE, now=dao.codec.now() - 5 * MINUTE)
    lost, begun = run("top").out.splitlines()[-2:]
    assert lost.split()[:2] == ["w1", "b"]
    assert " lost 4m ago" in lost
    assert begun.split()[0] == "a"
    workers = run("top", "--json").document["workers"]
    assert [one["worker"] for one in workers] == ["w1", None]
    assert workers[0]["tasks"][0]["phase"] == "lost"


@pytest.mark.both_engines
def test_top_of_an_empty_database(run, named, connection):
    """It says that there is nothing, not nothing."""
    assert "no task is unfinished, and none failed\n" in run("top").out
    misused(run("top", "--interval", "0"), "--interval")


#: What a terminal is told when the whole screen comes back as it was.
LEFT = "\x1b[?1049l"


def test_top_at_a_terminal_goes_on_until_ctrl_c(terminal, named, connection, url):
    """What changes shows by itself; Ctrl-C is how it ends, and no failure."""
    screen = terminal("top", "--interval", "0.1", DATABASE_URL=url)
    screen.until("no task is unfinished")
    tasks.create(connection, make_task(task_type="newcomer"))
    screen.until("newcomer")
    screen.interrupt(LEFT)
    assert screen.close() == 0
    assert "interrupted" not in screen.shown


def test_top_goes_on_while_its_server_is_restarted(terminal, workplace):
    """The screen says what is wrong meanwhile, and keeps what it showed before."""
    with Server() as server:
        url = server.url("postgres")
        migrate(url)
        screen = terminal("top", "--interval", "0.2", DATABASE_URL=url)
        screen.until("no task is unfinished")
        server.stop()
        screen.until("trying again")
        server.start()
        with contextlib.closing(dao.connect(url)) as connection:
            tasks.create(connection, make_task(task_type="newcomer"))
        screen.until("newcomer")
        screen.interrupt(LEFT)
        assert screen.close() == 0


def test_top_at_a_terminal_shows_as_much_as_there_is_room_for(terminal, named, connection, url):
    """The line that says how many more there are is on the screen, too."""
    for _ in range(60):
        tasks.create(connection, make_task(task_type="agent"))
    tasks.claim(connection, worker="w1", lease=60 * MINUTE, limit=60)
    screen = terminal("top", DATABASE_URL=url, LINES="20", COLUMNS="100")
    screen.until("… and 48 more, which began later")
    screen.interrupt(LEFT)
    assert screen.close() == 0
