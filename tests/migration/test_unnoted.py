"""Schemas made before the first migration here, by a tool or a person, are recognised.

The message names the cure.
"""

from __future__ import annotations

import pytest

from dao import migrate
from dao.errors import LedgerMismatch, MigrationError, MigrationFailed
from tests.folders import THREE, dump, ids, query, write
from tests.other_tools import CERTAIN, LAYOUT_OF, TABLES, WRITTEN, execute, in_layout, made_by


@pytest.fixture
def folder(tmp_path, tool):
    """A folder of four migrations in the tool's layout."""
    return in_layout(tmp_path / "sql", LAYOUT_OF[tool], WRITTEN)


# ---------------------------------------------------------------- another tool has applied them


@pytest.mark.parametrize("tool", CERTAIN)
@pytest.mark.parametrize("verb", [migrate.apply, migrate.plan, migrate.rehearse])
def test_run_of_what_another_tool_has_applied_is_refused_at_the_start(path, url, tool, folder, verb):
    """A run of what another tool has applied is refused at the start.

    It began all over, and ended with "table a already exists" and no hint; or not at all, where IF NOT EXISTS stood.
    """
    made_by(path, tool, folder, [0, 1])
    before = dump(path)
    with pytest.raises(LedgerMismatch) as caught:
        verb(url, folder)
    message = str(caught.value)
    assert f"{tool} has applied " in message
    assert f"as its table {TABLES[tool][0]} says" in message
    assert message.endswith("Nothing was changed.")
    assert f"`dao adopt --from {tool}`" in message
    assert dump(path) == before


@pytest.mark.parametrize("tool", CERTAIN)
def test_status_says_which_tool_has_applied_them(path, url, tool, folder):
    """`dao status` said no more than that all are pending."""
    applied = made_by(path, tool, folder, [0, 1])
    told = migrate.status(url, folder).advice
    assert f"{tool} has applied {applied[0]} to {applied[1]} (2 of the migrations)" in told
    assert f"`dao adopt --from {tool}`" in told
    migrate.adopt(url, tool, folder)
    assert migrate.status(url, folder).advice is None


@pytest.mark.parametrize("tool", CERTAIN)
def test_run_after_adopt_and_rollback_is_not_refused(path, url, tool, folder):
    """A tool's ledger, once adopted, counts no more.

    It goes on saying that it applied what was rolled back here since.
    """
    applied = made_by(path, tool, folder, [0, 1])
    migrate.adopt(url, tool, folder)
    migrate.rollback(url, folder, steps=None)
    assert ids(migrate.apply(url, folder))[:2] == applied


@pytest.mark.parametrize("tool", ["dbmate", "goose", "golang-migrate", "diesel", "sqlx"])
def test_run_beside_another_tools_tables_is_none_of_its_business(path, url, three, tool):
    """An application may keep its own tables with another tool in the file: an equal number alone means nothing."""
    execute(path, TABLES[tool][1])
    values = {"goose": "(7, 1, 1, 0)", "golang-migrate": "(3, 0)", "sqlx": "(1, '', 0, 1, x'00', 0)"}
    values |= {"dbmate": "('0001')", "diesel": "('0001', 0)"}
    query(path, f"INSERT INTO {TABLES[tool][0]} VALUES {values[tool]}")
    assert migrate.status(url, three).advice is None
    assert len(migrate.apply(url, three)) == 3


def test_apply_after_a_run_of_the_tools_is_explained(path, url, tmp_path):
    """A migration that the tool applied after the adoption fails here; the message leads to the tool's ledger again."""
    folder = in_layout(tmp_path / "sql", LAYOUT_OF["dbmate"], WRITTEN)
    made_by(path, "dbmate", folder, [0])
    migrate.adopt(url, "dbmate", folder)
    query(path, "CREATE TABLE b (id)")
    query(path, "INSERT INTO schema_migrations VALUES ('0002')")
    with pytest.raises(MigrationFailed, match=r"table b was there before this run\.(.|\n)*`dao adopt --from dbmate`"):
        migrate.apply(url, folder)


# ---------------------------------------------------------------- nobody knows who has


@pytest.mark.parametrize(
    ("made", "script", "what"),
    [
        ("CREATE TABLE A (id)", "CREATE TABLE a (id)", "table a"),
        ('CREATE TABLE "a b" (id)', 'CREATE TABLE "a b" (id)', "table a b"),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW v AS SELECT 2", "view v"),
        ("CREATE VIEW v AS SELECT 1", "CREATE TABLE v (id)", "view v"),
        ("CREATE TABLE t (x); CREATE INDEX i ON t (x)", "CREATE INDEX i ON t (x)", "index i"),
        ("CREATE TABLE t (x); CREATE INDEX i ON t (x)", "CREATE TABLE i (x)", "index i"),
        ("CREATE TABLE t (x)", "CREATE TABLE u (x); CREATE INDEX t ON u (x)", "table t"),
        ("CREATE TABLE t (x)", "CREATE TABLE u (x); ALTER TABLE u RENAME TO t", "table t"),
        ("CREATE TABLE t (x, y)", "ALTER TABLE t ADD COLUMN y", "column y"),
        (
            "CREATE TABLE t (x); CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
            "trigger g",
        ),
        ("CREATE VIRTUAL TABLE f USING fts5 (x)", "CREATE VIRTUAL TABLE f USING fts5 (x)", "table f"),
    ],
    ids=lambda value: value if " " not in value else "",
)
@pytest.mark.parametrize("verb", [migrate.apply, migrate.rehearse])
def test_migration_that_meets_what_was_there_says_what_to_do(path, url, tmp_path, made, script, what, verb):
    """On a database that was made without migrations "… already exists" came alone, and left the user with it."""
    query(path, made)
    folder = write(tmp_path / "sql", {"1_a.sql": f"{script};"})
    before = dump(path)
    try:
        message = verb(url, folder).migrations[0].failure.message
    except MigrationFailed as error:
        message = str(error)
    assert f"The {what} was there before this run" in message
    assert "`dao mark ID`" in message
    assert "`dao baseline`" in message
    assert dump(path) == before


