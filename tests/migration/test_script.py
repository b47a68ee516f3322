"""Running one script: whole, within its bounds, and with the line of what failed in it."""

from __future__ import annotations

import contextlib
import itertools
import time

import apsw
import pytest

from dao import migrate
from dao.errors import DatabaseCorrupt, MigrationFailed
from dao.migrate.schema.replay import replayed
from dao.migrate.schema.script import Running, Watcher, run_script
from dao.migrate.schema.session import in_memory
from dao.migrate.scripts.migration import Script
from tests.folders import ALONE, IDS, ids, query, tables, with_fourth

# ---------------------------------------------------------------- where it failed

LEAF = "CREATE TABLE t (id INTEGER PRIMARY KEY, x NOT NULL);\n"
#: The script, the line that is named, how the statement that is named begins, and what the message says.
LOCATIONS = {
    "syntax, first": ("CREAT TABLE t (id);", 1, "CREAT TABLE t (id);", 'near "CREAT"'),
    "syntax, second": (LEAF + "\nSELEC 1;\nSELECT 2;", 3, "SELEC 1;", 'near "SELEC"'),
    "syntax, last": (LEAF + "SELECT 1;\nSELECT 2; SELECT FROM", 3, "SELECT FROM", "syntax error|incomplete input"),
    "syntax, deep in a statement": (
        LEAF + "CREATE TABLE u (\n  a TEXT,\n  b TEXT\n  c d, e f g h i !\n);\nSELECT 1;",
        5,
        "CREATE TABLE u (\n  a TEXT",
        "!",
    ),
    "syntax, after non-ASCII": (
        "-- größer — 🐍\nSELECT 'größer — 🐍', '\n';\nSELECT 'ü 🐍🐍🐍🐍',\n  'ö' , 1 1,\n2\n,3\n,4\n,5\n,6;\n",
        5,
        "SELECT 'ü 🐍🐍🐍🐍',",
        'near "1"',
    ),
    "syntax, in a trigger": (
        LEAF + "CREATE TRIGGER g AFTER INSERT ON t\nBEGIN\n  SELECT 1;\n  SELEC 2;\nEND;\nSELECT 1;",
        5,
        "CREATE TRIGGER g AFTER INSERT ON t\nBEGIN",
        'near "SELEC"',
    ),
    "comments before": (
        "-- one;\n/* two;\n SELEC */ -- SELEC 3;\n;\n  -- é\n  SELEC 1;\n",
        6,
        "SELEC 1;",
        'near "SELEC"',
    ),
    "CRLF": (LEAF.replace("\n", "\r\n") + "-- x\r\n\r\nSELECT 1;\r\nSELEC 1;", 5, "SELEC 1;", 'near "SELEC"'),
    "byte order mark": ("\ufeffSELECT 1;\nSELEC 1;", 2, "SELEC 1;", 'near "SELEC"'),
    "one line": ("SELECT 1; SELECT 2; SELEC 3; SELECT 4;", 1, "SELEC 3;", 'near "SELEC"'),
    "missing table, first": ("INSERT INTO nope VALUES (1);\n" + LEAF, 1, "INSERT INTO nope", "no such table: nope"),
    "missing table, second": (LEAF + "SELECT *\nFROM nope;\nSELECT 1;", 2, "SELECT *", "no such table: nope"),
    "missing table, last": (LEAF + "\n\nDROP TABLE nope", 4, "DROP TABLE nope", "no such table: nope"),
    "missing column": (LEAF + "SELECT 1,\n  y\nFROM t;", 3, "SELECT 1,", "no such column: y"),
    "table is there": (LEAF + "-- again\n" + LEAF + "SELECT 1;", 3, "CREATE TABLE t", "table t already exists"),
    "constraint, first after blank": (
        "\n\nINSERT INTO a VALUES (1),\n  (1);\nSELECT 1;",
        3,
        "INSERT INTO a",
        r"UNIQUE constraint failed: a\.id",
    ),
    "constraint, second": (
        LEAF + "-- none\nINSERT INTO t\nVALUES (1, NULL);\nSELECT 1;",
        3,
        "INSERT INTO t\nVALUES (1, NULL);",
        r"NOT NULL constraint failed: t\.x",
    ),
    "constraint, last": (LEAF + "INSERT INTO t VALUES (1, NULL)", 2, "INSERT INTO t", "NOT NULL constraint failed"),
    "constraint in a trigger": (
        LEAF + "CREATE TRIGGER g AFTER INSERT ON a BEGIN\n  INSERT INTO t VALUES (1, NULL);\nEND;\n"
        "INSERT INTO a VALUES (9);\nSELECT 1;",
        5,
        "INSERT INTO a VALUES (9);",
        "NOT NULL constraint failed",
    ),
    "missing table in a trigger": (
        LEAF + "CREATE TRIGGER g AFTER INSERT ON a BEGIN\n  INSERT INTO nope VALUES (1);\nEND;\n"
        "INSERT INTO a VALUES (9);\nSELECT 1;",
        5,
        "INSERT INTO a VALUES (9);",
        "no such table: main.nope",
    ),
    "raised in a trigger": (
        LEAF + "CREATE TRIGGER g AFTER INSERT ON a BEGIN\n  SELECT RAISE(ABORT, 'not today');\nEND;\n\n"
        "INSERT INTO a VALUES (9);\nSELECT 1;",
        6,
        "INSERT INTO a VALUES (9);",
        "not today",
    ),
    "while running": (LEAF + "SELECT 1;\nSELECT json('{')\n;\nSELECT 2;", 3, "SELECT json", "malformed JSON"),
    "while running, before a refusal": (LEAF + "SELECT json('{');\nROLLBACK;", 2, "SELECT json", "malformed JSON"),
    "while running, before what cannot be prepared": (
        LEAF + "SELECT json('{');\n\nSELECT * FROM nope;",
        2,
        "SELECT json('{');",
        "malformed JSON",
    ),
    "schema checked while running": (
        LEAF + "CREATE VIEW v AS SELECT x FROM t;\n\nALTER TABLE t DROP COLUMN x;\nSELECT nope;",
        4,
        "ALTER TABLE t DROP COLUMN x;",
        "error in view v",
    ),
    "rows checked while running": (
        LEAF + "INSERT INTO t VALUES (1, 1);\nALTER TABLE t ADD COLUMN y\n  CHECK (y IS NOT NULL);\nSELECT nope;",
        3,
        "ALTER TABLE t ADD COLUMN y",
        "CHECK constraint failed",
    ),
    "refusal": (LEAF + "-- x\n  ROLLBACK;\nSELECT 1;", 3, "ROLLBACK;", "refused ROLLBACK"),
    "parameter": (
        LEAF + "\nINSERT INTO t VALUES (?, 2);\nSELECT 1;",
        3,
        "INSERT INTO t VALUES (?, 2);",
        r"a parameter \(\?",
    ),
    "VACUUM": (LEAF + "VACUUM;\nSELECT 1;", 2, "VACUUM;", "a script that begins with `-- transactional: false`"),
}


