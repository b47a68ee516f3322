"""Whether the live schema still is what its migrations make. To find out costs two numbers and a row.

A run that begins on a schema which is what its migrations make ends on one, so that its hash need only be noted. Where
nothing was noted, or something else has changed the schema or the ledger, the migrations are replayed in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dao.engine import Connection
from dao.errors import MigrationError
from dao.migrate import ledger
from dao.migrate.content import tables
from dao.migrate.files import Migration, checksum
from dao.migrate.ledger import Ledger

if TYPE_CHECKING:
    from dao.migrate.plan import Step
    from dao.migrate.schema import Difference, Made

__all__ = ["differences", "is_clean", "made_by", "own_drops", "record"]

_READ = "SELECT schema_version, migrations, live, expected FROM _dao_schema"
_OBJECTS = frozenset({"table", "virtual table", "view"})
_WRITE = "INSERT OR REPLACE INTO _dao_schema (only, schema_version, migrations, live, expected) VALUES (1, ?, ?, ?, ?)"


def differences(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """Return in what the live schema is not what its migrations make. Reads only; two numbers and a row, if it is.

    Tables and views beside those of the migrations are no difference: the file may hold more than this package's. If the
    migrations cannot be replayed, nothing is known, and nothing returned.
    """
    from dao.migrate import schema  # noqa: PLC0415 - what is asked at every start of a program should be cheap

    noted = _noted(connection)
    if noted is not None and noted[1] == _applied(_checksums(state)):
        version, _, live, expected = noted
        if expected is None:
            return []
        if connection.pragma("schema_version") != version:
            live = schema.fingerprint(connection)
        if live == expected:
            return []
    elif not state.entries:
        return []
    try:
        return _compare(connection, migrations, state)
    except MigrationError:
        return []


def _compare(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    from dao.migrate import schema  # noqa: PLC0415 - see above

    made = schema.expected(migrations, state)
    found = schema.differences(made, schema.read(connection))
    return [difference for difference in found if not _is_foreign(difference)]


def _is_foreign(difference: Difference) -> bool:
    return difference.kind == "unexpected" and difference.part is None and difference.type in _OBJECTS


def is_clean(connection: Connection, state: Ledger) -> bool:
    """Return whether it is known that the schema is what its migrations make, without replaying them."""
    noted = _noted(connection)
    if noted is None:
        return not state.entries and not tables(connection)
    version, applied, live, expected = noted
    if applied != _applied(_checksums(state)):
        return False
    if connection.pragma("schema_version") != version:
        from dao.migrate import schema  # noqa: PLC0415 - see above

        live = schema.fingerprint(connection)
    return bool(live == expected)


def record(connection: Connection, migrations: Sequence[Migration], *, clean: bool = False) -> None:
    """Note the schema as it is, in the transaction that is open. `clean`: it is known to be what its migrations make."""
    from dao.migrate import schema  # noqa: PLC0415 - see above

    live: str | None = schema.fingerprint(connection)
    expected = live
    if not clean:
        try:
            if _compare(connection, migrations, ledger.read(connection)):
                expected = "another"
        except MigrationError:
            expected = None
    applied = _applied(ledger.checksums(connection))
    connection.execute(_WRITE, (connection.pragma("schema_version"), applied, live, expected))


def made_by(step: Step, migrations: Sequence[Migration], state: Ledger) -> Made:
    """Return the tables and columns that the migration of a step made; nothing if that cannot be told."""
    from dao.migrate import schema  # noqa: PLC0415 - see above

    try:
        scripts = schema.applied(migrations, state)
        earlier = scripts[: state.ids.index(step.id)]
        return schema.made_by(earlier, step.id, scripts[len(earlier)][1])
    except MigrationError:
        return schema.Made(frozenset(), frozenset())


def own_drops(step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """Return what the rollback of a step takes away of what its own migration made, as `tasks.priority`; sorted."""
    from dao.migrate import schema  # noqa: PLC0415 - see above

    made = made_by(step, migrations, state)
    try:
        scripts = schema.applied(migrations, state)
        with schema.replayed([*scripts[: state.ids.index(step.id) + 1], (step.id, step.text)]) as after:
            left = schema.columns(after)
    except MigrationError:
        return ()
    tables = {table for table, _ in left}
    gone = [f"table {table}" for table in made.tables if table not in tables]
    gone += [
        f"column {table}.{column}"
        for table, column in made.columns
        if table not in made.tables and (table, column) not in left
    ]
    return tuple(sorted(gone))


def _noted(connection: Connection) -> Any:
    if ("_dao_schema",) not in connection.execute(ledger.TABLE_NAMES).fetchall():
        return None
    return connection.execute(_READ).fetchone()


def _applied(entries: Iterable[tuple[str, str | None]]) -> str:
    """Return a hash of what is applied: if that has moved on, by the stock yoyo for one, what was noted says nothing."""
    return str(checksum("\n".join(f"{id} {sum_}" for id, sum_ in entries)))


def _checksums(state: Ledger) -> list[tuple[str, str | None]]:
    return [(entry.id, entry.checksum) for entry in state.entries]
