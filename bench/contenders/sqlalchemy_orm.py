"""SQLAlchemy ORM: mapped classes, a session for each unit of work."""

from __future__ import annotations

import operator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, sessionmaker

from bench.contenders import sqlalchemy_core as core
from bench.contenders.base import Contender
from bench.data import PAGE, TASK_COLUMNS, complete, now_text

#: `metadata` is a name that the base class has taken.
_RENAMED = {"metadata": "metadata_"}
_IN_PLACE = {"synchronize_session": False}


class Base(DeclarativeBase):
    metadata = core.metadata


class Task(Base):
    __table__ = core.tasks
    metadata_ = __table__.c.metadata


_NEWEST = sa.select(Task).order_by(Task.created_at.desc(), Task.id.desc()).limit(PAGE)


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(name, name): value for name, value in complete(values).items()}


class ORM(Contender):
    name = "SQLAlchemy ORM"
    distributions = ("SQLAlchemy",)
    read = operator.attrgetter(*(_RENAMED.get(name, name) for name in TASK_COLUMNS))

    def open(self, place: str) -> None:
        self.engine = core.engine(place)
        # as the documentation has it for objects that are used after the commit
        self.make = sessionmaker(self.engine, expire_on_commit=False)

    def close(self) -> None:
        self.engine.dispose()

    def raw(self, sql: str) -> list[Any]:
        with self.make.begin() as session:
            return [tuple(row) for row in session.connection().exec_driver_sql(sql)]

    def new(self, values: dict[str, Any]) -> Any:
        return Task(**_renamed(values))

    def new_many(self, many: list[dict[str, Any]]) -> Any:
        return [_renamed(values) for values in many]

    def create(self, item: Any) -> None:
        with self.make.begin() as session:
            session.add(item)

    def create_many(self, items: Any) -> None:
        with self.make.begin() as session:
            session.execute(sa.insert(Task), items)  # the documented bulk insert

    def get(self, id: str) -> Any:
        with self.make() as session:
            return session.get_one(Task, id)

    def find(self, status: str) -> Any:
        with self.make() as session:
            return list(session.scalars(_NEWEST.where(Task.status == status)))

    def page(self, place: tuple[str, str]) -> Any:
        with self.make() as session:
            after = (sa.literal(place[0], Task.created_at.type), sa.literal(place[1]))
            return list(session.scalars(_NEWEST.where(sa.tuple_(Task.created_at, Task.id) < sa.tuple_(*after))))

    def set_status(self, id: str, status: str) -> Any:
        with self.make.begin() as session:
            task = session.get_one(Task, id)
            task.status, task.started_at = status, now_text() if status == "running" else None
            task.attempt += status == "running"
            task.error = task.completed_at = None
            session.flush()
            session.refresh(task)  # the trigger moved `updated_at` on
            return task

    def changed(self, id: str, title: str) -> Any:
        return id, self.get(id).updated_at, title

    def update(self, item: Any) -> Any:
        id, version, title = item
        where = sa.update(Task).where(Task.id == id, Task.updated_at == version)
        with self.make.begin() as session:
            if session.execute(where.values(title=title), execution_options=_IN_PLACE).rowcount != 1:
                raise LookupError(id)
            return session.get_one(Task, id)


class OnServer(ORM):
    name = "SQLAlchemy ORM (PostgreSQL)"
    base = "psycopg"
    on_server = True
    distributions = ("SQLAlchemy", "psycopg")

    def open(self, place: str) -> None:
        self.engine = core.engine_on_server(place)
        self.make = sessionmaker(self.engine, expire_on_commit=False)
