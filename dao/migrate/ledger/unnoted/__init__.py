"""Objects of a database that its ledger does not know: something else made them. Told before a run, or when one fails.

Another tool may have migrated the database, or somebody have made it by hand. That is no fault by itself: a file may
hold more than this package's tables. It is one where a pending migration makes what is there already.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dao.engine import Connection, DriverError
from dao.errors import Error, LedgerMismatch, MigrationFailed
from dao.migrate.by_engine import by_engine
from dao.migrate.database import table_names
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import other_tools
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema.names import OURS, fold
from dao.migrate.scripts.migration import Migration
from dao.text import visible

__all__ = ["advice", "explain", "names_of", "refuse", "there_already"]

_MANY = 3
_BY_NOBODY = (
    "If these migrations have made it, `dao mark ID` notes each of them that is applied. If it was made without them, "
    "`dao baseline` notes the schema that is there as the first migration of a folder. Both run nothing"
)


class _Unnoted(Protocol):
    """The module of an engine: what a script fails with, and what there is."""

    MISSING: re.Pattern[str]
    COLUMN: re.Pattern[str]
    THERE: re.Pattern[str]

    def names(self, connection: Any, /) -> set[str]: ...
    def made(self, migrations: Sequence[Migration], /) -> set[str]: ...
    def is_there(self, connection: Any, type: str, name: str, /) -> bool: ...
    def made_one(self, state: Ledger, type: str, name: str, /) -> bool: ...


if TYPE_CHECKING:
    from dao.migrate.ledger.unnoted import postgresql, sqlite

    _MODULES: tuple[_Unnoted, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Unnoted] = by_engine(__name__)


def refuse(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> None:
    """Refuse to begin with migrations that another tool has applied, in a database that has no ledger of ours yet.

    To apply them once more fails, or, where scripts say IF NOT EXISTS, changes the data twice.

    Raises:
        LedgerMismatch: Its ledger says so for certain; the message says what takes that over.
    """
    if not _is_new(connection, state):
        return
    found = _applied_elsewhere(connection, migrations, state)
    if found is not None:
        error = LedgerMismatch(found)
        error.committed = ()
        raise error


def advice(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> str | None:
    """Return what to do before the first migration of a database that holds already what these make; None if not.

    Reads only; the migrations are replayed in memory if the database has tables, and no ledger of ours.
    """
    if not _is_new(connection, state):
        return None
    if found := _applied_elsewhere(connection, migrations, state):
        return found
    there = names_of(connection)
    both = sorted(there & _of(connection).made(migrations)) if there else []
    if not both:
        return None
    shown = ", ".join(both[:_MANY]) + (f" and {len(both) - _MANY} more" if len(both) > _MANY else "")
    what = visible(f"{state.database} holds already what these migrations make ({shown})", line=True)
    return f"{what}. {_by_whom(connection, None, state)}"


def explain(error: MigrationFailed, connection: Connection, migrations: Sequence[Migration]) -> None:
    """Let the error of a script that met what was there before the run, or missed a table, say what to do.

    The run has been undone.
    """
    if error.advice:
        return
    known = _of(connection)
    if missing := known.MISSING.fullmatch(error.reason or ""):
        error.advice = _who_makes(missing[1], error, migrations)
        return
    what = there_already(error, connection)
    if what is None:
        return
    with contextlib.suppress(DriverError, Error):
        state = ledger.read(connection)
        if error.migration in state.ids or not known.is_there(connection, *what):
            return
        if known.made_one(state, *what):
            return
        own = [migration for migration in migrations if migration.id == error.migration]
        cure = _applied_elsewhere(connection, own, state) or _by_whom(connection, error.migration, state)
        error.advice = f"The {visible(' '.join(what), line=True)} was there before this run. {cure}."


def there_already(error: MigrationFailed, connection: Connection) -> tuple[str, str] | None:
    """Return what a script met that it wanted to make, by type and name; None if it failed for another reason."""
    reason, known = error.reason or "", _of(connection)
    if found := known.COLUMN.fullmatch(reason):  # a CREATE TABLE may name one twice
        return ("column", found[1]) if (error.statement or "")[:5].upper() == "ALTER" else None
    found = known.THERE.fullmatch(reason)
    return None if found is None else (found[1] or found[3], (found[2] or found[4]).strip("\"'`[]"))


def names_of(connection: Connection) -> set[str]:
    """Return the names of the tables and views of a database, by `fold`, without the ledger of any tool."""
    return _of(connection).names(connection) - {fold(other.table) for other in other_tools.found(connection)}


# ---------------------------------------------------------------- who may have made it


def _who_makes(table: str, error: MigrationFailed, migrations: Sequence[Migration]) -> str | None:
    """Return what to do about a table that no migration has made when a script asks for it; None if one had."""
    name, id = re.escape(table), visible(error.migration, line=True)
    makes = re.compile(rf"create\s+(virtual\s+)?table\s+(if\s+not\s+exists\s+)?[\"'`\[]?{name}\b", re.IGNORECASE)
    place = next((place for place, one in enumerate(migrations) if one.up.path == error.path), None)
    made_by = [number for number, one in enumerate(migrations) if makes.search(one.up.text)]
    if place is None or (made_by and made_by[0] <= place):  # a rollback; or it was dropped, or renamed
        return None
    if made_by:
        maker = migrations[made_by[0]]
        if maker.set != migrations[place].set:
            its = visible(f"{maker.set}/{maker.id}", line=True)
            return f"{its} makes it, and comes after {id}: `-- depends: {its}` at the top of {id} puts it first"
        its = visible(maker.id, line=True)
        return (
            f"{its} makes it, and comes after {id}: ids are in the order of their leading numbers, then of their "
            f"text. `-- depends: {its}` at the top of {id} puts it first"
        )
    return (
        f"No migration before {id} makes it. Correct the name; or, if something else makes it, such as the program "
        "itself or a schema that is elsewhere, have that done first"
    )


def _is_new(connection: Connection, state: Ledger) -> bool:
    """Return whether nothing was ever noted in a ledger of ours: what was adopted, or undone, is known."""
    return not state.entries and OURS[0] not in table_names(connection)


def _applied_elsewhere(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> str | None:
    """Return which of the migrations another tool has applied, and what takes that over; None if it is not certain."""
    for other in other_tools.found(connection):
        if other.is_adoptable and (applied := other_tools.claimed(connection, other.tool, migrations)):
            which = applied[0].id
            which += f" to {applied[-1].id} ({len(applied)} of the migrations)" if len(applied) > 1 else ""
            which = visible(which, line=True)
            return (
                f"{other.tool} has applied {which} to {state.database} already, as its table {other.table} says: "
                f"`dao adopt --from {other.tool}` notes that here and runs nothing, then `dao migrate` applies the rest"
            )
    return None


def _by_whom(connection: Connection, id: str | None, state: Ledger) -> str:
    """Return what to do, by what a database says of who has made it."""
    for other in other_tools.found(connection):
        if other.is_adoptable and not state.entries:
            otherwise = (
                "; where they are not in SQL, `dao baseline` notes the schema that is there as the first migration"
                if other.tool == "alembic"
                else ""
            )
            return (
                f"The table {other.table} is {other.tool}'s: if {other.tool} has applied these migrations, "
                f"`{other.command}` notes that, and runs nothing{otherwise}"
            )
    if id is None or not state.entries:
        return _BY_NOBODY
    name = visible(id, line=True)
    return (
        f"If all that {name} does was done by hand, `dao mark {name}` notes it as applied and runs nothing; `dao "
        "schema diff` then shows what differs"
    )
