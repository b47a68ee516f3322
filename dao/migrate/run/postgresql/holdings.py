"""The things that a PostgreSQL database holds, as far as `guard` asks: tables with their columns, rows, values."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dao.engine import fetch
from dao.engine.postgresql import Connection
from dao.migrate.schema.names import TABLES, quoted

__all__ = ["Table", "catalog_changes", "counters", "holds_values", "row_count", "tables", "written"]

# the server says of a column that is generated that it holds what it is made of
_TABLES = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text,
       CASE WHEN n.nspname = current_schema() THEN '' ELSE n.nspname || '.' END || c.relname,
       c.relfilenode::bigint, c.relkind = 'p',
       (SELECT min(inhparent::bigint) FROM pg_inherits WHERE inhrelid = c.oid),
       ARRAY(SELECT attnum::int FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum),
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum)
FROM   pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE  c.relkind IN ('r', 'p') AND left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema'
AND    c.relname <> ALL ($1::text[])
AND    NOT EXISTS (SELECT FROM pg_depend AS d
                   WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
_COUNTERS = """
SELECT c.oid::bigint, pg_stat_get_xact_tuples_inserted(c.oid), pg_stat_get_xact_tuples_deleted(c.oid)
FROM   pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE  c.relkind = 'r' AND left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema'
AND    pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) > 0
"""
# the catalog's own rows are counted, too
_CATALOG_CHANGES = """
SELECT sum(pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c)
           + pg_stat_get_xact_tuples_deleted(c))::bigint
FROM   unnest(ARRAY['pg_class'::regclass, 'pg_attribute'::regclass]) AS catalog (c)
WHERE  current_setting('track_counts') = 'on'
"""


@attrs.frozen
class Table:
    """A table by its `id`, in which its `file` changes when it is written anew; `parent` is what it is a part of.

    `columns` are those that hold something of their own, by number.
    """

    id: int
    schema: str
    table: str
    #: As messages show it: with its schema, unless that is the connection's own.
    name: str
    file: int
    is_partitioned: bool
    parent: int | None
    columns: Mapping[int, str]

    @property
    def place(self) -> tuple[str, str]:
        """Where a table is looked for that takes its place."""
        return self.schema, self.table


def tables(connection: Connection) -> dict[int, Table]:
    """Return all tables but those of the ledger and of extensions, by id."""
    found = {}
    for id, schema, table, name, file, partitioned, parent, numbers, names in fetch(
        connection, _TABLES, (list(TABLES),)
    ):
        columns = dict(zip(numbers, names, strict=True))
        found[id] = Table(id, schema, table, name, file, partitioned, parent, columns)
    return found


def counters(connection: Connection) -> dict[int, tuple[int, int]]:
    """Return how many rows were inserted into tables in this transaction, and deleted from them, by id."""
    return {id: (inserted, deleted) for id, inserted, deleted in fetch(connection, _COUNTERS)}


def catalog_changes(connection: Connection) -> int | None:
    """Return a number that is another one once this transaction changed tables or columns; None if nobody counts."""
    ((changes,),) = fetch(connection, _CATALOG_CHANGES)
    return None if changes is None else int(changes)


def row_count(connection: Connection, table: Table) -> int:
    """Return how many rows a table has itself, or with its partitions."""
    ((count,),) = fetch(connection, f"SELECT count(*) FROM {written(table)}")
    return int(count)


def holds_values(connection: Connection, table: Table, column: str) -> bool:
    """Return whether a column of a table holds any value but NULL."""
    some = f"SELECT EXISTS (SELECT FROM {written(table)} WHERE {quoted(column)} IS NOT NULL)"
    return fetch(connection, some) == [(True,)]


def written(table: Table) -> str:
    """Return what stands in SQL for the rows that a table has itself, or with its partitions."""
    only = "" if table.is_partitioned else "ONLY "
    return f"{only}{quoted(table.schema)}.{quoted(table.table)}"
