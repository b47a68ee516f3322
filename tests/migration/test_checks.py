"""What must hold before a run may commit: no foreign key newly broken, no row lost to a rebuild, an intact file."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.errors import CheckFailed, DatabaseCorrupt
from dao.migrate.schema.check import Violation
from dao.migrate.schema.usable import Unusable
from tests.folders import dump, ids, query, tables, write

FAMILY = """
    CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id) ON DELETE CASCADE);
    INSERT INTO parent VALUES (1, 'one'), (2, 'two');
    INSERT INTO child VALUES (10, 1), (20, 2), (30, NULL);
"""
REBUILD = """
    CREATE TABLE parent_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO parent_new SELECT id, name FROM parent;
    DROP TABLE parent;
    ALTER TABLE parent_new RENAME TO parent;
"""
REBUILD_CHILD = """
    CREATE TABLE child_new (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id), note TEXT);
    INSERT INTO child_new SELECT id + 100, parent_id, NULL FROM child;
    DROP TABLE child;
    ALTER TABLE child_new RENAME TO child;
"""
RENAMED = """
    ALTER TABLE parent RENAME TO "the parents";
    ALTER TABLE child RENAME TO children;
    ALTER TABLE children RENAME COLUMN parent_id TO "the parent";
"""
BROKEN_ROW = "INSERT INTO child VALUES (40, 99);"
MISMATCH = "CREATE TABLE old (name REFERENCES parent (name));"


def family(path: Path, script: str = "") -> dict[str, list]:
    """Make a parent and a child table in which, as far as the script says, foreign keys are broken."""
    connection = apsw.Connection(str(path))
    connection.execute(FAMILY + script)
    connection.close()
    return dump(path)


@pytest.mark.parametrize("enforced", ["on", "off"])
def test_apply_table_rebuild_keeps_the_rows_of_its_children(path, url, tmp_path, enforced):
    """A table that is dropped and made anew takes no row of its cascading children along."""
    family(path)
    migrate.apply(f"{url}?foreign_keys={enforced}", write(tmp_path / "sql", {"1_rebuild.sql": REBUILD}))
    assert query(path, "SELECT id, parent_id FROM child") == [(10, 1), (20, 2), (30, None)]
    assert "REFERENCES parent (id)" in query(path, "SELECT sql FROM sqlite_schema WHERE name = 'child'")[0][0]


BREAKING = {
    "insert": (BROKEN_ROW, [Violation("child", ("parent_id",), (99,), "parent")]),
    "delete": ("DELETE FROM parent WHERE id = 2;", [Violation("child", ("parent_id",), (2,), "parent")]),
    "drop": (
        "-- allows: drop table parent\nDROP TABLE parent;",
        [Violation("child", ("parent_id",), (id,), "parent") for id in (1, 2)],
    ),
    "composite key": (
        """CREATE TABLE pair (a, b, PRIMARY KEY (a, b));
           CREATE TABLE x (b, a, FOREIGN KEY (a, b) REFERENCES pair);
           INSERT INTO x VALUES ('b', x'00');""",
        [Violation("x", ("a", "b"), (b"\0", "b"), "pair")],
    ),
    "without rowid": (
        """CREATE TABLE "o""x" (id PRIMARY KEY, "p""q" REFERENCES parent (id)) WITHOUT ROWID;
           INSERT INTO "o""x" VALUES (1, 99);""",
        [Violation('o"x', ('p"q',), (), "parent")],
    ),
    "mismatch": (
        "CREATE TABLE x (name REFERENCES parent (name));",
        [Unusable("foreign key", "x", 'foreign key mismatch - "x" referencing "parent"')],
    ),
    "mismatch and row": (MISMATCH + BROKEN_ROW, [Violation("child", ("parent_id",), (99,), "parent")]),
}


@pytest.mark.parametrize(("script", "violations"), BREAKING.values(), ids=BREAKING)
def test_apply_newly_broken_foreign_key_is_refused(path, url, tmp_path, script, violations):
    """A run that breaks foreign keys is undone, and the error lists them."""
    before = family(path)
    with pytest.raises(CheckFailed, match=r"these migrations leave (foreign keys broken|what does not work)") as caught:
        migrate.apply(url, write(tmp_path / "sql", {"1_x.sql": script}), allow_data_loss=True)
    assert sorted(caught.value.violations, key=str) == violations
    assert all(str(violation) in str(caught.value) for violation in violations)
    assert dump(path) == before


@pytest.mark.parametrize("broken", [BROKEN_ROW, MISMATCH, BROKEN_ROW + MISMATCH], ids=["row", "mismatch", "both"])
@pytest.mark.parametrize(
    "script",
    ["CREATE TABLE x (id);", REBUILD, REBUILD_CHILD, RENAMED],
    ids=["elsewhere", "parent rebuilt", "child rebuilt", "renamed"],
)
def test_apply_foreign_key_broken_before_is_tolerated(path, url, tmp_path, broken, script):
    """What was broken before the run does not stop it, not even when the table is rebuilt with other row ids.

    Under another name of a table or column it used to count as broken anew.
    """
    family(path, broken)
    assert ids(migrate.apply(url, write(tmp_path / "sql", {"1_x.sql": script}))) == ["1_x"]


@pytest.mark.parametrize("also", ["", MISMATCH], ids=["rows only", "beside a mismatch"])
def test_apply_more_of_what_was_broken_is_refused(path, url, tmp_path, also):
    """A further row with a value that was broken before is a new violation."""
    before = family(path, BROKEN_ROW + also)
    script = "INSERT INTO child SELECT 50 + id, 99 FROM parent;"
    with pytest.raises(CheckFailed, match=r"child: parent_id = 99 refers to .* \(2 rows\)") as caught:
        migrate.apply(url, write(tmp_path / "sql", {"1_x.sql": script}))
    assert caught.value.violations == (Violation("child", ("parent_id",), (99,), "parent"),)
    assert dump(path) == before


def test_apply_foreign_key_broken_and_mended_in_one_run_passes(path, url, tmp_path):
    """Only the end of the run counts."""
    family(path)
    scripts = {"1_x.sql": "DELETE FROM parent;", "2_y.sql": "DELETE FROM child WHERE parent_id IS NOT NULL;"}
    assert ids(migrate.apply(url, write(tmp_path / "sql", scripts))) == ["1_x", "2_y"]


def test_apply_many_violations_are_counted_and_the_first_ones_shown(path, url, tmp_path):
    """The message stays short, the attribute is complete."""
    family(path)
    script = "INSERT INTO child (parent_id) VALUES " + ", ".join(f"({id})" for id in range(100, 125)) + ";"
    with pytest.raises(CheckFailed, match="… and 15 more") as caught:
        migrate.apply(url, write(tmp_path / "sql", {"1_x.sql": script}))
    assert len(caught.value.violations) == 25


BAD_ROW = "PRAGMA ignore_check_constraints = ON; INSERT INTO x VALUES (-1);"


def test_apply_row_that_broke_a_check_before_is_tolerated(path, url, tmp_path):
    """A row that its CHECK would refuse today does not stop a run, not even one that renames its table."""
    family(path, "CREATE TABLE x (n CHECK (n > 0)); CREATE TABLE y (n NOT NULL);" + BAD_ROW)
    folder = write(tmp_path / "sql", {"1_x.sql": "CREATE TABLE z (id); ALTER TABLE x RENAME TO w;"})
    assert ids(migrate.apply(url, folder)) == ["1_x"]
    write(folder, {"2_y.sql": "CREATE TABLE v (n CHECK (n > 0));" + BAD_ROW.replace("INTO x", "INTO v")})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, folder)
    assert caught.value.violations == ("CHECK constraint failed in v",)


def test_apply_file_that_was_damaged_before_is_refused(path, url, tmp_path):
    """Damage that was there before the run is not blamed on it, and nothing is written into such a file."""
    family(path, "CREATE INDEX i ON parent (name);")
    (page,) = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'i'")[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 4090)
        file.write(b"xxxxxx")
    content = path.read_bytes()
    with pytest.raises(
        DatabaseCorrupt,
        match=r"new\.db is damaged, before any migration: restore a snapshot \(`dao restore`; .*\) or a backup\n",
    ):
        migrate.apply(url, write(tmp_path / "sql", {"1_x.sql": "CREATE TABLE z (id);"}))
    assert path.read_bytes()[4096:] == content[4096:]
    assert "z" not in tables(path)


@pytest.mark.parametrize("steps", [1, None], ids=["set by itself", "set by another"])
def test_apply_damage_that_the_integrity_check_finds_is_refused(path, url, tmp_path, steps):
    """A run that leaves rows which break a CHECK is undone, even if a script told SQLite to look away."""
    before = family(path)
    bad = "CREATE TABLE x (n CHECK (n > 0)); PRAGMA ignore_check_constraints = ON; INSERT INTO x VALUES (-1);"
    folder = write(tmp_path / "sql", {"1_x.sql": bad, "2_y.sql": "SELECT 1;"})
    with pytest.raises(CheckFailed, match="the database is not intact after these migrations") as caught:
        migrate.apply(url, folder, steps=steps)
    assert caught.value.violations == ("CHECK constraint failed in x",)
    assert dump(path) == before
