"""What a script says of itself at its top: what it may lose, whether keys are enforced, and what is refused there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao.errors import MigrationFileError
from dao.migrate.scripts import directives
from dao.migrate.scripts.directives import NOTHING_ALLOWED, Allowance
from dao.migrate.values import Loss

PATH = Path("sql/1_x.sql")


def allowance(*values: str) -> Allowance:
    """Return what a script may lose that declares these."""
    text = "".join(f"-- allows: {value}\n" for value in values) + "SELECT 1;"
    return directives.read(text, PATH).allows


# ---------------------------------------------------------------- depends on


@pytest.mark.parametrize(
    ("line", "depends"),
    [
        ("-- depends on: app/0001_a base/2_b", ("app/0001_a", "base/2_b")),
        ("-- depends on: 20250115010000_create_tasks", ("20250115010000_create_tasks",)),
        ("-- depends on: the tasks table being there", ()),
        ("-- depends on the view: keep them in step", ()),
    ],
)
def test_read_depends_on_is_a_directive_before_an_id_only(line, depends):
    """Scripts that are applied have prose at their top, which began to be refused as ids that are not there."""
    assert directives.read(f"{line}\nSELECT 1;", PATH).depends == depends


# ---------------------------------------------------------------- allows


def test_read_script_without_a_declaration_may_lose_nothing():
    """Without a line nothing is allowed."""
    allows = directives.read("-- a comment\nDROP TABLE t;\n-- allows: drop table t\n", PATH).allows
    assert allows == NOTHING_ALLOWED
    assert not allows.loses("t")
    assert not allows.drops("t")
    assert not allows.drops("t", "c")


@pytest.mark.parametrize(
    "value", ["data-loss t", "data-loss T,u", "DATA-LOSS  u , t", 'data-loss "T"', 'data-loss u,"t"']
)
def test_read_data_loss_is_for_the_rows_of_the_tables_it_names(value):
    """Rows may go, in any case and in quotes; the table and its columns may not."""
    allows = allowance(value)
    assert allows.loses("T")
    assert not allows.loses("v")
    assert not allows.drops("t")
    assert not allows.drops("t", "c")


@pytest.mark.parametrize("value", ["drop table t", "drop table u, T", "Drop Table  t", 'drop table "t"'])
def test_read_drop_table_is_for_the_tables_it_names(value):
    """A table may be dropped with all it holds, and so may its columns; rows of a table that stays may not go."""
    allows = allowance(value)
    assert allows.drops("T")
    assert allows.drops("t", "c")
    assert not allows.drops("v")
    assert not allows.loses("t")


@pytest.mark.parametrize(
    "value", ["drop column t.c", "drop column u.a, T.C", 'drop column "t"."c"', 'drop column t."C"']
)
def test_read_drop_column_is_for_the_columns_it_names(value):
    """That column, of that table."""
    allows = allowance(value)
    assert allows.drops("T", "C")
    assert not allows.drops("t", "d")
    assert not allows.drops("v", "c")
    assert not allows.drops("t")
    assert not allows.loses("t")


def test_read_drop_without_names_is_for_all():
    """Without names, any table, or any column; rows of tables that stay have to be named."""
    assert allowance("drop table").drops("anything")
    assert allowance("drop column").drops("anything", "at all")
    assert not allowance("drop column").drops("anything")
    assert not allowance("drop table").loses("anything")


def test_read_several_declarations_add_up():
    """Each line allows more."""
    allows = allowance("data-loss a", "data-loss b", "drop table c", "drop column d.e", "drop column d.f")
    assert allows == Allowance(rows=frozenset({"a", "b"}), tables=frozenset({"c"}), columns=frozenset({"d.e", "d.f"}))
    assert allowance("drop table", "drop column").drops("x", "y")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "everything",
        "data-loss",
        "data-loss ,",
        "data-loss a,,b",
        "data-loss a,",
        'data-loss "a',
        "data-loss a, ",
        "drop",
        "drop index i",
        "drop table a,",
        "drop column c",
        "drop column t.c, d",
        "delete t",
    ],
)
def test_read_declaration_that_means_nothing_is_refused_with_the_forms(value):
    """What cannot be understood is not passed over: the path, the line and what can be written there are told."""
    with pytest.raises(
        MigrationFileError, match=r"^sql/1_x\.sql:2: `-- allows: .*` must be `data-loss TABLE.*drop column"
    ) as caught:
        directives.read(f"-- why\n-- allows: {value}\nSELECT 1;", PATH)
    assert (caught.value.path, caught.value.line) == (PATH, 2)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\0\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
    min_size=1,
    max_size=8,
)


@given(table=NAMES, column=NAMES, kind=st.sampled_from(["rows", "table", "column"]))
def test_declaration_of_a_loss_allows_it(table, column, kind):
    """Whatever a table and a column are called, the line that a refusal names allows the loss, and not another's."""
    loss = Loss(kind, table, 1, column if kind == "column" else None)
    allows = directives.read(f"{loss.declaration}\nSELECT 1;", PATH).allows
    assert loss.is_declared(allows)
    assert not Loss("rows", f"{table}x", 1).is_declared(allows)
    assert not Loss("table", f"{table}x", 1).is_declared(allows)
    assert not Loss("column", table, 1, f"{column}x").is_declared(allows) or kind == "table"


