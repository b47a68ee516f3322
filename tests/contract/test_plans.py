"""The plan of every statement: an index finds the rows, and no listing sorts."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import apsw
import attrs
import pytest

import dao
from dao import configurations, sessions, tasks, tool_executions, workflow_tasks, workflows

MODULES = (configurations, sessions, tasks, tool_executions, workflow_tasks, workflows)

# Each statement that may read more than its result needs: the only lines of its plan that may say so, and why.
READ_IT_ALL = {
    # returns every row of a small table, in the order of its key
    "configurations._GET_ALL": r"SCAN configurations",
    # go through a covering index, which is smaller than the table
    "tasks._COUNT_BY_STATUS": r"SCAN tasks USING COVERING INDEX idx_tasks_status",
    "workflows._COUNT_BY_STATUS": r"SCAN workflows USING COVERING INDEX idx_workflows_status",
    # reads every call of the period, found by an index, and sorts these for the percentiles
    "tool_executions._STATISTICS": r"SCAN (calls|\(subquery-\d+\))|USE TEMP B-TREE FOR (ORDER|GROUP) BY",
}


def statements() -> dict[str, str]:
    """Return every constant of the table modules that holds SQL, by name."""
    return {
        f"{module.__name__.removeprefix('dao.')}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if re.fullmatch(r"_[A-Z][A-Z_]*", name) and isinstance(value, str)
    }


def parameters(sql: str) -> list[int]:
    """Return the numbers of a statement's parameters in order of first appearance."""
    return list(dict.fromkeys(int(number) for number in re.findall(r"\$(\d+)", sql)))


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    """Return the lines of a statement's plan, its triggers' and foreign keys' included."""
    rows = connection.execute("EXPLAIN QUERY PLAN " + sql, (None,) * len(parameters(sql))).fetchall()
    return [row[3] for row in rows]


def complaints(lines: list[str]) -> list[str]:
    """Return what in a plan walks a whole table or sorts."""
    return [line for line in lines if "TEMP B-TREE" in line or line.startswith("SCAN") or "AUTOMATIC" in line]


# ---------------------------------------------------------------- constants


def test_statements_cover_each_module():
    """The constants are found: each module has its own, and they are SQL."""
    assert {name.partition(".")[0] for name in statements()} == {module.__name__[4:] for module in MODULES}
    assert len(statements()) >= 45
    for sql in statements().values():
        assert sql.split()[0] in {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert {*READ_IT_ALL} <= {*statements()}


@pytest.mark.parametrize("name", statements())
def test_statement_any_constant_finds_its_rows_by_an_index(connection, name):
    """No constant walks a table that grows, nor sorts, except those whose reason is given above."""
    lines = plan(connection, statements()[name])
    excused = [line for line in lines if re.fullmatch(READ_IT_ALL.get(name, "nothing"), line)]
    assert bool(excused) is (name in READ_IT_ALL)
    assert [line for line in complaints(lines) if line not in excused] == []
    searches = [line for line in lines if line.startswith("SEARCH")]
    assert all(re.search(r"USING (COVERING )?INDEX|USING PRIMARY KEY", line) for line in searches)
    assert searches or excused or statements()[name].split()[0] == "INSERT"


# ---------------------------------------------------------------- listings and counts

LISTED = {tasks: dao.TaskStatus, workflows: dao.WorkflowStatus, tool_executions: dao.ToolStatus}


def shapes(module: Any) -> Iterator[dict[str, Any]]:
    """Yield every combination of a listing's filters: each absent or there, and from none to all of the statuses."""
    known = {"connection", "status", "since", "until", "oldest_first", "limit", "after"}
    filters = [name for name in inspect.signature(module.find).parameters if name not in known]
    for present in itertools.product([None, "x"], repeat=len(filters)):
        for number in range(len(LISTED[module]) + 1):
            yield dict(zip(filters, present, strict=True)) | {"status": list(LISTED[module])[:number] or None}


def produced(connection: apsw.Connection, function: Any, **arguments: Any) -> str:
    """Return the one statement that a call runs."""
    seen: list[str] = []

    def trace(_cursor: object, sql: str, _bindings: object) -> bool:
        seen.append(sql)
        return True

    connection.exec_trace = trace
    try:
        function(connection, **arguments)
    finally:
        connection.exec_trace = None
    (sql,) = seen
    return sql


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_find_every_shape_seeks_in_an_index_and_never_sorts(connection, module):
    """Whatever the filters, a page begins where its cursor says and comes in order out of an index."""
    for filters in shapes(module):
        for oldest_first in (False, True):
            sql = produced(connection, module.find, **filters, oldest_first=oldest_first)
            lines = plan(connection, sql)
            assert complaints(lines) == [], sql
            searches = [line for line in lines if line.startswith("SEARCH")]
            assert len(searches) == max(1, len(filters["status"] or ()))
            for line in searches:
                assert "(created_at,id)" in line, sql  # the cursor is a place in the index, not a filter
                assert not any(filters.values()) or re.search(r"\(\w+=\? AND", line), sql
            assert parameters(sql) == list(range(1, len(parameters(sql)) + 1))


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_count_every_shape_reads_a_range_of_an_index(connection, module):
    """Whatever the filters, counting goes through a range of an index; with no text filter, of a covering one."""
    for filters in shapes(module):
        sql = produced(connection, module.count, **filters)
        lines = plan(connection, sql)
        assert complaints(lines) == [], sql
        (line,) = lines
        assert re.search(r"created_at>\? AND created_at<\?", line), sql
        assert not any(filters.values()) or re.search(r"\(\w+=\? AND", line), sql
        texts = [name for name, value in filters.items() if value and name != "status"]
        assert texts or "COVERING INDEX" in line, sql
        assert parameters(sql) == list(range(1, len(parameters(sql)) + 1))


def test_recent_errors_merges_two_walks(connection):
    """The failures and the timeouts of a tool come in order out of one index."""
    lines = plan(connection, produced(connection, tool_executions.recent_errors, tool_name="x"))
    assert complaints(lines) == []
    assert "MERGE (UNION ALL)" in lines


# ---------------------------------------------------------------- foreign keys


@pytest.mark.parametrize(
    ("table", "column", "index"),
    [
        ("tool_executions", "task_id", "idx_tool_executions_task_id"),
        ("workflow_tasks", "task_id", "idx_workflow_tasks_task_id"),
        ("workflow_tasks", "workflow_id", "PRIMARY KEY|idx_workflow_tasks_sequence"),
    ],
)
def test_foreign_key_child_lookup_uses_its_index(connection, table, column, index):
    """The lookup that SQLite runs for a deleted parent has its index: sqlite.org/foreignkeys.html, section 3."""
    (line,) = plan(connection, f"SELECT 1 FROM {table} WHERE {column} = $1")
    assert re.match(rf"SEARCH {table} USING .*({index})", line)


ROWS = 500


@pytest.fixture
def crowd(connection) -> apsw.Connection:
    """A connection to a database with so many rows in each table that a walk over one shows."""
    numbers = range(ROWS)
    with dao.transaction(connection):
        tasks.create_many(connection, [dao.Task(id=f"task {n}", title="a", task_type="agent") for n in numbers])
        workflows.create_many(connection, [dao.Workflow(id=f"workflow {n}", name="a") for n in numbers])
        for n in numbers:
            workflow_tasks.add(connection, workflow_id=f"workflow {n}", task_id=f"task {n}")
            tool_executions.record(connection, dao.ToolExecution(tool_name="grep", input={}, task_id=f"task {n}"))
            sessions.open(connection, client_id=f"cli {n}")
        configurations.set_many(connection, {f"key {n}": n for n in numbers})
    return connection


def steps(connection: apsw.Connection, function: Any, *arguments: Any, **keywords: Any) -> int:
    """Return how many steps SQLite took for a call, its triggers and foreign keys included."""
    taken = 0

    def profile(event: dict[str, Any]) -> None:
        nonlocal taken
        taken += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, profile)
    try:
        function(connection, *arguments, **keywords)
    finally:
        connection.trace_v2(0, None)
    return taken


