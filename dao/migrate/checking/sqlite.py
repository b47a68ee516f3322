"""Whether the file of a SQLite database, its rows and everything in its schema is sound."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dao.engine import DriverError, sqlite
from dao.engine.sqlite import Connection
from dao.migrate.checking.fault import NAMED, CannotTell, Fault
from dao.migrate.schema import catalog, reader, usable
from dao.migrate.schema.check import integrity
from dao.migrate.schema.model import Object
from dao.migrate.schema.names import quoted
from dao.migrate.schema.tokens import normal, tokens

__all__ = ["faults"]

#: SQLite ends its check after so many lines.
_MOST = 1_000_000
_STRICT = {"INT": "integer", "INTEGER": "integer", "REAL": "real", "TEXT": "text", "BLOB": "blob"}

# How rows of a table may break a constraint, the columns at fault, and a condition that such rows meet.
_Condition = tuple[str, list[str], str]


def faults(connection: Connection, cannot_tell: CannotTell) -> Iterator[Fault]:
    """Yield what is wrong; reads the whole file, and holds all rows against foreign keys and constraints."""

    def unseen(table: str, reason: str) -> None:
        cannot_tell(f"the table {table} is intact", reason)

    damage, in_rows = integrity(connection, most=_MOST, unseen=unseen)
    for text in dict.fromkeys(damage):
        yield Fault(kind="damage", name=None, text=text)
    violations, mismatched = usable.check_keys(connection)
    yield from _foreign_keys(connection, violations, mismatched, cannot_tell)
    yield from _constraints(connection, in_rows, cannot_tell)
    for one in usable.broken(connection):
        if one not in mismatched:
            yield Fault(kind="object", name=one.name, text=str(one))


# ---------------------------------------------------------------- rows


def _foreign_keys(
    connection: Connection, violations: list[Any], mismatched: Iterable[usable.Unusable], cannot_tell: CannotTell
) -> Iterator[Fault]:
    # by table and foreign key
    violations.sort(key=lambda row: (row[0], row[3], row[1] or 0))
    for (table, number), rows in itertools.groupby(violations, key=lambda row: (row[0], row[3])):
        ids = [rowid for _, rowid, *_ in rows]
        (key,) = (key for key in catalog.foreign_keys(connection, table) if key.id == number)
        first = ids[:NAMED]
        rowid = catalog.rowid_name(catalog.columns(connection, table))
        condition, bound = f"{rowid} IN ({', '.join('?' * len(first))})", first
        if rowid is None or None in first:  # a table WITHOUT ROWID tells only that there is one
            condition, bound = _refers_to_nothing(connection, key), []
        yield Fault(
            kind="foreign key",
            name=table,
            text=f"{table}: {', '.join(key.columns)} refers to a row of {key.parent} that does not exist",
            count=len(ids),
            rows=_rows(connection, table, key.columns, condition, bound, alias="child"),
        )
    for one in mismatched:
        if usable.is_elsewhere(one.reason):
            cannot_tell(f"{one.what} holds", one.reason)
        else:
            yield Fault(kind="foreign key", name=one.name, text=str(one))


def _refers_to_nothing(connection: Connection, key: catalog.ForeignKey) -> str:
    parents = catalog.columns(connection, key.parent)
    theirs = key.parent_columns or catalog.primary_key(parents)
    conditions = [f"child.{quoted(own)} IS NOT NULL" for own in key.columns]
    if parents:
        pairs = zip(theirs, key.columns, strict=True)
        # the plus takes the affinity from it: a foreign key is compared by that of the parent
        equal = " AND ".join(f"parent.{quoted(one)} = +child.{quoted(own)}" for one, own in pairs)
        conditions.append(f"NOT EXISTS (SELECT 1 FROM main.{quoted(key.parent)} AS parent WHERE {equal})")
    return " AND ".join(conditions)


def _constraints(connection: Connection, problems: Iterable[str], cannot_tell: CannotTell) -> Iterator[Fault]:
    """Yield the constraints that rows break: those that SQLite has found, and CHECKs.

    It names the table or the column only, and a connection that reads only knows no CHECKs at all.
    """
    found = {problem for problem in problems if not problem.startswith("CHECK constraint failed in ")}
    for table in reader.read(connection).objects.values():
        if table.type != "table":
            continue
        conditions = list(_conditions(connection, table, found))
        for (text, columns, condition), count in zip(
            conditions, _counts(connection, table.name, conditions), strict=True
        ):
            if isinstance(count, DriverError):
                said = str(count)
                sql = f"SELECT 1 FROM main.{quoted(table.name)} WHERE {condition}"
                if usable.is_elsewhere(said) or usable.compiles(connection, sql):
                    cannot_tell(text, said)
                else:  # so it would of such a row that comes anew
                    yield Fault(kind="constraint", name=table.name, text=f"{text}, of which SQLite says: {said}")
            elif count:
                rows = _rows(connection, table.name, columns, condition)
                yield Fault(kind="constraint", name=table.name, text=text, count=count, rows=rows)
    for problem in sorted(found):
        yield Fault(kind="constraint", name=None, text=problem)


def _conditions(connection: Connection, table: Object, found: set[str]) -> Iterator[_Condition]:
    """Yield how rows of a table may break its constraints; what is `found` is taken out of that."""
    columns = catalog.columns(connection, table.name)
    for item in table.items:
        if item.family == "check":
            words = {token.value for token in tokens(item.shown)}
            named = [column.name for column in columns if normal(column.name) in words]
            what = item.label if item.name else item.shown
            yield f"rows of {table.name} break {what}", named, f"NOT {item.shown.removeprefix('CHECK ')}"
    for column in columns:
        own, kind = quoted(column.name), column.type.upper()
        for said, condition in (
            # IS NULL is never true for SQLite, where a column is NOT NULL
            (f"NULL value in {table.name}.{column.name}", f"typeof({own}) = 'null'"),
            (
                f"non-{kind} value in {table.name}.{column.name}",
                f"typeof({own}) NOT IN ('{_STRICT.get(kind)}', 'null')",
            ),
        ):
            if said in found:
                found.remove(said)
                yield said, [column.name], condition


def _counts(connection: Connection, table: str, conditions: Sequence[_Condition]) -> list[int | DriverError]:
    """Return how many rows meet each condition, in one pass; the error for one that cannot be judged, or fails."""
    numbers = [f"count(*) FILTER (WHERE {condition})" for *_, condition in conditions]
    try:
        (row,) = connection.execute(f"SELECT 0, {', '.join(numbers)} FROM main.{quoted(table)}") if numbers else [(0,)]
    except DriverError as error:
        if not usable.is_elsewhere(str(error)) and sqlite.translate(error, connection) is not None:
            raise
        if len(conditions) == 1:
            return [error]
        return [count for one in conditions for count in _counts(connection, table, [one])]
    return [*row[1:]]


def _rows(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    condition: str,
    bound: Sequence[Any] = (),
    *,
    alias: str | None = None,
) -> tuple[dict[str, Any], ...]:
    """Return the first rows that meet a condition: their key and these columns. The condition may use the `alias`."""
    own = catalog.columns(connection, table)
    rowid = catalog.rowid_name(own)
    names = list(dict.fromkeys([*(catalog.primary_key(own) or filter(None, [rowid])), *columns]))
    source = f"main.{quoted(table)}" + (f" AS {alias}" if alias else "")
    sql = f"SELECT {catalog.typed(names)} FROM {source} WHERE {condition} LIMIT {NAMED}"
    return tuple(dict(zip(names, catalog.untyped(row), strict=True)) for row in connection.execute(sql, bound))
