"""apsw: the bare driver that `dao` stands on."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import apsw

from bench.contenders import bare


def connect(path: Path) -> apsw.Connection:
    """Open a file with the settings that all contenders have."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class Tuples(bare.Tuples):
    name = "apsw tuples"
    distributions = ("apsw",)

    def open(self, path: Path) -> None:
        self.connection = connect(path)
        self._pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(5):
            self._pool.put(self.connection)  # what is lent does not matter here

    def lend(self) -> None:
        """Take from and give back to the smallest pool there is: a queue."""
        connection = self._pool.get()
        self._pool.put(connection)


class Records(bare.Records):
    name = "apsw records"
    distributions = ("apsw", "attrs", "msgspec")

    def open(self, path: Path) -> None:
        self.connection = connect(path)
