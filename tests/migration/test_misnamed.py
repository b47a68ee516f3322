"""Files whose names say that they undo a migration, or are for another engine, in a spelling that pairs nothing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import MigrationFileError
from dao.migrate.scripts.misnamed import misnamed
from tests.folders import ids, tables, write

UP, DOWN = "CREATE TABLE a (id);", "DROP TABLE a;"
WIDE = "".join(chr(ord(letter) + 0xFEE0) for letter in "down")
#: What is in the folder beside one another, and which of them is refused, with a part of the message.
REFUSED = {
    "two dots": (["1_a.sql", "1_a.down..sql"], {"1_a.down..sql": "rename it to 1_a.rollback.sql if it undoes 1_a"}),
    "underscore": (["1_a.up.sql", "1_a_down.sql"], {"1_a_down.sql": "rename it to 1_a.rollback.sql"}),
    "dialect": (["1_a.up.sql", "1_a.down.sqlite.sql"], {"1_a.down.sqlite.sql": "rename it to 1_a.rollback.sql"}),
    "dialect of both": (
        ["1_a.up.sqlite3.sql", "1_a.down.sqlite3.sql"],
        {"1_a.down.sqlite3.sql": "rename it to 1_a.up.sqlite3.rollback.sql"},
    ),
    "another word": (["1_a.up.sql", "1_a.undo.sql"], {"1_a.undo.sql": "rename it to 1_a.rollback.sql"}),
    "upper case": (["1_a.sql", "1_a.DOWN.sql"], {"1_a.DOWN.sql": "rename it to 1_a.rollback.sql"}),
    "both in upper case": (["1_a.UP.sql", "1_a.DOWN.sql"], {"1_a.DOWN.sql": "rename it to 1_a.UP.rollback.sql"}),
    "hyphen": (["1_a-up.sql", "1_a-down.sql"], {"1_a-down.sql": "rename it to 1_a-up.rollback.sql"}),
    "orphan of that style": (["1_a-up.sql", "2_b-down.sql"], {"2_b-down.sql": "name it NAME.rollback.sql"}),
    "postgrator": (["001.do.a.sql", "001.undo.a.sql"], {"001.undo.a.sql": "if it undoes 001.do.a"}),
    "Flyway in pairs": (["V1__a.sql", "V1__a.rollback.sql", "U2__b.sql"], {"U2__b.sql": "it undoes a migration"}),
    "Flyway beside pairs": (["1_a.up.sql", "1_a.down.sql", "U1__a.sql"], {"U1__a.sql": "remove one of the two"}),
    "camel case": (["1_addA.sql", "1_addADown.sql"], {"1_addADown.sql": "rename it to 1_addA.rollback.sql"}),
    "glued": (["1_a.sql", "1_adown.sql"], {"1_adown.sql": "rename it to 1_a.rollback.sql"}),
    "two words": (["1_a.sql", "01_a_roll_back.sql"], {"01_a_roll_back.sql": "rename it to 1_a.rollback.sql"}),
    "copy": (["1_a.sql", "1_a.down (1).sql"], {"1_a.down (1).sql": "rename it to 1_a.rollback.sql"}),
    "other text, same number": (["1_add_a.sql", "1_drop_a_down.sql"], {"1_drop_a_down.sql": "if it undoes 1_add_a"}),
    "nothing but the word": (["1_a.sql", "rollback.sql"], {"rollback.sql": "name it NAME.rollback.sql"}),
    "wide letters": (["1_a.sql", f"1_a.{WIDE}.sql"], {f"1_a.{WIDE}.sql": "rename it to 1_a.rollback.sql"}),
    "slip of the pen": (
        ["1_a.up.sql", "1_a.dwon.sql"],
        {"1_a.dwon.sql": "rename it to 1_a.rollback.sql if it undoes 1_a"},
    ),
    "first letters": (["1_a.u.sql", "1_a.d.sql"], {"1_a.d.sql": "rename it to 1_a.u.rollback.sql"}),
    "opposite words": (["1_create_a.sql", "1_drop_a.sql"], {"1_drop_a.sql": "rename it to 1_create_a.rollback.sql"}),
    "orphan of a style": (
        ["1_a.sql", "1_a_down.sql", "2_b_down.sql"],
        {"1_a_down.sql": "rename it to 1_a.rollback.sql", "2_b_down.sql": "name it NAME.rollback.sql"},
    ),
    "each engine's": (
        ["1_a.sqlite3.up.sql", "1_a.sqlite3.down.sql", "1_a.mysql.up.sql"],
        {"1_a.mysql.up.sql": "by its name it is for mysql"},
    ),
    "invisible letter": (["1_a.sql", "1_a.d\u200bown.sql"], {"1_a.d\u200bown.sql": "rename it to 1_a.rollback.sql"}),
    "engines": (
        ["1_a.sqlite.sql", "1_a.postgres.sql", "1_a.mysql.down.sql", "2_b_sqlite.sql", "2_b_pg.sql"],
        dict.fromkeys(["1_a.postgres.sql", "1_a.mysql.down.sql", "2_b_pg.sql"], "a folder of their own"),
    ),
    "Semaphore": (
        ["v2.1.0.sql", "v2.1.0.err.sql", "v2.2.0.sql", "v2.2.0.sqlite.sql"],
        {
            "v2.1.0.err.sql": "if it undoes v2.1.0",
            "v2.2.0.sqlite.sql": "it is v2.2.0 for SQLite, and both would be run",
        },
    ),
    "orphan": (["1_a.UP.sql", "1_a.down.sql"], {"1_a.down.sql": "without its migration (the nearest is 1_a.UP.sql)"}),
}


@pytest.mark.parametrize(
    ("name", "content"), [("1_a.sql", b"\xff"), ("1_a.up.sql", b"\0"), ("1_a.SQL", b""), ("1_a.sql", os.mkfifo)]
)
def test_load_migration_that_is_refused_is_there_for_its_rollback(tmp_path, name, content):
    """A script that cannot be read is the one thing to mend: its rollback was called an orphan, to be removed."""
    folder = write(tmp_path / "sql", {name: content, "1_a.rollback.sql": DOWN, "2_b.sql": UP})
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder)
    assert str(caught.value).startswith(f"{folder / name}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("names", "refused"), REFUSED.values(), ids=REFUSED)
def test_load_misnamed_rollback_is_refused_with_its_migration(tmp_path, names, refused):
    """What undoes a migration in another spelling, or is for another engine, is refused by name: it was run as one."""
    folder = write(tmp_path / "sql", {name: DOWN if name in refused else UP for name in names})
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder)
    lines = sorted(str(caught.value).split("\n"))
    for line, (name, reason) in zip(lines, sorted(refused.items()), strict=True):
        assert line.startswith(f"{folder / name}: ")
        assert reason in line


def test_load_for_a_server_misnamed_file_is_refused_in_words_that_hold_there(tmp_path):
    """The refusal said that SQLite runs it, and advised to keep SQLite's, whatever the engine was."""
    folder = write(tmp_path / "sql", dict.fromkeys(["1_a.sql", "1_a.sqlite.sql", "2_b.sql", "2_b.mysql.sql"], UP))
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder, engine="postgresql")
    special, other = sorted(str(caught.value).split("\n"))
    advice = "keep each engine's files in a folder of their own, and leave the engine out of their names"
    assert special.endswith(f"1_a.sqlite.sql: by its name it is 1_a for SQLite, and both would be run; {advice}")
    assert other.endswith(f"2_b.mysql.sql: by its name it is for mysql alone; {advice}")


