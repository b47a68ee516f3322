"""Every function of the table modules on a connection that somebody else opened: the table of readers and writers.

Whoever adds a public function adds a line here.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import apsw.bestpractice
import attrs
import psycopg
import pytest

import dao
from dao import (
    configurations,
    sessions,
    task_dependencies,
    task_events,
    tasks,
    tool_executions,
    workflow_tasks,
    workflows,
)
from dao.engine import execute, fetch, in_transaction
from tests.engines import begin_writing, forbid_writing, is_sqlite, wait_for_locks
from tests.plans import MODULES

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
TABLES = [*MODULES]

TASK = dao.Task(id="task", title="a", task_type="agent", created_at=NOON)
OVER = attrs.evolve(TASK, id="over", status="completed", completed_at=NOON)
LOST = attrs.evolve(TASK, id="lost", status="running", attempt=1, worker="w", lease_expires_at=NOON)
HELD = attrs.evolve(LOST, id="held", lease_expires_at=datetime(3000, 1, 1, tzinfo=UTC))
WORKFLOW = dao.Workflow(id="workflow", name="a", created_at=NOON)
CALL = dao.ToolExecution(
    id="call", tool_name="grep", input={}, task_id="task", status="running", created_at=NOON, started_at=NOON
)
FAILURE = dao.ToolExecution(
    id="failure", tool_name="grep", input={}, status="failed", duration_ms=7, created_at=NOON, completed_at=NOON
)

Call = Callable[[Any], object]

# Each writes something into the database that `filled` makes.
WRITERS: dict[str, Call] = {
    "configurations.delete": lambda c: configurations.delete(c, "key"),
    "configurations.set": lambda c: configurations.set(c, "key", 6),
    "configurations.set_many": lambda c: configurations.set_many(c, {"key": 6, "other": 7}),
    "sessions.close": lambda c: sessions.close(c, "session"),
    "sessions.close_stale": lambda c: sessions.close_stale(c, older_than=timedelta(0)),
    "sessions.delete_stale": lambda c: sessions.delete_stale(c, older_than=timedelta(0)),
    "sessions.heartbeat": lambda c: sessions.heartbeat(c, "session"),
    "sessions.open": lambda c: sessions.open(c, client_id="web"),
    "task_dependencies.add": lambda c: task_dependencies.add(c, "third", ["second", "task"]),
    "task_dependencies.chain": lambda c: task_dependencies.chain(c, "workflow"),
    "task_dependencies.remove": lambda c: task_dependencies.remove(c, "second", "over"),
    "task_events.delete_before": lambda c: task_events.delete_before(c, NOON + timedelta(1)),
    "tasks.cancel": lambda c: tasks.cancel(c, "task"),
    "tasks.claim": lambda c: tasks.claim(c, worker="w", lease=timedelta(1)),
    "tasks.complete": lambda c: tasks.complete(c, HELD),
    "tasks.create": lambda c: tasks.create(c, attrs.evolve(TASK, id="new")),
    "tasks.create_many": lambda c: tasks.create_many(c, [attrs.evolve(TASK, id="new"), attrs.evolve(TASK, id="newer")]),
    "tasks.delete": lambda c: tasks.delete(c, "task"),
    "tasks.enqueue": lambda c: tasks.enqueue(c, attrs.evolve(TASK, id="new")),
    "tasks.fail": lambda c: tasks.fail(c, HELD, error="e"),
    "tasks.prune": lambda c: tasks.prune(c, before=NOON + timedelta(1)),
    "tasks.release": lambda c: tasks.release(c, HELD),
    "tasks.renew": lambda c: tasks.renew(c, HELD, lease=timedelta(1)),
    "tasks.rescue": tasks.rescue,
    "tasks.retry": lambda c: tasks.retry(c, "task"),
    "tasks.set_status": lambda c: tasks.set_status(c, "task", "running"),
    "tasks.update": lambda c: tasks.update(c, attrs.evolve(TASK, title="b")),
    "tool_executions.delete_before": lambda c: tool_executions.delete_before(c, NOON + timedelta(1)),
    "tool_executions.fail": lambda c: tool_executions.fail(c, CALL, error="e"),
    "tool_executions.finish": lambda c: tool_executions.finish(c, "call"),
    "tool_executions.record": lambda c: tool_executions.record(c, attrs.evolve(CALL, id="new")),
    "tool_executions.start": lambda c: tool_executions.start(c, tool_name="grep", input=[]),
    "tool_executions.step": lambda c: tool_executions.step(c, HELD, "a", tool_name="grep", input=[]),
    "tool_executions.timeout": lambda c: tool_executions.timeout(c, CALL),
    "workflow_tasks.add": lambda c: workflow_tasks.add(c, workflow_id="workflow", task_id="second", sequence=0),
    "workflow_tasks.move": lambda c: workflow_tasks.move(c, workflow_id="workflow", task_id="task", sequence=5),
    "workflow_tasks.remove": lambda c: workflow_tasks.remove(c, workflow_id="workflow", task_id="task"),
    "workflow_tasks.reorder": lambda c: workflow_tasks.reorder(c, "workflow", ["third", "task"]),
    "workflows.create": lambda c: workflows.create(c, attrs.evolve(WORKFLOW, id="new")),
    "workflows.create_many": lambda c: workflows.create_many(c, [attrs.evolve(WORKFLOW, id="new")]),
    "workflows.delete": lambda c: workflows.delete(c, "workflow"),
    "workflows.set_status": lambda c: workflows.set_status(c, "workflow", "active"),
    "workflows.update": lambda c: workflows.update(c, attrs.evolve(WORKFLOW, name="b")),
}

# What PostgreSQL does in no transaction that sees the database as it was: a cycle would not be noticed.
NOT_IN_THE_PAST = [WRITERS["task_dependencies.add"], WRITERS["task_dependencies.chain"]]


@contextlib.contextmanager
def seeing_all(connection: Any, write: Call) -> Iterator[None]:
    """Have a connection see what others have committed, if the function needs that."""
    if write not in NOT_IN_THE_PAST or is_sqlite(connection):
        yield
        return
    level, connection.isolation_level = connection.isolation_level, psycopg.IsolationLevel.READ_COMMITTED
    try:
        yield
    finally:
        connection.isolation_level = level


IDS = ["third", "task", "second", "over", "lost", "held"]


def first_event(connection: Any) -> dao.TaskEvent:
    """Return the event of the task that was made first."""
    return task_events.list_of(connection, "task")[0]


# Each with what it finds in the database that `filled` makes.
READERS: dict[str, tuple[Call, object]] = {
    "configurations.exists": (lambda c: configurations.exists(c, "key"), True),
    "configurations.get": (lambda c: configurations.get(c, "key", int), 5),
    "configurations.get_all": (lambda c: configurations.get_all(c, "k"), {"key": 5}),
    "configurations.get_many": (lambda c: configurations.get_many(c, ["a", "key"]), {"key": 5}),
    "configurations.get_one": (lambda c: configurations.get_one(c, "key", int), 5),
    "configurations.get_record": (lambda c: configurations.get_record(c, "key").value, 5),
    "sessions.count_active": (lambda c: sessions.count_active(c, client_id="cli"), 1),
    "sessions.count_stale": (lambda c: sessions.count_stale(c, older_than=timedelta(0)), 1),
    "sessions.exists": (lambda c: sessions.exists(c, "session"), True),
    "sessions.list_stale": (lambda c: len(sessions.list_stale(c, older_than=timedelta(0))), 1),
    "sessions.get": (lambda c: sessions.get(c, "session").client_id, "cli"),
    "sessions.get_many": (lambda c: [*sessions.get_many(c, ["session", "a"])], ["session"]),
    "sessions.get_one": (lambda c: sessions.get_one(c, "session").client_id, "cli"),
    "sessions.list_active": (lambda c: len(sessions.list_active(c)), 1),
    "task_dependencies.exists": (lambda c: task_dependencies.exists(c, "second", "over"), True),
    "task_dependencies.get": (lambda c: task_dependencies.get(c, "second", "over").depends_on, "over"),
    "task_dependencies.get_many": (
        lambda c: [*task_dependencies.get_many(c, [("second", "over")])],
        [("second", "over")],
    ),
    "task_dependencies.get_one": (lambda c: task_dependencies.get_one(c, "second", "over").task_id, "second"),
    "task_dependencies.list_predecessors": (lambda c: task_dependencies.list_predecessors(c, "second"), [OVER]),
    "task_dependencies.list_successors": (lambda c: len(task_dependencies.list_successors(c, "over")), 1),
    "task_events.count_before": (lambda c: task_events.count_before(c, NOON), 0),
    "task_events.throughput": (lambda c: task_events.throughput(c, since=NOON).completed, 0),
    "task_events.exists": (lambda c: task_events.exists(c, first_event(c).seq), True),
    "task_events.find": (lambda c: [event.task_id for event in task_events.find(c, limit=2).items], ["task", "second"]),
    "task_events.get": (lambda c: task_events.get(c, first_event(c).seq) == first_event(c), True),
    "task_events.get_many": (lambda c: [*task_events.get_many(c, [first_event(c).seq])] == [first_event(c).seq], True),
    "task_events.get_one": (lambda c: task_events.get_one(c, first_event(c).seq) == first_event(c), True),
    "task_events.list_of": (lambda c: len(task_events.list_of(c, "task")), 1),
    "tasks.as_of": (lambda c: tasks.as_of(c, "task", NOON), TASK),
    "tasks.count": (lambda c: tasks.count(c, status="pending"), 3),
    "tasks.count_by_status": (lambda c: tasks.count_by_status(c)[dao.TaskStatus.PENDING], 3),
    "tasks.count_prunable": (lambda c: tasks.count_prunable(c, before=NOON + timedelta(1)), 1),
    "tasks.exists": (lambda c: tasks.exists(c, "task"), True),
    "tasks.find": (lambda c: [task.id for task in tasks.find(c).items], IDS),
    "tasks.get": (lambda c: tasks.get(c, "task"), TASK),
    "tasks.get_many": (lambda c: tasks.get_many(c, ["task", "a"]), {"task": TASK}),
    "tasks.get_one": (lambda c: tasks.get_one(c, "task"), TASK),
    "tasks.iter_all": (lambda c: [task.id for task in tasks.iter_all(c)], IDS),
    "tasks.list_changed": (lambda c: len(tasks.list_changed(c, since=NOON)), 6),
    "tasks.queues": (lambda c: [(state.ready, state.running, state.lost) for state in tasks.queues(c)], [(3, 1, 1)]),
    "tool_executions.count": (lambda c: tool_executions.count(c, task_id="task"), 1),
    "tool_executions.count_before": (lambda c: tool_executions.count_before(c, NOON + timedelta(1)), 2),
    "tool_executions.exists": (lambda c: tool_executions.exists(c, "call"), True),
    "tool_executions.find": (lambda c: tool_executions.find(c).items, [FAILURE, CALL]),
    "tool_executions.get": (lambda c: tool_executions.get(c, "call"), CALL),
    "tool_executions.get_many": (lambda c: tool_executions.get_many(c, ["call"]), {"call": CALL}),
    "tool_executions.get_one": (lambda c: tool_executions.get_one(c, "call"), CALL),
    "tool_executions.iter_all": (lambda c: list(tool_executions.iter_all(c)), [FAILURE, CALL]),
    "tool_executions.list_errors": (tool_executions.list_errors, [FAILURE]),
    "tool_executions.statistics": (lambda c: [row.p95_ms for row in tool_executions.statistics(c)], [7]),
    "workflow_tasks.count": (lambda c: workflow_tasks.count(c, "workflow"), 2),
    "workflow_tasks.exists": (lambda c: workflow_tasks.exists(c, "workflow", "task"), True),
    "workflow_tasks.get_many": (
        lambda c: [*workflow_tasks.get_many(c, [("workflow", "task")])],
        [("workflow", "task")],
    ),
    "workflow_tasks.get_one": (lambda c: workflow_tasks.get_one(c, "workflow", "task").sequence, 0),
    "workflow_tasks.get": (lambda c: workflow_tasks.get(c, workflow_id="workflow", task_id="task").sequence, 0),
    "workflow_tasks.list_tasks": (lambda c: workflow_tasks.list_tasks(c, "workflow")[0].task, TASK),
    "workflow_tasks.list_workflows": (lambda c: workflow_tasks.list_workflows(c, "task"), [WORKFLOW]),
    "workflows.count": (workflows.count, 1),
    "workflows.count_by_status": (lambda c: workflows.count_by_status(c)[dao.WorkflowStatus.DRAFT], 1),
    "workflows.exists": (lambda c: workflows.exists(c, "workflow"), True),
    "workflows.find": (lambda c: workflows.find(c, status="draft").items, [WORKFLOW]),
    "workflows.get": (lambda c: workflows.get(c, "workflow"), WORKFLOW),
    "workflows.get_many": (lambda c: workflows.get_many(c, ["workflow"]), {"workflow": WORKFLOW}),
    "workflows.get_one": (lambda c: workflows.get_one(c, "workflow"), WORKFLOW),
    "workflows.iter_all": (lambda c: list(workflows.iter_all(c)), [WORKFLOW]),
}

every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def fill(connection: Any) -> None:
    """Store a row or two in each table."""
    tasks.create_many(connection, [attrs.evolve(TASK, id=id) for id in ("task", "second", "third")])
    tasks.create_many(connection, [OVER, LOST, HELD])
    task_dependencies.add(connection, "second", "over")
    workflows.create(connection, WORKFLOW)
    for task_id in ("task", "third"):
        workflow_tasks.add(connection, workflow_id="workflow", task_id=task_id)
    for execution in (CALL, FAILURE):
        tool_executions.record(connection, execution)
    execute(
        connection,
        "INSERT INTO sessions (id, client_id, last_heartbeat) VALUES ('session', 'cli', $1)",
        ("2025-01-15T12:00:00.000Z",),
    )
    configurations.set(connection, "key", 5)


@pytest.fixture(scope="module")
def filled_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a row or two in each table, in SQLite's own journal mode, made once."""
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    path.write_bytes(template.read_bytes())
    connection = apsw.Connection(str(path))
    fill(connection)
    connection.close()
    return path