@pytest.mark.parametrize(("script", "line", "statement", "message"), LOCATIONS.values(), ids=LOCATIONS)
def test_apply_failed_statement_is_named_by_file_line_and_text(url, tmp_path, script, line, statement, message):
    """A failure names the file, the line in it and the statement, in the message and as attributes."""
    folder = with_fourth(tmp_path / "sql", script)
    with pytest.raises(MigrationFailed, match=message) as caught:
        migrate.apply(url, folder)
    error = caught.value
    assert (error.migration, error.path, error.line) == ("0004_x", folder / "0004_x.sql", line)
    assert error.statement.startswith(statement)
    quoted = "".join(f"    {row}\n" for row in error.statement.splitlines())
    assert str(error).startswith(f"{error.path}:{line}: ")
    assert f"\n{quoted}Nothing was changed." in str(error)
    is_missing = message.startswith("no such table")
    assert (error.advice or "").startswith("No migration before 0004_x makes it.") == is_missing
    assert isinstance(error.__cause__, apsw.Error)


def test_apply_failed_statement_ends_where_sqlite_ends_it(url, tmp_path):
    """What is quoted is the whole statement and nothing of the next, semicolons in strings and bodies included."""
    trigger = (
        "CREATE TRIGGER g AFTER INSERT ON a BEGIN\n"
        "  SELECT CASE WHEN new.id = ';' THEN 1 ELSE 2 END; -- ; END;\n"
        "  INSERT INTO a SELECT 1 WHER 2;\nEND;"
    )
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, with_fourth(tmp_path / "sql", f"SELECT 1;\n{trigger}\nSELECT 2;"))
    assert (caught.value.statement, caught.value.line) == (trigger, 4)


