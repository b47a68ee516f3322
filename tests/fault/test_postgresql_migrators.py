"""Migrators of a PostgreSQL database that are killed, that lose their server, or that begin at once."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dao import migrate
from dao.errors import CommitUnknown, ConnectionLost, Error, LedgerMismatch
from dao.migrate.schema.postgresql import session
from tests.concurrency import PATIENCE
from tests.engines import terminate, wait_for_end
from tests.fault.migrators import Migrators
from tests.folders import ALONE, ids, write
from tests.servers import Server

FILL = "INSERT INTO {0} SELECT n, repeat('x', 50) FROM generate_series(1, 3000) AS n;"
FOLDER = {
    "0001_parents.sql": f"CREATE TABLE parents (id int PRIMARY KEY, name text); {FILL.format('parents')}",
    "0001_parents.rollback.sql": "DROP TABLE parents;",
    "0002_children.sql": "CREATE TABLE children (id int PRIMARY KEY REFERENCES parents, name text); "
    + FILL.format("children"),
    "0002_children.rollback.sql": "DROP TABLE children;",
    "0003_rebuilt.sql": "CREATE TABLE n AS SELECT id, name, 7 AS kind FROM children; DROP TABLE children; "
    "ALTER TABLE n RENAME TO children;",
    "0003_rebuilt.rollback.sql": "ALTER TABLE children DROP COLUMN kind;",
    "0004_index.sql": f"{ALONE}CREATE INDEX CONCURRENTLY names ON children (name); ANALYZE children;",
    "0004_index.rollback.sql": f"{ALONE}DROP INDEX CONCURRENTLY names;".removeprefix(ALONE),
    "0005_last.sql": f"CREATE TABLE last (id int, name text); {FILL.format('last')}",
    "0005_last.rollback.sql": "DROP TABLE last;",
}
#: What there is after so many of them.
STATES = {
    0: (None, None, None, None),
    1: (3000, None, None, None),
    2: (3000, 3000, None, None),
    3: (3000, 3000, "kind", None),
    4: (3000, 3000, "kind", "names"),
    5: (3000, 3000, "kind", "last"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five migrations, of which the fourth runs outside of a transaction."""
    return write(tmp_path / "sql", FOLDER)


@pytest.fixture
def migrators(tmp_path: Path) -> Iterator[Migrators]:
    """Starts processes that migrate."""
    with Migrators(tmp_path) as migrators:
        yield migrators


def state(url: str) -> tuple[object, ...]:
    """Return what a database holds of the five migrations."""
    with contextlib.closing(psycopg.connect(url)) as connection:

        def count(table: str) -> int | None:
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                return None
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

        kind = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('children') AND attname = 'kind'"
        ).fetchone()
        valid = "SELECT FROM pg_index WHERE indexrelid = to_regclass('names') AND indisvalid"
        index = "names" if connection.execute(valid).fetchone() is not None else None
        last = "last" if count("last") == 3000 else count("last")
        return count("parents"), count("children"), kind and kind[0], last or index


def check(url: str, folder: Path, *, whole: set[int]) -> None:
    """Assert that a database holds what its ledger says, nothing half done, and let the next run go on.

    `whole` are the numbers of migrations that may be applied.
    """
    status = migrate.status(url, folder)
    applied = status.ids("applied")
    assert applied == [f"{number:04}" + id[4:] for number, id in enumerate(_ids(), 1)][: len(applied)]
    assert len(applied) in whole
    if status.ids("unfinished"):
        # it had begun what cannot be undone, and says so
        assert (len(applied), status.ids("unfinished")) == (3, ["0004_index"])
        with pytest.raises(LedgerMismatch, match="0004_index"):
            migrate.apply(url, folder)
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute("DROP INDEX IF EXISTS names")
        migrate.resolve(url, "0004_index", "rolled back", folder)
    assert state(url) == STATES[len(applied)]
    assert ids(migrate.apply(url, folder)) == _ids()[len(applied) :]
    assert state(url) == STATES[5]


def _ids() -> list[str]:
    return [name.removesuffix(".sql") for name in FOLDER if "rollback" not in name]


@pytest.mark.parametrize("number", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [[], ["each"]], ids=["together", "each"])
def test_kill_migrator_leaves_nothing_half_done(server, migrators, folder, options, number):
    """Killed at any moment, a migrator leaves the transactions that it had committed, and no lock."""
    whole = {0, 3, 4, 5} if not options else set(range(6))
    rounds, longest = random.Random(7), 0.0
    for turn in range(number):
        url = server.create()
        begun = time.monotonic()
        pid = migrators.start("apply", url, str(folder), "0005_last", *options)
        if turn == 0:  # to see how long it takes
            assert migrators.wait(pid) == 0, migrators.errors()
            longest = time.monotonic() - begun
        else:
            time.sleep(rounds.uniform(0.1, 1.0) * longest)
            longest *= 1.1 if migrators.kill(pid) else 0.7
            wait_for_the_end(url)  # the server's process goes on to the end of its statement
        check(url, folder, whole=whole)
        server.drop(url)


