"""Runs one script: whole, under an authorizer, and knows at each moment which statement is running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import apsw
import attrs

from dao.engine import Connection, sqlite
from dao.errors import DatabaseBusy, DatabaseCorrupt, DiskFull, MigrationFailed, ReadOnlyDatabase
from dao.migrate.run.guard import HEEDED, Guard
from dao.migrate.schema.catalog import is_ours
from dao.migrate.schema.session import IGNORED, IGNORED_INSIDE, apart
from dao.migrate.scripts.statements import end_of_statement, has_statement, start_of_statement
from dao.migrate.values import Loss

__all__ = ["Ran", "run_script"]

_WRITES = {
    apsw.SQLITE_INSERT: "INSERT",
    apsw.SQLITE_UPDATE: "UPDATE",
    apsw.SQLITE_DELETE: "DELETE",
    apsw.SQLITE_DROP_TABLE: "DROP TABLE",
}
_ON_TABLE = {
    apsw.SQLITE_ALTER_TABLE: "ALTER TABLE",
    apsw.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER ON",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "CREATE TRIGGER ON",
    apsw.SQLITE_CREATE_INDEX: "CREATE INDEX ON",
    apsw.SQLITE_DROP_TRIGGER: "DROP TRIGGER ON",
    apsw.SQLITE_DROP_INDEX: "DROP INDEX ON",
}
# The authorizer is called some fifty times for a table with its indexes, mostly for what nobody asks about.
_HEEDED = (
    HEEDED
    | _WRITES.keys()
    | _ON_TABLE.keys()
    | {apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_SAVEPOINT, apsw.SQLITE_TRANSACTION, apsw.SQLITE_PRAGMA}
    | {apsw.SQLITE_FUNCTION}
)
# the authorizer looks at these for each call
_OK, _READ = apsw.SQLITE_OK, apsw.SQLITE_READ
_LONGEST_QUOTE = 400
# what they give, or do, depends on the scripts before this one, or reaches those after it
_REFUSED_FUNCTIONS = {
    "load_extension": "load it on a connection of your own, and give that to migrate.apply",
    "total_changes": "it counts what was done before this script, too",
}
#: What a script sets in the file itself, and why it may not have taken effect.
_LASTING = {
    "page_size": "VACUUM changes it, outside of a transaction (`-- transactional: false`), and not in WAL mode: set `PRAGMA "
    "journal_mode = delete` before, and wal after",
    "auto_vacuum": "VACUUM changes it, outside of a transaction (`-- transactional: false`)",
    "encoding": "a database that exists keeps its encoding",
    "journal_mode": "it changes outside of a transaction (`-- transactional: false`), while nobody else has the database open",
}
_AUTO_VACUUM = {"none": "0", "full": "1", "incremental": "2"}


@attrs.frozen
class Ran:
    """What a script did: how many statements it had, and what it lost."""

    statements: int
    losses: tuple[Loss, ...]


class _Script:
    """A script that is running."""

    def __init__(
        self,
        text: str,
        *,
        migration: str,
        path: Path | None,
        transactional: bool,
        notice: Callable[[str], None],
        guard: Guard,
    ) -> None:
        self.text = text
        self.migration = migration
        self.path = path
        self.transactional = transactional
        self.notice = notice
        self.guard = guard
        self.begin = self.end = 0  # where in the text the running statement stands
        self.statements = 0
        self.savepoints: list[str] = []
        self.settings: dict[str, str] = {}
        self.mode = ""  # of the journal, if the script is about that
        self.refusal: str | None = None

    def trace(self, _cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        # apsw hands out the script piece by piece, without a gap
        self.begin, self.end = self.end, self.end + len(sql)
        # what begins with a letter is one
        if sql.lstrip()[:1].isalpha() or has_statement(sql):
            self.statements += 1
        self.guard.before_statement()
        return True

    def authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        # the most frequent first: two in five read, one in four writes the schema
        guard = self.guard
        if action == _READ:
            if not guard.looking:
                # a temporary table may have the name of another
                table = None if database == "temp" and first != "sqlite_temp_master" else first
                guard.reads.add((table, second, trigger))
            return _OK
        if action not in _HEEDED or guard.looking or (first == "sqlite_master" and action in _WRITES):
            return _OK
        if action in HEEDED:
            guard.saw(action, first, second, database)
        if what := _ON_TABLE.get(action) or _WRITES.get(action):
            table = (second if action in _ON_TABLE else first) or ""
            # VACUUM writes everything too, into a database without a name
            if (
                is_ours(table)
                and database in {"main", "temp", None}
                and not (first or "").startswith("sqlite_autoindex")
            ):
                return self._refuse(f"{what} {table}: the ledger is kept by the runner (dao mark, dao unmark)")
            return _OK
        if action in {apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH} and first != "":
            # that of VACUUM has no name; None is one that has to be computed
            return self._refuse("ATTACH, DETACH and VACUUM INTO: a migration changes one database")
        if action == apsw.SQLITE_FUNCTION:
            reason = None if trigger else _REFUSED_FUNCTIONS.get(second or "")
            return self._refuse(f"{second}(): {reason}") if reason else _OK
        if action == apsw.SQLITE_PRAGMA and second is not None and (reason := IGNORED.get((first or "").lower())):
            return self._ignore(f"PRAGMA {first} = {second}: {reason}")
        name = (first or "").lower() if action == apsw.SQLITE_PRAGMA and second is not None else ""
        if name == "journal_mode" and self.transactional:
            same = str(second).lower() == self.mode
            return _OK if same else self._ignore(f"PRAGMA {name} = {second}: {_LASTING[name]}")
        if name in _LASTING:
            self.settings[name] = str(second).lower()
        if not self.transactional:
            return _OK
        if action == apsw.SQLITE_SAVEPOINT:
            return self._savepoint(str(first), str(second).lower())
        if action == apsw.SQLITE_TRANSACTION:
            if first == "ROLLBACK":
                return self._refuse("ROLLBACK: it would undo the other migrations of this run too")
            return self._ignore(f"{first}: the run is one transaction already")
        if action == apsw.SQLITE_PRAGMA and str(first).lower() == "wal_checkpoint":
            name = "wal_checkpoint"  # one without a value, too
        if reason := IGNORED_INSIDE.get(name):
            return self._ignore(f"PRAGMA {name}{'' if second is None else f' = {second}'}: {reason}")
        return apsw.SQLITE_OK

    def _savepoint(self, operation: str, name: str) -> int:
        if operation == "BEGIN":
            self.savepoints.append(name)
        elif name not in self.savepoints:
            return self._refuse(f"{operation} of savepoint {name}: this script did not set it")
        else:
            place = len(self.savepoints) - self.savepoints[::-1].index(name)
            del self.savepoints[place - 1 if operation == "RELEASE" else place :]
        return apsw.SQLITE_OK

    def _refuse(self, reason: str) -> int:
        self.refusal = reason
        return apsw.SQLITE_DENY

    def _ignore(self, what: str) -> int:
        self.notice(f"ignored {what}")
        return apsw.SQLITE_IGNORE


def run_script(
    connection: Connection,
    text: str,
    *,
    migration: str,
    path: Path | None,
    transactional: bool,
    notice: Callable[[str], None],
    guard: Guard | None = None,
) -> Ran:
    """Run a script and return what it did. With a `guard`, which watches others as well, what was lost is its to say.

    In a transaction, the script's own BEGIN, COMMIT and pragmas that would stop the run are ignored, with a notice. ROLLBACK,
    ATTACH and writing to the ledger are refused. There is a notice of settings of the file that did not take effect, too.

    Raises:
        MigrationFailed: A statement failed or was refused; it says where.
        DatabaseBusy, DiskFull, DatabaseCorrupt, ReadOnlyDatabase: It was not the script's fault.
    """
    watching = guard or Guard(connection)
    script = _Script(text, migration=migration, path=path, transactional=transactional, notice=notice, guard=watching)
    if "journal_mode" in text.lower():
        script.mode = str(connection.pragma("journal_mode"))
    cursor = connection.cursor()
    cursor.exec_trace = script.trace
    with apart(connection, text):
        authorizer, connection.authorizer = connection.authorizer, script.authorize
        try:
            # drained: a statement that returns rows holds up those after it
            for _ in cursor.execute(text, can_cache=False):
                pass
            watching.end_script()
        except apsw.Error as error:
            _fail(connection, script, error)
        finally:
            cursor.close(True)
            connection.authorizer = authorizer
        if script.savepoints:
            raise MigrationFailed(
                f"{path or migration}: the script leaves the savepoint {script.savepoints[0]} open; release it",
                migration=migration,
                path=path,
            )
        _check_settings(connection, script)
        return Ran(script.statements, () if guard else tuple(loss for _, loss in watching.losses()))


def _check_settings(connection: Connection, script: _Script) -> None:
    """Give notice of settings of the file that are not what the script wanted, or will not stay so."""
    for name, wanted in script.settings.items():
        setting, actual = f"PRAGMA {name} = {wanted}", str(connection.pragma(name)).lower()
        # UTF-16 is either byte order
        same = name == "encoding" and actual.replace("-", "").startswith(wanted.replace("-", ""))
        if not same and actual not in {wanted, _AUTO_VACUUM.get(wanted)}:
            script.notice(f"{setting} had no effect, it is {actual}: {_LASTING[name]}")
        elif name == "journal_mode" and actual not in {"wal", script.mode}:
            script.notice(f"{setting}: a program's dao.connect sets wal again, unless its URL says journal_mode=keep")


def _fail(connection: Connection, script: _Script, error: apsw.Error) -> NoReturn:
    translated = sqlite.translate(error, connection)
    if isinstance(translated, DatabaseBusy | DiskFull | DatabaseCorrupt | ReadOnlyDatabase):
        raise translated from error
    refusal = script.refusal  # to look for the culprit may meet another
    begin, end = _culprit(connection, script, error)
    start = min(start_of_statement(script.text, begin), end)
    offset = getattr(error, "error_offset", -1)
    mark = begin + len(script.text[begin:].encode()[:offset].decode(errors="ignore")) if offset > 0 else start
    line = script.text.count("\n", 0, max(mark, start)) + 1
    statement = script.text[start:end].strip()
    quoted = statement if len(statement) <= _LONGEST_QUOTE else statement[:_LONGEST_QUOTE] + " …"
    where = f"{script.path or script.migration + ' (text from the ledger)'}:{line}"
    what = f"refused {refusal}" if refusal else str(error)
    if isinstance(error, apsw.BindingsError):
        what = "a parameter (?, :name, @name, $name), for which a script has no value"
    hint = _HINTS.get(str(error).partition(" from within")[0], "")
    raise MigrationFailed(
        f"{where}: {what}{hint}",
        details=quoted.splitlines(),
        migration=script.migration,
        path=script.path,
        line=line,
        statement=statement,
        reason=what + hint,
    ) from error


_HINTS = {
    "cannot VACUUM": "; a script that begins with `-- transactional: false` runs outside of one",
}


def _culprit(connection: Connection, script: _Script, error: apsw.Error) -> tuple[int, int]:
    """Return where in the text the failed statement stands."""
    if script.refusal is None and not _is_next(connection, script, error):
        return script.begin, script.end
    # It failed before it began: it is the one after the last that did.
    return script.end, end_of_statement(script.text, start_of_statement(script.text, script.end))


def _is_next(connection: Connection, script: _Script, error: apsw.Error) -> bool:
    if getattr(error, "error_offset", -1) >= 0 or script.end == 0 or isinstance(error, apsw.BindingsError):
        return True
    if not isinstance(error, apsw.SQLError | apsw.AuthError):
        return False
    # A failure of the statement that ran, or of preparing the one after it? Prepare that again and see.
    try:
        connection.cursor().execute(script.text[script.end :], explain=1, can_cache=False).close(True)
    except apsw.Error as again:
        return str(again) == str(error)
    return False
