"""Schemas compared in structure: how a script is written makes no difference, each change of what it makes is one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao.migrate.schema import model, reader, replay
from dao.migrate.schema.names import TABLES
from dao.migrate.schema.tokens import tokens
from tests.folders import quoted

BASE = """
CREATE TABLE places (x INTEGER, y INTEGER, PRIMARY KEY (x, y));
CREATE TABLE marks (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE "odd name" ("a b" TEXT, "key" TEXT, "order" TEXT CHECK ("order" <> 'it''s; -- no'));
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    title      TEXT NOT NULL DEFAULT 'none' COLLATE NOCASE UNIQUE,
    priority   INTEGER NOT NULL ON CONFLICT IGNORE DEFAULT (1 + 1)
               CONSTRAINT jobs_priority_range CHECK (priority BETWEEN 0 AND 0x1F),
    doubled    INTEGER AS (priority * 2) STORED,
    generated  INTEGER REFERENCES jobs (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    x          INTEGER,
    y          INTEGER,
    data       BLOB DEFAULT x'AB',
    CHECK (x > 1.5e3),
    CONSTRAINT jobs_place_fkey FOREIGN KEY (x, y) REFERENCES places (x, y) ON UPDATE CASCADE,
    UNIQUE (x, y) ON CONFLICT REPLACE,
    UNIQUE (y, priority)
) STRICT;
CREATE INDEX jobs_by_title ON jobs (lower(title) COLLATE RTRIM DESC, priority) WHERE priority > 3;
CREATE VIEW urgent AS SELECT id, title FROM jobs WHERE priority > 5;
CREATE TRIGGER jobs_ai AFTER INSERT ON jobs WHEN new.priority > 8 BEGIN
    UPDATE jobs SET title = upper(title) WHERE id = new.id;
    SELECT RAISE(FAIL, "No More");
END;
"""
VIRTUAL = "CREATE VIRTUAL TABLE words USING fts5(title, content = '');"
NAMES = {"places", "marks", "jobs", "id", "title", "priority", "doubled", "x", "y", "data", "urgent"}


def read(*scripts: str) -> model.Schema:
    with replay.replayed((str(number), text) for number, text in enumerate(scripts)) as connection:
        return reader.read(connection)


def found(expected: str, actual: str) -> list[str]:
    return [str(difference) for difference in model.differences(read(expected), read(actual))]


def changed(old: str, new: str) -> list[str]:
    base = BASE + VIRTUAL
    assert base.count(old) == 1
    return found(base, base.replace(old, new))


# ---------------------------------------------------------------- what makes no difference


def written_otherwise(script: str, choice: random.Random) -> str:
    """Return a script with other blanks, comments, quotes and capitals."""
    text = ""
    for token in tokens(script):
        own = token.written.strip()
        if token.value in NAMES:
            own = choice.choice([f'"{token.value}"', f"[{token.value}]", f"`{token.value}`", token.value.upper()])
        elif token.bare:
            own = choice.choice([own.lower(), own.upper(), own.title()])
        text += own + choice.choice([" ", "\n\t", " /* , ( ' */ ", " -- it's ) ;\n"])
    return text


@given(st.integers(0, 2**32))
def test_differences_script_written_otherwise_are_none(seed):
    """Blanks, comments, the case of names and keywords, and the kind of quotes make no difference."""
    assert found(BASE, written_otherwise(BASE, random.Random(seed))) == []


@pytest.mark.parametrize(
    ("script", "other"),
    [
        # where a CHECK stands
        ("CREATE TABLE a (x CHECK (x > 1), y)", "CREATE TABLE a (x, y, CHECK (x > 1))"),
        # commas between table constraints
        ("CREATE TABLE a (x, CHECK (x > 1), UNIQUE (x))", "CREATE TABLE a (x, UNIQUE (x) CHECK (x > 1))"),
        # a key of the column or of the table
        ("CREATE TABLE a (x INT PRIMARY KEY, y UNIQUE)", "CREATE TABLE a (x INT, y, PRIMARY KEY (x), UNIQUE (y))"),
        ("CREATE TABLE a (x REFERENCES a (x))", "CREATE TABLE a (x, FOREIGN KEY (x) REFERENCES a (x))"),
        # a table made at once or step by step
        (
            "CREATE TABLE a (x INT, y TEXT, CHECK (x > 1))",
            "CREATE TABLE a (x INT, CHECK (x > 1)); ALTER TABLE a ADD y TEXT",
        ),
        ("CREATE TABLE a (x, y)", "CREATE TABLE b (x, z); ALTER TABLE b RENAME TO a; ALTER TABLE a RENAME z TO y"),
        ("CREATE TABLE a (x, y)", "CREATE TABLE a (x, z, y); ALTER TABLE a DROP z"),
        ("CREATE TABLE a (x TEXT)", "CREATE TABLE b (x TEXT); CREATE TABLE a AS SELECT x FROM b; DROP TABLE b"),
        # other quotes, and other digits
        ('CREATE TABLE a ("b""c", CHECK ("b""c" > 0X1F))', 'CREATE TABLE a ([b"c], CHECK (`b"c` > 0x1f))'),
        ('CREATE TABLE a (x, CHECK ("length"(x) > 1))', "CREATE TABLE a (x, CHECK (length(x) > 1))"),
        # what is the default anyway
        ("CREATE TABLE a (x PRIMARY KEY REFERENCES a)", "CREATE TABLE a (x PRIMARY KEY REFERENCES a NOT DEFERRABLE)"),
        ("CREATE TABLE a (x, y AS (x + 1))", "CREATE TABLE a (x, y GENERATED ALWAYS AS (x+1) VIRTUAL)"),
        ("CREATE TABLE a (x UNIQUE)", "CREATE TABLE a (x UNIQUE ON CONFLICT ABORT)"),
        (
            "CREATE TABLE a (x REFERENCES a (x))",
            "CREATE TABLE a (x REFERENCES a (x) NOT DEFERRABLE INITIALLY DEFERRED)",
        ),
        (
            "CREATE TABLE a (x); CREATE INDEX i ON a (x)",
            "CREATE TABLE a (x); CREATE INDEX i ON a (x COLLATE BINARY ASC)",
        ),
    ],
)
def test_differences_same_structure_in_another_way_are_none(script, other):
    """What SQLite takes for the same is the same, however it came about."""
    assert found(script, other) == []


def test_read_ledger_and_internal_tables_are_left_out(connection):
    """Of the ledger, of SQLite's own tables and of shadow tables nothing is in a schema."""
    ledger = "".join(f"CREATE TABLE {name.title()} (x); CREATE INDEX of{name} ON {name} (x);" for name in TABLES)
    connection.execute(ledger)
    assert model.differences(read(""), reader.read(connection)) == []
    names = {name for _, name in read(BASE, VIRTUAL, "INSERT INTO places VALUES (1, 1); ANALYZE").objects}
    assert names == {"places", "marks", "odd name", "jobs", "jobs_by_title", "urgent", "jobs_ai", "words"}


def test_read_temporary_objects_are_not_of_the_database():
    """A temporary table of the same name hides that of the database from statements, not from the comparison."""
    with replay.replayed([("1", BASE)]) as connection:
        connection.execute(
            "CREATE TEMP TABLE jobs (y); CREATE TEMP TABLE places (y PRIMARY KEY); CREATE TEMP VIEW v AS SELECT 1"
        )
        assert model.differences(read(BASE), reader.read(connection)) == []


# ---------------------------------------------------------------- what is one difference

FKEY = "FOREIGN KEY (x, y) REFERENCES places (x, y)"
INDEX = "ON jobs (lower(title) COLLATE rtrim DESC, priority) WHERE priority > 3"
TITLE = "TEXT NOT NULL DEFAULT 'none' COLLATE nocase"


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("TEXT NOT NULL DEFAULT 'none'", "TEXT DEFAULT 'none'",
         f"column title is TEXT DEFAULT 'none' COLLATE nocase, expected {TITLE}"),
        ("'none'", "'None'", f"column title is TEXT NOT NULL DEFAULT 'None' COLLATE nocase, expected {TITLE}"),
        (" DEFAULT 'none'", "", f"column title is TEXT NOT NULL COLLATE nocase, expected {TITLE}"),
        (" COLLATE NOCASE", "", f"column title is TEXT NOT NULL DEFAULT 'none', expected {TITLE}"),
        (" UNIQUE,\n", ",\n", "unique (title) is missing"),
        (" ON CONFLICT IGNORE", "",
         ("column priority is INTEGER NOT NULL DEFAULT (1 + 1), "
          "expected INTEGER NOT NULL ON CONFLICT IGNORE DEFAULT (1 + 1)")),
        ("data       BLOB", "data       ANY", "column data is ANY DEFAULT x'AB', expected BLOB DEFAULT x'AB'"),
        ("x'AB'", "x'AC'", "column data is BLOB DEFAULT x'AC', expected BLOB DEFAULT x'AB'"),
        ("priority * 2", "priority * 3",
         ("column doubled is INTEGER GENERATED ALWAYS AS (priority * 3) STORED, "
          "expected INTEGER GENERATED ALWAYS AS (priority * 2) STORED")),
        (" STORED", " VIRTUAL",
         ("column doubled is INTEGER GENERATED ALWAYS AS (priority * 2) VIRTUAL, "
          "expected INTEGER GENERATED ALWAYS AS (priority * 2) STORED")),
        ("    data       BLOB DEFAULT x'AB',\n", "", "column data is missing"),
        ("x'AB',", "x'AB', more TEXT,", "column more is unexpected"),
        (" AUTOINCREMENT", "", "primary key (id) is PRIMARY KEY (id), expected PRIMARY KEY (id) AUTOINCREMENT"),
        ("0x1F", "0x1E",
         ("constraint jobs_priority_range is CHECK (priority BETWEEN 0 AND 0x1E), "
          "expected CHECK (priority BETWEEN 0 AND 0x1F)")),
        ("CONSTRAINT jobs_priority_range ", "",
         ("constraint jobs_priority_range is CHECK (priority BETWEEN 0 AND 0x1F), "
          "expected CONSTRAINT jobs_priority_range CHECK (priority BETWEEN 0 AND 0x1F)")),
        ("    CHECK (x > 1.5e3),\n", "", "check is missing"),
        ("1.5e3", "1.5e4", "check is CHECK (x > 1.5e4), expected CHECK (x > 1.5e3)"),
        (" ON DELETE SET NULL", "",
         ("foreign key (generated) is FOREIGN KEY (generated) REFERENCES jobs (id) DEFERRABLE INITIALLY DEFERRED, "
          "expected FOREIGN KEY (generated) REFERENCES jobs (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED")),
        (" DEFERRABLE INITIALLY DEFERRED", "",
         ("foreign key (generated) is FOREIGN KEY (generated) REFERENCES jobs (id) ON DELETE SET NULL, "
          "expected FOREIGN KEY (generated) REFERENCES jobs (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED")),
        ("CASCADE", "RESTRICT",
         f"constraint jobs_place_fkey is {FKEY} ON UPDATE RESTRICT, expected {FKEY} ON UPDATE CASCADE"),
        (f"    CONSTRAINT jobs_place_fkey {FKEY} ON UPDATE CASCADE,\n", "", "constraint jobs_place_fkey is missing"),
        (" ON CONFLICT REPLACE", "", "unique (x, y) is UNIQUE (x, y), expected UNIQUE (x, y) ON CONFLICT REPLACE"),
        ("UNIQUE (y, priority)", "UNIQUE (priority, y)",
         "unique (y, priority) is UNIQUE (priority, y), expected UNIQUE (y, priority)"),
    ],
)  # fmt: skip
def test_differences_change_of_a_table_is_one_difference(old, new, difference):
    """A column or constraint that has changed, gone or come is reported once, with both forms."""
    assert changed(old, new) == [f"table jobs: {difference}"]


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (") STRICT;", ");", "table jobs is not STRICT, expected STRICT"),
        (" WITHOUT ROWID", "", "table marks is not WITHOUT ROWID, expected WITHOUT ROWID"),
        ("PRIMARY KEY (x, y)", "PRIMARY KEY (y, x)",
         "table places: primary key (x, y) is PRIMARY KEY (y, x), expected PRIMARY KEY (x, y)"),
        ("(x INTEGER, y INTEGER,", "(y INTEGER, x INTEGER,",
         "table places: the order of columns is y, x, expected x, y"),
        ("it''s; -- no", "it''s; --  no",
         "table odd name: check is CHECK (\"order\" <> 'it''s; --  no'), expected CHECK (\"order\" <> 'it''s; -- no')"),
        ("DESC, priority)", "ASC, priority)", f"index jobs_by_title is {INDEX.replace(' DESC', '')}, expected {INDEX}"),
        ("COLLATE RTRIM ", "", f"index jobs_by_title is {INDEX.replace('COLLATE rtrim ', '')}, expected {INDEX}"),
        ("lower(title)", "upper(title)", f"index jobs_by_title is {INDEX.replace('lower', 'upper')}, expected {INDEX}"),
        ("WHERE priority > 3", "", f"index jobs_by_title is {INDEX.partition(' WHERE')[0]}, expected {INDEX}"),
        ("priority > 3", "priority > 4", f"index jobs_by_title is {INDEX.replace('3', '4')}, expected {INDEX}"),
        ("CREATE INDEX", "CREATE UNIQUE INDEX", f"index jobs_by_title is UNIQUE {INDEX}, expected {INDEX}"),
        ("CREATE INDEX jobs_by_title ON jobs (", "CREATE INDEX jobs_by_title ON places (x); -- ",
         f"index jobs_by_title is ON places (x), expected {INDEX}"),
        ("priority > 5", "priority > 6",
         ("view urgent is AS SELECT id, title FROM jobs WHERE priority > 6, "
          "expected AS SELECT id, title FROM jobs WHERE priority > 5")),
        ("content = ''", "content=places",
         "virtual table words is USING fts5(title, content=places), expected USING fts5(title, content = '')"),
    ],
)  # fmt: skip
def test_differences_change_of_an_object_is_one_difference(old, new, difference):
    """An option, a key, an index, a view or a virtual table that has changed is reported once."""
    assert changed(old, new) == [difference]


