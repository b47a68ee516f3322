"""The rows on which verify tries migrations: scripts can use them, and they are where scripts can touch them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dao import migrate
from dao.errors import MigrationFileError
from dao.migrate.verification import Verification, generate, on_rows, touched, verify
from dao.migrate.verification.uses import Use, uses
from tests.folders import write

NOTHING = "SELECT 1;"


def folder(path: Path, *pairs: tuple[str, str]) -> Path:
    """Write pairs of scripts, the first of which is `0001_m`."""
    entries = {}
    for number, (up, down) in enumerate(pairs, start=1):
        entries[f"{number:04d}_m.sql"], entries[f"{number:04d}_m.rollback.sql"] = up, down
    return write(path, entries)


def problems(found: list[Verification]) -> list[str]:
    """Return all that is wrong."""
    return [problem for one in found for problem in one.problems]


# ---------------------------------------------------------------- tables with little room

FEW = {
    "one id": ("id INTEGER PRIMARY KEY CHECK (id = 1), v TEXT", "INSERT INTO s VALUES (1, 'x');", "DELETE FROM s;"),
    "an id that SQLite gives": (
        "id INTEGER PRIMARY KEY CHECK (id = 1), v TEXT",
        "INSERT INTO s (v) VALUES ('x');",
        "DELETE FROM s;",
    ),
    "two values": (
        "id BOOLEAN PRIMARY KEY CHECK (id IN (0, 1)), v TEXT",
        "INSERT INTO s (id) VALUES (0), (1);",
        "DELETE FROM s;",
    ),
    "names": (
        "id TEXT PRIMARY KEY CHECK (id IN ('a', 'b', 'c', 'd', 'e')), v TEXT",
        "INSERT INTO s (id) VALUES ('a'), ('b'), ('c'), ('d'), ('e');",
        "DELETE FROM s;",
    ),
}


@pytest.mark.parametrize("kind", list(FEW))
def test_verify_rows_that_a_script_brings_to_a_table_with_little_room(tmp_path, kind):
    """A script may bring the only rows that a table has room for.

    It was said to fail, as generated rows had the place.
    """
    columns, brings, takes = FEW[kind]
    found = verify(folder(tmp_path / "few", (f"CREATE TABLE s ({columns});", "DROP TABLE s;"), (brings, takes)))
    assert problems(found) == []
    assert list(found[3].unfilled) == ["s"]
    assert "room for the rows that the script brings" in found[3].unfilled["s"]
    # and they are used where they are in nobody's way
    found = verify(
        folder(
            tmp_path / "other",
            (f"CREATE TABLE s ({columns});", "DROP TABLE s;"),
            ("UPDATE s SET v = 'y' || v;", "SELECT 1;"),
        )
    )
    assert "rows after the rollback are others" in problems(found)[0]


def test_verify_trigger_that_refuses_a_second_row(tmp_path):
    """A table that a trigger keeps at one row is left to the script that brings it."""
    trigger = (
        "CREATE TRIGGER one BEFORE INSERT ON s WHEN (SELECT count(*) FROM s) > 0 "
        "BEGIN SELECT RAISE (ABORT, 'only one'); END;"
    )
    found = verify(
        folder(
            tmp_path / "few",
            (f"CREATE TABLE s (v TEXT);\n{trigger}", "DROP TABLE s;"),
            ("INSERT INTO s VALUES ('x');", "DELETE FROM s WHERE v = 'x';"),
        )
    )
    assert problems(found) == []


def test_verify_rows_that_collide_by_what_was_there_are_still_found(tmp_path):
    """Rows of one table that are copied into another, where their keys are taken, are no rows that a script brings."""
    table = "(id INTEGER PRIMARY KEY, v TEXT)"
    found = verify(
        folder(
            tmp_path / "merged",
            (f"CREATE TABLE a {table};\nCREATE TABLE b {table};", "DROP TABLE a;\nDROP TABLE b;"),
            ("INSERT INTO a SELECT * FROM b;", "DELETE FROM a;"),
        )
    )
    assert ["UNIQUE constraint failed: a.id" in problem for problem in problems(found)] == [True]


# ---------------------------------------------------------------- values that scripts can use

READ = {
    "json_extract": "TEXT NOT NULL; INSERT INTO n SELECT json_extract(c, '$.theme') FROM t",
    "a path inside": "TEXT NOT NULL; INSERT INTO n SELECT json_extract(t.c, '$.a.\"odd one\"[1].b') FROM t",
    "two paths": "TEXT NOT NULL; INSERT INTO n SELECT json_extract(c, '$.a.b') + (c ->> '$.a.c') FROM t",
    "arrow": "TEXT NOT NULL; INSERT INTO n SELECT c -> 'a' ->> 'b' FROM t",
    "arrow and place": "TEXT NOT NULL; INSERT INTO n SELECT ifnull(\"c\", 'x') ->> 1 FROM t",
    "json_each": "TEXT NOT NULL; INSERT INTO n SELECT each.value FROM t, json_each(t.c) AS each",
    "array length": "TEXT NOT NULL CHECK (v > 0); INSERT INTO n SELECT json_array_length(c) FROM t",
    "another name": (
        "TEXT NOT NULL; WITH o AS (SELECT c AS d FROM t) INSERT INTO n SELECT json_extract(d, '$.k') FROM o"
    ),
    "json in an index": "TEXT; CREATE INDEX i ON t (json_extract(c, '$.k'))",
    "json in a view": "TEXT NOT NULL; CREATE VIEW w AS SELECT c ->> '$.k' AS v FROM t; INSERT INTO n SELECT v FROM w",
    "strftime": "TEXT NOT NULL; INSERT INTO n SELECT strftime('%Y', c) FROM t",
    "julianday": "REAL NOT NULL; INSERT INTO n SELECT julianday(c) - 1 FROM t",
    "seconds": "TEXT NOT NULL; INSERT INTO n SELECT datetime(c, 'unixepoch') FROM t",
    "cast": "INTEGER NOT NULL CHECK (v > 0); INSERT INTO n SELECT CAST(c AS INTEGER) FROM t",
    "arithmetic": "INTEGER NOT NULL CHECK (v > 0); INSERT INTO n SELECT 100 * t.c FROM t",
}


@pytest.mark.parametrize("kind", list(READ))
def test_verify_text_that_a_later_script_reads_in_a_form_has_that_form(tmp_path, kind):
    """A plain TEXT column held words, at which a later script that takes it for JSON, a date or a number failed."""
    column, _, script = READ[kind].partition("; ")
    found = verify(
        folder(
            tmp_path / "read",
            (
                f"CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT NOT NULL);\nCREATE TABLE n (v {column}) STRICT;",
                "DROP TABLE t;\nDROP TABLE n;",
            ),
            (script, "DELETE FROM n;\nDROP VIEW IF EXISTS w;\nDROP INDEX IF EXISTS i;"),
        )
    )
    failed = [problem for problem in problems(found) if "fails" in problem]
    assert failed == []
    assert found[3].unfilled == {}


def test_verify_key_that_a_script_adds_and_its_rollback_removes_is_in_no_row(tmp_path):
    """Generated rows had the key already, so that the rollback took away more than the script had brought."""
    sql = folder(
        tmp_path,
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT NOT NULL)", "DROP TABLE t"),
        ("UPDATE t SET c = json_set(c, '$.v', 2)", "UPDATE t SET c = json_remove(c, '$.v')"),
    )
    assert problems(verify(sql)) == []


def test_uses_tells_names_by_their_form():
    """Functions and operators tell it; words of SQL, stars and counts are nobody's numbers."""
    found = uses(
        [
            "SELECT t.*, count(*), a -> 'x', upper(b) FROM t WHERE date(c) < 'x' AND d % 2;",
            "SELECT json_each.value FROM json_each(e, '$.list') WHERE json_valid(f); SELECT CAST(g AS TEXT), h || 1;",
            "SELECT a + 1;",
        ]
    )
    assert {name: found.get(name) for name in "abcdefgh"} == {
        "a": Use("json", ('$."x"',)),
        "b": None,
        "c": Use("moment"),
        "d": Use("number"),
        "e": Use("json", ("$.list",)),
        "f": None,
        "g": None,
        "h": None,
    }


