"""Whether a database is sound: what is stored, its rows, everything in its schema, and its ledger. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dao.errors import DatabaseCorrupt
from dao.migrate.by_engine import by_engine
from dao.migrate.checking.fault import CannotTell, Fault
from dao.migrate.database import Target, at_one_moment, existing, migrations_for, name_of, opened, translated
from dao.migrate.ledger import drift, entries
from dao.migrate.ledger.comparison import compare
from dao.migrate.ledger.status import half_copied
from dao.migrate.schema.registration import Prepare, preparing, to_register
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration

__all__ = ["Fault", "Soundness", "check"]


class _Checking(Protocol):
    """The module of an engine: what may be wrong with a database, but for its ledger."""

    def faults(self, connection: Any, cannot_tell: CannotTell, /) -> Iterator[Fault]: ...


if TYPE_CHECKING:
    from dao.migrate.checking import postgresql, sqlite

    _MODULES: tuple[_Checking, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Checking] = by_engine(__name__)


@attrs.frozen(kw_only=True)
class Soundness:
    """All that is wrong in a database, the worst first; `unknown` says what could not be checked, and why."""

    database: str
    faults: tuple[Fault, ...]
    unknown: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check(target: Target, migrations: Source = None, *, prepare: Prepare | None = None) -> Soundness:
    """Look at all of a database, as of one moment: what is stored, its constraints, schema, ledger. Reads only.

    Foreign keys and constraints are held against every row: programs can write with either of them off. It reads all of
    SQLite's file; on PostgreSQL all tables, and their indexes if the extension amcheck is there. Migrations that are
    pending, or not known here, are no fault. `prepare` is as in `apply`.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist.
        OperationalError: It cannot be opened, or is no database at all.
    """
    files = migrations_for(target, migrations)
    faults: list[Fault] = []
    unknown: list[str] = []
    with preparing(prepare), opened(existing(target, "check"), read_only=True) as connection:
        try:
            with translated(connection), at_one_moment(connection):
                faults.extend(_faults(connection, files, unknown))
        except DatabaseCorrupt as error:  # on the way to more: what it has found before, it keeps
            faults.append(Fault(kind="damage", name=None, text=str(error)))
    return Soundness(database=name_of(target), faults=tuple(faults), unknown=tuple(unknown))


def _faults(connection: Any, files: Sequence[Migration], unknown: list[str]) -> Iterator[Fault]:

    def cannot_tell(what: str, reason: str) -> None:
        advice = to_register(reason)
        unknown.append(f"cannot tell whether {what}: {reason}" + (f"; {advice}" if advice else ""))

    yield from _of(connection).faults(connection, cannot_tell)
    state = entries.read(connection)
    comparison = compare(files, state)
    told = comparison.sets.told
    for id in comparison.unfinished:
        ended = f"a run ended in the middle of {told(id)}: `dao migrate resolve {told(id)}`"
        text = f"{state.doing}: wait until it has ended, and check again" if state.running is not None else ended
        yield Fault(kind="ledger", name=id, text=text)
    if lacking := half_copied(connection):
        yield Fault(kind="ledger", name=None, text=lacking)
    for id in comparison.changed:
        text = f"the file of {told(id)} has changed since it was applied: `dao accept {told(id)}`"
        if id in comparison.misplaced:
            text = f"{told(id)} is in the set {comparison.sets.files[id]} here: `dao status`"
        yield Fault(kind="ledger", name=id, text=text)
    for difference in drift.differences(connection, files, state):
        yield Fault(kind="drift", name=difference.name, text=str(difference))
