"""Rows that other programs write meet the same constraints on PostgreSQL as on SQLite, under the same names.

`test_constraints.py` holds SQLite to the records; here PostgreSQL is, with what its types read otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import rows
from dao.engine import execute, fetch
from dao.testing import make_configuration
from tests import strategies
from tests.contract.test_schemas import BY_TYPE
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

#: Times that break the CHECK of a column whose type takes nothing but times.
NO_TIMES = ("infinity", "-infinity", "0001-12-31 23:59:59.999+00 BC", "9999-12-31T23:59:59.9995Z", "10000-01-01T00:00Z")


@given(text=strategies.json_texts())
def test_json_of_any_style_is_accepted_by_both_or_neither(both, text):
    """Spaces, escapes, duplicate keys, numbers of any form: one grammar, and the text is kept as it was written."""
    if "\0" in text:
        return
    row = raw("configurations", make_configuration(key="k"), value=text)
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


@pytest.mark.sample(3)
@every_column
@strategies.SHARED
@given(data=st.data())
def test_value_of_any_column_is_accepted_by_postgresql_as_by_the_record(both, table, column, data):
    """For any raw text, NULL or number, insert and record agree, as they do on SQLite; a CHECK gives its name."""
    record = data.draw(st.sampled_from(TABLES[table][1]))
    values = CANDIDATES[candidates_of(record, column)].filter(lambda value: value is None or type(value) in {str, int})
    assert_postgresql_agrees(both["postgresql"], table, record, column, data.draw(values))


@pytest.mark.sample(3)
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
        assert type(error) is dao.InvalidValue
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
        if name not in BY_TYPE.get(table, ())
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


def test_blank_is_the_same_to_postgresql_as_to_python(both):
    """Of all characters that there are, each CHECK trims those of `str.isspace`, and no other."""
    checks = fetch(
        both["postgresql"],
        "SELECT pg_get_expr(conbin, conrelid), attname FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1] WHERE conname LIKE '%\\_not\\_blank'",
    )
    assert len(checks) == 5
    for check, column in checks:
        ((blanks,),) = fetch(
            both["postgresql"],
            f"SELECT string_agg({column}, '' ORDER BY {column} COLLATE \"C\")"
            " FROM generate_series(1, 1114111) AS number"
            f", LATERAL (SELECT CASE WHEN number NOT BETWEEN 55296 AND 57343 THEN chr(number) END AS {column}) AS one"
            f" WHERE NOT {check}",
        )
        assert blanks == strategies.BLANKS


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
