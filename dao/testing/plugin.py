"""Fixtures for pytest: databases that are migrated and empty, on each engine, and a clock that stands still.

It is loaded by those who ask for it, in the `conftest.py` at the root of their tests::

    pytest_plugins = ["dao.testing.plugin"]

`docs/how-to/test-an-application.md` shows how an application has its own migrations, its engines and its server.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dao import aio, migrate, url
from dao.engine import connect
from dao.pool import Pool
from dao.testing.clock import Clock

if TYPE_CHECKING:  # SQLite needs none of it
    from dao.migrate.scripts.load import Source
    from dao.testing.server import Databases, Reused

__all__ = [
    "ENGINES",
    "SERVER",
    "aio_pool",
    "clock",
    "connection",
    "dao_engine",
    "dao_migrations",
    "dao_prepare",
    "dao_server",
    "database_url",
    "pool",
]

#: The engines that tests may run on.
ENGINES = ("sqlite", "postgresql")
#: The variable that names the server: a URL, by a role that may create databases.
SERVER = "DAO_TEST_POSTGRESQL_URL"

#: What the program registers with each connection, as `dao.Pool` takes it.
_Prepare = Callable[[Any], object] | None


# ---------------------------------------------------------------- which engines


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that say which engines tests run on."""
    where = f"sqlite, and postgresql on the server of {SERVER}"
    parser.getgroup("dao", "databases of orchestrator-dao").addoption(
        "--dao-engine",
        action="append",
        choices=ENGINES,
        help=f"an engine to run tests with a database on; repeat it for both: {where}. Default: dao_engines",
    )
    parser.addini("dao_engines", f"the engines to run tests with a database on: {where}", "args", ["sqlite"])


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an engine that there is not."""
    if unknown := [name for name in config.getini("dao_engines") if name not in ENGINES]:
        raise pytest.UsageError(f"dao_engines names {' and '.join(unknown)}: use {' or '.join(ENGINES)}")


def _engines(config: pytest.Config) -> list[str]:
    chosen: list[str] = config.getoption("--dao-engine") or config.getini("dao_engines") or ["sqlite"]
    return list(dict.fromkeys(chosen))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with a database once on every engine, if there are several."""
    engines = _engines(metafunc.config)
    if len(engines) > 1 and "dao_engine" in metafunc.fixturenames and not _names_engines(metafunc.definition):
        metafunc.parametrize("dao_engine", engines, indirect=True, scope="session")


def _names_engines(test: pytest.Item) -> bool:
    """Return whether a test says itself which engines it runs on."""
    for mark in test.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if "dao_engine" in ([name.strip() for name in names.split(",")] if isinstance(names, str) else names):
            return True
    return False


# ---------------------------------------------------------------- what an application overrides


