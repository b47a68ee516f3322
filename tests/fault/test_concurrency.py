"""Started at once: one run applies, the others wait and find it done, and whoever reads or writes meanwhile goes on."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import apsw
import pytest

import dao
from dao import migrate, tasks, tool_executions
from dao.migrate.copies.snapshot import snapshots, verify
from dao.migrate.values import Snapshot
from tests.concurrency import wait_for
from tests.fault.migrators import Migrators
from tests.folders import THREE, ids, query, write

OWN = migrate.default_folder()
IDS = ids(migrate.load())
#: The new tables of either schema, as the plain reader sees them: none, or both.
NEW_TABLES = ("more", "saved")
NEW = "SELECT name FROM sqlite_schema WHERE name IN ('more', 'saved') ORDER BY name"
#: Milliseconds to wait for a lock: busy is no error, however slow the machine.
PATIENCE = 60_000
#: Seconds between what a program does and what it does next, so that it leaves the processor to the others.
PAUSE = 0.002


@pytest.fixture(scope="module")
def migrators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrators]:
    """Starts processes that migrate."""
    with Migrators(tmp_path_factory.mktemp("server")) as server:
        yield server


def made_anew(database: Path, *, weight: bool) -> str:
    """Return a script that makes the table of tasks anew, with one more column or without it."""
    objects = query(database, "SELECT type, sql FROM sqlite_schema WHERE tbl_name = 'tasks' AND sql IS NOT NULL")
    # those that refer to the table, by way of another view, too, stop its renaming
    others = query(
        database,
        "SELECT type, name, sql FROM sqlite_schema"
        " WHERE type IN ('view', 'trigger') AND tbl_name <> 'tasks' ORDER BY rowid",
    )
    table = next(sql for type, sql in objects if type == "table").replace("TABLE tasks", "TABLE made_anew", 1)
    columns = ", ".join(name for (name,) in query(database, "SELECT name FROM pragma_table_info('tasks')"))
    statements = [
        *(f"DROP {type} {name}" for type, name, _ in others),
        table,
        f"INSERT INTO made_anew SELECT {columns} FROM tasks",
        "DROP TABLE tasks",
        "ALTER TABLE made_anew RENAME TO tasks",
        *["ALTER TABLE tasks ADD COLUMN weight INTEGER NOT NULL DEFAULT 0"] * weight,
        *(sql for type, sql in objects if type != "table"),
        *(sql for _, _, sql in others),
    ]
    return ";\n".join(statements) + ";\n"


@pytest.fixture
def folder(tmp_path: Path, template: Path) -> Path:
    """This package's migrations, and two more: a rebuild of a table that programs use and others refer to."""
    pending = {
        "90000101000000_make_anew.sql": made_anew(template, weight=True)
        + "CREATE TABLE saved AS SELECT id, title FROM tasks;",
        "90000101000000_make_anew.rollback.sql": "DROP TABLE saved;\n" + made_anew(template, weight=False),
        "90000101000001_more.sql": "CREATE TABLE more AS SELECT id FROM tool_executions;",
        "90000101000001_more.rollback.sql": "DROP TABLE more;",
    }
    return write(Path(shutil.copytree(OWN, tmp_path / "sql")), pending)


