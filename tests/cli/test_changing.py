"""The commands that change the schema: migrate, rollback, redo, init, reset."""

from __future__ import annotations

import pytest

from tests.cli.calls import misused, plain, refused
from tests.folders import IDS, dump, query, tables, write

# ---------------------------------------------------------------- migrate


def test_migrate_new_database_prints_each_migration_and_the_sum(run, path):
    """Each migration has a line with its statements and its time; the last line is the sum."""
    outcome = run("migrate")
    assert (outcome.code, outcome.err) == (0, f"created {path}, since there was no database\n")
    assert plain(outcome.out).splitlines() == [
        "applied 0001_a (1 statement, TIME)",
        "applied 0002_b (2 statements, TIME)",
        "applied 0003_c (1 statement, TIME)",
        "orchestrator.db: 3 migrations in TIME",
    ]
    assert tables(path) == ["a", "b", "c"]


def test_migrate_again_says_that_there_is_nothing_to_do(run, path):
    """A second run applies nothing and succeeds."""
    run("migrate")
    before = dump(path)
    assert run("migrate") == (outcome := run("migrate"))
    assert (outcome.code, outcome.out) == (0, "orchestrator.db: nothing to apply\n")
    assert run("migrate", "--json").document == {
        "ok": True,
        "database": "orchestrator.db",
        "created": False,
        "snapshot": None,
        "drift": [],
        "results": [],
    }
    assert dump(path) == before


@pytest.mark.parametrize(
    ("options", "applied"),
    [
        (["--to", "0002_b"], ["a", "b"]),
        (["--to", "0001"], ["a"]),
        (["--steps", "1"], ["a"]),
        (["--steps", "9" * 30], ["a", "b", "c"]),
        (["--steps", "99"], ["a", "b", "c"]),
        (["--to", "0003", "--steps", "2"], ["a", "b"]),
        (["--each"], ["a", "b", "c"]),
    ],
    ids=" ".join,
)
def test_migrate_with_a_limit_stops_there(run, path, options, applied):
    """--to names the last migration, by its id or the beginning of it; --steps counts."""
    assert run("migrate", *options).code == 0
    assert tables(path) == applied


def test_migrate_json_has_a_result_for_each_migration(run):
    """A result has the id, the set, the direction, statements, seconds, notices and losses."""
    results = run("migrate", "--json").document["results"]
    assert [result["id"] for result in results] == IDS
    assert [set(result) for result in results] == [
        {"id", "set", "direction", "statements", "seconds", "notices", "losses"}
    ] * 3
    assert {result["direction"] for result in results} == {"apply"}
    assert [result["statements"] for result in results] == [1, 2, 1]


def test_migrate_statement_that_is_ignored_is_noticed(run, folder):
    """What a script asked for and did not get is a line on standard error and a part of the JSON."""
    write(folder, {"0001_a.sql": "BEGIN; CREATE TABLE a (id INTEGER PRIMARY KEY); COMMIT;"})
    outcome = run("migrate", "--to", "0001", "--json")
    assert "0001_a: ignored BEGIN: the run is one transaction already\n" in outcome.err
    notices = outcome.document["results"][0]["notices"]
    assert [notice.partition(":")[0] for notice in notices] == ["ignored BEGIN", "ignored COMMIT"]


def test_migrate_broken_script_says_where_and_changes_nothing(run, partly, folder):
    """The message has the file, the line, the reason and the statement; the database is as before."""
    before = dump(partly)
    write(folder, {"0004_x.sql": "CREATE TABLE x (id);\n\nINSERT INTO nowhere\nVALUES (1);\n"})
    outcome = run("migrate")
    refused(
        outcome,
        "three/0004_x.sql:3: no such table: nowhere\n      INSERT INTO nowhere\n      VALUES (1);\n",
        "Nothing was changed.",
    )
    assert dump(partly) == before
    error = run("migrate", "--json").document["error"]
    assert {name: error[name] for name in ("type", "migration", "path", "line", "statement")} == {
        "type": "MigrationFailed",
        "migration": "0004_x",
        "path": "three/0004_x.sql",
        "line": 3,
        "statement": "INSERT INTO nowhere\nVALUES (1);",
    }


def test_migrate_each_with_a_broken_script_keeps_those_before(run, path, folder):
    """With --each the migrations before the broken one stay, and the message names them."""
    write(folder, {"0003_c.sql": "nonsense;"})
    refused(run("migrate", "--each"), "three/0003_c.sql:1:", "These stay committed: 0001_a, 0002_b.")
    assert tables(path) == ["a", "b"]


