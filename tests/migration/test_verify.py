"""Up, down and up again: what verify finds, that it says so readably, and that it writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.errors import LedgerMismatch, MigrationError
from dao.migrate.copies.working_copy import WorkingCopies
from dao.migrate.verification import Verification, verify
from tests.folders import ALONE, THREE, dump, query, write

#: A table with something of everything, for the scripts after it.
BASE = {
    "0001_base.sql": """
CREATE TABLE p (id INTEGER PRIMARY KEY);
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'none', p INT REFERENCES p) STRICT;
CREATE INDEX t_name ON t (name);
CREATE TRIGGER t_name AFTER UPDATE OF name ON t BEGIN UPDATE t SET p = NULL WHERE id = new.id; END;
""",
    "0001_base.rollback.sql": "DROP TABLE t;\nDROP TABLE p;",
}
#: Rebuilds t as it was; a test leaves something of it out.
REBUILD = """
CREATE TABLE new_t (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'none', p INT REFERENCES p) STRICT;
INSERT INTO new_t SELECT id, name, p FROM t;
DROP TABLE t;
ALTER TABLE new_t RENAME TO t;
CREATE INDEX t_name ON t (name);
CREATE TRIGGER t_name AFTER UPDATE OF name ON t BEGIN UPDATE t SET p = NULL WHERE id = new.id; END;
"""
Verify = Callable[..., dict[str, Verification]]


@pytest.fixture
def second(tmp_path: Path) -> Verify:
    """Verify a pair of scripts that comes after BASE, and return what came of it, by stage."""

    def verified(script: str, rollback: str | None) -> dict[str, Verification]:
        entries = BASE | {"0002_x.sql": script} | ({} if rollback is None else {"0002_x.rollback.sql": rollback})
        found = verify(write(tmp_path / "folder", entries))
        assert all(one.ok for one in found if one.id == "0001_base")
        return {one.stage: one for one in found if one.id == "0002_x"}

    return verified


def only(texts: tuple[str, ...]) -> str:
    """Return the only one of these texts."""
    assert len(texts) == 1, texts
    return texts[0]


# ---------------------------------------------------------------- the law


def test_verify_own_migrations_are_clean():
    """The project's own migrations come back exactly, on empty and on full tables, and lose what they made."""
    found = verify()
    assert [(one.id, one.stage) for one in found] == [
        (migration.id, stage) for migration in migrate.load() for stage in ("empty", "generated rows")
    ]
    for one in found:
        assert (one.ok, one.problems, one.warnings, one.unfilled, one.reversible) == (True, (), (), {}, True)
        assert one.seconds > 0
    losses = {one.id: one.losses for one in found if one.stage == "generated rows"}
    assert losses["20250115010000_create_tasks"] == ("rollback: tasks: the table is dropped with 3 rows",)
    assert losses["20250115010600_create_triggers"] == ()
    assert not any(one.losses for one in found if one.stage == "empty")


def test_verify_rebuild_that_restores_everything_is_clean(second):
    """A rebuild there and back that forgets nothing is no problem, and loses nothing."""
    found = second(REBUILD.replace("'none'", "'nobody'"), REBUILD)
    assert [(one.ok, one.losses, one.warnings) for one in found.values()] == [(True, (), ())] * 2


@pytest.mark.parametrize(
    ("whole", "forgotten", "message"),
    [
        ("CREATE INDEX t_name ON t (name);\n", "", "index t_name is missing"),
        (REBUILD.splitlines()[-1] + "\n", "", "trigger t_name is missing"),
        (" STRICT", "", "STRICT"),
        (" DEFAULT 'none'", "", "'none'"),
        (" REFERENCES p", "", "foreign key"),
        ("name TEXT NOT NULL", "name TEXT", "NOT NULL"),
    ],
    ids=["index", "trigger", "strict", "default", "foreign key", "not null"],
)
def test_verify_rollback_that_forgets_part_of_the_schema_is_a_problem(second, whole, forgotten, message):
    """The part that a rebuild in a rollback leaves out is named, on empty tables already."""
    assert whole in REBUILD
    found = second("ALTER TABLE t ADD COLUMN extra TEXT", REBUILD.replace(whole, forgotten))
    for one in found.values():
        problem = only(one.problems)
        assert problem.startswith("the schema after the rollback is another\n  ")
        assert message in problem


