"""What a pool reports: its figures, and whether its database is healthy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs

from dao import locks
from dao.observation import Observation

__all__ = ["Health", "Listeners", "Observer", "PoolStats", "Timed"]

#: What takes time in a pool: to get a connection, to have it, to open one.
Timed = Literal["wait", "use", "open"]
#: Is told of each, with its seconds.
Observer = Callable[[Timed, float], object]


@attrs.frozen(kw_only=True)
class PoolStats:
    """The state of a pool. `size` bounds `idle` + `active`; the others count since the pool was made.

    `wait_seconds` is the sum over all that had to wait for a connection, `longest_wait_seconds` the longest.
    `use_seconds` is for how long connections were lent that came back, `open_seconds` how long it took to open, and to
    prepare, the `opened` ones.

    For `write`: `queued` functions wait for their turn; `writes` were committed, in `batches` transactions.
    """

    size: int
    idle: int
    active: int
    waiting: int
    acquired: int
    timeouts: int
    recycled: int
    wait_seconds: float
    longest_wait_seconds: float
    use_seconds: float = 0.0
    longest_use_seconds: float = 0.0
    opened: int = 0
    open_seconds: float = 0.0
    longest_open_seconds: float = 0.0
    queued: int = 0
    writes: int = 0
    batches: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that any JSON encoder takes."""
        return attrs.asdict(self)


class Listeners:
    """Those who are told how long something took in a pool, of which nothing is locked meanwhile: `all` of them."""

    def __init__(self) -> None:
        self.all: tuple[Observation, ...] = ()
        self._guard = locks.Lock()

    def tell(self, what: Timed, seconds: float) -> None:
        """Tell each of them."""
        for listener in self.all:
            listener.tell(what, seconds)

    def add(self, observer: Observer) -> Observation:
        """Tell an observer, too, until the observation ends."""
        begun = Observation(observer, self._remove)
        with self._guard:
            self.all = (*self.all, begun)
        return begun

    def _remove(self, ended: Observation) -> None:
        with self._guard:
            self.all = tuple(one for one in self.all if one is not ended)


@attrs.frozen(kw_only=True)
class Health:
    """Whether the database answered, in how many seconds, and if not, why: the text of the error, and its class's name.

    `locked`: another connection held the write lock at that moment, so that a write would have waited.
    """

    ok: bool
    seconds: float
    error: str | None = None
    kind: str | None = None
    locked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict that any JSON encoder takes."""
        return attrs.asdict(self)
