"""Runs one script of somebody else on PostgreSQL: whole, by the rules of a run, and says which statement failed.

Its statements are told apart here, and each is sent as one prepared statement (`wire`), so that the server itself
refuses what was told apart wrongly. So a BEGIN, COMMIT or ROLLBACK is a statement of its own, known by its first word,
and never sent. Nothing else ends a transaction: procedures and DO blocks cannot, inside one. Sent as one text a script
could, and its errors would not tell which statement failed; in a string for plpgsql's EXECUTE it could not, and could
not hold a BEGIN either.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence

import psycopg
from psycopg.pq import TransactionStatus

from dao.engine.postgresql import Connection, translated
from dao.errors import CommitUnknown, ConnectionLost, DatabaseBusy, DatabaseCorrupt, DiskFull, Error, MigrationFailed
from dao.migrate.schema.postgresql.blockers import Blockers
from dao.migrate.schema.postgresql.session import LOCK_TIMEOUT, Apart, has_default_timeout, in_transaction
from dao.migrate.schema.postgresql.soundness import invalid_indexes
from dao.migrate.schema.postgresql.wire import Failed, send
from dao.migrate.schema.under_way import Notice, UnderWay, unheard
from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.postgresql import Statement, Token, broken_off, created_by, split

__all__ = ["Watcher", "run_script"]

#: The errors that are no fault of the script.
_ELSEWHERE = (DatabaseBusy, DiskFull, DatabaseCorrupt, ConnectionLost, CommitUnknown)
# in one journey, so that neither side has to keep much for the other
_MOST, _LONGEST = 500, 500_000
_CONTROLS = frozenset({"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"})
#: These change rows, and with them, by cascades and triggers, those of other tables; or call functions that do.
_CHANGES = frozenset({"insert", "update", "delete", "merge", "with", "execute", "select", "values", "explain"})
#: A statement, or a procedure that commits, which does not run in a transaction.
_ALONE_ONLY = frozenset({"25001", "2D000"})
_HINTS = {
    "25001": "a script that begins with `-- transactional: false` runs outside of a transaction",
    "55P04": "put ALTER TYPE … ADD VALUE into a migration of its own, which begins with `-- transactional: false`",
    "08P01": "a parameter ($1, $2 …), for which a script has no value",
    "57014": "SHOW statement_timeout says how long a statement may take; the script may set another",
}
_ONE_TRANSACTION = "the run is one transaction already"
#: What would reach further than the script, by its first words, and what it would do.
_REFUSED = {
    ("discard", "all"): "it frees the lock of the run too; name what is to go, as DISCARD PLANS",
    ("deallocate", "all"): "it takes the program's own prepared statements too; name those of the script",
    ("deallocate", "prepare", "all"): "it takes the program's own prepared statements too; name those of the script",
}
#: The words by which a statement turns off the triggers that enforce foreign keys, by the first.
_KEYS_OFF = {"set": {"session_replication_role", "replica"}, "alter": {"disable", "trigger", "all"}}
_UNENFORCED = "foreign keys are not enforced for what it writes from here on: `dao check` finds rows that break one"
_FREES_ALL = "pg_advisory_unlock_all"


#: Is told that a statement waits for a lock: how many seconds so far, and for whom.
Waits = Callable[[float, str], object]


_REMOVE = "The index {0} is left invalid: `DROP INDEX CONCURRENTLY {0};` removes it."


class Watcher:
    """Is told what a script does. This one makes nothing of it."""

    def begin(self, script: Script) -> None:
        """Look at the database before a script runs."""

    def kind(self, _statement: Statement) -> Hashable:
        """Return what a statement has in common with its neighbours that may run in one journey with it.

        None: it runs alone, for it is likely to lose something.
        """
        return ""

    def tries(self, _statement: Statement) -> bool:
        """Return whether what a statement has done is to be `tried` before it stays."""
        return False

    def before(self, statements: Sequence[Statement]) -> None:
        """Look at the database before statements run that are of one kind."""

    def tried(self, _statements: Sequence[Statement]) -> bool:
        """Look at what statements have done, and return whether to undo that, to look at what was there before.

        Then several are run again one by one, and each is tried; for a single one `undone` is called before that.
        """
        return False

    def undone(self) -> None:
        """Look at what was there before."""

    def after(self, statements: Sequence[Statement], tags: Sequence[str]) -> None:
        """Look at the database after statements, of which the server has said these tags, as `DELETE 3`."""

    def judge(self, rest: str) -> None:
        """Refuse what a statement has done that is about to be committed alone; the `rest` of the script comes later.

        Raises:
            CheckFailed: It lost what it may not.
        """


class _Running(UnderWay):
    """A script that is running, by the id of its migration."""

    def __init__(
        self, connection: Connection, id: str, script: Script, notice: Notice, watcher: Watcher, waiting: Waits
    ) -> None:
        super().__init__(id, script, notice)
        self._connection, self._watcher, self._waits = connection, watcher, waiting

    def execute(self) -> None:
        """Run the script, as `run_script`."""
        script = self.script
        if found := broken_off(script.text):
            raise self.failed(*found)
        connection = self._connection
        with Apart(connection, script) as apart, Blockers(connection, self._waits) as self._blockers:
            self._watcher.begin(script)
            with self._hearing(), self._telling_of_indexes():
                for statements in self._journeys():
                    self._go(statements)
                self.refuse_open_savepoint()
                try:
                    reason = apart.check()
                except psycopg.Error as error:
                    raise self._failure(error, None) from error
                if reason is not None:
                    raise self.failed(reason)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        self._connection.add_notice_handler(self._heard)
        try:
            yield
        finally:
            self._connection.remove_notice_handler(self._heard)

    @contextlib.contextmanager
    def _telling_of_indexes(self) -> Iterator[None]:
        """Name the indexes that are left invalid, and refuse to pass over one that an earlier attempt has left."""
        connection = self._connection
        before = set() if self.script.transactional else {index for _, index, _ in invalid_indexes(connection)}
        try:
            yield
        except Error as error:
            if not self.script.transactional and connection.info.transaction_status == TransactionStatus.IDLE:
                left = [index for _, index, _ in invalid_indexes(connection) if index not in before]
                error.advice = "\n".join(_REMOVE.format(index) for index in left) or error.advice
            raise
        # the notice that IF NOT EXISTS has passed over one need not come: a session may not want any
        makes = [(one, name) for one in split(self.script.text) if (name := _index_if_not_exists(one))]
        if makes:
            invalid = [index for _, index, _ in invalid_indexes(connection)]
            for statement, name in makes:
                for index in invalid:
                    if index.rpartition(".")[2].strip('"') == name:
                        raise self._failed_at(
                            statement,
                            f"the index {index} was there already, and is invalid, since an attempt to build it has "
                            f"failed: remove it (`DROP INDEX CONCURRENTLY {index};`), and repeat",
                        )

    def _heard(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # what is only said to a log is none of ours
        if diagnostic.severity_nonlocalized in {"NOTICE", "WARNING", "INFO"}:
            self._notice(diagnostic.message_primary or "")

    def _journeys(self) -> Iterator[list[Statement]]:
        """Yield the statements of the script that are sent, in one go each."""
        alone = not self.script.transactional
        numbers = itertools.count()

        def kind(statement: Statement) -> Hashable:
            kind = self._watcher.kind(statement)
            return next(numbers) if alone or kind is None else (kind,)

        sent = (statement for statement in split(self.script.text) if self._rule(statement))
        for _, group in itertools.groupby(sent, kind):
            batch: list[Statement] = []
            length = 0
            for statement in group:
                if batch and (len(batch) == _MOST or length + len(statement.text) > _LONGEST):
                    yield batch
                    batch, length = [], 0
                batch.append(statement)
                length += len(statement.text)
            yield batch

    def _go(self, statements: Sequence[Statement]) -> None:
        self.statements += len(statements)
        self._watcher.before(statements)
        first = statements[0]
        try:
            if self.script.transactional or in_transaction(self._connection):
                if first.first in {"commit", "end"}:  # of a script that begins transactions itself
                    self._watcher.judge(self.script.text[first.end :])
                if not self._send_within(statements):
                    self.statements -= len(statements)
                    for statement in statements:
                        self._go([statement])
            else:
                self._send_alone(first)
        except Failed as failed:
            self.statements -= len(statements) - failed.number - 1
            raise self._failure(failed.error, statements[failed.number]) from failed.error
        except psycopg.Error as error:
            raise self._failure(error, first) from error

    def _send(self, *statements: str) -> list[str]:
        return send(self._connection, statements, self._blockers.look)

    def _send_within(self, statements: Sequence[Statement]) -> bool:
        """Send statements in a transaction, and return whether they stay; if not, they have to be sent one by one.

        The watcher looks at tables and columns before they go. The text does not tell which those are: statements may
        call functions and set off triggers.
        """
        texts, watcher = [statement.text for statement in statements], self._watcher
        if not watcher.tries(statements[0]):
            watcher.after(statements, self._send(*texts))
            return True
        self._send("SAVEPOINT _dao_try")
        tags = self._send(*texts)
        if watcher.tried(statements):
            self._send("ROLLBACK TO _dao_try")
            if len(texts) == 1:
                watcher.undone()
                tags = self._send(*texts)
            else:
                tags = []
        self._send("RELEASE _dao_try")
        if tags:
            watcher.after(statements, tags)
        return bool(tags)

    def _send_alone(self, statement: Statement) -> None:
        """Send a statement that is a transaction by itself, and judge it before its commit if it may lose something."""
        watcher = self._watcher
        if watcher.kind(statement) is None or statement.first in _CHANGES:
            self._send("BEGIN")
            try:
                watcher.before([statement])
                self._send_within([statement])
                watcher.judge(self.script.text[statement.end :])
                self._send("COMMIT")
            except BaseException as error:
                if self._connection.info.transaction_status != TransactionStatus.IDLE:
                    self._send("ROLLBACK")
                if not isinstance(error, Failed) or error.error.sqlstate not in _ALONE_ONLY:
                    raise
            else:
                return
        # it waits for transactions that are under way, and nobody has to wait for it meanwhile
        patient = Token("word", "concurrently") in statement.tokens and has_default_timeout(self._connection)
        if patient:
            self._send("SET lock_timeout = 0")
        watcher.after([statement], self._send(statement.text))
        if patient:
            self._send(f"SET lock_timeout = {LOCK_TIMEOUT}")

    # ------------------------------------------------------------ rules

    def _rule(self, statement: Statement) -> bool:
        """Return whether a statement is to be sent; what is ignored is told. Refuses what a script may not do."""
        first = statement.first
        if first in {"discard", "deallocate"}:
            for words, reason in _REFUSED.items():
                if statement.words(len(words)) == words:
                    raise self._refused(statement, f"{' '.join(words).upper()}: {reason}")
        if _FREES_ALL in statement.text.lower():
            raise self._refused(statement, f"{_FREES_ALL}(): it frees the lock of the run too; name the locks")
        if first in _KEYS_OFF and _KEYS_OFF[first] <= {token.text.lower() for token in statement.tokens}:
            self._notice(_UNENFORCED)
        if first == "listen":
            self._notice("ignored LISTEN: it would be for the connection of this run only")
            return False
        if not self.script.transactional:
            return True
        if first in _CONTROLS:
            return self._control(statement)
        if first == "prepare" and statement.words(2) == ("prepare", "transaction"):
            raise self._refused(statement, "PREPARE TRANSACTION: it would end the transaction of the run")
        if first == "set" and "transaction" in statement.words(3) and "characteristics" not in statement.words(3):
            self._notice(f"ignored SET TRANSACTION: {_ONE_TRANSACTION}")
            return False
        return True

    def _control(self, statement: Statement) -> bool:
        """Return whether a statement that begins, ends or undoes transactions is to be sent."""
        first, words = statement.first, [token.text for token in statement.tokens if token.kind in {"word", "name"}]
        if words[1:2] == ["prepared"]:
            return True  # the server says that it does not run here
        if first in {"begin", "start", "commit", "end"}:
            self._notice(f"ignored {'START TRANSACTION' if first == 'start' else first.upper()}: {_ONE_TRANSACTION}")
            return False
        if first in {"rollback", "abort"} and "to" not in words[1:3]:
            raise self._refused(statement, f"{first.upper()}: it would undo the other migrations of this run too")
        operation = {"savepoint": "BEGIN", "release": "RELEASE"}.get(first, "ROLLBACK")
        if reason := self.savepoint(operation, words[-1]):
            raise self._refused(statement, reason)
        return True

    # ------------------------------------------------------------ failures

    def _refused(self, statement: Statement, reason: str) -> MigrationFailed:
        return self._failed_at(statement, f"refused {reason}")

    def _failed_at(self, statement: Statement, reason: str) -> MigrationFailed:
        return self.failed(reason, self.line(statement.begin), statement.text.strip())

    def _failure(self, error: psycopg.Error, statement: Statement | None) -> Error:
        """Return the error to raise for one of the driver's: at a statement, or at the end of the script."""
        alone = not self.script.transactional and not in_transaction(self._connection)
        known = translated(error, self._connection, "", (), commits=alone, table=None)
        if isinstance(known, DatabaseBusy):
            return self._busy(error, known, statement)
        if isinstance(known, _ELSEWHERE) or (known is not None and (error.sqlstate or "").startswith("53")):
            return known
        diagnostic = error.diag
        reason = diagnostic.message_primary or str(error)
        if error.sqlstate == "08P01":
            reason = _HINTS["08P01"]
        elif hint := _HINTS.get(error.sqlstate or "") or diagnostic.message_hint:
            reason += f"; {hint}"
        said = [
            f"{name}: {text}"
            for name, text in (("detail", diagnostic.message_detail), ("context", diagnostic.context))
            if text
        ]
        if statement is None:
            return self.failed(reason, details=said)
        place = statement.begin + max(0, int(diagnostic.statement_position or 1) - 1)
        return self.failed(reason, self.line(place), statement.text.strip(), said)

    def _busy(self, error: psycopg.Error, known: DatabaseBusy, statement: Statement | None) -> DatabaseBusy:
        """Return the error for a statement that others did not let run."""
        where = self.where(None if statement is None else self.line(statement.begin))
        if error.sqlstate != "55P03":
            return DatabaseBusy(f"{where}: {known.args[0]}", details=known.details)
        names = {token.text for token in statement.tokens if token.kind in {"word", "name"}} if statement else set()
        holder = self._blockers.holder(names) or "another session"
        return DatabaseBusy(
            f"{where}: waited in vain for a lock of {holder}. Repeat when that is done, or wait longer "
            "(--busy-timeout, DATABASE_BUSY_TIMEOUT, or SET lock_timeout in the script)"
        )


def _index_if_not_exists(statement: Statement) -> str | None:
    """Return the name of the index that a statement makes unless it is there, without its schema."""
    words = statement.words(9)
    return created_by(statement) if "index" in words[:3] and "exists" in words else None


def run_script(
    connection: Connection,
    id: str,
    script: Script,
    *,
    notice: Notice = unheard,
    watcher: Watcher | None = None,
    waiting: Waits = unheard,
) -> int:
    """Run a script, of the migration with this id, and return how many statements it had. It begins no transaction.

    Its settings of the connection end with it (`session.Apart`). In a transaction, its own BEGIN and COMMIT are
    ignored, with a notice. ROLLBACK and writing to the ledger are refused. The server's notices are passed on, and
    `waiting` is told for whom a statement waits.

    Raises:
        MigrationFailed: A statement failed or was refused; it says where. Or a savepoint was left open.
        DatabaseBusy, DiskFull, DatabaseCorrupt, ConnectionLost, CommitUnknown: It was not the script's fault.
    """
    running = _Running(connection, id, script, notice, watcher or Watcher(), waiting)
    running.execute()
    return running.statements
