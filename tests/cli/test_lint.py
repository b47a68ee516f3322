"""`dao lint`: what it prints, its exit codes, its documents, and that it needs no database."""

from __future__ import annotations

import json

import pytest

from dao.migrate.linting import RULES
from tests.cli.calls import refused
from tests.folders import write

SILENT = "-- lint: ignore M017 it is the first\n\n"


@pytest.fixture
def one(folder):
    """A folder with one migration, which is all right."""
    for path in folder.iterdir():
        path.unlink()
    return write(
        folder, {"0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);", "0001_a.rollback.sql": "DROP TABLE a;"}
    )


def test_lint_good_folder_says_so_and_opens_no_database(run, folder, path, monkeypatch):
    """Nothing is found, the exit code is 0, and no database is made, whatever the URL says."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///:memory:")
    assert run("lint").out == f"{folder.name}: nothing found\n"
    assert run("lint", "--strict").code == 0
    assert not path.exists()


def test_lint_finding_is_one_line_and_an_error_fails(run, one):
    """A finding stands in a line with its place, its rule, what it is and what to do; then the exit code is 5."""
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    outcome = run("lint")
    assert outcome.code == 5
    assert outcome.out.splitlines() == [
        (
            "three/0002_b.sql:3: error M002 drop-table: a is dropped with all its rows; copy the rows first, or declare it at "
            "the top of the file: `-- allows: drop table NAME`"
        ),
        "three: 1 error, 1 silenced",
    ]
    assert outcome.err == ""
    assert run("lint", "--quiet").out == ""
    assert run("lint", "--quiet").code == 5


@pytest.mark.parametrize(
    ("script", "code", "strict"),
    [
        ("CREATE INDEX i ON a (id);", 0, 0),
        ("UPDATE a SET id = 1;", 0, 5),
        ("DROP TABLE a;", 5, 5),
        ("-- lint: ignore M002 it is empty\nDROP TABLE a;", 0, 0),
    ],
    ids=["note", "warning", "error", "silenced"],
)
def test_lint_exit_code_is_that_of_the_gravest(run, one, script, code, strict):
    """Errors fail, warnings with --strict, notes and what is silenced never."""
    write(one, {"0002_b.sql": SILENT + script})
    assert (run("lint").code, run("lint", "--strict").code) == (code, strict)


def test_lint_json_is_one_document_with_everything(run, one):
    """The document holds each finding, silenced ones too, and whether it passes."""
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    document = run("lint", "--json").document
    assert (document["migrations"], document["ok"]) == ("three", False)
    assert [(f["code"], f["line"], f["silenced"]) for f in document["findings"]] == [
        ("M017", 1, "it is the first"),
        ("M002", 3, None),
    ]
    finding = document["findings"][1]
    assert (finding["path"], finding["migration"]) == ("three/0002_b.sql", "0002_b")
    assert (finding["name"], finding["severity"]) == ("drop-table", "error")


def test_lint_sarif_goes_to_a_file_or_to_the_output(run, one, workplace):
    """The report is written beside the lines, or instead of them; the exit code is the same."""
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    outcome = run("lint", "--sarif", "report.sarif")
    assert outcome.code == 5
    assert "drop-table" in outcome.out
    printed = run("lint", "--sarif", "-")
    assert printed.code == 5
    assert printed.document == json.loads((workplace / "report.sarif").read_text())
    assert [result["ruleId"] for result in printed.document["runs"][0]["results"]] == ["M017", "M002"]


def test_lint_rules_prints_each(run, folder):
    """The rules are there for people and machines, without a folder to lint."""
    text = run("lint", "--rules", "--migrations", "nowhere").out
    for rule in RULES:
        assert f"{rule.code} {rule.name} ({rule.severity})\n    {rule.reason}\n    To do: {rule.remedy}.\n" in text
    assert [rule["code"] for rule in run("lint", "--rules", "--json").document["rules"]] == [
        rule.code for rule in RULES
    ]


def test_lint_what_cannot_be_read_or_written_is_refused(run, folder):
    """A folder that is not there, and a report that cannot be written, have a message; two documents at once are misuse."""
    refused(run("lint", "--migrations", "nowhere"), "nowhere: the migrations folder does not exist")
    outcome = run("lint", "--sarif", "nowhere/report.sarif")
    assert (outcome.code, outcome.err.startswith("error: ")) == (1, True)
    assert "the report cannot be written to nowhere/report.sarif: No such file or directory" in outcome.err
    outcome = run("lint", "--json", "--sarif", "-")
    assert (outcome.code, outcome.document["error"]["type"]) == (2, "UsageError")
    assert "write the report to a file" in outcome.err
