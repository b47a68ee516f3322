"""`dao doctor`: each thing that may be wrong is found, with what it means and what to do; nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from datetime import timedelta

import pytest

import dao
from dao import codec, migrate, sessions, settings, tasks
from dao.diagnosis import examine, place, postgresql, sqlite
from dao.engine import execute
from dao.engine.sqlite.library import has_wal_reset_bug
from dao.testing import make_task
from tests.concurrency import PATIENCE
from tests.folders import query

LAST = "20261128010500_create_task_views"


def found(url, check, *, environ=os.environ):
    """Look, and return what is not well of a check, as pairs of severity and text; all of it says what to do."""
    config = settings.load(database=str(url), environ=environ, folder=os.devnull)
    several = [one for one in examine(config, source="--database", environ=environ).findings if one.check == check]
    assert several
    for one in several:
        assert (one.means is None) == (one.severity == "ok"), one
        assert one.advice or one.severity in {"ok", "note"}, one
    return [(one.severity, one.found) for one in several if one.severity != "ok"]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The search for damage comes to its end, however busy the machine is."""
    monkeypatch.setattr(sqlite, "_PATIENCE", PATIENCE)


@pytest.fixture
def sound(tmp_path):
    """The URL of a database with all migrations applied by a run."""
    url = f"sqlite:///{tmp_path}/sound.db"
    migrate.apply(url)
    return url


# ---------------------------------------------------------------- both engines


@pytest.mark.both_engines
def test_command_says_what_it_found_and_ends_with_5_for_an_error(run, url, connection, monkeypatch):
    """An error fails, a warning does with --strict only, a note never; each line has what it means and what to do."""
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    # made by scripts, not by a run: the ledger has nothing
    outcome = run("doctor", "--json")
    pending = [one for one in outcome.document["findings"] if one["check"] == "migrations"]
    assert outcome.code == (5 if any(one["severity"] == "error" for one in outcome.document["findings"]) else 0)
    assert pending[0]["severity"] == "warning"
    assert pending[0]["found"].startswith("13 migrations pending: 2025")
    told = run("doctor")
    assert f"warning  migrations: {pending[0]['found']}\n         {pending[0]['means']}\n         -> dao" in told.out
    assert run("doctor", "--strict", "--quiet").code == 5


@pytest.mark.both_engines
def test_rows_that_nobody_takes_care_of_are_found(url, connection):
    """Lost tasks, tasks that run without a lease, silent sessions, and times to come."""
    hour = timedelta(hours=1)
    now = codec.now()
    assert found(url, "orphans") == found(url, "times") == []
    claimed = {"status": "running", "attempt": 1, "started_at": now - hour, "worker": "w"}
    tasks.create(connection, make_task(lease_expires_at=now - hour, **claimed))
    tasks.create(connection, make_task(status="running", attempt=1, started_at=now))
    sessions.open(connection, client_id="a", now=now - 48 * hour)
    sessions.open(connection, client_id="b", now=now + hour)
    assert found(url, "orphans") == [
        ("warning", "1 task lost: running, and the lease has ended, the first since 1h"),
        ("note", "1 task running without a worker or a lease"),
        ("note", "1 session active without a heartbeat for a day"),
    ]
    assert found(url, "times") == [("warning", "1 row of sessions with a time to come")]


def test_database_without_our_tables_is_looked_at(tmp_path):
    """Tables of the same names with other columns are no reason to fail."""
    path = tmp_path / "other.db"
    query(path, "CREATE TABLE tasks (id, lease_expires_at)")
    assert found(f"sqlite:///{path}", "orphans")[0][1].startswith("cannot be told: ")


# ---------------------------------------------------------------- SQLite


def test_nothing_is_changed(run, sound, tmp_path, monkeypatch):
    """A look leaves every byte of the database, and makes no file but what SQLite needs to read one in WAL mode."""
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} | {"sound.db-wal": b""}
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    assert run("doctor", "--database", sound).code == 0
    assert run("doctor", "--database", f"sqlite:///{tmp_path}/none.db").code == 5
    (tmp_path / "sound.db-shm").unlink()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_migrations_and_schema_are_told_by_the_status(sound, tmp_path):
    """What is pending, gone or changed by hand is a finding, as `dao status` has it."""
    assert found(sound, "migrations") == found(sound, "schema") == []
    migrate.rollback(sound)
    assert found(sound, "migrations") == [("warning", f"1 migration pending: {LAST}")]
    query(tmp_path / "sound.db", "ALTER TABLE tasks ADD COLUMN by_hand TEXT")
    ((severity, text),) = found(sound, "schema")
    assert (severity, "by_hand" in text) == ("error", True)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ("synchronous=off", "synchronous=off"),
        ("foreign_keys=off", "foreign_keys=off"),
        ("busy_timeout=0", "a busy timeout of 0"),
        ("wal_autocheckpoint=0", "wal_autocheckpoint=0, and no replica is named"),
    ],
)
def test_setting_that_puts_something_at_risk_is_found(sound, parameters, text):
    """A parameter of the URL that is known to lose rows is told, though the database works."""
    assert found(f"{sound}?{parameters}", "settings", environ={})[0][1] == text


