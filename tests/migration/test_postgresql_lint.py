"""What `lint` finds in scripts for PostgreSQL and what it lets be, and that the server does what the rules say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import dao
from dao.migrate.linting import lint
from tests.folders import write

#: What is there before the script that a test is about: tables in use.
BASE = """
CREATE TABLE parent (id bigint PRIMARY KEY, name text, n integer, code varchar(10));
CREATE TABLE child (id bigint PRIMARY KEY, parent_id bigint, note text);
INSERT INTO parent SELECT i, 'n', i, 'c' FROM generate_series(1, 100) AS i;
INSERT INTO child SELECT i, i, 'n' FROM generate_series(1, 100) AS i;
"""
BASE_BACK = "DROP TABLE child; DROP TABLE parent;"

#: By name: the rule, a script that it holds something against, the line, a part of the message.
WRONG = {
    "default of the clock": (
        "M031",
        "SELECT 1;\nALTER TABLE parent ADD COLUMN at timestamptz DEFAULT clock_timestamp();",
        2,
        "clock_timestamp() gives each row of at its own",
    ),
    "random id": ("M031", "ALTER TABLE parent ADD u uuid NOT NULL DEFAULT gen_random_uuid();", 1, "gen_random_uuid()"),
    "serial": ("M031", "ALTER TABLE parent ADD COLUMN IF NOT EXISTS number bigserial;", 1, "gets a number for number"),
    "identity": (
        "M031",
        "ALTER TABLE parent ADD number bigint GENERATED ALWAYS AS IDENTITY;",
        1,
        "gets a number for number",
    ),
    "computed": ("M031", "ALTER TABLE parent ADD m int GENERATED ALWAYS AS (n * 2) STORED;", 1, "m is computed"),
    "second action": ("M031", "ALTER TABLE parent ADD a int, ADD COLUMN b bigserial;", 1, "a number for b"),
    "not null": ("M032", "ALTER TABLE ONLY parent ALTER COLUMN name SET NOT NULL;", 1, "see that name is not NULL"),
    "not null by a check that is not validated": (
        "M032",
        "ALTER TABLE parent ADD CONSTRAINT c CHECK (name IS NOT NULL) NOT VALID, ALTER name SET NOT NULL;",
        1,
        "see that name is not NULL",
    ),
    "index": ("M033", "CREATE INDEX parent_n ON public.parent (n);", 1, "parent cannot be written to"),
    "unique index": ("M033", "CREATE UNIQUE INDEX IF NOT EXISTS u ON ONLY parent USING btree (n);", 1, "parent cannot"),
    "unique constraint": ("M033", "ALTER TABLE parent ADD CONSTRAINT u UNIQUE (n);", 1, "nobody gets at parent"),
    "foreign key": (
        "M034",
        "ALTER TABLE child ADD CONSTRAINT f FOREIGN KEY (parent_id) REFERENCES parent (id);",
        1,
        "every row of child is looked up",
    ),
    "check": ("M034", "ALTER TABLE IF EXISTS parent ADD CONSTRAINT c CHECK (n > 0);", 1, "every row of parent is read"),
    "another type": ("M035", "ALTER TABLE parent ALTER COLUMN n TYPE bigint;", 1, "parent is written anew"),
    "set data type": (
        "M035",
        "ALTER TABLE parent ALTER n SET DATA TYPE numeric USING n::numeric;",
        1,
        "unless n stays",
    ),
    "unlogged": ("M035", "ALTER TABLE parent SET UNLOGGED;", 1, "parent is written anew"),
    "update under a lock": (
        "M036",
        "ALTER TABLE parent ADD COLUMN m integer;\nUPDATE child SET note = 'x' WHERE true;",
        2,
        "UPDATE goes through rows while parent is locked since line 1",
    ),
    "copy under a lock": (
        "M036",
        "ALTER TABLE parent RENAME COLUMN n TO m;\nCREATE TABLE t (i bigint);\nINSERT INTO t SELECT id FROM child;",
        3,
        "t is filled from a SELECT while parent",
    ),
    "drop table": ("M002", "DROP TABLE IF EXISTS child;", 1, "child is dropped with all its rows"),
    "drop column": ("M003", "ALTER TABLE parent DROP COLUMN IF EXISTS name;", 1, "parent.name is dropped"),
    "drop column without the word": ("M003", "ALTER TABLE parent DROP name;", 1, "parent.name is dropped"),
    "delete": ("M004", "DELETE FROM ONLY child;", 1, "every row of child"),
    "truncate": ("M004", "TRUNCATE child;", 1, "every row of child"),
    "update": ("M005", "UPDATE parent SET n = 1;", 1, "every row of parent"),
    "renamed table": ("M010", "ALTER TABLE parent RENAME TO parents;", 1, "parent is renamed to parents"),
    "renamed column": ("M010", "ALTER TABLE parent RENAME n TO m;", 1, "parent.n is renamed to m"),
    "if exists": ("M016", "CREATE TABLE IF NOT EXISTS t (i int);", 1, "IF NOT EXISTS hides"),
}
#: Scripts that only look like one of the above.
RIGHT = {
    "constant default": "ALTER TABLE parent ADD COLUMN a int NOT NULL DEFAULT 0;",
    "default of the transaction": "ALTER TABLE parent ADD COLUMN a timestamptz NOT NULL DEFAULT now();",
    "default set later": "ALTER TABLE parent ADD a uuid; ALTER TABLE parent ALTER a SET DEFAULT gen_random_uuid();",
    "a text about it": "ALTER TABLE parent ADD COLUMN a text DEFAULT 'random()'; -- serial",
    "new table": (
        "CREATE TABLE fresh (id bigserial PRIMARY KEY, p bigint); CREATE INDEX fresh_p ON fresh (p); "
        "ALTER TABLE fresh ADD CHECK (p > 0), ALTER p TYPE int, ALTER p SET NOT NULL; UPDATE fresh SET p = 1; "
        "INSERT INTO fresh SELECT id FROM parent;"
    ),
    "not valid": (
        "ALTER TABLE child ADD CONSTRAINT f FOREIGN KEY (parent_id) REFERENCES parent (id) NOT VALID; "
        "ALTER TABLE parent ADD CONSTRAINT c CHECK (n > 0) NOT VALID;"
    ),
    "statistics": "ALTER TABLE child ALTER note SET STATISTICS 10; UPDATE child SET note = 'y' WHERE true;",
    "declared": (
        "-- allows: drop table child\n-- allows: drop column parent.name\n"
        "DROP TABLE child; ALTER TABLE parent DROP name;"
    ),
    "where": "DELETE FROM child WHERE id = 0; UPDATE child SET note = 'y' WHERE id = 0;",
    "renamed constraint": "ALTER TABLE parent RENAME CONSTRAINT parent_pkey TO parent_key;",
    "in a body": "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM child; END $$;",
}
ALONE = "-- transactional: false\nCREATE INDEX CONCURRENTLY parent_n ON parent (n);"


def findings(folder: Any, script: str, rollback: str = "SELECT 1;") -> list[Any]:
    """Return the open findings about a script after the base."""
    base = {"0001_base.sql": BASE, "0001_base.rollback.sql": BASE_BACK}
    write(folder / "sql", {**base, "0002_x.sql": script, "0002_x.rollback.sql": rollback})
    result = lint(folder / "sql", engine="postgresql")
    return [finding for finding in result.findings if finding.migration == "0002_x" and finding.is_open]


@pytest.fixture
def connection(new_postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database of its own, with the tables in use."""
    with dao.connect(new_postgresql_url) as connection:
        connection.execute(BASE)
        yield connection


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize(("code", "script", "line", "message"), WRONG.values(), ids=WRONG)
def test_lint_wrong_script_is_found(tmp_path, code, script, line, message):
    """Each rule finds what it is about, where it stands."""
    found = [(one.code, one.line, one.message) for one in findings(tmp_path, script)]
    assert [(code, line)] == [one[:2] for one in found if message in one[2]], found


