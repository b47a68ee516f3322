"""The database that the commands of work open: there, with the tables of claims in it, and never made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from dao import settings
from dao.engine import Connection, connect
from dao.errors import SchemaOutOfDate
from dao.migrate import database as databases
from dao.migrate.schema.registration import register

__all__ = ["check_schema", "opened"]

# The last migration of those that the commands of work need, and what it makes.
_MIGRATION = "20261128010500_create_task_views"
_VIEW = "task_overview"


@contextlib.contextmanager
def opened(config: settings.Settings, *, changes: bool = False) -> Iterator[Connection]:
    """Lend a connection to the database for a block; it creates none.

    Unless the block `changes` something, the database keeps its journal mode.

    Raises:
        MigrationError: There is no such database.
        SchemaOutOfDate: As `check_schema`.
        OperationalError: It cannot be opened.
    """
    url = config.url.creating_nothing()
    databases.existing(url, "see or do")
    connection = connect(url if changes else url.switching_nothing())
    try:
        register(connection)
        check_schema(connection, config)
        yield connection
    except (KeyboardInterrupt, click.Abort) as interruption:
        interruption.look = "dao tasks list"  # type: ignore[union-attr] # at the tasks, not at the migrations
        raise
    finally:
        connection.close()


def check_schema(connection: Connection, config: settings.Settings) -> None:
    """Refuse a database whose schema is older than what the commands of work read.

    Raises:
        SchemaOutOfDate: It is; the message says what to run.
    """
    with databases.translated(connection):
        if "status" in databases.columns_of(connection, _VIEW):
            return
    raise SchemaOutOfDate(
        f"{config.url.name}: its schema has no {_VIEW}, which {_MIGRATION} makes: run `dao migrate`, then repeat",
        pending=[_MIGRATION],
    )
