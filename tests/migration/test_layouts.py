"""Other tools' folders: read as they are, run like our own, refused where the tool itself would not take them."""

from __future__ import annotations

from datetime import UTC, datetime

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import Irreversible, MigrationFailed, MigrationFileError
from dao.migrate.scripts.ids import sort_key, version
from dao.migrate.scripts.migration import from_texts
from dao.migrate.scripts.statements import has_statement, start_of_statement
from tests.folders import ids, query, schema, tables, write
from tests.other_tools import (
    LAYOUTS,
    Layout,
    Written,
    dbmate,
    diesel,
    flyway,
    folder_of,
    goose,
    in_layout,
    sql_migrate,
    sqlx,
    yoyo,
)

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


#: What other people's scripts hold, and what a splitter or a careless runner gets wrong.
SCRIPTS: list[Written] = [
    (
        1,
        "tables",
        """/* Two; tables. */
CREATE TABLE parent (id INTEGER PRIMARY KEY, begin TEXT, end TEXT, declare TEXT);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 'a;b', '-- no; comment', 'C:\\'), (2, 'it''s', '/* no; */', '
;
');
INSERT INTO child VALUES (10, 1), (20, 2); -- one; two'""",
        "DROP TABLE child; -- ; first\nDROP TABLE parent",
    ),
    (
        2,
        "rebuild",
        """PRAGMA foreign_keys = OFF;
BEGIN TRANSACTION;
CREATE TABLE new (id INTEGER PRIMARY KEY, begin TEXT, end TEXT, declare TEXT, added TEXT);
INSERT INTO new SELECT *, 'x' FROM parent;
DROP TABLE parent;
ALTER TABLE new RENAME TO parent;
COMMIT;
PRAGMA foreign_keys = ON;""",
        "BEGIN;\nALTER TABLE parent DROP COLUMN added;\nCOMMIT;",
    ),
    (
        3,
        "triggers",
        """CREATE TRIGGER guard BEFORE INSERT ON parent
BEGIN
  SELECT CASE WHEN NEW.id < 0 THEN RAISE(FAIL, "it's negative; no") END;
  SELECT CASE NEW.begin WHEN 'x' THEN RAISE(ABORT, 'x;') ELSE 1 END;
END""",
        "DROP TRIGGER guard;",
    ),
    (
        4,
        "commit",
        "COMMIT;\nPRAGMA table_info(parent);\nCREATE VIEW all_parents AS SELECT * FROM parent;\n",
        "DROP VIEW all_parents;",
    ),
    (5, "comments", "-- Nothing; yet.\n/* Nor here. */", "-- Nothing."),
    (6, "index", "PRAGMA user_version;\nCREATE INDEX child_parent ON child (parent)", "DROP INDEX child_parent;"),
]


# ---------------------------------------------------------------- load


@layouts
def test_load_layout_has_the_names_as_ids(tmp_path, layout):
    """A migration's id is its file's or folder's name without suffixes.

    Its paths are where the scripts are.
    """
    folder = in_layout(
        tmp_path / "sql", layout, [(1, "a", "SELECT 1;", "SELECT 2;"), (10, "b", "SELECT 3;", "SELECT 4;")]
    )
    first, second = migrate.load(folder)
    assert [first.id, second.id] == {
        yoyo: ["0001_a", "0010_b"],
        sqlx: ["1_a", "10_b"],
        dbmate: ["0001_a", "0010_b"],
        goose: ["00001_a", "00010_b"],
        sql_migrate: ["00001_a", "00010_b"],
        diesel: ["2025-01-01-120000_a", "2025-01-10-120000_b"],
        flyway: ["V1__a", "V10__b"],
    }[layout]
    files = sorted(path for path in folder.rglob("*.sql"))
    assert sorted({path for one in (first, second) for path in (one.up.path, one.down.path)}) == files
    assert all(migration.reversible and migration.up.transactional for migration in (first, second))


