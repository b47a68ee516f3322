"""SQLModel: the ORM of SQLAlchemy with pydantic's models."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import JSON, Column, Field, Session, SQLModel

from bench.contenders.sqlalchemy_orm import Mapped


class Task(SQLModel, table=True):
    __tablename__ = "tasks"
    id: str = Field(primary_key=True)
    title: str
    description: str | None = None
    task_type: str
    status: str
    config: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    metadata_: Any = Field(default=None, sa_column=Column("metadata", JSON(none_as_null=True)))
    workspace_path: str | None = None
    error: str | None = None
    created_at: str
    updated_at: str
    started_at: str | None = None
    completed_at: str | None = None


class WorkflowTask(SQLModel, table=True):
    __tablename__ = "workflow_tasks"
    workflow_id: str = Field(primary_key=True)
    task_id: str = Field(primary_key=True)
    sequence: int
    config: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: str
    updated_at: str


class ToolExecution(SQLModel, table=True):
    __tablename__ = "tool_executions"
    id: str = Field(primary_key=True)
    task_id: str | None = None
    tool_name: str
    input: Any = Field(sa_column=Column(JSON, nullable=False))
    output: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    status: str
    error: str | None = None
    duration_ms: int | None = None
    created_at: str
    updated_at: str
    started_at: str | None = None
    completed_at: str | None = None


class ClientSession(SQLModel, table=True):
    __tablename__ = "sessions"
    id: str = Field(primary_key=True)
    client_id: str
    is_active: int
    metadata_: Any = Field(default=None, sa_column=Column("metadata", JSON(none_as_null=True)))
    created_at: str
    last_heartbeat: str
    updated_at: str


class Configuration(SQLModel, table=True):
    __tablename__ = "configurations"
    key: str = Field(primary_key=True)
    value: Any = Field(sa_column=Column(JSON, nullable=False))
    updated_at: str


class Models(Mapped):
    name = "SQLModel"
    distributions = ("sqlmodel", "SQLAlchemy", "pydantic")
    task, link, execution, session, configuration = Task, WorkflowTask, ToolExecution, ClientSession, Configuration
    session_class = Session
    # without percentiles of its own, it would take SQLAlchemy's
    statistics = None

    def count(self, status: str) -> int:
        with self.make() as session:
            return session.exec(sa.select(sa.func.count()).select_from(Task).where(Task.status == status)).scalar_one()
