"""`dao shell`: the database in a client for SQL, read only unless it is to be written, and no password on its line."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dao
from dao.engine import fetch
from tests.cli.calls import misused, refused
from tests.concurrency import PATIENCE

INSERT = "INSERT INTO sessions (id, client_id) VALUES ('s', 'c')"


def shell(url, *arguments, script="", **environ):
    """Run `dao shell` in a process of its own, which becomes the client."""
    return subprocess.run(
        [sys.executable, "-m", "dao", "shell", "--database", str(url), *arguments],
        input=script,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environ},
        check=False,
    )


@pytest.fixture
def client(tmp_path):
    """Put a program on the PATH in place of a client; it prints what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name: str, version: str = "3.51.3") -> dict[str, str]:
        path = folder / name
        path.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version} 2026"; exit; }}\n'
            'printf "%s\\n" "$@"\nenv | grep "^PG"\n'
        )
        path.chmod(0o755)
        return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    return put


ORPHAN = "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) VALUES ('x', 'y', 0)"


def test_shell_reads_and_does_not_write(run, database):
    """Rows are shown, and none is changed unless --write is given; then foreign keys are enforced."""
    call = ["shell", "--database", f"sqlite:///{database}", "--program", "apsw"]
    done = run(*call, "SELECT 40 + 2", INSERT)
    assert (done.code, done.out) == (1, "42\n")
    assert "readonly" in done.err
    done = run(*call, "--write", INSERT, ORPHAN)
    assert done.code == 1
    assert done.err.startswith("warning: ")
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as connection:
        assert fetch(connection, "SELECT id FROM sessions") == [("s",)]
        assert fetch(connection, "SELECT count(*) FROM workflow_tasks") == [(0,)]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed here")
def test_sqlite3_reads_and_does_not_write(database):
    """The client of the system is given a database that it cannot write."""
    done = shell(f"sqlite:///{database}", "--program", "sqlite3", "SELECT 40 + 2", INSERT)
    assert (done.stdout, "readonly" in done.stderr) == ("42\n", True)
    assert done.returncode


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed here")
def test_psql_reads_and_writes_only_if_it_may(migrated_postgresql_url):
    """A server is asked for transactions that only read, unless --write is given."""
    url = migrated_postgresql_url
    done = shell(url, "--program", "psql", "SELECT 40 + 2", INSERT)
    assert "42" in done.stdout
    assert "read-only transaction" in done.stderr
    done = shell(url, "--write", "--program", "psql", INSERT, ORPHAN)
    assert "foreign key" in done.stderr
    with contextlib.closing(dao.connect(url)) as connection:
        assert fetch(connection, "SELECT id FROM sessions") == [("s",)]


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed here")
def test_psql_ends_with_the_statement_that_fails(migrated_postgresql_url):
    """It ran what came behind, and the exit code was 0: of a script always, of SQL if the last of it succeeded."""
    call = [migrated_postgresql_url, "--write", "--program", "psql"]
    for done in (shell(*call, ORPHAN, INSERT), shell(*call, script=f"{ORPHAN};\n{INSERT};\n")):
        assert done.returncode
        assert "foreign key" in done.stderr
    with contextlib.closing(dao.connect(migrated_postgresql_url)) as connection:
        assert fetch(connection, "SELECT id FROM sessions") == []


