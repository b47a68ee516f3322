"""The law that holds records and database together: a record accepts a value exactly when the database does.

But for a NUL in a text: SQLite stores it, and the record refuses it, because PostgreSQL cannot (test_engines.py).
"""

from __future__ import annotations

import enum
import math
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import codec, rows
from dao.engine import fetch
from dao.records import FINISHED_CALLS, MAX_INTEGER
from dao.testing import (
    make_configuration,
    make_session,
    make_task,
    make_task_dependency,
    make_task_event,
    make_tool_execution,
    make_workflow,
    make_workflow_task,
)
from tests import strategies

# each table with records to change one column of; two where a constraint looks at two columns
TABLES = {
    "tasks": (rows.TASKS, [make_task(), make_task(status="running", worker="w", lease_expires_at=codec.now())]),
    "task_dependencies": (rows.TASK_DEPENDENCIES, [make_task_dependency()]),
    "task_events": (rows.TASK_EVENTS, [make_task_event()]),
    "workflows": (rows.WORKFLOWS, [make_workflow()]),
    "workflow_tasks": (rows.WORKFLOW_TASKS, [make_workflow_task()]),
    "tool_executions": (
        rows.TOOL_EXECUTIONS,
        [
            make_tool_execution(),
            make_tool_execution(status="completed"),
            make_tool_execution(task_id="t", attempt=1, step="s"),
        ],
    ),
    "sessions": (rows.SESSIONS, [make_session()]),
    "configurations": (rows.CONFIGURATIONS, [make_configuration()]),
}
# SQLite gives an INTEGER PRIMARY KEY that is NULL the next number, and says of other types only that they are wrong
COLUMNS = [
    (table, column) for table, (definition, _) in TABLES.items() for column in definition.columns if column != "seq"
]
every_column = pytest.mark.parametrize(("table", "column"), COLUMNS, ids=list(map(".".join, COLUMNS)))

