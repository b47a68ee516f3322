"""An application and a second one beside this package's tables, each upgraded when it pleases: the same schema."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import yoyo
from hypothesis import example, given
from hypothesis import strategies as st

import dao
from dao import migrate
from dao.errors import LedgerMismatch
from dao.migrate.database import schema_of
from tests import strategies
from tests.folders import write

#: What each version of an application adds to its folder: a script, and the one that undoes it.
APP = {
    "0001_notes": (
        """-- depends on: orchestrator/20250115010000_create_tasks
CREATE TABLE notes (id INTEGER PRIMARY KEY, task_id TEXT REFERENCES tasks (id));""",
        "DROP TABLE notes;",
    ),
    "0002_index": ("CREATE INDEX notes_by_task ON notes (task_id);", "DROP INDEX notes_by_task;"),
    "0003_column": (
        "ALTER TABLE notes ADD COLUMN author TEXT;\nINSERT INTO notes (id, author) VALUES (1, 'first');",
        "DELETE FROM notes WHERE id = 1;\nALTER TABLE notes DROP COLUMN author;",
    ),
    "0004_tags": ("CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT UNIQUE);", "DROP TABLE tags;"),
    "0005_view": ("CREATE VIEW authors AS SELECT DISTINCT author FROM notes;", "DROP VIEW authors;"),
}
WEB = {
    "20250101_visits": ("CREATE TABLE visits (id INTEGER PRIMARY KEY, at TEXT NOT NULL);", "DROP TABLE visits;"),
    "20250201_pages": ("CREATE TABLE pages (id INTEGER PRIMARY KEY);", "DROP TABLE pages;"),
    # it cannot come before that one of the other application
    "20250301_noted": (
        "-- depends on: app/0001_notes\nCREATE TABLE noted (id INTEGER PRIMARY KEY REFERENCES notes (id));",
        "DROP TABLE noted;",
    ),
    "20250401_rename": ("ALTER TABLE pages RENAME TO sites;", "ALTER TABLE sites RENAME TO pages;"),
    "20250501_by_task": ("CREATE INDEX tasks_for_web ON tasks (title, id);", "DROP INDEX tasks_for_web;"),
}
VERSIONS = {"app": APP, "web": WEB}
#: The version of the second that has to wait for the first.
_WAITS = 3


@attrs.frozen
class Applications:
    """A database, and the folders of the two sets at each of their versions, beside this package's set."""

    url: str
    sets: dict[str, list[migrate.MigrationSet]]
    own: migrate.MigrationSet

    def at(self, versions: dict[str, int]) -> list[migrate.MigrationSet]:
        """Return all sets at these versions; 0 is before there was one."""
        return [self.own, *(self.sets[name][number - 1] for name, number in versions.items() if number)]

    def upgrade(self, order: Sequence[str], *, alone: Sequence[bool], back: frozenset[int]) -> None:
        """Upgrade the sets in an order, and find each of them clean after each step; go back, and on again, after some.

        One that has to wait for another is refused, and comes with the next upgrade that is not.
        """
        there = dict.fromkeys(self.sets, 0)
        target = dict(there)
        for step, name in enumerate(order):
            target[name] += 1
            named = [self.sets[name][target[name] - 1]] if alone[step] else self.at(target)
            if name == "web" and target["web"] >= _WAITS and not (there if alone[step] else target)["app"]:
                with pytest.raises(LedgerMismatch) as raised:
                    migrate.apply(self.url, named)
                assert raised.value.lacking == ("20250301_noted",)
                continue
            migrate.apply(self.url, named)
            there |= {name: target[name]} if alone[step] else target
            if step in back:
                with contextlib.suppress(LedgerMismatch):  # another needs it
                    migrate.rollback(self.url, self.at(there), set=name)
                migrate.apply(self.url, self.at(there))
            self.look(there)
        for name in self.sets:
            migrate.apply(self.url, self.sets[name][-1])
        self.look({name: len(its) for name, its in self.sets.items()})

    def look(self, there: dict[str, int]) -> None:
        """Find each set clean, by itself and with the others."""
        sets = self.at(there)
        with contextlib.closing(dao.connect(self.url)) as connection:
            for its in sets:
                migrate.assert_current(connection, its)
        found = migrate.status(self.url, sets)
        assert found.is_current, (found, there)
        assert (len(found.migrations), found.others) == (sum(map(len, sets)), ())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The folders of each set, one for each version."""
    root = tmp_path_factory.mktemp("sets")
    found: dict[str, list[Path]] = {}
    for name, version in itertools.product(VERSIONS, range(1, 6)):
        files = {}
        for id, (up, down) in itertools.islice(VERSIONS[name].items(), version):
            files |= {f"{id}.sql": up, f"{id}.rollback.sql": down}
        found.setdefault(name, []).append(write(root / f"{name}{version}", files))
    return found


def loaded(folders: dict[str, list[Path]], engine: str, url: str) -> Applications:
    """Return the sets for an engine."""
    sets = {name: [migrate.load(one, name=name) for one in its] for name, its in folders.items()}
    own = migrate.load()
    return Applications(url, sets, own if engine == "sqlite" else own[:1])  # the server takes a while for all


def schema(url: str) -> Any:
    """Return the structure of a database."""
    with contextlib.closing(dao.connect(url)) as connection:
        return schema_of(connection)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with this package's set alone."""
    path = tmp_path_factory.mktemp("base") / "base.db"
    migrate.apply(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, list[Path]]) -> Any:
    """The schema of a database to which all was applied at once."""
    url = f"sqlite:///{tmp_path_factory.mktemp('once')}/once.db"
    applications = loaded(folders, "sqlite", url)
    migrate.apply(url, applications.at({"web": 5, "app": 5}))
    return schema(url)


