"""`dao.copy` between any two engines: what it copies, what it refuses, and how a run that was broken off goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dao
from dao import configurations, migrate, tasks
from dao.engine import execute, fetch, transaction
from dao.errors import CopyFailed, OperationalError, ReadOnlyDatabase, SchemaOutOfDate
from dao.migrate.database import table_names
from dao.migrate.schema.names import is_internal
from dao.rows import TABLES, TASK_EVENTS
from dao.testing import make_task
from dao.transfer import Moved
from tests import engines
from tests.conftest import Make
from tests.copies import fill, held, is_marked, opened

#: In these each engine is once the source and once the target, of whose ways the other side knows nothing.
CROSSED = ("sqlite to postgresql", "postgresql to sqlite")
WAYS = (*CROSSED, "sqlite to sqlite", "postgresql to postgresql")
#: So many tasks take several pages, the first of which are of few rows: some are there when so many are.
MANY, SOME = 400, 80


@pytest.fixture(params=[pytest.param(way, marks=[] if way in CROSSED else pytest.mark.slow) for way in WAYS])
def urls(request: pytest.FixtureRequest, make: Make) -> tuple[str, str]:
    """The URLs of a source and a target, both migrated and empty: crossed, and in all ways where a test asks for it.

    All tests in all ways took as long as the claims; `make test-slow` has them.
    """
    source, target = request.param.split(" to ")
    return make(source), make(target)


def refuse(message: str, source: str, target: str, **options: Any) -> CopyFailed:
    """Assert that a copy is refused with a message that holds this text, and changes nothing in either database."""
    before = [held(source), held(target), is_marked(target)]
    with pytest.raises(CopyFailed) as caught:
        dao.copy(source, target, **options)
    assert message in str(caught.value)
    assert [held(source), held(target), is_marked(target)] == before
    return caught.value


# ---------------------------------------------------------------- what is copied


def test_tables_are_all_that_the_migrations_make_each_after_those_that_it_refers_to(url):
    """A table that is not among them would be left behind by every copy, without a word."""
    with opened(url) as connection:
        assert {table.name for table in TABLES} == {name for name in table_names(connection) if not is_internal(name)}
    names = [table.name for table in TABLES]
    for table in TABLES:
        assert all(names.index(parent) < names.index(table.name) for parent in table.references.values())


@pytest.mark.parametrize("urls", WAYS, indirect=True)
def test_copy_of_all_tables_arrives_as_it_was(urls):
    """Rows of every table are there with all their columns; counts and hashes are told; the mark has gone."""
    source, target = urls
    fill(source)
    copied = dao.copy(source, target)
    assert held(target) == held(source)
    assert {table.name: table.rows for table in copied.tables} == {
        "tasks": 5,
        "task_dependencies": 1,
        "task_events": 7,
        "workflows": 1,
        "workflow_tasks": 1,
        "tool_executions": 1,
        "sessions": 1,
        "configurations": 1,
    }
    assert copied.rows == 18
    assert all(len(table.hash) == 64 and table.kept == 0 for table in copied.tables)
    assert not is_marked(target)
    assert not is_marked(source)


def test_copy_of_many_pages_reports_how_far_it_is(urls):
    """Every page is told, of every table, and then once more as the target is read back."""
    source, target = urls
    fill(source, MANY)
    told: list[Moved] = []
    dao.copy(source, target, report=told.append)
    for doing in ("copying", "verifying"):
        pages = [one for one in told if (one.doing, one.table) == (doing, "tasks")]
        assert len(pages) > 3
        assert sorted(one.done for one in pages) == [one.done for one in pages]
        assert (pages[-1].done, pages[-1].total) == (MANY, MANY)
    assert held(target) == held(source)


@pytest.mark.slow
def test_copy_of_a_hundred_thousand_tasks_both_ways_gives_equal_hashes(make):
    """So many go to PostgreSQL and back, and the hashes are those of the source; the runbook has times."""
    source, server, back = make("sqlite"), make("postgresql"), make("sqlite")
    fill(source, 100_000)
    there = dao.copy(source, server)
    assert there.tables[0].rows == 100_000
    assert dao.copy(server, back).tables == there.tables


def test_hash_of_a_table_depends_on_its_content_alone(make):
    """The same rows have one hash on both engines, whatever was done before; another column's value is another hash."""
    source, first, second, third = (make(engine) for engine in ("sqlite", "postgresql", "sqlite", "postgresql"))
    fill(source)
    hashes = dao.copy(source, first).tables
    assert dao.copy(first, second).tables == hashes
    with opened(second) as connection:
        execute(connection, "UPDATE tasks SET description = '' WHERE title = 'task 3'")
    changed = dao.copy(second, third).tables
    assert [one.name for one, other in zip(hashes, changed, strict=True) if one.hash != other.hash] == [
        "tasks",
        "task_events",
    ]