def test_verify_rebuild_that_loses_rows_is_a_problem_on_rows_only(second):
    """A rollback that copies some of the rows only passes on an empty table, and is found on generated rows."""
    found = second("CREATE INDEX i ON t (p)", REBUILD.replace("FROM t;", "FROM t WHERE p IS NOT NULL;"))
    assert found["empty"].ok
    lost, differ = found["generated rows"].problems
    assert lost.startswith("rollback loses data without saying so: t: 1 row that no DELETE of the script names\n")
    assert "`-- allows: data-loss t` at the top of 0002_x.rollback.sql" in lost
    assert differ.startswith("rows after the rollback are others\n  t: 2 rows, expected 3\n    - id = ")


def test_verify_rollback_that_changes_rows_is_a_problem(second):
    """A rollback that restores the schema but leaves other values is found, and shows the key and what differs."""
    found = second(
        "ALTER TABLE t ADD COLUMN extra TEXT", "ALTER TABLE t DROP COLUMN extra; UPDATE t SET name = 'x' WHERE p > 0"
    )
    shown = only(found["generated rows"].problems).splitlines()
    assert shown[1] == "  t: 3 rows, not all as expected"
    key = shown[2].partition(":")[0].partition(",")[0]
    assert key.startswith("    - id = ")
    assert shown[2].startswith(f"{key}, name = '")
    assert shown[3] == f"{key.replace('- ', '+ ')}, name = 'x', p = NULL"


def test_verify_second_apply_that_differs_from_the_first_is_a_problem(tmp_path):
    """A rollback that leaves its table is found, though IF NOT EXISTS hides it."""
    folder = write(
        tmp_path / "folder",
        {
            "0001_a.sql": "CREATE TABLE IF NOT EXISTS a (x);\nINSERT INTO a VALUES (1);",
            "0001_a.rollback.sql": "CREATE INDEX i ON a (x);",
        },
    )
    found = verify(folder)
    problems = "\n".join(found[0].problems)
    assert "the schema after the rollback is another\n  table a is unexpected" in problems
    assert "rows after the second apply are others\n  a: 2 rows, expected 1\n    + x = 1" in problems


def test_verify_rows_of_a_virtual_table_are_compared(tmp_path):
    """The rows of a full-text table must come back, however its shadow tables keep them."""
    script = "CREATE VIRTUAL TABLE f USING fts5 (x);\nINSERT INTO f VALUES ('one'), ('two');"
    folder = {
        "0001_f.sql": script,
        "0001_f.rollback.sql": "DROP TABLE f;",
        "0002_x.sql": "INSERT INTO f VALUES ('three');",
    }
    rollback = "DELETE FROM f WHERE x = 'three';"
    found = verify(write(tmp_path / "good", folder | {"0002_x.rollback.sql": rollback}))
    assert all(one.ok for one in found)
    found = verify(
        write(
            tmp_path / "bad", folder | {"0002_x.rollback.sql": f"{rollback}\nUPDATE f SET x = 'zwei' WHERE rowid = 2"}
        )
    )
    assert only(found[2].problems) == (
        "rows after the rollback are others\n  f: 2 rows, not all as expected\n    - x = 'two'\n    + x = 'zwei'"
    )


def test_verify_time_and_chance_are_no_difference(second):
    """A script that writes the time or random values does the same in both applications."""
    found = second(
        "CREATE TABLE s (a DEFAULT CURRENT_TIMESTAMP, b DEFAULT (hex(randomblob(8))), c);\n"
        "INSERT INTO s (c) VALUES (random()), (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), (unixepoch('now', 'subsec'));",
        "DROP TABLE s",
    )
    assert all(one.ok for one in found.values())


# ---------------------------------------------------------------- scripts that fail


def test_verify_not_null_without_default_fails_on_rows_only(second):
    """A column that must have a value, and has no default, is found on generated rows, with file and line."""
    found = second("-- one\n\nALTER TABLE t ADD COLUMN must TEXT NOT NULL;", "ALTER TABLE t DROP COLUMN must;")
    assert found["empty"].ok
    problem = only(found["generated rows"].problems)
    assert problem.startswith("apply fails: ")
    assert "0002_x.sql:3: Cannot add a NOT NULL column with default value NULL" in problem


def test_verify_unique_index_on_a_column_with_equal_values_fails_on_rows(second):
    """A constraint that the rows of before need not satisfy is found by generated rows."""
    found = second("CREATE UNIQUE INDEX u ON t (p IS NULL);", "DROP INDEX u;")
    assert found["empty"].ok
    assert "0002_x.sql:1: UNIQUE constraint failed" in only(found["generated rows"].problems)


