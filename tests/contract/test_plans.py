"""The plan of every statement is the one stored in `tests/plans`.

An index finds the rows, and no listing sorts.
"""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import dao
from dao import configurations, sessions, tasks, tool_executions, workflow_tasks, workflows
from dao.rows import TASKS
from dao.testing import make_task, make_tool_execution
from tests import plans
from tests.plans import LISTED, MODULES, parameters

# Each statement that may read more than its result needs: the only lines of its plan that may say so, and why.
READ_IT_ALL = {
    # returns every row of a small table, in the order of its key
    "configurations._GET_ALL": r"SCAN configurations",
    # go through a covering index, which is smaller than the table
    "tasks._COUNT_BY_STATUS": r"SCAN tasks USING COVERING INDEX idx_tasks_status",
    "workflows._COUNT_BY_STATUS": r"SCAN workflows USING COVERING INDEX idx_workflows_status",
    # follows what a task waits for, as far as that goes, to find a circle
    "tasks._DEPEND": r"SCAN upstream",
    "task_dependencies._ADD": r"SCAN upstream",
    "task_dependencies._ADD_ALL": r"SCAN (upstream|json_each VIRTUAL TABLE INDEX 1:)",
    # reads no table
    "task_events._SETTLED": r"SCAN CONSTANT ROW",
    # goes through the ids that it is given
    "task_dependencies._LOCK_ALL": r"SCAN wanted VIRTUAL TABLE INDEX 1:",
    "tasks._LOCK_ALL": r"SCAN wanted VIRTUAL TABLE INDEX 1:",
    "tasks._PRUNE": r"SCAN json_each VIRTUAL TABLE INDEX 1:",
    **dict.fromkeys((f"{name}._GET_MANY" for name in MODULES), r"SCAN json_each VIRTUAL TABLE INDEX 1:"),
    # goes through all that is not done with, found by an index, and counts it by type
    "tasks._QUEUES": r"USE TEMP B-TREE FOR GROUP BY",
    # reads every call of the period, found by an index, and sorts these for the percentiles
    "tool_executions._STATISTICS": (
        r"SCAN (calls|\(subquery-\d+\))|USE TEMP B-TREE FOR ((LAST 2 TERMS OF )?ORDER|GROUP) BY"
    ),
}

# Each index that no plan needs, and why it is there all the same.
KEPT: dict[str, str] = {}

# The only functions that make SQL: what they make is in the stored plans as `find(…)` and `count(…)`, and as constants.
BUILDERS = {"listing._page_sql", "listing._count_sql", "claims._claiming"}
# The functions that make a statement of the texts that they are given.
WORDING = {"PerEngine", "limited", "locking", "returning"}


def statements() -> dict[str, str]:
    """Return every constant of the table modules that holds SQL, by name."""
    return {
        f"{name}.{constant}": sql
        for name, module in MODULES.items()
        for constant, sql in plans.constants(module).items()
    }


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    """Return the lines of a statement's plan, its triggers' and foreign keys' included, without the nesting."""
    return [line.strip() for line in plans.plan(connection, sql)]


def complaints(lines: list[str]) -> list[str]:
    """Return what in a plan walks a whole table or sorts."""
    return [line for line in lines if "TEMP B-TREE" in line or line.startswith("SCAN") or "AUTOMATIC" in line]


# ---------------------------------------------------------------- stored plans


@pytest.fixture(scope="module")
def every() -> dict[str, dict[str, str]]:
    """All statements, by module and name."""
    return plans.statements()


@pytest.fixture(scope="module")
def today(every) -> dict[str, plans.Plans]:
    """The plans of all statements as they are now."""
    connection = plans.database()
    found = plans.collect(connection, every)
    connection.close()
    return found


def stored(name: str) -> plans.Plans:
    """Return the accepted plans of a module."""
    return plans.parse((plans.FOLDER / f"{name}.txt").read_text())


@pytest.mark.parametrize("name", MODULES)
def test_plans_each_statement_is_as_stored(today, name):
    """Every statement of a module, and how SQLite runs it, is what a person has looked at and accepted."""
    path = plans.FOLDER / f"{name}.txt"
    assert path.exists(), f"no plans of dao.{name} are stored; `{plans.COMMAND}` writes {path}"
    found = plans.differences(stored(name), today[name])
    if found:
        pytest.fail(
            f"dao.{name} and sql/sqlite no longer give what tests/plans/{name}.txt says (-: stored, +: now):\n\n"
            + "\n".join(found)
            + f"\n\nIf that is meant, `{plans.COMMAND}` accepts it; look at the diff before you commit it.",
            pytrace=False,
        )


