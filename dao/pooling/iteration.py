"""A listing in async code: pages that are fetched one by one, each on a connection that goes back at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from dao.listing import Page, Walk

__all__ = ["Iteration"]

R = TypeVar("R")


class Iteration(Generic[R]):
    """The records of a listing, for `async for`."""

    # no async generator: nothing has to be cleaned up when a loop is left, which would make event loops warn or wait
    __slots__ = ("_after", "_function", "_is_over", "_items", "_page", "_run")

    def __init__(self, run: Callable[..., Awaitable[Page[Any]]], function: Callable[[Any], Iterator[R]]) -> None:
        """Take the pool's `run`, and the function that makes the listing of a connection."""
        self._run = run
        self._function = function
        self._page: Callable[..., Page[Any]] | None = None
        self._items: Iterator[R] = iter(())
        self._after: str | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while True:
            for item in self._items:
                return item
            if self._is_over:
                raise StopAsyncIteration
            page = await self._run(self._fetch)
            # only now: a page whose fetching is cancelled is fetched again
            self._items, self._after, self._is_over = iter(page.items), page.next, page.next is None

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
