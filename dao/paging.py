"""Pages: `Page`, the opaque cursor that leads from one to the next, and the SQL of a listing.

Keyset paging: a page begins after the last row of the one before, by `(created_at, id)`. So its cost does not grow with
its depth, and no row is skipped or returned twice when others insert meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
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


@functools.cache
def listing(
    table: str, columns: str, equal: tuple[str, ...], column: str | None, choices: int, *, oldest_first: bool
) -> str:
    """Return the SELECT of a page: one walk along an index, or a merge of several, without a sort.

    `equal` are columns compared with one value each. `column` is compared with `choices` values: one walk for each,
    because `IN` would collect the rows of all and sort them.

    Parameters, in order: one for each of `equal`, `(created_at, id)` where the page begins, `created_at` where the
    listing ends, one for each choice, the limit.
    """
    here, end, order = (">", "<", "ASC") if oldest_first else ("<", ">=", "DESC")
    number = len(equal)
    conditions = [f"{name} = ${position}" for position, name in enumerate(equal, 1)]
    conditions += [
        f"(created_at, id) {here} (${number + 1}, ${number + 2})",
        f"created_at {end} ${number + 3}",
    ]
    select = f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)}"
    branches = [f"{select} AND {column} = ${number + 4 + choice}" for choice in range(choices)] or [select]
    return " UNION ALL ".join(branches) + f" ORDER BY created_at {order}, id {order} LIMIT ${number + 4 + choices}"


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
    if choices is not None and not choices:
        return Page([], None)
    filters = {name: value for name, value in equal.items() if value is not None}
    earliest, latest = bounds(since, until)
    choices = choices or ()
    query = (table.name, filters, choices, earliest, latest, oldest_first)
    # no id is empty: (time, "") is before every row of that time
    start = _position(after, query) if after is not None else (earliest if oldest_first else latest, "")
    sql = listing(table.name, table.columns, tuple(filters), column, len(choices), oldest_first=oldest_first)
    end = latest if oldest_first else earliest
    rows = fetch(connection, sql, (*filters.values(), *start, end, *choices, limit + 1))
    from_row = table.from_row
    items = [from_row(*row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(items, None)
    last = items[-1]
    return Page(items, _cursor((codec.time_to_text(last.created_at), last.id), query))


@functools.cache
def _counting(table: str, equal: tuple[str, ...], column: str | None, choices: int) -> str:
    number = len(equal)
    conditions = [f"{name} = ${position}" for position, name in enumerate(equal, 1)]
    conditions += [f"created_at >= ${number + 1}", f"created_at < ${number + 2}"]
    if choices:
        conditions.append(f"{column} IN ({', '.join(f'${number + 3 + choice}' for choice in range(choices))})")
    return f"SELECT count(*) FROM {table} WHERE {' AND '.join(conditions)}"


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
    if choices is not None and not choices:
        return 0
    choices = choices or ()
    filters = {name: value for name, value in equal.items() if value is not None}
    earliest, latest = bounds(since, until)
    sql = _counting(table.name, tuple(filters), column, len(choices))
    number: int = fetch(connection, sql, (*filters.values(), earliest, latest, *choices))[0][0]
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

# A cursor is the position and a digest over position and query. The digest keeps honest callers from using a cursor
# with another query and from inventing one. It is no secret: whoever may run the query may start it anywhere.

_DIGEST = 12
_NO_CURSOR = "not a page cursor: pass the `next` of a page, unchanged"


def _digest(position: bytes, query: object) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(query) + b"\0" + position, digest_size=_DIGEST).digest()


def _cursor(position: tuple[str, str], query: object) -> str:
    encoded = msgspec.json.encode(position)
    return _text(_digest(encoded, query) + encoded)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _position(cursor: str, query: object) -> tuple[str, str]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidCursor(_NO_CURSOR) from error
    # base64 leaves bits of the last character unused: several texts stand for the same bytes
    if _text(raw) != cursor:
        raise InvalidCursor(_NO_CURSOR)
    position = raw[_DIGEST:]
    if not position:
        raise InvalidCursor("not a page cursor: pass the `next` of a page, unchanged")
    if raw[:_DIGEST] != _digest(position, query):
        raise InvalidCursor("this page cursor belongs to another query: keep the filters and the order of its page")
    created_at, id = msgspec.json.decode(position)
    return created_at, id
