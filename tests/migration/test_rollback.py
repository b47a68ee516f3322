"""`rollback` and its refusals: in the order of the ledger, by the text that belongs to what was applied."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import CheckFailed, Irreversible, LedgerMismatch, MigrationError, MigrationFailed
from tests.folders import IDS, THREE, dump, ids, query, tables, with_fourth, write

# ---------------------------------------------------------------- what is undone


@pytest.mark.parametrize(
    ("arguments", "undone"),
    [
        ({}, ["0003_c"]),
        ({"steps": 1}, ["0003_c"]),
        ({"steps": 2}, ["0003_c", "0002_b"]),
        ({"steps": 99}, IDS[::-1]),
        ({"steps": 0}, []),
        ({"steps": None}, IDS[::-1]),
        ({"to": "0001_a"}, ["0003_c", "0002_b"]),
        ({"to": "0002"}, ["0003_c"]),
        ({"to": "0003_c"}, []),
        ({"steps": None, "each": True}, IDS[::-1]),
    ],
    ids=str,
)
def test_rollback_undoes_the_latest_first(path, url, three, arguments, undone):
    """So many migrations are undone, or all that came after one, the latest first."""
    migrate.apply(url, three)
    results = migrate.rollback(url, three, **arguments)
    assert ids(results) == undone
    assert {result.direction for result in results} <= {"rollback"}
    left = [id for id in IDS if id not in undone]
    assert tables(path) == [id[-1] for id in left]
    assert migrate.status(url, three).ids("applied") == left
    assert query(path, "SELECT migration_id FROM _dao_migration ORDER BY 1") == [(id,) for id in left]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"to": "0003_c"}, MigrationError, "no migration '0003_c' is applied; those that are: 0001_a, 0002_b"),
        ({"to": "0009"}, MigrationError, "no migration '0009' is applied"),
        ({"to": "000"}, MigrationError, "may be any of 0001_a, 0002_b"),
        ({"steps": -1}, ValueError, "steps must be a whole number from 0"),
    ],
    ids=str,
)
def test_rollback_impossible_limit_is_refused(path, url, three, arguments, error, message):
    """A rollback goes back to a migration that is applied."""
    migrate.apply(url, three, steps=2)
    before = dump(path)
    with pytest.raises(error, match=message):
        migrate.rollback(url, three, **arguments)
    assert dump(path) == before


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        (migrate.rollback, "roll back"),
        (lambda url, folder: migrate.plan(url, folder, direction="rollback"), "roll back"),
        (migrate.redo, "redo"),
        (lambda url, folder: migrate.mark(url, IDS, folder), "mark in it"),
        (lambda url, _folder: migrate.unmark(url, IDS), "unmark"),
        (lambda url, folder: migrate.accept(url, IDS, folder), "accept"),
    ],
    ids=["rollback", "plan", "redo", "mark", "unmark", "accept"],
)
def test_rollback_database_that_does_not_exist_is_refused(path, url, three, verb, what):
    """What undoes or corrects something creates no database."""
    with pytest.raises(
        MigrationError, match=rf"new\.db does not exist: there is nothing to {what}\. Name the database"
    ):
        verb(url, three)
    assert not path.exists()


def test_rollback_with_nothing_applied_does_nothing(path, url, three):
    """On a database without migrations there is nothing to undo, and nothing is written."""
    query(path, "CREATE TABLE theirs (id)")
    before = dump(path)
    assert migrate.rollback(url, three, steps=None) == []
    assert dump(path) == before


def test_rollback_failure_leaves_everything_as_before(path, url, tmp_path):
    """If one of several rollback scripts fails, none is undone; the error names its file and line."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", rollback="DROP TABLE x;")
    write(folder, {"0002_b.rollback.sql": "DROP TABLE b;\n\nDROP TABLE bb;"})
    migrate.apply(url, folder)
    before = dump(path)
    with pytest.raises(MigrationFailed, match=r"0002_b\.rollback\.sql:3: no such table: bb\n") as caught:
        migrate.rollback(url, folder, steps=None)
    assert (caught.value.path, caught.value.line) == (folder / "0002_b.rollback.sql", 3)
    assert dump(path) == before


