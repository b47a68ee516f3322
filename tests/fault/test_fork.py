"""Forks with a database open: no process writes beside SQLite's locks, and no acknowledged row is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dao
from tests.concurrency import PATIENCE
from tests.fault.forks import FORKING
from tests.folders import query

#: Runs a function in a forked child, which ends as Python programs do, and prints what came of it.
PRELUDE = f"""{FORKING}
import contextlib
import apsw, dao
from dao import migrate

path = sys.argv[1]
url = f"sqlite:///{{path}}"

def work(name):
    with dao.Pool(url) as pool:
        pool.write(add, name)
        with pool.acquire() as connection:
            return tasks.count(connection)
"""

REFUSED = "OperationalError, way out"


def run(path: Path, code: str) -> list[str]:
    """Run a program after the prelude, and return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def count(path: Path) -> int:
    """Return how many tasks are stored, in a database that is whole."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    return query(path, "SELECT count(*) FROM tasks")[0][0]


def test_fork_child_that_would_lose_rows_is_refused(database):
    """A child makes a pool of its own while the parent's is open: what it was told is stored is.

    It was not: SQLite's locks were inherited, the parent's end took the WAL away, and half of the child's rows were
    gone.
    """
    code = """
def write():
    acknowledged = 0
    own = dao.Pool(url)
    try:
        for _ in range(20):
            own.write(add)
            acknowledged += 1
            if acknowledged == 10:
                os.write(ready, b".")
                os.read(closed, 1)
    finally:
        print(acknowledged, flush=True)
        os.write(ready, b".")

waiting, ready = os.pipe()
closed, closing = os.pipe()
pool = dao.Pool(url)
pool.write(add)
if not os.fork():
    told("write", write)
    os._exit(0)
os.read(waiting, 1)
pool.close()
os.write(closing, b".")
os.wait()
"""
    acknowledged, outcome = run(database, code)
    assert outcome == f"write: {REFUSED}"
    assert count(database) == 1 + int(acknowledged)


OPENERS = {
    "connect": "dao.connect(url)",
    "read only": "dao.connect(url + '?mode=ro')",
    "symbolic link": "dao.connect(url + '-symbolic')",
    "lent": "dao.Pool(url).acquire().__enter__()",
    "write": "dao.Pool(url).write(add)",
    "asynchronous": "asyncio.run(aio.connect(url))",
    "migrate": "migrate.apply(url)",
    "status": "migrate.status(url)",
    "snapshot": "migrate.take_snapshot(url)",
    "restore": "migrate.restore(url, snapshot.id)",
    "inherited": "add(connection)",
    "inherited cursor": "cursor.execute('SELECT 1')",
    "inherited rows": "half_read.fetchall()",
    "inherited, transaction": "dao.transaction(connection).__enter__()",
    "inherited, replayed": "dao.run_in_transaction(connection, add)",
    "inherited, migrate": "migrate.apply(connection)",
    "inherited, asynchronous": "asyncio.run(aio.run(asynchronous, add))",
    # the last, as a file with two names is refused whatever else is wrong
    "hard link": "dao.connect(os.link(path, path + '-hard') or url + '-hard')",
}


def test_fork_child_can_open_the_file_in_no_way(database):
    """Whatever opens a database, or uses what the parent opened, refuses at once and names the way out."""
    code = f"""
import asyncio
from dao import aio
snapshot = migrate.take_snapshot(url)
os.symlink(path, path + "-symbolic")
connection = dao.connect(url)
cursor = connection.cursor()
half_read = connection.execute("VALUES (1), (2), (3)")
asynchronous = asyncio.run(aio.connect(url))
def each():
    for name, opener in {OPENERS}.items():
        told(name, lambda: eval(opener))
child("all", each)
add(connection)
os._exit(0)
"""
    assert run(database, code) == [*(f"{name}: {REFUSED}" for name in OPENERS), "all: done"]
    assert count(database) == 1


def test_fork_with_everything_closed_child_opens_and_writes(database):
    """What was closed before the fork, or has opened nothing yet, works in the child, beside the parent."""
    code = """
with dao.Pool(url) as closed, closed.acquire() as connection:
    closed.write(add)
unopened = dao.Pool(url)
dao.connect("sqlite://")
def both():
    with unopened:
        unopened.write(add)
    work("own")
for name in ("first", "second"):
    child(name, both)
unopened.write(add)
unopened.close()
"""
    assert run(database, code) == ["first: done", "second: done"]
    assert count(database) == 6


def test_fork_child_opens_another_database(database):
    """Only a file that was open is refused.

    Another file is not, and a database in memory is the child's. Its own children inherit both.
    """
    code = """
connection = dao.connect(url)
memory = dao.connect("sqlite://")
def other():
    with contextlib.closing(dao.connect(f"{url}-other")) as own:
        own.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        child("grandchild", lambda: dao.connect(f"{url}-other"))
        child("grandchild of the first", lambda: dao.connect(url))
    memory.execute("CREATE TABLE t (x)")
