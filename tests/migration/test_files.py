"""The loader: which folders it reads and in which order, and with which words it refuses the others."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yoyo.migrations import parse_metadata_from_sql_comments

from dao import migrate
from dao.errors import MigrationError, MigrationFileError
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.statements import has_statement, start_of_statement
from tests.folders import write

A_TABLE = "CREATE TABLE a (id);"
NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


def ids(folder: Path) -> list[str]:
    return [migration.id for migration in migrate.load(folder)]


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1_a.sql", "1_a.rollback.sql"], {"1_a": "1_a.rollback.sql"}),
        (["1_a.up.sql", "1_a.down.sql"], {"1_a": "1_a.down.sql"}),
        (["1_a.up.sql", "1_a.rollback.sql"], {"1_a": "1_a.rollback.sql"}),
        (["1_a.sql", "1_a.down.sql"], {"1_a": "1_a.down.sql"}),
        (["1_a.sql"], {"1_a": None}),
        (["1_a.sql", "1_a.down.sql", "2_b.up.sql", "3_c.sql"], {"1_a": "1_a.down.sql", "2_b": None, "3_c": None}),
        (["V1.0.1__a b.sql", "V1.0.1__a b.rollback.sql"], {"V1.0.1__a b": "V1.0.1__a b.rollback.sql"}),
        (["1_größe.sql"], {"1_größe": None}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_load_accepted_layout_pairs_scripts_by_id(tmp_path, names, expected):
    """Both conventions for the names of a pair are read, and may stand side by side."""
    folder = write(tmp_path / "sql", dict.fromkeys(names, A_TABLE))
    found = migrate.load(folder)
    assert {migration.id: migration.down and migration.down.path for migration in found} == {
        id: name and folder / name for id, name in expected.items()
    }
    assert {migration.path.name for migration in found} <= set(names)


def test_load_migration_holds_both_texts_and_paths(tmp_path):
    """A migration carries what both of its files say."""
    folder = write(tmp_path / "sql", {"1_a.sql": A_TABLE, "1_a.rollback.sql": "DROP TABLE a;"})
    assert [*migrate.load(folder)] == [
        migrate.Migration(
            id="1_a",
            up=migrate.Script(path=folder / "1_a.sql", text=A_TABLE),
            down=migrate.Script(path=folder / "1_a.rollback.sql", text="DROP TABLE a;"),
            set="sql",
        )
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(".hidden.sql", ".0002_b.sql", ".gitkeep", "README.md", "1_a.sql.orig", "__init__.py", "conftest.py"),
        *("generate.py", "embed.go", "0002_b_test.go", "_tmp_yoyonew1.sql", "_tmp_yoyonew1.py"),
    ],
)
def test_load_other_files_are_passed_over(tmp_path, name):
    """Hidden files and files that are no migrations do not matter; a helper in Python was refused as a migration."""
    folder = write(tmp_path / "sql", {"1_a.sql": A_TABLE, name: b"\xff"})
    assert ids(folder) == ["1_a"]


def test_load_pipe_named_as_a_program_is_passed_over(tmp_path):
    """To look into it would wait for ever."""
    assert ids(write(tmp_path / "sql", {"1_a.sql": A_TABLE, "helper.py": os.mkfifo})) == ["1_a"]


@pytest.mark.parametrize("name", ["docs", "__pycache__", ".1_a.sql"])
def test_load_other_folders_are_passed_over(tmp_path, name):
    """A folder that does not look like a migration does not matter."""
    assert ids(write(tmp_path / "sql", {"1_a.sql": A_TABLE, name: Path.mkdir})) == ["1_a"]


def test_load_link_to_file_is_read(tmp_path):
    """A link that leads to a file is a migration like another."""
    write(tmp_path / "shared", {"x.sql": A_TABLE})
    folder = write(tmp_path / "sql", {"1_a.sql": lambda path: path.symlink_to("../shared/x.sql")})
    assert [(migration.id, migration.up.text) for migration in migrate.load(folder)] == [("1_a", A_TABLE)]


def test_load_without_folder_reads_the_packages_own():
    """Without an argument the migrations of this package are read."""
    assert migrate.load() == migrate.load(migrate.default_folder())
    assert len(migrate.load()) >= 7


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    "expected",
    [
        ["1_a", "2_b", "10_c"],
        ["0001_a", "2_b", "010_c", "20250115010000_d"],
        ["0.2", "0.10", "0.10.1", "1"],
        ["1.2_a", "1.10_b", "2_a"],
        ["1_a", "1_b"],
        ["01_b", "1_a"],
        ["9_z", "add_x", "add_y"],
        ["20241231235959_z", "20250115010000_a"],
        ["99999999999999999999999_a", "100000000000000000000000_a"],
    ],
    ids=" < ".join,
)
def test_load_leading_numbers_sort_as_numbers(tmp_path, expected):
    """Ids sort by their leading numbers, of any width and with any number of parts, then by their text."""
    assert ids(write(tmp_path / "sql", {f"{id}.sql": A_TABLE for id in expected})) == expected


@given(st.lists(st.tuples(st.integers(0, 10**20), st.integers(0, 6)), unique_by=lambda pair: pair[0]))
def test_sort_key_padded_numbers_sort_by_value(numbers):
    """Leading zeros do not change where a number sorts."""
    by_key = sorted((f"{'0' * zeros}{number}_x" for number, zeros in numbers), key=sort_key)
    assert [int(id.removesuffix("_x")) for id in by_key] == sorted(number for number, _ in numbers)


@pytest.mark.parametrize(
    ("depends", "expected"),
    [
        ({}, ["1_a", "2_b", "3_c", "4_d"]),
        ({"4_d": "1_a"}, ["1_a", "2_b", "3_c", "4_d"]),
        ({"1_a": "3_c"}, ["2_b", "3_c", "1_a", "4_d"]),
        ({"1_a": "4_d 3_c", "3_c": "4_d"}, ["2_b", "4_d", "3_c", "1_a"]),
        ({"1_a": "2_b", "2_b": "3_c", "3_c": "4_d"}, ["4_d", "3_c", "2_b", "1_a"]),
    ],
    ids=str,
)
def test_load_depends_moves_a_migration_behind_what_it_needs(tmp_path, depends, expected):
    """A migration comes after those that it depends on, and otherwise in the order of the ids."""
    scripts = {
        f"{id}.sql": (f"-- depends: {depends[id]}\n" if id in depends else "") + A_TABLE
        for id in ("1_a", "2_b", "3_c", "4_d")
    }
    assert ids(write(tmp_path / "sql", scripts)) == expected


# ---------------------------------------------------------------- directives


@pytest.mark.parametrize(
    ("header", "depends", "transactional"),
    [
        ("", (), True),
        ("-- depends: 1_a\n", ("1_a",), True),
        ("--depends:1_a\n", ("1_a",), True),
        ("  --  depends  :  1_a   2_b  \n", ("1_a", "2_b"), True),
        ("-- What for.\n\n-- depends: 1_a\n-- depends: 2_b 1_a\n", ("1_a", "2_b"), True),
        ("-- depends:\n", (), True),
        ("-- transactional: false\n", (), False),
        ("-- transactional: False\n", (), False),
        ("-- transactional: TRUE\n", (), True),
        ("\n-- transactional: false\n-- depends: 1_a\n", ("1_a",), False),
        ("-- this depends: on nothing\n", (), True),
        ("-- see transactional: false\n", (), True),
        ("SELECT 1;\n-- depends: nothing\n-- transactional: false\n", (), True),
        ("/* What for. */\n-- transactional: false\n", (), True),
    ],
    ids=repr,
)
def test_load_directives_are_those_that_yoyo_reads(tmp_path, header, depends, transactional):
    """The leading comment's directives are honoured, and mean what they mean to yoyo."""
    script = header + A_TABLE
    folder = write(tmp_path / "sql", {"1_a.sql": A_TABLE, "2_b.sql": A_TABLE, "3_c.sql": script})
    migration = migrate.load(folder)[-1]
    assert (migration.depends, migration.up.transactional) == (depends, transactional)
    theirs, _, _ = parse_metadata_from_sql_comments(script)
    assert set(theirs.get("depends", "").split()) == set(depends)
    assert (theirs.get("transactional", "true").strip().lower() == "true") == transactional


