"""Drift: whether the schema still is what the applied migrations make.

That is asked whenever a program starts, so each change leaves a note of the schema. The functions here are for every
engine; how a note is compared is a matter of the engine's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dao.engine import Connection
from dao.errors import MigrationError
from dao.migrate.by_engine import by_engine
from dao.migrate.database import Target, at_one_moment, existing, migrations_for, opened
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import sets
from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference, Drifted

__all__ = ["Moment", "diff", "differences", "record"]


class _Drift(Protocol):
    """The module of an engine: its functions are those below."""

    def differences(self, connection: Any, migrations: Sequence[Migration], state: Ledger, /) -> list[Difference]: ...
    def compared(self, connection: Any, migrations: Sequence[Migration], state: Ledger, /) -> list[Difference]: ...
    def owners(
        self, connection: Any, found: Sequence[Difference], migrations: Sequence[Migration], state: Ledger, its: Sets, /
    ) -> list[str | None]: ...
    def record(self, connection: Any, migrations: Sequence[Migration], before: Moment, now: Moment, /) -> Drifted: ...


if TYPE_CHECKING:
    from dao.migrate.ledger.drift import postgresql, sqlite

    _MODULES: tuple[_Drift, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Drift] = by_engine(__name__)


def differences(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """Return how the live schema differs from the one that its migrations make. Reads only.

    Tables, views and the like beside those of the migrations are no difference, since the database may hold more than
    this package's; nor is what belongs to a set that is not named: one whose migrations have made it. If a migration is
    unfinished, or it is not known what they make, nothing is returned.
    """
    if state.unfinished:  # in the middle of a script nobody knows what the schema should be
        return []
    return _of_named(connection, _of(connection).differences(connection, migrations, state), migrations, state)


def _of_named(
    connection: Connection, found: list[Difference], migrations: Sequence[Migration], state: Ledger
) -> list[Difference]:
    """Return the differences without those of objects that belong to sets which are not named."""
    if not found:
        return []
    its = sets.of(migrations, state)
    if all(map(its.is_named, state.ids)):
        return found
    try:
        owners = _of(connection).owners(connection, found, migrations, state, its)
    except MigrationError:  # nobody can tell
        return found
    return [one for one, owner in zip(found, owners, strict=True) if its.has(owner)]


def diff(target: Target, migrations: Source = None, *, prepare: Prepare | None = None) -> list[Difference]:
    """Return how the schema of a database differs from the one that its applied migrations make. Reads only.

    On SQLite they are replayed in memory, and what else is there is a difference, too, but for tables in which other
    tools keep their own ledger, and what belongs to a set that is not named. On PostgreSQL it is compared with what the
    runs have left, as `status` does. `prepare` is as in `apply`.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist, or it is not known what the migrations make.
    """
    files = migrations_for(target, migrations)
    with (
        preparing(prepare),
        opened(existing(target, "compare"), read_only=True) as connection,
        at_one_moment(connection),
    ):
        state = ledger.read(connection)
        return _of_named(connection, _of(connection).compared(connection, files, state), files, state)


def record(
    connection: Connection, migrations: Sequence[Migration], before: Moment, now: Moment | None = None
) -> Drifted:
    """Note the schema as it is, in the open transaction, and return how it differs from what its migrations make.

    What belongs to sets that are not named is no difference, as in `differences`.

    `before` is the moment before the change, with its schema if scripts have run since. Of `now` it is looked up what
    is not given.
    """
    now = now or Moment(ledger.read(connection))
    found = _of(connection).record(connection, migrations, before, now)
    differences = _of_named(connection, list(found.differences), migrations, now.ledger)
    return attrs.evolve(found, differences=tuple(differences))
