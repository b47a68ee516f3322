"""`updated_at` is the version of a row: whatever changes the row moves it on, whatever the clock says."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import codec, rows
from dao.engine import fetch
from dao.testing import (
    make_configuration,
    make_session,
    make_task,
    make_tool_execution,
    make_workflow,
    make_workflow_task,
)
from tests import strategies
from tests.engines import is_sqlite, now

TABLES = {
    "tasks": (rows.TASKS, make_task),
    "workflows": (rows.WORKFLOWS, make_workflow),
    "workflow_tasks": (rows.WORKFLOW_TASKS, make_workflow_task),
    "tool_executions": (rows.TOOL_EXECUTIONS, make_tool_execution),
    "sessions": (rows.SESSIONS, make_session),
    "configurations": (rows.CONFIGURATIONS, make_configuration),
}
pytestmark = pytest.mark.both_engines
every_table = pytest.mark.parametrize("table", TABLES)
MILLISECOND = timedelta(milliseconds=1)
KEYS = {"workflow_tasks": ("workflow_id", "task_id"), "configurations": ("key",)}


def key_of(table):
    """Return the columns by which a row is found."""
    return KEYS.get(table, ("id",))


def store(connection, table, **overrides):
    """Store a new record and return it."""
    definition, make = TABLES[table]
    record = make(**overrides)
    fetch(
        connection,
        definition.insert,
        definition.to_row(record),
    )
    return record


def read(connection, table):
    """Return all records of the table, by key."""
    definition, _ = TABLES[table]
    found = fetch(connection, f"SELECT {definition.listed} FROM {table} ORDER BY {', '.join(key_of(table))}")
    return definition.from_rows(found)


def watched(table):
    """Return the columns that make a version, all but `updated_at`, and the lease, which a heartbeat changes alone."""
    return [column for column in TABLES[table][0].columns if column not in {"updated_at", "lease_expires_at"}]


# before and after what the clock says: as if the clock had been set back, by up to millennia, since the row was written
some_time = st.one_of(
    st.builds(lambda offset: codec.now() + offset * MILLISECOND, st.integers(-5, 5)),
    strategies.times(latest=datetime(9999, 12, 31, tzinfo=UTC)),
)
# an UPDATE: of one row or all, of which columns (numbers wrap), with which updated_at
steps = st.lists(
    st.tuples(st.booleans(), st.sets(st.integers(0, 12), min_size=1, max_size=3), st.none() | some_time),
    min_size=1,
    max_size=6,
)


@pytest.mark.sample(2, engine="postgresql")
@every_table
@given(recursive_triggers=st.booleans(), started=some_time, steps=steps)
def test_update_any_sequence_moves_updated_at_on(fresh, table, recursive_triggers, started, steps):
    """Every UPDATE of a row makes its `updated_at` later: its own if it is, else the clock's, else one millisecond."""
    columns = watched(table)
    with fresh(foreign_keys=False) as connection:
        if is_sqlite(connection):
            connection.pragma("recursive_triggers", recursive_triggers)
        key = key_of(table)
        first = store(connection, table, updated_at=started)
        store(connection, table, updated_at=started)
        # of a key of two columns, rows that share one
        for column in key if len(key) > 1 else ():
            store(connection, table, updated_at=started, **{column: getattr(first, column)})
        for only_first, numbers, given_time in steps:
            before = read(connection, table)
            names = {columns[number % len(columns)] for number in numbers}
            changes = [f"{name} = {name}" for name in names]
            parameters = []
            if given_time is not None:
                changes.append("updated_at = $1")
                parameters.append(codec.time_to_text(given_time))
            sql = f"UPDATE {table} SET {', '.join(changes)}"
            if only_first:
                places = enumerate(key, len(parameters) + 1)
                sql += " WHERE " + " AND ".join(f"{column} = ${number}" for number, column in places)
                parameters += [getattr(before[0], column) for column in key]
            clock = now(connection)
            fetch(connection, sql, parameters)
            for number, (old, new) in enumerate(zip(before, read(connection, table), strict=True)):
                assert attrs.evolve(new, updated_at=old.updated_at) == old
                if only_first and number > 0:
                    assert new == old
                elif given_time is not None and given_time > old.updated_at:
                    assert new.updated_at == given_time
                elif old.updated_at > clock + timedelta(hours=1):
                    assert new.updated_at == old.updated_at + MILLISECOND
                else:
                    assert new.updated_at >= max(old.updated_at + MILLISECOND, clock)


