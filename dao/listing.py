"""Listings: a table's records by creation time, in pages, with the opaque cursor that leads from one to the next.

Keyset paging: a page begins after the last row of the one before, by `(created_at, id)`. So its cost does not grow with
its depth, and no row is skipped or returned twice when others insert meanwhile.
"""

from __future__ import annotations

import binascii
import enum
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Generic, NamedTuple, Self, TypeVar

import attrs
import msgspec

from dao import codec
from dao.engine import Connection, PerEngine, fetch, text_for
from dao.errors import InvalidCursor, InvalidValue
from dao.rows import Table
from dao.stored import Stored, unreadable

__all__ = ["MAX_LIMIT", "Listing", "Page", "Walk", "bounds", "by_status", "check_limit"]

#: A page holds from 1 to this many records; so much does a call change at the most.
MAX_LIMIT = 1000

R = TypeVar("R", bound=Stored)
E = TypeVar("E", bound=enum.StrEnum)


@attrs.frozen
class Page(Generic[R]):
    """One page of a listing. `next` is the cursor to pass as `after`, or None on the last page.

    A cursor has letters and digits only, so that it stands in a URL as it is. It is no secret, and keeps for good.
    """

    items: list[R]
    next: str | None

    @property
    def has_more(self) -> bool:
        """Whether another page follows."""
        return self.next is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the page as a dict that any JSON encoder takes: `items` as their `to_dict` has them, and `next`."""
        return {"items": [item.to_dict() for item in self.items], "next": self.next}


class Walk(itertools.chain[R]):
    """The records of all pages, an iterator. Each page is one statement: no transaction stays open in between.

    Attributes:
        page: Returns one of them, on any connection: `page(connection, after=…)`.
    """

    page: Callable[..., Page[R]]

    @classmethod
    def through(cls, page: Callable[..., Page[R]], connection: Connection) -> Self:
        """Return the records of the pages that are fetched on this connection."""

        def pages() -> Iterator[list[R]]:
            found = page(connection)
            yield found.items
            while found.next is not None:
                found = page(connection, after=found.next)
                yield found.items

        walk: Self = cls.from_iterable(pages())  # type: ignore[assignment] # of this class, at the speed of C
        walk.page = page
        return walk


class _Shape(NamedTuple):
    """The part of a query that its SQL depends on; the rest of it is bound."""

    equal: tuple[str, ...]
    statuses: int
    begins: bool
    ends: bool
    oldest_first: bool = False


class Listing(Generic[R]):
    """A table's records by creation time, filtered: in pages, one by one, or counted.

    The filters are keywords named like columns; one that is None does not apply. `status` is one status or several,
    and an empty collection matches nothing. `since` is the earliest `created_at`, `until` the first that is too late.

    `rare` are the filters of which any value is in few rows.
    """

    def __init__(self, table: Table[R], status: type[enum.StrEnum], *, rare: Iterable[str] = ()) -> None:
        self._table = table
        self._status = status
        self._page_sql = functools.cache(functools.partial(_page_sql, table, frozenset(rare)))
        self._created_at = table.columns.index("created_at")

    def page(
        self,
        connection: Connection,
        *,
        status: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        oldest_first: bool = False,
        limit: int = 50,
        after: str | None = None,
        **equal: str | None,
    ) -> Page[R]:
        """Return a page, newest first unless `oldest_first`; `after` is the `next` of the page before.

        Raises:
            InvalidValue: The limit is not from 1 to 1000, or a status is unknown.
            InvalidCursor: `after` is not from a page of this query.
        """
        check_limit(limit)
        statuses = self._texts(status)
        if status is not None and not statuses:
            return Page([], None)
        filters = _given(equal)
        earliest, latest = bounds(since, until)
        # no bound is "" and "~" in a cursor: clients keep theirs over an upgrade
        asked = ("" if since is None else earliest, "~" if until is None else latest)
        query = (self._table.name, filters, statuses, *asked, oldest_first)
        if oldest_first:
            begins, start, ends, end = since is not None, earliest, until is not None, latest
        else:
            begins, start, ends, end = until is not None, latest, since is not None, earliest
        # Without a filter it is bounded at both ends: without any bound it would be a scan, and with one bound ANALYZE
        # may talk the planner into a skip-scan of another index and a sort of the whole table.
        ends = ends or not (filters or statuses)
        parameters = [*filters.values()]
        if after is not None:
            begins = True
            parameters += _position(after, query)
        elif begins:
            parameters += (start, "")  # no id is empty: (time, "") is before every row of that time
        if ends:
            parameters.append(end)
        shape = _Shape(tuple(filters), len(statuses), begins, ends, oldest_first)
        sql = text_for(connection, self._page_sql(shape))
        rows = fetch(connection, sql, (*parameters, *statuses, limit + 1))
        if len(rows) <= limit:
            return Page(self._table.from_rows(rows), None)
        rows.pop()
        last = rows[-1]
        position = codec.canonical_time(last[self._created_at]) + last[0]
        return Page(self._table.from_rows(rows), _cursor(position, query))

    def walk(self, connection: Connection, *, status: str | Iterable[str] | None = None, **query: Any) -> Walk[R]:
        """Return the records of all pages."""
        statuses = None if status is None else self._texts(status)
        return Walk.through(functools.partial(self.page, status=statuses, limit=500, **query), connection)

    def count(
        self,
        connection: Connection,
        *,
        status: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        **equal: str | None,
    ) -> int:
        """Return how many records the pages hold together."""
        statuses = self._texts(status)
        if status is not None and not statuses:
            return 0
        filters = _given(equal)
        parameters = [*filters.values()]
        earliest, latest = bounds(since, until)
        if since is not None:
            parameters.append(earliest)
        if until is not None:
            parameters.append(latest)
        shape = _Shape(tuple(filters), len(statuses), since is not None, until is not None)
        return int(fetch(connection, _count_sql(self._table, shape), (*parameters, *statuses))[0][0])

    def _texts(self, status: str | Iterable[str] | None) -> tuple[str, ...]:
        """Return the statuses as texts, each once and sorted."""
        if status is None:
            return ()
        if isinstance(status, str):
            return (self._status(status).value,)
        return tuple(sorted({self._status(item).value for item in status}))


def check_limit(limit: object) -> None:
    """Refuse anything but a whole number from 1 to `MAX_LIMIT`.

    Raises:
        InvalidValue: It is something else.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidValue(f"limit must be a whole number from 1 to {MAX_LIMIT}, got {limit!r}")


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}