@pytest.mark.parametrize(
    ("delete", "id", "index"),
    [
        (tasks.delete, "task", "idx_tool_executions_task_id"),
        (tasks.delete, "task", "idx_workflow_tasks_task_id"),
        (workflows.delete, "workflow", None),
    ],
    ids=["a task's tool executions", "a task's workflows", "a workflow's tasks"],
)
def test_delete_parent_finds_its_children_without_a_walk(crowd, delete, id, index):
    """Deleting a parent takes less than a step for each row of its children's table; without the index it does not."""
    assert 0 < steps(crowd, delete, f"{id} 7") < ROWS
    if index is not None:
        crowd.execute(f"DROP INDEX {index}")
        assert steps(crowd, delete, f"{id} 8") > 2 * ROWS


def test_write_any_row_walks_no_table(crowd):
    """Changing one row among hundreds takes less than a step for each of them, in its trigger too."""
    task, workflow = tasks.get_one(crowd, "task 7"), workflows.get_one(crowd, "workflow 7")
    call = tool_executions.find(crowd, task_id="task 7").items[0]
    session = sessions.list_active(crowd, client_id="cli 7")[0]
    link = {"workflow_id": "workflow 7", "task_id": "task 8"}
    for function, arguments, keywords in (
        (tasks.update, [attrs.evolve(task, title="b")], {}),
        (tasks.set_status, ["task 7", "running"], {}),
        (workflows.update, [attrs.evolve(workflow, name="b")], {}),
        (workflows.set_status, ["workflow 7", "active"], {}),
        (workflow_tasks.add, [], {**link, "sequence": 0}),
        (workflow_tasks.move, [], {**link, "sequence": 1}),
        (workflow_tasks.reorder, ["workflow 7", ["task 8", "task 7"]], {}),
        (workflow_tasks.remove, [], link),
        (tool_executions.finish, [call], {}),
        (sessions.heartbeat, [session.id], {}),
        (sessions.close, [session.id], {}),
        (configurations.set, ["key 7", 1], {}),
    ):
        assert 0 < steps(crowd, function, *arguments, **keywords) < ROWS, function
    assert steps(crowd, configurations.get_all) > 2 * ROWS  # a walk does show


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("name", statements())
def test_statement_parameters_first_appear_in_ascending_order(name):
    """`$1 … $n` are numbered by first appearance: SQLite binds them by position, PostgreSQL by number."""
    numbers = parameters(statements()[name])
    assert numbers == list(range(1, len(numbers) + 1))


def test_statement_parameters_are_bound_by_position(connection):
    """SQLite numbers `$name` parameters by first appearance, whatever the digits: hence the rule above."""
    assert connection.execute("SELECT $2, $1, $2", ("first", "second")).get == ("first", "second", "first")
