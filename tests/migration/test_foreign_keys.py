"""`-- foreign_keys: on`: a file that runs with foreign keys enforced, in a transaction of its own."""

from __future__ import annotations

import apsw
import pytest

from dao import migrate
from dao.errors import CheckFailed, MigrationError, MigrationFailed
from tests.folders import dump, ids, query, tables, write

ON = "-- foreign_keys: on\n"
FAMILY = """
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (10, 1), (11, 2);
"""
CASCADE = ON + "-- allows: data-loss child\nDELETE FROM parent WHERE id = 1;"


def enforced(connection: apsw.Connection, folder, **arguments) -> dict[str, tuple[bool, bool]]:
    """Apply migrations; return of each script whether foreign keys were on and all before it is committed."""
    seen = {}
    other = apsw.Connection(connection.filename)

    def look(event):
        if isinstance(event, migrate.Started):
            ledger = "SELECT count(*) FROM sqlite_schema WHERE name = '_yoyo_migration'"
            rows = "SELECT count(*) FROM _yoyo_migration"
            committed = other.execute(rows).get if other.execute(ledger).get else 0
            seen[event.step.id] = (connection.pragma("foreign_keys") == 1, committed)

    migrate.apply(connection, folder, report=look, **arguments)
    other.close()
    return seen


def test_apply_each_file_says_whether_keys_are_enforced(theirs, tmp_path):
    """Such a file is alone in its transaction; those before it are committed, those after it share one again."""
    scripts = {f"{n}.sql": f"{ON if n in {3, 4, 7} else ''}CREATE TABLE t{n} (id);" for n in range(1, 8)}
    theirs.pragma("journal_mode", "wal")
    assert enforced(theirs, write(tmp_path / "sql", scripts)) == {
        "1": (False, 0),
        "2": (False, 0),
        "3": (True, 2),
        "4": (True, 3),
        "5": (False, 4),
        "6": (False, 4),
        "7": (True, 6),
    }


