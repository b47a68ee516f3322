"""The commands on several sets of migrations: which are named, which one is meant, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from dao import migrate
from tests.cli.calls import plain
from tests.folders import IDS, write

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


#: Commands that print ids, in an order in which each finds something to do.
SHOWING = [
    ["plan"],
    ["rehearse", "--round-trip"],
    ["migrate"],
    ["plan", "--rollback", "--all"],
    ["redo", "--steps", "2"],
    ["rollback", "--steps", "2"],
    ["mark", "0003", "20261201"],
    ["accept", "0003", "20261201"],
    ["unmark", "20261201"],
    ["status"],
    ["history"],
    ["verify"],
    ["lint", "--all", "--json"],
]


@pytest.mark.parametrize("command", [[], ["--json"]], ids=["text", "json"])
def test_ids_stand_behind_their_sets_where_several_are_named(run, app, command):
    """They stood alone in what `plan`, `migrate`, `rollback`, `redo`, `rehearse`, `verify` and the like print."""
    for words in SHOWING:
        sets = () if words == ["history"] else BOTH
        printed = run(*words, *sets, *(() if "--json" in words else command))
        if not (command or "--json" in words):
            found = [text for text in re.findall(r"\S+", plain(printed.out)) if re.search(r"\d_[abcn]", text)]
            names = [text for text in found if ".sql" not in text]
        else:
            names = list(named(printed.document))
        assert {name.strip(",:;`") for name in names} <= {f"three/{id}" for id in IDS} | {"app/20261201_notes"}
        assert names or words[0] == "lint"


def named(document: object) -> Iterator[str]:
    """Yield the names of migrations in a document: the id behind its set, or what a list of them has."""
    if isinstance(document, dict):
        if isinstance(document.get("id"), str):
            yield f"{document['set']}/{document['id']}"
        for value in document.values():
            yield from named(value)
    elif isinstance(document, list):
        for value in document:
            if isinstance(value, str) and re.fullmatch(r"(\w+/)?\d+_\w+", value):
                yield value
            else:
                yield from named(value)


def test_ids_stand_alone_where_one_set_is_named(run, app):
    """The name of the only one says nothing; another one in the database does not matter."""
    for words in SHOWING:
        printed = run(*words[:1], *(word if word != "20261201" else "0002" for word in words[1:]))
        assert not re.search(r"three/\d+_[abc](?!\.)\b", printed.out), printed.out
    assert run("migrate", "-m", "app=app_sql").out.startswith("applied 20261201_notes (")


def test_id_behind_a_set_is_taken_by_every_command(run, app, monkeypatch):
    """What a command prints can be given to the next; another set's name is refused."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    assert run("migrate", "--to", "three/0003").code == 0
    assert run("mark", "app/20261201_notes").out == "marked as applied: app/20261201_notes\n"
    assert run("unmark", "app/2026", "--json").document["ids"] == ["app/20261201_notes"]
    for command in (["unmark", "app/0003_c"], ["rollback", "--to", "app/0002"], ["mark", "three/20261201_notes"]):
        refused = run(*command)
        assert (refused.code, "of the set '" in refused.err, refused.out) == (1, True, "")
    assert run("rollback", "--to", "three/0002_b").out.startswith("rolled back three/0003_c (")


def test_set_picks_what_is_rolled_back_and_applied(run, app, monkeypatch):
    """Whatever was applied since, or is pending; what others depend on, or it on others, is refused with the reason."""
    monkeypatch.setenv("DATABASE_MIGRATIONS", "three:app=app_sql")
    run("migrate")
    refused = run("rollback", "--set", "three")
    assert (refused.code, "0003_c: app/20261201_notes depends on it" in refused.err) == (1, True)
    (step,) = run("plan", "--rollback", "--set", "app", "--json").document["steps"]
    assert (step["id"], step["set"]) == ("20261201_notes", "app")
    assert run("redo", "--set", "app").code == run("rollback", "--set", "app").code == 0
    assert run("rollback", "--set", "three").code == 0
    for command in ("plan", "migrate", "rehearse"):
        refused = run(command, "--set", "app")
        assert (refused.code, "apply that first, or all of them, without --set" in refused.err) == (1, True)
    assert run("migrate", "--set", "three").out.startswith("applied three/0003_c (")
    assert run("rehearse", "--set", "app").code == 0
    (result,) = run("migrate", "--set", "app", "--json").document["results"]
    assert (result["id"], result["set"]) == ("20261201_notes", "app")
    assert "give one of those that are (three, app)" in run("migrate", "--set", "nope").err


def test_one_set_alone_can_be_picked(run, app):
    """Of two the last was taken without a word: `migrate --set app --set three` said that nothing was to be done."""
    for command in (["migrate"], ["plan"], ["rehearse"], ["rollback"], ["new", "x"]):
        refused = run(*command, *BOTH, "--set", "app", "--set", "three")
        assert (refused.code, "several (app, three): name one set, or leave --set out" in refused.err) == (2, True)
    assert run("migrate", *BOTH, "--set", "three", "--set", "three").code == 0


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
