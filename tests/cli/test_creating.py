"""Creating files and databases: told with the whole path, and refused on request.

An installed package is never written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dao
from dao import migrate
from tests.cli.calls import CALLS, refused
from tests.folders import THREE, tables, write

#: The commands that make a database which does not exist.
CREATORS = ["migrate", "init", "reset"]


@pytest.mark.parametrize("name", CREATORS)
def test_command_that_creates_a_database_says_where(run, path, name):
    """A new database is named with its absolute path, once: in another working directory it came up in silence."""
    outcome = run(*CALLS[name])
    assert outcome.code == 0
    assert f"created {path}, since there was no database\n" in outcome.err
    again = run(*CALLS[name])
    assert (again.code, "created" in again.err) == (0, False)


@pytest.mark.parametrize("name", CREATORS)
def test_command_that_creates_a_database_says_so_in_json(run, path, name):
    """The document has it, too."""
    assert [run(*CALLS[name], "--json").document["created"] for _ in range(2)] == [True, False]


@pytest.mark.parametrize("name", ["migrate", "init", "reset"])
def test_command_that_fails_leaves_no_new_database(run, workplace, path, folder, name):
    """It said that nothing was changed, and left an empty file."""
    write(folder, {"0001_a.sql": "CREATE TABLE a (id);", "0002_b.sql": "nonsense;"})
    before = sorted(os.listdir(workplace))
    outcome = run(*CALLS[name])
    assert outcome.code == 1
    assert f"created {path}" in outcome.err
    assert f"removed {path} again, since nothing is in it" in outcome.err
    assert sorted(os.listdir(workplace)) == before


def test_migrate_that_fails_in_the_middle_keeps_what_is_committed(run, path, folder):
    """What has a ledger is no empty file."""
    write(folder, {"0001_a.sql": "CREATE TABLE a (id);", "0002_b.sql": "nonsense;"})
    outcome = run("migrate", "--each")
    assert outcome.code == 1
    assert "removed" not in outcome.err
    assert "a" in tables(path)


@pytest.mark.parametrize("sql", ["SELECT 1", "CREATE TABLE theirs (id)"])
def test_apply_that_fails_keeps_a_file_that_another_has_open(tmp_path, sql):
    """What somebody else writes into a removed file is lost; and a file that was there is nobody's to remove."""
    folder = write(tmp_path / "sql", {"0001_a.sql": "nonsense;"})
    path = tmp_path / "a.db"
    others: list[Any] = []

    def open_another(event: object) -> None:
        if isinstance(event, migrate.Created):
            others.append(dao.connect(f"sqlite:///{path}"))
            others[0].execute(sql).fetchall()

    with pytest.raises(dao.MigrationFailed):
        migrate.apply(f"sqlite:///{path}", folder, report=open_another)
    assert path.exists()
    assert others[0].pragma("journal_mode") == "wal"
    others[0].close()
    with pytest.raises(dao.MigrationFailed):
        migrate.apply(f"sqlite:///{path}", folder)
    assert path.exists()


