"""Where dao's time goes: the bare driver's statements, dao's own statements by hand, and dao.

dao's statements are noted while a call runs, which is then undone, and run by hand on the same connection. The
difference to the bare driver is what SQLite is asked beyond the shortest statement; the difference to dao is Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import apsw

import dao
from bench import contenders, harness, operations
from bench.contenders import BASE, OWN
from bench.harness import Subject
from bench.operations import NAMED
from bench.run import Run

#: Not the bulk loads, whose statement is the same for all rows.
_OPERATIONS = (
    "get", "get_all", "find", "find_all", "page", "configuration_get", "configuration_set", "heartbeat", "set_status",
    "update", "claim", "complete", "create", "create_from_values",
)  # fmt: skip
PARTS = ("the shortest, by apsw", "dao's, by hand", "dao")


class _Undo(Exception):
    """Ends a transaction that is not to be kept."""


def measure(run: Run) -> dict[str, Any]:
    """Return for each operation the seconds of each part, and the ratios to the first."""
    bare: Any = contenders.load(BASE)
    own: Any = contenders.load(OWN[0])
    found = {}
    with contenders.opened([bare, own], run.copy):
        for name in _OPERATIONS:
            operation = NAMED[name]
            run.report(f"where the time goes: {operation.title}")

            def noted(calls: int, operation: operations.Operation = operation) -> harness.Arguments:
                call = getattr(own, operation.name)
                return [statements(own.connection, call, given) for given in operation.prepare(own, run.holds, calls)]

            runs = (
                operations.timed(operation, bare, run.holds, run.size),
                harness.timed(_by_hand(own.connection), noted),
                operations.timed(operation, own, run.holds, run.size),
            )
            measured = operations.interleave(operation, list(map(Subject, PARTS, runs)), run.size)
            found[name] = {"title": operation.title, "parts": harness.summary(measured, dict.fromkeys(PARTS, PARTS[0]))}
    return found


def statements(
    connection: apsw.Connection, call: Callable[..., object], given: tuple[Any, ...]
) -> tuple[tuple[str, Any], ...]:
    """Return the statements that a call runs, each with what it binds, and undo the call."""
    seen: list[tuple[str, Any]] = []

    def note(_cursor: object, sql: str, bindings: Any) -> bool:
        # what a function does only because it is inside of a transaction is not its own
        if not sql.startswith(("SAVEPOINT", "RELEASE")):
            seen.append((sql, bindings))
        return True

    with contextlib.suppress(_Undo), dao.transaction(connection):
        connection.exec_trace = note
        try:
            call(*given)
        finally:
            connection.exec_trace = None
        raise _Undo
    return tuple(seen)


def _by_hand(connection: apsw.Connection) -> Callable[..., object]:
    execute = connection.execute

    def run(first: tuple[str, Any], *others: tuple[str, Any]) -> object:
        # what follows a change is read while that is under way, in its transaction
        cursor = execute(*first)
        for other in others:
            execute(*other).fetchall()
        return cursor.fetchall()

    return run
