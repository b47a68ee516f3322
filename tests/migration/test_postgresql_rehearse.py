"""A rehearsal on PostgreSQL is the run itself, and leaves nothing: it tells what the run does, takes and locks."""

from __future__ import annotations

import contextlib
import functools
import threading

import pytest

import dao
from dao import migrate
from dao.errors import CheckFailed, DatabaseBusy, LedgerMismatch, MigrationError
from dao.migrate.rehearsal import Gone, RowChange
from dao.migrate.schema.postgresql import reader
from tests.concurrency import Worker, wait_for
from tests.folders import ALONE, write

FIRST = """
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE children (id integer PRIMARY KEY, parent integer REFERENCES parents ON DELETE CASCADE);
INSERT INTO parents (name) SELECT 'p' FROM generate_series(1, 10);
INSERT INTO children SELECT i, i FROM generate_series(1, 10) AS i;
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of one migration."""
    return write(tmp_path / "sql", {"1_first.sql": FIRST, "1_first.rollback.sql": "DROP TABLE children, parents;"})


@pytest.fixture
def url(prepared_by, folder):
    """The URL of a PostgreSQL database to which it is applied."""
    return prepared_by(migrate.apply, folder)


@pytest.fixture
def look(url):
    """A function that returns what the database holds: its schema, its rows, its ledger."""
    with dao.connect(url) as connection:

        def look():
            schema = reader.read(connection)
            tables = [name for type, name in schema.objects if type == "table"]
            rows = {
                table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in [*tables, "_yoyo_migration", "_yoyo_log", "_dao_migration", "_dao_history", "_dao_schema"]
            }
            return schema, rows

        yield look


def test_rehearse_changes_nothing_and_tells_what_a_run_does(url, folder, look):
    """Rows, tables, statements: as the run would tell them; the database is as before, the ledger too."""
    write(
        folder,
        {
            "2_more.sql": "ALTER TABLE parents ADD note text;\nDELETE FROM parents WHERE id > 8;\n"
            "-- dao\nINSERT INTO children VALUES (100, 1), (101, 2);",
            "3_new.sql": "CREATE TABLE new AS SELECT 1 AS one; ALTER TABLE children RENAME TO kids;",
        },
    )
    before = look()
    found = migrate.rehearse(url, folder, allow_loss=["children"])
    assert look() == before
    assert migrate.status(url, folder).ids("pending") == ["2_more", "3_new"]
    assert (found.ok, found.in_place, found.not_reached) == (True, True, ())
    more, new = found.migrations
    assert (more.id, more.statements, more.failure) == ("2_more", 3, None)
    assert more.rows == (RowChange("children", 10, 10), RowChange("parents", 10, 8))[1:]
    assert more.gone == (Gone("parents", 2, ({"id": 9}, {"id": 10})),)
    assert [str(loss) for loss in more.losses] == ["children: 2 rows that no DELETE of the script names"]
    assert more.undeclared == ()
    assert new.rows == (RowChange("children", 10, 10, "kids"), RowChange("new", None, 1))


LOSES = {
    "cascade": ("DELETE FROM parents WHERE id = 3;", {"parents": (1, [3]), "children": (1, [3])}),
    "rebuild": (
        "CREATE TABLE n AS SELECT * FROM children WHERE id > 2; DROP TABLE children; ALTER TABLE n RENAME TO children;",
        {"children": (2, [1, 2])},
    ),
    "renamed key": ("DELETE FROM children WHERE id < 3; ALTER TABLE children RENAME id TO n;", {"children": (2, [])}),
    "renamed table": (
        "DELETE FROM children WHERE id < 3; ALTER TABLE children RENAME TO kids;",
        {"children": (2, [1, 2])},
    ),
    "truncate": ("TRUNCATE children;", {"children": (10, [*range(1, 11)])}),
    "block": ("DO $$ BEGIN DELETE FROM children WHERE id = 5; END $$;", {"children": (1, [5])}),
    "function": (
        "SELECT take();",
        {"children": (1, [])},
    ),
    "others come": (
        "DELETE FROM children WHERE id < 4; INSERT INTO children VALUES (100, 1);",
        {"children": (2, [1, 2])},
    ),
}


