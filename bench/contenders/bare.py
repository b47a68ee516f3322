"""The bare drivers, apsw, sqlite3 and psycopg: the shortest statement for each operation, rows as tuples, JSON as text.

A change is one UPDATE with RETURNING. On SQLite that gives the row as it was before its trigger moved `updated_at` on,
so dao reads the row once more in the same transaction; `bench.breakdown` shows what that costs.
"""

from __future__ import annotations

import functools
import queue
import sqlite3
from datetime import UTC, datetime
from typing import Any

import apsw
import msgspec

from bench.contenders.base import Worker
from bench.data import LEASE, TASK_COLUMNS, WORKER, json_text, new_id, now_text, time_text

_COLUMNS = ", ".join(TASK_COLUMNS)
# what the others are is the default of their columns
_GIVEN = (*TASK_COLUMNS[:13], "run_at")
CREATE = f"INSERT INTO tasks ({', '.join(_GIVEN)}) VALUES ({', '.join('?' * len(_GIVEN))})"
_ENQUEUE = f"""
INSERT INTO tasks ({", ".join(_GIVEN)}, dedup_key) VALUES ({", ".join("?" * len(_GIVEN))}, ?)
ON CONFLICT DO NOTHING RETURNING id
"""
GET = f"SELECT {_COLUMNS} FROM tasks WHERE id = ?"
_FIND = f"SELECT {_COLUMNS} FROM tasks WHERE status = ? ORDER BY created_at DESC, id DESC LIMIT 50"
_PAGE = f"SELECT {_COLUMNS} FROM tasks WHERE (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT 50"
_OLDEST = f"SELECT {_COLUMNS} FROM tasks WHERE status = 'pending' ORDER BY created_at, id LIMIT 1"
_SET_STATUS = f"""
UPDATE tasks
SET    status = ?, started_at = ?, attempt = attempt + ?, error = NULL, completed_at = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = ?
RETURNING {_COLUMNS}
"""
_UPDATE = f"""
UPDATE tasks
SET    title = ?, description = ?, task_type = ?, status = ?, config = ?, metadata = ?, workspace_path = ?, error = ?,
       started_at = ?, completed_at = ?, priority = ?, run_at = ?, attempt = ?, worker = ?, failures = ?, retries = ?,
       retry_delay_ms = ?, dedup_key = ?
WHERE  id = ? AND updated_at = ?
RETURNING {_COLUMNS}
"""
# A claim and its end are the statements that dao has: they are what is to be done.
_VERSION = "max(?, strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '+0.001 seconds'))"
_BEGIN = f"""
UPDATE tasks
SET    updated_at = {_VERSION}, status = 'running', attempt = attempt + 1, worker = ?, lease_expires_at = ?,
       started_at = ?, completed_at = NULL, error = NULL
WHERE  id"""
_UNLESS_EXPIRED = "(SELECT id FROM tasks WHERE lease_expires_at < ? ORDER BY lease_expires_at LIMIT 1) IS NULL"
_READY = "status = 'pending' AND waiting_for = 0 AND paused_by = 0 AND priority"
_CLAIM = f"""{_BEGIN} IN (
    SELECT id
    FROM   tasks
    WHERE  {_READY} IN (9, 8, 7, 6, 5, 4, 3, 2, 1, 0) AND run_at <= ?
    ORDER  BY priority DESC, run_at, id
    LIMIT  ?
)
AND    {_UNLESS_EXPIRED}
RETURNING {_COLUMNS}
"""
CLAIM_ON_SERVER = f"""{_BEGIN} = ANY (ARRAY(
    SELECT due.id
    FROM   (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) AS level (priority)
    CROSS  JOIN LATERAL (
        SELECT id
        FROM   tasks
        WHERE  {_READY} = level.priority AND run_at <= ?
        ORDER  BY run_at, id
        LIMIT  ?
        FOR    NO KEY UPDATE SKIP LOCKED
    ) AS due
    LIMIT  ?
))
AND    {_UNLESS_EXPIRED}
RETURNING {_COLUMNS}
"""
_COMPLETE = f"""
UPDATE tasks
SET    updated_at = {_VERSION}, status = 'completed', completed_at = ?, error = NULL,
       worker = NULL, lease_expires_at = NULL
WHERE  id = ? AND attempt = ? AND worker IS NOT DISTINCT FROM ? AND status = 'running'
RETURNING {_COLUMNS}
"""
_ATTEMPT, _WORKER = TASK_COLUMNS.index("attempt"), TASK_COLUMNS.index("worker")
_RENEW = f"""
UPDATE tasks SET lease_expires_at = ? WHERE id = ? AND attempt = ? AND worker = ? AND status = 'running'
RETURNING {_COLUMNS}
"""
HEARTBEAT = "UPDATE sessions SET last_heartbeat = ? WHERE id = ? AND is_active = TRUE"
_GET_VALUE = "SELECT value FROM configurations WHERE key = ?"
_SET_VALUE = """
INSERT INTO configurations (key, value, updated_at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
_WORKFLOW = """
SELECT tasks.*, workflow_tasks.*
FROM   workflow_tasks
JOIN   tasks ON tasks.id = workflow_tasks.task_id
WHERE  workflow_tasks.workflow_id = ?
ORDER  BY workflow_tasks.sequence, workflow_tasks.task_id
"""
_START = """
INSERT INTO tool_executions (id, tool_name, input, status, created_at, updated_at, started_at)
VALUES (?, 'search', ?, 'running', ?, ?, ?)
"""
_FINISH = """
UPDATE tool_executions SET status = 'completed', output = ?, completed_at = ?, duration_ms = ?
WHERE  id = ? AND status IN ('pending', 'running')
RETURNING *
"""
_STEP = "SELECT * FROM tool_executions WHERE task_id = ? AND step = ? AND status = 'completed'"
_START_STEP = """
INSERT INTO tool_executions (id, task_id, tool_name, input, status, created_at, updated_at, started_at, step, attempt)
VALUES (?, ?, 'search', ?, 'running', ?, ?, ?, ?, ?)
"""
_integer = msgspec.json.Decoder(int).decode


@functools.cache
def on_server(sql: str) -> str:
    """Return a statement with PostgreSQL's words for the version after the last."""
    return sql.replace(_VERSION, "greatest(?, updated_at + interval '1 millisecond')")