def test_load_sqlx_simple_files_are_irreversible(tmp_path):
    """Migrations of one file, as sqlx has them, cannot be undone, and stand beside those that can."""
    folder = folder_of(
        tmp_path / "sql", {"1_a.sql": "SELECT 1;", "2_b.up.sql": "SELECT 1;", "2_b.down.sql": "SELECT 1;"}
    )
    assert [(migration.id, migration.reversible) for migration in migrate.load(folder)] == [
        ("1_a", False),
        ("2_b", True),
    ]


def statements(text: str) -> list[str]:
    """Return the statements in a text, up to their semicolons and without the comments before them."""
    found = []
    begin = start_of_statement(text)
    while begin < len(text):
        ends = (end for end in range(begin, len(text)) if text[end] == ";" and apsw.complete(text[begin : end + 1]))
        end = next(ends, len(text))
        found.append(text[begin:end].rstrip())
        begin = start_of_statement(text, end)
    return found


_STATEMENTS = st.lists(
    st.sampled_from(
        [
            "SELECT 1;",
            "SELECT ';', '--', '/*';",
            "SELECT 'C:\\';",
            "SELECT '\n-- x\n';",
            'SELECT 1 AS "begin;", 2 AS [end;];',
            "SELECT CASE WHEN 1 THEN 2 END;",
            "-- a; comment\nSELECT 2;",
            "/* another;\n */ SELECT\n3\n;",
            "PRAGMA user_version;",
            "BEGIN;\nCOMMIT;",
        ]
    ),
    max_size=5,
).map("\n".join)


@given(pairs=st.lists(st.tuples(_STATEMENTS, _STATEMENTS), min_size=1, max_size=3), windows=st.booleans())
def test_load_any_layout_has_the_same_statements_in_the_same_order(tmp_path_factory, pairs, windows):
    """What the migrations are does not depend on the layout that they are written in."""
    migrations = [(number, f"m{number}", up, down) for number, (up, down) in enumerate(pairs, 1)]
    expected = [(statements(up), statements(down)) for up, down in pairs]
    for layout in LAYOUTS:
        folder = in_layout(tmp_path_factory.mktemp(layout.__name__), layout, migrations, windows=windows)
        found = migrate.load(folder)
        assert [(statements(one.up.text), statements(one.down.text if one.down else "")) for one in found] == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1"]),
        ("SELECT 1; -- done", ["SELECT 1"]),
        ("SELECT 1 -- done;", ["SELECT 1 -- done;"]),
        ("SELECT '--';\n", ["SELECT '--'"]),
        ("", []),
    ],
)
def test_load_goose_statement_ends_where_its_marker_says(tmp_path, body, expected):
    """A statement between goose's markers needs no semicolon, as it needs none for goose."""
    text = f"-- +goose Up\n-- +goose StatementBegin\n{body}\n-- +goose StatementEnd\nSELECT 2;\n"
    (migration,) = migrate.load(folder_of(tmp_path / "sql", {"1_a.sql": text}))
    assert statements(migration.up.text) == [*expected, "SELECT 2"]


# ---------------------------------------------------------------- run


@layouts
@pytest.mark.parametrize("windows", [False, True], ids=["LF", "BOM and CRLF"])
def test_apply_other_peoples_scripts_run_whole(path, url, tmp_path, layout, windows):
    """Scripts with what a splitter gets wrong do what they say, and a rebuild loses none of the children's rows."""
    folder = in_layout(tmp_path / "sql", layout, SCRIPTS, windows=windows)
    results = migrate.apply(url, folder)
    names = [migration.id for migration in migrate.load(folder)]
    assert ids(results) == names
    assert migrate.status(url, folder).ids("applied") == names
    assert tables(path) == ["child", "parent"]
    assert query(path, "SELECT * FROM child") == [(10, 1), (20, 2)]
    assert query(path, "SELECT begin, end, declare, added FROM parent") == [
        ("a;b", "-- no; comment", "C:\\", "x"),
        ("it's", "/* no; */", "\n;\n", "x"),
    ]
    assert [(kind, name) for kind, name, _, _ in schema(path)] == [
        ("index", "child_parent"),
        ("table", "child"),
        ("table", "parent"),
        ("trigger", "guard"),
        ("view", "all_parents"),
    ]
    # a message in double quotes is a string, as SQLite has it by default
    with pytest.raises(apsw.ConstraintError, match="it's negative; no"):
        query(path, "INSERT INTO parent VALUES (-1, '', '', '', '')")


