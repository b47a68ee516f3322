"""aiosql: SQL in a text, a function for each statement; tuples, on sqlite3."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiosql
import msgspec

from bench import data, statements
from bench.contenders import bare
from bench.contenders.sqlite3 import connect

_decode = msgspec.json.Decoder().decode


def _named(sql: str, *names: str) -> str:
    """Return the statement with names for its parameters, as aiosql wants them."""
    given = iter(names)
    if "?1" in sql:
        return re.sub(r"\?(\d)", lambda found: f":{names[int(found[1]) - 1]}", sql)
    return re.sub(r"\?", lambda _: f":{next(given)}", sql)


_STATEMENTS = {
    "create!": _named(statements.CREATE, *statements.TASK_COLUMNS),
    "create_many*!": _named(statements.CREATE, *statements.TASK_COLUMNS),
    "get^": _named(statements.GET, "id"),
    "find": _named(statements.FIND, "status"),
    "page": _named(statements.PAGE, "created_at", "id"),
    "count$": _named(statements.COUNT, "status"),
    "set_pending^": _named(statements.SET_PENDING, "status", "id"),
    "set_running^": _named(statements.SET_RUNNING, "status", "moment", "id"),
    "start!": _named(statements.START, *statements.EXECUTION_COLUMNS),
    "finish^": _named(statements.FINISH, "status", "output", "error", "moment", "duration_ms", "id"),
    "get_execution^": _named(statements.GET_EXECUTION, "id"),
    "heartbeat^": _named(statements.HEARTBEAT, "moment", "id"),
    "get_value$": _named(statements.GET_VALUE, "key"),
    "set_value!": _named(statements.SET_VALUE, "key", "value", "moment"),
    "workflow": _named(statements.WORKFLOW, "id"),
    "statistics": statements.STATISTICS,
}
_TEXT = "\n".join(f"-- name: {name}\n{sql.strip()};\n" for name, sql in _STATEMENTS.items())


class Aiosql(bare.Tuples):
    name = "aiosql"
    distributions = ("aiosql",)
    kind = "query builder"
    in_threads = False
    oldest_pending = sweep = changed = update = None

    def open(self, path: Path) -> None:
        self.connection = connect(path)
        self.queries = aiosql.from_str(_TEXT, "sqlite3", mandatory_parameters=False)

    def new(self, values: dict[str, Any]) -> Any:
        return dict(zip(values, data.task_row(values), strict=True))

    def create(self, item: Any) -> None:
        self.queries.create(self.connection, **item)

    def create_many(self, items: list[Any]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.queries.create_many(self.connection, items)
        self.connection.execute("COMMIT")

    def get(self, id: str) -> Any:
        return self.queries.get(self.connection, id=id)

    def get_json(self, id: str) -> Any:
        row = self.queries.get(self.connection, id=id)
        _ = _decode(row[5]), _decode(row[6])
        return row

    def find(self, status: str) -> list[Any]:
        return list(self.queries.find(self.connection, status=status))

    def page(self, place: tuple[str, str]) -> list[Any]:
        return list(self.queries.page(self.connection, created_at=place[0], id=place[1]))

    def count(self, status: str) -> int:
        return self.queries.count(self.connection, status=status)

    def set_status(self, id: str, status: str, moment: str) -> Any:
        self.connection.execute("BEGIN IMMEDIATE")
        if status == "pending":
            self.queries.set_pending(self.connection, status=status, id=id)
        else:
            self.queries.set_running(self.connection, status=status, moment=moment, id=id)
        row = self.queries.get(self.connection, id=id)
        self.connection.execute("COMMIT")
        return row

    def new_execution(self, values: dict[str, Any]) -> Any:
        return dict(zip(values, super().new_execution(values), strict=True))

    def start(self, item: Any) -> Any:
        self.queries.start(self.connection, **item)
        return item["id"]

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        text = data.json_text(output)
        self.connection.execute("BEGIN IMMEDIATE")
        self.queries.finish(
            self.connection, status="completed", output=text, error=None, moment=moment, duration_ms=12, id=item
        )
        row = self.queries.get_execution(self.connection, id=item)
        self.connection.execute("COMMIT")
        return row

    def heartbeat(self, id: str, moment: str) -> None:
        if self.queries.heartbeat(self.connection, moment=moment, id=id) is None:
            raise LookupError(id)

    def get_value(self, key: str) -> Any:
        return _decode(self.queries.get_value(self.connection, key=key))

    def set_value(self, key: str, value: object, moment: str) -> None:
        self.queries.set_value(self.connection, key=key, value=data.json_text(value), moment=moment)

    def workflow(self, id: str) -> list[Any]:
        return list(self.queries.workflow(self.connection, id=id))

    def statistics(self) -> list[Any]:
        return list(self.queries.statistics(self.connection))
