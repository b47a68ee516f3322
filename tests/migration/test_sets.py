"""Several sets of migrations in one database: each has its order, its checks and its status."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import dao
from dao import migrate
from dao.errors import (
    LedgerMismatch,
    MigrationError,
    MigrationFailed,
    MigrationFileError,
    SchemaOutOfDate,
    SchemaTooNew,
)
from dao.migrate.scripts.sets import default_name
from dao.settings import Folder
from tests.concurrency import PATIENCE
from tests.folders import ids, query, write

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
    return migrate.load(write(tmp_path / "app_sql", APP), name="app")


@pytest.fixture
def base(database, tmp_path) -> migrate.MigrationSet:
    """Three migrations on which the application builds."""
    return migrate.load(write(tmp_path / "base", BASE))


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
    unread = [Folder(app.folder, "app"), Folder(base.folder)]  # for the engine that it meets
    assert ids(migrate.plan(database.url, unread)) == ids(migrate.plan(database.url, [app, base]))
    with pytest.raises(TypeError, match="got list of MigrationSet, str"):
        migrate.plan(database.url, [app, "base"])
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
    assert ids(migrate.apply(database.url, [app, base])) == ["0001_notes", "0002_tags"]
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


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_set_is_for_the_engine_that_it_meets(database, tmp_path, engine):
    """`load(folder, name=)` was for SQLite: on a server each set wanted `engine=`, and this package's was refused."""
    script = {"sqlite": "SELECT 1 AS `it's`;", "postgresql": "DO $$ BEGIN PERFORM $a$'$a$; END $$;"}[engine]
    named = migrate.load(write(tmp_path / "x", {"1_a.sql": script}), name="x")
    own = migrate.load()[:2]
    assert (named.engine, own.engine, own.folder) == (None, None, None)
    if database.engine == engine:
        assert ids(migrate.apply(database.url, [own, named])) == [*ids(own), "1_a"]
        current(database, own)
        current(database, [named, own])
    else:
        with pytest.raises(MigrationFileError, match=r"1_a\.sql:1: "):
            migrate.apply(database.url, [own, named])
    with pytest.raises(MigrationFileError, match=r"1_a\.sql:1: "):
        migrate.load(named.folder, engine="postgresql" if engine == "sqlite" else "sqlite")


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


def test_one_of_several_sets_is_applied_if_it_is_named(database, app, base):
    """`set` picks it as in a rollback, whatever files of others say; what it depends on has to be applied before."""
    sets = [base, app]
    for verb in (migrate.apply, migrate.plan, migrate.rehearse):
        with pytest.raises(
            LedgerMismatch, match=r"0001_notes: it depends on base/2025_things, .* not of this set"
        ) as raised:
            verb(database.url, sets, set="app")
        assert (raised.value.lacking, database.tables()) == (("0001_notes",), [])
    with pytest.raises(
        MigrationError, match="'base/2025' is in the folder of app; those that are: app/0001_notes, app/0002_t"
    ):
        migrate.plan(database.url, sets, set="app", to="base/2025")
    assert ids(migrate.apply(database.url, sets, set="base", to="base/2025")) == ["2024_first", "2025_things"]
    write(base.folder, {"2024_first.sql": "CREATE TABLE edited (id INTEGER);", "2024_newer.sql": "SELECT 1;"})
    sets = [migrate.load(base.folder), app]
    assert ids(migrate.plan(database.url, sets, set="app", steps=1)) == ["0001_notes"]
    assert ids(migrate.rehearse(database.url, sets, set="app").migrations) == ids(app)
    assert ids(migrate.apply(database.url, sets, set="app")) == ids(app)
    with pytest.raises(MigrationError, match=r"'web' is named here: give one of those that are \(base, app\)"):
        migrate.apply(database.url, sets, set="web")


def test_one_set_is_not_applied_past_an_id_that_the_ledger_has_in_another(database, app, base, tmp_path):
    """With `set` its own first migration counted as applied, since one of another set has the id."""
    migrate.apply(database.url, [base[:2], app[:1]])
    files = {"0001_notes.sql": "CREATE TABLE pages (id INTEGER);", "0002_more.sql": "ALTER TABLE pages ADD n INTEGER;"}
    web = migrate.load(write(tmp_path / "web", files), name="web")
    for verb in (migrate.plan, migrate.apply, migrate.rehearse):
        with pytest.raises(LedgerMismatch, match="as one of the set app, and is in the set web here"):
            verb(database.url, [base, web], set="web")


