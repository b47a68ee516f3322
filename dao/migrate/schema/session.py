"""A connection for other people's scripts: how it is set up, and what they may set on it.

None of that reaches the next script of a run, or the owner of the connection. So a run of many scripts is the same as
many runs of one, on a new connection each. Functions, collations, modules, `trusted_schema` and everything else that
the owner has registered are there for all scripts; with a connection of ours, `registration` registers them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import apsw

from dao.engine import sqlite
from dao.engine.sqlite import Connection, use_defaults
from dao.errors import MigrationError
from dao.migrate.schema.catalog import Definition, definitions, drop_sequence, settings
from dao.migrate.schema.names import TABLES, quoted
from dao.migrate.schema.registration import PLAIN, register
from dao.url import MEMORY, DatabaseURL

__all__ = [
    "BESIDE",
    "IGNORED",
    "IGNORED_INSIDE",
    "SETTINGS",
    "apart",
    "in_memory",
    "interruptible",
    "of_run",
    "plain",
    "prepare",
]


#: Pragmas that a script may set for itself. Each can be read, and put back inside a transaction.
SETTINGS = (
    *("analysis_limit", "automatic_index", "cache_size", "cache_spill", "cell_size_check", "checkpoint_fullfsync"),
    *("count_changes", "empty_result_callbacks", "foreign_keys", "full_column_names", "fullfsync"),
    *("ignore_check_constraints", "journal_mode", "journal_size_limit", "legacy_alter_table", "locking_mode"),
    *("max_page_count", "query_only", "read_uncommitted", "recursive_triggers", "reverse_unordered_selects"),
    *("secure_delete", "short_column_names", "synchronous", "threads", "trusted_schema", "writable_schema"),
)
#: Pragmas that a script sets in vain, with why. They change nothing that is stored, and could not be put back.
IGNORED = {
    "busy_timeout": "the connection has one of its own",
    "data_store_directory": "it is one for the whole process",
    "hard_heap_limit": "it is one for the whole process",
    "mmap_size": "it belongs to whoever opened the connection",
    "soft_heap_limit": "it is one for the whole process",
    "temp_store": "it would drop what is temporary",
    "temp_store_directory": "it is one for the whole process",
    "wal_autocheckpoint": "it belongs to whoever opened the connection",
}
#: Those that a script in a transaction has in vain, too, with why. SQLite would fail, or have them stop the run.
IGNORED_INSIDE = {
    "foreign_keys": "they are checked at the end; `-- foreign_keys: on` at the top enforces them",
    "query_only": "the ledger has to be written",
    "synchronous": "it changes outside of a transaction only (`-- transactional: false`)",
    "wal_checkpoint": "it runs outside of a transaction only (`-- transactional: false`)",
}
#: The name under which the rehearsal attaches a database of its own. No script can attach any.
BESIDE = "dao rehearsal"

#: A script finds these set so, whatever the owner of the connection has: they change what statements do.
_IN_A_RUN = {
    "ignore_check_constraints": 0,
    "legacy_alter_table": 0,
    "recursive_triggers": 0,
    "reverse_unordered_selects": 0,
    "writable_schema": 0,
}
# they wait for the next VACUUM, and read as what the file has
_WAITING = ("auto_vacuum", "page_size")
_OFTEN = 100_000  # instructions, some milliseconds
_NO_CHANGES = f"DELETE FROM main.{quoted(TABLES[0])} WHERE 0"


# ---------------------------------------------------------------- a connection of ours


def in_memory(*, patience: float = math.inf) -> Connection:
    """Open an empty database in memory for scripts, which are interrupted when they have worked for that long."""
    connection = sqlite.open_connection(DatabaseURL(path=MEMORY))
    try:
        prepare(connection, patience)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: Connection, patience: float = math.inf) -> None:
    """Set a connection that `connect` has opened up for scripts: as SQLite is by itself, with foreign keys off.

    Raises:
        PrepareFailed: As `register`.
    """
    register(connection)
    use_defaults(connection)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
    interruptible(connection, patience)


def interruptible(connection: Connection, patience: float = math.inf) -> None:
    """Let Ctrl-C be noticed in the middle of a long statement, and interrupt one that works for so many seconds.

    They are seconds of the processor, for this thread: a script does not take too long because the machine is busy.
    """
    end = time.thread_time() + patience
    # SQLite calls it back, and Python sees to its signals meanwhile
    connection.set_progress_handler(lambda: time.thread_time() > end, _OFTEN)


# ---------------------------------------------------------------- somebody else's, or ours


@contextlib.contextmanager
def plain(connection: Connection) -> Iterator[None]:
    """Set aside what the owner of a connection set: how rows are made, and which statements are forbidden."""
    kept = {name: getattr(connection, name) for name, value in PLAIN.items() if getattr(connection, name) is not value}
    try:
        for name in kept:
            setattr(connection, name, PLAIN[name])
        yield
    finally:
        for name, value in kept.items():
            setattr(connection, name, value)


@contextlib.contextmanager
def of_run(connection: Connection) -> Iterator[None]:
    """Set the connection up for other people's scripts, and put everything back after the block.

    Raises:
        MigrationError: It has temporary objects or attached databases, in which a script would find what a name means.
    """
    _refuse_guests(connection)
    found, rowid = _read(connection), connection.last_insert_rowid()
    present = found | _IN_A_RUN
    try:
        _set(connection, present, found)
        yield
    except BaseException:
        # a script that ends puts back what it set; one that fails may not be able to
        with contextlib.suppress(apsw.Error):
            present = _read(connection)
            _drop_temporary(connection)
        raise
    finally:
        _set(connection, found, present)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, found["foreign_keys"])
        connection.set_last_insert_rowid(rowid)


@contextlib.contextmanager
def apart(connection: Connection, text: str) -> Iterator[None]:
    """Run a script in the block so that what it sets for the connection ends with it.

    Only settings whose words the script uses are asked and put back: most use none.
    """
    words = text.lower()
    found = _read(connection) if "pragma" in words else None
    connection.set_last_insert_rowid(0)
    if "changes" in words:
        with contextlib.suppress(apsw.SQLError):  # where there is no ledger
            connection.execute(_NO_CHANGES)
    failed = True
    try:
        yield
        for name in _WAITING:
            if name in words:
                connection.pragma(name, connection.pragma(name))
        failed = False
    finally:
        # the first error is the one to know
        with contextlib.suppress(apsw.Error) if failed else contextlib.nullcontext():
            if found is not None:
                _set(connection, found, _read(connection))
            # what a transaction made goes with it
            if "temp" in words and not (failed and connection.in_transaction):
                _drop_temporary(connection)


def _read(connection: Connection) -> dict[str, Any]:
    return settings(connection, (*SETTINGS, "case_sensitive_like"))


def _temporary(connection: Connection) -> list[Definition]:
    """Return the temporary triggers, views and tables, in the order in which they can be dropped."""
    order = ("trigger", "view", "table")
    found = [item for item in definitions(connection, "temp") if item.type in order]
    return sorted(found, key=lambda item: (order.index(item.type), item.page))


def _set(connection: Connection, wanted: dict[str, Any], present: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if value == present[name]:
            continue
        if name == "foreign_keys":
            # the pragma does nothing in a transaction
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, value)
        elif name != "journal_mode" or "wal" not in {value, present[name]}:
            connection.pragma(name, "fast" if name == "secure_delete" and value == 2 else value)
        elif value == "wal":
            # whether it is WAL is the file's, and stays as it is; which other mode it is, is the connection's
            connection.pragma(name, "delete")


def _refuse_guests(connection: Connection) -> None:
    temporary = _temporary(connection)
    guests = [f"the temporary {item.type} {item.name}" for item in temporary if not item.name.startswith("sqlite_")]
    guests += [f"the database {name}" for name in connection.db_names() if name not in {"main", "temp", BESIDE}]
    if guests:
        raise MigrationError(
            f"the connection has more than its database ({', '.join(guests)}): a script would find it under names that "
            "mean something else, or nothing, everywhere else. Nothing was changed; drop or detach that first, or give "
            "the URL of the database instead"
        )
    if temporary:
        drop_sequence(connection)


def _drop_temporary(connection: Connection) -> None:
    found = _temporary(connection)
    if not found:
        return
    enforced = connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, -1)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
    try:
        for item in found:
            if item.name != "sqlite_sequence":
                connection.execute(f"DROP {item.type} IF EXISTS temp.{quoted(item.name)}")
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, enforced)
    if any(item.name == "sqlite_sequence" for item in found):
        drop_sequence(connection)
