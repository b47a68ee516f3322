"""A run of migrations on each engine: one law, one loop, whatever the database is."""

from __future__ import annotations

import contextlib

import pytest

import dao
from dao import migrate
from dao.engine import execute
from dao.errors import CheckFailed, Irreversible, LedgerMismatch, MigrationError, MigrationFailed, SchemaOutOfDate
from dao.migrate.values import Loss
from tests.folders import ALONE, IDS, ids, with_fourth, write

FAMILY = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id) ON DELETE CASCADE);
CREATE TABLE empty (id INTEGER PRIMARY KEY, x TEXT);
"""
ROWS = ("INSERT INTO parent VALUES (1, 'a'), (2, NULL)", "INSERT INTO child VALUES (10, 1), (11, 1), (12, 2)")
NEW = "CREATE TABLE n (id INTEGER PRIMARY KEY, name TEXT);"
SWAP = "DROP TABLE child; ALTER TABLE n RENAME TO child;"


@pytest.fixture
def family(database, tmp_path):
    """A folder with a migration that is applied, and rows that came in since."""
    folder = write(
        tmp_path / "sql", {"1_setup.sql": FAMILY, "1_setup.rollback.sql": "DROP TABLE child, parent, empty;"}
    )
    migrate.apply(database.url, folder)
    with contextlib.closing(dao.connect(database.url)) as connection:
        for statement in ROWS:
            execute(connection, statement)
    return folder


# ---------------------------------------------------------------- all or nothing


def test_run_applies_all_in_order_and_then_nothing(database, three):
    """Scripts, ledger and history say the same, and a second run has nothing to do and changes nothing."""
    results = migrate.apply(database.url, three)
    assert [(one.id, one.direction, one.statements) for one in results] == [
        ("0001_a", "apply", 1),
        ("0002_b", "apply", 2),
        ("0003_c", "apply", 1),
    ]
    assert (database.tables(), database.fetch("SELECT id FROM b")) == (["a", "b", "c"], [(2,)])
    assert migrate.status(database.url, three).ids("applied") == IDS
    assert [(one.operation, one.id) for one in migrate.history(database.url)] == [("apply", id) for id in IDS]
    before = database.content()
    assert (migrate.apply(database.url, three), database.content()) == ([], before)


@pytest.mark.parametrize("script", ["SELECT nope;", "CREATE TABLE x (id INTEGER);\nINSERT INTO a VALUES (1), (1);"])
def test_run_that_fails_changes_nothing(database, tmp_path, script):
    """A script that fails takes the scripts before it along, and says where it was."""
    folder = with_fourth(tmp_path / "sql", script)
    with pytest.raises(MigrationFailed) as raised:
        migrate.apply(database.url, folder)
    assert (raised.value.migration, raised.value.line) == ("0004_x", script.count("\n") + 1)
    assert raised.value.committed == ()
    assert (database.tables(), migrate.status(database.url, folder).ids("applied")) == ([], [])
    assert ids(migrate.apply(database.url, write(folder, {"0004_x.sql": "CREATE TABLE x (id INTEGER);"}))) == [
        *IDS,
        "0004_x",
    ]


def test_run_each_keeps_what_was_committed(database, tmp_path):
    """With `each`, those before the one that fails stay, and the error says so."""
    folder = with_fourth(tmp_path / "sql", "SELECT nope;")
    with pytest.raises(MigrationFailed) as raised:
        migrate.apply(database.url, folder, each=True)
    assert raised.value.committed == tuple(IDS)
    assert database.tables() == ["a", "b", "c"]
    assert migrate.status(database.url, folder).ids("applied") == IDS


@pytest.mark.parametrize("steps", [None, 1, 2])
def test_run_of_many_leaves_what_many_runs_of_one_leave(database, tmp_path, steps):
    """Nothing of a script's session reaches the next one, so it does not matter in how many runs they come."""
    temporary = "CREATE TEMP TABLE t (id INTEGER); INSERT INTO t VALUES (7); INSERT INTO {} SELECT count(*) FROM t;"
    folder = with_fourth(tmp_path / "sql", temporary.format("c"))
    write(folder, {"0005_y.sql": temporary.format("a")})
    while migrate.apply(database.url, folder, steps=steps):
        pass
    assert (database.tables(), migrate.status(database.url, folder).ids("applied")[3:]) == (
        ["a", "b", "c"],
        ["0004_x", "0005_y"],
    )
    assert database.fetch("SELECT a.id, c.id FROM a, c") == [(1, 1)]


