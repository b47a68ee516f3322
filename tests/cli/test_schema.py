"""The commands about the schema: dump, check, diff."""

from __future__ import annotations

import os

import pytest

from tests.cli.calls import refused
from tests.folders import query, write

FILE = """\
-- The schema that the migrations make, up to and with 0003_c.
-- Written by `dao schema dump`: do not edit it, write a migration.

CREATE TABLE a (id INTEGER PRIMARY KEY);

CREATE TABLE b (id INTEGER PRIMARY KEY);

CREATE TABLE c (id INTEGER PRIMARY KEY);
"""


@pytest.fixture
def file(workplace):
    """Where the schema of the three migrations belongs: beside their folder."""
    return workplace / "three.schema.sql"


# ---------------------------------------------------------------- dump


def test_schema_dump_writes_the_file_beside_the_folder(run, file, path):
    """It needs no database and makes none, and adds nothing to the folder, where it would be a migration."""
    outcome = run("schema", "dump")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{file}: written\n", "")
    assert file.read_text() == FILE
    assert sorted(os.listdir(file.parent)) == ["three", "three.schema.sql"]
    assert not path.exists()
    assert run("migrate").code == 0


def test_schema_dump_of_a_current_file_leaves_it(run, file):
    """A file that is current already is not written again."""
    run("schema", "dump")
    before = file.stat()
    assert run("schema", "dump").out == f"{file}: current already\n"
    assert run("schema", "dump", "--json").document == {"ok": True, "path": str(file), "written": False}
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    file.write_text("another")
    assert run("schema", "dump", "--json").document == {"ok": True, "path": str(file), "written": True}
    assert file.read_text() == FILE


def test_schema_dump_output_names_another_file_or_standard_output(run, file, workplace):
    """`--output` names the file; `-` prints the schema and writes nothing."""
    assert run("schema", "dump", "--output", "mine.sql").out == "mine.sql: written\n"
    assert (workplace / "mine.sql").read_text() == FILE
    assert run("schema", "dump", "-o", "-").out == FILE
    assert run("schema", "dump", "-o", "-", "--quiet").out == FILE
    assert not file.exists()


def test_schema_dump_through_a_link_keeps_the_link(run, file, workplace):
    """The file that a link leads to is written."""
    file.symlink_to("elsewhere.sql")
    run("schema", "dump")
    assert file.is_symlink()
    assert (workplace / "elsewhere.sql").read_text() == FILE


