"""The row-loss guard: what a script loses without saying so is refused, and nothing else is."""

from __future__ import annotations

import shlex

import apsw
import pytest

from dao import migrate
from dao.errors import CheckFailed
from dao.migrate.schema import catalog
from dao.migrate.values import Loss
from tests.folders import ALONE, dump, ids, query, tables, write

#: A family with a tree, as a migration makes it, and what came in since.
SETUP = """
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, note TEXT, shout TEXT AS (upper(name)) STORED);
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id REFERENCES parent (id) ON DELETE CASCADE);
CREATE TABLE tree (id INTEGER PRIMARY KEY, up REFERENCES tree (id) ON DELETE CASCADE);
CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE "Odd ""Näme, 2" ("a.b", c);
CREATE TABLE empty (id INTEGER PRIMARY KEY, x);
CREATE TABLE seen (id INTEGER PRIMARY KEY);
CREATE VIEW view AS SELECT * FROM seen;
CREATE TRIGGER through INSTEAD OF DELETE ON view BEGIN DELETE FROM seen WHERE id = old.id; END;
CREATE VIRTUAL TABLE docs USING fts5 (body);
"""
ROWS = """
INSERT INTO person (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO child VALUES (10, 1), (11, 1), (12, 2);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL);
INSERT INTO pairs VALUES (1, 1), (1, 2);
INSERT INTO "Odd ""Näme, 2" VALUES (1, NULL), (2, 5);
INSERT INTO seen VALUES (1), (2);
INSERT INTO docs VALUES ('one'), ('two');
"""
ENFORCED = "-- foreign_keys: on\n"
#: The columns that can be copied.
COPY = "INSERT INTO {} (id, name, note) SELECT id, name, note FROM {}"
NEW = "(id INTEGER PRIMARY KEY, name TEXT, note TEXT)"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database that a migration was applied to, and which holds rows now, made once."""
    folder = tmp_path_factory.mktemp("filled")
    migrate.apply(f"sqlite:///{folder}/filled.db", write(folder / "sql", {"1_setup.sql": SETUP}))
    query(folder / "filled.db", ROWS)
    return (folder / "filled.db").read_bytes()


@pytest.fixture
def folder(path, tmp_path, filled):
    """A folder with a migration that is applied to a database, which holds rows now."""
    path.write_bytes(filled)
    return write(tmp_path / "sql", {"1_setup.sql": SETUP})


def rebuilt(where: str = "", before: str = "", after: str = "") -> str:
    """Return the rebuild that SQLite's documentation names, with more statements before the renaming and after it."""
    return (
        f"CREATE TABLE new {NEW}; {COPY.format('new', 'person')} {where}; {before};"
        f"DROP TABLE person; ALTER TABLE new RENAME TO person; {after};"
    )


def rebuilt_the_other_way(where: str = "", before: str = "", after: str = "") -> str:
    """Return the rebuild that renames the old table first."""
    return (
        f"ALTER TABLE person RENAME TO old; CREATE TABLE person {NEW}; {before};"
        f"{COPY.format('person', 'old')} {where}; DROP TABLE old; {after};"
    )


def rebuilt_over_a_copy(where: str = "", before: str = "", after: str = "") -> str:
    """Return the rebuild that keeps the rows in another table meanwhile."""
    return (
        f"CREATE TEMP TABLE person_ AS SELECT * FROM person {where};"
        f"{before}; DROP TABLE person; CREATE TABLE person {NEW}; {COPY.format('person', 'person_')}; {after};"
    )


REBUILDS = [rebuilt, rebuilt_the_other_way, rebuilt_over_a_copy]

# ---------------------------------------------------------------- refused