# ---------------------------------------------------------------- rows of the user's own

#: A script that takes a text apart in a way that no generated row can be ready for.
TABLES = """
CREATE TABLE p (id INTEGER PRIMARY KEY);
CREATE TABLE t (id INTEGER PRIMARY KEY, p INT NOT NULL REFERENCES p, v TEXT NOT NULL);
"""
COPY = """
CREATE TABLE n (v TEXT NOT NULL CHECK (v <> 'z'));
INSERT INTO n SELECT CASE WHEN v LIKE '_/_' THEN v ELSE abs(-9223372036854775808) END FROM t;
"""
APART = (TABLES, "DROP TABLE t;\nDROP TABLE p;"), (COPY, "DROP TABLE n;")


def test_verify_script_that_fails_on_generated_rows_says_what_to_do(tmp_path):
    """The message says that the rows are generated, and how to give others: nobody could know."""
    found = verify(folder(tmp_path / "folder", *APART))
    (problem,) = problems(found)
    assert "apply fails: " in problem
    assert "integer overflow" in problem
    assert problem.endswith(
        "\n  The rows that it met are generated. Where there can be none like them, give rows of your own, as INSERT "
        "statements in a file: `dao verify --fixtures FILE`"
    )


def test_verify_fixtures_take_the_place_of_generated_rows(tmp_path):
    """A table gets the rows of the file where they fit, and what they refer to is generated or in the file, too."""
    file = tmp_path / "rows.sql"
    file.write_text(
        "-- rows as there are\nINSERT INTO p VALUES (7);\n"
        "INSERT INTO t (id, p, v) VALUES (1, 7, 'a/b'), (2, 7, 'c/d');\n"
        "INSERT INTO n VALUES ('later');\n"
    )
    found = verify(folder(tmp_path / "folder", *APART), fixtures=file)
    assert problems(found) == []
    # those that the script copied; and with them one that was written since
    assert found[3].losses == tuple(f"rollback: n: the table is dropped with {rows} rows" for rows in (2, 3))


