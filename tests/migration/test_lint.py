"""What `lint` finds in scripts and what it lets be, how it is silenced, and how it is reported as SARIF."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dao.errors import MigrationFileError
from dao.migrate.linting import RULES, lint
from dao.migrate.linting.sarif import report
from dao.migrate.scripts.migration import from_texts
from tests.conftest import SQL
from tests.folders import ALONE, THREE, write
from tests.migration import test_postgresql_lint, test_script

PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL) STRICT;\n"
WATCH = (
    "CREATE TRIGGER kept_u AFTER UPDATE OF a, b ON kept WHEN new.updated_at IS old.updated_at "
    "BEGIN UPDATE kept SET updated_at = 'now' WHERE id = new.id; END;\n"
)
#: What is there before the script that a test is about: tables that may hold rows, and what refers to them.
BASE = (
    PARENT
    + """
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id)) STRICT;
CREATE INDEX child_parent ON child (parent_id);
CREATE TABLE alone (id INTEGER PRIMARY KEY, x TEXT, y TEXT);
CREATE INDEX alone_x ON alone (x);
CREATE TRIGGER alone_g AFTER INSERT ON alone BEGIN UPDATE alone SET y = 'new' WHERE id = new.id; END;
CREATE TABLE seen (id INTEGER PRIMARY KEY, a TEXT, b TEXT);
CREATE VIEW seen_a AS SELECT a FROM seen;
CREATE TABLE kept (id INTEGER PRIMARY KEY, a TEXT, b TEXT, updated_at TEXT);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);
"""
    + WATCH
)
BASE_BACK = (
    "DROP TABLE counted; DROP TABLE kept; DROP VIEW seen_a; DROP TABLE seen; DROP TABLE alone; "
    "DROP TABLE child; DROP TABLE parent;"
)

NEW_ALONE = "CREATE TABLE new_alone (id INTEGER PRIMARY KEY, x TEXT, y TEXT{more});\n"
COPY = "INSERT INTO new_alone (id, x, y) SELECT id, x, y FROM alone;\n"
SWAP = "DROP TABLE alone;\nALTER TABLE new_alone RENAME TO alone;\n"
AGAIN = """CREATE INDEX alone_x ON alone (x);
CREATE TRIGGER alone_g AFTER INSERT ON alone BEGIN UPDATE alone SET y = 'new' WHERE id = new.id; END;
"""
COUNTED = "CREATE TABLE n (id INTEGER PRIMARY KEY AUTOINCREMENT);\nINSERT INTO n SELECT id FROM counted;\n"
REBUILD = NEW_ALONE.format(more=", z TEXT") + COPY + SWAP + AGAIN


def found(folder, script, rollback="-- none"):
    """Return the findings about a script after the base: code, line and message, but for its rollback."""
    return [(f.code, f.line, f.message) for f in findings(folder, script, rollback) if f.path.name == "0002_x.sql"]


def findings(folder, script, rollback="-- none"):
    """Return all findings about a pair after the base."""
    base = {"0001_base.sql": BASE, "0001_base.rollback.sql": BASE_BACK}
    write(folder / "sql", {**base, "0002_x.sql": script, "0002_x.rollback.sql": rollback})
    return [finding for finding in lint(folder / "sql").findings if finding.migration == "0002_x"]


def undoing(folder, script, rollback):
    """Return the findings about a rollback script: code and message."""
    return [(f.code, f.message) for f in findings(folder, script, rollback) if f.path.name.endswith("rollback.sql")]


# ---------------------------------------------------------------- every rule: what triggers it, and what nearly does

#: By name: the rule, a script that it holds something against, the line, a part of the message.
WRONG = {
    "syntax": ("M001", "SELECT 1;\n\nSELEC 2;", 3, 'near "SELEC"'),
    "missing table": ("M001", "\nINSERT INTO nope VALUES (1);", 2, "no such table: nope"),
    "ATTACH": ("M001", "ATTACH 'x' AS y;", 1, "refused ATTACH"),
    "ROLLBACK": ("M001", "SELECT 1;\nROLLBACK;", 2, "refused ROLLBACK"),
    "deferred foreign key": (
        "M001",
        (
            "-- foreign_keys: on\n\nCREATE TABLE t (p INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);\n"
            "INSERT INTO t VALUES (1);"
        ),
        4,
        "FOREIGN KEY constraint failed",
    ),
    "savepoint left open": ("M001", "SAVEPOINT a;\nSELECT 1;", 2, "leaves the savepoint a open"),
    "VACUUM": ("M001", "VACUUM;", 1, "transactional: false"),
    "view in the way of a rebuild": (
        "M001",
        (
            "CREATE TABLE new_seen (id INTEGER PRIMARY KEY, a TEXT, b TEXT);\n"
            "INSERT INTO new_seen SELECT * FROM seen;\nDROP TABLE seen;\nALTER TABLE new_seen RENAME TO seen;"
        ),
        4,
        "error in view seen_a",
    ),
    "drop table": ("M002", "-- x\n\nDROP TABLE alone;", 3, "alone is dropped with all its rows"),
    "drop after rename": ("M002", "ALTER TABLE alone RENAME TO gone;\nDROP TABLE gone;", 2, "alone is dropped"),
    "drop after a copy elsewhere": (
        "M002",
        "CREATE TABLE other (id INTEGER PRIMARY KEY);\nINSERT INTO other SELECT id FROM alone;\nDROP TABLE alone;",
        3,
        "alone is dropped",
    ),
    "rebuild without copy": ("M002", REBUILD.replace(COPY, ""), 2, "nothing copies its rows"),
    "drop column": ("M003", "\nALTER TABLE seen DROP COLUMN b;", 2, "the column seen.b is dropped with its values"),
    "rebuild without a column": (
        "M003",
        REBUILD.replace("(id, x, y) SELECT id, x, y", "(id, x) SELECT id, x"),
        3,
        "alone.y is lost: the new table has it, but the copy leaves it out",
    ),
    "rebuild to fewer columns": (
        "M003",
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, x TEXT);\nINSERT INTO n SELECT id, x FROM alone;\n"
            "DROP TABLE alone;\nALTER TABLE n RENAME TO alone;\nCREATE INDEX alone_x ON alone (x);"
        ),
        3,
        "alone.y is lost: the copy leaves it out",
    ),
    "drop a renamed column": (
        "M003",
        (
            "ALTER TABLE child RENAME COLUMN parent_id TO p;\nDROP INDEX child_parent;\n"
            "ALTER TABLE seen RENAME COLUMN b TO c;\nALTER TABLE seen DROP COLUMN c;"
        ),
        4,
        "the column seen.b is dropped",
    ),
    "delete": ("M004", "\nDELETE FROM parent;", 2, "every row of parent"),
    "delete, without semicolon": ("M004", "DELETE FROM parent -- WHERE;", 1, "every row of parent"),
    "delete, subquery": ("M004", "WITH a AS (SELECT 1 WHERE 1) DELETE FROM parent;", 1, "every row of parent"),
    "delete, returning": ("M004", "DELETE FROM parent RETURNING id, 'returning';", 1, "every row of parent"),
    "delete, with triggers": (
        "M004",
        "CREATE TRIGGER t BEFORE DELETE ON parent BEGIN SELECT 1 WHERE 1; END;\nDELETE FROM parent;",
        2,
        "every row of parent",
    ),
    "delete, and a copy that does not come back": (
        "M004",
        (
            "CREATE TEMP TABLE parent AS SELECT * FROM alone;\nDELETE FROM main.parent;\n"
            "INSERT INTO main.parent (code) SELECT 'a' FROM temp.parent;"
        ),
        2,
        "every row of parent",
    ),
    "delete before its copy": (
        "M004",
        "DELETE FROM seen;\nCREATE TEMP TABLE k AS SELECT * FROM seen;\nINSERT INTO seen SELECT * FROM k;",
        1,
        "every row of seen",
    ),
    "update": ("M005", "\n\nUPDATE alone SET x = (SELECT 1 WHERE 2);", 3, "every row of alone"),
    "update from": ("M005", "UPDATE alone SET x = child.id FROM child;", 1, "every row of alone"),
    "add NOT NULL": ("M006", "\nALTER TABLE parent ADD COLUMN n TEXT NOT NULL;", 2, "NOT NULL column"),
    "add NOT NULL to a full table's copy": (
        "M006",
        NEW_ALONE.format(more="") + COPY + "ALTER TABLE new_alone ADD COLUMN n TEXT NOT NULL;\n" + SWAP + AGAIN,
        3,
        "NOT NULL column",
    ),
    "add a changing default": ("M006", "ALTER TABLE alone ADD COLUMN t DEFAULT CURRENT_TIMESTAMP;", 1, "non-constant"),
    "add a default against a CHECK": (
        "M006",
        "ALTER TABLE alone ADD COLUMN n INTEGER DEFAULT 0 CHECK (n > 0);",
        1,
        "CHECK constraint failed",
    ),
    "add a default of another type": (
        "M006",
        "ALTER TABLE parent ADD COLUMN n INTEGER DEFAULT 'x';",
        1,
        "type mismatch",
    ),
    "add NOT NULL after a rename": (
        "M006",
        "ALTER TABLE alone RENAME TO other;\nALTER TABLE other ADD COLUMN n NOT NULL;",
        2,
        "NOT NULL column",
    ),
    "rebuild leaves out a NOT NULL column": (
        "M006",
        NEW_ALONE.format(more=", n TEXT NOT NULL") + COPY + SWAP + AGAIN,
        2,
        "NOT NULL constraint failed: new_alone.n",
    ),
    "rebuild, old renamed first": (
        "M007",
        "ALTER TABLE parent RENAME TO old;\n" + PARENT + "INSERT INTO parent SELECT * FROM old;\nDROP TABLE old;",
        1,
        "the foreign key of child now refers to old",
    ),
    "rebuild without index": (
        "M008",
        REBUILD.replace("CREATE INDEX alone_x ON alone (x);\n", ""),
        3,
        "the index alone_x goes with the old alone",
    ),
    "rebuild with an index on the columns in another order": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX alone_yx ON alone (y, x)"),
        3,
        "the index alone_x goes with the old alone",
    ),
    "rebuild with an index on fewer rows": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX alone_x2 ON alone (x) WHERE y = 1"),
        3,
        "the index alone_x goes with the old alone",
    ),
    "rebuild with an index on an expression": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX alone_lower ON alone (lower(x))"),
        3,
        "the index alone_x goes with the old alone",
    ),
    "rebuild without trigger": ("M008", REBUILD.rpartition("CREATE TRIGGER")[0], 3, "the trigger alone_g goes"),
    "rebuild without STRICT": (
        "M008",
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL);\n"
            "INSERT INTO n SELECT * FROM parent;\n"
            "DROP TABLE parent;\nALTER TABLE n RENAME TO parent;"
        ),
        3,
        "parent was STRICT",
    ),
    "view without its table": (
        "M009",
        "-- allows: drop table\n\nDROP TABLE seen;",
        3,
        "the view seen_a no longer compiles",
    ),
    "view made broken": ("M009", "SELECT 1;\nCREATE VIEW v AS SELECT nope FROM alone;", 2, "no such column: nope"),
    "trigger made broken": (
        "M009",
        (
            "CREATE TRIGGER ok AFTER DELETE ON alone BEGIN SELECT 1; END;\n"
            "CREATE TRIGGER bad AFTER UPDATE OF x ON alone BEGIN DELETE FROM nope; END;"
        ),
        2,
        "the trigger bad no longer compiles: no such table: main.nope",
    ),
    "trigger of a view": (
        "M009",
        "CREATE TRIGGER bad INSTEAD OF UPDATE ON seen_a BEGIN UPDATE seen SET nope = 1; END;",
        1,
        "the trigger bad no longer compiles: no such column: nope",
    ),
    "rename table": ("M010", "\nALTER TABLE seen RENAME TO looked;", 2, "SQLite rewrites view seen_a to the new name"),
    "rename column": ("M010", "ALTER TABLE seen RENAME COLUMN a TO c;", 1, "the column seen.a is renamed to c; SQLite"),
    "index on an old table": (
        "M011",
        "SELECT 1;\nCREATE INDEX i ON parent (name);",
        2,
        "the index i is built on parent",
    ),
    "unique index on an old table": ("M011", "CREATE UNIQUE INDEX i ON parent (name);", 1, "fails if two rows"),
    "foreign key without index": (
        "M012",
        "\nCREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent);",
        2,
        "t (p), which refers to parent",
    ),
    "index of a foreign key dropped": ("M012", "SELECT 1;\nDROP INDEX child_parent;", 2, "child (parent_id)"),
    "foreign key with index on another column": (
        "M012",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, p INTEGER REFERENCES parent);\nCREATE INDEX i ON t (a, p);",
        1,
        "t (p)",
    ),
    "foreign key with an index that compares in another way than the parent": (
        "M012",
        (
            "CREATE TABLE p (a TEXT COLLATE NOCASE PRIMARY KEY); CREATE TABLE t (a TEXT REFERENCES p);\n"
            "CREATE INDEX i ON t (a);"
        ),
        1,
        "t (a), which refers to p",
    ),
    "foreign key to a column that is not unique": (
        "M013",
        "\nCREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT UNIQUE REFERENCES parent (name));",
        2,
        "foreign key mismatch",
    ),
    "foreign key to nothing": (
        "M013",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT UNIQUE REFERENCES nope (name));",
        1,
        "nope, which is not there",
    ),
    "double-quoted string": ("M014", '\nINSERT INTO alone (x) VALUES ("text");', 2, '"text" is taken for a string'),
    "double-quoted string in a CHECK": (
        "M014",
        'CREATE TABLE t (id INTEGER PRIMARY KEY, x CHECK (x <> "it\'s"));',
        1,
        "is taken for a string",
    ),
    "double-quoted string in RAISE": (
        "M014",
        'SELECT 1;\nCREATE TRIGGER bad BEFORE DELETE ON alone BEGIN SELECT raise(FAIL, "no"); END;',
        2,
        '"no" is taken for a string in the trigger bad',
    ),
    "double-quoted string in a WHEN": (
        "M014",
        'CREATE TRIGGER bad BEFORE DELETE ON alone WHEN old.x = "no" BEGIN SELECT 1; END;',
        1,
        '"no" is taken for a string in the trigger bad',
    ),
    "double-quoted string in a view": (
        "M014",
        'CREATE VIEW v AS SELECT x FROM alone WHERE y = "open";',
        1,
        '"open" is taken for a string in the view v',
    ),
    "double-quoted string in a trigger, of a table that has one": (
        "M014",
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);\n"
            'CREATE TRIGGER bad AFTER INSERT ON t BEGIN UPDATE t SET x = "no" WHERE id = new.id; END;'
        ),
        2,
        '"no" is taken for a string in the trigger bad',
    ),
    "time as default": (
        "M015",
        (
            "\n"
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a DEFAULT CURRENT_TIMESTAMP, b DEFAULT (random()), c DEFAULT 1,\n"
            "    d DEFAULT (datetime('now')), e DEFAULT (datetime('2025-01-01')));"
        ),
        2,
        "the default of a, b and d is not constant",
    ),
    "IF NOT EXISTS": ("M016", "\nCREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY);", 2, "IF NOT EXISTS hides"),
    "IF NOT EXISTS that does nothing": (
        "M016",
        "create /* if */ index if not exists alone_x on alone (y);",
        1,
        "does nothing",
    ),
    "IF NOT EXISTS after SQLite rolled back": (
        "M016",
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY);\nINSERT OR ROLLBACK INTO alone (id) VALUES (1), (1);\n"
            "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY);"
        ),
        3,
        "IF NOT EXISTS hides",
    ),
    "IF EXISTS": ("M016", "DROP TRIGGER IF EXISTS alone_g;", 1, "IF EXISTS hides"),
    "own transaction": ("M021", "SELECT 1;\nBEGIN;\nSELECT 2;", 2, "ignored BEGIN"),
    "foreign keys turned off": ("M021", "PRAGMA foreign_keys = OFF;", 1, "ignored PRAGMA foreign_keys"),
    "two commits": ("M022", ALONE + "INSERT INTO alone (x) VALUES (1);\nVACUUM;", 3, "committed by now"),
    "own transaction and more": (
        "M022",
        ALONE + "BEGIN;\nINSERT INTO alone (x) VALUES (1);\nCOMMIT;\nINSERT INTO alone (x) VALUES (1);",
        5,
        "committed by now",
    ),
    "journal mode": ("M023", "SELECT 1;\nPRAGMA journal_mode = DELETE;", 2, "journal_mode = DELETE"),
    "table from a SELECT": ("M024", "\nCREATE TABLE t AS SELECT * FROM alone;", 2, "t gets its columns from a SELECT"),
    "no key": ("M025", "\nCREATE TABLE t (a, b);", 2, "t has no PRIMARY KEY"),
    "nullable key": ("M026", "\nCREATE TABLE t (a TEXT PRIMARY KEY);", 2, "a accepts NULL"),
    "no statement": ("M027", "-- later\n;", 1, "nothing but comments"),
    "copy in another order": (
        "M029",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, b TEXT, a TEXT);\nINSERT INTO n SELECT * FROM seen;",
        2,
        "the values of a come into b",
    ),
    "copy in another order into a STRICT table": (
        "M029",
        "CREATE TABLE n (b INTEGER, id TEXT, a TEXT) STRICT;\n\nINSERT INTO n SELECT a, id, b FROM seen;",
        3,
        "cannot store TEXT value in INTEGER column n.b",
    ),
    "copy in another order into a key": (
        "M029",
        "CREATE TABLE n (a INTEGER PRIMARY KEY, id TEXT);\nINSERT INTO n SELECT a, id FROM seen;",
        2,
        "datatype mismatch",
    ),
    "copy into another order by names": (
        "M029",
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, b TEXT, a TEXT);\n"
            "INSERT INTO n (id, a, b) SELECT id, b, a FROM seen WHERE a > '';"
        ),
        2,
        "the values of b come into a",
    ),
    "copy into another type": (
        "M029",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b INT);\nINSERT INTO n SELECT * FROM seen;",
        2,
        "b is INT, and its values come from b, which is TEXT",
    ),
    "rebuild of a table that counts": (
        "M030",
        COUNTED + "DROP TABLE counted;\nALTER TABLE n RENAME TO counted;",
        3,
        "the number of counted in sqlite_sequence goes with the old table",
    ),
    "rebuild of a table that counts no more": (
        "M030",
        COUNTED.replace("AUTOINCREMENT", "/* AUTOINCREMENT */")
        + "DROP TABLE counted;\nALTER TABLE n RENAME TO counted;",
        3,
        "counted was AUTOINCREMENT, and the table that takes its place is not",
    ),
    "a column that a trigger does not name": (
        "M028",
        "SELECT 1;\nALTER TABLE kept ADD COLUMN d;\nALTER TABLE kept ADD COLUMN e;",
        3,
        "the trigger kept_u watches every column of kept but d and e",
    ),
    "a column that a trigger does not name after a rebuild": (
        "M028",
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b TEXT, updated_at TEXT, d TEXT);\n"
            "INSERT INTO n (id, a, b, updated_at) SELECT * FROM kept;\nDROP TABLE kept;\n"
            f"ALTER TABLE n RENAME TO kept;\n{WATCH}"
        ),
        4,
        "the trigger kept_u watches every column of kept but d",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_lint_what_a_rule_is_about_is_found_at_its_line(tmp_path, case):
    """Each rule has a finding about its example, once, at the line of the statement."""
    code, script, line, message = WRONG[case]
    matching = [(where, text) for rule, where, text in found(tmp_path, script) if rule == code]
    assert [where for where, text in matching if message in text] == [line], matching


#: By name: the rule, and a script that comes near and is all right.
RIGHT = {
    "statements that work": ("M001", "SELECT 1;;\n/* ; */;\nSAVEPOINT a; RELEASE a;"),
    "drop of a new table": ("M002", "CREATE TABLE t (id INTEGER PRIMARY KEY);\nDROP TABLE t;"),
    "drop of a temporary table": ("M002", "CREATE TEMP TABLE alone2 (id);\nDROP TABLE alone2;"),
    "drop that is declared": ("M002", "-- allows: drop table alone\nDROP TABLE alone;"),
    "rebuild with a copy": ("M002", REBUILD),
    "drop of a new column": ("M003", "ALTER TABLE seen ADD COLUMN c;\nALTER TABLE seen DROP COLUMN c;"),
    "drop of a column that is declared": ("M003", "-- allows: drop column seen.b\nALTER TABLE seen DROP COLUMN b;"),
    "rebuild that copies a column to another name": (
        "M003",
        REBUILD.replace("(id, x, y) SELECT", "(id, x, z) SELECT"),
    ),
    "delete with WHERE": ("M004", "DELETE FROM parent WHERE id = 1 -- ;"),
    "delete with WHERE true": ("M004", "DELETE FROM parent WHERE true;"),
    "delete with WHERE and RETURNING": ("M004", "DELETE FROM parent WHERE name = 'a returning b' RETURNING id;"),
    "delete between a copy and back": (
        "M004",
        (
            "CREATE TEMP TABLE k AS SELECT * FROM parent;\nDELETE FROM parent;\n"
            "INSERT INTO parent SELECT * FROM k WHERE id > 1;"
        ),
    ),
    "delete between a copy of a copy and back": (
        "M004",
        (
            "CREATE TABLE k AS SELECT * FROM seen; CREATE TEMP TABLE m AS SELECT * FROM k; DROP TABLE k;\n"
            "DELETE FROM seen;\nINSERT INTO seen SELECT * FROM m;"
        ),
    ),
    "delete from a new table": ("M004", "CREATE TABLE t (id INTEGER PRIMARY KEY);\nDELETE FROM t;"),
    "delete that is declared": ("M004", "-- allows: data-loss parent\nDELETE FROM parent;"),
    "delete in a new trigger": ("M004", "CREATE TRIGGER t AFTER INSERT ON alone BEGIN DELETE FROM parent; END;"),
    "update with WHERE": ("M005", "UPDATE alone SET x = 1 WHERE y IS NULL;"),
    "upsert": ("M005", "INSERT INTO alone (id) VALUES (1) ON CONFLICT DO UPDATE SET x = 1;"),
    "update by a trigger": ("M005", "INSERT INTO alone (id) VALUES (1);"),
    "add a column with a default": ("M006", "ALTER TABLE parent ADD COLUMN n TEXT NOT NULL DEFAULT '';"),
    "add a CHECK that the default passes": (
        "M006",
        "ALTER TABLE alone ADD COLUMN n INTEGER NOT NULL DEFAULT 1 CHECK (n > 0);",
    ),
    "add NOT NULL to a new table": (
        "M006",
        "CREATE TABLE t (id INTEGER PRIMARY KEY);\nALTER TABLE t ADD COLUMN n NOT NULL;",
    ),
    "rebuild that fills a NOT NULL column": (
        "M006",
        NEW_ALONE.format(more=", n TEXT NOT NULL")
        + "INSERT INTO new_alone (id, x, y, n) SELECT id, x, y, '' FROM alone;\n"
        + SWAP
        + AGAIN,
    ),
    "rebuild whose new column has a default": (
        "M006",
        NEW_ALONE.format(more=", n TEXT NOT NULL DEFAULT ''") + COPY + SWAP + AGAIN,
    ),
    "rebuild in order": ("M007", REBUILD),
    "rename away and back": ("M007", "ALTER TABLE parent RENAME TO p;\nALTER TABLE p RENAME TO parent;"),
    "rebuild with everything": ("M008", REBUILD),
    "rebuild, index under another name": ("M008", REBUILD.replace("INDEX alone_x ON", "INDEX other ON")),
    "rebuild, index on more columns": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX other ON alone (x, y)"),
    ),
    "rebuild, index the other way": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX other ON alone (x DESC)"),
    ),
    "rebuild, index without rows that it never finds": (
        "M008",
        REBUILD.replace("INDEX alone_x ON alone (x)", "INDEX other ON alone (x) WHERE x IS NOT NULL"),
    ),
    "rebuild, index by a constraint": (
        "M008",
        REBUILD.replace("x TEXT", "x TEXT UNIQUE").replace("CREATE INDEX", "-- CREATE INDEX"),
    ),
    "rebuild, index by a key without rowid": (
        "M008",
        REBUILD.replace(
            "id INTEGER PRIMARY KEY, x TEXT, y TEXT, z TEXT)",
            "id, x TEXT, y TEXT, z TEXT, PRIMARY KEY (x, id)) WITHOUT ROWID",
        ).replace("CREATE INDEX", "-- CREATE INDEX"),
    ),
    "rebuild without the column of an index": (
        "M008",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, y TEXT);\nINSERT INTO n SELECT id, y FROM alone;\nDROP TABLE alone;\n"
        "ALTER TABLE n RENAME TO alone;\n" + AGAIN.partition("\n")[2],
    ),
    "rebuild, trigger under another name": ("M008", REBUILD.replace("TRIGGER alone_g", "TRIGGER touched")),
    "rebuild, index dropped by name": (
        "M008",
        "DROP INDEX alone_x;\n" + REBUILD.replace("CREATE INDEX", "-- CREATE INDEX"),
    ),
    "view dropped and made anew": (
        "M009",
        "DROP VIEW seen_a;\nALTER TABLE seen DROP COLUMN a;\nCREATE VIEW seen_a AS SELECT b FROM seen;",
    ),
    "trigger with an old row": (
        "M009",
        "CREATE TRIGGER t INSTEAD OF INSERT ON seen_a BEGIN INSERT INTO seen (a) VALUES (new.a); END;",
    ),
    "rename of a new table": ("M010", REBUILD),
    "rename of an old table and back": ("M010", "ALTER TABLE parent RENAME TO p;\nALTER TABLE p RENAME TO parent;"),
    "rename of another new table": ("M010", "CREATE TABLE t (id INTEGER PRIMARY KEY);\nALTER TABLE t RENAME TO u;"),
    "index on a new table": ("M011", "CREATE TABLE t (id INTEGER PRIMARY KEY, a);\nCREATE INDEX i ON t (a);"),
    "index after a rebuild": ("M011", REBUILD),
    "index after a rebuild in the wrong order": (
        "M011",
        (
            "ALTER TABLE alone RENAME TO old;\nCREATE TABLE alone (id INTEGER PRIMARY KEY, x TEXT, y TEXT);\n"
            "INSERT INTO alone SELECT * FROM old;\nDROP TABLE old;\nCREATE INDEX alone_x ON alone (x);"
        ),
    ),
    "foreign key with index": (
        "M012",
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent, q REFERENCES parent);\n"
            "CREATE INDEX i ON t (p, id); CREATE INDEX j ON t (q) WHERE q IS NOT NULL;"
        ),
    ),
    "foreign key with a key without rowid": (
        "M012",
        "CREATE TABLE t (p INTEGER REFERENCES parent, q INTEGER, PRIMARY KEY (p, q)) WITHOUT ROWID;",
    ),
    "foreign key of two columns with an index the other way": (
        "M012",
        (
            "CREATE TABLE p (a, b, PRIMARY KEY (a, b)); CREATE TABLE t (a, b, FOREIGN KEY (a, b) REFERENCES p);\n"
            "CREATE INDEX i ON t (b DESC, a);"
        ),
    ),
    "foreign key with an index that compares as the parent does": (
        "M012",
        (
            "CREATE TABLE p (a TEXT COLLATE NOCASE PRIMARY KEY); CREATE TABLE t (a TEXT REFERENCES p);\n"
            "CREATE INDEX i ON t (a COLLATE NOCASE);"
        ),
    ),
    "foreign key whose index got another name": (
        "M012",
        "DROP INDEX child_parent;\nCREATE INDEX i ON child (parent_id, id);",
    ),
    "foreign key that is the key": ("M012", "CREATE TABLE t (id INTEGER PRIMARY KEY REFERENCES parent);"),
    "foreign key to a unique column": (
        "M013",
        (
            "CREATE TABLE p (id INTEGER PRIMARY KEY, n TEXT UNIQUE);\n"
            "CREATE TABLE t (n TEXT PRIMARY KEY REFERENCES p (n));"
        ),
    ),
    "foreign key to a later table": (
        "M013",
        "CREATE TABLE t (n INTEGER PRIMARY KEY REFERENCES p);\nCREATE TABLE p (id INTEGER PRIMARY KEY);",
    ),
    "double-quoted names": ("M014", 'INSERT INTO "alone" ("x") VALUES (\'a "b" c\');'),
    "double-quoted name of a column in a view and a trigger": (
        "M014",
        (
            'CREATE VIEW v AS SELECT "x" FROM "alone";\n'
            'CREATE TRIGGER t AFTER INSERT ON seen BEGIN UPDATE seen SET "a" = \'"\' WHERE id = new."id"; END;'
        ),
    ),
    "default that fails": ("M015", "CREATE TABLE t (id INTEGER PRIMARY KEY, a DEFAULT (json('{')));"),
    "constant default": ("M015", "CREATE TABLE t (id INTEGER PRIMARY KEY, a DEFAULT (upper('x')), b DEFAULT 'now');"),
    "condition in a string": ("M016", "INSERT INTO alone (x) VALUES ('CREATE TABLE IF NOT EXISTS');"),
    "temporary table": ("M016", "CREATE TEMP TABLE IF NOT EXISTS t (id);\nDROP TABLE IF EXISTS t;"),
    "own savepoint": ("M021", "SAVEPOINT a;\nRELEASE a;"),
    "one commit": ("M022", ALONE + "SELECT 1;\nVACUUM;\nPRAGMA foreign_key_check;"),
    "one transaction": (
        "M022",
        ALONE + "BEGIN;\nDELETE FROM alone WHERE id = 1;\nDELETE FROM seen WHERE id = 1;\nCOMMIT;",
    ),
    "pragma that is read": ("M023", "PRAGMA journal_mode;"),
    "pragma outside of a transaction": ("M023", ALONE + "PRAGMA journal_mode = DELETE;"),
    "table after a virtual one, whose module reads its own": (
        "M024",
        "CREATE VIRTUAL TABLE s USING fts5(x);\nCREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);",
    ),
    "temporary table from a SELECT": ("M024", "CREATE TEMP TABLE t AS SELECT * FROM alone;"),
    "key without rowid": ("M025", "CREATE TABLE t (a TEXT PRIMARY KEY, b) WITHOUT ROWID;"),
    "keys that are not null": (
        "M026",
        (
            "CREATE TABLE t (a TEXT NOT NULL PRIMARY KEY); CREATE TABLE u (a TEXT PRIMARY KEY) STRICT;\n"
            "CREATE TABLE v (a TEXT PRIMARY KEY) WITHOUT ROWID; CREATE TABLE w (a INTEGER PRIMARY KEY);"
        ),
    ),
    "a statement": ("M027", "SELECT 1"),
    "copy by names": (
        "M029",
        "CREATE TABLE n (id INTEGER, b, a);\nINSERT INTO n (id, a, b) SELECT id, a, b FROM seen;",
    ),
    "copy that renames, converts and doubles": (
        "M029",
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, c TEXT, b INT, e TEXT, x ANY, a TEXT) STRICT;\n"
            "INSERT INTO n (id, c, b, e, x, a) SELECT id, a, CAST(b AS INTEGER), a || b, b, a FROM seen;"
        ),
    ),
    "copy from columns without a type": (
        "M029",
        (
            "CREATE TABLE k (k1, k2, k3);\nINSERT INTO k SELECT id, a, b FROM seen;\n"
            "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b TEXT) STRICT;\nINSERT INTO n SELECT k1, k2, k3 FROM k;"
        ),
    ),
    "copy of few rows": (
        "M029",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, b, a);\nINSERT INTO n SELECT * FROM seen WHERE a = 'q';",
    ),
    "rebuild of a table that goes on counting": (
        "M030",
        (
            COUNTED + "UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'counted') "
            "WHERE name = 'n';"
            "DROP TABLE counted;\nALTER TABLE n RENAME TO counted;"
        ),
    ),
    "rebuild of a table that does not count": ("M030", REBUILD),
    "a column that the trigger made anew names": (
        "M028",
        "DROP TRIGGER kept_u;\nALTER TABLE kept ADD COLUMN d;\n" + WATCH.replace("a, b", "a, b, d"),
    ),
    "a column beside a trigger that watches one, and one that watches all": (
        "M028",
        (
            "CREATE TRIGGER one AFTER UPDATE OF a ON seen BEGIN SELECT 1; END;\n"
            "CREATE TRIGGER every AFTER UPDATE ON seen "
            "BEGIN SELECT 1; END;\nCREATE TRIGGER new AFTER INSERT ON seen BEGIN SELECT 1; END;\n"
            "ALTER TABLE seen ADD COLUMN d;"
        ),
    ),
    "a generated column": ("M028", "ALTER TABLE kept ADD COLUMN d AS (a || b);"),
}


@pytest.mark.parametrize("case", list(RIGHT))
def test_lint_what_only_looks_like_it_is_let_be(tmp_path, case):
    """No rule has a finding about its counter-example, which SQLite runs."""
    code, script = RIGHT[case]
    assert [finding for finding in found(tmp_path, script) if finding[0] in {code, "M001"}] == []


def test_rules_each_has_an_example():
    """Every rule about scripts is tried above or below, and codes and names are unique."""
    elsewhere = {"M017", "M018", "M019", "M020", "M901", "M902", "M903", "M904"}
    # those of a server have their own, which are tried there
    elsewhere |= {code for code, *_ in test_postgresql_lint.WRONG.values() if code > "M030"}
    codes = [rule.code for rule in RULES]
    assert {code for code, *_ in WRONG.values()} | elsewhere == set(codes)
    assert {code for code, _ in RIGHT.values()} | elsewhere == set(codes)
    assert len({rule.name for rule in RULES}) == len(set(codes)) == len(codes)


def test_lint_our_own_migrations_have_neither_errors_nor_warnings():
    """What is shipped passes, even with --strict, for either engine."""
    assert not [one for one in lint(SQL.parent / "postgresql", engine="postgresql").findings if one.is_open]
    ours = [one for one in lint(SQL).findings if one.is_open]
    assert {one.severity for one in ours} == {"note"}
    assert {one.code for one in ours} == {"M011", "M015"}


def test_lint_work_of_a_virtual_table_is_not_of_the_next_statement(tmp_path):
    """A module's work belongs to the statement that ran meanwhile.

    It was taken for the next one's, whose missing WHERE was not found.
    """
    script = (
        "CREATE VIRTUAL TABLE s USING fts5(x, content='alone', content_rowid='id');\n"
        "INSERT INTO s (s) VALUES ('rebuild');\nDELETE FROM seen;\n"
        "INSERT INTO s (s) VALUES ('rebuild');\nUPDATE alone SET x = 1;\n"
        "INSERT INTO s (s) VALUES ('delete-all');\nCREATE TABLE t (id INTEGER PRIMARY KEY);\n"
    )
    of_rows = [(one.code, one.line) for one in findings(tmp_path, script) if one.code in {"M004", "M005", "M024"}]
    assert of_rows == [("M004", 3), ("M005", 5)]


def test_lint_double_quoted_string_of_a_trigger_is_not_held_against_what_fires_it(tmp_path):
    """It is the trigger's alone, and it is no trigger that does not compile: RAISE(FAIL, "text") was an error, M009."""
    script = (
        'CREATE TRIGGER t AFTER INSERT ON seen BEGIN UPDATE seen SET a = "no" WHERE id = 1; END;\n'
        "INSERT INTO seen (a) VALUES ('\"');"
    )
    assert [(code, line) for code, line, _ in found(tmp_path, script)] == [("M014", 1)]