def test_run_interrupted_by_report_changes_nothing(database, three):
    """An exception of whoever listens undoes the run."""

    def interrupt(event):
        if isinstance(event, migrate.Finished) and event.result.id == "0002_b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate.apply(database.url, three, report=interrupt)
    assert database.tables() == []
    assert ids(migrate.apply(database.url, three)) == IDS


def test_run_tells_what_happens(database, tmp_path):
    """The events, their order and the notices are the same on each engine."""
    folder = write(
        tmp_path / "sql", {"1_a.sql": "BEGIN; CREATE TABLE a (id INTEGER); COMMIT;", "2_b.sql": "-- nothing"}
    )
    events: list[object] = []
    results = migrate.apply(database.url, folder, report=events.append)
    names = [type(event).__name__ for event in events if not isinstance(event, migrate.Created)]
    assert names == ["Started", "Notice", "Notice", "Finished", "Started", "Notice", "Finished", "Committed"]
    assert results[0].notices == (
        "ignored BEGIN: the run is one transaction already",
        "ignored COMMIT: the run is one transaction already",
    )
    assert results[1].notices == ("holds no statement: noted as applied, and nothing was done",)


def test_run_on_a_connection_of_the_callers(database, three):
    """It is left as it was, and one in a transaction is refused."""
    with contextlib.closing(dao.connect(database.url)) as connection:
        assert ids(migrate.apply(connection, three)) == IDS
        assert not dao.engine.in_transaction(connection)
        with dao.transaction(connection), pytest.raises(MigrationError, match="in the middle of a transaction"):
            migrate.apply(connection, three)


# ---------------------------------------------------------------- back, and again


def test_rollback_undoes_the_latest_first(database, three):
    """Step by step, and down to nothing."""
    migrate.apply(database.url, three)
    assert ids(migrate.rollback(database.url, three)) == ["0003_c"]
    assert ids(migrate.rollback(database.url, three, to="0001_a")) == ["0002_b"]
    assert (database.tables(), migrate.status(database.url, three).ids("applied")) == (["a"], ["0001_a"])
    assert ids(migrate.rollback(database.url, three, steps=None)) == ["0001_a"]
    assert database.tables() == []


