"""The schema that migrations make: replayed in memory, written to a file, hashed, compared with a live database."""

from __future__ import annotations

import apsw
import attrs
import pytest

from dao import migrate
from dao.errors import MigrationError
from dao.migrate.schema import catalog, dump, model, reader
from dao.migrate.schema.replay import made_by, replayed
from tests.folders import ALONE, query, write

OWN = migrate.load()
OTHERS = """
CREATE TABLE "b ; --" (x, y);
CREATE TABLE a (x REFERENCES c (x), y AS (x + 1), CHECK (x <> "none")) -- of a
;
CREATE TABLE c (x PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE autoincremented (id INTEGER PRIMARY KEY AUTOINCREMENT);
INSERT INTO autoincremented DEFAULT VALUES;
CREATE INDEX z ON a (x, y) WHERE x > 1 -- of z
;
CREATE INDEX "a b" ON "b ; --" (x);
CREATE VIEW a_view AS SELECT x FROM b_view -- of a_view
;
CREATE VIEW b_view AS SELECT x FROM a;
CREATE TRIGGER a_trigger INSTEAD OF DELETE ON b_view BEGIN DELETE FROM a; SELECT ';'; END;
CREATE VIRTUAL TABLE words USING fts5(word);
ANALYZE;
"""


def replay(*scripts: str):
    """Replay scripts, named by their place."""
    return replayed((str(place), text) for place, text in enumerate(scripts))


def read(*scripts: str) -> model.Schema:
    """Return the schema that scripts make."""
    with replay(*scripts) as connection:
        return reader.read(connection)


def numbered(folder, *scripts: str):
    """Write scripts as migrations 1, 2, … and return them."""
    return migrate.load(write(folder, {f"{number}.sql": text for number, text in enumerate(scripts, 1)}))


# ---------------------------------------------------------------- replayed


def test_replayed_scripts_run_as_in_a_run():
    """A script's own transaction and foreign keys have no effect, and nothing is cut short.

    Strings may be in double quotes.
    """
    scripts = [
        (
            "COMMIT; BEGIN; PRAGMA query_only = ON; PRAGMA synchronous = 0; CREATE TABLE a (x REFERENCES nowhere); "
            "INSERT INTO a VALUES (1); COMMIT;"
        ),
        'PRAGMA user_version; SELECT x FROM a; CREATE TABLE b (a REFERENCES a); INSERT INTO b VALUES ("two");',
        f"{ALONE}VACUUM; PRAGMA foreign_keys = ON; BEGIN; CREATE TABLE c (x); ROLLBACK;",
    ]
    with replay(*scripts) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",), ("b",)]
        assert connection.execute("SELECT a FROM b").fetchall() == [("two",)]
        assert not connection.in_transaction
        assert not connection.pragma("foreign_keys")
    with pytest.raises(apsw.ConnectionClosedError):
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("CREATE TABLE a (y)", "table a already exists"),
        ("ATTACH 'other.db' AS other", "refused ATTACH, DETACH and VACUUM INTO: a migration changes one database"),
        ("CREATE TABLE c (x); ROLLBACK", "refused ROLLBACK: it would undo the other migrations of this run too"),
        ("SELECT * FROM b", "no such table: b"),
        ("SELECT total_changes()", r"refused total_changes\(\): it counts what was done before this script, too"),
        ("SAVEPOINT s", "the script leaves the savepoint s open"),
        (
            "VACUUM",
            (
                "cannot VACUUM from within a transaction; "
                "a script that begins with `-- transactional: false` runs outside of one"
            ),
        ),
        ("INSERT OR ROLLBACK INTO a VALUES (1), (1)", "UNIQUE constraint failed: a.x"),
    ],
)
def test_replayed_failing_script_is_named(script, reason, tmp_path, monkeypatch):
    """A script that fails in an empty database is named, with the reason; no file comes about."""
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(MigrationError, match=rf"^1: replaying this migration in an empty database fails \({reason}\)"),
        replay("CREATE TABLE a (x UNIQUE)", script),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- expected, diff


