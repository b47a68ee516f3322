"""A rehearsal shows on a copy what the pending migrations would do, and leaves the database and its folder alone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

from dao import migrate
from dao.errors import DatabaseCorrupt, DiskFull, Error, LedgerMismatch, MigrationError
from dao.migrate.copies.working_copy import default_limit
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import expected
from dao.migrate.rehearsal import Gone, Rehearsal, Rehearsed, RowChange, rehearse
from dao.migrate.rehearsal.observation import Inventory, inventory
from dao.migrate.rehearsal.trial import longest_hold
from dao.migrate.schema import replay
from tests.concurrency import PATIENCE
from tests.folders import ALONE, IDS, ids, query, write

#: Parents with children that go with them, and something of everything that a rebuild can lose.
BASE = {
    "0001_base.sql": """
CREATE TABLE p (id INTEGER PRIMARY KEY, name TEXT NOT NULL, CONSTRAINT p_name CHECK (name <> '')) STRICT;
CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE CASCADE) STRICT;
CREATE INDEX p_by_name ON p (name);
CREATE TRIGGER p_updated AFTER UPDATE ON p BEGIN SELECT 1; END;
CREATE VIEW p_names AS SELECT name FROM p;
""",
    "0001_base.rollback.sql": "DROP VIEW p_names;\nDROP TABLE c;\nDROP TABLE p;",
}
ROWS = "INSERT INTO p VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO c VALUES (10, 1), (11, 2), (12, 2)"
#: Rebuilds p and forgets all that belongs to it.
CARELESS = """
DROP VIEW p_names;
CREATE TABLE new_p (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO new_p SELECT id, name FROM p;
DROP TABLE p;
ALTER TABLE new_p RENAME TO p;
"""
ENFORCED = "-- foreign_keys: on\n"
Second = Callable[..., Rehearsal]


@pytest.fixture
def base(tmp_path: Path, path: Path, url: str) -> Path:
    """A folder of one migration, which is applied to a database with three parents and three children."""
    folder = write(tmp_path / "folder", BASE)
    migrate.apply(url, folder)
    query(path, ROWS)
    return folder


@pytest.fixture
def second(base: Path, url: str) -> Second:
    """Rehearse a second migration after the base."""

    def rehearsed(script: str, rollback: str | None = None, **options: Any) -> Rehearsal:
        write(base, {"0002_x.sql": script} | ({} if rollback is None else {"0002_x.rollback.sql": rollback}))
        return rehearse(url, base, **options)

    return rehearsed


def only(found: Rehearsal) -> Rehearsed:
    """Return the only migration of a rehearsal."""
    (one,) = found.migrations
    return one


def files(folder: Path) -> set[str]:
    """Return the names of what there is in a folder, without what SQLite makes beside a database to read it."""
    return {name for name in os.listdir(folder) if not name.endswith(("-wal", "-shm"))}


# ---------------------------------------------------------------- what is reported


def test_rehearse_pending_reports_each_and_changes_nothing(url, path, three):
    """Every pending migration is run on the copy; afterwards it is pending still."""
    migrate.apply(url, three, to="0001_a")
    content = path.read_bytes()
    found = rehearse(url, three)
    assert found.ok
    assert ids(found.migrations) == IDS[1:]
    assert [one.statements for one in found.migrations] == [2, 1]
    assert [one.rows for one in found.migrations] == [(RowChange("b", None, 1),), (RowChange("c", None, 0),)]
    assert [one.path for one in found.migrations] == [str(three / f"{id}.sql") for id in IDS[1:]]
    assert (found.database, found.exists, found.in_memory, found.not_reached) == (str(path), True, True, ())
    assert path.read_bytes() == content
    assert ids(migrate.plan(url, three)) == IDS[1:]


def test_rehearse_seconds_and_lock_are_measured(url, three):
    """Each script's time is in that of all, and the lock is held for longer than the scripts run."""
    found = rehearse(url, three)
    assert found.seconds == sum(one.seconds for one in found.migrations) > 0
    assert found.lock_seconds > found.seconds
    assert all(one.lock_seconds > one.seconds for one in found.migrations)
    assert found.copy_seconds > 0


def test_rehearse_nothing_pending_makes_no_copy(url, three, monkeypatch):
    """With nothing to do it only reads the ledger."""
    migrate.apply(url, three)
    monkeypatch.setattr("dao.migrate.rehearsal.rehearser.WorkingCopies", None)
    found = rehearse(url, three)
    assert found.ok
    assert (found.migrations, found.bytes) == ((), 0)


@pytest.mark.parametrize(("options", "expected"), [({"to": "0002"}, IDS[:2]), ({"steps": 1}, IDS[:1])])
def test_rehearse_to_or_steps_rehearses_so_many(url, three, options, expected):
    """`to` and `steps` mean what they mean to apply."""
    assert ids(rehearse(url, three, **options).migrations) == expected


def test_rehearse_missing_database_is_an_empty_one_and_stays_missing(url, path, three):
    """Migrations that would make a database are tried in memory, and make none."""
    found = rehearse(url, three, memory_limit=0)
    assert found.ok
    assert not found.exists
    assert ids(found.migrations) == IDS
    assert not path.exists()


def test_rehearse_failing_third_reports_the_first_two_and_where(url, three):
    """The failure has file, line and message; what precedes it is reported, what follows is not reached."""
    write(three, {"0003_c.sql": "CREATE TABLE c (id);\n\nINSERT INTO nowhere VALUES (1);", "0004_d.sql": "SELECT 1;"})
    found = rehearse(url, three)
    assert not found.ok
    assert [(one.id, one.ok, one.failure is None) for one in found.migrations] == [
        ("0001_a", True, True),
        ("0002_b", True, True),
        ("0003_c", False, False),
    ]
    failure = found.migrations[-1].failure
    assert (failure.path, failure.line) == (str(three / "0003_c.sql"), 3)
    assert failure.message.startswith(f"{three}/0003_c.sql:3: no such table: nowhere")
    assert found.not_reached == ("0004_d",)


def test_rehearse_broken_foreign_keys_are_named(second):
    """A check that fails at the end is a failure, with its violations and the effect of the script."""
    found = second("DELETE FROM p WHERE id = 2;")
    one = only(found)
    assert not found.ok
    assert "leave foreign keys broken" in one.failure.message
    assert one.violations == ("c: p = 2 refers to a row of p that does not exist",)
    assert one.rows == (RowChange("p", 3, 2),)
    assert one.gone == (Gone("p", 1, ({"id": 2},)),)


def test_rehearse_rows_tells_made_dropped_renamed_and_changed(second, path):
    """Each table whose number of rows changed is there, with what became of it; the ledger is not."""
    query(path, 'CREATE TABLE "old ""one" (x); INSERT INTO "old ""one" VALUES (1), (2); CREATE TABLE bye (x)')
    found = second('ALTER TABLE "old ""one" RENAME TO "new"; DROP TABLE bye; CREATE TABLE hi (x); DELETE FROM c;')
    assert only(found).rows == (
        RowChange("bye", 0, None),
        RowChange("c", 3, 0),
        RowChange("hi", None, 0),
        RowChange('old "one', 2, 2, "new"),
    )
    assert only(found).rebuilt == ()


def test_rehearse_growth_is_that_of_the_file(second):
    """The size of the file before and after, and what of it is unused."""
    one = only(second("CREATE TABLE big AS SELECT zeroblob(100000) AS x;\nCREATE TABLE gone AS SELECT zeroblob(9000);"))
    assert 100_000 < one.bytes_after - one.bytes_before < 150_000
    assert one.free_after == 0
    one = only(second("CREATE TABLE gone AS SELECT zeroblob(9000) AS x;\nDROP TABLE gone;"))
    assert one.free_after == one.bytes_after - one.bytes_before > 9_000


def test_rehearse_notices_come_once_though_a_script_runs_twice(second):
    """A script that is run again to find its lost rows says the same once."""
    told: list[Any] = []
    found = second("BEGIN;\nDELETE FROM c;\nCOMMIT;", report=told.append)
    assert len(only(found).notices) == 2
    assert sum(isinstance(event, migrate.Notice) for event in told) == 2


def test_rehearse_can_be_written_as_json(second):
    """All that is found is made of what JSON has."""
    found = second(ENFORCED + "DELETE FROM p WHERE id = 2;", round_trip=True)
    assert json.loads(json.dumps(attrs.asdict(found), allow_nan=False))["migrations"][0]["gone"]


# ---------------------------------------------------------------- rows that get lost


def test_rehearse_cascade_is_named_by_key_and_refused(second):
    """With foreign keys on, a cascade takes children: how many, which, and that `migrate` would refuse that."""
    found = second(ENFORCED + "DELETE FROM p WHERE id = 2;")
    one = only(found)
    assert not found.ok
    assert one.failure is None
    assert [(loss.kind, loss.table, loss.rows) for loss in one.undeclared] == [("rows", "c", 2)]
    assert one.gone == (Gone("c", 2, ({"id": 11}, {"id": 12})), Gone("p", 1, ({"id": 2},)))
    assert one.cascades == ()


def test_rehearse_declared_loss_is_reported_and_ok(second):
    """A declared loss is reported, and no reason to refuse."""
    found = second(ENFORCED + "-- allows: data-loss c\nDELETE FROM p WHERE id = 2;")
    assert found.ok
    assert [loss.table for loss in only(found).losses] == ["c"]
    assert only(found).undeclared == ()


def test_rehearse_undeclared_drop_does_not_stop_those_after_it(second, base):
    """A table with rows is dropped: `migrate` would refuse, and the next migration is rehearsed all the same."""
    write(base, {"0003_y.sql": "CREATE TABLE y (id);"})
    found = second("DROP TABLE c;")
    assert not found.ok
    assert [(one.id, one.ok) for one in found.migrations] == [("0002_x", False), ("0003_y", True)]
    assert [str(loss) for loss in found.migrations[0].undeclared] == ["c: the table is dropped with 3 rows"]


def test_rehearse_rebuild_shows_what_a_tool_with_foreign_keys_would_lose(second):
    """Here the children stay; where foreign keys are enforced, dropping the parents takes them: which, by key."""
    found = second(CARELESS)
    one = only(found)
    assert found.ok
    assert one.gone == ()
    assert one.cascades == (Gone("c", 3, ({"id": 10}, {"id": 11}, {"id": 12})),)


def test_rehearse_rebuild_by_moving_away_loses_the_same_elsewhere(second):
    """The children follow the table that is moved away, and go with it."""
    script = "ALTER TABLE p RENAME TO old; CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p SELECT id FROM old; "
    one = only(second("DROP VIEW p_names; " + script + "DROP TABLE old; DROP TABLE c; CREATE TABLE c (id, p);"))
    assert one.cascades == ()
    script += "CREATE TABLE new_c (id INTEGER PRIMARY KEY, p); DROP TABLE old; INSERT INTO new_c SELECT * FROM c; "
    one = only(second("DROP VIEW p_names; " + script + "DROP TABLE c; ALTER TABLE new_c RENAME TO c;"))
    assert one.cascades == (Gone("c", 3, ({"id": 10}, {"id": 11}, {"id": 12})),)


def test_rehearse_lost_rows_are_named_though_as_many_came(second):
    """A cascade is noticed where the number of rows is the same in the end."""
    script = "DELETE FROM p WHERE id = 2;\nINSERT INTO c VALUES (20, 1), (21, 1);"
    one = only(second(ENFORCED + script))
    assert one.rows == (RowChange("p", 3, 2),)
    assert one.gone[0] == Gone("c", 2, ({"id": 11}, {"id": 12}))


def test_rehearse_cascades_leave_out_what_the_script_takes_itself(second):
    """A child that the script deletes is not taken by a cascade."""
    one = only(second("DELETE FROM c WHERE id = 10;" + CARELESS))
    assert one.gone == (Gone("c", 1, ({"id": 10},)),)
    assert one.cascades == (Gone("c", 2, ({"id": 11}, {"id": 12})),)


def test_rehearse_script_that_fails_with_foreign_keys_enforced_says_so(second, path):
    """Where the children would hold their parents, other tools fail."""
    query(path, "CREATE TABLE held (p INTEGER REFERENCES p); INSERT INTO held VALUES (1)")
    one = only(second(CARELESS))
    assert one.failure is None
    assert "0002_x.sql:5: FOREIGN KEY constraint failed" in one.enforced_failure


def test_rehearse_more_rows_than_the_limit_names_the_first_twenty(second, path):
    """The number is that of all, the keys are the first."""
    query(
        path,
        "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n LIMIT 50) INSERT INTO c SELECT i, 1 FROM n",
    )
    (gone,) = only(second("DELETE FROM c WHERE id >= 100;")).gone
    assert gone.rows == 50
    assert gone.keys == tuple({"id": id} for id in range(100, 120))
    assert str(gone).endswith("id = 119; …)")


@pytest.mark.parametrize(
    ("table", "rows", "script", "gone"),
    [
        pytest.param("t (x)", "('a'), ('b')", "DELETE FROM t WHERE x = 'b'", {"rowid": 2}, id="rowid"),
        pytest.param("t (rowid, x)", "(7, 'a'), (8, 'b')", "DELETE FROM t WHERE x = 'b'", {"_rowid_": 2}, id="taken"),
        pytest.param(
            "t (x TEXT PRIMARY KEY)", "('a'), ('ü ''')", "DELETE FROM t WHERE x > 'b'", {"x": "ü '"}, id="text"
        ),
        pytest.param("t (x PRIMARY KEY)", "(1), (x'00ff')", "DELETE FROM t WHERE x > 1", {"x": "x'00ff'"}, id="blob"),
        pytest.param("t (x PRIMARY KEY)", "(1), (9e999)", "DELETE FROM t WHERE x > 1", {"x": "inf"}, id="infinite"),
        pytest.param(
            't ("a b", b, PRIMARY KEY (b, "a b")) WITHOUT ROWID',
            "(1, 2), (2, 3)",
            "DELETE FROM t WHERE b = 3",
            {"b": 3, "a b": 2},
            id="composite",
        ),
        pytest.param(
            "t (x)",
            "('a'), ('b'), ('c')",
            "CREATE TABLE n (x); INSERT INTO n SELECT x FROM t WHERE x <> 'a'; DROP TABLE t; ALTER TABLE n RENAME TO t",
            {"x": "a"},
            id="whole row",
        ),
        pytest.param(
            "t (x INTEGER PRIMARY KEY)",
            "(1), (2)",
            "CREATE TABLE n (x TEXT PRIMARY KEY); INSERT INTO n SELECT x FROM t WHERE x <> 1; DROP TABLE t; "
            "ALTER TABLE n RENAME TO t",
            {"x": 1},
            id="another type",
        ),
        pytest.param(
            "t (x INTEGER PRIMARY KEY)",
            "(1), (2)",
            "DELETE FROM t WHERE x = 1; ALTER TABLE t RENAME TO u",
            {"x": 1},
            id="renamed",
        ),
    ],
)
def test_rehearse_gone_row_is_named_by_its_key(second, path, table, rows, script, gone):
    """By primary key, whatever it is; else by rowid; else, where that means nothing any more, by the whole row."""
    query(path, f"CREATE TABLE {table}; INSERT INTO t VALUES {rows}")
    (found,) = only(second(script + ";")).gone
    assert found == Gone("t", 1, (gone,))


def test_rehearse_key_that_is_renamed_leaves_the_number(second, path):
    """Rows whose key has another name now cannot be told apart: there is only how many."""
    query(path, "CREATE TABLE t (x INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    script = "CREATE TABLE n (y PRIMARY KEY); INSERT INTO n SELECT x FROM t WHERE x = 1; DROP TABLE t; "
    script += "ALTER TABLE n RENAME TO t;"
    assert only(second(script)).gone == (Gone("t", 1),)


def test_rehearse_text_that_is_not_utf8_is_shown_as_far_as_it_goes(second, path):
    """A key need not be UTF-8, nor the database."""
    query(path, "CREATE TABLE t (x TEXT PRIMARY KEY); INSERT INTO t VALUES (CAST(x'61ff' AS TEXT))")
    (gone,) = only(second("DELETE FROM t;")).gone
    assert gone.keys == ({"x": "a\\xff"},)


def test_rehearse_script_outside_of_a_transaction_is_run_once_and_reported(second):
    """A script that cannot be undone is run once; its rows are named all the same, and VACUUM rebuilds nothing."""
    told: list[Any] = []
    found = second(ALONE + "DELETE FROM c WHERE id = 11;\nVACUUM;", report=told.append)
    one = only(found)
    assert found.ok
    assert one.gone == (Gone("c", 1, ({"id": 11},)),)
    assert (one.rebuilt, one.statements) == ((), 2)
    assert sum(isinstance(event, migrate.Started) for event in told) == 1


def test_rehearse_script_is_run_on_the_same_rows_again(second):
    """A script that is run more than once leaves what one run leaves."""
    one = only(second("INSERT INTO p VALUES (4, 'd');\nDELETE FROM c WHERE id = 10;"))
    assert one.rows == (RowChange("c", 3, 2), RowChange("p", 3, 4))


# ---------------------------------------------------------------- rebuilds


def test_rehearse_rebuild_names_all_that_it_lost(second):
    """The table, its index, trigger, CHECK and STRICT, and the view that the script dropped before."""
    one = only(second(CARELESS))
    assert one.rebuilt == ("p",)
    assert [str(difference) for difference in one.lost] == [
        "table p is not STRICT, expected STRICT",
        "table p: constraint p_name is missing",
        "view p_names is missing",
        "index p_by_name is missing",
        "trigger p_updated is missing",
    ]


def test_rehearse_rebuild_that_adds_an_option_loses_nothing(second, base):
    """A table that is rebuilt as STRICT, or WITHOUT ROWID, has lost nothing by that: it was said to have."""
    write(base, {"0001_w.sql": "CREATE TABLE w (id INTEGER PRIMARY KEY, x TEXT); INSERT INTO w VALUES (1, 'a');"})
    one = second(
        "CREATE TABLE n (id INTEGER PRIMARY KEY, x TEXT) STRICT, WITHOUT ROWID; INSERT INTO n SELECT * FROM w; "
        "DROP TABLE w; ALTER TABLE n RENAME TO w;"
    ).migrations[-1]
    assert (one.rebuilt, one.lost) == (("w",), ())


COUNTS = "t goes on counting after {}, not after 9: ids of deleted rows are given again"
MISPLACED = {
    "another order": (
        "id INTEGER PRIMARY KEY, b TEXT, a TEXT, x",
        "",
        ["the values of t.a are in b now", "the values of t.b are in a now", COUNTS.format("its largest id")],
    ),
    "another type": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER, b TEXT, x",
        "",
        ["values of t.a that were text are integer now", COUNTS.format(3)],
    ),
    "as it was": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b TEXT, x",
        "UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 't') WHERE name = 'n';",
        [],
    ),
}


