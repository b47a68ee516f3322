"""Migrations for PostgreSQL are tried on generated rows, and on rows of one's own, as those for SQLite are."""

from __future__ import annotations

import pytest

import dao
from dao import migrate
from dao.errors import MigrationFileError
from dao.migrate.schema.postgresql import reader
from dao.migrate.verification.generate import fill
from dao.migrate.verification.mentioned import mentioned
from dao.migrate.verification.server_store import ServerStore
from tests.folders import ALONE, write


@pytest.fixture
def verify(server, tmp_path):
    """A function that verifies a folder with these files, and returns the results on generated rows by id."""

    def verify(files, **options):
        found = migrate.verify(write(tmp_path / "sql", files), server=server.url, **options)
        return {one.id: one for one in found if one.stage == "generated rows"}

    return verify


@pytest.fixture
def connection(new_postgresql_url):
    """A connection to an empty database, in a transaction that is rolled back."""
    with dao.connect(new_postgresql_url) as connection, connection.transaction(force_rollback=True):
        yield connection


MADE = {"1_a.sql": "CREATE TABLE a (id integer PRIMARY KEY, t text NOT NULL);", "1_a.rollback.sql": "DROP TABLE a;"}

#: Pairs whose rollback does not give rows back, and what is said of it, without the values.
LOSES = {
    "value": (
        ("UPDATE a SET t = 'x';", "SELECT 1;"),
        ["rows after the rollback are others", "  a: 3 rows, not all as expected"],
    ),
    "row": (
        (
            "CREATE TABLE b (id integer PRIMARY KEY); INSERT INTO b SELECT id FROM a;",
            "DELETE FROM a WHERE id IN (SELECT min(id) FROM b); DROP TABLE b;",
        ),
        ["rows after the rollback are others", "  a: 2 rows, expected 3"],
    ),
    "column": (
        ("ALTER TABLE a DROP COLUMN t;", "ALTER TABLE a ADD COLUMN t text NOT NULL DEFAULT '';"),
        ["apply loses data without saying so: a.t: the column is dropped with its values, of 3 rows"],
    ),
}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("scripts", "expected"), LOSES.values(), ids=LOSES)
def test_rollback_that_loses_rows_is_found_as_on_sqlite(server, tmp_path, engine, scripts, expected):
    """With the same words on both engines: the database was empty on PostgreSQL, and nothing was found."""
    up, down = scripts
    folder = write(tmp_path / "sql", MADE | {"2_b.sql": up, "2_b.rollback.sql": down})
    found = migrate.verify(folder, server=server.url if engine == "postgresql" else None)
    (one,) = (one for one in found if (one.id, one.stage) == ("2_b", "generated rows"))
    lines = [line for problem in one.problems for line in problem.split("\n")]
    assert [line for line in lines if line in expected] == expected


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_rollback_tells_what_it_takes_of_rows_written_since_as_on_sqlite(server, tmp_path, engine):
    """On PostgreSQL new tables stayed empty, and what the rollback took of the others' new columns was not told."""
    files = {
        "2_b.sql": "CREATE TABLE b (id integer PRIMARY KEY REFERENCES a (id)); ALTER TABLE a ADD COLUMN u text;",
        "2_b.rollback.sql": "DROP TABLE b; ALTER TABLE a DROP COLUMN u;",
    }
    folder = write(tmp_path / "sql", MADE | files)
    found = migrate.verify(folder, server=server.url if engine == "postgresql" else None)
    assert {one.id: sorted(one.losses) for one in found if one.stage == "generated rows"} == {
        "1_a": ["rollback: a: the table is dropped with 3 rows"],
        "2_b": [
            "rollback: a.u: the column is dropped with its values, of 6 rows",
            "rollback: b: the table is dropped with 3 rows",
        ],
    }


def test_rows_that_differ_are_shown_by_their_keys(verify):
    """The key of a row, and the values that changed; numbers without quotes."""
    made = {"1_a.sql": 'CREATE TABLE a ("The Id" integer PRIMARY KEY, n integer DEFAULT 7, t text, u text);'}
    found = verify(made | {"2_b.sql": "UPDATE a SET n = 8, t = 'it''s';", "2_b.rollback.sql": "SELECT 1;"}, rows=1)
    (problem,) = found["2_b"].problems
    _, table, old, new = problem.split("\n")
    assert table == "  a: 1 row, not all as expected"
    assert old.startswith("    - The Id = 1000000001, n = ")
    assert new.strip() == "+ The Id = 1000000001, n = 8, t = 'it''s'"


TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE "My Range" AS RANGE (subtype = float8);
    CREATE DOMAIN email AS text CHECK (VALUE ~ '^[^@]+@[^@]+$');
    CREATE DOMAIN percent AS integer NOT NULL CHECK (VALUE BETWEEN 90 AND 99);
    CREATE TABLE every (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        s smallint, i interval, p point, many integer[], m mood, moods mood[], e email, o percent, b boolean, by bytea,
        u uuid, j jsonb, k json, t time, d date, ts timestamp, tz timestamptz(3), n numeric(4, 2), f double precision,
        ip inet, c cidr, mac macaddr, r int4range, tr tstzrange, my "My Range", tv tsvector, bits bit(1), more varbit,
        v varchar(3), c2 char(2), money money, g integer GENERATED ALWAYS AS (s * 2) STORED, "Mixed ""Case" text
    );
"""


def test_columns_of_every_type_get_values(connection):
    """Domains, enums, arrays, ranges, and what is generated: the first row has a value in each."""
    connection.execute(TYPES)
    filled = fill(ServerStore(connection, reader.read(connection)))
    assert (filled.rows, filled.unfilled) == ({"every": 3}, {})
    row = connection.execute("SELECT * FROM every ORDER BY id LIMIT 1").fetchone()
    assert None not in row


CONSTRAINED = """
    CREATE TABLE parents (
        id serial PRIMARY KEY, code text NOT NULL UNIQUE CHECK (code ~ '^[A-Z]{2}-[0-9]+$'),
        status text NOT NULL CHECK (status IN ('new', 'done')), n integer NOT NULL CHECK (n BETWEEN 10 AND 12),
        a date, b date, CHECK (a < b)
    );
    CREATE TABLE children (
        id uuid PRIMARY KEY, parent integer NOT NULL REFERENCES parents, self uuid REFERENCES children,
        q text NOT NULL CHECK (q LIKE 'x%y')
    );
    CREATE TABLE hens (id integer PRIMARY KEY, egg integer NOT NULL);
    CREATE TABLE eggs (id integer PRIMARY KEY, hen integer NOT NULL REFERENCES hens DEFERRABLE INITIALLY DEFERRED);
    ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs DEFERRABLE;
    CREATE TABLE events (id integer, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE events_of_2030 PARTITION OF events FOR VALUES FROM ('2030-01-01') TO ('2030-02-01');
    CREATE TABLE apart (id integer PRIMARY KEY, span int4range NOT NULL, EXCLUDE USING gist (span WITH &&));
    CREATE FUNCTION only_special() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN IF NEW.kind <> 'special' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
    CREATE TABLE triggered (id integer PRIMARY KEY, kind text NOT NULL);
    CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION only_special();
    CREATE SCHEMA app; CREATE TABLE app."Users" (id integer PRIMARY KEY);
"""


def test_constraints_of_every_kind_are_kept(connection):
    """CHECKs and their patterns, circles, partitions, exclusions and triggers."""
    connection.execute(CONSTRAINED)
    filled = fill(ServerStore(connection, reader.read(connection)))
    assert filled.unfilled == {}
    names = ("parents", "children", "hens", "eggs", "events", "apart", "triggered", "app.Users")
    assert {name: number for name, number in filled.rows.items() if number} == dict.fromkeys(names, 3)
    for table in ("hens", "eggs"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (3,)


def test_tables_that_cannot_be_filled_say_why(connection):
    """With the words of the last refusal; those that refer to them say so."""
    connection.execute(
        "CREATE TABLE never (id integer PRIMARY KEY CHECK (id > 0 AND id < 0));"
        "CREATE TABLE child (n integer NOT NULL REFERENCES never);"
    )
    filled = fill(ServerStore(connection, reader.read(connection)))
    assert filled.rows == {}
    assert "the row breaks the constraint never_id_check" in filled.unfilled["never"]
    assert filled.unfilled["child"] == "a row has to refer to one of never, which has none to refer to"


def test_only_tables_that_scripts_can_touch_are_filled(connection):
    """By name, through views, functions and triggers, with parents and children; all, if SQL is put together."""
    connection.execute("""
        CREATE TABLE top (id integer PRIMARY KEY);
        CREATE TABLE seen (id integer PRIMARY KEY, top integer REFERENCES top);
        CREATE TABLE child (id integer REFERENCES seen);
        CREATE TABLE logged (id integer);
        CREATE TABLE other (id integer);
        CREATE VIEW shown AS SELECT id AS number FROM seen;
        CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO logged VALUES (1); RETURN NEW; END $$;
        CREATE TRIGGER t AFTER UPDATE ON seen FOR EACH ROW EXECUTE FUNCTION log();
    """)
    schema = reader.read(connection)
    assert mentioned(connection, ["SELECT number FROM shown;"], schema) == {"top", "seen", "child", "logged"}
    assert mentioned(connection, ["DELETE FROM other;"], schema) == {"other"}
    assert mentioned(connection, ["DO $$ BEGIN EXECUTE 'DELETE FROM ' || 'other'; END $$;"], schema) is None


def test_migration_outside_of_a_transaction_meets_rows(verify):
    """In a database of its own, which has what the earlier ones made."""
    files = MADE | {"2_b.sql": f"{ALONE}CREATE UNIQUE INDEX CONCURRENTLY i ON a ((t IS NULL));"}
    found = verify(files | {"2_b.rollback.sql": "DROP INDEX CONCURRENTLY i;"})
    (problem,) = found["2_b"].problems
    assert problem.startswith("apply fails: ")
    assert "could not create unique index" in problem
    assert "The rows that it met are generated." in problem


def test_rows_that_a_script_brings_are_not_in_the_way(verify):
    """A table with room for these alone gets no generated ones, and says so."""
    files = {
        "1_a.sql": "CREATE TABLE roles (id integer PRIMARY KEY CHECK (id IN (1, 2)), t text);",
        "1_a.rollback.sql": "DROP TABLE roles;",
        "2_b.sql": "INSERT INTO roles VALUES (1, 'x'), (2, 'y');",
        "2_b.rollback.sql": "DELETE FROM roles;",
    }
    one = verify(files)["2_b"]
    assert one.problems == ()
    assert one.unfilled["roles"].startswith("its constraints leave room for the rows that the script brings")


def test_script_that_fails_and_brings_rows_to_a_table_with_room_is_told(verify):
    """Its rows are held against the unique keys of the generated ones."""
    files = {"2_b.sql": "INSERT INTO a VALUES (1, '7'); SELECT 1 / (3 - count(*)) FROM a WHERE id > 1;"}
    (problem,) = verify(MADE | files)["2_b"].problems
    assert "division by zero" in problem
    files = {"2_b.sql": "INSERT INTO a VALUES (1000000001, 'x');", "2_b.rollback.sql": "DELETE FROM a WHERE t = 'x';"}
    one = verify(MADE | files)["2_b"]
    assert (one.problems, list(one.unfilled)) == ((), ["a"])


def test_rollback_that_refuses_rows_written_since_is_a_warning(verify):
    """As on SQLite: it may be meant."""
    files = {
        "2_b.sql": "ALTER TABLE a ALTER t DROP NOT NULL;",
        "2_b.rollback.sql": "ALTER TABLE a ALTER t SET NOT NULL;",
    }
    one = verify(MADE | files)["2_b"]
    assert one.problems == ()
    (warning,) = one.warnings
    assert warning.startswith("the rollback refuses rows that were written since: ")


def test_text_that_a_script_casts_is_filled_with_what_it_takes(verify):
    """Else the script would fail on rows that nobody has."""
    files = {
        "1_a.sql": "CREATE TABLE a (id integer PRIMARY KEY, j text NOT NULL, n text NOT NULL, d text NOT NULL);",
        "2_b.sql": "ALTER TABLE a ADD x jsonb, ADD y integer, ADD z date; UPDATE a SET x = j::jsonb, y = n::integer, "
        "z = a.d::date;",
        "2_b.rollback.sql": "ALTER TABLE a DROP x, DROP y, DROP z;",
    }
    assert verify(files)["2_b"].problems == ()


HARD = {
    "1_a.sql": "CREATE TABLE a (id integer PRIMARY KEY, t text NOT NULL); CREATE TABLE b (id integer PRIMARY KEY);",
    "1_a.rollback.sql": "DROP TABLE a, b;",
    "2_b.sql": "ALTER TABLE a ADD n integer; UPDATE a SET n = split_part(t, '/', 2)::integer;",
    "2_b.rollback.sql": "ALTER TABLE a DROP n;",
}


def test_fixtures_take_the_place_of_generated_rows(verify, tmp_path):
    """Where they fit; without them the script fails on rows that nobody has, and says how to give others."""
    (problem,) = verify(HARD)["2_b"].problems
    assert "`dao verify --fixtures FILE`" in problem
    rows = tmp_path / "rows.sql"
    rows.write_text("INSERT INTO a (id, t) VALUES (1, 'x/3');\nWITH x AS (SELECT 7) INSERT INTO b SELECT * FROM x;")
    assert verify(HARD, fixtures=rows)["2_b"].problems == ()


REFUSED = {
    "no INSERT": ("DELETE FROM a;", "rows.sql:1: this is no INSERT"),
    "never fits": (
        "INSERT INTO a (id, t) VALUES (1, 'x/1');\nINSERT INTO nowhere VALUES (1);",
        "rows.sql:2: no migration",
    ),
    "no row": (
        "INSERT INTO a (id, t) SELECT 1, 'x' WHERE false;",
        "rows.sql:1: no migration leaves a schema that takes",
    ),
    "left open": ("INSERT INTO a (id, t) VALUES (1, 'x);", "rows.sql:1: a string begins here and never ends"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED)
def test_fixtures_that_are_of_no_use_are_refused(verify, tmp_path, text, expected):
    """With the line, as on SQLite."""
    path = tmp_path / "rows.sql"
    path.write_text(text)
    with pytest.raises(MigrationFileError, match=expected):
        verify(MADE, fixtures=path)
