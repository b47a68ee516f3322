"""Settings: where each comes from, what goes before what, and what `.env.example` says of them."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path

import apsw
import attrs
import pytest

from dao import errors, settings
from dao.engine import sqlite
from dao.settings import Folder

EXAMPLE = Path(__file__).parents[2] / ".env.example"

# for each variable: how to read it back, and three values that differ from each other and from the default
READ = {
    "DATABASE_URL": lambda loaded: str(loaded.url),
    "DATABASE_POOL_SIZE": lambda loaded: str(loaded.pool_size),
    "DATABASE_POOL_TIMEOUT": lambda loaded: f"{loaded.pool_timeout:g}",
    "DATABASE_BUSY_TIMEOUT": lambda loaded: str(loaded.url.busy_timeout),
    "DATABASE_MIGRATIONS": lambda loaded: str(loaded.migrations),
    "DATABASE_SNAPSHOTS": lambda loaded: str(loaded.snapshots),
    "DATABASE_PREPARE": lambda loaded: str(loaded.prepare),
    "DATABASE_REPLICA": lambda loaded: str(loaded.replica),
    "DATABASE_SLOW": lambda loaded: str(loaded.slow),
}
VALUES = {
    "DATABASE_URL": ("sqlite:///file.db", "sqlite:///environ.db", "sqlite:///argument.db"),
    "DATABASE_POOL_SIZE": ("2", "3", None),
    "DATABASE_POOL_TIMEOUT": ("0.5", "1.5", None),
    "DATABASE_BUSY_TIMEOUT": ("100", "200", "300"),
    "DATABASE_MIGRATIONS": ("of/file", "of/environ", "of/argument"),
    "DATABASE_SNAPSHOTS": ("0", "7", None),
    "DATABASE_PREPARE": ("of.file:register", "of.environ:register", "of.argument:register"),
    "DATABASE_REPLICA": ("of/file", "s3://of/environ", None),
    "DATABASE_SLOW": ("0.0", "0.5", None),
}
ARGUMENTS = {
    "DATABASE_URL": "database",
    "DATABASE_BUSY_TIMEOUT": "busy_timeout",
    "DATABASE_MIGRATIONS": "migrations",
    "DATABASE_PREPARE": "prepare",
}
every_variable = pytest.mark.parametrize("name", list(READ))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and an environment without our variables."""
    monkeypatch.chdir(tmp_path)
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text: str | bytes) -> None:
    Path(".env").write_bytes(text.encode() if isinstance(text, str) else text)


def in_effect(loaded: settings.Settings) -> settings.Settings:
    """Return the settings with the busy timeout that a connection takes where they have none."""
    timeout = sqlite.BUSY_TIMEOUT if loaded.url.busy_timeout is None else loaded.url.busy_timeout
    return attrs.evolve(loaded, url=attrs.evolve(loaded.url, busy_timeout=timeout))


# ---------------------------------------------------------------- precedence


def test_load_nothing_set_returns_the_defaults():
    """Without a file, a variable and an argument, the defaults hold."""
    assert settings.load(environ={}) == settings.Settings(
        url=settings.url.parse(settings.DEFAULT_URL), pool_size=5, pool_timeout=30.0, migrations=None, snapshots=3
    )


@every_variable
def test_load_dotenv_in_the_working_directory_is_read(name):
    """What the `.env` in the working directory says goes before the default."""
    write(f"{name}={VALUES[name][0]}\n")
    assert READ[name](settings.load()) == VALUES[name][0]


@every_variable
def test_load_environment_goes_before_dotenv(name, monkeypatch):
    """What the environment says at the time of the call goes before the `.env`."""
    in_file, in_environ, _ = VALUES[name]
    write(f"{name}={in_file}\n")
    monkeypatch.setenv(name, in_environ)
    assert READ[name](settings.load()) == in_environ


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_load_argument_goes_before_the_environment(name, monkeypatch):
    """An argument goes before the environment and the `.env`."""
    in_file, in_environ, argument = VALUES[name]
    write(f"{name}={in_file}\n")
    monkeypatch.setenv(name, in_environ)
    given = int(argument) if name == "DATABASE_BUSY_TIMEOUT" else argument
    assert READ[name](settings.load(**{ARGUMENTS[name]: given})) == argument


