"""The stock `yoyo` command on the same folder and ledger, through our backend and through its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest
import yoyo as yoyo_package
from yoyo.exceptions import LockTimeout
from yoyo.scripts.main import main

from dao import migrate
from dao.errors import DatabaseBusy, MigrationError, MigrationFileError
from tests.folders import ALONE, IDS, THREE, dump, ids, query, schema, tables, write

YOYO = str(Path(sys.executable).with_name("yoyo"))
OWN = migrate.default_folder()
OWN_IDS = ids(migrate.load())

#: How the command is told to open the database: with our backend, and with its own.
SCHEMES = {"our backend": "sqlite+apsw:///", "its own backend": "sqlite:///"}
both_backends = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
OURS = SCHEMES["our backend"]


def command(verb: str, database: str, folder: Path, *arguments: str) -> list[str]:
    return [YOYO, verb, "--batch", "--no-config-file", "--database", database, *arguments, str(folder)]


def yoyo(verb: str, database: str, folder: Path, *arguments: str) -> str:
    """Run the stock command in a process of its own, which must succeed, and return what it prints."""
    done = subprocess.run(command(verb, database, folder, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def yoyo_here(verb: str, path: Path, folder: Path, *arguments: str) -> None:
    """Run the stock command with our backend in this process: there it shares our SQLite, and starts in no time."""
    assert not main(command(verb, f"{OURS}{quote(str(path))}", folder, *arguments)[1:])


def listed(database: str, folder: Path) -> dict[str, str]:
    """Return what `yoyo list` says of each migration: A for applied, U for unapplied."""
    lines = yoyo("list", database, folder).splitlines()
    rows = [line.split() for line in lines]
    return {row[1]: row[0] for row in rows if len(row) > 1 and row[0] in {"A", "U"}}


# ---------------------------------------------------------------- both ways round


@both_backends
def test_yoyo_lists_and_rolls_back_what_dao_applied(path, url, scheme):
    """What `apply` applied, `yoyo list` shows and `yoyo rollback` undoes; and then all is pending here, too."""
    migrate.apply(url)
    before = schema(path)
    assert listed(f"{scheme}{path}", OWN) == dict.fromkeys(OWN_IDS, "A")
    assert migrate.status(url).is_current
    yoyo("rollback", f"{scheme}{path}", OWN, "--all")
    assert schema(path) == []
    assert migrate.status(url).ids("pending") == OWN_IDS
    assert ids(migrate.apply(url)) == OWN_IDS
    assert schema(path) == before
    assert migrate.status(url).is_current


@both_backends
def test_dao_rolls_back_what_yoyo_applied(path, url, scheme):
    """What `yoyo apply` applied, `rollback` undoes in yoyo's order; and then `yoyo list` shows all as unapplied."""
    yoyo("apply", f"{scheme}{path}", OWN)
    assert migrate.status(url).ids("applied") == OWN_IDS
    assert migrate.status(url).is_current
    assert migrate.apply(url) == []
    assert ids(migrate.rollback(url)) == OWN_IDS[-1:]
    assert ids(migrate.rollback(url, steps=None)) == OWN_IDS[-2::-1]
    assert schema(path) == []
    assert listed(f"{scheme}{path}", OWN) == dict.fromkeys(OWN_IDS, "U")


def test_dao_and_yoyo_take_turns(path, url, three):
    """Each goes on where the other left off, in both directions."""
    database = f"{SCHEMES['its own backend']}{path}"
    yoyo("apply", database, three, "--revision", "0001_a")
    assert ids(migrate.apply(url, three, steps=1)) == ["0002_b"]
    yoyo_here("apply", path, three)
    assert migrate.status(url, three).ids("applied") == IDS
    assert ids(migrate.rollback(url, three)) == ["0003_c"]
    yoyo("rollback", database, three, "--revision", "0002_b")
    assert ids(migrate.rollback(url, three)) == ["0001_a"]
    assert tables(path) == []


@pytest.mark.sample(2)
@both_backends
def test_yoyo_says_what_it_does(path, three, scheme):
    """With `-vv` the command names each migration that it applies and marks.

    Through our backend it did one of the two.
    """
    told = {}
    for verb, arguments in (("apply", ["--revision", "0001_a"]), ("mark", [])):
        called = command(verb, f"{scheme}{path}", three, "-vv", *arguments)
        done = subprocess.run(called, capture_output=True, text=True, check=True)
        told[verb] = [line.rpartition(":")[2] for line in done.stderr.splitlines() if " - " not in line]
    assert told["apply"] == ["Applying 0001_a", "Marking 0001_a applied"]
    assert told["mark"] == [f"Marking {id} applied" for id in ("0002_b", "0003_c")]


