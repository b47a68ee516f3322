"""Begin the migrations of a PostgreSQL database with the schema that it has."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dao import migrate
from dao.errors import MigrationError
from tests.folders import ids, write

SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE one (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood NOT NULL DEFAULT 'good', note text);
CREATE TABLE two (id serial PRIMARY KEY, one bigint REFERENCES one ON DELETE CASCADE, CHECK (id > 0));
CREATE INDEX notes ON one (lower(note)) WHERE note IS NOT NULL;
CREATE VIEW seen AS SELECT one.id, two.id AS other FROM one JOIN two ON two.one = one.id;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'it''s; so'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON one FOR EACH ROW EXECUTE FUNCTION touched();
COMMENT ON TABLE one IS 'the first; of two';
INSERT INTO one (note) VALUES ('x');
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    return write(tmp_path / "sql", {})


@pytest.fixture
def url(new_postgresql_url) -> str:
    """The URL of a database that somebody has made without migrations."""
    with psycopg.connect(new_postgresql_url) as connection:
        connection.execute(SCHEMA)
    return new_postgresql_url


def test_baseline_writes_the_schema_and_notes_it_as_applied(url, server, folder):
    """The script makes the same schema in a new database; no row is touched, and nothing is drift."""
    done = migrate.baseline(url, folder)
    status = migrate.status(url, folder)
    assert (status.ids("applied"), status.is_current) == ([done.id], True)
    assert migrate.diff(url, folder) == []
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT note FROM one").fetchall() == [("x",)]
    other = server.create()
    try:
        assert ids(migrate.apply(other, folder)) == [done.id]
        assert migrate.status(other, folder).is_current
        with psycopg.connect(other) as connection:
            connection.execute("INSERT INTO one (note) VALUES ('x'); UPDATE one SET note = 'y'")
            assert connection.execute("SELECT note FROM one").fetchall() == [("it's; so",)]
    finally:
        server.drop(other)


def test_baseline_leaves_out_the_tables_of_other_tools(url, folder):
    """A ledger that nobody can take over stays where it is, with its sequence, and is told."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE django_migrations (id serial PRIMARY KEY, app text)")
    done = migrate.baseline(url, folder)
    assert [str(one) for one in done.left_out] == ["django_migrations (of Django)"]
    assert "django_migrations" not in done.paths[0].read_text()
    assert migrate.status(url, folder).is_current


def test_baseline_of_what_migrations_make_or_know_is_refused(url, folder):
    """A folder whose scripts make what is there, and a database that has a ledger, need none; no file is left."""
    write(folder, {"1.sql": "CREATE TABLE IF NOT EXISTS one (id integer);"})
    with pytest.raises(MigrationError, match=r"make what is there already \(one\)"):
        migrate.baseline(url, folder)
    assert [path.name for path in folder.iterdir()] == ["1.sql"]
    migrate.mark(url, ["1"], folder)
    with pytest.raises(MigrationError, match="has a ledger already, with 1, and a baseline is where one begins"):
        migrate.baseline(url, folder)
    with pytest.raises(MigrationError, match="has the migrations of this package"):
        migrate.baseline(url, migrate.default_folder("postgresql"))


def test_baseline_of_an_empty_database_is_refused(new_postgresql_url, folder):
    """There is nothing to write."""
    with pytest.raises(MigrationError, match="holds no table and no view: write the first migration with `dao new`"):
        migrate.baseline(new_postgresql_url, folder)
    assert list(folder.iterdir()) == []
