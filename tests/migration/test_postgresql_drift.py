"""What somebody changed by hand on PostgreSQL is told, and stays told, and nothing else is taken for it."""

from __future__ import annotations

import pytest

import dao
from dao import migrate
from dao.errors import LedgerMismatch, MigrationError
from dao.migrate.ledger import drift, entries
from dao.migrate.ledger.drift import Moment
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema.postgresql import reader
from dao.migrate.scripts.migration import from_texts

FIRST = """
CREATE TABLE t (id integer PRIMARY KEY, x text DEFAULT 'a', CONSTRAINT filled CHECK (x <> ''));
CREATE INDEX t_x ON t (x);
CREATE VIEW v AS SELECT x FROM t;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
GRANT SELECT ON t TO PUBLIC;
"""


def set_up(url):
    """Apply one migration."""
    with dao.connect(url) as connection:
        run(connection, "0001_t", FIRST)


@pytest.fixture
def url(prepared_by):
    """The URL of a database to which one migration was applied."""
    return prepared_by(set_up)


@pytest.fixture
def database(url):
    """A connection to it."""
    with dao.connect(url) as connection:
        yield connection


def run(connection, id, script, *, undo=False):
    """Run a script as a migration, and return what drift the run tells."""
    with dao.transaction(connection):
        writer = Writer(connection)
        before = reader.read(connection)
        connection.execute(script)
        if undo:
            writer.not_applied(id)
        else:
            writer.applied(from_texts(id, script, None), duration_ms=1)
        found = drift.record(connection, (), Moment(writer.before, before), Moment(writer.after))
    return [str(one) for one in found.differences]


def told(connection):
    """Return the drift that is told now."""
    return [str(one) for one in drift.differences(connection, (), entries.read(connection))]


def test_untouched_schema_has_no_drift(database):
    """What a run leaves is what is expected."""
    assert told(database) == []
    assert run(database, "0002_u", "CREATE TABLE u (id integer)") == []
    assert told(database) == []


BY_HAND = {
    "column": ("ALTER TABLE t ADD z integer", "table t: column z is unexpected"),
    "default": ("ALTER TABLE t ALTER x SET DEFAULT 'b'", "table t: column x is text DEFAULT 'b'::text, expected"),
    "constraint": ("ALTER TABLE t DROP CONSTRAINT filled", "table t: constraint filled is missing"),
    "index": ("CREATE INDEX mine ON t (x, id)", "index mine is unexpected"),
    "index dropped": ("DROP INDEX t_x", "index t_x is missing"),
    "trigger": (
        "CREATE TRIGGER h AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "trigger h ON t is unexpected",
    ),
    "trigger disabled": ("ALTER TABLE t DISABLE TRIGGER g", "trigger g ON t: state is unexpected"),
    "function": (
        "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "function f() is CREATE OR REPLACE FUNCTION f()",
    ),
    "view": ("CREATE OR REPLACE VIEW v AS SELECT x FROM t LIMIT 1", "view v is CREATE VIEW v AS"),
    "policy": ("CREATE POLICY p ON t USING (true)", "policy p ON t is unexpected"),
    "rights": ("REVOKE SELECT ON t FROM PUBLIC", "table t: rights of PUBLIC is missing"),
    "table": ("DROP TABLE t CASCADE", "table t is missing"),
}


def test_change_by_hand_is_told_until_it_is_undone(database):
    """It is named, and stays drift however many migrations run after it."""
    for change, message in BY_HAND.values():
        with database.transaction(force_rollback=True):
            database.execute(change)
            before = told(database)
            assert any(line.replace("\n", " ").startswith(message) for line in before), (change, before)
            assert run(database, "0002_u", "CREATE TABLE u (id integer)") == before
            assert told(database) == before
        assert told(database) == []


def test_change_by_hand_of_a_table_stays_drift_when_a_migration_changes_that_table(database):
    """What a run did not touch is expected as before it, column by column."""
    database.execute("ALTER TABLE t ADD z integer; ALTER TABLE t DROP CONSTRAINT filled")
    found = ["table t: column z is unexpected", "table t: constraint filled is missing"]
    assert told(database) == found
    assert run(database, "0002_w", "ALTER TABLE t ADD w integer; COMMENT ON COLUMN t.w IS 'new'") == found
    assert told(database) == found
    assert run(database, "0003_z", "ALTER TABLE t DROP z; ALTER TABLE t ADD CONSTRAINT filled CHECK (x <> '')") == []
    assert told(database) == []


BESIDE = {
    "table": "CREATE TABLE theirs (id integer PRIMARY KEY); CREATE INDEX i ON theirs (id)",
    "view": "CREATE VIEW w AS SELECT * FROM t",
    "function": "CREATE FUNCTION h() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "sequence": "CREATE SEQUENCE s",
    "schema": "CREATE SCHEMA other; CREATE TABLE other.t (id integer)",
    "extension": "CREATE EXTENSION pg_trgm",
    "rights": "GRANT UPDATE ON v TO PUBLIC; GRANT SELECT (x) ON t TO pg_monitor",
    "comment": "COMMENT ON TABLE t IS 'looked at'",
    "tuning": "ALTER TABLE t SET (autovacuum_vacuum_scale_factor = 0.01)",
    "rows": "INSERT INTO t VALUES (1); ANALYZE t",
    "a partition": "CREATE TABLE m (a integer) PARTITION BY LIST (a); CREATE TABLE m1 PARTITION OF m DEFAULT",
}