def test_rehearse_names_the_rows_that_go_by_their_keys(url, folder, look):
    """As on SQLite: it only counted them. Rows that a function takes are counted, and so are those of another key."""
    with dao.connect(url) as connection:
        connection.execute("CREATE FUNCTION take() RETURNS void LANGUAGE sql AS 'DELETE FROM children WHERE id = 5'")
    before = look()
    for name, (script, expected) in LOSES.items():
        write(folder, {"2_loses.sql": script})
        (one,) = migrate.rehearse(url, folder).migrations
        assert look() == before, name
        assert one.failure is None, name
        assert {gone.table: (gone.rows, [key["id"] for key in gone.keys]) for gone in one.gone} == expected, name


def test_rehearse_counts_rows_that_go_beyond_the_first(url, folder):
    """The keys of a large table are not read to its end: the locks of a run are held meanwhile."""
    write(folder, {"2_rows.sql": "INSERT INTO children SELECT i FROM generate_series(11, 10020) AS i;"})
    migrate.apply(url, folder)
    write(folder, {"3_loses.sql": "DELETE FROM children WHERE id > 9998;"})
    (one,) = migrate.rehearse(url, folder).migrations
    assert one.gone == (Gone("children", 22, ({"id": 9999}, {"id": 10000})),)


def test_rehearse_names_the_first_rows_that_go_by_keys_of_any_type(url, folder):
    """Of several columns, in a partition, with names to be quoted; each migration names its own, and 20 at most."""
    made = """
        CREATE TABLE "of Kinds" ("a B" text, u uuid, at timestamptz, n numeric, PRIMARY KEY (at, u, n, "a B"))
        PARTITION BY RANGE (at);
        CREATE TABLE part PARTITION OF "of Kinds" FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        INSERT INTO "of Kinds"
        SELECT 'x''' || i, gen_random_uuid(), '2025-01-02', i + 0.5 FROM generate_series(1, 30) AS i;
    """
    migrate.apply(url, write(folder, {"2_made.sql": made}))
    write(folder, {"3_one.sql": 'DELETE FROM "of Kinds" WHERE n = 2.5;', "4_all.sql": 'DELETE FROM "of Kinds";'})
    first, rest = migrate.rehearse(url, folder).migrations
    ((table, rows, (key,)),) = [(one.table, one.rows, one.keys) for one in first.gone]
    assert (table, rows, list(key), key["a B"], key["n"]) == ("part", 1, ["at", "u", "n", "a B"], "x'2", 2.5)
    (gone,) = rest.gone
    assert (gone.rows, len(gone.keys)) == (29, 20)
    assert key not in gone.keys


def test_rehearse_refuses_the_losses_that_a_run_refuses(url, folder, look):
    """A table that is dropped with rows, and a rebuild that leaves out a constraint and an index."""
    write(
        folder,
        {
            "2_drop.sql": "CREATE INDEX named ON parents (name); DROP TABLE children;",
            "3_rebuild.sql": "CREATE TABLE n (id integer, name text); INSERT INTO n SELECT id, name FROM parents;"
            "DROP TABLE parents; ALTER TABLE n RENAME TO parents;",
        },
    )
    before = look()
    found = migrate.rehearse(url, folder)
    assert look() == before
    assert not found.ok
    drop, rebuild = found.migrations
    assert [str(loss) for loss in drop.undeclared] == ["children: the table is dropped with 10 rows"]
    assert drop.rows == (RowChange("children", 10, None),)
    assert (rebuild.rebuilt, rebuild.undeclared, rebuild.rows) == (("parents",), (), ())
    assert {str(one) for one in rebuild.lost} == {
        "table parents: constraint parents_pkey is missing",
        "index named is missing",
        "sequence parents_id_seq is missing",
    }


