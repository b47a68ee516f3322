"""The command that takes over another tool's ledger."""

from __future__ import annotations

import pytest

from dao.cli.ledger import adopt
from dao.migrate.scripts.ids import TOOLS
from tests.cli.calls import misused, refused
from tests.folders import dump, query, tables


@pytest.fixture
def theirs(path):
    """A database that dbmate has made with the first and the third migration."""
    query(path, 'CREATE TABLE "schema_migrations" (version varchar(128) primary key)')
    query(path, "INSERT INTO schema_migrations VALUES ('0001'), ('0003')")
    query(path, "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    query(path, "CREATE TABLE c (id INTEGER PRIMARY KEY)")
    return path


def test_adopt_prints_what_is_adopted_and_what_is_left(run, theirs):
    """Each migration that is adopted has a line, and each that is pending still."""
    outcome = run("adopt", "--from", "dbmate")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == ["adopted 0001_a", "adopted 0003_c", "pending 0002_b (out of order)"]
    assert tables(theirs) == ["a", "c", "schema_migrations"]


def test_adopt_again_says_that_there_is_nothing(run, theirs):
    """The second time adopts nothing and succeeds."""
    run("adopt", "--from", "dbmate")
    before = dump(theirs)
    outcome = run("adopt", "--from", "dbmate")
    assert (outcome.code, outcome.out) == (0, "pending 0002_b (out of order)\norchestrator.db: nothing to adopt\n")
    assert dump(theirs) == before


def test_adopt_json_has_the_ids(run, theirs):
    """The document has what was adopted, what is pending, and what of that is out of order."""
    assert run("adopt", "--from", "dbmate", "--json").document == {
        "ok": True,
        "database": "orchestrator.db",
        "tool": "dbmate",
        "ids": ["0001_a", "0003_c"],
        "drift": [],
        "pending": ["0002_b"],
        "out_of_order": ["0002_b"],
    }


def test_adopt_from_alembic_takes_all_up_to_an_id(run, theirs):
    """What alembic applied is said with --to."""
    query(theirs, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    query(theirs, "INSERT INTO alembic_version VALUES ('481d9efb4ae9')")
    assert run("adopt", "--from", "alembic", "--to", "0002").out.splitlines() == [
        "adopted 0001_a",
        "adopted 0002_b",
        "pending 0003_c",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--from"),
        (["--from", "liquibase"], "sqlx"),
        (["--from", "alembic"], "name the last with --to"),
        (["--from", "dbmate", "--to", "0001"], "--to goes with --from alembic"),
    ],
    ids=" ".join,
)
def test_adopt_wrong_options_are_refused(run, theirs, options, message):
    """The tool has to be named and known, and --to goes with alembic only."""
    before = dump(theirs)
    misused(run("adopt", *options), message)
    assert dump(theirs) == before


def test_adopt_from_the_wrong_tool_is_refused(run, theirs):
    """A database that the tool has not made is refused, and says so as JSON too."""
    before = dump(theirs)
    refused(run("adopt", "--from", "sqlx"), "has no table _sqlx_migrations, so sqlx has applied nothing to it")
    assert run("adopt", "--from", "sqlx", "--json").document["error"]["type"] == "MigrationError"
    assert dump(theirs) == before


def test_adopt_offers_the_tools_that_are_known():
    """The command's choice is what the library can do."""
    assert tuple(next(option for option in adopt.params if option.name == "tool").type.choices) == TOOLS
