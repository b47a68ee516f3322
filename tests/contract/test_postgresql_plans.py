"""How PostgreSQL runs each statement among 100,000 rows, whatever is bound: by an index, and in its order.

A generic plan is one for values that are not known: a prepared statement gets it after some executions. PostgreSQL
plans by what it has counted, where SQLite plans by the SQL alone: so the plans are not stored, but held to rules. It
may read a small table as a whole, and sort a few rows; what it may not is in the names of the tests.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg
import pytest

import dao
from dao import rows
from dao import url as urls
from dao.engine import fetch
from tests import plans
from tests.contract.test_plans import number_of_statuses
from tests.plans import LISTED, MODULES, population

ROWS = 100_000
#: The tables that grow: among so many rows, each has more than a page of the disk holds by hundreds.
BIG = {"tasks", "workflow_tasks", "tool_executions", "sessions"}
#: A page of `find`, by default, and the row that shows whether there is another.
PAGE = 51
#: About when the first row was made; they follow at a second each.
BEGINNING = datetime(2025, 1, 15, tzinfo=UTC)
#: The statements that read a whole table, or all of a period and sort it, and why.
READ_IT_ALL = {
    "tasks._COUNT_BY_STATUS": "counts all rows",
    "tasks._QUEUES": "counts all that is not done with by type, which is a quarter of the rows here",
    "tool_executions._STATISTICS": "sorts the calls of a period for the percentiles",
}


@attrs.frozen
class Node:
    """A step of a plan: the table that it reads, if any, and how many rows are expected of it."""

    kind: str
    table: str | None
    index: str | None
    rows: int
    below: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """Yield this step and all below it."""
        yield self
        for node in self.below:
            yield from node.walk()


def node(found: dict[str, Any]) -> Node:
    """Return the step that EXPLAIN shows as this object."""
    return Node(
        found["Node Type"],
        found.get("Relation Name"),
        found.get("Index Name"),
        found["Plan Rows"],
        tuple(map(node, found.get("Plans", ()))),
    )


@pytest.fixture(scope="module")
def crowd(shared, server) -> Iterator[str]:
    """The name of a database of so many rows, of which PostgreSQL has its figures: to be copied."""
    url = server.create(shared.template)
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        # as long as a commit is not in the log, VACUUM does not see that all may see its rows
        connection.execute("SET synchronous_commit = on")
        for table, share in population.SHARES.items():
            rows = population.made(table, range(ROWS * share // 1000), tasks=ROWS * population.SHARES["tasks"] // 1000)
            first = next(rows)
            with cursor.copy(f"COPY {table} ({', '.join(first)}) FROM STDIN") as copy:
                copy.write_row(tuple(first.values()))
                for row in rows:
                    copy.write_row(tuple(row.values()))
        connection.execute("VACUUM ANALYZE")
    yield urls.parse_server(url).parameters["dbname"]
    server.drop(url)


@contextlib.contextmanager
def copied(server, crowd) -> Iterator[Any]:
    """Yield a connection to a copy of the database, and drop it."""
    url = server.create(crowd)
    with contextlib.closing(dao.connect(url)) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        yield connection
    server.drop(url)


@pytest.fixture(scope="module")
def crowded(server, crowd) -> Iterator[Any]:
    """A connection to a copy that is only read: the plans are by the same figures, in whatever order the tests run."""
    with copied(server, crowd) as connection:
        connection.execute("SET default_transaction_read_only = on")
        yield connection


@pytest.fixture(scope="module")
def changed(server, crowd) -> Iterator[Any]:
    """A connection to a copy that is written to: what is undone stays in its files, and counts where plans are made."""
    with copied(server, crowd) as connection:
        yield connection


@pytest.fixture(scope="module")
def named(shared, server) -> dict[str, str]:
    """Every statement of the table modules, as it is for PostgreSQL, by module and name."""
    url = server.create(shared.template)
    with contextlib.closing(dao.connect(url)) as connection:
        plans.populate(connection)
        found = plans.statements("postgresql", connection)
    server.drop(url)
    return {f"{module}.{name}": sql for module, by_name in found.items() for name, sql in by_name.items()}


def plan(connection, sql) -> Node:
    """Return the generic plan of a statement."""
    ((found,),) = fetch(connection, f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql}")
    return node(found[0]["Plan"])


def test_statement_of_any_module_reads_no_big_table_as_a_whole(crowded, named):
    """Each finds its rows by an index; only counts of all or by two columns may read all, where that is less work.

    Which is less work for those that read every row is the planner's choice, by pages that it has drawn at random.
    """
    assert {*READ_IT_ALL} <= {*named}
    whole = set()
    for name, sql in named.items():
        steps = [*plan(crowded, sql).walk()]
        if any(step.kind == "Seq Scan" and step.table in BIG for step in steps):
            whole.add(name)
        assert (
            any(step.index for step in steps)
            or sql.startswith("INSERT")
            or name.startswith(("configurations.", "task_dependencies.", "workflows."))  # which are small here
            or name in whole
        ), name
    assert {name for name in whole if ".count(" not in name} <= {*("tasks._COUNT_BY_STATUS", "tasks._QUEUES")}
    assert {name for name in whole if ".count(" in name and "," not in name} <= {f"{name}.count()" for name in MODULES}


@pytest.mark.parametrize("condition", ["TRUE", "status = 'failed'"])
def test_list_of_the_overview_walks_an_index(crowded, condition):
    """A clock that PostgreSQL calls volatile kept it from looking into the view: it read all tasks, and sorted them."""
    steps = [
        *plan(
            crowded,
            f"SELECT id, phase, age_seconds, title FROM task_overview WHERE {condition} "
            f"ORDER BY created_at DESC, id DESC LIMIT {PAGE}",
        ).walk()
    ]
    assert [step.kind for step in steps if step.kind in {"Seq Scan", "Sort", "Incremental Sort"}] == []
    assert {step.index for step in steps if step.index} <= {"idx_tasks_created_at", "idx_tasks_status"}


def test_page_of_any_filters_sorts_no_more_than_pages(crowded, named):
    """A page comes in order out of an index; what is less than a page may be sorted, and pages of several."""
    pages = {name: sql for name, sql in named.items() if ".find(" in name}
    assert len(pages) > 200
    for name, sql in pages.items():
        assert all(sorts_a_page(step) for step in plan(crowded, sql).walk()), name


def sorts_a_page(step: Node) -> bool:
    """Return whether a step sorts nothing, or less than a page, or what several limits have let through."""
    if "Sort" not in step.kind:
        return True
    (below,) = step.below
    ended = [below, *below.below] if below.kind == "Append" else [below]
    ended = [part.below[0] if part.kind == "Subquery Scan" else part for part in ended]
    return below.rows <= PAGE or {part.kind for part in ended} <= {"Append", "Limit"}


def test_list_of_no_limit_sorts_nothing_but_its_rows(crowded, named):
    """A list that is returned whole may be sorted at its end; nothing else is, but for the percentiles."""
    for name, sql in named.items():
        if ".find(" in name or name in READ_IT_ALL:
            continue
        root = plan(crowded, sql)
        for step in root.walk():
            assert sorts_a_page(step) or (step is root and "LIMIT" not in sql), name


@pytest.mark.parametrize(
    ("module", "column", "value"),
    [
        (dao.tasks, "task_type", "audit"),
        (dao.tasks, "workspace_path", "/workspaces/7"),
        (dao.tool_executions, "tool_name", "plan"),
        (dao.tool_executions, "tool_name", "no such tool"),
        *((module, "status", status) for module in LISTED for status in LISTED[module]),
    ],
    ids=str,
)
def test_page_of_a_rare_value_reads_no_row_of_another(crowded, module, column, value):
    """A filter leads into its own index: PostgreSQL walked all rows by time, past those of all other values."""
    for oldest_first in (False, True):
        for bounds in ({}, {"since": BEGINNING}, {"until": BEGINNING + timedelta(days=1)}):
            arguments = {column: value, "oldest_first": oldest_first, **bounds}
            sql, parameters = plans.ran(crowded, module.find, **arguments)
            (scan,) = (step for step in walk(explained(crowded, sql, parameters)) if "Scan" in step["Node Type"])
            assert scan["Index Name"] == f"idx_{module.__name__.removeprefix('dao.')}_{column}"
            assert scan["Actual Rows"] <= PAGE
            assert scan.get("Rows Removed by Filter", 0) == 0


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_page_of_several_statuses_reads_no_more_than_a_page_of_each(crowded, module):
    """Each status is walked along its index as far as the page needs, however many rows there are."""
    for statuses in range(2, len(LISTED[module]) + 1):
        wanted = list(LISTED[module])[:statuses]
        for oldest_first in (False, True):
            sql, parameters = plans.ran(crowded, module.find, status=wanted, oldest_first=oldest_first)
            scans = [step for step in walk(explained(crowded, sql, parameters)) if "Scan" in step["Node Type"]]
            assert {step["Index Name"] for step in scans} == {f"idx_{module.__name__.removeprefix('dao.')}_status"}
            assert len(scans) == statuses
            assert all(step["Actual Rows"] <= PAGE for step in scans)


def test_page_deep_down_reads_no_more_than_the_first(crowded):
    """A cursor is a place in the index: what comes before it is not read."""
    deep = None
    for _ in range(40):
        deep = dao.tasks.find(crowded, limit=200, after=deep).next
    for arguments in ({}, {"after": deep}):
        sql, parameters = plans.ran(crowded, dao.tasks.find, **arguments)
        (scan,) = (step for step in walk(explained(crowded, sql, parameters)) if "Scan" in step["Node Type"])
        assert scan["Index Name"] == "idx_tasks_created_at"
        assert scan["Actual Rows"] == PAGE
        assert scan.get("Rows Removed by Filter", 0) == 0


def test_change_of_a_batch_reads_no_more_than_the_batch(changed, named):
    """Rows that are closed or deleted in batches are found by their ids, also if the planner does not know how many."""
    moment = "9999-01-01T00:00:00.000Z"
    for name in ("sessions._CLOSE_STALE", "sessions._DELETE_STALE", "tool_executions._DELETE_BEFORE"):
        with contextlib.suppress(ZeroDivisionError), dao.transaction(changed):
            ran = explained(changed, named[name], (moment, 10))
            scans = [step for step in walk(ran) if "Scan" in step["Node Type"]]
            assert sum(step["Actual Rows"] * step["Actual Loops"] for step in scans) <= 20, name
            raise ZeroDivisionError  # undone


def test_delete_of_a_parent_finds_its_children_by_an_index(crowded):
    """The foreign keys' own statements read no big table as a whole, whoever the parent is."""
    for table, column in (
        ("tool_executions", "task_id"),
        ("workflow_tasks", "task_id"),
        ("workflow_tasks", "workflow_id"),
    ):
        # as PostgreSQL writes it (ri_triggers.c)
        sql = f'DELETE FROM ONLY "public"."{table}" WHERE $1 OPERATOR(pg_catalog.=) "{column}"'
        steps = [*plan(crowded, sql).walk()]
        assert [step.index for step in steps if step.index] != [], table
        assert [step.table for step in steps if step.kind == "Seq Scan"] == [], table