@pytest.mark.parametrize("script", [*RIGHT.values(), ALONE], ids=[*RIGHT, "concurrently"])
def test_lint_right_script_is_let_be(tmp_path, script):
    """What only looks like it is not found."""
    assert [(one.code, one.message) for one in findings(tmp_path, script)] == []


def test_lint_pair_without_its_rollback_is_found(tmp_path):
    """A missing rollback, an empty one and an empty script are found as for SQLite; a finding can be silenced."""
    assert [one.code for one in findings(tmp_path, "SELECT 1;", "-- none")] == ["M018"]
    assert [one.code for one in findings(tmp_path, "-- none", "-- none")] == ["M027"]
    (tmp_path / "sql" / "0002_x.rollback.sql").unlink()
    (tmp_path / "sql" / "0002_x.sql").write_text("-- lint: ignore M002 it is empty\nDROP TABLE child;")
    result = lint(tmp_path / "sql", engine="postgresql")
    assert [(one.code, one.silenced) for one in result.findings] == [("M017", None), ("M002", "it is empty")]


def test_lint_judges_what_is_asked_for(tmp_path):
    """Scripts that are not judged are read all the same: a check that one made counts in the next."""
    scripts = {
        "0001_base.sql": BASE,
        "0002_check.sql": "ALTER TABLE parent ADD CONSTRAINT c CHECK (n IS NOT NULL) NOT VALID;",
        "0003_valid.sql": "ALTER TABLE parent VALIDATE CONSTRAINT c;",
        "0004_set.sql": "ALTER TABLE parent ALTER n SET NOT NULL;",
        "0004_set.rollback.sql": "ALTER TABLE parent ALTER n DROP NOT NULL;",
    }
    write(tmp_path / "sql", scripts)
    result = lint(tmp_path / "sql", engine="postgresql", latest=1)
    assert (result.judged, result.findings) == (("0004_set",), ())
    (tmp_path / "sql" / "0003_valid.sql").write_text("SELECT 1;")
    found = lint(tmp_path / "sql", engine="postgresql", latest=1).findings
    assert [(one.migration, one.code) for one in found] == [("0004_set", "M032")]


