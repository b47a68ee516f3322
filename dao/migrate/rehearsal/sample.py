"""A few rows of each table, by key, to see which values a rebuild brings into another column, or another type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dao.engine.sqlite import Connection
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import fold, quoted

__all__ = ["Sample", "misfits", "sample", "sequences"]

_ROWS, _BYTES = 50, 200

#: A value's type, and its beginning.
_Value = tuple[str, Any]
#: Rows by their key; for each column, by folded name, its value.
Sample = Mapping[tuple[_Value, ...], Mapping[str, _Value]]


def sample(connection: Connection, table: str) -> Sample:
    """Return the first rows of a table by its primary key; none if it has none."""
    columns = [column for column in catalog.columns(connection, table) if not column.hidden]
    keys = catalog.primary_key(columns)
    if not keys:
        return {}
    names = [fold(column.name) for column in columns]
    # text as its bytes: it need not be UTF-8
    values = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN substr(CAST({name} AS BLOB), 1, {_BYTES}) "
        f"WHEN 'blob' THEN substr({name}, 1, {_BYTES}) ELSE {name} END"
        for name in (quoted(column.name) for column in columns)
    )
    order = ", ".join(map(quoted, keys))
    found = {}
    for row in connection.execute(f"SELECT {values} FROM main.{quoted(table)} ORDER BY {order} LIMIT {_ROWS}"):
        read = dict(zip(names, zip(row[::2], row[1::2], strict=True), strict=True))
        found[tuple(read[fold(key)] for key in keys)] = read
    return found


def sequences(connection: Connection) -> dict[str, int]:
    """Return after which number each AUTOINCREMENT table goes on, by folded name."""
    if "sqlite_sequence" not in catalog.table_names(connection):
        return {}
    rows: list[Any] = connection.execute(
        "SELECT name, seq FROM main.sqlite_sequence WHERE typeof(seq) = 'integer'"
    ).fetchall()
    return {fold(name): seq for name, seq in rows}


def misfits(table: str, before: Sample, after: Sample) -> Iterator[str]:
    """Say which values of a table that was rebuilt are in another column of it now, or of another type."""
    rows = [(before[key], after[key]) for key in before if key in after]
    if not rows:
        return
    olds, news = rows[0]
    moved = set()
    for column in olds:
        if all(_text(old[column]) == _text(new.get(column)) for old, new in rows):
            continue
        for other in sorted(olds.keys() & news.keys() - {column}):
            came = all(_text(old[column]) == _text(new[other]) for old, new in rows)
            if came and any(_text(old[column]) != _text(old[other]) for old, _ in rows):
                moved.add(other)
                yield f"the values of {table}.{column} are in {other} now"
    for column in [column for column in olds if column in news and column not in moved]:
        types = {(old[column][0], new[column][0]) for old, new in rows}
        for was, now in sorted(types):
            if was != now and "null" not in {was, now}:
                yield f"values of {table}.{column} that were {was} are {now} now"


def _text(value: _Value | None) -> str | None:
    """Return a value without its type, so that 1, 1.0 and '1' are the same; None stands for NULL, and for no value."""
    content = None if value is None else value[1]
    if isinstance(content, bytes):
        return content.decode(errors="backslashreplace")
    return None if content is None else str(content).removesuffix(".0")