@pytest.mark.parametrize(("columns", "more", "said"), MISPLACED.values(), ids=MISPLACED)
def test_rehearse_rebuild_says_what_it_does_to_values_and_numbers(second, path, columns, more, said):
    """Values that a copy by position brings elsewhere or converts are told, and ids that will be given again."""
    query(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b TEXT, x);"
        "INSERT INTO t VALUES (1, '10', 'x', NULL), (2, '20', 'y', 1), (3, NULL, 'z', CAST(x'ff' AS TEXT));"
        "INSERT INTO t VALUES (9, '', '', '');"
        "DELETE FROM t WHERE id = 9;",
    )
    script = f"CREATE TABLE n ({columns}); INSERT INTO n SELECT * FROM t; {more} "
    one = only(second(script + "DROP TABLE t; ALTER TABLE n RENAME TO t;"))
    assert list(one.misplaced) == said
    assert one.ok


def test_rehearse_rebuild_through_a_temporary_table_is_one(second):
    """Dropped first and made again afterwards, a table may be where it was."""
    script = "CREATE TEMP TABLE keep AS SELECT * FROM c; DROP TABLE c; CREATE TABLE c (id INTEGER PRIMARY KEY, p); "
    assert only(second(script + "INSERT INTO c SELECT * FROM keep; DROP TABLE temp.keep;")).rebuilt == ("c",)