def test_apply_long_failed_statement_is_cut_in_the_message_only(url, tmp_path):
    """A statement of many rows does not fill the screen."""
    script = "INSERT INTO a VALUES " + ", ".join(f"({number})" for number in [*range(1000), 1]) + ";"
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, with_fourth(tmp_path / "sql", script))
    assert caught.value.statement == script
    assert len(str(caught.value)) < 1000


def test_apply_damaged_file_is_no_failure_of_the_script(path, url, three):
    """What is the file's fault is reported as such, and not as a line of a script."""
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseCorrupt, match=r"new\.db is damaged"):
        migrate.apply(url, three)


# ---------------------------------------------------------------- what a script may not do


@pytest.mark.parametrize(
    ("statement", "notice"),
    [
        ("BEGIN", "ignored BEGIN: the run is one transaction already"),
        ("BEGIN EXCLUSIVE TRANSACTION", "ignored BEGIN: the run is one transaction already"),
        ("COMMIT", "ignored COMMIT: the run is one transaction already"),
        ("END TRANSACTION", "ignored COMMIT: the run is one transaction already"),
        ("PRAGMA foreign_keys = ON", "ignored PRAGMA foreign_keys = ON: they are checked at the end"),
        ("PRAGMA FOREIGN_KEYS(0)", "ignored PRAGMA foreign_keys = 0: they are checked at the end"),
        ("PRAGMA query_only = 1", "ignored PRAGMA query_only = 1: the ledger has to be written"),
        ("PRAGMA Synchronous = OFF", "ignored PRAGMA synchronous = OFF: it changes outside of a transaction only"),
        ("PRAGMA wal_checkpoint", "ignored PRAGMA wal_checkpoint: it runs outside of a transaction only"),
        ("PRAGMA wal_checkpoint(TRUNCATE)", "ignored PRAGMA wal_checkpoint = TRUNCATE: it runs outside"),
        ("PRAGMA main.foreign_keys = false", "ignored PRAGMA foreign_keys = false: they are checked at the end"),
    ],
)
def test_apply_own_transaction_of_a_script_is_ignored_and_reported(path, url, tmp_path, statement, notice):
    """A script's BEGIN, COMMIT and pragmas for outside of a transaction do nothing.

    The result says so, once.
    """
    script = f"{statement}; CREATE TABLE x (id); {statement};"
    results = migrate.apply(url, with_fourth(tmp_path / "sql", script))
    (said,) = results[-1].notices
    assert said.startswith(notice)
    assert [result.notices for result in results[:-1]] == [()] * 3
    assert "x" in tables(path)


def test_apply_reading_a_pragma_is_no_notice(url, tmp_path):
    """Only what would have changed something is reported."""
    assert (
        migrate.apply(
            url,
            with_fourth(
                tmp_path / "sql", "PRAGMA foreign_keys; PRAGMA query_only; SAVEPOINT s; ROLLBACK TO s; RELEASE s;"
            ),
        )[-1].notices
        == ()
    )


