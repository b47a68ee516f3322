"""The state of a PostgreSQL database, as the law of up, down and up again compares it."""

from __future__ import annotations

from typing import Any

from dao.engine import fetch, in_transaction
from dao.engine.postgresql import Connection
from dao.migrate.copies.rows import Content
from dao.migrate.schema.model import Object
from dao.migrate.schema.postgresql import reader, traces
from dao.migrate.verification.round_trip import State

__all__ = ["Observer"]


class Observer:
    """Looks at a database time and again. In one transaction, it reads only the tables again that were written to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[Any, Content] = {}

    def look(self) -> State:
        """Return the state of now, without the ledger. Reads all rows the first time."""
        schema = reader.read(self._connection)
        tables = [one for one in schema.objects.values() if one.type == "table"]
        signs = traces.signatures(self._connection)
        # what was written in another transaction has no sign here
        known = self._known if in_transaction(self._connection) else {}
        self._known = {}
        found = {}
        for one in tables:
            key = (one, signs.get(one.name))
            found[one.name] = self._known[key] = known.get(key) or _content(self._connection, one)
        return State(schema, frozenset(), found, {}, None)


def _content(connection: Connection, table: Object) -> Content:
    """Return what a table itself holds; its partitions and heirs are tables, too. Reads all rows."""
    names = sorted(item.key for item in table.items if item.family == "column" and item.key)
    row = f"ROW({', '.join(names)})::text"
    sql = f"SELECT count(*), coalesce(sum(hashtextextended({row}, 0)), 0)::text FROM ONLY {table.name}"
    ((rows, hash),) = fetch(connection, sql)
    return Content(rows, tuple(names), int(hash))