@layouts
def test_rollback_and_redo_other_peoples_scripts_come_back(path, url, tmp_path, layout):
    """Every script can be undone and done again, and all together leave nothing.

    One that held nothing but comments stood in the way of all before it.
    """
    folder = in_layout(tmp_path / "sql", layout, SCRIPTS)
    migrate.apply(url, folder)
    before = schema(path)
    assert len(migrate.redo(url, folder, steps=6)) == 12
    assert schema(path) == before
    assert len(migrate.rollback(url, folder, steps=None)) == 6
    assert schema(path) == []
    assert migrate.status(url, folder).ids("applied") == []


@layouts
def test_rollback_empty_second_script_is_refused(url, tmp_path, layout):
    """A rollback script of comments, or of a section's markers only, undoes nothing, and does not pass for it."""
    folder = in_layout(tmp_path / "sql", layout, [(1, "a", "CREATE TABLE a (id);", "-- Nothing.")])
    migrate.apply(url, folder)
    with pytest.raises(Irreversible, match="its rollback script holds no statement"):
        migrate.rollback(url, folder)


@pytest.mark.parametrize(
    ("text", "direction", "line"),
    [
        ("-- What for.\n\n-- migrate:up\nSELECT 1;\n\nSELECT nowhere;\n-- migrate:down\n", "apply", 6),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\n\n\nSELECT nowhere;", "rollback", 6),
        ("-- +goose Up\nSELECT 1;\n\nSELECT nowhere;", "apply", 4),
        (
            "-- +goose Up\n-- +goose StatementBegin\nSELECT 1\n-- +goose StatementEnd\n-- +goose Down\nSELECT nowhere;",
            "rollback",
            6,
        ),
    ],
    ids=["dbmate up", "dbmate down", "goose up", "goose down"],
)
def test_run_failure_in_a_section_names_the_line_of_the_file(url, tmp_path, text, direction, line):
    """Where two scripts share a file, a failure is reported at the file and its line."""
    folder = folder_of(tmp_path / "sql", {"1_a.sql": text})
    if direction == "rollback":
        migrate.apply(url, folder)
    with pytest.raises(MigrationFailed) as caught:
        (migrate.apply if direction == "apply" else migrate.rollback)(url, folder)
    assert (caught.value.path, caught.value.line) == (folder / "1_a.sql", line)