def test_lint_double_quoted_string_hides_nothing_else_that_is_wrong(tmp_path):
    """A trigger that also writes to a table which is not there does not compile, whatever its quotes."""
    script = 'CREATE TRIGGER t BEFORE DELETE ON seen BEGIN SELECT raise(FAIL, "no"); DELETE FROM nope; END;'
    assert [(code, message) for code, _, message in found(tmp_path, script)] == [
        ("M009", "the trigger t no longer compiles: no such table: main.nope")
    ]


def test_lint_quoted_column_that_has_gone_breaks_its_view(tmp_path):
    """SQLite then takes the name for a string, and the view shows that instead of the column: no matter of quotes."""
    files = {
        "1.sql": 'CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);\nCREATE VIEW v AS SELECT "x" AS y FROM t;',
        "2.sql": (
            "PRAGMA legacy_alter_table = 1;\nALTER TABLE t RENAME TO old;\nCREATE TABLE t (id INTEGER PRIMARY KEY);"
        ),
    }
    codes = [(one.code, one.message) for one in lint(write(tmp_path / "sql", files)).findings if one.migration == "2"]
    assert [message for code, message in codes if code == "M009"] == [
        'the view v no longer compiles: no such column: "x" - should this be a string literal in single-quotes?'
    ]
    assert "M014" not in {code for code, _ in codes}


