"""Generated rows satisfy the constraints of a schema, and cover NULL and values; a riddle is reported."""

from __future__ import annotations

import contextlib

import apsw
import pytest

from dao import migrate
from dao.migrate.verification.generate import fill
from dao.migrate.verification.sqlite_store import SQLiteStore
from dao.rows import TABLES as TABLES_OF_RECORDS
from tests.folders import quoted

TABLES = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%'"
GLOBBED = "[A-Z][A-Z]-[0-9][0-9]?[^x]]*"


@pytest.fixture
def memory():
    """A connection to an empty database in memory."""
    connection = apsw.Connection(":memory:")
    yield connection
    connection.close()


def rows(connection: apsw.Connection, table: str, columns: str = "*") -> list[tuple]:
    return connection.execute(f"SELECT {columns} FROM {quoted(table)}").fetchall()


def is_sound(connection: apsw.Connection) -> bool:
    """Return whether the database holds nothing that its constraints would refuse, by SQLite's own checks."""
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    return broken == [] and connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("enforced", [False, True], ids=["without foreign keys", "with foreign keys"])
def test_fill_own_schema_gives_every_table_its_rows(memory, enforced):
    """The project's own tables get as many rows as asked for, all of them sound; the ledger gets none."""
    migrate.apply(memory)
    memory.pragma("foreign_keys", enforced)
    ledger = rows(memory, "_dao_migration")
    filled = fill(SQLiteStore(memory), rows=5)
    assert filled.unfilled == {}
    assert filled.rows == dict.fromkeys([table.name for table in TABLES_OF_RECORDS], 5)
    # triggers write events beside them
    assert all(len(rows(memory, table)) == 5 for table in filled.rows if table != "task_events")
    assert is_sound(memory)
    assert rows(memory, "_dao_migration") == ledger


