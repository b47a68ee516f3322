"""The guard of rows on PostgreSQL: what only it has, cascades of TRUNCATE, blocks, triggers, partitions, schemas."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from dao import migrate
from dao.errors import CheckFailed
from dao.migrate.values import Loss
from tests.folders import ALONE, ids, write

SETUP = """
CREATE TABLE parent (id int PRIMARY KEY, name text, shout text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE);
CREATE TABLE "Odd ""Näme, 2" ("a.b" int, c int);
CREATE TABLE parts (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE SCHEMA far;
CREATE TABLE far.off (id int PRIMARY KEY, x text);
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE felt (id int PRIMARY KEY, mood mood);
CREATE TABLE noted (id int PRIMARY KEY);
CREATE TABLE quiet (id int PRIMARY KEY, x text);
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN DELETE FROM noted WHERE id = OLD.id; RETURN NEW; END';
CREATE TRIGGER forget BEFORE UPDATE ON felt FOR EACH ROW EXECUTE FUNCTION forget();
CREATE FUNCTION purge() RETURNS void LANGUAGE sql AS 'DELETE FROM noted';
CREATE FUNCTION take() RETURNS int LANGUAGE plpgsql AS 'BEGIN DROP TABLE child; RETURN 1; END';
CREATE FUNCTION cut() RETURNS int LANGUAGE plpgsql AS 'BEGIN ALTER TABLE parent DROP name CASCADE; RETURN 1; END';
CREATE FUNCTION empty() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN TRUNCATE child; RETURN NULL; END';
CREATE TRIGGER empty AFTER INSERT ON quiet EXECUTE FUNCTION empty();
"""
ROWS = """
INSERT INTO parent (id, name) VALUES (1, 'a'), (2, 'b'), (3, NULL);
INSERT INTO child VALUES (10, 1), (11, 1), (12, 2);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL);
INSERT INTO "Odd ""Näme, 2" VALUES (1, NULL), (2, 5);
INSERT INTO parts VALUES (1, 'a'), (2, 'a'), (3, 'b');
INSERT INTO far.off VALUES (1, 'x');
INSERT INTO felt VALUES (1, 'sad'), (2, 'glad');
INSERT INTO noted VALUES (1), (7);
"""
NEW = "CREATE TABLE new (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);"
COPY = "INSERT INTO new SELECT id, parent FROM child"
SWAP = "DROP TABLE child; ALTER TABLE new RENAME TO child;"


@pytest.fixture
def folder(tmp_path):
    """A folder with a migration that is applied to the database."""
    return write(tmp_path / "sql", {"1_setup.sql": SETUP})


def set_up(url, folder):
    """Apply the migration, and store rows."""
    migrate.apply(url, folder)
    with psycopg.connect(url) as connection:
        connection.execute(ROWS)


@pytest.fixture
def url(prepared_by, folder):
    """A database with rows, in which a migration is applied."""
    return prepared_by(set_up, folder)


LOSSES = {
    "cascade onto itself": ("DELETE FROM tree WHERE id = 1", [Loss("rows", "tree", 2)]),
    "with": (
        "WITH gone AS (DELETE FROM parent WHERE id = 1 RETURNING id) SELECT * FROM gone",
        [Loss("rows", "child", 2)],
    ),
    "trigger": ("UPDATE felt SET mood = 'glad'", [Loss("rows", "noted", 1)]),
    "function": ("SELECT purge()", [Loss("rows", "noted", 2)]),
    "function that drops": ("SELECT take()", [Loss("table", "child", 3)]),
    "function that drops, among others": (
        "DELETE FROM child WHERE id = 10; UPDATE tree SET up = NULL; SELECT take(); INSERT INTO tree VALUES (9)",
        [Loss("table", "child", 2)],
    ),
    "function in an UPDATE": ("UPDATE tree SET up = NULL WHERE take() > id AND id = 4", [Loss("table", "child", 3)]),
    "function that drops a column": ("VALUES (cut())", [Loss("column", "parent", 3, "name")]),
    "trigger that truncates": ("INSERT INTO quiet VALUES (1)", [Loss("rows", "child", 3)]),
    "truncate cascade": ("TRUNCATE parent CASCADE", [Loss("rows", "child", 3)]),
    "block that truncates": ("DO $$ BEGIN TRUNCATE parent CASCADE; END $$", [Loss("rows", "child", 3)]),
    "block that drops": ("DO $$ BEGIN EXECUTE 'DROP TABLE ' || 'child'; END $$", [Loss("table", "child", 3)]),
    "block that deletes unseen": (
        "DO $$ BEGIN EXECUTE format('DELETE FROM %I', 'child'); END $$",
        [Loss("rows", "child", 3)],
    ),
    "several": ("DROP TABLE child, tree", [Loss("table", "child", 3), Loss("table", "tree", 4)]),
    "odd name": ('DROP TABLE "Odd ""Näme, 2"', [Loss("table", 'Odd "Näme, 2', 2)]),
    "odd column": ('ALTER TABLE "Odd ""Näme, 2" DROP COLUMN "a.b"', [Loss("column", 'Odd "Näme, 2', 2, "a.b")]),
    "partition": ("DROP TABLE parts_a", [Loss("table", "parts_a", 2)]),
    "partitioned table": ("DROP TABLE parts", [Loss("table", "parts", 3)]),
    "schema": ("DROP SCHEMA far CASCADE", [Loss("table", "far.off", 1)]),
    "table elsewhere": ("DROP TABLE far.off", [Loss("table", "far.off", 1)]),
    "column elsewhere": ("ALTER TABLE far.off DROP x", [Loss("column", "far.off", 1, "x")]),
    "type": ("DROP TYPE mood CASCADE", [Loss("column", "felt", 2, "mood")]),
    "rebuild without some": (f"{NEW} {COPY} WHERE id <> 10; {SWAP}", [Loss("rows", "child", 1)]),
    "rebuild of others": (f"{NEW} INSERT INTO new VALUES (1, 1), (2, 1), (3, 1); {SWAP}", [Loss("rows", "child", 3)]),
    "rebuild without values": (
        f"{NEW} INSERT INTO new (id) SELECT id FROM child; {SWAP}",
        [Loss("column", "child", 3, "parent")],
    ),
    "rebuild without a column": (
        "CREATE TABLE new AS SELECT id FROM child; DROP TABLE child; ALTER TABLE new RENAME TO child",
        [Loss("column", "child", 3, "parent")],
    ),
    "a column of another name": (
        "ALTER TABLE parent ADD y text DEFAULT 'y', DROP name CASCADE; ALTER TABLE parent RENAME y TO name",
        [Loss("column", "parent", 3, "name")],
    ),
    "after a savepoint": ("SAVEPOINT a; SELECT 1; RELEASE a; DROP TABLE child", [Loss("table", "child", 3)]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_run_that_loses_data_is_refused(url, folder, name):
    """What no DELETE or TRUNCATE names is a loss, whoever takes it: the catalog and the server's counters tell."""
    script, losses = LOSSES[name]
    write(folder, {"2_x.sql": script})
    with pytest.raises(CheckFailed) as raised:
        migrate.apply(url, folder)
    assert sorted(raised.value.violations, key=str) == sorted(losses, key=str)
    (result,) = migrate.apply(url, write(folder, {"2_x.sql": script}), allow_loss=[loss.name for loss in losses])
    assert sorted(result.losses, key=str) == sorted(losses, key=str)