# ---------------------------------------------------------------- pairs and folders


def test_lint_good_rebuild_has_no_finding(tmp_path):
    """The order that SQLite recommends, with all that belongs to the table, is all right."""
    assert found(tmp_path, REBUILD) == []


@pytest.mark.parametrize(
    ("again", "lost"),
    [
        ("CREATE UNIQUE INDEX other ON t (x, y);", False),
        ("CREATE INDEX other ON t (x, y);", True),
        ("CREATE UNIQUE INDEX other ON t (x, y, id);", True),
        ("CREATE UNIQUE INDEX other ON t (x, y) WHERE x > 0;", True),
        ("CREATE INDEX other ON t (x);\nALTER TABLE t DROP COLUMN y;", False),
        ("ALTER TABLE t DROP COLUMN y;\nALTER TABLE t DROP COLUMN x;", False),
    ],
)
def test_lint_unique_index_is_made_again_by_one_that_holds_as_much(tmp_path, again, lost):
    """Another name is no loss, another constraint is: values that were unique need not be any more."""
    files = {
        "1.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, x, y);\nCREATE UNIQUE INDEX t_xy ON t (x, y);",
        "2.sql": (
            "CREATE TABLE n (id INTEGER PRIMARY KEY, x, y);\nINSERT INTO n SELECT id, x, y FROM t;\nDROP TABLE t;\n"
            f"ALTER TABLE n RENAME TO t;\n{again}"
        ),
    }
    codes = [one.code for one in lint(write(tmp_path / "sql", files)).findings]
    assert ("M008" in codes) == lost


