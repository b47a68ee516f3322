"""Drift: whether the schema still is what the applied migrations make.

That is asked whenever a program starts, so each change leaves a note of it. Only where the note does not answer are the
migrations replayed, as `expected` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence

import attrs

from dao.engine import DriverError
from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import fold
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference, Drifted

__all__ = ["differences", "is_clean", "record"]

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
# Another schema has no hash, but a list in JSON of the tables and views that migrations left behind.
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
        return self.migrations == _hash(state)

    def now(self, connection: Connection) -> str:
        """Return the hash of the schema as it is now."""
        return self.live if self.is_live else catalog.fingerprint(catalog.definitions(connection))

    @property
    def left(self) -> frozenset[str]:
        """The names of the tables and views that migrations left behind, in lower case."""
        with contextlib.suppress(ValueError):  # somebody else's note
            if (self.expected or "").startswith("["):
                return frozenset(json.loads(self.expected or ""))
        return frozenset()


def _noted(connection: Connection) -> _Note | None:
    try:
        row = connection.execute(_READ).fetchone()
    except DriverError:
        if "_dao_schema" in catalog.table_names(connection):
            raise
        return None
    return None if row is None else _Note(*row)


def differences(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """Return how the live schema differs from the one that its migrations make. Reads only: one row, if it does not.

    Tables and views beside those of the migrations are no difference, since the file may hold more than this
    package's; but those are that a migration made which is not applied any more, or a rollback. If the migrations
    cannot be replayed, or one is unfinished, nothing is known, and nothing returned.
    """
    if state.unfinished:  # in the middle of a script nobody knows what the schema should be
        return []
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
    return _told(found, noted.left if noted else frozenset())


def is_clean(connection: Connection, state: Ledger) -> bool:
    """Return whether the schema is known, without a replay, to be what its migrations make and nothing else."""
    noted = _noted(connection)
    if noted is None:
        return not state.entries and not catalog.definitions(connection, internal=False)
    return noted.is_of(state) and noted.expected == _ALONE + noted.now(connection)


def record(
    connection: Connection,
    migrations: Sequence[Migration],
    before: Ledger,
    *,
    schema_before: catalog.Definitions | None = None,
    after: Ledger | None = None,
    schema: catalog.Definitions | None = None,
    clean: bool = False,
) -> Drifted:
    """Note the schema as it is, in the open transaction, and return how it differs from what its migrations make.

    `before` is the ledger before the change: objects that its migrations made, and those of now do not, are left
    behind, as are those that scripts have added to `schema_before`. `after` and `schema` are the ledger and the schema
    of now, where they are known. `clean`: the schema is known to be what they make, and nothing else is there.
    """
    state = after or ledger.read(connection)
    live = catalog.fingerprint(catalog.definitions(connection) if schema is None else schema)
    found = Drifted()
    note: str | None = _ALONE + live
    if not clean:
        from dao.migrate.ledger import expected  # noqa: PLC0415 - as above

        try:
            there = expected.compare(connection, migrations, state)
            beside = frozenset(_name(one) for one in there if _is_beside(one))
            noted = _noted(connection)
            left = beside & noted.left if noted else frozenset[str]()
            if beside and not set(before.entries) <= set(state.entries):
                left |= beside & expected.names(migrations, before)
            if schema_before is not None:
                left |= beside - {fold(item.name) for item in schema_before}
            found = Drifted(tuple(_told(there, left)))
            note = json.dumps(sorted(left)) if found.differences else (_BESIDE if beside else _ALONE) + live
        except MigrationError as error:
            found, note = Drifted(unknown=str(error)), None
    connection.execute(_WRITE, (_hash(state), live, note))
    return found


def _told(found: Iterable[Difference], left: frozenset[str]) -> list[Difference]:
    """Return the differences without the tables and views of others; those that were `left` behind are not others'."""
    return [one for one in found if not _is_beside(one) or _name(one) in left]


def _is_beside(difference: Difference) -> bool:
    return difference.kind == "unexpected" and difference.part is None and difference.type in _OBJECTS


def _name(difference: Difference) -> str:
    return fold(difference.name)  # tables and views share their names


def _hash(state: Ledger) -> str:
    """Return a hash of what is applied. The stock yoyo may move that on; then the note says nothing."""
    lines = "\n".join(f"{entry.id} {entry.checksum}" for entry in state.entries)
    return hashlib.sha256(lines.encode()).hexdigest()
