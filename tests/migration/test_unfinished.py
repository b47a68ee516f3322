"""Scripts that cannot run in a transaction: alone, between the others, and never half-way without a trace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.errors import (
    CheckFailed,
    DatabaseBusy,
    LedgerMismatch,
    MigrationError,
    MigrationFailed,
    SchemaOutOfDate,
)
from tests.concurrency import PATIENCE
from tests.folders import ALONE, IDS, dump, ids, query, tables, with_fourth, write

# ---------------------------------------------------------------- alone


def test_apply_script_outside_of_a_transaction_runs_between_the_others(path, url, tmp_path):
    """VACUUM works in a script that asks to run alone; those before it are committed first, those after it follow."""
    folder = with_fourth(tmp_path / "sql", ALONE + "VACUUM; CREATE TABLE x (id);", "0002_vacuum")
    seen = []

    def look(event):
        if isinstance(event, migrate.Started):
            seen.append((event.step.id, migrate.status(url, folder).ids("applied", "unfinished")))

    assert ids(migrate.apply(url, folder, report=look)) == ["0001_a", "0002_b", "0002_vacuum", "0003_c"]
    assert seen[2:] == [
        ("0002_vacuum", ["0001_a", "0002_b", "0002_vacuum"]),
        ("0003_c", ["0001_a", "0002_b", "0002_vacuum"]),
    ]
    assert tables(path) == ["a", "b", "c", "x"]
    assert migrate.status(url, folder).is_current
    assert query(path, "SELECT DISTINCT state FROM _dao_migration") == [("applied",)]


def test_apply_all_outside_of_a_transaction_are_applied_and_rolled_back(path, url, tmp_path):
    """Several such scripts run one after the other, in both directions."""
    scripts = {f"{number}.sql": f"{ALONE}CREATE TABLE t{number} (id);" for number in (1, 2, 3)}
    scripts |= {f"{number}.rollback.sql": f"DROP TABLE t{number}; VACUUM;" for number in (1, 2, 3)}
    folder = write(tmp_path / "sql", scripts)
    assert ids(migrate.apply(url, folder)) == ["1", "2", "3"]
    assert tables(path) == ["t1", "t2", "t3"]
    assert ids(migrate.redo(url, folder, steps=2)) == ["3", "2", "2", "3"]
    assert tables(path) == ["t1", "t2", "t3"]
    assert ids(migrate.rollback(url, folder, steps=None)) == ["3", "2", "1"]
    assert tables(path) == []
    assert migrate.status(url, folder).ids("pending") == ["1", "2", "3"]


#: Of somebody who does not know our lock, as the stock `yoyo` does not.
MARKED = "INSERT INTO _yoyo_migration VALUES ('a hash', '0003_c', '2999-01-01T00:00:00')"
UNMARKED = "DELETE FROM _yoyo_migration WHERE migration_id = '0001_a'"


def test_apply_what_another_applied_between_two_transactions_is_left_alone(path, url, tmp_path):
    """A run that ends its transaction for such a script goes on with what is pending then."""
    folder = with_fourth(tmp_path / "sql", ALONE + "SELECT 1;", "0002_x")

    def report(event):
        if isinstance(event, migrate.Started) and event.step.id == "0002_x":
            query(path, MARKED)

    assert ids(migrate.apply(url, folder, report=report)) == ["0001_a", "0002_b", "0002_x"]
    assert tables(path) == ["a", "b"]
    assert migrate.status(url, folder).is_current


@pytest.mark.parametrize("applied", [[], ["0001_a"]], ids=["by this run", "before it"])
def test_apply_what_another_undid_between_two_transactions_is_refused(path, url, tmp_path, applied):
    """A run does not go on over a hole that somebody made behind it."""
    folder = with_fourth(tmp_path / "sql", ALONE + "SELECT 1;", "0002_x")

    assert ids(migrate.apply(url, folder, steps=len(applied))) == applied

    def report(event):
        if isinstance(event, migrate.Started) and event.step.id == "0002_x":
            query(path, UNMARKED)

    with pytest.raises(LedgerMismatch, match="another run has undone 0001_a while this one was under way"):
        migrate.apply(url, folder, report=report)
    assert tables(path) == ["a", "b"]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("script", ["SELECT 1;", ALONE + "SELECT 1;"], ids=["together", "alone"])
def test_apply_what_another_began_between_two_transactions_is_refused(path, url, tmp_path, script, named):
    """No two runs are at once at a script that cannot run in a transaction.

    None repeats what another left half-way.
    """
    folder = write(tmp_path / "sql", {"1.sql": script, "2.sql": ALONE + "CREATE TABLE x (id);"})
    host, pid = (os.uname().nodename, os.getpid()) if named else (None, None)

    def report(event):
        if isinstance(event, migrate.Committed):
            query(
                path,
                "INSERT INTO _dao_migration VALUES ('2', '2026-01-01', 'applying', '', NULL, '', NULL, NULL, '', ?, ?, "
                "NULL)",
                host,
                pid,
            )

    with pytest.raises(
        LedgerMismatch, match="another run has begun, and not ended, 2 while this one was under way"
    ) as caught:
        migrate.apply(url, folder, report=report)
    assert caught.value.committed == ("1",)
    assert tables(path) == []
    assert migrate.status(url, folder).ids("applied", "unfinished") == ["1", "2"]


def test_rollback_outside_of_a_transaction_without_the_file_stays_outside(path, url, tmp_path):
    """The ledger's text says how it wants to run, too."""
    folder = with_fourth(tmp_path / "sql", ALONE + "CREATE TABLE x (id);", rollback="DROP TABLE x; VACUUM;")
    migrate.apply(url, folder)
    (folder / "0004_x.sql").unlink()
    (folder / "0004_x.rollback.sql").unlink()
    assert ids(migrate.rollback(url, folder)) == ["0004_x"]
    assert tables(path) == ["a", "b", "c"]