def test_one_set_does_not_apply_anew_what_came_from_another(database, base, tmp_path):
    """A file that was moved to it, and got another name there, was run once more with `set`."""
    migrate.apply(database.url, base[:2])
    web = write(tmp_path / "web", {})
    for end in (".sql", ".rollback.sql"):
        (base.folder / f"2025_things{end}").rename(web / f"0001_things{end}")
    with pytest.raises(LedgerMismatch, match="2025_things: it is applied, and its file is named web/0001_things now"):
        migrate.apply(database.url, [migrate.load(base.folder)[:1], migrate.load(web)], set="web")


def test_what_depends_on_an_unfinished_migration_of_another_set_is_refused(database, base, app):
    """It is half undone, and counted as applied where its set is not named, or `set` or a reset leaves it out."""
    text = "-- transactional: false\nCREATE TABLE things (id INTEGER PRIMARY KEY);"
    write(base.folder, {"2025_things.sql": text, "2025_things.rollback.sql": "DROP TABLE things; SELECT nothing;"})
    sets = [migrate.load(base.folder), app]
    migrate.apply(database.url, sets, set="base", to="2025")
    with pytest.raises(MigrationFailed):
        migrate.rollback(database.url, sets, set="base")
    refused = r"0001_notes: .* resolve base/2025_things` says how it ended"
    for given, set in ((sets, "app"), (app, None)):
        with pytest.raises(LedgerMismatch, match=refused):
            migrate.apply(database.url, given, set=set)
    with pytest.raises(LedgerMismatch, match=refused):
        migrate.reset(database.url, app)


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


def test_files_of_other_sets_are_no_obstacle_to_a_rollback_of_one(database, app, base):
    """With `set`, an edited, missing or new file of another refused it, which that set named alone did not."""
    migrate.apply(database.url, [base, app])
    write(base.folder, {"2024_first.sql": "CREATE TABLE firsts (id INTEGER PRIMARY KEY, x INTEGER);", "2025_a.sql": ""})
    (base.folder / "2026_more.sql").unlink()
    (base.folder / "2026_more.rollback.sql").unlink()
    sets = [migrate.load(base.folder), app]
    with pytest.raises(LedgerMismatch, match="base/2024_first: its files have changed"):
        migrate.rollback(database.url, sets)
    assert ids(migrate.redo(database.url, sets, set="app")) == ["0002_tags"] * 2
    assert ids(migrate.plan(database.url, sets, direction="rollback", set="app")) == ["0002_tags"]
    assert ids(migrate.rollback(database.url, sets, set="app")) == ["0002_tags"]
    with pytest.raises(MigrationError, match="no migration 'base/2025' is among what is applied of app; "):
        migrate.rollback(database.url, sets, set="app", to="base/2025")


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
    with pytest.raises(dao.InvalidValue, match="'My App' is no name of a set"):
        migrate.load(name="My App")
    with pytest.raises(dao.InvalidValue, match="'mysql' is no engine: give one of sqlite, postgresql"):
        migrate.load(tmp_path, engine="mysql")


def test_folder_that_was_moved_is_the_same_set(database, base, tmp_path):
    """A name that nobody has given is a guess, and what the ledger has noted goes before it; a given one is not."""
    migrate.apply(database.url, base)
    moved = write(tmp_path / "other", BASE | {"2027_last.sql": "CREATE TABLE lasts (id INTEGER PRIMARY KEY);"})
    on_it = write(tmp_path / "app_sql", APP | {"0003_end.sql": "-- depends on: base/2027_last\n"})
    found = [migrate.load(folder) for folder in (moved, on_it)]
    assert ids(migrate.plan(database.url, found)) == ["2027_last", *(one.id for one in found[1])]
    assert ids(migrate.apply(database.url, moved)) == ["2027_last"]
    assert {one.set for one in migrate.status(database.url, moved).migrations} == {"base"}
    named = migrate.load(moved, name="web")
    with pytest.raises(LedgerMismatch, match="as one of the set base, and is in the set web here") as raised:
        migrate.apply(database.url, named)
    assert "is this the folder that is meant" not in str(raised.value)  # it is: only its name is another
    assert len(raised.value.changed) == len(named)
    with pytest.raises(LedgerMismatch, match="as one of the set base"):
        current(database, named)
    migrate.accept(database.url, ids(named), named)
    assert {one.set for one in migrate.status(database.url, named).migrations} == {"web"}