def test_lint_unique_index_is_made_again_by_a_primary_key(tmp_path):
    """Tables get the key that they lacked in a rebuild, and the index of before is not needed any more."""
    files = {
        "1.sql": "CREATE TABLE t (a INTEGER, x);\nCREATE UNIQUE INDEX t_a ON t (a);",
        "2.sql": (
            "CREATE TABLE n (a INTEGER PRIMARY KEY, x);\nINSERT INTO n SELECT a, x FROM t;\nDROP TABLE t;\n"
            "ALTER TABLE n RENAME TO t;"
        ),
    }
    codes = [one.code for one in lint(write(tmp_path / "sql", files)).findings]
    assert "M008" not in codes


def test_lint_statement_that_fails_has_no_finding_about_what_follows_from_it(tmp_path):
    """That the rest of a rebuild could not run is not held against it once more."""
    assert [code for code, _, _ in found(tmp_path, WRONG["view in the way of a rebuild"][1])] == ["M001"]


def test_lint_broken_trigger_is_told_from_the_others_of_its_table(tmp_path):
    """Only the trigger that does not compile is named, though they fire together."""
    script = (
        "CREATE TRIGGER good AFTER DELETE ON alone BEGIN SELECT 1; END;\n"
        "CREATE TRIGGER bad AFTER DELETE ON alone BEGIN DELETE FROM nope; END;\n"
        "CREATE TRIGGER fine AFTER DELETE ON alone BEGIN SELECT 1; END;"
    )
    assert [(code, line) for code, line, _ in found(tmp_path, script)] == [("M009", 2)]


