"""What all commands have in common, and those that write a migration or mend the ledger."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import click
import pytest

from dao import _version, migrate
from tests.cli.calls import CALLS, COMMANDS, OPENERS, Outcome, edited, misused, plain, refused, removed
from tests.folders import ALONE, dump, query, tables, write

# what a command prints as JSON has these keys: they are part of its interface
KEYS = {
    "check": {"database", "faults", "unknown"},
    "doctor": {"database", "findings"},
    "metrics": {"database", "output", "metrics"},
    "browse": {"database", "address", "metadata"},
    "shell": {"database", "command", "read_only"},
    "migrate": {"drift", "database", "created", "snapshot", "results"},
    "rollback": {"drift", "database", "created", "snapshot", "results"},
    "redo": {"drift", "database", "created", "snapshot", "results"},
    "init": {"database", "exists", "created", "drift", "broken", "advice", "migrations", "others"},
    "reset": {"drift", "database", "created", "snapshot", "results"},
    "status": {"database", "exists", "drift", "broken", "advice", "migrations", "others"},
    "plan": {"database", "steps"},
    "health": {"database", "locked", "seconds", "error"},
    "wait": {"database", "error"},
    "new": {"paths"},
    "mark": {"drift", "database", "ids"},
    "unmark": {"drift", "database", "ids"},
    "accept": {"drift", "database", "ids"},
    "adopt": {"drift", "database", "tool", "ids", "pending", "out_of_order"},
    "baseline": {"database", "id", "paths", "left_out", "broken"},
    "copy": {"source", "target", "dry_run", "rows", "tables", "left_out", "seconds"},
    "history": {"database", "history"},
    "rehearse": {
        "database",
        "exists",
        "in_memory",
        "in_place",
        "bytes",
        "copy_seconds",
        "lock_seconds",
        "migrations",
        "not_reached",
        "round_trip",
        "seconds",
    },
    "snapshot": {"database", "snapshot", "removed", "seconds"},
    "snapshots": {"database", "snapshots"},
    "restore": {"drift", "database", "restored", "replaced", "damaged"},
    "replicate": {"database", "replica", "metrics", "seconds"},
    "restore-replica": {"database", "replica", "as_of", "replaced", "damaged", "seconds"},
    "schema": {"database", "differences", "left_out"},
    "lint": {"migrations", "judged", "total", "selection", "failed", "findings"},
    "tasks": {"database", "tasks", "more"},
    "top": {"database", "at", "queues", "throughput", "workers"},
    "prune": {"database", "dry_run", "before", "tables"},
    "verify": {"failed", "not_tried", "database", "verifications"},
}


def prepare(run, name):
    """Make the call of a command succeed on a database of which two migrations are applied."""
    if name in {"health", "wait"}:
        run("migrate")
    if name == "restore":
        run("snapshot")
    if name == "restore-replica":
        run(*CALLS["replicate"])


# ---------------------------------------------------------------- what all have in common


def test_calls_cover_every_command():
    """The tables of these tests have all commands there are."""
    assert set(CALLS) == set(KEYS) == set(COMMANDS)


@pytest.mark.parametrize("name", list(CALLS))
def test_command_help_explains_it_and_each_option(run, name):
    """Each command prints its own help, and every option in it says what it is for."""
    outcome = run(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: dao {name} ")
    assert run(name, "-h") == outcome
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[-1] in outcome.out


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, parameter.opts[-1])
        for name, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter.type, click.types.FloatParamType)
    ],
)
def test_number_that_is_none_is_wrong_usage(run, name, option):
    """`dao top --interval nan` ended in a traceback: click takes nan for a number in any range."""
    outcome = run(name, option, "nan")
    assert outcome.code == 2
    assert f"Invalid value for '{option}': nan is no number." in outcome.err


def test_help_of_the_group_lists_commands_and_exit_codes(run):
    """`dao --help` has each command once, in groups and on a line each, and says what the exit codes mean."""
    outcome = run("--help")
    assert outcome.code == 0
    groups = outcome.out.partition("Options:")[2]
    assert sorted(re.findall(r"^  (\w[\w-]*)  ", groups, re.MULTILINE)) == sorted(CALLS)
    assert re.findall(r"^(\w.*):$", groups, re.MULTILINE) == ["Migrate", "Look", "Protect", "Check", "Work"]
    assert "..." not in groups
    assert len(outcome.out.splitlines()) <= len(CALLS) + 23
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 migrations pending, 4" in " ".join(outcome.out.split())


def test_group_without_a_command_prints_the_help_and_fails(run):
    """`dao` alone does nothing: it shows what there is."""
    outcome = run()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.strip() == run("--help").out.strip()


def test_version_is_that_of_the_package(run):
    """`dao --version` names the version."""
    assert run("--version").out == f"dao {_version.__version__}\n"


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", list(CALLS))
def test_command_quiet_prints_nothing_but_warnings(run, partly, existing, name):
    """With --quiet a command that succeeds prints nothing, unless somebody has to look at what it did."""
    prepare(run, name)
    outcome = run(*CALLS[name], "--quiet")
    assert (outcome.code, outcome.out) == (0, "")
    if name in {"mark", "unmark"}:  # of what is not so
        assert outcome.err.startswith("warning: the schema is not what the applied migrations make")
    else:
        assert outcome.err == ""


def test_rollback_quiet_warns_of_a_wrong_schema(run, partly, folder):
    """In an emergency a script runs it so, and with exit code 0 and no word nobody would look."""
    write(folder, {"0002_b.rollback.sql": "DROP TABLE b; CREATE TABLE left_over (id);"})
    run("accept", "0002")
    outcome = run("rollback", "--quiet", "--allow-data-loss")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.splitlines()[1:] == ["  table left_over is unexpected"]


@pytest.mark.parametrize("name", list(CALLS))
def test_command_json_is_one_document_with_these_keys(run, partly, existing, name):
    """With --json a command prints one document, whose keys are part of its interface; durations to the microsecond."""
    prepare(run, name)
    outcome = run(*CALLS[name], "--json")
    assert re.findall(r'seconds": .*\.\d{7,}', outcome.out) == []
    assert (outcome.code, outcome.err) == (0, "")
    assert set(outcome.document) == {"ok", *KEYS[name]}
    assert run(*CALLS[name], "--json", "--quiet", "--help").code == 0


@pytest.mark.parametrize("name", OPENERS)
def test_command_damaged_schema_format_is_damage(run, path, name):
    """A byte of the header that no SQLite understands is damage by name; it used to be a traceback."""
    run("migrate", "--quiet")
    header = bytearray(path.read_bytes())
    header[44:48] = (9).to_bytes(4, "big")
    path.write_bytes(header)
    refused(run(*CALLS[name]), "is damaged or no SQLite database (unsupported file format)")


@pytest.mark.parametrize("name", ["migrate", "rehearse", "rollback", "reset"])
def test_command_header_that_wants_a_newer_sqlite_to_write_is_named(run, partly, path, name):
    """A file that this SQLite may only read is called that.

    The advice was to open it without mode=ro, which nobody had set.
    """
    header = bytearray(path.read_bytes())
    header[18] = 3
    path.write_bytes(header)
    refused(run(*CALLS[name]), "orchestrator.db can only be read: its header says that it takes a newer SQLite")


@pytest.mark.parametrize("name", OPENERS)
def test_command_failing_as_json_prints_the_error_in_both_ways(run, path, name):
    """With --json an error is a document on standard output and a line on standard error."""
    path.write_text("no database" * 1000)
    outcome = run(*CALLS[name], "--json")
    assert outcome.code == 1
    assert "is damaged or no SQLite database" in outcome.err
    error = outcome.document["error"]
    assert error["type"] == "DatabaseCorrupt"
    waited = "not ready, and waiting does not help: " if name == "wait" else ""
    assert outcome.err == f"error: {waited}{error['message']}\n"


# ---------------------------------------------------------------- new, mark, unmark, accept


def test_new_writes_an_empty_pair_and_prints_its_paths(run, folder):
    """The pair is in the folder in use, named by the time and the words, and it can be loaded."""
    paths = run("new", "Add", "a priority!").out.split()
    assert [re.sub(r"\d{14}", "TIME", path) for path in paths] == [
        "three/TIME_add_a_priority.sql",
        "three/TIME_add_a_priority.rollback.sql",
    ]
    assert all(Path(path).read_text().startswith("-- ") for path in paths)
    assert [migration.id for migration in migrate.load(folder)][-1] == Path(paths[0]).stem


def test_new_twice_makes_two_pairs_in_order(run):
    """A second pair within the same second comes after the first."""
    first, second = (run("new", "same", "--json").document["paths"][0] for _ in range(2))
    assert first < second


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["///"], ["needs a letter or a digit", "'///'"]),
        (["x", "--migrations", "nowhere"], ["nowhere: the migrations folder does not exist", "create it first"]),
        (["x" * 300], ["cannot be written"]),
    ],
    ids=["no letter", "no folder", "too long"],
)
def test_new_that_cannot_be_written_is_refused(run, folder, arguments, parts):
    """The message names what is wrong, and no half of a pair is left."""
    before = sorted(folder.iterdir())
    refused(run("new", *arguments), *parts)
    assert sorted(folder.iterdir()) == before


def test_mark_notes_without_running(run, path):
    """A marked migration counts as applied; its tables are not made. One that is applied is passed over."""
    assert "does not exist" in run("mark", "0002").err
    assert not path.exists()
    path.touch()
    marked = run("mark", "0002", "0001_a")
    assert marked.out == "marked as applied: 0001_a\nmarked as applied: 0002_b\n"
    assert marked.err == (
        "warning: the schema is not what the applied migrations make (`dao schema diff`):\n"
        "  table a is missing\n  table b is missing\n"
    )
    assert tables(path) == []
    assert plain(run("status").out).splitlines()[3:] == [
        "orchestrator.db: 2 applied, 1 pending",
        "the schema is not what these migrations make (`dao schema diff`):",
        "  table a is missing",
        "  table b is missing",
    ]
    assert run("mark", "0001").out == "nothing to change\n"
    assert run("mark", "0003", "0001", "--json").document == {
        "ok": True,
        "database": "orchestrator.db",
        "ids": ["0003_c"],
        "drift": ["table a is missing", "table b is missing", "table c is missing"],
    }


def test_unmark_forgets_without_undoing(run, partly, folder):
    """The table stays, the migration is pending again. No file is needed for that."""
    removed(folder)
    assert run("unmark", "0002").out == "marked as not applied: 0002_b\n"
    assert tables(partly) == ["a", "b"]
    assert run("unmark", "0001", "--json").document == {
        "ok": True,
        "database": "orchestrator.db",
        "ids": ["0001_a"],
        "drift": ["table a is unexpected", "table b is unexpected"],
    }


def test_accept_takes_the_file_as_it_is_now(run, partly, folder):
    """After it, an edited file is no mismatch any more, and nothing of it was run."""
    edited(folder)
    assert run("status", "--exit-code").code == 4
    assert run("accept", "0001").out == "accepted as it is now: 0001_a\n"
    status = run("status", "--json").document
    assert {migration["state"] for migration in status["migrations"]} == {"applied", "pending"}
    assert status["drift"] == ["table a: column x is missing"]  # which the file has now
    assert query(partly, "SELECT count(*) FROM pragma_table_info('a')") == [(1,)]


def test_accept_of_a_removed_file_says_what_else_can_be_done(run, partly, folder):
    """There is no text to accept; the message has the alternatives."""
    removed(folder)
    refused(run("accept", "0002"), "0002_b: it is applied, and its file has gone", "dao unmark 0002_b")


@pytest.mark.parametrize("name", ["mark", "unmark", "accept"])
@pytest.mark.parametrize(
    ("ids", "part", "advice"),
    [
        (["0009"], "no migration", "0001_a, 0002_b"),
        (["000"], "may be any of", "0001_a, 0002_b"),
        (["0001", "0009"], "no migration", "0001_a, 0002_b"),
        ([""], "is no id", "`dao status` lists them"),
    ],
    ids=["unknown", "ambiguous", "one of them unknown", "empty"],
)
def test_mark_unmark_accept_bad_id_changes_nothing(run, partly, name, ids, part, advice):
    """An id that names none, or several, is refused with those there are; the others are not done either."""
    before = dump(partly)
    refused(run(name, *ids), part, repr(ids[-1]), advice)
    assert dump(partly) == before


def test_ids_and_urls_from_windows_are_what_they_mean(run, partly):
    """A script with Windows' line ends adds a carriage return to its last argument, which is no part of it."""
    assert run("mark", "0003\r").out == "marked as applied: 0003_c\n"
    assert run("unmark", " 0003_c\r\n", "-d", "sqlite:///orchestrator.db\r").out == "marked as not applied: 0003_c\n"
    assert run("plan", "--to", "0003\r", "-m", "three\r").code == 0
    run("snapshot")
    (taken,) = run("snapshots", "--json").document["snapshots"]
    assert run("restore", f"{taken['id']}\r", "--yes").code == 0
    misused(run("restore", "\r", "--yes"), "the ID is empty")
    misused(run("status", "-d", "\r"), "--database is empty")
    misused(run("status", "-m", " "), "--migrations is empty")
    misused(run("status", "-d", "sqlite:///a\r.db"), "cannot hold a carriage return (%0D)")
    assert sorted(entry.name for entry in partly.parent.glob("*\r*")) == []


