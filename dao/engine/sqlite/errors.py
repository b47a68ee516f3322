"""SQLite's errors as ours: their kind, and the names of table, columns and constraint as far as SQLite tells."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import apsw

from dao import errors
from dao.engine.sqlite import database_file

if TYPE_CHECKING:  # the records' modules are not needed to open a database
    from dao.rows import Table

__all__ = ["BUSY", "file_of", "missing_parent", "raised_by_program", "to_register", "translate", "unknown_outcome"]


def file_of(connection: apsw.Connection) -> str:
    """Return the absolute path of the connection's database, "" for one in memory."""
    return connection.filename or ""


#: Another connection is in the way. A protocol error is a race for the WAL's locks that went on for too long
#: (sqlite.org/rescode.html#protocol).
BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)
_CORRUPT = (apsw.CorruptError, apsw.NotADBError)
# these are SQLErrors: the format of the schema is newer than any that there is, or its encoding is another one
_FOREIGN = {"unsupported file format", "attached databases must use the same text encoding as main database"}
_ADVICE = {
    apsw.CantOpenError: "check that the file and its folder are there, and their permissions; to read a database in "
    "WAL mode, too, SQLite makes a file beside it, unless its URL says mode=ro&immutable=on, which is for one that "
    "nobody can write to, as on read-only media",
    apsw.IOError: "check the disk and the file system, and the database with PRAGMA integrity_check",
    apsw.InterruptError: "the statement was undone; repeat the transaction if it is still wanted",
    apsw.NoMemError: "there is not enough memory: free some, or raise the limit of the process or of SQLite's heap",
    apsw.PermissionsError: "check the permissions of the file and its folder",
    apsw.TooBigError: "a text, a blob or a statement is larger than SQLite's limit (1 GB unless it was lowered)",
}

# SQLite's words where something is missing that a program registers with its connection. The last are all that it says
# of the collation of a key in a table WITHOUT ROWID.
_MISSING = re.compile(
    r"(?:^|: )(?:(?:(?:no such|unknown)(?: window)? function|no such (?:collation sequence|module|tokenizer)|"
    r"unknown tokenizer): |no query solution$)"
)
# and where it may not be used. A schema that is read after that is "malformed".
_FORBIDDEN = {
    "unsafe use of ": "a schema may use what is registered as innocuous (flags=apsw.SQLITE_INNOCUOUS), or anything "
    "once the program sets PRAGMA trusted_schema = on",
    "non-deterministic functions prohibited in ": "register one of your own with deterministic=True",
}


def to_register(reason: str, how: str) -> str | None:
    """Return what helps, by SQLite's words, if it is about what a program registers: if something is missing, `how`."""
    if _MISSING.search(reason):
        return how
    return next((advice for words, advice in _FORBIDDEN.items() if words in reason), None)


#: The files of apsw through which it calls what a program has registered; traceback names them.
_CALLERS = ("connection.c", "vtable.c", "fts.c")


def raised_by_program(error: BaseException) -> str | None:
    """Return what a function, collation, module or tokenizer of a program raised, and where; None for other errors."""
    if isinstance(error, apsw.Error | errors.Error):
        return None
    import traceback  # noqa: PLC0415 - for what is rare

    places = traceback.extract_tb(error.__traceback__)
    if not any(place.filename.endswith(_CALLERS) for place in places):
        return None
    last = places[-1]
    # one that is written in C has no line of its own
    where = last.name if last.filename.endswith(_CALLERS) else f"{last.filename}:{last.lineno}"
    return f"a function of the program raised {type(error).__name__}: {error} ({where})"