# For every CHECK the values of the columns that it looks at, in the table's order, with which a row breaks it.
VIOLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "tasks": {
        "tasks_id_not_empty": {"id": ""},
        "tasks_title_not_blank": {"title": strategies.BLANKS},
        "tasks_task_type_not_blank": {"task_type": ""},
        "tasks_status_known": {"status": "timeout"},
        "tasks_config_json_object": {"config": "[]"},
        "tasks_metadata_json": {"metadata": "{"},
        "tasks_created_at_utc_ms": {"created_at": "2024-01-01T00:00:00Z"},
        "tasks_updated_at_utc_ms": {"updated_at": "2024-02-30T00:00:00.000Z"},
        "tasks_started_at_utc_ms": {"started_at": "2024-01-01T24:00:00.000Z"},
        "tasks_completed_at_utc_ms": {"completed_at": "0000-12-31T23:59:59.999Z"},
        "tasks_priority_range": {"priority": 10},
        "tasks_run_at_utc_ms": {"run_at": "2024-01-01T00:00:00.00Z"},
        "tasks_attempt_not_negative": {"attempt": -1},
        "tasks_worker_not_empty": {"worker": ""},
        "tasks_lease_expires_at_utc_ms": {"lease_expires_at": "2024-01-01T25:00:00.000Z"},
        "tasks_lease_when_running": {"status": "pending", "lease_expires_at": "2024-01-01T00:00:00.000Z"},
        "tasks_lease_of_worker": {"worker": None, "lease_expires_at": "2024-01-01T00:00:00.000Z"},
        "tasks_failures_not_negative": {"failures": -1},
        "tasks_retries_not_negative": {"retries": -1},
        "tasks_retry_delay_ms_range": {"retry_delay_ms": 86_400_001},
        "tasks_dedup_key_not_empty": {"dedup_key": ""},
        "tasks_waiting_for_not_negative": {"waiting_for": -1},
        "tasks_paused_by_not_negative": {"paused_by": -1},
    },
    "task_dependencies": {
        "task_dependencies_not_itself": {"task_id": "a", "depends_on": "a"},
        "task_dependencies_created_at_utc_ms": {"created_at": "2024-01-01"},
    },
    "task_events": {
        "task_events_seq_positive": {"seq": 0},
        "task_events_attempt_not_negative": {"attempt": -1},
        "task_events_from_status_known": {"from_status": "lost"},
        "task_events_to_status_known": {"to_status": ""},
        "task_events_at_utc_ms": {"at": "2024-01-01T00:00:00Z"},
        "task_events_previous_json_object": {"previous": "[]"},
    },
    "workflows": {
        "workflows_id_not_empty": {"id": ""},
        "workflows_name_not_blank": {"name": " "},
        "workflows_status_known": {"status": "DRAFT"},
        "workflows_config_json_object": {"config": "null"},
        "workflows_metadata_json": {"metadata": "None"},
        "workflows_created_at_utc_ms": {"created_at": "2024-01-01 00:00:00.000Z"},
        "workflows_updated_at_utc_ms": {"updated_at": "2024-01-01T00:00:00.000+00:00"},
    },
    "workflow_tasks": {
        "workflow_tasks_sequence_not_negative": {"sequence": -1},
        "workflow_tasks_config_json_object": {"config": '"{}"'},
        "workflow_tasks_created_at_utc_ms": {"created_at": "2024-01-01T00:00:00.000z"},
        "workflow_tasks_updated_at_utc_ms": {"updated_at": "2024-01-01T00:00:00.000Z\0"},
    },
    "tool_executions": {
        "tool_executions_id_not_empty": {"id": ""},
        "tool_executions_tool_name_not_blank": {"tool_name": "\t"},
        "tool_executions_input_json": {"input": ""},
        "tool_executions_output_json": {"output": "{'a': 1}"},
        "tool_executions_status_known": {"status": "cancelled"},
        "tool_executions_duration_ms_not_negative": {"duration_ms": -1},
        "tool_executions_completed_at_when_finished": {"status": "completed", "completed_at": None},
        "tool_executions_created_at_utc_ms": {"created_at": "2024-13-01T00:00:00.000Z"},
        "tool_executions_updated_at_utc_ms": {"updated_at": "2460000.5"},
        "tool_executions_started_at_utc_ms": {"started_at": ""},
        "tool_executions_completed_at_utc_ms": {"completed_at": "2024-01-01"},
        "tool_executions_step_not_empty": {"step": ""},
        "tool_executions_step_of_attempt": {"step": "s", "attempt": None},
        "tool_executions_attempt_positive": {"attempt": 0},
        "tool_executions_attempt_of_task": {"task_id": None, "attempt": 1},
    },
    "sessions": {
        "sessions_id_not_empty": {"id": ""},
        "sessions_client_id_not_blank": {"client_id": "\u3000"},
        "sessions_is_active_boolean": {"is_active": 2},
        "sessions_metadata_json": {"metadata": "[1,]"},
        "sessions_last_heartbeat_utc_ms": {"last_heartbeat": "2024-01-01T00:00:00.0000Z"},
        "sessions_created_at_utc_ms": {"created_at": "2024-01-00T00:00:00.000Z"},
        "sessions_updated_at_utc_ms": {"updated_at": "2023-02-29T00:00:00.000Z"},
    },
    "configurations": {
        "configurations_key_not_empty": {"key": ""},
        "configurations_value_json": {"value": "NaN"},
        "configurations_updated_at_utc_ms": {"updated_at": "10000-01-01T00:00:00.000Z"},
    },
}


@pytest.fixture(scope="module")
def lenient(fresh_sqlite):
    """A connection without foreign keys and triggers, so that only the row itself decides.

    Beside it is a table that coerces alike.
    """
    with fresh_sqlite(foreign_keys=False) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}").fetchall()
        connection.execute("CREATE TEMP TABLE coerced (text TEXT, integer INTEGER)").fetchall()
        yield connection


# ---------------------------------------------------------------- the two sides


def refusal(connection, table, values):
    """Insert the row, and return the error with which the database refused it, or None. The table stays empty."""
    definition, _ = TABLES[table]
    try:
        fetch(connection, definition.insert, values)
    except dao.Error as error:
        return error
    fetch(connection, f"DELETE FROM {table}")
    return None


def raw(table, record, **changes):
    """Return the record's row with some columns set to raw values."""
    definition, _ = TABLES[table]
    row = dict(zip(definition.columns, definition.to_row(record), strict=True))
    return tuple({**row, **changes}.values())