def test_rollback_that_breaks_foreign_keys_is_refused(path, url, tmp_path):
    """The checks are made after a rollback, too."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (a REFERENCES a (id));", rollback="DROP TABLE x;")
    migrate.apply(url, folder)
    query(path, "INSERT INTO a VALUES (1)")
    query(path, "INSERT INTO x VALUES (1)")
    write(folder, {"0004_x.rollback.sql": "DELETE FROM a;"})
    migrate.accept(url, ["0004"], folder)
    before = dump(path)
    with pytest.raises(CheckFailed, match="x: a = 1 refers to a row of a"):
        migrate.rollback(url, folder)
    assert dump(path) == before


# ---------------------------------------------------------------- in which order


def set_clock_back(path: Path) -> None:
    """Make all that was applied until now appear to have been applied far in the future."""
    for table in ("_yoyo_migration", "_dao_migration"):
        query(path, f"UPDATE {table} SET applied_at_utc = replace(applied_at_utc, substr(applied_at_utc, 1, 4), 2999)")


def test_rollback_after_the_clock_was_set_back_undoes_the_latest(path, url, three):
    """The order of application holds even if the clock of a later run was behind that of an earlier one."""
    for _ in IDS:
        migrate.apply(url, three, steps=1)
        set_clock_back(path)
    assert migrate.status(url, three).ids("applied") == IDS
    assert ids(migrate.rollback(url, three)) == ["0003_c"]
    migrate.apply(url, three)
    assert ids(migrate.rollback(url, three, steps=None)) == IDS[::-1]


def test_rollback_out_of_order_ids_follow_the_ledger(path, url, three, tmp_path):
    """What was applied last is undone first, though its id sorts before others."""
    migrate.apply(url, three)
    write(three, {"0002_a.sql": "CREATE TABLE x (b REFERENCES b (id));", "0002_a.rollback.sql": "DROP TABLE x;"})
    migrate.apply(url, three, allow_out_of_order=True)
    assert migrate.status(url, three).ids("applied") == [*IDS, "0002_a"]
    assert ids(migrate.rollback(url, three, to="0003_c")) == ["0002_a"]
    assert tables(path) == ["a", "b", "c"]


def test_rollback_dependency_that_moved_a_migration_is_no_disorder(url, tmp_path):
    """A migration that depends on a later one is applied after it, and undone before it."""
    folder = write(tmp_path / "sql", THREE | {"0001_a.sql": "-- depends: 0003_c\nCREATE TABLE a (id);"})
    assert ids(migrate.apply(url, folder, steps=2)) == ["0002_b", "0003_c"]
    assert ids(migrate.apply(url, folder)) == ["0001_a"]
    assert ids(migrate.rollback(url, folder, steps=None)) == ["0001_a", "0003_c", "0002_b"]


def test_rollback_times_of_an_older_yoyo_sort_with_the_newer(path, url, three):
    """A time that yoyo wrote with a blank is the time that it would be with a T."""
    migrate.apply(url, three, steps=2)
    query(path, "UPDATE _yoyo_migration SET applied_at_utc = '2025-01-15T01:00:00' WHERE migration_id = '0001_a'")
    query(path, "UPDATE _yoyo_migration SET applied_at_utc = '2025-01-15 02:00:00' WHERE migration_id = '0002_b'")
    assert migrate.status(url, three).ids("applied") == ["0001_a", "0002_b"]


# ---------------------------------------------------------------- from which text


def test_rollback_without_the_file_runs_the_ledgers_text(path, url, tmp_path):
    """If its files have gone, a migration is undone by the text in the ledger, never by another's."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", rollback="DROP TABLE x;")
    migrate.apply(url, folder)
    (folder / "0004_x.sql").unlink()
    (folder / "0004_x.rollback.sql").unlink()
    (step,) = migrate.plan(url, folder, direction="rollback", steps=1)
    assert (step.id, step.script.text, step.script.path) == ("0004_x", "DROP TABLE x;", None)
    assert ids(migrate.rollback(url, folder)) == ["0004_x"]
    assert tables(path) == ["a", "b", "c"]
    assert migrate.status(url, folder).is_current


