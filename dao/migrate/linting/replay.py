"""Replays scripts in an empty database in memory and keeps, for every statement, what SQLite's compiler said of it.

The authorizer tells what a statement touches, the schema before and after it what it did. A copy serves
to try what only a database with rows shows, or another way of compiling the statement: the replay itself runs
everything once, as the runner does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import apsw

from dao import errors
from dao.engine.sqlite import Connection
from dao.migrate.copies.copying import copy_into
from dao.migrate.linting.schema import Schema, read
from dao.migrate.linting.subject import REMOVING, TEMPORARY, Event, Failure, Statement, Subject
from dao.migrate.linting.trials import LONG, double_quoted, failure_with_rows, lacks_where, misfits
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.names import fold
from dao.migrate.schema.registration import register
from dao.migrate.schema.script import Running, Watcher
from dao.migrate.schema.session import apart, in_memory
from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.statements import has_statement, start_of_statement
from dao.migrate.values import Step

__all__ = ["Replay"]

T = TypeVar("T")

_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_CREATES = frozenset(value for name, value in vars(apsw).items() if name.startswith("SQLITE_CREATE_"))
_DDL = REMOVING | _CREATES
_OTHERS = {apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_PRAGMA, apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT}


class Replay:
    """A database in memory in which scripts are run, one after the other."""

    def __init__(self) -> None:
        self.connection = in_memory()
        # it is copied often, and most tables hold nothing
        self.connection.pragma("page_size", 1024)
        self.schema = read(self.connection)
        self._version = 0
        self._twin: Connection | None = None

    def copy(self) -> Replay:
        """Return another one, with the same database."""
        other = Replay()
        # no deserialize: such a database is serialized without what its transaction has not yet committed
        copy_into(other.connection, self.connection)
        other.schema, other._version = self.schema, other._read_version()
        return other

    def close(self) -> None:
        """Close the database."""
        self._forget_twin()
        self.connection.close()

    def twin(self) -> Connection:
        """Return a copy of the database as it is now, for trials within `undone`; good until the schema changes."""
        if self._twin is None:
            self._twin = apsw.Connection(":memory:")
            register(self._twin)
            self._twin.set_progress_handler(lambda: True, LONG)
            # the script's transaction is open, and no backup reads from a connection that writes
            self._twin.deserialize("main", self.connection.serialize("main"))
        return self._twin

    def _forget_twin(self) -> None:
        if self._twin is not None:
            self._twin.close()
            self._twin = None

    def run(self, step: Step, origin: Schema | None = None) -> Subject:
        """Run a script and return it as it was seen. After a statement that failed, it goes on with the next."""
        before, run = self.schema, _Run(self, step)
        failure, refused = self._work(step.script, run.to_the_end)
        if refused and failure is None:
            last = run.statements[-1]
            failure = Failure(step.script.text.count("\n", 0, last.begin) + 1, refused, last)
        self.look_again()
        return Subject(
            step=step,
            origin=origin or before,
            before=before,
            after=self.schema,
            statements=run.statements,
            failure=failure,
        )

    def run_unseen(self, step: Step) -> bool:
        """Run a script as `run` does, but look at nothing, and return whether it came to its end without a failure.

        The next script that is to be seen needs a `look_again` before it.
        """
        running = Running(self.connection, step.id, step.script)
        failures, refused = self._work(step.script, lambda: [*_failures(running)])
        return not (failures or refused or running.savepoints)

    def _work(self, script: Script, work: Callable[[], T]) -> tuple[T, str | None]:
        """Do some work in a connection that is set up for a script; return also why SQLite refused to commit it."""
        refused = None
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, int(script.foreign_keys))
        if script.transactional:
            self.connection.execute("BEGIN")
        with apart(self.connection, script.text):
            done = work()
        if self.connection.in_transaction:
            try:
                self.connection.execute("COMMIT")
            except apsw.ConstraintError as error:  # a foreign key that is deferred
                refused = str(error)
                self.connection.execute("ROLLBACK")
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
        return done, refused

    def look_again(self, *, only_added: bool = False) -> None:
        """Read the schema if it has changed, or only grown."""
        version = self._read_version()
        if version != self._version:
            schema = read(self.connection, self.schema, only_added=only_added)
            self._version = version
            if schema != self.schema:
                self._forget_twin()
                self.schema = schema

    def _read_version(self) -> int:
        return int(self.connection.pragma("schema_version"))


def _failures(running: Running) -> Iterator[errors.Error]:
    """Run a script to its end, and yield the failure of each statement that is passed over on the way."""
    while running.end < len(running.script.text):
        try:
            running.execute()
            return
        except errors.Error as error:
            yield error


class _Run(Watcher):
    """One script in the replay."""

    heeded = _DDL | _WRITES | _OTHERS

    def __init__(self, replay: Replay, step: Step) -> None:
        self.statements: list[Statement] = []
        self._replay, self._script = replay, step.script
        self._holdings = Holdings(replay.connection)
        # of the statement that is being compiled: what the authorizer told, each with what has a name and holds it
        self._events: list[tuple[str | None, Event]] = []
        self._ignored: list[str] = []
        self._running = Running(replay.connection, step.id, step.script, notice=self._ignored.append, watcher=self)
        self._begun = 0  # the statements up to here have begun
        # tables that hold rows in a database that is in use: those of before, and what is copied from them
        self._with_rows = set(replay.schema.tables)

    def to_the_end(self) -> Failure | None:
        """Run it, and return the first failure."""
        failure: Failure | None = None
        running = self._running
        for error in _failures(running):
            self._finish_statement(failed=True)
            if running.begin >= self._begun:  # it was not even begun
                self._add(running.begin, running.end)
            self._events.clear()
            self._ignored.clear()
            failure = failure or self._failure(error)
        self._finish_statement()
        try:
            running.check()
        except errors.MigrationFailed as error:
            failure = failure or self._failure(error)
        return failure

    def _failure(self, error: errors.Error) -> Failure:
        last = self.statements[-1]
        if isinstance(error, errors.MigrationFailed):
            line = error.line or self._script.text.count("\n", 0, last.begin) + 1
            return Failure(line, error.reason or "", last)
        return Failure(1, str(error), last)  # a disk that is full, which only memory can be here

    def saw(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> None:
        """Note what a statement does, but for what a trigger does, to the tables of the main database."""
        if action == apsw.SQLITE_ALTER_TABLE:
            first, second, database = second, database, first
        name = fold(first or "")
        reads = action == apsw.SQLITE_READ
        if (
            (trigger is None or reads)
            and (database in {None, "main", "temp"} or action in TEMPORARY or reads)
            and (not name.startswith("sqlite_") or (name == "sqlite_sequence" and action in _WRITES))
        ):
            temporary = name if database == "temp" else ""
            first = "" if temporary and action not in TEMPORARY else first
            self._events.append((trigger, Event(action, first or "", second or "", temporary)))

    def before_statement(self, sql: str, cursor: apsw.Cursor) -> None:
        """Note a statement, and try it where it can be tried."""
        self.looking = True
        try:
            self._next_statement(sql, is_readonly=cursor.is_readonly)
        finally:
            self.looking = False

    def _next_statement(self, sql: str, *, is_readonly: bool) -> None:
        self._begun = self._running.end
        # a view or trigger is not the statement, a WITH is
        programs = self._holdings.programs({fold(within) for within, _ in self._events if within})
        own = [event for within, event in self._events if within is None or fold(within) not in programs]
        ignored = tuple(self._ignored)
        self._events.clear()
        self._ignored.clear()
        self._finish_statement()
        if not has_statement(sql):
            return
        statement = self._add(self._running.begin, self._running.end)
        statement.events, statement.ignored = tuple(dict.fromkeys(own)), ignored
        inside = self._replay.connection.in_transaction
        ends = any(event.action == apsw.SQLITE_TRANSACTION and event.first == "COMMIT" for event in own)
        statement.commits = not self._script.transactional and (ends if inside else not is_readonly)
        self._examine(statement, sql)

    def _add(self, begin: int, end: int) -> Statement:
        text, schema = self._script.text, self._replay.schema
        begin = min(start_of_statement(text, begin), end)
        end = begin + len(text[begin:end].rstrip())
        self.statements.append(Statement(begin=begin, end=end, before=schema, after=schema))
        return self.statements[-1]

    def _finish_statement(self, *, failed: bool = False) -> None:
        """See what the statement that has just run did to the schema; one that `failed` may have rolled it back."""
        if not self.statements:
            return
        statement = self.statements[-1]
        if statement.only_inserts and not failed:
            return
        only_adds = not failed and bool(statement.tables(*_CREATES)) and not statement.tables(*REMOVING)
        self._replay.look_again(only_added=only_adds)
        if self._replay.schema is not statement.after:
            statement.after = self._replay.schema
            self._with_rows |= {new for old, new in statement.renamed.items() if old in self._with_rows}
            self._with_rows &= statement.after.tables.keys()
        if self._with_rows.intersection(statement.tables(apsw.SQLITE_READ)):
            written = statement.tables(apsw.SQLITE_INSERT, apsw.SQLITE_CREATE_TABLE)
            self._with_rows |= statement.after.tables.keys() & written

    # ------------------------------------------------------------ what only a trial shows

    def _examine(self, statement: Statement, sql: str) -> None:
        twin, tables = self._replay.twin, statement.before.tables
        if '"' in sql and statement.events:
            statement.quotes = double_quoted(twin(), sql)
        if statement.only_inserts:
            return
        actions = {event.action for event in statement.events}
        if not actions & (_DDL | {apsw.SQLITE_INSERT}) and actions & _WRITES:
            event = next(event for event in statement.events if event.action in _WRITES)
            if fold(event.first) in tables and lacks_where(twin(), sql):
                statement.without_where = (event.action, event.first)
        altered, inserted = statement.tables(apsw.SQLITE_ALTER_TABLE), statement.tables(apsw.SQLITE_INSERT)
        sources = altered + (statement.tables(apsw.SQLITE_READ) if inserted else [])
        full = [tables[name] for name in sources if name in self._with_rows and name in tables]
        if full:
            statement.fails_on_rows = failure_with_rows(twin(), sql, full, copies=not altered)
        target = tables.get(inserted[0]) if len(inserted) == 1 else None
        if len(full) == 1 and target is not None and not altered and not statement.fails_on_rows:
            statement.misfits = misfits(twin(), sql, full[0], target)