def test_rehearse_rebuild_by_moving_away_is_one(second):
    """Renamed first and dropped after the copy, under its other name."""
    script = "ALTER TABLE c RENAME TO old; CREATE TABLE c (id INTEGER PRIMARY KEY, p); "
    assert only(second(script + "INSERT INTO c SELECT * FROM old; DROP TABLE old;")).rebuilt == ("c",)


def test_rehearse_drop_in_one_migration_is_no_rebuild_in_another(second, base):
    """A table that one migration drops and the next makes again is rebuilt by neither."""
    write(base, {"0003_y.sql": "CREATE TABLE c (id);", "0004_z.sql": "INSERT INTO c VALUES (1);"})
    assert [one.rebuilt for one in second("DROP TABLE c;").migrations] == [(), (), ()]


def test_rehearse_script_with_strings_in_double_quotes_runs(second):
    """The copy is set up as a run sets up the database: other people's scripts rely on it."""
    assert second('INSERT INTO p VALUES (4, "d");').ok


def test_rehearse_plain_drop_of_an_index_is_no_loss_of_a_rebuild(second):
    """An index that is dropped without a rebuild of its table is meant to go."""
    one = only(second("DROP INDEX p_by_name;"))
    assert (one.rebuilt, one.lost) == ((), ())


def test_rehearse_view_that_works_no_more_is_named(second, path):
    """A rebuild without a column leaves its view broken, which fails as in a run: it used to be a remark.

    One that was broken before is not held against it.
    """
    query(path, "CREATE VIEW broken AS SELECT * FROM nowhere")
    one = only(second("DROP VIEW p_names; DROP TABLE c; CREATE TABLE c (id); CREATE VIEW v AS SELECT none FROM c;"))
    assert one.failure is not None
    assert one.violations == ("the view v: no such column: none",)