def test_apply_what_somebody_made_by_hand_is_explained(path, url, three):
    """Among migrations that are applied it is one that was done by hand: it can be marked."""
    migrate.apply(url, three, to="0002_b")
    query(path, "CREATE TABLE c (id)")
    with pytest.raises(MigrationFailed, match=r"table c was there before(.|\n)*`dao mark 0003_c` notes it as applied"):
        migrate.apply(url, three)


@pytest.mark.parametrize("each", [False, True])
def test_apply_script_that_is_wrong_by_itself_gets_no_advice(path, url, tmp_path, each):
    """What the run, or an applied migration, made itself was not there before: to mark it would hide the mistake."""
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE a (id);", "2_b.sql": "CREATE TABLE a (id);"})
    query(path, "CREATE TABLE beside (id)")
    with pytest.raises(MigrationFailed, match="table a already exists") as caught:
        migrate.apply(url, folder, each=each)
    assert caught.value.advice is None
    assert migrate.rehearse(url, folder).migrations[-1].failure.message.count("before this run") == 0
    write(folder, {"2_b.sql": "CREATE TABLE c (x, x);"})
    with pytest.raises(MigrationFailed, match="duplicate column name") as caught:
        migrate.apply(url, folder, each=each)
    assert caught.value.advice is None


def test_apply_for_alembic_names_both_ways(path, url, three):
    """For alembic's ledger, adopt and baseline are both said.

    Nobody knows which files it means, and its own are Python.
    """
    execute(path, TABLES["alembic"][1] + "; INSERT INTO alembic_version VALUES ('ab'); CREATE TABLE b (id)")
    with pytest.raises(MigrationFailed, match=r"`dao adopt --from alembic --to ID`(.|\n)*`dao baseline`"):
        migrate.apply(url, three)
    assert "`dao adopt --from alembic --to ID`" in migrate.status(url, three).advice


def test_status_before_the_first_migration_says_what_is_there_already(path, url, three):
    """`dao status` of a database that these migrations would fail in said that they are pending, and no more."""
    assert migrate.status(url, three).advice is None
    query(path, "CREATE TABLE theirs (id)")
    assert migrate.status(url, three).advice is None
    query(path, "CREATE TABLE C (id)")
    told = migrate.status(url, three).advice
    assert "holds already what these migrations make (c)" in told
    assert "`dao mark ID`" in told
    assert "`dao baseline`" in told
    migrate.mark(url, ["0003_c"], three)
    assert migrate.status(url, three).advice is None


def test_status_of_migrations_that_build_on_what_is_there_has_no_advice(path, url, tmp_path):
    """Migrations that do not run in an empty database make nothing that could be in the way."""
    query(path, "CREATE TABLE t (id)")
    folder = write(tmp_path / "sql", THREE | {"0000_t.sql": "ALTER TABLE t ADD COLUMN x;"})
    assert migrate.status(url, folder).advice is None


def test_empty_folder_says_how_to_begin(path, url, tmp_path):
    """The first that somebody with a database and no migration met was no word of how to make one."""
    query(path, "CREATE TABLE t (id)")
    with pytest.raises(MigrationError, match="`dao new` writes an empty one, `dao baseline` one of the schema"):
        migrate.status(url, write(tmp_path / "sql", {}))


# ---------------------------------------------------------------- a table that nobody has made


def test_table_that_no_migration_makes_is_said_to_be_nobodys(url, tmp_path):
    """Scripts that build on a schema from elsewhere failed with "no such table", and no word of where it might be."""
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE a (x);", "2_b.sql": "ALTER TABLE base ADD COLUMN y;"})
    with pytest.raises(MigrationFailed, match="no such table: base") as caught:
        migrate.apply(url, folder)
    assert caught.value.advice.startswith("No migration before 2_b makes it. Correct the name; or, if something else")


def test_table_that_a_later_migration_makes_names_that(url, tmp_path):
    """Ids whose number does not stand first are in the order of their text, which nothing said."""
    folder = write(
        tmp_path / "sql", {"v2.10.sql": "INSERT INTO a VALUES (1);", "v2.2.sql": 'CREATE TABLE IF NOT EXISTS "a" (x);'}
    )
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, folder)
    assert caught.value.advice.startswith("v2.2 makes it, and comes after v2.10")
    assert "`-- depends: v2.2` at the top of v2.10" in caught.value.advice
    write(folder, {"v2.10.sql": "-- depends: v2.2\nINSERT INTO a VALUES (1);"})
    assert ids(migrate.apply(url, folder)) == ["v2.2", "v2.10"]


def test_table_that_was_dropped_has_no_such_advice(url, tmp_path):
    """It was made: the script is wrong, and no migration is missing."""
    folder = write(
        tmp_path / "sql",
        {"1_a.sql": "CREATE TABLE a (x);", "2_b.sql": "DROP TABLE a;", "3_c.sql": "INSERT INTO a VALUES (1);"},
    )
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, folder)
    assert caught.value.advice is None
