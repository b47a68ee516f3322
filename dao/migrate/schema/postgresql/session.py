"""A connection to PostgreSQL for other people's scripts: what they may set on it ends with them.

So a run of many scripts is the same as many runs of one, on a new connection each: settings, roles, temporary tables,
prepared statements, cursors, advisory locks, the values of sequences, and constraints that are deferred.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import psycopg
from psycopg.pq import TransactionStatus

from dao.engine.postgresql import Connection, fetch
from dao.errors import MigrationError
from dao.migrate.schema.names import TABLES
from dao.migrate.scripts.migration import Script

__all__ = ["LOCK_TIMEOUT", "Apart", "has_default_timeout", "in_transaction", "of_run"]

#: Another connection's lock is waited for so long, in milliseconds, where neither role, URL nor program says how long.
LOCK_TIMEOUT = 5000

_PUT_BACK = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS setting(name, value)"
# what is different once a table of the ledger was changed in this transaction; a script has no business with any other
# that is called so
_LEDGER = """
(SELECT coalesce(string_agg(format('%s %s %s %s %s', oid, ctid, xmin, relnamespace::regnamespace,
                                   pg_stat_get_xact_tuples_inserted(oid) + pg_stat_get_xact_tuples_updated(oid)
                                   + pg_stat_get_xact_tuples_deleted(oid)), ', ' ORDER BY oid), '')
 FROM   pg_class WHERE relname = ANY ($1) AND relkind <> 'i')
"""
_TRANSACTION = f"SELECT pg_current_xact_id()::text, {_LEDGER}"
_SESSION = """
WITH setting AS (SELECT name, current_setting(name) AS value FROM pg_settings WHERE source = 'session')
SELECT session_user, current_setting('role'), ARRAY(SELECT name FROM setting), ARRAY(SELECT value FROM setting)
"""
_AT_THE_END = f"""
SELECT pg_current_xact_id()::text, {_LEDGER}, current_setting('transaction_read_only') = 'on',
       EXISTS (SELECT FROM pg_constraint WHERE condeferrable)
"""
_DEFERRABLE = """
SELECT format('%I.%I', nspname, conname), bool_or(condeferred)
FROM   pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace
WHERE  condeferrable
GROUP  BY 1
"""
# an idle transaction is one that is being checked here; what is said to be committed is to outlive a crash; a script is
# sent as it is written
_OF_RUN = """
SELECT set_config(wanted.name, value, false)
FROM   pg_settings JOIN (VALUES ('standard_conforming_strings', 'on'), ('idle_in_transaction_session_timeout', '0'),
                                ('synchronous_commit', 'on'), ('client_encoding', 'UTF8'), ('lock_timeout', $1))
                               AS wanted (name, value) USING (name)
WHERE  CASE name WHEN 'lock_timeout' THEN source = 'default'
                 WHEN 'synchronous_commit' THEN setting = 'off' ELSE true END
"""
# or the statement of a migrator that was killed goes on to its end, and holds the locks
_LOOK_FOR_CLIENT = """
SELECT set_config(name, '1s', false) FROM pg_settings
WHERE  name = 'client_connection_check_interval' AND setting = '0'
"""
_HAS_DEFAULT_TIMEOUT = "SELECT setting = $1 AND reset_val = '0' FROM pg_settings WHERE name = 'lock_timeout'"
#: What a session may have that outlives a transaction, by words that a script has to hold to make any.
_WORDS = ("prepare", "cursor", "advisory")
_HELD = """
SELECT 'DEALLOCATE ' || quote_ident(name) FROM pg_prepared_statements WHERE from_sql
UNION ALL SELECT 'CLOSE ' || quote_ident(name) FROM pg_cursors WHERE name <> ''
UNION ALL
SELECT format('SELECT pg_advisory_unlock%s(%s)', CASE WHEN mode LIKE '%Share%' THEN '_shared' ELSE '' END,
              CASE objsubid WHEN 1 THEN ((classid::bigint << 32) | objid::bigint)::text
                            ELSE classid::int4 || ', ' || objid::int4 END)
FROM   pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""
_TEMPORARY = """
SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER  BY relname
"""
_RESET = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DISCARD TEMP; DISCARD SEQUENCES"


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open, and has not failed."""
    return connection.info.transaction_status == TransactionStatus.INTRANS


def has_default_timeout(connection: Connection) -> bool:
    """Return whether it is only our default for how long another connection's lock is waited for."""
    return fetch(connection, _HAS_DEFAULT_TIMEOUT, (str(LOCK_TIMEOUT),)) == [(True,)]


class _Kept:
    """The state of a session as it was found, to be put back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        ((self._user, self._role, *self._settings),) = fetch(connection, _SESSION, ())

    def put_back(self, *, user: bool) -> None:
        """Put it back; the session's `user` is another one only where somebody may have made it so."""
        connection = self._connection
        fetch(connection, _RESET, ())
        if user and fetch(connection, "SELECT session_user", ()) != [(self._user,)]:
            fetch(connection, "SELECT set_config('session_authorization', $1, false)", (self._user,))
        if self._role != "none":
            fetch(connection, "SELECT set_config('role', $1, false)", (self._role,))
        if self._settings[0]:
            fetch(connection, _PUT_BACK, self._settings)


