"""What importing costs, what the package offers, and that it is what its metadata says."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dao
from dao import _version, errors, migrate
from dao.migrate import default_folder
from tests.cli.calls import CALLS
from tests.folders import THREE, query, write

PACKAGE = Path(dao.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
#: The second SQLite, the tools for migrations and the command line, and what only some programs need.
HEAVY = ["asyncio", "cattrs", "click", "dotenv", "hypothesis", "opentelemetry", "psycopg", "rich", "sqlite3", "yoyo"]
IDS = [
    "20250115010000_create_tasks",
    "20250115010100_create_workflows",
    "20250115010200_create_workflow_tasks",
    "20250115010300_create_tool_executions",
    "20250115010400_create_sessions",
    "20250115010500_create_configurations",
    "20250115010600_create_triggers",
    "20261128010000_add_task_claims",
    "20261128010100_create_task_dependencies",
    "20261128010200_hold_tasks_of_paused_workflows",
    "20261128010300_create_task_events",
    "20261128010400_add_tool_steps",
    "20261128010500_create_task_views",
]


def loaded_by(script: str, *arguments: object, cwd: Path) -> list[str]:
    """Run a script in a new Python, with warnings as errors, and return which of the heavy packages it loaded."""
    ending = f"\nimport json, sys; print(json.dumps([name for name in {HEAVY} if sys.modules.get(name)]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script + ending, *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---------------------------------------------------------------- what is loaded


def test_import_dao_loads_nothing_heavy(tmp_path):
    """`import dao` loads the driver and what the records need, and no more."""
    assert loaded_by("import dao", cwd=tmp_path) == []


def test_import_dao_gives_every_module(tmp_path):
    """`import dao` is enough for `dao.migrate` and all the others.

    Some were attributes only after an import of their own.
    """
    modules = "dao.aio, dao.migrate, dao.settings, dao.testing, dao.tasks, dao.errors"
    loaded_by(f"import dao; print({modules}); assert 'migrate' in dir(dao)", cwd=tmp_path)


def test_use_of_the_library_loads_nothing_heavy(tmp_path, url):
    """Neither do a record written and read, a pool, and the check of the schema at start-up."""
    script = """
import sys
import dao
from dao import Task, migrate, tasks

connection = dao.connect(sys.argv[1])
task = Task(title="t", task_type="x", config={"a": 1})
tasks.create(connection, task)
assert tasks.get(connection, task.id) == task
with dao.Pool(sys.argv[1]) as pool:
    assert pool.health().ok
try:
    migrate.assert_current(connection)
except dao.SchemaOutOfDate:
    pass
connection.close()
"""
    assert loaded_by(script, url, cwd=tmp_path) == []


def test_apply_with_nothing_to_do_loads_no_yoyo(tmp_path):
    """A program may call `apply` at every start: only the run that changes something pays for yoyo."""
    url = f"sqlite:///{tmp_path}/new.db"
    script = "import sys; from dao import migrate; print(len(migrate.apply(sys.argv[1])), migrate.status(sys.argv[1]))"
    assert "yoyo" in loaded_by(script, url, cwd=tmp_path)
    assert loaded_by(script, url, cwd=tmp_path) == []


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "command", ["status", "plan", "plan --rollback", "history", "health", "migrate", "snapshot", "snapshots"]
)
def test_command_line_in_a_pipe_loads_no_rich_and_no_yoyo(tmp_path, command):
    """A command that applies nothing, run by a machine, loads click and nothing that it does not use."""
    migrate.apply(f"sqlite:///{tmp_path}/orchestrator.db")
    script = f"""
import sys
from dao.cli.main import main

sys.argv[1:] = "{command}".split()
try:
    main()
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded_by(script, cwd=tmp_path) == ["click"]


def test_sqlite_needs_no_psycopg(tmp_path, template):
    """Where psycopg is not installed, everything works on SQLite, and a URL for PostgreSQL says what to install."""
    work = tmp_path / "work"
    write(work, {"orchestrator.db": b"", "three": lambda path: write(path, THREE)})
    migrate.apply(f"sqlite:///{work}/orchestrator.db", work / "three", to="0002_b")
    for name in ("source.db", "target.db"):
        (work / name).write_bytes(template.read_bytes())
    (work / "begun").mkdir()
    query(work / "existing.db", "CREATE TABLE there (id INTEGER PRIMARY KEY)")
    calls = {name: call for name, call in CALLS.items() if name not in EXTERNAL}
    script = """
import asyncio, contextlib, io, json, os, shutil, sys

sys.modules["psycopg"] = None  # whoever imports it gets an ImportError
import dao
from dao import Task, aio, tasks
from dao.cli.main import main

def call(*arguments):
    sys.argv[1:] = arguments
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            return end.code

async def use(url):
    async with aio.Pool(url) as pool:
        await pool.write(tasks.create, Task(title="t", task_type="x"))
        return await pool.run(tasks.count)

work, calls = sys.argv[1], json.loads(sys.argv[2])
os.environ["DATABASE_MIGRATIONS"] = "three"
codes = {}
for name, arguments in calls.items():
    shutil.copytree(work, name)
    os.chdir(name)
    for before in {"health": ["migrate"], "wait": ["migrate"], "restore": ["snapshot"]}.get(name, ()):
        call(before, "--quiet")
    codes[name] = call(*arguments, "--quiet")
    os.chdir("..")
assert asyncio.run(use(f"sqlite:///{work}/source.db")) == 1
try:
    dao.connect("postgresql://host/database")
except dao.UnsupportedEngine as error:
    assert "pip install 'orchestrator-dao[postgresql]'" in str(error)
print()
assert set(codes.values()) == {0}, codes
"""
    assert "psycopg" not in loaded_by(script, work, json.dumps(calls), cwd=tmp_path)