# ---------------------------------------------------------------- history


def test_history_prints_each_operation_with_who_and_how_long(run, path, monkeypatch):
    """A line has the time, what was done to which migration, how long it took, who did it where, and with what."""
    monkeypatch.setenv("LOGNAME", "somebody")
    assert run("history").out == "orchestrator.db (does not exist yet): nothing was done yet\n"
    assert not path.exists()
    run("migrate", "--steps", "2")
    run("mark", "0003")
    run("unmark", "0003")
    run("rollback")
    by = f"somebody@{socket.gethostname()}, by dao {_version.__version__}"
    assert plain(run("history").out).splitlines() == [
        f"WHEN  apply     0001_a in TIME, {by}",
        f"WHEN  apply     0002_b in TIME, {by}",
        f"WHEN  mark      0003_c, {by}",
        f"WHEN  unmark    0003_c, {by}",
        f"WHEN  rollback  0002_b in TIME, {by}",
        "  lost b: the table is dropped with 1 row",
    ]


def test_history_json_has_every_field(run):
    """As JSON each operation has all that is known of it; what the stock yoyo did has no version."""
    run("migrate", "--steps", "1")
    run("snapshot")
    (deed,) = run("history", "--json").document["history"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", deed.pop("at"))
    assert isinstance(deed.pop("seconds"), float)
    assert all(deed[name] for name in ("user", "host"))
    assert {name: deed[name] for name in deed if name not in {"user", "host"}} == {
        "operation": "apply",
        "id": "0001_a",
        "set": "three",
        "detail": None,
        "tool_version": _version.__version__,
    }


def test_history_of_yoyo_says_so(run, path):
    """What the stock command did is told from ours."""
    run("migrate", "--steps", "1")
    query(path, "DELETE FROM _dao_history")
    assert run("history").out.endswith(", by yoyo\n")


def test_history_notes_a_reset_and_a_restore_of_the_whole_database(run, path):
    """What concerns no migration names the database."""
    run("migrate")
    run("reset", "--yes")
    run("restore", "--yes")
    lines = plain(run("history").out).splitlines()
    assert any(line.startswith("WHEN  reset     orchestrator.db, ") for line in lines)
    assert lines[-2].startswith("WHEN  restore   orchestrator.db, ")
    assert lines[-1].startswith("  from orchestrator.db.")


# ---------------------------------------------------------------- resolve


@pytest.fixture
def half(run, partly, folder):
    """The path of a database in which the third migration was left unfinished, half-way."""
    write(folder, {"0003_c.sql": ALONE + "CREATE TABLE c (id);\nnonsense;"})
    assert "`dao migrate resolve 0003_c`" in run("migrate").err
    write(folder, {"0003_c.sql": ALONE + "CREATE TABLE c (id);\nCREATE TABLE d (id);"})
    return partly


def test_resolve_refuses_options_that_stand_before_it(run, half, tmp_path):
    """`dao migrate --database OTHER resolve` changes the database that it names.

    It passed over the name, and changed the ledger of the default database.
    """
    before = dump(half)
    misused(
        run("migrate", "-d", f"sqlite:///{tmp_path}/other.db", "resolve", "0003", "--applied"),
        "--database stands before",
    )
    assert dump(half) == before


def test_resolve_without_an_outcome_shows_what_differs_and_exits_with_four(run, half):
    """It compares the schema with both ends, says how to go on, and notes nothing."""
    outcome = run("migrate", "resolve", "0003")
    assert (outcome.code, outcome.err) == (4, "")
    assert outcome.out.splitlines() == [
        "applied: it would differ from the schema as it is:",
        "  table d is missing",
        "rolled back: it would differ from the schema as it is:",
        "  table c is unexpected",
        "say which it is: `dao migrate resolve 0003_c --applied` or `--rolled-back`",
    ]
    assert run("status", "--exit-code").code == 4
    assert run("migrate", "resolve", "0003", "--json").document == {
        "ok": False,
        "database": "orchestrator.db",
        "id": "0003_c",
        "set": "three",
        "outcome": None,
        "differences": {"applied": ["table d is missing"], "rolled back": ["table c is unexpected"]},
        "broken": [],
    }


@pytest.mark.parametrize(("option", "outcome"), [("--applied", "applied"), ("--rolled-back", "rolled back")])
def test_resolve_with_an_outcome_notes_it(run, half, option, outcome):
    """After showing what differs it notes how the migration ended, and runs go on."""
    query(half, "CREATE TABLE d (id)" if outcome == "applied" else "DROP TABLE c")
    resolved = run("migrate", "resolve", "0003", option)
    assert (resolved.code, resolved.err) == (0, "")
    assert f"{outcome}: that is the schema as it is\n" in resolved.out
    assert resolved.out.endswith(f"0003_c: noted as {outcome}\n")
    assert run("status", "--exit-code").code == (0 if outcome == "applied" else 3)
    assert run("migrate").code == 0
    assert run("status", "--exit-code").code == 0
    assert "resolve   0003_c, " in run("history").out


def test_resolve_as_json_names_the_outcome(run, half):
    """As JSON it is one document, with --quiet nothing."""
    assert run("migrate", "resolve", "0003", "--applied", "--json").document["outcome"] == "applied"
    refused(run("migrate", "resolve", "0003", "--applied"), "no migration '0003' is unfinished, and no other is")


def test_resolve_quiet_prints_nothing(run, half):
    """With --quiet only the exit code tells."""
    assert run("migrate", "resolve", "0003", "--quiet") == Outcome(4, "", "")
    assert run("migrate", "resolve", "0003", "--rolled-back", "--quiet") == Outcome(0, "", "")


def test_resolve_what_is_not_unfinished_is_refused(run, partly):
    """An applied migration, an unknown one and a missing id are refused."""
    refused(run("migrate", "resolve", "0001"), "no migration '0001' is unfinished, and no other is")
    refused(run("migrate", "resolve", "0009", "--applied"), "'0009'")
    misused(run("migrate", "resolve"), "Missing argument")


def test_resolve_database_that_does_not_exist_is_refused(run, path):
    """There is nothing to resolve, and no database is made."""
    refused(run("migrate", "resolve", "0001"), "orchestrator.db does not exist")
    assert not path.exists()


def test_resolve_with_both_outcomes_is_wrong_usage(run, partly):
    """Only one of the two can be true, and nothing is noted."""
    misused(run("migrate", "resolve", "0003", "--applied", "--rolled-back"), "--applied and --rolled-back exclude")


@pytest.mark.parametrize(
    ("context", "code", "message"), [(None, 130, "interrupted; what was not"), (EOFError(), 1, "there was no answer")]
)
def test_interrupted_command_prints_a_document(run, monkeypatch, context, code, message):
    """With --json there is one whatever happens: after Ctrl-C, and Ctrl-D at a question, there was none."""

    def interrupted(*_given: object, **_named: object) -> None:
        error = click.Abort() if context else KeyboardInterrupt()
        error.__context__ = context
        raise error

    monkeypatch.setattr(migrate, "status", interrupted)
    outcome = run("status", "--json")
    assert outcome.code == code
    assert outcome.document["ok"] is False
    assert outcome.document["error"]["message"].startswith(message)
    assert f"error: {outcome.document['error']['message']}" in outcome.err
