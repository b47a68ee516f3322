"""Fixtures: real SQLite files in `tmp_path`, migrated, one for each test; and databases of a PostgreSQL server."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dao
from dao.settings import VARIABLES
from dao.testing.server import Databases, Reused
from tests import servers
from tests.databases import Run
from tests.folders import THREE, write
from tests.samples import left_to_slow_runs

pytest_plugins = ["dao.testing.plugin", "pytester"]

# their assertions explain themselves like those of a test; said here, since `pytest_collection` imports the tests
pytest.register_assert_rewrite(
    "tests.property.machine",
    "tests.property.rules_of_work",
    "tests.property.rules_of_calls",
    "tests.property.rules_of_claims",
)

# how long an example takes says how busy the machine is
settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", settings.get_profile("timeless"), max_examples=10)
settings.register_profile("ci", settings.get_profile("timeless"), max_examples=10, derandomize=True)
settings.register_profile("nightly", settings.get_profile("timeless"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

SQL = Path(__file__).parents[1] / "sql" / "sqlite"

# ---------------------------------------------------------------- the run

RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    """Agree with all processes of this run on folders: for temporary files, and to find the server in."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell starts what runs in the background so, and the processes that tests interrupt would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # how wide the terminal is of whoever runs the tests, and which colours it has, is not what they look at
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)
    for name in VARIABLES:  # nor is their database, whose URL is at hand
        os.environ.pop(name, None)
    # with it a process that forgets to flush what another waits for passes here, and hangs elsewhere
    os.environ.pop("PYTHONUNBUFFERED", None)
    # hundreds of tests start Python: each would compile the whole package anew
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    gc.disable()  # until the tests are collected
    if "TMPDIR" not in os.environ and (memory := servers.memory()):
        os.environ["TMPDIR"] = tempfile.tempdir = memory
    given = getattr(config, "workerinput", {}).get("run")
    config.stash[RUN] = Run(Path(given or Path(tempfile.gettempdir(), f"dao-tests-{uuid.uuid4().hex[:12]}")))


@settings(derandomize=True, database=None, max_examples=1)
@given(st.none())
def make_generator(_nothing: None) -> None:
    """Have Hypothesis make its generator of random numbers."""


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Do so before objects are frozen: among those it finds nobody who holds the generator, on Python 3.14."""
    make_generator()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Run more tests at a time than there are cores: a third of their time they wait, for processes and for locks."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # as it says
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + max(2, cores // 2)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a process of pytest-xdist which run it belongs to."""
    node.workerinput["run"] = str(node.config.stash[RUN].folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Have each process of pytest-xdist begin with other modules: what one has compiled, the others only read."""
    given = getattr(session.config, "workerinput", None)
    if given is None or session.config.args != session.config.getini("testpaths"):
        return
    number, count = int(given["workerid"].removeprefix("gw")), given["workercount"]
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[number::count]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # pytest says so when it collects it
            importlib.import_module(".".join(path.relative_to(Path(__file__).parents[1]).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that wait the most, for processes that are killed: none of them is left over at the end."""
    items.sort(key=lambda item: item.path.parent.name != "fault")
    for item in left_to_slow_runs(items):
        item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Look no more at the thousands of tests: they stay, and each full collection would go through all of them."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which engines ran."""
    engines = [f"SQLite {apsw.sqlite_lib_version()}"]
    if "version" in (state := config.stash[RUN].state()):
        engines.append(f"PostgreSQL {state['version']} ({state['source']})")
    terminalreporter.write_line(f"engines: {', '.join(engines)}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the server, which ends with its last user."""
    run = config.stash[RUN]
    if hasattr(config, "workerinput"):
        run.leave()
    else:
        run.end()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away from a test that interrupts threads: Hypothesis has it call back.

    What is raised in such a call reaches nobody, so that the test waited for ever, or failed for the warning.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---------------------------------------------------------------- SQLite


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database in one file, made once: copied, it is a new database in a fraction of a millisecond."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    connection = apsw.Connection(str(path))
    for script in sorted(SQL.glob("*.sql")):
        if not script.name.endswith(".rollback.sql"):
            connection.execute(script.read_text()).fetchall()
    connection.close()
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of three migrations that make the tables a, b and c."""
    return write(tmp_path / "three", THREE)


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    """The path of a migrated, empty database."""
    path = tmp_path / "orchestrator.db"
    path.write_bytes(template.read_bytes())
    return path


# ---------------------------------------------------------------- either

ENGINES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked `both_engines`, and not `sqlite_only`, on each of them."""
    marked = metafunc.definition.get_closest_marker
    chosen = any("engine" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "engine" in metafunc.fixturenames and marked("both_engines") and not marked("sqlite_only") and not chosen:
        metafunc.parametrize("engine", ENGINES, scope="session")


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine of the test: "sqlite", or each of `ENGINES` in turn if the test is marked `both_engines`."""
    return "sqlite"


@pytest.fixture
def url(engine: str, request: pytest.FixtureRequest) -> str:
    """The URL of a migrated, empty database of the test's engine."""
    if engine == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{request.getfixturevalue('database')}"


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    """A connection to a migrated, empty database of the test's engine."""
    connection = dao.connect(url)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def dao_engine(engine: str) -> str:
    """The engine of the plugin's fixtures: as of those here."""
    return engine


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="session")
def dao_server(server: Databases) -> str:
    """The server of the plugin's fixtures: that of this run."""
    return server.url


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Run:
    """What the processes of this run share: `.databases()` makes and drops databases, `.template` is migrated."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def server(shared: Run) -> Databases:
    """The PostgreSQL server of this run, on which databases are made: `server.create()` returns the URL of one."""
    return shared.databases()


@pytest.fixture(scope="session")
def _reused(shared: Run) -> Iterator[Reused]:
    with contextlib.closing(shared.reused()) as reused:
        yield reused


@pytest.fixture
def postgresql_url(_reused: Reused) -> Iterator[str]:
    """The URL of a migrated, empty PostgreSQL database; what the test does to it is undone."""
    yield _reused.url
    _reused.empty()


@pytest.fixture
def migrated_postgresql_url(shared: Run, server: Databases) -> Iterator[str]:
    """The URL of a new, migrated PostgreSQL database."""
    url = server.create(shared.template)
    yield url
    server.drop(url)


@pytest.fixture
def new_postgresql_url(server: Databases) -> Iterator[str]:
    """The URL of a new PostgreSQL database without a table."""
    url = server.create()
    yield url
    server.drop(url)


# ---------------------------------------------------------------- several databases

#: Makes a database of an engine, and returns its URL.
Make = Callable[[str], str]


@pytest.fixture
def make(template: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make another migrated, empty database of an engine, and return its URL: `make("postgresql")`."""
    made: list[str] = []

    def one(engine: str) -> str:
        if engine == "sqlite":
            path = tmp_path / f"database {len(made)}.db"
            path.write_bytes(template.read_bytes())
            made.append(f"sqlite:///{path}")
        else:
            server: Databases = request.getfixturevalue("server")
            made.append(server.create(request.getfixturevalue("shared").template))
        return made[-1]

    yield one
    for url in made:
        if not url.startswith("sqlite"):
            request.getfixturevalue("server").drop(url)