@attrs.frozen
class Filled:
    """A database of one's own with a row or two in each table."""

    url: str
    #: A session that stays, since one costs more than all that is asked of it; None: one each time, it holds a file.
    looker: psycopg.Connection[Any] | None = None

    def dump(self) -> dict[str, list[tuple]]:
        """Return all that is stored."""
        looking = contextlib.nullcontext(self.looker) if self.looker else contextlib.closing(dao.connect(self.url))
        with looking as connection:
            return {table: fetch(connection, f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


@pytest.fixture
def filled(engine: str, request: pytest.FixtureRequest) -> Iterator[Filled]:
    """A database of one's own with a row or two in each table."""
    if engine == "sqlite":
        path = request.getfixturevalue("tmp_path") / "strangers.db"
        path.write_bytes(request.getfixturevalue("filled_template").read_bytes())
        yield Filled(f"sqlite:///{path}")
        return
    url: str = request.getfixturevalue("postgresql_url")
    with contextlib.closing(dao.connect(url)) as connection:
        fill(connection)
        yield Filled(url, connection)


def bare(url: str, **options: Any) -> Any:
    """Open a connection as somebody does who does not know this package."""
    if url.startswith("sqlite"):
        return apsw.Connection(url.removeprefix("sqlite:///"), **options)
    return psycopg.connect(url, autocommit=True, **options)


# Settings of strangers, by engine: each opens a connection.


def plain_sqlite(url: str) -> apsw.Connection:
    """SQLite's own settings: foreign keys off, a rollback journal, no waiting."""
    return bare(url)


def own_sqlite(url: str) -> apsw.Connection:
    """Settings that differ from this package's wherever they can."""
    connection = bare(url, statementcachesize=0)
    connection.pragma("recursive_triggers", True)
    connection.pragma("synchronous", "full")
    connection.pragma("journal_mode", "truncate")
    connection.pragma("reverse_unordered_selects", True)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    connection.transaction_mode = "EXCLUSIVE"
    connection.exec_trace = lambda *_: True
    return connection


def best_practice(url: str) -> apsw.Connection:
    """What apsw recommends, on this connection only."""
    connection = bare(url)
    for name in dir(apsw.bestpractice):
        if name.startswith("connection_"):
            getattr(apsw.bestpractice, name)(connection)
    return connection


def plain_postgresql(url: str) -> psycopg.Connection[Any]:
    """PostgreSQL's own settings, with times in the zone of the server."""
    return bare(url, options="-c datestyle=ISO,MDY")


def own_postgresql(url: str) -> psycopg.Connection[Any]:
    """Settings that differ from this package's wherever they can."""
    options = "-c datestyle=ISO,DMY -c timezone=America/St_Johns -c standard_conforming_strings=off -c jit_above_cost=0"
    connection = bare(url, options=f"{options} -c intervalstyle=sql_standard -c extra_float_digits=-15")
    connection.prepare_threshold = 0
    connection.row_factory = psycopg.rows.dict_row
    connection.cursor_factory = psycopg.ClientCursor
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.adapters.register_dumper(str, psycopg.types.string.StrBinaryDumper)
    connection.adapters.register_loader("text", psycopg.types.string.ByteaLoader)
    return connection


def prepared(url: str) -> psycopg.Connection[Any]:
    """A connection of the caller's that was handed to `prepare` once."""
    connection = bare(url)
    dao.postgresql.prepare(connection)
    return connection


STRANGERS = {
    "sqlite": [plain_sqlite, own_sqlite, best_practice],
    "postgresql": [plain_postgresql, own_postgresql, prepared],
}
OPENERS = [(engine, opener) for engine, openers in STRANGERS.items() for opener in openers]


def on(*openers: Callable[[str], Any]) -> pytest.MarkDecorator:
    """Run the test on connections that these open."""
    chosen = [(engine, opener) for engine, opener in OPENERS if opener in openers]
    return pytest.mark.parametrize(
        ("engine", "strangers"), chosen, indirect=["strangers"], ids=[opener.__name__ for _, opener in chosen]
    )


every_stranger = on(*(opener for _, opener in OPENERS))


@pytest.fixture
def strangers(request: pytest.FixtureRequest, filled: Filled) -> Iterator[Any]:
    """A connection that was opened without this package, with settings of its own."""
    connection = request.param(filled.url)
    yield connection
    connection.close()


def test_table_modules_every_public_function_is_listed():
    """Each public function of a table module is either a reader or a writer of the lists above."""
    functions = {
        f"{name}.{function}"
        for name, module in MODULES.items()
        for function in module.__all__
        if inspect.isfunction(getattr(module, function))
    }
    assert functions == {*WRITERS, *READERS}
    assert not {*WRITERS} & {*READERS}


@every_stranger
def test_readers_on_a_strangers_connection_find_and_write_nothing(strangers, filled):
    """A reading function answers on any connection, even where nothing may be written, and leaves no transaction."""
    before = filled.dump()
    forbid_writing(strangers)
    for name, (read, expected) in READERS.items():
        assert read(strangers) == expected, name
        assert not in_transaction(strangers), name
    assert filled.dump() == before


@every_stranger
@every_writer
def test_writer_on_a_strangers_connection_commits(strangers, filled, write):
    """A writing function alone is one transaction: when it returns, others see what it wrote."""
    before = filled.dump()
    with seeing_all(strangers, write):
        write(strangers)
    assert not in_transaction(strangers)
    assert filled.dump() != before


#: Transactions that are opened as the driver has it.
DRIVERS_OWN: dict[Any, Callable[[Any], Any]] = {
    own_sqlite: lambda connection: connection,
    own_postgresql: psycopg.Connection.transaction,
}


@on(plain_sqlite, best_practice, own_sqlite, plain_postgresql, own_postgresql)
def test_writers_in_a_transaction_roll_back_with_it(request, strangers, filled):
    """Inside somebody's transaction a writing function takes part: it commits nothing, and goes when that goes."""
    before = filled.dump()
    begin = DRIVERS_OWN.get(request.node.callspec.params["strangers"], dao.transaction)
    for name, write in WRITERS.items():
        with (  # noqa: PT012 - the block is the test
            pytest.raises(LookupError, match="changed my mind"),
            seeing_all(strangers, write),
            begin(strangers),
        ):
            write(strangers)
            assert in_transaction(strangers), name
            raise LookupError("changed my mind")
        assert not in_transaction(strangers), name
        assert filled.dump() == before, name


@on(plain_sqlite, best_practice, plain_postgresql, own_postgresql)
def test_writers_on_a_locked_database_raise_database_busy(strangers, filled):
    """While another connection holds the write lock for too long, each writing function says so and changes nothing."""
    wait_for_locks(strangers, 1)
    before = filled.dump()
    with contextlib.closing(bare(filled.url)) as blocker:
        begin_writing(blocker, ", ".join(TABLES))
        for name, write in WRITERS.items():
            with (
                pytest.raises(dao.DatabaseBusy, match=BUSY[is_sqlite(strangers)]) as caught,
                seeing_all(strangers, write),
            ):
                write(strangers)
            assert isinstance(caught.value.__cause__, apsw.BusyError | psycopg.errors.LockNotAvailable), name
            assert not in_transaction(strangers), name
        blocker.execute("ROLLBACK")
    assert filled.dump() == before
    tasks.create(strangers, attrs.evolve(TASK, id="new"))
    assert filled.dump() != before


BUSY = {
    True: r"strangers\.db is locked by another connection.*try again",
    False: r"postgresql://.*: another transaction keeps a lock .*: repeat the transaction",
}


def is_busy(call: Call, connection: Any) -> bool:
    """Return whether a call says that the database is busy."""
    try:
        call(connection)
    except dao.DatabaseBusy:
        return True
    return False


@on(plain_sqlite, plain_postgresql)
def test_readers_on_a_database_locked_for_reading_raise_database_busy(strangers, filled):
    """Where even reading must wait each reading function says so.

    On SQLite that is a rollback journal while another commits, on PostgreSQL while a table is altered.
    """
    wait_for_locks(strangers, 1)
    with contextlib.closing(bare(filled.url)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE" if is_sqlite(blocker) else f"BEGIN; LOCK TABLE {', '.join(TABLES)}")
        assert {name for name, (read, _) in READERS.items() if is_busy(read, strangers)} == {*READERS}
        blocker.execute("ROLLBACK")
    for name, (read, expected) in READERS.items():
        assert read(strangers) == expected, name


def test_what_is_no_connection_of_any_engine_is_refused():
    """A type that no engine has is refused with advice, by reads and writes alike."""
    for call in (lambda c: tasks.get(c, "task"), lambda c: tasks.delete(c, "task"), lambda c: tasks.create(c, TASK)):
        with pytest.raises(TypeError, match="expected a connection, got int") as caught:
            call(3)
        assert not isinstance(caught.value.__cause__, TypeError)  # it would say the same twice


@on(plain_postgresql)
def test_writers_on_a_connection_that_does_not_commit_by_itself_leave_that_to_its_owner(strangers, filled):
    """Psycopg begins a transaction before the first statement unless it is told not to: functions take part in it."""
    before = filled.dump()
    strangers.autocommit = False
    for name, write in WRITERS.items():
        write(strangers)
        assert filled.dump() == before, name
        strangers.rollback()
        assert filled.dump() == before, name
    tasks.create(strangers, attrs.evolve(TASK, id="new"))
    strangers.commit()
    assert filled.dump() != before