#: What surrounds a value in files from Windows, and in those of `docker --env-file`, which takes lines as they are.
AROUND = ["{}\r", "{}\r\n", " {}\t", '"{}"', "'{}'\r", "\ufeff{}", '\ufeff"{} "\n', "{}\xa0"]


@every_variable
def test_load_value_from_windows_is_the_value(name):
    """Line ends, blanks, quotes and byte order marks around a value are no part of it: they became part of the name."""
    value = VALUES[name][1]
    for around in AROUND:
        assert READ[name](settings.load(environ={name: around.format(value)})) == value
        if name in ARGUMENTS and name != "DATABASE_BUSY_TIMEOUT":
            assert READ[name](settings.load(environ={}, **{ARGUMENTS[name]: around.format(value)})) == value
        assert settings.load(environ={name: around.format("")}) == settings.load(environ={})


@every_variable
def test_load_byte_order_mark_before_a_name_is_passed_over(name):
    """It hid the first variable of a file, so that the default database was opened; the name itself goes before it."""
    one, other, _ = VALUES[name]
    assert READ[name](settings.load(environ={f"\ufeff{name}": one})) == one
    assert READ[name](settings.load(environ={f"\ufeff{name}": one, name: other})) == other
    write(f"A=1\r\n\ufeff{name}={one} \r\n")
    assert READ[name](settings.load(environ={})) == one


@pytest.mark.parametrize("where", ["variable", "argument"])
def test_load_folder_with_a_control_character_is_refused(where):
    """The message names the character, which nobody would see in the name."""
    given = (
        {"environ": {"DATABASE_MIGRATIONS": "a\rb"}} if where == "variable" else {"migrations": "a\rb", "environ": {}}
    )
    with pytest.raises(
        ValueError, match=r"the migrations cannot have a carriage return \(%0D\) in its name: remove it"
    ):
        settings.load(**given)


FOLDERS = [
    ("sql", Path("sql")),
    ("orchestrator", (Folder(None),)),
    ("./orchestrator", Path("./orchestrator")),
    ("app=sql", (Folder(Path("sql"), "app"),)),
    ("orchestrator:app=./sql:other", (Folder(None), Folder(Path("./sql"), "app"), Folder(Path("other")))),
    (" app = sql : web=w ", (Folder(Path("sql"), "app"), Folder(Path("w"), "web"))),
    ("./a=b", Path("./a=b")),
    ("there:app=x", Path("there:app=x")),
]


@pytest.mark.parametrize(("text", "found"), FOLDERS)
def test_load_migrations_may_be_several_sets(text, found, folder):
    """Folders stand between separators, each with a name; unless all of it is the name of one that is there."""
    (folder / "there:app=x").mkdir()
    assert settings.load(environ={"DATABASE_MIGRATIONS": text}).migrations == found
    assert settings.load(environ={}, migrations=[text]).migrations == found
    assert settings.load(environ={}, migrations=text).migrations == found


@pytest.mark.parametrize(
    ("text", "message"), [("a:", "without a folder"), ("app=", "without a folder"), ("My=x", "'My'")]
)
def test_load_sets_without_a_name_or_folder_are_refused(text, message):
    """A variable that is not set must not come to mean another folder."""
    with pytest.raises(ValueError, match=message):
        settings.load(environ={"DATABASE_MIGRATIONS": text})


def test_load_each_variable_from_another_place_mixes_them(monkeypatch):
    """Precedence is per variable: a file may hold some of them, the environment others."""
    write("DATABASE_POOL_SIZE=2\nDATABASE_URL=sqlite:///file.db\n")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///environ.db")
    loaded = settings.load(migrations="pairs")
    assert (loaded.pool_size, loaded.url.path, loaded.migrations) == (2, "environ.db", Path("pairs"))


def test_load_other_folder_and_environ_are_those_given(folder, monkeypatch):
    """A program may name its own folder and mapping; then neither the working directory nor `os.environ` count."""
    monkeypatch.setenv("DATABASE_POOL_SIZE", "7")
    write("DATABASE_POOL_SIZE=8\n")
    (folder / "app").mkdir()
    (folder / "app" / ".env").write_text("DATABASE_POOL_TIMEOUT=9\n")
    loaded = settings.load(environ={}, folder="app")
    assert (loaded.pool_size, loaded.pool_timeout) == (5, 9.0)