@pytest.mark.parametrize(
    ("loss", "declaration"),
    [
        (Loss("rows", "tasks", 2), "-- allows: data-loss tasks"),
        (Loss("table", "tasks", 2), "-- allows: drop table tasks"),
        (Loss("column", "tasks", 2, "priority"), "-- allows: drop column tasks.priority"),
        (Loss("rows", "my, table", 2), '-- allows: data-loss "my, table"'),
        (Loss("column", 'a "b"', 2, "c.d"), '-- allows: drop column "a ""b"""."c.d"'),
    ],
)
def test_declaration_of_a_loss_is_as_short_as_it_can_be(loss, declaration):
    """Plain names need no quotes."""
    assert loss.declaration == declaration


# ---------------------------------------------------------------- foreign_keys


@pytest.mark.parametrize(("value", "on"), [("on", True), ("ON", True), ("off", False)])
def test_read_foreign_keys_is_on_or_off(value, on):
    """Either of the two, in any case; off without a line."""
    assert directives.read(f"-- foreign_keys: {value}\nSELECT 1;", PATH).foreign_keys == on
    assert not directives.read("SELECT 1;\n-- foreign_keys: on\n", PATH).foreign_keys


@pytest.mark.parametrize("value", ["", "yes", "1", "on off"])
def test_read_foreign_keys_of_another_value_is_refused(value):
    """Anything else is refused, not taken for off."""
    with pytest.raises(MigrationFileError, match=r"^sql/1_x\.sql:1: `-- foreign_keys: .*` must be on or off"):
        directives.read(f"-- foreign_keys: {value}\nSELECT 1;", PATH)


def test_read_foreign_keys_twice_is_refused():
    """Two lines could contradict each other."""
    with pytest.raises(MigrationFileError, match=r"^sql/1_x\.sql:2: `-- foreign_keys:` stands here twice") as caught:
        directives.read("-- foreign_keys: on\n-- foreign_keys: off\nSELECT 1;", PATH)
    assert caught.value.line == 2


@pytest.mark.parametrize("alone", ["-- transactional: false\n", "-- no-transaction\n"])
def test_read_foreign_keys_outside_of_a_transaction_is_refused(alone):
    """There a script sets the pragma itself; it would be unclear for how long the line counts."""
    with pytest.raises(
        MigrationFileError, match=r"^sql/1_x\.sql:2: .* goes with a transaction; outside of one a script sets"
    ):
        directives.read(f"{alone}-- foreign_keys: on\nSELECT 1;", PATH)
    assert not directives.read(f"{alone}-- foreign_keys: off\nSELECT 1;", PATH).foreign_keys


def test_read_lines_say_where_each_stands():
    """The line of the first of each name, for messages."""
    text = (
        "-- a comment\n-- foreign_keys: on\n\n-- allows: drop table\n-- depends: a b\n-- allows: drop column\n"
        "-- depends: b c\nSELECT 1;"
    )
    read = directives.read(text, PATH)
    assert read.lines == {"foreign_keys": 2, "allows": 4, "depends": 5}
    assert read.depends == ("a", "b", "c")