#: What is refused in the run's transaction only: alone, a script's transaction is its own business.
REFUSED_INSIDE = [
    ("ROLLBACK", "ROLLBACK: it would undo the other migrations"),
    ("ROLLBACK TRANSACTION", "ROLLBACK: it would undo the other migrations"),
    ("RELEASE dao", "RELEASE of savepoint dao: this script did not set it"),
    ("ROLLBACK TO s", "ROLLBACK of savepoint s: this script did not set it"),
    ("SAVEPOINT s; RELEASE s; RELEASE s", "RELEASE of savepoint s: this script did not set it"),
    ("SAVEPOINT s; SAVEPOINT t; ROLLBACK TO s; RELEASE t", "RELEASE of savepoint t: this script did not set it"),
]
REFUSED = [
    ("ATTACH 'other.db' AS o", "ATTACH, DETACH and VACUUM INTO: a migration changes one database"),
    ("ATTACH 'oth' || 'er.db' AS o", "ATTACH, DETACH and VACUUM INTO: a migration changes one database"),
    ("DETACH temp", "ATTACH, DETACH and VACUUM INTO: a migration changes one database"),
    *(
        (statement.format(table), f"{verb} {table}: the ledger is kept by the runner (dao mark, dao unmark)")
        for table in ("_yoyo_migration", "_dao_migration")
        for verb, statement in [
            ("DELETE", "DELETE FROM {}"),
            ("INSERT", "INSERT INTO {0} SELECT * FROM {0}"),
            ("UPDATE", "UPDATE {} SET migration_id = 1"),
            ("DROP TABLE", "DROP TABLE {}"),
            ("ALTER TABLE", "ALTER TABLE {} RENAME TO x"),
            ("CREATE INDEX ON", "CREATE INDEX i ON {} (migration_id)"),
            ("CREATE TRIGGER ON", "CREATE TRIGGER t AFTER DELETE ON {} BEGIN SELECT 1; END"),
        ]
    ),
    ("INSERT INTO _Yoyo_Log (id) VALUES (1)", "INSERT _yoyo_log: the ledger is kept by the runner"),
    (
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM _dao_migration; END; INSERT INTO a VALUES (1)",
        "DELETE _dao",
    ),
]


@pytest.mark.parametrize(
    ("header", "statement", "reason"),
    [(header, *case) for header in ("", ALONE) for case in REFUSED] + [("", *case) for case in REFUSED_INSIDE],
)
def test_apply_dangerous_statement_is_refused(url, tmp_path, monkeypatch, header, statement, reason):
    """A statement that would break the run's promise, or the ledger, is refused with its reason.

    That holds inside and outside of a transaction.
    """
    monkeypatch.chdir(tmp_path)
    folder = with_fourth(tmp_path / "sql", f"{header}SELECT 1;\n{statement};")
    with pytest.raises(MigrationFailed, match="refused ") as caught:
        migrate.apply(url, folder)
    assert f"{folder / '0004_x.sql'}:{3 if header else 2}: refused {reason}" in str(caught.value)
    assert f"{statement};".endswith(caught.value.statement)
    assert not (tmp_path / "other.db").exists()
    assert migrate.status(url, folder).ids("applied") == (IDS if header else [])


def test_apply_savepoints_of_a_script_are_its_own(path, url, tmp_path):
    """A script may set savepoints, nest them, name them in any case, and go back to them."""
    script = """
        SAVEPOINT s; INSERT INTO a VALUES (1); SAVEPOINT t; INSERT INTO a VALUES (2); ROLLBACK TO t; RELEASE S;
        SAVEPOINT s; SAVEPOINT s; INSERT INTO a VALUES (3); ROLLBACK TO s; RELEASE s;
        INSERT INTO a VALUES (4); RELEASE s;
    """
    migrate.apply(url, with_fourth(tmp_path / "sql", script))
    assert query(path, "SELECT id FROM a") == [(1,), (4,)]


