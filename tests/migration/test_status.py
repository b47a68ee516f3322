"""`status`, `plan` and `assert_current` tell what is there and what would be done.

`mark` and `unmark` only note it.
"""

from __future__ import annotations

import apsw
import attrs
import pytest

import dao
from dao import migrate
from dao.errors import (
    DatabaseCorrupt,
    Irreversible,
    LedgerMismatch,
    MigrationError,
    MigrationFileError,
    SchemaOutOfDate,
    SchemaTooNew,
)
from tests.folders import IDS, THREE, dump, ids, query, tables, with_fourth, write

# ---------------------------------------------------------------- status


def states(url, folder) -> dict[str, str]:
    return {migration.id: migration.state for migration in migrate.status(url, folder).migrations}


@pytest.mark.parametrize("verb", [migrate.status, migrate.plan], ids=["status", "plan"])
def test_status_and_plan_database_that_does_not_exist_create_none(path, url, three, verb):
    """To look is not to create: all is pending, and there is no file afterwards."""
    found = verb(url, three)
    assert (found.ids("pending") if verb is migrate.status else ids(found)) == IDS
    assert not path.exists()
    assert not migrate.status(url, three).exists
    assert not migrate.status("sqlite://", three).exists


@pytest.mark.parametrize("verb", [migrate.status, migrate.plan], ids=["status", "plan"])
def test_status_and_plan_empty_file_is_a_database_without_migrations(path, url, three, verb):
    """An empty file stays one."""
    path.touch()
    found = verb(url, three)
    assert (found.ids("pending") if verb is migrate.status else ids(found)) == IDS
    assert path.stat().st_size == 0


def test_status_each_state_is_told(path, url, three):
    """Applied ones come first, as they were applied, then the pending ones; each with its state."""
    migrate.apply(url, three)
    write(three, {"0002_b.sql": "SELECT 1;", "0000_x.sql": "SELECT 1;", "0004_y.sql": "SELECT 1;"})
    (three / "0003_c.sql").unlink()
    (three / "0003_c.rollback.sql").unlink()
    before = dump(path)
    status = migrate.status(url, three)
    assert [(m.id, m.state, m.reversible, m.out_of_order) for m in status.migrations] == [
        ("0001_a", "applied", True, False),
        ("0002_b", "changed", True, False),
        ("0003_c", "missing", True, False),
        ("0000_x", "pending", False, True),
        ("0004_y", "pending", False, False),
    ]
    assert (status.database, status.exists, status.is_current) == (str(path), True, False)
    assert status.ids("changed", "missing") == ["0002_b", "0003_c"]
    assert dump(path) == before


def test_status_applied_migration_has_time_and_duration(url, three):
    """When and for how long: known for what was applied, and for nothing else."""
    migrate.apply(url, three, steps=1)
    applied, *pending = migrate.status(url, three).migrations
    assert applied.applied_at.startswith("20")
    assert applied.duration_ms >= 0
    assert [(m.applied_at, m.duration_ms) for m in pending] == [(None, None)] * 2


def test_status_only_reads(path, url, three):
    """A database that this process may not write to can be looked at."""
    migrate.apply(url, three, steps=2)
    query(path, "PRAGMA journal_mode = delete")
    path.chmod(0o444)
    assert migrate.status(url, three).ids("pending") == ["0003_c"]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_status_what_is_no_database_is_refused(path, url, three):
    """A file that holds something else is named."""
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseCorrupt, match=r"new\.db"):
        migrate.status(url, three)


@pytest.mark.parametrize("owner", ["ours", "the caller"])
def test_status_damaged_ledger_is_told(path, url, three, theirs, owner):
    """Damage that shows only when the ledger is read is an error of the file, whosever connection it is."""
    theirs.pragma("page_size", 65536)  # all of the schema on the first page
    migrate.apply(theirs, three)
    theirs.close()
    content = path.read_bytes()
    path.write_bytes(content[:65536] + b"\xff" * (len(content) - 65536))
    theirs = apsw.Connection(str(path))
    with pytest.raises(DatabaseCorrupt, match=r"new\.db is damaged"):
        migrate.status(url if owner == "ours" else theirs, three)
    theirs.close()


def test_status_ledger_of_an_old_yoyo_is_refused(path, url, three):
    """A ledger that yoyo before 6.0 wrote is not guessed at."""
    query(path, "CREATE TABLE _yoyo_migration (id VARCHAR(191) NOT NULL PRIMARY KEY, ctime TIMESTAMP)")
    with pytest.raises(MigrationError, match=r"written by a yoyo before 6\.0: run the `yoyo list` of yoyo 9"):
        migrate.status(url, three)


