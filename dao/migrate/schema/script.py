"""Runs one script of somebody else: whole, by the rules of a run, and knows at each moment which statement is running.

SQLite's own parser finds the statements; its authorizer tells, while it compiles each, what that wants to do.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import apsw

from dao.engine import sqlite
from dao.engine.sqlite import Connection
from dao.errors import DatabaseBusy, DatabaseCorrupt, DiskFull, Error, ReadOnlyDatabase
from dao.migrate.schema.catalog import has_virtual_tables
from dao.migrate.schema.names import is_ours
from dao.migrate.schema.registration import to_register
from dao.migrate.schema.session import IGNORED, IGNORED_INSIDE, apart
from dao.migrate.schema.under_way import Notice, UnderWay, unheard
from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.statements import end_of_statement, has_statement, start_of_statement

__all__ = ["Running", "Watcher", "run_script"]

_OK, _REFUSED, _PASSED_OVER = apsw.SQLITE_OK, apsw.SQLITE_DENY, apsw.SQLITE_IGNORE
_WITH_LEDGER = {"main", "temp", None}
#: The actions that may change a table, and whether the authorizer names that first or second.
_ON_TABLE = {
    apsw.SQLITE_INSERT: ("INSERT", 0),
    apsw.SQLITE_UPDATE: ("UPDATE", 0),
    apsw.SQLITE_DELETE: ("DELETE", 0),
    apsw.SQLITE_DROP_TABLE: ("DROP TABLE", 0),
    apsw.SQLITE_ALTER_TABLE: ("ALTER TABLE", 1),
    apsw.SQLITE_CREATE_TRIGGER: ("CREATE TRIGGER ON", 1),
    apsw.SQLITE_CREATE_TEMP_TRIGGER: ("CREATE TRIGGER ON", 1),
    apsw.SQLITE_CREATE_INDEX: ("CREATE INDEX ON", 1),
    apsw.SQLITE_DROP_TRIGGER: ("DROP TRIGGER ON", 1),
    apsw.SQLITE_DROP_INDEX: ("DROP INDEX ON", 1),
}
_RULED = {apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_FUNCTION, apsw.SQLITE_PRAGMA} | {
    apsw.SQLITE_SAVEPOINT,
    apsw.SQLITE_TRANSACTION,
}
# what they give, or do, depends on the scripts before this one, or reaches those after it
_REFUSED_FUNCTIONS = {
    "load_extension": "load it in a function, and name that with --prepare MODULE:FUNCTION; in a program, as prepare=",
    "total_changes": "it counts what was done before this script, too",
}
#: The pragmas that change the file itself, and why one may not have taken effect.
_LASTING = {
    "page_size": "VACUUM changes it, outside of a transaction (`-- transactional: false`), and not in WAL mode: set "
    "`PRAGMA journal_mode = delete` before, and wal after",
    "auto_vacuum": "VACUUM changes it, outside of a transaction (`-- transactional: false`)",
    "encoding": "a database that exists keeps its encoding",
    "journal_mode": "it changes outside of a transaction (`-- transactional: false`), while nobody else has the "
    "database open",
}
_AUTO_VACUUM = {"none": "0", "full": "1", "incremental": "2"}
_HINTS = {
    "cannot VACUUM": "a script that begins with `-- transactional: false` runs outside of one",
}


class Watcher:
    """Is told what a script does. This one makes nothing of it."""

    #: The authorizer's actions that `saw` is told of.
    heeded: ClassVar[AbstractSet[int]] = frozenset()
    #: Whether what runs now is its own, not the script's.
    looking = False

    def saw(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> None:
        """Note what the authorizer was told of the statement that is being compiled.

        What the module of a virtual table does while a statement is at work is not of the script, and not told.
        """

    def meets_virtual_tables(self, connection: Connection) -> bool:
        """Return whether there is a virtual table, so that a statement of the script may set its module to work."""
        return has_virtual_tables(connection)

    def before_statement(self, sql: str, cursor: apsw.Cursor) -> None:
        """Look at the database before a statement runs that was compiled. `sql` may be blanks and comments only."""

    def end_script(self) -> None:
        """Look at what the last statement has done."""


class Running(UnderWay):
    """A script that is running, by the id of its migration."""

    def __init__(
        self,
        connection: Connection,
        id: str,
        script: Script,
        *,
        notice: Notice = unheard,
        watcher: Watcher | None = None,
    ) -> None:
        super().__init__(id, script, notice)
        #: Where in the text the statement stands that is running, or has failed.
        self.begin = self.end = self._start = 0
        self._connection, self._watcher = connection, watcher or Watcher()
        self._refusal: str | None = None
        #: The settings of the file that it has changed.
        self._settings: dict[str, str] = {}
        #: The statement that is at work now, by SQLite's number of it; None: it is about to be, or none is.
        self._working: int | None = None
        self._begins = False
        is_about_it = "journal_mode" in script.text.lower()
        self._journal_mode = str(connection.pragma("journal_mode")) if is_about_it else ""

    def execute(self) -> None:
        """Run the text from `end` on: all of it, or after an error what comes after the statement that failed.

        Raises:
            MigrationFailed: A statement failed or was refused; it says where.
            DatabaseBusy, DiskFull, DatabaseCorrupt, ReadOnlyDatabase: It was not the script's fault.
        """
        connection = self._connection
        cursor = connection.cursor()
        cursor.exec_trace = self._trace
        self._start = self.begin = self.end
        self._refusal = None
        self._working, self._begins = None, False
        # the module of a virtual table prepares statements of its own while one of the script is at work
        traced = bool(self._watcher.heeded) and (
            "virtual" in self.script.text.lower() or self._watcher.meets_virtual_tables(connection)
        )
        authorizer, connection.authorizer = connection.authorizer, self._authorize
        if traced:
            connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, self._at_work, id=self)
        try:
            # drained: a statement that returns rows holds up those after it
            for _ in cursor.execute(self.script.text[self.end :], can_cache=False):
                pass
            self._watcher.end_script()
        except Exception as error:
            if not isinstance(error, apsw.Error) and sqlite.raised_by_program(error) is None:
                raise
            raise self._failure(error) from error
        finally:
            cursor.close(True)
            if traced:
                connection.trace_v2(0, None, id=self)
            connection.authorizer = authorizer

    def _at_work(self, event: dict[str, int]) -> None:
        """Note which statement of the script is at work, from its first step to its last."""
        if event["code"] == apsw.SQLITE_TRACE_STMT:
            if self._begins and not self._watcher.looking:
                self._working, self._begins = event["id"], False
        elif event["id"] == self._working:
            self._working = None

    def _trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        # apsw hands out the script piece by piece, without a gap
        self.begin, self.end = self.end, self.end + len(sql)
        # what begins with a letter is one
        if sql.lstrip()[:1].isalpha() or has_statement(sql):
            self.statements += 1
        self._watcher.before_statement(sql, cursor)
        self._begins = True
        return True

    # ------------------------------------------------------------ rules

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        # called some fifty times for a table with its indexes: most of it is nobody's business
        watcher = self._watcher
        if watcher.looking:
            return _OK
        if self._working is None and action in watcher.heeded:
            watcher.saw(action, first, second, database, trigger)
        if action in _ON_TABLE:
            what, place = _ON_TABLE[action]
            table = (second if place else first) or ""
            # VACUUM writes everything too, into a database without a name
            if is_ours(table) and database in _WITH_LEDGER and not (first or "").startswith("sqlite_autoindex"):
                return self._refuse(f"{what} {table}: the ledger is kept by the runner (dao mark, dao unmark)")
            return _OK
        return self._rule(action, first, second, trigger) if action in _RULED else _OK

    def _rule(self, action: int, first: str | None, second: str | None, trigger: str | None) -> int:
        """Return whether a script may do something. In a transaction more is refused or ignored."""
        match action:
            case apsw.SQLITE_PRAGMA:
                return self._pragma((first or "").lower(), second)
            case apsw.SQLITE_ATTACH | apsw.SQLITE_DETACH:
                # that of VACUUM has no name; None is one that has to be computed
                if first != "":
                    return self._refuse("ATTACH, DETACH and VACUUM INTO: a migration changes one database")
            case apsw.SQLITE_FUNCTION:
                if not trigger and (reason := _REFUSED_FUNCTIONS.get(second or "")):
                    return self._refuse(f"{second}(): {reason}")
            case apsw.SQLITE_SAVEPOINT if self.script.transactional:
                if reason := self.savepoint(str(first), str(second).lower()):
                    return self._refuse(reason)
            case apsw.SQLITE_TRANSACTION if self.script.transactional:
                if first == "ROLLBACK":
                    return self._refuse("ROLLBACK: it would undo the other migrations of this run too")
                return self._ignore(f"{first}: the run is one transaction already")
        return _OK

    def _pragma(self, name: str, value: str | None) -> int:
        if value is None and name != "wal_checkpoint":  # that does something without a value, too
            return _OK
        reason = IGNORED.get(name)
        if reason is None and self.script.transactional:
            reason = IGNORED_INSIDE.get(name)
            if name == "journal_mode" and str(value).lower() != self._journal_mode:
                reason = _LASTING[name]
        if reason is not None:
            return self._ignore(f"PRAGMA {name}{'' if value is None else f' = {value}'}: {reason}")
        if name in _LASTING:
            self._settings[name] = str(value).lower()
        return _OK

    def _refuse(self, reason: str) -> int:
        self._refusal = reason
        return _REFUSED

    def _ignore(self, what: str) -> int:
        self._notice(f"ignored {what}")
        return _PASSED_OVER

    # ------------------------------------------------------------ after the end

    def check(self) -> None:
        """Refuse a savepoint that is left open; give notice of settings of the file that did not, or will not stay so.

        Raises:
            MigrationFailed: There is one.
        """
        self.refuse_open_savepoint()
        for name, wanted in self._settings.items():
            setting, actual = f"PRAGMA {name} = {wanted}", str(self._connection.pragma(name)).lower()
            # UTF-16 is either byte order
            same = name == "encoding" and actual.replace("-", "").startswith(wanted.replace("-", ""))
            if not same and actual not in {wanted, _AUTO_VACUUM.get(wanted)}:
                self._notice(f"{setting} had no effect, it is {actual}: {_LASTING[name]}")
            elif name == "journal_mode" and actual not in {"wal", self._journal_mode}:
                self._notice(
                    f"{setting}: a program's dao.connect sets wal again, unless its URL says journal_mode=keep"
                )

    def _failure(self, error: Exception) -> Error:
        """Return the error to raise, and set `begin` and `end` to the statement that failed."""
        text, refusal = self.script.text, self._refusal  # to look for the culprit may meet another
        if refusal is not None or self._failed_to_compile(error):
            # it is the one after the last that began
            self.begin, self.end = self.end, end_of_statement(text, start_of_statement(text, self.end))
        translated = sqlite.translate(error, self._connection)
        if isinstance(translated, DatabaseBusy | DiskFull | DatabaseCorrupt | ReadOnlyDatabase):
            return translated
        start = min(start_of_statement(text, self.begin), self.end)
        offset = getattr(error, "error_offset", -1)
        mark = self.begin + len(text[self.begin :].encode()[:offset].decode(errors="ignore")) if offset > 0 else start
        what = f"refused {refusal}" if refusal else sqlite.raised_by_program(error) or str(error)
        if isinstance(error, apsw.BindingsError):
            what = "a parameter (?, :name, @name, $name), for which a script has no value"
        hint = _HINTS.get(str(error).partition(" from within")[0]) or to_register(str(error))
        what += f"; {hint}" if hint else ""
        return self.failed(what, self.line(max(mark, start)), text[start : self.end].strip())

    def _failed_to_compile(self, error: Exception) -> bool:
        """Return whether an error is of compiling a statement, not of the one that ran before it."""
        if getattr(error, "error_offset", -1) >= 0 or self.end == self._start or isinstance(error, apsw.BindingsError):
            return True
        if not isinstance(error, apsw.SQLError | apsw.AuthError):
            return False
        try:
            self._connection.cursor().execute(self.script.text[self.end :], explain=1, can_cache=False).close(True)
        except apsw.Error as again:
            return str(again) == str(error)
        return False


def run_script(
    connection: Connection,
    id: str,
    script: Script,
    *,
    notice: Notice = unheard,
    watcher: Watcher | None = None,
) -> int:
    """Run a script, of the migration with this id, and return how many statements it had. It begins no transaction.

    Its settings of the connection end with it (`session.apart`). In a transaction, its own BEGIN, COMMIT and pragmas
    that would stop the run are ignored, with a notice. ROLLBACK, ATTACH and writing to the ledger are refused.
    Settings of the file that did not take effect are noticed, too.

    Raises:
        MigrationFailed: A statement failed or was refused; it says where. Or a savepoint was left open.
        DatabaseBusy, DiskFull, DatabaseCorrupt, ReadOnlyDatabase: It was not the script's fault.
    """
    running = Running(connection, id, script, notice=notice, watcher=watcher)
    with apart(connection, script.text):
        running.execute()
        running.check()
    return running.statements