def test_apply_savepoint_left_open_is_refused(path, url, tmp_path):
    """A script must not leave a savepoint to the next one."""
    folder = with_fourth(tmp_path / "sql", "SAVEPOINT s; SAVEPOINT t; RELEASE t;")
    with pytest.raises(MigrationFailed, match="leaves the savepoint s open; release it\nNothing was changed") as caught:
        migrate.apply(url, folder)
    assert caught.value.path == folder / "0004_x.sql"
    assert tables(path) == []


# ---------------------------------------------------------------- scripts go to SQLite whole


def test_apply_rows_in_the_middle_do_not_stop_a_script(path, url, tmp_path):
    """A statement that returns rows is drained, and those after it run."""
    script = """
        PRAGMA journal_mode; CREATE TABLE x (id);
        SELECT * FROM sqlite_schema; INSERT INTO x VALUES (1), (2), (3) RETURNING id;
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n;
        EXPLAIN SELECT 1; VALUES (1), (2); PRAGMA table_info(x); CREATE TABLE y (id);
    """
    assert migrate.apply(url, with_fourth(tmp_path / "sql", script))[-1].statements == 9
    assert tables(path) == ["a", "b", "c", "x", "y"]
    assert query(path, "SELECT id FROM x") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("script", "check", "rows"),
    [
        (
            """CREATE TRIGGER t AFTER INSERT ON a BEGIN
               INSERT INTO b VALUES (CASE WHEN new.id > 5 THEN CASE new.id WHEN 6 THEN 60 ELSE 70 END ELSE 0 END);
               END; INSERT INTO a VALUES (6);""",
            "SELECT id FROM b",
            [(2,), (60,)],
        ),
        (
            'CREATE TABLE t (begin, end, declare, "case"); INSERT INTO t VALUES (1, 2, 3, 4);',
            "SELECT end FROM t",
            [(2,)],
        ),
        ("CREATE TABLE t (x DEFAULT ';--'); INSERT INTO t DEFAULT VALUES;", "SELECT x FROM t", [(";--",)]),
        (
            "CREATE TABLE t (x); INSERT INTO t VALUES ('C:\\'); INSERT INTO t VALUES ('D:\\');",
            "SELECT count(*) FROM t",
            [(2,)],
        ),
        ("CREATE TABLE t (x); INSERT INTO t VALUES ('it''s; -- no comment\n/*');", "SELECT length(x) FROM t", [(22,)]),
        ('CREATE TABLE "t;u" ([x;y], `z;`); INSERT INTO "t;u" VALUES (1, 2);', 'SELECT "z;" FROM "t;u"', [(2,)]),
        ('CREATE TABLE t (x); INSERT INTO t VALUES ("double; quoted");', "SELECT x FROM t", [("double; quoted",)]),
        (
            "CREATE TABLE t (x); -- INSERT INTO t VALUES (1);\n/* ;; */ INSERT INTO t VALUES (2)",
            "SELECT x FROM t",
            [(2,)],
        ),
        ("CREATE TABLE t (x); INSERT INTO t VALUES ('a\r\nb');", "SELECT x FROM t", [("a\nb",)]),
        (";;\n;CREATE TABLE t (x);;;INSERT INTO t VALUES (1);;", "SELECT x FROM t", [(1,)]),
        (
            "CREATE VIRTUAL TABLE t USING fts5(x); INSERT INTO t VALUES ('one; two');",
            "SELECT x FROM t('two')",
            [("one; two",)],
        ),
        (
            "CREATE TABLE t (x); WITH n (i) AS (VALUES (1), (2)) INSERT INTO t SELECT i FROM n;",
            "SELECT sum(x) FROM t",
            [(3,)],
        ),
        ("-- Nothing to do here.\n/* ; */", "SELECT count(*) FROM a", [(0,)]),
        ("", "SELECT count(*) FROM a", [(0,)]),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_apply_any_script_means_what_it_means_to_sqlite(path, url, tmp_path, script, check, rows):
    """SQLite's own parser finds the statements, whatever strings, comments and names hold."""
    assert ids(migrate.apply(url, with_fourth(tmp_path / "sql", script))) == [*IDS, "0004_x"]
    assert query(path, check) == rows


# ---------------------------------------------------------------- the mechanism


class Seen(Watcher):
    """Notes what a script does, and looks for itself before each statement."""

    heeded = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_READ})

    def __init__(self, connection):
        self.connection = connection
        self.actions: list[tuple[int, str | None]] = []
        self.statements: list[str] = []
        self.ended = 0

    def saw(self, action, first, second, database, trigger):
        """Note it."""
        self.actions.append((action, first))

    def before_statement(self, sql, cursor):
        """Look, and note it."""
        self.looking = True
        self.connection.execute("SELECT * FROM t").fetchall()
        self.looking = False
        self.statements.append(sql.strip())

    def end_script(self):
        """Count it."""
        self.ended += 1


