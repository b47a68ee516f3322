"""The schema that migrations make on PostgreSQL: replayed in a database of their own, and written as one text."""

from __future__ import annotations

import time
import uuid

import pytest

import dao
from dao import migrate
from dao.errors import InvalidURL, MigrationError
from dao.migrate.schema import model
from dao.migrate.schema.postgresql import reader, replay, temporary
from dao.testing.server import database_of
from tests import engines
from tests.folders import ALONE, write

SCRIPTS = {
    "0001_a.sql": "CREATE SCHEMA app; CREATE TABLE app.a (id integer PRIMARY KEY);",
    "0002_b.sql": "CREATE TABLE b (a integer REFERENCES app.a, t text CHECK (btrim(t, E'\\u00a0\\t''') <> ''));",
    "0003_c.sql": f"{ALONE}CREATE INDEX CONCURRENTLY b_a ON b (a);",
}


@pytest.fixture
def folder(tmp_path):
    """A folder of three migrations, one of which does not run in a transaction."""
    return write(tmp_path / "sql", SCRIPTS)


@pytest.fixture
def scratch(monkeypatch):
    """How the name of a scratch database of this test ends: others have some at the same time."""
    end = uuid.uuid4().hex
    monkeypatch.setattr(temporary.secrets, "token_hex", lambda _: end)
    return end


@pytest.fixture
def postgres(server):
    """A connection to the server, to see which databases there are."""
    with dao.connect(server.url) as connection:
        yield connection


def left_over(connection, end):
    """Return the names of scratch databases that end so."""
    return [name for (name,) in connection.execute("SELECT datname FROM pg_database") if name.endswith(end)]


def test_own_schema_file_makes_the_schema_that_the_migrations_make(server, postgresql_url):
    """What is committed beside the migrations, run in an empty database, is what they make."""
    url = server.create()
    file = migrate.default_folder("postgresql").with_name("postgresql.schema.sql")
    with dao.connect(url) as made, dao.connect(postgresql_url) as migrated:
        made.execute(file.read_text())
        assert model.differences(reader.read(migrated), reader.read(made)) == []
    server.drop(url)


def test_dump_replays_in_a_database_that_goes(server, folder, postgres, scratch):
    """The text makes the same again; nothing is left, and no database but the new one was touched."""
    before = reader.read(postgres)
    text = migrate.dump(folder, server=server.url)
    assert text.startswith("-- The schema that the migrations make, up to and with 0003_c.\n")
    assert "CREATE INDEX b_a ON b USING btree (a);" in text
    assert left_over(postgres, scratch) == []
    assert reader.read(postgres) == before
    url = server.create()
    with dao.connect(url) as connection:
        connection.execute(text)
    assert text == migrate.dump(write(folder.with_name("again"), {"0003_c.sql": text}), server=server.url)
    server.drop(url)


def test_dump_writes_out_what_nobody_sees(server, folder):
    """A no-break space or a tab in a literal would be a blank to whoever reads the file."""
    text = migrate.dump(folder, server=server.url)
    assert r"btrim(t, E'\u00A0\u0009'''::text)" in text
    assert text.replace("\n", "").isprintable()


def test_dump_of_a_migration_that_fails_names_it_and_leaves_nothing(server, folder, postgres, scratch):
    """The scratch database goes as well."""
    write(folder, {"0004_d.sql": "CREATE TABLE b (id integer);"})
    with pytest.raises(MigrationError, match=r"0004_d: replaying this migration in an empty database fails .*exists"):
        migrate.dump(folder, server=server.url)
    assert left_over(postgres, scratch) == []


def test_dump_by_a_role_that_may_not_create_a_database_says_what_it_needs(server, folder, postgres):
    """It is told what to do, and which role."""
    with engines.role(postgres) as role:
        url = server.url.replace("//postgres@", f"//{role}@")
        with pytest.raises(MigrationError, match=r"may not create one: ALTER ROLE .* CREATEDB, or name another server"):
            migrate.dump(folder, server=url)


def test_dump_needs_a_server(folder):
    """A file of SQLite's is none."""
    with pytest.raises(InvalidURL, match=r"x\.db is a file, and this needs a PostgreSQL server"):
        migrate.dump(folder, server="sqlite:///x.db")


def test_scratch_database_that_was_left_over_is_dropped(server, folder, postgres, scratch):
    """A process that was killed leaves one; it goes after an hour, unless somebody is connected to it."""
    now = int(time.time())
    ages = ((7200, "old"), (7200, "used"), (60, "new"))
    names = [*(f"dao_scratch_{now - age}_{kind}_{scratch}" for age, kind in ages), f"dao_scratch_mine_{scratch}"]
    for name in names:
        server.create(name=name)
    try:
        with dao.connect(database_of(server.url, names[1])):
            migrate.dump(folder, server=server.url)
        assert sorted(left_over(postgres, scratch)) == sorted(names[1:])
    finally:
        for name in left_over(postgres, scratch):
            server.drop(database_of(server.url, name))


def test_replay_leaves_each_script_a_session_of_its_own(server, tmp_path):
    """As in a run: what a script sets is not there for the next."""
    folder = write(
        tmp_path / "sql",
        {
            "1_a.sql": "CREATE SCHEMA app; SET search_path = app; CREATE TABLE a (id integer);",
            "2_b.sql": "CREATE TABLE b (id integer);",
        },
    )
    files = migrate.load(folder, engine="postgresql")
    with replay.replayed(dao.url.parse(server.url), files) as connection:
        names = {name for type, name in reader.read(connection).objects if type == "table"}
    assert names == {"app.a", "b"}