@pytest.mark.parametrize(
    "names",
    [
        ["1_users.sql", "2_add_rollback_flag.sql", "3_create_undo_log.sql", "4_drop_down_menu.sql"],
        ["1_a.sql", "2_scale_down.sql", "3_revert_a.sql", "4_a_revert.sql"],
        ["1_break.sql", "2_breakdown.sql", "3_dropdown.sql", "4_background.sql"],
        ["1_a.sql", "2_move_to_postgres.sql", "3.oracle.sql"],
        ["0001_set_up.sql", "0002_users.sql", "0003_shut_down.sql"],
        ["1.sql", "1a.sql", "1b.sql", "1c.sql", "1d.sql"],
        ["1_create_a.sql", "2_drop_a.sql", "3_remove_a.v2.sql", "0.1.2_a.sql"],
        ["V1__a.sql", "V1__a.rollback.sql", "V2__undo_a.sql"],
        ["2024-01-15_a.sql", "2024-01-16_undo_log.sql"],
        ["tasks.sql", "tasks_rollback_flag.sql"],
        ["1_größe.sql", "2_rollback_größe.sql", "3_база.sql"],
        ["1_a.sqlite.sql", "1_a.sqlite.down.sql"],
        ["1_add_new_a.sql", "1_drop_old_a.sql"],  # "old" and "new" were taken for words of copies anywhere
    ],
    ids=lambda names: names[1],
)
def test_load_words_of_a_description_are_no_rollback(tmp_path, names):
    """A migration may be about undoing: the word stands in its description, and no other has its name or number."""
    found = migrate.load(write(tmp_path / "sql", dict.fromkeys(names, UP)))
    assert len(found) == sum(not name.endswith((".rollback.sql", ".down.sql")) for name in names)