def test_verify_fixtures_show_what_a_rollback_loses(tmp_path):
    """Rows of the file are compared as generated ones are."""
    file = tmp_path / "rows.sql"
    file.write_text("INSERT INTO p VALUES (7); INSERT INTO t VALUES (1, 7, 'mine');")
    found = verify(folder(tmp_path / "folder", APART[0], ("UPDATE t SET v = 'x';", "SELECT 1;")), fixtures=file)
    assert problems(found)[0].splitlines()[1:] == [
        "  t: 1 row, not all as expected",
        "    - id = 1, v = 'mine'",
        "    + id = 1, v = 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DELETE FROM t;", "rows.sql:1: this is no INSERT; leave it out"),
        (
            "INSERT INTO p VALUES (1);\nINSERT INTO q VALUES (1);",
            "rows.sql:2: no migration leaves a schema .*no such table: q",
        ),
        (
            "INSERT INTO t VALUES (1, 8, 'x');",
            "rows.sql:1: no migration .*a row of t refers to one that does not exist",
        ),
        ("INSERT INTO t VALUES (?, 8, 'x');", "rows.sql:1: no migration .*"),
        ("INSERT INTO p VALUES (1); /* open", "a comment begins here and never ends"),
    ],
    ids=["delete", "no table", "no parent", "parameter", "broken off"],
)
def test_verify_fixtures_that_are_none_are_refused(tmp_path, text, message):
    """What is no INSERT, and what fits into no schema of the history, is an error with its line."""
    (tmp_path / "rows.sql").write_text(text)
    with pytest.raises(MigrationFileError, match=message):
        verify(folder(tmp_path / "folder", APART[0]), fixtures=tmp_path / "rows.sql")


def test_verify_fixtures_that_do_not_fit_are_said_where_they_are_missed(tmp_path):
    """Where a script fails on generated rows, its message says why the user's own were not taken."""
    (tmp_path / "rows.sql").write_text("\nINSERT INTO t (id, v) VALUES (1, 'a/b');")
    (problem,) = problems(verify(folder(tmp_path / "folder", *APART), fixtures=tmp_path / "rows.sql"))
    assert problem.endswith("\n  That of line 2 does not fit here: NOT NULL constraint failed: t.p")


def test_verify_fixtures_in_no_file_are_refused(tmp_path):
    """A file that cannot be read is an error with its name, before anything is tried."""
    with pytest.raises(MigrationFileError, match=r"none\.sql: cannot be read: No such file"):
        verify(folder(tmp_path / "folder", *APART), fixtures=tmp_path / "none.sql")


# ---------------------------------------------------------------- which are tried