ORDERS = st.permutations(["app"] * 5 + ["web"] * 5)
FLAGS = st.lists(st.booleans(), min_size=10, max_size=10)


@strategies.SHARED
@given(order=ORDERS, alone=FLAGS, back=st.frozensets(st.integers(0, 9), max_size=2))
@example(order=["web"] * 5 + ["app"] * 5, alone=[True] * 10, back=frozenset({5}))
def test_sets_upgraded_in_any_order_make_the_same_schema(order, alone, back, folders, base, at_once, tmp_path_factory):
    """Each finds itself clean after each step, and the stock yoyo lists each folder as it is.

    A second folder on one database was all out of order, and what it had made was drift to the first.
    """
    path = tmp_path_factory.mktemp("orders") / "x.db"
    path.write_bytes(base)
    applications = loaded(folders, "sqlite", f"sqlite:///{path}")
    applications.upgrade(order, alone=alone, back=back)
    assert schema(applications.url) == at_once
    with backend(path) as opened:
        for its in applications.at({"app": 5, "web": 5}):
            files = yoyo.read_migrations(str(its.folder or migrate.default_folder()))
            assert ([one.id for one in opened.to_apply(files)], len(opened.to_rollback(files))) == ([], len(its))


@contextlib.contextmanager
def backend(path: Path) -> Iterator[Any]:
    """Open a database as the stock command does, by our backend: another SQLite in the process would break locks."""
    opened = yoyo.get_backend(f"sqlite+apsw:///{path}")
    try:
        yield opened
    finally:
        opened.connection.close()


def test_sets_upgraded_in_turns_on_a_server_make_the_same_schema(folders, server):
    """As on SQLite."""
    url = server.create()
    try:
        applications = loaded(folders, "postgresql", url)
        migrate.apply(url, applications.own)
        order = ["app", "web", "web", "app", "web", "app", "web", "app", "web", "app"]
        applications.upgrade(order, alone=[True, False] * 5, back=frozenset({2, 6}))
        once = server.create()
        migrate.apply(once, applications.at({"web": 5, "app": 5}))
        assert schema(url) == schema(once)
        server.drop(once)
    finally:
        server.drop(url)