# ---------------------------------------------------------------- texts

TEXT = "-- é\nCREATE TABLE a (\n  id\n);\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
    ],
    ids=["LF", "BOM", "CRLF", "CR", "BOM and CRLF"],
)
def test_load_byte_order_mark_and_line_ends_leave_text_and_checksum(tmp_path, content):
    """How an editor saves a file does not change the script, and so not its checksum."""
    (migration,) = migrate.load(write(tmp_path / "sql", {"1_a.sql": content, "1_a.rollback.sql": content}))
    assert migration.up.text == migration.down.text == TEXT
    assert migration.up.checksum == hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.mark.parametrize(
    ("rollback", "reversible"),
    [
        ("DROP TABLE a;", True),
        ("DROP TABLE a", True),
        ("-- Drops a.\nDROP TABLE a;", True),
        ("/* Drops a. */ DROP TABLE a; /* Done. */", True),
        ("/* one */ /* two */\n;; DROP TABLE a;", True),
        ("-- /*\nDROP TABLE a; -- */", True),
        ("", False),
        ("\n \t;\n", False),
        ("-- Nothing to undo.", False),
        ("/* Nothing\nto undo; */ ; -- DROP TABLE a;\n", False),
        (None, False),
    ],
)
def test_reversible_rollback_without_statement_is_not(tmp_path, rollback, reversible):
    """A migration whose rollback is missing or holds only comments cannot be undone, unless it did nothing itself."""
    scripts = {"1_a.sql": A_TABLE} | ({} if rollback is None else {"1_a.rollback.sql": rollback})
    (migration,) = migrate.load(write(tmp_path / "sql", scripts))
    assert migration.reversible is reversible
    (migration,) = migrate.load(write(tmp_path / "sql", {"1_a.sql": "-- Nothing yet.\n;"}))
    assert migration.reversible


