"""`--prepare MODULE:FUNCTION`: what every command does with it, and what is wrong with one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.cli.calls import CALLS, COMMANDS, misused, refused
from tests.concurrency import PATIENCE
from tests.folders import query, write

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "functions-and-extensions.md"
#: The commands that open no connection, not even one in memory.
WITHOUT = {"new", "snapshots", "replicate"}
APP = """
import apsw

called = []


def register(connection):
    called.append(connection.filename)
    connection.create_scalar_function("slug", str.lower, 1, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)


def fails(connection):
    raise ValueError("no such luck")


def writes(connection):
    connection.execute("CREATE TABLE t (a)")


class Held:
    register = staticmethod(register)


nothing = None
"""
#: Opens the database with what `app` registers, and makes a schema that needs it.
SLUG = "CREATE TABLE n (a TEXT CHECK (slug(a) = a));"


@pytest.fixture
def app(workplace, monkeypatch):
    """A module in the working directory, under a name that no other test has imported."""
    name = f"app_{abs(hash(str(workplace)))}"
    (workplace / f"{name}.py").write_text(APP)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(workplace)}])
    yield name
    sys.modules.pop(name, None)


# ---------------------------------------------------------------- every command


def test_prepare_is_an_option_of_each_command_that_opens_a_connection():
    """A command without it could not work on a schema that needs it."""
    has = {
        name for name, command in COMMANDS.items() if "--prepare" in [opt for one in below(command) for opt in one.opts]
    }
    assert has == set(COMMANDS) - WITHOUT


def below(command):
    """Return the parameters of a command, and of those below it."""
    return [*command.params, *(one for other in getattr(command, "commands", {}).values() for one in below(other))]


@pytest.mark.parametrize("name", [name for name in CALLS if name not in WITHOUT])
def test_prepare_each_command_calls_it(run, partly, existing, app, name):
    """Each calls the function that is named, with the database or with what it replays in memory."""
    if name in {"health", "wait"}:
        run("migrate")
    if name == "restore":
        run("snapshot")
    if name == "restore-replica":
        run(*CALLS["replicate"])
    outcome = run(*CALLS[name], "--prepare", f"{app}:register")
    assert outcome.code == 0, outcome
    assert sys.modules[app].called
    failed = run(*CALLS[name], "--prepare", f"{app}:fails")
    assert failed.code == (5 if name == "doctor" else 1)  # to which it is something that it has found
    assert f"{app}:fails raised ValueError: no such luck (" in failed.out + failed.err


def test_prepare_of_the_environment_goes_before_dotenv_and_the_option_before_both(run, partly, app, monkeypatch):
    """It is named as the database is: by the option, else the environment, else `.env`."""
    (partly.parent / ".env").write_text(f"DATABASE_PREPARE={app}:fails\n")
    refused(run("status"), f"{app}:fails raised ValueError")
    monkeypatch.setenv("DATABASE_PREPARE", f"{app}:writes")
    refused(run("status"), f"{app}:writes is to register", "copies and databases in memory")
    assert run("status", "--prepare", f"{app}:Held.register").code == 0
    assert run("new", "more").code == 0


def test_prepare_makes_a_schema_that_needs_a_function_work(run, path, folder, app):
    """Without it, the message names it; `dao migrate` had no way to run such a schema."""
    write(folder, {"0004_n.sql": SLUG, "0004_n.rollback.sql": "DROP TABLE n;"})
    refused(run("migrate"), "0004_n.sql:1: no such function: slug; --prepare MODULE:FUNCTION (DATABASE_PREPARE;")
    assert not path.exists() or query(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'n'") == [(0,)]
    prepare = ("--prepare", f"{app}:register")
    assert run("migrate", *prepare).code == 0
    for call in (
        ["schema", "diff"],
        ["check"],
        ["lint"],
        ["verify"],
        ["rehearse"],
        ["status", "--exit-code"],
        ["wait", "--timeout", "0"],
    ):
        assert run(*call, *prepare).code == 0, call


def test_prepare_finds_the_module_in_the_working_directory_of_the_command(workplace, path, folder):
    """The command finds a program's modules in the working directory.

    It lies in another folder than the program, which nobody installs: gunicorn and uvicorn do the same.
    """
    (workplace / "program").mkdir()
    (workplace / "program" / "__init__.py").write_text("")
    (workplace / "program" / "database.py").write_text(APP)
    write(folder, {"0004_n.sql": SLUG})
    done = subprocess.run(
        [Path(sys.executable).with_name("dao"), "migrate", "--quiet", "--prepare", "program.database:register"],
        cwd=workplace,
        env={"PATH": os.environ["PATH"], "DATABASE_MIGRATIONS": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert query(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'n'") == [(1,)]


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "--prepare is empty: name a function, or leave the option out"),
        ("{app}", "prepare={app}: expected MODULE:FUNCTION, such as app.database:register"),
        ("{app}/x:register", "expected MODULE:FUNCTION"),
        ("{app}:register()", "expected MODULE:FUNCTION"),
        (
            "{app}.py:register",
            (
                "there is no module {app}.py in {folder}, nor where Python looks for modules; "
                "leave .py out: {app}:register"
            ),
        ),
        ("no_such_thing:register", "cannot call no_such_thing:register: there is no module no_such_thing in {folder}"),
        ("{app}:other", "{app}.py has no other"),
        ("{app}:Held.other", "{app}.py has no Held.other"),
        ("{app}:nothing", "nothing is no function, but of type NoneType"),
        (
            "broken_import:register",
            "to import broken_import raises ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("broken_syntax:register", "to import broken_syntax raises SyntaxError: "),
        ("broken_exit:register", "to import broken_exit raises SystemExit: 3"),
    ],
)
def test_prepare_that_cannot_be_called_is_wrong_usage(run, partly, app, given, message):
    """Each mistake is told by its own message and exit code 2, before anything is opened; none is a traceback."""
    folder = partly.parent
    (folder / "broken_import.py").write_text("import no_such_library\n")
    (folder / "broken_syntax.py").write_text("def register(\n")
    (folder / "broken_exit.py").write_text("raise SystemExit(3)\n")
    outcome = run("migrate", "--prepare", given.format(app=app))
    misused(outcome, message.format(app=app, folder=folder))
    assert query(partly, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'") == [(0,)]


def test_prepare_of_the_environment_that_means_nothing_is_named_by_its_variable(run, partly, monkeypatch):
    """The message names the variable, and a command that opens nothing says so, too, as of the other variables."""
    monkeypatch.setenv("DATABASE_PREPARE", "register")
    misused(run("status"), "DATABASE_PREPARE=register: expected MODULE:FUNCTION")


@pytest.mark.parametrize("name", ["migrate", "status", "health", "lint"])
def test_prepare_that_fails_is_an_error_in_json_too(run, partly, app, name):
    """The JSON document has the kind of the error, and what it says."""
    outcome = run(*CALLS[name], "--json", "--prepare", f"{app}:fails")
    assert outcome.code == 1
    assert outcome.document["error"]["type"] == "PrepareFailed"
    assert "no such luck" in outcome.document["error"]["message"]
    assert "Traceback" not in outcome.err


def test_wait_with_a_function_that_fails_does_not_wait(run, partly, app):
    """It fails however long one waits."""
    run("migrate")
    refused(run("wait", "--timeout", "3600", "--prepare", f"{app}:fails"), "waiting does not help", "no such luck")


# ---------------------------------------------------------------- the document


def example() -> list[str]:
    """Return the blocks of the document."""
    return re.findall(r"^```\w*\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def test_document_shows_how_functions_collations_and_extensions_are_registered(
    run, workplace, path, folder, monkeypatch
):
    """The example runs as it stands, from the command and from a program.

    It registers a function, a collation and an extension.
    """
    module, shell, program = example()
    (workplace / "app").mkdir()
    (workplace / "app" / "database.py").write_text(module)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(workplace)}])
    write(
        folder,
        {
            "0004_n.sql": "CREATE TABLE n (a TEXT COLLATE german CHECK (a REGEXP '^[a-zä]+$'), b TEXT COLLATE uint);"
            "INSERT INTO n VALUES ('ä', 'v9'), ('b', 'v10');"
        },
    )
    calls = [line.split("#")[0].split()[1:] for line in shell.splitlines() if line.startswith("dao ")]
    assert calls
    for call in calls:
        assert run(*call).code == 0, call
    connection = apsw.Connection(str(path))
    sys.modules["app.database"].register(connection)
    rows = (
        connection.execute("SELECT a FROM n ORDER BY a").fetchall(),
        connection.execute("SELECT b FROM n ORDER BY b").fetchall(),
    )
    assert rows == ([("ä",), ("b",)], [("v9",), ("v10",)])
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO n (a) VALUES ('1')")
    connection.close()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,  # beside another database
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(workplace)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("app.database", "app"):
        del sys.modules[name]
