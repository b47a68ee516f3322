"""A few rows of each table, by key, to see what a rebuild does to values: which come into another column, or another type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dao.engine import Connection
from dao.migrate.schema.catalog import quoted

__all__ = ["Sample", "misfits", "sample", "sequences"]

_COLUMNS = "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid"
_SEQUENCES = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"
_ROWS, _BYTES = 50, 200

#: A value's type, and its beginning.
_Value = tuple[str, Any]
#: Rows by their key; for each column, in lower case, its value.
Sample = Mapping[tuple[_Value, ...], Mapping[str, _Value]]


def sample(connection: Connection, table: str) -> Sample:
    """Return the first rows of a table by its primary key; none if it has none."""
    columns: list[Any] = connection.execute(_COLUMNS, (table,)).fetchall()
    keys = [name for place, name in sorted((place, name) for name, place in columns) if place]
    if not keys:
        return {}
    # text as its bytes: it need not be UTF-8
    values = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN substr(CAST({name} AS BLOB), 1, {_BYTES}) "
        f"WHEN 'blob' THEN substr({name}, 1, {_BYTES}) ELSE {name} END"
        for name in (quoted(name) for name, _ in columns)
    )
    order = ", ".join(map(quoted, keys))
    found = {}
    for row in connection.execute(f"SELECT {values} FROM main.{quoted(table)} ORDER BY {order} LIMIT {_ROWS}"):
        read = dict(zip((name.lower() for name, _ in columns), zip(row[::2], row[1::2], strict=True), strict=True))
        found[tuple(read[key.lower()] for key in keys)] = read
    return found


def sequences(connection: Connection) -> dict[str, int]:
    """Return after which number each AUTOINCREMENT table goes on, by name in lower case."""
    if not connection.execute(_SEQUENCES).fetchall():
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