def translate(error: BaseException, connection: apsw.Connection, name: str = "") -> errors.Error | None:
    """Return the `dao.Error` for an error of SQLite's, or None if the caller could do nothing about it.

    Messages call the database by this name, or by that of its file.
    """
    if isinstance(error, apsw.ConstraintError):
        return _constraint(error, connection)
    if not isinstance(error, apsw.Error):
        return None
    name = name or database_file.called(connection)
    if isinstance(error, BUSY):
        return _own_obstacle(error, connection, name) or errors.DatabaseBusy(
            f"{name} is locked by another connection ({error}): try again"
        )
    if _is_full(error, connection):
        return errors.DiskFull(f"{name}: no room left to write; the write was undone. Free some space and repeat")
    if isinstance(error, apsw.CorruptError) and (advice := to_register(str(error), "register it")):
        return errors.OperationalError(f"{name}: {str(error).rpartition(' - ')[2]}; {advice}")  # not malformed
    if isinstance(error, _CORRUPT) or str(error) in _FOREIGN:
        return errors.DatabaseCorrupt(
            f"{name} is damaged or no SQLite database ({error}): restore a snapshot (`dao restore`; what was written "
            "since is lost) or a backup, or name another file if this is not the one that is meant"
        )
    if isinstance(error, apsw.ReadOnlyError):
        return errors.ReadOnlyDatabase(database_file.why_read_only(connection, _extended(error)))
    if isinstance(error, apsw.CantOpenError) and (obstacle := database_file.no_more_files(name)):
        return obstacle
    advice = next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), None)
    return errors.OperationalError(f"{name}: {error}; {advice}") if advice else None


def _is_full(error: apsw.Error, connection: apsw.Connection) -> bool:
    if not isinstance(error, apsw.IOError):
        return isinstance(error, apsw.FullError)
    system = error.__cause__.errno if isinstance(error.__cause__, OSError) else connection.system_errno
    # SQLite says of the index of a WAL, which it makes when a database is opened, only that it has not the size
    return system in database_file.NO_ROOM or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE


def _own_obstacle(error: apsw.Error, connection: apsw.Connection, name: str) -> errors.ConnectionBusy | None:
    """Return an error if it is the connection itself, and no other, that keeps it from going on."""
    # without a transaction it is another connection that was faster, for all of the busy timeout
    if _extended(error) == apsw.SQLITE_BUSY_SNAPSHOT and connection.txn_state() != apsw.SQLITE_TXN_NONE:
        return errors.ConnectionBusy(
            f"{name} was changed by another connection since this one began to read it, so this one cannot write: "
            "finish or close the cursor, or end the transaction, that reads, and begin anew; dao.transaction takes "
            "the lock before it reads"
        )
    if _extended(error) == apsw.SQLITE_LOCKED or str(error).endswith("SQL statements in progress"):
        return errors.ConnectionBusy(
            f"{name}: another statement of this connection is not at its end ({error}): finish or close its cursor"
        )
    return None


def unknown_outcome(error: BaseException, connection: apsw.Connection) -> errors.CommitUnknown | None:
    """Return the error for a commit that failed so that nobody knows whether it is stored, or None if it is not stored.

    When a sync fails, or there is no memory or no room for the index of the WAL, the commit may already be complete in
    the file.
    """
    # a commit that has been written reads no more
    if not isinstance(error, apsw.IOError | apsw.NoMemError) or _extended(error) in {
        apsw.SQLITE_IOERR_READ,
        apsw.SQLITE_IOERR_SHORT_READ,
    }:
        return None
    advice = "free some memory" if isinstance(error, apsw.NoMemError) else "check the disk and the file system"
    return errors.CommitUnknown(
        f"{database_file.called(connection)}: the commit failed ({error}), and whether it is stored cannot be known: "
        f"{advice}, and look at what is there before you repeat it"
    )


def _extended(error: apsw.Error) -> int:
    # apsw's stubs do not know the attribute, and the errors of a file system in Python do not have it
    return int(getattr(error, "extendedresult", 0))


# ---------------------------------------------------------------- constraints


