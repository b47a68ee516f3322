"""Pony: entities, a `db_session` for each unit of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pony import orm

from bench.contenders.base import LIMIT, Contender

database = orm.Database()


@database.on_connect(provider="sqlite")
def _set_pragmas(_database: Any, connection: Any) -> None:
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        connection.execute(f"PRAGMA {pragma}")


class Task(database.Entity):
    _table_ = "tasks"
    id = orm.PrimaryKey(str)
    title = orm.Required(str)
    description = orm.Optional(str, nullable=True)
    task_type = orm.Required(str)
    status = orm.Required(str)
    config = orm.Required(orm.Json)
    metadata = orm.Optional(orm.Json, nullable=True)
    workspace_path = orm.Optional(str, nullable=True)
    error = orm.Optional(str, nullable=True)
    created_at = orm.Required(str)
    # the trigger writes it: not a reason to call the row changed by somebody else
    updated_at = orm.Required(str, volatile=True)
    started_at = orm.Optional(str, nullable=True)
    completed_at = orm.Optional(str, nullable=True)
    links = orm.Set("WorkflowTask")


class WorkflowTask(database.Entity):
    _table_ = "workflow_tasks"
    workflow_id = orm.Required(str)
    task = orm.Required(Task, column="task_id")
    orm.PrimaryKey(workflow_id, task)
    sequence = orm.Required(int)
    config = orm.Required(orm.Json)
    created_at = orm.Required(str)
    updated_at = orm.Required(str, volatile=True)


class Configuration(database.Entity):
    _table_ = "configurations"
    key = orm.PrimaryKey(str)
    value = orm.Required(orm.Json)
    updated_at = orm.Required(str, volatile=True)


class Session(database.Entity):
    _table_ = "sessions"
    id = orm.PrimaryKey(str)
    client_id = orm.Required(str)
    is_active = orm.Required(int)
    metadata = orm.Optional(orm.Json, nullable=True)
    created_at = orm.Required(str)
    last_heartbeat = orm.Required(str)
    updated_at = orm.Required(str, volatile=True)


class Pony(Contender):
    name = "Pony"
    kind = "ORM"
    distributions = ("pony",)

    def open(self, path: Path) -> None:
        if database.provider is not None:
            database.disconnect()
            database.provider = database.schema = None
        database.bind(provider="sqlite", filename=str(path), create_db=False, timeout=5)
        database.generate_mapping(create_tables=False, check_tables=False)

    def close(self) -> None:
        database.disconnect()

    def raw(self, sql: str) -> list[Any]:
        with orm.db_session:
            return database.execute(sql).fetchall()

    def new(self, values: dict[str, Any]) -> Any:
        # an entity belongs to a session from the beginning, so `create` makes it
        return {name: value for name, value in values.items() if value is not None}

    def create(self, item: Any) -> None:
        with orm.db_session:
            Task(**item)

    def create_many(self, items: list[Any]) -> None:
        with orm.db_session:
            for item in items:
                Task(**item)

    def get(self, id: str) -> Any:
        with orm.db_session:
            return Task[id]

    def get_json(self, id: str) -> Any:
        with orm.db_session:
            task = Task[id]
            _ = task.config, task.metadata
            return task

    def find(self, status: str) -> list[Any]:
        with orm.db_session:
            chosen = orm.select(task for task in Task if task.status == status)
            return list(chosen.order_by(lambda task: (orm.desc(task.created_at), orm.desc(task.id))).limit(LIMIT))

    def page(self, place: tuple[str, str]) -> list[Any]:
        created_at, id = place
        with orm.db_session:
            before = orm.select(
                task
                for task in Task
                if task.created_at <= created_at and (task.created_at < created_at or task.id < id)
            )
            return list(before.order_by(lambda task: (orm.desc(task.created_at), orm.desc(task.id))).limit(LIMIT))

    def count(self, status: str) -> int:
        with orm.db_session:
            return orm.count(task for task in Task if task.status == status)

    def set_status(self, id: str, status: str, moment: str) -> Any:
        with orm.db_session:
            task = Task[id]
            task.set(status=status, started_at=moment if status == "running" else None, error=None, completed_at=None)
            orm.flush()
            task.load(Task.updated_at)
            return task

    def heartbeat(self, id: str, moment: str) -> None:
        with orm.db_session:
            Session[id].last_heartbeat = moment

    def get_value(self, key: str) -> Any:
        with orm.db_session:
            return Configuration[key].value

    def set_value(self, key: str, value: object, moment: str) -> None:
        with orm.db_session:
            found = Configuration.get(key=key)
            if found is None:
                Configuration(key=key, value=value, updated_at=moment)
            else:
                found.value = value

    def workflow(self, id: str) -> list[Any]:
        with orm.db_session:
            links = orm.select(link for link in WorkflowTask if link.workflow_id == id).prefetch(Task)
            return [link.task for link in links.order_by(lambda link: (link.sequence, link.task.id))]