def test_migrate_broken_foreign_key_names_the_row_and_changes_nothing(run, partly, folder):
    """A row without its parent stops the run before anything is committed."""
    script = "CREATE TABLE d (a INTEGER REFERENCES a (id));\nINSERT INTO d VALUES (7);"
    write(folder, {"0004_d.sql": script})
    before = dump(partly)
    refused(run("migrate"), "d: a = 7 refers to a row of a that does not exist", "othing was changed")
    assert dump(partly) == before


def test_migrate_unknown_target_lists_what_there_is(run, path):
    """A --to that names nothing is refused with the ids that would do, and no database is made."""
    refused(
        run("migrate", "--to", "0009"), "no migration '0009' is in the folder; those that are: 0001_a, 0002_b, 0003_c"
    )
    assert not path.exists()


def test_migrate_ambiguous_target_asks_for_more(run):
    """The beginning of several ids is refused with all of them."""
    refused(run("migrate", "--to", "000"), "'000' may be any of 0001_a, 0002_b, 0003_c: give more of the id")


# ---------------------------------------------------------------- what a script breaks or loses


@pytest.mark.parametrize("verb", ["migrate", "rollback", "redo", "rehearse"])
def test_run_that_breaks_something_is_refused_until_allowed(run, path, folder, verb):
    """The message names what does not work any more, and the option with which it is done all the same."""
    broken = 'CREATE VIEW "a view" AS SELECT none FROM a;'
    write(folder, {"0003_c.rollback.sql": f"DROP TABLE c; {broken}"} if verb == "rollback" else {"0004_d.sql": broken})
    run("migrate", *(() if verb in {"rollback", "redo"} else ("--to", "0003")))
    if verb == "redo":
        write(folder, {"0004_d.sql": broken.replace("none", "id"), "0004_d.rollback.sql": 'DROP VIEW "a view";'})
        run("migrate")
        run("accept", "0004")
        write(folder, {"0004_d.sql": broken})
    outcome = run(verb)
    assert outcome.code != 0
    assert "the view a view: no such column: none" in outcome.err + outcome.out
    assert "--allow-broken 'a view'" in outcome.err + outcome.out
    assert run(verb, "--allow-broken", "A view").code == 0


@pytest.mark.parametrize("option", [("--allow-data-loss",), ("--allow-loss", "x.y", "--allow-loss", '"A"')], ids=len)
@pytest.mark.parametrize("verb", ["migrate", "rollback", "redo"])
def test_run_that_loses_data_is_refused_until_allowed(run, path, folder, verb, option):
    """The message names the file, the table, how much, the line to write and the option; with the option it is done."""
    run("migrate")
    query(path, "INSERT INTO a VALUES (1), (2)")
    if verb == "migrate":
        write(folder, {"0004_d.sql": "DROP TABLE a;"})
    else:
        write(folder, {"0003_c.rollback.sql": "DROP TABLE a; DROP TABLE c;"})
        run("accept", "0003")
    if verb == "redo":
        write(folder, {"0003_c.sql": "CREATE TABLE IF NOT EXISTS c (id INTEGER PRIMARY KEY);"})
    name = "0004_d.sql" if verb == "migrate" else "0003_c.rollback.sql"
    before = dump(path)
    outcome = run(verb)
    refused(
        outcome,
        "loses data without saying that it means to",
        "a: the table is dropped with 2 rows",
        "--allow-loss a",
        "Nothing was changed.",
    )
    if verb != "redo":  # it undoes by the ledger's text, into which nothing can be written
        assert f"write `-- allows: drop table a` at the top of {name}, or allow it" in outcome.err
    assert dump(path) == before
    error = run(verb, "--json").document["error"]
    assert error["type"] == "CheckFailed"
    done = run(verb, *option)
    assert done.code == 0
    assert "lost a: the table is dropped with 2 rows" in done.err
    assert "a" not in tables(path)
    assert "  lost a: the table is dropped with 2 rows" in run("history").out


def test_migrate_json_has_what_was_lost(run, partly, folder):
    """What a script declares to lose, and loses, is a part of its result."""
    write(folder, {"0004_d.sql": "-- allows: drop table b\nDROP TABLE b;"})
    results = run("migrate", "--json").document["results"]
    assert [result["losses"] for result in results] == [
        [],
        [{"kind": "table", "table": "b", "rows": 1, "column": None}],
    ]


# ---------------------------------------------------------------- snapshots


def of_snapshots(path):
    """Return the names of the snapshots beside a database."""
    return sorted(file.name for file in path.parent.iterdir() if file.name.endswith(".snapshot"))


