"""The history: who did what to a schema, where, when, with which version, and how long it took."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
import sys
from datetime import datetime, timedelta

import apsw
import pytest

from dao import migrate
from dao._version import __version__
from dao.errors import MigrationFailed
from dao.migrate.ledger import backend, writer
from tests.folders import ALONE, IDS, dump, ids, query, with_fourth, write


def deeds(target):
    """Return the history as pairs of operation and migration."""
    return [(deed.operation, deed.id) for deed in migrate.history(target)]


def stock_yoyo(verb, path, folder):
    """Run the stock yoyo command."""
    command = [
        sys.executable,
        "-m",
        "yoyo",
        verb,
        "--batch",
        "--no-config-file",
        "-d",
        f"sqlite:///{path}",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)


def older(path):
    """Make of a database one that an earlier version of this package wrote."""
    query(path, "DROP TABLE _dao_schema; DROP TABLE _dao_history;")


def test_history_database_that_does_not_exist_is_empty(path, url):
    """Nothing was done to what is not there, and to ask creates nothing."""
    assert migrate.history(url) == []
    assert not path.exists()


def test_history_database_without_a_ledger_is_empty(path, url):
    """Nor to a database that no migrations were applied to."""
    query(path, "CREATE TABLE theirs (id)")
    assert migrate.history(url) == []


def test_history_has_every_operation_once_in_order(path, url, three):
    """Each verb that changes something leaves a line for each migration, the oldest first."""
    migrate.apply(url, three, steps=2)
    migrate.mark(url, ["0003_c"], three)
    migrate.unmark(url, ["0003_c"], three)
    migrate.apply(url, three)
    write(three, {"0003_c.sql": "-- Why.\nCREATE TABLE c (id INTEGER PRIMARY KEY);"})
    migrate.accept(url, ["0003_c"], three)
    migrate.rollback(url, three, steps=2)
    migrate.apply(url, three, steps=1)
    migrate.redo(url, three)
    migrate.reset(url, three)
    query(path, "INSERT INTO a VALUES (1)")
    snapshot = migrate.take_snapshot(url)
    migrate.restore(url, snapshot.id)
    first, second, third = IDS
    assert deeds(url) == [
        ("apply", first),
        ("apply", second),
        ("mark", third),
        ("unmark", third),
        ("apply", third),
        ("accept", third),
        ("rollback", third),
        ("rollback", second),
        ("apply", second),
        ("rollback", second),
        ("apply", second),
        ("reset", None),
        ("apply", first),
        ("apply", second),
        ("apply", third),
        ("restore", None),
    ]


def test_order_of_the_ledger_survives_a_clock_that_is_set_back(database, three, monkeypatch):
    """Each migration seems an hour older than the one before: the latest is undone first, and deeds stay in order."""
    hours = iter(range(99, 0, -1))

    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=next(hours))

    for module in (writer, backend):
        monkeypatch.setattr(module, "datetime", SetBack)
    first, second, third = IDS
    migrate.apply(database.url, three)
    assert ids(migrate.rollback(database.url, three)) == [third]
    migrate.redo(database.url, three)
    assert ids(migrate.rollback(database.url, three, steps=2)) == [second, first]
    assert deeds(database.url) == [
        *[("apply", id) for id in IDS],
        *[("rollback", third), ("rollback", second), ("apply", second), ("rollback", second), ("rollback", first)],
    ]


def test_history_deed_says_who_where_when_and_with_what(url, three, monkeypatch):
    """A deed has a time in UTC, the user, the host, the version of this package, and for a script how long it took."""
    monkeypatch.setenv("LOGNAME", "somebody")
    migrate.apply(url, three, steps=1)
    migrate.mark(url, ["0002_b"], three)
    applied, marked = migrate.history(url)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", applied.at)
    assert (applied.user, applied.host, applied.tool_version) == (getpass.getuser(), socket.gethostname(), __version__)
    assert applied.user == "somebody"
    assert applied.duration_ms >= 0
    assert applied.detail is None
    assert marked.duration_ms is None


def test_history_refused_run_leaves_nothing(path, url, three):
    """What was undone was not done."""
    migrate.apply(url, three)
    before = dump(path)["_dao_history"]
    write(three, {"0004_x.sql": "CREATE TABLE x (id);", "0005_y.sql": "SELEC 1;"})
    with pytest.raises(MigrationFailed):
        migrate.apply(url, three)
    assert dump(path)["_dao_history"] == before


def test_history_has_what_the_stock_yoyo_did_once(path, url, three):
    """What yoyo applied and rolled back is there, and told from ours, which is not there twice."""
    migrate.apply(url, three, steps=1)
    stock_yoyo("apply", path, three)
    stock_yoyo("rollback", path, three)
    migrate.apply(url, three)
    assert deeds(url) == [
        ("apply", "0001_a"),
        ("apply", "0002_b"),
        ("apply", "0003_c"),
        ("rollback", "0003_c"),
        ("apply", "0003_c"),
    ]
    versions = [deed.tool_version for deed in migrate.history(url)]
    assert versions == [__version__, None, None, None, __version__]
    assert all(deed.user and deed.host for deed in migrate.history(url))
    assert len(query(path, "SELECT * FROM _yoyo_log")) == len(deeds(url))


def test_history_of_a_database_of_an_earlier_version_goes_on(path, url, three):
    """A ledger without a history of ours has yoyo's log, and a run adds to that."""
    migrate.apply(url, three, steps=2)
    older(path)
    assert deeds(url) == [("apply", "0001_a"), ("apply", "0002_b")]
    assert migrate.status(url, three).ids("applied") == IDS[:2]
    assert ids(migrate.apply(url, three)) == ["0003_c"]
    assert deeds(url) == [("apply", id) for id in IDS]
    assert [deed.tool_version for deed in migrate.history(url)] == [None, None, __version__]
    assert migrate.status(url, three).is_current


