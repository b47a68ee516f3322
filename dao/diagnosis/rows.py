"""What rows and ledger tell, on either engine: pending migrations, rows that nobody takes care of, times to come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from dao import codec
from dao.diagnosis.finding import Finding, error, note, ok, warning
from dao.engine import Connection, fetch
from dao.migrate import database as databases
from dao.migrate.ledger.status import State, Status
from dao.text import brief, counted

__all__ = ["future", "migrations", "orphans", "schema"]

# what a clock may be wrong by, and how long a session may be silent
_TOLERANCE = timedelta(seconds=5)
_SILENCE = timedelta(days=1)


def migrations(status: Status) -> Iterator[Finding]:
    """Yield where the migrations stand."""
    check = "migrations"
    wrong: tuple[tuple[State, str, str], ...] = (
        ("unfinished", "a run ended in the middle of it, outside of a transaction", "dao migrate resolve"),
        ("changed", "the schema may be another one than its file says", "put its file back, or `dao accept`"),
        ("missing", "its file has gone, or a newer version of the program applied it", "put its file back"),
    )
    names = status.names
    for state, means, advice in wrong:
        if ids := [names[id] for id in status.ids(state)]:
            told = f"`{advice} {ids[0]}`" if state == "unfinished" else f"{advice} (`dao status` shows more)"
            yield error(check, f"{state}: {', '.join(ids)}", means, told)
    if pending := [names[id] for id in status.ids("pending")]:
        yield warning(
            check,
            f"{counted(len(pending), 'migration')} pending: {', '.join(pending)}",
            "a program that needs them refuses to start (`migrate.assert_current`)",
            "dao rehearse, then dao migrate",
        )
    if status.advice:
        yield error(check, status.advice, "the schema is not what programs expect", "do as it says")
    if all(one.state == "applied" for one in status.migrations) and not status.advice:
        yield ok(check, f"all {len(status.migrations)} applied")


def schema(status: Status) -> Iterator[Finding]:
    """Yield in what the schema is not what the migrations make, and what in it does not work."""
    check = "schema"
    if status.drift:
        more = f", and {len(status.drift) - 1} more" if len(status.drift) > 1 else ""
        yield error(
            check,
            f"{status.drift[0]}{more}",
            "the schema is not what its migrations make: somebody changed it by hand",
            "`dao schema diff` shows all; undo it, or bring it into a migration",
        )
    for problem in status.broken:
        yield error(check, problem, "what uses it fails", "mend it in a migration")
    if not (status.drift or status.broken):
        yield ok(check, "it is what its migrations make")


def orphans(connection: Connection, now: datetime) -> Iterator[Finding]:
    """Yield which rows nobody takes care of. Reads by indexes only."""
    check = "orphans"
    if "lease_expires_at" not in databases.columns_of(connection, "tasks"):
        return
    lost = _rows(connection, "SELECT count(*), min(lease_expires_at) FROM tasks WHERE lease_expires_at < $1", now)
    unowned = _rows(connection, "SELECT count(*) FROM tasks WHERE status = 'running' AND lease_expires_at IS NULL")
    silent = _rows(
        connection, "SELECT count(*) FROM sessions WHERE is_active = TRUE AND last_heartbeat < $1", now - _SILENCE
    )
    if number := lost[0]:
        since = f", the first since {brief((now - codec.time_from_text(lost[1])).total_seconds())}"
        yield warning(
            check,
            f"{counted(number, 'task')} lost: running, and the lease has ended{since}",
            "the worker has died or hangs; the next claim fails the attempt, and tries again where retries are left",
            "see that workers run (`dao top`); `dao tasks list --phase lost` names the tasks",
        )
    if number := unowned[0]:
        yield note(
            check,
            f"{counted(number, 'task')} running without a worker or a lease",
            "nobody notices if the program that set it running has died",
            "`dao tasks list --status running` names them; `dao tasks release` has them run again",
        )
    if number := silent[0]:
        yield note(
            check,
            f"{counted(number, 'session')} active without a heartbeat for a day",
            "the client has gone without closing it",
            "dao prune --older-than 1d",
        )
    if not (lost[0] or unowned[0] or silent[0]):
        yield ok(check, "no lost task, no silent session")


def future(connection: Connection, now: datetime) -> Iterator[Finding]:
    """Yield whether rows have times to come, as of a clock that went wrong."""
    check = "times"
    columns = {
        "tasks": "created_at", "tool_executions": "created_at", "sessions": "last_heartbeat", "task_events": "at"
    }  # fmt: skip
    found: dict[str, int] = {}
    for table, column in columns.items():
        if column in databases.columns_of(connection, table):
            number = _rows(connection, f"SELECT count(*) FROM {table} WHERE {column} > $1", now + _TOLERANCE)[0]
            found |= {table: number} if number else {}
    if found:
        listed = ", ".join(f"{counted(number, 'row')} of {table}" for table, number in found.items())
        yield warning(
            check,
            f"{listed} with a time to come",
            "a clock was ahead, or this one is behind: leases, backoff and order by age go by clocks",
            "keep the clocks of all hosts right (NTP); compare `date -u` on each",
        )
    else:
        yield ok(check, "no row has a time to come")


def _rows(connection: Connection, sql: str, *moments: datetime) -> tuple[Any, ...]:
    (row,) = fetch(connection, sql, [codec.time_to_text(moment) for moment in moments])
    return row
