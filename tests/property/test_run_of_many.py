"""A run of many scripts is the same as many runs of one, whatever the scripts set for their connection."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dao
from dao import migrate
from dao.errors import CheckFailed
from dao.migrate.schema.session import IGNORED, SETTINGS
from dao.migrate.scripts.migration import from_texts
from tests.folders import dump

_BASE = """
CREATE TABLE u (id INTEGER PRIMARY KEY AUTOINCREMENT, x TEXT UNIQUE CHECK (x <> 'bad'));
CREATE TABLE log (x);
CREATE VIEW v AS SELECT x FROM u;
CREATE TRIGGER gone AFTER DELETE ON u BEGIN INSERT INTO log VALUES ('gone ' || old.x); END;
INSERT INTO u (x) VALUES ('a'), ('b'), ('c');
"""
#: What leaves something behind in a session, and what would notice it.
_STATEMENTS = (
    "CREATE TEMP TABLE u AS SELECT * FROM main.u",
    "CREATE TEMPORARY TABLE log (x)",
    "CREATE TABLE temp.n (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO n DEFAULT VALUES",
    "CREATE TEMP VIEW w AS SELECT 'temporary' AS x",
    "CREATE TEMP TRIGGER twice AFTER INSERT ON main.log BEGIN INSERT INTO main.u DEFAULT VALUES; END",
    "CREATE VIRTUAL TABLE temp.f USING fts5(x); INSERT INTO f VALUES ('word')",
    "CREATE TEMP TABLE p (id INTEGER PRIMARY KEY); CREATE TEMP TABLE c (p REFERENCES p (id)); INSERT INTO c VALUES (1)",
    "CREATE TABLE IF NOT EXISTS n (id INTEGER PRIMARY KEY AUTOINCREMENT)",
    "CREATE VIEW IF NOT EXISTS w AS SELECT 'here' AS x",
    "INSERT INTO u DEFAULT VALUES",
    "INSERT INTO log SELECT x FROM v",
    "INSERT INTO log SELECT x FROM w",
    "INSERT INTO log SELECT x FROM u LIMIT 1",
    "INSERT INTO log SELECT seq FROM sqlite_sequence",
    "UPDATE sqlite_sequence SET seq = 50",
    "REPLACE INTO u (x) VALUES ('a')",
    "INSERT INTO u (x) VALUES ('bad')",
    "INSERT INTO log SELECT 'A is a' WHERE 'A' LIKE 'a'",
    "INSERT INTO log SELECT changes()",
    "INSERT INTO log SELECT last_insert_rowid()",
    "INSERT INTO log SELECT total_changes()",
    "ALTER TABLE u RENAME TO z; ALTER TABLE z RENAME TO u",
    "PRAGMA case_sensitive_like = on",
    "PRAGMA ignore_check_constraints = on",
    "PRAGMA legacy_alter_table = on",
    "PRAGMA recursive_triggers = on",
    "PRAGMA reverse_unordered_selects = on",
    "PRAGMA query_only = on",
    "PRAGMA foreign_keys = on",
    "PRAGMA max_page_count = 1",
    "PRAGMA page_size = 8192",
    "PRAGMA temp_store = memory",
    "PRAGMA user_version = 7",
    "PRAGMA writable_schema = on",
    "VACUUM",
)
_SCRIPTS = st.lists(
    st.tuples(
        st.sampled_from(["", "", "", "-- transactional: false\n", "-- foreign_keys: on\n"]),
        st.lists(st.sampled_from(_STATEMENTS), min_size=1, max_size=3),
    ).map(lambda script: script[0] + ";\n".join(script[1]) + ";"),
    min_size=2,
    max_size=4,
)
#: What the owner of a connection may have set: other than a new connection in each.
_OWN = {
    **dict.fromkeys(("ignore_check_constraints", "legacy_alter_table", "recursive_triggers"), 1),
    "reverse_unordered_selects": 1,
    "foreign_keys": 1,
    "cache_size": -77,
    "temp_store": 2,
    "secure_delete": 1,
}


def scripts(*texts: str) -> list[migrate.Migration]:
    return [from_texts(str(number), text, None, path=Path(f"{number}.sql")) for number, text in enumerate(texts)]


def together(url: str, files: list[migrate.Migration]) -> None:
    migrate.apply(url, files, snapshots=0)


def in_a_transaction_each(url: str, files: list[migrate.Migration]) -> None:
    migrate.apply(url, files, each=True, snapshots=0)


def one_by_one(url: str, files: list[migrate.Migration]) -> None:
    for _ in files:
        migrate.apply(url, files, steps=1, snapshots=0)


def on_a_callers_connection(url: str, files: list[migrate.Migration]) -> None:
    connection = dao.connect(url)
    migrate.apply(connection, files, to="0", snapshots=0)
    for name, value in _OWN.items():
        connection.pragma(name, value)
    # of this SQLite keeps a table that cannot be dropped
    connection.execute("CREATE TEMP TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE s")
    connection.set_last_insert_rowid(99)
    before = session_of(connection)
    try:
        migrate.apply(connection, files, snapshots=0)
    finally:
        assert session_of(connection) == before
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        connection.close()


def session_of(connection: apsw.Connection) -> list[Any]:
    """Return what of a connection's state scripts could have changed."""
    names = [name for name in SETTINGS if name != "journal_mode"]
    return [
        [connection.pragma(name) for name in (*names, "temp_store", "mmap_size")],
        connection.execute("SELECT 'a' LIKE 'A', last_insert_rowid()").fetchall(),
        connection.execute("SELECT * FROM temp.sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall(),
    ]


def outcome(run: Callable[[str, list[migrate.Migration]], None], texts: list[str]) -> Any:
    """Return what a run leaves: the schema and the rows, or what it refuses and why."""
    files = scripts(_BASE, *texts)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "x.db"
        try:
            run(f"sqlite:///{database}?synchronous=off", files)
        except dao.Error as error:
            # what stays of a run is another matter
            return type(error), "\n".join(map(str, [error.args[0], *error.details])).replace(folder, "")
        return {name: rows for name, rows in dump(database).items() if not name.lstrip("_").startswith(("yoyo", "dao"))}


@example(
    ["CREATE TEMP TABLE u AS SELECT * FROM main.u;", "INSERT INTO u DEFAULT VALUES;"],
)
@example(["PRAGMA legacy_alter_table = on;", "ALTER TABLE u RENAME TO z; ALTER TABLE z RENAME TO u;"])
@example(["-- transactional: false\nPRAGMA query_only = on;", "INSERT INTO u DEFAULT VALUES;"])
@given(_SCRIPTS)
def test_apply_many_scripts_in_one_run_is_as_one_run_for_each(texts):
    """Scripts leave the same schema and rows, or meet the same refusal, however they are divided into runs.

    Temporary objects, pragmas and counters of one script used to reach the next script, and the caller's connection.
    What must hold is checked at each commit, so in one transaction a later script may still mend it.
    """
    expected = outcome(one_by_one, texts)
    assert outcome(in_a_transaction_each, texts) == expected
    if CheckFailed not in expected:
        assert outcome(together, texts) == expected
        assert outcome(on_a_callers_connection, texts) == expected


#: Every other pragma of this SQLite: what belongs to the file, what does something, and what only tells.
_OF_THE_FILE = {
    *("application_id", "auto_vacuum", "encoding", "page_size", "schema_version", "user_version"),
    # ends with the transaction, and to put it back would forget what was deferred
    "defer_foreign_keys",
    "case_sensitive_like",
}
_ACTS = {"incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"}
_TELLS = {
    *("collation_list", "compile_options", "data_version", "database_list", "foreign_key_check", "foreign_key_list"),
    *("freelist_count", "function_list", "index_info", "index_list", "index_xinfo", "integrity_check", "module_list"),
    *("page_count", "pragma_list", "quick_check", "table_info", "table_list", "table_xinfo"),
}


def test_every_pragma_is_put_back_ignored_or_no_setting_of_a_connection():
    """A pragma that a new SQLite brings is noticed: no list of settings was complete before."""
    known = {name for (name,) in apsw.Connection(":memory:").execute("PRAGMA pragma_list")}
    assert known - {"data_store_directory"} <= {*SETTINGS, *IGNORED} | _OF_THE_FILE | _ACTS | _TELLS
    assert not {*SETTINGS} & {*IGNORED}


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"journal_mode", "locking_mode", "foreign_keys"}))
def test_apply_setting_of_a_script_reaches_neither_the_next_nor_the_caller(tmp_path, name):
    """Each setting of a connection is, for the next script and for the caller, what it was before the script set it."""
    connection = dao.connect(f"sqlite:///{tmp_path / 'x.db'}")
    before = session_of(connection)
    values = {"max_page_count": 5000, "cache_size": 77, "synchronous": 3, "analysis_limit": 9, "journal_size_limit": 99}
    value = values.get(name, 0 if connection.pragma(name) else 1)
    texts = [
        f"-- transactional: false\nPRAGMA {name} = {value};",
        f"CREATE TABLE seen AS SELECT * FROM pragma_{name};",
    ]
    own = connection.pragma(name)
    migrate.apply(connection, scripts(*texts))
    assert session_of(connection) == before
    assert connection.execute("SELECT * FROM seen").get == own
    connection.close()


@pytest.mark.parametrize(
    "guest",
    [
        "CREATE TEMP TABLE u (id)",
        "CREATE TEMP VIEW u AS SELECT 1",
        "CREATE TABLE t (x); CREATE TEMP TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END",
        "ATTACH '' AS u",
    ],
)
def test_apply_connection_with_more_than_its_database_is_refused(tmp_path, guest):
    """A guest that answers to a name in a script refuses the run, and stays.

    Only this connection has it, and it used to be taken for the database's.
    """
    connection = dao.connect(f"sqlite:///{tmp_path / 'x.db'}")
    connection.execute(guest).fetchall()
    with pytest.raises(dao.errors.MigrationError, match=r"more than its database \(.* u\)"):
        migrate.apply(connection, scripts("CREATE TABLE u (id INTEGER PRIMARY KEY);"))
    assert connection.execute("SELECT count(*) FROM main.sqlite_schema WHERE name = 'u'").get == 0
    assert connection.execute("SELECT count(*) FROM temp.sqlite_schema").get or len(connection.db_names()) == 3
    connection.close()