def race(number: int, path: Path, folder: Path, migrators: Migrators) -> None:
    """Start `dao migrate` many times at once; assert that all succeed, and just one does something."""
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
    """Threads that read and write a database until the end of a block, which fails if one of them did.

    They begin as soon as the database exists.

    `written` are the tasks of which the writer was told that they are stored; `schemas` the new tables that were seen,
    and `failures` are what ended one of the threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}?busy_timeout={PATIENCE}"
        self.written: list[dao.Task] = []
        self.schemas: set[tuple[str, ...]] = set()
        self._stop = threading.Event()
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,))
            for work in (self._read_by_functions, self._read_plainly, self._write)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, error: object, *_more: object) -> None:
        while error is None and not self.failures and not (self.written and self.schemas):
            time.sleep(0.001)  # on a new file they have hardly begun
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            self.failures.append(error)

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
                stored = len(self.written)
                known = self.written[-3:]
                assert [tasks.get(connection, task.id) for task in known] == known
                newest = [task.created_at for task in tasks.find(connection, limit=20).items]
                assert newest == sorted(newest, reverse=True)
                assert tasks.count(connection) >= stored
                time.sleep(PAUSE)

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
                    assert ("weight" in columns) == bool(there)
                    if columns:
                        connection.execute("SELECT * FROM tasks ORDER BY id DESC LIMIT 20").fetchall()
                self.schemas.add(there)
                time.sleep(PAUSE)

    def _write(self) -> None:
        with self._connection() as connection:
            while not self._stop.is_set():
                task = dao.Task(title=f"task {len(self.written)}", task_type="development")
                tasks.create(connection, task)
                self.written.append(task)
                time.sleep(PAUSE)


def assert_all_stored(path: Path, written: list[dao.Task]) -> None:
    """Assert that a database holds just these tasks."""
    with contextlib.closing(dao.connect(f"sqlite:///{path}")) as connection:
        assert [tasks.get(connection, task.id) for task in written] == written
        assert tasks.count(connection) == len(written)


# ---------------------------------------------------------------- the rounds


def on_new_files(rounds: int, number: int, tmp_path: Path, folder: Path, migrators: Migrators) -> None:
    """Race on a file that does not exist, so many times, beside programs that wait for it."""
    for turn in range(rounds):
        path = tmp_path / str(turn) / "new.db"
        path.parent.mkdir()
        with Programs(path) as programs:
            race(number, path, folder, migrators)
        assert programs.schemas <= {(), NEW_TABLES}
        assert migrate.status(f"sqlite:///{path}", folder).is_current
        assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(IDS) + 2,)]
        assert_all_stored(path, programs.written)
        # there were no rows when it was applied
        assert snapshots(f"sqlite:///{path}") == []
    assert migrators.errors() == ""


def on_a_file_with_rows(rounds: int, number: int, path: Path, folder: Path, migrators: Migrators) -> None:
    """Race on a file with rows, so many times, beside programs that use it; each time it is rolled back."""
    url = f"sqlite:///{path}"
    migrate.apply(url)
    with contextlib.closing(dao.connect(url)) as connection:
        first = dao.Task(title="the first", task_type="development")
        tasks.create(connection, first)
        for place in range(300):
            tool_executions.start(connection, tool_name=f"tool {place}", input={}, task_id=first.id)
    with Programs(path) as programs:
        for _ in range(rounds):
            taken = {snapshot.id for snapshot in snapshots(url)}
            stored = len(programs.written)
            race(number, path, folder, migrators)
            [new] = [snapshot for snapshot in snapshots(url) if snapshot.id not in taken]
            assert_holds_the_old(new, stored)
            assert migrate.status(url, folder).is_current
            wait_for(lambda: NEW_TABLES in programs.schemas or programs.failures)  # before they are gone again
            migrate.rollback(f"{url}?busy_timeout={PATIENCE}", folder, to=IDS[-1], snapshots=0)
    assert programs.schemas == {(), NEW_TABLES}
    assert programs.written
    assert migrators.errors() == ""
    assert_all_stored(path, [first, *programs.written])
    assert query(path, "SELECT count(*) FROM tool_executions") == [(300,)]
    operations = [deed.operation for deed in migrate.history(url)]
    assert operations == ["apply"] * len(IDS) + [*["apply"] * 2, *["rollback"] * 2] * rounds
    left = {entry.name for entry in path.parent.iterdir() if ".partial" in entry.name}
    assert left == set()


def assert_holds_the_old(snapshot: Snapshot, stored: int) -> None:
    """Assert that a snapshot is complete: the old schema, and at least so many tasks that were stored before."""
    verify(snapshot.path)
    assert query(snapshot.path, NEW) == []
    [(count,)] = query(snapshot.path, "SELECT count(*) FROM tasks")
    assert count > stored
    assert query(snapshot.path, "SELECT count(*) FROM tool_executions") == [(300,)]


@pytest.mark.sample(2)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_migrate_at_once_on_a_new_file_applies_once(tmp_path, folder, migrators, number):
    """Of runs that begin together on a file that does not exist, one applies, and all succeed."""
    on_new_files(2, number, tmp_path, folder, migrators)


@pytest.mark.sample(2)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_migrate_at_once_on_a_file_with_rows_applies_once(tmp_path, folder, migrators, number):
    """Of runs that begin together, one takes a snapshot and applies; programs see either schema and lose nothing."""
    on_a_file_with_rows(2, number, tmp_path / "old.db", folder, migrators)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4, 8])
def test_migrate_at_once_on_fifty_new_files_applies_once(tmp_path, folder, migrators, number):
    """The same, fifty times."""
    on_new_files(50, number, tmp_path, folder, migrators)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4, 8])
def test_migrate_at_once_fifty_times_on_a_file_with_rows_applies_once(tmp_path, folder, migrators, number):
    """The same, fifty times."""
    on_a_file_with_rows(50, number, tmp_path / "old.db", folder, migrators)


def test_yoyo_apply_four_at_once_on_a_new_file_applies_once(tmp_path, migrators):
    """The stock command on our backend waits for its likes as our own runs do, and runs no script twice."""
    folder = write(tmp_path / "sql", THREE)
    path = tmp_path / "new.db"
    moment = time.time() + 0.05
    pids = [migrators.start("yoyo_apply_at", moment, f"sqlite:///{path}", str(folder)) for _ in range(4)]
    assert [migrators.wait(pid) for pid in pids] == [0] * 4
    assert migrate.status(f"sqlite:///{path}", folder).is_current
    assert query(path, "SELECT count(*) FROM _yoyo_log") == [(len(THREE) // 2,)]
    assert migrators.errors() == ""