def test_apply_that_is_interrupted_leaves_no_new_database(tmp_path):
    """Nor does whatever else ends the first run."""

    def interrupt(event: object) -> None:
        if isinstance(event, migrate.Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate.apply(f"sqlite:///{tmp_path / 'a.db'}", write(tmp_path / "sql", THREE), report=interrupt)
    assert os.listdir(tmp_path) == ["sql"]


@pytest.mark.parametrize("name", [*CREATORS, "restore"])
@pytest.mark.parametrize("mode", ["--existing", "mode=rw"])
def test_command_that_must_not_create_a_database_refuses(run, workplace, path, name, mode):
    """With `--existing`, or `mode=rw` in the URL, nothing is created, and the exit code is 1.

    A snapshot does not create the database either.
    """
    if name == "restore":
        assert run("migrate", "--to", "0002").code == run("snapshot").code == 0
        path.unlink()
    before = sorted(os.listdir(workplace))
    more = ["--existing"] if mode == "--existing" else ["--database", f"sqlite:///{path}?mode=rw"]
    refused(run(*CALLS[name], *more), f"{path}", "does not exist")
    assert sorted(os.listdir(workplace)) == before


@pytest.mark.parametrize("name", [*CREATORS, "restore"])
def test_command_with_existing_works_on_what_is_there(run, partly, name):
    """`--existing` changes nothing for a database that exists."""
    assert run("snapshot").code == 0
    assert run(*CALLS[name], "--existing").code == 0
    assert set(tables(partly)) >= {"a", "b"}


#: A call of each command that needs a database, and what there is nothing to do with, if it says so.
NEEDY = {
    **{name: (CALLS[name], None) for name in ("restore", "health", "wait")},
    "rollback": (["rollback"], "roll back"),
    "plan of a rollback": (["plan", "--rollback"], "roll back"),
    "redo": (["redo"], "redo"),
    "mark": (["mark", "0003"], "mark in it"),
    "mark what is not known": (["mark", "0009"], "mark in it"),
    "unmark": (["unmark", "0003"], "unmark"),
    "accept": (["accept", "0003"], "accept"),
    "resolve": (["migrate", "resolve", "0003"], "resolve"),
    "adopt": (["adopt", "--from", "yoyo"], "adopt"),
    "schema diff": (["schema", "diff"], "compare"),
    "check": (["check"], "check"),
    "verify": (["verify", "--copy"], "copy"),
    "snapshot": (["snapshot"], "take a snapshot of"),
}


@pytest.mark.parametrize(("call", "what"), NEEDY.values(), ids=NEEDY)
def test_command_without_its_database_says_which(run, path, call, what):
    """A missing database is named with its absolute path: the working directory is what often is wrong.

    None makes it by accident; "`dao migrate` creates it" was all the advice, whatever was to be done, and a plan of a
    rollback said that there was nothing to do.
    """
    outcome = run(*call)
    assert (outcome.code, outcome.out) == (1, "")
    assert f"{path} " in outcome.err
    if what is not None:
        assert outcome.err == (
            f"error: {path} does not exist: there is nothing to {what}. Name the database that is meant (--database, "
            "DATABASE_URL), or make this one with `dao migrate`\n"
        )
    assert not path.exists()


def test_command_that_lists_what_is_not_there_says_that_there_is_no_database(run, path):
    """Listing the snapshots or the history of a missing database says that there is none.

    `dao snapshots` advised taking one, and the history was taken for one without deeds.
    """
    assert run("history").out == "orchestrator.db (does not exist yet): nothing was done yet\n"
    assert run("snapshots").out == "orchestrator.db (does not exist yet): no snapshots\n"
    assert run("restore", "--yes").err.startswith(
        f"error: {path} has no snapshots: it does not exist either; name another"
    )
    path.touch()
    assert run("history").out == "orchestrator.db: nothing was done yet\n"
    assert run("snapshots").out == "orchestrator.db: no snapshots; `dao snapshot` takes one\n"


def test_apply_reports_the_database_that_it_creates(tmp_path):
    """A program is told by an event, before anything is in the new file; for a connection of its own there is none."""
    folder = write(tmp_path / "sql", THREE)
    events: list[object] = []
    url = f"sqlite:///{tmp_path / 'a.db'}"
    migrate.apply(url, folder, report=events.append)
    migrate.apply(url, folder, report=events.append)
    connection = dao.connect("sqlite://")
    migrate.apply(connection, folder, report=events.append)
    connection.close()
    assert [event for event in events if isinstance(event, migrate.Created)] == [
        migrate.Created(str(tmp_path / "a.db"))
    ]
    assert isinstance(events[0], migrate.Created)


# ---------------------------------------------------------------- an installed package


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that has this one as its wheel does: the scripts inside."""
    packages = tmp_path_factory.mktemp("packages")
    package = Path(dao.__file__).parent
    shutil.copytree(package, packages / "dao", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "sql", packages / "dao" / "sql")
    return packages


@pytest.mark.parametrize("arguments", [["new", "add_x"], ["schema", "dump"]], ids=" ".join)
def test_installed_package_is_not_written_into(workplace, installed, arguments):
    """Without a folder, `new` and `schema dump` refuse where the package is installed.

    They wrote into site-packages.
    """
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_MIGRATIONS"}
    before = sorted(installed.rglob("*.sql"))
    done = [
        subprocess.run(
            [sys.executable, "-B", "-m", "dao", *arguments, *more],
            cwd=workplace,
            env=environ | {"PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        for more in ([], ["--migrations", "three"])
    ]
    assert [one.returncode for one in done] == [1, 0], done
    assert done[0].stderr.startswith(f"error: {installed / 'dao' / 'sql' / 'sqlite'} is part of the installed package")
    assert "--migrations or DATABASE_MIGRATIONS" in done[0].stderr
    assert sorted(installed.rglob("*.sql")) == before
