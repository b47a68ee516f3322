"""Pages: `Page`, the opaque cursor that leads from one to the next, and the SQL of a listing.

Keyset paging: a page begins after the last row of the one before, by `(created_at, id)`. So its cost does not grow with
its depth, and no row is skipped or returned twice when others insert meanwhile.
"""

from __future__ import annotations

import binascii
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import attrs
import msgspec

from dao import codec
from dao.engine import Connection, fetch
from dao.errors import InvalidCursor
from dao.rows import Table

__all__ = ["MAX_LIMIT", "Page", "bounds", "check_limit", "count_rows", "find_page", "listing", "walk"]

#: A page holds from 1 to this many records.
MAX_LIMIT = 1000

# Any timestamp is text between these two.
_BEGINNING, _END = "", "~"

R = TypeVar("R")


@attrs.frozen
class Page(Generic[R]):
    """One page of a listing. `next` is the cursor to pass as `after`, or None on the last page."""

    items: list[R]
    next: str | None

    @property
    def has_more(self) -> bool:
        """Whether another page follows."""
        return self.next is not None

    def to_dict(self: Page[Any]) -> dict[str, Any]:
        """Return the page as a dict that any JSON encoder takes: `items` as their `to_dict` has them, and `next`."""
        return {"items": [item.to_dict() for item in self.items], "next": self.next}


@functools.cache
def listing(
    table: str,
    columns: str,
    equal: tuple[str, ...],
    column: str | None,
    choices: int,
    oldest_first: bool,  # noqa: FBT001 - by name, a call of a cached function takes twice as long
    begins: bool,  # noqa: FBT001
    ends: bool,  # noqa: FBT001
) -> str:
    """Return the SELECT of a page: one walk along an index, or a merge of several, without a sort.

    `equal` are columns compared with one value each. `column` is compared with `choices` values: one walk for each,
    because `IN` would collect the rows of all and sort them. SQLite looks at a bound again in every row, so that one
    which excludes nothing is left out: with both a page takes 1.15 times as long.

    Parameters, in order: one for each of `equal`, `(created_at, id)` where the page begins if it `begins`, `created_at`
    where the listing ends if it `ends`, one for each choice, the limit.
    """
    here, end, order = (">", "<", "ASC") if oldest_first else ("<", ">=", "DESC")
    number = itertools.count(1)
    conditions = [f"{name} = ${next(number)}" for name in equal]
    if begins:
        conditions.append(f"(created_at, id) {here} (${next(number)}, ${next(number)})")
    if ends:
        conditions.append(f"created_at {end} ${next(number)}")
    branches = [
        f"SELECT {columns} FROM {table} WHERE {' AND '.join([*conditions, *choice])}"
        for choice in [[f"{column} = ${next(number)}"] for _ in range(choices)] or [[]]
    ]
    return " UNION ALL ".join(branches) + f" ORDER BY created_at {order}, id {order} LIMIT ${next(number)}"