SCHEMAS = {
    "composite foreign key": """
        CREATE TABLE p (a TEXT, b INT, PRIMARY KEY (a, b));
        CREATE TABLE c (x TEXT, y INT, z INT NOT NULL,
            FOREIGN KEY (x, y) REFERENCES p, FOREIGN KEY (x, z) REFERENCES p (a, b))
    """,
    "foreign keys that share a column": """
        CREATE TABLE p (a INT, b INT, PRIMARY KEY (a, b));
        CREATE TABLE c (x INT NOT NULL, y INT NOT NULL, z INT NOT NULL,
            FOREIGN KEY (x, y) REFERENCES p, FOREIGN KEY (x, z) REFERENCES p)
    """,
    "self reference": """
        CREATE TABLE n (id INTEGER PRIMARY KEY, up INT REFERENCES n, own INT NOT NULL REFERENCES n (id))
    """,
    "circle of two": """
        CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT REFERENCES b (id));
        CREATE TABLE b (id TEXT PRIMARY KEY, a INT NOT NULL REFERENCES a)
    """,
    "circle of two without NULL": """
        CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT NOT NULL REFERENCES b (id));
        CREATE TABLE b (id TEXT PRIMARY KEY CHECK (length(id) = 26), a INT NOT NULL REFERENCES a)
    """,
    "children sort before their parents": """
        CREATE TABLE a (b INT NOT NULL REFERENCES b);
        CREATE TABLE b (id INTEGER PRIMARY KEY, c INT NOT NULL REFERENCES c);
        CREATE TABLE c (id INTEGER PRIMARY KEY)
    """,
    "unique pair": "CREATE TABLE t (a INT, b TEXT, UNIQUE (a, b))",
    "partial and expression indexes": """
        CREATE TABLE t (a TEXT NOT NULL, active INT NOT NULL CHECK (active IN (0, 1)));
        CREATE UNIQUE INDEX i ON t (a) WHERE active = 1; CREATE UNIQUE INDEX j ON t (lower(a))
    """,
    "list of values": "CREATE TABLE t (s TEXT NOT NULL CONSTRAINT known CHECK (s IN ('it''s', 'other')))",
    "order of two columns": "CREATE TABLE t (a INT NOT NULL, b INT NOT NULL, CHECK (a < b))",
    "json": "CREATE TABLE t (d NOT NULL CHECK (json_valid(d) AND json_type(d) = 'object'), k AS (d ->> '$.k') STORED)",
    "json in an index": "CREATE TABLE t (d TEXT NOT NULL); CREATE INDEX i ON t (json_extract(d, '$.k'))",
    "length": "CREATE TABLE t (u TEXT NOT NULL CHECK (length(u) = 17), b BLOB NOT NULL CHECK (length(b) = 20))",
    "range": "CREATE TABLE t (y INT NOT NULL CHECK (y BETWEEN 1900 AND 1902), r REAL NOT NULL CHECK (r > 0 AND r < 1))",
    "pattern": f"""
        CREATE TABLE t (g TEXT NOT NULL CHECK (g GLOB '{GLOBBED}'), u TEXT NOT NULL CHECK (u LIKE 'http_://%'))
    """,
    "hexadecimal": "CREATE TABLE t (h TEXT NOT NULL CHECK (length(h) = 64 AND h NOT GLOB '*[^0-9a-f]*'))",
    "dates": """
        CREATE TABLE t (d DATE NOT NULL CHECK (d IS date(d)), t DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP
            CHECK (t IS datetime(t)), u INT NOT NULL CHECK (u > unixepoch('2020-01-01')))
    """,
    "one of three": """
        CREATE TABLE t (a, b, c, kind NOT NULL CHECK (kind IN ('a', 'b', 'c')),
            CHECK ((a IS NOT NULL) + (b IS NOT NULL) + (c IS NOT NULL) = 1), CHECK (kind <> 'a' OR a IS NOT NULL))
    """,
    "strict": "CREATE TABLE t (a ANY, b BLOB NOT NULL, c REAL NOT NULL, i INT, t TEXT NOT NULL) STRICT",
    "without rowid": "CREATE TABLE t (k BLOB PRIMARY KEY, v) WITHOUT ROWID",
    "generated columns": "CREATE TABLE t (a INT NOT NULL, b INT AS (a + 1) STORED CHECK (b > 1000), c AS (a) VIRTUAL)",
    "odd names": """
        CREATE TABLE [odd "na me] ("a b" INT NOT NULL CHECK ("a b" > 5), [select] TEXT NOT NULL CHECK ([select] = 'x'),
            "x""y" INT, 'Ä' NOT NULL, ä NOT NULL)
    """,
    "conflict clauses": "CREATE TABLE t (a INT NOT NULL CHECK (a IN (70, 80, 90)) UNIQUE ON CONFLICT REPLACE)",
    "autoincrement": "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "numbers at the edges": """
        CREATE TABLE t (a INT NOT NULL DEFAULT 9223372036854775807, b INT NOT NULL DEFAULT -9223372036854775808,
            c REAL NOT NULL DEFAULT 1e999, d REAL NOT NULL DEFAULT -1e999, e INT NOT NULL DEFAULT 0xffffffffffffffff,
            f INT NOT NULL DEFAULT (9223372036854775807 + 1), g REAL NOT NULL DEFAULT 99999999999999999999) STRICT
    """,
    "bounds at the edges": """
        CREATE TABLE t (a INT NOT NULL CHECK (a > 9223372036854775805), b INT NOT NULL CHECK (b < -9223372036854775806),
            c REAL NOT NULL CHECK (c >= 9223372036854775808), d INT NOT NULL CHECK (d = -9223372036854775808),
            e INT NOT NULL CHECK (abs(e) > 9223372036854775806), f INT NOT NULL CHECK (f IN (0x7fffffffffffffff)),
            g REAL NOT NULL CHECK (g > 1.7976931348623157e308), h INT NOT NULL CHECK (h BETWEEN -1002 AND -1000)) STRICT
    """,
    "generated value that is an INTEGER now and then": """
        CREATE TABLE t (a INT NOT NULL, b INT AS (a * 4611686018427387904) STORED NOT NULL) STRICT
    """,
    "generated value that may be too big": "CREATE TABLE t (a INT NOT NULL, b AS (zeroblob(a * 1000)) STORED)",
    "full text": "CREATE VIRTUAL TABLE f USING fts5 (x, y)",
    "trigger": """
        CREATE TABLE t (a INT NOT NULL); CREATE TABLE log (a INT NOT NULL);
        CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;
        CREATE TRIGGER r BEFORE INSERT ON t WHEN new.a % 2 BEGIN SELECT RAISE (ABORT, 'odd'); END
    """,
}


def test_fill_gives_rows_that_satisfy_the_constraints():
    """Every table gets its rows, whatever the constraints are, and SQLite finds no fault with them."""
    for name, schema in SCHEMAS.items():
        with contextlib.closing(apsw.Connection(":memory:")) as memory:
            memory.execute(schema).fetchall()
            filled = fill(SQLiteStore(memory))
            assert filled.unfilled == {}, name
            assert filled.rows, name
            assert {table for (table,) in memory.execute(TABLES)} <= filled.rows.keys(), name
            assert set(filled.rows.values()) == {3}, name
            assert all(len(rows(memory, table)) >= 3 for table in filled.rows), name
            assert is_sound(memory), name


@pytest.mark.parametrize("schema", ["circle of two without NULL", "self reference", "composite foreign key"])
def test_fill_with_foreign_keys_enforced_gives_the_same_rows(memory, schema):
    """On a connection that enforces foreign keys, rows that refer to later ones are let through to the end."""
    memory.pragma("foreign_keys", True)
    memory.execute(SCHEMAS[schema]).fetchall()
    assert set(fill(SQLiteStore(memory)).rows.values()) == {3}
    assert is_sound(memory)


def test_fill_first_row_is_full_and_second_is_empty(memory):
    """A column that may be NULL is set in the first row and NULL in the second, so that a loss of either shows."""
    memory.execute("CREATE TABLE t (a INT NOT NULL, b TEXT, c BLOB, d REAL)").fetchall()
    fill(SQLiteStore(memory))
    first, second, _ = rows(memory, "t")
    assert None not in first
    assert second[1:] == (None, None, None)


def test_fill_references_vary_and_are_null_where_they_may(memory):
    """Children refer to rows that are there, and one of them to none if that may be."""
    memory.execute("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INT REFERENCES p)").fetchall()
    fill(SQLiteStore(memory), rows=8)
    parents = {id for (id,) in rows(memory, "p")}
    children = {id for (id,) in rows(memory, "c")}
    assert None in children
    assert len(children) > 2
    assert children - {None} <= parents


def test_fill_same_seed_makes_the_same_rows(memory):
    """Rows are the same for the same seed, and others for another."""
    made = []
    for seed in (1, 1, 2):
        connection = apsw.Connection(":memory:")
        connection.execute(SCHEMAS["one of three"] + ";" + SCHEMAS["self reference"]).fetchall()
        fill(SQLiteStore(connection), seed=seed)
        made.append(rows(connection, "t") + rows(connection, "n"))
        connection.close()
    assert made[0] == made[1] != made[2]


def test_fill_rows_that_are_there_get_others_beside_them(memory):
    """A table that has rows keeps them and gets as many more as asked for."""
    memory.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (1, 'text 2')"
    ).fetchall()
    assert fill(SQLiteStore(memory), rows=4).rows == {"t": 4}
    assert len(rows(memory, "t")) == 5
    assert (1, "text 2") in rows(memory, "t")


def test_fill_table_with_room_for_one_row_gets_one(memory):
    """A table that holds one row by its constraints is filled with that."""
    memory.execute("CREATE TABLE t (id INTEGER PRIMARY KEY CHECK (id = 1), v TEXT)").fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {"t": 1}
    assert filled.unfilled == {}


FEW = {
    "one id": "CREATE TABLE t (id INTEGER PRIMARY KEY CHECK (id = 1), v TEXT)",
    "a key of two values": "CREATE TABLE t (id BOOLEAN PRIMARY KEY CHECK (id IN (0, 1)), v TEXT)",
    "a key of names": "CREATE TABLE t (id TEXT PRIMARY KEY CHECK (id IN ('admin', 'guest')), v TEXT NOT NULL)",
    "a trigger that refuses a second": """
        CREATE TABLE t (v TEXT);
        CREATE TRIGGER one BEFORE INSERT ON t WHEN (SELECT count(*) FROM t) > 0
            BEGIN SELECT RAISE (ABORT, 'only one'); END
    """,
    "an index over a constant": "CREATE TABLE t (v TEXT); CREATE UNIQUE INDEX one ON t ((1))",
}


@pytest.mark.parametrize("schema", list(FEW))
def test_fill_table_that_is_full_is_not_reported_as_empty(memory, schema):
    """A table with room for few rows that has them is full: it was said to have got none, and searched for seconds."""
    memory.execute(FEW[schema]).fetchall()
    first = fill(SQLiteStore(memory))
    there = rows(memory, "t")
    assert 1 <= len(there) <= 2
    second = fill(SQLiteStore(memory), seed=1)
    assert (first.unfilled, second.unfilled, second.rows) == ({}, {}, {})
    assert first.full == second.full == {"t"}
    assert rows(memory, "t") == there


def test_fill_table_without_room_is_given_up_once_nothing_new_comes_up(memory):
    """The search ends when it repeats itself.

    The second row of a singleton was tried 400 times, with one statement each.
    """
    memory.execute(FEW["one id"]).fetchall()
    fill(SQLiteStore(memory))
    tried = 0

    def count(action: int, first: str | None, *_rest: object) -> int:
        nonlocal tried
        tried += action == apsw.SQLITE_SAVEPOINT and first == "BEGIN"
        return apsw.SQLITE_OK

    memory.authorizer = count
    fill(SQLiteStore(memory), seed=1)
    memory.authorizer = None
    assert tried < 200


def test_fill_only_some_tables_leaves_the_others_as_they_are(memory):
    """Tables that are not asked for, or excepted, get no rows."""
    memory.execute("CREATE TABLE a (x); CREATE TABLE B (x); CREATE TABLE c (x)").fetchall()
    assert fill(SQLiteStore(memory), only={"a", "b"}, without={"a"}).rows == {"B": 3}


def test_fill_riddle_is_reported_and_the_other_tables_are_filled(memory):
    """A table that cannot be filled stays empty with the last reason, and so do those that need a row of it."""
    memory.execute(
        """
        CREATE TABLE riddle (id INTEGER PRIMARY KEY, x TEXT NOT NULL CONSTRAINT never CHECK (x = 'a' AND x = 'b'));
        CREATE TABLE child (r INT NOT NULL REFERENCES riddle);
        CREATE TABLE lost (m INT NOT NULL REFERENCES missing);
        CREATE TABLE fine (a INT)
        """
    ).fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {"fine": 3}
    assert "CHECK constraint failed: never" in filled.unfilled["riddle"]
    assert filled.unfilled["child"] == "a row has to refer to one of riddle, which has none to refer to"
    assert filled.unfilled["lost"] == "a row has to refer to one of missing, which has none to refer to"
    assert rows(memory, "riddle") == rows(memory, "child") == rows(memory, "lost") == []


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE t (id INT NOT NULL REFERENCES t)",
        "CREATE TABLE t (id INT NOT NULL REFERENCES t (no))",
        "CREATE TABLE t (id INT NOT NULL REFERENCES u (no)); CREATE TABLE u (id INT NOT NULL REFERENCES t (no))",
    ],
    ids=["no primary key", "no such column", "no such column in a circle"],
)
def test_fill_foreign_key_to_no_key_is_reported(memory, schema):
    """A foreign key that can refer to nothing leaves no row, unless it may be NULL."""
    memory.execute(schema).fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {}
    assert "has none to refer to" in filled.unfilled["t"]
    memory.execute("DROP TABLE t").fetchall()
    memory.execute(schema.replace("NOT NULL ", "").partition(";")[0]).fetchall()
    assert fill(SQLiteStore(memory)).rows == {"t": 3}
    assert rows(memory, "t") == [(None,)] * 3


def test_fill_failure_leaves_nothing_behind(memory):
    """An interruption in the middle undoes all."""
    memory.execute("CREATE TABLE a (x); CREATE TABLE b (x)").fetchall()
    counted = 0

    def interrupt(action: int, first: str | None, *_rest: object) -> int:
        nonlocal counted
        if action == apsw.SQLITE_INSERT and first == "b":
            counted += 1
            if counted == 2:
                raise KeyboardInterrupt
        return apsw.SQLITE_OK

    memory.authorizer = interrupt
    with pytest.raises(KeyboardInterrupt):
        fill(SQLiteStore(memory))
    memory.authorizer = None
    assert not memory.in_transaction
    assert rows(memory, "a") == rows(memory, "b") == []


def test_fill_foreign_keys_that_exclude_each_other_are_reported(memory):
    """Two foreign keys that share a column, and whose parents have no value in common, leave no row."""
    memory.execute(
        """
        CREATE TABLE p (a INT CHECK (a < 0), b INT, PRIMARY KEY (a, b));
        CREATE TABLE q (a INT CHECK (a > 0), b INT, PRIMARY KEY (a, b));
        CREATE TABLE c (x INT NOT NULL, y INT NOT NULL, z INT NOT NULL,
            FOREIGN KEY (x, y) REFERENCES p, FOREIGN KEY (x, z) REFERENCES q)
        """
    ).fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {"p": 3, "q": 3}
    assert filled.unfilled["c"].endswith("the last was refused: a foreign key would break")
    assert is_sound(memory)


def test_fill_trigger_that_rolls_back_costs_its_own_table_only(memory):
    """A trigger with RAISE(ROLLBACK) takes everything with it; the others are filled all the same."""
    memory.execute(
        """
        CREATE TABLE a (x INT); CREATE TABLE b (x INT); CREATE TABLE c (x INT);
        CREATE TRIGGER r BEFORE INSERT ON b BEGIN SELECT RAISE (ROLLBACK, 'not here'); END
        """
    ).fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {"a": 3, "c": 3}
    assert filled.unfilled == {"b": "not here"}
    assert len(rows(memory, "a")) == len(rows(memory, "c")) == 3


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        ("SELECT RAISE (IGNORE)", "a trigger ignores the row"),
        ("INSERT INTO gone VALUES (1)", "no such table: main.gone"),
    ],
)
def test_fill_trigger_that_lets_nothing_in_is_reported(memory, trigger, reason):
    """A table whose trigger keeps every row out, or does not work, is reported with that reason."""
    memory.execute(f"CREATE TABLE t (a INT); CREATE TRIGGER i BEFORE INSERT ON t BEGIN {trigger}; END").fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {}
    assert reason in filled.unfilled["t"]


def test_fill_trigger_that_asks_for_what_is_there_by_default_lets_rows_in(memory):
    """A guard that says nothing of columns is satisfied by a row that does not name them; the others have values."""
    counters = ", ".join(f"c{number} INTEGER NOT NULL DEFAULT 0" for number in range(4))
    texts = ", ".join(f"t{number} TEXT" for number in range(12))
    memory.execute(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, {counters}, {texts}); CREATE TRIGGER guard BEFORE INSERT ON t "
        "WHEN new.c0 <> 0 OR new.c1 <> 0 OR new.c2 <> 0 OR new.c3 <> 0 BEGIN SELECT raise(ABORT, 'begin at zero'); END"
    )
    assert fill(SQLiteStore(memory), rows=3).rows == {"t": 3}
    assert any(text is not None for row in rows(memory, "t") for text in row[5:])


def test_fill_external_full_text_table_is_left_to_its_triggers(memory):
    """A virtual table that shows the rows of another gets none of its own."""
    memory.execute(
        """
        CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);
        CREATE VIRTUAL TABLE f USING fts5 (x, content = 't', content_rowid = 'id');
        CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO f (rowid, x) VALUES (new.id, new.x); END
        """
    ).fetchall()
    filled = fill(SQLiteStore(memory))
    assert filled.rows == {"t": 3}
    assert filled.unfilled == {}
    memory.execute("INSERT INTO f (f, rank) VALUES ('integrity-check', 1)").fetchall()


def test_fill_inside_a_transaction_is_undone_with_it(memory):
    """It takes part in the caller's transaction."""
    memory.execute("CREATE TABLE t (a INT); BEGIN").fetchall()
    fill(SQLiteStore(memory))
    assert memory.in_transaction
    assert len(rows(memory, "t")) == 3
    memory.execute("ROLLBACK")
    assert rows(memory, "t") == []
