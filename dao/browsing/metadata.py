"""What datasette is told of a database: queries with their words, labels, what stays hidden, which columns go first."""

from __future__ import annotations

from typing import Any

from dao.engine import Connection, fetch
from dao.migrate import database as databases
from dao.migrate.schema.names import TABLES

__all__ = ["metadata"]

# The view without which the queries would fail.
_VIEW = "task_overview"
_STUCK = """
SELECT id AS task, title, task_type AS type, phase,
       CASE WHEN phase = 'blocked' THEN 'waits for ' || (
                SELECT group_concat(title || ' (' || status || ')', ', ')
                FROM   (SELECT other.title, other.status FROM task_dependencies AS link
                        JOIN tasks AS other ON other.id = link.depends_on
                        WHERE link.task_id = one.id AND other.status <> 'completed' LIMIT 3))
                || iif(waiting_for > 3, ' and ' || (waiting_for - 3) || ' more', '')
            WHEN phase = 'paused' THEN 'its workflow is paused: ' || (
                SELECT group_concat(name, ', ') FROM workflow_tasks AS link
                JOIN workflows ON workflows.id = link.workflow_id
                WHERE link.task_id = one.id AND workflows.status = 'paused')
            WHEN phase = 'backing off' THEN failures || iif(failures = 1, ' failure', ' failures')
                || ', tries again at ' || run_at || coalesce(': ' || error, '')
            WHEN phase = 'lost' THEN 'the lease of ' || worker || ' ended at ' || lease_expires_at
            ELSE 'runs without a worker or a lease' END AS why,
       coalesce(started_at, created_at) AS since
FROM   task_overview AS one
WHERE  (status = 'pending' AND phase IN ('blocked', 'paused', 'backing off'))
OR     (status = 'running' AND (phase = 'lost' OR lease_expires_at IS NULL))
ORDER  BY since
LIMIT  500
""".strip()
_STORY = """
SELECT at, what, worker, attempt, details
FROM  (SELECT at, coalesce(from_status || ' → ', '') || coalesce(to_status, 'deleted') AS what, worker, attempt,
              error AS details, iif(from_status = 'running', 2, 0) AS place, seq
       FROM   task_events WHERE task_id = :task
       UNION  ALL
       SELECT coalesce(started_at, created_at), 'tool ' || tool_name || ': ' || status, NULL, attempt,
              coalesce(error, output, input), 1, 0
       FROM   tool_executions WHERE task_id = :task
       UNION  ALL
       SELECT created_at, 'made: ' || title, NULL, NULL, config, -1, 0 FROM tasks WHERE id = :task)
ORDER  BY at, place, seq
LIMIT  1000
""".strip()
_THROUGHPUT = """
SELECT substr(at, 1, 13) || ':00Z' AS hour,
       count(*) FILTER (WHERE to_status = 'completed') AS completed,
       count(*) FILTER (WHERE to_status = 'failed') AS failed,
       count(*) FILTER (WHERE to_status = 'pending' AND error IS NOT NULL) AS "to be tried again",
       count(*) FILTER (WHERE to_status = 'cancelled') AS cancelled,
       count(DISTINCT worker) AS workers
FROM   task_events
WHERE  from_status = 'running' AND to_status <> 'running'
AND    at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 days')
GROUP  BY hour
ORDER  BY hour DESC
""".strip()
_TOOLS = """
SELECT tool_name AS tool, count(*) AS calls,
       round(avg(duration_ms)) AS "mean ms", max(duration_ms) AS "longest ms",
       round(sum(duration_ms) / 1000.0) AS "all s",
       count(*) FILTER (WHERE status NOT IN ('completed', 'pending', 'running')) AS "not completed",
       max(created_at) AS latest
FROM   tool_executions
WHERE  created_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7 days')
GROUP  BY tool_name
ORDER  BY avg(duration_ms) DESC
LIMIT  200
""".strip()
_FAILURES = """
SELECT error, count(*) AS tasks, task_type AS type, max(completed_at) AS latest, max(id) AS task
FROM   tasks
WHERE  status = 'failed'
GROUP  BY error, task_type
ORDER  BY tasks DESC, latest DESC
LIMIT  200
""".strip()
_SESSIONS = """
SELECT id AS session, client_id AS client, last_heartbeat,
       round((julianday('now') - julianday(last_heartbeat)) * 1440) AS "silent minutes", created_at
FROM   sessions
WHERE  is_active = TRUE AND last_heartbeat < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-5 minutes')
ORDER  BY last_heartbeat
LIMIT  500
""".strip()
#: By the name in the address, in the order of the first page: the title, what it says, and the SQL.
_QUERIES = {
    "stuck": ("What is stuck, and why", "Tasks that wait, back off or were lost, the longest first", _STUCK),
    "story": ("The story of one task", "All that happened to it: give its id", _STORY),
    "failures": ("What failed, and with which error", "Failed tasks by error; task is the latest of them", _FAILURES),
    "throughput": ("Throughput", "Attempts that ended, by the hour, of the last two days", _THROUGHPUT),
    "slow_tools": ("The slowest tools", "By the mean of their calls of the last seven days", _TOOLS),
    "stale_sessions": ("Stale sessions", "Active ones without a heartbeat for five minutes", _SESSIONS),
}
_TIMES = "created_at"
_VIEWS = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name"
# Of each table: what a reference to it shows, which columns its page begins with, and those to count by.
_SHOWN: dict[str, tuple[str | None, tuple[str, ...], tuple[str, ...]]] = {
    "tasks": (
        "title",
        ("title", "task_type", "status", "priority", "attempt", "worker", "error", "created_at", "completed_at"),
        ("status", "task_type"),
    ),
    "workflows": ("name", ("name", "status", "description", "created_at"), ("status",)),
    "workflow_tasks": (None, ("sequence", "created_at"), ()),
    "tool_executions": (
        "tool_name",
        ("task_id", "tool_name", "status", "attempt", "duration_ms", "error", "created_at"),
        ("status", "tool_name"),
    ),
    "task_dependencies": (None, (), ()),
    "task_events": (
        None,
        ("task_id", "from_status", "to_status", "attempt", "worker", "error", "at"),
        ("to_status",),
    ),
    "sessions": ("client_id", ("client_id", "is_active", "last_heartbeat", "created_at"), ("is_active",)),
    "configurations": (None, ("value", "updated_at"), ()),
}


