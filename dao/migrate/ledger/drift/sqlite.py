"""Drift on SQLite: each change notes a hash of the schema; where that does not answer, the migrations are replayed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Sequence

import attrs

from dao.engine import DriverError
from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.schema import catalog
from dao.migrate.schema.names import fold
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference, Drifted

__all__ = ["compared", "differences", "is_clean", "owners", "record"]

_READ = f"""
SELECT _dao_schema.migrations, _dao_schema.live, _dao_schema.expected,
       _dao_schema.schema_version = {catalog.SCHEMA_VERSION}
FROM   _dao_schema
"""
_WRITE = f"""
INSERT OR REPLACE INTO _dao_schema (only, schema_version, migrations, live, expected)
VALUES (1, {catalog.SCHEMA_VERSION}, ?, ?, ?)
"""
_OBJECTS = frozenset({"table", "virtual table", "view"})
# Stands before the hash of a schema that is what its migrations make: nothing else is there, or tables of others are.
# Another schema has no hash, but in JSON the tables and views that migrations left behind, and the sets of those.
_ALONE, _BESIDE = "=", "+"


@attrs.frozen
class _Note:
    """The schema as the last change left it: hashes of the migrations and of the schema, and whether it is theirs."""

    migrations: str
    live: str
    expected: str | None
    #: Nothing has changed the schema since.
    is_live: bool

    def is_of(self, state: Ledger) -> bool:
        """Return whether it is of the migrations that are applied now: the stock yoyo notes none."""
        return self.migrations == state.fingerprint

    def now(self, connection: Connection) -> str:
        """Return the hash of the schema as it is now."""
        return self.live if self.is_live else catalog.fingerprint(catalog.definitions(connection))

    @property
    def left(self) -> dict[str, str | None]:
        """The names of the tables and views that migrations left behind, in lower case, and of which set these were."""
        with contextlib.suppress(ValueError):  # somebody else's note
            if (self.expected or "").startswith(("{", "[")):
                found = json.loads(self.expected or "")
                return found if isinstance(found, dict) else dict.fromkeys(found)
        return {}


def _noted(connection: Connection) -> _Note | None:
    try:
        row = connection.execute(_READ).fetchone()
    except DriverError:
        if "_dao_schema" in catalog.table_names(connection):
            raise
        return None
    return None if row is None else _Note(*row)


def differences(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """As `dao.migrate.ledger.drift.differences`: reads one row, if there are none. It is not known if a replay fails.

    What a migration left behind that is not applied any more, or a rollback, is a difference.
    """
    noted = _noted(connection)
    if noted is None and not state.entries:
        return []
    if noted and noted.is_of(state) and (noted.expected is None or noted.expected[1:] == noted.now(connection)):
        return []
    from dao.migrate.ledger import expected  # noqa: PLC0415 - 30 ms, and a schema hardly ever differs

    try:
        found = expected.compare(connection, migrations, state)
    except MigrationError:
        return []
    return _told(found, noted.left if noted else {})


def compared(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """As `dao.migrate.ledger.drift.diff`: all that differs."""
    from dao.migrate.ledger import expected  # noqa: PLC0415 - as above

    return expected.compare(connection, migrations, state)


def owners(
    connection: Connection, found: Sequence[Difference], migrations: Sequence[Migration], state: Ledger, its: Sets
) -> list[str | None]:
    """Return the set that each difference belongs to: the one whose script made the object, or its table.

    None if that is not known.
    """
    from dao.migrate.ledger import expected  # noqa: PLC0415 - as above

    makers = expected.makers(expected.applied(migrations, state))
    left = noted.left if (noted := _noted(connection)) else {}
    tables = {(item.type, item.key): fold(item.table) for item in catalog.definitions(connection)}
    owned: list[str | None] = []
    for one in found:
        key = one.type.removeprefix("virtual "), _name(one)
        maker = makers.get(key) or makers.get(("table", tables.get(key, "")))
        owned.append(left.get(_name(one)) if maker is None else its.by_id[maker])
    return owned


def is_clean(connection: Connection, state: Ledger) -> bool:
    """Return whether the schema is known at once to be what its migrations make and nothing else."""
    noted = _noted(connection)
    if noted is None:
        return not state.entries and not catalog.definitions(connection, internal=False)
    return noted.is_of(state) and noted.expected == _ALONE + noted.now(connection)


def record(connection: Connection, migrations: Sequence[Migration], before: Moment, now: Moment) -> Drifted:
    """As `dao.migrate.ledger.drift.record`.

    Objects that the migrations of `before` made, and those of now do not, are left behind, as are those that scripts
    have added to the schema that was there.
    """
    state = now.ledger
    live = catalog.fingerprint(catalog.definitions(connection) if now.schema is None else now.schema)
    found = Drifted()
    note: str | None = _ALONE + live
    if not now.clean:
        from dao.migrate.ledger import expected  # noqa: PLC0415 - as above

        try:
            there = expected.compare(connection, migrations, state)
            beside = frozenset(_name(one) for one in there if _is_beside(one))
            noted = _noted(connection)
            left = {name: its for name, its in noted.left.items() if name in beside} if noted else {}
            # if they were of several sets, it is not known whose of them it is
            changed = {entry.set for entry in {*before.ledger.entries} ^ {*state.entries}}
            by = changed.pop() if len(changed) == 1 else None
            if beside and not set(before.ledger.entries) <= set(state.entries):
                left |= dict.fromkeys(beside & expected.names(migrations, before.ledger), by)
            if before.schema is not None:
                left |= dict.fromkeys(beside - {fold(item.name) for item in before.schema}, by)
            found = Drifted(tuple(_told(there, left)))
            note = json.dumps(left, sort_keys=True) if found.differences else (_BESIDE if beside else _ALONE) + live
        except MigrationError as error:
            found, note = Drifted(unknown=str(error)), None
    connection.execute(_WRITE, (state.fingerprint, live, note))
    return found


def _told(found: Iterable[Difference], left: Collection[str]) -> list[Difference]:
    """Return the differences without the tables and views of others; those that were `left` behind are not others'."""
    return [one for one in found if not _is_beside(one) or _name(one) in left]


def _is_beside(difference: Difference) -> bool:
    return difference.kind == "unexpected" and difference.part is None and difference.type in _OBJECTS


def _name(difference: Difference) -> str:
    return fold(difference.name)  # tables and views share their names