def test_settings_that_mean_nothing_or_lack_something_are_found(sound, tmp_path):
    """A variable that is nearly one of ours, a replica without its checkpoints, a path that depends on the folder."""
    assert found(sound, "settings", environ={"DATABASE_POOLSIZE": "3", "DATABASE_HOST": "x"}) == [
        ("note", "DATABASE_POOLSIZE is set, which means nothing here")
    ]
    ((severity, text),) = found(sound, "settings", environ={"DATABASE_REPLICA": str(tmp_path / "replica")})
    assert (severity, text.startswith("a replica is named")) == ("error", True)
    assert found(f"{sound}?wal_autocheckpoint=0", "settings", environ={"DATABASE_REPLICA": "r"}) == []
    assert found("sqlite:///relative.db", "settings", environ={})[0][0] == "note"


def test_file_that_is_missing_or_no_database_is_an_error(tmp_path):
    """Whatever is at the path, there is an answer."""
    assert found(f"sqlite:///{tmp_path}/none.db", "database") == [("error", f"{tmp_path}/none.db does not exist")]
    assert found(f"sqlite:///{tmp_path}/no/folder.db", "permissions")[0][0] == "error"
    (tmp_path / "junk.db").write_bytes(b"junk " * 1000)
    assert found(f"sqlite:///{tmp_path}/junk.db", "database")[0][0] == "error"
    (tmp_path / "none.db-wal").write_bytes(b"x")
    assert found(f"sqlite:///{tmp_path}/none.db", "orphans")[0][0] == "error"


def test_damage_is_found(sound, tmp_path):
    """A file with a page of noughts had nothing but notes."""
    with closing(dao.connect(sound)) as connection:
        tasks.create_many(connection, [make_task() for _ in range(500)])
        connection.execute("PRAGMA wal_checkpoint(truncate)")
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks'")
    assert found(sound, "damage") == []
    file = tmp_path / "sound.db"
    pages = bytearray(file.read_bytes())
    leaf = int.from_bytes(pages[(root - 1) * 4096 + 8 :][:4], "big")  # the tree's last
    pages[(leaf - 1) * 4096 : leaf * 4096] = bytes(4096)
    file.write_bytes(pages)
    ((severity, text),) = found(sound, "damage")
    assert (severity, text.startswith(f"{file} is damaged: ")) == ("error", True)


def test_search_for_damage_ends_in_time(sound, monkeypatch):
    """A large file takes seconds to read: the look says how far it came, and the connection goes on."""
    monkeypatch.setattr(sqlite, "_PATIENCE", -1)
    with closing(dao.connect(sound)) as connection:
        tasks.create_many(connection, [make_task() for _ in range(500)])
        (finding,) = sqlite.looks("sound.db")["damage"](connection)
        assert (finding.severity, "`dao check` reads all" in finding.found) == ("ok", True)
        assert connection.execute("PRAGMA integrity_check").get == "ok"


def test_journal_and_free_pages_are_found(sound, tmp_path, monkeypatch):
    """A WAL that is not brought into the file, pages that deleted rows left, another journal mode, an open write."""
    assert found(sound, "journal") == found(sound, "free pages") == []
    monkeypatch.setattr(sqlite, "_LARGE_WAL", 1000)
    monkeypatch.setattr(sqlite, "_FREE", 1000)
    with closing(dao.connect(sound)) as connection:
        connection.execute("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(2000000)); DROP TABLE filler")
        assert found(sound, "journal")[0][0] == "warning"
        assert found(sound, "free pages")[0][0] == "note"
        connection.execute("BEGIN IMMEDIATE")
        assert found(sound, "locks")[0][1].startswith(f"process {os.getpid()} (this one) holds")
    query(tmp_path / "kept.db", "CREATE TABLE there (id)")
    query(tmp_path / "kept.db", "PRAGMA journal_mode = delete")
    assert found(f"sqlite:///{tmp_path}/kept.db?journal_mode=keep", "journal") == [
        ("warning", "journal_mode is delete")
    ]


def test_permissions_of_the_files_are_found(sound, tmp_path):
    """A database that others may read is a note, one that they may write a warning, one with two names an error."""
    path = tmp_path / "sound.db"
    for mode, severities in ((0o600, []), (0o644, ["note"]), (0o666, ["warning"])):
        path.chmod(mode)
        assert [severity for severity, _ in found(sound, "permissions")] == severities
    path.chmod(0o600)
    os.link(path, tmp_path / "second.db")
    assert found(sound, "permissions")[0][0] == "error"