@pytest.fixture
def memory():
    with contextlib.closing(in_memory()) as connection:
        connection.execute("CREATE TABLE t (x UNIQUE)")
        yield connection


def test_watcher_is_told_what_the_script_does_and_not_what_it_looks_at_itself(memory):
    """A watcher hears of the actions that it heeds, of each statement before it runs, and of the end."""
    seen = Seen(memory)
    script = Script(path=None, text="INSERT INTO t VALUES (1); -- so\nDELETE FROM t WHERE x = 1;")
    assert run_script(memory, "1", script, watcher=seen) == 2
    assert set(seen.actions) == {(apsw.SQLITE_INSERT, "t"), (apsw.SQLITE_READ, "t")}
    assert seen.actions.count((apsw.SQLITE_INSERT, "t")) == 1
    assert "".join(seen.statements).startswith("INSERT INTO t VALUES (1);")
    assert "DELETE FROM t WHERE x = 1;" in "".join(seen.statements)
    assert seen.ended == 1


def test_running_script_goes_on_after_a_failure(memory):
    """After an error the place is that of the statement which failed, and the rest can be run."""
    text = "INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);\nSELEC 2;\nINSERT INTO t VALUES (3);"
    running = Running(memory, "1", Script(path=None, text=text))
    failed = []
    while running.end < len(text):
        try:
            running.execute()
        except MigrationFailed as error:
            failed.append((error.line, error.statement, text[running.begin : running.end].strip()))
    assert failed == [
        (2, "INSERT INTO t VALUES (1);", "INSERT INTO t VALUES (1);"),
        (3, "SELEC 2;", "SELEC 2;"),
    ]
    assert memory.execute("SELECT x FROM t").fetchall() == [(1,), (3,)]


def test_script_in_memory_does_not_take_longer_on_a_machine_that_stands_still(monkeypatch):
    """A rollback was refused, as nobody could tell what its migration makes: the machine had paused in the replay."""
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 1000).__next__)
    script = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000) SELECT max(x) FROM n;"
    with replayed([("1_count", script), ("2_count", script)], patience=60, after=lambda _: None) as connection:
        assert connection.execute("SELECT 1").get == 1


def test_script_in_memory_has_sqlites_defaults_and_is_interrupted():
    """A connection for scripts takes "text" for a string, and enforces no foreign keys.

    It has as much time as it is given.
    """
    with contextlib.closing(in_memory(patience=0)) as connection:
        assert connection.execute('SELECT "text"').get == "text"
        assert connection.execute("PRAGMA foreign_keys").get == 0
        with pytest.raises(apsw.InterruptError):
            connection.execute(
                "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000) "
                "SELECT max(x) FROM n"
            ).fetchall()
