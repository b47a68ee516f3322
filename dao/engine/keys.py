"""Rows by many keys, in one statement: the keys are one JSON array, so that no limit of parameters is in the way."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dao.codec import check_text
from dao.engine import Connection, PerEngine, fetch, text_for
from dao.errors import InvalidValue
from dao.fields import MAX_INTEGER

if TYPE_CHECKING:
    from dao.rows import Table
    from dao.stored import Stored

__all__ = ["by_keys", "lock_rows", "locking", "records_by_keys"]

K = TypeVar("K")
R = TypeVar("R", bound="Stored")


def by_keys(table: Table[Any], kind: type[str | int] = str) -> PerEngine:
    """Return the SELECT of the rows whose keys are in a JSON array: as such, or as arrays where it is several columns.

    `kind` is the type of the key's columns.
    """
    select, columns = f"SELECT {table.listed} FROM {table.name} WHERE", table.key.split(", ")
    if len(columns) > 1:
        sqlite, postgresql = (
            ", ".join(f"{item} ->> {place}" for place in range(len(columns))) for item in ("value", "item")
        )
        return PerEngine(
            f"{select} ({table.key}) IN (SELECT {sqlite} FROM json_each($1))",
            f"SELECT found.* FROM json_array_elements($1) AS item "
            f"CROSS JOIN LATERAL ({select} ({table.key}) = ({postgresql}) LIMIT 1) AS found",
        )
    cast = "::bigint" if kind is int else ""
    return PerEngine(
        f"{select} {table.key} IN (SELECT value FROM json_each($1))",
        # one array, as the LATERAL above: each is looked up, since of how many there are the planner has no idea
        f"{select} {table.key} = ANY (ARRAY(SELECT json_array_elements_text($1){cast}))",
    )


def locking(table: Table[Any]) -> PerEngine:
    """Return the SELECT of the keys of rows that nobody changes from then on until the transaction ends.

    Their keys are in a JSON array, in whose order they are locked. SQLite has one writer at a time, and needs no lock.
    """
    name, key = table.name, f"{table.name}.{table.key}"
    return PerEngine(
        f"SELECT {key} FROM json_each($1) AS wanted JOIN {name} ON {key} = wanted.value",
        f"SELECT {key} FROM json_array_elements_text($1::json) WITH ORDINALITY AS wanted (value, place) "
        f"JOIN {name} ON {key} = wanted.value ORDER BY wanted.place FOR NO KEY UPDATE OF {name}",
    )


def lock_rows(connection: Connection, statement: PerEngine, keys: Sequence[str]) -> set[str]:
    """Lock rows in the transaction that is open, in this order, and return the keys of those that are there.

    `statement` is of `locking`.
    """
    found = fetch(connection, text_for(connection, statement), (msgspec.json.encode(keys).decode(),))
    return {key for (key,) in found}


def records_by_keys(
    connection: Connection, table: Table[R], statement: PerEngine, keys: Iterable[K], kind: type[str | int] = str
) -> dict[K, R]:
    """Return the records with these keys, by key, in the order of the keys; others are left out.

    `statement` and `kind` are of `by_keys`. A key of several columns is a tuple.

    Raises:
        TypeError: The keys are one text, or a key is of another type.
        InvalidValue: No row can have such a key.
    """
    columns = table.key.split(", ")
    if isinstance(keys, str):
        raise TypeError(f"expected several keys, such as [{keys!r}], got one text")
    wanted = list(keys)
    for key in wanted:
        parts: Any = key if len(columns) > 1 else (key,)
        if not isinstance(parts, tuple) or len(parts) != len(columns):
            raise TypeError(f"a key is a tuple of {' and '.join(columns)}, got {key!r}")
        for column, part in zip(columns, parts, strict=True):
            _check(column, part, kind)
    key_of: Any = operator.attrgetter(*columns)
    rows = fetch(connection, text_for(connection, statement), (msgspec.json.encode(wanted).decode(),))
    found = {key_of(record): record for record in table.from_rows(rows)}
    return {key: found[key] for key in wanted if key in found}


def _check(column: str, value: object, kind: type[str | int]) -> None:
    if kind is str:
        check_text(value, column)
    elif type(value) is not int:
        raise TypeError(f"{column} must be an int, got {value!r}")
    elif not 0 <= value <= MAX_INTEGER:
        raise InvalidValue(f"{column} must be from 0 to {MAX_INTEGER}, got one of {value.bit_length()} bits")
