"""A database without a ledger: its schema becomes the first migration, file and mark together, or neither."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import apsw
import pytest

from dao import migrate
from dao.errors import CommitUnknown, Irreversible, MigrationError, MigrationFileError
from dao.migrate.ledger import baseline as module
from dao.migrate.ledger.baseline import baseline
from dao.migrate.scripts.new import create
from dao.migrate.scripts.sets import default_name
from tests.folders import dump, ids, query, tables, write
from tests.other_tools import CERTAIN, LAYOUT_OF, LAYOUTS, TABLES, WRITTEN, execute, flyway, in_layout, made_by

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def there(path):
    """A database with a table that holds a row, and no ledger."""
    query(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    query(path, "INSERT INTO t VALUES (1, 'one')")
    return path


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    return write(tmp_path / "sql", {})


def refused(there, folder, message: str, kind: type[MigrationError] = MigrationError, **options) -> MigrationError:
    """Assert that there is no baseline, nor anything of one, and return the error."""
    before = dump(there), {file: file.read_bytes() for file in folder.rglob("*.*")}
    with pytest.raises(kind, match=message) as caught:
        baseline(f"sqlite:///{there}", folder, **options)
    assert (dump(there), {file: file.read_bytes() for file in folder.rglob("*.*")}) == before
    return caught.value


# ---------------------------------------------------------------- what it writes


def test_baseline_is_the_first_migration_and_is_applied(there, url, folder):
    """The pair has the schema and no row, the ledger has the texts, and nothing else in the database changes."""
    done = baseline(url, folder, now=NOW)
    assert done == migrate.Baseline(
        id="20260102030405_baseline",
        paths=(folder / "20260102030405_baseline.sql", folder / "20260102030405_baseline.rollback.sql"),
    )
    assert [path.read_text().count("CREATE") for path in done.paths] == [1, 0]
    assert "Rows are not in it" in done.paths[0].read_text()
    assert "one" not in done.paths[0].read_text().split("\n\n", 1)[1]
    (migration,) = migrate.load(folder)
    assert query(there, "SELECT apply_text, rollback_text FROM _dao_migration") == [
        (migration.up.text, migration.down.text)
    ]
    assert query(there, "SELECT * FROM t") == [(1, "one")]
    assert [(deed.operation, deed.id) for deed in migrate.history(url)] == [("baseline", done.id)]
    assert migrate.status(url, folder).is_current


def test_baseline_cannot_be_rolled_back(there, url, folder):
    """Its rollback would drop what was there before it, with all rows; so it has none."""
    baseline(url, folder)
    before = dump(there)
    for steps in (1, None):
        with pytest.raises(Irreversible, match="its rollback script holds no statement"):
            migrate.rollback(url, folder, steps=steps)
    assert dump(there) == before
    assert {(one.ok, one.reversible) for one in migrate.verify(folder)} == {(True, False)}


@pytest.mark.parametrize("layout", [*LAYOUTS, None], ids=lambda make: make and make.__name__)
def test_baseline_tells_lint_why_it_has_no_rollback(there, url, folder, layout):
    """In the layout of every tool, whether the rollback is a file, a section or not there."""
    if layout:
        in_layout(folder, layout, [(9, "later", "ALTER TABLE t ADD COLUMN y;", "ALTER TABLE t DROP COLUMN y;")])
    for file in folder.glob("U*"):  # so that Flyway's baseline gets none
        file.unlink()
    done = baseline(url, folder)
    found = [finding for finding in migrate.lint(folder).findings if finding.migration == done.id]
    assert [finding.code for finding in found if finding.silenced is None] == []
    assert [finding.code for finding in found] == ["M017" if len(done.paths) == 1 and layout is flyway else "M018"]
    assert not migrate.status(url, folder).migrations[0].reversible
    migrate.apply(url, folder)
    assert migrate.status(url, folder).is_current


def test_baseline_on_a_connection_of_the_callers(theirs, folder):
    """It takes a connection as it takes a URL, also to a database in memory."""
    theirs.execute("CREATE TABLE t (id)")
    assert migrate.status(theirs, folder if baseline(theirs, folder, name="As it was!").paths else None).is_current
    assert migrate.load(folder)[0].id.endswith("_as_it_was")
    memory = apsw.Connection(":memory:")
    memory.execute("CREATE TABLE u (id)")
    other = write(folder.parent / "other", {})
    assert len(baseline(memory, other).paths) == 2
    memory.close()


def test_baseline_keeps_the_numbers_by_which_programs_know_the_file(there, url, folder, tmp_path):
    """`user_version` and `application_id` are in the script: a program that looks at them goes on in a new database."""
    query(there, "PRAGMA user_version = 7")
    query(there, "PRAGMA application_id = -3")
    baseline(url, folder)
    new = tmp_path / "other.db"
    migrate.apply(f"sqlite:///{new}", folder)
    assert query(new, "SELECT * FROM pragma_user_version, pragma_application_id") == [(7, -3)]


def test_baseline_keeps_the_order_in_which_triggers_were_made(there, url, folder):
    """By name, another would fire first in a new database than in this one."""
    for name in "zab":
        query(there, f"CREATE TRIGGER {name} AFTER INSERT ON t BEGIN SELECT 1; END")
    text = baseline(url, folder).paths[0].read_text()
    assert text.index("TRIGGER z") < text.index("TRIGGER a") < text.index("TRIGGER b")


def test_dump_makes_virtual_tables_after_what_they_show(tmp_path):
    """The schema file makes a table or view before the fts4 table that indexes it.

    It could not be executed: fts4 asks for the columns, also of one that is later by name.
    """
    script = "CREATE TABLE zz (x); CREATE VIEW yy AS SELECT x FROM zz;"
    script += "".join(f"CREATE VIRTUAL TABLE {name} USING fts4 (content={name * 2});" for name in "zy")
    folder = write(tmp_path / "sql", {"1_a.sql": script})
    connection = apsw.Connection(":memory:")
    connection.execute(migrate.dump(folder)).fetchall()
    assert {"z", "y", "zz"} <= {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.close()


@pytest.mark.parametrize(
    ("earliest", "id"),
    [
        ({"0001_a.sql": "", "0002_b.sql": ""}, "0000_baseline"),
        ({"20260102030405_a.sql": ""}, "20260102030404_baseline"),
        ({"20990102030405_a.sql": ""}, "20260102030405_baseline"),
        ({"20260101_a.sql": "", "20990101_b.sql": ""}, "20260100_baseline"),
        ({"a.sql": ""}, "20260102030405_baseline"),
        ({"1.10_a.sql": ""}, "1.09_baseline"),
        ({"3_a.up.sql": "", "3_a.down.sql": ""}, "2_baseline"),
        ({"V2.1__a.sql": "", "V10__b.sql": ""}, "V2.0__baseline"),
        ({"0099_a.sql": "-- migrate:up\n-- migrate:down\n"}, "0098_baseline"),
        ({"99999999999999_a.sql": ""}, "20260102030405_baseline"),
        ({"20260000000000_a.sql": ""}, "20259999999999_baseline"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_baseline_comes_before_all_that_are_there(there, url, folder, earliest, id):
    """Migrations that build on the baseline are pending after it, in order.

    One that is out of order would not be applied.
    """
    write(folder, earliest)
    assert baseline(url, folder, now=NOW).id == id
    states = migrate.status(url, folder).migrations
    assert (states[0].id, states[0].state, states[0].out_of_order) == (id, "applied", False)
    assert {(one.state, one.out_of_order) for one in states[1:]} == {("pending", False)}


def test_baseline_in_diesels_folders(there, url, folder):
    """A folder for each migration, in the way in which the others have their dates."""
    (folder / "2026-01-02-030405_a").mkdir()
    write(folder / "2026-01-02-030405_a", {"up.sql": "ALTER TABLE t ADD COLUMN y;", "down.sql": ""})
    done = baseline(url, folder)
    assert [str(path.relative_to(folder)) for path in done.paths] == [
        "2026-01-02-030404_baseline/up.sql",
        "2026-01-02-030404_baseline/down.sql",
    ]
    assert ids(migrate.apply(url, folder)) == ["2026-01-02-030405_a"]


# ---------------------------------------------------------------- what it refuses


def test_baseline_of_a_database_that_does_not_exist_is_refused_and_makes_none(path, folder):
    """There is nothing to begin with, and it stays so."""
    refused(path, folder, r"new\.db does not exist: there is nothing to begin with")
    assert not path.exists()


@pytest.mark.parametrize("sql", ["PRAGMA user_version = 1", "CREATE TABLE _prisma_migrations (id)"])
def test_baseline_of_an_empty_database_is_refused(path, folder, sql):
    """A migration without a statement would be no beginning; the ledger of another tool is none, either."""
    query(path, sql)
    refused(path, folder, "holds no table and no view: write the first migration with `dao new`")


def test_baseline_where_there_is_a_ledger_is_refused(path, url, three, folder):
    """The first migration of the set is one already; after all are rolled back there is room for another."""
    applied = migrate.load(three, name=default_name(folder))
    migrate.apply(url, applied)
    query(path, "CREATE TABLE t (id)")
    refused(
        path, folder, r"has a ledger already, with 0001_a to 0003_c, and a baseline is where one begins\. Write what"
    )
    migrate.rollback(url, applied, steps=None)
    assert baseline(url, folder).paths


@pytest.mark.parametrize("tool", CERTAIN)
def test_baseline_where_another_tools_ledger_is_refused(path, folder, tmp_path, tool):
    """What can be adopted keeps its history; who wants to begin anew drops the tool's table."""
    made_by(path, tool, in_layout(tmp_path / "theirs", LAYOUT_OF[tool], WRITTEN), [0, 1])
    table, _ = TABLES[tool]
    refused(
        path,
        folder,
        f"{tool} has migrated .*, as its table {table} says: take that over with `dao adopt --from {tool}`",
    )
    query(path, f"DROP TABLE {table}")
    baseline(f"sqlite:///{path}", folder)


