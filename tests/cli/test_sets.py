"""The commands on several sets of migrations: which are named, which one is meant, and how they are shown."""

from __future__ import annotations

import pytest

from dao import migrate
from tests.cli.calls import plain
from tests.folders import write

APP = {
    "20261201_notes.sql": "-- depends: three/0003_c\nCREATE TABLE notes (id INTEGER PRIMARY KEY);",
    "20261201_notes.rollback.sql": "DROP TABLE notes;",
}
BOTH = ("-m", "three", "-m", "app=app_sql")


@pytest.fixture
def app(workplace):
    """The migrations of an application, beside those of the folder `three`."""
    return write(workplace / "app_sql", APP)


def test_commands_show_sets_where_there_are_several(run, app, monkeypatch):
    """The name of the set stands before the id; of a set that is not named, only that it is there."""
    assert run("migrate", *BOTH).code == 0
    assert [plain(line).split()[1] for line in run("status", *BOTH).out.splitlines()[:-1]] == [
        *("three/0001_a", "three/0002_b", "three/0003_c", "app/20261201_notes")
    ]
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    assert run("status", "--json").document["migrations"][-1]["set"] == "app"
    lines = plain(run("status", "-m", "app=app_sql").out).splitlines()
    assert (lines[0].split()[:2], lines[1:]) == (
        ["applied", "20261201_notes"],
        ["orchestrator.db: 1 applied", "of another set: three (3 applied)"],
    )
    assert " apply     app/20261201_notes in " in run("history").out
    assert run("health").code == run("wait", "--timeout", "0").code == run("check").code == 0


def test_rollback_undoes_the_latest_of_a_set(run, app, monkeypatch):
    """`--set` picks it, whatever was applied since; what others depend on is refused with the reason."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    run("migrate")
    refused = run("rollback", "--set", "three")
    assert (refused.code, "0003_c: app/20261201_notes depends on it" in refused.err) == (1, True)
    (step,) = run("plan", "--rollback", "--set", "app", "--json").document["steps"]
    assert (step["id"], step["set"]) == ("20261201_notes", "app")
    assert run("redo", "--set", "app").code == run("rollback", "--set", "app").code == 0
    assert run("rollback", "--set", "three").code == 0
    assert run("plan", "--set", "app").code == 2


def test_command_that_writes_wants_to_know_for_which_set(run, app, monkeypatch, workplace):
    """A new migration or a schema file is of one set; with several and without `--set` it is refused."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    for command in (["new", "x"], ["schema", "dump"], ["schema", "check"]):
        refused = run(*command)
        assert (refused.code, "(three, app)" in refused.err) == (2, True)
        assert run(*command, "--set", "nope").code == 2
    assert run("schema", "dump", "--set", "app").code == run("schema", "check", "--set", "app").code == 0
    written = (workplace / "app_sql.schema.sql").read_text()
    assert ("TABLE notes" in written, "TABLE a " in written) == (True, False)
    (path, _) = run("new", "more", "--set", "app", "--json").document["paths"]
    assert path.startswith("app_sql/")
    for command in (["lint", "--all"], ["verify"]):
        assert run(*command, "--set", "app", "--json").code == 0


def test_the_packages_own_set_is_named_by_its_name(run, workplace):
    """`orchestrator` is no folder here; `./orchestrator` would be one."""
    assert run("migrate", "-m", "orchestrator").code == 0
    assert run("status", "-m", "orchestrator", "--json").document["migrations"][0]["set"] == "orchestrator"
    migrate.assert_current(f"sqlite:///{workplace}/orchestrator.db")
    assert run("migrate", "-m", "./orchestrator").code == 1