class Bare(Worker):
    """What both have in common. Each is opened, and says how many rows it changed, in its own way."""

    def close(self) -> None:
        self.connection.close()

    def raw(self, sql: str) -> list[Any]:
        return self.connection.execute(sql).fetchall()

    def new(self, values: dict[str, Any]) -> tuple[Any, ...]:
        now = now_text()
        return (
            new_id(), values["title"], values["description"], values["task_type"], "pending",
            json_text(values["config"]), json_text(values["metadata"]), None, None, now, now, None, None, now,
        )  # fmt: skip

    def create(self, item: Any) -> None:
        self.connection.execute(CREATE, item)

    def create_many(self, items: Any) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(CREATE, items)
        connection.execute("COMMIT")

    def get(self, id: str) -> Any:
        return self.connection.execute(GET, (id,)).fetchall()[0]

    def find(self, status: str) -> Any:
        return self.connection.execute(_FIND, (status,)).fetchall()

    def page(self, place: tuple[str, str]) -> Any:
        return self.connection.execute(_PAGE, place).fetchall()

    def oldest(self) -> Any:
        return self.connection.execute(_OLDEST).fetchall()[0]

    def set_status(self, id: str, status: str) -> Any:
        runs = status == "running"
        values = (status, now_text() if runs else None, int(runs), id)
        return self.connection.execute(_SET_STATUS, values).fetchall()[0]

    def changed(self, id: str, title: str) -> Any:
        row = self.get(id)
        return (title, *row[2:9], *row[11:17], *row[18:22], id, row[10])

    def update(self, item: Any) -> Any:
        return self.connection.execute(_UPDATE, item).fetchall()[0]

    def configuration_get(self, key: str) -> int:
        return _integer(self.connection.execute(_GET_VALUE, (key,)).fetchall()[0][0])

    def configuration_set(self, key: str, value: object) -> None:
        self.connection.execute(_SET_VALUE, (key, json_text(value), now_text()))

    def workflow(self, id: str) -> list[Any]:
        return self.connection.execute(_WORKFLOW, (id,)).fetchall()

    def tool_start(self, input: object) -> str:
        id, now = new_id(), now_text()
        self.connection.execute(_START, (id, json_text(input), now, now, now))
        return id

    def tool_finish(self, item: str, output: object) -> Any:
        return self.connection.execute(_FINISH, (json_text(output), now_text(), 12, item)).fetchall()[0]

    def enqueue(self, item: Any, key: str) -> Any:
        return self.connection.execute(_ENQUEUE, (*item, key)).fetchall()

    def claim(self, number: int) -> list[Any]:
        now = now_text()
        values = (now, WORKER, self.lease_end(), now, now, number, now)
        return self.connection.execute(_CLAIM, values).fetchall()

    def lease_end(self) -> str:
        return time_text(datetime.now(UTC) + LEASE)

    def complete(self, item: Any) -> Any:
        now = now_text()
        return self._of_attempt(_COMPLETE, (now, now), item)

    def renew(self, item: Any) -> Any:
        return self._of_attempt(_RENEW, (self.lease_end(),), item)

    def _of_attempt(self, statement: str, values: tuple[Any, ...], item: Any) -> Any:
        return self.connection.execute(statement, (*values, item[0], item[_ATTEMPT], item[_WORKER])).fetchall()[0]

    def step(self, item: Any, name: str, input: object, output: object) -> Any:
        if found := self.connection.execute(_STEP, (item[0], name)).fetchall():
            return found[0]
        id, now = new_id(), now_text()
        values = (id, item[0], json_text(input), now, now, now, name, item[_ATTEMPT])
        self.connection.execute(_START_STEP, values)
        return self.tool_finish(id, output)

    def set_pragmas(self) -> None:
        for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on", "temp_store = memory"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()


class Apsw(Bare):
    name = "apsw"
    distributions = ("apsw",)

    def open(self, place: str) -> None:
        self.connection = apsw.Connection(place)
        # as dao has it: else SQLite prepares `find` anew at each call, since the table has a partial index
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self.connection.set_busy_timeout(5000)
        self.set_pragmas()
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle.put(self.connection)

    def heartbeat(self, id: str) -> None:
        self.connection.execute(HEARTBEAT, (now_text(), id))
        if not self.connection.changes():
            raise LookupError(id)

    def lend(self) -> None:
        """Take from and give back to the smallest pool there is: a queue."""
        connection = self._idle.get()
        self._idle.put(connection)


class Sqlite3(Bare):
    name = "sqlite3"

    def open(self, place: str) -> None:
        self.connection = sqlite3.connect(place, timeout=5, isolation_level=None)
        self.set_pragmas()

    def heartbeat(self, id: str) -> None:
        if not self.connection.execute(HEARTBEAT, (now_text(), id)).rowcount:
            raise LookupError(id)