def runs_something(text: str) -> bool:
    """Return whether SQLite itself finds something to run in a text, be it only a syntax error."""
    asked = []
    connection = apsw.Connection(":memory:")
    try:
        connection.authorizer = lambda *action: asked.append(action) or apsw.SQLITE_OK
        for _ in connection.execute(text):
            pass
    except apsw.Error:
        return True
    finally:
        connection.close()
    return bool(asked)


_TOKENS = st.sampled_from(
    [*"/*-;'x \t\n\f\v\r\ufeff\xa0\u2003\x1cé", "--", "/*", "*/", "/**/", "/* a; */", "-- \n;", "SELECT 1"]
)


@given(st.lists(_TOKENS, max_size=8).map("".join))
@example("/* a */ SELECT 1; /* b */")
@example("/*")
@example("/*/")
@example(" \v")
@example("\v")
def test_has_statement_any_text_agrees_with_sqlite(text):
    """A script has a statement exactly when SQLite finds one."""
    assert has_statement(text) == runs_something(text)


@given(st.lists(_TOKENS, max_size=8).map("".join).filter(lambda text: not has_statement(text + "\n")))
def test_start_of_statement_after_blanks_and_comments_is_the_statement(text):
    """What stands before a statement is skipped, and no more."""
    if has_statement(text + "\nSELECT 1"):  # else a comment is open still
        assert start_of_statement("SELECT 0;" + text + "\nSELECT 1", 8) == len("SELECT 0;" + text + "\n")


def test_has_statement_many_comments_ends():
    """A long run of comments takes no longer than reading it once."""
    assert has_statement("/**/" * 20_000 + "x")


# ---------------------------------------------------------------- refusals


def link(to: str):
    return lambda path: path.symlink_to(to)


