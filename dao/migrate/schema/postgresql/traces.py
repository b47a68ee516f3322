"""The traces that a transaction of PostgreSQL's leaves while it is open: its locks, and the rows that it wrote."""

from __future__ import annotations

from typing import Any, NamedTuple

from dao.engine import fetch
from dao.migrate.schema.names import TABLES
from dao.migrate.schema.postgresql.pieces import OF_USERS, RELATIONS, qualified

__all__ = ["DRAWN", "MODES", "Relation", "is_stronger", "locks", "relations", "row_versions", "signatures"]

#: The modes of locks on tables that others may notice, from the weakest, and what nobody else can do then.
MODES = {
    "ShareUpdateExclusiveLock": "VACUUM, or change its schema",
    "ShareLock": "write to it",
    "ShareRowExclusiveLock": "write to it",
    "ExclusiveLock": "write to it, or lock its rows",
    "AccessExclusiveLock": "read it or write to it",
}
#: The mode in which a sequence is locked once a number was drawn from it.
DRAWN = "RowExclusiveLock"
_WEAKER = ("AccessShareLock", "RowShareLock", "RowExclusiveLock")
_ORDER = (*_WEAKER, *MODES)

_RELATIONS = f"""
SELECT c.oid::bigint, {qualified("c.relname")}, c.relkind = 'S'
{RELATIONS}
WHERE  {OF_USERS} AND c.relkind NOT IN ('i', 'I')
       AND c.relname <> ALL ($1::text[])
"""
_LOCKS = """
SELECT relation::bigint, mode
FROM   pg_locks
WHERE  locktype = 'relation' AND pid = pg_backend_pid() AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ROW_VERSIONS = """
SELECT c.oid::bigint, pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
FROM   pg_class AS c
WHERE  c.relkind = 'r' AND pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) > 0
"""


_SIGNATURES = f"""
SELECT {qualified("c.relname")},
       c.oid::bigint, c.relfilenode::bigint, pg_stat_get_xact_tuples_inserted(c.oid),
       pg_stat_get_xact_tuples_updated(c.oid), pg_stat_get_xact_tuples_deleted(c.oid)
{RELATIONS}
WHERE  {OF_USERS} AND c.relkind = 'r'
"""


class Relation(NamedTuple):
    """A table, view or sequence."""

    name: str
    is_sequence: bool


def relations(connection: Any) -> dict[int, Relation]:
    """Return the tables, views and sequences that there are, by number, without the ledger's."""
    return {id: Relation(name, is_sequence) for id, name, is_sequence in fetch(connection, _RELATIONS, (list(TABLES),))}


def locks(connection: Any) -> dict[int, str]:
    """Return the strongest mode in which this session has locked each relation, by number."""
    found: dict[int, str] = {}
    for id, mode in fetch(connection, _LOCKS):
        if is_stronger(mode, found.get(id)):
            found[id] = mode
    return found


def is_stronger(mode: str, than: str | None) -> bool:
    """Return whether a lock keeps others from more than another one, or there is none."""
    return than is None or _ORDER.index(mode) > _ORDER.index(than)


def row_versions(connection: Any) -> dict[int, int]:
    """Return how many versions of rows this transaction has written to each table, by its number."""
    return dict(fetch(connection, _ROW_VERSIONS))


def signatures(connection: Any) -> dict[str, tuple[Any, ...]]:
    """Return by the name of each table what is another in this transaction once it was written to."""
    return {name: tuple(sign) for name, *sign in fetch(connection, _SIGNATURES)}