# ---------------------------------------------------------------- the database


def test_rehearse_live_wal_database_is_read_and_not_touched(base, path, url):
    """Rows that are only in the WAL are rehearsed; neither file changes, by content or time."""
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("INSERT INTO c VALUES (13, 3)")
    connection.close()
    live = [path, path.with_name(path.name + "-wal")]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in live]
    assert before[1][0]
    write(base, {"0002_x.sql": "DELETE FROM c;"})
    for limit in (None, 0):
        found = rehearse(url, base, memory_limit=limit, round_trip=True)
        assert only(found).rows == (RowChange("c", 4, 0),)
        assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in live] == before


# Moves money to and fro for as long as it is let, and notes each time.
_WRITER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(60_000)
number = 0
while True:
    number += 1
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE account SET balance = balance - 1 WHERE id = ?", (1 + number % 100,))
    connection.execute("UPDATE account SET balance = balance + 1 WHERE id = ?", (1 + number * 7 % 100,))
    connection.execute("INSERT INTO tick DEFAULT VALUES")
    connection.execute("COMMIT")
"""


@pytest.fixture
def busy(tmp_path: Path, path: Path, url: str) -> Iterator[Path]:
    """A folder of a migration for a database of 50 MB to which a process writes all the time."""
    folder = write(tmp_path / "folder", {"0001_bank.sql": _BANK})
    migrate.apply(url, folder)
    # it holds if the copy is of one moment
    write(folder, {"0002_x.sql": "CREATE TABLE x (n CHECK (n = 0));\nINSERT INTO x SELECT sum(balance) FROM account;"})
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)])
    try:
        _wait(lambda: _ticks(path) > 0)
        yield folder
    finally:
        writer.kill()
        writer.wait()


_BANK = """
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note BLOB);
CREATE TABLE tick (id INTEGER PRIMARY KEY);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
INSERT INTO account SELECT i, 0, zeroblob(500000) FROM n;
"""


def _ticks(path: Path) -> int:
    return query(path, "SELECT count(*) FROM tick")[0][0]


def _wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("limit", [None, 0])
def test_rehearse_writer_goes_on_and_the_copy_is_of_one_moment(busy, path, url, limit):
    """A backup would begin anew at every commit: this one is made in one go, while the writer commits."""
    done: list[int] = []

    def report(event: object) -> None:
        if isinstance(event, migrate.Copying):
            done.append(event.done)
            if len(done) < 4:
                seen = _ticks(path)
                _wait(lambda: _ticks(path) > seen + 3)

    found = rehearse(url, busy, memory_limit=limit, report=report)
    assert found.ok, only(found).failure
    assert found.in_memory == (limit is None)
    assert found.bytes > 50_000_000
    assert len(done) > 10
    assert done == sorted(set(done))
    assert done[-1] * 4096 == found.bytes
    seen = _ticks(path)
    _wait(lambda: _ticks(path) > seen)


def test_rehearse_database_in_rollback_mode_is_read(theirs, path, url, three):
    """A database that is not in WAL mode stays in its mode."""
    theirs.execute("CREATE TABLE old (id); INSERT INTO old VALUES (1)")
    theirs.close()
    before = path.read_bytes()
    assert rehearse(url, three, memory_limit=0, round_trip=True).ok
    assert path.read_bytes() == before
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_rehearse_connection_of_the_caller_is_read_and_left_as_it_was(theirs, three, path):
    """Its database is rehearsed, and no transaction stays open."""
    migrate.apply(theirs, three, to="0001_a")
    theirs.row_trace = lambda _cursor, row: list(row)
    found = rehearse(theirs, three, memory_limit=0)
    assert found.ok
    assert (found.database, found.in_memory) == (str(path), False)
    assert not theirs.in_transaction
    assert theirs.execute("SELECT 1").fetchall() == [[1]]


def test_rehearse_connection_to_memory_is_copied_into_memory(three):
    """A database without a file has no place for a temporary one."""
    connection = apsw.Connection(":memory:")
    migrate.apply(connection, three, to="0002_b")
    found = rehearse(connection, three, memory_limit=0)
    assert found.ok
    assert found.in_memory
    assert ids(found.migrations) == ["0003_c"]


def test_rehearse_connection_in_a_transaction_is_refused(theirs, three):
    """An open transaction cannot be copied; it stays."""
    theirs.execute("BEGIN; CREATE TABLE mine (id)")
    with pytest.raises(MigrationError, match="in the middle of a transaction"):
        rehearse(theirs, three)
    assert theirs.in_transaction


def test_rehearse_changed_file_is_refused(url, three):
    """Where `migrate` would not begin, there is nothing to rehearse; unless the order is allowed to be another."""
    migrate.apply(url, three, to="0002_b")
    write(three, {"0000_z.sql": "CREATE TABLE z (id);"})
    with pytest.raises(LedgerMismatch, match="0000_z"):
        rehearse(url, three)
    assert ids(rehearse(url, three, allow_out_of_order=True).migrations) == ["0000_z", "0003_c"]


@pytest.mark.parametrize("limit", [None, 0])
def test_rehearse_damaged_database_is_named(base, url, path, limit):
    """The damage is that of the database, not of its copy."""
    page = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'p_by_name'")[0][0]
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\x0a" + bytes(4095)
    path.write_bytes(content)
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    with pytest.raises(DatabaseCorrupt) as caught:
        rehearse(url, base, memory_limit=limit)
    assert str(caught.value).startswith(f"{path} is damaged, before any migration")


# ---------------------------------------------------------------- the temporary file


def test_rehearse_above_the_limit_is_in_a_file_beside_the_database(base, url, path):
    """While it lasts there is one more file in the folder of the database; afterwards there is none."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    before = files(path.parent)
    seen: set[str] = set()

    def report(event: object) -> None:
        if isinstance(event, migrate.Started):
            seen.update(files(path.parent) - before)

    found = rehearse(url, base, memory_limit=0, report=report)
    assert found.ok
    assert not found.in_memory
    (name,) = seen
    assert name.startswith("new.db.")
    assert name.endswith(".partial")
    assert files(path.parent) == before
    assert not [name for name in os.listdir(path.parent) if ".partial" in name]