@pytest.mark.parametrize("setting", [True, False])
def test_apply_puts_the_setting_of_the_connection_back(theirs, tmp_path, setting):
    """Whatever the caller's connection had, it has again."""
    theirs.pragma("foreign_keys", setting)
    migrate.apply(theirs, write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": CASCADE}))
    assert theirs.pragma("foreign_keys") == setting
    assert theirs.execute("SELECT id FROM child").fetchall() == [(11,)]
    with pytest.raises(MigrationFailed):
        migrate.apply(theirs, write(tmp_path / "sql", {"3.sql": ON + "INSERT INTO child VALUES (1, 99);"}))
    assert theirs.pragma("foreign_keys") == setting


def test_apply_file_that_does_not_say_so_does_not_enforce(path, url, tmp_path):
    """The default is off: a table can be rebuilt without its children going with it."""
    script = "CREATE TABLE n AS SELECT * FROM parent; DROP TABLE parent; ALTER TABLE n RENAME TO parent;"
    unique = "CREATE UNIQUE INDEX parent_id ON parent (id);"
    migrate.apply(url, write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": f"-- foreign_keys: off\n{script}{unique}"}))
    assert query(path, "SELECT id FROM child ORDER BY 1") == [(10,), (11,)]


def test_apply_cascade_is_carried_out(path, url, tmp_path):
    """With keys enforced, children go with their parents, if the file says that it means it."""
    assert ids(migrate.apply(url, write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": CASCADE}))) == ["1", "2"]
    assert query(path, "SELECT id FROM child") == [(11,)]


@pytest.mark.parametrize("each", [True, False])
def test_apply_broken_key_fails_at_its_statement(path, url, tmp_path, each):
    """A key that is broken is an error of the statement, in its line; what was committed before stays."""
    folder = write(
        tmp_path / "sql",
        {
            "1.sql": FAMILY,
            "2.sql": ON + "SELECT 1;\nINSERT INTO child VALUES (12, 99);",
            "3.sql": "CREATE TABLE x (id);",
        },
    )
    with pytest.raises(MigrationFailed, match=r"2\.sql:3: .*FOREIGN KEY") as caught:
        migrate.apply(url, folder, each=each)
    assert caught.value.line == 3
    assert str(caught.value).endswith("These stay committed: 1.")
    assert migrate.status(url, folder).ids("applied") == ["1"]
    assert "x" not in tables(path)


def test_apply_deferred_broken_key_is_refused_at_the_end(path, url, tmp_path):
    """A deferred key that is still broken at the end of the file undoes the file."""
    deferred = "CREATE TABLE d (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (99);"
    folder = write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": ON + deferred})
    with pytest.raises(CheckFailed, match="d: id = 99 refers to a row of parent that does not exist"):
        migrate.apply(url, folder)
    assert migrate.status(url, folder).ids("pending") == ["2"]
    assert "d" not in tables(path)
    write(folder, {"2.sql": ON + deferred + "INSERT INTO parent VALUES (99);"})
    assert ids(migrate.apply(url, folder)) == ["2"]


def test_apply_key_that_was_broken_before_is_tolerated(path, url, tmp_path):
    """What was broken before such a file does not stop it."""
    folder = write(tmp_path / "sql", {"1.sql": FAMILY})
    migrate.apply(url, folder)
    query(path, "INSERT INTO child VALUES (12, 99)")
    write(folder, {"2.sql": ON + "CREATE TABLE x (id); INSERT INTO child VALUES (13, 1);"})
    assert ids(migrate.apply(url, folder)) == ["2"]


def test_apply_refused_loss_stops_the_run_between_the_transactions(path, url, tmp_path):
    """A cascade that is not declared undoes its file alone; the run does not go on."""
    folder = write(
        tmp_path / "sql",
        {"1.sql": FAMILY, "2.sql": ON + "DELETE FROM parent WHERE id = 1;", "3.sql": "CREATE TABLE x (id);"},
    )
    with pytest.raises(CheckFailed, match=r"child: 1 row that no DELETE(?s:.)*These stay committed: 1\."):
        migrate.apply(url, folder)
    assert query(path, "SELECT count(*) FROM parent") == [(2,)]
    assert tables(path) == ["child", "parent"]


def test_rollback_has_its_own_directive(path, url, tmp_path):
    """A rollback script says for itself whether keys are enforced, also from the ledger."""
    folder = write(
        tmp_path / "sql",
        {
            "1.sql": FAMILY,
            "2.sql": "INSERT INTO parent VALUES (3); INSERT INTO child VALUES (12, 3);",
            "2.rollback.sql": "-- foreign_keys: on\n-- allows: data-loss child\nDELETE FROM parent WHERE id = 3;",
        },
    )
    migrate.apply(url, folder)
    (step,) = migrate.plan(url, folder, direction="rollback")
    assert step.script.foreign_keys
    (folder / "2.sql").unlink()
    (folder / "2.rollback.sql").unlink()
    assert ids(migrate.rollback(url, folder)) == ["2"]
    assert query(path, "SELECT id FROM child") == [(10,), (11,)]


def test_redo_with_enforced_keys_undoes_and_applies_again(path, url, tmp_path):
    """Its two scripts are two transactions then."""
    folder = write(
        tmp_path / "sql",
        {
            "1.sql": FAMILY,
            "2.sql": ON + "CREATE TABLE x (id REFERENCES parent (id));",
            "2.rollback.sql": "DROP TABLE x;",
        },
    )
    migrate.apply(url, folder)
    assert ids(migrate.redo(url, folder)) == ["2", "2"]
    assert migrate.status(url, folder).is_current


def test_reset_with_a_script_of_its_own_transaction_is_refused(path, url, tmp_path):
    """A reset that could fail after everything was dropped is not begun."""
    folder = write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": CASCADE + "SELEC 1;"})
    with pytest.raises(MigrationFailed):
        migrate.apply(url, folder)
    before = dump(path)
    with pytest.raises(MigrationError, match=r"the transaction of the others \(2\).* Nothing was changed; migrate"):
        migrate.reset(url, folder)
    assert dump(path) == before


@pytest.mark.parametrize("line", ["PRAGMA foreign_keys = OFF;", "PRAGMA foreign_keys = ON;"])
def test_apply_pragma_in_the_file_has_no_effect(path, url, tmp_path, line):
    """What the file says at its top is what counts: inside of a transaction the pragma cannot."""
    script = f"{ON}{line}INSERT INTO child VALUES (12, 99);"
    with pytest.raises(MigrationFailed, match="FOREIGN KEY"):
        migrate.apply(url, write(tmp_path / "sql", {"1.sql": FAMILY, "2.sql": script}))


def test_apply_orphans_are_told_apart_by_the_rowid_whatever_they_hold(path, url, tmp_path):
    """A text that is not UTF-8 was called damage, and a column `rowid` was read for the rowid: the new one passed."""
    query(path, "CREATE TABLE p (id TEXT PRIMARY KEY); CREATE TABLE c (rowid INTEGER, p REFERENCES p)")
    query(path, "PRAGMA foreign_keys = off; INSERT INTO c VALUES (0, CAST(x'ff' AS TEXT))")
    write(tmp_path, {"0001_a.sql": "CREATE TABLE t (a);"})
    migrate.apply(url, tmp_path)
    write(tmp_path, {"0002_b.sql": "DELETE FROM c; INSERT INTO c VALUES (0, 'new');"})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, tmp_path)
    assert [one.values for one in caught.value.violations] == [("new",)]