@pytest.mark.parametrize(
    ("tool", "made"),
    [
        ("alembic", f"{TABLES['alembic'][1]}; INSERT INTO alembic_version VALUES ('481d9efb4ae9')"),
        ("goose", f"{TABLES['goose'][1]}; INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)"),
        ("golang-migrate", TABLES["golang-migrate"][1]),
        ("Django", "CREATE TABLE django_migrations (id); CREATE INDEX i ON django_migrations (id)"),
        ("Rails", "CREATE TABLE schema_migrations (version); CREATE TABLE ar_internal_metadata (key)"),
    ],
    ids=lambda value: value if " " not in value else "",
)
def test_baseline_leaves_the_tables_of_other_tools_out(there, url, folder, tool, made):
    """Where there is nothing to adopt, or its files are no SQL, the tool's tables stay, and are none of the schema."""
    execute(there, made)
    if tool == "Rails":
        query(there, "INSERT INTO schema_migrations VALUES ('1')")
    done = baseline(url, folder)
    assert {ledger.tool for ledger in done.left_out} == {tool}
    text = done.paths[0].read_text()
    assert [ledger.table for ledger in done.left_out if ledger.table in text] == []
    assert migrate.diff(url, folder) == []
    assert set(tables(there)) >= {ledger.table for ledger in done.left_out}


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE t (id);",
        "CREATE TABLE IF NOT EXISTS T (id);",
        "CREATE TABLE other (id); CREATE VIEW t AS SELECT 1;",
        "ALTER TABLE t ADD COLUMN y; CREATE TABLE u (id);",
        "ALTER TABLE t ADD COLUMN x;",
    ],
)
def test_baseline_of_what_migrations_of_the_folder_make_is_refused(there, folder, script):
    """They would fail after it, or do nothing: they are to be marked instead."""
    query(there, "CREATE TABLE u (id)")
    write(folder, {"1_a.sql": script})
    refused(there, folder, r"sql make what is there already \([tux]\): mark those as applied .* \(`dao mark ID`")


