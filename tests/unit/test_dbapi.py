"""apsw's connection as Python's DB-API has it, for programs that want such a one."""

from __future__ import annotations

import apsw
import pytest

from dao.engine.sqlite.dbapi import DbApiConnection


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT id, title AS name FROM tasks", ["id", "name"]),
        ("SELECT 1 AS one", ["one"]),
        ("SELECT * FROM configurations WHERE key = $1", ["key", "value", "updated_at"]),
        ("CREATE TABLE t (i integer)", None),
        ("DELETE FROM tasks", None),
        ("DELETE FROM tasks RETURNING id", ["id"]),
    ],
)
def test_description_has_the_columns_whether_there_are_rows_or_not(connection, sql, names):
    """Pandas failed at a query that found nothing: apsw knows no columns after the end of a statement."""
    cursor = DbApiConnection(connection).cursor()
    cursor.execute("SELECT 1 AS before")
    cursor.execute(sql, ["a"] if "$1" in sql else [])
    found = cursor.description
    assert (found and [name for name, *_ in found]) == names


def test_rows_are_fetched_one_by_one_some_at_a_time_and_all(connection):
    """Pandas failed at `chunksize=`, for which it fetches many."""
    cursor = DbApiConnection(connection).cursor()
    cursor.execute("SELECT value FROM json_each('[1, 2, 3, 4, 5]')")
    assert (cursor.fetchone(), cursor.fetchmany(2), cursor.fetchmany()) == ((1,), [(2,), (3,)], [(4,)])
    assert (cursor.fetchall(), cursor.fetchall(), cursor.fetchmany(2), cursor.fetchone()) == ([(5,)], [], [], None)


def test_statements_of_its_cursors_are_told_to_the_connections_own_trace(connection):
    """The trace that refuses everything in a forked process refuses it here, too."""
    seen = []
    connection.exec_trace = lambda _cursor, sql, values: seen.append((sql, values)) or len(seen) < 2
    cursor = DbApiConnection(connection).cursor()
    cursor.execute("SELECT $1", ["a"])
    assert (cursor.fetchall(), seen) == ([("a",)], [("SELECT $1", ["a"])])
    with pytest.raises(apsw.ExecTraceAbort):
        cursor.execute("SELECT 2")