def test_verify_rows_that_a_script_brings_with_their_keys_meet_no_generated_ones(tmp_path):
    """Rows with ids of their own, as of roles, are no problem: they met generated rows that had the ids 1, 2 and 3."""
    entries = {
        "1_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY, parent INT REFERENCES a (id), name TEXT NOT NULL) STRICT;",
        "1_a.rollback.sql": "DROP TABLE a;",
        "2_b.sql": "INSERT INTO a VALUES (1, NULL, 'admin'), (2, 1, 'user'), (3, 2, 'guest');",
        "2_b.rollback.sql": "DELETE FROM a WHERE id IN (1, 2, 3);",
    }
    found = verify(write(tmp_path / "folder", entries))
    assert [one.problems for one in found] == [()] * 4
    assert "refuses rows that were written since: these migrations leave foreign keys broken" in only(found[3].warnings)


def test_verify_broken_foreign_key_is_a_problem(second):
    """A script that leaves rows without their parents is found, though foreign keys are not enforced while it runs."""
    found = second("UPDATE t SET p = 4711 WHERE p IS NOT NULL;", "UPDATE t SET p = NULL;")
    assert found["empty"].ok
    assert "apply is refused: " in found["generated rows"].problems[0]
    assert "p = 4711 refers to a row of p that does not exist" in found["generated rows"].problems[0]


def test_verify_view_that_does_not_work_is_a_problem_and_the_later_ones_are_tried(tmp_path):
    """A broken view is refused as in a run, and the losses of the migrations after it are told all the same."""
    pairs = {"1_t": ("t (a)", "TABLE t"), "2_v": ("v AS SELECT none FROM t", "VIEW v"), "3_z": ("z (x)", "TABLE z")}
    entries = {}
    for id, (made, dropped) in pairs.items():
        entries[f"{id}.sql"] = f"CREATE {dropped.split()[0]} {made};"
        entries[f"{id}.rollback.sql"] = f"DROP {dropped};"
    found = verify(write(tmp_path / "folder", entries))
    assert [one.ok for one in found] == [True, True, False, False, True, True]
    assert "the view v: no such column: none" in only(found[2].problems)
    assert found[-1].losses == ("rollback: z: the table is dropped with 3 rows",)


def test_verify_rollback_that_fails_is_a_problem(second):
    """A rollback that does not run is found, with file and line."""
    found = second("CREATE TABLE n (x);", "-- away\nDROP TABLE m;")
    for one in found.values():
        assert only(one.problems).startswith("rollback fails: ")
        assert "0002_x.rollback.sql:2: no such table: m" in one.problems[0]


def test_verify_failing_apply_leaves_the_later_ones_untried(tmp_path):
    """Migrations after a script that does not run cannot be tried, and are said not to be."""
    found = verify(write(tmp_path / "folder", THREE | {"0002_b.sql": "CREATE TABL b;"}))
    assert [(one.id, one.stage, one.ok) for one in found] == [
        ("0001_a", "empty", True),
        ("0001_a", "generated rows", True),
        ("0002_b", "empty", False),
        ("0003_c", "empty", False),
    ]
    assert "0002_b.sql:1: near" in only(found[2].problems)
    assert found[3].problems == ("not tried: 0002_b comes before it here, and fails",)


@pytest.mark.parametrize(
    ("rollback", "reason"),
    [(None, "it has no rollback script"), ("-- cannot be undone\n", "it has an empty rollback script")],
)
def test_verify_irreversible_is_a_warning(second, rollback, reason):
    """A migration that cannot be undone is reported as such; that is no error."""
    for one in second("CREATE TABLE n (x);", rollback).values():
        assert (one.ok, one.reversible, one.warnings) == (True, False, (f"irreversible: {reason}",))


def test_verify_rollback_that_leaves_the_user_version_is_a_warning(second):
    """A number in the header that a script sets and its rollback does not reset is told."""
    found = second("PRAGMA user_version = 7;", "SELECT 1;")
    assert found["empty"].ok
    assert found["empty"].warnings == ("PRAGMA user_version is 7 after the rollback, expected 0",)


def test_verify_script_outside_of_a_transaction_is_run(second):
    """VACUUM runs where it can, and the rollback, too."""
    found = second(ALONE + "CREATE TABLE n (x);\nVACUUM;", "DROP TABLE n;\nVACUUM;")
    assert [one.problems for one in found.values()] == [(), ()]
    found = second(ALONE + "BEGIN;\nCREATE TABLE n (x);", "DROP TABLE n;")
    assert "0002_x.sql: the script left a transaction open" in found["empty"].problems[0]


def test_verify_foreign_keys_on_cascades_as_in_a_run(second):
    """A script that asks for foreign keys has them enforced: its cascade takes rows, which is found."""
    cascade = REBUILD.replace("REFERENCES p", "REFERENCES p ON DELETE CASCADE")
    found = second(cascade + "CREATE TABLE n (x);", "-- foreign_keys: on\nDELETE FROM p;\nDROP TABLE n;")
    assert any("t: " in text and "rows after the rollback" in text for text in found["generated rows"].problems)