def test_rehearse_below_the_limit_is_in_memory(base, url, path):
    """The limit is a size in bytes: up to it, no file is made."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    size = path.stat().st_size
    assert rehearse(url, base, memory_limit=size).in_memory
    assert not rehearse(url, base, memory_limit=size - 1).in_memory


@pytest.mark.parametrize("event", [migrate.Copying, migrate.Started, migrate.Finished])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_rehearse_interrupted_leaves_no_file(base, url, path, event, error):
    """Ctrl-C and errors at any moment remove what was made."""
    write(base, {"0002_x.sql": CARELESS})
    before = files(path.parent)

    def report(told: object) -> None:
        if isinstance(told, event):
            raise error

    with pytest.raises(error):
        rehearse(url, base, memory_limit=0, round_trip=True, report=report)
    assert files(path.parent) == before
    assert not [name for name in os.listdir(path.parent) if ".partial" in name]


def test_rehearse_failing_migration_leaves_no_file(base, url, path):
    """Nor does a migration that fails."""
    write(base, {"0002_x.sql": "nonsense;"})
    assert not rehearse(url, base, memory_limit=0).ok
    assert not [name for name in os.listdir(path.parent) if ".partial" in name]


_KILLED = """
import os, signal, sys
from dao import migrate
from dao.migrate.rehearsal import rehearse
from dao.migrate.copies.working_copy import default_limit
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import expected

