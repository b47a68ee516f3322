"""All rows of this package's tables copied from one database into another, and compared."""

from __future__ import annotations

import contextlib
import os
import reprlib
import time
from collections.abc import Sequence
from typing import Any

import attrs

from dao import url
from dao.engine import Connection, absolute, execute, fetch, insert_many, transaction
from dao.errors import CopyFailed, IntegrityError, OperationalError, UnreadableRow
from dao.migrate.database import at_one_moment, columns_of, exists, in_line, opened, table_names
from dao.migrate.ledger import entries, other_tools
from dao.migrate.schema.names import is_internal
from dao.migrate.schema.registration import Prepare, preparing
from dao.rows import TABLES, Table
from dao.settings import OWN
from dao.text import counted
from dao.transfer import mark
from dao.transfer.as_stored import go_on_from, last_number, without_triggers
from dao.transfer.content import Content, Digest, Pages, Row, content, count
from dao.transfer.values import Copied, CopiedTable, Moved, RefusedRow, Report

__all__ = ["copy"]

# Whoever reads `dao reset` may have the source in DATABASE_URL: the messages never name it without --database.

#: A copy ends when so many rows are refused.
_MOST_REFUSED = 100
_AGAIN = "What was copied stays in the target, marked as unfinished: repeat the command, and it goes on from there."


def copy(
    source: str | url.AnyURL,
    target: str | url.AnyURL,
    *,
    dry_run: bool = False,
    lock_timeout: float | None = None,
    prepare: Prepare | None = None,
    report: Report | None = None,
) -> Copied:
    """Copy all rows of this package's tables from one database into another, which is at the same schema version.

    Either may be on SQLite or PostgreSQL. The source is opened for reading only, and read as of one moment; others go
    on with it. Long reading keeps SQLite's WAL from being taken into the file, and PostgreSQL from vacuuming. The
    target's tables must be empty. It is locked against migrations, not against other writers; keep them away.

    Rows arrive as they are, ids and times included, in batches that commit; none of the target's triggers fires, which
    takes the right to alter its tables on PostgreSQL. At the end the target is read back: each
    table must have as many rows as the source had, with the same hash. Until then the target is marked as unfinished:
    `migrate.status`, `assert_current` and `migrate.check` say so. A run that was broken off, by whatever, can be
    repeated: it keeps what the target has of a table if the source still begins with the same rows, and copies the
    table anew, and those after it, if not. A row that this program cannot read, since somebody wrote past the schema's
    constraints, or that the target does not store, since only one of the engines can, is passed over, so that all of
    them are found, and the copy fails at its end.

    `dry_run`: the same is checked and counted, the right to write included, and nothing is changed. `prepare` is as in
    `migrate.apply`. Waiting for another migrator ends after `lock_timeout` seconds; None: with that one.

    Raises:
        CopyFailed: The target is not one to copy into, or does not hold what the source does. It stays marked.
        DatabaseBusy, ConnectionLost, DiskFull, …: It was broken off; safe to repeat.
        InvalidURL: A URL means nothing, or a database in memory.
    """
    begun = time.perf_counter()
    reading, writing = _ends(source, target)
    with (
        preparing(prepare),
        opened(reading, read_only=True) as reader,
        in_line(writing, lock_timeout, report, locked=True) as (_, writer),
        at_one_moment(reader),
    ):
        for connection, database in ((reader, reading), (writer, writing)):
            if isinstance(database, url.ServerURL):
                # a policy that hides rows from the role would hide them from the comparison, too
                execute(connection, "SET row_security = off")
        _check_apart(reader, reading, writer, writing)
        _check_schemas(reader, reading.name, writer, writing.name)
        run = _Copy(reader, writer, reading.name, writing.name, report, _left(writer, writing.name, report))
        _try_to_write(writer)
        if dry_run:
            tables = [CopiedTable(name=name, rows=rows) for name, rows in run.totals.items()]
        else:
            if isinstance(writing, url.DatabaseURL) and writing.foreign_keys is not False:
                execute(writer, "PRAGMA foreign_keys = ON")  # a migrator has them off
            tables = run.all()
        ledgers = {other.table for other in other_tools.found(reader)}  # and of a replicator: none of the rows is data
        beside = {name for name in table_names(reader) if not is_internal(name)} - run.totals.keys() - ledgers
    return Copied(
        source=reading.name,
        target=writing.name,
        tables=tuple(tables),
        left_out=tuple(sorted(beside)),
        seconds=time.perf_counter() - begun,
    )


# ---------------------------------------------------------------- before it begins


