"""A schema in which something no longer works is not committed."""

from __future__ import annotations

from pathlib import Path

import apsw
import apsw.ext
import pytest

from dao import migrate
from dao.errors import CheckFailed
from dao.migrate.scripts.migration import from_texts
from tests.folders import dump, query

_BASE = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);
CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER REFERENCES users (id), title TEXT);
CREATE TABLE log (x);
CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE found USING fts5(body, content=docs);
CREATE VIEW names AS SELECT id, name FROM users;
CREATE VIEW upper_names AS SELECT upper(name) AS name FROM names;
CREATE TRIGGER logged AFTER INSERT ON posts BEGIN INSERT INTO log VALUES (new.title); END;
CREATE TRIGGER aged AFTER UPDATE OF age ON users BEGIN INSERT INTO log SELECT age FROM users WHERE id = new.id; END;
CREATE TRIGGER gone AFTER DELETE ON users BEGIN INSERT INTO log VALUES (old.name); END;
CREATE TRIGGER named INSTEAD OF INSERT ON names BEGIN INSERT INTO users (name) VALUES (new.name); END;
"""
_MOVE = (
    "DROP VIEW upper_names; DROP VIEW names; DROP TRIGGER aged; DROP TRIGGER gone; ALTER TABLE users RENAME TO old; "
)
#: A script, and what of the schema it leaves broken.
_BREAKING = {
    "rebuild by renaming the old": (
        _MOVE + "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INTEGER); DROP TABLE old",
        {"foreign key posts"},
    ),
    "parent dropped": (
        "DROP VIEW upper_names; DROP VIEW names; DROP TABLE users",
        {"foreign key posts"},
    ),
    "parent without a key": (
        "DROP TABLE users; CREATE TABLE users (id INTEGER, name TEXT, age INTEGER)",
        {"foreign key posts"},
    ),
    "parent never there": ("CREATE TABLE likes (post REFERENCES postings (id))", {"foreign key likes"}),
    "table of a view, and of the view over that": (
        "PRAGMA legacy_alter_table = on; ALTER TABLE users RENAME TO people",
        {"view names", "view upper_names", "foreign key posts", "trigger aged"},
    ),
    "column of a view": (
        "DROP TABLE users; CREATE TABLE users (id INTEGER PRIMARY KEY, age INTEGER); ",
        {"view names", "view upper_names"},
    ),
    "new view": ("CREATE VIEW v AS SELECT none FROM users", {"view v"}),
    "trigger for INSERT": ("DROP TABLE log", {"trigger logged", "trigger aged", "trigger gone"}),
    "trigger for UPDATE OF a column": (
        "CREATE TRIGGER older AFTER UPDATE OF age ON users BEGIN INSERT INTO none VALUES (1); END",
        {"trigger older"},
    ),
    "trigger for DELETE": (
        "CREATE TRIGGER lost AFTER DELETE ON docs BEGIN UPDATE log SET y = old.id; END",
        {"trigger lost"},
    ),
    "trigger INSTEAD OF": (
        "CREATE TRIGGER away INSTEAD OF DELETE ON names BEGIN DELETE FROM persons WHERE id = old.id; END",
        {"trigger away"},
    ),
    "trigger that writes to a view": (
        "CREATE TRIGGER away AFTER DELETE ON docs BEGIN DELETE FROM upper_names; END",
        {"trigger away"},
    ),
    "number of columns in a trigger": (
        "ALTER TABLE log ADD COLUMN y",
        {"trigger logged", "trigger aged", "trigger gone"},
    ),
    "content of a virtual table": ("DROP TABLE docs", {"virtual table found"}),
    "column of a virtual table's content": ("ALTER TABLE docs RENAME COLUMN body TO text", {"virtual table found"}),
}
#: Scripts after which everything works.
_HARMLESS = {
    "rebuild under another name": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, x); INSERT INTO new SELECT *, 1 FROM users; "
        "DROP VIEW upper_names; DROP VIEW names; DROP TABLE users; ALTER TABLE new RENAME TO users; "
        "CREATE VIEW names AS SELECT id, name FROM users"
    ),
    "rename": "ALTER TABLE users RENAME TO people; ALTER TABLE log RENAME COLUMN x TO y",
    "virtual table with its content": "DROP TABLE found; ALTER TABLE docs RENAME COLUMN body TO text",
    "virtual tables": (
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x, y); CREATE VIRTUAL TABLE f USING fts4(a, content='')"
    ),
    "generated column, expression and partial index": (
        "CREATE TABLE t (a, b AS (a + 1), c AS (a * 2) STORED, CHECK (a > 0)); "
        "CREATE INDEX t_b ON t (b + 1) WHERE a > 5"
    ),
    "foreign key to itself, in another case": "CREATE TABLE tree (id INTEGER PRIMARY KEY, up REFERENCES TREE (ID))",
    "names with quotes": 'CREATE TABLE "a""b" (x); CREATE VIEW "v""w" AS SELECT x FROM "a""b"',
}


def scripts(*texts: str) -> list[migrate.Migration]:
    return [from_texts(str(number), text, None, path=Path(f"{number}.sql")) for number, text in enumerate(texts)]


def broken(error: CheckFailed) -> set[str]:
    return {f"{one.type} {one.name}" for one in error.violations}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.db"
    migrate.apply(f"sqlite:///{path}", scripts(_BASE))
    return path


@pytest.mark.parametrize(("script", "expected"), _BREAKING.values(), ids=_BREAKING)
def test_apply_schema_that_no_longer_works_is_refused_by_name(path, script, expected):
    """A schema that would fail at its next use undoes the run.

    It used to be committed, also where no row told, and called healthy.
    """
    before = dump(path)
    with pytest.raises(CheckFailed) as refused:
        migrate.apply(f"sqlite:///{path}", scripts(_BASE, script))
    assert broken(refused.value) == expected
    assert dump(path) == before


@pytest.mark.parametrize("script", _HARMLESS.values(), ids=_HARMLESS)
def test_apply_schema_that_works_is_committed(path, script):
    """Nothing is held against what SQLite compiles."""
    (result,) = migrate.apply(f"sqlite:///{path}", scripts(_BASE, script))
    assert not result.notices


@pytest.mark.parametrize("script", [script for script, _ in _BREAKING.values()], ids=_BREAKING)
def test_rehearse_and_verify_say_what_a_run_says_of_a_schema_that_no_longer_works(path, script):
    """The rehearsal, and the trial of each pair, reach the verdict of the run."""
    files = scripts(_BASE, script)
    (rehearsed,) = migrate.rehearse(f"sqlite:///{path}", files).migrations
    assert rehearsed.failure is not None
    assert rehearsed.violations
    empty = next(one for one in migrate.verify(files) if one.id == "1" and one.stage == "empty")
    assert empty.problems


@pytest.mark.parametrize("script", [script for script, _ in _BREAKING.values()], ids=_BREAKING)
def test_lint_names_what_a_run_refuses_in_a_schema_that_no_longer_works(script):
    """Without a database, too; it used to know nothing of virtual tables."""
    found = migrate.lint(scripts(_BASE, script)).findings
    assert {"M009", "M013"} & {one.code for one in found if one.migration == "1"}


@pytest.mark.parametrize("script", _HARMLESS.values(), ids=_HARMLESS)
def test_lint_holds_nothing_against_a_schema_that_works(script):
    """Nor does it, as the run does not, against what needs a function that a program registers."""
    files = scripts(_BASE, script, "CREATE VIEW ours AS SELECT ours(x) FROM log; ALTER TABLE log RENAME TO logs")
    assert not {"M009", "M013"} & {one.code for one in migrate.lint(files).findings}


@pytest.mark.parametrize(("script", "expected"), _BREAKING.values(), ids=_BREAKING)
def test_status_names_what_does_not_work(path, script, expected):
    """What an earlier version committed, or another program did, is told although the ledger is current."""
    query(path, script)
    broken = migrate.status(f"sqlite:///{path}", scripts(_BASE)).broken
    assert {line.removeprefix("the ").replace(" of ", " ").partition(":")[0] for line in broken} == expected


@pytest.mark.parametrize(
    ("breaking", "mending"),
    [
        ("CREATE TABLE a (b REFERENCES b (id))", "CREATE TABLE b (id INTEGER PRIMARY KEY)"),
        ("CREATE TABLE a (x REFERENCES users (age))", "CREATE UNIQUE INDEX ages ON users (age)"),
        ("INSERT INTO posts (author) VALUES (9)", "DELETE FROM posts"),
        (
            "CREATE TABLE a (x CHECK (x)); PRAGMA ignore_check_constraints = on; INSERT INTO a VALUES (0)",
            "DELETE FROM a",
        ),
    ],
    ids=["no parent", "no key", "row without parent", "row against a check"],
)
def test_apply_later_script_of_the_run_mends_what_one_broke(path, breaking, mending):
    """In one transaction all has to work at its end; with `each`, after every script.

    The rehearsal used to want it after every script, too.
    """
    files = scripts(_BASE, breaking, mending)
    assert migrate.rehearse(f"sqlite:///{path}", files).ok
    with pytest.raises(CheckFailed):
        migrate.apply(f"sqlite:///{path}", files, each=True)
    assert len(migrate.apply(f"sqlite:///{path}", files)) == 2


def test_rehearse_last_script_of_a_transaction_leaves_what_an_earlier_broke(path):
    """What a transaction leaves broken fails with its last script, whichever broke it."""
    files = scripts(_BASE, "CREATE VIEW v AS SELECT * FROM none;", "CREATE TABLE b (id INTEGER PRIMARY KEY);")
    assert [one.ok for one in migrate.rehearse(f"sqlite:///{path}", files).migrations] == [True, False]


def test_apply_what_was_broken_before_is_not_held_against_the_run(path):
    """A view, a trigger and a foreign key that did not work stay as they are, though the run changes what they name.

    The foreign key of a table that was renamed used to count as new.
    """
    query(
        path,
        "CREATE VIEW v AS SELECT none FROM users; CREATE TABLE c (p REFERENCES gone (id), q REFERENCES users (id)); "
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN INSERT INTO none SELECT id FROM users; END",
    )
    script = (
        "ALTER TABLE users ADD COLUMN v; ALTER TABLE c ADD COLUMN w; PRAGMA legacy_alter_table = on; "
        "ALTER TABLE c RENAME TO d"
    )
    assert migrate.apply(f"sqlite:///{path}", scripts(_BASE, script))
    with pytest.raises(CheckFailed) as refused:
        migrate.apply(f"sqlite:///{path}", scripts(_BASE, script, "CREATE VIEW w AS SELECT v, none FROM users"))
    assert broken(refused.value) == {"view w"}


def test_apply_what_needs_a_function_that_is_not_registered_is_named_not_refused(path):
    """What cannot be judged here is named in a notice; where the function is registered it is judged."""
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("ours", lambda x: x, deterministic=True)
    connection.create_collation("theirs", lambda one, other: (one > other) - (one < other))
    connection.execute(
        "CREATE VIEW v AS SELECT ours(id) FROM users; CREATE TABLE c (a TEXT COLLATE theirs, b CHECK (ours(b) > 0)); "
        "CREATE VIEW w AS SELECT * FROM c ORDER BY a"
    )
    script = "ALTER TABLE users ADD COLUMN y; ALTER TABLE c ADD COLUMN y"
    events: list[object] = []
    (result,) = migrate.apply(f"sqlite:///{path}", scripts(_BASE, script), report=events.append)
    assert result.notices == (
        "cannot tell whether the table c works: unknown function: ours()",
        "cannot tell whether the view v works: no such function: ours",
        "cannot tell whether the view w works: no such collation sequence: theirs",
        "--prepare MODULE:FUNCTION (DATABASE_PREPARE; prepare= in Python) registers what is your program's own",
    )
    told = [event.text for event in events if isinstance(event, migrate.Notice)]
    assert told == list(result.notices)
    (result,) = migrate.apply(connection, scripts(_BASE, script, "ALTER TABLE users ADD COLUMN z"))
    connection.close()
    assert not result.notices


def test_apply_what_a_program_registers_hides_neither_what_was_broken_nor_what_breaks(path):
    """Objects that were broken are found out although the schema needs what a program registers.

    Without the program's functions, collations and modules it cannot be made. That used to be held against the run,
    and what needs them could be broken by it.
    """

    def nothing():
        return iter(())

    nothing.columns, nothing.column_access = ("a",), apsw.ext.VTColumnAccess.By_Index
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("ours", lambda x: x, deterministic=True)
    connection.create_collation("theirs", lambda one, other: (one > other) - (one < other))
    apsw.ext.make_virtual_module(connection, "mine", nothing)
    connection.execute(
        "CREATE TABLE c (a COLLATE theirs UNIQUE, b CHECK (ours(b) > 0)); CREATE INDEX c_b ON c (ours(b)); "
        "CREATE VIEW none AS SELECT none, ours(b) FROM c; "
        "CREATE VIEW v AS SELECT ours(title), title COLLATE theirs FROM posts; "
        "CREATE VIRTUAL TABLE m USING mine; CREATE VIEW w AS SELECT a FROM m; "
        "CREATE TRIGGER t AFTER DELETE ON docs BEGIN INSERT INTO log SELECT a FROM m; END"
    )
    script = "ALTER TABLE c ADD COLUMN d; ALTER TABLE posts ADD COLUMN d; ALTER TABLE docs ADD COLUMN d"
    assert migrate.apply(connection, scripts(_BASE, script))
    expected = ("the view none: no such column: none",)
    assert migrate.status(connection, scripts(_BASE, script)).broken == expected
    assert migrate.status(f"sqlite:///{path}", scripts(_BASE, script)).broken == expected
    breaking = "DROP TABLE posts; CREATE TABLE posts (id); DROP VIEW w; CREATE VIEW w AS SELECT b FROM m"
    with pytest.raises(CheckFailed) as refused:
        migrate.apply(connection, scripts(_BASE, script, breaking))
    connection.close()
    assert broken(refused.value) == {"view v", "view w"}


def test_apply_and_status_of_a_function_that_gives_rows_and_of_statistics(path):
    """A view of a table-valued function that is not registered, or of what ANALYZE makes, is not called broken."""
    files = scripts(
        _BASE,
        "CREATE VIEW numbers AS SELECT value FROM generate_series(1, 9); "
        "CREATE VIEW twice AS SELECT value * 2 FROM numbers; "
        "ANALYZE; CREATE VIEW statistics AS SELECT * FROM sqlite_stat1",
    )
    (result,) = migrate.apply(f"sqlite:///{path}", files)
    assert result.notices == (
        "cannot tell whether the view numbers works: no such module: generate_series",
        "cannot tell whether the view twice works: no such module: generate_series",
        "--prepare MODULE:FUNCTION (DATABASE_PREPARE; prepare= in Python) registers what is your program's own",
    )
    assert migrate.status(f"sqlite:///{path}", files).is_current


def test_status_of_a_schema_that_means_harm_answers(path):
    """Endless views and impossible function names neither keep the check waiting nor end it.

    The views would run for ever if they were read.
    """
    query(
        path,
        "CREATE VIEW for_ever AS WITH RECURSIVE x (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n "
        "FROM x WHERE n < 0; "
        f"CREATE VIEW long AS SELECT {'f' * 300}(1); "
        "CREATE VIRTUAL TABLE f USING fts5(n, content=for_ever, content_rowid=n)",
    )
    assert not migrate.status(f"sqlite:///{path}", scripts(_BASE)).broken


def test_apply_what_may_be_broken_is_committed_by_name(path):
    """Broken objects of files that nobody may edit can be allowed, name by name.

    The message says how, of a run and of its rehearsal.
    """
    script = "DROP TABLE users; DROP TABLE docs; CREATE TABLE users (id, name, age); CREATE TABLE c (p REFERENCES none)"
    files = scripts(_BASE, script)
    url = f"sqlite:///{path}"
    with pytest.raises(CheckFailed, match=r": --allow-broken c --allow-broken posts --allow-broken found$"):
        migrate.apply(url, files)
    names = ["C", "posts"]
    assert [one.violations for one in migrate.rehearse(url, files, allow_broken=names).migrations] == [
        ("the virtual table found: no such table: main.docs",)
    ]
    with pytest.raises(CheckFailed) as refused:
        migrate.apply(url, files, allow_broken=names)
    assert broken(refused.value) == {"virtual table found"}
    names.append("found")
    assert migrate.rehearse(url, files, allow_broken=names).ok
    assert migrate.apply(url, files, allow_broken=names)


def test_apply_script_outside_of_a_transaction_is_checked_too(path):
    """What it has done stays, and the ledger says that a person has to look."""
    with pytest.raises(CheckFailed, match=r"view v: no such table: main\.none"):
        migrate.apply(
            f"sqlite:///{path}", scripts(_BASE, "-- transactional: false\nCREATE VIEW v AS SELECT * FROM none")
        )
    assert migrate.unfinished(f"sqlite:///{path}", "1")


def test_apply_data_alone_compiles_nothing(path):
    """A run that changes no schema asks SQLite for nothing more than the schema."""
    connection = apsw.Connection(str(path))
    seen: list[str] = []
    connection.exec_trace = lambda _cursor, sql, _bindings: seen.append(sql) is None
    migrate.apply(connection, scripts(_BASE, "INSERT INTO log VALUES (1)"))
    connection.close()
    assert not [sql for sql in seen if "DEFAULT VALUES" in sql or 'main."names"' in sql]
