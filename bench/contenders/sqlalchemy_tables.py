"""The schema as SQLAlchemy's tables, and its engine with the settings that all contenders have.

Times are left as the text that the schema stores, which spares SQLAlchemy a conversion. JSON goes through the fast encoder
that the others use, by the documented `json_serializer` and `json_deserializer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from bench import data

metadata = sa.MetaData()


def _times(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text) for name in names]


tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("task_type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON(none_as_null=True)),
    sa.Column("workspace_path", sa.Text),
    sa.Column("error", sa.Text),
    *_times("created_at", "updated_at", "started_at", "completed_at"),
)
workflow_tasks = sa.Table(
    "workflow_tasks",
    metadata,
    sa.Column("workflow_id", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    *_times("created_at", "updated_at"),
)
tool_executions = sa.Table(
    "tool_executions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Text),
    sa.Column("tool_name", sa.Text, nullable=False),
    sa.Column("input", sa.JSON, nullable=False),
    sa.Column("output", sa.JSON(none_as_null=True)),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("duration_ms", sa.Integer),
    *_times("created_at", "updated_at", "started_at", "completed_at"),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("is_active", sa.Integer, nullable=False),
    sa.Column("metadata", sa.JSON(none_as_null=True)),
    *_times("created_at", "last_heartbeat", "updated_at"),
)
configurations = sa.Table(
    "configurations",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
    *_times("updated_at"),
)

JSON = {"json_serializer": data.json_text, "json_deserializer": msgspec.json.Decoder().decode}


def set_pragmas(connection: Any, _record: object = None) -> None:
    """Set a new connection up, as SQLAlchemy's documentation shows for foreign keys."""
    cursor = connection.cursor()
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def engine(path: Path) -> sa.Engine:
    """Return an engine for a file."""
    made = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 5}, **JSON)
    sa.event.listen(made, "connect", set_pragmas)
    return made