@pytest.mark.parametrize(
    "call", [["migrate"], ["migrate", "--each"], ["rollback"], ["redo"], ["init"], ["reset", "--yes"]], ids=" ".join
)
def test_run_takes_a_snapshot_and_says_where(run, partly, call):
    """Before a database that holds rows is changed, one is taken, and its path is on standard error and in the JSON."""
    outcome = run(*call)
    (name,) = of_snapshots(partly)
    assert outcome.err.splitlines()[0].endswith(name)
    assert outcome.err.startswith("snapshot of what was there before: ")
    assert query(partly.parent / name, "SELECT * FROM b") == [(2,)]
    if call[0] != "init":
        run("migrate")
        assert run("rollback", "--json").document["snapshot"].endswith(of_snapshots(partly)[-1])


def test_run_that_fails_names_the_snapshot_only_if_it_stays(run, partly, folder):
    """A run that changed nothing takes its snapshot away again, and printed the path all the same."""
    write(folder, {"0003_c.sql": "CREATE TABLE c (id);", "0004_d.sql": "CREATE TABLE b (id);"})
    outcome = run("migrate")
    assert outcome.code == 1
    assert of_snapshots(partly) == []
    assert "snapshot" not in outcome.err
    outcome = run("migrate", "--each")
    assert outcome.code == 1
    (name,) = of_snapshots(partly)
    assert outcome.err.startswith(f"snapshot of what was there before: {partly.parent / name}\n")


@pytest.mark.parametrize("call", [["migrate"], ["rollback"], ["redo"], ["reset", "--yes"]], ids=" ".join)
def test_run_no_snapshot_takes_none(run, partly, call, monkeypatch):
    """With --no-snapshot, or DATABASE_SNAPSHOTS=0, none is taken."""
    assert run(*call, "--no-snapshot").code == 0
    assert of_snapshots(partly) == []
    monkeypatch.setenv("DATABASE_SNAPSHOTS", "0")
    run("migrate")
    outcome = run(*["rollback"] if call == ["migrate"] else call)
    assert (outcome.code, outcome.err) == (0, "")
    assert of_snapshots(partly) == []


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_run_keeps_as_many_snapshots_as_are_set(run, partly, workplace, place, monkeypatch):
    """DATABASE_SNAPSHOTS says how many stay, from the environment or the `.env`."""
    if place == ".env":
        (workplace / ".env").write_text("DATABASE_SNAPSHOTS=2\n")
    else:
        monkeypatch.setenv("DATABASE_SNAPSHOTS", "2")
    for _ in range(4):
        assert run("redo").code == 0
    assert len(of_snapshots(partly)) == 2


def test_run_keeps_three_snapshots_by_default(run, partly):
    """Without a setting three stay."""
    for _ in range(5):
        assert run("redo").code == 0
    assert len(of_snapshots(partly)) == 3


@pytest.mark.parametrize("value", ["-1", "many"])
def test_run_bad_number_of_snapshots_is_named(run, partly, value, monkeypatch):
    """A number that means nothing is refused with the variable."""
    monkeypatch.setenv("DATABASE_SNAPSHOTS", value)
    misused(run("migrate"), f"DATABASE_SNAPSHOTS={value}: expected a whole number of snapshots to keep")


# ---------------------------------------------------------------- rollback, redo


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], ["a", "b"]),
        (["--steps", "2"], ["a"]),
        (["--steps", "9" * 30], []),
        (["--steps", "99"], []),
        (["--to", "0001"], ["a"]),
        (["--to", "0003_c"], ["a", "b", "c"]),
        (["--all"], []),
        (["--all", "--each"], []),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_rollback_undoes_as_many_as_it_is_told(run, path, options, left):
    """One by default, else so many, all after a migration, or all."""
    run("migrate")
    assert run("rollback", *options).code == 0
    assert tables(path) == left


def test_rollback_prints_what_it_undid_latest_first(run):
    """The lines are in the order in which it happened."""
    run("migrate")
    assert plain(run("rollback", "--all").out).splitlines() == [
        "rolled back 0003_c (1 statement, TIME)",
        "rolled back 0002_b (1 statement, TIME)",
        "rolled back 0001_a (1 statement, TIME)",
        "orchestrator.db: 3 migrations in TIME",
    ]
    assert run("rollback").out == "orchestrator.db: nothing to roll back\n"


def test_rollback_irreversible_migration_is_refused_whole(run, path, folder):
    """One without a rollback script stops the others too, and the message says what can be done."""
    (folder / "0002_b.rollback.sql").unlink()
    run("migrate")
    before = dump(path)
    refused(
        run("rollback", "--all"), "0002_b cannot be rolled back: it has no rollback script", "write a new migration"
    )
    assert dump(path) == before


def test_rollback_to_one_that_is_not_applied_is_refused(run, partly):
    """Only an applied migration can be gone back to."""
    refused(run("rollback", "--to", "0003"), "'0003'", "0001_a, 0002_b")