# ---------------------------------------------------------------- what the server does

_STATE = """
SELECT relname, pg_relation_filenode(oid), pg_stat_get_xact_numscans(oid)
FROM   pg_class WHERE relname IN ('parent', 'child')
"""
_LOCKS = """
SELECT DISTINCT relname, mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE  pid = pg_backend_pid() AND relname IN ('parent', 'child')
"""


def tried(connection: psycopg.Connection[Any], script: str) -> tuple[set[str], set[str], set[tuple[str, str]]]:
    """Return which tables a script wrote anew and which it read whole, and the locks that it has at its end."""
    connection.execute("BEGIN")
    before = {name: rest for name, *rest in connection.execute(_STATE).fetchall()}
    connection.execute(script)
    after = {name: rest for name, *rest in connection.execute(_STATE).fetchall()}
    locks = set(connection.execute(_LOCKS).fetchall())
    connection.execute("ROLLBACK")
    changed = [{name for name in after if after[name][what] != before[name][what]} for what in (0, 1)]
    return changed[0], changed[1], locks


def examples(*codes: str) -> Any:
    chosen = {name: script for name, (code, script, *_) in WRONG.items() if code in codes}
    return pytest.mark.parametrize("script", chosen.values(), ids=chosen)


@examples("M031", "M035")
def test_server_writes_the_table_anew(connection, script):
    """The rules say so of these."""
    rewritten, _, locks = tried(connection, script)
    assert rewritten == {"parent"}
    assert ("parent", "AccessExclusiveLock") in locks


