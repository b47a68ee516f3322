"""The schema that the applied migrations make, found by replaying them, and how another one differs from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import attrs

from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.ledger import other_tools
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema import model, replay
from dao.migrate.schema.model import Schema
from dao.migrate.schema.reader import read
from dao.migrate.schema.replay import Made, makers, replayed
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference, Step
from dao.text import visible

__all__ = ["applied", "compare", "expected", "made_by", "makers", "names", "remembering"]


def applied(migrations: Sequence[Migration], state: Ledger) -> list[tuple[str, str]]:
    """Return the scripts that the ledger says were applied, in that order: its texts, or the files' where it has none.

    Raises:
        MigrationError: The stock yoyo applied one whose file has gone, so nobody has its text.
    """
    files = {migration.id: migration.up.text for migration in migrations}
    scripts = []
    for entry in state.entries:
        text = files.get(entry.id) if entry.text is None else entry.text
        if text is None:
            raise MigrationError(
                f"{visible(entry.id, line=True)}: the ledger of {state.database} has no text of it, since yoyo "
                "applied it, and its file has gone: put the file back"
            )
        scripts.append((entry.id, text))
    return scripts


def expected(migrations: Sequence[Migration], state: Ledger) -> Schema:
    """Return the schema that the applied migrations make: those of the ledger, replayed in memory.

    Raises:
        MigrationError: One cannot be replayed, or nobody has its text.
    """
    scripts, memory = applied(migrations, state), _memory.get()
    if memory is not None:
        return memory.schema(scripts)
    with replayed(scripts) as connection:
        return read(connection)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Let `expected` replay a history once in the block, for whoever goes through it: each part of it is known then."""
    token = _memory.set(_Memory())
    try:
        yield
    finally:
        _memory.reset(token)


@attrs.define
class _Memory:
    """A history that was replayed, and the schema before it and after each of its scripts."""

    scripts: list[tuple[str, str]] = attrs.Factory(list)
    schemas: list[Schema] = attrs.Factory(lambda: [Schema({})])

    def schema(self, scripts: list[tuple[str, str]]) -> Schema:
        """Return the schema that scripts make. Reads it after each if they are no part of the history."""
        if self.scripts[: len(scripts)] != scripts:
            self.scripts, self.schemas = [], [Schema({})]
            with replayed(scripts, after=lambda connection: self.schemas.append(read(connection))):
                self.scripts = scripts
        return self.schemas[len(scripts)]


_memory: ContextVar[_Memory | None] = ContextVar("_memory", default=None)


def compare(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """Return how the live schema differs from the one that the applied migrations make, objects of others included.

    The ledgers of other tools are not among them.

    Raises:
        MigrationError: As `expected`.
    """
    return other_tools.without(connection, model.differences(expected(migrations, state), read(connection)))


def names(migrations: Sequence[Migration], state: Ledger) -> frozenset[str]:
    """Return the names of the tables, views and indexes that applied migrations make, by `fold`; none if unknown."""
    try:
        return frozenset(
            name for type, name in expected(migrations, state).objects if "table" in type or type == "view"
        )
    except MigrationError:
        return frozenset()


def made_by(step: Step, migrations: Sequence[Migration], state: Ledger) -> Made:
    """Return the tables and columns that the migration of a step made; nothing if that cannot be told."""
    try:
        scripts = applied(migrations, state)
        place = state.ids.index(step.id)
        return replay.made_by(scripts[:place], *scripts[place])
    except MigrationError:
        return Made(frozenset(), frozenset())
