"""Which migrations `lint` judges, what the others are to it, and what a baseline lets be."""

from __future__ import annotations

import subprocess

import pytest

from dao import migrate
from dao.errors import MigrationError, MigrationFileError
from dao.migrate.ledger.selection import git_default
from dao.migrate.linting import baseline, lint
from dao.migrate.linting.sarif import report
from tests.folders import write
from tests.migration.test_lint import BASE, BASE_BACK, RIGHT, WRONG

#: Each has a finding of its own, beside that it has no rollback.
FOUR = {
    "0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);\nCREATE TABLE b (x);",
    "0002_b.sql": "DROP TABLE a;",
    "0003_c.sql": "UPDATE b SET x = 1;",
    "0004_d.sql": "DELETE FROM b;",
}


@pytest.fixture
def folder(tmp_path):
    """A folder of four migrations."""
    return write(tmp_path / "sql", FOUR)


def codes(result):
    """Return what is found, but for rollbacks that are missing: the number of the migration, and the code."""
    return [(int(one.migration[:4]), one.code) for one in result.findings if one.code != "M017"]


ALL = [(1, "M025"), (2, "M002"), (3, "M005"), (4, "M004")]


# ---------------------------------------------------------------- which are judged


@pytest.mark.parametrize(
    ("keywords", "count", "words"),
    [
        ({}, 4, "all"),
        ({"since": "0002_b"}, 2, "after 0002_b"),
        ({"since": "0003"}, 1, "after 0003_c"),
        ({"since": "0004_d"}, 0, "after 0004_d"),
        ({"latest": 1}, 1, "the latest"),
        ({"latest": 3}, 3, "the latest"),
        ({"latest": 9}, 4, "the latest"),
    ],
)
def test_lint_judges_those_that_are_asked_for(folder, keywords, count, words):
    """The whole history was judged each time, though nobody may edit what is released."""
    result = lint(folder, **keywords)
    assert codes(result) == ALL[4 - count :]
    assert result.judged == tuple(name[:-4] for name in list(FOUR)[4 - count :])
    assert (result.total, result.selection, result.failed) == (4, words, ())


@pytest.mark.sample(4)
@pytest.mark.parametrize("case", [*WRONG, *RIGHT])
def test_lint_of_the_latest_finds_what_lint_of_all_finds_of_it(tmp_path, case):
    """To look at nothing before the script that is judged changes no finding about it, whatever the rule."""
    script = (WRONG | RIGHT)[case][1]
    files = {
        "0001_base.sql": BASE,
        "0001_base.rollback.sql": BASE_BACK,
        "0002_x.sql": script,
        "0002_x.rollback.sql": "SELECT 1",
    }
    write(tmp_path / "sql", files)
    everything = [one for one in lint(tmp_path / "sql").findings if one.migration == "0002_x"]
    assert list(lint(tmp_path / "sql", latest=1).findings) == everything


def test_lint_by_a_database_judges_what_it_has_not_applied_as_it_is(folder, url):
    """Pending ones, and those of which a script was edited since; one that was only renamed is applied."""
    assert codes(lint(folder, database=url)) == ALL
    migrate.apply(url, folder, to="0003", allow_data_loss=True)
    result = lint(folder, database=url)
    assert codes(result) == ALL[3:]
    assert result.selection == f"not applied in {url.removeprefix('sqlite:///')}, or changed since"
    write(folder, {"0002_b.rollback.sql": "SELECT 1;"})
    (folder / "0003_c.sql").rename(folder / "0003_cc.sql")
    assert lint(folder, database=url).judged == ("0002_b", "0004_d")


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"since": "0009"}, MigrationError, "no migration '0009' is in the folder"),
        ({"since": ""}, MigrationError, "'' is no id of a migration: give an id"),
        ({"latest": 0}, ValueError, "latest must be a whole number from 1, got 0"),
        ({"latest": True}, ValueError, "latest must be a whole number from 1, got True"),
        ({"latest": 1, "since": "0001"}, ValueError, "exclude each other"),
        ({"git_base": "main"}, MigrationError, r"git cannot tell what is released \(fatal: not a git repository"),
    ],
)
def test_lint_of_a_choice_that_means_nothing_is_refused(folder, keywords, error, message):
    """It never falls back to another choice."""
    with pytest.raises(error, match=message):
        lint(folder, **keywords)