def test_lint_pairs_say_what_is_missing(tmp_path):
    """A missing, empty or incomplete rollback, and a number given twice, are found.

    The finding names the file concerned.
    """
    folder = write(
        tmp_path / "sql",
        {
            "01_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);",
            "1_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY, x); CREATE INDEX i ON b (x);",
            "1_b.rollback.sql": "-- nothing",
            "2_c.sql": "ALTER TABLE b ADD COLUMN y; CREATE TABLE c (id INTEGER PRIMARY KEY); DROP INDEX i;",
            "2_c.rollback.sql": "ALTER TABLE b DROP COLUMN x;",
            "3_d.sql": "-- not yet",
        },
    )
    assert [(finding.path.name, finding.code, finding.line) for finding in lint(folder).findings] == [
        ("01_a.sql", "M017", 1),
        ("1_b.sql", "M020", 1),
        ("1_b.rollback.sql", "M018", 1),
        ("2_c.rollback.sql", "M003", 1),
        ("2_c.rollback.sql", "M019", 1),
        ("3_d.sql", "M027", 1),
    ]
    messages = [finding.message for finding in lint(folder).findings]
    assert messages[1] == "1_b has the same number as 01_a"
    assert messages[4] == (
        "after the rollback the table b differs in x and y, the table c is still there and the index i is missing"
    )


