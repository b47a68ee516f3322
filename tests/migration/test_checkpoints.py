"""Who brings the WAL into the file: with `wal_autocheckpoint=0` in the URL nothing here does, as a replica demands."""

from __future__ import annotations

import contextlib
import os

import apsw
import pytest

import dao
from dao import Task, migrate, tasks


def fill(url):
    """Write more than the 1,000 pages after which SQLite brings the WAL into the file by itself."""
    with dao.Pool(url, size=1) as pool:
        for number in range(3):
            pool.write(
                tasks.create_many, [Task(title=f"{number}-{row}" + 900 * "x", task_type="t") for row in range(1200)]
            )


def restore(url):
    """Replace all rows by those of a snapshot."""
    migrate.restore(url, migrate.take_snapshot(url).path)


def restore_own(url):
    """Do the same on a connection of the caller's."""
    with contextlib.closing(dao.connect(url)) as connection:
        migrate.restore(connection, migrate.take_snapshot(connection).path)


def redo(url):
    """Roll back and apply, with a snapshot before each."""
    migrate.rollback(url)
    migrate.apply(url)


@pytest.mark.sample(2)
@pytest.mark.parametrize("work", [fill, restore, restore_own, redo])
def test_work_without_checkpoints_leaves_the_wal_to_others(tmp_path, work):
    """Nothing that has the URL writes to the file itself, not even a restore at its end."""
    path = tmp_path / "new.db"
    url = f"sqlite:///{path}?wal_autocheckpoint=0"
    migrate.apply(url)
    with contextlib.closing(apsw.Connection(str(path))) as other:  # the last to close would do it
        other.execute("SELECT 1 FROM tasks").fetchall()
        fill(url)
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        before = path.stat().st_mtime_ns
        work(url)
        assert path.stat().st_mtime_ns == before
        assert os.path.getsize(f"{path}-wal") > 0
    with contextlib.closing(dao.connect(url)) as connection:
        assert connection.pragma("integrity_check") == "ok"


def test_restore_with_checkpoints_empties_the_wal(tmp_path):
    """Without the parameter a restore does not leave a WAL as long as the database behind."""
    path = tmp_path / "new.db"
    migrate.apply(f"sqlite:///{path}")
    with contextlib.closing(apsw.Connection(str(path))) as other:
        other.execute("SELECT 1 FROM tasks").fetchall()
        restore(f"sqlite:///{path}")
        assert os.path.getsize(f"{path}-wal") == 0