@pytest.mark.parametrize(
    ("script", "other"),
    [
        ("CREATE TABLE a (x INTEGER PRIMARY KEY)", "CREATE TABLE a (x INTEGER PRIMARY KEY DESC)"),
        ("CREATE TABLE a (X UNIQUE ON CONFLICT IGNORE)", "CREATE TABLE a (x UNIQUE)"),
        (
            "CREATE TABLE a (x REFERENCES generated DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TABLE a (x REFERENCES generated)",
        ),
        (
            "CREATE TABLE a (x REFERENCES a ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TABLE a (x REFERENCES a ON DELETE SET DEFAULT)",
        ),
        ("CREATE TABLE a (x CONSTRAINT generated CHECK (x))", "CREATE TABLE a (x CHECK (x))"),
        ("CREATE TABLE a (x CHECK (x) CONSTRAINT b CHECK (x))", "CREATE TABLE a (x CONSTRAINT c CHECK (x), CHECK (x))"),
        (
            "CREATE TABLE a (x); CREATE TABLE b (x); CREATE INDEX i ON a (x)",
            "CREATE TABLE a (x); CREATE TABLE b (x); CREATE INDEX i ON b (x)",
        ),
    ],
)
def test_differences_small_but_real_ones_are_found(script, other):
    """What is easily overlooked between other clauses is one difference."""
    assert len(found(script, other)) == len(found(other, script)) == 1


