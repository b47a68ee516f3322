"""Which steps of a run are committed together, and that the run says so."""

from __future__ import annotations

import re

import pytest

from dao import migrate
from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.run.parts import parts
from tests.folders import ids, query, tables, write

SHARES, ENFORCED, ALONE = "SELECT 1;", "-- foreign_keys: on\nSELECT 1;", "-- transactional: false\nSELECT 1;"


@pytest.mark.parametrize(
    ("scripts", "together", "each"),
    [
        ([SHARES], [[1]], [[1]]),
        ([SHARES, SHARES, SHARES], [[1, 2, 3]], [[1], [2], [3]]),
        ([SHARES, SHARES, ENFORCED, SHARES, SHARES], [[1, 2], [3], [4, 5]], [[1], [2], [3], [4], [5]]),
        ([ENFORCED, ENFORCED], [[1], [2]], [[1], [2]]),
        ([ALONE, SHARES, ALONE, ALONE], [[1], [2], [3], [4]], [[1], [2], [3], [4]]),
        ([ENFORCED, ALONE, SHARES, SHARES], [[1], [2], [3, 4]], [[1], [2], [3], [4]]),
    ],
)
def test_parts_are_committed_one_by_one(url, tmp_path, scripts, together, each):
    """Neighbours share a transaction, except for those that cannot or may not.

    A run and its rehearsal commit just these.
    """
    folder = write(tmp_path / "sql", {f"{number}.sql": text for number, text in enumerate(scripts, 1)})
    steps = migrate.plan(url, folder)
    for option, expected in ((False, together), (True, each)):
        found = parts(steps, each=option)
        assert [[int(step.id) for step in part.steps] for part in found] == expected
        for part in found:
            (text,) = {scripts[int(step.id) - 1] for step in part.steps}
            assert (part.transactional, part.foreign_keys) == (text != ALONE, text == ENFORCED)
    assert parts([]) == []
    events = []
    migrate.apply(url, folder, report=events.append)
    committed = [event for event in events if isinstance(event, migrate.Committed)]
    assert [[int(id) for id in event.ids] for event in committed] == together
    assert all(event.seconds > 0 for event in committed)


def test_committed_is_told_of_what_stays_when_a_later_part_fails(path, url, tmp_path):
    """What was told as committed is there after a failure, and the error has the same ids."""
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE a (x);", "2.sql": ALONE, "3.sql": "nonsense;"})
    events = []
    with pytest.raises(MigrationFailed, match=r"These stay committed: 1, 2\.$") as caught:
        migrate.apply(url, folder, report=events.append)
    assert caught.value.committed == ("1", "2")
    assert [event.ids for event in events if isinstance(event, migrate.Committed)] == [("1",), ("2",)]
    assert tables(path) == ["a"]


def test_error_of_a_script_alone_has_what_is_committed_and_advice(path, url, tmp_path):
    """Outside of a transaction part of a script may be done, so nobody says that nothing was changed."""
    script = "-- transactional: false\nCREATE TABLE b (x); nonsense;"
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE a (x);", "2.sql": script})
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, folder)
    assert caught.value.committed == ("1",)
    assert caught.value.advice.startswith("2 does not run in a transaction: what it did before this stays done.")
    other = f"{url}.other"
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(other, write(tmp_path / "alone", {"2.sql": script}))
    assert (caught.value.committed, "Nothing was changed" in str(caught.value)) == (None, False)
    assert tables(path) == ["a", "b"]


def test_error_of_a_loss_alone_has_both_advices(url, tmp_path):
    """What would have let the script pass is said, and what to do since it has run."""
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE a (x); INSERT INTO a VALUES (1);"})
    migrate.apply(url, folder)
    write(folder, {"2.sql": "-- transactional: false\nDROP TABLE a;"})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, folder)
    assert re.match(r"Mend the script; or, .* --allow-loss a\n2 does not run in a transaction: ", caught.value.advice)


def test_redo_is_committed_as_one(path, url, tmp_path):
    """A rollback and what is applied again share a transaction, and the event has the id of each step."""
    folder = write(tmp_path / "sql", {"1.sql": "CREATE TABLE a (x);", "1.rollback.sql": "DROP TABLE a;"})
    migrate.apply(url, folder)
    events = []
    assert ids(migrate.redo(url, folder, report=events.append)) == ["1", "1"]
    assert [event.ids for event in events if isinstance(event, migrate.Committed)] == [("1", "1")]
    assert query(path, "SELECT count(*) FROM a") == [(0,)]
