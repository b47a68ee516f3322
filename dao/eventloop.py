"""The few things that `dao.aio` asks of the event loop, be it asyncio's or trio's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

__all__ = ["Event", "event", "shielded", "within"]


class Event(Protocol):
    """What `asyncio.Event` and `trio.Event` have in common."""

    def set(self) -> None:
        """Wake all that wait."""

    async def wait(self) -> object:
        """Wait until it is set."""


def _trio() -> Any:
    """Return the module trio if it is running this code, else None."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def event() -> Event:
    """Return a new event of the loop that is running."""
    if trio := _trio():
        made: Event = trio.Event()
        return made
    return asyncio.Event()


async def within(seconds: float, function: Callable[[], Awaitable[object]]) -> bool:
    """Await a function for so many seconds at the most. Return whether it was done by then."""
    if trio := _trio():
        with trio.move_on_after(seconds) as scope:
            await function()
        return not scope.cancelled_caught
    try:
        async with asyncio.timeout(seconds):
            await function()
    except TimeoutError:
        return False
    return True


async def shielded(function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Await a function to its end, whatever is cancelled meanwhile."""
    if trio := _trio():
        with trio.CancelScope(shield=True):
            await function()
        return
    task = asyncio.ensure_future(function())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
