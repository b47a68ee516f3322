"""`dao copy`: what it prints, at a terminal and as JSON, and how it refuses."""

from __future__ import annotations

import re

import pytest

from dao import tasks
from dao.testing import make_task
from tests.cli.calls import CALLS, misused, refused
from tests.copies import fill, held, is_marked, opened
from tests.folders import query

CALL = CALLS["copy"]


@pytest.fixture
def urls(workplace, existing) -> tuple[str, str]:
    """The URLs of `source.db`, with some rows, and of `target.db`, without any."""
    source, target = (f"sqlite:///{workplace}/{name}.db" for name in ("source", "target"))
    fill(source)
    return source, target


def test_copy_prints_each_table_and_that_both_hold_the_same(run, urls):
    """One line for each table, with its rows and hash, and one for all."""
    outcome = run(*CALL)
    assert (outcome.code, outcome.err) == (0, "")
    *tables, last = outcome.out.splitlines()
    assert [re.sub(r"hash [0-9a-f]{16}", "hash H", line) for line in tables] == [
        "tasks: 5 rows, hash H",
        "task_dependencies: 1 row, hash H",
        "task_events: 7 rows, hash H",
        "workflows: 1 row, hash H",
        "workflow_tasks: 1 row, hash H",
        "tool_executions: 1 row, hash H",
        "sessions: 1 row, hash H",
        "configurations: 1 row, hash H",
    ]
    assert re.fullmatch(r"target\.db: 18 rows of source\.db in [\d.]+ m?s; both hold the same", last)
    assert held(urls[0]) == held(urls[1])


def test_copy_json_has_the_whole_hashes(run, urls):
    """The document says of each table how many rows it has, how many were there already, and the hash."""
    document = run(*CALL, "--json").document
    assert (document["source"], document["target"], document["rows"]) == ("source.db", "target.db", 18)
    assert document["dry_run"] is False
    assert document["tables"][0].keys() == {"name", "rows", "kept", "hash"}
    assert re.fullmatch("[0-9a-f]{64}", document["tables"][0]["hash"])


def test_copy_in_a_dry_run_says_what_it_would_do(run, urls):
    """Rows are counted, nothing is changed, and the document says so."""
    outcome = run(*CALL, "--dry-run")
    assert outcome.out.splitlines()[0] == "tasks: 5 rows"
    assert outcome.out.splitlines()[-1] == "target.db: would get 18 rows of source.db; nothing was changed"
    document = run(*CALL, "--dry-run", "--json").document
    assert (document["dry_run"], document["rows"], document["tables"][0]["hash"]) == (True, 18, None)
    assert not any(held(urls[1]).values())


def test_copy_warns_of_tables_that_are_not_copied(run, urls, workplace):
    """An application's own tables are not forgotten in silence, not even with --quiet."""
    query(workplace / "source.db", "CREATE TABLE notes (id)")
    outcome = run(*CALL, "--quiet")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("warning: source.db has other tables, which are not copied: notes.")
    assert run(*CALL, "--dry-run", "--json").document["error"]["type"] == "CopyFailed"


def test_copy_refusals_say_what_to_do(run, urls):
    """Rows in the target, and URLs that mean nothing, are refused; no advice empties another database."""
    run(*CALL)
    refused(run(*CALL), "target.db is not empty", "(`dao reset --database URL`, with its URL)")
    misused(run("copy", "--from", "nonsense", "--to", "sqlite:///target.db"), "--from: a database URL begins")
    misused(run("copy", "--from", "sqlite:///source.db", "--to", ""), "--to: a database URL begins")
    misused(run("copy", "--from", "sqlite:///source.db"), "Missing option '--to'")
    refused(run("copy", "--from", "sqlite:///source.db", "--to", "sqlite:///gone.db"), "gone.db does not exist")
    hidden = run("copy", "--from", "postgresql://me:hunter2@h:x/db", "--to", "sqlite:///target.db")
    misused(hidden, "a port in the database URL is no number")
    assert "hunter2" not in hidden.err


def test_copy_names_the_rows_that_are_refused_one_a_line(run, urls, workplace):
    """Each refused row is a line of the error, and an item of the document."""
    query(
        workplace / "source.db",
        "INSERT INTO tool_executions (id, task_id, tool_name, input) VALUES ('lost\nchild', 'gone', 'x', '1')",
    )
    outcome = run(*CALL)
    refused(
        outcome,
        "1 row of source.db cannot be copied into target.db: correct or delete",
        "\n    tool_executions 'lost\\nchild': ",
    )
    document = run(*CALL, "--json").document
    assert len(document["error"]["details"]) == 1
    assert is_marked(urls[1])


def test_copy_at_a_terminal_shows_a_bar(terminal, urls):
    """A person sees how far it is; what stays on the screen is the result."""
    fill_more(urls[0])
    process = terminal(*CALL)
    assert process.close() == 0
    assert "copying tasks" in process.shown
    assert "verifying tasks" in process.shown
    assert "both hold the same" in process.shown


def test_copy_that_is_interrupted_says_that_it_can_be_repeated(terminal, urls):
    """After Ctrl-C the next run goes on, and a person is told so."""
    fill_more(urls[0], 60_000)
    process = terminal(*CALL)
    process.until("copying tasks")
    process.interrupt()
    assert process.close() == 130
    assert "what was copied by now stays in the target, marked as unfinished: repeat, and it goes on" in process.shown


def fill_more(url: str, number: int = 3000) -> None:
    """Store so many tasks more."""
    with opened(url) as connection:
        tasks.create_many(connection, [make_task() for _ in range(number)])
