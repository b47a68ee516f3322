"""The commands that take, list and restore snapshots."""

from __future__ import annotations

import os
import re

import pytest

from dao.migrate.copies.snapshot import snapshots, take_snapshot
from tests.cli.calls import misused, plain, refused
from tests.folders import dump, query

URL = "sqlite:///orchestrator.db"


@pytest.fixture
def old(run, path):
    """A snapshot of the migrated database, after which a row came and one went."""
    assert run("migrate").code == 0
    snapshot = take_snapshot(URL)
    query(path, "INSERT INTO a VALUES (1)")
    query(path, "DELETE FROM b")
    return snapshot


# ---------------------------------------------------------------- snapshot, snapshots


def test_snapshot_prints_where_how_large_and_how_long(run, path):
    """One line: the path, the size, the time."""
    run("migrate")
    outcome = run("snapshot")
    (taken,) = snapshots(URL)
    assert (outcome.code, outcome.err) == (0, "")
    assert plain(outcome.out) == f"{taken.path} ({taken.size / 1024:.1f} KB, TIME)\n"
    assert dump(taken.path) == dump(path)


def test_snapshot_json_describes_the_file(run):
    """The document has the database, the seconds, and the snapshot with id, path, time, version and bytes."""
    run("migrate")
    document = run("snapshot", "--json").document
    (taken,) = snapshots(URL)
    assert set(document) == {"ok", "database", "snapshot", "removed", "seconds"}
    assert document["removed"] == []
    assert document["snapshot"] == {
        "id": taken.id,
        "path": str(taken.path),
        "taken_at": taken.taken_at.strftime("%Y-%m-%dT%H:%M:%S.") + taken.id[-4:],
        "version": "0003_c",
        "bytes": taken.size,
        "kind": "manual",
        "label": None,
    }


def test_snapshot_stays_whatever_runs_and_restores_take(run, path):
    """Two pairs of runs removed it without a word, however deliberate it was; what does go is named."""
    run("migrate")
    label = run("snapshot", "--label", "friday", "--json").document["snapshot"]
    asked_for = [run("snapshot", "--json").document["snapshot"] for _ in range(2)]
    said = []
    for _ in range(3):
        for call in (["rollback"], ["migrate"], ["restore", "friday", "--yes"]):
            there = {one.id for one in snapshots(URL)}
            outcome = run(*call)
            assert outcome.code == 0, outcome
            gone = there - {one.id for one in snapshots(URL)}
            assert {
                line.split()[-1] for line in outcome.err.splitlines() if line.startswith("removed the older")
            } == gone
            said += gone
    kinds = [one.kind for one in snapshots(URL)]
    assert (kinds.count("run"), kinds.count("restore"), len(said)) == (3, 3, 3)
    assert {one["id"] for one in (label, *asked_for)} <= {one.id for one in snapshots(URL)}
    listed = run("snapshots").out
    assert re.search(rf"{label['id']} .* 0003_c  friday\n", listed)
    assert re.search(r" 0003_c  \(before a run\)\n", listed)


def test_snapshot_keep_removes_older_ones_and_says_which(run):
    """For a nightly job: so many of those that were asked for are kept, but for labels; each that goes is named."""
    run("migrate")
    run("snapshot", "--label", "stays")
    first = run("snapshot", "--json").document["snapshot"]
    second = run("snapshot", "--json").document["snapshot"]
    outcome = run("snapshot", "--keep", "2")
    assert (outcome.code, outcome.err) == (0, f"removed the older snapshot {first['id']}\n")
    assert run("snapshot", "--keep", "2", "--json").document["removed"] == [second]
    assert [one.label for one in snapshots(URL)] == [None, None, "stays"]
    misused(run("snapshot", "--keep", "0"), "--keep")
    misused(run("snapshot", "--label", "a b"), "letters, digits")


def test_snapshot_to_another_folder_is_kept_and_restored_there(run, partly, tmp_path):
    """On a timer with --keep it fills no disk; what is beside the database has nothing to do with it."""
    refused(run("snapshot", "--to", "elsewhere"), "elsewhere is no folder: make it, or mount what belongs there")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run("snapshot")
    taken = [run("snapshot", "--to", "elsewhere", "--keep", "2", "--json").document["snapshot"] for _ in range(3)]
    assert [str(one.path) for one in snapshots(f"sqlite:///{folder}/{partly.name}")] == [
        taken[2]["path"],
        taken[1]["path"],
    ]
    assert len(snapshots(URL)) == 1
    assert run("restore", taken[1]["path"], "--yes").code == 0


def test_snapshot_no_database_is_refused(run, path):
    """There is nothing to copy, and nothing is made."""
    refused(run("snapshot"), "orchestrator.db does not exist", "dao migrate")
    assert not path.exists()


def test_snapshots_lists_the_newest_first(run, old):
    """A line for each: id, age, size, version."""
    newest = take_snapshot(URL)
    outcome = run("snapshots")
    assert [line.split()[0] for line in outcome.out.splitlines()] == [newest.id, old.id]
    assert re.fullmatch(rf"{newest.id} +\d+ seconds? ago +\d+\.\d KB  0003_c", outcome.out.splitlines()[0])
    listed = run("snapshots", "--json").document["snapshots"]
    assert [one["id"] for one in listed] == [newest.id, old.id]


