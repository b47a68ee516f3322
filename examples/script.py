"""Looks at `orchestrator.db` in the working folder, from a script or a notebook: `python examples/script.py`.

Each part that begins with `# %%` is a cell, for editors and for jupytext, which makes a notebook of it. It needs
pandas. The database is opened to be read and nothing else, beside whatever writes to it; docs/how-to/jupyter.md
says what to mind.
"""

# %%
import warnings

import attrs
import pandas as pd

import dao
from dao import tasks
from dao.engine.sqlite.dbapi import DbApiConnection

connection = dao.connect("sqlite:///orchestrator.db?mode=ro")


# %% SQL as a table. pandas warns of every connection that is not SQLAlchemy's or sqlite3's: it has tested no others.
def read(sql: str, *parameters: object, **options: object) -> pd.DataFrame:
    """Return what a query finds; its parameters are $1 … $n."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy")
        return pd.read_sql(sql, DbApiConnection(connection), params=parameters, **options)


print(read("SELECT status, phase, count(*) AS tasks FROM task_overview GROUP BY status, phase ORDER BY status, phase"))

# %% The tools that take the most time
calls = read(
    "SELECT tool_name, duration_ms, completed_at FROM tool_executions WHERE completed_at >= $1",
    "2026-01-01T00:00:00.000Z",
    parse_dates=["completed_at"],
)
print(calls.groupby("tool_name")["duration_ms"].agg(["count", "median", "max"]).sort_values("median", ascending=False))

# %% Records as a table: times are times, and JSON is what it means
frame = pd.DataFrame(attrs.asdict(task, recurse=False) for task in tasks.iter_all(connection))
if not frame.empty:
    print(frame.set_index("title")[["status", "created_at", "config"]])

# %%
connection.close()
