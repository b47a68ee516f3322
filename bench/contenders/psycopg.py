"""psycopg alone: the statements of the bare drivers, on a raw cursor, in autocommit mode.

Times are left as text, as the other drivers have them, which spares psycopg more than a quarter of a page of 50.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

import psycopg
from psycopg.types.string import TextLoader

from bench.contenders.bare import CLAIM_ON_SERVER, CREATE, HEARTBEAT, Bare, on_server
from bench.data import WORKER, now_text


@functools.cache
def numbered(sql: str) -> str:
    """Return a statement with `$1 … $n` in the places of its question marks."""
    number = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(number)}", sql)


class _Connection:
    """Gives the statements of the bare drivers to psycopg."""

    def __init__(self, url: str) -> None:
        self.itself = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor)
        self.itself.adapters.register_loader("timestamptz", TextLoader)
        self.itself.execute("SET TimeZone = 'UTC'")
        self.close = self.itself.close

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        return self.itself.execute(numbered(on_server(sql)), parameters)


class Psycopg(Bare):
    name = "psycopg"
    base = "psycopg"
    on_server = True
    distributions = ("psycopg",)

    def open(self, place: str) -> None:
        self.connection = _Connection(place)

    def create_many(self, items: Any) -> None:
        with self.connection.itself.transaction():
            self.connection.itself.cursor().executemany(numbered(CREATE), items)

    def claim(self, number: int) -> list[Any]:
        now = now_text()
        values = (now, WORKER, self.lease_end(), now, now, number, number, now)
        return self.connection.execute(CLAIM_ON_SERVER, values).fetchall()

    def heartbeat(self, id: str) -> None:
        if not self.connection.execute(HEARTBEAT, (now_text(), id)).rowcount:
            raise LookupError(id)