def kind_of(record, column):
    """Return what a column holds: json, time, boolean, integer, an enum, or text."""
    field = getattr(attrs.fields(type(record)), column)
    if kind := field.metadata.get("members"):
        return kind
    if isinstance(field.converter, enum.EnumMeta):
        return field.converter
    # the text: who resolves the types of the class, as cattrs does, replaces those of the fields
    annotation = type(record).__annotations__[column]
    return field.metadata.get("column", "integer" if annotation.startswith("int") else "text")


def creatable(value):
    """Return a JSON value that was read, without what other programs may write and we only read.

    That is a number past the range of a float, which reads as infinity, and half of a surrogate pair.
    """
    if isinstance(value, dict):
        return {creatable(key): creatable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [creatable(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return 0.0 if isinstance(value, float) and math.isinf(value) else value


def meaning(record, column, value):
    """Return the Python value for which a raw one stands in this column.

    Raises:
        ValueError: It stands for none.
    """
    kind = kind_of(record, column)
    if kind == "json":
        if value is None and getattr(attrs.fields(type(record)), column).default is not None:
            raise ValueError("this column has JSON's null and not SQL's")
        return creatable(codec.decode_json(value)) if isinstance(value, str) else value
    if kind == "time" and isinstance(value, str):
        moment = codec.time_from_text(value)
        if codec.time_to_text(moment) != value:
            raise ValueError("another text for this time")
        return moment
    if kind == "boolean" and value in {0, 1}:
        return bool(value)
    return value


def is_accepted(record, column, value):
    """Whether the record class takes the value in this column."""
    try:
        attrs.evolve(record, **{column: meaning(record, column, value)})
    except (TypeError, ValueError):
        return False
    return True


def assert_law(connection, table, record, column, candidate):
    """Both sides say the same of a raw value; the database's error names what it refused."""
    affinity = "integer" if kind_of(record, column) in {"integer", "boolean"} else "text"
    # a STRICT table first converts what converts without loss, such as 5 to '5'
    ((value,),) = fetch(connection, f"INSERT INTO coerced ({affinity}) VALUES ($1) RETURNING {affinity}", (candidate,))
    error = refusal(connection, table, raw(table, record, **{column: candidate}))
    if kind_of(record, column) == "text" and isinstance(value, str) and "\0" in value:
        assert not is_accepted(record, column, value)
        return
    assert (error is None) == is_accepted(record, column, value), error
    if error is None:
        return
    assert error.table == table
    if value is None and type(error) is not dao.CheckViolation:
        assert type(error) is dao.NotNullViolation
        assert error.columns == (column,)
    elif value is not None and type(value) is not {"integer": int, "text": str}[affinity]:
        assert type(error) is dao.IntegrityError
        assert error.columns == (column,)
    else:
        assert type(error) is dao.CheckViolation
        assert column in error.columns
        assert error.columns == tuple(VIOLATIONS[table][error.constraint])


# ---------------------------------------------------------------- candidates

_OTHER_TYPES = st.one_of(
    st.none(),
    st.integers(-MAX_INTEGER - 1, MAX_INTEGER),
    st.floats(),
    st.binary(max_size=5),
    st.sampled_from(["", "0", "1", "-1", " 1 ", "1.0", "1.5", "1e3", "0x1", "1\0", "9223372036854775808"]),
)
_ANYTHING = _OTHER_TYPES | strategies.texts() | strategies.blank_texts()
_STATUSES = [member.value for kind in (dao.TaskStatus, dao.WorkflowStatus, dao.ToolStatus) for member in kind]
CANDIDATES = {
    "text": _ANYTHING,
    "json": _ANYTHING | strategies.json_texts(),
    "time": _ANYTHING | strategies.time_texts(),
    "boolean": _ANYTHING | st.integers(-1, 2),
    "integer": _ANYTHING | st.integers(-2, 2) | st.sampled_from([MAX_INTEGER, -MAX_INTEGER - 1]),
    "status": st.one_of(
        _ANYTHING,
        st.sampled_from(_STATUSES),
        st.builds(
            lambda text, change: change(text),
            st.sampled_from(_STATUSES),
            st.sampled_from([str.upper, lambda text: text + " ", lambda text: text + "\0", lambda text: text[:-1]]),
        ),
    ),
}


EDGES = {
    "text": [*strategies.BLANKS, strategies.BLANKS, "", "\0", "\0 ", "\u200b", "\u180e"],
    "json": strategies.JSON_EDGES,
    "time": strategies.TIME_EDGES,
    "boolean": [-1, 0, 1, 2, 0.5, "", "true"],
    "integer": [-1, 0, 1, MAX_INTEGER, -MAX_INTEGER - 1, 0.5, 1e300, "", "one"],
    "status": [*_STATUSES, "", "PENDING", "pending ", "pending\0"],
}


def candidates_of(record, column):
    """Return the name under which the raw values for a column are: right, nearly right, and of another type."""
    kind = kind_of(record, column)
    return "status" if isinstance(kind, enum.EnumMeta) else kind


# ---------------------------------------------------------------- the law


@pytest.mark.sample(3)
@every_column
@strategies.SHARED
@given(data=st.data())
def test_record_accepts_a_value_exactly_when_the_database_does(lenient, table, column, data):
    """For any raw value in any column, insert and record agree; the error names table, columns and constraint."""
    record = data.draw(st.sampled_from(TABLES[table][1]))
    assert_law(lenient, table, record, column, data.draw(CANDIDATES[candidates_of(record, column)]))


@every_column
def test_record_accepts_an_edge_exactly_when_the_database_does(lenient, table, column):
    """The same for NULL, for bytes, and for every text at the edge of what the column takes."""
    for record in TABLES[table][1]:
        for value in [None, b"", b"{}", *EDGES[candidates_of(record, column)]]:
            assert_law(lenient, table, record, column, value)


@given(text=strategies.time_texts())
def test_time_text_is_accepted_exactly_when_the_codec_gives_it_back(lenient, text):
    """The database takes the texts that `time_from_text` reads and `time_to_text` writes, and no other."""
    try:
        canonical = codec.time_to_text(codec.time_from_text(text)) == text
    except ValueError:
        canonical = False
    assert (refusal(lenient, "tasks", raw("tasks", make_task(), started_at=text)) is None) == canonical


@given(moment=strategies.moments())
def test_time_text_of_any_moment_is_accepted(lenient, moment):
    """Every moment of the years 1 to 9999 has a text that the database takes and the codec reads back."""
    kept = codec.millisecond(moment)
    text = codec.time_to_text(kept)
    assert refusal(lenient, "tasks", raw("tasks", make_task(), started_at=text)) is None
    assert codec.time_from_text(text) == kept


@given(text=strategies.json_texts())
def test_json_text_is_accepted_exactly_when_the_codec_decodes_it(lenient, text):
    """The database takes the texts that `decode_json` reads, and no other."""
    try:
        codec.decode_json(text)
        decodes = True
    except ValueError:
        decodes = False
    values = raw("configurations", make_configuration(), value=text)
    assert (refusal(lenient, "configurations", values) is None) == decodes


@given(status=st.sampled_from(dao.ToolStatus), completed_at=st.none() | strategies.times())
def test_tool_execution_has_its_end_exactly_when_it_is_finished(lenient, status, completed_at):
    """A finished call without its end, or an unfinished one with it, is refused by record and database alike."""
    text = None if completed_at is None else codec.time_to_text(completed_at)
    error = refusal(
        lenient,
        "tool_executions",
        raw("tool_executions", make_tool_execution(), status=status.value, completed_at=text),
    )
    if (status in FINISHED_CALLS) == (completed_at is not None):
        assert error is None
        dao.ToolExecution(tool_name="search", input=None, status=status, completed_at=completed_at)
    else:
        assert isinstance(error, dao.CheckViolation)
        assert error.constraint == "tool_executions_completed_at_when_finished"
        with pytest.raises(ValueError, match=r"ToolExecution\.completed_at must be set when"):
            dao.ToolExecution(tool_name="search", input=None, status=status, completed_at=completed_at)


@pytest.mark.parametrize(
    ("table", "column"), [("workflow_tasks", "sequence"), ("tool_executions", "duration_ms"), ("tasks", "attempt")]
)
def test_integer_past_the_largest_is_refused_by_both(lenient, table, column):
    """2**63 - 1 is the last integer that both take."""
    (record, *_) = TABLES[table][1]
    assert refusal(lenient, table, raw(table, record, **{column: MAX_INTEGER})) is None
    assert getattr(attrs.evolve(record, **{column: MAX_INTEGER}), column) == MAX_INTEGER
    assert type(refusal(lenient, table, raw(table, record, **{column: MAX_INTEGER + 1}))) is dao.InvalidValue
    with pytest.raises(ValueError, match=f"{column} must be from 0 to {MAX_INTEGER}"):
        attrs.evolve(record, **{column: MAX_INTEGER + 1})


def test_text_that_is_not_unicode_is_refused_by_both(lenient):
    """Half of a surrogate pair has no UTF-8 form: no column takes it."""
    for table, column in COLUMNS:
        (record, *_) = TABLES[table][1]
        error = refusal(lenient, table, raw(table, record, **{column: "\ud800"}))
        assert type(error) is dao.InvalidValue, (table, column)
        assert not is_accepted(record, column, "\ud800"), (table, column)


# ---------------------------------------------------------------- every constraint, by its name


def test_every_check_of_the_schema_has_a_name_and_a_violation(lenient):
    """A new CHECK without a name, or without an entry in VIOLATIONS, fails here."""
    schema = dict(
        fetch(lenient, "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    )
    assert schema.keys() == VIOLATIONS.keys() == TABLES.keys()
    for table, sql in schema.items():
        names = re.findall(r"\bCONSTRAINT\s+(\w+)\s+CHECK\b", sql)
        assert len(names) == len(re.findall(r"\bCHECK\b", sql))
        assert sorted(names) == sorted(VIOLATIONS[table])


def test_event_gets_the_next_number_from_the_database(lenient):
    """A number that is NULL is one more than any that was there, even if those events are gone."""
    event = make_task_event(seq=41)
    fetch(lenient, rows.TASK_EVENTS.insert, raw("task_events", event))
    fetch(lenient, "DELETE FROM task_events")
    fetch(lenient, rows.TASK_EVENTS.insert, raw("task_events", event, seq=None))
    assert fetch(lenient, "DELETE FROM task_events RETURNING seq") == [(42,)]


def test_every_table_is_strict_and_has_the_columns_of_its_record(lenient):
    """The database refuses values of another type, and knows no column that the record does not."""
    strict = dict(fetch(lenient, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"))
    for table, (definition, _) in TABLES.items():
        assert strict[table] == 1
        columns = fetch(lenient, "SELECT name FROM pragma_table_info($1)", (table,))
        assert {name for (name,) in columns} == set(definition.columns)


@pytest.mark.parametrize(
    ("table", "constraint"),
    [pytest.param(table, name, id=name) for table, violations in VIOLATIONS.items() for name in violations],
)
def test_insert_row_that_breaks_a_check_raises_its_name(lenient, table, constraint):
    """The error carries the constraint's name, its table and the columns it looks at; the record refuses the same."""
    violation = VIOLATIONS[table][constraint]
    # where status and end must suit each other, only one of the records breaks this constraint alone
    for record in TABLES[table][1]:
        error = refusal(lenient, table, raw(table, record, **violation))
        assert type(error) is dao.CheckViolation
        if error.constraint == constraint:
            break
    assert (error.constraint, error.table, error.columns) == (constraint, table, tuple(violation))
    with pytest.raises((TypeError, ValueError)):
        attrs.evolve(record, **{column: meaning(record, column, value) for column, value in violation.items()})


@every_column
def test_insert_null_where_a_value_must_be_raises_not_null_violation(lenient, table, column):
    """The error for a missing value names the table and the column."""
    (record, *_) = TABLES[table][1]
    required = dict(fetch(lenient, 'SELECT name, "notnull" FROM pragma_table_info($1)', (table,)))[column]
    error = refusal(lenient, table, raw(table, record, **{column: None}))
    if required:
        assert type(error) is dao.NotNullViolation
        assert (error.table, error.columns, error.constraint) == (table, (column,), None)
    elif error is not None:  # where two columns go together
        assert type(error) is dao.CheckViolation
        assert column in error.columns