child("child", other)
"""
    assert run(database, code) == [f"grandchild: {REFUSED}", f"grandchild of the first: {REFUSED}", "child: done"]


@pytest.mark.parametrize("journal", [pytest.param("wal", marks=pytest.mark.slow), "delete"])
def test_fork_in_a_transaction_child_that_ends_leaves_it_to_the_parent(database, journal):
    """A child that leaves the block and ends leaves the transaction to the parent.

    It ends as Python programs do, and neither commits, nor undoes, nor plays a journal back.

    SQLite would, on closing: the parent's transaction, half of it in the file, is in the child's memory, too.
    """
    code = f"""
connection = apsw.Connection(path)
connection.pragma("journal_mode", "{journal}")
connection.pragma("cache_size", 5)
with dao.transaction(connection):
    for number in range(100):
        add(connection, "x" * 400)
    if not os.fork():
        sys.exit(0)
    assert os.wait()[1] == 0
    for number in range(100):
        add(connection, "x" * 400)
connection.close()
"""
    assert run(database, code) == []
    assert count(database) == 200


def test_fork_child_that_ends_the_block_well_is_refused(database):
    """A child cannot commit what its parent began; the parent can."""
    code = """
connection = dao.connect(url)
block = dao.transaction(connection)
block.__enter__()
add(connection)
child("commit", lambda: block.__exit__(None, None, None))
block.__exit__(None, None, None)
connection.close()
"""
    assert run(database, code) == [f"commit: {REFUSED}"]
    assert count(database) == 1


@pytest.mark.parametrize("kept_open", [pytest.param(True, marks=pytest.mark.slow), False])
def test_fork_workers_of_a_server_that_loads_the_program_first(database, kept_open):
    """Under gunicorn's --preload, workers work if the master closed its connections.

    Otherwise they say what to do.
    """
    code = f"""
pool = dao.Pool(url)  # of the program's module, loaded in the master
migrate.status(url)
pool.write(add)
if not {kept_open}:
    pool.close()
for name in ("a", "b"):
    child(name, lambda: work(name))
pool.close()
"""
    outcome = REFUSED if kept_open else "done"
    assert run(database, code) == [f"a: {outcome}", f"b: {outcome}"]
    assert count(database) == (1 if kept_open else 3)


def test_fork_processes_of_the_standard_library(tmp_path, database):
    """`multiprocessing` and `ProcessPoolExecutor` bring the refusal home; with spawn and forkserver there is none."""
    program = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    pool = dao.Pool(url)
    pool.write(add)
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            told(method, lambda: executor.submit(work, method).result())
    process = multiprocessing.get_context("fork").Process(target=lambda: told("process", lambda: work("a")))
    process.start()
    process.join()
    pool.close()
"""
    file = tmp_path / "program.py"
    file.write_text(PRELUDE + program)
    done = subprocess.run(
        [sys.executable, file, database], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines() == [f"fork: {REFUSED}", "spawn: done", "forkserver: done", f"process: {REFUSED}"]
    assert count(database) == 3


def test_fork_that_runs_another_program_is_not_concerned(database):
    """`subprocess` forks as well, but the program that follows inherits nothing: it opens and writes beside us."""
    code = """
connection = dao.connect(url)
add(connection)
program = "import sys, dao; dao.tasks.create(dao.connect(sys.argv[1]), dao.Task(title='a', task_type='agent'))"
import subprocess
subprocess.run([sys.executable, "-c", program, url], check=True, preexec_fn=os.getpid)
add(connection)
connection.close()
"""
    assert run(database, code) == []
    assert count(database) == 3


def test_fork_while_a_thread_uses_a_connection_refuses_the_others(database):
    """A connection in use tells nothing, and it alone.

    The one behind it in the list was usable, and closed by the child.
    """
    code = """
import threading
def hold():
    begun.set()
    return not ended.wait(120)
begun, ended = threading.Event(), threading.Event()
first, used, last = (dao.connect(url) for _ in range(3))
used.create_scalar_function("hold", hold)
thread = threading.Thread(target=used.execute, args=("SELECT hold()",))
thread.start()
begun.wait()
def each():
    for name, connection in (("first", first), ("used", used), ("last", last)):
        told(name, lambda: tasks.exists(connection, "a"))
child("child", each)
ended.set()
thread.join()
"""
    assert run(database, code) == [*(f"{name}: {REFUSED}" for name in ("first", "used", "last")), "child: done"]


def test_fork_beside_other_open_files_child_may_use_their_numbers(tmp_path):
    """A file that was no database at the fork may be one later, as a new file has the number of one that is gone."""
    code = """
log = open(path, "w+")
print("a line", file=log, flush=True)
def begin():
    log.truncate(0)
    dao.connect(url).execute("CREATE TABLE t (x)")
child("child", begin)
"""
    assert run(tmp_path / "a.db", code) == ["child: done"]


def test_fork_beside_a_connection_of_another_library_is_noticed(tmp_path):
    """A connection that a program opened itself, with apsw, counts as one of ours."""
    code = """
theirs = apsw.Connection(path)
theirs.execute("CREATE TABLE t (x)")
child("child", lambda: dao.connect(url))
"""
    assert run(tmp_path / "theirs.db", code) == [f"child: {REFUSED}"]
    with pytest.raises(dao.OperationalError, match="does not exist"):
        dao.connect(f"sqlite:///{tmp_path}/other.db?mode=rw")