GOOD = {"0001_a.sql": A_TABLE, "0001_a.rollback.sql": "DROP TABLE a;"}
#: What is in the folder, the entry that is refused ("" for the folder), its line, and what the message says.
REFUSED = {
    "empty folder": ({}, "", None, "holds no migration"),
    "hidden files only": ({".0001_a.sql": A_TABLE}, "", None, "holds no migration"),
    "other files only": ({"README.md": ""}, "", None, "holds no migration"),
    "orphan rollback": (GOOD | {"2_b.rollback.sql": A_TABLE}, "2_b.rollback.sql", None, "without its migration"),
    "orphan down": (GOOD | {"2_b.down.sql": A_TABLE}, "2_b.down.sql", None, "without its migration; add 2_b.sql"),
    "rollbacks only": ({"2_b.down.sql": A_TABLE}, "2_b.down.sql", None, "without its migration"),
    "duplicate id": (GOOD | {"0001_a.up.sql": A_TABLE}, "0001_a.up.sql", None, "already, 0001_a.sql"),
    "duplicate rollback": (
        GOOD | {"0001_a.down.sql": A_TABLE},
        "0001_a.rollback.sql",
        None,
        "already, 0001_a.down.sql",
    ),
    "dangling link": (GOOD | {"2_b.sql": link("gone.sql")}, "2_b.sql", None, "a dangling link to gone.sql"),
    "link to itself": (GOOD | {"2_b.sql": link("2_b.sql")}, "2_b.sql", None, "a dangling link to 2_b.sql"),
    "folder with suffix": (GOOD | {"b.sql": Path.mkdir}, "b.sql", None, "a folder where a migration file should be"),
    "folder with number": (GOOD | {"0002_b": Path.mkdir}, "0002_b", None, "a folder where a migration file should be"),
    "upper-case suffix": (GOOD | {"2_b.SQL": A_TABLE}, "2_b.SQL", None, "lower case"),
    "mixed-case suffix": (GOOD | {"2_b.rollback.Sql": ""}, "2_b.rollback.Sql", None, "rename it to 2_b.rollback.sql"),
    "Python": (GOOD | {"0002_b.py": ""}, "0002_b.py", None, "Python migrations are not run here; write it in SQL"),
    "Python of yoyo's": (
        GOOD | {"add-b.py": 'from yoyo import step\n\nsteps = [\n    step("SELECT 1")\n]\n'},
        "add-b.py",
        None,
        "Python migrations are not run here",
    ),
    "Python of an old yoyo's": (GOOD | {"b.py": "step('SELECT 1')"}, "b.py", None, "Python migrations are not run"),
    "Python of yoyo's, with dependencies only": (
        GOOD | {"_b.py": "__depends__ = {'0001_a'}"},
        "_b.py",
        None,
        "Python migrations are not run here",
    ),
    "Python of alembic's": (
        GOOD | {"b.py": "down_revision = None\n\n\ndef upgrade() -> None:\n    op.execute('SELECT 1')\n"},
        "b.py",
        None,
        "Python migrations are not run here",
    ),
    "Python of Flyway's": (GOOD | {"V2__b.py": ""}, "V2__b.py", None, "Python migrations are not run here"),
    "Go": (GOOD | {"0002_b.go": ""}, "0002_b.go", None, "Go migrations are not run here; write it in SQL"),
    "hook": (GOOD | {"post-apply.sql": A_TABLE}, "post-apply.sql", None, "post-apply hooks are not run here"),
    "pipe": (GOOD | {"2_b.sql": os.mkfifo}, "2_b.sql", None, "not a regular file"),
    "Latin-1": (GOOD | {"2_b.sql": "--\n-- é".encode("latin-1")}, "2_b.sql", 2, "not UTF-8"),
    "Latin-1 rollback": (GOOD | {"0001_a.rollback.sql": b"\n\n\xe9"}, "0001_a.rollback.sql", 3, "not UTF-8"),
    "UTF-16": (GOOD | {"2_b.sql": A_TABLE.encode("utf-16")}, "2_b.sql", 1, "not UTF-8"),
    "NUL": (GOOD | {"2_b.sql": "--\r\n\r\n\0SELECT 1;"}, "2_b.sql", 3, "a NUL character"),
    "directive's value": (
        GOOD | {"2_b.sql": "-- What for.\n-- transactional: no\n"},
        "2_b.sql",
        2,
        "`-- transactional: no` must be true or false",
    ),
    "directive twice": (
        GOOD | {"2_b.sql": "-- transactional: true\n\n-- transactional: true\n"},
        "2_b.sql",
        3,
        "`-- transactional:` stands here twice",
    ),
    "directive in a rollback": (
        GOOD | {"0001_a.rollback.sql": "-- What it loses.\n-- transactional: false\nDROP TABLE a;"},
        "0001_a.rollback.sql",
        2,
        "`-- transactional:` has no effect in a rollback script; write it into 0001_a.sql",
    ),
    "unknown dependency": (
        GOOD | {"2_b.sql": "-- depends: 0001_a 0001_b\n"},
        "2_b.sql",
        None,
        "depends on '0001_b', which is not in this folder",
    ),
    "dependency on itself": (GOOD | {"2_b.sql": "-- depends: 2_b"}, "2_b.sql", None, "in a circle: 2_b -> 2_b"),
    "cycle": (
        {"1.sql": "-- depends: 3", "2.sql": "-- depends: 1", "3.sql": "-- depends: 2", "4.sql": "-- depends: 3"},
        "1.sql",
        None,
        "in a circle: 1 -> 3 -> 2 -> 1",
    ),
}


