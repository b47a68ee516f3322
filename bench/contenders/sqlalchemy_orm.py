"""SQLAlchemy ORM: mapped classes, a session for each unit of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from bench.contenders import sqlalchemy_core, sqlalchemy_tables
from bench.contenders.base import LIMIT, Contender


class Base(DeclarativeBase):
    metadata = sqlalchemy_tables.metadata


class Task(Base):
    __table__ = sqlalchemy_tables.tasks
    # `metadata` is a name that the base class has taken
    metadata_ = __table__.c.metadata


class WorkflowTask(Base):
    __table__ = sqlalchemy_tables.workflow_tasks


class ToolExecution(Base):
    __table__ = sqlalchemy_tables.tool_executions


class ClientSession(Base):
    __table__ = sqlalchemy_tables.sessions
    metadata_ = __table__.c.metadata


class Configuration(Base):
    __table__ = sqlalchemy_tables.configurations


class Mapped(Contender):
    """What the ORM's sessions do with mapped classes; SQLModel has classes and sessions of its own."""

    kind = "ORM"
    task: type[Any]
    link: type[Any]
    execution: type[Any]
    session: type[Any]
    configuration: type[Any]
    session_class: type[Session] = Session

    def open(self, path: Path) -> None:
        self.engine = sqlalchemy_tables.engine(path)
        # as the documentation has it for objects that are used after the commit
        self.make = sessionmaker(self.engine, class_=self.session_class, expire_on_commit=False)

    def close(self) -> None:
        self.engine.dispose()

    def raw(self, sql: str) -> list[Any]:
        with self.make.begin() as session:
            rows = session.connection().exec_driver_sql(sql)
            return [tuple(row) for row in rows] if rows.returns_rows else []

    def new(self, values: dict[str, Any]) -> Any:
        renamed = dict(values)
        renamed["metadata_"] = renamed.pop("metadata")
        return self.task(**renamed)

    def new_many(self, many: list[dict[str, Any]]) -> list[Any]:
        renamed = [dict(values) for values in many]
        for values in renamed:
            values["metadata_"] = values.pop("metadata")
        return renamed

    def create(self, item: Any) -> None:
        with self.make.begin() as session:
            session.add(item)

    def create_many(self, items: list[Any]) -> None:
        with self.make.begin() as session:
            session.execute(sa.insert(self.task), items)  # the documented bulk insert

    def get(self, id: str) -> Any:
        with self.make() as session:
            return session.get_one(self.task, id)

    get_json = get

    def find(self, status: str) -> list[Any]:
        task = self.task
        chosen = sa.select(task).where(task.status == status)
        with self.make() as session:
            return list(session.scalars(chosen.order_by(task.created_at.desc(), task.id.desc()).limit(LIMIT)))

    def page(self, place: tuple[str, str]) -> list[Any]:
        task = self.task
        before = sa.select(task).where(sa.tuple_(task.created_at, task.id) < place)
        with self.make() as session:
            return list(session.scalars(before.order_by(task.created_at.desc(), task.id.desc()).limit(LIMIT)))

    def count(self, status: str) -> int:
        counted = sa.select(sa.func.count()).select_from(self.task).where(self.task.status == status)
        with self.make() as session:
            return session.scalar(counted)

    def set_status(self, id: str, status: str, moment: str) -> Any:
        with self.make.begin() as session:
            task = session.get_one(self.task, id)
            task.status, task.started_at = status, moment if status == "running" else None
            task.error = task.completed_at = None
            session.flush()
            session.refresh(task)  # the trigger moved `updated_at` on
            return task

    def changed(self, id: str, title: str) -> Any:
        task = self.get(id)
        return id, task.updated_at, title

    def update(self, item: Any) -> Any:
        id, version, title = item
        where = sa.update(self.task).where(self.task.id == id, self.task.updated_at == version)
        with self.make.begin() as session:
            done = session.execute(where.values(title=title), execution_options={"synchronize_session": False})
            if done.rowcount != 1:
                raise LookupError(id)
            return session.get_one(self.task, id)

    def new_execution(self, values: dict[str, Any]) -> Any:
        return self.execution(**values)

    def start(self, item: Any) -> Any:
        with self.make.begin() as session:
            session.add(item)
        return item.id

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        with self.make.begin() as session:
            execution = session.get_one(self.execution, item)
            execution.status, execution.output, execution.completed_at = "completed", output, moment
            execution.duration_ms = 12
            session.flush()
            session.refresh(execution)
            return execution

    def heartbeat(self, id: str, moment: str) -> None:
        alive = sa.update(self.session).where(self.session.id == id, self.session.is_active == 1)
        with self.make.begin() as session:
            done = session.execute(
                alive.values(last_heartbeat=moment), execution_options={"synchronize_session": False}
            )
            if done.rowcount != 1:
                raise LookupError(id)

    def get_value(self, key: str) -> Any:
        with self.make() as session:
            return session.get_one(self.configuration, key).value

    def set_value(self, key: str, value: object, moment: str) -> None:
        stored = sqlite_insert(self.configuration).values(key=key, value=value, updated_at=moment)
        with self.make.begin() as session:
            session.execute(stored.on_conflict_do_update(index_elements=["key"], set_={"value": stored.excluded.value}))

    def workflow(self, id: str) -> list[Any]:
        linked = sa.select(self.task, self.link).join(self.link, self.link.task_id == self.task.id)
        ordered = linked.where(self.link.workflow_id == id).order_by(self.link.sequence, self.link.task_id)
        with self.make() as session:
            return [task for task, _ in session.execute(ordered)]

    def statistics(self) -> list[Any]:
        with self.make() as session:
            return list(session.execute(sqlalchemy_core.STATISTICS).all())


class ORM(Mapped):
    name = "SQLAlchemy ORM"
    distributions = ("SQLAlchemy",)
    task, link, execution, session, configuration = Task, WorkflowTask, ToolExecution, ClientSession, Configuration
