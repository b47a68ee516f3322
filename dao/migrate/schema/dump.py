"""The schema as one text."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import apsw

from dao import url
from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import Definition, definitions, tables
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.schema.replay import makers, replayed
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import check_named, names

__all__ = ["definitions_to_make", "dump", "ended"]


# so that it can be executed as it stands: triggers may be on views, and virtual tables show tables and views
_ORDER = ("table", "index", "view", "virtual table", "trigger")
_HEADER = """\
-- The schema that the migrations make, up to and with {last}.
-- Written by `dao schema dump`: do not edit it, write a migration.
"""


def dump(
    migrations: Source = None,
    *,
    set: str | None = None,
    server: str | url.ServerURL | None = None,
    prepare: Prepare | None = None,
) -> str:
    """Return the schema that the migrations make, as a script. Executed in an empty database, it makes that schema.

    On SQLite they are replayed in memory. Tables come first, then indexes, views, virtual tables and triggers, each by
    name; the text is SQLite's own. Migrations for PostgreSQL are replayed on a `server`, by the URL of any database on
    it, in a database of their own that is dropped then; the role has to be one that may create it. What something needs
    comes before it there, and the texts are the server's.

    With `set` it is only what the migrations of that set make: executed where those of the others are applied on which
    it depends, it makes the rest.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: One of them fails in an empty database, the role may create none, or no set has this name.
        OperationalError: The server cannot be reached.
    """
    files = loaded(migrations, "sqlite" if server is None else "postgresql")
    check_named(set, names(files))
    others = frozenset(migration.id for migration in files if set is not None and migration.set != set)
    if server is not None:
        found = _on_server(files, url.parse_server(server), set)
    else:
        with preparing(prepare):
            found = _in_memory(files, others)
    last = [migration.id for migration in files if migration.id not in others]
    header = _HEADER.format(last=last[-1] if last else "none")
    return "\n".join([header, *(f"{sql}\n" for sql in found)])


def _in_memory(files: Sequence[Migration], others: Collection[str]) -> list[str]:
    """Return the statements that make the schema, without what some `others` of the migrations make."""
    scripts = [(migration.id, migration.up.text) for migration in files]
    made = makers(scripts, patience=math.inf) if others else {}
    with replayed(scripts, patience=math.inf) as connection:
        found = sorted(definitions_to_make(connection), key=lambda item: (_ORDER.index(item.kind), item.name))
    return [ended(item.sql or "") for item in found if made.get((item.type, item.key)) not in others]


def _on_server(files: Sequence[Migration], server: url.ServerURL, set: str | None) -> list[str]:
    """As `_in_memory`, on a server: what the migrations of a set make, or all of them."""
    from dao.migrate.schema.postgresql.dump import statements  # noqa: PLC0415 - psycopg takes 100 ms
    from dao.migrate.schema.postgresql.owners import Owners  # noqa: PLC0415 - likewise
    from dao.migrate.schema.postgresql.replay import replayed  # noqa: PLC0415 - likewise

    owners = None if set is None else Owners()
    with replayed(server, files, owners=owners) as connection:
        found = statements(connection, lambda one: owners is not None and owners.of[one.type, one.name] != set)
    return [f"{sql};" for sql in found]


def definitions_to_make(connection: Connection) -> list[Definition]:
    """Return what a script has to make for the schema of a database, in an order in which it can.

    Within a kind it is the order in which they were made, which is that in which triggers fire.
    """
    # shadow tables come with their virtual table, and indexes of constraints with their table
    shadows = {table.name for table in tables(connection) if table.kind == "shadow"}
    found = [item for item in definitions(connection, internal=False) if item.sql is not None]
    found = [item for item in found if item.table not in shadows]
    return sorted(found, key=lambda item: (_ORDER.index(item.kind), item.number))


def ended(sql: str) -> str:
    """Return a statement with its semicolon, which must not end up in a comment."""
    return sql + (";" if apsw.complete(sql + ";") else "\n;")
