"""A few rows of each table, by key, to see what a rebuild does to values: which come into another column, or another type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dao.engine import Connection
from dao.migrate.schema.catalog import columns, quoted

__all__ = ["Sample", "misfits", "sample", "sequences"]

_ROWS, _BYTES = 50, 200

#: A value's type, and its beginning.
_Value = tuple[str, Any]
#: Rows by their key; for each column, in lower case, its value.
Sample = Mapping[tuple[_Value, ...], Mapping[str, _Value]]


def sample(connection: Connection, table: str) -> Sample:
    """Return the first rows of a table by its primary key; none if it has none."""
    found = [column for column in columns(connection, table) if not column.hidden]
    keys = [column.name for column in sorted(found, key=lambda column: column.key) if column.key]
    if not keys:
        return {}
    # text as its bytes: it need not be UTF-8
    values = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN substr(CAST({name} AS BLOB), 1, {_BYTES}) "
        f"WHEN 'blob' THEN substr({name}, 1, {_BYTES}) ELSE {name} END"
        for name in (quoted(column.name) for column in found)
    )
    order = ", ".join(map(quoted, keys))
    rows = {}
    for row in connection.execute(f"SELECT {values} FROM main.{quoted(table)} ORDER BY {order} LIMIT {_ROWS}"):
        read = dict(zip((column.name.lower() for column in found), zip(row[::2], row[1::2], strict=True), strict=True))
        rows[tuple(read[key.lower()] for key in keys)] = read
    return rows


def sequences(connection: Connection) -> dict[str, int]:
    """Return after which number each AUTOINCREMENT table goes on, by name in lower case."""
    if not connection.table_exists("main", "sqlite_sequence"):
        return {}
    rows: list[Any] = connection.execute(
        "SELECT name, seq FROM sqlite_sequence WHERE typeof(seq) = 'integer'"
    ).fetchall()
    return {name.lower(): seq for name, seq in rows}


def misfits(table: str, before: Sample, after: Sample) -> Iterator[str]:
    """Say which values of a table that was rebuilt are in another column of it now, or of another type."""
    rows = [(before[key], after[key]) for key in before if key in after]
    if not rows:
        return
    olds, news = rows[0]
    moved = set()
    for column in olds:
        if all(_is_same(old[column], new.get(column, ("null", None))) for old, new in rows):
            continue
        for other in sorted(olds.keys() & news.keys() - {column}):
            came = all(_is_same(old[column], new[other]) for old, new in rows)
            if came and not all(_is_same(old[column], old[other]) for old, _ in rows):
                moved.add(other)
                yield f"the values of {table}.{column} are in {other} now"
    for column in [column for column in olds if column in news and column not in moved]:
        types = {
            (old[column][0], new[column][0]) for old, new in rows if "null" not in {old[column][0], new[column][0]}
        }
        for was, now in sorted(types):
            if was != now:
                yield f"values of {table}.{column} that were {was} are {now} now"


def _is_same(one: _Value, other: _Value) -> bool:
    """Return whether two values are the same but for their type."""
    return _text(one[1]) == _text(other[1])


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return None if value is None else str(value).removesuffix(".0")