TRIGGER = (
    "AFTER INSERT ON jobs WHEN new.priority > 8 BEGIN UPDATE jobs SET title = upper(title) WHERE id = new.id; "
    'SELECT RAISE(FAIL, "No More"); END'
)


@pytest.mark.parametrize(
    ("old", "new"),
    [("new.priority > 8", "new.priority > 9"), ("AFTER INSERT", "BEFORE INSERT"), ("No More", "no more")],
)
def test_differences_change_of_a_trigger_is_one_difference(old, new):
    """A trigger with another event, condition or body is reported once."""
    assert changed(old, new) == [f"trigger jobs_ai is {TRIGGER.replace(old, new)}, expected {TRIGGER}"]


def test_differences_long_texts_are_shown_where_they_differ():
    """Of a long definition a person is shown the place, a program gets all of it."""
    listed = ", ".join(map(str, range(100, 200)))
    made = f"CREATE TABLE a (x CONSTRAINT few CHECK (x IN ({listed})))"
    [difference] = model.differences(read(made), read(made.replace("150", "1500")))
    assert difference.actual == f"CHECK (x IN ({listed.replace('150', '1500')}))"
    shown = str(difference)
    assert shown.startswith("table a: constraint few is … ")
    assert "149, 1500, 151" in shown
    assert "149, 150, 151" in shown
    assert len(shown) < 400


