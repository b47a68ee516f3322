"""`dao rehearse`: what it prints, its exit codes, its JSON, and that it shows its progress to a person only."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.calls import misused, plain, refused
from tests.folders import ALONE, IDS, query, write

BIN = Path(__file__).parents[2] / "bin" / "rehearse"
#: Rebuilds a, to which x refers, and loses a row of it, a constraint and an index.
REBUILD = """
BEGIN;
CREATE TABLE new_a (id INTEGER PRIMARY KEY);
INSERT INTO new_a SELECT id FROM a WHERE id > 1;
DROP TABLE a;
ALTER TABLE new_a RENAME TO a;
COMMIT;
"""


@pytest.fixture
def held(partly):
    """A database in which two migrations are applied, with rows, and a table that belongs to the first."""
    query(partly, "INSERT INTO a VALUES (1), (2), (3)")
    query(partly, "CREATE INDEX a_id ON a (id); CREATE TABLE x (a REFERENCES a ON DELETE CASCADE)")
    query(partly, "INSERT INTO x VALUES (2), (2), (3)")
    return partly


def test_rehearse_prints_a_block_for_each_and_the_verdict(run, path):
    """One line for each migration, what it makes below it, and at the end what `migrate` would do."""
    outcome = run("rehearse")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.sub(r"[0-9.]+ KB", "SIZE", plain(outcome.out)) == (
        "applies    0001_a (1 statement, TIME)\n"
        "    makes a\n"
        "    the file grows by SIZE to SIZE\n"
        "applies    0002_b (2 statements, TIME)\n"
        "    makes b with 1 row\n"
        "    the file grows by SIZE to SIZE\n"
        "applies    0003_c (1 statement, TIME)\n"
        "    makes c\n"
        "    the file grows by SIZE to SIZE\n"
        "orchestrator.db: would apply 3 migrations in TIME, holding the write lock for about TIME (measured in memory, "
        "where it is faster than on a disk)\n"
    )
    assert not path.exists()


def test_rehearse_on_disk_says_so(run, partly):
    """With a limit of nothing, the copy is on the disk, which the last line tells."""
    outcome = run("rehearse", "--memory-limit", 0)
    assert outcome.code == 0
    assert outcome.out.endswith("(measured on the same disk, without the snapshot that comes before)\n")


def test_rehearse_without_snapshots_says_nothing_of_them(run, partly, monkeypatch):
    """Where none is taken, the lock is not held for one."""
    monkeypatch.setenv("DATABASE_SNAPSHOTS", "0")
    assert run("rehearse").out.endswith("(measured in memory, where it is faster than on a disk)\n")


def test_rehearse_nothing_pending_says_so(run, partly, folder):
    """A success with nothing to show."""
    run("migrate")
    outcome = run("rehearse")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "orchestrator.db: nothing to apply, so there is nothing to rehearse\n"
    document = run("rehearse", "--json").document
    assert (document["ok"], document["migrations"]) == (True, [])


def test_rehearse_loss_is_shown_with_what_to_declare_and_exits_with_5(run, folder, held):
    """All that a careless rebuild does, and that `migrate` would refuse it."""
    write(folder, {"0003_c.sql": REBUILD})
    outcome = run("rehearse")
    assert outcome.code == 5
    lines = plain(outcome.out).splitlines()
    assert lines[:5] == [
        "refused    0003_c (6 statements, TIME)",
        "    rebuilds a",
        "    a: 3 -> 2 rows",
        "    takes 1 row of a (id = 1)",
        "    LOSES a: 1 row that no DELETE of the script names",
    ]
    assert (
        "      `dao migrate` refuses that, unless the file says `-- allows: data-loss a`, or it is told --allow-loss"
        in lines
    )
    assert "    the rebuild loses: index a_id is missing" in lines
    assert (
        "    with foreign keys enforced, as in other tools, it would also take 3 rows of x "
        "(rowid = 1; rowid = 2; rowid = 3)" in lines
    )
    assert "    ignored BEGIN: the run is one transaction already" in lines
    assert outcome.err == (
        "error: `dao migrate` would REFUSE to lose data: 0003_c. Nothing was changed; mend the scripts, or let them "
        "declare it\n"
    )
    assert query(held, "SELECT count(*) FROM a") == [(3,)]
    assert run("migrate").code == 1


def test_rehearse_declared_loss_is_no_failure(run, folder, held):
    """A declared loss is shown, and `migrate` does it."""
    write(folder, {"0003_c.sql": "-- allows: drop table x\nDROP TABLE x;"})
    outcome = run("rehearse")
    assert outcome.code == 0
    assert "    drops x (3 rows)\n    loses x: the table is dropped with 3 rows, as is allowed\n" in outcome.out
    assert run("migrate").code == 0


def test_rehearse_failure_shows_the_first_ones_the_place_and_the_rest(run, folder):
    """Migrations that apply come first, then the failure with its place, then those not tried; exit code 5."""
    write(folder, {"0002_b.sql": "\nINSERT INTO nowhere VALUES (1);"})
    outcome = run("rehearse")
    assert outcome.code == 5
    assert plain(outcome.out).splitlines()[0] == "applies    0001_a (1 statement, TIME)"
    assert (
        "fails      0002_b\n    three/0002_b.sql:2: no such table: nowhere\n        INSERT INTO nowhere VALUES (1);\n"
        "    No migration before 0002_b makes it. Correct the name; or, if something else makes it, such as the "
        "program itself or a schema that is elsewhere, have that done first\n"
        "not tried  0003_c\n"
    ) in outcome.out
    assert outcome.err == ("error: `dao migrate` would FAIL: 0002_b. Nothing was changed; mend it and rehearse again\n")


def test_rehearse_round_trip_counts_and_names_the_irreversible(run, folder):
    """How many were undone and applied again; what cannot be undone is named and no failure."""
    (folder / "0001_a.rollback.sql").unlink()
    outcome = run("rehearse", "--round-trip")
    assert outcome.code == 0
    assert "irreversible  0001_a\nround trip: 2 migrations undone, 2 applied again\n" in outcome.out


def test_rehearse_round_trip_difference_exits_with_5(run, folder):
    """Differences are shown below their migration."""
    write(folder, {"0002_b.rollback.sql": "ALTER TABLE b RENAME TO bb;"})
    outcome = run("rehearse", "--round-trip", "--to", "0002")
    assert outcome.code == 5
    assert (
        "differs    0002_b\n    the rollback does not give back what was there before\n      table bb is unexpected\n"
        in outcome.out
    )
    assert outcome.err == "error: the round trip does not come back: 0002_b. Mend the rollback scripts\n"


def test_rehearse_json_is_one_document(run, folder, held):
    """Machines get all of it: for each migration, and for the whole."""
    write(folder, {"0003_c.sql": REBUILD, "0003_c.rollback.sql": ""})
    outcome = run("rehearse", "--json", "--round-trip")
    assert outcome.code == 5
    document = outcome.document
    assert document.keys() == {
        "database",
        "exists",
        "ok",
        "in_place",
        "in_memory",
        "bytes",
        "copy_seconds",
        "seconds",
        "lock_seconds",
        "migrations",
        "not_reached",
        "round_trip",
    }
    (one,) = document["migrations"]
    assert one.keys() == {
        "id",
        "set",
        "path",
        "ok",
        "seconds",
        "lock_seconds",
        "statements",
        "notices",
        "failure",
        "rebuilt",
        "lost",
        "misplaced",
        "rows",
        "gone",
        "losses",
        "undeclared",
        "cascades",
        "enforced_failure",
        "violations",
        "bytes_before",
        "bytes_after",
        "free_after",
        "locks",
        "lasting",
        "tried",
        "why",
    }
    assert one["gone"] == [{"table": "a", "rows": 1, "keys": [{"id": 1}]}]
    assert one["rows"] == [{"table": "a", "before": 3, "after": 2, "now": None}]
    assert one["undeclared"] == [{"kind": "rows", "table": "a", "rows": 1, "column": None}]
    assert document["round_trip"] == {
        "undone": [],
        "applied_again": [],
        "irreversible": ["0003_c"],
        "failures": [],
        "ok": True,
    }


def test_rehearse_quiet_prints_failures_only(run, folder):
    """With --quiet a success prints nothing, and a failure the verdict."""
    assert run("rehearse", "--quiet").out == ""
    write(folder, {"0003_c.sql": "nonsense;"})
    outcome = run("rehearse", "--quiet")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err.startswith("error: `dao migrate` would FAIL: 0003_c")


def test_rehearse_mismatch_is_refused_as_in_migrate(run, folder, partly):
    """Where files and database do not agree, the reason is given and nothing rehearsed; the order may be allowed."""
    write(folder, {"0000_z.sql": "CREATE TABLE z (id);"})
    refused(run("rehearse"), "0000_z", "--allow-out-of-order")
    outcome = run("rehearse", "--allow-out-of-order", "--steps", 1)
    assert outcome.code == 0
    assert "applies    0000_z" in outcome.out


@pytest.mark.parametrize("arguments", [["--memory-limit", "-1"], ["--steps", "-1"], ["--memory-limit", "much"]])
def test_rehearse_bad_numbers_are_refused(run, arguments):
    """A number that means nothing is wrong usage."""
    misused(run("rehearse", *arguments), arguments[0])


def test_rehearse_at_a_terminal_shows_what_runs_and_leaves_the_results(terminal, path):
    """A bar while it lasts, then the results in colour."""
    screen = terminal("rehearse")
    assert screen.close() == 0
    assert re.search(r"copying the database|applying 000\d_[abc]", screen.shown)
    assert "\x1b[32mapplies    0001_a" in screen.shown
    assert "would apply 3 migrations" in screen.shown
    assert not path.exists()


def test_rehearse_ctrl_c_removes_the_copy(terminal, folder, partly):
    """In the middle of a statement that never ends, Ctrl-C ends it, and no file is left."""
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000)"
    endless = f"{numbers} SELECT count(*) FROM n;"
    write(folder, {"0003_c.sql": endless})
    screen = terminal("rehearse", "--memory-limit", "0")
    screen.until("applying 0003_c")
    screen.interrupt()
    assert screen.close() == 130
    assert not [name.name for name in partly.parent.iterdir() if ".partial" in name.name]
    assert query(partly, "SELECT count(*) FROM b") == [(1,)]


def test_bin_rehearse_is_the_command(workplace, partly):
    """The script for deployments does the same."""
    done = subprocess.run([str(BIN)], cwd=workplace, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert plain(done.stdout).splitlines()[0] == f"applies    {IDS[2]} (1 statement, TIME)"


# ---------------------------------------------------------------- PostgreSQL


def test_rehearse_on_a_server_says_first_that_it_takes_locks_there(run, new_postgresql_url, folder, monkeypatch):
    """It warns, shows which locks, what stays and what it did not try, and changes nothing."""
    monkeypatch.setenv("DATABASE_URL", new_postgresql_url)
    assert run("migrate", "--to", "0001").code == 0
    write(
        folder,
        {
            "0002_b.sql": "ALTER TABLE a ADD x serial;",
            "0003_c.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY i ON a (x);",
            "0004_d.sql": "CREATE SEQUENCE s; DROP SEQUENCE s;",
        },
    )
    outcome = run("rehearse")
    assert outcome.code == 0
    assert re.fullmatch(
        r"warning: runs in postgresql://\S+ itself, in a transaction that is rolled back: until then it keeps the "
        r"locks that the scripts take\n",
        outcome.err,
    )
    lines = plain(outcome.out).splitlines()
    assert lines[:4] == [
        "applies    0002_b (1 statement, TIME)",
        "    takes AccessExclusiveLock on a for up to TIME: nobody else can read it or write to it",
        "not tried  0003_c: it runs outside of a transaction, and so would stay",
        "applies    0004_d (2 statements, TIME)",
    ]
    assert lines[4].endswith(
        "would apply 2 migrations in TIME, holding locks for up to TIME (measured there, and rolled back); 1 not tried"
    )
    document = run("rehearse", "--json", "--round-trip").document
    assert (document["in_place"], document["migrations"][1]["tried"]) == (True, False)
    assert document["migrations"][0]["locks"][0]["mode"] == "AccessExclusiveLock"
    assert document["round_trip"]["undone"] == []
    refused(run("rehearse", "--memory-limit", 1), "a rehearsal makes no copy", "leave --memory-limit out")
    assert run("status", "--json").document["migrations"][1]["state"] == "pending"


def test_rehearse_that_can_try_nothing_says_so_and_exits_with_5(run, new_postgresql_url, folder, monkeypatch):
    """It said "would apply 0 migrations", in green, and a pipeline went on."""
    monkeypatch.setenv("DATABASE_URL", new_postgresql_url)
    assert run("migrate", "--to", "0001").code == 0
    write(folder, {"0002_b.sql": f"{ALONE}CREATE INDEX CONCURRENTLY i ON a (id);"})
    outcome = run("rehearse", "--to", "0002")
    assert outcome.code == 5
    assert outcome.out == "not tried  0002_b: it runs outside of a transaction, and so would stay\n"
    assert "nothing was rehearsed, so nothing is known of 1 migration" in outcome.err
    assert run("rehearse", "--to", "0002", "--json").document["ok"] is False
