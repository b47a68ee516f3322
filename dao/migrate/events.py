"""The events of a run: what is reported while it happens, to the caller and to the log."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from dao.logs import logger
from dao.migrate.values import Drifted, Result, Snapshot, Step
from dao.text import counted, milliseconds

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
    "log",
    "tell_done",
]


@attrs.frozen
class Started:
    """A script begins."""

    step: Step

    def __str__(self) -> str:
        return f"{'applying' if self.step.direction == 'apply' else 'rolling back'} {self.step.name}"


@attrs.frozen
class Notice:
    """Something in a script was not done as written."""

    step: Step
    text: str

    def __str__(self) -> str:
        return f"{self.step.name}: {self.text}"


@attrs.frozen
class Finished:
    """A script is done. It counts once it is `Committed`."""

    result: Result

    def __str__(self) -> str:
        done = "applied" if self.result.direction == "apply" else "rolled back"
        statements = counted(self.result.statements, "statement")
        return f"{done} {self.result.name}: {statements} in {milliseconds(self.result.seconds)}; not committed yet"


@attrs.frozen
class Committed:
    """A transaction of the run is committed and stays, with the migrations of these `ids`, in order.

    They are as the `name` of a `Step`. It had the write lock for so many `seconds`, in which no other connection could
    write. A script that does not run in a transaction is committed as it goes; then the `seconds` are those that it
    took.
    """

    ids: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"committed {', '.join(self.ids)}, after {milliseconds(self.seconds)} with the write lock"


@attrs.frozen
class Waiting:
    """Another connection has the lock; waited so far, in seconds, and for whom, if that can be known."""

    seconds: float
    holder: str | None

    def __str__(self) -> str:
        who = f" held by {self.holder}" if self.holder else ""
        return f"waiting for the lock{who} ({self.seconds:.0f} s) …"


@attrs.frozen
class Snapshotted:
    """A snapshot of the database was taken, before anything changes."""

    snapshot: Snapshot

    def __str__(self) -> str:
        return f"took the snapshot {self.snapshot.path}"


@attrs.frozen
class Created:
    """There was no database, so one was made; `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return f"created {self.path}, since there was no database"


@attrs.frozen
class Discarded:
    """The database that was made is removed again, for the run failed and nothing is in it; `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return f"removed {self.path} again, since nothing is in it"


@attrs.frozen
class Removed:
    """A snapshot was removed: one beyond the number that is kept, or that of a run which changed nothing."""

    snapshot: Snapshot

    def __str__(self) -> str:
        return f"removed the snapshot {self.snapshot.id}"


@attrs.frozen
class Copying:
    """So many pages of the database are in the copy, of so many."""

    done: int
    total: int

    def __str__(self) -> str:
        return f"copied {self.done} of {self.total} pages"


@attrs.frozen
class Verifying:
    """The turn of a migration has come, on a stage ("empty", with generated rows, or "copy"): so many of a total.

    `name` is as that of a `Step`.
    """

    id: str
    stage: str
    number: int
    total: int
    set: str | None = None
    name: str = attrs.field(default=attrs.Factory(lambda self: self.id, takes_self=True), repr=False)

    def __str__(self) -> str:
        return f"verifying {self.name}, {self.stage} ({self.number} of {self.total})"


_Files = Created | Discarded | Snapshotted | Removed | Copying
Event = Started | Notice | Finished | Committed | Waiting | Drifted | Verifying | _Files
#: Is told what happens, while it happens.
Report = Callable[[Event], object]


def tell_done(report: Report, event: Event) -> None:
    """Report what is done and cannot be undone: then what `report` raises harms nobody, and is logged."""
    try:
        report(event)
    except Exception:  # noqa: BLE001 - it is logged
        logger("dao.migrate.run").exception("report failed for what is done already: %r", event)


# what happens in between is for those who look into something; a schema that is not as it should be, for everybody
_DEBUG, _INFO, _WARNING = 10, 20, 30
_LEVELS: dict[type, int] = {
    Started: _DEBUG,
    Finished: _DEBUG,
    Copying: _DEBUG,
    Verifying: _DEBUG,
    Notice: _WARNING,
    Drifted: _WARNING,
}


def log(event: Event, name: str, database: str) -> None:
    """Log an event of a database by the logger of this name. The record has it as `event`, and the `database`."""
    if isinstance(event, Drifted) and not (event.differences or event.unknown):
        return
    level = _LEVELS.get(type(event), _INFO)
    logger(name).log(level, "%s: %s", database, event, extra={"event": event, "database": database})
