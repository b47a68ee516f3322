"""The commands on a PostgreSQL database: what they print there, what they refuse, and that no password is told."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

import pytest

import dao
from dao import migrate
from dao.testing.server import database_of
from tests.cli.calls import CALLS, refused
from tests.fault.replicas import Replica
from tests.folders import ALONE, IDS, write
from tests.servers import Server

#: A password that no other word contains.
SECRET = "hunter2%40%2Fx"  # noqa: S105 - of nobody
PLAIN = "hunter2@/x"
#: The commands that work on a copy of a file.
OF_FILES = ["snapshot", "snapshots", "restore", "replicate", "restore-replica"]


def with_password(url: str) -> str:
    """Return a URL with the password in it."""
    user, at, rest = url.partition("@")
    return f"{user}:{SECRET}{at}{rest}"


@pytest.fixture
def there(new_postgresql_url, workplace, monkeypatch) -> str:
    """The URL of a new database, with a password, as DATABASE_URL has it."""
    url = with_password(new_postgresql_url)
    monkeypatch.setenv("DATABASE_URL", url)
    return url


def test_status_and_marks(run, there):
    """What is marked shows in the status, the plan and the history, and each is told with the name of the database."""
    assert run("status", "--exit-code").code == 3
    assert run("mark", *IDS[:2]).out == "marked as applied: 0001_a\nmarked as applied: 0002_b\n"
    status = run("status", "--json").document
    assert [one["state"] for one in status["migrations"]] == ["applied", "applied", "pending"]
    assert status["database"].startswith("postgresql://")
    assert "?" not in status["database"]
    assert [step["id"] for step in run("plan", "--json").document["steps"]] == ["0003_c"]
    assert run("unmark", "0002").out == "marked as not applied: 0002_b\n"
    deeds = run("history", "--json").document["history"]
    assert [(deed["operation"], deed["id"]) for deed in deeds] == [
        ("mark", "0001_a"),
        ("mark", "0002_b"),
        ("unmark", "0002_b"),
    ]


@pytest.mark.parametrize(("option", "code"), [("--applied", 4), ("--rolled-back", 0)])
def test_resolve_beside_an_index_that_is_not_valid(run, there, folder, option, code):
    """It noted a migration as applied whose index serves no query, and said nothing of it."""
    write(folder, {"0002_b.sql": f"{ALONE}CREATE UNIQUE INDEX CONCURRENTLY i ON a ((id * 0));"})
    assert run("migrate", "--to", "0001").code == 0
    with contextlib.closing(dao.connect(there)) as connection:
        connection.execute("INSERT INTO a VALUES (1), (2)")
    assert run("migrate", "--to", "0002").code == 1
    outcome = run("migrate", "resolve", "0002", option)
    assert outcome.code == code
    assert "does not work: the index i of a is not valid" in outcome.out
    assert ("has what does not work" in outcome.err) == (code == 4)
    assert run("status", "--json").document["migrations"][1]["state"] == ("applied" if code else "pending")


def test_new_without_a_folder_is_for_the_engine_of_the_database(run, monkeypatch, tmp_path):
    """In a checkout the pair goes where `migrate` would run it: it went to SQLite's migrations. Nothing is asked."""
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    asked = []

    def default_folder(engine: str = "sqlite", *, write: bool = False) -> Path:
        asked.append((engine, write))
        (tmp_path / engine).mkdir(exist_ok=True)
        return tmp_path / engine

    monkeypatch.setattr(migrate, "default_folder", default_folder)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid/x")
    assert run("new", "one", "--json").document["paths"][0].startswith(f"{tmp_path}/postgresql/")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///x.db")
    assert run("new", "one", "--json").document["paths"][0].startswith(f"{tmp_path}/sqlite/")
    assert asked == [("postgresql", True), ("sqlite", True)]


def test_baseline_without_a_folder_names_that_of_the_engine(run, there, monkeypatch):
    """It is refused, and named the migrations for SQLite."""
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    refused(run("baseline"), f"{migrate.default_folder('postgresql')} has the migrations of this package")


@pytest.mark.parametrize("name", OF_FILES)
def test_snapshots_are_of_files(run, there, name):
    """What copies a file refuses a database on a server by its name, and says what there is for that."""
    outcome = run(*CALLS[name], "--database", there)
    refused(outcome, "postgresql://", "is on a server", "pg_dump", "continuous archiving")


