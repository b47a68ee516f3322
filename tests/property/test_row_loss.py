"""The row-loss guard against a model in Python that knows of every row what became of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import CheckFailed
from tests.folders import query, write

#: The tables of before, and how many rows each has. All have an id, and a column v that holds a value in each row.
BEFORE = {"a": 3, "b": 2, "c": 0}


@attrs.define
class Table:
    """A table of the model: its rows, by id whether v holds a value; what it was called before the script, if it was."""

    rows: dict[int, bool]
    origin: str | None = None
    has_v: bool = True
    is_rebuilt: bool = False


@attrs.define
class Model:
    """A script, the tables that it leaves, and what it loses without naming it: as (kind, table, number of rows)."""

    tables: dict[str, Table] = attrs.Factory(
        lambda: {name: Table(dict.fromkeys(range(rows), True), name) for name, rows in BEFORE.items()}
    )
    script: list[str] = attrs.Factory(list)
    lost: set[tuple[str, str, int]] = attrs.Factory(set)
    fresh: int = 100

    def lose(self, kind: str, table: Table, rows: int) -> None:
        """Note a loss, unless there is nothing, or it is of a table that the script has made."""
        if table.origin is not None and rows:
            self.lost.add((kind, table.origin, rows))

    def new_id(self) -> int:
        """Return an id that no row has had."""
        self.fresh += 1
        return self.fresh


def listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))


def create(_draw: st.DrawFn, model: Model, _name: str, step: int) -> None:
    model.script.append(f"CREATE TABLE n{step} (id INTEGER PRIMARY KEY, v)")
    model.tables[f"n{step}"] = Table({})


def insert(draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    holds = draw(st.booleans()) and table.has_v
    id = model.new_id()
    model.script.append(
        f"INSERT INTO {name} (id, v) VALUES ({id}, 'x')" if holds else f"INSERT INTO {name} (id) VALUES ({id})"
    )
    table.rows[id] = holds


def delete(draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    gone = draw(st.sets(st.sampled_from(sorted(table.rows)))) if table.rows else set()
    model.script.append(f"DELETE FROM {name} WHERE id IN ({listed(gone)})")
    table.rows = {id: holds for id, holds in table.rows.items() if id not in gone}


def rename(_draw: st.DrawFn, model: Model, name: str, step: int) -> None:
    if not model.tables[name].is_rebuilt:
        model.script.append(f"ALTER TABLE {name} RENAME TO r{step}")
        model.tables[f"r{step}"] = model.tables.pop(name)


def drop(_draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    if not model.tables[name].is_rebuilt and len(model.tables) > 1:
        table = model.tables.pop(name)
        model.script.append(f"DROP TABLE {name}")
        model.lose("table", table, len(table.rows))


def drop_column(_draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    table = model.tables[name]
    if table.has_v and not table.is_rebuilt:
        model.script.append(f"ALTER TABLE {name} DROP COLUMN v")
        model.lose("column", table, len(table.rows) if any(table.rows.values()) else 0)
        table.has_v = False


def rebuild(draw: st.DrawFn, model: Model, name: str, _step: int) -> None:
    """Rebuild a table with some of its rows, in one of two orders, perhaps without v, and with rows of its own."""
    table = model.tables[name]
    if table.is_rebuilt or table.origin not in {None, name}:
        return
    kept = (
        draw(st.one_of(st.just(set(table.rows)), st.sets(st.sampled_from(sorted(table.rows))))) if table.rows else set()
    )
    keeps_v = table.has_v and draw(st.booleans())
    columns = "id, v" if keeps_v else "id"
    new, old = draw(st.sampled_from([("new", name), (name, "old")]))
    if old == "old":
        model.script.append(f"ALTER TABLE {name} RENAME TO old")
    model.script += [
        f"CREATE TABLE {new} ({columns}, PRIMARY KEY (id))",
        f"INSERT INTO {new} SELECT {columns} FROM {old} WHERE id IN ({listed(kept)})",
    ]
    model.lose("rows", table, len(table.rows.keys() - kept))
    model.lose("column", table, len(table.rows) if table.has_v and not keeps_v and any(table.rows.values()) else 0)
    rebuilt = Table({id: holds for id, holds in table.rows.items() if id in kept}, name, keeps_v, is_rebuilt=True)
    model.tables[new] = rebuilt
    for change in draw(st.lists(st.sampled_from([insert, delete]), max_size=2)):
        change(draw, model, new, 0)
    model.script.append(f"DROP TABLE {old}")
    if new == "new":
        model.script.append(f"ALTER TABLE new RENAME TO {name}")
        model.tables[name] = model.tables.pop("new")


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A script of a few statements, with what it loses."""
    model = Model()
    for step in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(sorted(model.tables)))
        draw(st.sampled_from([create, insert, delete, rename, drop, drop_column, rebuild, rebuild]))(
            draw, model, name, step
        )
    return model


@given(model=models())
def test_apply_refuses_exactly_what_the_model_says_is_lost(model):
    """Of any script, what the guard refuses is what is lost unnamed, to the row; if nothing is, it is applied."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        for name, rows in BEFORE.items():
            query(path, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, v)")
            for id in range(rows):
                query(path, f"INSERT INTO {name} VALUES (?, 'x')", id)
        scripts = write(Path(folder) / "sql", {"1.sql": ";\n".join(model.script)})
        try:
            migrate.apply(f"sqlite:///{path}", scripts, snapshots=0)
            found = set()
        except CheckFailed as refusal:
            found = {(loss.kind, loss.table, loss.rows) for loss in refusal.violations}
            assert query(path, "SELECT count(*) FROM a") == [(BEFORE["a"],)]
        else:
            left = {name: {id for (id,) in query(path, f"SELECT id FROM {name}")} for name in model.tables}
            assert left == {name: set(table.rows) for name, table in model.tables.items()}
    assert found == model.lost
