"""Both engines accept exactly the same records, and give back what they were given; the one limit of one is here."""

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
from dao import codec
from dao.engine import execute, fetch
from dao.testing import make_task
from tests import strategies
from tests.property.test_constraints import COLUMNS, TABLES, kind_of, raw, refusal
from tests.property.test_records import MAKERS

every_engine = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


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


def test_text_with_nul_is_refused_by_the_record_and_by_postgresql(both):
    """SQLite stored a NUL, PostgreSQL has no such character in a text: the record refuses it for both."""
    for table, column in COLUMNS:
        (record, *_) = TABLES[table][1]
        error = refusal(both["postgresql"], table, raw(table, record, **{column: "a\0"}))
        assert type(error) is dao.InvalidValue, (table, column)
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


def test_text_with_nul_is_looked_for_in_vain_on_sqlite_only(both):
    """No row of PostgreSQL can have it, and it says so."""
    assert dao.tasks.get(both["sqlite"], "a\0") is None
    with pytest.raises(dao.InvalidValue, match="a text has a NUL character at 1"):
        dao.tasks.get(both["postgresql"], "a\0")