# ---------------------------------------------------------------- outside of a transaction


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"1_a.sql": "-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\n"}, (False, True)),
        ({"1_a.sql": "-- x\n\n-- migrate:up\nSELECT 1;\n-- migrate:down transaction:false\nVACUUM;"}, (True, False)),
        ({"1_a.sql": "-- migrate:up a:b transaction:false\n-- migrate:down transaction:true\n"}, (False, True)),
        ({"1_a.sql": "-- migrate:up\n-- transaction:false\n-- migrate:down\n"}, (True, True)),
        ({"1_a.sql": "-- +goose NO TRANSACTION\n-- +goose Up\nVACUUM;\n-- +goose Down\n"}, (False, False)),
        ({"1_a.sql": "-- x\n\n-- +goose Up\nVACUUM;\n-- +goose no transaction\n"}, (False,)),
        ({"1_a.sql": "-- +goose Up\nVACUUM;\n-- +goose Down\n-- +goose NO TRANSACTION\n"}, (False, False)),
        ({"1_a.sql": "-- +migrate Up notransaction\nVACUUM;\n-- +migrate Down\nSELECT 1;"}, (False, True)),
        ({"1_a.sql": "-- x\n-- +migrate Up\nSELECT 1;\n-- +migrate Down notransaction\nVACUUM;"}, (True, False)),
        ({"1_a.up.sql": "-- no-transaction\nVACUUM;", "1_a.down.sql": "SELECT 1;"}, (False, True)),
        ({"1_a.up.sql": "SELECT 1;", "1_a.down.sql": "-- no-transaction\nVACUUM;"}, (True, False)),
        ({"1_a.up.sql": "\n-- no-transaction\nVACUUM;", "1_a.down.sql": ""}, (True, True)),
        (
            {"1_a/up.sql": "VACUUM;", "1_a/down.sql": "", "1_a/metadata.toml": "run_in_transaction = false"},
            (False, False),
        ),
        ({"1_a/up.sql": "SELECT 1;", "1_a/metadata.toml": "run_in_transaction = true\nx = 1"}, (True,)),
        (
            {"V1__a.sql": "VACUUM;", "V1__a.sql.conf": "# x\n\nexecuteInTransaction = false\n", "U1__a.sql": ""},
            (False, False),
        ),
        ({"V1__a.sql": "SELECT 1;", "V1__a.sql.conf": "executeInTransaction=true"}, (True,)),
        ({"1_a.sql": "-- transactional: false\nVACUUM;", "1_a.rollback.sql": ""}, (False, False)),
    ],
)
def test_load_script_outside_of_a_transaction_is_known(tmp_path, files, expected):
    """Each tool's way to run a script outside of a transaction is understood.

    It applies to the scripts that the tool means.
    """
    (migration,) = migrate.load(folder_of(tmp_path / "sql", files))
    assert tuple(script.transactional for script in (migration.up, migration.down) if script) == expected
    # the texts alone say it still, which are all that the ledger has
    again = from_texts(migration.id, migration.up.text, migration.down and migration.down.text)
    assert tuple(script.transactional for script in (again.up, again.down) if script) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"1_a.sql": "-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\n"},
        {"1_a.sql": "-- +goose NO TRANSACTION\n-- +goose Up\nVACUUM;\n"},
        {"1_a/up.sql": "\nVACUUM;", "1_a/metadata.toml": "run_in_transaction = false"},
    ],
    ids=["dbmate", "goose", "diesel"],
)
def test_apply_script_outside_of_a_transaction_runs(url, tmp_path, files):
    """What cannot run in a transaction runs."""
    assert [result.statements for result in migrate.apply(url, folder_of(tmp_path / "sql", files))] == [1]


def test_apply_diesel_metadata_leaves_the_lines_as_they_are(url, tmp_path):
    """What is taken from the file beside the script does not move its lines."""
    files = {"1_a/up.sql": "SELECT 1;\n\nSELECT nowhere;", "1_a/metadata.toml": "run_in_transaction = false"}
    with pytest.raises(MigrationFailed) as caught:
        migrate.apply(url, folder_of(tmp_path / "sql", files))
    assert (caught.value.line, caught.value.statement) == (3, "SELECT nowhere;")


def test_load_directives_of_ours_stand_in_every_layout(tmp_path):
    """`-- allows:` and its like mean in another tool's file what they mean in ours."""
    texts = {
        "dbmate": {"1_a.sql": "-- allows: drop table\n-- migrate:up\n-- migrate:down\n-- allows: data-loss a\n"},
        "goose": {
            "1_a.sql": "-- +goose Up\n-- allows: drop table\nSELECT 1;\n-- +goose Down\n-- allows: data-loss a\n"
        },
        "diesel": {
            "1_a/up.sql": "-- allows: drop table\n",
            "1_a/down.sql": "-- allows: data-loss a\n",
            "1_a/metadata.toml": "run_in_transaction = false",
        },
        "flyway": {"V1__a.sql": "-- allows: drop table\n", "U1__a.sql": "-- allows: data-loss a\n"},
    }
    for name, files in texts.items():
        (migration,) = migrate.load(folder_of(tmp_path / name, files))
        assert (migration.up.allows.any_table, migration.down.allows.loses("a")) == (True, True), name


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    "expected",
    [
        ["V1__a", "V1.2__b", "V1_10__c", "V2__a"],
        ["V0.2__a", "V0.10__b", "V0.10.1__c", "V001__d"],
        ["V20250115__a", "V20250115.1__b"],
        ["00000000000000_a", "20190101000000_b", "2019-01-02-000000_a", "20190103000000_a"],
        ["2019-01-02-000000_z", "2019-01-02-000000-0001_a", "2019-01-02-000001_a"],
        ["2019-01-02_a", "2019-01-02-000001_a"],
    ],
    ids=" < ".join,
)
def test_sort_key_tools_numbers_sort_by_value(expected):
    """Flyway's versions and diesel's dates sort as those tools sort them."""
    assert sorted(set(expected), key=sort_key) == expected


