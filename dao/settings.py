"""DATABASE_URL and its relatives: from `.env`, from the environment, from options, in rising precedence."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from dao import url
from dao.errors import InvalidValue

__all__ = [
    "DEFAULT_URL",
    "OWN",
    "SNAPSHOTS",
    "VARIABLES",
    "Folder",
    "Settings",
    "check_set",
    "engine_of_folder",
    "load",
    "origin",
    "server",
]

#: The database that is opened unless something else is said.
DEFAULT_URL = "sqlite:///orchestrator.db"

#: How many snapshots are kept unless something else is said.
SNAPSHOTS = 3

#: The set of this package's own migrations.
OWN = "orchestrator"
#: The variables that are read.
VARIABLES = (
    "DATABASE_URL",
    "DATABASE_POOL_SIZE",
    "DATABASE_POOL_TIMEOUT",
    "DATABASE_BUSY_TIMEOUT",
    "DATABASE_MIGRATIONS",
    "DATABASE_SNAPSHOTS",
    "DATABASE_PREPARE",
    "DATABASE_REPLICA",
    "DATABASE_SLOW",
)

# the variable of each number, the least that it can be, and what it is
_NUMBERS: dict[str, tuple[str, type[int | float], int, str]] = {
    "pool_size": ("DATABASE_POOL_SIZE", int, 1, "a whole number of connections"),
    "pool_timeout": ("DATABASE_POOL_TIMEOUT", float, 0, "a number of seconds"),
    "busy_timeout": ("DATABASE_BUSY_TIMEOUT", int, 0, "a whole number of milliseconds"),
    "snapshots": ("DATABASE_SNAPSHOTS", int, 0, "a whole number of snapshots to keep"),
    "slow": ("DATABASE_SLOW", float, 0, "a number of milliseconds"),
}
#: The names of folders that say for which engine their migrations are.
_SQLITE, _POSTGRESQL = ("sqlite",), ("postgresql", "postgres", "pgsql", "pg")
_SET = re.compile(r"[a-z0-9_-]+")
_NAMED = re.compile(r"([^/\\=]*)=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

if TYPE_CHECKING:
    from dao import aio
    from dao.pool import Pool


@attrs.frozen
class Folder:
    """A set of migrations as it is named before it is read: its folder, None for this package's own, and its name.

    Without a name it has the one that `dao.migrate.load` gives it.
    """

    path: Path | None
    name: str | None = None

    def __str__(self) -> str:
        path = OWN if self.path is None else str(self.path)
        return path if self.name is None else f"{self.name}={path}"


#: Migrations as an argument names them: a folder, or several, each as the variable has it.
_Given = str | os.PathLike[str] | Sequence[str | Folder] | None


@attrs.frozen(kw_only=True)
class Settings:
    """The database to open, and how. `pool_timeout` is in seconds, `url.busy_timeout` in milliseconds.

    `migrations` is a folder, None for the migrations of this package, or several sets, in their order, as the functions
    of `dao.migrate` take them. `snapshots` is how many are kept; 0: none taken. `prepare` is the `MODULE:FUNCTION` that
    the commands call with each connection, or None; a pool calls none.
    `replica` is where `dao replicate` keeps a replica, as it was given, or None. `slow` is how many milliseconds
    a statement takes that is to be logged, or None: a pool and the commands set it for the process
    (`dao.log_slow_statements`).
    """

    url: url.AnyURL
    pool_size: int = 5
    pool_timeout: float = 30.0
    migrations: Path | tuple[Folder, ...] | None = None
    snapshots: int = SNAPSHOTS
    prepare: str | None = None
    replica: str | None = None
    slow: float | None = None

    def pool(self) -> Pool:
        """Return a new connection pool with these settings."""
        from dao.pool import Pool  # noqa: PLC0415 - takes 6 ms, and most commands need none

        self.watch()
        return Pool(self.url, size=self.pool_size, timeout=self.pool_timeout)

    def aio_pool(self) -> aio.Pool:
        """Return a new connection pool for async code with these settings, the same as those of `pool`."""
        from dao import aio  # noqa: PLC0415 - as above

        self.watch()
        return aio.Pool(self.url, size=self.pool_size, timeout=self.pool_timeout)

    def watch(self) -> None:
        """Have statements logged that take as long as `slow` says, from now on; without it nothing happens."""
        if self.slow is not None:
            from dao.engine.watching import log_slow_statements  # noqa: PLC0415 - for those that want it

            log_slow_statements(self.slow)


def load(
    *,
    database: str | None = None,
    migrations: _Given = None,
    busy_timeout: int | None = None,
    prepare: str | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: str | os.PathLike[str] = ".",
) -> Settings:
    """Return the settings: the arguments, else those of the environment, of the `.env` in the folder, or the defaults.

    Read are `DATABASE_URL`, `DATABASE_POOL_SIZE`, `DATABASE_POOL_TIMEOUT`, `DATABASE_BUSY_TIMEOUT`,
    `DATABASE_MIGRATIONS`, `DATABASE_SNAPSHOTS`, `DATABASE_PREPARE`, `DATABASE_REPLICA` and `DATABASE_SLOW`; an empty
    value counts as none. Blanks, line ends, byte order marks and quotes around a value, as files from Windows and
    `docker --env-file` leave them, are no part of it. A busy timeout in the URL goes before `DATABASE_BUSY_TIMEOUT`.

    `DATABASE_MIGRATIONS`, and each text of `migrations`, is a folder, or several with `os.pathsep` between them; each
    may be named, as `app=./migrations`. `orchestrator` alone is the set of this package.

    Raises:
        InvalidURL: The database URL means nothing.
        InvalidValue: Another value means nothing; the message names its variable. Or the `.env` is not UTF-8.
    """
    values = _values(environ, folder)
    parsed = url.parse(database or values.get("DATABASE_URL") or DEFAULT_URL)
    numbers = {field: _number(values, *rule) for field, rule in _NUMBERS.items() if rule[0] in values}
    fallback = numbers.pop("busy_timeout", None)
    if busy_timeout is None and parsed.busy_timeout is None:
        busy_timeout = fallback
    if busy_timeout is not None:
        parsed = attrs.evolve(parsed, busy_timeout=busy_timeout)
    function = url.cleaned(prepare) if prepare else values.get("DATABASE_PREPARE")
    if function and not _FUNCTION.fullmatch(function):
        name = "prepare" if prepare else "DATABASE_PREPARE"
        raise InvalidValue(f"{name}={function}: expected MODULE:FUNCTION, such as app.database:register")
    return Settings(
        url=parsed,
        migrations=_migrations(migrations or values.get("DATABASE_MIGRATIONS")),
        prepare=function or None,
        replica=values.get("DATABASE_REPLICA"),
        **numbers,
    )


def origin(
    variable: str, *, environ: Mapping[str, str] = os.environ, folder: str | os.PathLike[str] = "."
) -> str | None:
    """Return where the value of a variable comes from: "the environment", or the path of `.env`; None if it has none.

    Raises:
        InvalidValue: The `.env` is not UTF-8, or a line of it means nothing.
    """
    if variable in _cleaned(environ):
        return "the environment"
    return str(Path(folder) / ".env") if variable in _values({}, folder) else None


def _migrations(given: _Given) -> Path | tuple[Folder, ...] | None:
    """Return what names migrations as `Settings` has it."""
    if given is None or isinstance(given, os.PathLike):
        return None if given is None else Path(given)
    found = tuple(one for text in ([given] if isinstance(given, str) else given) for one in _folders(text))
    if len(found) == 1 and found[0].name is None and found[0].path is not None:
        return found[0].path
    return found or None


def _folders(given: str | Folder) -> Iterator[Folder]:
    """Yield the folders in a text: all of it, if there is one of that name, or those between separators."""
    if isinstance(given, Folder):
        yield given
        return
    text = url.cleaned(given)
    if what := url.control_character(text):
        raise InvalidValue(f"the folder of the migrations cannot have {what} in its name: remove it")
    parts = [text] if not text or os.path.isdir(text) else text.split(os.pathsep)
    for part in map(url.cleaned, parts):
        named = None if os.path.isdir(part) else _NAMED.fullmatch(part)
        name, path = map(url.cleaned, named.groups()) if named else (None, part)
        if name is not None:
            check_set(name)
        if not path and parts != [""]:
            raise InvalidValue(f"{text!r} names a set of migrations without a folder: write NAME=FOLDER, or FOLDER")
        if path:
            yield Folder(None if path == OWN else Path(path), name)


def check_set(name: str) -> None:
    """Refuse what cannot be the name of a set of migrations.

    Raises:
        InvalidValue: It is no name.
    """
    if not _SET.fullmatch(name):
        raise InvalidValue(
            f"{name!r} is no name of a set of migrations: give one of lower-case letters, digits, _ and -, such as app"
        )


def engine_of_folder(folder: str | os.PathLike[str]) -> str | None:
    """Return the engine that migrations are for by the name of their folder, "sqlite" or "postgresql", or None."""
    name = os.path.basename(os.path.abspath(folder)).lower()
    return "sqlite" if name in _SQLITE else "postgresql" if name in _POSTGRESQL else None


def server(
    migrations: _Given = None,
    *,
    environ: Mapping[str, str] = os.environ,
    folder: str | os.PathLike[str] = ".",
) -> str | None:
    """Return `DATABASE_URL` if it is of a PostgreSQL server, for what needs one only if migrations are for that.

    They are not if a folder of theirs has the name of SQLite. `migrations` go before `DATABASE_MIGRATIONS`.

    Raises:
        InvalidValue: A folder has the name of PostgreSQL, and no server is named; and as `load`.
    """
    values = _values(environ, folder)
    source = _migrations(migrations or values.get("DATABASE_MIGRATIONS"))
    paths = [source] if isinstance(source, Path) else [one.path for one in source or () if one.path is not None]
    path, engine = next(((path, its) for path in paths if (its := engine_of_folder(path))), (None, None))
    given = values.get("DATABASE_URL", "")
    found = given if url.is_for_server(given) and engine != "sqlite" else None
    if found is None and engine == "postgresql":
        raise InvalidValue(
            f"{path} has migrations for PostgreSQL, by its name, and they are run on a server: name one with "
            "--database or DATABASE_URL, as postgresql://user@host/database"
        )
    return found


def _values(environ: Mapping[str, str], folder: str | os.PathLike[str]) -> dict[str, str]:
    return _cleaned(_dotenv(Path(folder))) | _cleaned(environ)


def _cleaned(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables of ours that have a value; a byte order mark in front of the file may stand in a name."""
    ours = {name: url.cleaned(value) for name, value in given.items() if value and "DATABASE_" in name}
    # the longest first: the name itself goes before one with a mark
    return {url.cleaned(name): ours[name] for name in sorted(ours, key=len, reverse=True) if ours[name]}


def _dotenv(folder: Path) -> Mapping[str, str | None]:
    path = folder / ".env"
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream  # noqa: PLC0415 - loaded only if there is such a file

    try:
        bindings = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{path}: not UTF-8; save the file as UTF-8") from error
    for binding in bindings:
        # passed over, such a line would leave the default: another database
        if binding.error:
            raise InvalidValue(f"{path}:{binding.original.line}: not a line of the form NAME=value")
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _number(values: Mapping[str, str], name: str, kind: type[int | float], least: int, what: str) -> Any:
    try:
        number = kind(values[name])
    except ValueError:
        number = -1
    if not number >= least:
        raise InvalidValue(f"{name}={values[name]}: expected {what}, from {least}")
    return number
