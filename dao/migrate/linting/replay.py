"""Replays scripts in an empty database in memory and keeps, for every statement, what SQLite's compiler said of it.

The authorizer tells what a statement touches, the schema before and after it what it did. What could only be seen in a
database with rows, or by compiling the statement in another way, is tried in a copy: the replay itself runs everything
once, as the runner does.
"""

from __future__ import annotations

import apsw

from dao import errors
from dao.engine import Connection, connect
from dao.engine.sqlite import use_defaults
from dao.migrate.copies.files import copy_into
from dao.migrate.linting.schema import Schema, read
from dao.migrate.linting.seen import TEMPORARY, Event, Failure, Statement, Subject
from dao.migrate.linting.trials import double_quoted, failure_with_rows, lacks_where, misfits
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.run.script import _culprit, _fail, _Script
from dao.migrate.schema.catalog import fold
from dao.migrate.schema.session import apart
from dao.migrate.scripts.statements import has_statement, start_of_statement
from dao.migrate.values import Step

__all__ = ["Replay"]

_DDL = frozenset(
    value for name, value in vars(apsw).items() if name.startswith(("SQLITE_CREATE_", "SQLITE_DROP_", "SQLITE_ALTER_"))
)
_KEPT = _DDL | {
    apsw.SQLITE_INSERT,
    apsw.SQLITE_UPDATE,
    apsw.SQLITE_DELETE,
    apsw.SQLITE_READ,
    apsw.SQLITE_SELECT,
    apsw.SQLITE_PRAGMA,
    apsw.SQLITE_TRANSACTION,
    apsw.SQLITE_SAVEPOINT,
}
_WRITES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_SCHEMA_TABLES = {"sqlite_master", "sqlite_schema"}


class Replay:
    """A database in memory in which scripts are run, one after the other."""

    def __init__(self) -> None:
        self.connection = connect("sqlite:///:memory:?foreign_keys=off")
        use_defaults(self.connection)
        # it is copied often, and most tables hold nothing
        self.connection.pragma("page_size", 1024)
        # so that Ctrl-C is noticed in the middle of a long statement
        self.connection.set_progress_handler(lambda: False, 100_000)
        self.schema = read(self.connection)
        self._twin: Connection | None = None

    def copy(self) -> Replay:
        """Return another one, with the same database."""
        other = Replay()
        # no deserialize: such a database is serialized without what its transaction has not yet committed
        copy_into(other.connection, self.connection)
        other.schema = self.schema
        return other

    def close(self) -> None:
        """Close the database."""
        self._forget_twin()
        self.connection.close()

    def twin(self) -> Connection:
        """Return a copy of the database as it is now, to try things in, each in `undone`; good until the schema changes."""
        if self._twin is None:
            self._twin = apsw.Connection(":memory:")
            self._twin.deserialize("main", self.connection.serialize("main"))
        return self._twin

    def _forget_twin(self) -> None:
        if self._twin is not None:
            self._twin.close()
            self._twin = None

    def run(self, step: Step, origin: Schema | None = None) -> Subject:
        """Run a script and return it as it was seen. After a statement that failed, it goes on with the next."""
        before, script = self.schema, step.script
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, int(script.foreign_keys))
        if script.transactional:
            self.connection.execute("BEGIN")
        run = _Run(self, step)
        try:
            with apart(self.connection, script.text):
                failure = run.to_the_end()
        finally:
            self.connection.authorizer = None
            if self.connection.in_transaction:
                self.connection.execute("COMMIT")
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
        if failure is not None or not script.transactional:
            self.look_again()
        return Subject(
            step=step,
            origin=origin or before,
            before=before,
            after=self.schema,
            statements=run.statements,
            failure=failure,
        )

    def look_again(self) -> None:
        """Read the schema, which may have changed."""
        schema = read(self.connection, self.schema)
        if schema != self.schema:
            self._forget_twin()
            self.schema = schema