def test_baseline_before_migrations_that_cannot_be_told_is_written(there, url, folder):
    """One that fails without rows, after the baseline too, makes nothing that is there."""
    write(folder, {"1_a.sql": "INSERT INTO t SELECT 1 / 0 FROM t; SELECT nowhere;"})
    assert baseline(url, folder).id == "0_baseline"


@pytest.mark.parametrize(
    ("entries", "message", "kind"),
    [
        ({"0000_a.sql": ""}, "0000_a.sql: no number comes before its own: give it a larger one", MigrationError),
        ({"1_a.sql": "CREATE TABLE a (\n"}, "1_a.sql:1: ", MigrationFileError),
    ],
    ids=["no room", "broken"],
)
def test_baseline_in_a_folder_that_has_no_place_for_it_is_refused(there, folder, entries, message, kind):
    """What is wrong with the folder is said before anything is written."""
    write(folder, entries)
    refused(there, folder, message, kind)


def test_baseline_in_the_folder_of_this_package_is_refused(there):
    """Its migrations are released with it, whatever way leads there."""
    own = migrate.default_folder()
    refused(there, own, "has the migrations of this package, .*: name the folder of yours")
    refused(there, own.parent / "." / own.name, "has the migrations of this package")


@pytest.mark.parametrize("name", ["", "§"])
def test_baseline_without_a_name_is_refused(there, folder, name):
    """A name that leaves nothing for an id is refused, as `dao new` does."""
    refused(there, folder, "needs a letter or a digit", name=name)
    refused(there, folder.parent / "nowhere", "does not exist; create it first")