def _constraint(error: apsw.ConstraintError, connection: apsw.Connection) -> errors.IntegrityError | None:
    message, code = str(error), _extended(error)
    detail = message.partition(": ")[2]
    columns = [name.rpartition(".")[2] for name in detail.split(", ")]
    table: str | None = detail.partition(".")[0] or None
    if code == apsw.SQLITE_CONSTRAINT_CHECK:
        table, columns = _checked_columns(connection, detail)
        message = f"{f'{table}: ' if table else ''}the row breaks the constraint {detail}"
        return errors.CheckViolation(message, table=table, columns=columns, constraint=detail)
    # ON DELETE RESTRICT is a trigger inside, and comes with the code of one
    if code == apsw.SQLITE_CONSTRAINT_FOREIGNKEY or message == "FOREIGN KEY constraint failed":
        message = "a foreign key would break: the row refers to one that does not exist, or others refer to the row"
        return errors.ForeignKeyViolation(message)
    if code in {apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_ROWID}:
        if index := re.fullmatch(r"index '(.*)'", detail):  # one on expressions: they have no names
            message = f"another row has the same value in the unique index {index[1]}"
            return errors.UniqueViolation(message, constraint=index[1])
        message = f"{table}: another row has this {' and '.join(columns)}"
        return errors.UniqueViolation(message, table=table, columns=columns)
    if code == apsw.SQLITE_CONSTRAINT_NOTNULL:
        return errors.NotNullViolation(f"{table}: {columns[0]} must have a value", table=table, columns=columns)
    if code == apsw.SQLITE_CONSTRAINT_DATATYPE:
        # "cannot store TEXT value in INTEGER column tasks.x"
        table, _, column = message.partition(" column ")[2].partition(".")
        return errors.IntegrityError(message, table=table, columns=[column])
    # RAISE in a trigger: one that says its own name guards a rule, as a CHECK does
    if table := _guarded_table(connection, message):
        reason = f"{table}: the row breaks the constraint {message}"
        return errors.CheckViolation(reason, table=table, constraint=message)
    return errors.IntegrityError(message)


def _guarded_table(connection: apsw.Connection, trigger: str) -> str | None:
    """Return the table that has a trigger of this name."""
    with contextlib.suppress(apsw.Error):  # the violation is what the caller needs to know
        sql = "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name = ?"
        for (table,) in connection.execute(sql, (trigger,)).fetchall():
            return str(table)
    return None


def _checked_columns(connection: apsw.Connection, constraint: str) -> tuple[str | None, list[str]]:
    """Return the table that has the named CHECK, and the columns in it."""
    declared = re.compile(rf"\bCONSTRAINT\s+[\"\[`]?{re.escape(constraint)}[\"\]`]?\s+CHECK\b", re.IGNORECASE)
    try:
        tables: list[Any] = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        for table, sql in tables:
            code = re.sub(r"'[^']*'", "''", sql or "")
            if found := declared.search(code):
                words = set(re.findall(r"\w+", _in_parentheses(code[found.end() :])))
                names: list[Any] = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
                return table, [name for (name,) in names if name in words]
    except apsw.Error:
        pass  # the violation is what the caller needs to know
    return None, []


def _in_parentheses(code: str) -> str:
    depth = 0
    for position, character in enumerate(code):
        depth += (character == "(") - (character == ")")
        if character == ")" and not depth:
            return code[:position]
    return code


def missing_parent(
    connection: apsw.Connection, table: Table[Any], row: Sequence[Any]
) -> errors.ForeignKeyViolation | None:
    """Return the violation of the foreign key whose parent is missing: SQLite says only that some key is broken."""
    for column, value in zip(table.columns, row, strict=True):
        parent = table.references.get(column)
        if parent is None or value is None:
            continue
        if not connection.execute(f"SELECT 1 FROM {parent} WHERE id = $1", (value,)).fetchall():
            return errors.ForeignKeyViolation(
                f"{table.name}: {column} refers to {value!r}, which does not exist",
                table=table.name,
                columns=[column],
                constraint=f"{table.name}_{column}_fkey",
            )
    return None
