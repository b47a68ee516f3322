"""`dao metrics`: what Prometheus reads is what the functions say, on both engines."""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import timedelta

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

import dao
from dao import migrate, sessions, tasks
from dao.engine import fetch, interrupt
from dao.testing import make_task
from tests.cli.calls import misused, refused
from tests.concurrency import Worker, wait_for
from tests.engines import is_sqlite

MINUTE = timedelta(minutes=1)
ODD = 'a "type" with \\ in\nit'


@pytest.fixture
def named(workplace, url, monkeypatch):
    """DATABASE_URL names the database of the test."""
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.delenv("DATABASE_MIGRATIONS")


@pytest.fixture
def busy(connection):
    """Two types of tasks, one of them with a name that has to be escaped, and a session."""
    tasks.create_many(connection, [make_task(task_type="agent") for _ in range(3)])
    tasks.create(connection, make_task(task_type=ODD))
    (claimed,) = tasks.claim(connection, worker="w1", lease=MINUTE, task_type="agent")
    tasks.complete(connection, claimed)
    tasks.claim(connection, worker="w1", lease=MINUTE, task_type="agent")
    sessions.open(connection, client_id="c")


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of a text as Prometheus's own parser reads it, without the label of the database."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == ("counter" if family.name == "dao_task_events" else "gauge")
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("database")
            key = (sample.name, frozenset(labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.both_engines
def test_metrics_are_what_the_functions_say(run, named, busy, connection, url):
    """Prometheus's parser reads the same numbers as a program, the JSON document has them, too."""
    outcome = run("metrics")
    assert (outcome.code, outcome.err) == (0, "")
    found = parsed(outcome.out)
    for state in tasks.queues(connection):
        for phase in ("ready", "running", "lost", "failed", "blocked"):
            labels = frozenset({("task_type", state.task_type), ("phase", phase)})
            assert found["dao_tasks", labels] == getattr(state, phase)
    assert found["dao_tasks", frozenset({("task_type", ODD), ("phase", "ready")})] == 1
    assert found["dao_oldest_ready_task_age_seconds", frozenset({("task_type", ODD)})] >= 0
    assert found["dao_attempts_ended_last_minute", frozenset({("outcome", "completed")})] == 1
    last = dao.task_events.find(connection, limit=1000).items[-1].seq
    nothing = frozenset()
    assert found["dao_task_events_total", nothing] == last
    assert found["dao_sessions_active", nothing] == 1
    assert found["dao_oldest_heartbeat_age_seconds", nothing] >= 0
    assert found["dao_database_size_bytes", nothing] > 100_000
    current = migrate.status(url)
    assert found["dao_migrations", frozenset({("state", "pending")})] == len(current.ids("pending"))
    assert found["dao_schema_current", nothing] == current.is_current
    if is_sqlite(connection):
        assert found["dao_database_wal_bytes", nothing] > 0
        assert found["dao_database_free_bytes", nothing] >= 0
    else:
        assert found["dao_connections", frozenset({("state", "active")})] >= 1
        assert found["dao_connections_max", nothing] > 1
    document = run("metrics", "--json").document
    samples = [(one["name"], sample["labels"]) for one in document["metrics"] for sample in one["samples"]]
    assert {(name, frozenset(labels.items())) for name, labels in samples} == found.keys()


@pytest.mark.parametrize("engine", ["postgresql"])
def test_metrics_count_connections_and_no_other_process_of_the_server(run, named, connection):
    """A process that works for a query was a connection, too; so was autovacuum, of a state that nobody knows."""
    working = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'parallel worker'"
    with contextlib.closing(dao.connect(os.environ["DATABASE_URL"])) as other:
        other.execute("SET debug_parallel_query = on")
        worker = Worker(other.execute, "SELECT pg_sleep(600)")
        wait_for(lambda: fetch(connection, working) != [])
        found = parsed(run("metrics").out)
        assert found["dao_connections", frozenset({("state", "active")})] == 2  # this one, and that of the command
        interrupt(other)
        with pytest.raises(psycopg.errors.QueryCanceled):
            worker.end()


def test_metrics_output_replaces_the_file_as_a_whole(run, named, busy, tmp_path):
    """The collector, another user, never reads half of it; what fails leaves the file as it was."""
    path = tmp_path / "textfile" / "dao.prom"
    path.parent.mkdir()
    path.write_text("before")
    os.chmod(path, 0o600)
    before = path.stat().st_ino
    umask = os.umask(0o027)  # and not whatever the shell has that runs the tests
    try:
        outcome = run("metrics", "--output", path)
    finally:
        os.umask(umask)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f" samples to {path}\n")
    assert parsed(path.read_text())
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["dao.prom"]
    written = path.read_text()
    refused(run("metrics", "--output", path, "--database", "sqlite:///nothing.db"), "does not exist")
    nowhere = tmp_path / "no" / "folder.prom"
    refused(run("metrics", "--output", nowhere), f"cannot be written to {nowhere}: No such file or directory")
    (tmp_path / "folder").mkdir()
    refused(run("metrics", "--output", tmp_path / "folder"), f"cannot be written to {tmp_path}/folder: Is a directory")
    misused(run("metrics", "--output", ""), "--output is empty")
    assert path.read_text() == written
    assert os.listdir(path.parent) == ["dao.prom"]


def test_metrics_output_to_what_is_no_file_is_written_through(run, named, busy, tmp_path):
    """A pipe (`--output >(…)`, /dev/stdout) and a link stay what they are: both were replaced by a file."""
    pipe, link, path = tmp_path / "pipe", tmp_path / "link.prom", tmp_path / "dao.prom"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("metrics", "--output", pipe).code == 0
        assert parsed(os.read(reader, 60_000).decode())
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert parsed(run("metrics", "--output", "-").out)
    assert not os.path.exists("-")
    link.symlink_to(path)
    assert run("metrics", "--output", link).code == 0
    assert link.is_symlink()
    assert parsed(path.read_text())


def test_metrics_of_pending_migrations_are_a_number_to_alert_on(run, workplace, path, monkeypatch):
    """A deployment that forgot its migrations shows before anything fails."""
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    assert run("migrate").code == 0
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three")
    found = parsed(run("metrics").out)
    assert found["dao_migrations", frozenset({("state", "pending")})] == 3
    assert found["dao_schema_current", frozenset()] == 0