def report(event):
    if isinstance(event, migrate.Finished):
        os.kill(os.getpid(), signal.SIGKILL)

rehearse(sys.argv[1], sys.argv[2], memory_limit=0, report=report)
"""


def test_rehearse_killed_leaves_files_that_the_next_removes(base, url, path):
    """After kill -9 the copy remains, without its WAL, which has no name. The next rehearsal removes it."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    before = files(path.parent)
    killed = subprocess.run([sys.executable, "-c", _KILLED, url, str(base)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [name for name in os.listdir(path.parent) if ".partial" in name]
    assert sorted(name.rpartition(".")[2] for name in left) == ["partial"]
    assert rehearse(url, base).in_memory
    assert files(path.parent) == before
    assert not [name for name in os.listdir(path.parent) if ".partial" in name]


def test_rehearse_leaves_the_file_of_another_rehearsal_alone(base, url, path):
    """Only what no living process holds is removed: two at once do not meet."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    inner: list[Rehearsal] = []

    def report(event: object) -> None:
        if isinstance(event, migrate.Started):
            inner.append(rehearse(url, base, memory_limit=0))
            assert sum(name.endswith(".partial") for name in os.listdir(path.parent)) == 1

    assert rehearse(url, base, memory_limit=0, report=report).ok
    assert inner[0].ok


def test_rehearse_too_little_room_says_how_much_is_needed(base, url, path, monkeypatch):
    """Before anything is copied: how much is needed where, and how much is free; in memory none is needed."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 100_000))
    before = files(path.parent)
    told: list[object] = []
    with pytest.raises(DiskFull) as caught:
        rehearse(url, base, memory_limit=0, report=told.append)
    message = str(caught.value)
    assert f"a rehearsal with a copy of {path} needs 1.1 MB in {path.parent}, and 97.7 KB are free there" in message
    assert message.endswith("(--memory-limit)")
    assert (told, files(path.parent)) == ([], before)
    assert rehearse(url, base).ok


def test_rehearse_file_is_beside_what_a_link_leads_to(base, tmp_path, path):
    """The file system that counts is that of the database."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id);"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.db").symlink_to(path)
    seen: set[str] = set()

    def report(event: object) -> None:
        if isinstance(event, migrate.Started):
            seen.update(os.listdir(tmp_path))

    assert rehearse(f"sqlite:///{elsewhere}/link.db", base, memory_limit=0, report=report).ok
    assert any(name.startswith("new.db.") and name.endswith(".partial") for name in seen)


def test_default_limit_is_a_quarter_of_a_small_memory(monkeypatch):
    """1 GiB, unless the machine is small."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 30}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert default_limit() == 1 << 30
    sizes["SC_PHYS_PAGES"] = 1000
    assert default_limit() == 1_024_000


# ---------------------------------------------------------------- the lock


def test_longest_hold_is_that_of_the_longest_transaction(three):
    """Scripts that share a transaction hold the lock together; one that runs alone holds it for as long as it runs."""
    write(three, {"0003_c.sql": ALONE + "VACUUM;", "0004_d.sql": "SELECT 1;"})
    steps = migrate.plan("sqlite:///nowhere.db", three)
    assert longest_hold(steps, [2, 4, 5000, 8]) == 5000
    assert longest_hold(steps, [2, 4, 5, 5]) == longest_hold(steps[:2], [2, 4]) == 2 + 4
    assert longest_hold(steps, [2, 4, 5, 8]) == 8
    assert longest_hold([], []) == 0


def test_rehearse_lock_seconds_leave_out_what_only_a_rehearsal_does(second, monkeypatch):
    """The rehearsal looks at the copy within the script's transaction; a run does not, and is done so much earlier."""
    now = 0.0

    def slow(connection: apsw.Connection) -> Inventory:
        nonlocal now
        now += 1000
        return inventory(connection)

    monkeypatch.setattr("dao.migrate.rehearsal.trial.inventory", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    one = only(second("CREATE TABLE x (id);"))
    assert (now, one.seconds, one.lock_seconds) == (1000, 0, 0)


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("limit", [None, 0])
def test_rehearse_round_trip_goes_down_and_up_again(url, three, limit):
    """The migrations applied to the copy are undone, the latest first, and applied again; all comes back."""
    migrate.apply(url, three, to="0001_a")
    directions: list[tuple[str, str]] = []

    def report(event: object) -> None:
        if isinstance(event, migrate.Started):
            directions.append((event.step.direction, event.step.id))

    trip = rehearse(url, three, round_trip=True, memory_limit=limit, report=report).round_trip
    assert trip.ok
    assert (trip.undone, trip.applied_again) == (("0003_c", "0002_b"), ("0002_b", "0003_c"))
    assert (trip.irreversible, trip.failures) == ((), ())
    assert directions == [
        ("apply", "0002_b"),
        ("apply", "0003_c"),
        ("rollback", "0003_c"),
        ("rollback", "0002_b"),
        ("apply", "0002_b"),
        ("apply", "0003_c"),
    ]


def test_rehearse_round_trip_is_not_made_unless_asked_for(url, three):
    """Without the option nothing is undone."""
    assert rehearse(url, three).round_trip is None


def test_rehearse_round_trip_differences_are_shown_once_and_where(second, base):
    """A rollback that does not give back schema and rows is named; the one before it is not blamed for it."""
    write(base, {"0003_y.sql": "CREATE TABLE y (id);", "0003_y.rollback.sql": "DROP TABLE y;"})
    script = "ALTER TABLE p ADD COLUMN x TEXT;\nUPDATE p SET name = 'z' WHERE id = 1;\nDROP INDEX p_by_name;"
    found = second(script, "ALTER TABLE p DROP COLUMN x;", round_trip=True)
    assert not found.ok
    assert all(one.ok for one in found.migrations)
    (failure, again) = found.round_trip.failures
    assert (failure.id, failure.direction) == ("0002_x", "rollback")
    assert failure.differences == ("index p_by_name is missing", "rows of p: 3 rows, not all as expected")
    assert (again.id, again.direction) == ("0002_x", "apply")
    assert "no such index: p_by_name" in again.message


def test_rehearse_round_trip_second_time_differs(second):
    """Up again must give what the first time gave."""
    found = second(
        "INSERT INTO p SELECT max(id) + 1, 'new' FROM p;", "UPDATE p SET id = 9 WHERE id = 4;", round_trip=True
    )
    assert [(failure.direction, failure.differences) for failure in found.round_trip.failures] == [
        ("rollback", ("rows of p: 4 rows, expected 3",))
    ]
    found = second(
        "INSERT INTO c SELECT max(id) + 1, 1 FROM p;",
        "DELETE FROM c WHERE id < 10;\nDELETE FROM p WHERE id = 3;",
        round_trip=True,
    )
    assert [(failure.direction, failure.differences) for failure in found.round_trip.failures] == [
        ("rollback", ("rows of p: 2 rows, expected 3",)),
        ("apply", ("rows of c: 4 rows, not all as expected",)),
    ]


def test_rehearse_round_trip_ends_at_an_irreversible_migration(url, three):
    """It is reported, and is no failure; what came after it makes its way."""
    (three / "0002_b.rollback.sql").unlink()
    found = rehearse(url, three, round_trip=True)
    assert found.ok
    assert found.round_trip.irreversible == ("0002_b",)
    assert (found.round_trip.undone, found.round_trip.applied_again) == (("0003_c",), ("0003_c",))


def test_rehearse_round_trip_failing_rollback_is_reported_and_ends_the_way_down(url, three):
    """Its file and line are named, and the way up begins there."""
    write(three, {"0002_b.rollback.sql": "\nDROP TABLE nowhere;"})
    found = rehearse(url, three, round_trip=True)
    (failure,) = found.round_trip.failures
    assert (failure.id, failure.direction) == ("0002_b", "rollback")
    assert "0002_b.rollback.sql:2: no such table: nowhere" in failure.message
    assert (found.round_trip.undone, found.round_trip.applied_again) == (("0003_c",), ("0003_c",))


def test_rehearse_round_trip_refused_rollback_is_a_failure(second):
    """A rollback that takes what its migration did not make is refused, as in a run."""
    found = second("CREATE TABLE x (id);", "DROP TABLE x;\nDROP TABLE c;", round_trip=True)
    (failure,) = found.round_trip.failures
    assert "c: the table is dropped with 3 rows" in failure.message


def test_rehearse_round_trip_excuses_what_is_declared(second):
    """A column that is dropped by declaration comes back without its values."""
    script = """-- allows: drop column c.p
CREATE TABLE n (id INTEGER PRIMARY KEY) STRICT;
INSERT INTO n SELECT id FROM c;
DROP TABLE c;
ALTER TABLE n RENAME TO c;
"""
    rollback = "ALTER TABLE c ADD COLUMN p INTEGER REFERENCES p ON DELETE CASCADE;"
    found = second(script, rollback, round_trip=True)
    assert only(found).losses
    assert found.ok, found.round_trip.failures


def test_rehearse_round_trip_stands_still_in_time_and_chance(second):
    """A script that writes the time or a random value does not differ from itself."""
    script = """
CREATE TABLE t (at TEXT DEFAULT CURRENT_TIMESTAMP, id BLOB DEFAULT (randomblob(16)), x);
INSERT INTO t (x) VALUES (strftime('%f', 'now')), (random()), (julianday('now'));
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
INSERT INTO t (x) SELECT count(*) FROM n;
"""
    for limit in (None, 0):
        assert second(script, "DROP TABLE t;", round_trip=True, memory_limit=limit).round_trip.failures == ()


def test_rehearse_round_trip_of_a_virtual_table_compares_its_rows(second, path):
    """A search index that holds the same may be built differently; one that has other rows is told."""
    query(path, "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('one'), ('two')")
    script = "INSERT INTO f SELECT name FROM p;"
    found = second(script, "DELETE FROM f WHERE rowid > 2;", round_trip=True)
    assert found.ok, found.round_trip.failures
    assert only(found).rows == (RowChange("f", 2, 5),)
    found = second(script, "DELETE FROM f WHERE rowid > 1;", round_trip=True)
    assert found.round_trip.failures[0].differences == ("rows of f: 1 row, expected 2",)
    rollback = "DELETE FROM f WHERE rowid > 2; UPDATE f SET x = 'zwei' WHERE rowid = 2;"
    found = second(script, rollback, round_trip=True)
    assert found.round_trip.failures[0].differences == ("rows of f: 2 rows, not all as expected",)


def test_rehearse_round_trip_allows_what_is_allowed_to_be_broken(second, path):
    """A search index cannot be read while the table that it shows is gone: if that is allowed, it is so each time."""
    query(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    query(path, "CREATE VIRTUAL TABLE f USING fts5(x, content = 't', content_rowid = 'id')")
    query(path, "INSERT INTO f (rowid, x) SELECT id, x FROM t")
    script = "-- allows: drop table t\nDROP TABLE t;"
    rollback = "CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'one'), (2, 'two');"
    found = second(script, rollback, round_trip=True, allow_broken=["f"])
    assert found.ok, found
    assert found.round_trip.applied_again == ("0002_x",)


def test_rehearse_round_trip_tells_numbers_of_equal_hash_apart(second, path):
    """Python has one hash for -1 and -2; a rollback that leaves one for the other is found all the same."""
    query(path, "CREATE TABLE t (x); INSERT INTO t VALUES (-1)")
    found = second("UPDATE t SET x = 7;", "UPDATE t SET x = -2;", round_trip=True)
    assert found.round_trip.failures[0].differences == ("rows of t: 1 row, not all as expected",)


def test_rehearse_damaged_file_is_called_that(base, url, path):
    """Whichever page or byte is damaged, the error is typed and names the database, not its copy."""
    write(base, {"0002_x.sql": "CREATE TABLE x (id); INSERT INTO x SELECT id FROM a; ALTER TABLE a ADD COLUMN more;"})
    query(path, "CREATE TABLE big (id INTEGER PRIMARY KEY, b TEXT UNIQUE)")
    query(
        path,
        "INSERT INTO big (b) SELECT hex(randomblob(300)) FROM json_each('[1,2,3,4,5,6,7,8,9]'), json_each('[1,2,3,4]')",
    )
    query(path, "PRAGMA journal_mode = delete")
    data, chance = path.read_bytes(), random.Random(1)
    refused: list[Error] = []
    for place in [*range(16, 100, 3), 47, *range(100, len(data), 1024)]:
        broken = bytearray(data)
        broken[place : place + 1 + 15 * (place >= 100)] = chance.randbytes(1 + 15 * (place >= 100))
        path.write_bytes(broken)
        try:
            rehearse(url, base, memory_limit=0 if place % 2 else None, round_trip=place % 4 == 0)
        except Error as error:
            refused.append(error)
    assert len(refused) > 20
    for error in refused:
        assert not isinstance(error, DatabaseCorrupt) or str(path) in str(error)
        assert ".partial" not in str(error)


# ---------------------------------------------------------------- long histories


def test_rehearse_round_trip_replays_the_history_once(tmp_path, monkeypatch):
    """The way down asks after each rollback which schema is expected: the whole history was replayed for each."""
    entries = {}
    for number in range(12):
        entries[f"{number:04d}_m.sql"] = f"CREATE TABLE t{number} (v);\nCREATE INDEX i{number} ON t{number} (v);"
        entries[f"{number:04d}_m.rollback.sql"] = f"DROP TABLE t{number};"
    replays: list[int] = []

    def counted(scripts: list[tuple[str, str]], **options: Any) -> Any:
        replays.append(len(scripts))
        return replay.replayed(scripts, **options)

    monkeypatch.setattr(expected, "replayed", counted)
    found = rehearse(f"sqlite:///{tmp_path}/real.db", write(tmp_path / "folder", entries), round_trip=True)
    assert found.round_trip is not None
    assert (found.ok, len(found.round_trip.undone)) == (True, 12)
    assert replays == [11]


def test_remembering_expects_what_a_replay_expects(tmp_path):
    """Whichever part of a history is asked for, and in whichever order, its schema is that of a replay."""
    entries = {
        "1_a.sql": "CREATE TABLE a (v);",
        "2_b.sql": "CREATE TABLE b (v TEXT REFERENCES a);\nCREATE INDEX i ON b (v);",
        "3_c.sql": "ALTER TABLE a RENAME COLUMN v TO w;\nDROP INDEX i;",
        "4_d.sql": "DROP TABLE b;\nALTER TABLE a RENAME TO c;\nCREATE VIEW b AS SELECT w FROM c;",
        "5_e.sql": "CREATE TABLE a (v);",
    }
    files = migrate.load(write(tmp_path / "folder", entries))
    url = f"sqlite:///{tmp_path}/real.db"
    migrate.apply(url, files)
    with contextlib.closing(apsw.Connection(f"{tmp_path}/real.db")) as connection:
        state = ledger.read(connection)
    parts = [attrs.evolve(state, entries=state.entries[:number]) for number in (4, 2, 3, 0, 5, 1, 4)]
    plainly = [expected.expected(files, part) for part in parts]
    with expected.remembering():
        assert [expected.expected(files, part) for part in parts] == plainly
    # and it knows no more than it is told
    other = [attrs.evolve(files[0], up=attrs.evolve(files[0].up, text="CREATE TABLE z (v);")), *files[1:]]
    changed = attrs.evolve(state, entries=tuple(attrs.evolve(one, text=None) for one in state.entries[:1]))
    with expected.remembering():
        expected.expected(files, parts[1])
        assert ("table", "z") in expected.expected(other, changed).objects
