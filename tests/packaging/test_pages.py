"""The README, the tutorial and the how-to guides run as they stand, each page in a folder of its own.

A block of Python or of a shell in them is run, or a comment before it says why it is not:
`<!-- not run: it needs a server -->`. A block that begins with a comment which is the name of a file is that file.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import apsw
import pytest

import dao
from dao import migrate
from dao.cli.group import run
from dao.testing import make_task
from tests.concurrency import PATIENCE
from tests.packaging.checkout import README, ROOT, SCRIPTS, Block, blocks, shown

TUTORIAL = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
PAGES = [README, ROOT / "docs" / "index.md", *TUTORIAL, *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
#: What a reader runs, or puts into a file.
RUNS = {"python", "sh"}
_FILE = re.compile(r"(?:#|--) ([\w/.-]+\.(?:py|sql))(, continued)?\n")
RUNBOOK = ROOT / "docs" / "how-to" / "deploy.md"
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n$")


def name(page: Path) -> str:
    return page.stem


def is_run(page: Path, block: Block) -> bool:
    """Return whether no comment stands before the block that says why it is not run."""
    before = "".join(page.read_text().splitlines(keepends=True)[: block.line - 2])
    return not _NOT_RUN.search(before)


def runnable(page: Path) -> list[Block]:
    return [
        block for block in blocks(page) if (block.language in RUNS or _FILE.match(block.text)) and is_run(page, block)
    ]


class Reader:
    """Somebody who types what a page shows: its files, its Python as one program, its commands."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self.capture = folder, patch, capture
        module = types.ModuleType("page")  # pydantic looks its names up there
        patch.setitem(sys.modules, "page", module)
        self.scope: dict[str, object] = vars(module)

    def read(self, page: Path) -> None:
        """Do what all blocks of a page say. The parts of the tutorial have the files of the others at hand."""
        for other in [*(TUTORIAL if page in TUTORIAL else []), page]:
            for block in runnable(other):
                if file := _FILE.match(block.text):
                    path = self.folder / file[1]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("a" if file[2] else "w") as written:
                        written.write(block.text)
        for block in runnable(page):
            if _FILE.match(block.text):
                continue
            if block.language == "python":
                text = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
                exec(compile(text, str(page), "exec"), self.scope)  # noqa: S102 - it is what the page says
            else:
                for line in filter(None, shown(block)):
                    self.type(line)

    def type(self, line: str) -> None:
        """Run a line of a shell, which has to succeed."""
        command, *arguments = shlex.split(line)
        if command == "python":
            subprocess.run([sys.executable, "-W", "error", *arguments], check=True, timeout=PATIENCE)
            return
        if command.startswith("bin/"):
            command, arguments = "dao", [SCRIPTS[command.removeprefix("bin/")], *arguments]
        assert command == "dao", f"{line}: nobody knows how to run it; say before the block why it is not run"
        code, said = self.call(arguments)
        if "add --yes to confirm" in said:  # there is no terminal to answer at
            code, said = self.call([*arguments, "--yes"])
        assert code == 0, (line, said)

    def call(self, arguments: list[str]) -> tuple[int, str]:
        """Call `dao` in this process, and return its exit code and what it printed."""
        self.patch.setattr(sys, "argv", ["dao", *arguments])
        self.capture.readouterr()
        code = run()
        return code, "".join(self.capture.readouterr())


@pytest.fixture
def reader(tmp_path, monkeypatch, capsys):
    """A reader in a folder of their own, which is empty at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(apsw, "connection_hooks", list(apsw.connection_hooks))
    for name in [name for name in os.environ if name.startswith("DATABASE_")]:
        monkeypatch.delenv(name)
    before = {*sys.modules}
    reader = Reader(tmp_path, monkeypatch, capsys)
    yield reader
    for name in {*sys.modules} - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    for value in reader.scope.values():
        if isinstance(value, apsw.Connection):
            value.close()


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page) and page != RUNBOOK], ids=name)
def test_page_runs_as_it_stands(page, reader):
    """Its blocks in their order, with warnings as errors."""
    reader.read(page)


def test_runbook_can_be_typed_as_it_stands(reader, tmp_path):
    """Each of its lines runs, in their order, on a database that lacks a migration; a restore has to be confirmed."""
    url = f"sqlite:///{tmp_path}/orchestrator.db"
    migrate.apply(url, steps=len(migrate.load()) - 1)
    with contextlib.closing(dao.connect(url)) as connection:
        dao.tasks.create(connection, make_task(title="Stays"))
    reader.read(RUNBOOK)
    with contextlib.closing(dao.connect(url)) as connection:
        assert [task.title for task in dao.tasks.iter_all(connection)] == ["Stays"]
    assert {"rollback", "restore"} <= {deed.operation for deed in migrate.history(url)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_says_why_a_block_is_not_run(page):
    """A comment that excuses a block stands right before one, which could be run."""
    text = page.read_text()
    excused = [block for block in blocks(page) if not is_run(page, block)]
    assert text.count("<!-- not run:") == len(excused)
    assert {block.language for block in excused} <= RUNS


def test_messages_of_troubleshooting_are_those_of_the_code():
    """A page by message is of no use once the messages are other ones."""
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text()
    quoted = [part for quote in re.findall(r'\*"(.*?)"\*', page) for part in quote.split(" … ")]
    assert len(quoted) > 15
    sources = "\n".join(path.read_text() for path in (ROOT / "dao").rglob("*.py"))
    texts = re.sub(r'"\n\s*f?"', "", sources)  # one that goes on in the next line
    assert [quote for quote in quoted if quote not in texts] == []


def test_settings_have_their_page():
    """Every variable that is read is in the table, and in the file to copy."""
    read = {*re.findall(r'"(DATABASE_[A-Z_]+)"', (ROOT / "dao" / "settings.py").read_text())}
    table = re.findall(r"^\| `(DATABASE_\w+)`", (ROOT / "docs" / "reference" / "settings.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(read)
    assert sorted(re.findall(r"^#(DATABASE_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)) == sorted(read)


def test_dependencies_have_their_reasons():
    """The page has a row for each package that is installed, also by an extra that is for programs of others."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    own = {"test", "dev", "docs", "bench", "examples"}
    lists = [settings["options"]["install_requires"]]
    lists += [text for name, text in settings["options.extras_require"].items() if name not in own]
    needed = {name.lower() for text in lists for name in re.findall(r"^([A-Za-z][\w-]*)", text, re.MULTILINE)}
    page = (ROOT / "docs" / "explanation" / "dependencies.md").read_text()
    assert {name.lower() for name in re.findall(r"^\| ([\w-]+) .*\|$", page, re.MULTILINE)} - {"package"} == needed


def test_readme_is_short():
    """It had grown to 300 lines: whoever meets the project reads it all, or nothing."""
    assert len(README.read_text().splitlines()) <= 150