def test_snapshots_and_unfinished_copies_are_found(sound, tmp_path):
    """Without a snapshot there is a note, and none with one; a copy of a killed process is named, and stays."""
    assert [severity for severity, _ in found(sound, "snapshots")] == ["note"]
    migrate.take_snapshot(sound)
    left = tmp_path / "sound.db.20261128T000000.000Z.partial"
    left.write_bytes(b"")
    assert found(sound, "snapshots") == []
    assert found(sound, "orphans") == [("note", f"a copy that was never finished is beside it: {left.name}")]
    assert left.exists()


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("nfs4 server:/export rw", "error"),
        ("fuse.sshfs me@host: rw", "error"),
        ("9p host rw", "warning"),
        ("tmpfs tmpfs rw", "warning"),
        ("overlay overlay rw", "warning"),
        ("ext4 /dev/sda1 rw", "ok"),
    ],
)
def test_file_system_that_does_not_keep_a_database_is_found(tmp_path, line, severity):
    """Network, memory and container are told by the mount that is the nearest, and the last there."""
    folder = tmp_path / "with blank"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    (tmp_path / "mounts").write_text(
        f"1 0 8:1 / / rw - ext4 /dev/root rw\n2 1 0:1 / {escaped} rw shared:1 - xfs x rw\n"
        f"3 1 0:2 / {escaped} rw - {line}\n4 1 0:3 / {escaped}2 rw - proc proc rw\n"
    )
    findings = {one.check: one for one in place.findings(str(folder / "x.db"), str(tmp_path / "mounts"))}
    assert findings["file system"].severity == severity
    assert findings["disk"].severity == "ok"


def test_room_that_runs_out_is_found(sound, monkeypatch):
    """A disk that a snapshot would fill is a warning, one that writes will fill an error."""
    monkeypatch.setattr(place, "_FACTOR", 10**12)
    assert found(sound, "disk")[0][0] == "warning"
    monkeypatch.setattr(place, "_ROOM", 10**18)
    assert found(sound, "disk")[0][0] == "error"


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        *(("3.6.23", False), ("3.7.0", True), ("3.8.11.1", True), ("3.40.1", True), ("3.44.5", True)),
        *(("3.44.6", False), ("3.45.0", True), ("3.50.6", True), ("3.50.7", False), ("3.51.2", True)),
        *(("3.51.3", False), ("3.53.0", False)),
    ],
)
def test_versions_with_the_wal_reset_bug(version, has_it):
    """They are 3.7.0 to 3.51.2, but for the later releases of 3.44 and 3.50."""
    assert has_wal_reset_bug(version) is has_it


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who has a file open")
def test_process_with_another_sqlite_is_named(sound, tmp_path):
    """A program that has the database open is named with its process and, if that is known, its SQLite's version."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM tasks').fetchall()"
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{code}; print(sqlite3.sqlite_version, flush=True); sys.stdin.read()",
            tmp_path / "sound.db",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        version = process.stdout.readline().strip()
        config = settings.load(database=sound, environ={})
        named = [one for one in examine(config).findings if f"{process.pid} (" in one.found]
        process.stdin.close()
    (one,) = named
    assert version in one.found
    assert one.severity == ("warning" if has_wal_reset_bug(version) else "ok")


# ---------------------------------------------------------------- PostgreSQL


def test_server_is_looked_at(migrated_postgresql_url, monkeypatch):
    """What the test server lacks of durability is told, and nothing else is wrong with it."""
    url = migrated_postgresql_url
    assert ("error", "fsync = off") in found(url, "durability")
    for check in ("server", "permissions", "encryption", "connections", "transactions", "vacuum", "collation", "clock"):
        assert found(url, check) == [], check
    monkeypatch.setattr(postgresql, "_FULL", 0)
    monkeypatch.setattr(postgresql, "_APART", -10)
    assert found(url, "connections")[0][0] == found(url, "clock")[0][0] == "warning"


def test_transaction_that_holds_up_the_server_is_found(postgresql_url, monkeypatch):
    """A session that is idle in a transaction is named, with its process."""
    monkeypatch.setattr(postgresql, "_IDLE", 0)
    with closing(dao.connect(postgresql_url)) as connection:
        execute(connection, "BEGIN")
        pid = connection.info.backend_pid
        assert found(postgresql_url, "transactions")[0][1].startswith(f"process {pid} (")


def test_server_that_cannot_be_reached_is_an_error(run):
    """Where nobody answers that is what was found, without a traceback."""
    outcome = run("doctor", "--database", "postgresql://x@127.0.0.1:1/y", "--json")
    assert outcome.code == 5
    assert [one["check"] for one in outcome.document["findings"] if one["severity"] == "error"] == ["database"]
