"""Bad input of every kind: a clear message, an exit code, no effect, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from dao import migrate
from tests.cli.calls import CALLS, LOADERS, OPENERS, WRITERS, misused, refused
from tests.folders import dump, query, write


@pytest.fixture
def lock(partly):
    """Another connection holds the write lock."""
    holder = apsw.Connection(str(partly))
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.close()


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["frobnicate"], ["No such command 'frobnicate'"]),
        (["statu"], ["No such command 'statu'. Did you mean 'status'?"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["migrate", "--frobnicate"], ["--frobnicate"]),
        (["migrate", "now"], ["No such command 'now'"]),
        (["migrate", "--steps", "x"], ["'--steps'", "'x'"]),
        (["migrate", "--steps", "-1"], ["'--steps'", "-1"]),
        (["rollback", "--steps", "-1"], ["'--steps'", "-1"]),
        (["plan", "--steps", "-1"], ["'--steps'", "-1"]),
        (["migrate", "--steps", "0"], ["'--steps': 0 is no number of migrations to run: give one from 1"]),
        (["rollback", "--steps", "0"], ["'--steps': 0 is no number of migrations to run: give one from 1"]),
        (["plan", "--steps", "0"], ["'--steps': 0 is no number of migrations to run: give one from 1"]),
        (["rehearse", "--steps", "0"], ["'--steps': 0 is no number of migrations to run: give one from 1"]),
        (["redo", "--steps", "0"], ["'--steps': 0 is no number of migrations to run: give one from 1"]),
        (["migrate", "--to"], ["'--to' requires an argument"]),
        (["rollback", "--steps", "1", "--all"], ["--steps and --all exclude each other"]),
        (["rollback", "--to", "0001", "--all"], ["--to and --all exclude each other"]),
        (["rollback", "--to", "0001", "--steps", "1"], ["--steps and --to exclude each other"]),
        (["plan", "--rollback", "--to", "0001", "--steps", "1"], ["--steps and --to exclude each other"]),
        (["migrate", "--busy-timeout", "-5"], ["'--busy-timeout'", "-5"]),
        (["migrate", "--busy-timeout", "soon"], ["'--busy-timeout'", "soon"]),
        (["health", "--timeout", "-1"], ["'--timeout'", "-1"]),
        (["health", "--timeout", "nan"], ["'--timeout'", "nan"]),
        (["reset", "--yes", "--database", ""], ["--database is empty"]),
        # of these it said no more than that no file can be written, or read, that has no name
        *(
            (["lint", option, ""], [f"{option} is empty: name a file, or leave the option out"])
            for option in ("--sarif", "--baseline", "--write-baseline")
        ),
        (["verify", "--fixtures", ""], ["--fixtures is empty: name a file, or leave the option out"]),
        (["migrate", "--database", "sqlite://"], ["in memory"]),
        (["migrate", "--database", "mysql://db/x"], ["unknown database scheme"]),
        (["plan", "--all"], ["--rollback"]),
        (["wait", "--timeout", "soon"], ["'--timeout'", "soon"]),
        (["new"], ["Missing argument 'NAME...'"]),
        (["mark"], ["Missing argument 'ID"]),
        (["unmark"], ["Missing argument 'ID"]),
        (["accept"], ["Missing argument 'ID"]),
        # its line ends and tabs were shown as \\n and \\t
        (["adopt"], ["Missing option '--from'. Choose from: sqlx, dbmate, goose,"]),
        (["status", "--database", "orchestrator.db"], ["begins with its scheme", "sqlite:///relative.db"]),
        (["status", "--database", "sqlite:///a.db?mode=rx"], ["mode in the database URL: expected ro or rw or rwc"]),
        (["status", "--database", "sqlite:///a.db?journal=x"], ["unknown parameter 'journal'", "busy_timeout"]),
        (["status", "--database", "oracle://h/x"], ["unknown database scheme 'oracle'", "sqlite:///relative.db"]),
        (["migrate", "--database", "sqlite:///a%00.db"], ["cannot hold a NUL"]),
        (["migrate", "--database", "sqlite:///a%ff.db"], ["not UTF-8"]),
        (["migrate", "--database", "sqlite:///\udcff.db"], ["not UTF-8"]),
    ],
    ids=lambda value: ascii(" ".join(value)) if isinstance(value[0], str) and " " not in value[0] else "",
)
def test_command_misused_exits_with_two_and_says_what_is_wrong(run, workplace, arguments, parts):
    """Wrong usage has its own exit code, a message that names what is wrong, and no effect; as JSON, too.

    With `--steps 0` redo was refused, and the others said that there was nothing to apply, whatever was pending.
    """
    misused(run(*arguments), *parts)
    outcome = run(*arguments[:1], "--json", *arguments[1:]) if arguments[0][0] != "-" else run(*arguments, "--json")
    assert outcome.code == 2
    assert set(outcome.document["error"]) == {"type", "message"}
    assert [entry.name for entry in workplace.iterdir()] == ["three"]


@pytest.mark.parametrize(
    "setting",
    ["DATABASE_POOL_SIZE=x", "DATABASE_POOL_TIMEOUT=soon", "DATABASE_BUSY_TIMEOUT=-1", "DATABASE_URL=nonsense"],
)
def test_command_bad_variable_is_named_by_every_command(run, monkeypatch, setting):
    """A variable that means nothing is refused, whatever the command makes of it.

    Only commands that have a database URL refuse a wrong one.
    """
    variable, _, value = setting.partition("=")
    monkeypatch.setenv(variable, value)
    for name in CALLS:
        if variable != "DATABASE_URL":
            misused(run(*CALLS[name]), f"Error: {setting}: ")
        elif name in {"new", "lint", "verify", "copy"} or "--database" in CALLS[name]:  # they name another
            assert "a database URL begins" not in run(*CALLS[name]).err
        else:
            misused(run(*CALLS[name]), "a database URL begins")


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@h/a/b@db", "sqlite://me:hunter2@host/db", "x://me:hunter2@h"])
def test_command_bad_url_does_not_repeat_the_password(run, url):
    """What is printed about a URL may be logged: a password in it is left out."""
    for arguments in (["status", "--database", url], ["migrate", "--database", url, "--json"]):
        outcome = run(*arguments)
        assert outcome.code in {1, 2}
        assert any(advice in outcome.err for advice in ("sqlite:///relative.db", "three slashes", "%40"))
        assert "hunter2" not in outcome.out + outcome.err


# ---------------------------------------------------------------- configuration


def test_command_configuration_rises_from_dotenv_over_environment_to_options(run, workplace, monkeypatch):
    """The `.env` in the working directory, then the environment, then the option."""
    (workplace / ".env").write_text("DATABASE_URL=sqlite:///file.db\n")
    assert run("migrate", "--json").document["database"] == "file.db"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///environ.db")
    assert run("migrate", "--json").document["database"] == "environ.db"
    assert run("migrate", "-d", "sqlite:///option.db", "--json").document["database"] == "option.db"
    assert sorted(path.name for path in workplace.glob("*.db")) == ["environ.db", "file.db", "option.db"]


def test_command_migrations_option_goes_before_the_variable(run, tmp_path):
    """Another folder can be named for one call; without any, the package's own are used."""
    write(tmp_path / "other", {"1_z.sql": "CREATE TABLE z (id);"})
    (listed,) = run("status", "--migrations", "other", "--json").document["migrations"]
    assert listed["id"] == "1_z"