# ---------------------------------------------------------------- half-way

ENDINGS = {
    "syntax": ("SELEC 1;", MigrationFailed, 'near "SELEC"'),
    "open transaction": ("BEGIN; CREATE TABLE y (id);", MigrationFailed, "left a transaction open"),
    "failure in its own transaction": ("BEGIN; CREATE TABLE y (id); SELEC 1;", MigrationFailed, 'near "SELEC"'),
    "foreign key": (
        "CREATE TABLE z (id REFERENCES a (id)); INSERT INTO z VALUES (1);",
        CheckFailed,
        "z: id = 1 refers",
    ),
}


@pytest.mark.parametrize(("ending", "error", "message"), ENDINGS.values(), ids=ENDINGS)
def test_apply_failure_outside_of_a_transaction_leaves_it_unfinished(path, url, tmp_path, ending, error, message):
    """What a script did outside of a transaction stays, and is known to be unfinished; those before it stay applied."""
    folder = with_fourth(tmp_path / "sql", f"{ALONE}CREATE TABLE x (id);\n{ending}", "0002_x")
    with pytest.raises(error, match=message) as caught:
        migrate.apply(url, folder)
    assert "what it did before this stays done" in str(caught.value)
    assert "`dao migrate resolve 0002_x`" in str(caught.value)
    assert "othing was changed" not in str(caught.value)
    assert {"x", "y"} & set(tables(path)) == {"x"}
    status = migrate.status(url, folder)
    assert {migration.id: migration.state for migration in status.migrations} == {
        "0001_a": "applied",
        "0002_b": "applied",
        "0002_x": "unfinished",
        "0003_c": "pending",
    }
    assert not status.is_current


