"""What the harness asks of a contender.

A contender is one library used as its own documentation shows it, on a database of its own. It has a method for each
operation of `bench.operations` that it takes part in, with that operation's name; the tables show a dash for the rest.
Callers give Python values; `new` makes of them what `create` takes: a record, a model, a dict, a tuple.

Each contender names its `base`, whose time its ratios are to; contenders of one base are one table. Those on a server
have psycopg as their base.
"""

from __future__ import annotations

import abc
import asyncio
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from bench import harness
from bench.data import Holds, moment, row_id, time_text

_SETTINGS = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
_SHOWN = ("server_version", "fsync", "synchronous_commit")


class Shared(abc.ABC):
    """What all contenders have."""

    name: ClassVar[str]
    base: ClassVar[str] = "apsw"
    #: whether its database is on a server, which `open` gets the URL of in place of a path
    on_server: ClassVar[bool] = False
    #: the operations that it takes part in, if not in all that it has a method for
    only: ClassVar[tuple[str, ...]] = ()
    #: the distributions whose versions are noted
    distributions: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def open(self, place: str) -> None:
        """Open the database: a file with WAL, synchronous NORMAL and foreign keys on, or one on a server."""

    @abc.abstractmethod
    def close(self) -> None: ...

    @abc.abstractmethod
    def raw(self, sql: str) -> list[Any]:
        """Run a statement on the very connection that is measured, and return its rows."""

    @abc.abstractmethod
    def new(self, values: dict[str, Any]) -> Any: ...

    def read(self, record: Any) -> tuple[Any, ...]:
        """Return all columns of a task as it came from the database, in the order of `data.TASK_COLUMNS`."""
        return tuple(record)

    def settings(self) -> dict[str, object]:
        """Return what its own connection says of its settings.

        Raises:
            RuntimeError: They are not those of the others.
        """
        if self.on_server:
            return {name: self.raw(f"SHOW {name}")[0][0] for name in _SHOWN}
        read = {name: self.raw(f"PRAGMA {name}")[0][0] for name in _SETTINGS}
        for name, value in _SETTINGS.items():
            if read[name] != value:
                raise RuntimeError(f"PRAGMA {name} is {read[name]!r} on its connection, not {value!r}")
        return {"SQLite": self.raw("SELECT sqlite_version()")[0][0], **read}

    def supports(self, method: str) -> bool:
        return callable(getattr(self, method, None)) and (not self.only or method in self.only)

    def call(self, method: str, *given: Any) -> Any:
        return getattr(self, method)(*given)

    def timed(self, method: str, prepare: Callable[[int], harness.Arguments]) -> harness.Timed:
        """Return what measures a method's calls."""
        return harness.timed(getattr(self, method), prepare)


class Contender(Shared):
    """A contender whose methods are functions, and the operations that are made of others."""

    create: Callable[[Any], object]
    create_many: Callable[[Any], object]
    get: Callable[[str], Any]
    find: Callable[[str], Any]

    def new_many(self, many: list[dict[str, Any]]) -> Any:
        return [self.new(values) for values in many]

    def create_from_values(self, values: dict[str, Any]) -> None:
        self.create(self.new(values))

    def create_many_from_values(self, many: list[dict[str, Any]]) -> None:
        self.create_many(self.new_many(many))

    def get_all(self, id: str) -> tuple[Any, ...]:
        return self.read(self.get(id))

    def find_all(self, status: str) -> list[tuple[Any, ...]]:
        return [self.read(record) for record in self.find(status)]

    def positions(self, holds: Holds) -> list[Any]:
        """Return where the deep pages begin, as `page` takes it."""
        numbers = [holds.rows - depth for depth in holds.depths]
        return [(time_text(moment(number)), row_id(number)) for number in numbers]


class Worker(Contender):
    """A contender that claims tasks."""

    claim: Callable[[int], list[Any]]
    complete: Callable[[Any], Any]

    def claim_many(self, number: int) -> list[Any]:
        return self.claim(number)

    def work(self) -> Any:
        """Claim a task and complete it, and return it as it is then."""
        return self.complete(self.claim(1)[0])


class AsyncContender(Shared):
    """A contender whose methods are coroutine functions, `aopen`, `aclose`, `araw` too, in an event loop of its own."""

    base = "aiosqlite"

    def open(self, place: str) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self.aopen(place))

    def close(self) -> None:
        with self._runner:
            self._runner.run(self.aclose())

    def raw(self, sql: str) -> list[Any]:
        return self._runner.run(self.araw(sql))

    def supports(self, method: str) -> bool:
        return inspect.iscoroutinefunction(getattr(self, method, None))

    def call(self, method: str, *given: Any) -> Any:
        return self._runner.run(getattr(self, method)(*given))

    def timed(self, method: str, prepare: Callable[[int], harness.Arguments]) -> harness.Timed:
        return harness.timed_async(self._runner, getattr(self, method), prepare)
