"""The examples in the help of each command: there is one, it is a right call, and it does what it shows."""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import dao
from dao import migrate, tasks
from dao.cli.group import group
from dao.cli.options import UNSAFE
from dao.testing import make_task
from tests.cli.calls import WORKERS
from tests.folders import query, write

#: The migrations of the examples; all are applied, but where a command needs one that is not.
FOLDER = {
    "20261201090000_create_notes.sql": "CREATE TABLE notes (id INTEGER PRIMARY KEY, draft TEXT);",
    "20261201090000_create_notes.rollback.sql": "DROP TABLE notes;",
    "20261202090000_add_color.sql": "ALTER TABLE notes ADD COLUMN color TEXT;",
    "20261202090000_add_color.rollback.sql": "ALTER TABLE notes DROP COLUMN color;",
    "20261203090000_index_notes.sql": "CREATE INDEX notes_color ON notes (color);",
    "20261203090000_index_notes.rollback.sql": "DROP INDEX notes_color;",
}
TASK = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"
#: The examples that are not run, as patterns, and why.
ELSEWHERE = {
    "dao top": "goes on until Ctrl-C",
    "dao shell*": "becomes another program",
    "dao metrics --output /*": "writes to a folder of this machine",
    "dao browse --[op]*": "goes on until Ctrl-C",
    "dao restore": "asks at a terminal",
    "dao replicate *": "runs Litestream, as its own tests do",
    "dao restore-replica *": "runs Litestream, as its own tests do",
    "dao migrate resolve *": "needs a script that ended in the middle",
    "dao adopt --from alembic *": "needs a database of that tool",
    "dao copy * --to postgresql:*": "needs a server",
}


def every_command(command: click.Command = group, name: str = "dao") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None
            yield from every_command(found, f"{name} {sub}")
    if command is not group:
        yield name, command


def examples(command: click.Command) -> list[str]:
    _, _, text = (command.help or "").partition("\n\b\nExamples:\n")
    return [line.strip() for line in text.splitlines()]


COMMANDS = dict(every_command())
EXAMPLES = [example for command in COMMANDS.values() for example in examples(command)]


def is_elsewhere(example: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(example.partition("  #")[0], pattern)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_examples_that_are_right_calls(name):
    """Each command has an example of itself, of one line, whose options and values are right ones."""
    found = examples(COMMANDS[name])
    assert found, f"{name} has no example"
    for example in found:
        assert len(example) <= 100
        words = shlex.split(example, comments=True)
        called = next(called for end in (3, 2) if (called := " ".join(words[:end])) in COMMANDS)
        assert called.startswith(name)
        # without the parent a command would keep for good that it has no -h
        parent = click.Context(group, **group.context_settings)
        COMMANDS[called].make_context(called, words[len(called.split()) :], parent=parent)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A folder in which the examples work, made once."""
    folder = tmp_path_factory.mktemp("examples")
    write(folder / "notes", FOLDER)
    for name in ("backups", "app_sql"):
        (folder / name).mkdir()
    url = f"sqlite:///{folder}/orchestrator.db"
    migrate.apply(url, folder / "notes")
    migrate.take_snapshot(url, label="before-import")
    for name in ("source.db", "target.db"):
        (folder / name).write_bytes(template.read_bytes())
    query(folder / "existing.db", "CREATE TABLE there (id INTEGER PRIMARY KEY)")
    return folder


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if not any(is_elsewhere(one, pattern) for pattern in ELSEWHERE)]
)
def test_example_runs(run, tmp_path, prepared, monkeypatch, example):
    """Each example does what it shows, where that can be run here; the rest are run by tests of their own."""
    for file in prepared.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(prepared)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    for name in ("backups", "app_sql"):
        (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setenv("DATABASE_MIGRATIONS", "notes")
    words = shlex.split(example, comments=True)[1:]
    if words[0] in WORKERS:
        monkeypatch.setenv("DATABASE_URL", "sqlite:///source.db")
        with contextlib.closing(dao.connect("sqlite:///source.db")) as connection:
            tasks.create(connection, make_task(id=TASK, task_type="mail"))
            tasks.set_status(connection, TASK, "running")
            if words[:2] == ["tasks", "retry"]:
                tasks.set_status(connection, TASK, "failed")
    if words[0] in {"mark", "rehearse"}:
        run("rollback")
    if words == ["baseline", "as", "delivered"]:
        monkeypatch.setenv("DATABASE_URL", "sqlite:///existing.db")
        monkeypatch.setenv("DATABASE_MIGRATIONS", "app_sql")
    if words[:2] == ["schema", "check"]:
        run("schema", "dump", *words[2:])
    outcome = run(*words)
    assert outcome.code in {0, UNSAFE}, outcome  # a doctor finds something here, too


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_reason_not_to_run_an_example_has_one(pattern):
    """No reason outlives its examples."""
    assert any(is_elsewhere(example, pattern) for example in EXAMPLES)