@pytest.mark.parametrize("which", [{"since": "0001"}, {"latest": 2}])
def test_verify_some_tries_those_on_what_the_earlier_ones_make(tmp_path, which):
    """The rest of a history is just applied: nobody may edit it any more, and it was tried when it was new."""
    migrations = folder(
        tmp_path / "folder",
        ("CREATE TABLE a (v);", "SELECT 'a rollback that does nothing';"),
        ("UPDATE a SET v = 'x';", "SELECT 1;"),
        ("CREATE TABLE b (v);", "DROP TABLE b;"),
    )
    found = verify(migrations, **which)
    assert [(one.id, one.stage, one.ok) for one in found] == [
        ("0002_m", "empty", True),
        ("0002_m", "generated rows", False),
        ("0003_m", "empty", True),
        ("0003_m", "generated rows", True),
    ]
    url = f"sqlite:///{tmp_path}/real.db"
    migrate.apply(url, migrations, steps=2)
    found = verify(migrations, database=url, **which)
    assert [one.id for one in found if one.stage == "copy"] == ["0003_m", "0002_m"]
    migrate.apply(url, migrations)
    found = verify(migrations, database=url, **which)
    assert [one.id for one in found if one.stage == "copy"] == ["0003_m", "0002_m"]


def test_verify_some_after_one_that_fails_are_not_reached(tmp_path):
    """A migration that is not to be tried, and that the others cannot do without, is named with what it says."""
    migrations = folder(
        tmp_path / "folder", ("CREATE TABL a;", NOTHING), ("CREATE TABLE b (v);", "DROP TABLE b;"), (NOTHING, NOTHING)
    )
    found = verify(migrations, since="0002")
    assert [(one.id, one.stage, one.ok) for one in found] == [("0001_m", "empty", False), ("0003_m", "empty", False)]
    assert "0001_m.sql:1: near" in found[0].problems[0]
    assert found[1].problems == ("not tried: 0001_m comes before it here, and fails",)


# ---------------------------------------------------------------- what is looked at

BASE = (
    """
CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE c (id INTEGER PRIMARY KEY, p INT REFERENCES p ON DELETE CASCADE ON UPDATE SET NULL, v TEXT);
CREATE TABLE log (v TEXT);
CREATE TABLE far (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE other (id INTEGER PRIMARY KEY, v TEXT UNIQUE);
CREATE VIEW both AS SELECT far.id, far.v FROM far;
CREATE TRIGGER logged AFTER UPDATE ON p BEGIN INSERT INTO log VALUES (old.v); END;
CREATE TRIGGER through INSTEAD OF UPDATE ON both BEGIN UPDATE far SET v = new.v WHERE id = new.id; END;
CREATE TRIGGER fed AFTER INSERT ON other BEGIN UPDATE log SET v = new.v; END;
CREATE TABLE zed (v TEXT);
CREATE TRIGGER wants BEFORE INSERT ON zed WHEN NOT EXISTS (SELECT 1 FROM log)
    BEGIN SELECT RAISE (ABORT, 'nothing is logged'); END;
CREATE VIRTUAL TABLE f USING fts5 (v);
""",
    (
        "DROP TABLE f;\nDROP TABLE zed;\nDROP VIEW both;\nDROP TABLE c;\nDROP TABLE p;\nDROP TABLE log;\n"
        "DROP TABLE far;\nDROP TABLE other;"
    ),
)
#: Gives the rows of each of two tables to the other.
SWAP = """
PRAGMA writable_schema = on;
UPDATE sqlite_schema SET rootpage = (
    SELECT sum(rootpage) FROM sqlite_schema WHERE name IN ('far', 'p')
) - rootpage WHERE name IN ('far', 'p');
"""
#: Leaves a value that the constraint of its table does not allow.
UNSOUND = """
CREATE TABLE k (v INT CHECK (v > 0));
PRAGMA ignore_check_constraints = on;
INSERT INTO k VALUES (0);
ALTER TABLE k RENAME TO kk;
"""
#: Scripts with their rollbacks, and the table in which rows do not come back; None if all do.
MUTATIONS = {
    "nothing": (NOTHING, NOTHING, None),
    "a new table": ("CREATE TABLE n (v);", "DROP TABLE n;", None),
    "a row": ("UPDATE far SET v = 'x';", NOTHING, "far"),
    "a row of another table, on the way back": ("CREATE TABLE n (v);", "DROP TABLE n;\nDELETE FROM other;", "other"),
    "a trigger": ("UPDATE p SET v = v;", NOTHING, "log"),
    "a view": ("UPDATE both SET v = 'x';", NOTHING, "far"),
    "a cascade": ("-- foreign_keys: on\nDELETE FROM p;", NOTHING, "c"),
    "an action on update": ("-- foreign_keys: on\nUPDATE p SET id = id + 7;", "UPDATE p SET id = id - 7;", "c"),
    "a conflict": ("INSERT OR REPLACE INTO far SELECT id, 'x' FROM far;", NOTHING, "far"),
    "a full-text table": ("UPDATE f SET v = 'x';", NOTHING, "f"),
    "rows that change places": (
        "ALTER TABLE far RENAME TO o;\nALTER TABLE other RENAME TO far;\nALTER TABLE o RENAME TO other;",
        NOTHING,
        None,
    ),
    "a rebuild that forgets": (
        "CREATE TABLE n AS SELECT * FROM c WHERE v > '';\nDROP TABLE c;\nALTER TABLE n RENAME TO c;",
        NOTHING,
        "c",
    ),
    "two pages that change places, which SQLite refuses": (SWAP, NOTHING, None),
    "a value that no constraint allows, in a table with a new name": (
        UNSOUND,
        "DROP TABLE kk;",
        None,
    ),
    "a key that children have": ("UPDATE p SET id = id + 7;", "UPDATE p SET id = id - 7;", None),
    "a table that is filled where another is": ("UPDATE zed SET v = 'x';", NOTHING, "zed"),
    "a parent": ("DELETE FROM p WHERE id IN (SELECT p FROM c);", NOTHING, "p"),
    "outside of a transaction": ("-- transactional: false\nUPDATE far SET v = 'x';\nVACUUM;", NOTHING, "far"),
    "an index that rows refuse": ("CREATE UNIQUE INDEX u ON far (v IS NULL);", "DROP INDEX u;", None),
}