@pytest.mark.parametrize(
    ("in_url", "variable", "argument", "effective"),
    [
        (None, None, None, None),
        (None, "200", None, 200),
        ("100", "200", None, 100),
        ("100", "200", 300, 300),
        (None, "200", 0, 0),
        ("0", "200", None, 0),
        (None, "0", None, 0),
        ("100", "", None, 100),
    ],
)
def test_load_busy_timeout_argument_then_url_then_variable(in_url, variable, argument, effective):
    """An argument goes before the URL's own busy timeout, and that before the variable; zero is a value."""
    environ = {"DATABASE_URL": "sqlite:///a.db" + (f"?busy_timeout={in_url}" if in_url else "")}
    environ |= {} if variable is None else {"DATABASE_BUSY_TIMEOUT": variable}
    assert settings.load(environ=environ, busy_timeout=argument).url.busy_timeout == effective


def test_load_busy_timeout_argument_keeps_the_rest_of_the_url():
    """Only the timeout of the URL is replaced."""
    loaded = settings.load(
        database="sqlite:///a.db?mode=ro&busy_timeout=1&cache_size=-2000", busy_timeout=7, environ={}
    )
    assert str(loaded.url) == "sqlite:///a.db?mode=ro&busy_timeout=7&cache_size=-2000"


# ---------------------------------------------------------------- empty and odd values


@every_variable
def test_load_empty_variable_counts_as_none(name):
    """A variable that is set to nothing leaves the default."""
    assert settings.load(environ={name: ""}) == settings.load(environ={})


@every_variable
def test_load_empty_variable_does_not_hide_dotenv(name):
    """A variable that is set to nothing leaves what the `.env` says."""
    write(f"{name}={VALUES[name][0]}\n")
    assert READ[name](settings.load(environ={name: ""})) == VALUES[name][0]


@every_variable
def test_load_dotenv_without_a_value_counts_as_none(name):
    """A line without a value, or a comment, leaves the default."""
    for line in ("{}=", "{}", "#{}=x", "export {}="):
        write(line.format(name) + "\n")
        assert settings.load() == settings.load(environ={}, folder="nowhere")


def test_load_empty_arguments_count_as_none():
    """An empty argument leaves what the environment says."""
    environ = {"DATABASE_URL": "sqlite:///environ.db", "DATABASE_MIGRATIONS": "pairs"}
    loaded = settings.load(database="", migrations="", environ=environ)
    assert (loaded.url.path, loaded.migrations) == ("environ.db", Path("pairs"))


@pytest.mark.parametrize(
    "content",
    [
        b"DATABASE_MIGRATIONS='a b'\n",
        b'export DATABASE_MIGRATIONS="a b" # why\n',
        b"\xef\xbb\xbfDATABASE_MIGRATIONS=a b\r\nOTHER=1\r\n",
        b"DATABASE_MIGRATIONS=a b",
    ],
    ids=["quoted", "exported", "byte order mark and CRLF", "no line end"],
)
def test_load_dotenv_in_the_usual_spellings_is_read(content):
    """A `.env` may be written as other tools write it, a Windows editor included."""
    write(content)
    assert settings.load().migrations == Path("a b")


def test_load_dotenv_with_a_dollar_is_taken_as_it_is(monkeypatch):
    """Nothing in a `.env` is expanded: a $ in a path is a $."""
    monkeypatch.setenv("HOME", "/home/me")
    write("DATABASE_URL=sqlite:///${HOME}/$x.db\n")
    assert settings.load().url.path == "${HOME}/$x.db"


def test_load_dotenv_that_is_a_folder_is_none(folder):
    """Only a file counts: a virtual environment may be called `.env`."""
    (folder / ".env").mkdir()
    assert settings.load() == settings.load(environ={}, folder="nowhere")


def test_load_dotenv_not_utf8_names_the_file():
    """A `.env` in another encoding is refused by name."""
    write(b"DATABASE_URL=sqlite:///\xe9.db\n")
    with pytest.raises(ValueError, match=r"^\.env: not UTF-8"):
        settings.load()


def test_load_without_dotenv_does_not_load_the_package(folder):
    """Only who has a `.env` pays for reading one."""
    script = "import sys; from dao import settings; settings.load(); print('dotenv' in sys.modules)"
    for expected in ("False", "True"):
        done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
        write("DATABASE_POOL_SIZE=2\n")


# ---------------------------------------------------------------- bad values