def test_baseline_of_a_schema_that_no_file_can_hold_is_refused(there, folder):
    """The files are read back: a CR in a string would be another one in a new database, and nobody would know."""
    query(there, "CREATE TABLE u (x DEFAULT 'a\r\nb')")
    error = refused(there, folder, "is not the same when it is made anew from its own text")
    assert [detail.name for detail in error.details] == ["u"]


@pytest.mark.parametrize("callers", [False, True])
def test_baseline_of_a_schema_that_needs_the_program_is_refused(there, folder, callers):
    """What SQLite alone cannot make would fail in every new database, so it says why now."""
    connection = apsw.Connection(str(there))
    connection.create_scalar_function("own", lambda x: x, deterministic=True)
    connection.execute("CREATE TABLE u (x CHECK (own(x)))")
    with pytest.raises(MigrationError, match=r"(no such|unknown) function: own"):
        baseline(connection if callers else f"sqlite:///{there}", folder)
    assert (list(folder.iterdir()), connection.in_transaction) == ([], False)
    connection.close()


# ---------------------------------------------------------------- both or neither


@pytest.mark.parametrize("place", ["record", "remade"])
def test_baseline_that_fails_after_the_files_leaves_none(there, folder, monkeypatch, place):
    """An error, or Ctrl-C, before the commit takes the files back, and only those that were written."""

    def fail(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.drift if place == "record" else module.sqlite, place, fail)
    before = dump(there)
    with pytest.raises(KeyboardInterrupt):
        baseline(f"sqlite:///{there}", folder)
    assert (dump(there), list(folder.iterdir())) == (before, [])


def test_baseline_that_is_interrupted_after_the_commit_keeps_the_files(there, url, folder, monkeypatch):
    """What is noted has its files: they are not taken back because Ctrl-C came a moment later."""
    exclusive = module.exclusive

    @contextlib.contextmanager
    def interrupted(connection):
        with exclusive(connection):
            yield
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "exclusive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        baseline(url, folder)
    assert migrate.status(url, folder).is_current


def test_baseline_whose_commit_is_unknown_keeps_the_files_and_says_how_to_look(there, url, folder, monkeypatch):
    """Nobody knows whether the mark is stored: files without one can be marked, a mark without files is worse."""
    exclusive = module.exclusive

    @contextlib.contextmanager
    def unknown(connection):
        with exclusive(connection):
            yield
        raise CommitUnknown("the commit failed")

    monkeypatch.setattr(module, "exclusive", unknown)
    with pytest.raises(
        CommitUnknown, match=r"`dao status` says whether (\S+_baseline) is applied; if not, `dao mark \1`"
    ):
        baseline(url, folder)
    assert len(list(folder.iterdir())) == 2


#: Where a process is killed, and whether it leaves files and a mark.
KILLED = {
    "before the files": ("module.create = die", 0, False),
    "between the files and the mark": ("module.drift.record = die", 2, False),
    "after the commit": ("module.Baseline = die", 2, True),
}


@pytest.mark.parametrize(("patch", "files", "marked"), KILLED.values(), ids=KILLED)
def test_baseline_that_was_killed_is_finished_as_the_message_says(there, url, folder, patch, files, marked):
    """After kill -9 no mark is without its files; files may be without a mark, and the next try says `dao mark`."""
    code = "import os\nfrom dao.migrate.ledger import baseline as module\ndef die(*_, **__): os.kill(os.getpid(), 9)\n"
    code += f"{patch}\nmodule.baseline({url!r}, {str(folder)!r})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == files
    assert query(there, "SELECT count(*) FROM sqlite_schema WHERE name = '_dao_migration'") == [(marked,)]
    if not files:
        baseline(url, folder)
    elif not marked:
        refused(there, folder, r"make what is there already \(t\): mark those as applied .* \(`dao mark ID`")
        assert "`dao mark ID`" in migrate.status(url, folder).advice
        migrate.mark(url, ids(migrate.load(folder)), folder)
    assert migrate.status(url, folder).is_current


@pytest.mark.parametrize("number", [1, 2])
def test_baseline_on_a_full_disk_leaves_no_file(there, folder, monkeypatch, number):
    """Whichever of the files does not fit, neither stays."""
    left = iter(range(number))

    def fsync(_descriptor):
        if next(left, None) == number - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    refused(there, folder, "cannot be written: No space left on device")


def test_create_never_replaces_a_file(tmp_path):
    """Where one of the files is there already, it stays as it is, and the others are taken back."""
    folder = write(tmp_path / "sql", {"b.sql": "theirs"})
    with pytest.raises(MigrationError, match=r"b\.sql: cannot be written: File exists"):
        create(folder, {"a.sql": "ours", "b.sql": "ours"})
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"b.sql": "theirs"}
