"""`dao verify`: what it prints, its exit codes, and which database it reads."""

from __future__ import annotations

import hashlib

import pytest

from tests.cli.calls import misused, refused
from tests.folders import query, write


def test_verify_prints_a_line_for_each_migration_and_a_total(run, path):
    """Without a database, and without making one, it says of each migration that it is fine."""
    outcome = run("verify")
    assert outcome.code == 0
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0] == "ok            0001_a"
    assert lines[1] == "    generated rows: rollback: a: the table is dropped with 3 rows"
    assert [line.split()[-1] for line in lines if line.startswith("ok ")] == ["0001_a", "0002_b", "0003_c"]
    assert lines[-1].startswith("3 migrations verified in ")
    assert not path.exists()


def test_verify_failure_is_shown_and_exits_with_5(run, folder):
    """A problem stands below its migration, once, with its differences; the total goes to standard error."""
    write(folder, {"0002_b.rollback.sql": "ALTER TABLE b RENAME TO bb;"})
    outcome = run("verify")
    assert outcome.code == 5
    assert "failed        0002_b\n" in outcome.out
    assert (
        outcome.out.count("empty database: the schema after the rollback is another\n        table bb is unexpected\n")
        == 1
    )
    assert outcome.out.count("table bb is unexpected") == 1
    assert outcome.err == "error: 1 of 3 migrations failed: 0002_b. Mend them before they are released\n"


def test_verify_failing_script_names_file_and_line(run, folder):
    """A script that does not run is no traceback: its file, line and statement are shown."""
    write(folder, {"0003_c.sql": "\nCREATE TABLE c (id INTEGER PRIMARY KEY, PRIMARY KEY (id));"})
    outcome = run("verify")
    assert outcome.code == 5
    assert 'three/0003_c.sql:2: table "c" has more than one primary key' in outcome.out


def test_verify_irreversible_is_shown_and_is_no_failure(run, folder):
    """A migration without a rollback is named as such."""
    (folder / "0002_b.rollback.sql").unlink()
    outcome = run("verify")
    assert outcome.code == 0
    assert "irreversible  0002_b\n    empty database: irreversible: it has no rollback script\n" in outcome.out


def test_verify_json_is_one_document_with_every_stage(run, folder):
    """Machines get everything that was found, by migration and stage."""
    write(folder, {"0003_c.rollback.sql": "DROP TABLE b;"})
    outcome = run("verify", "--json")
    assert outcome.code == 5
    document = outcome.document
    assert (document["ok"], document["failed"], document["database"]) == (False, ["0003_c"], None)
    assert [(one["id"], one["stage"], one["ok"]) for one in document["verifications"]] == [
        (id, stage, id != "0003_c") for id in ("0001_a", "0002_b", "0003_c") for stage in ("empty", "generated rows")
    ]
    last = document["verifications"][-1]
    keys = {"id", "set", "stage", "ok", "problems", "warnings", "losses", "unfilled", "reversible", "tried", "seconds"}
    assert last.keys() == keys
    assert any("table b is missing" in problem for problem in last["problems"])


def test_verify_tells_what_was_not_tried_from_what_failed(run, folder):
    """One script that fails on a copy of the data made all after it count as failed, and be advised to be mended."""
    write(folder, {"0002_b.sql": "CREATE TABL b;"})
    outcome = run("verify")
    assert outcome.code == 5
    assert "failed        0002_b\n" in outcome.out
    assert (
        "not tried     0003_c\n    empty database: not tried: 0002_b comes before it here, and fails\n" in outcome.out
    )
    assert outcome.err == (
        "error: 1 of 3 migrations failed: 0002_b; 1 migration after that not tried. "
        "Mend them before they are released\n"
    )
    document = run("verify", "--json").document
    assert (document["ok"], document["failed"], document["not_tried"]) == (False, ["0002_b"], ["0003_c"])


def test_verify_quiet_prints_failures_only(run, folder):
    """With --quiet a success prints nothing, and a failure its total."""
    assert run("verify", "--quiet").out == ""
    write(folder, {"0003_c.rollback.sql": "DROP TABLE b;"})
    outcome = run("verify", "--quiet")
    assert (outcome.code, outcome.out) == (5, "")
    assert "0003_c" in outcome.err


@pytest.mark.parametrize("value", ["mysql://nobody@nowhere/none", "sqlite:///:memory:", "nonsense"])
def test_verify_without_copy_does_not_care_for_the_database(run, monkeypatch, value):
    """DATABASE_URL may say anything, as long as no database is asked for."""
    monkeypatch.setenv("DATABASE_URL", value)
    assert run("verify").code == 0