def test_plans_each_file_belongs_to_a_module():
    """No file of plans outlives its module."""
    assert {path.stem for path in plans.FOLDER.glob("*.txt")} == {*MODULES}


def test_differences_statement_without_a_stored_plan_is_named(today):
    """A statement that is new, gone or worded otherwise is a difference."""
    now = today["tasks"]
    rest = attrs.evolve(now, entries={name: entry for name, entry in now.entries.items() if name != "_GET"})
    assert plans.differences(now, now) == []
    assert plans.differences(rest, now) == ["_GET: new, and its plan is not stored"]
    assert plans.differences(now, rest) == ["_GET: stored, but no longer there"]
    other = attrs.evolve(now.entries["_GET"], sql=["SELECT 1"])
    assert plans.differences(now, attrs.evolve(now, entries=now.entries | {"_GET": other})) == [
        "_GET: the statement, or its layout, is another",
        "    - SELECT [columns] FROM tasks WHERE id = $1",
        "    + SELECT 1",
    ]


@pytest.mark.parametrize(
    ("now", "same_version", "other_version"),
    [
        ("SEARCH t USING INDEX i (a=?)", True, True),
        ("SEARCH t USING COVERING INDEX i (a=? AND b>?)", False, True),
        ("SEARCH t USING INDEX j (a=?)", False, False),
        ("SCAN t USING INDEX i", False, False),
        ("SCAN t", False, False),
        ("SEARCH t USING AUTOMATIC COVERING INDEX (a=?)", False, False),
        ("SEARCH t USING PRIMARY KEY (a=?)", False, False),
    ],
)
def test_differences_plan_is_compared_by_its_essence_across_versions(now, same_version, other_version):
    """The same SQLite must use the same words; another one the same tables, indexes and sorts."""
    was = plans.Plans("1", {"a": plans.Entry([], ["SEARCH t USING INDEX i (a=?)"])})
    entries = {"a": plans.Entry([], [now])}
    assert (plans.differences(was, plans.Plans("1", entries)) == []) is same_version
    assert (plans.differences(was, plans.Plans("2", entries)) == []) is other_version
    sorting = {"a": plans.Entry([], [now, "USE TEMP B-TREE FOR ORDER BY"])}
    assert plans.differences(was, plans.Plans("2", sorting))


def test_parse_rendered_text_is_what_was_rendered(today):
    """A file of plans holds all that was collected."""
    for name, found in today.items():
        assert plans.parse(plans.render(name, found)) == found


def indexes() -> dict[str, str]:
    """Return the kind of every index, by name: c made by CREATE INDEX, pk and u by a constraint."""
    connection = plans.database()
    found = connection.execute(
        """
        SELECT list.name, list.origin
        FROM   sqlite_schema AS tables, pragma_index_list(tables.name) AS list
        WHERE  tables.type = 'table'
        """
    ).fetchall()
    connection.close()
    return dict(found)


def test_indexes_each_is_needed_by_a_plan_or_has_its_reason(every, today):
    """Without any one of the indexes a stored plan is another, in any version of SQLite, so that the suite fails."""
    needless = set()
    kinds = indexes()
    assert list(kinds.values()).count("c") >= 13
    for index in (name for name, origin in kinds.items() if origin == "c"):
        connection = plans.database(without=index)
        without = plans.collect(connection, every)
        connection.close()
        by_name = [plans.differences(today[name], without[name]) for name in MODULES]
        by_essence = [
            plans.differences(attrs.evolve(today[name], version="another"), without[name]) for name in MODULES
        ]
        if not any(by_name) or not any(by_essence):
            needless.add(index)
    assert needless == {*KEPT}
    # The others are what a PRIMARY KEY is made of.
    assert {origin for origin in kinds.values() if origin != "c"} == {"pk"}


# ---------------------------------------------------------------- constants


def test_statements_cover_each_module():
    """The constants are found: each module has its own, and their names are constants' names."""
    assert {name.partition(".")[0] for name in statements()} == {*MODULES}
    assert len(statements()) >= 45
    assert all(re.fullmatch(r"\w+\._[A-Z][A-Z_]*", name) for name in statements())
    assert {*READ_IT_ALL} <= {*statements()}


def sql_outside_of_constants(path: Path) -> list[str]:
    """Return where a module writes SQL other than as a constant of its own: the function, or the line."""
    found = []
    for node in ast.parse(path.read_text()).body:
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "changing":
            value = value.args[0]
        if isinstance(value, ast.Constant | ast.JoinedStr):
            continue
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in WORDING:
            continue
        for inner in ast.walk(node):
            text = inner.values[0] if isinstance(inner, ast.JoinedStr) and inner.values else inner
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and plans.SQL.match(text.value):
                found.append(getattr(node, "name", str(inner.lineno)))
    return [f"{path.stem}.{where}" for where in found]


