"""The routes: `uvicorn --app-dir examples service.app:app`."""

from typing import Annotated, Any

import anyio
from fastapi import Body, FastAPI, WebSocket
from pydantic import BaseModel

import dao
from dao import Page, Task, TaskStatus, ToolExecution, configurations, sessions, tasks, tool_executions
from dao.pydantic import PageModel, TaskModel, ToolExecutionModel
from service import summaries
from service.glue import Pool, lifespan, refuse

app = FastAPI(title="Summaries", lifespan=lifespan, exception_handlers={dao.Error: refuse})


class Order(BaseModel):
    """A text to summarise. An order with the `key` of one that is not done yet is that one."""

    title: str
    text: str
    priority: int = 0
    key: str | None = None


@app.post("/tasks", response_model=TaskModel, status_code=201)
async def order(pool: Pool, new: Order) -> Task:
    task = Task(title=new.title, task_type="summarise", config={"text": new.text}, priority=new.priority, retries=3)
    stored, _ = await pool.run_in_transaction(tasks.enqueue, task, dedup_key=new.key)
    return stored


@app.get("/tasks", response_model=PageModel[TaskModel])
async def find(pool: Pool, status: TaskStatus | None = None, limit: int = 50, after: str | None = None) -> Page[Task]:
    return await pool.run(tasks.find, status=status, limit=limit, after=after)


@app.get("/tasks/{id}", response_model=TaskModel)
async def get(pool: Pool, id: str) -> Task:
    return await pool.run(tasks.get_one, id)


@app.post("/tasks/{id}/cancel", response_model=TaskModel)
async def cancel(pool: Pool, id: str) -> Task:
    return await pool.run_in_transaction(tasks.cancel, id)


@app.get("/tasks/{id}/calls", response_model=PageModel[ToolExecutionModel])
async def calls(pool: Pool, id: str) -> Page[ToolExecution]:
    return await pool.run(tool_executions.find, task_id=id, oldest_first=True)


@app.get("/tasks/{id}/summary")
async def summary(pool: Pool, id: str) -> summaries.Summary:
    return await pool.run(summaries.get_one, id)


@app.get("/configuration")
async def settings(pool: Pool) -> dict[str, Any]:
    return await pool.run(configurations.get_all)


@app.put("/configuration/{key}", status_code=204)
async def configure(pool: Pool, key: str, value: Annotated[Any, Body()]) -> None:
    await pool.run_in_transaction(configurations.set, key, value)


@app.websocket("/sessions/{client}")
async def session(pool: Pool, socket: WebSocket, client: str) -> None:
    """Keep a session alive as long as messages come, and answer each with how many tasks there are of each status."""
    opened = await pool.run_in_transaction(sessions.open, client_id=client)
    try:
        await socket.accept()
        async for _ in socket.iter_text():
            await pool.write(sessions.heartbeat, opened.id)
            await socket.send_json({"session": opened.id, "tasks": await pool.run(tasks.count_by_status)})
    finally:
        with anyio.CancelScope(shield=True):  # also when the server is being stopped
            await pool.run_in_transaction(sessions.close, opened.id)
