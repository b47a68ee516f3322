"""aiosqlite: sqlite3 in a thread, statement by statement; tuples."""

from __future__ import annotations

from typing import Any

import aiosqlite

from bench.contenders import bare
from bench.contenders.base import AsyncContender


class Aiosqlite(AsyncContender):
    name = "aiosqlite"
    distributions = ("aiosqlite",)
    new = bare.Bare.new

    async def aopen(self, place: str) -> None:
        self.connection = await aiosqlite.connect(place, timeout=5, isolation_level=None)
        for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
            await self.araw(f"PRAGMA {pragma}")

    async def aclose(self) -> None:
        await self.connection.close()

    async def araw(self, sql: str) -> list[Any]:
        return list(await self.connection.execute_fetchall(sql))

    async def get(self, id: str) -> Any:
        # one trip to the thread; execute, fetchone and close are three
        return (await self.connection.execute_fetchall(bare.GET, (id,)))[0]

    async def create(self, item: Any) -> None:
        await self.connection.execute_fetchall(bare.CREATE, item)