def test_ledger_is_the_one_that_yoyo_makes(path, url, tmp_path, three):
    """Yoyo's tables are those that yoyo itself makes, to the letter."""
    migrate.apply(url, three)
    theirs = tmp_path / "theirs.db"
    yoyo("apply", f"{SCHEMES['its own backend']}{theirs}", three)
    sql = "SELECT name, sql FROM sqlite_schema WHERE name LIKE '_yoyo_%' AND tbl_name <> 'yoyo_lock' ORDER BY name"
    assert query(path, sql) == query(theirs, sql)
    rows = "SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY migration_id"
    assert query(path, rows) == query(theirs, rows)
    assert query(path, "SELECT version FROM _yoyo_version ORDER BY 1") == query(
        theirs, "SELECT version FROM _yoyo_version ORDER BY 1"
    )


def test_yoyo_through_our_backend_upgrades_an_old_ledger_and_no_other(path, url, three):
    """A ledger without yoyo's version is not taken for one of yoyo 5.

    It was, and a single row of that table's columns replaced it.
    """
    query(path, "CREATE TABLE _yoyo_migration (id VARCHAR(191) NOT NULL PRIMARY KEY, ctime TIMESTAMP)")
    query(path, f"{THREE['0001_a.sql']}; INSERT INTO _yoyo_migration VALUES ('0001_a', '2018-01-15 01:00:00')")
    yoyo_here("list", path, three)
    assert ids(migrate.apply(url, three)) == ["0002_b", "0003_c"]
    query(path, "DROP TABLE _yoyo_version; DROP TABLE _yoyo_log")
    with pytest.raises(MigrationError, match=r"has no version that yoyo .* knows: .* or somebody has changed it"):
        yoyo_here("list", path, three)
    with pytest.raises(MigrationError, match="or somebody has changed it"):
        migrate.unmark(url, ["0003_c"], three)
    assert migrate.status(url, three).ids("applied") == IDS


def test_status_after_yoyo_applied_an_edited_file_is_not_changed(path, url, three):
    """A checksum of an earlier application says nothing about a later one, which yoyo made."""
    migrate.apply(url, three)
    database = f"{SCHEMES['its own backend']}{path}"
    yoyo("rollback", database, three, "--revision", "0003_c")
    assert query(path, "SELECT count(*) FROM _dao_migration") == [(3,)]
    write(three, {"0003_c.sql": "CREATE TABLE cc (id);", "0003_c.rollback.sql": "DROP TABLE cc;"})
    assert migrate.status(url, three).ids("pending") == ["0003_c"]
    yoyo("apply", database, three)
    assert migrate.status(url, three).is_current
    assert ids(migrate.rollback(url, three)) == ["0003_c"]
    assert tables(path) == ["a", "b"]


def test_accept_what_yoyo_applied_is_watched_from_then_on(path, url, three):
    """An edit of what yoyo applied goes unnoticed until its texts are accepted into the ledger."""
    yoyo_here("apply", path, three)
    write(three, {"0001_a.sql": "SELECT 1;"})
    assert migrate.status(url, three).is_current
    assert migrate.accept(url, IDS, three) == IDS
    write(three, {"0001_a.sql": THREE["0001_a.sql"]})
    assert migrate.status(url, three).ids("changed") == ["0001_a"]


# ---------------------------------------------------------------- yoyo's lock


def lock(path: Path, pid: int, since: datetime | None = None) -> None:
    """Leave yoyo's lock row of a process in the database, taken at a time in UTC, or now."""
    since = since or datetime.now(UTC)
    query(
        path, "CREATE TABLE yoyo_lock (locked INT DEFAULT 1, ctime TIMESTAMP, pid INT NOT NULL, PRIMARY KEY (locked))"
    )
    query(path, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, ?, ?)", f"{since:%Y-%m-%d %H:%M:%S.%f}", pid)