@pytest.mark.parametrize(
    "verb",
    [
        migrate.status,
        migrate.plan,
        migrate.apply,
        migrate.rollback,
        migrate.redo,
        migrate.reset,
        lambda url, folder: migrate.mark(url, IDS, folder),
        lambda url, folder: migrate.accept(url, IDS, folder),
    ],
    ids=["status", "plan", "apply", "rollback", "redo", "reset", "mark", "accept"],
)
def test_status_malformed_folder_is_refused_before_the_database_is_opened(path, url, tmp_path, verb):
    """A folder that is not as it should be stops everything, and creates nothing."""
    folder = write(tmp_path / "sql", {"1.rollback.sql": "SELECT 1;"})
    with pytest.raises(MigrationFileError, match="without its migration"):
        verb(url, folder)
    assert not path.exists()


# ---------------------------------------------------------------- plan


@pytest.mark.sample(2)
@pytest.mark.parametrize("applied", [0, 1, 3])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"steps": 1}, {"steps": 2}, {"to": "0002_b"}, {"steps": None}],
    ids=str,
)
@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback])
def test_plan_is_what_is_then_done(path, url, three, verb, arguments, applied):
    """`plan` returns the scripts that the same call of `apply` or `rollback` then runs, or refuses as it does."""
    path.touch()  # without a step to apply there would be none
    migrate.apply(url, three, steps=applied)
    direction = verb.__name__
    try:
        planned = migrate.plan(url, three, direction=direction, **arguments)
    except MigrationError as refused:
        with pytest.raises(MigrationError, match=f"^{refused}$"):
            verb(url, three, **arguments)
        return
    started = []
    results = verb(
        url, three, **arguments, report=lambda event: isinstance(event, migrate.Started) and started.append(event.step)
    )
    # only a plan says what a rollback drops of its own
    assert [attrs.evolve(step, drops=()) for step in planned] == started
    assert [(step.id, step.direction) for step in planned] == [(result.id, result.direction) for result in results]


def test_plan_step_holds_the_script(url, three):
    """A step says what would run, and where it comes from."""
    step = migrate.plan(url, three, steps=1)[0]
    assert (step.script.text, step.script.path, step.script.transactional) == (
        THREE["0001_a.sql"],
        three / "0001_a.sql",
        True,
    )


def test_plan_refuses_what_the_run_would_refuse(url, tmp_path):
    """A plan that could not be carried out is an error, not a plan."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);")
    migrate.apply(url, folder)
    with pytest.raises(Irreversible, match="0004_x"):
        migrate.plan(url, folder, direction="rollback", steps=1)
    write(folder, {"0002_bb.sql": "SELECT 1;"})
    with pytest.raises(LedgerMismatch, match="0002_bb"):
        migrate.plan(url, folder)
    assert ids(migrate.plan(url, folder, allow_out_of_order=True)) == ["0002_bb"]


# ---------------------------------------------------------------- mark and unmark


def test_mark_runs_nothing_and_notes_in_order(path, url, three):
    """Marked, a migration counts as applied, in the folder's order, though nothing was done."""
    query(path, "CREATE TABLE theirs (id)")
    assert migrate.mark(url, ["0002_b", "0001"], three) == ["0001_a", "0002_b"]
    assert tables(path) == ["theirs"]
    assert states(url, three) == {"0001_a": "applied", "0002_b": "applied", "0003_c": "pending"}
    assert query(path, "SELECT migration_id, operation FROM _yoyo_log ORDER BY rowid") == [
        ("0001_a", "mark"),
        ("0002_b", "mark"),
    ]
    assert ids(migrate.apply(url, three)) == ["0003_c"]


def test_mark_between_applied_ones_takes_its_place_in_the_folder(path, url, three):
    """A migration that is marked belatedly counts as applied before those that come after it.

    Thus a rollback does not begin with it.
    """
    migrate.apply(url, three, steps=1)
    write(three, {"0000_x.sql": "SELECT 1;", "0000_x.rollback.sql": "SELECT 1;"})
    migrate.apply(url, three, steps=2, to="0002_b", allow_out_of_order=True)
    migrate.unmark(url, ["0000_x"])
    assert migrate.mark(url, ["0003_c"], three) == ["0003_c"]
    assert migrate.mark(url, ["0000_x"], three) == ["0000_x"]
    assert migrate.status(url, three).ids("applied") == ["0000_x", *IDS]
    query(path, THREE["0003_c.sql"])
    assert migrate.status(url, three).is_current
    assert ids(migrate.rollback(url, three, steps=None)) == [*IDS[::-1], "0000_x"]


