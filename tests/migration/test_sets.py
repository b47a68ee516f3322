"""Several sets of migrations in one database: each has its order, its checks and its status."""

from __future__ import annotations

import contextlib

import pytest

import dao
from dao import migrate
from dao.errors import LedgerMismatch, MigrationError, MigrationFileError, SchemaOutOfDate, SchemaTooNew
from dao.migrate.scripts.sets import default_name
from tests.folders import ids, write

APP = {
    "0001_notes.sql": "-- depends on: base/2025_things\nCREATE TABLE notes (id INTEGER PRIMARY KEY);",
    "0001_notes.rollback.sql": "DROP TABLE notes;",
    "0002_tags.sql": "CREATE TABLE tags (id INTEGER PRIMARY KEY);",
    "0002_tags.rollback.sql": "DROP TABLE tags;",
}
BASE = {
    "2024_first.sql": "CREATE TABLE firsts (id INTEGER PRIMARY KEY);",
    "2024_first.rollback.sql": "DROP TABLE firsts;",
    "2025_things.sql": "CREATE TABLE things (id INTEGER PRIMARY KEY);",
    "2025_things.rollback.sql": "DROP TABLE things;",
    "2026_more.sql": "CREATE TABLE more (id INTEGER PRIMARY KEY);",
    "2026_more.rollback.sql": "DROP TABLE more;",
}
#: As a ledger of 0.1 has its tables.
OLD = ("ALTER TABLE _dao_migration DROP COLUMN set_name", "ALTER TABLE _dao_history DROP COLUMN set_name")


@pytest.fixture
def app(database, tmp_path) -> migrate.MigrationSet:
    """Two migrations of an application, of which the first depends on another set's."""
    return migrate.load(write(tmp_path / "app_sql", APP), name="app", engine=database.engine)


@pytest.fixture
def base(database, tmp_path) -> migrate.MigrationSet:
    """Three migrations on which the application builds."""
    return migrate.load(write(tmp_path / "base", BASE), engine=database.engine)


def current(database, migrations) -> None:
    """Refuse a schema that is not current, as a program does that starts."""
    with contextlib.closing(dao.connect(database.url)) as connection:
        migrate.assert_current(connection, migrations)


def told(status: migrate.Status) -> list[tuple[str | None, str, str]]:
    """Return the set, id and state of each migration of a status."""
    return [(one.set, one.id, one.state) for one in status.migrations]


# ---------------------------------------------------------------- each on its own


def test_sets_are_applied_in_one_order_and_noted_apart(database, app, base):
    """Set by set, each after what it depends on; whoever names one of them finds its own and nothing missing.

    A second folder on the same database was refused: all of the first were missing from it.
    """
    done = migrate.apply(database.url, [app, base])
    assert ids(done) == ["2024_first", "2025_things", "0001_notes", "0002_tags", "2026_more"]
    assert database.tables() == ["firsts", "more", "notes", "tags", "things"]
    for its, others in ((app, base), (base, app)):
        current(database, its)
        found = migrate.status(database.url, its)
        assert told(found) == [(its.name, one.id, "applied") for one in its]
        assert [(one.set, one.id) for one in found.others] == [(others.name, one.id) for one in others]
        assert found.is_current
    both = migrate.status(database.url, [base, app])
    assert ([one.id for one in both.migrations], both.others) == (ids(done), ())
    assert {(one.set, one.id) for one in migrate.history(database.url)} == {
        (its.name, one.id) for its in (app, base) for one in its
    }


def test_newer_migration_of_one_set_is_not_out_of_order_for_the_other(database, app, base):
    """The ids of two sets are not compared: 0002 comes after 2026, and an older one of the same set is refused."""
    migrate.apply(database.url, base)
    assert ids(migrate.apply(database.url, app)) == ["0001_notes", "0002_tags"]
    migrate.rollback(database.url, base)
    assert ids(migrate.apply(database.url, base)) == ["2026_more"]
    migrate.unmark(database.url, ["2024_first"], base)
    with pytest.raises(LedgerMismatch) as raised:
        migrate.apply(database.url, [base, app])
    assert raised.value.out_of_order == ("2024_first",)
    current(database, app)