def test_statements_no_module_runs_sql_that_is_not_listed():
    """All SQL of the table modules is in constants, or made by the two functions for listings.

    The plans of the constants are stored.
    """
    modules = [part for module in (*MODULES.values(), dao.listing) for part in plans.parts(module)]
    outside = {where for part in modules for where in sql_outside_of_constants(Path(part.__file__))}
    assert outside == BUILDERS
    # so a constant of these two would not be listed
    assert not [name for name in ("listing",) if plans.constants(getattr(dao, name))]


def test_statement_any_constant_finds_its_rows_by_an_index(connection):
    """No constant walks a table that grows, nor sorts, except those whose reason is given above."""
    for name, sql in statements().items():
        lines = plan(connection, sql)
        excused = [line for line in lines if re.fullmatch(READ_IT_ALL.get(name, "nothing"), line)]
        assert bool(excused) is (name in READ_IT_ALL), name
        assert [line for line in complaints(lines) if line not in excused] == [], name
        searches = [line for line in lines if line.startswith("SEARCH")]
        assert all(re.search(r"USING (COVERING )?INDEX|USING (INTEGER )?PRIMARY KEY", line) for line in searches), name
        assert searches or excused or sql.split()[0] == "INSERT", name


def test_plan_statement_with_a_trigger_shows_what_the_trigger_does(connection):
    """SQLite leaves triggers out of a plan unless it is asked to show them."""
    lines = plan(connection, TASKS.update.returning_key)
    assert lines[0] == lines[lines.index("TRIGGER tasks_updated_at") + 1]
    assert "TRIGGER tasks_dependencies_deleted" in plan(connection, tasks.table._DELETE)


# ---------------------------------------------------------------- listings and counts


def shapes(module: Any) -> list[tuple[str, str]]:
    """Return every way to call `find` and `count`, from none to all of the statuses, each with its statement."""
    connection = plans.populated()
    found = [(call, sql) for call, sql, _ in plans.asked(connection, module, range(len(LISTED[module]) + 1))]
    connection.close()
    return found


def number_of_statuses(call: str) -> int:
    """Return for how many statuses a call asks."""
    match = re.search(r"(\d+) statuses", call)
    return int(match[1]) if match else "status" in call


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_find_every_shape_seeks_in_an_index_and_never_sorts(connection, module):
    """Whatever the filters, a page begins where its cursor says and comes in order out of an index."""
    calls = [(call, sql) for call, sql in shapes(module) if call.startswith("find")]
    assert len({sql for _, sql in calls}) > 30
    for call, sql in calls:
        words = {*re.findall(r"\w+", call)} - {"find", "statuses", "oldest_first", *"2345"}
        lines = plan(connection, sql)
        assert complaints(lines) == [], call
        searches = [line for line in lines if line.startswith("SEARCH")]
        assert len(searches) == max(1, number_of_statuses(call)), call
        assert len({*searches}) == 1, call  # each status is walked in the same way
        for line in searches:
            # the cursor is a place in the index, not a filter
            assert ("(created_at,id)" in line) >= ("after" in call), call
            texts = words - {"after", "since", "until"}
            assert not (texts or "statuses" in call) or re.search(r"\(\w+=\?( AND|\))", line), call
        assert parameters(sql) == list(range(1, len(parameters(sql)) + 1))


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_find_more_than_two_statuses_are_walked_as_two_are(connection, module):
    """The stored plans stop at two statuses: with more, each is one more walk of the same kind along the same index."""
    walks: dict[str, set[str]] = {}
    for call, sql in shapes(module):
        if number_of_statuses(call) > 1:
            rest = re.sub(r"\d+ statuses", "statuses", call)
            walks.setdefault(rest, set()).update(line for line in plan(connection, sql) if line.startswith("SEARCH"))
    assert walks
    assert {len(lines) for lines in walks.values()} == {1}


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_count_every_shape_reads_a_range_of_an_index(connection, module):
    """Whatever the filters, counting goes through a range of an index; with no text filter, of a covering one.

    Without any filter it adds up how many rows the pages of an index have, which SQLite calls a scan.
    """
    calls = [(call, sql) for call, sql in shapes(module) if call.startswith("count")]
    assert calls
    for call, sql in calls:
        lines = plan(connection, sql)
        (line,) = lines
        assert complaints(lines) == [line] * (call == "count()"), call
        words = {*re.findall(r"[a-z_]+", call)} - {"count", "since", "until"}
        assert not words or re.search(r"\(\w+=\?( AND|\))", line), call
        assert words - {"status", "statuses"} or "COVERING INDEX" in line, call
        assert parameters(sql) == list(range(1, len(parameters(sql)) + 1))