def test_copy_of_an_updated_row_keeps_its_times(urls):
    """No trigger moves updated_at on while rows are copied."""
    source, target = urls
    fill(source)
    with opened(source) as connection:
        [first, *_] = tasks.find(connection).items
        changed = tasks.set_status(connection, first.id, dao.TaskStatus.RUNNING)
    dao.copy(source, target)
    with opened(target) as connection:
        assert tasks.get_one(connection, first.id) == changed


def test_copy_leaves_the_triggers_of_its_target_as_they_were(urls):
    """None fires while rows are copied, so that nothing is counted twice; afterwards each does what it did."""
    source, target = urls
    fill(source)
    with opened(source) as connection:
        before = events_of(connection)
    dao.copy(source, target)
    with opened(target) as connection:
        assert events_of(connection) == before
        waits, *_ = [task for task in tasks.find(connection).items if task.waiting_for]
        held_back, *_ = [task for task in tasks.find(connection).items if task.paused_by]
        tasks.set_status(connection, held_back.id, "completed")
        assert tasks.get_one(connection, waits.id).waiting_for == 0
        ((last,),) = fetch(connection, "SELECT max(seq) FROM task_events")
        assert last == len(before) + 2
        with pytest.raises(dao.CheckViolation):
            execute(connection, "UPDATE tasks SET status = 'running'")


def test_copy_lets_no_trigger_of_others_fire(make):
    """SQLite keeps the table's name as a trigger has it: one that wrote it in capitals fired for each row."""
    source, target = make("postgresql"), make("sqlite")
    fill(source)
    with opened(target) as connection:
        connection.execute(
            """
            CREATE TABLE noted (id TEXT);
            CREATE TRIGGER "a ""name"" of theirs" AFTER INSERT ON TASKS BEGIN INSERT INTO noted VALUES (new.id); END
            """
        )
    dao.copy(source, target)
    with opened(target) as connection:
        assert fetch(connection, "SELECT * FROM noted") == []
        tasks.create(connection, make_task(id="new"))
        assert fetch(connection, "SELECT * FROM noted") == [("new",)]


def test_copy_goes_on_with_the_numbers_of_events_that_have_gone(urls):
    """Whoever follows the events by their numbers misses none after the move, though all before it were pruned."""
    source, target = urls
    fill(source)
    with opened(source) as connection:
        ((last,),) = fetch(connection, "SELECT max(seq) FROM task_events")
        execute(connection, "DELETE FROM task_events")
    dao.copy(source, target)
    with opened(target) as connection:
        tasks.create(connection, make_task())
        assert fetch(connection, "SELECT seq FROM task_events") == [(last + 1,)]


def events_of(connection):
    """Return the events of tasks that are there, as they are stored."""
    return TASK_EVENTS.from_rows(fetch(connection, f"SELECT {TASK_EVENTS.listed} FROM task_events ORDER BY seq"))