@pytest.mark.parametrize(
    "verb",
    [
        migrate.apply,
        migrate.rollback,
        migrate.redo,
        migrate.reset,
        lambda url, folder: migrate.mark(url, ["0003_c"], folder),
        lambda url, _folder: migrate.unmark(url, ["0001_a"]),
        lambda url, folder: migrate.accept(url, ["0001_a"], folder),
    ],
    ids=["apply", "rollback", "redo", "reset", "mark", "unmark", "accept"],
)
def test_apply_while_a_living_yoyo_holds_its_lock_is_refused(path, url, three, verb):
    """The lock row of a process that lives is respected, and the process named."""
    migrate.apply(url, three, steps=2)
    lock(path, os.getppid())
    before = dump(path)
    with pytest.raises(
        DatabaseBusy, match=rf"a yoyo command \(process {os.getppid()}\) holds its lock .* `yoyo break-lock --database "
    ):
        verb(url, three)
    assert dump(path) == before
    assert migrate.status(url, three).ids("pending") == ["0003_c"]


def test_apply_lock_of_a_dead_yoyo_is_ignored(path, url, three):
    """The lock row that a killed command left behind stops nobody."""
    migrate.apply(url, three, steps=2)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    lock(path, gone.pid)
    assert ids(migrate.apply(url, three)) == ["0003_c"]


def test_apply_lock_row_older_than_the_process_of_its_id_is_ignored(path, url, three):
    """A process that began after a row was written is not the one that wrote it.

    The row of a yoyo that was killed in a container stopped all that ever ran in it: its id is theirs, too.
    """
    migrate.apply(url, three, steps=2)
    lock(path, os.getpid(), datetime(2025, 1, 15, 1, tzinfo=UTC))
    assert ids(migrate.apply(url, three)) == ["0003_c"]


def test_apply_lock_row_of_this_process_is_respected(path, url, three):
    """A program may hold yoyo's lock itself: it began before it took that."""
    migrate.apply(url, three, steps=2)
    lock(path, os.getpid())
    with pytest.raises(DatabaseBusy, match=rf"a yoyo command \(process {os.getpid()}\) holds its lock"):
        migrate.apply(url, three)


@pytest.mark.parametrize("since", ["", "yesterday"])
def test_apply_lock_row_without_a_time_is_respected(path, url, three, since):
    """Where it cannot be known whether the process is another one, it may be the same."""
    lock(path, os.getpid())
    query(path, "UPDATE yoyo_lock SET ctime = ?", since)
    with pytest.raises(DatabaseBusy, match="a yoyo command"):
        migrate.apply(url, three)