@contextlib.contextmanager
def of_run(connection: Connection) -> Iterator[None]:
    """Set the connection up for other people's scripts, and put everything back after the block.

    Raises:
        MigrationError: It has temporary tables, in which a script would find what a name means.
    """
    if guests := [name for (name,) in fetch(connection, _TEMPORARY, ())]:
        raise MigrationError(
            f"the connection has temporary tables ({', '.join(guests)}): a script would find them under names that "
            "mean something else, or nothing, everywhere else. Nothing was changed; drop them first, or give the URL "
            "of the database instead"
        )
    kept, held = _Kept(connection), _held(connection)
    try:
        fetch(connection, _OF_RUN, (str(LOCK_TIMEOUT),))
        if connection.info.transaction_status == TransactionStatus.IDLE:
            with contextlib.suppress(psycopg.Error):  # a server on Windows cannot look
                fetch(connection, _LOOK_FOR_CLIENT, ())
        yield
    finally:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            with contextlib.suppress(psycopg.Error):  # the first error is the one to know
                _let_go(connection, held)
                kept.put_back(user=True)
                _forget_prepared(connection)


def _forget_prepared(connection: Connection) -> None:
    """Have the driver forget what it has prepared, as it does after an ALTER of its own: the tables may be others."""
    threshold, connection.prepare_threshold = connection.prepare_threshold, 1
    try:
        fetch(connection, "BEGIN", ())
        # it looks at a text that it has not seen yet, and not at others
        fetch(connection, f"ROLLBACK /* {time.monotonic_ns()} */", ())
    finally:
        connection.prepare_threshold = threshold


class Apart:
    """Runs a script in the block so that what it sets for the connection ends with it."""

    def __init__(self, connection: Connection, script: Script) -> None:
        self._connection, self._script = connection, script
        words = script.text.lower()
        self._may_hold = any(word in words for word in _WORDS)
        self._may_be_another = "authorization" in words
        self._held: set[str] = set()
        self._transaction = self._ledger = ""

    def __enter__(self) -> Self:
        connection = self._connection
        self._kept = _Kept(connection)
        if self._may_hold:
            self._held = _held(connection)
        if self._script.transactional:
            ((self._transaction, self._ledger),) = fetch(connection, _TRANSACTION, (list(TABLES),))
        return self

    def check(self) -> str | None:
        """Let the constraints judge that are deferred; return what a script has done that it may not, or None.

        Raises:
            psycopg.Error: A row violates one of them.
        """
        connection = self._connection
        encoding = connection.pgconn.parameter_status(b"client_encoding")
        if encoding != b"UTF8":
            said = (encoding or b"").decode()
            return f"the script sets client_encoding to {said}, and is itself read and sent as UTF-8: remove that"
        if connection.pgconn.parameter_status(b"standard_conforming_strings") != b"on":
            return "the script sets standard_conforming_strings to off: write E'…' where a backslash is to escape"
        if not self._script.transactional:
            return None
        if not in_transaction(connection):
            return "the script ended the transaction of the run"
        ((now, ledger, is_read_only, can_defer),) = fetch(connection, _AT_THE_END, (list(TABLES),))
        if now != self._transaction:
            return "the script ended the transaction of the run, and began another"
        if ledger != self._ledger:
            return "refused to change the ledger's tables: the ledger is kept by the runner (dao mark, dao unmark)"
        if is_read_only:
            return "the script makes the transaction of the run read-only, and the ledger has to be written"
        if can_defer:
            settle(connection)
        return None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and self._script.transactional:
            return  # what a transaction set goes with it; `of_run` sees to the rest
        with contextlib.suppress(psycopg.Error) if kind is not None else contextlib.nullcontext():
            if self._may_hold:
                _let_go(self._connection, self._held)
            self._kept.put_back(user=self._may_be_another)


def settle(connection: Connection) -> None:
    """Let the constraints judge that are deferred, and put each back to when it judges by its definition.

    Raises:
        psycopg.Error: A row violates one of them.
    """
    found = fetch(connection, _DEFERRABLE, ())
    for names, when in (
        ([name for name, _ in found], "IMMEDIATE"),
        ([name for name, is_deferred in found if is_deferred], "DEFERRED"),
    ):
        if names:
            fetch(connection, f"SET CONSTRAINTS {', '.join(names)} {when}", ())


def _held(connection: Connection) -> set[str]:
    """Return the statements that let go of what the session holds now."""
    return {statement for (statement,) in fetch(connection, _HELD, ())}


def _let_go(connection: Connection, held: set[str]) -> None:
    """Let go of what the session holds but for what it held before."""
    for statement in _held(connection) - held:
        # a lock may be held several times; one of the transaction is not to be had
        while fetch(connection, statement, ()) == [(True,)]:
            pass