@given(
    st.sampled_from(["1_a", "0002_create_users", "20250115010000_add_b", "3-c d", "2025-01-15_x", "V1__a", "0.1_a"]),
    st.sampled_from(["", ".up", "_up", "-up", ".UP", ".sqlite", ".up.sqlite3"]),
    st.sampled_from(["down", "rollback", "roll_back", "undo", "revert", "downgrade", "unapply"]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from(["{id}{s}{down}{end}", "{down}{s}{id}{end}"]),
    st.sampled_from([".", "_", "-", " ", "..", "__", " - "]),
    st.sampled_from(["", ".", " ", ".sqlite", ".sqlite3", "_sqlite", ".v2", " copy", " (2)", ".old", ".sql", "_1"]),
)
def test_misnamed_any_spelling_beside_its_migration_is_found(id, up, down, case, form, separator, end):
    """A down word before or after the name of a migration is never run as another one, however it is written."""
    name = form.format(id=id, s=separator, down=case(down), end=end)
    assert [stem for stem, _ in misnamed([id + up, name], {})] == [name]


@pytest.mark.parametrize(
    "name", ["1_a.down", "1_a.sql.down", "1_a.ROLLBACK", "2_b.sql.sqlite", "2_b.sql.sqlite3", "2_b.up"]
)
def test_load_script_by_another_suffix_is_refused(tmp_path, name):
    """A script whose name does not end in .sql is refused.

    It was passed over: nothing could undo the migration, or made it.
    """
    folder = write(
        tmp_path / "sql", {"1_a.sql": UP, name: DOWN, "app.sqlite": "", "1_a.sql.bak": "", "2_b.sql.postgres": ""}
    )
    with pytest.raises(MigrationFileError, match=f"{name}: by its suffix it would be passed over"):
        migrate.load(folder)


def test_load_all_that_is_wrong_is_said_at_once(tmp_path):
    """One error lists every refusal of a folder, with path and line: each run showed only the first."""
    folder = write(
        tmp_path / "sql",
        {
            "1_a.sql": UP,
            "1_a_down.sql": DOWN,
            "2_b.SQL": UP,
            "3_c.sql": b"\xff",
            "4_d.rollback.sql": DOWN,
            "5_e.sql": "-- transactional: no\nSELECT 1 /* open",
            "6_f.sql": "SELECT 1;",
            "6_f.rollback.sql": "SELECT 1;\nSELECT 'open",
        },
    )
    with pytest.raises(MigrationFileError) as caught:
        migrate.load(folder)
    where = ["1_a_down.sql", "2_b.SQL", "3_c.sql:1", "4_d.rollback.sql", "5_e.sql:1", "5_e.sql:2", "6_f.rollback.sql:2"]
    assert sorted(line.split(": ")[0] for line in str(caught.value).split("\n")) == [f"{folder}/{one}" for one in where]
    assert caught.value.path in {folder / one.partition(":")[0] for one in where}


def test_load_name_with_a_control_character_is_refused(tmp_path):
    """A file name with an escape or a line end is refused, and shown with its escapes.

    As an id it would reach terminals and logs.
    """
    folder = write(tmp_path / "sql", {"1_a\x1b[2J.sql": UP, "2_b\n3_c.sql": UP, "4_\u202elqs.sql": UP})
    with pytest.raises(MigrationFileError, match="holds a control character") as caught:
        migrate.load(folder)
    assert [part in str(caught.value) for part in ("1_a\\x1b[2J.sql", "2_b\\n3_c.sql", "4_\\u202elqs.sql")] == [
        True
    ] * 3


def test_apply_refused_folder_changes_nothing(tmp_path):
    """`1_a_down.sql` beside `1_a.up.sql` stops the run before the database.

    It dropped the table, and the run reported success.
    """
    folder = write(tmp_path / "sql", {"1_a.up.sql": UP, "1_a_down.sql": DOWN})
    database = tmp_path / "a.db"
    with pytest.raises(MigrationFileError):
        migrate.apply(f"sqlite:///{database}", folder)
    assert not database.exists()
    (folder / "1_a_down.sql").rename(folder / "1_a.down.sql")
    assert ids(migrate.apply(f"sqlite:///{database}", folder)) == ["1_a"]
    assert tables(database) == ["a"]


@pytest.mark.parametrize("name", ["DOWN.sql", "down.sqlite.sql", "rollback.sql", "Up.sql", "1.undo.SQL"])
def test_load_diesel_other_spelling_is_refused(tmp_path, name):
    """In a folder of diesel's, a script in another spelling was passed over, and the migration could not be undone."""
    folder = write(tmp_path / "sql", {})
    write(folder / "1_a", {"up.sql": UP, name: DOWN, "notes.sql": ""})
    with pytest.raises(MigrationFileError, match=f"1_a/{name}: would be passed over; rename it to (up|down).sql"):
        migrate.load(folder)