def test_apply_lock_of_yoyo_is_removed_by_the_command_that_is_named(tmp_path, three):
    """The refusal names a command that works as it is, wherever the file is."""
    (tmp_path / "da ta").mkdir()
    path = tmp_path / "da ta" / "a b#c?d%20é.db"
    lock(path, os.getppid())
    with pytest.raises(DatabaseBusy) as caught:
        migrate.apply(f"sqlite:///{quote(str(path))}", three)
    [command] = re.findall("run `yoyo (break-lock .*)`", str(caught.value))
    done = subprocess.run(
        [YOYO, *shlex.split(command), "--batch", "--no-config-file"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert query(path, "SELECT * FROM yoyo_lock") == []
    assert ids(migrate.apply(f"sqlite:///{quote(str(path))}", three)) == IDS


def test_yoyo_through_our_backend_waits_for_a_run_of_ours(path, url, three):
    """Through our backend the stock command takes the lock of our runs: it ran a script beside one that ran it."""
    backend = yoyo_package.get_backend(f"{OURS}{path}")
    refused = []

    def take():
        with pytest.raises(LockTimeout, match="another migration run") as caught, backend.lock(0.01):
            raise AssertionError
        refused.append(caught)

    def report(event):
        if isinstance(event, migrate.Started):
            with ThreadPoolExecutor(1) as other:
                other.submit(take).result()

    write(three, {"0003_c.sql": ALONE + "CREATE TABLE c (id);"})
    assert ids(migrate.apply(url, three, report=report)) == IDS
    assert len(refused) == len(IDS)
    with backend.lock(), backend.lock():  # the same one may take it again
        pass


def test_yoyo_through_our_backend_is_not_stopped_by_a_dead_lock(path, three):
    """Through our backend the stock command takes no lock row, and waits for none."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    lock(path, gone.pid)
    yoyo_here("apply", path, three)
    assert tables(path) == ["a", "b", "c"]


# ---------------------------------------------------------------- our backend


def test_yoyo_apply_through_our_backend_fails_without_a_trace(path, url, three):
    """A script that fails is not marked, and what it did before is undone."""
    migrate.apply(url, three, steps=2)
    write(three, {"0003_c.sql": "CREATE TABLE c (id);\nINSERT INTO c VALUES (1);\nINSERT INTO nope VALUES (1);"})
    yoyo_here("list", path, three)  # creates the lock table
    before = dump(path)
    with pytest.raises(apsw.SQLError, match="no such table: nope"):
        yoyo_here("apply", path, three)
    assert dump(path) == before


def test_yoyo_rollback_through_our_backend_fails_without_a_trace(path, url, three):
    """A rollback that fails is not unmarked, and what it did before is undone."""
    migrate.apply(url, three)
    write(three, {"0003_c.rollback.sql": "DROP TABLE nope;\nDROP TABLE c;"})
    yoyo_here("list", path, three)
    before = dump(path)
    with pytest.raises(apsw.SQLError, match="no such table: nope"):
        yoyo_here("rollback", path, three, "--revision", "0003_c")
    assert dump(path) == before


def test_yoyo_through_our_backend_refuses_a_script_that_is_broken_off(path, tmp_path):
    """A comment that never ends stops the stock command, too.

    It passed over the rest, and noted the script as applied.
    """
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE a (id);\n/* open\nCREATE TABLE b (id);"})
    with pytest.raises(MigrationFileError, match=r"1_a\.sql:2: a comment begins here"):
        yoyo_here("apply", path, folder)
    assert tables(path) == []


def test_yoyo_through_our_backend_runs_other_peoples_scripts(path, url, tmp_path):
    """Rows in the middle, double-quoted strings, triggers, and what cannot run in a transaction."""
    folder = write(
        tmp_path / "sql",
        {
            "1.sql": (
                'PRAGMA journal_mode; CREATE TABLE a (x DEFAULT "it; is"); INSERT INTO a VALUES ("it; is"); '
                "SELECT * FROM a;"
            ),
            "1.rollback.sql": "DROP TABLE a;",
            "2.sql": (
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = 2; SELECT 1; END; INSERT INTO a VALUES (1);"
            ),
            "2.rollback.sql": "DROP TRIGGER t;",
            "3.sql": ALONE + "VACUUM;\nCREATE TABLE b (id);",
            "3.rollback.sql": "DROP TABLE b;",
        },
    )
    yoyo_here("apply", path, folder)
    assert query(path, "SELECT x FROM a") == [(2,), (2,)]
    assert tables(path) == ["a", "b"]
    assert migrate.status(url, folder).is_current
    yoyo_here("rollback", path, folder, "--all")
    assert schema(path) == []


def test_yoyo_through_our_backend_opens_the_file_that_is_named(tmp_path, three):
    """A name with blanks and characters that mean something in a URL is that file and no other."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a b#c?d%20é.db"
    yoyo_here("apply", path, three)
    assert tables(path) == ["a", "b", "c"]
    assert {entry.name.removesuffix("-wal").removesuffix("-shm") for entry in path.parent.iterdir()} == {path.name}


def test_yoyo_through_our_backend_keeps_its_ledger_in_the_table_that_is_named(path, three):
    """`--migration-table` has it made under that name, and found there again."""
    for _ in range(2):
        yoyo_here("apply", path, three, "--migration-table", "ours")
    assert query(path, "SELECT migration_id FROM ours ORDER BY applied_at_utc") == [(id,) for id in IDS]
    assert "_yoyo_migration" not in tables(path)


def test_yoyo_apply_several_at_once_applies_once(path, url, three):
    """Two commands through our backend and one run of ours on a new file: all succeed, and each script ran once."""
    program = "import sys; from dao import migrate; migrate.apply(*sys.argv[1:])"
    commands = [command("apply", f"{OURS}{path}", three)] * 2 + [[sys.executable, "-c", program, url, str(three)]]
    processes = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in commands]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert tables(path) == ["a", "b", "c"]
    log = query(path, "SELECT migration_id, count(*) FROM _yoyo_log WHERE operation = 'apply' GROUP BY 1")
    assert log == [(id, 1) for id in IDS]
    assert migrate.status(url, three).is_current