def test_redo_under_a_wrong_name_is_refused(database, app, base):
    """It wrote the row anew as one of that set, and left the others: nobody could name the set any more."""
    migrate.apply(database.url, [base, app])
    wrong = migrate.load(app.folder, name="wrong")
    for migrations in (wrong, [base, wrong]):
        with pytest.raises(LedgerMismatch, match="as one of the set app, and is in the set wrong here"):
            migrate.redo(database.url, migrations)
    moved = [app, migrate.load(write(base.folder.parent / "moved", BASE))]
    assert ids(migrate.redo(database.url, moved, set="moved")) == ["2026_more"] * 2
    assert migrate.apply(database.url, [base, app]) == []


def test_accept_of_what_is_of_a_set_that_is_not_named_says_so(database, app, base):
    """It said that the file had gone, and that `dao unmark` forgets it."""
    migrate.apply(database.url, [base, app])
    with pytest.raises(LedgerMismatch, match="2026_more: it is of the set base, which is not named here"):
        migrate.accept(database.url, ["base/2026_more"], app)


def test_mark_puts_a_migration_at_its_place_in_its_set(database, app, base):
    """Before all of the sets that are named behind it, it stood before its own, too, and a rollback came to it last."""
    migrate.apply(database.url, base, to="2025_things")
    migrate.apply(database.url, [base[:2], app])
    migrate.unmark(database.url, ["2025_things"], base)
    migrate.mark(database.url, ["2025_things", "2026_more"], [base, app])
    found = migrate.status(database.url, [base, app])
    assert ids(found.migrations) == ["2024_first", "2025_things", "0001_notes", "0002_tags", "2026_more"]
    migrate.unmark(database.url, ["2024_first", "2025_things"], base)
    migrate.mark(database.url, ["2024_first"], [base, app])
    assert ids(migrate.status(database.url, base).migrations)[:2] == ["2024_first", "2026_more"]


# ---------------------------------------------------------------- SET/ID


#: Each verb that takes an id, and what it is called with.
TAKING = {
    "apply": lambda url, id, sets: migrate.apply(url, sets, to=id),
    "plan": lambda url, id, sets: migrate.plan(url, sets, to=id),
    "rehearse": lambda url, id, sets: migrate.rehearse(url, sets, to=id),
    "rollback": lambda url, id, sets: migrate.rollback(url, sets, to=id),
    "mark": lambda url, id, sets: migrate.mark(url, [id], sets),
    "unmark": lambda url, id, sets: migrate.unmark(url, [id], sets),
    "accept": lambda url, id, sets: migrate.accept(url, [id], sets),
    "lint": lambda url, id, sets: migrate.lint(sets, since=id, engine="sqlite" if "sqlite" in url else "postgresql"),
}


@pytest.mark.parametrize("verb", TAKING)
def test_id_behind_a_set_that_does_not_have_it_is_refused(database, app, base, verb):
    """The name of a set before an id was passed over: `dao unmark wrong/ID` unmarked it, of whichever set it was."""
    migrate.apply(database.url, [base[:2], app])
    before = database.content()
    for given in ("wrong/0001_notes", "base/0001", "wrong/0001"):
        with pytest.raises(
            MigrationError, match=r"'0001.*' of the set '(wrong|base)' is .*; those that are: app/0001_notes\. "
        ):
            TAKING[verb](database.url, given, [base, app])
    with pytest.raises(MigrationError, match=r"no migration 'app/2099' is .*; those that are: base/2024_first, base/"):
        TAKING[verb](database.url, "app/2099", [base, app])
    for given in ("", "/", "app/", "/0001", "//0001_notes"):
        # of `$SET/0001` with no SET the set was passed over, too, and the migration was run
        with pytest.raises(MigrationError, match=f"^'{given}' is no id of a migration: give .*dao status"):
            TAKING[verb](database.url, given, [base, app])
    assert database.content() == before
    TAKING[verb](database.url, "app/0001_notes", [base, app])


def test_id_that_is_applied_in_another_set_is_refused_behind_this_one(database, app, base, tmp_path):
    """`dao unmark web/ID` forgot what app had applied, for web had a file of that id; `dao mark` had nothing to do."""
    migrate.apply(database.url, [base[:2], app[:1]])
    web = migrate.load(write(tmp_path / "web", {"0001_notes.sql": "CREATE TABLE pages (id INTEGER);"}), name="web")
    before = database.content()
    theirs = "^no migration '0001' of the set 'web' is applied; those that are: app/0001_notes. Give"
    ours = "app/0001_notes: it is applied as one of the set app, and is in the set web here"
    for verb, given, message in (
        *((verb, "web/0001", theirs) for verb in ("unmark", "rollback", "accept")),
        *(("mark", given, ours) for given in ("web/0001", "0001_notes")),
    ):
        with pytest.raises(MigrationError, match=message):
            TAKING[verb](database.url, given, web)
    assert database.content() == before
    assert migrate.unmark(database.url, ["app/0001"], web) == ["0001_notes"]