def test_shell_takes_a_script_from_standard_input(run, database, monkeypatch):
    """What is piped in is run by the client."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 20 + 1;\nSELECT 20 + 2;\n"))
    done = run("shell", "--database", f"sqlite:///{database}", "--program", "apsw")
    assert (done.code, done.out.split()) == (0, ["21", "22"])


def test_sqlite3_that_may_damage_the_database_is_not_opened_for_writing(run, database, client, monkeypatch):
    """With the WAL-reset bug it is passed over for writing, and refused if it is asked for; a later one is taken."""
    call = ["shell", "--database", f"sqlite:///{database}"]
    monkeypatch.setenv("PATH", client("sqlite3", "3.51.2")["PATH"])
    assert run(*call, "--write", "--json").document["command"] == ["apsw"]
    assert "-readonly" in run(*call, "--json").document["command"]
    refused(run(*call, "--write", "--program", "sqlite3"), "has SQLite 3.51.2, which can damage a database")
    client("sqlite3", "3.51.3")
    given = run(*call, "--write", "--json", "SELECT 1").document["command"][1:]
    assert given[-2:] == [f"file://{database}?mode=rw", "SELECT 1"]
    assert given[:-2] == ["-cmd", ".timeout 5000", "-cmd", "PRAGMA foreign_keys = ON"]


def test_password_is_in_the_environment_and_not_on_the_command_line(run, client):
    """A server is told to psql by variables of its own; what has none and is no secret stands on its line."""
    url = "postgresql://me:s3cret@db.internal:5433/app?keepalives=0&sslmode=require"
    done = shell(url, "--program", "psql", "SELECT 1", **client("psql"))
    arguments, variables = done.stdout.split("PG", 1)
    assert arguments.split("\n") == ["--set=ON_ERROR_STOP=1", "--command", "SELECT 1", "keepalives=0", ""]
    told = dict(line.split("=", 1) for line in f"PG{variables}".splitlines())
    assert (
        told.items()
        >= {
            "PGPASSWORD": "s3cret",
            "PGHOST": "db.internal",
            "PGPORT": "5433",
            "PGUSER": "me",
            "PGDATABASE": "app",
            "PGSSLMODE": "require",
            "PGOPTIONS": "-c default_transaction_read_only=on",
        }.items()
    )
    if shutil.which("psql"):
        assert "s3cret" not in run("shell", "--program", "psql", "--json", "--database", url).out


def test_secret_without_a_variable_is_refused(run):
    """It would have to stand on the command line, where every user of the machine reads it."""
    outcome = run("shell", "--program", "psql", "--database", "postgresql://me@h/app?sslpassword=s3cret")
    if shutil.which("psql"):
        refused(outcome, "sslpassword", "~/.pg_service.conf")
    assert "s3cret" not in outcome.err


def test_shell_without_a_database_or_a_client_says_so(run, database, monkeypatch):
    """No database is made, and what is missing is named."""
    refused(run("shell", "--database", "sqlite:///none.db"), "none.db", "does not exist")
    assert not Path("none.db").exists()
    misused(run("shell", "--database", f"sqlite:///{database}", "--program", "psql"), "is for another engine")
    misused(run("shell", "--database", f"sqlite:///{database}?mode=ro", "--write"), "leave one of them out")
    monkeypatch.setenv("PATH", "/nowhere")
    refused(run("shell", "--database", "postgresql://me@h/app"), "psql is not on the PATH", "postgresql-client")
    assert run("shell", "--database", f"sqlite:///{database}", "SELECT 1").out == "1\n"


def test_functions_of_the_program_are_there_in_the_shell(run, database, monkeypatch, tmp_path):
    """What --prepare registers only apsw's shell has, which is the default then."""
    (tmp_path / "shelled.py").write_text("def register(c):\n    c.create_scalar_function('twice', lambda x: 2 * x)\n")
    monkeypatch.syspath_prepend(tmp_path)
    call = ["shell", "--database", f"sqlite:///{database}", "--prepare", "shelled:register"]
    assert run(*call, "SELECT twice(21)").out == "42\n"
    refused(run(*call, "--program", "sqlite3", "SELECT 1"), "apsw's shell has") if shutil.which("sqlite3") else None


def test_ctrl_c_ends_a_statement_and_not_the_shell(terminal, database):
    """Ctrl-C at a statement that never ends gives the prompt back."""
    screen = terminal("shell", "--program", "apsw", "--database", f"sqlite:///{database}")
    screen.until("sqlite>")
    assert "read only" in screen.shown
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    screen.press(f"SELECT 'be' || 'gun'; {endless};\n")
    screen.until("begun")
    screen.press("\x03")
    screen.press("SELECT 'still ' || 'here';\n")
    screen.until("still here")
    screen.press(".exit\n")
    assert screen.close() == 0


def test_shell_of_whoever_has_no_home_ends_well(terminal, database):
    """A user of a container may have none: what was typed could not be kept, and `.exit` ended with 1."""
    screen = terminal("shell", "--program", "apsw", "--database", f"sqlite:///{database}", HOME="/nowhere")
    screen.until("sqlite>")
    screen.press(".exit\n")
    assert screen.close() == 0
    assert "error" not in screen.shown


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed here")
def test_shell_becomes_the_client(terminal, database):
    """The process is the client, so that a terminal's keys and a signal are for that alone."""
    screen = terminal("shell", "--program", "sqlite3", "--database", f"sqlite:///{database}")
    screen.until("sqlite>")
    screen.process.send_signal(signal.SIGTERM)
    assert screen.close() == -signal.SIGTERM
    with dao.connect(f"sqlite:///{database}") as connection:
        assert fetch(connection, "SELECT count(*) FROM tasks") == [(0,)]