@pytest.mark.parametrize(("entries", "name", "line", "message"), REFUSED.values(), ids=REFUSED)
def test_load_malformed_folder_is_refused(tmp_path, entries, name, line, message):
    """Whatever is not as it should be is refused by name, line and reason; nothing is passed over in silence."""
    path = write(tmp_path / "sql", entries) / name
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(tmp_path / "sql")
    assert (caught.value.path, caught.value.line) == (path, line)
    where = f"{path}: " if line is None else f"{path}:{line}: "
    assert str(caught.value).startswith(where)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone", lambda _path: None, "the migrations folder does not exist"),
        ("a.sql", Path.touch, "not a folder"),
        ("x" * 300, lambda _path: None, "cannot be read: File name too long"),
    ],
    ids=["missing", "file", "unreadable"],
)
def test_load_what_is_no_folder_is_refused(tmp_path, name, make, message):
    """A folder that is not there is an error, not an empty one."""
    make(tmp_path / name)
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(tmp_path / name)
    assert caught.value.path == tmp_path / name
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse the name themselves")
def test_load_name_that_is_not_utf_8_is_refused(tmp_path):
    """A file whose name cannot be an id is refused with its bytes."""
    folder = write(tmp_path / "sql", GOOD)
    (folder / os.fsdecode(b"2_\xe9.sql")).write_text(A_TABLE)
    with pytest.raises(MigrationFileError, match=r"2_\\xe9\.sql': the file name is not UTF-8"):
        migrate.load(folder)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read, whoever reads it")
def test_load_unreadable_file_is_refused(tmp_path):
    """A file that cannot be read is an error with the system's reason."""
    folder = write(tmp_path / "sql", {"1_a.sql": link("/proc/self/mem")})
    with pytest.raises(MigrationFileError, match=r"1_a\.sql: cannot be read: Input/output error"):
        migrate.load(folder)


# ---------------------------------------------------------------- new


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("create_tasks", "create_tasks"),
        ("Create tasks", "create_tasks"),
        ("  Add--index, on status! ", "add_index_on_status"),
        ("2fa", "2fa"),
        ("größe", "gr_e"),
        ("../evil", "evil"),
        ("x.sql", "x_sql"),
    ],
)
def test_new_name_becomes_snake_case_after_the_time(tmp_path, name, slug):
    """A new pair is named by the time in UTC and the name in snake case."""
    folder = write(tmp_path / "sql", {})
    script, rollback = migrate.new(name, folder, now=NOON)
    assert script == folder / f"20250115120000_{slug}.sql"
    assert rollback == folder / f"20250115120000_{slug}.rollback.sql"
    assert sorted(folder.iterdir()) == sorted([script, rollback])


def test_new_pair_loads_and_does_nothing_until_it_is_written(tmp_path):
    """A new pair is a migration that does nothing, so that there is nothing to undo."""
    migrate.new("a", write(tmp_path / "sql", {}), now=NOON)
    (migration,) = migrate.load(tmp_path / "sql")
    assert not has_statement(migration.up.text)
    assert migration.down is not None
    assert not has_statement(migration.down.text)
    assert migration.reversible


@pytest.mark.parametrize(
    "there",
    [
        {"init.sql": A_TABLE},
        {"init.sql": A_TABLE, "init.rollback.sql": A_TABLE, "0001_a.sql": A_TABLE, "users.sql": "-- depends: init"},
        {"b.sql": A_TABLE, "a.sql": "-- depends: b"},
        {"init.up.sql": A_TABLE, "init.down.sql": A_TABLE},
        {"init.up.sql": A_TABLE, "0001_a.up.sql": A_TABLE},
        {"00000000000000_a.sql": A_TABLE, "größe.sql": A_TABLE},
    ],
    ids=", ".join,
)
def test_new_among_ids_without_a_number_comes_last(tmp_path, there):
    """Ids without a number come after all others, so that each new migration came before them, and was refused."""
    folder = write(tmp_path / "sql", there)
    for number in range(3):
        script, *_ = migrate.new(f"new {number}", folder, now=NOON)
        assert migrate.load(folder)[-1].path == script


