"""What the harness asks of a contender.

A contender is one library used as its own documentation shows it, on a file of its own. It implements what it has a natural
way for; what it lacks is left out of the table. Values come in ready: ids and timestamps as text, JSON as Python values.

`new` turns the values of a task into what `create` takes: a record, a model, a dict, a tuple with the JSON as text. `create`
and its like are measured with that in hand; the operation "create from values" measures both. The methods:

=================================  ==================================================================================
`new(values)`                      what `create` takes; `new_many(list)` what `create_many` takes
`create(item)`                     store one, in a transaction of its own
`create_many(items)`               store all, in one transaction
`get(id)`, `get_json(id)`          one by its key; with both JSON columns decoded
`find(status)`                     the newest 50 of a status
`positions(data)`, `page(place)`   where deep pages begin, and the 50 that follow one of them
`count(status)`                    how many a status has
`set_status(id, status, moment)`   move to a status, and return the row as it is then
`changed(id, title)`               what `update` takes: the record read and changed
`update(item)`                     store it if nobody changed it meanwhile, and return the row as it is then
`new_execution(values)`            what `start` takes
`start(item)`                      store a tool execution that runs, and return what `finish` takes
`finish(item, output, moment)`     end it, and return the row as it is then
`heartbeat(id, moment)`            note that a session is alive
`get_value(key)`                   a configuration, decoded
`set_value(key, value, moment)`    store a configuration, new or not
`workflow(id)`                     the tasks of a workflow in order
`statistics()`                     calls, failures, mean and percentiles of each tool
`oldest_pending()`                 what a worker would claim
`sweep(cutoff)`                    close the open sessions that were last heard of before
`lend()`                           take a connection from a pool and give it back
=================================  ==================================================================================
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, ClassVar

#: How many rows `find` and `page` return.
LIMIT = 50


class Shared(abc.ABC):
    """The parts that most contenders share. Columns are in the order of `statements.TASK_COLUMNS`."""

    name: ClassVar[str]
    #: tuples, records, query builder, ORM: how the tables are grouped
    kind: ClassVar[str]
    #: the distributions whose versions are noted
    distributions: ClassVar[tuple[str, ...]] = ()
    #: whether several may be open in one process, each in a thread of its own
    in_threads: ClassVar[bool] = False

    def supports(self, method: str) -> bool:
        """Return whether the contender has a natural way to do this."""
        return callable(getattr(self, method, None))

    def new_many(self, many: list[dict[str, Any]]) -> list[Any]:
        """Return what `create_many` takes."""
        return [self.new(values) for values in many]

    def moment(self, text: str) -> Any:
        """Return a time as the methods take it, which is as callers have it in hand."""
        return text

    def positions(self, data: Any) -> list[Any]:
        """Return where the deep pages begin."""
        return data.positions

    def key(self, record: Any) -> str:
        """Return the id of what a read returned."""
        return record.id


class Contender(Shared):
    """A contender whose methods are called one after the other."""

    @abc.abstractmethod
    def open(self, path: Path) -> None:
        """Open the file with WAL, synchronous NORMAL and foreign keys on."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what `open` opened."""

    @abc.abstractmethod
    def raw(self, sql: str) -> list[Any]:
        """Run a statement on the very connection that is measured, and return its rows."""


class AsyncContender(Shared):
    """A contender whose methods are coroutines; it is opened and used in one event loop."""

    @abc.abstractmethod
    async def aopen(self, path: Path) -> None:
        """Open the file with WAL, synchronous NORMAL and foreign keys on."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close what `aopen` opened."""

    @abc.abstractmethod
    async def araw(self, sql: str) -> list[Any]:
        """Run a statement on the very connection that is measured, and return its rows."""


def check_settings(read: dict[str, Any]) -> None:
    """Refuse a contender whose settings are not those of the others.

    Raises:
        RuntimeError: They differ.
    """
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
    for name, value in expected.items():
        if read[name] != value:
            raise RuntimeError(f"PRAGMA {name} is {read[name]!r} on its connection, not {value!r}")
