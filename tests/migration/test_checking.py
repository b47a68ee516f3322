"""`migrate.check`: all that is wrong in a database is found, and rows are named by their keys."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import DatabaseCorrupt, MigrationError, MigrationFailed
from tests.folders import ALONE, dump, query, write

FAMILY = """
    CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE);
    CREATE TABLE "the child" (
        a INTEGER, b TEXT, parent_id INTEGER REFERENCES parent (id), "the name" TEXT REFERENCES parent (name),
        PRIMARY KEY (b, a)
    ) {};
    INSERT INTO parent VALUES (1, 'One');
    INSERT INTO "the child" VALUES (1, 'x', 1, 'ONE'), (2, 'x', NULL, NULL);
"""
CONSTRAINTS = """
    CREATE TABLE t (
        id INTEGER PRIMARY KEY, n INTEGER NOT NULL, "the text" TEXT,
        CONSTRAINT n_small CHECK (n < 10), CHECK ("the text" <> '')
    ) STRICT;
    INSERT INTO t VALUES (1, 1, 'x'), (2, 2, NULL);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of migrations that is still to be filled."""
    return tmp_path / "sql"


def past_the_rules(path: Path, *statements: str) -> None:
    """Write as a program does that has switched foreign keys and constraints off."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on")
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def found(url: str, folder: Path) -> list[tuple[str, str | None, int | None, tuple[dict[str, object], ...]]]:
    """Return the faults without their texts."""
    return [(one.kind, one.name, one.count, one.rows) for one in migrate.check(url, folder).faults]


@pytest.mark.parametrize("form", ["", "WITHOUT ROWID"])
def test_rows_that_refer_to_nothing_are_named_by_their_keys(url, path, folder, form):
    """No command told of orphans: they were known only when a migration was refused because of one it had made."""
    write(folder, {"0001_a.sql": FAMILY.format(form)})
    migrate.apply(url, folder)
    assert migrate.check(url, folder).ok
    past_the_rules(
        path, """INSERT INTO "the child" VALUES (3, 'y', 7, 'one'), (4, 'y', 1, 'two'), (5, 'z', 8, 'three')"""
    )
    assert found(url, folder) == [
        (
            "foreign key",
            "the child",
            2,
            ({"b": "y", "a": 4, "the name": "two"}, {"b": "z", "a": 5, "the name": "three"}),
        ),
        ("foreign key", "the child", 2, ({"b": "y", "a": 3, "parent_id": 7}, {"b": "z", "a": 5, "parent_id": 8})),
    ]
    texts = [str(one) for one in migrate.check(url, folder).faults]
    assert texts[1] == "foreign key: the child: parent_id refers to a row of parent that does not exist (2 rows)"


def test_a_parent_that_is_gone_or_not_unique_is_a_fault(url, path, folder):
    """All rows refer to nothing then, or nobody can tell what they refer to."""
    write(folder, {"0001_a.sql": FAMILY.format("")})
    migrate.apply(url, folder)
    past_the_rules(path, "DROP TABLE parent")
    kinds = {(one.kind, one.name, one.count) for one in migrate.check(url, folder).faults}
    assert ("foreign key", "the child", 1) in kinds
    past_the_rules(path, "CREATE TABLE parent (id INTEGER, name TEXT)")
    texts = [one.text for one in migrate.check(url, folder).faults if one.kind == "foreign key"]
    assert any("foreign key mismatch" in text for text in texts), texts


def test_of_many_rows_a_hundred_are_named_and_all_are_counted(url, path, folder):
    """A report that has a line for each of a million rows helps nobody."""
    write(folder, {"0001_a.sql": FAMILY.format("")})
    migrate.apply(url, folder)
    numbers = "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 259) "
    past_the_rules(path, numbers + """INSERT INTO "the child" SELECT i, 'x', i, NULL FROM n""")
    ((_, _, count, rows),) = found(url, folder)
    assert (count, len(rows), rows[0]) == (250, 100, {"b": "x", "a": 10, "parent_id": 10})


def test_rows_that_break_a_constraint_are_named(url, path, folder):
    """SQLite's own check names the table only, and over a connection that reads only it knows no CHECK at all."""
    write(folder, {"0001_a.sql": CONSTRAINTS})
    migrate.apply(url, folder)
    past_the_rules(
        path,
        "INSERT INTO t VALUES (3, 11, 'y'), (4, 12, '')",
        # the values are there before the rules are
        "CREATE TABLE old (id INTEGER PRIMARY KEY, n, m)",
        "INSERT INTO old VALUES (1, NULL, 'x'), (2, 5, 6)",
        "PRAGMA writable_schema = on",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE old (id INTEGER PRIMARY KEY, n ANY NOT NULL, m INT) STRICT' "
        "WHERE name = 'old'",
    )
    assert found(url, folder) == [
        ("constraint", "t", 2, ({"id": 3, "n": 11}, {"id": 4, "n": 12})),
        ("constraint", "t", 1, ({"id": 4, "the text": ""},)),
        ("constraint", "old", 1, ({"id": 1, "n": None},)),
        ("constraint", "old", 1, ({"id": 1, "m": "x"},)),
    ]
    texts = [one.text for one in migrate.check(url, folder).faults]
    assert texts[:2] == ["rows of t break constraint n_small", """rows of t break CHECK ("the text" <> '')"""]


