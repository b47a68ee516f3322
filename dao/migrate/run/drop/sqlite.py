"""Dropping on SQLite what the migrations made: which that is, a replay in memory shows."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from dao.engine.sqlite import Connection
from dao.errors import MigrationError
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied, made_by
from dao.migrate.ledger.other_tools import is_replicators
from dao.migrate.ledger.sets import Sets
from dao.migrate.schema.catalog import column_names, definitions
from dao.migrate.schema.names import fold, is_internal, quoted
from dao.migrate.schema.replay import makers, replayed
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step
from dao.text import visible

__all__ = ["Dropping", "own_drops"]


@attrs.define
class Dropping:
    """As `dao.migrate.run.drop.Dropping`."""

    connection: Connection
    torn: list[tuple[str, str]] = attrs.Factory(list)
    #: The objects, columns and names of tables of sets that are not named, by type and name.
    others: frozenset[tuple[str, str]] = frozenset()

    def foreign(self, migrations: Sequence[Migration], ledger: Ledger, its: Sets) -> list[str]:
        """As `dao.migrate.run.drop.Dropping.foreign`: tables and views, but for those of a program that replicates."""
        present = _tables_and_views(self.connection)
        if not present:
            return []
        try:
            made = makers(applied(migrations, ledger), parts=True)
        except MigrationError as error:
            raise MigrationError(
                f"what the applied migrations made cannot be told from what is somebody else's: {error}. Drop the "
                "database file yourself if that is what you want"
            ) from error
        self.others = frozenset(key for key, id in made.items() if not its.is_named(id))
        there = [(item.type, item.key, item.name, item.table) for item in definitions(self.connection)]
        for table, column in sorted(column_names(self.connection)):
            type, part = ("column", column) if column else ("name", table)
            there.append((type, f"{table}.{part}", part, table))
        self.torn = [
            (f"the {type} {name}", table)
            for type, key, name, table in there
            if (type, key) in self.others and self.others.isdisjoint(_of_table(table))
        ]
        return sorted(visible(f"{kind} {name}", line=True) for kind, name in present - made.keys())

    def all(self) -> None:
        """As `dao.migrate.run.drop.Dropping.all`: tables, views and triggers."""
        order = ("trigger", "view", "table")
        found = [item for item in definitions(self.connection) if item.type in order and not _stays(item.name)]
        found = [item for item in found if (item.type, item.key) not in self.others]
        for item in sorted(found, key=lambda item: (order.index(item.type), not item.is_virtual)):
            # a virtual table takes its shadow tables along
            if item.type != "table" or self.connection.table_exists("main", item.name):
                self.connection.execute(f"DROP {item.type.upper()} {quoted(item.name)}")


def own_drops(step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """As `dao.migrate.run.drop.own_drops`."""
    made = made_by(step, migrations, state)
    try:
        scripts = applied(migrations, state)[: state.ids.index(step.id) + 1]
        with replayed([*scripts, (step.id, step.script.text)]) as after:
            left = column_names(after)
    except MigrationError:
        return ()
    # a table is listed with the column ""
    gone = [f"table {table}" for table in made.tables if (table, "") not in left]
    gone += [f"column {table}.{column}" for table, column in made.columns - left if table not in made.tables]
    return tuple(sorted(gone))


def _of_table(name: str) -> list[tuple[str, str]]:
    return [("table", fold(name)), ("view", fold(name))]


def _stays(name: str) -> bool:
    return is_internal(name) or is_replicators(name)


def _tables_and_views(connection: Connection) -> set[tuple[str, str]]:
    return {
        (item.type, fold(item.name))
        for item in definitions(connection, internal=False)
        if item.type in {"table", "view"} and not _stays(item.name)
    }
