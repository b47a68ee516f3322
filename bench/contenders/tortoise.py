"""Tortoise ORM: asynchronous models, on aiosqlite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tortoise import Tortoise, connections, fields
from tortoise.models import Model

from bench.contenders.base import AsyncContender


class Task(Model):
    id = fields.TextField(primary_key=True)
    title = fields.TextField()
    description = fields.TextField(null=True)
    task_type = fields.TextField()
    status = fields.TextField()
    config: Any = fields.JSONField()
    metadata: Any = fields.JSONField(null=True)
    workspace_path = fields.TextField(null=True)
    error = fields.TextField(null=True)
    created_at = fields.TextField()
    updated_at = fields.TextField()
    started_at = fields.TextField(null=True)
    completed_at = fields.TextField(null=True)

    class Meta:
        table = "tasks"


class TortoiseORM(AsyncContender):
    name = "Tortoise"
    kind = "asynchronous"
    distributions = ("tortoise-orm", "aiosqlite")

    async def aopen(self, path: Path) -> None:
        settings = "journal_mode=WAL&synchronous=NORMAL&foreign_keys=ON"
        await Tortoise.init(db_url=f"sqlite://{path}?{settings}", modules={"models": [__name__]})

    async def aclose(self) -> None:
        await connections.close_all()

    async def araw(self, sql: str) -> list[Any]:
        rows = await connections.get("default").execute_query_dict(sql)
        return [tuple(row.values()) for row in rows]

    def new(self, values: dict[str, Any]) -> Any:
        return Task(**values)

    async def get(self, id: str) -> Any:
        return await Task.get(id=id)

    async def create(self, item: Any) -> None:
        await item.save(force_create=True)
