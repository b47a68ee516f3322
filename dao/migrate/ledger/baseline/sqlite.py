"""The schema of a SQLite database as the statements that made it, and what they make when replayed in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dao.engine.sqlite import Connection
from dao.errors import MigrationError, MigrationFailed
from dao.migrate.ledger import other_tools, unnoted
from dao.migrate.schema import model, replay
from dao.migrate.schema.catalog import definitions, settings
from dao.migrate.schema.dump import definitions_to_make, ended
from dao.migrate.schema.names import fold
from dao.migrate.schema.reader import read
from dao.migrate.schema.replay import replayed
from dao.migrate.schema.usable import VAGUE, Unusable, check_keys, is_elsewhere, judge
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference

__all__ = ["makers", "remade", "statements"]

#: Numbers in the file's header by which programs know it.
_NUMBERS = ("application_id", "user_version")


def statements(connection: Connection, left_out: Collection[str], applied: Sequence[tuple[str, str]]) -> list[str]:
    """Return the statements that make the schema, without some tables and what applied scripts make; or none.

    Raises:
        MigrationError: One of the scripts cannot be replayed.
    """
    made = replay.makers(applied) if applied else {}
    found = [item for item in definitions_to_make(connection) if fold(item.table) not in left_out]
    found = [item for item in found if (item.type, item.key) not in made]
    if not found:
        return []
    numbers = settings(connection, _NUMBERS)
    pragmas = [f"PRAGMA {name} = {number};" for name, number in numbers.items() if number]
    return [*(ended(item.sql or "") for item in found), *pragmas]


def makers(connection: Connection, migrations: Sequence[Migration], baseline: tuple[str, str]) -> set[str]:
    """Return what is there of that which migrations make, by themselves or after the baseline."""
    made: set[str] = set()
    names = unnoted.names_of(connection)
    scripts = [(migration.id, migration.up.text) for migration in migrations]
    for earlier in ([], [baseline]):
        try:
            with replayed([*earlier, *scripts]) as memory:
                made |= set() if earlier else unnoted.names_of(memory) & names
        except MigrationError as error:
            # that they build on the baseline, or fail for another reason, is another matter
            failed = error.__cause__
            if earlier and isinstance(failed, MigrationFailed):
                what = unnoted.there_already(failed, connection)
                made |= {what[1]} if what else set()
    return made


def remade(
    connection: Connection, own: Migration, _left_out: Collection[str], applied: Sequence[tuple[str, str]]
) -> tuple[list[Difference], list[Unusable]]:
    """Return how the schema differs from what its script makes after those applied, and what a run would refuse in it.

    Raises:
        MigrationError: The script fails in a database with nothing else.
    """
    with replayed([*applied, (own.id, own.up.text)]) as memory:
        differing = other_tools.without(connection, model.differences(read(memory), read(connection)))
        made = frozenset(definitions(memory))
        found = [*judge(memory, made, {fold(item.table) for item in made}), *check_keys(memory)[1]]
    return differing, sorted(one for one in found if one.reason != VAGUE and not is_elsewhere(one.reason))