class _Run:
    """One script in the replay."""

    def __init__(self, replay: Replay, step: Step) -> None:
        self.statements: list[Statement] = []
        self._replay = replay
        self._connection = replay.connection
        self._holdings = Holdings(replay.connection)
        self._guard = Guard(self._holdings)
        self._step, self._text = step, step.script.text
        self._path = step.script.path or step.migration.path
        self._base = self._counted = 0  # the script is run from here; the lines up to here are counted
        self._line = 1
        self._events: list[tuple[str | None, Event]] = []  # each with what has a name and holds it
        self._ignored: list[str] = []
        self._script = self._rest()
        self._changes_schema = self._pending_schema = False
        # what the replay itself asks is not the script's; to unset the authorizer would compile the next statement anew
        self._looking = False
        # tables that hold rows in a database that is in use: those of before, and what is copied from them
        self._with_rows = set(replay.schema.tables)

    def to_the_end(self) -> Failure | None:
        """Run it, and return the first failure."""
        failure: Failure | None = None
        while self._base < len(self._text):
            failed, end = self._until_failure()
            failure = failure or failed
            if failed is None:
                break
            self._base = max(end, self._base + 1)
            self._script = self._rest()
        self._finish_statement()
        if failure is None and self._script.savepoints:
            last = self.statements[-1]
            failure = Failure(last.line, f"the script leaves the savepoint {self._script.savepoints[0]} open", last)
        return failure

    def _rest(self) -> _Script:
        return _Script(
            self._text[self._base :],
            migration=self._step.id,
            path=self._path,
            transactional=self._step.script.transactional,
            notice=self._ignored.append,
            guard=self._guard,
        )

    def _until_failure(self) -> tuple[Failure | None, int]:
        """Run on to the end or a failure; return that, and where the statement ends that failed."""
        cursor = self._connection.cursor()
        cursor.exec_trace = self._trace
        self._connection.authorizer = self._authorize
        try:
            for _ in cursor.execute(self._script.text, can_cache=False):
                pass
        except apsw.Error as error:
            self._connection.authorizer = None
            self._forget_pending()
            # it may have rolled the whole script back
            self._pending_schema = True
            self._finish_statement()
            begin, end = (self._base + place for place in _culprit(self._connection, self._script, error))
            if begin >= self._base + self._script.end:  # it was not even begun
                self._add(begin, end, (), ())
            return self._failure(error), end
        finally:
            cursor.close(True)
            self._connection.authorizer = None
        return None, len(self._text)

    def _failure(self, error: apsw.Error) -> Failure:
        try:
            _fail(self._connection, self._script, error)
        except errors.MigrationFailed as failed:
            line, message = failed.line or 1, failed.reason or ""
        except errors.Error as failed:  # a disk that is full, which only memory can be here
            line, message = 1, str(failed)
        return Failure(line + self._text.count("\n", 0, self._base), message, self.statements[-1])

    def _forget_pending(self) -> None:
        self._events.clear()
        self._ignored.clear()
        # it judges nothing here: `losses` hands all of this to another, when the schema after it is known
        self._guard.begin_script(None)

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        if self._looking:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_ALTER_TABLE:
            first, second, database = second, database, first
        name = first or ""
        # VACUUM attaches, and moves the root pages
        if (
            (name in _SCHEMA_TABLES and action in _WRITES)
            or action == apsw.SQLITE_ATTACH
            or "ROLLBACK" in {first, second}
        ):
            self._changes_schema = True
        if (
            action in _KEPT
            and (trigger is None or action == apsw.SQLITE_READ)
            and (database in {None, "main"} or action in TEMPORARY or action == apsw.SQLITE_READ)
            and (not name.lower().startswith("sqlite_") or (name == "sqlite_sequence" and action in _WRITES))
        ):
            if action == apsw.SQLITE_READ and database == "temp":
                name = ""  # it may have the name of another
            self._events.append((trigger, Event(action, name, second or "")))
        if action == apsw.SQLITE_ALTER_TABLE:
            first, second, database = database, first, second
        return self._script.authorize(action, first, second, database, trigger)

    def _trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        self._looking = True
        try:
            self._next_statement(sql, is_readonly=cursor.is_readonly)
        finally:
            self._looking = False
        return True

    def _next_statement(self, sql: str, *, is_readonly: bool) -> None:
        script = self._script
        script.begin, script.end = script.end, script.end + len(sql)
        changes_schema, self._changes_schema = self._changes_schema, False
        # a view or trigger is not the statement, a WITH is
        programs = self._holdings.programs({fold(within) for within, _ in self._events if within})
        own = [event for within, event in self._events if within is None or fold(within) not in programs]
        events, ignored = tuple(dict.fromkeys(own)), tuple(self._ignored)
        self._forget_pending()
        self._finish_statement()
        if not has_statement(sql):
            return
        statement = self._add(self._base + script.begin, self._base + script.end, events, ignored)
        inside = self._connection.in_transaction
        ends = any(event.action == apsw.SQLITE_TRANSACTION and event.first == "COMMIT" for event in events)
        statement.commits = not self._step.script.transactional and (ends if inside else not is_readonly)
        self._examine(statement, sql)
        self._pending_schema = changes_schema

    def _add(self, begin: int, end: int, events: tuple[Event, ...], ignored: tuple[str, ...]) -> Statement:
        begin = min(start_of_statement(self._text, begin), end)
        end = begin + len(self._text[begin:end].rstrip())
        self._line += self._text.count("\n", self._counted, begin)
        self._counted = begin
        schema = self._replay.schema
        statement = Statement(
            begin=begin, end=end, line=self._line, events=events, before=schema, after=schema, ignored=ignored
        )
        self.statements.append(statement)
        return statement

    def _finish_statement(self) -> None:
        """See what the statement that has just run did to the schema."""
        if not self.statements:
            return
        statement = self.statements[-1]
        if self._pending_schema:
            self._pending_schema = False
            self._replay.look_again()
            statement.after = self._replay.schema
            for old, new in statement.after.renamed_since(statement.before).items():
                if old in self._with_rows:
                    self._with_rows.add(new)
            self._with_rows &= set(statement.after.tables)
        if statement.only_inserts:
            return
        written = statement.tables(apsw.SQLITE_INSERT, apsw.SQLITE_CREATE_TABLE)
        if written and self._with_rows.intersection(statement.tables(apsw.SQLITE_READ)):
            self._with_rows.update(set(written) & set(statement.after.tables))

    # ------------------------------------------------------------ what only a trial shows

    def _examine(self, statement: Statement, sql: str) -> None:
        if '"' in sql and statement.events:
            statement.quotes = double_quoted(self._replay.twin(), sql)
        if statement.only_inserts:
            return
        actions = {event.action for event in statement.events}
        if not actions & (_DDL | {apsw.SQLITE_INSERT}) and actions & _WRITES:
            event = next(event for event in statement.events if event.action in _WRITES)
            if event.first.lower() in statement.before.tables and lacks_where(self._replay.twin(), sql):
                statement.without_where = (event.action, event.first)
        altered = statement.tables(apsw.SQLITE_ALTER_TABLE)
        sources = statement.tables(apsw.SQLITE_READ) if apsw.SQLITE_INSERT in actions else []
        tables = [
            statement.before.tables[name]
            for name in altered + sources
            if name in self._with_rows and name in statement.before.tables
        ]
        if tables:
            statement.fails_on_rows = failure_with_rows(self._replay.twin(), sql, tables, copies=not altered)
        written = [statement.before.tables.get(name) for name in statement.tables(apsw.SQLITE_INSERT)]
        if len(tables) == len(written) == 1 and written[0] is not None and not altered and not statement.fails_on_rows:
            statement.misfits = misfits(self._replay.twin(), sql, tables[0], written[0])