def test_rollback_without_the_file_failing_says_whose_text(url, tmp_path):
    """A failure in a text that only the ledger has is named by the migration."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", rollback="DROP TABLE x;\nSELEC 1;")
    migrate.apply(url, folder)
    (folder / "0004_x.sql").unlink()
    (folder / "0004_x.rollback.sql").unlink()
    with pytest.raises(MigrationFailed, match=r"^0004_x \(text from the ledger\):2: near") as caught:
        migrate.rollback(url, folder)
    assert (caught.value.path, caught.value.line) == (None, 2)


# ---------------------------------------------------------------- what cannot be undone


@pytest.mark.parametrize(
    ("rollback", "why"),
    [
        (None, "it has no rollback script"),
        ("-- Nothing brings the rows back.", "its rollback script holds no statement"),
        (" ;\n", "its rollback script holds no statement"),
    ],
    ids=["missing", "comment", "blank"],
)
@pytest.mark.parametrize(
    ("verb", "gone"),
    [(migrate.rollback, False), (migrate.rollback, True), (migrate.redo, False)],
    ids=["by the file", "by the ledger", "redo"],
)
def test_rollback_irreversible_is_refused_before_anything_changes(path, url, tmp_path, rollback, why, gone, verb):
    """If one of the migrations cannot be undone, none is."""
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);", "0002_x", rollback)
    migrate.apply(url, folder)
    if gone:
        for name in ("0002_x.sql", "0002_x.rollback.sql"):
            (folder / name).unlink(missing_ok=True)
    before = dump(path)
    with pytest.raises(Irreversible, match=f"^0002_x cannot be rolled back: {why}") as caught:
        verb(url, folder, steps=3)
    assert caught.value.migration == "0002_x"
    assert dump(path) == before
    assert not next(m for m in migrate.status(url, folder).migrations if m.id == "0002_x").reversible


@pytest.mark.parametrize("rollback", [None, "", "-- Nothing to undo.\n"], ids=["missing", "empty", "comment"])
@pytest.mark.parametrize("gone", [False, True], ids=["by the file", "by the ledger"])
def test_rollback_what_did_nothing_needs_nothing(path, url, tmp_path, rollback, gone):
    """A script of comments leaves nothing to undo; its pair could not be rolled back, and blocked all before it."""
    folder = with_fourth(tmp_path / "sql", "-- Was not needed after all.\n", "0002_x", rollback)
    migrate.apply(url, folder)
    if gone:
        for name in ("0002_x.sql", "0002_x.rollback.sql"):
            (folder / name).unlink(missing_ok=True)
    assert migrate.status(url, folder).migrations[2].reversible
    steps = migrate.plan(url, folder, direction="rollback", steps=None)
    assert ids(steps) == ["0003_c", "0002_x", "0002_b", "0001_a"]
    done = migrate.rollback(url, folder, steps=None)
    assert [(one.id, one.statements) for one in done][:2] == [("0003_c", 1), ("0002_x", 0)]
    assert tables(path) == []
    assert migrate.status(url, folder).ids("applied") == []


def test_rollback_of_what_yoyo_applied_without_its_file_is_not_called_empty(url, three):
    """Nobody has the text of what the stock command applied: that it did nothing cannot be told."""
    migrate.apply(url, three)
    query(url.removeprefix("sqlite:///"), "DELETE FROM _dao_migration WHERE migration_id = '0002_b'")
    remove("0002_b.sql", "0002_b.rollback.sql")(three)
    assert [one.reversible for one in migrate.status(url, three).migrations] == [True, False, True]
    with pytest.raises(LedgerMismatch):
        migrate.rollback(url, three, steps=None)


def test_rollback_irreversible_advice_is_a_way_out(path, url, tmp_path):
    """A rollback that need not do anything can say so, as the message has it; there was no way to roll back past it."""
    folder = with_fourth(tmp_path / "sql", "UPDATE b SET id = 3;")
    migrate.apply(url, folder)
    with pytest.raises(Irreversible, match=r"a rollback script of `SELECT 1;` says so, once `dao accept 0004_x`"):
        migrate.rollback(url, folder, steps=None)
    write(folder, {"0004_x.rollback.sql": "SELECT 1;"})
    migrate.accept(url, ["0004_x"], folder)
    assert len(migrate.rollback(url, folder, steps=None)) == 4
    assert tables(path) == []


# ---------------------------------------------------------------- files and ledger that do not agree


def edit(name: str, text: str = "CREATE TABLE b (id);  -- edited"):
    return lambda folder: write(folder, {name: text})


def remove(*names: str):
    def do(folder):
        for name in names:
            (folder / name).unlink()

    return do


KINDS = ("changed", "missing", "out_of_order", "unfinished")
#: What is done to the folder after all three were applied; what is wrong; the advice; and what follows the advice.
MISMATCHES = {
    "edited": (
        edit("0002_b.sql"),
        "changed",
        "0002_b",
        "`dao accept 0002_b`",
        lambda url, folder: migrate.accept(url, ["0002_b"], folder),
    ),
    "rollback edited": (
        edit("0002_b.rollback.sql", "DROP TABLE b; --"),
        "changed",
        "0002_b",
        "`dao accept 0002_b`",
        lambda url, folder: migrate.accept(url, ["0002"], folder),
    ),
    "rollback removed": (
        remove("0003_c.rollback.sql"),
        "changed",
        "0003_c",
        "Put them back and write a new migration",
        lambda _url, folder: write(folder, {"0003_c.rollback.sql": THREE["0003_c.rollback.sql"]}),
    ),
    "rollback that only adds a comment": (
        edit("0002_b.rollback.sql", "-- Why.\nDROP TABLE b;"),
        "changed",
        "0002_b",
        "its files have changed since it was applied",
        lambda url, folder: migrate.accept(url, ["0002_b", "0003_c"], folder),
    ),
    "removed": (
        remove("0002_b.sql", "0002_b.rollback.sql"),
        "missing",
        "0002_b",
        "`dao unmark 0002_b`",
        lambda url, _folder: migrate.unmark(url, ["0002_b"]),
    ),
    "removed and restored": (
        remove("0001_a.sql", "0001_a.rollback.sql"),
        "missing",
        "0001_a",
        "Restore the file",
        lambda _url, folder: write(folder, THREE),
    ),
    "added before": (
        edit("0002_z.sql", "CREATE TABLE z (id);"),
        "out_of_order",
        "0002_z",
        "Give it a later timestamp",
        lambda _url, folder: (folder / "0002_z.sql").rename(folder / "0004_z.sql"),
    ),
}


@pytest.mark.parametrize(("change", "kind", "id", "advice", "remedy"), MISMATCHES.values(), ids=MISMATCHES)
def test_apply_and_rollback_while_files_and_ledger_differ_are_refused(
    path, url, three, change, kind, id, advice, remedy
):
    """An edited, removed or belated file stops every run, with what to do about it; once done, runs go on."""
    migrate.apply(url, three)
    change(three)
    write(three, {"0009_last.sql": "CREATE TABLE last (id);", "0009_last.rollback.sql": "DROP TABLE last;"})
    before = dump(path)
    for verb in (migrate.apply, migrate.rollback, migrate.plan):
        with pytest.raises(LedgerMismatch) as caught:
            verb(url, three)
        found = {name: getattr(caught.value, name) for name in KINDS}
        assert found == dict.fromkeys(KINDS, ()) | {kind: (id,)}
        assert f"\n  {id}: " in str(caught.value)
        assert advice in str(caught.value)
        assert dump(path) == before
    remedy(url, three)
    assert ids(migrate.apply(url, three))[-1] == "0009_last"
    assert ids(migrate.rollback(url, three)) == ["0009_last"]


def test_apply_what_was_empty_when_it_was_applied_advises_to_run_it(path, url, three):
    """A script that was written after it had been applied has not run: the advice was to accept that it has."""
    write(three, {"0004_d.sql": "-- D: what for.\n", "0004_d.rollback.sql": "-- Undoes 0004_d.\n"})
    migrate.apply(url, three)
    write(three, {"0004_d.sql": "CREATE TABLE d (id);", "0004_d.rollback.sql": "DROP TABLE d;"})
    with pytest.raises(LedgerMismatch, match="`dao unmark 0004_d` makes it pending") as caught:
        migrate.apply(url, three)
    assert "dao accept" not in str(caught.value)
    migrate.unmark(url, ["0004_d"])
    assert ids(migrate.apply(url, three)) == ["0004_d"]
    assert tables(path) == ["a", "b", "c", "d"]


def test_apply_several_mismatches_are_all_reported(url, three):
    """One message tells of everything that is wrong."""
    migrate.apply(url, three)
    write(three, {"0001_a.sql": "SELECT 1;", "0002_x.sql": "SELECT 1;"})
    (three / "0002_b.sql").unlink()
    (three / "0002_b.rollback.sql").unlink()
    with pytest.raises(LedgerMismatch) as caught:
        migrate.apply(url, three)
    error = caught.value
    assert (error.changed, error.missing, error.out_of_order) == (("0001_a",), ("0002_b",), ("0002_x",))
    assert [line.split(":")[0].strip() for line in str(error).splitlines()[1:]] == ["0001_a", "0002_b", "0002_x"]


def test_apply_allow_out_of_order_applies_what_comes_before(path, url, three):
    """What sorts before an applied migration is applied if the caller says that the order does not matter."""
    migrate.apply(url, three)
    write(three, {"0000_x.sql": "CREATE TABLE x (id);", "0002_y.sql": "CREATE TABLE y (id);"})
    status = migrate.status(url, three)
    assert [m.id for m in status.migrations if m.out_of_order] == ["0000_x", "0002_y"]
    assert ids(migrate.rollback(url, three, allow_out_of_order=True)) == ["0003_c"]
    assert ids(migrate.apply(url, three, allow_out_of_order=True)) == ["0000_x", "0002_y", "0003_c"]
    assert tables(path) == ["a", "b", "c", "x", "y"]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfCREATE TABLE a (id INTEGER PRIMARY KEY);"], ids=["BOM"])
def test_apply_file_saved_otherwise_has_not_changed(url, three, content):
    """A byte order mark or other line ends are no edit."""
    migrate.apply(url, three)
    write(three, {"0001_a.sql": content})
    write(three, {"0002_b.sql": THREE["0002_b.sql"].replace("\n", "\r\n")})
    assert migrate.status(url, three).is_current


# ---------------------------------------------------------------- accept


def test_accept_edit_is_what_is_undone_later(path, url, three):
    """The texts that were accepted are those in the ledger from then on; nothing runs."""
    migrate.apply(url, three)
    write(three, {"0003_c.rollback.sql": "ALTER TABLE c RENAME TO c_old;"})
    before = migrate.status(url, three).migrations[-1]
    assert migrate.accept(url, ["0003"], three) == ["0003_c"]
    after = migrate.status(url, three).migrations[-1]
    assert (before.state, after.state, after.applied_at) == ("changed", "applied", before.applied_at)
    assert query(path, "SELECT rollback_text FROM _dao_migration WHERE migration_id = '0003_c'") == [
        ("ALTER TABLE c RENAME TO c_old;",)
    ]
    migrate.rollback(url, three)
    assert tables(path) == ["a", "b", "c_old"]


@pytest.mark.parametrize(
    ("id", "error", "message"),
    [
        ("0003_c", MigrationError, "no migration '0003_c' is applied; those that are: 0001_a, 0002_b"),
        ("0002_b", LedgerMismatch, "0002_b: it is applied, and its file has gone"),
    ],
)
def test_accept_what_has_no_edit_is_refused(path, url, three, id, error, message):
    """Only an applied migration with a file can be accepted, and of several ids all or none."""
    migrate.apply(url, three, steps=2)
    remove("0002_b.sql", "0002_b.rollback.sql")(three)
    edit("0001_a.sql")(three)
    before = dump(path)
    with pytest.raises(error, match=message):
        migrate.accept(url, ["0001_a", id], three)
    assert dump(path) == before


# ---------------------------------------------------------------- any sequence


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[migrate.Migration]:
    """Four reversible migrations."""
    folder = tmp_path_factory.mktemp("four") / "sql"
    return migrate.load(with_fourth(folder, "CREATE TABLE x (id);", rollback="DROP TABLE x;"))


_RUNS = st.tuples(
    st.sampled_from(["apply", "rollback", "redo", "reset"]), st.sampled_from([0, 1, 2, None]), st.booleans()
)


@given(runs=st.lists(_RUNS, max_size=8))
def test_runs_in_any_sequence_keep_schema_and_ledger_together(four, runs):
    """After any sequence of runs, the tables, the ledger and a plain list agree, and each run did what was planned."""
    names = ids(four)
    applied: list[str] = []
    connection = apsw.Connection(":memory:")
    for verb, steps, each in runs:
        if verb == "apply":
            planned = migrate.plan(connection, four, steps=steps)
            done = migrate.apply(connection, four, steps=steps, each=each)
            applied += names[len(applied) :][:steps]
        elif verb == "rollback":
            planned = migrate.plan(connection, four, direction="rollback", steps=steps)
            done = migrate.rollback(connection, four, steps=steps, each=each)
            del applied[len(applied) - min(len(applied), 99 if steps is None else steps) :]
        elif verb == "redo":
            again = applied[len(applied) - min(len(applied), steps or 0) :]
            done = planned = migrate.redo(connection, four, steps=steps or 0)
            assert ids(done) == again[::-1] + again
        else:
            done = planned = migrate.reset(connection, four)
            applied = list(names)
        assert ids(done) == ids(planned)
        found = connection.execute("SELECT name FROM sqlite_schema WHERE length(name) = 1").fetchall()
        assert sorted(name for (name,) in found) == sorted(id[-1] for id in applied)
        assert migrate.status(connection, four).ids("applied") == applied
        assert migrate.status(connection, four).ids("pending") == names[len(applied) :]
    connection.close()