@pytest.mark.parametrize(
    ("id", "tool", "expected"),
    [
        ("0001_a", "sqlx", "1"),
        ("0001_a", "golang-migrate", "1"),
        ("00001_a", "goose", "1"),
        ("0001_a", "dbmate", "0001"),
        ("20250115-a", "dbmate", "20250115"),
        ("2025-01-15-120000_a_b", "diesel", "20250115120000"),
        ("2025-01-15-120000-0000_a", "diesel", "202501151200000000"),
        ("V1__a", "flyway", "1"),
        ("V1_02.0__a", "flyway", "1.2"),
        ("a", "sqlx", None),
        ("a", "dbmate", None),
        ("1__a", "flyway", None),
    ],
)
def test_version_is_what_the_tools_ledger_has(id, tool, expected):
    """A version is what the tool writes into its own ledger, without zeros that mean nothing to it."""
    assert version(id, tool) == expected


# ---------------------------------------------------------------- refusals

UP, DOWN = "-- migrate:up\n", "-- migrate:down\n"
#: What is in the folder, the entry that is refused, its line, and what the message says.
REFUSED = {
    "dbmate, no up": (
        {"1_a.sql": UP + DOWN, "2_b.sql": "SELECT 1;"},
        "2_b.sql",
        None,
        "no line `-- migrate:up`, and 1_a",
    ),
    "dbmate, beside pairs": (
        {"1_a.sql": "SELECT 1;", "1_a.rollback.sql": "SELECT 1;", "2_b.sql": UP + DOWN},
        "1_a.rollback.sql",
        None,
        "2_b.sql is written for dbmate",
    ),
    "dbmate beside goose": ({"1_a.sql": UP + DOWN, "2_b.sql": "-- +goose Up\n"}, "2_b.sql", None, "no line"),
    "dbmate, only down": ({"1_a.sql": DOWN}, "1_a.sql", 1, "migrate:down` stands where `-- migrate:up` should"),
    "dbmate, no down": ({"1_a.sql": UP + "SELECT 1;"}, "1_a.sql", None, "no line begins with `-- migrate:down`"),
    "dbmate, twice up": ({"1_a.sql": UP + UP + DOWN}, "1_a.sql", 2, "stands where `-- migrate:down` should"),
    "dbmate, again": ({"1_a.sql": UP + DOWN + UP + DOWN}, "1_a.sql", 3, "twice; make that a migration of its own"),
    "dbmate, in a string": ({"1_a.sql": f"{UP}SELECT '\n{DOWN}';\n{DOWN}"}, "1_a.sql", 5, "stands here twice"),
    "dbmate, before": ({"1_a.sql": f"-- x\nSELECT 1;\n{UP}{DOWN}"}, "1_a.sql", 2, "may stand before `-- migrate:up`"),
    "dbmate, indented": ({"1_a.sql": UP + "  " + DOWN}, "1_a.sql", None, "no line begins with `-- migrate:down`"),
    "dbmate, collision": ({"1_a.sql": UP + DOWN, "1_b.sql": UP + DOWN}, "1_b.sql", None, "version 1, as 1_a.sql has"),
    "dbmate, no number": ({"a.sql": UP + DOWN}, "a.sql", None, "the name must begin with a number"),
    "goose, no up": ({"1_a.sql": "-- +goose Down\n"}, "1_a.sql", 1, "`-- +goose Down` stands in the wrong place"),
    "goose, twice up": ({"1_a.sql": "-- +goose Up\n-- +goose up\n"}, "1_a.sql", 2, "stands in the wrong place"),
    "goose, only settings": ({"1_a.sql": "-- +goose NO TRANSACTION\n"}, "1_a.sql", None, "no line says `-- +goose Up`"),
    "goose, open": ({"1_a.sql": "-- +goose Up\n-- +goose StatementBegin\n"}, "1_a.sql", 2, "without `-- +goose Stat"),
    "goose, end only": ({"1_a.sql": "-- +goose Up\n-- +goose StatementEnd\n"}, "1_a.sql", 2, "in the wrong place"),
    "goose, misspelt": ({"1_a.sql": "-- +goose Up\n-- +goose Dwon\n"}, "1_a.sql", 2, "is no annotation of goose's"),
    "goose, indented": ({"1_a.sql": "-- +goose Up\n -- +goose Down\n"}, "1_a.sql", 2, "is no annotation of goose's"),
    "goose, environment": ({"1_a.sql": "-- +goose Up\n-- +goose ENVSUB ON\n"}, "1_a.sql", 2, "environment variables"),
    "goose, before": ({"1_a.sql": "SELECT 1;\n-- +goose Up\n"}, "1_a.sql", 1, "may stand before `-- +goose Up`"),
    "goose, Go": ({"1_a.sql": "-- +goose Up\n", "2_b.go": ""}, "2_b.go", None, "Go migrations are not run here"),
    "goose, collision": ({"1_a.sql": "-- +goose Up", "01_b.sql": "-- +goose Up"}, "1_a.sql", None, "as 01_b.sql has"),
    "sql-migrate, goose's word": (
        {"a.sql": "-- +migrate Up\n-- +migrate NO TRANSACTION\n"},
        "a.sql",
        2,
        "sql-migrate's",
    ),
    "goose, sql-migrate's word": ({"1_a.sql": "-- +goose Up notransaction\n"}, "1_a.sql", 1, "annotation of goose's"),
    "sql-migrate, again": ({"a.sql": "-- +migrate Up\n-- +migrate Up\n"}, "a.sql", 2, "in the wrong place"),
    "sql-migrate, no up": ({"a.sql": "-- +migrate StatementEnd\n"}, "a.sql", 1, "in the wrong place"),
    "one of goose's among pairs": (
        {"1_a.sql": "", "2_b.sql": "", "2_b.rollback.sql": "", "3_c.sql": "-- +goose Up\n"},
        "3_c.sql",
        None,
        "written for goose, unlike most here",
    ),
    "one of dbmate's among Flyway's": (
        {"V1__a.sql": "", "V2__b.sql": "", "V3__c.sql": UP + DOWN},
        "V3__c.sql",
        None,
        "written for dbmate, unlike most here",
    ),
    "one of Flyway's among others": (
        {"1_a.sql": "", "2_b.sql": "", "V3__c.sql": ""},
        "V3__c.sql",
        None,
        "named like Flyway's, unlike most here",
    ),
    "one of diesel's among files": (
        {"1_a.sql": "", "2_b.sql": "", "c/up.sql": ""},
        "c",
        None,
        "a folder like diesel's, unlike most here",
    ),
    "diesel beside files": ({"1_a/up.sql": "", "2_b.sql": ""}, "2_b.sql", None, "beside folders of diesel's"),
    "diesel, no up": ({"1_a/up.sql": "", "2_b/down.sql": ""}, "2_b", None, "without up.sql"),
    "diesel, other folder": ({"1_a/up.sql": "", "docs/x.md": ""}, "docs", None, "without up.sql"),
    "diesel, upper case": ({"1_a/up.sql": "", "1_a/Down.sql": ""}, "1_a/Down.sql", None, "rename it to down.sql"),
    "diesel, collision": ({"1_a/up.sql": "", "1_b/up.sql": ""}, "1_b/up.sql", None, "as 1_a has"),
    "diesel, not TOML": ({"1_a/up.sql": "", "1_a/metadata.toml": "="}, "1_a/metadata.toml", None, "not TOML"),
    "diesel, no setting": (
        {"1_a/up.sql": "", "1_a/metadata.toml": ""},
        "1_a/metadata.toml",
        None,
        "must say `run_in_tr",
    ),
    "Flyway, repeatable": ({"V1__a.sql": "", "R__v.sql": ""}, "R__v.sql", None, "make it a versioned one"),
    "Flyway, baseline": ({"V1__a.sql": "", "B1__v.sql": ""}, "B1__v.sql", None, "baseline scripts are not run here"),
    "Flyway, callback": ({"V1__a.sql": "", "afterMigrate.sql": ""}, "afterMigrate.sql", None, "callbacks are not run"),
    "Flyway, named callback": ({"V1__a.sql": "", "beforeEach__x.sql": ""}, "beforeEach__x.sql", None, "callbacks"),
    "Flyway, other": ({"V1__a.sql": "", "2_b.sql": ""}, "2_b.sql", None, "not a name of Flyway's"),
    "Flyway, orphan undo": (
        {"V1__a.sql": "", "U2__a.sql": ""},
        "U2__a.sql",
        None,
        "an undo script without its migration",
    ),
    "Flyway, collision": ({"V1__a.sql": "", "V1.0__b.sql": ""}, "V1__a.sql", None, "version 1, as V1.0__b.sql has"),
    "Flyway, two undo": ({"V1__a.sql": "", "U1__a.sql": "", "U01__b.sql": ""}, "U1__a.sql", None, "as U01__b.sql has"),
    "Flyway, deeper": ({"V1__a.sql": "", "more/V2__b.sql": ""}, "more/V2__b.sql", None, "move it up"),
    "Flyway, placeholder": ({"V1__a.sql": "--\nSELECT '${x}';"}, "V1__a.sql", 2, "${x} is a placeholder"),
    "Flyway, setting": ({"V1__a.sql": "", "V1__a.sql.conf": "x=1"}, "V1__a.sql.conf", None, "`x=1` means nothing here"),
}