def test_what_one_set_lacks_is_not_asked_of_the_other(database, app, base):
    """Pending and unknown migrations, and drift, are those of the set that a program is written for."""
    migrate.apply(database.url, [base[:2], app])
    with pytest.raises(SchemaOutOfDate) as lacking:
        current(database, base)
    assert lacking.value.pending == ("2026_more",)
    with pytest.raises(SchemaTooNew) as unknown:
        current(database, app[:1])
    assert unknown.value.unknown == ("0002_tags",)
    current(database, base[:2])
    for change, theirs, others in (
        ("ALTER TABLE tags ADD COLUMN x INTEGER", app, base[:2]),
        ("ALTER TABLE firsts ADD COLUMN x INTEGER", base[:2], app),
        ("CREATE INDEX by_x ON things (id)", base[:2], app[:0]),
    ):
        database.fetch(change)
        if others:
            current(database, others)
        with pytest.raises(LedgerMismatch, match="is unexpected"):
            current(database, theirs)
        with pytest.raises(LedgerMismatch, match="is unexpected"):
            current(database, [base[:2], app])
        table = change.split()[2] if change.startswith("ALTER") else None
        database.fetch(f"ALTER TABLE {table} DROP COLUMN x" if table else "DROP INDEX by_x")


def test_slice_of_a_set_is_of_it(app):
    """What is not in it is missing from its set, and not of another."""
    assert (app[:0].name, app[:1].name, len(app[1:]), app[-1].id) == ("app", "app", 1, "0002_tags")
    assert isinstance(app[:1], migrate.MigrationSet)


# ---------------------------------------------------------------- what depends on another set


def test_migration_waits_for_the_set_that_it_depends_on(database, app, base):
    """It is refused unless that is named, or applied; which is said, and nothing is changed."""
    with pytest.raises(LedgerMismatch, match=r"depends on base/2025_things, .* the set base is not named") as raised:
        migrate.apply(database.url, app)
    assert (raised.value.lacking, database.tables()) == (("0001_notes",), [])
    migrate.apply(database.url, base, to="2025_things")
    assert ids(migrate.plan(database.url, app)) == ["0001_notes", "0002_tags"]
    assert len(migrate.apply(database.url, app)) == len(app)


def test_rollback_of_what_another_set_depends_on_is_refused(database, app, base):
    """The ledger has the texts of all, so that it is known whether the other set is named or not."""
    migrate.apply(database.url, [base, app])
    before = database.content()
    for migrations, options in ((base, {"steps": 2}), ([base, app], {"set": "base", "steps": None})):
        with pytest.raises(LedgerMismatch, match="2025_things: app/0001_notes depends on it") as raised:
            migrate.rollback(database.url, migrations, **options)
        assert (raised.value.needed, database.content()) == (("2025_things",), before)
    assert ids(migrate.rollback(database.url, base)) == ["2026_more"]
    assert ids(migrate.rollback(database.url, [base, app], steps=None))[:2] == ["0002_tags", "0001_notes"]
    assert database.tables() == []


def test_rollback_and_redo_go_back_in_one_set_if_it_is_named(database, app, base):
    """`set` picks the latest of one set, wherever the others stand; another name is refused."""
    migrate.apply(database.url, [app, base])
    assert ids(migrate.plan(database.url, [app, base], direction="rollback", set="app")) == ["0002_tags"]
    assert ids(migrate.redo(database.url, [app, base], set="app")) == ["0002_tags"] * 2
    assert ids(migrate.rollback(database.url, [app, base], set="base")) == ["2026_more"]
    assert ids(migrate.rollback(database.url, [app, base], set="app", to="app/0001")) == ["0002_tags"]
    with pytest.raises(MigrationError, match=r"'web' is named here: give one of those that are \(app, base\)"):
        migrate.rollback(database.url, [app, base], set="web")


# ---------------------------------------------------------------- names and ids


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"1_a.sql": "SELECT 1;"}, {"1_a.sql": "SELECT 2;"}, "the set two has the id 1_a, and so has the set one"),
        ({"1_a.sql": "-- depends on: two/2\n"}, {"1_b.sql": ""}, "'two/2', which the set two does not have"),
        ({"1_a.sql": "-- depends: two/1_b\n"}, {"1_b.sql": "-- depends: one/1_a\n"}, "circle: one/1_a needs two/1_b; "),
        (
            {"1_a.sql": "", "2_a.sql": "-- depends: two/2_b\n", "3_a.sql": ""},
            {"1_b.sql": "-- depends: one/3_a\n", "2_b.sql": ""},
            "one/2_a needs two/2_b, which comes after two/1_b; two/1_b needs one/3_a, which comes after one/2_a",
        ),
    ],
    ids=["one id", "no such id", "circle", "circle of orders"],
)
def test_sets_that_do_not_go_together_are_refused(tmp_path, first, second, message):
    """Ids are unique in a database, and each depends on what is there before it, in the order of its set."""
    sets = [migrate.load(write(tmp_path / name, files)) for name, files in (("one", first), ("two", second))]
    with pytest.raises(MigrationFileError, match=message):
        migrate.plan("sqlite:///nowhere.db", sets)