def test_differences_several_objects_come_in_order_and_say_what_became_of_them():
    """Tables come first, then views, indexes and triggers, each by name.

    A table takes its indexes and triggers along.
    """
    made = "CREATE TABLE b (x); CREATE INDEX b_x ON b (x); CREATE TRIGGER b AFTER INSERT ON b BEGIN SELECT 1; END;"
    kept = "CREATE TABLE d (x, y); CREATE TABLE e (x);"
    expected = f"{kept} {made} CREATE INDEX i ON d (x); CREATE VIEW v AS SELECT 1; CREATE INDEX z ON e (x)"
    actual = f"{kept} {made.replace('b', 'c')} CREATE INDEX j ON d (y); CREATE TABLE v (x); CREATE INDEX z ON e (x)"
    assert found(expected, actual) == [
        "table b is missing",
        "table c is unexpected",
        "table v is unexpected",
        "view v is missing",
        "index i is missing",
        "index j is unexpected",
    ]


def test_differences_column_that_went_is_not_a_change_of_order():
    """The order of columns is that of those which both have."""
    assert found("CREATE TABLE a (x, y, z)", "CREATE TABLE a (z, w, x)") == [
        "table a: the order of columns is z, x, expected x, z",
        "table a: column y is missing",
        "table a: column w is unexpected",
    ]


