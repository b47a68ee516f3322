"""Started at once: one run applies, the others wait and find it done, and whoever reads or writes meanwhile goes on."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import dao
from dao import migrate, tasks
from dao.migrate.snapshot import Snapshot, snapshots, verify
from tests.fault.migrators import Migrators
from tests.folders import THREE, dump, ids, query, write

OWN = migrate.default_folder()
IDS = ids(migrate.load())
#: What is pending on the existing database: a table that programs use is made anew, and two more.
PENDING = {
    "90000101000000_make_anew.sql": """
        CREATE TABLE saved AS SELECT * FROM workflow_tasks;
        ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE made_anew (id TEXT NOT NULL PRIMARY KEY, at TEXT NOT NULL) STRICT;
        INSERT INTO made_anew SELECT id, at FROM notes;
        DROP TABLE notes;
        ALTER TABLE made_anew RENAME TO notes;""",
    "90000101000000_make_anew.rollback.sql": "ALTER TABLE tasks DROP COLUMN priority; DROP TABLE saved;",
    "90000101000001_more.sql": "CREATE TABLE more (id INTEGER PRIMARY KEY); INSERT INTO more SELECT rowid FROM tasks;",
    "90000101000001_more.rollback.sql": "DROP TABLE more;",
}
PATIENCE = 60_000
NEW = "SELECT name FROM sqlite_schema WHERE name IN ('saved', 'more') ORDER BY name"


@pytest.fixture(scope="module")
def migrators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrators]:
    """Starts processes that migrate."""
    with Migrators(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """This package's migrations, and those that are pending."""
    return write(Path(shutil.copytree(OWN, tmp_path / "sql")), PENDING)


def race(number: int, path: Path, folder: Path, migrators: Migrators) -> None:
    """Start `dao migrate` so many times at the same moment; assert that all succeed, and just one has done something."""
    moment = time.time() + 0.02 + 0.01 * number
    outputs = [path.with_name(f"output{place}") for place in range(number)]
    options = ("--database", f"sqlite:///{path}", "--migrations", str(folder), "--busy-timeout", str(PATIENCE))
    pids = [migrators.start("command_at", moment, str(output), "migrate", *options) for output in outputs]
    codes = [migrators.wait(pid) for pid in pids]
    printed = [output.read_text() for output in outputs]
    assert codes == [0] * number, printed
    nothing = f"{path}: nothing to apply\n"
    lines = [line for text in printed for line in text.splitlines(keepends=True) if "waiting for the lock" not in line]
    assert lines.count(nothing) == number - 1, printed
    assert len([line for line in lines if line.startswith(f"{path}: ") and line != nothing]) == 1, printed
    assert not [text for text in printed if "already exists" in text or "error" in text], printed


# ---------------------------------------------------------------- programs beside it


class Programs:
    """Threads that read and write a database from when it exists until the end of a block; that fails if one of them did.

    `written` are the tasks of which the writer was told that they are stored; `schemas` the new tables that were seen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}?busy_timeout={PATIENCE}"
        self.written: list[dao.Task] = []
        self.schemas: set[tuple[str, ...]] = set()
        self.reads = 0
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,))
            for work in (self._read_by_functions, self._read_plainly, self._write)
        ]

    def __enter__(self) -> Programs:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self._failures == []

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            self._failures.append(error)

    def _connection(self) -> contextlib.closing[apsw.Connection]:
        """Wait for the schema and return a connection of this package's."""
        while not self._stop.is_set() and not (self.path.exists() and "tasks" in self._tables()):
            time.sleep(0.001)
        return contextlib.closing(dao.connect(self.url))

    def _tables(self) -> set[str]:
        return {name for (name,) in query(self.path, "SELECT name FROM sqlite_schema")}

    def _read_by_functions(self) -> None:
        with self._connection() as connection:
            while not self._stop.is_set():
                known = self.written[-20:]
                for task in known[:3]:
                    assert tasks.get(connection, task.id) == task
                assert tasks.count(connection) >= len(known)
                page = tasks.find(connection, limit=50)
                assert {task.id for task in page.items[:0]} <= {task.id for task in page.items}
                self.reads += 1

    def _read_plainly(self) -> None:
        """In one transaction, schema and rows are of one and the same moment."""
        while not self._stop.is_set() and not self.path.exists():
            time.sleep(0.001)
        connection = apsw.Connection(str(self.path))
        connection.set_busy_timeout(PATIENCE)
        with contextlib.closing(connection):
            while not self._stop.is_set():
                with connection:
                    there = tuple(name for (name,) in connection.execute(NEW))
                    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('tasks')")}
                    assert ("priority" in columns) == bool(there)
                    if columns:
                        connection.execute("SELECT * FROM tasks ORDER BY id DESC LIMIT 20").fetchall()
                self.schemas.add(there)
                self.reads += 1

    def _write(self) -> None:
        with self._connection() as connection:
            while not self._stop.is_set():
                task = dao.Task(title=f"task {len(self.written)}", task_type="development")
                tasks.create(connection, task)
                self.written.append(task)
                time.sleep(0.0005)


def assert_all_stored(path: Path, written: list[dao.Task]) -> None:
    """Assert that a database holds just these tasks."""
    with contextlib.closing(dao.connect(f"sqlite:///{path}")) as connection:
        assert [tasks.get(connection, task.id) for task in written] == written
        assert tasks.count(connection) == len(written)
