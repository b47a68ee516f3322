"""The command that looks for what is wrong in a database."""

from __future__ import annotations

import json

import dao
from tests.cli.calls import refused
from tests.folders import query, write


def test_a_sound_database_is_one_line_and_code_0(run, path, folder):
    """Nothing else is printed."""
    run("migrate")
    outcome = run("check")
    assert (outcome.code, outcome.out, outcome.err) == (0, "orchestrator.db: sound\n", "")
    assert run("check", "--json").document == {"database": "orchestrator.db", "ok": True, "faults": [], "unknown": []}
    assert run("check", "--quiet").out == ""


def test_each_fault_is_a_line_with_its_rows_below_and_the_code_is_5(run, path, folder):
    """Ten rows are shown of each, all are counted."""
    run("migrate")
    query(path, "CREATE TABLE child (id INTEGER PRIMARY KEY, of INTEGER REFERENCES a (id))")
    query(
        path,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) "
        "INSERT INTO child SELECT i, i FROM n",
    )
    outcome = run("check")
    assert outcome.code == 5
    lines = outcome.out.splitlines()
    assert lines[0] == "foreign key: child: of refers to a row of a that does not exist (12 rows)"
    assert lines[1] == "  id = 1, of = 1"
    assert lines[11:] == ["  … and 2 more (--json has a hundred)"]
    assert outcome.err == "error: orchestrator.db: not sound (1 fault)\n"
    document = run("check", "--json")
    assert document.code == 5
    (fault,) = document.document["faults"]
    assert (fault["kind"], fault["name"], fault["count"], len(fault["rows"])) == ("foreign key", "child", 12, 12)


def test_a_missing_database_is_refused(run, path, folder):
    """It is not made, and not called sound."""
    refused(run("check"), "does not exist", "nothing to check")
    assert not path.exists()


def test_long_value_of_a_row_is_cut_short_and_none_is_null(run, path, folder):
    """A blob of 100 kB was printed whole, ten times for each fault, and NULL as Python's None."""
    write(folder, {"0004_d.sql": "CREATE TABLE d (id INTEGER PRIMARY KEY, x, y, CHECK (y IS NULL AND length(x) < 5));"})
    assert run("migrate").code == 0
    query(path, "PRAGMA ignore_check_constraints = on; INSERT INTO d VALUES (1, zeroblob(100000), NULL)")
    outcome = run("check")
    assert outcome.code == 5
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("  id = 1, ")]
    assert row.endswith(" …, y = NULL")
    assert len(row) < 300


def test_a_row_with_infinity_is_valid_json(run, path, folder):
    """It was written as `Infinity`, which is no JSON: most readers of it fail."""
    run("migrate")
    query(path, "CREATE TABLE t (a REAL CHECK (a < 9))")
    query(path, "PRAGMA ignore_check_constraints = on; INSERT INTO t VALUES (9e999)")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(run("check", "--json").out, parse_constant=refuse)
    assert document["faults"][0]["rows"] == [{"rowid": 1, "a": "Infinity"}]


def test_check_of_a_database_on_a_server(run, new_postgresql_url, monkeypatch):
    """Rows, indexes, drift and the ledger, in the same words, with the same exit code; a warning is no fault."""
    monkeypatch.setenv("DATABASE_URL", new_postgresql_url)
    assert run("migrate").code == 0
    outcome = run("check")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: cannot tell whether tables and indexes are intact: the extension amcheck")
    with dao.connect(new_postgresql_url) as connection:
        connection.execute("ALTER TABLE b ADD CONSTRAINT above_two CHECK (id > 2) NOT VALID; DROP TABLE c")
    outcome = run("check")
    assert outcome.code == 5
    assert outcome.out.splitlines() == [
        "constraint: rows of b break constraint above_two (1 row)",
        "  id = 2",
        "drift: table b: constraint above_two is unexpected",
        "drift: table c is missing",
    ]
    assert outcome.err.endswith("not sound (3 faults)\n")
    document = run("check", "--json").document
    assert document["faults"][0]["rows"] == [{"id": 2}]
    assert run("status", "--exit-code").code == 4
    assert run("schema", "diff").code == 5
