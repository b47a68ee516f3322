"""Who hears of the events of a verb: its caller, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dao import logs

if TYPE_CHECKING:  # a run that has nothing to do reports nothing
    from dao.migrate.events import Event, Report

__all__ = ["listened"]


def listened(report: Report | None, name: str, database: str) -> Report | None:
    """Return what tells the logger of this name of events of a database, and then the caller, if it wants to hear.

    Where nobody has loaded `logging`, nobody reads the log, and that is the caller's `report` as it is.
    """
    if not logs.is_loaded():
        return report

    def tell(event: Event) -> None:
        from dao.migrate.events import log  # noqa: PLC0415 - loaded by now

        log(event, name, database)
        if report is not None:
            report(event)

    return tell