def test_mark_what_is_applied_changes_nothing(path, url, three):
    """A migration that is applied stays as it was noted."""
    migrate.apply(url, three)
    before = dump(path)
    assert migrate.mark(url, IDS, three) == []
    assert dump(path) == before


def test_unmark_undoes_nothing_and_forgets(path, url, three):
    """Unmarked, a migration counts as pending, though nothing was undone."""
    migrate.apply(url, three)
    assert migrate.unmark(url, ["0003"]) == ["0003_c"]
    assert tables(path) == ["a", "b", "c"]
    assert states(url, three) == {"0001_a": "applied", "0002_b": "applied", "0003_c": "pending"}
    assert query(path, "SELECT operation FROM _yoyo_log ORDER BY rowid DESC LIMIT 1") == [("unmark",)]


@pytest.mark.parametrize("noted", [None, "soon", "2025-01-15T01:00:00+01:00"], ids=["none", "no time", "a zone"])
def test_ledger_without_a_time_of_an_entry_can_be_changed(path, url, three, noted):
    """A time that yoyo 5 left out, or a hand wrote otherwise, is no traceback.

    It was one in each verb that writes, `unmark` too.
    """
    migrate.apply(url, three, steps=2)
    query(path, "UPDATE _yoyo_migration SET applied_at_utc = ? WHERE migration_id = '0001_a'", noted)
    assert migrate.status(url, three).ids("applied") == ["0001_a", "0002_b"]
    assert migrate.unmark(url, ["0002_b"], three) == migrate.mark(url, ["0002_b"], three) == ["0002_b"]
    assert ids(migrate.apply(url, three)) == ["0003_c"]
    write(three, {"0000_x.sql": "SELECT 1;", "0000_x.rollback.sql": "SELECT 1;"})
    assert migrate.mark(url, ["0000_x"], three) == ["0000_x"]
    assert ids(migrate.rollback(url, three, steps=2)) == ["0003_c", "0002_b"]
    write(three, {"0001_a.sql": f"{THREE['0001_a.sql']} -- edited"})
    assert migrate.accept(url, ["0001_a"], three) == ["0001_a"]
    write(three, {"0001_a.sql": THREE["0001_a.sql"]})
    (found,) = (one for one in migrate.status(url, three).migrations if one.id == "0001_a")
    assert (found.state, found.applied_at) == ("changed", noted and f"{noted}Z")


@pytest.mark.parametrize("verb", ["mark", "unmark"])
@pytest.mark.parametrize(
    ("id", "message"),
    [("0009", "no migration '0009' is"), ("000", "may be any of"), ("", "'' is no id of a migration")],
)
def test_mark_and_unmark_unknown_id_changes_nothing(path, url, three, verb, id, message):
    """Of several ids all are noted, or none."""
    migrate.apply(url, three, steps=2)
    before = dump(path)
    with pytest.raises(MigrationError, match=message):
        migrate.mark(url, ["0003_c", id], three) if verb == "mark" else migrate.unmark(url, ["0001_a", id])
    assert dump(path) == before


# ---------------------------------------------------------------- assert_current


def test_assert_current_up_to_date_passes(theirs, three):
    """A program may start on the schema that it was written for."""
    migrate.apply(theirs, three)
    migrate.assert_current(theirs, three)


def test_assert_current_edited_migration_is_refused(theirs, path, three):
    """A schema that another text made may not be the one that the program was written for."""
    migrate.apply(theirs, three, steps=2)
    write(three, {"0001_a.sql": "-- Why.\n" + THREE["0001_a.sql"]})
    with pytest.raises(
        LedgerMismatch, match=rf"^{path}: the files .* have changed \(0001_a\).* `dao accept ID`"
    ) as caught:
        migrate.assert_current(theirs, three)
    assert caught.value.changed == ("0001_a",)


def test_assert_current_pending_migrations_are_named(theirs, path, three):
    """A schema that lacks migrations is out of date."""
    migrate.apply(theirs, three, steps=1)
    with pytest.raises(SchemaOutOfDate, match=rf"^{path} lacks .* \(0002_b, 0003_c\): run `dao migrate`$") as caught:
        migrate.assert_current(theirs, three)
    assert caught.value.pending == ("0002_b", "0003_c")


def test_assert_current_empty_database_is_out_of_date(theirs, three):
    """A database without a ledger lacks everything, and stays as it is."""
    with pytest.raises(SchemaOutOfDate) as caught:
        migrate.assert_current(theirs, three)
    assert caught.value.pending == tuple(IDS)
    assert theirs.execute("SELECT count(*) FROM sqlite_schema").get == 0


