"""Whether a script comes to its end, held against SQLite itself."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import MigrationFileError
from dao.migrate.scripts.statements import broken_off
from tests.folders import write

TABLES = "CREATE TABLE t (a, b);\nCREATE TABLE [begin end] (a);\n"
#: Whole statements, each without its semicolon, in which quotes, comments and words stand in each other's places.
WHOLE = [
    "SELECT 'it''s -- /* ; \"'",
    'SELECT "a" FROM t /* \'; */',
    "SELECT a -- it's /* [\n FROM t",
    "INSERT INTO t VALUES ('/*', '<<<<<<< ')",
    "SELECT * FROM [begin end] -- ]",
    "SELECT `a`, 1 / 2, 3 - - 4, x'00' FROM t",
    "SELECT CASE WHEN 1 THEN 2 END",
    (
        "CREATE TRIGGER IF NOT EXISTS t1 AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN ';' END; "
        "UPDATE t SET b = 1; END"
    ),
    "CREATE TEMP TRIGGER IF NOT EXISTS t2 AFTER UPDATE ON t WHEN new.a = ';' BEGIN SELECT 1; /* END; */ END",
    "CREATE TABLE IF NOT EXISTS u (a CHECK (a <> '('), \"trigger;\")",
    "EXPLAIN SELECT 1",
    "/* only */",
    "/* a/*.sql; b */",
    "-- a comment",
    "\ufeff",
    "",
]
_PIECES = st.sampled_from(
    [
        *"'\"`[]();*/-\n a1",
        "--",
        "/*",
        "*/",
        "''",
        "\r\n",
        "SELECT ",
        "CREATE ",
        "TRIGGER ",
        "BEGIN ",
        "END",
        " t ",
        "x'",
    ]
)
_SCRIPTS = st.one_of(
    st.lists(st.sampled_from(WHOLE), max_size=4).map(";\n".join),
    st.lists(st.sampled_from(WHOLE), min_size=1, max_size=3)
    .map(";\n".join)
    .flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end])),
    st.lists(_PIECES, max_size=10).map("".join),
)


def outcome(text: str) -> str:
    """Return what SQLite says when it runs a script: nothing if it ran."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(TABLES)
        connection.execute(text).fetchall()
    except apsw.Error as error:
        return str(error)
    finally:
        connection.close()
    return ""


@given(_SCRIPTS)
@example("SELECT 1 /*")
@example("SELECT 1; /*/")
@example("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1;")
@example("SELECT 1 -- /*")
def test_broken_off_any_script_agrees_with_sqlite(text):
    """A script that SQLite runs to its end is whole.

    One that ends in an open comment, or inside a statement, is not.
    """
    swallows = outcome(f"{text}\n;nonsense") in {"", outcome(text)} and not outcome(text)
    found = broken_off(text)
    if not outcome(text):
        # SQLite runs what follows the end of another comment
        assert (found is not None) == swallows or (found is not None and "the end of another" in found[0])
    elif outcome(text) == "incomplete input":
        assert found is not None


@given(st.lists(st.sampled_from(WHOLE), max_size=6), st.booleans())
def test_broken_off_whole_statements_are_whole(statements, semicolon):
    """Quotes and comments inside of one another, triggers, and a missing last semicolon are all right."""
    assert broken_off(";\n".join(statements) + "\n;" * semicolon) is None


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("SELECT 1;\n\n/* note\nSELECT 2;", 3, "a comment begins here and never ends"),
        (
            "SELECT 1;\n/* a\nSELECT 2; -- b\n\n/* c */\nSELECT 3;",
            2,
            "a comment begins here and goes on to the end of another",
        ),
        ("SELECT 1;\nSELECT 'a;\nSELECT 2;\n", 2, "a string begins here and never ends"),
        ('SELECT 1;\nSELECT "a;\n', 2, "a name in quotes begins here and never ends"),
        ("SELECT `a;\n", 1, "a name in quotes begins here and never ends"),
        ("SELECT 1,\n  [a;\n", 2, "a name in brackets begins here and never ends"),
        ("SELECT 1;\n\n-- x\nCREATE TABLE t (a\n", 4, "a statement begins here that is not complete"),
        ("SELECT 1;\nINSERT INTO nowhere VALUES (1,", 2, "a statement begins here that is not complete"),
        ("SELECT 1;\nCREATE TRIGGER x AFTER INSERT ON t BEGIN\nSELECT 1;\n", 2, "a trigger begins here and never ends"),
        ("SELECT 0;\n<<<<<<< HEAD\nSELECT 1;\n=======\nSELECT 2;\n>>>>>>> b\n", 2, "a merge conflict begins here"),
        ("/*\n<<<<<<< HEAD\n=======\n>>>>>>> b\n*/\nSELECT 1;", 2, "a merge conflict begins here"),
    ],
)
@pytest.mark.parametrize("name", ["1_a.sql", "1_a.rollback.sql"])
def test_load_script_that_is_broken_off_is_refused(tmp_path, text, line, what, name):
    """A script or rollback that does not come to its end is refused where that begins.

    SQLite swallows an open comment.
    """
    folder = write(tmp_path / "sql", {"1_a.sql": "SELECT 1;", name: text})
    for refusing in (lambda: migrate.load(folder, engine="sqlite"), lambda: migrate.plan("sqlite:///no.db", folder)):
        with pytest.raises(MigrationFileError, match=what) as caught:
            refusing()
        assert (caught.value.path, caught.value.line) == (folder / name, line)


def test_load_sections_keep_their_lines(tmp_path):
    """What one section of a file leaves open is said with its line in the file."""
    folder = write(tmp_path / "sql", {"1_a.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 1;\n/* open"})
    with pytest.raises(MigrationFileError, match=r"1_a\.sql:5: a comment"):
        migrate.load(folder)


@pytest.mark.parametrize("names", [["1_a.sql"], ["1_a.up.sql"], ["V1__a.sql", "U1__a.sql"]], ids=" ".join)
def test_new_templates_come_to_their_end(tmp_path, names):
    """A new migration, in whichever layout, is whole."""
    folder = write(tmp_path / "sql", dict.fromkeys(names, "SELECT 1;"))
    migrate.new("it's [a] /* note", folder)
    assert len(migrate.load(folder)) == 2