def test_list_errors_merges_two_walks(connection):
    """The failures and the timeouts of a tool come in order out of one index."""
    lines = plan(connection, plans.ran(connection, tool_executions.list_errors, tool_name="x")[0])
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


ROWS = 2_000


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
    (claimed,) = tasks.claim(crowd, worker="w", lease=timedelta(1))
    for function, arguments, keywords in (
        (tasks.update, [attrs.evolve(task, title="b")], {}),
        (tasks.set_status, ["task 7", "running"], {}),
        (tasks.enqueue, [make_task()], {"dedup_key": "a", "depends_on": ["task 7", "task 8"]}),
        (tasks.claim, [], {"worker": "w", "lease": timedelta(1)}),
        (tasks.claim, [], {"worker": "w", "lease": timedelta(1), "task_type": "agent"}),
        (tasks.renew, [claimed], {"lease": timedelta(1)}),
        (tasks.release, [claimed], {}),
        (tasks.cancel, ["task 9"], {}),
        (tasks.retry, ["task 9"], {}),
        (tasks.rescue, [], {"now": datetime(3000, 1, 1, tzinfo=UTC), "limit": 1}),
        (tasks.prune, [], {"before": datetime(3000, 1, 1, tzinfo=UTC), "limit": 1}),
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


def test_prune_of_a_status_passes_none_of_the_others_by(connection):
    """It walks along the index of its own status: it went through all older tasks that had ended otherwise."""
    long_ago = datetime(2025, 1, 15, tzinfo=UTC)
    taken = []
    for others in (0, 1_000):
        ended = [make_task(status="completed", created_at=long_ago, completed_at=long_ago) for _ in range(others)]
        tasks.create_many(connection, ended)
        tasks.create(connection, make_task(status="failed", created_at=long_ago, completed_at=long_ago + timedelta(1)))
        taken.append(steps(connection, tasks.prune, before=datetime.now(UTC), status="failed"))
    assert taken[1] < taken[0] * 1.1


def test_delete_before_of_calls_without_task_passes_those_of_tasks_by(connection):
    """They have an index of their own: all older calls of tasks were looked at."""
    long_ago = datetime(2025, 1, 15, tzinfo=UTC)
    tasks.create(connection, make_task(id="t"))
    taken = []
    for others in (0, 1_000):
        for _ in range(others):
            tool_executions.record(connection, make_tool_execution(task_id="t", created_at=long_ago))
        tool_executions.record(connection, make_tool_execution(created_at=long_ago + timedelta(1)))
        before = {"moment": long_ago + timedelta(2), "without_task": True}
        assert tool_executions.count_before(connection, **before) == 1
        taken.append(steps(connection, tool_executions.delete_before, **before))
    assert taken[1] < taken[0] * 1.1


@pytest.mark.parametrize("options", [{}, {"task_type": "agent"}], ids=str)
def test_claim_passes_nothing_by_that_is_scheduled_ahead(connection, options):
    """It seeks in the index for each priority: what is scheduled ahead costs it nothing, however much that is.

    A walk along the index went through all of it, which took 400 times as long with 100,000 tasks ahead.
    """
    taken = []
    for ahead in (0, 3_000):
        tomorrow = datetime.now(UTC) + timedelta(1)
        tasks.create_many(connection, [make_task(priority=number % 10, run_at=tomorrow) for number in range(ahead)])
        tasks.create(connection, make_task(task_type="agent"))
        taken.append(steps(connection, tasks.claim, worker="w", lease=timedelta(1), **options))
    assert tasks.count(connection, status="running") == 2
    assert taken[1] < 1.2 * taken[0]


# ---------------------------------------------------------------- parameters


def test_statement_parameters_first_appear_in_ascending_order():
    """`$1 … $n` are numbered by first appearance: SQLite binds them by position, PostgreSQL by number."""
    for name, sql in statements().items():
        numbers = parameters(sql)
        assert numbers == list(range(1, len(numbers) + 1)), name


def test_statement_parameters_are_bound_by_position(connection):
    """SQLite numbers `$name` parameters by first appearance, whatever the digits: hence the rule above."""
    assert connection.execute("SELECT $2, $1, $2", ("first", "second")).get == ("first", "second", "first")