def test_rehearse_tells_where_it_fails_and_what_came_before(url, folder, look):
    """Migrations before the one that fails are told with their losses, and those after it by name."""
    write(
        folder,
        {
            "2_good.sql": "DELETE FROM parents WHERE id = 1;",
            "3_bad.sql": "CREATE TABLE x (id integer);\nINSERT INTO nowhere VALUES (1);",
            "4_late.sql": "SELECT 1;",
        },
    )
    before = look()
    found = migrate.rehearse(url, folder)
    assert look() == before
    good, bad = found.migrations
    assert [loss.table for loss in good.losses] == ["children"]
    assert (bad.failure.line, bad.failure.path) == (2, str(folder / "3_bad.sql"))
    assert "nowhere" in bad.failure.message
    assert found.not_reached == ("4_late",)
    assert not found.ok


def test_rehearse_tells_the_locks_and_for_how_long(url, folder):
    """Each lock that others may notice is told with the step that takes it, and is held to the end of all."""
    write(
        folder,
        {
            "2_fk.sql": "CREATE TABLE n (p integer REFERENCES parents);",
            "3_index.sql": "CREATE INDEX c ON children (parent); UPDATE parents SET name = 'q';",
            "4_alter.sql": "ALTER TABLE parents ADD y integer; SELECT pg_sleep(0.05);",
        },
    )
    found = migrate.rehearse(url, folder)
    locks = [[(one.name, one.mode, one.blocks) for one in migration.locks] for migration in found.migrations]
    assert locks == [
        [("parents", "ShareRowExclusiveLock", "write to it")],
        [("children", "ShareLock", "write to it")],
        [("parents", "AccessExclusiveLock", "read it or write to it")],
    ]
    first, second, third = (migration.locks[0].seconds for migration in found.migrations)
    assert first > second > third >= 0.05
    assert found.lock_seconds == first


def test_rehearse_tells_what_no_rollback_undoes(url, folder):
    """Numbers of sequences, and dead rows; what was told is so."""
    write(folder, {"2_insert.sql": "INSERT INTO parents (name) SELECT 'x' FROM generate_series(1, 5);"})
    (one,) = migrate.rehearse(url, folder).migrations
    assert one.lasting == (
        "the numbers that parents_id_seq gave are not given again",
        "parents is left with 5 dead rows that VACUUM has to remove",
    )
    with dao.connect(url) as connection:
        assert connection.execute("SELECT nextval('parents_id_seq')").fetchone() == (16,)


NOT_TRIED = {
    "concurrently": (f"{ALONE}CREATE INDEX CONCURRENTLY i ON parents (name);", "it runs outside of a transaction"),
    "another database": ("SELECT 1;\nSELECT dblink_exec('dbname=x', 'DROP TABLE y');", "line 2: dblink_exec() reaches"),
    "a program": ("COPY parents TO PROGRAM 'cat';", "line 1: COPY to a file or a program reaches"),
    "a file": ("COPY (SELECT 1) TO '/tmp/x';", "line 1: COPY to a file or a program reaches"),
}


@pytest.mark.parametrize(("script", "why"), NOT_TRIED.values(), ids=NOT_TRIED)
def test_rehearse_does_not_try_what_it_could_not_undo(url, folder, look, script, why):
    """It says why, tries the others, and says of one that fails after it what had not been tried."""
    write(folder, {"2_out.sql": script, "3_in.sql": "CREATE TABLE n (id integer);", "4_bad.sql": "nonsense;"})
    before = look()
    out, inside, bad = migrate.rehearse(url, folder).migrations
    assert look() == before
    assert (out.tried, out.statements) == (False, 0)
    assert out.why.startswith(why)
    assert inside.rows == (RowChange("n", None, 0),)
    assert bad.notices == ("2_out comes before it, and was not tried",)