def test_two_sets_of_one_name_are_refused(tmp_path):
    """Which row is whose could not be told."""
    sets = [migrate.load(write(tmp_path / name, {f"{name}.sql": "SELECT 1;"}), name="app") for name in ("a", "b")]
    with pytest.raises(MigrationError, match="two sets of migrations have the name app"):
        migrate.plan("sqlite:///nowhere.db", sets)


def test_default_name_is_that_of_the_folder(tmp_path):
    """Or of the one around an engine's; this package's own are `orchestrator`, wherever they are installed."""
    assert (migrate.load().name, migrate.load(engine="postgresql").name) == ("orchestrator", "orchestrator")
    assert migrate.load(migrate.default_folder()).name == "orchestrator"
    found = {path: default_name(tmp_path / path) for path in ("sql", "db/sqlite", "db/postgresql", "My App!", "___")}
    assert found == {"sql": "sql", "db/sqlite": "db", "db/postgresql": "db", "My App!": "my_app", "___": "migrations"}
    with pytest.raises(ValueError, match="'My App' is no name of a set"):
        migrate.load(name="My App")


def test_folder_that_was_moved_is_the_same_set(database, base, tmp_path):
    """A name that nobody has given is a guess, and what the ledger has noted goes before it; a given one is not."""
    migrate.apply(database.url, base)
    moved = write(tmp_path / "other", BASE | {"2027_last.sql": "CREATE TABLE lasts (id INTEGER PRIMARY KEY);"})
    assert ids(migrate.apply(database.url, moved)) == ["2027_last"]
    assert {one.set for one in migrate.status(database.url, moved).migrations} == {"base"}
    named = migrate.load(moved, name="web", engine=database.engine)
    with pytest.raises(LedgerMismatch, match="as one of the set base, and is in the set web here") as raised:
        migrate.apply(database.url, named)
    assert len(raised.value.changed) == len(named)
    with pytest.raises(LedgerMismatch, match="as one of the set base"):
        current(database, named)
    migrate.accept(database.url, ids(named), named)
    assert {one.set for one in migrate.status(database.url, named).migrations} == {"web"}


# ---------------------------------------------------------------- ledgers of before


@pytest.mark.parametrize("named", ["one", "several"])
def test_ledger_of_before_there_were_sets_is_taken_over(database, app, base, named):
    """A row is of the set that has its file, or of the one that the others are of; the first change notes it."""
    migrate.apply(database.url, base)
    for statement in OLD:
        database.fetch(statement)
    assert told(migrate.status(database.url, base)) == [("base", one.id, "applied") for one in base]
    assert all(one.set is None for one in migrate.history(database.url))
    migrations = base[:2] if named == "one" else [app, base[:2]]
    with pytest.raises(SchemaTooNew) as unknown:
        current(database, migrations)
    assert unknown.value.unknown == ("2026_more",)
    migrate.rollback(database.url, migrations if named == "one" else [app, base])
    rows = database.fetch("SELECT migration_id, set_name FROM _dao_migration ORDER BY migration_id")
    assert rows == [("2024_first", "base"), ("2025_things", "base")]
    assert [one.set for one in migrate.history(database.url)] == [None, None, None, "base"]
    migrate.apply(database.url, app)
    current(database, base[:2])


def test_row_of_before_of_which_nobody_knows_the_set_is_missing(database, app, base):
    """Where the files of two sets are among the old rows, one without a file may be of either: it is refused."""
    migrate.apply(database.url, [base, app])
    for statement in OLD:
        database.fetch(statement)
    with pytest.raises(LedgerMismatch, match="2026_more: it is applied, and its file has gone") as raised:
        migrate.apply(database.url, [base[:2], app])
    assert raised.value.missing == ("2026_more",)
    assert migrate.apply(database.url, [base, app]) == []
