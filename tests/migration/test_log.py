"""The log of migrations: what `report=` is told goes to the loggers, too, for programs that pass none."""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import sys

import pytest

import dao
from dao import migrate
from tests.folders import THREE, query, write

NOTHING = {"0004_nothing.sql": "-- nothing\n", "0004_nothing.rollback.sql": "-- nothing\n"}


@pytest.fixture
def folder(tmp_path):
    """Migrations, of which the last does nothing and is told of for that."""
    return write(tmp_path / "migrations", {**THREE, **NOTHING})


@pytest.fixture
def url(tmp_path):
    """The URL of a database that does not exist."""
    return f"sqlite:///{tmp_path}/new.db"


@pytest.mark.parametrize("reports", [True, False])
def test_events_of_a_run_are_logged_in_order(url, folder, caplog, reports):
    """A program that passed no `report=` had nothing in its log about who changed its schema, and how."""
    told: list[migrate.Event] = []
    with caplog.at_level(logging.DEBUG, "dao"):
        migrate.apply(url, folder, report=told.append if reports else None)
        migrate.rollback(url, folder, report=told.append if reports else None)
    if reports:
        assert [record.event for record in caplog.records] == told
    assert {record.name for record in caplog.records} == {"dao.migrate.run"}
    path = url.removeprefix("sqlite:///")
    assert {record.database for record in caplog.records} == {path}
    assert all(record.getMessage() == f"{path}: {record.event}" for record in caplog.records)
    levels = {type(record.event): record.levelname for record in caplog.records}
    assert levels[migrate.Committed] == levels[migrate.Created] == "INFO"
    assert levels[migrate.Notice] == "WARNING"
    assert levels[migrate.Started] == levels[migrate.Finished] == "DEBUG"


def test_log_and_errors_show_the_set_of_each_migration_where_there_are_several(url, folder, tmp_path, caplog):
    """They had the ids alone, unlike all that the commands print."""
    texts = {"1_x.sql": "CREATE TABLE x (id INTEGER);", "1_x.rollback.sql": "DROP TABLE x;"}
    app = migrate.load(write(tmp_path / "app_sql", texts), name="app")
    with caplog.at_level(logging.DEBUG, "dao"):
        migrate.verify([migrate.load(folder), app], set="app", rows=0)
        write(app.folder, {"2_bad.sql": "-- transactional: false\nnonsense;"})
        sets = [migrate.load(folder), migrate.load(app.folder, name="app")]
        with pytest.raises(dao.errors.MigrationFailed) as raised:
            migrate.apply(url, sets, each=True)
    assert raised.value.committed == (
        *(f"migrations/{id}" for id in ("0001_a", "0002_b", "0003_c", "0004_nothing")),
        "app/1_x",
    )
    assert "`dao migrate resolve app/2_bad` shows" in str(raised.value)
    assert "`dao migrate resolve app/2_bad` shows" in migrate.status(url, sets).advice
    with pytest.raises(dao.errors.LedgerMismatch, match="`dao migrate resolve app/2_bad` shows"):
        migrate.apply(url, sets)
    texts = "\n".join(record.getMessage() for record in caplog.records)
    for text in (
        "verifying app/1_x,",
        "applying app/1_x\n",
        "applied app/1_x:",
        "committed app/1_x,",
        " migrations/0004_nothing: holds",
    ):
        assert text in texts
    assert set(re.findall(r"(?:^| )([a-z_]*/?)(?:\d_x|000\d_[a-z]+)", texts)) == {"app/", "migrations/"}


def test_schema_that_somebody_changed_is_logged_where_nothing_is_pending(url, folder, caplog):
    """A service that migrates at its start passes no `report=`: nobody heard that its schema is another."""
    migrate.apply(url, folder)
    caplog.clear()
    query(url.removeprefix("sqlite:///"), "ALTER TABLE a ADD COLUMN by_hand TEXT")
    migrate.apply(url, folder)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dao.migrate.run", "WARNING")
    assert "by_hand" in record.getMessage()


def test_event_that_the_caller_refuses_undoes_the_run_also_while_it_is_logged(url, folder, caplog):
    """The log is told first, and changes nothing in what an exception of `report` does."""

    def refuse(event: migrate.Event) -> None:
        if isinstance(event, migrate.Finished):
            raise KeyError(event)

    with caplog.at_level(logging.DEBUG, "dao"), pytest.raises(KeyError):
        migrate.apply(url, folder, report=refuse)
    assert isinstance(caplog.records[-1].event, migrate.Discarded)
    assert migrate.status(url, folder).ids("applied") == []


def test_rehearsal_and_verification_have_loggers_of_their_own(url, folder, caplog):
    """What is only tried must not look like what was done."""
    migrate.apply(url, folder, to="0001")
    with caplog.at_level(logging.DEBUG, "dao"):
        caplog.clear()
        migrate.rehearse(url, folder)
        assert {record.name for record in caplog.records} == {"dao.migrate.rehearsal"}
        assert migrate.Committed not in {type(record.event) for record in caplog.records}
        caplog.clear()
        migrate.verify(folder)
        assert {record.name for record in caplog.records} == {"dao.migrate.verification"}


def test_password_is_in_no_record(new_postgresql_url, caplog):
    """The database is named without it, as in every message."""
    with contextlib.closing(dao.connect(new_postgresql_url)) as connection:
        user = connection.info.user
    secret = new_postgresql_url.replace("postgresql://", f"postgresql://{user}:s3cret@", 1)
    if "@" in new_postgresql_url:
        secret = new_postgresql_url.replace("@", ":s3cret@", 1)
    dao.log_slow_statements(0)
    try:
        with caplog.at_level(logging.DEBUG):
            migrate.apply(secret, steps=1)
    finally:
        dao.log_slow_statements(None)
    assert "dao.migrate.run" in {record.name for record in caplog.records}
    assert "s3cret" not in caplog.text + str([vars(record) for record in caplog.records if record.name[:3] == "dao"])


def test_program_without_a_log_sees_nothing(tmp_path):
    """A library prints nothing by itself: a warning went to standard error if nobody had asked for a log."""
    script = """
import logging
import dao
from dao import migrate
migrate.apply("sqlite:///new.db")
dao.log_slow_statements(0)
dao.tasks.count(dao.connect("sqlite:///new.db"))
assert [type(handler).__name__ for handler in logging.getLogger("dao").handlers] == ["NullHandler"]
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