def test_history_survives_a_restore(path, url, three):
    """A restore takes back the rows and the schema, but not what happened: it is noted itself."""
    migrate.apply(url, three, steps=1)
    query(path, "INSERT INTO a VALUES (1)")
    snapshot = migrate.take_snapshot(url)
    migrate.apply(url, three, snapshots=0)
    migrate.rollback(url, three, snapshots=0)
    before = migrate.history(url)
    migrate.restore(url, snapshot.id)
    *after, restored = migrate.history(url)
    assert after == before
    assert (restored.operation, restored.id) == ("restore", None)
    assert restored.detail == f"from {snapshot.path.name}"
    migrate.restore(url, snapshot.id)
    assert migrate.history(url)[:-1] == [*after, restored]
    assert migrate.status(url, three).ids("applied") == IDS[:1]


def test_history_of_an_earlier_version_survives_a_restore(path, url, three):
    """So does yoyo's log, where there is no more."""
    migrate.apply(url, three, steps=1)
    query(path, "INSERT INTO a VALUES (1)")
    older(path)
    snapshot = migrate.take_snapshot(url)
    stock_yoyo("apply", path, three)
    migrate.restore(url, snapshot.id)
    assert deeds(url) == [*[("apply", id) for id in IDS], ("restore", None)]


def test_history_unfinished_script_is_there_once_resolved(path, url, tmp_path):
    """What did not come to its end is noted when somebody has said how it ended, with what that was."""
    folder = with_fourth(tmp_path / "sql", ALONE + "CREATE TABLE x (id); SELEC 1;")
    with pytest.raises(MigrationFailed):
        migrate.apply(url, folder)
    assert deeds(url) == [("apply", id) for id in IDS]
    migrate.resolve(url, "0004_x", "rolled back", folder)
    assert deeds(url)[3:] == [("resolve", "0004_x")]
    assert migrate.history(url)[-1].detail == "rolled back"
    query(path, "DROP TABLE x")
    write(folder, {"0004_x.sql": ALONE + "CREATE TABLE x (id);"})
    migrate.apply(url, folder)
    assert deeds(url)[4:] == [("apply", "0004_x")]


def test_history_on_a_connection_of_the_caller_is_the_same(path, url, three):
    """Whoever has a connection need not give it up, and its rows may be made into what they like."""
    migrate.apply(url, three)
    connection = apsw.Connection(str(path))
    connection.row_trace = lambda _cursor, row: {"row": row}
    assert migrate.history(connection) == migrate.history(url)
    connection.close()


def test_history_times_as_an_old_yoyo_wrote_them_are_read(path, url, three):
    """Yoyo before version 9 wrote a blank where there is a T now."""
    migrate.apply(url, three, steps=2)
    query(path, "DELETE FROM _dao_history WHERE migration_id = '0002_b'")
    query(path, "UPDATE _yoyo_log SET created_at_utc = '2020-01-01 00:00:00' WHERE migration_id = '0002_b'")
    assert [deed.id for deed in migrate.history(url)] == ["0002_b", "0001_a"]
    assert migrate.history(url)[0].at == "2020-01-01T00:00:00Z"


def test_history_clock_set_back_keeps_the_order(path, url, three):
    """What was done later comes later, also if the clock was set back between."""
    migrate.apply(url, three, steps=1)
    query(path, "UPDATE _dao_history SET at_utc = '2099-01-01T00:00:00.000000'")
    stock_yoyo("apply", path, three)
    migrate.rollback(url, three, steps=1)
    assert [deed.operation for deed in migrate.history(url) if deed.tool_version] == ["apply", "rollback"]
    assert len(migrate.history(url)) == 4