BAD = [
    ("DATABASE_POOL_SIZE", "x", "expected a whole number"),
    ("DATABASE_POOL_SIZE", "2.5", "expected a whole number"),
    ("DATABASE_POOL_SIZE", "0", "from 1"),
    ("DATABASE_POOL_SIZE", "-1", "from 1"),
    ("DATABASE_POOL_TIMEOUT", "soon", "expected a number of seconds"),
    ("DATABASE_POOL_TIMEOUT", "-0.1", "from 0"),
    ("DATABASE_POOL_TIMEOUT", "nan", "from 0"),
    ("DATABASE_BUSY_TIMEOUT", "5s", "expected a whole number of milliseconds"),
    ("DATABASE_BUSY_TIMEOUT", "0.5", "expected a whole number of milliseconds"),
    ("DATABASE_BUSY_TIMEOUT", "-1", "from 0"),
    ("DATABASE_SNAPSHOTS", "many", "expected a whole number of snapshots to keep"),
    ("DATABASE_SNAPSHOTS", "1.5", "expected a whole number of snapshots to keep"),
    ("DATABASE_SNAPSHOTS", "-1", "from 0"),
    ("DATABASE_SLOW", "1s", "expected a number of milliseconds"),
    ("DATABASE_SLOW", "-1", "from 0"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD, ids=[f"{name}={value}" for name, value, _ in BAD])
def test_load_bad_value_names_the_variable_and_what_is_expected(name, value, reason):
    """The message holds the variable, its value and what would do; a `.env` is no different."""
    with pytest.raises(ValueError, match=rf"^{name}={re.escape(value)}: .*{reason}"):
        settings.load(environ={name: value})
    write(f"{name}={value}\n")
    with pytest.raises(ValueError, match=rf"^{name}={re.escape(value)}: "):
        settings.load()


@pytest.mark.parametrize("name", sorted({name for name, _, _ in BAD}))
def test_load_bad_value_in_dotenv_that_is_overruled_is_never_looked_at(name):
    """What the environment sets instead is all that counts."""
    write(f"{name}=nonsense\n")
    assert READ[name](settings.load(environ={name: VALUES[name][1]})) == VALUES[name][1]


@pytest.mark.parametrize(
    ("text", "error"),
    [("orchestrator.db", errors.InvalidURL), ("mysql://me:hunter2@host/db", errors.InvalidURL)],
)
def test_load_bad_url_is_refused_without_its_secrets(text, error):
    """A URL that means nothing here is refused, and a password in it is not repeated."""
    with pytest.raises(error) as refusal:
        settings.load(environ={"DATABASE_URL": text})
    assert "sqlite:///relative.db" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


# ---------------------------------------------------------------- pool


def test_pool_has_the_size_timeout_and_database_of_the_settings(database):
    """The pool lends as many connections as the settings say, waits as long, and opens what they name."""
    environ = {"DATABASE_POOL_SIZE": "2", "DATABASE_POOL_TIMEOUT": "0", "DATABASE_URL": f"sqlite:///{database}"}
    with settings.load(environ=environ).pool() as pool:
        assert pool.stats().size == 2
        with pool.acquire() as first, pool.acquire() as second:
            assert first.filename == second.filename == str(database)
            with pytest.raises(errors.PoolTimeout, match="within 0 s"), pool.acquire():
                pass


def test_aio_pool_has_the_size_timeout_and_database_of_the_settings(database):
    """Async code had to take the settings apart."""
    environ = {"DATABASE_POOL_SIZE": "2", "DATABASE_POOL_TIMEOUT": "0", "DATABASE_URL": f"sqlite:///{database}"}

    async def main() -> None:
        async with settings.load(environ=environ).aio_pool() as pool:
            assert pool.stats().size == 2
            assert await pool.run(lambda connection: connection.filename) == str(database)
            async with pool.acquire(), pool.acquire():
                with pytest.raises(errors.PoolTimeout, match="within 0 s"):
                    await pool.run(lambda connection: connection.filename)

    asyncio.run(main())


def test_pool_connection_waits_for_locks_as_long_as_the_settings_say(database):
    """A busy timeout of zero milliseconds reaches the connections: one of them is refused at once."""
    loaded = settings.load(environ={"DATABASE_URL": f"sqlite:///{database}", "DATABASE_BUSY_TIMEOUT": "0"})
    with loaded.pool() as pool, pool.acquire() as holder, pool.acquire() as other:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            other.execute("BEGIN IMMEDIATE")
        holder.execute("ROLLBACK")


def test_origin_of_a_variable_is_named():
    """Who wonders which database is meant is told where its name comes from."""
    write("DATABASE_URL=sqlite:///of-file.db\nDATABASE_REPLICA=\n")
    environ = {"DATABASE_SNAPSHOTS": "2", "DATABASE_URL": " "}
    assert settings.origin("DATABASE_URL", environ=environ) == ".env"
    assert settings.origin("DATABASE_SNAPSHOTS", environ=environ) == "the environment"
    assert settings.origin("DATABASE_REPLICA", environ=environ) is None


# ---------------------------------------------------------------- .env.example


def documented() -> dict[str, str]:
    """Return the variables of `.env.example`, which are commented out, with their values."""
    found: list[tuple[str, str]] = re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_example_documents_every_variable_that_is_read():
    """`.env.example` has all variables that the settings read, and no others."""
    read = set(re.findall(r'"(DATABASE_[A-Z_]+)"', inspect.getsource(settings)))
    assert set(documented()) == read == set(READ) == set(settings.VARIABLES)


def test_example_explains_every_variable():
    """Above each variable stands a comment."""
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z_]+=", line):
            assert lines[number - 1].startswith("# "), line


