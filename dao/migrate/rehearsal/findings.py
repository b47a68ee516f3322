"""The findings of a rehearsal, of each migration and of the run as a whole. All of them can be written as JSON."""

from __future__ import annotations

from typing import Any, Self

import attrs

from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.values import Difference, Loss, Step
from dao.migrate.verification.round_trip import TripFailure
from dao.text import counted, milliseconds

__all__ = [
    "KEYS",
    "Failure",
    "Gone",
    "Held",
    "Rehearsal",
    "Rehearsed",
    "RoundTrip",
    "RowChange",
]

#: How many rows of a table are named by their keys.
KEYS = 20


@attrs.frozen
class Failure:
    """Why `dao migrate` would stop at a migration: the message, and where in which file, if it is a statement's."""

    message: str
    path: str | None = None
    line: int | None = None

    @classmethod
    def of(cls, error: MigrationFailed | CheckFailed) -> Failure:
        """Return it for the error of a run."""
        path, line = (None, None) if isinstance(error, CheckFailed) else (error.path, error.line)
        return cls(str(error), None if path is None else str(path), line)


@attrs.frozen
class RowChange:
    """How many rows a table had before a script and has after it: None before it is made, and after it is dropped.

    `now` is its name after it, if the script renamed it.
    """

    table: str
    before: int | None
    after: int | None
    now: str | None = None


@attrs.frozen
class Gone:
    """So many rows of a table that are not there any more, and the keys of the first of them, by column.

    A key is the primary key, else the rowid, else the whole row if the table was made again. There are none if the
    columns of the key have changed. A blob is written as x'…'. On PostgreSQL it is the primary key, as JSON has it, of
    rows among the first of a table.
    """

    table: str
    rows: int
    keys: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        rows = f"{counted(self.rows, 'row')} of {self.table}"
        more = "; …" if len(self.keys) < self.rows else ""
        return f"{rows} ({'; '.join(map(_readable, self.keys))}{more})" if self.keys else rows


def _readable(key: dict[str, Any]) -> str:
    """Return the key of a row as a person reads it: `id = 3, name = 'x'`."""
    return ", ".join(f"{column} = {'NULL' if value is None else repr(value)}" for column, value in key.items())


@attrs.frozen
class Held:
    """A lock on a table, view or sequence of before, in PostgreSQL's words, and for how many seconds at most.

    It is held to the end of the transaction. `blocks` says what nobody else can do with the table then.
    """

    name: str
    mode: str
    blocks: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.mode} on {self.name} for up to {milliseconds(self.seconds)}: nobody else can {self.blocks}"


@attrs.frozen(kw_only=True)
class Rehearsed:
    """The effect of one migration on the copy, or on PostgreSQL in the transaction that is rolled back.

    `failure` is why it would fail; then nothing of it is in the copy. `seconds` and `statements` are of its script, and
    `lock_seconds` is how long it would hold the write lock in a transaction of its own.

    `rebuilt` are the tables that it dropped and made again. `lost` are the indexes, triggers, views, constraints and
    options (STRICT) that a rebuild has left out. `misplaced` are the values that it brought into another column or
    type, judged by the first rows, and the AUTOINCREMENT numbers that it set back.

    `rows` are the tables whose number of rows changed, or that were made, dropped or renamed. `gone` are the rows that
    are missing from tables that are still there and have fewer, whether or not a DELETE of the script named them.
    `losses` are the data that it loses, and `undeclared` those of them for which `dao migrate` would refuse it.
    `cascades` are the rows that it would take beyond that if foreign keys were enforced, as they are in other tools;
    `enforced_failure` is why it would fail then. `violations` are the foreign keys that it leaves broken, and the
    objects that no longer work. `bytes_before` and `bytes_after` are the size of the file, and `free_after` is how much
    of that is unused.

    On PostgreSQL only: `locks` are those that it takes first, or makes stronger. `lasting` is what it did that no
    rollback undoes. One that cannot be undone as a whole was not `tried`, and `why` says what is in the way.

    `set` is that of the migration.
    """

    id: str
    path: str | None
    seconds: float = 0.0
    lock_seconds: float = 0.0
    statements: int = 0
    notices: tuple[str, ...] = ()
    failure: Failure | None = None
    rebuilt: tuple[str, ...] = ()
    lost: tuple[Difference, ...] = ()
    misplaced: tuple[str, ...] = ()
    rows: tuple[RowChange, ...] = ()
    gone: tuple[Gone, ...] = ()
    losses: tuple[Loss, ...] = ()
    undeclared: tuple[Loss, ...] = ()
    cascades: tuple[Gone, ...] = ()
    enforced_failure: str | None = None
    violations: tuple[str, ...] = ()
    bytes_before: int = 0
    bytes_after: int = 0
    free_after: int = 0
    locks: tuple[Held, ...] = ()
    lasting: tuple[str, ...] = ()
    tried: bool = True
    why: str | None = None
    set: str | None = None

    @classmethod
    def of(cls, step: Step) -> Self:
        """Return it for a step of which nothing is known yet."""
        path = step.script.path
        return cls(id=step.id, set=step.migration.set, path=None if path is None else str(path))

    @property
    def ok(self) -> bool:
        """Whether `dao migrate` would apply it."""
        return self.failure is None and not self.undeclared


@attrs.frozen(kw_only=True)
class RoundTrip:
    """How the way down and up again went: which were undone and applied again, which cannot be undone, what was wrong.

    An irreversible migration ends the way down; that is no failure.
    """

    undone: tuple[str, ...] = ()
    applied_again: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    failures: tuple[TripFailure, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether schema and rows came back each time."""
        return not self.failures


@attrs.frozen(kw_only=True)
class Rehearsal:
    """The findings of the pending migrations on a copy of the database, or `in_place`: rolled back in the database.

    `migrations` are those that were tried, in order, and `not_reached` the ids of those after one that failed. `bytes`
    is the size of the copy, `in_memory` whether it was there, and `copy_seconds` how long it took to make.
    `lock_seconds` is the longest time for which `dao migrate` would hold the write lock, measured on the copy: a slower
    disk takes longer. The snapshot that is taken under the same lock is not in it. In place there is no copy, and it is
    the longest time of any of the `locks`.
    """

    database: str
    exists: bool = True
    in_place: bool = False
    in_memory: bool = True
    bytes: int = 0
    copy_seconds: float = 0.0
    lock_seconds: float = 0.0
    migrations: tuple[Rehearsed, ...] = ()
    not_reached: tuple[str, ...] = ()
    round_trip: RoundTrip | None = None

    @property
    def seconds(self) -> float:
        """How long the scripts took."""
        return sum(migration.seconds for migration in self.migrations)

    @property
    def ok(self) -> bool:
        """Whether `dao migrate` would apply all that was tried, and the round trip, if there was one, came back.

        If there is something to try, some of it has to be tried.
        """
        came_back = self.round_trip is None or self.round_trip.ok
        tried = not self.migrations or any(migration.tried for migration in self.migrations)
        return came_back and tried and all(migration.ok for migration in self.migrations)
