"""The functions, collations, modules and tokenizers of a program, without which its schema does not work.

They belong to a connection, and nobody can ask it for them. So a function of the program's registers them with each
that a run opens: with the database itself, with copies, and in memory.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import apsw

from dao.engine import Connection as AnyConnection
from dao.engine import sqlite
from dao.engine.sqlite import Connection
from dao.errors import PrepareFailed
from dao.migrate.schema.catalog import definitions

__all__ = ["PLAIN", "Prepare", "preparing", "register", "to_register"]

#: A function of the program's that registers with a connection what its schema needs.
Prepare = Callable[[Connection], object]

#: What an owner of a connection may have set on it, and how it is without: rows are tuples, and nothing is forbidden.
PLAIN = {"row_trace": None, "cursor_factory": apsw.Cursor, "authorizer": None}

# Every connection needs it, however deep below a verb it is opened: the verbs set it, and `register` reads it.
_prepare: contextvars.ContextVar[Prepare | None] = contextvars.ContextVar("prepare", default=None)
# while it runs, statements may read, and set these: what a schema may use, and what LIKE means
_READING = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
_SETTINGS = {"trusted_schema", "case_sensitive_like"}
# and these are put back, which are set without a statement
_SWITCHES = (
    *(apsw.SQLITE_DBCONFIG_DEFENSIVE, apsw.SQLITE_DBCONFIG_DQS_DDL, apsw.SQLITE_DBCONFIG_DQS_DML),
    *(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, apsw.SQLITE_DBCONFIG_ENABLE_QPSG, apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER),
    *(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, apsw.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE),
    *(apsw.SQLITE_DBCONFIG_REVERSE_SCANORDER, apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA),
)


@contextlib.contextmanager
def preparing(prepare: Prepare | None) -> Iterator[None]:
    """Have a function called with each connection that is opened in the block; None: the one of the block around it."""
    if prepare is None:
        yield
        return
    before = _prepare.set(prepare)
    try:
        yield
    finally:
        _prepare.reset(before)


def to_register(reason: str) -> str | None:
    """Return the advice for an error of SQLite's, by its words, if it is about what a program registers."""
    return sqlite.to_register(
        reason, "--prepare MODULE:FUNCTION (DATABASE_PREPARE; prepare= in Python) registers what is your program's own"
    )


def register(connection: AnyConnection) -> None:
    """Call the program's function with a connection of ours that is new, before that is set up any further.

    Not with one of PostgreSQL's, where functions and types are in the database itself.

    It may read, and register. It changes nothing in the database, and no setting but `trusted_schema` and what LIKE
    means: pragmas have no effect, and what else it sets is put back.

    Raises:
        PrepareFailed: It raised, would have changed the database, left a statement in the middle, or registers what the
            schema may not use.
    """
    function = _prepare.get()
    if function is None or not isinstance(connection, Connection):
        return
    switches = {option: connection.config(option, -1) for option in _SWITCHES}
    only_reads = connection.pragma("query_only")
    # for a function that sets an authorizer of its own
    connection.pragma("query_only", True)
    _call(function, connection)
    try:
        for name, value in PLAIN.items():
            setattr(connection, name, value)
        for option, on in switches.items():
            connection.config(option, on)
        connection.pragma("query_only", only_reads)
        if connection.txn_state("main"):
            raise PrepareFailed(
                f"{_name(function)} leaves a statement whose rows it has not read to the end, and a run cannot go on "
                "beside that; read them all (`fetchall()`), or close the cursor"
            )
        # SQLite does not hold a schema that it has read already against what was registered since
        connection.pragma("writable_schema", "reset")
        definitions(connection)
    except apsw.ConnectionClosedError as error:
        raise PrepareFailed(f"{_name(function)} closed the connection; leave it open") from error
    except apsw.Error as error:
        # what else is wrong with the database shows when it is used
        if advice := to_register(str(error)):
            reason = str(error).rpartition(" - ")[2]  # it is not "malformed"
            raise PrepareFailed(
                f"{_name(function)} registers what the schema may not use: {reason}; {advice}"
            ) from error


def _call(function: Prepare, connection: Connection) -> None:
    from dao.transactions import done  # noqa: PLC0415 - few programs have such a function

    refused: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, *_where: str | None) -> int:
        if action == apsw.SQLITE_PRAGMA:
            name = (first or "").lower()
            # those that ask for what there is have an argument, too
            harmless = second is None or name in _SETTINGS or name.endswith(("_info", "_xinfo", "_list"))
            return apsw.SQLITE_OK if harmless else apsw.SQLITE_IGNORE
        if action in _READING:
            return apsw.SQLITE_OK
        what = str(apsw.mapping_authorizer_function[action]).removeprefix("SQLITE_").replace("_", " ")
        refused.append(f"{what} {first or ''}".strip())
        return apsw.SQLITE_DENY

    raised: BaseException | None = None
    connection.authorizer = authorize
    try:
        done(function(connection))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a program does
        raised = error
    finally:
        with contextlib.suppress(apsw.ConnectionClosedError):
            connection.authorizer = None
    if refused:
        raise PrepareFailed(
            f"{_name(function)} is to register functions and the like, and may not {refused[0]}: it is called with "
            "every connection, copies and databases in memory among them; leave that out"
        ) from raised
    if raised is not None:
        import traceback  # noqa: PLC0415 - as above

        # where in the program: nowhere, if the function does not take a connection
        places = traceback.extract_tb(raised.__traceback__)[1:2]
        where = "".join(f" ({place.filename}:{place.lineno})" for place in places)
        raise PrepareFailed(f"{_name(function)} raised {type(raised).__name__}: {raised}{where}; mend it") from raised


def _name(function: Prepare) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}:{name}" if name else repr(function)