def test_apply_report_that_raises_outside_of_a_transaction_leaves_no_transaction_open(theirs, tmp_path):
    """A Ctrl-C between such a script's BEGIN and COMMIT rolls that back and leaves the migration unfinished."""
    folder = with_fourth(tmp_path / "sql", ALONE + "BEGIN; CREATE TABLE x (id); SELECT interrupt(); COMMIT;")

    def interrupt():
        raise KeyboardInterrupt

    theirs.create_scalar_function("interrupt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        migrate.apply(theirs, folder)
    assert not theirs.in_transaction
    assert migrate.status(theirs, folder).ids("unfinished") == ["0004_x"]


def unfinished(path: Path, folder: Path) -> Path:
    """Apply migrations of which the third of four fails half-way, and return their folder."""
    with_fourth(folder, ALONE + "CREATE TABLE x (id); SELEC 1;", "0002_x")
    with pytest.raises(MigrationFailed):
        migrate.apply(f"sqlite:///{path}", folder)
    return folder


def unfinished_rollback(path: Path, folder: Path) -> Path:
    """Apply four migrations, of which the last fails half-way when it is rolled back, and return their folder."""
    with_fourth(folder, ALONE + "CREATE TABLE x (id);", rollback="DROP TABLE x; SELEC 1;")
    migrate.apply(f"sqlite:///{path}", folder)
    with pytest.raises(MigrationFailed, match="what it did before this stays done"):
        migrate.rollback(f"sqlite:///{path}", folder)
    return folder


HALF = (
    f"{ALONE}CREATE TABLE half (id);\nWITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n;"
)


@contextlib.contextmanager
def half_way(path: Path, url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process in the middle of an endless script outside of a transaction; it is killed after the block."""
    with_fourth(folder, HALF, "0002_x")
    process = subprocess.Popen(
        [sys.executable, "-c", f"from dao import migrate; migrate.apply({url!r}, {str(folder)!r})"]
    )
    try:
        wait_until(lambda: path.exists() and "half" in tables(path))
        yield process
    finally:
        process.kill()
        process.wait()


def test_apply_while_one_is_outside_of_a_transaction_says_who(path, url, tmp_path):
    """While such a script runs, all that would run, look ahead, resolve or start a program hear who is at it."""
    folder = tmp_path / "sql"
    with half_way(path, url, folder) as process:
        who = f"process {process.pid}"
        for verb in (migrate.apply, migrate.rollback, migrate.redo):
            with pytest.raises(DatabaseBusy, match=f"held by another migration run, {who}, for longer than 0 s"):
                verb(url, folder, lock_timeout=0)
        for verb in (migrate.plan, lambda url, folder: migrate.unfinished(url, "0002_x", folder)):
            with pytest.raises(DatabaseBusy, match=f"{who} is applying 0002_x, outside of a transaction: wait until"):
                verb(url, folder)
        with pytest.raises(SchemaOutOfDate, match=f"{who} is applying 0002_x, outside of a transaction") as caught:
            migrate.assert_current(url, folder)
        # to wait helps, and nobody has to look
        assert (caught.value.pending, caught.value.unfinished) == (("0002_x", "0003_c"), ())
        # a check said that the run had ended, and to resolve what it was doing
        (fault,) = migrate.check(url, folder).faults
        assert f"{who} is applying 0002_x, outside of a transaction: wait until it has ended" in fault.text


@pytest.mark.sample(2)
@pytest.mark.parametrize("alive", [True, False], ids=["its id is a living process", "its id is nobody's"])
@pytest.mark.parametrize("outcome", ["applied", "rolled back"])
def test_apply_killed_outside_of_a_transaction_leaves_it_unfinished(path, url, tmp_path, alive, outcome):
    """After a kill -9 the script is unfinished, whatever process has its id by now, and can be resolved.

    A container that died in one never started again: in it, pid 1 on the same host is always alive, and counted as the
    one that is at it.
    """
    folder = tmp_path / "sql"
    with half_way(path, url, folder) as process:
        pass
    if alive:
        query(path, "UPDATE _dao_migration SET pid = ? WHERE state <> 'applied'", os.getpid())
    who = os.getpid() if alive else process.pid
    assert migrate.status(url, folder).ids("unfinished") == ["0002_x"]
    assert migrate.status(url, folder).ids("applied") == IDS[:2]
    for verb in (migrate.apply, migrate.rollback, migrate.plan):
        with pytest.raises(LedgerMismatch, match=rf"applying it did not come to its end \(it was process {who}\)"):
            verb(url, folder)
    with pytest.raises(SchemaOutOfDate, match="a run ended in the middle of 0002_x") as caught:
        migrate.assert_current(url, folder)
    assert caught.value.unfinished == ("0002_x",)
    assert migrate.unfinished(url, "0002_x", folder).doing == "applying"
    if outcome == "rolled back":
        query(path, "DROP TABLE half")
    with_fourth(folder, ALONE + "CREATE TABLE half (id);", "0002_x")
    assert migrate.resolve(url, "0002_x", outcome, folder) == "0002_x"
    assert ids(migrate.apply(url, folder)) == [*["0002_x"] * (outcome == "rolled back"), "0003_c"]
    assert migrate.status(url, folder).is_current


def test_apply_killed_on_another_host_is_named_with_it(path, url, tmp_path):
    """A process id means nothing without its host, and a host that died holds no lock on a volume that has moved."""
    folder = unfinished(path, tmp_path / "sql")
    query(path, "UPDATE _dao_migration SET pid = 1, host = 'web-1' WHERE state <> 'applied'")
    with pytest.raises(LedgerMismatch, match=r"did not come to its end \(it was process 1 on web-1\)"):
        migrate.apply(url, folder)
    assert migrate.resolve(url, "0002_x", "rolled back", folder) == "0002_x"


def wait_until(condition) -> None:
    """Wait until a condition holds; a minute is for ever."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


# ---------------------------------------------------------------- until somebody looked


@pytest.mark.parametrize("verb", [migrate.apply, migrate.rollback, migrate.redo, migrate.plan])
def test_apply_while_one_is_unfinished_is_refused_with_the_remedy(path, url, tmp_path, verb):
    """Nothing runs until somebody has said how an unfinished migration ended."""
    folder = unfinished(path, tmp_path / "sql")
    before = dump(path)
    with pytest.raises(LedgerMismatch, match="0002_x: applying it did not come to its end") as caught:
        verb(url, folder)
    assert caught.value.unfinished == ("0002_x",)
    assert "`dao migrate resolve 0002_x`" in str(caught.value)
    assert dump(path) == before


def test_unfinished_migration_is_known_without_yoyos_tables(path, url, tmp_path):
    """Whoever drops yoyo's tables does not make it pending: a plan would have run it again, over what it has done."""
    folder = unfinished(path, tmp_path / "sql")
    query(path, "DROP TABLE _yoyo_migration; DROP TABLE _yoyo_log; DROP TABLE _yoyo_version")
    (id,) = migrate.status(url, folder).ids("unfinished")
    with pytest.raises(LedgerMismatch, match=f"dao migrate resolve {id}"):
        migrate.plan(url, folder)
    assert migrate.resolve(url, id, "rolled back", folder) == id
    assert migrate.status(url, folder).ids("unfinished") == []


def test_assert_current_while_one_is_unfinished_is_refused(path, tmp_path):
    """A program does not start on a schema of which nobody knows how far it got."""
    folder = unfinished(path, tmp_path / "sql")
    connection = apsw.Connection(str(path))
    with pytest.raises(SchemaOutOfDate) as caught:
        migrate.assert_current(connection, folder)
    connection.close()
    assert caught.value.pending == ("0002_x", "0003_c")


def test_mark_unfinished_migration_is_applied(path, url, tmp_path):
    """Marked, an unfinished migration counts as applied, and the next run goes on behind it."""
    folder = unfinished(path, tmp_path / "sql")
    assert migrate.mark(url, ["0002_x"], folder) == ["0002_x"]
    assert ids(migrate.apply(url, folder)) == ["0003_c"]
    assert migrate.status(url, folder).is_current


def test_unmark_unfinished_migration_is_pending_again(path, url, tmp_path):
    """Unmarked, an unfinished migration runs again."""
    folder = unfinished(path, tmp_path / "sql")
    query(path, "DROP TABLE x")
    write(folder, {"0002_x.sql": ALONE + "CREATE TABLE x (id);"})
    assert migrate.unmark(url, ["0002_x"]) == ["0002_x"]
    assert ids(migrate.apply(url, folder)) == ["0002_x", "0003_c"]
    assert migrate.status(url, folder).is_current


@pytest.mark.parametrize(
    ("resolve", "applied"),
    [
        (lambda url, folder: migrate.mark(url, ["0004_x"], folder), [*IDS, "0004_x"]),
        (lambda url, _folder: migrate.unmark(url, ["0004_x"]), IDS),
    ],
    ids=["mark", "unmark"],
)
def test_rollback_unfinished_outside_of_a_transaction_is_resolved_by_hand(path, url, tmp_path, resolve, applied):
    """A rollback script that stops half-way leaves its migration unfinished, until marked or unmarked."""
    folder = unfinished_rollback(path, tmp_path / "sql")
    assert tables(path) == ["a", "b", "c"]
    assert migrate.status(url, folder).ids("unfinished") == ["0004_x"]
    with pytest.raises(LedgerMismatch, match="0004_x: rolling back it did not come to its end"):
        migrate.rollback(url, folder)
    assert resolve(url, folder) == ["0004_x"]
    assert migrate.status(url, folder).ids("applied") == applied
    assert migrate.status(url, folder).ids("unfinished") == []


def test_accept_unfinished_migration_is_refused(path, url, tmp_path):
    """To accept an edit does not say how a rollback ended."""
    folder = unfinished_rollback(path, tmp_path / "sql")
    with pytest.raises(LedgerMismatch, match="0004_x: it was left unfinished"):
        migrate.accept(url, ["0004_x"], folder)
    assert migrate.status(url, folder).ids("unfinished") == ["0004_x"]


def test_status_unfinished_migration_whose_file_has_gone_is_shown(path, url, tmp_path):
    """An unfinished migration does not vanish with its file, and can still be forgotten."""
    folder = unfinished(path, tmp_path / "sql")
    (folder / "0002_x.sql").unlink()
    assert migrate.status(url, folder).ids("unfinished") == ["0002_x"]
    assert not migrate.status(url, folder).is_current
    assert migrate.unmark(url, ["0002_x"]) == ["0002_x"]
    assert migrate.status(url, folder).ids("unfinished") == []


# ---------------------------------------------------------------- resolve


def differences(found) -> tuple[list[str] | None, list[str] | None]:
    """Return how the schema differs from both ends of an unfinished migration: applied, and rolled back."""
    ends = (found.from_applied, found.from_rolled_back)
    applied, rolled_back = (None if end is None else [str(difference) for difference in end] for end in ends)
    return applied, rolled_back


def test_unfinished_shows_how_far_it_is_from_both_ends(path, url, tmp_path):
    """Before somebody says how it ended, the schema is compared with that of both ends; nothing is changed by that."""
    folder = unfinished(path, tmp_path / "sql")
    write(folder, {"0002_x.sql": ALONE + "CREATE TABLE x (id); CREATE TABLE y (id);"})
    before = dump(path)
    found = migrate.unfinished(url, "0002", folder)
    assert (found.id, found.doing) == ("0002_x", "applying")
    assert differences(found) == (["table y is missing"], ["table x is unexpected"])
    assert dump(path) == before
    query(path, "CREATE TABLE y (id)")
    assert differences(migrate.unfinished(url, "0002_x", folder))[0] == []
    query(path, "DROP TABLE x; DROP TABLE y")
    assert differences(migrate.unfinished(url, "0002_x", folder))[1] == []
    assert migrate.status(url, folder).ids("unfinished") == ["0002_x"]


def test_unfinished_rollback_is_compared_with_both_ends(path, url, tmp_path):
    """A rollback that did not end has the same two ends."""
    folder = unfinished_rollback(path, tmp_path / "sql")
    found = migrate.unfinished(url, "0004_x", folder)
    assert found.doing == "rolling back"
    assert differences(found) == (["table x is missing"], [])


def test_unfinished_migration_that_cannot_be_replayed_has_no_comparison(path, url, tmp_path):
    """A text that fails in an empty database cannot be compared with; the other end still is."""
    folder = unfinished(path, tmp_path / "sql")
    assert differences(migrate.unfinished(url, "0002_x", folder)) == (None, ["table x is unexpected"])


@pytest.mark.parametrize("outcome", ["applied", "rolled back"])
@pytest.mark.parametrize("doing", ["applying", "rolling back"])
def test_resolve_notes_the_outcome_and_the_next_run_goes_on(path, url, tmp_path, doing, outcome):
    """Whatever was being done, it counts as applied or as not afterwards, and runs go on from there."""
    if doing == "applying":
        folder, id = unfinished(path, tmp_path / "sql"), "0002_x"
        if outcome == "rolled back":
            query(path, "DROP TABLE x")
    else:
        folder, id = unfinished_rollback(path, tmp_path / "sql"), "0004_x"
        if outcome == "applied":
            query(path, "CREATE TABLE x (id)")
    write(folder, {f"{id}.sql": ALONE + "CREATE TABLE x (id);", f"{id}.rollback.sql": "DROP TABLE x;"})
    assert migrate.resolve(url, id[:4], outcome, folder) == id
    status = migrate.status(url, folder)
    assert (id in status.ids("applied"), id in status.ids("pending")) == (outcome == "applied", outcome != "applied")
    assert (status.ids("unfinished"), status.drift) == ([], ())
    migrate.apply(url, folder)
    assert migrate.status(url, folder).is_current
    assert ids(migrate.rollback(url, folder, steps=None, snapshots=0, allow_data_loss=True))[-1] == "0001_a"


def test_resolve_rollback_as_applied_keeps_its_place(path, url, tmp_path):
    """What was not undone after all stays where it was in the order of application."""
    folder = with_fourth(tmp_path / "sql", ALONE + "CREATE TABLE x (id);", "0000_x", rollback="SELEC 1;")
    migrate.apply(url, folder)
    query(path, "UPDATE _yoyo_migration SET applied_at_utc = '2999-01-01T00:00:00' WHERE migration_id = '0000_x'")
    query(path, "UPDATE _dao_migration SET applied_at_utc = '2999-01-01T00:00:00' WHERE migration_id = '0000_x'")
    applied = migrate.status(url, folder).ids("applied")
    assert applied == [*IDS, "0000_x"]
    with pytest.raises(MigrationFailed):
        migrate.rollback(url, folder)
    migrate.resolve(url, "0000_x", "applied", folder)
    assert migrate.status(url, folder).ids("applied") == applied


def test_resolve_applied_comes_after_what_was_applied_before(url, path, tmp_path):
    """What is resolved as applied is the latest, as if it had come to its end."""
    folder = unfinished(path, tmp_path / "sql")
    write(folder, {"0002_x.sql": ALONE + "CREATE TABLE x (id);"})
    migrate.resolve(url, "0002_x", "applied", folder)
    assert migrate.status(url, folder).ids("applied") == ["0001_a", "0002_b", "0002_x"]


@pytest.mark.parametrize("outcome", ["applied", "rolled back"])
def test_resolve_what_is_not_unfinished_is_refused(path, url, three, outcome):
    """Only what was left unfinished can be resolved, and those that were are named."""
    migrate.apply(url, three)
    before = dump(path)
    nothing = "is unfinished, and no other is"
    for id, refusal in (("0001_a", nothing), ("0009", nothing), ("", "is no id of a migration")):
        with pytest.raises(MigrationError, match=f"'{id}' {refusal}"):
            migrate.resolve(url, id, outcome, three)
        with pytest.raises(MigrationError, match=f"'{id}' {refusal}"):
            migrate.unfinished(url, id, three)
    assert dump(path) == before


def test_resolve_database_that_does_not_exist_is_refused(path, url, three):
    """There is nothing to resolve in what is not there, and it is not made."""
    for verb in (lambda: migrate.unfinished(url, "1", three), lambda: migrate.resolve(url, "1", "applied", three)):
        with pytest.raises(MigrationError, match="does not exist"):
            verb()
    assert not path.exists()


def test_resolve_applied_without_its_file_is_refused(path, url, tmp_path):
    """Without a file there is no text to note; that it was undone can be noted all the same."""
    folder = unfinished(path, tmp_path / "sql")
    (folder / "0002_x.sql").unlink()
    assert differences(migrate.unfinished(url, "0002_x", folder)) == (None, ["table x is unexpected"])
    with pytest.raises(LedgerMismatch, match=r"0002_x: its file has gone.* say --rolled-back") as caught:
        migrate.resolve(url, "0002_x", "applied", folder)
    assert caught.value.missing == ("0002_x",)
    assert migrate.status(url, folder).ids("unfinished") == ["0002_x"]
    migrate.resolve(url, "0002_x", "rolled back", folder)
    assert migrate.status(url, folder).ids("unfinished") == []


def test_resolve_while_its_process_lives_is_refused(path, url, tmp_path):
    """What is still being done has no outcome yet."""
    folder = with_fourth(tmp_path / "sql", ALONE + "CREATE TABLE x (id); SELECT look();")
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(1000)
    caught = []

    def look():
        for outcome in ("applied", "rolled back"):
            with pytest.raises(
                DatabaseBusy, match="of this same thread is under way, and would wait for itself"
            ) as error:
                migrate.resolve(url, "0004_x", outcome, folder)
            caught.append(error)

    connection.create_scalar_function("look", look)
    migrate.apply(connection, folder)
    assert len(caught) == 2
    connection.close()
    assert migrate.status(url, folder).is_current


def test_assert_current_unfinished_names_the_command(path, url, tmp_path):
    """A program that does not start says which command tells what to do."""
    folder = unfinished(path, tmp_path / "sql")
    connection = apsw.Connection(str(path))
    with pytest.raises(SchemaOutOfDate, match=r"in the middle of 0002_x.*`dao migrate resolve 0002_x`"):
        migrate.assert_current(connection, folder)
    connection.close()
