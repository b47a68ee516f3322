"""Whether the schema is what the migrations make."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dao.engine import Connection
from dao.errors import MigrationError, visible
from dao.migrate.database import Target, existing, opened
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema import catalog, model
from dao.migrate.schema.model import Schema
from dao.migrate.schema.reader import read
from dao.migrate.schema.replay import Script, replayed
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration, checksum
from dao.migrate.values import Difference

if TYPE_CHECKING:
    from dao.migrate.schema.replay import Difference, Made
    from dao.migrate.schema.usable import Texts
    from dao.migrate.values import Step

__all__ = ["Found", "applied", "diff", "differences", "expected", "is_clean", "made_by", "own_drops", "record"]


def applied(migrations: Sequence[Migration], state: Ledger) -> list[Script]:
    """Return the scripts that the ledger says were applied, in that order: its texts, or the files' where it has none.

    Raises:
        MigrationError: The stock yoyo applied one whose file has gone, so nobody has its text.
    """
    files = {migration.id: migration.up.text for migration in migrations}
    scripts: list[Script] = []
    for entry in state.entries:
        text = files.get(entry.id) if entry.text is None else entry.text
        if text is None:
            raise MigrationError(
                f"{visible(entry.id, line=True)}: the ledger of {state.database} has no text of it, since yoyo applied it, and its file has "
                "gone: put the file back"
            )
        scripts.append((entry.id, text))
    return scripts


def expected(migrations: Sequence[Migration], state: Ledger) -> Schema:
    """Return the schema that the applied migrations make: those of the ledger, replayed in memory.

    Raises:
        MigrationError: One cannot be replayed, or nobody has its text.
    """
    with replayed(applied(migrations, state)) as connection:
        return read(connection)


def diff(target: Target, migrations: Source = None) -> list[Difference]:
    """Return in what the schema of a database is not the one that its applied migrations make. Reads only.

    Raises:
        MigrationFileError: A file is not what it should be.
        MigrationError: The database does not exist, or its migrations cannot be replayed.
    """
    files = loaded(migrations)
    with opened(existing(target, "compare"), read_only=True) as connection:
        # both as of one moment, while others go on
        begun = not connection.in_transaction
        if begun:
            connection.execute("BEGIN")
        try:
            state, actual = ledger.read(connection), read(connection)
        finally:
            if begun:
                connection.execute("ROLLBACK")
    return model.differences(expected(files, state), actual)


_READ = (
    "SELECT _dao_schema.schema_version, _dao_schema.migrations, _dao_schema.live, _dao_schema.expected FROM _dao_schema"
)
_OBJECTS = frozenset({"table", "virtual table", "view"})
_WRITE = "INSERT OR REPLACE INTO _dao_schema (only, schema_version, migrations, live, expected) VALUES (1, ?, ?, ?, ?)"
#: What stands before the hash of a schema that is what its migrations make: nothing else is there, or tables of others are.
#: Where it is another there is no hash, but a list in JSON of the tables and views that migrations left behind.
_ALONE, _BESIDE = "=", "+"


@attrs.frozen
class Found:
    """In what a schema is not what its migrations make. `unknown` says why that cannot be told; then it has no differences."""

    differences: tuple[Difference, ...] = ()
    unknown: str | None = None


def differences(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """Return in what the live schema is not what its migrations make. Reads only; two numbers and a row, if it is.

    Tables and views beside those of the migrations are no difference, since the file may hold more than this package's; but
    those are that a migration made which is not applied any more, or a rollback. If the migrations cannot be replayed,
    nothing is known, and nothing returned.
    """
    noted = _noted(connection)
    if noted is None and not state.entries:
        return []
    if _is_of(noted, state) and (noted[3] is None or noted[3][1:] == _live(connection, noted)):
        return []
    try:
        return _told(_compare(connection, migrations, state), _left(noted))
    except MigrationError:
        return []


def _compare(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    from dao.migrate.schema import replay as schema  # noqa: PLC0415 - what is asked at every start of a program should be cheap

    return schema.differences(expected(migrations, state), schema.read(connection))


def _told(found: Iterable[Difference], left: frozenset[str]) -> list[Difference]:
    """Return the differences without the tables and views of others; those that were `left` behind are not others'."""
    return [one for one in found if not _is_beside(one) or _name(one) in left]


def _is_beside(difference: Difference) -> bool:
    return difference.kind == "unexpected" and difference.part is None and difference.type in _OBJECTS


def _name(difference: Difference) -> str:
    return difference.name.lower()  # tables and views share their names


