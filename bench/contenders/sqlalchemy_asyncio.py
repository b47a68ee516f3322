"""SQLAlchemy's asyncio extension: the ORM, on aiosqlite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# an engine imports its driver when it is made: without this, a driver that is missing would not be named
import aiosqlite  # noqa: F401 - see above
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from bench.contenders import sqlalchemy_orm, sqlalchemy_tables
from bench.contenders.base import AsyncContender


class AsyncORM(AsyncContender):
    name = "SQLAlchemy asyncio"
    kind = "asynchronous"
    distributions = ("SQLAlchemy", "aiosqlite")

    async def aopen(self, path: Path) -> None:
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **sqlalchemy_tables.JSON)
        sa.event.listen(self.engine.sync_engine, "connect", sqlalchemy_tables.set_pragmas)
        self.make = async_sessionmaker(self.engine, expire_on_commit=False)

    async def aclose(self) -> None:
        await self.engine.dispose()

    async def araw(self, sql: str) -> list[Any]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(sql)]

    def new(self, values: dict[str, Any]) -> Any:
        renamed = dict(values)
        renamed["metadata_"] = renamed.pop("metadata")
        return sqlalchemy_orm.Task(**renamed)

    async def get(self, id: str) -> Any:
        async with self.make() as session:
            return await session.get_one(sqlalchemy_orm.Task, id)

    async def create(self, item: Any) -> None:
        async with self.make.begin() as session:
            session.add(item)
