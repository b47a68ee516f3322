"""dao itself, as callers use it: on a connection of `dao.connect`, and asynchronous."""

from __future__ import annotations

import operator
from typing import Any

import attrs

import dao
from bench.contenders.base import AsyncContender, Worker
from bench.data import LEASE, PAGE, TASK_COLUMNS, WORKER, Holds
from dao import Task, aio, configurations, sessions, tasks, tool_executions, workflow_tasks

_LARGEST_PAGE = 1000


class Dao(Worker):
    name = "dao"
    distributions = ("apsw", "attrs", "msgspec", "uuid-utils")
    read = operator.attrgetter(*TASK_COLUMNS)

    def open(self, place: str) -> None:
        self.connection = dao.connect(f"sqlite:///{place}")
        self._pool = dao.Pool(f"sqlite:///{place}")
        self._positions: list[Any] = []

    def close(self) -> None:
        self._pool.close()
        self.connection.close()

    def raw(self, sql: str) -> list[Any]:
        return self.connection.execute(sql).fetchall()

    def new(self, values: dict[str, Any]) -> Task:
        return Task(**values)

    def create(self, item: Task) -> None:
        tasks.create(self.connection, item)

    def create_many(self, items: list[Task]) -> None:
        tasks.create_many(self.connection, items)

    def get(self, id: str) -> Task | None:
        return tasks.get(self.connection, id)

    def find(self, status: str) -> list[Task]:
        return tasks.find(self.connection, status=status, limit=PAGE).items

    def positions(self, holds: Holds) -> list[Any]:
        if not self._positions:  # a cursor is had by reading what is before it
            after, read = None, 0
            for depth in holds.depths:
                while read < depth:
                    limit = min(depth - read, _LARGEST_PAGE)
                    after = tasks.find(self.connection, limit=limit, after=after).next
                    read += limit
                self._positions.append(after)
        return self._positions

    def page(self, place: str) -> list[Task]:
        return tasks.find(self.connection, limit=PAGE, after=place).items

    def oldest(self) -> Task:
        return tasks.find(self.connection, status="pending", oldest_first=True, limit=1).items[0]

    def set_status(self, id: str, status: str) -> Task:
        return tasks.set_status(self.connection, id, status)

    def changed(self, id: str, title: str) -> Task:
        return attrs.evolve(tasks.get_one(self.connection, id), title=title)

    def update(self, item: Task) -> Task:
        return tasks.update(self.connection, item)

    def enqueue(self, item: Task, key: str) -> tuple[Task, bool]:
        return tasks.enqueue(self.connection, item, dedup_key=key)

    def claim(self, number: int) -> list[Task]:
        return tasks.claim(self.connection, worker=WORKER, lease=LEASE, limit=number)

    def complete(self, item: Task) -> Task:
        return tasks.complete(self.connection, item)

    def renew(self, item: Task) -> Task:
        return tasks.renew(self.connection, item, lease=LEASE)

    def step(self, item: Task, name: str, input: object, output: object) -> dao.ToolExecution:
        call = tool_executions.step(self.connection, item, name, tool_name="search", input=input)
        return tool_executions.finish(self.connection, call, output=output)

    def heartbeat(self, id: str) -> None:
        sessions.heartbeat(self.connection, id)

    def configuration_get(self, key: str) -> int | None:
        return configurations.get(self.connection, key, int)

    def configuration_set(self, key: str, value: object) -> None:
        configurations.set(self.connection, key, value)

    def workflow(self, id: str) -> list[Task]:
        return [linked.task for linked in workflow_tasks.list_tasks(self.connection, id)]

    def tool_start(self, input: object) -> dao.ToolExecution:
        return tool_executions.start(self.connection, tool_name="search", input=input)

    def tool_finish(self, item: dao.ToolExecution, output: object) -> dao.ToolExecution:
        return tool_executions.finish(self.connection, item, output=output)

    def lend(self) -> None:
        with self._pool.acquire():
            pass


class OnServer(Dao):
    name = "dao (PostgreSQL)"
    base = "psycopg"
    on_server = True
    distributions = ("psycopg",)

    def open(self, place: str) -> None:
        self.connection = dao.connect(place)
        self._pool = dao.Pool(place)
        self._positions = []


class AsyncDao(AsyncContender):
    name = "dao (async)"
    distributions = Dao.distributions
    new, read = Dao.new, Dao.read

    async def aopen(self, place: str) -> None:
        self.connection = await aio.connect(f"sqlite:///{place}")

    async def aclose(self) -> None:
        await self.connection.aclose()

    async def araw(self, sql: str) -> list[Any]:
        return await aio.run(self.connection, lambda connection: connection.execute(sql).fetchall())

    async def get(self, id: str) -> Task | None:
        return await aio.run(self.connection, tasks.get, id)

    async def create(self, item: Task) -> None:
        await aio.run(self.connection, tasks.create, item)
