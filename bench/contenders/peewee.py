"""peewee: models of its own, JSON by playhouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peewee
from playhouse.sqlite_ext import JSONField

from bench.contenders.base import LIMIT, Contender

# set when the contender is opened: the models are made once, at import
database = peewee.SqliteDatabase(None)


class Base(peewee.Model):
    class Meta:
        database = database
        legacy_table_names = False


class Task(Base):
    id = peewee.TextField(primary_key=True)
    title = peewee.TextField()
    description = peewee.TextField(null=True)
    task_type = peewee.TextField()
    status = peewee.TextField()
    config = JSONField()
    metadata = JSONField(null=True)
    workspace_path = peewee.TextField(null=True)
    error = peewee.TextField(null=True)
    created_at = peewee.TextField()
    updated_at = peewee.TextField()
    started_at = peewee.TextField(null=True)
    completed_at = peewee.TextField(null=True)

    class Meta:
        table_name = "tasks"


class WorkflowTask(Base):
    workflow_id = peewee.TextField()
    task = peewee.ForeignKeyField(Task, column_name="task_id")
    sequence = peewee.IntegerField()
    config = JSONField()
    created_at = peewee.TextField()
    updated_at = peewee.TextField()

    class Meta:
        table_name = "workflow_tasks"
        primary_key = peewee.CompositeKey("workflow_id", "task")


class ToolExecution(Base):
    id = peewee.TextField(primary_key=True)
    task_id = peewee.TextField(null=True)
    tool_name = peewee.TextField()
    input = JSONField()
    output = JSONField(null=True)
    status = peewee.TextField()
    error = peewee.TextField(null=True)
    duration_ms = peewee.IntegerField(null=True)
    created_at = peewee.TextField()
    updated_at = peewee.TextField()
    started_at = peewee.TextField(null=True)
    completed_at = peewee.TextField(null=True)

    class Meta:
        table_name = "tool_executions"


class Session(Base):
    id = peewee.TextField(primary_key=True)
    client_id = peewee.TextField()
    is_active = peewee.IntegerField()
    metadata = JSONField(null=True)
    created_at = peewee.TextField()
    last_heartbeat = peewee.TextField()
    updated_at = peewee.TextField()

    class Meta:
        table_name = "sessions"


class Configuration(Base):
    key = peewee.TextField(primary_key=True)
    value = JSONField()
    updated_at = peewee.TextField()

    class Meta:
        table_name = "configurations"


class Peewee(Contender):
    name = "peewee"
    kind = "ORM"
    distributions = ("peewee",)

    def open(self, path: Path) -> None:
        pragmas = {"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1}
        database.init(path, pragmas=pragmas, timeout=5)
        database.connect()

    def close(self) -> None:
        database.close()

    def raw(self, sql: str) -> list[Any]:
        return database.execute_sql(sql).fetchall()

    def new(self, values: dict[str, Any]) -> Any:
        return Task(**values)

    def new_many(self, many: list[dict[str, Any]]) -> list[Any]:
        return many

    def create(self, item: Any) -> None:
        item.save(force_insert=True)

    def create_many(self, items: list[Any]) -> None:
        with database.atomic():
            for batch in peewee.chunked(items, 100):
                Task.insert_many(batch).execute()

    def get(self, id: str) -> Any:
        return Task.get_by_id(id)

    get_json = get

    def find(self, status: str) -> list[Any]:
        chosen = Task.select().where(Task.status == status)
        return list(chosen.order_by(Task.created_at.desc(), Task.id.desc()).limit(LIMIT))

    def page(self, place: tuple[str, str]) -> list[Any]:
        before = Task.select().where(peewee.Tuple(Task.created_at, Task.id) < peewee.Tuple(*place))
        return list(before.order_by(Task.created_at.desc(), Task.id.desc()).limit(LIMIT))

    def count(self, status: str) -> int:
        return Task.select().where(Task.status == status).count()

    def set_status(self, id: str, status: str, moment: str) -> Any:
        at = moment if status == "running" else None
        with database.atomic():
            changes = {"status": status, "started_at": at, "error": None, "completed_at": None}
            Task.update(changes).where(Task.id == id).execute()
            return Task.get_by_id(id)

    def changed(self, id: str, title: str) -> Any:
        return id, self.get(id).updated_at, title

    def update(self, item: Any) -> Any:
        id, version, title = item
        with database.atomic():
            if Task.update(title=title).where(Task.id == id, Task.updated_at == version).execute() != 1:
                raise LookupError(id)
            return Task.get_by_id(id)

    def new_execution(self, values: dict[str, Any]) -> Any:
        return ToolExecution(**values)

    def start(self, item: Any) -> Any:
        item.save(force_insert=True)
        return item.id

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        with database.atomic():
            changes = {"status": "completed", "output": output, "completed_at": moment, "duration_ms": 12}
            ToolExecution.update(changes).where(ToolExecution.id == item).execute()
            return ToolExecution.get_by_id(item)

    def heartbeat(self, id: str, moment: str) -> None:
        alive = Session.update(last_heartbeat=moment).where(Session.id == id, Session.is_active == 1)
        if alive.execute() != 1:
            raise LookupError(id)

    def get_value(self, key: str) -> Any:
        return Configuration.get_by_id(key).value

    def set_value(self, key: str, value: object, moment: str) -> None:
        stored = Configuration.insert(key=key, value=value, updated_at=moment)
        stored.on_conflict(conflict_target=[Configuration.key], preserve=[Configuration.value]).execute()

    def workflow(self, id: str) -> list[Any]:
        linked = Task.select(Task, WorkflowTask).join(WorkflowTask, on=(WorkflowTask.task == Task.id))
        return list(linked.where(WorkflowTask.workflow_id == id).order_by(WorkflowTask.sequence, WorkflowTask.task))