def test_assert_current_unknown_migrations_are_named(theirs, path, three):
    """A schema with migrations that the program does not know is too new for it, whatever is pending."""
    migrate.apply(theirs, three, steps=2)
    known = [*migrate.load(three)]
    known[1] = migrate.Migration(id="0002_x", up=migrate.Script(path=known[1].path, text="SELECT 1;"))
    with pytest.raises(SchemaTooNew, match=rf"^{path} has migrations .* \(0002_b\): use a newer version") as caught:
        migrate.assert_current(theirs, known)
    assert caught.value.unknown == ("0002_b",)


def test_assert_current_at_least_accepts_what_came_later_only(theirs, three):
    """The old release of a rolling deployment refused the schema as soon as the new one had migrated it."""
    files = migrate.load(three)
    migrate.apply(theirs, three)
    with pytest.raises(SchemaTooNew):
        migrate.assert_current(theirs, files[:2])
    migrate.assert_current(theirs, files[:2], at_least=True)
    migrate.assert_current(theirs, files[:1], at_least=True)
    # another lineage: what it does not know came before what it knows
    with pytest.raises(SchemaTooNew) as caught:
        migrate.assert_current(theirs, files[::2], at_least=True)
    assert caught.value.unknown == ("0002_b",)
    # the schema of what is not known is held against the ledger's texts
    theirs.execute("DROP TABLE c")
    with pytest.raises(LedgerMismatch, match="table c is missing"):
        migrate.assert_current(theirs, files[:2], at_least=True)


def test_assert_current_without_folder_means_this_packages_schema():
    """A program that uses this package asks whether the database has this version's schema."""
    connection = dao.connect("sqlite://")
    with pytest.raises(SchemaOutOfDate, match=r"^:memory: lacks"):
        migrate.assert_current(connection)
    migrate.apply(connection)
    migrate.assert_current(connection)
    connection.close()


def test_assert_current_on_a_read_only_connection_reads(url, path, three):
    """The question needs no right to write."""
    migrate.apply(url, three)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    migrate.assert_current(connection, three)
    connection.close()


def test_assert_current_unfinished_migration_asks_for_a_look(url, tmp_path):
    """What began outside of a transaction and did not end needs a person, not another run."""
    script = "-- transactional: false\nCREATE TABLE a (x);\nINSERT INTO nowhere VALUES (1);\n"
    folder = write(tmp_path / "alone", {"0001_a.sql": script})
    with pytest.raises(MigrationError):
        migrate.apply(url, folder)
    connection = dao.connect(url)
    with pytest.raises(SchemaOutOfDate, match=r"`dao migrate resolve 0001_a`.*--applied or --rolled-back") as caught:
        migrate.assert_current(connection, folder)
    connection.close()
    assert caught.value.unfinished == ("0001_a",)


CHANGED_LEDGERS = [
    "ALTER TABLE _dao_schema DROP COLUMN expected",
    "ALTER TABLE _dao_migration DROP COLUMN pid",
    "ALTER TABLE _dao_migration DROP COLUMN rollback_text",
    "ALTER TABLE _dao_history DROP COLUMN detail",
    "ALTER TABLE _yoyo_migration DROP COLUMN applied_at_utc",
    "ALTER TABLE _dao_history DROP COLUMN yoyo_log_id",
    "DROP TABLE _yoyo_log",
    "DROP TABLE _yoyo_version",
    "DROP TABLE _yoyo_version; DROP TABLE _yoyo_log",
    "UPDATE _yoyo_version SET version = version + 7",
    "DELETE FROM _yoyo_version",
    "DROP TABLE _dao_schema; CREATE VIEW _dao_schema AS SELECT 1 AS x",
    "UPDATE _dao_schema SET expected = '[no JSON'",
]


@pytest.mark.parametrize("change", CHANGED_LEDGERS)
def test_ledger_that_somebody_has_changed_is_called_that_and_can_be_restored(path, url, three, change):
    """A ledger that somebody has changed is called that, and can be restored.

    A table without a column was the driver's "no such column: expected", and could not be restored.
    """
    migrate.apply(url, three, steps=2)
    query(path, "INSERT INTO a VALUES (1)")
    good = migrate.take_snapshot(url)
    query(path, change)
    for verb in (migrate.status, migrate.plan, migrate.history, migrate.apply, migrate.rollback):
        try:
            verb(url, *([] if verb is migrate.history else [three]))
        except MigrationError as error:
            assert "somebody has changed" in str(error), error  # noqa: PT017 - some need nothing that is missing
    migrate.take_snapshot(url)
    migrate.restore(url, good.id)
    assert [one.state for one in migrate.status(url, three).migrations] == ["applied", "applied", "pending"]
    assert [deed.operation for deed in migrate.history(url)][-1] == "restore"
