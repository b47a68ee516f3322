"""A listing in async code: pages that are fetched one by one, each on a connection that goes back at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from dao.listing import Page, Walk
from dao.pooling.loop import event

__all__ = ["Iteration"]

R = TypeVar("R")


class Iteration(Generic[R]):
    """The records of a listing, for `async for`. Tasks that share it get each record once."""

    # no async generator: nothing has to be cleaned up when a loop is left, which would make event loops warn or wait
    __slots__ = ("_after", "_fetched", "_function", "_is_over", "_items", "_page", "_run")

    def __init__(self, run: Callable[..., Awaitable[Page[Any]]], function: Callable[[Any], Iterator[R]]) -> None:
        """Take the pool's `run`, and the function that makes the listing of a connection."""
        self._run = run
        self._function = function
        self._page: Callable[..., Page[Any]] | None = None
        self._items: Iterator[R] = iter(())
        self._after: str | None = None
        self._is_over = False
        self._fetched: Any = None  # the event that ends a fetching

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while True:
            for item in self._items:
                return item
            if self._is_over:
                raise StopAsyncIteration
            if self._fetched is not None:  # by another task
                await self._fetched.wait()
                continue
            self._fetched = fetched = event()
            try:
                page = await self._run(self._fetch)
                # only now: a page whose fetching is cancelled is fetched again
                self._items, self._after, self._is_over = iter(page.items), page.next, page.next is None
            finally:
                self._fetched = None
                fetched.set()

    def _fetch(self, connection: Any) -> Page[Any]:
        if self._page is None:
            walk = self._function(connection)
            if not isinstance(walk, Walk):
                raise TypeError(
                    f"iterate takes a function that returns what `iter_all` does, such as tasks.iter_all; this one "
                    f"returned a {type(walk).__name__}: `await pool.run(…)` runs one that returns a list"
                )
            self._page = walk.page
        return self._page(connection, after=self._after)