LOSSES = {
    "rebuild": (rebuilt("WHERE id <> 2"), [Loss("rows", "person", 1)]),
    "rebuild the other way": (rebuilt_the_other_way("WHERE id > 2"), [Loss("rows", "person", 2)]),
    "rebuild over a copy": (rebuilt_over_a_copy("WHERE id = 1"), [Loss("rows", "person", 2)]),
    "rebuild of nothing": ("DROP TABLE tree; CREATE TABLE tree (id, up);", [Loss("rows", "tree", 4)]),
    "rebuild without a rowid": (
        ("CREATE TABLE p (a, b); INSERT INTO p SELECT * FROM pairs WHERE b = 1; DROP TABLE pairs; "
         "ALTER TABLE p RENAME TO pairs"),
        [Loss("rows", "pairs", 1)],
    ),
    "rebuild that deletes too few": (rebuilt("WHERE id = 1", after="DELETE FROM person"), [Loss("rows", "person", 2)]),
    "rebuild that deleted others before": (
        "DELETE FROM person WHERE id = 1;" + rebuilt("WHERE id = 2"), [Loss("rows", "person", 1)],
    ),
    "rebuild that makes up for it": (
        rebuilt("WHERE id < 3", before="INSERT INTO new VALUES (7, 'new', NULL)"),
        [Loss("rows", "person", 1)],
    ),
    "rebuild that makes up for it after": (
        rebuilt_the_other_way("WHERE id < 3", after="INSERT INTO person VALUES (7, 'new', NULL), (8, '', '')"),
        [Loss("rows", "person", 1)],
    ),
    "rebuild, and as many deleted from a temporary table of that name": (
        rebuilt(
            "WHERE id = 1",
            after="CREATE TEMP TABLE person AS SELECT id FROM tree WHERE id < 3; DELETE FROM temp.person",
        ),
        [Loss("rows", "person", 2)],
    ),
    "rebuild that makes up for it, after a virtual table was written to": (
        rebuilt("WHERE id < 3", before="INSERT INTO docs VALUES ('three'); INSERT INTO new VALUES (7, 'new', NULL)"),
        [Loss("rows", "person", 1)],
    ),
    "drop of what it would have made if it had not been there": (
        'CREATE TABLE IF NOT EXISTS CHILD (id); CREATE TABLE main."pairs_" (a); DROP TABLE child; DROP TABLE pairs_;',
        [Loss("table", "child", 3)],
    ),
    "drop of what came back": (
        ("SAVEPOINT s; CREATE TABLE child_ (id); INSERT INTO child_ VALUES (1); ROLLBACK TO s; RELEASE s; "
         "DROP TABLE child;"),
        [Loss("table", "child", 3)],
    ),
    "another takes the name": (
        "DROP TABLE child; ALTER TABLE tree RENAME TO child;",
        [Loss("table", "child", 3)],
    ),
    "drop": ("DROP TABLE child;", [Loss("table", "child", 3)]),
    "drop in another case": ("DROP TABLE [CHILD];", [Loss("table", "child", 3)]),
    "drop of an odd name": ('DROP TABLE "odd ""näme, 2";', [Loss("table", 'Odd "Näme, 2', 2)]),
    "drop after renaming": ("ALTER TABLE child RENAME TO kid; DROP TABLE kid;", [Loss("table", "child", 3)]),
    "drop of a virtual table": ("DROP TABLE docs;", [Loss("table", "docs", 2)]),
    "drop of a renamed virtual table": (
        "ALTER TABLE docs RENAME TO texts; DROP TABLE texts;",
        [Loss("table", "docs", 2)],
    ),
    "rebuild of a virtual table": (
        ("CREATE VIRTUAL TABLE d USING fts5 (body, tokenize = trigram); INSERT INTO d SELECT body FROM docs LIMIT 1;"
        "DROP TABLE docs; ALTER TABLE d RENAME TO docs;"),
        [Loss("rows", "docs", 1)],
    ),
    "split": (
        ("CREATE TABLE a AS SELECT id, name FROM person; CREATE TABLE b AS SELECT id, note FROM person;"
        "DROP TABLE person;"),
        [Loss("table", "person", 3)],
    ),
    "a view takes the place": (
        "CREATE TABLE kids AS SELECT * FROM child; DROP TABLE child; CREATE VIEW child AS SELECT * FROM kids",
        [Loss("table", "child", 3)],
    ),
    "column": (
        "ALTER TABLE person DROP COLUMN shout; ALTER TABLE person DROP COLUMN name",
        [Loss("column", "person", 3, "name")],
    ),
    "column in another case": (
        'ALTER TABLE "odd ""näme, 2" DROP COLUMN C',
        [Loss("column", 'Odd "Näme, 2', 2, "c")],
    ),
    "column after renaming": (
        ("ALTER TABLE child RENAME TO kid; ALTER TABLE kid RENAME COLUMN parent_id TO p; "
         "ALTER TABLE kid ADD COLUMN parent_id;"
        "CREATE TABLE other (id); ALTER TABLE kid DROP COLUMN p"),
        [Loss("column", "child", 3, "parent_id")],
    ),
    "column in a rebuild": (
        ("CREATE TABLE c (id INTEGER PRIMARY KEY); INSERT INTO c SELECT id FROM child; DROP TABLE child; "
         "ALTER TABLE c RENAME TO child"),
        [Loss("column", "child", 3, "parent_id")],
    ),
    "rows and column in a rebuild": (
        ("CREATE TABLE c (id INTEGER PRIMARY KEY); INSERT INTO c SELECT id FROM child LIMIT 1; DROP TABLE child; "
         "ALTER TABLE c RENAME TO child"),
        [Loss("rows", "child", 2), Loss("column", "child", 3, "parent_id")],
    ),
    "cascade": (ENFORCED + "DELETE FROM parent WHERE id = 1;", [Loss("rows", "child", 2)]),
    "cascade of a drop": (
        ENFORCED + "-- allows: data-loss parent\n"
                   "DROP TABLE parent; CREATE TABLE parent (id INTEGER PRIMARY KEY, name);",
        [Loss("rows", "child", 3)],
    ),
    "cascade of a replacement": (
        ENFORCED + "REPLACE INTO parent (id, name) VALUES (1, 'z');", [Loss("rows", "child", 2)],
    ),
    "cascade in the same table": (ENFORCED + "DELETE FROM tree WHERE id = 1;", [Loss("rows", "tree", 2)]),
    "cascade in two": (
        ENFORCED + "CREATE TABLE grandchild (id REFERENCES child (id) ON DELETE CASCADE); "
                   "INSERT INTO grandchild VALUES (10);"
        "DELETE FROM parent WHERE name = 'b'; DELETE FROM parent WHERE name = 'a'; SELECT 1;",
        [Loss("rows", "child", 1), Loss("rows", "child", 2)],
    ),
    "trigger of a deletion": (
        ("CREATE TRIGGER t AFTER DELETE ON child BEGIN DELETE FROM tree WHERE id = 4; END; "
         "DELETE FROM child WHERE id = 10;"),
        [Loss("rows", "tree", 1)],
    ),
    "trigger of an insertion": (
        "CREATE TRIGGER t AFTER INSERT ON empty BEGIN DELETE FROM child; END; INSERT INTO empty VALUES (1, 1), (2, 2);",
        [Loss("rows", "child", 3)],
    ),
    "trigger of an update": (
        ("CREATE TRIGGER t AFTER UPDATE ON child BEGIN DELETE FROM child WHERE id > new.id; END; "
         "UPDATE child SET parent_id = 1 WHERE id = 10"),
        [Loss("rows", "child", 2)],
    ),
    "trigger after a virtual table": (
        ("CREATE TRIGGER t AFTER DELETE ON child BEGIN DELETE FROM tree WHERE id = 4; END; "
         "INSERT INTO docs VALUES ('three');"
        "DELETE FROM child WHERE id = 10;"),
        [Loss("rows", "tree", 1)],
    ),
    "a table of the same name that is temporary": (
        "CREATE TEMP TABLE child (id); DROP TABLE temp.child; CREATE TEMP TABLE tree (x); DROP TABLE main.tree;",
        [Loss("table", "tree", 4)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "losses"), LOSSES.values(), ids=LOSSES)
def test_apply_undeclared_loss_is_refused_and_undone(path, url, folder, script, losses):
    """What a script loses without saying so is told to the row, and everything is as before."""
    before = dump(path)
    write(folder, {"2_x.sql": script})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, folder, snapshots=0)
    assert list(caught.value.violations) == list(caught.value.details) == losses
    assert caught.value.committed == ()
    message = str(caught.value)
    assert message.startswith(f"{folder / '2_x.sql'} loses data without saying that it means to\n")
    assert message.endswith(f"\nNothing was changed.\n{caught.value.advice}")
    for loss in losses:
        assert f"  {loss}\n" in message
        assert f"`{loss.declaration}`" in message
        assert f" --allow-loss {shlex.quote(loss.name)}" in message
    assert "at the top of 2_x.sql, or allow it for this run with --allow-loss " in message
    assert without_schema_note(dump(path)) == without_schema_note(before)