def metadata(connection: Connection, name: str, title: str) -> dict[str, Any]:
    """Return datasette's metadata for a database: `name` is what it has in addresses, `title` for people.

    A database without the tables of this package has no queries, and its own tables are shown as they are.
    """
    there = databases.table_names(connection)
    tables: dict[str, Any] = {table: {"hidden": True} for table in there if _is_hidden(table)}
    has_ours = "status" in databases.columns_of(connection, _VIEW)
    for table, (label, first, facets) in _SHOWN.items():
        if table in there and has_ours:
            sort = "seq" if table == "task_events" else _TIMES
            tables[table] = {
                **({"label_column": label} if label else {}),
                **({"facets": list(facets)} if facets else {}),
                **({"sort_desc": sort} if sort in databases.columns_of(connection, table) else {}),
                "size": 50,
                "first_columns": list(first),
            }
    views = [view for (view,) in fetch(connection, _VIEWS)]
    named = [*views, *(table for table in _SHOWN if table in there), *sorted(there - {*_SHOWN})]
    queries = {
        query: {"title": heading, "description": about, "sql": sql, "hide_sql": True}
        for query, (heading, about, sql) in _QUERIES.items()
    }
    return {
        "title": title,
        "databases": {
            name: {
                "tables": tables,
                "queries": queries if has_ours else {},
                # for the first page: datasette would list five of them
                "first_page": [one for one in named if not tables.get(one, {}).get("hidden")],
            }
        },
        "extra_css_urls": ["/dao/browse.css"],
    }


def _is_hidden(table: str) -> bool:
    return table in TABLES or table.startswith(("_litestream_", "sqlite_"))
