"""`redo` and `reset`: for a schema that is being written, and just as careful with what is there."""

from __future__ import annotations

import pytest

from dao import migrate
from dao.errors import CheckFailed, LedgerMismatch, MigrationError, MigrationFailed
from tests.folders import ALONE, IDS, dump, ids, query, schema, tables, with_fourth, write

# ---------------------------------------------------------------- redo


def test_redo_latest_is_undone_and_applied_again(path, url, three):
    """The latest migration starts anew, without the rows that came into it since."""
    migrate.apply(url, three)
    query(path, "INSERT INTO c VALUES (7)")
    before = schema(path)
    results = migrate.redo(url, three)
    assert [(result.id, result.direction) for result in results] == [("0003_c", "rollback"), ("0003_c", "apply")]
    assert schema(path) == before
    assert query(path, "SELECT count(*) FROM c") == [(0,)]


def test_redo_several_are_undone_backwards_and_applied_forwards(path, url, three):
    """Of several migrations each is undone, then each applied, as they were."""
    migrate.apply(url, three)
    assert ids(migrate.redo(url, three, steps=2)) == ["0003_c", "0002_b", "0002_b", "0003_c"]
    assert ids(migrate.redo(url, three, steps=99)) == [*IDS[::-1], *IDS]
    assert migrate.status(url, three).ids("applied") == IDS
    assert query(path, "SELECT id FROM b") == [(2,)]


def test_redo_nothing_applied_does_nothing(path, url, three):
    """Where nothing is applied there is nothing to do again."""
    query(path, "CREATE TABLE theirs (id)")
    assert migrate.redo(url, three) == []
    assert tables(path) == ["theirs"]


def test_redo_edited_file_is_undone_as_it_was_and_applied_as_it_is(path, url, three):
    """The rollback is the one that was applied, the new text the one in the file."""
    migrate.apply(url, three)
    write(three, {"0003_c.sql": "CREATE TABLE cc (id);", "0003_c.rollback.sql": "DROP TABLE cc;"})
    assert ids(migrate.redo(url, three)) == ["0003_c", "0003_c"]
    assert tables(path) == ["a", "b", "cc"]
    assert migrate.status(url, three).is_current
    assert ids(migrate.rollback(url, three)) == ["0003_c"]
    assert tables(path) == ["a", "b"]


@pytest.mark.parametrize("rollback", [None, "-- To be written.\n"], ids=["none", "comment"])
def test_redo_rollback_that_was_written_since_is_taken_from_the_file(path, url, tmp_path, rollback):
    """If there was no rollback script when it was applied, the one that is there now does."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", rollback=rollback)
    migrate.apply(url, folder)
    write(folder, {"0004_x.rollback.sql": "DROP TABLE x;"})
    assert ids(migrate.redo(url, folder)) == ["0004_x", "0004_x"]
    assert migrate.status(url, folder).is_current
    assert tables(path) == ["a", "b", "c", "x"]


def test_redo_migration_that_was_empty_is_applied_as_it_was_written_since(path, url, three):
    """A new pair that was applied before it was written has nothing to undo, and both its scripts count from now on."""
    script, rollback = migrate.new("write me", three)
    migrate.apply(url, three)
    script.write_text("CREATE TABLE x (id);")
    rollback.write_text("DROP TABLE x;")
    assert ids(migrate.redo(url, three)) == [script.stem] * 2
    assert tables(path) == ["a", "b", "c", "x"]
    assert ids(migrate.rollback(url, three)) == [script.stem]
    assert tables(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("old", "new"), [(ALONE + "VACUUM;", "SELECT 1;"), ("SELECT 1;", ALONE + "VACUUM;")], ids=["no more", "now"]
)
def test_redo_each_text_says_for_itself_whether_it_runs_in_a_transaction(url, tmp_path, old, new):
    """The rollback runs as the applied text asked for, the new text as it asks for itself."""
    rollback = "VACUUM;" if old.startswith(ALONE) else "SELECT 1;"
    folder = with_fourth(tmp_path / "sql", old, rollback=rollback)
    migrate.apply(url, folder)
    write(folder, {"0004_x.sql": new})
    assert ids(migrate.redo(url, folder)) == ["0004_x", "0004_x"]
    assert migrate.status(url, folder).is_current


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("CREATE TABLE c (id); SELEC 1;", MigrationFailed),
        ("CREATE TABLE c (id REFERENCES a (id)); INSERT INTO c VALUES (9);", CheckFailed),
    ],
    ids=["script", "check"],
)
def test_redo_failure_leaves_everything_as_before(path, url, three, script, error):
    """If the new text fails, the old schema with its rows is still there."""
    migrate.apply(url, three)
    query(path, "INSERT INTO c VALUES (7)")
    before = dump(path)
    write(three, {"0003_c.sql": script})
    with pytest.raises(error, match="Nothing was changed"):
        migrate.redo(url, three)
    assert dump(path) == before


def test_redo_edit_of_another_is_refused(path, url, three):
    """Only what is done again may have been edited."""
    migrate.apply(url, three)
    write(three, {"0002_b.sql": "CREATE TABLE b (id);"})
    before = dump(path)
    with pytest.raises(LedgerMismatch) as caught:
        migrate.redo(url, three, steps=1)
    assert caught.value.changed == ("0002_b",)
    assert dump(path) == before
    assert ids(migrate.redo(url, three, steps=2)) == ["0003_c", "0002_b", "0002_b", "0003_c"]


def test_redo_file_that_has_gone_is_refused(path, url, three):
    """What has no file cannot be applied again, so it is not undone."""
    migrate.apply(url, three)
    (three / "0003_c.sql").unlink()
    (three / "0003_c.rollback.sql").unlink()
    before = dump(path)
    with pytest.raises(LedgerMismatch, match="0003_c: it is applied, and its file has gone"):
        migrate.redo(url, three)
    assert dump(path) == before


# ---------------------------------------------------------------- reset

#: Everything that a schema can hold.
MENAGERIE = """
    CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, child_id REFERENCES child (id), "note; --" DEFAULT "dq");
    CREATE TABLE child (id TEXT PRIMARY KEY, parent_id REFERENCES parent (id)) WITHOUT ROWID;
    CREATE TABLE "odd ""name" (a, b AS (a + 1) STORED);
    CREATE UNIQUE INDEX child_parent ON child (parent_id);
    CREATE VIEW both AS SELECT * FROM parent JOIN child ON child.parent_id = parent.id;
    CREATE VIEW view_of_view AS SELECT * FROM both;
    CREATE TRIGGER stop BEFORE DELETE ON child BEGIN SELECT RAISE(ABORT, 'never'); END;
    CREATE TRIGGER instead INSTEAD OF INSERT ON both BEGIN INSERT INTO parent (child_id) VALUES (NULL); END;
    CREATE VIRTUAL TABLE docs USING fts5 (title, body);
    CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1);
    INSERT INTO parent (child_id) VALUES ('c'); INSERT INTO child VALUES ('c', 1); INSERT INTO docs VALUES ('t', 'b');
    INSERT INTO boxes VALUES (1, 0, 1);
    ANALYZE;