def without_schema_note(content):
    """Return a database's content but for the number that only counts changes of the schema."""
    return {name: rows for name, rows in content.items() if name != "_dao_schema"}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("script", "losses"), LOSSES.values(), ids=LOSSES)
def test_apply_declared_loss_is_applied_and_noted(url, folder, script, losses):
    """With the lines that the refusal names, the script is applied, and the history says what was lost."""
    declarations = "".join(f"{loss.declaration}\n" for loss in losses)
    write(folder, {"2_x.sql": declarations + script})
    (result,) = migrate.apply(url, folder, snapshots=0)
    assert [loss for loss in result.losses if loss in losses] == losses
    detail = migrate.history(url)[-1].detail
    assert all(f"lost {loss}" in detail for loss in losses)
    assert migrate.status(url, folder).is_current


def test_apply_loss_that_is_allowed_for_this_run_is_applied_and_noted(path, url, folder):
    """The option serves one run; the history still says what was lost."""
    write(folder, {"2_x.sql": "DROP TABLE child;", "3_y.sql": "DROP TABLE tree;"})
    assert ids(migrate.apply(url, folder, steps=1, allow_data_loss=True)) == ["2_x"]
    assert migrate.history(url)[-1].detail == "lost child: the table is dropped with 3 rows"
    with pytest.raises(CheckFailed, match="tree: the table is dropped with 4 rows"):
        migrate.apply(url, folder)
    assert "tree" in tables(path)