def test_set_before_the_beginning_of_an_id_tells_it_apart(database, app, tmp_path):
    """The beginning may be that of ids of several sets, or a whole id of another one."""
    web = migrate.load(write(tmp_path / "web", {"0001.sql": "SELECT 1;", "0002_pages.sql": "SELECT 1;"}))
    sets = [app, web]
    with pytest.raises(MigrationError, match="'0002' may be any of app/0002_tags, web/0002_pages: give more of the id"):
        migrate.plan(database.url, sets, to="0002")
    migrate.apply(database.url, web, steps=1)
    assert migrate.mark(database.url, ["app/0001", "web/0002"], sets) == ["0001_notes", "0002_pages"]
    assert migrate.unmark(database.url, ["web/0001", "app/0001"], sets) == ["0001", "0001_notes"]


def test_set_before_an_id_may_be_the_name_of_its_folder(database, base):
    """A folder that was moved is the set by which the ledger knows it, and people write either."""
    migrate.apply(database.url, base)
    moved = write(base.folder.parent / "moved", BASE)
    for name in ("base", "moved"):
        assert migrate.unmark(database.url, [f"{name}/2026"], moved) == ["2026_more"]
        assert migrate.mark(database.url, [f"{name}/2026"], moved) == ["2026_more"]
    with pytest.raises(MigrationError, match="those that are: base/2026_more"):
        migrate.unmark(database.url, ["web/2026"], moved)


def test_renamed_file_is_accepted_behind_its_set(database, base):
    """The old id and the new one both begin with what was given; behind a set that was ambiguous."""
    migrate.apply(database.url, base)
    (base.folder / "2026_more.sql").rename(base.folder / "2026_more_of.sql")
    (base.folder / "2026_more.rollback.sql").rename(base.folder / "2026_more_of.rollback.sql")
    assert migrate.accept(database.url, ["base/2026"], base.folder) == ["2026_more_of"]


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
    with pytest.raises(LedgerMismatch, match=r"2026_more: .* its file has gone\. .* name that, too") as raised:
        migrate.apply(database.url, [base[:2], app])
    assert raised.value.missing == ("2026_more",)
    assert migrate.apply(database.url, [base, app]) == []


def test_row_of_before_is_not_of_a_set_that_has_none_of_the_others(database, app, base):
    """`dao mark` in a new set that was named alone noted all rows as of that."""
    migrate.apply(database.url, base)
    for statement in OLD:
        database.fetch(statement)
    with pytest.raises(LedgerMismatch, match=r"2026_more: .* Which set it is of nobody has noted: .* name that, too"):
        migrate.apply(database.url, app)
    migrate.mark(database.url, ["0002_tags"], app)
    assert migrate.apply(database.url, [base, app[1:]]) == []
    rows = {*database.fetch("SELECT set_name, count(*) FROM _dao_migration GROUP BY set_name")}
    assert (rows, migrate.unmark(database.url, ["0002_tags"], [base, app])) == ({(None, 3), ("app", 1)}, ["0002_tags"])
    assert {one.set for one in migrate.status(database.url, app).others} == {"base"}


# ---------------------------------------------------------------- whose table is whose


@pytest.mark.parametrize("which", ["app", "base", "both"])
def test_reset_drops_what_the_named_sets_made(database, app, base, which):
    """Tables, rows and ledger of the other set stay; a reset of one took all of them along, and said nothing."""
    migrate.apply(database.url, [base, app])
    for table in ("things", "notes"):
        database.fetch(f"INSERT INTO {table} VALUES (1)")
    named = {"app": [app], "base": [base], "both": [base, app]}[which]
    assert len(migrate.reset(database.url, named)) == sum(map(len, named))
    kept = {"app": ["things"], "base": ["notes"], "both": []}[which]
    assert [table for table in ("things", "notes") if database.fetch(f"SELECT * FROM {table}")] == kept
    for its in (app, base):
        current(database, its)


