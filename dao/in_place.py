"""Functions whose calls somebody listens to: for as long as that lasts, their code is another one.

A function keeps its identity when its `__code__` is exchanged. So whoever has bound its name before, as `from dao.tasks
import claim` does, calls the hook, too, and nothing is left of it afterwards: a function that nobody listens to is as
it was written, without a test, a decorator or a frame of its own. Measured around `tasks.get`, as a share of its time:
this 0 %, a decorator with the same signature that tests a global 1 %, one that takes anything 4 %. To replace names in
modules would be free, too, and misses those that were bound before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any

from dao.locks import RLock

__all__ = ["Hook", "Hooked", "guard", "switch"]

#: Is called in place of a function, with its positional arguments and its keywords.
Hook = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


def _calling_hook(*args: Any, _dao_hook: Hook, **kwargs: Any) -> Any:
    return _dao_hook(args, kwargs)


class Hooked:
    """A function of a module, and `plain`, which does what it does and calls no hook."""

    __slots__ = ("_before", "function", "plain")

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self._before = function.__code__, function.__kwdefaults__
        self.plain = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        self.plain.__kwdefaults__ = function.__kwdefaults__
        self.plain.__annotations__ = function.__annotations__
        self.plain.__module__ = function.__module__

    def on(self, hook: Hook) -> None:
        """Have the hook called instead of the function from now on, also by those that have bound its name."""
        function = self.function
        # a call from another thread may come between any two of these
        function.__kwdefaults__ = {**(self._before[1] or {}), "_dao_hook": hook}
        function.__code__ = _calling_hook.__code__
        function.__wrapped__ = self.plain  # type: ignore[attr-defined] # inspect.signature looks for it

    def off(self) -> None:
        """Make the function what it was. Calls that have begun end with the hook. Safe to repeat."""
        function = self.function
        function.__dict__.pop("__wrapped__", None)
        function.__code__, function.__kwdefaults__ = self._before


def switch(
    hooks: Iterable[tuple[Hooked, Hook]], is_wanted: Callable[[], bool], told: Callable[[bool], object] | None = None
) -> None:
    """Have functions call their hooks if that is wanted, and be what they were if not; first `told` is called with it.

    It may be called within itself, at any line, as the garbage collector does that ends what somebody dropped. So it
    asks again in the end whether that is still wanted.
    """
    wanted: bool | None = None
    while wanted != (now := is_wanted()):
        wanted = now
        if told is not None:
            told(wanted)
        for hooked, hook in hooks:
            if wanted:
                hooked.on(hook)
            else:
                hooked.off()


def guard() -> RLock:
    """Return a lock for what is switched: re-entrant, as the garbage collector may switch it, too.

    No fork happens while another thread has it: the child could never take it, and would have half of the change.
    """
    made = RLock()
    os.register_at_fork(before=made.acquire, after_in_parent=made.release, after_in_child=made.release)
    return made
