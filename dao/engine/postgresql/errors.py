"""psycopg's errors as errors of ours, by their SQLSTATE."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from dao import errors
from dao.engine.arguments import check_types, not_taken
from dao.engine.postgresql.connections import IDLE, INHERITED, Connection, forked, name_of
from dao.engine.postgresql.loss import is_ended, lost
from dao.engine.postgresql.statements import fetch, is_outdated

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Table

__all__ = ["translated"]

_KEY = re.compile(r"\((.*?)\)=\((.*)\)", re.DOTALL)
_BUSY = {
    "40001": "it does not serialise with another transaction",
    "40P01": "it and another transaction waited for each other",
    "55P03": "another transaction keeps a lock",
}
_ADVICE = {
    "42501": "give the role the rights that it needs",
    "53200": "the server has not enough memory",
    "53400": "a limit of the server is reached",
    "57014": "the statement was undone; repeat the transaction if it is still wanted",
    "25P02": "an earlier statement of this transaction failed: leave the block, or put a dao.transaction of its own "
    "around that part",
}
#: Limits that a value of the row is beyond; our statements are the same for any.
_BEYOND = {
    "54000": "a value is too long for an index, whose keys hold some 2,700 bytes on PostgreSQL",
    "54001": "a value is too deeply nested: max_stack_depth of the server is reached",
}
_LACKING = {"42P01", "42703", "42883", "3F000", "42P10"}
#: A value that the column cannot hold: not a time, out of range, not UTF-8.
_UNFIT = "22"


def translated(
    error: Exception,
    connection: Connection,
    sql: str,
    parameters: Sequence[Any],
    *,
    commits: bool,
    table: Table[Any] | None,
) -> errors.Error | None:
    """Return the error of ours for one that a statement raised, or None if it goes on as it is.

    The statement `commits` if it is a transaction by itself.
    """
    if connection in INHERITED:
        return forked()
    # psycopg raises Python's NotImplementedError, and one that is its own, too, where it cannot read a value itself
    if not isinstance(error, psycopg.Error) or isinstance(error, NotImplementedError):  # of psycopg's
        return _of_values(error, connection, parameters)
    if is_ended(error, connection):
        return lost(error, commits=commits and connection.autocommit)
    state = error.sqlstate or ""
    if not state and isinstance(error, psycopg.ProgrammingError):
        check_types(parameters)  # psycopg knows no way to send it
    reason = error.diag.message_primary or str(error)
    name = name_of(connection)
    if state.startswith("23") or state == "P0001":
        return _constraint(error, connection, dict(zip(table.columns, parameters, strict=True)) if table else {})
    if state.startswith(_UNFIT) or isinstance(error, psycopg.DataError):
        return not_taken(parameters) or errors.IntegrityError(reason, table=error.diag.table_name)
    if state in _BEYOND:
        return errors.IntegrityError(
            f"{reason}; {_BEYOND[state]}", table=error.diag.table_name, constraint=error.diag.constraint_name
        )
    if state in _BUSY:
        return errors.DatabaseBusy(f"{name}: {_BUSY[state]} ({reason}): repeat the transaction")
    if is_outdated(error):
        return errors.DatabaseBusy(f"{name}: the schema has changed meanwhile ({reason}): repeat the transaction")
    if state == "53100":
        return errors.DiskFull(f"{name}: no room left to write ({reason}); the write was undone. Free some and repeat")
    if state == "25006":
        return errors.ReadOnlyDatabase(
            f"{name}: {reason}: it is a standby, or read-only by its settings: connect to the primary; with several "
            "hosts in the URL, target_session_attrs=read-write finds it"
        )
    if state in {"XX001", "XX002"}:
        return errors.DatabaseCorrupt(f"{name} is damaged ({reason}): look at the server's log, and at its disk")
    if state in _LACKING:
        if state == "42883":
            check_types(parameters)  # there is no comparison of a text with a UUID, either
        return errors.SchemaOutOfDate(
            f"{name}: {reason}, so its schema is not the one this program needs: run `dao migrate`; if nothing is "
            "pending, `dao status` says what is broken, and search_path may be another"
        )
    return errors.OperationalError(f"{name}: {reason}; {_ADVICE[state]}") if state in _ADVICE else None


def _of_values(error: Exception, connection: Connection, parameters: Sequence[Any]) -> errors.Error | None:
    """Return the error of ours for one of Python's, or of psycopg's own, at a value that is sent or read."""
    if isinstance(error, NotImplementedError):  # of psycopg's, at a time in another DateStyle than ISO
        return errors.OperationalError(f"{name_of(connection)}: {error}: call dao.postgresql.prepare(connection) once")
    if isinstance(error, ValueError) and (wrong := not_taken(parameters)):
        return wrong
    if not isinstance(error, UnicodeEncodeError):
        return None
    if error.encoding.startswith("utf"):
        return errors.IntegrityError("a text holds a lone surrogate, which is no character: it cannot be stored")
    return errors.OperationalError(
        f"{name_of(connection)}: the client_encoding of this connection is {error.encoding}, which has not every "
        "character: open it with client_encoding=UTF8"
    )


def _constraint(error: psycopg.Error, connection: Connection, row: dict[str, Any]) -> errors.IntegrityError:
    state, diag = error.sqlstate, error.diag
    table, constraint = diag.table_name, diag.constraint_name
    found = _KEY.search(diag.message_detail or "")
    columns = found[1].split(", ") if found else [diag.column_name] if diag.column_name else []
    names: dict[str, Any] = {"table": table, "columns": columns, "constraint": constraint}
    if state == "23505":
        return errors.UniqueViolation(f"{table}: another row has this {' and '.join(columns)}", **names)
    if state == "23502":
        return errors.NotNullViolation(f"{table}: {diag.column_name} must have a value", **names)
    if found and state == "23503" and (found[1] in row or constraint == f"{table}_{found[1]}_fkey"):
        missing = row.get(found[1], found[2])
        return errors.ForeignKeyViolation(f"{table}: {found[1]} refers to {missing!r}, which does not exist", **names)
    if state in {"23503", "23001"}:
        return errors.ForeignKeyViolation(
            f"{table}: {constraint} would break: {diag.message_detail or diag.message_primary}", **names
        )
    if state == "23514":
        names["columns"] = _columns_of(connection, constraint, table)
        return errors.CheckViolation(f"{table}: the row breaks the constraint {constraint}", **names)
    return errors.IntegrityError(diag.message_primary or str(error), **names)


def _columns_of(connection: Connection, constraint: str | None, table: str | None) -> list[str]:
    """Return the columns of a CHECK, as far as a catalog can be asked: not in a transaction that has failed."""
    if connection.pgconn.transaction_status != IDLE or not connection.autocommit:
        return []
    with contextlib.suppress(psycopg.Error):
        return [name for (name,) in fetch(connection, _COLUMNS_OF, (constraint, table))]
    return []


_COLUMNS_OF = """
SELECT attname
FROM   pg_constraint
JOIN   pg_class ON pg_class.oid = conrelid
JOIN   pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
WHERE  conname = $1 AND relname = $2 AND contype = 'c' AND pg_table_is_visible(conrelid)
ORDER  BY attnum
"""
