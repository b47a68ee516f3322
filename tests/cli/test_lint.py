"""`dao lint`: what it prints, its exit codes, its documents, and that it needs no database."""

from __future__ import annotations

import json
import subprocess

import pytest

from dao.migrate.linting import RULES
from tests.cli.calls import misused, refused
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
    assert run("lint").out == f"{folder.name}: nothing found; judged 3 of 3 migrations (all)\n"
    assert run("lint", "--strict").code == 0
    assert not path.exists()


def test_lint_finding_is_one_line_and_an_error_fails(run, one):
    """A finding stands in a line with its place, its rule, what it is and what to do; then the exit code is 5."""
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    outcome = run("lint")
    assert outcome.code == 5
    assert outcome.out.splitlines() == [
        (
            "three/0002_b.sql:3: error M002 drop-table: a is dropped with all its rows; "
            "copy the rows first, or declare it at "
            "the top of the file: `-- allows: drop table NAME`"
        ),
        "three: 1 error, 1 silenced; judged 2 of 2 migrations (all)",
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
    judged = {"judged": ["0001_a", "0002_b"], "total": 2, "selection": "all", "failed": []}
    assert judged.items() <= document.items()
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
    """A missing folder and an unwritable report have a message; two documents at once are misuse."""
    refused(run("lint", "--migrations", "nowhere"), "nowhere: the migrations folder does not exist")
    outcome = run("lint", "--sarif", "nowhere/report.sarif")
    assert (outcome.code, outcome.err.startswith("error: ")) == (1, True)
    assert "the report cannot be written to nowhere/report.sarif: No such file or directory" in outcome.err
    outcome = run("lint", "--json", "--sarif", "-")
    assert (outcome.code, outcome.document["error"]["type"]) == (2, "UsageError")
    assert "write the report to a file" in outcome.err


# ---------------------------------------------------------------- which are judged

LAST = "three: 1 error, 1 silenced; judged 1 of 2 migrations "


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "0001"], LAST + "(after 0001_a)"),
        (["--latest"], LAST + "(the latest)"),
        (["--latest", "--strict"], LAST + "(the latest)"),
        (["--latest", "2"], "three: 1 error, 1 silenced; judged 2 of 2 migrations (the latest)"),
        (["--all"], "three: 1 error, 1 silenced; judged 2 of 2 migrations (all)"),
        (
            ["--since", "0002_b"],
            "three: nothing found; judged 0 of 2 migrations (after 0002_b); `dao lint --all` judges all",
        ),
    ],
)
def test_lint_says_which_migrations_it_has_judged(run, one, options, found):
    """The last line has their number, that of all, and the choice; the whole history was judged each time."""
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    outcome = run("lint", *options)
    assert outcome.out.splitlines()[-1] == found
    assert outcome.code == (5 if "1 error" in found else 0)


def test_lint_by_a_database_needs_its_url_on_the_command_line(run, one, path, monkeypatch):
    """Only one that is named says what is released, not DATABASE_URL: what is judged does not depend on the machine."""
    url = f"sqlite:///{path.name}"
    run("migrate", "--database", url)
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    monkeypatch.setenv("DATABASE_URL", url)
    assert run("lint").out.splitlines()[-1].endswith("judged 2 of 2 migrations (all)")
    outcome = run("lint", "--database", url)
    assert outcome.out.splitlines()[-1] == LAST + f"(not applied in {path.name}, or changed since)"
    assert run("lint", "-d", url, "--json").document["judged"] == ["0002_b"]


def test_lint_in_a_clone_judges_what_its_default_branch_does_not_have(run, one, workplace, monkeypatch):
    """Without any option, on every machine alike; --all judges what is released, too."""

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=work")
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for arguments in (
        ["init"],
        ["add", "."],
        ["commit", "-m", "a"],
        ["update-ref", "refs/remotes/origin/main", "HEAD"],
    ):
        git(*arguments)
    assert run("lint").out == (
        "three: nothing found; judged 0 of 1 migration (not on origin/main, or changed since); "
        "`dao lint --all` judges all\n"
    )
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    assert run("lint").out.splitlines()[-1] == LAST + "(not on origin/main, or changed since)"
    assert run("lint", "--git-base", "work").out.splitlines()[-1] == LAST + "(not on work, or changed since)"
    assert run("lint", "--all").out.splitlines()[-1].endswith("judged 2 of 2 migrations (all)")
    refused(run("lint", "--git-base", "nope"), "git knows no branch or commit 'nope'", "fetch it")