@pytest.fixture(scope="session")
def dao_engine(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> str:
    """The engine of the test: "sqlite" or "postgresql"."""
    engine: str = getattr(request, "param", None) or _engines(pytestconfig)[0]
    return engine


@pytest.fixture(scope="session")
def dao_migrations() -> Source:
    """The migrations that databases are made by, as `dao.migrate.apply` takes them; None: this package's own.

    Override it for your own; with `dao_engine` as a parameter, if each engine has its folder.
    """
    return None


@pytest.fixture(scope="session")
def dao_prepare() -> _Prepare:
    """The function that registers with each connection what your schema needs, or None: override it if you have one."""
    return None


@pytest.fixture(scope="session")
def dao_server() -> str:
    """The URL of the PostgreSQL server to make databases on, by a role that may create them."""
    found = os.environ.get(SERVER)
    if not found:
        pytest.fail(
            f"no PostgreSQL server to test on: set {SERVER}=postgresql://…, for a role that may create databases, or "
            "override the fixture dao_server; --dao-engine sqlite leaves PostgreSQL out",
            pytrace=False,
        )
    return found


# ---------------------------------------------------------------- databases


class _Templates:
    """The migrated databases of this process, each made once; copied or emptied, they are the tests' databases."""

    def __init__(self, folder: Path, server: Callable[[], str], stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._server = server
        self._stack = stack
        self._images: dict[Hashable, bytes] = {}
        self._reused: dict[Hashable, Reused] = {}
        self._databases: Databases | None = None
        self._numbers = itertools.count()  # another for each try: one that failed is in the way, and hides why it did

    def copy(self, path: Path, migrations: Source, prepare: _Prepare) -> str:
        """Make a SQLite database, and return its URL."""
        key = (_key(migrations), prepare)
        if key not in self._images:
            template = self._folder / f"{next(self._numbers)}.db"
            migrate.apply(_url(template), migrations, prepare=prepare)
            # no connection to it is open in this process, which would lose its locks
            self._images[key] = template.read_bytes()
        path.write_bytes(self._images[key])
        return _url(path)

    @contextlib.contextmanager
    def reused(self, migrations: Source, prepare: _Prepare) -> Iterator[str]:
        """Lend the URL of a database on the server."""
        key = (_key(migrations), prepare)
        if key not in self._reused:
            self._reused[key] = self._made(migrations, prepare)
        one = self._reused[key]
        yield one.url
        one.empty()

    def _made(self, migrations: Source, prepare: _Prepare) -> Reused:
        server = self._server()
        url.parse_server(server)  # it says what to install, if need be
        from dao.testing.server import Databases, Reused  # noqa: PLC0415 - loads psycopg

        databases = self._databases or Databases(server)
        template = f"{databases.prefix}template_{next(self._numbers)}"
        made = databases.create(name=template)
        if self._databases is None:  # a server that cannot be reached has nothing to drop
            self._databases = databases
            self._stack.callback(databases.close)
            self._stack.callback(databases.drop_all)
        migrate.apply(made, migrations, prepare=prepare)
        reused = Reused(databases, template)
        self._stack.callback(reused.close)
        return reused


def _key(migrations: Source) -> Hashable:
    """Return what tells migrations from others; a list of them, from a fixture that makes it anew for each test."""
    return tuple(map(_key, migrations)) if isinstance(migrations, list | tuple) else migrations  # type: ignore[return-value] # a sequence of migrations is its id


def _url(path: Path) -> str:
    return str(url.DatabaseURL(path=str(path)))


@pytest.fixture(scope="session")
def _dao_templates(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Templates]:
    with contextlib.ExitStack() as stack:
        # a server is asked for by the first test that needs one
        yield _Templates(tmp_path_factory.mktemp("dao"), lambda: request.getfixturevalue("dao_server"), stack)


@pytest.fixture
def database_url(
    dao_engine: str, dao_migrations: Source, dao_prepare: _Prepare, _dao_templates: _Templates, tmp_path: Path
) -> Iterator[str]:
    """The URL of a migrated database of the test's own, with no rows but those that migrations have made."""
    if dao_engine == "sqlite":
        yield _dao_templates.copy(tmp_path / "orchestrator.db", dao_migrations, dao_prepare)
    else:
        with _dao_templates.reused(dao_migrations, dao_prepare) as found:
            yield found


@pytest.fixture
def connection(database_url: str, dao_prepare: _Prepare) -> Iterator[Any]:
    """A connection to the test's database, as `dao.connect` opens it."""
    with contextlib.closing(connect(database_url)) as connection:
        if dao_prepare:
            dao_prepare(connection)
        yield connection


@pytest.fixture
def pool(database_url: str, dao_prepare: _Prepare) -> Iterator[Pool]:
    """A pool of connections to the test's database."""
    with Pool(database_url, prepare=dao_prepare) as pool:
        yield pool


@pytest.fixture
def aio_pool(database_url: str, dao_prepare: _Prepare) -> aio.Pool:
    """A pool for async code that has opened nothing yet: `async with aio_pool: …` closes it, in the test's own loop."""
    return aio.Pool(database_url, prepare=dao_prepare)


# ---------------------------------------------------------------- time


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The present, which stands still to the end of the test: `clock.tick(timedelta(seconds=30))` moves it on."""
    with Clock() as clock:
        yield clock
