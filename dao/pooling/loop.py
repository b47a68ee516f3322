"""The event loop as `dao.aio` uses it, be it asyncio's or trio's."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

__all__ = ["event", "is_asyncio", "is_over", "running", "shielded", "waking", "within"]


def _trio() -> Any:
    """Return the module trio if it is running this code, else None."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def running() -> Any:
    """Return the loop that is running this code: asyncio's loop, or the token of trio's.

    Raises:
        RuntimeError: None is.
    """
    if trio := _trio():
        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


def waking(loop: Any) -> Callable[[Sequence[Any]], None]:
    """Return what another thread calls to set events of a loop."""
    post: Callable[..., object] = loop.call_soon_threadsafe if is_asyncio(loop) else loop.run_sync_soon

    def wake(events: Sequence[Any]) -> None:
        # nobody waits in a loop that has ended
        with contextlib.suppress(RuntimeError):
            post(_set, events)

    return wake


def _set(events: Sequence[Any]) -> None:
    for one in events:
        # nor in one that ended before this
        with contextlib.suppress(RuntimeError):
            one.set()


def is_over(loop: Any) -> bool:
    """Return whether a loop has ended for good."""
    if is_asyncio(loop):
        closed: bool = loop.is_closed()
        return closed
    try:
        loop.run_sync_soon(lambda: None)
    except RuntimeError:
        return True
    return False


def is_asyncio(loop: Any) -> bool:
    """Return whether a loop is asyncio's, and not trio's."""
    return isinstance(loop, asyncio.AbstractEventLoop)


def event() -> Any:
    """Return a new event of the loop that is running."""
    if trio := _trio():
        return trio.Event()
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
