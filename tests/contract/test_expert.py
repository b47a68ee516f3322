"""A second opinion on the indexes: SQLite's own advisor, and its planner once it knows what the tables hold.

`sqlite3_expert` (sqlite.org/cli.html, ".expert") tries every index that a statement could use on a copy of 100,000
rows. It runs in a process of its own: it carries another SQLite, and two of them on one file lose data.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import apsw.sqlite_extra
import pytest

from dao import tasks, tool_executions, workflows
from tests import plans
from tests.contract.test_plans import READ_IT_ALL, complaints
from tests.plans import LISTED, population

pytestmark = pytest.mark.slow

ROWS = 100_000

# What a listing or a count may look for, apart from its status.
TEXTS = {"task_type": "audit", "workspace_path": "/workspaces/7", "tool_name": "shell"}

# Which statements have an index suggested that is not made, by their filters or their names, and why.
_FEW_ROWS = "the rows of one {} are few: looking at the other columns in all of them costs less than one more index"
_PAIR = (
    "one more index that holds the status makes each change of it, which is what tasks and executions live on, "
    "1.2 to 1.5 times as dear: the walk along one filter's index looks at the other in the row. Slow where many "
    "rows have the first and few of these the second"
)
NOT_MADE = {
    ("tasks", "status", "task_type"): _PAIR,
    ("tasks", "status", "workspace_path"): _FEW_ROWS.format("workspace"),
    ("tasks", "task_type", "workspace_path"): _FEW_ROWS.format("workspace"),
    ("tasks", "status", "task_type", "workspace_path"): _FEW_ROWS.format("workspace"),
    ("tool_executions", "status", "tool_name"): _PAIR,
    ("tool_executions", "status", "task_id"): _FEW_ROWS.format("task"),
    ("tool_executions", "task_id", "tool_name"): _FEW_ROWS.format("task"),
    ("tool_executions", "status", "task_id", "tool_name"): _FEW_ROWS.format("task"),
    ("tasks", "_LIST_CHANGED"): "events say when tasks changed: an index of updated_at would be written by each change",
    ("task_events", "_THROUGHPUT"): "the events of a few minutes are few, and each change of a task writes one",
}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Iterator[tuple[apsw.Connection, Path]]:
    """A connection to a database of 100,000 rows with statistics, and the path of a copy of it."""
    folder = tmp_path_factory.mktemp("expert")
    connection = plans.database(str(folder / "crowded.db"))
    population.fill(connection, ROWS)
    connection.execute("ANALYZE")
    connection.execute("VACUUM INTO ?", (str(folder / "copy.db"),))
    yield connection, folder / "copy.db"
    connection.close()


def askable(sql: str) -> str:
    """Return a statement that the advisor can compile, and that finds the same rows.

    It lacks the clauses that do not compile on the advisor's stand-ins for tables.
    """
    return re.sub(r"\s+(RETURNING|ON\s+CONFLICT)\b.*", "", sql, flags=re.DOTALL).strip()


def advice(database: Path, statements: list[str]) -> str:
    """Return what the advisor says about statements, asked about them together."""
    script = database.with_suffix(".sql")
    script.write_text("".join(f"{askable(sql)};\n" for sql in statements))
    command = [apsw.sqlite_extra.path("sqlite3_expert"), "-file", str(script), str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("-- Query") == len(statements), done.stdout
    return done.stdout


def filters(name: str) -> tuple[str, ...]:
    """Return by which columns a listing or count looks for rows, or nothing for a constant."""
    words = {*re.findall(r"\w+", name)} if "(" in name else set()
    words = {"status" if word == "statuses" else word for word in words}
    return tuple(sorted(words & {"status", "task_type", "workspace_path", "task_id", "tool_name"}))


def has_its_index(connection: apsw.Connection, sql: str) -> set[str]:
    """Return the tables of which a statement, with its triggers, uses a partial index: the advisor knows of none."""
    used = " ".join(plans.plan(connection, sql))
    partial = connection.execute(
        "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'"
    )
    return {table for name, table in partial if f"INDEX {name} " in used}


def test_expert_any_statement_has_nothing_to_suggest_or_the_reason_is_written_down(crowded):
    """No statement would run better with another index, but for those listed above; and these still would."""
    connection, copy = crowded
    suggested = {}
    for module, named in plans.statements().items():
        # Together only what has the same filters: else a statement is shown the indexes that others would like.
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, sql in named.items():
            # the count of all rows by itself: any index will do for it, and another would be a little smaller
            alone = name == "count()" or "(" not in name
            groups.setdefault((module, name) if alone else (module, *filters(name)), []).append(sql)
        for group, statements in groups.items():
            text = advice(copy, statements)
            found = {*re.findall(r"^CREATE INDEX \w+ ON (\w+\(.*\));", text.partition("-- Query")[2], re.MULTILINE)}
            if group[-1] in named:
                has = has_its_index(connection, *statements)
                found = {one for one in found if one.partition("(")[0] not in has}
            if found:
                suggested[group] = sorted(found)
    assert {group: found for group, found in suggested.items() if group not in NOT_MADE} == {}
    assert {*NOT_MADE} - {*suggested} == set(), "no longer suggested: take it out of NOT_MADE"


def test_expert_index_that_is_missing_is_suggested(crowded, tmp_path):
    """The advisor does find an index that a statement lacks."""
    connection, _ = crowded
    copy = tmp_path / "lacking.db"
    connection.execute("VACUUM INTO ?", (str(copy),))
    lacking = apsw.Connection(str(copy))
    lacking.execute("DROP INDEX idx_sessions_last_heartbeat")
    lacking.close()
    stale = plans.constants(plans.MODULES["sessions"])["_LIST_STALE"]
    assert "ON sessions(is_active, last_heartbeat" in advice(copy, [stale])


@pytest.mark.parametrize("module", [tasks, workflows, tool_executions], ids=lambda module: module.__name__)
def test_plans_with_statistics_no_listing_scans_or_sorts(crowded, module):
    """What ANALYZE tells the planner may make it choose another index, never a walk of the table or a sort."""
    connection, _ = crowded
    ((task_id,),) = connection.execute(
        "SELECT task_id FROM tool_executions WHERE task_id IS NOT NULL GROUP BY task_id ORDER BY count(*) DESC LIMIT 1"
    ).fetchall()
    calls = [*plans.asked(connection, module, range(len(LISTED[module]) + 1), TEXTS | {"task_id": task_id})]
    assert any("after" in call for call, _, _ in calls)
    for call, sql, bindings in calls:
        lines = [line.strip() for line in plans.plan(connection, sql, bindings)]
        # without any filter it adds up how many rows the pages of an index have, which SQLite calls a scan
        assert complaints(lines) == (lines if call == "count()" else []), (call, bindings)
    for name, sql in plans.constants(module).items():
        lines = [line.strip() for line in plans.plan(connection, sql)]
        excused = READ_IT_ALL.get(f"{module.__name__.removeprefix('dao.')}.{name}", "nothing")
        assert [line for line in complaints(lines) if not re.fullmatch(excused, line)] == [], name
