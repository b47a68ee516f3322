"""Every function of the table modules on a connection that somebody else opened."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import apsw.bestpractice
import attrs
import psycopg
import pytest

import dao
from dao import tasks
from dao.engine import in_transaction
from tests.engines import begin_writing, forbid_writing, is_sqlite, wait_for_locks
from tests.every_function import READERS, TABLES, TASK, WRITERS, Call, Filled, filled, filled_template
from tests.plans import MODULES

__all__ = ["filled", "filled_template"]  # fixtures

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


every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


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


@pytest.mark.sample(4)
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
