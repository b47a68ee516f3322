"""Both engines accept exactly the same records, and give back what they were given; what differs is listed here."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import codec, rows
from dao.engine import execute, fetch
from dao.testing import make_task
from tests import strategies
from tests.property.test_constraints import (
    CANDIDATES,
    EDGES,
    TABLES,
    VIOLATIONS,
    candidates_of,
    creatable,
    every_column,
    is_accepted,
    kind_of,
    meaning,
    raw,
    refusal,
)
from tests.property.test_records import MAKERS

#: Times that break the CHECK of a column whose type takes nothing but times.
NO_TIMES = ("infinity", "-infinity", "0001-12-31 23:59:59.999+00 BC", "9999-12-31T23:59:59.9995Z", "10000-01-01T00:00Z")
#: The CHECKs that PostgreSQL has by the type of the column.
BY_TYPE = {"sessions_is_active_boolean"}
every_engine = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


@pytest.fixture(scope="module")
def both(fresh_sqlite, fresh_postgresql) -> Iterator[dict[str, Any]]:
    """A connection of each engine, to tables without foreign keys, so that only the row itself decides."""
    with fresh_sqlite(foreign_keys=False) as sqlite, fresh_postgresql(foreign_keys=False) as postgresql:
        yield {"sqlite": sqlite, "postgresql": postgresql}


def stored(connection, record):
    """Store a record, and return it as it is read back. The table stays empty."""
    table = strategies.TABLES[type(record)]
    key = [getattr(record, name) for name in record.__key__]
    execute(connection, table.insert, table.to_row(record), table)
    found = table.first(fetch(connection, table.get, key))
    execute(connection, f"DELETE FROM {table.name}")
    return found


def assert_stored_alike(both, record):
    """Both engines give back the record, of which each text is what it was."""
    to_row = strategies.TABLES[type(record)].to_row
    for connection in both.values():
        found = stored(connection, record)
        assert found == record
        assert hash(found) == hash(record)
        assert found.to_dict() == record.to_dict()
        assert to_row(found) == to_row(record)  # -0.0 equals 0.0, and its text does not


# ---------------------------------------------------------------- records


@given(record=strategies.records())
def test_record_of_any_kind_is_stored_by_both(both, record):
    """Whatever can be made can be stored on either engine, and comes back equal."""
    assert_stored_alike(both, record)


@pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)
@given(
    strange=st.lists(st.tuples(st.integers(0, 12), strategies.field_values() | strategies.hostile_texts()), max_size=3)
)
def test_record_of_any_values_is_refused_before_it_is_stored_or_stored_by_both(both, kind, strange):
    """No value comes past the validators that one of the engines would refuse, or change."""
    values = attrs.asdict(MAKERS[kind](), recurse=False)
    names = [*values]
    values |= {names[number % len(names)]: value for number, value in strange}
    try:
        record = kind(**values)
    except (TypeError, ValueError):
        return
    assert_stored_alike(both, record)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
        datetime(1582, 10, 10, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2016, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 998_000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    ids=str,
)
def test_record_of_a_time_at_the_edge_is_stored_by_both(both, moment):
    """The first and the last time that there is are stored, and no millisecond is rounded up."""
    record = make_task(created_at=moment, updated_at=moment, started_at=moment, completed_at=moment)
    assert_stored_alike(both, record)


# ---------------------------------------------------------------- deep JSON


@contextlib.contextmanager
def plenty_of_frames() -> Iterator[None]:
    """Let Python follow JSON as deep as its stack allows."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def nested(levels, kind):
    """Return lists, objects, or both in turn, so many in one another; each has a neighbour."""
    value: Any = "]"
    for level in range(levels):
        value = {'["': value, "b": 1} if kind == "objects" or (kind == "both" and level % 2) else [value, "[{"]
    return value


