"""peewee: a model of its own, JSON by playhouse."""

from __future__ import annotations

import operator
from typing import Any

import peewee
from playhouse.sqlite_ext import JSONField

from bench.contenders.base import Contender
from bench.data import PAGE, TASK_COLUMNS, complete, now_text

# set when the contender is opened: the model is made once, at import
database = peewee.SqliteDatabase(None)


class Task(peewee.Model):
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
    priority = peewee.IntegerField()
    run_at = peewee.TextField()
    attempt = peewee.IntegerField()
    worker = peewee.TextField(null=True)
    lease_expires_at = peewee.TextField(null=True)
    failures = peewee.IntegerField()
    retries = peewee.IntegerField()
    retry_delay_ms = peewee.IntegerField()
    dedup_key = peewee.TextField(null=True)
    waiting_for = peewee.IntegerField()
    paused_by = peewee.IntegerField()

    class Meta:
        database = database
        table_name = "tasks"


class Peewee(Contender):
    name = "peewee"
    distributions = ("peewee",)
    read = operator.attrgetter(*TASK_COLUMNS)

    def open(self, place: str) -> None:
        pragmas = {"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1}
        database.init(place, pragmas=pragmas, timeout=5)
        database.connect()

    def close(self) -> None:
        database.close()

    def raw(self, sql: str) -> list[Any]:
        return database.execute_sql(sql).fetchall()

    def new(self, values: dict[str, Any]) -> Any:
        return Task(**complete(values))

    def new_many(self, many: list[dict[str, Any]]) -> Any:
        return [complete(values) for values in many]

    def create(self, item: Any) -> None:
        item.save(force_insert=True)

    def create_many(self, items: Any) -> None:
        with database.atomic():
            for batch in peewee.chunked(items, 100):
                Task.insert_many(batch).execute()

    def get(self, id: str) -> Any:
        return Task.get_by_id(id)

    def find(self, status: str) -> Any:
        return list(self._newest(Task.status == status))

    def page(self, place: tuple[str, str]) -> Any:
        return list(self._newest(peewee.Tuple(Task.created_at, Task.id) < peewee.Tuple(*place)))

    def set_status(self, id: str, status: str) -> Any:
        at = now_text() if status == "running" else None
        changes = {"status": status, "started_at": at, "error": None, "completed_at": None}
        changes["attempt"] = Task.attempt + (at is not None)
        return self._changed(id, changes, Task.id == id)

    def changed(self, id: str, title: str) -> Any:
        return id, self.get(id).updated_at, title

    def update(self, item: Any) -> Any:
        id, version, title = item
        return self._changed(id, {"title": title}, Task.id == id, Task.updated_at == version)

    def _newest(self, condition: Any) -> Any:
        return Task.select().where(condition).order_by(Task.created_at.desc(), Task.id.desc()).limit(PAGE)

    def _changed(self, id: str, changes: dict[str, Any], *conditions: Any) -> Any:
        with database.atomic():
            if Task.update(changes).where(*conditions).execute() != 1:
                raise LookupError(id)
            return Task.get_by_id(id)
