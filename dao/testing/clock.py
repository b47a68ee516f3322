"""A clock that stands still, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Self

from dao import codec

__all__ = ["Clock"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock:
    """The present as functions and records of this package see it: it stands still, and moves when it is told to.

    It holds in the whole process, in all threads, for as long as the block lasts::

        with Clock() as clock:
            tasks.claim(connection, worker="w", lease=timedelta(seconds=30))
            clock.tick(timedelta(seconds=31))
            assert len(tasks.rescue(connection)) == 1

    Every function that takes `now=` has this time for its default, as has every record for its times, and the duration
    of a tool's call is what the clock was moved meanwhile. Timeouts go on with the real time: those of pools and locks,
    and the waiting of `dao.wait_for_change`. So do the ids of new records, which stay in the order in which they were
    made, and all that asks the database for the time: the triggers that keep `updated_at`, the columns' own defaults
    and the views (`docs/how-to/test-an-application.md`). Another process has its own clock.
    """

    def __init__(self, moment: datetime | None = None) -> None:
        """Make one that stands at a moment; without one, at the present.

        Raises:
            TypeError: It is no datetime.
            InvalidValue: It is naive.
        """
        self._ns = _nanoseconds(codec.now() if moment is None else moment)
        self._kept: list[tuple[Callable[[], int], Callable[[], float]]] = []  # of each block that it is in
        self._begin = 0.0

    def __enter__(self) -> Self:
        self._kept.append((codec.time_ns, codec.monotonic))
        # calls that began before the block last no longer because of it
        self._begin = time.monotonic() - self._ns / 1e9
        codec.time_ns, codec.monotonic = lambda: self._ns, lambda: self._begin + self._ns / 1e9
        return self

    def __exit__(self, *_: object) -> None:
        codec.time_ns, codec.monotonic = self._kept.pop()

    @property
    def now(self) -> datetime:
        """The moment at which it stands, in UTC, to the whole millisecond."""
        return codec.millisecond(_EPOCH + self._ns // 1000 * _MICROSECOND)

    def tick(self, step: timedelta = timedelta(seconds=1)) -> datetime:
        """Move it on, or back if the step is negative, and return the new moment. Less than a millisecond adds up.

        Raises:
            TypeError: The step is no timedelta.
        """
        if not isinstance(step, timedelta):
            raise TypeError(f"expected a timedelta, such as timedelta(seconds=30), got {step!r}")
        self._ns += step // _MICROSECOND * 1000
        return self.now

    def move_to(self, moment: datetime) -> datetime:
        """Set it to a moment, and return that.

        Raises:
            TypeError, InvalidValue: As for a new clock.
        """
        self._ns = _nanoseconds(moment)
        return self.now


def _nanoseconds(moment: datetime) -> int:
    return (codec.millisecond(moment) - _EPOCH) // _MICROSECOND * 1000
