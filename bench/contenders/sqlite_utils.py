"""sqlite-utils: tables of dicts. It writes dicts and lists as JSON by itself, and leaves the JSON that it reads as text."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import sqlite_utils

from bench import statements
from bench.contenders.base import LIMIT, Contender

_decode = msgspec.json.Decoder().decode


class SqliteUtils(Contender):
    name = "sqlite-utils"
    kind = "query builder"
    distributions = ("sqlite-utils",)

    def open(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, timeout=5)
        self.database = sqlite_utils.Database(self.connection)
        for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
            self.database.execute(f"PRAGMA {pragma}").fetchall()
        self.tasks = self.database["tasks"]

    def close(self) -> None:
        self.database.close()

    def raw(self, sql: str) -> list[Any]:
        rows = self.database.execute(sql).fetchall()
        self.connection.commit()
        return rows

    def key(self, record: Any) -> str:
        return record["id"]

    def new(self, values: dict[str, Any]) -> Any:
        return values

    def create(self, item: Any) -> None:
        self.tasks.insert(item)

    def create_many(self, items: list[Any]) -> None:
        self.tasks.insert_all(items)

    def get(self, id: str) -> Any:
        return self.tasks.get(id)

    def get_json(self, id: str) -> Any:
        row = self.tasks.get(id)
        row["config"], row["metadata"] = _decode(row["config"]), _decode(row["metadata"])
        return row

    def find(self, status: str) -> list[Any]:
        return list(self.tasks.rows_where("status = ?", [status], order_by="created_at desc, id desc", limit=LIMIT))

    def page(self, place: tuple[str, str]) -> list[Any]:
        order = "created_at desc, id desc"
        return list(self.tasks.rows_where("(created_at, id) < (?, ?)", list(place), order_by=order, limit=LIMIT))

    def count(self, status: str) -> int:
        return self.tasks.count_where("status = ?", [status])

    def set_status(self, id: str, status: str, moment: str) -> Any:
        at = moment if status == "running" else None
        self.tasks.update(id, {"status": status, "started_at": at, "error": None, "completed_at": None})
        return self.tasks.get(id)

    def new_execution(self, values: dict[str, Any]) -> Any:
        return values

    def start(self, item: Any) -> Any:
        self.database["tool_executions"].insert(item)
        return item["id"]

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        ended = {"status": "completed", "output": output, "completed_at": moment, "duration_ms": 12}
        self.database["tool_executions"].update(item, ended)
        return self.database["tool_executions"].get(item)

    def heartbeat(self, id: str, moment: str) -> None:
        self.database["sessions"].update(id, {"last_heartbeat": moment})

    def get_value(self, key: str) -> Any:
        return _decode(self.database["configurations"].get(key)["value"])

    def set_value(self, key: str, value: object, moment: str) -> None:
        self.database["configurations"].upsert({"key": key, "value": value, "updated_at": moment}, pk="key")

    def workflow(self, id: str) -> list[Any]:
        return list(self.database.query(statements.WORKFLOW, [id]))

    def statistics(self) -> list[Any]:
        return list(self.database.query(statements.STATISTICS))
