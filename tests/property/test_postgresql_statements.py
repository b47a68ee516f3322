"""Where PostgreSQL's statements end: the server itself is asked, and takes each piece for one statement at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.pq import ExecStatus

from dao import migrate
from dao.errors import MigrationFileError
from dao.migrate.scripts.postgresql import broken_off, has_statement, split
from tests.folders import write

# each is whole, and most hold what would end it if it were read otherwise
STATEMENTS = [
    "SELECT 1",
    "SELECT ';', 'it''s;', '\\', '--', '/*'",
    "SELECT E'\\';\\\\', e'it''s;', E'\\n'",
    "SELECT E'a'\n -- ';\n  'b\\';c'",
    "SELECT 'a'\n'b;'",
    'SELECT U&\'\\0061;\', U&"c;" FROM (SELECT 1 AS "c;") AS a',
    "SELECT b'101', x'1F', n';'",
    "SELECT $$;$$, $a$ $$; $b$ ' $a$, $_ä$;$_ä$",
    'SELECT 1 AS "a;""b--"',
    "SELECT 1 AS a$$, 2 AS b$c$",
    "SELECT 1 -- ;'\n + 1",
    "SELECT /* ; /* ' */ ; */ 1",
    "SELECT 1 +-+1, 4/2, 3*-1, ARRAY[1, 2]",
    "SELECT '{\"a\": [1]}'::json -> 'a' ->> 0",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT ';'; SELECT 2)",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
    "CREATE OR REPLACE /* ; */ PROCEDURE p(a int) LANGUAGE sql BEGIN ATOMIC; END",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT '';'''",
    'CREATE TABLE begin_ (case_ int, "end" int CHECK ("end" > 0))',
    "DO $do$ BEGIN RAISE NOTICE '%', $$;$$; END $do$",
    "BEGIN",
    "COMMIT AND CHAIN",
    "INSERT INTO t VALUES (1, '(;', 2)",
]
BETWEEN = [";", ";\n", "; -- it's\n", ";/* it's /* a */ ; */", ";;\t\f\v;"]
PIECES = [
    *("'", '"', "E'", "$$", "$a$", "$a", "\\", "''", "\\'", ";", "/*", "*/", "--", "\n", "(", ")", " ", "select ", "1"),
    *("a", "ä", "begin ", "end ", "case ", "create function ", "atomic ", "U&'", "x'", "$1", "[", "]", "::", ":"),
]


@pytest.fixture(scope="module")
def connection(server) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty database."""
    url = server.create()
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
    server.drop(url)


def prepared(connection: psycopg.Connection[Any], text: str) -> str:
    """Return what the server says of a text as one statement; nothing if it is one."""
    result = connection.pgconn.prepare(b"", text.encode())
    return "" if result.status == ExecStatus.COMMAND_OK else result.get_error_message()


def parses(said: str) -> bool:
    """Return whether a text is one statement as far as the grammar goes."""
    return not any(
        word in said
        for word in (
            "syntax error",
            "unterminated",
            "multiple commands",
            "end of input",
            "junk",
            "zero-length",
            "nvalid",
        )
    )


@pytest.mark.parametrize("statement", STATEMENTS)
def test_split_one_statement_is_one(connection, statement):
    """Each of these is one statement to the server, and here."""
    assert parses(prepared(connection, statement))
    assert [found.text for found in split(statement)] == [statement]
    assert broken_off(statement) is None


@given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=6), st.data())
def test_split_statements_gives_them_back(statements, data):
    """Statements with semicolons between are found again, each with its place in the text."""
    text = data.draw(st.sampled_from(["", "/* a /* ; */ */", "-- ;\n"]))
    text += "".join(statement + data.draw(st.sampled_from(BETWEEN)) for statement in statements)
    found = list(split(text))
    assert [one.text for one in found] == statements
    assert [text[one.begin : one.end] for one in found] == statements
    assert broken_off(text) is None


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from([*PIECES, *STATEMENTS]), max_size=12).map("".join))
@example(text="select 1$$;$$a")
@example(text="select E'a' 'b\\';c'; select 1'")
@example(text="create function (begin); select end; 1")
def test_split_any_text_gives_at_most_one_statement(connection, text):
    """Whatever a text is, the server takes no piece of it for two statements."""
    for found in split(text):
        assert "multiple commands" not in prepared(connection, found.text)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from([*PIECES, *STATEMENTS]), max_size=12).map("".join))
def test_broken_off_agrees_with_the_server(connection, text):
    """What is said to be open makes the server's scanner come to the end of the text inside of it."""
    found = broken_off(text)
    if found is not None and "never ends" in found[0]:
        assert not parses(prepared(connection, text))
    elif found is None:
        assert "unterminated" not in prepared(connection, text)


def test_has_statement_knows_comments_in_comments():
    """A comment ends with the last of its comments."""
    assert not has_statement("/* a /* b */ c */ ; -- d")
    assert has_statement("/* a */ b */")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("SELECT 1;\nSELECT 'abc;\n", 2, "a string begins here and never ends"),
        ("SELECT 1;\nSELECT E'abc\\';\n", 2, "a string begins here and never ends"),
        ('SELECT 1;\nSELECT "abc;\n', 2, "a name in quotes begins here and never ends"),
        ("SELECT 1;\nSELECT $x$ $$;\n", 2, r"its second \$x\$ is missing"),
        ("SELECT 1;\n\nSELECT /* /* */ 1", 3, "a comment begins here and never ends"),
        ("SELECT 1;\n/* /* */", 2, "a comment begins here and never ends"),
        ("\\restrict abc\nSELECT 1;", 1, r"\\restrict is a command of psql"),
        ("SELECT 1 \\gset\n", 1, r"\\gset is a command of psql"),
        ("CREATE TABLE a ();\nCOPY a (b) FROM STDIN WITH (FORMAT csv);\n'\n\\.\n", 2, "COPY of STDIN or STDOUT"),
        ("<<<<<<< one\nSELECT 1;\n=======\n>>>>>>> two\n", 1, "a merge conflict"),
    ],
)
def test_load_script_for_postgresql_that_cannot_run_is_refused(tmp_path, text, line, reason):
    """It is refused with its line as the folder is read, for the engine that it is written for."""
    write(tmp_path, {"0001_a.sql": text})
    with pytest.raises(MigrationFileError, match=reason) as raised:
        migrate.load(tmp_path, engine="postgresql")
    assert raised.value.line == line


def test_load_script_for_postgresql_is_not_read_as_sqlite(tmp_path):
    """A trigger without END, and an apostrophe in dollars, are whole for one engine only."""
    text = "CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION f();\nDO $$ BEGIN -- it's\nEND $$; SELECT $$it's$$;\n"
    write(tmp_path, {"0001_a.sql": text})
    assert len(migrate.load(tmp_path, engine="postgresql")) == 1
    with pytest.raises(MigrationFileError):
        migrate.load(tmp_path, engine="sqlite")
