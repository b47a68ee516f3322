"""aiosqlite: sqlite3 in a thread, statement by statement; tuples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiosqlite

from bench import data, statements
from bench.contenders.base import AsyncContender


class Aiosqlite(AsyncContender):
    name = "aiosqlite"
    kind = "asynchronous"
    distributions = ("aiosqlite",)

    async def aopen(self, path: Path) -> None:
        self.connection = await aiosqlite.connect(path, timeout=5, isolation_level=None)
        for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
            await self.connection.execute_fetchall(f"PRAGMA {pragma}")

    async def aclose(self) -> None:
        await self.connection.close()

    async def araw(self, sql: str) -> list[Any]:
        return list(await self.connection.execute_fetchall(sql))

    def key(self, record: Any) -> str:
        return record[0]

    def new(self, values: dict[str, Any]) -> Any:
        return data.task_row(values)

    async def get(self, id: str) -> Any:
        # one trip to the thread; execute, fetchone and close are three
        return (await self.connection.execute_fetchall(statements.GET, (id,)))[0]

    async def create(self, item: Any) -> None:
        await self.connection.execute_fetchall(statements.CREATE, item)
