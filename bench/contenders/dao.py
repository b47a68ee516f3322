"""dao itself, on a connection as `dao.connect` gives it, and asynchronous."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

import dao
from bench.contenders.base import LIMIT, AsyncContender, Contender
from bench.data import PAGE
from dao import aio, configurations, sessions, tasks, tool_executions, workflow_tasks

_moment = datetime.fromisoformat
_TIMES = ("created_at", "updated_at", "started_at", "completed_at")


def task(values: dict[str, Any]) -> dao.Task:
    """Return the record of the values."""
    times = {name: None if values[name] is None else _moment(values[name]) for name in _TIMES}
    return dao.Task(**(values | times))


class Dao(Contender):
    name = "dao"
    kind = "records"
    in_threads = True
    distributions = ("apsw", "attrs", "msgspec")

    def open(self, path: Path) -> None:
        url = f"sqlite:///{path}"
        self.connection = dao.connect(url)
        self._pool = dao.Pool(url)
        self._positions: list[Any] | None = None

    def close(self) -> None:
        self._pool.close()
        self.connection.close()

    def raw(self, sql: str) -> list[Any]:
        return self.connection.execute(sql).fetchall()

    def new(self, values: dict[str, Any]) -> dao.Task:
        return task(values)

    def moment(self, text: str) -> datetime:
        return _moment(text)

    def create(self, item: dao.Task) -> None:
        tasks.create(self.connection, item)

    def create_many(self, items: list[dao.Task]) -> None:
        tasks.create_many(self.connection, items)

    def get(self, id: str) -> Any:
        return tasks.get(self.connection, id)

    def get_json(self, id: str) -> Any:
        task = self.get(id)
        _ = task.config, task.metadata  # decoded when they are first read
        return task

    def find(self, status: str) -> list[dao.Task]:
        return tasks.find(self.connection, status=status, limit=LIMIT).items

    def find_json(self, status: str) -> list[dao.Task]:
        found = self.find(status)
        for task in found:
            _ = task.config, task.metadata
        return found

    def positions(self, data: Any) -> list[Any]:
        if self._positions is None:
            limit, after, self._positions = min(data.step, PAGE), None, []
            for read in range(limit, 8 * data.step + 1, limit):
                after = tasks.find(self.connection, limit=limit, after=after).next
                if read % data.step == 0:
                    self._positions.append(after)
        return self._positions

    def page(self, place: str) -> list[dao.Task]:
        return tasks.find(self.connection, limit=LIMIT, after=place).items

    def count(self, status: str) -> int:
        return tasks.count(self.connection, status=status)

    def set_status(self, id: str, status: str, moment: datetime) -> dao.Task:
        return tasks.set_status(self.connection, id, status, now=moment)

    def changed(self, id: str, title: str) -> dao.Task:
        return attrs.evolve(tasks.get_one(self.connection, id), title=title)

    def update(self, item: dao.Task) -> dao.Task:
        return tasks.update(self.connection, item)

    def new_execution(self, values: dict[str, Any]) -> Any:
        return {"tool_name": values["tool_name"], "input": values["input"], "task_id": values["task_id"]}

    def start(self, item: Any) -> dao.ToolExecution:
        return tool_executions.start(self.connection, **item)

    def finish(self, item: dao.ToolExecution, output: Any, moment: datetime) -> dao.ToolExecution:  # noqa: ARG002 - as below
        return tool_executions.finish(self.connection, item, output=output)

    def heartbeat(self, id: str, moment: datetime) -> None:
        sessions.heartbeat(self.connection, id, now=moment)

    def get_value(self, key: str) -> Any:
        return configurations.get(self.connection, key)

    def set_value(self, key: str, value: object, moment: datetime) -> None:  # noqa: ARG002 - dao takes the time itself
        configurations.set(self.connection, key, value)

    def workflow(self, id: str) -> list[dao.Task]:
        return [linked.task for linked in workflow_tasks.list_tasks(self.connection, id)]

    def statistics(self) -> list[Any]:
        return tool_executions.statistics(self.connection)

    def oldest_pending(self) -> dao.Task:
        return tasks.find(self.connection, status="pending", oldest_first=True, limit=1).items[0]

    def sweep(self, cutoff: datetime) -> list[str]:
        return sessions.close_stale(self.connection, older_than=timedelta(0), now=cutoff)

    def lend(self) -> None:
        with self._pool.acquire():
            pass


class AsyncDao(AsyncContender):
    name = "dao (async)"
    kind = "asynchronous"
    distributions = ("apsw", "attrs", "msgspec")

    async def aopen(self, path: Path) -> None:
        self.connection = await aio.connect(f"sqlite:///{path}")

    async def aclose(self) -> None:
        await self.connection.aclose()

    async def araw(self, sql: str) -> list[Any]:
        return await aio.run(self.connection, lambda connection: connection.execute(sql).fetchall())

    def new(self, values: dict[str, Any]) -> dao.Task:
        return task(values)

    async def get(self, id: str) -> dao.Task | None:
        return await aio.run(self.connection, tasks.get, id)

    async def create(self, item: dao.Task) -> None:
        await aio.run(self.connection, tasks.create, item)
