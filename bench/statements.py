"""The SQL that the contenders without a query builder share: the statements that `dao` runs, with `?` for parameters."""

from __future__ import annotations

TASK_COLUMNS = (
    "id", "title", "description", "task_type", "status", "config", "metadata", "workspace_path", "error", "created_at",
    "updated_at", "started_at", "completed_at",
)  # fmt: skip
EXECUTION_COLUMNS = (
    "id", "task_id", "tool_name", "input", "output", "status", "error", "duration_ms", "created_at", "updated_at",
    "started_at", "completed_at",
)  # fmt: skip
SESSION_COLUMNS = ("id", "client_id", "is_active", "metadata", "created_at", "last_heartbeat", "updated_at")
WORKFLOW_COLUMNS = ("id", "name", "description", "status", "config", "metadata", "created_at", "updated_at")
LINK_COLUMNS = ("workflow_id", "task_id", "sequence", "config", "created_at", "updated_at")
CONFIGURATION_COLUMNS = ("key", "value", "updated_at")


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"


_TASK = ", ".join(TASK_COLUMNS)

CREATE = _insert("tasks", TASK_COLUMNS)
CREATE_WORKFLOW = _insert("workflows", WORKFLOW_COLUMNS)
CREATE_LINK = _insert("workflow_tasks", LINK_COLUMNS)
CREATE_SESSION = _insert("sessions", SESSION_COLUMNS)
CREATE_CONFIGURATION = _insert("configurations", CONFIGURATION_COLUMNS)
START = _insert("tool_executions", EXECUTION_COLUMNS)

GET = f"SELECT {_TASK} FROM tasks WHERE id = ?"
FIND = f"SELECT {_TASK} FROM tasks WHERE status = ? ORDER BY created_at DESC, id DESC LIMIT 50"
PAGE = f"SELECT {_TASK} FROM tasks WHERE (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT 50"
COUNT = "SELECT count(*) FROM tasks WHERE status = ?"
OLDEST_PENDING = f"SELECT {_TASK} FROM tasks WHERE status = 'pending' ORDER BY created_at, id LIMIT 1"
SET_PENDING = """
UPDATE tasks SET status = ?1, error = NULL, started_at = NULL, completed_at = NULL WHERE id = ?2 RETURNING id
"""
SET_RUNNING = """
UPDATE tasks
SET    started_at = CASE WHEN status = ?1 AND started_at IS NOT NULL THEN started_at ELSE ?2 END,
       status = ?1, error = NULL, completed_at = NULL
WHERE  id = ?3
RETURNING id
"""
UPDATE = """
UPDATE tasks
SET    title = ?, description = ?, task_type = ?, status = ?, config = ?, metadata = ?, workspace_path = ?, error = ?,
       started_at = ?, completed_at = ?
WHERE  id = ? AND updated_at = ?
RETURNING id
"""
FINISH = """
UPDATE tool_executions
SET    status = ?, output = ?, error = ?, completed_at = ?, duration_ms = ?
WHERE  id = ? AND status IN ('pending', 'running')
RETURNING id
"""
GET_EXECUTION = f"SELECT {', '.join(EXECUTION_COLUMNS)} FROM tool_executions WHERE id = ?"
HEARTBEAT = """
UPDATE sessions
SET    last_heartbeat = CASE WHEN last_heartbeat < ?1 THEN ?1 ELSE last_heartbeat END
WHERE  id = ?2 AND is_active = 1
RETURNING id
"""
SWEEP = "UPDATE sessions SET is_active = 0 WHERE is_active = 1 AND last_heartbeat < ? RETURNING id"
GET_VALUE = "SELECT value FROM configurations WHERE key = ?"
SET_VALUE = CREATE_CONFIGURATION + " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
WORKFLOW = f"""
SELECT {", ".join(f"tasks.{name}" for name in TASK_COLUMNS)},
       {", ".join(f"workflow_tasks.{name}" for name in LINK_COLUMNS)}
FROM   workflow_tasks
JOIN   tasks ON tasks.id = workflow_tasks.task_id
WHERE  workflow_tasks.workflow_id = ?
ORDER  BY workflow_tasks.sequence, workflow_tasks.task_id
"""
STATISTICS = """
SELECT tool_name, count(*), sum(CASE WHEN status IN ('failed', 'timeout') THEN 1 ELSE 0 END), avg(duration_ms),
       min(CASE WHEN place * 100 >= timed * 50 THEN duration_ms END),
       min(CASE WHEN place * 100 >= timed * 95 THEN duration_ms END)
FROM (
    SELECT tool_name, status, duration_ms,
           count(duration_ms) OVER (PARTITION BY tool_name) AS timed,
           row_number() OVER (PARTITION BY tool_name, duration_ms IS NULL ORDER BY duration_ms) AS place
    FROM   tool_executions
) AS calls
GROUP BY tool_name
ORDER BY tool_name
"""
