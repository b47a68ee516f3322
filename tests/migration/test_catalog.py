"""The catalog: one module has the SQL over SQLite's own tables, and what it says of a database."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import Column, ForeignKey, IndexedColumn, Table
from dao.migrate.schema.names import fold, quoted

ROOMS = Path(migrate.__file__).parent
CATALOG = Path(catalog.__file__)
#: In a string that is more than the name, as the authorizer has it: SQL over the catalog, or over a pragma as a table.
SQL = re.compile(r"sqlite_(?:temp_)?(?:schema|master)\b|\bpragma_", re.IGNORECASE)


def found_in(path):
    """Return the strings of a module that have SQL over the catalog; docstrings may name it."""
    tree = ast.parse(path.read_text())
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in bodies if node.body and isinstance(node.body[0], ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    return [text for text in texts if SQL.search(text) and not SQL.fullmatch(text)]


@pytest.fixture
def connection():
    with apsw.Connection(":memory:") as connection:
        connection.execute(
            """
            CREATE TABLE Parent (
                a INTEGER, "b c" TEXT NOT NULL DEFAULT 'x', PRIMARY KEY ("b c", a)
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE child (
                one TEXT COLLATE NOCASE REFERENCES parent,
                two INTEGER AS (length(one)) STORED,
                three INTEGER AS (1),
                FOREIGN KEY (one, two) REFERENCES Parent ("b c", a) ON DELETE CASCADE ON UPDATE SET NULL,
                UNIQUE (one)
            );
            CREATE INDEX on_child ON child (one DESC, two + 1);
            CREATE VIRTUAL TABLE texts USING fts5(body);
            CREATE VIEW seen AS SELECT one FROM child;
            CREATE TRIGGER fires AFTER INSERT ON child BEGIN SELECT 1; END;
            CREATE TABLE _yoyo_log (id TEXT);
            CREATE INDEX on_log ON _yoyo_log (id);
            CREATE TEMP TABLE child (other);
            INSERT INTO Parent VALUES (1, 'y');
            """
        )
        yield connection


def test_no_other_module_has_sql_over_the_catalog():
    """Only `schema.catalog` asks SQLite's own tables, and the pragmas that are tables; docstrings may name them."""
    found = {path: found_in(path) for path in ROOMS.rglob("*.py") if path != CATALOG}
    assert len(found) > 100
    assert {str(path.relative_to(ROOMS)): texts for path, texts in found.items() if texts} == {}


def test_the_rule_finds_what_the_catalog_has():
    """The rule finds the catalog's own statements, so it can fail."""
    assert len(found_in(CATALOG)) >= 7


def test_definitions_returns_everything_in_order(connection):
    """`definitions` returns what was made, in that order, and says what is internal and what is virtual."""
    found = catalog.definitions(connection)
    assert [item.name for item in found if item.sql and item.table == "child"] == ["child", "on_child", "fires"]
    internal = {item.name for item in found if item.is_internal}
    assert internal == {"sqlite_autoindex_child_1", "sqlite_autoindex_Parent_1", "_yoyo_log", "on_log"} & {
        item.name for item in found
    }
    assert [item.name for item in found if item.is_virtual] == ["texts"]
    assert [item.name for item in catalog.definitions(connection, "temp")] == ["child"]
    assert catalog.definitions(connection, since=found[2].number) == found[3:] != []


def test_definitions_of_a_renamed_table_keep_their_place(connection):
    """A table that is renamed keeps page and number, and is another definition; one that is the same is equal."""
    connection.execute("DROP TABLE temp.child")
    before = {item.name: item for item in catalog.definitions(connection)}
    connection.execute("ALTER TABLE main.child RENAME TO infant")
    after = {item.name: item for item in catalog.definitions(connection)}
    old, new = before["child"], after["infant"]
    assert (old.page, old.number) == (new.page, new.number)
    assert old != new
    assert before["Parent"] == after["Parent"]


def test_tables_leaves_out_views_and_what_is_internal(connection):
    """`tables` returns tables of all three kinds by name, without views, the ledger's and SQLite's own."""
    found = catalog.tables(connection)
    assert Table("Parent", "table", without_rowid=True, strict=True) in found
    assert [table.name for table in found if table.kind == "table"] == ["Parent", "child"]
    assert [table.name for table in found if not table.stores_rows] == ["texts"]
    assert {table.name for table in found if table.kind == "shadow"} >= {"texts_content", "texts_idx"}
    assert catalog.table_names(connection) >= {"_yoyo_log", "child", "texts", "texts_content"}


def test_columns_are_of_the_main_database(connection):
    """`columns` returns what the main table has, generated columns too, whatever temporary table hides it."""
    assert catalog.columns(connection, "child") == [
        Column("one", "TEXT", False, None, 0, 0),
        Column("two", "INTEGER", False, None, 0, 3),
        Column("three", "INTEGER", False, None, 0, 2),
    ]
    assert [column.generated for column in catalog.columns(connection, "child")] == [None, "STORED", "VIRTUAL"]
    assert [(column.name, column.key) for column in catalog.columns(connection, "parent")] == [("a", 2), ("b c", 1)]
    assert [column.name for column in catalog.columns(connection, "texts") if column.is_listed] == ["body"]
    assert catalog.columns(connection, "nothing") == []
    assert {("parent", ""), ("parent", "b c"), ("child", "three"), ("texts", "body")} <= catalog.column_names(
        connection
    )


def test_foreign_keys_come_as_they_are_written(connection):
    """`foreign_keys` returns them in the order of the statement; one that names no columns has none."""
    assert catalog.foreign_keys(connection, "child") == [
        ForeignKey(1, ("one",), "parent", (), "NO ACTION", "NO ACTION", "NONE"),
        ForeignKey(0, ("one", "two"), "Parent", ("b c", "a"), "SET NULL", "CASCADE", "NONE"),
    ]


def test_indexes_have_their_columns(connection):
    """`indexes` returns a table's indexes, the latest first, with order and collation; an expression has no name."""
    on_child, unique = catalog.indexes(connection, "child")
    assert (on_child.name, on_child.unique, on_child.origin) == ("on_child", False, "c")
    assert on_child.columns == (IndexedColumn("one", True, "NOCASE"), IndexedColumn(None, False, "BINARY"))
    assert (unique.unique, unique.origin, unique.columns) == (True, "u", (IndexedColumn("one", False, "NOCASE"),))


def test_rows_are_counted_without_the_ledger(connection):
    """`row_counts` and `holds_rows` leave the ledger's tables out."""
    connection.execute("DELETE FROM Parent; INSERT INTO _yoyo_log VALUES ('x'); DELETE FROM texts_data")
    connection.execute("DELETE FROM texts_config")
    assert not any(catalog.row_counts(connection).values())
    assert not catalog.holds_rows(connection, catalog.definitions(connection))
    connection.execute("INSERT INTO main.child (one) VALUES ('x')")
    assert catalog.row_counts(connection)["child"] == 1
    assert catalog.holds_rows(connection, catalog.definitions(connection))


@pytest.mark.parametrize("name", ["plain", "of two words", 'with "quotes"', "Ünïcode"])
def test_quoted_is_an_identifier(connection, name):
    """A quoted name is that name for SQLite, and `fold` lowers the letters of ASCII only, as SQLite does."""
    connection.execute(f"CREATE TABLE {quoted(name)} (x)")
    assert name in catalog.table_names(connection)
    assert fold(name.upper()) != name.upper()
    assert (fold("É"), fold("E")) == ("É", "e")


def test_settings_are_read_at_once(connection):
    """`settings` returns pragmas by name, and `case_sensitive_like`, which no pragma tells."""
    connection.execute("PRAGMA recursive_triggers = on; PRAGMA case_sensitive_like = on")
    found = catalog.settings(connection, ("recursive_triggers", "case_sensitive_like", "journal_mode"))
    assert found == {"recursive_triggers": 1, "case_sensitive_like": 1, "journal_mode": "memory"}


def test_typed_keeps_types_and_bytes(connection):
    """`typed` reads a value with its type, and text as bytes, so that text need not be UTF-8."""
    connection.execute("CREATE TABLE mixed (a, b); INSERT INTO mixed VALUES (CAST(x'ff' AS TEXT), 1.5)")
    assert connection.execute(f"SELECT {catalog.typed(['a', 'b'])} FROM mixed").fetchall() == [
        ("text", b"\xff", "real", 1.5)
    ]
