"""What is wrong in a PostgreSQL database is told: rows that break a constraint, and what is not enforced."""

from __future__ import annotations

import threading

import psycopg
import pytest

import dao
from dao.migrate.checking import postgresql
from tests import engines
from tests.concurrency import wait_for

TABLES = """
CREATE TABLE parents (id integer PRIMARY KEY, "No" integer UNIQUE);
CREATE TABLE children (
    id     integer PRIMARY KEY,
    parent integer,
    n      integer,
    CONSTRAINT children_parent_fkey FOREIGN KEY (parent) REFERENCES parents
);
"""


@pytest.fixture
def database(new_postgresql_url):
    """A connection to a new database with a parent and its children."""
    with dao.connect(new_postgresql_url) as connection:
        connection.execute(TABLES)
        yield connection


def check(connection):
    """Return what is wrong, as lines, the rows at fault, and what cannot be told."""
    unknown = []
    with dao.transaction(connection):
        found = list(postgresql.faults(connection, lambda what, reason: unknown.append(f"{what}: {reason}")))
    return [str(one) for one in found], [one.rows for one in found], unknown


UNKNOWN = ["tables and indexes are intact: the extension amcheck is not here (CREATE EXTENSION amcheck)"]


def test_sound_database_has_no_fault(database):
    """Rows that keep every constraint are none; that nobody looked into the pages is said."""
    database.execute("INSERT INTO parents VALUES (1, 1); INSERT INTO children VALUES (1, 1, 1), (2, NULL, NULL)")
    assert check(database) == ([], [], UNKNOWN)


def test_rows_that_break_a_check_that_is_not_valid_are_counted_and_named(database):
    """The server lets old rows be until VALIDATE; a hundred of them are named, by their key."""
    database.execute("INSERT INTO children SELECT i, NULL, -i FROM generate_series(1, 150) AS i")
    database.execute("ALTER TABLE children ADD CONSTRAINT positive CHECK (n > 0) NOT VALID")
    lines, (rows,), _ = check(database)
    assert lines == ["constraint: rows of children break constraint positive (150 rows)"]
    assert rows[:2] == ({"id": 1, "n": -1}, {"id": 2, "n": -2})
    assert len(rows) == 100


def test_not_null_that_is_not_valid_is_checked(database):
    """PostgreSQL 18 has it for columns, too."""
    if database.info.server_version < 180_000:
        pytest.skip("a NOT NULL that is NOT VALID came with PostgreSQL 18")
    database.execute("INSERT INTO children VALUES (7, NULL, NULL)")
    database.execute("ALTER TABLE children ADD CONSTRAINT given NOT NULL n NOT VALID")
    lines, (rows,), _ = check(database)
    assert lines == ["constraint: rows of children break constraint given (1 row)"]
    assert rows == ({"id": 7, "n": None},)


def test_constraint_that_is_not_to_be_enforced_is_not(database):
    """PostgreSQL 18 lets one say what is meant to hold, and nobody has broken a promise."""
    if database.info.server_version < 180_000:
        pytest.skip("constraints that are NOT ENFORCED came with PostgreSQL 18")
    database.execute("INSERT INTO children VALUES (1, NULL, -1)")
    database.execute("ALTER TABLE children ADD CONSTRAINT positive CHECK (n > 0) NOT ENFORCED")
    assert check(database)[0] == []


@pytest.mark.parametrize("match", ["", "MATCH FULL"])
def test_rows_that_refer_to_nothing_are_told(database, match):
    """A replica's role, and a load with triggers off, write what no foreign key allows."""
    database.execute(
        f"""
        CREATE TABLE pairs (a integer, b integer, PRIMARY KEY (a, b));
        CREATE TABLE uses (id integer PRIMARY KEY, a integer, b integer,
                           CONSTRAINT uses_fkey FOREIGN KEY (a, b) REFERENCES pairs {match});
        INSERT INTO pairs VALUES (1, 1);
        SET session_replication_role = replica;
        INSERT INTO uses VALUES (1, 1, 1), (2, 1, 2), (3, NULL, NULL), (4, 1, NULL);
        RESET session_replication_role;
        """
    )
    lines, (rows,), _ = check(database)
    number = 2 if match else 1
    (line,) = lines
    assert line.startswith("foreign key: uses: a, b refers to a row of pairs that does not exist (uses_fkey) (")
    assert line.endswith("(2 rows)" if match else "(1 row)")
    assert rows[0] == {"id": 2, "a": 1, "b": 2}
    assert len(rows) == number