@pytest.mark.sample(3, engine="postgresql")
@every_table
@strategies.SHARED
@given(started=some_time, given_time=some_time)
def test_update_of_updated_at_alone_is_let_be(fresh, table, started, given_time):
    """Who writes `updated_at` and nothing else gets what they wrote, also an earlier one."""
    with fresh(foreign_keys=False) as connection:
        record = store(connection, table, updated_at=started)
        fetch(connection, f"UPDATE {table} SET updated_at = $1", (codec.time_to_text(given_time),))
        assert read(connection, table) == [attrs.evolve(record, updated_at=given_time)]


@every_table
def test_update_of_key_moves_updated_at_on(fresh, table):
    """A row that gets another key is still found by the trigger."""
    with fresh(foreign_keys=False) as connection:
        for column in key_of(table):
            fetch(connection, f"DELETE FROM {table}")
            record = store(connection, table)
            fetch(connection, f"UPDATE {table} SET {column} = 'another'")
            (found,) = read(connection, table)
            assert getattr(found, column) == "another"
            assert found.updated_at > record.updated_at


@every_table
def test_update_in_the_last_millisecond_there_is_is_refused(fresh, table):
    """After 9999-12-31T23:59:59.999Z no time is later: the row stays as it is."""
    with fresh(foreign_keys=False) as connection:
        record = store(connection, table, updated_at=datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC))
        column = watched(table)[-1]
        with pytest.raises(dao.NotNullViolation, match="updated_at"):
            fetch(connection, f"UPDATE {table} SET {column} = {column}")
        assert read(connection, table) == [record]


@every_table
def test_update_back_to_back_in_one_transaction_moves_updated_at_on(fresh, table):
    """A hundred changes within a few milliseconds each get an `updated_at` of their own."""
    column = watched(table)[-1]
    with fresh(foreign_keys=False) as connection:
        if is_sqlite(connection):
            connection.pragma("recursive_triggers", True)
        store(connection, table)
        seen = [read(connection, table)[0].updated_at]
        with dao.transaction(connection):
            for _ in range(100):
                fetch(connection, f"UPDATE {table} SET {column} = {column}")
                seen.append(read(connection, table)[0].updated_at)
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize(("module", "make"), [(dao.tasks, make_task), (dao.workflows, make_workflow)])
@given(started=some_time)
def test_update_record_of_any_older_version_is_stale(fresh, module, make, started):
    """Of all versions of a record only the newest can be written, however quickly they came."""
    versions = [make(updated_at=started)]
    with fresh() as connection:
        module.create(connection, versions[0])
        for _ in range(5):
            versions.append(module.update(connection, versions[-1]))
        for old in versions[:-1]:
            with pytest.raises(dao.StaleRecord):
                module.update(connection, old)
        assert module.get_one(connection, versions[-1].id) == versions[-1]


@pytest.mark.sqlite_only  # tests/contract/test_schemas.py compares the triggers of both engines
def test_every_table_with_updated_at_is_tested_here(connection):
    """A new table with that column has its trigger, and its entry in TABLES."""
    tables = fetch(
        connection,
        "SELECT tables.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns"
        " WHERE tables.type = 'table' AND columns.name = 'updated_at'",
    )
    assert {name for (name,) in tables} == TABLES.keys()


@pytest.mark.sqlite_only  # as above
@every_table
def test_trigger_watches_every_column_but_updated_at(connection, table):
    """A column that is added later must be added to the trigger's list too."""
    ((sql,),) = fetch(connection, "SELECT sql FROM sqlite_schema WHERE name = $1", (f"{table}_updated_at",))
    listed = sql.partition("UPDATE OF")[2].partition("\nON ")[0]
    assert sorted(name.strip() for name in listed.split(",")) == sorted(watched(table))
