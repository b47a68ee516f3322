"""What tests know of an engine beyond what `dao` offers, by the type of a connection."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apsw
import attrs
import psycopg

import dao
from dao import codec
from dao import url as urls
from dao.engine import fetch, in_transaction
from dao.testing.server import BETWEEN_TESTS
from tests.concurrency import PATIENCE, wait_for

#: The drivers' errors for a row that a constraint refuses.
CONSTRAINT_ERRORS = (apsw.ConstraintError, psycopg.IntegrityError)


def is_sqlite(connection: Any) -> bool:
    """Return whether a connection is SQLite's."""
    return isinstance(connection, apsw.Connection)


def now(connection: Any) -> datetime:
    """Return what the clock says that the triggers read, to the millisecond: a server has its own."""
    if is_sqlite(connection):
        return codec.now()
    ((text,),) = fetch(connection, "SELECT date_trunc('milliseconds', clock_timestamp())")
    return codec.time_from_text(text)


def impatient(url: str, milliseconds: int = 0) -> Any:
    """Return a connection that waits so long for a lock and no longer."""
    return dao.connect(attrs.evolve(urls.parse(url), busy_timeout=milliseconds))


@contextlib.contextmanager
def role(connection: Any) -> Iterator[str]:
    """Lend a role that may log in and nothing else: roles are the server's, so that each test needs one of its own."""
    name = f"dao_test_{uuid.uuid4().hex[:12]}"
    connection.execute(f"CREATE ROLE {name} LOGIN")
    try:
        yield name
    finally:
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def scramble(connection: Any) -> None:
    """Have statements without an ORDER BY return their rows in an order that no listing has."""
    if is_sqlite(connection):
        connection.pragma("reverse_unordered_selects", True)
    else:  # as they were stored
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            connection.execute(f"SET enable_{way} = off")


def orphans(connection: Any) -> list[Any]:
    """Return the rows that refer to one that is not there; by their table only on PostgreSQL."""
    if is_sqlite(connection):
        return fetch(connection, "PRAGMA foreign_key_check")
    parents = fetch(connection, _FOREIGN_KEYS)
    return [
        row
        for table, column, parent in parents
        for row in fetch(
            connection,
            f"SELECT '{table}', {column} FROM {table} WHERE {column} IS NOT NULL "
            f"AND NOT EXISTS (SELECT FROM {parent} WHERE id = {table}.{column})",
        )
    ]


_FOREIGN_KEYS = """
SELECT conrelid::regclass::text, attname, confrelid::regclass::text
FROM   pg_constraint
JOIN   pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
WHERE  contype = 'f' AND connamespace = 'public'::regnamespace
"""


def ignore_checks(connection: Any) -> None:
    """Take the CHECK constraints away: on SQLite for this connection, on PostgreSQL for good."""
    if is_sqlite(connection):
        connection.pragma("ignore_check_constraints", True)
        return
    for table, name in connection.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
    ).fetchall():
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


def wait_for_locks(connection: Any, milliseconds: int) -> None:
    """Have a connection wait so long for a lock and no longer."""
    if is_sqlite(connection):
        connection.set_busy_timeout(milliseconds)
    else:
        connection.execute(f"SET lock_timeout = {milliseconds}")


def run_out_of_time(connection: Any) -> None:
    """Run a statement of a server's into a timeout, which it alone has: any other may take its time, too."""
    connection.execute("SET statement_timeout = 50")
    try:
        fetch(connection, "SELECT pg_sleep(600)")
    finally:
        if not in_transaction(connection):  # whose end takes the setting back
            connection.execute("RESET statement_timeout")


def forbid_writing(connection: Any) -> None:
    """Have a connection refuse to write."""
    if is_sqlite(connection):
        connection.pragma("query_only", True)
    else:
        connection.execute("SET default_transaction_read_only = on")


def begin_writing(connection: Any, table: str) -> None:
    """Begin a transaction that keeps all others from writing a table."""
    if is_sqlite(connection):
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection.execute(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")


def begin_alone(connection: Any, table: str) -> None:
    """Begin a transaction beside which no other begins; on PostgreSQL, none that reads or writes the table."""
    connection.execute("BEGIN IMMEDIATE" if is_sqlite(connection) else f"BEGIN; LOCK TABLE {table}")


def wait_for_waiter(connection: Any, waiter: threading.Thread | None = None) -> None:
    """Return once another connection waits for a lock; on SQLite, where nobody sees that, after it has had the time.

    Or once the `waiter` has ended, which may not have to wait.
    """
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    end = time.monotonic() + 0.1
    wait_for(
        lambda: (
            (waiter is not None and not waiter.is_alive())
            or (time.monotonic() > end if is_sqlite(connection) else fetch(connection, waiting) != [(0,)])
        )
    )


#: The sessions of a test in a database, but the one that asks.
_OTHERS = f"""
SELECT count(*) FROM pg_stat_activity
WHERE  datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
AND    application_name <> '{BETWEEN_TESTS}'
"""


def wait_for_end(connection: Any, pid: int | None = None) -> None:
    """Return once the server has ended a session, or all others of a test in the database of a connection.

    A client's `close` only asks for that: what the session held, and its row in pg_stat_activity, go when the server
    gets to it.
    """
    which = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1" if pid else _OTHERS
    wait_for(lambda: fetch(connection, which, (pid,) if pid else ()) == [(0,)])


def terminate(url: str, pid: int) -> None:
    """End a session as an administrator does, and wait until it has ended."""
    with contextlib.closing(dao.connect(url)) as connection:
        assert fetch(connection, "SELECT pg_terminate_backend($1, $2)", (pid, PATIENCE * 1000)) == [(True,)]


@contextlib.contextmanager
def counted_commits(connection: Any, *tables: str) -> Iterator[list[int]]:
    """Count the transactions in which statements wrote the tables; the list has the number after the block."""
    counted: list[int] = []
    if is_sqlite(connection):
        seen: list[int] = []
        connection.set_commit_hook(lambda: bool(seen.append(1)))
        yield counted
        connection.set_commit_hook(None)
        counted.append(len(seen))
        return
    connection.execute(
        "CREATE TABLE written (transaction xid8); "
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO written VALUES (pg_current_xact_id()); RETURN NULL; END'"
    )
    for table in tables:
        connection.execute(
            f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION note()"
        )
    yield counted
    counted += fetch(connection, "SELECT count(DISTINCT transaction) FROM written")[0]
