"""Transactions and savepoints, which PostgreSQL commits only if every statement in them did well."""

from __future__ import annotations

import contextlib

import psycopg
from psycopg import errors as sqlstates

from dao import errors
from dao.engine.postgresql.connections import ACTIVE, FAILED, IDLE, IN_TRANSACTION, INHERITED, Connection
from dao.engine.postgresql.loss import check_alive
from dao.engine.postgresql.statements import command

__all__ = ["begin", "commit", "roll_back"]


def begin(connection: Connection, *, nested: bool) -> None:
    """Begin an outermost transaction, or a savepoint in one."""
    if nested:
        try:
            command(connection, "SAVEPOINT dao")
        except Exception:
            raise
        except BaseException:  # whether it is there nobody knows: a block around this would be undone to it only
            connection.close()
            raise
    elif connection.autocommit:
        command(connection, _beginning(connection))
    else:
        command(connection, "SELECT")  # psycopg begins one before any statement


def _beginning(connection: Connection) -> str:
    """Return the BEGIN of a transaction as the connection's owner wants them, which psycopg knows of its own only."""
    level, read_only, deferrable = connection.isolation_level, connection.read_only, connection.deferrable
    modes = [] if level is None else [f"ISOLATION LEVEL {level.name.replace('_', ' ')}"]
    if read_only is not None:
        modes.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        modes.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return f"BEGIN {', '.join(modes)}" if modes else "BEGIN"


def commit(connection: Connection, *, nested: bool) -> None:
    """Commit a transaction, or release its savepoint. The caller rolls back when this raises.

    The owner of a connection that is not in autocommit mode commits it.

    Raises:
        OperationalError: The transaction is not there any more, or a statement in it has failed.
        psycopg.Error: It cannot be committed.
    """
    status = connection.pgconn.transaction_status
    if status == IDLE:
        raise errors.OperationalError(
            "the block ended its transaction itself, with a COMMIT or ROLLBACK: what it did is as that left it; leave "
            "both to dao.transaction"
        )
    if not nested:
        check_alive(connection)
        if status == IN_TRANSACTION and not connection.autocommit:
            return  # as a single statement on such a connection
    # COMMIT would roll back, without an error
    if status == FAILED or command(connection, "RELEASE dao" if nested else "COMMIT") == "ROLLBACK":
        raise errors.OperationalError(
            "a statement of this transaction failed, so PostgreSQL commits nothing of it: let such an error leave the "
            "block, or put a dao.transaction of its own around that part"
        )


def roll_back(connection: Connection, *, nested: bool) -> None:
    """Undo a transaction or its savepoint, unless the server has done so already."""
    status = connection.pgconn.transaction_status
    if connection in INHERITED or status not in {IN_TRANSACTION, FAILED}:
        if status == ACTIVE:  # a statement is half-way, and nothing else can be sent
            connection.close()
        return
    try:
        with contextlib.suppress(sqlstates.QueryCanceled):  # an interruption of what went before
            _undo(connection, nested=nested)
            return
        _undo(connection, nested=nested)
    except BaseException as error:
        # a server that is asked no more undoes all of it
        connection.close()
        if not isinstance(error, psycopg.Error):
            raise


def _undo(connection: Connection, *, nested: bool) -> None:
    # there is no such savepoint if an interruption came as it had been released
    with contextlib.suppress(sqlstates.InvalidSavepointSpecification):
        command(connection, "ROLLBACK TO dao; RELEASE dao" if nested else "ROLLBACK")
