"""Every exception that this package raises on purpose, in one tree below `Error`.

A value of a wrong type is a plain `TypeError`. A bug in our own SQL surfaces as the driver raised it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dao.base_error import Error

__all__ = [
    "CheckFailed",
    "CheckViolation",
    "CommitUnknown",
    "ConfigurationTypeError",
    "ConnectionBusy",
    "ConnectionLost",
    "CopyFailed",
    "DatabaseBusy",
    "DatabaseCorrupt",
    "DiskFull",
    "Error",
    "ForeignKeyViolation",
    "IntegrityError",
    "InvalidCursor",
    "InvalidURL",
    "InvalidValue",
    "Irreversible",
    "LeaseLost",
    "LedgerMismatch",
    "MigrationError",
    "MigrationFailed",
    "MigrationFileError",
    "NotFound",
    "NotNullViolation",
    "OperationalError",
    "PoolClosed",
    "PoolTimeout",
    "PrepareFailed",
    "ReadOnlyDatabase",
    "ReplicationError",
    "SchemaOutOfDate",
    "SchemaTooNew",
    "StaleRecord",
    "UniqueViolation",
    "UnreadableRow",
    "UnsupportedEngine",
]


# ---------------------------------------------------------------- records


class NotFound(Error, LookupError):
    """No row has this key. `.table` and `.key` say where and what was looked for."""

    def __init__(self, message: str, *, table: str, key: object) -> None:
        super().__init__(message)
        self.table = table
        self.key = key


class StaleRecord(Error):
    """The row moved on since the record was read: read it again, then decide."""

    def __init__(self, message: str, *, table: str, key: object) -> None:
        super().__init__(message)
        self.table = table
        self.key = key


class LeaseLost(StaleRecord):
    """The task is another attempt's by now, or nobody's: what this one wanted to write was not written.

    `.attempt`, `.worker`, `.since` and `.status` are those of the task as it is then: its latest attempt, the worker
    that has it (None: nobody), the moment at which that came about, and its status (None: it has been deleted).
    """

    def __init__(
        self,
        message: str,
        *,
        table: str,
        key: object,
        attempt: int | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        status: str | None = None,
    ) -> None:
        super().__init__(message, table=table, key=key)
        self.attempt = attempt
        self.worker = worker
        self.since = since
        self.status = status


class UnreadableRow(Error):
    """A row holds what this program cannot read: a newer version wrote it, or somebody past the schema's constraints.

    `.table`, `.key`, `.column` and `.value` say where and what; `.value` is bytes where a text is no UTF-8. Nothing
    that is tried again reads it: the program has to be a newer one, or the row has to be corrected in SQL.
    """

    def __init__(self, message: str, *, table: str | None, key: object, column: str | None, value: object) -> None:
        super().__init__(message)
        self.table = table
        self.key = key
        self.column = column
        self.value = value


class InvalidValue(Error, ValueError):
    """A wrong argument, or field of a record: a blank title, a naive datetime, a limit of 5,000."""


class InvalidCursor(InvalidValue):
    """A page cursor that this query did not hand out."""


class ConfigurationTypeError(Error, TypeError):
    """A configuration value is not of the type that was asked for."""

    def __init__(self, message: str, *, key: str, expected: object, found: str) -> None:
        super().__init__(message)
        self.key = key
        self.expected = expected
        self.found = found


class IntegrityError(Error):
    """The database refused a row.

    `.table`, `.columns` and `.constraint` name what refused it, as far as the engine tells
    (SQLite gives primary keys and NOT NULL no name: `.constraint` is None there).
    """

    def __init__(
        self, message: str, *, table: str | None = None, columns: Sequence[str] = (), constraint: str | None = None
    ) -> None:
        super().__init__(message)
        self.table = table
        self.columns = tuple(columns)
        self.constraint = constraint


class UniqueViolation(IntegrityError):
    """Another row has this key."""


class ForeignKeyViolation(IntegrityError):
    """The row refers to one that does not exist."""


class CheckViolation(IntegrityError):
    """A CHECK constraint, or a trigger that guards a rule, refused the row; `.constraint` is its name."""


class NotNullViolation(IntegrityError):
    """A column that must have a value has none."""


# ---------------------------------------------------------------- database


class OperationalError(Error):
    """The database could not do it, whatever the data was."""


class DatabaseBusy(OperationalError):
    """Another connection stood in the way: it held a lock for too long, or the two would not serialise.

    Nothing of the transaction is stored; safe to repeat as a whole.
    """


class ConnectionBusy(DatabaseBusy):
    """A statement or transaction of this same connection stands in the way, so that to wait or to retry does not help.

    A cursor that was not read to its end, or a transaction that read before it writes, holds the database as it was
    then.
    """


class CommitUnknown(OperationalError):
    """The commit met an error after which nobody knows whether it is stored: look before you repeat it.

    It may be complete in the file and not yet on the disk: other connections do not see it now, and find it there
    when the file is opened anew. Their view is final once another commit has succeeded. Every other error of a
    transaction means that nothing of it is stored. Of a statement that is a transaction by itself, SQLite does not
    say whether it failed before its commit: an I/O error or want of memory in one is this, too.
    """


class ConnectionLost(OperationalError):
    """The connection to the server is lost, or could not be made; nothing of its transaction is stored.

    Safe to repeat as a whole, on another connection: `run_in_transaction` does, with a pool.
    """


class DiskFull(OperationalError):
    """No room to write. The transaction was undone."""


class DatabaseCorrupt(OperationalError):
    """The file is damaged, or it is no database at all."""


class ReadOnlyDatabase(OperationalError):
    """The database cannot be written to: opened read-only, or by its permissions."""


class UnsupportedEngine(OperationalError):
    """The engine, or this version of it, is not one to trust data to."""


class CopyFailed(Error):
    """A copy cannot begin, or its target does not hold what its source does; the message says which.

    The rows that the target has stay there, marked as unfinished. `.details` lists the rows that could not be copied.
    """


class PoolTimeout(Error):
    """No connection became free in time."""


class PoolClosed(Error):
    """The pool was closed, or belongs to the parent of this forked process."""


class InvalidURL(Error, ValueError):
    """A database URL that means nothing here. The message says what is allowed; a password is never in it."""


class ReplicationError(Error):
    """Replication cannot begin, or has stopped; or a replica cannot be restored."""


# ---------------------------------------------------------------- migrations


class MigrationError(Error):
    """Base of what migrations raise."""


class MigrationFileError(MigrationError):
    """A migration file is malformed, unreadable, orphaned or there twice."""

    def __init__(self, message: str, *, path: Path, line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class MigrationFailed(MigrationError):
    """A script failed. `.statement` is the SQL that did, at `.path`, line `.line`, for this `.reason`.

    `.committed` is None for a script that asked to run outside a transaction: part of it may be done, and `.advice`
    says what to do then.
    """

    _indent = "    "

    def __init__(
        self,
        message: str,
        *,
        migration: str,
        path: Path | None = None,
        line: int | None = None,
        statement: str | None = None,
        reason: str | None = None,
        details: Iterable[object] = (),
    ) -> None:
        super().__init__(message, details=details)
        self.migration = migration
        self.path = path
        self.line = line
        self.statement = statement
        self.reason = reason


class LedgerMismatch(MigrationError):
    """The ledger, and the files or the schema, do not agree about what was applied.

    Each attribute is a tuple of migration ids; `.drift` of differences between the schema and what the migrations make.
    `.lacking` depend on what is neither applied nor named, and what stays applied depends on those that are `.needed`.
    """

    def __init__(
        self,
        message: str,
        *,
        changed: Sequence[str] = (),
        missing: Sequence[str] = (),
        out_of_order: Sequence[str] = (),
        unfinished: Sequence[str] = (),
        drift: Sequence[str] = (),
        lacking: Sequence[str] = (),
        needed: Sequence[str] = (),
        details: Iterable[object] = (),
    ) -> None:
        super().__init__(message, details=details)
        self.changed = tuple(changed)
        self.missing = tuple(missing)
        self.out_of_order = tuple(out_of_order)
        self.unfinished = tuple(unfinished)
        self.drift = tuple(drift)
        self.lacking = tuple(lacking)
        self.needed = tuple(needed)


class Irreversible(MigrationError):
    """A migration without a rollback script was to be rolled back. Nothing was changed."""

    def __init__(self, message: str, *, migration: str) -> None:
        super().__init__(message)
        self.migration = migration


class CheckFailed(MigrationError):
    """The checks after the scripts found damage, so nothing was committed. `.violations` lists it."""

    def __init__(
        self, message: str, *, violations: Sequence[Any] = (), details: Iterable[object] = (), advice: str | None = None
    ) -> None:
        super().__init__(message, details=details, advice=advice)
        self.violations = tuple(violations)


class PrepareFailed(Error):
    """The program's function that registers with a connection what the schema needs raised, or did more than that."""


class SchemaOutOfDate(MigrationError):
    """The database lacks migrations that this program needs; `.pending` lists their ids.

    `.unfinished` lists those in the middle of which a run ended: a person has to look first.
    """

    def __init__(self, message: str, *, pending: Sequence[str] = (), unfinished: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)
        self.unfinished = tuple(unfinished)


class SchemaTooNew(MigrationError):
    """The database has migrations that this program does not know; `.unknown` lists their ids."""

    def __init__(self, message: str, *, unknown: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)
