"""No command changes a setting of a database, and none writes into its file while it has nothing to do."""

from __future__ import annotations

import contextlib

import pytest

import dao
from dao import migrate
from tests.cli.calls import CALLS
from tests.folders import ALONE, query, write

#: A call of each command that has nothing to do in a database where everything is applied.
IDLE = {
    **{name: CALLS[name] for name in ("migrate", "init", "status", "plan", "health", "wait", "adopt", "history")},
    **{name: CALLS[name] for name in ("rehearse", "snapshot", "snapshots", "schema", "lint", "verify", "mark", "new")},
    "rollback": ["rollback", "--to", "0003"],
}
#: A call of each command that changes something.
BUSY = {
    "migrate": ["migrate"],
    "rollback": ["rollback", "--steps", "1"],
    "redo": ["redo"],
    "reset": ["reset", "--yes"],
    "mark": ["mark", "0003"],
    "unmark": ["unmark", "0002"],
    "accept": ["accept", "0002"],
    "restore": ["restore", "--yes"],
}


def beside(path):
    """Return what SQLite has put beside a database."""
    return sorted(entry.name for entry in path.parent.glob("*.db-*"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("name", IDLE)
def test_command_with_nothing_to_do_leaves_every_byte(run, path, name, mode):
    """A command with nothing to do changes no byte and no journal mode.

    `migrate`, `health` and `wait` switched a rollback-journal database to WAL for good, and `mark` wrote its ledger.
    """
    run("migrate")
    query(path, f"PRAGMA journal_mode = {mode}")
    before = path.read_bytes()
    assert run(*IDLE[name]).code == 0
    assert path.read_bytes() == before
    if mode == "delete":  # who only reads cannot remove what WAL mode needs beside the file
        assert beside(path) == []


def test_apply_no_step_creates_no_database(path, folder):
    """Without anything to do there is nothing to create: `steps=0` left an empty database."""
    assert migrate.apply(f"sqlite:///{path}", folder, steps=0) == []
    assert not path.exists()


@pytest.mark.parametrize("name", BUSY)
def test_command_with_something_to_do_keeps_the_settings_of_the_file(run, partly, name):
    """The journal mode and the page size are whose database it is; every command that wrote set WAL, without a word."""
    query(partly, "PRAGMA journal_mode = delete")
    query(partly, "PRAGMA page_size = 8192; PRAGMA auto_vacuum = full; VACUUM")
    run("snapshot")
    before = partly.read_bytes()
    assert run(*BUSY[name]).code == 0
    assert partly.read_bytes()[16:24] == before[16:24]
    assert partly.read_bytes() != before
    assert query(partly, "PRAGMA auto_vacuum") == [(1,)]


def test_url_says_which_journal_mode(run, path, monkeypatch):
    """A new database is in WAL mode, and one that is there becomes so, if the URL says what it should be."""
    assert run("migrate", "-d", "sqlite:///kept.db?journal_mode=keep").code == 0
    assert query(path.with_name("kept.db"), "PRAGMA journal_mode") == [("delete",)]
    assert run("migrate").code == 0
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    query(path, "PRAGMA journal_mode = delete")
    assert run("migrate", "-d", "sqlite:///orchestrator.db?journal_mode=wal").code == 0
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


# ---------------------------------------------------------------- what a script sets

#: By what a script sets: the script, what is said of it (None: nothing), and what is so afterwards.
SET = {
    "page size": (
        "PRAGMA page_size = 8192; VACUUM;",
        "page_size = 8192 had no effect, it is 4096",
        ("page_size", 4096),
    ),
    "page size and mode": (
        "PRAGMA journal_mode = delete; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = wal;",
        None,
        ("page_size", 8192),
    ),
    "auto_vacuum": ("PRAGMA auto_vacuum = incremental; VACUUM;", None, ("auto_vacuum", 2)),
    "auto_vacuum alone": ("PRAGMA auto_vacuum = 1;", "auto_vacuum = 1 had no effect, it is 0", ("auto_vacuum", 0)),
    "encoding": ("PRAGMA encoding = 'UTF-16';", "encoding = utf-16 had no effect, it is utf-8", ("encoding", "UTF-8")),
    "encoding as it is": ("PRAGMA encoding = UTF8;", None, ("encoding", "UTF-8")),
    "wal": ("PRAGMA journal_mode = WAL;", None, ("journal_mode", "wal")),
    "delete": ("PRAGMA journal_mode = delete;", "dao.connect sets wal again", ("journal_mode", "delete")),
    "memory": ("PRAGMA journal_mode = memory;", "dao.connect sets wal again", ("journal_mode", "delete")),
}


@pytest.mark.parametrize(("script", "said", "after"), SET.values(), ids=SET)
def test_setting_of_the_file_that_has_no_effect_is_said(run, path, folder, script, said, after):
    """What a script outside of a transaction sets either is so afterwards, or there is a notice: nothing was said."""
    write(folder, {"0004_x.sql": ALONE + script, "0005_y.sql": "CREATE TABLE y (id);"})
    outcome = run("migrate", "--no-snapshot")
    assert outcome.code == 0
    assert (said or "") in outcome.err
    assert len(outcome.err.splitlines()) == 1 + bool(said), outcome  # the first says that the database is new
    assert query(path, f"PRAGMA {after[0]}") == [(after[1],)]
    assert run("migrate").code == 0
    assert query(path, f"PRAGMA {after[0]}") == [(after[1],)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("wanted", ["wal", "delete", "memory", "off"])
def test_journal_mode_in_a_transaction_is_ignored_and_said(run, path, folder, mode, wanted):
    """Set by a script of the run it failed, did nothing, or took the rollback away that all or nothing stands on."""
    run("migrate")
    query(path, f"PRAGMA journal_mode = {mode}")
    write(folder, {"0004_x.sql": f"PRAGMA journal_mode = {wanted}; PRAGMA page_size = 4096; CREATE TABLE x (id);"})
    heard = run("migrate", "--no-snapshot").err
    assert (f"ignored PRAGMA journal_mode = {wanted}: it changes outside of a transaction" in heard) == (wanted != mode)
    assert query(path, "PRAGMA journal_mode") == [(mode,)]
    assert migrate.status(f"sqlite:///{path}", folder).is_current


@pytest.mark.parametrize("wanted", ["memory", "truncate", "persist"])
@pytest.mark.parametrize("end", ["", "SELECT bad;"], ids=["runs", "fails"])
def test_rollback_journal_of_a_script_is_not_that_of_the_caller(path, folder, wanted, end):
    """A kill leaves a damaged file where the journal is in memory: after a script that failed, it stayed there."""
    connection = dao.connect(f"sqlite:///{path}")
    migrate.apply(connection, folder)
    write(folder, {"0004_x.sql": f"{ALONE}PRAGMA journal_mode = {wanted};{end}"})
    with contextlib.suppress(dao.MigrationError):
        migrate.apply(connection, folder, snapshots=0)
    assert connection.pragma("journal_mode") == "delete"
    connection.close()