def test_lint_rollback_of_an_empty_script_is_looked_at(tmp_path):
    """What it does is nothing's undoing; it was passed over with its script, and so were its comments."""
    rollback = "DROP TABLE alone;\n-- lint: ignore M004 a\nSELECT 1;"
    assert undoing(tmp_path, "-- nothing", rollback) == [
        ("M002", "alone is dropped with all its rows"),
        ("M019", "after the rollback the table alone is missing"),
        ("M902", "there is no M004 here to silence"),
    ]
    assert undoing(tmp_path, "-- nothing", "SELECT 1;") == []
    assert undoing(tmp_path, "-- nothing", "-- lint: ignore M018 a") == [("M902", "there is no M018 here to silence")]
    assert undoing(tmp_path, "-- nothing", "-- nothing") == []


def test_lint_rollback_of_what_its_script_made_has_no_finding(tmp_path):
    """A rollback may drop and empty what its own script made, and leave out a column of it in a rebuild."""
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY);\nALTER TABLE seen ADD COLUMN c;\n" + REBUILD
    rollback = (
        "DELETE FROM t;\nDROP TABLE t;\nALTER TABLE seen DROP COLUMN c;\n"
        + NEW_ALONE.format(more="")
        + COPY
        + SWAP
        + AGAIN
    )
    assert undoing(tmp_path, script, rollback) == []


