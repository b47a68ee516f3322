"""The events of a run: what is reported while it happens."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from dao.migrate.values import Drifted, Result, Snapshot, Step

__all__ = [
    "Committed",
    "Copying",
    "Created",
    "Discarded",
    "Event",
    "Finished",
    "Notice",
    "Removed",
    "Report",
    "Snapshotted",
    "Started",
    "Verifying",
    "Waiting",
    "tell_done",
]


@attrs.frozen
class Started:
    """A script begins."""

    step: Step


@attrs.frozen
class Notice:
    """Something in a script was not done as written."""

    step: Step
    text: str


@attrs.frozen
class Finished:
    """A script is done. It counts once it is `Committed`."""

    result: Result


@attrs.frozen
class Committed:
    """A transaction of the run is committed and stays, with the migrations of these `ids`, in order.

    It had the write lock for so many `seconds`, in which no other connection could write. A script that does not run
    in a transaction is committed as it goes; then the `seconds` are those that it took.
    """

    ids: tuple[str, ...]
    seconds: float


@attrs.frozen
class Waiting:
    """Another connection has the lock; waited so far, in seconds, and for whom, if that can be known."""

    seconds: float
    holder: str | None


@attrs.frozen
class Snapshotted:
    """A snapshot of the database was taken, before anything changes."""

    snapshot: Snapshot


@attrs.frozen
class Created:
    """There was no database, so one was made; `path` is absolute."""

    path: str


@attrs.frozen
class Discarded:
    """The database that was made is removed again, for the run failed and nothing is in it; `path` is absolute."""

    path: str


@attrs.frozen
class Removed:
    """A snapshot was removed: one beyond the number that is kept, or that of a run which changed nothing."""

    snapshot: Snapshot


@attrs.frozen
class Copying:
    """So many pages of the database are in the copy, of so many."""

    done: int
    total: int


@attrs.frozen
class Verifying:
    """The turn of a migration has come, on a stage ("empty", with generated rows, or "copy"): so many of a total."""

    id: str
    stage: str
    number: int
    total: int


_Files = Created | Discarded | Snapshotted | Removed | Copying
Event = Started | Notice | Finished | Committed | Waiting | Drifted | Verifying | _Files
#: Is told what happens, while it happens.
Report = Callable[[Event], object]


def tell_done(report: Report, event: Event) -> None:
    """Report what is done and cannot be undone: then what `report` raises harms nobody, and is logged."""
    try:
        report(event)
    except Exception:
        import logging  # noqa: PLC0415 - 3 ms, for a case that hardly ever comes

        log = logging.getLogger("dao.migrate")
        log.exception("report failed for what is done already: %r", event)
