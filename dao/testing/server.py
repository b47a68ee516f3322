"""Databases of tests on a PostgreSQL server: copied from a migrated one, and emptied in a fraction of that time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import monotonic, sleep  # as they are now: a test may replace those of the module
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from dao import url as urls
from dao.engine import connect
from dao.errors import OperationalError
from dao.migrate.schema.postgresql.temporary import drop, drop_left_over, new_name, when_unused

__all__ = ["BETWEEN_TESTS", "Databases", "Reused", "database_of"]

# how the names of all databases of tests begin
_PREFIX = "dao_test_"
#: The application_name of a session that is no test's.
BETWEEN_TESTS = "between tests"

#: What a killed run has left is dropped by a later one, after a day.
_LEFT_OVER = 86_400
#: What the tables of a used database may hold before another takes its place, in bytes.
_ROOM = 8 * 2**20
#: How long the sessions of a test may take to end, in seconds.
_PATIENCE = 30.0

# What a test may have changed for good: everything in the catalog that DDL changes gets another `xmin`. Those that a
# new database has anyhow, with ids below 16384, are thousands, and nobody changes them.
_FINGERPRINT = [
    f"(SELECT sum(hashint8(xmin::text::bigint + oid::bigint)) FROM {catalog} WHERE {which})"
    for catalog, which in {
        **dict.fromkeys(
            (
                *(
                    "pg_class",
                    "pg_constraint",
                    "pg_trigger",
                    "pg_proc",
                    "pg_type",
                    "pg_attrdef",
                    "pg_enum",
                    "pg_policy",
                ),
                *("pg_statistic_ext", "pg_event_trigger", "pg_publication", "pg_extension", "pg_collation"),
                *("pg_default_acl", "pg_largeobject_metadata"),
            ),
            "oid >= 16384",
        ),
        "pg_namespace": "true",
        "pg_database": "datname = current_database()",
    }.items()
] + [
    "(SELECT sum(hashint8(xmin::text::bigint)) FROM pg_attribute WHERE attrelid >= 16384)",
    "(SELECT sum(hashint8(xmin::text::bigint)) FROM pg_db_role_setting)",
]
_TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_RELATIONS = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = '{kind}' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY c.oid
"""


def database_of(url: str, name: str) -> str:
    """Return the URL of another database on the server of a URL, with all its parameters and its password."""
    parameters = dict(urls.parse_server(url).parameters)
    parameters.pop("dbname", None)
    who = ":".join(quote(parameters.pop(key), safe="") for key in ("user", "password") if key in parameters)
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"postgresql://{who}{'@' if who else ''}/{quote(name, safe='')}{query}"


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


class Databases:
    """Databases for tests, on a server that may have others.

    Attributes:
        url: That of a database to connect to while others are made and dropped, by a role that may do that.
        prefix: How the names of those made here begin.
    """

    def __init__(self, url: str, prefix: str | None = None) -> None:
        """Make none yet. Those of a run of several processes share a `prefix`."""
        self.url = url
        self.prefix = prefix or f"{new_name(_PREFIX)}_"

    @functools.cached_property
    def _administration(self) -> psycopg.Connection[Any]:
        connection = connect(urls.parse_server(self.url))
        drop_left_over(connection, _PREFIX, seconds=_LEFT_OVER)
        return connection

    @functools.cached_property
    def _strategy(self) -> str:
        """How the server copies a database in the least time.

        A copy of files waits for two checkpoints, which takes half a second if these reach a disk; else it takes half
        of the time of a copy by way of the log.
        """
        ((fsync,),) = self._administration.execute("SHOW fsync")
        return "wal_log" if fsync == "on" else "file_copy"

    def version(self) -> str:
        """Return the server's version: `18.6`."""
        return str(self._administration.info.parameter_status("server_version")).partition(" ")[0]

    def create(self, template: str = "template0", name: str | None = None) -> str:
        """Make a database, a copy of another, and return its URL.

        Raises:
            OperationalError: The role may not do that.
            psycopg.Error: The server refuses for another reason.
        """
        name = name or new_name(self.prefix)
        names = (sql.Identifier(name), sql.Identifier(template))
        command = sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY {self._strategy}").format(*names)
        try:
            # whoever has made the template may have left just now
            when_unused(lambda: self._administration.execute(command))
        except psycopg.errors.InsufficientPrivilege as error:
            raise OperationalError(
                f"tests make databases of their own, and the role of {urls.parse(self.url).name} may not create one: "
                "ALTER ROLE … CREATEDB, or name another role"
            ) from error
        return database_of(self.url, name)

    def drop(self, url: str) -> None:
        """Drop a database, ending all connections to it; nothing happens if there is none."""
        drop(self._administration, urls.parse_server(url).parameters["dbname"])

    def drop_all(self) -> None:
        """Drop all that were made here."""
        found = self._administration.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix]
        ).fetchall()
        for (name,) in found:
            self.drop(database_of(self.url, name))

    def close(self) -> None:
        """Close the connection; the databases stay."""
        if "_administration" in vars(self):
            self._administration.close()
            del self._administration