def test_rollback_without_a_script_changes_nothing(database, tmp_path):
    """One that cannot be undone stops those after it, too."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id INTEGER);")
    migrate.apply(database.url, folder)
    with pytest.raises(Irreversible):
        migrate.rollback(database.url, folder, steps=2)
    assert database.tables() == ["a", "b", "c", "x"]


def test_rollback_may_drop_what_its_own_migration_made(database, family):
    """Tables and columns that its migration made hold rows by now, and go without a word."""
    write(family, {"2_more.sql": "ALTER TABLE parent ADD COLUMN more TEXT;"})
    write(family, {"2_more.rollback.sql": "ALTER TABLE parent DROP COLUMN more;"})
    migrate.apply(database.url, family)
    database.fetch("UPDATE parent SET more = 'x'")
    assert ids(migrate.rollback(database.url, family)) == ["2_more"]
    write(family, {"2_more.rollback.sql": "ALTER TABLE parent DROP COLUMN name;"})
    migrate.apply(database.url, family)
    with pytest.raises(CheckFailed) as raised:
        migrate.rollback(database.url, family)
    assert raised.value.violations == (Loss("column", "parent", 2, "name"),)


def test_plan_of_a_rollback_says_what_its_own_migration_made(database, family):
    """What goes with it is named before it goes, so far as its own migration made it."""
    more = "ALTER TABLE parent ADD COLUMN more TEXT; CREATE TABLE extra (id INTEGER);"
    write(family, {"2_more.sql": more})
    write(family, {"2_more.rollback.sql": "ALTER TABLE parent DROP COLUMN more; DROP TABLE extra;"})
    migrate.apply(database.url, family)
    (step,) = migrate.plan(database.url, family, direction="rollback")
    assert step.drops == ("column parent.more", "table extra")


def test_reset_begins_again_from_nothing(database, family):
    """Everything goes, rows included, in one transaction, and what a script drops then is not there any more."""
    write(family, {"2_more.sql": "DROP TABLE IF EXISTS extra; CREATE TABLE extra (id INTEGER);"})
    migrate.apply(database.url, family)
    database.fetch("INSERT INTO extra VALUES (7)")
    assert ids(migrate.reset(database.url, family)) == ["1_setup", "2_more"]
    assert database.tables() == ["child", "empty", "extra", "parent"]
    assert database.fetch("SELECT (SELECT count(*) FROM extra) + (SELECT count(*) FROM parent)") == [(0,)]
    assert migrate.status(database.url, family).ids("applied") == ["1_setup", "2_more"]


def test_redo_runs_the_latest_again(database, three):
    """A migration that is being written is undone as it was applied, and applied as it is now."""
    migrate.apply(database.url, three)
    write(three, {"0003_c.sql": "CREATE TABLE d (id INTEGER);", "0003_c.rollback.sql": "DROP TABLE d;"})
    assert [(one.id, one.direction) for one in migrate.redo(database.url, three)] == [
        ("0003_c", "rollback"),
        ("0003_c", "apply"),
    ]
    assert database.tables() == ["a", "b", "d"]


def test_edited_migration_is_noticed(database, three):
    """What was applied is not edited without a word."""
    migrate.apply(database.url, three)
    write(three, {"0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT);", "0004_d.sql": "SELECT 1;"})
    with pytest.raises(LedgerMismatch):
        migrate.apply(database.url, three)


# ---------------------------------------------------------------- parts


def test_run_outside_of_a_transaction_is_a_part_of_its_own(database, tmp_path):
    """What comes before it is committed, and what comes after it is not begun when it fails."""
    fourth = f"{ALONE}CREATE TABLE x (id INTEGER);\nSELECT nope;"
    folder = write(with_fourth(tmp_path / "sql", fourth), {"0005_y.sql": "CREATE TABLE y (id INTEGER);"})
    with pytest.raises(MigrationFailed) as raised:
        migrate.apply(database.url, folder)
    assert (raised.value.committed, raised.value.line) == (tuple(IDS), 3)
    assert "dao migrate resolve 0004_x" in str(raised.value)
    assert database.tables() == ["a", "b", "c", "x"]
    assert migrate.status(database.url, folder).ids("unfinished") == ["0004_x"]
    with pytest.raises(LedgerMismatch):
        migrate.apply(database.url, folder)
    migrate.resolve(database.url, "0004_x", "applied", folder)
    assert ids(migrate.apply(database.url, folder)) == ["0005_y"]


# ---------------------------------------------------------------- what gets lost

LOSSES = {
    "cascade": ("DELETE FROM parent WHERE id = 1;", [Loss("rows", "child", 2)]),
    "table": ("DROP TABLE child;", [Loss("table", "child", 3)]),
    "column": ("ALTER TABLE parent DROP COLUMN name;", [Loss("column", "parent", 2, "name")]),
    "rebuild without rows": (f"{NEW} INSERT INTO n (id) SELECT id FROM child WHERE id > 11; {SWAP}", None),
    "rebuild of other rows": (f"{NEW} INSERT INTO n VALUES (1, 'a'), (2, 'b'), (3, 'c'); {SWAP}", None),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", LOSSES)
def test_run_that_loses_data_is_refused_until_it_is_declared(database, family, name):
    """Rows that no DELETE names, tables with rows, columns with values: refused, declared in the script, or allowed."""
    script, losses = LOSSES[name]
    if name == "cascade" and database.engine == "sqlite":
        script = f"-- foreign_keys: on\n{script}"
    write(family, {"2_x.sql": script})
    before = database.content()
    with pytest.raises(CheckFailed) as raised:
        migrate.apply(database.url, family)
    assert raised.value.committed == ()
    assert losses is None or list(raised.value.violations) == losses
    assert database.content() == before
    lines = "".join(f"{loss.declaration}\n" for loss in raised.value.violations)
    write(family, {"2_x.sql": lines + script})
    (result,) = migrate.apply(database.url, family)
    assert result.losses == raised.value.violations


def test_run_that_loses_data_goes_through_when_it_is_allowed(database, family):
    """`allow_loss` names it, for one run."""
    write(family, {"2_x.sql": "DROP TABLE child;", "3_y.sql": "ALTER TABLE parent DROP COLUMN name;"})
    with pytest.raises(CheckFailed):
        migrate.apply(database.url, family, allow_loss=["child"])
    results = migrate.apply(database.url, family, allow_loss=["child", "parent.name"])
    assert [one.losses for one in results] == [(Loss("table", "child", 3),), (Loss("column", "parent", 2, "name"),)]


KEPT = {
    "delete": "DELETE FROM child WHERE id > 10;",
    "empty table": "DROP TABLE empty;",
    "empty column": "ALTER TABLE empty DROP COLUMN x;",
    "own table": "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1); DROP TABLE t;",
    "retyped": "ALTER TABLE parent ADD COLUMN y TEXT; UPDATE parent SET y = name; ALTER TABLE parent DROP COLUMN name; "
    "ALTER TABLE parent RENAME COLUMN y TO name;",
    "rebuilt": "CREATE TABLE n (id INTEGER PRIMARY KEY, parent INTEGER); INSERT INTO n SELECT id, parent FROM child; "
    f"{SWAP}",
    "rebuilt over a copy": "CREATE TEMP TABLE k AS SELECT * FROM child; DROP TABLE child; "
    "CREATE TABLE child (id INTEGER, parent INTEGER); INSERT INTO child SELECT * FROM k;",
    "rebuilt and cleaned": "ALTER TABLE child RENAME TO o; CREATE TABLE child (id INTEGER, parent INTEGER); "
    "INSERT INTO child SELECT id, parent FROM o; DROP TABLE o; DELETE FROM child WHERE id = 10;",
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", KEPT)
def test_run_that_keeps_the_data_goes_through(database, family, name):
    """What a script deletes by name is meant, and a table that is rebuilt with its rows has lost none."""
    write(family, {"2_x.sql": KEPT[name]})
    (result,) = migrate.apply(database.url, family)
    assert result.losses == ()


def test_directives_order_and_depend_on_each_engine(database, tmp_path):
    """`-- depends:` is heeded."""
    folder = write(
        tmp_path / "sql",
        {"1_a.sql": "-- depends: 2_b\nINSERT INTO b VALUES (1);", "2_b.sql": "CREATE TABLE b (id INTEGER);"},
    )
    assert ids(migrate.apply(database.url, folder)) == ["2_b", "1_a"]


@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.plan, migrate.status, migrate.check])
def test_folder_of_the_other_engine_is_refused(database, tmp_path, verb):
    """Its files were called changed, with the advice to accept them; a new database met the first as a syntax error."""
    other = {"sqlite": "postgresql", "postgresql": "sqlite"}[database.engine]
    write(tmp_path / other, {"0001_a.sql": "CREATE TABLE a (id int);"})
    with pytest.raises(MigrationError, match="for another engine, by its name"):
        verb(database.url, tmp_path / other)
    write(tmp_path / database.engine, {"0001_a.sql": "CREATE TABLE a (id int);"})
    assert [one.id for one in migrate.apply(database.url, tmp_path / database.engine)] == ["0001_a"]


def test_folder_in_which_all_is_otherwise_is_asked_about(database, tmp_path, three):
    """The other engine's folder under another name has the same ids, and each message advised to accept its texts."""
    other = write(tmp_path / "other", {f"{id}.sql": f"CREATE TABLE {id[5:]} (id int, more int);" for id in IDS})
    migrate.apply(database.url, three, to="0002_b")
    for verb in (migrate.apply, migrate.rollback, migrate.assert_current):
        with pytest.raises(LedgerMismatch, match="is this the folder that is meant"):
            verb(database.url, other)
    assert "is this the folder that is meant" in (migrate.status(database.url, other).advice or "")
    write(other, {name: (three / name).read_text() for name in ("0001_a.sql", "0001_a.rollback.sql")})
    with pytest.raises(LedgerMismatch, match="accept 0002_b") as raised:
        migrate.apply(database.url, other)
    assert raised.value.advice is None
    assert migrate.status(database.url, other).advice is None


def test_status_says_what_to_do_about_an_unfinished_migration(database, three):
    """Only `dao health` and the next run said it; `dao status` called it unfinished, and no more."""
    write(three, {"0003_c.sql": f"{ALONE}CREATE TABLE c (id integer);\nSELECT nope;"})
    with pytest.raises(MigrationFailed):
        migrate.apply(database.url, three)
    with pytest.raises(SchemaOutOfDate) as raised:
        migrate.assert_current(database.url, three)
    assert migrate.status(database.url, three).advice == str(raised.value)
    assert "`dao migrate resolve 0003_c`" in str(raised.value)
