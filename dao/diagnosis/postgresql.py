"""What a PostgreSQL server tells: its room for connections, transactions that hold it up, vacuum, durability.

The statements read the server's own views, and no rows. What a role may not see counts as not there.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from dao import codec
from dao.diagnosis.finding import Finding, Look, error, note, ok, warning
from dao.engine import Connection, fetch
from dao.settings import Settings
from dao.text import brief, counted, manual, readable

__all__ = ["looks", "settings"]

_CONNECTIONS = """
SELECT count(*), current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       count(*) FILTER (WHERE usename = current_user), count(*) FILTER (WHERE datname = current_database())
FROM   pg_stat_activity
WHERE  backend_type = 'client backend'
"""
# seconds since a transaction began, and since its session does nothing in it
_TRANSACTIONS = """
SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
       extract(epoch FROM clock_timestamp() - xact_start)::float8,
       extract(epoch FROM clock_timestamp() - state_change)::float8
FROM   pg_stat_activity
WHERE  datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
AND    xact_start < clock_timestamp() - make_interval(secs => $1)
ORDER  BY xact_start
LIMIT  10
"""
_PREPARED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
WHERE  database = current_database() AND prepared < clock_timestamp() - make_interval(secs => $1)
ORDER  BY prepared
"""
_AGE = """
SELECT age(datfrozenxid), current_setting('autovacuum_freeze_max_age')::bigint FROM pg_database
WHERE  datname = current_database()
"""
_DEAD = """
SELECT relid::regclass::text, n_dead_tup, n_live_tup,
       extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8
FROM   pg_stat_user_tables
WHERE  n_dead_tup > 10000 AND n_dead_tup > 0.3 * n_live_tup
ORDER  BY n_dead_tup DESC
LIMIT  5
"""
_SLOTS = """
SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
WHERE  NOT active AND restart_lsn IS NOT NULL
"""
_COLLATION = """
SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()
"""
_PLACE = """
SELECT current_setting('server_version'), pg_database_size(current_database()), pg_is_in_recovery(),
       has_schema_privilege(current_schema(), 'CREATE'), current_schema()
"""
# Of each setting: how bad it is to have it off, what that means, and what to do.
_DURABILITY = {
    "fsync": (error, "a crash of the machine can destroy the whole cluster", "fsync = on, for anything but a test"),
    "full_page_writes": (error, "a power cut can tear pages", "full_page_writes = on"),
    "synchronous_commit": (
        warning,
        "a crash of the server can lose the last commits, though they were answered",
        "synchronous_commit = on, or leave it for what may be lost",
    ),
}
# per cent of the connections, seconds, bytes, and how far ids of transactions go
_FULL = 0.8
_IDLE = 60
_LONG = 600
_KEPT = 1 << 30
_APART = 1.0
_END = 2_000_000_000


def settings(config: Settings) -> Iterator[Finding]:
    """Yield which settings of the URL put something at risk."""
    if config.replica is not None:
        yield note(
            "settings",
            "DATABASE_REPLICA is set",
            "`dao replicate` is for SQLite: nothing is replicated by it here",
            f"take it out; {manual('how-to/several-hosts.md')} has standbys",
        )


def looks(config: Settings) -> dict[str, Look]:
    """Return how to look at the server and at this database, each by what it is about."""
    return {
        "server": _place,
        "encryption": _encryption,
        "connections": lambda connection: _connections(connection, config.pool_size),
        "transactions": _transactions,
        "vacuum": _vacuum,
        "slots": _slots,
        "durability": _durability,
        "collation": _collation,
        "clock": _clock,
        "extensions": _extensions,
    }