def test_diff_of_a_migrated_database_is_nothing(path, url, three):
    """What `apply` made is what the migrations make, the ledger left out; partly applied, what those make."""
    migrate.apply(url, three, to="0002_b")
    assert migrate.diff(url, three) == []
    migrate.apply(url, three)
    assert migrate.diff(url, three) == []


def test_diff_of_a_database_that_was_changed_by_hand_says_how(path, url, three):
    """What was added, dropped or changed beside the migrations is found. Nothing is written."""
    migrate.apply(url, three)
    query(path, "DROP TABLE c")
    query(path, "CREATE TABLE d (x)")
    query(path, "ALTER TABLE a ADD COLUMN more")
    before = query(path, "PRAGMA schema_version")
    assert [str(difference) for difference in migrate.diff(url, three)] == [
        "table a: column more is unexpected",
        "table c is missing",
        "table d is unexpected",
    ]
    assert query(path, "PRAGMA schema_version") == before


def test_diff_goes_by_the_texts_that_were_applied(path, url, three):
    """A file that was edited since is not what the database was made by."""
    migrate.apply(url, three)
    write(three, {"0003_c.sql": "CREATE TABLE c (id TEXT);"})
    assert migrate.diff(url, three) == []
    query(path, "DELETE FROM _dao_migration WHERE migration_id = '0003_c'")
    assert str(migrate.diff(url, three)[0]) == "table c: column id is INTEGER, expected TEXT"


def test_diff_migration_of_which_nobody_has_the_text_is_refused(path, url, three):
    """If the stock yoyo applied it and its file has gone, what it made is not known."""
    migrate.apply(url, three)
    query(path, "DELETE FROM _dao_migration WHERE migration_id = '0003_c'")
    (three / "0003_c.sql").unlink()
    (three / "0003_c.rollback.sql").unlink()
    with pytest.raises(MigrationError, match=r"^0003_c: the ledger of .*new\.db has no text of it.*put the file back"):
        migrate.diff(url, three)


def test_diff_without_a_database_is_refused_and_makes_none(path, url, three):
    """There is nothing to compare, and it stays so."""
    with pytest.raises(MigrationError, match=r"new\.db does not exist: there is nothing to compare"):
        migrate.diff(url, three)
    assert not path.exists()


def test_diff_on_the_callers_connection_in_a_transaction_takes_part_in_it(theirs, three):
    """It sees what is not committed yet, and leaves the transaction as it was."""
    migrate.apply(theirs, three)
    theirs.execute("BEGIN; DROP TABLE a")
    assert [str(difference) for difference in migrate.diff(theirs, three)] == ["table a is missing"]
    assert theirs.in_transaction
    theirs.execute("ROLLBACK")
    assert migrate.diff(theirs, three) == []
    assert not theirs.in_transaction


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_knows_every_text_of_the_schema_but_no_ledger_and_no_row():
    """It changes with each object, not with rows, statistics or the ledger; equal schemas have equal ones."""
    seen = []
    for script in [
        "",
        "CREATE TABLE a (x);",
        "CREATE INDEX i ON a (x);",
        "CREATE VIEW v AS SELECT 1;",
        "DROP INDEX i;",
    ]:
        with replay("".join(done for done, _ in seen) + script) as connection:
            print_ = catalog.fingerprint(catalog.definitions(connection))
            connection.execute("CREATE TABLE _YOYO_migration (x); CREATE INDEX j ON _yoyo_migration (x)")
            connection.execute("CREATE TABLE _dao_migration (x PRIMARY KEY)")
            assert catalog.fingerprint(catalog.definitions(connection)) == print_
            if script:
                connection.execute("INSERT INTO a VALUES (1); ANALYZE; VACUUM").fetchall()
                assert catalog.fingerprint(catalog.definitions(connection)) == print_
        seen.append((script, print_))
    assert len({print_ for _, print_ in seen}) == len(seen)
    with replay("CREATE VIEW v AS SELECT 1; CREATE TABLE a (x)") as connection:
        assert catalog.fingerprint(catalog.definitions(connection)) == seen[-1][1]


def test_fingerprint_of_a_migrated_database_is_that_of_its_replay(theirs):
    """The live schema's text is what the replay in memory makes."""
    migrate.apply(theirs)
    with replayed((migration.id, migration.up.text) for migration in OWN) as memory:
        assert catalog.fingerprint(catalog.definitions(memory)) == catalog.fingerprint(catalog.definitions(theirs))