def test_verify_copy_reads_the_configured_database_only(run, partly, folder):
    """With --copy the real rows are tried, too, and the database is what it was."""
    query(partly, "INSERT INTO b VALUES (4), (5)")
    write(
        folder,
        {"0003_c.sql": "CREATE TABLE c (id INTEGER PRIMARY KEY CHECK (id <> 5));\nINSERT INTO c SELECT id FROM b;"},
    )
    before = hashlib.sha256(partly.read_bytes()).digest()
    outcome = run("verify", "--copy")
    assert outcome.code == 5
    assert "copy of the database: apply fails: " in outcome.out
    assert "CHECK constraint failed: id <> 5" in outcome.out
    assert "copy of the database: rollback: b: the table is dropped with 3 rows" in outcome.out
    assert hashlib.sha256(partly.read_bytes()).digest() == before


def test_verify_copy_of_a_database_that_does_not_exist_is_an_error(run, path):
    """It is not made; exit code 1."""
    outcome = run("verify", "--copy")
    assert outcome.code == 1
    assert "orchestrator.db does not exist" in outcome.err
    assert not path.exists()


def test_verify_database_without_copy_is_wrong_usage(run, partly):
    """A database that would not be read is not accepted in silence."""
    outcome = run("verify", "--database", f"sqlite:///{partly}")
    assert outcome.code == 2
    assert "--copy" in outcome.err


def test_verify_rows_is_how_many_each_table_gets(run):
    """The number of generated rows can be chosen."""
    assert "the table is dropped with 7 rows" in run("verify", "--rows", 7).out
    assert run("verify", "--rows", 0).code == 2


def test_verify_since_and_latest_try_those_only(run):
    """Of a long history those that are new are tried, by the words that lint has."""
    assert [line for line in run("verify", "--since", "0001").out.splitlines() if line.startswith("ok ")] == [
        "ok            0002_b",
        "ok            0003_c",
    ]
    assert "1 migration verified" in run("verify", "--latest").out
    assert "2 migrations verified" in run("verify", "--latest", "2").out
    outcome = run("verify", "--latest", "--since", "0001")
    assert (outcome.code, "exclude each other" in outcome.err) == (2, True)
    outcome = run("verify", "--since", "0009")
    assert (outcome.code, "0009" in outcome.err) == (1, True)


def test_verify_fixtures_are_rows_of_the_users_own(run, folder):
    """Rows from a file are met by the scripts, and a file that is none is an error."""
    write(folder, {"0002_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY);\nINSERT INTO b SELECT max(id) FROM a;"})
    write(folder.parent, {"rows.sql": "INSERT INTO a VALUES (42), (43);"})
    outcome = run("verify", "--fixtures", folder.parent / "rows.sql")
    assert outcome.code == 0
    outcome = run("verify", "--fixtures", folder.parent / "none.sql")
    assert (outcome.code, "none.sql: cannot be read" in outcome.err) == (1, True)


# ---------------------------------------------------------------- PostgreSQL


def test_verify_of_migrations_for_postgresql_runs_them_on_a_server(run, server, workplace, monkeypatch):
    """DATABASE_URL names it; what is only SQLite's is refused by name, and a folder is not taken for the other's."""
    monkeypatch.setenv("DATABASE_URL", server.url)
    folder = write(
        workplace / "postgresql",
        {"1_a.sql": "CREATE TABLE a (id bigserial);", "1_a.rollback.sql": "DROP TABLE a; CREATE TABLE b (id integer);"},
    )
    outcome = run("verify", "--migrations", folder.name)
    assert (outcome.code, outcome.out.splitlines()) == (
        5,
        [
            "failed        1_a",
            "    empty database: the schema after the rollback is another",
            "        table b is unexpected",
        ],
    )
    write(folder, {"1_a.rollback.sql": "DROP TABLE a;"})
    assert run("verify", "--migrations", folder.name).code == 0
    assert run("verify", "--migrations", folder.name, "--database", server.url, "--json").document["failed"] == []
    refused(run("verify", "--migrations", folder.name, "--copy"), "verified in a database of their own", "--round-trip")
    write(folder, {"2_b.sql": "ALTER TABLE a ADD t text;\nUPDATE a SET t = 'x';", "2_b.rollback.sql": "SELECT 1;"})
    write(workplace, {"rows.sql": "INSERT INTO a VALUES (7);", "other.sql": "INSERT INTO b VALUES (1);"})
    found = run("verify", "--migrations", folder.name, "--fixtures", "rows.sql", "--json").document
    assert [(one["id"], one["stage"]) for one in found["verifications"] if one["ok"]] == [
        ("1_a", "empty"),
        ("1_a", "generated rows"),
    ]
    assert found["failed"] == ["2_b"]
    write(folder, {"2_b.rollback.sql": "ALTER TABLE a DROP t;"})
    refused(run("verify", "--migrations", folder.name, "--fixtures", "other.sql"), "other.sql:1: no migration leaves")
    assert run("verify").code == 0  # the folder of the three tables has statements for either
    monkeypatch.delenv("DATABASE_URL")
    misused(run("verify", "--migrations", folder.name), "postgresql has migrations for PostgreSQL, by its name")