def test_redo_applies_the_edited_script(run, path, folder):
    """What was applied is undone by the ledger's text, and the file as it is now is applied."""
    run("migrate")
    write(folder, {"0003_c.sql": "CREATE TABLE d (id);", "0003_c.rollback.sql": "DROP TABLE d;"})
    outcome = run("redo")
    assert plain(outcome.out).splitlines() == [
        "rolled back 0003_c (1 statement, TIME)",
        "applied 0003_c (1 statement, TIME)",
        "orchestrator.db: 2 migrations in TIME",
    ]
    assert tables(path) == ["a", "b", "d"]


def test_redo_steps_undoes_all_before_it_applies(run):
    """Several are undone, the latest first, then applied in order; as JSON, each half has its direction."""
    run("migrate")
    results = run("redo", "--steps", "2", "--json").document["results"]
    assert [(result["direction"], result["id"]) for result in results] == [
        ("rollback", "0003_c"),
        ("rollback", "0002_b"),
        ("apply", "0002_b"),
        ("apply", "0003_c"),
    ]


def test_redo_nothing_applied_says_so(run, path):
    """With nothing applied there is nothing to redo."""
    path.touch()
    assert run("redo").out == "orchestrator.db: nothing to redo\n"


def test_rollback_to_another_schema_is_said_and_stays_known(run, folder):
    """It exits with 0, names what differs, and every command that looks says so from then on: all of them said 0."""
    write(folder, {"0003_c.rollback.sql": "DROP TABLE c; DROP TABLE a; CREATE TABLE a (id REAL);"})
    run("migrate")
    undone = run("rollback")
    assert undone.code == 0
    warning = (
        "warning: the schema is not what the applied migrations make (`dao schema diff`):\n  table a: column id is REAL"
    )
    assert warning in undone.err
    told = run("migrate", "--to", "0002")
    assert (told.code, told.out) == (0, "orchestrator.db: nothing to apply\n")
    assert warning in told.err
    drift = run("status", "--json").document["drift"]
    assert run("migrate", "--to", "0002", "--json").document["drift"] == drift
    assert run("status", "--exit-code").code == run("health").code == run("wait", "--timeout", "0").code == 4
    assert run("migrate").err.endswith(undone.err.partition("warning")[2])
    assert run("rollback", "--json").document["drift"] == drift


# ---------------------------------------------------------------- init, reset


def test_init_creates_migrates_and_ends_with_the_status(run, path):
    """What it prints is the status, with everything applied."""
    outcome = run("init")
    assert outcome.code == 0
    assert outcome.out == run("status").out
    assert plain(outcome.out).splitlines()[-1] == "orchestrator.db: 3 applied"
    assert tables(path) == ["a", "b", "c"]
    again = run("init", "--json")
    assert again.document == run("status", "--json").document | {"created": False}


def test_reset_confirmed_drops_the_rows_and_migrates_again(run, path):
    """Every table is new; only what the migrations put there is in it."""
    run("migrate")
    query(path, "INSERT INTO a VALUES (42)")
    outcome = run("reset", "--yes")
    assert plain(outcome.out).splitlines()[-1] == "orchestrator.db: 3 migrations in TIME"
    assert query(path, "SELECT id FROM a UNION ALL SELECT id FROM b") == [(2,)]


def test_reset_without_a_terminal_refuses_until_it_is_confirmed(run, path):
    """Nobody can be asked, so nothing is dropped; the message names the database and the option."""
    run("migrate")
    query(path, "INSERT INTO a VALUES (42)")
    before = dump(path)
    refused(run("reset"), "orchestrator.db", "no terminal to ask on", "--yes")
    assert run("reset", "--quiet").code == 1
    assert run("reset", "--json").document["error"]["type"] == "MigrationError"
    assert dump(path) == before


@pytest.mark.parametrize("theirs", ["table theirs", "view theirs"])
def test_reset_database_with_tables_of_others_is_left_alone(run, path, theirs):
    """A table or view that no migration made stops it, and is named."""
    run("migrate")
    query(path, f"CREATE {theirs} " + ("(id)" if "table" in theirs else "AS SELECT 1"))
    before = dump(path)
    refused(run("reset", "--yes"), str(path), theirs, "othing was changed")
    assert dump(path) == before


def test_reset_database_that_is_not_ours_is_left_alone(run, path):
    """A database without a ledger is somebody else's, even if its tables are called as ours."""
    query(path, "CREATE TABLE a (id)")
    before = dump(path)
    refused(run("reset", "--yes"), "table a")
    assert dump(path) == before


def test_reset_database_that_does_not_exist_is_created(run, path):
    """Nothing to drop, all to apply."""
    assert run("reset", "--yes").code == 0
    assert tables(path) == ["a", "b", "c"]
