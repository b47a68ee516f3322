"""Who is told of each call of a table module's function: how long it took, and what came of it.

The functions are hooked in place (`dao.in_place`): calls by names that were bound before are seen, too, in whatever
thread or pool they run, and while nobody observes there is nothing to be slow.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

import attrs

from dao.engine.watching import count_rows, rows_here
from dao.in_place import Hook, Hooked, guard, switch
from dao.listing import Page, Walk
from dao.observation import Observation
from dao.rows import TABLES

__all__ = ["Observed", "observe"]


@attrs.frozen(kw_only=True)
class Observed:
    """A call of a function that has ended.

    `name` is that of the module and the function, as `tasks.claim`, and `table` the module's. `seconds` are those that
    it took. `rows` is how many records it returned, if that is a list or a page, else how many rows its statements
    returned or changed; 0 if it failed. `error` is what it raised, or None. `connection` is its first
    argument, the driver's own: what is kept of it keeps the database open.
    """

    name: str
    table: str
    seconds: float
    rows: int
    error: BaseException | None = None
    connection: Any = attrs.field(default=None, repr=False)


#: Is told of each call.
Observer = Callable[[Observed], object]


def observe(observer: Observer, /) -> Observation:
    """Call `observer(event)` after each call of a public function of the tables' modules, until the observation ends.

    Usage::

        with dao.observe(lambda event: print(event.name, event.seconds, event.rows, event.error)):
            tasks.claim(connection, worker="w1", lease=timedelta(minutes=1))

    It is for the whole process: for all connections, threads and pools, for calls by names that were bound before, and
    for several observers at once, which are told in the order in which they began. It is called in the thread of the
    call, with its context variables: in the thread of the connection for `dao.aio`, in that of the writer for
    `Pool.write`, whose commit is yet to come. A function that calls others is one call; the calls of an observer itself
    are none. Of what `iter_all` returns each page is one, when it is fetched. A call that is replayed is told of each
    time.

    An exception of the observer's harms nobody, and is logged by `dao.observing` at the first time. While nobody
    observes, the functions are as they are written, and cost nothing more; an observer adds 3 µs to each call, and its
    own time.
    """
    begun = Observation(observer, _end)
    _begin(begun)
    return begun


_GUARD = guard()
_observations: list[Observation] = []
_hooks: list[tuple[Hooked, Hook]] = []


def _begin(observation: Observation) -> None:
    with _GUARD:
        if not _hooks:
            _hooks.extend(_functions())
        _observations.append(observation)
        _switch()


def _end(observation: Observation) -> None:
    with _GUARD, contextlib.suppress(ValueError):  # it has ended already
        _observations.remove(observation)
        _switch()


def _switch() -> None:
    switch(_hooks, lambda: bool(_observations), lambda on: count_rows(on=on))


def _functions() -> Iterator[tuple[Hooked, Hook]]:
    """Yield all public functions of the tables' modules, with their hooks."""
    for table in TABLES:
        module = importlib.import_module(f"dao.{table.name}")
        for name in module.__all__:
            function = getattr(module, name)
            if isinstance(function, FunctionType):
                hooked = Hooked(function)
                yield hooked, _hook(hooked, f"{table.name}.{name}", table.name)


# ---------------------------------------------------------------- calls


class _Here(threading.local):
    def __init__(self) -> None:
        self.at_work = False  # a call that is observed, or an observer


_HERE = _Here()


def _hook(hooked: Hooked, name: str, table: str) -> Hook:
    plain = hooked.plain
    number = _number_of(name, plain.__annotations__["return"])

    def observed(
        function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], number: _Number | None
    ) -> Any:
        here = _HERE
        if here.at_work:
            return function(*args, **kwargs)
        rows = rows_here()
        rows.number = 0
        connection: Any = args[0] if args else kwargs.get("connection")
        begun = time.perf_counter()
        try:
            here.at_work = True  # in here, or an interruption could leave it so
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - begun
            if isinstance(result, Walk):  # nothing has been asked of the database yet
                return Walk.through(functools.partial(page_of, result.page), connection)
            found = rows.number if number is None else number(result)
            _tell(Observed(name=name, table=table, seconds=seconds, rows=found, connection=connection))
            return result
        except BaseException as error:
            seconds = time.perf_counter() - begun
            _tell(Observed(name=name, table=table, seconds=seconds, rows=0, error=error, connection=connection))
            raise
        finally:
            here.at_work = False

    def page_of(page: Callable[..., Any], connection: Any, **position: Any) -> Any:
        return observed(page, (connection,), position, _length_of_page)

    return lambda args, kwargs: observed(plain, args, kwargs, number)


_Number = Callable[[Any], int]


def _length_of_page(page: Page[Any]) -> int:
    return len(page.items)


def _number_of(name: str, returned: str) -> _Number | None:
    """Return what makes the number of rows of what a function returns, or None if its statements tell it."""
    if returned.startswith("list["):
        return len
    if returned.startswith("Page["):
        return _length_of_page
    # a count is one row with a number in it; other numbers are those of rows that were deleted
    return int if returned == "int" and not name.partition(".")[2].startswith("count") else None


def _tell(event: Observed) -> None:
    for observation in tuple(_observations):
        observation.tell(event)
