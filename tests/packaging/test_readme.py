"""What the documents say: their Python runs, and every command, option, path, name and link in them exists."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import click
import pytest

import dao
from dao import migrate, settings
from dao.migrate import default_folder
from tests.cli.calls import COMMANDS
from tests.concurrency import PATIENCE
from tests.packaging.checkout import README, ROOT, SCRIPTS, Block, blocks, phony, shown
from tests.plans import MODULES

DOCUMENTS = [
    *(path for folder in (".", "sql", "bench") for path in sorted((ROOT / folder).glob("*.md"))),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def in_documents(faults: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """Return the faults of each document that has some."""
    return {str(path.relative_to(ROOT)): found for path in DOCUMENTS if (found := faults(path))}


@functools.cache
def spans(path: Path) -> list[str]:
    """Return the texts between backticks, outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


@functools.cache
def commands(path: Path) -> list[str]:
    """Return what a reader may type: the spans, and the lines of the blocks."""
    return [*spans(path), *(line for block in blocks(path) for line in shown(block))]


def options(command: click.Command) -> set[str]:
    """Return the options of a command, and those of the commands below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {
        "--help",
        *(option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]),
    }
    return own.union(*map(options, below))


# ---------------------------------------------------------------- the Python in the README


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the README's Python as one program beside a migrated database.

    Give the folder, and what came.
    """
    folder = tmp_path_factory.mktemp("readme")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
    subprocess.run([sys.executable, "-m", "dao", "migrate", "--quiet"], cwd=folder, env=environ, check=True)
    # each block keeps its place, so that a traceback names the README's line
    script = "".join(
        f"exec(compile({chr(10) * (block.line - 1) + block.text!r}, {str(README)!r}, 'exec'))\n"
        for block in blocks(README)
        if block.language == "python"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return folder, done


def test_readme_python_runs_on_a_server(new_postgresql_url, tmp_path):
    """The same blocks run with the URL of a server in the place of each of SQLite's, and store the same."""
    script = "".join(block.text for block in blocks(README) if block.language == "python")
    assert script.count('"sqlite:///orchestrator.db"') > 1
    script = script.replace('"sqlite:///orchestrator.db"', repr(new_postgresql_url))
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.listdir(tmp_path)
    with dao.connect(new_postgresql_url) as connection:
        titles = {task.title for task in dao.tasks.iter_all(connection)}
    assert {"Summarise the report", "Send the report"} <= titles


def stored(folder: Path) -> list[tuple[str, str]]:
    connection = apsw.Connection(str(folder / "orchestrator.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [(str(id), str(title)) for id, title in connection.execute("SELECT id, title FROM tasks ORDER BY id")]
    finally:
        connection.close()


def test_readme_python_runs_as_it_stands(ran):
    """Every Python block runs, in order, in one program, with warnings as errors."""
    _, done = ran
    assert any(block.language == "python" for block in blocks(README))
    assert (done.returncode, done.stderr) == (0, "")


def test_readme_python_stores_tasks(ran):
    """The README shows how a task is stored: afterwards there are some."""
    folder, _ = ran
    assert stored(folder)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_readme_tasks_can_be_read_by_the_stock_shell(ran):
    """What was stored is an ordinary SQLite file: the `sqlite3` shell reads the same rows and finds it intact."""
    folder, _ = ran
    query = "SELECT id, title FROM tasks ORDER BY id; PRAGMA integrity_check;"
    done = subprocess.run(
        ["sqlite3", "-readonly", "-separator", "\t", "orchestrator.db", query],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [*("\t".join(row) for row in stored(folder)), "ok"]


def test_observer_of_the_guide_is_told_of_the_call(tmp_path):
    """Every Python block of the page runs, in order, in one program, and what it shows is printed."""
    script = "".join(
        block.text for block in blocks(ROOT / "docs" / "how-to" / "observe.md") if block.language == "python"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tasks.claim: " in done.stdout


def test_sql_readme_example_is_a_pair_that_keeps_the_house_rules(tmp_path):
    """The pair that shows how to write one applies, keeps updated_at, passes lint, and comes back.

    Its trigger did not name the new column, so that updated_at stood still.
    """
    forth, back = (block.text for block in blocks(ROOT / "sql" / "README.md") if block.language == "sql")
    folder = shutil.copytree(default_folder(), tmp_path / "sql", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    url = f"sqlite:///{tmp_path}/orchestrator.db"
    migrate.apply(url, folder)
    (folder / "99990101000000_add_effort.sql").write_text(forth)
    (folder / "99990101000000_add_effort.rollback.sql").write_text(back)
    assert {finding.code for finding in migrate.lint(folder).findings} == {
        finding.code for finding in migrate.lint().findings
    }
    with contextlib.closing(dao.connect(url)) as connection:
        before = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        task = dao.Task(title="a", task_type="b")
        dao.tasks.create(connection, task)
        migrate.apply(connection, folder)
        connection.execute("UPDATE tasks SET effort = 9")
        assert dao.tasks.get_one(connection, task.id).updated_at > task.updated_at
        migrate.rollback(connection, folder)
        after = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        assert after == before
    assert migrate.status(url, folder).ids("pending") == ["99990101000000_add_effort"]


# ---------------------------------------------------------------- what the documents name


def test_documents_are_there():
    """The documents that the others lead to are there, and none is empty."""
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sql/README.md", "docs/architecture.md"} <= names
    assert [path for path in DOCUMENTS if not path.read_text().strip()] == []


def test_scripts_for_deployments_have_their_table():
    """The page about deploying has every script of `bin/`, with the command that it is."""
    text = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    rows = re.findall(r"^\| `bin/([\w-]+)[^|]*\| `dao ([\w-]+)`", text, re.MULTILINE)
    assert dict(rows) == SCRIPTS


def test_readme_has_every_command_and_those_of_make():
    """Its table has each command, and it begins with the two with which everything begins."""
    rows = re.findall(r"^\| (?:[a-z]+ )?\| (`dao .*?) \|", README.read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall("`dao ([a-z-]+)`", row)) == sorted(COMMANDS)
    assert {"make migrate", "make test"} <= {command for block in blocks(README) for command in shown(block)}


def test_document_make_targets_and_variables_exist():
    """Every `make TARGET NAME=value` in a document is one of the Makefile's.

    The target uses or names the variable.
    """
    makefile = (ROOT / "Makefile").read_text()

    def faults(path: Path) -> list[str]:
        wrong = []
        for command in commands(path):
            for target, rest in re.findall(r"(?:^|[;&|] *)make ([a-z][a-z-]*)((?: [A-Z]+=\S+)*)", command):
                rule = re.search(rf"^{target}:(.*\n(?:\t.*\n?)*)", makefile, re.MULTILINE)
                used = rule[1] if rule else ""
                forms = [(f"$({name})", f"$${name}", f"({name}=") for name in re.findall(r" ([A-Z]+)=", rest)]
                if target not in phony() or not all(any(form in used for form in each) for each in forms):
                    wrong.append(command)
        return wrong

    assert in_documents(faults) == {}


def invocations(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield every call of the command line in a document: as it is written, its command, and its options."""
    for command in commands(path):
        for tool, name, rest in re.findall(r"(?:^|[;&|] *)(dao |bin/)([a-z][a-z-]*)([^;&|]*)", command):
            known = name if tool == "dao " else SCRIPTS.get(name, name if name in {"dao", "check-wheel"} else "?")
            yield command, known, re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)


def test_document_commands_and_their_options_exist():
    """Every `dao COMMAND --option` and `bin/SCRIPT --option` in a document can be typed as it stands."""

    def faults(path: Path) -> list[str]:
        return [
            written
            for written, name, given in invocations(path)
            if name not in {"dao", "check-wheel"}
            if name not in COMMANDS or not set(given) <= options(COMMANDS[name])
        ]

    assert in_documents(faults) == {}


def test_document_has_no_conflict_of_a_merge():
    """A merge left its marks in the changelog, where nothing fails because of them."""

    def faults(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        return re.findall(r"^(?:<{7} .*|={7}|>{7} .*)$", text, re.MULTILINE)

    assert in_documents(faults) == {}


def test_document_options_alone_exist():
    """An option that is named alone is one of some command."""
    known = set().union(*map(options, COMMANDS.values()))

    def faults(path: Path) -> list[str]:
        return [span for span in spans(path) if re.fullmatch(r"--[a-z-]+", span) and span not in known]

    assert in_documents(faults) == {}


def test_document_variables_exist():
    """Every DATABASE_… that is named is one that the settings read."""
    source = Path(settings.__file__).read_text()

    def faults(path: Path) -> list[str]:
        named = set(re.findall(r"\bDATABASE_[A-Z_]+\b", path.read_text()))
        return [name for name in named if f'"{name}"' not in source]

    assert in_documents(faults) == {}


def test_document_paths_exist():
    """A path of this repository in a document leads somewhere."""
    folders = "bin|bench|dao|docs|sql|tests"

    def faults(path: Path) -> list[str]:
        named = [span for span in spans(path) if re.fullmatch(rf"(?:{folders})/[\w./-]*", span)]
        return [name for name in named if not (ROOT / name).exists()]

    assert in_documents(faults) == {}


def test_pages_that_the_code_names_exist():
    """Pages move: a message led to one that had gone, and only a reader would have noticed."""
    sources = [*(ROOT / "dao").rglob("*.py"), ROOT / ".env.example", ROOT / "setup.cfg", ROOT / "Makefile"]
    named = {page for path in sources for page in re.findall(r"(?<![./\w])docs/[\w./-]+\.md", path.read_text())}
    shown = {
        f"docs/{page}" for path in sources for page in re.findall(r"\bmanual\(['\"]([^'\"]+\.md)", path.read_text())
    }
    assert named
    assert shown
    assert [page for page in named | shown if not (ROOT / page).is_file()] == []


def rooms(block: Block) -> list[str]:
    """Return the files and folders that a tree of the repository shows, a name in a folder with the folder's path."""
    found: list[str] = []
    folders: list[str] = []
    for line in block.text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.findall(r"[\w.]+(?:\.py\b|/)", re.split(r"\s{2,}", line.strip())[0]):
            found.append("".join(folders[:depth]) + name)
            if name.endswith("/"):
                folders[depth:] = [name]
    return found


def test_architecture_draws_the_house_as_it_is():
    """Its tree has every module and package of `dao` and `dao.migrate`, and nothing that is not there."""
    (tree,) = (block for block in blocks(ROOT / "docs" / "architecture.md") if "dao/" in block.text)
    drawn = rooms(tree)
    assert [name for name in drawn if not (ROOT / name).exists()] == []
    there = {
        f"{path.relative_to(ROOT)}" + ("/" if path.is_dir() else "")
        for folder in ("dao", "dao/migrate")
        for path in (ROOT / folder).iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    names = ["configurations", "sessions", "task_dependencies", "task_events", "tool_executions", "workflow_tasks"]
    tables = {f"dao/{name}.py" for name in names}
    assert there - {*drawn} == tables  # `workflows.py …` stands for them


def test_architecture_modules_of_rooms_exist():
    """A module that is named with its room, as `run/guard`, is in that room of `dao.migrate`."""
    folders = "|".join(path.name for path in (ROOT / "dao" / "migrate").iterdir() if path.is_dir())
    named = [re.fullmatch(rf"((?:{folders})/\w+)(?:\.py)?", span) for span in spans(ROOT / "docs" / "architecture.md")]
    modules = [match[1] for match in named if match]
    assert modules
    there = {
        path.relative_to(ROOT / "dao" / "migrate").as_posix().removesuffix(".py").removesuffix("/__init__")
        for path in (ROOT / "dao" / "migrate").rglob("*.py")
    }
    assert [name for name in modules if name not in there] == []


def test_document_links_lead_to_files():
    """Every relative link leads to a file."""

    def faults(path: Path) -> list[str]:
        links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
        return [link for link in relative if link and not (path.parent / link).exists()]

    assert in_documents(faults) == {}


def test_document_names_of_the_package_exist():
    """Every `dao.name`, and `module.name` of a table module or of `migrate`, is there."""
    roots = {name: getattr(dao, name) for name in MODULES} | {"dao": dao, "migrate": migrate}

    def faults(path: Path) -> list[str]:
        wrong = []
        for span in spans(path):
            if match := re.match(rf"({'|'.join(roots)})((?:\.[A-Za-z_]\w*)+)", span):
                found: object = roots[match[1]]
                for name in match[2].split(".")[1:]:
                    found = getattr(found, name, None) or (found is dao and _submodule(name))
                if not found:
                    wrong.append(span)
        return wrong

    assert in_documents(faults) == {}


def _submodule(name: str) -> object:
    return importlib.import_module(f"dao.{name}") if (Path(dao.__file__).parent / f"{name}.py").exists() else None


def test_table_of_functions_is_that_of_the_modules():
    """Each module's row has all its public functions and no others; a module that has the same says so."""
    text = (ROOT / "docs" / "reference" / "api" / "index.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| ([a-z_, ]+) \|$", text, re.MULTILINE))
    assert set(listed) == {*MODULES}
    before: list[str] = []
    for module, text in listed.items():
        names = before if text == "the same" else text.split(", ")
        functions = [name for name in getattr(dao, module).__all__ if name.islower()]
        assert sorted(names) == sorted(functions), module
        before = names


def test_document_installs_nothing_over_the_checkout():
    """`pip install '.[postgresql]'` put a copy of the package in the place of the checkout's own, scripts and all."""

    def faults(path: Path) -> list[str]:
        return re.findall(r"pip install '?\.\S*", path.read_text())

    assert in_documents(faults) == {}