@pytest.mark.parametrize(
    "options",
    [
        ["--all", "--latest"],
        ["--since", "0001", "--git-base", "main"],
        ["--latest", "1", "--database", "sqlite:///x.db"],
        ["--write-baseline", "x", "--baseline", "x"],
        ["--write-baseline", "x", "--latest"],
        ["--write-baseline", "x", "--sarif", "y"],
    ],
)
def test_lint_choices_exclude_each_other(run, one, workplace, options):
    """Two that say what is judged are misuse, and so is a baseline of a part."""
    misused(run("lint", *options), "exclude each other")
    assert not (workplace / "x").exists()


@pytest.mark.parametrize("option", ["--since", "--git-base", "--database", "--baseline"])
def test_lint_choice_that_is_empty_is_refused(run, one, option):
    """An unset variable of a script never comes to mean another choice."""
    assert run("lint", f"{option}=").code in {1, 2}


def test_lint_says_what_it_has_not_judged_and_could_not_run(run, one):
    """A warning names them, with --quiet, too: what comes after them was judged without what they do."""
    write(one, {"0002_b.sql": "SELECT nope();", "0003_c.sql": SILENT + "SELECT 1;"})
    outcome = run("lint", "--latest", "--quiet")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("warning: not judged, and failing in an empty database: 0002_b. The others were")
    assert run("lint", "--latest", "--json").document["failed"] == ["0002_b"]


# ---------------------------------------------------------------- a baseline


def test_lint_baseline_lets_only_new_findings_fail(run, one, workplace):
    """A baseline is written once, without editing a released file.

    Its findings fail nothing, a new one does, and a stale one warns.
    """
    write(one, {"0002_b.sql": SILENT + "DROP TABLE a;"})
    assert run("lint").code == 5
    outcome = run("lint", "--write-baseline", "known.txt")
    assert (outcome.code, outcome.out) == (
        0,
        "three: 1 finding written to known.txt; `dao lint --baseline known.txt` passes over them\n",
    )
    assert (workplace / "known.txt").read_text().splitlines()[-1].startswith("0002_b\tM002\t")
    outcome = run("lint", "--baseline", "known.txt", "--strict")
    assert (outcome.code, outcome.out) == (
        0,
        "three: 1 in the baseline, 1 silenced; judged 2 of 2 migrations (all)\n",
    )
    document = run("lint", "--baseline", "known.txt", "--json").document
    assert (document["ok"], [one["in_baseline"] for one in document["findings"]]) == (True, [False, True])
    write(one, {"0003_c.sql": SILENT + "CREATE TABLE c (id INTEGER PRIMARY KEY);\nDROP INDEX nope;"})
    assert run("lint", "--baseline", "known.txt").code == 5
    write(one, {"0003_c.sql": SILENT + "SELECT 1;", "0002_b.sql": SILENT + "SELECT 1;"})
    outcome = run("lint", "--baseline", "known.txt")
    assert outcome.code == 0
    assert outcome.out.startswith("known.txt:3: warning M904 stale-baseline: 0002_b has no such M002 any more; remove")
    assert run("lint", "--baseline", "known.txt", "--strict").code == 5


def test_lint_baseline_as_json_says_what_was_written(run, one):
    """The document has the file and the number; a file that cannot be written is an error."""
    document = run("lint", "--write-baseline", "known.txt", "--json").document
    assert document == {"ok": True, "migrations": "three", "baseline": "known.txt", "written": 0}
    refused(run("lint", "--write-baseline", "nowhere/x"), "the baseline cannot be written to nowhere/x: No such file")
    refused(run("lint", "--baseline", "nowhere"), "there is no baseline nowhere: `dao lint --write-baseline nowhere`")
