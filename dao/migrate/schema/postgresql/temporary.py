"""Databases on a server that are there for a while: their names, by which those that were left over are known."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from dao.engine import execute, fetch
from dao.errors import Error

__all__ = ["drop", "drop_left_over", "new_name", "when_unused"]

#: How often a statement is tried that waits for the ends of sessions: each time the server does so for five seconds.
_TRIES = 6

_THERE = """
SELECT datname FROM pg_database
WHERE  starts_with(datname, $1) AND pg_has_role(datdba, 'MEMBER')
       AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pg_stat_activity.datname = pg_database.datname)
"""
# those of the role, and of others whose rights it has
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pg_has_role(usesysid, 'USAGE')"


def new_name(prefix: str) -> str:
    """Return a name that no other database has, with the time in it. It needs no quotes if the prefix needs none."""
    return f"{prefix}{int(time.time())}_{secrets.token_hex(4)}"


def when_unused(function: Callable[[], object]) -> None:
    """Run a statement that wants a database for itself, such as one from which the last session is about to go.

    A closed connection is one that the server has yet to notice, and one that it is told to end goes on for a while. It
    waits for them, and refuses after five seconds; on a busy machine that was too soon.

    Raises:
        psycopg.errors.ObjectInUse: Somebody has used it for half a minute.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            function()
            return
    function()


def drop(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a database if there is one, and end the sessions in it.

    Raises:
        psycopg.errors.ObjectInUse: A session has not ended for half a minute, or is one that the role may not end.
        psycopg.Error: The server refuses for another reason.
    """
    command = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))

    def attempt() -> None:
        try:
            connection.execute(command + sql.SQL(" WITH (FORCE)"))
        except psycopg.errors.InsufficientPrivilege:
            # autovacuum is there, which FORCE may not end for a role that is no superuser; without it the server does
            connection.execute(_END, [name])
            connection.execute(command)

    when_unused(attempt)


def drop_left_over(connection: psycopg.Connection[Any], prefix: str, *, seconds: float) -> None:
    """Drop the databases of such names that a killed process has left: those so old that nobody is connected to."""
    for (name,) in fetch(connection, _THERE, (prefix,)):
        with contextlib.suppress(Error, psycopg.Error, ValueError):
            if time.time() - int(name.removeprefix(prefix).partition("_")[0]) > seconds:
                execute(connection, f"DROP DATABASE {name}")