def test_reset_refuses_to_take_what_another_set_made(database, base, tmp_path):
    """An index of theirs goes with our table; and a table that no set made is nobody's to drop, as ever."""
    theirs = migrate.load(write(tmp_path / "web", {"1_index.sql": "CREATE INDEX by_id ON things (id);"}))
    migrate.apply(database.url, [base, theirs])
    before = database.content()
    with pytest.raises(
        MigrationError, match=r"the index by_id was made by a set .* would go with things: name that set"
    ):
        migrate.reset(database.url, base)
    assert database.content() == before
    assert ids(migrate.reset(database.url, [base, theirs])) == ids([*base, *theirs])
    database.fetch("CREATE TABLE strange (id INTEGER)")
    with pytest.raises(MigrationError, match="table strange"):
        migrate.reset(database.url, [base, theirs])


def test_reset_refuses_an_id_that_the_ledger_has_in_another_set(database, app, base, tmp_path):
    """On SQLite it dropped their table, rows and all; on a server it forgot that theirs was applied."""
    migrate.apply(database.url, [base, app])
    database.fetch("INSERT INTO notes VALUES (1)")
    before = database.content()
    web = migrate.load(write(tmp_path / "web", {"0001_notes.sql": "CREATE TABLE pages (id INTEGER);"}), name="web")
    with pytest.raises(LedgerMismatch, match="0001_notes: it is applied as one of the set app, and is in the set web"):
        migrate.reset(database.url, web)
    assert database.content() == before


def test_reset_refuses_to_take_a_column_of_another_set(database, base, tmp_path):
    """It went with our table, values and all, while the ledger had its migration as applied."""
    theirs = migrate.load(write(tmp_path / "web", {"1_column.sql": "ALTER TABLE things ADD COLUMN theirs INTEGER;"}))
    migrate.apply(database.url, [base, theirs])
    database.fetch("INSERT INTO things VALUES (1, 2)")
    with pytest.raises(MigrationError, match=r"the column theirs was made by a set .* would go with things: name that"):
        migrate.reset(database.url, base)
    assert database.fetch("SELECT theirs FROM things") == [(2,)]
    assert ids(migrate.reset(database.url, [base, theirs])) == ids([*base, *theirs])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_reset_refuses_to_take_a_partition_or_constraint_of_another_set(database, base, tmp_path):
    """They went with our table, a partition with all its rows: it is a table of its own, which the server drops too."""
    ours = {"1_logs.sql": "CREATE TABLE logs (id integer) PARTITION BY RANGE (id);"}
    partition = "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (9);"
    logs = migrate.load(write(tmp_path / "logs", ours))
    web = migrate.load(write(tmp_path / "web", {"2_part.sql": f"-- depends: logs/1_logs\n{partition}"}))
    constraint = "ALTER TABLE things ADD CONSTRAINT few CHECK (id < 9);"
    more = migrate.load(write(tmp_path / "more", {"3_few.sql": constraint}))
    migrate.apply(database.url, [base, logs, web, more])
    database.fetch("INSERT INTO logs VALUES (1)")
    for its, torn in ((logs, "table logs_1"), (base, "constraint few")):
        with pytest.raises(MigrationError, match=rf"the {torn} was made by a set .* would go with"):
            migrate.reset(database.url, its)
    assert database.fetch("SELECT * FROM logs_1") == [(1,)]


#: Takes tables of another set's apart: one gets another name, one is made anew, and one goes; and makes two of its own.
RENAMING = """DROP TABLE more;
CREATE TABLE own (id INTEGER PRIMARY KEY);
ALTER TABLE things RENAME TO stuff;
CREATE TABLE things (id INTEGER PRIMARY KEY);
ALTER TABLE firsts RENAME TO old_firsts;
CREATE TABLE firsts (id INTEGER);
DROP TABLE old_firsts;"""


def test_what_another_set_renames_stays_whose_it_is(database, base, tmp_path):
    """It was told by its name, and so became the other's, which `reset` would have dropped, rows and all."""
    script = RENAMING if database.engine == "sqlite" else f"DO $$ BEGIN {RENAMING} END $$"
    web = migrate.load(write(tmp_path / "web", {"1_renames.sql": script}))
    migrate.apply(database.url, base)
    migrate.apply(database.url, web)
    server = database.url if database.engine == "postgresql" else None
    texts = {its: migrate.dump([base, web], set=its, server=server).replace('"', "") for its in ("base", "web")}
    made = {
        its: {name for name in ("stuff", "firsts", "things", "own") if f"TABLE {name} (" in texts[its]} for its in texts
    }
    assert made == {"base": {"stuff", "firsts"}, "web": {"things", "own"}}
    for table, owner in (("stuff", base), ("firsts", base), ("things", web), ("own", web)):
        database.fetch(f"ALTER TABLE {table} ADD COLUMN x INTEGER")
        assert [its for its in (base, web) if migrate.diff(database.url, its)] == [owner], table
        database.fetch(f"ALTER TABLE {table} DROP COLUMN x")
    with pytest.raises(MigrationError, match="the name stuff was made by a set of migrations that is not named"):
        migrate.reset(database.url, base)
    with pytest.raises(MigrationFailed, match="more"):
        migrate.reset(database.url, web)
    assert ids(migrate.reset(database.url, [base, web])) == ids([*base, *web])


