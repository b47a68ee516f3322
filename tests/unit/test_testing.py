"""What `dao.testing` gives to the tests of an application: databases of their own, and a clock that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import importlib_metadata
import pytest

import dao
from dao import Task, codec, configurations, migrate, sessions, tasks, tool_executions
from dao.testing import Clock, make_task
from dao.testing.plugin import SERVER
from dao.testing.server import Databases, Reused, database_of
from tests.concurrency import Worker, wait_for
from tests.servers import Server, stopped

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

both_engines = pytest.mark.both_engines

# yoyo loads it, and it takes the place of Python's own finder of packages: `pytester`, which restores the finders after
# a run, would leave none if that was the first to load it
assert importlib_metadata


# ---------------------------------------------------------------- databases


@both_engines
@pytest.mark.parametrize("turn", ["first", "second"])
def test_database_is_migrated_empty_and_the_tests_own(database_url, pool, aio_pool, turn):
    """Each test finds the schema, the ledger and no row, whatever the one before has left."""
    with pool.acquire() as connection:
        migrate.assert_current(connection)
        assert tasks.count(connection) == 0
        tasks.create(connection, Task(title=turn, task_type="a"))
    with contextlib.closing(dao.connect(database_url)) as other:
        assert [task.title for task in tasks.find(other).items] == [turn]

    async def counted() -> int:
        async with aio_pool:
            return await aio_pool.run(tasks.count)

    assert asyncio.run(counted()) == 1


def test_reused_database_keeps_the_rows_of_its_migrations(server):
    """Rows that migrations made stay, in whatever schema; a test that changed one leaves another database behind.

    Numbers begin anew, also those of a sequence that migrations have used. A value that a test gave to an enum, a
    policy and a large object were there for the next one.
    """
    template = f"{server.prefix}seeded"
    with contextlib.closing(dao.connect(server.create(name=template))) as connection:
        connection.execute(
            "CREATE SCHEMA app; CREATE TABLE app.seed (id serial, t text); INSERT INTO app.seed (t) VALUES ('a');"
            """CREATE TABLE "it's ours" (id serial, seed integer); CREATE TYPE app.mood AS ENUM ('glad')"""
        )
    reused = Reused(server, template)
    try:
        for _ in range(2):
            url = reused.url
            with contextlib.closing(dao.connect(url)) as connection:
                added = connection.execute("""INSERT INTO "it's ours" DEFAULT VALUES RETURNING id""").fetchall()
                assert (added, connection.execute("SELECT nextval('app.seed_id_seq')").fetchall()) == ([(1,)], [(2,)])
            reused.empty()
            assert reused.url == url
        with contextlib.closing(dao.connect(url)) as connection:
            connection.execute("UPDATE app.seed SET t = 'b'")
        reused.empty()
        assert reused.url != url
        for change in ("ALTER TYPE app.mood ADD VALUE 'sad'", "CREATE POLICY p ON app.seed", "SELECT lo_create(0)"):
            url = reused.url
            with contextlib.closing(dao.connect(url)) as connection:
                connection.execute(change)
            reused.empty()
            assert reused.url != url, change
        with contextlib.closing(dao.connect(reused.url)) as connection:
            assert connection.execute("SELECT t FROM app.seed").fetchall() == [("a",)]
    finally:
        reused.close()
        for name in (reused.url, database_of(server.url, template)):
            server.drop(name)


def test_database_is_emptied_while_a_test_has_another_sleep(shared, monkeypatch):
    """A fixture that ends before `monkeypatch` did sleep as the test had said: one raised, and the whole run ended."""
    with contextlib.closing(shared.reused()) as reused, contextlib.closing(dao.connect(reused.url)) as connection:
        tasks.create(connection, make_task())
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", lambda _seconds: pytest.fail("slept"))
            reused.empty()
        with contextlib.closing(dao.connect(reused.url)) as another:
            assert tasks.count(another) == 0


@pytest.mark.slow
def test_database_whose_session_ends_late_is_copied_and_dropped():
    """The server waits five seconds for those that leave a database, and refused then to copy or to drop it."""
    with Server() as server, contextlib.closing(Databases(server.url("postgres"))) as databases:
        url = databases.create()
        name = dao.url.parse(url).parameters["dbname"]
        for function, argument in ((databases.create, name), (databases.drop, url)):
            with contextlib.closing(dao.connect(url)) as leaving:
                with stopped(leaving):
                    worker = Worker(function, argument)
                    if function == databases.create:
                        leaving.close()
                    time.sleep(6)
                worker.end()
        assert left(databases, [url]) == set()


@pytest.mark.slow
def test_database_in_which_autovacuum_is_at_work_is_dropped_by_a_role_that_may_not_end_it():
    """To end a process of the server's own with FORCE takes a superuser; so a database stayed, or a test failed."""
    eager = {"autovacuum_naptime": "1s", "autovacuum_vacuum_insert_threshold": "0"}
    with Server(**eager, autovacuum_vacuum_cost_delay="100ms", autovacuum_vacuum_cost_limit="1") as server:
        url = server.url("postgres")
        with contextlib.closing(dao.connect(url)) as connection:
            connection.execute("CREATE ROLE owner LOGIN CREATEDB")
            with contextlib.closing(Databases(url.replace("postgres@", "owner@"))) as databases:
                made = databases.create()
                name = dao.url.parse(made).parameters["dbname"]
                with contextlib.closing(dao.connect(made)) as session:  # of the role itself: it is ended, too
                    session.execute("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
                    at_work = "SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = %s"
                    wait_for(lambda: connection.execute(at_work, [name]).fetchone() is not None)
                    databases.drop(made)
                assert left(databases, [made]) == set()


def test_databases_of_another_role_are_made_anew_and_need_the_right(server):
    """A role that is no superuser cannot empty a database; one that may not create any is told so."""
    role = f"{server.prefix}role"
    others = {"user", "password", "dbname"}
    where = {name: value for name, value in dao.url.parse(server.url).parameters.items() if name not in others}
    url = f"postgresql://{role}:secret@/postgres?{urlencode(where)}"
    template = f"{server.prefix}plain"
    with contextlib.closing(dao.connect(server.url)) as connection, contextlib.closing(Databases(url)) as databases:
        connection.execute(f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'secret'")
        try:
            with contextlib.closing(dao.connect(databases.create(name=template))) as other:
                other.execute("CREATE TABLE t (i integer)")
            with contextlib.closing(Reused(databases, template)) as reused:
                for _ in range(2):
                    with contextlib.closing(dao.connect(reused.url)) as other:
                        assert other.execute("INSERT INTO t SELECT count(*) FROM t RETURNING i").fetchall() == [(0,)]
                    reused.empty()
            connection.execute(f"ALTER ROLE {role} NOCREATEDB")
            with pytest.raises(dao.OperationalError, match=f"the role of postgresql://{role}@.* may not create one"):
                databases.create()
            server.drop(database_of(url, template))
            databases.drop_all()
        finally:
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("name", ["it's", "a b/c?d=e&f#g%h", "ä"])
def test_database_of_a_url_has_its_server_and_its_password(name):
    """Whatever is in names and passwords comes back out of the URL."""
    url = database_of("postgresql://a%20b:p%40%2F%3Fw@[::1],h2:5433/old?application_name=a%20%2Bb", name)
    assert dict(dao.url.parse(url).parameters) == {
        "user": "a b",
        "password": "p@/?w",
        "host": "::1,h2",
        "port": ",5433",
        "dbname": name,
        "application_name": "a +b",
    }


_CONFTEST = """
from pathlib import Path
import pytest
from dao import migrate

pytest_plugins = ["dao.testing.plugin"]

@pytest.fixture(scope="session")
def dao_migrations(dao_engine):
    return Path(__file__).parent / "scripts"
"""
_TESTS = """
import json, os
import pytest
from dao import migrate

@pytest.mark.parametrize(argnames="number", argvalues=range(4))
def test_own_table(connection, dao_migrations, database_url, dao_engine, number):
    assert connection.execute("SELECT count(*) FROM things").fetchall() == [(0,)]
    connection.execute("INSERT INTO things VALUES (1)")
    assert [step.state for step in migrate.status(connection, dao_migrations).migrations] == ["applied"]
    with open(os.environ["SEEN"], "a") as file:
        file.write(json.dumps([dao_engine, os.getpid(), database_url]) + chr(10))

def test_without_a_database():
    pass
"""
_SCRIPTS = {
    "0001_things.sql": "CREATE TABLE things (id integer NOT NULL PRIMARY KEY);",
    "0001_things.rollback.sql": "DROP TABLE things;",
}


@pytest.fixture
def application(pytester):
    """The tests of an application with migrations of its own."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(test_application=_TESTS)
    scripts = pytester.mkdir("scripts")
    for name, text in _SCRIPTS.items():
        (scripts / name).write_text(text)
    return pytester


BOTH = ("--dao-engine=sqlite", "--dao-engine=postgresql")


def seen(application) -> list[list[Any]]:
    """Return the engine, the process and the URL of each test that had a database."""
    return [json.loads(line) for line in (application.path / "seen").read_text().splitlines()]


def left(server, urls: Iterable[str]) -> set[str]:
    """Return the names of the databases that are still there."""
    with contextlib.closing(dao.connect(server.url)) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
    return there & {dao.url.parse(url).parameters["dbname"] for url in urls}


def test_plugin_serves_an_application_on_both_engines(application, server, monkeypatch):
    """Each test finds the application's own table, empty, and its own ledger; at the end nothing is left.

    Names of parameters that a test gives by keyword ended the collection.
    """
    monkeypatch.setenv(SERVER, server.url)
    monkeypatch.setenv("SEEN", str(application.path / "seen"))
    application.runpytest_inprocess(*BOTH, "-p", "no:xdist").assert_outcomes(passed=9)
    urls: dict[str, list[str]] = {"sqlite": [], "postgresql": []}
    for engine, _, url in seen(application):
        urls[engine].append(url)
        assert url.startswith(engine)
    assert [(len(of), len({*of})) for of in urls.values()] == [(4, 4), (4, 1)]
    assert left(server, urls["postgresql"]) == set()


@pytest.mark.slow
def test_plugin_serves_an_application_in_several_processes(application, server):
    """Each process of pytest-xdist has its own template and its own databases, and leaves none."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n2", *BOTH, "-W", "error"],
        cwd=application.path,
        env=os.environ | {SERVER: server.url, "SEEN": str(application.path / "seen")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "9 passed" in done.stdout, done.stdout
    databases = {(process, url) for engine, process, url in seen(application) if engine == "postgresql"}
    assert len(databases) == len({process for process, _ in databases}) == len({url for _, url in databases})
    assert left(server, [url for _, url in databases]) == set()


def test_page_about_testing_is_right(pytester):
    """Its first two blocks are a conftest.py and a test that passes."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "test-an-application.md").read_text()
    conftest, test, *_ = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    pytester.makeconftest(conftest)
    pytester.makepyfile(test)
    pytester.runpytest_inprocess("-p", "no:xdist").assert_outcomes(passed=1)


def test_plugin_names_what_is_missing(application, monkeypatch):
    """An engine that there is not ends the run; without a server the tests that need one say which variable helps."""
    monkeypatch.delenv(SERVER, raising=False)
    monkeypatch.setenv("SEEN", str(application.path / "seen"))
    refused = application.runpytest_inprocess("-o", "dao_engines=sqlite oracle")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: dao_engines names oracle: use sqlite or postgresql"])
    done = application.runpytest_inprocess("-o", "dao_engines=postgresql")
    done.assert_outcomes(passed=1, errors=4)
    done.stdout.fnmatch_lines([f"no PostgreSQL server to test on: set {SERVER}=postgresql://…*"])


def test_plugin_says_for_each_test_why_there_is_no_database(application, server, monkeypatch):
    """The second test was told that the template was there already; a server that was not there was a second error."""
    monkeypatch.setenv("SEEN", str(application.path / "seen"))
    monkeypatch.setenv(SERVER, server.url)
    (application.path / "scripts" / "0001_things.sql").write_text("CREATE TABLE things (id nonsense);")
    tests = [f"test_application.py::test_own_table[{number}]" for number in range(2)]
    run = ("--dao-engine=postgresql", "-p", "no:xdist", *tests)
    broken = application.runpytest_inprocess(*run)
    broken.assert_outcomes(errors=2)
    assert broken.stdout.str().count("E           dao.errors.MigrationFailed") == 2
    monkeypatch.setenv(SERVER, "postgresql://127.0.0.1:1/x")
    application.runpytest_inprocess(*run).assert_outcomes(errors=2)


# ---------------------------------------------------------------- the clock


@both_engines
def test_clock_stands_still_for_functions_and_records(clock, connection):
    """What takes `now=` has the clock's time, and so have the records; ids keep their order all the same."""
    begin = clock.now
    assert begin == codec.now() == codec.time_from_text(codec.now_to_text())
    first, second = Task(title="a", task_type="b"), make_task()
    assert first.created_at == first.updated_at == first.run_at == second.created_at == begin
    assert first.id < second.id
    tasks.create(connection, first)
    (claimed,) = tasks.claim(connection, worker="w", lease=HOUR)
    assert (claimed.started_at, claimed.lease_expires_at) == (begin, begin + HOUR)
    call = tool_executions.start(connection, tool_name="grep", input={}, task=claimed)
    assert clock.tick(HOUR / 2) == begin + HOUR / 2
    call = tool_executions.finish(connection, call)
    assert (call.completed_at, call.duration_ms) == (clock.now, 1_800_000)
    assert tasks.rescue(connection) == []
    clock.tick(HOUR)
    (rescued,) = tasks.rescue(connection)
    assert (rescued.updated_at, rescued.completed_at) == (clock.now, clock.now)


def test_clock_moves_anywhere_in_all_threads_and_ends_with_its_block(connection):
    """It may stand in the past, and after the block time goes on; a duration is not counted by it.

    A block of a clock in a block of the same, as in a test with the fixture, left all tests after it without time.
    """
    call = tool_executions.start(connection, tool_name="grep", input={})
    with Clock(NOON) as clock, clock:
        session = sessions.open(connection, client_id="client")
        assert session.created_at == NOON
        clock.move_to(NOON - HOUR)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(codec.now()))
        thread.start()
        thread.join()
        assert seen == [NOON - HOUR]
        with Clock(NOON + HOUR):
            assert codec.now() == NOON + HOUR
        assert clock.tick(-HOUR) == codec.now() == NOON - 2 * HOUR
        assert tool_executions.finish(connection, call).duration_ms < 60_000
        configurations.set(connection, "a", 1)
        with pytest.raises(TypeError, match="expected a timedelta"):
            clock.tick(5)
    assert codec.now() - datetime.now(UTC) < HOUR
    assert codec.now() > NOON + HOUR
    with pytest.raises(ValueError, match="naive datetime"):
        Clock(NOON.replace(tzinfo=None))