# ---------------------------------------------------------------- made_by


def test_made_by_is_what_was_not_there_before():
    """New tables and columns, also of a renamed, rebuilt or virtual table; not what was there already."""
    earlier = [("1", "CREATE TABLE Old (x, y); CREATE TABLE gone (x); CREATE TABLE rebuilt (x)")]
    script = """
        CREATE TABLE New (A, b AS (a));
        ALTER TABLE old ADD COLUMN Z;
        ALTER TABLE gone RENAME TO renamed;
        CREATE TABLE tmp (x, w); DROP TABLE rebuilt; ALTER TABLE tmp RENAME TO rebuilt;
        CREATE VIEW v AS SELECT 1 AS one;
        CREATE TABLE passing (x); DROP TABLE passing;
    """
    made = made_by(earlier, "2", script)
    assert made.tables == {"new", "renamed"}
    assert made.columns == {("new", "a"), ("new", "b"), ("old", "z"), ("renamed", "x"), ("rebuilt", "w")}
    words = made_by([], "1", "CREATE VIRTUAL TABLE words USING fts5(word)")
    assert {"words", "words_content"} <= words.tables
    assert ("words", "word") in words.columns


def test_made_by_script_that_fails_is_named():
    """What cannot be replayed is an error, not an empty answer."""
    with pytest.raises(MigrationError, match=r"^2: replaying"):
        made_by([("1", "CREATE TABLE a (x)")], "2", "CREATE TABLE a (y)")


# ---------------------------------------------------------------- dump


def test_dump_executed_in_an_empty_database_makes_the_same_schema(tmp_path):
    """The file is a script: whatever the objects need and whatever comments they end with."""
    migrations = numbered(tmp_path / "other", OTHERS, "ALTER TABLE c RENAME TO d; ALTER TABLE a ADD COLUMN z TEXT;")
    text = dump.dump(migrations)
    made = read(*(migration.up.text for migration in migrations))
    assert model.differences(made, read(text)) == []
    assert len(made.objects) == 10
    connection = apsw.Connection(str(tmp_path / "plain.db"))
    connection.execute(text).fetchall()
    assert model.differences(made, reader.read(connection)) == []
    connection.close()


def test_dump_is_sorted_and_stable(tmp_path):
    """Tables come first, then indexes, views and triggers, each by name; the same schema is the same text."""
    scripts = [
        "CREATE TABLE b (x); CREATE TABLE a (x);",
        "CREATE VIEW v AS SELECT 1; CREATE INDEX b_x ON b (x); CREATE INDEX a_x ON a (x);",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
    ]
    assert dump.dump(numbered(tmp_path / "some", *scripts)) == (
        "-- The schema that the migrations make, up to and with 3.\n"
        "-- Written by `dao schema dump`: do not edit it, write a migration.\n"
        "\n"
        "CREATE TABLE a (x);\n\n"
        "CREATE TABLE b (x);\n\n"
        "CREATE INDEX a_x ON a (x);\n\n"
        "CREATE INDEX b_x ON b (x);\n\n"
        "CREATE VIEW v AS SELECT 1;\n\n"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;\n"
    )


def test_dump_of_own_migrations_executed_makes_what_they_make():
    """The schema file of this package is the schema of a migrated database."""
    made = read(*(migration.up.text for migration in OWN))
    assert model.differences(made, read(dump.dump(OWN))) == []


def test_own_schema_file_is_current():
    """`sql/sqlite.schema.sql` is what `dao schema dump` writes."""
    folder = migrate.default_folder()
    assert (folder.parent / "sqlite.schema.sql").read_text(encoding="utf-8") == dump.dump(OWN)


def test_difference_makes_json():
    """A difference is plain data, for `--json`."""
    [difference] = model.differences(read("CREATE TABLE a (x INT)"), read("CREATE TABLE a (x TEXT)"))
    assert attrs.asdict(difference) == {
        "kind": "changed",
        "type": "table",
        "name": "a",
        "part": "column x",
        "expected": "INT",
        "actual": "TEXT",
    }