def test_rehearse_refuses_what_a_run_refuses_after_a_commit_in_its_middle(url, folder):
    """What was made before a script that was not tried is committed by then: the loss of it was called none."""
    write(
        folder,
        {
            "2_made.sql": "CREATE TABLE n (id integer, t text); INSERT INTO n VALUES (1, 'x');",
            "3_out.sql": f"{ALONE}VACUUM parents;",
            "4_more.sql": "CREATE TABLE m (id integer);",
            "5_drop.sql": "ALTER TABLE n DROP COLUMN t; DROP TABLE m;",
        },
    )
    found = migrate.rehearse(url, folder)
    assert [(one.id, [str(loss) for loss in one.undeclared]) for one in found.migrations if one.undeclared] == [
        ("5_drop", ["n.t: the column is dropped with its values, of 1 row"])
    ]
    assert not any(one.lasting for one in found.migrations)
    with pytest.raises(CheckFailed, match="loses data without saying that it means to"):
        migrate.apply(url, folder)


def test_rehearse_that_only_has_what_it_cannot_undo_runs_nothing(url, folder):
    """Then there is no lock, either; and nothing is known, so nothing is called good."""
    write(folder, {"2_out.sql": f"{ALONE}VACUUM parents;"})
    found = migrate.rehearse(url, folder)
    assert (found.ok, found.lock_seconds, [one.tried for one in found.migrations]) == (False, 0.0, [False])


def test_rehearse_does_not_wait_long_for_a_lock(url, folder, look):
    """Whoever comes after it would wait behind it: it gives up soon, says for whom it waited, and leaves nothing."""
    write(folder, {"2_alter.sql": "ALTER TABLE parents ADD y integer;"})
    before = look()
    with dao.connect(url) as reading:
        reading.execute("BEGIN; SELECT count(*) FROM parents")
        with pytest.raises(DatabaseBusy, match=f"session {reading.info.backend_pid} ") as caught:
            migrate.rehearse(url, folder, lock_timeout=0.2)
        assert caught.value.advice.endswith("--lock-timeout waits longer")
        reading.execute("COMMIT")
    assert look() == before
    assert migrate.rehearse(url, folder).ok


def test_rehearse_waits_for_no_other_migrator(url, folder):
    """The lock between migrators is its, too; it does not stand in line for long."""
    write(folder, {"2_slow.sql": "CREATE TABLE s (id integer);"})
    begun, tried = threading.Event(), threading.Event()

    def report(event: object) -> None:
        begun.set()
        wait_for(tried.is_set)

    run = Worker(functools.partial(migrate.apply, url, folder, report=report))
    wait_for(begun.is_set)
    with pytest.raises(DatabaseBusy):
        migrate.rehearse(url, folder, lock_timeout=0.1)
    tried.set()
    run.end()
    assert migrate.rehearse(url, folder).migrations == ()


def test_rehearse_on_the_callers_connection_leaves_it_as_it_was(url, folder):
    """Its settings, its time for locks, and its transaction status."""
    write(folder, {"2_set.sql": "SET search_path = pg_catalog; CREATE TABLE public.n (id integer);"})
    with dao.connect(url) as connection:
        connection.execute("SET lock_timeout = 7000; SET application_name = 'mine'")
        assert migrate.rehearse(connection, folder).ok
        settings = ("lock_timeout", "application_name", "search_path")
        assert [connection.execute(f"SHOW {name}").fetchone()[0] for name in settings][:2] == ["7s", "mine"]
        assert connection.execute("SELECT to_regclass('n'), current_schema()").fetchone() == (None, "public")
        with dao.transaction(connection), pytest.raises(MigrationError, match="in the middle of a transaction"):
            migrate.rehearse(connection, folder)


