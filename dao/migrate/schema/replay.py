"""The schema that a database has, and the one that its migrations make: read, replayed in memory, compared, dumped."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import apsw
import attrs

from dao.engine import Connection, connect
from dao.engine.sqlite import use_defaults
from dao.errors import MigrationError
from dao.migrate.schema.catalog import Definition, column_names, definitions, fold
from dao.migrate.schema.model import Schema, differences
from dao.migrate.schema.reader import read
from dao.migrate.schema.session import IGNORED, IGNORED_INSIDE, apart
from dao.migrate.scripts.directives import is_transactional
from dao.migrate.values import Difference

__all__ = [
    "Difference",
    "Made",
    "Schema",
    "differences",
    "fingerprint",
    "is_empty",
    "made_by",
    "read",
    "replayed",
]

_PATIENCE = 2.0
#: A script to replay: the id of its migration, and its text.
Script = tuple[str, str]


@attrs.frozen
class Made:
    """What a script made: tables, and columns as (table, column), that were not there before it; by `fold`."""

    tables: frozenset[str]
    columns: frozenset[tuple[str, str]]

    def has(self, table: str, column: str | None = None) -> bool:
        """Return whether the table, or the column of a table that was there before, is among them."""
        name = fold(table)
        return name in self.tables or (column is not None and (name, fold(column)) in self.columns)


def fingerprint(connection: Connection) -> str:
    """Return a hash of the schema's text, without the ledger. Reads it in one query.

    Equal ones mean equal schemas. Different ones may be the same schema, written differently: `differences` tells.
    """
    found = sorted((item.type, item.name, item.table, str(item.sql)) for item in _own(connection))
    # no text in a schema holds a NUL, at which SQLite stops reading
    text = "\0".join(itertools.chain.from_iterable(found))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def is_empty(connection: Connection) -> bool:
    """Return whether the schema holds nothing, but for the ledger."""
    return not _own(connection)


def _own(connection: Connection) -> list[Definition]:
    return [item for item in definitions(connection) if not item.is_internal]


# ---------------------------------------------------------------- replay


@contextlib.contextmanager
def replayed(scripts: Iterable[Script], *, patience: float | None = None) -> Iterator[Connection]:
    """Open an empty database in memory, run scripts in it as in a run, and close it after the block.

    Foreign keys are off, and what a run passes over is passed over: a script's own transaction, and PRAGMA query_only.
    All scripts together have `patience` seconds (2 if None: it happens under the write lock, too): one may count to a billion.

    Raises:
        MigrationError: A script fails in an empty database, or takes too long.
    """
    end = time.monotonic() + (_PATIENCE if patience is None else patience)
    connection = connect("sqlite:///:memory:")
    try:
        use_defaults(connection)
        connection.pragma("foreign_keys", False)
        # called now and then, it lets Ctrl-C be noticed in the middle of a long statement, too
        connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        for id, text in scripts:
            _replay(connection, id, text)
        yield connection
    finally:
        connection.close()


def _replay(connection: Connection, id: str, text: str) -> None:
    together = is_transactional(text)
    refused: list[str] = []
    try:
        if together:
            connection.execute("BEGIN")
        with apart(connection, text):
            connection.authorizer = _as_in_a_run(refused, together=together)
            # drained: a statement that returns rows holds up those after it
            for _ in connection.execute(text, can_cache=False):
                pass
            connection.authorizer = None
        if connection.in_transaction:
            connection.execute("COMMIT")
    except apsw.Error as error:
        why = f"{refused[-1]} is refused" if refused and isinstance(error, apsw.AuthError) else str(error)
        why = "it takes too long" if isinstance(error, apsw.InterruptError) else why
        raise MigrationError(
            f"{id}: replaying this migration in an empty database fails ({why}), so what the migrations make cannot be told"
        ) from error


def _as_in_a_run(refused: list[str], *, together: bool) -> Callable[..., int]:
    """Return an authorizer that passes over what a run passes over, and refuses what it refuses."""

    def authorize(action: int, first: str | None, second: str | None, *_rest: str | None) -> int:
        if action in {apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH} and first != "":  # VACUUM attaches one without a name
            refused.append("ATTACH or DETACH")
            return apsw.SQLITE_DENY
        set_ = (first or "").lower() if action == apsw.SQLITE_PRAGMA and second is not None else None
        if set_ in IGNORED:
            return apsw.SQLITE_IGNORE
        if not together:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_TRANSACTION and first == "ROLLBACK":
            refused.append("ROLLBACK")
            return apsw.SQLITE_DENY
        return apsw.SQLITE_IGNORE if set_ in IGNORED_INSIDE or action == apsw.SQLITE_TRANSACTION else apsw.SQLITE_OK

    return authorize


def made_by(earlier: Sequence[Script], id: str, text: str) -> Made:
    """Return the tables and columns that a script makes after the earlier ones, found by replaying them in memory.

    Raises:
        MigrationError: One of the scripts fails in an empty database.
    """
    with replayed(earlier) as connection:
        before = column_names(connection)
        _replay(connection, id, text)
        new = column_names(connection) - before
    return Made(
        frozenset(table for table, column in new if not column),
        frozenset((table, column) for table, column in new if column),
    )