@pytest.mark.parametrize(("files", "name", "line", "message"), REFUSED.values(), ids=REFUSED)
def test_load_malformed_layout_is_refused(tmp_path, files, name, line, message):
    """What a tool would not take, or would pass over, is refused with its path, its line and what to do."""
    folder = folder_of(tmp_path / "sql", files)
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder)
    assert (caught.value.path, caught.value.line) == (folder / name, line)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(folder / name) + ("" if line is None else f":{line}") + ": ")


def test_load_flyway_placeholders_turned_off_are_text(tmp_path):
    """Where Flyway is told to replace nothing, what looks like a placeholder is none."""
    files = {"V1__a.sql": "SELECT '${x}';", "V1__a.sql.conf": "placeholderReplacement=false"}
    (migration,) = migrate.load(folder_of(tmp_path / "sql", files))
    assert migration.up.text == "SELECT '${x}';"


# ---------------------------------------------------------------- new


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["000001_a.up.sql", "000001_a.down.sql"], ["000002_add_x.up.sql", "000002_add_x.down.sql"]),
        (["20250101000000_a.up.sql"], ["20250115120000_add_x.up.sql", "20250115120000_add_x.down.sql"]),
        (["1_2fa.up.sql", "09_z.up.sql"], ["10_add_x.up.sql", "10_add_x.down.sql"]),
        (["V1__a.sql"], ["V2__add_x.sql"]),
        (["V1_9__a.sql", "U1_9__a.sql"], ["V1_10__add_x.sql", "U1_10__add_x.sql"]),
        (["V009__a.sql", "V002__b.sql"], ["V010__add_x.sql"]),
        (["V20250115120000__a.sql"], ["V20250115120001__add_x.sql"]),
        (["2025-01-15-120000_a/up.sql"], ["2025-01-15-120001_add_x/up.sql", "2025-01-15-120001_add_x/down.sql"]),
        (["20250101000000_a/up.sql"], ["20250115120000_add_x/up.sql", "20250115120000_add_x/down.sql"]),
        (["0007_a/up.sql"], ["0008_add_x/up.sql", "0008_add_x/down.sql"]),
    ],
    ids=str,
)
def test_new_among_another_tools_files_follows_them(tmp_path, there, expected):
    """A new migration has the names and the numbering of those beside it, and comes after them."""
    folder = folder_of(tmp_path / "sql", dict.fromkeys(there, "SELECT 1;"))
    assert migrate.new("Add x", folder, now=NOON) == tuple(folder / name for name in expected)
    last = migrate.load(folder)[-1]
    assert last.path == folder / expected[0]
    assert not has_statement(last.up.text)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"20250101000000_a.sql": UP + DOWN}, "20250115120000_add_x.sql"),
        ({"20250101000000_a.sql": "-- +goose Up\n"}, "20250115120000_add_x.sql"),
        ({"00001_a.sql": "-- +goose Up\n"}, "00002_add_x.sql"),
        ({"1_a.sql": "-- +migrate Up\n"}, "2_add_x.sql"),
    ],
    ids=["dbmate", "goose", "goose, in sequence", "sql-migrate"],
)
def test_new_among_files_of_two_sections_is_one_with_both(tmp_path, there, expected):
    """Where one file holds both scripts, a new one has both sections."""
    folder = folder_of(tmp_path / "sql", there)
    assert migrate.new("Add x", folder, now=NOON) == (folder / expected,)
    last = migrate.load(folder)[-1]
    assert (last.up.path, last.down.path) == (folder / expected, folder / expected)