def test_apply_declaration_of_another_table_allows_nothing_else(url, folder):
    """A declaration is for what it names."""
    write(
        folder, {"2_x.sql": "-- allows: data-loss child, tree\n-- allows: drop table docs\n" + rebuilt("WHERE id = 1")}
    )
    with pytest.raises(CheckFailed, match="person: 2 rows"):
        migrate.apply(url, folder)


def test_apply_loss_in_the_second_script_undoes_the_first(path, url, folder):
    """All or none: what a run refuses at its end was never there."""
    write(folder, {"2_x.sql": "CREATE TABLE x (id);", "3_y.sql": "DROP TABLE child;"})
    with pytest.raises(CheckFailed, match="Nothing was changed"):
        migrate.apply(url, folder)
    assert "x" not in tables(path)
    with pytest.raises(CheckFailed, match="These stay committed: 2_x"):
        migrate.apply(url, folder, each=True)
    assert "x" in tables(path)
    assert migrate.status(url, folder).ids("pending") == ["3_y"]


def test_apply_loss_outside_of_a_transaction_leaves_it_unfinished(path, url, folder):
    """What cannot be undone is not noted as applied: somebody has to look."""
    write(folder, {"2_x.sql": ALONE + "DROP TABLE child;"})
    with pytest.raises(CheckFailed, match=r"child: the table is dropped with 3 rows.*(?s:.)*dao migrate resolve 2_x"):
        migrate.apply(url, folder)
    assert "child" not in tables(path)
    assert migrate.status(url, folder).ids("unfinished") == ["2_x"]


def test_apply_declared_loss_outside_of_a_transaction_is_applied(url, folder):
    """The declaration counts there, too."""
    write(folder, {"2_x.sql": ALONE + "-- allows: drop table child\nDROP TABLE child; VACUUM;"})
    assert ids(migrate.apply(url, folder)) == ["2_x"]
    assert "child" in migrate.history(url)[-1].detail


# ---------------------------------------------------------------- no loss