def _place(connection: Connection) -> Iterator[Finding]:
    ((version, size, is_standby, may_create, schema),) = fetch(connection, _PLACE)
    yield ok(
        "server", f"PostgreSQL {version} by psycopg {metadata.version('psycopg')}, a database of {readable(int(size))}"
    )
    if is_standby:
        yield warning(
            "server",
            "this is a standby",
            "it can be read only",
            "name the primary in DATABASE_URL (target_session_attrs=read-write finds it among several hosts)",
        )
    if schema is None:
        yield error(
            "permissions",
            "the search_path names no schema that is there and that this role may use",
            "no table can be made or found",
            "CREATE SCHEMA, GRANT USAGE ON SCHEMA, or set search_path for the role",
        )
    elif not may_create:
        yield note(
            "permissions",
            f"this role may not create tables in the schema {schema}",
            "`dao migrate` would fail with it",
            f"migrate as another role, or GRANT CREATE ON SCHEMA {schema}",
        )
    else:
        yield ok("permissions", f"this role may create tables in the schema {schema}")


def _encryption(connection: Connection) -> Iterator[Finding]:
    check = "encryption"
    rows = fetch(
        connection,
        "SELECT ssl, host(client_addr) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()",
    )
    is_encrypted, address = rows[0] if rows else (False, None)
    if address is None:
        yield ok(check, "by a socket of this machine")
    elif is_encrypted or ipaddress.ip_address(address).is_loopback:
        yield ok(check, "TLS" if is_encrypted else "none, on this machine")
    else:
        yield warning(
            check,
            f"the connection from {address} is not encrypted",
            "whoever is on the way reads all that is stored, and can change it",
            "sslmode=verify-full in the URL, once the server has a certificate",
        )


def _connections(connection: Connection, pool_size: int) -> Iterator[Finding]:
    check = "connections"
    ((used, most, of_role, of_database, by_role, by_database),) = fetch(connection, _CONNECTIONS)
    limits = [(used, most, "max_connections")]
    limits += [(by_role, of_role, "the role's CONNECTION LIMIT")] if of_role is not None and of_role >= 0 else []
    limits += [(by_database, of_database, "the database's CONNECTION LIMIT")] if of_database >= 0 else []
    taken, limit, name = min(limits, key=lambda one: one[1] - one[0])
    text = f"{taken} of {limit} in use ({name})"
    if limit - taken < pool_size or taken > _FULL * limit:
        yield warning(
            check,
            text,
            f"a pool of {pool_size} may find none left, and programs are refused",
            f"smaller pools, PgBouncer ({manual('how-to/several-hosts.md')}), or a higher limit",
        )
    else:
        yield ok(check, text)


def _transactions(connection: Connection) -> Iterator[Finding]:
    check = "transactions"
    found = False
    for pid, user, application, state, age, idle in fetch(connection, _TRANSACTIONS, [_IDLE]):
        who = f"process {pid} ({', '.join(filter(None, [user, application]))})"
        if state.startswith("idle in transaction") and idle >= _IDLE:
            found = True
            yield warning(
                check,
                f"{who} has been idle in a transaction for {brief(idle)}",
                "its locks stay, and vacuum keeps all that was deleted since it began",
                f"SELECT pg_terminate_backend({pid}), and idle_in_transaction_session_timeout for the role",
            )
        elif age > _LONG:
            found = True
            yield note(
                check,
                f"{who} has been in a transaction for {brief(age)}",
                "vacuum keeps all that was deleted since it began, and tables grow",
                "make it shorter, or read on a standby",
            )
    for gid, age in fetch(connection, _PREPARED, [_IDLE]):
        found = True
        yield warning(
            check,
            f"the prepared transaction {gid} has been waiting for {brief(age)}",
            "its locks stay, over restarts, too",
            f"COMMIT PREPARED '{gid}', or ROLLBACK PREPARED",
        )
    if not found:
        yield ok(check, "none that takes long, or is idle")


