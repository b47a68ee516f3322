"""Dropping everything that the migrations made, and nothing else; and what a rollback drops of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dao.engine import Connection
from dao.errors import MigrationError
from dao.migrate.by_engine import by_engine
from dao.migrate.database import Target, execute
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.schema.names import COPY
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step
from dao.text import visible

__all__ = ["Dropping", "drop_all", "dropping", "own_drops", "refuse_torn"]


class Dropping(Protocol):
    """What an engine knows of that.

    `torn` is what a set that is not named has made and would go with a table of the others, and that table; known
    once `foreign` has looked, or `all` has dropped them.
    """

    torn: list[tuple[str, str]]

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger, its: Sets) -> list[str]:
        """Return the objects of the database that the applied migrations of no set make: somebody else's.

        Raises:
            MigrationError: That cannot be told.
        """

    def all(self) -> None:
        """Drop what those of the named sets make, inside the transaction that is open, without the ledger."""


class _Drop(Protocol):
    """The module of an engine."""

    def Dropping(self, connection: Any, /) -> Dropping: ...  # noqa: N802 - a class
    def own_drops(self, step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]: ...


if TYPE_CHECKING:
    from dao.migrate.run.drop import postgresql, sqlite

    _MODULES: tuple[_Drop, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Drop] = by_engine(__name__)


def own_drops(target: Target, step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """Return what the rollback of a step takes away of what its own migration made, as `tasks.priority`; sorted."""
    return _of(target).own_drops(step, migrations, state)


def dropping(connection: Connection) -> Dropping:
    """Return what the engine of a connection knows of dropping."""
    return _of(connection).Dropping(connection)


def refuse_torn(what: Dropping) -> None:
    """Refuse to drop tables with which something of a set goes that is not named.

    Raises:
        MigrationError: Something does.
    """
    for which, table in what.torn:
        raise MigrationError(
            f"{visible(which, line=True)} was made by a set of migrations that is not named, and would go with "
            f"{visible(table, line=True)}: name that set, too (--migrations). Nothing was changed"
        )


def drop_all(connection: Connection, what: Dropping, ids: Iterable[str]) -> None:
    """Drop what the migrations made, inside the transaction that is open, and note that these are not applied.

    Indexes go with their tables. The ledger's tables stay, and the history in them, and so do those of a program that
    replicates the database.

    Raises:
        MigrationError: As `refuse_torn`.
    """
    from dao.migrate.ledger.writer import Writer  # noqa: PLC0415 - it loads yoyo, which a plan does without

    what.all()
    refuse_torn(what)
    execute(connection, f"DROP TABLE IF EXISTS {COPY}")  # what was copied has gone
    for table in ("_yoyo_migration", "_dao_migration"):
        for id in ids:
            execute(connection, f"DELETE FROM {table} WHERE migration_id = $1", (id,))
    Writer(connection).log("reset")