def test_names_of_the_package_are_listed_without_psycopg(tmp_path):
    """`from dao import *`, and whatever looks at all names, ended in a ModuleNotFoundError."""
    script = """
import inspect, sys

sys.modules["psycopg"] = None
import dao
from dao import *

names = {name for name, _ in inspect.getmembers(dao)}
assert names >= {"Task", "connect", "tasks", "postgresql"}
print()
"""
    assert "psycopg" not in loaded_by(script, cwd=tmp_path)


#: The commands that run a program that may not be installed either.
EXTERNAL = {"replicate", "restore-replica"}


def imported(path: Path) -> set[str]:
    """Return the packages that a module imports, at whatever depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):  # import_module("sqlite3")
            names |= {one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return names


def test_no_module_imports_the_second_sqlite():
    """No module imports `sqlite3`, at whatever depth: a second SQLite on one file loses the first one's locks."""
    others = {"sqlite3", "_sqlite3", "pysqlite3", "aiosqlite"}
    assert [str(path.relative_to(PACKAGE)) for path in MODULES if imported(path) & others] == []


# ---------------------------------------------------------------- what is offered


def test_all_names_exist_and_are_there_once():
    """Every name in `dao.__all__` is there, and none twice."""
    assert [name for name in dao.__all__ if not hasattr(dao, name)] == []
    assert len(set(dao.__all__)) == len(dao.__all__)


def test_all_has_every_public_name_of_the_package():
    """What the package itself defines or re-exports without an underscore is public on purpose."""
    script = "import dao, json, types; print(json.dumps(sorted(n for n in dir(dao) if not n.startswith('_'))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = set(json.loads(done.stdout))
    modules = {path.stem for path in MODULES} | {"migrate"}
    assert names - set(dao.__all__) <= modules
    assert set(dao.__all__) <= names


def test_all_has_every_error():
    """The whole hierarchy can be had from `dao`, and comes from one base."""
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and name[0] != "_"}
    raised = {name for name, value in classes.items() if value.__module__ == errors.__name__}
    assert raised == set(errors.__all__)
    assert raised <= set(dao.__all__)
    assert all(getattr(dao, name) is classes[name] and issubclass(classes[name], dao.Error) for name in raised)


@pytest.mark.parametrize("package", [dao, migrate], ids=lambda package: package.__name__)
def test_names_that_type_checkers_see_are_those_that_are_there(package):
    """The imports for type checkers and the names that are imported when they are used are one list, written twice."""
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    seen = [(alias.name, alias.asname) for node in block.body for alias in node.names]
    assert all(name == exported for name, exported in seen)
    assert {name for name, _ in seen} == {*package.__all__} - {*errors.__all__}
    assert len({*package.__all__}) == len(package.__all__)
    assert {*package.__all__} <= {*dir(package)}


@pytest.mark.parametrize(
    "module", ["aio", "configurations", "migrate", "pool", "records", "sessions", "settings", "tasks", "testing", "url"]
)
def test_module_all_names_exist(module):
    """Every name in a public module's `__all__` is there."""
    imported = importlib.import_module(f"dao.{module}")
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []


# ---------------------------------------------------------------- what is shipped


def test_version_is_that_of_the_metadata():
    """The package and its metadata agree on the version, and so does `python -m dao`."""
    assert importlib.metadata.version("orchestrator-dao") == _version.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", _version.__version__)
    done = subprocess.run([sys.executable, "-m", "dao", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dao {_version.__version__}\n"


def test_entry_points_lead_to_what_they_name():
    """The command and yoyo's backend can be loaded by the names that the metadata gives them."""
    points = importlib.metadata.distribution("orchestrator-dao").entry_points
    assert {(point.group, point.name): point.load().__name__ for point in points} == {
        ("console_scripts", "dao"): "main",
        ("yoyo.backends", "sqlite+apsw"): "ApswBackend",
    }


def test_wheel_has_every_package():
    """The list of packages in setup.cfg is complete: `dao.testing` was not in the wheel."""
    settings = configparser.ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg")
    listed = settings["options"]["packages"].split()
    there = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert {name for name in listed if not name.startswith(("dao.docs", "dao.sql"))} == there


def test_package_is_marked_as_typed():
    """`py.typed` is beside the modules: a type checker may trust their annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_default_folder_holds_the_pairs():
    """The package brings its own migrations, each with its rollback, and a folder of its own finds them."""
    migrations = migrate.load()
    assert [migration.id for migration in migrations] == IDS
    assert {migration.path.parent for migration in migrations} == {default_folder()}
    assert all(migration.reversible and migration.up.transactional for migration in migrations)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_default_folder_of_each_engine_holds_the_same_pairs(engine):
    """A database that moves to the other engine finds the ids of its ledger there, and each can be undone there."""
    migrations = migrate.load(default_folder(engine), engine=engine)
    assert [migration.id for migration in migrations] == IDS
    assert all(migration.reversible and migration.up.transactional for migration in migrations)
    assert sorted(path.name for path in default_folder(engine).glob("*.sql")) == sorted(
        f"{id}{suffix}" for id in IDS for suffix in (".sql", ".rollback.sql")
    )
