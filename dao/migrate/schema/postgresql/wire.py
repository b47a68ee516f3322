"""Sends statements of a script: each one as a prepared statement, many in one journey to the server.

The server refuses a prepared statement that holds two, so what is sent for one is one. libpq's pipeline mode sends
those after it before the answer to the first has come; once one fails the server passes over the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import psycopg
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.waiting import Ready, Wait

from dao.engine.postgresql import Connection

__all__ = ["Failed", "Waiting", "send"]

#: Is told, ten times a second, how many seconds a journey has taken so far.
Waiting = Callable[[float], object]

_OFTEN = 0.1
_COPIES = {ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH}
_DONE = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY}


class Failed(Exception):
    """A statement failed: which one of those that were sent, by number, and what the driver made of it."""

    def __init__(self, number: int, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.number = number
        self.error = error


def send(connection: Connection, statements: Sequence[str], waiting: Waiting) -> list[str]:
    """Run statements, and return what the server says of each, as `INSERT 0 1`. Rows that they give are passed over.

    One alone is run as it is, so that it may be what does not run beside others.

    Raises:
        Failed: One failed, and the transaction with it; those after it did not run.
        psycopg.Error: The connection is lost.
    """
    pgconn, encoding = connection.pgconn, connection.info.encoding
    pipelined = len(statements) > 1
    commands = [statement.encode(encoding) for statement in statements]
    if pipelined:
        pgconn.enter_pipeline_mode()
    try:
        answers = connection.wait(_exchange(pgconn, commands, waiting, pipelined=pipelined))
    finally:
        if pipelined and pgconn.pipeline_status != PipelineStatus.OFF:
            try:
                pgconn.exit_pipeline_mode()
            except psycopg.Error:  # it is lost, or was interrupted where nobody can go on
                pgconn.finish()
    tags = []
    for number, result in enumerate(answers):
        if result.status not in _DONE:
            raise Failed(number, psycopg.errors.error_from_result(result, encoding))
        tags.append((result.command_status or b"").decode())
    return tags


def _exchange(
    pgconn: Any, commands: Sequence[bytes], waiting: Waiting, *, pipelined: bool
) -> Generator[Wait, Ready | int, list[Any]]:
    """Send commands, and return the last result of each up to the first that failed."""
    for command in commands:
        pgconn.send_query_params(command, None)
    if pipelined:
        pgconn.pipeline_sync()
    answers: list[Any] = []
    last = None
    begun = told = time.monotonic()
    unsent = True
    while True:
        # after Ctrl-C, which cancels the statement, psycopg begins to wait anew: then nothing is ready yet
        ready = (yield Wait.RW if unsent else Wait.R) or Ready.NONE
        if ready & Ready.R:
            pgconn.consume_input()
        if unsent:
            unsent = pgconn.flush() != 0
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if last is not None:
                    answers.append(last)
                if not pipelined:
                    return answers
                if last is None:
                    break
                last = None
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return answers
            elif result.status in _COPIES:
                # no rows come, and none are wanted
                raise psycopg.NotSupportedError("COPY from or to the client")
            elif last is None or last.status in _DONE:
                last = result
        now = time.monotonic()
        if not ready and now - told >= _OFTEN:
            told = now
            waiting(now - begun)