class Reused:
    """A migrated database that is as new before each test, and another one if a test changed more than its rows.

    To empty it takes a superuser, as triggers and foreign keys are not asked; for another role each test has a new
    copy.

    Attributes:
        url: Its URL.
    """

    def __init__(
        self,
        databases: Databases,
        template: str,
        prepare: Callable[[psycopg.Connection[Any]], object] | None = None,
    ) -> None:
        """Copy the database that is called `template`; `prepare` changes what all tests are to have otherwise."""
        self._databases = databases
        self._template = template
        self._prepare = prepare
        self._make()

    def _make(self) -> None:
        self.url = self._databases.create(self._template)
        # it stays: a new session reads the catalog anew, which is most of what the emptying costs
        self._connection = psycopg.connect(self.url, autocommit=True, application_name=BETWEEN_TESTS)
        if self._prepare:
            self._prepare(self._connection)
        tables, sequences = (self._names(kind) for kind in ("r", "S"))
        kept = [table for table in tables if self._connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]
        emptied = [table for table in tables if table not in kept]
        # rows that the migrations have made stay, and have to be as they were
        rows = [f"(SELECT (count(*), sum(hashint8(xmin::text::bigint)))::text FROM {table})" for table in kept]
        sizes = [f"pg_table_size({_literal(table)})" for table in emptied]
        self._look = f"SELECT {' + '.join(sizes) or 0}, {', '.join(_FINGERPRINT + rows)}"
        _, *self._as_new = self._look_at_it()
        begin = {
            sequence: self._connection.execute(f"SELECT last_value, is_called FROM {sequence}").fetchone() or (1, False)
            for sequence in sequences
        }
        self._empty = "; ".join(
            [
                "SET session_replication_role = replica",  # no trigger notes what goes
                *(f"DELETE FROM {table}" for table in emptied),
                *(f"SELECT setval({_literal(name)}, {value}, {called})" for name, (value, called) in begin.items()),
                "SET session_replication_role = origin",
            ]
        )

    def _names(self, kind: str) -> list[str]:
        return [name for (name,) in self._connection.execute(_RELATIONS.format(kind=kind))]

    def _look_at_it(self) -> tuple[Any, ...]:
        """Return how many bytes the rows take that would go, and what tells whether all else is as it was."""
        return self._connection.execute(self._look).fetchone() or ()

    def close(self) -> None:
        """Close the connection; the database stays."""
        self._connection.close()

    def empty(self) -> None:
        """Make it as new: with the rows of the template, and no connection but those to come."""
        if not self._emptied_in_place():
            self.close()
            self._databases.drop(self.url)
            self._make()

    def _emptied_in_place(self) -> bool:
        try:
            self._end_sessions()
            size, *as_it_is = self._look_at_it()
            if size > _ROOM or as_it_is != self._as_new:
                return False
            self._connection.execute(self._empty)
        except psycopg.Error:
            return False
        return True

    def _end_sessions(self) -> None:
        deadline = monotonic() + _PATIENCE
        # the server's own wait for an end (`pg_terminate_backend(pid, …)`) looks every 100 ms
        while self._connection.execute(_TERMINATE).fetchone() != (0,) and monotonic() < deadline:
            sleep(0.0005)