def test_new_after_an_id_that_cannot_be_named_is_refused(tmp_path):
    """With a blank in it, `-- depends:` would mean two ids."""
    folder = write(tmp_path / "sql", {"create users.sql": A_TABLE})
    with pytest.raises(
        MigrationError, match=r"create users does not begin with a number.*Rename it; `dao accept` notes"
    ):
        migrate.new("a", folder, now=NOON)
    assert [path.name for path in folder.iterdir()] == ["create users.sql"]


def test_new_time_elsewhere_is_written_in_utc(tmp_path):
    """The time zone of whoever makes a migration does not show in its id."""
    tokyo = timezone(timedelta(hours=9))
    script, _ = migrate.new("a", write(tmp_path / "sql", {}), now=NOON.astimezone(tokyo))
    assert script.name == "20250115120000_a.sql"


def test_new_without_time_takes_the_clocks(tmp_path):
    """Without `now` the id is the present."""
    before = datetime.now(UTC).replace(microsecond=0)
    script, _ = migrate.new("a", write(tmp_path / "sql", {}))
    moment = datetime.strptime(script.name[:14] + "Z", "%Y%m%d%H%M%S%z")
    assert before <= moment <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "20250115120000_z"),
        (["20250115115959_a.sql"], "20250115120000_z"),
        (["20250115120000_z.sql"], "20250115120001_z"),
        (["20250115120000_z.rollback.sql", "20250115120000_z.sql"], "20250115120001_z"),
        (["20250115125959_a.sql", "20250115110000_b.sql"], "20250115130000_z"),
        (["20991231235959_a.sql"], "21000101000000_z"),
        (["99999999999999_a.sql", "0001_a.sql", "20300101000000_a.md"], "100000000000000_z"),
        (["99991231235959_a.sql"], "99991231235960_z"),
        (["20250115120000123_a.sql"], "20250115120000124_z"),
        (["20250115120000.7_a.sql"], "20250115120001_z"),
    ],
    ids=str,
)
def test_new_clock_behind_the_latest_id_sorts_after_it(tmp_path, there, expected):
    """A new migration sorts after those that are there, even if the clock says otherwise, and overwrites none.

    A longer number, such as a time in milliseconds, came after it; after the last second of all there was a traceback.
    """
    folder = write(tmp_path / "sql", dict.fromkeys(there, "kept"))
    script, rollback = migrate.new("z", folder, now=NOON)
    assert (script.name, rollback.name) == (f"{expected}.sql", f"{expected}.rollback.sql")
    assert all((folder / name).read_text() == "kept" for name in there)


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("", "sql", "needs a letter or a digit"),
        ("!?_-", "sql", "needs a letter or a digit"),
        ("ä", "sql", "needs a letter or a digit"),
        ("a", "gone", "the migrations folder does not exist"),
        ("a" * 300, "sql", "cannot be written: File name too long"),
    ],
    ids=["empty", "punctuation", "no letter of a-z", "no folder", "too long"],
)
def test_new_impossible_name_is_refused(tmp_path, name, folder, message):
    """A name that gives no file name is refused, and nothing is written."""
    write(tmp_path / "sql", {})
    with pytest.raises(MigrationError, match=message):
        migrate.new(name, tmp_path / folder, now=NOON)
    assert list((tmp_path / "sql").iterdir()) == []


@pytest.mark.parametrize("there", [{}, {"0001_a": Path.mkdir, "0001_a/up.sql": A_TABLE}], ids=["pair", "diesel"])
def test_new_without_room_names_the_file_and_leaves_nothing(tmp_path, there):
    """A file that cannot be written is named, and nothing of it stays.

    It was called None, and an empty file was left to be applied.
    """
    folder = write(tmp_path / "sql", there)
    before = sorted(folder.rglob("*"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(MigrationError, match=r"_z(/up)?\.sql: cannot be written: File too large"):
            migrate.new("z", folder, now=NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(folder.rglob("*")) == before