def _ends(source: str | url.AnyURL, target: str | url.AnyURL) -> tuple[url.AnyURL, url.AnyURL]:
    """Return both URLs, with which nothing is created, and the source is read only."""
    reading, writing = url.parse(source), url.parse(target)
    for database in (reading, writing):
        if database.is_memory:
            raise CopyFailed("a database in memory is its connection's: name a file or a server to copy from and to")
        if not exists(database):
            raise CopyFailed(
                f"{os.path.abspath(database.name)} does not exist: name another database, or make it with `dao migrate`"
            )
    if isinstance(reading, url.DatabaseURL):
        reading = attrs.evolve(reading, mode="ro")
    if isinstance(writing, url.DatabaseURL):
        if writing.mode == "ro":
            raise CopyFailed(f"{writing.name} is to be opened read-only: leave mode=ro out of the target's URL")
        writing = attrs.evolve(writing, mode="rw")
    return reading, writing


def _check_apart(reader: Connection, reading: url.AnyURL, writer: Connection, writing: url.AnyURL) -> None:
    if type(reader) is type(writer) and _identity(reader, reading) == _identity(writer, writing):
        raise CopyFailed(f"{reading.name} and {writing.name} are the same database: name another to copy into")


def _identity(connection: Connection, database: url.AnyURL) -> object:
    if isinstance(database, url.ServerURL):
        return fetch(
            connection,
            "SELECT pg_postmaster_start_time()::text, oid::text, current_schema() FROM pg_database "
            "WHERE datname = current_database()",
        )
    found = os.stat(absolute(database).name)
    return found.st_dev, found.st_ino


def _check_schemas(reader: Connection, source: str, writer: Connection, target: str) -> None:
    """Refuse two databases that are not at the same schema version, or at one of which this program does not know."""
    ledgers = {source: entries.read(reader), target: entries.read(writer)}
    for name, ledger in ledgers.items():
        if ledger.unfinished:
            raise CopyFailed(
                f"{name} is in the middle of a migration ({', '.join(ledger.unfinished)}): bring that to its end first "
                "(`dao status`)"
            )
    # the tables of other sets are not copied
    ids = {name: [one.id for one in ledger.entries if one.set in {None, OWN}] for name, ledger in ledgers.items()}
    both = {*ids[source]} & {*ids[target]}
    alone = [f"only {name} has {id}" for name, its in ids.items() for id in its if id not in both]
    if alone:
        raise CopyFailed(
            f"{source} and {target} are not at the same schema version: bring them there (`dao migrate --database "
            "URL`), then repeat",
            details=alone,
        )
    for connection, name in ((reader, source), (writer, target)):
        for table in TABLES:
            unknown = [column for column in columns_of(connection, table.name) if column not in table.columns]
            if unknown:
                raise CopyFailed(
                    f"{name}: {table.name} has columns that this program does not know ({', '.join(unknown)}), and "
                    "would not copy: use the version that they belong to; columns of your own have to be copied by "
                    "your own means, in a table of their own"
                )


def _left(writer: Connection, target: str, report: Report | None) -> dict[str, Digest]:
    """Return what an earlier run left in the target's tables, nothing if it is empty.

    Raises:
        CopyFailed: It holds other rows.
    """
    left, held = mark.read(writer), [table for table in TABLES if count(writer, table)]
    if not held:
        return {}
    if left is None:
        raise CopyFailed(
            f"{target} is not empty: {', '.join(table.name for table in held)} hold rows, and a copy goes into empty "
            "tables only: name another database, or empty this one (`dao reset --database URL`, with its URL)"
        )
    for table in TABLES:
        told = _teller(report, "comparing", table, left[table.name].rows if table.name in left else 0)
        if content(writer, table, told) != left.get(table.name, Content().digest):
            raise CopyFailed(
                f"{target} holds a copy that has not ended, and somebody has written to {table.name} since: look which "
                "program uses it already. To copy anew, empty it (`dao reset --database URL`, with its URL)"
            )
    return left


def _teller(report: Report | None, doing: Any, table: Table[Any], total: int) -> Any:
    if report is None:
        return lambda _done: None
    return lambda done: report(Moved(doing, table.name, done, total))


class _Undone(Exception):
    """Ends a transaction that was a trial."""


def _try_to_write(writer: Connection) -> None:
    """Find out whether the target can be written to, and leave it as it is."""
    with contextlib.suppress(_Undone), transaction(writer):
        mark.begin(writer)
        with without_triggers(writer, *TABLES):
            pass
        raise _Undone


# ---------------------------------------------------------------- the copy


