"""Django's ORM, configured in the process; the tables are those of the migrations (`managed = False`)."""

# ruff: noqa: DJ008 - nobody prints these models
from __future__ import annotations

from pathlib import Path
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": "",
                "OPTIONS": {
                    "timeout": 5,
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode = wal; PRAGMA synchronous = normal",
                },
            }
        },
        USE_TZ=True,
    )
    django.setup()

from django.db import connections, models, transaction
from django.db.models import Q

from bench.contenders.base import LIMIT, Contender


def _text(**options: Any) -> Any:
    return models.TextField(**options)


class Task(models.Model):
    id = _text(primary_key=True)
    title = _text()
    description = _text(null=True)
    task_type = _text()
    status = _text()
    config = models.JSONField()
    metadata = models.JSONField(null=True)
    workspace_path = _text(null=True)
    error = _text(null=True)
    created_at = _text()
    updated_at = _text()
    started_at = _text(null=True)
    completed_at = _text(null=True)

    class Meta:
        app_label, managed, db_table = "bench", False, "tasks"


class WorkflowTask(models.Model):
    pk = models.CompositePrimaryKey("workflow_id", "task_id")
    workflow_id = _text()
    task = models.ForeignKey(Task, models.CASCADE)
    sequence = models.IntegerField()
    config = models.JSONField()
    created_at = _text()
    updated_at = _text()

    class Meta:
        app_label, managed, db_table = "bench", False, "workflow_tasks"


class ToolExecution(models.Model):
    id = _text(primary_key=True)
    task_id = _text(null=True)
    tool_name = _text()
    input = models.JSONField()
    output = models.JSONField(null=True)
    status = _text()
    error = _text(null=True)
    duration_ms = models.IntegerField(null=True)
    created_at = _text()
    updated_at = _text()
    started_at = _text(null=True)
    completed_at = _text(null=True)

    class Meta:
        app_label, managed, db_table = "bench", False, "tool_executions"


class Session(models.Model):
    id = _text(primary_key=True)
    client_id = _text()
    is_active = models.IntegerField()
    metadata = models.JSONField(null=True)
    created_at = _text()
    last_heartbeat = _text()
    updated_at = _text()

    class Meta:
        app_label, managed, db_table = "bench", False, "sessions"


class Configuration(models.Model):
    key = _text(primary_key=True)
    value = models.JSONField()
    updated_at = _text()

    class Meta:
        app_label, managed, db_table = "bench", False, "configurations"


class Django(Contender):
    name = "Django ORM"
    kind = "ORM"
    distributions = ("Django",)

    def open(self, path: Path) -> None:
        connections["default"].close()
        connections["default"].settings_dict["NAME"] = str(path)

    def close(self) -> None:
        connections["default"].close()

    def raw(self, sql: str) -> list[Any]:
        with connections["default"].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def new(self, values: dict[str, Any]) -> Any:
        return Task(**values)

    def create(self, item: Any) -> None:
        item.save(force_insert=True)

    def create_many(self, items: list[Any]) -> None:
        Task.objects.bulk_create(items)

    def get(self, id: str) -> Any:
        return Task.objects.get(pk=id)

    get_json = get

    def find(self, status: str) -> list[Any]:
        return list(Task.objects.filter(status=status).order_by("-created_at", "-id")[:LIMIT])

    def page(self, place: tuple[str, str]) -> list[Any]:
        created_at, id = place
        # created_at__lte is redundant, and what lets SQLite begin in the middle of the index
        before = Task.objects.filter(Q(created_at__lt=created_at) | Q(id__lt=id), created_at__lte=created_at)
        return list(before.order_by("-created_at", "-id")[:LIMIT])

    def count(self, status: str) -> int:
        return Task.objects.filter(status=status).count()

    def set_status(self, id: str, status: str, moment: str) -> Any:
        at = moment if status == "running" else None
        with transaction.atomic():
            Task.objects.filter(pk=id).update(status=status, started_at=at, error=None, completed_at=None)
            return Task.objects.get(pk=id)

    def changed(self, id: str, title: str) -> Any:
        return id, self.get(id).updated_at, title

    def update(self, item: Any) -> Any:
        id, version, title = item
        with transaction.atomic():
            if Task.objects.filter(pk=id, updated_at=version).update(title=title) != 1:
                raise LookupError(id)
            return Task.objects.get(pk=id)

    def new_execution(self, values: dict[str, Any]) -> Any:
        return ToolExecution(**values)

    def start(self, item: Any) -> Any:
        item.save(force_insert=True)
        return item.id

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        with transaction.atomic():
            ended = {"status": "completed", "output": output, "completed_at": moment, "duration_ms": 12}
            ToolExecution.objects.filter(pk=item).update(**ended)
            return ToolExecution.objects.get(pk=item)

    def heartbeat(self, id: str, moment: str) -> None:
        if Session.objects.filter(pk=id, is_active=1).update(last_heartbeat=moment) != 1:
            raise LookupError(id)

    def get_value(self, key: str) -> Any:
        return Configuration.objects.get(pk=key).value

    def set_value(self, key: str, value: object, moment: str) -> None:
        stored = [Configuration(key=key, value=value, updated_at=moment)]
        Configuration.objects.bulk_create(stored, update_conflicts=True, update_fields=["value"], unique_fields=["key"])

    def workflow(self, id: str) -> list[Any]:
        links = WorkflowTask.objects.filter(workflow_id=id).select_related("task").order_by("sequence", "task_id")
        return [link.task for link in links]