@given(st.lists(st.tuples(st.integers(-3, 3) | st.none(), st.sampled_from(["", "a", "b"]) | st.none()), max_size=8))
def test_faults_are_those_rows_that_the_rules_would_refuse(rows):
    """A row is named exactly if SQLite refuses it once its rules are on again."""
    with_rules = apsw.Connection(":memory:")
    with_rules.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT CHECK (n BETWEEN 0 AND 2), s TEXT CHECK (s > ''))"
    )
    refused = set()
    for id, row in enumerate(rows):
        with_rules.execute("PRAGMA ignore_check_constraints = off")
        try:
            with_rules.execute("INSERT INTO t VALUES (?, ?, ?)", (id, *row))
        except apsw.ConstraintError:
            refused.add(id)
            with_rules.execute("PRAGMA ignore_check_constraints = on")
            with_rules.execute("INSERT INTO t VALUES (?, ?, ?)", (id, *row))
    with_rules.execute("PRAGMA ignore_check_constraints = off")
    faults = migrate.check(with_rules, []).faults
    assert {row["id"] for one in faults for row in one.rows} == refused
    assert {one.kind for one in faults} <= {"constraint"}


def test_a_check_that_needs_a_function_of_the_program_is_told_as_not_known(url, path):
    """It is no fault, and it is not passed over in silence; the others of its table are held against the rows."""
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("even", lambda n: n % 2 == 0, 1, deterministic=True)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n CHECK (even(n)), m CHECK (m > 0))")
    connection.execute("PRAGMA ignore_check_constraints = on; INSERT INTO t VALUES (1, 2, 0)")
    report = migrate.check(url, [])
    assert [(one.kind, one.count) for one in report.faults] == [("constraint", 1)]
    (unknown,) = report.unknown
    assert unknown == (
        "cannot tell whether rows of t break CHECK (even(n)): no such function: even; --prepare MODULE:FUNCTION "
        "(DATABASE_PREPARE; prepare= in Python) registers what is your program's own"
    )
    assert migrate.check(connection, []).unknown == ()
    connection.close()


def test_objects_drift_and_the_ledger_are_in_it(url, path, three):
    """All that `status` knows is here, too: a database is not sound if a view of it does not work."""
    migrate.apply(url, three)
    past_the_rules(path, "CREATE VIEW v AS SELECT * FROM gone", "DROP TABLE c")
    write(three, {"0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY, more TEXT);"})
    faults = migrate.check(url, three).faults
    assert [(one.kind, one.name) for one in faults] == [("object", "v"), ("ledger", "0001_a"), ("drift", "c")]
    assert "dao accept 0001_a" in faults[1].text


def test_what_is_pending_or_of_a_newer_program_is_no_fault(url, three):
    """It says nothing about the database as it is."""
    migrate.apply(url, three, to="0002_b")
    assert migrate.check(url, three).ok
    migrate.apply(url, three)
    (three / "0003_c.sql").unlink()
    (three / "0003_c.rollback.sql").unlink()
    assert migrate.check(url, three).ok


def test_an_unfinished_migration_is_a_fault(url, folder):
    """Nobody knows what its schema should be, so that no drift is told."""
    write(folder, {"0001_a.sql": ALONE + "CREATE TABLE a (id); SELECT * FROM gone;"})
    with pytest.raises(MigrationFailed):
        migrate.apply(url, folder)
    (fault,) = migrate.check(url, folder).faults
    assert (fault.kind, fault.name) == ("ledger", "0001_a")
    assert "dao migrate resolve 0001_a" in fault.text


def test_damage_to_the_file_is_a_fault(url, path, three):
    """A page that is overwritten is told as all faults are; what is no database at all is an error of the call.

    Which page it is was found, and forgotten as the next look, at foreign keys, met the page and could not go on.
    """
    parent = "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);"
    child = "CREATE TABLE d (x INTEGER REFERENCES p (id)); CREATE INDEX i ON d (x); INSERT INTO d VALUES (1);"
    migrate.apply(url, write(three, {"0004_d.sql": parent + child}))
    query(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    pages = dict(query(path, "SELECT name, rootpage FROM sqlite_schema WHERE name IN ('i', 'd')"))
    (size,) = query(path, "PRAGMA page_size")[0]
    content = path.read_bytes()
    for page in pages.values():
        path.write_bytes(content[: (page - 1) * size] + b"\xff" * 64 + content[(page - 1) * size + 64 :])
        faults = migrate.check(url, three).faults
        assert {one.kind for one in faults} == {"damage"}
        assert f"page {page}" in faults[0].text
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseCorrupt):
        migrate.check(url, three)