def test_copy_of_an_empty_database_succeeds(urls):
    """Nothing to copy is no error, and leaves no mark."""
    copied = dao.copy(*urls)
    assert copied.rows == 0
    assert not is_marked(urls[1])


def test_copy_names_the_tables_that_it_leaves_out(make):
    """Tables of an application beside this package's are not copied, and that is told; those of a tool are no data."""
    source, target = make("sqlite"), make("postgresql")
    with opened(source) as connection:
        execute(connection, "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
        execute(connection, "CREATE TABLE more (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        execute(connection, "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
    assert dao.copy(source, target).left_out == ("more", "notes")


def test_copy_in_a_dry_run_counts_and_changes_nothing(urls):
    """A dry run tells the rows of each table, and leaves both databases as they are."""
    source, target = urls
    fill(source)
    planned = dao.copy(source, target, dry_run=True)
    assert [(table.name, table.rows, table.hash) for table in planned.tables][:2] == [
        ("tasks", 5, None),
        ("task_dependencies", 1, None),
    ]
    assert not any(held(target).values())
    assert not is_marked(target)


# ---------------------------------------------------------------- what is refused


def test_copy_into_rows_is_refused(urls):
    """A target that holds rows of anybody's is named with its tables, in a dry run, too."""
    source, target = urls
    fill(source)
    with opened(target) as connection:
        configurations.set(connection, "theme", "dark")
    for dry_run in (False, True):
        error = refuse("is not empty: configurations hold rows", source, target, dry_run=dry_run)
        assert "dao reset" in str(error)


def test_copy_into_itself_is_refused(make, tmp_path):
    """The same database under another name is the same database."""
    source = make("sqlite")
    (tmp_path / "link.db").symlink_to(source.removeprefix("sqlite:///"))
    refuse("are the same database", source, f"sqlite:///{tmp_path}/link.db")
    other = make("postgresql")
    refuse("are the same database", other, f"{other}&application_name=other")


def test_copy_between_two_schema_versions_is_refused(urls):
    """Ids that only one of the ledgers has are listed, whichever of them it is."""
    for url in urls:
        with opened(url) as connection:
            execute(connection, LEDGER)
            execute(connection, APPLIED, ("0001_a",))
    assert dao.copy(*urls).rows == 0
    for url, id in zip(urls, ("0002_b", "0002_c"), strict=True):
        with opened(url) as connection:
            execute(connection, APPLIED, (id,))
    error = refuse("not at the same schema version", *urls)
    assert [detail.rpartition(" ")[2] for detail in error.details] == ["0002_b", "0002_c"]
    assert "dao migrate" in str(error)


# as yoyo makes it
LEDGER = (
    "CREATE TABLE _yoyo_migration (migration_hash VARCHAR(64), migration_id VARCHAR(255), applied_at_utc TIMESTAMP, "
    "PRIMARY KEY (migration_hash))"
)
APPLIED = "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ($1, $1)"


def test_copy_of_columns_that_it_does_not_know_is_refused(urls):
    """A column of a newer version, or of the application's, is no loss that nobody hears of."""
    for url in urls:
        with opened(url) as connection:
            execute(connection, "ALTER TABLE tasks ADD COLUMN colour INTEGER NOT NULL DEFAULT 0")
    refuse("tasks has columns that this program does not know (colour)", *urls)


def test_copy_without_the_tables_is_refused(make, server, new_postgresql_url, tmp_path):
    """A target without the schema is told so, with the command that makes it; so is one that does not exist."""
    source = make("sqlite")
    with pytest.raises(SchemaOutOfDate, match="dao migrate"):
        dao.copy(source, new_postgresql_url)
    with pytest.raises(CopyFailed, match=r"gone\.db does not exist"):
        dao.copy(source, f"sqlite:///{tmp_path}/gone.db")
    with pytest.raises(CopyFailed, match=r"gone\.db does not exist"):
        dao.copy(f"sqlite:///{tmp_path}/gone.db", source)
    assert not (tmp_path / "gone.db").exists()
    for memory in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(CopyFailed, match="in memory"):
            dao.copy(source, memory)


def test_copy_into_a_read_only_database_is_refused(make):
    """A target that cannot be written to is told before a row is read, and in a dry run."""
    source, file, there = make("sqlite"), make("sqlite"), make("postgresql")
    fill(source)
    refuse("leave mode=ro out", source, f"{file}?mode=ro")
    read_only = f"{there}&options=-c%20default_transaction_read_only%3Don"
    for dry_run in (False, True):
        with pytest.raises(ReadOnlyDatabase):
            dao.copy(source, read_only, dry_run=dry_run)


def test_copy_leaves_its_source_alone(make, tmp_path):
    """The source is not written to: its bytes are as they were, and it may be a file that nobody can write to."""
    source, target = make("sqlite"), make("postgresql")
    fill(source)
    path = Path(source.removeprefix("sqlite:///"))
    before = path.read_bytes()
    path.chmod(0o444)
    dao.copy(f"{source}?mode=rw", target)
    assert path.read_bytes() == before


def test_copy_by_a_role_from_which_rows_are_hidden_is_refused(make):
    """A policy that hid rows from the role that read had a copy without them end well: both held the same."""
    source, target = make("postgresql"), make("sqlite")
    fill(source)
    with opened(source) as connection, engines.role(connection) as role:
        connection.execute(
            f"""
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
            ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
            """
        )
        with pytest.raises(OperationalError, match="row-level security policy"):
            dao.copy(re.sub("//[^@]*@", f"//{role}@", source), target)
    assert not any(held(target).values())


@pytest.mark.parametrize("dry_run", [True, False])
def test_copy_by_a_role_that_may_not_alter_the_tables_marks_nothing(make, dry_run):
    """It left the mark of a copy that has not ended, and said that to repeat it would go on from there."""
    source, target = make("sqlite"), make("postgresql")
    fill(source)
    with opened(target) as connection, engines.role(connection) as role:
        connection.execute(
            f"""
            GRANT ALL ON SCHEMA public TO {role};
            GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
            GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
            """
        )
        with pytest.raises(OperationalError, match="must be owner of table tasks") as caught:
            dao.copy(source, re.sub("//[^@]*@", f"//{role}@", target), dry_run=dry_run)
    assert caught.value.advice is None
    assert not is_marked(target)


@pytest.mark.parametrize("dry_run", [True, False])
def test_copy_by_a_role_that_may_not_read_the_number_of_events_is_refused(make, dry_run):
    """The numbers began anew in the target: each task that was written then met an event that had come along."""
    source, target = make("postgresql"), make("postgresql")
    fill(source)
    with opened(source) as connection, engines.role(connection) as role:
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        reading = re.sub("//[^@]*@", f"//{role}@", source)
        with pytest.raises(OperationalError, match="sequence task_events_seq_seq; give the role the rights"):
            dao.copy(reading, target, dry_run=dry_run)
        assert not any(held(target).values())
        connection.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
        dao.copy(reading, target)
    with opened(target) as connection:
        tasks.create(connection, make_task())


# ---------------------------------------------------------------- rows that only one engine stores


def test_copy_names_every_row_that_the_target_does_not_store(make):
    """All of them are found in one run, by table and key; the rest of the batch is there, and the mark stays."""
    source, target = make("sqlite"), make("postgresql")
    fill(source, MANY)
    long = "".join(f"{number:05}" for number in range(1000, 3000))
    with opened(source) as connection:
        connection.pragma("ignore_check_constraints", True)
        insert = "INSERT INTO tasks (id, title, task_type, description) VALUES ($1, 'x', 'y', $2)"
        for row in (("nul", "a\0b"), (long, None)):
            execute(connection, insert, row)
        insert = "INSERT INTO tool_executions (id, task_id, tool_name, input) VALUES ('of nul', 'nul', 'x', '1')"
        execute(connection, insert)
        execute(connection, "INSERT INTO configurations (key, value) VALUES ('no json', 'nonsense')")
    with pytest.raises(CopyFailed, match=r"5 rows of .* cannot be copied") as caught:
        dao.copy(source, target)
    assert [(row.table, row.key[0]) for row in caught.value.details] == [
        ("tasks", long),
        ("tasks", "nul"),
        ("task_events", MANY + 4),
        ("tool_executions", "of nul"),
        ("configurations", "no json"),
    ]
    assert "0x00" in caught.value.details[1].reason
    assert "configurations_value_json" in caught.value.details[4].reason
    with opened(target) as connection:
        assert tasks.count(connection) == MANY
    assert is_marked(target)
    with opened(source) as connection:
        for row in caught.value.details:
            table = next(table for table in TABLES if table.name == row.table)
            execute(connection, f"DELETE FROM {table.name} WHERE {table.key} = $1", row.key)
        execute(connection, "DELETE FROM task_events WHERE task_id = $1", (long,))  # that it was deleted
    again = dao.copy(source, target)
    assert [table.kept for table in again.tables] == [MANY, 1, MANY + 3, 1, 1, 1, 1, 1]
    assert held(target) == held(source)


def test_copy_ends_when_too_many_rows_are_refused(make):
    """A hundred examples are enough to see what is wrong."""
    source, target = make("sqlite"), make("postgresql")
    with opened(source) as connection, transaction(connection):
        for number in range(MANY):
            execute(connection, "INSERT INTO tasks (id, title, task_type) VALUES ($1, $2, 'y')", (f"{number}", "\0 x"))
    with pytest.raises(CopyFailed, match=r"100 rows or more of .* cannot be copied") as caught:
        dao.copy(source, target)
    assert len(caught.value.details) == 100


def spoil(url: str, rows: dict[str, dict[str, str]]) -> None:
    """Store tasks past the constraints, each with other expressions of SQL for some of its columns."""
    with opened(url) as connection, transaction(connection):
        connection.pragma("ignore_check_constraints", True)
        ((last,),) = fetch(connection, "SELECT coalesce(max(seq), 0) FROM task_events")
        for id, held in rows.items():
            values = {"id": f"'{id}'", "title": "'x'", "task_type": "'y'", **held}
            execute(connection, f"INSERT INTO tasks ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        # they hold the same
        execute(connection, "DELETE FROM task_events WHERE seq > $1", (last,))


def test_copy_names_every_row_that_cannot_be_read(make):
    """The first of them ended the copy, so that a user found one in each run; some PostgreSQL read as something else.

    A time of another form was another text there, and the copy said that somebody had written to the target meanwhile.
    """
    source, target = make("sqlite"), make("postgresql")
    fill(source, MANY)
    odd = {
        "!": {"status": "'paused'"},
        "a key": {"id": "CAST(x'ff' AS TEXT)"},
        "bytes": {"title": "CAST(x'41ff' AS TEXT)"},
        "no ms": {"created_at": "'2026-01-31T12:00:00Z'"},
        "no time": {"created_at": "'now'"},
        "zone": {"created_at": "'2026-01-31T12:00:00.000+01:00'"},
    }
    spoil(source, odd)
    with opened(source) as connection:
        connection.pragma("ignore_check_constraints", True)
        execute(connection, "UPDATE sessions SET is_active = 2")
    with pytest.raises(
        CopyFailed, match=r"7 rows of .* cannot be copied into .*: correct or delete them in the source"
    ) as caught:
        dao.copy(source, target)
    assert [(row.table, row.key[0], row.reason.partition(" ")[0]) for row in caught.value.details[:-1]] == [
        ("tasks", "!", "status"),
        ("tasks", "bytes", "title"),
        ("tasks", "no ms", "created_at"),
        ("tasks", "no time", "created_at"),
        ("tasks", "zone", "created_at"),
        ("tasks", "\ufffd", "id"),
    ]
    assert str(caught.value.details[1]) == r"tasks 'bytes': title is b'A\xff', which no record can have"
    assert caught.value.details[-1].reason.startswith("is_active is 2")
    assert is_marked(target)
    with opened(source) as connection:
        configurations.set(connection, "task_events", False)  # no event has what no record can have
        execute(connection, "DELETE FROM tasks WHERE title = 'x' OR id IN ('bytes', CAST(x'ff' AS TEXT))")
        execute(connection, "UPDATE sessions SET is_active = 1")
    assert dao.copy(source, target).tables[0].kept == MANY
    assert held(target) == held(source)


@pytest.mark.parametrize("count", [40, 400])
def test_copy_goes_on_after_pages_of_rows_that_cannot_be_read(make, count):
    """A page without a row that can be read was taken for the end of the table; a hundred are enough to see."""
    source, target = make("sqlite"), make("postgresql")
    fill(source)
    spoil(source, {f"!{number:03}": {"status": "'paused'"} for number in range(count)})
    with pytest.raises(CopyFailed) as caught:
        dao.copy(source, target)
    assert len(caught.value.details) == min(count, 100)
    assert ("or more" in str(caught.value)) == (count > 100)
    with opened(target) as connection:
        assert tasks.count(connection) == (5 if count < 100 else 0)


def test_copy_that_goes_on_names_each_row_that_cannot_be_read_once(make):
    """A table that is copied anew is read anew."""
    source, target = make("sqlite"), make("postgresql")
    fill(source, MANY)
    spoil(source, {"!": {"status": "'paused'"}})
    break_off(source, target, SOME)
    with opened(source) as connection:
        tasks.create(connection, make_task(id="\t", title="first"))
    with pytest.raises(CopyFailed) as caught:
        dao.copy(source, target)
    assert [row.key for row in caught.value.details] == [("!",)]


# ---------------------------------------------------------------- runs that were broken off


class Broken(Exception):
    """Ends a copy in the middle."""


def break_off(source: str, target: str, rows: int) -> None:
    """Begin a copy, and break it off when so many rows of a table are there."""

    def report(event: object) -> None:
        if isinstance(event, Moved) and event.doing == "copying" and event.done >= rows:
            raise Broken

    with pytest.raises(Broken):
        dao.copy(source, target, report=report)
    assert is_marked(target)


@pytest.mark.parametrize("urls", WAYS, indirect=True)
def test_copy_that_was_broken_off_goes_on(urls):
    """What is there is compared and kept; the rest follows; the result is what one run gives."""
    source, target = urls
    fill(source, MANY)
    break_off(source, target, SOME)
    with opened(target) as connection:
        there = tasks.count(connection)
    assert SOME <= there < MANY
    again = dao.copy(source, target)
    assert again.tables[0].kept == there
    assert held(target) == held(source)
    assert not is_marked(target)


@pytest.mark.parametrize("change", ["UPDATE tasks SET title = 'other'", "DELETE FROM tasks", None])
def test_copy_goes_on_from_a_source_that_has_changed(urls, change):
    """A table is copied anew if the rows that are there are not the source's first any more, and so are those after it.

    None: a new row before those that are there.
    """
    source, target = urls
    fill(source, MANY)
    break_off(source, target, SOME)
    with opened(source) as connection:
        if change is None:
            tasks.create(connection, make_task(id="\t", title="first"))
        else:
            execute(connection, f"{change} WHERE id = (SELECT min(id) FROM tasks WHERE title <> 'task 0')")
    again = dao.copy(source, target)
    assert again.tables[0].kept == 0
    assert held(target) == held(source)


def test_copy_begins_all_later_tables_anew_with_one(urls):
    """What refers to rows that are copied anew goes before them, and comes after them."""
    source, target = urls
    fill(source, 20)

    def report(event: object) -> None:
        if isinstance(event, Moved) and event.doing == "verifying":
            raise Broken

    with pytest.raises(Broken):
        dao.copy(source, target, report=report)
    with opened(source) as connection:
        tasks.create(connection, make_task(id="\t", title="first"))
    assert [table.kept for table in dao.copy(source, target).tables] == [0] * len(TABLES)
    assert held(target) == held(source)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_copy_that_has_not_ended_is_told_by_whoever_looks_at_its_target(tmp_path, new_postgresql_url, engine):
    """Nothing takes a target in which rows are missing for a database: it looked like one, its schema being current.

    To reset it takes the mark away, too.
    """
    source = f"sqlite:///{tmp_path}/source.db"
    target = new_postgresql_url if engine == "postgresql" else f"sqlite:///{tmp_path}/target.db"
    for url in (source, target):
        migrate.apply(url)
    fill(source, MANY)
    migrate.assert_current(target)
    break_off(source, target, SOME)
    with pytest.raises(SchemaOutOfDate, match="lacks rows, since a copy into it has not ended: repeat that"):
        migrate.assert_current(target)
    state = migrate.status(target)
    assert "a copy into it has not ended" in state.advice
    assert state.drift == ()
    assert not state.is_current
    assert ["a copy into it has not ended" in fault.text for fault in migrate.check(target).faults] == [True]
    migrate.reset(target)
    assert migrate.status(target).is_current
    assert not is_marked(target)
    dao.copy(source, target)
    migrate.assert_current(target)
    assert migrate.check(target).ok


def test_copy_goes_on_after_rows_were_added_to_its_source(urls):
    """New rows at the end, as those with new ids are, cost no second copy of the others."""
    source, target = urls
    fill(source, MANY)
    break_off(source, target, SOME)
    fill_more(source)
    again = dao.copy(source, target)
    assert again.tables[0].kept >= SOME
    assert held(target) == held(source)


def fill_more(url: str) -> None:
    """Store another task, whose key is the last."""
    with opened(url) as connection:
        tasks.create(connection, make_task(id="\U0010ffff", title="last"))


def test_copy_into_a_target_that_was_written_to_since_is_refused(urls):
    """Rows that the broken run did not bring are somebody's: nothing of them is lost."""
    source, target = urls
    fill(source, MANY)
    break_off(source, target, SOME)
    fill_more(target)
    refuse("somebody has written to tasks since", source, target)


def test_copy_into_a_target_that_was_emptied_since_begins_anew(urls):
    """A mark in an empty database, as `dao reset` leaves it, keeps nobody from copying."""
    source, target = urls
    fill(source, MANY)
    break_off(source, target, SOME)
    with opened(target) as connection:
        for table in ("tasks", "task_events"):
            execute(connection, f"DELETE FROM {table}")
    assert dao.copy(source, target).tables[0].kept == 0
    assert held(target) == held(source)


# ---------------------------------------------------------------- others at work


def test_copy_sees_its_source_as_of_one_moment(urls):
    """What others write while it runs is not in the target, not even in tables that were not begun."""
    source, target = urls
    fill(source, MANY)
    before = held(source)
    done = []

    def report(event: object) -> None:
        if isinstance(event, Moved) and not done:
            done.append(event)
            with opened(source) as connection, transaction(connection):
                execute(connection, "UPDATE tasks SET title = 'changed'")
                configurations.set(connection, "new", True)

    dao.copy(source, target, report=report)
    assert done
    assert held(target) == before


def test_copy_refuses_a_target_to_which_somebody_wrote_meanwhile(urls):
    """The target is read back: a row too many is no copy, and the mark stays."""
    source, target = urls
    fill(source, 20)

    def report(event: object) -> None:
        if isinstance(event, Moved) and event.table == "configurations" and event.doing == "copying":
            fill_more(target)

    with pytest.raises(CopyFailed, match=r"tasks does not hold what .* does: 21 rows .* for 20 rows"):
        dao.copy(source, target, report=report)
    assert is_marked(target)