@pytest.mark.parametrize("migrations", ["three/", "./three", "three/../three", "three/."])
def test_schema_dump_folder_named_in_any_way_has_one_file(run, file, migrations):
    """The file's name is that of the folder, however that is written."""
    assert run("schema", "dump", "--migrations", migrations).code == 0
    assert file.read_text() == FILE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", ""], "--output is empty"),
        (["--output", "-", "--json"], "--output - and --json exclude each other"),
    ],
)
def test_schema_dump_output_that_means_nothing_is_wrong_usage(run, arguments, message):
    """What cannot be meant is refused as such."""
    outcome = run("schema", "dump", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize("command", ["dump", "check"])
def test_schema_output_that_is_no_file_is_refused(run, workplace, command):
    """A folder is no schema file, and a pipe is not waited for."""
    refused(run("schema", command, "-o", "three"), "three: not a regular file")
    os.mkfifo(workplace / "pipe")
    refused(run("schema", command, "-o", "pipe"), "pipe: not a regular file")


def test_schema_dump_into_a_folder_that_does_not_exist_is_refused(run, workplace):
    """It says why, and leaves nothing behind."""
    refused(
        run("schema", "dump", "-o", "no/mine.sql"), "the schema file cannot be written to no/mine.sql", "No such file"
    )
    assert os.listdir(workplace) == ["three"]


@pytest.mark.parametrize("command", ["dump", "check"])
def test_schema_migration_that_fails_is_named_and_nothing_written(run, folder, file, command):
    """A migration that fails in an empty database has no schema."""
    write(folder, {"0004_d.sql": "CREATE TABLE a (x);"})
    refused(run("schema", command), "0004_d: replaying this migration", "table a already exists")
    assert not file.exists()


# ---------------------------------------------------------------- check


def test_schema_check_of_a_current_file_succeeds(run, file, path):
    """It says so, needs no database, and does not mind the line ends that a checkout on Windows makes."""
    run("schema", "dump")
    assert run("schema", "check").out == f"{file}: current\n"
    assert run("schema", "check", "--json").document == {
        "path": str(file),
        "exists": True,
        "ok": True,
        "diff": [],
    }
    file.write_bytes(FILE.replace("\n", "\r\n").encode())
    assert run("schema", "check").code == 0
    assert not path.exists()


def test_schema_check_of_a_stale_file_shows_what_differs(run, file, folder):
    """It exits with 5, shows a diff of the two, and says what to do. The file stays as it is."""
    run("schema", "dump")
    write(folder, {"0004_d.sql": "CREATE TABLE d (x);"})
    outcome = run("schema", "check")
    assert outcome.code == 5
    assert outcome.out.splitlines()[:2] == [f"--- {file}", "+++ what the migrations make"]
    assert "+-- The schema that the migrations make, up to and with 0004_d." in outcome.out
    assert "\n+CREATE TABLE d (x);\n" in outcome.out
    advice = "`dao schema dump` with the same options writes it"
    assert outcome.err == f"error: {file} is not what the migrations make: {advice}\n"
    assert file.read_text() == FILE
    document = run("schema", "check", "--json").document
    assert (document["exists"], document["ok"]) == (True, False)
    assert "+CREATE TABLE d (x);" in document["diff"]


@pytest.mark.parametrize("content", [FILE.rstrip("\n"), FILE + "\n", FILE + "\x0c", ""])
def test_schema_check_of_a_file_that_differs_in_its_end_is_stale(run, file, content):
    """The file is compared to its last character, and every difference is shown."""
    file.write_text(content)
    outcome = run("schema", "check")
    assert outcome.code == 5
    assert len(outcome.out.splitlines()) > 2


def test_schema_check_without_the_file_fails(run, file):
    """A file that is missing is not current."""
    outcome = run("schema", "check", "--quiet")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err == f"error: {file} does not exist: `dao schema dump` with the same options writes it\n"
    assert run("schema", "check", "--json").document["exists"] is False
    assert run("schema", "check", "--output", "-").code == 2


# ---------------------------------------------------------------- migrations for PostgreSQL


def test_schema_of_migrations_for_postgresql_is_made_on_a_server(run, server, workplace, monkeypatch):
    """DATABASE_URL names it; the file is beside its folder, and is checked in the same way."""
    monkeypatch.setenv("DATABASE_URL", server.url)
    folder = write(workplace / "there", {"0001_a.sql": "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY);"})
    file = workplace / "there.schema.sql"
    assert run("schema", "dump", "--migrations", "there").out == f"{file}: written\n"
    assert "    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY\n" in file.read_text()
    assert run("schema", "check", "--migrations", "there").out == f"{file}: current\n"
    write(folder, {"0002_b.sql": "CREATE TABLE b (id uuid);"})
    outcome = run("schema", "check", "--migrations", "there")
    assert outcome.code == 5
    assert "\n+    id uuid\n" in outcome.out
    assert run("schema", "check", "--migrations", "there", "--json").document["ok"] is False


def test_schema_names_its_engine_by_the_url(run, server, file, monkeypatch):
    """A URL of SQLite's in the environment changes nothing; --database goes before it."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///nowhere/x.db?mode=ro")
    assert run("schema", "dump", "-o", "-").out == FILE
    assert "id integer NOT NULL" in run("schema", "dump", "-o", "-", "--database", server.url).out
    monkeypatch.setenv("DATABASE_URL", server.url)
    assert run("schema", "dump", "-o", "-", "--database", "sqlite:///x.db").out == FILE


def test_schema_on_a_server_that_is_not_there_is_refused(run, monkeypatch, workplace):
    """It is a message, and no traceback."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://somebody@/x?host={workplace}")
    refused(run("schema", "check"), "cannot connect to postgresql://somebody@")


# ---------------------------------------------------------------- diff


def test_schema_diff_of_an_untouched_database_is_none(run, partly):
    """What is pending is no difference: the migrations that are applied count."""
    assert run("schema", "diff").out == "orchestrator.db: the schema is what its migrations make\n"
    assert run("schema", "diff", "--json").document == {
        "database": "orchestrator.db",
        "ok": True,
        "differences": [],
        "left_out": [],
    }


def test_schema_diff_says_which_tables_of_other_tools_it_leaves_out(run, partly):
    """After `dao adopt` the tool's own table stays, and made `dao schema diff` exit with 5 for ever."""
    query(partly, "CREATE TABLE goose_db_version (id, version_id, is_applied)")
    outcome = run("schema", "diff")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "left out: goose_db_version (of goose)",
        "orchestrator.db: the schema is what its migrations make",
    ]
    assert run("schema", "diff", "--json").document["left_out"] == [{"tool": "goose", "table": "goose_db_version"}]


def test_schema_diff_shows_each_difference_and_fails(run, partly):
    """It exits with 5 and prints a line for each object or column that differs, in JSON its parts too."""
    query(partly, "ALTER TABLE a ADD COLUMN more")
    query(partly, "DROP TABLE b")
    before = partly.read_bytes()
    outcome = run("schema", "diff")
    assert outcome.code == 5
    assert outcome.out.splitlines() == ["table a: column more is unexpected", "table b is missing"]
    assert outcome.err == "error: orchestrator.db: the schema is not what its migrations make (2 differences)\n"
    document = run("schema", "diff", "--json").document
    assert document["ok"] is False
    assert document["differences"][0] == {
        "kind": "unexpected",
        "type": "table",
        "name": "a",
        "part": "column more",
        "expected": None,
        "actual": None,
        "text": "table a: column more is unexpected",
    }
    assert partly.read_bytes() == before


def test_schema_diff_without_a_database_is_refused(run, path):
    """There is nothing to compare, and none is made."""
    refused(run("schema", "diff"), "orchestrator.db does not exist", "dao migrate")
    assert not path.exists()