def test_example_as_it_stands_changes_nothing():
    """Copied to `.env`, the example sets nothing."""
    write(EXAMPLE.read_bytes())
    assert settings.load() == settings.load(environ={}, folder="nowhere")


@pytest.mark.parametrize("names", [*([name] for name in READ), list(READ)], ids=[*READ, "all"])
def test_example_with_lines_uncommented_changes_nothing(names):
    """The values in the example are the defaults: to uncomment one, or all, changes nothing."""
    text = EXAMPLE.read_text()
    for name in names:
        text = text.replace(f"#{name}=", f"{name}=")
    write(text)
    assert in_effect(settings.load()) == in_effect(settings.load(environ={}, folder="nowhere"))


@every_variable
def test_example_value_is_the_default(name):
    """The example's value means what holds without it, so it can be read as documentation."""
    default = READ[name](in_effect(settings.load(environ={})))
    assert (documented()[name] or "None") == default.partition("?")[0]


def test_example_documents_the_url_parameters():
    """The parameters that the example lists for the URL are those that a URL takes, with all their choices."""
    parameters = re.search(r"^# Parameters: \?(\S+)$", EXAMPLE.read_text(), re.MULTILINE)
    assert parameters is not None
    listed = dict(item.split("=") for item in parameters[1].split("&"))
    assert list(listed) == [field.name for field in attrs.fields(settings.url.DatabaseURL) if field.name != "path"]
    for name, choices in listed.items():
        for choice in choices.replace("MS", "10").replace("PAGES", "10").split("|"):
            needed = "mode=ro&" if name == "immutable" else ""
            settings.url.parse(f"sqlite:///a.db?{needed}{name}={choice}")


@pytest.mark.parametrize(
    ("url", "migrations", "found"),
    [
        ("postgresql://h/d", None, True),
        (" 'POSTGRES://h/d' ", "sql/postgresql", True),
        ("postgresql://h/d", "sql/sqlite", False),
        ("postgresql://h/d", "sql/mine", True),
        ("sqlite:///x.db", "sql/mine", False),
        ("nonsense", None, False),
        ("", None, False),
    ],
)
def test_server_is_the_database_url_unless_the_migrations_are_for_sqlite(url, migrations, found, tmp_path):
    """What runs migrations in a database of their own needs a server only for those that are PostgreSQL's."""
    environ = {"DATABASE_URL": url}
    assert (settings.server(migrations, environ=environ, folder=tmp_path) is not None) == found
    if migrations:
        environ["DATABASE_MIGRATIONS"] = migrations
        assert (settings.server(environ=environ, folder=tmp_path) is not None) == found


def test_server_for_migrations_of_postgresql_has_to_be_named(tmp_path):
    """A folder that says so by its name is not taken for one of SQLite's."""
    with pytest.raises(ValueError, match="sql/postgresql has migrations for PostgreSQL, by its name"):
        settings.server("sql/postgresql", environ={"DATABASE_URL": "sqlite:///x.db"}, folder=tmp_path)