def test_command_without_a_folder_uses_the_migrations_of_the_package(run, monkeypatch):
    """Nothing named: those that the package brings."""
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    listed = run("status", "--json").document["migrations"]
    assert [row["id"] for row in listed] == [migration.id for migration in migrate.load()]


# ---------------------------------------------------------------- what can be wrong with the database


@pytest.mark.parametrize("name", OPENERS)
def test_command_folder_as_database_is_refused(run, path, name):
    """A folder where the database should be is named as such."""
    path.mkdir()
    refused(run(*CALLS[name]), str(path), "it is a folder, not a database file")


@pytest.mark.parametrize("name", OPENERS)
def test_command_file_that_is_no_database_is_refused_and_kept(run, path, name):
    """Another file under that name is not touched."""
    content = b"somebody's notes\n" * 1000
    path.write_bytes(content)
    refused(
        run(*CALLS[name]),
        str(path),
        "is damaged or no SQLite database",
        "restore a snapshot (`dao restore`; what was written since is lost) or a backup, or name another",
    )
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", OPENERS)
def test_command_damaged_database_is_refused_and_kept(run, partly, name):
    """A database whose schema cannot be read is named, and not made worse."""
    content = partly.read_bytes()
    partly.write_bytes(content[:100] + b"\xff" * 3000 + content[3100:])
    content = partly.read_bytes()
    refused(
        run(*CALLS[name]),
        str(partly),
        "is damaged",
        "restore a snapshot (`dao restore`; what was written since is lost) or a backup",
    )
    assert partly.read_bytes() == content


@pytest.mark.parametrize("name", OPENERS)
def test_command_folder_of_the_database_missing_is_said(run, workplace, name):
    """A path that leads nowhere: what only looks takes it for a database that does not exist, all others refuse."""
    outcome = run(*CALLS[name], "--database", "sqlite:///no/such.db")
    if name in {"status", "plan", "history", "rehearse"}:
        assert outcome.code == 0
    else:
        refused(outcome, "no/such.db", "does not exist")
    assert not (workplace / "no").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_command_read_only_database_is_refused(run, partly, name):
    """A database opened with mode=ro is named, with the way out, and is as before."""
    before = dump(partly)
    refused(run(*CALLS[name], "--database", f"sqlite:///{partly}?mode=ro"), str(partly), "is read-only", "mode=ro")
    assert dump(partly) == before