@pytest.mark.parametrize("name", [*OF_FILES, "browse"])
def test_server_is_refused_before_a_driver_is_asked_for(run, monkeypatch, name):
    """Without psycopg it had to be installed first, to be told that the command is not for a server."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    refused(run(*CALLS[name], "--database", "postgresql://me@h/app"), "the database is on a server", "use `")


def test_snapshot_does_not_ask_what_the_migrations_are_for(run, monkeypatch):
    """It has nothing to do with them; a folder that is named for an engine decides what server is meant elsewhere."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", "sql/postgresql")
    refused(run("snapshot", "--database", "sqlite:///none.db"), "none.db does not exist")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@h/app")
    monkeypatch.setenv("DATABASE_MIGRATIONS", "sql/sqlite")
    refused(run("browse"), "postgresql://me@h/app is on a server", "dao shell")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///none.db")
    monkeypatch.setenv("DATABASE_MIGRATIONS", "sql/postgresql")
    refused(run("snapshot"), "none.db does not exist")


def test_snapshot_of_a_server_is_refused_before_a_driver_is_asked_for(run, monkeypatch):
    """A program is told the same, and `dao.migrate` asks for psycopg where it would be of use."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@h/app")
    refused(run("snapshot"), "the database is on a server")
    for function in (migrate.take_snapshot, migrate.snapshots, migrate.restore):
        with pytest.raises(dao.UnsupportedEngine, match="is on a server"):
            function("postgresql://me@h/app")
    with pytest.raises(dao.UnsupportedEngine, match="needs psycopg"):
        migrate.status("postgresql://me@h/app")


#: What is wrong: the URL made of the right one, and what is said of it.
WRONG = {
    "database": (lambda url: url.replace("/dao_test", "/nowhere"), ["nowhere", "does not exist", "createdb"]),
    "socket": (lambda _url: "postgresql://me@/x?host=%2Fnowhere", ["me@%2Fnowhere/x", "No such file or directory"]),
    "port": (lambda _url: "postgresql://me@localhost:1/x", ["me@localhost:1/x", "Connection refused"]),
    "host": (lambda _url: "postgresql://me@no.such.host.invalid/x", ["Check the name of the host"]),
    "user": (lambda url: f"postgresql://nobody@{url.partition('@')[2]}", ["nobody@", "Check user and password"]),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", ["status", "migrate", "health", "history"])
def test_what_is_wrong_with_the_connection_is_told(run, there, monkeypatch, name, what):
    """Without a connection a command fails with one message that names the database and the reason."""
    make, parts = WRONG[what]
    monkeypatch.setenv("DATABASE_URL", make(there))
    refused(run(name), "cannot connect to postgresql://", *parts)


def test_wait_goes_on_until_the_server_takes_connections(run, monkeypatch, there):
    """`dao wait` tries again while there is no server, and says why it gave up."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@localhost:1/x")
    refused(run("wait", "--timeout", "0.3"), "not ready after 0.3 s: cannot connect to postgresql://me@localhost:1/x")


def test_wait_until_the_server_has_started(run, folder, monkeypatch):
    """`dao wait` is ready once a server that was down takes connections, and nothing is pending there."""
    with Server() as server:
        monkeypatch.setenv("DATABASE_URL", server.url("postgres"))
        assert run("mark", *IDS).code == 0
        server.stop()
        refused(run("status"), "No such file or directory")
        waiting = Replica("wait", "--timeout", "60", "--migrations", str(folder))
        server.start()
        code, out = waiting.end()
    assert (code, out.endswith("/postgres: ready\n")) == (0, True), waiting.errors


def test_url_of_dotenv_is_used(run, there, workplace, monkeypatch):
    """`.env` names a database on a server as well."""
    monkeypatch.delenv("DATABASE_URL")
    (workplace / ".env").write_text(f'DATABASE_URL="{there}"\n')
    assert run("status", "--json").document["database"].startswith("postgresql://")


@pytest.mark.parametrize("name", list(CALLS))
def test_no_command_tells_the_password(run, server, there, monkeypatch, name):
    """Nothing that a command prints has the password in it, whatever is wrong."""
    user = f"postgresql://me:{SECRET}"
    bad = [
        with_password(database_of(server.url, "nowhere")),
        f"{user}@/x?host=%2Fnowhere",
        f"{user}@no.such.host.invalid/x",
        f"{user}@localhost:1/x?sslmode=verify-full&sslrootcert=nowhere.pem",
    ]
    for url, form in itertools.product([*bad, there], ([], ["--json"])):
        monkeypatch.setenv("DATABASE_URL", url)
        outcome = run(*CALLS[name], *form)
        assert PLAIN not in outcome.out + outcome.err, url
        assert SECRET not in outcome.out + outcome.err, url