@pytest.mark.parametrize("kind", ["lists", "objects", "both"])
@pytest.mark.parametrize("levels", [1, 100, 999, 1000])
def test_record_of_deep_json_is_stored_by_both(both, levels, kind):
    """A thousand levels are what SQLite reads: so deep may JSON be."""
    with plenty_of_frames():
        assert_stored_alike(both, dao.Configuration(key="deep", value=nested(levels, kind)))


@pytest.mark.parametrize("kind", ["lists", "objects", "both"])
@pytest.mark.parametrize("levels", [1001, 1002, 5000])
def test_record_of_deeper_json_is_refused(both, levels, kind):
    """One level more was refused by SQLite's CHECK and stored by PostgreSQL: it is an error before either is asked."""
    value = nested(levels, kind)
    with plenty_of_frames(), pytest.raises(ValueError, match=r"^metadata: nested too deep for JSON"):
        make_task(metadata=value)
    if kind == "lists":
        text = "[" * levels + "]" * levels
        error = refusal(both["sqlite"], "tasks", raw("tasks", make_task(), metadata=text))
        assert error.constraint == "tasks_metadata_json"
        assert refusal(both["postgresql"], "tasks", raw("tasks", make_task(), metadata=text)) is None


def test_record_of_wide_json_is_not_deep(both):
    """Many lists and objects beside one another, with brackets and quotes in texts, are not nested."""
    value = [{'a"]': ['[{\\"', "}\\", [n]]} for n in range(2000)]
    assert_stored_alike(both, dao.Configuration(key="wide", value=value))


@given(value=strategies.json_values(), levels=st.integers(0, 12), deepest=st.integers(1, 8))
def test_depth_is_counted_as_a_walk_through_the_value_counts_it(value, levels, deepest):
    """Brackets in texts and keys do not count, whatever quotes and escapes are around them."""

    def depth(value):
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    for level in range(levels):
        value = {'\\"}]"[': [value, '"\\[', "]"], "\\": "{"} if level % 2 else [value, {}, '\\"{', '"', "\\"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "DEEPEST", deepest)
        try:
            codec.plain_json_text(value, "value")
            refused = False
        except ValueError:
            refused = True
    assert refused == (depth(value) > deepest)


# ---------------------------------------------------------------- long keys


