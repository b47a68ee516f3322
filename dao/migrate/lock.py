"""The lock between migrators: whoever changes a schema or its ledger holds it, for as long as that takes.

Each engine has one of its own, which ends with its holder, however that ends.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from dao.errors import DatabaseBusy, InvalidValue

if TYPE_CHECKING:
    from dao.migrate.events import Report

__all__ = ["UNKNOWN", "MigrationLock", "telling"]

#: Stands for a holder about whom nothing was noted.
UNKNOWN = "of which no more is known"
_LONGEST = 0.1  # seconds between two attempts


class MigrationLock(abc.ABC):
    """The lock of one database for one migrator, free at first. In a `with` block, at the end of which it is freed.

    `take` waits for another that has it: for so many seconds from now, or as long as that one lives. `report` is told
    of that (`Waiting`).
    """

    def __init__(self, database: str, timeout: float | None, report: Report | None) -> None:
        """Name the database, for messages.

        Raises:
            InvalidValue: The timeout is negative, or no number.
        """
        if timeout is not None and not timeout >= 0:
            raise InvalidValue(
                f"lock_timeout={timeout}: a number of seconds from 0, or None to wait for as long as it takes"
            )
        self._database = database
        self._timeout = timeout
        self._deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        self._report = report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.free()

    @property
    @abc.abstractmethod
    def is_held(self) -> bool:
        """Whether this one has it, or none is needed."""

    @abc.abstractmethod
    def free(self) -> None:
        """Let go of it, if this one has it."""

    @abc.abstractmethod
    def _try(self) -> bool:
        """Take it if it is free, and return whether this one has it now."""

    @abc.abstractmethod
    def _holder(self) -> str | None:
        """Return who has it, for messages; None if it is free by now, or nobody knows."""

    @abc.abstractmethod
    def _is_own(self) -> bool:
        """Return whether this same thread has it by another one, and would wait for itself."""

    def take(self) -> bool:
        """Take the lock, unless this one has it already, and return whether another had it first.

        Raises:
            DatabaseBusy: Another had it until the timeout; or this thread has it, and would wait for itself.
            OperationalError: It cannot be taken at all.
        """
        if self.is_held:
            return False
        begun = time.monotonic()
        told = _ignore if self._report is None else telling(self._report, self._other)
        pause, another = 0.001, False
        while not self._try():
            another = True
            if self._is_own():
                raise DatabaseBusy(
                    f"{self._database}: a migration run of this same thread is under way, and would wait for itself: "
                    "repeat when it is done"
                )
            moment = time.monotonic()
            if moment >= self._deadline:
                raise DatabaseBusy(
                    f"{self._database} is locked, held by {self._other()}, for longer than {self._timeout or 0:g} s. "
                    "Repeat when it is done, or wait longer (--lock-timeout)"
                )
            told(moment - begun)
            time.sleep(min(pause, self._deadline - moment))
            pause = min(2 * pause, _LONGEST)
        return another

    def _other(self) -> str:
        return f"another migration run, {self._holder() or UNKNOWN}"


# ---------------------------------------------------------------- saying so


def telling(report: Report, whom: Callable[[], str | None]) -> Callable[[float], None]:
    """Return a function that is told for how long something waits: it reports that, less often as time goes by.

    `whom` says for whom it waits, if that can be known.
    """
    told = 0.0

    def waiting(seconds: float) -> None:
        nonlocal told
        told = told if seconds >= told else 0.0  # another wait
        if seconds >= (told + min(max(2.0, told), 10.0) if told else 0.5):
            from dao.migrate.events import Waiting  # noqa: PLC0415 - 4 ms, for a run that has nothing to report

            told = seconds
            report(Waiting(seconds, whom()))

    return waiting


def _ignore(_seconds: float) -> None:
    pass
