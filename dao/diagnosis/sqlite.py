"""What a SQLite database tells: its journal, free pages and settings; and what stands beside its file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dao.diagnosis.finding import Finding, Look, cannot_tell, error, note, ok, warning
from dao.engine import Connection, DriverError, fetch
from dao.errors import Error
from dao.migrate import processes
from dao.migrate.copies.new_files import leftovers
from dao.migrate.copies.snapshot import snapshots
from dao.settings import Settings
from dao.text import brief, counted, manual, readable
from dao.url import DatabaseURL

__all__ = ["beside", "looks", "settings"]

# bytes: past the first something keeps a WAL from being reused; below the other nobody misses what is free
_LARGE_WAL = 64 << 20
_FREE = 16 << 20
_SHARE = 0.25
# seconds: a hundred megabytes or so
_PATIENCE = 0.5


def settings(url: DatabaseURL, replica: str | None) -> Iterator[Finding]:
    """Yield which settings of the URL put something at risk."""
    check = "settings"
    if url.synchronous == "off":
        yield error(
            check,
            "synchronous=off",
            "a power cut can damage the database, not only lose the last commits",
            "leave it out: normal is nearly as fast in WAL mode",
        )
    if url.foreign_keys is False:
        yield warning(
            check,
            "foreign_keys=off",
            "rows can refer to rows that do not exist, and deleting one leaves what belongs to it",
            "leave it out; `dao check` finds the rows that break a key",
        )
    if url.busy_timeout == 0:
        yield warning(
            check,
            "a busy timeout of 0",
            "a write fails at once whenever another is under way",
            "leave it out: 5 s is the default",
        )
    if url.wal_autocheckpoint == 0 and replica is None:
        yield warning(
            check,
            "wal_autocheckpoint=0, and no replica is named",
            "nothing brings the WAL into the file, and it grows without an end; that setting is for `dao replicate`",
            "leave it out, or name the replica in DATABASE_REPLICA",
        )
    if url.wal_autocheckpoint != 0 and replica is not None:
        yield error(
            check,
            "a replica is named, and wal_autocheckpoint=0 is not in the URL",
            "a checkpoint between two of Litestream's looks can leave a replica from which a damaged database is "
            f"restored ({manual('how-to/replicate.md')})",
            "add wal_autocheckpoint=0 to the URL of all that write",
        )


def looks(path: str) -> dict[str, Look]:
    """Return how to look at a database, each by what it is about. Only the first reads more than its first page."""
    return {
        "damage": lambda connection: _damage(connection, path),
        "journal": lambda connection: _journal(connection, path),
        "free pages": _free,
        "locks": lambda _: _locks(path),
    }


def _damage(connection: Any, path: str) -> Iterator[Finding]:
    """Read pages, as long as nobody minds that, and look whether they are sound."""
    check = "damage"
    end = time.monotonic() + _PATIENCE
    is_late = False

    def late() -> bool:
        nonlocal is_late
        is_late = time.monotonic() > end
        return is_late

    connection.set_progress_handler(late, 1000, id=late)
    try:
        told = fetch(connection, "PRAGMA quick_check(1)")[0][0]
    except (Error, DriverError):
        if not is_late:
            raise
        told = None
    finally:
        connection.set_progress_handler(None, id=late)
    if told is None:
        yield ok(check, f"none in what could be read in {_PATIENCE:g} s; `dao check` reads all")
    elif told == "ok":
        yield ok(check, "no page is damaged")
    else:
        yield error(
            check,
            f"{path} is damaged: {' '.join(told.split())}",
            "rows are lost or wrong, and to write may make that worse",
            "stop what writes, keep a copy of the file with its -wal, and restore a snapshot (`dao restore`), a "
            f"replica or a backup ({manual('how-to/restore.md')})",
        )


def _locks(path: str) -> Iterator[Finding]:
    if holder := processes.holder(path):
        yield note(
            "locks",
            f"{holder} holds the write lock",
            "others that write wait for it, for as long as their busy timeout allows",
            "if it is the same for long: keep transactions short, and wait for nothing within them",
        )


def _journal(connection: Connection, path: str) -> Iterator[Finding]:
    check = "journal"
    mode = _pragma(connection, "journal_mode")
    if mode != "wal":
        yield warning(
            check,
            f"journal_mode is {mode}",
            "readers and a writer wait for each other",
            "open it once without journal_mode=keep, as `dao migrate` does: it is WAL from then on",
        )
        return
    try:
        size = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        size = 0
    except OSError as problem:
        yield cannot_tell(check, problem)
        return
    if size > _LARGE_WAL:
        yield warning(
            check,
            f"the WAL has {readable(size)}",
            "reads become slower, and the disk fills: some connection reads from an old state for long, or nothing "
            "brings the WAL into the file (wal_autocheckpoint=0)",
            "end long reads and idle transactions; what writes next makes it small again. With a replica: see that "
            "`dao replicate` runs",
        )
    else:
        yield ok(check, f"WAL, {readable(size)}")


def _free(connection: Connection) -> Iterator[Finding]:
    check = "free pages"
    free, pages, size = (
        int(_pragma(connection, name)) for name in ("freelist_count", "page_count", "page_size")
    )  # fmt: skip
    text = f"{free:,} of {pages:,} pages ({readable(free * size)})"
    if free * size > _FREE and free > _SHARE * pages:
        yield note(
            check,
            text,
            "rows that were deleted left them; new rows take them, the file does not shrink by itself",
            "if the room is needed: `VACUUM` while nobody writes, with twice the room of the database on the disk",
        )
    else:
        yield ok(check, text)


def _pragma(connection: Connection, name: str) -> Any:
    return fetch(connection, f"PRAGMA {name}")[0][0]


def beside(path: str, config: Settings) -> Iterator[Finding]:
    """Yield what stands beside the file: snapshots, copies that were not finished, a WAL that has lost its database."""
    check = "snapshots"
    try:
        there, left = snapshots(config.url), leftovers(path)
    except (Error, OSError) as problem:
        yield cannot_tell(check, problem)
        return
    if left:
        yield note(
            "orphans",
            f"a copy that was never finished is beside it: {', '.join(left)}",
            "it takes room, and is of no use",
            "the next `dao snapshot` removes it",
        )
    if not os.path.exists(path):
        for suffix in ("-wal", "-journal"):
            if os.path.exists(path + suffix):
                yield error(
                    "orphans",
                    f"{path}{suffix} is there, and its database is not",
                    "it may hold the last commits; whatever is put at that name gets them, if it is not the same",
                    "bring back the database that belongs to it, or move it away",
                )
        return
    if there:
        newest = brief((datetime.now(UTC) - there[0].taken_at).total_seconds())
        room = readable(sum(one.size for one in there))
        yield ok(check, f"{counted(len(there), 'snapshot')}, {room}, the newest {newest} old")
    elif config.replica is None:
        yield note(
            check,
            "none, and no replica is named",
            "what is deleted or damaged now cannot be brought back from here",
            "`dao snapshot --to DIR` from cron, or `dao replicate`",
        )