KEPT = {
    "delete": "DELETE FROM child; DELETE FROM parent WHERE id = 1",
    "delete in a block": "DO $$ BEGIN DELETE FROM child; END $$",
    "delete of another's rows": "DELETE FROM child USING parent WHERE parent = parent.id",
    "prepared": "PREPARE p AS DELETE FROM child; SELECT 1; EXECUTE p; DEALLOCATE p",
    "block that rewrites": "DO $$ BEGIN ALTER TABLE child ALTER parent TYPE bigint; END $$",
    "block that rebuilds": "DO $$ BEGIN CREATE TABLE new AS TABLE child; DROP TABLE child; "
    "ALTER TABLE new RENAME TO child; END $$",
    "function that rebuilds": "CREATE FUNCTION again() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TABLE new AS "
    "TABLE child; DROP TABLE child; ALTER TABLE new RENAME TO child; RETURN 1; END'; SELECT again()",
    "clustered": "CLUSTER child USING child_pkey",
    "merge": "MERGE INTO child USING tree ON child.id = tree.id + 9 WHEN MATCHED THEN DELETE",
    "truncate": "TRUNCATE child, tree",
    "truncate only": "TRUNCATE TABLE ONLY far.off RESTART IDENTITY",
    "empty table": "DROP TABLE quiet",
    "generated column": "ALTER TABLE parent DROP COLUMN shout",
    "column without a value": 'DELETE FROM "Odd ""Näme, 2" WHERE c = 5; ALTER TABLE "Odd ""Näme, 2" DROP COLUMN c',
    "rows of a partition": "DELETE FROM parts WHERE kind = 'a'",
    "rows that move": "UPDATE parts SET kind = 'b' WHERE id = 1",
    "partition apart": "ALTER TABLE parts DETACH PARTITION parts_a",
    "moved": "ALTER TABLE child SET SCHEMA far",
    "renamed": "ALTER TABLE child RENAME TO offspring; ALTER TABLE offspring RENAME COLUMN parent TO up",
    "own table": "CREATE TABLE t AS SELECT * FROM child; DROP TABLE t",
    "rebuilt": f"{NEW} {COPY}; {SWAP}",
    "rebuilt over a rebuilt one": f"{NEW} {COPY}; CREATE TABLE newer AS SELECT * FROM new; DROP TABLE new, child; "
    "ALTER TABLE newer RENAME TO child",
    "rebuilt and more": f"{NEW} {COPY}; INSERT INTO new VALUES (99, 1); {SWAP} DELETE FROM child WHERE id = 10",
    "rebuilt the other way": "ALTER TABLE child RENAME TO old; CREATE TABLE child (LIKE old INCLUDING ALL); "
    "INSERT INTO child TABLE old; DROP TABLE old",
    "rewritten": "ALTER TABLE child ALTER parent TYPE bigint; ALTER TABLE child DROP CONSTRAINT child_pkey, "
    "ALTER id TYPE bigint",
    "retyped": "ALTER TABLE far.off ADD y text; UPDATE far.off SET y = x; ALTER TABLE far.off DROP x; "
    "ALTER TABLE far.off RENAME y TO x",
    "undone": "SAVEPOINT a; DROP TABLE child; DELETE FROM tree WHERE id = 1; ROLLBACK TO a; RELEASE a",
}


