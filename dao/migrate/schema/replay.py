"""The schema that migrations make: their scripts replayed in an empty database in memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.errors import Error, MigrationError, MigrationFailed
from dao.migrate.schema.catalog import column_names, definitions
from dao.migrate.schema.model import Key, earlier
from dao.migrate.schema.names import fold
from dao.migrate.schema.script import run_script
from dao.migrate.schema.session import in_memory, interruptible
from dao.migrate.scripts.directives import is_transactional
from dao.migrate.scripts.migration import Script

__all__ = ["Made", "made_by", "makers", "not_replayed", "replayed"]

_PATIENCE = 2.0
_LATEST = "DROP VIEW IF EXISTS main._dao_latest; CREATE VIEW main._dao_latest AS SELECT 1"


@attrs.frozen
class Made:
    """The tables, and the columns as (table, column), that a script made; names by `fold`."""

    tables: frozenset[str]
    columns: frozenset[tuple[str, str]]

    def has(self, table: str, column: str | None = None) -> bool:
        """Return whether the table, or the column of a table that was there before, is among them."""
        name = fold(table)
        return name in self.tables or (column is not None and (name, fold(column)) in self.columns)


@contextlib.contextmanager
def replayed(
    scripts: Iterable[tuple[str, str]],
    *,
    patience: float = _PATIENCE,
    after: Callable[[Connection], object] | None = None,
) -> Iterator[Connection]:
    """Open an empty database in memory, run scripts (ids and texts) in it as in a run, and close it after the block.

    Foreign keys are off. All scripts together have `patience` seconds of the processor: a script may count to a
    billion, and others wait for the write lock meanwhile. `after` may look at the database after each; that takes none
    of their time.

    Raises:
        MigrationError: A script fails in an empty database, or takes too long.
    """
    with contextlib.closing(in_memory(patience=patience)) as connection:
        end = time.thread_time() + patience
        for id, text in scripts:
            _replay(connection, id, text)
            if after is not None:
                begun = time.thread_time()
                after(connection)
                now = time.thread_time()
                end += now - begun
                interruptible(connection, end - now)
        yield connection


def _replay(connection: Connection, id: str, text: str) -> None:
    script = Script(path=None, text=text, transactional=is_transactional(text))
    try:
        if script.transactional:
            connection.execute("BEGIN")
        run_script(connection, id, script)
        if connection.in_transaction:
            connection.execute("COMMIT")
    except (Error, apsw.Error) as error:
        too_long = isinstance(error.__cause__ or error, apsw.InterruptError)
        raise not_replayed(id, "it takes too long" if too_long else error) from error


def not_replayed(id: str, why: Exception | str) -> MigrationError:
    """Return the error for a migration that cannot be replayed."""
    reason = why.reason if isinstance(why, MigrationFailed) else why
    return MigrationError(
        f"{id}: replaying this migration in an empty database fails ({reason}), so what the migrations make cannot be "
        "told"
    )


def makers(scripts: Sequence[tuple[str, str]], *, patience: float = _PATIENCE, parts: bool = False) -> dict[Key, str]:
    """Return the id of the script that made each object, by the object's type and its name, by `fold`.

    One that a later script made anew, or gave another name, is the earlier one's. With `parts` those of tables are
    among them, as `table.part`: each "column", and the "name", which is that of the script that gave it.

    Raises:
        MigrationError: As `replayed`.
    """
    left = iter(scripts)
    before: dict[Key, int] = {}
    found: dict[Key, str] = {}

    def look(connection: Connection) -> None:
        nonlocal before, found
        id, text = next(left)
        there = {(item.type, item.key): item.number for item in definitions(connection)}
        # outside of a transaction VACUUM may have numbered them anew
        was = earlier(before, there) if is_transactional(text) else {key: key for key in before.keys() & there.keys()}
        made = {key: found[was[key]] if key in was else id for key in there}
        for table, column in column_names(connection) if parts else ():
            kind, part = ("column", column) if column else ("name", table)
            _, old = was.get(("table", table), ("", ""))
            made[kind, f"{table}.{part}"] = found.get((kind, f"{old}.{part}"), id)
        # what the next script makes has higher numbers than this, even if it drops the latest before that
        connection.execute(_LATEST)
        found, before = made, there

    with replayed(scripts, patience=patience, after=look):
        return found


def made_by(earlier: Sequence[tuple[str, str]], id: str, text: str) -> Made:
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