#: What an application makes by a DO block: a table, an index on another set's table, and a function.
HIDDEN = """DO $do$ BEGIN
    EXECUTE 'CREATE TABLE hid' || 'den (id integer PRIMARY KEY)';
    EXECUTE 'CREATE INDEX ON thi' || 'ngs (id)';
    EXECUTE 'CREATE FUNCTION one' || '() RETURNS integer LANGUAGE sql AS $a$SELECT 1$a$';
END $do$;"""


@pytest.fixture
def hiding(database, base, tmp_path) -> list[migrate.MigrationSet]:
    """Three sets on a server, all applied in one transaction, of which two make things by a DO block."""
    web = {"1_pages.sql": "DO $$ BEGIN EXECUTE 'CREATE TABLE pages (id integer)'; END $$"}
    sets = [
        base,
        migrate.load(write(tmp_path / "app_sql", {"0001_hidden.sql": HIDDEN}), name="app"),
        migrate.load(write(tmp_path / "web", web)),
    ]
    migrate.apply(database.url, sets)
    return sets


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_a_do_block_makes_is_of_the_set_whose_script_it_is(database, hiding):
    """It was nobody's, so that its drift was everybody's: the catalog tells what appears while a set's scripts run."""
    _, app, web = hiding
    for change, theirs in (
        ("ALTER TABLE hidden ADD COLUMN x integer", app),
        ("CREATE OR REPLACE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 2'", app),
        ("DROP TABLE pages", web),
    ):
        database.fetch(change)
        assert [its for its in hiding if migrate.diff(database.url, its)] == [theirs], change
        migrate.reset(database.url, theirs)
        assert migrate.diff(database.url, hiding) == []


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_reset_and_schema_file_know_what_a_do_block_makes(database, hiding):
    """A reset of one set dropped what the others had made so; where nobody noted whose it is, a replay shows it."""
    base, app, web = hiding
    with pytest.raises(MigrationError, match="holds no table and no view but those of other sets"):
        migrate.baseline(database.url, write(app.folder.parent / "mine", {}))
    database.fetch("UPDATE _dao_schema SET expected = regexp_replace(expected, ',\"(app|base|web)\"\\]', ']', 'g')")
    database.fetch("INSERT INTO hidden VALUES (1)")
    with pytest.raises(MigrationError, match=r"index things_id_idx was made by a set .* would go with things"):
        migrate.reset(database.url, base)
    migrate.reset(database.url, web)
    assert database.fetch("SELECT * FROM hidden") == [(1,)]
    texts = {its.name: migrate.dump(hiding, set=its.name, server=database.url) for its in hiding}
    for made, name in (("TABLE hidden", "app"), ("INDEX things_id_idx", "app"), ("TABLE pages", "web")):
        assert [its for its, text in texts.items() if made in text] == [name]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_set_keeps_what_a_do_block_made_when_it_gets_another_name(database, hiding):
    """Accepted under the new name, it takes that along; and a mark notes all that is there, and whose it is."""
    base, app, _ = hiding
    named = migrate.load(app.folder, name="other")
    migrate.accept(database.url, ["0001"], named)
    migrate.unmark(database.url, ["2026"], base)
    migrate.mark(database.url, ["2026"], base)
    database.fetch("ALTER TABLE hidden ADD COLUMN x integer")
    assert (migrate.diff(database.url, base), len(migrate.diff(database.url, named))) == ([], 1)


def test_schema_file_of_a_set_has_what_its_migrations_make(database, app, base):
    """Executed where the other is applied, it makes the rest."""
    server = database.url if database.engine == "postgresql" else None
    found = {its: migrate.dump([app, base], set=its, server=server) for its in ("app", "base", None)}
    names = ("notes", "tags", "firsts", "things", "more")
    there = {its: [name for name in names if f"TABLE {name} " in text] for its, text in found.items()}
    assert there == {"app": ["notes", "tags"], "base": ["firsts", "things", "more"], None: list(names)}
    assert ("up to and with 0002_tags" in found["app"], "up to and with 2026_more" in found["base"]) == (True, True)