def test_rehearse_refuses_what_migrate_refuses(url, folder):
    """Files that do not agree with the ledger, and a limit for the memory of a copy that is not made."""
    with pytest.raises(MigrationError, match="a rehearsal makes no copy"):
        migrate.rehearse(url, folder, memory_limit=1)
    write(folder, {"1_first.sql": FIRST + "SELECT 1;"})
    with pytest.raises(LedgerMismatch):
        migrate.rehearse(url, folder)
    with pytest.raises(MigrationError, match="waits for no lock"):
        migrate.rehearse("sqlite:///x.db", folder, lock_timeout=1)


# ---------------------------------------------------------------- round trip


def test_round_trip_that_comes_back(url, folder, look):
    """Undone and applied again in the same transaction: schema and rows are what they were each time."""
    write(
        folder,
        {
            "2_a.sql": "ALTER TABLE parents ADD y integer; CREATE INDEX i ON parents (y);",
            "2_a.rollback.sql": "ALTER TABLE parents DROP y;",
            "3_b.sql": "CREATE TABLE b (id integer); INSERT INTO b VALUES (1);",
            "3_b.rollback.sql": "DROP TABLE b;",
        },
    )
    before = look()
    trip = migrate.rehearse(url, folder, round_trip=True).round_trip
    assert look() == before
    assert trip.ok, trip
    assert (trip.undone, trip.applied_again) == (("3_b", "2_a"), ("2_a", "3_b"))


def test_round_trip_that_does_not_come_back_says_in_what(url, folder, look):
    """Rows that are changed for good, an index that the rollback forgets, and one that fails."""
    write(
        folder,
        {
            "2_a.sql": "CREATE TABLE a (id integer); CREATE INDEX forgotten ON parents (name);",
            "2_a.rollback.sql": "DROP TABLE a;",
            "3_b.sql": "UPDATE parents SET name = upper(name);",
            "3_b.rollback.sql": "SELECT 1;",
        },
    )
    before = look()
    found = migrate.rehearse(url, folder, round_trip=True)
    assert not found.ok
    assert [(one.id, one.direction, one.differences) for one in found.round_trip.failures] == [
        ("3_b", "rollback", ("rows of parents: 10 rows, not all as expected",)),
        ("2_a", "rollback", ("index forgotten is unexpected",)),
        ("2_a", "apply", ()),
    ]
    write(folder, {"2_a.rollback.sql": "DROP VIEW a;"})
    (*_, failure) = migrate.rehearse(url, folder, round_trip=True).round_trip.failures
    assert failure.message.startswith("the rollback fails: ")
    assert look() == before


def test_round_trip_allows_the_loss_that_a_script_declares(url, folder):
    """What a script says that it loses need not come back; an irreversible migration ends the way."""
    write(
        folder,
        {
            "2_once.sql": "CREATE TABLE once (id integer);",
            "3_cut.sql": "-- allows: drop column parents.name\nALTER TABLE parents DROP name;",
            "3_cut.rollback.sql": "ALTER TABLE parents ADD name text NOT NULL DEFAULT 'p'; "
            "ALTER TABLE parents ALTER name DROP DEFAULT;",
        },
    )
    trip = migrate.rehearse(url, folder, round_trip=True).round_trip
    assert trip.ok, trip
    assert (trip.undone, trip.irreversible) == (("3_cut",), ("2_once",))


def test_rehearse_a_killed_connection_leaves_nothing(url, folder, look):
    """The server undoes what a client that is gone had begun."""
    write(folder, {"2_a.sql": "CREATE TABLE a (id integer); SELECT pg_sleep(30);"})
    before = look()
    connection = dao.connect(url)
    pid = connection.info.backend_pid
    failed = []

    def rehearse():
        try:
            migrate.rehearse(connection, folder)
        except dao.Error as error:
            failed.append(error)

    thread = threading.Thread(target=rehearse)
    thread.start()
    with contextlib.closing(dao.connect(url)) as other:
        sql = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        wait_for(lambda: other.execute(sql).fetchall() != [])
        other.execute(f"SELECT pg_terminate_backend({pid})")
    thread.join()
    connection.close()
    assert len(failed) == 1
    assert look() == before
