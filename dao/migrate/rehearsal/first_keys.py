"""The rows that a script takes on PostgreSQL, named by their keys: the first of those are read before it runs.

A rehearsal there holds the locks of a run, so it reads no more than that, once, of the tables from which a script says
that it takes rows, and of those that follow by cascade. Rows beyond these, or that a function takes, are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import attrs

from dao.engine import fetch, transaction
from dao.engine.postgresql import Connection, DriverError
from dao.errors import IntegrityError, SchemaOutOfDate
from dao.migrate.rehearsal.findings import KEYS, Gone
from dao.migrate.rehearsal.observation import Effect
from dao.migrate.run.postgresql.holdings import Table, written
from dao.migrate.run.postgresql.names import emptied_by, names_in
from dao.migrate.schema.names import fold
from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.postgresql import split

__all__ = ["FirstKeys"]

#: Of so many rows of a table the keys are read, in their order, and so many are looked for at once.
_FIRST, _AT_ONCE = 10_000, 1_000

#: The primary keys of tables, and of those that lose rows with them: their partitions, and children by cascade.
_PRIMARY_KEYS = """
WITH RECURSIVE taken (id) AS (
    SELECT unnest($1::bigint[])::oid
    UNION
    SELECT next.id
    FROM   taken
    JOIN   (SELECT confrelid, conrelid FROM pg_constraint WHERE contype = 'f' AND (confdeltype = 'c' OR $2::boolean)
            UNION ALL
            SELECT inhparent, inhrelid FROM pg_inherits) AS next (of, id) ON next.of = taken.id
)
SELECT k.conrelid::bigint,
       array_agg(quote_ident(a.attname) ORDER BY p.place),
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY p.place)
FROM   taken
JOIN   pg_constraint AS k ON k.conrelid = taken.id AND k.contype = 'p'
CROSS  JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS p (number, place)
JOIN   pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = p.number
GROUP  BY k.conrelid
"""


@attrs.frozen
class _Kept:
    """The first keys of a table, each as JSON, and the columns that these are of: as SQL has them, with their types."""

    columns: Sequence[tuple[str, str]]
    keys: Sequence[str]


@attrs.frozen
class FirstKeys:
    """The first keys that tables had, by the number of the table."""

    connection: Connection
    kept: Mapping[int, _Kept]

    @classmethod
    def of(cls, connection: Connection, script: Script, tables: Mapping[int, Table]) -> FirstKeys:
        """Read those of the tables from which a script says that it takes rows. It has not run yet."""
        named: set[str] = set()
        truncates = False
        for statement in split(script.text):
            named |= emptied_by(statement) | (names_in(statement) if statement.first == "drop" else frozenset())
            truncates |= "truncate" in statement.text.lower()
        ids = [id for id, table in tables.items() if table.table in named]
        kept = {}
        for id, columns, types in fetch(connection, _PRIMARY_KEYS, (ids, truncates)) if ids else ():
            if id in tables:
                of = ", ".join(columns)
                first = f"SELECT {of} FROM {written(tables[id])} ORDER BY {of} LIMIT {_FIRST}"
                keys = [key for (key,) in fetch(connection, f"SELECT row_to_json(k)::text FROM ({first}) AS k")]
                kept[id] = _Kept(list(zip(columns, types, strict=True)), keys)
        return cls(connection, kept)

    def gone(self, effect: Effect, now: Mapping[int, Table]) -> Iterator[Gone]:
        """Yield how many rows each table has lost that is still there, with the first of their keys that were read."""
        for one in effect.row_changes():
            if one.before is None or one.after is None or one.before <= one.after:
                continue
            name = fold(one.table)
            kept = self.kept.get(effect.before.tables[name].number)
            table = now[effect.after.tables[effect.now[name]].number]
            keys = self._missing(kept, table, min(KEYS, one.before - one.after)) if kept else []
            yield Gone(one.table, one.before - one.after, tuple(map(json.loads, keys)))

    def _missing(self, kept: _Kept, table: Table, most: int) -> list[str]:
        """Return the first of the keys that are not in a table; none if it has no such columns any more."""
        columns = ", ".join(f"{name} {type}" for name, type in kept.columns)
        same = " AND ".join(f"now.{name} = old.{name}" for name, _ in kept.columns)
        sql = f"""
            SELECT k.key
            FROM   unnest($1::text[]) WITH ORDINALITY AS k (key, place)
            CROSS  JOIN LATERAL json_to_record(k.key::json) AS old ({columns})
            WHERE  NOT EXISTS (SELECT FROM {written(table)} AS now WHERE {same})
            ORDER  BY k.place
        """
        found: list[str] = []
        try:
            with transaction(self.connection):
                for begin in range(0, len(kept.keys), _AT_ONCE):
                    keys = kept.keys[begin : begin + _AT_ONCE]
                    found += [key for (key,) in fetch(self.connection, sql, (list(keys),))]
                    if len(found) >= most:
                        break
        except (SchemaOutOfDate, IntegrityError, DriverError):
            return []
        return found[:most]