def test_differences_string_in_double_quotes_keeps_its_case():
    """SQLite takes a name in double quotes that no column has for a string, in which capitals make a difference."""
    script = 'CREATE TABLE a (State TEXT DEFAULT "New" CHECK ("STATE" IN ("New", "Done")))'
    assert found(script, script.replace('"STATE"', "state")) == []
    assert found(script, script.replace('"Done"', '"done"')) == [
        'table a: check is CHECK ("STATE" IN ("New", "done")), expected CHECK ("STATE" IN ("New", "Done"))'
    ]
    assert found(script, script.replace('DEFAULT "New"', 'DEFAULT "new"')) == [
        'table a: column State is TEXT DEFAULT "new", expected TEXT DEFAULT "New"'
    ]


def test_differences_value_and_quoted_name_of_it_differ():
    """NULL is a value, "null" a name."""
    null = 'CREATE TABLE a (x, "null" TEXT, CHECK (x IS NULL))'
    assert found(null, null.replace("IS NULL", 'IS "null"')) == [
        'table a: check is CHECK (x IS "null"), expected CHECK (x IS NULL)'
    ]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_differences_names_of_any_letters_are_told_apart(name):
    """A table, column, constraint and index with any name is found again, and missed when it is gone."""
    table = quoted(f"t {name}")
    made = (
        f"CREATE TABLE {table} (one, "
        f"{quoted(name)} TEXT CONSTRAINT {quoted(name)} CHECK ({quoted(name)} <> '') UNIQUE);"
    )
    index = f"CREATE INDEX {quoted(f'i {name}')} ON {table} ({quoted(name)})"
    expected = read(made + index)
    assert model.differences(expected, read(made + index)) == []
    [gone] = model.differences(expected, read(made))
    assert (gone.kind, gone.type, gone.name) == ("missing", "index", f"i {name}")
    parts = {
        gone.part
        for gone in model.differences(
            expected, read(f"CREATE TABLE {table} (one);{index.replace(f'({quoted(name)})', '(one)')}")
        )
    }
    assert f"column {name}" in parts


# ---------------------------------------------------------------- read once


def test_read_same_definition_is_the_same_object():
    """A definition that somebody holds is not read again, in whatever database it is."""
    one, other = read(BASE), read("CREATE TABLE before_it (x)", BASE)
    key = ("table", "jobs")
    assert one.objects[key] is other.objects[key]
    assert one.objects.keys() < other.objects.keys()


def test_read_same_definition_means_another_thing_beside_other_names():
    """What is held of a definition counts only where its double quotes mean the same, and its table is the same."""
    checked = """CREATE TABLE a (x CHECK (x <> "Word"));"""
    string, name = read(checked), read(checked, "CREATE TABLE other (word)")
    assert [str(one) for one in model.differences(string, read(checked.replace("Word", "word")))] == [
        """table a: check is CHECK (x <> "word"), expected CHECK (x <> "Word")"""
    ]
    assert model.differences(name, read(checked.replace("Word", "word"), "CREATE TABLE other (word)")) == []
    index = "CREATE INDEX i ON b (x COLLATE NOCASE)"
    plain, folded = read("CREATE TABLE b (x)", index), read("CREATE TABLE b (x COLLATE NOCASE)", index)
    assert plain.objects["index", "i"] != folded.objects["index", "i"]
