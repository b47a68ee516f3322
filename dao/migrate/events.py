"""What a run does, as values: its results, and what it reports while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from dao.migrate.loss import Loss
from dao.migrate.plan import Direction, Step

if TYPE_CHECKING:
    from dao.migrate.schema import Difference
    from dao.migrate.snapshot import Snapshot

__all__ = [
    "Created",
    "Drifted",
    "Event",
    "Finished",
    "Notice",
    "Removed",
    "Report",
    "Result",
    "Snapshotted",
    "Started",
    "Waiting",
]


@attrs.frozen(kw_only=True)
class Result:
    """A migration that was applied or rolled back: how many statements, in how many seconds, and what it lost."""

    id: str
    direction: Direction
    statements: int
    seconds: float
    notices: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()


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
    """A script is done. It counts once the run is committed."""

    result: Result


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
class Removed:
    """A snapshot was removed: an older one beyond the number that is kept, or the run's own, since that changed nothing."""

    snapshot: Snapshot


@attrs.frozen
class Drifted:
    """What was committed leaves a schema that is not what the applied migrations make: in what it differs, by object.

    `unknown` says why that cannot be told, after a rollback; then there are no differences.
    """

    differences: tuple[Difference, ...]
    unknown: str | None = None


Event = Started | Notice | Finished | Waiting | Created | Snapshotted | Removed | Drifted
#: Is told what happens, while it happens.
Report = Callable[[Event], object]

log = logging.getLogger("dao.migrate")


def tell_done(report: Report, event: Event) -> None:
    """Report what is done and cannot be undone: then what `report` raises harms nobody, and is logged."""
    try:
        report(event)
    except Exception:
        log.exception("report failed for what is done already: %r", event)