def _page_sql(table: Table[Any], rare: frozenset[str], shape: _Shape) -> PerEngine:
    """Return the SELECT of a page: one walk along an index, or a merge of several, without a sort of more than a page.

    There is one walk for each status, because `IN` would collect the rows of all and sort them. SQLite merges walks as
    they are; PostgreSQL only if each comes in order and ends by itself. SQLite looks at a bound again in every row, so
    that one which excludes nothing is left out.

    PostgreSQL goes by what it has counted: for a value that it expects in many rows it would walk all rows by
    `created_at`, and not end where that value is in few. So the column that leads the index is a part of the order and
    the bounds there, which no other index serves; not so where one of the `rare` columns leads to few rows anyway.

    Parameters, in order: one for each of `equal`, `(created_at, id)` where the page begins if it `begins`, `created_at`
    where the listing ends if it `ends`, one for each status, the limit.
    """
    here, back, end, order = (">", "<", "<", "ASC") if shape.oldest_first else ("<", ">", ">=", "DESC")
    number = itertools.count(1)
    equal = {name: f"${next(number)}" for name in shape.equal}
    begin = f"${next(number)}, ${next(number)}" if shape.begins else ""
    last = f"${next(number)}" if shape.ends else ""
    statuses = [{"status": f"${next(number)}"} for _ in range(shape.statuses)] or [{}]
    limit = next(number)

    def walk(status: dict[str, str], lead: str | None) -> str:
        if lead is None:
            begins = begin and f"(created_at, id) {here} ({begin})"
            ends = last and f"created_at {end} {last}"
        else:
            value = (equal | status)[lead]
            begins = f"({lead}, created_at, id) {here} ({value}, {begin})" if begin else f"{lead} {here}= {value}"
            ends = f"({lead}, created_at) {end} ({value}, {last})" if last else f"{lead} {back}= {value}"
        first, later = ([f"{name} = {place}" for name, place in of.items() if name != lead] for of in (equal, status))
        conditions = " AND ".join(filter(None, [*first, begins, ends, *later]))
        return f"SELECT {table.listed} FROM {table.name} WHERE {conditions}"

    def page(*columns: str) -> str:
        return f" ORDER BY {', '.join(f'{column} {order}' for column in columns)} LIMIT ${limit}"

    by_time = page("created_at", "id")
    lead = None if rare & equal.keys() else "status" if shape.statuses else next(iter(equal), None)
    own = by_time if lead is None else page(lead, "created_at", "id")
    walks = [walk(status, lead) + own for status in statuses]
    return PerEngine(
        sqlite=" UNION ALL ".join(walk(status, None) for status in statuses) + by_time,
        postgresql=walks[0] if len(walks) == 1 else " UNION ALL ".join(f"({each})" for each in walks) + by_time,
    )


@functools.cache
def _count_sql(table: Table[Any], shape: _Shape) -> str:
    number = itertools.count(1)
    conditions = [f"{name} = ${next(number)}" for name in shape.equal]
    if shape.begins:
        conditions.append(f"created_at >= ${next(number)}")
    if shape.ends:
        conditions.append(f"created_at < ${next(number)}")
    if shape.statuses:
        conditions.append(f"status IN ({', '.join(f'${next(number)}' for _ in range(shape.statuses))})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT count(*) FROM {table.name}{where}"


def by_status(connection: Connection, record: type[R], kind: type[E], counts: str, one: str) -> dict[E, int]:
    """Return how many rows have each status. `counts` counts them, and `one` finds the key of a row of a status.

    Raises:
        UnreadableRow: Rows have a status that this program does not know.
    """
    found: dict[str, int] = dict(fetch(connection, counts))
    for status in found.keys() - kind._value2member_map_.keys():
        for key in fetch(connection, one, (status,)):
            raise unreadable(record, key, "status", status, "which it does not know")
    return {status: found.get(status.value, 0) for status in kind}


def bounds(since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """Return the texts between which `created_at` lies, the first inclusive. None is no bound.

    Raises:
        InvalidValue: A time is naive.
    """
    return (
        codec.BEFORE_ALL if since is None else codec.time_to_text(since),
        codec.AFTER_ALL if until is None else codec.time_to_text(until),
    )


# ---------------------------------------------------------------- cursor

# A cursor is a checksum and the position, which is a time and an id, in hexadecimal. The checksum covers the query
# too: it keeps honest callers from changing a cursor, or from using it with another query. It is no secret: a caller
# that may run the query may start it anywhere.

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
            "this page cursor belongs to another query, or was changed: keep the filters and the order of its page, "
            "and pass its `next` as it is"
        )
    return position[:_TIME], position[_TIME:]