# ---------------------------------------------------------------- what a rollback loses


def test_verify_rollback_of_what_its_migration_made_is_reported_as_a_loss(second):
    """Rows that were written since into a new table and a new column go with them: reported, and no error."""
    found = second(
        "CREATE TABLE n (x);\nALTER TABLE t ADD COLUMN extra TEXT;", "ALTER TABLE t DROP COLUMN extra;\nDROP TABLE n;"
    )
    assert found["empty"].losses == ()
    assert found["generated rows"].ok
    assert set(found["generated rows"].losses) == {
        "rollback: n: the table is dropped with 3 rows",
        "rollback: t.extra: the column is dropped with its values, of 6 rows",
    }


def test_verify_apply_that_drops_a_column_must_say_so(second):
    """A column that holds values is not dropped without a declaration; with it, its values need not come back."""
    trigger = BASE["0001_base.sql"].splitlines()[-1]
    script = "DROP TRIGGER t_name;\nALTER TABLE t DROP COLUMN p;"
    rollback = f"ALTER TABLE t ADD COLUMN p INT REFERENCES p;\n{trigger}"
    problems = second(script, rollback)["generated rows"].problems
    assert problems[0].startswith("apply loses data without saying so: t.p: the column is dropped with its values")
    assert "`-- allows: drop column t.p` at the top of 0002_x.sql" in problems[0]
    assert any(
        text.startswith("rows after the rollback are others\n  t: 3 rows, not all as expected") for text in problems
    )
    declared = second(f"-- allows: drop column t.p\n{script}", rollback)["generated rows"]
    assert declared.problems == ()
    assert declared.losses[0].startswith("apply: t.p: the column is dropped with its values")


def test_verify_declared_data_loss_excuses_that_table_only(second):
    """A rollback may lose the rows that it says it loses, and no others."""
    script = "CREATE TABLE n (x);"
    rollback = "DROP TABLE n;\nDELETE FROM t;"
    assert not second(script, rollback)["generated rows"].ok
    assert second(script, "-- allows: data-loss t\n" + rollback)["generated rows"].ok
    assert not second(script, "-- allows: data-loss p\n" + rollback)["generated rows"].ok


def test_verify_rollback_that_refuses_new_rows_is_a_warning(second):
    """A rollback that takes back a wider constraint fails on rows that use it: worth knowing, and no error."""
    found = second(REBUILD.replace("name TEXT NOT NULL", "name TEXT"), REBUILD)
    assert found["empty"].warnings == ()
    assert found["generated rows"].ok
    warning = only(found["generated rows"].warnings)
    assert warning.startswith("the rollback refuses rows that were written since: ")
    assert "NOT NULL constraint failed: new_t.name" in warning


def test_verify_table_that_cannot_be_filled_is_reported(second):
    """A table whose constraints leave no row is named with the reason; that is no error."""
    found = second("CREATE TABLE r (x INT NOT NULL CONSTRAINT never CHECK (x < 0 AND x > 0));", "DROP TABLE r;")
    assert found["generated rows"].ok
    assert "CHECK constraint failed: never" in found["generated rows"].unfilled["r"]


# ---------------------------------------------------------------- a copy of a database


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """A database in which BASE and one more migration are applied and hold rows, and a third is pending."""
    write(
        tmp_path / "folder",
        BASE
        | {
            "0002_x.sql": "ALTER TABLE t ADD COLUMN extra TEXT;\nCREATE TABLE n (x);",
            "0002_x.rollback.sql": "DROP TABLE n;\nALTER TABLE t DROP COLUMN extra;",
            "0003_y.sql": "CREATE UNIQUE INDEX t_extra ON t (extra);",
            "0003_y.rollback.sql": "DROP INDEX t_extra;",
        },
    )
    path = tmp_path / "real.db"
    migrate.apply(f"sqlite:///{path}", tmp_path / "folder", to="0002_x")
    return path


def test_verify_copy_tries_pending_forwards_and_applied_backwards(partly, tmp_path):
    """On a copy, each migration meets the real rows; what the rollbacks of the applied ones lose is reported."""
    query(partly, "INSERT INTO t VALUES (1, 'a', NULL, 'one'), (2, 'b', NULL, 'two')")
    found = [one for one in verify(tmp_path / "folder", database=f"sqlite:///{partly}") if one.stage == "copy"]
    assert [(one.id, one.problems) for one in found] == [("0003_y", ()), ("0002_x", ()), ("0001_base", ())]
    assert found[1].losses == ("rollback: t.extra: the column is dropped with its values, of 2 rows",)
    assert found[2].losses == ("rollback: t: the table is dropped with 2 rows",)