def test_lint_rollback_that_brings_an_index_back_under_another_name_says_which(tmp_path):
    """It is neither missing nor still there; to apply the script again finds no index of its name all the same."""
    script = "DROP INDEX alone_x;\nCREATE UNIQUE INDEX alone_xy ON alone (x, y);\nDROP TRIGGER kept_u;"
    rollback = f"DROP INDEX alone_xy;\nCREATE INDEX again ON alone (x);\n{WATCH.replace('kept_u', 'watch')}"
    message = "after the rollback the index alone_x is named again and the trigger kept_u is named watch"
    assert undoing(tmp_path, script, rollback) == [("M019", message)]


def test_lint_rollback_that_loses_more_is_found(tmp_path):
    """A rollback that drops, empties, breaks or cannot fill what was there before its script is found."""
    rollback = (
        "DELETE FROM parent;\nDROP TABLE alone;\nALTER TABLE seen ADD COLUMN n NOT NULL;\nDROP TABLE IF EXISTS nope;"
    )
    codes = [code for code, _ in undoing(tmp_path, "ALTER TABLE seen ADD COLUMN m;", rollback)]
    assert sorted(codes) == ["M002", "M004", "M006", "M016", "M019"]
    assert undoing(tmp_path, "SELECT 1;", "DROP TABLE nope;") == [("M001", "no such table: nope")]


def test_lint_foreign_key_to_a_table_of_a_later_migration_has_no_finding(tmp_path):
    """A parent may come with a later migration; a rename of the old table takes the reference away from it."""
    entries = {
        "1_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY REFERENCES b);",
        "2_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY);",
    }
    assert {finding.code for finding in lint(write(tmp_path / "sql", entries)).findings} == {"M017"}


def test_lint_foreign_key_that_a_later_migration_mends_has_no_finding(tmp_path):
    """Its index, or the uniqueness of its parent, may come later; nobody can mend the first file any more."""
    files = {
        "1.sql": (
            "CREATE TABLE p (id INTEGER PRIMARY KEY, n TEXT);\n"
            "CREATE TABLE a (id INTEGER PRIMARY KEY, p REFERENCES p);\n"
            "CREATE TABLE b (id INTEGER PRIMARY KEY, n UNIQUE REFERENCES p (n));"
        ),
    }
    folder = write(tmp_path / "sql", files)

    def codes():
        return {one.code for one in lint(folder).findings} & {"M012", "M013"}

    assert codes() == {"M012", "M013"}
    write(folder, {"2.sql": "CREATE INDEX a_p ON a (p);"})
    assert codes() == {"M013"}
    write(folder, {"3.sql": "CREATE UNIQUE INDEX p_n ON p (n);"})
    assert codes() == set()
    silence = "-- lint: ignore M012 an index comes later\n-- lint: ignore M013 so does that of the parent\n\n"
    write(folder, {"1.sql": silence + files["1.sql"]})
    assert {one.code for one in lint(folder).findings} == {"M011", "M017"}
    write(folder, {"1.sql": files["1.sql"]})
    write(folder, {"4.sql": "ALTER TABLE a RENAME TO c;\nDROP INDEX a_p;"})
    assert [one.migration for one in lint(folder).findings if one.code == "M012"] == ["4"]


def test_lint_foreign_key_whose_parent_goes_is_held_against_the_script_that_drops_it(tmp_path):
    """Later scripts, which drop or rewrite other tables, have nothing to do with it."""
    base = {
        "1_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);\nCREATE TABLE b (id INTEGER PRIMARY KEY REFERENCES a);",
        "2_b.sql": "SELECT 1;\nDROP TABLE a;",
        "3_c.sql": "CREATE TABLE c (id INTEGER PRIMARY KEY);\nDROP TABLE c;",
        "4_d.sql": ALONE + "VACUUM;",
    }
    found = [
        (finding.path.name, finding.line)
        for finding in lint(write(tmp_path / "sql", base)).findings
        if finding.code == "M013"
    ]
    assert found == [("2_b.sql", 2)]


def test_lint_broken_script_does_not_stop_it(tmp_path):
    """After a statement that fails, the rest of its script and the later scripts are looked at all the same."""
    broken = {
        "0002_x.sql": "DELETE FROM a;\nSELEC 1;\nUPDATE a SET id = 1;\nSELEC 2;",
        "0003_c.sql": "CREATE TABLE c (x);\nDELETE FROM b;",
    }
    folder = write(tmp_path / "sql", THREE | broken)
    places = [
        (f.path.name, f.code, f.line)
        for f in lint(folder).findings
        if f.path.name in broken and f.code not in {"M017", "M020"}
    ]
    assert places == [
        ("0002_x.sql", "M004", 1),
        ("0002_x.sql", "M001", 2),
        ("0002_x.sql", "M005", 3),
        ("0003_c.sql", "M025", 1),
        ("0003_c.sql", "M004", 2),
    ]


def test_lint_malformed_folder_is_refused(tmp_path):
    """A folder that cannot be read has no findings: the error says what is wrong with it."""
    with pytest.raises(MigrationFileError, match="not UTF-8"):
        lint(write(tmp_path / "sql", {"1_a.sql": b"\xff"}))


ODD = {
    "trigger with CASE": "CREATE TABLE t (id INTEGER PRIMARY KEY, x);\nCREATE TRIGGER g AFTER INSERT ON t BEGIN\n"
    "  UPDATE t SET x = CASE WHEN new.x THEN ';' ELSE 'end;' END WHERE id = new.id;\nEND;\nDROP TABLE parent;",
    "keywords": 'CREATE TABLE t (id INTEGER PRIMARY KEY, "begin", "end", declare);\n'
    "INSERT INTO t VALUES (1, 2, 3, 4);\n\n\n"
    "DROP TABLE parent;",
    "semicolons": "INSERT INTO alone (x) VALUES ('a;\nb;'); -- ;\n/* ;\n*/ SELECT ';' ;\nDROP TABLE parent;",
    "names": 'CREATE TABLE "a ""b"";\nç" (id INTEGER PRIMARY KEY, "x ""y" TEXT);\nCREATE INDEX "i;" ON "a ""b"";\n'
    'ç" ("x ""y");\nUPDATE "a ""b"";\nç" SET "x ""y" = 1;\nDROP TABLE parent;',
    "encoding": "PRAGMA encoding = 'UTF-16';\n\n\n\nDROP TABLE parent;",
    "virtual table": "CREATE VIRTUAL TABLE f USING fts5 (body);\nINSERT INTO f VALUES ('x');\nDELETE FROM f;\n"
    "DROP TABLE f;\nDROP TABLE parent;",
    "generated column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b AS (a + 1));\nALTER TABLE t DROP COLUMN b;\n\n\n"
        "DROP TABLE parent;"
    ),
    "rolled back by SQLite": "INSERT OR ROLLBACK INTO alone (id) VALUES (1);\n"
    "INSERT OR ROLLBACK INTO alone (id) VALUES (1);\n\n\nDROP TABLE parent;",
}


@pytest.mark.parametrize("case", list(ODD))
def test_lint_odd_scripts_are_understood(tmp_path, case):
    """Whatever stands before it, the statement in the last line is found there."""
    last = ODD[case].count("\n") + 1
    assert [line for code, line, _ in found(tmp_path, ODD[case]) if code == "M002"] == [last]


