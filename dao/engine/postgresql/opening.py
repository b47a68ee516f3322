"""Connect to a PostgreSQL server, and set the connection up."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import psycopg

from dao import errors
from dao.engine.postgresql.connections import Connection, name_of
from dao.engine.postgresql.loss import limit_lifetime
from dao.engine.postgresql.statements import command, fetch_each
from dao.url import ServerURL

__all__ = ["absolute", "check_exists", "open_connection", "prepare"]

#: The first version that is served: `IS JSON` came with it.
_FIRST_VERSION = 160_000
#: How long a statement waits for a lock by default, and a connection for its server, in seconds.
_CONNECT_TIMEOUT = 10


def open_connection(url: ServerURL, deadline: float = math.inf) -> Connection:
    """Connect to the database that the URL names, until a moment of the monotonic clock, and set the connection up.

    Raises:
        ConnectionLost: No server could be reached, or it takes no connections now.
        OperationalError: The server refused the connection; the message says why.
        UnsupportedEngine: The server is older than 16, or the database is not in UTF-8.
    """
    parameters: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "fallback_application_name": "dao",
        **url.parameters,
        "client_encoding": "UTF8",
    }
    left = deadline - time.monotonic()
    if left < int(parameters["connect_timeout"]) or (int(parameters["connect_timeout"]) <= 0 and left < math.inf):
        parameters["connect_timeout"] = max(1, int(left))  # libpq counts whole seconds, and from 0 down for ever
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        raise _not_connected(error, url) from error
    limit_lifetime(connection)
    try:
        prepare(connection)
        if url.busy_timeout is not None:
            # for SQLite nothing means not to wait, for PostgreSQL to wait for ever
            command(connection, f"SET lock_timeout = {max(1, url.busy_timeout)}")
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise _not_connected(error, url) from error
        raise
    return connection


def absolute(url: ServerURL) -> ServerURL:
    """Return the URL: a server's means the same everywhere."""
    return url


def check_exists(url: ServerURL) -> None:
    """Do nothing: to connect to a database that does not exist does not make it."""


def prepare(connection: Connection) -> None:
    """Set a connection of the caller's up for the functions of this package: times in UTC, one format for dates.

    They work on one that was not set up, too; this finds out early whether they do. A connection that is not in
    autocommit mode is in a transaction from its first statement on, which the caller commits.

    Behind a pooler, where each transaction may get another session of the server, no statement is prepared there:
    psycopg's `prepare_threshold` is set to None. If the pooler keeps prepared statements itself, set it again.

    Raises:
        UnsupportedEngine: The server is older than 16, or the database is not in UTF-8.
    """
    if connection.pgconn.server_version < _FIRST_VERSION:
        version = connection.info.parameter_status("server_version")
        raise errors.UnsupportedEngine(f"the server is PostgreSQL {version}: use 16 or newer")
    for name in ("server_encoding", "client_encoding"):
        # PgBouncer repeats what it was told
        if (encoding := (connection.info.parameter_status(name) or "").upper().replace("-", "")) != "UTF8":
            raise errors.UnsupportedEngine(
                f"the {name} of {name_of(connection)} is {encoding}, in which not every text can be stored: use UTF8"
            )
    *_, [(process,)] = fetch_each(
        connection, "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SELECT pg_backend_pid()"
    )
    if process != connection.info.backend_pid:  # a pooler tells one of its own
        connection.prepare_threshold = None


def _not_connected(error: psycopg.Error, url: ServerURL) -> errors.Error:
    # libpq tells one line for each host that it tried
    reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    for name in ("password", "sslpassword", "oauth_client_secret", "scram_client_key"):
        if (secret := url.parameters.get(name)) and len(secret) > 2:
            reason = reason.replace(secret, "…")
    kind = errors.OperationalError if _REFUSED.search(reason) else errors.ConnectionLost
    advice = next((advice for words, advice in _WAYS_OUT.items() if re.search(words, reason)), None)
    return kind(f"cannot connect to {url.name}: {reason}", advice=advice)


# the server's or libpq's words where to try again does not help
_REFUSED = re.compile(
    "authentication failed|no pg_hba.conf entry|does not exist|permission denied (?:for database|to set)|"
    "no password supplied|server does not support SSL|certificate|SSL error: (?!unexpected eof)|"
    "role .* is not permitted to log in|invalid .*value|invalid port|requires a value|unrecognized configuration|"
    "unsupported|requirepeer|definition of service"
)
_WAYS_OUT = {
    'database ".*" does not exist': "Create it first (`createdb`, or CREATE DATABASE by a role that may), or name "
    "another.",
    "authentication failed|no password supplied|role .* does not exist": "Check user and password, which libpq also "
    "takes from PGUSER, PGPASSWORD and ~/.pgpass.",
    "no encryption|SSL off": "The server wants TLS: sslmode=verify-full in the URL, with sslrootcert=… or "
    "sslrootcert=system.",
    "no pg_hba.conf entry": "The server lets nobody in from here as this user: its pg_hba.conf says whom.",
    "server does not support SSL": "The server has no TLS: leave sslmode out of the URL where the network is trusted, "
    "or set TLS up there.",
    "certificate": "sslrootcert=… in the URL names who vouches for the server; sslmode=verify-full demands its name.",
    "resolve|translate host name": "Check the name of the host.",
    "too many (?:clients|connections)|connection slots": "Use smaller pools, or raise max_connections.",
    "starting up|shutting down|recovery": "Wait until it takes connections (`dao wait` does), and repeat.",
}
