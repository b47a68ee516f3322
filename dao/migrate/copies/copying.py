"""One database copied into another, and the proof that the copy holds the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from dao.engine.sqlite import Connection, database_file
from dao.errors import DatabaseCorrupt, MigrationError
from dao.migrate.copies.descriptors import write_all
from dao.migrate.copies.new_files import NewFile
from dao.migrate.copies.rows import contents
from dao.migrate.events import Copying, Report
from dao.migrate.schema import catalog
from dao.migrate.schema.check import integrity_problems
from dao.migrate.schema.names import TABLES, quoted
from dao.migrate.schema.registration import to_register

__all__ = ["PAGES", "compare", "copied", "copy_into", "finish", "size_of"]

#: How many pages are copied at a time.
PAGES = 1024
_LITTLE = 1024 * 1024  # bytes


def size_of(connection: Connection) -> int:
    """Return the size in bytes of the database that the connection sees."""
    pages: Any = connection.pragma("page_count")
    size: Any = connection.pragma("page_size")
    return int(pages) * int(size)


def copy_into(copy: Connection, source: Connection, report: Report | None = None) -> None:
    """Replace all that one connection's database holds by what another connection sees, and report the progress."""
    with copy.backup("main", source, "main") as backup:
        finish(backup, report)


def finish(backup: apsw.Backup, report: Report | None = None) -> None:
    """Copy what a backup has not copied yet, piece by piece, so that Ctrl-C is noticed; then it commits."""
    while not backup.done:
        backup.step(PAGES)
        if report is not None:
            report(Copying(backup.page_count - backup.remaining, backup.page_count))


def copied(source: Connection, new: NewFile) -> Connection:
    """Copy all that a connection sees into an empty file and return a connection to it, without locks or journal files.

    The copy is a single file in rollback-journal mode, whatever the source's mode is.

    Raises:
        DiskFull: There was no room; the file is not complete.
    """
    with contextlib.closing(new.connect()) as copy:
        copy_into(copy, source)
    # the first page of a database in WAL mode says that it is in WAL mode (sqlite.org/fileformat2.html, 1.3.3)
    if os.fstat(new.file).st_size:
        write_all(new.file, b"\1\1", 18)
    return new.connect()


# ---------------------------------------------------------------- verification


def compare(reader: Connection, path: str, new: NewFile, otherwise: str) -> None:
    """Refuse a copy that is damaged, or that does not hold what a connection sees in its open transaction.

    Equal hashes by `sqlite3_dbhash` prove that the copy holds what the database holds now. Different ones prove nothing
    while others write, so then the contents are compared within the transaction, which costs six times as much. Where
    no copy can be compared, the message advises `otherwise`.

    Raises:
        DatabaseCorrupt: The copy is damaged, as the database was, then.
        MigrationError: It differs, or cannot be read without the program that it belongs to.
    """
    copy = new.connect()
    try:
        # a little one is compared before a process has started; a connection that locks others out locks the tool out
        alone = size_of(reader) < _LITTLE or reader.pragma("locking_mode") == "exclusive"
        with _hashing(*(() if alone else (path, new.path))) as same:
            integrity_problems(copy)
            if not same() and _state(reader) != _state(copy):
                raise MigrationError(f"the copy of {path} differs from it: check the disk and the memory, then repeat")
    except DatabaseCorrupt as error:
        raise DatabaseCorrupt(
            f"{path} is damaged: restore a snapshot (`dao restore`; what was written since is lost) or a backup",
            details=error.details,
        ) from error
    except apsw.SQLError as error:
        hint = to_register(str(error)) or "its schema needs what its program defines"
        raise MigrationError(f"a snapshot of {path} cannot be verified ({error}): {hint}; or {otherwise}") from error
    finally:
        copy.close()


@contextlib.contextmanager
def _hashing(*paths: str) -> Iterator[Callable[[], bool]]:
    """Hash databases in processes of their own, at the same time; the function waits and returns if all are equal."""
    processes: list[subprocess.Popen[bytes]] = []

    def same() -> bool:
        hashes = {process.communicate()[0].split(b" ")[0] for process in processes}
        return 0 < len(processes) == len(paths) and len(hashes) == 1 and len(hashes.pop()) == 40

    with contextlib.ExitStack() as until_done:
        with contextlib.suppress(OSError):
            for path in paths:
                hashing = [database_file.tool("sqlite3_dbhash"), path]
                process = subprocess.Popen(hashing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                processes.append(until_done.enter_context(process))
                until_done.callback(process.kill)
        yield same


def _state(connection: Connection) -> dict[str, Any]:
    """Return all that a database holds: its schema, its rows by hash, and its ledger."""
    state: dict[str, Any] = {name: connection.pragma(name) for name in ("user_version", "application_id")}
    state["schema"] = frozenset(catalog.definitions(connection))
    state["contents"] = contents(connection)
    for table in catalog.table_names(connection) & {*TABLES, "sqlite_sequence"}:
        state[table] = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {quoted(table)}"))
    return state
