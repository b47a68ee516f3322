"""sqlite3: the standard library's driver."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bench.contenders import bare


def connect(path: Path) -> sqlite3.Connection:
    """Open a file with the settings that all contenders have."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None)
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class Tuples(bare.Tuples):
    name = "sqlite3 tuples"

    def open(self, path: Path) -> None:
        self.connection = connect(path)


class Records(bare.Records):
    name = "sqlite3 records"
    distributions = ("attrs", "msgspec")

    def open(self, path: Path) -> None:
        self.connection = connect(path)
