"""The commands that only look: status, plan, health, wait."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time

import pytest

import dao
from dao import migrate
from tests.cli.calls import KINDS, edited, plain, refused, removed, slipped_in
from tests.concurrency import PATIENCE
from tests.folders import ALONE, IDS, dump, query, tables, write

# ---------------------------------------------------------------- status, plan


def test_status_before_the_database_exists_is_all_pending(run, path):
    """It says that there is no database yet, and makes none."""
    assert run("status").out.splitlines() == [
        "pending     0001_a",
        "pending     0002_b",
        "pending     0003_c",
        "orchestrator.db (does not exist yet): 3 pending",
    ]
    assert run("status", "--json").document == {
        "database": "orchestrator.db",
        "exists": False,
        "ok": False,
        "drift": [],
        "broken": [],
        "advice": None,
        "migrations": [
            {
                "id": id,
                "state": "pending",
                "reversible": True,
                "renamed": None,
                "out_of_order": False,
                "applied_at": None,
                "seconds": None,
                "set": "three",
                "moved": None,
            }
            for id in IDS
        ],
        "others": [],
    }
    assert not path.exists()


def test_status_prints_what_to_do_with_a_database_that_another_tool_has_made(run, path, folder):
    """The advice is a line of its own, and in the document; `dao migrate` gives it, too, and changes nothing."""
    write(folder, {"0001_a.sql": "-- migrate:up\nCREATE TABLE a (id);\n-- migrate:down\nDROP TABLE a;"})
    for name in ("0001_a.rollback.sql", "0002_b.sql", "0002_b.rollback.sql", "0003_c.sql", "0003_c.rollback.sql"):
        (folder / name).unlink()
    query(path, "CREATE TABLE schema_migrations (version)")
    query(path, "INSERT INTO schema_migrations VALUES ('0001')")
    advice = run("status").out.splitlines()[-1]
    assert advice.startswith(
        f"dbmate has applied 0001_a to {path} already, as its table schema_migrations says: `dao ad"
    )
    assert run("status", "--json").document["advice"] == advice
    refused(run("migrate"), "Nothing was changed.", "`dao adopt --from dbmate`")


def test_status_shows_when_each_was_applied_and_how_long_it_took(run, partly):
    """An applied migration has its time in UTC and its duration, a pending one neither."""
    assert plain(run("status").out).splitlines() == [
        "applied     0001_a  WHEN, TIME",
        "applied     0002_b  WHEN, TIME",
        "pending     0003_c",
        "orchestrator.db: 2 applied, 1 pending",
    ]
    first, _, last = run("status", "--json").document["migrations"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["applied_at"])
    assert isinstance(first["seconds"], float)
    assert (last["applied_at"], last["seconds"]) == (None, None)


def test_status_marked_irreversible_and_out_of_order_are_said(run, folder):
    """A migration that cannot be undone, or comes before an applied one, says so; a marked one took no time."""
    run("migrate", "--to", "0002")
    run("mark", "0003")
    write(folder, {"0002.5_late.sql": "CREATE TABLE late (id);"})
    lines = plain(run("status").out).splitlines()
    assert lines[2:] == [
        "applied     0003_c       WHEN",
        "pending     0002.5_late  irreversible, out of order",
        "orchestrator.db: 3 applied, 1 pending",
        "the schema is not what these migrations make (`dao schema diff`):",
        "  table c is missing",
    ]


@pytest.mark.parametrize("kind", list(KINDS))
def test_migrate_files_and_database_disagree_names_it_and_the_way_out(run, partly, folder, kind):
    """Each kind of mismatch stops the run; the message names the migration and what to do, the JSON the kind."""
    change, id, what, advice = KINDS[kind]
    change(folder)
    if kind == "unfinished":
        refused(run("migrate"), "what it did before this stays done", advice)
    before = dump(partly)
    outcome = run("migrate")
    refused(outcome, "nothing was changed", f"{id}: ", what, advice)
    error = run("migrate", "--json").document["error"]
    assert {name: error[name] for name in ("type", *KINDS)} == {
        "type": "LedgerMismatch",
        **{other: [id] if other == kind else [] for other in KINDS},
    }
    assert run("plan").err == outcome.err
    assert dump(partly) == before


@pytest.mark.parametrize(
    ("kind", "state", "code"),
    [
        ("changed", "changed", 4),
        ("missing", "missing", 4),
        ("unfinished", "unfinished", 4),
        ("out_of_order", "pending", 3),
    ],
)
def test_status_exit_code_tells_a_mismatch_from_what_is_pending(run, partly, folder, kind, state, code):
    """4 when files and database disagree, 3 when migrations are only pending; without the option always 0."""
    change, id, _, _ = KINDS[kind]
    change(folder)
    if kind == "unfinished":
        run("migrate")
    outcome = run("status", "--exit-code")
    assert outcome.code == code
    assert re.search(rf"^{state} +{id}", outcome.out, re.MULTILINE)
    summary = next(line for line in outcome.out.splitlines() if re.match(r"\S+\.db: ", line))
    assert f"1 {state}" in summary or state == "pending"
    assert run("status", "--exit-code", "--quiet").code == code
    assert run("status", "--exit-code", "--json").code == code
    assert run("status").code == 0


def test_status_exit_code_pending_is_three_and_current_is_zero(run):
    """3 while something is pending, 0 once all is applied."""
    assert run("status", "--exit-code").code == 3
    run("migrate", "--steps", "1")
    assert run("status", "--exit-code").code == 3
    run("migrate")
    assert run("status", "--exit-code").code == 0


def test_migrate_out_of_order_allowed_applies_it(run, partly, folder):
    """With --allow-out-of-order the late one is applied."""
    slipped_in(folder)
    assert run("plan", "--allow-out-of-order").code == run("migrate", "--allow-out-of-order").code == 0
    assert tables(partly) == ["a", "b", "c", "z"]


#: What a step has in JSON that neither enforces foreign keys nor drops anything.
PLAIN = {"set": "three", "foreign_keys": False, "drops": []}


def test_plan_prints_the_scripts_in_order_and_runs_none(run, partly, folder):
    """Each step has its file; one that runs outside of a transaction says so; nothing is changed."""
    write(folder, {"0004_v.sql": ALONE + "VACUUM;"})
    before = dump(partly)
    assert run("plan").out.splitlines() == [
        "apply 0003_c (from three/0003_c.sql)",
        "apply 0004_v (from three/0004_v.sql, alone and outside of a transaction)",
    ]
    assert run("plan", "--json").document["steps"] == [
        {"id": "0003_c", "direction": "apply", "path": "three/0003_c.sql", "transactional": True} | PLAIN,
        {"id": "0004_v", "direction": "apply", "path": "three/0004_v.sql", "transactional": False} | PLAIN,
    ]
    assert dump(partly) == before


@pytest.mark.parametrize(
    ("options", "planned"),
    [
        ([], ["0003_c"]),
        (["--to", "0003"], ["0003_c"]),
        (["--steps", "9" * 30], ["0003_c"]),
        (["--rollback"], ["0002_b"]),
        (["--rollback", "--steps", "2"], ["0002_b", "0001_a"]),
        (["--rollback", "--to", "0001"], ["0002_b"]),
    ],
    ids=" ".join,
)
def test_plan_takes_the_limits_of_migrate_and_rollback(run, partly, options, planned):
    """What is planned is what migrate or rollback would do with the same options."""
    assert [step["id"] for step in run("plan", *options, "--json").document["steps"]] == planned


def test_plan_rollback_of_a_removed_file_comes_from_the_ledger(run, partly, folder):
    """A file that has gone is undone by the text that was applied, and the plan says so."""
    removed(folder)
    assert run("plan", "--rollback").out.splitlines() == [
        "roll back 0002_b (from the ledger)",
        "  drops what it made, with what that holds: table b",
    ]
    assert run("plan", "--rollback", "--json").document["steps"][0]["path"] is None
    assert run("rollback").code == 0
    assert tables(partly) == ["a"]


def test_plan_nothing_to_do_says_so(run):
    """With all applied there is nothing to plan."""
    run("migrate")
    assert run("plan").out == "orchestrator.db: nothing to do\n"


def test_plan_rollback_says_what_is_dropped_with_what_it_holds(run, folder):
    """A table and a column that the migration made go with what they hold, and the plan says so."""
    write(folder, {"0004_d.sql": "CREATE TABLE d (id);\nALTER TABLE a ADD COLUMN x;"})
    write(folder, {"0004_d.rollback.sql": "DROP TABLE d; ALTER TABLE a DROP COLUMN x;"})
    run("migrate")
    assert run("plan", "--rollback").out.splitlines()[1:] == [
        "  drops what it made, with what that holds: column a.x, table d"
    ]
    assert run("plan", "--rollback", "--json").document["steps"][0]["drops"] == ["column a.x", "table d"]


def test_plan_enforced_foreign_keys_are_said(run, partly, folder):
    """A file that runs with foreign keys enforced is alone in its transaction, and the plan says so."""
    write(folder, {"0004_d.sql": "-- foreign_keys: on\nSELECT 1;"})
    assert (
        run("plan").out.splitlines()[-1] == "apply 0004_d (from three/0004_d.sql, alone and with foreign keys enforced)"
    )
    assert [step["foreign_keys"] for step in run("plan", "--json").document["steps"]] == [False, True]


# ---------------------------------------------------------------- drift


def test_status_drift_is_shown_and_exits_with_four(run, path):
    """A change by hand is shown, and is a mismatch: neither current, nor only pending."""
    run("migrate", "--steps", "2")
    query(path, "CREATE INDEX mine ON a (id)")
    outcome = run("status", "--exit-code")
    assert outcome.code == 4
    assert plain(outcome.out).splitlines()[3:] == [
        "orchestrator.db: 2 applied, 1 pending",
        "the schema is not what these migrations make (`dao schema diff`):",
        "  index mine is unexpected",
    ]
    document = run("status", "--json").document
    assert (document["ok"], document["drift"]) == (False, ["index mine is unexpected"])
    assert run("status").code == 0
    run("migrate")
    assert run("status", "--exit-code").code == 4
    assert run("status", "--exit-code", "--quiet").code == 4


@pytest.mark.parametrize("command", [["health"], ["wait", "--timeout", "0"]], ids=["health", "wait"])
def test_health_and_wait_notice_drift(run, path, command):
    """A database whose schema somebody changed by hand is not ready for the program."""
    run("migrate")
    query(path, "DROP TABLE c")
    refused(run(*command), "the schema is not what its migrations make: table c is missing", "dao schema diff", code=4)
    query(path, "CREATE TABLE c (id INTEGER PRIMARY KEY)")
    assert run(*command).code == 0


# ---------------------------------------------------------------- health, wait


def test_health_current_schema_is_healthy(run):
    """It prints how soon the database answered and exits with 0."""
    run("migrate")
    assert plain(run("health").out) == "orchestrator.db: healthy (answered in TIME)\n"
    document = run("health", "--json").document
    assert (document["ok"], document["error"]) == (True, None)
    assert document["seconds"] >= 0


def test_health_and_wait_are_green_while_another_writes(run, path):
    """A long write, such as a migration, lets no probe restart the container.

    Health says that writes wait.
    """
    run("migrate")
    with contextlib.closing(dao.connect(f"sqlite:///{path}")) as blocker, dao.transaction(blocker):
        outcome = run("health")
        assert plain(outcome.out) == (
            "orchestrator.db: healthy (answered in TIME; another connection holds the write lock)\n"
        )
        assert (outcome.code, run("health", "--json").document["locked"]) == (0, True)
        assert run("wait", "--timeout", "0").code == 0
    assert run("health", "--json").document["locked"] is False


@pytest.mark.parametrize("command", [["health"], ["wait", "--timeout", "0"]], ids=["health", "wait"])
def test_health_and_wait_say_what_is_wrong_by_code_and_message(run, path, folder, command):
    """The exit code tells why the database is not ready, and the message says what to do.

    1: no database; 3: migrations pending; 4: migrations that this program does not know.
    """
    refused(run(*command), str(path), "does not exist")
    run("migrate", "--to", "0002")
    refused(run(*command), str(path), "0003_c", "run `dao migrate`", code=3)
    document = run(*command, "--json").document
    assert document["ok"] is False
    assert (document["error"]["type"], document["error"]["pending"]) == ("SchemaOutOfDate", ["0003_c"])
    run("migrate")
    removed(folder)
    refused(run(*command), "does not know (0002_b)", "newer version", code=4)


def test_health_and_wait_at_least_accept_what_a_newer_release_applied(run, folder):
    """An additive migration took the old release out of service: its probe said that the schema is too new."""
    run("migrate")
    for file in folder.glob("0003_c*"):
        file.unlink()
    refused(run("health"), "does not know (0003_c)", code=4)
    refused(run("wait", "--exact", "--timeout", "60"), "waiting does not help", "does not know (0003_c)", code=4)
    assert run("health", "--at-least").code == 0
    assert run("wait", "--timeout", "0").code == 0
    # it still has to have all that this one needs
    write(folder, {"0004_d.sql": "CREATE TABLE d (id);"})
    refused(run("health", "--at-least"), "0004_d", "dao migrate", code=3)


@pytest.mark.parametrize("wrong", ["damaged", "edited", "drifted", "unfinished"])
def test_wait_ends_at_once_where_waiting_cannot_help(run, path, folder, wrong):
    """It waited out its whole patience for a schema that nobody was about to change, or a file that is none."""
    run("migrate")
    if wrong == "damaged":
        path.write_bytes(b"no database" * 1000)
    elif wrong == "edited":
        edited(folder)
    elif wrong == "unfinished":
        write(folder, {"0004_d.sql": "-- transactional: false\nCREATE TABLE d (id); SELECT * FROM gone;"})
        assert run("migrate").code == 1
    else:
        query(path, "DROP TABLE c")
    begun = time.monotonic()
    outcome = run("wait", "--timeout", str(10 * PATIENCE))
    refused(outcome, "not ready, and waiting does not help: ", code=1 if wrong == "damaged" else 4)
    assert time.monotonic() - begun < PATIENCE


def test_wait_current_schema_is_ready_at_once(run):
    """There is nothing to wait for, and even no time for it is enough."""
    run("migrate")
    assert run("wait", "--timeout", "0").out == "orchestrator.db: ready\n"
    assert run("wait", "--json").document == {"database": "orchestrator.db", "ok": True, "error": None}


def test_wait_migration_finishes_meanwhile_succeeds(run, path, folder):
    """It goes on asking until another has created the database and migrated it."""

    def deploy() -> None:
        time.sleep(0.3)
        migrate.apply(f"sqlite:///{path}", folder)

    thread = threading.Thread(target=deploy)
    thread.start()
    outcome = run("wait", "--timeout", "60")
    thread.join()
    assert (outcome.code, outcome.out) == (0, "orchestrator.db: ready\n")


def test_wait_in_vain_says_how_long_and_why(run):
    """At the end of its patience it fails with the last reason."""
    refused(run("wait", "--timeout", "0.3"), "not ready after 0.3 s: ", "does not exist")


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["status", "--exit-code"],
        ["plan"],
        ["plan", "--rollback"],
        ["health"],
        ["wait", "--timeout", "0"],
        ["rollback"],
        ["redo"],
        ["unmark", "0001"],
        ["accept", "0001"],
        ["reset"],
        ["migrate", "--to", "nothing"],
        ["migrate", "--migrations", "nowhere"],
        ["new", "x"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("mode", ["", "?mode=rwc"])
def test_command_that_has_nothing_to_create_leaves_no_file(run, workplace, command, mode):
    """What only looks, or cannot go on without a database, does not make one."""
    run(*command, "--database", f"sqlite:///other.db{mode}") if command[0] != "new" else run(*command)
    assert [entry.name for entry in workplace.iterdir()] == ["three"]


# ---------------------------------------------------------------- what is logged


def test_warnings_that_are_logged_are_printed_and_events_only_once(run, path, folder, monkeypatch):
    """Nobody configures a log for a command: what modules warn of is shown; of a run's events it hears itself."""
    write(folder, {"0004_nothing.sql": "-- nothing\n"})
    done = run("migrate")
    assert done.err.count("0004_nothing: holds no statement") == 1
    monkeypatch.setenv("DATABASE_SLOW", "0")
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    path.unlink()
    assert run("migrate").code == 0
    listed = run("tasks", "list", "--json", "--quiet")
    assert "warning: slow statement, " in listed.err
    assert json.loads(listed.out)["tasks"] == []
