"""The row-loss guard against a model in Python that knows of every row and column what became of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import CheckFailed
from tests.folders import query, write

#: The tables of before, and how many rows each has. All have an id, and a column that holds a value in each row.
BEFORE = {"a": 3, "b": 2, "c": 0, "text": 2}
#: Its name has nothing to do with OR REPLACE, for which it was taken.
V = "replaced_by"
#: `text` is a virtual table with rows of its own, `words` one without: an index of a table that no script drops.
SETUP = "".join(
    [
        *(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, {V});" for name in BEFORE if name != "text"),
        f"CREATE VIRTUAL TABLE text USING fts5 (id UNINDEXED, {V});",
        f"CREATE TABLE kept (id INTEGER PRIMARY KEY, {V}); INSERT INTO kept VALUES (1, 'a b');",
        f"CREATE VIRTUAL TABLE words USING fts5 ({V}, content = 'kept', content_rowid = 'id');",
        "INSERT INTO words (words) VALUES ('rebuild');",
        *(f"INSERT INTO {name} VALUES ({id}, 'x');" for name, rows in BEFORE.items() for id in range(rows)),
    ]
)


@attrs.define
class Origin:
    """A table of before: how many rows it had when it was last dropped, and what is lost of it.

    `held`: whether values of before were in the column whenever it was dropped; None if it never was.
    """

    name: str
    base: int | None = None
    rows: int = 0
    column: bool = False
    held: bool | None = None
    is_gone: bool = False


@attrs.define
class Table:
    """A table of the model: its rows, by id whether V holds a value.

    `origin` is the table of before whose place it has, if it has. `is_whole`: no row was added by name, or deleted.
    `is_set`: an UPDATE of a script has given V its values.
    """

    rows: dict[int, bool]
    origin: Origin | None = None
    has_v: bool = True
    is_virtual: bool = False
    is_whole: bool = True
    is_set: bool = False


@attrs.define
class Model:
    """The statements of a run, and the tables that they leave."""

    tables: dict[str, Table] = attrs.Factory(
        lambda: {
            name: Table(dict.fromkeys(range(rows), True), Origin(name), is_virtual=name == "text")
            for name, rows in BEFORE.items()
        }
    )
    script: list[str] = attrs.Factory(list)
    fresh: int = 100
    has_index: bool = True

    def __attrs_post_init__(self) -> None:
        self.origins = [table.origin for table in self.tables.values() if table.origin]

    origins: list[Origin] = attrs.field(init=False)

    def lost(self) -> set[tuple[bool, str, int]]:
        """Return what the run loses without naming it, as (whether it is the column, table, number of rows)."""
        found = set()
        there = {table.origin.name: table for table in self.tables.values() if table.origin}
        for origin in self.origins:
            base = origin.base if origin.base is not None else len(there[origin.name].rows)
            if origin.is_gone:
                found |= {(False, origin.name, base)} if base else set()
                continue
            found |= {(False, origin.name, origin.rows)} if origin.rows else set()
            # REPLACE may have taken every value that a copy brought, and no row
            table = there[origin.name]
            keeps = not table.has_v or table.is_set or origin.rows or not table.is_whole or any(table.rows.values())
            overwritten = origin.base is not None and origin.held and not keeps
            # with all rows, the values went, too
            if (origin.column or overwritten) and origin.rows < base:
                found.add((True, origin.name, base))
        return found

    def new_id(self) -> int:
        """Return an id that no row has had."""
        self.fresh += 1
        return self.fresh


def listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))


def create(_draw: st.DrawFn, model: Model, _name: str, step: int) -> None:
    model.script.append(f"CREATE TABLE n{step} (id INTEGER PRIMARY KEY, {V})")
    model.tables[f"n{step}"] = Table({})


def insert(draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    holds = draw(st.booleans()) and table.has_v
    replaced = draw(st.sampled_from([None, *sorted(table.rows)])) if not table.is_virtual else None
    id = model.new_id() if replaced is None else replaced
    verb = "INSERT" if replaced is None else "REPLACE"
    model.script.append(
        f"{verb} INTO {name} (id, {V}) VALUES ({id}, 'x')" if holds else f"{verb} INTO {name} (id) VALUES ({id})"
    )
    table.rows[id] = holds
    table.is_whole &= replaced is not None


def delete(draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    gone = draw(st.sets(st.sampled_from(sorted(table.rows)))) if table.rows else set()
    model.script.append(f"DELETE FROM {name} WHERE id IN ({listed(gone)})")
    table.rows = {id: holds for id, holds in table.rows.items() if id not in gone}
    table.is_whole &= not gone


def rename(_draw: st.DrawFn, model: Model, name: str, step: int) -> None:
    model.script.append(f"ALTER TABLE {name} RENAME TO r{step}")
    model.tables[f"r{step}"] = model.tables.pop(name)


def drop(_draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    if len(model.tables) == 1:
        return
    origin = model.tables[name].origin
    if origin is not None:
        origin.base, origin.is_gone = len(model.tables[name].rows) + origin.rows, True
    model.tables.pop(name)
    model.script.append(f"DROP TABLE {name}")


def drop_index(_draw: st.DrawFn, model: Model, _name: str, _step: int) -> None:
    """Drop the index, which cannot be counted since the table that it reads has other columns."""
    if model.has_index:
        model.has_index = False
        model.script += [f"ALTER TABLE kept RENAME COLUMN {V} TO w", "DROP TABLE words"]


def drop_column(_draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    if table.has_v and not table.is_virtual:
        model.script.append(f"ALTER TABLE {name} DROP COLUMN {V}")
        pass_on(table, kept=False)
        table.has_v, table.rows = False, dict.fromkeys(table.rows, False)


def pass_on(table: Table, *, kept: bool) -> None:
    """Drop the column, which another of its name takes over with its values, or not."""
    origin = table.origin
    if origin is not None and table.has_v:
        origin.held = any(table.rows.values()) and origin.held is not False
        origin.column |= origin.held and not kept


def retype(draw: st.DrawFn, model: Model, name: str, step: int) -> None:
    """Give the column another type in place; perhaps forget to copy the values."""
    table = model.tables[name]
    if not table.has_v or table.is_virtual:
        return
    model.script.append(f"ALTER TABLE {name} ADD COLUMN w{step} TEXT")
    copies = draw(st.booleans())
    pass_on(table, kept=copies)
    if copies:
        model.script.append(f"UPDATE {name} SET w{step} = CAST({V} AS TEXT)")
        table.is_set = True
    else:
        table.rows = dict.fromkeys(table.rows, False)
    model.script += [f"ALTER TABLE {name} DROP COLUMN {V}", f"ALTER TABLE {name} RENAME COLUMN w{step} TO {V}"]


def rebuild(draw: st.DrawFn, model: Model, name: str, step: int) -> None:
    """Rebuild a table with some of its rows, in one of two orders, perhaps without V, and with rows of its own."""
    table = model.tables[name]
    if table.origin is not None and table.origin.name != name:
        return
    kept = (
        draw(st.one_of(st.just(set(table.rows)), st.sets(st.sampled_from(sorted(table.rows))))) if table.rows else set()
    )
    keeps_v = table.has_v and draw(st.booleans())
    columns = f"id, {V}" if keeps_v else "id"
    new, old = draw(st.sampled_from([(f"new{step}", name), (name, f"old{step}")]))
    if old != name:
        model.script.append(f"ALTER TABLE {name} RENAME TO {old}")
    model.script += [
        f"CREATE TABLE {new} ({columns.replace('id', 'id INTEGER PRIMARY KEY')})",
        f"INSERT INTO {new} SELECT {columns} FROM {old} WHERE id IN ({listed(kept)})",
    ]
    if (origin := table.origin) is not None:
        pass_on(table, kept=keeps_v)
        origin.base = len(table.rows) + origin.rows
        origin.rows += len(table.rows.keys() - kept)
    model.tables[new] = Table(
        {id: holds and keeps_v for id, holds in table.rows.items() if id in kept}, origin, keeps_v
    )
    for change in draw(st.lists(st.sampled_from([insert, delete]), max_size=2)):
        change(draw, model, new, 0)
    model.script.append(f"DROP TABLE {old}")
    if new != name:
        model.script.append(f"ALTER TABLE {new} RENAME TO {name}")
        model.tables[name] = model.tables.pop(new)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Model, list[str]]:
    """The scripts of a run, cut anywhere out of a few statements, with what they lose."""
    model = Model()
    changes = [create, insert, delete, rename, drop, drop_index, drop_column, retype, rebuild, rebuild, rebuild]
    for step in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(sorted(model.tables)))
        draw(st.sampled_from(changes))(draw, model, name, step)
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(model.script))), max_size=3)))
    pieces = zip([0, *cuts], [*cuts, len(model.script)], strict=True)
    return model, [";\n".join(model.script[begin:end]) for begin, end in pieces]


@given(run=runs())
def test_apply_refuses_exactly_what_the_model_says_is_lost(run):
    """Of any run, what is refused is what is lost unnamed, to the row, and `lint` finds what needs no rows to be seen.

    The guard judged script by script, took "replaced_by" for OR REPLACE and a retyped column for a lost one.
    """
    model, scripts = run
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "new.db"
        folder = write(Path(directory) / "sql", {"0.sql": SETUP})
        migrate.apply(f"sqlite:///{path}", folder)
        write(folder, {f"{number}.sql": script for number, script in enumerate(scripts, 1)})
        found: Counter[tuple[bool, str]] = Counter()
        try:
            migrate.apply(f"sqlite:///{path}", folder, snapshots=0)
        except CheckFailed as refusal:
            # several scripts may each have lost rows of a table
            for loss in refusal.violations:
                found[loss.column is not None, loss.table] += loss.rows
            # a REPLACE may take the values of the very rows that hold some: without rows nobody sees that
            overwrites = any(statement.startswith("REPLACE") for statement in model.script)
            if not overwrites and any(loss.kind != "rows" for loss in refusal.violations):
                assert {finding.code for finding in migrate.lint(folder).findings} & {"M002", "M003"}
            assert query(path, "SELECT count(*) FROM a") == [(BEFORE["a"],)]
        else:
            left = {name: {id for (id,) in query(path, f"SELECT id FROM {name}")} for name in model.tables}
            assert left == {name: set(table.rows) for name, table in model.tables.items()}
        assert {(*what, rows) for what, rows in found.items()} == model.lost()