HARMLESS = {
    **{f"{rebuild.__name__} with all rows": rebuild() for rebuild in REBUILDS},
    **{
        f"{rebuild.__name__}, rows deleted before": "DELETE FROM person WHERE id > 1;" + rebuild()
        for rebuild in REBUILDS
    },
    **{
        f"{rebuild.__name__}, rows deleted after": rebuild(after="DELETE FROM person WHERE id > 1")
        for rebuild in REBUILDS
    },
    **{
        f"{rebuild.__name__}, rows added": rebuild(
            after="INSERT INTO person VALUES (7, 'x', 'y'); DELETE FROM person WHERE id IN (7, 1)"
        )
        for rebuild in REBUILDS
    },
    **{
        f"{rebuild.__name__}, rows added before": f"INSERT INTO person (id) VALUES (7); {rebuild()}"
        for rebuild in REBUILDS
    },
    **{
        f"{rebuild.__name__}, rows replaced": rebuild(
            after="INSERT OR REPLACE INTO person VALUES (1, 'x', 'y'), (9, 'x', 'y');"
            "INSERT INTO person VALUES (2, 'x', 'y') ON CONFLICT DO UPDATE SET name = 'z';"
            "INSERT OR IGNORE INTO person VALUES (2, 'x', 'y')"
        )
        for rebuild in REBUILDS
    },
    "rebuild into a table that replaces": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, x); INSERT INTO new SELECT id, up FROM tree;"
        "INSERT INTO new VALUES (1, 1); CREATE TABLE t AS SELECT id, x AS up FROM new; DROP TABLE tree;"
        "ALTER TABLE new RENAME TO tree; ALTER TABLE tree RENAME COLUMN x TO up; INSERT INTO tree VALUES (1, 1);"
    ),
    "rebuild, rows deleted on the new table": rebuilt(before="DELETE FROM new WHERE id = 1"),
    "rebuild, rows deleted from the old one": rebuilt_the_other_way(before="DELETE FROM old WHERE id = 2"),
    "rebuild through a temporary name": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, up); INSERT INTO new SELECT * FROM tree; "
        "ALTER TABLE tree RENAME TO old;"
        "DELETE FROM new WHERE id = 1; ALTER TABLE new RENAME TO tree; DELETE FROM tree WHERE id = 2; DROP TABLE old;"
    ),
    "rebuild in another case": (
        "CREATE TABLE new AS SELECT * FROM tree; DROP TABLE TREE; ALTER TABLE NEW RENAME TO [Tree];"
    ),
    "rebuild twice": (
        "CREATE TABLE n AS SELECT * FROM tree; DROP TABLE tree; ALTER TABLE n RENAME TO tree;"
        "CREATE TABLE n AS SELECT * FROM tree; DROP TABLE tree; ALTER TABLE n RENAME TO tree;"
    ),
    "rebuild of a virtual table": (
        "CREATE VIRTUAL TABLE d USING fts5 (body, tokenize = trigram); INSERT INTO d SELECT body FROM docs;"
        "DROP TABLE docs; ALTER TABLE d RENAME TO docs;"
    ),
    "rebuild in its savepoint": (
        "SAVEPOINT s; CREATE TABLE n AS SELECT * FROM tree; DROP TABLE tree; ALTER TABLE n RENAME TO tree; RELEASE s;"
    ),
    "drop that is taken back": "SAVEPOINT s; DROP TABLE child; ROLLBACK TO s; RELEASE s;",
    "delete": "DELETE FROM child; DELETE FROM parent WHERE id = 3; DELETE FROM tree WHERE id = 4 RETURNING *;",
    "delete, then drop": "DELETE FROM child; DROP TABLE child;",
    "delete with": "WITH x (i) AS (VALUES (10)) DELETE FROM child WHERE id IN (SELECT i FROM x);",
    "delete through a view": "DELETE FROM view WHERE id = 2; SELECT 1;",
    "delete and cascade on nobody": ENFORCED + "DELETE FROM parent WHERE id = 3;",
    "cascade onto what was deleted": (
        ENFORCED + "DELETE FROM child WHERE parent_id = 1; DELETE FROM parent WHERE id = 1;"
    ),
    "cascade onto a table of its own": (
        ENFORCED + "CREATE TABLE x (id REFERENCES child (id) ON DELETE CASCADE); INSERT INTO x VALUES (10);"
        "DELETE FROM child WHERE id = 10;"
    ),
    "cascade that sets null": (
        ENFORCED + "CREATE TABLE x (id REFERENCES child (id) ON DELETE SET NULL); INSERT INTO x VALUES (10);"
        "DELETE FROM child WHERE id = 10;"
    ),
    "delete from a virtual table": (
        "DELETE FROM docs WHERE body = 'one'; INSERT INTO docs (docs) VALUES ('rebuild'); SELECT 1;"
    ),
    "delete after a virtual table": "CREATE VIRTUAL TABLE v USING rtree (id, a, b); DELETE FROM child; SELECT 1;",
    "delete after an insertion into a virtual table": (
        "INSERT INTO docs VALUES ('x'); DELETE FROM child; UPDATE docs SET body = 'y'; DELETE FROM tree;"
    ),
    "virtual table renamed": (
        "ALTER TABLE docs RENAME TO texts; DELETE FROM texts; INSERT INTO texts VALUES ('a'); SELECT 1"
    ),
    "virtual table of its own": (
        "CREATE VIRTUAL TABLE v USING fts5 (x); INSERT INTO v VALUES ('x'); DROP TABLE v; SELECT 1"
    ),
    "trigger that moves": (
        "CREATE TRIGGER t AFTER UPDATE OF up ON tree BEGIN DELETE FROM child WHERE id = 10; "
        "INSERT INTO child VALUES (10, 3); END;"
        "UPDATE tree SET up = 1 WHERE id = 3;"
    ),
    "replacement": "REPLACE INTO parent (id, name) VALUES (1, 'z'); UPDATE OR REPLACE person SET id = 1 WHERE id = 2;",
    "rename": "ALTER TABLE child RENAME TO kid; ALTER TABLE docs RENAME TO texts;",
    "rename round": "ALTER TABLE child RENAME TO x; ALTER TABLE tree RENAME TO child; ALTER TABLE x RENAME TO tree;",
    "rename and a new one": "ALTER TABLE child RENAME TO kid; CREATE TABLE child (id); DROP TABLE child;",
    "column renamed": "ALTER TABLE child RENAME COLUMN parent_id TO mother_id;",
    "constraints": (
        "ALTER TABLE pairs ALTER COLUMN a SET NOT NULL; ALTER TABLE pairs ALTER COLUMN a DROP NOT NULL;"
        "ALTER TABLE pairs ADD CONSTRAINT b CHECK (b > 0); ALTER TABLE pairs DROP CONSTRAINT b;"
    ),
    "column added": "ALTER TABLE child ADD COLUMN x; ALTER TABLE child ADD COLUMN y DEFAULT 3;",
    "column without values": "ALTER TABLE person DROP COLUMN note;",
    "column that was emptied": 'UPDATE "Odd ""Näme, 2" SET c = NULL; ALTER TABLE "Odd ""Näme, 2" DROP COLUMN c;',
    "generated column": "ALTER TABLE person DROP COLUMN shout;",
    "column of an empty table": "ALTER TABLE empty DROP COLUMN x;",
    "empty table": "DROP TABLE empty;",
    "empty table rebuilt": "DROP TABLE empty; CREATE TABLE empty (id);",
    "column without values in a rebuild": (
        "CREATE TABLE n (id INTEGER PRIMARY KEY, name); INSERT INTO n SELECT id, name FROM person;"
        "DROP TABLE person; ALTER TABLE n RENAME TO person"
    ),
    "column that is generated now": (
        "CREATE TABLE n (id INTEGER PRIMARY KEY, parent_id AS (id % 2)); INSERT INTO n SELECT id FROM child;"
        "DROP TABLE child; ALTER TABLE n RENAME TO child; DELETE FROM child;"
    ),
    "table of its own": (
        "CREATE TABLE x (id); INSERT INTO x VALUES (1); DELETE FROM x; INSERT INTO x VALUES (2); DROP TABLE x;"
    ),
    "temporary table": "CREATE TEMP TABLE x (id); INSERT INTO x VALUES (1); DROP TABLE x;",
    "temporary table of the same name": (
        "CREATE TEMP TABLE child (id, parent_id); DELETE FROM temp.child; DROP TABLE temp.child;"
    ),
    "names that differ in a letter which SQLite does not fold": (
        "CREATE TABLE ä (id); CREATE TABLE Ä (id); INSERT INTO ä VALUES (1); ALTER TABLE ä RENAME TO x; DROP TABLE Ä;"
    ),
    "ledger's own": "ANALYZE; REINDEX; PRAGMA table_info(child); EXPLAIN DELETE FROM tree;",
}  # fmt: skip


