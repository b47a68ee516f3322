"""The schema that migrations make on PostgreSQL: their scripts run in a scratch database, which goes at the end.

A schema in the database itself would not do: scripts name other schemas, make extensions, and some run outside of any
transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import attrs
import psycopg

from dao import url
from dao.engine import connect, execute, transaction
from dao.engine.postgresql import Connection, name_of
from dao.errors import Error, MigrationError, OperationalError
from dao.migrate.schema.postgresql import reader
from dao.migrate.schema.postgresql.owners import Owners
from dao.migrate.schema.postgresql.script import run_script
from dao.migrate.schema.postgresql.session import of_run
from dao.migrate.schema.postgresql.temporary import drop, drop_left_over, new_name
from dao.migrate.schema.replay import not_replayed
from dao.migrate.scripts.migration import Migration

__all__ = ["replayed", "scratch"]

_PREFIX = "dao_scratch_"
#: A scratch database is left over, for certain, once it is as old as this, in seconds, and nobody is connected to it.
_OLD = 3600


@contextlib.contextmanager
def scratch(server: url.ServerURL) -> Iterator[Connection]:
    """Lend a connection to a new, empty database on a server, in UTF-8, and drop that after the block.

    One that a killed process has left is dropped by a later call, after an hour.

    Raises:
        MigrationError: The role may not create a database.
        OperationalError: The server cannot be reached.
    """
    name = new_name(_PREFIX)
    with contextlib.closing(connect(server)) as connection:
        drop_left_over(connection, _PREFIX, seconds=_OLD)
        try:
            # template1 has what somebody has put there
            execute(connection, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            raise MigrationError(
                f"the scripts are tried in a database of their own on {name_of(connection)}, and the role may not "
                "create one: ALTER ROLE … CREATEDB, or name another server with --database, such as one for tests"
            ) from error
        try:
            parameters = {**server.parameters, "dbname": name}
            with contextlib.closing(connect(attrs.evolve(server, parameters=parameters))) as lent:
                yield lent
        finally:
            with contextlib.suppress(psycopg.Error, Error):
                drop(connection, name)


@contextlib.contextmanager
def replayed(
    server: url.ServerURL, migrations: Iterable[Migration], *, owners: Owners | None = None
) -> Iterator[Connection]:
    """Lend a connection to a scratch database in which migrations have run, by the rules of a run.

    `owners` notes whose set has made what.

    Raises:
        MigrationError: One of them fails in an empty database; and as `scratch`.
    """
    with scratch(server) as connection:
        with of_run(connection):
            for migration in migrations:
                if owners is not None:
                    owners.turn_to(migration.set, connection)
                _replay(connection, migration)
            if owners is not None:
                owners.look(reader.read(connection))
        yield connection


def _replay(connection: Connection, migration: Migration) -> None:
    script = migration.up
    try:
        with transaction(connection) if script.transactional else contextlib.nullcontext():
            run_script(connection, migration.id, script)
    except (Error, psycopg.Error) as error:
        raise not_replayed(migration.id, error) from error