def incompressible(length):
    """Return a text that PostgreSQL cannot make shorter."""
    return "".join(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(length // 64 + 1))[:length]


INDEXED = [
    ("tasks", "id"),
    ("tasks", "task_type"),
    ("tasks", "workspace_path"),
    ("workflows", "id"),
    ("workflow_tasks", "workflow_id"),
    ("workflow_tasks", "task_id"),
    ("tool_executions", "id"),
    ("tool_executions", "tool_name"),
    ("tool_executions", "task_id"),
    ("sessions", "id"),
    ("sessions", "client_id"),
    ("configurations", "key"),
]


@pytest.mark.parametrize(("table", "column"), INDEXED, ids=list(map(".".join, INDEXED)))
def test_text_of_an_index_may_be_longer_on_sqlite(both, table, column):
    """The one limit that only PostgreSQL has: a key of an index of some 2,700 bytes, after compression. It is told."""
    record = attrs.evolve(TABLES[table][1][0], **{column: incompressible(2600)})
    assert_stored_alike(both, record)
    assert_stored_alike(both, attrs.evolve(record, **{column: "é" * 20_000}))  # is compressed
    longer = attrs.evolve(record, **{column: incompressible(5000)})
    assert stored(both["sqlite"], longer) == longer
    with pytest.raises(dao.IntegrityError, match="2,700 bytes"):
        stored(both["postgresql"], longer)


@every_engine
def test_text_of_no_index_has_any_length(both, engine):
    """Texts and JSON that are in no index are as long as they are."""
    text = incompressible(300_000)
    record = make_task(title=text, description=text, error=text, metadata=[text], config={text: text})
    assert stored(both[engine], record) == record


# ---------------------------------------------------------------- NUL and surrogates


@every_column
def test_text_with_nul_is_refused_by_the_record_and_by_postgresql(both, table, column):
    """SQLite stored a NUL, PostgreSQL has no such character in a text: the record refuses it for both."""
    (record, *_) = TABLES[table][1]
    error = refusal(both["postgresql"], table, raw(table, record, **{column: "a\0"}))
    assert type(error) is dao.IntegrityError
    if kind_of(record, column) == "text":
        with pytest.raises(ValueError, match=rf"\.{column} has a NUL character at 1"):
            attrs.evolve(record, **{column: "a\0"})


@every_engine
@pytest.mark.parametrize("text", ["a\0", "\ud800"])
def test_error_that_cannot_be_stored_is_refused_by_the_functions_too(both, engine, text):
    """Functions that write past a record keep to the same rules: nothing is changed."""
    connection = both[engine]
    task = make_task()
    dao.tasks.create(connection, task)
    call = dao.tool_executions.start(connection, tool_name="shell", input=None)
    for change in (
        lambda: dao.tasks.set_status(connection, task.id, "failed", error=text),
        lambda: dao.tool_executions.fail(connection, call, error=text),
        lambda: dao.tool_executions.timeout(connection, call.id, error=text),
    ):
        with pytest.raises(ValueError, match=r"^error (has a NUL|is not valid Unicode)"):
            change()
    with pytest.raises(TypeError, match=r"^error must be text, got 5"):
        dao.tasks.set_status(connection, task.id, "failed", error=5)
    assert dao.tasks.get_one(connection, task.id) == task
    assert dao.tool_executions.get_one(connection, call.id) == call
    execute(connection, "DELETE FROM tool_executions")
    execute(connection, "DELETE FROM tasks")


# ---------------------------------------------------------------- rows of other programs


@given(text=strategies.json_texts())
def test_json_of_any_style_is_accepted_by_both_or_neither(both, text):
    """Spaces, escapes, duplicate keys, numbers of any form: one grammar, and the text is kept as it was written."""
    if "\0" in text:
        return
    row = raw("configurations", MAKERS[dao.Configuration](key="k"), value=text)
    found = {}
    for engine, connection in both.items():
        try:
            execute(connection, rows.CONFIGURATIONS.insert, row)
            found[engine] = fetch(connection, "SELECT value FROM configurations")
            execute(connection, "DELETE FROM configurations")
        except dao.CheckViolation as error:
            found[engine] = error.constraint
    assert found["sqlite"] == found["postgresql"]
    assert found["sqlite"] in ([(text,)], "configurations_value_json")


@every_column
@given(data=st.data())
def test_value_of_any_column_is_accepted_by_postgresql_as_by_the_record(both, table, column, data):
    """For any raw text, NULL or number, insert and record agree, as they do on SQLite; a CHECK gives its name."""
    record = data.draw(st.sampled_from(TABLES[table][1]))
    values = CANDIDATES[candidates_of(record, column)].filter(lambda value: value is None or type(value) in {str, int})
    assert_postgresql_agrees(both["postgresql"], table, record, column, data.draw(values))


@every_column
def test_value_at_the_edge_is_accepted_by_postgresql_as_by_the_record(both, table, column):
    """The same for NULL and for every text at the edge of what the column takes."""
    for record in TABLES[table][1]:
        for value in [None, *EDGES[candidates_of(record, column)]]:
            if value is None or type(value) in {str, int}:
                assert_postgresql_agrees(both["postgresql"], table, record, column, value)


def assert_postgresql_agrees(connection, table, record, column, candidate):
    """A raw value is accepted if the record takes it, and what is accepted reads back as a record."""
    definition, _ = TABLES[table]
    row = raw(table, record, **{column: candidate})
    kind = kind_of(record, column)
    # a whole number in a column of texts is its digits, as on SQLite
    value = str(candidate) if type(candidate) is int and kind not in {"integer", "boolean"} else candidate
    error = found = None
    try:
        fetch(connection, definition.insert, row)
        (found,) = definition.from_rows(fetch(connection, f"SELECT {definition.listed} FROM {table}"))
        fetch(connection, f"DELETE FROM {table}")
    except dao.Error as refused:
        error = refused
    if isinstance(value, str) and "\0" in value:
        assert type(error) is dao.IntegrityError
        return
    accepted = is_accepted(record, column, value)
    if accepted:
        assert error is None
    if error is None:
        held = {name: getattr(found, name) for name in definition.columns}
        kind_of_record = type(record)
        kind_of_record(
            **{name: creatable(item) if kind_of(record, name) == "json" else item for name, item in held.items()}
        )
        if accepted:
            assert getattr(found, column) == meaning(record, column, value) or kind == "json"
        else:
            # a type takes more texts for the same value: `1` for true, `2024-01-01` for a time
            assert kind in {"time", "boolean", "integer"}
        return
    assert error.table == table or type(error) is dao.IntegrityError
    if type(error) is dao.CheckViolation:
        assert error.columns == tuple(VIOLATIONS[table][error.constraint])
        assert column in error.columns
    elif type(error) is dao.NotNullViolation:
        assert error.columns == (column,)
    else:
        assert type(error) is dao.IntegrityError
        assert kind in {"time", "boolean", "integer"}


@pytest.mark.parametrize(
    ("table", "constraint"),
    [
        pytest.param(table, name, id=name)
        for table, violations in VIOLATIONS.items()
        for name in violations
        if name not in BY_TYPE
    ],
)
def test_row_that_breaks_a_check_is_refused_under_the_same_name(both, table, constraint):
    """A row that a CHECK refuses on SQLite, one of the same name refuses on PostgreSQL, with table and columns."""
    violations = [VIOLATIONS[table][constraint]]
    if constraint.endswith("_utc_ms"):
        violations = [dict.fromkeys(violations[0], time) for time in NO_TIMES]
    for violation in violations:
        errors = [refusal(both["postgresql"], table, raw(table, record, **violation)) for record in TABLES[table][1]]
        assert {type(error) for error in errors} == {dao.CheckViolation}, violation
        # where status and end must suit each other, only one of the records breaks this constraint alone
        found = {(error.constraint, error.table, error.columns) for error in errors}
        assert (constraint, table, tuple(violation)) in found


def test_boolean_that_is_none_is_refused_by_its_type(both):
    """The one CHECK that PostgreSQL does not need: the type of the column refuses what it refuses."""
    violation = VIOLATIONS["sessions"]["sessions_is_active_boolean"]
    error = refusal(both["postgresql"], "sessions", raw("sessions", TABLES["sessions"][1][0], **violation))
    assert type(error) is dao.IntegrityError


@pytest.mark.parametrize(
    ("table", "column", "written", "read"),
    [
        ("tasks", "started_at", "2026-01-31 12:00+01", datetime(2026, 1, 31, 11, tzinfo=UTC)),
        ("sessions", "is_active", "yes", True),
        ("tool_executions", "duration_ms", "0x10", 16),
        ("tool_executions", "duration_ms", 1.5, 2),
    ],
)
def test_type_of_postgresql_reads_more_than_one_text(both, table, column, written, read):
    """SQLite's STRICT tables refuse another form than this package writes; PostgreSQL takes it for what it means."""
    definition, (record, *_) = TABLES[table]
    row = raw(table, record, **{column: written})
    assert isinstance(refusal(both["sqlite"], table, row), dao.IntegrityError)
    fetch(both["postgresql"], definition.insert, row)
    (found,) = definition.from_rows(fetch(both["postgresql"], f"SELECT {definition.listed} FROM {table}"))
    fetch(both["postgresql"], f"DELETE FROM {table}")
    assert getattr(found, column) == read


def test_text_with_nul_is_looked_for_in_vain_on_sqlite_only(both):
    """No row of PostgreSQL can have it, and it says so."""
    assert dao.tasks.get(both["sqlite"], "a\0") is None
    with pytest.raises(dao.IntegrityError):
        dao.tasks.get(both["postgresql"], "a\0")