def test_diff_names_no_object_of_a_set_that_is_not_named(database, app, base):
    """What they made was unexpected to whoever named the other."""
    migrate.apply(database.url, [base, app])
    database.fetch("ALTER TABLE tags ADD COLUMN x INTEGER")
    assert (migrate.diff(database.url, base), len(migrate.diff(database.url, app))) == ([], 1)
    assert [fault.kind for fault in migrate.check(database.url, base).faults] == []
    assert [fault.kind for fault in migrate.check(database.url, app).faults] == ["drift"]


def test_run_tells_no_drift_of_a_set_that_is_not_named(database, app, base):
    """A rollback of one set warned of what somebody had changed in another's tables, while its status was clean."""
    migrate.apply(database.url, [base, app])
    database.fetch("ALTER TABLE firsts ADD COLUMN x INTEGER")
    for its, expected in ((app, False), (base, True)):
        told: list[object] = []
        migrate.rollback(database.url, its, report=told.append)
        assert any(isinstance(one, migrate.Drifted) and one.differences for one in told) == expected
        assert bool(migrate.status(database.url, its).drift) == expected


def test_status_and_check_say_which_set_a_migration_is_applied_in(database, app, base):
    """They said that its file had changed, which was as it had been applied."""
    migrate.apply(database.url, [base, app])
    wrong = migrate.load(app.folder, name="wrong")
    assert {(one.state, one.set, one.moved) for one in migrate.status(database.url, wrong).migrations} == {
        ("changed", "app", "wrong")
    }
    assert [fault.text for fault in migrate.check(database.url, wrong).faults] == [
        f"app/{one.id} is in the set wrong here: `dao status`" for one in app
    ]


# ---------------------------------------------------------------- tried before


def test_trials_apply_the_other_set_first(tmp_path, postgresql_url):
    """Lint and verify judge one set on top of the other, and refuse one whose ground is not named.

    Verify failed for what comes after it, too.
    """
    base = migrate.load(write(tmp_path / "base", BASE))
    app = migrate.load(
        write(
            tmp_path / "app_sql",
            {
                "1_notes.sql": "-- depends: base/2025_things\n"
                "CREATE TABLE notes (id INTEGER PRIMARY KEY REFERENCES things (id));",
                "1_notes.rollback.sql": "DROP TABLE notes;",
            },
        ),
        name="app",
    )
    judged = migrate.lint([app, base], set="app")
    assert (judged.judged, judged.total, judged.selection, judged.findings) == (("1_notes",), 4, "of app", ())
    web = migrate.load(write(tmp_path / "web", {"1_fails.sql": "nonsense;"}))
    for server in (None, postgresql_url):
        found = migrate.verify([app, base, web], set="app", server=server)
        assert {(one.id, one.ok) for one in found} == {("1_notes", True)}
    for trial in (migrate.lint, migrate.verify):
        with pytest.raises(MigrationError, match=r"1_notes depends on base/2025_things, and the set base is not named"):
            trial(app)


def test_number_of_a_migration_is_its_sets_own(tmp_path):
    """Lint held it against a migration that one of another set has the same number (M020)."""
    sets = [
        migrate.load(write(tmp_path / name, {f"0001_{name}.sql": f"CREATE TABLE {name} (id INTEGER PRIMARY KEY);"}))
        for name in ("one", "other")
    ]
    for engine in ("sqlite", "postgresql"):
        assert not [found for found in migrate.lint(sets, engine=engine).findings if found.code == "M020"]


def test_rehearsal_and_copy_are_of_the_sets_that_are_named(url, path, tmp_path):
    """The migrations of the other set are there, and stay."""
    base = migrate.load(write(tmp_path / "base", BASE))
    app = migrate.load(write(tmp_path / "app_sql", APP), name="app")
    migrate.apply(url, base)
    found = migrate.rehearse(url, app, round_trip=True)
    assert (found.ok, ids(found.migrations)) == (True, ["0001_notes", "0002_tags"])
    migrate.apply(url, app)
    for its, expected in ((app, ["0002_tags", "0001_notes"]), (base, ["2026_more"])):
        tried = migrate.verify([base, app], set=its.name, database=url)
        assert all(one.ok for one in tried)
        alone = (
            [one.id for one in migrate.verify(base, database=url) if one.stage == "copy"] if its is base else expected
        )
        assert alone == expected


