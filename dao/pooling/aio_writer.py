"""Waiting for `dao.pooling.writer` in async code: `dao.aio.Pool.write`. The rules of a batch are the same, and not here."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dao import url
from dao.pooling.batch import Call
from dao.pooling.lending import warn_unclosed
from dao.pooling.loop import Event, event, poster, running, shielded, within
from dao.pooling.writer import Writer

__all__ = ["TaskWriter"]


class TaskWriter:
    """A writer for the tasks of the event loop that is running; `move` it into the next."""

    def __init__(self, database_url: url.DatabaseURL) -> None:
        self.writer = Writer(database_url, _waking(running()))
        self.unclosed = weakref.finalize(self, warn_unclosed, database_url.path)
        self._ended = event()

    def move(self) -> None:
        """Serve the loop that is running now, as the one before has ended."""
        self.writer._wake = _waking(running())
        self._ended = event()

    async def write(
        self, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any], timeout: float
    ) -> Any:
        """Have a function run, and wait for its commit. It may wait for its turn so many seconds."""
        call = Call(function, arguments, keywords, event())
        self.writer.submit(call)
        left = False
        try:
            if not await within(timeout, call.done.wait):
                left = self.writer.leave(call)
                if not left:  # it has begun: now only its end tells whether it is stored
                    await call.done.wait()
        except BaseException:
            if not self.writer.leave(call):
                await shielded(call.done.wait)
            raise
        if left:
            raise self.writer.timed_out(timeout)
        return call.outcome()

    def finish(self) -> None:
        """Take no more calls, run those that are queued, close the connection. Safe to repeat."""
        self.unclosed.detach()
        self.writer.finish(self._ended)

    async def ended(self, timeout: float) -> bool:
        """Wait for the end of what `finish` began; return whether the connection is closed."""
        if await within(timeout, self._ended.wait):
            return True
        self.writer.give_up(timeout)
        return await within(1.0, self._ended.wait)


def _waking(loop: Any) -> Callable[[Sequence[Event]], None]:
    """Return what the writer's thread calls to wake those that wait at these events in a loop."""
    post = poster(loop)

    def wake(events: Sequence[Event]) -> None:
        # a loop that has ended has nobody who waits
        with contextlib.suppress(RuntimeError):
            post(_set, events)

    return wake


def _set(events: Sequence[Event]) -> None:
    for one in events:
        # nor has one that ended before this
        with contextlib.suppress(RuntimeError):
            one.set()