@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS)
def test_apply_script_that_loses_nothing_is_applied(url, folder, script):
    """What a DELETE names, what is carried over and what is empty needs no declaration."""
    write(folder, {"2_x.sql": script})
    (result,) = migrate.apply(url, folder, snapshots=0)
    assert result.losses == ()
    assert migrate.history(url)[-1].detail is None


def test_apply_drop_of_a_table_that_differs_in_a_letter_which_sqlite_does_not_fold_is_told(path, url, folder):
    """Ä and ä are two tables to SQLite, so they are two here."""
    query(path, "CREATE TABLE ä (id); CREATE TABLE Ä (id); INSERT INTO ä VALUES (1); INSERT INTO Ä VALUES (1), (2);")
    write(folder, {"2_x.sql": "DROP TABLE ä;"})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, folder)
    assert caught.value.violations == (Loss("table", "ä", 1),)


def test_apply_losses_are_told_in_the_order_in_which_their_tables_were_made(path, url, tmp_path):
    """The same loss is the same message each time."""
    names = [f"t{number}" for number in (3, 1, 4, 0, 5, 9, 2, 6)]
    query(path, "".join(f"CREATE TABLE {name} (id); INSERT INTO {name} VALUES (1);" for name in names))
    folder = write(tmp_path / "drops", {"1.sql": "".join(f"DROP TABLE {name};" for name in sorted(names))})
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, folder)
    assert [loss.table for loss in caught.value.violations] == names


# ---------------------------------------------------------------- rollback and redo

#: Three migrations: a table; another and a column of the first; and one that rebuilds what was there.
PAIRS = {
    "1_t.sql": "CREATE TABLE t (id INTEGER PRIMARY KEY);",
    "1_t.rollback.sql": "DROP TABLE t;",
    "2_u.sql": "CREATE TABLE u (id); ALTER TABLE t ADD COLUMN name;",
    "2_u.rollback.sql": "DROP TABLE u; ALTER TABLE t DROP COLUMN name;",
    "3_v.sql": 'CREATE TABLE v (id); ALTER TABLE u ADD COLUMN "x y"; INSERT INTO v VALUES (1);',
    "3_v.rollback.sql": (
        "CREATE TABLE n (id); INSERT INTO n SELECT id FROM u; DROP TABLE u; ALTER TABLE n RENAME TO u; DROP TABLE v;"
    ),
}  # fmt: skip


@pytest.fixture
def pairs(url, path, tmp_path):
    """A folder of three pairs that are applied, and rows in every table and column."""
    folder = write(tmp_path / "pairs", PAIRS)
    migrate.apply(url, folder)
    query(path, "INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (1, 'c'); INSERT INTO v VALUES (2);")
    return folder


