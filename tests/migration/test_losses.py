"""What a run loses is judged at its end, over all its scripts, and lint, rehearse and migrate say the same of it."""

from __future__ import annotations

import apsw
import pytest

from dao import migrate
from dao.errors import CheckFailed
from dao.migrate.values import Loss
from tests.folders import dump, ids, query, write

SETUP = """
CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT, replaced_by INTEGER);
CREATE TABLE twin (id INTEGER PRIMARY KEY, x TEXT, replaced_by INTEGER);
CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE found USING fts5 (body, content = 'docs', content_rowid = 'id');
CREATE VIRTUAL TABLE found4 USING fts4 (content=docs, body);
CREATE VIRTUAL TABLE words USING fts5vocab (found, 'row');
CREATE VIRTUAL TABLE bare USING fts5 (body, content = '');
CREATE VIRTUAL TABLE own USING fts5 (body);
CREATE VIRTUAL TABLE own4 USING fts4 (body);
CREATE VIRTUAL TABLE boxes USING rtree (id, low, high);
"""
ROWS = """
INSERT INTO t VALUES (1, '1', 3), (2, '2', NULL), (3, '3', NULL);
INSERT INTO docs VALUES (1, 'a b'), (2, 'c');
INSERT INTO found (found) VALUES ('rebuild');
INSERT INTO found4 (found4) VALUES ('rebuild');
INSERT INTO bare (rowid, body) VALUES (1, 'a');
INSERT INTO own VALUES ('a'), ('b');
INSERT INTO own4 VALUES ('a');
INSERT INTO boxes VALUES (1, 2, 3);
"""
NEW = "CREATE TABLE n (id INTEGER PRIMARY KEY, x TEXT, replaced_by INTEGER);"
COPY = "INSERT INTO n SELECT * FROM t;"
SWAP = "DROP TABLE t; ALTER TABLE n RENAME TO t;"
RETYPE = "ALTER TABLE t ADD COLUMN y INTEGER; UPDATE t SET y = CAST(x AS INTEGER);"
OTHERS = "INSERT INTO n SELECT id + 10, body, id FROM docs;"
RETYPE_AFTER_RENAMING = "ALTER TABLE t RENAME COLUMN x TO y; ALTER TABLE t ADD COLUMN x INTEGER; UPDATE t SET x = y;"
TAKE_OVER = "ALTER TABLE t DROP COLUMN x; ALTER TABLE t RENAME COLUMN y TO x;"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database that a migration was applied to, and which holds rows now, made once."""
    folder = tmp_path_factory.mktemp("filled")
    migrate.apply(f"sqlite:///{folder}/filled.db", write(folder / "sql", {"1_setup.sql": SETUP}))
    query(folder / "filled.db", ROWS)
    return (folder / "filled.db").read_bytes()


@pytest.fixture
def verdicts(path, url, tmp_path, filled):
    """Return what `lint`, `rehearse` and `apply` each say that a series of scripts loses undeclared."""

    def judge(scripts, **options):
        path.write_bytes(filled)
        before = dump(path)
        files = {f"{number}.sql": script for number, script in enumerate(scripts, 2)}
        folder = write(tmp_path / "sql", {"1_setup.sql": SETUP, **files})
        linted = {
            (
                int(finding.migration),
                finding.message.partition(" ")[0] if finding.code == "M002" else column_in(finding),
            )
            for finding in migrate.lint(folder).findings
            if finding.code in {"M002", "M003"} and finding.migration != "1_setup"
        }
        found = migrate.rehearse(url, folder, **options)
        rehearsed = {(int(one.id), loss.name) for one in found.migrations for loss in one.undeclared}
        assert dump(path) == before
        assert all(one.failure is None for one in found.migrations)
        if not rehearsed:
            assert ids(migrate.apply(url, folder, snapshots=0, **options)) == ids(found.migrations)
            return linted, set()
        with pytest.raises(CheckFailed) as refused:
            migrate.apply(url, folder, snapshots=0, **options)
        assert dump(path)["t"] == before["t"]
        assert {loss.name for loss in refused.value.violations} == {name for _, name in rehearsed}
        where = "{} loses data" if len({number for number, _ in rehearsed}) == 1 else "\n  {}: "
        assert all(where.format(folder / f"{number}.sql") in str(refused.value) for number, _ in rehearsed)
        return linted, rehearsed

    return judge


def column_in(finding):
    """Return the column that a finding names."""
    return next(word for word in finding.message.split() if "." in word)


#: Series of scripts that lose nothing.
HARMLESS = {
    "retyped in place": [RETYPE + TAKE_OVER],
    "retyped in place in two files": [RETYPE, TAKE_OVER],
    "retyped in place, then rebuilt": [RETYPE + TAKE_OVER, NEW + COPY + SWAP],
    "retyped in place, renamed first": [
        RETYPE_AFTER_RENAMING + "ALTER TABLE t DROP COLUMN y; ALTER TABLE t RENAME COLUMN x TO z;",
    ],
    "retyped in place, renamed first, in two files": [
        RETYPE_AFTER_RENAMING, "ALTER TABLE t DROP COLUMN y;" + NEW + COPY + SWAP,
    ],
    "retyped in a table that is renamed": [
        RETYPE + TAKE_OVER + "ALTER TABLE t RENAME TO s; ALTER TABLE s RENAME COLUMN x TO z;",
    ],
    "column of its own": ["ALTER TABLE t ADD COLUMN y DEFAULT 3; UPDATE t SET y = id; ALTER TABLE t DROP COLUMN y;"],
    "rebuild over three files": [NEW + COPY, "DROP TABLE t;", "ALTER TABLE n RENAME TO t;"],
    "rebuild over two files, the other way": [
        "ALTER TABLE t RENAME TO old;" + NEW.replace(" n ", " t "),
        "INSERT INTO t SELECT * FROM old; DROP TABLE old;",
    ],
    "rebuild, then renamed": [NEW + COPY + SWAP, "ALTER TABLE t RENAME TO s; ALTER TABLE s RENAME COLUMN x TO y;"],
    "rebuild twice, with changes between": [
        NEW + COPY + SWAP,
        "DELETE FROM t WHERE id = 1; INSERT INTO t (id) VALUES (7), (8);" + NEW + COPY + SWAP
        + "DELETE FROM t WHERE id = 8;",
    ],
    "rebuild that empties a column later": [NEW + COPY + SWAP, "UPDATE t SET replaced_by = NULL;"],
    "rebuild, and the only row with a value deleted": [NEW + COPY + SWAP, "DELETE FROM t WHERE id = 1;"],
    "rebuild over a temporary copy": [
        "CREATE TEMP TABLE n AS SELECT * FROM t; DROP TABLE t;" + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT * FROM n;",
    ],
    "rebuild through a view": [
        "CREATE VIEW v AS SELECT id, x, replaced_by FROM t;" + NEW + "INSERT INTO n SELECT * FROM v; DROP VIEW v;"
        + SWAP
    ],
    "rebuild through a WITH": [
        NEW + "WITH q AS (SELECT * FROM t), r AS (SELECT * FROM q) INSERT INTO n SELECT * FROM r;" + SWAP,
    ],
    "rebuild with rows of another table": [NEW + OTHERS + COPY + SWAP, NEW + OTHERS.replace("10", "20") + COPY + SWAP],
    "rebuild through a table of before": [
        "INSERT INTO twin SELECT * FROM t; DROP TABLE t;" + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT * FROM twin;"
    ],
    "rebuild over a temporary table that has the name of another": [
        "CREATE TEMP TABLE docs AS SELECT * FROM t; DROP TABLE t;" + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT * FROM docs;"
    ],
    "rebuild over a copy with other names": [
        "CREATE TEMP TABLE k (a, b, c); INSERT INTO k SELECT * FROM t; DROP TABLE t;" + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT a, b, c FROM k; DROP TABLE k;",
        "CREATE TABLE k AS SELECT id AS a, x AS b, replaced_by AS c FROM t; "
        "CREATE TABLE m AS SELECT a AS d, b AS e, c AS f FROM k; DROP TABLE k; DROP TABLE t;"
        + NEW.replace(" n ", " t ") + "INSERT INTO t SELECT d, e, f FROM m; DROP TABLE m;",
    ],
    "rebuild over a copy as JSON": [
        "CREATE TEMP TABLE k AS SELECT id, json_object('x', x, 'r', replaced_by) AS doc FROM t; DROP TABLE t;"
        + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT id, doc ->> 'x', doc ->> 'r' FROM k;",
    ],
    "column retyped over a copy with other names": [
        ("CREATE TEMP TABLE k AS SELECT id AS a, x AS b FROM t; ALTER TABLE t DROP COLUMN x; "
         "ALTER TABLE t ADD COLUMN x INTEGER;"
        "UPDATE t SET x = (SELECT b FROM k WHERE a = id);"),
    ],
    "rebuild over a temporary copy in a savepoint": [
        "SAVEPOINT s; CREATE TEMP TABLE k AS SELECT id AS a FROM t; ROLLBACK TO s; RELEASE s;"
        "CREATE TEMP TABLE k AS SELECT id AS a, x AS b, replaced_by AS c FROM t; DROP TABLE t;"
        + NEW.replace(" n ", " t ")
        + "INSERT INTO t SELECT a, b, c FROM k;",
    ],
    "rebuild that replaces rows": [NEW + COPY + SWAP, "REPLACE INTO t VALUES (1, 'z', 3), (9, 'z', 3);"],
    "index of a table whose column has another name now": [
        "ALTER TABLE docs RENAME COLUMN body TO text; DROP TABLE words; DROP TABLE found; DROP TABLE found4;",
    ],
    "index of another table": ["DROP TABLE words; DROP TABLE found; DROP TABLE found4;"],
    "index of no table": ["DROP TABLE bare;"],
    "index made anew": [
        ("DROP TABLE words; DROP TABLE found; "
         "CREATE VIRTUAL TABLE found USING fts5 (body, content = 'docs', tokenize = trigram);"
        "INSERT INTO found (found) VALUES ('rebuild');")
    ],
    "index rebuilt with its own text": [
        ("CREATE VIRTUAL TABLE o USING fts5 (body, tokenize = trigram); INSERT INTO o SELECT body FROM own;"
        "DROP TABLE own; ALTER TABLE o RENAME TO own;")
    ],
}  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize("scripts", HARMLESS.values(), ids=HARMLESS)
def test_scripts_that_keep_everything_to_the_end_lose_nothing(verdicts, scripts):
    """Nothing that is there at the end of a run is lost.

    It may be retyped, made by the run, moved over several files, or an index. Columns that were retyped in place,
    rebuilds over several files and virtual tables were refused, and lint, rehearse and migrate each said something
    else.
    """
    assert verdicts(scripts) == (set(), set())


#: Series of scripts, and what is lost by which of them.
LOSSES = {
    "retyped without its values": (["ALTER TABLE t ADD COLUMN y DEFAULT 0;" + TAKE_OVER], {(2, "t.x")}),
    "retyped without its values after a rebuild": (
        [NEW + COPY + SWAP + "ALTER TABLE t ADD COLUMN y DEFAULT 0;" + TAKE_OVER],
        {(2, "t.x")},
    ),
    "retyped from another column": (
        ["ALTER TABLE t ADD COLUMN y; UPDATE t SET y = replaced_by;", TAKE_OVER],
        {(3, "t.x")},
    ),
    "left out of the copy": (
        [NEW.replace("x TEXT", "x TEXT DEFAULT ''") + "INSERT INTO n (id, replaced_by) SELECT id, replaced_by FROM t;"
         + SWAP],
        {(2, "t.x")},
    ),
    "left out of the second copy": (
        [NEW + COPY + SWAP, NEW + "INSERT INTO n (id, x) SELECT id, x FROM t;" + SWAP],
        {(3, "t.replaced_by")},
    ),
    "renamed by the copy": (
        ["CREATE TABLE n (id INTEGER PRIMARY KEY, y, replaced_by); INSERT INTO n SELECT id, x, replaced_by FROM t;"
         + SWAP],
        {(2, "t.x")},
    ),
    "left out of a copy that an earlier script's temporary table had": (
        ["CREATE TEMP TABLE k AS SELECT id, x, replaced_by FROM t;",
         "CREATE TEMP TABLE k AS SELECT id, x AS b FROM t; DROP TABLE t;" + NEW.replace(" n ", " t ")
         + "INSERT INTO t (id, x) SELECT id, b FROM k;"],
        {(3, "t.replaced_by")},
    ),
    "never made anew": ([NEW + COPY, "DROP TABLE t;", "CREATE TABLE s (id);"], {(3, "t")}),
    "made anew without rows": (["DROP TABLE t;", NEW.replace(" n ", " t ")], {(2, "t")}),
    "made anew without rows, and rebuilt later": (
        ["DROP TABLE t;" + NEW.replace(" n ", " t "), NEW + COPY + SWAP], {(2, "t")},
    ),
    "filled from another table": ([NEW + OTHERS + SWAP], {(2, "t")}),
    "filled from another table by way of one more": (
        ["CREATE TABLE m AS WITH q AS (SELECT * FROM docs) SELECT * FROM q;" + NEW + OTHERS.replace("docs", "m")
         + SWAP],
        {(2, "t")},
    ),
    "filled from a trigger's table": (
        [NEW + "CREATE TRIGGER g AFTER INSERT ON n BEGIN UPDATE t SET x = 'seen' WHERE id = new.id; END; "
               "INSERT INTO n VALUES (7, 'a', 1); DROP TRIGGER g;" + SWAP],
        {(2, "t")},
    ),
    "text of its own": (
        ["DROP TABLE own; DROP TABLE own4; DROP TABLE boxes; DROP TABLE words; DROP TABLE found;"],
        {(2, "own"), (2, "own4"), (2, "boxes")},
    ),
    "index in place of one with text": (
        ["DROP TABLE own; CREATE VIRTUAL TABLE own USING fts5 (body, content = 'docs');"],
        {(2, "own")},
    ),
}  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(("scripts", "losses"), LOSSES.values(), ids=LOSSES)
def test_losses_at_the_end_of_a_run_are_told_alike_and_allowed_alike(verdicts, scripts, losses):
    """What is lost is the same for lint, rehearse and migrate, by script, table and column; so is what declares it."""
    assert verdicts(scripts) == (losses, losses)
    assert verdicts(scripts, allow_loss=[name for _, name in losses])[1] == set()
    tables = ", ".join(name for _, name in losses if "." not in name)
    columns = ", ".join(name for _, name in losses if "." in name)
    lines = (f"-- allows: drop table {tables}\n" if tables else "") + (
        f"-- allows: drop column {columns}\n" if columns else ""
    )
    by = {number for number, _ in losses}
    declared = [lines + script if number in by else script for number, script in enumerate(scripts, 2)]
    assert verdicts(declared) == (set(), set())


#: Scripts that lose some rows, which only a database with rows can tell, and how many.
FEWER = {
    "over three files": (
        [NEW + "INSERT INTO n SELECT * FROM t WHERE id > 1;", "DROP TABLE t;", "ALTER TABLE n RENAME TO t;"], 3, 1,
    ),
    "as many brought": (
        [NEW + "INSERT INTO n SELECT * FROM t WHERE id > 1; INSERT INTO n VALUES (7, '', 0);" + SWAP], 2, 1,
    ),
    "as many brought from another table": ([NEW + "INSERT INTO n SELECT * FROM t LIMIT 1;" + OTHERS + SWAP], 2, 2),
    "as many brought from another table first": ([NEW + OTHERS, "INSERT INTO n SELECT * FROM t LIMIT 1;" + SWAP], 3, 2),
    "as many brought from another table after": (
        [NEW + "INSERT INTO n SELECT * FROM t LIMIT 1;" + SWAP, OTHERS.replace("INTO n", "INTO t")], 2, 2,
    ),
    "as many brought by a replacement": (
        [NEW + "INSERT INTO n SELECT * FROM t WHERE id = 3; REPLACE INTO n VALUES (3, 'replace', 0), (7, '', 0);"
         + SWAP], 2, 2,
    ),
    "as many brought before": (
        [NEW + "INSERT INTO n VALUES (7, 'replace', 0), (8, '', 1);", "INSERT INTO n SELECT * FROM t LIMIT 1;" + SWAP],
        3, 2,
    ),
    "as many brought, after a virtual table was read": (
        ["CREATE TABLE n (body); INSERT INTO n SELECT body FROM own LIMIT 1; INSERT INTO n VALUES ('z');"
         + SWAP.replace(" t;", " own;")], 2, 1,
    ),
    "as many brought, after a virtual table was renamed": (
        [NEW + "INSERT INTO n SELECT * FROM t LIMIT 1;" + SWAP
         + "ALTER TABLE own RENAME TO o; INSERT INTO t (id) VALUES (7);"], 2, 2,
    ),
    "copied over each other": (
        ["CREATE TABLE n (id, x, replaced_by, z UNIQUE); INSERT OR REPLACE INTO n SELECT *, 1 FROM t;" + SWAP], 2, 2,
    ),
    "deletion taken back": (
        [NEW + "INSERT INTO n SELECT * FROM t WHERE id > 1; SAVEPOINT s; DELETE FROM n; ROLLBACK TO s; RELEASE s;"
         + SWAP], 2, 1,
    ),
}  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(("scripts", "by", "rows"), FEWER.values(), ids=FEWER)
def test_rows_that_a_column_named_replaced_by_hid_are_told(path, url, verdicts, scripts, by, rows):
    """Rows are missed although others came in and the word "replace" is in the schema or the script, which hid them."""
    table = "own" if "DROP TABLE own" in scripts[0] else "t"
    assert verdicts(scripts)[1] == {(by, table)}
    with pytest.raises(CheckFailed) as caught:
        migrate.apply(url, path.parent / "sql", snapshots=0)
    assert caught.value.violations == (Loss("rows", table, rows),)
    declared = [
        f"-- allows: data-loss {table}\n{script}" if number == by else script
        for number, script in enumerate(scripts, 2)
    ]
    assert verdicts(declared)[1] == set()


def test_column_that_a_copy_with_other_names_does_not_bring_back_is_told(verdicts):
    """Which column of such a copy is which no compiler tells; whether there are values again, the database does."""
    script = "CREATE TEMP TABLE k AS SELECT id AS a, x AS b, replaced_by AS c FROM t; DROP TABLE t;" + NEW.replace(
        " n ", " t "
    )
    assert verdicts([script + "INSERT INTO t (id, x) SELECT a, b FROM k;"])[1] == {(2, "t.replaced_by")}


RENAMED_AND_BACK = "SAVEPOINT s; ALTER TABLE t RENAME TO z; ROLLBACK TO s; RELEASE s; DROP TABLE t;"


def test_apply_drop_after_a_renaming_that_was_taken_back_is_told(path, url, verdicts):
    """A table that was renamed in a savepoint that was undone has its name again; its loss went unseen."""
    assert verdicts([RENAMED_AND_BACK]) == ({(2, "t")}, {(2, "t")})


def test_apply_each_judges_every_script_by_itself(path, url, verdicts, filled):
    """With a transaction for every script, each must keep what it found: the middle of a rebuild does not."""
    assert verdicts(HARMLESS["rebuild over three files"]) == (set(), set())
    path.write_bytes(filled)
    with pytest.raises(CheckFailed, match=r"t: the table is dropped with 3 rows(?s:.)*These stay committed: 2\."):
        migrate.apply(url, path.parent / "sql", snapshots=0, each=True)


def test_redo_and_rollback_take_allow_loss(url, path, tmp_path):
    """What a rollback loses of others can be allowed by name, for this run."""
    scripts = {"1_a.sql": "CREATE TABLE a (x); INSERT INTO a VALUES (1);", "2_b.sql": "CREATE TABLE b (x);"}
    folder = write(tmp_path / "sql", {**scripts, "2_b.rollback.sql": "DROP TABLE a; DROP TABLE b;"})
    migrate.apply(url, folder)
    for verb in (migrate.rollback, migrate.redo):
        with pytest.raises(CheckFailed, match="a: the table is dropped with 1 row"):
            verb(url, folder, allow_loss=["b", "a.x"])
    assert ids(migrate.redo(url, folder, allow_loss="A")) == ["2_b", "2_b"]
    query(path, "CREATE TABLE a (x); INSERT INTO a VALUES (1)")
    assert ids(migrate.rollback(url, folder, allow_loss=['"a"'])) == ["2_b"]


@pytest.mark.parametrize("name", ["", " ", 'a"', "a,,b"])
def test_allow_loss_that_names_nothing_is_refused(url, tmp_path, name):
    """A name that cannot be read allows nothing by accident."""
    folder = write(tmp_path / "sql", {"1_a.sql": "CREATE TABLE a (x);"})
    with pytest.raises(ValueError, match="names neither a table nor"):
        migrate.apply(url, folder, allow_loss=[name])


def test_apply_drop_of_a_table_that_has_the_name_of_a_shadow_table_is_told(path, tmp_path):
    """A table that an index takes for one of its own holds rows all the same."""
    folder = write(
        tmp_path / "sql",
        {"1.sql": "CREATE TABLE f_content (id INTEGER PRIMARY KEY, c0); INSERT INTO f_content VALUES (1, 'a');"
         "CREATE VIRTUAL TABLE f USING fts5 (c0, content = 'f_content', content_rowid = 'id');"},
    )  # fmt: skip
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    migrate.apply(connection, folder)
    write(folder, {"2.sql": "DROP TABLE f_content;"})
    with pytest.raises(CheckFailed, match="f_content: the table is dropped with 1 row"):
        migrate.apply(connection, folder)
    connection.close()
