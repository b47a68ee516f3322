"""The rows on which verify tries migrations: scripts can use them, and they are where scripts can touch them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dao import migrate
from dao.migrate.verification import Verification, generate, touched, verifier, verify
from dao.migrate.verification.uses import Use, uses
from tests.folders import write


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
    """A script that brings the only rows that a table has room for was said to fail, as generated rows had the place."""
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
    "another name": "TEXT NOT NULL; WITH o AS (SELECT c AS d FROM t) INSERT INTO n SELECT json_extract(d, '$.k') FROM o",
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
CREATE VIRTUAL TABLE f USING fts5 (v);
""",
    "DROP TABLE f;\nDROP VIEW both;\nDROP TABLE c;\nDROP TABLE p;\nDROP TABLE log;\nDROP TABLE far;\nDROP TABLE other;",
)
NOTHING = "SELECT 1;"
#: Gives the rows of each of two tables to the other.
SWAP = """
PRAGMA writable_schema = on;
UPDATE sqlite_schema SET rootpage = (
    SELECT sum(rootpage) FROM sqlite_schema WHERE name IN ('far', 'p')
) - rootpage WHERE name IN ('far', 'p');
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

    monkeypatch.setattr(verifier, "fill", counted)
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
        migrate.Verifying("0001_m", "empty", 1, 2),
        migrate.Verifying("0002_m", "empty", 2, 2),
        migrate.Verifying("0002_m", "copy", 1, 1),
        migrate.Verifying("0001_m", "copy", 1, 1),
    ]
