"""A schema that its migrations do not make is noticed, and nothing else is taken for it.

Two numbers and a row are enough.
"""

from __future__ import annotations

import subprocess
import sys

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import LedgerMismatch, MigrationError, MigrationFailed
from dao.migrate.ledger.drift import diff
from dao.migrate.schema import catalog
from tests.folders import ALONE, IDS, THREE, ids, query, with_fourth, write

#: A table with all that can hang on one.
FOURTH = """
CREATE TABLE t (id INTEGER PRIMARY KEY, x REFERENCES a (id), y DEFAULT 1);
CREATE INDEX t_x ON t (x);
CREATE VIEW v AS SELECT x FROM t;
CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END;
"""
UNDO = "DROP TABLE t; DROP VIEW v;"


@pytest.fixture
def folder(url, tmp_path):
    """A folder of four migrations that are applied."""
    folder = with_fourth(tmp_path / "sql", FOURTH, rollback=UNDO)
    migrate.apply(url, folder)
    return folder


def drift(url, folder):
    """Return the drift that `status` tells, which is also that of `assert_current` if all is applied."""
    status = migrate.status(url, folder)
    assert status.is_current == (not status.drift and not status.ids("pending"))
    if status.drift and not status.ids("changed", "unfinished", "missing"):
        connection = dao.connect(url)
        with pytest.raises(LedgerMismatch) as caught:
            migrate.assert_current(connection, folder)
        connection.close()
        assert caught.value.drift == status.drift
        assert f"the schema is not what its migrations make: {status.drift[0]}" in str(caught.value)
    return list(status.drift)


@pytest.fixture
def no_replay(monkeypatch):
    """Replaying migrations fails the test."""

    def fail(*_arguments):
        raise AssertionError("the migrations were replayed")

    monkeypatch.setattr("dao.migrate.ledger.expected.replayed", fail)


# ---------------------------------------------------------------- noticed

BY_HAND = {
    "index": ("CREATE INDEX mine ON t (y)", "index mine is unexpected"),
    "index dropped": ("DROP INDEX t_x", "index t_x is missing"),
    "column": ("ALTER TABLE t ADD COLUMN z", "table t: column z is unexpected"),
    "column dropped": ("ALTER TABLE t DROP COLUMN y", "table t: column y is missing"),
    "trigger": ("CREATE TRIGGER h AFTER DELETE ON t BEGIN SELECT 1; END", "trigger h is unexpected"),
    "trigger changed": (
        "DROP TRIGGER g; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 2; END",
        "trigger g: is CREATE",
    ),
    "view changed": ("DROP VIEW v; CREATE VIEW v AS SELECT y FROM t", "view v: is CREATE VIEW"),
    "table dropped": ("DROP TABLE c", "table c is missing"),
    "constraint": (
        "ALTER TABLE t ALTER COLUMN y SET NOT NULL",
        "table t: column y: is",
    ),
}


@pytest.mark.parametrize(("change", "message"), BY_HAND.values(), ids=BY_HAND)
def test_status_change_by_hand_is_told(path, url, folder, change, message):
    """Whatever somebody did to what the migrations made is named, and is gone from the message once undone."""
    query(path, change)
    (found, *_) = drift(url, folder)
    assert message.split(": is")[0] in found
    assert found == str(diff(url, folder)[0])


def test_status_change_undone_by_hand_is_no_drift(path, url, folder):
    """Only what there is counts."""
    query(path, "CREATE INDEX mine ON t (y)")
    assert drift(url, folder)
    query(path, "DROP INDEX mine")
    assert drift(url, folder) == []


# ---------------------------------------------------------------- not noticed