def test_snapshots_none_says_how_to_take_one(run):
    """It is no error to have none."""
    run("migrate")
    outcome = run("snapshots")
    assert (outcome.code, outcome.out) == (0, "orchestrator.db: no snapshots; `dao snapshot` takes one\n")
    assert run("snapshots", "--json").document == {"ok": True, "database": "orchestrator.db", "snapshots": []}


# ---------------------------------------------------------------- restore


def test_restore_yes_restores_the_newest_and_says_how_to_undo(run, path, old):
    """It names what it restored, and the snapshot of what was there before, which undoes it."""
    before = dump(path)
    outcome = run("restore", "--yes")
    replaced = snapshots(URL)[0]
    assert (outcome.code, outcome.err) == (0, "")
    first, second = outcome.out.splitlines()
    assert re.fullmatch(rf"orchestrator\.db: restored {old.id} \(0003_c, \d+\.\d KB, \d+ seconds? old\)", first)
    assert second == f"what it held before: {replaced.id} (`dao restore {replaced.id}` puts it back)"
    assert query(path, "SELECT count(*) FROM a") == [(0,)]
    assert run("restore", replaced.id, "--yes").code == 0
    assert [dump(path)[name] for name in ("a", "b")] == [before[name] for name in ("a", "b")]


def test_restore_json_is_one_document(run, old):
    """What was restored, what it replaced, and what was damaged."""
    document = run("restore", "--yes", "--json").document
    assert document["database"] == "orchestrator.db"
    assert document["restored"]["id"] == old.id
    assert document["replaced"]["id"] == snapshots(URL)[0].id
    assert document["damaged"] is None


def test_restore_damaged_database_says_where_its_bytes_are(run, path, old):
    """What could not be saved as a snapshot is kept as it was."""
    path.write_bytes(b"this is no database" * 1000)
    outcome = run("restore", "--yes")
    (kept,) = path.parent.glob("*.damaged")
    assert outcome.code == 0
    assert outcome.out.endswith(f"what it held before was damaged; its bytes: {kept}\n")


def test_restore_without_a_terminal_asks_for_yes(run, path, old):
    """In a script nothing is replaced without --yes; the message says what would be."""
    before = dump(path)
    refused(run("restore"), "every row of orchestrator.db", old.id, "no terminal", "--yes")
    assert dump(path) == before


def test_restore_unknown_id_lists_those_there_are(run, path, old):
    """A wrong id is refused with the choice."""
    refused(run("restore", "1999", "--yes"), "no snapshot whose id begins with '1999'", old.id)


def test_restore_keeps_other_snapshots_when_none_are_taken_automatically(run, monkeypatch, old):
    """DATABASE_SNAPSHOTS=0 does not mean that those taken by hand go."""
    monkeypatch.setenv("DATABASE_SNAPSHOTS", "0")
    second = take_snapshot(URL)
    assert run("restore", old.id, "--yes").code == 0
    assert [old, second] == snapshots(URL)[:0:-1]


def test_restore_at_a_terminal_shows_what_changes_and_asks(terminal, path, old):
    """Before the question: the snapshot, its version and age, and the rows per table that differ. Yes restores."""
    screen = terminal("restore")
    screen.until("Replace all that orchestrator.db holds? [y/N]:")
    assert f"orchestrator.db: restore the snapshot {old.id} (0003_c, " in screen.shown
    assert "  a: 1 row -> 0 rows\n  b: 0 rows -> 1 row\n" in screen.shown
    screen.press("y\n")
    assert screen.close() == 0
    assert query(path, "SELECT count(*) FROM a") == [(0,)]


def test_restore_answered_with_no_changes_nothing(terminal, path, old):
    """No is no."""
    before = dump(path)
    screen = terminal("restore")
    screen.until("[y/N]:")
    screen.press("n\n")
    assert screen.close() == 1
    assert "othing was changed" in screen.shown
    assert dump(path) == before
    assert snapshots(URL) == [old]


def test_restore_takes_the_file_name_that_was_printed(run, partly):
    """What `dao snapshot` prints, `dao restore` understands."""
    printed = run("snapshot").out.split(" (")[0]
    assert run("restore", "--yes", printed).code == 0
    assert run("restore", "--yes", "nothing.snapshot").code == 1


@pytest.mark.parametrize("form", ["absolute", "relative", "name", "renamed"])
def test_restore_takes_the_file_at_a_path(run, path, old, tmp_path, form):
    """It is the file that is meant, not the one of its name beside the database, which may be damaged or gone."""
    name = "backup.db" if form == "renamed" else old.path.name
    elsewhere = (tmp_path if form == "name" else tmp_path / "backup") / name
    elsewhere.parent.mkdir(exist_ok=True)
    old.path.rename(elsewhere)
    if form != "name":
        old.path.write_bytes(b"damaged")
    argument = {"absolute": str(elsewhere), "relative": os.path.relpath(elsewhere), "name": name}
    outcome = run("restore", "--yes", argument.get(form, str(elsewhere)))
    assert outcome.code == 0, outcome
    version, shown = ("unknown", name) if form == "renamed" else ("0003_c", old.id)
    assert outcome.out.startswith(f"orchestrator.db: restored {shown} ({version}, ")
    assert query(path, "SELECT count(*) FROM b") == [(1,)]


def test_restore_empty_id_is_wrong_usage(run, partly):
    """A variable that is not set does not come to mean the newest snapshot."""
    run("snapshot")
    outcome = run("restore", "--yes", "")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the ID is empty" in outcome.err