@pytest.mark.parametrize("name", WRITERS)
def test_command_locked_database_names_the_holder(run, partly, lock, name):
    """The message says who holds the lock and how to wait for longer; nothing is changed."""
    before = query(partly, "SELECT * FROM _yoyo_migration")
    outcome = run(*CALLS[name], "--busy-timeout", "0")
    refused(outcome, f"{partly} is locked", f"held by process {os.getpid()}", "--busy-timeout", "DATABASE_BUSY_TIMEOUT")
    assert query(partly, "SELECT * FROM _yoyo_migration") == before


@pytest.mark.parametrize(("name", "code"), [("status", 0), ("plan", 0), ("health", 3), ("wait", 3)])
def test_command_that_only_looks_is_not_held_up_by_a_lock(run, lock, name, code):
    """While another writes, a reader sees what was committed last."""
    assert run(*CALLS[name], "--busy-timeout", "0").code == code


def test_migrate_locked_by_another_process_names_it_while_it_waits(run, partly):
    """A note says for whom it waits, and the error who it was: the process by its name, without its arguments."""
    script = (
        "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); "
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(partly)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        for timeout in ("700", "7000", "70000"):  # it tells after half a second, unless it stands still until then
            outcome = run("migrate", "--busy-timeout", timeout)
            assert outcome.code == 1
            if "waiting" in outcome.err:
                break
        who = f"held by process {holder.pid} ({Path(f'/proc/{holder.pid}/comm').read_text().strip()})"
        note, error = outcome.err.splitlines()[:2]
        assert note.startswith(f"waiting for the lock {who}")
        assert error.startswith(f"error: {partly} is locked, {who}")
        assert run("migrate", "--busy-timeout", "0", "--json").document["error"]["type"] == "DatabaseBusy"
    assert run("migrate").code == 0


# ---------------------------------------------------------------- what can be wrong with the migrations


@pytest.mark.parametrize("name", [*LOADERS, "new"])
def test_command_folder_of_migrations_missing_is_named(run, partly, name):
    """The message names the folder, and how to name another."""
    refused(run(*CALLS[name], "--migrations", "nowhere"), "nowhere: the migrations folder does not exist")


@pytest.mark.parametrize("name", LOADERS)
def test_command_file_as_folder_of_migrations_is_refused(run, partly, name):
    """A file where the folder should be is named."""
    Path("file").touch()
    refused(run(*CALLS[name], "--migrations", "file"), "file: not a folder")


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ({"0004_x.sql": b"-- fine\nSELECT '\xff';"}, ["three/0004_x.sql:2: not UTF-8", "save the file as UTF-8"]),
        ({"0004_x.sql": "SELECT 1;\0"}, ["three/0004_x.sql:1: a NUL character"]),
        ({"0004_x.rollback.sql": ""}, ["three/0004_x.rollback.sql: a rollback script without", "add 0004_x.sql"]),
        ({"0004_x.SQL": ""}, ["three/0004_x.SQL: the suffix must be .sql in lower case"]),
        ({"0004_x.py": ""}, ["three/0004_x.py: Python migrations are not run here"]),
        ({"0004_x.sql": "-- depends: nothing\n"}, ["three/0004_x.sql: depends on 'nothing'"]),
        ({"0004_x.sql": "-- transactional: maybe\n"}, ["three/0004_x.sql:1: `-- transactional: maybe` must be"]),
        ({"0004_x.sql": "", "0004_x.up.sql": ""}, ["three/0004_x.up.sql", "0004_x.sql; remove one of the two"]),
    ],
    ids=["encoding", "NUL", "orphan", "suffix", "Python", "dependency", "directive", "twice"],
)
def test_command_malformed_migration_is_named_by_every_command(run, partly, folder, entries, parts):
    """A file that is not what it should be stops everything that reads the folder; its path is in the message."""
    write(folder, entries)
    before = dump(partly)
    for name in LOADERS:
        refused(run(*CALLS[name]), *parts)
    error = run("status", "--json").document["error"]
    assert error["type"] == "MigrationFileError"
    assert Path(error["path"]).name in entries
    assert dump(partly) == before


def test_command_name_that_cannot_be_printed_is_escaped(run, workplace):
    """A name that is not UTF-8 is shown with escapes."""
    refused(run("status", "--migrations", "\udcff"), "\\udcff: the migrations folder does not exist")