def test_it_reads_only_and_as_of_one_moment(url, path, three):
    """Nothing is changed, not even by the look at views; what the caller's transaction has done is seen."""
    migrate.apply(url, three)
    before = dump(path)
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN; CREATE VIEW v AS SELECT * FROM gone")
    assert [one.name for one in migrate.check(connection, three).faults] == ["v"]
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    connection.close()
    assert migrate.check(url, three).ok
    assert dump(path) == before


def test_a_database_that_is_missing_is_an_error(url, path, three):
    """To find nothing wrong with what is not there would be worse than no check."""
    with pytest.raises(MigrationError, match="does not exist: there is nothing to check"):
        migrate.check(url, three)
    assert not path.exists()


@pytest.mark.parametrize(
    ("columns", "value", "row"),
    [
        ("a INTEGER CHECK (t.a > 0)", "-1", {"rowid": 1, "a": -1}),
        ('a INTEGER, CHECK ("t"."a" > 0)', "-1", {"rowid": 1, "a": -1}),
        ("a TEXT CHECK (length(a) > 9)", "CAST(x'ff41' AS TEXT)", {"rowid": 1, "a": b"\xffA"}),
    ],
)
def test_a_row_is_named_however_the_check_is_written_and_whatever_it_holds(url, path, folder, columns, value, row):
    """A CHECK with the table's name ended in a traceback, and text that is not UTF-8 was called damage: restore it."""
    write(folder, {"0001_a.sql": f"CREATE TABLE t ({columns});"})
    migrate.apply(url, folder)
    past_the_rules(path, f"INSERT INTO t VALUES ({value})")
    assert found(url, folder) == [("constraint", "t", 1, (row,))]


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [("json_extract(a, '$.v') > 0", "'{'", "malformed JSON"), ("abs(a) > 0", "-9223372036854775808", "overflow")],
)
def test_a_check_that_fails_on_a_row_is_a_fault(url, path, folder, check, value, said):
    """SQLite's error ended the whole check, in a traceback, and no other fault was told."""
    write(folder, {"0001_a.sql": f"CREATE TABLE t (a CHECK ({check}), b CHECK (b > 0));"})
    migrate.apply(url, folder)
    past_the_rules(path, f"INSERT INTO t VALUES ({value}, 1), (NULL, -1)")
    first, second = migrate.check(url, folder).faults
    assert (first.kind, first.count, first.rows) == ("constraint", None, ())
    assert said in first.text
    assert second.rows == ({"rowid": 2, "b": -1},)


def test_rows_are_found_by_the_rowid_and_not_by_a_column_of_that_name(url, path, folder):
    """The row whose column `rowid` had the number was named, which refers to what is there, or none."""
    write(folder, {"0001_a.sql": FAMILY.format("") + "CREATE TABLE c (rowid INTEGER, p INTEGER REFERENCES parent);"})
    migrate.apply(url, folder)
    past_the_rules(path, "INSERT INTO c VALUES (2, 5), (1, 1)")
    assert found(url, folder) == [("foreign key", "c", 1, ({"_rowid_": 1, "p": 5},))]


@pytest.mark.parametrize(("parent", "value"), [("TEXT", "01"), ("BLOB", "1")])
def test_rows_without_rowid_are_compared_by_the_affinity_of_the_parent(url, path, folder, parent, value):
    """A child that the parent's affinity tells apart was counted and not named."""
    script = (
        f"CREATE TABLE p (id {parent} PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY REFERENCES p) WITHOUT ROWID;"
    )
    write(folder, {"0001_a.sql": script})
    migrate.apply(url, folder)
    past_the_rules(path, f"INSERT INTO p VALUES ('{value}')", "INSERT INTO c VALUES (1)")
    assert found(url, folder) == [("foreign key", "c", 1, ({"id": 1},))]


def test_a_parent_that_is_not_unique_is_told_once(url, path, folder):
    """It was a fault of the rows, and one more of the schema, in the same words."""
    write(
        folder,
        {"0001_a.sql": "CREATE TABLE p (id); CREATE UNIQUE INDEX i ON p (id); CREATE TABLE c (p REFERENCES p (id));"},
    )
    migrate.apply(url, folder)
    past_the_rules(path, "DROP INDEX i")
    assert sum("mismatch" in one.text for one in migrate.check(url, folder).faults) == 1