def is_clean(connection: Connection, state: Ledger) -> bool:
    """Return whether it is known that the schema is what its migrations make and nothing else, without replaying them."""
    noted = _noted(connection)
    if noted is None:
        from dao.migrate.schema import replay as schema  # noqa: PLC0415 - see above

        return not state.entries and schema.is_empty(connection)
    return _is_of(noted, state) and noted[3] == _ALONE + _live(connection, noted)


def record(
    connection: Connection,
    migrations: Sequence[Migration],
    before: Ledger,
    *,
    schema_before: Texts | None = None,
    clean: bool = False,
) -> Found:
    """Note the schema as it is, in the transaction that is open, and return in what it is not what its migrations make.

    `before` is the ledger before the change: what its migrations made and those of now do not is left behind, as is what
    scripts have added to `schema_before`. `clean`: the schema is known to be what they make, and nothing else is there.
    """
    from dao.migrate.schema import replay as schema  # noqa: PLC0415 - see above

    live = schema.fingerprint(connection)
    expected: str | None = _ALONE + live
    found = Found()
    if not clean:
        state = ledger.read(connection)
        try:
            there = _compare(connection, migrations, state)
            beside = frozenset(_name(one) for one in there if _is_beside(one))
            gone = beside and not set(before.entries) <= set(state.entries)
            left = beside & (_left(_noted(connection)) | (_made(migrations, before) if gone else frozenset()))
            if schema_before is not None:
                left |= beside - {item.name.lower() for item in schema_before}
            found = Found(tuple(_told(there, left)))
            expected = json.dumps(sorted(left)) if found.differences else (_BESIDE if beside else _ALONE) + live
        except MigrationError as error:
            found, expected = Found(unknown=str(error)), None
    applied = _applied(_checksums(ledger.read(connection)))
    connection.execute(_WRITE, (connection.pragma("schema_version"), applied, live, expected))
    return found


def _made(migrations: Sequence[Migration], state: Ledger) -> frozenset[str]:
    """Return the names of the tables and views that applied migrations make; none if that cannot be told."""
    try:
        return frozenset(name for type, name in expected(migrations, state).objects if type in _OBJECTS)
    except MigrationError:
        return frozenset()


def made_by(step: Step, migrations: Sequence[Migration], state: Ledger) -> Made:
    """Return the tables and columns that the migration of a step made; nothing if that cannot be told."""
    from dao.migrate.schema import replay as schema  # noqa: PLC0415 - see above

    try:
        scripts = applied(migrations, state)
        earlier = scripts[: state.ids.index(step.id)]
        return schema.made_by(earlier, step.id, scripts[len(earlier)][1])
    except MigrationError:
        return schema.Made(frozenset(), frozenset())


def own_drops(step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """Return what the rollback of a step takes away of what its own migration made, as `tasks.priority`; sorted."""
    from dao.migrate.schema import replay as schema  # noqa: PLC0415 - see above

    made = made_by(step, migrations, state)
    try:
        scripts = applied(migrations, state)
        with schema.replayed([*scripts[: state.ids.index(step.id) + 1], (step.id, step.script.text)]) as after:
            left = catalog.column_names(after)
    except MigrationError:
        return ()
    tables = {table for table, _ in left}
    gone = [f"table {table}" for table in made.tables if table not in tables]
    gone += [
        f"column {table}.{column}"
        for table, column in made.columns
        if table not in made.tables and (table, column) not in left
    ]
    return tuple(sorted(gone))


def _noted(connection: Connection) -> Any:
    if "_dao_schema" not in catalog.table_names(connection):
        return None
    return connection.execute(_READ).fetchone()


def _is_of(noted: Any, state: Ledger) -> bool:
    """Return whether what was noted is of the migrations that are applied now."""
    return noted is not None and bool(noted[1] == _applied(_checksums(state)))


def _live(connection: Connection, noted: Any) -> str:
    """Return the hash of the schema as it is: the noted one, unless something has changed it since."""
    version, _, live, _ = noted
    if connection.pragma("schema_version") != version:
        from dao.migrate.schema import replay as schema  # noqa: PLC0415 - see above

        live = schema.fingerprint(connection)
    return str(live)


def _left(noted: Any) -> frozenset[str]:
    """Return the names of the tables and views that were noted as left behind, in lower case."""
    with contextlib.suppress(ValueError):  # somebody else's note
        if noted is not None and (noted[3] or "").startswith("["):
            return frozenset(json.loads(noted[3]))
    return frozenset()


def _applied(entries: Iterable[tuple[str, str | None]]) -> str:
    """Return a hash of what is applied: if that has moved on, by the stock yoyo for one, what was noted says nothing."""
    return str(checksum("\n".join(f"{id} {sum_}" for id, sum_ in entries)))


def _checksums(state: Ledger) -> list[tuple[str, str | None]]:
    return [(entry.id, entry.checksum) for entry in state.entries]