def test_lint_trial_of_a_copy_that_counts_up_to_a_value_is_given_up(tmp_path):
    """A trial is given up when its script counts up to the large value in its one row.

    It took minutes and all memory.
    """
    script = (
        "CREATE TABLE n (alone INTEGER, x TEXT);\nWITH counted AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM counted "
        "WHERE n < (SELECT max(id) * 1000000000 FROM alone)) INSERT INTO n SELECT id, x FROM alone, counted;"
    )
    assert [code for code, _, _ in found(tmp_path, script) if code != "M025"] == []


def test_lint_many_inserts_are_one_statement_each(tmp_path):
    """The lines stay right after thousands of statements, and a finding in the middle is found."""
    rows = [f"INSERT INTO alone (id, x) VALUES ({number}, 'a;\nb');" for number in range(2_000)]
    rows[1_000] = 'INSERT INTO alone (x) VALUES ("x");'
    assert [(code, line) for code, line, _ in found(tmp_path, "\n".join([*rows, "DELETE FROM seen;"]))] == [
        ("M014", 2_001),
        ("M004", 4_000),
    ]


SCRIPTS = sorted(
    {
        text
        for table in (test_script.LOCATIONS, THREE, WRONG)
        for entry in table.values()
        for text in (entry if isinstance(entry, tuple) else (entry,))
        if isinstance(text, str)
    }
)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=3), st.integers(0, 400))
def test_lint_whatever_the_scripts_never_raises(texts, cut):
    """Scripts in any order, cut off anywhere, have findings at lines that they have."""
    texts = [*texts, texts[-1][:cut]]
    assume(not re.search(r"^--\s*(transactional|foreign_keys|allows): ?\w{0,4}$", texts[-1]))  # refused by the loader
    migrations = [
        from_texts(f"{number}_x", text.replace("\r", ""), text, path=SQL / f"{number}_x.sql")
        for number, text in enumerate(texts)
    ]
    for finding in lint(migrations).findings:
        text = next(one.up.text for one in migrations if one.id == finding.migration)
        assert 1 <= finding.line <= text.count("\n") + 1


# ---------------------------------------------------------------- silences

DROP = "DROP TABLE alone;"
#: By name: the script, and what silences the finding about the table that is dropped.
SILENCED = {
    "line above": ("SELECT 1;\n-- lint: ignore M002 it is empty\n" + DROP, "it is empty"),
    "lines above": ("SELECT 1;\n-- lint: ignore M002 a\n-- other\n/* text */\n" + DROP, "a"),
    "end of the line": (DROP + " -- lint: ignore drop-table it is empty", "it is empty"),
    "end of the line, more after it": (DROP + " -- lint: ignore M002 a\nSELECT 1;", "a"),
    "inside": ("DROP TABLE -- lint: ignore m002: a\n  alone", "a"),
    "several codes": ("-- lint: ignore M001, M002 ,M003 a b\n" + DROP, "a b"),
    "top of the file": ("-- Title.\n-- lint: ignore M002 all of it\n\nSELECT 1;\nSELECT 2;\n" + DROP, "all of it"),
    "statement before file": ("-- lint: ignore M002 all\n\nSELECT 1;\n-- lint: ignore M002 this\n" + DROP, "this"),
}


@pytest.mark.parametrize("case", list(SILENCED))
def test_lint_silence_with_a_reason_silences(tmp_path, case):
    """The finding stays in the results, with the reason."""
    script, reason = SILENCED[case]
    assert [f.silenced for f in findings(tmp_path, script) if f.code == "M002"] == [reason]


#: By name: the script, which does not silence it, and the findings about the comment.
LOUD = {
    "no reason": ("-- lint: ignore M002\n" + DROP, ["M901"]),
    "other rule": ("-- lint: ignore M004 a\n" + DROP, ["M902"]),
    "other statement": ("-- lint: ignore M002 a\nSELECT 1;\n" + DROP, ["M902"]),
    "after the statement": (DROP + "\n-- lint: ignore M002 a\nSELECT 1;", ["M902"]),
    "after everything": (DROP + "\n-- lint: ignore M002 a\n", ["M902"]),
    "unknown rule": ("-- lint: ignore M666 a\n" + DROP, ["M903"]),
    "no rule": ("-- lint: ignore\n" + DROP, ["M903"]),
    "misspelt": ("-- lint: ingore M002 a\n" + DROP, ["M903"]),
    "in a string": ("SELECT '\n-- lint: ignore M002 a\n';" + DROP, []),
    "in a comment": ("/*\n-- lint: ignore M002 a\n*/" + DROP, []),
}


@pytest.mark.parametrize("case", list(LOUD))
def test_lint_silence_that_is_wrong_is_a_finding(tmp_path, case):
    """A comment without reason, without effect or without a rule silences nothing, and is found."""
    script, codes = LOUD[case]
    result = findings(tmp_path, script)
    assert [f.silenced for f in result if f.code == "M002"] == [None]
    assert [f.code for f in result if f.code.startswith("M9")] == codes


def test_lint_silence_at_the_top_of_a_file_is_for_the_file_alone(tmp_path):
    """What concerns no statement is silenced at the top, in the file that it is about."""
    script = "-- lint: ignore M017 a\n-- lint: ignore M018 b\nSELECT 1;"
    result = findings(tmp_path, script, "-- lint: ignore empty-rollback nothing to undo")
    assert [(f.path.name, f.code, f.silenced) for f in result] == [
        ("0002_x.sql", "M902", None),
        ("0002_x.sql", "M902", None),
        ("0002_x.rollback.sql", "M018", "nothing to undo"),
    ]


# ---------------------------------------------------------------- SARIF


def test_report_has_what_sarif_demands(tmp_path, monkeypatch):
    """The log names its rules; each result points to one, and to a file relative to the root, quoted as a URI."""
    folder = tmp_path / "my sql#ü"
    write(folder, {"1_a.sql": "-- lint: ignore M017 once\n\nCREATE TABLE t (a, b);\nSELEC 1;"})
    monkeypatch.chdir(tmp_path)
    log = report(lint(os.path.relpath(folder)))
    (run,) = log["runs"]
    assert (log["version"], log["$schema"].rpartition("/")[2]) == ("2.1.0", "sarif-schema-2.1.0.json")
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES]
    assert run["originalUriBaseIds"] == {"SRCROOT": {"uri": tmp_path.as_uri() + "/"}}
    results = run["results"]
    assert [(result["ruleId"], result["level"]) for result in results] == [("M017", "warning"), ("M001", "error")]
    assert [rules[result["ruleIndex"]]["id"] for result in results] == ["M017", "M001"]
    assert [result.get("suppressions") for result in results] == [[{"kind": "inSource", "justification": "once"}], None]
    assert results[1]["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "my%20sql%23%C3%BC/1_a.sql", "uriBaseId": "SRCROOT"},
                "region": {"startLine": 4},
            }
        }
    ]
    assert all(result["message"]["text"] for result in results)


def test_report_file_outside_of_the_root_has_its_absolute_uri(tmp_path):
    """A folder elsewhere is named by a URI that is complete."""
    folder = write(tmp_path / "sql", {"1_a.sql": "SELECT 1;"})
    (result,) = report(lint(folder), root=SQL)["runs"][0]["results"]
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": (folder / "1_a.sql").as_uri()}