def attempt(url: str, folder: Path, caught: list[Error]) -> None:
    """Apply everything, and keep the error of this package that it raises."""
    try:
        migrate.apply(url, folder)
    except Error as error:
        caught.append(error)


def wait_for_the_end(url: str) -> None:
    """Wait until no session is at work in a database."""
    with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
        wait_for_end(connection)


def test_kill_server_leaves_nothing_half_done(folder):
    """The server is killed in the middle of runs: what was committed is there, and what is not known is told so."""
    rounds, longest = random.Random(7), 0.0
    with Server(fsync="on", full_page_writes="on") as server:
        for number in range(4):
            name = f"killed_{number}"
            with contextlib.closing(psycopg.connect(server.url("postgres"), autocommit=True)) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            url = server.url(name)
            caught: list[Error] = []
            begun = time.monotonic()
            thread = threading.Thread(target=attempt, args=(url, folder, caught))
            thread.start()
            if number == 0:  # to see how long it takes
                thread.join()
                longest = time.monotonic() - begun
            else:
                time.sleep(rounds.uniform(0.1, 1.0) * longest)
                longest *= 1.1 if thread.is_alive() else 0.7
                server.kill()
                thread.join()
                server.start()
            wait_for_the_end(url)
            applied = len(migrate.status(url, folder).ids("applied"))
            for error in caught:
                assert isinstance(error, ConnectionLost | CommitUnknown), repr(error)
                assert isinstance(error, CommitUnknown) or len(error.committed or ()) == applied
            check(url, folder, whole={0, 3, 4, 5})


def test_connection_that_is_lost_after_a_script_alone_says_what_stays(new_postgresql_url, folder, monkeypatch):
    """It ends as the script's settings are put back: the error had no word of the migrations committed before."""
    check_of = session.Apart.check

    def check_and_end(apart: session.Apart) -> str | None:
        found = check_of(apart)
        if not apart._script.transactional:
            terminate(new_postgresql_url, apart._connection.info.backend_pid)
        return found

    monkeypatch.setattr(session.Apart, "check", check_and_end)
    with pytest.raises(ConnectionLost, match="does not run in a transaction") as caught:
        migrate.apply(new_postgresql_url, folder)
    assert list(caught.value.committed or ()) == _ids()[:3]


@pytest.mark.parametrize("number", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_migrators_at_once_apply_once(server, migrators, folder, number):
    """Of runs that begin together one applies, the others wait for it, and all succeed; also beside CONCURRENTLY."""
    for _ in range(2):
        url = server.create()
        pids = [migrators.start("apply", url, str(folder), "0005_last") for _ in range(number)]
        assert [migrators.wait(pid) for pid in pids] == [0] * number, migrators.errors()
        assert state(url) == STATES[5]
        assert [(one.operation, one.id) for one in migrate.history(url)] == [("apply", id) for id in _ids()]
        server.drop(url)


SLEEPS = "CREATE TABLE half (id int); SELECT pg_sleep(600);"


@pytest.fixture
def sleeping(new_postgresql_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, in the middle of a statement that takes ten minutes."""
    folder = write(tmp_path / "sql", {"0001_a.sql": SLEEPS})
    command = [sys.executable, "-m", "dao", "migrate", "--database", new_postgresql_url]
    process = subprocess.Popen(
        [*command, "--migrations", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with contextlib.closing(psycopg.connect(new_postgresql_url, autocommit=True)) as connection:
        at_work = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while connection.execute(at_work).fetchone() is None:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_interrupted_in_a_statement_cancels_it(new_postgresql_url, sleeping, number, code):
    """Ctrl-C and SIGTERM end the statement on the server, and the command says what stands, and nothing else."""
    sleeping.send_signal(number)
    output, _ = sleeping.communicate(timeout=PATIENCE)
    assert (sleeping.returncode, output.strip()) == (
        code,
        "error: interrupted; what was not committed was rolled back, `dao status` shows what stands",
    )
    wait_for_the_end(new_postgresql_url)
    with contextlib.closing(psycopg.connect(new_postgresql_url)) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)


def test_killed_in_a_statement_frees_the_lock(new_postgresql_url, sleeping, tmp_path):
    """The server notices that nobody waits for the statement any more, and ends it: the next run goes on."""
    sleeping.kill()
    folder = write(tmp_path / "sql", {"0001_a.sql": "CREATE TABLE whole (id int);"})
    assert ids(migrate.apply(new_postgresql_url, folder, lock_timeout=60)) == ["0001_a"]