class _Copy:
    """One run: from a reader, whose transaction sees one moment, to a writer."""

    def __init__(
        self,
        reader: Connection,
        writer: Connection,
        source: str,
        target: str,
        report: Report | None,
        left: dict[str, Digest],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._source = source
        self._target = target
        self._report = report
        self._left = left
        self._refused: list[RefusedRow] = []
        self.totals = {table.name: count(reader, table) for table in TABLES}
        self._last_number = last_number(reader)

    def all(self) -> list[CopiedTable]:
        """Copy all tables, compare them, and take the mark away."""
        if not self._left:
            mark.begin(self._writer)
        try:
            with transaction(self._writer):
                go_on_from(self._writer, self._last_number)
            tables = [self._table(table) for table in TABLES]
            if self._refused:
                raise self._refusal()
            self._verify(tables)
        except OperationalError as error:
            error.advice = error.advice or _AGAIN
            raise
        try:
            mark.end(self._writer)
        except OperationalError as error:
            error.advice = "Every row is there and compared. If `dao status` still says that rows are missing, repeat."
            raise
        return tables

    def _refuse(self, table: Table[Any], key: tuple[object, ...], reason: str) -> None:
        """Note a row that cannot be copied.

        Raises:
            CopyFailed: They are too many.
        """
        self._refused.append(RefusedRow(table.name, key, reason))
        if len(self._refused) == _MOST_REFUSED:
            raise self._refusal(" or more")

    def _refusal(self, more: str = "") -> CopyFailed:
        return CopyFailed(
            f"{counted(len(self._refused), 'row')}{more} of {self._source} cannot be copied into {self._target}: "
            "correct or delete them in the source, then repeat",
            details=self._refused,
        )

    def _pages(self, table: Table[Any]) -> Pages:
        """Return the rows of the source, from the first on."""
        self._refused = [row for row in self._refused if row.table != table.name]

        def passed(error: UnreadableRow) -> None:
            key = error.key if isinstance(error.key, tuple) else (error.key,)
            self._refuse(table, key, f"{error.column} is {reprlib.repr(error.value)}, which no record can have")

        return Pages(self._reader, table, passed)

    def _table(self, table: Table[Any]) -> CopiedTable:
        pages, done = self._pages(table), Content()
        left = self._left.get(table.name)
        if left is not None:
            told = _teller(self._report, "comparing", table, left.rows)
            while done.rows < left.rows and (rows := pages.next(left.rows - done.rows)):
                done = done.plus(rows)
                told(done.rows)
            if done.digest != left:
                self._begin_again(table)
                pages, done = self._pages(table), Content()
        kept = done.rows
        told = _teller(self._report, "copying", table, self.totals[table.name])
        while rows := pages.next():
            done = self._store(table, pages, rows, done)
            told(done.rows)
        return CopiedTable(name=table.name, rows=done.rows, kept=kept, hash=done.digest.hash)

    def _begin_again(self, table: Table[Any]) -> None:
        """Empty a table and those after it, which may refer to it: the source has changed since they were copied."""
        again = TABLES[TABLES.index(table) :]
        with transaction(self._writer), without_triggers(self._writer, *TABLES):
            for one in reversed(again):
                execute(self._writer, f"DELETE FROM {one.name}")
                mark.forget(self._writer, one.name)
        for one in again:
            self._left.pop(one.name, None)

    def _store(self, table: Table[Any], pages: Pages, rows: list[Row], done: Content) -> Content:
        """Store rows after those that are there, with the note of it, and return what is there then."""
        more = done.plus(rows)
        try:
            with transaction(self._writer), without_triggers(self._writer, table):
                insert_many(self._writer, table, rows)
                mark.note(self._writer, table.name, more.digest)
            return more
        except IntegrityError:
            pass  # which rows are to blame only a try of each can tell
        with transaction(self._writer), without_triggers(self._writer, table):
            for row in rows:
                try:
                    insert_many(self._writer, table, [row])
                except IntegrityError as error:
                    self._refuse(table, pages.key_of(row), str(error))
                else:
                    done = done.plus([row])
            mark.note(self._writer, table.name, done.digest)
        return done

    def _verify(self, tables: Sequence[CopiedTable]) -> None:
        """Read the target back, as of one moment, and refuse another content than the source's."""
        with at_one_moment(self._writer):
            for table, copied in zip(TABLES, tables, strict=True):
                there = content(self._writer, table, _teller(self._report, "verifying", table, copied.rows))
                if there != (copied.rows, copied.hash):
                    raise CopyFailed(
                        f"{self._target}: {table.name} does not hold what {self._source} does: "
                        f"{counted(there.rows, 'row')} with the hash {there.hash}, for "
                        f"{counted(copied.rows, 'row')} with the hash {copied.hash}. Somebody wrote to it meanwhile, "
                        "or a trigger of yours changes rows: keep both away, empty it (`dao reset --database URL`, "
                        "with its URL), and repeat"
                    )