@pytest.mark.parametrize("name", KEPT)
def test_run_that_keeps_the_data_goes_through(url, folder, name):
    """What is deleted by name is meant; what is there again, or only moved, is no loss."""
    assert ids(migrate.apply(url, write(folder, {"2_x.sql": KEPT[name]}))) == ["2_x"]


@pytest.mark.parametrize(
    ("script", "losses"),
    [
        ("DROP TABLE child;", [Loss("table", "child", 3)]),
        ("DELETE FROM parent WHERE id = 1;", [Loss("rows", "child", 2)]),
        ("BEGIN; DROP TABLE child; COMMIT;", [Loss("table", "child", 3)]),
        ("SELECT take();", [Loss("table", "child", 3)]),
        ("BEGIN; SELECT take(); COMMIT;", [Loss("table", "child", 3)]),
        ("TRUNCATE parent CASCADE; CREATE INDEX CONCURRENTLY i ON tree (up)", [Loss("rows", "child", 3)]),
    ],
)
def test_run_outside_of_a_transaction_is_refused_before_the_loss(url, folder, script, losses):
    """There is no way back from a commit, so each statement is judged before its own."""
    write(folder, {"2_x.sql": ALONE + script})
    with pytest.raises(CheckFailed) as raised:
        migrate.apply(url, folder)
    assert list(raised.value.violations) == losses
    with contextlib.closing(psycopg.connect(url)) as connection:
        assert connection.execute("SELECT count(*) FROM child").fetchone() == (3,)


def test_run_outside_of_a_transaction_may_rebuild(url, folder):
    """A table that the rest of the script makes anew is not judged before that."""
    write(folder, {"2_x.sql": f"{ALONE}{NEW} {COPY}; {SWAP} VACUUM child"})
    (result,) = migrate.apply(url, folder)
    assert (result.statements, result.losses) == (5, ())


def test_run_outside_of_a_transaction_commits_in_blocks(url, folder):
    """A block that commits does not run in a transaction, and need not."""
    text = "DO $$ BEGIN FOR n IN 1..3 LOOP INSERT INTO quiet VALUES (n); COMMIT; END LOOP; END $$"
    assert ids(migrate.apply(url, write(folder, {"2_x.sql": ALONE + text}))) == ["2_x"]


def test_losses_are_told_with_the_script_that_has_them(url, folder):
    """Each loss is the script's that took it, though they are judged at the end of all."""
    write(folder, {"2_a.sql": "DROP TABLE tree", "3_b.sql": f"{NEW} {COPY}; {SWAP}", "4_c.sql": "DROP TABLE child"})
    with pytest.raises(CheckFailed) as raised:
        migrate.apply(url, folder)
    first, second = raised.value.details
    assert (first.split("/")[-1], second.split("/")[-1]) == (
        "2_a.sql: tree: the table is dropped with 4 rows",
        "4_c.sql: child: the table is dropped with 3 rows",
    )