# ---------------------------------------------------------------- git


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A repository in which two of the four migrations are on the default branch of a remote."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")

    def run(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    run("init", "--initial-branch", "work")
    (tmp_path / "db").mkdir()
    write(tmp_path / "db" / "sql", dict(list(FOUR.items())[:2]) | {"0002_b.rollback.sql": "-- none"})
    run("add", ".")
    run("commit", "-m", "two")
    run("update-ref", "refs/remotes/origin/main", "HEAD")
    return run


def test_lint_by_git_judges_what_the_branch_does_not_have_as_it_is(git, tmp_path):
    """New files, committed or not, and those that were edited, renamed, or lost their rollback."""
    folder = tmp_path / "db" / "sql"
    assert git_default(migrate.load(folder)) == "origin/main"
    assert lint(folder, git_base="origin/main").judged == ()
    write(folder, {"0003_c.sql": FOUR["0003_c.sql"]})
    git("add", ".")
    git("commit", "-m", "three")
    write(folder, {"0004_d.sql": FOUR["0004_d.sql"]})
    result = lint(folder, git_base="origin/main")
    assert codes(result) == ALL[2:]
    assert result.selection == "not on origin/main, or changed since"
    write(folder, {"0002_b.rollback.sql": "SELECT 1;"})
    assert lint(folder, git_base="origin/main").judged == ("0002_b", "0003_c", "0004_d")
    (folder / "0002_b.rollback.sql").unlink()
    assert lint(folder, git_base="origin/main").judged == ("0002_b", "0003_c", "0004_d")
    (folder / "0001_a.sql").rename(folder / "0001_aa.sql")
    assert lint(folder, git_base="origin/main").judged == ("0001_aa", "0002_b", "0003_c", "0004_d")
    assert lint(folder, git_base="work~1").judged == lint(folder, git_base="origin/main").judged


def test_lint_by_git_works_in_a_hook_and_for_folders_in_folders(git, tmp_path, monkeypatch):
    """A hook sets GIT_DIR relative to the top of the repository; diesel's scripts are each in a folder."""
    folder = tmp_path / "diesel"
    folder.mkdir()
    for name in ("1_a", "2_b"):
        write(
            folder / name,
            {"up.sql": f"CREATE TABLE t{name} (id INTEGER PRIMARY KEY);", "down.sql": f"DROP TABLE t{name};"},
        )
        if name == "1_a":
            git("add", ".")
            git("commit", "-m", "diesel")
            git("update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", ".git")
    assert git_default(migrate.load("diesel")) == "origin/main"
    assert lint("diesel", git_base="origin/main").judged == ("2_b",)
    (folder / "1_a" / "down.sql").unlink()
    assert lint("diesel", git_base="origin/main").judged == ("1_a", "2_b")


def test_git_default_is_the_branch_that_the_remote_says(git, tmp_path):
    """That of origin/HEAD goes before names that are usual; without a remote there is none."""
    migrations = migrate.load(tmp_path / "db" / "sql")
    git("update-ref", "refs/remotes/origin/trunk", "HEAD")
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert git_default(migrations) == "origin/trunk"
    git("update-ref", "-d", "refs/remotes/origin/trunk")
    assert git_default(migrations) == "origin/main"
    git("update-ref", "-d", "refs/remotes/origin/main")
    assert git_default(migrations) is None
    for name in ("nope", "", "--help"):
        with pytest.raises(MigrationError, match=f"git knows no branch or commit '{name}'"):
            lint(migrations, git_base=name)


def test_lint_without_git_says_so(folder, monkeypatch):
    """Where there is no command `git` nothing is released by it; to ask for it is an error."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_default(migrate.load(folder)) is None
    with pytest.raises(MigrationError, match="no command `git`"):
        lint(folder, git_base="main")


# ---------------------------------------------------------------- what the others are


def test_lint_what_is_not_judged_counts_as_applied_long_ago(tmp_path):
    """A rebuild that began before the script that is judged is one that a deployment does not have in one run."""
    files = {
        "1.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, x);",
        "2.sql": "CREATE TABLE n (id INTEGER PRIMARY KEY, x);\nINSERT INTO n SELECT * FROM t;",
        "3.sql": "DROP TABLE t;",
        "4.sql": "ALTER TABLE n RENAME TO t;",
    }
    folder = write(tmp_path / "sql", files)
    found = {
        keywords: {one.migration for one in lint(folder, since=keywords).findings if one.code == "M002"}
        for keywords in "12"
    }
    assert found == {"1": set(), "2": {"3"}}


def test_lint_scripts_that_are_judged_are_no_run_over_one_between_them_that_is_not(tmp_path, url):
    """The first copies, the last drops: with one between them that is applied, no run does both."""
    files = {
        "1.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, x);",
        "2.sql": "CREATE TABLE n (id INTEGER PRIMARY KEY, x);\nINSERT INTO n SELECT * FROM t;",
        "3.sql": "CREATE TABLE w (id INTEGER PRIMARY KEY);",
        "4.sql": "DROP TABLE t;\nALTER TABLE n RENAME TO t;",
    }
    folder = write(tmp_path / "sql", files)
    assert "M002" not in {one.code for one in lint(folder).findings}
    migrate.apply(url, folder, to="3")
    write(folder, {"2.rollback.sql": "DROP TABLE n;"})
    result = lint(folder, database=url)
    assert result.judged == ("2", "4")
    assert [one.migration for one in result.findings if one.code == "M002"] == ["4"]


def test_lint_what_was_wrong_before_is_not_held_against_the_script_that_is_judged(tmp_path):
    """A script is not blamed for older faults in the tables that it touches.

    They are a broken view, a key without an index, and a string in double quotes.
    """
    files = {
        "1.sql": (
            "CREATE TABLE p (id INTEGER PRIMARY KEY);\nCREATE TABLE t (id INTEGER PRIMARY KEY, p REFERENCES p, x);\n"
            "CREATE VIEW v AS SELECT nope FROM t;\n"
            'CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT raise(FAIL, "no"); END;'
        ),
        "2.sql": (
            "CREATE TRIGGER h AFTER DELETE ON t BEGIN SELECT 1; END;\n"
            "CREATE TRIGGER i AFTER DELETE ON p BEGIN SELECT 1; END;"
        ),
        "2.rollback.sql": "DROP TRIGGER h;\nDROP TRIGGER i;",
    }
    folder = write(tmp_path / "sql", files)
    assert {one.code for one in lint(folder).findings} == {"M009", "M012", "M014", "M017"}
    assert lint(folder, latest=1).findings == ()


def test_lint_number_that_is_there_twice_is_found_in_the_one_that_is_judged(tmp_path, url):
    """Though it comes first by its name; the other one is released, and cannot be renamed."""
    folder = write(tmp_path / "sql", {"7_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY);"})
    migrate.apply(url, folder)
    write(folder, {"7_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);"})
    found = [(one.migration, one.message) for one in lint(folder, database=url).findings if one.code == "M020"]
    assert found == [("7_a", "7_a has the same number as 7_b")]
    assert [one.migration for one in lint(folder).findings if one.code == "M020"] == ["7_b"]


def test_lint_foreign_key_whose_parent_a_script_drops_that_is_not_judged_is_nobodys(tmp_path, url):
    """It is not held against the script before that made the key, which alone is judged."""
    files = {
        "1.sql": "CREATE TABLE p (id INTEGER PRIMARY KEY);",
        "2.sql": "CREATE TABLE c (id INTEGER PRIMARY KEY REFERENCES p);",
        "3.sql": "DROP TABLE p;",
    }
    folder = write(tmp_path / "sql", files)
    assert [one.migration for one in lint(folder).findings if one.code == "M013"] == ["3"]
    assert [one.migration for one in lint(folder, latest=1).findings if one.code == "M013"] == ["3"]
    migrate.apply(url, folder, allow_data_loss=True, allow_broken=["c"])
    write(folder, {"2.rollback.sql": "DROP TABLE c;"})
    result = lint(folder, database=url)
    assert result.judged == ("2",)
    assert "M013" not in {one.code for one in result.findings}


def test_lint_names_what_is_not_judged_and_fails(tmp_path):
    """What comes after it was judged without its end: the reader has to know."""
    files = {
        "1.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);\nSELECT nope();\nCREATE TABLE b (id INTEGER PRIMARY KEY);",
        "2.sql": "DROP TABLE b;",
    }
    folder = write(tmp_path / "sql", {**files, "0.sql": "SAVEPOINT s;"})
    result = lint(folder, latest=1)
    assert result.failed == ("0", "1")
    assert [one.code for one in result.findings] == ["M002", "M017"]


# ---------------------------------------------------------------- a baseline


def written(folder, file):
    """Write today's findings to a file."""
    file.write_text(baseline.text(lint(folder).findings))
    return file


def test_baseline_lets_be_what_it_has_and_nothing_else(folder, tmp_path):
    """Findings of today are marked, a new one is not; there was no way but to edit released files."""
    file = written(folder, tmp_path / "known")
    first = lint(folder, baseline=file)
    assert {one.is_open for one in first.findings} == {False}
    assert [one.code for one in first.findings] == [one.code for one in lint(folder).findings]
    write(folder, {"0005_e.sql": "-- lint: ignore M017 once\n\nUPDATE b SET x = 2;"})
    found = [one for one in lint(folder, baseline=file).findings if one.is_open]
    assert [(one.migration, one.code) for one in found] == [("0005_e", "M005")]


def test_baseline_text_is_the_same_each_time_and_grows_by_lines(folder, tmp_path):
    """A baseline is in the order of the migrations, so that a diff shows what changed.

    It has no times, paths or line numbers.
    """
    text = written(folder, tmp_path / "known").read_text()
    moved = write(tmp_path / "moved", {name: f"-- a comment\n{script}" for name, script in FOUR.items()})
    assert written(moved, tmp_path / "again").read_text() == text
    write(moved, {"0002_x.sql": "CREATE TABLE x (y);"})
    grown = written(moved, tmp_path / "again").read_text().splitlines()
    assert [line for line in grown if line not in text.splitlines()] != []
    assert [line for line in grown if "\t" not in line or not line.startswith("0002_x")] == text.splitlines()
    line = next(line for line in text.splitlines() if "M002" in line)
    assert line == "0002_b\tM002\t" + line.split("\t")[2] + "\tdrop-table: a is dropped with all its rows"


def test_baseline_entry_without_its_finding_is_found_itself(folder, tmp_path):
    """The line is named; a statement that was changed is another finding, and the old entry hides nothing."""
    file = written(folder, tmp_path / "known")
    lines = file.read_text().splitlines()
    write(folder, {"0003_c.sql": "UPDATE b SET x = 2;", "0002_b.sql": "SELECT 1;"})
    (folder / "0004_d.sql").unlink()
    found = [one for one in lint(folder, baseline=file).findings if one.is_open]
    assert [(one.code, one.path, one.message) for one in found] == [
        ("M005", folder / "0003_c.sql", "UPDATE without WHERE: it rewrites every row of b"),
        ("M904", file, "0002_b has no such M002 any more"),
        ("M904", file, "0003_c has no such M005 any more"),
        ("M904", file, "0004_d is no migration here"),
        ("M904", file, "0004_d is no migration here"),
    ]
    assert [lines[one.line - 1].split("\t")[:2] for one in found[1:3]] == [["0002_b", "M002"], ["0003_c", "M005"]]
    # of those that are not judged nobody knows
    partly = lint(folder, since="0002", baseline=file)
    assert [one.message for one in partly.findings if one.code == "M904"] == [one.message for one in found[2:]]
    assert "M904" not in written(folder, file).read_text()


def test_baseline_counts_equal_findings(tmp_path):
    """A statement that is there once more than the baseline has it is a new finding; once less, a stale entry."""
    folder = write(
        tmp_path / "sql", {"1.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, x);", "2.sql": "UPDATE t SET x = 1;\n" * 2}
    )
    file = written(folder, tmp_path / "known")
    for count, expected in ((1, ["M904"]), (2, []), (3, ["M005"])):
        write(folder, {"2.sql": "UPDATE t SET x = 1;\n" * count})
        assert [one.code for one in lint(folder, baseline=file).findings if one.is_open] == expected


def test_baseline_has_the_scripts_of_a_pair_each_for_itself(tmp_path):
    """The same statement in the rollback is another finding."""
    files = {
        "1.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, x);",
        "1.rollback.sql": "DROP TABLE t;",
        "2.sql": "UPDATE t SET x = 1;",
        "2.rollback.sql": "SELECT 1;",
    }
    folder = write(tmp_path / "sql", files)
    file = written(folder, tmp_path / "known")
    write(folder, {"2.sql": "SELECT 1;", "2.rollback.sql": "UPDATE t SET x = 1;"})
    assert [one.code for one in lint(folder, baseline=file).findings if one.is_open] == ["M005", "M904"]


def test_baseline_that_cannot_be_read_is_refused(folder, tmp_path):
    """One that is not there says how to make it; one that is something else says where."""
    with pytest.raises(MigrationError, match=r"no baseline .*nowhere: `dao lint --write-baseline .*nowhere` makes one"):
        lint(folder, baseline=tmp_path / "nowhere")
    with pytest.raises(MigrationError, match=r"cannot be read .*: check its permissions"):
        lint(folder, baseline=tmp_path)
    file = tmp_path / "known"
    file.write_text("# head\n\n{}\n")
    with pytest.raises(MigrationFileError, match=r"known:3: not a line of a baseline") as caught:
        lint(folder, baseline=file)
    assert (caught.value.path, caught.value.line) == (file, 3)


def test_report_tells_what_was_judged_and_what_the_baseline_has(folder, tmp_path):
    """In SARIF a finding of the baseline is suppressed from outside, and the run says which migrations it is about."""
    file = written(folder, tmp_path / "known")
    write(folder, {"0005_e.sql": "UPDATE b SET x = 2;"})
    (run,) = report(lint(folder, since="0003", baseline=file))["runs"]
    assert run["properties"] == {"judged": ["0004_d", "0005_e"], "total": 5, "selection": "after 0003_c"}
    found = [
        (one["ruleId"], one["partialFingerprints"]["statement/v1"], one.get("suppressions")) for one in run["results"]
    ]
    known = [{"kind": "external", "justification": "in the baseline"}]
    assert [(code, suppressions) for code, _, suppressions in found] == [
        ("M004", known),
        ("M017", known),
        ("M005", None),
        ("M017", None),
    ]
    assert {print for _, print, _ in found if len(print) == 8} == {print for _, print, _ in found}


def test_a_baseline_does_not_pass_over_what_another_rollback_leaves(tmp_path):
    """All findings of M019 in a migration had one fingerprint: one that was known hid a new one."""
    up = "CREATE TABLE t (a); CREATE INDEX i ON t (a); DROP TABLE old;"
    write(tmp_path, {"0001_a.sql": "CREATE TABLE old (a);", "0001_a.rollback.sql": "DROP TABLE old;"})
    write(tmp_path, {"0002_b.sql": up, "0002_b.rollback.sql": "CREATE TABLE old (a);"})
    known = tmp_path / "known"
    known.write_text(baseline.text(migrate.lint(tmp_path).findings))
    (tmp_path / "0002_b.rollback.sql").write_text("-- undo\nCREATE TABLE old (a);")
    first = [one for one in migrate.lint(tmp_path, baseline=known).findings if one.code == "M019"]
    (tmp_path / "0002_b.rollback.sql").write_text("DROP TABLE t;")
    second = [one for one in migrate.lint(tmp_path, baseline=known).findings if one.code == "M019"]
    assert ([one.is_open for one in first], [one.is_open for one in second]) == ([False], [True])