def test_what_others_keep_beside_the_migrations_is_no_drift(database):
    """Other programs' objects, rights that an administrator gives, and tuning refuse no program its start."""
    for change in BESIDE.values():
        with database.transaction(force_rollback=True):
            database.execute(change)
            assert told(database) == [], change
            assert run(database, "0002_u", "CREATE TABLE u (id integer)") == [], change


HARMLESS = {
    "nothing": "SELECT 1",
    "rows": "INSERT INTO t VALUES (1), (2); UPDATE t SET x = 'y'; DELETE FROM t WHERE id = 1",
    "statistics": "INSERT INTO t SELECT i FROM generate_series(1, 1000) AS i; ANALYZE t",
    "vacuum": "VACUUM (FREEZE) t",
    "vacuum of the catalog": "VACUUM (FREEZE) pg_class",
    "a sequence": "SELECT nextval('numbers')",
    "a temporary table": "CREATE TEMP TABLE t (other integer)",
    "done and undone": "CREATE TABLE u (id integer); DROP TABLE u",
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_ddl_is_known_without_reading_the_catalog(database, change, monkeypatch):
    """A program asks whenever it starts, and hundreds of tables took it most of a second."""
    run(database, "0002_numbers", "CREATE SEQUENCE numbers")
    database.execute(change)

    def fail(*_arguments):
        raise AssertionError("the catalog was read")

    monkeypatch.setattr(reader, "read", fail)
    assert told(database) == []


def test_object_of_others_that_a_migration_changes_is_its_own_from_then_on(database):
    """A migration that adds an index to another program's table expects that index, and the table as it was."""
    database.execute("CREATE TABLE theirs (id integer)")
    assert run(database, "0002_i", "CREATE INDEX i ON theirs (id)") == []
    database.execute("DROP INDEX i")
    assert told(database) == ["index i is missing"]


def test_rollback_takes_what_it_drops_out_of_what_is_expected(database):
    """What it leaves is what is expected then."""
    run(database, "0002_u", "CREATE TABLE u (id integer); ALTER TABLE t ADD u integer")
    assert run(database, "0002_u", "DROP TABLE u; ALTER TABLE t DROP u", undo=True) == []
    assert told(database) == []


def test_migration_that_the_stock_yoyo_applied_is_not_taken_for_drift(database):
    """It notes nothing: nothing is known after it, and with the next run all is again."""
    with dao.transaction(database):
        Writer(database).applied(from_texts("0002_y", "", None), duration_ms=1)
        database.execute("ALTER TABLE t ADD y integer")
    assert told(database) == []
    with pytest.raises(MigrationError, match="the stock yoyo applied or undid the latest"):
        migrate.diff(database, [])
    assert run(database, "0003_u", "CREATE TABLE u (id integer)") == []
    assert told(database) == []
    database.execute("ALTER TABLE t DROP y")
    assert told(database) == ["table t: column y is missing"]


def test_marked_migrations_made_what_is_there(new_postgresql_url):
    """Where nothing ran, what is there is said to be what the migrations make; only what comes later is drift."""
    with dao.connect(new_postgresql_url) as connection:
        connection.execute("CREATE SCHEMA other; CREATE TABLE other.theirs (id integer)")
        connection.execute(FIRST)
        with dao.transaction(connection):
            writer = Writer(connection)
            writer.applied(from_texts("0001_t", FIRST, None), duration_ms=None, operation="mark")
            assert drift.record(connection, (), Moment(writer.before)).differences == ()
        connection.execute("DROP INDEX t_x; DROP TABLE other.theirs")
        assert told(connection) == ["index t_x is missing"]
        with dao.transaction(connection):
            writer = Writer(connection)
            writer.not_applied("0001_t", operation="unmark")
            found = drift.record(connection, (), Moment(writer.before))
        assert [str(one) for one in found.differences] == ["index t_x is missing"]


def test_diff_and_status_tell_the_same(database, url, tmp_path):
    """`dao schema diff` shows what `status` and the start of a program refuse."""
    run(database, "0002_u", "CREATE TABLE u (id integer);")
    run(database, "0001_t", "", undo=True)
    (tmp_path / "0002_u.sql").write_text("CREATE TABLE u (id integer);")
    database.execute("DROP INDEX t_x")
    assert [str(one) for one in migrate.diff(url, tmp_path)] == ["index t_x is missing"]
    assert migrate.status(url, tmp_path).drift == ("index t_x is missing",)
    with pytest.raises(LedgerMismatch, match="index t_x is missing"):
        migrate.assert_current(database, tmp_path)
