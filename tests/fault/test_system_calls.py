"""System calls that fail, at every one that snapshots and restores make: a typed error, and never half a result."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dao
from dao import migrate
from dao.errors import CommitUnknown, DiskFull, Error
from dao.migrate.copies.snapshot import snapshots, verify
from dao.migrate.rehearsal import rehearse
from tests.folders import query, with_fourth

CALLS = [
    "open",
    "pwrite",
    "pread",
    "fsync",
    "fstat",
    "ftruncate",
    "rename",
    "unlink",
    "listdir",
    "stat",
    "fchmod",
    "fchown",
    "flock",
]
#: What each verb begins on, and whether the database must be as before if it fails.
VERBS: dict[str, tuple[Callable[[Path], object], Callable[[str, Path], object]]] = {
    "take": (lambda _: None, lambda url, _: migrate.take_snapshot(url)),
    "restore": (lambda _: None, lambda url, _: migrate.restore(url)),
    "restore missing": (Path.unlink, lambda url, _: migrate.restore(url)),
    "restore damaged": (lambda path: path.write_bytes(b"no database\n" * 500), lambda url, _: migrate.restore(url)),
    "rehearse": (lambda _: None, lambda url, folder: rehearse(url, folder, memory_limit=0)),
    "migrate": (lambda _: None, migrate.apply),
}


class Failing:
    """A function of the system that fails when this package calls it for the n-th time."""

    def __init__(self, function: Callable[..., Any], at: int, number: int) -> None:
        self.function, self.at, self.number = function, at, number
        self.calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it, or fail."""
        if sys._getframe(1).f_code.co_filename.startswith(os.path.dirname(dao.__file__)):
            self.calls += 1
            if self.calls == self.at:
                raise OSError(self.number, os.strerror(self.number))
        return self.function(*arguments, **options)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """A database with rows and a snapshot of other rows; a migration is pending."""
    path = tmp_path / "seed" / "new.db"
    path.parent.mkdir()
    folder = with_fourth(tmp_path / "sql", "CREATE TABLE x (id);")
    migrate.apply(f"sqlite:///{path}", folder, steps=3)
    query(path, "INSERT INTO a VALUES (1), (2)")
    migrate.take_snapshot(f"sqlite:///{path}")
    query(path, "DELETE FROM a")
    return path


def fail_at_each(verb: str, seed: Path, every: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call of each function fail, or one of so many, and look what is left."""
    prepare, do = VERBS[verb]
    path = seed.parents[1] / "live" / "new.db"
    failed = 0
    for name in CALLS:
        module = fcntl if name == "flock" else os
        for at in itertools.count(1, every):
            shutil.rmtree(path.parent, ignore_errors=True)
            shutil.copytree(seed.parent, path.parent)
            prepare(path)
            before = path.read_bytes() if path.exists() else None
            with monkeypatch.context() as patch:
                failing = Failing(getattr(module, name), at, number)
                patch.setattr(module, name, failing)
                refusal: Error | None = None
                try:
                    do(f"sqlite:///{path}", seed.parents[1] / "sql")
                except Error as error:
                    refusal = error
            if failing.calls < at:
                break
            if refusal is not None:
                failed += 1
                assert "not an error" not in str(refusal)
                if number == errno.ENOSPC and name in {"pwrite", "ftruncate"}:
                    assert isinstance(refusal, DiskFull) or "could not be kept" in str(refusal)
            for snapshot in snapshots(f"sqlite:///{path}"):
                verify(snapshot.path)
            if refusal is not None and verb != "restore" and not isinstance(refusal, CommitUnknown):
                assert (path.read_bytes() if path.exists() else None) == before
            if name not in {"unlink", "listdir", "open"}:
                assert not list(path.parent.glob("*.partial*")), (name, at)
            # whatever it was, it holds nobody up
            migrate.restore(f"sqlite:///{path}", next(iter(snapshots(f"sqlite:///{path}")[-1:])).path)
            assert query(path, "SELECT count(*) FROM a") == [(2,)]
            assert not list(path.parent.glob("*.partial*"))
    assert failed > 10 / every


@pytest.mark.parametrize("verb", VERBS)
def test_system_call_that_fails_is_a_typed_error(seed, monkeypatch, verb):
    """A failing system call is a typed error, and leaves no file in the making.

    EIO, EMFILE and EACCES came raw, or as "not an error". The next call finds all well.
    """
    fail_at_each(verb, seed, 17, errno.EIO, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("verb", VERBS)
def test_each_system_call_that_fails_is_a_typed_error(seed, monkeypatch, verb, number):
    """The same, without leaving out a call; a full disk is `DiskFull`."""
    fail_at_each(verb, seed, 1, number, monkeypatch)