"""


def test_reset_drops_everything_and_applies_all_again(path, url, tmp_path):
    """Whatever the migrations made goes, rows included, and is made anew."""
    folder = with_fourth(tmp_path / "sql", MENAGERIE)
    migrate.apply(url, folder)
    before = schema(path)
    query(path, "INSERT INTO parent DEFAULT VALUES")
    query(path, "INSERT INTO docs VALUES ('more', 'rows')")
    assert ids(migrate.reset(url, folder)) == [*IDS, "0004_x"]
    assert schema(path) == before
    assert query(path, "SELECT count(*), max(id) FROM parent") == [(1, 1)]
    assert query(path, "SELECT count(*) FROM docs") == [(1,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert migrate.status(url, folder).is_current


def test_reset_scripts_may_take_what_they_have_made_themselves(path, url, tmp_path):
    """Tables that were there before it are nothing that a script can lose, whatever the first one is."""
    rebuild = "CREATE TABLE new (id); DROP TABLE a; ALTER TABLE new RENAME TO a;"
    make = "CREATE VIRTUAL TABLE f USING fts5 (text); CREATE TABLE a (id); INSERT INTO a VALUES (1);"
    folder = write(tmp_path / "sql", {"1.sql": make, "2.sql": rebuild})
    migrate.apply(url, folder)
    assert ids(migrate.reset(url, folder)) == ["1", "2"]
    assert query(path, "SELECT * FROM a") == []


def test_reset_database_that_does_not_exist_is_created(path, url, three):
    """On nothing, a reset is an apply."""
    assert ids(migrate.reset(url, three)) == IDS
    assert tables(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("CREATE TABLE theirs (id)", "table theirs"),
        ("CREATE VIEW theirs AS SELECT 1", "view theirs"),
        ("CREATE VIRTUAL TABLE theirs USING fts5 (x)", "table theirs, table theirs_config"),
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_reset_what_is_somebody_elses_is_refused(path, url, three, steps, script, message):
    """A table or view that no migration made is not dropped, and neither is anything else."""
    migrate.apply(url, three, steps=steps)
    query(path, script)
    before = dump(path)
    with pytest.raises(MigrationError, match=message):
        migrate.reset(url, three)
    assert dump(path).keys() == before.keys()
    assert dump(path) == before


def test_reset_leaves_the_tables_of_a_replicator(path, url, three):
    """Litestream's stand in nobody's way, and stay: it makes them when it starts, and goes on all the while."""
    migrate.apply(url, three)
    query(path, "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq)")
    query(path, "CREATE TABLE _litestream_lock (id)")
    migrate.reset(url, three)
    assert {"_litestream_seq", "_litestream_lock"} <= {*tables(path)}


def test_reset_failure_leaves_everything_as_before(path, url, tmp_path):
    """If a migration fails when it is applied anew, the old schema with its rows is still there."""
    folder = with_fourth(tmp_path / "sql", MENAGERIE)
    migrate.apply(url, folder)
    query(path, "INSERT INTO docs VALUES ('more', 'rows')")
    before = dump(path)
    write(folder, {"0004_x.sql": MENAGERIE + "SELEC 1;"})
    with pytest.raises(MigrationFailed, match="Nothing was changed"):
        migrate.reset(url, folder)
    assert dump(path) == before


def test_reset_edited_removed_and_new_files_are_taken_as_they_are(path, url, three):
    """What the files were does not matter any more; what they made is known from the ledger."""
    migrate.apply(url, three)
    write(three, {"0001_a.sql": "CREATE TABLE aa (id);", "0000_first.sql": "CREATE TABLE first (id);"})
    (three / "0002_b.sql").unlink()
    (three / "0002_b.rollback.sql").unlink()
    assert ids(migrate.reset(url, three)) == ["0000_first", "0001_a", "0003_c"]
    assert tables(path) == ["aa", "c", "first"]
    kept = [("0000_first",), ("0001_a",), ("0003_c",)]
    assert query(path, "SELECT migration_id FROM _dao_migration ORDER BY 1") == kept
    assert migrate.status(url, three).is_current


@pytest.mark.parametrize(
    "script",
    [
        "COMMIT; BEGIN; CREATE TABLE x (id); COMMIT; BEGIN;",
        "PRAGMA foreign_keys = ON; CREATE TABLE x (id REFERENCES a (id)); INSERT INTO x VALUES (2); DELETE FROM x;",
        "CREATE TABLE old (id); ALTER TABLE old RENAME TO x; PRAGMA table_info(x); SELECT 'rows';",
    ],
    ids=["own transaction", "foreign keys", "renamed"],
)
def test_reset_any_script_is_told_from_somebody_elses(path, url, tmp_path, script):
    """What a script made is known, whatever it did about transactions."""
    folder = with_fourth(tmp_path / "sql", script)
    migrate.apply(url, folder)
    assert ids(migrate.reset(url, folder)) == [*IDS, "0004_x"]
    assert tables(path) == ["a", "b", "c", "x"]


def test_reset_with_a_script_outside_of_a_transaction_is_refused(path, url, tmp_path):
    """What could fail after everything was dropped is not begun."""
    folder = with_fourth(tmp_path / "sql", ALONE + "VACUUM;", "0002_x")
    migrate.apply(url, folder)
    before = dump(path)
    with pytest.raises(
        MigrationError,
        match=r"do not run in the transaction of the others \(0002_x\).* Nothing was changed; migrate a new",
    ):
        migrate.reset(url, folder)
    assert dump(path) == before


def test_reset_script_of_yoyo_that_attaches_is_not_replayed(path, url, three, tmp_path, monkeypatch):
    """To find out what a script made, no other file is opened."""
    monkeypatch.chdir(tmp_path)
    migrate.apply(url, three)
    query(path, "UPDATE _dao_migration SET apply_text = 'ATTACH ''o'' || ''.db'' AS o' WHERE migration_id = '0002_b'")
    with pytest.raises(MigrationError, match=r"0002_b: replaying .* fails \(refused ATTACH, DETACH and VACUUM INTO: "):
        migrate.reset(url, three)
    assert not (tmp_path / "o.db").exists()


def test_reset_what_cannot_be_told_is_refused(path, url, three):
    """If the applied migrations cannot be replayed, nothing is dropped."""
    migrate.apply(url, three)
    query(path, "UPDATE _dao_migration SET apply_text = 'INSERT INTO gone VALUES (1)' WHERE migration_id = '0002_b'")
    before = dump(path)
    with pytest.raises(
        MigrationError, match=r"0002_b: replaying .* in an empty database fails \(no such table: gone\)"
    ):
        migrate.reset(url, three)
    assert dump(path) == before


def test_reset_log_keeps_the_history(path, url, three):
    """Yoyo's log still tells what happened before a reset."""
    migrate.apply(url, three)
    migrate.reset(url, three)
    assert query(path, "SELECT count(*) FROM _yoyo_log WHERE operation = 'apply'") == [(2 * len(IDS),)]


def test_reset_names_of_another_case_are_the_same(path, url, tmp_path):
    """Names of another case are the same names, as they are to SQLite."""
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE Mixed (id); DROP TABLE mixed; CREATE TABLE MIXED (id);"})
    migrate.apply(url, folder)
    assert ids(migrate.reset(url, folder)) == ["1"]
    assert tables(path) == ["MIXED"]