#: By layout: what each migration is written as, and its number.
MANY: dict[Layout, str] = {
    sqlx: "0004_add_x.up.sql",
    dbmate: "0004_add_x.sql",
    goose: "00004_add_x.sql",
    sql_migrate: "00004_add_x.sql",
    diesel: "2025-01-15-120000_add_x/up.sql",
    flyway: "V4__add_x.sql",
    yoyo: "20250115120000_add_x.sql",
}


@layouts
@pytest.mark.parametrize("odd", ["seed.sql", "9_odd.sql", "9_odd.up.sql"])
def test_new_beside_one_odd_name_stays_in_the_layout_of_the_others(tmp_path, layout, odd):
    """One plain `.sql` among `.up.sql` was enough for a new pair in another layout, with another kind of number."""
    folder = in_layout(tmp_path / "sql", layout, [(number, "a", "SELECT 1;", "SELECT 2;") for number in (1, 2, 3)])
    write(folder, {odd: "SELECT 1;"})
    first, *_ = migrate.new("Add x", folder, now=NOON)
    expected = MANY[layout].replace("0004", "10" if odd[0] == "9" else "4") if layout is sqlx else MANY[layout]
    assert first == folder / expected
    if layout in (yoyo, sqlx):
        assert migrate.load(folder)[-1].path == first
        return
    # the others cannot stand beside it, and it is the one that is named
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder)
    assert caught.value.path == folder / odd
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- programs beside the scripts