def test_git_is_asked_of_each_folder(tmp_path):
    """A set that is installed, or in no repository, is released; the folder that all have in common was asked."""
    repository = tmp_path / "repository"
    app = write(write(repository, {}) / "app_sql", APP)
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(
            ["git", "-C", repository, "-c", "user.name=n", "-c", "user.email=e@e", *command],
            check=True,
            timeout=PATIENCE,
        )
    write(app, {"0003_new.sql": "CREATE TABLE new (id INTEGER PRIMARY KEY);"})
    sets = [migrate.load(write(tmp_path / "base", BASE)), migrate.load(app, name="app")]
    assert migrate.lint(sets, git_base="main").judged == ("0003_new",)


# ---------------------------------------------------------------- yoyo


def test_stock_yoyo_works_on_each_folder(database, app, base):
    """It lists what is in its folder, undoes and applies that; what it applied is of the set that has its file."""
    migrate.apply(database.url, [base, app])
    folders = {"app": app.folder, "base": base.folder}
    for its in (app, base):
        assert listed(database, its) == dict.fromkeys(ids(its), "A")
    yoyo(database, "rollback", app.folder, "--revision", "0002_tags")
    assert listed(database, app) == {"0001_notes": "A", "0002_tags": "U"}
    current(database, base)
    assert ids(migrate.plan(database.url, [app, base])) == ["0002_tags"]
    yoyo(database, "apply", folders["app"])
    for its in (app, [app, base]):
        current(database, its)
    with pytest.raises(SchemaTooNew):  # nobody has noted whose it is
        current(database, base)
    assert migrate.adopt(database.url, "yoyo", app) == ["0002_tags"]
    current(database, base)


def yoyo(database, verb: str, folder, *arguments: str) -> str:
    """Run the stock command in a process of its own, which must succeed, and return what it prints."""
    path = database.url.removeprefix("sqlite:///")
    scheme = f"sqlite:///{path}" if database.engine == "sqlite" else database.url.replace("://", "+psycopg://", 1)
    command = [str(Path(sys.executable).with_name("yoyo")), verb, "--batch", "--no-config-file", "--database", scheme]
    done = subprocess.run(
        [*command, *arguments, str(folder)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(database, its: migrate.MigrationSet) -> dict[str, str]:
    """Return what `yoyo list` says of each migration of a folder: A for applied, U for unapplied."""
    rows = [line.split() for line in yoyo(database, "list", its.folder).splitlines()]
    return {row[1]: row[0] for row in rows if len(row) > 1 and row[0] in {"A", "U"}}


def test_history_of_before_there_were_sets_is_carried_over(url, path, tmp_path):
    """A restore takes the history along from a ledger that has no sets; it was lost, with a warning."""
    base = write(tmp_path / "base", BASE)
    migrate.apply(url, base, to="2024")
    before = migrate.take_snapshot(url)
    migrate.apply(url, base, snapshots=0)
    for statement in OLD:
        query(path, statement)
    migrate.restore(url, before.id)
    done = [(one.operation, one.id, one.set) for one in migrate.history(url)]
    assert done[0] == ("apply", "2024_first", "base")
    assert done[1:] == [("apply", "2025_things", None), ("apply", "2026_more", None), ("restore", None, None)]
    assert ids(migrate.apply(url, base)) == ["2025_things", "2026_more"]


def test_copy_asks_only_for_the_version_of_its_own_tables(tmp_path):
    """The migrations of another set in one of two databases are none of its business: they were not at one version."""
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))
    for url in (source, target):
        migrate.apply(url)
    migrate.apply(source, write(tmp_path / "tags", {"1_tags.sql": "CREATE TABLE tags (id INTEGER PRIMARY KEY);"}))
    assert dao.copy(source, target, dry_run=True).left_out == ("tags",)


def test_baseline_is_of_what_no_other_set_has_made(database, base, tmp_path):
    """An application that had its tables before it had migrations was refused once another set was applied."""
    migrate.apply(database.url, base)
    folder = write(tmp_path / "app_sql", {})
    with pytest.raises(MigrationError, match="holds no table and no view but those of other sets"):
        migrate.baseline(database.url, folder)
    database.fetch("CREATE TABLE notes (id INTEGER PRIMARY KEY, thing INTEGER REFERENCES things (id))")
    done = migrate.baseline(database.url, Folder(folder, "app"))
    text = done.paths[0].read_text()
    assert ("notes" in text, "firsts" in text) == (True, False)
    app = migrate.load(folder, name="app")
    for its in (app, base):
        current(database, its)
    with pytest.raises(MigrationError, match=r"has a ledger already, with .*_baseline"):
        migrate.baseline(database.url, Folder(folder, "app"))
