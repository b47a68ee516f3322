"""The PostgreSQL server of a run: the one of the tests, on the disk and as safe as it is by default."""

from __future__ import annotations

import tempfile
from contextlib import closing
from types import TracebackType
from typing import Self

import psycopg

from bench import data
from bench.data import Holds
from tests.servers import Server

_SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}
_TEMPLATE = "bench_template"


class Running:
    """A server that ends with the run, and a database in it with what the others hold, to be copied."""

    def __init__(self, rows: int) -> None:
        self._server = Server(parent=tempfile.gettempdir(), timezone="UTC", datestyle="ISO", **_SAFE)
        try:
            self._run(f"CREATE DATABASE {_TEMPLATE}")
            self.holds: Holds = data.build(self._server.url(_TEMPLATE), rows)
            with closing(psycopg.connect(self._server.url(_TEMPLATE), autocommit=True)) as connection:
                connection.execute("VACUUM (ANALYZE, FREEZE)")
        except BaseException:
            self._server.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()

    def copy(self, name: str) -> str:
        """Copy the database, and return the URL of the copy."""
        database = "bench_" + "".join(letter for letter in name.lower() if letter.isalnum())
        self._run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self._run(f"CREATE DATABASE {database} TEMPLATE {_TEMPLATE}")
        return self._server.url(database)

    def _run(self, sql: str) -> None:
        with closing(psycopg.connect(self._server.url("postgres"), autocommit=True)) as connection:
            connection.execute(sql)