@layouts
def test_load_helper_beside_scripts_is_passed_over_in_every_layout(tmp_path, layout):
    """A helper in Python beside goose's files was refused as a migration; pytest's and a package's own files, too."""
    folder = in_layout(tmp_path / "sql", layout, SCRIPTS[:2])
    expected = ids(migrate.load(folder))
    write(folder, {"seed.py": "import sqlite3\n\n\ndef run(steps):\n    for step in steps:\n        step()\n"})
    write(folder, {"__init__.py": "", "conftest.py": "import pytest\n", "embed.go": "package migrations\n"})
    assert ids(migrate.load(folder)) == expected


@pytest.mark.parametrize("layout", [yoyo, sqlx, dbmate, goose, flyway], ids=lambda layout: layout.__name__)
def test_load_migration_in_python_is_refused_in_every_layout(tmp_path, layout):
    """To pass over a migration would be worse than to refuse a helper: yoyo's own are known by what is in them."""
    folder = in_layout(tmp_path / "sql", layout, SCRIPTS[:2])
    write(folder, {"add-x.py": 'from yoyo import step\n\n__depends__ = {"a"}\nstep("SELECT 1", "SELECT 2")\n'})
    with pytest.raises(MigrationFileError, match="Python migrations are not run here; write it in SQL") as caught:
        migrate.load(folder)
    assert caught.value.path == folder / "add-x.py"