def test_rollback_may_drop_what_its_own_migration_made(path, url, pairs):
    """A rollback takes away what its migration brought, rows included; the history says what that was."""
    assert ids(migrate.rollback(url, pairs, steps=None)) == ["3_v", "2_u", "1_t"]
    assert tables(path) == []
    details = [deed.detail for deed in migrate.history(url) if deed.operation == "rollback"]
    assert details == [
        "lost v: the table is dropped with 2 rows",
        "lost u: the table is dropped with 1 row",
        "lost t: the table is dropped with 2 rows",
    ]


def test_plan_of_a_rollback_says_what_it_drops_of_its_own(url, pairs):
    """Whoever plans a rollback reads which tables and columns go with their rows."""
    steps = migrate.plan(url, pairs, direction="rollback", steps=None)
    assert [step.drops for step in steps] == [
        ("column u.x y", "table v"),
        ("column t.name", "table u"),
        ("table t",),
    ]
    assert all(step.drops == () for step in migrate.plan(url, pairs))


NOT_ITS_OWN = {
    "table": ("DROP TABLE v; DROP TABLE t;", "t: the table is dropped with 2 rows"),
    "column": ("DROP TABLE v; ALTER TABLE t DROP COLUMN name;", "t.name: the column is dropped"),
    "rows": (
        (
            "DROP TABLE v; CREATE TABLE n (id, name); INSERT INTO n SELECT * FROM t LIMIT 1; DROP TABLE t; "
            "ALTER TABLE n RENAME TO t;"
        ),
        "t: 1 row that no DELETE of the script names",
    ),
    "cascade": (
        (
            "-- foreign_keys: on\nDROP TABLE v; CREATE TABLE w (id REFERENCES t (id) ON DELETE CASCADE);"
            "CREATE TRIGGER c AFTER DELETE ON t BEGIN DELETE FROM u; END; DELETE FROM t"
        ),
        "u: 1 row that no DELETE of the script names",
    ),
}


@pytest.mark.parametrize(("script", "loss"), NOT_ITS_OWN.values(), ids=NOT_ITS_OWN)
def test_rollback_loss_of_what_its_migration_did_not_make_is_refused(path, url, pairs, script, loss):
    """What others made, and rows of it, go with a declaration only; its own need none."""
    before = dump(path)
    write(pairs, {"3_v.rollback.sql": script})
    migrate.accept(url, ["3_v"], pairs)
    with pytest.raises(CheckFailed, match=loss) as caught:
        migrate.rollback(url, pairs)
    assert [violation.table for violation in caught.value.violations] == [loss.partition(":")[0].partition(".")[0]]
    assert "at the top of 3_v.rollback.sql" in str(caught.value)
    assert dump(path)["t"] == before["t"]
    assert ids(migrate.rollback(url, pairs, allow_data_loss=True)) == ["3_v"]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_rollback_from_the_ledger_may_lose_what_its_text_says(path, url, tmp_path, declared):
    """With the file gone, the declaration in the ledger's text counts; without one, only the option is left."""
    declaration = "-- allows: drop table t\n" if declared else ""
    scripts = {"1_t.sql": "CREATE TABLE t (id); INSERT INTO t VALUES (1);", "2_x.sql": "CREATE TABLE x (id);"}
    folder = write(tmp_path / "sql", scripts | {"2_x.rollback.sql": f"{declaration}DROP TABLE t; DROP TABLE x;"})
    migrate.apply(url, folder)
    query(path, "INSERT INTO x VALUES (1)")
    for name in ("2_x.sql", "2_x.rollback.sql"):
        (folder / name).unlink()
    if not declared:
        with pytest.raises(CheckFailed, match=r"2_x loses data .*(?s:.)* if that is meant, allow it for this run with"):
            migrate.rollback(url, folder)
        assert tables(path) == ["t", "x"]
    assert ids(migrate.rollback(url, folder, allow_data_loss=not declared)) == ["2_x"]
    assert tables(path) == []


def test_rollback_of_what_the_stock_yoyo_applied_may_drop_what_its_file_makes(path, url, pairs):
    """Where the ledger has no text, the file says what a migration made."""
    query(path, "DELETE FROM _dao_migration")
    assert ids(migrate.rollback(url, pairs, steps=2)) == ["3_v", "2_u"]
    assert query(path, "SELECT * FROM t") == [(1,), (2,)]


