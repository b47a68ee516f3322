"""Whether the rows of a PostgreSQL database, and what its schema rests on, are sound."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import psycopg

from dao.engine import execute, postgresql, transaction
from dao.engine.postgresql import Connection
from dao.errors import Error
from dao.migrate.checking.fault import NAMED, CannotTell, Fault
from dao.migrate.schema.postgresql import soundness
from dao.migrate.schema.postgresql.soundness import Constraint
from dao.text import visible

__all__ = ["faults"]


def faults(connection: Connection, cannot_tell: CannotTell) -> Iterator[Fault]:
    """Yield what is wrong; holds all rows against foreign keys and CHECKs, also those that are NOT VALID."""
    yield from _damage(connection, cannot_tell)
    yield from _constraints(connection, cannot_tell)
    for table, index, is_built in soundness.invalid_indexes(connection):
        if is_built:
            cannot_tell(f"the index {index} of {table} is valid", "it is being built")
            continue
        yield Fault(
            kind="object",
            name=index,
            text=f"the index {index} of {table} is not valid, and serves no query: its building was broken off, or met "
            f"rows that it does not allow. `REINDEX INDEX CONCURRENTLY {index}`, or `DROP INDEX CONCURRENTLY {index}` "
            "and run its migration again",
        )
    for table, trigger, key in soundness.disabled_triggers(connection):
        what = f"the trigger {trigger} of {table}" if trigger else f"the foreign key {key} of {table}, by its triggers,"
        yield Fault(
            kind="object",
            name=trigger or table,
            text=f"{what} is disabled: `ALTER TABLE {table} ENABLE TRIGGER {trigger or 'ALL'}`",
        )


# ---------------------------------------------------------------- what is stored


def _damage(connection: Connection, cannot_tell: CannotTell) -> Iterator[Fault]:
    if failed := soundness.failed_checksums(connection):
        number, at = failed
        yield Fault(
            kind="damage",
            name=None,
            text=f"the checksums of pages failed {number} times, at {at} the last time: look at the server's log for "
            "which, and at its disk",
        )
    found = soundness.amcheck(connection)
    if found is None:
        cannot_tell("tables and indexes are intact", "the extension amcheck is not here (CREATE EXTENSION amcheck)")
        return
    schema, stored = found
    for name, oid, is_index in stored:
        # the first raises an error and returns nothing that could be shown, the other returns messages
        sql = f"SELECT {schema}.bt_index_check({oid}, true)::text"
        if not is_index:
            sql = f"SELECT msg FROM {schema}.verify_heapam({oid})"
        what = f"the {'index' if is_index else 'table'} {name}"
        try:
            rows = _apart(connection, sql)
        except psycopg.Error as error:
            if error.sqlstate not in {"XX001", "XX002"}:
                cannot_tell(f"{what} is intact", _said(error))
                continue
            rows = [(_said(error),)]
        for text in filter(None, (text for (text,) in rows)):
            yield Fault(kind="damage", name=name, text=f"{what}: {text}")


# ---------------------------------------------------------------- rows


def _constraints(connection: Connection, cannot_tell: CannotTell) -> Iterator[Fault]:
    # policies would hide rows from some roles; this makes that an error
    execute(connection, "SET LOCAL row_security = off")
    for _, group in groupby(soundness.constraints(connection), key=lambda one: (one.table, one.key is None)):
        found = list(group)
        for one, count in zip(found, _counts(connection, found), strict=True):
            if isinstance(count, psycopg.Error):
                cannot_tell(f"the rows of {one.table} keep {one.name}", _said(count))
            elif count:
                text = f"rows of {one.table} break constraint {one.name}"
                if one.key is not None:
                    listed = ", ".join(one.columns)
                    text = f"{one.table}: {listed} refers to a row of {one.key.parent} that does not exist ({one.name})"
                yield Fault(
                    kind="constraint" if one.key is None else "foreign key",
                    name=one.table,
                    text=text,
                    count=count,
                    rows=_rows(connection, one),
                )


def _counts(connection: Connection, found: Sequence[Constraint]) -> list[int | psycopg.Error]:
    """Return how many rows break each constraint of a table, in one pass; the error for one that cannot be judged."""
    numbers = ", ".join(f"count(*) FILTER (WHERE {_broken(one)})" for one in found)
    try:
        (counts,) = _apart(connection, f"SELECT {numbers} FROM {found[0].source} AS child")
    except psycopg.Error as error:
        if len(found) == 1:
            return [error]
        return [count for one in found for count in _counts(connection, [one])]
    return [*counts]


def _broken(one: Constraint) -> str:
    """Return a condition that rows meet which break a constraint."""
    if one.key is None:
        return f"NOT ({one.condition})"
    nulls = " AND ".join(f"child.{name} IS NOT NULL" for name in one.columns)
    if one.key.is_full:
        nulls = " OR ".join(f"child.{name} IS NOT NULL" for name in one.columns)
    equal = " AND ".join(
        f"parent.{theirs} = child.{own}" for theirs, own in zip(one.key.columns, one.columns, strict=True)
    )
    return f"({nulls}) AND NOT EXISTS (SELECT FROM {one.key.parent} AS parent WHERE {equal})"


def _rows(connection: Connection, one: Constraint) -> tuple[dict[str, Any], ...]:
    """Return the first rows that break a constraint: their key, or their place if there is none, and its columns."""
    names = list(dict.fromkeys([*(one.primary or ["ctid"]), *one.columns]))
    pairs = ", ".join(f"'{visible(_bare(name))}', child.{name}" for name in names)
    order = ", ".join(f"child.{name}" for name in one.primary or ["ctid"])
    found = _apart(
        connection,
        f"SELECT json_build_object({pairs})::text FROM {one.source} AS child WHERE {_broken(one)} ORDER BY {order} "
        f"LIMIT {NAMED}",
    )
    return tuple(json.loads(text) for (text,) in found)


def _bare(name: str) -> str:
    name = name[1:-1].replace('""', '"') if name.startswith('"') else name
    return name.replace("'", "''")


# ---------------------------------------------------------------- asking


def _apart(connection: Connection, sql: str) -> list[Any]:
    """Run a statement whose failure leaves the transaction as it is, and return its rows."""
    try:
        with transaction(connection):
            return postgresql.fetch(connection, sql, ())
    except Error as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise error.__cause__ from None
        raise


def _said(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())