def findings(found: list[Verification]) -> list[tuple[object, ...]]:
    """Return what was found, but for times."""
    return [(one.id, one.stage, one.problems, one.warnings, one.losses) for one in found]


@pytest.mark.parametrize("kind", list(MUTATIONS))
def test_verify_finds_what_filling_and_comparing_everything_finds(tmp_path, monkeypatch, kind):
    """To look at the tables that scripts touch finds whatever they do: by trigger, cascade, view or a raw page."""
    up, down, changed = MUTATIONS[kind]
    migrations = folder(tmp_path / "folder", BASE, (up, down))
    fast = verify(migrations)
    monkeypatch.setattr(touched.Trace, "written", lambda *_: None)
    monkeypatch.setattr(touched.Trace, "touched", lambda *_: None)
    assert findings(fast) == findings(verify(migrations))
    told = [problem for problem in problems(fast) if problem.startswith("rows after the rollback are others")]
    assert any(f"  {changed}: " in problem for problem in told) == (changed is not None)


def test_verify_rows_do_not_grow_with_the_history(tmp_path, monkeypatch):
    """Each migration gets rows in the tables that it touches: all tables were filled, read and checked each time."""
    made: list[dict[str, int]] = []

    def counted(*arguments: object, **options: object) -> generate.Filled:
        filled = generate.fill(*arguments, **options)  # type: ignore[arg-type]
        made.append(filled.rows)
        return filled

    monkeypatch.setattr(on_rows, "fill", counted)
    pairs = [(f"CREATE TABLE t{number} (v);", f"DROP TABLE t{number};") for number in range(12)]
    assert problems(verify(folder(tmp_path / "folder", *pairs, ("UPDATE t3 SET v = v;", NOTHING)))) == []
    assert made == [
        *(rows for number in range(12) for rows in ({}, {f"t{number}": 3})),
        {"t3": 3},
        {"t3": 3},
    ]


def test_verify_reports_each_migration_when_its_turn_comes(tmp_path):
    """A program hears where verify is, and of how many: a long history said nothing for minutes."""
    heard: list[object] = []
    pairs = [(f"CREATE TABLE t{number} (v);", f"DROP TABLE t{number};") for number in range(2)]
    migrations = folder(tmp_path / "folder", *pairs)
    url = f"sqlite:///{tmp_path}/real.db"
    migrate.apply(url, migrations, steps=1)
    verify(migrations, database=url, report=heard.append)
    assert heard == [
        migrate.Verifying("0001_m", "empty", 1, 2, "folder"),
        migrate.Verifying("0002_m", "empty", 2, 2, "folder"),
        migrate.Verifying("0002_m", "copy", 1, 1, "folder"),
        migrate.Verifying("0001_m", "copy", 1, 1, "folder"),
    ]