def find_page(
    connection: Connection,
    table: Table[Any],
    *,
    equal: dict[str, str | None],
    column: str | None = None,
    choices: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page[Any]:
    """Return a page of the table's records by creation time.

    A filter that is None does not apply; `choices` of nothing match nothing.

    Raises:
        ValueError: The limit is not from 1 to 1000.
        InvalidCursor: `after` is not from a page of this query.
    """
    check_limit(limit)
    if choices is None:
        choices = ()
    elif not choices:
        return Page([], None)
    filters = {}
    for name, value in equal.items():
        if value is not None:
            filters[name] = value  # noqa: PERF403 - a comprehension is a call, and takes twice as long
    earliest, latest = bounds(since, until)
    query = (table.name, filters, choices, earliest, latest, oldest_first)
    if oldest_first:
        begins, here, ends, end = since is not None, earliest, until is not None, latest
    else:
        begins, here, ends, end = until is not None, latest, since is not None, earliest
    # Unfiltered, it is bounded at both ends: without any bound it would be a scan, and with one alone ANALYZE may talk the
    # planner into a skip-scan of another index and a sort of the whole table.
    ends = ends or not (filters or choices)
    parameters = [*filters.values()]
    if after is not None:
        begins = True
        parameters += _position(after, query)
    elif begins:
        parameters += (here, "")  # no id is empty: (time, "") is before every row of that time
    if ends:
        parameters.append(end)
    sql = listing(table.name, table.listed, tuple(filters), column, len(choices), oldest_first, begins, ends)
    rows = fetch(connection, sql, (*parameters, *choices, limit + 1))
    if len(rows) <= limit:
        return Page(table.from_rows(rows), None)
    rows.pop()
    last = rows[-1]
    return Page(table.from_rows(rows), _cursor(last[table.columns.index("created_at")] + last[0], query))


@functools.cache
def _counting(
    table: str,
    equal: tuple[str, ...],
    column: str | None,
    choices: int,
    begins: bool,  # noqa: FBT001 - as `listing`
    ends: bool,  # noqa: FBT001
) -> str:
    number = itertools.count(1)
    conditions = [f"{name} = ${next(number)}" for name in equal]
    if begins:
        conditions.append(f"created_at >= ${next(number)}")
    if ends:
        conditions.append(f"created_at < ${next(number)}")
    if choices:
        conditions.append(f"{column} IN ({', '.join(f'${next(number)}' for _ in range(choices))})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT count(*) FROM {table}{where}"


def count_rows(
    connection: Connection,
    table: Table[Any],
    *,
    equal: dict[str, str | None],
    column: str | None = None,
    choices: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Return how many rows `find_page` would go through with these filters."""
    if choices is None:
        choices = ()
    elif not choices:
        return 0
    filters = {name: value for name, value in equal.items() if value is not None}
    earliest, latest = bounds(since, until)
    begins, ends = since is not None, until is not None
    sql = _counting(table.name, tuple(filters), column, len(choices), begins, ends)
    parameters = (*filters.values(), *([earliest] if begins else []), *([latest] if ends else []), *choices)
    number: int = fetch(connection, sql, parameters)[0][0]
    return number


def bounds(since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """Return the texts between which `created_at` lies, the first inclusive. None is no bound.

    Raises:
        ValueError: A time is naive.
    """
    return (
        _BEGINNING if since is None else codec.time_to_text(codec.millisecond(since)),
        _END if until is None else codec.time_to_text(codec.millisecond(until)),
    )


def walk(page_after: Callable[[str | None], Page[R]]) -> Iterator[R]:
    """Yield the records of all pages. Each page is a statement of its own: no transaction stays open in between."""
    cursor = None
    while True:
        page = page_after(cursor)
        yield from page.items
        if page.next is None:
            return
        cursor = page.next


def check_limit(limit: int) -> None:
    """Refuse a limit outside of 1 to `MAX_LIMIT`.

    Raises:
        ValueError: It is.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_LIMIT}, got {limit!r}")


# ---------------------------------------------------------------- cursor

# A cursor is a checksum and the position, which is a time and an id, in hexadecimal. The checksum is over the query too:
# it keeps honest callers from using a cursor with another query and from changing one. It is no secret: whoever may run
# the query may start it anywhere.

_CHECKSUM = 8
_TIME = len("2025-01-15T01:00:00.000Z")
_encode = msgspec.json.Encoder().encode
_NO_CURSOR = "not a page cursor: pass the `next` of a page, unchanged"


def _cursor(position: str, query: object) -> str:
    encoded = position.encode()
    return f"{binascii.crc32(encoded, binascii.crc32(_encode(query))):08x}{encoded.hex()}"


def _position(cursor: str, query: object) -> tuple[str, str]:
    try:
        position = bytes.fromhex(cursor[_CHECKSUM:]).decode()
    except (ValueError, TypeError) as error:
        raise InvalidCursor(_NO_CURSOR) from error
    if len(position) <= _TIME:
        raise InvalidCursor(_NO_CURSOR)
    # made again rather than taken apart: capitals and spaces stand for the same bytes
    if cursor != _cursor(position, query):
        raise InvalidCursor(
            "this page cursor belongs to another query, or was changed: keep the filters and the order of its page, and pass "
            "its `next` as it is"
        )
    return position[:_TIME], position[_TIME:]