def test_partitioned_and_inherited_tables_are_told_once(database):
    """The rows of a partition are those of the table; a table's constraint is none of its heirs', but for a CHECK."""
    database.execute(
        """
        CREATE TABLE m (a integer, v integer, "Parent" integer) PARTITION BY LIST (a);
        CREATE TABLE m1 PARTITION OF m DEFAULT;
        ALTER TABLE m ADD CONSTRAINT m_fkey FOREIGN KEY ("Parent") REFERENCES parents;
        SET session_replication_role = replica;
        INSERT INTO m VALUES (1, -1, 5);
        ALTER TABLE m ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
        """
    )
    lines, rows, _ = check(database)
    assert [line.partition(" (")[0] for line in lines] == [
        'foreign key: m: "Parent" refers to a row of parents that does not exist',
        "constraint: rows of m break constraint positive",
    ]
    assert [[*row[0]][1:] for row in rows] == [["Parent"], ["v"]]


def test_constraint_that_cannot_be_judged_is_said(database):
    """A function that raises hides neither the other constraints of its table, nor what comes after it."""
    database.execute(
        """
        CREATE FUNCTION no(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN IF $1 = 13 THEN RAISE ''not today''; END IF; RETURN true; END';
        INSERT INTO children VALUES (1, NULL, 13), (2, NULL, -1);
        ALTER TABLE children ADD CONSTRAINT luck CHECK (no(n)) NOT VALID;
        ALTER TABLE children ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
        """
    )
    lines, _, unknown = check(database)
    assert lines == ["constraint: rows of children break constraint positive (1 row)"]
    assert unknown == [*UNKNOWN, "the rows of children keep luck: not today"]


def test_index_that_is_not_valid_is_told_with_its_command(database):
    """CREATE INDEX CONCURRENTLY that fails leaves one, which IF NOT EXISTS then takes for good."""
    database.execute("INSERT INTO children VALUES (1, NULL, 1), (2, NULL, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute('CREATE UNIQUE INDEX CONCURRENTLY "My index" ON children (n)')
    lines, _, _ = check(database)
    assert len(lines) == 1
    assert lines[0].startswith('object: the index "My index" of children is not valid')
    assert '`REINDEX INDEX CONCURRENTLY "My index"`' in lines[0]
    database.execute("UPDATE children SET n = id")
    database.execute(lines[0].split("`")[1])
    assert check(database)[0] == []


def test_index_that_is_being_built_is_no_fault(database, new_postgresql_url):
    """It waits for a transaction that is older: nothing was broken off."""
    with dao.connect(new_postgresql_url) as old, dao.connect(new_postgresql_url) as builder:
        old.execute("BEGIN; INSERT INTO children VALUES (1, NULL, 1)")
        thread = threading.Thread(target=builder.execute, args=["CREATE INDEX CONCURRENTLY slow ON children (n)"])
        thread.start()
        try:
            sql = "SELECT 1 FROM pg_index WHERE NOT indisvalid"
            wait_for(lambda: database.execute(sql).fetchall())
            lines, _, unknown = check(database)
        finally:
            old.execute("COMMIT")
            thread.join()
    assert lines == []
    assert "the index slow of children is valid: it is being built" in unknown


def test_trigger_and_foreign_key_that_are_disabled_are_told(database):
    """What the server does not enforce at this moment is a fault, whatever the rows are."""
    database.execute(
        """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER "My trigger" BEFORE INSERT ON parents FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE parents DISABLE TRIGGER "My trigger";
        ALTER TABLE children DISABLE TRIGGER ALL;
        """
    )
    lines, _, _ = check(database)
    said, enable = (
        "object: the foreign key children_parent_fkey of children, by its triggers, is disabled",
        "ENABLE TRIGGER",
    )
    assert lines == [
        f"{said}: `ALTER TABLE children {enable} ALL`",
        f'object: the trigger "My trigger" of parents is disabled: `ALTER TABLE parents {enable} "My trigger"`',
    ]
    for line in lines:
        database.execute(line.split("`")[1])
    assert check(database)[0] == []


def test_damaged_index_is_told_where_amcheck_is(database, server):
    """A B-tree that lacks entries answers wrongly in silence; the extension finds it."""
    database.execute("CREATE EXTENSION amcheck; INSERT INTO children SELECT i FROM generate_series(1, 1000) AS i")
    assert check(database) == ([], [], [])
    database.execute(
        """
        CREATE FUNCTION wobbly(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
        CREATE INDEX wobbly_index ON children (wobbly(id));
        CREATE OR REPLACE FUNCTION wobbly(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT -$1';
        """
    )
    lines, _, unknown = check(database)
    assert len(lines) == 1, unknown
    assert lines[0].startswith("damage: the index wobbly_index: heap tuple")


def test_row_level_security_hides_no_row(database, new_postgresql_url):
    """A role that policies let see some rows only is told that it cannot judge, and not that all is well."""
    with engines.role(database) as role:
        database.execute(
            f"""
            INSERT INTO children VALUES (1, NULL, -1);
            ALTER TABLE children ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
            ALTER TABLE children ENABLE ROW LEVEL SECURITY;
            CREATE POLICY nothing ON children USING (false);
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
            SET ROLE {role};
            """
        )
        lines, _, unknown = check(database)
        database.execute("RESET ROLE")
    assert lines == []
    assert any("the rows of children keep positive: query would be affected by row-level" in one for one in unknown)