def test_verify_copy_finds_what_only_the_real_rows_show(partly, tmp_path):
    """A unique index that the real rows do not satisfy fails on the copy."""
    query(partly, "INSERT INTO t VALUES (1, 'a', NULL, 'same'), (2, 'b', NULL, 'same')")
    found = [one for one in verify(tmp_path / "folder", database=f"sqlite:///{partly}") if one.stage == "copy"]
    assert [(one.id, one.ok) for one in found] == [("0003_y", False), ("0002_x", True), ("0001_base", True)]
    assert "UNIQUE constraint failed: t.extra" in only(found[0].problems)


def test_verify_copy_finds_a_rollback_that_loses_what_was_written_since(tmp_path):
    """A row of the script's that was changed since comes back as the script makes it: the change is lost, and shown."""
    folder = write(
        tmp_path / "folder",
        BASE
        | {"0002_x.sql": "INSERT INTO t VALUES (1, 'a', NULL);", "0002_x.rollback.sql": "DELETE FROM t WHERE id = 1;"},
    )
    path = tmp_path / "real.db"
    migrate.apply(f"sqlite:///{path}", folder)
    query(path, "UPDATE t SET name = 'b'")
    found = {one.id: one for one in verify(folder, database=f"sqlite:///{path}") if one.stage == "copy"}
    assert only(found["0002_x"].problems) == (
        "rows after rollback and apply are others\n  t: 1 row, not all as expected\n"
        "    - id = 1, name = 'b'\n    + id = 1, name = 'a'"
    )
    assert found["0001_base"].ok


def test_verify_copy_never_writes_the_database(partly, tmp_path):
    """The file has the same bytes, content and ledger afterwards, also with a log that is not merged."""
    query(partly, "INSERT INTO t VALUES (1, 'a', NULL, 'one')")
    before = hashlib.sha256(partly.read_bytes()).digest(), dump(partly)
    verify(tmp_path / "folder", database=f"sqlite:///{partly}")
    assert (hashlib.sha256(partly.read_bytes()).digest(), dump(partly)) == before


def test_verify_copy_that_is_large_goes_to_a_file_which_is_gone_afterwards(partly, tmp_path, monkeypatch):
    """Copies that are too large for memory are files in a temporary folder, with the same result."""
    query(partly, "INSERT INTO t VALUES (1, 'a', NULL, 'one')")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = verify(tmp_path / "folder", database=f"sqlite:///{partly}", memory_limit=0)
    assert all(one.ok for one in found)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_keep_removes_the_files_of_the_other_copies(partly, tmp_path):
    """Large copies that are done with make room at once."""
    source = apsw.Connection(str(partly))
    with WorkingCopies(str(tmp_path / "copy"), limit=0) as copies:
        kept, other = copies.copy(source), copies.copy(source)
        names = Path(kept.filename), Path(other.filename)
        copies.keep(kept)
        assert [name.exists() for name in names] == [True, False]
        assert kept.execute("SELECT count(*) FROM t").get == 0
    assert not names[0].exists()
    source.close()


def test_verify_copy_stops_backwards_at_what_is_irreversible(partly, tmp_path):
    """Behind a migration that cannot be undone the earlier ones cannot be reached."""
    query(partly, "INSERT INTO t VALUES (1, 'a', NULL, 'one')")
    (tmp_path / "folder" / "0002_x.rollback.sql").unlink()
    migrate.accept(f"sqlite:///{partly}", ["0002_x"], tmp_path / "folder")
    found = [one for one in verify(tmp_path / "folder", database=f"sqlite:///{partly}") if one.stage == "copy"]
    assert [(one.id, one.ok, one.reversible) for one in found] == [("0003_y", True, True), ("0002_x", True, False)]


def test_verify_copy_of_a_database_that_is_not_there_or_has_changed_files_is_refused(partly, tmp_path):
    """A missing database is not made, and a ledger that does not agree with the files is refused."""
    with pytest.raises(MigrationError, match="does not exist"):
        verify(tmp_path / "folder", database=f"sqlite:///{tmp_path}/gone.db")
    assert not (tmp_path / "gone.db").exists()
    (tmp_path / "folder" / "0002_x.sql").write_text("CREATE TABLE n (y);")
    with pytest.raises(LedgerMismatch):
        verify(tmp_path / "folder", database=f"sqlite:///{partly}")