def explained(connection, sql, parameters) -> dict[str, Any]:
    """Run a statement by its generic plan, and return that with what each step did."""
    fetch(connection, f"PREPARE explained AS {sql}")
    values = ", ".join(str(value) if isinstance(value, int) else psycopg.sql.quote(value) for value in parameters)
    ((found,),) = fetch(connection, f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained ({values})")
    fetch(connection, "DEALLOCATE explained")
    top: dict[str, Any] = found[0]["Plan"]
    return top


def walk(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a step as EXPLAIN shows it, and all below it."""
    yield step
    for below in step.get("Plans", ()):
        yield from walk(below)


def test_plans_more_than_two_statuses_are_walked_as_two_are(crowded):
    """The statements stop at two statuses here: with more, each is one more walk along the same index."""
    for module in LISTED:
        for call, sql, _ in plans.asked(crowded, module, (len(LISTED[module]),)):
            if call.startswith("find"):
                assert len({step.index for step in plan(crowded, sql).walk() if step.index}) == 1, call
                assert number_of_statuses(call) in {0, len(LISTED[module])}


def test_modules_are_all_here(named):
    """A new module of SQL is planned here, too."""
    assert {name.partition(".")[0] for name in named} == {*MODULES}


# ---------------------------------------------------------------- statements


def test_statement_of_any_module_prepares_as_it_stands(crowded, named):
    """The SQL of the table modules means something to PostgreSQL, and so does each of its parameters."""
    assert len(named) > 300
    for sql in named.values():
        fetch(crowded, f"PREPARE statement AS {sql}")
        ((types,),) = fetch(crowded, "SELECT parameter_types FROM pg_prepared_statements WHERE name = 'statement'")
        assert len(types) == len(plans.parameters(sql))
        fetch(crowded, "DEALLOCATE statement")


def test_statements_in_the_words_of_each_engine_are_few(named):
    """One text serves both engines, but for pages, changes of many rows, and those that set a version or lock rows."""
    changes = {
        f"{module}.{name}"
        for module, found in MODULES.items()
        for part in plans.parts(found)
        for name, value in vars(part).items()
        if isinstance(value, rows.Change)
    }
    differ = {
        name
        for module, by_name in plans.statements().items()
        for name, sql in by_name.items()
        if sql != named[f"{module}.{name}"] and f"{module}.{name}" not in changes
    }
    pages = {name for name in differ if name.startswith("find(")}
    claims = {name for name in differ if name.startswith("_CLAIM")}
    assert len(claims) == 4
    assert differ - pages - claims == {
        *(
            "_ADD_ALL",
            "_CLOSE_STALE",
            "_DELETE_STALE",
            "_DELETE_BEFORE",
            "_DELETE_BEFORE_WITHOUT_TASK",
            "_GET_MANY",
            "_LIST_CHANGED",
            "_LOCK_ALL",
            "_PRUNABLE",
            "_PRUNE",
            "_REMOVE",
            "_SETTLED",
        ),
        *("_CANCEL", "_COMPLETE", "_EXPIRED", "_FAIL", "_RELEASE", "_RELEASE_UNTIL", "_RETRY"),
        *("_SET_PENDING", "_SET_RUNNING", "_SET_FINISHED", "_MOVE_TO_PENDING", "_MOVE_TO_RUNNING", "_MOVE_TO_FINISHED"),
        # by the rowid, where an id cannot be read
        *("_FAIL_UNREADABLE", "_GET_UNREADABLE", "_WHICH_CLAIMED", "_WHICH_EXPIRED"),
    }
    assert pages
    assert all(re.search("status|task_type|tool_name", name) for name in pages)


@pytest.mark.parametrize("name", ["tasks._CLAIM", "tasks._CLAIM_UNLESS_EXPIRED"])
def test_claim_reads_nothing_that_is_scheduled_ahead(changed, named, name):
    """Ten seeks find what is due: a walk along the index read all of 100,000 tasks that are scheduled ahead."""
    now, tomorrow = "2027-01-01T00:00:00.000Z", "2027-01-02T00:00:00.000Z"
    with contextlib.suppress(ZeroDivisionError), dao.transaction(changed):
        fetch(changed, "SET LOCAL session_replication_role = replica")  # without triggers
        fetch(changed, "UPDATE tasks SET run_at = $1 WHERE status = 'pending' AND priority < 5", (tomorrow,))
        fetch(
            changed,
            "INSERT INTO tasks (id, title, task_type, priority, run_at) "
            "SELECT 'ahead ' || n, 'a', 'agent', n % 10, $1::timestamptz FROM generate_series(1, 100000) AS n",
            (tomorrow,),
        )
        tasks = [dao.Task(id=f"due {n}", title="a", task_type="agent", run_at=BEGINNING) for n in range(3)]
        dao.tasks.create_many(changed, tasks)
        ran = explained(changed, named[name], (now, "w", tomorrow, 2))
        scans = [step for step in walk(ran) if step.get("Relation Name") == "tasks" and "Scan" in step["Node Type"]]
        assert {"idx_tasks_claim", "tasks_pkey"} <= {step.get("Index Name") for step in scans}
        assert sum(step["Actual Rows"] * step["Actual Loops"] for step in scans) <= 10
        assert sum(step.get("Rows Removed by Filter", 0) * step["Actual Loops"] for step in scans) == 0
        assert ran["Actual Rows"] == 2
        raise ZeroDivisionError  # undone