@examples("M032", "M034")
def test_server_reads_all_rows_under_a_lock(connection, script):
    """The rules say so of these; the lock keeps writers out, at the least."""
    rewritten, read, locks = tried(connection, script)
    assert not rewritten
    assert read
    assert {mode for _, mode in locks} & {"AccessExclusiveLock", "ShareRowExclusiveLock"}


@examples("M033")
def test_server_builds_the_index_under_a_lock(connection, script):
    """The rules say so of these."""
    _, read, locks = tried(connection, script)
    assert read == {"parent"}
    assert {mode for name, mode in locks if name == "parent"} & {"ShareLock", "AccessExclusiveLock"}


@examples("M036")
def test_server_holds_the_lock(connection, script):
    """What keeps everybody from the first table is still there at the end."""
    _, _, locks = tried(connection, script)
    assert ("parent", "AccessExclusiveLock") in locks


@pytest.mark.parametrize("name", ["constant default", "default of the transaction", "default set later", "not valid"])
def test_server_neither_reads_nor_writes_the_rows(connection, name):
    """What the rules advise costs nothing that grows with the table."""
    rewritten, read, _ = tried(connection, RIGHT[name])
    assert not rewritten
    assert not read


def test_server_needs_no_look_after_a_validated_check(connection):
    """SET NOT NULL takes the word of a CHECK that is validated."""
    connection.execute("ALTER TABLE parent ADD CONSTRAINT c CHECK (name IS NOT NULL)")
    assert tried(connection, "ALTER TABLE parent ALTER COLUMN name SET NOT NULL;")[1] == set()


#: Statements that the server runs in no transaction.
OUTSIDE = [
    "CREATE INDEX CONCURRENTLY parent_n ON parent (n);",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS parent_n ON parent (n);",
    "DROP INDEX CONCURRENTLY parent_pkey;",
    "REINDEX TABLE CONCURRENTLY parent;",
    "REINDEX (CONCURRENTLY) TABLE parent;",
    "REINDEX SCHEMA public;",
    "VACUUM parent;",
    "CREATE DATABASE other;",
    "DROP DATABASE other;",
    "DROP TABLESPACE other;",
    "ALTER SYSTEM SET work_mem = '8MB';",
    "ALTER TABLE parts DETACH PARTITION part CONCURRENTLY;",
]
VIEW = "CREATE MATERIALIZED VIEW v AS TABLE child; CREATE UNIQUE INDEX ON v (id);"


@pytest.mark.parametrize("statement", OUTSIDE)
def test_lint_statement_that_runs_in_no_transaction_is_found(tmp_path, connection, statement):
    """The server refuses it, in both scripts: whoever forgot `transactional: false` was told by `dao migrate` only."""
    (up,) = (one for one in findings(tmp_path, f"SELECT 1;\n{statement}") if one.code == "M001")
    assert (up.line, "cannot run in a transaction" in up.message) == (2, True)
    (down,) = (one for one in findings(tmp_path, "SELECT 1;", f"SELECT 1;\n{statement}") if one.code == "M001")
    assert down.line == 2
    connection.execute("CREATE TABLE parts (i int) PARTITION BY LIST (i)")
    connection.execute("CREATE TABLE part PARTITION OF parts FOR VALUES IN (1)")
    outside = findings(tmp_path, f"-- transactional: false\n{statement}", statement)
    assert "M001" not in [one.code for one in outside]
    with pytest.raises(psycopg.errors.ActiveSqlTransaction), connection.transaction():
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "REINDEX TABLE parent;",
        "DROP INDEX IF EXISTS concurrently_n;",
        'CREATE INDEX "concurrently" ON parent (n);',
        f"{VIEW} REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
        "ANALYZE parent;",
    ],
)
def test_lint_statement_that_runs_in_a_transaction_is_let_be(tmp_path, connection, statement):
    """They look like those that do not."""
    assert "M001" not in [one.code for one in findings(tmp_path, statement)]
    with connection.transaction():
        connection.execute(statement)