def test_rollback_of_migrations_that_cannot_be_replayed_needs_a_declaration(path, url, tmp_path):
    """If it cannot be told what a migration made, nothing counts as its own."""
    query(path, "CREATE TABLE theirs (id); INSERT INTO theirs VALUES (1)")
    folder = write(
        tmp_path / "sql",
        {"1_x.sql": "CREATE TABLE x AS SELECT * FROM theirs;", "1_x.rollback.sql": "DROP TABLE x;"},
    )
    migrate.apply(url, folder)
    assert migrate.plan(url, folder, direction="rollback")[0].drops == ()
    with pytest.raises(CheckFailed, match="x: the table is dropped with 1 row"):
        migrate.rollback(url, folder)
    write(folder, {"1_x.rollback.sql": "-- allows: drop table x\nDROP TABLE x;"})
    migrate.accept(url, ["1_x"], folder)
    assert ids(migrate.rollback(url, folder)) == ["1_x"]


def test_redo_loses_its_own_rows_and_no_others(path, url, pairs):
    """What a migration made may go when it is done again; what its new text loses of others may not."""
    assert ids(migrate.redo(url, pairs)) == ["3_v", "3_v"]
    assert query(path, "SELECT * FROM v") == [(1,)]
    write(pairs, {"3_v.sql": PAIRS["3_v.sql"] + "DROP TABLE t;"})
    with pytest.raises(CheckFailed, match=r"t: the table is dropped with 2 rows(?s:.)*at the top of 3_v\.sql"):
        migrate.redo(url, pairs)
    assert query(path, "SELECT * FROM t") == [(1, "a"), (2, "b")]
    assert ids(migrate.redo(url, pairs, allow_data_loss=True)) == ["3_v", "3_v"]


# ---------------------------------------------------------------- the cost

CHEAP = """
CREATE TABLE {0} (id INTEGER PRIMARY KEY, x REFERENCES parent (id));
CREATE INDEX {0}_x ON {0} (x);
INSERT INTO {0} (x) SELECT id FROM parent;
UPDATE {0} SET x = 1;
DELETE FROM {0} WHERE x > 1;
DELETE FROM child;
ALTER TABLE person ADD COLUMN age;
ALTER TABLE person RENAME COLUMN note TO notes;
ALTER TABLE parent RENAME TO mother;
DROP VIEW view;
"""


def statements_of(theirs: apsw.Connection, folder, **arguments) -> list[str]:
    """Apply what is pending on a connection and return every statement that ran on it."""
    seen: list[str] = []
    theirs.exec_trace = lambda _cursor, sql, _bindings: seen.append(sql) or True
    migrate.apply(theirs, folder, snapshots=0, **arguments)
    theirs.exec_trace = None
    return seen


def test_apply_script_that_drops_nothing_counts_no_rows(theirs, folder):
    """What cannot lose rows is not counted, however it writes; a DELETE that fires nothing names its own."""
    write(folder, {"2_x.sql": CHEAP.format("x")})
    assert [sql for sql in statements_of(theirs, folder) if "count(" in sql] == []
    write(folder, {"3_y.sql": "DROP TABLE empty;"})
    assert [sql for sql in statements_of(theirs, folder) if "count(" in sql] == ['SELECT count(*) FROM main."empty"']


def test_apply_many_insertions_cost_no_statement_of_the_guard(theirs, folder):
    """The guard asks nothing about rows that come in, be they ten or a thousand.

    That holds for a table of the script's own, too, and for one with a trigger.
    """
    numbers = []
    for number, rows in ((2, 10), (3, 1000)):
        script = (
            f"CREATE TABLE x{number} (id);"
            f"CREATE TRIGGER g{number} AFTER INSERT ON empty BEGIN UPDATE empty SET x = new.id WHERE id = new.id; END;"
            + f"INSERT INTO x{number} VALUES (1); INSERT INTO tree (up) VALUES (1); INSERT INTO empty (x) VALUES (1);"
            * rows
        )
        write(folder, {f"{number}_x.sql": script})
        numbers.append(len(statements_of(theirs, folder)))
    assert numbers[0] == numbers[1]


def test_the_catalog_is_not_read_for_each_script(tmp_path, monkeypatch):
    """It was, to see whether there are virtual tables: a thousand scripts that make a table took 2.5 times as long."""
    read = []
    definitions = catalog.definitions
    monkeypatch.setattr(
        catalog, "definitions", lambda *given, **options: read.append(1) or definitions(*given, **options)
    )
    often = {}
    for count in (20, 40):
        scripts = {
            f"{number:03}_t{number}.sql": f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY)" for number in range(count)
        }
        read.clear()
        migrate.apply(f"sqlite:///{tmp_path}/{count}.db", write(tmp_path / f"{count}", scripts))
        often[count] = len(read)
    assert often[40] == often[20] > 0