HARMLESS = {
    "nothing": "SELECT 1",
    "rows": "INSERT INTO t (x) VALUES (NULL); DELETE FROM b",
    "ANALYZE": "INSERT INTO b VALUES (7); ANALYZE",
    "VACUUM": "VACUUM",
    "user version": "PRAGMA user_version = 7",
    "done and undone": "CREATE TABLE x (id); DROP TABLE x",
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_status_change_that_is_none_of_the_schema_is_no_drift(path, url, folder, change, no_replay):
    """Rows, statistics and VACUUM do not change a schema, and that is known without replaying the migrations."""
    query(path, change)
    assert drift(url, folder) == []
    connection = dao.connect(url)
    migrate.assert_current(connection, folder)
    connection.close()


def test_status_tables_of_others_are_no_drift(path, url, folder):
    """Another program may keep its tables in the file, whatever hangs on them."""
    query(
        path,
        "CREATE TABLE theirs (id, x UNIQUE); CREATE INDEX i ON theirs (id); CREATE VIEW w AS SELECT * FROM theirs;"
        "CREATE VIRTUAL TABLE docs USING fts5 (x); CREATE TRIGGER tg AFTER INSERT ON theirs BEGIN SELECT 1; END",
    )
    assert drift(url, folder) == []


def test_status_tables_of_others_from_before_are_no_drift(path, url, three, request):
    """Those that were there before the first run are none, either; then nothing has to be replayed to know it."""
    query(path, "CREATE VIEW w AS SELECT 1")
    migrate.apply(url, three)
    request.getfixturevalue("no_replay")
    assert drift(url, three) == []


@pytest.mark.parametrize("theirs", ["CREATE TABLE a (id, theirs)", "CREATE VIEW a AS SELECT 1 AS id"])
def test_status_table_of_others_that_a_migration_took_for_its_own_is_drift(path, url, tmp_path, theirs):
    """What IF NOT EXISTS met under a name is compared, too: it was noted as what the migrations make, unseen."""
    query(path, theirs)
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE IF NOT EXISTS a (id);"})
    heard = []
    migrate.apply(url, folder, report=heard.append)
    assert drift(url, folder)
    assert [str(one) for one in heard[-1].differences] == drift(url, folder)


def test_status_without_a_change_costs_two_small_statements(path, url, folder, no_replay):
    """What is asked at every start of a program does not grow with the migrations: it reads a version and a row."""
    statements = {}
    for number in (0, 30):
        write(folder, {f"1{n:03}_x.sql": f"CREATE TABLE x{n} (id);" for n in range(number)})
        migrate.apply(url, folder)
        connection = apsw.Connection(str(path))
        seen = []
        connection.exec_trace = lambda _cursor, sql, _bindings, seen=seen: seen.append(sql) or True
        migrate.assert_current(connection, folder)
        connection.close()
        assert not any("sqlite_schema" in sql and "sql" in sql.partition("FROM")[0].split() for sql in seen)
        statements[number] = len(seen)
    assert statements[0] == statements[30]


# ---------------------------------------------------------------- after what we did ourselves


def test_apply_leaves_no_drift(url, three, no_replay):
    """What a run makes is what the migrations make, at each step, and is known without replaying them."""
    for _ in IDS:
        migrate.apply(url, three, steps=1)
        assert drift(url, three) == []


def test_rollback_leaves_no_drift(url, three, request):
    """What is undone as it was done is no difference, is not reported, and is known from then on without replaying."""
    migrate.apply(url, three)
    heard = []
    migrate.rollback(url, three, steps=None, each=True, snapshots=0, allow_data_loss=True, report=heard.append)
    assert not any(isinstance(event, migrate.Drifted) for event in heard)
    request.getfixturevalue("no_replay")
    assert drift(url, three) == []


TRIGGER = "CREATE TRIGGER g AFTER INSERT ON n BEGIN SELECT 1; END;"
#: By what a migration does, and its rollback does not quite undo: the two, and what is told.
WRONG = {
    "type": ("ALTER TABLE n ADD COLUMN y;", f"DROP TABLE n; CREATE TABLE n (x REAL); {TRIGGER}", "column x is REAL"),
    "table left": ("CREATE TABLE z (id);", "SELECT 1;", "table z is unexpected"),
    "view left": ("CREATE VIEW z AS SELECT 1; CREATE TABLE y (id);", "DROP TABLE y;", "view z is unexpected"),
    "virtual table left": ("CREATE VIRTUAL TABLE z USING fts5 (t);", "SELECT 1;", "virtual table z is unexpected"),
    "table made": ("CREATE TABLE y (id);", "DROP TABLE y; CREATE TABLE z AS SELECT * FROM n;", "table z is unexpected"),
    "view made": ("CREATE TABLE y (id);", "DROP TABLE y; CREATE VIEW Z AS SELECT 1;", "view Z is unexpected"),
    "table misnamed": ("CREATE TABLE y (id);", "ALTER TABLE y RENAME TO z;", "table z is unexpected"),
    "index left": ("CREATE INDEX z ON n (x); CREATE TABLE y (id);", "DROP TABLE y;", "index z is unexpected"),
    "trigger lost": ("CREATE TABLE y (id);", "DROP TABLE y; DROP TRIGGER g;", "trigger g is missing"),
    "too much": ("CREATE TABLE y (id);", "DROP TABLE y; DROP TABLE n;", "table n is missing"),
}


@pytest.fixture
def wrong(url, tmp_path):
    """Make a folder of two migrations, the second with a rollback, and apply it."""

    def make(script, undo):
        first = f"CREATE TABLE n (x NUMERIC); {TRIGGER}"
        folder = write(tmp_path / "sql", {"1_n.sql": first, "2_z.sql": script, "2_z.rollback.sql": undo})
        migrate.apply(url, folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("script", "undo", "message", "how"),
    [(*case, "together") for case in WRONG.values()]
    + [(*WRONG[name], how) for name in ("type", "table left", "table made") for how in ("each", "alone")],
)
def test_rollback_to_another_schema_is_told_and_stays_known(path, url, wrong, script, undo, message, how):
    """A rollback that does not end at the schema before its migration runs, and says so: it was noted as expected."""
    query(path, "CREATE TABLE theirs (id)")
    folder = wrong(f"{ALONE}{script}" if how == "alone" else script, undo)
    heard = []
    assert ids(migrate.rollback(url, folder, each=how == "each", report=heard.append)) == ["2_z"]
    (told,) = [event for event in heard if isinstance(event, migrate.Drifted)]
    (found,) = told.differences
    assert message in str(found)
    assert told.unknown is None
    assert drift(url, folder) == [str(found)]


def test_rollback_all_that_leaves_a_table_is_told(url, wrong):
    """Without any migration left, what they made and left is a difference as well; a table of others is none."""
    folder = wrong("CREATE TABLE z (id);", "SELECT 1;")
    write(folder, {"1_n.rollback.sql": "SELECT 1;"})
    migrate.accept(url, ["1_n"], folder)
    migrate.rollback(url, folder, steps=None)
    assert drift(url, folder) == ["table n is unexpected", "table z is unexpected"]


def test_table_left_behind_is_forgotten_with_its_cause(path, url, wrong):
    """What was left is no difference any more once it is dropped, or claimed again, nor is a later one of that name."""
    folder = wrong("CREATE TABLE IF NOT EXISTS z (id);", "SELECT 1;")
    migrate.rollback(url, folder)
    assert drift(url, folder) == ["table z is unexpected"]
    heard = []
    migrate.apply(url, folder, report=heard.append)
    assert drift(url, folder) == []
    assert not any(isinstance(event, migrate.Drifted) for event in heard)
    migrate.rollback(url, folder)
    query(path, "DROP TABLE z")
    assert drift(url, folder) == []
    write(folder, {"1_n.rollback.sql": "DROP TABLE n;"})
    migrate.accept(url, ["1_n"], folder)
    query(path, "CREATE TABLE z (theirs)")
    assert drift(url, folder) == []


def test_redo_with_a_wrong_rollback_is_told(url, wrong):
    """What a redo makes of a schema that the rollback left is compared with what the files make now."""
    folder = wrong("CREATE TABLE IF NOT EXISTS z (id);", "SELECT 1;")
    write(folder, {"2_z.sql": "CREATE TABLE IF NOT EXISTS z (id, more);"})
    heard = []
    migrate.redo(url, folder, report=heard.append)
    assert drift(url, folder) == ["table z: column more is missing"]
    assert [str(one) for one in heard[-1].differences] == drift(url, folder)


@pytest.mark.parametrize("verb", ["unmark", "accept", "resolve"])
def test_ledger_without_what_the_schema_still_has_is_drift(path, url, wrong, verb):
    """A table of a migration that is not noted any more is no table of others: it was passed over as one."""
    folder = wrong(f"{ALONE}CREATE TABLE z (id);", "SELECT 1; SELEC;")
    if verb == "unmark":
        migrate.unmark(url, ["2_z"], folder)
    elif verb == "accept":
        write(folder, {"2_z.sql": "SELECT 1;"})
        migrate.accept(url, ["2_z"], folder)
    else:
        with pytest.raises(MigrationFailed):
            migrate.rollback(url, folder)
        migrate.resolve(url, "2_z", "rolled back", folder)
    assert drift(url, folder) == ["table z is unexpected"]
    snapshot = migrate.take_snapshot(url)
    query(path, "DROP TABLE z")
    assert drift(url, folder) == []
    migrate.restore(url, snapshot.id)
    assert drift(url, folder) == ["table z is unexpected"]


def test_rollback_that_cannot_be_compared_says_so(path, url, tmp_path):
    """Where the migrations do not run in an empty database, the rollback says that nothing was compared."""
    query(path, "CREATE TABLE theirs (id)")
    folder = write(tmp_path / "sql", {"1_x.sql": "CREATE INDEX x ON theirs (id);", "2_y.sql": "CREATE TABLE y (id);"})
    write(folder, {"2_y.rollback.sql": "DROP TABLE y;"})
    heard = []
    migrate.apply(url, folder, report=heard.append)
    assert not any(isinstance(event, migrate.Drifted) for event in heard)
    migrate.rollback(url, folder, report=heard.append)
    assert heard[-1].differences == ()
    assert "1_x: replaying this migration in an empty database fails (no such table: main.theirs)" in heard[-1].unknown


def test_redo_and_reset_leave_no_drift(url, folder):
    """Nor does anything that is done again, also with another text."""
    migrate.redo(url, folder)
    assert drift(url, folder) == []
    write(folder, {"0004_x.sql": FOURTH.replace("DEFAULT 1", "DEFAULT 2")})
    migrate.redo(url, folder)
    assert drift(url, folder) == []
    write(folder, {"0004_x.sql": FOURTH.replace("DEFAULT 1", "DEFAULT 3")})
    migrate.reset(url, folder)
    assert drift(url, folder) == []


@pytest.mark.parametrize("verb", ["apply", "apply alone", "rollback", "redo"])
def test_run_on_a_drifted_schema_leaves_the_drift_noticed(path, url, folder, verb):
    """What was wrong before a run still is after it: a run takes nothing that it did not make for its own."""
    query(path, "CREATE INDEX mine ON a (id)")
    before = drift(url, folder)
    alone = ALONE if verb == "apply alone" else ""
    write(folder, {"0005_y.sql": f"{alone}CREATE TABLE y (id);"})
    {"rollback": migrate.rollback, "redo": migrate.redo}.get(verb, migrate.apply)(url, folder)
    assert before == drift(url, folder) == ["index mine is unexpected"]
    query(path, "DROP INDEX mine")
    assert drift(url, folder) == []


def test_reset_of_a_drifted_schema_cures_it(path, url, folder):
    """What is dropped and made anew is as the migrations make it."""
    query(path, "CREATE INDEX mine ON a (id); ALTER TABLE b ADD COLUMN mine;")
    migrate.reset(url, folder)
    assert drift(url, folder) == []


def test_mark_and_unmark_of_what_is_not_so_is_drift(path, url, folder):
    """Who notes as applied what is not there is told, and who unmarks what is there."""
    write(folder, {"0005_y.sql": "CREATE TABLE y (id); CREATE INDEX y_id ON y (id); CREATE INDEX a_id ON a (id);"})
    migrate.mark(url, ["0005_y"], folder)
    assert drift(url, folder) == ["table y is missing", "index a_id is missing"]
    migrate.unmark(url, ["0005_y"], folder)
    assert drift(url, folder) == []
    query(path, "CREATE TABLE y (id); CREATE INDEX y_id ON y (id); CREATE INDEX a_id ON a (id);")
    assert "index a_id is unexpected" in drift(url, folder)
    migrate.mark(url, ["0005_y"], folder)
    assert drift(url, folder) == []


def test_accept_of_an_edit_that_changes_the_schema_is_drift(url, folder):
    """To accept a text does not make it so."""
    write(folder, {"0004_x.sql": f"-- Why.\n{FOURTH}"})
    migrate.accept(url, ["0004_x"], folder)
    assert drift(url, folder) == []
    write(folder, {"0004_x.sql": f"{FOURTH} CREATE INDEX another ON t (y);"})
    migrate.accept(url, ["0004_x"], folder)
    assert drift(url, folder) == ["index another is missing"]


def test_adopt_notes_the_schema_as_it_is(path, url, tmp_path):
    """A database that another tool made is compared from then on."""
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE a (id);"})
    query(path, "CREATE TABLE schema_migrations (version TEXT PRIMARY KEY); INSERT INTO schema_migrations VALUES ('1')")
    query(path, "CREATE TABLE a (id)")
    migrate.adopt(url, "dbmate", folder)
    assert drift(url, folder) == []
    query(path, "ALTER TABLE a ADD COLUMN x")
    assert drift(url, folder) == ["table a: column x is unexpected"]


def test_restore_brings_the_schema_of_the_snapshot(path, url, folder):
    """After a restore, the ledger and the schema are the snapshot's, so nothing has drifted that had not then."""
    query(path, "INSERT INTO b VALUES (9)")
    snapshot = migrate.take_snapshot(url)
    write(folder, {"0005_y.sql": "CREATE TABLE y (id);"})
    migrate.apply(url, folder, snapshots=0)
    query(path, "CREATE INDEX mine ON b (id)")
    assert drift(url, folder)
    migrate.restore(url, snapshot.id)
    assert migrate.status(url, folder).ids("pending") == ["0005_y"]
    assert list(migrate.status(url, folder).drift) == []
    migrate.apply(url, folder)
    assert drift(url, folder) == []


# ---------------------------------------------------------------- what others did, and what is not known


def stock_yoyo(verb, path, folder):
    """Run the stock yoyo command."""
    command = [
        sys.executable,
        "-m",
        "yoyo",
        verb,
        "--batch",
        "--no-config-file",
        "-d",
        f"sqlite:///{path}",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)


def test_status_more_applied_by_the_stock_yoyo_is_no_drift(path, url, three):
    """What yoyo applied since is the migrations' too."""
    migrate.apply(url, three, steps=1)
    stock_yoyo("apply", path, three)
    assert migrate.status(url, three).ids("applied") == IDS
    assert drift(url, three) == []
    query(path, "DROP TABLE c")
    assert drift(url, three) == ["table c is missing"]


def test_status_marked_by_the_stock_yoyo_without_its_tables_is_drift(path, url, three):
    """What yoyo only marked is not there, and a run does not take it for made, though the schema has not changed."""
    migrate.apply(url, three, steps=2)
    stock_yoyo("mark", path, three)
    assert migrate.status(url, three).ids("applied") == IDS
    assert drift(url, three) == ["table c is missing"]
    write(three, {"0004_x.sql": "CREATE TABLE x (id);"})
    migrate.apply(url, three)
    assert drift(url, three) == ["table c is missing"]


def older(path):
    """Make of a database one that an earlier version of this package wrote."""
    query(path, "DROP TABLE _dao_schema; DROP TABLE _dao_history;")


def test_status_note_of_an_earlier_version_is_not_trusted(path, url, wrong):
    """One that noted the schema after a rollback as expected without comparing it is compared now."""
    folder = wrong("ALTER TABLE n ADD COLUMN y;", "ALTER TABLE n DROP COLUMN y;")
    migrate.rollback(url, folder)
    query(path, "CREATE INDEX mine ON n (x)")
    version = query(path, "PRAGMA schema_version")[0][0]
    connection = dao.connect(url)
    live = catalog.fingerprint(catalog.definitions(connection))
    connection.close()
    query(path, "UPDATE _dao_schema SET schema_version = ?, live = ?, expected = ?", version, live, live)
    assert drift(url, folder) == ["index mine is unexpected"]


def test_status_database_of_an_earlier_version_is_compared(path, url, folder):
    """Where nothing was noted, the migrations are replayed, until a run notes it."""
    older(path)
    assert drift(url, folder) == []
    query(path, "DROP INDEX t_x")
    assert drift(url, folder) == ["index t_x is missing"]
    write(folder, {"0005_y.sql": "CREATE TABLE y (id);"})
    assert ids(migrate.apply(url, folder)) == ["0005_y"]
    assert drift(url, folder) == ["index t_x is missing"]


def test_status_migrations_that_cannot_be_replayed_is_no_drift(path, url, tmp_path):
    """Where it cannot be known what the migrations make, nothing is claimed."""
    query(path, "CREATE TABLE theirs (id); INSERT INTO theirs VALUES (1)")
    folder = write(tmp_path / "sql", {"1_x.sql": "CREATE TABLE x AS SELECT * FROM theirs;"})
    migrate.apply(url, folder)
    assert drift(url, folder) == []
    with pytest.raises(MigrationError, match="1_x: replaying this migration in an empty database fails"):
        diff(url, folder)


def test_status_unfinished_migration_is_not_compared(path, url, tmp_path):
    """In the middle of a script nobody knows what the schema should be; once resolved, it is known again."""
    folder = with_fourth(tmp_path / "sql", ALONE + "CREATE TABLE x (id); SELEC 1;")
    with pytest.raises(MigrationFailed):
        migrate.apply(url, folder)
    assert migrate.status(url, folder).drift == ()
    write(folder, {"0004_x.sql": ALONE + "CREATE TABLE x (id);"})
    migrate.resolve(url, "0004_x", "applied", folder)
    assert drift(url, folder) == []
    query(path, "DROP TABLE x")
    assert drift(url, folder) == ["table x is missing"]


def test_assert_current_says_how_many_differences_there_are(path, url, folder):
    """One is shown, the others counted, and the command is named that shows all."""
    query(path, "DROP TABLE a; DROP TABLE b; DROP INDEX t_x")
    connection = dao.connect(url)
    with pytest.raises(
        LedgerMismatch, match=r"new\.db: .*: table a is missing, and 2 more; `dao schema diff` shows all"
    ):
        migrate.assert_current(connection, folder)
    connection.close()


def test_assert_current_drift_comes_before_pending(path, url, folder):
    """A schema that somebody changed is not put right by migrating."""
    write(folder, {"0005_y.sql": THREE["0003_c.sql"].replace(" c ", " y ")})
    query(path, "DROP INDEX t_x")
    assert drift(url, folder) == ["index t_x is missing"]
