"""Shell completion, by click's protocol and in a real bash: ids of what there is, else silence."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dao
from dao import migrate, tasks
from dao.cli.main import main
from dao.testing import make_task
from tests.concurrency import PATIENCE
from tests.folders import write

ID = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"


@pytest.fixture
def complete(workplace, monkeypatch, capfd):
    """Complete the last word of a line: returns the values, and what stands beside each in zsh and fish."""

    def call(line: str) -> dict[str, str]:
        words = line.split(" ")
        monkeypatch.setenv("_DAO_COMPLETE", "zsh_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setattr(sys, "argv", ["dao"])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert (end.value.code, err) == (0, "")
        lines = out.splitlines()
        return dict(zip(lines[1::3], lines[2::3], strict=True))

    return call


def test_completion_ends_with_0(complete):
    """A completed word was an exit with 141, as if its reader had gone."""
    assert complete("dao sta") == {"status": "Print where each migration stands."}


@pytest.mark.usefixtures("partly")
@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("dao migrate --to ", ["0003_c"]),
        ("dao rehearse --to ", ["0003_c"]),
        ("dao rollback --to ", ["0001_a", "0002_b"]),
        ("dao rollback --to 0002", ["0002_b"]),
        ("dao plan --to ", ["0001_a", "0002_b", "0003_c"]),
        ("dao mark ", ["0003_c"]),
        ("dao unmark ", ["0001_a", "0002_b"]),
        ("dao unmark 0002_b ", ["0001_a"]),
        ("dao accept ", []),
        ("dao verify --since ", ["0001_a", "0002_b", "0003_c"]),
        ("dao unmark --database sqlite:///elsewhere.db ", []),
    ],
)
def test_migration_is_completed_where_it_fits(complete, line, ids):
    """Pending ones are offered where they are applied, applied ones where they are undone."""
    assert list(complete(line)) == ids


@pytest.mark.usefixtures("partly")
def test_edited_migration_is_completed_for_accept(complete, folder):
    """Of the applied migrations accept is for those whose files have changed."""
    write(folder, {"0002_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY, x);"})
    assert complete("dao accept ") == {"0002_b": "changed"}


@pytest.mark.usefixtures("partly")
@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("dao rollback --set ", ["three", "app"]),
        ("dao schema dump --set a", ["app"]),
        ("dao migrate --to ", ["three/0003_c", "app/0001_notes"]),
        ("dao unmark three/", ["three/0001_a", "three/0002_b"]),
        ("dao unmark 00", ["0001_a", "0002_b"]),
        ("dao unmark 0001_a ", ["three/0002_b"]),
        ("dao unmark three/0001_a 00", ["0002_b"]),
        ("dao lint --since app/", ["app/0001_notes"]),
    ],
)
def test_sets_are_completed_and_ids_behind_theirs(complete, workplace, monkeypatch, line, values):
    """Nothing was offered for `--set`, and ids as if there were one set; begun without it, an id is offered alone."""
    write(workplace / "app_sql", {"0001_notes.sql": "CREATE TABLE notes (id INTEGER PRIMARY KEY);"})
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    assert list(complete(line)) == values


@pytest.mark.usefixtures("partly")
def test_the_only_set_is_completed_too(complete):
    """With one folder it is that one."""
    assert complete("dao rollback --set ") == {"three": "three"}


def test_snapshot_is_completed_by_id_and_label(complete, path, partly):
    """`dao restore` is offered each snapshot, with when it was taken, and the labels."""
    migrate.take_snapshot(f"sqlite:///{path}", label="before-import")
    found = complete("dao restore ")
    (id,) = (one.id for one in migrate.snapshots(f"sqlite:///{partly}"))
    assert list(found) == [id, "before-import"]
    assert found[id].endswith(" UTC, before-import")


@pytest.fixture
def work(complete, url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", url)
    return complete


@pytest.mark.both_engines
def test_task_is_completed_by_the_statuses_of_the_command(work, connection):
    """The newest tasks are offered that the command is for, with their titles, and nothing that a shell would run."""
    for id in (ID, "job-1", "job-2", "$(reboot)", "-x"):
        tasks.create(connection, make_task(id=id, title=f"mail\n{id}"))
    tasks.set_status(connection, "job-2", "running")
    assert work("dao tasks release ") == {"job-2": "mail\\njob-2"}
    assert list(work("dao tasks show ")) == ["job-1", ID, "job-2"]
    assert list(work("dao tasks cancel job-2 job-")) == ["job-1"]
    assert list(work("dao tasks cancel 019a")) == [ID]
    assert work("dao tasks retry ") == {}


@pytest.mark.parametrize(
    "line",
    ["dao migrate resolve ", "dao unmark ", "dao restore ", "dao tasks show ", "dao tasks show x", "dao accept "],
)
def test_completion_is_silent_where_there_is_no_database(complete, workplace, line):
    """Without a database nothing is offered or said, and none is made."""
    before = sorted(workplace.iterdir())
    complete(line)
    assert complete("dao tasks show --database nonsense ") == {}
    assert sorted(workplace.iterdir()) == before


def test_completion_is_silent_about_a_broken_database(complete, path):
    """A file that is no database, and a server that is not there: no word, and no long wait."""
    path.write_bytes(b"no database at all, whatever its name says" * 100)
    assert complete("dao unmark ") == {}
    assert complete("dao tasks show ") == {}
    assert complete("dao tasks show --database postgresql://x@127.0.0.1:1/y ") == {}


def test_completion_changes_no_byte_of_a_database_that_is_locked(complete, database):
    """It waits for no lock and writes nothing, while somebody has the database to himself."""
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as connection:
        tasks.create(connection, make_task(id=ID))
        connection.execute("BEGIN IMMEDIATE")
        before = connection.pragma("data_version")
        assert list(complete("dao tasks show ")) == [ID]
        connection.execute("ROLLBACK")
        assert connection.pragma("data_version") == before


def test_completion_in_bash(workplace, partly):
    """The script that click writes for bash completes an id in a real one."""
    script = 'eval "$(_DAO_COMPLETE=bash_source dao)"; COMP_WORDS=(dao rollback --to ""); COMP_CWORD=3; '
    script += '_dao_completion dao; printf "%s\\n" "${COMPREPLY[@]}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=workplace,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert (done.stdout.split(), done.stderr) == (["0001_a", "0002_b"], "")


def test_completion_in_fish_is_whole(workplace, path, partly, monkeypatch, capfd):
    """The script for fish ended an id, and what is said of it, at a comma. A fish runs it, where there is one."""
    migrate.take_snapshot(f"sqlite:///{path}", label="before-import")
    (id,) = (one.id for one in migrate.snapshots(f"sqlite:///{path}"))
    monkeypatch.setenv("_DAO_COMPLETE", "fish_source")
    monkeypatch.setattr(sys, "argv", ["dao"])
    with pytest.raises(SystemExit):
        main()
    script = capfd.readouterr().out
    assert 'string split --max 1 "," $completion' in script
    if fish := shutil.which("fish"):
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        command = [fish, "--no-config", "-c", f"{script}; complete -C 'dao restore 2'"]
        done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=True, timeout=PATIENCE)
        assert re.fullmatch(rf"{id}\t.* UTC, before-import\n", done.stdout)


def test_files_are_completed_by_the_shell(complete):
    """Where a file or a folder is wanted the shell is told so, and not left without an offer."""
    assert complete("dao lint --sarif re") == {"re": "_"}
    assert complete("dao snapshot --to back") == {"back": "_"}