def _vacuum(connection: Connection) -> Iterator[Finding]:
    check = "vacuum"
    ((age, most),) = fetch(connection, _AGE)
    ((is_on,),) = fetch(connection, "SELECT current_setting('autovacuum')")
    if is_on == "off":
        yield error(
            check,
            "autovacuum is off",
            "tables grow with every change, until the server stops taking writes",
            "autovacuum = on",
        )
    text = f"the oldest transaction id is {age:,} ids old"
    if age > _END / 2:
        yield error(
            check,
            text,
            f"the server takes no more writes before it is {_END:,} old",
            "end old transactions, prepared ones and replication slots, then VACUUM the database",
        )
    elif age > 2 * most:
        yield warning(
            check,
            text,
            f"autovacuum should have frozen it at {most:,}: something holds it up",
            "look for old transactions and replication slots; VACUUM (VERBOSE) says what keeps rows",
        )
    elif is_on != "off":
        yield ok(check, f"autovacuum is on; {text}")
    for table, dead, live, ago in fetch(connection, _DEAD):
        since = "never" if ago is None else f"{brief(ago)} ago"
        yield note(
            check,
            f"{table} has {dead:,} dead rows beside {live:,} (last vacuum: {since})",
            "it takes more room and time to read than it has to",
            f"VACUUM (ANALYZE) {table}; if that leaves them, an old transaction or a slot holds them",
        )


def _slots(connection: Connection) -> Iterator[Finding]:
    if fetch(connection, "SELECT pg_is_in_recovery()") == [(True,)]:
        return
    for slot, kept in fetch(connection, _SLOTS):
        if kept > _KEPT:
            yield warning(
                "slots",
                f"the inactive replication slot {slot} keeps {readable(int(kept))} of WAL",
                "the disk of the server fills",
                f"bring its standby back, or SELECT pg_drop_replication_slot('{slot}')",
            )


def _durability(connection: Connection) -> Iterator[Finding]:
    check = "durability"
    bad = []
    for name, (severe, means, advice) in _DURABILITY.items():
        ((value,),) = fetch(connection, f"SELECT current_setting('{name}')")
        if value == "off":
            bad.append(name)
            yield severe(check, f"{name} = off", means, advice)
    ((checksums,),) = fetch(connection, "SELECT current_setting('data_checksums')")
    if checksums == "off":
        yield note(
            check,
            "data_checksums = off",
            "a page that the disk damages is noticed late, or not at all",
            "pg_checksums --enable, while the server is down",
        )
    elif not bad:
        yield ok(check, ", ".join(f"{name} = on" for name in (*_DURABILITY, "data_checksums")))


def _collation(connection: Connection) -> Iterator[Finding]:
    check = "collation"
    ((noted, actual),) = fetch(connection, _COLLATION)
    if noted is not None and actual is not None and noted != actual:
        yield warning(
            check,
            f"the system sorts by version {actual}, and this database was made with {noted}",
            "indexes on text of that collation may be out of order: rows are not found, or are there twice. The tables "
            'of this package are COLLATE "C" where it matters, those of others may not be',
            "REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION",
        )
    else:
        yield ok(check, "as the database was made with")


def _clock(connection: Connection) -> Iterator[Finding]:
    check = "clock"
    before, begun = codec.now().timestamp(), time.monotonic()
    ((theirs,),) = fetch(connection, "SELECT extract(epoch FROM clock_timestamp())::float8")
    took = time.monotonic() - begun
    apart = float(theirs) - (before + took / 2)
    if abs(apart) > _APART + took:
        yield warning(
            check,
            f"the server's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this one",
            "leases, backoff and order by age go by clocks: a task may seem lost while it runs",
            "keep the clocks of all hosts right (NTP)",
        )
    else:
        yield ok(check, f"the server's is within {max(abs(apart), took):.3f} s of this one")


def _extensions(connection: Connection) -> Iterator[Finding]:
    check = "extensions"
    there = {name for (name,) in fetch(connection, "SELECT extname FROM pg_extension")}
    wanted: dict[str, tuple[str, Any]] = {
        "amcheck": ("`dao check` cannot look into tables and indexes", "CREATE EXTENSION amcheck"),
        "pg_stat_statements": (
            "nobody can tell which statements take the time",
            "shared_preload_libraries, then CREATE EXTENSION pg_stat_statements",
        ),
    }
    for name, (means, advice) in wanted.items():
        if name not in there:
            yield note(check, f"{name} is not here", means, advice)
    if wanted.keys() <= there:
        yield ok(check, f"{counted(len(there), 'extension')}, {' and '.join(wanted)} among them")
